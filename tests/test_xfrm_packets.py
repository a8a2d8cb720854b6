"""Real packets through real policies: what `explain` says of a packet is what the kernel does with it.

Random rules of the pre list, two peers and the post list are planned and installed on the
gateway of a small town (packet_town.py); then every packet of the town is sent: forwarded
both ways, to and from the gateway, by the right interface and the wrong one, IPv4, IPv6,
ICMP, neighbour discovery. One that a rule protects must not arrive: there is no tunnel.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

import pytest

from agent.backends.spd import KernelSpd
from agent.mib.ber import Value
from agent.plan.explain import Explanation, explain_all
from agent.plan.model import ApplyState, Capabilities, Environment, Flow, Policy, RowRef
from agent.plan.planner import Plan, make_plan
from tests.packet_town import GATEWAY, GRE, ICMP, ICMP6, LEFT, RIGHT, TCP, UDP, Town, address, town
from tests.plan_helpers import DictConfiguration
from tests.xfrm_namespace import cable, namespaces

pytestmark = pytest.mark.kernel

QUICK, MANY = range(24), range(1000, 1180)
TRAFFIC, PEERS = "ipsecTrafficTable", "ipsecPeerTable"
ALWAYS_PLAIN, PASS, PROTECT, DROP = 2, 3, 4, 5
OUTER, DHCP = 2, 3
ANY = 255
FAR = "192.0.2.9"
PEER_STATES: Sequence[Mapping[str, Value]] = (
    {},  # its rules have templates, and nothing fits them
    {},
    {"ipsecPeerAdminStatus": 2},
    {"ipsecPeerPreSharedKeyData": b""},
    {"ipsecPeerDynamicAddress": b"", "ipsecPeerPeerIds": b"[road]"},
)


@pytest.fixture(scope="module")
def place() -> Iterator[Town]:
    with town() as made:
        yield made


# ---- random rules -------------------------------------------------------------------------


def net(dice: random.Random, family: int) -> tuple[bytes, int]:
    """A net around somebody in town: of any size, of a host often."""
    somebody = dice.choice([*LEFT[family], *RIGHT[family], *GATEWAY[family]])
    bits = 8 * family
    length = dice.choice([0, 8, 15, bits // 2, bits - 8, bits - 1, bits, bits])
    host_bits = (1 << bits - length) - 1
    return (int.from_bytes(somebody, "big") & ~host_bits).to_bytes(family, "big"), length


def span(dice: random.Random, family: int) -> tuple[bytes, bytes]:
    """A range that begins or ends at somebody, or next to it."""
    people = [*LEFT[family], *RIGHT[family], *GATEWAY[family]]
    ends = sorted(int.from_bytes(dice.choice(people), "big") + dice.choice([-1, 0, 0, 1, 5]) for _ in range(2))
    first, last = (end.to_bytes(family, "big") for end in ends)
    return first, last


def side(dice: random.Random, where: str, family: int) -> dict[str, Value]:
    what = "Address", "MaskLen", "Range"
    names = [f"ipsecTr{where}{each}" for each in what]
    if family == 16:
        names = [f"ipsecGwTr{where}{each}6" for each in ("Address", "PrefixLength", "Range")]
    if dice.random() < 0.3:
        first, last = span(dice, family)
        return {names[0]: first, names[1]: 0, names[2]: last}
    first, length = net(dice, family)
    return {names[0]: first, names[1]: length}


def rule(dice: random.Random, following: int, interfaces: Sequence[int], *, outside: bool) -> dict[str, Value]:
    family = dice.choice([4, 4, 16])
    protocol = dice.choice([ANY, UDP, UDP, TCP, ICMP if family == 4 else ICMP6, GRE])
    values: dict[str, Value] = {
        "ipsecTrNextIndex": following,
        **side(dice, "Local", family),
        **side(dice, "Remote", family),
        "ipsecTrProto": protocol,
        "ipsecTrAction": dice.choice([PASS, PASS, DROP, DROP, ALWAYS_PLAIN, PROTECT] + [PROTECT] * (not outside)),
        "ipsecTrDirection": dice.choice([1, 1, 2, 3]),
        "ipsecTrInterface": dice.choice([-1, -1, -1, *interfaces]),
    }
    if protocol in (UDP, TCP):
        values["ipsecTrLocalPort"] = dice.choice([0, -1, 5000, 5001, 53])
        values["ipsecTrRemotePort"] = dice.choice([0, 0, 5000, 5001, 5002])
    if dice.random() < 0.1:
        values["ipsecTrLocalAddressType"] = OUTER
    if dice.random() < 0.05:
        values["ipsecTrRemoteAddressType"] = OUTER
    elif dice.random() < 0.05:
        values |= {"ipsecTrRemoteAddressType": DHCP, "ipsecTrProto": UDP, "ipsecTrLocalPort": 0, "ipsecTrRemotePort": 0}
    return values


def random_configuration(seed: int, interfaces: Sequence[int]) -> DictConfiguration:
    """Four lists of up to five rules: before the peers, of two peers, behind the peers."""
    dice = random.Random(seed)
    made = DictConfiguration(scalars={"ipsecGlobEnabled": 1, "ipsecGlobContDefaultRule": dice.choice([1, 2])})
    number = 0
    heads = []
    for list_ in range(4):
        count = dice.randint(0, 5)
        heads.append(number + 1 if count else 0)
        for place_ in range(count):
            number += 1
            following = number + 1 if place_ < count - 1 else 0
            made.put(TRAFFIC, number, **rule(dice, following, interfaces, outside=list_ in (0, 3)))
    made.scalars["ipsecGlobContPreIpsecRules"], made.scalars["ipsecGlobContPostIpsecRules"] = heads[0], heads[3]
    for peer in (1, 2):
        cells: dict[str, Value] = {
            "ipsecPeerTrafficList": heads[peer],
            "ipsecPeerPriority": dice.randint(0, 1),
            "ipsecPeerDynamicAddress": FAR.encode(),
            "ipsecPeerPreSharedKeyData": b"sealed",
        }
        made.put(PEERS, peer, **(cells | dict(dice.choice(PEER_STATES))))
    return made


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


async def fare(place: Town, seed: int) -> None:
    """Each packet arrives, or does not, as `explain` says."""
    plan = make_plan(random_configuration(seed, (place.left, place.right, 99)), world(place))
    told: list[Explanation] = explain_all(plan, place.flows)
    expected = {number for number, found in enumerate(told) if found.decision == "pass"}
    spd = await installed(place, plan)
    try:
        came = place.send(range(len(place.flows)))
    finally:
        await removed(spd, list(plan.policies.values()))
    wrong = [(str(told[n]), place.flows[n], n in came) for n in sorted(came ^ expected)]
    assert not wrong, f"{len(wrong)} of {len(told)}, the first: {wrong[:3]}"


@pytest.mark.parametrize("seed", QUICK)
async def test_packets_fare_as_explain_says(place: Town, seed: int) -> None:
    await fare(place, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", MANY)
async def test_packets_of_many_more_rules_fare_as_explain_says(place: Town, seed: int) -> None:
    await fare(place, seed)


# ---- single sentences -----------------------------------------------------------------------


def one_rule(cells: Mapping[str, Value], *, default: int = 2) -> DictConfiguration:
    made = DictConfiguration(scalars={"ipsecGlobEnabled": 1, "ipsecGlobContDefaultRule": default})
    made.put(TRAFFIC, 1, **cells)
    made.scalars["ipsecGlobContPreIpsecRules"] = 1
    return made


async def passing(place: Town, made: DictConfiguration) -> tuple[set[int], Plan]:
    plan = make_plan(made, world(place))
    spd = await installed(place, plan)
    try:
        return place.send(range(len(place.flows))), plan
    finally:
        await removed(spd, list(plan.policies.values()))


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


async def test_without_nftables_a_rule_about_an_interface_drops_what_leaves_and_says_so(place: Town) -> None:
    cells: dict[str, Value] = {"ipsecTrProto": UDP, "ipsecTrAction": DROP, "ipsecTrInterface": place.right}
    lacking = Capabilities(nftables=False, nftables_lack="there is no nft command")
    plan = make_plan(one_rule(cells), world(place, capabilities=lacking))
    state, text = plan.verdicts[RowRef(TRAFFIC, 1)]
    assert state is ApplyState.FAILED
    assert "there is no nft command" in text
    spd = await installed(place, plan)
    try:
        came = place.send(range(len(place.flows)))
    finally:
        await removed(spd, list(plan.policies.values()))
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
        assert gateway.command("ping", "-c1", "-W1", "127.0.0.1").returncode == 0
        assert gateway.command("ping", "-c1", "-W1", "::1").returncode == 0
        assert left.command("ping", "-c1", "-W1", "10.1.0.1").returncode != 0
        await spd.stop()
