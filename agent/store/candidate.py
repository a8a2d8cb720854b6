"""Steps 2 to 4 of a SET: the state that would be, whether it holds together, and how it differs.

All varbinds act at once on the state before them. Every refusal names the varbind that is
to blame, also where the row that suffers is another one. The work is proportional to the
rows touched: who points to a row comes from `References`, rings are looked for from changed
links only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field

from agent.mib.ber import Value
from agent.mib.schema import MAKERS, Column, Role, Schema, Table
from agent.mib.waiting import why_waiting
from agent.store.edits import check_edit, refusal
from agent.store.errors import ErrorStatus, Refused
from agent.store.hooks import Edit, Expander, Origin, Placed, RowChange, row_change
from agent.store.references import Move, References, chooser, link_column, pointer, pointers_of, points_into
from agent.store.rings import find_ring
from agent.store.rows import Part, RowRefused, Status, Wish, next_status
from agent.store.secrets import Secrets
from agent.store.snapshot import Cells, Configuration, decoded, default_cells

STAMP_BITS = 0xFFFFFFFF  # a row's generation is an Unsigned32
MASK = b"*"  # what a secret reads as; written back it keeps the key


@dataclass(slots=True)
class Draft:
    """One touched row. `edits`: varbinds by column position, as (varbind, edit); `first`: the varbind to blame for
    what no varbind names."""

    table: Table
    number: int
    before: Cells | None
    after: list[bytes] | None
    first: int
    edits: dict[int, tuple[int, Edit]] = field(default_factory=dict)

    def blame(self, position: int) -> int:
        return self.edits[position][0] if position in self.edits else self.first

    @property
    def differs(self) -> bool:
        """In anything but its generation."""
        if self.before is None or self.after is None:
            return self.before is not None or self.after is not None
        stamp = self.table.row_generation
        skip = -1 if stamp is None else stamp.position
        return any(a != b for at, (a, b) in enumerate(zip(self.before, self.after, strict=True)) if at != skip)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A state that holds together and differs from the one before. `drafts` are the rows that differ."""

    before: Configuration
    after: Configuration
    rows: tuple[RowChange, ...]
    drafts: tuple[Draft, ...]
    moves: tuple[Move, ...]
    edits: tuple[Edit, ...]
    origin: Origin


