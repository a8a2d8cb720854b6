"""Row states, what uses what, and the environment: the parts of reconciling that only remember and tell."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from agent.backends import surroundings as surroundings_module
from agent.backends.engine import EngineError
from agent.backends.memory import MemoryHost
from agent.backends.rowstate import ApplyTables, Ledger, RowState, verdict_or
from agent.backends.surroundings import Surroundings
from agent.backends.usage import Usage
from agent.mib import load_schema
from agent.mib.ber import Value
from agent.plan.model import ApplyState, Capabilities, RowRef, Tunnel, Verdict
from agent.store.events import display
from agent.store.hooks import RowChange
from agent.store.live import Live
from agent.store.snapshot import Configuration, default_cells
from tests.xfrm_namespace import until

PEER, RULE = RowRef("ipsecPeerTable", 1), RowRef("ipsecTrafficTable", 2)


def changed(
    configuration: Configuration, table: str, number: int, values: Mapping[str, Value] | None
) -> tuple[Configuration, RowChange]:
    """A row set (others of its columns at their defaults) or removed, as a commit would."""
    snapshot = configuration.table(table)
    cells = None
    if values is not None:
        row = list(default_cells(snapshot.table, number))
        if snapshot.table.row_status is not None:
            values = {snapshot.table.row_status.name: 1, **values}
        for name, value in values.items():
            column = snapshot.table.by_name[name]
            row[column.position] = column.encode(value)
        cells = tuple(row)
    after = configuration.replaced(configuration.generation + 1, {table: snapshot.replaced({number: cells})})
    change = RowChange(
        table, number, configuration.row(table, number), after.row(table, number), frozenset(values or ())
    )
    return after, change


# ---- ledger -----------------------------------------------------------------------------------


def test_a_row_waits_until_its_last_item_is_done_and_a_failure_outweighs_waiting() -> None:
    ledger = Ledger()
    ledger.wait("connection:peer-1", (PEER, RULE), "waiting for the IKE daemon")
    ledger.wait("secret:psk-1", (PEER,))
    assert ledger.of(PEER) == (ApplyState.PENDING, "waiting for the IKE daemon")
    ledger.fail("secret:psk-1", (PEER,), "refused")
    assert ledger.of(PEER) == (ApplyState.FAILED, "refused")
    assert ledger.of(RULE) == (ApplyState.PENDING, "waiting for the IKE daemon")
    ledger.done("secret:psk-1")
    assert ledger.take_touched() == {PEER, RULE} and ledger.take_touched() == set()
    ledger.done("connection:peer-1")
    assert ledger.of(PEER) is None and ledger.of(RULE) is None and len(ledger) == 0
    assert ledger.take_touched() == {PEER, RULE}


def test_an_item_that_moves_to_another_row_leaves_the_old_one() -> None:
    ledger = Ledger()
    ledger.fail("policy", (PEER,), "held")
    ledger.fail("policy", (RULE,), "held")
    assert ledger.of(PEER) is None and ledger.of(RULE) == (ApplyState.FAILED, "held")


def test_what_the_plan_rules_out_stays_so_and_warnings_show_once_applied() -> None:
    failed = (ApplyState.FAILED, "held")
    assert verdict_or(Verdict(ApplyState.SHADOWED, "by 7"), failed) == (ApplyState.SHADOWED, "by 7")
    assert verdict_or(Verdict(ApplyState.APPLIED, "clamped"), failed) == failed
    assert verdict_or(Verdict(ApplyState.APPLIED, "clamped"), None) == (ApplyState.APPLIED, "clamped")
    assert verdict_or(None, None) == (ApplyState.APPLIED, "")


def test_a_last_error_fits_a_display_string() -> None:
    assert len(display("ü" * 200)) == 254 and display("ü" * 200).decode()


# ---- tables -----------------------------------------------------------------------------------


def test_states_appear_in_the_apply_tables() -> None:
    schema = load_schema()
    live = Live(schema)
    tables = ApplyTables(schema, live)
    tables.publish_whole("ipsecPeerTable", range(1, 1001), lambda ref: RowState(ApplyState.APPLIED, "", 7))
    snapshot = live.table("ipsecGwPeerApplyTable")
    assert len(snapshot) == 1000
    row = snapshot.row(500)
    assert row is not None and row["ipsecGwPeerApplyState"] == 2 and row["ipsecGwPeerAppliedGeneration"] == 7
    tables.publish(
        [(RowRef("ipsecPeerTable", 500), RowState(ApplyState.FAILED, "no", None)), (RowRef("ipsecPeerTable", 1), None)]
    )
    row = live.table("ipsecGwPeerApplyTable").row(500)
    assert row is not None
    assert (row["ipsecGwPeerApplyState"], row["ipsecGwPeerLastError"], row["ipsecGwPeerAppliedGeneration"]) == (
        3,
        b"no",
        7,
    )
    assert 1 not in live.table("ipsecGwPeerApplyTable")


@pytest.mark.parametrize("table", ["ipsecTrafficTable", "ikeProposalTable", "ikeProfileTable", "ipsecProposalTable"])
def test_every_configured_table_has_its_apply_table(table: str) -> None:
    schema = load_schema()
    live = Live(schema)
    ApplyTables(schema, live).publish([(RowRef(table, 3), RowState(ApplyState.UNUSED, "x", 1))])


# ---- usage ------------------------------------------------------------------------------------


def test_profiles_and_proposals_are_in_use_while_something_leads_to_them() -> None:
    schema = load_schema()
    configuration = Configuration.empty(schema)
    usage = Usage(schema)
    usage.rebuild(configuration)
    assert usage.used == frozenset()

    def step(table: str, number: int, values: Mapping[str, Value] | None) -> frozenset[RowRef]:
        nonlocal configuration
        configuration, change = changed(configuration, table, number, values)
        return usage.moved(configuration, [change])

    proposals = RowRef("ikeProposalTable", 10), RowRef("ikeProposalTable", 11)
    profile = RowRef("ikeProfileTable", 5)
    assert step("ikeProposalTable", 10, {"ikePropNextChoice": 11}) == frozenset()
    assert step("ikeProposalTable", 11, {}) == frozenset()
    assert step("ikeProfileTable", 5, {"ikePrfProposal": 10}) == frozenset()
    assert step("ipsecPeerTable", 1, {"ipsecPeerIkeProfile": 5}) == {profile, *proposals}
    assert step("ipsecPeerTable", 2, {"ipsecPeerIkeProfile": 5}) == frozenset()
    assert step("ipsecPeerTable", 1, None) == frozenset()
    assert step("ikeProposalTable", 10, {"ikePropNextChoice": 0}) == {proposals[1]}
    assert step("ipsecPeerTable", 2, {"ipsecPeerIkeProfile": 0}) == {profile, proposals[0]}
    assert step("ipsecGlobals", 0, {"ipsecGlobIkeProfile": 5}) == {profile, proposals[0]}
    assert step("ipsecTrafficTable", 9, {"ipsecTrProfile": 4}) == frozenset()  # there is no such row yet
    assert step("ipsecProfileTable", 4, {}) == {RowRef("ipsecProfileTable", 4)}
    assert step("ikeProposalTable", 10, {"ikePropNextChoice": 11}) == {proposals[1]}
    idle = {"ikePropNextChoice": 11, "ipsecGwIkeProposalRowStatus": 2}
    assert step("ikeProposalTable", 10, idle) == frozenset()  # the chain goes on behind it
    rebuilt = Usage(schema)
    rebuilt.rebuild(configuration)
    assert rebuilt.used == usage.used


# ---- environment ------------------------------------------------------------------------------

HERE, THERE, ELSEWHERE = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2]), bytes([10, 0, 0, 3])


async def test_addresses_and_names_of_peers_get_their_source_and_follow_the_host() -> None:
    configuration = Configuration.empty(load_schema())
    host = MemoryHost(own=[HERE], sources={THERE: HERE, ELSEWHERE: HERE}, names={"gw.example": (ELSEWHERE,)})
    told: list[None] = []
    surroundings = Surroundings(host, Capabilities(), lambda: told.append(None))
    for number, text in enumerate([b"10.0.0.2", b"gw.example", b""], 1):
        configuration, change = changed(configuration, "ipsecPeerTable", number, {"ipsecPeerDynamicAddress": text})
    await surroundings.rebuild(configuration)
    environment = surroundings.environment({})
    assert environment.own_addresses == {HERE} and environment.names == {"gw.example": (ELSEWHERE,)}
    assert environment.sources == {THERE: HERE, ELSEWHERE: HERE}

    other = bytes([10, 0, 0, 9])
    host.own, host.sources[THERE] = frozenset({HERE, other}), other
    told.clear()
    host.changed()
    await until(lambda: told)
    assert surroundings.environment({}).sources[THERE] == other
    assert surroundings.environment({}).own_addresses == {HERE, other}
    assert environment.sources[THERE] == HERE  # what an older plan saw has not moved under it

    host.names["gw.example"] = (THERE,)
    told.clear()
    surroundings.resolve_again()
    await until(lambda: told)
    assert surroundings.environment({}).names == {"gw.example": (THERE,)}

    host.names.clear()  # a resolver that is away is no news
    told.clear()
    surroundings.resolve_again()
    await asyncio.sleep(0.02)
    assert not told and surroundings.environment({}).names == {"gw.example": (THERE,)}

    configuration, change = changed(configuration, "ipsecPeerTable", 4, {"ipsecPeerDynamicAddress": b"10.0.0.77"})
    surroundings.moved([change])
    assert surroundings.environment({}).sources[bytes([10, 0, 0, 77])] == HERE
    await surroundings.stop()


async def test_what_the_host_could_not_tell_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel announces a change once."""
    monkeypatch.setattr(surroundings_module, "ROUTES_SECONDS", 0.01)

    class Short(MemoryHost):
        times = 0

        def own_addresses(self) -> frozenset[bytes]:
            if self.times:
                self.times -= 1
                raise EngineError("netlink: Too many open files")
            return super().own_addresses()

    host = Short(own=[HERE])
    surroundings = Surroundings(host, Capabilities(), lambda: None)
    await surroundings.rebuild(Configuration.empty(load_schema()))
    host.own, host.times = frozenset({ELSEWHERE}), 2
    host.changed()
    await until(lambda: surroundings.environment({}).own_addresses == {ELSEWHERE})
    await surroundings.stop()


