"""Secrets at rest: sealed with a key that lies beside the store and never in it.

AES-256-GCM with (table, row, column) as associated data, so that a sealed value copied to
another place does not open. A blob is one octet version, twelve of nonce, ciphertext, tag.
"""

from __future__ import annotations

import contextlib
import hmac
import logging
import os
import resource
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from agent.store.errors import SecretsError

logger = logging.getLogger(__name__)

KEY_FILE: Final = "store.key"
KEY_OCTETS: Final = 32
NONCE_OCTETS: Final = 12
VERSION: Final = b"\x01"


class Secrets:
    """Seals and opens with one key."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, table: str, row: int, column: str, plain: bytes) -> bytes:
        """A blob for this place; another one each time."""
        nonce = os.urandom(NONCE_OCTETS)
        return VERSION + nonce + self._cipher.encrypt(nonce, plain, _place(table, row, column))

    def open(self, table: str, row: int, column: str, blob: bytes) -> bytes:
        """What was sealed for this place. Raises SecretsError for anything else."""
        start = len(VERSION) + NONCE_OCTETS
        try:
            if not blob.startswith(VERSION):
                raise InvalidTag
            return self._cipher.decrypt(blob[len(VERSION) : start], blob[start:], _place(table, row, column))
        except (InvalidTag, ValueError):
            raise SecretsError(
                f"{column}.{row}: the sealed value cannot be opened; it was sealed with another key or for another row"
            ) from None

    def holds(self, table: str, row: int, column: str, blob: bytes, plain: bytes) -> bool:
        """Whether the blob opens to `plain`."""
        try:
            return hmac.compare_digest(self.open(table, row, column, blob), plain)
        except SecretsError:
            return False


def _place(table: str, row: int, column: str) -> bytes:
    return f"{table}\0{row}\0{column}".encode()


def no_core_dumps() -> None:
    """A core dump would hold keys. Also for the processes we start, which hold them too."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def load_key(folder: Path, *, sealed_values: bool) -> bytes:
    """The key of this store; made, durably, where there is none and nothing is sealed yet. Raises SecretsError."""
    path = folder / KEY_FILE
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        if sealed_values:
            raise SecretsError(
                f"{path} is missing, but the store holds secrets sealed with it; put the key file back from a copy"
            ) from None
        return _make_key(path)
    except OSError as error:
        raise SecretsError(f"{path} cannot be read: {error.strerror}") from None
    if len(key) != KEY_OCTETS:
        raise SecretsError(f"{path} has {len(key)} octets, a key has {KEY_OCTETS}; put the key file back from a copy")
    if path.stat().st_mode & 0o077:
        logger.warning("%s was readable by others than its owner; now it is not", path)
        path.chmod(0o600)
    return key


def _make_key(path: Path) -> bytes:
    key = os.urandom(KEY_OCTETS)
    write_private_octets(path, key)
    return key


def write_private_octets(path: Path, octets: bytes) -> None:
    """The file whole and on disk under its name, readable by its owner only, or as it was. Raises OSError."""
    draft = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        draft.unlink()
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(octets)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make new names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
