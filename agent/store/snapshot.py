"""Tables as they are read: immutable, in blocks of columns of shared encoded values.

Reads never touch the database and never wait for a writer: they hold one of these and
walk it. A commit makes a new one that shares every untouched block with the old, so its
cost does not grow with the table. Cells are encoded TLVs, ready to be sent; equal values
are one object, which is what makes a hundred thousand peers fit into memory.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain, islice, pairwise
from typing import Final

from agent.mib.ber import Value, decode_value, encode_integer
from agent.mib.schema import Keeping, Schema, Table

BLOCK_ROWS: Final = 256  # a changed cell copies one column of a block, a new row all of them
MERGE_ROWS: Final = 64  # a block that shrank below this joins the one before, where both fit into half a block
FEW_ROWS: Final = 4  # up to this many rows come or go by slicing columns; more are merged row by row
ACTIVE: Final = encode_integer(1)  # RowStatus active, RFC 2579

Cells = tuple[bytes, ...]

decoded = lru_cache(maxsize=16384)(decode_value)
"""Value of a cell; sealed columns hold ciphertext, so nothing secret is kept here."""


class Block:
    """Rows `numbers`, ascending; `columns[position][i]` is a cell of row `numbers[i]`."""

    __slots__ = ("columns", "numbers")

    def __init__(self, numbers: tuple[int, ...], columns: tuple[Cells, ...]) -> None:
        self.numbers = numbers
        self.columns = columns

    def place(self, number: int) -> int:
        """Index of a row, -1 when it is not here."""
        at = bisect_left(self.numbers, number)
        return at if at < len(self.numbers) and self.numbers[at] == number else -1

    def cells(self, at: int) -> Cells:
        return tuple([column[at] for column in self.columns])


class Row:
    """One row; `row[name]` decodes on demand. Stays readable however the table goes on."""

    __slots__ = ("_at", "_block", "_table", "number")

    def __init__(self, table: Table, block: Block, at: int) -> None:
        self._table = table
        self._block = block
        self._at = at
        self.number: int = block.numbers[at]

    def __getitem__(self, column: str) -> Value:
        """Raises KeyError for a name that is no column of the table."""
        return decoded(self._block.columns[self._table.by_name[column].position][self._at])

    @property
    def table(self) -> str:
        return self._table.name

    @property
    def cells(self) -> Cells:
        return self._block.cells(self._at)

    @property
    def active(self) -> bool:
        """RowStatus is active; rows without RowStatus always are."""
        status = self._table.row_status
        return status is None or self._block.columns[status.position][self._at] == ACTIVE

    def __repr__(self) -> str:
        shown = ", ".join(f"{c.name}={c.show(self[c.name])}" for c in self._table.columns)
        return f"<{self._table.name} {self.number}: {shown}>"


class _Sharing:
    """Makes blocks whose equal cells are one object, and whose columns of one value are one tuple."""

    def __init__(self, table: Table) -> None:
        self._tlvs: list[dict[bytes, bytes]] = [{c.default_tlv: c.default_tlv} for c in table.columns]
        self._uniform: dict[tuple[bytes, int], Cells] = {}

    def block(self, numbers: Sequence[int], columns: Iterable[Sequence[bytes]]) -> Block:
        shared = []
        for tlvs, column in zip(self._tlvs, columns, strict=True):
            first = column[0]
            if column.count(first) == len(column):
                first = tlvs.setdefault(first, first)
                key = (first, len(column))
                cells = self._uniform.get(key)
                if cells is None:
                    cells = self._uniform[key] = (first,) * len(column)
                shared.append(cells)
            else:
                shared.append(tuple([tlvs.setdefault(tlv, tlv) for tlv in column]))
        return Block(tuple(numbers), tuple(shared))


class TableSnapshot:
    """The rows of one table at one moment, by number."""

    __slots__ = ("_blocks", "_free", "_lasts", "_rows", "table")

    def __init__(self, table: Table, blocks: tuple[Block, ...] = (), lasts: tuple[int, ...] | None = None) -> None:
        """From blocks in ascending order, none of them empty, and the last numbers of them; use `build` for rows."""
        self.table = table
        self._blocks = blocks
        self._lasts = tuple([block.numbers[-1] for block in blocks]) if lasts is None else lasts
        self._rows = -1  # counted when asked for
        self._free = 0

    @classmethod
    def build(cls, table: Table, rows: Iterable[tuple[int, Cells]]) -> TableSnapshot:
        """From (number, cells) of any order. Raises ValueError where a number comes twice."""
        stream = iter(rows)
        sharing = _Sharing(table)
        blocks: list[Block] = []
        last = -1
        while chunk := list(islice(stream, BLOCK_ROWS)):
            numbers = [number for number, _ in chunk]
            ascending = numbers[0] > last and all(a < b for a, b in pairwise(numbers))
            if not ascending:
                earlier = ((n, b.cells(i)) for b in blocks for i, n in enumerate(b.numbers))
                ordered = sorted(chain(earlier, chunk, stream), key=lambda row: row[0])
                for (a, _), (b, _) in pairwise(ordered):
                    if a == b:
                        raise ValueError(f"{table.name}: row {a} comes twice")
                return cls.build(table, ordered)
            last = numbers[-1]
            blocks.append(sharing.block(numbers, list(zip(*[cells for _, cells in chunk], strict=True))))
        return cls(table, tuple(blocks))

    @classmethod
    def load(cls, table: Table, chunks: Iterable[tuple[Sequence[int], Sequence[Sequence[bytes]]]]) -> TableSnapshot:
        """The bulk way: chunks of at most BLOCK_ROWS rows, ascending, each as numbers and columns of cells."""
        sharing = _Sharing(table)
        return cls(table, tuple(sharing.block(numbers, columns) for numbers, columns in chunks if numbers))

    # ---- reading ----------------------------------------------------------------------

    def __len__(self) -> int:
        if self._rows < 0:
            self._rows = sum([len(block.numbers) for block in self._blocks])
        return self._rows

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and self._find(number) is not None

    def _find(self, number: int) -> tuple[Block, int] | None:
        at = bisect_left(self._lasts, number)
        if at == len(self._lasts):
            return None
        block = self._blocks[at]
        place = block.place(number)
        return None if place < 0 else (block, place)

    def numbers(self) -> Iterator[int]:
        return chain.from_iterable(block.numbers for block in self._blocks)

    def cell(self, number: int, position: int) -> bytes | None:
        """TLV of one cell, None where there is no such row."""
        at = bisect_left(self._lasts, number)
        if at == len(self._lasts):
            return None
        block = self._blocks[at]
        numbers = block.numbers
        place = number - numbers[0]
        if not 0 <= place < len(numbers) or numbers[place] != number:  # not without gaps up to here
            place = bisect_left(numbers, number)
            if numbers[place] != number:
                return None
        return block.columns[position][place]

    def after(self, number: int, position: int) -> tuple[int, bytes] | None:
        """(number, TLV) of the first row with a greater number; -1 begins."""
        at = bisect_right(self._lasts, number)
        if at == len(self._lasts):
            return None
        block = self._blocks[at]
        numbers = block.numbers
        place = number - numbers[0] + 1
        if not 0 < place < len(numbers) or numbers[place - 1] != number:
            place = bisect_right(numbers, number)
        return numbers[place], block.columns[position][place]

    def run(self, number: int, position: int, count: int) -> list[tuple[int, bytes]]:
        """(number, TLV) of up to `count` rows after `number`."""
        found: list[tuple[int, bytes]] = []
        for at in range(bisect_right(self._lasts, number), len(self._lasts)):
            left = count - len(found)
            if left <= 0:
                break
            block = self._blocks[at]
            place = bisect_right(block.numbers, number)
            to = place + left
            found += zip(block.numbers[place:to], block.columns[position][place:to], strict=True)
        return found

    def row(self, number: int) -> Row | None:
        found = self._find(number)
        return None if found is None else Row(self.table, *found)

    def rows(self) -> Iterator[Row]:
        for block in self._blocks:
            for at in range(len(block.numbers)):
                yield Row(self.table, block, at)

    def active_rows(self) -> Iterator[Row]:
        """Rows whose RowStatus is active; all, where the table has none."""
        status = self.table.row_status
        if status is None:
            yield from self.rows()
            return
        for block in self._blocks:
            for at, tlv in enumerate(block.columns[status.position]):
                if tlv == ACTIVE:
                    yield Row(self.table, block, at)

    def cells(self, number: int) -> Cells | None:
        found = self._find(number)
        return None if found is None else found[0].cells(found[1])

    def column(self, position: int) -> Iterator[tuple[tuple[int, ...], Cells]]:
        """(numbers, cells) of one column, block by block; the quick way through a whole table."""
        return ((block.numbers, block.columns[position]) for block in self._blocks)

    def differing(self, other: TableSnapshot) -> list[int]:
        """Numbers of rows that are in only one of the two, or not alike. Shared blocks are passed over."""
        if self is other:
            return []
        mine, theirs = self._apart(other), other._apart(self)
        either = sorted(mine.keys() | theirs.keys())
        return [number for number in either if mine.get(number) != theirs.get(number)]

    def _apart(self, other: TableSnapshot) -> dict[int, Cells]:
        """What tells rows apart, of the blocks that the other does not have: the row's generation, else all cells."""
        shared = set(map(id, other._blocks))
        own = [block for block in self._blocks if id(block) not in shared]
        mark = self.table.row_generation
        if mark is None:
            return {number: block.cells(at) for block in own for at, number in enumerate(block.numbers)}
        return {
            number: (cell,)
            for block in own
            for number, cell in zip(block.numbers, block.columns[mark.position], strict=True)
        }

    def last_number(self) -> int:
        """The highest number of a row, 0 where there is none."""
        return self._lasts[-1] if self._lasts else 0

    def free_number(self) -> int:
        """The lowest unused number from 1 on."""
        if not self._free:
            free = 1
            for block in self._blocks:
                numbers = block.numbers
                first, last = numbers[0], numbers[-1]
                if first > free:
                    break
                if last - first + 1 == len(numbers):
                    free = max(free, last + 1)
                    continue
                at = bisect_left(numbers, free)
                while at < len(numbers) and numbers[at] == free:
                    free += 1
                    at += 1
                if at < len(numbers):
                    break
            self._free = free
        return self._free

    # ---- the next one -----------------------------------------------------------------

    def replaced(self, changes: Mapping[int, Cells | None]) -> TableSnapshot:
        """With these rows set, or removed (None). Only touched blocks are copied."""
        if not changes:
            return self
        if not self._blocks:
            return TableSnapshot.build(self.table, ((n, cells) for n, cells in changes.items() if cells is not None))
        touched: dict[int, dict[int, Cells | None]] = {}
        last = len(self._blocks) - 1
        for number, cells in changes.items():
            touched.setdefault(min(bisect_left(self._lasts, number), last), {})[number] = cells
        if len(touched) == 1:
            at, rows = touched.popitem()
            one = _changed(self._blocks[at], rows)
            if len(one) == 1 and len(one[0].numbers) >= MERGE_ROWS:
                return self._with(at, one[0])
            touched[at] = rows
        blocks: list[Block] = []
        done = 0
        for at in sorted(touched):
            blocks += self._blocks[done:at]
            for block in _changed(self._blocks[at], touched[at]):
                rows_left = len(block.numbers)
                if rows_left < MERGE_ROWS and blocks and rows_left + len(blocks[-1].numbers) <= BLOCK_ROWS // 2:
                    block = _joined(blocks.pop(), block)
                blocks.append(block)
            done = at + 1
        blocks += self._blocks[done:]
        return TableSnapshot(self.table, tuple(blocks))

    def _with(self, at: int, block: Block) -> TableSnapshot:
        """With one block in the place of another: the usual case, where copying is all that grows with the table."""
        blocks = (*self._blocks[:at], block, *self._blocks[at + 1 :])
        last = block.numbers[-1]
        same = self._lasts[at] == last
        return TableSnapshot(
            self.table, blocks, self._lasts if same else (*self._lasts[:at], last, *self._lasts[at + 1 :])
        )


