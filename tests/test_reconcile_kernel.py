"""Reconciler, store and the real kernel together, in fresh network namespaces."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agent.backends.engine import KernelEvent, KernelEventKind
from agent.backends.flush import flush
from agent.backends.host import LinuxHost
from agent.backends.memory import HELD_BY_OTHERS, MemoryIke
from agent.backends.nftables import GROUP_NFTABLES, NETLINK_NETFILTER, NftTable
from agent.backends.spd import KernelSpd
from agent.backends.xfrm.netlink import NetlinkSocket
from agent.plan.model import ApplyState, RowRef, Tunnel
from tests.test_reconcile_run import ON, Bench, held, peer, rule, wanted
from tests.xfrm_namespace import Namespace, cable, namespaces, until

pytestmark = pytest.mark.kernel

FOREIGN = "src 10.77.0.0/16 dst 10.78.0.0/16 dir out"
V6_NET, V6_TEXT = bytes.fromhex("20010db8") + bytes(12), "2001:db8::/48"
HERE, THERE, MOVED = bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2]), bytes([192, 0, 2, 9])


@pytest.fixture
def gateway() -> Iterator[Namespace]:
    with namespaces(2) as (gateway, other):
        cable(gateway, other)
        gateway.ip("addr add 192.0.2.1/24 dev v0")
        gateway.ip("route add default via 192.0.2.2")
        yield gateway


@pytest.fixture
async def bench(gateway: Namespace, tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(
        tmp_path,
        KernelSpd(open_socket=gateway.xfrm_socket),
        MemoryIke(),
        LinuxHost(open_socket=gateway.route_socket),
        filter=NftTable(
            ("ip", "netns", "exec", gateway.name, "nft"),
            lambda: gateway.run(lambda: NetlinkSocket(NETLINK_NETFILTER, (GROUP_NFTABLES,))),
        ),
    )
    await bench.start()
    await bench.set(ON)
    yield bench
    await bench.stop()


async def exact(bench: Bench, gateway: Namespace) -> None:
    """The kernel holds the plan's policies, no others of ours, and as many as `ip` counts. Where an address of a link
    that came up a little later makes another plan meanwhile, it is that one's policies."""
    fresh = KernelSpd(open_socket=gateway.xfrm_socket)
    await fresh.start()
    try:
        while True:
            await bench.reconciler.settled()
            plan = bench.reconciler.plan
            observed = await fresh.observe()
            lines = gateway.ip("xfrm policy").splitlines()
            if bench.reconciler.plan is plan:
                break
        assert held(observed) == wanted(bench)
        assert sum(line.startswith("src ") for line in lines) == len(observed)
    finally:
        await fresh.stop()


async def test_policies_follow_the_configuration_exactly(bench: Bench, gateway: Namespace) -> None:
    gateway.ip(f"xfrm policy add {FOREIGN} action block")
    await bench.set(rule(1, 3, 2), rule(2, 5), ("ipsecGlobalsContinued", 0, {"ipsecGlobContPreIpsecRules": 1}))
    await exact(bench, gateway)
    await bench.set(rule(3, 4), peer(7, 3))
    await exact(bench, gateway)
    assert "tmpl src 192.0.2.1 dst 192.0.2.2" in gateway.ip("xfrm policy")
    await bench.set(("ipsecTrafficTable", 2, {"ipsecTrAction": 3}))
    await exact(bench, gateway)
    await bench.set(("ipsecPeerTable", 7, {"ipsecGwPeerRowStatus": 6}))
    await exact(bench, gateway)
    assert bench.state("ipsecTrafficTable", 1)[0] == ApplyState.APPLIED
    await bench.set(("ipsecGlobals", 0, {"ipsecGlobEnabled": 2}))
    await exact(bench, gateway)
    assert "10.77.0.0/16" in gateway.ip("xfrm policy")


