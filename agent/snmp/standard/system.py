"""SNMPv2-MIB (RFC 3418): the system group, by which managers recognise an agent, and the snmp and set groups.

sysContact, sysName and sysLocation are ours in another place (ipsecGwSystem), and so is
snmpEnableAuthenTraps (ipsecGwNotifyAuthentication): writing here writes there. sysServices
76 is a router that also offers end-to-end and application services: 2^(3-1) + 2^(4-1) +
2^(7-1). sysORTable names what is served, by the identifiers of compliance statements where
we meet one, else of the module.
"""

from __future__ import annotations

import platform
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from agent.mib.ber import Value, Wire
from agent.mib.schema import Column
from agent.snmp.counters import COUNTER32
from agent.snmp.standard.facts import Facts
from agent.snmp.standard.objects import (
    AdvisoryLock,
    Asked,
    Picture,
    Rows,
    Scalar,
    StandardObject,
    Translation,
    only_zero,
    table,
)
from agent.snmp.tree import Arcs
from agent.store.hooks import Edit

SYSTEM: Final = (1, 3, 6, 1, 2, 1, 1)
OR_ENTRY: Final = (*SYSTEM, 9, 1)
SNMP: Final = (1, 3, 6, 1, 2, 1, 11)
SNMP_MODULES: Final = (1, 3, 6, 1, 6, 3)
SET_SERIAL_NUMBER: Final = (*SNMP_MODULES, 1, 1, 6, 1)
GATEWAY: Final = (1, 3, 6, 1, 4, 1, 272, 4, 26)
IDENTITY: Final = (*GATEWAY, 200)  # ipsecGatewayExtMIB, until there is a registration of products
SERVICES: Final = 76
LONGEST: Final = 255  # octets of a DisplayString

CONTACT, NAME, LOCATION = "ipsecGwSystemContact", "ipsecGwSystemName", "ipsecGwSystemLocation"
AUTHENTICATION_TRAPS: Final = "ipsecGwNotifyAuthentication"

COUNTERS: Final = {
    1: "snmpInPkts",
    2: "snmpOutPkts",
    3: "snmpInBadVersions",
    4: "snmpInBadCommunityNames",
    5: "snmpInBadCommunityUses",
    6: "snmpInASNParseErrs",
    8: "snmpInTooBigs",
    9: "snmpInNoSuchNames",
    10: "snmpInBadValues",
    11: "snmpInReadOnlys",
    12: "snmpInGenErrs",
    13: "snmpInTotalReqVars",
    14: "snmpInTotalSetVars",
    15: "snmpInGetRequests",
    16: "snmpInGetNexts",
    17: "snmpInSetRequests",
    18: "snmpInGetResponses",
    19: "snmpInTraps",
    20: "snmpOutTooBigs",
    21: "snmpOutNoSuchNames",
    22: "snmpOutBadValues",
    24: "snmpOutGenErrs",
    25: "snmpOutGetRequests",
    26: "snmpOutGetNexts",
    27: "snmpOutSetRequests",
    28: "snmpOutGetResponses",
    29: "snmpOutTraps",
    31: "snmpSilentDrops",
    32: "snmpProxyDrops",
}
"""Of the snmp group, by number; 7 and 23 were never assigned, 30 is snmpEnableAuthenTraps."""

STANDARD_MODULES: Final = (
    ((*SNMP_MODULES, 1, 2, 1, 3), "SNMPv2-MIB, entities that speak SNMPv2 and SNMPv3 (RFC 3418)"),
    ((*SNMP_MODULES, 10, 3, 1, 1), "SNMP-FRAMEWORK-MIB, management architecture (RFC 3411)"),
    ((*SNMP_MODULES, 11, 3, 1, 1), "SNMP-MPD-MIB, message processing and dispatching (RFC 3412)"),
    ((*SNMP_MODULES, 12, 3, 1, 1), "SNMP-TARGET-MIB, command responders (RFC 3413)"),
    ((*SNMP_MODULES, 13), "SNMP-NOTIFICATION-MIB, read-only (RFC 3413)"),
    ((*SNMP_MODULES, 15, 2, 1, 1), "SNMP-USER-BASED-SM-MIB, user-based security (RFC 3414)"),
    ((*SNMP_MODULES, 16, 2, 1, 1), "SNMP-VIEW-BASED-ACM-MIB, view-based access control (RFC 3415)"),
    ((*SNMP_MODULES, 20), "SNMP-USM-AES-MIB, AES-128 for user-based security (RFC 3826)"),
    ((1, 3, 6, 1, 2, 1, 235), "SNMP-USM-HMAC-SHA2-MIB, SHA-2 for user-based security (RFC 7860)"),
)