def _changed(block: Block, changes: Mapping[int, Cells | None]) -> list[Block]:
    """A block with rows set and removed: none, one or, where it grew too large, several blocks."""
    kept: list[tuple[int, Cells]] = []
    moved: list[tuple[int, Cells | None]] = []
    for number, cells in changes.items():
        place = block.place(number)
        if place >= 0 and cells is not None:
            kept.append((place, cells))
        elif place >= 0 or cells is not None:
            moved.append((number, cells))
    if kept:
        block = Block(block.numbers, tuple([_overwritten(c, p, kept) for p, c in enumerate(block.columns)]))
    if not moved:
        return [block]
    if len(moved) > FEW_ROWS:
        return _merged(block, moved)
    end = block.numbers[-1]
    for number, cells in moved:
        block = _inserted(block, number, cells) if cells is not None else _without(block, number)
    rows = len(block.numbers)
    if rows <= BLOCK_ROWS:
        return [block] if rows else []
    at = bisect_right(block.numbers, end)  # rows that follow the old ones begin a block: the old one stays full
    if at == rows or at > BLOCK_ROWS:
        at = rows // 2
    return [_slice(block, 0, at), _slice(block, at, rows)]


def _overwritten(column: Cells, position: int, rows: Sequence[tuple[int, Cells]]) -> Cells:
    fresh: list[bytes] | None = None
    for place, cells in rows:
        if cells[position] != column[place]:
            fresh = fresh or list(column)
            fresh[place] = cells[position]
    return column if fresh is None else tuple(fresh)


