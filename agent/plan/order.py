"""Labels that keep rules in order while others come and go between them.

The kernel looks at policies by priority, and a priority once given should stay: numbering
10,000 rules anew for one inserted rule would rewrite 50,000 policies. So neighbours begin
some distance apart, a rule that comes in between takes a number from the gap, and only when
a gap is full is the neighbourhood spread out, as far as it takes to make room.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

from agent.plan.numbers import LABEL_STEP, LABELS

START: Final = LABELS // 4  # the first label of all, so that there is room before it too
ROOM: Final = 8  # a neighbourhood is spread out when it then has this many numbers for each of its rules


def between(low: int, high: int, count: int) -> list[int] | None:
    """`count` labels above `low` and below `high` (-1 and LABELS: the open ends); None when they do not fit."""
    if high - low <= count:
        return None
    if low < 0 and high >= LABELS:
        step = max(1, min(LABEL_STEP, (LABELS - START) // (count + 1)))
        if START + step * count < LABELS:
            return [START + step * place for place in range(count)]
    elif high >= LABELS and low + LABEL_STEP * count < LABELS:
        return [low + LABEL_STEP * place for place in range(1, count + 1)]
    elif low < 0 and high - LABEL_STEP * count >= 0:
        return [high - LABEL_STEP * place for place in range(count, 0, -1)]
    width = high - low
    return [low + width * place // (count + 1) for place in range(1, count + 1)]


def assign(wanted: Sequence[int | None]) -> list[int]:
    """Labels, strictly increasing, for rules in their order, `wanted` being those they have (None: new).

    As many as possible are kept. Raises OverflowError when there are more rules than labels.
    """
    if len(wanted) > LABELS:
        raise OverflowError("more rules than priorities")
    labels: list[int | None] = list(wanted)
    _drop_disordered(labels)
    place = 0
    while place < len(labels):
        if labels[place] is not None:
            place += 1
            continue
        end = place
        while end < len(labels) and labels[end] is None:
            end += 1
        first, last = place, end
        found = _fill(labels, first, last)
        reach = 16
        while found is None:
            first, last = max(0, place - reach), min(len(labels), end + reach)
            while last < len(labels) and labels[last] is None:
                last += 1
            found = _fill(labels, first, last, ROOM if first or last < len(labels) else 1)
            reach *= 2
        labels[first:last] = found
        place = last
    return [label for label in labels if label is not None]


def _fill(labels: list[int | None], first: int, last: int, room: int = 1) -> list[int] | None:
    """Labels for the places first … last - 1 between their neighbours."""
    low = labels[first - 1] if first else -1
    high = labels[last] if last < len(labels) else LABELS
    assert low is not None and high is not None
    if high - low <= room * (last - first):
        return None
    return between(low, high, last - first)


def _drop_disordered(labels: list[int | None]) -> None:
    """Leave the longest increasing selection of the labels, the others become None."""
    known = [label for label in labels if label is not None]
    if all(a < b for a, b in itertools.pairwise(known)):
        return
    tails: list[int] = []  # smallest last label of an increasing selection of each length
    ends: list[int] = []  # place of that label
    before: dict[int, int] = {}
    for place, label in enumerate(labels):
        if label is None:
            continue
        length = bisect_left(tails, label)
        if length:
            before[place] = ends[length - 1]
        if length == len(tails):
            tails.append(label)
            ends.append(place)
        else:
            tails[length], ends[length] = label, place
    kept = set()
    place = ends[-1]
    kept.add(place)
    while place in before:
        place = before[place]
        kept.add(place)
    for place in range(len(labels)):
        if place not in kept:
            labels[place] = None
