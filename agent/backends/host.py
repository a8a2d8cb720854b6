"""This machine as the plan needs it: its addresses, its source address per peer, its TCP connections, names.

Addresses and routes come over rtnetlink, by the same small codec as XFRM, because the
kernel answers at once and every peer's source is asked anew when a route changes.
Nothing here needs privileges. Sources: rtnetlink(7), proc(5) for /proc/net/tcp.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from agent.backends.engine import NO_ROUTE, EngineError, HostListener, Route
from agent.backends.names import Resolver
from agent.backends.rtnetlink import (
    ADDRESS_MESSAGE,
    GROUPS,
    LINK_MESSAGE,
    ROUTE_MESSAGE,
    RT_SCOPE_UNIVERSE,
    RTA_DST,
    RTA_OIF,
    RTA_PREFSRC,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_GETROUTE,
    AddressSeen,
    RouteSocketFactory,
    number,
    open_route_socket,
    read_address,
    read_link,
)
from agent.backends.xfrm.messages import attributes, encode_attribute
from agent.backends.xfrm.netlink import Message, NetlinkSocket, Overrun, Refusal, close_all
from agent.plan.model import Flow

DUMP_ATTEMPTS: Final = 5
SETTLE_SECONDS: Final = 0.1  # an interface that comes up sends a dozen messages
TCP_ESTABLISHED: Final = 1
TCP_LISTEN: Final = 10
TCP: Final = 6


class LinuxHost:
    """The running kernel's view. `open_socket` and `proc` let tests look at another network namespace."""

    def __init__(self, *, open_socket: RouteSocketFactory = open_route_socket, proc: Path = Path("/proc/net")) -> None:
        self._open = open_socket
        self._proc = proc
        self._resolver = Resolver()
        self._requests: NetlinkSocket | None = None
        self._events: NetlinkSocket | None = None
        self._listeners: list[HostListener] = []
        self._settling: asyncio.TimerHandle | None = None
        self._known: tuple[frozenset[bytes], Mapping[int, tuple[bytes, ...]]] | None = None
        self._interfaces: dict[int, str] | None = None

    async def start(self) -> None:
        """Raises EngineError."""
        self._requests = self._open(())
        self._events = self._open(GROUPS)
        self._events.watch(self._changed)

    async def stop(self) -> None:
        if self._settling is not None:
            self._settling.cancel()
        close_all(self._events, self._requests)
        self._events = self._requests = None

    def subscribe(self, listener: HostListener) -> None:
        self._listeners.append(listener)

    def own_addresses(self) -> frozenset[bytes]:
        """Remembered until the kernel announces a change."""
        return self._addresses()[0]

    def link_addresses(self) -> Mapping[int, tuple[bytes, ...]]:
        return self._addresses()[1]

    def _addresses(self) -> tuple[frozenset[bytes], Mapping[int, tuple[bytes, ...]]]:
        if self._known is None:
            links: dict[int, tuple[bytes, ...]] = {}
            seen = list(self._dump_addresses())
            for one in seen:
                if one.scope == RT_SCOPE_UNIVERSE:
                    links[one.link] = (*links.get(one.link, ()), one.address.address)
            self._known = frozenset(one.address.address for one in seen), links
        return self._known

    def source_for(self, peer: bytes) -> bytes | None:
        return self.route_to(peer).source

    def route_to(self, peer: bytes) -> Route:
        if self._requests is None:
            return NO_ROUTE
        family = socket.AF_INET if len(peer) == 4 else socket.AF_INET6
        body = ROUTE_MESSAGE.encode({"family": family, "dst_len": len(peer) * 8}) + encode_attribute(RTA_DST, peer)
        try:
            answer = self._requests.ask(RTM_GETROUTE, body)
        except (EngineError, Overrun):
            return NO_ROUTE
        if isinstance(answer, Refusal):  # ENETUNREACH and its like
            return NO_ROUTE
        source, interface = None, 0
        for type, start, end in attributes(answer.data, answer.start + ROUTE_MESSAGE.size, answer.end):
            if type == RTA_PREFSRC:
                source = answer.data[start:end]
            elif type == RTA_OIF:
                interface = number(answer.data[start:end])
        return Route(source, interface)

    def interfaces(self) -> Mapping[int, str]:
        """Remembered until the kernel announces a change."""
        if self._interfaces is None:
            self._interfaces = dict(self._dump_interfaces())
        return self._interfaces

    async def resolve(self, name: str) -> tuple[bytes, ...]:
        address = literal(name)
        if address is not None:
            return (address,)
        return await self._resolver.addresses(name)

    def flows(self) -> tuple[Flow, ...]:
        return tuple(established((self._lines("tcp"), self._lines("tcp6"))))

    def _lines(self, name: str) -> list[str]:
        try:
            return (self._proc / name).read_text().splitlines()[1:]
        except OSError:  # no IPv6
            return []

    def _dump_addresses(self) -> Iterator[AddressSeen]:
        seen = map(read_address, self._dump(RTM_GETADDR, ADDRESS_MESSAGE.encode({})))
        return (one for one in seen if one is not None)

    def _dump_interfaces(self) -> Iterator[tuple[int, str]]:
        return ((link.number, link.name) for link in map(read_link, self._dump(RTM_GETLINK, LINK_MESSAGE.encode({}))))

    def _dump(self, type: int, body: bytes) -> list[Message]:
        """All or nothing: without an address that is there tunnels would be ended. Raises EngineError."""
        for _ in range(DUMP_ATTEMPTS):
            try:
                with self._open(()) as dumper:
                    return [message for part in dumper.dump(type, body) for message in part]
            except Overrun:  # it changed while we looked
                continue
        raise EngineError("addresses and links change too fast to be listed")

    def _changed(self) -> None:
        self._known = self._interfaces = None
        if self._settling is None:
            self._settling = asyncio.get_running_loop().call_later(SETTLE_SECONDS, self._settled)

    def _settled(self) -> None:
        self._settling = None
        for listener in self._listeners:
            listener()


def literal(text: str) -> bytes | None:
    """Packed address of a numeric text, None for a name."""
    try:
        return ipaddress.ip_address(text).packed
    except ValueError:
        return None


def established(files: Sequence[Sequence[str]]) -> Iterator[Flow]:
    """TCP connections made to a port that listens, from the lines of /proc/net/tcp and tcp6 without their heads.
    Loopback is left out: no rule can touch it."""
    entries = [entry for lines in files for line in lines if (entry := _entry(line)) is not None]
    listening = {port for (_, port), _, state in entries if state == TCP_LISTEN}
    for (local, local_port), (remote, remote_port), state in entries:
        if state == TCP_ESTABLISHED and local_port in listening and not ipaddress.ip_address(remote).is_loopback:
            yield Flow(remote, local, TCP, remote_port, local_port, "in")


def _entry(line: str) -> tuple[tuple[bytes, int], tuple[bytes, int], int] | None:
    fields = line.split()
    if len(fields) < 4:
        return None
    try:
        return _endpoint(fields[1]), _endpoint(fields[2]), int(fields[3], 16)
    except ValueError:
        return None


def _endpoint(text: str) -> tuple[bytes, int]:
    """`0100007F:1F90`: address as words of the host's byte order, port. An IPv4-mapped one becomes IPv4."""
    address, _, port = text.partition(":")
    words = [int(address[at : at + 8], 16) for at in range(0, len(address), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    if packed[:12] == bytes(10) + b"\xff\xff" and len(packed) == 16:
        packed = packed[12:]
    return packed, int(port, 16)