def _inserted(block: Block, number: int, cells: Cells) -> Block:
    at = bisect_left(block.numbers, number)
    columns = [(*column[:at], tlv, *column[at:]) for column, tlv in zip(block.columns, cells, strict=True)]
    return Block((*block.numbers[:at], number, *block.numbers[at:]), tuple(columns))


def _without(block: Block, number: int) -> Block:
    at = block.place(number)
    columns = [column[:at] + column[at + 1 :] for column in block.columns]
    return Block(block.numbers[:at] + block.numbers[at + 1 :], tuple(columns))


def _slice(block: Block, start: int, stop: int) -> Block:
    return Block(block.numbers[start:stop], tuple([column[start:stop] for column in block.columns]))


def _joined(first: Block, second: Block) -> Block:
    columns = [a + b for a, b in zip(first.columns, second.columns, strict=True)]
    return Block(first.numbers + second.numbers, tuple(columns))


def _merged(block: Block, moved: Iterable[tuple[int, Cells | None]]) -> list[Block]:
    rows: dict[int, Cells] = {number: block.cells(at) for at, number in enumerate(block.numbers)}
    for number, cells in moved:
        if cells is None:
            del rows[number]
        else:
            rows[number] = cells
    numbers = sorted(rows)
    blocks = []
    for start in range(0, len(numbers), BLOCK_ROWS):
        some = numbers[start : start + BLOCK_ROWS]
        blocks.append(Block(tuple(some), tuple(zip(*[rows[number] for number in some], strict=True))))
    return blocks