class StoredScalar:
    """The Writer of a scalar that is one of ours in another place, of the same type."""

    def __init__(self, column: Column) -> None:
        self._column = column

    def translate(self, asked: Sequence[Asked], into: Translation) -> None:
        for one in asked:
            only_zero(one)
            into.add(one.at, Edit(self._column, 0, one.value))


def counter(facts: Facts, name: str) -> Callable[[], Value]:
    """A Counter32 read from the counters."""
    return lambda: int(getattr(facts.counters, name)) % COUNTER32


def snmpv2_objects(facts: Facts) -> list[StandardObject]:
    """All of SNMPv2-MIB but the notifications' own objects."""
    objects: list[StandardObject] = [*_system_group(facts), *_resources(facts)]
    for number, name in COUNTERS.items():
        objects.append(Scalar((*SNMP, number), Wire.COUNTER32, counter(facts, name), name))
    traps = StoredScalar(facts.column(AUTHENTICATION_TRAPS))
    read = partial(facts.scalar, AUTHENTICATION_TRAPS)
    objects.append(Scalar((*SNMP, 30), Wire.INTEGER, read, "snmpEnableAuthenTraps", traps))
    objects.append(AdvisoryLock(SET_SERIAL_NUMBER, "snmpSetSerialNo"))
    return objects


def _system_group(facts: Facts) -> list[Scalar]:
    version = facts.version
    description = f"ipsec-agent {version}, {platform.system()} {platform.release()} {platform.machine()}".encode()
    uptime = facts.uptime
    read_only: list[tuple[int, str, Wire, Callable[[], Value]]] = [
        (1, "sysDescr", Wire.OCTET_STRING, lambda: description[:LONGEST]),
        (2, "sysObjectID", Wire.OBJECT_IDENTIFIER, lambda: IDENTITY),
        (3, "sysUpTime", Wire.TIMETICKS, lambda: uptime.hundredths),
        (7, "sysServices", Wire.INTEGER, lambda: SERVICES),
        (8, "sysORLastChange", Wire.TIMETICKS, lambda: 0),  # all of it is there from the start
    ]
    stored: list[tuple[int, str, str, Callable[[], Value]]] = [
        (4, "sysContact", CONTACT, partial(facts.scalar, CONTACT)),
        (5, "sysName", NAME, lambda: facts.scalar(NAME) or socket.gethostname().encode()[:LONGEST]),
        (6, "sysLocation", LOCATION, partial(facts.scalar, LOCATION)),
    ]
    objects = [Scalar((*SYSTEM, number), wire, value, name) for number, name, wire, value in read_only]
    for number, name, ours, value in stored:
        writer = StoredScalar(facts.column(ours))
        objects.append(Scalar((*SYSTEM, number), Wire.OCTET_STRING, value, name, writer))
    return objects


def _resources(facts: Facts) -> Sequence[StandardObject]:
    """sysORTable."""
    ours = [(module.oid, f"{module.name}, {module.description}") for module in facts.store.schema.modules]
    modules: list[tuple[Arcs, str]] = [*STANDARD_MODULES, *ours]
    rows: Rows = {(n,): {2: oid, 3: text.encode()[:LONGEST], 4: 0} for n, (oid, text) in enumerate(modules, 1)}
    columns = {
        2: ("sysORID", Wire.OBJECT_IDENTIFIER),
        3: ("sysORDescr", Wire.OCTET_STRING),
        4: ("sysORUpTime", Wire.TIMETICKS),
    }
    return table(OR_ENTRY, columns, Picture(lambda: rows, lambda: ()))
