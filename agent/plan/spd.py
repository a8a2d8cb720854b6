"""From a rule to its five policies, and the policies that are there without a rule.

Out L→R, in R→L and fwd R→L carry the rule's action, with a template when it protects. A
forwarded packet passes `fwd` and then `out`, so there are two more, the companions: fwd L→R
lets in what the rule decides on its way out, out R→L lets out what it decided on its way
in. They block when the rule drops or cannot be made real. (L local, R remote side.)
Source: the design's "IPsec on Linux"; which policy the kernel asks when: xfrm_policy.c.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Final, NamedTuple

from agent.plan import cells, numbers
from agent.plan.daemon import NAT_T_PORT
from agent.plan.model import (
    ANY_PORT,
    Action,
    Direction,
    Policy,
    PolicyKey,
    Ports,
    Prefix,
    RowRef,
    RowView,
    Selector,
    Template,
    Tunnel,
)
from agent.plan.selectors import ANYWHERE, host, one_port, reversed_selector

OUT, IN, FWD = Direction.OUT, Direction.IN, Direction.FWD
ALLOW, BLOCK = Action.ALLOW, Action.BLOCK

TRAFFIC: Final = "ipsecTrafficTable"
ANY_PROTOCOL: Final = 255  # ipsecTrProto dont-verify
PORT_PROTOCOLS: Final = {6: "tcp", 17: "udp", 132: "sctp", 136: "udplite"}
ESP, AH, IPCOMP, ICMP6, UDP = 50, 51, 108, 58, 17
TRANSPORT, TUNNEL = 0, 1


class RuleAction(IntEnum):
    """ipsecTrAction."""

    DELETE = 1
    ALWAYS_PLAIN = 2
    PASS = 3
    PROTECT = 4
    DROP = 5


class RuleDirection(IntEnum):
    """ipsecTrDirection."""

    BOTH = 1
    INBOUND = 2
    OUTBOUND = 3


class Rule(NamedTuple):
    """What the plan needs of a row of ipsecTrafficTable. `outward`: L→R, as a packet carries it. `problem`: why no
    policy can be made of it, '' when one can."""

    number: int
    next: int
    action: int
    direction: int
    outward: Selector
    profile: int
    problem: str


WHY_PROTECT: Final = "protected by the tunnel"
WHY_BLOCKED: Final = "blocked: the tunnel cannot be made"
WHY_COMPANION: Final = "plain part of a protected way"
WHY_PASS: Final = "passes in plain"
WHY_DROP: Final = "dropped"
WHY_ALWAYS_PLAIN: Final = "always plain"
WHY_NEIGHBOUR: Final = "neighbour discovery, built in"
WHY_LOOPBACK: Final = "loopback, built in"
WHY_IKE: Final = "our own IKE and ESP, built in"
WHY_DEFAULT: Final = "default rule"

DEFAULT_ROW: Final = RowRef("ipsecGlobalsContinued", 0)
BUILT_IN_ROW: Final = RowRef("ipsecGlobals", 0)


def net_problem(address: bytes, length: int) -> str:
    """Why an IPv4 address and a mask length are no net; '' when they are one."""
    if not 0 <= length <= 32:
        return "a mask has 0 to 32 bits; accepted: 0..32"
    if length == 0 and address != bytes(4):
        return "an address with mask 0 would stand for every address; accepted: a mask of 1..32 with it"
    if int.from_bytes(address, "big") & (1 << (32 - length)) - 1:
        net = int.from_bytes(address, "big") >> (32 - length) << (32 - length)
        dotted = ".".join(map(str, net.to_bytes(4, "big")))
        return f"the address has host bits beyond the mask; accepted: {dotted} with mask {length}"
    return ""


def port_problem(protocol: int, port: int) -> str:
    """Why a port cannot be matched for this protocol; '' when it can."""
    if not -1 <= port <= 65535:
        return "no port; accepted: 1..65535, 0 or -1 for any"
    if port > 0 and protocol not in PORT_PROTOCOLS:
        return f"ports go with {', '.join(PORT_PROTOCOLS.values())} only; accepted: 0 or -1 for any"
    return ""


def read_rule(row: RowView) -> Rule:
    """A row of ipsecTrafficTable."""
    protocol = cells.number(row, "ipsecTrProto")
    sides = []
    problem = ""
    for side in ("Local", "Remote"):
        address, length = cells.octets(row, f"ipsecTr{side}Address"), cells.number(row, f"ipsecTr{side}MaskLen")
        port = cells.number(row, f"ipsecTr{side}Port")
        problem = problem or net_problem(address, length) or port_problem(protocol, port)
        sides.append((Prefix(address, length), one_port(port)))
        if cells.octets(row, f"ipsecTr{side}Range") != bytes(4):
            problem = problem or "address ranges are not supported yet"
    (local, local_port), (remote, remote_port) = sides
    return Rule(
        row.number,
        cells.number(row, "ipsecTrNextIndex"),
        cells.number(row, "ipsecTrAction"),
        cells.number(row, "ipsecTrDirection"),
        Selector(local, remote, 0 if protocol == ANY_PROTOCOL else protocol, local_port, remote_port),
        cells.number(row, "ipsecTrProfile"),
        problem,
    )


class Companions(NamedTuple):
    """Priorities of a rule's companions, fwd L→R and out R→L."""

    fwd: int
    out: int


