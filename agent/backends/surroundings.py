"""Keeps the plan's `Environment`: own addresses, interfaces, peers' names resolved, source addresses, tunnels.

Facts that are merely new are added to the mappings in place, because a plan that knows of
no such peer cannot have used them; a fact that changed makes a new mapping, so that the
planner sees it by comparing with the environment of its previous plan.
"""

from __future__ import annotations

import asyncio
import logging
from collections import ChainMap, Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Final

from agent.backends import tasks
from agent.backends.engine import EngineError, Host
from agent.backends.host import literal
from agent.mib.ber import Value
from agent.plan import numbers
from agent.plan.model import NO_FLOWS, Capabilities, ConfigurationView, Environment, RowChangeView, Tunnel

logger = logging.getLogger(__name__)

PEER_TABLE: Final = "ipsecPeerTable"
PEER_ADDRESS: Final = "ipsecPeerDynamicAddress"
FIRST_NAMES_SECONDS: Final = 3.0
NAMES_AT_ONCE: Final = 16  # lookups under way at the same time
ROUTES_SECONDS: Final = 1.0  # least time between two rounds of asking for routes
SOMEBODY: Final = (bytes([192, 0, 0, 8]), bytes.fromhex("3fff") + bytes(13) + b"\x08")
"""Addresses that belong to nobody (RFC 7600, RFC 9637), so that the way to them is the default route."""
SOURCES_PER_TURN: Final = 512  # routes asked for before the loop may do something else, about 5 ms


