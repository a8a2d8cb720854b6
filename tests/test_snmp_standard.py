"""The standard objects against the modules that pysnmp brings along: names, numbers, types, none missing."""

from __future__ import annotations

import itertools
import socket
from pathlib import Path
from typing import Any

import pytest

from agent.mib.ber import decode_value, encode_integer
from agent.snmp.standard import standard_objects
from agent.snmp.standard.objects import AdvisoryLock, Picture, by_length, take_octets
from agent.store.errors import ErrorStatus as E
from agent.store.hooks import AGENT, Edit
from tests.snmp_station import (
    GET,
    NULL,
    READ,
    SCHEMA,
    SET,
    WRITE,
    Session3,
    decode_community,
    dotted,
    encode_community,
    encode_pdu,
    instance,
    manager,
    run,
    served,
    text,
    walked,
)

Oid = tuple[int, ...]
MODULES = (
    *("SNMPv2-MIB", "SNMP-FRAMEWORK-MIB", "SNMP-MPD-MIB", "SNMP-TARGET-MIB", "SNMP-NOTIFICATION-MIB"),
    *("SNMP-USER-BASED-SM-MIB", "SNMP-VIEW-BASED-ACM-MIB"),
)
SYSTEM, SNMP = (1, 3, 6, 1, 2, 1, 1), (1, 3, 6, 1, 2, 1, 11)
SERIAL = (1, 3, 6, 1, 6, 3, 1, 1, 6, 1, 0)
CONTACT, NAME, LOCATION = ((*SYSTEM, n, 0) for n in (4, 5, 6))


def described() -> dict[str, tuple[Oid, int, str]]:
    """OID, tag and access of every object of the modules that can be read or written; vacmContextStatus is pysnmp's
    own, no object of RFC 3415."""
    from pysnmp.smi import builder

    mibs = builder.MibBuilder()
    found: dict[str, tuple[Oid, int, str]] = {}
    for module in MODULES:
        mibs.load_modules(module)
        for name, symbol in mibs.mibSymbols[module].items():
            if type(symbol).__name__ in ("MibScalar", "MibTableColumn"):
                access = symbol.getMaxAccess()
                if access not in ("not-accessible", "accessible-for-notify") and name != "vacmContextStatus":
                    tag: Any = symbol.getSyntax().tagSet.superTags[-1]
                    found[name] = (tuple(symbol.name), tag.tagClass | tag.tagId, access)
    return found


async def test_every_object_of_the_modules_is_there_under_its_number_and_type(tmp_path: Path) -> None:
    """Read-only are vacmAccess… and vacmView…, as their compliance statement allows, and snmpTarget… and snmpNotify…,
    for which sysORTable does not claim more."""
    expected = described()
    async with served(tmp_path) as at:
        objects = {found.name: found for found in standard_objects(at.server.facts)}
    assert objects.keys() == expected.keys()
    for name, (oid, tag, access) in expected.items():
        assert (name, objects[name].oid, objects[name].wire) == (name, oid, tag)
        writable = objects[name].writer is not None
        pictures = name.startswith(("vacmAccess", "vacmView", "snmpTarget", "snmpNotify")) and "SpinLock" not in name
        assert writable == (access in ("read-write", "read-create") and not pictures), name


async def test_a_walk_of_everything_goes_forward_and_get_agrees(tmp_path: Path) -> None:
    async with served(tmp_path) as at:
        walk = await run("snmpbulkwalk", "-v3", "-On", "-Cr20", at.target, ".1.3.6.1", state=tmp_path)
        rows = walked(walk.out)
        oids = [oid for oid, _ in rows]
        assert all(a < b for a, b in itertools.pairwise(oids))
        ours = (1, 3, 6, 1, 4, 1, 272)
        standard = [oid for oid in oids if oid[: len(ours)] != ours]
        assert len(standard) > 180
        async with manager(at.address) as asking:
            session = await Session3.open(asking, tmp_path)
            for start in range(0, len(standard), 50):
                at_once = standard[start : start + 50]
                reply = await session.ask(GET, [(oid, NULL) for oid in at_once])
                assert [oid for oid, _ in reply.varbinds] == at_once
                assert all(tlv[0] < 0x80 for _, tlv in reply.varbinds)


