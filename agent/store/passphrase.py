"""Secrets that travel in a file: sealed with a passphrase, or with the store's own key where the file stays beside it.

Scrypt (RFC 7914) makes the key of the passphrase; its parameters stand in the file and are
bounded when read, so that no file costs a gigabyte. Each secret is sealed as those of the
store are, with its place as associated data.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final, Protocol

from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from agent.store.errors import SecretsError
from agent.store.secrets import KEY_OCTETS, Secrets

CIPHER: Final = "aes-256-gcm"
COST: Final = 1 << 15  # n; 32 MiB with r = 8, a tenth of a second
BLOCK: Final = 8
LANES: Final = 1
MOST_COST: Final = 1 << 20
MOST_BLOCK: Final = 16
MOST_LANES: Final = 4
MOST_MEMORY: Final = 1 << 30  # octets: 128 n r
SALT_OCTETS: Final = 16
LEAST_PASSPHRASE: Final = 8  # octets

Place = tuple[str, int, str]


class Lock(Protocol):
    """What seals the secrets of one file."""

    def parameters(self) -> dict[str, str | int]:
        """What a reader needs beside the key."""

    def seal(self, place: Place, plain: bytes) -> bytes: ...
    def open(self, place: Place, blob: bytes) -> bytes:
        """Raises SecretsError."""


class PassphraseLock:
    """Of a passphrase. Making it takes a tenth of a second and 32 MiB. Raises SecretsError for a short one."""

    def __init__(self, passphrase: str, salt: bytes = b"", n: int = COST, r: int = BLOCK, p: int = LANES) -> None:
        octets = passphrase.encode()
        if len(octets) < LEAST_PASSPHRASE:
            raise SecretsError(f"the passphrase has {len(octets)} octets; accepted: {LEAST_PASSPHRASE} and more")
        self._salt = salt or os.urandom(SALT_OCTETS)
        self._n, self._r, self._p = n, r, p
        self._secrets = Secrets(Scrypt(salt=self._salt, length=KEY_OCTETS, n=n, r=r, p=p).derive(octets))

    def parameters(self) -> dict[str, str | int]:
        numbers = {"n": self._n, "r": self._r, "p": self._p}
        return {"cipher": CIPHER, "key": "scrypt", "salt": self._salt.hex(), **numbers}

    def seal(self, place: Place, plain: bytes) -> bytes:
        return self._secrets.seal(*place, plain)

    def open(self, place: Place, blob: bytes) -> bytes:
        return self._secrets.open(*place, blob)


class StoreKeyLock:
    """Of the key beside the store: for files that stay there."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets

    def parameters(self) -> dict[str, str | int]:
        return {"cipher": CIPHER, "key": "store"}

    def seal(self, place: Place, plain: bytes) -> bytes:
        return self._secrets.seal(*place, plain)

    def open(self, place: Place, blob: bytes) -> bytes:
        return self._secrets.open(*place, blob)


def lock_of(parameters: Mapping[str, Any], passphrase: str, store: Secrets) -> Lock:
    """The lock that a file names. Raises SecretsError."""
    if parameters.get("cipher") != CIPHER:
        raise SecretsError(f"cipher = {parameters.get('cipher')!r} in the file; accepted: {CIPHER}")
    kind = parameters.get("key")
    if kind == "store":
        return StoreKeyLock(store)
    if kind != "scrypt":
        raise SecretsError(f"key = {kind!r} in the file; accepted: scrypt, store")
    if not passphrase:
        raise SecretsError("the file has secrets; accepted: the passphrase that they were sealed with")
    numbers = [parameters.get(name) for name in ("n", "r", "p")]
    if not all(isinstance(number, int) and number > 0 for number in numbers):
        raise SecretsError("n, r and p of scrypt are missing in the file")
    n, r, p = (int(number or 0) for number in numbers)
    if n & (n - 1) or n < 2 or n > MOST_COST or r > MOST_BLOCK or p > MOST_LANES or 128 * n * r > MOST_MEMORY:
        raise SecretsError(
            f"n = {n}, r = {r}, p = {p} of scrypt in the file; accepted: n a power of two up to {MOST_COST}, "
            f"r up to {MOST_BLOCK}, p up to {MOST_LANES}, and {MOST_MEMORY} octets of memory"
        )
    try:
        salt = bytes.fromhex(str(parameters.get("salt", "")))
    except ValueError:
        raise SecretsError("salt of scrypt in the file is not hexadecimal") from None
    if len(salt) < SALT_OCTETS:
        raise SecretsError(f"salt of scrypt in the file has {len(salt)} octets; accepted: {SALT_OCTETS} and more")
    return PassphraseLock(passphrase, salt, n, r, p)
