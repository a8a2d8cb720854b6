"""What follows from peers' states: what their interfaces show, who stands for whom, which address is next."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from agent.backends.peer_states import PeerStates
from agent.mib.ber import Value
from agent.plan.links import Standing
from agent.store.events import Event, Kind, Severity
from tests.plan_helpers import DictRow

UP, DOWN, BLOCKED, FAILED = Kind.PEER_UP, Kind.PEER_DOWN, Kind.PEER_BLOCKED, Kind.NEGOTIATION_FAILED


class Timer:
    def __init__(self, seconds: float, call: Callable[[], None]) -> None:
        self.seconds, self.call, self.cancelled = seconds, call, False

    def cancel(self) -> None:
        self.cancelled = True


class Bench:
    """`shown`: by peer; `missed`: (peer, name); `stood`: what was told last; `dialed`: peers."""

    def __init__(self) -> None:
        self.shown: dict[int, Standing | None] = {}
        self.missed: list[tuple[int, str]] = []
        self.stood: Mapping[int, int] = {}
        self.dialed: list[int] = []
        self.timers: list[Timer] = []
        self.begin({})

    def begin(self, held: Mapping[int, int]) -> None:
        """`held`: who stood for whom when the agent before went."""
        self.states = PeerStates(
            self.shown.__setitem__, lambda peer, name: self.missed.append((peer, name)), self._stood, self._later, held
        )
        self.states.on_takeover(self.dialed.append)

    def _stood(self, takeovers: Mapping[int, int]) -> None:
        self.stood = takeovers

    def _later(self, seconds: float, call: Callable[[], None]) -> Timer:
        self.timers.append(Timer(seconds, call))
        return self.timers[-1]

    def peer(self, number: int, **cells: Value) -> None:
        self.states.configured(number, row(number, **cells))

    def tell(self, kind: Kind, peer: int = 7) -> None:
        self.states.event(Event(kind, Severity.NOTICE, "", peer))


def row(number: int, **cells: Value) -> DictRow:
    columns: dict[str, Value] = {"ipsecPeerStartMode": 2, **{f"ipsecPeer{name}": v for name, v in cells.items()}}
    return DictRow("ipsecPeerTable", number, columns)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_an_interface_shows_dormant_up_and_blocked(bench: Bench) -> None:
    """ipsecPeerIfStateMode full, of an always-up peer."""
    bench.peer(7, VirtualInterface=2)
    assert bench.shown == {7: Standing.DORMANT}
    for kind, shown in ((UP, Standing.UP), (DOWN, Standing.DORMANT), (BLOCKED, Standing.DOWN), (UP, Standing.UP)):
        bench.tell(kind)
        assert bench.shown[7] is shown


def test_reduced_is_up_or_down(bench: Bench) -> None:
    bench.peer(7, VirtualInterface=2, IfStateMode=2)
    assert bench.shown[7] is Standing.DOWN
    for kind, shown in ((UP, None), (DOWN, Standing.DOWN), (BLOCKED, Standing.DOWN)):
        bench.tell(kind)
        assert bench.shown[7] is shown


def test_on_demand_an_interface_is_simply_up(bench: Bench) -> None:
    """Else no packet would ever ask for the tunnel."""
    bench.peer(7, VirtualInterface=2, StartMode=1)
    bench.tell(BLOCKED)
    assert bench.shown == {7: None}


def test_peers_without_interface_show_nothing(bench: Bench) -> None:
    bench.peer(7)
    bench.tell(UP)
    assert 7 not in bench.shown or bench.shown[7] is None


@pytest.mark.parametrize("kind", [DOWN, BLOCKED, FAILED])
def test_the_backup_stands_for_a_peer_that_is_lost(bench: Bench, kind: Kind) -> None:
    """ipsecPeerSecondaryPeerIndex: at down or blocked the backup is dialled and has the traffic."""
    bench.peer(7, SecondaryPeerIndex=9, IfStateMode=2)
    bench.tell(kind)
    bench.tell(kind)
    assert bench.stood == {7: 9} and bench.dialed == [9]


def test_the_primary_gets_its_traffic_back_after_the_delay(bench: Bench) -> None:
    """ipsecPeerDelayBackToPrimary; lost again meanwhile, it has to begin anew."""
    bench.peer(7, SecondaryPeerIndex=9, IfStateMode=2, DelayBackToPrimary=30)
    bench.tell(DOWN)
    bench.tell(UP)
    assert bench.stood == {7: 9} and bench.timers[0].seconds == 30
    bench.tell(DOWN)
    assert bench.timers[0].cancelled and bench.stood == {7: 9}
    bench.tell(UP)
    bench.timers[1].call()
    assert bench.stood == {}
    bench.tell(DOWN)
    assert bench.stood == {7: 9}


def test_another_failed_tunnel_of_a_peer_that_is_up_is_no_loss(bench: Bench) -> None:
    bench.peer(7, SecondaryPeerIndex=9, IfStateMode=2)
    bench.tell(UP)
    bench.tell(FAILED)
    assert bench.stood == {}


def test_nobody_stands_for_a_peer_that_is_switched_off_or_has_no_backup_any_more(bench: Bench) -> None:
    bench.peer(7, SecondaryPeerIndex=9, IfStateMode=2, AdminStatus=2)
    bench.tell(DOWN)
    assert bench.stood == {}
    bench.peer(7, SecondaryPeerIndex=9, IfStateMode=2)
    bench.tell(DOWN)
    assert bench.stood == {7: 9}
    bench.peer(7, SecondaryPeerIndex=0)
    assert bench.stood == {}
    bench.peer(7, SecondaryPeerIndex=9, IfStateMode=2)
    bench.tell(DOWN)
    bench.states.configured(7, None)
    assert bench.stood == {}


def chain(bench: Bench, *peers: int) -> None:
    """Each is the backup of the one before."""
    for number, backup in zip(peers, (*peers[1:], 0), strict=True):
        bench.peer(number, SecondaryPeerIndex=backup, IfStateMode=2)


def test_the_backup_of_a_lost_backup_stands_for_both(bench: Bench) -> None:
    chain(bench, 7, 8, 9)
    bench.tell(DOWN, 7)
    assert bench.stood == {7: 8} and bench.dialed == [8]
    bench.tell(FAILED, 8)
    assert bench.stood == {7: 9, 8: 9} and bench.dialed == [8, 9]
    bench.tell(UP, 8)
    bench.timers[0].call()
    assert bench.stood == {7: 8}
    bench.tell(UP, 7)
    bench.timers[1].call()
    assert bench.stood == {}


def test_a_backup_that_is_lost_already_is_passed_over(bench: Bench) -> None:
    chain(bench, 7, 8, 9)
    bench.tell(DOWN, 8)
    bench.tell(DOWN, 7)
    assert bench.stood == {7: 9, 8: 9}


def test_a_backup_that_is_switched_off_is_passed_over(bench: Bench) -> None:
    """Nobody stands for it, but its own backup can for the one before."""
    chain(bench, 7, 8, 9)
    bench.tell(DOWN, 7)
    bench.peer(8, SecondaryPeerIndex=9, IfStateMode=2, AdminStatus=2)
    bench.tell(DOWN, 8)
    assert bench.stood == {7: 9} and bench.dialed == [8, 9]
    bench.peer(8, SecondaryPeerIndex=9, IfStateMode=2)
    assert bench.stood == {7: 8}
    bench.peer(8, SecondaryPeerIndex=0, AdminStatus=2)
    assert bench.stood == {7: 8}  # there is nobody behind it


def test_the_next_agent_goes_on_where_the_one_before_was(bench: Bench) -> None:
    """Before its first plan: what went through the backup's tunnel goes on."""
    rows = [row(7, SecondaryPeerIndex=8, IfStateMode=2), row(8, SecondaryPeerIndex=9, IfStateMode=2), row(9)]
    bench.begin({7: 8, 8: 9})
    bench.states.replayed(rows)
    assert bench.stood == {7: 9, 8: 9} == bench.states.standing and bench.states.takeovers == {7: 8, 8: 9}
    bench.tell(FAILED, 7)
    assert bench.stood == {7: 9, 8: 9}
    bench.tell(UP, 7)
    bench.timers[0].call()
    assert bench.stood == {8: 9}


@pytest.mark.parametrize(
    "cells", [None, {"SecondaryPeerIndex": 8}, {"SecondaryPeerIndex": 9, "AdminStatus": 2}, {"SecondaryPeerIndex": 0}]
)
def test_what_is_no_longer_configured_is_not_gone_on_with(bench: Bench, cells: dict[str, Value] | None) -> None:
    bench.begin({7: 9})
    bench.states.replayed([row(9), *([row(7, **cells)] if cells is not None else [])])
    assert bench.stood == {} == bench.states.standing == bench.states.takeovers


def test_a_failed_attempt_is_told_with_the_name(bench: Bench) -> None:
    """ipsecGlobContDnsSelectRoundRobin: the next attempt goes to the next address."""
    bench.peer(7, DynamicAddress=b"far.example.org")
    bench.tell(FAILED)
    assert bench.missed == [(7, "far.example.org")]
    bench.tell(FAILED, 8)
    assert len(bench.missed) == 1
