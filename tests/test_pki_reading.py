"""Files with certificates and keys: every coding is read, and what cannot be used is named."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.pki.reading import MOST_CERTIFICATES, Bundle, Coding, UnreadableFile, read_bundle
from tests.authority import Holder, root

ROOT = root()
GATEWAY = ROOT.issue("gw", names=["gw.example.org"])
PASSWORD = "open, sesame"
DER_KEY = GATEWAY.key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())

FILES: dict[str, tuple[Callable[[Holder], bytes], int, int, str]] = {
    "PEM": (lambda held: held.pem, 1, 0, ""),
    "PEM with text around it": (lambda held: b"subject=gw\n" + held.pem + b"\nend", 1, 0, ""),
    "DER": (lambda held: held.der, 1, 0, ""),
    "base64": (lambda held: base64.encodebytes(held.der), 1, 0, ""),
    "PEM and key": (lambda held: held.pem + held.key_pem(), 1, 1, ""),
    "key first, PKCS #1": (lambda held: held.key_pem(form=PrivateFormat.TraditionalOpenSSL) + held.pem, 1, 1, ""),
    "sealed key": (lambda held: held.pem + held.key_pem(PASSWORD.encode()), 1, 1, PASSWORD),
    "key without the password that is given": (lambda held: held.pem + held.key_pem(), 1, 1, PASSWORD),
    "DER key": (lambda held: DER_KEY, 0, 1, ""),
    "chain": (lambda held: held.pem + ROOT.pem, 2, 0, ""),
    "PKCS #12": (lambda held: held.pkcs12(PASSWORD.encode(), [ROOT.certificate]), 2, 1, PASSWORD),
    "PKCS #12 without a password": (lambda held: held.pkcs12(), 1, 1, ""),
    "base64 of PKCS #12": (lambda held: base64.b64encode(held.pkcs12(PASSWORD.encode())), 1, 1, PASSWORD),
}


@pytest.mark.parametrize("what", FILES)
def test_every_coding_is_read(what: str) -> None:
    make, certificates, keys, password = FILES[what]
    octets = make(GATEWAY)
    binary = what in ("DER", "DER key", "PKCS #12", "PKCS #12 without a password")
    for coding in (Coding.AUTO, Coding.BINARY if binary else Coding.BASE64):
        bundle = read_bundle(octets, coding, password)
        assert (len(bundle.certificates), len(bundle.keys)) == (certificates, keys)
        if certificates:
            assert GATEWAY.certificate in bundle.certificates
        if keys:
            assert bundle.keys[0].private_numbers() == GATEWAY.key.private_numbers()


EC_KEY = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

REFUSALS = {
    "nothing": (b" \n", Coding.AUTO, "", "the file is empty"),
    "text": (b"no certificate at all", Coding.AUTO, "", "neither a certificate nor a private key"),
    "not base64": (GATEWAY.der, Coding.BASE64, "", "not base64"),
    "PEM as binary": (GATEWAY.pem, Coding.BINARY, "", "neither a certificate nor a private key"),
    "cut": (GATEWAY.pem.replace(b"\n", b"", 3)[:200] + b"\n-----END CERTIFICATE-----\n", Coding.AUTO, "", "is damaged"),
    "sealed key, no password": (GATEWAY.key_pem(b"x"), Coding.AUTO, "", "ipsecGwImportPassword"),
    "sealed key, wrong password": (GATEWAY.key_pem(b"x"), Coding.AUTO, "y", "does not open the private key"),
    "PKCS #12, wrong password": (GATEWAY.pkcs12(b"x"), Coding.AUTO, "y", "does not open the PKCS #12 file"),
    "PKCS #12, no password": (GATEWAY.pkcs12(b"x"), Coding.AUTO, "", "sealed with a password"),
    "EC key": (GATEWAY.pem + EC_KEY, Coding.AUTO, "", "accepted: RSA"),
    "request": (
        b"-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END CERTIFICATE REQUEST-----\n",
        Coding.AUTO,
        "",
        "CERTIFICATE REQUEST cannot be imported",
    ),
    "many": (GATEWAY.pem * (MOST_CERTIFICATES + 1), Coding.AUTO, "", f"accepted: {MOST_CERTIFICATES} at most"),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_what_cannot_be_used_is_told(what: str) -> None:
    octets, coding, password, text = REFUSALS[what]
    with pytest.raises(UnreadableFile) as refused:
        read_bundle(octets, coding, password)
    assert text in str(refused.value)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=300), st.binary(max_size=40).map(lambda cut: GATEWAY.der[: len(cut) * 20] + cut)))
def test_garbage_is_read_or_refused(octets: bytes) -> None:
    try:
        assert isinstance(read_bundle(octets), Bundle)
    except UnreadableFile as refused:
        assert "accepted" in str(refused) or "Password" in str(refused) or "damaged" in str(refused)
