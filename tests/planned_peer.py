"""One peer with one rule, planned, and what the IKE daemon gets of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.mib.ber import Value
from agent.plan.planner import Plan
from tests.plan_helpers import DictConfiguration, configuration

A, B = "10.1.0.0/16", "10.2.0.0/16"


def one_peer(rule: str = f"protect {A} {B}", **cells: Value) -> DictConfiguration:
    return configuration({1: [rule]}, peers={1: cells})


def settings(made: Plan, name: str = "peer-1") -> Mapping[str, Any]:
    return made.connections[name].settings


def child(made: Plan, name: str = "peer-1") -> Mapping[str, Any]:
    children = settings(made, name)["children"]
    return dict(children["peer-1-rule-101"])
