"""What becomes of the sides of a rule: prefixes of a range, outer addresses, GRE, an interface; what charon is told."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.mib.ber import Value
from agent.plan import inbound, outbound
from agent.plan.filtering import check_names
from agent.plan.model import ApplyState, Capabilities, Prefix, RowRef
from agent.plan.planner import Plan, difference, make_plan
from agent.plan.selectors import range_prefixes
from agent.plan.traffic import MOST_PARTS
from tests.plan_helpers import OUR_ADDRESS, DictConfiguration, configuration, environment, packed
from tests.plan_scenarios import CALLS_US, up

TRAFFIC = "ipsecTrafficTable"
RULE = RowRef(TRAFFIC, 101)
PROFILE = {"ipsecPeerIpsecProfile": 1}


def one_peer(rule: str, *, force: int = 3, **cells: Value) -> DictConfiguration:
    made = configuration({1: [rule]}, default="pass", peers={1: {**PROFILE, **cells}})
    made.put("ipsecProfileTable", 1, ipsecPrfForceTunnelMode=force)
    return made


def child(plan: Plan) -> Mapping[str, Any]:
    children: Any = plan.connections["peer-1"].settings["children"]
    return dict(children["peer-1-rule-101"])


def modes(plan: Plan) -> set[int]:
    return {t.mode for policy in plan.policies.values() if policy.row == RULE for t in policy.templates}


@given(st.lists(st.binary(min_size=4, max_size=4), min_size=2, max_size=2).map(sorted))
def test_a_range_is_the_fewest_prefixes(ends: list[bytes]) -> None:
    first, last = ends
    wanted = ipaddress.summarize_address_range(ipaddress.IPv4Address(first), ipaddress.IPv4Address(last))
    assert range_prefixes(first, last) == tuple(Prefix(net.network_address.packed, net.prefixlen) for net in wanted)


@given(st.lists(st.binary(min_size=16, max_size=16), min_size=2, max_size=2).map(sorted))
def test_a_range_of_ipv6_too(ends: list[bytes]) -> None:
    first, last = ends
    wanted = ipaddress.summarize_address_range(ipaddress.IPv6Address(first), ipaddress.IPv6Address(last))
    assert range_prefixes(first, last) == tuple(Prefix(net.network_address.packed, net.prefixlen) for net in wanted)


@given(st.lists(st.integers(0, 2**12), min_size=2, max_size=2).map(sorted), st.integers(0, 2**12), st.integers(20, 32))
def test_a_prefix_within_a_range_is_within_one_of_its_prefixes(ends: list[int], near: int, length: int) -> None:
    first, last = ends
    size = 1 << 32 - length
    low = near // size * size
    inside = first <= low and low + size - 1 <= last
    found = range_prefixes(first.to_bytes(4, "big"), last.to_bytes(4, "big"))
    cut = [(int.from_bytes(prefix.address, "big"), 32 - prefix.length) for prefix in found if prefix.length <= length]
    within = [start for start, host_bits in cut if start >> host_bits == low >> host_bits]
    assert bool(within) is inside


def test_the_whole_space_and_nothing() -> None:
    assert range_prefixes(bytes(4), b"\xff" * 4) == (Prefix(bytes(4), 0),)
    assert range_prefixes(bytes(16), b"\xff" * 16) == (Prefix(bytes(16), 0),)
    assert range_prefixes(b"\0\0\0\2", b"\0\0\0\1") == ()
    assert len(range_prefixes(b"\0\0\0\1", b"\xff\xff\xff\xfe")) == 62


def test_all_prefixes_of_a_range_share_one_child_and_its_reqid() -> None:
    plan = make_plan(one_peer("protect 10.1.0.0/16 10.2.0.3-10.2.0.9 udp/0/53"), environment())
    assert child(plan)["local_ts"] == ["10.1.0.0/16[17]"]
    assert child(plan)["remote_ts"] == ["10.2.0.3-10.2.0.9[17/53]"]
    reqids = {t.reqid for policy in plan.policies.values() for t in policy.templates}
    assert reqids == {plan.reqids["peer-1-rule-101"]}
    assert len([policy for policy in plan.policies.values() if policy.row == RULE]) == 3 * 5  # .3, .4/30, .8/31


def test_two_ranges_are_bounded() -> None:
    plan = make_plan(one_peer("protect 0.0.0.1-255.255.255.254 0.0.0.1-255.255.255.254"), environment())
    state, text = plan.verdicts[RULE]
    assert state is ApplyState.FAILED
    assert f"62 times 62 prefixes; accepted: {MOST_PARTS} pairs at most" in text
    assert not [policy for policy in plan.policies.values() if policy.row == RULE]
    one = make_plan(one_peer("drop any 0.0.0.1-255.255.255.254"), environment())
    assert len([policy for policy in one.policies.values() if policy.row == RULE]) == 62 * 5


def test_an_ipv6_rule_asks_for_ipv6_selectors() -> None:
    plan = make_plan(one_peer("protect 2001:db8:1::/48 2001:db8:2::1-2001:db8:2::2 tcp"), environment())
    assert child(plan)["local_ts"] == ["2001:db8:1::/48[6]"]
    assert child(plan)["remote_ts"] == ["2001:db8:2::1-2001:db8:2::2[6]"]
    assert child(plan)["mode"] == "tunnel"


@pytest.mark.parametrize(("force", "mode", "number"), [(1, "tunnel", 1), (2, "transport", 0), (3, "transport", 0)])
def test_tunnel_mode_is_forced_or_transport_suffices(force: int, mode: str, number: int) -> None:
    """ipsecPrfForceTunnelMode of a rule between the two gateways."""
    for rule in ("protect 192.0.2.1/32 198.51.100.1/32", "protect own peer"):
        plan = make_plan(one_peer(rule, force=force), environment())
        assert child(plan)["mode"] == mode
        assert modes(plan) == {number}
    plan = make_plan(one_peer("protect own 198.51.100.0/24", force=force), environment())
    assert child(plan)["mode"] == "tunnel"


def test_the_templates_follow_the_mode_of_the_tunnel_that_came_up() -> None:
    made = one_peer("protect own peer", force=2)
    assert modes(make_plan(made, environment(tunnels={"peer-1-rule-101": up(1, mode=1)}))) == {1}
    assert modes(make_plan(made, environment(tunnels={"peer-1-rule-101": up(1, mode=0)}))) == {0}


def test_gre_between_the_gateways_is_what_is_protected_with_tp_greip() -> None:
    plan = make_plan(one_peer("protect 10.1.0.0/16 10.2.0.0/16 tcp/0/80", force=5), environment())
    assert child(plan)["mode"] == "transport"
    assert (child(plan)["local_ts"], child(plan)["remote_ts"]) == (["dynamic[47]"], ["dynamic[47]"])
    ours = [policy.key.selector for policy in plan.policies.values() if policy.row == RULE and policy.templates]
    ends = {packed(OUR_ADDRESS), packed("198.51.100.1")}
    assert {(s.protocol, s.source_port.mask) for s in ours} == {(47, 0)}
    assert all({s.source.address, s.destination.address} == ends for s in ours)
    plain = make_plan(one_peer("drop 10.1.0.0/16 10.2.0.0/16 tcp/0/80", force=5), environment())
    assert {p.key.selector.protocol for p in plain.policies.values() if p.row == RULE} == {6}


def test_outer_addresses_are_followed() -> None:
    made = one_peer("protect own peer")
    plan = make_plan(made, environment())
    assert child(plan)["local_ts"] == ["dynamic"]
    moved = environment(sources={packed("198.51.100.1"): packed("192.0.2.77")})
    after = make_plan(made, moved, plan, [])
    assert {packed("192.0.2.77")} == {
        key.selector.source.address for key, policy in after.policies.items() if policy.templates and key.direction == 1
    }
    assert difference(plan, after).policies_removed
    again = make_plan(made, environment(sources=moved.sources, tunnels={"peer-1-rule-101": up(1)}), after, [])
    assert {packed(OUR_ADDRESS)} == {
        key.selector.source.address for key, policy in again.policies.items() if policy.templates and key.direction == 1
    }


def test_a_peer_that_has_to_call_is_offered_whatever_address_it_has() -> None:
    made = one_peer("protect own peer", **CALLS_US)
    plan = make_plan(made, environment())
    assert (child(plan)["local_ts"], child(plan)["remote_ts"]) == (["dynamic"], ["dynamic"])
    assert child(plan)["mode"] == "transport"
    assert "what it covers is not known until peer 1 has called" in plan.verdicts[RULE].text


def test_outer_addresses_of_another_family_fail_the_rule() -> None:
    plan = make_plan(one_peer("drop own 2001:db8::/32"), environment())
    assert plan.verdicts[RULE].state is ApplyState.FAILED
    assert "192.0.2.1 and 2001:db8:: are of different families" in plan.verdicts[RULE].text


def test_an_interface_that_is_not_there_is_waited_for_with_the_policies_in_place() -> None:
    made = one_peer("protect 10.1.0.0/16 10.2.0.0/16 if7")
    plan = make_plan(made, environment())
    assert plan.verdicts[RULE] == (ApplyState.PENDING, "there is no interface 7; the rule counts once there is")
    there = environment(interfaces={7: "eth7"})
    after = make_plan(made, there, plan, [])
    assert RULE not in after.verdicts
    assert not difference(plan, after).policies_changed and not difference(plan, after).policies_added
    assert make_plan(made, environment(), after, []).verdicts[RULE].state is ApplyState.PENDING


def test_what_arrives_is_marked_for_the_rules_that_ask() -> None:
    made = one_peer("drop any 10.2.0.0/16 if7")
    plan = make_plan(made, environment())
    assert plan.filters[inbound.PART] == (inbound.marking([7]), frozenset({RULE}))
    check_names(inbound.PART, plan.filters[inbound.PART].part)
    edited, changes = made.edited((TRAFFIC, 101, {"ipsecTrDirection": 3}))
    after = make_plan(edited, environment(), plan, changes)
    assert inbound.PART not in after.filters
    edited, changes = edited.edited((TRAFFIC, 101, {"ipsecTrDirection": 2, "ipsecTrInterface": 8}))
    assert make_plan(edited, environment(), after, changes).filters[inbound.PART].part == inbound.marking([8])


def test_ipv6_packets_of_the_gateway_are_asked_about_again_for_the_rules_about_an_interface() -> None:
    made = one_peer("pass any6 2001:db8::/32 if7")
    plan = make_plan(made, environment())
    part = plan.filters[outbound.PART]
    assert part == (outbound.asking_again([7], 500), frozenset({RULE}))
    check_names(outbound.PART, part.part)
    assert "oif != { 1, 7 }" in part.part.chains[0].rules[-2]
    for rule in ("pass any6 2001:db8::/32", "pass any 10.2.0.0/16 if7", "pass any6 2001:db8::/32 if7 inbound"):
        assert outbound.PART not in make_plan(one_peer(rule), environment()).filters, rule
    lacking = environment(capabilities=Capabilities(nftables=False, nftables_lack="no nft"))
    assert not make_plan(made, lacking).filters


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("drop any6 2001:db8::/32 if7", ""),
        ("pass any6 2001:db8::/32 if7 inbound", ""),
        ("pass any6 2001:db8::/32 if7", "that a later rule or the default rule drops are dropped"),
        ("protect any6 2001:db8::/32 if7", "that a later rule or the default rule drops are dropped"),
    ],
)
def test_a_rule_says_what_it_cannot_do_for_ipv6_packets_of_the_gateway(rule: str, text: str) -> None:
    plan = make_plan(one_peer(rule), environment(interfaces={7: "eth7"}))
    verdict = plan.verdicts.get(RULE)
    assert (verdict is not None and text in verdict.text) if text else verdict is None


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ("protect 10.1.0.0/16 10.2.0.0/16 if2", {(1, False), (2, False)}),  # blocks what leaves: (direction, marked)
        ("drop 10.1.0.0/16 10.2.0.0/16 if2", {(1, False), (2, False)}),
        ("pass 10.1.0.0/16 10.2.0.0/16 if2", set()),
        ("drop 10.1.0.0/16 10.2.0.0/16 if2 inbound", set()),
    ],
)
def test_without_nftables_nothing_is_believed_of_what_arrives(rule: str, kept: set[tuple[int, bool]]) -> None:
    plan = make_plan(one_peer(rule), environment(capabilities=Capabilities(nftables=False, nftables_lack="no nft")))
    state, text = plan.verdicts[RULE]
    assert state is ApplyState.FAILED
    assert "without nftables (no nft)" in text
    policies = [policy for policy in plan.policies.values() if policy.row == RULE]
    assert {(policy.key.direction, bool(policy.key.scope.mask)) for policy in policies} == kept
    assert {policy.action for policy in policies} <= {1}
    assert not plan.children and not plan.filters


def test_outbound_rules_need_no_nftables() -> None:
    plan = make_plan(
        one_peer("pass 10.1.0.0/16 10.2.0.0/16 if2 outbound"), environment(capabilities=Capabilities(nftables=False))
    )
    assert RULE not in plan.verdicts
    assert len([policy for policy in plan.policies.values() if policy.row == RULE]) == 2
