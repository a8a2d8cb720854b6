"""One session of the shell in a channel of SSH: at a terminal, with a command, or with a script on standard input.

The shell is the same as the local one. What is different is where text goes and comes from,
and that many of them live in one process: none may wait for its client, nor may a client
make the agent keep more for it than it could read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Protocol, TextIO, cast

import asyncssh
from prompt_toolkit.application import Application
from prompt_toolkit.data_structures import Size
from prompt_toolkit.output.vt100 import Vt100_Output

from agent.mib.schema import Schema
from agent.shell.interact import OutputTerminal, interact
from agent.shell.machine import LOCAL, Machine
from agent.shell.outcome import FAILED, INTERRUPTED, MISUSED, OK
from agent.shell.packet import Packet
from agent.shell.session import Session
from agent.shell.ssh_input import ChannelInput
from agent.shell.values import harmless
from agent.snmp.client import SnmpClient, SnmpError
from agent.snmp.client.session import Asking

if TYPE_CHECKING:
    from agent.shell.session import Terminal

log = logging.getLogger(__name__)

COLUMNS, ROWS = 80, 24  # where the client names none
MOST_COLUMNS, MOST_ROWS = 1000, 500
LEAST_COLUMNS: Final = 20
TERM_LENGTH: Final = 32
SCRIPT_LINE: Final = 65_536  # octets of a line of a script
END_SECONDS: Final = 1.0  # that a session has to end in
CONTROL_C: Final = b"\x03"
WHY_NOT: Final = "is for users of level admin"
GREETING: Final = "? lists the commands, l the tables; Tab completes.\n"


class Visitor(Protocol):
    """Somebody who has proved to be a user of the agent."""

    @property
    def name(self) -> str: ...
    @property
    def administers(self) -> bool:
        """Level admin."""

    @property
    def by_key(self) -> bool:
        """Not by password."""

    def asking(self) -> Asking:
        """Requests as this user."""

    async def still(self) -> bool:
        """Whether the user is what it was at the login."""

    async def explain(self, packet: Packet) -> str:
        """What becomes of a packet. Raises Problem."""


class Channel(asyncssh.SSHServerSession[bytes]):
    """`touched`: called when the person has done something; `ended`: once, at the end."""

    def __init__(
        self, visitor: Visitor, schema: Schema, touched: Callable[[], None], ended: Callable[[Channel], None]
    ) -> None:
        self._visitor, self._schema = visitor, schema
        self._touched, self._ended = touched, ended
        self._term = ""
        self.person = False
        self._command: str | None = None
        self._input: ChannelInput | None = None
        self._script: asyncio.StreamReader | None = None
        self._editor: Application[str] | None = None
        self._task: asyncio.Task[None] | None = None
        self._work: asyncio.Future[int] | None = None
        self._why = ""
        self._line = 0  # of a script, the one being carried out
        self._drained = asyncio.Event()
        self._drained.set()
        self._chan: asyncssh.SSHServerChannel[bytes]

    # ---- what the client asks for -----------------------------------------------------

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._chan = chan

    def pty_requested(self, term_type: str, term_size: tuple[int, int, int, int], term_modes: Any) -> bool:
        plain = "".join(c for c in term_type[:TERM_LENGTH] if c.isalnum() or c in "-+._")
        self._term = plain or "dumb"
        self.person = True
        return True

    def shell_requested(self) -> bool:
        return True

    def exec_requested(self, command: str) -> bool:
        self._command = command
        return True

    def subsystem_requested(self, subsystem: str) -> bool:
        return False

    def session_started(self) -> None:
        if self._term and self._command is None:
            self._input = ChannelInput(self._chan.pause_reading, self._chan.resume_reading, self._flooded)
        elif self._command is None:
            self._script = asyncio.StreamReader(SCRIPT_LINE)
            self._script.set_transport(cast(asyncio.Transport, self._chan))  # which it pauses and resumes
        self._task = asyncio.get_running_loop().create_task(self._run())

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        self._touched()
        if self._input is not None:
            self._input.feed(data)
        elif self._script is not None:
            self._script.feed_data(data)
        elif self._term and CONTROL_C in data:
            self._interrupt()

    def eof_received(self) -> bool:
        if self._input is not None:
            self._input.end()
        elif self._script is not None:
            self._script.feed_eof()
        return True  # what is being done is still told

    def signal_received(self, signal: str) -> None:
        if signal in ("INT", "TERM", "HUP"):
            self._interrupt()

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        if self._editor is not None and self._editor.is_running:
            self._editor._on_resize()

    def pause_writing(self) -> None:
        self._drained.clear()

    def resume_writing(self) -> None:
        self._drained.set()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()
        if self._input is not None:
            self._input.close()
        self._ended(self)

    # ---- the session ------------------------------------------------------------------

    async def end(self, why: str) -> None:
        """End it and say why, once the client's terminal is as it was before."""
        self._why = why
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=END_SECONDS)

    async def _run(self) -> None:
        status = FAILED
        try:
            status = await self._serve()
        except SnmpError as error:
            self.complain(f"{harmless(str(error))}\n")
        except Exception:
            log.exception("the session of user %s failed", harmless(self._visitor.name))
            self.complain("this session failed; the agent's log says how\n")
        finally:
            if self._why:
                self.complain(f"{self._why}\n")
            if not self._chan.is_closing():
                self._chan.exit(status)

    async def _serve(self) -> int:
        async with SnmpClient(self._visitor.asking(), self._schema) as client:
            if self._input is not None:
                return await self._interactive(client, self._input)
            session = await self._session(client, self)
            if self._command is not None:
                return await self._interruptible(session.execute(self._command))
            assert self._script is not None
            return await self._interruptible(self._lines(session, self._script))

    async def _session(self, client: SnmpClient, terminal: Terminal) -> Session:
        allowed = LOCAL if self._visitor.administers else frozenset[str]()
        machine = Machine(allowed, WHY_NOT, "the gateway")
        session = await PacedSession.open(
            client, self._schema, terminal, machine=machine, explain=self._visitor.explain
        )
        assert isinstance(session, PacedSession)
        session.drained, session.keys = self._drained, self._input
        return session

    async def _interactive(self, client: SnmpClient, keys: ChannelInput) -> int:
        output = Vt100_Output(cast(TextIO, _Writer(self._chan)), self._size, term=self._term, enable_cpr=False)
        session = await self._session(client, OutputTerminal(output))
        output.write(GREETING)
        output.flush()
        return await interact(session, keys, output, alone=False, editor=self._edits)

    def _edits(self, editor: Application[str]) -> None:
        self._editor = editor

    async def _lines(self, session: Session, lines: asyncio.StreamReader) -> int:
        """Until one fails, or says `exit`."""
        status = OK
        try:
            while line := await lines.readline():
                self._line += 1
                status = await session.execute(line.decode("utf-8", "replace").rstrip("\r\n"))
                if status != OK or session.ended:
                    break
        except ValueError:
            self._line += 1
            self.complain(f"longer than {SCRIPT_LINE} octets\n")
            status = MISUSED
        return status

    async def _interruptible(self, work: Awaitable[int]) -> int:
        self._work = asyncio.ensure_future(work)
        try:
            return await self._work
        except asyncio.CancelledError:
            if asyncio.current_task() is not None and self._task is not None and self._task.cancelling():
                self._work.cancel()
                raise
            return INTERRUPTED

    def _interrupt(self) -> None:
        if self._work is not None:
            self._work.cancel()

    def _flooded(self) -> None:
        self._why = "nobody types that much in a line"
        if self._task is not None:
            self._task.cancel()

    # ---- a session's Terminal, where there is no person -------------------------------

    @property
    def columns(self) -> int:
        return max(self._size().columns, LEAST_COLUMNS)

    def write(self, text: str) -> None:
        self._put(text, None)

    def complain(self, text: str) -> None:
        """On standard error, which at a terminal is the same; with the line's number in a script."""
        where = f"line {self._line}: " if self._line else ""
        self._put(where + text, None if self._term else asyncssh.EXTENDED_DATA_STDERR)

    def _put(self, text: str, datatype: asyncssh.DataType) -> None:
        if not self._chan.is_closing():
            octets = text.encode("utf-8", "replace")
            self._chan.write(octets.replace(b"\n", b"\r\n") if self._term else octets, datatype)

    def _size(self) -> Size:
        columns, rows, *_ = self._chan.get_terminal_size()
        return Size(min(rows or ROWS, MOST_ROWS), min(columns or COLUMNS, MOST_COLUMNS))


class PacedSession(Session):
    """A line is not begun before its client has taken what the one before it wrote."""

    drained: asyncio.Event | None = None
    keys: ChannelInput | None = None

    async def execute(self, line: str) -> int:
        if self.keys is None:
            return await self._paced(line)
        with self.keys.busy():
            return await self._paced(line)

    async def _paced(self, line: str) -> int:
        if self.drained is not None:
            await self.drained.wait()
        return await super().execute(line)


class _Writer:
    """What prompt_toolkit takes for standard output."""

    encoding = "utf-8"

    def __init__(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._chan = chan

    def write(self, text: str) -> int:
        if not self._chan.is_closing():
            self._chan.write(text.replace("\n", "\r\n").encode("utf-8", "replace"))
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def isatty(self) -> bool:
        return True
