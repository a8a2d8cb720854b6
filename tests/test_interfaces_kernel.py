"""From a SET to links, routes, policies with an interface id, and the packet filter of a real kernel."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from agent.backends.host import LinuxHost
from agent.backends.links import KernelLinks, probe
from agent.backends.memory import MemoryIke
from agent.backends.nftables import GROUP_NFTABLES, NETLINK_NETFILTER, NftTable, find_nft
from agent.backends.nftables import probe as probe_nftables
from agent.backends.rtnetlink import XFRM_KIND
from agent.backends.spd import KernelSpd
from agent.backends.xfrm.netlink import NetlinkSocket
from agent.mib.ber import Value
from agent.plan.inbound import PART, marking
from agent.plan.interfaces import SPOOFED, mss_part, private_part
from agent.plan.model import ApplyState, Prefix
from agent.plan.state import Clamped
from tests.test_reconcile_run import ON, Bench, peer, rule
from tests.xfrm_namespace import Namespace, cable, namespaces, until

pytestmark = pytest.mark.kernel

DESTROY = 6
VIRTUAL: dict[str, Value] = {"ipsecPeerVirtualInterface": 2}
Row = tuple[str, int, dict[str, Value]]


class World(NamedTuple):
    """A gateway with two links outward, a0 and b0, and one inward, i0; the hosts behind them."""

    gateway: Namespace
    outside: Namespace
    inside: Namespace


@pytest.fixture
def world() -> Iterator[World]:
    with namespaces(3) as (gateway, outside, inside):
        for name, net in (("a0", "192.0.2"), ("b0", "203.0.113")):
            cable(gateway, outside, name)
            gateway.ip(f"addr add {net}.1/24 dev {name}")
            outside.ip(f"addr add {net}.2/24 dev {name}")
        cable(gateway, inside, "i0")
        gateway.ip("addr add 10.1.0.1/24 dev i0")
        inside.ip("addr add 10.1.0.2/24 dev i0")
        gateway.ip("route add default via 192.0.2.2 dev a0 metric 10")
        gateway.ip("route add default via 203.0.113.2 dev b0 metric 20")
        yield World(gateway, outside, inside)


def nft_in(ns: Namespace) -> NftTable:
    return NftTable(
        ("ip", "netns", "exec", ns.name, "nft"),
        lambda: ns.run(lambda: NetlinkSocket(NETLINK_NETFILTER, (GROUP_NFTABLES,))),
    )


@pytest.fixture
async def bench(world: World, tmp_path: Path) -> AsyncIterator[Bench]:
    gateway = world.gateway
    kind = "ifb" if probe(gateway.route_socket) else XFRM_KIND
    bench = Bench(
        tmp_path,
        KernelSpd(open_socket=gateway.xfrm_socket),
        MemoryIke(),
        LinuxHost(open_socket=gateway.route_socket),
        filter=nft_in(gateway),
        links=KernelLinks(open_socket=gateway.route_socket, kind=kind),
    )
    await bench.start()
    await bench.set(ON)
    yield bench
    await bench.stop()


def number_of(ns: Namespace, link: str) -> int:
    return int(ns.ip(f"-o link show {link}").split(":")[0])


def with_cells(row: Row, **cells: Value) -> Row:
    table, number, columns = row
    return table, number, {**columns, **cells}


def address_row(number: int, peer: int, address: bytes) -> Row:
    cells: dict[str, Value] = {
        "ipsecGwPeerAddressPeer": peer,
        "ipsecGwPeerAddressAddress": address,
        "ipsecGwPeerAddressPrefixLength": 24,
    }
    return "ipsecGwPeerAddressTable", number, cells


def route_row(number: int, peer: int, destination: bytes, length: int) -> Row:
    cells: dict[str, Value] = {
        "ipsecGwPeerRoutePeer": peer,
        "ipsecGwPeerRouteDestination": destination,
        "ipsecGwPeerRoutePrefixLength": length,
    }
    return "ipsecGwPeerRouteTable", number, cells


async def test_a_virtual_interface_with_address_and_route_comes_and_goes_by_set(bench: Bench, world: World) -> None:
    """ipsecPeerVirtualInterface, guide 3.4."""
    gateway = world.gateway
    await bench.set(
        with_cells(peer(7, 0, b"192.0.2.2"), **VIRTUAL),
        address_row(1, 7, bytes([172, 16, 7, 1])),
        route_row(1, 7, bytes([10, 77, 0, 0]), 16),
    )
    await until(lambda: "10.77.0.0/16 dev ipsec7 proto 196" in gateway.ip("route show"))
    assert "100007: ipsec7" in gateway.ip("link show") and "172.16.7.1/24" in gateway.ip("addr show ipsec7")
    assert "mtu 1418" in gateway.ip("link show ipsec7")
    policies = gateway.ip("xfrm policy")
    assert policies.count("if_id 0x186a7") == 3 and "dev ipsec7" in policies
    assert bench.state("ipsecPeerTable", 7)[:2] == (ApplyState.APPLIED, "")
    await bench.set(route_row(1, 7, bytes([10, 78, 0, 0]), 16))
    await until(lambda: "10.78.0.0/16" in gateway.ip("route show"))
    await until(lambda: "10.77.0.0/16" not in gateway.ip("route show"))
    await bench.set(
        ("ipsecGwPeerAddressTable", 1, {"ipsecGwPeerAddressRowStatus": DESTROY}),
        ("ipsecGwPeerRouteTable", 1, {"ipsecGwPeerRouteRowStatus": DESTROY}),
        ("ipsecPeerTable", 7, {"ipsecGwPeerRowStatus": DESTROY}),
    )
    await until(lambda: "ipsec7" not in gateway.ip("link show"))
    assert "if_id" not in gateway.ip("xfrm policy") and "dev ipsec7" not in gateway.ip("xfrm policy")


async def test_a_peer_whose_interface_can_have_no_number_fails_alone(bench: Bench, world: World) -> None:
    """Interfaces are numbered by 31 bits, and so are peers; the others' policies and links are made all the same."""
    gateway, far = world.gateway, 0x7FFF_FFFF
    await bench.set(
        with_cells(peer(far, 0, b"192.0.2.3"), **VIRTUAL),
        route_row(1, far, bytes([10, 79, 0, 0]), 16),
        with_cells(peer(7, 0, b"192.0.2.2"), **VIRTUAL),
        route_row(2, 7, bytes([10, 77, 0, 0]), 16),
    )
    await until(lambda: "10.77.0.0/16 dev ipsec7 proto 196" in gateway.ip("route show"))
    assert gateway.ip("xfrm policy").count("if_id 0x186a7") == 3
    assert "unreachable 10.79.0.0/16" in gateway.ip("route show")
    state, text, _ = bench.state("ipsecPeerTable", far)
    assert state == ApplyState.FAILED and "no virtual interface for peers beyond" in text
    assert bench.state("ipsecPeerTable", 7)[:2] == (ApplyState.APPLIED, "")


