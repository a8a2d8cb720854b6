"""The shell for a program: lines of `--command` or of standard input, plain text, an exit status.

The first line that fails ends it, so that a configuration is not built on what is not there;
what went wrong goes to standard error, with the number of its line.
"""

from __future__ import annotations

import asyncio
import io
import shutil
import sys
from collections.abc import AsyncIterator
from typing import Final

from agent.shell.outcome import OK
from agent.shell.session import Session

LEAST_COLUMNS: Final = 20


class PlainTerminal:
    """Standard output. `columns`: of the terminal where there is one, else COLUMNS or 80."""

    def __init__(self, columns: int = 0) -> None:
        if isinstance(sys.stdout, io.TextIOWrapper):  # what a locale has no letters for does not end the script
            sys.stdout.reconfigure(errors="backslashreplace")
        self.person = sys.stdout.isatty()
        self.line = 0
        self._columns = columns

    @property
    def columns(self) -> int:
        return max(self._columns or shutil.get_terminal_size((80, 24)).columns, LEAST_COLUMNS)

    def write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    def complain(self, text: str) -> None:
        where = f"line {self.line}: " if self.line else ""
        sys.stderr.write(where + text)
        sys.stderr.flush()


async def run_command(session: Session, line: str) -> int:
    """Status of one line."""
    return await session.execute(line)


async def run_script(session: Session, terminal: PlainTerminal, lines: AsyncIterator[str]) -> int:
    """Carry out lines until one fails or says `exit`."""
    status = OK
    async for line in lines:
        terminal.line += 1
        status = await session.execute(line.rstrip("\r\n"))
        if status != OK or session.ended:
            break
    return status


async def standard_input() -> AsyncIterator[str]:
    """Its lines, as they come; octets that are no text pass as they are."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
    while line := await asyncio.to_thread(sys.stdin.readline):
        yield line