# ---- system ---------------------------------------------------------------------------


async def test_contact_name_and_location_are_kept(tmp_path: Path) -> None:
    values = {CONTACT: "noc@example.net", NAME: "gw-1", LOCATION: "rack 3"}
    async with served(tmp_path) as at:
        for oid, value in values.items():
            put = await run("snmpset", "-v3", at.target, dotted(oid), "s", value, state=tmp_path)
            assert put.code == 0, put.err
        ours = await run("snmpget", "-v3", "-Oqv", at.target, dotted(instance("ipsecGwSystemName", 0)), state=tmp_path)
        assert ours.out == '"gw-1"\n'
    async with served(tmp_path) as at:
        for oid, value in values.items():
            got = await run("snmpget", "-v2c", "-c", READ, "-Oqv", at.target, dotted(oid))
            assert got.out == f'"{value}"\n'
        assert (await run("snmpset", "-v2c", "-c", WRITE, at.target, dotted(NAME), "s", "")).code == 0
        got = await run("snmpget", "-v2c", "-c", READ, "-Oqv", at.target, dotted(NAME))
        assert got.out == f'"{socket.gethostname()}"\n'


@pytest.mark.parametrize(
    ("oid", "value", "status", "v1"),
    [
        ((*SYSTEM, 1, 0), text("x"), E.NOT_WRITABLE, 2),
        ((*SYSTEM, 8, 0), encode_integer(1, 0x43), E.NOT_WRITABLE, 2),
        ((*SYSTEM, 9, 1, 3, 1), text("x"), E.NOT_WRITABLE, 2),
        (CONTACT, encode_integer(1), E.WRONG_TYPE, 3),
        (CONTACT, text("x" * 256), E.WRONG_LENGTH, 3),
        ((*SYSTEM, 4, 1), text("x"), E.NO_CREATION, 2),
        ((*SYSTEM, 4), text("x"), E.NO_CREATION, 2),
        ((*SNMP, 30, 0), encode_integer(3), E.WRONG_VALUE, 3),
        ((*SNMP, 30, 0), text("1"), E.WRONG_TYPE, 3),
        ((*SNMP, 30, 0), b"\x02\x00", E.WRONG_ENCODING, 3),
        ((*SNMP, 1, 0), encode_integer(0, 0x41), E.NOT_WRITABLE, 2),
        (SERIAL, encode_integer(-1), E.WRONG_VALUE, 3),
        ((1, 3, 6, 1, 6, 3, 16, 1, 1, 1, 1, 0), text("x"), E.NO_ACCESS, 2),
        ((1, 3, 6, 1, 6, 3, 15, 1, 2, 2, 1, 13, 1, 2), encode_integer(4), E.NO_ACCESS, 2),
    ],
)
async def test_a_wrong_set_of_a_standard_object(tmp_path: Path, oid: Oid, value: bytes, status: E, v1: int) -> None:
    """By itself, and behind one that would be fine: nothing of it happens, and the right one is named."""
    async with served(tmp_path) as at, manager(at.address) as asking:
        generation = at.store.running.generation
        fine = (CONTACT, text("me")) if oid[: len(CONTACT) - 1] != CONTACT[:-1] else (LOCATION, text("here"))
        for varbinds in (
            [(oid, value)],
            [fine, (instance("ipsecGwPeerRowStatus", 1), encode_integer(4)), (oid, value)],
        ):
            reply = await asking.ask(SET, varbinds)
            assert (E(reply.status), reply.index) == (status, len(varbinds))
            old = await asking.ask(SET, varbinds, version=0)
            assert (old.status, old.index) == (v1, len(varbinds))
        assert at.store.running.generation == generation
        assert (await asking.ask(GET, [(CONTACT, NULL)])).varbinds[0][1] == text("")


async def test_a_refusal_by_the_store_names_the_varbind(tmp_path: Path) -> None:
    """One varbind is none, one or several edits; error-index counts varbinds."""
    async with served(tmp_path) as at, manager(at.address) as asking:
        varbinds = [
            (CONTACT, text("me")),
            (instance("ipsecPeerIkeProfile", 4), encode_integer(77)),
            (instance("ipsecGwPeerRowStatus", 4), encode_integer(4)),
        ]
        reply = await asking.ask(SET, varbinds)
        assert (E(reply.status), reply.index) == (E.INCONSISTENT_VALUE, 2)
        reply = await asking.ask(SET, [varbinds[2], varbinds[0]])
        assert reply.status == 0


