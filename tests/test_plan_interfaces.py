"""Virtual interfaces, links for calling, addresses in turn, backup peers and packet filter parts, in the plan."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.mib.ber import Value
from agent.plan import numbers, outbound
from agent.plan.capabilities import CHARON
from agent.plan.check import RuleError, check_rules
from agent.plan.explain import explain
from agent.plan.inbound import PART, marking
from agent.plan.interfaces import mss_part, private_part
from agent.plan.links import (
    ELSEWHERE,
    GUARD_METRIC,
    LINK_LOCAL,
    NOWHERE,
    Address,
    CallRoute,
    Route,
    VirtualLink,
    guards,
    routing_rules,
    steered,
)
from agent.plan.model import (
    Action,
    ApplyState,
    Direction,
    Environment,
    Flow,
    Policy,
    PolicyKey,
    Prefix,
    RowRef,
    Scope,
    Template,
    Tunnel,
)
from agent.plan.peer_selectors import mask_length, port_blocks
from agent.plan.planner import make_plan
from agent.plan.result import Plan
from agent.plan.state import Clamped
from agent.plan.virtual import WHY_CAME
from tests.plan_helpers import DictConfiguration, configuration, environment, packed

PEER, NUMBER = "ipsecPeerTable", 100_007
VIRTUAL: Mapping[str, Value] = {"ipsecPeerVirtualInterface": 2}
RULE = "protect 10.1.0.0/16 10.2.0.0/16"
WORLD = environment(capabilities=CHARON)


def virtual(**more: Value) -> DictConfiguration:
    """Peer 7 with a virtual interface and an address and a route on it; peer 9 with a rule."""
    made = configuration({7: [RULE], 9: ["protect 10.1.0.0/16 10.9.0.0/16"]}, peers={7: {**VIRTUAL, **more}})
    made.put(
        "ipsecGwPeerAddressTable",
        1,
        ipsecGwPeerAddressPeer=7,
        ipsecGwPeerAddressAddress=packed("172.16.0.1"),
        ipsecGwPeerAddressPrefixLength=30,
        ipsecGwPeerAddressRemote=packed("172.16.0.2"),
    )
    made.put(
        "ipsecGwPeerRouteTable",
        1,
        ipsecGwPeerRoutePeer=7,
        ipsecGwPeerRouteDestination=packed("10.7.0.0"),
        ipsecGwPeerRoutePrefixLength=16,
        ipsecGwPeerRouteMetric=3,
    )
    return made


def selector_row(made: DictConfiguration, number: int, **cells: Value) -> None:
    usual: dict[str, Value] = {"ipsecPeerTrafficIfindex": NUMBER, "ipsecPeerTrafficProtocol": 256}
    made.put("ipsecPeerTrafficTable", number, **(usual | {f"ipsecPeerTraffic{k}": v for k, v in cells.items()}))


def with_if_id(plan: Plan) -> list[Policy]:
    return [policy for key, policy in plan.policies.items() if key.scope.if_id]


def show(policies: Sequence[Policy]) -> set[str]:
    return {
        f"{p.key.direction.name} "
        + " ".join(
            f"{ipaddress.ip_address(net.address)}/{net.length}"
            for net in (p.key.selector.source, p.key.selector.destination)
        )
        for p in policies
    }


def decided(plan: Plan) -> dict[PolicyKey, tuple[Action, tuple[Template, ...]]]:
    """Without priorities, of which only the order counts."""
    return {key: (policy.action, policy.templates) for key, policy in plan.policies.items()}


def anew(plan: Plan) -> Plan:
    """The same from nothing, with the same request ids."""
    return make_plan(plan.configuration, replace(plan.environment, reqids=plan.reqids))


def child(plan: Plan, name: str, peer: int = 7) -> Mapping[str, object]:
    children = plan.connections[f"peer-{peer}"].settings["children"]
    assert isinstance(children, Mapping)
    found = children[name]
    assert isinstance(found, Mapping)
    return found


# ---- the interface ------------------------------------------------------------------------


def test_a_peer_with_a_virtual_interface_has_a_link_with_addresses_and_routes() -> None:
    """Number = peer + 100000, interface id the same (ipsecPeerVirtualInterface, guide 3.4)."""
    link = make_plan(virtual(), WORLD).links[7]
    assert (link.number, link.name, link.mtu) == (NUMBER, "ipsec7", 1418)
    assert link.addresses == (Address(packed("172.16.0.1"), 30, packed("172.16.0.2")),)
    assert link.routes == (Route(Prefix(packed("10.7.0.0"), 16), NUMBER, 3),)


def test_its_traffic_list_is_ignored_and_everything_is_protected_by_its_own_policies() -> None:
    plan = make_plan(virtual(), WORLD)
    assert show(with_if_id(plan)) == {f"{way} 0.0.0.0/0 0.0.0.0/0" for way in ("OUT", "IN", "FWD")}
    assert all(p.templates and p.key.scope == Scope(if_id=NUMBER) and p.peer == 7 for p in with_if_id(plan))
    assert not any(p.row == RowRef("ipsecTrafficTable", 701) for p in plan.policies.values())
    settings = child(plan, "peer-7-rule-0")
    assert settings["local_ts"] == settings["remote_ts"] == ["0.0.0.0/0"]
    assert settings["if_id_in"] == settings["if_id_out"] == str(NUMBER)
    assert set(plan.connections) == {"peer-7", "peer-7-r", "peer-9", "peer-9-r"}


def test_other_policies_let_through_what_is_routed_to_it_and_nothing_else() -> None:
    """Behind the pre list, before the peers' rules, by the link the packet is to leave by."""
    plan = make_plan(virtual(), WORLD)
    routed = [p for key, p in plan.policies.items() if key.scope.interface]
    assert {(p.key.direction, len(p.key.selector.source.address)) for p in routed} == {
        (direction, width) for direction in (Direction.OUT, Direction.FWD) for width in (4, 16)
    }
    assert all(p.key.scope == Scope(interface=NUMBER) and p.action is Action.ALLOW for p in routed)
    assert {p.priority for p in routed} == {numbers.PRIORITY_PEERS - 1}
    flow = Flow(packed("10.3.0.1"), packed("10.4.0.1"), 6, 1, 2)
    assert explain(plan, flow).decision == "drop"  # to no rule and no interface: the default rule
    there = flow._replace(way="forward", to_interface=NUMBER)
    assert str(explain(plan, there)) == "protect: the interface of peer 7: tunnel of peer 7"
    back = flow._replace(way="forward", from_interface=NUMBER, decrypted=7)
    assert str(explain(plan, back)) == f"pass: the interface of peer 7: {WHY_CAME}"
    assert explain(plan, back._replace(decrypted=9)).decision == "drop"  # out of another's tunnel


