"""Whom a manager speaks for: a community, or a user of SNMPv3 with keys made of passphrases."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from agent.snmp.client.errors import CredentialsError
from agent.snmp.pdu import Version
from agent.snmp.usm import AUTHENTICATION, key_of_passphrase

NONE: Final = 1  # of ipsecGwUserAuthProtocol and ipsecGwUserPrivProtocol
PASSPHRASE_LEAST: Final = 8  # octets, RFC 3414 section 11.2

_AUTHENTICATION_NAMES: Final = {
    **{name.hash: number for number, name in AUTHENTICATION.items()},
    "sha": 3,
}
_PRIVACY_NAMES: Final = {"des": 2, "aes": 3, "aes128": 3, "aes192": 4, "aes256": 5, "aes192c": 6, "aes256c": 7}


@dataclass(frozen=True, slots=True)
class Community:
    """SNMPv1 or v2c."""

    name: bytes = field(repr=False)
    version: Version = Version.V2C


@dataclass(frozen=True, slots=True)
class UsmUser:
    """SNMPv3. `authentication` and `privacy` are numbers of `AUTHENTICATION` and `PRIVACY`, 1 = none; the keys are Ku
    (RFC 3414 A.2), of no engine yet."""

    name: bytes
    authentication: int = NONE
    privacy: int = NONE
    auth_key: bytes = field(default=b"", repr=False)
    priv_key: bytes = field(default=b"", repr=False)
    context: bytes = b""

    @property
    def level(self) -> int:
        """The two security bits of msgFlags."""
        return (self.authentication != NONE) | (self.privacy != NONE) << 1


Credentials = Community | UsmUser


def user_of_passphrases(
    name: str, authentication: int = NONE, auth: str = "", privacy: int = NONE, priv: str = "", context: str = ""
) -> UsmUser:
    """A user whose keys are made of passphrases, which takes some milliseconds. Raises CredentialsError."""
    if privacy != NONE and authentication == NONE:
        raise CredentialsError(f"user {name}: privacy needs authentication")
    keys = []
    for what, number, passphrase in (("authentication", authentication, auth), ("privacy", privacy, priv)):
        if number != NONE and len(passphrase.encode()) < PASSPHRASE_LEAST:
            raise CredentialsError(f"user {name}: the passphrase of {what} has {PASSPHRASE_LEAST} octets or more")
        keys.append(
            key_of_passphrase(passphrase.encode(), AUTHENTICATION[authentication].hash) if number != NONE else b""
        )
    return UsmUser(name.encode(), authentication, privacy, keys[0], keys[1], context.encode())


def authentication_number(name: str) -> int:
    """Number of an authentication protocol as people and net-snmp write it: `SHA-256`, `sha256`, `MD5`, `none`.
    Raises CredentialsError."""
    return _number(name, _AUTHENTICATION_NAMES, "authentication protocol")


def privacy_number(name: str) -> int:
    """Number of a privacy protocol: `AES`, `aes128`, `AES-256-C`, `DES`, `none`. Raises CredentialsError."""
    return _number(name, _PRIVACY_NAMES, "privacy protocol")


def _number(name: str, names: dict[str, int], what: str) -> int:
    plain = re.sub(r"[-_ ]", "", name).lower()
    number = {**names, "none": NONE}.get(plain)
    if number is None:
        raise CredentialsError(f"{name!r} is no {what}; accepted: {', '.join(names)}, none")
    return number
