"""ipsecPrfGranularity: what is asked for when a packet of a rule wants an SA, and what policies a flow with SAs has."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.mib import load_schema
from agent.mib.ber import Value
from agent.plan import numbers
from agent.plan.capabilities import CHARON
from agent.plan.connections import IDLE_SECONDS
from agent.plan.explain import explain
from agent.plan.flows import MOST_FLOWS, WHY_FLOW, flow_child, observed_name, with_flow
from agent.plan.lifetimes import LOOSE
from agent.plan.model import EVERY_PACKET, Child, Direction, Flow, FlowChild, Policy, Prefix, Selector, Tunnel
from agent.plan.negotiated import selectors
from agent.plan.phase2 import Granularity
from agent.plan.planner import Plan, make_plan
from agent.plan.selectors import host, one_port
from tests.plan_helpers import (
    OUR_ADDRESS,
    DictConfiguration,
    Packet,
    configuration,
    environment,
    first_match,
    kernel,
    packed,
    packet,
    peer_address,
)

IP, PROTO, PORT, LOCAL = Granularity.IP, Granularity.PROTO, Granularity.PORT, Granularity.LOCAL_SERVICES
OUT, IN, FWD = Direction.OUT, Direction.IN, Direction.FWD
RULE = "protect 10.1.0.0/16 10.2.0.0/16"
NAME = "peer-1-rule-101"


def split(granularity: int, rules: list[str] | None = None, **cells: Value) -> DictConfiguration:
    """Peer 1 with these rules, all of that granularity."""
    made = configuration({1: rules or [RULE]}, default="pass", peers={1: {"ipsecPeerIpsecProfile": 1, **cells}})
    made.put("ipsecProfileTable", 1, ipsecPrfGranularity=granularity)
    return made


def child_of(plan: Plan, name: str = NAME) -> Child:
    return plan.children[name]


def settings_of(plan: Plan, name: str = NAME) -> Mapping[str, Any]:
    children: Any = plan.connections["peer-1"].settings["children"]
    return dict(children[name])


def flow(source: str, destination: str, protocol: int = 6, sport: int = 40000, dport: int = 443) -> Selector:
    """A packet as an acquire tells it."""
    return Selector(host(packed(source)), host(packed(destination)), protocol, one_port(sport), one_port(dport))


def asked(plan: Plan, *words: Any, name: str = NAME) -> tuple[str, str]:
    found = flow_child(child_of(plan, name), flow(*words))
    assert found is not None
    (local,), (remote,) = found.local_ts, found.remote_ts
    return local, remote


def standing(*pairs: tuple[str, str], child: str = NAME, first: int = 1, remote: str = "") -> dict[str, Any]:
    """Flows with SAs, by charon's selectors; reqids from `first` on."""
    found = {}
    for reqid, (local, other) in enumerate(pairs, first):
        name = observed_name(child, [local], [other])
        peer = packed(remote or peer_address(numbers.peer_and_rule_of_child(child)[0]))
        found[name] = Tunnel(name, packed(OUR_ADDRESS), peer, 1, 50, reqid=reqid, selectors=selectors([local], [other]))
    return {"flows": {child: found}}


def outward(plan: Plan, text: str) -> int:
    """The reqid by which a packet leaves."""
    policy = first_match(plan.policies, OUT, packet(text))
    assert policy is not None
    return policy.templates[-1].reqid


def asks(plan: Plan, name: str = NAME) -> tuple[int, ...]:
    """The reqids by which packets ask."""
    split = child_of(plan, name).fine
    assert split is not None
    return split.asks


