"""A certificate, and a private key, as cells of certTable and ipsecPublicKeyTable.

What the tables show is taken from the certificate once, when it comes in; the certificate
itself is kept beside as DER. Names are written as the guide shows them (RFC 4514 with a
blank after the comma), alternative names with their kind in front, `DNS:gw.example.org`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.dsa import DSAPublicKey
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import MD5, SHA1
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtensionOID

from agent.mib.ber import Value

CERTIFICATES: Final = "certTable"
KEYS: Final = "ipsecPublicKeyTable"
TEXT_OCTETS: Final = 255  # of a DisplayString
TRUE, FALSE = 1, 2
OWN, CA, PEER = 1, 2, 3  # ipsecGwCertificateKind
RSA: Final = 2  # ipsecPubKeyAlgorithm
COMPLETE: Final = 2  # ipsecPubKeyState
CONFIG: Final = 1  # certSource
LATEST: Final = 0x7FFF_FFFF  # of a Date; certificates that outlive 2038 show it

USAGES: Final = (
    ("digital_signature", 0x80),
    ("content_commitment", 0x40),
    ("key_encipherment", 0x20),
    ("data_encipherment", 0x10),
    ("key_agreement", 0x08),
    ("key_cert_sign", 0x04),
    ("crl_sign", 0x02),
)
"""Bits of certKeyUsage by attribute of x509.KeyUsage; encipherOnly 0x01 and decipherOnly 0x10000 beside."""


def certificate_cells(certificate: x509.Certificate, now: float) -> dict[str, Value]:
    """Columns of certTable that the certificate decides. `now`: seconds since 1970."""
    begin, end = validity(certificate)
    return {
        "certSerialNumber": str(certificate.serial_number).encode()[:TEXT_OCTETS],
        "certSubjectName": display(name_text(certificate.subject)),
        "certSubjectAltNames": display(_alternatives(certificate, ExtensionOID.SUBJECT_ALTERNATIVE_NAME)),
        "certIssuerName": display(name_text(certificate.issuer)),
        "certIssuerAltNames": display(_alternatives(certificate, ExtensionOID.ISSUER_ALTERNATIVE_NAME)),
        "certPubKeyInfo": _key_info(certificate),
        "certKeyId": _key_id(certificate),
        "certValidNotBefore": begin,
        "certValidNotAfter": end,
        "certUptodate": uptodate(begin, end, now),
        "certKeyUsage": _usage(certificate),
        "certMD5Fingerprint": certificate.fingerprint(MD5()),
        "certSHA1Fingerprint": certificate.fingerprint(SHA1()),
        "certSource": CONFIG,
        "ipsecGwCertificateCaFlag": TRUE if is_authority(certificate) else FALSE,
        "ipsecGwCertificateData": certificate.public_bytes(Encoding.DER),
    }


def key_cells(key: RSAPrivateKey, description: str) -> dict[str, Value]:
    """Columns of ipsecPublicKeyTable; the key itself in plain, for the store to seal."""
    return {
        "ipsecPubKeyDescription": display(description),
        "ipsecPubKeyAlgorithm": RSA,
        "ipsecPubKeyKeyLength": key.key_size,
        "ipsecPubKeyPublicExponent": min(key.public_key().public_numbers().e, LATEST),
        "ipsecPubKeyState": COMPLETE,
        "ipsecGwPublicKeyId": key_id(key.public_key()),
        "ipsecGwPublicKeyData": key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
    }


def key_id(key: RSAPublicKey) -> bytes:
    """SHA-1 of the public key (RFC 5280 4.2.1.2, method 1), by which key and certificate find each other."""
    return hashlib.sha1(key.public_bytes(Encoding.DER, PublicFormat.PKCS1), usedforsecurity=False).digest()


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether the certificate says that it is one of a certification authority (basicConstraints)."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def is_self_issued(certificate: x509.Certificate) -> bool:
    """A root names itself as its issuer, and its signature is its own."""
    if certificate.subject != certificate.issuer:
        return False
    try:
        certificate.verify_directly_issued_by(certificate)
    except Exception:
        return False
    return True


def validity(certificate: x509.Certificate) -> tuple[int, int]:
    """Beginning and end, seconds since 1970, as far as a Date reaches."""
    begin = int(certificate.not_valid_before_utc.timestamp())
    end = int(certificate.not_valid_after_utc.timestamp())
    return max(-LATEST - 1, min(begin, LATEST)), max(-LATEST - 1, min(end, LATEST))


def uptodate(begin: int, end: int, now: float) -> int:
    """certUptodate: percent of the validity that is left; 0 expired, 100 not yet valid."""
    if now >= end:
        return 0
    if now < begin or end <= begin:
        return 100
    return max(1, min(99, int((end - now) * 100 // (end - begin))))


def name_text(name: x509.Name) -> str:
    """`CN=gw, O=Example, C=DE`: the RDN that comes last in the certificate comes first."""
    return ", ".join(rdn.rfc4514_string() for rdn in reversed(name.rdns))


def display(text: str) -> bytes:
    """Text as a DisplayString: one line, at most 255 octets, never cut within a character."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return line.encode()[:TEXT_OCTETS].decode("utf-8", "ignore").encode()


def _alternatives(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> str:
    try:
        names: Iterable[x509.GeneralName] = certificate.extensions.get_extension_for_oid(oid).value  # type: ignore[assignment]
        return ", ".join(filter(None, map(_general_name, names)))
    except (x509.ExtensionNotFound, ValueError):
        return ""


def _general_name(name: x509.GeneralName) -> str:
    if isinstance(name, x509.DNSName):
        return f"DNS:{name.value}"
    if isinstance(name, x509.IPAddress):
        return f"IP:{name.value}"
    if isinstance(name, x509.RFC822Name):
        return f"email:{name.value}"
    if isinstance(name, x509.UniformResourceIdentifier):
        return f"URI:{name.value}"
    if isinstance(name, x509.DirectoryName):
        return f"DN:<{name_text(name.value)}>"
    if isinstance(name, x509.RegisteredID):
        return f"RID:{name.value.dotted_string}"
    return ""


def _key_info(certificate: x509.Certificate) -> bytes:
    try:
        key = certificate.public_key()
    except Exception:  # an algorithm that the library does not know
        return b"unknown"
    if isinstance(key, RSAPublicKey):
        return f"RSA {key.key_size} bits".encode()
    if isinstance(key, DSAPublicKey):
        return f"DSA {key.key_size} bits".encode()
    if isinstance(key, EllipticCurvePublicKey):
        return f"EC {key.curve.name}".encode()
    return type(key).__name__.removeprefix("_").removesuffix("PublicKey").encode()


def _key_id(certificate: x509.Certificate) -> bytes:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except (x509.ExtensionNotFound, ValueError):
        return b""


def _usage(certificate: x509.Certificate) -> int:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        return 0
    bits = sum(bit for attribute, bit in USAGES if getattr(usage, attribute))
    if usage.key_agreement:
        bits |= 0x01 * usage.encipher_only | 0x10000 * usage.decipher_only
    return bits
