"""net-snmp's own tools against the served store: what a person at a terminal sees."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import stat
import threading
from pathlib import Path

import pytest

from agent.snmp.access import VIEWS, Level, in_view
from agent.store.database import Writing
from tests.snmp_station import (
    IPSEC,
    PATIENCE,
    READ,
    SCHEMA,
    WRITE,
    Served,
    dotted,
    instance,
    run,
    served,
    until,
    walked,
)

pytestmark = pytest.mark.skipif(not shutil.which("snmpset"), reason="net-snmp's tools are not installed")

ROW_STATUS = "ipsecGwPeerRowStatus"


async def fill(at: Served, peers: int = 3) -> None:
    for number in range(1, peers + 1):
        row = 7 * number
        made = await run(
            *("snmpset", "-v2c", "-c", WRITE, at.target),
            *(dotted(instance("ipsecTrProto", row)), "i", "255"),
            *(dotted(instance("ipsecPeerTrafficList", row)), "i", str(row)),
            *(dotted(instance("ipsecPeerDescription", row)), "s", f"Branch {number}"),
            *(dotted(instance("ipsecPeerPreSharedKey", row)), "s", "hush hush"),
        )
        assert made.code == 0, made.err


async def test_the_printed_line_works_as_pasted(tmp_path: Path) -> None:
    state = tmp_path / "state of 'affairs'"
    async with served(state) as at:
        line = at.server.walk_command
        process = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", line, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await process.communicate()
    assert process.returncode == 0
    assert err == b""
    assert line.endswith(" .1.3.6.1.4.1.272") and "snmpwalk -v3" in line
    assert out.count(b"\n") > 70
    assert stat.S_IMODE((state / "snmp.conf").stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["plain", "with:colon", "$HOME `x` \\"])
async def test_the_printed_line_quotes_any_folder(tmp_path: Path, name: str) -> None:
    async with served(tmp_path / name, [("::1", 0)]) as at:
        process = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", at.server.walk_command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert out


async def test_a_walk_goes_strictly_forward_and_is_the_same_by_both_ways(tmp_path: Path) -> None:
    async with served(tmp_path) as at:
        await fill(at)
        fast = await run("snmpwalk", "-v2c", "-c", WRITE, "-On", at.target, dotted(IPSEC))
        bulk = await run("snmpbulkwalk", "-v2c", "-c", READ, "-On", "-Cr37", at.target, dotted(IPSEC))
        slow = await run("snmpwalk", "-v3", "-On", at.target, dotted(IPSEC), state=tmp_path)
        slow_bulk = await run("snmpbulkwalk", "-v3", "-On", at.target, dotted(IPSEC), state=tmp_path)
        whole = await run("snmpwalk", "-v2c", "-c", READ, "-On", at.target, ".1")
    rows, of_admin = walked(fast.out), walked(slow.out)
    oids = [oid for oid, _ in of_admin]
    assert all(a < b for a, b in itertools.pairwise(oids))
    accessible_rows = {"ipsecPeerTable": 3, "ipsecTrafficTable": 3, "ipsecGwUserTable": 1}
    expected = 0
    for column in SCHEMA.ordered:
        table = SCHEMA.tables[column.table]
        expected += 1 if table.scalar else accessible_rows.get(table.name, 0)
    assert len(of_admin) == expected
    assert of_admin == walked(slow_bulk.out)
    assert rows == walked(bulk.out) == [row for row in of_admin if in_view(VIEWS[Level.READ].read, row[0])]
    everything = [oid for oid, _ in walked(whole.out)]
    assert all(a < b for a, b in itertools.pairwise(everything))
    assert everything[:7] == [(1, 3, 6, 1, 2, 1, 1, n, 0) for n in range(1, 8)]
    assert [oid for oid in everything if oid[: len(IPSEC)] == IPSEC] == [oid for oid, _ in rows]


async def test_secrets_never_come_back(tmp_path: Path) -> None:
    async with served(tmp_path) as at:
        await fill(at, 1)
        walk = await run("snmpwalk", "-v3", "-On", at.target, ".1", state=tmp_path)
        key = dotted(instance("ipsecPeerPreSharedKey", 7))
        assert f'{key} = STRING: "*"' in walk.out
        assert "hush" not in walk.out
        for hidden in ("ipsecPeerPreSharedKeyData", "ipsecGwUserAuthKey"):
            got = await run("snmpget", "-v2c", "-c", WRITE, "-On", at.target, dotted(instance(hidden, 7)))
            assert "No Such Object" in got.out
            put = await run("snmpset", "-v2c", "-c", WRITE, at.target, dotted(instance(hidden, 7)), "s", "x")
            assert "noAccess" in put.err


EIGHT = [
    ("ipsecPeerDescription", "s", "Branch", "i", "1"),
    ("ipsecPeerPriority", "i", "3", "s", "x"),
    ("ipsecPeerStartMode", "i", "1", "i", "9"),
    ("ipsecPeerLocalId", "s", "", "s", "x" * 256),
    ("ipsecPeerDynamicAddress", "s", "192.0.2.1", "a", "192.0.2.1"),
    ("ipsecPeerAdminStatus", "i", "1", "i", "3"),
    ("ipsecPeerLocalAddress", "a", "0.0.0.0", "s", "0000"),
    ("ipsecPeerPeerIds", "s", "them", "u", "7"),
]


@pytest.mark.parametrize("options", [("-v1", "-c", WRITE), ("-v2c", "-c", WRITE), ("-v3",)], ids=["v1", "v2c", "v3"])
async def test_of_eight_varbinds_the_wrong_one_is_named(tmp_path: Path, options: tuple[str, ...]) -> None:
    async with served(tmp_path) as at:
        generation = at.store.running.generation
        for wrong in range(8):
            command = ["snmpset", *options, at.target]
            for place, (name, kind, value, bad_kind, bad_value) in enumerate(EIGHT):
                command += [dotted(instance(name, 1)), *((bad_kind, bad_value) if place == wrong else (kind, value))]
            answer = await run(*command, state=tmp_path)
            assert answer.code == 2
            failed = dotted(instance(EIGHT[wrong][0], 1)).replace(".1.3", "iso.3", 1)
            assert f"Failed object: {failed}\n" in answer.err, answer.err
        walk = await run("snmpwalk", "-v2c", "-c", WRITE, at.target, dotted(SCHEMA.tables["ipsecPeerTable"].oid))
        assert "No Such" in walk.out or "No more variables" in walk.out
        assert at.store.running.generation == generation
        assert len(at.refused) == 8
        # eight right ones lack the creating column: the row cannot be made, and again nothing is left
        good = [part for name, kind, value, *_ in EIGHT for part in (dotted(instance(name, 1)), kind, value)]
        answer = await run("snmpset", *options, at.target, *good, state=tmp_path)
        assert "inconsistentName" in answer.err or "noSuchName" in answer.err
        creating = (dotted(instance("ipsecPeerTrafficList", 1)), "i", "0")
        answer = await run("snmpset", *options, at.target, *good, *creating, state=tmp_path)
        assert answer.code == 0, answer.err
        assert at.store.running.generation == generation + 1


def held(at: Served, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Let the store's thread wait for this before it writes."""
    write, go_on = at.store._writer._write, threading.Event()

    def later(writing: Writing) -> None:
        go_on.wait(PATIENCE)
        write(writing)

    monkeypatch.setattr(at.store._writer, "_write", later)
    return go_on


