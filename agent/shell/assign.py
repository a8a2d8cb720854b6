"""Assignments: the SET that a line of them is, and what is said afterwards.

All assignments of one command are one SET, carried out whole or not at all. Those with `:inx`
or a row number change rows, `delete` removes them, and those without make one new row in each
table they name, with the next free number. A name without prefix belongs to the table of the
assignment before it, if it has such a variable, else to the selected table. The free number may be another manager's
a moment later: where the agent keeps generations of rows, the SET says that there is no such row yet,
and is repeated with another number when there is.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agent.mib.ber import Value
from agent.mib.schema import Column, Role, Table
from agent.shell import values
from agent.shell.display import row_of, shown_rows, variable_line
from agent.shell.language import Assignment
from agent.shell.outcome import CannotDo
from agent.shell.refusals import refusal
from agent.shell.vocabulary import NameProblem
from agent.snmp.client import Missing, RequestFailed, SnmpError

if TYPE_CHECKING:
    from agent.shell.session import Session

CREATE: Final = frozenset({4, 5})  # RowStatus createAndGo, createAndWait
DESTROY: Final = 6
NO_ROW: Final = 0  # of a RowGeneration in a SET: the row is not there yet
REMOVING: Final = frozenset({"delete", "destroy"})
TRIES: Final = 3  # of a new row whose number somebody else took
COMMANDS: Final = "biboAdmConfigTable"
COMMAND: Final = "cmd"
COMMAND_STATE: Final = "biboAdmConfigState"
FINISHED: Final = frozenset({"done", "error", "stopped"})
LOOK_SECONDS: Final = 0.2  # how often a command of configurations is asked for its state
MOST_NUMBER: Final = (1 << 31) - 1


@dataclass(slots=True)
class _Wish:
    """One assignment understood. `number`: that of the row, None of a new one."""

    column: Column
    value: Value
    number: int | None
    removes: bool


async def assign(session: Session, assignments: Sequence[Assignment]) -> None:
    """Carry out one SET and echo it. Raises Problem, SnmpError."""
    first = assignments[0]
    if first.name.lower() == COMMAND and first.inx is None and first.row is None:
        await _command(session, assignments)
        return
    wishes: list[_Wish] = []
    for assignment in assignments:
        nearest = session.schema.tables[wishes[-1].column.table] if wishes else None
        own = session.vocabulary.own_name(assignment.name, nearest)
        wishes.append(await _understood(session, assignment, nearest if own else session.selected))
    made = _new_rows(session, wishes)
    for attempt in range(TRIES):
        numbers = {
            name: number or await _free_number(session, session.schema.tables[name]) for name, number in made.items()
        }
        guards = [
            f"{table.row_generation.name}.{numbers[table.name]}"
            for table in map(session.schema.tables.__getitem__, made)
            if table.row_generation is not None and not _names(wishes, table.row_generation)
        ]
        named = [(wish, numbers[wish.column.table] if wish.number is None else wish.number) for wish in wishes]
        missing = await _missing(session, [f"{wish.column.name}.{number}" for wish, number in named if wish.removes])
        wanted = [(f"{wish.column.name}.{number}", wish.value) for wish, number in named]
        try:
            await session.client.set([*wanted, *((name, NO_ROW) for name in guards)])
        except RequestFailed as failed:
            if failed.name not in guards:
                raise CannotDo(str(await refusal(session, failed, dict(wanted)))) from None
            fixed = made[session.client.names.column_named(failed.name.partition(".")[0]).table]
            if fixed or attempt + 1 == TRIES:
                row = failed.name.rpartition(".")[2]
                raise CannotDo(f"there is a row {row} already; accepted: name.{row}=… to change it") from None
            continue
        break
    for name, number in numbers.items():
        rows = await shown_rows(session, session.schema.tables[name])
        if number not in rows:
            rows.append(number)
    await _echo(session, named, missing)


async def _missing(session: Session, removed: Sequence[str]) -> set[str]:
    """Of what is to be removed that which is not there: the agent takes that for done already."""
    if not removed:
        return set()
    found = await session.client.get(removed)
    return {name for name, variable in zip(removed, found, strict=True) if isinstance(variable.value, Missing)}


async def _understood(session: Session, assignment: Assignment, selected: Table | None) -> _Wish:
    """Raises Problem."""
    removal = values.label_key(assignment.value) in REMOVING and not assignment.quoted
    found = session.vocabulary.find(assignment.name, selected, tables_first=removal and assignment.inx is not None)
    if isinstance(found, Table):
        remover = session.vocabulary.remover(found)
        if not removal or (assignment.inx is None and assignment.row is None):
            raise NameProblem(f"{found.name} is a table; accepted: {found.name}:inx=delete, or one of its columns")
        if remover is None:
            raise CannotDo(f"rows of {found.name} cannot be removed; they go by themselves")
        column = remover
        value: Value = DESTROY if column is found.row_status else column.traits.deletes or 0
    else:
        column = found
        value = values.parse(column, assignment.value, assignment.quoted)
        if not column.writable:
            raise CannotDo(f"{column.name} can only be read")
    table = session.schema.table_of(column)
    number = assignment.row
    if assignment.inx is not None:
        number = await row_of(session, table, assignment.inx)
    elif number is None and table.scalar:
        number = 0
    removes = column.traits.deletes == value or (column is table.row_status and value == DESTROY)
    return _Wish(column, value, number, removes)


def _names(wishes: Sequence[_Wish], column: Column) -> bool:
    return any(wish.column is column for wish in wishes)


def _new_rows(session: Session, wishes: Sequence[_Wish]) -> dict[str, int | None]:
    """Tables that get a row, and its number where the assignments say it. Raises Problem where they do not make a
    row."""
    made: dict[str, int | None] = {}
    for name in dict.fromkeys(wish.column.table for wish in wishes if wish.number is None):
        table = session.schema.tables[name]
        own = [wish for wish in wishes if wish.column.table == name]
        without = next(wish for wish in own if wish.number is None)
        called = session.vocabulary.short(without.column)
        if any(wish.number is not None for wish in own):
            raise NameProblem(f"{called} without :inx would make a new row of {name}; accepted: {called}:inx=…")
        if without.removes:
            raise NameProblem(f"which row? accepted: {called}:inx={without.column.names.get(_number(without), '')}")
        if not any(wish.column in table.creating or _creates(table, wish) for wish in own):
            if not table.creating:
                accepted = f"{called}:inx=… for one that is there"
                raise CannotDo(f"rows of {name} appear by themselves; accepted: {accepted}")
            needed = " or ".join(map(session.vocabulary.short, table.creating))
            raise NameProblem(f"a new row of {name} needs {needed}, marked (*rw); to change a row: {called}:inx=…")
        made[name] = next((_number(wish) for wish in own if wish.column.traits.role is Role.INDEX_CREATING), None)
    return made


def _number(wish: _Wish) -> int:
    return wish.value if isinstance(wish.value, int) else 0


def _creates(table: Table, wish: _Wish) -> bool:
    return wish.column is table.row_status and wish.value in CREATE


async def _free_number(session: Session, table: Table) -> int:
    """As the agent's free-index scalar says, else behind the last row."""
    stem = (
        table.row_status.name.removesuffix("RowStatus") if table.row_status is not None else table.name[: -len("Table")]
    )
    free = session.schema.columns.get(f"{stem}Free")
    if free is not None:
        [found] = await session.client.get([f"{free.name}.0"])
        if isinstance(found.value, int) and found.value > 0:
            return found.value
    if table.name == "ipsecGwSegmentTable":
        raise NameProblem(
            "a segment's number is that of its document times 65536, plus 1, 2, …; accepted: Data.65537=…"
        )
    column = next(iter(session.vocabulary.columns(table)))
    rows = await session.client.table(table.name, [column.name])
    return max(rows, default=0) + 1


