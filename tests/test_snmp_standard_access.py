"""Who sees and changes what, as VACM's tables say it and as it is; and where messages may come from."""

from __future__ import annotations

import ipaddress
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.mib.ber import Value
from agent.mib.schema import Role
from agent.snmp.access import VIEWS, Level, visibility
from agent.snmp.sources import SourceLists
from agent.snmp.usm import AUTHENTICATION, key_of_passphrase
from agent.store.hooks import AGENT, Change, Edit, Origin, RowChange
from agent.store.snapshot import Configuration, TableSnapshot, default_cells
from tests.snmp_station import (
    GET,
    NULL,
    READ,
    SCHEMA,
    SET,
    WRITE,
    Ran,
    Served,
    dotted,
    encode_community,
    encode_pdu,
    instance,
    manager,
    run,
    served,
    text,
    until,
    walked,
)

pytestmark = pytest.mark.skipif(not shutil.which("snmpget"), reason="net-snmp's tools are not installed")

Oid = tuple[int, ...]
VACM = (1, 3, 6, 1, 6, 3, 16, 1)
NAME = (1, 3, 6, 1, 2, 1, 1, 5, 0)
PASSPHRASE = "a good passphrase"


async def write(at: Served, table: str, row: int, **values: Value) -> None:
    edits = [Edit(SCHEMA.columns[table + name], row, value) for name, value in values.items()]
    await at.store.commit(edits, AGENT)


async def add_user(at: Served, row: int, name: str, level: Level, **more: Value) -> None:
    key = key_of_passphrase(PASSPHRASE.encode(), AUTHENTICATION[5].hash)
    values: dict[str, Value] = {"Name": name.encode(), "Level": int(level), "AuthProtocol": 5, "PrivProtocol": 1}
    await write(at, "ipsecGwUser", row, **values, AuthKey=key, RowStatus=4, **more)


def as_user(name: str) -> tuple[str, ...]:
    return ("-v3", "-u", name, "-l", "authNoPriv", "-a", "SHA-256", "-A", PASSPHRASE)


# ---- VACM -----------------------------------------------------------------------------


async def test_vacm_tables_say_what_is_so(tmp_path: Path) -> None:
    """From a user's name through the four tables to the answer for an object (RFC 3415 section 3.2), compared with
    what the agent really lets each level do."""
    async with served(tmp_path) as at:
        await add_user(at, 5, "operator", Level.WRITE)
        await add_user(at, 6, "viewer", Level.READ)
        walk = await run("snmpwalk", "-v3", "-On", "-Oq", "-Ox", at.target, dotted(VACM), state=tmp_path)
    rows = dict(_quick(walk.out))

    def group(name: str) -> Oid:
        value = rows[(*VACM, 2, 1, 3, 3, len(name), *name.encode())]
        return tuple(value)

    def view(name: str, column: int) -> Oid:
        of = group(name)
        return tuple(rows[(*VACM, 4, 1, column, len(of), *of, 0, 3, 2)])

    def allows(of: Oid, oid: Oid) -> bool:
        prefix = (*VACM, 5, 2, 1, 4, len(of), *of)
        families = {k[len(prefix) + 1 :]: v for k, v in rows.items() if k[: len(prefix)] == prefix}
        matching = [subtree for subtree in families if oid[: len(subtree)] == subtree]
        return bool(matching) and families[max(matching, key=len)] == 1

    objects: list[Oid] = [column.oid for column in SCHEMA.ordered]
    objects += [NAME[:-1], (*VACM, 2, 1, 3), *((1, 3, 6, 1, 6, 3, 15, 1, 2, 2, 1, n) for n in range(3, 14))]
    for name, level in (("admin", Level.ADMIN), ("operator", Level.WRITE), ("viewer", Level.READ)):
        assert bytes(group(name)).decode() == level.name.lower()
        read, written = view(name, 5), view(name, 6)
        for oid in objects:
            real = visibility(oid)
            assert allows(read, oid) == bool(real.readers & level.bit), (name, oid)
            assert (bool(written) and allows(written, oid)) == bool(real.writers & level.bit), (name, oid)


def _quick(out: str) -> list[tuple[Oid, Any]]:
    """Lines of `-Oqx`: strings as octets, numbers as numbers."""
    found: list[tuple[Oid, Any]] = []
    for line in out.splitlines():
        name, _, value = line.partition(" ")
        if value.startswith("No more variables"):
            continue
        octets = value.startswith('"')
        number = tuple(map(int, name[1:].split(".")))
        found.append((number, bytes.fromhex(value.strip('"')) if octets else int(value)))
    return found


