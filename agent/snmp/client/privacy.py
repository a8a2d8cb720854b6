"""Ciphers of SNMPv3 and the keys for them, seen from a manager (RFC 3414 section 8, RFC 3826).

The AES keys of 192 and 256 bits are longer than some digests, and there are two usual ways
to stretch a key: that of draft-blumenthal-aes-usm-04, and that of
draft-reeder-snmpv3-usm-3desede-00, which Cisco took up (`…c`).
"""

from __future__ import annotations

import hashlib
import secrets
from itertools import count
from typing import Final

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from agent.mib.ber import BerError
from agent.snmp.usm import key_of_passphrase, localized

DES: Final = 2  # of ipsecGwUserPrivProtocol
KEY_OCTETS: Final = {DES: 16, 3: 16, 4: 24, 5: 32, 6: 24, 7: 32}
REEDER: Final = frozenset({6, 7})
BLOCK: Final = 8  # octets of a DES block, and of every salt


def privacy_key(privacy: int, master: bytes, engine_id: bytes, hash_name: str) -> bytes:
    """The localised key of a privacy protocol, as long as its cipher needs; for DES eight octets of key and eight of
    pre-IV. `master` is Ku."""
    key = localized(master, engine_id, hash_name)
    while len(key) < KEY_OCTETS[privacy]:
        if privacy in REEDER:
            key += localized(key_of_passphrase(key, hash_name), engine_id, hash_name)
        else:
            key += hashlib.new(hash_name, key).digest()
    return key[: KEY_OCTETS[privacy]]


class PrivacyCipher:
    """Encrypts and decrypts scoped PDUs with one localised key. No salt comes twice."""

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
