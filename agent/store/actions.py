"""SETs on live tables: what they ask for is examined with the SET, and done once the rest of it is on disk.

A live table is writable where somebody has registered a handler for it: documents, jobs,
later SAs that can be told to end. A SET may name stored and live objects together; it is
carried out whole or not at all, so whatever can be refused is refused by `check`, before
anything is written, and `perform` refuses nothing. Rows come and go as those of stored
tables do: creating columns make them, delete values remove them, defaults fill the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from agent.mib.ber import Value
from agent.mib.schema import Column, Keeping, Role, Schema, Table
from agent.store.candidate import Draft, check_guard, check_stage, collected, wished_status
from agent.store.edits import refusal
from agent.store.errors import ErrorStatus, Refused
from agent.store.hooks import Edit, Origin, Placed
from agent.store.live import Live
from agent.store.snapshot import Cells, Configuration, decoded, default_cells

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LiveRow:
    """What a SET asks of one row. `before`: its cells as they are, None where there is no such row; `after`: as the
    SET would have them, None where it removes the row. A row that is not there and is to go is never asked for."""

    table: Table
    number: int
    before: Cells | None
    after: Cells | None
    draft: Draft

    @property
    def made(self) -> bool:
        return self.before is None

    @property
    def removed(self) -> bool:
        return self.after is None

    def value(self, column: str) -> Value:
        """As the SET would have it; of a row that goes, as it is."""
        cells = self.after if self.after is not None else self.before
        assert cells is not None
        return decoded(cells[self.table.by_name[column].position])

    def named(self, column: str) -> bool:
        """Whether the SET names the column."""
        return self.table.by_name[column].position in self.draft.edits

    def refused(
        self, column: str, why: str, accepted: str, status: ErrorStatus = ErrorStatus.INCONSISTENT_VALUE
    ) -> Refused:
        """A refusal that blames the varbind of this column, else the first one of the row."""
        home = self.table.by_name[column]
        found = self.draft.edits.get(home.position)
        at, edit = found if found is not None else (self.draft.first, self._first())
        return refusal(status, at, edit, why, accepted)

    def _first(self) -> Edit:
        return min(self.draft.edits.values(), key=lambda entry: entry[0])[1]


@dataclass(frozen=True, slots=True)
class Asked:
    """The live part of a SET. `configuration`: what is stored once the SET is. `edits`: the whole SET."""

    rows: tuple[LiveRow, ...]
    configuration: Configuration
    edits: tuple[Edit, ...]
    origin: Origin

    def row(self, table: str, number: int) -> LiveRow | None:
        """What the SET asks of a row, None where it does not name it."""
        return next((row for row in self.rows if row.number == number and row.table.name == table), None)


class Handler(Protocol):
    """Who carries out SETs on some live tables."""

    @property
    def tables(self) -> frozenset[str]: ...

    def check(self, rows: Sequence[LiveRow], asked: Asked) -> None:
        """Whether it can be: pure, on the event loop, with nothing in between but the disk until `perform`. `rows`:
        those of the handler's own tables, by table and number. Raises Refused."""

    def perform(self, rows: Sequence[LiveRow], asked: Asked) -> None:
        """Do it, or begin to. What has gone meanwhile by the agent's own doing is passed over."""


class Actions:
    """Handlers by table. They are asked in the order in which they were registered, whatever the order of varbinds."""

    def __init__(self, schema: Schema, live: Live) -> None:
        self._schema = schema
        self._live = live
        self._handlers: list[Handler] = []
        self._of: dict[str, Handler] = {}

    def register(self, handler: Handler) -> None:
        """Raises ValueError for a table that is not live or has a handler."""
        for table in handler.tables:
            if table not in self._live or table in self._of:
                raise ValueError(f"{table}: not live, or handled already")
        self._handlers.append(handler)
        self._of.update(dict.fromkeys(handler.tables, handler))

    def split(self, placed: Sequence[Placed]) -> tuple[list[Placed], list[Placed]]:
        """(stored, live) varbinds of a SET."""
        live = [(at, edit) for at, edit in placed if self._is_live(edit.column)]
        return [(at, edit) for at, edit in placed if not self._is_live(edit.column)] if live else list(placed), live

    def _is_live(self, column: Column) -> bool:
        return self._schema.table_of(column).keeping is Keeping.LIVE

    def names_live(self, edits: Iterable[Edit]) -> bool:
        return any(self._is_live(edit.column) for edit in edits)

    def ask(
        self, live: Sequence[Placed], configuration: Configuration, edits: Sequence[Edit], origin: Origin
    ) -> Asked | None:
        """The live part of a SET, examined; None where it asks for nothing. Raises Refused."""
        for at, edit in live:
            if edit.column.table not in self._of:
                raise refusal(ErrorStatus.INCONSISTENT_VALUE, at, edit, "not supported yet", "nothing")
        drafts = collected(self._schema, live, lambda table, number: self._live.table(table).cells(number))
        rows = [self._filled(drafts[where]) for where in sorted(drafts)]
        asked = Asked(tuple(row for row in rows if row is not None), configuration, tuple(edits), origin)
        if not asked.rows:
            return None
        for handler, own in self._shares(asked):
            handler.check(own, asked)
        return asked

    def perform(self, asked: Asked) -> None:
        """Carry out what was examined. Never raises."""
        for handler, own in self._shares(asked):
            try:
                handler.perform(own, asked)
            except Exception:
                logger.exception("a SET on %s could not be carried out", ", ".join(sorted(handler.tables)))

    def _shares(self, asked: Asked) -> list[tuple[Handler, list[LiveRow]]]:
        shares = [(h, [row for row in asked.rows if row.table.name in h.tables]) for h in self._handlers]
        return [(handler, own) for handler, own in shares if own]

    def _filled(self, draft: Draft) -> LiveRow | None:
        """The row after its varbinds. Raises Refused."""
        table, before = draft.table, draft.before
        status = None if table.scalar else wished_status(draft)
        check_guard(draft)
        if not table.scalar and status is None:
            return None if before is None else LiveRow(table, draft.number, before, None, draft)
        cells = list(before if before is not None else default_cells(table, draft.number))
        for at, edit in draft.edits.values():
            check_stage(at, edit, cells)
            if edit.column.traits.role not in (Role.ROW_STATUS, Role.ROW_GENERATION):
                cells[edit.column.position] = edit.column.encode(edit.value)
        if table.row_status is not None and status is not None:
            cells[table.row_status.position] = table.row_status.encode(status)
        return LiveRow(table, draft.number, before, tuple(cells), draft)
