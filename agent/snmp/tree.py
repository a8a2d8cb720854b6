"""All objects in the order of their OIDs, and the way from a name to an instance.

Every column of the schema is an object whose instances are its row numbers, one
sub-identifier; what is not a column (the system group, later anything with longer
instances) joins as `GivenObject`. Columns are found by the encoded octets of their OID,
so that a GET costs a dictionary hit and a block lookup; GETNEXT and GETBULK are the next
cells of a column, then of the next object.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

from agent.mib.ber import BerError, Wire, decode_oid_contents, encode_oid_contents, encode_subid
from agent.mib.schema import Access, Column, Schema
from agent.snmp.pdu import NO_SUCH_INSTANCE, NO_SUCH_OBJECT, VarBind
from agent.store.snapshot import TableSnapshot

Arcs = tuple[int, ...]


class Tables(Protocol):
    """Where cells are read: the store's View."""

    def table(self, name: str) -> TableSnapshot: ...


class GivenObject(Protocol):
    """An object whose instances are made by somebody else than the store."""

    @property
    def oid(self) -> Arcs: ...
    @property
    def wire(self) -> Wire: ...
    def instance(self, arcs: Arcs) -> bytes | None:
        """TLV of one instance, None where there is none."""

    def after(self, arcs: Arcs) -> tuple[Arcs, bytes] | None:
        """The first instance whose arcs are greater; () begins."""


class Visibility(NamedTuple):
    """Who may read and write an object: bits of access levels, see access.py."""

    readers: int
    writers: int


class TreeObject:
    """An accessible object in its place. `order` counts within `Tree.objects`."""

    __slots__ = ("counter64", "oid", "order", "prefix", "readers", "writers")

    def __init__(self, oid: Arcs, wire: Wire, order: int, visibility: Visibility) -> None:
        self.oid = oid
        self.prefix = encode_oid_contents(oid)
        self.order = order
        self.counter64 = wire is Wire.COUNTER64
        self.readers, self.writers = visibility

    def instance(self, tables: Tables, arcs: Arcs) -> bytes | None:
        """TLV of the instance, None where there is none."""
        raise NotImplementedError

    def run(self, tables: Tables, arcs: Arcs, count: int) -> list[VarBind]:
        """Up to `count` instances behind `arcs`; () begins."""
        raise NotImplementedError


class ColumnObject(TreeObject):
    """A column or a scalar of the schema."""

    __slots__ = ("column", "position", "table")

    def __init__(self, column: Column, order: int, visibility: Visibility) -> None:
        super().__init__(column.oid, column.wire, order, visibility)
        self.column = column
        self.table = column.table
        self.position = column.position

    def instance(self, tables: Tables, arcs: Arcs) -> bytes | None:
        return tables.table(self.table).cell(arcs[0], self.position) if len(arcs) == 1 else None

    def run(self, tables: Tables, arcs: Arcs, count: int) -> list[VarBind]:
        prefix = self.prefix
        cells = tables.table(self.table).run(arcs[0] if arcs else -1, self.position, count)
        return [(prefix + encode_subid(number), tlv) for number, tlv in cells]


class ForeignObject(TreeObject):
    """A GivenObject in its place."""

    __slots__ = ("given",)

    def __init__(self, given: GivenObject, order: int, visibility: Visibility) -> None:
        super().__init__(given.oid, given.wire, order, visibility)
        self.given = given

    def instance(self, tables: Tables, arcs: Arcs) -> bytes | None:
        return self.given.instance(arcs) if arcs else None

    def run(self, tables: Tables, arcs: Arcs, count: int) -> list[VarBind]:
        found: list[VarBind] = []
        while len(found) < count and (next_one := self.given.after(arcs)) is not None:
            arcs, tlv = next_one
            found.append((self.prefix + b"".join(map(encode_subid, arcs)), tlv))
        return found


class Reader(NamedTuple):
    """For whom the tree is read: the bit of the access level, and whether Counter64 is visible (not in SNMPv1,
    RFC 3584 section 4.2.2.1)."""

    bit: int
    counter64: bool


