"""A load: the whole configuration in one generation, judged whole, touching only what differs."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from agent.mib.ber import Value
from agent.store.database import Writing
from agent.store.errors import ErrorStatus, Refused, StoreError
from agent.store.hooks import Change, Edit, Origin, Placed, RowChange
from agent.store.load import Contents, Loader, LoadRefused
from agent.store.references import References
from agent.store.secrets import Secrets
from agent.store.snapshot import Configuration
from agent.store.store import Store, read_store
from tests.random_configuration import contents, opened
from tests.store_schema import SCHEMA
from tests.xfrm_namespace import until

MANAGER = Origin("snmp", "noc", "192.0.2.7:40000", "192.0.2.1:161", secure=True)
Rows = dict[str, dict[int, dict[str, Value]]]

BRANCH: Rows = {
    "gate": {0: {"gateName": b"west", "gateFirst": 2}},
    "ruleTable": {1: {"ruleProto": 6}, 2: {"ruleProto": 17, "ruleNext": 1}},
    "peerTable": {5: {"peerName": b"Branch", "peerRules": 1, "peerKey": b"secret"}},
}


async def put(store: Store, cells: dict[str, Value]) -> Configuration:
    edits = []
    for instance, value in cells.items():
        name, number = instance.split(".")
        edits.append(Edit(SCHEMA.columns[name], int(number), value))
    return await store.commit(edits, MANAGER)


async def load(store: Store, rows: Rows, secrets: dict[tuple[str, int, str], bytes] | None = None) -> int:
    """Rows that differ."""
    return (await store.load(Contents(rows, secrets), MANAGER, "a file"))[1]


async def problems(store: Store, rows: Rows) -> list[str]:
    with pytest.raises(LoadRefused) as caught:
        await load(store, rows)
    return list(caught.value.problems)


class Witness:
    def __init__(self) -> None:
        self.changes: list[Change] = []

    def changed(self, change: Change) -> None:
        self.changes.append(change)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    made = Store.open(SCHEMA, "", tmp_path / "state")
    yield made
    assert made._writer._candidates.references._sources == References(made.running)._sources
    await made.close()
    stored = read_store(SCHEMA, "", tmp_path / "state").configuration
    assert stored.generation == made.running.generation
    assert opened(stored, made.secrets) == opened(made.running, made.secrets)


async def test_what_is_named_is_there_and_everything_else_is_not(store: Store) -> None:
    await put(store, {"ruleProto.9": 6, "gateName.0": b"old", "gateOn.0": 1, "peerRules.5": 9})
    assert await load(store, BRANCH) == 5
    running = store.running
    assert running.generation == 2
    assert list(running.table("ruleTable").numbers()) == [1, 2] and list(running.table("peerTable").numbers()) == [5]
    assert (running.scalar("gateName"), running.scalar("gateOn"), running.scalar("gateFirst")) == (b"west", 2, 2)
    peer = running.row("peerTable", 5)
    assert peer is not None and (peer["peerWeight"], peer["peerKey"], peer["peerRules"]) == (10, b"*", 1)
    assert opened(running, store.secrets)["peerKeyData.5"] == b"secret"
    assert await load(store, {}) == 4 and not len(store.running.table("peerTable"))


async def test_rows_that_do_not_differ_are_not_touched(store: Store) -> None:
    await load(store, BRANCH)
    witness = Witness()
    store.subscribe(witness)
    before = store.running
    assert await load(store, BRANCH) == 0 and store.running is before
    changed: Rows = {**BRANCH, "ruleTable": {**BRANCH["ruleTable"], 1: {"ruleProto": 50}}}
    assert await load(store, changed) == 1
    await asyncio.sleep(0)
    [change] = witness.changes
    [row] = change.rows
    assert (row.table, row.number, row.columns) == ("ruleTable", 1, {"ruleProto", "ruleRowGeneration"})
    assert store.running.table("peerTable") is before.table("peerTable")
    rule = store.running.row("ruleTable", 2)
    assert rule is not None and rule["ruleRowGeneration"] == 1


async def test_the_rows_tell_hooks_what_sets_would(store: Store) -> None:
    await put(store, {"ruleProto.9": 6})
    witness = Witness()
    store.subscribe(witness)
    await load(store, {"ruleTable": {3: {"ruleProto": 6, "ruleRowStatus": 2}}, "profileTable": {1: {}}})
    await asyncio.sleep(0)
    [change] = witness.changes
    rows: dict[tuple[str, int], RowChange] = {(row.table, row.number): row for row in change.rows}
    assert set(rows) == {("ruleTable", 3), ("ruleTable", 9), ("profileTable", 1)}
    assert rows["ruleTable", 3].after is None, "a row that is not in service is none for a plan"
    assert rows["ruleTable", 9].before is not None and rows["ruleTable", 9].after is None
    assert rows["profileTable", 1].after is not None and change.origin is MANAGER


async def test_rows_that_are_there_keep_their_secrets_where_the_load_has_none(store: Store) -> None:
    await load(store, BRANCH)
    without: Rows = {
        **BRANCH,
        "peerTable": {5: {"peerName": b"B", "peerRules": 1, "peerKey": b"*"}, 6: {"peerKey": b"*"}},
    }
    assert await load(store, without) == 2
    found = opened(store.running, store.secrets)
    assert found["peerKeyData.5"] == b"secret" and found["peerKey.5"] == b"*"
    assert (found["peerKeyData.6"], found["peerKey.6"]) == (b"", b""), "there is nothing to keep"


async def test_a_load_with_secrets_replaces_and_removes_them(store: Store) -> None:
    await load(store, BRANCH)
    peer: Rows = {**BRANCH, "peerTable": {5: {"peerName": b"Branch", "peerRules": 1, "peerKey": b"*"}}}
    assert await load(store, peer, {("peerTable", 5, "peerKeyData"): b"secret"}) == 0, (
        "the same one is not sealed again"
    )
    assert await load(store, peer, {("peerTable", 5, "peerKeyData"): b"new"}) == 1
    assert opened(store.running, store.secrets)["peerKeyData.5"] == b"new"
    peer["peerTable"][5].pop("peerKey")
    assert await load(store, peer, {}) == 1
    assert opened(store.running, store.secrets)["peerKeyData.5"] == b""


async def test_every_mistake_is_told_and_nothing_is_done(store: Store) -> None:
    found = await problems(
        store,
        {
            "peerTable": {
                1: {"peerWeight": 101, "peerProfile": 7},
                2: {"peerAdmin": 15, "peerRules": 3},
                3: {"peerLater": 1, "peerName": b"a name of 17 octe"},
                4: {"peerRowStatus": 4, "peerKeyData": b"x", "peerIndex": 4, "noSuch": 1},
                0: {},
            },
            "ruleTable": {1: {"ruleNext": 2}, 2: {"ruleNext": 1}},
            "gate": {0: {"gateForce": 1}},
            "peerStateTable": {1: {}},
            "nothing": {},
        },
    )
    text = "\n".join(found)
    for expected in (
        "peerWeight.1 = 101: no value of this object; accepted: 0..100",
        "peerProfile.1 = 7: there is no row 7 in profileTable; accepted: 0 for none, or the number of a row",
        "peerAdmin.2 = delete(15): removes rows; accepted: another value, or leave the row out",
        "peerRules.2 = 3: there is no row 3 in ruleTable",
        "peerLater.3 = a(1): not supported yet; accepted: b(3)",
        'peerName.3 = "a name of 17 octe": no value of this object; accepted: 0..16 octets',
        "peerRowStatus.4 = createAndGo(4): is no state of a row that is kept; accepted: active(1), notInService(2)",
        'peerKeyData.4 = "*": is made by the agent',
        "peerIndex.4 = 4: is made by the agent",
        "peerTable 4: noSuch is no column of it",
        "peerTable 0: there can be no such row; accepted: 1..2147483647",
        "the chain would run in a ring: 1 → 2 → 1",
        "gateForce.0 = true(1): is made by the agent",
        "peerStateTable: no table that is stored",
        "nothing: no table that is stored",
    ):
        assert expected in text
    assert store.running.generation == 0


async def test_values_stand_for_others_as_in_a_set(store: Store) -> None:
    def at_most_fifty(before: Configuration, placed: Sequence[Placed], origin: Origin) -> list[Placed]:
        weight = SCHEMA.columns["peerWeight"]
        return [
            (at, Edit(weight, e.number, 50))
            if e.column is weight and isinstance(e.value, int) and e.value > 50
            else (at, e)
            for at, e in placed
        ]

    store.expanders.append(at_most_fifty)
    await load(store, {"peerTable": {1: {"peerWeight": 70, "peerName": b"x"}, 2: {"peerWeight": 20}}})
    assert [row["peerWeight"] for row in store.running.rows("peerTable")] == [50, 20]
    assert await load(store, {"peerTable": {1: {"peerWeight": 90, "peerName": b"x"}, 2: {"peerWeight": 20}}}) == 0


async def test_of_many_mistakes_twenty_are_told(store: Store) -> None:
    assert len(await problems(store, {"peerTable": {n: {"peerWeight": 200} for n in range(1, 100)}})) == 20


async def test_the_checks_of_sets_are_asked_and_can_refuse(store: Store) -> None:
    asked: list[set[tuple[str, int, Value]]] = []

    def check(before: object, after: Configuration, rows: object, edits: list[Edit], origin: Origin) -> None:
        asked.append({(edit.column.name, edit.number, edit.value) for edit in edits})
        assert origin is MANAGER and len(after.table("peerTable"))
        raise Refused(ErrorStatus.INCONSISTENT_VALUE, 0, "that would cut you off")

    store.checks.append(check)  # type: ignore[arg-type]
    with pytest.raises(Refused, match="cut you off"):
        await load(store, {"peerTable": {1: {"peerWeight": 5, "peerKey": b"secret"}}})
    assert asked == [{("peerWeight", 1, 5)}]
    assert store.running.generation == 0


async def test_a_load_and_sets_that_come_meanwhile(store: Store) -> None:
    """Whatever comes first, the load is built on what is there when its turn comes."""
    await put(store, {"peerRules.1": 0})
    first = asyncio.ensure_future(load(store, BRANCH))
    await asyncio.sleep(0)
    sets = [asyncio.ensure_future(put(store, {f"ruleProto.{n}": 6})) for n in range(10, 30)]
    await asyncio.gather(first, *sets)
    before = {number for number in range(10, 30) if number in store.running.table("ruleTable")}
    after_load = {1, 2} | before
    assert set(store.running.table("ruleTable").numbers()) == after_load
    generation = store.running.generation
    assert generation == 22
    assert await load(store, BRANCH) == len(before)


async def test_sets_wait_for_nothing_while_a_load_is_built(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where the configuration moves on under it again and again does it make others wait, once."""
    building, go_on = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    through = Loader.build
    builds: list[int] = []

    def slow(self: Loader, before: Configuration):  # type: ignore[no-untyped-def]
        builds.append(before.generation)
        if len(builds) == 1:
            loop.call_soon_threadsafe(building.set)
            asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(30)
        return through(self, before)

    monkeypatch.setattr(Loader, "build", slow)
    loading = asyncio.ensure_future(load(store, BRANCH))
    await building.wait()
    await put(store, {"gateName.0": b"meanwhile"})
    go_on.set()
    await loading
    assert builds == [0, 1] and store.running.generation == 2
    assert store.running.scalar("gateName") == b"west"


