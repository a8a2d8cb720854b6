"""Commits: durable before they are answered, sharing transactions, one generation each, whatever fails."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from agent.mib.ber import Value
from agent.store.database import Database, Writing
from agent.store.errors import ErrorStatus, Refused, StoreError
from agent.store.hooks import AGENT, Change, Edit, Origin, RowChange
from agent.store.references import References
from agent.store.snapshot import Configuration
from agent.store.store import Store, read_store
from tests.store_schema import SCHEMA
from tests.xfrm_namespace import until

MANAGER = Origin("snmp", "noc", "192.0.2.7:40000", "192.0.2.1:161", secure=True)


def edit(instance: str, value: Value) -> Edit:
    name, number = instance.split(".")
    return Edit(SCHEMA.columns[name], int(number), value)


async def put(store: Store, cells: dict[str, Value], origin: Origin = MANAGER) -> Configuration:
    return await store.commit([edit(*cell) for cell in cells.items()], origin)


def rows(configuration: Configuration) -> dict[tuple[str, int], tuple[bytes, ...]]:
    return {(n, row.number): row.cells for n, table in configuration.tables.items() for row in table.rows()}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store.open(SCHEMA, "", tmp_path / "state")
    yield opened
    assert opened._writer._candidates.references._sources == References(opened.running)._sources
    await opened.close()
    assert rows(read_store(SCHEMA, "", tmp_path / "state").configuration) == rows(opened.running)


class Faults:
    """Stands before the database's write: `fails` decides, `written` are the transactions that went through."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.written: list[Writing] = []
        self.tried = 0
        self.error: Exception = StoreError("disk full")
        self._through = store._database.write
        monkeypatch.setattr(store._writer, "_write", self.write)

    def fails(self, writing: Writing) -> bool:
        return False

    def write(self, writing: Writing) -> None:
        self.tried += 1
        if self.fails(writing):
            raise self.error
        self._through(writing)
        self.written.append(writing)


@pytest.fixture
def faults(store: Store, monkeypatch: pytest.MonkeyPatch) -> Faults:
    return Faults(store, monkeypatch)


class Witness:
    """A subscriber that writes down what it is told."""

    def __init__(self) -> None:
        self.changes: list[Change] = []

    def changed(self, change: Change) -> None:
        self.changes.append(change)


async def test_what_is_answered_is_on_disk(store: Store, tmp_path: Path) -> None:
    after = await put(store, {"peerRules.1": 0, "peerKey.1": b"geheim", "gateOn.0": 1})
    stored = read_store(SCHEMA, "", tmp_path / "state").configuration
    assert stored.generation == after.generation == 1
    assert rows(stored) == rows(after)
    octets = b"".join(path.read_bytes() for path in (tmp_path / "state").iterdir())
    assert b"geheim" not in octets


async def test_waiting_sets_share_a_transaction_and_are_generations(store: Store, faults: Faults) -> None:
    seen = Witness()
    store.subscribe(seen)
    answers = await asyncio.gather(*[put(store, {f"ruleProto.{n}": n}) for n in range(1, 41)])
    assert [answer.generation for answer in answers] == list(range(1, 41))
    assert faults.tried <= 2, "the first, and the others that came while it was written"
    await until(lambda: not store._untold)
    assert [change.generation for change in seen.changes] == list(range(1, 41))
    assert [change.rows[0].number for change in seen.changes] == list(range(1, 41))
    for change in seen.changes:
        assert len(change.after.table("ruleTable")) == change.generation
        assert change.before.generation == change.generation - 1
        row = change.after.row("ruleTable", change.generation)
        assert row is not None and row["ruleRowGeneration"] == change.generation


async def test_each_is_built_on_the_one_before(store: Store, faults: Faults) -> None:
    results = await asyncio.gather(
        put(store, {"ruleProto.1": 6}),
        put(store, {"ruleNext.1": 2, "ruleProto.2": 6}),
        put(store, {"ruleProto.2": 17}),
        put(store, {"ruleAction.2": 1}),
        put(store, {"ruleProto.1": 6}),
        put(store, {"ruleRowStatus.1": 4}),
        return_exceptions=True,
    )
    generations = [r.generation if isinstance(r, Configuration) else r for r in results]
    assert generations[:5] == [1, 2, 3, 4, 4]
    assert isinstance(results[5], Refused) and results[5].status is ErrorStatus.INCONSISTENT_VALUE
    assert list(store.running.table("ruleTable").numbers()) == [1]


