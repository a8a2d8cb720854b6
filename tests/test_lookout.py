"""What is seen at interfaces: packets as they are, and real ones in a network namespace."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

import pytest

from agent.backends import lookout as lookout_module
from agent.backends.lookout import LinuxLookout, Sight, ike_packet, not_reached, runs, wire_filter
from tests.xfrm_namespace import Namespace, namespaces, until

SPI = bytes(range(1, 9))
IKE = SPI + bytes(20)


def ip4(payload: bytes, protocol: int = 17, fragment: int = 0) -> bytes:
    head = bytes([0x45, 0]) + (20 + len(payload)).to_bytes(2, "big") + bytes(2) + fragment.to_bytes(2, "big")
    return head + bytes([64, protocol, 0, 0]) + bytes([10, 0, 0, 1]) + bytes([10, 0, 0, 2]) + payload


def ip6(payload: bytes, following: int = 17) -> bytes:
    addresses = bytes(15) + b"\1" + bytes(15) + b"\2"
    return b"\x60\0\0\0" + len(payload).to_bytes(2, "big") + bytes([following, 64]) + addresses + payload


def udp(source: int, destination: int, payload: bytes) -> bytes:
    return struct.pack("!4H", source, destination, 8 + len(payload), 0) + payload


def passes(packet: bytes, port: int = 500) -> bool:
    """The filter, run as the kernel runs it (linux/filter.h)."""
    a = x = at = 0
    program = wire_filter(port)
    while True:
        code, true, false, value = program[at]
        at += 1
        if code == 0x06:
            return value > 0
        if code in (0x30, 0x28, 0x20, 0x50, 0x48, 0x40):
            size = {0x30: 1, 0x28: 2, 0x20: 4, 0x50: 1, 0x48: 2, 0x40: 4}[code]
            place = value + (x if code in (0x50, 0x48, 0x40) else 0)
            if place + size > len(packet):
                return False
            a = int.from_bytes(packet[place : place + size], "big")
        elif code == 0x54:
            a &= value
        elif code == 0xB1:
            x = (packet[value] & 0xF) * 4
        else:
            at += true if (a == value if code == 0x15 else a & value) else false


@pytest.mark.parametrize("wrap", [ip4, ip6])
def test_the_filter_lets_ike_pass_and_nothing_else(wrap: Callable[..., bytes]) -> None:
    assert passes(wrap(udp(500, 500, IKE))) and passes(wrap(udp(40000, 500, IKE))) and passes(wrap(udp(500, 1, IKE)))
    assert passes(wrap(udp(4500, 4500, bytes(4) + IKE))) and passes(wrap(udp(1024, 4500, bytes(4) + IKE)))
    assert not passes(wrap(udp(4500, 4500, b"\0\0\1\1" + IKE))), "ESP in UDP"
    assert not passes(wrap(udp(53, 53, IKE)))
    assert not passes(wrap(bytes(40), 50)) and not passes(wrap(bytes(40), 6))
    unreachable, other = (b"\3", b"\x0b") if wrap is ip4 else (b"\1", b"\x80")
    icmp = 1 if wrap is ip4 else 58
    assert passes(wrap(unreachable + bytes(40), icmp)) and not passes(wrap(other + bytes(40), icmp))


@pytest.mark.parametrize("wrap", [ip4, ip6])
def test_the_port_may_be_another(wrap: Callable[..., bytes]) -> None:
    """ipsecGlobIkePort: else kilobytes of phase 1 and ICMP would silently count for nothing."""
    assert passes(wrap(udp(1500, 500, IKE)), 1500) and passes(wrap(udp(9, 1500, IKE)), 1500)
    assert passes(wrap(udp(4500, 4500, bytes(4) + IKE)), 1500) and not passes(wrap(udp(500, 500, IKE)), 1500)
    quoted = ip4(udp(1500, 500, IKE))
    unreachable = ip4(bytes([3, 3]) + bytes(6) + quoted, 1)
    assert not_reached(unreachable, 1500) == (bytes([10, 0, 0, 2]), "port unreachable")
    assert not_reached(unreachable) is None


def test_a_later_fragment_is_no_ike() -> None:
    assert not passes(ip4(udp(500, 500, IKE), fragment=100))


def test_octets_are_those_of_the_ip_packet_by_initiator_spi() -> None:
    packet = ip4(udp(500, 500, IKE))
    assert ike_packet(packet[:96]) == (SPI, len(packet))
    packet = ip6(udp(4500, 4500, bytes(4) + IKE))
    assert ike_packet(packet[:96]) == (SPI, len(packet))
    assert ike_packet(b"") is None and ike_packet(ip4(b"")) is None and ike_packet(ip4(udp(500, 500, b"short"))) is None


def test_icmp_errors_about_our_ike_ports_name_whom_they_are_about() -> None:
    def error(code: int, quoted: bytes, type: int = 3) -> bytes:
        return ip4(bytes([type, code]) + bytes(6) + quoted, 1)

    quoted = ip4(udp(500, 500, IKE))
    assert not_reached(error(3, quoted)) == (bytes([10, 0, 0, 2]), "port unreachable")
    assert not_reached(error(1, quoted)) == (bytes([10, 0, 0, 2]), "host unreachable")
    assert not_reached(error(4, quoted)) is None, "too big is no refusal"
    assert not_reached(error(3, quoted, type=11)) is None
    assert not_reached(error(3, ip4(udp(53, 500, IKE)))) is None, "not our port"
    assert not_reached(error(3, b"")) is None and not_reached(b"") is None
    quoted = ip6(udp(500, 500, IKE))
    assert not_reached(ip6(bytes([1, 4]) + bytes(6) + quoted, 58)) == (bytes(15) + b"\2", "port unreachable")
    assert not_reached(ip6(bytes([1, 0]) + bytes(6) + quoted, 58)) is None, "no route is no refusal"
    assert not_reached(quoted) is None


def test_an_interface_runs_when_it_is_up_and_its_wire_too() -> None:
    assert runs(0x41) and not runs(0x1) and not runs(0x40)


async def test_real_packets_links_and_icmp() -> None:
    with namespaces(1) as (namespace,):
        for command in (
            "link add one type veth peer name two",
            "addr add 10.9.0.1/24 dev one",
            "link set dev one up",
            "link set dev two up",
        ):
            namespace.ip(command)
        lookout = LinuxLookout(
            open_socket=namespace.route_socket,
            packet_socket=lambda family, kind, protocol: namespace.run(lambda: socket.socket(family, kind, protocol)),
        )
        seen: list[Sight] = []
        lookout.subscribe(seen.append)
        await lookout.start()
        try:
            assert lookout.lack == ""
            await look(namespace, lookout, seen)
        finally:
            await lookout.stop()


async def look(namespace: Namespace, lookout: LinuxLookout, seen: list[Sight]) -> None:
    own = bytes([10, 9, 0, 1])
    await until(lambda: (found := lookout.interface(own)) is not None and found.running)
    assert lookout.interface(bytes([10, 9, 0, 9])) is None

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            out.bind(("127.0.0.1", 500))
            out.sendto(IKE, ("127.0.0.1", 501))

    namespace.run(send)
    await until(lambda: lookout.octets(SPI) > 0)
    assert lookout.octets(SPI) % (20 + 8 + len(IKE)) == 0
    await until(lambda: Sight(unreachable=bytes([127, 0, 0, 1]), reason="port unreachable") in seen)
    lookout.use_port(1500)
    before = lookout.octets(SPI)

    def send_elsewhere() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            out.bind(("127.0.0.1", 1500))
            out.sendto(IKE, ("127.0.0.1", 501))

    namespace.run(send_elsewhere)
    await until(lambda: lookout.octets(SPI) > before)
    namespace.ip("link set dev two down")
    await until(lambda: any(own in sight.stopped for sight in seen))
    found = lookout.interface(own)
    assert found is not None and not found.running


@pytest.mark.parametrize("happening", ["link del one", "link set dev one down"])
async def test_addresses_that_go_with_their_link_are_told(happening: str) -> None:
    """A dialled link is taken away when it ends, and IPv6 addresses go when theirs is switched off."""
    own = {bytes([10, 9, 0, 1]), bytes.fromhex("20010db8") + bytes(11) + b"\1"}
    with namespaces(1) as (namespace,):
        namespace.ip("link add one type veth peer name two")
        namespace.ip("addr add 10.9.0.1/24 dev one")
        namespace.ip("addr add 2001:db8::1/64 dev one nodad")
        namespace.ip("link set dev one up")
        namespace.ip("link set dev two up")
        lookout = LinuxLookout(
            open_socket=namespace.route_socket,
            packet_socket=lambda family, kind, protocol: namespace.run(lambda: socket.socket(family, kind, protocol)),
        )
        stopped: set[bytes] = set()
        lookout.subscribe(lambda sight: stopped.update(sight.stopped))
        await lookout.start()
        try:
            await until(lambda: all((at := lookout.interface(one)) is not None and at.running for one in own))
            namespace.ip(happening)
            await until(lambda: stopped >= own)
        finally:
            await lookout.stop()


def test_strangers_by_the_thousand_take_no_count_of_an_sa_that_is_spoken_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody can send first messages of ever new IKE SAs; a counter goes back for none of them."""
    monkeypatch.setattr(lookout_module, "MOST_SAS", 100)
    lookout = LinuxLookout()
    ours, outside = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    with ours, outside:
        for number in range(1, 1001):
            outside.send(ip4(udp(500, 500, number.to_bytes(8, "big") + bytes(20))))
            if number % 50 == 1:
                outside.send(ip4(udp(500, 500, IKE)))
            lookout._packet_came(ours)
    assert lookout.octets(SPI) == 20 * (20 + 8 + len(IKE))
    assert lookout.octets((1000).to_bytes(8, "big")) and not lookout.octets((1).to_bytes(8, "big"))
