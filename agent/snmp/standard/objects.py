"""What the standard MIBs are made of: scalars, tables that are pictures of something else, advisory locks.

None of these has storage. What can be written has a `Writer`, which turns the variable
bindings of a SET into Edits on our own tables, so that there is one commit and one store.
A table is a `Picture`: worked out when it is first read after something that it shows has
changed, and then looked up in a dictionary.
"""

from __future__ import annotations

import secrets
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from agent.mib.ber import Value, Wire, encode_value
from agent.snmp.access import Principal
from agent.snmp.tree import Arcs
from agent.store.errors import ErrorStatus, Refused
from agent.store.hooks import Edit, Origin

LOCK_VALUES: Final = 1 << 31  # TestAndIncr goes from 2147483647 to 0

STORAGE_NON_VOLATILE: Final = 3  # StorageType of RFC 2579
STORAGE_READ_ONLY: Final = 5
ROW_ACTIVE: Final = 1  # RowStatus of RFC 2579


class Asked(NamedTuple):
    """A variable binding of a SET, of the right type. `at`: its place in the SET, from 0."""

    at: int
    target: StandardObject
    arcs: Arcs
    value: Value

    @property
    def name(self) -> str:
        return ".".join([self.target.name, *map(str, self.arcs)])

    def refusal(self, status: ErrorStatus, why: str, accepted: str = "") -> Refused:
        text = f"{self.name}: {why}"
        return Refused(status, self.at, f"{text}; accepted: {accepted}" if accepted else text)

    def number(self) -> int:
        assert isinstance(self.value, int)
        return self.value

    def octets(self) -> bytes:
        assert isinstance(self.value, bytes)
        return self.value


@dataclass(slots=True)
class Translation:
    """A SET on its way into the store. `places`: for each of `edits` the variable binding it comes from. `done` is
    called when all is stored. `exclusive`: an advisory lock is in it, so nobody else may be at one meanwhile."""

    principal: Principal
    origin: Origin
    edits: list[Edit] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    done: list[Callable[[], None]] = field(default_factory=list)
    exclusive: bool = False

    def add(self, at: int, edit: Edit) -> None:
        self.edits.append(edit)
        self.places.append(at)


class Writer(Protocol):
    """Knows what writing its objects means."""

    def translate(self, asked: Sequence[Asked], into: Translation) -> None:
        """Every variable binding of one SET that is this writer's. Raises Refused."""


class StandardObject(Protocol):
    """A GivenObject with a name, and maybe a writer."""

    @property
    def oid(self) -> Arcs: ...
    @property
    def wire(self) -> Wire: ...
    @property
    def name(self) -> str: ...
    @property
    def writer(self) -> Writer | None: ...
    def instance(self, arcs: Arcs) -> bytes | None: ...
    def after(self, arcs: Arcs) -> tuple[Arcs, bytes] | None: ...


class Scalar:
    """An object with the one instance 0, whose value is asked for each time."""

    def __init__(
        self, oid: Arcs, wire: Wire, value: Callable[[], Value], name: str = "", writer: Writer | None = None
    ) -> None:
        self.oid = oid
        self.wire = wire
        self.name = name or ".".join(map(str, oid))
        self.writer = writer
        self._value = value

    def instance(self, arcs: Arcs) -> bytes | None:
        return encode_value(self.wire, self._value()) if arcs == (0,) else None

    def after(self, arcs: Arcs) -> tuple[Arcs, bytes] | None:
        return None if arcs >= (0,) else ((0,), encode_value(self.wire, self._value()))


