"""What can be seen at this host's interfaces: which of them runs, how much IKE goes by, who cannot be reached.

The kernel and charon keep these to themselves: a link that goes down ends no SA, charon
counts no octets and hears no ICMP. Two sockets tell: rtnetlink of links and addresses, and a
packet socket whose filter in the kernel lets nothing pass but IKE (RFC 7296 section 2: ports
500, or that of ipsecGlobIkePort, and 4500, there behind four zero octets, RFC 3948 section 2.2)
and `unreachable` of ICMP (RFC 792, RFC 4443), which our own policies would keep from any other socket. It needs
CAP_NET_RAW; without it it is not there, and `lack` says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import socket
import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from agent.backends.engine import EngineError
from agent.backends.rtnetlink import (
    ADDRESS_MESSAGE,
    IFF_UP,
    LINK_MESSAGE,
    RTM_GETADDR,
    RTM_GETLINK,
    RouteSocketFactory,
    open_route_socket,
    read_address,
)
from agent.backends.xfrm.netlink import SO_ATTACH_FILTER, NetlinkSocket, Overrun, close_all

logger = logging.getLogger(__name__)

LINK_GROUPS: Final = (1, 5, 9)  # RTNLGRP_LINK, _IPV4_IFADDR, _IPV6_IFADDR
IFF_RUNNING: Final = 0x40

ETH_P_ALL: Final = 3
IKE_PORT: Final = 500  # unless ipsecGlobIkePort says otherwise
NAT_PORT: Final = 4500
SNAP: Final = 144  # octets of a packet that are looked at: two of the longest IP headers, ICMP and the ports
MOST_SAS: Final = 65_536  # initiator SPIs remembered
ICMP, UDP, ICMPV6 = 1, 17, 58
PACKETS_PER_TURN: Final = 256
UNREACHABLE: Final[Mapping[int, str]] = {1: "host unreachable", 3: "port unreachable"}  # codes of ICMP type 3
UNREACHABLE6: Final[Mapping[int, str]] = {3: "address unreachable", 4: "port unreachable"}  # of ICMPv6 type 1


class Interface(NamedTuple):
    """`number`: ifIndex; `running`: up, and the other end of its wire is too."""

    number: int
    running: bool


class Sight(NamedTuple):
    """Something was seen. `stopped`: own addresses whose interface does not run any more; `unreachable`: the address
    of somebody that a message of ours from an IKE port did not reach, empty for nobody, with the reason."""

    stopped: frozenset[bytes] = frozenset()
    unreachable: bytes = b""
    reason: str = ""


Watcher = Callable[[Sight], None]


class Lookout(Protocol):
    """`lack`: what cannot be seen, and why; '' for nothing."""

    lack: str

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def interface(self, address: bytes) -> Interface | None:
        """The one that has this address of ours."""

    def octets(self, initiator_spi: bytes) -> int:
        """Of IP packets with IKE messages of this SA, both ways, since the start."""

    def use_port(self, port: int) -> None:
        """IKE goes by this port, and 4500."""

    def subscribe(self, watcher: Watcher) -> None: ...


class NoLookout:
    """Nothing is seen: the memory backend has no wire."""

    lack = "there is no wire to look at"

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    def interface(self, address: bytes) -> Interface | None:
        return None

    def octets(self, initiator_spi: bytes) -> int:
        return 0

    def use_port(self, port: int) -> None:
        pass

    def subscribe(self, watcher: Watcher) -> None:
        pass


class LinuxLookout:
    """The running kernel's. `open_socket` and `packet_socket` let tests look at another network namespace."""

    def __init__(
        self,
        *,
        open_socket: RouteSocketFactory = open_route_socket,
        packet_socket: Callable[[int, int, int], socket.socket] = socket.socket,
    ) -> None:
        self._open, self._socket = open_socket, packet_socket
        self._watchers: list[Watcher] = []
        self._events: NetlinkSocket | None = None
        self._wire: socket.socket | None = None
        self._links: dict[int, bool] = {}  # whether it runs, by index
        self._own: dict[bytes, int] = {}  # indices of interfaces by address
        self._places: dict[bytes, int] = {}  # the same of all addresses there have been: they go before their link does
        self._counts: OrderedDict[bytes, int] = OrderedDict()
        self._port = IKE_PORT
        self.lack = ""

    async def start(self) -> None:
        """Raises EngineError where there is no rtnetlink."""
        loop = asyncio.get_running_loop()
        self._events = self._open(LINK_GROUPS)
        self._links = self._dump_links()
        self._own = self._addresses()
        self._places = dict(self._own)
        self._events.watch(self._links_changed)
        self._wire = self._packets()
        if self._wire is not None:
            loop.add_reader(self._wire.fileno(), self._packet_came, self._wire)
        if self.lack:
            logger.warning("%s", self.lack)

    async def stop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._wire is not None:
            loop.remove_reader(self._wire.fileno())
            self._wire.close()
            self._wire = None
        close_all(self._events)
        self._events = None

    def subscribe(self, watcher: Watcher) -> None:
        self._watchers.append(watcher)

    def _tell(self, sight: Sight) -> None:
        for watcher in self._watchers:
            watcher(sight)

    # ---- links ------------------------------------------------------------------------

    def interface(self, address: bytes) -> Interface | None:
        index = self._own.get(address)
        return None if index is None else Interface(index, self._links.get(index, False))

    def _addresses(self) -> dict[bytes, int]:
        """Index of the interface by address."""
        found: dict[bytes, int] = {}
        try:
            with self._open(()) as dumper:
                for part in dumper.dump(RTM_GETADDR, ADDRESS_MESSAGE.encode({})):
                    for message in part:
                        seen = read_address(message)
                        if seen is not None:
                            found[seen.address.address] = seen.link
        except (Overrun, EngineError) as error:
            logger.debug("addresses cannot be listed: %s", error)
        return found

    def _dump_links(self) -> dict[int, bool]:
        found: dict[int, bool] = {}
        try:
            with self._open(()) as dumper:
                for part in dumper.dump(RTM_GETLINK, LINK_MESSAGE.encode({})):
                    for message in part:
                        head = LINK_MESSAGE.decode(message.data, message.start)
                        found[head["index"]] = runs(head["flags"])
        except (Overrun, EngineError) as error:
            logger.debug("links cannot be listed: %s", error)
            return dict(self._links)
        return found

    def _links_changed(self) -> None:
        """What it was about is asked for anew: events may be lost."""
        before, self._links = self._links, self._dump_links()
        self._own = self._addresses()
        self._places |= self._own
        stopped = {index for index, ran in before.items() if ran and not self._links.get(index, False)}
        if stopped:
            addresses = frozenset(address for address, index in self._places.items() if index in stopped)
            self._places = {one: at for one, at in self._places.items() if at not in stopped} | self._own
            self._tell(Sight(stopped=addresses))

    # ---- packets ----------------------------------------------------------------------

    def octets(self, initiator_spi: bytes) -> int:
        return self._counts.get(initiator_spi, 0)

    def _packets(self) -> socket.socket | None:
        try:
            found = self._socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, socket.htons(ETH_P_ALL))
        except OSError as error:
            self.lack = f"octets of IKE are not counted and ICMP is not heard: {error.strerror} (CAP_NET_RAW)"
            return None
        _attach(found, self._port)
        with contextlib.suppress(OSError):  # what came before the filter stood
            while found.recv(1):
                pass
        return found

    def use_port(self, port: int) -> None:
        if port == self._port:
            return
        self._port = port
        if self._wire is not None:
            _attach(self._wire, port)

    def _packet_came(self, readable: socket.socket) -> None:
        for _ in range(PACKETS_PER_TURN):
            try:
                packet = readable.recv(SNAP)
            except BlockingIOError:
                return
            except OSError as error:  # an interface that goes down
                logger.debug("packets: %s", error)
                return
            heard = not_reached(packet, self._port)
            if heard is not None:
                self._tell(Sight(unreachable=heard[0], reason=heard[1]))
                continue
            found = ike_packet(packet)
            if found is not None:
                self._counts[found[0]] = self._counts.get(found[0], 0) + found[1]
                self._counts.move_to_end(found[0])  # who was silent longest is forgotten first
                if len(self._counts) > MOST_SAS:
                    self._counts.popitem(last=False)


