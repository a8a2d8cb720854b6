"""What crosses the Internet of the lab: a capture on every link of the `wan` router.

A packet socket with a large buffer that is read only when somebody asks: nothing runs meanwhile in a guest of one
processor, and the kernel says afterwards whether it had to drop any, so "no plain packet" is a statement about all.
"""

from __future__ import annotations

import socket
import struct
from collections import Counter
from typing import NamedTuple

from tests.lab.topology import WAN, inside

ETH_P_ALL = 0x0003
ETH_P_IP = 0x0800
SO_RCVBUFFORCE = 33
SOL_PACKET = 263
PACKET_STATISTICS = 6
PACKET_OUTGOING = 4
SO_TIMESTAMPNS = 35
STAMP = struct.Struct("@ll")  # struct timespec
BUFFER = 32 << 20  # about 40,000 small packets; a scenario sends some hundred

ICMP, UDP, ESP, AH = 1, 17, 50, 51
IKE_PORTS = frozenset({500, 4500})


class Packet(NamedTuple):
    """An IPv4 packet as it arrived at the router on `link` (the letter of a site), at seconds of the kernel's clock."""

    link: str
    protocol: int
    source: str
    destination: str
    source_port: int
    destination_port: int
    at: float = 0.0

    @property
    def ipsec(self) -> bool:
        """ESP, AH, or IKE (with ESP in UDP on 4500)."""
        if self.protocol in (ESP, AH):
            return True
        return self.protocol == UDP and {self.source_port, self.destination_port} <= IKE_PORTS

    def __str__(self) -> str:
        ports = f" {self.source_port}>{self.destination_port}" if self.protocol == UDP else ""
        return f"{self.link}: {self.source}>{self.destination} protocol {self.protocol}{ports}"


class Capture:
    """Everything of IPv4 that the router receives from now on."""

    def __init__(self) -> None:
        def open_socket() -> socket.socket:
            made = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
            made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
            made.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            made.setblocking(False)
            return made

        self._socket = inside(WAN, open_socket)

    def take(self) -> list[Packet]:
        """Packets since the last call. Raises RuntimeError when the buffer was too small to hold them all."""
        packets: list[Packet] = []
        while True:
            try:
                data, told, _, address = self._socket.recvmsg(256, socket.CMSG_SPACE(STAMP.size))
            except BlockingIOError:
                break
            if address[1] == ETH_P_IP and address[2] != PACKET_OUTGOING:
                seconds, nanoseconds = STAMP.unpack(told[0][2])
                packets.append(decode(address[0], data)._replace(at=seconds + nanoseconds / 1e9))
        _seen, dropped = struct.unpack("=II", self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        if dropped:
            raise RuntimeError(f"the capture lost {dropped} packets")
        return packets

    def close(self) -> None:
        self._socket.close()


def decode(link: str, data: bytes) -> Packet:
    """A packet from its IPv4 header on; ports of a later fragment or of other protocols are 0."""
    header = (data[0] & 15) * 4
    first = not struct.unpack_from(">H", data, 6)[0] & 0x1FFF
    source_port, destination_port = (0, 0)
    if data[9] in (6, UDP) and first and len(data) >= header + 4:
        source_port, destination_port = struct.unpack_from(">HH", data, header)
    return Packet(
        link,
        data[9],
        socket.inet_ntoa(data[12:16]),
        socket.inet_ntoa(data[16:20]),
        source_port,
        destination_port,
    )


def plain(packets: list[Packet]) -> list[Packet]:
    """Those that are neither ESP, AH nor IKE."""
    return [packet for packet in packets if not packet.ipsec]


def summary(packets: list[Packet]) -> str:
    """Packets counted by what they are, for a message."""
    counted = Counter(map(str, packets))
    return "; ".join(f"{count} x {what}" for what, count in counted.most_common(12)) or "nothing"
