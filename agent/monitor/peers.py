"""Which peers are up, going up or asleep, and when a negotiation is begun.

Traffic (an acquire of the kernel), an operator's `dialup` and peers that shall always be up
all come to one gate: nothing starts for a peer that is going up or a child that stands,
because version 1 negotiates anew each time it is asked and piles up SAs. What comes
meanwhile waits for its turn. Only peers that are not simply at rest have a record here, so
a hundred thousand idle ones cost nothing.
"""

from __future__ import annotations

import heapq
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from agent.monitor.states import MAY_START, Happening, Oper, after
from agent.plan import numbers
from agent.plan.flows import MOST_FLOWS, flow_child, with_flow
from agent.plan.model import (
    ApplyState,
    Child,
    Connection,
    Environment,
    Fine,
    FlowChild,
    RowRef,
    Selector,
    Verdict,
    ViciValue,
)
from agent.plan.phase2 import Granularity
from agent.plan.upkeep import Upkeep

logger = logging.getLogger(__name__)

PEER_TABLE: Final = "ipsecPeerTable"
RETRY_SECONDS: Final = 15  # a peer that is always up is blocked for at least so long after a failure
RETURN_SECONDS: Final = 1.0  # of such a peer, after its tunnel went
CALLED_SECONDS: Final = 10.0  # an IKE SA that the peer began and that leads to no tunnel
FLOWS_REMEMBERED: Final = 4096  # of which a negotiation may still wait for its turn
HEARD_SECONDS: Final = 3.0  # from charon's word that it is up, or over, to the event that shows it

DIALED: Final = "dialup"  # by an operator
HAS_TO_CALL: Final = "it has no address of its own (ipsecPeerDynamicAddress), so it has to call"
NOT_OURS: Final = "it is the peer's to begin"
BY_PACKETS: Final = "each SA pair waits for a packet of its flow (ipsecPrfGranularity)"
ENDINGS: Final = frozenset({Happening.FAILED, Happening.BLOCK, Happening.TUNNELS_GONE})
"""What the last error is the reason of; of all else it is a thing of the past."""

UP, DOWN, DIALUP, CALLBACK = 1, 2, 4, 5  # ipsecPeerAdminStatus
ALWAYS_UP: Final = 2  # ipsecPeerStartMode


class Settings(NamedTuple):
    """What of a peer's row matters here. `usable`: it is not switched off."""

    usable: bool = True
    always_up: bool = False


USUAL: Final = Settings()


class Witness(Protocol):
    """Who is told what becomes of peers."""

    def moved(self, peer: int, before: Oper, now: Oper, why: str, seconds: int) -> None:
        """Into another state, for so many seconds at most (0 = no bound)."""

    def failed(self, peer: int, state: Oper, why: str) -> None:
        """A negotiation failed, or its outcome was not accepted."""

    def crowded(self, peer: int, rule: int, flows: int) -> None:
        """A rule has so many flows with SAs of their own that those to come share one."""


class PlanView(Protocol):
    """The part of agent.plan.planner.Plan that is read."""

    @property
    def generation(self) -> int: ...
    @property
    def connections(self) -> Mapping[str, Connection]: ...
    @property
    def children(self) -> Mapping[str, Child]: ...
    @property
    def verdicts(self) -> Mapping[RowRef, Verdict]: ...
    @property
    def takeovers(self) -> Mapping[int, int]: ...
    @property
    def environment(self) -> Environment: ...
    def mtu(self, peer: int) -> int: ...


@dataclass(eq=False, slots=True)
class Record:
    """A peer that is not at rest. `trying`: children being negotiated by us; `waiting`: those whose turn comes when the
    peer is up, with the reason; `void`: `trying` is of before it was switched off or removed, so its end says nothing,
    and who asks meanwhile waits for that; `until`: when the state is left, None for no such time."""

    state: Oper = Oper.DORMANT
    until: float | None = None
    trying: set[str] = field(default_factory=set)
    waiting: dict[str, str] = field(default_factory=dict)
    void: bool = False
    error: str = ""
    given_up: str = ""  # why we had the negotiation ended before its own end
    blocked: float = 0.0  # until when it is, should it turn out to have no tunnel


