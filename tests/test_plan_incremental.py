"""A plan made from the previous one is the plan made from nothing, and the difference of two is no larger than it is.

Random configurations on few nets, so that rules overlap, meet in one selector, share lists
and break off; random edits of rules, links, peers, scalars and tunnels.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.mib.ber import Value
from agent.plan import numbers
from agent.plan.flows import observed_name
from agent.plan.model import Environment, Policy, PolicyKey, Tunnel
from agent.plan.negotiated import selectors
from agent.plan.order import assign
from agent.plan.planner import Plan, difference, make_plan
from agent.plan.selectors import bits, overlap
from tests.plan_helpers import (
    OUR_ADDRESS,
    DictConfiguration,
    environment,
    kernel,
    packed,
    packet,
    peer_address,
    peer_cells,
    rule_cells,
)

TRAFFIC, PEERS = "ipsecTrafficTable", "ipsecPeerTable"
RULES, PEER_NUMBERS = range(1, 10), range(1, 4)
NETS = ["any", "10.0.0.0/8", "10.1.0.0/16", "10.2.0.0/16", "10.2.5.0/24", "10.1.255.254-10.2.5.1", "10.2.5.9-10.2.5.14"]
NETS6 = ["any6", "2001:db8:1::/48", "2001:db8:1::9-2001:db8:1::c"]
Edits = tuple[tuple[str, int, Mapping[str, Value] | None], ...]


@st.composite
def rule_texts(draw: st.DrawFn) -> str:
    action = draw(st.sampled_from(["protect", "protect", "drop", "pass", "always-plain"]))
    more = draw(st.sampled_from(["", "", " udp/0/53", " inbound", " outbound", " icmp"]))
    more += draw(st.sampled_from(["", "", "", " if2", " if7"]))
    nets = st.sampled_from(draw(st.sampled_from([NETS, NETS, NETS6])))
    local = draw(st.one_of(nets, nets, st.just("own")))
    remote = draw(st.one_of(nets, nets, st.just("peer")))
    return f"{action} {local} {remote}{more}"


@st.composite
def rule_edits(draw: st.DrawFn) -> tuple[str, int, Mapping[str, Value] | None]:
    number = draw(st.sampled_from(RULES))
    kind = draw(st.sampled_from(["all", "link", "link", "action", "gone"]))
    if kind == "gone":
        return TRAFFIC, number, None
    following = draw(st.sampled_from([0, *range(number + 1, RULES.stop)]))
    if kind == "link":
        return TRAFFIC, number, {"ipsecTrNextIndex": following}
    if kind == "action":
        return TRAFFIC, number, {"ipsecTrAction": draw(st.sampled_from([2, 3, 4, 5]))}
    return TRAFFIC, number, rule_cells(draw(rule_texts()), following)


@st.composite
def peer_edits(draw: st.DrawFn) -> tuple[str, int, Mapping[str, Value] | None]:
    number = draw(st.sampled_from(PEER_NUMBERS))
    head = draw(st.sampled_from([0, *RULES]))
    return (
        PEERS,
        number,
        draw(
            st.sampled_from(
                [
                    None,
                    peer_cells(number, head),
                    {"ipsecPeerTrafficList": head},
                    {"ipsecPeerPriority": draw(st.integers(0, 3))},
                    {"ipsecPeerAdminStatus": draw(st.sampled_from([1, 2]))},
                    {"ipsecPeerPreSharedKeyData": b"other"},
                    {"ipsecPeerDynamicAddress": draw(st.sampled_from([b"", b"198.51.100.9", b"gate.example"]))},
                ]
            )
        ),
    )


@st.composite
def scalar_edits(draw: st.DrawFn) -> tuple[str, int, Mapping[str, Value] | None]:
    name = draw(st.sampled_from(["ipsecGlobContPreIpsecRules", "ipsecGlobContPostIpsecRules"]))
    cells: Mapping[str, Value] = draw(
        st.sampled_from(
            [{name: draw(st.sampled_from([0, *RULES]))}, {"ipsecGlobContDefaultRule": draw(st.sampled_from([1, 2]))}]
        )
    )
    return "ipsecGlobalsContinued", 0, cells


@st.composite
def profile_edits(draw: st.DrawFn) -> tuple[str, int, Mapping[str, Value] | None]:
    cells: Mapping[str, Value] = draw(
        st.sampled_from(
            [
                {"ipsecPrfForceTunnelMode": draw(st.sampled_from([1, 2, 5]))},
                {"ipsecPrfGranularity": draw(st.integers(1, 6))},
            ]
        )
    )
    return "ipsecProfileTable", 1, cells


ONE_EDIT = st.one_of(*[rule_edits()] * 3, *[peer_edits()] * 2, scalar_edits(), profile_edits())
PLACES = st.sampled_from([{}, {"interfaces": {2: "eth0"}}, {"default_sources": {4: packed("192.0.2.7")}}])
SETS = st.lists(ONE_EDIT, min_size=1, max_size=3).map(tuple)
FLOWS = [("10.1.0.1/32", "10.2.5.9/32"), ("10.0.0.0/8", "10.0.0.0/8[udp/53]"), ("0.0.0.0/0", "0.0.0.0/0")]
TUNNELS = st.dictionaries(
    st.tuples(st.sampled_from(PEER_NUMBERS), st.sampled_from(RULES)).map(lambda pair: numbers.child_name(*pair)),
    st.sampled_from([True, False, *FLOWS]),
    max_size=3,
)


def world(
    tunnels: Mapping[str, bool | tuple[str, str]],
    names: Mapping[str, tuple[bytes, ...]],
    place: Mapping[str, Any] | None = None,
) -> Environment:
    made: dict[str, Tunnel] = {}
    flows: dict[str, dict[str, Tunnel]] = {}
    for number, (name, what) in enumerate(tunnels.items(), 1):
        remote = packed(peer_address(numbers.peer_and_rule_of_child(name)[0]))
        if isinstance(what, bool):
            made[name] = Tunnel(name, packed(OUR_ADDRESS), remote, 1, 50, what)
        else:
            own, pairs = observed_name(name, *([each] for each in what)), selectors(*([each] for each in what))
            flows[name] = {own: Tunnel(own, packed(OUR_ADDRESS), remote, 1, 50, reqid=number, selectors=pairs)}
    return environment(tunnels=made, flows=flows, names=names, **(place or {}))


def without_reqids(plan: Plan, policy: Policy) -> tuple[Any, ...]:
    """What a policy does, children instead of reqids."""
    children = {reqid: numbers.rule_child(name) for name, reqid in plan.reqids.items()}
    return (
        policy.action,
        tuple((t._replace(reqid=0), children.get(t.reqid, t.reqid)) for t in policy.templates),
        policy.row,
        policy.peer,
    )


def order_of_importance(plan: Plan) -> set[tuple[PolicyKey, PolicyKey]]:
    """Pairs of overlapping policies of different effect, the one looked at first before the other."""
    policies = [(bits(key.selector, key.scope), policy) for key, policy in plan.policies.items()]
    pairs = set()
    for a, first in policies:
        for b, second in policies:
            if first.key.direction is not second.key.direction or first is second or not overlap(a, b):
                continue
            if (first.action, first.templates) != (second.action, second.templates):
                assert first.priority != second.priority
                if first.priority < second.priority:
                    pairs.add((first.key, second.key))
    return pairs


PACKETS = [
    packet(f"{way} {source} > {destination} udp/4000/{port}{origin}{by}")
    for way in ("out", "in", "forward")
    for source, destination in [("10.1.0.1", "10.2.5.9"), ("10.2.5.9", "10.1.0.1"), ("10.2.6.1", "10.2.5.9")]
    for port in (53, 54)
    for origin in ("", " from 1", " from 2")
    for by in ("", " if 2>7")
]


def assert_alike(one: Plan, other: Plan) -> None:
    assert set(one.policies) == set(other.policies)
    for key, policy in one.policies.items():
        assert without_reqids(one, policy) == without_reqids(other, other.policies[key])
    assert order_of_importance(one) == order_of_importance(other)
    for it in PACKETS:
        assert kernel(one.policies, it) == kernel(other.policies, it)
    assert dict(one.verdicts) == dict(other.verdicts)
    assert dict(one.filters) == dict(other.filters)
    assert dict(one.secrets) == dict(other.secrets)
    assert set(one.children) == set(other.children) == set(map(numbers.rule_child, one.reqids))
    assert set(one.reqids) == set(other.reqids)
    assert len(set(one.reqids.values())) == len(one.reqids)
    assert set(one.connections) == set(other.connections)
    for name, connection in one.connections.items():
        twin = other.connections[name]
        assert {c.name for c in connection.children} == {c.name for c in twin.children}
        assert bare(connection.settings) == bare(twin.settings)


def bare(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    children = {name: {**child, "reqid": ""} for name, child in settings["children"].items()}
    return {**settings, "children": children}


def assert_minimal(old: Plan, new: Plan) -> None:
    delta = difference(old, new)
    kernel_holds = {key: policy[:4] for key, policy in old.policies.items()}
    wanted = {key: policy[:4] for key, policy in new.policies.items()}
    assert set(delta.policies_removed) == kernel_holds.keys() - wanted.keys()
    assert {policy.key for policy in delta.policies_added} == wanted.keys() - kernel_holds.keys()
    assert {policy.key for policy in delta.policies_changed} == {
        key for key in wanted.keys() & kernel_holds.keys() if wanted[key] != kernel_holds[key]
    }
    held, named = dict(old.connections), dict(new.connections)
    assert set(delta.connections_removed) == held.keys() - named.keys()
    assert {c.name for c in delta.connections_added} == named.keys() - held.keys()
    assert {c.name for c in delta.connections_changed} == {
        name for name in named.keys() & held.keys() if named[name] != held[name]
    }
    assert {s.id for s in delta.secrets_added} == new.secrets.keys() - old.secrets.keys()
    assert delta.rows >= {
        ref for ref in {*old.verdicts, *new.verdicts} if old.verdicts.get(ref) != new.verdicts.get(ref)
    }


Step = tuple[Edits, dict[str, bool | tuple[str, str]], dict[str, Any], bool, bool]
STARTS = st.lists(SETS, max_size=8)
STEPS = st.lists(st.tuples(SETS, TUNNELS, PLACES, st.booleans(), st.booleans()), min_size=1, max_size=6)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STARTS, STEPS)
def test_a_plan_from_the_previous_one_is_the_plan_from_nothing(start: list[Edits], steps: list[Step]) -> None:
    follow(start, steps)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STARTS, STEPS)
def test_so_it_is_with_many(start: list[Edits], steps: list[Step]) -> None:
    follow(start, steps)


def follow(start: list[Edits], steps: list[Step]) -> None:
    """Each plan made from the one before beside the plan made from nothing."""
    configuration = DictConfiguration(scalars={"ipsecGlobEnabled": 1, "ipsecGlobIpsecProfile": 1})
    for number in PEER_NUMBERS:
        configuration.put(PEERS, number, **peer_cells(number, 3 * number - 2))
    for number in RULES:
        configuration.put(TRAFFIC, number, **rule_cells(f"protect 10.0.0.0/8 10.{number}.0.0/16", 0))
    for edits in start:
        configuration, _ = configuration.edited(*edits)
    plan = make_plan(configuration, world({}, {}))
    for edits, tunnels, place, resolved, discarded in steps:
        candidate, changes = configuration.edited(*edits)
        there = world(tunnels, {"gate.example": (packed("198.51.100.3"),)} if resolved else {}, place)
        after = make_plan(candidate, there, plan, changes)
        assert_alike(after, make_plan(candidate, there))
        assert_minimal(plan, after)
        if discarded:  # a refused SET: the plan made for it is dropped, and the next begins with the one before
            continue
        again = make_plan(candidate, there, plan, changes)  # and the same once more, as the reconciler does
        assert_alike(again, after)
        whole = make_plan(candidate, there, after)
        assert_alike(whole, after)
        assert not difference(after, whole).policies_changed
        configuration, plan = candidate, again


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(0, 4000)), max_size=60))
def test_labels_increase_and_as_many_as_possible_stay(wanted: list[int | None]) -> None:
    labels = assign(wanted)
    assert len(labels) == len(wanted)
    assert all(a < b for a, b in itertools.pairwise(labels))
    assert all(0 <= label < numbers.LABELS for label in labels)
    if all(label is not None for label in wanted) and wanted == sorted(set(wanted)):
        assert labels == wanted


def chain_of(count: int) -> DictConfiguration:
    configuration = DictConfiguration(scalars={"ipsecGlobEnabled": 1})
    for number in range(1, count + 1):
        action = ("protect", "pass", "drop")[number % 3]
        net = f"10.{number // 250}.{number % 250}.0/24"
        text = f"{action} 192.168.0.0/16 {net}"
        configuration.put(TRAFFIC, number, **rule_cells(text, number + 1 if number < count else 0))
    configuration.put(PEERS, 1, **peer_cells(1, 1))
    return configuration


def test_one_changed_rule_of_many_touches_its_own_policies_only() -> None:
    configuration = chain_of(600)
    plan = make_plan(configuration, environment())
    for action in (3, 5, 4, 3):
        configuration, changes = configuration.edited((TRAFFIC, 300, {"ipsecTrAction": action}))
        after = make_plan(configuration, environment(), plan, changes)
        delta = difference(plan, after)
        touched = [*delta.policies_removed, *delta.policies_added, *delta.policies_changed]
        assert 0 < len(touched) <= 10
        assert {policy.row.number for policy in (*delta.policies_added, *delta.policies_changed)} <= {300}
        plan = after


@pytest.mark.parametrize(("before", "after"), [(2, -1), (-1, 2), (2, 3)])
def test_a_drop_rule_that_is_only_about_another_interface_moves_the_companions_of_others(
    before: int, after: int
) -> None:
    """Else what a protect rule before it takes is dropped at its other stage, or passes there."""
    drop = rule_cells("drop any any") | {"ipsecTrInterface": before}
    configuration = DictConfiguration(scalars={"ipsecGlobEnabled": 1})
    configuration.put(TRAFFIC, 1, **rule_cells("protect 10.1.0.0/16 10.2.0.0/16", 2))
    configuration.put(TRAFFIC, 2, **drop)
    configuration.put(PEERS, 1, **peer_cells(1, 1))
    plan = make_plan(configuration, environment())
    configuration, changes = configuration.edited((TRAFFIC, 2, {"ipsecTrInterface": after}))
    assert_alike(make_plan(configuration, environment(), plan, changes), make_plan(configuration, environment()))


@pytest.mark.slow
def test_rules_put_in_at_one_place_again_and_again_keep_the_priorities_of_nearly_all() -> None:
    configuration = chain_of(600)
    plan = make_plan(configuration, environment())
    moved = 0
    for number in range(1001, 1101):  # each right behind rule 300
        after_it = configuration.tables[TRAFFIC][300]["ipsecTrNextIndex"]
        net = f"172.16.{number - 1000}.0/24"
        configuration, changes = configuration.edited(
            (TRAFFIC, number, rule_cells(f"drop 192.168.0.0/16 {net}", int(after_it))),  # type: ignore[arg-type]
            (TRAFFIC, 300, {"ipsecTrNextIndex": number}),
        )
        after = make_plan(configuration, environment(), plan, changes)
        delta = difference(plan, after)
        assert len(delta.policies_added) == 5
        moved += len(delta.policies_changed)
        plan = after
    assert moved < 100 * 5 * 10
    assert_alike(plan, make_plan(configuration, environment()))


def test_reqids_are_kept_and_freed_with_the_child() -> None:
    configuration = chain_of(30)
    kept = {numbers.child_name(1, 3): numbers.REQID_FIRST + 77, "something-else": 5}
    plan = make_plan(configuration, environment(reqids=kept))
    assert plan.reqids[numbers.child_name(1, 3)] == numbers.REQID_FIRST + 77
    assert all(numbers.is_our_reqid(reqid) for reqid in plan.reqids.values())
    before = dict(plan.reqids)
    configuration, changes = configuration.edited((TRAFFIC, 3, {"ipsecTrAction": 5}))
    plan = make_plan(configuration, environment(), plan, changes)
    assert numbers.child_name(1, 3) not in plan.reqids
    assert {name: reqid for name, reqid in before.items() if name in plan.reqids} == dict(plan.reqids)
    configuration, changes = configuration.edited((PEERS, 1, {"ipsecPeerAdminStatus": 2}))
    assert not make_plan(configuration, environment(), plan, changes).reqids


def test_switching_off_empties_the_plan_and_on_again_fills_it() -> None:
    configuration = chain_of(30)
    plan = make_plan(configuration, environment())
    off, changes = configuration.edited(("ipsecGlobals", 0, {"ipsecGlobEnabled": 2}))
    empty = make_plan(off, environment(), plan, changes)
    assert not empty.policies and not empty.connections and not empty.secrets and not empty.reqids
    delta = difference(plan, empty)
    assert len(delta.policies_removed) == len(plan.policies)
    assert set(delta.connections_removed) == set(plan.connections)
    on, changes = off.edited(("ipsecGlobals", 0, {"ipsecGlobEnabled": 1}))
    assert_alike(make_plan(on, environment(), empty, changes), plan)
