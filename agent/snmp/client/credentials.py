"""Whom a manager speaks for: a community, or a user with keys; given, or read from net-snmp's snmp.conf.

The agent leaves such a file in its state folder at its first start. Of snmp.conf(5) the
directives that say who asks are understood; everything else in it is net-snmp's business.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agent.snmp.client.errors import CredentialsError
from agent.snmp.pdu import Version
from agent.snmp.usm import AUTHENTICATION, key_of_passphrase

NONE: Final = 1  # of ipsecGwUserAuthProtocol and ipsecGwUserPrivProtocol
PASSPHRASE_LEAST: Final = 8  # octets, RFC 3414 section 11.2
LEVELS: Final = {"noauthnopriv": 0, "authnopriv": 1, "authpriv": 3}  # the two security bits of msgFlags

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


def read_configuration(path: Path) -> Credentials:
    """What a snmp.conf says of who asks; without a security name its community. Raises CredentialsError."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise CredentialsError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    values = _directives(text, path)

    def value(*names: str, otherwise: str = "") -> str:
        return next((values[name] for name in names if name in values), otherwise)

    version = value("defversion", otherwise="3").lower()
    if version in ("1", "2c"):
        community = value("defcommunity")
        if not community:
            raise CredentialsError(f"{path}: version {version} without defCommunity")
        return Community(community.encode(), Version.V1 if version == "1" else Version.V2C)
    if version != "3":
        raise CredentialsError(f"{path}: defVersion {version!r}; accepted: 1, 2c, 3")
    name = value("defsecurityname")
    if not name:
        raise CredentialsError(f"{path}: no defSecurityName")
    level = LEVELS.get(value("defsecuritylevel", otherwise="noAuthNoPriv").lower())
    if level is None:
        raise CredentialsError(f"{path}: defSecurityLevel is noAuthNoPriv, authNoPriv or authPriv")
    try:
        return user_of_passphrases(
            name,
            authentication_number(value("defauthtype", otherwise="MD5")) if level & 1 else NONE,
            value("defauthpassphrase", "defpassphrase"),
            privacy_number(value("defprivtype", otherwise="DES")) if level & 2 else NONE,
            value("defprivpassphrase", "defpassphrase"),
            value("defcontext"),
        )
    except CredentialsError as error:
        raise CredentialsError(f"{path}: {error}") from None


def _directives(text: str, path: Path) -> dict[str, str]:
    """By name in lower case, which net-snmp does not look at either; the last of two counts."""
    found = {}
    for line in text.splitlines():
        words = line.strip().split(None, 1)
        if len(words) != 2 or words[0].startswith("#"):
            continue
        name, value = words
        if value[0] in "\"'":
            try:
                value = shlex.split(value)[0]
            except (ValueError, IndexError):
                raise CredentialsError(f"{path}: the quotation mark of {name} has no end") from None
        found[name.lower()] = value
    return found
