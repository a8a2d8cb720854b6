"""UDP sockets whose replies leave from the address that was asked.

A socket on 0.0.0.0 or :: learns the destination of each datagram from the kernel
(IP_PKTINFO, IPV6_PKTINFO) and names it as the source of the reply; managers drop answers
that come from elsewhere. Datagrams are read straight from the descriptor, up to 64 a
wake-up, which is several times faster than asyncio's datagram transport.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

DRAIN: Final = 64  # datagrams per wake-up: enough to amortise it, few enough to let others run
RECEIVE_BUFFER: Final = 4 << 20  # octets asked of the kernel, which may give less: bursts of managers that poll
IP_PKTINFO: Final = 8  # linux/in.h; the socket module has no name for it in Python 3.11
_PKTINFO4: Final = struct.Struct("=I4s4s")  # struct in_pktinfo: interface, local address, destination
_PKTINFO6: Final = struct.Struct("=16sI")  # struct in6_pktinfo: address, interface
_ANCILLARY: Final = socket.CMSG_SPACE(_PKTINFO4.size) + socket.CMSG_SPACE(_PKTINFO6.size)

Ancillary = list[tuple[int, int, bytes]]


class ListenError(Exception):
    """An address cannot be listened on; the text names it and says why."""


@dataclass(frozen=True, slots=True)
class Way:
    """Where a datagram came from, and the way back. `address` is what the socket gave for the sender."""

    endpoint: Endpoint
    address: Any
    ancillary: Ancillary = field(compare=False)
    local_address: str = field(compare=False)

    @property
    def source(self) -> object:
        return self.address

    @property
    def source_address(self) -> str:
        return str(self.address[0]).partition("%")[0]

    @property
    def loopback(self) -> bool:
        """Came from this host, by a loopback address; the kernel does not let these in from outside."""
        address = ipaddress.ip_address(self.source_address)
        return address.is_loopback

    def send(self, message: bytes) -> None:
        self.endpoint.send(message, self)


class Endpoint:
    """One address listened on."""

    def __init__(self, host: str, port: int) -> None:
        """Binds. Port 0 takes a free one. Raises ListenError."""
        six = ":" in host
        self._any = ipaddress.ip_address(host.partition("%")[0]).is_unspecified
        self._socket = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            if six:
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if self._any and six:
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            elif self._any:
                self._socket.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
            self._socket.bind(socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)[0][4])
        except OSError as error:
            self._socket.close()
            raise ListenError(f"cannot listen on {host} port {port}: {error.strerror or error}") from None
        self.host = host
        self._local = host.partition("%")[0]
        self.port: int = self._socket.getsockname()[1]
        self.unsent = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    def serve(self, largest: int, handle: Callable[[bytes, Way], None]) -> None:
        """Hand every datagram to `handle`, which must not raise; what is longer than `largest` is cut one octet
        beyond it."""
        read = self._read_any if self._any else self._read_one
        size = largest + 1

        def ready() -> None:
            for _ in range(DRAIN):
                try:
                    data, way = read(size)
                except (BlockingIOError, InterruptedError):
                    return
                except OSError:  # an error of an earlier reply, reported now: the next datagram is not to blame
                    continue
                handle(data, way)

        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket.fileno(), ready)

    def _read_one(self, size: int) -> tuple[bytes, Way]:
        data, address = self._socket.recvfrom(size)
        return data, Way(self, address, [], self._local)

    def _read_any(self, size: int) -> tuple[bytes, Way]:
        data, received, _, address = self._socket.recvmsg(size, _ANCILLARY)
        for level, kind, value in received:
            if level == socket.IPPROTO_IP and kind == IP_PKTINFO:
                _, local, _ = _PKTINFO4.unpack(value[: _PKTINFO4.size])
                info = _PKTINFO4.pack(0, local, bytes(4))  # routing picks the interface
                return data, Way(self, address, [(level, kind, info)], socket.inet_ntop(socket.AF_INET, local))
            if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
                local, interface = _PKTINFO6.unpack(value[: _PKTINFO6.size])
                link_local = local[0] == 0xFE and local[1] & 0xC0 == 0x80  # means something on its own link only
                info = _PKTINFO6.pack(local, interface if link_local else 0)
                return data, Way(self, address, [(level, kind, info)], socket.inet_ntop(socket.AF_INET6, local))
        return data, Way(self, address, [], self._local)

    def send(self, message: bytes, way: Way) -> None:
        """Reply. What the kernel does not take is lost, as datagrams are; the manager asks again."""
        try:
            if way.ancillary:
                self._socket.sendmsg([message], way.ancillary, 0, way.address)
            else:
                self._socket.sendto(message, way.address)
        except OSError:
            self.unsent += 1

    def pause(self) -> None:
        """Read nothing more."""
        if self._loop is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._loop = None

    def close(self) -> None:
        self.pause()
        self._socket.close()
