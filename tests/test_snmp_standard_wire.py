"""The protocol itself by net-snmp's tools: IPv6, GETBULK, and what SNMPv1 is told of errors it does not know."""

from __future__ import annotations

import shutil
from bisect import bisect_right
from pathlib import Path

import pytest

from agent.snmp.access import Level, Principal
from agent.snmp.pdu import Request, Version
from agent.snmp.respond import Asker, failed
from agent.store.errors import ErrorStatus
from tests.snmp_station import (
    GETBULK,
    NULL,
    READ,
    SCHEMA,
    SET,
    WRITE,
    Session3,
    dotted,
    encode_pdu,
    instance,
    manager,
    run,
    served,
    text,
    walked,
)

pytestmark = pytest.mark.skipif(not shutil.which("snmpbulkget"), reason="net-snmp's tools are not installed")

SYSTEM = (1, 3, 6, 1, 2, 1, 1)
VERSIONS = {"v1": ("-v1", "-c", WRITE), "v2c": ("-v2c", "-c", WRITE), "v3": ("-v3",)}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("listen", ["::1", "::"])
async def test_everything_over_ipv6(tmp_path: Path, version: str, listen: str) -> None:
    async with served(tmp_path, [(listen, 0)]) as at:
        target = f"udp6:[::1]:{at.address[1]}"
        name = dotted((*SYSTEM, 5, 0))
        put = await run("snmpset", *VERSIONS[version], target, name, "s", "six", state=tmp_path)
        assert put.code == 0, put.err
        got = await run("snmpget", *VERSIONS[version], "-Oqv", target, name, state=tmp_path)
        assert got.out == '"six"\n'
        walk = await run("snmpwalk", *VERSIONS[version], "-On", target, dotted(SYSTEM), state=tmp_path)
        assert len(walked(walk.out)) == 8 + 3 * (9 + len(SCHEMA.modules))
        assert at.store.running.scalar("ipsecGwSystemName") == b"six"


async def test_v1_and_v2c_walk_the_same(tmp_path: Path) -> None:
    """But for 64-bit counters, of which there are none in what is walked here, and for what moves."""
    async with served(tmp_path) as at:
        for root in (dotted((*SYSTEM, 9)), dotted((1, 3, 6, 1, 4, 1, 272))):
            walks = [
                walked((await run("snmpwalk", version, "-c", READ, "-On", at.target, root)).out)
                for version in ("-v1", "-v2c")
            ]
            wide = {column.oid for column in SCHEMA.ordered if column.wire.name == "COUNTER64"}
            assert walks[0] == [row for row in walks[1] if row[0][:-1] not in wide]


@pytest.mark.parametrize(("single", "repetitions"), [(0, 0), (0, 1), (1, 0), (2, 0), (1, 3), (2, 3), (5, 9), (-3, -4)])
async def test_getbulk_by_the_rule(tmp_path: Path, single: int, repetitions: int) -> None:
    """RFC 3416 section 4.2.3: one successor of each of the first N names, M of each of the rest; both numbers count
    as 0 where they are negative."""
    names = [(*SYSTEM, 1), (*SYSTEM, 3, 0), (*SYSTEM, 9, 1, 2)]
    async with served(tmp_path) as at, manager(at.address) as asking:
        order = [oid for oid, _ in await asking.walk((1, 3, 6, 1, 2, 1))]
        following = [order[bisect_right(order, name) :] for name in names]
        alone = max(single, 0)
        expected = [behind[0] for behind in following[:alone]]
        expected += [behind[n] for n in range(max(repetitions, 0)) for behind in following[alone:]]
        reply = await asking.ask(GETBULK, [(name, NULL) for name in names], single, repetitions)
        assert [oid for oid, _ in reply.varbinds] == expected
        if 0 <= single <= len(names):  # the tool refuses what the rule allows
            options = (f"-Cn{single}", f"-Cr{repetitions}")
            bulk = await run("snmpbulkget", "-v2c", "-c", READ, "-On", *options, at.target, *map(dotted, names))
            assert [oid for oid, _ in walked(bulk.out)] == expected


