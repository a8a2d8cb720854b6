"""Where the companions of a protect rule have their place.

A companion lets plain packets pass, so it must not decide before a protect rule that wants
the same packets: at a hub what came from one spoke would leave for another in plain. The
best place is behind all rules of all peers. But a drop rule that follows in the list must
not take the packets of the tunnel either (`protect A-B; drop the rest`): then the place is
just before that rule, unless a protect rule that overlaps comes still later; there the
companion stays behind it, and the drop rule between them decides.

A drop rule counts when it would take the companion's packets as the companion sees them:
a companion that overlaps only what the drop rule says of the other direction gives way to
it. While no peer has a drop rule there is nothing to look for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from agent.plan import numbers
from agent.plan.model import Direction
from agent.plan.selectors import Bits, Overlaps, bits, reversed_selector
from agent.plan.spd import Companions, Rule, RuleAction, RuleDirection

OUT, FWD = Direction.OUT, Direction.FWD
REMEMBERED: Final = 64  # plans that can be gone back to

Instance = tuple[int, int]  # (owner of the list, rule)


class Entry(NamedTuple):
    """A rule in the list of a peer, at its label."""

    instance: Instance
    rule: Rule
    label: int


def priority_before(label: int, *, blocking: bool) -> int:
    """Just before the rule with this label."""
    place = numbers.PLACE_COMPANION_BLOCKING if blocking else numbers.PLACE_COMPANION
    return numbers.PRIORITY_PEERS + numbers.PLACE_WIDTH * label + place


def priority_behind_all(*, blocking: bool) -> int:
    return numbers.PRIORITY_COMPANIONS_BLOCKING if blocking else numbers.PRIORITY_COMPANIONS


class Placing:
    """All protect and drop rules of the peers' lists, to be searched by what they overlap.

    It is changed in place while plans follow each other; `rewind` takes it back to an earlier one.
    """

    def __init__(self) -> None:
        self._protects: Overlaps[Instance] = Overlaps()
        self._companions: Overlaps[Instance] = Overlaps()
        self._alike: Overlaps[Instance] = Overlaps()  # drop rules by the selector that looks the companion's way
        self._opposite: Overlaps[Instance] = Overlaps()  # … by the other one
        self._path: list[tuple[object, list[tuple[bool, Entry]]]] = []

    # ---- keeping it -------------------------------------------------------------------

    def begin(self, token: object) -> None:
        """What follows belongs to the plan with this token."""
        self._path.append((token, []))
        del self._path[: -REMEMBERED - 1]

    def rewind(self, token: object) -> bool:
        """Undo what was done since that plan; False when it is not known."""
        if not any(known is token for known, _ in self._path):
            return False
        while self._path[-1][0] is not token:
            _, steps = self._path.pop()
            for added, entry in reversed(steps):
                self._step(not added, entry)
        return True

    def add(self, entry: Entry) -> None:
        self._path[-1][1].append((True, entry))
        self._step(True, entry)

    def remove(self, entry: Entry) -> None:
        self._path[-1][1].append((False, entry))
        self._step(False, entry)

    def _step(self, adding: bool, entry: Entry) -> None:
        instance, rule, label = entry
        for index, direction, under in _places(self, rule):
            if adding:
                index.add(direction, under, instance, label)
            else:
                index.remove(direction, under, instance)

    # ---- asking -----------------------------------------------------------------------

    def companions(self, entry: Entry, *, blocking: bool) -> Companions:
        """Priorities of the companions of a protect rule."""
        outward = bits(entry.rule.outward)
        inward = bits(reversed_selector(entry.rule.outward))
        return Companions(
            self._place(FWD, outward, entry.label, blocking), self._place(OUT, inward, entry.label, blocking)
        )

    def _place(self, direction: Direction, companion: Bits, label: int, blocking: bool) -> int:
        if self._next_drop(direction, companion, label) is not None:
            last = max(label, self._protects.last(direction, companion))
            drop = self._next_drop(direction, companion, last)
            if drop is not None:
                return priority_before(drop, blocking=blocking)
        return priority_behind_all(blocking=blocking)

    def _next_drop(self, direction: Direction, companion: Bits, after: int) -> int | None:
        alike = self._alike.first_after(direction, companion, after)
        covering = self._opposite.first_after(direction, companion, after, covering=True)
        return min((label for label in (alike, covering) if label is not None), default=None)

    def concerned(self, rule: Rule) -> Iterator[Instance]:
        """Protect rules whose companions overlap a rule that came, went or moved; maybe the same one twice."""
        for index, direction, under in _places(self, rule):
            if index is not self._companions:
                yield from self._companions.overlapping(direction, under, covered=index is self._opposite)


def _places(placing: Placing, rule: Rule) -> Iterator[tuple[Overlaps[Instance], Direction, Bits]]:
    """Under which selectors a rule is kept, and where."""
    if rule.problem:
        return
    if rule.action == RuleAction.PROTECT:
        outward = bits(rule.outward)
        inward = bits(reversed_selector(rule.outward))
        yield placing._protects, OUT, outward
        yield placing._protects, FWD, inward
        yield placing._companions, FWD, outward
        yield placing._companions, OUT, inward
    elif rule.action == RuleAction.DROP:
        outward = bits(rule.outward)
        inward = bits(reversed_selector(rule.outward))
        if rule.direction != RuleDirection.INBOUND:
            yield placing._alike, FWD, outward
            yield placing._opposite, OUT, outward
        if rule.direction != RuleDirection.OUTBOUND:
            yield placing._alike, OUT, inward
            yield placing._opposite, FWD, inward