async def test_the_switch_of_authentication_failures_is_ours(tmp_path: Path) -> None:
    async with served(tmp_path) as at, manager(at.address) as asking:
        switch = (*SNMP, 30, 0)
        assert (await asking.ask(SET, [(switch, encode_integer(2))])).status == 0
        assert at.store.running.scalar("ipsecGwNotifyAuthentication") == 2
        assert (await asking.ask(GET, [(switch, NULL)])).varbinds[0][1] == encode_integer(2)


async def test_sysortable_lists_what_is_served(tmp_path: Path) -> None:
    """Each row is a module of which something answers."""
    async with served(tmp_path) as at:
        walk = await run("snmpwalk", "-v3", "-On", "-Oq", at.target, dotted((*SYSTEM, 9, 1, 2)), state=tmp_path)
        rows = [tuple(map(int, line.split()[1][1:].split("."))) for line in walk.out.splitlines()]
        assert len(rows) == len(set(rows)) == 9 + len(SCHEMA.modules)
        assert {module.oid for module in SCHEMA.modules} <= set(rows)
        for oid in rows:
            if oid[:6] == (1, 3, 6, 1, 6, 3) and oid[6] != 20:  # snmpModules but the one of AES, which has no objects
                found = await run("snmpgetnext", "-v3", "-On", at.target, dotted(oid[:7]), state=tmp_path)
                assert found.out.startswith(dotted(oid[:7]) + "."), oid


# ---- the advisory lock ----------------------------------------------------------------


async def serial(asking: Any) -> int:
    value = decode_value((await asking.ask(GET, [(SERIAL, NULL)])).varbinds[0][1])
    assert isinstance(value, int)
    return value


async def test_the_serial_number_lets_one_of_two_pass(tmp_path: Path) -> None:
    """snmpSetSerialNo (RFC 3418): whoever names its value moves it on; the other one reads again."""
    async with served(tmp_path) as at, manager(at.address) as one, manager(at.address) as other:
        now = await serial(one)
        lock = (SERIAL, encode_integer(now))
        before = at.store.running.generation
        for asking, name in ((one, "first"), (other, "second")):  # both before either is stored
            asking.send(encode_community(1, WRITE, encode_pdu(SET, 7, [(CONTACT, text(name)), lock])))
        answers = [decode_community(await asking.receive()) for asking in (one, other)]
        assert sorted((answer.status, answer.index) for answer in answers) == [(0, 0), (E.INCONSISTENT_VALUE, 2)]
        assert at.store.running.generation == before + 1
        assert await serial(one) == now + 1
        refused = await one.ask(SET, [(CONTACT, text("x" * 300)), (SERIAL, encode_integer(now + 1))])
        assert (refused.status, refused.index) == (E.WRONG_LENGTH, 1)
        assert await serial(one) == now + 1  # nothing happened, the lock neither
        alone = await one.ask(SET, [(SERIAL, encode_integer(now + 1))])
        assert alone.status == 0
        assert await serial(one) == now + 2


def test_a_lock_goes_round() -> None:
    lock = AdvisoryLock((1, 3), "lock")
    lock.value = 2**31 - 1
    lock._advance()
    assert lock.value == 0
    assert lock.instance((0,)) == encode_integer(0)
    assert lock.instance((1,)) is None


# ---- pictures -------------------------------------------------------------------------


def test_a_picture_is_drawn_again_only_when_what_it_shows_changed() -> None:
    drawn = []
    source: list[object] = [object()]

    def draw() -> dict[Oid, dict[int, bytes]]:
        drawn.append(1)
        return {(2,): {1: b"b"}, (1, 5): {1: b"a"}, (1,): {}}

    picture = Picture(draw, lambda: tuple(source))
    assert list(picture.after(())) == [(1,), (1, 5), (2,)]
    assert list(picture.after((1,))) == [(1, 5), (2,)]
    assert list(picture.after((2,))) == []
    assert len(drawn) == 1
    source[0] = object()
    assert picture.rows[2,] == {1: b"b"}
    assert len(drawn) == 2


