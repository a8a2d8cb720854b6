"""Certificates, keys and the daemon's own settings on a real charon, over VICI. Needs root."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.backends.charon import CharonIke
from agent.backends.charon.config import CONF, Options
from agent.backends.charon.messages import texts
from agent.backends.engine import EngineError
from agent.plan.certificates import pem
from agent.plan.daemon import USUAL
from agent.plan.identities import ATTRIBUTES
from agent.plan.model import Credential, CredentialKind, Secret
from tests.authority import root

NEEDED = os.geteuid() == 0 and Path("/usr/lib/ipsec/charon").exists() and shutil.which("ip")
pytestmark = [pytest.mark.kernel, pytest.mark.skipif(not NEEDED, reason="needs root and strongSwan's charon")]

ROOT, FOREIGN = root("Root"), root("Foreign")
GATEWAY = ROOT.issue("gw")
QUICK = Options(plugins_before=("kernel-libipsec",), retransmit_tries=2, retransmit_timeout=0.3)


def credential(kind: CredentialKind, number: int, der: bytes = b"") -> Credential:
    return Credential(f"{kind.value}-{number}", kind, number, pem(der) if der else "", b"" if der else b"sealed")


KEY = credential(CredentialKind.KEY, 7)
ANCHOR = credential(CredentialKind.AUTHORITY, 1, ROOT.der)
OTHER = credential(CredentialKind.AUTHORITY, 2, FOREIGN.der)
PEERS = credential(CredentialKind.END, 3, GATEWAY.der)


def keyed(*credentials: Credential) -> dict[str, Credential]:
    return {each.id: each for each in credentials}


class Charon(CharonIke):
    """One in a namespace of the test, and what it says it holds."""

    def __init__(self, namespace: str, folder: Path) -> None:
        key = GATEWAY.key_pem()
        super().__init__(
            folder,
            lambda peer, sealed: b"secret",
            open_key=lambda number, sealed: key if (number, sealed) == (7, b"sealed") else b"",
            options=QUICK,
            prefix=("ip", "netns", "exec", namespace),
        )

    async def held(self) -> tuple[set[str], int, set[str]]:
        """Subjects of certificates, number of private keys, shared secrets."""

        def ask(session: Any) -> tuple[list[bytes], list[str], list[str]]:
            certificates = [message["data"] for message in session.list_certs({})]
            return certificates, texts(session.get_keys())["keys"], texts(session.get_shared()).get("keys", [])

        certificates, keys, secrets = await self._call(ask)
        known = {ROOT.der: "root", FOREIGN.der: "foreign", GATEWAY.der: "gateway"}
        return {known[der] for der in certificates}, len(keys), set(secrets)


@pytest.fixture
async def charon(tmp_path: Path) -> AsyncIterator[Charon]:
    import subprocess

    name = f"credentials{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)  # noqa: ASYNC221
    subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)  # noqa: ASYNC221
    ike = Charon(name, tmp_path / "charon")
    try:
        await ike.start()
        async with asyncio.timeout(60):  # its own start waits for less
            await ike._there.wait()
        yield ike
    finally:
        await ike.shutdown()
        subprocess.run(["ip", "netns", "del", name], check=True)  # noqa: ASYNC221


async def test_what_is_wanted_is_there_and_nothing_else(charon: Charon) -> None:
    await charon.load_secret(Secret("psk-1", 1, b"sealed", ("192.0.2.1",)))
    assert not await charon.load_credentials(keyed(ANCHOR, KEY))
    assert await charon.held() == ({"root"}, 1, {"psk-1"})
    assert not await charon.load_credentials(keyed(ANCHOR, OTHER, PEERS, KEY)), "more takes nothing away"
    assert await charon.held() == ({"root", "foreign", "gateway"}, 1, {"psk-1"})
    assert await charon.load_credentials(keyed(ANCHOR, KEY)), "charon forgets certificates only with the secrets"
    assert await charon.held() == ({"root"}, 1, set())
    assert await charon.load_credentials({})
    assert await charon.held() == (set(), 0, set())


async def test_an_agent_that_adopts_charon_knows_what_it_holds(charon: Charon, tmp_path: Path) -> None:
    wanted = keyed(ANCHOR, KEY)
    await charon.load_credentials(wanted)
    assert (await charon.observe()).credentials == charon.credentials_fingerprint(wanted) != ""
    await charon.stop()
    following = Charon(charon.daemon._prefix[-1], tmp_path / "charon")
    await following.start()
    try:
        async with asyncio.timeout(60):
            await following._there.wait()
        assert (await following.observe()).credentials == following.credentials_fingerprint(wanted)
        assert not await following.load_credentials(wanted), "nothing to do"
        assert await following.load_credentials(keyed(OTHER)), "and knows that it has to take away"
        assert (await following.held())[:2] == ({"foreign"}, 0)
    finally:
        await following.stop()


async def test_what_charon_does_not_take_keeps_nothing_else_out(
    charon: Charon, caplog: pytest.LogCaptureFixture
) -> None:
    no_authority = credential(CredentialKind.AUTHORITY, 5, GATEWAY.der)
    await charon.load_credentials(keyed(no_authority, credential(CredentialKind.KEY, 8), ANCHOR, KEY))
    assert (await charon.held())[:2] == ({"root"}, 1)
    assert "ca-5 is not taken by charon" in caplog.text and "key-8 is not taken by charon" in caplog.text


async def test_settings_are_read_anew_or_wait_or_start_it_again(charon: Charon) -> None:
    first = charon.daemon.pid()
    assert await charon.configure(USUAL) == ""
    assert await charon.configure(USUAL._replace(retries=7, half_open_seconds=21)) == ""
    text = (charon.daemon.folder / CONF).read_text()
    assert "retransmit_tries = 7\n" in text and "half_open_timeout = 21\n" in text
    waiting = await charon.configure(USUAL._replace(sa_lines=1024))
    assert waiting == "ipsecTuneSAIHashLines: from the next start of charon on" and charon.daemon.pid() == first
    with pytest.raises(EngineError, match="started anew for another port"):
        await charon.configure(USUAL._replace(ike_port=5500, sa_lines=1024))
    async with asyncio.timeout(60):
        await charon._there.wait()
    assert charon.daemon.pid() != first and charon.daemon.started_with() == {"port": 5500, "sa_lines": 1024}
    assert await charon.configure(USUAL._replace(ike_port=5500, sa_lines=1024)) == "", "and nothing waits any more"


async def test_charon_knows_the_attributes_of_names_that_are_accepted(charon: Charon) -> None:
    """Spaces around a part go when charon reads a name; one with an attribute it does not know is a key id, and stays
    as it is."""

    def ask(session: Any) -> dict[str, str]:
        told = {}
        for text in [*(f"{name}=x , CN=y" for name in ATTRIBUTES), "XX=x , CN=y"]:
            session.load_conn({"names": {"local_addrs": ["192.0.2.1"], "local": {"auth": "psk", "id": text}}})
            (answer,) = session.list_conns({"ike": "names"})
            told[text] = texts(answer)["names"]["local-1"]["id"]
        return told

    told = await charon._call(ask)
    assert {text for text, shown in told.items() if shown == text} == {"XX=x , CN=y"}
