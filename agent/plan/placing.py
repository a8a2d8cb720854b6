"""Where the companions of a rule have their place.

A companion only lets a forwarded packet pass the stage at which its rule does not decide,
so it must not decide before a rule that does: at a hub, what came from one spoke would
leave for another in plain. So companions come behind all rules of all peers, in the order
of their rules. There a drop rule that takes everything would have them (`protect A-B; drop
the rest`) although it comes later in the list; a companion all of whose packets such a rule
takes has its place just before it instead. Unless a protect rule that overlaps comes still
later: then the companion stays behind that one, and the drop rule between them decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from agent.plan import numbers
from agent.plan.model import Direction, Selector
from agent.plan.selectors import Bits, Overlaps, bits, came_by, leaves_by, reversed_selector
from agent.plan.spd import Companions
from agent.plan.traffic import Rule, RuleAction, RuleDirection

OUT, FWD = Direction.OUT, Direction.FWD
REMEMBERED: Final = 64  # plans that can be gone back to

Instance = tuple[int, int]  # (owner of the list, rule)
Piece = tuple[Instance, int]  # a part of a rule, by its place

# A range is made of prefixes so that every prefix within the range lies within one of them. So whether a rule takes all
# packets of a part of another is told by the parts, one by one.


class Entry(NamedTuple):
    """A rule in the list of a peer, at its label."""

    instance: Instance
    rule: Rule
    label: int


def behind_all(label: int) -> Companions:
    """The usual place of the companions of the rule with this label."""
    priority = numbers.PRIORITY_COMPANIONS + numbers.PLACE_WIDTH * label
    return Companions(priority, priority)


def _just_before(label: int) -> int:
    return numbers.PRIORITY_PEERS + numbers.PLACE_WIDTH * label + numbers.PLACE_COMPANION


def both_ways(rule: Rule, part: Selector) -> tuple[Bits, Bits]:
    """What a part of a rule matches outward and inward."""
    return bits(part, leaves_by(rule.interface)), bits(reversed_selector(part), came_by(rule.interface))


class Placing:
    """The rules of the peers' lists, to be searched by what they overlap.

    It is changed in place while plans follow each other; `rewind` takes it back to an earlier one.
    """

    def __init__(self) -> None:
        self._protects: Overlaps[Piece] = Overlaps()
        self._companions: Overlaps[Piece] = Overlaps()
        self._drops: Overlaps[Piece] = Overlaps()
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
        for index, direction, under, place in _places(self, rule):
            if adding:
                index.add(direction, under, (instance, place), label)
            else:
                index.remove(direction, under, (instance, place))

    # ---- asking -----------------------------------------------------------------------

    def companions(self, entry: Entry) -> tuple[Companions, ...]:
        """Priorities of the companions of a rule, for each of its parts."""
        usual = behind_all(entry.label)
        if not len(self._drops) or entry.rule.action == RuleAction.DROP:
            return (usual,) * len(entry.rule.parts)
        return tuple(
            Companions(
                self._place(FWD, outward, entry.label, usual.fwd), self._place(OUT, inward, entry.label, usual.out)
            )
            for outward, inward in (both_ways(entry.rule, part) for part in entry.rule.parts)
        )

    def _place(self, direction: Direction, companion: Bits, label: int, usual: int) -> int:
        if self._drops.first_after(direction, companion, label, covering=True) is None:
            return usual
        last = max(label, self._protects.last(direction, companion))
        drop = self._drops.first_after(direction, companion, last, covering=True)
        return usual if drop is None else _just_before(drop)

    def concerned(self, rule: Rule) -> Iterator[Instance]:
        """Rules whose companions may have to move when this one comes, goes or moves; maybe the same one twice."""
        for index, direction, under, _ in _places(self, rule):
            if index is self._protects:
                yield from (instance for instance, _ in self._companions.overlapping(direction, under))
            elif index is self._drops:
                yield from (instance for instance, _ in self._companions.overlapping(direction, under, covered=True))


def _places(placing: Placing, rule: Rule) -> Iterator[tuple[Overlaps[Piece], Direction, Bits, int]]:
    """Under which selectors each part of a rule is kept, and where."""
    if rule.problem or rule.action == RuleAction.ALWAYS_PLAIN:
        return
    for place, part in enumerate(rule.parts):
        outward, inward = both_ways(rule, part)
        if rule.action == RuleAction.DROP:
            if rule.direction != RuleDirection.INBOUND:
                yield placing._drops, OUT, outward, place
            if rule.direction != RuleDirection.OUTBOUND:
                yield placing._drops, FWD, inward, place
            continue
        yield placing._companions, FWD, outward, place
        yield placing._companions, OUT, inward, place
        if rule.action == RuleAction.PROTECT:
            yield placing._protects, OUT, outward, place
            yield placing._protects, FWD, inward, place
