"""ipsecGwCommand: clear-configuration, as the guide's wizard has it (chapter 9), and the lines of the wizard's log.

Clearing takes the IPsec configuration back to that of a first start, in one commit: no
peers, no rules, IPsec off, and the seeded proposals and profiles as they were made. Key
pairs stay, and certificates with them, which would be worth nothing otherwise; so does
everything that says who may ask the agent and whom it tells. Other commands change nothing
by themselves and are carried out by those who subscribe to them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from agent.mib.ber import Value
from agent.mib.schema import NUMBERS, Column, Role, Table
from agent.store.edits import refusal
from agent.store.errors import ErrorStatus
from agent.store.events import display
from agent.store.hooks import Edit, Origin, Placed
from agent.store.live import Live
from agent.store.rows import Status
from agent.store.snapshot import Cells, Configuration

COMMAND: Final = "ipsecGwCommand"
CLEAR, RECONCILE = 2, 3

KEPT: Final = frozenset(
    {
        *("ipsecPublicKeyTable", "certTable", "certRevListTable"),
        *("ipsecGwControl", "ipsecGwSystem", "ipsecGwNotify"),
        *("ipsecGwUserTable", "ipsecGwTargetTable", "ipsecGwSourceTable", "ipsecGwFilterTable"),
        "ipsecGwLoginKeyTable",
    }
)
"""Stored tables that clear-configuration leaves alone; none of them points to one that goes."""

WIZARD_LOG: Final = "ipsecGwWizardLogTable"
LINES_KEPT: Final = 200
NEVER_SET: Final = NUMBERS | {Role.ROW_STATUS, Role.ROW_GENERATION, Role.SEALED, Role.TRANSIENT}


def asks(edits: Sequence[Edit], command: int) -> bool:
    """Whether a SET holds this command."""
    return any(edit.column.name == COMMAND and edit.value == command for edit in edits)


class Clearing:
    """An Expander: the command becomes the edits that it stands for. `seeds`: rows and pointers of a first start."""

    def __init__(self, seeds: Sequence[Edit]) -> None:
        self._seeds: dict[str, dict[int, dict[str, Value]]] = {}
        for edit in seeds:
            rows = self._seeds.setdefault(edit.column.table, {})
            rows.setdefault(edit.number, {})[edit.column.name] = edit.value
        self._edits = {(edit.column.name, edit.number): edit for edit in seeds}

    def __call__(self, running: Configuration, placed: Sequence[Placed], origin: Origin) -> Sequence[Placed]:
        command = next(((at, e) for at, e in placed if e.column.name == COMMAND and e.value == CLEAR), None)
        if command is None:
            return placed
        for at, edit in placed:
            if edit.column.table in running.tables and edit.column.table not in KEPT:
                why = "the same SET clears the configuration"
                raise refusal(ErrorStatus.INCONSISTENT_VALUE, at, edit, why, "it in a SET that follows")
        at = command[0]
        return [*placed, *((at, edit) for edit in self._cleared(running))]

    def _cleared(self, running: Configuration) -> Iterator[Edit]:
        for name, snapshot in running.tables.items():
            if name in KEPT:
                continue
            table, seeded = snapshot.table, self._seeds.get(name, {})
            for number, values in seeded.items():
                cells = snapshot.cells(number)
                if cells is not None:
                    yield from _restored(table, number, cells, values)
                else:
                    yield from (self._edits[column, number] for column in values)
            if table.scalar:
                cells = snapshot.cells(0)
                if cells is not None and 0 not in seeded:
                    yield from _restored(table, 0, cells, {})
                continue
            destroyed = _removing(table)
            for number in snapshot.numbers():
                if number not in seeded:
                    yield Edit(destroyed[0], number, destroyed[1])


def _restored(table: Table, number: int, cells: Cells, values: dict[str, Value]) -> Iterator[Edit]:
    """What makes a row hold these values, and defaults elsewhere."""
    for column in table.columns:
        value = values.get(column.name, column.default)
        if column.traits.role is Role.ROW_STATUS:
            value = int(Status.ACTIVE)
        elif column.traits.role in NEVER_SET:
            continue
        if column.encode(value) != cells[column.position]:
            yield Edit(column, number, value)


def _removing(table: Table) -> tuple[Column, int]:
    """The column and value that remove a row."""
    assert table.row_status is not None, table.name  # every stored table has one, by test
    return table.row_status, int(Status.DESTROY)


class WizardLog:
    """ipsecGwWizardLogTable: the last LINES_KEPT lines, numbered on."""

    def __init__(self, live: Live, clock: Callable[[], float] = time.time) -> None:
        self._live, self._clock = live, clock
        self._last = 0

    def write(self, *lines: str) -> None:
        """Each line is cut to a DisplayString."""
        rows: dict[int, dict[str, Value] | None] = {}
        for line in lines:
            self._last += 1
            rows[self._last] = {"ipsecGwWizardLogTime": int(self._clock()), "ipsecGwWizardLogText": display(line)}
        held = [*self._live.table(WIZARD_LOG).numbers(), *rows]
        for number in held[:-LINES_KEPT]:
            rows[number] = None
        self._live.update(WIZARD_LOG, rows)


class Commands:
    """A `Commanded` of the store: tells the log what was cleared, and has the reconciler look."""

    def __init__(self, log: WizardLog, reconcile: Callable[[], None]) -> None:
        self._log, self._reconcile = log, reconcile

    def __call__(self, before: Configuration, after: Configuration, edits: Sequence[Edit], origin: Origin) -> None:
        if asks(edits, CLEAR):
            self._log.write(*_told(before, after, origin))
        if asks(edits, RECONCILE):
            self._reconcile()


def _told(before: Configuration, after: Configuration, origin: Origin) -> Iterator[str]:
    by = origin.user or origin.kind
    if after is before:
        yield f"+ Clear configuration, by {by}: there was nothing to clear"
        return
    yield f"+ Clear configuration, by {by}: generation {after.generation}"
    for name, snapshot in before.tables.items():
        gone = len(snapshot) - len(after.table(name))
        if gone > 0:
            yield f"  - {name}: {gone} {'row' if gone == 1 else 'rows'} removed"
    yield "  IPsec is off; key pairs, certificates, users and targets are kept"
