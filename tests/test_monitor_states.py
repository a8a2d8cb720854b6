"""The table of a peer's states, and the gate before negotiations."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.mib import load_schema
from agent.monitor.chain import PeerChain
from agent.monitor.document import diagram, document, table
from agent.monitor.peers import BY_PACKETS, DIALED, RETRY_SECONDS, Peers, Settings
from agent.monitor.states import MAY_START, TRANSITIONS, Happening, Oper, after, label
from agent.plan import numbers
from agent.plan.flows import MOST_FLOWS
from agent.plan.model import (
    ApplyState,
    Child,
    Connection,
    Environment,
    Fine,
    FlowChild,
    RowRef,
    Selector,
    Tunnel,
    Verdict,
)
from agent.plan.phase2 import Granularity
from agent.plan.selectors import host, one_port
from agent.plan.upkeep import Upkeep
from tests.planned import Planned


def test_states_are_those_of_the_mib() -> None:
    labels = load_schema().columns["ipsecPeerStatOperStatus"].labels
    assert {label(state): int(state) for state in Oper}.items() <= labels.items()


@given(st.lists(st.sampled_from(Happening)))
def test_whatever_happens_it_is_a_known_state(happenings: list[Happening]) -> None:
    state = Oper.DORMANT
    for happening in happenings:
        state = after(state, happening)
    assert state in Oper
    assert after(state, Happening.UNUSABLE) is Oper.DOWN


@pytest.mark.parametrize("state", Oper)
def test_every_state_can_be_left_and_reached(state: Oper) -> None:
    assert any(before is state and to is not state for (before, _), to in TRANSITIONS.items())
    assert state is Oper.DORMANT or state in TRANSITIONS.values()


def test_from_every_usable_state_a_tunnel_leads_up() -> None:
    assert all(after(state, Happening.TUNNEL_UP) is Oper.UP for state in Oper)
    assert Oper.GOING_UP not in MAY_START and Oper.BLOCKED not in MAY_START


def test_the_document_has_a_line_per_state() -> None:
    lines = table().splitlines()
    assert len(lines) == 2 + len(Oper)
    assert lines[2].startswith("| up |") and "dormant" in lines[2]


def test_the_picture_in_the_documents_is_what_the_table_draws() -> None:
    assert Path("docs/peer-states.md").read_text() == document(), (
        "python -m agent.monitor.document > docs/peer-states.md"
    )


def test_the_picture_has_every_transition() -> None:
    drawn = diagram()
    for (before, happening), follower in TRANSITIONS.items():
        arrow = f"    {before.name.lower()} --> {follower.name.lower()}: "
        line = next(line for line in drawn.splitlines() if line.startswith(arrow))
        assert happening.value in line.removeprefix(arrow).split(" / ")
    assert drawn.count("-->") == 1 + len({(before, follower) for (before, _), follower in TRANSITIONS.items()})


# ---- the gate ---------------------------------------------------------------------------


@dataclass
class World:
    """A clock, what stands, and what was begun."""

    now: float = 0.0
    standing: set[tuple[int, str]] = field(default_factory=set)
    begun: list[tuple[str, str, str]] = field(default_factory=list)
    changed: set[int] = field(default_factory=set)
    given_up: list[int] = field(default_factory=list)
    upkeep: Upkeep = field(default_factory=Upkeep)
    told: list[tuple[Oper, str]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    crowds: list[tuple[int, int, int]] = field(default_factory=list)

    def moved(self, peer: int, before: Oper, now: Oper, why: str, seconds: int) -> None:
        self.told.append((now, why))

    def failed(self, peer: int, state: Oper, why: str) -> None:
        self.failures.append(why)

    def crowded(self, peer: int, rule: int, flows: int) -> None:
        self.crowds.append((peer, rule, flows))

    def peers(self) -> Peers:
        found = Peers(
            lambda child, connection, why: self.begun.append((child, connection, why)),
            lambda peer, child: (peer, child) in self.standing,
            self.changed.add,
            lambda: self.now,
            self,
            give_up=self.given_up.append,
            upkeep=lambda peer: self.upkeep,
        )
        found.enable(True)
        return found

    def children(self) -> list[str]:
        return [child for child, _, _ in self.begun]


def plan(peers: int = 1, rules: int = 1, remote: str = "192.0.2.1", generation: int = 1) -> Planned:
    connections: dict[str, Connection] = {}
    children: dict[str, Child] = {}
    for peer in range(1, peers + 1):
        own = tuple(
            Child(numbers.child_name(peer, rule), peer, rule, numbers.REQID_FIRST + peer * 100 + rule)
            for rule in range(1, rules + 1)
        )
        name = numbers.connection_name(peer)
        connections[name] = Connection(name, peer, {"remote_addrs": [remote]}, own)
        children |= {child.name: child for child in own}
    return Planned(generation, connections, children)


def ready(world: World, **planned: int | str) -> Peers:
    peers = world.peers()
    made = plan(**planned)  # type: ignore[arg-type]
    peers.planned(made, {connection.peer for connection in made.connections.values()})
    return peers


def reqid(peer: int, rule: int) -> int:
    return numbers.REQID_FIRST + peer * 100 + rule


def test_traffic_begins_one_negotiation_however_often_it_asks() -> None:
    world = World()
    peers = ready(world)
    for _ in range(5):
        peers.acquire(reqid(1, 1))
    assert world.begun == [("peer-1-rule-1", "peer-1", "traffic")]
    assert peers.state(1) is Oper.GOING_UP and peers.time_left(1) > 0


def test_an_old_failure_is_no_reason_to_begin_again() -> None:
    world = World()
    peers = ready(world)
    for _ in range(2):
        peers.acquire(reqid(1, 1))
        peers.initiated(1, "peer-1-rule-1", "no answer from the peer")
    assert world.told == [(Oper.GOING_UP, "we negotiate"), (Oper.DORMANT, "no answer from the peer")] * 2


def test_a_packet_of_nobody_begins_nothing() -> None:
    world = World()
    peers = ready(world)
    peers.acquire(reqid(7, 7))
    peers.acquire(3)
    assert not world.begun


def test_nothing_begins_while_the_tunnel_stands() -> None:
    world = World()
    peers = ready(world)
    world.standing.add((1, "peer-1-rule-1"))
    peers.tunnels(1, True)
    peers.acquire(reqid(1, 1))
    assert not world.begun and peers.state(1) is Oper.UP


def test_another_rule_waits_for_its_turn() -> None:
    world = World()
    peers = ready(world, rules=2)
    peers.acquire(reqid(1, 1))
    peers.acquire(reqid(1, 2))
    assert world.children() == ["peer-1-rule-1"]
    world.standing.add((1, "peer-1-rule-1"))
    peers.initiated(1, "peer-1-rule-1", "")
    peers.tunnels(1, True)
    assert world.children() == ["peer-1-rule-1", "peer-1-rule-2"]


def test_after_a_failure_the_next_packet_may_try_again_and_the_reason_stays() -> None:
    world = World()
    peers = ready(world)
    peers.acquire(reqid(1, 1))
    peers.initiated(1, "peer-1-rule-1", "no answer")
    assert peers.state(1) is Oper.DORMANT and peers.error(1) == "no answer"
    peers.acquire(reqid(1, 1))
    assert len(world.begun) == 2
    world.standing.add((1, "peer-1-rule-1"))
    peers.tunnels(1, True)
    assert peers.error(1) == ""


def test_a_peer_without_address_is_not_called() -> None:
    world = World()
    peers = ready(world, remote="%any")
    peers.acquire(reqid(1, 1))
    peers.dial(1, "dialup")
    assert not world.begun and peers.state(1) is Oper.DORMANT


def test_an_operator_who_dials_in_vain_is_told_why() -> None:
    world = World()
    peers = ready(world, remote="%any")
    peers.dial(1, "always up")
    assert not world.failures
    peers.dial(1, "dialup")
    assert world.failures == ["it has no address of its own (ipsecPeerDynamicAddress), so it has to call"]
    refused = Verdict(ApplyState.FAILED, "no pre-shared key; set ipsecPeerPreSharedKey")
    peers.planned(Planned(2, {}, {}, {RowRef("ipsecPeerTable", 1): refused}), {1})
    peers.dial(1, "dialup")
    assert world.failures[1:] == ["no pre-shared key; set ipsecPeerPreSharedKey"]
    peers.planned(Planned(3, {}, {}), {1})
    peers.dial(1, "dialup")
    assert world.failures[2:] == ["there is no tunnel to make"] and not world.begun


def test_a_peer_that_calls_is_going_up_and_falls_back_when_nothing_comes_of_it() -> None:
    world = World()
    peers = ready(world)
    peers.called(1)
    assert peers.state(1) is Oper.GOING_UP
    world.now = 11
    peers.tick()
    assert peers.state(1) is Oper.DORMANT


def test_a_tunnel_that_came_and_went_at_once_leaves_nothing_behind() -> None:
    """A strict peer ends it before its coming was seen; the next packet must be able to begin anew."""
    world = World()
    peers = ready(world)
    peers.acquire(reqid(1, 1))
    peers.initiated(1, "peer-1-rule-1", "")
    peers.tunnels(1, False)
    assert peers.state(1) is Oper.DORMANT
    peers.acquire(reqid(1, 1))
    peers.initiated(1, "peer-1-rule-1", "")
    assert peers.state(1) is Oper.GOING_UP
    world.now = 4
    peers.tick()
    assert peers.state(1) is Oper.DORMANT
    assert len(world.begun) == 2


def test_switched_off_is_down_whatever_stands() -> None:
    world = World()
    peers = ready(world)
    world.standing.add((1, "peer-1-rule-1"))
    peers.tunnels(1, True)
    peers.configured(1, Settings(usable=False))
    assert peers.state(1) is Oper.DOWN
    peers.tunnels(1, True)
    assert peers.state(1) is Oper.DOWN
    peers.tunnels(1, False)
    peers.acquire(reqid(1, 1))
    assert peers.state(1) is Oper.DOWN and not world.begun
    peers.configured(1, Settings())
    assert peers.state(1) is Oper.DORMANT


def test_without_ipsec_all_are_down() -> None:
    world = World()
    peers = ready(world)
    peers.enable(False)
    assert peers.state(1) is Oper.DOWN


def test_always_up_begins_by_itself_returns_and_retries() -> None:
    world = World()
    peers = ready(world, rules=2)
    peers.configured(1, Settings(always_up=True))
    peers.tick()
    assert world.children() == ["peer-1-rule-1"]
    world.standing.add((1, "peer-1-rule-1"))
    peers.tunnels(1, True)
    peers.initiated(1, "peer-1-rule-1", "")
    assert world.children() == ["peer-1-rule-1", "peer-1-rule-2"]
    world.standing.add((1, "peer-1-rule-2"))
    peers.initiated(1, "peer-1-rule-2", "")
    world.now += 100
    peers.tick()
    assert len(world.begun) == 2
    world.standing.clear()
    peers.tunnels(1, False)
    world.now += 1
    peers.tick()
    assert len(world.begun) == 3
    peers.initiated(1, "peer-1-rule-1", "no answer")
    world.now += RETRY_SECONDS - 1
    peers.tick()
    assert len(world.begun) == 3
    world.now += 1
    peers.tick()
    assert len(world.begun) == 4


def test_always_up_before_the_plan_is_made() -> None:
    world = World()
    peers = world.peers()
    peers.configured(1, Settings(always_up=True))
    peers.tick()
    assert not world.begun
    made = plan()
    peers.planned(made, {1})
    peers.tick()
    assert world.children() == ["peer-1-rule-1"]


def test_a_peer_whose_name_is_being_looked_up() -> None:
    world = World()
    peers = world.peers()
    row = RowRef("ipsecPeerTable", 1)
    peers.planned(Planned(1, {}, {}, {row: Verdict(ApplyState.PENDING, "gw is being resolved")}), {1})
    assert peers.state(1) is Oper.IP_LOOKUP
    peers.planned(Planned(2, {}, {}, {row: Verdict(ApplyState.FAILED, "gw does not resolve")}), {1})
    assert peers.state(1) is Oper.DOWN
    peers.planned(plan(generation=3), {1})
    assert peers.state(1) is Oper.DORMANT


def test_a_peer_with_a_block_time_is_left_alone_for_so_long() -> None:
    world = World(upkeep=Upkeep(block=30))
    peers = ready(world)
    peers.acquire(reqid(1, 1))
    peers.initiated(1, "peer-1-rule-1", "no answer")
    assert peers.state(1) is Oper.BLOCKED and peers.time_left(1) == 30
    world.now = 29
    peers.tick()
    peers.acquire(reqid(1, 1))
    assert peers.state(1) is Oper.BLOCKED and peers.time_left(1) == 1 and len(world.begun) == 1
    world.now = 30
    peers.tick()
    assert peers.state(1) is Oper.DORMANT and peers.time_left(1) == 0
    peers.acquire(reqid(1, 1))
    assert len(world.begun) == 2


def test_who_dials_while_an_attempt_of_before_it_was_switched_off_is_ending_has_his_turn_behind_it() -> None:
    """Down, up and `dialup` in the moment in which charon ends what was under way: that its end is no failure."""
    world = World(upkeep=Upkeep(block=60))
    peers = ready(world)
    peers.acquire(reqid(1, 1))
    peers.configured(1, Settings(usable=False))
    peers.configured(1, Settings())
    peers.dial(1, "dialup")
    assert world.children() == ["peer-1-rule-1"]  # version 1 would negotiate both
    peers.initiated(1, "peer-1-rule-1", "no answer from the peer")
    assert world.begun[1:] == [("peer-1-rule-1", "peer-1", "dialup")]
    assert peers.state(1) is Oper.GOING_UP and not peers.error(1)
    peers.initiated(1, "peer-1-rule-1", "no answer from the peer")
    assert peers.state(1) is Oper.BLOCKED and len(world.begun) == 2


def test_a_peer_that_is_always_up_is_not_blocked_by_an_attempt_of_before_it_was_switched_off() -> None:
    world = World()
    peers = ready(world)
    peers.configured(1, Settings(always_up=True))
    peers.tick()
    peers.configured(1, Settings(usable=False, always_up=True))
    peers.configured(1, Settings(always_up=True))
    peers.tick()
    peers.initiated(1, "peer-1-rule-1", "no answer from the peer")
    assert len(world.begun) == 2 and peers.state(1) is Oper.GOING_UP


def test_switched_off_while_it_is_called_it_rests() -> None:
    world = World()
    peers = ready(world)
    peers.acquire(reqid(1, 1))
    peers.configured(1, Settings(usable=False))
    peers.initiated(1, "peer-1-rule-1", "no answer from the peer")
    peers.configured(1, Settings())
    assert peers.state(1) is Oper.DORMANT and len(world.begun) == 1 and not peers._records


def test_a_new_row_of_the_same_number_does_not_answer_for_the_old_ones_attempt() -> None:
    world = World(upkeep=Upkeep(block=60))
    peers = ready(world)
    peers.acquire(reqid(1, 1))
    peers.configured(1, None)
    assert world.told[-1] == (Oper.DOWN, "removed")
    peers.configured(1, Settings())
    peers.acquire(reqid(1, 1))
    assert len(world.begun) == 1
    peers.initiated(1, "peer-1-rule-1", "no answer from the peer")
    assert peers.state(1) is Oper.GOING_UP and len(world.begun) == 2 and not peers.error(1)


def test_a_row_that_went_leaves_no_record_once_its_attempt_is_over() -> None:
    world = World()
    peers = ready(world)
    peers.acquire(reqid(1, 1))
    peers.configured(1, None)
    peers.planned(plan(peers=0, generation=2), {1})
    peers.initiated(1, "peer-1-rule-1", "no answer from the peer")
    assert not peers._records


def test_other_settings_have_as_long_as_the_ones_before() -> None:
    """What is under way is begun anew with them."""
    world = World(upkeep=Upkeep(patience=60))
    peers = ready(world)
    peers.acquire(reqid(1, 1))
    world.now = 50
    peers.planned(plan(remote="192.0.2.9", generation=2), {1})
    world.now = 100
    peers.tick()
    assert not world.given_up and peers.time_left(1) == 10
    peers.planned(plan(remote="192.0.2.9", generation=3), {1})
    world.now = 110
    peers.tick()
    assert world.given_up == [1]


def test_a_blocked_peer_is_still_answered() -> None:
    world = World(upkeep=Upkeep(block=30))
    peers = ready(world)
    peers.acquire(reqid(1, 1))
    peers.initiated(1, "peer-1-rule-1", "no answer")
    peers.called(1)
    assert peers.state(1) is Oper.GOING_UP
    peers.tunnels(1, True)
    assert peers.state(1) is Oper.UP and peers.error(1) == ""


def test_a_failure_in_the_moment_in_which_the_last_tunnel_goes_blocks_too() -> None:
    """An end may be a renewal for a second; meanwhile the next packet asks, and is refused at once."""
    world = World(upkeep=Upkeep(block=30))
    peers = ready(world)
    peers.tunnels(1, True)
    peers.acquire(reqid(1, 1))
    peers.initiated(1, "peer-1-rule-1", "the peer refused our authentication")
    assert peers.state(1) is Oper.UP
    world.now = 1
    peers.tunnels(1, False)
    assert peers.state(1) is Oper.BLOCKED and peers.time_left(1) == 29


def test_so_does_one_just_after_it() -> None:
    world = World(upkeep=Upkeep(block=30))
    peers = ready(world)
    peers.tunnels(1, True)
    peers.acquire(reqid(1, 1))
    peers.tunnels(1, False)
    assert peers.state(1) is Oper.GOING_UP
    peers.initiated(1, "peer-1-rule-1", "the peer refused our authentication")
    assert peers.state(1) is Oper.BLOCKED and peers.time_left(1) == 30


def test_a_second_tunnel_that_fails_does_not_block_a_peer_whose_first_stands() -> None:
    world = World(upkeep=Upkeep(block=5))
    peers = ready(world, rules=2)
    peers.tunnels(1, True)
    peers.acquire(reqid(1, 2))
    peers.initiated(1, "peer-1-rule-2", "no answer")
    world.now = 6
    peers.tick()
    assert peers.state(1) is Oper.UP
    peers.tunnels(1, False)
    assert peers.state(1) is Oper.DORMANT


def test_an_operator_who_dials_does_not_wait_for_the_block_time() -> None:
    world = World(upkeep=Upkeep(block=30))
    peers = ready(world)
    peers.acquire(reqid(1, 1))
    peers.initiated(1, "peer-1-rule-1", "no answer")
    peers.dial(1, "always up")
    assert len(world.begun) == 1
    peers.dial(1, "dialup")
    assert len(world.begun) == 2 and peers.state(1) is Oper.GOING_UP


@pytest.mark.parametrize(("block", "wait"), [(0, RETRY_SECONDS), (5, RETRY_SECONDS), (60, 60)])
def test_a_peer_that_is_always_up_is_blocked_for_fifteen_seconds_at_least(block: int, wait: int) -> None:
    world = World(upkeep=Upkeep(block=block))
    peers = ready(world)
    peers.configured(1, Settings(always_up=True))
    peers.tick()
    peers.initiated(1, "peer-1-rule-1", "no answer")
    assert peers.state(1) is Oper.BLOCKED and peers.time_left(1) == wait
    world.now = wait - 0.1
    peers.tick()
    assert len(world.begun) == 1
    world.now = wait
    peers.tick()
    assert len(world.begun) == 2 and peers.state(1) is Oper.GOING_UP


def test_a_negotiation_that_takes_too_long_is_given_up_and_the_reason_says_so() -> None:
    world = World(upkeep=Upkeep(patience=5))
    peers = ready(world)
    peers.acquire(reqid(1, 1))
    assert peers.time_left(1) == 5
    world.now = 4.9
    peers.tick()
    assert not world.given_up
    world.now = 5
    peers.tick()
    assert world.given_up == [1] and peers.state(1) is Oper.GOING_UP
    peers.initiated(1, "peer-1-rule-1", "no answer from the peer")
    assert peers.state(1) is Oper.DORMANT
    assert peers.error(1) == "no answer from the peer (given up after 5 s, ipsecGlobMaxNegotiationTimeoutsec)"


def test_should_the_engine_never_tell_the_end_it_is_taken_for_granted() -> None:
    world = World(upkeep=Upkeep(patience=5, block=7, limit="ipsecGlobBlockTimeout"))
    peers = ready(world)
    peers.acquire(reqid(1, 1))
    for now in (5, 8):
        world.now = now
        peers.tick()
    assert world.given_up == [1] and peers.state(1) is Oper.BLOCKED
    assert "ipsecGlobBlockTimeout" in peers.error(1)
    peers.initiated(1, "peer-1-rule-1", "too late")
    assert "too late" not in peers.error(1)


def test_idle_peers_cost_no_record() -> None:
    world = World()
    peers = ready(world, peers=50)
    for peer in range(1, 51):
        peers.acquire(reqid(peer, 1))
        peers.initiated(peer, numbers.child_name(peer, 1), "")
        peers.tunnels(peer, True)
        peers.tunnels(peer, False)
    assert not peers._records


def test_the_old_chain_goes_by_priority_then_number() -> None:
    chain = PeerChain()
    chain.fill([(5, 0), (2, 0), (9, 1), (1, 2)])
    assert chain.moved() == {2, 5, 9} and [chain.after(peer) for peer in (2, 5, 9, 1)] == [5, 9, 1, 0]
    chain.put(7, 0)
    chain.put(5, 3)
    assert chain.moved() == {2, 7, 1, 5} and [chain.after(peer) for peer in (2, 7, 9, 1, 5)] == [7, 9, 1, 5, 0]
    chain.drop(9)
    assert chain.moved() == {7} and chain.after(7) == 1
    chain.put(7, 0)
    assert chain.moved() == set()


# ---- flows with SAs of their own ----------------------------------------------------------


def fine_plan(granularity: int = Granularity.IP, rules: int = 1, standing: int = 0) -> Planned:
    """A rule of peer 1, whose flows have SAs of their own; `standing`: how many have."""
    made = plan(rules=rules)
    whole = FlowChild(numbers.flow_name("peer-1-rule-1", "00000000"), ("10.1.0.0/16",), ("10.2.0.0/16",))
    own = (bytes([10, 1, 0, 1]),) if granularity == Granularity.LOCAL_SERVICES else ()
    split = Fine(granularity, "", "", 0, (0, 0), (0, 0), own, whole, (reqid(1, 1), reqid(1, 1) + 50))
    child = replace(made.children["peer-1-rule-1"], fine=split)
    children = {**made.children, child.name: child}
    settings = {"remote_addrs": ["192.0.2.1"], "children": {name: {"mode": "tunnel"} for name in children}}
    connection = Connection("peer-1", 1, settings, tuple(children.values()))
    flows = {f"flow {n}": Tunnel(f"flow {n}", b"", b"", 1, 50, reqid=n) for n in range(standing)}
    return Planned(1, {"peer-1": connection}, children, environment=Environment(flows={child.name: flows}))


def packet(last: int, source: int = 5) -> Selector:
    here, there = bytes([10, 1, 0, source]), bytes([10, 2, 0, last])
    return Selector(host(here), host(there), 6, one_port(40000), one_port(443))


def fine(world: World, made: Planned | None = None) -> Peers:
    peers = world.peers()
    peers.planned(made or fine_plan(), {1})
    return peers


def test_each_flow_is_begun_by_its_own_packet_one_after_the_other() -> None:
    world = World()
    peers = fine(world)
    for last in (7, 8, 7, 8):
        peers.acquire(reqid(1, 1), packet(last))
    (begun,) = world.begun
    assert begun[1:] == ("peer-1", "traffic") and numbers.rule_child(begun[0]) == "peer-1-rule-1"
    narrowed: Any = peers.narrowed(begun[0], "peer-1")
    assert narrowed["children"][begun[0]] == {
        "mode": "tunnel",
        "local_ts": ["10.1.0.5/32"],
        "remote_ts": ["10.2.0.7/32"],
    }
    world.standing.add((1, begun[0]))
    peers.initiated(1, begun[0], "")
    peers.tunnels(1, True)
    assert len(world.begun) == 2
    second: Any = peers.narrowed(world.begun[1][0], "peer-1")
    assert second["children"][world.begun[1][0]]["remote_ts"] == ["10.2.0.8/32"]
    peers.acquire(reqid(1, 1) + 50, packet(7))
    assert len(world.begun) == 2


def test_what_is_not_fine_needs_no_settings_beside_the_loaded_ones() -> None:
    world = World()
    peers = fine(world, fine_plan(rules=2))
    peers.acquire(reqid(1, 2), packet(7))
    assert world.children() == ["peer-1-rule-2"]
    assert peers.narrowed("peer-1-rule-2", "peer-1") is None


def test_nothing_is_begun_of_flows_without_a_packet() -> None:
    world = World()
    peers = world.peers()
    peers.configured(1, Settings(always_up=True))
    peers.planned(fine_plan(rules=2), {1})
    peers.tick()
    assert world.children() == ["peer-1-rule-2"]


def test_who_dials_a_peer_whose_sas_all_wait_for_packets_is_told_so() -> None:
    world = World()
    fine(world).dial(1, DIALED)
    assert not world.begun and world.failures == [BY_PACKETS]
    other = World()
    fine(other, fine_plan(Granularity.LOCAL_SERVICES)).dial(1, DIALED)
    assert other.begun and not other.failures


def test_of_local_services_the_rules_own_sa_is_begun_and_kept_up() -> None:
    world = World()
    peers = world.peers()
    peers.configured(1, Settings(always_up=True))
    made = fine_plan(Granularity.LOCAL_SERVICES)
    whole = numbers.flow_name("peer-1-rule-1", "00000000")
    peers.planned(made, {1})
    peers.tick()
    assert world.children() == [whole]
    narrowed: Any = peers.narrowed(whole, "peer-1")
    assert narrowed["children"][whole]["remote_ts"] == ["10.2.0.0/16"]
    world.standing.add((1, whole))
    peers.initiated(1, whole, "")
    peers.tunnels(1, True)
    world.now += RETRY_SECONDS + 1
    peers.tick()
    assert world.children() == [whole]


def test_of_too_many_flows_the_rest_shares_one_and_that_is_told_once() -> None:
    world = World()
    peers = fine(world, fine_plan(standing=MOST_FLOWS))
    for last in (7, 8, 9):
        peers.acquire(reqid(1, 1), packet(last))
    assert world.children() == [numbers.flow_name("peer-1-rule-1", "00000000")]
    assert world.crowds == [(1, 1, MOST_FLOWS)]
    peers.planned(fine_plan(standing=MOST_FLOWS - 1), {1})
    peers.acquire(reqid(1, 1), packet(7))
    peers.planned(fine_plan(standing=MOST_FLOWS), {1})
    peers.acquire(reqid(1, 1), packet(8))
    assert world.crowds == [(1, 1, MOST_FLOWS)] * 2


def test_a_flow_of_a_rule_that_is_gone_is_not_begun() -> None:
    world = World()
    peers = fine(world)
    peers.acquire(reqid(1, 1), packet(7))
    peers.planned(plan(rules=0), {1})
    assert peers.narrowed(world.begun[0][0], "peer-1") is None
