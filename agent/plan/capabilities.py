"""What the engines can do, as tables: the keywords of charon 5.9.8 by MIB value, and who has them.

Tried on Debian's strongSwan 5.9.8 (algorithms of IKE and ESP, groups); what it lacks is
named with the reason, because that is what an operator gets to read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from agent.plan.model import Capabilities

GROUPS: Final[Mapping[int, str]] = MappingProxyType(
    {1: "modp768", 2: "modp1024", 5: "modp1536", 14: "modp2048", 15: "modp3072", 16: "modp4096"}
)
"""Diffie-Hellman groups by IANA number; 3 and 4 are elliptic curves nobody has, 6 to 13 were never in the MIB."""

MODERN_GROUPS: Final[Mapping[int, str]] = MappingProxyType(
    {
        17: "modp6144",
        18: "modp8192",
        19: "ecp256",
        20: "ecp384",
        21: "ecp521",
        31: "curve25519",
        32: "curve448",
    }
)
"""Those of ipsecGwIkePropGroup, ipsecGwIkePrfGroup and ipsecGwIpsecPrfPfsGroup; in IKEv1 too."""

ALL_GROUPS: Final[Mapping[int, str]] = MappingProxyType({**GROUPS, **MODERN_GROUPS})

DEFAULT_GROUP: Final = 14

IKE_CIPHERS: Final[Mapping[int, str]] = MappingProxyType(
    {2: "des", 3: "3des", 4: "blowfish", 5: "cast128", 6: "twofish", 7: "aes", 31: "aes"}
)
"""ikePropEncAlg; the lengths of those that have a choice are in KEY_SIZES."""

IKE_HASHES: Final[Mapping[int, str]] = MappingProxyType({3: "md5", 4: "sha1", 7: "sha256", 8: "sha384", 9: "sha512"})
"""ikePropHashAlg."""

LACKING_HASHES: Final[Mapping[int, str]] = MappingProxyType({2: "none", 5: "ripemd160", 6: "tiger192"})

AEADS: Final[Mapping[int, str]] = MappingProxyType(
    {2: "aes128gcm16", 3: "aes192gcm16", 4: "aes256gcm16", 5: "chacha20poly1305"}
)
"""ipsecGwIkePropAead, ipsecGwIpsecPropAead: ciphers with a check value of their own."""

AEAD_BITS: Final[Mapping[str, int]] = MappingProxyType(
    {"aes128gcm16": 128, "aes192gcm16": 192, "aes256gcm16": 256, "chacha20poly1305": 256}
)

AEAD_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "aes128gcm16": "AES-GCM of 128 bits",
        "aes192gcm16": "AES-GCM of 192 bits",
        "aes256gcm16": "AES-GCM of 256 bits",
        "chacha20poly1305": "ChaCha20-Poly1305",
    }
)

IKE_AEADS_OF_V2: Final = frozenset(AEADS.values())
"""Phase 1 of IKEv1 has no combined ciphers (RFC 5282 is for IKEv2)."""

ESP_AEADS_OF_V2: Final = frozenset({"chacha20poly1305"})
"""ESP ciphers without a number in IKEv1 (RFC 7634 gives one in IKEv2 only)."""

PRFS: Final[Mapping[int, str]] = MappingProxyType(
    {1: "prfsha256", 2: "prfsha1", 3: "prfsha256", 4: "prfsha384", 5: "prfsha512"}
)
"""ipsecGwIkePropPrf: beside a combined cipher, which brings no hash along."""

KEY_SIZES: Final[Mapping[str, tuple[int, ...]]] = MappingProxyType(
    {"aes": (256, 192, 128), "twofish": (256, 192, 128), "blowfish": (256, 192, 128)}
)
"""Strong ones first."""

UNSET_KEY_SIZES: Final[Mapping[str, tuple[int, ...]]] = MappingProxyType(
    {"aes": (256, 192, 128), "twofish": (128,), "blowfish": (128,)}
)
"""Offered when no key size is set (decision 3 of the effects: of AES 256 first)."""

KEY_LIMITS: Final[Mapping[str, tuple[int, int, int]]] = MappingProxyType(
    {
        **{name: (min(sizes), UNSET_KEY_SIZES[name][0], max(sizes)) for name, sizes in KEY_SIZES.items()},
        "cast128": (128, 128, 128),
        "3des": (192, 192, 192),
        "des": (64, 64, 64),
        "null": (0, 0, 0),
    }
)
"""Smallest, preset and largest key in bits, parity included as on the wire (DES: RFC 2405, 3DES: RFC 2451)."""

ESP_CIPHERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "ipsecPropEspAes": "aes",
        "ipsecPropEspTwofish": "twofish",
        "ipsecPropEspBlowfish": "blowfish",
        "ipsecPropEspCast": "cast128",
        "ipsecPropEspDes3": "3des",
        "ipsecPropEspDes": "des",
        "ipsecPropEspNull": "null",
    }
)
"""Rank columns of phase 2 ciphers."""

ESP_KEY_SIZES: Final[Mapping[str, str]] = MappingProxyType(
    {"aes": "ipsecPropAesKeySize", "twofish": "ipsecPropTwofishKeySize", "blowfish": "ipsecPropBlowfishKeySize"}
)

ESP_MACS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "ipsecPropEspMd5": "md5",
        "ipsecPropEspSha1": "sha1",
        "ipsecPropEspSha256": "sha256",
        "ipsecPropEspSha384": "sha384",
        "ipsecPropEspSha512": "sha512",
        "ipsecPropEspNoMac": "",
    }
)

AH_MACS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "ipsecPropAhMd5": "md5",
        "ipsecPropAhSha1": "sha1",
        "ipsecPropAhSha256": "sha256",
        "ipsecPropAhSha384": "sha384",
        "ipsecPropAhSha512": "sha512",
    }
)


def _charon(engine: str) -> Capabilities:
    return Capabilities(
        engine=engine,
        ike_ciphers=frozenset(IKE_CIPHERS.values()),
        ike_hashes=frozenset(IKE_HASHES.values()),
        ike_groups=frozenset(ALL_GROUPS),
        esp_ciphers=frozenset(ESP_CIPHERS.values()),
        esp_macs=frozenset(mac for mac in ESP_MACS.values() if mac),
        aeads=frozenset(AEADS.values()),
        nftables=True,  # unless `probed` says otherwise
    )


CHARON: Final = _charon("charon")
MEMORY: Final = _charon("memory")
ENGINES: Final[Mapping[str, Capabilities]] = MappingProxyType({"charon": CHARON, "linux": CHARON, "memory": MEMORY})


def probed(engine: Capabilities, *, nftables: str, interfaces: str) -> Capabilities:
    """An engine's capabilities on this machine; `nftables`, `interfaces`: why packet filter rules and XFRM interfaces
    cannot be had, '' when they can."""
    return replace(engine, nftables=not nftables, nftables_lack=nftables, interfaces_lack=interfaces)


def can(offered: frozenset[str] | frozenset[int], wanted: str | int) -> bool:
    """Whether an engine has it; an engine that says nothing is taken to have all of charon's."""
    return not offered or wanted in offered


def nearest_key_size(cipher: str, wanted: int) -> int:
    """The longest key the engine has that is not longer than `wanted`, else its shortest."""
    sizes = KEY_SIZES[cipher]
    return next((size for size in sizes if size <= wanted), sizes[-1])
