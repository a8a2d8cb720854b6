"""The store: what everybody else holds in hand. Opening, reading, committing, telling, closing."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from sqlalchemy import make_url

from agent.mib.schema import Column, Role, Schema
from agent.store import audit
from agent.store.actions import Actions
from agent.store.candidate import Candidate, Candidates
from agent.store.commit import Writer
from agent.store.copies import INTERVAL_SECONDS, beside
from agent.store.copying import Copying
from agent.store.database import Database
from agent.store.edits import check_edit
from agent.store.errors import ErrorStatus, Refused, SecretsError, StoreDamaged, StoreError, StoreMissing
from agent.store.events import Events
from agent.store.free import FreeIndices
from agent.store.health import Health, StoreState, Topic
from agent.store.hooks import Change, Check, Commanded, Edit, Expander, Origin, Subscriber
from agent.store.live import Live
from agent.store.load import Contents, Loader
from agent.store.lock import StoreLock
from agent.store.opening import Damage, accept, copies_of, damage_named, database_file, interim_of, open_store
from agent.store.references import References
from agent.store.secrets import KEY_FILE, Secrets, load_key, no_core_dumps
from agent.store.snapshot import Configuration, decoded
from agent.store.view import View

logger = logging.getLogger(__name__)

GENERATION: Final = "ipsecGwGeneration"
COMMAND: Final = "ipsecGwCommand"
ACCEPT_STORE: Final = 4
READ_ONLY: Final = (
    "the database is damaged and an older copy is served, read-only (ipsecGwStoreMessage); accepted: "
    "ipsecGwCommand.0 = accept-store(4)"
)
T = TypeVar("T")
START: Final = Origin("start")

__all__ = ["Edit", "Origin", "Store", "StoredState", "read_store"]


class Store:
    """Made by `open`; used on the event loop."""

    def __init__(self, schema: Schema, state: Path, url: str) -> None:
        """Raises StoreLocked, SecretsError, StoreError."""
        self.schema = schema
        self.live = Live(schema)
        self.events = Events()
        self.view = View(lambda: self.running, self.live)
        self._lock = StoreLock(state)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._subscribers: list[tuple[Subscriber, int]] = []
        self._untold: deque[Change] = deque()
        self._closed = False
        database: Database | None = None
        try:
            no_core_dumps()
            opened = self._thread.submit(open_store, schema, url, state).result()
            self._database = database = opened.database
            running, self._numbers, self._texts = opened.running, opened.numbers, opened.texts
            self.secrets = _open_secrets(state, running)
        except BaseException:
            if database is not None:
                self._thread.submit(database.close).result()
            self._release()
            raise
        self._candidates = Candidates(References(running), self.secrets)
        self.actions = Actions(schema, self.live)
        self._url = url
        self.health = Health(self.live)
        self._writer = Writer(
            running,
            self._candidates,
            lambda writing: self._database.write(writing),  # another one, once a damaged store is accepted
            self._thread,
            self._accepted,
            self.actions,
            self.health,
        )
        self._show_generation()
        self._free = FreeIndices(schema, self.live, running)
        copies = copies_of(url, state)
        self._copying = Copying(copies, self.health) if copies is not None else None
        self._damage = opened.damage
        self._accepting = asyncio.Lock()
        self._sound = asyncio.Event()
        if opened.damage is None:
            self._sound.set()
        else:
            self.health.say(Topic.DATABASE, StoreState.READ_ONLY, opened.damage.message)

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

    @property
    def expanders(self) -> list[Expander]:
        """What stands for several edits, or for others, is replaced by these, in order."""
        return self._candidates.expanders

    # ---- writing ----------------------------------------------------------------------

    async def commit(self, edits: Sequence[Edit], origin: Origin) -> Configuration:
        """All edits or none, durable on return: the configuration that holds them, of the same generation as before
        where they change nothing. An edit of a row's generation column is a condition. Raises Refused."""
        if self._damage is not None:
            return await self._while_damaged(edits, origin)
        return await self._writer.commit(edits, origin)

    async def load(
        self, contents: Contents, origin: Origin, what: str, named: Sequence[Edit] = ()
    ) -> tuple[Configuration, int]:
        """Replace the whole configuration in one generation; the configuration that holds it and how many rows
        differ. `what` names the source in the audit line; `named` are edits beside it that checks look at, such as
        that a lock-out is allowed. Raises Refused."""
        if self._damage is not None:
            raise Refused(ErrorStatus.RESOURCE_UNAVAILABLE, -1, READ_ONLY)
        return await self._writer.load(Loader(contents, self.secrets, named, self.expanders).build, origin, what)

    @property
    def commanded(self) -> list[Commanded]:
        """Who is told of accepted SETs that name transient objects."""
        return self._writer.commanded

    # ---- a damaged store --------------------------------------------------------------

    @property
    def damaged(self) -> bool:
        """What is read is an older copy, and nothing is to be done by it until a SET accepts it."""
        return self._damage is not None

    async def sound(self) -> None:
        """Until the store is no damaged one: at once, as a rule."""
        await self._sound.wait()

    async def _while_damaged(self, edits: Sequence[Edit], origin: Origin) -> Configuration:
        """One SET accepts what is served; every other one is refused, by the first phase of RFC 3416 section 4.2.5:
        the store is a resource that is not there now."""
        try:
            for at, edit in enumerate(edits):
                check_edit(self.schema, at, edit, origin)
            other = [at for at, edit in enumerate(edits) if (edit.column.name, edit.value) != (COMMAND, ACCEPT_STORE)]
            if other or not edits:
                at = other[0] if other else -1
                raise Refused(ErrorStatus.RESOURCE_UNAVAILABLE, at, f"{READ_ONLY}, in a SET of its own")
            async with self._accepting:
                if self._damage is not None:
                    await self._accept(self._damage, edits, origin)
        except Refused as refused:
            audit.refused(refused, origin)
            raise
        return self.running

    async def _accept(self, damage: Damage, edits: Sequence[Edit], origin: Origin) -> None:
        """Raises Refused; then all is as before."""
        loop = asyncio.get_running_loop()
        work = partial(accept, self.schema, self._url, self._database, damage)
        try:
            self._database, aside = await loop.run_in_executor(self._thread, work)
        except StoreError as error:
            raise Refused(ErrorStatus.COMMIT_FAILED, 0, f"not accepted, nothing was changed: {error}") from None
        before = self.running
        self._writer.running = before.replaced(damage.next_generation, {})
        self._damage = None
        audit.accepted(damage.next_generation, edits, origin)
        logger.warning(
            "store: generation %d is in force as %d; %s; the damaged database is kept as %s",
            *(damage.served, damage.next_generation, damage.lost, aside),
        )
        self._show_generation()
        self.health.well(Topic.DATABASE)
        self._untold.append(
            Change(damage.next_generation, Configuration.empty(self.schema), self.running, (), origin, replay=True)
        )
        self._sound.set()
        if len(self._untold) == 1:
            loop.call_soon(self._tell_next)

    # ---- small durable things -----------------------------------------------------------

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
        try:
            await loop.run_in_executor(self._thread, self._database.write_small, kind, dict(numbers), dict(texts))
        except StoreError as error:
            self.health.say(Topic.WRITING, StoreState.FAILING, str(error))
            raise
        self.health.well(Topic.WRITING)
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
        self._free.changed({row.table for row in candidate.rows}, candidate.after)
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

    # ---- copies -----------------------------------------------------------------------

    def keep_copies(self, interval: float = INTERVAL_SECONDS) -> None:
        """From now on a copy at once, every `interval` seconds, and at the end, where the generation has moved. Of
        SQLite files only: whoever runs another database keeps its backups."""
        if self._copying is not None:
            self._copying.start(self._sound, lambda: self.running.generation, interval)

    # ---- the end ----------------------------------------------------------------------

    async def close(self) -> None:
        """Finish what waits, then let go of database and lock."""
        if self._closed:
            return
        self._closed = True
        await self._writer.close()
        while self._untold:
            self._tell_next()
        if self._copying is not None:
            await self._copying.stop()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._database.close)
        self._release()

    def _release(self) -> None:
        self._thread.shutdown()
        self._lock.release()