class Way(NamedTuple):
    """The SA a protect rule's packets take: outer addresses, protocol 50 or 51, mode 0 or 1."""

    local: bytes
    remote: bytes
    protocol: int
    mode: int
    ipcomp: bool
    reqid: int


def way_of(tunnel: Tunnel, reqid: int) -> Way:
    """Templates follow the SA that came up, whatever was asked for (ENGINE 23, 26, 27)."""
    return Way(tunnel.local, tunnel.remote, tunnel.protocol, tunnel.mode, tunnel.ipcomp, reqid)


def templates(way: Way, direction: Direction) -> tuple[Template, ...]:
    """Compression comes before encryption and then is in tunnel mode in ESP's place; it is optional inbound only,
    since the kernel refuses optional tunnel templates outbound (ENGINE 26)."""
    source, destination = (way.local, way.remote) if direction is OUT else (way.remote, way.local)
    if not way.ipcomp:
        return (Template(source, destination, way.protocol, way.mode, way.reqid),)
    return (
        Template(source, destination, IPCOMP, way.mode, way.reqid, direction is not OUT),
        Template(source, destination, way.protocol, TRANSPORT, way.reqid),
    )


def protect(rule: Rule, peer: int, priority: int, companions: Companions, way: Way | None) -> list[Policy]:
    """The five policies of a protect rule; `way` None: it cannot be made real and blocks."""
    row = RowRef(TRAFFIC, rule.number)
    outward = rule.outward
    inward = reversed_selector(outward)
    if way is None:
        return [
            Policy(PolicyKey(OUT, outward), priority, BLOCK, (), row, peer, WHY_BLOCKED),
            Policy(PolicyKey(IN, inward), priority, BLOCK, (), row, peer, WHY_BLOCKED),
            Policy(PolicyKey(FWD, inward), priority, BLOCK, (), row, peer, WHY_BLOCKED),
            Policy(PolicyKey(FWD, outward), companions.fwd, BLOCK, (), row, peer, WHY_BLOCKED),
            Policy(PolicyKey(OUT, inward), companions.out, BLOCK, (), row, peer, WHY_BLOCKED),
        ]
    inbound = templates(way, IN)
    return [
        Policy(PolicyKey(OUT, outward), priority, ALLOW, templates(way, OUT), row, peer, WHY_PROTECT),
        Policy(PolicyKey(IN, inward), priority, ALLOW, inbound, row, peer, WHY_PROTECT),
        Policy(PolicyKey(FWD, inward), priority, ALLOW, inbound, row, peer, WHY_PROTECT),
        Policy(PolicyKey(FWD, outward), companions.fwd, ALLOW, (), row, peer, WHY_COMPANION),
        Policy(PolicyKey(OUT, inward), companions.out, ALLOW, (), row, peer, WHY_COMPANION),
    ]


