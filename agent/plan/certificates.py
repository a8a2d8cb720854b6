"""Which certificates prove what: our own, the authorities that are trusted, peers' that are trusted as they are.

The plan never looks into a certificate; what it needs stands in the columns that the import
filled. Own certificates are those with a private key here. An authority is trusted where
certIsCA says so; charon takes only self-signed ones as anchors, others complete chains.
Resolution: a profile's certificate, else the global profile's, else the first own one; the
lists of authorities of both count together, and without any every trusted one does.
"""

from __future__ import annotations

import base64
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Final, NamedTuple

from agent.plan import cells, numbers
from agent.plan.identities import IdentityError, dn_key, identity
from agent.plan.model import ConfigurationView, Credential, CredentialKind, RowView

CERTIFICATES: Final = "certTable"
KEYS: Final = "ipsecPublicKeyTable"
TRUE: Final = 1
OWN, CA = 1, 2  # ipsecGwCertificateKind
MOST_AUTHORITIES: Final = 8  # in one list
LONGEST_CHAIN: Final = 7  # charon looks no further up (MAX_TRUST_PATH_LEN)
ALTERNATIVES: Final = {"DNS": "[{}]", "IP": "|{}|", "email": "({})"}
"""Kinds in certSubjectAltNames that are identities of IKE, as the vendor writes these."""

_NUMBER: Final = re.compile(r"[0-9]{1,9}")
LIST: Final = f"accepted: numbers of certTable with blanks or commas between, {MOST_AUTHORITIES} at most"


class ListError(ValueError):
    """No list of certificates; says what would be one."""


class Certificate(NamedTuple):
    """A row of certTable. `key`: row of its private key here, 0 for none; `authority`: it says it is one, `trusted`:
    we say so too; `forced`: a peer's that is trusted as it is; `pem`: what the daemon is given."""

    number: int
    kind: int
    key: int
    authority: bool
    trusted: bool
    forced: bool
    subject: str
    issuer: str
    alternatives: tuple[str, ...]
    pem: str

    @property
    def own(self) -> bool:
        return self.kind == OWN and self.key != 0

    @property
    def identities(self) -> tuple[str, ...]:
        """Alternative names that can be identities, as the daemon writes these."""
        return tuple(self._alternative_identities())

    def _alternative_identities(self) -> Iterator[str]:
        for text in self.alternatives:
            kind, _, value = text.partition(":")
            if kind in ALTERNATIVES and value:
                try:
                    yield identity(ALTERNATIVES[kind].format(value))
                except IdentityError:
                    continue  # cut off, or nothing that can be one

    def is_of(self, name: str) -> bool:
        """Whether this identity of IKE is one of the holder's."""
        key = dn_key(name)
        return name in self.identities or (key is not None and key == dn_key(self.subject))


class Proof(NamedTuple):
    """How the two sides prove themselves by signatures. `certificate`: our own; `authorities`: PEM of those a peer has
    to come from, () for any trusted one. `always`: our certificate is sent unasked; `asks`: we ask for the peer's.
    `problem`: why that cannot be."""

    certificate: Certificate | None
    authorities: tuple[str, ...] = ()
    always: bool = False
    asks: bool = True
    problem: str = ""


NO_CERTIFICATE: Final = "no certificate of this gateway with its private key; import one (ipsecGwImportTable)"
NOBODY_TRUSTED: Final = "no authority is trusted (certIsCA), and no peer's certificate is as it is (certForceTrusted)"


