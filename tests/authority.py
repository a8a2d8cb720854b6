"""Certification authorities for tests: roots, intermediates and gateways, made in memory by `cryptography`."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)
from cryptography.x509.oid import NameOID

BITS = 2048
DAY = datetime.timedelta(days=1)


def new_key(bits: int = BITS) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def dn(common: str) -> x509.Name:
    """C=DE, O=Example, CN=…, in the order of most certificates."""
    parts = ((NameOID.COUNTRY_NAME, "DE"), (NameOID.ORGANIZATION_NAME, "Example"), (NameOID.COMMON_NAME, common))
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])


def alternative(text: str) -> x509.GeneralName:
    """`gw@example.org` is an e-mail address, `192.0.2.1` an address, anything else a domain name."""
    if "@" in text:
        return x509.RFC822Name(text)
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


@dataclass
class Holder:
    """A certificate with its key; `chain`: those above it up to, not including, the root."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey
    chain: list[x509.Certificate] = field(default_factory=list)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    def key_pem(self, password: bytes = b"", form: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
        sealing: KeySerializationEncryption = BestAvailableEncryption(password) if password else NoEncryption()
        return self.key.private_bytes(Encoding.PEM, form, sealing)

    def pkcs12(self, password: bytes = b"", others: Sequence[x509.Certificate] | None = None) -> bytes:
        sealing: KeySerializationEncryption = BestAvailableEncryption(password) if password else NoEncryption()
        above = self.chain if others is None else list(others)
        return pkcs12.serialize_key_and_certificates(b"gateway", self.key, self.certificate, above, sealing)

    def issue(
        self,
        common: str,
        *,
        authority: bool = False,
        names: Sequence[str] = (),
        days: tuple[int, int] = (-1, 365),
        key: rsa.RSAPrivateKey | None = None,
    ) -> Holder:
        """A certificate signed by this one. `days`: validity counted from today."""
        key = key or new_key()
        made = build(dn(common), self.certificate.subject, key, self.key, authority, names, days)
        root = self.certificate.subject == self.certificate.issuer
        return Holder(made, key, [] if root else [self.certificate, *self.chain])


def build(
    subject: x509.Name,
    issuer: x509.Name,
    key: rsa.RSAPrivateKey,
    signer: rsa.RSAPrivateKey,
    authority: bool,
    names: Sequence[str],
    days: tuple[int, int],
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + days[0] * DAY)
        .not_valid_after(now + days[1] * DAY)
        .add_extension(x509.BasicConstraints(authority, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    usage = {
        "digital_signature": not authority,
        "content_commitment": False,
        "key_encipherment": not authority,
        "data_encipherment": False,
        "key_agreement": False,
        "key_cert_sign": authority,
        "crl_sign": authority,
        "encipher_only": False,
        "decipher_only": False,
    }
    builder = builder.add_extension(x509.KeyUsage(**usage), critical=True)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(map(alternative, names)), critical=False)
    return builder.sign(signer, SHA256())


def root(common: str = "Root") -> Holder:
    """A root that certifies itself."""
    key = new_key()
    return Holder(build(dn(common), dn(common), key, key, True, (), (-1, 3650)), key)


def self_signed(common: str, names: Sequence[str] = ()) -> Holder:
    """A certificate of a gateway that nobody else has signed."""
    key = new_key()
    return Holder(build(dn(common), dn(common), key, key, False, names, (-1, 365)), key)
