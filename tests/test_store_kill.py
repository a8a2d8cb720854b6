"""kill -9 of a process that commits: what it acknowledged is there, and each SET whole or not at all."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.mib import load_schema
from agent.store.database import DELAY_VARIABLE
from agent.store.secrets import KEY_FILE
from agent.store.store import Store

SCHEMA = load_schema()
PEER, RULE = "ipsecPeerTable", "ipsecTrafficTable"
ROUNDS = 8

COMMITS = """
import asyncio, itertools, pathlib, sys
from agent.mib import load_schema
from agent.store.hooks import AGENT, Edit
from agent.store.store import Store

schema = load_schema()
store = Store.open(schema, "", pathlib.Path(sys.argv[1]))
numbers = itertools.count(max([0, *store.running.table("ipsecPeerTable").numbers()]) + 1)

async def one():
    while True:
        n = next(numbers)
        cells = {"ipsecPeerTrafficList": n, "ipsecTrProto": n % 255 + 1, "ipsecPeerPriority": n % 1000,
                 "ipsecPeerPreSharedKey": b"key %d" % n}
        after = await store.commit([Edit(schema.columns[c], n, v) for c, v in cells.items()], AGENT)
        sys.stdout.write(f"{n} {after.generation}\\n")
        sys.stdout.flush()

async def main():
    print("ready", flush=True)
    await asyncio.gather(*[one() for _ in range(12)])

asyncio.run(main())
"""


def some_commits(state: Path, seconds: float, least: int) -> list[tuple[int, int]]:
    """(row, generation) of what a process acknowledged until it was killed, so long after it had acknowledged `least`
    of them."""
    process = subprocess.Popen([sys.executable, "-c", COMMITS, str(state)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    lines = [process.stdout.readline().rstrip("\n") for _ in range(least)]
    time.sleep(seconds)
    process.kill()
    lines += process.stdout.read().split("\n")[:-1]
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    return [(int(row), int(generation)) for row, generation in map(str.split, lines)]


def killed_start(state: Path, seconds: float) -> None:
    """A process that is killed this long after it made its state folder."""
    process = subprocess.Popen([sys.executable, "-c", COMMITS, str(state)], stdout=subprocess.DEVNULL)
    while not state.exists() and process.poll() is None:
        time.sleep(0.002)
    time.sleep(seconds)
    process.kill()
    process.wait()


@pytest.mark.slow
async def test_everything_acknowledged_is_there_and_nothing_half(tmp_path: Path) -> None:
    dice = random.Random(20261124)
    acknowledged: dict[int, int] = {}
    for _ in range(ROUNDS):
        acknowledged |= dict(await asyncio.to_thread(some_commits, tmp_path, dice.uniform(0.0, 0.4), 2))
        store = Store.open(SCHEMA, "", tmp_path)
        peers, rules = store.running.table(PEER), store.running.table(RULE)
        assert set(acknowledged) <= set(peers.numbers()), "acknowledged and gone"
        assert list(peers.numbers()) == list(rules.numbers()), "a peer without its rule, or the other way round"
        assert store.running.generation == len(peers), "one generation each"
        for peer in store.running.rows(PEER):
            n = peer.number
            rule = store.running.row(RULE, n)
            assert rule is not None and rule["ipsecTrProto"] == n % 255 + 1
            assert (peer["ipsecPeerTrafficList"], peer["ipsecPeerPriority"]) == (n, n % 1000)
            blob = peer["ipsecPeerPreSharedKeyData"]
            assert isinstance(blob, bytes)
            assert store.secrets.open(PEER, n, "ipsecPeerPreSharedKeyData", blob) == b"key %d" % n
            assert acknowledged.get(n, peer["ipsecGwPeerRowGeneration"]) == peer["ipsecGwPeerRowGeneration"]
        await store.close()
    assert len(acknowledged) > ROUNDS, "it was killed in the midst of commits"


@pytest.mark.slow
async def test_a_first_start_that_is_killed_leaves_a_store_that_opens(tmp_path: Path) -> None:
    for at in range(24):
        state = tmp_path / str(at)
        await asyncio.to_thread(killed_start, state, at * 0.003)
        store = Store.open(SCHEMA, "", state)
        assert len((state / KEY_FILE).read_bytes()) == 32
        await store.close()


async def test_killed_before_the_disk_has_it_nothing_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await Store.open(SCHEMA, "", tmp_path).close()
    monkeypatch.setenv(DELAY_VARIABLE, "60")
    assert await asyncio.to_thread(some_commits, tmp_path, 0.2, 0) == []
    monkeypatch.delenv(DELAY_VARIABLE)
    store = Store.open(SCHEMA, "", tmp_path)
    assert store.running.generation == 0 and len(store.running.table(PEER)) == 0
    await store.close()
