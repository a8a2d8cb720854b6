"""ipsecGwFreeIndices: numbers that no row has, true at every moment, for every table that managers make rows in."""

from __future__ import annotations

import random
import time
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from agent.mib import load_schema
from agent.mib.ber import Value
from agent.mib.schema import Keeping
from agent.store.free import FREE_INDICES, FREE_SCALARS, MOST, free_number
from agent.store.hooks import AGENT, Edit, Origin
from agent.store.snapshot import TableSnapshot, default_cells
from agent.store.store import Store

SCHEMA = load_schema()
MANAGER = Origin("snmp", "admin", secure=True)
PEERS = SCHEMA.tables["ipsecPeerTable"]


def edit(instance: str, value: Value) -> Edit:
    name, number = instance.split(".")
    return Edit(SCHEMA.columns[name], int(number), value)


def shown(store: Store, scalar: str) -> Value:
    row = store.view.table(FREE_INDICES).row(0)
    assert row is not None
    return row[scalar]


def peers(*numbers: int) -> TableSnapshot:
    return TableSnapshot.build(PEERS, ((number, default_cells(PEERS, number)) for number in numbers))


def test_every_table_that_managers_make_rows_in_has_its_scalar() -> None:
    made = {
        table.name
        for table in SCHEMA.tables.values()
        if not table.scalar and table.keeping is Keeping.STORED and any(c.writable for c in table.creating)
    }
    assert made <= set(FREE_SCALARS.values())
    assert set(FREE_SCALARS) == {column.name for column in SCHEMA.tables[FREE_INDICES].columns}
    for table in FREE_SCALARS.values():
        assert not SCHEMA.tables[table].scalar and SCHEMA.tables[table].creating, table
    assert len(set(FREE_SCALARS.values())) == len(FREE_SCALARS)


@given(st.sets(st.one_of(st.integers(1, 12), st.integers(MOST - 3, MOST)), max_size=12))
def test_no_row_has_the_number(numbers: set[int]) -> None:
    free = free_number(peers(*sorted(numbers)))
    assert 1 <= free <= MOST and free not in numbers
    if MOST not in numbers:
        assert free == max(numbers, default=0) + 1
    else:
        assert set(range(1, free)) <= numbers, "the lowest gap"


def test_a_hundred_thousand_rows_cost_nothing() -> None:
    dice = random.Random(1)
    table = peers(*range(1, 100_001))
    begin = time.process_time()
    for _ in range(200):
        table = table.replaced({dice.randrange(1, 100_000): None})
        assert free_number(table) == 100_001
    assert time.process_time() - begin < 0.5  # measured: 0.02
    full = table.replaced({MOST: default_cells(PEERS, MOST)})
    assert free_number(full) not in full


async def test_the_scalars_follow_each_commit_and_each_publication(tmp_path: Path) -> None:
    store = Store.open(SCHEMA, "", tmp_path)
    assert {shown(store, scalar) for scalar in FREE_SCALARS} == {1}
    await store.commit([edit("ipsecPeerTrafficList.7", 0), edit("ipsecTrProto.3", 17)], MANAGER)
    assert (shown(store, "ipsecGwPeerFree"), shown(store, "ipsecGwTrafficFree")) == (8, 4)
    await store.commit([edit(f"ipsecPeerTrafficList.{MOST}", 0)], MANAGER)
    assert shown(store, "ipsecGwPeerFree") == 1
    await store.commit([edit(f"ipsecGwPeerRowStatus.{n}", 6) for n in (7, MOST)], AGENT)
    assert shown(store, "ipsecGwPeerFree") == 1
    store.live.update("ipsecGwDocumentTable", {4: {}})
    assert shown(store, "ipsecGwDocumentFree") == 5
    store.live.update("ipsecGwDocumentTable", {4: None})
    assert shown(store, "ipsecGwDocumentFree") == 1
    await store.close()
    store = Store.open(SCHEMA, "", tmp_path)
    assert (shown(store, "ipsecGwPeerFree"), shown(store, "ipsecGwTrafficFree")) == (1, 4)
    await store.close()
