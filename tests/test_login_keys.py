"""Public keys as rows: what is one, whose it is, and that it goes with its user."""

from __future__ import annotations

import asyncio
import base64
import shutil
import subprocess
from pathlib import Path

import pytest

from agent.snmp.client import RequestFailed, SnmpClient, SnmpError
from agent.snmp.loginkeys import LoginKeyError, key_of_text
from agent.snmp.usm import AUTHENTICATION
from agent.ssh_service import InsideAsking, LoopOf
from agent.store.errors import ErrorStatus
from tests.snmp_station import SCHEMA, run
from tests.test_snmp_passwords import BOB, FIRST, administered, put

ED25519 = b"ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(range(32)))


@pytest.mark.parametrize(("kind", "bits"), [("ed25519", "256"), ("ecdsa", "256"), ("ecdsa", "384"), ("ecdsa", "521")])
def test_what_ssh_keygen_makes_is_a_key_and_fits_into_an_object(tmp_path: Path, kind: str, bits: str) -> None:
    file = tmp_path / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-b", bits, "-N", "", "-C", "", "-f", file], check=True)
    text = file.with_suffix(".pub").read_bytes().strip()
    assert len(text) <= SCHEMA.columns["ipsecGwLoginKeyText"].ranges[0][1]
    assert base64.b64encode(key_of_text(text)) in text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "no kind"),
        (b"ssh-ed25519", "no kind and key"),
        (b"ssh-rsa AAAAB3NzaC1yc2E=", "RSA"),
        (b"ssh-dss AAAA", "no kind of key"),
        (b"ssh-ed25519 not-base64!", "base64"),
        (ED25519[:-8], "not whole"),
        (ED25519.replace(b"ssh-ed25519 ", b"ecdsa-sha2-nistp256 "), "not of kind"),
        (b"ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519"), "not whole"),
        (b'command="x" ' + ED25519, "no kind of key"),
    ],
)
def test_what_is_no_key_is_said_to_be_none(text: bytes, why: str) -> None:
    with pytest.raises(LoginKeyError, match=why):
        key_of_text(text)


async def test_keys_are_rows_that_go_with_their_user(tmp_path: Path) -> None:
    async with administered(tmp_path) as (at, admin):
        await put(admin, 7, BOB)
        await admin.set([("ipsecGwLoginKeyUser.3", 7), ("ipsecGwLoginKeyText.3", ED25519)])
        await admin.set([("ipsecGwLoginKeyUser.4", 1), ("ipsecGwLoginKeyText.4", ED25519)])
        key = key_of_text(ED25519)
        assert at.server.inside.by_key("bob", key, "127.0.0.1") is not None
        with pytest.raises(RequestFailed) as failed:
            await admin.set([("ipsecGwLoginKeyText.3", "ssh-rsa AAAA")])
        assert (failed.value.status, failed.value.name) == (ErrorStatus.WRONG_VALUE, "ipsecGwLoginKeyText.3")
        assert "ssh-keygen" in at.refused[-1]
        with pytest.raises(RequestFailed) as failed:
            await admin.set([("ipsecGwLoginKeyUser.5", 99), ("ipsecGwLoginKeyText.5", ED25519)])
        assert failed.value.status == ErrorStatus.INCONSISTENT_VALUE

        await admin.set([("ipsecGwUserRowStatus.7", 6)])
        assert sorted(await admin.table("ipsecGwLoginKeyTable")) == [4]
        await put(admin, 7, {**BOB, "Name": "eve"})
        assert at.server.inside.by_key("eve", key, "127.0.0.1") is None
        assert at.server.inside.by_key("admin", key, "127.0.0.1") is not None


async def test_a_login_ends_with_what_it_stands_on(tmp_path: Path) -> None:
    async with administered(tmp_path) as (at, admin):
        inside = at.server.inside
        await put(admin, 7, BOB)
        await admin.set([("ipsecGwLoginKeyUser.3", 7), ("ipsecGwLoginKeyText.3", ED25519)])
        by_key = inside.by_key("bob", key_of_text(ED25519), "127.0.0.1")
        by_password = await inside.by_password("bob", str(BOB["AuthPassword"]), "127.0.0.1")
        assert by_key is not None and by_password is not None
        assert await inside.by_password("bob", str(BOB["PrivPassword"]), "127.0.0.1") is None
        assert await inside.by_password("nobody", str(BOB["AuthPassword"]), "127.0.0.1") is None
        assert inside.still(by_key) and inside.still(by_password)

        await put(admin, 7, {"AuthPassword": "another passphrase", "PrivPassword": "one more passphrase"})
        assert inside.still(by_key) and not inside.still(by_password)
        await admin.set([("ipsecGwUserLevel.7", "write")])
        assert not inside.still(by_key)
        again = inside.by_key("bob", key_of_text(ED25519), "127.0.0.1")
        assert again is not None
        await admin.set([("ipsecGwLoginKeyRowStatus.3", 2)])
        assert not inside.still(again)


