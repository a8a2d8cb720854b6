"""Two hosts and a gateway between them, each a network namespace, and a thousand packets made once and sent again.

What hosts send are whole frames, so that a packet may have any source and come by either
interface; what the gateway sends comes from its own sockets, because only then does the
kernel ask its policies as it does for programs. Hosts receive by sniffing, the gateway by
raw sockets, which ask the policies before they deliver. No neighbour has to be found, and
nobody answers: wrong checksums keep the protocols above quiet where none is asked for.
"""

from __future__ import annotations

import contextlib
import itertools
import select
import socket
import struct
import time
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager
from typing import Final, NamedTuple

from agent.plan import inbound, outbound
from agent.plan.filtering import script
from agent.plan.model import Flow
from agent.plan.numbers import NFT_TABLE
from agent.plan.spd import IKE_PORT
from tests.xfrm_namespace import Namespace, cable, namespaces

ICMP, TCP, UDP, GRE, ICMP6 = 1, 6, 17, 47, 58
OFFSET: Final = {ICMP: 8, TCP: 20, UDP: 8, GRE: 4, ICMP6: 8}  # of the payload in each protocol
MARK: Final = b"ipsecpkt"
ETHERTYPE: Final = {4: 0x0800, 16: 0x86DD}
ALL_PROTOCOLS, OUTGOING = 0x0003, 4  # ETH_P_ALL, PACKET_OUTGOING
SO_RCVBUFFORCE: Final = 33
BUFFER: Final = 1 << 24
PATIENCE: Final = 15.0  # seconds after which a packet that should arrive counts as lost
NAMES: Final = ("l0", "r0")


