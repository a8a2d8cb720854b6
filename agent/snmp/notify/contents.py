"""What a notification says: its name, its objects in the order of the MIB, and their values.

Values come from whoever saw the event where that knew them, else from the tables as they
are, else they are the default: a row may be gone by now. The same variable bindings go into
traps and informs of v2c and v3; SNMPv1 has a PDU of its own (RFC 3584 section 3.2).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from agent.mib.ber import Value, Wire, encode_integer, encode_oid_contents, encode_tlv, encode_value
from agent.mib.schema import Column, Role, Schema
from agent.snmp.notify.pacing import Told
from agent.snmp.pdu import SEQUENCE, PduType, VarBind, encode_varbind
from agent.store.events import Event, Kind, display
from agent.store.snapshot import TableSnapshot

Arcs = tuple[int, ...]

SYS_UP_TIME: Final = (1, 3, 6, 1, 2, 1, 1, 3, 0)
SNMP_TRAP_OID: Final = (1, 3, 6, 1, 6, 3, 1, 1, 4, 1, 0)
STANDARD_TRAPS: Final = (1, 3, 6, 1, 6, 3, 1, 1, 5)  # snmpTraps, RFC 3418
COLD_START: Final = (*STANDARD_TRAPS, 1)
AUTHENTICATION_FAILURE: Final = (*STANDARD_TRAPS, 5)
ENTERPRISE_SPECIFIC: Final = 6  # generic-trap, RFC 1157 section 4.1.6

NAMES: Final = {
    Kind.PEER_UP: "ipsecGwPeerUp",
    Kind.PEER_DOWN: "ipsecGwPeerDown",
    Kind.PEER_BLOCKED: "ipsecGwPeerBlocked",
    Kind.NEGOTIATION_FAILED: "ipsecGwNegotiationFailed",
    Kind.CERTIFICATE_EXPIRING: "ipsecGwCertificateExpiring",
    Kind.CERTIFICATE_EXPIRED: "ipsecGwCertificateExpired",
    Kind.CONFIGURATION_CHANGED: "ipsecGwConfigurationChanged",
    Kind.APPLY_FAILED: "ipsecGwApplyFailed",
    Kind.STORE_ALARM: "ipsecGwStoreAlarm",
}
"""Notifications of ours by kind of event."""
TEXT, PEER, ROW, HELD_BACK = "ipsecGwNotifyText", "ipsecGwNotifyPeer", "ipsecGwNotifyRow", "ipsecGwNotifyHeldBack"
WITH_STANDARD: Final = {Kind.START: (), Kind.AUTHENTICATION_FAILURE: (TEXT, HELD_BACK)}
"""What is added to notifications of RFC 3418, which have no objects: where a failure came from is worth knowing."""


NOTHING: Final[Mapping[Wire, Value]] = {
    Wire.OCTET_STRING: b"",
    Wire.OBJECT_IDENTIFIER: (0, 0),
    Wire.IP_ADDRESS: bytes(4),
}
"""Values of objects that only notifications have, where an event gives none; numbers are 0."""


class Tables(Protocol):
    """Where cells are read: the store's View."""

    def table(self, name: str) -> TableSnapshot: ...


