"""From a rule to its five policies, and the policies that are there without a rule.

Out L→R, in R→L and fwd R→L carry the rule's action, with a template when it protects. A
forwarded packet passes `fwd` and then `out`, so there are two more, the companions: fwd L→R
lets in what the rule decides on its way out, out R→L lets out what it decided on its way
in. They block when the rule drops or cannot be made real. (L local, R remote side.)
Source: the design's "IPsec on Linux"; which policy the kernel asks when: xfrm_policy.c.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from agent.plan import numbers
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
    Selector,
    Template,
    Tunnel,
)
from agent.plan.selectors import ANYWHERE, came_by, host, leaves_by, one_port, reversed_selector
from agent.plan.traffic import Rule, RuleAction, RuleDirection

OUT, IN, FWD = Direction.OUT, Direction.IN, Direction.FWD
ALLOW, BLOCK = Action.ALLOW, Action.BLOCK

TRAFFIC: Final = "ipsecTrafficTable"
ESP, AH, IPCOMP, ICMP6, UDP = 50, 51, 108, 58, 17
TRANSPORT, TUNNEL = 0, 1
ANY_REQID: Final = 0  # in a template inward: the SA's reqid does not matter (xfrm_state_ok)

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


class Companions(NamedTuple):
    """Priorities of a rule's companions, fwd L→R and out R→L."""

    fwd: int
    out: int


class Split(NamedTuple):
    """What flows have instead of their rule's SA (agent.plan.flows). `flows`: those that have SAs, newest last;
    `asking`: parts of the rule that get none but those of flows."""

    flows: tuple[Tunnel, ...]
    asking: tuple[Selector, ...]


class Way(NamedTuple):
    """The SA a protect rule's packets take: outer addresses, protocol 50 or 51, mode 0 or 1. `any_inward`: inward they
    may come by any SA of these ends and this kind."""

    local: bytes
    remote: bytes
    protocol: int
    mode: int
    ipcomp: bool
    reqid: int
    any_inward: bool = False
    split: Split | None = None


def way_of(tunnel: Tunnel, reqid: int) -> Way:
    """Templates follow the SA that came up, whatever was asked for (ENGINE 23, 26, 27)."""
    return Way(tunnel.local, tunnel.remote, tunnel.protocol, tunnel.mode, tunnel.ipcomp, reqid)


def templates(way: Way, direction: Direction) -> tuple[Template, ...]:
    """Compression comes before encryption and then is in tunnel mode in ESP's place; it is optional inbound only,
    since the kernel refuses optional tunnel templates outbound (ENGINE 26)."""
    source, destination = (way.local, way.remote) if direction is OUT else (way.remote, way.local)
    reqid = ANY_REQID if way.any_inward and direction is not OUT else way.reqid
    if not way.ipcomp:
        return (Template(source, destination, way.protocol, way.mode, reqid),)
    return (
        Template(source, destination, IPCOMP, way.mode, reqid, direction is not OUT),
        Template(source, destination, way.protocol, TRANSPORT, reqid),
    )


def protect(
    rule: Rule, peer: int, priority: int, companions: Sequence[Companions], way: Way | None, *, inbound: bool = True
) -> list[Policy]:
    """Five policies for each part of a protect rule; `way` None: it cannot be made real and blocks. `companions`: for
    each part. `inbound` False: only what leaves can be told, so only that."""
    row = RowRef(TRAFFIC, rule.number)
    main, aside, why, why_aside = ALLOW, ALLOW, WHY_PROTECT, WHY_COMPANION
    outbound_templates: tuple[Template, ...] = ()
    inbound_templates: tuple[Template, ...] = ()
    if way is None:
        main, aside, why, why_aside = BLOCK, BLOCK, WHY_BLOCKED, WHY_BLOCKED
    else:
        outbound_templates, inbound_templates = templates(way, OUT), templates(way, IN)
    leaving, arrived = leaves_by(rule.interface), came_by(rule.interface)
    found = []
    for outward, place in zip(rule.parts, companions, strict=True):
        found.append(Policy(PolicyKey(OUT, outward, leaving), priority, main, outbound_templates, row, peer, why))
        found.append(Policy(PolicyKey(FWD, outward, leaving), place.fwd, aside, (), row, peer, why_aside))
        if inbound:
            inward = reversed_selector(outward)
            found.append(Policy(PolicyKey(IN, inward, arrived), priority, main, inbound_templates, row, peer, why))
            found.append(Policy(PolicyKey(FWD, inward, arrived), priority, main, inbound_templates, row, peer, why))
            found.append(Policy(PolicyKey(OUT, inward, arrived), place.out, aside, (), row, peer, why_aside))
    return found


def plain(
    rule: Rule, peer: int, priority: int, companions: Sequence[Companions], *, inbound: bool = True
) -> list[Policy]:
    """The policies of a rule that passes or drops; parameters as of `protect`."""
    action, why = ALLOW, WHY_PASS
    if rule.action == RuleAction.DROP:
        action, why = BLOCK, WHY_DROP
    elif rule.action == RuleAction.ALWAYS_PLAIN:
        why, priority = WHY_ALWAYS_PLAIN, numbers.PRIORITY_ALWAYS_PLAIN
        companions = [Companions(priority, priority)] * len(rule.parts)
    row = RowRef(TRAFFIC, rule.number)
    leaving, arrived = leaves_by(rule.interface), came_by(rule.interface)
    found = []
    for outward, place in zip(rule.parts, companions, strict=True):
        if rule.direction != RuleDirection.INBOUND:
            found.append(Policy(PolicyKey(OUT, outward, leaving), priority, action, (), row, peer, why))
            found.append(Policy(PolicyKey(FWD, outward, leaving), place.fwd, action, (), row, peer, why))
        if rule.direction != RuleDirection.OUTBOUND and inbound:
            inward = reversed_selector(outward)
            found.append(Policy(PolicyKey(IN, inward, arrived), priority, action, (), row, peer, why))
            found.append(Policy(PolicyKey(FWD, inward, arrived), priority, action, (), row, peer, why))
            found.append(Policy(PolicyKey(OUT, inward, arrived), place.out, action, (), row, peer, why))
    return found


def one_per_key(policies: list[Policy]) -> tuple[Policy, ...]:
    """Where both sides of a rule are the same net its own policies meet; the one that comes first stays."""
    found: dict[PolicyKey, Policy] = {}
    for policy in policies:
        held = found.get(policy.key)
        if held is None or policy.priority < held.priority:
            found[policy.key] = policy
    return tuple(found.values())


def deciding_keys(rule: Rule) -> set[PolicyKey]:
    """Keys of the policies that carry what the rule is for; the others are companions."""
    leaving, arrived = leaves_by(rule.interface), came_by(rule.interface)
    keys = set[PolicyKey]()
    for outward in rule.parts:
        inward = reversed_selector(outward)
        keys |= {PolicyKey(OUT, outward, leaving), PolicyKey(IN, inward, arrived), PolicyKey(FWD, inward, arrived)}
    return keys


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