async def test_views_are_read_only(tmp_path: Path) -> None:
    async with served(tmp_path) as at:
        view = (*VACM, 4, 1, 5, 4, *b"read", 0, 3, 2)
        refused = await run("snmpset", "-v3", at.target, dotted(view), "s", "admin-read", state=tmp_path)
        assert "notWritable" in refused.err
        refused = await run("snmpvacm", "-v3", at.target, "deleteView", "read-read", ".1", state=tmp_path)
        assert "notWritable" in refused.err


async def test_the_group_of_a_user_is_its_level(tmp_path: Path) -> None:
    """By net-snmp's snmpvacm."""
    contact = ("1.3.6.1.2.1.1.4.0", "s", "me")
    async with served(tmp_path) as at:
        await add_user(at, 5, "someone", Level.READ)

        async def vacm(*words: str) -> Ran:
            return await run("snmpvacm", "-v3", at.target, *words, state=tmp_path)

        group = dotted((*VACM, 2, 1, 3, 3, 7, *b"someone"))
        assert (await run("snmpset", "-v3", at.target, group, "s", "write", state=tmp_path)).code == 0
        assert (await run("snmpset", *as_user("someone"), at.target, *contact)).code == 0
        assert (await vacm("deleteSec2Group", "3", "someone")).code == 0
        assert "Unknown user name" in (await run("snmpget", *as_user("someone"), at.target, dotted(NAME))).err
        assert "No Such Instance" in (await run("snmpget", "-v3", at.target, group, state=tmp_path)).out
        assert (await vacm("createSec2Group", "3", "someone", "read")).code == 0
        assert "authorizationError" in (await run("snmpset", *as_user("someone"), at.target, *contact)).err
        generation = at.store.running.generation
        for words, code in (
            (("createSec2Group", "3", "someone", "write"), "inconsistentValue"),
            (("createSec2Group", "3", "nobody", "write"), "inconsistentName"),
            (("createSec2Group", "2", "read-community", "write"), "notWritable"),
            (("deleteSec2Group", "1", "write-community"), "notWritable"),
            (("deleteSec2Group", "9", "someone"), "noCreation"),
        ):
            assert code in (await vacm(*words)).err, words
        for value, code in (("boss", "inconsistentValue"), ("", "wrongLength"), ("x" * 33, "wrongLength")):
            assert code in (await run("snmpset", "-v3", at.target, group, "s", value, state=tmp_path)).err
        status = dotted((*VACM, 2, 1, 5, 3, 7, *b"someone"))
        for number, code in (("2", "inconsistentValue"), ("5", "wrongValue"), ("9", "wrongValue"), ("1", "")):
            assert code in (await run("snmpset", "-v3", at.target, status, "i", number, state=tmp_path)).err
        assert at.store.running.generation == generation


async def test_levels(tmp_path: Path) -> None:
    """read changes nothing, write nothing of users, targets and sources, admin all; secrets nobody reads."""
    peer = (dotted(instance("ipsecGwPeerRowStatus", 1)), "i", "4")
    administration = [
        (dotted(instance("ipsecGwUserLevel", 1)), "i", "1"),
        (dotted(instance("ipsecGwTargetRowStatus", 1)), "i", "4"),
        (dotted(instance("ipsecGwSourceRowStatus", 1)), "i", "4"),
        (dotted(instance("ipsecGwFilterRowStatus", 1)), "i", "4"),
        (dotted(instance("ipsecGwReadSources", 0)), "i", "0"),
        (dotted(instance("ipsecGwWriteSources", 0)), "i", "0"),
    ]
    async with served(tmp_path) as at:
        await add_user(at, 5, "operator", Level.WRITE)
        await add_user(at, 6, "viewer", Level.READ)
        await add_user(at, 7, "chief", Level.ADMIN)
        for who, code in (("viewer", "authorizationError"), ("operator", ""), ("chief", "")):
            made = await run("snmpset", *as_user(who), at.target, *peer)
            assert (code in made.err) if code else made.code == 0 or "inconsistentValue" in made.err
        for setting in administration:
            for who, code in (("viewer", "authorizationError"), ("operator", "noAccess"), ("chief", "")):
                done = await run("snmpset", *as_user(who), at.target, *setting)
                assert code in done.err and (done.code == 0) == (not code), (who, setting, done)
        for who, sees in (("viewer", False), ("operator", False), ("chief", True)):
            for setting in administration:
                got = await run("snmpget", *as_user(who), at.target, setting[0])
                assert ("No Such Object" in got.out) != sees, (who, setting)
        walk = await run("snmpwalk", *as_user("chief"), "-On", at.target, ".1")
        shown = dict(walked(walk.out))
        for column in SCHEMA.columns.values():
            cells = [value for oid, value in shown.items() if oid[:-1] == column.oid]
            if column.traits.role is Role.SECRET:
                assert set(cells) <= {'STRING: "*"', '""'}, column.name
            elif column.traits.role is Role.SEALED:
                assert not cells


