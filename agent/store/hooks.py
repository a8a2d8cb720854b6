"""What a commit tells to whom: the signatures of all hooks, and nothing else.

A hook runs on the event loop after the swap and after the reply is on its way. It cannot
veto; an exception in it is logged and the next hook is called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from agent.mib.ber import Value
from agent.mib.schema import Column, Table
from agent.store.snapshot import Configuration, Row


@dataclass(frozen=True, slots=True)
class Origin:
    """Who asks. `kind`: a manager by SNMP, the agent itself, or its start. `source` and `local` are the addresses
    of the SET's datagram as text. `secure`: secrets may be set, that is authPriv or from loopback."""

    kind: Literal["snmp", "agent", "start"]
    user: str = ""
    source: str = ""
    local: str = ""
    secure: bool = False


AGENT = Origin("agent", "agent", secure=True)


@dataclass(frozen=True, slots=True)
class Edit:
    """One varbind of a SET, resolved. A secret, or a sealed column written by the agent, is given in plain; the
    store seals it."""

    column: Column
    number: int
    value: Value

    def __repr__(self) -> str:
        """As a log line has it: secrets are masked."""
        return f"Edit({self.column.name}.{self.number} = {self.column.show(self.value)})"


@dataclass(frozen=True, slots=True)
class RowChange:
    """One row of a commit, as a plan sees it: `before` and `after` are the row while it was or is active, else
    None. `columns`: names of the cells that differ, all of them where the row came into or went out of service.
    Rows of any status: `Change.before.row_any_status(table, number)`."""

    table: str
    number: int
    before: Row | None
    after: Row | None
    columns: frozenset[str]


def row_change(table: Table, number: int, before: Configuration, after: Configuration) -> RowChange:
    """How a row differs between two configurations."""
    old, new = before.row_any_status(table.name, number), after.row_any_status(table.name, number)
    names = frozenset(table.by_name)
    if old is not None and new is not None and old.active == new.active:
        cells = zip(table.columns, old.cells, new.cells, strict=True)
        names = frozenset([column.name for column, a, b in cells if a != b])
    return RowChange(table.name, number, _if_active(old), _if_active(new), names)


def _if_active(row: Row | None) -> Row | None:
    return row if row is not None and row.active else None


def differences(before: Configuration, after: Configuration) -> list[RowChange]:
    """All rows that differ between two configurations of one store; cheap where they have most blocks in common."""
    return [
        row_change(snapshot.table, number, before, after)
        for name, snapshot in after.tables.items()
        for number in snapshot.differing(before.tables[name])
    ]


@dataclass(frozen=True, slots=True)
class Change:
    """One generation. With `replay` it stands for the whole configuration: look at `after`; `before` is empty
    and `rows` lists nothing."""

    generation: int
    before: Configuration
    after: Configuration
    rows: tuple[RowChange, ...]
    origin: Origin
    replay: bool = False


class Subscriber(Protocol):
    """Reconcilers, monitor, notifications."""

    def changed(self, change: Change) -> None:
        """Called once per generation, in order."""


Check = Callable[[Configuration, Configuration, tuple[RowChange, ...], Sequence[Edit], Origin], None]
"""Step 5 of a SET of a manager: (before, after, rows, edits, origin); raises Refused. Pure, on the event loop."""

Placed = tuple[int, Edit]
"""An edit with the position of the varbind that it comes from, which a refusal names."""

Expander = Callable[[Configuration, Sequence[Placed], Origin], Sequence[Placed]]
"""Between steps 1 and 2: what the edits of a SET stand for, on the configuration they are applied to: a password for
its key, a command for what it does. Pure; raises Refused. What comes back is not checked for access."""

Commanded = Callable[[Configuration, Configuration, Sequence[Edit], Origin], None]
"""After step 7 of a SET that names transient objects, whether or not it made a generation: (before, after, edits,
origin). What a command does beside changing the configuration. On the event loop, before hooks of the change."""
