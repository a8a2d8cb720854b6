"""The daemon's side of reconciling: what is loaded, unloaded and ended, and what is left alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from agent.backends import connections as connections_module
from agent.backends.backoff import Backoff
from agent.backends.connections import CREDENTIALS, DAEMON, WAITING, Connections, Wanted
from agent.backends.engine import ChildSa, EngineError, IkeEvent, IkeEventKind, IkeSa, IkeState, SaCounters, SaRecord
from agent.backends.leftovers import Leftovers, unlisted
from agent.backends.memory import MemoryIke, MemorySpd
from agent.backends.rowstate import Ledger
from agent.plan.daemon import USUAL
from agent.plan.model import (
    ApplyState,
    Child,
    Connection,
    Credential,
    CredentialKind,
    RowRef,
    Secret,
    Template,
    ViciValue,
)
from tests.xfrm_namespace import until

PEER = RowRef("ipsecPeerTable", 1)


def connection(peer: int = 1, rules: tuple[int, ...] = (1,), esp: str = "aes256-sha256", **settings: str) -> Connection:
    children: dict[str, ViciValue] = {f"peer-{peer}-rule-{rule}": {"esp_proposals": [esp]} for rule in rules}
    return Connection(
        f"peer-{peer}",
        peer,
        {"version": "1", **settings, "children": children},
        tuple(Child(f"peer-{peer}-rule-{rule}", peer, rule, 65536 + rule) for rule in rules),
    )


class Bench:
    """Connections at work on a daemon of memory. `want` is what a new plan would do."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ike = MemoryIke()
        self.ledger = Ledger()
        self.wanted = Wanted()
        self.connections = Connections(self.ike, self.ledger, self.wanted, lambda: None, lambda: self.now)
        self.task = asyncio.get_running_loop().create_task(self.connections.run())

    async def want(self, *connections: Connection, secrets: tuple[Secret, ...] = ()) -> list[tuple[str, ...]]:
        """What was asked of the daemon for it."""
        names = {*self.wanted.connections, *(connection.name for connection in connections)}
        ids = {*self.wanted.secrets, *(secret.id for secret in secrets)}
        self.wanted.connections = {connection.name: connection for connection in connections}
        self.wanted.secrets = {secret.id: secret for secret in secrets}
        self.ike.calls.clear()
        self.connections.mark(names, ids)
        await self.connections.idle.wait()
        return self.ike.calls


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    bench.task.cancel()
    await asyncio.gather(bench.task, return_exceptions=True)


async def test_nothing_is_done_before_there_is_a_plan(bench: Bench) -> None:
    bench.ike.connections["peer-9"] = connection(9)  # of the last agent, perhaps with a live tunnel
    bench.ike.emit(IkeEvent(IkeEventKind.BACK))
    await asyncio.sleep(0.01)
    assert bench.ike.calls == []
    assert await bench.want() == [("unload", "peer-9"), ("terminate", "peer-9", "", "")]


async def test_secrets_come_before_connections_and_go_with_the_peer(bench: Bench) -> None:
    secret = Secret("psk-1", 1, b"sealed", ("10.0.0.2",))
    assert await bench.want(connection(), secrets=(secret,)) == [("load-secret", "psk-1"), ("load", "peer-1")]
    assert await bench.want(connection(), secrets=(secret,)) == []
    assert await bench.want() == [("unload-secret", "psk-1"), ("unload", "peer-1"), ("terminate", "peer-1", "", "")]


async def test_certificates_come_first_and_take_the_secrets_along_when_one_goes(bench: Bench) -> None:
    root, other = (Credential(f"ca-{n}", CredentialKind.AUTHORITY, n, f"PEM {n}") for n in (1, 2))
    secret = Secret("psk-1", 1, b"sealed", ("10.0.0.2",))

    async def with_credentials(*credentials: Credential) -> list[tuple[str, ...]]:
        bench.wanted.credentials = {each.id: each for each in credentials}
        bench.connections.mark((), (), [CREDENTIALS])
        return await bench.want(connection(), secrets=(secret,))

    assert await with_credentials(root) == [
        ("load-credentials", "ca-1"),
        ("load-secret", "psk-1"),
        ("load", "peer-1"),
    ]
    assert await with_credentials(root, other) == [("load-credentials", "ca-1", "ca-2")]
    assert await with_credentials(other) == [("load-credentials", "ca-2"), ("load-secret", "psk-1")]
    bench.ike.credentials.clear()  # another charon, which has nothing
    bench.ike.calls.clear()
    bench.ike.emit(IkeEvent(IkeEventKind.BACK, text="restarted"))
    await until(lambda: bench.ike.credentials)
    assert bench.ike.credentials == {"ca-2": other}


async def test_the_daemons_own_settings_come_before_everything(bench: Bench) -> None:
    bench.wanted.daemon = USUAL._replace(retries=3)
    bench.connections.mark((), (), [DAEMON])
    await bench.connections.idle.wait()
    assert bench.ike.daemon.retries == 3
    bench.ike.daemon = USUAL  # another charon
    bench.ike.emit(IkeEvent(IkeEventKind.BACK, text="restarted"))
    await until(lambda: bench.ike.daemon.retries == 3)


