"""SNMP-TARGET-MIB (RFC 3413): ipsecGwTargetTable, our table of receivers of notifications, as the standard has it.

One row of ours is an address and its parameters under one name, and a tag by which
snmpNotifyTable (notification.py) finds it. To look at; written is ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from agent.mib.ber import Value, Wire
from agent.snmp.keychange import protocols
from agent.snmp.standard.facts import Facts
from agent.snmp.standard.objects import (
    ROW_ACTIVE,
    STORAGE_READ_ONLY,
    AdvisoryLock,
    Picture,
    Rows,
    Scalar,
    StandardObject,
    table,
)
from agent.snmp.standard.system import SNMP_MODULES, counter
from agent.snmp.tree import Arcs
from agent.snmp.users import USER_TABLE
from agent.store.snapshot import Configuration, Row

TARGET: Final = (*SNMP_MODULES, 12, 1)
TARGET_TABLE: Final = "ipsecGwTargetTable"
UDP_DOMAIN: Final = (1, 3, 6, 1, 6, 1, 1)  # snmpUDPDomain, RFC 3417
UDP6_DOMAIN: Final = (1, 3, 6, 1, 2, 1, 100, 1, 2)  # transportDomainUdpIpv6, RFC 3419
TAGS: Final = {1: b"trap", 2: b"inform"}  # by ipsecGwTargetKind
MODELS: Final = {1: (0, 1), 2: (1, 2), 3: (3, 3)}  # ipsecGwTargetVersion → message processing, security
LONGEST_NAME: Final = 32
NOT_IN_SERVICE: Final = 2

ADDRESSES: Final = {
    2: ("snmpTargetAddrTDomain", Wire.OBJECT_IDENTIFIER),
    3: ("snmpTargetAddrTAddress", Wire.OCTET_STRING),
    4: ("snmpTargetAddrTimeout", Wire.INTEGER),
    5: ("snmpTargetAddrRetryCount", Wire.INTEGER),
    6: ("snmpTargetAddrTagList", Wire.OCTET_STRING),
    7: ("snmpTargetAddrParams", Wire.OCTET_STRING),
    8: ("snmpTargetAddrStorageType", Wire.INTEGER),
    9: ("snmpTargetAddrRowStatus", Wire.INTEGER),
}
PARAMETERS: Final = {
    2: ("snmpTargetParamsMPModel", Wire.INTEGER),
    3: ("snmpTargetParamsSecurityModel", Wire.INTEGER),
    4: ("snmpTargetParamsSecurityName", Wire.OCTET_STRING),
    5: ("snmpTargetParamsSecurityLevel", Wire.INTEGER),
    6: ("snmpTargetParamsStorageType", Wire.INTEGER),
    7: ("snmpTargetParamsRowStatus", Wire.INTEGER),
}
COUNTERS: Final = {4: "snmpUnavailableContexts", 5: "snmpUnknownContexts"}


class Target(NamedTuple):
    """A row of ours under the name that it has in the standard tables."""

    name: bytes
    row: Row

    @property
    def arcs(self) -> Arcs:
        """IMPLIED: without its length."""
        return tuple(self.name)


def targets(configuration: Configuration) -> Iterator[Target]:
    """Rows of any status by number; one without a name, or with that of an earlier one, gets one of its number."""
    seen: set[bytes] = set()
    for row in configuration.rows_any_status(TARGET_TABLE):
        name = row["ipsecGwTargetName"]
        assert isinstance(name, bytes)
        if not name or name in seen:
            ending = f"{row.number}".encode()
            name = (name + b"-" if name else b"target-")[: LONGEST_NAME - len(ending)] + ending
        seen.add(name)
        yield Target(name, row)


def target_objects(facts: Facts) -> list[StandardObject]:
    """Both tables, the lock, and the counters of contexts."""

    def seen() -> tuple[object, ...]:
        running = facts.store.running
        return running.table(TARGET_TABLE), running.table(USER_TABLE)

    scalars = [Scalar((*TARGET, n), Wire.COUNTER32, counter(facts, name), name) for n, name in COUNTERS.items()]
    return [
        AdvisoryLock((*TARGET, 1), "snmpTargetSpinLock"),
        *table((*TARGET, 2, 1), ADDRESSES, Picture(lambda: _addresses(facts.store.running), seen)),
        *table((*TARGET, 3, 1), PARAMETERS, Picture(lambda: _parameters(facts.store.running), seen)),
        *scalars,
    ]


def _addresses(configuration: Configuration) -> Rows:
    rows: dict[Arcs, dict[int, Value]] = {}
    for target in targets(configuration):
        row = target.row
        address, port, kind = row["ipsecGwTargetAddress"], row["ipsecGwTargetPort"], row["ipsecGwTargetKind"]
        assert isinstance(address, bytes) and isinstance(port, int) and isinstance(kind, int)
        rows[target.arcs] = {
            2: UDP6_DOMAIN if len(address) == 16 else UDP_DOMAIN,
            3: (address or bytes(4)) + port.to_bytes(2, "big"),
            4: row["ipsecGwTargetTimeout"],
            5: row["ipsecGwTargetRetries"],
            6: TAGS[kind],
            7: target.name,
            8: STORAGE_READ_ONLY,
            9: ROW_ACTIVE if row.active else NOT_IN_SERVICE,
        }
    return rows


def _parameters(configuration: Configuration) -> Rows:
    rows: dict[Arcs, dict[int, Value]] = {}
    for target in targets(configuration):
        version, number = target.row["ipsecGwTargetVersion"], target.row["ipsecGwTargetUser"]
        assert isinstance(version, int) and isinstance(number, int)
        processing, security = MODELS[version]
        user = configuration.row_any_status(USER_TABLE, number) if version == 3 else None
        rows[target.arcs] = {
            2: processing,
            3: security,
            4: target.name if version != 3 else b"" if user is None else user["ipsecGwUserName"],
            5: 1 if user is None else _level(user),
            6: STORAGE_READ_ONLY,
            7: ROW_ACTIVE if target.row.active else NOT_IN_SERVICE,
        }
    return rows


def _level(user: Row) -> int:
    """SnmpSecurityLevel: noAuthNoPriv, authNoPriv, authPriv."""
    auth, privacy = protocols(user)
    return 1 if auth is None else 2 if privacy is None else 3
