"""A plan made from the one before is what a plan from nothing would be: interfaces, backup peers, live tunnels, links.

Random walks of edits and of what the world does, each step compared with a fresh plan: policies, links, routes for
calling, packet filter, connections, verdicts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.mib.ber import Value
from agent.plan import numbers
from agent.plan.capabilities import CHARON
from agent.plan.model import Environment, PolicyKey, Tunnel
from agent.plan.planner import make_plan
from agent.plan.result import Plan
from tests.plan_helpers import DictChange, DictConfiguration, configuration, environment, packed, rule_cells

PEERS, RULES, ROUTES, SELECTORS = (
    "ipsecPeerTable",
    "ipsecTrafficTable",
    "ipsecGwPeerRouteTable",
    "ipsecPeerTrafficTable",
)
WORLD = environment(capabilities=CHARON)
NETS = ("10.2.0.0/16", "10.9.0.0/16")
Edited = tuple[str, int, dict[str, Value] | None]


def start() -> DictConfiguration:
    return configuration({peer: [f"protect 10.1.0.0/16 {net}" for net in NETS] for peer in (7, 8, 9)})


def edit_of_a_row() -> st.SearchStrategy[Edited]:
    peer = st.sampled_from((7, 8, 9))
    rule = st.sampled_from([100 * number + place for number in (7, 8, 9) for place in (1, 2)])
    values: dict[str, tuple[Value, ...]] = {
        "ipsecPeerVirtualInterface": (1, 2),
        "ipsecPeerAdminStatus": (1, 2),
        "ipsecPeerTrafficList": (0, 701, 702, 801, 902),
        "ipsecPeerDynamicAddress": (b"198.51.100.77",),
    }
    cells: list[dict[str, Value]] = [{name: value} for name, several in values.items() for value in several]
    return st.one_of(
        st.tuples(st.just(PEERS), peer, st.sampled_from([*cells, None])),
        st.tuples(
            st.just(RULES),
            rule,
            st.sampled_from(
                [*(rule_cells(f"{act} 10.1.0.0/16 {NETS[0]}") for act in ("pass", "drop", "protect")), None]
            ),
        ),
        st.tuples(
            st.just(ROUTES),
            st.integers(1, 3),
            st.builds(
                lambda peer, net: {
                    "ipsecGwPeerRoutePeer": peer,
                    "ipsecGwPeerRouteDestination": packed(net),
                    "ipsecGwPeerRoutePrefixLength": 16,
                },
                peer,
                st.sampled_from(("10.20.0.0", "10.30.0.0")),
            ),
        ),
        st.tuples(
            st.just(SELECTORS),
            st.integers(1, 3),
            st.builds(
                lambda peer, role: {
                    "ipsecPeerTrafficIfindex": numbers.interface_number(peer),
                    "ipsecPeerTrafficProtocol": 256,
                    "ipsecPeerTrafficType": 3,
                    "ipsecPeerTrafficPolicy": role,
                },
                peer,
                st.integers(2, 6),
            ),
        ),
    )


def world() -> st.SearchStrategy[dict[str, Any]]:
    children = [f"peer-{peer}-rule-{rule}" for peer in (7, 8, 9) for rule in (0, 1, 100 * peer + 1)]
    tunnel = st.builds(lambda remote, ipcomp: ("198.51.100." + str(remote), ipcomp), st.integers(7, 12), st.booleans())
    return st.fixed_dictionaries(
        {
            "takeovers": st.dictionaries(st.sampled_from((7, 8)), st.sampled_from((8, 9)), max_size=2),
            "tunnels": st.dictionaries(st.sampled_from(children), tunnel, max_size=3),
        }
    )


def there(made: dict[str, Any]) -> Environment:
    tunnels = {
        name: Tunnel(name, packed("192.0.2.1"), packed(remote), 1, 50, ipcomp)
        for name, (remote, ipcomp) in made["tunnels"].items()
    }
    return replace(WORLD, tunnels=tunnels, takeovers={k: v for k, v in made["takeovers"].items() if k != v})


def seen(plan: Plan) -> dict[str, object]:
    """Without priorities, of which only the order counts."""
    decided: dict[PolicyKey, object] = {
        key: (policy.action, policy.templates, policy.row, policy.peer) for key, policy in plan.policies.items()
    }
    return {
        "policies": decided,
        "links": dict(plan.links),
        "calls": dict(plan.calls),
        "filters": dict(plan.filters),
        "connections": {name: each.settings for name, each in plan.connections.items()},
        "children": dict(plan.children),
        "verdicts": dict(plan.verdicts),
    }


def rested(made: DictConfiguration, idle: set[int]) -> tuple[DictConfiguration, tuple[DictChange, ...]]:
    """With these rules out of service."""
    after = DictConfiguration(
        made.tables, made.scalars, made.generation + 1, frozenset((RULES, number) for number in idle)
    )
    changes = []
    for number in made.tables[RULES]:
        before, now = made.row(RULES, number), after.row(RULES, number)
        if (before is None) != (now is None):
            changes.append(DictChange(RULES, number, before, now, frozenset({"ipsecGwTrafficRowStatus"})))
    return after, tuple(changes)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.tuples(st.sets(st.sampled_from((701, 702, 801, 901, 902))), st.lists(edit_of_a_row(), max_size=2)),
        min_size=1,
        max_size=6,
    )
)
def test_rules_out_of_service_as_from_nothing(steps: list[tuple[set[int], list[Edited]]]) -> None:
    made = start()
    plan = make_plan(made, WORLD)
    for idle, edits in steps:
        made, changes = rested(made, idle)
        plan = make_plan(made, replace(WORLD, reqids=plan.reqids), plan, changes)
        assert seen(plan) == seen(make_plan(made, replace(WORLD, reqids=plan.reqids)))
        made, changes = made.edited(*edits)
        plan = make_plan(made, replace(WORLD, reqids=plan.reqids), plan, changes)
        assert seen(plan) == seen(make_plan(made, replace(WORLD, reqids=plan.reqids)))


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.lists(edit_of_a_row(), max_size=3), world()), min_size=1, max_size=6))
def test_step_by_step_as_from_nothing(steps: list[tuple[list[Edited], dict[str, Any]]]) -> None:
    made = start()
    plan = make_plan(made, WORLD)
    for edits, around in steps:
        made, changes = made.edited(*edits)
        plan = make_plan(made, replace(there(around), reqids=plan.reqids), plan, changes)
        fresh = make_plan(made, replace(there(around), reqids=plan.reqids))
        assert seen(plan) == seen(fresh)


def test_routes_do_not_stay_with_a_backup_peer_that_another_took_over_from() -> None:
    """What happens between two plans is seen as one step."""
    virtual = {"ipsecPeerVirtualInterface": 2}
    made, _ = start().edited(*((PEERS, peer, virtual) for peer in (7, 8, 9)))
    made.put(
        ROUTES,
        1,
        ipsecGwPeerRoutePeer=7,
        ipsecGwPeerRouteDestination=packed("10.20.0.0"),
        ipsecGwPeerRoutePrefixLength=16,
    )
    plan = make_plan(made, replace(WORLD, takeovers={7: 8}))
    assert plan.links[8].routes and not plan.links[9].routes
    plan = make_plan(made, replace(WORLD, takeovers={7: 9}), plan, ())
    assert plan.links[9].routes and not plan.links[8].routes