async def test_drift_heals_in_one_pass_whatever_was_done(bench: Bench, gateway: Namespace) -> None:
    index = link_index(gateway)
    await bench.set(
        rule(1, 3, 5),
        rule(5, 5, ipsecTrLocalMaskLen=0, ipsecTrLocalRange=bytes([10, 0, 5, 9]), ipsecTrInterface=index),
        rule(2, 4),
        peer(7, 2),
        ("ipsecGlobalsContinued", 0, {"ipsecGlobContPreIpsecRules": 1}),
    )
    gateway.ip(f"xfrm policy add {FOREIGN} action block")
    told = asyncio.Event()
    bench.spd.subscribe(lambda event: told.set() if event.kind is KernelEventKind.POLICY_FOREIGN else None)
    for command in (
        "xfrm policy delete src 10.0.1.0/24 dst 0.0.0.0/0 dir out",
        "xfrm policy update src 10.0.1.0/24 dst 0.0.0.0/0 dir out priority 4 action block",
        "xfrm policy delete src 10.0.5.8/31 dst 0.0.0.0/0 dev v0 dir out",
        f"xfrm policy delete src 0.0.0.0/0 dst 10.0.5.8/31 dir in mark {index << 12:#x} mask 0xfffff000",
        "xfrm policy flush",
    ):
        told.clear()
        gateway.ip(command)
        async with asyncio.timeout(30):
            await told.wait()
        await bench.reconciler.settled()
        await exact(bench, gateway)


async def test_a_foreign_holder_is_named_and_waited_for(bench: Bench, gateway: Namespace) -> None:
    gateway.ip("xfrm policy add src 10.0.1.0/24 dst 0.0.0.0/0 dir out priority 9")
    await bench.set(rule(1, 5), ("ipsecGlobalsContinued", 0, {"ipsecGlobContPreIpsecRules": 1}))
    assert bench.state("ipsecTrafficTable", 1)[:2] == (ApplyState.FAILED, HELD_BY_OTHERS)
    assert "priority 9 " in gateway.ip("xfrm policy")
    gateway.ip("xfrm policy delete src 10.0.1.0/24 dst 0.0.0.0/0 dir out")
    await until(lambda: bench.state("ipsecTrafficTable", 1)[0] == ApplyState.APPLIED)
    await exact(bench, gateway)


async def test_a_foreign_holder_of_an_interfaces_selector_is_named_too(bench: Bench, gateway: Namespace) -> None:
    gateway.ip("xfrm policy add src 10.0.1.0/24 dst 0.0.0.0/0 dir out priority 9")  # of any interface: no rival
    gateway.ip("xfrm policy add src 10.0.1.0/24 dst 0.0.0.0/0 dev v0 dir out priority 9")
    pre = ("ipsecGlobalsContinued", 0, {"ipsecGlobContPreIpsecRules": 1})
    await bench.set(rule(1, 5, ipsecTrInterface=link_index(gateway)), pre)
    assert bench.state("ipsecTrafficTable", 1)[:2] == (ApplyState.FAILED, HELD_BY_OTHERS)
    gateway.ip("xfrm policy delete src 10.0.1.0/24 dst 0.0.0.0/0 dev v0 dir out")
    await until(lambda: bench.state("ipsecTrafficTable", 1)[0] == ApplyState.APPLIED)
    await exact(bench, gateway)


@pytest.mark.slow
async def test_a_rule_waits_for_its_interface_and_what_comes_by_it_is_marked(bench: Bench, gateway: Namespace) -> None:
    pre = ("ipsecGlobalsContinued", 0, {"ipsecGlobContPreIpsecRules": 1})
    await bench.set(rule(1, 5, ipsecTrInterface=77), pre)
    assert bench.state("ipsecTrafficTable", 1)[:2] == (
        ApplyState.PENDING,
        "there is no interface 77; the rule counts once there is",
    )
    await exact(bench, gateway)  # its policies are there before it
    gateway.ip("link add v77 index 77 type veth peer name v78")
    await until(lambda: bench.state("ipsecTrafficTable", 1)[0] == ApplyState.APPLIED)
    await until(lambda: "| 0x0004d000" in ruleset(gateway))
    gateway.ip("link del v77")
    await until(lambda: bench.state("ipsecTrafficTable", 1)[0] == ApplyState.PENDING)
    gateway.ip("link add v77 index 77 type veth peer name v78")
    await until(lambda: bench.state("ipsecTrafficTable", 1)[0] == ApplyState.APPLIED)
    await bench.set(("ipsecTrafficTable", 1, {"ipsecTrInterface": -1}))
    await until(lambda: "meta mark" not in ruleset(gateway))


def ruleset(gateway: Namespace) -> str:
    return gateway.command("nft", "list", "ruleset").stdout


def link_index(gateway: Namespace) -> int:
    return gateway.run(lambda: socket.if_nametoindex("v0"))


