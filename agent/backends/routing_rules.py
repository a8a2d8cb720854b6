"""Where our routing rules stand among each other: which preference each has.

The kernel asks rules by preference, so the order in which they are wanted is an order of
numbers. Each of those that lead to virtual interfaces has a number of its own: a request to
remove a rule names what the rule has, and one that has less would be met by it too, were it at the
same place. Those that are there keep their place where the order allows. Source: ip-rule(8),
net/core/fib_rules.c.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from agent.backends.rtnetlink import RuleSeen
from agent.plan.links import MAIN_TABLE, RoutingRule
from agent.plan.numbers import MOST_RULES, RULE_PREFERENCE_FIRST, RULE_PREFERENCE_LAST, RULE_PREFERENCE_OUTSIDE

STRIDE: Final = 16  # distance of neighbours at first: fifteen come in between before any is moved
NO_ROOM: Final = f"more than {MOST_RULES} selectors lead to virtual interfaces"


def placed(wanted: Iterable[RoutingRule], held: Collection[RuleSeen]) -> list[RuleSeen]:
    """The wanted rules with their preferences, which rise in this order; of those that lead to interfaces the
    first MOST_RULES. Numbers of rules that are held and not wanted are left free."""
    rules = list(wanted)
    outside = [RuleSeen(RULE_PREFERENCE_OUTSIDE, rule) for rule in rules if rule.table == MAIN_TABLE]
    leading = [rule for rule in rules if rule.table != MAIN_TABLE][:MOST_RULES]
    numbers = {
        seen.rule: seen.preference
        for seen in sorted(held, reverse=True)
        if RULE_PREFERENCE_FIRST <= seen.preference <= RULE_PREFERENCE_LAST
    }
    taken = {seen.preference for seen in held}
    staying = rising([(place, numbers[rule]) for place, rule in enumerate(leading) if rule in numbers])
    found: list[RuleSeen] = []
    place, floor = 0, RULE_PREFERENCE_FIRST - 1
    for next_place, number in (*staying, (len(leading), RULE_PREFERENCE_LAST + 1)):
        coming = leading[place:next_place]
        free = [each for each in range(floor + 1, number) if each not in taken] if coming else []
        if len(free) < len(coming):
            return outside + _anew(leading, taken)
        stride = min(STRIDE, len(free) // (len(coming) + 1)) or 1
        found += (RuleSeen(free[stride * (k + 1) - 1], rule) for k, rule in enumerate(coming))
        if next_place < len(leading):
            found.append(RuleSeen(number, leading[next_place]))
        place, floor = next_place + 1, number
    return outside + found


def _anew(rules: Sequence[RoutingRule], taken: Collection[int]) -> list[RuleSeen]:
    """All of them at new places."""
    free = [each for each in range(RULE_PREFERENCE_FIRST, RULE_PREFERENCE_LAST + 1) if each not in taken]
    stride = max(1, len(free) // (len(rules) + 1))
    return [RuleSeen(number, rule) for number, rule in zip(free[stride - 1 :: stride], rules, strict=False)]


def rising(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The longest part of a sequence of (place, number) in which the numbers rise; places rise already."""
    tails: list[int] = []
    ends: list[int] = []  # where the best part of each length ends
    before: list[int] = []
    for at, (_, number) in enumerate(pairs):
        length = bisect_left(tails, number)
        before.append(ends[length - 1] if length else -1)
        tails[length : length + 1] = [number]
        ends[length : length + 1] = [at]
    found = []
    at = ends[-1] if ends else -1
    while at >= 0:
        found.append(pairs[at])
        at = before[at]
    return found[::-1]