@pytest.mark.parametrize("options", [("-v2c", "-c", WRITE), ("-v3",)], ids=["v2c", "v3"])
async def test_a_retried_set_is_carried_out_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    async with served(tmp_path) as at:
        go_on = held(at, monkeypatch)
        generation = at.store.running.generation
        asked = asyncio.ensure_future(
            run(
                *("snmpset", *options, "-t", "0.2", "-r", "100", at.target),
                *(dotted(instance(ROW_STATUS, 1)), "i", "4"),
                state=tmp_path,
            )
        )
        await until(lambda: at.server.sets.counters.joined >= 2)
        meanwhile = await run("snmpget", "-v3", at.target, dotted(instance("ipsecGwGeneration", 0)), state=tmp_path)
        go_on.set()
        answer = await asked
        assert answer.code == 0, answer.err
        assert at.store.running.generation == generation + 1
        assert meanwhile.out.endswith(f"Gauge32: {generation}\n")  # reads went on


async def test_who_may_what(tmp_path: Path) -> None:
    name = dotted(instance("ipsecGlobContDefaultRule", 0))
    async with served(tmp_path) as at:
        reader = await run("snmpset", "-v2c", "-c", READ, at.target, name, "i", "2")
        assert "authorizationError" in reader.err
        reader = await run("snmpset", "-v1", "-c", READ, at.target, name, "i", "2")
        assert "noSuchName" in reader.err
        stranger = await run("snmpget", "-v2c", "-c", "public", "-t", "0.3", "-r", "0", at.target, name)
        assert "Timeout" in stranger.err
        assert at.server.counters.snmpInBadCommunityNames == 1
        unknown = await run("snmpget", "-v3", "-u", "nobody", at.target, name, state=tmp_path)
        assert "Unknown user name" in unknown.err
        wrong = await run("snmpget", "-v3", "-A", "not the passphrase", at.target, name, state=tmp_path)
        assert "Authentication failure" in wrong.err
        weaker = await run("snmpget", "-v3", "-l", "authNoPriv", at.target, name, state=tmp_path)
        assert "Unsupported security level" in weaker.err
        elsewhere = await run("snmpget", "-v3", "-n", "elsewhere", at.target, name, state=tmp_path)
        assert "Bad context" in elsewhere.err
        writer = await run("snmpset", "-v3", at.target, name, "i", "2", state=tmp_path)
        assert writer.code == 0, writer.err


async def test_v1_does_not_see_64_bits(tmp_path: Path) -> None:
    column = SCHEMA.columns["ipsecBundleInBytesNetto"]
    async with served(tmp_path) as at:
        at.store.live.update("ipsecBundleTable", {1: {column.name: 1 << 40}})
        name = dotted((*column.oid, 1))
        assert "Counter64: 1099511627776" in (await run("snmpget", "-v2c", "-c", READ, at.target, name)).out
        assert "noSuchName" in (await run("snmpget", "-v1", "-c", READ, at.target, name)).err
        entry = dotted(SCHEMA.tables["ipsecBundleTable"].oid)
        v1 = await run("snmpwalk", "-v1", "-c", READ, "-On", at.target, entry)
        v2 = await run("snmpwalk", "-v2c", "-c", READ, "-On", at.target, entry)
        wide = [row for row in walked(v2.out) if row[1].startswith("Counter64")]
        assert len(wide) == 8
        assert walked(v1.out) == [row for row in walked(v2.out) if row not in wide]
