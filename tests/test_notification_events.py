"""What happens on the gateway is told: peers, failed negotiations, rows that cannot be real, certificates."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.backends.engine import ChildSa, IkeEvent, IkeEventKind, IkeSa
from agent.backends.memory import MemoryHost, MemoryIke, MemorySpd
from agent.backends.reconcile import Reconciler
from agent.backends.rowstate import Failures, RowState
from agent.mib.ber import Value
from agent.monitor.certificates import DAY, CertificateWatch
from agent.monitor.monitor import Monitor
from agent.monitor.peer_events import PeerEvents
from agent.monitor.states import Oper
from agent.plan.capabilities import CHARON
from agent.plan.model import ApplyState, RowRef
from agent.store.events import EARLY, Event, Events, Kind, Severity
from agent.store.hooks import AGENT, Edit
from agent.store.store import Store
from tests.snmp_station import SCHEMA, until
from tests.trap_receiver import Gateway, Received, gateway, oid, receiver

REMOTE = b"\x0a\x08\0\x02"
CHILD, CONNECTION = "peer-1-rule-1", "peer-1"
TEXT = oid("ipsecGwNotifyText", 0)
HELD_BACK = oid("ipsecGwNotifyHeldBack", 0)
needs_snmptrapd = pytest.mark.skipif(shutil.which("snmptrapd") is None, reason="no snmptrapd (package snmptrapd)")


@asynccontextmanager
async def real(agent: Gateway, ike: MemoryIke, spd: MemorySpd) -> AsyncIterator[Reconciler]:
    """Reconciler and monitor on engines of memory, as the agent has them."""
    store = agent.agent.store
    reconciler = Reconciler(store, SCHEMA, spd, ike, MemoryHost(), CHARON)
    monitor = Monitor(store, SCHEMA, ike, spd, tunnels_changed=reconciler.environment_changed)
    reconciler.subscribe(monitor.planned)
    await reconciler.start()
    await monitor.start()
    try:
        await commit(store, 0, {"ipsecGlobEnabled": 1})
        await commit(store, 1, {"ipsecTrProto": 255, "ipsecTrLocalAddress": b"\x0a\1\0\0", "ipsecTrLocalMaskLen": 16})
        peer: dict[str, Value] = {"ipsecPeerTrafficList": 1, "ipsecPeerDynamicAddress": b"10.8.0.2"}
        await commit(store, 1, {**peer, "ipsecPeerDescription": b"Branch", "ipsecPeerPreSharedKey": b"a long secret"})
        await reconciler.settled()
        yield reconciler
    finally:
        await monitor.stop()
        await reconciler.stop()


async def commit(store: Store, row: int, values: Mapping[str, Value]) -> None:
    await store.commit([Edit(SCHEMA.columns[name], row, value) for name, value in values.items()], AGENT)
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def tunnel(ike: MemoryIke, up: bool) -> None:
    """The peer's one tunnel comes up or goes, as charon says it."""
    sa = IkeSa(unique_id=1, connection=CONNECTION, version=1, state="ESTABLISHED", local=b"\x7f\0\0\1", remote=REMOTE)
    child = ChildSa(
        name=CHILD,
        unique_id=1,
        reqid=1,
        state="INSTALLED",
        mode=1,
        protocol=50,
        spi_in=b"\0\0\1\1",
        spi_out=b"\0\0\1\2",
    )
    kinds = (IkeEventKind.IKE_UP, IkeEventKind.CHILD_UP) if up else (IkeEventKind.CHILD_DOWN, IkeEventKind.IKE_DOWN)
    for kind in kinds:
        of_child = kind in (IkeEventKind.CHILD_UP, IkeEventKind.CHILD_DOWN)
        name = CHILD if of_child else ""
        ike.emit(IkeEvent(kind, ike=sa, child=child if of_child else None, connection=CONNECTION, child_name=name))


