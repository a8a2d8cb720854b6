"""The part of a plan that the monitor reads, filled by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.plan.model import Child, Connection, Environment, RowRef, Verdict


@dataclass
class Planned:
    generation: int
    connections: Mapping[str, Connection]
    children: Mapping[str, Child]
    verdicts: Mapping[RowRef, Verdict] = field(default_factory=dict)
    takeovers: Mapping[int, int] = field(default_factory=dict)
    environment: Environment = field(default_factory=Environment)

    def mtu(self, peer: int) -> int:
        return 1418
