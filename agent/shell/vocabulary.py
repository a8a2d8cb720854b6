"""What the names of a line mean: tables by number, full names, names without their table's prefix, abbreviations.

Small and capital letters are the same. Names of the selected table count before all others,
without its prefix; of the others those that are written in full.
What several names begin with is refused, with the names.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final, TypeVar

from agent.mib.schema import Access, Column, Role, Schema, Table
from agent.shell.outcome import Problem

EXTENSION: Final = "ipsecGw"
TABLE: Final = "Table"
LISTED: Final = 12  # names in a message


Found = TypeVar("Found", Table, Column)


class NameProblem(Problem):
    """No object, or several: the text says which."""


class Vocabulary:
    """Names of one schema. `tables` stand in the order of their OIDs, and so they are numbered."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.tables = sorted(schema.tables.values(), key=lambda table: table.oid)
        self.numbers = {table.name: number for number, table in enumerate(self.tables)}
        self._shown = {table.name: _visible(table) for table in self.tables}
        self._short: dict[str, str] = {}
        self._prefix: dict[str, str] = {}
        for table in self.tables:
            self._prefix[table.name], short = _short_names(table)
            self._short |= short
        self._exact: dict[str, Table | Column] = {
            **{name.lower(): column for name, column in schema.columns.items() if column.access is not _HIDDEN},
            **{name.lower(): table for name, table in schema.tables.items()},
        }

    def columns(self, table: Table) -> tuple[Column, ...]:
        """What a display of the table shows."""
        return self._shown[table.name]

    def short(self, column: Column) -> str:
        """Its name without the table's prefix."""
        return self._short.get(column.name, column.name)

    def number_name(self, table: Table) -> str:
        """What the row number is called where no column shows it, '' where one does."""
        if table.scalar or any(c.traits.role in (Role.INDEX, Role.INDEX_CREATING) for c in self.columns(table)):
            return ""
        if table.index is not None:
            return self.short(table.index)
        return "Index"

    def mark(self, column: Column) -> str:
        """`*` makes a row, or numbers one that appears by itself; `-` removes it; rw can be written, ro cannot."""
        table = self.schema.table_of(column)
        makes = column in table.creating or (column.traits.role is Role.INDEX and not table.creating)
        return (
            ("*" if makes else "")
            + ("-" if column is self.remover(table) else "")
            + ("rw" if column.writable else "ro")
        )

    def remover(self, table: Table) -> Column | None:
        """The column with a value that removes a row: the vendor's, else the row status."""
        return table.deleting or table.row_status

    # ---- what a name means ------------------------------------------------------------

    def find(self, name: str, selected: Table | None, *, tables_first: bool = True) -> Table | Column:
        """Raises NameProblem."""
        if name.isdecimal():
            if int(name) >= len(self.tables):
                raise NameProblem(f"{name} is no table; accepted: 00..{len(self.tables) - 1:02}, as l lists them")
            return self.tables[int(name)]
        key = name.lower()
        own = {} if selected is None else {self.short(column): column for column in self.columns(selected)}
        if (column := next((c for short, c in own.items() if short.lower() == key), None)) is not None:
            return column
        if (exact := self._exact.get(key) or self._exact.get(key + TABLE.lower())) is not None:
            return exact
        if (column := self._only(name, own)) is not None:
            return column
        tables = {table.name: table for table in self.tables}
        columns = {c.name: c for c in self.schema.columns.values() if c.access is not _HIDDEN}
        found: Table | Column | None
        if tables_first:
            found = self._only(name, tables) or self._only(name, columns)
        else:
            found = self._only(name, columns) or self._only(name, tables)
        if found is not None:
            return found
        raise NameProblem(f"{name!r} is no name{self._meant(name, selected)}")

    def find_column(self, name: str, selected: Table | None) -> Column:
        """Raises NameProblem."""
        found = self.find(name, selected, tables_first=False)
        if isinstance(found, Table):
            raise NameProblem(f"{found.name} is a table; accepted: one of its columns")
        return found

    def own_name(self, name: str, table: Table | None) -> bool:
        """Whether it is the name, without prefix, of one of the table's columns."""
        return table is not None and any(self.short(c).lower() == name.lower() for c in self.columns(table))

    def beginning(self, start: str, selected: Table | None) -> list[str]:
        """Names that begin so, for completion: those of the selected table without its prefix, and tables; columns of
        others too where completing to one of these would lead past them."""
        key = start.lower()
        own = [self.short(column) for column in self.columns(selected)] if selected is not None else []
        found = [name for name in (*own, *(table.name for table in self.tables)) if name.lower().startswith(key)]
        common = os.path.commonprefix([name.lower() for name in found])  # noqa: RUF071 - letters are meant, not folders
        names = (c.name for c in self.schema.columns.values() if c.access is not _HIDDEN)
        columns = [name for name in names if name.lower().startswith(key)]
        if not all(name.lower().startswith(common) for name in columns) or not found:
            found += columns
        return list(dict.fromkeys(found))

    def _only(self, name: str, among: Mapping[str, Found]) -> Found | None:
        """The one that begins so; None where there is none."""
        key = name.lower()
        found = [full for full in among if full.lower().startswith(key)]
        if len(found) > 1:
            raise NameProblem(f"{name!r} may be {_listed(found)}")
        return among[found[0]] if found else None

    def _meant(self, name: str, selected: Table | None) -> str:
        """Names that look alike."""
        known = {key: each.name for key, each in self._exact.items()}
        if selected is not None:
            known |= {self.short(column).lower(): self.short(column) for column in self.columns(selected)}
        close = difflib.get_close_matches(name.lower(), known, n=3)
        return f"; did you mean {_listed([known[key] for key in close])}?" if close else "; l lists tables, ? commands"


_HIDDEN: Final = Access.NOT_ACCESSIBLE


@lru_cache(maxsize=4)
def vocabulary_of(schema: Schema) -> Vocabulary:
    """Made once per schema."""
    return Vocabulary(schema)


def _visible(table: Table) -> tuple[Column, ...]:
    return tuple(column for column in table.columns if column.access is not _HIDDEN)


def _short_names(table: Table) -> tuple[str, dict[str, str]]:
    """The table's prefix, and its columns without theirs: those of an augmenting table have another one. Two that
    would be the same: the extension's gets a `Gw`."""
    groups: dict[tuple[int, ...], list[str]] = {}
    for column in table.columns:
        groups.setdefault(column.oid[:-1], []).append(column.name)
    own = ""
    short: dict[str, str] = {}
    for names in groups.values():
        prefix = _prefix(names, own)
        own = own or prefix
        for name in names:
            rest = name[len(prefix) :]
            short[name] = f"Gw{rest}" if rest in short.values() else rest
    return own, short


def _prefix(names: Iterable[str], own: str) -> str:
    """What all of these begin with, up to a capital letter; `own`: the prefix of the table's own columns."""
    names = list(names)
    if (status := next((name for name in names if name.endswith("RowStatus")), "")) and own:
        return status.removesuffix("RowStatus")
    extension = EXTENSION + own[:1].upper() + own[1:]
    if len(names) == 1 and own and names[0].startswith(extension):
        return extension
    common = names[0]
    while common and not all(re.match(re.escape(common) + "[A-Z]", name) for name in names):
        common = common[:-1]
    return common


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(sorted(names)[:LISTED]) + more
