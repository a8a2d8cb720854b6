"""What the row of a peer says of its rules: that none can be made, or that others decide before all of them."""

from __future__ import annotations

import pytest

from agent.mib.ber import Value
from agent.plan.model import ApplyState, Capabilities, RowRef, Verdict
from agent.plan.planner import Plan, make_plan
from tests.plan_helpers import DictConfiguration, configuration, environment

A, B, C = "10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"
TOO_MANY = "protect 0.0.0.1-255.255.255.254 0.0.0.1-255.255.255.254"
TRAFFIC, PEERS = "ipsecTrafficTable", "ipsecPeerTable"
CALLS_US: dict[str, Value] = {"ipsecPeerDynamicAddress": b"", "ipsecPeerPeerIds": b"[road]"}


def of_peer(plan: Plan, number: int = 1) -> Verdict | None:
    return plan.verdicts.get(RowRef(PEERS, number))


def one_list_for_two(*rules: str) -> DictConfiguration:
    """Peers 1 and 2, both with the list of peer 1."""
    made = configuration({1: rules, 2: []})
    return made.edited((PEERS, 2, {"ipsecPeerTrafficList": 101}))[0]


@pytest.mark.parametrize("cells", [{}, CALLS_US], ids=["called", "calls us"])
def test_a_peer_none_of_whose_protect_rules_can_be_made_has_failed(cells: dict[str, Value]) -> None:
    wanted = configuration({1: [f"pass {A} {C}", TOO_MANY]}, peers={1: cells})
    plan = make_plan(wanted, environment())
    told = of_peer(plan)
    assert told is not None and told.state is ApplyState.FAILED
    assert told.text.startswith("no protect rule of its list can be made; rule 102: ") and "62 times 62" in told.text
    assert not plan.connections
    wanted, changes = wanted.edited((TRAFFIC, 101, {"ipsecTrAction": 4}))
    mended = make_plan(wanted, environment(), plan, changes)
    sound = make_plan(configuration({1: [f"protect {A} {B}"]}, peers={1: cells}), environment())
    assert of_peer(mended) == of_peer(sound)


def test_a_reason_that_becomes_another_is_told() -> None:
    without = environment(capabilities=Capabilities(nftables=False))
    wanted = configuration({1: [f"protect {A} {B} if2"]})
    plan = make_plan(wanted, without)
    told = of_peer(plan)
    assert told is not None and told.state is ApplyState.FAILED and "without nftables" in told.text
    wanted, changes = wanted.edited((TRAFFIC, 101, {"ipsecTrAction": 3}))
    told = of_peer(make_plan(wanted, without, plan, changes))
    assert told == Verdict(ApplyState.APPLIED, "its list has no protect rule, so there is no tunnel")


def test_a_peer_with_a_virtual_interface_fails_with_its_phase_2() -> None:
    cells: dict[str, Value] = {"ipsecPeerVirtualInterface": 2, "ipsecPeerIpsecProfile": 1}
    wanted = configuration({1: []}, peers={1: cells})
    assert of_peer(make_plan(wanted, environment())) is None
    wanted.put("ipsecProfileTable", 1, ipsecPrfProposal=1)
    wanted.put("ipsecProposalTable", 1)
    plan = make_plan(wanted, environment())
    told = of_peer(plan)
    assert not plan.connections and told is not None
    assert told.state is ApplyState.FAILED and "no cipher has a rank" in told.text


def test_of_two_peers_with_one_list_the_second_says_that_the_first_decides() -> None:
    wanted = one_list_for_two(f"pass {A} {C}", f"protect {A} {B}", f"protect {A} 10.4.0.0/16")
    plan = make_plan(wanted, environment())
    assert of_peer(plan, 1) is None
    held = "none of its protect rules decides; rule 102: same selector as rule 102 of peer 1, which comes first"
    assert of_peer(plan, 2) == Verdict(ApplyState.APPLIED, held)
    assert plan.connections["peer-2"]
    before, changes = wanted.edited((PEERS, 2, {"ipsecPeerPriority": -1}))
    turned = make_plan(before, environment(), plan, changes)
    assert of_peer(turned, 2) is None
    assert of_peer(turned, 1) == Verdict(ApplyState.APPLIED, held.replace("peer 1", "peer 2"))
    without, changes = wanted.edited((PEERS, 1, None))
    assert of_peer(make_plan(without, environment(), plan, changes), 2) is None


def test_a_peer_one_of_whose_rules_decides_says_nothing() -> None:
    wanted = one_list_for_two(f"protect {A} {B}", "protect own peer")
    assert of_peer(make_plan(wanted, environment()), 2) is None


def test_what_else_is_to_say_of_it_stays() -> None:
    wanted, _ = one_list_for_two(f"protect {A} {B}").edited((PEERS, 2, CALLS_US))
    told = of_peer(make_plan(wanted, environment()), 2)
    assert told is not None and told.text.startswith("no address: it has to call us") and "of peer 1" in told.text