def _attach(wire: socket.socket, port: int) -> None:
    """The filter of a packet socket, in place of the one it has."""
    program = b"".join(struct.pack("=HBBI", *line) for line in wire_filter(port))
    image = ctypes.create_string_buffer(program)
    wire.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(program) // 8, ctypes.addressof(image)))


def runs(flags: int) -> bool:
    return flags & (IFF_UP | IFF_RUNNING) == IFF_UP | IFF_RUNNING


# ---- packets ------------------------------------------------------------------------------


class Line(NamedTuple):
    """One instruction of the kernel's classic filter machine (linux/filter.h)."""

    code: int
    if_true: int
    if_false: int
    value: int


LD_H, LD_B, LD_W = 0x28, 0x30, 0x20  # load from an absolute place
LDX_IP_HEADER: Final = 0xB1  # four times the low half of an octet: the length of an IPv4 header
IND_B, IND_H, IND_W = 0x50, 0x48, 0x40  # load from behind it
JUMP_EQUAL, JUMP_SET = 0x15, 0x45
AND: Final = 0x54
RETURN: Final = 0x06


def wire_filter(port: int = IKE_PORT) -> Sequence[Line]:
    """Lets UDP from or to an IKE port pass, of port 4500 what begins with the non-ESP marker, and ICMP's unreachable;
    whole packets and first fragments only."""
    names: list[tuple[str, int, int, str, str]] = [
        ("", LD_B, 0, "", ""),
        ("", AND, 0xF0, "", ""),
        ("", JUMP_EQUAL, 0x40, "four", ""),
        ("", JUMP_EQUAL, 0x60, "six", "drop"),
        ("four", LD_H, 6, "", ""),
        ("", JUMP_SET, 0x1FFF, "drop", ""),  # a later fragment has no UDP header
        ("", LDX_IP_HEADER, 0, "", ""),
        ("", LD_B, 9, "", ""),
        ("", JUMP_EQUAL, UDP, "udp4", ""),
        ("", JUMP_EQUAL, ICMP, "", "drop"),
        ("", IND_B, 0, "", ""),
        ("", JUMP_EQUAL, 3, "take", "drop"),
        ("udp4", IND_H, 0, "", ""),
        ("", JUMP_EQUAL, port, "take", ""),
        ("", JUMP_EQUAL, NAT_PORT, "marker4", ""),
        ("", IND_H, 2, "", ""),
        ("", JUMP_EQUAL, port, "take", ""),
        ("", JUMP_EQUAL, NAT_PORT, "marker4", "drop"),
        ("marker4", IND_W, 8, "", ""),
        ("", JUMP_EQUAL, 0, "take", "drop"),
        ("six", LD_B, 6, "", ""),
        ("", JUMP_EQUAL, UDP, "udp6", ""),
        ("", JUMP_EQUAL, ICMPV6, "", "drop"),
        ("", LD_B, 40, "", ""),
        ("", JUMP_EQUAL, 1, "take", "drop"),
        ("udp6", LD_H, 40, "", ""),
        ("", JUMP_EQUAL, port, "take", ""),
        ("", JUMP_EQUAL, NAT_PORT, "marker6", ""),
        ("", LD_H, 42, "", ""),
        ("", JUMP_EQUAL, port, "take", ""),
        ("", JUMP_EQUAL, NAT_PORT, "marker6", "drop"),
        ("marker6", LD_W, 48, "", ""),
        ("", JUMP_EQUAL, 0, "take", "drop"),
        ("take", RETURN, SNAP, "", ""),
        ("drop", RETURN, 0, "", ""),
    ]
    places = {name: at for at, (name, *_) in enumerate(names) if name}
    return [
        Line(
            code,
            places[true] - at - 1 if true else 0,
            places[false] - at - 1 if false else 0,
            value,
        )
        for at, (_, code, value, true, false) in enumerate(names)
    ]


