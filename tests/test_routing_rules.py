"""Routing rules keep their places, and rise in the order in which they are wanted."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from agent.backends.routing_rules import placed, rising
from agent.backends.rtnetlink import RuleSeen
from agent.plan.links import MAIN_TABLE, RoutingRule
from agent.plan.model import Prefix
from agent.plan.numbers import MOST_RULES, RULE_PREFERENCE_FIRST, RULE_PREFERENCE_LAST, RULE_PREFERENCE_OUTSIDE

ANY = Prefix(bytes(4), 0)


def rule(number: int) -> RoutingRule:
    return RoutingRule(Prefix(number.to_bytes(4, "big"), 32), ANY, 100_007)


OUTSIDE = RoutingRule(ANY, ANY, MAIN_TABLE, 17, (500, 500), own=True)


@given(st.lists(st.lists(st.integers(0, 40), unique=True, max_size=12), max_size=12))
def test_after_every_change_they_rise_in_the_order_wanted(walk: list[list[int]]) -> None:
    held: list[RuleSeen] = []
    for step in walk:
        wanted = [OUTSIDE, *map(rule, step)]
        now = placed(wanted, held)
        assert [seen.rule for seen in now] == wanted
        assert now[0].preference == RULE_PREFERENCE_OUTSIDE
        preferences = [seen.preference for seen in now[1:]]
        assert preferences == sorted(set(preferences))
        assert all(RULE_PREFERENCE_FIRST <= each <= RULE_PREFERENCE_LAST for each in preferences)
        gone = {seen.preference for seen in held if seen.rule not in wanted}
        assert gone.isdisjoint(preferences)  # a request to remove one of these meets nothing else
        assert placed(wanted, now) == now
        held = now


def test_what_is_there_stays_where_something_comes_between() -> None:
    held = placed(map(rule, (1, 3, 5)), ())
    now = placed(map(rule, range(7)), held)
    assert set(held) < set(now)
    assert len(set(placed(map(rule, (5, 1, 3)), held)) & set(held)) == 2  # one has to move


def test_where_there_is_no_gap_left_all_move() -> None:
    held = [RuleSeen(RULE_PREFERENCE_FIRST, rule(1)), RuleSeen(RULE_PREFERENCE_FIRST + 1, rule(3))]
    now = placed(map(rule, (1, 2, 3)), held)
    assert [seen.rule for seen in now] == [rule(1), rule(2), rule(3)]
    assert not {seen.preference for seen in now} & {seen.preference for seen in held}


def test_there_is_room_for_so_many_whatever_was_there() -> None:
    held: list[RuleSeen] = []
    for first, last in ((0, 1000), (0, MOST_RULES), (MOST_RULES // 2, MOST_RULES + 900), (-5, MOST_RULES), (0, 9000)):
        wanted = [rule(number + 5) for number in range(first, last)]
        now = placed(wanted, held)
        assert [seen.rule for seen in now] == wanted[:MOST_RULES]
        assert placed(wanted, now) == now
        held = now


@given(st.lists(st.integers(0, 30), max_size=9))
def test_the_longest_rising_part(numbers: list[int]) -> None:
    pairs = list(enumerate(numbers))
    found = rising(pairs)
    assert set(found) <= set(pairs) and found == sorted(found)
    assert all(a < b for (_, a), (_, b) in pairwise(found))
    best = max(
        (
            sum(bits >> at & 1 for at in range(len(numbers)))
            for bits in range(1 << len(numbers))
            if (chosen := [n for at, n in enumerate(numbers) if bits >> at & 1]) == sorted(set(chosen))
        ),
        default=0,
    )
    assert len(found) == best
