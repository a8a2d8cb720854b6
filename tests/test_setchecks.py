"""Step 5 of a SET, on a real store with engines of memory: the rules' words, and nobody locks himself out."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.backends import memory_engines
from agent.backends.memory import MemoryHost
from agent.backends.reconcile import Reconciler
from agent.clear import Clearing
from agent.mib import load_schema
from agent.mib.ber import Value
from agent.plan.capabilities import MEMORY
from agent.plan.model import Flow
from agent.plan.planner import make_plan
from agent.seed import seed_edits
from agent.setchecks import SetChecks
from agent.store.errors import ErrorStatus, Refused
from agent.store.hooks import AGENT, Edit, Origin, differences
from agent.store.store import Store

PORT = 1161
STATION = Origin("snmp", "admin", "203.0.113.9", "192.0.2.1", secure=True)


class Host(MemoryHost):
    """Has one ssh session."""

    def __init__(self) -> None:
        super().__init__(interfaces={1: "lo", 7: "eth0", 8: "eth1"})

    def flows(self) -> tuple[Flow, ...]:
        return (Flow(socket.inet_aton("198.51.100.7"), socket.inet_aton("192.0.2.1"), 6, 40000, 22, "in"),)


class Bench:
    """A store with the check in it, and a reconciler."""

    def __init__(self, store: Store, reconciler: Reconciler) -> None:
        self.store, self.reconciler = store, reconciler

    async def set(self, origin: Origin = STATION, /, **values: Value) -> None:
        """Objects by name and row: ipsecTrAction_3=5; scalars without a row."""
        edits = []
        for name, value in values.items():
            column, _, row = name.partition("_")
            edits.append(Edit(load_schema().columns[column], int(row or 0), value))
        await self.store.commit(edits, origin)

    async def planned(self) -> None:
        """Until the plan is that of the running configuration."""
        async with asyncio.timeout(30):
            while True:
                plan = self.reconciler.plan
                if plan is not None and plan.generation == self.store.running.generation:
                    return
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Bench]:
    engines = memory_engines()
    host = Host()
    store = Store.open(load_schema(), "", folder)
    reconciler = Reconciler(store, store.schema, engines.spd, engines.ike, host, MEMORY)
    store.checks.append(SetChecks(reconciler, host, MEMORY, [("192.0.2.1", PORT), ("127.0.0.1", 161)]))
    await reconciler.start()
    await reconciler.settled()
    try:
        yield Bench(store, reconciler)
    finally:
        await reconciler.stop()
        await store.close()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with running(tmp_path) as made:
        yield made


async def test_a_rule_that_the_guide_forbids_is_worded_and_names_its_varbind(bench: Bench) -> None:
    with pytest.raises(Refused) as refused:
        await bench.set(ipsecTrProto_1=255, ipsecTrLocalAddress_1=b"\xc0\xa8\x01\x07", ipsecTrLocalMaskLen_1=24)
    assert refused.value.status is ErrorStatus.INCONSISTENT_VALUE
    assert refused.value.edit in (1, 2)
    assert "host bits beyond the mask; accepted: 192.168.1.0" in refused.value.text


async def test_switching_on_with_the_default_to_drop_would_cut_station_and_ssh(bench: Bench) -> None:
    with pytest.raises(Refused, match=r"accepted: the same SET with ipsecGwAllowLockout\.0 = true"):
        await bench.set(ipsecGlobEnabled=1)
    assert bench.store.running.scalar("ipsecGlobEnabled") == 2
    await bench.set(ipsecGlobEnabled=1, ipsecGwAllowLockout=1)
    assert bench.store.running.scalar("ipsecGlobEnabled") == 1
    assert bench.store.running.scalar("ipsecGwAllowLockout") == 2  # counts for its own SET only


async def test_a_rule_that_lets_them_pass_makes_it_acceptable(bench: Bench) -> None:
    await bench.set(
        ipsecTrProto_1=6, ipsecTrLocalPort_1=22, ipsecTrAction_1=3, ipsecTrNextIndex_1=2,
        ipsecTrProto_2=17, ipsecTrLocalPort_2=PORT, ipsecTrAction_2=3, ipsecGlobContPreIpsecRules=1,
    )  # fmt: skip
    await bench.set(ipsecGlobEnabled=1)
    await bench.planned()
    with pytest.raises(Refused, match=r"198\.51\.100\.7"):
        await bench.set(ipsecTrAction_1=5)
    await bench.set(ipsecTrAction_1=5, ipsecGwAllowLockout=1)


async def test_a_rule_cuts_by_the_interface_that_the_station_comes_by(bench: Bench) -> None:
    await bench.set(ipsecGlobContDefaultRule=2)
    await bench.set(ipsecGlobEnabled=1)
    await bench.planned()
    await bench.set(ipsecTrProto_1=255, ipsecTrAction_1=5, ipsecTrInterface_1=8, ipsecGlobContPreIpsecRules=1)
    await bench.planned()
    with pytest.raises(Refused, match=r"203\.0\.113\.9.*came by eth0 \(7\)"):
        await bench.set(ipsecTrInterface_1=7)
    await bench.set(ipsecTrInterface_1=7, ipsecGwAllowLockout=1)


async def test_a_range_or_an_own_address_cuts_too(bench: Bench) -> None:
    await bench.set(ipsecGlobContDefaultRule=2)
    await bench.set(ipsecGlobEnabled=1)
    await bench.planned()
    ends = {"ipsecTrRemoteAddress_1": b"\xcb\x00\x71\x05", "ipsecTrRemoteRange_1": b"\xcb\x00\x71\x08"}
    await bench.set(ipsecTrProto_1=255, ipsecTrAction_1=5, ipsecGlobContPreIpsecRules=1, **ends)
    with pytest.raises(Refused, match=r"203\.0\.113\.9"):
        await bench.set(ipsecTrRemoteRange_1=b"\xcb\x00\x71\x09")


async def test_before_there_is_a_plan_it_is_judged_all_the_same(tmp_path: Path) -> None:
    engines = memory_engines()
    store = Store.open(load_schema(), "", tmp_path)
    reconciler = Reconciler(store, store.schema, engines.spd, engines.ike, engines.host, MEMORY)
    store.checks.append(SetChecks(reconciler, Host(), MEMORY, [("0.0.0.0", PORT)]))
    try:
        with pytest.raises(Refused, match=r"203\.0\.113\.9"):
            await Bench(store, reconciler).set(ipsecGlobEnabled=1)
    finally:
        await store.close()


async def test_from_loopback_only_the_connections_count(bench: Bench) -> None:
    local = Origin("snmp", "write-community", "127.0.0.1", "127.0.0.1", secure=True)
    with pytest.raises(Refused, match=r"198\.51\.100\.7"):
        await bench.set(local, ipsecGlobEnabled=1)


async def test_sets_that_share_a_transaction_see_one_another(bench: Bench) -> None:
    """Each is judged on top of those before it, also of the agent's own, and the plan holds all of them."""
    await bench.set(ipsecGlobContDefaultRule=2)
    await bench.set(ipsecGlobEnabled=1)
    await bench.planned()
    drop = {"ipsecTrAction_1": 5, "ipsecTrRemoteAddress_1": b"\xcb\x00\x71\x09", "ipsecTrRemoteMaskLen_1": 32}
    results = await asyncio.gather(
        bench.set(ipsecTrProto_1=255, **drop),  # type: ignore[arg-type]
        bench.set(AGENT, ipsecPeerDescription_1=b"x", ipsecPeerTrafficList_1=0),
        bench.set(ipsecGlobContPreIpsecRules=1),
        return_exceptions=True,
    )
    assert results[:2] == [None, None]
    assert isinstance(results[2], Refused) and "203.0.113.9" in results[2].text


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(waves=st.lists(st.lists(st.tuples(st.integers(1, 6), st.sampled_from([2, 3, 5])), max_size=5), max_size=5))
async def test_whatever_comes_together_ends_in_the_plan_made_from_nothing(
    tmp_path_factory: pytest.TempPathFactory, waves: list[list[tuple[int, int]]]
) -> None:
    async with running(tmp_path_factory.mktemp("state")) as bench:
        for row in range(1, 7):
            values: dict[str, Value] = {
                f"ipsecTrProto_{row}": 255,
                f"ipsecTrRemoteAddress_{row}": bytes((10, row, 0, 0)),
            }
            values |= {f"ipsecTrRemoteMaskLen_{row}": 16, f"ipsecTrAction_{row}": 3}
            values |= {f"ipsecTrNextIndex_{row - 1}": row} if row > 1 else {}
            await bench.set(AGENT, **values)
        await bench.set(AGENT, ipsecGlobContPreIpsecRules=1, ipsecGlobContDefaultRule=2, ipsecGlobEnabled=1)
        for wave in waves:
            await asyncio.gather(*(bench.set(**{f"ipsecTrAction_{row}": action}) for row, action in wave))
        await bench.planned()
        plan = bench.reconciler.plan
        assert plan is not None
        fresh = make_plan(bench.store.running, bench.reconciler.environment)
        assert {k: p.action for k, p in plan.policies.items()} == {k: p.action for k, p in fresh.policies.items()}


