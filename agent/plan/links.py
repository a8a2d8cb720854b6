"""What links, addresses, routes and routing rules of ours a plan wants: plain data, carried out by `backends/links`.

A peer with a virtual interface has one XFRM interface, whose number, interface id and name
come from the peer's number; whatever is routed to it is protected. Selectors may lead to it
too, whatever the routes say: then it has a routing table of its own, and rules that send
packets there. Beside these there are only the host routes by which a peer is called through
a link of the operator's choice. Sources: ipsecPeerVirtualInterface, guide 3.4,
ipsecPeerTrafficPolicy; XFRM interfaces: ip-link(8); routing rules: ip-rule(8).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Final, NamedTuple

from agent.plan.model import Flow, Prefix


class Standing(enum.IntEnum):
    """What an interface shows of its peer, as IF_OPER_* of linux/if.h (RFC 2863 ifOperStatus under it)."""

    UNKNOWN = 0
    DOWN = 2
    LOWER_LAYER_DOWN = 3
    DORMANT = 5
    UP = 6


class Address(NamedTuple):
    """An address of a virtual interface; `remote`: of the other end, empty where there is none."""

    address: bytes
    length: int
    remote: bytes = b""


NOWHERE: Final = 0  # in place of a link: what is routed there is refused
ELSEWHERE: Final = -1  # in place of a link: the table has no answer, the next rule is asked (throw)
GUARD_METRIC: Final = 0xFFFF_FFFE  # of all routes to the same net the last
MAIN_TABLE: Final = 254
LINK_LOCAL: Final = Prefix(b"\xfe\x80" + bytes(14), 10)


class Route(NamedTuple):
    """A route through a link, NOWHERE or ELSEWHERE. `gateway` empty: the destination is on the link, or the link has
    no neighbours. `table`: the main one, or that of a virtual interface, which has the interface's number."""

    destination: Prefix
    interface: int
    metric: int = 0
    gateway: bytes = b""
    table: int = MAIN_TABLE


class RoutingRule(NamedTuple):
    """Packets that are routed by a table. Protocol 0 is any; ports are the first and the last, (0, 0) any. `own`: only
    those that this host makes."""

    source: Prefix
    destination: Prefix
    table: int
    protocol: int = 0
    source_ports: tuple[int, int] = (0, 0)
    destination_ports: tuple[int, int] = (0, 0)
    own: bool = False

    def takes(self, flow: Flow) -> bool:
        """Whether the packet is one of these."""
        return (
            covers(self.source, flow.source)
            and covers(self.destination, flow.destination)
            and self.protocol in (0, flow.protocol)
            and (flow.way == "out" or not self.own)
            and _among(self.source_ports, flow.source_port)
            and _among(self.destination_ports, flow.destination_port)
        )


class VirtualLink(NamedTuple):
    """The XFRM interface of a peer. `number` is its interface id too; `mtu` 0: the kernel's choice. `rules`: what leads
    to it whatever the routes say, those to the main table before all others; `priority`: of the peer, whose rules come
    first."""

    peer: int
    number: int
    name: str
    mtu: int
    addresses: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    rules: tuple[RoutingRule, ...] = ()
    priority: int = 0


def guards(links: Iterable[VirtualLink]) -> dict[Route, int]:
    """What holds packets back that a link should have taken while it is down, or cannot be made: a route to nowhere
    behind each of its routes, by peer. Without it they would leave in plain by a route to a larger net. Another route
    to the same net, the administrator's, goes before; behind a default route there is no larger one, but in a table of
    the link's own there are the other tables behind it. What is link-local has no business there."""
    found: dict[Route, int] = {}
    for link in links:
        for destination, _, _, _, table in link.routes:
            if destination.length or table != MAIN_TABLE:
                found[Route(destination, NOWHERE, GUARD_METRIC, table=table)] = link.peer
            if table != MAIN_TABLE and len(destination.address) == 16:
                found[Route(LINK_LOCAL, ELSEWHERE, GUARD_METRIC, table=table)] = link.peer
    return found


def routing_rules(links: Iterable[VirtualLink]) -> dict[RoutingRule, int]:
    """The rules of all links by peer, in the order in which they are to be asked: by the peers' priority and number."""
    found: dict[RoutingRule, int] = {}
    for link in sorted(links, key=lambda link: (link.priority, link.peer)):
        for rule in link.rules:
            found.setdefault(rule, link.peer)
    return dict(sorted(found.items(), key=lambda entry: entry[0].table != MAIN_TABLE))


def steered(links: Iterable[VirtualLink], flow: Flow) -> int:
    """Number of the interface that a rule leads this packet to; 0 where none does."""
    for rule in routing_rules(links):
        if rule.takes(flow):
            return rule.table if rule.table != MAIN_TABLE else 0
    return 0


def covers(net: Prefix, address: bytes) -> bool:
    """Whether an address is in a net; one of another family is not."""
    if len(net.address) != len(address):
        return False
    shift = len(address) * 8 - net.length
    return int.from_bytes(net.address, "big") >> shift == int.from_bytes(address, "big") >> shift


def _among(ports: tuple[int, int], port: int) -> bool:
    return ports == (0, 0) or ports[0] <= port <= ports[1]


class CallRoute(NamedTuple):
    """The host route by which a peer is called: through this link, whatever other routes say."""

    peer: int
    destination: bytes
    interface: int
