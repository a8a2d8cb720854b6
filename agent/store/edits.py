"""Step 1 of a SET: what a varbind says by itself, before any row is looked at.

The codes are those of RFC 3416 section 4.2.5, in its order. The SNMP side resolves names
with the same functions, so whoever asks, the answer is the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.mib.ber import NUMERIC, Value, Wire
from agent.mib.schema import Access, Column, Keeping, Role, Schema, Table
from agent.store.errors import ErrorStatus, Refused
from agent.store.hooks import Edit, Origin

MAX_NUMBER = 0x7FFFFFFF
SHOWN_LENGTH = 600  # more than any value but a segment of a document, which is never shown
UPLOADED = frozenset({"ipsecGwSegmentData"})  # octets of files, which may hold secrets: only their number is shown
ACCEPTED_LENGTH = 160  # of some enumerations only the beginning: the text is shown in a DisplayString


def refusal(status: ErrorStatus, at: int, edit: Edit, why: str, accepted: str = "") -> Refused:
    """`object.instance = value: why; accepted: …`, the value as a person reads it and secrets masked."""
    text = f"{edit.column.name}.{edit.number} = {shown(edit)}: {why}"
    if len(accepted) > ACCEPTED_LENGTH:
        accepted = accepted[:ACCEPTED_LENGTH].rpartition(", ")[0] + ", …"
    return Refused(status, at, f"{text}; accepted: {accepted}" if accepted else text)


def shown(edit: Edit) -> str:
    """The value in a log line or refusal; of long ones the beginning."""
    if edit.column.name in UPLOADED and isinstance(edit.value, bytes):
        return f"({len(edit.value)} octets)"
    text = edit.column.show(edit.value)
    return text if len(text) <= SHOWN_LENGTH else f"{text[:SHOWN_LENGTH]}…"


def resolve(schema: Schema, at: int, oid: Sequence[int], tag: int, value: Value, origin: Origin) -> Edit:
    """Varbind `at` of a SET as an Edit that has passed `check_edit`. Raises Refused: notWritable for a name of no
    object, noCreation for an instance that cannot be, wrongType for another tag than the object's."""
    column = schema.by_oid.get(tuple(oid[:-1]))
    if column is None:
        prefix = tuple(oid[:-2])
        known = schema.by_oid.get(prefix) or schema.by_oid.get(tuple(oid))
        status = ErrorStatus.NOT_WRITABLE if known is None else ErrorStatus.NO_CREATION
        why = "no object of this agent" if known is None else f"{known.name} has instances of one number"
        raise Refused(status, at, f"{'.'.join(map(str, oid))}: {why}")
    edit = Edit(column, oid[-1], value)
    check_access(schema, at, edit, origin)
    if tag != column.wire:
        raise refusal(ErrorStatus.WRONG_TYPE, at, edit, "another type is sent", f"{kind(column)}")
    check_value(schema, at, edit)
    return edit


def check_edit(schema: Schema, at: int, edit: Edit, origin: Origin) -> None:
    """Access, instance, type, length and range of one edit. Raises Refused."""
    check_access(schema, at, edit, origin)
    check_value(schema, at, edit)


def check_access(schema: Schema, at: int, edit: Edit, origin: Origin) -> None:
    """notWritable for what managers cannot write; noAccess for a secret over an insecure way: to such a requester
    the object is in no write view (4.2.5 clause 1), and unlike authorizationError that names the varbind."""
    column = edit.column
    if schema.table_of(column).keeping is not Keeping.STORED and not column.writable:
        raise refusal(ErrorStatus.NOT_WRITABLE, at, edit, "is made by the agent while it runs")
    if origin.kind == "snmp" and not column.writable:
        why = "is read-only" if column.access is Access.READ_ONLY else "is not accessible"
        raise refusal(ErrorStatus.NOT_WRITABLE, at, edit, why)
    if column.traits.role is Role.INDEX:
        raise refusal(ErrorStatus.NOT_WRITABLE, at, edit, "is the number of the row, filled in by the agent")
    if column.traits.role is Role.SECRET and not origin.secure:
        raise refusal(ErrorStatus.NO_ACCESS, at, edit, "secrets are set by SNMPv3 authPriv or from this host only")


def check_value(schema: Schema, at: int, edit: Edit) -> None:
    """wrongType, wrongLength, wrongValue of the value; noCreation for an instance that can never be."""
    column, value = edit.column, edit.value
    problem = column.problem(value)
    if problem:
        accepted = problem.removeprefix("accepted: ")
        if accepted == problem:
            raise refusal(ErrorStatus.WRONG_TYPE, at, edit, "another type is sent", problem)
        if isinstance(value, bytes):
            raise refusal(ErrorStatus.WRONG_LENGTH, at, edit, f"{len(value)} octets", accepted)
        raise refusal(ErrorStatus.WRONG_VALUE, at, edit, "no value of this object", accepted)
    table = schema.table_of(column)
    accepted = "0" if table.scalar else _numbers(table)
    if table.scalar != (edit.number == 0) or not 0 <= edit.number <= highest_number(table):
        raise refusal(ErrorStatus.NO_CREATION, at, edit, "there can be no such instance", f"instance {accepted}")
    if column.traits.role is Role.INDEX_CREATING and value != edit.number:
        why = "it is the number of the row, which the instance says"
        raise refusal(ErrorStatus.INCONSISTENT_VALUE, at, edit, why, str(edit.number))


def kind(column: Column) -> str:
    """Name of the wire type in SMI."""
    names = {Wire.OCTET_STRING: "OCTET STRING", Wire.OBJECT_IDENTIFIER: "OBJECT IDENTIFIER", Wire.GAUGE32: "Unsigned32"}
    plain = {Wire.IP_ADDRESS: "IpAddress", Wire.INTEGER: "INTEGER"}
    return {**names, **plain}.get(column.wire, column.wire.name.title() if column.wire in NUMERIC else column.wire.name)


def highest_number(table: Table) -> int:
    """Of its rows."""
    ranges = table.index.ranges if table.index is not None else ()
    return min(max((high for _, high in ranges), default=MAX_NUMBER), MAX_NUMBER)


def _numbers(table: Table) -> str:
    return f"1..{highest_number(table)}"