async def test_a_new_connection_ends_nothing(bench: Bench) -> None:
    assert await bench.want(connection()) == [("load", "peer-1")]


async def test_a_changed_connection_ends_its_own_tunnel_only(bench: Bench) -> None:
    await bench.want(connection(1), connection(2))
    assert await bench.want(connection(1, aggressive="yes"), connection(2)) == [
        ("load", "peer-1"),
        ("terminate", "peer-1", "", ""),
    ]


async def test_a_changed_or_removed_child_ends_alone(bench: Bench) -> None:
    await bench.want(connection(rules=(1, 2)))
    assert await bench.want(connection(rules=(1, 2, 3))) == [("load", "peer-1")]
    assert await bench.want(connection(rules=(1, 3))) == [
        ("load", "peer-1"),
        ("terminate", "peer-1", "peer-1-rule-2", ""),
    ]
    both = await bench.want(connection(rules=(1, 3), esp="aes128-sha1"))
    assert both == [
        ("load", "peer-1"),
        ("terminate", "peer-1", "peer-1-rule-1", ""),
        ("terminate", "peer-1", "peer-1-rule-3", ""),
    ]


async def test_an_adopted_daemon_with_the_same_connections_is_left_alone(bench: Bench) -> None:
    bench.ike.connections = {"peer-1": connection(1), "peer-2": connection(2), "someone-else": connection(3)}
    calls = await bench.want(connection(1), connection(2, aggressive="yes"))
    assert calls == [("load", "peer-2"), ("terminate", "peer-2", "", "")]
    assert "someone-else" in bench.ike.connections


async def test_a_tunnel_whose_peer_went_while_we_were_away_ends(bench: Bench) -> None:
    address = bytes([10, 0, 0, 1])
    bench.ike.sas = [IkeSa("peer-4", 7, 1, "ESTABLISHED", address, address)]
    assert await bench.want() == [("unload", "peer-4"), ("terminate", "peer-4", "", "")]