async def test_an_acquire_leads_to_the_rule_and_a_tunnel_to_its_template(bench: Bench, gateway: Namespace) -> None:
    acquires: list[KernelEvent] = []
    bench.spd.subscribe(lambda event: acquires.append(event) if event.kind is KernelEventKind.ACQUIRE else None)
    everywhere = {"ipsecTrLocalAddress": bytes([192, 0, 2, 0]), "ipsecTrRemoteAddress": bytes([10, 50, 0, 0])}
    await bench.set(rule(3, 4, ipsecTrRemoteMaskLen=16, **everywhere), peer(7, 3))
    gateway.command("ping", "-c1", "-W1", "10.50.1.1")
    await until(lambda: acquires)
    plan = bench.reconciler.plan
    assert plan is not None and acquires[0].key is not None
    policy = plan.policies[acquires[0].key]
    assert (policy.peer, policy.row) == (7, RowRef("ipsecTrafficTable", 3))
    bench.reconciler.environment_changed({"peer-7-rule-3": Tunnel("peer-7-rule-3", HERE, MOVED, 1, 50)})
    await bench.reconciler.settled()
    await exact(bench, gateway)
    assert "tmpl src 192.0.2.1 dst 192.0.2.9" in gateway.ip("xfrm policy")


async def test_an_address_that_comes_or_goes_is_followed(bench: Bench, gateway: Namespace) -> None:
    await bench.set(rule(3, 4), peer(7, 3))
    gateway.ip("addr del 192.0.2.1/24 dev v0")
    await until(lambda: bench.state("ipsecPeerTable", 7)[0] == ApplyState.FAILED)
    gateway.ip("addr add 192.0.2.44/24 dev v0")
    await until(lambda: "tmpl src 192.0.2.44 dst 192.0.2.2" in gateway.ip("xfrm policy"))
    await bench.reconciler.settled()
    await exact(bench, gateway)


async def test_flush_leaves_what_is_not_ours(bench: Bench, gateway: Namespace) -> None:
    gateway.ip(f"xfrm policy add {FOREIGN} action block")
    await bench.set(rule(3, 4), peer(7, 3))
    await bench.reconciler.stop()
    assert gateway.ip("xfrm policy").count("\nsrc ") > 1  # stopping leaves all
    spd = KernelSpd(open_socket=gateway.xfrm_socket)
    await spd.start()
    await flush(spd, bench.ike)
    await spd.stop()
    text = gateway.ip("xfrm policy")
    assert text.startswith("src 10.77.0.0/16") and "\nsrc " not in text


async def test_what_a_refused_policy_should_protect_is_dropped_and_not_let_out(
    bench: Bench, gateway: Namespace
) -> None:
    """The kernel takes no template in transport mode over IPv4 for IPv6 packets; it does take the plain companions."""
    nets = {"ipsecGwTrLocalAddress6": V6_NET, "ipsecGwTrLocalPrefixLength6": 48, "ipsecGwTrRemoteAddress6": bytes(16)}
    bench.reconciler.environment_changed({"peer-7-rule-3": Tunnel("peer-7-rule-3", HERE, THERE, 0, 50)})
    await bench.set(rule(3, 4, ipsecTrLocalAddress=bytes(4), ipsecTrLocalMaskLen=0, **nets), peer(7, 3))
    assert "action block" in leaving(gateway)  # it was new
    state, text, _ = bench.state("ipsecTrafficTable", 3)
    assert state == ApplyState.FAILED and text.endswith("; its packets are dropped")
    await bench.set(("ipsecTrafficTable", 3, {"ipsecTrAction": 3}))
    assert bench.state("ipsecTrafficTable", 3)[0] == ApplyState.APPLIED
    assert "action block" not in leaving(gateway)
    await bench.set(("ipsecTrafficTable", 3, {"ipsecTrAction": 4}))
    assert bench.state("ipsecTrafficTable", 3)[:2] == (state, text)
    assert "action block" in leaving(gateway)  # it was a change of what passed
    bench.reconciler.environment_changed({"peer-7-rule-3": None})
    await until(lambda: bench.state("ipsecTrafficTable", 3)[0] == ApplyState.APPLIED)
    assert "mode tunnel" in leaving(gateway) and "action block" not in leaving(gateway)
    await exact(bench, gateway)


def leaving(gateway: Namespace) -> str:
    """The policy for what leaves from the IPv6 net."""
    return gateway.ip(f"xfrm policy get src {V6_TEXT} dst ::/0 dir out")
