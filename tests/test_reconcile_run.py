"""The reconciler on a real store: what a SET says becomes so, stays so, and every row says how far it is."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.backends import reconcile
from agent.backends.engine import (
    ChildSa,
    Host,
    Ike,
    IkeSa,
    KernelEvent,
    KernelEventKind,
    Links,
    Observed,
    PacketFilter,
    SaCounters,
    SaRecord,
    Spd,
)
from agent.backends.flush import flush
from agent.backends.memory import HELD_BY_OTHERS, MemoryHost, MemoryIke, MemoryLinks, MemorySpd
from agent.backends.policies import show_selector
from agent.backends.reconcile import Reconciler
from agent.config import Settings
from agent.inspect import plan_of, stored
from agent.mib import load_schema
from agent.mib.ber import Value
from agent.plan.capabilities import CHARON
from agent.plan.links import CallRoute, VirtualLink
from agent.plan.model import Action, ApplyState, Connection, Policy, PolicyKey, Ports, Prefix, RowRef, Selector, Tunnel
from agent.plan.numbers import REQID_FIRST
from agent.plan.planner import make_plan
from agent.store.events import Event, Kind, Severity
from agent.store.hooks import AGENT, Edit
from agent.store.store import Store
from tests.xfrm_namespace import until

HERE, THERE, THERE_TOO = bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2]), bytes([192, 0, 2, 3])
APPLY = {"ipsecPeerTable": "Peer", "ipsecTrafficTable": "Traffic", "ikeProfileTable": "IkeProfile"}
ACTIVE, DESTROY = 1, 6


class Bench:
    """A store and a reconciler, on engines that may outlive both."""

    def __init__(
        self,
        folder: Path,
        spd: Spd,
        ike: Ike,
        host: Host,
        filter: PacketFilter | None = None,
        *,
        links: Links | None = None,
    ) -> None:
        self.schema = load_schema()
        self.store = Store.open(self.schema, "", folder)
        self.spd, self.ike, self.host = spd, ike, host
        self.reconciler = Reconciler(self.store, self.schema, spd, ike, host, CHARON, filter=filter, links=links)

    async def start(self) -> None:
        await self.reconciler.start()
        await self.reconciler.settled()

    async def stop(self) -> None:
        await self.reconciler.stop()
        await self.store.close()

    async def set(self, *rows: tuple[str, int, Mapping[str, Value]], wait: bool = True) -> None:
        """One SET: (table, number, columns); rows that are not there are made, `None` columns destroy."""
        edits = [
            Edit(self.schema.columns[name], number, value)
            for table, number, columns in rows
            for name, value in self._columns(table, number, columns).items()
        ]
        await self.store.commit(edits, AGENT)
        if wait:
            await self.settled()

    async def settled(self) -> None:
        """Until all that was committed is told, which is one change in a turn of the loop, and made real."""
        await until(lambda: not self.store._untold)
        await self.reconciler.settled()

    def _columns(self, table: str, number: int, columns: Mapping[str, Value]) -> Mapping[str, Value]:
        status = self.schema.tables[table].row_status
        if status is not None and number not in self.store.running.table(table) and status.name not in columns:
            return {status.name: 4, **columns}
        return columns

    def state(self, table: str, number: int) -> tuple[int, str, int]:
        """Apply state, last error, applied generation."""
        name = APPLY[table]
        row = self.store.live.table(f"ipsecGw{name}ApplyTable").row(number)
        assert row is not None
        state, text, generation = (
            row[f"ipsecGw{name}{column}"] for column in ("ApplyState", "LastError", "AppliedGeneration")
        )
        assert isinstance(state, int) and isinstance(text, bytes) and isinstance(generation, int)
        return state, text.decode(), generation


def rule(number: int, action: int = 5, following: int = 0, **columns: Value) -> tuple[str, int, dict[str, Value]]:
    """A traffic rule for 10.x.y.0/24 to anywhere; action 3 pass, 4 protect, 5 drop."""
    return (
        "ipsecTrafficTable",
        number,
        {
            "ipsecTrProto": 255,
            "ipsecTrLocalAddress": bytes([10, number >> 8 & 255, number & 255, 0]),
            "ipsecTrLocalMaskLen": 24,
            "ipsecTrAction": action,
            "ipsecTrNextIndex": following,
            **columns,
        },
    )


def peer(number: int, head: int, address: bytes = b"192.0.2.2") -> tuple[str, int, dict[str, Value]]:
    return (
        "ipsecPeerTable",
        number,
        {
            "ipsecPeerTrafficList": head,
            "ipsecPeerDynamicAddress": address,
            "ipsecPeerPreSharedKey": b"a long enough secret",
        },
    )


ON = ("ipsecGlobals", 0, {"ipsecGlobEnabled": 1})


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    host = MemoryHost(own=[HERE])
    bench = Bench(tmp_path, MemorySpd(), MemoryIke(), host)
    await bench.start()
    await bench.set(ON)
    yield bench
    await bench.stop()


def memory(bench: Bench) -> tuple[MemorySpd, MemoryIke]:
    assert isinstance(bench.spd, MemorySpd) and isinstance(bench.ike, MemoryIke)
    return bench.spd, bench.ike


def wanted(bench: Bench) -> dict[PolicyKey, tuple[int, Action, Any]]:
    assert bench.reconciler.plan is not None
    return {key: (p.priority, p.action, p.templates) for key, p in bench.reconciler.plan.policies.items()}


def held(observed: Mapping[PolicyKey, Observed]) -> dict[PolicyKey, tuple[int, Action, Any]]:
    return {key: (o.priority, o.action, o.templates) for key, o in observed.items() if o.ours}


async def test_a_rule_is_pending_with_the_reply_and_then_applied(bench: Bench) -> None:
    spd, _ = memory(bench)
    await bench.set(rule(1), ("ipsecGlobalsContinued", 0, {"ipsecGlobContPreIpsecRules": 1}), wait=False)
    await asyncio.sleep(0)  # the store tells its subscribers in the next turn
    assert bench.state("ipsecTrafficTable", 1)[0] == ApplyState.PENDING
    await bench.reconciler.settled()
    assert bench.state("ipsecTrafficTable", 1) == (ApplyState.APPLIED, "", bench.store.running.generation)
    assert held(spd.policies) == wanted(bench)
    assert any(policy.row == RowRef("ipsecTrafficTable", 1) for policy in bench.reconciler.plan.policies.values())  # type: ignore[union-attr]


async def test_a_removed_row_has_no_state_left(bench: Bench) -> None:
    await bench.set(rule(1))
    assert bench.state("ipsecTrafficTable", 1)[0] == ApplyState.UNUSED
    await bench.set(("ipsecTrafficTable", 1, {"ipsecGwTrafficRowStatus": DESTROY}))
    assert 1 not in bench.store.live.table("ipsecGwTrafficApplyTable")


async def test_a_row_out_of_service_says_so(bench: Bench) -> None:
    await bench.set(rule(1), ("ipsecTrafficTable", 2, {"ipsecTrProto": 255, "ipsecGwTrafficRowStatus": 5}))
    assert bench.state("ipsecTrafficTable", 2)[:2] == (ApplyState.UNUSED, "the row is not in service")


async def test_rules_behind_one_that_is_out_of_service_go_on(bench: Bench) -> None:
    """Else what they protect would leave in plain while an operator edits the one before."""
    spd, ike = memory(bench)
    status = "ipsecGwTrafficRowStatus"

    def protecting() -> set[int]:
        return {held.key.selector.source.address[2] for held in spd.policies.values() if held.templates} - {0}

    await bench.set(rule(1, 4, 2), rule(2, 4, 3), rule(3, 4), rule(4, 4), peer(1, 1))
    assert protecting() == {1, 2, 3}
    await bench.set(("ipsecTrafficTable", 2, {status: 2}))
    assert protecting() == {1, 3}
    assert [child.rule for child in ike.connections["peer-1"].children] == [1, 3]  # type: ignore[union-attr]
    assert bench.state("ipsecTrafficTable", 2)[:2] == (ApplyState.UNUSED, "the row is not in service")
    await bench.set(("ipsecTrafficTable", 2, {"ipsecTrNextIndex": 4}))
    assert protecting() == {1, 4}
    await bench.set(("ipsecTrafficTable", 1, {status: 2}))
    assert protecting() == {4}
    await bench.set(("ipsecTrafficTable", 1, {status: ACTIVE}), ("ipsecTrafficTable", 2, {status: ACTIVE}))
    assert protecting() == {1, 2, 4}
    assert wanted(bench) == held(spd.policies)


async def test_a_peer_is_loaded_and_its_rule_protects(bench: Bench) -> None:
    spd, ike = memory(bench)
    await bench.set(rule(1, 4), peer(7, 1))
    assert list(ike.connections) == ["peer-7", "peer-7-r"] and list(ike.secrets) == ["psk-7"]
    templates = {o.templates[0].reqid for o in spd.policies.values() if o.templates}
    assert templates == set(bench.store.numbers("reqid").values()) and len(templates) == 1
    for table, number in (("ipsecPeerTable", 7), ("ipsecTrafficTable", 1)):
        assert bench.state(table, number)[0] == ApplyState.APPLIED, bench.state(table, number)


async def test_a_connection_that_is_refused_fails_peer_and_rule(bench: Bench) -> None:
    _, ike = memory(bench)
    ike.refuse["peer-7"] = "unknown proposal"
    await bench.set(rule(1, 4), peer(7, 1))
    assert bench.state("ipsecPeerTable", 7)[:2] == (ApplyState.FAILED, "unknown proposal")
    assert bench.state("ipsecTrafficTable", 1)[:2] == (ApplyState.FAILED, "unknown proposal")
    ike.refuse.clear()
    await until(lambda: bench.state("ipsecPeerTable", 7)[0] == ApplyState.APPLIED)  # by itself, after about a second


async def test_deleting_a_peer_removes_what_is_its_own_and_nothing_else(bench: Bench) -> None:
    spd, ike = memory(bench)
    await bench.set(rule(1, 4), rule(2, 4), peer(7, 1), peer(8, 2, b"192.0.2.3"))
    before = dict(spd.policies)
    ike.calls.clear()
    await bench.set(("ipsecPeerTable", 7, {"ipsecGwPeerRowStatus": DESTROY}))
    assert set(ike.calls) == {
        ("unload-secret", "psk-7"),
        *(("unload", name) for name in ("peer-7", "peer-7-r")),
        *(("terminate", name, "", "") for name in ("peer-7", "peer-7-r")),
    }
    assert held(spd.policies) == wanted(bench)
    gone = {key for key in before if key not in spd.policies}
    assert gone and all(
        bytes([10, 0, 1, 0]) in (key.selector.source.address, key.selector.destination.address)
        for key in gone
        if key.selector.protocol == 0
    )
    assert set(bench.store.numbers("reqid")) == {"peer-8-rule-2"}
    assert bench.state("ipsecTrafficTable", 1)[0] == ApplyState.UNUSED


async def test_a_change_elsewhere_does_not_touch_the_daemon(bench: Bench) -> None:
    _, ike = memory(bench)
    await bench.set(rule(1, 4), peer(7, 1))
    ike.calls.clear()
    await bench.set(rule(3), ("ipsecGlobalsContinued", 0, {"ipsecGlobContPostIpsecRules": 3}))
    await bench.set(("ipsecPeerTable", 7, {"ipsecPeerDescription": b"Branch"}))
    assert ike.calls == []


async def test_a_selector_held_by_others_fails_the_row_until_it_is_free(bench: Bench) -> None:
    spd, _ = memory(bench)
    await bench.set(rule(1), rule(2), ("ipsecGlobalsContinued", 0, {"ipsecGlobContPreIpsecRules": 1}))
    of_rule = [key for key, policy in bench.reconciler.plan.policies.items() if policy.row.number == 1]  # type: ignore[union-attr]
    key = next(key for key in of_rule if key.selector.source.address == bytes([10, 0, 1, 0]))
    spd.tamper(key, Observed(key, 9, 5, Action.ALLOW, (), ours=False))
    await bench.reconciler.settled()
    assert bench.state("ipsecTrafficTable", 1)[:2] == (ApplyState.FAILED, HELD_BY_OTHERS)
    assert spd.policies[key].policy_index == 9
    spd.tamper(key, None)
    await bench.reconciler.settled()
    assert bench.state("ipsecTrafficTable", 1)[0] == ApplyState.APPLIED and spd.policies[key].ours


async def test_drift_is_repaired_by_the_announcement(bench: Bench) -> None:
    spd, _ = memory(bench)
    await bench.set(rule(1), ("ipsecGlobalsContinued", 0, {"ipsecGlobContPreIpsecRules": 1}))
    key = next(iter(bench.reconciler.plan.policies))  # type: ignore[union-attr]
    spd.tamper(key, None)
    await bench.reconciler.settled()
    spd.tamper(key, spd.policies[key]._replace(priority=1))
    await bench.reconciler.settled()
    stray = PolicyKey(key.direction, Selector(Prefix(bytes([9, 9, 9, 0]), 24), Prefix(bytes(4), 0)))
    spd.tamper(stray, Observed(stray, spd.policies[key].policy_index + 8000, 5, Action.ALLOW, (), ours=True))
    await bench.reconciler.settled()
    assert held(spd.policies) == wanted(bench)


async def test_drift_without_an_announcement_is_repaired_by_a_new_look(bench: Bench) -> None:
    spd, _ = memory(bench)
    await bench.set(rule(1), ("ipsecGlobalsContinued", 0, {"ipsecGlobContPreIpsecRules": 1}))
    spd.policies.clear()
    spd.emit(KernelEvent(KernelEventKind.OVERRUN))
    await bench.reconciler.settled()
    assert held(spd.policies) == wanted(bench) and spd.policies


async def test_every_minute_everything_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "EVERYTHING_SECONDS", 0.05)
    spd, ike = MemorySpd(), MemoryIke()
    bench = Bench(tmp_path, spd, ike, MemoryHost(own=[HERE]))
    await bench.start()
    await bench.set(ON, rule(1, 4), peer(7, 1))
    spd.policies.clear()  # unseen by anybody
    ike.connections.clear()
    await until(lambda: spd.policies and ike.connections)
    await bench.reconciler.settled()
    assert held(spd.policies) == wanted(bench) and set(ike.connections) == {"peer-7", "peer-7-r"}
    await bench.stop()


async def test_templates_follow_a_tunnel_and_the_plan_goes_back_when_it_ends(bench: Bench) -> None:
    spd, ike = memory(bench)
    await bench.set(rule(1, 4), peer(7, 1))
    plain = wanted(bench)
    ike.calls.clear()
    spd.batches.clear()
    bench.reconciler.environment_changed({"peer-7-rule-1": Tunnel("peer-7-rule-1", HERE, THERE_TOO, 1, 50)})
    await bench.reconciler.settled()
    assert any(o.templates and o.templates[0].destination == THERE_TOO for o in spd.policies.values())
    assert len(spd.batches) == 1 and spd.batches[0] <= 10 and ike.calls == []
    bench.reconciler.environment_changed({"peer-7-rule-1": None})
    await bench.reconciler.settled()
    assert held(spd.policies) == plain


async def test_switching_off_removes_everything_of_ours(bench: Bench) -> None:
    spd, ike = memory(bench)
    await bench.set(rule(1, 4), peer(7, 1))
    foreign = PolicyKey(next(iter(spd.policies)).direction, Selector(Prefix(bytes(4), 0), Prefix(bytes(4), 0), 99))
    spd.policies[foreign] = Observed(foreign, 8, 0, Action.ALLOW, (), ours=False)
    await bench.set(("ipsecGlobals", 0, {"ipsecGlobEnabled": 2}))
    assert set(spd.policies) == {foreign} and not ike.connections and not ike.secrets
    assert bench.state("ipsecPeerTable", 7)[0] == ApplyState.UNUSED
    assert "switched off" in bench.state("ipsecTrafficTable", 1)[1]
    await bench.set(ON)
    assert bench.state("ipsecPeerTable", 7)[0] == ApplyState.APPLIED and "peer-7" in ike.connections


async def test_profiles_say_whether_they_are_used(bench: Bench) -> None:
    await bench.set(("ikeProposalTable", 1, {"ikePropEncAlg": 7, "ikePropHashAlg": 7}))
    await bench.set(("ikeProfileTable", 5, {"ikePrfProposal": 1}))
    assert bench.state("ikeProfileTable", 5)[0] == ApplyState.UNUSED
    await bench.set(rule(1, 4), peer(7, 1))
    await bench.set(("ipsecPeerTable", 7, {"ipsecPeerIkeProfile": 5}))
    assert bench.state("ikeProfileTable", 5)[0] == ApplyState.APPLIED


async def test_stopping_leaves_all_and_the_next_agent_finds_nothing_to_do(tmp_path: Path) -> None:
    spd, ike, host = MemorySpd(), MemoryIke(), MemoryHost(own=[HERE])
    first = Bench(tmp_path, spd, ike, host)
    await first.start()
    await first.set(ON, rule(1, 4), rule(2, 3), peer(7, 1))
    ike.sas = [
        IkeSa(
            "peer-7",
            1,
            1,
            "ESTABLISHED",
            HERE,
            THERE,
            children=(ChildSa("peer-7-rule-1", 1, 65536, "INSTALLED", 1, 50, b"\0\0\0\1", b"\0\0\0\2"),),
        )
    ]
    reqids = first.store.numbers("reqid")
    await first.stop()
    policies = dict(spd.policies)
    assert policies and ike.connections
    ike.calls.clear()
    spd.batches.clear()
    second = Bench(tmp_path, spd, ike, host)
    await second.start()
    assert sum(spd.batches) == 0 and spd.policies == policies
    assert [call for call in ike.calls if call[0] != "load-secret"] == []  # what a secret was, no daemon tells
    assert second.store.numbers("reqid") == reqids
    assert second.state("ipsecPeerTable", 7)[0] == ApplyState.APPLIED
    await second.stop()


async def test_the_next_agent_goes_on_with_the_backup_of_a_peer_that_is_still_lost(tmp_path: Path) -> None:
    """The first plan of the next agent has the same policies as the last of the one before: no packet is lost, and
    the plan that is made without an agent, for `explain` and before the network, agrees."""
    backed = {"ipsecPeerStartMode": 2, "ipsecPeerIfStateMode": 2, "ipsecPeerSecondaryPeerIndex": 8}

    def towards(held: Mapping[PolicyKey, Observed]) -> set[bytes]:
        found = (policy.templates[0].destination for policy in held.values() if policy.templates)
        return {address for address in found if address != HERE}

    spd, ike, host = MemorySpd(), MemoryIke(), MemoryHost(own=[HERE])
    first = Bench(tmp_path, spd, ike, host)
    await first.start()
    net = {"ipsecTrLocalAddress": bytes([10, 0, 1, 0])}
    await first.set(ON, rule(1, 4, **net), rule(2, 4, **net), peer(8, 2, b"192.0.2.3"), peer(7, 1))
    await first.set(("ipsecPeerTable", 7, backed))
    assert towards(spd.policies) == {THERE}
    first.store.events.tell(Event(Kind.NEGOTIATION_FAILED, Severity.WARNING, "no answer", 7))
    await first.reconciler.settled()
    assert towards(spd.policies) == {THERE_TOO}
    await first.stop()
    policies = dict(spd.policies)
    spd.batches.clear()

    plan, _ = await plan_of(Settings(state=tmp_path), stored(Settings(state=tmp_path)))
    assert plan.takeovers == {7: 8}
    second = Bench(tmp_path, spd, ike, host)
    await second.start()
    assert sum(spd.batches) == 0 and spd.policies == policies and second.reconciler.plan is not None
    assert second.reconciler.plan.takeovers == {7: 8}
    second.store.events.tell(Event(Kind.PEER_UP, Severity.NOTICE, "", 7))
    await until(lambda: towards(spd.policies) == {THERE})
    await second.reconciler.settled()
    await second.stop()
    third = Bench(tmp_path, spd, ike, host)
    await third.start()
    assert towards(spd.policies) == {THERE} and not third.store.numbers("takeover")
    await third.stop()


async def test_flush_removes_ours_and_nothing_else(bench: Bench) -> None:
    spd, ike = memory(bench)
    await bench.set(rule(1, 4), peer(7, 1))
    foreign = PolicyKey(next(iter(spd.policies)).direction, Selector(Prefix(bytes(4), 0), Prefix(bytes(4), 0), 99))
    spd.policies[foreign] = Observed(foreign, 8, 0, Action.ALLOW, (), ours=False)
    ike.connections["other"] = Connection("other", 7, ike.connections["peer-7"].settings, ())
    ours, others = (
        SaRecord(bytes(4), bytes(4), 50, bytes([0, 0, 1, n]), reqid, 1, SaCounters(0, 0, 0, 0))
        for n, reqid in enumerate((REQID_FIRST, 5))
    )
    spd.kernel_sas = [ours, others]  # a charon that was killed left ours behind
    count = sum(o.ours for o in spd.policies.values())
    assert await flush(spd, ike) == (count, 2)
    assert spd.kernel_sas == [others]
    assert set(spd.policies) == {foreign} and list(ike.connections) == ["other"] and not ike.secrets


async def test_a_defect_in_planning_is_survived(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    spd, _ = memory(bench)
    monkeypatch.setattr(reconcile, "AFTER_A_DEFECT_SECONDS", 0.05)

    failed: list[None] = []

    def broken(*_: object) -> None:
        failed.append(None)
        raise RuntimeError("a defect")

    monkeypatch.setattr(reconcile, "make_plan", broken)
    await bench.set(rule(1), ("ipsecGlobalsContinued", 0, {"ipsecGlobContPreIpsecRules": 1}), wait=False)
    await until(lambda: failed)
    monkeypatch.setattr(reconcile, "make_plan", make_plan)
    await until(lambda: bench.state("ipsecTrafficTable", 1)[0] == ApplyState.APPLIED)
    assert held(spd.policies) == wanted(bench)


async def test_a_previewed_plan_is_not_made_twice(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    spd, _ = memory(bench)
    made: list[int] = []

    def counting(configuration: Any, *rest: Any) -> Any:
        made.append(configuration.generation)
        return make_plan(configuration, *rest)

    monkeypatch.setattr(reconcile, "make_plan", counting)
    bench.store.checks.append(lambda before, after, rows, edits, origin: None)
    previewed: list[Any] = []

    def check(before: Any, after: Any, rows: Any, edits: Any, origin: Any) -> None:
        previewed.append(bench.reconciler.preview(after))

    bench.store.checks.append(check)
    edits = [
        Edit(bench.schema.columns[name], 1, value)
        for name, value in bench._columns("ipsecTrafficTable", 1, rule(1)[2]).items()
    ]
    await bench.store.commit(edits, replace(AGENT, kind="snmp"))
    await bench.settled()
    assert len(previewed) == 1 and bench.reconciler.plan is previewed[0] and len(made) == 1
    assert held(spd.policies) == wanted(bench)


async def test_many_commits_at_once_end_where_one_would(bench: Bench) -> None:
    spd, _ = memory(bench)
    await bench.set(rule(1), ("ipsecGlobalsContinued", 0, {"ipsecGlobContPreIpsecRules": 1}))
    await asyncio.gather(
        *(bench.set(("ipsecTrafficTable", 1, {"ipsecTrAction": 3 + 2 * (n % 2)}), wait=False) for n in range(50)),
        *(bench.set(rule(n), wait=False) for n in range(10, 40)),
    )
    await bench.settled()
    assert held(spd.policies) == wanted(bench)
    assert all(bench.state("ipsecTrafficTable", n)[0] != ApplyState.PENDING for n in [1, *range(10, 40)])


@pytest.mark.parametrize("seed", range(6))
async def test_any_walk_through_configurations_ends_where_a_fresh_plan_would(bench: Bench, seed: int) -> None:
    spd, ike = memory(bench)
    dice = random.Random(seed)
    for _ in range(25):
        await bench.set(*_step(dice, bench), wait=dice.random() < 0.5)
        if dice.random() < 0.3:
            tunnel = Tunnel("peer-1-rule-1", HERE, dice.choice([THERE, THERE_TOO]), 1, 50)
            bench.reconciler.environment_changed({"peer-1-rule-1": dice.choice([tunnel, None])})
    await bench.settled()
    plan = make_plan(bench.store.running, bench.reconciler.environment)
    assert {key: held[2:4] for key, held in spd.policies.items()} and set(spd.policies) == set(plan.policies)
    for key, policy in plan.policies.items():
        assert (spd.policies[key].action, spd.policies[key].templates) == (policy.action, policy.templates)
    assert set(ike.connections) == set(plan.connections) and set(ike.secrets) == set(plan.secrets)
    for name, connection in plan.connections.items():
        assert ike.connections[name].settings == connection.settings
    for table in ("ipsecPeerTable", "ipsecTrafficTable"):
        for number in bench.store.running.table(table).numbers():
            assert bench.state(table, number)[0] != ApplyState.PENDING
    assert bench.store.numbers("reqid") == dict(plan.reqids)


def _step(dice: random.Random, bench: Bench) -> list[tuple[str, int, Mapping[str, Value]]]:
    number = dice.randint(1, 8)
    there = number in bench.store.running.table("ipsecTrafficTable")
    roll = dice.random()
    if roll < 0.5:
        if there and dice.random() < 0.3:
            return [("ipsecTrafficTable", number, {"ipsecGwTrafficRowStatus": DESTROY})]
        following = dice.choice(
            [0, *(n for n in range(number + 1, 9) if n in bench.store.running.table("ipsecTrafficTable"))]
        )
        return [
            rule(
                number,
                dice.choice([3, 4, 5]),
                following,
                ipsecTrRemoteAddress=bytes([10, 9, 0, 0]),
                ipsecTrRemoteMaskLen=16,
            )
        ]
    if roll < 0.8:
        which = dice.randint(1, 3)
        if which in bench.store.running.table("ipsecPeerTable") and dice.random() < 0.3:
            return [("ipsecPeerTable", which, {"ipsecGwPeerRowStatus": DESTROY})]
        head = number if there else 0
        return [peer(which, head, dice.choice([b"192.0.2.2", b"192.0.2.3", b""]))]
    return [
        (
            "ipsecGlobalsContinued",
            0,
            {
                dice.choice(["ipsecGlobContPreIpsecRules", "ipsecGlobContPostIpsecRules"]): number if there else 0,
                "ipsecGlobContDefaultRule": dice.choice([1, 2]),
            },
        )
    ]


def test_log_lines_name_row_and_selector() -> None:
    selector = Selector(Prefix(bytes([10, 0, 0, 0]), 8), Prefix(bytes(16), 0), 17, Ports(0, 0), Ports(4096, 0xF000))
    assert show_selector(selector) == "10.0.0.0/8 > ::/0 proto 17 port 4096/0xf000"


async def test_an_interface_and_its_routes_are_there_before_the_rules_it_replaces_go(tmp_path: Path) -> None:
    """And go after the rules that replace it are there: in between, packets would leave in plain."""
    steps: list[tuple[str, bool, bool]] = []

    class Slow(MemoryLinks):
        def want(self, links: Mapping[int, VirtualLink], calls: Iterable[CallRoute], *, removing: bool = True) -> None:
            self.idle.clear()
            self.pending = getattr(self, "pending", 0) + 1
            asyncio.get_running_loop().call_later(0.05, self._make, dict(links), tuple(calls), removing)

        def _make(self, links: Mapping[int, VirtualLink], calls: Iterable[CallRoute], removing: bool) -> None:
            super().want(links, calls, removing=removing)
            self.pending -= 1
            if not self.pending:
                self.idle.set()
            note("links")

    class Noting(MemorySpd):
        async def apply(self, remove: Sequence[PolicyKey], install: Sequence[Policy]) -> Mapping[PolicyKey, str]:
            failed = await super().apply(remove, install)
            note("policies")
            return failed

    links, spd = Slow(), Noting()

    def note(what: str) -> None:
        rules = any(o.templates and not o.key.scope.if_id for o in spd.policies.values())
        steps.append((what, 1 in links.links, rules))

    bench = Bench(tmp_path, spd, MemoryIke(), MemoryHost(own=[HERE]), links=links)
    await bench.start()
    await bench.set(ON, rule(1, action=4), peer(1, 1))
    for setting, there in ((2, True), (1, False)):
        steps.clear()
        await bench.set(("ipsecPeerTable", 1, {"ipsecPeerVirtualInterface": setting}))
        await until(lambda there=there: (1 in links.links) is there)  # type: ignore[misc]
        assert steps and all(link or protects for _, link, protects in steps), steps
    await bench.stop()
