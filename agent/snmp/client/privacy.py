"""Ciphers of SNMPv3, seen from a manager: RFC 3414 section 8, RFC 3826, draft-blumenthal-aes-usm-04."""

from __future__ import annotations

import secrets
from itertools import count
from typing import Final

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from agent.mib.ber import BerError

DES: Final = 2  # of ipsecGwUserPrivProtocol
BLOCK: Final = 8  # octets of a DES block, and of every salt


class PrivacyCipher:
    """Encrypts and decrypts scoped PDUs with one localised key (usm.localized_for; for DES eight octets of key and
    eight of pre-IV). No salt comes twice."""

    def __init__(self, privacy: int, key: bytes) -> None:
        self._privacy = privacy
        self._key = key
        self._salts = count(secrets.randbits(63))

    def encrypt(self, plain: bytes, boots: int, time: int) -> tuple[bytes, bytes]:
        """(ciphertext, msgPrivacyParameters)."""
        number = next(self._salts)
        if self._privacy == DES:
            salt = boots.to_bytes(4, "big") + (number & 0xFFFFFFFF).to_bytes(4, "big")
            plain += bytes(-len(plain) % BLOCK)
        else:
            salt = (number & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "big")
        encryptor = self._cipher(salt, boots, time).encryptor()
        return encryptor.update(plain) + encryptor.finalize(), salt

    def decrypt(self, data: bytes, salt: bytes, boots: int, time: int) -> bytes:
        """Raises BerError where salt or length cannot be."""
        if len(salt) != BLOCK or (self._privacy == DES and len(data) % BLOCK):
            raise BerError("encrypted data of a wrong length")
        decryptor = self._cipher(salt, boots, time).decryptor()
        return decryptor.update(data) + decryptor.finalize()

    def _cipher(self, salt: bytes, boots: int, time: int) -> Cipher[modes.CBC | CFB]:
        if self._privacy == DES:
            iv = bytes(a ^ b for a, b in zip(salt, self._key[8:16], strict=True))
            return Cipher(TripleDES(self._key[:8] * 3), modes.CBC(iv))
        return Cipher(algorithms.AES(self._key), CFB(boots.to_bytes(4, "big") + time.to_bytes(4, "big") + salt))
