"""The lists of rules: heads, next links, and what of a list stays when a link is changed.

A list may share its end with another, and a rule may be in many. After a change only the
links that changed are followed one by one; between them the old list is taken over in
stretches, so that a list of 10,000 rules costs no more than copying it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection
from typing import Final, NamedTuple

PRE: Final = -1  # owners of lists beside the peers, who have positive numbers
POST: Final = -2


class Chain(NamedTuple):
    """A list: its rules in order, their labels, and the number at which it breaks off because no row is there (0: it
    ends as it should)."""

    rules: tuple[int, ...] = ()
    labels: tuple[int, ...] = ()
    broken: int = 0


EMPTY: Final = Chain()

Follow = Callable[[int], int | None]
"""The number of the next rule, 0 at the end; None when there is no such rule."""

SINGLY: Final = 8  # with more changed links than this the list is followed from its head


def follow(head: int, following: Follow) -> tuple[tuple[int, ...], int]:
    """(rules, where it breaks off) of the list that begins at `head`. A ring ends before it repeats."""
    rules: list[int] = []
    seen = set[int]()
    while head and head not in seen:
        after = following(head)
        if after is None:
            return tuple(rules), head
        seen.add(head)
        rules.append(head)
        head = after
    return tuple(rules), 0


def follow_again(head: int, following: Follow, old: Chain, changed: Collection[int]) -> tuple[tuple[int, ...], int]:
    """As `follow`, where only the links of `changed` differ from when `old` was made."""
    if not old.rules or len(changed) > SINGLY:
        return follow(head, following)
    places = sorted(_place(old.rules, rule) for rule in changed if rule in old.rules)
    rules: list[int] = []
    seen = set[int]()
    while head:
        if head in seen:
            return follow(head if not rules else rules[0], following)  # a ring: slowly and surely
        seen.add(head)
        place = _place(old.rules, head)
        if place < 0:
            after = following(head)
            if after is None:
                return tuple(rules), head
            rules.append(head)
            head = after
            continue
        where = bisect_left(places, place)
        if where == len(places):  # the rest; where the old list broke off there may be a rule now
            rules += old.rules[place:]
            head = following(rules[-1]) or 0
            continue
        last = places[where]
        rules += old.rules[place:last]
        after = following(old.rules[last])
        if after is None:
            return tuple(rules), old.rules[last]
        rules.append(old.rules[last])
        seen.add(old.rules[last])
        head = after
    return tuple(rules), 0


def _place(rules: tuple[int, ...], rule: int) -> int:
    try:
        return rules.index(rule)
    except ValueError:
        return -1


class Splice(NamedTuple):
    """Two lists are alike before `start` and in their last `tail` rules."""

    start: int
    tail: int


def compare(old: tuple[int, ...], new: tuple[int, ...]) -> Splice:
    """Where two lists differ."""
    shorter = min(len(old), len(new))
    start = _alike(shorter, lambda count: old[:count] == new[:count])
    rest = shorter - start
    tail = _alike(rest, lambda count: old[len(old) - count :] == new[len(new) - count :])
    return Splice(start, tail)


def _alike(most: int, holds: Callable[[int], bool]) -> int:
    """The greatest count up to `most` for which it holds, as it does for all smaller ones."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if holds(middle):
            low = middle
        else:
            high = middle - 1
    return low
