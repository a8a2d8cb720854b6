"""Traffic selectors as charon tells them, `10.1.0.0/24`, `10.1.0.1..10.1.0.9[udp/53]`, or is told them: with `-`."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from agent.plan.model import ANY_PORT, Ports, Prefix, Selector
from agent.plan.selectors import one_port, range_prefixes

NONE: Final = b"\0\0\0\0"
ANY_PROTOCOL: Final = 255
PROTOCOLS: Final[Mapping[str, int]] = {
    "icmp": 1,
    "igmp": 2,
    "ipencap": 4,
    "tcp": 6,
    "udp": 17,
    "ipv6": 41,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "ipv6-icmp": 58,
    "ospf": 89,
    "ospfigp": 89,
    "ipip": 94,
    "ipcomp": 108,
    "vrrp": 112,
    "l2tp": 115,
    "sctp": 132,
    "udplite": 136,
}
SELECTOR: Final = re.compile(r"([^\[]+)(?:\[([^/\]]*)(?:/([^\]]*))?\])?")
PORTS: Final = re.compile(r"(\d+)(?:-(\d+))?")


class Shown(NamedTuple):
    """A traffic selector as the MIB has it: `last` is the end of a range, else 0; length 0 with a range."""

    address: bytes = NONE
    length: int = 0
    last: bytes = NONE
    protocol: int = ANY_PROTOCOL
    port: int = 0
    last_port: int = 0  # of a range; the same as `port` where that is one port


def selector(texts: Sequence[str]) -> Shown:
    """The first of charon's traffic selectors."""
    match = SELECTOR.fullmatch(texts[0].strip()) if texts else None
    if match is None:
        return Shown()
    protocol = _protocol(match[2])
    ports = PORTS.fullmatch(match[3] or "")
    port = int(ports[1]) if ports is not None else 0
    last_port = int(ports[2] or ports[1]) if ports is not None else 0
    first, _, last = match[1].replace("-", "..").partition("..")
    try:
        if last:
            ends = ipaddress.ip_address(first).packed, 0, ipaddress.ip_address(last).packed
            return Shown(*ends, protocol, port, last_port)
        net = ipaddress.ip_network(first, strict=False)
    except ValueError:
        return Shown(protocol=protocol, port=port, last_port=last_port)
    return Shown(net.network_address.packed, net.prefixlen, NONE, protocol, port, last_port)


def _protocol(text: str | None) -> int:
    if not text:
        return ANY_PROTOCOL
    return int(text) if text.isdigit() else PROTOCOLS.get(text, ANY_PROTOCOL)


class Span(NamedTuple):
    """Addresses from first to last, protocol (0: any), ports from first to last (0: any)."""

    first: bytes
    last: bytes
    protocol: int = 0
    port: int = 0
    last_port: int = 0


def span(text: str) -> Span | None:
    """What one of charon's selectors covers; None for a word (`dynamic`)."""
    match = SELECTOR.fullmatch(text.strip())
    if match is None or match[1] == "dynamic":
        return None
    shown = selector([text])
    protocol = 0 if shown.protocol == ANY_PROTOCOL else shown.protocol
    if any(shown.last):
        return Span(shown.address, shown.last, protocol, shown.port, shown.last_port)
    return Span(*ends(Prefix(shown.address, shown.length)), protocol, shown.port, shown.last_port)


def ends(net: Prefix) -> tuple[bytes, bytes]:
    """First and last address of a net."""
    octets = len(net.address)
    last = int.from_bytes(net.address, "big") | (1 << octets * 8 - net.length) - 1
    return net.address, last.to_bytes(octets, "big")


def selectors(local: Sequence[str], remote: Sequence[str]) -> tuple[Selector, ...]:
    """All pairs of ours with the peer's, local to remote. A range of ports, which the kernel has no selector for,
    counts as any port, so that it is never narrower than what was negotiated."""
    return _selectors(tuple(local), tuple(remote))


@lru_cache(maxsize=4096)  # the same are told every second
def _selectors(local: tuple[str, ...], remote: tuple[str, ...]) -> tuple[Selector, ...]:
    found = []
    for one in filter(None, map(span, local)):
        for other in filter(None, map(span, remote)):
            if len(one.first) != len(other.first):
                continue
            found += [
                Selector(source, destination, one.protocol or other.protocol, _ports(one), _ports(other))
                for source in range_prefixes(one.first, one.last)
                for destination in range_prefixes(other.first, other.last)
            ]
    return tuple(found)


def _ports(one: Span) -> Ports:
    return one_port(one.port) if one.port == one.last_port else ANY_PORT
