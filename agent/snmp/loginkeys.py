"""Public keys that users log in with over SSH (ipsecGwLoginKeyTable): what is accepted, and whose they are.

They are rows like all configuration, not files beside it: set by SNMP by those who may
administer users, refused where they make no sense, stored, exported and audited as the
users are. Only the outside of a key is looked at here; the SSH server does the rest. Keys
of 255 octets at most fit into an object, which RSA keys are too long for.

RFC 4253 section 6.6 (what a key is), RFC 5656 (ECDSA), RFC 8709 (Ed25519), OpenSSH's
PROTOCOL.u2f (security keys).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Final

from agent.mib.ber import Value
from agent.store.edits import refusal
from agent.store.errors import ErrorStatus
from agent.store.hooks import Change, Edit, Origin, RowChange
from agent.store.snapshot import Configuration

LOGIN_KEY_TABLE: Final = "ipsecGwLoginKeyTable"
USER: Final = "ipsecGwLoginKeyUser"
TEXT: Final = "ipsecGwLoginKeyText"
KINDS: Final = frozenset(
    {
        "ssh-ed25519",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "sk-ssh-ed25519@openssh.com",
        "sk-ecdsa-sha2-nistp256@openssh.com",
    }
)
ACCEPTED: Final = "a line as ssh-keygen writes it into a .pub file: ssh-ed25519, ecdsa-sha2-… or a security key's"
LENGTH: Final = 4  # octets that say how long a string is, RFC 4251 section 5


class LoginKeyError(ValueError):
    """What is wrong with the text of a key."""


def key_of_text(text: bytes) -> bytes:
    """The key itself, out of `kind key comment`. Raises LoginKeyError."""
    words = text.decode("ascii", "replace").split(None, 2)
    if len(words) < 2:
        raise LoginKeyError("no kind and key")
    kind, encoded = words[:2]
    if kind not in KINDS:
        raise LoginKeyError(
            "RSA is too long for an object" if kind == "ssh-rsa" else f"{kind[:40]!r} is no kind of key"
        )
    try:
        key = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raise LoginKeyError("the key is not base64") from None
    inside = kind.encode()
    if not key.startswith(len(inside).to_bytes(LENGTH, "big") + inside) or not _whole(key):
        raise LoginKeyError(f"the key is not whole, or not of kind {kind}")
    return key


def _whole(key: bytes) -> bool:
    """It is strings, each as long as it says, the last of them up to the end."""
    at = strings = 0
    while at + LENGTH <= len(key):
        at += LENGTH + int.from_bytes(key[at : at + LENGTH], "big")
        strings += 1
    return at == len(key) and strings > 1


def check_login_keys(
    before: Configuration,
    after: Configuration,
    rows: tuple[RowChange, ...],
    edits: Sequence[Edit],
    origin: Origin,
) -> None:
    """A check of the store: what is written as a key is one. Raises Refused."""
    for at, edit in enumerate(edits):
        if edit.column.name == TEXT and edit.value:
            try:
                key_of_text(_octets(edit.value))
            except LoginKeyError as error:
                raise refusal(ErrorStatus.WRONG_VALUE, at, edit, str(error), ACCEPTED) from None


class LoginKeys:
    """Subscriber of the store: the keys of each user, by the number of the user's row."""

    def __init__(self) -> None:
        self._of_user: dict[int, frozenset[bytes]] = {}

    def changed(self, change: Change) -> None:
        if change.replay or any(row.table == LOGIN_KEY_TABLE for row in change.rows):
            self._load(change.after)

    def _load(self, configuration: Configuration) -> None:
        found: dict[int, set[bytes]] = {}
        for row in configuration.rows(LOGIN_KEY_TABLE):
            user, text = row[USER], _octets(row[TEXT])
            if isinstance(user, int) and user and text:
                try:
                    found.setdefault(user, set()).add(key_of_text(text))
                except LoginKeyError:  # imported into a stopped agent, where nothing checks it
                    continue
        self._of_user = {user: frozenset(keys) for user, keys in found.items()}

    def has(self, user: int, key: bytes) -> bool:
        """Whether the user of this row logs in by this key."""
        return key in self._of_user.get(user, frozenset())


def _octets(value: Value) -> bytes:
    assert isinstance(value, bytes)
    return value