# ---- what is asked for ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("granularity", "rule", "local", "remote"),
    [
        (IP, RULE, "10.1.0.5/32", "10.2.0.7/32"),
        (PROTO, RULE, "10.1.0.5/32[6]", "10.2.0.7/32[6]"),
        (PORT, RULE, "10.1.0.5/32[6/40000]", "10.2.0.7/32[6/443]"),
        (IP, f"{RULE} tcp/0/443", "10.1.0.5/32[6]", "10.2.0.7/32[6/443]"),
        (PROTO, f"{RULE} tcp/0/443", "10.1.0.5/32[6]", "10.2.0.7/32[6/443]"),
        (PORT, f"{RULE} tcp/0/443", "10.1.0.5/32[6/40000]", "10.2.0.7/32[6/443]"),
        (LOCAL, RULE, "10.1.0.0/16", "10.2.0.0/16"),
        (IP, "protect 10.1.0.5-10.1.0.9 any", "10.1.0.5/32", "10.2.0.7/32"),
    ],
)
def test_a_packet_asks_for_as_much_as_its_granularity_says(
    granularity: int, rule: str, local: str, remote: str
) -> None:
    plan = make_plan(split(granularity, [rule]), environment())
    assert asked(plan, "10.1.0.5", "10.2.0.7") == (local, remote)


def test_icmp_has_no_ports() -> None:
    plan = make_plan(split(PORT), environment())
    assert asked(plan, "10.1.0.5", "10.2.0.7", 1, 8, 0) == ("10.1.0.5/32[1]", "10.2.0.7/32[1]")


def test_local_services_are_the_hosts_that_the_gateway_itself_talks_to() -> None:
    """10.1.0.1 is the gateway's own address in the net it protects."""
    plan = make_plan(split(LOCAL), environment())
    assert asked(plan, "10.1.0.1", "10.2.0.7") == ("10.1.0.1/32", "10.2.0.7/32")
    assert asked(plan, "10.1.0.2", "10.2.0.7") == ("10.1.0.0/16", "10.2.0.0/16")
    moved = make_plan(split(LOCAL), environment(own_addresses=frozenset({packed("10.1.0.2")})))
    assert asked(moved, "10.1.0.2", "10.2.0.7") == ("10.1.0.2/32", "10.2.0.7/32")


def test_an_outer_address_stays_the_daemons_word_for_it() -> None:
    plan = make_plan(split(PORT, ["protect own peer"]), environment())
    assert asked(plan, OUR_ADDRESS, peer_address(1), 17, 500, 53) == ("dynamic[17/500]", "dynamic[17/53]")


def test_ipv6_too() -> None:
    plan = make_plan(split(IP, ["protect 2001:db8:1::/48 2001:db8:2::/48"]), environment())
    assert asked(plan, "2001:db8:1::5", "2001:db8:2::7") == ("2001:db8:1::5/128", "2001:db8:2::7/128")


@pytest.mark.parametrize("value", [Granularity.DEFAULT, Granularity.COARSE])
def test_coarse_is_one_child_with_the_rules_own_reqid(value: int) -> None:
    plan = make_plan(split(value), environment())
    assert child_of(plan).fine is None
    assert settings_of(plan)["reqid"] == str(plan.reqids[NAME])
    assert {t.reqid for policy in plan.policies.values() for t in policy.templates} == {plan.reqids[NAME]}


def test_the_rules_profile_counts_then_the_peers_then_the_global_one() -> None:
    """A default in the one that counts is the global one's value; the peer's is not visited."""
    made = split(PROTO, [RULE, "protect 10.3.0.0/16 10.4.0.0/16", "protect 10.5.0.0/16 10.6.0.0/16"])
    made.scalars["ipsecGlobIpsecProfile"] = 4
    made.put("ipsecProfileTable", 2, ipsecPrfGranularity=PORT)
    made.put("ipsecProfileTable", 3, ipsecPrfGranularity=Granularity.DEFAULT)
    made.put("ipsecProfileTable", 4, ipsecPrfGranularity=IP)
    made, _ = made.edited(
        ("ipsecTrafficTable", 101, {"ipsecTrProfile": 2}), ("ipsecTrafficTable", 102, {"ipsecTrProfile": 3})
    )
    plan = make_plan(made, environment())
    fine = [plan.children[f"peer-1-rule-{number}"].fine for number in (101, 102, 103)]
    assert [each.granularity for each in fine if each is not None] == [PORT, IP, PROTO]


