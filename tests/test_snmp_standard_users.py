"""usmUserTable by net-snmp's snmpusm, and what it does not ask: RFC 3414 section 5."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.mib.ber import Value, encode_integer, encode_oid_contents, encode_tlv
from agent.snmp.keychange import changed_key, key_change
from agent.snmp.standard.objects import by_length
from agent.snmp.standard.usm import ENTRY
from agent.snmp.users import open_keys, user_names
from agent.snmp.usm import AUTHENTICATION, PRIVACY, key_of_passphrase, localized, localized_for
from agent.store.errors import ErrorStatus as E
from agent.store.hooks import AGENT, Edit
from tests.snmp_station import (
    GET,
    NULL,
    SCHEMA,
    SET,
    WRITE,
    Ran,
    Served,
    Session3,
    dotted,
    encode_pdu,
    instance,
    manager,
    run,
    served,
    text,
)

pytestmark = pytest.mark.skipif(not shutil.which("snmpusm"), reason="net-snmp's tools are not installed")

Oid = tuple[int, ...]
AUTH_NAMES = {2: "MD5", 3: "SHA", 4: "SHA-224", 5: "SHA-256", 6: "SHA-384", 7: "SHA-512"}
NAME = ".1.3.6.1.2.1.1.5.0"
OLD_AUTH, OLD_PRIV, NEW_AUTH, NEW_PRIV = "the old authpass", "the old privpass", "a new authpass!", "a new privpass!"


def passphrases(state: Path) -> tuple[str, str]:
    """Of the user `admin`, from the file of the first start."""
    words = dict(line.split(None, 1) for line in (state / "snmp.conf").read_text().splitlines() if " " in line)
    return words["defAuthPassphrase"], words["defPrivPassphrase"]


async def make(at: Served, row: int, name: str, level: int, auth: int, priv: int) -> None:
    hash_name = AUTHENTICATION[auth].hash
    values: dict[str, Value] = {"Name": name.encode(), "Level": level, "AuthProtocol": auth, "PrivProtocol": priv}
    values |= {"AuthKey": key_of_passphrase(OLD_AUTH.encode(), hash_name), "RowStatus": 4}
    if priv > 1:
        values["PrivKey"] = key_of_passphrase(OLD_PRIV.encode(), hash_name)
    await at.store.commit([Edit(SCHEMA.columns["ipsecGwUser" + n], row, v) for n, v in values.items()], AGENT)


def options(name: str, auth: int, priv: int, passphrase: str, private: str) -> tuple[str, ...]:
    level = ("-l", "authPriv", "-x", PRIVACY[priv].name, "-X", private) if priv > 1 else ("-l", "authNoPriv")
    return ("-v3", "-u", name, "-a", AUTH_NAMES[auth], "-A", passphrase, *level)


async def snmpusm(at: Served, *command: str, user: tuple[str, ...] = ("-v3",)) -> Ran:
    flags = [word for word in command if word.startswith("-C")]
    words = [word for word in command if not word.startswith("-C")]
    return await run("snmpusm", *user, *flags, at.target, *words, state=at.state)


async def sees(at: Served, user: tuple[str, ...]) -> bool:
    return (await run("snmpget", *user, at.target, NAME)).code == 0


@pytest.mark.slow
@pytest.mark.parametrize("auth", AUTHENTICATION)
@pytest.mark.parametrize("priv", [1, *PRIVACY])
async def test_passwd_changes_the_keys_of_every_protocol(tmp_path: Path, auth: int, priv: int) -> None:
    """By the user itself and by an administrator, both keys, one after the other and while the other stays."""
    async with served(tmp_path) as at:
        await make(at, 7, "someone", 2, auth, priv)
        before = options("someone", auth, priv, OLD_AUTH, OLD_PRIV)
        assert await sees(at, before)
        own = await snmpusm(at, "passwd", OLD_AUTH, NEW_AUTH, "-Ca", user=before)
        assert own.code == 0, own
        assert not await sees(at, before)
        assert await sees(at, options("someone", auth, priv, NEW_AUTH, OLD_PRIV))
        if priv > 1:
            now = options("someone", auth, priv, NEW_AUTH, OLD_PRIV)
            private = await snmpusm(at, "passwd", OLD_PRIV, NEW_PRIV, "-Cx", user=now)
            assert private.code == 0, private
        assert await sees(at, options("someone", auth, priv, NEW_AUTH, NEW_PRIV))


@pytest.mark.slow
async def test_an_administrator_changes_the_keys_of_another(tmp_path: Path) -> None:
    async with served(tmp_path) as at:
        await make(at, 7, "someone", 3, 5, 3)
        way = ("-v3", "-a", "SHA-256", "-x", "AES")
        assert (await snmpusm(at, "passwd", OLD_AUTH, NEW_AUTH, "someone", "-Ca", user=way)).code == 0
        assert (await snmpusm(at, "passwd", OLD_PRIV, NEW_PRIV, "someone", "-Cx", user=way)).code == 0
        assert await sees(at, options("someone", 5, 3, NEW_AUTH, NEW_PRIV))
        keys = open_keys(at.store.secrets, user_names(at.store.running)[b"someone"])
        engine_id = at.server.facts.identity.engine_id
        assert keys.localized
        assert keys.auth == localized(key_of_passphrase(NEW_AUTH.encode(), "sha256"), engine_id, "sha256")
    async with served(tmp_path) as at:  # kept
        assert await sees(at, options("someone", 5, 3, NEW_AUTH, NEW_PRIV))


async def test_both_keys_in_one_set(tmp_path: Path) -> None:
    async with served(tmp_path) as at, manager(at.address) as asking:
        await make(at, 7, "someone", 3, 3, 4)
        engine_id = at.server.facts.identity.engine_id
        keys = []
        for phrase, cut in ((OLD_AUTH, None), (NEW_AUTH, None), (OLD_PRIV, 4), (NEW_PRIV, 4)):
            master = key_of_passphrase(phrase.encode(), "sha1")
            whole = localized(master, engine_id, "sha1")
            keys.append(localized_for(master, engine_id, "sha1", PRIVACY[cut]) if cut else whole)
        auth = key_change(keys[0], keys[1], os.urandom(20), "sha1")
        priv = key_change(keys[2], keys[3], os.urandom(24), "sha1")
        session = await Session3.open(asking, tmp_path)
        reply = await session.ask(SET, [(of(at, 6, "someone"), octets(auth)), (of(at, 9, "someone"), octets(priv))])
        assert reply.status == 0
        assert await sees(at, options("someone", 3, 4, NEW_AUTH, NEW_PRIV))


async def test_users_come_and_go(tmp_path: Path) -> None:
    async with served(tmp_path) as at:
        auth, priv = passphrases(tmp_path)
        assert (await snmpusm(at, "create", "second", "admin")).code == 0
        copied = options("second", 5, 3, auth, priv)
        assert await sees(at, copied)
        assert user_names(at.store.running)[b"second"]["ipsecGwUserLevel"] == 3  # no more than to read
        twice = await snmpusm(at, "create", "second", "admin")
        assert "inconsistentValue" in twice.err
        assert (await snmpusm(at, "deactivate", "second")).code == 0
        assert not await sees(at, copied)
        assert (await snmpusm(at, "activate", "second")).code == 0
        assert await sees(at, copied)
        assert (await snmpusm(at, "delete", "second")).code == 0
        assert not await sees(at, copied)
        assert (await snmpusm(at, "delete", "second")).code == 0  # destroy of what is not there is no error
        assert (await snmpusm(at, "-Cw", "create", "slow")).code == 0
        assert not await sees(at, options("slow", 5, 3, auth, priv))
        assert (await snmpusm(at, "cloneFrom", "slow", "admin")).code == 0
        assert (await snmpusm(at, "activate", "slow")).code == 0
        assert await sees(at, options("slow", 5, 3, auth, priv))
        assert "inconsistentName" in (await snmpusm(at, "create", "third", "nobody")).err
        assert [*user_names(at.store.running)] == [b"admin", b"slow"]


async def test_the_level_of_a_copied_user_is_the_administrators_business(tmp_path: Path) -> None:
    async with served(tmp_path) as at:
        assert (await snmpusm(at, "create", "second", "admin")).code == 0
        auth, priv = passphrases(tmp_path)
        second = options("second", 5, 3, auth, priv)
        contact = (".1.3.6.1.2.1.1.4.0", "s", "me")
        assert "authorizationError" in (await run("snmpset", *second, at.target, *contact)).err
        row = user_names(at.store.running)[b"second"].number
        level = (dotted(instance("ipsecGwUserLevel", row)), "i", "2")
        assert "authorizationError" in (await run("snmpset", *second, at.target, *level)).err
        assert (await run("snmpset", "-v3", at.target, *level, state=tmp_path)).code == 0
        assert (await run("snmpset", *second, at.target, *contact)).code == 0
        group = ".1.3.6.1.6.3.16.1.2.1.3.3.6.115.101.99.111.110.100"
        assert (await run("snmpget", "-v3", "-Oqv", at.target, group, state=tmp_path)).out == '"write"\n'


# ---- what snmpusm does not try ---------------------------------------------------------


def octets(value: bytes) -> bytes:
    return encode_tlv(4, value)


def pointer(value: Oid) -> bytes:
    return encode_tlv(6, encode_oid_contents(value))


def of(at: Served, column: int, name: str) -> Oid:
    """An instance of usmUserTable."""
    return (*ENTRY, column, *by_length(at.server.facts.identity.engine_id), *by_length(name.encode()))


async def test_refusals_of_the_table(tmp_path: Path) -> None:
    md5, none = (1, 3, 6, 1, 6, 3, 10, 1, 1, 2), (1, 3, 6, 1, 6, 3, 10, 1, 1, 1)
    async with served(tmp_path) as at, manager(at.address) as asking:
        await make(at, 7, "someone", 3, 5, 3)
        session = await Session3.open(asking, tmp_path)
        generation = at.store.running.generation
        elsewhere = (*ENTRY, 13, *by_length(b"\x80\x00\x00\x01another"), *by_length(b"x"))
        cases: list[tuple[str, Oid, bytes, E]] = [
            ("read-only", of(at, 3, "someone"), text("x"), E.NOT_WRITABLE),
            ("type", of(at, 13, "someone"), text("x"), E.WRONG_TYPE),
            ("status", of(at, 13, "someone"), encode_integer(7), E.WRONG_VALUE),
            ("notReady", of(at, 13, "someone"), encode_integer(3), E.WRONG_VALUE),
            ("made already", of(at, 13, "someone"), encode_integer(4), E.INCONSISTENT_VALUE),
            ("no such user", of(at, 13, "nobody"), encode_integer(1), E.INCONSISTENT_VALUE),
            ("no such user's key", of(at, 6, "nobody"), octets(bytes(64)), E.INCONSISTENT_NAME),
            ("another engine's", elsewhere, encode_integer(4), E.NO_CREATION),
            ("no name", of(at, 13, ""), encode_integer(4), E.NO_CREATION),
            ("long name", of(at, 13, "n" * 33), encode_integer(4), E.NO_CREATION),
            ("rest of a name", (*of(at, 13, "someone"), 1), encode_integer(4), E.NO_CREATION),
            ("short key", of(at, 6, "someone"), octets(bytes(63)), E.WRONG_LENGTH),
            ("long privacy key", of(at, 9, "someone"), octets(bytes(64)), E.WRONG_LENGTH),
            ("the own key of another", of(at, 7, "someone"), octets(bytes(64)), E.NO_ACCESS),
            ("another protocol", of(at, 5, "someone"), pointer(md5), E.INCONSISTENT_VALUE),
            ("no protocol", of(at, 5, "someone"), pointer((1, 3)), E.WRONG_VALUE),
            ("bare with privacy", of(at, 5, "someone"), pointer(none), E.INCONSISTENT_VALUE),
            ("volatile", of(at, 12, "someone"), encode_integer(2), E.INCONSISTENT_VALUE),
            ("no storage type", of(at, 12, "someone"), encode_integer(6), E.WRONG_VALUE),
            ("long public", of(at, 11, "someone"), octets(bytes(33)), E.WRONG_LENGTH),
        ]
        for what, oid, value, status in cases:
            for ahead in ([], [((1, 3, 6, 1, 2, 1, 1, 4, 0), text("me"))]):
                reply = await session.ask(SET, [*ahead, (oid, value)])
                assert (what, E(reply.status), reply.index) == (what, status, len(ahead) + 1)
        assert at.store.running.generation == generation
        refused = await asking.ask(SET, [(of(at, 13, "x"), encode_integer(4))], community=WRITE)
        assert E(refused.status) is E.NO_ACCESS  # users are the administrators' business


async def test_what_means_nothing_succeeds(tmp_path: Path) -> None:
    """RFC 3414: a key change without a protocol, a second cloneFrom, what it is already."""
    async with served(tmp_path) as at, manager(at.address) as asking:
        await make(at, 7, "someone", 3, 5, 1)
        session = await Session3.open(asking, tmp_path)
        generation = at.store.running.generation
        sha256, no_privacy = (1, 3, 6, 1, 6, 3, 10, 1, 1, 5), (1, 3, 6, 1, 6, 3, 10, 1, 2, 1)
        varbinds = [
            (of(at, 9, "someone"), octets(bytes(32))),
            (of(at, 4, "someone"), pointer(of(at, 3, "admin"))),
            (of(at, 5, "someone"), pointer(sha256)),
            (of(at, 8, "someone"), pointer(no_privacy)),
            (of(at, 12, "someone"), encode_integer(3)),
            (of(at, 13, "nobody"), encode_integer(6)),
        ]
        assert (await session.ask(SET, varbinds)).status == 0
        assert at.store.running.generation == generation
        assert (await session.ask(SET, [(of(at, 11, "someone"), text("seen"))])).status == 0
        [(_, public), (_, clone)] = (
            await session.ask(GET, [(of(at, 11, "someone"), NULL), (of(at, 4, "someone"), NULL)])
        ).varbinds
        assert (public, clone) == (text("seen"), pointer((0, 0)))


async def test_what_is_left_in_public_comes_with_the_key_change_and_is_kept(tmp_path: Path) -> None:
    """RFC 3414 section 5, usmUserPublic: by it a manager sees whether its key change was carried out, later too."""
    async with served(tmp_path) as at, manager(at.address) as asking:
        await make(at, 7, "someone", 3, 5, 1)
        session = await Session3.open(asking, tmp_path)
        engine_id = at.server.facts.identity.engine_id
        old, new = (
            localized(key_of_passphrase(p.encode(), "sha256"), engine_id, "sha256") for p in (OLD_AUTH, NEW_AUTH)
        )
        change = (of(at, 6, "someone"), octets(key_change(old, new, os.urandom(32), "sha256")))
        too_long = await session.ask(SET, [change, (of(at, 11, "someone"), text("x" * 33))])
        assert (E(too_long.status), too_long.index) == (E.WRONG_LENGTH, 2)
        assert await sees(at, options("someone", 5, 1, OLD_AUTH, ""))
        generation = at.store.running.generation
        assert (await session.ask(SET, [change, (of(at, 11, "someone"), octets(b"\x00mark\xff"))])).status == 0
        assert at.store.running.generation == generation + 1
    async with served(tmp_path) as at, manager(at.address) as asking:
        assert await sees(at, options("someone", 5, 1, NEW_AUTH, ""))
        session = await Session3.open(asking, tmp_path)
        public = [(of(at, 11, "someone"), NULL)]
        assert (await session.ask(GET, public)).varbinds[0][1] == octets(b"\x00mark\xff")
        assert (await session.ask(SET, [(of(at, 13, "someone"), encode_integer(6))])).status == 0
        await make(at, 7, "someone", 3, 5, 1)
        assert (await session.ask(GET, public)).varbinds[0][1] == octets(b"")


async def test_privacy_and_authentication_can_be_taken_away(tmp_path: Path) -> None:
    async with served(tmp_path) as at, manager(at.address) as asking:
        await make(at, 7, "someone", 3, 5, 3)
        session = await Session3.open(asking, tmp_path)
        none, bare = (1, 3, 6, 1, 6, 3, 10, 1, 1, 1), (1, 3, 6, 1, 6, 3, 10, 1, 2, 1)
        assert (await session.ask(SET, [(of(at, 8, "someone"), pointer(bare))])).status == 0
        assert await sees(at, options("someone", 5, 1, OLD_AUTH, ""))
        assert (await session.ask(SET, [(of(at, 5, "someone"), pointer(none))])).status == 0
        assert not await sees(at, ("-v3", "-u", "someone", "-l", "noAuthNoPriv"))  # who proves nothing has no access


async def test_the_recommended_way_to_make_a_user(tmp_path: Path) -> None:
    """RFC 3414 section 5, usmUserStatus and usmUserCloneFrom: all in one SET, under the lock."""
    async with served(tmp_path) as at, manager(at.address) as asking:
        session = await Session3.open(asking, tmp_path)
        lock = (1, 3, 6, 1, 6, 3, 15, 1, 2, 1, 0)
        [(_, value)] = (await session.ask(GET, [(lock, NULL)])).varbinds
        engine_id = at.server.facts.identity.engine_id
        old = localized(key_of_passphrase(passphrases(tmp_path)[0].encode(), "sha256"), engine_id, "sha256")
        new = localized(key_of_passphrase(NEW_AUTH.encode(), "sha256"), engine_id, "sha256")
        varbinds = [
            (lock, value),
            (of(at, 6, "fresh"), octets(key_change(old, new, os.urandom(32), "sha256"))),
            (of(at, 4, "fresh"), pointer(of(at, 3, "admin"))),
            (of(at, 13, "fresh"), encode_integer(4)),
        ]
        assert (await session.ask(SET, varbinds)).status == 0
        assert await sees(at, options("fresh", 5, 3, NEW_AUTH, passphrases(tmp_path)[1]))
        again = await session.ask(SET, varbinds[:2])
        assert (E(again.status), again.index) == (E.INCONSISTENT_VALUE, 1)


async def test_two_changes_at_once_both_count(tmp_path: Path) -> None:
    """The second is a change of what the first made: keys are changed where the SET is applied, not where it comes
    in."""
    async with served(tmp_path) as at, manager(at.address) as asking:
        await make(at, 7, "someone", 3, 5, 1)
        session = await Session3.open(asking, tmp_path)
        first, second, third = (os.urandom(32) for _ in range(3))
        engine_id = at.server.facts.identity.engine_id
        first = localized(key_of_passphrase(OLD_AUTH.encode(), "sha256"), engine_id, "sha256")
        for number, (old, new) in enumerate(((first, second), (second, third)), 60):
            change = octets(key_change(old, new, os.urandom(32), "sha256"))
            asking.send(session.message(encode_pdu(SET, number, [(of(at, 6, "someone"), change)])))
        replies = [session.read(await asking.receive()) for _ in range(2)]
        assert [reply.status for reply in replies] == [0, 0]
        await asyncio.sleep(0)
        assert open_keys(at.store.secrets, user_names(at.store.running)[b"someone"]).auth == third


# ---- keys -----------------------------------------------------------------------------


@given(st.sampled_from(["md5", "sha1", "sha256", "sha512"]), st.sampled_from([16, 20, 24, 32, 64]), st.data())
def test_a_key_change_is_undone_by_who_knows_the_old_key(hash_name: str, length: int, data: st.DataObject) -> None:
    old, new, random = (data.draw(st.binary(min_size=length, max_size=length)) for _ in range(3))
    change = key_change(old, new, random, hash_name)
    assert len(change) == 2 * length and change[:length] == random
    assert changed_key(old, change, hash_name) == new
    with pytest.raises(ValueError, match="octets expected"):
        changed_key(old, change[1:], hash_name)


@pytest.mark.parametrize(
    ("hash_name", "key", "difference"),
    [
        ("md5", "87021d7bd9d101ba05ea6e3bf9d9bd4a", "8805615141676cc9196174e742a32551"),
        ("sha1", "78e2dcce79d59403b58c1bbaa5bff46391f1cd25", "9c1017f4fd483d2de8d5fadbf84392cb06457051"),
    ],
)
def test_the_key_change_of_the_rfc(hash_name: str, key: str, difference: str) -> None:
    """RFC 3414 A.5: the passphrase maplesyrup becomes newsyrup, the random octets are all zero."""
    engine_id = bytes.fromhex("000000000000000000000002")
    old, new = (
        localized(key_of_passphrase(phrase, hash_name), engine_id, hash_name) for phrase in (b"maplesyrup", b"newsyrup")
    )
    assert new.hex() == key
    assert key_change(old, new, bytes(len(old)), hash_name) == bytes(len(old)) + bytes.fromhex(difference)


@pytest.mark.parametrize("auth", AUTHENTICATION)
@pytest.mark.parametrize("priv", PRIVACY)
def test_privacy_keys_are_those_that_pysnmp_makes(auth: int, priv: int) -> None:
    from pysnmp.proto.rfc1902 import OctetString
    from pysnmp.proto.secmod.rfc3414.service import SnmpUSMSecurityModel

    privacy, authentication = PRIVACY[priv], AUTHENTICATION[auth]
    engine_id = bytes.fromhex("80001f8880e9bd0c1d12667a5100000000")
    master = key_of_passphrase(b"maplesyrup", authentication.hash)
    theirs = SnmpUSMSecurityModel.PRIV_SERVICES[privacy.oid].localize_key(
        authentication.oid, OctetString(master), OctetString(engine_id)
    )
    ours = localized_for(master, engine_id, authentication.hash, privacy)
    assert len(ours) == privacy.key
    assert ours == bytes(theirs)[: privacy.key]
