"""The monitor between a real store and engines of memory: events in, tables and negotiations out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.backends.engine import (
    ChildSa,
    IkeEvent,
    IkeEventKind,
    IkeSa,
    KernelEvent,
    KernelEventKind,
    SaCounters,
    SaRecord,
)
from agent.backends.lookout import NoLookout
from agent.backends.memory import MemoryIke, MemorySpd
from agent.mib import load_schema
from agent.mib.ber import Value, decode_value
from agent.monitor import Monitor
from agent.monitor.lifetimes import child_policy, ike_policy, mismatch
from agent.plan import numbers
from agent.plan.model import Child, Connection, Template, Tunnel, ViciValue
from agent.store.events import Event, Kind
from agent.store.hooks import AGENT, Edit
from agent.store.store import Store, default_url
from tests.planned import Planned
from tests.xfrm_namespace import until

SCHEMA = load_schema()
OURS, THEIRS = b"\x0a\x08\0\x01", b"\x0a\x08\0\x02"
CHILD = "peer-1-rule-1"
APPLY, ERROR = "ipsecGwPeerApplyTable", "ipsecGwPeerLastError"
REQID = numbers.REQID_FIRST
PATIENCE = 30.0  # seconds until what should come counts as missing


def plan(generation: int, remote: str = "10.8.0.2") -> Planned:
    child = Child(CHILD, 1, 1, REQID)
    settings: dict[str, ViciValue] = {
        "version": "1",
        "remote_addrs": [remote],
        "local": {"auth": "psk"},
        "children": {CHILD: {}},
    }
    return Planned(generation, {"peer-1": Connection("peer-1", 1, settings, (child,))}, {CHILD: child})


@dataclass
class Bench:
    store: Store
    ike: MemoryIke
    spd: MemorySpd
    monitor: Monitor
    told: list[Mapping[str, Tunnel | None]]

    async def set(self, **values: Value) -> None:
        """Columns of row 1 of their table, scalars of row 0; a new plan follows."""
        edits = []
        for name, value in values.items():
            column = SCHEMA.columns[name]
            edits.append(Edit(column, 0 if SCHEMA.tables[column.table].scalar else 1, value))
        await self.store.commit(edits, AGENT)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self.monitor.planned(plan(self.store.running.generation), None)

    def cell(self, name: str, row: int = 1) -> Value | None:
        column = SCHEMA.columns[name]
        tlv = self.store.view.table(column.table).cell(row, column.position)
        return None if tlv is None else decode_value(tlv)

    async def reads(self, name: str, value: Value | None, row: int = 1) -> None:
        end = time.monotonic() + PATIENCE
        while self.cell(name, row) != value:
            assert time.monotonic() < end, f"{name}.{row} is {self.cell(name, row)!r}, not {value!r}"
            await asyncio.sleep(0.01)

    async def asked(self, *call: str) -> None:
        end = time.monotonic() + PATIENCE
        while call not in self.ike.calls:
            assert time.monotonic() < end, f"{call} is not among {self.ike.calls}"
            await asyncio.sleep(0.01)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    store = Store.open(SCHEMA, default_url(tmp_path), tmp_path)
    ike, spd = MemoryIke(), MemorySpd()
    told: list[Mapping[str, Tunnel | None]] = []
    monitor = Monitor(store, SCHEMA, ike, spd, tunnels_changed=told.append)
    await monitor.start()
    made = Bench(store, ike, spd, monitor, told)
    try:
        await made.set(ipsecGlobEnabled=1, ipsecTrProto=255)
        await made.set(ipsecPeerTrafficList=1, ipsecPeerDynamicAddress=b"10.8.0.2")
        store.live.update(APPLY, {1: {"ipsecGwPeerApplyState": 2}})  # as the reconciler does
        yield made
    finally:
        await monitor.stop()
        await store.close()


def child(unique: int = 1, **fields: object) -> ChildSa:
    known = {"name": CHILD, "reqid": REQID, "state": "INSTALLED", "mode": 1, "protocol": 50, "spi_in": b"\0\0\1\1"}
    return ChildSa(**{**known, "unique_id": unique, "spi_out": b"\0\0\1\2", **fields})  # type: ignore[arg-type]


def ike(unique: int = 1, **fields: object) -> IkeSa:
    known = {"connection": "peer-1", "version": 1, "state": "ESTABLISHED", "local": OURS, "remote": THEIRS}
    return IkeSa(**{**known, "unique_id": unique, **fields})  # type: ignore[arg-type]


def happened(kind: IkeEventKind, sa: IkeSa, tunnel: ChildSa | None = None) -> IkeEvent:
    return IkeEvent(kind, ike=sa, child=tunnel, connection="peer-1", child_name=CHILD if tunnel is not None else "")


def acquire() -> KernelEvent:
    return KernelEvent(KernelEventKind.ACQUIRE, template=Template(OURS, THEIRS, 50, 1, REQID))


@pytest.mark.slow
async def test_from_the_first_packet_to_the_counter_and_back(bench: Bench) -> None:
    await bench.reads("ipsecPeerStatOperStatus", 5)
    await bench.reads("ipsecPeerStatPeerAddress", THEIRS)
    bench.spd.emit(acquire())
    await bench.asked("initiate", "peer-1", CHILD)
    await bench.reads("ipsecPeerStatOperStatus", 36)
    bench.ike.emit(happened(IkeEventKind.IKE_UP, ike()))
    bench.ike.emit(happened(IkeEventKind.CHILD_UP, ike(), child()))
    bench.ike.emit(IkeEvent(IkeEventKind.INITIATED, connection="peer-1", child_name=CHILD))
    assert bench.told == [{CHILD: Tunnel(CHILD, OURS, THEIRS, 1, 50)}]
    await bench.reads("ipsecPeerStatOperStatus", 1)
    bench.spd.kernel_sas = [SaRecord(THEIRS, OURS, 50, b"\0\0\1\1", REQID, 1, SaCounters(84, 1, 0, 0))]
    await bench.reads("ipsecBundleInBytesNetto", 84)
    await bench.reads("ipsecBundleInPkt", 1)
    await bench.reads("ikeSaState", 2)
    bench.spd.kernel_sas = []
    bench.spd.emit(
        KernelEvent(
            KernelEventKind.SA_DELETED,
            sa=SaRecord(THEIRS, OURS, 50, b"\0\0\1\1", REQID, 1, SaCounters(168, 2, 0, 0)),
        )
    )
    await bench.reads("ipsecBundleInBytesNetto", 168)
    bench.ike.emit(happened(IkeEventKind.CHILD_DOWN, ike(), child()))
    bench.ike.emit(happened(IkeEventKind.IKE_DOWN, ike()))
    await bench.reads("ipsecBundleState", None)
    await bench.reads("ikeSaState", None)
    await bench.reads("ipsecPeerStatOperStatus", 5)
    assert bench.told[-1] == {CHILD: None}


async def test_dialup_starts_once_and_reads_up(bench: Bench) -> None:
    await bench.set(ipsecPeerAdminStatus=4)
    await bench.asked("initiate", "peer-1", CHILD)
    await bench.reads("ipsecPeerAdminStatus", 1)
    assert sum(call[0] == "initiate" for call in bench.ike.calls) == 1


async def test_dialup_does_not_undo_what_was_written_meanwhile(bench: Bench) -> None:
    column = SCHEMA.columns["ipsecPeerAdminStatus"]
    await bench.store.commit([Edit(column, 1, 4)], AGENT)
    await asyncio.sleep(0)
    await bench.store.commit([Edit(column, 1, 2)], AGENT)
    bench.monitor.planned(plan(bench.store.running.generation), None)
    await asyncio.sleep(0.2)
    assert bench.cell("ipsecPeerAdminStatus") == 2
    await bench.reads("ipsecPeerStatOperStatus", 2)


async def test_always_up_starts_by_itself(bench: Bench) -> None:
    await bench.set(ipsecPeerStartMode=2)
    await bench.asked("initiate", "peer-1", CHILD)


@pytest.mark.slow
async def test_why_it_failed_is_remarked_until_it_works(bench: Bench) -> None:
    bench.spd.emit(acquire())
    await bench.asked("initiate", "peer-1", CHILD)
    bench.ike.emit(IkeEvent(IkeEventKind.INITIATED, connection="peer-1", child_name=CHILD, text="no answer"))
    await bench.reads("ipsecPeerStatOperStatus", 5)
    await bench.reads(ERROR, b"no answer")
    bench.store.live.update(APPLY, {1: {ERROR: b""}})
    bench.ike.emit(happened(IkeEventKind.IKE_UP, ike()))
    await bench.reads(ERROR, b"no answer")
    bench.store.live.update(APPLY, {1: {ERROR: b"the reconciler's own"}})
    bench.ike.emit(happened(IkeEventKind.CHILD_UP, ike(), child()))
    await bench.reads("ipsecPeerStatOperStatus", 1)
    assert bench.cell(ERROR) == b"the reconciler's own"


PHASE1_LINE = "received lifetime 300s does not match configured lifetime 900s"
PHASE2_LINE = "received 100s lifetime, configured 300s"


@pytest.mark.parametrize("policy", [1, 2, 3, 4])
async def test_another_lifetime_ends_a_tunnel_only_where_strict(bench: Bench, policy: int) -> None:
    await bench.set(ipsecPrfProposal=0, ikePrfProposal=0)
    await bench.set(
        ipsecPrfLifePolicy=policy,
        ikePrfLifePolicy=policy,
        ipsecGlobIpsecProfile=1,
        ipsecGlobIkeProfile=1,
    )
    bench.ike.emit(IkeEvent(IkeEventKind.LOG, connection="peer-1", text=PHASE1_LINE))
    bench.ike.emit(happened(IkeEventKind.IKE_UP, ike(7)))
    bench.ike.emit(IkeEvent(IkeEventKind.LOG, connection="peer-1", text=PHASE2_LINE))
    bench.ike.emit(happened(IkeEventKind.CHILD_UP, ike(7), child()))
    await bench.reads("ipsecBundleState", 1)

    def told() -> bool:
        error = bench.cell(ERROR)
        assert isinstance(error, bytes)
        return b"100 s" in error and b"ipsecPrfLifePolicy" in error

    strict = (("terminate", "", "", "7"), ("terminate", "", CHILD, ""))
    if policy == 2:
        for call in strict:
            await bench.asked(*call)
        await until(told)
    else:
        await asyncio.sleep(0.2)
        assert not told()
    assert {call for call in bench.ike.calls if call[0] == "terminate"} == (set(strict) if policy == 2 else set())


async def test_which_lifetime_policy_counts(bench: Bench) -> None:
    configuration = bench.store.running
    assert ike_policy(configuration, 1) == child_policy(configuration, 1, 1) == 1
    await bench.set(ipsecPrfProposal=0, ikePrfProposal=0)
    await bench.set(ipsecPrfLifePolicy=2, ikePrfLifePolicy=2, ipsecPeerIkeProfile=1, ipsecTrProfile=1)
    configuration = bench.store.running
    assert ike_policy(configuration, 1) == child_policy(configuration, 1, 1) == 2


async def test_the_wire_is_looked_at_where_ike_goes(tmp_path: Path) -> None:
    class Wire(NoLookout):
        port = 500

        def use_port(self, port: int) -> None:
            self.port = port

    wire = Wire()
    store = Store.open(SCHEMA, default_url(tmp_path), tmp_path)
    monitor = Monitor(store, SCHEMA, MemoryIke(), MemorySpd(), tunnels_changed=lambda news: None, lookout=wire)
    await monitor.start()
    try:
        await store.commit([Edit(SCHEMA.columns["ipsecGlobIkePort"], 0, 1500)], AGENT)
        await until(lambda: wire.port == 1500)
    finally:
        await monitor.stop()
        await store.close()


async def test_a_rule_says_nothing_of_a_virtual_interface_whose_selector_has_its_number(bench: Bench) -> None:
    await bench.set(ipsecPrfProposal=0)
    await bench.set(ipsecPrfLifePolicy=2, ipsecTrProfile=1)
    assert child_policy(bench.store.running, 1, 1) == 2
    await bench.set(ipsecPeerVirtualInterface=2)
    assert child_policy(bench.store.running, 1, 1) == 1


def test_lines_about_lifetimes() -> None:
    found = mismatch(PHASE2_LINE)
    assert found is not None and (found.phase, found.offered, found.ours) == (2, 100, 300)
    assert "100 s" in str(found)
    found = mismatch(PHASE1_LINE)
    assert found is not None and (found.phase, found.offered, found.ours) == (1, 300, 900)
    assert mismatch("received 2000 lifebytes, configured 1000") is not None
    assert mismatch("installing new SA") is None


async def test_a_peer_that_goes_takes_its_row_along(bench: Bench) -> None:
    await bench.reads("ipsecPeerStatOperStatus", 5)
    await bench.set(ipsecPeerAdminStatus=15)
    await bench.reads("ipsecPeerStatOperStatus", None)


@pytest.mark.slow
async def test_a_renewed_tunnel_of_a_peer_that_was_switched_off_and_on(bench: Bench) -> None:
    """The row of the tunnel that has just ended is taken up again, and the peer is up for it."""
    bench.ike.emit(happened(IkeEventKind.CHILD_UP, ike(), child()))
    bench.ike.emit(happened(IkeEventKind.CHILD_DOWN, ike(), child()))
    await bench.set(ipsecPeerAdminStatus=2)
    await bench.set(ipsecPeerAdminStatus=1)
    bench.spd.emit(acquire())
    await bench.asked("initiate", "peer-1", CHILD)
    bench.ike.emit(happened(IkeEventKind.CHILD_UP, ike(), child(2)))
    bench.ike.emit(IkeEvent(IkeEventKind.INITIATED, connection="peer-1", child_name=CHILD))
    assert bench.monitor.peers.state(1) == 1
    bench.ike.emit(happened(IkeEventKind.CHILD_DOWN, ike(), child(2)))
    await bench.reads("ipsecPeerStatOperStatus", 5)
    assert bench.told[-1] == {CHILD: None}


async def test_another_charon_knows_no_tunnel(bench: Bench) -> None:
    bench.ike.emit(happened(IkeEventKind.CHILD_UP, ike(), child()))
    await bench.reads("ipsecPeerStatOperStatus", 1)
    bench.ike.emit(IkeEvent(IkeEventKind.LOST, text="killed"))
    await asyncio.sleep(0)
    assert bench.monitor.registry.stands(1, CHILD)  # its SAs still carry traffic
    bench.ike.emit(IkeEvent(IkeEventKind.BACK, text="restarted"))
    assert bench.told[-1] == {CHILD: None}
    await bench.reads("ipsecPeerStatOperStatus", 5)


@pytest.mark.slow
async def test_every_table_of_a_tunnel_is_filled_and_emptied(bench: Bench) -> None:
    bench.spd.counted = {"InReceives": 10, "XfrmInNoStates": 1}
    tunnel = child(local_selectors=("10.1.0.0/24",), remote_selectors=("10.2.0.0/24",))
    bench.ike.emit(happened(IkeEventKind.IKE_UP, ike()))
    bench.ike.emit(happened(IkeEventKind.CHILD_UP, ike(), tunnel))
    bench.spd.kernel_sas = [
        SaRecord(THEIRS, OURS, 50, b"\0\0\1\1", REQID, 1, SaCounters(840, 10, 0, 0), replayed=2),
        SaRecord(OURS, THEIRS, 50, b"\0\0\1\2", REQID, 1, SaCounters(84, 1, 0, 0)),
    ]
    await bench.reads("ipsecSaReplayErrors", 2)
    shown = {
        ("ipsecSaSpi", 1): 0x101,
        ("ipsecSaSpi", 2): 0x102,
        ("ipsecTrafficSelectorRemoteAddress", 1): bytes([10, 2, 0, 0]),
        ("ipsecGwPeerInPkt", 1): 10,
        ("ipsecGwPeerInBytesNetto", 1): 840,
        ("ipsecStatsInDecaps", 0): 10,
        ("ipsecGwStats64OutEncaps", 0): 1,
        ("ipsecStatsPeersUp", 0): 1,
        ("ipsecStatsCurrentIpsecSas", 0): 2,
        ("ipsecStatsIkeNumP1", 0): 1,
        ("ipsecStatsIkeNumQm", 0): 1,
        ("ipsecStatsUnknownSpiErrors", 0): 1,  # what the kernel counted since the start
    }
    for (name, row), value in shown.items():
        await bench.reads(name, value, row)
    bench.spd.kernel_sas = []
    bench.ike.emit(happened(IkeEventKind.CHILD_DOWN, ike(), tunnel))
    await bench.reads("ipsecSaSpi", None)
    await bench.reads("ipsecTrafficSelectorRemoteAddress", None)
    assert bench.cell("ipsecGwPeerInPkt") == 10, "the peer's counter stays"
    await bench.reads("ipsecStatsEspTotalInbound", 1, 0)
    await bench.reads("ipsecStatsCurrentIpsecSas", 0, 0)


async def test_version_2_has_a_table_of_its_own(bench: Bench) -> None:
    bench.ike.emit(happened(IkeEventKind.IKE_UP, ike(version=2)))
    await bench.reads("ikev2SaState", 2)
    await bench.reads("ipsecPeerStatNumIkeSasEstablished", 1)
    await bench.reads("ipsecStatsIkev2NumIkeSas", 1, 0)
    assert bench.cell("ikeSaState") is None


@pytest.mark.slow
async def test_counters_of_a_peer_that_is_made_anew_begin_at_zero_and_say_since_when(bench: Bench) -> None:
    await bench.reads("ipsecGwPeerInPkt", 0)
    bench.ike.emit(happened(IkeEventKind.CHILD_UP, ike(), child(octets_in=84, packets_in=1)))
    await bench.reads("ipsecGwPeerInPkt", 1)
    bench.ike.emit(happened(IkeEventKind.CHILD_DOWN, ike(), child(octets_in=84, packets_in=1)))
    await bench.set(ipsecPeerAdminStatus=15)
    await bench.reads("ipsecGwPeerInPkt", None)
    await bench.set(ipsecPeerTrafficList=1, ipsecPeerDynamicAddress=b"10.8.0.2")
    await bench.reads("ipsecGwPeerInPkt", 0)
    since = bench.cell("ipsecGwPeerDiscontinuityTime")
    assert isinstance(since, int) and since > 0


@pytest.mark.slow
async def test_columns_that_older_releases_had_in_the_peer_s_row(bench: Bench) -> None:
    await bench.reads("ipsecPeerStatPfsIdentity", 2)
    second = [Edit(SCHEMA.columns[name], 2, value) for name, value in (("ipsecPeerTrafficList", 1),)]
    await bench.store.commit(second, AGENT)
    await bench.reads("ipsecPeerStatNextIndex", 2)
    await bench.set(ipsecPeerPriority=5)
    await bench.reads("ipsecPeerStatNextIndex", 1, row=2)
    await bench.set(ipsecGlobContDefaultPfsIdentity=1)
    await bench.reads("ipsecPeerStatPfsIdentity", 1)


async def test_a_removed_peer_whose_tunnel_still_carries_something_does_not_come_up_again(bench: Bench) -> None:
    """Until charon has ended it; else a station would hear of a peer up that there is not."""
    bench.ike.emit(happened(IkeEventKind.CHILD_UP, ike(), child()))
    await bench.reads("ipsecPeerStatOperStatus", 1)
    told: list[Event] = []
    bench.store.events.subscribe(told.append)
    told.clear()
    await bench.store.commit([Edit(SCHEMA.columns["ipsecPeerAdminStatus"], 1, 15)], AGENT)
    await asyncio.sleep(0)
    bench.ike.emit(happened(IkeEventKind.CHILD_REKEY, ike(), child(octets_in=84, packets_in=1)))
    bench.monitor.planned(Planned(bench.store.running.generation, {}, {}), plan(1))
    bench.ike.emit(happened(IkeEventKind.CHILD_UP, ike(), child(octets_in=168, packets_in=2)))
    bench.ike.emit(happened(IkeEventKind.CHILD_DOWN, ike(), child(octets_in=168, packets_in=2)))
    await bench.reads("ipsecPeerStatOperStatus", None)
    assert [event.kind for event in told if event.kind in (Kind.PEER_UP, Kind.PEER_DOWN)] == [Kind.PEER_DOWN]