async def test_differences_are_exactly_the_rows_that_differ(bench: Bench) -> None:
    before = bench.store.running
    await bench.set(AGENT, ipsecTrProto_1=255, ipsecTrProto_2=6, ipsecTrProto_300=17)
    middle = bench.store.running
    await bench.set(AGENT, ipsecTrDescription_2=b"x", ipsecTrAction_300=1, ipsecGlobContDefaultRule=2)
    after = bench.store.running
    assert {(d.table, d.number) for d in differences(before, middle)} == {("ipsecTrafficTable", n) for n in (1, 2, 300)}
    found = {(d.table, d.number): d for d in differences(middle, after)}
    assert set(found) == {("ipsecTrafficTable", 2), ("ipsecTrafficTable", 300), ("ipsecGlobalsContinued", 0)}
    assert found["ipsecTrafficTable", 2].columns == {"ipsecTrDescription", "ipsecGwTrafficRowGeneration"}
    assert found["ipsecTrafficTable", 300].after is None
    assert found["ipsecGlobalsContinued", 0].columns == {"ipsecGlobContDefaultRule"}
    assert differences(after, after) == []


async def test_clearing_is_refused_where_it_would_cut_and_switches_off_else(bench: Bench) -> None:
    """clear-configuration becomes the edits it stands for before anybody looks: IPsec off cuts nobody, and what the
    seeds bring is judged with the rest."""
    store = bench.store
    store.expanders.append(Clearing(seed_edits(store.schema)))
    await bench.set(ipsecTrProto_1=6, ipsecTrLocalPort_1=22, ipsecTrAction_1=3, ipsecGlobContPreIpsecRules=1)
    await bench.set(ipsecGlobEnabled=1, ipsecGwAllowLockout=1)
    await bench.planned()
    await bench.set(ipsecGwCommand=2)
    assert store.running.scalar("ipsecGlobEnabled") == 2 and not len(store.running.table("ipsecTrafficTable"))
    await bench.set(ipsecTrProto_1=6, ipsecTrLocalPort_1=22, ipsecTrAction_1=3, ipsecGlobContPreIpsecRules=1)
    await bench.set(ipsecGlobEnabled=1, ipsecGwAllowLockout=1)
    await bench.planned()
    on = [Edit(store.schema.columns["ipsecGlobEnabled"], 0, 1)]  # as if the first start left it on: the rule is gone
    store.expanders[:] = [Clearing([*seed_edits(store.schema), *on])]
    generation = store.running.generation
    with pytest.raises(Refused, match=r"accepted: the same SET with ipsecGwAllowLockout\.0 = true") as refused:
        await bench.set(ipsecGwCommand=2)
    assert refused.value.edit == 0 and store.running.generation == generation
    await bench.set(ipsecGwCommand=2, ipsecGwAllowLockout=1)
    assert store.running.scalar("ipsecGlobEnabled") == 1 and not len(store.running.table("ipsecTrafficTable"))