class Surroundings:
    """`changed` is called, on the loop, when `environment` has something else to tell than before."""

    def __init__(self, host: Host, capabilities: Capabilities, changed: Callable[[], None]) -> None:
        self._host = host
        self._capabilities = capabilities
        self._changed = changed
        self._wanted: Counter[str] = Counter()  # texts of peer addresses, by how many peers have them
        self._names: dict[str, tuple[bytes, ...]] = {}
        self._sources: dict[bytes, bytes] = {}
        self._tunnels: Mapping[str, Tunnel] = {}
        self._flows: Mapping[str, Mapping[str, Tunnel]] = {}
        self._own: frozenset[bytes] = frozenset()
        self._default_sources: Mapping[int, bytes] = {}
        self._interfaces: Mapping[int, str] = {}
        self._links: Mapping[int, tuple[bytes, ...]] = {}
        self._turns: Mapping[int, int] = {}
        self._takeovers: Mapping[int, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._routes_changed = self._following = False
        self._places = asyncio.Semaphore(NAMES_AT_ONCE)
        host.subscribe(self._host_changed)

    def environment(self, reqids: Mapping[str, int]) -> Environment:
        """`reqids`: those in use, by child name."""
        return Environment(
            self._capabilities,
            self._names,
            self._own,
            self._sources,
            self._tunnels,
            reqids,
            self._default_sources,
            self._interfaces,
            self._links,
            self._turns,
            self._takeovers,
            self._flows,
        )

    def tunnels(self, news: Mapping[str, Tunnel | None]) -> None:
        """Tunnels that came up or moved, or (None) went, by the name of the child or the flow."""
        flows: dict[str, dict[str, Tunnel | None]] = {}
        for name, tunnel in news.items():
            if numbers.is_flow(name):
                flows.setdefault(numbers.rule_child(name), {})[name] = tunnel
        tunnels = _with(self._tunnels, {name: tunnel for name, tunnel in news.items() if not numbers.is_flow(name)})
        moved = {child: _with(self._flows.get(child, NO_FLOWS), of_child) for child, of_child in flows.items()}
        if tunnels == self._tunnels and all(self._flows.get(child, NO_FLOWS) == each for child, each in moved.items()):
            return
        self._tunnels = tunnels
        if moved:
            self._flows = {child: each for child, each in {**self._flows, **moved}.items() if each}
        self._changed()

    def missed(self, peer: int, name: str) -> None:
        """An attempt to reach a peer failed: the next one goes to the next address of its name, which is looked up
        again."""
        if literal(name) is not None or not name:
            return
        self._start(self._resolve(name))
        if len(self._names.get(name, ())) > 1:
            self._turns = {**self._turns, peer: self._turns.get(peer, 0) + 1}
            self._changed()

    def stood_for(self, takeovers: Mapping[int, int]) -> None:
        """Which peers stand for which now."""
        if takeovers != self._takeovers:
            self._takeovers = dict(takeovers)
            self._changed()

    async def rebuild(self, configuration: ConfigurationView) -> None:
        """Begin anew with all peers. Waits a little for names: a plan without them would end tunnels that live."""
        self._own, self._interfaces = self._host.own_addresses(), self._host.interfaces()
        self._default_sources = self._ask_default_sources()
        self._links = self._host.link_addresses()
        self._wanted = Counter()
        standing = ChainMap(dict(self._tunnels), *map(dict, self._flows.values()))
        ends = {numbers.peer_and_rule_of_child(name)[0]: tunnel.remote for name, tunnel in standing.items()}
        for row in configuration.rows(PEER_TABLE):
            text = _text(row[PEER_ADDRESS])
            if not text:
                continue
            self._wanted[text] += 1
            if row.number in ends and literal(text) is None and not self._names.get(text):
                self._stands_for(text, ends[row.number])
        for count, text in enumerate(self._wanted):
            self._learn(text)
            if count % SOURCES_PER_TURN == SOURCES_PER_TURN - 1:
                await asyncio.sleep(0)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=FIRST_NAMES_SECONDS)

    def moved(self, changes: Iterable[RowChangeView]) -> None:
        """Take changed peers in."""
        for change in changes:
            if change.table != PEER_TABLE:
                continue
            before, after = (
                _text(row[PEER_ADDRESS]) if row is not None else "" for row in (change.before, change.after)
            )
            if before == after:
                continue
            if before:
                self._wanted[before] -= 1
                if not self._wanted[before]:
                    del self._wanted[before]
                    self._forget(before)
            if after:
                self._wanted[after] += 1
                self._learn(after)

    def foresee(self, changes: Iterable[RowChangeView]) -> None:
        """Learn what numeric addresses a commit would bring that is only being checked."""
        for change in changes:
            if change.table == PEER_TABLE and change.after is not None:
                text = _text(change.after[PEER_ADDRESS])
                if literal(text) is not None:
                    self._learn(text)

    def _stands_for(self, name: str, address: bytes) -> None:
        """A tunnel that outlived the last agent tells where the name led; no name server has to answer for it to go
        on."""
        source = self._host.source_for(address)
        if source is not None:
            self._sources[address] = source
        self._names = {**self._names, name: (address,)}
        self._start(self._resolve(name))

    def _learn(self, text: str) -> None:
        address = literal(text)
        if address is None:
            if not self._names.get(text):
                self._start(self._resolve(text))
        else:
            source = self._host.source_for(address)
            if source is None or self._sources.get(address) == source:
                return
            if address in self._sources:  # remembered from a SET that was refused, and other by now
                self._sources = {**self._sources, address: source}
            else:
                self._sources[address] = source

    def _forget(self, text: str) -> None:
        """No peer has this address any more; our source towards it may be another when one has it again."""
        address = literal(text)
        if address is not None and not any(address in found for found in self._names.values()):
            self._sources.pop(address, None)

    # ---- looking again ----------------------------------------------------------------

    def resolve_again(self) -> None:
        """Look all names up once more; `changed` follows if something is different."""
        self._start(self._resolve_all())

    def _host_changed(self) -> None:
        """Routes may change many times a second: one task asks, and goes round again for what came meanwhile."""
        self._routes_changed = True
        if not self._following:
            self._following = True
            self._start(self._follow_routes())

    async def _follow_routes(self) -> None:
        try:
            while self._routes_changed:
                self._routes_changed = False
                try:
                    await self._ask_routes()
                except EngineError as error:  # what was announced is not announced again
                    logger.warning("addresses and routes cannot be looked at: %s", error)
                    self._routes_changed = True
                await asyncio.sleep(ROUTES_SECONDS)
        finally:
            self._following = False

    async def _resolve_all(self) -> None:
        await asyncio.gather(*(self._resolve(text) for text in list(self._wanted) if literal(text) is None))

    async def _ask_routes(self) -> None:
        own, interfaces, default_sources = (
            self._host.own_addresses(),
            self._host.interfaces(),
            self._ask_default_sources(),
        )
        links = self._host.link_addresses()
        addresses = [address for text in list(self._wanted) if (address := literal(text)) is not None]
        addresses += (address for text, found in self._names.items() if text in self._wanted for address in found)
        sources: dict[bytes, bytes] = {}
        for count, address in enumerate(addresses):
            source = self._host.source_for(address)
            if source is not None:
                sources[address] = source
            if count % SOURCES_PER_TURN == SOURCES_PER_TURN - 1:
                await asyncio.sleep(0)
        known = self._sources
        here = (own, interfaces, default_sources) != (self._own, self._interfaces, self._default_sources)
        if here or links != self._links or any(known.get(address) != sources.get(address) for address in addresses):
            self._own, self._interfaces, self._default_sources = own, interfaces, default_sources
            self._links = links
            later = {address for text in self._wanted if (address := literal(text)) is not None}.difference(addresses)
            sources |= {address: known[address] for address in later if address in known}  # came meanwhile
            self._sources = sources
            self._changed()

    def _ask_default_sources(self) -> Mapping[int, bytes]:
        asked = ((len(somebody), self._host.source_for(somebody)) for somebody in SOMEBODY)
        return {octets: source for octets, source in asked if source is not None}

    async def _resolve(self, text: str) -> None:
        async with self._places:
            found = await self._host.resolve(text)
        if text not in self._wanted:
            return
        if not found and self._names.get(text):
            logger.warning("%s does not resolve now; its last address is kept", text)
            return
        if self._names.get(text) == found:  # none at all is an answer too
            return
        for address in found:
            source = self._host.source_for(address)
            if source is not None:
                self._sources[address] = source
        self._names = {name: known for name, known in self._names.items() if name in self._wanted} | {text: found}
        self._changed()

    def _start(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("looking at the host failed", exc_info=task.exception())

    async def stop(self) -> None:
        await tasks.end(*self._tasks)


def _with(known: Mapping[str, Tunnel], news: Mapping[str, Tunnel | None]) -> Mapping[str, Tunnel]:
    found = {**known, **{name: tunnel for name, tunnel in news.items() if tunnel is not None}}
    for name, tunnel in news.items():
        if tunnel is None:
            found.pop(name, None)
    return found


def _text(value: Value) -> str:
    """A peer's address as text; '' when it has none."""
    return value.decode("utf-8", "replace").strip() if isinstance(value, bytes) else ""
