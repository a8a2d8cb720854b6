"""One person's work with one agent: lines come in, text goes out, the prompt says where one is.

Nothing here knows what kind of terminal it is. `Terminal` says how wide it is and takes text:
the local one, a channel of SSH, a pipe. The loop that reads lines is elsewhere (interact.py
for a person, script.py for a program), and what one session remembers is all in this object,
so that there may be many of them in one process.

    session = await Session.open(client, schema, terminal)
    while not session.ended:
        status = await session.execute(await line_of_somebody(session.prompt()))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from agent.mib.schema import Column, Role, Schema, Table
from agent.shell import values
from agent.shell.language import Assignment, Command, LineError, Word, read_line
from agent.shell.view import lay_out
from agent.shell.vocabulary import NameProblem, Vocabulary, vocabulary_of
from agent.snmp.client import SnmpClient, SnmpError

OK: Final = 0
FAILED: Final = 1  # the agent refused, or it cannot be done
MISUSED: Final = 2  # the line makes no sense
INTERRUPTED: Final = 130  # by Ctrl-C

SYS_NAME: Final = (1, 3, 6, 1, 2, 1, 1, 5, 0)
HOST_LENGTH: Final = 32  # characters of the prompt's host name


class Terminal(Protocol):
    """Where the text goes. `columns` is asked for again at every display: a window may have become wider."""

    @property
    def columns(self) -> int: ...

    def write(self, text: str) -> None:
        """Printable text and line ends."""

    def complain(self, text: str) -> None:
        """The same, about what went wrong: a script's standard error."""


@dataclass(eq=False)
class Session:
    """`host`: what the prompt begins with. `ended`: the person has said `exit`."""

    client: SnmpClient
    schema: Schema
    terminal: Terminal
    host: str = "agent"
    selected: Table | None = None
    ended: bool = False
    vocabulary: Vocabulary = field(init=False)
    shown_rows: dict[str, list[int]] = field(default_factory=dict)  # by table: row numbers of the last display

    def __post_init__(self) -> None:
        self.vocabulary = vocabulary_of(self.schema)

    @classmethod
    async def open(cls, client: SnmpClient, schema: Schema, terminal: Terminal) -> Session:
        """Asks the agent for its name. Raises SnmpError where nobody answers."""
        [name] = await client.get([SYS_NAME])
        text = name.value.decode("utf-8", "replace") if isinstance(name.value, bytes) else ""
        return cls(client, schema, terminal, values.harmless(text)[:HOST_LENGTH] or "agent")

    def prompt(self) -> str:
        """`host:table> `, or `host:> ` where none is selected."""
        return f"{self.host}:{self.selected.name if self.selected else ''}> "

    async def execute(self, line: str) -> int:
        """Carry out what a line says, up to the first command that fails. The status of the last one; what went
        wrong has been told."""
        try:
            commands = read_line(line)
        except LineError as problem:
            return self._complain(str(problem), MISUSED)
        status = OK
        for command in commands:
            status = await self._tried(command)
            if status != OK or self.ended:
                break
        return status

    async def _tried(self, command: Command) -> int:
        try:
            return await self._carry_out(command)
        except (NameProblem, values.ValueProblem) as problem:
            return self._complain(str(problem), MISUSED)
        except SnmpError as error:
            return self._complain(str(error), FAILED)

    def say(self, text: str) -> None:
        """A line, or several."""
        self.terminal.write(text + "\n")

    def _complain(self, text: str, status: int) -> int:
        self.terminal.complain(text + "\n")
        return status

    async def _carry_out(self, command: Command) -> int:
        first = command.items[0]
        if isinstance(first, Word) and first.text in ("exit", "quit", "logout"):
            self.ended = True
            return OK
        for item in command.items:
            if isinstance(item, Assignment):
                raise NameProblem("assignments are not understood yet")
            found = self.vocabulary.find(item.text, self.selected)
            if isinstance(found, Table):
                await self.show_table(found)
            else:
                raise NameProblem(f"{found.name} is no table")
        return OK

    async def show_table(self, table: Table) -> None:
        """Display a table, and select it."""
        rows = await self.client.table(table.name)
        columns = self.vocabulary.columns(table)
        numbers = list(rows)
        called = self.vocabulary.number_name(table)
        header = [f"{self.vocabulary.short(column)}({mark(column, table)})" for column in columns]
        cells: list[Sequence[str]] = [
            [values.show(column, row[column.name]) if column.name in row else "-" for column in columns]
            for row in rows.values()
        ]
        if called:
            header.insert(0, f"{called}(*ro)")
            cells = [[str(number), *row] for number, row in zip(numbers, cells, strict=True)]
        self.terminal.write("\n".join(lay_out(header, cells, self.terminal.columns)) + "\n")
        self.shown_rows[table.name] = numbers
        self.selected = table


def mark(column: Column, table: Table) -> str:
    """`*` makes a row, or numbers one that appears by itself; `-` removes it; rw can be written, ro cannot."""
    role = column.traits.role
    makes = column in table.creating or (role is Role.INDEX and not table.creating)
    removes = column is table.deleting or (table.deleting is None and column is table.row_status)
    return ("*" if makes else "") + ("-" if removes else "") + ("rw" if column.writable else "ro")