def test_what_came_out_of_it_goes_on_where_there_is_a_packet_filter() -> None:
    plan = make_plan(virtual(), WORLD)
    marked = [p for key, p in plan.policies.items() if key.scope.mask]
    assert {p.key.direction for p in marked} == {Direction.OUT} and len(marked) == 2
    assert {key.scope.mark for key in plan.policies if key.scope.mask} == {numbers.interface_mark(NUMBER)}
    assert plan.filters[PART].part == marking([NUMBER]) and plan.filters[PART].rows == {RowRef(PEER, 7)}
    without = environment(capabilities=replace(CHARON, nftables=False, nftables_lack="no nft"))
    plan = make_plan(virtual(), without)
    assert not any(key.scope.mask for key in plan.policies) and plan.filters == {}


def test_ipv6_packets_from_its_address_to_where_it_leads_wait_for_the_second_question() -> None:
    """The first is about no interface and no mark yet."""
    made = virtual(ipsecPeerIkeVersion=2)
    own, net = packed("2001:db8:7::1"), packed("2001:db8:ffff::")
    address: dict[str, Value] = {"ipsecGwPeerAddressPeer": 7, "ipsecGwPeerAddressAddress": own}
    made.put("ipsecGwPeerAddressTable", 2, **address, ipsecGwPeerAddressPrefixLength=64)
    route: dict[str, Value] = {"ipsecGwPeerRoutePeer": 7, "ipsecGwPeerRouteDestination": net}
    made.put("ipsecGwPeerRouteTable", 2, **route, ipsecGwPeerRoutePrefixLength=48)
    plan = make_plan(made, WORLD)
    first = [p for key, p in plan.policies.items() if key.scope == Scope(mark=0, mask=numbers.MARK_MASK)]
    assert show(first) == {"OUT 2001:db8:7::1/128 2001:db8:ffff::/48"}
    packet = Flow(own, packed("2001:db8:ffff::9"), 17, to_interface=NUMBER)
    assert str(explain(plan, packet)) == "protect: the interface of peer 7: tunnel of peer 7"
    assert explain(plan, packet._replace(to_interface=3)).decision == "drop"
    assert explain(plan, packet._replace(source=packed("2001:db8:5::1"))).decision == "drop"
    assert plan.filters[outbound.PART].part == outbound.asking_again([NUMBER], 500, [own])
    without = replace(WORLD, capabilities=replace(CHARON, nftables=False))
    assert not any(key.scope.mask for key in make_plan(made, without).policies)


