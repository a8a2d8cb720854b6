"""The MIB as the agent sees it: tables of columns, each with its one description.

`Schema` is made from the compiled modules (compiled.py) and the traits (traits.py) and
is the only place where store, SNMP view, shell and documents learn what an object is.
A scalar group is a table of one row, number 0, so that there is one mechanism for both:
the instance of every object is `column OID . row number`.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from agent.mib.ber import LIMITS, NUMERIC, Value, Wire, encode_oid_contents, encode_value


class Access(enum.Enum):
    """MAX-ACCESS; read-create and read-write are one, since rows are made as DESIGN's Rows says."""

    NOT_ACCESSIBLE = "not-accessible"
    READ_ONLY = "read-only"
    READ_WRITE = "read-write"


class Keeping(enum.Enum):
    """Where the rows of a table come from."""

    STORED = "stored"  # configuration: written by commit, kept in the database
    LIVE = "live"  # made by the agent while it runs: reconciler, monitor, store


class Role(enum.Enum):
    """What a column is to its row, beside its value."""

    PLAIN = "plain"
    INDEX = "index"  # the row's own number
    INDEX_CREATING = "index-creating"  # the same, written to make the row: the number that the manager chose
    CREATING = "creating"  # writing it to an unused number makes the row
    ROW_STATUS = "row-status"  # RFC 2579 RowStatus
    ROW_GENERATION = "row-generation"  # generation of the row's last change; in a SET: must be the current one
    SECRET = "secret"  # input only: reads `*`, kept sealed in the column named by `sealed_in`
    SEALED = "sealed"  # hidden companion of a SECRET: AEAD blob
    TRANSIENT = "transient"  # counts for the SET it comes in, reads its default always


NUMBERS = frozenset({Role.INDEX, Role.INDEX_CREATING})
"""Columns that show the number of their row; no storage keeps them beside it."""
MAKERS = frozenset({Role.CREATING, Role.INDEX_CREATING})
"""Columns that make a row when they are written to an unused number."""


@dataclass(frozen=True, slots=True)
class Traits:
    """What SMI cannot say of one object; see traits.py. Empty for read-only objects."""

    role: Role = Role.PLAIN
    deletes: int | None = None  # this value removes the row
    links: str = ""  # table whose rows this one chains on to: a column of the same table (next link)
    heads: str = ""  # table whose row is the head of a chain: moves on when that row goes
    refers: str = ""  # table of a row that must exist and cannot be deleted meanwhile; 0 = none
    refers_else: tuple[str, int, str] | None = None  # (column, value, table): while that column of the row holds it
    sealed_in: str = ""  # SECRET: name of the SEALED column
    alias_of: str = ""  # another object's former name and place: reads that object, nothing is kept for it
    stage: str = "skeleton"  # skeleton: acts now; else refused unless it is the default, with `limit`
    effect: str = ""
    mechanism: str = ""
    limit: str = ""
    disturbs: str = "nothing"
    shown: str = ""  # what shows the effect: tests/test_….py::test_…, or `lab: scenario`; several with "; " between


NO_TRAITS = Traits()