async def test_a_route_that_cannot_be_made_fails_the_peers_row(bench: Bench, world: World) -> None:
    world.gateway.ip("route add 10.77.0.0/16 dev i0")
    await bench.set(with_cells(peer(7, 0), **VIRTUAL), route_row(1, 7, bytes([10, 77, 0, 0]), 16))
    await until(lambda: bench.state("ipsecPeerTable", 7)[0] == ApplyState.FAILED)
    assert "route to 10.77.0.0/16" in bench.state("ipsecPeerTable", 7)[1]
    world.gateway.ip("route del 10.77.0.0/16 dev i0")
    await until(lambda: bench.state("ipsecPeerTable", 7)[0] == ApplyState.APPLIED)


async def test_a_peer_is_called_by_the_link_chosen_or_fails(bench: Bench, world: World) -> None:
    """ipsecPeerPublicIfIndex, ipsecPeerPublicIfIndexMode."""
    gateway, link = world.gateway, number_of(world.gateway, "b0")
    far = peer(7, 1, b"198.51.100.9")
    await bench.set(rule(1, 4), with_cells(far, ipsecPeerPublicIfIndex=link))
    await until(lambda: "198.51.100.9 via 203.0.113.2 dev b0" in gateway.ip("route show"))
    policies = gateway.ip("xfrm policy")
    assert "tmpl src 203.0.113.1 dst 198.51.100.9" in policies and "tmpl src 192.0.2.1 " not in policies
    await bench.set(("ipsecPeerTable", 7, {"ipsecPeerPublicIfIndexMode": 2}))
    await until(lambda: "198.51.100.9" not in gateway.ip("route show"))
    await until(lambda: "tmpl src 192.0.2.1 dst 198.51.100.9" in gateway.ip("xfrm policy"))
    await bench.set(("ipsecPeerTable", 7, {"ipsecPeerPublicIfIndexMode": 1, "ipsecPeerPublicIfIndex": 4711}))
    await until(lambda: bench.state("ipsecPeerTable", 7)[0] == ApplyState.FAILED)
    assert "no link with number 4711" in bench.state("ipsecPeerTable", 7)[1]


