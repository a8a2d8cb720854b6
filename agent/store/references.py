"""Who points to a row: the reverse of next links, list heads and references.

Deleting a row must find those that point to it without looking through a hundred thousand
rows, so the reverse is kept beside the configuration. It always describes the latest
candidate: the writer enters a candidate's moves when it accepts it and takes them back,
newest first, when the transaction fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from agent.mib.schema import Column, Keeping, Schema, Table
from agent.store.snapshot import Configuration, decoded


class Move(NamedTuple):
    """A pointer that changed: 0 is none, in both directions."""

    column: Column
    source: int
    old: int
    new: int


class References:
    """Per pointing column: row pointed to → the one source, or a set of them."""

    def __init__(self, configuration: Configuration) -> None:
        self._to: dict[str, list[Column]] = {}
        self._sources: dict[str, dict[int, int | set[int]]] = {}
        for column in pointing_columns(configuration.schema):
            for table in targets_of(column):
                self._to.setdefault(table, []).append(column)
            self._sources[column.name] = {}
            for numbers, cells in configuration.table(column.table).column(column.position):
                for source, tlv in zip(numbers, cells, strict=True):
                    if tlv != column.default_tlv or column.default:
                        self._enter(column, source, pointer(tlv))

    def columns_to(self, table: str) -> list[Column]:
        """Columns whose values are row numbers of this table, in some rows at least (see `points_into`)."""
        return self._to.get(table, [])

    def sources(self, column: Column, target: int) -> Iterator[int]:
        """Rows whose `column` holds the number `target`; do not move while going through them."""
        found = self._sources[column.name].get(target)
        if isinstance(found, int):
            yield found
        elif found is not None:
            yield from found

    def move(self, moves: Iterable[Move]) -> None:
        for column, source, old, new in moves:
            self._leave(column, source, old)
            self._enter(column, source, new)

    def back(self, moves: Iterable[Move]) -> None:
        """Undo `move` of the same moves."""
        self.move(Move(column, source, new, old) for column, source, old, new in reversed(list(moves)))

    def _enter(self, column: Column, source: int, target: int) -> None:
        if not target:
            return
        sources = self._sources[column.name]
        found = sources.get(target)
        if found is None:
            sources[target] = source
        elif isinstance(found, int):
            sources[target] = {found, source}
        else:
            found.add(source)

    def _leave(self, column: Column, source: int, target: int) -> None:
        if not target:
            return
        sources = self._sources[column.name]
        found = sources[target]
        if isinstance(found, int):
            del sources[target]
            return
        found.discard(source)
        if len(found) == 1:
            sources[target] = found.pop()


def pointing_columns(schema: Schema) -> list[Column]:
    """Every stored column whose values are row numbers of a stored table."""
    return [
        column
        for table in schema.tables.values()
        if table.keeping is Keeping.STORED
        for column, target in pointers_of(table)
        if schema.tables[target].keeping is Keeping.STORED
    ]


@lru_cache(maxsize=256)
def pointers_of(table: Table) -> tuple[tuple[Column, str], ...]:
    """Columns of a table that hold row numbers of a table, with its name."""
    return tuple((column, target) for column in table.columns if (target := target_of(column)))


@lru_cache(maxsize=256)
def link_column(table: Table) -> Column | None:
    """The next link of a table whose rows form chains."""
    return next((column for column in table.columns if column.traits.links == table.name), None)


def target_of(column: Column) -> str:
    """Table a column points into, '' for none."""
    traits = column.traits
    return traits.links or traits.heads or traits.refers


def targets_of(column: Column) -> tuple[str, ...]:
    """All tables that rows of a column may point into."""
    other = column.traits.refers_else
    return tuple(filter(None, (target_of(column), other[2] if other is not None else "")))


def points_into(table: Table, column: Column, cells: Sequence[bytes]) -> str:
    """The table that `column` of a row with these cells points into: another column may choose."""
    other = column.traits.refers_else
    if other is not None and decoded(cells[table.by_name[other[0]].position]) == other[1]:
        return other[2]
    return target_of(column)


def chooser(table: Table, column: Column) -> Column | None:
    """The column that chooses where `column` points into."""
    other = column.traits.refers_else
    return table.by_name[other[0]] if other is not None else None


def pointer(tlv: bytes) -> int:
    """Row number in a cell, 0 for none."""
    value = decoded(tlv)
    return value if isinstance(value, int) else 0
