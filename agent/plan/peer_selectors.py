"""What a peer with a virtual interface negotiates: its rows of ipsecPeerTrafficTable, as selectors.

Without rows everything goes through its tunnel (IPv4). A both-sides row is a child of its
own; local and remote rows together are one child with several nets on either side, which
only IKEv2 can carry. Sources: ipsecPeerTrafficTable; a port range is a count of ports.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from agent.plan import cells
from agent.plan.model import ANY_PORT, Ports, Prefix, RowView, Selector
from agent.plan.proposals import V1
from agent.plan.selectors import ANYWHERE, one_port

PEER_TRAFFIC: Final = "ipsecPeerTrafficTable"
LOCAL, REMOTE, BOTH_SIDES = 1, 2, 3  # ipsecPeerTrafficType
INITIATOR, RESPONDER, BOTH, INITIATOR_ROUTED, BOTH_ROUTED = 2, 3, 4, 5, 6  # ipsecPeerTrafficPolicy
ROUTED: Final = frozenset({INITIATOR_ROUTED, BOTH_ROUTED})
ANY_PROTOCOL: Final = 256
SHARED: Final = 0  # number of the child that local and remote rows, or none, make together


class Side(NamedTuple):
    """One side of a selector: nets of either family, and the ports from `low` to `high`; (0, 0) is any port."""

    nets: tuple[Prefix, ...]
    low: int = 0
    high: int = 0


class Negotiated(NamedTuple):
    """One child of a peer with a virtual interface. `number`: the row it comes from, SHARED for several or none.
    `starts`, `answers`: whether we may begin it, and the peer. `routed`: its packets go to the interface whatever the
    routes say."""

    number: int
    local: Side
    remote: Side
    protocol: int = 0
    starts: bool = True
    answers: bool = True
    routed: bool = False


EVERYTHING: Final = Negotiated(SHARED, Side((ANYWHERE[4],)), Side((ANYWHERE[4],)))


def mask_length(mask: bytes) -> int | None:
    """Bits of a dotted mask; None where it has holes."""
    bits = int.from_bytes(mask, "big")
    length = bits.bit_count()
    return length if bits == (1 << length) - 1 << (32 - length) else None


def side(row: RowView, name: str) -> Side:
    """`name`: Local or Remote. What cannot be is read as nothing; the rules have refused it."""
    nets: list[Prefix] = []
    length = mask_length(cells.octets(row, f"ipsecPeerTraffic{name}Mask"))
    address = cells.octets(row, f"ipsecPeerTraffic{name}Address")
    six = cells.octets(row, f"ipsecPeerTrafficIp6{name}Address")
    has_six = any(six) or cells.number(row, f"ipsecPeerTrafficIp6{name}MaskLen") > 0
    if length is not None and (any(address) or not has_six):
        nets.append(net(address, length))
    if has_six:
        nets.append(net(six, cells.number(row, f"ipsecPeerTrafficIp6{name}MaskLen")))
    port = cells.number(row, f"ipsecPeerTraffic{name}Port")
    if port <= 0:
        return Side(tuple(nets))
    count = max(1, cells.number(row, f"ipsecPeerTraffic{name}PortRange"))
    return Side(tuple(nets), port, min(port + count - 1, 0xFFFF))


def net(address: bytes, length: int) -> Prefix:
    width = len(address) * 8
    value = int.from_bytes(address, "big") >> (width - length) << (width - length)
    return Prefix(value.to_bytes(len(address), "big"), length)


def negotiated(rows: Iterable[RowView], version: int) -> list[Negotiated]:
    """The children of a peer, from its rows in service."""
    found: list[Negotiated] = []
    sides: dict[int, list[Side]] = {LOCAL: [], REMOTE: []}
    protocols = set[int]()
    starts = answers = routed = False
    for row in rows:
        kind, role = cells.number(row, "ipsecPeerTrafficType"), cells.number(row, "ipsecPeerTrafficPolicy")
        protocol = cells.number(row, "ipsecPeerTrafficProtocol")
        protocol = 0 if protocol == ANY_PROTOCOL else protocol
        begins, lets = role != RESPONDER, role not in (INITIATOR, INITIATOR_ROUTED)
        if kind == BOTH_SIDES or version == V1:
            both = side(row, "Local"), side(row, "Remote")
            found.append(Negotiated(row.number, *both, protocol, begins, lets, role in ROUTED))
            continue
        sides[kind].append(side(row, "Local" if kind == LOCAL else "Remote"))
        protocols.add(protocol)
        starts, answers, routed = starts or begins, answers or lets, routed or role in ROUTED
    if sides[LOCAL] or sides[REMOTE]:
        near, far = (_together(sides[kind]) for kind in (LOCAL, REMOTE))
        one = protocols.pop() if len(protocols) == 1 else 0
        found.append(Negotiated(SHARED, near, far, one, starts, answers, routed))
    return found or [EVERYTHING]


def _together(sides: list[Side]) -> Side:
    nets = tuple(dict.fromkeys(each for side in sides for each in side.nets)) or (ANYWHERE[4],)
    ports = {(side.low, side.high) for side in sides}
    return Side(nets, *ports.pop()) if len(ports) == 1 else Side(nets)


def texts(each: Side, protocol: int) -> list[str]:
    """As traffic selectors of VICI: `10.0.0.0/8[17/5000-5003]`."""
    ports = f"{each.low}" if each.low == each.high else f"{each.low}-{each.high}"
    tail = f"[{protocol}/{ports}]" if each.low else f"[{protocol}]" if protocol else ""
    return [f"{ipaddress.ip_address(one.address)}/{one.length}{tail}" for one in each.nets]


def selectors(child: Negotiated) -> Iterator[Selector]:
    """L→R, as many as it takes: nets of one family with each other, port ranges by blocks."""
    for near in child.local.nets:
        for far in child.remote.nets:
            if len(near.address) != len(far.address):
                continue
            for source in port_blocks(child.local.low, child.local.high):
                for destination in port_blocks(child.remote.low, child.remote.high):
                    yield Selector(near, far, child.protocol, source, destination)


def port_blocks(low: int, high: int) -> list[Ports]:
    """The fewest ports with masks that are just this range; any port for (0, 0)."""
    if not low:
        return [ANY_PORT]
    found: list[Ports] = []
    while low <= high:
        size = 1
        while low % (size * 2) == 0 and low + size * 2 - 1 <= high:
            size *= 2
        found.append(one_port(low) if size == 1 else Ports(low, 0xFFFF & ~(size - 1)))
        low += size
    return found
