"""Really damaged databases: read-only from the last copy, nothing done by it, until one SET accepts it."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from agent.mib import load_schema
from agent.mib.ber import Value
from agent.store import wal
from agent.store.copies import Copies
from agent.store.errors import ErrorStatus, Refused, StoreDamaged, StoreError
from agent.store.health import StoreState
from agent.store.hooks import AGENT, Change, Edit, Origin
from agent.store.opening import UNKNOWN_GAP, interim_of
from agent.store.store import Store, read_store
from tests.xfrm_namespace import until

SCHEMA = load_schema()
MANAGER = Origin("snmp", "admin", "192.0.2.9", "192.0.2.1", secure=True)
PEER, NAME = "ipsecPeerTable", "ipsecPeerDescription"
PAGE = 4096


def edit(instance: str, value: Value) -> Edit:
    name, number = instance.split(".")
    return Edit(SCHEMA.columns[name], int(number), value)


ACCEPT = [edit("ipsecGwCommand.0", 4)]


def database(state: Path) -> Path:
    return state / "agent.sqlite"


async def commit_peers(store: Store, *numbers: int) -> None:
    for number in numbers:
        await store.commit(
            [edit(f"ipsecPeerTrafficList.{number}", 0), edit(f"{NAME}.{number}", b"p%d" % number)], AGENT
        )


def peers(store: Store) -> list[int]:
    return list(store.running.table(PEER).numbers())


def kept_aside(state: Path) -> list[Path]:
    return sorted(path for path in state.iterdir() if path.name.startswith("agent.sqlite.damaged-"))


def make_copy(state: Path) -> int:
    return Copies(state / "copies", database(state)).make().generation


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 80 peers, the last five of them later than its only copy."""
    state = tmp_path_factory.mktemp("template")

    async def fill() -> None:
        store = Store.open(SCHEMA, "", state)
        await commit_peers(store, *range(1, 76))
        await store.remember("engine", {"boots": 7})
        assert make_copy(state) == 75
        await commit_peers(store, *range(76, 81))
        await store.close()

    asyncio.run(fill())
    return state


@pytest.fixture
def state(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "state"))