class Certificates:
    """Those of one configuration, read once."""

    def __init__(self, configuration: ConfigurationView) -> None:
        self._configuration = configuration
        self.all: Mapping[int, Certificate] = {row.number: _read(row) for row in configuration.rows(CERTIFICATES)}

    @cached_property
    def trusted(self) -> tuple[Certificate, ...]:
        return tuple(each for each in self.all.values() if each.trusted and each.authority)

    @cached_property
    def forced(self) -> tuple[Certificate, ...]:
        return tuple(each for each in self.all.values() if each.forced and not each.own)

    def proof(self, wanted: Iterable[int], lists: Iterable[str]) -> Proof:
        """`wanted`: own certificates by precedence, 0 for none named; `lists`: texts of lists of authorities."""
        number = next((number for number in wanted if number), 0)
        certificate = self.all.get(number) if number else next((c for c in self.all.values() if c.own), None)
        named: dict[int, None] = {}
        for text in lists:
            try:
                named |= dict.fromkeys(authority_numbers(text))
            except ListError as error:
                return Proof(certificate, problem=str(error))
        authorities = tuple(each.pem for each in self.trusted if each.number in named)
        proof = Proof(certificate, authorities, self._is("ipsecGlobIgnoreCrPayloads"), not self._is(NO_REQUESTS))
        return proof._replace(problem=self._problem(number, certificate, named, authorities))

    def _problem(
        self, number: int, certificate: Certificate | None, named: Mapping[int, None], authorities: tuple[str, ...]
    ) -> str:
        if certificate is None:
            return f"there is no certificate {number}" if number else NO_CERTIFICATE
        key = self._configuration.row(KEYS, certificate.key) if certificate.own else None
        if key is None or not key["ipsecGwPublicKeyData"]:
            return f"certificate {certificate.number} has no private key here"
        if named and not authorities:
            return f"certificate {', '.join(map(str, named))}: no authority in the list is trusted (certIsCA)"
        return "" if self.trusted or self.forced else NOBODY_TRUSTED

    def _is(self, scalar: str) -> bool:
        return self._configuration.scalar(scalar) == TRUE

    # ---- what the daemon is given -------------------------------------------------------

    @cached_property
    def credentials(self) -> Mapping[str, Credential]:
        """Authorities, peers' certificates that are trusted as they are, our own, and private keys, by name. Our own
        come with connections too, but charon forgets them with everything else when something is taken away."""
        found: dict[str, Credential] = {}

        def give(kind: CredentialKind, number: int, pem: str = "", sealed: bytes = b"") -> None:
            id = numbers.credential_id(kind.value, number)
            found[id] = Credential(id, kind, number, pem, sealed)

        for each in self.trusted:
            give(CredentialKind.AUTHORITY, each.number, each.pem)
        for each in self.all.values():
            if each.forced and not each.own:
                give(CredentialKind.END, each.number, each.pem)
            if not each.own:
                continue
            key = self._configuration.row(KEYS, each.key)
            if key is not None and key["ipsecGwPublicKeyData"]:
                give(CredentialKind.END, each.number, each.pem)
                give(CredentialKind.KEY, each.key, sealed=cells.octets(key, "ipsecGwPublicKeyData"))
            if self._is("ipsecGlobSendFullCertChains"):
                for above in self.chain(each):
                    give(CredentialKind.AUTHORITY, above.number, above.pem)
        return found

    def chain(self, certificate: Certificate) -> tuple[Certificate, ...]:
        """The intermediate authorities above a certificate, as far as they are here."""
        found: list[Certificate] = []
        while len(found) < LONGEST_CHAIN:
            above = next((c for c in self.all.values() if c.authority and c.subject == certificate.issuer), None)
            if above is None or above.subject == above.issuer or above in found:
                break
            found.append(above)
            certificate = above
        return tuple(found)


NO_REQUESTS: Final = "ipsecGlobNoCrPayloads"


def authority_numbers(text: str) -> tuple[int, ...]:
    """Numbers of ikePrfCaCerts or ipsecPeerCaCerts. Raises ListError."""
    words = text.replace(",", " ").split()
    if any(not _NUMBER.fullmatch(word) for word in words):
        raise ListError(f"no list of certificates; {LIST}")
    found = dict.fromkeys(map(int, words))
    if len(words) > MOST_AUTHORITIES:
        raise ListError(f"{len(words)} certificates; {LIST}")
    return tuple(found)


def _read(row: RowView) -> Certificate:
    names = cells.text(row, "certSubjectAltNames")
    return Certificate(
        row.number,
        cells.number(row, "ipsecGwCertificateKind"),
        cells.number(row, "certPrivateKey"),
        cells.number(row, "ipsecGwCertificateCaFlag") == TRUE,
        cells.number(row, "certIsCA") == TRUE,
        cells.number(row, "certForceTrusted") == TRUE,
        cells.text(row, "certSubjectName"),
        cells.text(row, "certIssuerName"),
        tuple(names.split(", ")) if names else (),
        pem(cells.octets(row, "ipsecGwCertificateData")),
    )


def pem(der: bytes) -> str:
    """Text encoding of a certificate (RFC 7468)."""
    lines = textwrap.wrap(base64.b64encode(der).decode(), 64)
    return "\n".join(("-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""))