async def test_getbulk_is_cut_to_what_the_manager_takes(tmp_path: Path) -> None:
    """msgMaxSize: whole variable bindings up to it, in SNMPv3 by message."""
    async with served(tmp_path) as at, manager(at.address) as asking:
        session = await Session3.open(asking, tmp_path)
        full: list[tuple[tuple[int, ...], bytes]] = []
        for largest in (484, 600, 1000, 3000, 65_507):
            pdu = encode_pdu(GETBULK, 5, [((1, 3), NULL)], 0, 400)
            asking.send(session.message(pdu, largest=largest))
            message = await asking.receive()
            assert len(message) <= largest
            reply = session.read(message)
            assert reply.status == 0
            assert len(reply.varbinds) > len(full)
            moving = {(*SYSTEM, 3, 0)}
            assert [row for row in reply.varbinds if row[0] not in moving][: len(full)][:8] == [
                row for row in full if row[0] not in moving
            ][:8]
            full = reply.varbinds
        assert len(full) == 400


async def test_a_set_whose_answer_does_not_fit_is_not_carried_out(tmp_path: Path) -> None:
    """tooBig comes before anything is done: afterwards nobody would hear of it."""
    async with served(tmp_path) as at, manager(at.address) as asking:
        session = await Session3.open(asking, tmp_path)
        generation = at.store.running.generation
        varbinds = [((*SYSTEM, n, 0), text("x" * 200)) for n in (4, 5, 6)]
        asking.send(session.message(encode_pdu(SET, 5, varbinds), largest=484))
        reply = session.read(await asking.receive())
        assert (reply.status, reply.index, reply.varbinds) == (1, 0, [])
        assert at.store.running.generation == generation
        assert at.server.counters.snmpOutTooBigs == 1


E = ErrorStatus
RFC_3584_4_4 = {
    **dict.fromkeys((E.WRONG_VALUE, E.WRONG_ENCODING, E.WRONG_TYPE, E.WRONG_LENGTH), E.BAD_VALUE),
    E.INCONSISTENT_VALUE: E.BAD_VALUE,
    **dict.fromkeys((E.NO_ACCESS, E.NOT_WRITABLE, E.NO_CREATION, E.INCONSISTENT_NAME), E.NO_SUCH_NAME),
    E.AUTHORIZATION_ERROR: E.NO_SUCH_NAME,
    **dict.fromkeys((E.RESOURCE_UNAVAILABLE, E.COMMIT_FAILED, E.UNDO_FAILED, E.GEN_ERR), E.GEN_ERR),
}


@pytest.mark.parametrize("status", RFC_3584_4_4)
def test_errors_in_the_words_of_v1(status: ErrorStatus) -> None:
    request = Request(SET, b"\x02\x01\x05", 0, 0, [], b"body")
    principal = Principal("write-community", Level.WRITE)
    old = failed(request, Asker(principal, Version.V1, 1000), status, 3)
    new = failed(request, Asker(principal, Version.V2C, 1000), status, 3)
    assert (old.status, old.error_index, old.body) == (RFC_3584_4_4[status], 3, b"body")
    assert (new.status, new.error_index, new.body) == (status, 3, b"body")


async def test_v1_never_hears_of_what_it_does_not_know(tmp_path: Path) -> None:
    async with served(tmp_path) as at:
        for name, kind, value in (
            (dotted((*SYSTEM, 1, 0)), "s", "x"),
            (dotted((*SYSTEM, 4, 0)), "i", "1"),
            (dotted(instance("ipsecPeerPriority", 9)), "i", "1"),
        ):
            refused = await run("snmpset", "-v1", "-c", WRITE, at.target, name, kind, value)
            assert "noSuchName" in refused.err or "badValue" in refused.err
            assert f"Failed object: {name.replace('.1.3', 'iso.3', 1)}" in refused.err
        gone = await run("snmpget", "-v1", "-c", READ, at.target, dotted((*SYSTEM, 4, 0)), dotted((*SYSTEM, 99, 0)))
        assert "noSuchName" in gone.err
        end = await run("snmpgetnext", "-v1", "-c", READ, at.target, ".2.1")
        assert "noSuchName" in end.err
