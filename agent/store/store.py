"""The store: what everybody else holds in hand. Opening, reading, committing, telling, closing."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from sqlalchemy import make_url

from agent.mib.schema import Column, Role, Schema
from agent.store.candidate import Candidate, Candidates
from agent.store.commit import Writer
from agent.store.database import Database
from agent.store.errors import SecretsError, StoreError, StoreMissing
from agent.store.hooks import Change, Check, Edit, Origin, Subscriber
from agent.store.live import Live
from agent.store.lock import StoreLock
from agent.store.references import References
from agent.store.secrets import KEY_FILE, Secrets, load_key, no_core_dumps
from agent.store.snapshot import Configuration, decoded
from agent.store.view import View

logger = logging.getLogger(__name__)

GENERATION: Final = "ipsecGwGeneration"
T = TypeVar("T")
START: Final = Origin("start")

__all__ = ["Edit", "Origin", "Store", "StoredState", "read_store"]


class Store:
    """Made by `open`; used on the event loop."""

    def __init__(self, schema: Schema, state: Path, url: str) -> None:
        """Raises StoreLocked, SecretsError, StoreError."""
        self.schema = schema
        self.live = Live(schema)
        self.view = View(lambda: self.running, self.live)
        self._lock = StoreLock(state)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._subscribers: list[tuple[Subscriber, int]] = []
        self._untold: deque[Change] = deque()
        self._closed = False
        database: Database | None = None
        try:
            no_core_dumps()
            self._database = database = self._thread.submit(Database, schema, url).result()
            self._thread.submit(self._database.prepare).result()
            running = self._thread.submit(self._database.load).result()
            self._numbers, self._texts = self._thread.submit(self._database.load_small).result()
            self.secrets = _open_secrets(state, running)
        except BaseException:
            if database is not None:
                self._thread.submit(database.close).result()
            self._release()
            raise
        candidates = Candidates(References(running), self.secrets)
        self._writer = Writer(running, candidates, self._database.write, self._thread, self._accepted)
        self._show_generation()

    @classmethod
    def open(cls, schema: Schema, url: str, state: Path) -> Store:
        """Take the lock, bring the database up to the schema, load it. `url`: as SQLAlchemy reads it, '' for SQLite
        in the state folder. Raises StoreLocked, SecretsError, StoreError."""
        return cls(schema, state, url or default_url(state))

    # ---- reading ----------------------------------------------------------------------

    @property
    def running(self) -> Configuration:
        """The latest configuration that is on disk."""
        return self._writer.running

    @property
    def checks(self) -> list[Check]:
        """Step 5: what the caller of `commit` wants examined in SETs of managers."""
        return self._writer.checks

    # ---- writing ----------------------------------------------------------------------

    async def commit(self, edits: Sequence[Edit], origin: Origin) -> Configuration:
        """All edits or none, durable on return: the configuration that holds them, of the same generation as before
        where they change nothing. An edit of a row's generation column is a condition. Raises Refused."""
        return await self._writer.commit(edits, origin)

    def numbers(self, kind: str) -> dict[str, int]:
        """Durable numbers of the agent itself, by name: reqids, engineBoots."""
        return dict(self._numbers.get(kind, {}))

    def texts(self, kind: str) -> dict[str, bytes]:
        """Durable octets of the agent itself, by name: engine ID."""
        return dict(self._texts.get(kind, {}))

    async def remember(self, kind: str, numbers: Mapping[str, int | None]) -> None:
        """Set, or forget (None), durable numbers; on disk on return. Raises StoreError."""
        await self._remember(kind, numbers, {})

    async def remember_texts(self, kind: str, texts: Mapping[str, bytes | None]) -> None:
        """The same for octets."""
        await self._remember(kind, {}, texts)

    async def _remember(self, kind: str, numbers: Mapping[str, int | None], texts: Mapping[str, bytes | None]) -> None:
        if not numbers and not texts:
            return
        if self._closed:
            raise StoreError("the store is closed")
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._database.write_small, kind, dict(numbers), dict(texts))
        _merge(self._numbers.setdefault(kind, {}), numbers)
        _merge(self._texts.setdefault(kind, {}), texts)

    # ---- telling ----------------------------------------------------------------------

    def subscribe(self, subscriber: Subscriber, *, replay: bool = False) -> None:
        """Tell it of every generation from now on. With `replay` it is first, at once, given the whole
        configuration."""
        self._subscribers.append((subscriber, self.running.generation))
        if replay:
            empty = Configuration.empty(self.schema)
            whole = Change(self.running.generation, empty, self.running, (), START, replay=True)
            _tell(subscriber, whole)

    def unsubscribe(self, subscriber: Subscriber) -> None:
        self._subscribers = [entry for entry in self._subscribers if entry[0] is not subscriber]

    def _accepted(self, candidate: Candidate) -> None:
        """After the swap: hooks wait for the next turn of the loop, so that the reply goes out first."""
        self._show_generation()
        generation = candidate.after.generation
        change = Change(generation, candidate.before, candidate.after, candidate.rows, candidate.origin)
        self._untold.append(change)
        if len(self._untold) == 1:
            asyncio.get_running_loop().call_soon(self._tell_next)

    def _tell_next(self) -> None:
        if not self._untold:
            return
        change = self._untold[0]
        for subscriber, since in list(self._subscribers):
            if change.generation > since:
                _tell(subscriber, change)
        self._untold.popleft()
        if self._untold:
            asyncio.get_running_loop().call_soon(self._tell_next)

    def _show_generation(self) -> None:
        column = self.schema.columns.get(GENERATION)
        if column is not None and column.table in self.live:
            self.live.update(column.table, {0: {GENERATION: self.running.generation & 0xFFFFFFFF}})

    # ---- the end ----------------------------------------------------------------------

    async def close(self) -> None:
        """Finish what waits, then let go of database and lock."""
        if self._closed:
            return
        self._closed = True
        await self._writer.close()
        while self._untold:
            self._tell_next()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._database.close)
        self._release()

    def _release(self) -> None:
        self._thread.shutdown()
        self._lock.release()


