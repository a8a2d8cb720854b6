"""Peers with a virtual interface: its link, the policies of its packets, and its children at the IKE daemon.

Packets that are routed to the interface meet only policies with its number; so these need
no place among the rules of others, and without one nothing leaves. Before that the packet
meets the other policies too, by the link it is to leave by: there it is let through, behind
the pre list. What came out of the tunnel and is forwarded carries a mark, for the kernel
asks the other policies about it as about any packet. Sources: net/xfrm/xfrm_interface,
ipsecPeerVirtualInterface, ipsecPeerTrafficTable, guide 3.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Final, NamedTuple

from agent.plan import cells, numbers, spd
from agent.plan.connections import Peer, address_text, numbered
from agent.plan.daemon import NAT_T_PORT
from agent.plan.flows import Covered, refined
from agent.plan.links import MAIN_TABLE, Address, Route, RoutingRule, VirtualLink, covers
from agent.plan.model import (
    Action,
    ConfigurationView,
    Direction,
    Policy,
    PolicyKey,
    Prefix,
    RowRef,
    RowView,
    Scope,
    Selector,
    ViciValue,
)
from agent.plan.peer_selectors import PEER_TRAFFIC, Negotiated, negotiated, net, selectors, texts
from agent.plan.phase2 import Phase2
from agent.plan.selectors import ANYWHERE, host, reversed_selector
from agent.plan.spd import UDP, Way

PEER_ADDRESSES: Final = "ipsecGwPeerAddressTable"
PEER_ROUTES: Final = "ipsecGwPeerRouteTable"
WHY_ROUTED: Final = "routed to a virtual interface, whose tunnel it takes"
WHY_CAME: Final = "came out of a virtual interface"
PEERS: Final = "ipsecPeerTable"


class Virtual(NamedTuple):
    """What the plan has of such a peer."""

    policies: tuple[Policy, ...]
    link: VirtualLink
    children: tuple[str, ...]


def peer_of_row(row: RowView | None, table: str) -> int:
    """The peer that a row about virtual interfaces belongs to; 0 for none."""
    if row is None:
        return 0
    if table == PEER_TRAFFIC:
        return max(0, cells.number(row, "ipsecPeerTrafficIfindex") - numbers.INTERFACE_BASE)
    return cells.number(row, "ipsecGwPeerAddressPeer" if table == PEER_ADDRESSES else "ipsecGwPeerRoutePeer")


class Networks:
    """The rows of a configuration about virtual interfaces by peer, found once."""

    def __init__(self, configuration: ConfigurationView) -> None:
        self._configuration = configuration

    def selectors(self, peer: int) -> list[RowView]:
        return self._selectors.get(peer, [])

    def addresses(self, peer: int) -> tuple[Address, ...]:
        found = []
        for row in self._addresses.get(peer, ()):
            address = cells.octets(row, "ipsecGwPeerAddressAddress")
            if not address:
                continue
            remote = cells.octets(row, "ipsecGwPeerAddressRemote")
            length = cells.number(row, "ipsecGwPeerAddressPrefixLength") or len(address) * 8
            found.append(Address(address, length, remote if len(remote) == len(address) else b""))
        return tuple(found)

    def routes(self, peer: int, interface: int) -> tuple[Route, ...]:
        return tuple(
            Route(
                net(
                    cells.octets(row, "ipsecGwPeerRouteDestination") or bytes(4),
                    cells.number(row, "ipsecGwPeerRoutePrefixLength"),
                ),
                interface,
                cells.number(row, "ipsecGwPeerRouteMetric"),
            )
            for row in self._routes.get(peer, ())
        )

    @cached_property
    def _selectors(self) -> Mapping[int, list[RowView]]:
        return self._by_peer(PEER_TRAFFIC)

    @cached_property
    def _addresses(self) -> Mapping[int, list[RowView]]:
        return self._by_peer(PEER_ADDRESSES)

    @cached_property
    def _routes(self) -> Mapping[int, list[RowView]]:
        return self._by_peer(PEER_ROUTES)

    def _by_peer(self, table: str) -> Mapping[int, list[RowView]]:
        found: dict[int, list[RowView]] = {}
        for row in sorted(self._configuration.rows(table), key=lambda row: row.number):
            found.setdefault(peer_of_row(row, table), []).append(row)
        return found


def link_of(
    peer: Peer,
    mtu: int,
    networks: Networks,
    served: Iterable[Peer],
    ways: Iterable[tuple[bytes, bytes]],
    ike_port: int,
) -> VirtualLink:
    """The interface of a peer. `served`: the peers whose routes and selectors lead to it: itself, unless another stands
    for it, and those it stands for; `ways`: outer addresses between which their tunnels are, or would be."""
    number = numbers.interface_number(peer.number)
    routes: list[Route] = []
    rules: list[RoutingRule] = []
    for each in served:
        routes += networks.routes(each.number, number)
        rules += steering(negotiated(networks.selectors(each.number), each.version), number)
    for width in sorted({len(rule.source.address) for rule in rules}):
        routes.append(Route(ANYWHERE[width], number, table=number))
    return VirtualLink(
        peer.number,
        number,
        numbers.interface_name(peer.number),
        mtu,
        networks.addresses(peer.number),
        tuple(dict.fromkeys(routes)),
        tuple(dict.fromkeys([*outside(rules, ways, ike_port), *rules])),
        peer.priority,
    )


def steering(children: Iterable[Negotiated], table: int) -> Iterator[RoutingRule]:
    """What leads the packets of children to the interface whose table this is, where their selectors ask for it."""
    for child in children:
        if not child.routed:
            continue
        ports = (child.local.low, child.local.high), (child.remote.low, child.remote.high)
        for near in child.local.nets:
            for far in child.remote.nets:
                if len(near.address) == len(far.address):
                    yield RoutingRule(near, far, table, child.protocol, *ports)


def outside(rules: Sequence[RoutingRule], ways: Iterable[tuple[bytes, bytes]], ike_port: int) -> Iterator[RoutingRule]:
    """What must not be led into a tunnel although its nets have it: our own IKE, and what this host sends to the peer's
    outer address. Whatever its source: who looks for the way there does not have one yet."""
    for width in sorted({len(rule.source.address) for rule in rules}):
        everything = ANYWHERE[width]
        for port in (ike_port, NAT_T_PORT):
            yield RoutingRule(everything, everything, MAIN_TABLE, UDP, (port, port), own=True)
    for local, remote in ways:
        if any(covers(rule.source, local) and covers(rule.destination, remote) for rule in rules):
            yield RoutingRule(ANYWHERE[len(remote)], host(remote), MAIN_TABLE, own=True)


def standing_policies(peer: int) -> list[Policy]:
    """What is routed to the interface is left to it."""
    scope = Scope(interface=numbers.interface_number(peer))
    return [
        Policy(
            PolicyKey(direction, Selector(everything, everything), scope),
            numbers.PRIORITY_INTERFACES,
            Action.ALLOW,
            (),
            RowRef(PEERS, peer),
            peer,
            WHY_ROUTED,
        )
        for everything in ANYWHERE.values()
        for direction in (Direction.OUT, Direction.FWD)
    ]


def own_policies(link: VirtualLink) -> list[Policy]:
    """Of IPv6 packets made here the kernel does not know at first that they are routed to the interface: those with its
    address that go where its routes lead are let pass, until it asks again (outbound.py)."""
    there = {route.destination for route in link.routes if route.table == MAIN_TABLE}
    there |= {rule.destination for rule in link.rules if rule.table != MAIN_TABLE}
    first = Scope(mark=0, mask=numbers.MARK_MASK)
    return [
        Policy(
            PolicyKey(Direction.OUT, Selector(host(own.address), destination), first),
            numbers.PRIORITY_INTERFACES,
            Action.ALLOW,
            (),
            RowRef(PEERS, link.peer),
            link.peer,
            WHY_ROUTED,
        )
        for own in link.addresses
        for destination in sorted(there)
        if len(own.address) == len(destination.address) == 16
    ]


def marked_policies(peer: int) -> list[Policy]:
    """What came out of the interface goes on, unless a rule of a peer's list decides."""
    number = numbers.interface_number(peer)
    if number > numbers.MARKED_INTERFACE_LAST:
        return []
    scope = Scope(mark=numbers.interface_mark(number), mask=numbers.MARK_MASK)
    return [
        Policy(
            PolicyKey(Direction.OUT, Selector(everything, everything), scope),
            numbers.PRIORITY_CAME,
            Action.ALLOW,
            (),
            RowRef(PEERS, peer),
            peer,
            WHY_CAME,
        )
        for everything in ANYWHERE.values()
    ]