async def test_a_write_community_is_told_from_a_read_community(tmp_path: Path) -> None:
    async with served(tmp_path) as at, manager(at.address) as asking:
        contact = ((1, 3, 6, 1, 2, 1, 1, 4, 0), text("me"))
        assert (await asking.ask(SET, [contact], community=READ)).status == 16
        assert at.server.counters.snmpInBadCommunityUses == 1
        assert (await asking.ask(SET, [contact], community=WRITE)).status == 0
        assert at.server.counters.snmpInBadCommunityUses == 1


def test_no_view_gives_administration_away() -> None:
    for level in (Level.WRITE, Level.READ):
        for table in ("ipsecGwUserTable", "ipsecGwTargetTable", "ipsecGwSourceTable", "ipsecGwFilterTable"):
            for column in SCHEMA.tables[table].columns:
                assert not visibility(column.oid).readers & level.bit
                assert not visibility(column.oid).writers & level.bit
    assert not VIEWS[Level.READ].write


# ---- sources --------------------------------------------------------------------------


async def gets(at: Served, source: str, community: str = READ, target: str = "127.0.0.1") -> bool:
    """Whether a GET from this address of ours is answered, which is in the turn of the loop that it comes in."""
    counters = at.server.counters
    async with manager((target, at.address[1]), source) as asking:
        came, went = counters.snmpInPkts, counters.snmpOutPkts
        asking.send(encode_community(1, community, encode_pdu(GET, 9, [(NAME, NULL)])))
        await until(lambda: counters.snmpInPkts > came)
        if counters.snmpOutPkts == went:
            assert asking.received.empty()
            return False
        await asking.receive()
        return True


async def test_communities_come_from_their_networks_only(tmp_path: Path) -> None:
    async with served(tmp_path, [("0.0.0.0", 0)]) as at:
        assert await gets(at, "127.0.0.9")
        await write(at, "ipsecGwSource", 1, List=3, Address=bytes((127, 0, 0, 0)), PrefixLength=29, RowStatus=4)
        await write(at, "ipsecGw", 0, ReadSources=3)
        counters = at.server.counters
        assert await gets(at, "127.0.0.7")
        assert (counters.snmpInBadCommunityNames, counters.elsewhere) == (0, 0)
        assert not await gets(at, "127.0.0.9")
        assert (counters.snmpInBadCommunityNames, counters.elsewhere) == (1, 1)
        assert await gets(at, "127.0.0.9", WRITE)  # its list is another, 0
        await write(at, "ipsecGwSource", 2, List=3, Address=bytes((127, 0, 0, 9)), PrefixLength=32, RowStatus=4)
        assert await gets(at, "127.0.0.9")
        await write(at, "ipsecGwSource", 2, RowStatus=2)
        assert not await gets(at, "127.0.0.9")
        await write(at, "ipsecGw", 0, ReadSources=4)  # a list without a network: nobody
        assert not await gets(at, "127.0.0.7")
        await write(at, "ipsecGw", 0, ReadSources=0)
        assert await gets(at, "127.0.0.9")


