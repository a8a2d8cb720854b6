"""charon's names of algorithms in the numberings of the MIB, and what each adds to a packet.

The MIB numbers one algorithm differently in each table (ikeSaEncAlg has IKEv1's numbers
and twofish 9). Sizes: RFC 4303 section 2, RFC 2405, 2451, 3602, 3686, 4106, 4309, 7634 for
IV and block, RFC 2403, 2404, 4868, 3566 for the check value; RFC 4302 for AH.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from agent.backends.engine import ChildSa

IKE_CIPHERS: Final[Mapping[str, int]] = {
    "DES_CBC": 1,
    "BLOWFISH_CBC": 3,
    "3DES_CBC": 5,
    "CAST_CBC": 6,
    "AES_CBC": 7,
    "TWOFISH_CBC": 9,
}
IKE_HASHES: Final[Mapping[str, int]] = {  # ikeSaHashAlg by charon's integrity algorithm
    "HMAC_MD5_96": 1,
    "HMAC_SHA1_96": 2,
    "HMAC_SHA2_256_128": 5,
    "HMAC_SHA2_384_192": 6,
    "HMAC_SHA2_512_256": 7,
}
IKE_PRFS: Final[Mapping[str, int]] = {  # ikeSaPrfAlg
    "PRF_HMAC_MD5": 1,
    "PRF_HMAC_SHA1": 2,
    "PRF_HMAC_SHA2_256": 5,
    "PRF_HMAC_SHA2_384": 6,
    "PRF_HMAC_SHA2_512": 7,
}
GROUPS: Final[Mapping[str, int]] = {  # IANA's numbers: RFC 2409, 3526, 5114, 5903, 6954, 8031
    "MODP_768": 1,
    "MODP_1024": 2,
    "MODP_1536": 5,
    "MODP_2048": 14,
    "MODP_3072": 15,
    "MODP_4096": 16,
    "MODP_6144": 17,
    "MODP_8192": 18,
    "ECP_256": 19,
    "ECP_384": 20,
    "ECP_521": 21,
    "MODP_1024_160": 22,
    "MODP_2048_224": 23,
    "MODP_2048_256": 24,
    "ECP_192": 25,
    "ECP_224": 26,
    "ECP_224_BP": 27,
    "ECP_256_BP": 28,
    "ECP_384_BP": 29,
    "ECP_512_BP": 30,
    "CURVE_25519": 31,
    "CURVE_448": 32,
}
PROPOSAL_GROUPS: Final[Mapping[str, int]] = {  # the same in charon's configuration words
    name.replace("_", "").lower(): number for name, number in GROUPS.items()
}


IKEV2_CIPHERS: Final[Mapping[str, int]] = {  # ikev2SaEncAlg
    "DES_CBC": 2,
    "3DES_CBC": 3,
    "CAST_CBC": 6,
    "BLOWFISH_CBC": 7,
    "AES_CBC": 12,
    "AES_CTR": 13,
}
IKEV2_INTEGRITY: Final[Mapping[str, int]] = {  # ikev2SaIntegAlg
    "HMAC_MD5_96": 1,
    "HMAC_SHA1_96": 2,
    "HMAC_SHA2_256_128": 3,
    "HMAC_SHA2_384_192": 4,
    "HMAC_SHA2_512_256": 5,
}
IKEV2_PRFS: Final[Mapping[str, int]] = {  # ikev2SaPrfAlg
    "PRF_HMAC_MD5": 1,
    "PRF_HMAC_SHA1": 2,
    "PRF_HMAC_SHA2_256": 3,
    "PRF_HMAC_SHA2_384": 4,
    "PRF_HMAC_SHA2_512": 5,
}
ESP_ENCRYPTION: Final[Mapping[str, int]] = {  # ipsecSaEncAlg
    "": 1,
    "NULL": 1,
    "DES_CBC": 2,
    "3DES_CBC": 3,
    "BLOWFISH_CBC": 4,
    "CAST_CBC": 5,
    "TWOFISH_CBC": 6,
    "AES_CBC": 7,
}
ESP_AUTHENTICATION: Final[Mapping[str, int]] = {  # ipsecSaAuthAlg
    "": 2,
    "HMAC_MD5_96": 4,
    "HMAC_SHA1_96": 6,
    "HMAC_SHA2_256_128": 7,
    "HMAC_SHA2_256_96": 7,
    "HMAC_SHA2_384_192": 8,
    "HMAC_SHA2_512_256": 9,
}
FIXED_KEYS: Final[Mapping[str, int]] = {"DES_CBC": 8, "3DES_CBC": 24, "CAST_CBC": 16}  # octets
CHECK_KEYS: Final[Mapping[str, int]] = {  # octets, RFC 2403, 2404, 4868, 3566, 4494
    "HMAC_MD5_96": 16,
    "HMAC_SHA1_96": 20,
    "HMAC_SHA2_256_96": 32,
    "HMAC_SHA2_256_128": 32,
    "HMAC_SHA2_384_192": 48,
    "HMAC_SHA2_512_256": 64,
    "AES_XCBC_96": 16,
    "AES_CMAC_96": 16,
}


def cipher_octets(cipher: str, bits: int) -> int:
    """Length of a cipher's key; `bits` as charon tells it of those that have a choice."""
    return bits // 8 or FIXED_KEYS.get(cipher, 0)


