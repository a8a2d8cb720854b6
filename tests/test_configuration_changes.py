"""What is told of a change of the configuration: which rows were made, removed, and what of the others was changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.mib import load_schema
from agent.mib.ber import Value
from agent.monitor.changes import rows_named
from agent.store.hooks import AGENT, Change, Edit
from agent.store.store import Store

SCHEMA = load_schema()


class Told:
    """A subscriber that keeps what was said of the last change."""

    def __init__(self) -> None:
        self.text = ""
        self.heard = asyncio.Event()

    def changed(self, change: Change) -> None:
        self.text = rows_named(change)
        self.heard.set()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store.open(SCHEMA, "", tmp_path)
    yield opened
    await opened.close()


async def told(store: Store, **cells: Value) -> str:
    """`ipsecPeerPriority_1=5`: of row 1."""
    listener = Told()
    store.subscribe(listener)
    named = ((*key.split("_"), value) for key, value in cells.items())
    edits = [Edit(SCHEMA.columns[name], int(number), value) for name, number, value in named]
    await store.commit(edits, AGENT)
    async with asyncio.timeout(30):
        await listener.heard.wait()
    return listener.text


async def test_made_changed_and_removed_rows_are_told_apart(store: Store) -> None:
    made = await told(store, ipsecPeerTrafficList_1=0, ipsecPeerDescription_1=b"Branch", ipsecTrProto_7=255)
    assert made == 'made ipsecPeerTable 1 "Branch"; made ipsecTrafficTable 7'
    changed = await told(store, ipsecPeerPriority_1=5, ipsecPeerDescription_1=b"Branch west")
    assert changed == 'ipsecPeerTable 1 "Branch west" (ipsecPeerDescription, ipsecPeerPriority)'
    assert await told(store, ipsecGlobEnabled_0=1) == "ipsecGlobals (ipsecGlobEnabled)"
    assert (
        await told(store, ipsecTrAction_7=1, ipsecTrProto_8=6)
        == "removed ipsecTrafficTable 7; made ipsecTrafficTable 8"
    )
    assert await told(store, ipsecPeerAdminStatus_1=15) == 'removed ipsecPeerTable 1 "Branch west"'


async def test_of_many_rows_and_columns_some_are_named(store: Store) -> None:
    await told(store, **{f"ipsecTrProto_{number}": 6 for number in range(1, 7)})
    text = await told(store, **{f"ipsecTrDirection_{number}": 2 for number in range(1, 7)})
    assert text == "ipsecTrafficTable 1, 2, 3, 4 and 2 more (ipsecTrDirection)"
    ports = {"ipsecTrLocalPort_1": 1, "ipsecTrRemotePort_1": 2, "ipsecTrDescription_1": b"x", "ipsecTrDirection_1": 3}
    text = await told(store, **ports)
    assert text == 'ipsecTrafficTable 1 "x" (ipsecTrDescription, ipsecTrLocalPort, ipsecTrRemotePort and 1 more)'


async def test_a_secret_is_named_and_not_shown(store: Store) -> None:
    await told(store, ipsecPeerTrafficList_1=0)
    assert await told(store, ipsecPeerPreSharedKey_1=b"geheim") == (
        "ipsecPeerTable 1 (ipsecPeerPreSharedKey, ipsecPeerPreSharedKeyData)"
    )
