"""Real packets through real policies: what `explain` says of a packet is what the kernel does with it.

Two hosts and a gateway between them, each a network namespace. Random rules of both lists
and of a peer's chain are planned and installed on the gateway; then UDP and ICMP packets
are sent through it, to it and from it, all at once, and those that arrive are counted.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from agent.backends.spd import KernelSpd
from agent.mib import load_schema
from agent.mib.ber import Value
from agent.plan.explain import explain
from agent.plan.model import Environment, Flow
from agent.plan.planner import Plan, make_plan
from agent.store.snapshot import Configuration, TableSnapshot, default_cells
from tests.xfrm_namespace import Namespace, cable, namespaces

pytestmark = pytest.mark.kernel

PORTS = (5000, 5001, 5002)
LEFT = (bytes([10, 1, 0, 2]), bytes([10, 1, 0, 3]))
RIGHT = (bytes([10, 2, 0, 2]), bytes([10, 2, 0, 3]))
GATEWAY = (bytes([10, 1, 0, 1]), bytes([10, 2, 0, 1]))
UDP, ICMP, ANY = 17, 1, 255
ECHO_REQUEST = 8


class Town:
    """The three namespaces with their sockets: one UDP socket per address and port, one ICMP socket per address."""

    def __init__(self, left: Namespace, gateway: Namespace, right: Namespace, stack: ExitStack) -> None:
        self.gateway, self.left = gateway, left
        cable(left, gateway, "l0")
        cable(gateway, right, "r0")
        for namespace, device, addresses in (
            (left, "l0", LEFT),
            (right, "r0", RIGHT),
            (gateway, "l0", GATEWAY[:1]),
            (gateway, "r0", GATEWAY[1:]),
        ):
            for address in addresses:
                namespace.ip(f"addr add {socket.inet_ntoa(address)}/24 dev {device}")
        left.ip("route add default via 10.1.0.1")
        right.ip("route add default via 10.2.0.1")
        gateway.command("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        self.udp: dict[tuple[bytes, int], socket.socket] = {}
        self.icmp: dict[bytes, socket.socket] = {}
        for namespace, addresses in ((left, LEFT), (gateway, GATEWAY), (right, RIGHT)):
            for address in addresses:
                for port in PORTS:
                    udp = namespace.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                    udp.bind((socket.inet_ntoa(address), port))
                    self.udp[address, port] = stack.enter_context(udp)
                icmp = namespace.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, ICMP))
                icmp.bind((socket.inet_ntoa(address), 0))
                self.icmp[address] = stack.enter_context(icmp)

    def send(self, flow: Flow, number: int) -> None:
        """One packet of the flow; that the gateway may not even send it is as good as dropped."""
        payload = struct.pack("!8sI", b"ipsecpkt", number)
        there = socket.inet_ntoa(flow.destination)
        try:
            if flow.protocol == UDP:
                self.udp[flow.source, flow.source_port].sendto(payload, (there, flow.destination_port))
            else:
                packet = struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, number & 0xFFFF, number >> 16) + payload
                total = sum(struct.unpack(f"!{len(packet) // 2}H", packet))
                total = (total & 0xFFFF) + (total >> 16)
                check = ~(total + (total >> 16)) & 0xFFFF
                self.icmp[flow.source].sendto(packet[:2] + struct.pack("!H", check) + packet[4:], (there, 0))
        except PermissionError:
            pass

    def arrived(self, seconds: float) -> set[int]:
        """Numbers of the packets that came in, until nothing has come for so long."""
        everyone = [*self.udp.values(), *self.icmp.values()]
        numbers: set[int] = set()
        while ready := select.select(everyone, [], [], seconds)[0]:
            for receiver in ready:
                data = receiver.recv(2048, socket.MSG_DONTWAIT)
                if receiver in self.icmp.values():
                    data = data[28:] if data[20] == ECHO_REQUEST else b""
                if data[:8] == b"ipsecpkt":
                    numbers.add(struct.unpack("!I", data[8:12])[0])
        return numbers


def flows() -> list[Flow]:
    """Every pair of addresses in every way, UDP over some ports and ICMP."""
    found: list[Flow] = []
    for way, sources, destinations in (
        ("forward", LEFT, RIGHT),
        ("forward", RIGHT, LEFT),
        ("in", LEFT, GATEWAY[:1]),
        ("in", RIGHT, GATEWAY[1:]),
        ("out", GATEWAY[:1], LEFT),
        ("out", GATEWAY[1:], RIGHT),
    ):
        for source, destination in itertools.product(sources, destinations):
            found.append(Flow(source, destination, ICMP, way=way))
            for from_port, to_port in ((5000, 5000), (5000, 5001), (5001, 5000), (5002, 5002)):
                found.append(Flow(source, destination, UDP, from_port, to_port, way))
    return found


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    with namespaces(3) as made, ExitStack() as stack:
        left, gateway, right = made
        town = Town(left, gateway, right, stack)
        everything = flows()
        for _ in range(2):  # neighbours get to know each other first
            for number, flow in enumerate(everything):
                town.send(flow, number)
            came = town.arrived(0.3)
        assert came == set(range(len(everything)))
        yield town


def rule(dice: random.Random, following: int) -> dict[str, Value]:
    def net() -> tuple[bytes, int]:
        address = bytearray(dice.choice([*LEFT, *RIGHT, *GATEWAY]))
        length = dice.choice([0, 8, 16, 24, 31, 32, 32])
        for bit in range(length, 32):
            address[bit // 8] &= ~(0x80 >> bit % 8)
        return bytes(address), length

    (here, here_length), (there, there_length) = net(), net()
    protocol = dice.choice([ANY, UDP, UDP, ICMP])
    values: dict[str, Value] = {
        "ipsecTrNextIndex": following,
        "ipsecTrLocalAddress": here,
        "ipsecTrLocalMaskLen": here_length,
        "ipsecTrRemoteAddress": there,
        "ipsecTrRemoteMaskLen": there_length,
        "ipsecTrProto": protocol,
        "ipsecTrAction": dice.choice([3, 3, 5, 5, 2]),
        "ipsecTrDirection": dice.choice([1, 1, 2, 3]),
    }
    if protocol == UDP:
        values["ipsecTrLocalPort"] = dice.choice([0, 0, 5000, 5001])
        values["ipsecTrRemotePort"] = dice.choice([0, 0, 5000, 5001])
    return values


def random_configuration(seed: int) -> Configuration:
    """Three chains of up to five rules: before the peers, of a peer, behind the peers."""
    dice = random.Random(seed)
    schema = load_schema()
    tables: dict[str, dict[int, dict[str, Value]]] = {"ipsecTrafficTable": {}}
    heads = []
    number = 0
    for _ in range(3):
        count = dice.randint(0, 5)
        heads.append(number + 1 if count else 0)
        for place in range(count):
            number += 1
            tables["ipsecTrafficTable"][number] = rule(dice, number + 1 if place < count - 1 else 0)
    tables["ipsecGlobals"] = {0: {"ipsecGlobEnabled": 1}}
    tables["ipsecGlobalsContinued"] = {
        0: {
            "ipsecGlobContPreIpsecRules": heads[0],
            "ipsecGlobContPostIpsecRules": heads[2],
            "ipsecGlobContDefaultRule": dice.choice([1, 2]),
        }
    }
    if heads[1]:
        tables["ipsecPeerTable"] = {1: {"ipsecPeerTrafficList": heads[1]}}
    snapshots = {}
    for name, rows in tables.items():
        table = schema.tables[name]
        made = []
        for row, values in rows.items():
            cells = list(default_cells(table, row))
            for column, value in values.items():
                cells[table.by_name[column].position] = table.by_name[column].encode(value)
            made.append((row, tuple(cells)))
        snapshots[name] = TableSnapshot.build(table, made)
    return Configuration.empty(schema).replaced(seed + 1, snapshots)


@pytest.mark.parametrize("seed", range(40))
async def test_packets_fare_as_explain_says(town: Town, seed: int) -> None:
    plan: Plan = make_plan(random_configuration(seed), Environment(own_addresses=frozenset(GATEWAY)))
    spd = KernelSpd(open_socket=town.gateway.xfrm_socket)
    await spd.start()
    try:
        await spd.observe()
        assert await spd.apply([], list(plan.policies.values())) == {}
        everything = flows()
        expected = set()
        for number, flow in enumerate(everything):
            if explain(plan, flow).decision == "pass":
                expected.add(number)
            town.send(flow, number)
        await asyncio.sleep(0)
        came = town.arrived(0.02)
        wrong = [
            (explain(plan, everything[number]), everything[number], number in came)
            for number in sorted(came ^ expected)
        ]
        assert wrong == []
    finally:
        await spd.observe()
        assert await spd.apply(list(plan.policies), []) == {}
        assert not any(seen.ours for seen in (await spd.observe()).values())
        await spd.stop()


async def test_a_default_drop_leaves_neighbour_discovery_and_loopback_alone(town: Town) -> None:
    gateway, left = town.gateway, town.left
    gateway.ip("addr add 2001:db8:1::1/64 dev l0 nodad")
    left.ip("addr add 2001:db8:1::2/64 dev l0 nodad")
    values = [("ipsecGlobals", {"ipsecGlobEnabled": 1}), ("ipsecGlobalsContinued", {"ipsecGlobContDefaultRule": 1})]
    configuration = Configuration.empty(load_schema())
    for name, columns in values:
        table = configuration.schema.tables[name]
        cells = list(default_cells(table, 0))
        for column, value in columns.items():
            cells[table.by_name[column].position] = table.by_name[column].encode(value)
        configuration = configuration.replaced(1, {name: TableSnapshot.build(table, [(0, tuple(cells))])})
    own = frozenset({*GATEWAY, socket.inet_pton(socket.AF_INET6, "2001:db8:1::1")})
    plan = make_plan(configuration, Environment(own_addresses=own))
    spd = KernelSpd(open_socket=gateway.xfrm_socket)
    await spd.start()
    try:
        await spd.observe()
        for namespace in (gateway, left):
            namespace.command("ip", "-6", "neigh", "flush", "all")
        assert await spd.apply([], list(plan.policies.values())) == {}
        assert left.command("ping", "-c1", "-W1", "2001:db8:1::1").returncode != 0
        assert gateway.command("ping", "-c1", "-W1", "2001:db8:1::2").returncode != 0
        assert "lladdr" in left.command("ip", "-6", "neigh", "show", "2001:db8:1::1").stdout
        assert gateway.command("ping", "-c1", "-W1", "127.0.0.1").returncode == 0
        assert gateway.command("ping", "-c1", "-W1", "::1").returncode == 0
        assert left.command("ping", "-c1", "-W1", "10.1.0.1").returncode != 0
    finally:
        await spd.apply(list(plan.policies), [])
        await spd.stop()
    assert left.command("ping", "-c1", "-W1", "2001:db8:1::1").returncode == 0