async def test_sources_of_a_user_hold_for_his_logins_too(tmp_path: Path) -> None:
    async with administered(tmp_path) as (at, admin):
        inside = at.server.inside
        await put(admin, 7, {**BOB, "SourceList": 3})
        await admin.set([("ipsecGwLoginKeyUser.3", 7), ("ipsecGwLoginKeyText.3", ED25519)])
        key, password = key_of_text(ED25519), str(BOB["AuthPassword"])
        assert inside.by_key("bob", key, "192.0.2.1") is None  # of a list without a network: nobody
        await admin.set([("ipsecGwSourceList.1", 3), ("ipsecGwSourceAddress.1", bytes((192, 0, 2, 0)))])
        await admin.set([("ipsecGwSourcePrefixLength.1", 24)])
        login = inside.by_key("bob", key, "192.0.2.1")
        assert login is not None and await inside.by_password("bob", password, "192.0.2.1") is not None
        assert inside.by_key("bob", key, "198.51.100.1") is None
        assert await inside.by_password("bob", password, "198.51.100.1") is None
        await admin.set([("ipsecGwSourcePrefixLength.1", 32)])
        assert not inside.still(login)


@pytest.mark.parametrize("auth", AUTHENTICATION)
async def test_a_password_is_right_by_every_protocol(tmp_path: Path, auth: int) -> None:
    async with administered(tmp_path) as (at, admin):
        await put(admin, 7, {**BOB, "AuthProtocol": auth})
        login = await at.server.inside.by_password("bob", str(BOB["AuthPassword"]), "127.0.0.1")
        assert login is not None and (login.name, login.administers) == ("bob", False)
        for wrong in ("", "not his password", str(BOB["AuthPassword"])[:-1], "x" * 2000, "\udcff"):
            assert await at.server.inside.by_password("bob", wrong, "127.0.0.1") is None


@pytest.mark.skipif(not shutil.which("snmpusm"), reason="net-snmp's tools are not installed")
async def test_a_key_changed_by_usm_is_that_of_its_password(tmp_path: Path) -> None:
    async with administered(tmp_path) as (at, admin):
        await put(admin, 7, {**BOB, "Level": "write"})
        old, private = str(BOB["AuthPassword"]), str(BOB["PrivPassword"])
        way = ("-v3", "-u", "bob", "-l", "authPriv", "-a", "SHA-256", "-A", old, "-x", "AES", "-X", private)
        ran = await run("snmpusm", *way, "-Ca", at.target, "passwd", old, "a new passphrase", state=at.state)
        assert ran.code == 0, ran
        assert await at.server.inside.by_password("bob", old, "127.0.0.1") is None
        assert await at.server.inside.by_password("bob", "a new passphrase", "127.0.0.1") is not None


async def test_requests_inside_are_answered_as_messages_are(tmp_path: Path) -> None:
    """The same values, refusals and limits as by SNMPv3; secrets too, whatever the privacy protocol."""
    async with administered(tmp_path) as (at, admin):
        await put(admin, 7, {"Name": "bob", "AuthPassword": FIRST, "PrivProtocol": "none", "Level": "write"})
        login = await at.server.inside.by_password("bob", FIRST, "192.0.2.1")
        assert login is not None
        way = InsideAsking(LoopOf(asyncio.get_running_loop()), at.server.inside, login)
        async with SnmpClient(way, SCHEMA) as bob:
            ours = [v async for v in bob.walk("ikeProposalTable")]
            assert ours == [v async for v in admin.walk("ikeProposalTable")]
            assert [v async for v in bob.walk("ipsecGwUserTable")] == []
            await bob.set([("ipsecTrProto.1", "dont-verify")])
            await bob.set([("ipsecPeerTrafficList.1", 1), ("ipsecPeerPreSharedKey.1", "quite a secret")])
            assert await bob.value("ipsecPeerPreSharedKey.1") == b"*"
            with pytest.raises(RequestFailed) as failed:
                await bob.set([("ipsecPeerIkeProfile.1", 77)])
            assert (failed.value.status, failed.value.index) == (ErrorStatus.INCONSISTENT_VALUE, 1)
            with pytest.raises(RequestFailed) as failed:
                await bob.set([("ipsecGwUserLevel.7", "admin")])
            assert failed.value.status == ErrorStatus.NO_ACCESS
            with pytest.raises(RequestFailed) as failed:
                await bob.set([("ipsecPeerDescription.1", "x")] * 129)
            assert failed.value.status == ErrorStatus.TOO_BIG
            with pytest.raises(RequestFailed) as failed:
                await bob.set([(f"ipsecPeerDescription.{n}", "x" * 255) for n in range(1, 100)])
            assert failed.value.status == ErrorStatus.TOO_BIG
            await admin.set([("ipsecGwUserRowStatus.7", 6)])
            with pytest.raises(SnmpError, match="log in again"):
                await bob.value("ipsecPeerDescription.1")


@pytest.mark.skipif(not shutil.which("snmpusm"), reason="net-snmp's tools are not installed")
async def test_keys_go_with_a_user_deleted_by_usm(tmp_path: Path) -> None:
    async with administered(tmp_path) as (at, admin):
        await put(admin, 7, BOB)
        await admin.set([("ipsecGwLoginKeyUser.3", 7), ("ipsecGwLoginKeyText.3", ED25519)])
        ran = await run("snmpusm", "-v3", at.target, "delete", "bob", state=at.state)
        assert ran.code == 0, ran
        assert await admin.table("ipsecGwLoginKeyTable", ["ipsecGwLoginKeyUser"]) == {}
