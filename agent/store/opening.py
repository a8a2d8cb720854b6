"""Opening a store that may be damaged, and accepting what is left of it.

A SQLite database is looked through before anything is read or added. Where it is damaged,
or gone while copies of it are there, it is left as it is, and the newest good copy is
served from an interim database beside it: there the agent keeps what it must not forget
meanwhile (engineBoots), and it becomes the store when a SET accepts it. A restart before
that finds the same. Everything here blocks and belongs into the store's thread.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from agent.mib.schema import Schema
from agent.store.copies import (
    FOLDER,
    Copies,
    beside,
    generation_of,
    means_damage,
    problem_of,
    sync_file,
)
from agent.store.database import STATE, Database
from agent.store.errors import StoreDamaged, StoreError
from agent.store.secrets import sync_folder
from agent.store.snapshot import Configuration
from agent.store.wal import examine_log

logger = logging.getLogger(__name__)

UNKNOWN_GAP: Final = 1_000_000  # generations skipped where nobody can tell how many there were: none comes twice
HOW_TO_ACCEPT: Final = "to go on with that: ipsecGwCommand.0 = accept-store(4)"


@dataclass(frozen=True, slots=True)
class Damage:
    """A damaged database. `served`: generation of what is read instead; `known`: the highest generation that is known
    to have been; `certain`: there was none above it."""

    file: Path
    why: str
    served: int
    known: int
    certain: bool

    @property
    def lost(self) -> str:
        if self.known > self.served:
            more = "" if self.certain else " and perhaps later ones"
            span = f"{self.served + 1}..{self.known}" if self.known > self.served + 1 else f"{self.known}"
            return f"generations {span}{more} are lost"
        return "no generation is lost" if self.certain else "later generations may be lost"

    @property
    def message(self) -> str:
        """For a DisplayString: what is the matter and what to do first, the reason last."""
        return (
            f"{self.file.name} is damaged; read-only, generation {self.served} of a copy; {self.lost}; "
            f"{HOW_TO_ACCEPT}; or stop the agent and put a good {self.file.name} back. {self.why}"
        )

    @property
    def next_generation(self) -> int:
        return max(self.known, self.served) + (1 if self.certain else UNKNOWN_GAP)


@dataclass(frozen=True, slots=True)
class Opened:
    """A database and what is in it. `damage`: it is the interim one of a damaged store."""

    database: Database
    running: Configuration
    numbers: dict[str, dict[str, int]]
    texts: dict[str, dict[str, bytes]]
    damage: Damage | None = None


def database_file(url: str) -> Path | None:
    """The file of a SQLite URL, None for another database or one in memory."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        return None  # refused when it is opened
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:":
        return None
    return Path(parsed.database)


def copies_of(url: str, state: Path) -> Copies | None:
    """Where copies of this store are kept; None for one that others take care of."""
    file = database_file(url)
    return None if file is None else Copies(state / FOLDER, file)


def open_store(schema: Schema, url: str, state: Path) -> Opened:
    """Raises StoreError, StoreDamaged where there is nothing left to serve."""
    file, copies = database_file(url), copies_of(url, state)
    if file is None or copies is None:
        return _read(schema, url)
    try:
        _examine(file, copies)
        opened = _read(schema, url)
    except StoreDamaged as damaged:
        return _instead(schema, file, copies, str(damaged))
    for leftover in beside(interim_of(file)):
        if leftover.exists():
            logger.warning("store: %s is sound; %s of a damaged one is removed", file, leftover.name)
            leftover.unlink()
    newest = next(iter(copies.newest_first()), None)
    if newest is not None and newest.generation > opened.running.generation:
        logger.warning(
            "store: %s holds generation %d, its copy %s a later one; unless an older database was put in place, stop "
            "the agent and put the copy there",
            *(file, opened.running.generation, newest.path),
        )
    return opened


def interim_of(file: Path) -> Path:
    return file.with_name(file.name + ".interim")


def _examine(file: Path, copies: Copies) -> None:
    """Raises StoreDamaged; writes nothing. Errors that say nothing about the content are left to who opens it."""
    if not file.exists() or not file.stat().st_size:
        log = file.with_name(file.name + "-wal")
        if copies.newest_first() or interim_of(file).exists() or (log.exists() and log.stat().st_size):
            raise StoreDamaged("the file is gone" if not file.exists() else "the file is empty")
        return
    lost = examine_log(file.with_name(file.name + "-wal")).lost
    if lost:
        raise StoreDamaged(f"its write-ahead log is damaged, {lost} transactions or more are lost")
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True, timeout=5)) as connection:
            problem = problem_of(connection)
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not problem and STATE in tables:
                generation_of(connection)
            elif not problem and copies.newest_first():
                problem = "its tables are gone"
    except sqlite3.Error as error:
        if not means_damage(error):
            return
        problem = str(error)
    if problem:
        raise StoreDamaged(problem)


