"""What links, addresses and routes of ours a plan wants: plain data, carried out by `backends/links`.

A peer with a virtual interface has one XFRM interface, whose number, interface id and name
come from the peer's number; whatever is routed to it is protected. Beside these there are
only the host routes by which a peer is called through a link of the operator's choice.
Sources: ipsecPeerVirtualInterface, guide 3.4; XFRM interfaces: ip-link(8).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Final, NamedTuple

from agent.plan.model import Prefix


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
GUARD_METRIC: Final = 0xFFFF_FFFE  # of all routes to the same net the last


class Route(NamedTuple):
    """A route through a link, or NOWHERE. `gateway` empty: the destination is on the link, or the link has no
    neighbours."""

    destination: Prefix
    interface: int
    metric: int = 0
    gateway: bytes = b""


class VirtualLink(NamedTuple):
    """The XFRM interface of a peer. `number` is its interface id too; `mtu` 0: the kernel's choice.

    `standing` None: just up; else what it shows (full: by its operational state, while it is up; reduced: DOWN takes it
    down)."""

    peer: int
    number: int
    name: str
    mtu: int
    addresses: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()


def guards(links: Iterable[VirtualLink]) -> dict[Route, int]:
    """What holds packets back that a link should have taken while it is down, or cannot be made: a route to nowhere
    behind each of its routes, by peer. Without it they would leave in plain by a route to a larger net. Another route
    to the same net, the administrator's, goes before; behind a default route there is no larger one."""
    return {
        Route(route.destination, NOWHERE, GUARD_METRIC): link.peer
        for link in links
        for route in link.routes
        if route.destination.length
    }


class CallRoute(NamedTuple):
    """The host route by which a peer is called: through this link, whatever other routes say."""

    peer: int
    destination: bytes
    interface: int
