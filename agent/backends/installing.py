"""In which order policies are written, so that a packet fares at every moment as before or as after.

A policy is one message to the kernel, and one SET may mean thousands: rules come and go, and a
list that is numbered anew moves many. What a packet meets is the first policy that fits it; no
third one may be that in between, or what is protected before and dropped after would for a
moment leave in plain by the pass rule behind. Two phases see to it. First what is new, what
moves forward and what changes in its place, from the first to the last of their new places: so
nobody is overtaken by one that stands behind another new one. Then what moves back and what
goes, from the last to the first of their old places: so nothing is uncovered that is still to
leave.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import attrgetter

from agent.backends.engine import Observed
from agent.plan.model import Policy, PolicyKey


def in_order(install: Iterable[Policy], held: Mapping[PolicyKey, Observed]) -> list[Policy]:
    """What is to be installed, where nothing is to be removed. `held`: what the kernel has."""
    return [each for each in in_turn((), install, held) if isinstance(each, Policy)]


def in_turn(
    remove: Iterable[PolicyKey], install: Iterable[Policy], held: Mapping[PolicyKey, Observed]
) -> list[Policy | PolicyKey]:
    """Policies to install and keys to remove, of those that are ours in `held`, which is what the kernel has. A key of
    both is installed."""
    ahead: list[Policy] = []
    leaving: dict[PolicyKey, Policy | PolicyKey] = {}
    for key in remove:
        there = held.get(key)
        if there is not None and there.ours:
            leaving[key] = key
    for policy in install:
        there = held.get(policy.key)
        if there is not None and there.ours and there.priority < policy.priority:
            leaving[policy.key] = policy
        else:
            leaving.pop(policy.key, None)
            ahead.append(policy)
    ahead.sort(key=attrgetter("priority"))
    return [*ahead, *(leaving[key] for key in sorted(leaving, key=lambda key: held[key].priority, reverse=True))]
