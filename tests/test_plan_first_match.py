"""The first rule that matches decides: the plan against a walk over the rows, as the guide tells their order.

The walk knows addresses and rows and nothing of prefixes, policies or priorities. It speaks of packets that the
gateway makes or receives; what is forwarded passes two such decisions (test_plan_oracle). A packet made here from a
rule's remote side to its local one is left out: the kernel takes it for one that was forwarded, which is the same case.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from agent.mib.ber import Value
from agent.plan.explain import explain_all
from agent.plan.model import Capabilities, Environment, Flow
from agent.plan.planner import make_plan
from agent.plan.traffic import ANY_INTERFACE, MOST_PARTS
from tests.packet_town import GATEWAY, ICMP6, KINDS, LEFT, RIGHT, UDP, address
from tests.plan_helpers import DictConfiguration, DictRow
from tests.random_rules import (
    ALWAYS_PLAIN,
    ANY,
    DHCP,
    DROP,
    FAR,
    OUTER,
    PASS,
    PEERS,
    PROTECT,
    TRAFFIC,
    random_configuration,
)

LEFT_LINK, RIGHT_LINK, NOWHERE = 2, 3, 99
INBOUND, OUTBOUND = 2, 3
FIXED = 1
ROUTE = GATEWAY[4][1]  # our address on the way to the peers, and to the rest of the world
WORLD = Environment(
    capabilities=Capabilities(nftables=True),
    own_addresses=frozenset({*GATEWAY[4], *GATEWAY[16]}),
    sources={address(FAR): ROUTE},
    default_sources={family: own[1] for family, own in GATEWAY.items()},
    interfaces={LEFT_LINK: "l0", RIGHT_LINK: "r0"},
)


class Owner(NamedTuple):
    """Whose list: `peer` None for the pre and post list. Outer addresses as they are known by octets of an address."""

    peer: DictRow | None
    own: dict[int, bytes]
    far: bytes | None


def flows() -> Iterator[Flow]:
    for family, kinds in KINDS.items():
        for own in GATEWAY[family]:
            for others, link in ((LEFT[family], LEFT_LINK), (RIGHT[family], RIGHT_LINK)):
                for other in others:
                    for kind in kinds:
                        yield Flow(own, other, *kind, "out", 0, 0, link)
                        yield Flow(other, own, *kind, "in", 0, link, 0)


FLOWS = list(flows())


def lists(made: DictConfiguration) -> Iterator[tuple[Owner, list[DictRow]]]:
    """All lists in the order in which a packet meets them."""
    outside = Owner(None, {family: own[1] for family, own in GATEWAY.items()}, None)
    yield outside, chain(made, made.scalars["ipsecGlobContPreIpsecRules"])
    for peer in sorted(made.rows(PEERS), key=lambda row: (row["ipsecPeerPriority"], row.number)):
        known = bool(peer["ipsecPeerDynamicAddress"])
        owner = Owner(peer, {4: ROUTE} if known else {}, address(FAR) if known else None)
        yield owner, chain(made, peer["ipsecPeerTrafficList"])
    yield outside, chain(made, made.scalars["ipsecGlobContPostIpsecRules"])


def chain(made: DictConfiguration, head: Value) -> list[DictRow]:
    found = []
    while head:
        row = made.tables[TRAFFIC][int(head)]  # type: ignore[arg-type]
        found.append(row)
        head = row["ipsecTrNextIndex"]
    return found


def covers(row: DictRow, side: str, one: bytes, owner: Owner) -> bool:
    """Whether an address is on this side of a rule."""
    kind = row[f"ipsecTr{side}AddressType"]
    six = is_six(row)
    if len(one) != (16 if six else 4):
        return False
    if kind == OUTER:
        return one == (owner.own.get(len(one)) if side == "Local" else owner.far)
    if kind == DHCP:
        return True
    names = ("Address6", "PrefixLength6", "Range6") if six else ("Address", "MaskLen", "Range")
    prefix = "ipsecGwTr" if six else "ipsecTr"
    first, length, last = (row[f"{prefix}{side}{name}"] for name in names)
    assert isinstance(first, bytes) and isinstance(length, int) and isinstance(last, bytes)
    if any(last):
        return first <= one <= last
    low = int.from_bytes(first, "big")
    return low <= int.from_bytes(one, "big") < low + (1 << 8 * len(one) - length)


def prefixes(row: DictRow, side: str) -> int:
    """Of how many a range is made."""
    names = (f"ipsecGwTr{side}Address6", f"ipsecGwTr{side}Range6")
    names = names if is_six(row) else (f"ipsecTr{side}Address", f"ipsecTr{side}Range")
    first, last = (row[name] for name in names)
    if row[f"ipsecTr{side}AddressType"] != FIXED or not isinstance(last, bytes) or not any(last):
        return 1
    ends = (ipaddress.ip_address(first), ipaddress.ip_address(last))
    return sum(1 for _ in ipaddress.summarize_address_range(*ends))  # type: ignore[type-var]


def is_six(row: DictRow) -> bool:
    return bool(row["ipsecGwTrLocalAddress6"] or row["ipsecGwTrRemoteAddress6"])


def port_fits(wanted: Value, port: int) -> bool:
    return wanted in (0, -1) or wanted == port


def matches(row: DictRow, flow: Flow, owner: Owner, *, outward: bool, early: bool = False) -> bool:
    """Whether a rule is about a packet, the local side being its source (`outward`) or its destination. `early`: as far
    as is known before its interface is."""
    if owner.peer is None and row["ipsecTrRemoteAddressType"] == OUTER:
        return False
    if row["ipsecTrAction"] != PROTECT and row["ipsecTrDirection"] == (INBOUND if outward else OUTBOUND):
        return False
    if prefixes(row, "Local") * prefixes(row, "Remote") > MOST_PARTS:
        return False  # the row has failed
    ends, ports = (flow.source, flow.destination), (flow.source_port, flow.destination_port)
    local, remote = ends if outward else ends[::-1]
    local_port, remote_port = ports if outward else ports[::-1]
    link = row["ipsecTrInterface"]
    if link != -1 and link != (flow.to_interface if outward else flow.from_interface):
        return False
    if link != -1 and early:
        return False
    if row["ipsecTrRemoteAddressType"] == DHCP:
        if (flow.protocol, local_port, remote_port) != (UDP, 67, 68):
            return False
    elif row["ipsecTrProto"] not in (ANY, flow.protocol):
        return False
    fits = port_fits(row["ipsecTrLocalPort"], local_port) and port_fits(row["ipsecTrRemotePort"], remote_port)
    return fits and covers(row, "Local", local, owner) and covers(row, "Remote", remote, owner)


def decided(made: DictConfiguration, flow: Flow) -> str:
    """What the rows say. Of an IPv6 packet made here they are read before its interface is known too, and what is
    dropped by that is gone."""
    if flow.way == "out" and len(flow.source) == 16 and read(made, flow, early=True) == "drop":
        return "drop"
    return read(made, flow)


def read(made: DictConfiguration, flow: Flow, *, early: bool = False) -> str:
    """What the rows say, read one after the other."""
    if flow.protocol == ICMP6 and 133 <= flow.source_port <= 137:
        return "pass"
    everything = [(owner, row) for owner, rows in lists(made) for row in rows]
    if any(
        row["ipsecTrAction"] == ALWAYS_PLAIN and matches(row, flow, owner, outward=flow.way == "out", early=early)
        for owner, row in everything
    ):
        return "pass"
    for owner, row in everything:
        action = row["ipsecTrAction"]
        if (
            action == ALWAYS_PLAIN
            or not matches(row, flow, owner, outward=flow.way == "out", early=early)
            or (action == PROTECT and owner.peer is None)
        ):
            continue
        if action == PROTECT:
            return "protect" if flow.way == "out" and usable(owner) else "drop"
        return {PASS: "pass", DROP: "drop"}[int(action)]  # type: ignore[arg-type]
    return "drop" if made.scalars["ipsecGlobContDefaultRule"] == 1 else "pass"


def usable(owner: Owner) -> bool:
    assert owner.peer is not None
    up = owner.peer["ipsecPeerAdminStatus"] != 2
    return up and bool(owner.peer["ipsecPeerPreSharedKeyData"]) and owner.far is not None


def looks_forwarded(made: DictConfiguration, flow: Flow) -> bool:
    if flow.way == "in":
        return False
    return any(matches(row, flow, owner, outward=False) for owner, rows in lists(made) for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(90))
def test_the_first_rule_that_matches_decides(seed: int) -> None:
    made = random_configuration(seed, (ANY_INTERFACE,) * 3 + (LEFT_LINK, RIGHT_LINK, NOWHERE))
    if seed % 2:
        made = random_configuration(seed, (ANY_INTERFACE, LEFT_LINK, RIGHT_LINK), (16,))
    told = explain_all(make_plan(made, WORLD), FLOWS)
    judged = [(found, flow) for found, flow in zip(told, FLOWS, strict=True) if not looks_forwarded(made, flow)]
    assert len(judged) > len(FLOWS) // 2
    wrong = [(str(found), flow, decided(made, flow)) for found, flow in judged if found.decision != decided(made, flow)]
    assert not wrong, f"{len(wrong)}, the first: {wrong[0]}"