async def test_a_write_community_comes_from_its_networks_only(tmp_path: Path) -> None:
    contact = ((1, 3, 6, 1, 2, 1, 1, 4, 0), text("me"))
    async with served(tmp_path, [("0.0.0.0", 0)]) as at:
        await write(at, "ipsecGwSource", 1, List=5, Address=bytes((127, 0, 0, 2)), PrefixLength=32, RowStatus=4)
        await write(at, "ipsecGw", 0, WriteSources=5)
        generation = at.store.running.generation
        target = ("127.0.0.1", at.address[1])
        async with manager(target, "127.0.0.9") as stranger, manager(target, "127.0.0.2") as known:
            stranger.send(encode_community(1, WRITE, encode_pdu(SET, 9, [contact])))
            assert await gets(at, "127.0.0.9"), "the read community's list is another"
            assert at.store.running.generation == generation and stranger.received.empty()
            assert (await known.ask(SET, [contact])).status == 0
        assert at.store.running.generation == generation + 1


async def test_users_come_from_their_networks_only(tmp_path: Path) -> None:
    """A user who is not there gets the answer of a user who is not; there is no telling them apart."""
    async with served(tmp_path, [("127.0.0.1", 0), ("::1", 0)]) as at:
        six = f"udp6:[::1]:{at.server.addresses[1][1]}"
        await add_user(at, 5, "bound", Level.READ, SourceList=8)
        await add_user(at, 6, "free", Level.READ)
        await write(at, "ipsecGwSource", 1, List=8, Address=bytes(15) + b"\x01", PrefixLength=128, RowStatus=4)
        for who, target, seen in (
            ("bound", six, True),
            ("bound", at.target, False),
            ("free", six, True),
            ("free", at.target, True),
        ):
            before = at.server.counters.elsewhere, at.server.counters.usmStatsUnknownUserNames
            got = await run("snmpget", *as_user(who), target, dotted(NAME))
            assert (got.code == 0) == seen, (who, target, got)
            after = at.server.counters.elsewhere, at.server.counters.usmStatsUnknownUserNames
            assert after == (before if seen else (before[0] + 1, before[1] + 1))
            if not seen:
                nobody = await run("snmpget", *as_user("nobody"), target, dotted(NAME))
                assert nobody.err == got.err and "Unknown user name" in got.err


async def test_a_bound_user_changes_nothing_from_elsewhere(tmp_path: Path) -> None:
    async with served(tmp_path) as at:
        await add_user(at, 5, "bound", Level.ADMIN, SourceList=8)
        generation = at.store.running.generation
        put = await run("snmpset", *as_user("bound"), at.target, "1.3.6.1.2.1.1.4.0", "s", "x")
        assert put.code != 0
        assert at.store.running.generation == generation


addresses = st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address) | st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address)


@given(st.lists(st.tuples(st.integers(1, 2), addresses, st.integers(0, 128)), max_size=6), addresses, st.data())
def test_lists_admit_what_lies_in_one_of_their_networks(
    rows: list[tuple[int, Any, int]], source: Any, data: st.DataObject
) -> None:
    """Against arithmetic on numbers."""
    if rows and data.draw(st.booleans()):  # near one of them
        _, address, _ = data.draw(st.sampled_from(rows))
        source = type(address)(int(address) ^ data.draw(st.integers(0, 255)))
    table = SCHEMA.tables["ipsecGwSourceTable"]
    cells = []
    for number, (of, address, length) in enumerate(rows, 1):
        row = list(default_cells(table, number))
        for name, value in (("List", of), ("Address", address.packed), ("PrefixLength", length)):
            column = table.by_name["ipsecGwSource" + name]
            row[column.position] = column.encode(value)
        cells.append((number, tuple(row)))
    empty = Configuration.empty(SCHEMA)
    after = empty.replaced(1, {table.name: TableSnapshot.build(table, cells)})
    lists = SourceLists()
    lists.changed(Change(1, empty, after, (), Origin("start"), replay=True))
    for number in (0, 1, 2, 3):
        expected = number == 0 or any(
            of == number
            and address.version == source.version
            and int(address) >> (bits := address.max_prefixlen) - min(length, bits)
            == int(source) >> bits - min(length, bits)
            for of, address, length in rows
        )
        assert lists.admits(number, str(source)) == expected
        assert lists.admits(number, str(source)) == expected  # remembered


def test_other_tables_do_not_move_the_lists() -> None:
    lists = SourceLists()
    empty = Configuration.empty(SCHEMA)
    lists.changed(Change(1, empty, empty, (), Origin("start"), replay=True))
    lists.admits(5, "192.0.2.1")
    change = RowChange("ipsecPeerTable", 1, None, None, frozenset())
    lists.changed(Change(2, empty, empty, (change,), Origin("agent")))
    assert lists._known == {(5, "192.0.2.1"): False}
