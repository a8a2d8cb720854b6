"""Key sizes of proposals: what is stored is what the cipher can, by a real store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.keysizes import clamp_key_sizes, clamped
from agent.mib import load_schema
from agent.mib.ber import Value
from agent.monitor.constants import TwofishSizes, publish_constants
from agent.plan.capabilities import KEY_LIMITS, KEY_SIZES
from agent.store.hooks import AGENT, Edit, Origin
from agent.store.store import Store

SCHEMA = load_schema()
MANAGER = Origin("snmp", "admin", "127.0.0.1", secure=True)
CIPHERS = {"des": 2, "3des": 3, "blowfish": 4, "cast128": 5, "twofish": 6, "aes": 7}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store.open(SCHEMA, "", tmp_path)
    opened.expanders.append(clamp_key_sizes)
    try:
        yield opened
    finally:
        await opened.close()


async def put(store: Store, origin: Origin = MANAGER, /, **values: Value) -> None:
    await store.commit([Edit(SCHEMA.columns[name], 1, value) for name, value in values.items()], origin)


def read(store: Store, table: str, column: str) -> Value:
    row = store.running.row(table, 1)
    assert row is not None
    return row[column]


@pytest.mark.parametrize("cipher", CIPHERS)
@pytest.mark.parametrize("size", [1, 56, 168, 256, 2048])
@pytest.mark.parametrize("first", ["ikePropEncAlg", "ikePropEncKeySize"])
async def test_a_size_outside_the_limits_reads_back_as_the_limit(
    store: Store, cipher: str, size: int, first: str
) -> None:
    values: dict[str, Value] = {"ikePropEncAlg": CIPHERS[cipher], "ikePropEncKeySize": size}
    await put(store, **dict(sorted(values.items(), key=lambda item: item[0] != first)))
    smallest, _, largest = KEY_LIMITS[cipher]
    stored = read(store, "ikeProposalTable", "ikePropEncKeySize")
    assert stored == min(max(size, smallest), largest)
    await put(store, **values)
    assert store.running.generation == 1, "the same SET again is a retry: it changes nothing"


async def test_0_leaves_the_size_to_the_agent(store: Store) -> None:
    await put(store, ikePropEncAlg=3, ikePropEncKeySize=0)
    assert read(store, "ikeProposalTable", "ikePropEncKeySize") == 0
    assert clamped(0, "aes") == 0


async def test_the_cipher_of_the_row_counts_where_none_is_named(store: Store) -> None:
    await put(store, ikePropEncAlg=5)
    await put(store, ikePropEncKeySize=256)
    assert read(store, "ikeProposalTable", "ikePropEncKeySize") == 128
    await put(store, ipsecGwIkeProposalRowStatus=6)
    await put(store, ipsecGwIkeProposalRowStatus=5, ikePropEncKeySize=999)  # notInService, and the default, aes-cbc
    await put(store, ipsecGwIkeProposalRowStatus=1)
    assert read(store, "ikeProposalTable", "ikePropEncKeySize") == 256


async def test_another_cipher_takes_the_size_with_it(store: Store) -> None:
    await put(store, ikePropEncAlg=7, ikePropEncKeySize=256)
    await put(store, ikePropEncAlg=5)
    assert read(store, "ikeProposalTable", "ikePropEncKeySize") == 128
    await put(store, ikePropEncAlg=7, ikePropEncKeySize=192)
    assert read(store, "ikeProposalTable", "ikePropEncKeySize") == 192
    await put(store, ikePropHashAlg=1)
    assert store.running.row("ikeProposalTable", 1) is None


async def test_phase_2_has_a_size_for_each_cipher(store: Store) -> None:
    await put(store, AGENT, ipsecPropProto=1, ipsecPropBlowfishKeySize=448, ipsecPropBlowfishKeySizeMin=40)
    assert read(store, "ipsecProposalTable", "ipsecPropBlowfishKeySize") == 256
    assert read(store, "ipsecProposalTable", "ipsecPropBlowfishKeySizeMin") == 128
    await put(store, AGENT, ipsecPropAesKeySize=192)
    assert read(store, "ipsecProposalTable", "ipsecPropAesKeySize") == 192


def test_the_limits_are_those_of_the_engine() -> None:
    for cipher, sizes in KEY_SIZES.items():
        smallest, preset, largest = KEY_LIMITS[cipher]
        assert (smallest, largest) == (min(sizes), max(sizes)) and preset in sizes


async def test_twofish_is_of_one_length_where_it_may_not_vary(store: Store) -> None:
    publish_constants(store.live)
    store.subscribe(TwofishSizes(store.live), replay=True)

    for variable, longest in ((2, 128), (1, 256)):
        edit = Edit(SCHEMA.columns["ipsecGlobContSupportVarKeyLength4Twofish"], 0, variable)
        await store.commit([edit], MANAGER)
        for _ in range(100):  # hooks come after the reply
            row = store.live.table("ipsecAlgorithmTable").row(2)
            if row is not None and row["ipsecAlgMaxKeySize"] == longest:
                break
            await asyncio.sleep(0.01)
        assert row is not None
        sizes = [row[f"ipsecAlg{which}KeySize"] for which in ("Min", "Def", "Max")]
        assert sizes == [128, 128, longest]