def test_a_kernel_without_such_interfaces_fails_the_row() -> None:
    plan = make_plan(virtual(), environment(capabilities=replace(CHARON, interfaces_lack="no XFRM interfaces here")))
    verdict = plan.verdicts[RowRef(PEER, 7)]
    assert verdict.state is ApplyState.FAILED and verdict.text == "no XFRM interfaces here"
    assert not plan.links and not with_if_id(plan) and "peer-7" not in plan.connections


def test_it_goes_with_the_peer_and_with_the_setting() -> None:
    before = virtual()
    plan = make_plan(before, WORLD)
    for edit in ((PEER, 7, None), (PEER, 7, {"ipsecPeerVirtualInterface": 1})):
        after, changes = before.edited(edit)
        later = make_plan(after, WORLD, plan, changes)
        assert not later.links and not with_if_id(later)
        assert not any(key.scope.interface or key.scope.mask for key in later.policies)
        assert decided(later) == decided(anew(later))


def test_templates_follow_the_tunnel_that_came_up() -> None:
    plan = make_plan(virtual(ipsecPeerDynamicAddress=b""), WORLD)
    assert not with_if_id(plan) and 7 in plan.links  # it has to call us
    tunnel = Tunnel("peer-7-rule-0", packed("192.0.2.1"), packed("203.0.113.77"), 1, 50)
    world = replace(WORLD, tunnels={tunnel.child: tunnel})
    plan = make_plan(plan.configuration, world, plan, ())
    assert {p.templates[0].destination for p in with_if_id(plan) if p.key.direction is Direction.OUT} == {
        packed("203.0.113.77")
    }


@pytest.mark.parametrize(("own", "global_", "mtu"), [(0, 0, 1418), (0, 1300, 1300), (1200, 1300, 1200), (100, 0, 214)])
def test_mtu_comes_from_the_profile_the_global_one_or_is_built_in(own: int, global_: int, mtu: int) -> None:
    """1 to 213 are raised to 214 (ikePrfMtuMax)."""
    made = virtual(ipsecPeerIkeProfile=2)
    made.put("ikeProfileTable", 1, ikePrfMtuMax=global_)
    made.put("ikeProfileTable", 2, ikePrfMtuMax=own)
    made.scalars["ipsecGlobIkeProfile"] = 1
    plan = make_plan(made, WORLD)
    assert plan.links[7].mtu == mtu and plan.mtu(7) == mtu and plan.mtu(9) == (global_ or 1418)


# ---- its selectors --------------------------------------------------------------------------


def test_a_row_of_both_sides_is_a_child_of_its_own() -> None:
    made = virtual()
    selector_row(
        made,
        3,
        LocalAddress=packed("10.1.0.0"),
        LocalMask=packed("255.255.0.0"),
        RemoteAddress=packed("10.7.0.0"),
        RemoteMask=packed("255.255.255.0"),
        Protocol=17,
        RemotePort=53,
    )
    plan = make_plan(made, WORLD)
    settings = child(plan, "peer-7-rule-3")
    assert settings["local_ts"] == ["10.1.0.0/16[17]"] and settings["remote_ts"] == ["10.7.0.0/24[17/53]"]
    assert show(with_if_id(plan)) == {
        "OUT 10.1.0.0/16 10.7.0.0/24",
        "IN 10.7.0.0/24 10.1.0.0/16",
        "FWD 10.7.0.0/24 10.1.0.0/16",
    }
    (out,) = [p for p in with_if_id(plan) if p.key.direction is Direction.OUT]
    assert out.key.selector.protocol == 17 and out.key.selector.destination_port == (53, 0xFFFF)


