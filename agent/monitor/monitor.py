"""Watches tunnels and makes them: events of charon and kernel in, runtime tables and negotiations out.

Four things meet here: the registry of SAs (sas.py), the peers' state machine (peers.py),
strict lifetimes (lifetimes.py) and the tables (rows.py, publish.py). Templates of the SPD
follow the SA that came up, so every change of a tunnel goes to the reconciler at once;
tables follow within a second. All on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Protocol

from agent.backends import tasks
from agent.backends.engine import EngineError, Ike, IkeEvent, IkeEventKind, IkeSa, KernelEvent, KernelEventKind, Spd
from agent.backends.lookout import Lookout, NoLookout
from agent.mib.schema import Schema
from agent.monitor.endings import Endings
from agent.monitor.enforcement import offence
from agent.monitor.lifetimes import STRICT, Mismatch, child_policy, ike_policy, mismatch
from agent.monitor.peer_events import DESCRIPTION, PeerEvents
from agent.monitor.peers import ALWAYS_UP, CALLBACK, DIALED, DIALUP, DOWN, PEER_TABLE, UP, Peers, PlanView, Settings
from agent.monitor.phase1 import Phase1
from agent.monitor.publish import LiveTables, Publisher, pause
from agent.monitor.remarks import Remarks
from agent.monitor.rows import Now, ike_state
from agent.monitor.sas import GRACE_SECONDS, Registry
from agent.monitor.states import Oper
from agent.monitor.tables import STAT_TABLE, Tables
from agent.monitor.totals import Totals
from agent.plan import numbers
from agent.plan.daemon import daemon_settings
from agent.plan.model import Tunnel
from agent.plan.planner import Plan
from agent.plan.upkeep import Upkeep, Upkeeps
from agent.store.errors import Refused
from agent.store.events import Events
from agent.store.hooks import AGENT, Change, Edit, Origin, RowChange, Subscriber
from agent.store.snapshot import Configuration, Row

logger = logging.getLogger(__name__)

ADMIN: Final = "ipsecPeerAdminStatus"
PRIORITY: Final = "ipsecPeerPriority"
START_MODE: Final = "ipsecPeerStartMode"
ROW_GENERATION: Final = "ipsecGwPeerRowGeneration"
ENABLED: Final = "ipsecGlobEnabled"

SHOWN_IN_PEERS: Final = frozenset({"ikeProfileTable", "ipsecGlobIkeProfile", "ipsecGlobContDefaultPfsIdentity"})

QUIET_SECONDS: Final = 10.0  # between looks at charon while there is nothing
SETTLE_SECONDS: Final = 0.05  # an event seldom comes alone
HEARING_SECONDS: Final = 0.2  # until events that wait in threads and sockets are heard
SAS_PER_TURN: Final = 128  # before the loop may do something else, about 3 ms
RESETS: Final = 5  # tries to turn `dialup` into `up` while others change the row
MISMATCHES: Final = 1024  # connections whose last word on lifetimes is kept

TunnelsChanged = Callable[[Mapping[str, Tunnel | None]], None]
ListSas = Callable[[], Awaitable[Iterable[IkeSa]]]


class ConfigurationStore(Protocol):
    """What is used of agent.store.store.Store."""

    @property
    def running(self) -> Configuration: ...
    @property
    def live(self) -> LiveTables: ...
    @property
    def events(self) -> Events: ...
    def subscribe(self, subscriber: Subscriber, *, replay: bool = False) -> None: ...
    async def commit(self, edits: Sequence[Edit], origin: Origin) -> Any: ...


class Monitor:
    """`tunnels_changed`: Reconciler.environment_changed. `list_sas`: Ike.list_sas; None where only events tell.
    `lookout`: what is seen at the interfaces.

    It subscribes to the engines at once: make it before they start, and `start` it after. `planned` is for
    Reconciler.subscribe."""

    def __init__(
        self,
        store: ConfigurationStore,
        schema: Schema,
        ike: Ike,
        spd: Spd,
        *,
        tunnels_changed: TunnelsChanged,
        list_sas: ListSas | None = None,
        lookout: Lookout | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._schema, self._ike, self._spd = store, schema, ike, spd
        self._tunnels_changed, self._list_sas = tunnels_changed, list_sas
        self._clock, self._wall, self._started = clock, wall, clock()
        self.registry = Registry(clock)
        witness = PeerEvents(store.events.tell, self._described, self._remote)
        self.peers = Peers(
            self._initiate,
            self.registry.stands,
            self._peer_changed,
            clock,
            witness,
            give_up=self._give_up,
            upkeep=self._upkeep,
            exists=lambda peer: self._configuration.row(PEER_TABLE, peer) is not None,
        )
        self.endings = Endings(self.registry, ike, lambda request: self._begin(self._ask(request)))
        self._leaving: Row | None = None  # a peer that has just been removed
        self.totals = Totals(spd.statistics())
        seen = self._lookout = lookout or NoLookout()
        self._tables = Tables(
            Publisher(schema, store.live),
            self.registry,
            self.peers,
            self.totals,
            lambda: self._configuration,
            lambda: self._plan,
            self._upkeep,
            octets=seen.octets,
            interface=lambda address: found.number if (found := seen.interface(address)) is not None else -1,
        )
        self._phase1 = Phase1(
            self.registry,
            self.peers,
            ike,
            seen,
            lambda request: self._begin(self._ask(request)),
            lambda: self._configuration,
            self._upkeep,
            clock,
        )
        self._configuration: Configuration = store.running
        self._upkeeps = Upkeeps(self._configuration)
        self._plan: PlanView | None = None
        self._dialing: dict[int, int] = {}  # peer → generation whose plan it waits for
        self._looked = list_sas is None  # it is known what stands
        self._tunnels: dict[int, Mapping[str, Tunnel]] = {}  # as last told, by peer
        self._mismatches: dict[tuple[str, int], Mismatch] = {}  # by connection and phase
        self._remarks = Remarks(schema, store.live)
        self._remarked: dict[int, str] = {}
        self._dirty_peers: set[int] = set()
        self._wake = asyncio.Event()
        self._runner: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._later: asyncio.TimerHandle | None = None
        ike.subscribe(self._ike_event)
        spd.subscribe(self._kernel_event)

    # ---- life -------------------------------------------------------------------------

    async def start(self) -> None:
        """Once the engines have started."""
        self._store.subscribe(self, replay=True)
        self._runner = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        if self._later is not None:
            self._later.cancel()
        await tasks.end(*self._tasks, self._runner)

    async def _run(self) -> None:
        while True:
            if not self._busy():
                times = [each for each in (self.peers.next_time(), QUIET_SECONDS) if each is not None]
                try:
                    async with asyncio.timeout(min(times)):
                        await self._wake.wait()
                        await asyncio.sleep(SETTLE_SECONDS)
                except TimeoutError:
                    pass
            self._wake.clear()
            begun = time.process_time()
            try:
                await self._look()
                if self._looked:  # else what stands already would be begun again
                    self.peers.tick()
                    self._phase1.look()
                    self._dial()
                await self._publish()
            except Exception:  # a defect must not end watching for good
                logger.exception("watching the tunnels failed")
            await asyncio.sleep(pause(time.process_time() - begun))

    def _busy(self) -> bool:
        return bool(self.registry.ike or self.registry.bundles or self._dirty_peers or self.peers.timed())

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("work of the monitor failed", exc_info=task.exception())

    # ---- configuration ------------------------------------------------------------------

    def changed(self, change: Change) -> None:
        """A commit; the store's hook."""
        self._configuration = change.after
        self._upkeeps = Upkeeps(change.after)
        self._lookout.use_port(daemon_settings(change.after).ike_port)
        if change.replay:
            self._replay(change)
        else:
            for row in change.rows:
                if row.table == PEER_TABLE:
                    self._peer_row_changed(row, change.generation)
                elif ENABLED in row.columns:
                    self._enable(change.after)
                elif row.table in SHOWN_IN_PEERS or not SHOWN_IN_PEERS.isdisjoint(row.columns):
                    self._dirty_peers.update(change.after.table(PEER_TABLE).numbers())
        self._wake.set()

    def _replay(self, change: Change) -> None:
        table = change.after.table(PEER_TABLE)
        known = set(self._store.live.table(STAT_TABLE).numbers())
        self._tables.chain.fill((row.number, _number(row[PRIORITY])) for row in table.active_rows())
        for row in table.active_rows():
            known.discard(row.number)
            self._peer_settings(row.number, row[ADMIN], row[START_MODE], change.generation)
        for peer in known:
            self.peers.configured(peer, None)
            self._dirty_peers.add(peer)
        self._enable(change.after)

    def _peer_row_changed(self, row: RowChange, generation: int) -> None:
        self._dirty_peers.add(row.number)
        if row.after is None:
            self._dialing.pop(row.number, None)
            self._remarked.pop(row.number, None)
            self._leaving = row.before
            self.registry.forget_peer(row.number)
            self._tables.discontinuities.pop(row.number, None)
            self._tables.chain.drop(row.number)
            self.peers.configured(row.number, None)
            self._leaving = None
        else:
            self._tables.chain.put(row.number, _number(row.after[PRIORITY]))
            if row.before is None:
                self.registry.forget_peer(row.number)  # what came of another's tunnels after its row had gone
                self._discontinuous(row.number)
            self._peer_settings(row.number, row.after[ADMIN], row.after[START_MODE], generation)

    def _peer_settings(self, peer: int, admin: object, mode: object, generation: int) -> None:
        self._dirty_peers.add(peer)
        self.peers.configured(peer, Settings(usable=admin != DOWN, always_up=mode == ALWAYS_UP))
        if admin in (DIALUP, CALLBACK):
            self._dialing[peer] = generation
        else:
            self._dialing.pop(peer, None)

    def _enable(self, configuration: Configuration) -> None:
        self.peers.enable(configuration.scalar(ENABLED) == 1)
        self._dirty_peers.update(configuration.table(PEER_TABLE).numbers())

    def planned(self, plan: PlanView, before: PlanView | None) -> None:
        """A plan was made, and is being made real."""
        self._plan = plan
        touched = touched_peers(plan, before)
        self._dirty_peers |= touched
        known = before.takeovers if before is not None else {}
        if known != plan.takeovers:  # who stands for whom is shown by both
            self._dirty_peers.update(*known.items(), *plan.takeovers.items())
        self.peers.planned(plan, touched)
        if self._looked:
            self._dial()
        self._wake.set()

    def _dial(self) -> None:
        """What operators asked for, once the plan has it."""
        generation = self._plan.generation if self._plan is not None else -1
        for peer in [peer for peer, asked in self._dialing.items() if asked <= generation]:
            del self._dialing[peer]
            self.peers.dial(peer, DIALED)
            self._begin(self._dialed(peer))

    async def _dialed(self, peer: int) -> None:
        """`dialup` or `callback` has been done once: `up` again, unless somebody wrote something else meanwhile."""
        columns = self._schema.columns
        for _ in range(RESETS):
            row = self._store.running.row(PEER_TABLE, peer)
            if row is None or row[ADMIN] not in (DIALUP, CALLBACK):
                return
            unchanged = Edit(columns[ROW_GENERATION], peer, row[ROW_GENERATION])
            try:
                await self._store.commit([Edit(columns[ADMIN], peer, UP), unchanged], AGENT)
            except Refused as refused:
                logger.info("peer %d keeps its administrative status: %s", peer, refused)
            else:
                return

    # ---- events -------------------------------------------------------------------------

    def _ike_event(self, event: IkeEvent) -> None:
        kind = event.kind
        if kind is IkeEventKind.LOG:
            self._note_lifetime(event)
            return
        if kind is IkeEventKind.INITIATED:
            self._initiated(event)
        elif kind is IkeEventKind.LOST:
            self.peers.engine_lost()
        elif kind is IkeEventKind.BACK:
            if event.text:
                self.registry.forget()
        else:
            self.registry.event(event)
            self._phase1.event(event)
            if kind is IkeEventKind.IKE_UP and event.ike is not None and not event.ike.initiator:
                peer = numbers.peer_of_connection(event.ike.connection)
                if peer:
                    self.peers.called(peer)
        self._note(event)
        self._follow()
        self._enforce_lifetime(event)
        self._enforce(event)
        self._wake.set()

    def _initiated(self, event: IkeEvent) -> None:
        """An attempt of ours ended."""
        peer = numbers.peer_of_connection(event.connection)
        if event.text:
            connection = self.peers.connection(peer)
            version = 2 if connection is not None and connection.settings.get("version") == "2" else 1
            established = any(ike_state(row.sa.state) == 2 for row in self.registry.ike_of_peer.get(peer, {}).values())
            self.totals.note_negotiation(version, 2 if established else 1, True)
        self.peers.initiated(peer, event.child_name, event.text)

    def _note(self, event: IkeEvent) -> None:
        """Count what came of a negotiation; of failed ones of ours INITIATED tells."""
        if event.ike is None or not numbers.is_our_connection(event.ike.connection):
            return
        if event.kind in (IkeEventKind.IKE_UP, IkeEventKind.IKE_REKEY):
            self.totals.note_negotiation(event.ike.version, 1, False)
        elif event.kind in (IkeEventKind.CHILD_UP, IkeEventKind.CHILD_REKEY):
            self.totals.note_negotiation(event.ike.version, 2, False)
        elif event.kind is IkeEventKind.IKE_DOWN and not event.ike.initiator and ike_state(event.ike.state) == 1:
            self.totals.note_negotiation(event.ike.version, 1, True)

    def _kernel_event(self, event: KernelEvent) -> None:
        if event.kind is KernelEventKind.ACQUIRE:
            if event.template is not None:
                self.totals.note_trigger(event.template.reqid)
                self.peers.acquire(event.template.reqid, event.flow)
        elif event.kind is KernelEventKind.SAS_FLUSHED:  # what they carried since the last look is not to be had
            for peer in self.registry.of_peer:
                self._discontinuous(peer)
        elif event.kind is KernelEventKind.OVERRUN:
            self._wake.set()
        elif event.sa is not None and event.kind is not KernelEventKind.SA_NEW:
            self.registry.kernel(event.sa)

    def _discontinuous(self, peer: int) -> None:
        """Its counters are not to be compared with those before this moment."""
        self._tables.discontinuities[peer] = Now(0, self._clock(), self._started).ticks(self._clock())

    def _follow(self) -> None:
        """Tell reconciler and peers what became of tunnels."""
        if self.registry.leaving and self._later is None:
            self._later = asyncio.get_running_loop().call_later(GRACE_SECONDS, self._due)
        news: dict[str, Tunnel | None] = {}
        touched, self.registry.touched_peers = self.registry.touched_peers, set()
        for peer in touched:
            self._dirty_peers.add(peer)
            old, new = self._tunnels.get(peer, {}), self.registry.tunnels(peer)
            if self.registry.is_up(peer):
                if self.peers.state(peer) is not Oper.UP:
                    self.peers.tunnels(peer, True)
            elif old and not new:
                self.peers.tunnels(peer, False)
            if old == new:
                continue
            news |= dict.fromkeys(old.keys() - new.keys())
            news |= {child: tunnel for child, tunnel in new.items() if old.get(child) != tunnel}
            if new:
                self._tunnels[peer] = new
            else:
                del self._tunnels[peer]
        if news:
            self._tunnels_changed(news)

    def _due(self) -> None:
        """Time is up for tunnels that ended; but after a machine stood still what came meanwhile is heard first."""
        self._later = asyncio.get_running_loop().call_later(HEARING_SECONDS, self._left)

    def _left(self) -> None:
        self._later = None
        self.registry.expire()
        self._follow()
        self._wake.set()

    # ---- strict lifetimes ---------------------------------------------------------------

    def _note_lifetime(self, event: IkeEvent) -> None:
        found = mismatch(event.text) if event.connection else None
        if found is not None:
            if len(self._mismatches) >= MISMATCHES:
                self._mismatches.clear()
            self._mismatches[event.connection, found.phase] = found

    def _enforce_lifetime(self, event: IkeEvent) -> None:
        """The SA that the log spoke of is there now."""
        if event.ike is None or not self._mismatches:
            return
        name, peer = event.ike.connection, numbers.peer_of_connection(event.ike.connection)
        if event.kind is IkeEventKind.IKE_UP:
            found = self._mismatches.pop((name, 1), None)
            if found is not None and ike_policy(self._configuration, peer) == STRICT:
                self._end(peer, found, self._ike.terminate(ike_id=event.ike.unique_id))
        elif event.kind in (IkeEventKind.CHILD_UP, IkeEventKind.CHILD_REKEY) and event.child is not None:
            found = self._mismatches.pop((name, 2), None)
            _, rule = numbers.peer_and_rule_of_child(event.child.name)
            if found is not None and child_policy(self._configuration, peer, rule) == STRICT:
                self._end(peer, found, self._ike.terminate(child=event.child.name))

    def _enforce(self, event: IkeEvent) -> None:
        """An SA as it must not be is ended."""
        found = offence(event, self._plan)
        if found is not None and event.ike is not None:
            peer = numbers.peer_of_connection(event.ike.connection)
            self._end(peer, found.text, self._ike.terminate(child=found.child, ike_id=found.ike_id))

    def _end(self, peer: int, why: Mismatch | str, terminate: Coroutine[Any, Any, None]) -> None:
        logger.warning("peer %d: %s", peer, why)
        self.peers.fail(peer, str(why))
        self._begin(self._ask(terminate))

    async def _ask(self, request: Coroutine[Any, Any, None]) -> None:
        try:
            await request
        except EngineError as error:
            logger.warning("charon: %s", error)

    # ---- beginning ----------------------------------------------------------------------

    def _initiate(self, child: str, connection: str, why: str) -> None:
        self._begin(self._ask_for(child, connection, why))

    async def _ask_for(self, child: str, connection: str, why: str) -> None:
        try:
            narrowed = partial(self.peers.narrowed, child, connection) if numbers.is_flow(child) else None
            await self._ike.initiate(child, connection, why, narrowed)
        except EngineError as error:
            self.peers.initiated(numbers.peer_of_connection(connection), child, str(error))

    def _give_up(self, peer: int) -> None:
        """End what is being negotiated with it; of a peer that is going up nothing else stands."""
        self._begin(self._ask(self._ike.terminate(connection=numbers.connection_name(peer))))

    def _upkeep(self, peer: int) -> Upkeep:
        return self._upkeeps.of(peer)

    def _described(self, peer: int) -> bytes:
        row = self._leaving or self._configuration.row(PEER_TABLE, peer)
        text = row[DESCRIPTION] if row is not None else b""
        return text if isinstance(text, bytes) else b""

    def _remote(self, peer: int) -> bytes:
        return next((tunnel.remote for tunnel in self.registry.tunnels(peer).values()), b"")

    def _peer_changed(self, peer: int) -> None:
        self._dirty_peers.add(peer)
        self._wake.set()

    # ---- looking and showing ------------------------------------------------------------

    async def _look(self) -> None:
        """Ask charon and the kernel, for what no event told and for counters."""
        if self._list_sas is not None:
            begun = self.registry.begin_list()
            try:
                sas = await self._list_sas()
            except EngineError as error:
                logger.debug("SAs cannot be listed: %s", error)
            else:
                for count, _ in enumerate(self.registry.take_list(begun, sas), 1):
                    if count % SAS_PER_TURN == 0:
                        await asyncio.sleep(0)
                self._looked = True
        if self.registry.bundles:
            try:
                records = await self._spd.sas()
            except EngineError as error:
                logger.debug("kernel SAs cannot be listed: %s", error)
            else:
                for count, record in enumerate(records, 1):
                    self.registry.kernel(record)
                    if count % SAS_PER_TURN == 0:
                        await asyncio.sleep(0)
        self._follow()

    async def _publish(self) -> None:
        dirty, self._dirty_peers = self._dirty_peers, set()
        dirty.update(self.peers.timed())
        now = Now(self._wall(), self._clock(), self._started)
        for peer in dirty | self.registry.of_peer.keys():
            self._tell_error(peer)
        await self._tables.draw(dirty, self._spd.statistics(), now)
        self._remarks.repeat()

    def _tell_error(self, peer: int) -> None:
        text = self.peers.error(peer)
        if text != self._remarked.get(peer, ""):
            self._remarks.say(peer, text)
            if text:
                self._remarked[peer] = text
            else:
                del self._remarked[peer]


def _number(value: object) -> int:
    assert isinstance(value, int)
    return value


def touched_peers(plan: PlanView, before: PlanView | None) -> set[int]:
    """Peers whose connections may differ between two plans; an incremental plan remembers which."""
    new, old = plan.connections, before.connections if before is not None else {}
    names: set[str] = set()
    peers: set[int] = set()
    touched = plan.touched_since(before) if isinstance(plan, Plan) and isinstance(before, Plan) else None
    if touched is not None:
        names.update(touched.connections)
        peers = {row.number for row in touched.verdicts if row.table == PEER_TABLE}
    elif new is not old:
        names.update(name for name, connection in new.items() if old.get(name) is not connection)
        names.update(name for name in old if name not in new)
    return peers | {numbers.peer_of_connection(name) for name in names}
