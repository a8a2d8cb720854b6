"""Replacing the whole configuration: what differs, whether it holds together, as one candidate.

What a load names is judged as a SET of it would be, but all of it: up to twenty mistakes
are told at once. Only rows that differ are touched, so that a tunnel whose settings stay
is not disturbed. Tables of SNMP administration (who may ask, who is told) keep their rows
unless the load has them too, so that loading a configuration locks nobody out. Everything
here is pure and runs in a thread on immutable configurations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final

from agent.mib.ber import Value
from agent.mib.schema import MAKERS, Column, Keeping, Role, Table
from agent.mib.waiting import why_waiting
from agent.store.candidate import MASK, STAMP_BITS, Candidate, Draft, moves_of
from agent.store.edits import highest_number, refusal
from agent.store.errors import ErrorStatus, Refused
from agent.store.hooks import AGENT, Edit, Expander, Placed, row_change
from agent.store.references import chooser, link_column, pointer, pointers_of, targets_of
from agent.store.rings import find_ring
from agent.store.rows import Status
from agent.store.secrets import Secrets
from agent.store.snapshot import Cells, Configuration, decoded, default_cells

ADMINISTRATION: Final = frozenset(
    {
        *("ipsecGwControl", "ipsecGwUserTable", "ipsecGwTargetTable", "ipsecGwSourceTable", "ipsecGwFilterTable"),
        "ipsecGwLoginKeyTable",
    }
)
"""Tables of SNMP administration."""

USERS: Final = "ipsecGwUserTable"
ADMIN_LEVEL: Final = 1  # ipsecGwUserLevel
MOST_PROBLEMS: Final = 20  # told at once

Place = tuple[str, int, str]
"""(table, row, sealed column)"""


@dataclass(frozen=True, slots=True)
class Contents:
    """A configuration as it is to be. `rows`: table → number → column → value; what is not named has its default,
    and a scalar group is row 0. `secrets`: what sealed columns hold, in plain; None: rows that are there keep theirs.
    `administration`: the tables of SNMP administration are meant too."""

    rows: Mapping[str, Mapping[int, Mapping[str, Value]]]
    secrets: Mapping[Place, bytes] | None = field(default=None, repr=False)
    administration: bool = False


class LoadRefused(Refused):
    """A load that left no trace; `problems` has a line for each mistake, up to MOST_PROBLEMS."""

    def __init__(self, problems: Sequence[str]) -> None:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(ErrorStatus.INCONSISTENT_VALUE, -1, problems[0] + more)
        self.problems = tuple(problems)


class Loader:
    """Builds the candidate of one load, on one configuration or another. `named`: edits beside it that checks look
    at; `expanders`: those of SETs, which replace values here too."""

    def __init__(
        self, contents: Contents, secrets: Secrets, named: Sequence[Edit] = (), expanders: Sequence[Expander] = ()
    ) -> None:
        self._contents = contents
        self._secrets = secrets
        self._extra = tuple(named)
        self._expanders = tuple(expanders)

    def build(self, before: Configuration) -> Candidate | None:
        """The state that would be, None where it is as it is. Raises LoadRefused."""
        work = _Work(before, self._expanded(before), self._secrets)
        for table in work.tables:
            work.fill(table)
        work.check_pointers()
        work.check_rings()
        work.check_admin()
        if work.problems:
            raise LoadRefused(work.problems[:MOST_PROBLEMS])
        return work.finished(self._extra)

    def _expanded(self, before: Configuration) -> Contents:
        """With what values stand for, as in a SET that makes all rows anew. Raises LoadRefused."""
        if not self._expanders:
            return self._contents
        edits = list(_plain_edits(self._contents, before))
        placed: Sequence[Placed] = list(enumerate(edits))
        try:
            for expander in self._expanders:
                placed = expander(Configuration.empty(before.schema), placed, AGENT)
        except Refused as refused:
            raise LoadRefused([refused.text]) from None
        news = [edit for at, edit in placed if edit is not edits[at]]
        if not news:
            return self._contents
        rows = {name: dict(table) for name, table in self._contents.rows.items()}
        for edit in news:
            table = rows.setdefault(edit.column.table, {})
            table[edit.number] = {**table.get(edit.number, {}), edit.column.name: edit.value}
        return replace(self._contents, rows=rows)


class _Work:
    """One build. `after` has every row of the tables that are replaced."""

    def __init__(self, before: Configuration, contents: Contents, secrets: Secrets) -> None:
        self.before = before
        self.contents = contents
        self.problems: list[str] = []
        self.tables = [
            snapshot.table
            for name, snapshot in before.tables.items()
            if contents.administration or name not in ADMINISTRATION
        ]
        self.after: dict[str, dict[int, Cells]] = {}
        self.drafts: list[Draft] = []
        self._secrets = secrets
        for name in contents.rows:
            table = before.schema.tables.get(name)
            if table is None or table.keeping is not Keeping.STORED:
                self.problems.append(f"{name}: no table that is stored; accepted: names of docs/objects.md")

    # ---- rows -------------------------------------------------------------------------

    def fill(self, table: Table) -> None:
        """The rows of one table as they are to be."""
        old = {row.number: row.cells for row in self.before.rows_any_status(table.name)}
        wanted = self.contents.rows.get(table.name, {})
        if table.scalar:
            wanted = {0: wanted.get(0, {})}
        stamp = -1 if table.row_generation is None else table.row_generation.position
        rows: dict[int, Cells] = {}
        highest = 0 if table.scalar else highest_number(table)
        for number in sorted(wanted):
            before = old.get(number)
            if not table.scalar and not 1 <= number <= highest:
                self._tell(f"{table.name} {number}: there can be no such row; accepted: 1..{highest}")
                continue
            cells = self._row(table, number, wanted[number], before)
            if before is not None and stamp >= 0:
                cells[stamp] = before[stamp]
            if before is not None and before == tuple(cells):
                rows[number] = before
                continue
            rows[number] = tuple(cells)
            self.drafts.append(Draft(table, number, before, cells, -1))
        self.drafts += [Draft(table, number, cells, None, -1) for number, cells in old.items() if number not in wanted]
        self.after[table.name] = rows

    def _row(self, table: Table, number: int, values: Mapping[str, Value], before: Cells | None) -> list[bytes]:
        cells = list(default_cells(table, number))
        for name, value in values.items():
            column = table.by_name.get(name)
            if column is None:
                self._tell(f"{table.name} {number}: {name} is no column of it")
                continue
            if column.traits.role in (Role.PLAIN, Role.CREATING, Role.ROW_STATUS):
                problem = self._problem(column, number, value, before)
                if not problem:
                    cells[column.position] = encoded(column, value)
            elif column.traits.role is not Role.SECRET:
                self._refuse(Edit(column, number, value), "is made by the agent", "a row without it")
        for column in secret_columns(table):
            self._fill_secret(column, number, values.get(column.name, b""), before, cells)
        for column in sealed_columns(table):
            self._fill_sealed(column, number, before, cells)
        return cells

    def _problem(self, column: Column, number: int, value: Value, before: Cells | None) -> bool:
        edit = Edit(column, number, value)
        problem = column.problem(value)
        if problem:
            self._refuse(edit, "no value of this object", problem.removeprefix("accepted: "))
        elif column.traits.deletes == value:
            self._refuse(edit, "removes rows", "another value, or leave the row out")
        elif column.traits.role is Role.ROW_STATUS and value not in (Status.ACTIVE, Status.NOT_IN_SERVICE):
            self._refuse(edit, "is no state of a row that is kept", "active(1), notInService(2)")
        elif (
            column.writable
            and column.traits.stage != "skeleton"
            and column.traits.role not in MAKERS
            and value != column.default
            and (before is None or encoded(column, value) != before[column.position])
        ):
            self._refuse(edit, why_waiting(column.name), column.show(column.default))
        else:
            return False
        return True

    def _fill_sealed(self, column: Column, number: int, before: Cells | None, cells: list[bytes]) -> None:
        """A sealed column that no new secret of the row itself has filled."""
        if cells[column.position] != column.default_tlv:
            return
        old = column.default_tlv if before is None else before[column.position]
        if self.contents.secrets is None:
            cells[column.position] = old
            return
        plain = self.contents.secrets.get((column.table, number, column.name))
        if plain:
            cells[column.position] = self._sealed(column, number, plain, old)

    def _fill_secret(self, column: Column, number: int, value: Value, before: Cells | None, cells: list[bytes]) -> None:
        """What a secret reads as; a value other than * is a new secret."""
        sealed = self.before.schema.columns[column.traits.sealed_in]
        if value in (b"", MASK):
            if self.contents.secrets is None:
                cells[column.position] = column.default_tlv if before is None else before[column.position]
            else:
                cells[column.position] = encoded(column, value)
            return
        edit = Edit(column, number, value)
        problem = column.problem(value)
        if column.traits.stage != "skeleton":
            self._refuse(edit, why_waiting(column.name), '""')
        elif column.table == USERS:
            self._refuse(edit, "keys of users are not made by a load", "* here, and the password by a SET")
        elif problem or not isinstance(value, bytes):
            self._refuse(edit, "no value of this object", problem.removeprefix("accepted: "))
        else:
            old = sealed.default_tlv if before is None else before[sealed.position]
            cells[sealed.position] = self._sealed(sealed, number, value, old)
            cells[column.position] = encoded(column, MASK)

    def _sealed(self, column: Column, number: int, plain: bytes, old: bytes) -> bytes:
        """Cell of a sealed column: the old one, where it holds the same."""
        blob = decoded(old)
        if isinstance(blob, bytes) and blob and self._secrets.holds(column.table, number, column.name, blob, plain):
            return old
        return column.encode(self._secrets.seal(column.table, number, column.name, plain))

    # ---- the whole --------------------------------------------------------------------

    def check_pointers(self) -> None:
        """What a row points to is there, in the state after; also from rows that the load leaves alone."""
        for table in self.before.schema.tables.values():
            if table.keeping is not Keeping.STORED:
                continue
            for column, target in pointers_of(table):
                if target in self.before.tables:
                    self._check_pointers_of(column, target)

    def _there(self, table: str) -> Set[int]:
        replaced = self.after.get(table)
        return set(self.before.table(table).numbers()) if replaced is None else replaced.keys()

    def _check_pointers_of(self, column: Column, usual: str) -> None:
        there = {table: self._there(table) for table in targets_of(column)}
        choice = chooser(self.before.schema.table_of(column), column)
        chosen = dict(self._cells(choice)) if choice is not None else {}
        other = column.traits.refers_else
        for number, tlv in self._cells(column):
            target = other[2] if other is not None and decoded(chosen[number]) == other[1] else usual
            if tlv != column.default_tlv and (to := pointer(tlv)) and to not in there[target]:
                why = f"there is no row {to} in {target}"
                self._refuse(Edit(column, number, to), why, "0 for none, or the number of a row")

    def _cells(self, column: Column) -> Iterator[tuple[int, bytes]]:
        rows = self.after.get(column.table)
        if rows is not None:
            yield from ((number, cells[column.position]) for number, cells in rows.items())
            return
        for numbers, cells in self.before.table(column.table).column(column.position):
            yield from zip(numbers, cells, strict=True)

    def check_rings(self) -> None:
        for table in self.tables:
            column = link_column(table)
            if column is None:
                continue
            links = {number: pointer(tlv) for number, tlv in self._cells(column)}
            ring = find_ring(links, lambda number: 0, lambda number: True)
            if ring:
                rows = " → ".join(map(str, [*ring[:8], *(["…"] if len(ring) > 8 else []), ring[0]]))
                edit = Edit(column, ring[0], links[ring[0]])
                self._refuse(edit, f"the chain would run in a ring: {rows}", "a row that does not lead back here")

    def check_admin(self) -> None:
        """Where somebody may do everything, somebody still may."""
        if USERS not in self.after:
            return
        before = {row.number: row.cells for row in self.before.rows_any_status(USERS)}
        table = self.before.table(USERS).table
        if _has_admin(table, before) and not _has_admin(table, self.after[USERS]):
            self._tell(f"{USERS}: no user of level admin with keys would be left; accepted: a file with one")

    def _refuse(self, edit: Edit, why: str, accepted: str) -> None:
        self._tell(refusal(ErrorStatus.INCONSISTENT_VALUE, -1, edit, why, accepted).text)

    def _tell(self, text: str) -> None:
        self.problems.append(text)

    def finished(self, extra: Sequence[Edit]) -> Candidate | None:
        """The candidate of the rows that differ; `extra` are further edits for the checks to look at."""
        before = self.before
        if not self.drafts:
            return None
        generation = before.generation + 1
        changes: dict[str, dict[int, Cells | None]] = {}
        edits: list[Edit] = list(extra)
        for draft in self.drafts:
            if draft.after is not None:
                edits += _named(draft)
                stamp = draft.table.row_generation
                if stamp is not None:
                    draft.after[stamp.position] = stamp.encode(generation & STAMP_BITS)
            cells = None if draft.after is None else tuple(draft.after)
            changes.setdefault(draft.table.name, {})[draft.number] = cells
        tables = {name: before.table(name).replaced(rows) for name, rows in changes.items()}
        after = before.replaced(generation, tables)
        rows = tuple(row_change(draft.table, draft.number, before, after) for draft in self.drafts)
        moves = tuple(move for draft in self.drafts for move in moves_of(draft, before))
        return Candidate(before, after, rows, tuple(self.drafts), moves, tuple(edits), AGENT)


def _plain_edits(contents: Contents, before: Configuration) -> Iterator[Edit]:
    """The values that a SET could name, but for SNMP administration, whose secrets are keys already."""
    for name, rows in contents.rows.items():
        snapshot = before.tables.get(name)
        if snapshot is None or name in ADMINISTRATION:
            continue
        columns = {c.name: c for c in snapshot.table.columns if c.traits.role in (Role.PLAIN, Role.CREATING)}
        for number, values in rows.items():
            for column, value in values.items():
                if column in columns:
                    yield Edit(columns[column], number, value)


def _has_admin(table: Table, rows: Mapping[int, Cells]) -> bool:
    """An active user of level admin who has keys."""
    level, key, status = (table.by_name[f"ipsecGwUser{name}"].position for name in ("Level", "AuthKey", "RowStatus"))
    return any(
        decoded(cells[level]) == ADMIN_LEVEL and decoded(cells[key]) and decoded(cells[status]) == Status.ACTIVE
        for cells in rows.values()
    )


def _named(draft: Draft) -> Iterator[Edit]:
    """The cells of a row that a load sets, as a SET would name them."""
    assert draft.after is not None
    for column, tlv in zip(draft.table.columns, draft.after, strict=True):
        old = column.default_tlv if draft.before is None else draft.before[column.position]
        if tlv != old and column.traits.role in (Role.PLAIN, Role.CREATING, Role.ROW_STATUS):
            yield Edit(column, draft.number, decoded(tlv))


@lru_cache(maxsize=16384)
def encoded(column: Column, value: Value) -> bytes:
    """The cell of a value; equal ones are one object."""
    return column.encode(value)


@lru_cache(maxsize=256)
def secret_columns(table: Table) -> tuple[Column, ...]:
    """Columns that are written in plain and read as *."""
    return tuple(c for c in table.columns if c.traits.role is Role.SECRET)


@lru_cache(maxsize=256)
def sealed_columns(table: Table) -> tuple[Column, ...]:
    """Columns that hold sealed values."""
    return tuple(c for c in table.columns if c.traits.role is Role.SEALED)