async def test_a_name_that_does_not_resolve_is_no_longer_being_looked_up() -> None:
    told: list[None] = []
    host = MemoryHost(own=[HERE])
    surroundings = Surroundings(host, Capabilities(), lambda: told.append(None))
    configuration, made = changed(
        Configuration.empty(load_schema()), "ipsecPeerTable", 1, {"ipsecPeerDynamicAddress": b"gw.example"}
    )
    await surroundings.rebuild(configuration)
    assert told and surroundings.environment({}).names == {"gw.example": ()}
    told.clear()
    surroundings.resolve_again()
    await asyncio.sleep(0.02)
    assert not told
    surroundings.moved([RowChange(made.table, made.number, made.after, None, made.columns)])
    host.names["gw.example"] = (THERE,)
    surroundings.moved([made])  # made again, it is looked up at once
    await until(lambda: told)
    assert surroundings.environment({}).names == {"gw.example": (THERE,)}
    await surroundings.stop()


async def test_a_peer_made_again_gets_the_source_of_now() -> None:
    configuration = Configuration.empty(load_schema())
    host = MemoryHost(own=[HERE], sources={THERE: HERE})
    surroundings = Surroundings(host, Capabilities(), lambda: None)
    with_peer, made = changed(configuration, "ipsecPeerTable", 1, {"ipsecPeerDynamicAddress": b"10.0.0.2"})
    await surroundings.rebuild(with_peer)
    surroundings.moved([RowChange(made.table, made.number, made.after, None, made.columns)])
    assert THERE not in surroundings.environment({}).sources
    host.sources[THERE] = ELSEWHERE
    surroundings.foresee([made])
    host.sources[THERE] = HERE  # it was refused; meanwhile the route is another one
    surroundings.moved([made])
    assert surroundings.environment({}).sources == {THERE: HERE}
    await surroundings.stop()