class AdvisoryLock:
    """A TestAndIncr (RFC 2579): a SET has to name its value, and moves it on. Begins anywhere, as the RFC wants of
    one that is not kept."""

    wire = Wire.INTEGER

    def __init__(self, oid: Arcs, name: str) -> None:
        self.oid = oid
        self.name = name
        self.value = secrets.randbelow(LOCK_VALUES)

    @property
    def writer(self) -> Writer:
        return self

    def instance(self, arcs: Arcs) -> bytes | None:
        return encode_value(self.wire, self.value) if arcs == (0,) else None

    def after(self, arcs: Arcs) -> tuple[Arcs, bytes] | None:
        return None if arcs >= (0,) else ((0,), encode_value(self.wire, self.value))

    def translate(self, asked: Sequence[Asked], into: Translation) -> None:
        for one in asked:
            only_zero(one)
            if not 0 <= one.number() < LOCK_VALUES:
                raise one.refusal(ErrorStatus.WRONG_VALUE, "no value of this object", f"0..{LOCK_VALUES - 1}")
            if one.value != self.value:
                raise one.refusal(ErrorStatus.INCONSISTENT_VALUE, "somebody was faster", "the value read just now")
        into.exclusive = True
        into.done.append(self._advance)

    def _advance(self) -> None:
        self.value = (self.value + 1) % LOCK_VALUES


def only_zero(asked: Asked) -> None:
    """Raises Refused for another instance of a scalar."""
    if asked.arcs != (0,):
        raise asked.refusal(ErrorStatus.NO_CREATION, "there can be no such instance", "instance 0")


Rows = Mapping[Arcs, Mapping[int, Value]]
"""Values by index arcs and column number."""


class Picture:
    """The rows of a table. `draw` makes them; they are drawn again when `seen` gives other objects than before,
    compared by identity: what is shown is immutable."""

    def __init__(self, draw: Callable[[], Rows], seen: Callable[[], Sequence[object]]) -> None:
        self._draw = draw
        self._seen = seen
        self._of: Sequence[object] | None = None
        self._rows: Rows = {}
        self._order: list[Arcs] = []

    def _look(self) -> None:
        now = self._seen()
        old = self._of
        if old is None or len(old) != len(now) or any(a is not b for a, b in zip(old, now, strict=True)):
            self._rows = self._draw()
            self._order = sorted(self._rows)
            self._of = now

    @property
    def rows(self) -> Rows:
        self._look()
        return self._rows

    def after(self, arcs: Arcs) -> Iterable[Arcs]:
        """The indices behind this one, in order."""
        self._look()
        order = self._order
        for at in range(bisect_right(order, arcs) if arcs else 0, len(order)):
            yield order[at]


class ColumnOf:
    """A column of a picture."""

    def __init__(
        self, oid: Arcs, name: str, wire: Wire, number: int, picture: Picture, writer: Writer | None = None
    ) -> None:
        self.oid = oid
        self.name = name
        self.wire = wire
        self.number = number
        self.writer = writer
        self._picture = picture

    def instance(self, arcs: Arcs) -> bytes | None:
        row = self._picture.rows.get(arcs)
        if row is None or self.number not in row:
            return None
        return encode_value(self.wire, row[self.number])

    def after(self, arcs: Arcs) -> tuple[Arcs, bytes] | None:
        rows = self._picture.rows
        for index in self._picture.after(arcs):
            if self.number in rows[index]:
                return index, encode_value(self.wire, rows[index][self.number])
        return None


Columns = Mapping[int, tuple[str, Wire]]
"""Name and type by number."""


def table(
    entry: Arcs, columns: Columns, picture: Picture, writer: Writer | None = None, writable: Iterable[int] = ()
) -> list[ColumnOf]:
    """The accessible columns of a table with this entry; `writer` takes those that are `writable`."""
    taken = frozenset(writable)
    return [
        ColumnOf((*entry, number), name, wire, number, picture, writer if number in taken else None)
        for number, (name, wire) in columns.items()
    ]


def by_length(octets: bytes) -> Arcs:
    """Index arcs of a string of variable length (RFC 2578 section 7.7)."""
    return (len(octets), *octets)


def oid_by_length(oid: Arcs) -> Arcs:
    """The same of an object identifier."""
    return (len(oid), *oid)


def take_octets(arcs: Arcs) -> tuple[bytes, Arcs] | None:
    """Inverse of by_length: the string, and the arcs behind it."""
    if not arcs or len(arcs) <= arcs[0] or any(arc > 0xFF for arc in arcs[1 : 1 + arcs[0]]):
        return None
    return bytes(arcs[1 : 1 + arcs[0]]), arcs[1 + arcs[0] :]