def test_explain_names_the_selector_by_its_label() -> None:
    """ipsecPeerTrafficDescription."""
    made = virtual()
    net = {"LocalAddress": packed("10.1.0.0"), "LocalMask": packed("255.255.0.0")}
    selector_row(made, 3, **net, Description=b"printers")
    plan = make_plan(made, WORLD)
    came = Flow(packed("10.7.0.1"), packed("10.1.0.1"), 6, 1, 2, "in", 7, NUMBER)
    assert str(explain(plan, came)) == 'protect: selector 3 "printers" of peer 7: tunnel of peer 7'


def test_local_and_remote_rows_are_one_child_with_ikev2() -> None:
    made = virtual(ipsecPeerIkeVersion=2)
    made.scalars["ipsecGlobIkev2Enabled"] = 1
    for number, net in ((1, "10.1.0.0"), (2, "10.3.0.0")):
        selector_row(made, number, Type=1, LocalAddress=packed(net), LocalMask=packed("255.255.0.0"))
    selector_row(
        made, 4, Type=2, Ip6RemoteAddress=packed("2001:db8:7::"), Ip6RemoteMaskLen=48,
        RemoteAddress=packed("10.7.0.0"), RemoteMask=packed("255.255.0.0"),
    )  # fmt: skip
    plan = make_plan(made, WORLD)
    settings = child(plan, "peer-7-rule-0")
    assert settings["local_ts"] == ["10.1.0.0/16", "10.3.0.0/16"]
    assert settings["remote_ts"] == ["10.7.0.0/16", "2001:db8:7::/48"]
    assert {p for p in show(with_if_id(plan)) if p.startswith("OUT")} == {
        "OUT 10.1.0.0/16 10.7.0.0/16",
        "OUT 10.3.0.0/16 10.7.0.0/16",
    }


def test_port_ranges_are_counts_and_become_blocks() -> None:
    made = virtual(ipsecPeerIkeVersion=2)
    made.scalars["ipsecGlobIkev2Enabled"] = 1
    selector_row(made, 1, Protocol=6, LocalPort=1000, LocalPortRange=8)
    plan = make_plan(made, WORLD)
    assert child(plan, "peer-7-rule-1")["local_ts"] == ["0.0.0.0/0[6/1000-1007]"]
    assert len(with_if_id(plan)) == 3  # 1000 to 1007 is one block


@given(st.integers(1, 65535), st.integers(1, 65535))
def test_blocks_are_the_range_and_nothing_more(one: int, other: int) -> None:
    low, high = sorted((one, other))
    blocks = port_blocks(low, high)
    assert sum((~mask & 0xFFFF) + 1 for _, mask in blocks) == high - low + 1
    assert all(low <= port and port | (~mask & 0xFFFF) <= high and port & mask == port for port, mask in blocks)
    assert len(blocks) <= 30


def test_roles_say_who_begins() -> None:
    made = virtual()
    for number, role in ((1, 2), (2, 3), (3, 4)):
        selector_row(
            made, number, Policy=role, LocalAddress=packed(f"10.{number}.0.0"), LocalMask=packed("255.255.0.0")
        )
    children = {c.rule: (c.starts, c.answers) for c in make_plan(made, WORLD).children.values() if c.peer == 7}
    assert children == {1: (True, False), 2: (False, True), 3: (True, True)}


def routed(made: DictConfiguration, number: int = 1, **cells: Value) -> None:
    """A row whose selector leads to the interface whatever the routes say."""
    usual: dict[str, Value] = {"Policy": 6, "LocalAddress": packed("10.1.0.0"), "LocalMask": packed("255.255.0.0")}
    remote: dict[str, Value] = {"RemoteAddress": packed("10.7.8.0"), "RemoteMask": packed("255.255.255.0")}
    selector_row(made, number, **(usual | remote | cells))


