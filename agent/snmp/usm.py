"""The User-based Security Model as far as this agent does it itself (RFC 3414, RFC 7860, RFC 3826).

Keys from passphrases, keys of this engine, and the first look at an SNMPv3 message: whose
it is and whether its digest is right, before anything expensive happens. What a key is
called in ipsecGwUserTable and what pysnmp calls it meet in `AUTHENTICATION` and `PRIVACY`.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from agent.mib.ber import BerError, Wire, read_tlv
from agent.snmp.pdu import SEQUENCE

if TYPE_CHECKING:  # managers use what is here, and know no store
    from agent.snmp.access import Principal

Arcs = tuple[int, ...]

AUTHENTICATED: Final = 0x01
ENCRYPTED: Final = 0x02
REPORTABLE: Final = 0x04
USM: Final = 3
PASSPHRASE_EXPANSION: Final = 1 << 20  # octets that a passphrase is repeated to, RFC 3414 A.2


class Authentication(NamedTuple):
    """An authentication protocol: hash, octets of its digest on the wire, OID of usmUserAuthProtocol."""

    hash: str
    digest: int
    oid: Arcs

    @property
    def key(self) -> int:
        """Octets of its keys."""
        return hashlib.new(self.hash).digest_size


class Privacy(NamedTuple):
    """A privacy protocol: what net-snmp's `defPrivType` calls it, what pysnmp calls it, octets of its localized key
    (RFC 3414 section 8.1.1.1: a DES key comes with its initialisation vector), OID of usmUserPrivProtocol, and
    whether a hash that is too short is extended as Reeder's draft says instead of Blumenthal's."""

    name: str
    oid: Arcs
    key: int
    protocol: Arcs
    reeder: bool = False


_PROTOCOLS: Final = (1, 3, 6, 1, 6, 3, 10, 1)
AUTHENTICATION: Final = {
    2: Authentication("md5", 12, (*_PROTOCOLS, 1, 2)),
    3: Authentication("sha1", 12, (*_PROTOCOLS, 1, 3)),
    4: Authentication("sha224", 16, (*_PROTOCOLS, 1, 4)),
    5: Authentication("sha256", 24, (*_PROTOCOLS, 1, 5)),
    6: Authentication("sha384", 32, (*_PROTOCOLS, 1, 6)),
    7: Authentication("sha512", 48, (*_PROTOCOLS, 1, 7)),
}
"""By ipsecGwUserAuthProtocol; 1 is none."""
_BLUMENTHAL: Final = (1, 3, 6, 1, 4, 1, 14832, 1)  # snmp.com, where that draft's protocols got their names
_CISCO: Final = (1, 3, 6, 1, 4, 1, 9, 12, 6, 1)  # CISCO-SNMP-USM-EXT-MIB; pysnmp says it of Blumenthal's too
NO_AUTHENTICATION: Final = (*_PROTOCOLS, 1, 1)
NO_PRIVACY: Final = (*_PROTOCOLS, 2, 1)
PRIVACY: Final = {
    2: Privacy("DES", (*_PROTOCOLS, 2, 2), 16, (*_PROTOCOLS, 2, 2)),
    3: Privacy("AES", (*_PROTOCOLS, 2, 4), 16, (*_PROTOCOLS, 2, 4)),
    4: Privacy("AES-192", (*_CISCO, 1), 24, (*_BLUMENTHAL, 3)),
    5: Privacy("AES-256", (*_CISCO, 2), 32, (*_BLUMENTHAL, 4)),
    6: Privacy("AES-192-C", (*_CISCO, 101), 24, (*_CISCO, 1), True),
    7: Privacy("AES-256-C", (*_CISCO, 102), 32, (*_CISCO, 2), True),
}
"""By ipsecGwUserPrivProtocol; 1 is none."""


def key_of_passphrase(passphrase: bytes, hash_name: str) -> bytes:
    """Ku: the key of a user before it is bound to an engine (RFC 3414 A.2). Takes some milliseconds."""
    repeated = passphrase * (PASSPHRASE_EXPANSION // len(passphrase) + 1)
    return hashlib.new(hash_name, repeated[:PASSPHRASE_EXPANSION]).digest()


def localized(key: bytes, engine_id: bytes, hash_name: str) -> bytes:
    """Kul: the key of a user on one engine (RFC 3414 section 2.6)."""
    return hashlib.new(hash_name, key + engine_id + key).digest()


def localized_for(key: bytes, engine_id: bytes, hash_name: str, privacy: Privacy) -> bytes:
    """Kul of a privacy protocol, as long as it needs: cut, or extended as draft-blumenthal-aes-usm-04 section 3.1.2.1
    or draft-reeder-snmpv3-usm-3desede-00 section 2.1 says."""
    long = localized(key, engine_id, hash_name)
    while len(long) < privacy.key:
        if privacy.reeder:
            long += localized(key_of_passphrase(long, hash_name), engine_id, hash_name)
        else:
            long += hashlib.new(hash_name, long).digest()
    return long[: privacy.key]


@dataclass(frozen=True, slots=True)
class User:
    """A user with the keys of this engine, Kul; without `authentication` or `privacy` the level is lower. The keys
    Ku, which other engines' keys are made of, are empty once a KeyChange of RFC 3414 has replaced them. `sources`:
    number of the source list, 0 = from anywhere. `row` is that of ipsecGwUserTable."""

    principal: Principal
    authentication: Authentication | None
    privacy: Privacy | None
    auth_master: bytes = field(repr=False)
    priv_master: bytes = field(repr=False)
    auth_key: bytes = field(repr=False)
    priv_key: bytes = field(default=b"", repr=False)
    sources: int = 0
    row: int = 0

    @property
    def name(self) -> str:
        return self.principal.name


class Header(NamedTuple):
    """What an SNMPv3 message says before its data. `digest`: where msgAuthenticationParameters lie."""

    flags: int
    model: int
    engine_id: bytes
    user: bytes
    digest: tuple[int, int]


def read_header(data: bytes, at: int) -> Header:
    """The header of a message whose version ends at `at` (RFC 3412 section 6, RFC 3414 section 2.4). Raises
    BerError."""
    _, at, after_global = _expect(data, at, SEQUENCE)
    _, _, at = _expect(data, at, Wire.INTEGER)  # msgID
    _, _, at = _expect(data, at, Wire.INTEGER)  # msgMaxSize
    _, start, at = _expect(data, at, Wire.OCTET_STRING)
    if at - start != 1:
        raise BerError("msgFlags of one octet expected")
    flags = data[start]
    _, start, at = _expect(data, at, Wire.INTEGER)
    model = int.from_bytes(data[start:at], "big")
    if at != after_global:
        raise BerError("octets behind msgGlobalData")
    _, at, _ = _expect(data, at, Wire.OCTET_STRING)
    if model != USM:
        return Header(flags, model, b"", b"", (0, 0))
    _, at, _ = _expect(data, at, SEQUENCE)
    _, start, at = _expect(data, at, Wire.OCTET_STRING)
    engine_id = data[start:at]
    _, _, at = _expect(data, at, Wire.INTEGER)  # msgAuthoritativeEngineBoots
    _, _, at = _expect(data, at, Wire.INTEGER)  # msgAuthoritativeEngineTime
    _, start, at = _expect(data, at, Wire.OCTET_STRING)
    user = data[start:at]
    _, start, at = _expect(data, at, Wire.OCTET_STRING)
    return Header(flags, model, engine_id, user, (start, at))


def _expect(data: bytes, at: int, tag: int) -> tuple[int, int, int]:
    found = read_tlv(data, at)
    if found[0] != tag:
        raise BerError(f"tag 0x{tag:02x} expected")
    return found


def digest_is_right(data: bytes, header: Header, user: User) -> bool:
    """Whether the message carries the digest that this user's key makes; compared in constant time."""
    start, end = header.digest
    authentication = user.authentication
    if authentication is None or end - start != authentication.digest:
        return False
    blank = data[:start] + bytes(end - start) + data[end:]
    right = hmac.digest(user.auth_key, blank, authentication.hash)[: authentication.digest]
    return hmac.compare_digest(right, data[start:end])