class Configuration:
    """All stored tables at one generation. `rows` and `row` show active rows, as a plan wants them."""

    __slots__ = ("generation", "schema", "tables")

    def __init__(self, schema: Schema, generation: int, tables: Mapping[str, TableSnapshot]) -> None:
        self.schema = schema
        self.generation = generation
        self.tables = tables

    @classmethod
    def empty(cls, schema: Schema) -> Configuration:
        """Generation 0: no rows, every scalar at its default."""
        stored = [table for table in schema.tables.values() if table.keeping is Keeping.STORED]
        return cls(schema, 0, {table.name: scalar_or_empty(table) for table in stored})

    def replaced(self, generation: int, tables: Mapping[str, TableSnapshot]) -> Configuration:
        return Configuration(self.schema, generation, {**self.tables, **tables})

    def table(self, name: str) -> TableSnapshot:
        return self.tables[name]

    def rows(self, table: str) -> Iterator[Row]:
        """Active rows in the order of their numbers."""
        return self.tables[table].active_rows()

    def row(self, table: str, number: int) -> Row | None:
        """The row when it is there and active."""
        row = self.tables[table].row(number)
        return row if row is not None and row.active else None

    def rows_any_status(self, table: str) -> Iterator[Row]:
        return self.tables[table].rows()

    def row_any_status(self, table: str, number: int) -> Row | None:
        return self.tables[table].row(number)

    def scalar(self, name: str) -> Value:
        """Value of a stored scalar object. Raises KeyError for another name."""
        column = self.schema.columns[name]
        tlv = self.tables[column.table].cell(0, column.position)
        return column.default if tlv is None else decoded(tlv)


def scalar_or_empty(table: Table) -> TableSnapshot:
    """A table at its beginning: a scalar group has its one row, of defaults."""
    return TableSnapshot.build(table, [(0, default_cells(table, 0))] if table.scalar else [])


def default_cells(table: Table, number: int) -> Cells:
    """A row of defaults that knows its number."""
    cells = [column.default_tlv for column in table.columns]
    if table.index is not None:
        cells[table.index.position] = table.index.encode(number)
    return tuple(cells)