def shown(link: VirtualLink) -> list[str]:
    """Routing rules as `ip rule` has them."""
    found = []
    for rule in link.rules:
        ports = "".join(
            f" {name} {first}-{last}"
            for name, (first, last) in (("sport", rule.source_ports), ("dport", rule.destination_ports))
            if last
        )
        nets = " to ".join(
            f"{ipaddress.ip_address(net.address)}/{net.length}" for net in (rule.source, rule.destination)
        )
        own = " own" if rule.own else ""
        found.append(f"{nets}{f' proto {rule.protocol}' if rule.protocol else ''}{ports}{own} table {rule.table}")
    return found


EVERYTHING = "0.0.0.0/0 to 0.0.0.0/0"
OWN_IKE = [f"{EVERYTHING} proto 17 sport {port}-{port} own table 254" for port in (500, 4500)]


@pytest.mark.parametrize("role", [2, 3, 4])
def test_selectors_of_other_roles_lead_nowhere(role: int) -> None:
    made = virtual()
    routed(made, Policy=role)
    link = make_plan(made, WORLD).links[7]
    assert link.rules == () and len(link.routes) == 1


@pytest.mark.parametrize(("role", "starts"), [(5, (True, False)), (6, (True, True))])
def test_selectors_with_an_extended_route_lead_to_the_interface(role: int, starts: tuple[bool, bool]) -> None:
    """role-initiator-syncrt is role-initiator, both-syncrt both; besides, its packets go to the interface."""
    made = virtual()
    routed(made, Policy=role)
    plan = make_plan(made, WORLD)
    link = plan.links[7]
    assert shown(link) == [*OWN_IKE, f"10.1.0.0/16 to 10.7.8.0/24 table {NUMBER}"]
    everything = Prefix(bytes(4), 0)
    assert link.routes[1:] == (Route(everything, NUMBER, table=NUMBER),)
    assert Route(everything, NOWHERE, GUARD_METRIC, table=NUMBER) in guards([link])
    (child,) = (c for c in plan.children.values() if c.peer == 7)
    assert (child.starts, child.answers) == starts


def test_protocol_and_ports_of_the_selector_are_those_of_the_rule() -> None:
    made = virtual(ipsecPeerIkeVersion=2)
    routed(made, Protocol=17, LocalPort=5000, LocalPortRange=10, RemotePort=53)
    assert shown(make_plan(made, WORLD).links[7])[2:] == [
        f"10.1.0.0/16 to 10.7.8.0/24 proto 17 sport 5000-5009 dport 53-53 table {NUMBER}"
    ]


def test_ipv6_selectors_lead_there_too_and_what_is_link_local_does_not() -> None:
    made = virtual(ipsecPeerIkeVersion=2)
    nets: dict[str, Value] = {"Ip6LocalAddress": packed("2001:db8:1::"), "Ip6LocalMaskLen": 48}
    selector_row(made, 1, Policy=5, Type=1, **nets)
    selector_row(made, 2, Policy=2, Type=2, Ip6RemoteMaskLen=48, Ip6RemoteAddress=packed("2001:db8:7::"))
    link = make_plan(made, WORLD).links[7]
    assert f"2001:db8:1::/48 to 2001:db8:7::/48 table {NUMBER}" in shown(link)
    assert Route(LINK_LOCAL, ELSEWHERE, GUARD_METRIC, table=NUMBER) in guards([link])
    assert steered([link], Flow(packed("2001:db8:1::1"), packed("2001:db8:7::9"), 17)) == NUMBER
    assert steered([link], Flow(packed("2001:db8:2::1"), packed("2001:db8:7::9"), 17)) == 0
    assert steered([link], Flow(packed("10.1.0.1"), packed("10.7.8.1"), 17)) == 0