@pytest.mark.parametrize("octets", [b"", b"a", bytes(32)])
def test_indices_of_strings(octets: bytes) -> None:
    assert take_octets((*by_length(octets), 7, 8)) == (octets, (7, 8))


@pytest.mark.parametrize("arcs", [(), (1,), (2, 3), (1, 256)])
def test_what_is_no_index_of_a_string(arcs: Oid) -> None:
    assert take_octets(arcs) is None


async def test_targets_and_filters_are_shown(tmp_path: Path) -> None:
    six = bytes.fromhex("20010db8000000000000000000000001")
    rows: list[tuple[str, int, dict[str, Any]]] = [
        ("ipsecGwUser", 5, {"Name": b"sender", "AuthProtocol": 5, "PrivProtocol": 1, "RowStatus": 4}),
        ("ipsecGwTarget", 1, {"Name": b"noc", "Address": bytes((192, 0, 2, 9)), "RowStatus": 4}),
        (
            "ipsecGwTarget",
            2,
            {"Name": b"noc", "Address": six, "Port": 1620, "Kind": 2, "Version": 3, "User": 5, "RowStatus": 5},
        ),
        ("ipsecGwFilter", 1, {"Target": 1, "Subtree": (1, 3, 6, 1, 4), "Type": 2, "Mask": b"\xf8", "RowStatus": 4}),
    ]
    async with served(tmp_path) as at:
        edits = [Edit(SCHEMA.columns[t + n], row, v) for t, row, values in rows for n, v in values.items()]
        await at.store.commit(edits, AGENT)
        walk = await run("snmpwalk", "-v3", "-On", "-OQ", at.target, ".1.3.6.1.6.3.12.1", state=tmp_path)
        shown = {dotted(oid): value for oid, value in walked(walk.out)}
        address, parameters = ".1.3.6.1.6.3.12.1.2.1.", ".1.3.6.1.6.3.12.1.3.1."
        noc = ".110.111.99"
        second = ".110.111.99.45.50"  # noc-2: a name is an index, so it is one row's only
        assert shown[address + "2" + noc] == ".1.3.6.1.6.1.1"
        assert shown[address + "3" + noc] == '"C0 00 02 09 00 A2 "'
        assert shown[address + "2" + second] == ".1.3.6.1.2.1.100.1.2"
        wire = shown[address + "3" + second].strip('"').split()
        assert bytes.fromhex("".join(wire)) == six + (1620).to_bytes(2, "big")
        assert [shown[address + f"{n}{noc}"] for n in (4, 5, 6, 7, 9)] == ["1500", "3", '"trap"', '"noc"', "1"]
        assert [shown[address + f"{n}{second}"] for n in (6, 7, 9)] == ['"inform"', '"noc-2"', "2"]
        assert [shown[parameters + f"{n}{noc}"] for n in (2, 3, 4, 5)] == ["1", "2", '"noc"', "1"]
        assert [shown[parameters + f"{n}{second}"] for n in (2, 3, 4, 5)] == ["3", "3", '"sender"', "2"]
        walk = await run("snmpwalk", "-v3", "-On", "-OQ", at.target, ".1.3.6.1.6.3.13.1", state=tmp_path)
        shown = {dotted(oid): value for oid, value in walked(walk.out)}
        assert shown[".1.3.6.1.6.3.13.1.2.1.1" + noc] == '"noc"'
        assert ".1.3.6.1.6.3.13.1.2.1.1" + second not in shown
        filtered = ".3.110.111.99.1.3.6.1.4"
        assert shown[".1.3.6.1.6.3.13.1.3.1.3" + filtered] == "2"
        assert shown[".1.3.6.1.6.3.13.1.3.1.2" + filtered] == '"F8 "'
        for hidden in (".1.3.6.1.6.3.12.1.2", ".1.3.6.1.6.3.13.1", dotted(SCHEMA.tables["ipsecGwTargetTable"].oid)):
            for community in (READ, WRITE):
                nothing = await run("snmpwalk", "-v2c", "-c", community, at.target, hidden)
                assert "No Such" in nothing.out or not nothing.out, nothing