async def test_a_refusal_that_rests_on_a_waiting_set_waits_with_it(store: Store, faults: Faults) -> None:
    """The second is refused because of the first; when the first is not stored, the second is right."""
    faults.fails = lambda writing: ("ruleTable", 1) in writing.rows  # type: ignore[method-assign]
    first, second, third = await asyncio.gather(
        put(store, {"ruleProto.1": 6, "ruleProto.2": 6}),
        put(store, {"ruleRowStatus.2": 4}),
        put(store, {"ruleProto.2": 255}),
        return_exceptions=True,
    )
    assert isinstance(first, Refused) and first.status is ErrorStatus.COMMIT_FAILED
    assert isinstance(second, Configuration) and second.generation == 1
    assert isinstance(third, Configuration) and third.generation == 1, "nothing to change then"


async def test_a_failed_transaction_tries_each_alone(
    store: Store, faults: Faults, caplog: pytest.LogCaptureFixture
) -> None:
    before = store.running
    faults.fails = lambda writing: ("peerTable", 3) in writing.rows  # type: ignore[method-assign]
    results = await asyncio.gather(
        *[put(store, {f"peerRules.{n}": n, f"ruleProto.{n}": 6}) for n in range(1, 6)], return_exceptions=True
    )
    failed = results[2]
    assert isinstance(failed, Refused) and failed.status is ErrorStatus.COMMIT_FAILED and "disk full" in failed.text
    assert sorted(r.generation for r in results if isinstance(r, Configuration)) == [1, 2, 3, 4]
    assert list(store.running.table("peerTable").numbers()) == [1, 2, 4, 5]
    assert list(store.running.table("ruleTable").numbers()) == [1, 2, 4, 5]
    assert before.generation == 0 and len(before.table("peerTable")) == 0


async def test_nothing_moves_when_storing_fails(store: Store, faults: Faults, caplog: pytest.LogCaptureFixture) -> None:
    await put(store, {"ruleProto.1": 6, "ruleProto.2": 6, "peerRules.1": 1})
    seen = Witness()
    store.subscribe(seen)
    before = store.running
    for error in (StoreError("disk full"), ZeroDivisionError()):
        faults.error, faults.fails = error, lambda writing: True  # type: ignore[method-assign]
        with pytest.raises(Refused) as refused:
            await put(store, {"ruleRowStatus.1": 6})
        assert refused.value.status is ErrorStatus.COMMIT_FAILED
        assert store.running is before
    faults.fails = lambda writing: False  # type: ignore[method-assign]
    after = await put(store, {"ruleRowStatus.1": 6})
    assert after.generation == 2
    await until(lambda: not store._untold)
    assert [change.generation for change in seen.changes] == [2]