def show_text(octets: bytes) -> str:
    """In quotation marks, and harmless at a terminal: what cannot be printed appears as `\\x1b`."""
    text = octets.decode("utf-8", "backslashreplace")
    return '"' + "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text) + '"'


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """One accessible or hidden object.

    `oid` is that of the OBJECT-TYPE; `position` counts within `Table.columns`. `ranges` bound the value of numeric
    kinds and the length of strings, () = only the wire type bounds it. `default` is DEFVAL, or 0, empty, 0.0.0.0.
    """

    name: str
    table: str
    oid: tuple[int, ...]
    position: int
    wire: Wire
    convention: str
    labels: Mapping[str, int]
    ranges: tuple[tuple[int, int], ...]
    access: Access
    default: Value
    units: str
    description: str
    traits: Traits = NO_TRAITS
    prefix: bytes = field(init=False)  # encoded contents of `oid`
    default_tlv: bytes = field(init=False)
    names: Mapping[int, str] = field(init=False)  # labels by number

    def __post_init__(self) -> None:
        object.__setattr__(self, "prefix", encode_oid_contents(self.oid))
        object.__setattr__(self, "default_tlv", encode_value(self.wire, self.default))
        object.__setattr__(self, "names", {number: label for label, number in self.labels.items()})

    @property
    def writable(self) -> bool:
        return self.access is Access.READ_WRITE

    def encode(self, value: Value) -> bytes:
        return encode_value(self.wire, value)

    def problem(self, value: Value) -> str:
        """Why this value does not fit enumeration, range or size: what would be accepted; '' when it fits."""
        if self.wire in NUMERIC:
            if not isinstance(value, int):
                return "a number is expected"
            if self.labels:
                return "" if value in self.names else "accepted: " + ", ".join(map(self.show, self.names))
            bounds = self.ranges or (LIMITS[self.wire],)
            return "" if _within(value, bounds) else "accepted: " + _show_ranges(bounds)
        if self.wire is Wire.OBJECT_IDENTIFIER:
            return "" if isinstance(value, tuple) else "an object identifier is expected"
        if not isinstance(value, bytes):
            return "octets are expected"
        if self.wire is Wire.IP_ADDRESS:
            return "" if len(value) == 4 else "accepted: an IPv4 address of four octets"
        bounds = self.ranges or ((0, 65535),)
        return "" if _within(len(value), bounds) else f"accepted: {_show_ranges(bounds)} octets"

    def show(self, value: Value) -> str:
        """The value as a person reads it: `drop(1)`, `10.0.0.1`, `"Branch"`. Secrets are masked."""
        if self.traits.role in (Role.SECRET, Role.SEALED):
            return '"*"'
        if isinstance(value, int):
            return f"{self.names[value]}({value})" if value in self.names else str(value)
        if isinstance(value, tuple):
            return ".".join(map(str, value))
        if self.wire is Wire.IP_ADDRESS and len(value) == 4:
            return str(ipaddress.IPv4Address(value))
        return show_text(value)


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A conceptual table with the stored columns of those that augment it, or a scalar group (`scalar`, one row 0).

    `columns` is in the order of the snapshot's cells: own columns by number, then augmenting ones.
    """

    name: str
    oid: tuple[int, ...]
    keeping: Keeping
    scalar: bool
    columns: tuple[Column, ...]
    augments: str  # LIVE tables that share the row numbers of another: its name
    description: str
    by_name: Mapping[str, Column] = field(init=False)
    index: Column | None = field(init=False)
    creating: tuple[Column, ...] = field(init=False)
    row_status: Column | None = field(init=False)
    row_generation: Column | None = field(init=False)
    deleting: Column | None = field(init=False)

    def __post_init__(self) -> None:
        def one(*roles: Role) -> Column | None:
            return next((c for c in self.columns if c.traits.role in roles), None)

        for name, value in (
            ("by_name", {column.name: column for column in self.columns}),
            ("index", one(*NUMBERS)),
            ("creating", tuple(c for c in self.columns if c.traits.role in MAKERS)),
            ("row_status", one(Role.ROW_STATUS)),
            ("row_generation", one(Role.ROW_GENERATION)),
            ("deleting", next((c for c in self.columns if c.traits.deletes is not None), None)),
        ):
            object.__setattr__(self, name, value)


@dataclass(frozen=True, slots=True)
class NotificationObject:
    """What a notification carries: a column, a scalar, or an object that only notifications have."""

    name: str
    oid: tuple[int, ...]
    wire: Wire


@dataclass(frozen=True, slots=True)
class Notification:
    """NOTIFICATION-TYPE; `oid` is the value of its snmpTrapOID.0."""

    name: str
    oid: tuple[int, ...]
    objects: tuple[NotificationObject, ...]
    description: str


@dataclass(frozen=True, slots=True)
class Module:
    """MODULE-IDENTITY of a module that is served."""

    name: str
    oid: tuple[int, ...]
    description: str


class Schema:
    """All tables and columns of the compiled modules, by name and by OID, and their notifications by name.

    `aliases` are objects whose cells are those of another object: `table` and `position` say where these are. They
    stand in `columns`, `ordered` and `by_oid`, but in no `Table.columns`: nothing is kept for them.
    """

    def __init__(
        self,
        tables: Iterable[Table],
        notifications: Iterable[Notification] = (),
        modules: Iterable[Module] = (),
        aliases: Iterable[Column] = (),
    ) -> None:
        self.notifications: dict[str, Notification] = {each.name: each for each in notifications}
        self.modules: tuple[Module, ...] = tuple(modules)
        self.tables: dict[str, Table] = {table.name: table for table in tables}
        self.aliases: tuple[Column, ...] = tuple(aliases)
        self.columns: dict[str, Column] = {c.name: c for t in self.tables.values() for c in t.columns}
        self.columns |= {column.name: column for column in self.aliases}
        self.ordered: tuple[Column, ...] = tuple(
            sorted(
                (c for c in self.columns.values() if c.access is not Access.NOT_ACCESSIBLE),
                key=lambda column: column.oid,
            )
        )
        self.by_oid: dict[tuple[int, ...], Column] = {column.oid: column for column in self.columns.values()}

    def table_of(self, column: Column) -> Table:
        return self.tables[column.table]


def _within(number: int, bounds: tuple[tuple[int, int], ...]) -> bool:
    return any(low <= number <= high for low, high in bounds)


def _show_ranges(bounds: tuple[tuple[int, int], ...]) -> str:
    return ", ".join(str(low) if low == high else f"{low}..{high}" for low, high in bounds)
