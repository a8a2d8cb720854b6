"""The oracle: what becomes of a packet under a configuration, case by case, told by the guide and not by the code.

Each scenario is a configuration and lines `packet = outcome`. The plan's policies are put
before a small imitation of the kernel's lookup (plan_helpers.kernel); `explain` has to agree.
Peer n is the gateway 198.51.100.n; 10.1.0.1 and 192.0.2.1 are addresses of this host.
"""

from __future__ import annotations

import pytest

from agent.plan.explain import explain
from agent.plan.model import Environment, Flow
from agent.plan.planner import make_plan
from tests.plan_helpers import configuration, environment, kernel, packet
from tests.plan_scenarios import SCENARIOS, Scenario
from tests.plan_scenarios_sides import SIDES

CASES = [
    pytest.param(scenario, *(part.strip() for part in line.split("=")), id=f"{scenario.name}: {line.strip()}")
    for scenario in (*SCENARIOS, *SIDES)
    for line in scenario.cases.strip().splitlines()
]


def plan_of(scenario: Scenario):  # type: ignore[no-untyped-def]
    wanted = configuration(scenario.chains, default=scenario.default, peers=scenario.peers, enabled=scenario.enabled)
    world: Environment = environment(tunnels=scenario.tunnels)
    return make_plan(wanted, world)


def test_the_oracle_has_about_200_cases() -> None:
    assert len(CASES) >= 200


@pytest.mark.parametrize(("scenario", "text", "outcome"), CASES)
def test_packet(scenario: Scenario, text: str, outcome: str) -> None:
    plan = plan_of(scenario)
    it = packet(text)
    assert kernel(plan.policies, it) == outcome
    ports = it.source_port, it.destination_port
    flow = Flow(it.source, it.destination, it.protocol, *ports, it.way, it.peer, it.came, it.goes)
    told = explain(plan, flow)
    if outcome == "drop":
        assert told.decision == "drop", told.text
    elif outcome.startswith("peer") or (outcome == "ok" and it.peer):
        assert told.decision == "protect", told.text
    elif it.peer:
        assert told.decision in ("protect", "pass"), told.text  # came protected, leaves in plain
    else:
        assert told.decision == "pass", told.text
