"""Real packets through real policies: what `explain` says of a packet is what the kernel does with it.

Random rules of the pre list, two peers and the post list are planned and installed on the
gateway of a small town (packet_town.py); then every packet of the town is sent: forwarded
both ways, to and from the gateway, by the right interface and the wrong one, IPv4, IPv6,
ICMP, neighbour discovery. One that a rule protects must not arrive: there is no tunnel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pytest

from agent.backends.spd import KernelSpd
from agent.mib.ber import Value
from agent.plan.explain import Explanation, explain_all
from agent.plan.model import ApplyState, Capabilities, Environment, Flow, Policy, RowRef
from agent.plan.planner import Plan, make_plan
from agent.plan.traffic import ANY_INTERFACE
from tests.packet_town import GATEWAY, ICMP6, RIGHT, UDP, Town, address, town
from tests.plan_helpers import DictConfiguration
from tests.random_rules import ANY, DHCP, DROP, FAR, OUTER, PASS, PROTECT, TRAFFIC, random_configuration
from tests.xfrm_namespace import cable, namespaces

pytestmark = pytest.mark.kernel

QUICK, MANY = range(24), range(1000, 1180)


@pytest.fixture(scope="module")
def place() -> Iterator[Town]:
    with town() as made:
        yield made


def world(place: Town, **more: object) -> Environment:
    fields: dict[str, object] = {
        "capabilities": Capabilities(nftables=True),
        "own_addresses": frozenset({*GATEWAY[4], *GATEWAY[16]}),
        "sources": {address(FAR): GATEWAY[4][1]},
        "default_sources": {family: own[1] for family, own in GATEWAY.items()},
        "interfaces": {place.left: "l0", place.right: "r0"},
    }
    return Environment(**(fields | more))  # type: ignore[arg-type]


async def installed(place: Town, plan: Plan) -> KernelSpd:
    spd = KernelSpd(open_socket=place.gateway.xfrm_socket)
    await spd.start()
    await spd.observe()
    assert await spd.apply([], list(plan.policies.values())) == {}
    return spd


async def removed(spd: KernelSpd, policies: Sequence[Policy]) -> None:
    await spd.observe()
    assert await spd.apply([policy.key for policy in policies], []) == {}
    assert not any(seen.ours for seen in (await spd.observe()).values())
    await spd.stop()


def mixed(place: Town, seed: int) -> DictConfiguration:
    return random_configuration(seed, (ANY_INTERFACE,) * 3 + (place.left, place.right, 99))


def ipv6_of_interfaces(place: Town, seed: int) -> DictConfiguration:
    """Most rules are about one interface, all about IPv6."""
    return random_configuration(seed, (ANY_INTERFACE, place.left, place.right, place.right), (16,))


async def sent(place: Town, plan: Plan, expected: set[int]) -> set[int]:
    """Those of the town's packets that arrive under a plan; those expected to are waited for."""
    spd = await installed(place, plan)
    try:
        return place.send(range(len(place.flows)), expected)
    finally:
        await removed(spd, list(plan.policies.values()))


def passed(told: Sequence[Explanation]) -> set[int]:
    return {number for number, found in enumerate(told) if found.decision == "pass"}


async def fare(place: Town, made: DictConfiguration) -> None:
    """Each packet arrives, or does not, as `explain` says."""
    plan = make_plan(made, world(place))
    told: list[Explanation] = explain_all(plan, place.flows)
    expected = passed(told)
    came = await sent(place, plan, expected)
    wrong = [(str(told[n]), place.flows[n], n in came) for n in sorted(came ^ expected)]
    assert not wrong, f"{len(wrong)} of {len(told)}, the first: {wrong[:3]}"


@pytest.mark.parametrize("seed", QUICK)
async def test_packets_fare_as_explain_says(place: Town, seed: int) -> None:
    await fare(place, mixed(place, seed))


@pytest.mark.parametrize("seed", QUICK)
async def test_ipv6_packets_fare_as_explain_says_where_rules_are_about_interfaces(place: Town, seed: int) -> None:
    """Those of the gateway's own too, which the kernel asks about before it knows the interface."""
    await fare(place, ipv6_of_interfaces(place, seed))


@pytest.mark.slow
@pytest.mark.parametrize("seed", MANY)
async def test_packets_of_many_more_rules_fare_as_explain_says(place: Town, seed: int) -> None:
    await fare(place, mixed(place, seed))
    await fare(place, ipv6_of_interfaces(place, seed))


# ---- single sentences -----------------------------------------------------------------------


