"""Brings the IKE daemon to the plan's connections and secrets, at its own pace.

It works level by level, not event by event: names that may differ are marked, and whatever
the plan wants when a name's turn comes is what is done. So the slow daemon never holds up
the kernel's policies, changes during the work coalesce, and a daemon that comes back is
only another reason to mark names.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from agent.backends.backoff import Backoff
from agent.backends.engine import EngineError, Ike, IkeEvent, IkeEventKind
from agent.backends.rowstate import Ledger
from agent.plan import numbers
from agent.plan.model import Connection, RowRef, Secret, ViciValue

logger = logging.getLogger(__name__)

PEER_TABLE: Final = "ipsecPeerTable"
RULE_TABLE: Final = "ipsecTrafficTable"
TOLD_EVERY: Final = 128  # items between two publications of row states during long work
WAITING: Final = "waiting for the IKE daemon"


@dataclass(slots=True)
class Wanted:
    """What the plan wants of the daemon now; replaced by the reconciler with every plan."""

    connections: Mapping[str, Connection] = field(default_factory=dict)
    secrets: Mapping[str, Secret] = field(default_factory=dict)


class Connections:
    """`told` is called when rows of `ledger` were touched. `run` has to run as a task."""

    def __init__(
        self, ike: Ike, ledger: Ledger, wanted: Wanted, told: Callable[[], None], clock: Callable[[], float]
    ) -> None:
        self._ike = ike
        self._ledger = ledger
        self._wanted = wanted
        self._told = told
        self._backoff: Backoff[str] = Backoff(clock)
        self._marked: dict[str, None] = {}
        self._loaded: dict[str, Connection | str] = {}  # as we loaded it, or the fingerprint of what was found
        self._secrets: dict[str, Secret | None] = {}  # None: found there, contents unknown
        self._ending: dict[str, set[str]] = {}  # per connection the children whose SAs have yet to end, '' for all
        self._there = False  # the daemon answered our last look
        self._look = True
        self._ready = False  # there is a plan: before it everything found would seem unwanted
        self._wake = asyncio.Event()
        self.idle = asyncio.Event()
        ike.subscribe(self._event)

    def mark(self, connections: Iterable[str], secrets: Iterable[str]) -> None:
        """These may differ from what the daemon has."""
        self._ready = True
        for item in [*map(secret_item, secrets), *map(connection_item, connections)]:
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
        """The rows that show the state of an item."""
        kind, _, name = item.partition(":")
        if kind == "secret":
            secret = self._wanted.secrets.get(name)
            return (RowRef(PEER_TABLE, secret.peer),) if secret is not None else ()
        connection = self._wanted.connections.get(name)
        if connection is None:
            return ()
        return (
            RowRef(PEER_TABLE, connection.peer),
            *dict.fromkeys(RowRef(RULE_TABLE, child.rule) for child in connection.children),
        )

    # ---- the work ---------------------------------------------------------------------

    async def run(self) -> None:
        while True:
            due = self._backoff.next()
            try:
                async with asyncio.timeout(due):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            for item in self._backoff.due():
                if item == "look":
                    self._look = True
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
        if not self._wake.is_set():
            self.idle.set()

    async def _observe(self) -> None:
        try:
            state = await self._ike.observe()
        except EngineError as error:
            self._there = False
            logger.warning("the IKE daemon does not answer: %s", error)
            self._mark_all()
            self._backoff.failed("look")
            return
        self._backoff.forget("look")
        self._there = True
        found: dict[str, Connection | str] = {}
        for name, fingerprint in state.connections.items():
            if numbers.is_our_connection(name):
                known = self._loaded.get(name)
                same = isinstance(known, Connection) and self._ike.fingerprint(known) == fingerprint
                found[name] = known if known is not None and (same or not fingerprint) else fingerprint
        self._loaded = found
        self._secrets = {id: self._secrets.get(id) for id in state.secrets if numbers.is_our_secret(id)}
        for name in {*found, *self._wanted.connections}:
            if not self._is_loaded(name):
                self._marked[connection_item(name)] = None
        for id in {*self._secrets, *self._wanted.secrets}:
            if self._secrets.get(id) != self._wanted.secrets.get(id):
                self._marked[secret_item(id)] = None
        for sa in state.sas:  # of connections that went while nobody listened
            if numbers.is_our_connection(sa.connection) and sa.connection not in self._wanted.connections:
                self._marked[connection_item(sa.connection)] = None
                self._loaded.setdefault(sa.connection, "")
        # secrets first: a connection that is there may be used at once
        for item in [item for item in self._marked if item.startswith("connection:")]:
            del self._marked[item]
            self._marked[item] = None

    def _is_loaded(self, name: str) -> bool:
        wanted, have = self._wanted.connections.get(name), self._loaded.get(name)
        if wanted is None or have is None:
            return wanted is have
        if isinstance(have, Connection):
            return have == wanted
        return have == self._ike.fingerprint(wanted) != ""

    async def _settle(self, item: str) -> None:
        kind, _, name = item.partition(":")
        rows = self._rows(item)
        try:
            if kind == "secret":
                await self._settle_secret(name)
            else:
                await self._settle_connection(name)
        except EngineError as error:
            delay = self._backoff.failed(item)
            logger.warning("%s %s: %s; again in %.0f s", kind, name, error, delay)
            if item not in self._marked:  # else it was marked anew while we were at it
                self._ledger.fail(item, rows, str(error))
        else:
            self._backoff.forget(item)
            if item not in self._marked:
                self._ledger.done(item)

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
            if have is not None:  # unload first, else an acquire brings it up again
                await self._ike.unload_connection(name)
                await self._ike.terminate(connection=name)
                self._loaded.pop(name, None)
            return
        if not self._is_loaded(name):
            if have is not None:
                self._ending.setdefault(name, set()).update(what_changed(have, wanted))
            await self._ike.load_connection(wanted)
        self._loaded[name] = wanted
        ending = self._ending.get(name, set())
        while ending:  # loading leaves running SAs with their old settings
            child = "" if "" in ending else min(ending)
            await self._ike.terminate(connection=name, child=child)
            ending.discard(child)
            if not child:
                ending.clear()
        self._ending.pop(name, None)


def what_changed(old: Connection | str, new: Connection) -> set[str]:
    """Names of the children that end because they changed or went; '' when the whole connection has to.
    An old one of which only a fingerprint is known may differ anywhere."""
    if isinstance(old, str) or _without_children(old) != _without_children(new):
        return {""}
    before, after = _children(old), _children(new)
    return {child for child, settings in before.items() if after.get(child) != settings}


def connection_item(name: str) -> str:
    return f"connection:{name}"


def secret_item(id: str) -> str:
    return f"secret:{id}"


def _without_children(connection: Connection) -> dict[str, ViciValue]:
    return {name: value for name, value in connection.settings.items() if name != "children"}


def _children(connection: Connection) -> Mapping[str, ViciValue]:
    children = connection.settings.get("children", {})
    return children if isinstance(children, Mapping) else {}
