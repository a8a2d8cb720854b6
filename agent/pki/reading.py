"""What is in a file with certificates and keys, whatever its coding: PEM, bare base64, DER, PKCS #12.

Reading says what was found and complains in words an operator can act on; what the
certificates are good for is decided elsewhere. Everything here may take a tenth of a second
(a password is stretched), so it is called in a thread.
"""

from __future__ import annotations

import base64
import binascii
import enum
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key, pkcs12

MOST_CERTIFICATES: Final = 32  # in one file
LEAST_BITS, MOST_BITS = 512, 4096  # of ipsecPubKeyKeyLength

BLOCK: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
CERTIFICATES: Final = (b"CERTIFICATE", b"X509 CERTIFICATE", b"TRUSTED CERTIFICATE")
SKIPPED: Final = (b"DH PARAMETERS", b"EC PARAMETERS", b"PUBLIC KEY")
ACCEPTED: Final = "accepted: certificates and RSA keys in PEM, DER or PKCS #12"


class Coding(enum.IntEnum):
    """ipsecGwImportCoding."""

    AUTO = 1
    BASE64 = 2
    BINARY = 3


class UnreadableFile(Exception):
    """The file holds nothing that can be used; the text says what is wrong and what would be accepted."""


@dataclass(slots=True)
class Bundle:
    """What a file holds, in its order."""

    certificates: list[x509.Certificate] = field(default_factory=list)
    keys: list[RSAPrivateKey] = field(default_factory=list, repr=False)


def read_bundle(octets: bytes, coding: Coding = Coding.AUTO, password: str = "") -> Bundle:
    """Everything in the file. Raises UnreadableFile."""
    secret = password.encode() or None
    if not octets.strip():
        raise UnreadableFile(f"the file is empty; {ACCEPTED}")
    if coding is Coding.BINARY:
        bundle = _binary(octets, secret)
    elif BLOCK.search(octets):
        bundle = _blocks(octets, secret)
    else:
        decoded = _base64(octets)
        if decoded is None and coding is Coding.BASE64:
            raise UnreadableFile("the file is not base64; accepted: that, or ipsecGwImportCoding auto(1)")
        bundle = _binary(octets if decoded is None else decoded, secret)
    if len(bundle.certificates) > MOST_CERTIFICATES:
        found = len(bundle.certificates)
        raise UnreadableFile(f"{found} certificates in one file; accepted: {MOST_CERTIFICATES} at most")
    return bundle


def _blocks(octets: bytes, secret: bytes | None) -> Bundle:
    """PEM (RFC 7468); text between the blocks is explanation."""
    bundle = Bundle()
    for block in BLOCK.finditer(octets):
        kind = block[1]
        if kind in CERTIFICATES:
            bundle.certificates.append(_certificate(block[0].replace(b" " + kind + b"-----", b" CERTIFICATE-----")))
        elif kind.endswith(b"PRIVATE KEY"):
            bundle.keys.append(_key(load_pem_private_key, block[0], secret))
        elif kind not in SKIPPED:
            raise UnreadableFile(f"{kind.decode()} cannot be imported; {ACCEPTED}")
    return bundle


def _base64(octets: bytes) -> bytes | None:
    try:
        return base64.b64decode(b"".join(octets.split()), validate=True)
    except binascii.Error:
        return None


def _binary(octets: bytes, secret: bytes | None) -> Bundle:
    """DER of a certificate, of a key, or PKCS #12: told apart by which of them it is."""
    try:
        return Bundle([x509.load_der_x509_certificate(octets)])
    except ValueError:
        pass
    try:
        found = pkcs12.load_pkcs12(octets, secret)
    except ValueError as error:
        if "password" in str(error).lower():
            raise UnreadableFile(_wrong_password("the PKCS #12 file", secret)) from None
    except UnsupportedAlgorithm as error:
        raise UnreadableFile(f"the PKCS #12 file is sealed in a way that is not supported: {error}") from None
    else:
        certificates = [found.cert, *found.additional_certs]
        bundle = Bundle([held.certificate for held in certificates if held is not None])
        if found.key is not None:
            bundle.keys.append(_rsa(found.key))
        return bundle
    return Bundle(keys=[_key(load_der_private_key, octets, secret)])


def _certificate(block: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(block)
    except ValueError as error:
        raise UnreadableFile(f"a certificate in the file is damaged: {error}") from None


def _key(load: Callable[[bytes, bytes | None], object], octets: bytes, secret: bytes | None) -> RSAPrivateKey:
    try:
        try:
            return _rsa(load(octets, secret))
        except TypeError as error:  # a password for a key that has none, or none for one that has
            if secret is None:
                raise UnreadableFile(_wrong_password("the private key", None)) from None
            if "not encrypted" in str(error):
                return _rsa(load(octets, None))
            raise
    except ValueError as error:
        if "password" in str(error).lower() or "decrypt" in str(error).lower():
            raise UnreadableFile(_wrong_password("the private key", secret)) from None
        raise UnreadableFile(f"neither a certificate nor a private key; {ACCEPTED}") from None
    except UnsupportedAlgorithm:
        raise UnreadableFile("the private key is of a kind that is not supported; accepted: RSA") from None


def _rsa(key: object) -> RSAPrivateKey:
    if not isinstance(key, RSAPrivateKey):
        kind = type(key).__name__.removeprefix("_").removesuffix("PrivateKey") or "another"
        raise UnreadableFile(f"the private key is of kind {kind}; accepted: RSA")
    if not LEAST_BITS <= key.key_size <= MOST_BITS:
        raise UnreadableFile(f"the private key has {key.key_size} bits; accepted: {LEAST_BITS}..{MOST_BITS}")
    return key


def _wrong_password(what: str, secret: bytes | None) -> str:
    if secret is None:
        return f"{what} is sealed with a password; accepted: it in ipsecGwImportPassword"
    return f"ipsecGwImportPassword does not open {what}"