def one_rule(cells: Mapping[str, Value], *, default: int = 2) -> DictConfiguration:
    made = DictConfiguration(scalars={"ipsecGlobEnabled": 1, "ipsecGlobContDefaultRule": default})
    made.put(TRAFFIC, 1, **cells)
    made.scalars["ipsecGlobContPreIpsecRules"] = 1
    return made


async def passing(place: Town, made: DictConfiguration) -> tuple[set[int], Plan]:
    plan = make_plan(made, world(place))
    return await sent(place, plan, passed(explain_all(plan, place.flows))), plan


@pytest.mark.parametrize(
    ("family", "first", "last"),
    [(4, "10.2.0.3", "10.2.0.9"), (4, "10.2.0.2", "10.2.0.8"), (16, "fd00:2::3", "fd00:2::9")],
)
async def test_a_range_begins_and_ends_where_it_says(place: Town, family: int, first: str, last: str) -> None:
    names = ("Address", "Range") if family == 4 else ("Address6", "Range6")
    prefix = "ipsecTr" if family == 4 else "ipsecGwTr"
    cells: dict[str, Value] = {"ipsecTrProto": ANY, "ipsecTrAction": DROP}
    cells |= {f"{prefix}Remote{name}": address(text) for name, text in zip(names, (first, last), strict=True)}
    if family == 16:
        cells["ipsecGwTrLocalAddress6"] = bytes(16)
    came, plan = await passing(place, one_rule(cells))
    assert len({key.selector for key in plan.policies if plan.policies[key].row.number == 1}) > 2
    neighbours = {(ICMP6, 133), (ICMP6, 135), (ICMP6, 136)}
    for number, flow in enumerate(place.flows):
        ends = {flow.source, flow.destination} & {*RIGHT[family]}
        inside = any(address(first) <= end <= address(last) for end in ends)
        dropped = inside and (flow.protocol, flow.source_port) not in neighbours
        assert (number in came) is not dropped, flow


async def test_an_interface_is_the_one_a_packet_leaves_or_came_by(place: Town) -> None:
    cells: dict[str, Value] = {"ipsecTrProto": UDP, "ipsecTrAction": DROP, "ipsecTrInterface": place.right}
    came, plan = await passing(place, one_rule(cells))
    assert RowRef(TRAFFIC, 1) not in plan.verdicts
    for number, flow in enumerate(place.flows):
        dropped = flow.protocol == UDP and len(flow.source) == 4 and place.right in flow[-2:]
        assert (number in came) is not dropped, flow


IPV6_RULE: Mapping[str, Value] = {
    "ipsecGwTrLocalAddress6": bytes(16),
    "ipsecGwTrRemoteAddress6": address("fd00:2::"),
    "ipsecGwTrRemotePrefixLength6": 64,
    "ipsecTrProto": UDP,
}


async def test_ipv6_packets_of_the_gateway_meet_a_rule_about_an_interface(place: Town) -> None:
    """What the kernel asks the policies before it knows the interface, it asks again."""
    came, plan = await passing(place, one_rule({**IPV6_RULE, "ipsecTrAction": DROP, "ipsecTrInterface": place.right}))
    assert RowRef(TRAFFIC, 1) not in plan.verdicts
    net = address("fd00:2::")[:8]
    for number, flow in enumerate(place.flows):
        ends = (flow.destination, flow.to_interface), (flow.source, flow.from_interface)
        dropped = flow.protocol == UDP and len(flow.source) == 16
        dropped = dropped and any((end[:8], interface) == (net, place.right) for end, interface in ends)
        assert (number in came) is not dropped, flow
    came, _ = await passing(place, one_rule({**IPV6_RULE, "ipsecTrAction": DROP, "ipsecTrInterface": place.left}))
    assert all(n in came for n, flow in enumerate(place.flows) if flow.way == "out")  # they leave by another


@pytest.mark.parametrize("bound", ["pass", "protect"])
async def test_an_ipv6_packet_of_the_gateway_meets_the_first_of_two_rules(place: Town, bound: str) -> None:
    """A rule about an interface before one about any: neither protects what should pass nor the other way."""
    made = DictConfiguration(scalars={"ipsecGlobEnabled": 1, "ipsecGlobContDefaultRule": 2})
    actions = {1: PASS, 2: PROTECT} if bound == "pass" else {1: PROTECT, 2: PASS}
    for number, action in actions.items():
        more = {"ipsecTrInterface": place.right, "ipsecTrNextIndex": 2} if number == 1 else {}
        made.put(TRAFFIC, number, **IPV6_RULE, **more, ipsecTrAction=action)
    peer: dict[str, Value] = {"ipsecPeerTrafficList": 1, "ipsecPeerDynamicAddress": FAR.encode()}
    made.put("ipsecPeerTable", 1, **peer, ipsecPeerPreSharedKeyData=b"sealed")
    came, plan = await passing(place, made)
    assert "default rule drops" in plan.verdicts[RowRef(TRAFFIC, 1)].text
    net = address("fd00:2::")[:8]
    own = [n for n, f in enumerate(place.flows) if f.way == "out" and f.protocol == UDP and f.destination[:8] == net]
    assert own and all((number in came) is (bound == "pass") for number in own)