@dataclass(frozen=True, slots=True)
class StoredState:
    """What a store holds, read without running on it."""

    configuration: Configuration
    numbers: Mapping[str, Mapping[str, int]]


def read_store(schema: Schema, url: str, state: Path) -> StoredState:
    """What is stored, also while an agent runs on it; writes nothing and takes no lock. Raises StoreMissing,
    StoreError."""
    url = url or default_url(state)
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").is_file():
        raise StoreMissing(f"there is no store at {parsed.render_as_string(hide_password=True)}")
    database = Database(schema, url)
    try:
        return StoredState(database.load(), database.load_small()[0])
    finally:
        database.close()


def default_url(state: Path) -> str:
    return f"sqlite:///{state / 'agent.sqlite'}"


def _open_secrets(state: Path, running: Configuration) -> Secrets:
    """With the key of this store. Raises SecretsError where what is sealed cannot be opened."""
    sealed = _first_sealed(running)
    secrets = Secrets(load_key(state, sealed_values=sealed is not None))
    if sealed is not None:
        column, number, blob = sealed
        try:
            secrets.open(column.table, number, column.name, blob)
        except SecretsError as error:
            raise SecretsError(f"{state / KEY_FILE} is not the key of this store: {error}") from None
    return secrets


def _first_sealed(configuration: Configuration) -> tuple[Column, int, bytes] | None:
    for snapshot in configuration.tables.values():
        for column in snapshot.table.columns:
            if column.traits.role is not Role.SEALED:
                continue
            for numbers, cells in snapshot.column(column.position):
                for number, tlv in zip(numbers, cells, strict=True):
                    blob = decoded(tlv)
                    if isinstance(blob, bytes) and blob:
                        return column, number, blob
    return None


def _tell(subscriber: Subscriber, change: Change) -> None:
    try:
        subscriber.changed(change)
    except Exception:
        logger.exception("%r failed on generation %d", subscriber, change.generation)


def _merge(into: dict[str, T], values: Mapping[str, T | None]) -> None:
    for name, value in values.items():
        if value is None:
            into.pop(name, None)
        else:
            into[name] = value
