"""Pacing of notifications: never more than allowed, and the last state is always told."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from agent.snmp.notify import pacing
from agent.snmp.notify.pacing import MINUTE, STATES, Pacer, Told, subject_of
from agent.store.events import Event, Kind, Severity


def happened(kind: Kind, peer: int = 0, text: str = "") -> Event:
    return Event(kind, Severity.INFO, text, peer)


UP, DOWN = happened(Kind.PEER_UP, 1), happened(Kind.PEER_DOWN, 1)


def test_the_first_is_told_at_once_and_equal_ones_wait() -> None:
    pacer = Pacer(pause=10)
    failed = [happened(Kind.NEGOTIATION_FAILED, 1, text) for text in ("no answer", "no answer", "wrong key")]
    assert pacer.offer(failed[0], 0) == [Told(failed[0], 0)]
    assert pacer.offer(failed[1], 2) == []
    assert pacer.offer(failed[2], 4) == []
    assert pacer.next_time() == 10
    assert pacer.due(9.9) == []
    assert pacer.due(10) == [Told(failed[2], 1)]
    assert pacer.paced == 1


def test_a_flapping_peer_is_told_of_twice_in_a_pause_and_then_how_it_is() -> None:
    pacer = Pacer(pause=10)
    told: list[tuple[float, Told]] = []
    for second in range(9):
        told += [(second, each) for each in pacer.offer(DOWN if second % 2 else UP, second)]
    assert told == [(0, Told(UP, 0)), (1, Told(DOWN, 0))]
    assert pacer.due(10) == [Told(UP, 6)]
    assert pacer.due(30) == [] and pacer.next_time() is None


def test_what_came_back_to_what_was_told_is_not_told_again_but_counted() -> None:
    pacer = Pacer(pause=10)
    pacer.offer(UP, 0)
    pacer.offer(DOWN, 1)
    pacer.offer(UP, 2)
    pacer.offer(DOWN, 3)
    assert pacer.due(11) == []
    assert pacer.paced == 2
    assert pacer.offer(UP, 50) == [Told(UP, 2)]


def test_another_peer_does_not_wait() -> None:
    pacer = Pacer(pause=10)
    pacer.offer(DOWN, 0)
    other = happened(Kind.PEER_DOWN, 2)
    assert pacer.offer(other, 0) == [Told(other, 0)]


def test_without_a_pause_everything_is_told() -> None:
    pacer = Pacer(pause=0)
    assert [pacer.offer(DOWN, now) for now in (1, 1, 2)] == [[Told(DOWN, 0)]] * 3


def test_beyond_the_minutes_number_others_are_summed_up_and_peers_told_later() -> None:
    pacer = Pacer(pause=0, most=3)
    rows = [Event(Kind.APPLY_FAILED, Severity.ERR, "no", row=("ipsecTrafficTable", n)) for n in range(10)]
    told = [each for event in rows for each in pacer.offer(event, 1)]
    assert told == [Told(event, 0) for event in rows[:3]]
    assert pacer.offer(DOWN, 2) == []
    assert pacer.next_time() == 1 + MINUTE
    assert pacer.due(1 + MINUTE) == [Told(rows[9], 6), Told(DOWN, 0)]


def test_a_flood_of_subjects_is_bounded() -> None:
    pacer = Pacer(pause=10, most=1)
    for peer in range(2 * pacing.SUBJECTS):
        pacer.offer(happened(Kind.PEER_DOWN, peer), 0)
    assert len(pacer._records) == len(pacer._crowd) + 0 == pacing.SUBJECTS
    assert pacer.paced == pacing.SUBJECTS - 1


steps = st.lists(
    st.tuples(
        st.floats(0, 30),
        st.sampled_from([*STATES, Kind.NEGOTIATION_FAILED, Kind.CONFIGURATION_CHANGED, Kind.APPLY_FAILED]),
        st.integers(1, 3),
        st.sampled_from(["", "another reason"]),
    ),
    max_size=80,
)


@given(steps, st.sampled_from([0.0, 1.0, 10.0, 100.0]), st.sampled_from([1, 2, 5, 120]))
def test_never_more_than_allowed_and_the_last_state_is_always_told(
    steps: list[tuple[float, Kind, int, str]], pause: float, most: int
) -> None:
    pacer = Pacer(pause, most)
    now = 0.0
    told: list[tuple[float, Told]] = []
    offered: list[Event] = []

    def until(end: float) -> None:
        """As a loop with a timer does it."""
        nonlocal now
        while (at := pacer.next_time()) is not None and at <= end:
            now = max(now, at)
            told.extend((now, each) for each in pacer.due(now))
        now = max(now, end)

    for wait, kind, peer, text in steps:
        until(now + wait)
        offered.append(happened(kind, peer, text))
        told.extend((now, each) for each in pacer.offer(offered[-1], now))
    until(now + 1e6)
    assert pacer.next_time() is None

    times = [at for at, _ in told]
    assert times == sorted(times)
    for at in times:
        assert sum(other <= at < other + MINUTE for other in times) <= most
    if most == 120:  # else sums of several subjects of one kind are told when there is room
        by_key: dict[object, float] = {}
        for at, (event, _) in told:
            key = (event.kind, subject_of(event))
            assert at >= by_key.get(key, float("-inf")) + pause
            by_key[key] = at
    last_offered = {event.peer: event for event in offered if event.kind in STATES}
    last_told = {event.peer: event for _, (event, _) in told if event.kind in STATES}
    assert last_told == last_offered
    assert {event.kind for event in offered} - STATES == {event.kind for _, (event, _) in told} - STATES
    assert len(offered) == len(told) + pacer.paced
    counted = Counter(event.kind for event in offered)
    for kind in counted:
        if kind not in STATES:
            mine = [each for _, each in told if each.event.kind is kind]
            assert len(mine) + sum(each.held_back for each in mine) <= counted[kind]