def address(text: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


def text_of(packed: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET6 if len(packed) == 16 else socket.AF_INET, packed)


def family_of(packed: bytes) -> socket.AddressFamily:
    return socket.AF_INET6 if len(packed) == 16 else socket.AF_INET


LEFT: Final = {4: tuple(map(address, ("10.1.0.2", "10.1.0.3"))), 16: tuple(map(address, ("fd00:1::2", "fd00:1::3")))}
RIGHT: Final = {4: tuple(map(address, ("10.2.0.2", "10.2.0.9"))), 16: tuple(map(address, ("fd00:2::2", "fd00:2::9")))}
GATEWAY: Final = {4: tuple(map(address, ("10.1.0.1", "10.2.0.1"))), 16: tuple(map(address, ("fd00:1::1", "fd00:2::1")))}


class Kind(NamedTuple):
    """Of a packet; of ICMP the ports are type and code."""

    protocol: int
    source_port: int = 0
    destination_port: int = 0


PORTED: Final = (
    *(Kind(UDP, *ports) for ports in ((5000, 5000), (5000, 5001), (5001, 5000), (53, 5002))),
    *(Kind(TCP, *ports) for ports in ((5000, 5001), (5001, 5000))),
)
KINDS: Final = {
    4: (*PORTED, Kind(ICMP, 8), Kind(ICMP, 0), Kind(GRE)),
    16: (*PORTED, Kind(ICMP6, 128), Kind(ICMP6, 129), Kind(ICMP6, 133), Kind(ICMP6, 135), Kind(ICMP6, 136), Kind(GRE)),
}
"""Requests and answers, and of ICMPv6 neighbour discovery."""


class Town:
    """`left`, `right`: indices of the gateway's interfaces. `flows`: the packets, which are known by their place."""

    def __init__(self, left: Namespace, gateway: Namespace, right: Namespace, stack: ExitStack) -> None:
        self.gateway = gateway
        self._stack = stack
        hosts = (left, right)
        macs = []
        for host, name in zip(hosts, NAMES, strict=True):
            cable(host, gateway, name)
            macs.append((_mac(host, name), _mac(gateway, name)))
        self.left, self.right = (_index(gateway, name) for name in NAMES)
        for namespace in (*hosts, gateway):
            _settings(namespace)
        lines = []
        for family, bits in ((4, 24), (16, 64)):
            for own, name, others, (mac, _) in zip(
                GATEWAY[family], NAMES, (LEFT[family], RIGHT[family]), macs, strict=True
            ):
                lines.append(f"addr add {text_of(own)}/{bits} dev {name}" + (" nodad" if family == 16 else ""))
                lines += (f"neigh add {text_of(other)} lladdr {mac} nud permanent dev {name}" for other in others)
        for line in lines:
            gateway.ip(line)
        both = self.left, self.right
        marking = script("inet", NFT_TABLE, [inbound.marking(both), outbound.asking_again(both, IKE_PORT)], ())
        done = gateway.command("sh", "-c", f"nft -f - <<'END'\n{marking}\nEND")
        assert done.returncode == 0, done.stderr
        self.flows = list(self._ways())
        self._frames: dict[int, tuple[socket.socket, bytes]] = {}
        self._sniffers: list[socket.socket] = []
        wires = {}
        for host, name, (host_mac, gateway_mac) in zip(hosts, NAMES, macs, strict=True):
            sniffer = host.run(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PROTOCOLS)))
            sniffer.bind((name, ALL_PROTOCOLS))
            self._sniffers.append(self._keep(sniffer))
            wires[_index(gateway, name)] = (sniffer, _bytes(gateway_mac) + _bytes(host_mac))
        for number, flow in enumerate(self.flows):
            if flow.way != "out":
                wire, ethernet = wires[flow.from_interface]
                kind = struct.pack("!H", ETHERTYPE[len(flow.source)])
                self._frames[number] = (wire, ethernet + kind + datagram(flow, number))
        self._listeners: dict[socket.socket, tuple[int, int]] = {}
        for family, kinds in KINDS.items():
            for protocol in {kind.protocol for kind in kinds}:
                self._listeners[self._raw(family, protocol)] = (family, protocol)
        self._senders: dict[tuple[bytes, int, int], socket.socket] = {}
        self._syn: dict[bytes, int] = {}  # addresses and ports of a connection → packet
        for number, flow in enumerate(self.flows):
            if flow.way != "out":
                continue
            if flow.protocol == TCP:
                ports = struct.pack("!HH", flow.source_port, flow.destination_port)
                self._syn[flow.source + flow.destination + ports] = number
                continue
            which = (flow.source, flow.protocol, flow.source_port if flow.protocol == UDP else 0)
            if which not in self._senders:
                self._senders[which] = self._sender(*which)

    def _ways(self) -> Iterator[Flow]:
        left, right = self.left, self.right
        for family, kinds in KINDS.items():
            here, there, own = LEFT[family], RIGHT[family], GATEWAY[family]
            ways = [
                *(("forward", pair, left, right) for pair in itertools.product(here, there)),
                *(("forward", pair, right, left) for pair in itertools.product(there, here)),
                *(("forward", pair, right, right) for pair in itertools.product(here[:1], there)),  # by the other side
                *(("forward", pair, left, left) for pair in itertools.product(there[:1], here)),
                *(("in", pair, left, 0) for pair in itertools.product(here, own)),
                *(("in", pair, right, 0) for pair in itertools.product((*there, here[0]), own)),
                *(("out", pair, 0, left) for pair in itertools.product(own, here)),
                *(("out", pair, 0, right) for pair in itertools.product(own, there)),
            ]
            for (way, (source, destination), comes, goes), kind in itertools.product(ways, kinds):
                yield Flow(source, destination, *kind, way, 0, comes, goes)

    def _keep(self, made: socket.socket) -> socket.socket:
        made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        made.setblocking(False)
        return self._stack.enter_context(made)

    def _raw(self, family: int, protocol: int) -> socket.socket:
        kind = socket.AF_INET if family == 4 else socket.AF_INET6
        return self._keep(self.gateway.run(lambda: socket.socket(kind, socket.SOCK_RAW, protocol)))

    def _sender(self, source: bytes, protocol: int, port: int) -> socket.socket:
        if protocol != UDP:
            made = self._raw(len(source), protocol)
        else:
            made = self._keep(self.gateway.run(lambda: socket.socket(family_of(source), socket.SOCK_DGRAM)))
        made.bind((text_of(source), port))
        return made

    # ---- sending and receiving ----------------------------------------------------------

    def send(self, numbers: Iterable[int], awaited: Set[int]) -> set[int]:
        """Send these packets, all at once; those that arrived. `awaited`: those that should, for which a busy kernel
        has its time."""
        self._arrived(0)
        connections = []
        for number in numbers:
            frame = self._frames.get(number)
            if frame is not None:
                frame[0].send(frame[1])
                continue
            flow = self.flows[number]
            with contextlib.suppress(OSError):  # as good as dropped: not permitted, no tunnel (EREMOTE)
                if flow.protocol == TCP:
                    connections.append(self._connect(flow))
                    continue
                which = (flow.source, flow.protocol, flow.source_port if flow.protocol == UDP else 0)
                there = (text_of(flow.destination), flow.destination_port if flow.protocol == UDP else 0)
                payload = MARK + struct.pack("!I", number)
                self._senders[which].sendto(payload if flow.protocol == UDP else _head(flow) + payload, there)
        came = self._arrived(0.02)
        end = time.monotonic() + PATIENCE
        while awaited - came and time.monotonic() < end:
            came |= self._arrived(0.1)
        for connection in connections:
            connection.close()
        return came

    def _connect(self, flow: Flow) -> socket.socket:
        """A connection that begins; what is looked for is its first packet."""
        made = self.gateway.run(lambda: socket.socket(family_of(flow.source), socket.SOCK_STREAM))
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((text_of(flow.source), flow.source_port))
        try:
            made.connect((text_of(flow.destination), flow.destination_port))
        except BlockingIOError:
            return made
        except BaseException:
            made.close()
            raise
        return made

    def _arrived(self, seconds: float) -> set[int]:
        """Numbers of the packets that came in, until nothing has come for so long."""
        everyone: Sequence[socket.socket] = [*self._sniffers, *self._listeners, *self._senders.values()]
        numbers = set[int]()
        while ready := select.select(everyone, [], [], seconds)[0]:
            for receiver in ready:
                with contextlib.suppress(BlockingIOError):
                    while True:
                        data, whence = receiver.recvfrom(2048)
                        if receiver in self._sniffers:
                            number = self._sniffed(data) if whence[2] != OUTGOING else None
                        elif receiver in self._listeners:
                            family, protocol = self._listeners[receiver]
                            number = self._number(protocol, data[20:] if family == 4 else data)
                        else:
                            number = None  # senders are deaf
                        if number is not None:
                            numbers.add(number)
        return numbers

    def _sniffed(self, frame: bytes) -> int | None:
        packet = frame[14:]
        if frame[12:14] == b"\x08\x00":
            protocol, addresses, data = packet[9], packet[12:20], packet[20:]
        elif frame[12:14] == b"\x86\xdd":
            protocol, addresses, data = packet[6], packet[8:40], packet[40:]
        else:
            return None
        if protocol == TCP and (known := self._syn.get(addresses + data[:4])) is not None:
            return known
        return self._number(protocol, data)

    def _number(self, protocol: int, data: bytes) -> int | None:
        """Which packet it is, None for one that is not of ours or answers one."""
        at = OFFSET.get(protocol)
        if at is None or data[at : at + len(MARK)] != MARK:
            return None
        number: int = struct.unpack("!I", data[at + len(MARK) : at + len(MARK) + 4])[0]
        flow = self.flows[number]
        if flow.protocol != protocol or (protocol in (ICMP, ICMP6) and data[0] != flow.source_port):
            return None
        return number