def _read(schema: Schema, url: str) -> Opened:
    """Raises StoreError, StoreDamaged for values that cannot be of this schema."""
    with damage_named(url):
        database = Database(schema, url)
        try:
            database.prepare()
            return Opened(database, database.load(), *database.load_small())
        except BaseException:
            database.close()
            raise


@contextlib.contextmanager
def damage_named(url: str) -> Iterator[None]:
    """While a database is read: what says that a SQLite file holds something else than was written is StoreDamaged."""
    try:
        yield
    except StoreError as error:
        original = getattr(error.__cause__, "orig", error.__cause__)
        if database_file(url) is not None and means_damage(original):
            raise StoreDamaged(str(original)) from error
        raise
    except (ValueError, TypeError, OverflowError) as error:
        raise StoreDamaged(f"it holds a value that no object can have: {error}") from error


# ---- something else in its place -----------------------------------------------------------


def _instead(schema: Schema, file: Path, copies: Copies, why: str) -> Opened:
    """The newest of what can be read. Raises StoreDamaged where nothing can."""
    told = _told(file)
    lost_in_log = _lost_in_log(file)
    for name, _ in _interims(file, copies, lost_in_log):
        interim = interim_of(file)
        try:
            _examine(interim, Copies(copies.folder, interim))
            opened = _read(schema, f"sqlite:///{interim}")
        except (StoreError, OSError) as error:
            logger.error("store: %s cannot be read either: %s", name, error)
            continue
        served = opened.running.generation
        known = max(told, *(copy.generation for copy in copies.newest_first()), served)
        log = file.with_name(file.name + "-wal")
        certain = told > 0 and not lost_in_log and not (log.exists() and log.stat().st_size)
        damage = Damage(file, why, served, known, certain)
        logger.error("store: %s is damaged: %s; %s is served, %s", file, why, name, damage.lost)
        return Opened(opened.database, opened.running, opened.numbers, opened.texts, damage)
    raise StoreDamaged(
        f"the store {file} is damaged ({why}) and no copy in {copies.folder} can be read. Put a good {file.name} or a "
        f"copy of it in its place; to begin with an empty configuration move {file.name} away"
    )


def _interims(file: Path, copies: Copies, lost_in_log: int) -> Iterator[tuple[str, int]]:
    """Puts one candidate after the other into the interim's place, the best first; (what it is, its generation)."""
    interim = interim_of(file)
    newest = copies.newest_first()
    if interim.exists():
        yield f"{interim.name} of an earlier start", 0
    if lost_in_log and _put(interim, file, log=True):
        generation = _told(interim)
        if not newest or generation >= newest[0].generation:
            yield "what is left of it", generation
    for copy in newest:
        if _put(interim, copy.path):
            yield f"copy {copy.path.name}", copy.generation
    for path in beside(interim):
        path.unlink(missing_ok=True)


def _put(interim: Path, source: Path, *, log: bool = False) -> bool:
    """The octets of a database in the interim's place; with its log."""
    try:
        for path in beside(interim):
            path.unlink(missing_ok=True)
        pairs = [(source, interim)]
        if log:
            pairs.append((source.with_name(source.name + "-wal"), interim.with_name(interim.name + "-wal")))
        for old, new in reversed(pairs):  # the database comes last: without it there is no interim
            draft = new.with_name(new.name + ".new")
            shutil.copyfile(old, draft)
            draft.chmod(0o600)
            sync_file(draft)
            draft.rename(new)
        sync_folder(interim.parent)
    except OSError as error:
        logger.error("store: %s cannot be copied to %s: %s", source, interim, error.strerror)
        return False
    return True


def _lost_in_log(file: Path) -> int:
    try:
        return examine_log(file.with_name(file.name + "-wal")).lost
    except OSError:
        return 0


def _told(file: Path) -> int:
    """The generation that a database of any state still tells, 0 for none; nothing is written, its log not read."""
    with (
        contextlib.suppress(sqlite3.Error, OSError),
        closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as connection,
    ):
        return max(0, generation_of(connection))
    return 0


# ---- accepting -----------------------------------------------------------------------------


def accept(schema: Schema, url: str, interim: Database, damage: Damage) -> tuple[Database, Path]:
    """Make the interim database the store, at the next generation; the damaged files are kept under another name,
    which is returned. Raises StoreError; then the interim one stays."""
    file = damage.file
    interim.write_generation(damage.next_generation)
    interim.close()  # its log is now in it
    aside = file.with_name(f"{file.name}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
    try:
        sync_file(interim_of(file))
        for old, new in zip(beside(file), beside(aside), strict=True):
            if old.exists():
                old.replace(new)
        interim_of(file).replace(file)
        sync_folder(file.parent)
    except OSError as error:
        raise StoreError(f"{interim_of(file)} cannot be made {file}: {error.strerror}") from error
    return Database(schema, url), aside
