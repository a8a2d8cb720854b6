"""Lines typed before: in a file that only its owner reads, and never one that may hold a secret.

A line is left out, of the file and of the arrow keys, when a name in it may be that of a
secret variable in any table, or is no name at all: a slip of the pen in `PreSharedKey` is
followed by the key all the same.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prompt_toolkit.history import FileHistory, History, InMemoryHistory

from agent.mib.schema import Role
from agent.shell.assign import COMMAND, COMMANDS
from agent.shell.language import Assignment, LineError, read_line
from agent.shell.vocabulary import NameProblem

if TYPE_CHECKING:
    from agent.shell.session import Session

PRIVATE: Final = 0o600
MOST_OCTETS: Final = 1 << 18  # of the file; then its older half goes
SECRET: Final = Role.SECRET


def may_hold_secret(session: Session, line: str) -> bool:
    """Whether a line had better be forgotten."""
    try:
        commands = read_line(line)
    except LineError:
        return "=" in line
    names = [item.name for command in commands for item in command.items if isinstance(item, Assignment)]
    configurations = session.schema.tables[COMMANDS] if COMMAND in map(str.lower, names) else session.selected
    vocabulary = session.vocabulary
    secrets = [column for column in session.schema.columns.values() if column.traits.role is SECRET]
    called = {name.lower() for column in secrets for name in (column.name, vocabulary.short(column))}
    for name in names:
        if any(secret.startswith(name.lower()) for secret in called):
            return True
        try:
            vocabulary.find(name, configurations, tables_first=False)
        except NameProblem:
            return True
    return False


class DiscreetMemory(InMemoryHistory):
    """Of this session only."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session

    def append_string(self, string: str) -> None:
        if not may_hold_secret(self._session, string):
            super().append_string(string)


class DiscreetFile(FileHistory):
    """In a file."""

    def __init__(self, session: Session, path: Path) -> None:
        super().__init__(str(path))
        self._session = session

    def append_string(self, string: str) -> None:
        if not may_hold_secret(self._session, string):
            super().append_string(string)

    def store_string(self, string: str) -> None:
        with contextlib.suppress(OSError):  # a full disk does not end the session
            super().store_string(string)


def open_history(session: Session, path: Path | None) -> History:
    """The file is made, and shortened when it has become long; where it cannot be, the session remembers by itself."""
    if path is None:
        return DiscreetMemory(session)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, PRIVATE))
        path.chmod(PRIVATE)
        octets = path.read_bytes()
        if len(octets) > MOST_OCTETS:
            path.write_bytes(octets[octets.index(b"\n\n", len(octets) - MOST_OCTETS // 2) :])
    except (OSError, ValueError):
        return DiscreetMemory(session)
    return DiscreetFile(session, path)