async def test_many_changes_of_routes_are_followed_by_one_task(monkeypatch: pytest.MonkeyPatch) -> None:
    host = MemoryHost(own=[HERE], sources={THERE: HERE})
    told: list[None] = []
    surroundings = Surroundings(host, Capabilities(), lambda: told.append(None))
    configuration, _ = changed(
        Configuration.empty(load_schema()), "ipsecPeerTable", 1, {"ipsecPeerDynamicAddress": b"10.0.0.2"}
    )
    await surroundings.rebuild(configuration)
    asked: list[bytes] = []
    monkeypatch.setattr(host, "source_for", lambda address: asked.append(address) or ELSEWHERE)
    for _ in range(30):
        host.changed()
    await until(lambda: told)
    await asyncio.sleep(0.05)
    assert asked.count(THERE) == 1 and surroundings.environment({}).sources == {THERE: ELSEWHERE}
    await surroundings.stop()


async def test_only_tunnels_that_differ_are_news() -> None:
    told: list[None] = []
    surroundings = Surroundings(MemoryHost(), Capabilities(), lambda: told.append(None))
    tunnel = Tunnel("peer-1-rule-2", HERE, THERE, 1, 50)
    surroundings.tunnels({"peer-1-rule-2": tunnel})
    surroundings.tunnels({"peer-1-rule-2": tunnel, "peer-1-rule-3": None})
    assert len(told) == 1 and surroundings.environment({}).tunnels == {"peer-1-rule-2": tunnel}
    surroundings.tunnels({"peer-1-rule-2": None})
    assert len(told) == 2 and surroundings.environment({}).tunnels == {}
    await surroundings.stop()