def test_one_child_for_all_rules_has_no_granularity() -> None:
    """ipsecPeerChildAllocMode single ignores it."""
    plan = make_plan(split(IP, ipsecPeerChildAllocMode=2, ipsecPeerIkeVersion=2), environment())
    assert list(plan.children) == ["peer-1-rule-0"] and child_of(plan, "peer-1-rule-0").fine is None
    assert settings_of(plan, "peer-1-rule-0")["reqid"] == str(plan.reqids["peer-1-rule-0"])


def test_the_daemon_allots_the_reqids_of_flows_and_closes_those_nobody_uses() -> None:
    made = split(IP)
    settings = settings_of(make_plan(made, environment()))
    assert "reqid" not in settings and settings["inactivity"] == "300s"
    life: dict[str, Value] = {"ipsecPrfLifeSeconds": 100, "ipsecPrfLifePolicy": LOOSE, "ipsecPrfKeepAlive": 2}
    made.put("ipsecProfileTable", 1, ipsecPrfGranularity=IP, **life)
    assert int(settings_of(make_plan(made, environment()))["inactivity"].rstrip("s")) <= 100
    always = make_plan(split(IP, ipsecPeerStartMode=2), environment())
    assert settings_of(always)["inactivity"] == "300s"


def test_the_child_of_a_flow_is_the_rules_but_for_its_selectors() -> None:
    plan = make_plan(split(IP), environment())
    connection = plan.connections["peer-1"]
    found = flow_child(child_of(plan), flow("10.1.0.5", "10.2.0.7"))
    assert found is not None
    narrowed: Any = with_flow(connection.settings, NAME, found)
    assert list(narrowed["children"]) == [NAME, found.name]
    differing = {**settings_of(plan), "local_ts": ["10.1.0.5/32"], "remote_ts": ["10.2.0.7/32"]}
    assert narrowed["children"][found.name] == differing
    assert narrowed["children"][NAME] == settings_of(plan)


# ---- names ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("granularity", "rule", "local", "remote"),
    [
        (IP, RULE, "10.1.0.5/32", "10.2.0.7/32"),
        (PROTO, RULE, "10.1.0.5/32[tcp]", "10.2.0.7/32[tcp]"),
        (PORT, RULE, "10.1.0.5/32[tcp/40000]", "10.2.0.7/32[tcp/443]"),
        (LOCAL, RULE, "10.1.0.0/16", "10.2.0.0/16"),
        (LOCAL, "protect 10.1.0.5-10.1.0.9 10.2.0.0/16 tcp", "10.1.0.5..10.1.0.9[tcp]", "10.2.0.0/16[tcp]"),
        (LOCAL, "protect any any", "0.0.0.0/0", "0.0.0.0/0"),
    ],
)
def test_what_charon_tells_of_a_flow_has_the_name_it_was_asked_for_by(
    granularity: int, rule: str, local: str, remote: str
) -> None:
    found = flow_child(child_of(make_plan(split(granularity, [rule]), environment())), flow("10.1.0.5", "10.2.0.7"))
    assert found is not None and found.name == observed_name(NAME, [local], [remote])
    assert numbers.is_our_child(found.name) and numbers.is_flow(found.name)
    assert numbers.rule_child(found.name) == NAME and numbers.peer_and_rule_of_child(found.name) == (1, 101)


def test_other_flows_have_other_names() -> None:
    plan = make_plan(split(PORT), environment())
    packets = [
        flow("10.1.0.5", other, protocol, sport)
        for other in ("10.2.0.7", "10.2.0.8")
        for protocol in (6, 17)
        for sport in (1, 2)
    ]
    names = {found.name for each in packets if (found := flow_child(child_of(plan), each)) is not None}
    assert len(names) == len(packets)


# ---- policies -------------------------------------------------------------------------------


