"""SETs on live tables: examined with the rest of the SET, done when that is on disk, whole or not at all."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.mib.ber import Value, Wire
from agent.mib.schema import Keeping as K
from agent.mib.schema import Role, Schema, Table, Traits
from agent.store.actions import Asked, LiveRow
from agent.store.errors import ErrorStatus, Refused, StoreError
from agent.store.hooks import Edit, Origin
from agent.store.store import Store
from tests.store_schema import ROOT, _Columns
from tests.store_schema import SCHEMA as PLAIN

MANAGER = Origin("snmp", "noc", "192.0.2.7:40000", "192.0.2.1:161", secure=True)


def _table(name: str, at: int, prefix: str) -> Table:
    columns = _Columns(name, (*ROOT, at, 1))
    columns.add(f"{prefix}What", b"", Wire.OCTET_STRING, ranges=((0, 8),), traits=Traits(role=Role.CREATING))
    columns.add(f"{prefix}Count", 7, ranges=((0, 100),))
    columns.add(f"{prefix}State", 1, labels={"open": 1, "delete": 2}, traits=Traits(deletes=2))
    columns.add(f"{prefix}Later", 0, traits=Traits(stage="later"))
    return Table(name, (*ROOT, at), K.LIVE, False, tuple(columns.made), "", "")


SCHEMA = Schema([*PLAIN.tables.values(), _table("orderTable", 20, "order"), _table("bareTable", 21, "bare")])


class Orders:
    """Keeps the rows it is asked for, and what it was asked, in order. Counts above 50 are too many for it."""

    tables = frozenset({"orderTable"})

    def __init__(self, store: Store) -> None:
        self.store = store
        self.told: list[tuple[str, int, int]] = []

    def check(self, rows: Sequence[LiveRow], asked: Asked) -> None:
        for row in rows:
            count = row.value("orderCount")
            if isinstance(count, int) and count > 50 and not row.removed:
                raise row.refused("orderCount", "too many", "0..50")

    def perform(self, rows: Sequence[LiveRow], asked: Asked) -> None:
        for row in rows:
            kind = "removed" if row.removed else "made" if row.made else "changed"
            self.told.append((kind, row.number, asked.configuration.generation))
            values = None if row.removed else {name: row.value(name) for name in ("orderWhat", "orderCount")}
            self.store.live.update("orderTable", {row.number: values})


def edit(instance: str, value: Value) -> Edit:
    name, number = instance.split(".")
    return Edit(SCHEMA.columns[name], int(number), value)


async def put(store: Store, cells: dict[str, Value]) -> None:
    await store.commit([edit(*cell) for cell in cells.items()], MANAGER)


async def refused(store: Store, cells: dict[str, Value]) -> tuple[ErrorStatus, str, str]:
    """(status, instance blamed, text)."""
    with pytest.raises(Refused) as caught:
        await put(store, cells)
    return caught.value.status, list(cells)[caught.value.edit], caught.value.text


def orders(store: Store) -> dict[int, tuple[Value, Value]]:
    return {row.number: (row["orderWhat"], row["orderCount"]) for row in store.live.table("orderTable").rows()}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store.open(SCHEMA, "", tmp_path / "state")
    yield opened
    await opened.close()


@pytest.fixture
def handler(store: Store) -> Orders:
    made = Orders(store)
    store.actions.register(made)
    return made


async def test_a_creating_column_makes_a_row_of_defaults_and_a_delete_value_removes_it(
    store: Store, handler: Orders
) -> None:
    await put(store, {"orderWhat.3": b"tea"})
    assert orders(store) == {3: (b"tea", 7)}
    await put(store, {"orderCount.3": 9})
    assert orders(store) == {3: (b"tea", 9)}
    await put(store, {"orderState.3": 2})
    assert orders(store) == {}
    await put(store, {"orderState.3": 2})
    assert handler.told == [("made", 3, 0), ("changed", 3, 0), ("removed", 3, 0)], "what is gone is asked for no more"


async def test_a_row_that_is_not_there_is_named_with_what_makes_it(store: Store, handler: Orders) -> None:
    status, blamed, text = await refused(store, {"orderCount.4": 1})
    assert (status, blamed) == (ErrorStatus.INCONSISTENT_NAME, "orderCount.4")
    assert "orderWhat.4" in text


async def test_what_no_handler_takes_is_refused(store: Store, handler: Orders) -> None:
    status, blamed, text = await refused(store, {"peerRules.1": 0, "bareWhat.1": b"x"})
    assert (status, blamed) == (ErrorStatus.INCONSISTENT_VALUE, "bareWhat.1") and "not supported yet" in text
    assert len(store.running.table("peerTable")) == 0


async def test_objects_that_do_not_act_yet_take_their_default_only(store: Store, handler: Orders) -> None:
    await put(store, {"orderWhat.1": b"x", "orderLater.1": 0})
    status, blamed, _ = await refused(store, {"orderWhat.2": b"x", "orderLater.2": 1})
    assert (status, blamed) == (ErrorStatus.INCONSISTENT_VALUE, "orderLater.2")


async def test_a_set_of_both_is_all_or_nothing(store: Store, handler: Orders) -> None:
    await put(store, {"peerRules.1": 0, "orderWhat.1": b"tea"})
    assert orders(store) == {1: (b"tea", 7)} and store.running.generation == 1
    assert handler.told == [("made", 1, 1)], "the handler sees what is stored with it"
    status, blamed, _ = await refused(store, {"peerRules.2": 0, "orderWhat.2": b"x", "orderCount.2": 51})
    assert (status, blamed) == (ErrorStatus.INCONSISTENT_VALUE, "orderCount.2")
    status, blamed, _ = await refused(store, {"orderWhat.2": b"x", "peerWeight.9": 1})
    assert (status, blamed) == (ErrorStatus.INCONSISTENT_NAME, "peerWeight.9")
    assert orders(store) == {1: (b"tea", 7)} and store.running.generation == 1 and len(handler.told) == 1


async def test_nothing_is_done_for_what_the_disk_does_not_take(
    store: Store, handler: Orders, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> None:
        raise StoreError("disk full")

    monkeypatch.setattr(store._writer, "_write", full)
    status, _, _ = await refused(store, {"peerRules.1": 0, "orderWhat.1": b"tea"})
    assert status is ErrorStatus.COMMIT_FAILED and not orders(store) and not handler.told
    await put(store, {"orderWhat.1": b"tea"})
    assert orders(store), "what needs no disk goes on"


async def test_each_set_sees_what_those_before_it_did(store: Store, handler: Orders) -> None:
    """Also where they share a turn of the writer."""
    sets: list[dict[str, Value]] = [
        {"peerRules.1": 0},
        {"orderWhat.1": b"a", "peerRules.2": 0},
        {"orderCount.1": 20},
        {"peerRules.3": 0},
        {"orderState.1": 2},
        {"orderCount.1": 30},
    ]
    results = await asyncio.gather(*(put(store, cells) for cells in sets), return_exceptions=True)
    assert [type(result) for result in results] == [type(None)] * 5 + [Refused]
    assert [kind for kind, *_ in handler.told] == ["made", "changed", "removed"]


async def test_a_handler_that_fails_does_not_take_the_answer_with_it(
    store: Store, handler: Orders, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(rows: object, asked: object) -> None:
        raise RuntimeError("no tea")

    monkeypatch.setattr(handler, "perform", broken)
    await put(store, {"peerRules.1": 0, "orderWhat.1": b"tea"})
    assert store.running.generation == 1 and "orderTable could not be carried out" in caplog.text


async def test_two_handlers_of_one_table_are_a_mistake(store: Store, handler: Orders) -> None:
    with pytest.raises(ValueError, match="handled already"):
        store.actions.register(Orders(store))


CELLS = st.dictionaries(
    st.sampled_from(["orderWhat.1", "orderCount.1", "orderState.1", "orderWhat.2", "orderCount.2", "peerRules.1"]),
    st.sampled_from([1, 2, 40, 60]),
    min_size=1,
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(first=CELLS, second=CELLS, seed=st.integers(0, 99))
def test_the_order_of_varbinds_does_not_matter(
    tmp_path_factory: pytest.TempPathFactory, first: dict[str, int], second: dict[str, int], seed: int
) -> None:
    async def outcome(shuffled: bool) -> tuple[object, ...]:
        opened = Store.open(SCHEMA, "sqlite://", tmp_path_factory.mktemp("state"))
        opened.actions.register(made := Orders(opened))
        results: list[object] = []
        for cells in (first, second):
            edits = [edit(name, _value(name, number)) for name, number in cells.items()]
            if shuffled:
                random.Random(seed).shuffle(edits)
            try:
                await opened.commit(edits, MANAGER)
                results.append("stored")
            except Refused as error:
                results.append(error.status)
        found = (results, orders(opened), made.told, opened.running.generation)
        await opened.close()
        return found

    assert asyncio.run(outcome(False)) == asyncio.run(outcome(True))


def _value(name: str, number: int) -> Value:
    return {"orderWhat": b"x", "orderState": min(number, 2), "peerRules": 0}.get(name.split(".")[0], number)
