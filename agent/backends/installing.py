"""In which order policies are written, so that packets meet them at every moment in the order of before or of after.

A policy is one message to the kernel, and when a list is numbered anew many of them move. Were
they moved in the order of their new places, the first would for a moment stand behind one
that it came before and still comes before: a protect rule behind a pass rule, and its packets
would leave in plain. So those that move back go from the last to the first, then those that
move forward and new ones from the first to the last.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import attrgetter

from agent.backends.engine import Observed
from agent.plan.model import Policy, PolicyKey


def in_order(install: Iterable[Policy], held: Mapping[PolicyKey, Observed]) -> list[Policy]:
    """`held`: what the kernel has."""
    back: list[Policy] = []
    others: list[Policy] = []
    for policy in install:
        there = held.get(policy.key)
        (back if there is not None and there.ours and there.priority < policy.priority else others).append(policy)
    back.sort(key=attrgetter("priority"), reverse=True)
    others.sort(key=attrgetter("priority"))
    return back + others