def test_a_rule_without_flows_asks_and_takes_what_comes_by_any_sa_of_its_peer() -> None:
    plan = make_plan(split(IP), environment())
    assert outward(plan, "out 10.1.0.5 > 10.2.0.7") == plan.reqids[NAME]
    for direction in (IN, FWD):
        policy = first_match(plan.policies, direction, packet("in 10.2.0.7 > 10.1.0.5"))
        assert policy is not None
        (template,) = policy.templates
        assert (template.reqid, template.source, template.destination) == (
            0,
            packed(peer_address(1)),
            packed(OUR_ADDRESS),
        )
    assert kernel(plan.policies, packet("in 10.2.0.7 > 10.1.0.5")) == "drop"


def test_each_flow_leaves_by_its_own_sa() -> None:
    flows = standing(("10.1.0.5/32", "10.2.0.7/32"), ("10.1.0.5/32", "10.2.0.8/32"))
    plan = make_plan(split(IP), environment(**flows))
    assert outward(plan, "out 10.1.0.5 > 10.2.0.7") == 1
    assert outward(plan, "out 10.1.0.5 > 10.2.0.8") == 2
    assert outward(plan, "out 10.1.0.5 > 10.2.0.9") in asks(plan)
    assert sum(policy.rule == WHY_FLOW for policy in plan.policies.values()) == 2


def test_after_each_flow_packets_ask_by_another_reqid() -> None:
    """About the last one the kernel is silent for a while."""
    pairs = [("10.1.0.5/32", f"10.2.0.{last}/32") for last in range(1, 9)]
    plan, seen = make_plan(split(IP), environment()), list[int]()
    for count in range(9):
        plan = make_plan(split(IP), environment(**standing(*pairs[:count])), plan, [])
        seen.append(outward(plan, "out 10.1.0.9 > 10.2.0.9"))
    assert len(set(seen)) == 8 and seen[1] == seen[8] and set(seen) == set(asks(plan)) == set(plan.reqids.values())
    coarse, changes = split(IP).edited(("ipsecProfileTable", 1, {"ipsecPrfGranularity": 2}))
    after = make_plan(coarse, environment(), plan, changes)
    assert dict(after.reqids) == {NAME: plan.reqids[NAME]}


def test_ports_too() -> None:
    flows = standing(("10.1.0.5/32[tcp/40000]", "10.2.0.7/32[tcp/443]"), ("10.1.0.5/32[icmp]", "10.2.0.7/32[icmp]"))
    plan = make_plan(split(PORT), environment(**flows))
    assert outward(plan, "out 10.1.0.5 > 10.2.0.7 tcp/40000/443") == 1
    assert outward(plan, "out 10.1.0.5 > 10.2.0.7 icmp") == 2
    for other in ("tcp/40001/443", "udp/40000/443"):
        assert outward(plan, f"out 10.1.0.5 > 10.2.0.7 {other}") in asks(plan)


def test_an_earlier_rule_decides_before_a_flow() -> None:
    """Of the list, of a peer before, of the pre list; also where its selector is that of the flow."""
    rules = ["drop 10.1.0.5/32 10.2.0.7/32", "pass 10.1.0.5/32 10.2.0.8/32 tcp", RULE]
    name = "peer-1-rule-103"
    flows = standing(*(("10.1.0.5/32", f"10.2.0.{last}/32") for last in (7, 8, 9)), child=name)
    plan = make_plan(split(IP, rules), environment(**flows))
    assert kernel(plan.policies, packet("out 10.1.0.5 > 10.2.0.7")) == "drop"
    assert kernel(plan.policies, packet("out 10.1.0.5 > 10.2.0.8 tcp")) == "plain"
    assert outward(plan, "out 10.1.0.5 > 10.2.0.8 udp") == 2
    assert outward(plan, "out 10.1.0.5 > 10.2.0.9") == 3


def test_a_later_rule_of_the_flows_selector_comes_too_late_as_ever() -> None:
    rules = [RULE, "pass 10.1.0.5/32 10.2.0.7/32"]
    for flows in ({}, standing(("10.1.0.5/32", "10.2.0.7/32"))):
        plan = make_plan(split(IP, rules), environment(**flows))
        assert kernel(plan.policies, packet("out 10.1.0.5 > 10.2.0.7")) == "peer1"