def plain(rule: Rule, peer: int, priority: int, companions: Companions) -> list[Policy]:
    """The policies of a rule that passes or drops."""
    action, why = ALLOW, WHY_PASS
    if rule.action == RuleAction.DROP:
        action, why = BLOCK, WHY_DROP
    elif rule.action == RuleAction.ALWAYS_PLAIN:
        why, priority = WHY_ALWAYS_PLAIN, numbers.PRIORITY_ALWAYS_PLAIN
        companions = Companions(priority, priority)
    row = RowRef(TRAFFIC, rule.number)
    outward = rule.outward
    inward = reversed_selector(outward)
    found = []
    if rule.direction != RuleDirection.INBOUND:
        found.append(Policy(PolicyKey(OUT, outward), priority, action, (), row, peer, why))
        found.append(Policy(PolicyKey(FWD, outward), companions.fwd, action, (), row, peer, why))
    if rule.direction != RuleDirection.OUTBOUND:
        found.append(Policy(PolicyKey(IN, inward), priority, action, (), row, peer, why))
        found.append(Policy(PolicyKey(FWD, inward), priority, action, (), row, peer, why))
        found.append(Policy(PolicyKey(OUT, inward), companions.out, action, (), row, peer, why))
    return found


def is_main(rule: Rule, key: PolicyKey) -> bool:
    """Whether the policy with this key carries what the rule is for; the others are its companions."""
    return key.selector == (rule.outward if key.direction is OUT else reversed_selector(rule.outward))


def default_rule() -> list[Policy]:
    """ipsecGlobContDefaultRule = drop: whatever no rule matched, of both families."""
    return [
        Policy(
            PolicyKey(direction, Selector(net, net)), numbers.PRIORITY_DEFAULT, BLOCK, (), DEFAULT_ROW, 0, WHY_DEFAULT
        )
        for net in ANYWHERE.values()
        for direction in (OUT, IN, FWD)
    ]


# Of ICMPv6 the kernel takes the type for the source port and the code for the destination port, whatever the direction
# (xfrm_flowi_sport, xfrm_flowi_dport). The five types of neighbour discovery are three values with masks.
NEIGHBOUR_DISCOVERY: Final = (Ports(133, 0xFFFF), Ports(134, 0xFFFE), Ports(136, 0xFFFE))
IKE_PORT: Final = 500  # unless ipsecGlobIkePort says otherwise


def _exempt(direction: Direction, selector: Selector, why: str) -> Policy:
    return Policy(PolicyKey(direction, selector), numbers.PRIORITY_EXEMPTION, ALLOW, (), BUILT_IN_ROW, 0, why)


def exemptions(own: Iterable[bytes], ike_port: int = IKE_PORT) -> list[Policy]:
    """What passes always: blocking it would cut the box off. `own`: addresses of this host; `ike_port`: where it
    answers IKE.

    Neighbour discovery in `fwd` too: what a neighbour proxy answers is asked for as forwarded. IKE and ESP only from
    and to our own addresses: those of a host behind us are traffic like any other, and may have to be protected.
    """
    everywhere = ANYWHERE[16]
    found = [
        _exempt(direction, Selector(everywhere, everywhere, ICMP6, kind), WHY_NEIGHBOUR)
        for direction in (OUT, IN, FWD)
        for kind in NEIGHBOUR_DISCOVERY
    ]
    for net in (Prefix(bytes((127, 0, 0, 0)), 8), host(bytes(15) + b"\x01")):
        found += (_exempt(direction, Selector(net, net), WHY_LOOPBACK) for direction in (OUT, IN))
    for address in sorted(own):
        if _is_loopback(address):
            continue
        we, all_ = host(address), ANYWHERE[len(address)]
        ways = [Selector(we, all_, UDP, one_port(port), ANY_PORT) for port in (ike_port, NAT_T_PORT)]
        ways += (Selector(we, all_, protocol) for protocol in (ESP, AH))
        for outward in ways:
            found.append(_exempt(OUT, outward, WHY_IKE))
            found.append(_exempt(IN, reversed_selector(outward), WHY_IKE))
    return found


def _is_loopback(address: bytes) -> bool:
    return address[0] == 127 if len(address) == 4 else address == bytes(15) + b"\x01"