def test_the_tunnel_itself_and_our_own_ike_are_not_led_into_it() -> None:
    """A selector of everything has the packets of the tunnel too."""
    made = virtual()
    routed(made, LocalAddress=bytes(4), LocalMask=bytes(4), RemoteAddress=bytes(4), RemoteMask=bytes(4))
    link = make_plan(made, WORLD).links[7]
    outer = "0.0.0.0/0 to 198.51.100.7/32 own table 254"
    assert shown(link) == [*OWN_IKE, outer, f"{EVERYTHING} table {NUMBER}"]
    here, there, beyond = packed("192.0.2.1"), packed("198.51.100.7"), packed("203.0.113.1")
    assert steered([link], Flow(here, there, 50)) == 0
    assert steered([link], Flow(bytes(4), there, 17)) == 0
    assert steered([link], Flow(here, beyond, 17, 500, 500)) == 0
    assert steered([link], Flow(packed("10.1.0.1"), beyond, 17, 500, 500, "forward")) == NUMBER
    assert steered([link], Flow(here, beyond, 17, 53, 53)) == NUMBER
    moved = Tunnel("peer-7-rule-1", here, packed("203.0.113.77"), 1, 50)
    roamed = make_plan(made, replace(WORLD, tunnels={"peer-7-rule-1": moved})).links[7]
    assert "0.0.0.0/0 to 203.0.113.77/32 own table 254" in shown(roamed)


def test_of_overlapping_selectors_the_peer_with_the_lower_priority_number_comes_first() -> None:
    made = virtual(ipsecPeerPriority=2)
    made.put(PEER, 9, **{**dict(made.tables[PEER][9].cells()), **VIRTUAL, "ipsecPeerPriority": 1})
    routed(made)
    routed(made, 2, Ifindex=100_009, RemoteMask=packed("255.255.0.0"), RemoteAddress=packed("10.7.0.0"))
    links = make_plan(made, WORLD).links.values()
    flow = Flow(packed("10.1.0.1"), packed("10.7.8.1"), 1)
    assert steered(links, flow) == 100_009
    assert [rule.table for rule in routing_rules(links)] == [254, 254, 100_009, NUMBER]


def test_selectors_lead_to_the_backups_interface_while_it_stands_for_the_peer() -> None:
    made = virtual()
    made.put(PEER, 9, **{**dict(made.tables[PEER][9].cells()), **VIRTUAL})
    routed(made)
    plan = make_plan(made, WORLD)
    taken = make_plan(made, replace(WORLD, takeovers={7: 9}), plan, ())
    assert taken.links[7].rules == ()
    assert shown(taken.links[9]) == [*OWN_IKE, "10.1.0.0/16 to 10.7.8.0/24 table 100009"]
    assert Route(Prefix(bytes(4), 0), 100_009, table=100_009) in taken.links[9].routes
    assert make_plan(made, WORLD, taken, ()).links == plan.links


def test_only_a_virtual_interface_can_be_led_to() -> None:
    """Otherwise refused, saying what is accepted; of the two in one SET the order does not matter."""
    before = virtual()
    selector_row(before, 1)
    disabled, _ = before.edited((PEER, 7, {"ipsecPeerVirtualInterface": 1}))

    def refused(start: DictConfiguration, *edits: tuple[str, int, dict[str, Value]]) -> str:
        after, changes = start.edited(*edits)
        named = [(table, row, column, value) for table, row, cells in edits for column, value in cells.items()]
        try:
            check_rules(start, after, changes, named, CHARON)
        except RuleError as error:
            assert named[error.position][2] == "ipsecPeerTrafficPolicy"
            return error.text
        return ""

    for role in (5, 6):
        edit = ("ipsecPeerTrafficTable", 1, {"ipsecPeerTrafficPolicy": role})
        assert refused(before, edit) == ""
        text = refused(disabled, edit)
        assert "the peer has none; accepted: role-initiator(2), role-responder(3), both(4)" in text
        assert refused(disabled, edit, (PEER, 7, {"ipsecPeerVirtualInterface": 2})) == ""
    assert refused(disabled, ("ipsecPeerTrafficTable", 1, {"ipsecPeerTrafficPolicy": 4})) == ""


def test_selectors_come_and_go_with_their_rows() -> None:
    made = virtual()
    plan = make_plan(made, WORLD)

    cells: Mapping[str, Value] = {
        "ipsecPeerTrafficIfindex": NUMBER,
        "ipsecPeerTrafficProtocol": 256,
        "ipsecPeerTrafficLocalAddress": packed("10.1.0.0"),
        "ipsecPeerTrafficLocalMask": packed("255.255.0.0"),
    }
    after, changes = made.edited(("ipsecPeerTrafficTable", 1, cells))
    later = make_plan(after, WORLD, plan, changes)
    assert {c.name for c in later.children.values() if c.peer == 7} == {"peer-7-rule-1"}
    assert decided(later) == decided(anew(later))
    again, changes = after.edited(("ipsecPeerTrafficTable", 1, None))
    assert make_plan(again, WORLD, later, changes).policies.keys() == plan.policies.keys()


