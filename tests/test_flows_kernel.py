"""Flows with SAs of their own, in reconciler, store and the real kernel: what asks, what follows, what is left."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agent.backends.engine import ChildSa, IkeSa, KernelEvent, KernelEventKind
from agent.backends.flush import flush
from agent.backends.host import LinuxHost
from agent.backends.memory import MemoryIke
from agent.backends.spd import KernelSpd
from agent.plan.flows import WHY_FLOW, flow_child, observed_name
from agent.plan.model import Child, Tunnel
from agent.plan.negotiated import selectors
from agent.plan.phase2 import Granularity
from agent.plan.selectors import host
from tests.test_reconcile_run import ON, Bench, held, peer, rule, wanted
from tests.xfrm_namespace import Namespace, cable, namespaces, until

pytestmark = pytest.mark.kernel

HERE, THERE = bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2])
NAME = "peer-7-rule-3"
FIRST, SECOND = "10.50.1.1", "10.50.1.2"
FINE = ("ipsecProfileTable", 5, {"ipsecPrfGranularity": int(Granularity.IP)})
RULE = rule(
    3,
    4,
    ipsecTrRemoteMaskLen=16,
    ipsecTrProfile=5,
    ipsecTrLocalAddress=bytes([192, 0, 2, 0]),
    ipsecTrRemoteAddress=bytes([10, 50, 0, 0]),
)


@pytest.fixture
def gateway() -> Iterator[Namespace]:
    with namespaces(2) as (gateway, other):
        cable(gateway, other)
        gateway.ip("addr add 192.0.2.1/24 dev v0")
        gateway.ip("route add default via 192.0.2.2")
        yield gateway


def bench_in(gateway: Namespace, folder: Path, ike: MemoryIke) -> Bench:
    spd = KernelSpd(open_socket=gateway.xfrm_socket)
    return Bench(folder, spd, ike, LinuxHost(open_socket=gateway.route_socket))


@pytest.fixture
async def bench(gateway: Namespace, tmp_path: Path) -> AsyncIterator[Bench]:
    bench = bench_in(gateway, tmp_path, MemoryIke())
    await bench.start()
    await bench.set(ON, FINE)
    await bench.set(RULE, peer(7, 3))
    yield bench
    await bench.stop()


def child_of(bench: Bench) -> Child:
    assert bench.reconciler.plan is not None
    return bench.reconciler.plan.children[NAME]


def tunnel(remote: str, reqid: int) -> Tunnel:
    local, other = ["192.0.2.1/32"], [f"{remote}/32"]
    name = observed_name(NAME, local, other)
    return Tunnel(name, HERE, THERE, 1, 50, reqid=reqid, selectors=selectors(local, other))


async def up(bench: Bench, *tunnels: Tunnel) -> None:
    bench.reconciler.environment_changed({each.child: each for each in tunnels})
    await bench.reconciler.settled()


async def exact(bench: Bench, gateway: Namespace) -> None:
    fresh = KernelSpd(open_socket=gateway.xfrm_socket)
    await fresh.start()
    try:
        assert held(await fresh.observe()) == wanted(bench)
    finally:
        await fresh.stop()


def flow_policies(gateway: Namespace) -> dict[str, int]:
    """Far hosts with a policy of their own, and the reqid it names."""
    pattern = r"src 192\.0\.2\.1/32 dst (\S+)/32 \s*\n\tdir out .*\n\ttmpl .*\n\t\tproto esp reqid (\d+)"
    return {remote: int(reqid) for remote, reqid in re.findall(pattern, gateway.ip("xfrm policy"))}


async def acquire(gateway: Namespace, told: list[KernelEvent], remote: str) -> KernelEvent:
    """What the kernel asks when a packet goes there."""
    told.clear()
    gateway.command("ping", "-c1", "-W1", remote)
    await until(lambda: told)
    return told[0]


@pytest.fixture
def acquires(bench: Bench) -> list[KernelEvent]:
    found: list[KernelEvent] = []
    bench.spd.subscribe(lambda event: found.append(event) if event.kind is KernelEventKind.ACQUIRE else None)
    return found


async def test_the_kernel_asks_with_the_flow_and_is_not_silent_about_the_next(
    bench: Bench, gateway: Namespace, acquires: list[KernelEvent]
) -> None:
    first = await acquire(gateway, acquires, FIRST)
    assert first.template is not None and first.flow is not None
    assert first.template.reqid == child_of(bench).reqid
    asked = flow_child(child_of(bench), first.flow)
    assert asked is not None and asked[1:] == (("192.0.2.1/32",), (f"{FIRST}/32",))
    await up(bench, tunnel(FIRST, 1))
    assert flow_policies(gateway) == {FIRST: 1}
    second = await acquire(gateway, acquires, SECOND)  # within the five seconds of the first larval SA
    split = child_of(bench).fine
    assert second.template is not None and split is not None
    assert second.template.reqid in split.asks and second.template.reqid != first.template.reqid
    assert second.flow is not None and second.flow.destination == host(bytes([10, 50, 1, 2]))
    await exact(bench, gateway)


async def test_the_kernel_takes_the_policy_of_the_flow_before_its_rules(
    bench: Bench, gateway: Namespace, acquires: list[KernelEvent]
) -> None:
    await up(bench, tunnel(FIRST, 1), tunnel(SECOND, 2))
    for remote, reqid in ((FIRST, 1), (SECOND, 2)):
        asked = await acquire(gateway, acquires, remote)
        assert asked.template is not None and asked.template.reqid == reqid
        assert asked.key is not None and asked.key.selector.destination.length == 32


async def test_an_earlier_drop_rule_is_asked_before_the_flow(bench: Bench, gateway: Namespace) -> None:
    await up(bench, tunnel(FIRST, 1))
    cells = {"ipsecTrLocalAddress": bytes(4), "ipsecTrRemoteAddress": bytes([10, 50, 1, 0])}
    drop = rule(9, 5, 3, ipsecTrLocalMaskLen=0, ipsecTrRemoteMaskLen=24, **cells)
    await bench.set(drop, ("ipsecPeerTable", 7, {"ipsecPeerTrafficList": 9}))
    await exact(bench, gateway)
    told: list[KernelEvent] = []
    bench.spd.subscribe(told.append)
    gateway.command("ping", "-c1", "-W1", FIRST)
    await asyncio.sleep(0.2)
    assert not [event for event in told if event.kind is KernelEventKind.ACQUIRE]
    refused = gateway.run(Path("/proc/thread-self/net/xfrm_stat").read_text)
    assert int(re.findall(r"XfrmOutPolBlock\s+(\d+)", refused)[0]) > 0


async def test_drift_in_the_policy_of_a_flow_heals_and_its_end_leaves_none(bench: Bench, gateway: Namespace) -> None:
    one = tunnel(FIRST, 1)
    await up(bench, one, tunnel(SECOND, 2))
    gateway.ip(f"xfrm policy delete src 192.0.2.1/32 dst {FIRST}/32 dir out")
    await until(lambda: flow_policies(gateway) == {FIRST: 1, SECOND: 2})
    await bench.reconciler.settled()
    await exact(bench, gateway)
    bench.reconciler.environment_changed({one.child: None})
    await bench.reconciler.settled()
    assert flow_policies(gateway) == {SECOND: 2}
    assert "dir out" in gateway.ip("xfrm policy get src 192.0.2.0/24 dst 10.50.0.0/16 dir out")
    await exact(bench, gateway)


async def test_the_next_agent_finds_the_flows_in_the_daemon_and_changes_nothing(
    gateway: Namespace, tmp_path: Path
) -> None:
    ike = MemoryIke()
    first = bench_in(gateway, tmp_path, ike)
    await first.start()
    await first.set(ON, FINE)
    await first.set(RULE, peer(7, 3))
    await up(first, tunnel(FIRST, 1), tunnel(SECOND, 2))
    children = tuple(
        ChildSa(
            tunnel(remote, reqid).child,
            reqid,
            reqid,
            "INSTALLED",
            1,
            50,
            bytes([0, 0, 1, reqid]),
            bytes([0, 0, 2, reqid]),
            local_selectors=("192.0.2.1/32",),
            remote_selectors=(f"{remote}/32",),
        )
        for remote, reqid in ((FIRST, 1), (SECOND, 2))
    )
    ike.sas = [IkeSa("peer-7", 1, 2, "ESTABLISHED", HERE, THERE, children=children)]
    before = gateway.ip("xfrm policy")
    await first.stop()
    second = bench_in(gateway, tmp_path, ike)
    await second.start()
    assert gateway.ip("xfrm policy") == before
    assert second.reconciler.plan is not None
    assert sum(policy.rule == WHY_FLOW for policy in second.reconciler.plan.policies.values()) == 2
    await second.stop()
    ike.sas = []  # and one that finds a daemon without them removes their policies
    third = bench_in(gateway, tmp_path, ike)
    await third.start()
    assert flow_policies(gateway) == {}
    await exact(third, gateway)
    await third.stop()


async def test_flush_removes_the_policies_of_flows_too(bench: Bench, gateway: Namespace) -> None:
    await up(bench, tunnel(FIRST, 1))
    await bench.reconciler.stop()
    spd = KernelSpd(open_socket=gateway.xfrm_socket)
    await spd.start()
    await flush(spd, bench.ike)
    await spd.stop()
    assert gateway.ip("xfrm policy").strip() == ""


async def test_a_coarse_profile_takes_the_flows_away(bench: Bench, gateway: Namespace) -> None:
    await up(bench, tunnel(FIRST, 1))
    await bench.set(("ipsecProfileTable", 5, {"ipsecPrfGranularity": int(Granularity.COARSE)}))
    assert flow_policies(gateway) == {}
    assert f"reqid {child_of(bench).reqid} " in gateway.ip("xfrm policy")
    await exact(bench, gateway)