class Contents(NamedTuple):
    """A notification without time and message. `objects`: names and TLVs."""

    oid: Arcs
    objects: tuple[tuple[Arcs, bytes], ...]

    def varbinds(self, uptime: int) -> list[VarBind]:
        """For a trap or inform of SNMPv2 (RFC 3416 section 4.2.6); `uptime` is sysUpTime."""
        first = (
            (SYS_UP_TIME, encode_value(Wire.TIMETICKS, uptime)),
            (SNMP_TRAP_OID, encode_value(Wire.OBJECT_IDENTIFIER, self.oid)),
        )
        return [(encode_oid_contents(name), tlv) for name, tlv in (*first, *self.objects)]

    def trap_v1(self, uptime: int, agent: str) -> bytes:
        """The Trap-PDU of SNMPv1 (RFC 3584 section 3.2). `agent`: the address it is sent from."""
        enterprise: Arcs
        if self.oid[:-1] == STANDARD_TRAPS:
            enterprise, generic, specific = STANDARD_TRAPS, self.oid[-1] - 1, 0
        else:
            cut = 2 if self.oid[-2] == 0 else 1
            enterprise, generic, specific = self.oid[:-cut], ENTERPRISE_SPECIFIC, self.oid[-1]
        address = ipaddress.ip_address(agent.partition("%")[0])
        octets = address.packed if isinstance(address, ipaddress.IPv4Address) else bytes(4)
        body = b"".join(encode_varbind(encode_oid_contents(name), tlv) for name, tlv in self.objects)
        return encode_tlv(
            PduType.TRAP_V1,
            encode_value(Wire.OBJECT_IDENTIFIER, enterprise)
            + encode_tlv(Wire.IP_ADDRESS, octets)
            + encode_integer(generic)
            + encode_integer(specific)
            + encode_value(Wire.TIMETICKS, uptime)
            + encode_tlv(SEQUENCE, body),
        )


def contents(schema: Schema, tables: Tables, told: Told) -> Contents | None:
    """What is sent for an event; None for kinds that nobody is notified of."""
    event = told.event
    given = _given(schema, told)
    if event.kind in WITH_STANDARD:
        oid = COLD_START if event.kind is Kind.START else AUTHENTICATION_FAILURE
        names = WITH_STANDARD[event.kind]
        by_name = {each.name: each for note in schema.notifications.values() for each in note.objects}
        return Contents(oid, tuple(_object(by_name[name].oid, by_name[name].wire, given[name], 0) for name in names))
    notification = schema.notifications.get(NAMES.get(event.kind, ""))
    if notification is None:
        return None
    objects: list[tuple[Arcs, bytes]] = []
    for each in notification.objects:
        column = schema.columns.get(each.name)
        row = 0 if column is None else _row(schema, column, event)
        if each.name in given:
            objects.append(_object(each.oid, each.wire, given[each.name], row))
        elif column is not None:
            objects.append(((*each.oid, row), _cell(tables, column, row)))
        else:
            objects.append(_object(each.oid, each.wire, NOTHING.get(each.wire, 0), row))
    return Contents(notification.oid, tuple(objects))


def _object(oid: Arcs, wire: Wire, value: Value, row: int) -> tuple[Arcs, bytes]:
    return (*oid, row), encode_value(wire, value)


def _given(schema: Schema, told: Told) -> Mapping[str, Value]:
    """Values that are known without a table."""
    event = told.event
    values: dict[str, Value] = {
        TEXT: display(event.text),
        PEER: event.peer,
        HELD_BACK: told.held_back,
        ROW: NOTHING[Wire.OBJECT_IDENTIFIER],
    }
    if event.row is not None:
        values[ROW] = row_oid(schema, *event.row)
    return {**values, **event.values}


def row_oid(schema: Schema, table: str, number: int) -> Arcs:
    """The instance that stands for a row: its RowStatus, else its first column that can be read."""
    found = schema.tables[table]
    column = found.row_status or next(c for c in found.columns if c.traits.role is not Role.INDEX)
    return (*column.oid, number)


def _row(schema: Schema, column: Column, event: Event) -> int:
    """Which row of the column's table an event is about: 0 of scalars, the peer's of its tables, else its own."""
    if schema.table_of(column).scalar:
        return 0
    return event.row[1] if event.row is not None else event.peer


def _cell(tables: Tables, column: Column, row: int) -> bytes:
    tlv = tables.table(column.table).cell(row, column.position)
    return column.default_tlv if tlv is None else tlv


def instances(found: Contents) -> Sequence[Arcs]:
    """Names of the objects, for filters."""
    return [name for name, _ in found.objects]