@pytest.mark.slow
@needs_snmptrapd
async def test_a_flapping_peer_is_paced_and_its_last_state_told(tmp_path: Path) -> None:
    ike, spd = MemoryIke(), MemorySpd()
    up, down = oid("ipsecGwPeerUp"), oid("ipsecGwPeerDown")
    async with receiver(tmp_path / "trapd") as trapd, gateway(tmp_path / "state", pause=3) as agent:
        await agent.target(1, trapd)
        async with real(agent, ike, spd):
            peers = [Kind.PEER_UP, Kind.PEER_DOWN]
            seen: list[Kind] = []
            agent.agent.store.events.subscribe(lambda event: seen.append(event.kind) if event.kind in peers else None)
            for count in range(1, 9):
                tunnel(ike, up=bool(count % 2))
                await until(lambda count=count: len(seen) == count)
            first = (await trapd.wait_for(up))[0]
            assert first.objects[oid("ipsecPeerDescription", 1)] == 'STRING: "Branch"'
            assert first.objects[oid("ipsecPeerStatOperStatus", 1)] == "INTEGER: 1"
            assert first.objects[oid("ipsecPeerStatCurrentRemoteAddress", 1)] == "IpAddress: 10.8.0.2"
            assert first.objects[TEXT] == 'STRING: "peer 1 \\"Branch\\" is up, with 10.8.0.2"'
            await asyncio.sleep(4)

            def of_peer() -> list[Received]:
                return [each for each in trapd.received() if each.name in (up, down)]

            await until(lambda: of_peer()[-1].name == down)
            told = of_peer()
            assert 2 <= len(told) < len(seen) == 8
            assert told[-1].name == down and told[-1].objects[oid("ipsecPeerStatOperStatus", 1)] == "INTEGER: 5"
            assert "the last tunnel ended" in told[-1].objects[TEXT]


@needs_snmptrapd
async def test_a_failed_negotiation_is_told_with_its_reason(tmp_path: Path) -> None:
    ike, spd = MemoryIke(), MemorySpd()
    async with receiver(tmp_path / "trapd") as trapd, gateway(tmp_path / "state") as agent:
        await agent.target(1, trapd)
        async with real(agent, ike, spd):
            await commit(agent.agent.store, 1, {"ipsecPeerAdminStatus": 4})
            await until(lambda: ("initiate", CONNECTION, CHILD) in ike.calls)
            ike.emit(IkeEvent(IkeEventKind.INITIATED, connection=CONNECTION, child_name=CHILD, text="no answer"))
            [told] = await trapd.wait_for(oid("ipsecGwNegotiationFailed"))
            assert told.objects[TEXT] == 'STRING: "negotiation with peer 1 \\"Branch\\" failed: no answer"'


@needs_snmptrapd
async def test_a_row_that_cannot_be_made_real_is_told_once_per_reason(tmp_path: Path) -> None:
    ike, spd = MemoryIke(), MemorySpd()
    ike.refuse[CONNECTION] = "charon does not want it"
    failed = oid("ipsecGwApplyFailed")
    async with receiver(tmp_path / "trapd") as trapd, gateway(tmp_path / "state") as agent:
        await agent.target(1, trapd)
        async with real(agent, ike, spd) as reconciler:
            of_peer, of_rule = await trapd.wait_for(failed, 2)
            if of_rule.objects[oid("ipsecGwNotifyRow", 0)] == "OID: " + oid("ipsecGwPeerRowStatus", 1):
                of_peer, of_rule = of_rule, of_peer
            assert of_peer.objects[oid("ipsecGwNotifyRow", 0)] == "OID: " + oid("ipsecGwPeerRowStatus", 1)
            assert of_rule.objects[oid("ipsecGwNotifyRow", 0)] == "OID: " + oid("ipsecGwTrafficRowStatus", 1)
            assert of_peer.objects[TEXT] == 'STRING: "ipsecPeerTable 1 \\"Branch\\": charon does not want it"'
            await commit(agent.agent.store, 1, {"ipsecPeerDescription": b"Branch of the bank"})
            await reconciler.settled()
            await agent.set(0, {"ipsecGwSystemContact": b"the end"})
            await asyncio.sleep(0.5)
            assert trapd.names().count(failed) == 2


