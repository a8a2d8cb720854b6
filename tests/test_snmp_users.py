"""Users of ipsecGwUserTable as they come, change and go; every protocol with net-snmp's tools."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from agent.mib.ber import Value
from agent.snmp.usm import AUTHENTICATION, PRIVACY, key_of_passphrase
from agent.store.hooks import AGENT, Edit
from tests.snmp_station import SCHEMA, Ran, Served, dotted, instance, run, served

pytestmark = pytest.mark.skipif(not shutil.which("snmpget"), reason="net-snmp's tools are not installed")

AUTH_NAMES = {2: "MD5", 3: "SHA", 4: "SHA-224", 5: "SHA-256", 6: "SHA-384", 7: "SHA-512"}
ENABLED = dotted(instance("ipsecGlobContDefaultRule", 0))
AUTH, PRIV = "the first passphrase", "the second passphrase"


async def write(at: Served, row: int, values: dict[str, Value]) -> None:
    await at.store.commit([Edit(SCHEMA.columns["ipsecGwUser" + n], row, v) for n, v in values.items()], AGENT)


async def make(at: Served, row: int, name: str, level: int, auth: int, priv: int) -> None:
    hash_name = AUTHENTICATION[auth].hash
    values: dict[str, Value] = {"Name": name.encode(), "Level": level, "AuthProtocol": auth, "PrivProtocol": priv}
    values |= {"AuthKey": key_of_passphrase(AUTH.encode(), hash_name), "RowStatus": 4}
    if priv > 1:
        values["PrivKey"] = key_of_passphrase(PRIV.encode(), hash_name)
    await write(at, row, values)


async def ask(at: Served, name: str, auth: int, priv: int, *command: str) -> Ran:
    level = ("-l", "authPriv", "-x", PRIVACY[priv].name, "-X", PRIV) if priv > 1 else ("-l", "authNoPriv")
    user = ("-v3", "-u", name, "-a", AUTH_NAMES[auth], "-A", AUTH, *level)
    return await run(command[0], *user, at.target, *command[1:])


@pytest.mark.slow
@pytest.mark.parametrize("auth", AUTHENTICATION)
async def test_every_protocol_is_understood(tmp_path: Path, auth: int) -> None:
    async with served(tmp_path) as at:
        for row, priv in enumerate((1, *PRIVACY), 10):
            name = f"user{priv}"
            await make(at, row, name, 3, auth, priv)
            answer = await ask(at, name, auth, priv, "snmpget", ENABLED)
            if "Invalid privacy protocol" in answer.err or "not support" in answer.err:
                continue  # this net-snmp was built without it
            assert answer.out.endswith("INTEGER: 1\n"), (auth, priv, answer)


async def test_levels_count_and_changes_take_effect_at_once(tmp_path: Path) -> None:
    async with served(tmp_path) as at:
        await make(at, 2, "reader", 3, 3, 1)
        assert (await ask(at, "reader", 3, 1, "snmpget", ENABLED)).code == 0
        refused = await ask(at, "reader", 3, 1, "snmpset", ENABLED, "i", "2")
        assert "authorizationError" in refused.err
        await write(at, 2, {"Level": 2})
        assert (await ask(at, "reader", 3, 1, "snmpset", ENABLED, "i", "2")).code == 0
        secret = dotted(instance("ipsecPeerPreSharedKey", 1)), "s", "x"
        creating = dotted(instance("ipsecPeerTrafficList", 1)), "i", "0"
        assert (await ask(at, "reader", 3, 1, "snmpset", *creating, *secret)).code == 0  # from loopback
        assert (
            "noAccess"
            in (await ask(at, "reader", 3, 1, "snmpset", dotted(instance("ipsecGwUserLevel", 2)), "i", "1")).err
        )
        await write(at, 2, {"AuthKey": key_of_passphrase(b"another passphrase", "sha1")})
        assert "Authentication failure" in (await ask(at, "reader", 3, 1, "snmpget", ENABLED)).err
        await write(at, 2, {"RowStatus": 2})
        assert "Unknown user name" in (await ask(at, "reader", 3, 1, "snmpget", ENABLED)).err
        await write(at, 2, {"RowStatus": 1, "AuthKey": key_of_passphrase(AUTH.encode(), "sha1")})
        assert (await ask(at, "reader", 3, 1, "snmpget", ENABLED)).code == 0
        await write(at, 2, {"RowStatus": 6})
        assert "Unknown user name" in (await ask(at, "reader", 3, 1, "snmpget", ENABLED)).err
        admin = await run("snmpget", "-v3", at.target, ENABLED, state=tmp_path)
        assert admin.code == 0


async def test_a_user_who_proves_nothing_is_none(tmp_path: Path) -> None:
    async with served(tmp_path) as at:
        await write(at, 2, {"Name": b"open", "Level": 1, "AuthProtocol": 1, "PrivProtocol": 1, "RowStatus": 4})
        answer = await run("snmpget", "-v3", "-u", "open", "-l", "noAuthNoPriv", at.target, ENABLED)
        assert "Unknown user name" in answer.err