def ike_packet(packet: bytes) -> tuple[bytes, int] | None:
    """(initiator SPI, octets of the IP packet) of the beginning of one that the filter let pass."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        at, length = (packet[0] & 0xF) * 4, int.from_bytes(packet[2:4], "big")
    elif version == 6 and len(packet) >= 40:
        at, length = 40, 40 + int.from_bytes(packet[4:6], "big")
    else:
        return None
    ports = packet[at : at + 4]
    if len(ports) < 4:
        return None
    marked = NAT_PORT in struct.unpack("!HH", ports)
    at += 12 if marked else 8
    spi = packet[at : at + 8]
    return (spi, length) if len(spi) == 8 and any(spi) else None


def not_reached(packet: bytes, port: int = IKE_PORT) -> tuple[bytes, str] | None:
    """(whom, why) of an ICMP error that quotes a packet of ours from an IKE port; None of anything else."""
    version = packet[0] >> 4 if packet else 0
    if version == 6:
        return _not_reached6(packet[40:], port) if len(packet) > 40 and packet[6] == ICMPV6 else None
    if version != 4 or len(packet) < 20 or packet[9] != ICMP:
        return None
    message = packet[(packet[0] & 0xF) * 4 :]
    if len(message) < 36 or message[0] != 3 or message[1] not in UNREACHABLE:
        return None
    quoted = message[8:]
    ports = quoted[(quoted[0] & 0xF) * 4 :][:4]
    if quoted[9] != UDP or len(ports) < 4 or struct.unpack("!HH", ports)[0] not in (port, NAT_PORT):
        return None
    return quoted[16:20], UNREACHABLE[message[1]]


def _not_reached6(message: bytes, port: int) -> tuple[bytes, str] | None:
    if len(message) < 56 or message[0] != 1 or message[1] not in UNREACHABLE6:
        return None
    quoted = message[8:]
    if quoted[6] != UDP or struct.unpack("!H", quoted[40:42])[0] not in (port, NAT_PORT):
        return None
    return quoted[24:40], UNREACHABLE6[message[1]]