class Candidates:
    """Builds candidates on the tip of the configurations. `references` describes that tip; the writer moves it."""

    def __init__(self, references: References, secrets: Secrets) -> None:
        self.references = references
        self.expanders: list[Expander] = []
        self._secrets = secrets

    def build(self, before: Configuration, edits: Sequence[Edit], origin: Origin) -> Candidate | None:
        """The next state, None where nothing would differ. Raises Refused."""
        return self.built(before, self.placed(before, edits, origin), edits, origin)

    def placed(self, before: Configuration, edits: Sequence[Edit], origin: Origin) -> Sequence[Placed]:
        """Step 1: each edit by itself, and what it stands for. Raises Refused."""
        for at, edit in enumerate(edits):
            check_edit(before.schema, at, edit, origin)
        placed: Sequence[Placed] = list(enumerate(edits))
        for expander in self.expanders:
            placed = expander(before, placed, origin)
        return placed

    def built(
        self, before: Configuration, placed: Sequence[Placed], edits: Sequence[Edit], origin: Origin
    ) -> Candidate | None:
        """Steps 2 to 4 for the varbinds on stored tables. Raises Refused."""
        drafts = gather(before, placed)
        named = {(edit.column.name, edit.number) for edit in edits}
        for draft in drafts.values():
            self._fill(draft, origin, named)
        drafts = self._moved_on(before, drafts)
        self._check_pointers(before, drafts)
        self._check_rings(before, drafts)
        changed = [draft for draft in drafts.values() if draft.differs]
        if not changed:
            return None
        return self._finished(before, changed, edits, origin)

    # ---- one row ----------------------------------------------------------------------

    def _fill(self, draft: Draft, origin: Origin, named: Set[tuple[str, int]]) -> None:
        """The row after its varbinds: status, cells, secrets, guard. `named`: (object, number) of the varbinds
        themselves; what one of them stands for may be of any stage."""
        table, before = draft.table, draft.before
        status = None if table.scalar else wished_status(draft)
        if origin.kind == "snmp" and draft.before is None and status is not None:
            _check_maker(draft)
        if not table.scalar and status is None:
            check_guard(draft)
            draft.after = None
            return
        cells = list(before if before is not None else default_cells(table, draft.number))
        draft.after = cells
        check_guard(draft)
        for at, edit in draft.edits.values():
            column = edit.column
            if origin.kind == "snmp" and (column.name, edit.number) in named:
                check_stage(at, edit, cells)
            role = column.traits.role
            if role is Role.SECRET:
                self._fill_secret(draft, cells, at, edit)
            elif role is Role.SEALED:
                cells[column.position] = self._sealed(draft, column, edit.value)
                for secret in table.columns:  # it reads as if it had come by the secret itself
                    if secret.traits.sealed_in == column.name:
                        cells[secret.position] = secret.encode(MASK if edit.value else b"")
            elif role not in (Role.TRANSIENT, Role.ROW_STATUS, Role.ROW_GENERATION):
                cells[column.position] = column.encode(edit.value)
        if table.row_status is not None and status is not None:
            cells[table.row_status.position] = table.row_status.encode(status)

    def _fill_secret(self, draft: Draft, cells: list[bytes], at: int, edit: Edit) -> None:
        sealed = draft.table.by_name[edit.column.traits.sealed_in]
        if edit.value == MASK:
            if draft.before is None or draft.before[sealed.position] == sealed.default_tlv:
                raise refusal(ErrorStatus.INCONSISTENT_VALUE, at, edit, "there is no old value to keep", "a new one")
            return
        cells[sealed.position] = self._sealed(draft, sealed, edit.value)
        cells[edit.column.position] = edit.column.encode(MASK if edit.value else b"")

    def _sealed(self, draft: Draft, column: Column, plain: Value) -> bytes:
        """Cell of a sealed column: the old one, where it holds the same."""
        if not isinstance(plain, bytes):
            raise TypeError(f"{column.name}: octets are sealed, not {type(plain).__name__}")
        if not plain:
            return column.default_tlv
        if draft.before is not None and draft.before[column.position] != column.default_tlv:
            old = decoded(draft.before[column.position])
            if isinstance(old, bytes) and self._secrets.holds(column.table, draft.number, column.name, old, plain):
                return draft.before[column.position]
        return column.encode(self._secrets.seal(column.table, draft.number, column.name, plain))

    # ---- rows that point to each other ------------------------------------------------

    def _moved_on(self, before: Configuration, drafts: dict[tuple[str, int], Draft]) -> dict[tuple[str, int], Draft]:
        """Next links and list heads that point to removed rows go on to the row behind; other uses refuse it."""
        removed = {where: d for where, d in drafts.items() if d.before is not None and d.after is None}
        if not removed:
            return drafts
        drafts = dict(drafts)
        for (table, number), draft in removed.items():
            for column in self.references.columns_to(table):
                for source in self.references.sources(column, number):
                    user = drafts.get((column.table, source))
                    if user is not None and (user.after is None or column.position in user.edits):
                        continue
                    if column.traits.refers_else is not None and not _leads_to(before, column, source, user, table):
                        continue
                    if column.traits.refers:
                        raise _in_use(draft, column, source)
                    if user is None:
                        cells = before.table(column.table).cells(source)
                        if cells is None:
                            raise LookupError(f"{column.table}: row {source} is referenced and missing")
                        home = before.table(column.table).table
                        user = Draft(home, source, cells, list(cells), draft.first)
                        drafts[column.table, source] = user
                    if user.after is not None:
                        behind = _row_behind(before, table, number, removed)
                        user.after[column.position] = column.encode(behind)
        return drafts

    def _check_pointers(self, before: Configuration, drafts: dict[tuple[str, int], Draft]) -> None:
        """Pointers that were set point to rows that are there."""
        for draft in drafts.values():
            if draft.after is None:
                continue
            for column, _ in pointers_of(draft.table):
                table = points_into(draft.table, column, draft.after)
                if table not in before.tables:
                    continue
                tlv = draft.after[column.position]
                same = draft.before is not None and draft.before[column.position] == tlv
                choice = chooser(draft.table, column)
                asked = column.position in draft.edits or (choice is not None and choice.position in draft.edits)
                number = 0 if same and not asked else pointer(tlv)
                if not number:
                    continue
                other = drafts.get((table, number))
                if other.after is None if other is not None else number not in before.table(table):
                    edit = Edit(column, draft.number, number)
                    why = f"there is no row {number} in {table}"
                    accepted = "0 for none, or the number of a row"
                    at = draft.blame(choice.position if same and choice is not None else column.position)
                    raise refusal(ErrorStatus.INCONSISTENT_VALUE, at, edit, why, accepted)

    def _check_rings(self, before: Configuration, drafts: dict[tuple[str, int], Draft]) -> None:
        changed: dict[Column, dict[int, int]] = {}
        for draft in drafts.values():
            column = link_column(draft.table)
            if column is None or draft.after is None:
                continue
            tlv = draft.after[column.position]
            if draft.before is None or draft.before[column.position] != tlv:
                changed.setdefault(column, {})[draft.number] = pointer(tlv)
        for column, links in changed.items():
            _check_ring(before, column, links, drafts)

    # ---- the state after --------------------------------------------------------------

    def _finished(
        self, before: Configuration, drafts: Sequence[Draft], edits: Sequence[Edit], origin: Origin
    ) -> Candidate:
        generation = before.generation + 1
        changes: dict[str, dict[int, Cells | None]] = {}
        for draft in drafts:
            stamp = draft.table.row_generation
            if draft.after is not None and stamp is not None:
                draft.after[stamp.position] = stamp.encode(generation & STAMP_BITS)
            cells = None if draft.after is None else tuple(draft.after)
            changes.setdefault(draft.table.name, {})[draft.number] = cells
        tables = {name: before.table(name).replaced(rows) for name, rows in changes.items()}
        after = before.replaced(generation, tables)
        rows = tuple(row_change(draft.table, draft.number, before, after) for draft in drafts)
        moves = tuple(move for draft in drafts for move in moves_of(draft, before))
        return Candidate(before, after, rows, tuple(drafts), moves, tuple(edits), origin)


