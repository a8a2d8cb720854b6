"""Who gets a key: the kernel holds one policy per direction and selector, and several rules may want it.

Of those the one that would be looked at first has it; to the others that makes no
difference, since they would never have decided. They wait, and one of them moves up when
the holder goes.
"""

from __future__ import annotations

from bisect import bisect_left, insort

from agent.plan.layered import Edit, Layered
from agent.plan.model import Policy, PolicyKey
from agent.plan.spd import TRAFFIC
from agent.plan.state import Todo


class Claims:
    """`policies`: those that have their key. Whose a policy is, is told by the object: one rule may be in several
    lists."""

    def __init__(
        self, policies: Edit[PolicyKey, Policy], contested: Layered[PolicyKey, tuple[Policy, ...]], todo: Todo
    ) -> None:
        self.policies = policies
        self._contested = contested.edit()
        self._rivals: dict[PolicyKey, list[Policy]] = {}  # of contested keys touched, in order
        self._todo = todo

    def offer(self, policy: Policy, instead: Policy | None = None) -> None:
        """This policy is wanted, instead of another of the same rule and list with this key."""
        key = policy.key
        rivals = self._rivals_of(key)
        if instead is not None:
            _take_out(rivals, instead)
        insort(rivals, policy, key=_rank)
        self._settle(key, rivals)

    def withdraw(self, policy: Policy) -> None:
        rivals = self._rivals_of(policy.key)
        _take_out(rivals, policy)
        self._settle(policy.key, rivals)

    def wanted_by(self, key: PolicyKey) -> tuple[Policy, ...]:
        """All who want a key, the holder first."""
        return tuple(self._rivals_of(key))

    def done(self) -> Layered[PolicyKey, tuple[Policy, ...]]:
        """The contested keys, for the next plan."""
        for key, rivals in self._rivals.items():
            self._contested.put(key, tuple(rivals) if len(rivals) > 1 else None)
        return self._contested.done()

    def _rivals_of(self, key: PolicyKey) -> list[Policy]:
        """Who wants this key, to be changed; given to `_settle` then."""
        rivals = self._rivals.get(key)
        if rivals is not None:
            return rivals
        contested = self._contested.get(key)
        if contested is not None:
            return list(contested)
        held = self.policies.get(key)
        return [] if held is None else [held]

    def _settle(self, key: PolicyKey, rivals: list[Policy]) -> None:
        """The first of them has the key; when that is another than before, all of them may have to say so."""
        held = self.policies.get(key)
        first = rivals[0] if rivals else None
        if held is not first:
            self.policies.put(key, first)
        if len(rivals) > 1 or key in self._rivals or self._contested.get(key) is not None:
            self._rivals[key] = rivals
            if held is not None and (first is None or held.row != first.row or held.peer != first.peer):
                self._todo.judge_rules.update(
                    rival.row.number for rival in (held, *rivals) if rival.row.table == TRAFFIC
                )


def _take_out(rivals: list[Policy], policy: Policy) -> None:
    """Remove this very object, which has its place in the order of `_rank`."""
    place = bisect_left(rivals, _rank(policy), key=_rank)
    while place < len(rivals) and rivals[place] is not policy:
        place += 1
    if place < len(rivals):
        del rivals[place]


def _rank(policy: Policy) -> tuple[int, int, int]:
    return policy.priority, policy.row.number, policy.peer