def test_masks_have_no_holes() -> None:
    assert mask_length(packed("255.255.240.0")) == 20 and mask_length(bytes(4)) == 0
    assert mask_length(packed("255.0.255.0")) is None


# ---- by which link and which address ------------------------------------------------------------


LINKS = {3: (packed("192.0.2.33"), packed("2001:db8::33")), 4: (packed("2001:db8::44"),)}


def test_force_takes_the_links_address_and_a_host_route() -> None:
    """ipsecPeerPublicIfIndexMode force: even against a better route."""
    made = configuration({7: [RULE]}, peers={7: {"ipsecPeerPublicIfIndex": 3}})
    plan = make_plan(made, environment(link_addresses=LINKS))
    assert plan.calls == {7: CallRoute(7, packed("198.51.100.7"), 3)}
    assert plan.connections["peer-7"].settings["local_addrs"] == ["192.0.2.33"]
    assert {
        p.templates[0].source for p in plan.policies.values() if p.templates and p.key.direction is Direction.OUT
    } == {packed("192.0.2.33")}
    after, changes = made.edited((PEER, 7, {"ipsecPeerPublicIfIndex": -1}))
    assert not make_plan(after, environment(link_addresses=LINKS), plan, changes).calls


def test_preferred_makes_no_route_and_yields_to_a_better_one() -> None:
    cells: Mapping[str, Value] = {"ipsecPeerPublicIfIndex": 3, "ipsecPeerPublicIfIndexMode": 2}
    made = configuration({7: [RULE]}, peers={7: cells})
    elsewhere = make_plan(made, environment(link_addresses=LINKS))
    assert not elsewhere.calls and elsewhere.connections["peer-7"].settings["local_addrs"] == ["192.0.2.1"]
    there = environment(link_addresses={3: (packed("192.0.2.33"), packed("192.0.2.1"))})
    assert make_plan(made, there).connections["peer-7"].settings["local_addrs"] == ["192.0.2.33"]


@pytest.mark.parametrize("link", [4, 9])
def test_a_link_without_a_fitting_address_fails_the_row(link: int) -> None:
    plan = make_plan(
        configuration({7: [RULE]}, peers={7: {"ipsecPeerPublicIfIndex": link}}), environment(link_addresses=LINKS)
    )
    verdict = plan.verdicts[RowRef(PEER, 7)]
    assert verdict.state is ApplyState.FAILED and f"number {link} has an IPv4 address" in verdict.text
    assert not plan.calls


def named(in_turn: int) -> tuple[DictConfiguration, Environment]:
    made = configuration(
        {7: [RULE]}, peers={7: {"ipsecPeerDynamicAddress": b"far", "ipsecPeerPeerIds": b"far.example"}}
    )
    made.scalars["ipsecGlobContDnsSelectRoundRobin"] = in_turn
    return made, environment(names={"far": tuple(map(packed, ("198.51.100.1", "198.51.100.2", "198.51.100.3")))})


def test_after_a_failed_attempt_the_next_address_is_called_in_turn() -> None:
    """ipsecGlobContDnsSelectRoundRobin; the others may still call us."""
    made, world = named(1)
    plan = make_plan(made, world)
    called = []
    for turn in range(4):
        plan = make_plan(made, replace(world, turns={7: turn}), plan, ())
        called.append(plan.connections["peer-7"].settings["remote_addrs"])
    assert [addresses[0] for addresses in called if isinstance(addresses, list)] == [
        *("198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.1"),
    ]
    assert called[1] == ["198.51.100.2", "198.51.100.3", "198.51.100.1"]


def test_without_it_the_first_one_is_called_again() -> None:
    made, world = named(2)
    plan = make_plan(made, replace(world, turns={7: 1}))
    addresses = plan.connections["peer-7"].settings["remote_addrs"]
    assert isinstance(addresses, list) and addresses[0] == "198.51.100.1"


# ---- backup peers ----------------------------------------------------------------------------


def ways(plan: Plan) -> set[bytes]:
    return {
        p.templates[0].destination for p in plan.policies.values() if p.templates and p.key.direction is Direction.OUT
    }