def test_a_row_that_fails_for_another_reason_or_again_is_news() -> None:
    told: list[str] = []
    failures = Failures(lambda ref, text: told.append(text))
    ref = RowRef("ipsecPeerTable", 1)
    states = [("failed", "a"), ("pending", ""), ("failed", "a"), ("failed", "b"), ("applied", ""), ("failed", "b")]
    for state, text in states:
        failures.see(ref, RowState(ApplyState[state.upper()], text, 1))
    assert told == ["a", "b", "b"]


def test_blocked_peers_are_told_with_the_time() -> None:
    told: list[Event] = []
    events = PeerEvents(told.append, lambda peer: b"Branch", lambda peer: b"")
    events.moved(1, Oper.GOING_UP, Oper.BLOCKED, "no answer", 60)
    events.moved(1, Oper.BLOCKED, Oper.DORMANT, "time is up", 0)
    event, after = told
    assert (after.kind, after.severity) == (Kind.OTHER, Severity.DEBUG), "put down, but sent to nobody"
    assert after.text == 'peer 1 "Branch" is dormant after blocked: time is up'
    assert event.kind is Kind.PEER_BLOCKED and event.values["ipsecPeerStatTtl"] == 60
    assert event.text == 'peer 1 "Branch" is blocked for 60 s: no answer'


def test_what_is_told_early_is_heard_by_those_who_come_late() -> None:
    events = Events()
    for number in range(EARLY + 5):
        events.tell(Event(Kind.OTHER, Severity.INFO, str(number)))
    heard: list[str] = []
    events.subscribe(lambda event: heard.append(event.text))
    events.tell(Event(Kind.OTHER, Severity.INFO, "now"))
    assert len(heard) == EARLY + 1 and heard[-1] == "now"


# ---- certificates -----------------------------------------------------------------------


async def certificate(store: Store, number: int, end: float) -> None:
    """As the agent stores one."""
    values = {"certDescription": f"cert {number}".encode(), "certValidNotAfter": int(end)}
    status = SCHEMA.tables["certTable"].row_status
    assert status is not None
    await commit(store, number, {status.name: 4, **values})


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store.open(SCHEMA, "", tmp_path)
    yield opened
    await opened.close()


async def test_certificates_are_told_of_before_and_at_their_end_once_each(store: Store) -> None:
    now = 1_800_000_000.0
    told: list[Event] = []
    store.events.subscribe(told.append)
    await certificate(store, 1, now + 40 * DAY)
    await certificate(store, 2, now - DAY)
    watch = CertificateWatch(store.events, lambda: now)
    store.subscribe(watch, replay=True)
    assert [(event.kind, event.row) for event in told] == [(Kind.CERTIFICATE_EXPIRED, ("certTable", 2))]
    told.clear()
    now += 10 * DAY
    watch.look()
    watch.look()
    [event] = told
    assert event.kind is Kind.CERTIFICATE_EXPIRING
    assert event.text == 'certificate 1 "cert 1" expires on 2027-02-24 08:00 UTC, in 30 days'
    await commit(store, 0, {"ipsecGwNotifyExpiry": 10})
    now += 20 * DAY
    watch.look()
    now += 10 * DAY
    watch.look()
    assert [event.kind for event in told[1:]] == [Kind.CERTIFICATE_EXPIRING, Kind.CERTIFICATE_EXPIRED]
    await certificate(store, 3, now + 5 * DAY)
    assert told[-1].row == ("certTable", 3)
    watch.stop()


@pytest.mark.slow
@needs_snmptrapd
async def test_an_expired_certificate_is_told_when_its_time_comes(tmp_path: Path) -> None:
    async with receiver(tmp_path / "trapd") as trapd, gateway(tmp_path / "state") as agent:
        await agent.target(1, trapd)
        end = int(time.time()) + 6  # stored before, also by a busy machine
        await certificate(agent.agent.store, 5, end)
        await trapd.wait_for(oid("ipsecGwCertificateExpiring"))
        [told] = await trapd.wait_for(oid("ipsecGwCertificateExpired"))
        assert told.objects[oid("certDescription", 5)] == 'STRING: "cert 5"'
        assert told.objects[oid("certValidNotAfter", 5)] == f"INTEGER: {end}"
        assert TEXT in told.objects