def child_policies(peer: Peer, child: Negotiated, way: Way, place: int) -> list[Policy]:
    """The policies of one child; `place`: which of the peer's it is, 0 for the first."""
    scope = Scope(if_id=numbers.interface_number(peer.number))
    row = RowRef(PEER_TRAFFIC, child.number) if child.number else RowRef(PEERS, peer.number)
    inbound, outbound = spd.templates(way, Direction.IN), spd.templates(way, Direction.OUT)
    found = []
    for outward in selectors(child):
        inward = reversed_selector(outward)
        for direction, selector, templates in (
            (Direction.OUT, outward, outbound),
            (Direction.IN, inward, inbound),
            (Direction.FWD, inward, inbound),
        ):
            key = PolicyKey(direction, selector, scope)
            priority = numbers.PRIORITY_PEERS + numbers.PLACE_WIDTH * place + numbers.PLACE_RULE
            found.append(Policy(key, priority, Action.ALLOW, templates, row, peer.number, spd.WHY_PROTECT))
    return refined(found, selectors(child), way, (scope, scope))


def covered(child: Negotiated) -> Covered:
    """What a child protects."""
    near, far = child.local, child.remote
    local, remote = (tuple(texts(each, child.protocol)) for each in (near, far))
    return Covered(tuple(selectors(child)), local, remote, child.protocol, (near.low, near.high), (far.low, far.high))


def child_settings(peer: Peer, child: Negotiated, phase2: Phase2, reqid: int) -> dict[str, ViciValue]:
    """One child for load-conn; `reqid` as of `numbered`."""
    number = str(numbers.interface_number(peer.number))
    return {
        **phase2.settings,
        **numbered(peer, phase2, reqid),
        "mode": "tunnel",
        "local_ts": list(texts(child.local, child.protocol)),
        "remote_ts": list(texts(child.remote, child.protocol)),
        "if_id_in": number,
        "if_id_out": number,
    }


def net_text(one: Prefix) -> str:
    return f"{address_text(one.address)}/{one.length}"


def local_nets(policies: Iterable[Policy]) -> set[Prefix]:
    """Inside nets: what protect rules call local; not those that are everything."""
    return {
        policy.key.selector.source
        for policy in policies
        if policy.templates and policy.key.direction is Direction.OUT and policy.key.selector.source.length
    }