def test_what_the_peer_negotiated_for_all_of_the_rule_serves_all_of_it() -> None:
    """A coarse peer."""
    plan = make_plan(split(IP), environment(**standing(("10.1.0.0/16", "10.2.0.0/16"), first=9)))
    assert outward(plan, "out 10.1.0.5 > 10.2.0.7") == 9
    assert not any(policy.rule == WHY_FLOW for policy in plan.policies.values())
    both = standing(("10.1.0.0/16", "10.2.0.0/16"), ("10.1.0.5/32", "10.2.0.7/32"), first=9)
    plan = make_plan(split(IP), environment(**both))
    assert outward(plan, "out 10.1.0.5 > 10.2.0.7") == 10 and outward(plan, "out 10.1.0.5 > 10.2.0.8") == 9


def test_what_was_negotiated_beyond_the_rule_counts_as_far_as_the_rule_goes() -> None:
    flows = standing(("10.1.0.0/16", "10.0.0.0/8"), ("172.16.0.1/32", "10.2.0.9/32"))
    plan = make_plan(split(IP, [f"{RULE} tcp/0/443"]), environment(**flows))
    assert outward(plan, "out 10.1.0.5 > 10.2.0.7 tcp/1/443") == 1
    for beyond in (
        "out 10.1.0.5 > 10.2.0.7 tcp/1/444",
        "out 10.1.0.5 > 10.3.0.7 tcp/1/443",
        "out 172.16.0.1 > 10.2.0.9",
    ):
        assert kernel(plan.policies, packet(beyond)) == "plain"


def test_a_range_is_served_prefix_by_prefix() -> None:
    flows = standing(("10.1.0.5..10.1.0.9", "10.2.0.0/16"))
    plan = make_plan(split(IP, ["protect 10.1.0.5-10.1.0.9 10.2.0.0/16"]), environment(**flows))
    assert {outward(plan, f"out 10.1.0.{last} > 10.2.0.7") for last in range(5, 10)} == {1}


def test_of_local_services_the_gateways_own_packets_do_not_take_the_rules_sa() -> None:
    flows = standing(("10.1.0.0/16", "10.2.0.0/16"), ("10.1.0.1/32", "10.2.0.7/32"), first=5)
    plan = make_plan(split(LOCAL), environment(**flows))
    assert outward(plan, "out 10.1.0.2 > 10.2.0.7") == 5
    assert outward(plan, "out 10.1.0.1 > 10.2.0.7") == 6
    assert outward(plan, "out 10.1.0.1 > 10.2.0.8") in asks(plan)


def test_of_too_many_flows_of_local_services_the_rest_takes_the_rules_sa() -> None:
    hosts = [("10.1.0.1/32", f"10.2.{n >> 8}.{n & 255}/32") for n in range(MOST_FLOWS)]
    few = standing(("10.1.0.0/16", "10.2.0.0/16"), *hosts[: MOST_FLOWS - 2])
    many = standing(("10.1.0.0/16", "10.2.0.0/16"), *hosts[: MOST_FLOWS - 1])
    other = "out 10.1.0.1 > 10.2.200.8"
    plan = make_plan(split(LOCAL), environment(**few))
    assert outward(plan, other) in asks(plan)
    assert outward(make_plan(split(LOCAL), environment(**many)), other) == 1


def test_a_peer_that_calls_from_anywhere_may_use_the_sa_of_a_flow_for_that_flow_only() -> None:
    """Others may share its outer address, so inward each flow has its own reqid."""
    made = split(IP, ipsecPeerDynamicAddress=b"", ipsecPeerPeerIds=b"road", ipsecPeerIkeProfile=1)
    made.put("ikeProfileTable", 1, ikePrfMode=2)
    silent = make_plan(made, environment())
    assert kernel(silent.policies, packet("out 10.1.0.5 > 10.2.0.7")) == "drop"
    plan = make_plan(made, environment(**standing(("10.1.0.5/32", "10.2.0.7/32"), remote="203.0.113.9")))
    for direction, source, destination in (
        (OUT, "10.1.0.5", "10.2.0.7"),
        (IN, "10.2.0.7", "10.1.0.5"),
        (FWD, "10.2.0.7", "10.1.0.5"),
    ):
        policy = first_match(plan.policies, direction, packet(f"out {source} > {destination}"))
        assert policy is not None and [t.reqid for t in policy.templates] == [1]
    for direction, source, destination in ((OUT, "10.1.0.5", "10.2.0.8"), (IN, "10.2.0.8", "10.1.0.5")):
        policy = first_match(plan.policies, direction, packet(f"out {source} > {destination}"))
        assert policy is not None and policy.templates[0].reqid in asks(plan)