class Peers:
    """`initiate(child, connection, reason)` begins a negotiation; `stands(peer, child)` tells whether it is there
    already; `changed(peer)` is called when its state or error is another; `witness` is told of states and failures;
    `give_up(peer)` ends a negotiation that takes too long, `upkeep(peer)` says how long that is, and how long the peer
    is left alone after a failure; `exists(peer)`: its row is there, for tunnels outlive it by a moment."""

    def __init__(
        self,
        initiate: Callable[[str, str, str], None],
        stands: Callable[[int, str], bool],
        changed: Callable[[int], None],
        clock: Callable[[], float],
        witness: Witness | None = None,
        give_up: Callable[[int], None] = lambda peer: None,
        upkeep: Callable[[int], Upkeep] = lambda peer: Upkeep(),
        exists: Callable[[int], bool] = lambda peer: True,
    ) -> None:
        self._initiate, self._stands, self._changed, self._clock = initiate, stands, changed, clock
        self._witness = witness
        self._give_up, self._upkeep, self._exists = give_up, upkeep, exists
        self._plan: PlanView | None = None
        self._by_reqid: dict[int, Child] = {}
        self._by_reqid_of: PlanView | None = None
        self._flows: OrderedDict[str, FlowChild] = OrderedDict()  # lately asked for
        self._crowded: set[str] = set()  # children that had MOST_FLOWS when a flow was last asked for
        self._enabled = False  # ipsecGlobEnabled
        self._settings: dict[int, Settings] = {}  # of peers that are not USUAL
        self._records: dict[int, Record] = {}
        self._times: list[tuple[float, int]] = []  # when to look at which peer again
        self._restart: dict[int, float] = {}  # peers that are always up: when to try again

    # ---- what is configured -------------------------------------------------------------

    def configured(self, peer: int, settings: Settings | None) -> None:
        """A peer's row, or None when it is gone."""
        if settings is None:
            self._settings.pop(peer, None)
            record = self._records.pop(peer, None)
            self._restart.pop(peer, None)
            if record is not None and record.trying:  # charon has yet to end that
                self._records[peer] = Record(Oper.DOWN, trying=record.trying, void=True)
            if record is not None and self._witness is not None:
                self._witness.moved(peer, record.state, Oper.DOWN, "removed", 0)
            return
        if settings == USUAL:
            self._settings.pop(peer, None)
        else:
            self._settings[peer] = settings
        self._adjust(peer)

    def enable(self, enabled: bool) -> None:
        """IPsec as a whole is on or off."""
        self._enabled = enabled
        for peer in {*self._records, *(peer for peer, each in self._settings.items() if each.always_up)}:
            self._adjust(peer)

    def planned(self, plan: PlanView, touched: set[int]) -> None:
        """A new plan; `touched`: peers whose connections are other ones."""
        before = {peer: self.connection(peer) for peer in touched & self._records.keys()}
        self._plan = plan
        for peer in touched:
            self._restart.pop(peer, None)  # other settings deserve another try at once
            if peer in before and before[peer] != self.connection(peer):
                self._longer(peer, self._records[peer])
            self._adjust(peer)

    def _longer(self, peer: int, record: Record) -> None:
        """What is under way is begun anew with other settings, and has as long as a new one."""
        if record.state is Oper.GOING_UP and record.trying and not record.given_up:
            self._leave_after(peer, record, self._upkeep(peer).patience)

    def _adjust(self, peer: int) -> None:
        """What plan and settings make of it: usable or not, always up."""
        record = self._records.get(peer)
        if record is not None:
            self._settle(peer, record)
        if self._usable(peer) and self._settings.get(peer, USUAL).always_up:
            self._restart.setdefault(peer, self._clock())
            self._look_at(peer, self._restart[peer])
        else:
            self._restart.pop(peer, None)
        self._changed(peer)

    def _usable(self, peer: int) -> bool:
        return self._enabled and self._settings.get(peer, USUAL).usable and self._exists(peer)

    def connection(self, peer: int) -> Connection | None:
        """The one for initiating."""
        if self._plan is None:
            return None
        return self._plan.connections.get(numbers.connection_name(peer))

    def _child_of(self, reqid: int) -> Child | None:
        if self._plan is None or not numbers.is_our_reqid(reqid):
            return None
        child = self._by_reqid.get(reqid)
        if child is not None and self._plan.children.get(child.name) == child:
            return child
        if self._by_reqid_of is not self._plan:  # made anew only where the old one does not help
            self._by_reqid = {}
            for each in self._plan.children.values():
                asks = each.fine.asks if each.fine is not None else (each.reqid,)
                self._by_reqid |= dict.fromkeys(asks, each)
            self._by_reqid_of = self._plan
        return self._by_reqid.get(reqid)

    # ---- what is seen -------------------------------------------------------------------

    def state(self, peer: int) -> Oper:
        record = self._records.get(peer)
        return record.state if record is not None else after(Oper.DOWN, self._fitness(peer))

    def _fitness(self, peer: int) -> Happening:
        """USABLE, UNUSABLE or NAMELESS, as settings and plan say."""
        if not self._usable(peer):
            return Happening.UNUSABLE
        if self._plan is None or self.connection(peer) is not None:
            return Happening.USABLE
        verdict = self._plan.verdicts.get(RowRef(PEER_TABLE, peer))
        looked_up = verdict is not None and verdict.state is ApplyState.PENDING
        return Happening.NAMELESS if looked_up else Happening.UNUSABLE

    def time_left(self, peer: int) -> int:
        """Seconds that the present state can last at most; 0 for no bound."""
        record = self._records.get(peer)
        if record is None or record.until is None:
            return 0
        return max(0, round(record.until - self._clock()))

    def error(self, peer: int) -> str:
        """Why the last negotiation failed; '' when it did not."""
        record = self._records.get(peer)
        return record.error if record is not None else ""

    def timed(self) -> list[int]:
        """Peers whose state has an end: their time left changes every second."""
        return [peer for peer, record in self._records.items() if record.until is not None]

    # ---- what happens -------------------------------------------------------------------

    def acquire(self, reqid: int, flow: Selector | None = None) -> None:
        """The kernel holds a packet of this flow, local to remote, that wants an SA of this reqid."""
        child = self._child_of(reqid)
        if child is None:
            return
        if child.fine is None:
            self._want(child.peer, child.name, "traffic")
        elif flow is not None:
            self._want_flow(child, child.fine, flow)

    def _want_flow(self, child: Child, split: Fine, flow: Selector) -> None:
        assert self._plan is not None
        count = len(self._plan.environment.flows.get(child.name, ()))
        wanted = flow_child(child, flow)
        if count < MOST_FLOWS:
            self._crowded.discard(child.name)
        else:
            wanted = split.whole
            if child.name not in self._crowded:
                self._crowded.add(child.name)
                if self._witness is not None:
                    self._witness.crowded(child.peer, child.rule, count)
        if wanted is not None:
            self._ask_for(child, wanted, "traffic")

    def _ask_for(self, child: Child, flow: FlowChild, why: str) -> None:
        self._flows[flow.name] = flow
        self._flows.move_to_end(flow.name)
        while len(self._flows) > FLOWS_REMEMBERED:
            self._flows.popitem(last=False)
        self._want(child.peer, flow.name, why)

    def narrowed(self, child: str, connection: str) -> Mapping[str, ViciValue] | None:
        """What `Ike.initiate` has to load for a flow, as it is wanted now; None when its rule is gone."""
        flow = self._flows.get(child)
        found = self._plan.connections.get(connection) if self._plan is not None else None
        rule = numbers.rule_child(child)
        if flow is None or found is None or all(each.name != rule for each in found.children):
            return None
        return with_flow(found.settings, rule, flow)

    def dial(self, peer: int, why: str) -> None:
        """All tunnels of a peer, now; those of flows come with packets. An operator is told why there are none."""
        record = self._records.get(peer)
        in_vain = self._in_vain(peer) if why == DIALED else ""
        if in_vain and self._witness is not None:
            self._witness.failed(peer, self.state(peer), in_vain)
        if record is not None and record.state is Oper.BLOCKED and why == DIALED:
            self._move(peer, record, Happening.DIALED)
        connection = self.connection(peer)
        for child in connection.children if connection is not None else ():
            if child.fine is None:
                self._want(peer, child.name, why)
            elif (whole := _lasting(child.fine)) is not None:
                self._ask_for(child, whole, why)

    def _in_vain(self, peer: int) -> str:
        """Why nothing can be begun with a peer; empty where it can."""
        connection = self.connection(peer)
        if connection is not None and not can_initiate(connection):
            return HAS_TO_CALL if connection.initiator else NOT_OURS
        if connection is not None and connection.children:
            return "" if _to_keep(connection) else BY_PACKETS
        verdict = self._plan.verdicts.get(RowRef(PEER_TABLE, peer)) if self._plan is not None else None
        return verdict.text if verdict is not None and verdict.text else "there is no tunnel to make"

    def called(self, peer: int) -> None:
        """There is an IKE SA of it that may lead to a tunnel."""
        record = self._record(peer)
        if record.state in (Oper.DORMANT, Oper.BLOCKED):
            self._move(peer, record, Happening.CALLED, CALLED_SECONDS)

    def tunnels(self, peer: int, up: bool) -> None:
        """Whether at least one tunnel of it stands now."""
        record = self._record(peer)
        if up:
            record.blocked = 0.0
            if record.error:
                record.error = ""
                self._changed(peer)
            if self._fitness(peer) is not Happening.UNUSABLE:  # else what stands is about to be ended
                self._move(peer, record, Happening.TUNNEL_UP)
                self._next(peer, record)
        elif record.state is Oper.UP and record.blocked > self._clock():
            self._move(peer, record, Happening.BLOCK, record.blocked - self._clock())
        elif record.state is Oper.UP:
            self._move(peer, record, Happening.TUNNELS_GONE)
            if record.trying and not record.void:  # a packet asked already while the last tunnel was going
                self._move(peer, record, Happening.STARTED, self._upkeep(peer).patience)
        elif not record.trying:
            self._move(peer, record, Happening.FAILED)
        if peer in self._restart:
            self._again(peer, RETURN_SECONDS)
        self._settle(peer, record)

    def initiated(self, peer: int, child: str, text: str) -> None:
        """An attempt of ours ended: '' or why it failed."""
        record = self._record(peer)
        known = child in record.trying
        record.trying.discard(child)
        if record.void:
            self._voided(peer, record)
        elif text and self.connection(peer) is not None:
            if known:  # else it has been told of already
                self._failed(peer, record, child, text)
        else:
            self._next(peer, record)
            if record.state is Oper.GOING_UP and not record.trying:
                self._leave_after(peer, record, HEARD_SECONDS)
        self._settle(peer, record)

    def _voided(self, peer: int, record: Record) -> None:
        """An attempt of before is over: whoever has asked since has his turn."""
        record.void = bool(record.trying)
        if record.void:
            return
        waiting, record.waiting = record.waiting, {}
        for child, why in waiting.items():
            self._want(peer, child, why)
        if record.state is Oper.GOING_UP and not record.trying:
            self._leave_after(peer, record, HEARD_SECONDS)

    def _failed(self, peer: int, record: Record, child: str, text: str) -> None:
        """An attempt of ours came to nothing: the peer is left alone for a while, if it is to be."""
        text = f"{text} ({record.given_up})" if record.given_up else text
        logger.warning("peer %d: %s does not come up: %s", peer, child, text)
        record.error, record.given_up = text, ""
        record.waiting.clear()  # a packet that still wants it asks again
        self._changed(peer)
        self._tell_failure(peer, record, text)
        block = self._upkeep(peer).block
        if peer in self._restart:
            block = max(block, RETRY_SECONDS)
        if block and record.state is Oper.GOING_UP:
            self._move(peer, record, Happening.BLOCK, block)
        elif record.state is Oper.UP:
            record.blocked = self._clock() + block
        else:
            self._move(peer, record, Happening.FAILED)
        if peer in self._restart:  # after the block, whose end is looked at first
            self._again(peer, block)

    def fail(self, peer: int, text: str) -> None:
        """Something to tell of a peer that is not an attempt's end."""
        record = self._record(peer)
        record.error = text
        self._changed(peer)
        self._tell_failure(peer, record, text)

    def remark(self, peer: int, text: str) -> None:
        """Why its tunnels are about to end; told when they do, and shown until the next ones stand."""
        record = self._record(peer)
        record.error = text
        self._changed(peer)

    def trying(self) -> list[int]:
        """Peers that we negotiate with and that have no tunnel."""
        return [peer for peer, record in self._records.items() if record.state is Oper.GOING_UP and record.trying]

    def cut_short(self, peer: int, why: str) -> None:
        """End a negotiation of ours at once; that it ended will be told as its own end is."""
        record = self._records.get(peer)
        if record is not None and record.state is Oper.GOING_UP and record.trying and not record.given_up:
            record.given_up = why
            self._leave_after(peer, record, HEARD_SECONDS)
            self._give_up(peer)

    def next_time(self) -> float | None:
        """Seconds until `tick` has something to do; None for nothing."""
        return max(0.0, self._times[0][0] - self._clock()) if self._times else None

    def engine_lost(self) -> None:
        """Negotiations under way are over; each will also be reported as failed."""
        for record in self._records.values():
            record.waiting.clear()

    def tick(self) -> None:
        """Look at what has become due."""
        now = self._clock()
        while self._times and self._times[0][0] <= now:
            _, peer = heapq.heappop(self._times)
            record = self._records.get(peer)
            if record is not None and record.until is not None and record.until <= now:
                self._time_up(peer, record)
            if self._restart.get(peer, now + 1) <= now:
                self._keep_up(peer)

    def _time_up(self, peer: int, record: Record) -> None:
        if record.state is Oper.GOING_UP and record.trying:
            if not record.given_up:  # its end will be told, with the reason that the log has
                upkeep = self._upkeep(peer)
                self.cut_short(peer, f"given up after {upkeep.patience} s, {upkeep.limit}")
                return
            child = min(record.trying)
            record.trying.clear()
            record.void = False
            self._failed(peer, record, child, "the negotiation did not come to an end")
        else:
            record.trying.clear()
            record.void = False
            self._move(peer, record, Happening.TIME_UP)
        self._settle(peer, record)

    # ---- beginning ----------------------------------------------------------------------

    def _want(self, peer: int, child: str, why: str) -> None:
        """The gate."""
        if self._stands(peer, child):
            return
        connection = self.connection(peer)
        if connection is None or not can_initiate(connection):
            return
        rule = numbers.rule_child(child)
        if any(each.name == rule and not each.starts for each in connection.children):
            return  # it is the peer's to begin
        if not self._usable(peer):
            return
        record = self._record(peer)
        if record.trying or record.state is Oper.GOING_UP:
            if child not in record.trying or record.void:
                record.waiting.setdefault(child, why)
            return
        if record.state not in MAY_START:
            return
        record.trying.add(child)
        if record.state is not Oper.UP:
            record.given_up = ""
            self._move(peer, record, Happening.STARTED, self._upkeep(peer).patience)
        self._initiate(child, connection.name, why)

    def _next(self, peer: int, record: Record) -> None:
        """Who waited has its turn once the peer is up and nothing else is under way."""
        while record.waiting and record.state is Oper.UP and not record.trying:
            child = next(iter(record.waiting))
            self._want(peer, child, record.waiting.pop(child))

    def _keep_up(self, peer: int) -> None:
        """A peer that is always up: begin what does not stand, and look again later."""
        connection = self.connection(peer)
        self._again(peer, RETRY_SECONDS)
        if connection is not None and any(not self._stands(peer, name) for name in _to_keep(connection)):
            self.dial(peer, "always up")

    def _again(self, peer: int, seconds: float) -> None:
        self._restart[peer] = self._clock() + seconds
        self._look_at(peer, self._restart[peer])

    def _look_at(self, peer: int, when: float) -> None:
        heapq.heappush(self._times, (when, peer))

    # ---- records ------------------------------------------------------------------------

    def _record(self, peer: int) -> Record:
        record = self._records.get(peer)
        if record is None:
            record = self._records[peer] = Record(self.state(peer))
        return record

    def _move(self, peer: int, record: Record, happening: Happening, seconds: float | None = None) -> None:
        state = after(record.state, happening)
        if state is record.state:
            return
        logger.info("peer %d: %s → %s (%s)", peer, record.state.name, state.name, happening.value)
        before, record.state = record.state, state
        record.until = None
        if seconds is not None:
            self._leave_after(peer, record, seconds)
        self._changed(peer)
        if self._witness is not None:
            why = record.error if happening in ENDINGS else ""
            self._witness.moved(peer, before, state, why or happening.value, self.time_left(peer))

    def _tell_failure(self, peer: int, record: Record, text: str) -> None:
        if self._witness is not None:
            self._witness.failed(peer, record.state, text)

    def _leave_after(self, peer: int, record: Record, seconds: float) -> None:
        record.until = self._clock() + seconds
        self._look_at(peer, record.until)

    def _settle(self, peer: int, record: Record) -> None:
        """Usable or not; and a record that says nothing is forgotten."""
        fitness = self._fitness(peer)
        self._move(peer, record, fitness)
        if record.trying and fitness is not Happening.USABLE:
            record.void = True
            record.waiting.clear()
        says = record.trying or record.waiting or record.error or record.until is not None
        if not says and record.state in (Oper.DORMANT, Oper.DOWN, Oper.IP_LOOKUP):
            self._records.pop(peer, None)


def _lasting(split: Fine) -> FlowChild | None:
    """What can be begun without a packet: local-services has SAs for the whole rule beside those of flows."""
    return split.whole if split.granularity == Granularity.LOCAL_SERVICES else None


def _to_keep(connection: Connection) -> list[str]:
    """Names of what stands while a peer is always up."""
    lasting = (child.name if child.fine is None else _lasting(child.fine) for child in connection.children)
    return [each if isinstance(each, str) else each.name for each in lasting if each is not None]


def can_initiate(connection: Connection) -> bool:
    """Is there somebody to call?"""
    remote = connection.settings.get("remote_addrs", ())
    return connection.initiator and bool(remote) and "%any" not in remote