@dataclass(frozen=True, slots=True)
class StoredState:
    """What a store holds, read without running on it. `damage`: it is that of a copy, and why."""

    configuration: Configuration
    numbers: Mapping[str, Mapping[str, int]]
    damage: str = ""


def read_store(schema: Schema, url: str, state: Path) -> StoredState:
    """What is stored, also while an agent runs on it; writes nothing and takes no lock. Raises StoreMissing,
    StoreError."""
    url = url or default_url(state)
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").is_file():
        raise StoreMissing(f"there is no store at {parsed.render_as_string(hide_password=True)}")
    file = database_file(url)
    try:
        return _stored_in(schema, url)
    except StoreDamaged as damaged:
        if file is None:
            raise
        if not (interim := interim_of(file)).is_file():
            text = (
                f"{file} is damaged ({damaged}); an agent that starts serves the newest copy of it, see docs/backup.md"
            )
            raise StoreDamaged(text) from None
        logger.warning("%s is damaged (%s); read instead: %s, which the agent serves", file, damaged, interim.name)
        return _stored_in(schema, f"sqlite:///{interim}")


def _stored_in(schema: Schema, url: str) -> StoredState:
    """Raises StoreError, StoreDamaged."""
    with damage_named(url), closing(Database(schema, url)) as database:
        return StoredState(database.load(), database.load_small()[0])


def read_served(schema: Schema, url: str, state: Path) -> StoredState:
    """What an agent that starts would serve, for what has to go on where it can: of a damaged store the newest copy,
    which is put in its interim place as the agent does it. Takes the lock meanwhile. Raises StoreMissing where
    nothing has ever been stored, StoreLocked, StoreError."""
    url = url or default_url(state)
    file, copies = database_file(url), copies_of(url, state)
    if file is None or copies is None:
        return read_store(schema, url, state)
    if not any(path.exists() for path in (*beside(file), interim_of(file))) and not copies.newest_first():
        raise StoreMissing(f"there is no store at {url}")
    lock = StoreLock(state)
    try:
        opened = open_store(schema, url, state)
        opened.database.close()
    finally:
        lock.release()
    return StoredState(opened.running, opened.numbers, "" if opened.damage is None else opened.damage.message)


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