def gather(before: Configuration, placed: Sequence[Placed]) -> dict[tuple[str, int], Draft]:
    """Edits of stored tables by row. Raises Refused."""
    for at, edit in placed:
        if edit.column.table not in before.tables:
            raise refusal(ErrorStatus.INCONSISTENT_VALUE, at, edit, "not supported yet", "nothing")
    return collected(before.schema, placed, lambda table, number: before.table(table).cells(number))


def collected(
    schema: Schema, placed: Sequence[Placed], cells_of: Callable[[str, int], Cells | None]
) -> dict[tuple[str, int], Draft]:
    """The edits by row, in the order of their first varbinds. Raises Refused where two of one object differ."""
    drafts: dict[tuple[str, int], Draft] = {}
    for at, edit in placed:
        column = edit.column
        table = schema.table_of(column)
        draft = drafts.get((table.name, edit.number))
        if draft is None:
            cells = cells_of(table.name, edit.number)
            draft = drafts[table.name, edit.number] = Draft(table, edit.number, cells, None, at)
        earlier = draft.edits.get(column.position)
        if earlier is None:
            draft.edits[column.position] = (at, edit)
        elif earlier[1].value != edit.value:
            raise refusal(ErrorStatus.INCONSISTENT_VALUE, at, edit, "another value is named too", "one value")
    return drafts


def wished_status(draft: Draft) -> Status | None:
    """Row status after the SET. Raises Refused, naming the varbind."""
    table = draft.table
    wish: dict[str, bool] = {}
    asked: Status | None = None
    blame: dict[Part, int] = {}
    for at, edit in draft.edits.values():
        traits = edit.column.traits
        if traits.role is Role.ROW_STATUS and isinstance(edit.value, int):
            asked = Status(edit.value)
            blame.setdefault(Part.STATUS, at)
        elif traits.deletes is not None and edit.value == traits.deletes:
            wish["deletes"] = True
            blame.setdefault(Part.DELETE, at)
        elif traits.role in MAKERS:
            wish["creates"] = True
            blame.setdefault(Part.CREATING, at)
        elif traits.role not in (Role.ROW_GENERATION, Role.TRANSIENT):
            wish["others"] = True
            blame.setdefault(Part.OTHER, at)
    now: Status | None = None
    if draft.before is not None:
        column = table.row_status
        value = Status.ACTIVE if column is None else decoded(draft.before[column.position])
        now = Status(value) if isinstance(value, int) else None
    try:
        return next_status(now, Wish(asked, **wish))
    except RowRefused as refused:
        at = blame.get(refused.part, draft.first)
        edit = next(edit for place, edit in draft.edits.values() if place == at)
        accepted = refused.accepted
        if refused.status is ErrorStatus.INCONSISTENT_NAME:
            accepted = _makers(draft)
        raise refusal(refused.status, at, edit, refused.why, accepted) from None