async def _echo(session: Session, named: Sequence[tuple[_Wish, int]], missing: Collection[str]) -> None:
    """Values as the agent has them now: it may have changed one into the nearest that it does. Of a row that is gone,
    of a command, and where nothing can be read back, what was asked for. `missing`: removed, and was not there."""
    try:
        found = await session.client.get([f"{wish.column.name}.{number}" for wish, number in named])
    except SnmpError:
        found = []
    for name in dict.fromkeys(wish.column.table for wish, _ in named):
        await shown_rows(session, session.schema.tables[name])
    for at, (wish, number) in enumerate(named):
        if f"{wish.column.name}.{number}" in missing:
            session.say(f"{wish.column.name}.{number}: there was no such row")
            continue
        value = found[at].value if at < len(found) else Missing.NULL
        gone = isinstance(value, Missing) or wish.removes or wish.column.traits.role is Role.TRANSIENT
        shown = values.show(wish.column, wish.value if gone or isinstance(value, Missing) else value)
        session.say(variable_line(session, wish.column, number, shown))


# ---- named configurations -------------------------------------------------------------


async def _command(session: Session, assignments: Sequence[Assignment]) -> None:
    """`cmd=save path=west`: a row of biboAdmConfigTable, and what becomes of it."""
    table = session.schema.tables[COMMANDS]
    wishes = [await _understood(session, assignment, table) for assignment in assignments]
    stray = next((wish for wish in wishes if wish.column.table != table.name), None)
    if stray is not None:
        raise NameProblem(f"{stray.column.name} does not belong to cmd=; accepted: a line of its own")
    number = 1 + secrets.randbelow(MOST_NUMBER - 1)  # two managers meet with none of them knowing
    wanted = [(f"{wish.column.name}.{number}", wish.value) for wish in wishes]
    command = wishes[0].column.names[_number(wishes[0])]
    try:
        await session.client.set(wanted)
    except RequestFailed as failed:
        refused = await refusal(session, failed, dict(wanted))
        if refused.column is None or refused.column is wishes[0].column:
            raise CannotDo(f"{command}: {refused.why}") from None
        word = session.vocabulary.short(refused.column).lower()
        raise CannotDo(f"{command}: {word}={refused.shown}: {refused.why}") from None
    state = session.schema.columns[COMMAND_STATE]
    told = ""
    while True:
        [found] = await session.client.get([f"{state.name}.{number}"])
        if isinstance(found.value, Missing):  # it has gone already, as it does when it is finished
            session.say(f"{command}: finished")
            return
        shown = values.show(state, found.value)
        if shown in FINISHED:
            break
        if shown == "delayed" and told != shown:
            session.say(f"{command}: {shown}")
            told = shown
        await asyncio.sleep(LOOK_SECONDS)
    if shown != "done":
        said = await session.client.last_refusal()
        why = said.partition(": ")[2] if said.startswith(wanted[0][0]) else "see the agent's log"
        raise CannotDo(f"{command}: {shown}: {values.harmless(why)}")
    session.say(f"{command}: done")