def test_an_interface_binds_the_flows_of_its_rule_too() -> None:
    flows = standing(("10.1.0.5/32", "10.2.0.7/32"))
    plan = make_plan(split(IP, [f"{RULE} if2"]), environment(**flows))
    (policy,) = (each for each in plan.policies.values() if each.rule == WHY_FLOW)
    assert policy.key.scope.interface == 2


def test_the_templates_of_a_flow_follow_its_sa() -> None:
    flows = standing(("10.1.0.5/32", "10.2.0.7/32"))["flows"][NAME]
    name, tunnel = next(iter(flows.items()))
    moved = dataclasses.replace(tunnel, local=packed("192.0.2.9"), remote=packed("198.51.100.77"), ipcomp=True)
    plan = make_plan(split(IP), environment(flows={NAME: {name: moved}}))
    policy = first_match(plan.policies, OUT, packet("out 10.1.0.5 > 10.2.0.7"))
    assert policy is not None and [t.protocol for t in policy.templates] == [108, 50]
    assert {(t.source, t.destination, t.reqid) for t in policy.templates} == {(moved.local, moved.remote, 1)}
    wide = first_match(plan.policies, IN, packet("out 10.2.0.9 > 10.1.0.5"))
    assert wide is not None and wide.templates[-1].source == moved.remote


def test_flows_of_a_backup_peer_serve_the_primarys_rule() -> None:
    made = configuration(
        {1: [RULE], 2: [RULE]}, peers={n: {"ipsecPeerIpsecProfile": 1, "ipsecPeerPriority": n} for n in (1, 2)}
    )
    made.put("ipsecProfileTable", 1, ipsecPrfGranularity=IP)
    first = make_plan(made, environment(takeovers={1: 2}))
    there = environment(takeovers={1: 2}, **standing(("10.1.0.5/32", "10.2.0.7/32"), child="peer-2-rule-201"))
    plan = make_plan(made, there, first, [])
    policy = first_match(plan.policies, OUT, packet("out 10.1.0.5 > 10.2.0.7"))
    assert policy is not None and policy.peer == 1
    assert [(t.reqid, t.destination) for t in policy.templates] == [(1, packed(peer_address(2)))]


# ---- virtual interfaces -----------------------------------------------------------------------


def interface(granularity: int, **cells: Value) -> DictConfiguration:
    """Peer 7 has a virtual interface, and one selector for everything unless there are rows."""
    own = {"ipsecPeerVirtualInterface": 2, "ipsecPeerIpsecProfile": 1, **cells}
    made = configuration({7: []}, peers={7: own})
    made.put("ipsecProfileTable", 1, ipsecPrfGranularity=granularity)
    return made


def leaving(plan: Plan, text: str) -> int:
    """The reqid by which a packet leaves that is routed to the interface."""
    inside = {key._replace(scope=EVERY_PACKET): policy for key, policy in plan.policies.items() if key.scope.if_id}
    policy = first_match(inside, OUT, packet(text))
    assert policy is not None and policy.key.scope.if_id == numbers.interface_number(7)
    return policy.templates[-1].reqid