class Place(NamedTuple):
    """Behind which instance to go on: `order` of an object and arcs within it, () = before its first instance."""

    order: int
    arcs: Arcs


class Tree:
    """The objects of one agent; immutable."""

    def __init__(self, schema: Schema, given: Iterable[GivenObject], visibility: VisibilityOf) -> None:
        leaves: list[Column | GivenObject] = [*schema.ordered, *given]
        leaves.sort(key=lambda leaf: leaf.oid)
        self.objects: tuple[TreeObject, ...] = tuple(
            ColumnObject(leaf, order, visibility(leaf.oid))
            if isinstance(leaf, Column)
            else ForeignObject(leaf, order, visibility(leaf.oid))
            for order, leaf in enumerate(leaves)
        )
        self._oids = [leaf.oid for leaf in self.objects]
        for before, oid in zip(self._oids, self._oids[1:], strict=False):
            if oid[: len(before)] == before:
                raise ValueError(f"object {oid} lies within object {before}")
        self._columns = {leaf.prefix: leaf for leaf in self.objects if isinstance(leaf, ColumnObject)}
        self._hidden = tuple(c.oid for c in schema.columns.values() if c.access is Access.NOT_ACCESSIBLE)

    def find(self, name: bytes) -> tuple[TreeObject | None, Arcs]:
        """The object that `name` (contents octets) is an instance of, and the arcs of the instance. Raises
        BerError."""
        start = len(name) - 1  # the last sub-identifier, which begins behind an octet below 0x80
        while start > 0 and name[start - 1] > 0x7F:
            start -= 1
        column = self._columns.get(name[:start])
        if column is not None and (number := _row_number(name[start:])) >= 0:
            return column, (number,)
        oid = decode_oid_contents(name)
        at = bisect_right(self._oids, oid) - 1
        if at >= 0 and oid[: len(self._oids[at])] == self._oids[at]:
            return self.objects[at], oid[len(self._oids[at]) :]
        return None, ()

    def hides(self, name: bytes) -> bool:
        """`name` is an instance of an object that is not accessible. Raises BerError."""
        oid = decode_oid_contents(name)
        return any(oid[: len(hidden)] == hidden for hidden in self._hidden)

    def get(self, tables: Tables, name: bytes, reader: Reader) -> bytes:
        """TLV of the instance, or the exception that takes its place (RFC 3416 section 4.2.1). Raises BerError."""
        found, arcs = self.find(name)
        if found is None or not found.readers & reader.bit or (found.counter64 and not reader.counter64):
            return NO_SUCH_OBJECT
        tlv = found.instance(tables, arcs)
        return NO_SUCH_INSTANCE if tlv is None else tlv

    def place(self, name: bytes) -> Place:
        """Where to go on behind `name`, which need not exist. Raises BerError."""
        found, arcs = self.find(name)
        if found is not None:
            return Place(found.order, arcs)
        return Place(bisect_right(self._oids, decode_oid_contents(name)), ())

    def run(self, tables: Tables, place: Place, count: int, reader: Reader) -> list[VarBind]:
        """Up to `count` instances behind a place, in order; fewer only at the end of what is visible."""
        order, arcs = place
        found: list[VarBind] = []
        while order < len(self.objects):
            leaf = self.objects[order]
            if leaf.readers & reader.bit and (reader.counter64 or not leaf.counter64):
                found += leaf.run(tables, arcs, count - len(found))
                if len(found) == count:
                    break
            order += 1
            arcs = ()
        return found


@lru_cache(maxsize=65536)
def _row_number(octets: bytes) -> int:
    """The one sub-identifier that these octets are, -1 where they are not."""
    try:
        oid = decode_oid_contents(b"\x2b" + octets)
    except BerError:
        return -1
    return oid[2] if len(oid) == 3 else -1


class VisibilityOf(Protocol):
    """Access of an object by its OID."""

    def __call__(self, oid: Sequence[int]) -> Visibility: ...
