"""Copies of the SQLite database: made beside the running store, looked through before they count, two kept.

A copy is one reading transaction on a connection of its own, in a thread of its own: in
WAL mode that keeps no writer waiting. It gets its name only when it is whole, sound and on
disk, so whatever ends the process meanwhile, what is named is a copy; and a damaged
database never takes the place of a good copy.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

from agent.store.errors import StoreDamaged, StoreError
from agent.store.secrets import sync_folder

logger = logging.getLogger(__name__)

FOLDER: Final = "copies"  # in the state folder
KEPT: Final = 2
INTERVAL_SECONDS: Final = 600.0
BUSY_SECONDS: Final = 5.0


class Copy(NamedTuple):
    """One copy, and the generation it holds."""

    path: Path
    generation: int


class Copies:
    """Those of one database. Blocking; one thread at a time."""

    def __init__(self, folder: Path, source: Path) -> None:
        self.folder = folder
        self._source = source
        self._name = re.compile(re.escape(source.stem) + r"\.(\d+)\.sqlite")

    def newest_first(self) -> list[Copy]:
        """By the time they were made: an older database may have been put in place by hand since."""
        found: list[tuple[int, int, Path]] = []
        if self.folder.is_dir():
            for path in self.folder.iterdir():
                match = self._name.fullmatch(path.name)
                if match:
                    found.append((path.stat().st_mtime_ns, int(match[1]), path))
        return [Copy(path, generation) for _, generation, path in sorted(found, reverse=True)]

    def make(self) -> Copy:
        """One more, on disk when this returns, and the oldest ones gone. Raises StoreDamaged where what was read is
        not sound, StoreError where it cannot be read or written; then nothing has changed."""
        draft = self.folder / f"{self._source.stem}.new"
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            _discard(draft)
            os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            generation = _copied(self._source, draft)
            self._date(draft)
            sync_file(draft)
            made = self.folder / f"{self._source.stem}.{generation}.sqlite"
            draft.rename(made)
            sync_folder(self.folder)
            for old in self.newest_first()[KEPT:]:
                old.path.unlink(missing_ok=True)
        except (OSError, sqlite3.Error) as error:
            with contextlib.suppress(OSError):
                _discard(draft)
            raise StoreError(f"no copy of {self._source} can be made in {self.folder}: {error}") from None
        except StoreDamaged:
            _discard(draft)
            raise
        return Copy(made, generation)

    def _date(self, draft: Path) -> None:
        """Later than every copy there is, also where the clock has been set back since: the oldest one goes."""
        newest = max((copy.path.stat().st_mtime_ns for copy in self.newest_first()), default=0)
        if draft.stat().st_mtime_ns <= newest:
            os.utime(draft, ns=(newest + 1, newest + 1))


def _copied(source: Path, draft: Path) -> int:
    """The generation that is in the copy. Raises sqlite3.Error, StoreDamaged."""
    reading = sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_SECONDS)
    with closing(reading), closing(sqlite3.connect(draft)) as writing:
        writing.execute("PRAGMA synchronous=OFF")  # the whole file is synchronised once, at the end
        try:
            reading.backup(writing)
            writing.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
            problem = problem_of(writing)
            generation = generation_of(writing) if not problem else 0
        except sqlite3.Error as error:
            if means_damage(error):
                raise StoreDamaged(f"{source} is damaged: {error}") from None
            raise
        if problem:
            raise StoreDamaged(f"{source} is damaged: {problem}")
        return generation


def problem_of(connection: sqlite3.Connection) -> str:
    """What SQLite finds wrong with the structure of a database, its indices too; '' for nothing. For 100,000 peers it
    takes 0.1 s. Raises sqlite3.Error for what cannot even be read."""
    found = str(connection.execute("PRAGMA integrity_check(1)").fetchone()[0])
    return "" if found == "ok" else found.replace("\n", " ")


def generation_of(connection: sqlite3.Connection) -> int:
    """Raises sqlite3.Error where this is no store."""
    row = connection.execute("SELECT generation FROM agentState").fetchone()
    if row is None or not isinstance(row[0], int):
        raise sqlite3.DatabaseError("it has no generation")
    return row[0]


OF_THE_SYSTEM: Final = frozenset(
    {
        *(sqlite3.SQLITE_PERM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM),
        *(sqlite3.SQLITE_READONLY, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN),
    }
)
"""Errors that say nothing about what is in the file."""


def means_damage(error: BaseException | None) -> bool:
    """Whether an error of reading says that the file holds something else than was written."""
    if not isinstance(error, sqlite3.DatabaseError):
        return False
    code = getattr(error, "sqlite_errorcode", None)
    return code is None or code & 0xFF not in OF_THE_SYSTEM


def sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _discard(draft: Path) -> None:
    for path in beside(draft):
        path.unlink(missing_ok=True)


def beside(database: Path) -> list[Path]:
    """A database and all files that SQLite may have next to it."""
    return [database, *(database.with_name(database.name + end) for end in ("-wal", "-shm", "-journal"))]