async def test_a_load_that_the_disk_does_not_take_left_no_trace(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await load(store, BRANCH)
    through = store._database.write

    def full(_: object) -> None:
        raise StoreError("disk full")

    monkeypatch.setattr(store._writer, "_write", full)
    with pytest.raises(Refused, match="disk full"):
        await load(store, {})
    monkeypatch.setattr(store._writer, "_write", through)
    assert store.running.generation == 1 and await load(store, BRANCH) == 0


async def test_a_load_is_one_audit_line(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "agent.audit")
    await load(store, BRANCH)
    with pytest.raises(Refused):
        await load(store, {"peerTable": {1: {"peerWeight": 101}}})
    assert [record.getMessage() for record in caplog.records] == [
        "generation 1 by snmp user noc from 192.0.2.7:40000: a file loaded, 4 rows differ",
        "refused snmp user noc from 192.0.2.7:40000: peerWeight.1 = 101: no value of this object; accepted: 0..100 "
        "(INCONSISTENT_VALUE)",
    ]


async def test_a_load_that_waits_for_the_disk_is_finished_when_the_store_closes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Store.open(SCHEMA, "", tmp_path / "state")
    write, begun = made._writer._write, threading.Event()

    def slowly(writing: Writing) -> None:
        begun.set()
        time.sleep(0.2)
        write(writing)

    monkeypatch.setattr(made._writer, "_write", slowly)
    loading = asyncio.ensure_future(load(made, BRANCH))
    await until(begun.is_set)
    await made.close()
    assert await loading == 4
    assert read_store(SCHEMA, "", tmp_path / "state").configuration.generation == 1


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(first=contents(SCHEMA), second=contents(SCHEMA))
def test_what_a_load_makes_does_not_depend_on_what_was_there(first: Contents, second: Contents) -> None:
    secrets = Secrets(bytes(32))
    empty = Configuration.empty(SCHEMA)
    one = Loader(first, secrets).build(empty)
    before = empty if one is None else one.after
    references = References(before)
    other = Loader(second, secrets).build(before)
    after = before if other is None else other.after
    references.move(() if other is None else other.moves)
    assert references._sources == References(after)._sources
    straight = Loader(second, secrets).build(empty)
    assert opened(after, secrets) == opened(empty if straight is None else straight.after, secrets)
