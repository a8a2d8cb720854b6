"""Users made and changed by SET: what becomes of a password, and what is refused. Asked with net-snmp's tools too."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.mib.ber import Value
from agent.snmp.client import (
    Community,
    NoAnswer,
    Reported,
    RequestFailed,
    SnmpClient,
    UsmUser,
    read_configuration,
    user_of_passphrases,
)
from agent.snmp.usm import AUTHENTICATION, PRIVACY, key_of_passphrase, localized
from agent.store.errors import ErrorStatus, Refused
from agent.store.hooks import AGENT, Edit
from tests.snmp_station import SCHEMA, WRITE, Served, dotted, instance, run, served

FIRST, SECOND = "the first passphrase", "the second passphrase"
OTHER, ANOTHER = "quite another passphrase", "and one for privacy"
RULE = "ipsecGlobContDefaultRule.0"
INCONSISTENT, WRONG_VALUE = ErrorStatus.INCONSISTENT_VALUE, ErrorStatus.WRONG_VALUE

Values = Mapping[str, Value | str]


@asynccontextmanager
async def administered(state: Path) -> AsyncIterator[tuple[Served, SnmpClient]]:
    """An agent, and its user admin asking it."""
    async with (
        served(state) as at,
        await SnmpClient.open(
            *at.address, read_configuration(state / "snmp.conf"), SCHEMA, wait=20, retries=1
        ) as admin,
    ):
        yield at, admin


async def put(client: SnmpClient, row: int, values: Values) -> None:
    await client.set([(f"ipsecGwUser{name}.{row}", value) for name, value in values.items()])


async def refused(at: Served, client: SnmpClient, row: int, values: Values, status: int, name: str, words: str) -> None:
    """The SET is refused with this status, naming this varbind, in these words, and leaves no trace."""
    generation = at.store.running.generation
    with pytest.raises(RequestFailed) as failed:
        await put(client, row, values)
    assert (failed.value.status, failed.value.name) == (status, f"ipsecGwUser{name}.{row}"), at.refused[-1]
    assert words in at.refused[-1]
    assert at.store.running.generation == generation


async def speaks(at: Served, who: UsmUser) -> bool:
    async with await SnmpClient.open(*at.address, who, SCHEMA, wait=20, retries=1) as client:
        try:
            return await client.value(RULE) in (1, 2)
        except (Reported, NoAnswer):
            return False


def stored(at: Served, row: int, column: str) -> bytes:
    """The key in a sealed column, opened."""
    cells = at.store.running.row_any_status("ipsecGwUserTable", row)
    assert cells is not None
    blob = cells[column]
    assert isinstance(blob, bytes)
    return at.store.secrets.open("ipsecGwUserTable", row, column, blob) if blob else b""


def holding(state: Path, text: str) -> list[str]:
    """Files that hold it."""
    return [path.name for path in state.iterdir() if text.encode() in path.read_bytes()]


BOB: Values = {"Name": "bob", "AuthPassword": FIRST, "PrivPassword": SECOND}


# ---- passwords become keys ------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("auth", AUTHENTICATION)
async def test_a_user_made_by_set_speaks_every_protocol(tmp_path: Path, auth: int) -> None:
    async with administered(tmp_path) as (at, admin):
        for row, priv in enumerate((1, *PRIVACY), 10):
            name = f"user{priv}"
            values: dict[str, Value | str] = {"PrivProtocol": priv, "AuthPassword": FIRST, "Name": name}
            values |= {"AuthProtocol": auth} | ({"PrivPassword": SECOND} if priv > 1 else {})
            await put(admin, row, values)
            assert await speaks(at, user_of_passphrases(name, auth, FIRST, priv, SECOND)), (auth, priv)


async def test_the_password_is_kept_nowhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with administered(tmp_path) as (at, admin):
        await put(admin, 2, {**BOB, "Level": "write"})
        assert stored(at, 2, "ipsecGwUserAuthKey") == key_of_passphrase(FIRST.encode(), "sha256")
        assert stored(at, 2, "ipsecGwUserPrivKey") == key_of_passphrase(SECOND.encode(), "sha256")
        for column in ("AuthPassword", "PrivPassword"):
            assert await admin.value(f"ipsecGwUser{column}.2") == b"*"
            assert await admin.value(f"ipsecGwUser{column}.1") == b"*"  # of the first start's admin
        walked = [v.value async for v in admin.walk(".1.3.6.1.4.1.272")]
        assert FIRST.encode() not in walked
        with pytest.raises(RequestFailed):
            await put(admin, 3, {"Name": "eve", "AuthPassword": "sesame"})
    assert "sesame" not in caplog.text + "".join(at.refused)
    for text in (FIRST, SECOND):
        assert text not in caplog.text
        assert not holding(tmp_path, text)


async def test_a_star_keeps_the_key_and_nothing_clears_it(tmp_path: Path) -> None:
    async with administered(tmp_path) as (at, admin):
        await put(admin, 2, BOB)
        bob = user_of_passphrases("bob", 5, FIRST, 3, SECOND)
        await put(admin, 2, {"AuthPassword": "*", "PrivPassword": "*", "Level": "write"})
        assert await speaks(at, bob)
        await refused(at, admin, 2, {"AuthPassword": ""}, INCONSISTENT, "AuthPassword", "the user has no key")
        await refused(at, admin, 2, {"PrivPassword": ""}, INCONSISTENT, "PrivPassword", "no key for privacy")
        await refused(at, admin, 3, {**BOB, "Name": "eve", "PrivPassword": "*"}, INCONSISTENT, "PrivPassword", "no")
        await put(admin, 2, {"PrivPassword": "", "PrivProtocol": "none"})
        assert stored(at, 2, "ipsecGwUserPrivKey") == b""
        assert await speaks(at, user_of_passphrases("bob", 5, FIRST))
        await put(admin, 2, {"RowStatus": "notInService", "AuthPassword": ""})
        assert stored(at, 2, "ipsecGwUserAuthKey") == b""
        assert await admin.value("ipsecGwUserAuthPassword.2") == b""
        await refused(at, admin, 2, {"RowStatus": "active"}, INCONSISTENT, "RowStatus", "the user has no key")
        await put(admin, 2, {"RowStatus": "active", "AuthPassword": OTHER})
        assert await speaks(at, user_of_passphrases("bob", 5, OTHER))


async def test_protocol_and_passwords_change_together(tmp_path: Path) -> None:
    async with administered(tmp_path) as (at, admin):
        await put(admin, 2, BOB)
        both = "ipsecGwUserAuthPassword and ipsecGwUserPrivPassword in the same SET"
        await refused(at, admin, 2, {"AuthProtocol": "sha512"}, INCONSISTENT, "AuthProtocol", both)
        half: Values = {"AuthPassword": OTHER, "AuthProtocol": "sha512"}
        await refused(at, admin, 2, half, INCONSISTENT, "AuthProtocol", both)
        await refused(at, admin, 2, {**half, "PrivPassword": "*"}, INCONSISTENT, "AuthProtocol", both)
        assert await speaks(at, user_of_passphrases("bob", 5, FIRST, 3, SECOND))
        await put(admin, 2, {**half, "PrivPassword": ANOTHER})
        assert await speaks(at, user_of_passphrases("bob", 7, OTHER, 3, ANOTHER))
        await put(admin, 2, {"PrivProtocol": "aes256c"})  # the key is of the hash only
        assert await speaks(at, user_of_passphrases("bob", 7, OTHER, 7, ANOTHER))
        # without privacy the other key goes with the protocol that it was made with
        await put(admin, 2, {"PrivProtocol": "none", "AuthProtocol": "sha1", "AuthPassword": FIRST})
        assert stored(at, 2, "ipsecGwUserPrivKey") == b""
        assert await speaks(at, user_of_passphrases("bob", 3, FIRST))
        await refused(at, admin, 2, {"PrivProtocol": "aes128"}, INCONSISTENT, "PrivProtocol", "no key for privacy")
        await put(admin, 2, {"PrivProtocol": "aes128", "PrivPassword": SECOND})
        assert await speaks(at, user_of_passphrases("bob", 3, FIRST, 3, SECOND))


async def test_authentication_may_be_taken_from_a_user(tmp_path: Path) -> None:
    """RFC 3414, usmUserAuthProtocol; the keys go with it, and the access."""
    async with administered(tmp_path) as (at, admin):
        await put(admin, 2, BOB)
        privacy = "privacy needs authentication"
        await refused(at, admin, 2, {"AuthProtocol": "none"}, INCONSISTENT, "AuthProtocol", privacy)
        await put(admin, 2, {"AuthProtocol": "none", "PrivProtocol": "none"})
        assert not await speaks(at, user_of_passphrases("bob", 5, FIRST))
        assert (stored(at, 2, "ipsecGwUserAuthKey"), stored(at, 2, "ipsecGwUserPrivKey")) == (b"", b"")
        await refused(at, admin, 2, {"AuthProtocol": "sha256"}, INCONSISTENT, "AuthProtocol", "the user has no key")
        await put(admin, 2, {"AuthProtocol": "sha256", "AuthPassword": FIRST})
        assert await speaks(at, user_of_passphrases("bob", 5, FIRST))
        await refused(
            at, admin, 1, {"AuthProtocol": "none", "PrivProtocol": "none"}, INCONSISTENT, "AuthProtocol", "be left"
        )


async def test_the_order_of_varbinds_does_not_matter(tmp_path: Path) -> None:
    async with administered(tmp_path) as (at, admin):
        values: Values = {**BOB, "AuthProtocol": "sha384", "PrivProtocol": "aes192", "RowStatus": "createAndGo"}
        for row, turned in ((2, values), (3, dict(reversed(values.items())))):
            await put(admin, row, {**turned, "Name": f"user{row}"})
            assert await speaks(at, user_of_passphrases(f"user{row}", 6, FIRST, 4, SECOND))


async def test_keys_changed_by_usm_user_table_give_way_to_passwords(tmp_path: Path) -> None:
    """ipsecGwUserKeyKind says localized then, and is master again afterwards."""
    async with administered(tmp_path) as (at, admin):
        await put(admin, 2, BOB)
        local = localized(key_of_passphrase(OTHER.encode(), "sha256"), b"engine", "sha256")
        keys: dict[str, Value] = {"AuthKey": local, "PrivKey": local, "KeyKind": 2}
        await at.store.commit([Edit(SCHEMA.columns["ipsecGwUser" + n], 2, v) for n, v in keys.items()], AGENT)
        one: Values = {"AuthPassword": OTHER}
        await refused(at, admin, 2, one, INCONSISTENT, "AuthPassword", "changed by usmUserTable")
        await refused(at, admin, 2, {"PrivPassword": OTHER}, INCONSISTENT, "PrivPassword", "changed by usmUserTable")
        await put(admin, 2, {"AuthPassword": FIRST, "PrivPassword": OTHER})
        row = at.store.running.row("ipsecGwUserTable", 2)
        assert row is not None and row["ipsecGwUserKeyKind"] == 1
        assert await speaks(at, user_of_passphrases("bob", 5, FIRST, 3, OTHER))


# ---- what is refused ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "status", "name", "words"),
    [
        ({**BOB, "AuthPassword": "seven 7"}, WRONG_VALUE, "AuthPassword", "7 octets; accepted: 8 octets or more"),
        ({**BOB, "PrivPassword": "1"}, WRONG_VALUE, "PrivPassword", "1 octets; accepted: 8 octets or more"),
        ({**BOB, "AuthProtocol": "none"}, INCONSISTENT, "AuthProtocol", "privacy needs authentication"),
        (
            {**BOB, "AuthProtocol": "none", "PrivProtocol": "none"},
            INCONSISTENT,
            "AuthProtocol",
            "who proves nothing has no access",
        ),
        ({"Name": "bob"}, INCONSISTENT, "Name", "ipsecGwUserAuthPassword in the same SET"),
        ({"Name": "bob", "RowStatus": "createAndGo"}, INCONSISTENT, "RowStatus", "the user has no key"),
        ({"Name": "bob", "AuthPassword": FIRST}, INCONSISTENT, "Name", "ipsecGwUserPrivPassword in the same SET"),
        ({**BOB, "Name": ""}, INCONSISTENT, "Name", "a user has a name"),
        ({**BOB, "Name": "admin"}, INCONSISTENT, "Name", "user 1 has this name"),
        ({"AuthPassword": FIRST, "RowStatus": "createAndGo"}, INCONSISTENT, "RowStatus", "a user has a name"),
        ({"AuthPassword": FIRST}, ErrorStatus.INCONSISTENT_NAME, "AuthPassword", "there is no such row"),
        ({"AuthPassword": FIRST, "RowStatus": "active"}, INCONSISTENT, "RowStatus", "there is no such row"),
    ],
)
async def test_what_makes_no_user(tmp_path: Path, values: Values, status: int, name: str, words: str) -> None:
    async with administered(tmp_path) as (at, admin):
        await refused(at, admin, 2, values, status, name, words)


async def test_a_row_may_wait_for_its_password(tmp_path: Path) -> None:
    async with administered(tmp_path) as (at, admin):
        await put(admin, 2, {"RowStatus": "createAndWait"})
        await refused(at, admin, 2, {"RowStatus": "active"}, INCONSISTENT, "RowStatus", "a user has a name")
        await put(admin, 2, {"Name": "bob"})
        await refused(at, admin, 2, {"RowStatus": "active"}, INCONSISTENT, "RowStatus", "the user has no key")
        await put(admin, 2, {"AuthPassword": FIRST, "PrivPassword": SECOND})
        assert not await speaks(at, user_of_passphrases("bob", 5, FIRST, 3, SECOND))
        await refused(at, admin, 3, {**BOB}, INCONSISTENT, "Name", "user 2 has this name")
        await put(admin, 2, {"RowStatus": "active"})
        assert await speaks(at, user_of_passphrases("bob", 5, FIRST, 3, SECOND))


async def test_names_may_be_exchanged_in_one_set(tmp_path: Path) -> None:
    async with administered(tmp_path) as (at, admin):
        await put(admin, 2, BOB)
        await put(admin, 3, {**BOB, "Name": "eve", "AuthPassword": OTHER})
        await admin.set([("ipsecGwUserName.2", "eve"), ("ipsecGwUserName.3", "bob")])
        assert await speaks(at, user_of_passphrases("bob", 5, OTHER, 3, SECOND))
        with pytest.raises(RequestFailed, match=r"inconsistentValue: ipsecGwUserName\.3"):
            await admin.set([("ipsecGwUserName.2", "ann"), ("ipsecGwUserName.3", "ann")])


LAST: list[tuple[Values, str]] = [
    ({"RowStatus": "destroy"}, "RowStatus"),
    ({"RowStatus": "notInService"}, "RowStatus"),
    ({"Level": "write"}, "Level"),
]


@pytest.mark.parametrize(("values", "name"), LAST)
async def test_the_last_administrator_stays(tmp_path: Path, values: Values, name: str) -> None:
    async with administered(tmp_path) as (at, admin):
        await put(admin, 2, {**BOB, "Level": "write"})
        await put(admin, 3, {"Name": "keyless", "Level": "admin", "RowStatus": "createAndWait"})
        await refused(at, admin, 1, values, INCONSISTENT, name, "nobody of level admin would be left")
        with pytest.raises(Refused, match="nobody of level admin"):  # whoever asks
            number = {"destroy": 6, "notInService": 2, "write": 2}[str(values[name])]
            await at.store.commit([Edit(SCHEMA.columns["ipsecGwUser" + name], 1, number)], AGENT)
        # in one SET with a successor it goes
        successor = [("ipsecGwUserLevel.2", "admin"), (f"ipsecGwUser{name}.1", values[name])]
        await admin.set(successor)
        assert await speaks(at, user_of_passphrases("bob", 5, FIRST, 3, SECOND))
        async with await SnmpClient.open(*at.address, user_of_passphrases("bob", 5, FIRST, 3, SECOND), SCHEMA) as bob:
            await refused(at, bob, 2, {"RowStatus": "destroy"}, INCONSISTENT, "RowStatus", "nobody of level admin")


async def test_weak_protocols_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with administered(tmp_path) as (_, admin):
        await put(admin, 2, {**BOB, "AuthProtocol": "md5", "PrivProtocol": "des"})
        warnings = [r.getMessage() for r in caplog.records if r.name == "agent.snmp.passwords"]
        assert [w.partition(":")[2].split()[0] for w in warnings] == ["MD5", "DES"]
        await put(admin, 2, {"Level": "write"})
        assert len([r for r in caplog.records if r.name == "agent.snmp.passwords"]) == 2


async def test_only_administrators_and_only_in_private(tmp_path: Path) -> None:
    async with administered(tmp_path) as (at, admin):
        await put(admin, 2, {**BOB, "Level": "write"})
        for who in (user_of_passphrases("bob", 5, FIRST, 3, SECOND), Community(WRITE.encode())):
            async with await SnmpClient.open(*at.address, who, SCHEMA) as client:
                for row, values in ((3, {**BOB, "Name": "eve"}), (2, {"Level": "admin"}), (1, {"AuthPassword": OTHER})):
                    with pytest.raises(RequestFailed, match=r"^noAccess: ipsecGwUser"):
                        await put(client, row, values)
        assert [row.number for row in at.store.running.rows("ipsecGwUserTable")] == [1, 2]


async def test_a_key_costs_milliseconds(tmp_path: Path) -> None:
    """It is made on the event loop, where everybody waits: so few of them are bearable, whatever the hash."""
    for authentication in AUTHENTICATION.values():
        begun = time.process_time()
        key_of_passphrase(b"a passphrase of some length", authentication.hash)
        assert time.process_time() - begun < 0.1, authentication.hash  # usually 1 to 3 ms


@pytest.mark.skipif(not shutil.which("snmpset"), reason="net-snmp's tools are not installed")
async def test_net_snmp_makes_a_user_and_asks_as_him(tmp_path: Path) -> None:
    async with served(tmp_path) as at:
        made = await run(
            *("snmpset", "-v3", at.target),
            *(dotted(instance("ipsecGwUserName", 2)), "s", "bob"),
            *(dotted(instance("ipsecGwUserAuthPassword", 2)), "s", FIRST),
            *(dotted(instance("ipsecGwUserPrivPassword", 2)), "s", SECOND),
            state=tmp_path,
        )
        assert made.code == 0, made.err
        options = ("-v3", "-u", "bob", "-l", "authPriv", "-a", "SHA-256", "-A", FIRST, "-x", "AES", "-X", SECOND)
        got = await run("snmpget", *options, at.target, dotted(instance("ipsecGlobContDefaultRule", 0)))
        assert got.out.endswith("INTEGER: 1\n"), got.err
        got = await run("snmpget", "-v3", at.target, dotted(instance("ipsecGwUserAuthPassword", 2)), state=tmp_path)
        assert got.out.endswith('STRING: "*"\n'), got.err
        short = dotted(instance("ipsecGwUserAuthPassword", 2)), "s", "short"
        refusal = await run("snmpset", "-v3", at.target, *short, state=tmp_path)
        assert "wrongValue" in refusal.err
        assert "Failed object: iso.3.6.1.4.1.272.4.26.200.60.1.10.2" in refusal.err
