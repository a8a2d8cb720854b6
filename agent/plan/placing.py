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


def behind_all(label: int) -> Companions:
    """The usual place of the companions of the rule with this label."""
    priority = numbers.PRIORITY_COMPANIONS + numbers.PLACE_WIDTH * label
    return Companions(priority, priority)


def _just_before(label: int) -> int:
    return numbers.PRIORITY_PEERS + numbers.PLACE_WIDTH * label + numbers.PLACE_COMPANION


class Placing:
    """The rules of the peers' lists, to be searched by what they overlap.

    It is changed in place while plans follow each other; `rewind` takes it back to an earlier one.
    """

    def __init__(self) -> None:
        self._protects: Overlaps[Instance] = Overlaps()
        self._companions: Overlaps[Instance] = Overlaps()
        self._drops: Overlaps[Instance] = Overlaps()
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

    def companions(self, entry: Entry) -> Companions:
        """Priorities of the companions of a rule."""
        usual = behind_all(entry.label)
        if not len(self._drops) or entry.rule.action == RuleAction.DROP:
            return usual
        outward = bits(entry.rule.outward)
        inward = bits(reversed_selector(entry.rule.outward))
        return Companions(
            self._place(FWD, outward, entry.label, usual.fwd), self._place(OUT, inward, entry.label, usual.out)
        )

    def _place(self, direction: Direction, companion: Bits, label: int, usual: int) -> int:
        if self._drops.first_after(direction, companion, label, covering=True) is None:
            return usual
        last = max(label, self._protects.last(direction, companion))
        drop = self._drops.first_after(direction, companion, last, covering=True)
        return usual if drop is None else _just_before(drop)

    def concerned(self, rule: Rule) -> Iterator[Instance]:
        """Rules whose companions may have to move when this one comes, goes or moves; maybe the same one twice."""
        for index, direction, under in _places(self, rule):
            if index is self._protects:
                yield from self._companions.overlapping(direction, under)
            elif index is self._drops:
                yield from self._companions.overlapping(direction, under, covered=True)


def _places(placing: Placing, rule: Rule) -> Iterator[tuple[Overlaps[Instance], Direction, Bits]]:
    """Under which selectors a rule is kept, and where."""
    if rule.problem or rule.action == RuleAction.ALWAYS_PLAIN:
        return
    outward = bits(rule.outward)
    inward = bits(reversed_selector(rule.outward))
    if rule.action == RuleAction.DROP:
        if rule.direction != RuleDirection.INBOUND:
            yield placing._drops, OUT, outward
        if rule.direction != RuleDirection.OUTBOUND:
            yield placing._drops, FWD, inward
        return
    yield placing._companions, FWD, outward
    yield placing._companions, OUT, inward
    if rule.action == RuleAction.PROTECT:
        yield placing._protects, OUT, outward
        yield placing._protects, FWD, inward