def test_the_backup_peers_tunnel_has_the_primarys_traffic() -> None:
    """Same nets in both lists: the primary's policies get the backup's endpoints and reqid, and back."""
    made = configuration({7: [RULE], 9: [RULE]})
    plan = make_plan(made, WORLD)
    assert ways(plan) == {packed("198.51.100.7")}
    taken = make_plan(made, replace(WORLD, takeovers={7: 9}), plan, ())
    assert ways(taken) == {packed("198.51.100.9")}
    reqids = {t.reqid for p in taken.policies.values() for t in p.templates}
    assert reqids == {taken.reqids["peer-9-rule-901"]}
    assert {"peer-7", "peer-9"} <= set(taken.connections)  # the primary is still tried
    assert "peer 9 stands for peer 7" in taken.verdicts[RowRef("ipsecTrafficTable", 701)].text
    assert make_plan(made, WORLD, taken, ()).policies == plan.policies


def test_the_backup_of_a_backup_has_the_traffic_of_both() -> None:
    """What PeerStates makes of a chain; a step from the plan in which only the first was lost."""
    made = configuration({7: [RULE], 8: [RULE], 9: [RULE]})
    taken = make_plan(made, replace(WORLD, takeovers={7: 8}), make_plan(made, WORLD), ())
    assert ways(taken) == {packed("198.51.100.8")}
    further = make_plan(made, replace(WORLD, takeovers={7: 9, 8: 9}), taken, ())
    assert ways(further) == {packed("198.51.100.9")}
    assert further.policies == make_plan(made, replace(WORLD, takeovers={7: 9, 8: 9}, reqids=taken.reqids)).policies


def test_nets_the_backup_peer_does_not_have_are_blocked() -> None:
    made = configuration({7: [RULE], 9: ["protect 10.1.0.0/16 10.9.0.0/16"]})
    taken = make_plan(made, replace(WORLD, takeovers={7: 9}))
    blocked = [p for p in taken.policies.values() if p.row == RowRef("ipsecTrafficTable", 701)]
    assert blocked and all(p.action is Action.BLOCK for p in blocked)


def test_routes_of_a_virtual_interface_move_to_the_backups() -> None:
    made = virtual()
    made.put(PEER, 9, **{**dict(made.tables[PEER][9].cells()), **VIRTUAL})
    taken = make_plan(made, replace(WORLD, takeovers={7: 9}), make_plan(made, WORLD), ())
    assert taken.links[7].routes == ()
    assert taken.links[9].routes == (Route(Prefix(packed("10.7.0.0"), 16), 100_009, 3),)


# ---- the packet filter ----------------------------------------------------------------------------


def test_inside_addresses_are_those_that_rules_call_local() -> None:
    made = virtual()
    made.scalars["ipsecGlobContPrivateInterface"] = 5
    part = make_plan(made, WORLD).filters["private"].part
    assert part == private_part(5, [Prefix(packed("10.1.0.0"), 16)])
    assert part.sets[0].elements == ("10.1.0.0/16",)  # not 0.0.0.0/0 of the virtual interface
    made.scalars["ipsecGlobContPrivateInterface"] = -1
    assert "private" not in make_plan(made, WORLD).filters


def test_peers_with_another_mtu_have_sets_of_their_own() -> None:
    made = configuration({7: [RULE], 9: ["protect 10.1.0.0/16 10.9.0.0/16"]}, peers={9: {"ipsecPeerIkeProfile": 2}})
    made.put("ikeProfileTable", 2, ikePrfMtuMax=1200)
    plan = make_plan(made, WORLD)
    reqid = plan.reqids["peer-9-rule-901"]
    assert plan.filters["mss"].part == mss_part(1418, [Clamped(1200, (reqid,))])
    assert plan.filters["mss"].rows == {RowRef(PEER, 9)}
    after, changes = made.edited((PEER, 9, None))
    assert make_plan(after, WORLD, plan, changes).filters["mss"].part == mss_part(1418, [])


def test_parts_are_made_of_names_of_their_own() -> None:
    from agent.plan.filtering import check_names

    check_names("private", private_part(2, []))
    check_names("mss", mss_part(1418, [Clamped(1200, (65536,))]))
