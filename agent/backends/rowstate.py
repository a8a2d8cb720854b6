"""What the apply tables say: per configured row pending, applied, failed, unused or shadowed, and why.

`Ledger` holds only what is not real yet: items (a policy by its key, a connection or secret
by name) that wait or failed, with the rows that show it. A row without an entry is what the
plan says of it. `ApplyTables` publishes rows that were touched, so one change among 100,000
rows costs one row.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from typing import Final, NamedTuple, Protocol

from agent.mib.ber import Value
from agent.mib.schema import Schema, Table
from agent.plan.model import ApplyState, PolicyKey, RowRef, Verdict
from agent.store.events import display
from agent.store.snapshot import TableSnapshot

Item = PolicyKey | str

APPLY_TABLES: Final[Mapping[str, tuple[str, str]]] = {
    "ipsecPeerTable": ("ipsecGwPeerApplyTable", "ipsecGwPeer"),
    "ipsecTrafficTable": ("ipsecGwTrafficApplyTable", "ipsecGwTraffic"),
    "ikeProposalTable": ("ipsecGwIkeProposalApplyTable", "ipsecGwIkeProposal"),
    "ikeProfileTable": ("ipsecGwIkeProfileApplyTable", "ipsecGwIkeProfile"),
    "ikev2ProfileTable": ("ipsecGwIkev2ProfileApplyTable", "ipsecGwIkev2Profile"),
    "ipsecProposalTable": ("ipsecGwIpsecProposalApplyTable", "ipsecGwIpsecProposal"),
    "ipsecProfileTable": ("ipsecGwIpsecProfileApplyTable", "ipsecGwIpsecProfile"),
}


class Entry(NamedTuple):
    """One item that is not real: the rows that show it; `failed`, or waiting; why."""

    rows: tuple[RowRef, ...]
    failed: bool
    text: str


class Ledger:
    """`touched`: rows whose state may have changed since they were last taken by `take_touched`."""

    def __init__(self) -> None:
        self._entries: dict[Item, Entry] = {}
        self._of: dict[RowRef, dict[Item, None]] = {}
        self.touched: set[RowRef] = set()

    def __len__(self) -> int:
        return len(self._entries)

    def policies(self) -> list[PolicyKey]:
        """The policies that are not real."""
        return [item for item in self._entries if isinstance(item, PolicyKey)]

    def wait(self, item: Item, rows: tuple[RowRef, ...], text: str = "") -> None:
        self._enter(item, Entry(rows, False, text))

    def fail(self, item: Item, rows: tuple[RowRef, ...], text: str) -> bool:
        """Whether that is news."""
        return self._enter(item, Entry(rows, True, text))

    def done(self, item: Item) -> None:
        entry = self._entries.pop(item, None)
        if entry is None:
            return
        for row in entry.rows:
            items = self._of.get(row)
            if items is not None:
                items.pop(item, None)
                if not items:
                    del self._of[row]
        self.touched.update(entry.rows)

    def _enter(self, item: Item, entry: Entry) -> bool:
        if self._entries.get(item) == entry:
            return False
        self.done(item)
        self._entries[item] = entry
        for row in entry.rows:
            self._of.setdefault(row, {})[item] = None
        self.touched.update(entry.rows)
        return True

    def of(self, row: RowRef) -> tuple[ApplyState, str] | None:
        """FAILED or PENDING with the reason; None when all of the row is real."""
        items = self._of.get(row)
        if not items:
            return None
        entries = [self._entries[item] for item in items]
        worst = next((entry for entry in entries if entry.failed), None)
        if worst is not None:
            return ApplyState.FAILED, worst.text
        return ApplyState.PENDING, next((entry.text for entry in entries if entry.text), "")

    def take_touched(self) -> set[RowRef]:
        touched, self.touched = self.touched, set()
        return touched


class LiveTables(Protocol):
    """The part of `agent.store.live.Live` that is needed here."""

    def publish(self, name: str, snapshot: TableSnapshot) -> None: ...
    def update(self, name: str, rows: Mapping[int, Mapping[str, Value] | None]) -> None: ...


class RowState(NamedTuple):
    state: ApplyState
    text: str
    generation: int | None  # of the configuration that the state speaks of; None leaves it as it was


class Failures:
    """Calls `tell` once for each new reason why a row failed. A row that waits again is not told of again when it fails
    as before."""

    def __init__(self, tell: Callable[[RowRef, str], None]) -> None:
        self._tell = tell
        self._told: dict[RowRef, str] = {}

    def see(self, ref: RowRef, state: RowState | None) -> None:
        if state is not None and state.state is ApplyState.FAILED:
            if self._told.get(ref) != state.text:
                self._told[ref] = state.text
                self._tell(ref, state.text)
        elif self._told and (state is None or state.state is not ApplyState.PENDING):
            self._told.pop(ref, None)

    def keep(self, table: str, numbers: Container[int]) -> None:
        """Forget rows of a table that are not there any more."""
        for ref in [ref for ref in self._told if ref.table == table and ref.number not in numbers]:
            del self._told[ref]


class ApplyTables:
    """The live tables. A state of None removes the row. `failures` sees every state that is published."""

    def __init__(self, schema: Schema, live: LiveTables, failures: Failures | None = None) -> None:
        self._live = live
        self._see = failures.see if failures is not None else lambda ref, state: None
        self._tables: dict[str, Table] = {name: schema.tables[apply] for name, (apply, _) in APPLY_TABLES.items()}

    def publish(self, states: Iterable[tuple[RowRef, RowState | None]]) -> None:
        """Set these rows."""
        updates: dict[str, dict[int, Mapping[str, Value] | None]] = {}
        for ref, state in states:
            self._see(ref, state)
            updates.setdefault(ref.table, {})[ref.number] = None if state is None else _cells(ref.table, state)
        for table, rows in updates.items():
            self._live.update(APPLY_TABLES[table][0], rows)

    def publish_whole(self, table: str, numbers: Iterable[int], state_of: Callable[[RowRef], RowState]) -> None:
        """Make a table anew; the few different states are encoded once."""
        apply = self._tables[table]
        encoded: dict[RowState, tuple[bytes, ...]] = {}

        def rows() -> Iterator[tuple[int, tuple[bytes, ...]]]:
            for number in numbers:
                ref = RowRef(table, number)
                state = state_of(ref)
                self._see(ref, state)
                cells = encoded.get(state)
                if cells is None:
                    values = _cells(table, state)
                    cells = tuple(column.encode(values.get(column.name, column.default)) for column in apply.columns)
                    encoded[state] = cells
                yield number, cells

        self._live.publish(apply.name, TableSnapshot.build(apply, rows()))


def _cells(table: str, state: RowState) -> dict[str, Value]:
    prefix = APPLY_TABLES[table][1]
    cells: dict[str, Value] = {
        f"{prefix}ApplyState": int(state.state),
        f"{prefix}LastError": display(state.text),
    }
    if state.generation is not None:
        cells[f"{prefix}AppliedGeneration"] = state.generation
    return cells


def verdict_or(verdict: Verdict | None, entry: tuple[ApplyState, str] | None) -> tuple[ApplyState, str]:
    """What the plan rules out stays so; else what the ledger says; else it is applied, perhaps with a warning."""
    if verdict is not None and verdict.state is not ApplyState.APPLIED:
        return verdict.state, verdict.text
    if entry is not None:
        return entry
    return ApplyState.APPLIED, verdict.text if verdict is not None else ""
