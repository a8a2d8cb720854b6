"""Beside snmpd: Debian's snmpd hands our subtree on by its `proxy` line, as docs/beside-snmpd.md says."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.snmp_station import IPSEC, WRITE, Ran, Served, dotted, instance, run, served, walked

pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("snmpd") is None, reason="no snmpd (package snmpd)")]

SUBTREE = dotted(IPSEC)
PATIENCE = 30.0  # seconds until snmpd answers
READER, WRITER = "station", "operator"  # communities of snmpd
USER, PASSWORD = "station3", "a password of snmpd"  # a user of snmpd
DOCUMENT = Path(__file__).parent.parent / "docs" / "beside-snmpd.md"


@asynccontextmanager
async def snmpd(folder: Path, *lines: str) -> AsyncIterator[str]:
    """A running snmpd with these lines and the communities and user above; its address."""
    folder.mkdir()  # noqa: ASYNC240 -- a folder of the test
    port = free_port()
    configuration = folder / "snmpd.conf"
    access = (f"rocommunity {READER} 127.0.0.1", f"rwcommunity {WRITER} 127.0.0.1", f"rwuser {USER} priv")
    user = f'createUser {USER} SHA-256 "{PASSWORD}" AES "{PASSWORD}"'
    configuration.write_text("\n".join((user, *access, *lines)) + "\n")
    environment = {**os.environ, "SNMP_PERSISTENT_DIR": str(folder), "SNMPCONFPATH": str(folder), "MIBS": ""}
    command = ["snmpd", "-f", "-Lf", str(folder / "snmpd.log"), "-C", "-c", str(configuration), "-I", "-smux"]
    process = await asyncio.create_subprocess_exec(*command, f"udp:127.0.0.1:{port}", env=environment)
    address = f"127.0.0.1:{port}"
    try:
        async with asyncio.timeout(PATIENCE):
            while (await run("snmpget", "-v2c", f"-c{READER}", "-r0", "-t1", address, ".1.3.6.1.2.1.1.3.0")).code:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        yield address
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


def proxy_line(kind: str, agent: Served) -> str:
    """The line of the document, with this agent's port and keys in the place of its."""
    [line] = [line for line in DOCUMENT.read_text().splitlines() if line.startswith(f"proxy -v {kind}")]
    host, port = agent.address
    lines = (agent.state / "snmp.conf").read_text().splitlines()
    settings = dict(each.split(None, 1) for each in lines if " " in each and not each.startswith("#"))
    for written, meant in (
        ("127.0.0.1:1161", f"{host}:{port}"),
        ("COMMUNITY", WRITE),
        ("AUTH-PASSPHRASE", settings["defAuthPassphrase"]),
        ("PRIV-PASSPHRASE", settings["defPrivPassphrase"]),
    ):
        line = line.replace(written, meant)
    return line


async def ask(tool: str, address: str, *more: str, community: str = WRITE) -> Ran:
    return await run(tool, "-v2c", f"-c{community}", "-On", "-r1", "-t20", address, *more)


@pytest.mark.parametrize("kind", ["2c", "3"])
async def test_through_snmpd_everything_reads_as_it_does_directly(tmp_path: Path, kind: str) -> None:
    async with served(tmp_path / "state") as agent, snmpd(tmp_path / "snmpd", proxy_line(kind, agent)) as through:
        made = await ask("snmpset", agent.target, dotted(instance("ipsecTrProto", 1)), "i", "255")
        assert made.code == 0, made
        state = agent.state if kind == "3" else None  # its snmp.conf is the user admin's, who sees more
        who = ("-v3", "-On") if state else ("-v2c", f"-c{WRITE}", "-On")
        direct = walked((await run("snmpbulkwalk", *who, agent.target, SUBTREE, state=state)).out)
        assert len(direct) > 200
        for tool in ("snmpwalk", "snmpbulkwalk"):
            assert walked((await ask(tool, through, SUBTREE, community=READER)).out) == direct
        some = [dotted(oid) for oid, _ in direct[:-1:10]]  # behind the last one come objects of snmpd's own
        for tool in ("snmpget", "snmpgetnext"):
            one = await run(tool, *who, agent.target, *some, state=state)
            other = await ask(tool, through, *some, community=READER)
            assert (other.out, other.code) == (one.out, 0)
        nothing = dotted(instance("ipsecPeerDescription", 4711))
        assert "No Such Instance" in (await ask("snmpget", through, nothing, community=READER)).out


@pytest.mark.parametrize(("kind", "user"), [("2c", "write-community"), ("3", "admin")])
async def test_a_set_through_snmpd_is_carried_out_as_the_user_of_the_proxy_line(
    tmp_path: Path, kind: str, user: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "agent.audit")
    name = dotted(instance("ipsecGwSystemContact", 0))
    async with served(tmp_path / "state") as agent, snmpd(tmp_path / "snmpd", proxy_line(kind, agent)) as through:
        done = await ask("snmpset", through, name, "s", "the operator", community=WRITER)
        assert done.code == 0, done
        assert agent.store.running.scalar("ipsecGwSystemContact") == b"the operator"
        assert f"by snmp user {user} from 127.0.0.1: ipsecGwSystemContact" in caplog.text
        secure = ("-v3", f"-u{USER}", "-lauthPriv", "-aSHA-256", f"-A{PASSWORD}", "-xAES", f"-X{PASSWORD}")
        done = await run("snmpset", *secure, "-On", through, name, "s", "by version 3")
        assert done.code == 0, done
        assert agent.store.running.scalar("ipsecGwSystemContact") == b"by version 3"


async def test_a_refusal_comes_back_with_its_code(tmp_path: Path) -> None:
    async with served(tmp_path / "state") as agent, snmpd(tmp_path / "snmpd", proxy_line("2c", agent)) as through:
        wrong = (dotted(instance("ipsecGwNotifyPause", 0)), "i", "3601")
        for address, community in ((agent.target, WRITE), (through, WRITER)):
            refused = await ask("snmpset", address, *wrong, community=community)
            assert refused.code and "wrongValue" in refused.err, (address, refused)


async def test_who_may_only_read_at_snmpd_changes_nothing(tmp_path: Path) -> None:
    name = dotted(instance("ipsecGwSystemContact", 0))
    async with served(tmp_path / "state") as agent, snmpd(tmp_path / "snmpd", proxy_line("2c", agent)) as through:
        before = agent.store.running.generation
        refused = await ask("snmpset", through, name, "s", "x", community=READER)
        assert refused.code and "noAccess" in refused.err
        assert agent.store.running.generation == before
