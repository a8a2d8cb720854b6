"""Makes the plan real and keeps it so: compares what is wanted with what is there, repairs, and tells it per row.

A commit wakes it; so do tunnels, addresses, names, announcements of the kernel that others
touched the SPD, lost announcements, failed things whose time has come, and every minute
everything is looked at anew. A pass is one road whatever the reason: plan, then the keys
that may differ, each compared with the kernel's picture, then one `apply`. Charon's part
runs beside it (connections.py), so that it cannot delay a policy. Stopping leaves all
as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from agent.backends import tasks
from agent.backends.connections import CREDENTIALS, DAEMON, FIRST, Connections, Wanted
from agent.backends.engine import (
    EngineError,
    Host,
    Ike,
    IkeEvent,
    IkeEventKind,
    KernelEvent,
    KernelEventKind,
    Links,
    PacketFilter,
    Spd,
    tunnel_of,
)
from agent.backends.leftovers import Leftovers
from agent.backends.memory import MemoryFilter, MemoryLinks
from agent.backends.peer_states import PeerStates
from agent.backends.policies import Policies
from agent.backends.remembered import REQIDS, TAKEOVERS, Remembered, takeovers_of, takeovers_to_keep
from agent.backends.rowstate import APPLY_TABLES, ApplyTables, Failures, Ledger, RowState, verdict_or
from agent.backends.surroundings import Surroundings
from agent.backends.usage import TARGETS, Usage
from agent.mib.schema import Schema
from agent.plan import numbers
from agent.plan.daemon import daemon_settings
from agent.plan.links import VirtualLink
from agent.plan.model import (
    ApplyState,
    Capabilities,
    Child,
    Environment,
    PolicyKey,
    RowRef,
    Tunnel,
)
from agent.plan.planner import Delta, Plan, difference, make_plan
from agent.store.events import Event, Kind, Severity, display
from agent.store.hooks import Change, RowChange, differences
from agent.store.labels import label
from agent.store.snapshot import Configuration
from agent.store.store import Store

logger = logging.getLogger(__name__)

EVERYTHING_SECONDS: Final = 60.0  # a full look at kernel, daemon and names, in case an announcement never came
AFTER_A_DEFECT_SECONDS: Final = 5.0
LINKS_SECONDS: Final = 3.0  # to make interfaces and routes before policies change
ADOPTING_SECONDS: Final = 5.0  # to list the tunnels of a living daemon; 10,000 take 1 s
INSTALLED: Final = "INSTALLED"  # charon's word for a CHILD_SA that carries traffic
NOT_IN_SERVICE: Final = "the row is not in service"
NOT_USED: Final = "no peer, rule or default refers to it"
PEER_TABLE: Final = "ipsecPeerTable"
STATUS, DAEMON_PENDING = "ipsecGwStatus", "ipsecGwIkeDaemonPending"
FILTER: Final = "filter "  # before a part's name, as an item of the ledger
LINK: Final = "link "  # before a peer's number

PlanListener = Callable[[Plan, "Plan | None"], None]


@dataclass(slots=True)
class Work:
    """What the next pass has to look at."""

    changes: dict[tuple[str, int], RowChange] = field(default_factory=dict)
    whole_plan: bool = False  # forget the previous plan's work
    surroundings: bool = False  # the environment is another one
    compare_all: bool = False  # every policy with the picture at hand
    look: bool = False  # ask the kernel for a new picture first
    suspects: set[PolicyKey] = field(default_factory=set)


class Reconciler:
    """One per agent. `plan` is the plan now being made real, None before the first.

    `changed` makes it a subscriber of the store. All on the event loop."""

    def __init__(
        self,
        store: Store,
        schema: Schema,
        spd: Spd,
        ike: Ike,
        host: Host,
        capabilities: Capabilities,
        *,
        filter: PacketFilter | None = None,
        links: Links | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.plan: Plan | None = None
        self._real: Plan | None = None  # the last one that all who carry it out were given
        self._store, self._spd, self._ike, self._host = store, spd, ike, host
        self._filter: PacketFilter = filter or MemoryFilter()
        self._links: Links = links or MemoryLinks()
        self._link_problems: dict[int, str] = {}
        self._listening = False
        self._clock = clock
        self._configuration: Configuration = store.running
        self._work = Work(whole_plan=True, look=True)
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._ledger = Ledger()
        self._leftovers = Leftovers(spd, ike)
        self._policies = Policies(
            spd, self._ledger, clock, lambda row: label(self._configuration, *row), self._leftovers.named
        )
        self._wanted = Wanted()
        self._connections = Connections(ike, self._ledger, self._wanted, self._publish_touched, clock)
        self._surroundings = Surroundings(host, capabilities, self._surroundings_changed)
        self.peer_states = PeerStates(
            self._links.stand,
            self._surroundings.missed,
            self._surroundings.stood_for,
            lambda seconds, call: asyncio.get_running_loop().call_later(seconds, call),
            takeovers_of(store.numbers(TAKEOVERS)),
        )
        self._usage = Usage(schema)
        self._waiting = ""
        self._failures = Failures(self._tell_failure)
        self._tables = ApplyTables(schema, store.live, self._failures)
        self._reqids = Remembered(store, REQIDS, "request ids")
        self._takeovers = Remembered(store, TAKEOVERS, "peers' backups")
        self._listeners: list[PlanListener] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._observing: asyncio.Task[None] | None = None
        self._preview: tuple[Configuration, Plan | None, Plan] | None = None

    # ---- life -------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the engines and begin. Raises EngineError where one is not to be had at all."""
        await self._host.start()
        await self._spd.start()
        self._spd.subscribe(self._kernel_event)
        self._ike.subscribe(self._ike_event)
        await self._filter.start()
        self._filter.subscribe(self._filter_changed)
        await self._links.start()
        self._links.subscribe(self._links_told)
        self._store.events.subscribe(self.peer_states.event)
        self._listening = True
        await self._ike.configure(daemon_settings(self._store.running))
        await self._ike.start()
        with contextlib.suppress(TimeoutError):  # policies must not wait for a daemon that hangs
            async with asyncio.timeout(ADOPTING_SECONDS):
                await self._adopt_tunnels()
        self._store.subscribe(self, replay=True)
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._run()), loop.create_task(self._connections.run())]
        self._tasks.append(loop.create_task(self._minutes()))
        self._leftovers.look()

    async def _adopt_tunnels(self) -> None:
        """Tunnels that outlived the last agent: the first plan has to follow them, or it would cut them."""
        try:
            state = await self._ike.observe()
        except EngineError:
            return
        self._surroundings.tunnels(
            {child.name: tunnel_of(sa, child) for sa in state.sas for child in sa.children if child.state == INSTALLED}
        )

    async def stop(self) -> None:
        """End, leaving kernel and daemon as they are."""
        await tasks.end(*self._tasks, self._observing)
        await self._leftovers.stop()
        await self._surroundings.stop()
        await self._ike.stop()
        await self._filter.stop()
        await self._links.stop()
        if self._listening:
            self._store.events.unsubscribe(self.peer_states.event)
            self._listening = False
        await self._spd.stop()
        await self._host.stop()

    async def settled(self) -> None:
        """Until there is nothing to do but to wait for something that failed."""
        while True:
            await self._idle.wait()
            await self._connections.idle.wait()
            if self._idle.is_set():
                return

    def subscribe(self, listener: PlanListener) -> None:
        """Called with (new plan, the one before or None) once its policies are in the kernel; connections follow."""
        self._listeners.append(listener)

    # ---- reasons to look --------------------------------------------------------------

    def changed(self, change: Change) -> None:
        """A commit: the touched rows are pending at once."""
        self._configuration = change.after
        self._follow_peers(change)
        if change.replay:
            self._work = Work(whole_plan=True, compare_all=True, look=self._work.look, suspects=self._work.suspects)
        else:
            for row in change.rows:
                self._note(row)
            self._publish(RowRef(row.table, row.number) for row in change.rows)
        self._awaken()

    def _follow_peers(self, change: Change) -> None:
        if change.replay:
            self.peer_states.replayed(change.after.table(PEER_TABLE).active_rows())
        else:
            for each in change.rows:
                if each.table == PEER_TABLE:
                    self.peer_states.configured(each.number, change.after.row(PEER_TABLE, each.number))

    def _note(self, row: RowChange) -> None:
        """Several commits on one row before a pass are one change."""
        where = (row.table, row.number)
        earlier = self._work.changes.pop(where, None)
        if earlier is not None:
            row = RowChange(row.table, row.number, earlier.before, row.after, earlier.columns | row.columns)
        self._work.changes[where] = row

    def look_at_everything(self) -> None:
        """A whole pass now: plan, kernel, daemon and names anew."""
        self._work.whole_plan = self._work.look = True
        self._connections.look_again()
        self._surroundings.resolve_again()
        self._filter.look_again()
        self._links.look_again()
        self._awaken()

    def environment_changed(self, tunnels: Mapping[str, Tunnel | None]) -> None:
        """Tunnels that came up or moved, or (None) went, by child name: templates follow them."""
        self._surroundings.tunnels(tunnels)

    def _surroundings_changed(self) -> None:
        self._work.surroundings = True
        self._awaken()

    def _kernel_event(self, event: KernelEvent) -> None:
        if event.kind is KernelEventKind.OVERRUN:
            self._work.look = True
        elif event.kind is not KernelEventKind.POLICY_FOREIGN:
            return
        elif event.key is None:
            self._work.compare_all = True
        else:
            self._work.suspects.add(event.key)
        self._awaken()

    def _ike_event(self, event: IkeEvent) -> None:
        if event.kind is IkeEventKind.BACK:
            self._leftovers.look()

    def _links_told(self, problems: Mapping[int, str]) -> None:
        """Peers whose links or routes cannot be made say so."""
        for peer in self._link_problems.keys() - problems.keys():
            self._ledger.done(f"{LINK}{peer}")
        for peer, text in problems.items():
            self._ledger.fail(f"{LINK}{peer}", (RowRef(PEER_TABLE, peer),), text)
        self._link_problems = dict(problems)
        self._publish_touched()

    def _filter_changed(self) -> None:
        """Rows whose packet filter rules are refused say so."""
        plan = self.plan
        for name, wanted in plan.filters.items() if plan is not None else ():
            problem = self._filter.problem(name)
            if problem:
                self._ledger.fail(FILTER + name, tuple(wanted.rows), problem)
            else:
                self._ledger.done(FILTER + name)
        self._publish_touched()

    def _awaken(self) -> None:
        self._idle.clear()
        self._wake.set()

    async def _minutes(self) -> None:
        while True:
            await asyncio.sleep(EVERYTHING_SECONDS)
            self._connections.look_again()
            self._surroundings.resolve_again()
            self._filter.look_again()
            self._links.look_again()
            if self._observing is None or self._observing.done():
                self._observing = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        """A new picture of the SPD beside other work, then compare with it."""
        try:
            await self._policies.look()
        except EngineError as error:
            logger.warning("the kernel's policies cannot be listed: %s", error)
            return
        self._work.compare_all = True
        self._awaken()

    # ---- the pass ---------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            await self._policies.retries.woken_or_due(self._wake)
            work, self._work = self._work, Work()
            work.suspects.update(self._policies.retries.due())
            try:
                await self._pass(work)
            except Exception:  # a defect must not end repair for good; begin again from nothing
                logger.exception("reconciling failed; everything is planned anew in %.0f s", AFTER_A_DEFECT_SECONDS)
                await asyncio.sleep(AFTER_A_DEFECT_SECONDS)
                self._work.whole_plan = self._work.look = True
                self._connections.look_again()
                self._awaken()
            if not self._wake.is_set():
                self._idle.set()

    async def _pass(self, work: Work) -> None:
        if work.look:
            await self._policies.look()
            work.compare_all = True
        old = self._real  # not `plan`: its pass may have failed half-way
        plan, touched = await self._make_plan(work)
        delta = difference(old, plan) if plan is not old else Delta()
        ahead = plan is not old and await self._links_first(plan, old)
        await self._policies.settle(plan, None if work.compare_all else work.suspects | delta.policy_keys)
        if plan is not old:
            self._want_filters(plan, old)
            if ahead or old is None or plan.links != old.links or plan.calls != old.calls:
                self._links.want(plan.links, plan.calls.values())
            self._hand_over(plan, delta)
            for listener in self._listeners:
                listener(plan, old)
            self._real = plan
        touched |= delta.rows
        if work.whole_plan or old is None or old.enabled != plan.enabled:
            self._ledger.take_touched()
            self._publish_whole()
        else:
            self._publish(touched | self._ledger.take_touched())
        if plan is not old:
            whole = old is None or work.whole_plan  # after a failed pass nobody knows what was kept
            children = {*plan.reqids, *self._reqids.held} if whole or old is None else children_of(delta, old)
            await self._reqids.keep({child: plan.reqids.get(child) for child in children})
            await self._takeovers.keep(takeovers_to_keep(self._takeovers.held, self.peer_states.takeovers))

    async def _links_first(self, plan: Plan, old: Plan | None) -> bool:
        """New interfaces and routes come before the policies that they stand for go: in between, packets would leave in
        plain. Those that are wanted no more stay until the policies that stand for them are there. Whether there are
        any."""
        held = old.links if old is not None else {}
        if plan.links is held or not any(_leads_more(link, held.get(peer)) for peer, link in plan.links.items()):
            return False
        self._links.want(plan.links, plan.calls.values(), removing=False)
        with contextlib.suppress(TimeoutError):  # the row says what cannot be made; policies must not wait for it
            async with asyncio.timeout(LINKS_SECONDS):
                await self._links.idle.wait()
        return True

    async def _make_plan(self, work: Work) -> tuple[Plan, set[RowRef]]:
        """The plan of the newest configuration, and the rows whose state may have changed beside it."""
        configuration = self._configuration
        changes: Sequence[RowChange] = list(work.changes.values())
        touched = {RowRef(change.table, change.number) for change in changes if change.table in APPLY_TABLES}
        if work.whole_plan or self.plan is None:
            work.whole_plan = True
            self._usage.rebuild(configuration)
            await self._surroundings.rebuild(configuration)
            self.plan = make_plan(configuration, self.environment)
            return self.plan, touched
        if not changes and not work.surroundings:
            return self.plan, touched
        touched |= self._usage.moved(configuration, changes)
        self._surroundings.moved(changes)
        previewed = self._previewed(configuration) if not work.surroundings else None
        self.plan = previewed or make_plan(configuration, self.environment, self.plan, changes)
        return self.plan, touched

    @property
    def environment(self) -> Environment:
        """The world as the next plan will see it."""
        return self._surroundings.environment(self._reqids.held if self.plan is None else self.plan.reqids)

    def preview(self, after: Configuration) -> Plan:
        """The plan a configuration would give, for the lock-out check. It is kept: when that configuration is
        committed, it is not made again. What differs is asked of the configurations: `after` may stand on others that
        are not stored yet, or that we have not been told of."""
        if self.plan is None:
            return make_plan(after, self.environment)
        base = self.plan
        assert isinstance(base.configuration, Configuration)
        changes = differences(base.configuration, after)
        self._surroundings.foresee(changes)
        plan = make_plan(after, self.environment, base, changes)
        self._preview = None if self._work.surroundings else (after, base, plan)
        return plan

    def _previewed(self, configuration: Configuration) -> Plan | None:
        preview, self._preview = self._preview, None
        if preview is None:
            return None
        after, base, plan = preview
        return plan if after is configuration and base is self.plan else None

    def _want_filters(self, plan: Plan, old: Plan | None) -> None:
        for name in old.filters if old is not None else ():
            if name not in plan.filters:
                self._filter.want(name, None)
                self._ledger.done(FILTER + name)
        for name, wanted in plan.filters.items():
            if old is None or old.filters.get(name) != wanted:
                self._filter.want(name, wanted.part)
        if old is None and not plan.filters:  # an earlier agent may have had some
            self._filter.want("nothing", None)
        self._filter_changed()

    def _hand_over(self, plan: Plan, delta: Delta) -> None:
        """Give the daemon's part of a plan to those who work at it."""
        self._wanted.connections, self._wanted.secrets = plan.connections, plan.secrets
        wanted = self._wanted
        changed = {DAEMON: wanted.daemon != plan.daemon, CREDENTIALS: wanted.credentials != plan.credentials}
        wanted.daemon, wanted.credentials = plan.daemon, plan.credentials
        self._connections.mark(
            (*delta.connections_removed, *(c.name for c in (*delta.connections_added, *delta.connections_changed))),
            (*delta.secrets_removed, *(secret.id for secret in (*delta.secrets_added, *delta.secrets_changed))),
            [item for item in FIRST if changed[item]],
        )

    # ---- row states -------------------------------------------------------------------

    def _publish_touched(self) -> None:
        if self._connections.waiting != self._waiting:
            self._waiting = self._connections.waiting
            if self._waiting:
                logger.info("%s", self._waiting)
            self._store.live.update(STATUS, {0: {DAEMON_PENDING: display(self._waiting)}})
        if self._ledger.touched and self.plan is not None:
            self._publish(self._ledger.take_touched())

    def _publish(self, rows: Iterable[RowRef]) -> None:
        configuration = self._configuration
        self._tables.publish(
            (ref, self._state(ref) if ref.number in configuration.table(ref.table) else None)
            for ref in rows
            if ref.table in APPLY_TABLES
        )

    def _publish_whole(self) -> None:
        for table in APPLY_TABLES:
            rows = self._configuration.table(table)
            self._failures.keep(table, rows)
            self._tables.publish_whole(table, rows.numbers(), self._state)

    def _tell_failure(self, ref: RowRef, text: str) -> None:
        peer = ref.number if ref.table == PEER_TABLE else 0
        says = f"{label(self._configuration, *ref)}: {text}"
        event = Event(Kind.APPLY_FAILED, Severity.ERR, says, peer, (ref.table, ref.number))
        self._store.events.tell(event)

    def _state(self, ref: RowRef) -> RowState:
        if self.plan is None or (ref.table, ref.number) in self._work.changes:  # changed since: still to be made real
            return RowState(ApplyState.PENDING, "", None)
        state, text = self._say(self.plan, ref)
        return RowState(state, text, None if state is ApplyState.PENDING else self.plan.generation)

    def _say(self, plan: Plan, ref: RowRef) -> tuple[ApplyState, str]:
        if self._configuration.row(ref.table, ref.number) is None:
            return ApplyState.UNUSED, NOT_IN_SERVICE
        verdict = plan.verdicts.get(ref)
        if ref.table in TARGETS:
            if verdict is not None and verdict.state is ApplyState.FAILED:
                return verdict.state, verdict.text
            if ref not in self._usage.used:
                return ApplyState.UNUSED, NOT_USED
        return verdict_or(verdict, self._ledger.of(ref))


def _leads_more(link: VirtualLink, before: VirtualLink | None) -> bool:
    """Whether there is a route or a routing rule that there was not."""
    if before is None or not set(before.routes).issuperset(link.routes):
        return True
    return not set(before.rules).issuperset(link.rules)


def children_of(delta: Delta, old: Plan) -> set[str]:
    """Names of the children that connections of a difference have, or had."""
    connections = [*delta.connections_added, *delta.connections_changed]
    before = [*delta.connections_removed, *(connection.name for connection in delta.connections_changed)]
    connections += (old.connections[name] for name in before)
    return {name for connection in connections for child in connection.children for name in _numbered(child)}


def _numbered(child: Child) -> tuple[str, ...]:
    """Under which names it has reqids, or had."""
    return child.name, *numbers.asking_names(child.name)
