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

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from agent.mib.schema import Schema, Table
from agent.shell import display, values
from agent.shell.assign import assign
from agent.shell.commands import COMMANDS, call
from agent.shell.language import Assignment, Command, LineError, Word, read_line
from agent.shell.machine import Machine
from agent.shell.outcome import FAILED, OK, Problem
from agent.shell.packet import Packet
from agent.shell.view import prose
from agent.shell.vocabulary import NameProblem, Vocabulary, vocabulary_of
from agent.snmp.client import SnmpClient, SnmpError

NAMED: Final = re.compile(r"(\w[\w-]*)(?::(\d+)|\.(\d+))?(\?)?")
SYS_NAME: Final = (1, 3, 6, 1, 2, 1, 1, 5, 0)
HOST_LENGTH: Final = 32  # characters of the prompt's host name


Explain = Callable[[Packet], Awaitable[str]]
"""What becomes of a packet. Raises Problem."""
Setup = Callable[[], Awaitable[int]]
"""The Setup Tool on the session's terminal, until it is left; its status."""


class Terminal(Protocol):
    """Where the text goes. `columns` is asked for again at every display: a window may have become wider. `person`:
    somebody looks on; else it is a script, which gets everything, however long."""

    person: bool

    @property
    def columns(self) -> int: ...

    def write(self, text: str) -> None:
        """Printable text and line ends."""

    def complain(self, text: str) -> None:
        """The same, about what went wrong: a script's standard error."""


@dataclass(eq=False)
class Session:
    """`host`: what the prompt begins with. `machine`: what may be done on the machine it runs on. `explain`, `setup`:
    what it does not do itself, None where there is no way to. `ended`: the person has said `exit`."""

    client: SnmpClient
    schema: Schema
    terminal: Terminal
    host: str = "agent"
    machine: Machine = field(default_factory=Machine)
    explain: Explain | None = None
    setup: Setup | None = None
    selected: Table | None = None
    ended: bool = False
    vocabulary: Vocabulary = field(init=False)
    shown_rows: dict[str, list[int]] = field(default_factory=dict)  # by table: row numbers of the last display

    def __post_init__(self) -> None:
        self.vocabulary = vocabulary_of(self.schema)

    @classmethod
    async def open(
        cls,
        client: SnmpClient,
        schema: Schema,
        terminal: Terminal,
        *,
        machine: Machine | None = None,
        explain: Explain | None = None,
        setup: Setup | None = None,
    ) -> Session:
        """Asks the agent for its name. Raises SnmpError where nobody answers."""
        [name] = await client.get([SYS_NAME])
        text = name.value.decode("utf-8", "replace") if isinstance(name.value, bytes) else ""
        host = values.harmless(text)[:HOST_LENGTH] or "agent"
        return cls(client, schema, terminal, host, machine or Machine(), explain, setup)

    def prompt(self) -> str:
        """`host:table> `, or `host:> ` where none is selected."""
        return f"{self.host}:{self.selected.name if self.selected else ''}> "

    async def execute(self, line: str) -> int:
        """Carry out what a line says, up to the first command that fails. The status of the last one; what went
        wrong has been told."""
        try:
            commands = read_line(line)
        except LineError as problem:
            return self._complain(str(problem), problem.status)
        status = OK
        for command in commands:
            status = await self._tried(command)
            if status != OK or self.ended:
                break
        return status

    async def _tried(self, command: Command) -> int:
        try:
            return await self._carry_out(command)
        except Problem as problem:
            return self._complain(str(problem), problem.status)
        except SnmpError as error:
            return self._complain(values.harmless(str(error)), FAILED)

    def say(self, text: str) -> None:
        """A line, or several."""
        self.terminal.write(text + "\n")

    def tell(self, text: str) -> None:
        """A sentence: for a person not broken within words; for a script as it is."""
        self.terminal.write(self._prose(text) + "\n")

    def _prose(self, text: str) -> str:
        return prose(text, self.terminal.columns) if self.terminal.person else text

    def _complain(self, text: str, status: int) -> int:
        self.terminal.complain(self._prose(text) + "\n")
        return status

    async def _carry_out(self, command: Command) -> int:
        first, *rest = command.items
        if isinstance(first, Word) and not first.quoted and first.text in COMMANDS:
            return await call(self, command.words)
        assignments = [item for item in command.items if isinstance(item, Assignment)]
        if assignments:
            if len(assignments) <= len(rest):
                accepted = 'name=value, values with blanks in "", and ; before what is no assignment'
                raise NameProblem(f"a word without = among assignments; accepted: {accepted}")
            await assign(self, assignments)
            return OK
        for item in command.items:
            await self._show(item.text if isinstance(item, Word) else item.target)
        return OK

    async def _show(self, text: str) -> None:
        """A name alone, with `?`, with `:inx`, or with `.number`."""
        asked = NAMED.fullmatch(text)
        if asked is None:
            raise NameProblem(f"{values.harmless(text)!r} is no name; l lists tables, ? commands")
        name, inx, row, question = asked.groups()
        found = self.vocabulary.find(name, self.selected)
        table = found if isinstance(found, Table) else self.schema.table_of(found)
        if question:
            for column in self.vocabulary.columns(found) if isinstance(found, Table) else (found,):
                self.tell(display.type_line(column))
            return
        number = int(row) if row is not None else None
        if inx is not None:
            number = await display.row_of(self, table, int(inx))
        if isinstance(found, Table):
            await (display.show_table(self, found) if number is None else display.show_row(self, found, number))
        elif number is None:
            await display.show_column(self, found)
        else:
            await display.show_cell(self, found, number)
