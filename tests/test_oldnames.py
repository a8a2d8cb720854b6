"""Rijndael, the old name of AES: a rank written to it is AES's rank, by a real store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.mib import load_schema
from agent.mib.ber import Value
from agent.oldnames import rijndael_is_aes
from agent.store.errors import Refused
from agent.store.hooks import Edit, Origin
from agent.store.store import Store

SCHEMA = load_schema()
MANAGER = Origin("snmp", "admin", "127.0.0.1", secure=True)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store.open(SCHEMA, "", tmp_path)
    opened.expanders.append(rijndael_is_aes)
    try:
        yield opened
    finally:
        await opened.close()


async def put(store: Store, **values: Value) -> None:
    await store.commit([Edit(SCHEMA.columns[name], 1, value) for name, value in values.items()], MANAGER)


def ranks(store: Store) -> tuple[Value, Value]:
    row = store.running.row("ipsecProposalTable", 1)
    assert row is not None
    return row["ipsecPropEspAes"], row["ipsecPropEspRijndael"]


async def test_a_rank_of_the_old_name_is_that_of_aes(store: Store) -> None:
    await put(store, ipsecPropProto=1, ipsecPropEspRijndael=3)
    assert ranks(store) == (3, -1)
    await put(store, ipsecPropEspRijndael=3)
    assert store.running.generation == 1, "the same SET again is a retry: it changes nothing"
    await put(store, ipsecPropEspRijndael=0)
    assert ranks(store) == (0, -1)
    await put(store, ipsecPropEspRijndael=-1, ipsecPropEspAes=2)
    assert ranks(store) == (2, -1)


async def test_both_names_may_say_the_same_and_nothing_else(store: Store) -> None:
    await put(store, ipsecPropProto=1, ipsecPropEspRijndael=2, ipsecPropEspAes=2)
    assert ranks(store) == (2, -1)
    with pytest.raises(Refused, match="rank 1 in the same SET") as refused:
        await put(store, ipsecPropEspRijndael=2, ipsecPropEspAes=1)
    assert refused.value.edit == 0