async def test_a_transaction_that_fails_after_its_commit_is_found_on_disk(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from sqlalchemy.exc import OperationalError

    original = Database._write_rows

    def broken(self: Database, connection: object, writing: Writing) -> None:
        """Another connection writes it all; then this one breaks."""
        monkeypatch.setattr(Database, "_write_rows", original)
        with connection.engine.connect() as other:  # type: ignore[attr-defined]
            connection.rollback()  # type: ignore[attr-defined]
            original(self, other, writing)
            other.execute(self._state.update().values(generation=writing.new))
            other.commit()
        raise OperationalError("COMMIT", {}, Exception("connection lost"))

    monkeypatch.setattr(Database, "_write_rows", broken)
    assert (await put(store, {"ruleProto.1": 6})).generation == 1
    assert (await put(store, {"ruleProto.2": 6})).generation == 2


async def test_a_defect_before_the_commit_point_is_gen_err(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    def defective(*_: object) -> None:
        raise RuntimeError("oops")

    store.checks.append(defective)
    before = store.running
    with pytest.raises(Refused) as refused:
        await put(store, {"ruleProto.1": 6})
    assert refused.value.status is ErrorStatus.GEN_ERR and refused.value.edit == -1
    assert store.running is before
    assert (await put(store, {"ruleProto.1": 6}, AGENT)).generation == 1, "checks are for managers"


async def test_checks_see_both_states_and_can_refuse(store: Store) -> None:
    asked: list[tuple[int, int, list[str], int]] = []

    def check(
        before: Configuration, after: Configuration, rows: tuple[RowChange, ...], edits: Sequence[Edit], who: Origin
    ) -> None:
        asked.append((before.generation, after.generation, [row.table for row in rows], len(edits)))
        assert who is MANAGER
        if after.scalar("gateOn") == 1:
            raise Refused(ErrorStatus.INCONSISTENT_VALUE, 1, "gateOn.0 = true(1): cannot")

    store.checks.append(check)
    await put(store, {"ruleProto.1": 6, "gateForce.0": 1})
    assert asked == [(0, 1, ["ruleTable"], 2)]
    with pytest.raises(Refused) as refused:
        await put(store, {"ruleProto.1": 7, "gateOn.0": 1})
    assert refused.value.edit == 1
    assert store.running.generation == 1 and store.running.scalar("gateOn") == 2


async def test_hooks_come_after_the_reply_and_cannot_harm(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []

    class Bad:
        def changed(self, change: Change) -> None:
            told.append("bad")
            raise RuntimeError("no")

    class Good:
        def changed(self, change: Change) -> None:
            told.append(f"good {change.generation}")

    store.subscribe(Bad())
    store.subscribe(Good())

    async def ask() -> None:
        await put(store, {"ruleProto.1": 6})
        told.append("reply")

    await ask()
    await until(lambda: not store._untold)
    assert told == ["reply", "bad", "good 1"]


async def test_a_replay_gives_the_whole_and_no_change_twice(store: Store) -> None:
    class Late:
        def changed(self, change: Change) -> None:
            if change.generation == 1:
                store.subscribe(late, replay=True)

    late = Witness()
    store.subscribe(Late())
    await asyncio.gather(*[put(store, {f"ruleProto.{n}": 6}) for n in range(1, 6)])
    await put(store, {"ruleProto.6": 6})
    await until(lambda: not store._untold)
    assert late.changes[0].replay and late.changes[0].rows == ()
    start = late.changes[0].generation
    assert len(late.changes[0].after.table("ruleTable")) == start
    assert [change.generation for change in late.changes[1:]] == list(range(start + 1, 7))


async def test_a_waiter_that_went_away_changes_nothing_of_the_set(store: Store, faults: Faults) -> None:
    task = asyncio.create_task(put(store, {"ruleProto.1": 6}))
    await asyncio.sleep(0)
    task.cancel()
    assert (await put(store, {"ruleProto.2": 6})).generation == 2


async def test_reads_go_on_while_the_disk_is_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(SCHEMA, "", tmp_path)
    write, begun, go_on = store._writer._write, threading.Event(), threading.Event()

    def slowly(writing: Writing) -> None:
        begun.set()
        go_on.wait(30)
        write(writing)

    monkeypatch.setattr(store._writer, "_write", slowly)
    task = asyncio.create_task(put(store, {"ruleProto.1": 6}))
    await until(begun.is_set)
    for _ in range(20):
        assert not store.running.generation and not task.done()
        assert store.view.table("ruleTable").after(-1, 0) is None
        await asyncio.sleep(0.005)
    go_on.set()
    assert (await task).generation == store.running.generation == 1
    await store.close()


async def test_closing_finishes_what_waits(tmp_path: Path) -> None:
    store = Store.open(SCHEMA, "", tmp_path)
    tasks = [asyncio.create_task(put(store, {f"ruleProto.{n}": 6})) for n in range(1, 100)]
    await asyncio.sleep(0)
    await store.close()
    assert {task.result().generation for task in tasks} == set(range(1, 100))
    with pytest.raises(Refused) as refused:
        await put(store, {"ruleProto.1": 7})
    assert refused.value.status is ErrorStatus.RESOURCE_UNAVAILABLE
    assert read_store(SCHEMA, "", tmp_path).configuration.generation == 99


async def test_the_audit_line_tells_who_and_what_but_no_secret(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "agent.audit")
    origin = Origin("snmp", "no\nc", "192.0.2.7:40000", secure=True)
    await put(store, {"peerRules.3": 0, "peerName.3": b"Bran\nch", "peerKey.3": b"geheim"}, origin)
    line = caplog.records[-1].getMessage()
    assert line == (
        "generation 1 by snmp user no\\x0ac from 192.0.2.7:40000: "
        'peerRules.3 = 0, peerName.3 = "Bran\\x0ach", peerKey.3 = "*"'
    )
    with pytest.raises(Refused):
        await put(store, {"peerKey.4": b"geheim"}, origin)
    line = caplog.records[-1].getMessage()
    assert "refused" in line and 'peerKey.4 = "*"' in line and "geheim" not in line


async def test_an_accepted_set_that_changes_nothing_has_its_line(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "agent.audit")
    await put(store, {"peerRules.3": 0})
    await put(store, {"peerRules.3": 0})
    line = caplog.records[-1].getMessage()
    assert line == "generation 1 stays, by snmp user noc from 192.0.2.7:40000: peerRules.3 = 0"


async def test_small_numbers_and_texts_are_kept(tmp_path: Path) -> None:
    store = Store.open(SCHEMA, "", tmp_path)
    await store.remember("reqid", {"peer-1-rule-1": 7, "peer-1-rule-2": 8})
    await store.remember("reqid", {"peer-1-rule-1": None, "peer-1-rule-3": 2**40})
    await store.remember_texts("engine", {"id": b"\x80\x00\xff", "gone": None})
    expected = {"peer-1-rule-2": 8, "peer-1-rule-3": 2**40}
    assert store.numbers("reqid") == expected
    await store.close()
    store = Store.open(SCHEMA, "", tmp_path)
    assert store.numbers("reqid") == expected and store.texts("engine") == {"id": b"\x80\x00\xff"}
    assert store.numbers("other") == {} and store.running.generation == 0
    assert read_store(SCHEMA, "", tmp_path).numbers["reqid"] == expected
    await store.close()
