"""Flows that have an SA pair to themselves: ipsecPrfGranularity finer than coarse.

A protect rule of such granularity is the same five policies, but outward they name a reqid
that no SA has: for a packet that belongs to no flow yet the kernel asks (an acquire, which
carries the exact flow), and charon is asked for a child of just that flow. charon allots a
reqid to each selector it negotiates and keeps it over rekeys; the flow's outward policy, with
that reqid, stands right before its rule's own, behind all earlier rules, so that it decides
only about packets of its rule. When the SAs of a flow end, its policy goes, and the rule's is
there. What flows there are is therefore observed (`Environment.flows`), never stored.

Inward a flow has no policies of its own: a peer that does not split its SAs sends all of a
rule by the newest of them, so what comes by any SA between the two gateways is taken.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from agent.plan import numbers, spd
from agent.plan.connections import side_selector, traffic_selector
from agent.plan.links import covers
from agent.plan.model import (
    NO_FLOWS,
    Child,
    Direction,
    Environment,
    Fine,
    FlowChild,
    Policy,
    PolicyKey,
    Ports,
    Prefix,
    Scope,
    Selector,
    Template,
    Tunnel,
    ViciValue,
)
from agent.plan.negotiated import Span, span
from agent.plan.phase2 import Granularity
from agent.plan.selectors import host, reversed_selector
from agent.plan.traffic import PORT_PROTOCOLS, Rule, SideKind

MOST_FLOWS: Final = 256
"""Flows of one rule that have SAs of their own. Each is negotiated and renewed by itself, and a scan of ports must not
fill the daemon."""

OUT, IN, FWD = Direction.OUT, Direction.IN, Direction.FWD
WHY_FLOW: Final = "protected by the tunnel of its flow"


WORDS: Final[Mapping[int, str]] = {
    Granularity.IP: "each pair of hosts has an SA pair of its own",
    Granularity.PROTO: "each protocol of each pair of hosts has an SA pair of its own",
    Granularity.PORT: "each pair of ports of each pair of hosts has an SA pair of its own",
    Granularity.LOCAL_SERVICES: "each host that this gateway itself talks to has an SA pair of its own",
}


class Covered(NamedTuple):
    """What is protected, by a rule or by a selector of a virtual interface. `parts`: local to remote; `local`,
    `remote`: as VICI has it; words and ports: as of Fine."""

    parts: tuple[Selector, ...]
    local: tuple[str, ...]
    remote: tuple[str, ...]
    protocol: int
    local_ports: tuple[int, int] = (0, 0)
    remote_ports: tuple[int, int] = (0, 0)
    local_word: str = ""
    remote_word: str = ""


def covered(rule: Rule) -> Covered:
    """By a rule, outer addresses filled in as far as they are known."""
    sides = ((rule.local, rule.local_port.port), (rule.remote, rule.remote_port.port))
    local, remote = (side_selector(side, rule.protocol, port) for side, port in sides)
    local_word, remote_word = ("dynamic" if side.kind == SideKind.OUTER else "" for side, _ in sides)
    local_ports, remote_ports = ((port, port) for _, port in sides)
    return Covered(rule.parts, (local,), (remote,), rule.protocol, local_ports, remote_ports, local_word, remote_word)


# ---- what charon is asked for -----------------------------------------------------------------


def fine(child: str, granularity: int, what: Covered, own: Iterable[bytes], reqid: Callable[[str], int]) -> Fine | None:
    """How SAs are split; None for coarse. `own`: addresses of this host; `reqid`: that of a name."""
    if granularity <= Granularity.COARSE:
        return None
    mine: tuple[bytes, ...] = ()
    if granularity == Granularity.LOCAL_SERVICES:
        outside = (one for one in own if not ipaddress.ip_address(one).is_loopback)
        mine = tuple(sorted(one for one in outside if any(covers(part.source, one) for part in what.parts)))
    whole = None
    if what.parts:
        first = what.parts[0]
        addressed = (
            tuple(text.replace("dynamic", _address(net)) for text in texts)
            for net, texts in ((first.source, what.local), (first.destination, what.remote))
        )
        whole = FlowChild(observed_name(child, *addressed), what.local, what.remote)
    words = what.local_word, what.remote_word
    asks = tuple(map(reqid, (child, *numbers.asking_names(child))))
    return Fine(granularity, *words, what.protocol, what.local_ports, what.remote_ports, mine, whole, asks)


def _address(net: Prefix) -> str:
    return traffic_selector(net, 0, 0)


def standing(environment: Environment, child: str) -> tuple[Tunnel, ...]:
    """Flows of a child that have SAs, newest last: the daemon allots reqids in order."""
    return tuple(sorted(environment.flows.get(child, NO_FLOWS).values(), key=lambda flow: flow.reqid))


def asked_by(split: Fine, flows: Sequence[Tunnel]) -> int:
    """The reqid by which packets of a rule ask now. Once they have asked by one, the kernel is silent about it until
    its larval SA expires (xfrm_acq_expires), so after each flow that came up it is another's turn. While no answer
    comes it stays: a dead peer is called no more often than others are. The first is that of a rule without flows,
    which has asked for the first of them."""
    first, *others = split.asks
    return others[flows[-1].reqid % len(others)] if flows else first


def flow_child(child: Child, flow: Selector) -> FlowChild | None:
    """What to ask for when a packet of this flow, local to remote, wants an SA of a fine child."""
    split = child.fine
    if split is None:
        return None
    source, destination, protocol, source_port, destination_port = flow
    local_ports, remote_ports = split.local_ports, split.remote_ports
    if split.granularity == Granularity.LOCAL_SERVICES and source.address not in split.own:
        return split.whole
    if split.granularity == Granularity.PORT and protocol in PORT_PROTOCOLS:
        local_ports, remote_ports = ((port.port, port.port) for port in (source_port, destination_port))
    if split.granularity not in (Granularity.PROTO, Granularity.PORT):
        protocol = split.protocol
    ours, theirs = source.address, destination.address
    return FlowChild(
        name_of(
            child.name, [Span(ours, ours, protocol, *local_ports)], [Span(theirs, theirs, protocol, *remote_ports)]
        ),
        (_text(split.local_word, ours, protocol, local_ports),),
        (_text(split.remote_word, theirs, protocol, remote_ports),),
    )


def _text(word: str, address: bytes, protocol: int, ports: tuple[int, int]) -> str:
    first, last = ports
    text = word or _address(host(address))
    if first:
        return f"{text}[{protocol}/{first}]" if first == last else f"{text}[{protocol}/{first}-{last}]"
    return f"{text}[{protocol}]" if protocol else text


def with_flow(settings: Mapping[str, ViciValue], child: str, flow: FlowChild) -> dict[str, ViciValue]:
    """The settings of a connection with the child of one flow among its children."""
    children = settings["children"]
    assert isinstance(children, Mapping)
    whole = children[child]
    assert isinstance(whole, Mapping)
    own = {**whole, "local_ts": list(flow.local_ts), "remote_ts": list(flow.remote_ts)}
    return {**settings, "children": {**children, flow.name: own}}


def observed_name(child: str, local: Sequence[str], remote: Sequence[str]) -> str:
    """The name of the flow that charon negotiated these selectors for, whoever asked for it."""
    return _observed_name(child, tuple(local), tuple(remote))


@lru_cache(maxsize=4096)  # the same are told every second
def _observed_name(child: str, local: tuple[str, ...], remote: tuple[str, ...]) -> str:
    ours, theirs = ([one for text in texts if (one := span(text)) is not None] for texts in (local, remote))
    return name_of(child, ours, theirs)


def name_of(child: str, local: Iterable[Span], remote: Iterable[Span]) -> str:
    text = repr((sorted(local), sorted(remote)))
    return numbers.flow_name(child, hashlib.blake2b(text.encode(), digest_size=4).hexdigest())


# ---- policies ---------------------------------------------------------------------------------


def asking(parts: Iterable[Selector], split: Fine, flows: Collection[Tunnel]) -> tuple[Selector, ...]:
    """Parts of what is protected that an SA for the whole does not serve, unless there are too many flows."""
    if len(flows) >= MOST_FLOWS:
        return ()
    return tuple(
        part._replace(source=host(one))
        for part in parts
        for one in split.own
        if covers(part.source, one) and part.source != host(one)
    )


def refined(
    policies: list[Policy],
    parts: Iterable[Selector],
    way: spd.Way | None,
    scopes: tuple[Scope, Scope],
    inbound: bool = True,
) -> list[Policy]:
    """The policies that protect `parts` with those of the flows, where the way is split. `scopes`: of what leaves and
    what arrives; `inbound`: as of spd.protect. What was negotiated beyond the parts counts as far as they go."""
    if way is None or way.split is None or not policies:
        return policies
    whole: dict[Selector, Tunnel] = {}
    narrower: dict[Selector, Tunnel] = {}
    for part in parts:
        for tunnel in way.split.flows:
            for pair in tunnel.selectors:
                both = common(part, pair)
                if both is not None:
                    (whole if both == part else narrower)[both] = tunnel
    leaving, arrived = scopes
    ways = {
        PolicyKey(direction, _as_carried(direction, selector), leaving if direction is OUT else arrived): tunnel
        for selector, tunnel in (whole | narrower).items()
        for direction in ((OUT, IN, FWD) if inbound and not way.any_inward else (OUT,))
    }
    found: list[Policy] = []
    for policy in policies:
        taken = ways.get(policy.key)
        if taken is not None and policy.templates:
            del ways[policy.key]
            policy = policy._replace(templates=_templates(taken, way, policy.key.direction))
        found.append(policy)
    protecting = next(policy for policy in policies if policy.templates)
    before = protecting.priority - numbers.PLACE_RULE
    for key, tunnel in ways.items():
        templates = _templates(tunnel, way, key.direction)
        place = before + numbers.PLACE_FLOW
        found.append(protecting._replace(key=key, priority=place, templates=templates, rule=WHY_FLOW))
    outward = spd.templates(way, OUT)
    for selector in way.split.asking:
        key = PolicyKey(OUT, selector, leaving)
        if key not in ways:
            found.append(protecting._replace(key=key, priority=before + numbers.PLACE_ASKING, templates=outward))
    return found


def _as_carried(direction: Direction, outward: Selector) -> Selector:
    return outward if direction is OUT else reversed_selector(outward)


def _templates(tunnel: Tunnel, way: spd.Way, direction: Direction) -> tuple[Template, ...]:
    """`way`: the rule's, which may insist on compression."""
    own = spd.way_of(tunnel, tunnel.reqid)
    return spd.templates(own._replace(ipcomp=own.ipcomp or way.ipcomp), direction)


def common(one: Selector, other: Selector) -> Selector | None:
    """What both match; None for nothing."""
    source, destination = _both(one.source, other.source), _both(one.destination, other.destination)
    ports = [
        Ports(a.port | b.port, a.mask | b.mask)
        for a, b in ((one.source_port, other.source_port), (one.destination_port, other.destination_port))
        if not (a.port ^ b.port) & a.mask & b.mask
    ]
    if source is None or destination is None or len(ports) < 2:
        return None
    if one.protocol and other.protocol and one.protocol != other.protocol:
        return None
    return Selector(source, destination, one.protocol or other.protocol, *ports)


def _both(one: Prefix, other: Prefix) -> Prefix | None:
    wide, narrow = sorted((one, other), key=lambda net: net.length)
    return narrow if covers(wide, narrow.address) else None
