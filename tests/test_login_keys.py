"""Public keys as rows: what is one, whose it is, and that it goes with its user."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest

from agent.snmp.client import RequestFailed
from agent.snmp.loginkeys import LoginKeyError, key_of_text
from agent.store.errors import ErrorStatus
from tests.snmp_station import SCHEMA
from tests.test_snmp_passwords import BOB, administered, put

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
