"""Brings the IKE daemon to the plan's connections and secrets, at its own pace.

It works level by level, not event by event: names that may differ are marked, and whatever
the plan wants when a name's turn comes is what is done. So the slow daemon never holds up
the kernel's policies, changes during the work coalesce, and a daemon that comes back is
only another reason to mark names.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from agent.backends.backoff import Backoff
from agent.backends.engine import EngineError, Ike, IkeEvent, IkeEventKind
from agent.backends.rowstate import Ledger
from agent.plan import numbers
from agent.plan.daemon import USUAL, DaemonSettings
from agent.plan.model import Child, Connection, Credential, RowRef, Secret, ViciValue

logger = logging.getLogger(__name__)

PEER_TABLE: Final = "ipsecPeerTable"
RULE_TABLE: Final = "ipsecTrafficTable"
LOOKED_AT_A_TURN: Final = 1024  # connections compared before the loop may do something else, some milliseconds
TOLD_EVERY: Final = 128  # items between two publications of row states during long work
DAEMON: Final = "daemon:"  # the item of the daemon's own settings
CREDENTIALS: Final = "credentials:"  # that of all certificates and keys
FIRST: Final = (DAEMON, CREDENTIALS)
QUIET: Final = frozenset({"send_cert", "send_certreq"})  # settings whose change ends nothing that is up
LOOK: Final = "look"  # among things to try again, beside items: to ask the daemon what it has,
END: Final = "end:"  # and to end SAs of a connection
AFTER_A_DEFECT_SECONDS: Final = 5.0
FAILURES: Final = (EngineError, OSError)  # the daemon's, or of its files: a full disk
WAITING: Final = "waiting for the IKE daemon"


@dataclass(slots=True)
class Wanted:
    """What the plan wants of the daemon now; replaced by the reconciler with every plan."""

    connections: Mapping[str, Connection] = field(default_factory=dict)
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    credentials: Mapping[str, Credential] = field(default_factory=dict)
    daemon: DaemonSettings = USUAL


class Loaded(NamedTuple):
    """What the daemon has under a name: as we loaded it, or None and only the fingerprint of what was found there."""

    connection: Connection | None
    fingerprint: str


class Connections:
    """`told` is called when rows of `ledger` were touched, or `waiting` is another. `run` has to run as a task.
    `waiting`: what of the daemon's own settings waits for its next start, '' for nothing."""

    def __init__(
        self, ike: Ike, ledger: Ledger, wanted: Wanted, told: Callable[[], None], clock: Callable[[], float]
    ) -> None:
        self._ike = ike
        self._ledger = ledger
        self._wanted = wanted
        self._told = told
        self._backoff: Backoff[str] = Backoff(clock)
        self._marked: dict[str, None] = {}
        self._loaded: dict[str, Loaded] = {}
        self._secrets: dict[str, Secret | None] = {}  # None: found there, contents unknown
        self._ending: dict[str, set[str]] = {}  # per connection the children whose SAs have yet to end, '' for all
        self._not_ended: dict[str, set[str]] = {}  # those where it failed, until they are tried again
        self._failed: set[str] = set()  # items that the daemon refused
        self._end = asyncio.Event()
        self._there = False  # the daemon answered our last look
        self._look = True
        self._ready = False  # there is a plan: before it everything found would seem unwanted
        self._wake = asyncio.Event()
        self.idle = asyncio.Event()
        self.waiting = ""
        ike.subscribe(self._event)

    def mark(self, connections: Iterable[str], secrets: Iterable[str], others: Iterable[str] = ()) -> None:
        """These may differ from what the daemon has; `others`, of FIRST, come first."""
        self._ready = True
        for item in others:
            self._backoff.forget(item)
        self._marked = dict.fromkeys((*others, *self._marked))
        for item in [*map(secret_item, sorted(secrets)), *map(connection_item, sorted(connections))]:
            self._marked[item] = None
            self._backoff.forget(item)
            self._ledger.wait(item, self._rows(item), "" if self._there else WAITING)
        self._awaken()

    def look_again(self) -> None:
        """Ask the daemon what it has, and repair."""
        self._look = True
        self._awaken()

    def _awaken(self) -> None:
        self.idle.clear()
        self._wake.set()

    def _event(self, event: IkeEvent) -> None:
        if event.kind is IkeEventKind.LOST:
            self._there = False
            self._mark_all()
            self._told()
        elif event.kind is IkeEventKind.BACK:
            self.look_again()

    def _mark_all(self) -> None:
        for item in [*map(secret_item, self._wanted.secrets), *map(connection_item, self._wanted.connections)]:
            self._marked[item] = None
            self._ledger.wait(item, self._rows(item), WAITING)

    def _rows(self, item: str) -> tuple[RowRef, ...]:
        """The rows that show the state of an item: of a loaded connection only the rules that are not as loaded."""
        kind, _, name = item.partition(":")
        if kind == "secret":
            secret = self._wanted.secrets.get(name)
            return (RowRef(PEER_TABLE, secret.peer),) if secret is not None else ()
        connection = self._wanted.connections.get(name)
        if connection is None:
            return ()
        children: Iterable[Child] = connection.children
        have = self._loaded.get(name) if self._there else None
        if have is not None and "" not in (changed := what_changed(have, connection)):
            old = _children(have.connection) if have.connection is not None else {}
            children = (c for c in connection.children if c.name in changed or c.name not in old)
        # 0 is all of them, and selectors of a virtual interface have no state: the peer's row shows it
        of_rules = (RowRef(RULE_TABLE, child.rule) for child in children if child.rule and not child.virtual)
        return (RowRef(PEER_TABLE, connection.peer), *dict.fromkeys(of_rules))

    # ---- the work ---------------------------------------------------------------------

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._steadily(self._keep_loaded))
            group.create_task(self._steadily(self._keep_ending))

    async def _steadily(self, work: Callable[[], Awaitable[None]]) -> None:
        """A defect must not end the work for good: look at what the daemon has, and go on."""
        while True:
            try:
                await work()
            except Exception:
                logger.exception("work at the IKE daemon failed; going on in %.0f s", AFTER_A_DEFECT_SECONDS)
                await asyncio.sleep(AFTER_A_DEFECT_SECONDS)
                self.look_again()
                self._end.set()

    async def _keep_loaded(self) -> None:
        while True:
            await self._backoff.woken_or_due(self._wake)
            for item in self._backoff.due():
                if item == LOOK:
                    self._look = True
                elif item.startswith(END):
                    name = item.removeprefix(END)
                    self._to_end(name, self._not_ended.pop(name, set()))
                else:
                    self._marked[item] = None
            await self._work()

    async def _work(self) -> None:
        if not self._ready:
            return
        if self._look:
            self._look = False
            await self._observe()
        count = 0
        while self._there and self._marked:
            item = next(iter(self._marked))
            del self._marked[item]
            await self._settle(item)
            count += 1
            if count % TOLD_EVERY == 0:
                self._told()
                await asyncio.sleep(0)
        self._told()
        self._rest()

    def _rest(self) -> None:
        """Note when nothing is left to do but to wait."""
        if not self._wake.is_set() and not self._end.is_set() and not (self._there and (self._marked or self._ending)):
            self.idle.set()

    async def _keep_ending(self) -> None:
        """Ending waits for far sides that may be dead, so it must not hold up loading."""
        while True:
            await self._end.wait()
            while self._there and self._ending:
                name = next(iter(self._ending))
                await self._end_some(name, self._ending.pop(name))
            self._end.clear()
            self._told()
            self._rest()

    async def _end_some(self, name: str, children: set[str]) -> None:
        item = connection_item(name)
        while children:
            child = "" if "" in children else min(children)
            try:
                await self._ike.end_outdated(name, child)
            except FAILURES as error:
                self._not_ended.setdefault(name, set()).update(children)
                logger.warning("ending %s %s: %s", name, child, error)
                self._backoff.failed(END + name)
                self._ledger.fail(item, self._rows(item), str(error))
                self._wake.set()  # for the new time
                return
            children = children - {child} if child else set()
        self._backoff.forget(END + name)
        if item not in self._marked and name not in self._ending and item not in self._failed:
            self._ledger.done(item)

    def _to_end(self, name: str, children: set[str]) -> None:
        if children:
            self._ending.setdefault(name, set()).update(children)
            self.idle.clear()
            self._end.set()

    async def _observe(self) -> None:
        try:
            state = await self._ike.observe()
        except FAILURES as error:
            self._there = False
            logger.warning("the IKE daemon does not answer: %s", error)
            self._mark_all()
            self._backoff.failed(LOOK)
            return
        self._backoff.forget(LOOK)
        self._there = True
        if self._ending:
            self._end.set()
        found: dict[str, Loaded] = {}
        for name, fingerprint in state.connections.items():
            if numbers.is_our_connection(name):
                known = self._loaded.get(name)
                same = known is not None and fingerprint in ("", known.fingerprint)
                found[name] = known if known is not None and same else Loaded(None, fingerprint)
            await self._now_and_then(len(found))
        self._loaded = found
        self._secrets = {id: self._secrets.get(id) for id in state.secrets if numbers.is_our_secret(id)}
        for count, name in enumerate({*found, *self._wanted.connections}, 1):
            if not self._is_loaded(name):
                self._marked[connection_item(name)] = None
            await self._now_and_then(count)
        for id in {*self._secrets, *self._wanted.secrets}:
            if self._secrets.get(id) != self._wanted.secrets.get(id):
                self._marked[secret_item(id)] = None
        for sa in state.sas:  # of connections that went while nobody listened
            if numbers.is_our_connection(sa.connection) and sa.connection not in self._wanted.connections:
                self._marked[connection_item(sa.connection)] = None
                self._loaded.setdefault(sa.connection, Loaded(None, ""))
        news = state.credentials != self._ike.credentials_fingerprint(self._wanted.credentials)
        self._marked = dict.fromkeys((*(FIRST if news else (DAEMON,)), *self._marked))
        # secrets first: a connection that is there may be used at once
        for item in [item for item in self._marked if item.startswith("connection:")]:
            del self._marked[item]
            self._marked[item] = None

    async def _now_and_then(self, count: int) -> None:
        if count % LOOKED_AT_A_TURN == 0:
            await asyncio.sleep(0)

    def _is_loaded(self, name: str) -> bool:
        wanted, have = self._wanted.connections.get(name), self._loaded.get(name)
        if wanted is None or have is None:
            return wanted is None and have is None
        if have.connection is not None:
            return have.connection == wanted
        return have.fingerprint == self._ike.fingerprint(wanted) != ""

    async def _settle(self, item: str) -> None:
        kind, _, name = item.partition(":")
        rows = self._rows(item)
        try:
            if item == DAEMON:
                self.waiting = await self._ike.configure(self._wanted.daemon)
            elif item == CREDENTIALS:
                await self._settle_credentials()
            elif kind == "secret":
                await self._settle_secret(name)
            else:
                await self._settle_connection(name)
        except FAILURES as error:
            delay = self._backoff.failed(item)
            logger.warning("%s %s: %s; again in %.0f s", kind, name, error, delay)
            self._failed.add(item)
            if item not in self._marked:  # else it was marked anew while we were at it
                self._ledger.fail(item, rows, str(error))
        else:
            self._backoff.forget(item)
            self._failed.discard(item)
            if item not in self._marked and name not in self._ending and name not in self._not_ended:
                self._ledger.done(item)

    async def _settle_credentials(self) -> None:
        if not await self._ike.load_credentials(self._wanted.credentials):
            return
        self._secrets.clear()
        self._marked = dict.fromkeys((*map(secret_item, self._wanted.secrets), *self._marked))

    async def _settle_secret(self, id: str) -> None:
        wanted = self._wanted.secrets.get(id)
        if wanted is None:
            if id in self._secrets:
                await self._ike.unload_secret(id)
                self._secrets.pop(id, None)
        elif self._secrets.get(id) != wanted:
            await self._ike.load_secret(wanted)
            self._secrets[id] = wanted

    async def _settle_connection(self, name: str) -> None:
        wanted, have = self._wanted.connections.get(name), self._loaded.get(name)
        if wanted is None:
            if have is not None:  # unload before ending, else an acquire brings it up again
                await self._ike.unload_connection(name)
                self._loaded.pop(name, None)
                self._to_end(name, {""})
        elif self._is_loaded(name):
            self._loaded[name] = Loaded(wanted, self._ike.fingerprint(wanted))
        else:
            await self._ike.load_connection(wanted)
            self._loaded[name] = Loaded(wanted, self._ike.fingerprint(wanted))
            if have is not None:  # loading leaves running SAs with their old settings
                self._to_end(name, what_changed(have, wanted))


def what_changed(have: Loaded, new: Connection) -> set[str]:
    """Names of the children that end because they changed or went; '' when the whole connection has to.
    An old one of which only a fingerprint is known may differ anywhere."""
    old = have.connection
    if old is None or _without_children(old) != _without_children(new):
        return {""}
    before, after = _children(old), _children(new)
    return {child for child, settings in before.items() if after.get(child) != settings}


def connection_item(name: str) -> str:
    return f"connection:{name}"


def secret_item(id: str) -> str:
    return f"secret:{id}"


def _without_children(connection: Connection) -> dict[str, ViciValue]:
    return {name: value for name, value in connection.settings.items() if name != "children" and name not in QUIET}


def _children(connection: Connection) -> Mapping[str, ViciValue]:
    children = connection.settings.get("children", {})
    return children if isinstance(children, Mapping) else {}
