"""The product's own manager against an agent that is not ours: net-snmp's snmpd, all protocols it was built with."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from agent.mib.ber import Wire, encode_value
from agent.snmp.client import (
    Community,
    Credentials,
    Missing,
    NoAnswer,
    Reported,
    RequestFailed,
    SnmpClient,
    Tlv,
    user_of_passphrases,
)
from agent.snmp.pdu import Version
from agent.snmp.usm import PRIVACY
from agent.store.errors import ErrorStatus
from tests.ports import free_port

SNMPD = shutil.which("snmpd") or shutil.which("/usr/sbin/snmpd")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(SNMPD is None, reason="net-snmp's snmpd is not installed")]

AUTH, PRIV = "the first passphrase", "the second passphrase"
NAMES = {2: "MD5", 3: "SHA", 4: "SHA-224", 5: "SHA-256", 6: "SHA-384", 7: "SHA-512"}
LOCATION, CONTACT, DESCR = ".1.3.6.1.2.1.1.6.0", ".1.3.6.1.2.1.1.4.0", ".1.3.6.1.2.1.1.1.0"
PATIENCE = 30.0
WELL_LOCALISED = (1, 2, 3)  # none, DES, AES-128: RFC 3414 and 3826; the rest needs a net-snmp with the draft's


def name_of(auth: int, priv: int) -> str:
    return f"user{auth}{priv}"


@pytest.fixture(scope="module")
def snmpd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, str]]:
    """Port, and what snmpd says of its configuration."""
    folder = tmp_path_factory.mktemp("snmpd")
    port = free_port()
    lines = ["rocommunity reading 127.0.0.1", "rwcommunity writing 127.0.0.1", "createUser nobody"]
    for auth in NAMES:
        for priv in (1, *PRIVACY):
            private = f' {PRIVACY[priv].name} "{PRIV}"' if priv > 1 else ""
            lines.append(f'createUser {name_of(auth, priv)} {NAMES[auth]} "{AUTH}"{private}')
            lines.append(f"rwuser {name_of(auth, priv)} {'priv' if priv > 1 else 'auth'}")
    (folder / "snmpd.conf").write_text("\n".join(lines) + "\n")
    log = folder / "log"
    assert SNMPD is not None
    process = subprocess.Popen(
        [SNMPD, "-f", "-C", "-c", "snmpd.conf", "-Lf", str(log), "-I", "-smux", "-p", "pid", f"udp:127.0.0.1:{port}"],
        cwd=folder,
        env={**os.environ, "SNMP_PERSISTENT_DIR": str(folder / "kept"), "MIBS": "", "LC_ALL": "C"},
    )
    try:
        end = time.monotonic() + PATIENCE
        while not _listens(port):
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        yield port, log.read_text()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)


def _listens(port: int) -> bool:
    """Whether somebody answers there: the system says when nobody does."""

    async def ask() -> bool:
        async with await SnmpClient.open("127.0.0.1", port, Community(b"reading"), wait=0.2, retries=0) as client:
            try:
                await client.get([DESCR])
            except NoAnswer:
                return False
            return True

    return asyncio.run(ask())


async def client(port: int, who: Credentials) -> SnmpClient:
    return await SnmpClient.open("127.0.0.1", port, who, wait=10.0, retries=1)


def octets(text: bytes) -> Tlv:
    return Tlv(encode_value(Wire.OCTET_STRING, text))


@pytest.mark.parametrize("priv", [1, *PRIVACY])
@pytest.mark.parametrize("auth", NAMES)
async def test_every_protocol_reads_and_writes(snmpd: tuple[int, str], auth: int, priv: int) -> None:
    port, log = snmpd
    name = PRIVACY[priv].name if priv > 1 else ""
    if priv not in WELL_LOCALISED and f"Unknown privacy protocol: {name}" in log.replace('"', ""):
        pytest.skip(f"this snmpd was built without {name}")
    who = user_of_passphrases(name_of(auth, priv), auth, AUTH, priv, PRIV)
    async with await client(port, who) as asking:
        text = f"auth {auth}, priv {priv}".encode()
        await asking.set([(LOCATION, octets(text)), (CONTACT, octets(text[::-1]))])
        location, contact, nothing = await asking.get([LOCATION, CONTACT, ".1.3.6.1.4.1.272.1.0"])
        assert (location.value, contact.value) == (text, text[::-1])
        assert nothing.value is Missing.NO_SUCH_OBJECT


@pytest.mark.parametrize("who", ["v1", "v2c", "v3"])
async def test_a_walk_finds_what_snmpwalk_finds(snmpd: tuple[int, str], who: str) -> None:
    port, _ = snmpd
    version = Version.V1 if who == "v1" else Version.V2C
    credentials = (
        user_of_passphrases(name_of(5, 3), 5, AUTH, 3, PRIV) if who == "v3" else Community(b"reading", version)
    )
    command = ["snmpwalk", "-v2c", "-c", "reading", "-On", "-Cc", "-t20", f"127.0.0.1:{port}", ".1.3.6.1.2.1.1"]
    if not shutil.which("snmpwalk"):
        pytest.skip("net-snmp's tools are not installed")
    ran = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, env={**os.environ, "MIBS": "", "SNMPCONFPATH": "/nonexistent"}
    )
    out, _ = await ran.communicate()
    theirs = [line.split(" = ")[0] for line in out.decode().splitlines() if line.startswith(".1.")]
    async with await client(port, credentials) as asking:
        ours = ["." + ".".join(map(str, v.oid)) async for v in asking.walk(".1.3.6.1.2.1.1")]
        assert ours == theirs
        assert len(ours) > 20
        whole = [v.oid async for v in asking.walk(".1")]
        assert whole == sorted(set(whole))
        assert len(whole) > 300


async def test_what_snmpd_refuses_is_said(snmpd: tuple[int, str]) -> None:
    port, _ = snmpd
    async with await client(port, user_of_passphrases(name_of(5, 3), 5, AUTH, 3, PRIV)) as asking:
        with pytest.raises(RequestFailed, match="notWritable") as failed:
            await asking.set([(LOCATION, octets(b"here")), (DESCR, octets(b"x"))])
        assert (failed.value.status, failed.value.index) == (ErrorStatus.NOT_WRITABLE, 2)
        assert failed.value.name == DESCR
    for who, words in (
        (user_of_passphrases("stranger", 5, AUTH, 3, PRIV), "does not know the user"),
        (user_of_passphrases(name_of(5, 3), 5, PRIV, 3, PRIV), "authentication password"),
        (user_of_passphrases(name_of(5, 3), 5, AUTH, 3, AUTH), "privacy password"),  # which snmpd says nothing to
        (user_of_passphrases(name_of(5, 1), 5, AUTH, 3, PRIV), "security level"),
    ):
        async with await SnmpClient.open("127.0.0.1", port, who, wait=3.0, retries=0) as asking:
            with pytest.raises((Reported, NoAnswer), match=words):
                await asking.get([DESCR])
    async with await SnmpClient.open("127.0.0.1", port, Community(b"wrong"), wait=0.1, retries=1) as asking:
        with pytest.raises(NoAnswer):
            await asking.get([DESCR])