@contextmanager
def town() -> Iterator[Town]:
    """A town in which every packet arrives as long as there is no policy."""
    with namespaces(3) as (left, gateway, right), ExitStack() as stack:
        made = Town(left, gateway, right, stack)
        everything = set(range(len(made.flows)))
        missing = [made.flows[number] for number in sorted(everything - made.send(everything, everything))]
        assert not missing, missing
        yield made


# ---- packets ------------------------------------------------------------------------------


def datagram(flow: Flow, number: int) -> bytes:
    """The IP packet of a flow."""
    data = _head(flow) + MARK + struct.pack("!I", number)
    if flow.protocol == ICMP6:  # checked before it is delivered
        pseudo = flow.source + flow.destination + struct.pack("!II", len(data), ICMP6)
        data = data[:2] + struct.pack("!H", checksum(pseudo + data)) + data[4:]
    if len(flow.source) == 16:  # hop limit 255, or it would be no neighbour discovery
        return struct.pack("!IHBB", 6 << 28, len(data), flow.protocol, 255) + flow.source + flow.destination + data
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(data), number & 0xFFFF, 0, 64, flow.protocol, 0)
    header += flow.source + flow.destination
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + data


def _head(flow: Flow) -> bytes:
    """What comes before the payload. Checksums of UDP and TCP are wrong."""
    if flow.protocol in (ICMP, ICMP6):
        return struct.pack("!BBHI", flow.source_port, flow.destination_port, 0, 0)
    if flow.protocol == UDP:
        return struct.pack("!HHHH", flow.source_port, flow.destination_port, 8 + len(MARK) + 4, 1)
    if flow.protocol == TCP:
        return struct.pack("!HHIIBBHHH", flow.source_port, flow.destination_port, 1, 0, 0x50, 0x02, 1024, 1, 0)
    return struct.pack("!HH", 0, 0x6558)


def checksum(data: bytes) -> int:
    """RFC 1071."""
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


# ---- namespaces ---------------------------------------------------------------------------


def _settings(namespace: Namespace) -> None:
    quiet = [
        "ipv4/ip_forward=1",
        "ipv6/conf/all/forwarding=1",
        "ipv4/icmp_echo_ignore_all=1",
        "ipv6/icmp/echo_ignore_all=1",
        *(f"ipv4/conf/{name}/{what}=0" for name in ("all", *NAMES) for what in ("rp_filter", "send_redirects")),
    ]
    lines = []
    for setting in quiet:
        path, _, value = setting.partition("=")
        lines.append(f"[ ! -e /proc/sys/net/{path} ] || echo {value} > /proc/sys/net/{path}")
    done = namespace.command("sh", "-ec", "\n".join(lines))
    assert done.returncode == 0, done.stderr


def _mac(namespace: Namespace, name: str) -> str:
    return namespace.ip(f"-o link show {name}").partition("link/ether ")[2].split()[0]


def _index(namespace: Namespace, name: str) -> int:
    return namespace.run(lambda: socket.if_nametoindex(name))


def _bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))
