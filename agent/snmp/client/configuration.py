"""net-snmp's snmp.conf as far as it says who asks: reading it, and putting new passwords into it.

The agent leaves such a file in its state folder at its first start. Of snmp.conf(5) the
directives about version, community and user are understood; everything else in it is
net-snmp's business and stays as it is.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Final

from agent.snmp.client.credentials import (
    NONE,
    Community,
    Credentials,
    authentication_number,
    privacy_number,
    user_of_passphrases,
)
from agent.snmp.client.errors import CredentialsError
from agent.snmp.pdu import Version
from agent.snmp.usm import AUTHENTICATION, PRIVACY

LEVELS: Final = {"noauthnopriv": 0, "authnopriv": 1, "authpriv": 3}  # the two security bits of msgFlags


def read_configuration(path: Path) -> Credentials:
    """Whom the file speaks for. Raises CredentialsError."""
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


def rewrite_passphrases(text: str, authentication: int, auth: str, privacy: int, priv: str) -> str:
    """The text of a snmp.conf with other protocols and passphrases of its user; all other lines as they are."""
    private = privacy != NONE
    wanted = {"defSecurityLevel": "authPriv" if private else "authNoPriv"}
    wanted["defAuthType"] = _net_snmp_name(authentication)
    wanted["defAuthPassphrase"] = _quoted(auth)
    if private:
        wanted |= {"defPrivType": PRIVACY[privacy].name, "defPrivPassphrase": _quoted(priv)}
    replaced = {name.lower() for name in (*wanted, "defPrivType", "defPrivPassphrase", "defPassphrase")}
    kept = [
        line for line in text.splitlines() if not (words := line.split(None, 1)) or words[0].lower() not in replaced
    ]
    return "\n".join([*kept, *(f"{name} {value}" for name, value in wanted.items())]) + "\n"


def _net_snmp_name(authentication: int) -> str:
    """`SHA-256` for sha256; `SHA` and `MD5` have no number."""
    name = AUTHENTICATION[authentication].hash.upper()
    return "SHA" if name == "SHA1" else name.replace("SHA", "SHA-")


def _quoted(value: str) -> str:
    """As it is, or in quotation marks where net-snmp would read something else."""
    if value.isprintable() and value == value.strip() and value[0] not in "\"'#":
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


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