def _check_maker(draft: Draft) -> None:
    """Rows of a table without creating columns are the agent's own; a manager changes and removes them."""
    if not draft.table.creating:
        at, edit = next(iter(draft.edits.values()))
        raise refusal(
            ErrorStatus.NO_CREATION, at, edit, "rows of this table are made by the agent", "a row that is there"
        )


def _makers(draft: Draft) -> str:
    """What makes a row of this table, by name and instance."""
    makers = [f"{column.name}.{draft.number}" for column in draft.table.creating]
    status = draft.table.row_status
    if status is not None and status.writable:
        makers.append(f"{status.name}.{draft.number} = createAndGo(4)")
    return "in the same SET " + " or ".join(makers) if makers else "rows that the agent made"


def check_guard(draft: Draft) -> None:
    """ROW_GENERATION in a SET is a condition; 0 says that there is no such row yet."""
    column = draft.table.row_generation
    if column is None or column.position not in draft.edits:
        return
    at, edit = draft.edits[column.position]
    current = 0 if draft.before is None else decoded(draft.before[column.position])
    if edit.value != current:
        why = "the row was changed meanwhile" if draft.before is not None else "there is no such row"
        raise refusal(ErrorStatus.INCONSISTENT_VALUE, at, edit, why, str(current))


def check_stage(at: int, edit: Edit, cells: Sequence[bytes]) -> None:
    """Objects that do not act yet accept their default, or what they hold; those that make a row any value, or there
    could be no such row."""
    column = edit.column
    if column.traits.stage == "skeleton" or column.traits.role in MAKERS or edit.value == column.default:
        return
    if column.encode(edit.value) != cells[column.position]:
        accepted = '""' if column.traits.role is Role.SECRET else column.show(column.default)
        raise refusal(ErrorStatus.INCONSISTENT_VALUE, at, edit, why_waiting(column.name), accepted)


def _leads_to(before: Configuration, column: Column, source: int, user: Draft | None, table: str) -> bool:
    """Whether this row's column points into the table, after the SET."""
    home = before.table(column.table)
    cells = user.after if user is not None else home.cells(source)
    return cells is not None and points_into(home.table, column, cells) == table


def _in_use(draft: Draft, column: Column, source: int) -> Refused:
    """The refusal of deleting a row that another one refers to."""
    at, edit = min(draft.edits.values(), key=lambda entry: entry[0])
    why = f"the row is in use by {column.name}.{source}"
    return refusal(
        ErrorStatus.INCONSISTENT_VALUE, at, edit, why, f"deleting it once {column.name}.{source} names another"
    )


def _check_ring(
    before: Configuration, column: Column, links: dict[int, int], drafts: dict[tuple[str, int], Draft]
) -> None:
    """Raises Refused where the changed links of one table close a ring, naming the last varbind in it."""
    snapshot = before.table(column.table)

    def following(number: int) -> int:
        tlv = snapshot.cell(number, column.position)
        return 0 if tlv is None else pointer(tlv)

    ring = find_ring(links, following, lambda number: number not in snapshot)
    if not ring:
        return
    named = [drafts[column.table, number] for number in ring if number in links]
    guilty = max(named, key=lambda draft: (column.position in draft.edits, draft.blame(column.position)))
    edit = Edit(column, guilty.number, links[guilty.number])
    ring = ring[ring.index(guilty.number) :] + ring[: ring.index(guilty.number)]
    rows = " → ".join(map(str, [*ring[:8], *(["…"] if len(ring) > 8 else []), ring[0]]))
    why = f"the chain would run in a ring: {rows}"
    at = guilty.blame(column.position)
    raise refusal(ErrorStatus.INCONSISTENT_VALUE, at, edit, why, "a row that does not lead back here")


def _row_behind(before: Configuration, table: str, number: int, removed: dict[tuple[str, int], Draft]) -> int:
    """The row that follows in the chain and stays, 0 for none."""
    snapshot = before.table(table)
    column = link_column(snapshot.table)
    while column is not None and (table, number) in removed:
        tlv = snapshot.cell(number, column.position)
        number = 0 if tlv is None else pointer(tlv)
    return 0 if (table, number) in removed else number


def moves_of(draft: Draft, before: Configuration) -> Iterator[Move]:
    for column, target in pointers_of(draft.table):
        if target in before.tables:
            old = 0 if draft.before is None else pointer(draft.before[column.position])
            new = 0 if draft.after is None else pointer(draft.after[column.position])
            if old != new:
                yield Move(column, draft.number, old, new)
