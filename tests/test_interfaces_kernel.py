"""From a SET to links, routes, policies with an interface id, and the packet filter of a real kernel."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
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
from agent.plan import outbound
from agent.plan.flows import observed_name
from agent.plan.inbound import PART, marking
from agent.plan.interfaces import SPOOFED, mss_part, private_part
from agent.plan.model import ApplyState, Prefix, Tunnel
from agent.plan.negotiated import selectors
from agent.plan.outbound import asking_again
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
    await until(lambda: gateway.ip("xfrm policy").count("if_id 0x186a7") == 3)
    await until(lambda: "dev ipsec7" in gateway.ip("xfrm policy"))
    await until(lambda: bench.state("ipsecPeerTable", 7)[:2] == (ApplyState.APPLIED, ""))
    await bench.set(route_row(1, 7, bytes([10, 78, 0, 0]), 16))
    await until(lambda: "10.78.0.0/16" in gateway.ip("route show"))
    await until(lambda: "10.77.0.0/16" not in gateway.ip("route show"))
    await bench.set(
        ("ipsecGwPeerAddressTable", 1, {"ipsecGwPeerAddressRowStatus": DESTROY}),
        ("ipsecGwPeerRouteTable", 1, {"ipsecGwPeerRouteRowStatus": DESTROY}),
        ("ipsecPeerTable", 7, {"ipsecGwPeerRowStatus": DESTROY}),
    )
    await until(lambda: "ipsec7" not in gateway.ip("link show"))
    await until(lambda: "if_id" not in (shown := gateway.ip("xfrm policy")) and "dev ipsec7" not in shown)


async def test_a_selector_leads_to_the_interface_by_set_and_leads_there_no_more(bench: Bench, world: World) -> None:
    """ipsecPeerTrafficPolicy both-syncrt and role-initiator-syncrt."""
    gateway = world.gateway
    selector: dict[str, Value] = {
        "ipsecPeerTrafficIfindex": 100_007,
        "ipsecPeerTrafficLocalAddress": bytes([10, 1, 0, 0]),
        "ipsecPeerTrafficLocalMask": bytes([255, 255, 255, 0]),
        "ipsecPeerTrafficRemoteAddress": bytes([10, 77, 0, 0]),
        "ipsecPeerTrafficRemoteMask": bytes([255, 255, 0, 0]),
        "ipsecPeerTrafficProtocol": 6,
        "ipsecPeerTrafficRemotePort": 80,
        "ipsecPeerTrafficPolicy": 6,
    }

    def way(port: int) -> str:
        question = f"route get 10.77.0.9 from 10.1.0.2 iif i0 ipproto tcp sport 4000 dport {port}"
        return gateway.ip(question).partition(" dev ")[2].split()[0]

    gateway.command("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    await bench.set(with_cells(peer(7, 0, b"192.0.2.2"), **VIRTUAL), ("ipsecPeerTrafficTable", 1, selector))
    await until(lambda: "lookup 100007 proto 196" in gateway.ip("rule show"))
    await until(lambda: way(80) == "ipsec7")
    assert way(443) == "a0"
    for role, there in ((4, "a0"), (5, "ipsec7"), (2, "a0"), (6, "ipsec7")):
        await bench.set(("ipsecPeerTrafficTable", 1, {"ipsecPeerTrafficPolicy": role}))
        await until(lambda there=there: way(80) == there)  # type: ignore[misc]
    await until(lambda: bench.state("ipsecPeerTable", 7)[:2] == (ApplyState.APPLIED, ""))
    await bench.set(("ipsecPeerTrafficTable", 1, {"ipsecPeerTrafficPolicy": 1}))  # delete
    await until(lambda: "proto 196" not in gateway.ip("rule show"))
    assert way(80) == "a0"
    await bench.set(("ipsecPeerTrafficTable", 1, selector))
    await until(lambda: way(80) == "ipsec7")
    await bench.set(("ipsecPeerTable", 7, {"ipsecGwPeerRowStatus": DESTROY}))
    await until(lambda: "proto 196" not in gateway.ip("rule show"))
    await until(lambda: "proto 196" not in gateway.ip("route show table all"))


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
    await until(lambda: gateway.ip("xfrm policy").count("if_id 0x186a7") == 3)
    await until(lambda: "unreachable 10.79.0.0/16" in gateway.ip("route show"))
    await until(lambda: bench.state("ipsecPeerTable", far)[0] == ApplyState.FAILED)
    assert "no virtual interface for peers beyond" in bench.state("ipsecPeerTable", far)[1]
    await until(lambda: bench.state("ipsecPeerTable", 7)[:2] == (ApplyState.APPLIED, ""))


async def test_flows_of_a_virtual_interface_have_policies_with_its_number(bench: Bench, world: World) -> None:
    """ipsecPrfGranularity ip."""
    gateway, child = world.gateway, "peer-7-rule-0"
    await bench.set(
        ("ipsecProfileTable", 5, {"ipsecPrfGranularity": 3}),
        with_cells(peer(7, 0, b"192.0.2.2"), **VIRTUAL, ipsecPeerIpsecProfile=5),
        route_row(1, 7, bytes([10, 77, 0, 0]), 16),
    )
    await until(lambda: gateway.ip("xfrm policy").count("if_id 0x186a7") == 3)
    for reqid, remote in enumerate((["10.77.0.1/32"], ["10.77.0.2/32"]), 1):
        name = observed_name(child, ["10.1.0.2/32"], remote)
        pairs = selectors(["10.1.0.2/32"], remote)
        ours, theirs = bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2])
        tunnel = Tunnel(name, ours, theirs, 1, 50, reqid=reqid, selectors=pairs)
        bench.reconciler.environment_changed({name: tunnel})
        await bench.reconciler.settled()
        text = gateway.ip(f"xfrm policy get src 10.1.0.2/32 dst {remote[0]} dir out if_id 100007")
        assert f"reqid {reqid} mode tunnel" in " ".join(text.split())
    bench.reconciler.environment_changed({name: None})
    await bench.reconciler.settled()
    assert gateway.ip("xfrm policy").count("if_id 0x186a7") == 4


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
    await until(lambda: "tmpl src 203.0.113.1 dst 198.51.100.9" in gateway.ip("xfrm policy"))
    await until(lambda: "tmpl src 192.0.2.1 " not in gateway.ip("xfrm policy"))
    await bench.set(("ipsecPeerTable", 7, {"ipsecPeerPublicIfIndexMode": 2}))
    await until(lambda: "198.51.100.9" not in gateway.ip("route show"))
    await until(lambda: "tmpl src 192.0.2.1 dst 198.51.100.9" in gateway.ip("xfrm policy"))
    await bench.set(("ipsecPeerTable", 7, {"ipsecPeerPublicIfIndexMode": 1, "ipsecPeerPublicIfIndex": 4711}))
    await until(lambda: bench.state("ipsecPeerTable", 7)[0] == ApplyState.FAILED)
    assert "no link with number 4711" in bench.state("ipsecPeerTable", 7)[1]


OWN6, THERE6 = bytes.fromhex("20010db8000700000000000000000001"), bytes.fromhex("20010db8ffff") + bytes(10)


async def test_ipv6_packets_of_the_gateway_take_the_interface_under_a_default_rule_that_drops(
    bench: Bench, world: World
) -> None:
    """They are routed to it before the kernel knows that they are; only by it do they leave."""
    gateway = world.gateway
    needs_nft(gateway)
    gateway.ip("-6 addr add 2001:db8:99::1/64 dev a0 nodad")
    gateway.ip("-6 neigh add 2001:db8:99::2 lladdr 02:00:00:00:00:01 nud permanent dev a0")
    gateway.ip("-6 route add default via 2001:db8:99::2 dev a0")
    await bench.set(
        with_cells(peer(7, 0, b"192.0.2.2"), **VIRTUAL),
        with_cells(address_row(1, 7, OWN6), ipsecGwPeerAddressPrefixLength=64),
        route_row(1, 7, THERE6, 48),
        ("ipsecGlobalsContinued", 0, {"ipsecGlobContDefaultRule": 1}),
    )
    await until(lambda: "2001:db8:ffff::/48 dev ipsec7" in gateway.ip("-6 route show"))
    await until(lambda: "outbound_own6" in gateway.command("nft", "list", "ruleset").stdout)
    await until(lambda: "src 2001:db8:7::1/128 dst 2001:db8:ffff::/48" in gateway.ip("xfrm policy"))

    def leaves(by: str, to: str, seconds: float = 0.3) -> bool:
        """Whether a packet from the interface's address is seen there."""

        def send() -> bool:
            with (
                socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)) as seen,
                socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender,
            ):
                seen.bind((by, 3))
                seen.settimeout(seconds)
                sender.bind((socket.inet_ntop(socket.AF_INET6, OWN6), 0))
                with contextlib.suppress(OSError):
                    sender.sendto(b"from the gateway", (to, 9))
                try:
                    while b"from the gateway" not in seen.recv(2048):
                        pass
                except TimeoutError:
                    return False
                return True

        return gateway.run(send)

    assert await asyncio.to_thread(leaves, "ipsec7", "2001:db8:ffff::9", 30)
    assert not await asyncio.to_thread(leaves, "a0", "2001:db8:fffe::9")  # no route of the interface's
    gateway.ip("-6 route add 2001:db8:ffff:1::/64 via 2001:db8:99::2 dev a0")  # somebody else's, to a smaller net
    assert not await asyncio.to_thread(leaves, "a0", "2001:db8:ffff:1::9")
    gateway.command("nft", "delete", "chain", "inet", "ipsec_agent", "outbound_own6")
    await until(lambda: "outbound_own6" in gateway.command("nft", "list", "ruleset").stdout)
    assert not await asyncio.to_thread(leaves, "a0", "2001:db8:ffff:1::9")
    await bench.set(
        ("ipsecGwPeerAddressTable", 1, {"ipsecGwPeerAddressRowStatus": DESTROY}),
        ("ipsecGwPeerRouteTable", 1, {"ipsecGwPeerRouteRowStatus": DESTROY}),
        ("ipsecPeerTable", 7, {"ipsecGwPeerRowStatus": DESTROY}),
    )
    await until(lambda: "outbound_own6" not in gateway.command("nft", "list", "ruleset").stdout)
    await until(lambda: "src 2001:db8:7::1/128 dst 2001:db8:ffff::/48" not in gateway.ip("xfrm policy"))


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

    def ping(ns: Namespace, source: str, to: str, seconds: int = 30) -> bool:
        return ns.command("ping", "-c", "1", "-W", str(seconds), "-I", source, to).returncode == 0

    pass_all = rule(2, 3, ipsecTrLocalAddress=bytes(4), ipsecTrLocalMaskLen=0)
    await bench.set(pass_all, ("ipsecGlobalsContinued", 0, {"ipsecGlobContPreIpsecRules": 2}))
    assert await asyncio.to_thread(ping, outside, "10.1.0.9", "192.0.2.1")
    private = number_of(gateway, "i0")
    await bench.set(("ipsecGlobalsContinued", 0, {"ipsecGlobContPrivateInterface": private}))
    await until(lambda: "private_in" in gateway.command("nft", "list", "ruleset").stdout)
    assert not await asyncio.to_thread(ping, outside, "10.1.0.9", "192.0.2.1", 1)
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
    table.want(outbound.PART, asking_again([100_001, 3], 500, [OWN6]))
    table.want("mss", mss_part(1418, [Clamped(1200, (65_536, 65_540)), Clamped(1300, (65_537,))]))
    await table.idle.wait()
    assert [table.problem(name) for name in ("private", PART, outbound.PART, "mss")] == [""] * 4
    text = world.gateway.command("nft", "list", "ruleset").stdout
    assert "maxseg size set 1160" in text and "maxseg size set 1378" in text and "100007" in text
    await table.stop()