def test_flows_of_a_virtual_interface_leave_by_their_own_sas_too() -> None:
    name, world = "peer-7-rule-0", environment(capabilities=CHARON)
    plan = make_plan(interface(IP), world)
    settings: Any = plan.connections["peer-7"].settings["children"]
    assert "reqid" not in settings[name] and settings[name]["inactivity"] == "300s"
    assert asked(plan, "10.1.0.5", "10.2.0.7", name=name) == ("10.1.0.5/32", "10.2.0.7/32")
    assert leaving(plan, "out 10.1.0.5 > 10.2.0.7") == plan.reqids[name]
    there = environment(capabilities=CHARON, **standing(("10.1.0.5/32", "10.2.0.7/32"), child=name, first=4))
    after = make_plan(interface(IP), there, plan, [])
    assert leaving(after, "out 10.1.0.5 > 10.2.0.7") == 4
    assert leaving(after, "out 10.1.0.5 > 10.2.0.8") in asks(after, name)
    inward = [policy for policy in after.policies.values() if policy.key.scope.if_id and policy.key.direction is IN]
    assert {template.reqid for policy in inward for template in policy.templates} == {0}
    assert same(make_plan(interface(IP), world, after, [])) == same(plan)
    told = explain(after, Flow(packed("10.1.0.5"), packed("10.2.0.7"), 6, way="forward", to_interface=100_007))
    assert str(told).endswith("tunnel of peer 7, in which each pair of hosts has an SA pair of its own")


def test_a_selector_with_a_range_of_ports_is_narrowed_to_hosts_and_keeps_it() -> None:
    made = interface(IP, ipsecPeerIkeVersion=2)
    made.scalars["ipsecGlobIkev2Enabled"] = 1
    cells = {"Ifindex": 100_007, "Protocol": 6, "LocalPort": 1000, "LocalPortRange": 8}
    made.put("ipsecPeerTrafficTable", 3, **{f"ipsecPeerTraffic{name}": value for name, value in cells.items()})
    plan = make_plan(made, environment(capabilities=CHARON))
    narrowed = asked(plan, "10.1.0.5", "10.2.0.7", 6, 1003, 5, name="peer-7-rule-3")
    assert narrowed == ("10.1.0.5/32[6/1000-1007]", "10.2.0.7/32[6]")


# ---- whatever the rules are -------------------------------------------------------------------

NETS = ["any", "10.0.0.0/8", "10.1.0.0/16", "10.2.0.0/16", "10.1.0.4-10.2.0.8", "10.2.0.7/32"]
HOSTS = ["10.1.0.5", "10.2.0.7", "10.2.0.8"]
PACKETS = [
    packet(f"{way} {source} > {destination} {kind}{origin}")
    for way in ("out", "in", "forward")
    for source, destination in itertools.permutations(HOSTS, 2)
    for kind in ("tcp/40000/443", "udp/40000/53", "icmp")
    for origin in ("", " from 1", " from 2")
]


@st.composite
def lists(draw: st.DrawFn) -> list[str]:
    kinds = st.sampled_from(["", "", " tcp", " udp/0/53"])
    actions, nets = st.sampled_from(["protect", "protect", "protect", "drop", "pass"]), st.sampled_from(NETS)
    return [f"{draw(actions)} {draw(nets)} {draw(nets)}{draw(kinds)}" for _ in range(draw(st.integers(1, 4)))]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(lists(), lists(), st.sampled_from([IP, PROTO, PORT]), st.data())
def test_flows_change_by_which_sa_a_packet_leaves_and_nothing_else(
    one: list[str], other: list[str], granularity: int, data: st.DataObject
) -> None:
    """Two peers, whose rules overlap as they may: of each packet that wants an SA of a rule the flow is made, in any
    order, and each then leaves by its own; all else fares as before."""
    made = configuration({1: one, 2: other}, peers={n: {"ipsecPeerIpsecProfile": 1} for n in (1, 2)})
    made.put("ipsecProfileTable", 1, ipsecPrfGranularity=granularity)
    before = make_plan(made, environment())
    wanted = data.draw(st.permutations([it for it in PACKETS if it.way == "out" and wants(before, it) is not None]))
    flows: dict[str, dict[str, Tunnel]] = {}
    names = {}
    for it in wanted:
        child = wants(before, it)
        assert child is not None
        found = flow_child(child, selector_of(it))
        assert found is not None
        names[it] = found.name
        of_child = flows.setdefault(child.name, {})
        of_child.setdefault(found.name, tunnel(found, child, 1 + sum(map(len, flows.values()))))
    there = environment(flows=flows)
    plan = make_plan(made, there)
    for it in PACKETS:
        assert kernel(plan.policies, it) == kernel(before.policies, it)
    for it, name in names.items():
        policy = first_match(plan.policies, OUT, it)
        assert policy is not None
        assert policy.templates[-1].reqid == flows[numbers.rule_child(name)][name].reqid
    following = make_plan(made, there, before, [])
    assert same(following) == same(plan)
    assert same(make_plan(made, environment(), following, [])) == same(before)