async def test_what_a_later_rule_drops_is_gone_before_the_interface_is_known(place: Town) -> None:
    """What remains of it: never the other way round, so that nothing leaves that should not."""
    made = one_rule({**IPV6_RULE, "ipsecTrAction": PASS, "ipsecTrInterface": place.right}, default=1)
    came, plan = await passing(place, made)
    net = address("fd00:2::")[:8]
    own = [n for n, f in enumerate(place.flows) if f.way == "out" and f.protocol == UDP and f.destination[:8] == net]
    assert own and not came.intersection(own)
    told = explain_all(plan, [place.flows[own[0]]])[0]
    assert told.decision == "drop" and "before the interface of an IPv6 packet of our own is known" in told.text


async def test_without_nftables_a_rule_about_an_interface_drops_what_leaves_and_says_so(place: Town) -> None:
    cells: dict[str, Value] = {"ipsecTrProto": UDP, "ipsecTrAction": DROP, "ipsecTrInterface": place.right}
    lacking = Capabilities(nftables=False, nftables_lack="there is no nft command")
    plan = make_plan(one_rule(cells), world(place, capabilities=lacking))
    state, text = plan.verdicts[RowRef(TRAFFIC, 1)]
    assert state is ApplyState.FAILED
    assert "there is no nft command" in text
    came = await sent(place, plan, passed(explain_all(plan, place.flows)))
    dropped = {place.flows[number] for number in set(range(len(place.flows))) - came}
    assert dropped == {f for f in place.flows if f.protocol == UDP and len(f.source) == 4 and f[-1] == place.right}


async def test_the_own_address_is_that_of_the_default_route(place: Town) -> None:
    cells: dict[str, Value] = {
        "ipsecTrProto": ANY,
        "ipsecTrAction": DROP,
        "ipsecTrLocalAddressType": OUTER,
        "ipsecTrRemoteAddress": bytes([10, 2, 0, 0]),
        "ipsecTrRemoteMaskLen": 16,
    }
    came, _ = await passing(place, one_rule(cells))
    own = GATEWAY[4][1]
    for number, flow in enumerate(place.flows):
        other = flow.destination if flow.source == own else flow.source
        dropped = own in (flow.source, flow.destination) and other[:2] == bytes([10, 2])
        assert (number in came) is not dropped, flow


async def test_dhcp_is_the_clients_requests_and_the_answers(place: Town) -> None:
    cells: dict[str, Value] = {"ipsecTrProto": UDP, "ipsecTrAction": PASS, "ipsecTrRemoteAddressType": DHCP}
    plan = make_plan(one_rule(cells, default=1), world(place))
    client, server = bytes(4), b"\xff\xff\xff\xff"
    packets = [
        Flow(client, server, UDP, 68, 67, "in", from_interface=place.right),
        Flow(GATEWAY[4][1], server, UDP, 67, 68, "out", to_interface=place.right),
        Flow(client, server, UDP, 67, 68, "in", from_interface=place.right),
        Flow(client, server, UDP, 68, 53, "in", from_interface=place.right),
    ]
    assert [found.decision for found in explain_all(plan, packets)] == ["pass", "pass", "drop", "drop"]


async def test_a_default_drop_leaves_loopback_alone() -> None:
    with namespaces(2) as (gateway, left):
        cable(gateway, left)
        gateway.ip("addr add 10.1.0.1/24 dev v0")
        left.ip("addr add 10.1.0.2/24 dev v0")
        made = DictConfiguration(scalars={"ipsecGlobEnabled": 1, "ipsecGlobContDefaultRule": 1})
        plan = make_plan(made, Environment(own_addresses=frozenset({GATEWAY[4][0]})))
        spd = KernelSpd(open_socket=gateway.xfrm_socket)
        await spd.start()
        await spd.observe()
        assert await spd.apply([], list(plan.policies.values())) == {}
        assert gateway.command("ping", "-c1", "-W15", "127.0.0.1").returncode == 0
        assert gateway.command("ping", "-c1", "-W15", "::1").returncode == 0
        assert left.command("ping", "-c1", "-W1", "10.1.0.1").returncode != 0
        await spd.stop()
