"""Who this agent is to SNMPv3, made at its first start and kept for ever.

The engine ID never changes, engineBoots grows by one at every start and is on disk before
the first datagram is read: otherwise messages of an earlier run would be accepted once more
(RFC 3414 section 2.2). The first start also makes the user `admin` with keys nobody else
knows, and leaves them in a file for net-snmp's tools that only the owner can read.
"""

from __future__ import annotations

import logging
import os
import secrets
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from agent.mib.ber import Value
from agent.mib.schema import Schema
from agent.snmp.access import Level
from agent.snmp.users import AUTH_KEY, PRIV_KEY, USER_TABLE
from agent.snmp.usm import AUTHENTICATION, PRIVACY, key_of_passphrase
from agent.store.hooks import Edit, Origin
from agent.store.secrets import write_private_octets
from agent.store.snapshot import Configuration

log = logging.getLogger(__name__)

KIND: Final = "snmp"  # of the durable numbers and texts
ENGINE_ID: Final = "engineId"
ENGINE_BOOTS: Final = "engineBoots"
MOST_BOOTS: Final = (
    1 << 31
) - 1  # there it stays; every message is then outside the time window (RFC 3414 section 2.3)
ENGINE_ID_PREFIX: Final = (272 | 1 << 31).to_bytes(4, "big") + b"\x05"  # enterprise of our objects; octets follow

ADMIN: Final = "admin"
ADMIN_AUTH: Final = 5  # ipsecGwUserAuthProtocol sha256
ADMIN_PRIV: Final = 3  # ipsecGwUserPrivProtocol aes128
PASSPHRASE_OCTETS: Final = 20  # of entropy, written in hexadecimal
CONFIGURATION_FILE: Final = "snmp.conf"
CREATE_AND_GO: Final = 4
WALK: Final = ".1.3.6.1.4.1.272"


class Storing(Protocol):
    """What is needed of the store."""

    @property
    def running(self) -> Configuration: ...
    @property
    def schema(self) -> Schema: ...
    def numbers(self, kind: str) -> dict[str, int]: ...
    def texts(self, kind: str) -> dict[str, bytes]: ...
    async def remember(self, kind: str, numbers: Mapping[str, int | None]) -> None: ...
    async def remember_texts(self, kind: str, texts: Mapping[str, bytes | None]) -> None: ...
    async def commit(self, edits: Sequence[Edit], origin: Origin) -> Any: ...


class Identity(NamedTuple):
    """snmpEngineID and snmpEngineBoots of this run."""

    engine_id: bytes
    boots: int


async def take_identity(store: Storing) -> Identity:
    """Engine ID, made where there is none, and the next engineBoots; both on disk on return."""
    engine_id = store.texts(KIND).get(ENGINE_ID)
    if engine_id is None:
        engine_id = ENGINE_ID_PREFIX + os.urandom(8)
        await store.remember_texts(KIND, {ENGINE_ID: engine_id})
    boots = min(store.numbers(KIND).get(ENGINE_BOOTS, 0) + 1, MOST_BOOTS)
    await store.remember(KIND, {ENGINE_BOOTS: boots})
    return Identity(engine_id, boots)


async def ensure_admin(store: Storing, state: Path) -> bool:
    """Where there is no user at all: make `admin`, and `snmp.conf` with its passphrases in the state folder. The
    file comes first, since the passphrases are nowhere else. Raises Refused, OSError."""
    if len(store.running.table(USER_TABLE)):
        return False
    auth, priv = (secrets.token_hex(PASSPHRASE_OCTETS) for _ in range(2))
    hash_name = AUTHENTICATION[ADMIN_AUTH].hash
    write_private_octets(state / CONFIGURATION_FILE, _configuration(auth, priv).encode())
    values: dict[str, Value] = {
        "ipsecGwUserName": ADMIN.encode(),
        "ipsecGwUserLevel": int(Level.ADMIN),
        "ipsecGwUserAuthProtocol": ADMIN_AUTH,
        "ipsecGwUserPrivProtocol": ADMIN_PRIV,
        AUTH_KEY: key_of_passphrase(auth.encode(), hash_name),
        PRIV_KEY: key_of_passphrase(priv.encode(), hash_name),
        "ipsecGwUserRowStatus": CREATE_AND_GO,
    }
    columns = store.schema.columns
    edits = [Edit(columns[name], 1, value) for name, value in values.items()]
    await store.commit(edits, Origin("agent", "agent", secure=True))
    log.info("user %s made; its keys are in %s", ADMIN, state / CONFIGURATION_FILE)
    return True


def _configuration(auth: str, priv: str) -> str:
    """What net-snmp's tools read (snmp.conf(5))."""
    lines = (
        "# Made by ipsec-agent at its first start; the keys of the user it made then. Keep it to yourself.",
        "mibs :",  # as Debian's own snmp.conf, which this one takes the place of: no complaints about missing modules
        "defVersion 3",
        f"defSecurityName {ADMIN}",
        "defSecurityLevel authPriv",
        "defAuthType SHA-256",
        f"defPrivType {PRIVACY[ADMIN_PRIV].name}",
        f"defAuthPassphrase {auth}",
        f"defPrivPassphrase {priv}",
    )
    return "\n".join(lines) + "\n"


def walk_command(state: Path, host: str, port: int) -> str:
    """The line that walks this agent when pasted into a shell. Holds no secret."""
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    address = f"udp6:[{local}]:{port}" if ":" in local else f"{local}:{port}"
    rest = f"snmpwalk -v3 {shlex.quote(address)} {WALK}"
    if ":" in str(state):  # net-snmp reads a colon as the end of a path
        return f"(cd {shlex.quote(str(state))} && SNMPCONFPATH=. {rest})"
    return f"SNMPCONFPATH={shlex.quote(str(state))} {rest}"