async def test_a_refused_connection_fails_its_rows_and_is_tried_again(bench: Bench) -> None:
    bench.ike.refuse["peer-1"] = "no such proposal"
    await bench.want(connection(rules=(1, 2)))
    assert bench.ledger.of(PEER) == (ApplyState.FAILED, "no such proposal")
    assert bench.ledger.of(RowRef("ipsecTrafficTable", 2)) == (ApplyState.FAILED, "no such proposal")
    bench.ike.refuse.clear()
    bench.now += 60
    bench.connections.look_again()
    await until(lambda: bench.ledger.of(PEER) is None)
    assert "peer-1" in bench.ike.connections


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("a defect")])
async def test_neither_a_full_disk_nor_a_defect_ends_the_work(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(connections_module, "AFTER_A_DEFECT_SECONDS", 0.01)
    load, failures = bench.ike.load_connection, [error]

    async def failing(connection: Connection) -> None:
        if failures:
            raise failures.pop()
        await load(connection)

    monkeypatch.setattr(bench.ike, "load_connection", failing)
    bench.wanted.connections = {"peer-1": connection(), "peer-2": connection(2)}
    bench.connections.mark({"peer-1", "peer-2"}, ())
    await until(lambda: not failures)
    bench.now += 60
    bench.connections.look_again()
    await until(lambda: {call[1] for call in bench.ike.calls if call[0] == "load"} >= {"peer-1", "peer-2"})
    assert not bench.task.done()


async def test_ending_is_tried_again_when_it_failed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.want(connection())
    terminate = bench.ike.terminate

    async def refuse(**_: object) -> None:
        raise EngineError("busy")

    monkeypatch.setattr(bench.ike, "terminate", refuse)
    await bench.want(connection(aggressive="yes"))
    assert bench.ledger.of(PEER) == (ApplyState.FAILED, "busy")
    monkeypatch.setattr(bench.ike, "terminate", terminate)
    bench.ike.calls.clear()
    bench.now += 60
    bench.connections.look_again()
    await until(lambda: bench.ledger.of(PEER) is None)
    assert ("terminate", "peer-1", "", "") in bench.ike.calls


async def test_only_the_rules_that_change_are_pending(bench: Bench) -> None:
    await bench.want(connection(rules=(1, 2, 3)))
    bench.wanted.connections = {"peer-1": connection(rules=(1, 3, 4))}
    bench.connections.mark(["peer-1"], [])
    waiting = {number for number in range(1, 5) if bench.ledger.of(RowRef("ipsecTrafficTable", number))}
    assert waiting == {4} and bench.ledger.of(PEER) is not None
    await bench.connections.idle.wait()
    assert len(bench.ledger) == 0


async def test_a_virtual_interface_shows_nothing_on_rules_that_have_its_selectors_numbers(bench: Bench) -> None:
    made = connection(rules=(0, 5))
    children = tuple(replace(each, virtual=True) for each in made.children)
    bench.ike.refuse["peer-1"] = "invalid proposal"
    await bench.want(replace(made, children=children))
    assert bench.ledger.of(PEER) == (ApplyState.FAILED, "invalid proposal")
    assert bench.ledger.of(RowRef("ipsecTrafficTable", 5)) is None


async def test_a_lost_daemon_leaves_rows_pending_until_it_is_back_and_loaded(bench: Bench) -> None:
    await bench.want(connection())
    bench.ike.connections.clear()
    bench.ike.emit(IkeEvent(IkeEventKind.LOST, text="gone"))
    assert bench.ledger.of(PEER) == (ApplyState.PENDING, WAITING)
    bench.ike.emit(IkeEvent(IkeEventKind.BACK, text="restarted"))
    await until(lambda: bench.ledger.of(PEER) is None)
    assert "peer-1" in bench.ike.connections
    assert not any(call[0] == "terminate" for call in bench.ike.calls)


async def test_changes_while_the_daemon_is_slow_coalesce(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.want(connection())
    gate = asyncio.Event()
    load = bench.ike.load_connection

    async def slowly(wanted: Connection) -> None:
        await gate.wait()
        await load(wanted)

    monkeypatch.setattr(bench.ike, "load_connection", slowly)
    bench.ike.calls.clear()
    for version in ("a", "b", "c", "d"):
        bench.wanted.connections = {"peer-1": connection(local=version)}
        bench.connections.mark(["peer-1"], [])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    gate.set()
    await bench.connections.idle.wait()
    assert bench.ike.connections["peer-1"].settings["local"] == "d"
    assert sum(call[0] == "load" for call in bench.ike.calls) <= 2
    assert bench.ledger.of(PEER) is None


# ---- left SAs -------------------------------------------------------------------------------


def sa(spi: int, reqid: int = 65537, protocol: int = 50) -> SaRecord:
    here, there = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
    return SaRecord(here, there, protocol, spi.to_bytes(4, "big"), reqid, 1, SaCounters(0, 0, 1, 0))


def listing(*spis: int, reqid: int = 65537) -> IkeState:
    address = bytes([10, 0, 0, 2])
    children = tuple(
        ChildSa("peer-1-rule-1", spi, reqid, "INSTALLED", 1, 50, spi.to_bytes(4, "big"), b"none") for spi in spis
    )
    return IkeState({}, frozenset(), (IkeSa("peer-1", 1, 1, "ESTABLISHED", address, address, children=children),))


def test_only_what_the_daemon_does_not_list_is_left_over() -> None:
    found = [sa(1), sa(2), sa(3, protocol=108), sa(4, reqid=65999, protocol=108)]
    assert {left.spi[3] for left in unlisted(found, listing(1)).values()} == {2, 4}


async def test_left_sas_go_after_the_second_look_and_foreign_and_larval_ones_stay() -> None:
    spd, ike = MemorySpd(), MemoryIke()
    spd.kernel_sas = [sa(1), sa(2), sa(0), sa(7, reqid=1), sa(8, reqid=0)]
    ike.sas = list(listing(1).sas)
    leftovers = Leftovers(spd, ike, seconds=0.05)
    leftovers.look()
    await asyncio.sleep(0.01)
    assert len(spd.kernel_sas) == 5
    await until(lambda: len(spd.kernel_sas) == 4)
    assert [left.spi[3] for left in spd.kernel_sas] == [1, 0, 7, 8]
    await leftovers.stop()


async def test_of_flows_only_what_a_policy_of_ours_named_is_left_over() -> None:
    """Others may use such reqids too."""
    spd, ike = MemorySpd(), MemoryIke()
    spd.kernel_sas = [sa(1, reqid=4), sa(2, reqid=5), sa(3, reqid=6)]
    leftovers = Leftovers(spd, ike, seconds=0.05)
    leftovers.look()
    here, there, other = spd.kernel_sas[0].source, spd.kernel_sas[0].destination, bytes([192, 0, 2, 77])
    leftovers.named([Template(there, here, 50, 1, 4), Template(there, other, 50, 1, 5)])
    await until(lambda: len(spd.kernel_sas) == 2)
    assert [left.reqid for left in spd.kernel_sas] == [5, 6]
    await leftovers.stop()


# ---- backoff ----------------------------------------------------------------------------------


def test_failures_come_back_after_one_to_sixty_seconds() -> None:
    now = 0.0
    backoff: Backoff[str] = Backoff(lambda: now, lambda: 0.0)
    delays = [backoff.failed("a") for _ in range(8)]
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60]
    assert backoff.due() == [] and backoff.next() == 60
    now = 60.0
    assert backoff.due() == ["a"] and backoff.due() == []
    backoff.failed("a")
    backoff.forget("a")
    assert backoff.next() is None and backoff.failed("a") == 1
    assert Backoff(lambda: now, lambda: 1.0).failed("b") == 0.75