def same(plan: Plan) -> dict[Any, Any]:
    """Policies without the numbers that merely happen to be."""
    own = {reqid: numbers.rule_child(name) for name, reqid in plan.reqids.items()}
    return {
        key: (
            policy[2],
            [t._replace(reqid=0) for t in policy.templates],
            [own.get(t.reqid, t.reqid) for t in policy.templates],
        )
        for key, policy in plan.policies.items()
    }


def wants(plan: Plan, it: Packet) -> Child | None:
    policy: Policy | None = first_match(plan.policies, OUT, it)
    reqid = policy.templates[-1].reqid if policy is not None and policy.templates else 0
    return next(
        (child for child in plan.children.values() if child.fine is not None and reqid in child.fine.asks), None
    )


def selector_of(it: Packet) -> Selector:
    source, destination = Prefix(it.source, 32), Prefix(it.destination, 32)
    return Selector(source, destination, it.protocol, one_port(it.source_port), one_port(it.destination_port))


def tunnel(found: FlowChild, child: Child, reqid: int) -> Tunnel:
    pairs = selectors(found.local_ts, found.remote_ts)
    remote = packed(peer_address(child.peer))
    return Tunnel(found.name, packed(OUR_ADDRESS), remote, 1, 50, reqid=reqid, selectors=pairs)


# ---- what is told -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("granularity", "words"),
    [
        (IP, ", in which each pair of hosts has an SA pair of its own"),
        (PROTO, ", in which each protocol of each pair of hosts has an SA pair of its own"),
        (PORT, ", in which each pair of ports of each pair of hosts has an SA pair of its own"),
        (LOCAL, ", in which each host that this gateway itself talks to has an SA pair of its own"),
        (Granularity.COARSE, ""),
    ],
)
def test_explain_says_how_a_rule_is_split(granularity: int, words: str) -> None:
    plan = make_plan(split(granularity), environment(**standing(("10.1.0.5/32", "10.2.0.7/32"))))
    for last in (7, 8):
        told = explain(plan, Flow(packed("10.1.0.5"), packed(f"10.2.0.{last}"), 6))
        assert str(told) == f"protect: rule 101 of peer 1: tunnel of peer 1{words}"


def test_largest_packets_are_told_to_the_sas_of_flows_too() -> None:
    """charon's reqids are not of our range."""
    without, flows = make_plan(split(IP), environment()), standing(("10.1.0.5/32", "10.2.0.7/32"), first=3)
    there = make_plan(split(IP), environment(**flows), without, [])
    assert "reqid 65536-" in str(without.filters["mss"]) and "reqid 1-" in str(there.filters["mss"])
    other = split(IP, ipsecPeerIkeProfile=1)
    other.put("ikeProfileTable", 1, ikePrfMtuMax=1200)
    plan = make_plan(other, environment(**flows), make_plan(other, environment()), [])
    named = next(each for each in plan.filters["mss"].part.sets if each.name == "mss_1200")
    assert named.elements == ("3", str(plan.reqids[NAME]))


def test_the_limits_that_objects_md_names_are_those_that_hold() -> None:
    limit = load_schema().columns["ipsecPrfGranularity"].traits.limit
    assert f"unused for {IDLE_SECONDS} s" in limit and f"{MOST_FLOWS} flows at most" in limit