def check_key_octets(integrity: str) -> int:
    """Length of an integrity key."""
    return CHECK_KEYS.get(integrity, 0)


class Cipher(NamedTuple):
    """Octets. `block`: what the padded payload is a multiple of; `check`: of a cipher with its own check value."""

    iv: int
    block: int
    check: int = 0


ESP_CIPHERS: Final[Mapping[str, Cipher]] = {
    "NULL": Cipher(0, 4),
    "DES_CBC": Cipher(8, 8),
    "3DES_CBC": Cipher(8, 8),
    "BLOWFISH_CBC": Cipher(8, 8),
    "CAST_CBC": Cipher(8, 8),
    "AES_CBC": Cipher(16, 16),
    "TWOFISH_CBC": Cipher(16, 16),
    "AES_CTR": Cipher(8, 4),
    "AES_GCM_8": Cipher(8, 4, 8),
    "AES_GCM_12": Cipher(8, 4, 12),
    "AES_GCM_16": Cipher(8, 4, 16),
    "AES_CCM_8": Cipher(8, 4, 8),
    "AES_CCM_12": Cipher(8, 4, 12),
    "AES_CCM_16": Cipher(8, 4, 16),
    "NULL_AES_GMAC": Cipher(8, 4, 16),
    "CHACHA20_POLY1305": Cipher(8, 4, 16),
}
CHECKS: Final[Mapping[str, int]] = {
    "HMAC_MD5_96": 12,
    "HMAC_SHA1_96": 12,
    "HMAC_SHA2_256_96": 12,
    "HMAC_SHA2_256_128": 16,
    "HMAC_SHA2_384_192": 24,
    "HMAC_SHA2_512_256": 32,
    "AES_XCBC_96": 12,
    "AES_CMAC_96": 12,
}
IP_HEADERS: Final[Mapping[int, int]] = {4: 20, 16: 40}  # by octets of the address
UDP_HEADER: Final = 8
ESP_HEADER: Final = 8
ESP_TRAILER: Final = 2
AH_HEADER: Final = 12
AH: Final = 51


class Overhead(NamedTuple):
    """What protection adds to each packet: `fixed` octets, and padding of payload and `trailer` to whole blocks."""

    fixed: int
    trailer: int
    block: int

    def on_the_wire(self, octets: int, packets: int) -> int:
        """Octets on the link of so many packets that together had so many octets inside.

        Exact when they were of one size, else right within a block for each: the kernel counts
        octets before padding, and sizes of single packets are not to be had."""
        if packets <= 0:
            return octets
        if octets % packets == 0:
            inside = octets // packets + self.trailer
            return packets * (-(-inside // self.block) * self.block + self.fixed)
        return octets + packets * (self.trailer + self.fixed) + packets * (self.block - 1) // 2


def overhead(child: ChildSa, address: bytes) -> Overhead:
    """`address`: an outer address. In transport mode the kernel counts what follows the IP header, which is as long as
    the outer one of tunnel mode, so both come to the same."""
    ip = IP_HEADERS.get(len(address), 20)
    check = CHECKS.get(child.integrity, 0)
    if child.protocol == AH:
        header = AH_HEADER + check
        return Overhead(ip + -(-header // 4) * 4, 0, 1)
    cipher = ESP_CIPHERS.get(child.encryption, Cipher(0, 4))
    udp = UDP_HEADER if child.encap else 0
    return Overhead(ip + udp + ESP_HEADER + cipher.iv + (cipher.check or check), ESP_TRAILER, cipher.block)
