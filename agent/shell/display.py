"""Showing what the agent has: tables, rows, columns, single values, and what can be assigned to them.

A display of a table numbers its rows (`inx`), selects it, and is what `:inx` refers to until
the next one, whatever happens to the table meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from agent.mib.ber import Value
from agent.mib.schema import Access, Column, Table
from agent.shell import values
from agent.shell.outcome import CannotDo
from agent.shell.view import lay_out
from agent.shell.vocabulary import NameProblem
from agent.snmp.client import Missing

if TYPE_CHECKING:
    from agent.shell.session import Session

ABSENT: Final = "-"
CELL_CHARACTERS: Final = 1024  # of a cell, in tables for a person; a single value is always shown in full
ACCESS_WORDS: Final = {Access.READ_ONLY: "readonly", Access.READ_WRITE: "readwrite"}

Row = Mapping[str, Value]


async def show_table(session: Session, table: Table) -> None:
    """Display it, and select it. A group of scalars is shown one a line."""
    rows = await session.client.table(table.name)
    session.selected = table
    if table.scalar:
        for column in session.vocabulary.columns(table):
            if column.name in rows.get(0, {}):
                session.say(variable_line(session, column, 0, values.show(column, rows[0][column.name])))
        return
    session.shown_rows[table.name] = list(rows)
    _write_rows(session, table, rows)


async def show_row(session: Session, table: Table, number: int) -> None:
    """One row of a table, numbered 00 in what is written only; inx and prompt stay."""
    names = [(column.name, f"{column.name}.{number}") for column in session.vocabulary.columns(table)]
    found = await session.client.get([name for _, name in names])
    row = {
        name: variable.value
        for (name, _), variable in zip(names, found, strict=True)
        if not isinstance(variable.value, Missing)
    }
    if not row:
        raise CannotDo(f"{table.name} has no row {number}")
    _write_rows(session, table, {number: row})


def _write_rows(session: Session, table: Table, rows: Mapping[int, Row]) -> None:
    vocabulary = session.vocabulary
    columns = vocabulary.columns(table)
    header = [f"{vocabulary.short(column)}({vocabulary.mark(column)})" for column in columns]
    cells: list[Sequence[str]] = [
        [_cell(session, column, row.get(column.name)) for column in columns] for row in rows.values()
    ]
    if called := vocabulary.number_name(table):
        header.insert(0, f"{called}(*ro)")
        cells = [[str(number), *row] for number, row in zip(rows, cells, strict=True)]
    session.say("\n".join(lay_out(header, cells, session.terminal.columns)))


def _cell(session: Session, column: Column, value: Value | None) -> str:
    """For a person not more than can be read; a script gets it all."""
    if value is None:
        return ABSENT
    text = values.show(column, value)
    if len(text) <= CELL_CHARACTERS or not session.terminal.person:
        return text
    octets = f" ({len(value)} octets)" if isinstance(value, bytes) else ""
    return f"{text[:CELL_CHARACTERS]}…{octets}"


async def show_column(session: Session, column: Column) -> None:
    """One value a line. It numbers the rows as a display of the table does, but selects nothing."""
    table = session.schema.table_of(column)
    rows = await session.client.table(table.name, [column.name])
    if table.scalar:
        if column.name not in rows.get(0, {}):
            raise CannotDo(f"{column.name}: the agent does not show it")
        session.say(variable_line(session, column, 0, values.show(column, rows[0][column.name])))
        return
    session.shown_rows[table.name] = list(rows)
    lines = [
        variable_line(session, column, number, values.show(column, row[column.name]))
        for number, row in rows.items()
        if column.name in row
    ]
    if lines:
        session.say("\n".join(lines))


async def show_cell(session: Session, column: Column, number: int) -> None:
    """One value, in full."""
    [variable] = await session.client.get([f"{column.name}.{number}"])
    if isinstance(variable.value, Missing):
        raise CannotDo(f"{column.name}.{number}: there is no such row, or it is not shown to you")
    await shown_rows(session, session.schema.table_of(column))
    session.say(variable_line(session, column, number, values.show(column, variable.value)))


def variable_line(session: Session, column: Column, number: int, shown: str) -> str:
    """`02: ipsecPeerDescription.3( rw):  "Branch"`, of scalars `ipsecGlobEnabled( rw):  true`."""
    mark = session.vocabulary.mark(column).rjust(3)
    table = session.schema.table_of(column)
    if table.scalar:
        return f"{column.name}({mark}):  {shown}"
    rows = session.shown_rows.get(table.name, [])
    inx = f"{rows.index(number):02}" if number in rows else "--"
    return f"{inx}: {column.name}.{number}({mark}):  {shown}"


def type_line(column: Column) -> str:
    """`ipsecPeerAdminStatus: (readwrite) up(1),down(2),…`."""
    unit = f", in {column.units}" if column.units else ""
    return f"{column.name}: ({ACCESS_WORDS.get(column.access, 'hidden')}) {values.accepted(column)}{unit}"


async def row_of(session: Session, table: Table, inx: int) -> int:
    """The number of the row that the last display showed at this place; without one, that a display now would show.
    Raises NameProblem."""
    if table.scalar:
        raise NameProblem(f"{table.name} has no rows; accepted: its variables without :inx")
    rows = await shown_rows(session, table)
    if inx >= len(rows):
        last = f"..{len(rows) - 1:02}" if len(rows) > 1 else ""
        accepted = f"00{last}, as {table.name} showed them" if rows else "none, it has no rows"
        raise NameProblem(f"{table.name} has no row :{inx:02}; accepted: {accepted}")
    return rows[inx]


async def shown_rows(session: Session, table: Table) -> list[int]:
    """Row numbers in the order of the last display; where there was none, as one would show them now."""
    if table.name not in session.shown_rows and table.scalar:
        session.shown_rows[table.name] = []
    elif table.name not in session.shown_rows:
        column = next(iter(session.vocabulary.columns(table)))
        session.shown_rows[table.name] = list(await session.client.table(table.name, [column.name]))
    return session.shown_rows[table.name]
