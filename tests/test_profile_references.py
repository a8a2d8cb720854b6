"""ipsecPeerIkeProfile points into the table of profiles that the peer's IKE version says; by a real store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.backends.usage import Usage
from agent.mib import load_schema
from agent.mib.ber import Value
from agent.plan.model import RowRef
from agent.store.errors import Refused
from agent.store.hooks import Edit, Origin, differences
from agent.store.labels import label
from agent.store.load import Contents, LoadRefused
from agent.store.store import Store

SCHEMA = load_schema()
MANAGER = Origin("snmp", "admin", "127.0.0.1", secure=True)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """Profile 5 of version 1, profiles 5 and 6 of version 2."""
    opened = Store.open(SCHEMA, "", tmp_path)
    await put(opened, 5, ikePrfProposal=0, ikev2PrfIndex=5, ikePrfDescription=b"main office")
    await put(opened, 6, ikev2PrfIndex=6)
    try:
        yield opened
    finally:
        await opened.close()


async def put(store: Store, number: int, **values: Value) -> None:
    await store.commit([Edit(SCHEMA.columns[name], number, value) for name, value in values.items()], MANAGER)


async def test_the_version_says_which_table_has_to_have_the_row(store: Store) -> None:
    with pytest.raises(Refused, match="no row 6 in ikeProfileTable"):
        await put(store, 1, ipsecPeerTrafficList=0, ipsecPeerIkeProfile=6)
    await put(store, 1, ipsecPeerTrafficList=0, ipsecPeerIkeProfile=6, ipsecPeerIkeVersion=2)
    with pytest.raises(Refused, match="no row 6 in ikeProfileTable") as refused:
        await put(store, 1, ipsecPeerDescription=b"x", ipsecPeerIkeVersion=1)
    assert refused.value.edit == 1, "the version is to blame"
    await put(store, 1, ipsecPeerIkeVersion=1, ipsecPeerIkeProfile=5)


async def test_a_row_in_use_stays_and_its_namesake_goes(store: Store) -> None:
    await put(store, 1, ipsecPeerTrafficList=0, ipsecPeerIkeProfile=5, ipsecPeerIkeVersion=2)
    with pytest.raises(
        Refused, match=r"in use by ipsecPeerIkeProfile\.1; .* once ipsecPeerIkeProfile\.1 names another"
    ):
        await put(store, 5, ikev2PrfNatT=4)
    await put(store, 5, ikePrfAuthMethod=15)
    assert store.running.row("ikeProfileTable", 5) is None
    await put(store, 1, ipsecPeerIkeProfile=0)
    await put(store, 5, ikev2PrfNatT=4)
    assert store.running.row("ikev2ProfileTable", 5) is None


async def test_usage_counts_the_profile_of_the_version(store: Store) -> None:
    usage = Usage(SCHEMA)
    await put(store, 1, ipsecPeerTrafficList=0, ipsecPeerIkeProfile=5)
    usage.rebuild(store.running)
    assert RowRef("ikeProfileTable", 5) in usage.used and RowRef("ikev2ProfileTable", 5) not in usage.used
    before = store.running
    await put(store, 1, ipsecPeerIkeVersion=2)
    moved = usage.moved(store.running, differences(before, store.running))
    assert moved == {RowRef("ikeProfileTable", 5), RowRef("ikev2ProfileTable", 5)}
    assert RowRef("ikev2ProfileTable", 5) in usage.used


async def test_a_load_is_held_to_the_same(store: Store) -> None:
    rows: dict[str, dict[int, dict[str, Value]]] = {
        "ikev2ProfileTable": {6: {}},
        "ipsecPeerTable": {1: {"ipsecPeerIkeProfile": 6, "ipsecPeerIkeVersion": 2}},
    }
    await store.load(Contents(rows), MANAGER, "a file")
    rows["ipsecPeerTable"][1] = {"ipsecPeerIkeProfile": 6}
    with pytest.raises(LoadRefused, match="no row 6 in ikeProfileTable"):
        await store.load(Contents(rows), MANAGER, "a file")


async def test_the_description_names_a_profile_in_what_is_told(store: Store) -> None:
    assert label(store.running, "ikeProfileTable", 5) == 'ikeProfileTable 5 "main office"'
