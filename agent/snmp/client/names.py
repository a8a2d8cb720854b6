"""Between what people write and what is on the wire: names and OIDs, values and TLVs, through the schema.

`ipsecTrProto.1`, `IPSEC-GATEWAY-MIB::ipsecTrProto.1`, `.1.3.6.1…` and tuples of arcs all
name an instance; a value is a number, octets, a tuple of arcs, or text that its column
reads: a label, an address, a number.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from functools import lru_cache
from typing import Final, NamedTuple

from agent.mib.ber import NUMERIC, Value, Wire, decode_contents, decode_oid_contents, read_tlv
from agent.mib.schema import Column, Schema, Table
from agent.snmp.client.errors import Oid, UnknownName

Name = str | Oid


class Missing(enum.Enum):
    """What stands in the place of a value (RFC 3416 section 3), by its tag."""

    NO_SUCH_OBJECT = 0x80
    NO_SUCH_INSTANCE = 0x81
    END_OF_MIB_VIEW = 0x82
    NULL = 0x05

    def __bool__(self) -> bool:
        return False


class Tlv(NamedTuple):
    """A value given as it goes on the wire."""

    octets: bytes


class Variable(NamedTuple):
    """An instance and what it holds. `tag` is that of the wire. `column` is the schema's, None for objects it does
    not have."""

    oid: Oid
    tag: int
    value: Value | Missing
    column: Column | None

    @property
    def number(self) -> int:
        """The row: the last arc."""
        return self.oid[-1]

    def show(self) -> str:
        """The value as a person reads it."""
        if isinstance(self.value, Missing):
            return self.value.name.lower().replace("_", " ")
        if self.column is not None:
            return self.column.show(self.value)
        if isinstance(self.value, tuple):
            return "." + ".".join(map(str, self.value))
        if isinstance(self.value, bytes):
            if self.tag == Wire.IP_ADDRESS:
                return str(ipaddress.IPv4Address(self.value))
            text = self.value.decode("utf-8", "backslashreplace")
            return f'"{text}"' if text.isprintable() else self.value.hex(":")
        return str(self.value)


_KNOWN: Final = frozenset(Wire)
_MISSING: Final = {missing.value: missing for missing in Missing}


@lru_cache(maxsize=8192)
def decode_tlv(tlv: bytes) -> tuple[int, Value | Missing]:
    """Tag and value; values of types that are not SNMP's today come as octets. Raises BerError."""
    tag, start, end = read_tlv(tlv)
    if tag in _MISSING:
        return tag, _MISSING[tag]
    if tag not in _KNOWN:
        return tag, tlv[start:end]
    return tag, decode_contents(tag, tlv[start:end])


class Names:
    """Names of one schema; without a schema only dotted numbers are names."""

    def __init__(self, schema: Schema | None) -> None:
        self._columns: dict[str, Column] = {} if schema is None else schema.columns
        self._tables: dict[str, Table] = {} if schema is None else schema.tables
        self._by_prefix = {column.prefix: column for column in self._columns.values()}
        self._by_oid = {column.oid: column for column in self._columns.values()}
        self._lengths = sorted({len(prefix) for prefix in self._by_prefix}, reverse=True)

    def oid(self, name: Name) -> Oid:
        """OID of an object, table or instance. Raises UnknownName."""
        if not isinstance(name, str):
            return tuple(name)
        plain = name.rpartition("::")[2]
        if re.fullmatch(r"\.\d+|\.?\d+(\.\d+)+", plain):
            return tuple(map(int, plain.strip(".").split(".")))
        word, _, rest = plain.partition(".")
        found = self._columns.get(word) or self._tables.get(word)
        if found is None or (rest and not re.fullmatch(r"\d+(\.\d+)*", rest)):
            raise UnknownName(f"{name!r} is no object; accepted: an object's name and its instance, or its OID")
        return (*found.oid, *(map(int, rest.split(".")) if rest else ()))

    def column(self, oid: Oid) -> Column | None:
        """The column that an instance belongs to."""
        for length in range(len(oid), 0, -1):
            if (column := self._by_oid.get(oid[:length])) is not None:
                return column
        return None

    def column_named(self, name: str) -> Column:
        """Raises UnknownName."""
        try:
            return self._columns[name]
        except KeyError:
            raise UnknownName(f"{name!r} is no object") from None

    def table(self, name: str) -> Table:
        """Raises UnknownName."""
        try:
            return self._tables[name]
        except KeyError:
            raise UnknownName(f"{name!r} is no table") from None

    def spoken(self, oid: Oid) -> str:
        """`ipsecTrProto.1`, or the dotted OID of an object that the schema does not have."""
        column = self.column(oid)
        if column is None:
            return "." + ".".join(map(str, oid))
        return ".".join([column.name, *map(str, oid[len(column.oid) :])])

    def variable(self, contents: bytes, tlv: bytes) -> Variable:
        """A variable binding as it came. Raises BerError."""
        tag, value = decode_tlv(tlv)
        for length in self._lengths:
            column = self._by_prefix.get(contents[:length])
            if column is not None and len(contents) > length:
                rest = contents[length:]
                row = (rest[0],) if len(rest) == 1 and rest[0] < 0x80 else arcs(rest)
                return Variable(column.oid + row, tag, value, column)
        return Variable(decode_oid_contents(contents), tag, value, None)

    def tlv(self, oid: Oid, value: Value | str | Tlv) -> bytes:
        """What a SET sends. Raises UnknownName for a value that its object does not accept, and where no schema says
        what kind it is."""
        if isinstance(value, Tlv):
            return value.octets
        column = self.column(oid)
        if column is None:
            raise UnknownName(f"{self.spoken(oid)}: of which type? The object is not known here")
        if isinstance(value, str):
            value = parse_value(column, value)
        problem = column.problem(value)
        if problem:
            raise UnknownName(f"{self.spoken(oid)} = {_shown(column, value)}: {problem}")
        return column.encode(value)


def arcs(contents: bytes) -> Oid:
    """Arcs behind a prefix, encoded. Raises BerError."""
    return decode_oid_contents(b"\x00" + contents)[2:]  # 0.0 stands for the prefix


def parse_value(column: Column, text: str) -> Value:
    """Text as a person writes it: a label (`drop` or `drop(1)`), a number, an IPv4 address, an OID, or for strings
    the text itself. Raises UnknownName, saying what is accepted."""
    if column.wire in NUMERIC:
        label = re.fullmatch(r"([A-Za-z][\w./+-]*)(?:\(\d+\))?", text)
        if label and label[1] in column.labels:
            return column.labels[label[1]]
        if re.fullmatch(r"-?\d+", text):
            return int(text)
    elif column.wire is Wire.IP_ADDRESS:
        try:
            return ipaddress.IPv4Address(text).packed
        except ValueError:
            raise UnknownName(f"{column.name}: {text!r} is no IPv4 address") from None
    elif column.wire is Wire.OBJECT_IDENTIFIER:
        if re.fullmatch(r"\.?\d+(\.\d+)+", text):
            return tuple(map(int, text.strip(".").split(".")))
    else:
        return text.encode()
    accepted = ", ".join(f"{label}({number})" for label, number in column.labels.items()) or "a number"
    raise UnknownName(f"{column.name}: {text!r} is no value; accepted: {accepted}")


def _shown(column: Column, value: Value) -> str:
    try:
        return column.show(value)
    except (ValueError, TypeError):
        return repr(value)