def needs_nft(ns: Namespace) -> None:
    if find_nft() is None or shutil.which("ping") is None:
        pytest.skip("needs nft and ping")
    reason = probe_nftables(("ip", "netns", "exec", ns.name, "nft"))
    if reason:
        pytest.skip(reason)


async def test_a_spoofed_inside_source_is_dropped_and_counted(bench: Bench, world: World) -> None:
    """ipsecGlobContPrivateInterface: an inside address that comes from outside and out of no tunnel."""
    gateway, outside, inside = world
    needs_nft(gateway)
    outside.ip("addr add 10.1.0.9/32 dev a0")
    gateway.ip("route add 10.1.0.9/32 dev a0")  # so that an answer would get there
    await bench.set(rule(1, 4, ipsecTrLocalAddress=bytes([10, 1, 0, 0])), peer(7, 1, b"203.0.113.2"))
    await bench.set(("ipsecGlobalsContinued", 0, {"ipsecGlobContPrivateInterface": -1}))

    def ping(ns: Namespace, source: str, to: str) -> bool:
        return ns.command("ping", "-c", "1", "-W", "1", "-I", source, to).returncode == 0

    pass_all = rule(2, 3, ipsecTrLocalAddress=bytes(4), ipsecTrLocalMaskLen=0)
    await bench.set(pass_all, ("ipsecGlobalsContinued", 0, {"ipsecGlobContPreIpsecRules": 2}))
    assert await asyncio.to_thread(ping, outside, "10.1.0.9", "192.0.2.1")
    private = number_of(gateway, "i0")
    await bench.set(("ipsecGlobalsContinued", 0, {"ipsecGlobContPrivateInterface": private}))
    await until(lambda: "private_in" in gateway.command("nft", "list", "ruleset").stdout)
    assert not await asyncio.to_thread(ping, outside, "10.1.0.9", "192.0.2.1")
    assert await asyncio.to_thread(ping, inside, "10.1.0.2", "10.1.0.1")
    assert await asyncio.to_thread(ping, outside, "192.0.2.2", "192.0.2.1")
    assert await asyncio.to_thread(ping, gateway, "10.1.0.1", "10.1.0.1")  # from itself
    counted = gateway.command("nft", "list", "counter", "inet", "ipsec_agent", SPOOFED).stdout
    assert "packets 1 bytes 84" in counted
    await bench.set(("ipsecGlobalsContinued", 0, {"ipsecGlobContPrivateInterface": -1}))
    await until(lambda: "private_in" not in gateway.command("nft", "list", "ruleset").stdout)
    assert await asyncio.to_thread(ping, outside, "10.1.0.9", "192.0.2.1")


async def test_the_kernel_takes_all_our_parts(world: World) -> None:
    needs_nft(world.gateway)
    table = nft_in(world.gateway)
    await table.start()
    table.want("private", private_part(2, [Prefix(bytes([10, 0, 0, 0]), 8), Prefix(b"\xfd" + bytes(15), 8)]))
    table.want(PART, marking([100_001, 100_007]))
    table.want("mss", mss_part(1418, [Clamped(1200, (65_536, 65_540)), Clamped(1300, (65_537,))]))
    await table.idle.wait()
    assert [table.problem(name) for name in ("private", PART, "mss")] == ["", "", ""]
    text = world.gateway.command("nft", "list", "ruleset").stdout
    assert "maxseg size set 1160" in text and "maxseg size set 1378" in text and "100007" in text
    await table.stop()