def truncated(path: Path, dice: random.Random) -> None:
    with path.open("r+b") as file:
        file.truncate(dice.randrange(1, path.stat().st_size // PAGE) * PAGE - dice.randrange(PAGE))


def header_overwritten(path: Path, dice: random.Random) -> None:
    with path.open("r+b") as file:
        file.write(dice.randbytes(100))


def pages_overwritten(path: Path, dice: random.Random) -> None:
    with closing(sqlite3.connect(path)) as connection:  # pages of tables that hold rows, so that it cannot be missed
        named = "SELECT rootpage FROM sqlite_master WHERE tbl_name IN ('ipsecPeerTable', 'agentState')"
        roots = [page for (page,) in connection.execute(named)]
    with path.open("r+b") as file:
        for page in dice.sample(roots, dice.randrange(1, len(roots) + 1)):
            file.seek((page - 1) * PAGE)
            file.write(dice.randbytes(PAGE))


def emptied(path: Path, dice: random.Random) -> None:
    path.write_bytes(b"")


def removed(path: Path, dice: random.Random) -> None:
    path.unlink()


def another_file(path: Path, dice: random.Random) -> None:
    path.write_bytes(b"this was a text file once\n" * dice.randrange(1, 4000))


DAMAGES = [truncated, header_overwritten, pages_overwritten, emptied, removed, another_file]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_store_is_read_only_until_one_set_accepts_it(
    state: Path, damage: Callable[[Path, random.Random], None], seed: int
) -> None:
    damage(database(state), random.Random(seed))
    octets = database(state).read_bytes() if database(state).exists() else None

    store = Store.open(SCHEMA, "", state)
    assert store.damaged and store.health.state is StoreState.READ_ONLY
    assert peers(store) == list(range(1, 76)) and store.numbers("engine") == {"boots": 7}
    message = store.health.message
    assert "agent.sqlite is damaged" in message and "generation 75" in message and "ipsecGwCommand.0" in message
    assert len(message.encode()) <= 255
    status = store.view.table("ipsecGwStatus").row(0)
    assert status is not None and (status["ipsecGwStoreState"], status["ipsecGwStoreMessage"]) == (2, message.encode())
    for edits in ([edit(f"{NAME}.1", b"x")], [edit("ipsecGwCommand.0", 2)], [*ACCEPT, edit(f"{NAME}.1", b"x")]):
        with pytest.raises(Refused) as refused:
            await store.commit(edits, MANAGER)
        assert refused.value.status is ErrorStatus.RESOURCE_UNAVAILABLE and "accept-store(4)" in refused.value.text
        assert refused.value.edit == len(edits) - 1
    await store.remember("engine", {"boots": 8})
    await store.close()
    assert (database(state).read_bytes() if database(state).exists() else None) == octets, "left as it is"

    store = Store.open(SCHEMA, "", state)  # a restart does not accept anything, and forgets nothing
    assert store.damaged and peers(store) == list(range(1, 76)) and store.numbers("engine") == {"boots": 8}
    heard: list[tuple[StoreState, str]] = []
    store.health.subscribe(lambda state, text: heard.append((state, text)))
    await asyncio.gather(store.commit(ACCEPT, MANAGER), store.commit(ACCEPT, MANAGER))  # a retry is one SET
    await store.sound()
    assert heard == [(StoreState.READ_ONLY, message), (StoreState.OK, "")]
    generation = store.running.generation
    assert generation == 81 or generation > UNKNOWN_GAP, "above all that may have been"
    await commit_peers(store, 90)
    assert store.running.generation == generation + 1
    await store.close()
    assert [path.read_bytes() for path in kept_aside(state)] == ([] if octets is None else [octets])

    store = Store.open(SCHEMA, "", state)
    assert not store.damaged and store.health.message == ""
    assert peers(store) == [*range(1, 76), 90] and store.numbers("engine") == {"boots": 8}
    await store.close()


async def test_what_is_lost_is_told_where_the_file_still_tells_it(state: Path) -> None:
    with closing(sqlite3.connect(database(state))) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'ipsecPeerTable'").fetchone()
    with database(state).open("r+b") as file:
        file.seek((page - 1) * PAGE)
        file.write(random.Random(1).randbytes(PAGE))
    store = Store.open(SCHEMA, "", state)
    assert "generations 76..80 are lost" in store.health.message
    told: list[Change] = []

    class Listener:
        def changed(self, change: Change) -> None:
            told.append(change)

    store.subscribe(Listener())
    assert (await store.commit(ACCEPT, MANAGER)).generation == 81
    await asyncio.sleep(0)
    assert [(change.generation, change.replay) for change in told] == [(81, True)]
    await store.close()


async def test_who_reads_beside_the_agent_reads_what_it_serves(state: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = database(state)
    file.write_bytes(file.read_bytes()[:PAGE] + bytes(50 * PAGE))
    with pytest.raises(StoreDamaged, match=r"agent\.sqlite is damaged .*an agent that starts serves the newest copy"):
        read_store(SCHEMA, "", state)
    store = Store.open(SCHEMA, "", state)
    assert read_store(SCHEMA, "", state).configuration.generation == store.running.generation == 75
    assert "read instead: agent.sqlite.interim, which the agent serves" in caplog.text
    await store.close()


async def test_a_damaged_copy_is_passed_over(state: Path) -> None:
    make_copy(state)
    newest = Copies(state / "copies", database(state)).newest_first()[0]
    assert newest.generation == 80
    header_overwritten(newest.path, random.Random(2))
    header_overwritten(database(state), random.Random(3))
    store = Store.open(SCHEMA, "", state)
    assert store.damaged and peers(store) == list(range(1, 76))
    assert "generations 76..80 and perhaps later ones are lost" in store.health.message, "the copy's name tells it"
    await store.close()


async def test_with_nothing_left_it_does_not_start_and_says_what_to_do(state: Path) -> None:
    for path in [database(state), *(state / "copies").iterdir()]:
        header_overwritten(path, random.Random(4))
    with pytest.raises(StoreDamaged, match=r"no copy in .* can be read\. Put a good agent\.sqlite"):
        Store.open(SCHEMA, "", state)
    assert not interim_of(database(state)).exists()
    shutil.rmtree(state / "copies")
    with pytest.raises(StoreError, match="Put a good"):
        Store.open(SCHEMA, "", state)


async def test_a_good_database_put_back_ends_it(state: Path) -> None:
    good = database(state).read_bytes()
    header_overwritten(database(state), random.Random(5))
    await Store.open(SCHEMA, "", state).close()
    database(state).write_bytes(good)
    store = Store.open(SCHEMA, "", state)
    assert not store.damaged and peers(store) == list(range(1, 81))
    assert not interim_of(database(state)).exists()
    await store.close()


# ---- the write-ahead log -------------------------------------------------------------------


async def with_a_log(state: Path) -> Path:
    """A state folder as a killed process leaves it: a copy of generation 3, ten more in the log."""
    live = state / "live"
    store = Store.open(SCHEMA, "", live)
    await commit_peers(store, 1, 2, 3)
    make_copy(live)
    await commit_peers(store, *range(4, 14))
    killed = state / "killed"
    shutil.copytree(live, killed)
    await store.close()
    return killed


def frames(log: Path) -> list[tuple[int, bool]]:
    """(offset, whether it ends a transaction)"""
    octets = log.read_bytes()
    step = wal.FRAME.size + PAGE
    return [(at, wal.FRAME.unpack_from(octets, at)[1] != 0) for at in range(wal.HEADER.size, len(octets), step)]


def scribble(path: Path, at: int, octets: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(octets)


async def test_a_log_as_a_crash_leaves_it_is_no_damage(tmp_path: Path) -> None:
    killed = await with_a_log(tmp_path)
    log = killed / "agent.sqlite-wal"
    commits = [at for at, ends in frames(log) if ends]
    found = wal.examine_log(log)
    assert found.commits == len(commits) and found.lost == 0
    for cut in (len(log.read_bytes()) - 1, commits[-1] + 100):  # a torn last transaction was never acknowledged
        with log.open("r+b") as file:
            file.truncate(cut)
        assert wal.examine_log(log) == wal.Log(len(commits) - 1, 0)
    scribble(log, commits[-2] + 500, b"torn")
    assert wal.examine_log(log).lost <= 1
    store = Store.open(SCHEMA, "", killed)
    await store.close()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
async def test_a_damaged_log_is_damage(tmp_path: Path, seed: int) -> None:
    killed = await with_a_log(tmp_path)
    log = killed / "agent.sqlite-wal"
    dice = random.Random(seed)
    commits = [at for at, ends in frames(log) if ends]
    at = dice.choice(commits[:-3])
    scribble(log, at + wal.FRAME.size + dice.randrange(PAGE - 64), dice.randbytes(64))
    before = wal.examine_log(log)
    assert before.lost >= 2
    store = Store.open(SCHEMA, "", killed)
    assert store.damaged and "write-ahead log" in store.health.message
    assert peers(store) == list(range(1, max(peers(store)) + 1)), "whole transactions, in their order"
    assert 3 <= len(peers(store)) < 13, "at least the copy"
    await store.close()
    assert wal.examine_log(log) == before, "left as it is"
    store = Store.open(SCHEMA, "", killed)
    await store.commit(ACCEPT, MANAGER)
    assert store.running.generation > UNKNOWN_GAP
    await store.close()
    assert any(path.name.endswith("-wal") for path in kept_aside(killed)), "kept"
    store = Store.open(SCHEMA, "", killed)
    assert not store.damaged
    await store.close()


async def test_a_log_whose_header_is_gone_is_damage(tmp_path: Path) -> None:
    killed = await with_a_log(tmp_path)
    scribble(killed / "agent.sqlite-wal", 0, random.Random(6).randbytes(32))
    store = Store.open(SCHEMA, "", killed)
    assert store.damaged and set(peers(store)) >= {1, 2, 3}
    await store.close()


@pytest.fixture(scope="module")
def octets_of_logs() -> Iterator[list[bytes]]:
    dice = random.Random(7)
    yield [dice.randbytes(dice.choice([0, 20, 56, 1000, 9000])) for _ in range(200)]


def test_any_octets_are_some_log(tmp_path: Path, octets_of_logs: list[bytes]) -> None:
    path = tmp_path / "x-wal"
    for octets in octets_of_logs:
        path.write_bytes(octets)
        assert wal.examine_log(path).commits == 0


# ---- writing fails while it runs -----------------------------------------------------------


async def test_a_failing_disk_is_shown_until_a_write_succeeds(tmp_path: Path) -> None:
    store = Store.open(SCHEMA, "", tmp_path)
    await commit_peers(store, 1)
    heard: list[tuple[StoreState, str]] = []
    store.health.subscribe(lambda state, text: heard.append((state, text)))
    # A limit on the size of the file, in pages, is what a full disk is to SQLite: SQLITE_FULL.
    connection = store._database._engine.connect()
    connection.exec_driver_sql("PRAGMA max_page_count = 1")
    connection.close()
    with pytest.raises(Refused) as refused:
        await commit_peers(store, *range(2, 400))
    assert refused.value.status is ErrorStatus.COMMIT_FAILED
    assert store.health.state is StoreState.FAILING and "full" in store.health.message
    last = max(peers(store))
    connection = store._database._engine.connect()
    connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    connection.close()
    await commit_peers(store, last + 1)
    assert store.health.state is StoreState.OK and store.health.message == ""
    assert [state for state, _ in heard] == [StoreState.FAILING, StoreState.OK]
    await store.close()


# ---- copies --------------------------------------------------------------------------------


async def test_two_copies_are_kept_and_only_of_other_generations(tmp_path: Path) -> None:
    store = Store.open(SCHEMA, "", tmp_path)
    await commit_peers(store, 1)
    store.keep_copies(interval=0.05)
    copies = Copies(tmp_path / "copies", database(tmp_path))

    def kept() -> list[int]:
        return [copy.generation for copy in copies.newest_first()]

    for number in range(2, 6):
        await until(lambda last=number - 1: kept()[:1] == [last])  # type: ignore[misc]
        await commit_peers(store, number)
    await store.close()
    assert kept() == [5, 4]
    for path in (tmp_path / "copies").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600 and path.suffix == ".sqlite"
    inode = [copy.path.stat().st_ino for copy in copies.newest_first()]
    store = Store.open(SCHEMA, "", tmp_path)
    store.keep_copies()
    await store.close()
    assert [copy.path.stat().st_ino for copy in copies.newest_first()] == inode, "nothing has moved"


async def test_a_clock_set_back_takes_no_copy_away(tmp_path: Path) -> None:
    """A machine without a clock of its own may have made copies in a year that is still to come."""
    store = Store.open(SCHEMA, "", tmp_path)
    copies = Copies(tmp_path / "copies", database(tmp_path))
    later = time.time() + 1e8
    for number in range(1, 3):
        await commit_peers(store, number)
        made = copies.make().path
        os.utime(made, (later + number, later + number))
    for number in range(3, 6):
        await commit_peers(store, number)
        copies.make()
        assert [copy.generation for copy in copies.newest_first()] == [number, number - 1]
    await store.close()


async def test_copies_go_on_when_their_folder_cannot_be_read_for_once(tmp_path: Path) -> None:
    store = Store.open(SCHEMA, "", tmp_path)
    await commit_peers(store, 1)
    odd = tmp_path / "copies" / "agent.7.sqlite"
    odd.parent.mkdir()
    odd.symlink_to(odd)
    store.keep_copies(interval=0.02)
    await until(lambda: store.health.message)
    assert "copies" in store.health.message and store.health.state is StoreState.OK
    odd.unlink()
    await until(lambda: not store.health.message)
    assert [copy.generation for copy in Copies(odd.parent, database(tmp_path)).newest_first()] == [1]
    await store.close()


async def test_a_database_damaged_while_it_runs_takes_no_copy_s_place(state: Path) -> None:
    pages_overwritten(database(state), random.Random(8))
    copies = Copies(state / "copies", database(state))
    with pytest.raises(StoreDamaged):
        copies.make()
    assert [copy.generation for copy in copies.newest_first()] == [75]


COPYING = """
import pathlib, sys
from agent.store.copies import Copies
state = pathlib.Path(sys.argv[1])
copies = Copies(state / "copies", state / "agent.sqlite")
print("ready", flush=True)
while True:
    copies.make()
"""


def test_killed_while_copying_what_is_named_is_whole(state: Path) -> None:
    dice = random.Random(9)
    for _ in range(12):
        process = subprocess.Popen([sys.executable, "-c", COPYING, str(state)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        time.sleep(dice.uniform(0, 0.1))
        process.kill()
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL
        found = Copies(state / "copies", database(state)).newest_first()
        assert found
        for copy in found:
            with closing(sqlite3.connect(copy.path)) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
                assert connection.execute("SELECT generation FROM agentState").fetchone() == (copy.generation,)
    assert make_copy(state) == 80
