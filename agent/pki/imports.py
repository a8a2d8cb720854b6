"""Certificates and keys from an uploaded file into the tables, each file in one commit.

An own certificate needs its private key: in the same file, or here already. Certificates of
authorities that come along (the chain) become rows too, but are trusted only where an
operator asked for a certificate of an authority. What is here already is not taken twice,
so that an honest retry succeeds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1

from agent.mib.ber import Value
from agent.mib.schema import Schema
from agent.pki.reading import Bundle, Coding, UnreadableFile, read_bundle
from agent.pki.rows import (
    CA,
    CERTIFICATES,
    FALSE,
    KEYS,
    OWN,
    PEER,
    TRUE,
    certificate_cells,
    display,
    is_authority,
    is_self_issued,
    key_cells,
    key_id,
    name_text,
    validity,
)
from agent.store.documents import CERTIFICATE
from agent.store.hooks import Edit, Origin
from agent.store.imports import FileImport
from agent.store.jobs import JobFailed
from agent.store.rows import Status
from agent.store.snapshot import Configuration
from agent.store.store import Store

HIGHEST: Final = 32767  # of certificates, which ikePrfCert and ipsecPeerCert can name
KINDS: Final[Mapping[int, int]] = {2: OWN, 3: CA, 4: PEER}
"""ipsecGwCertificateKind by ipsecGwImportKind."""
KIND_NAMES: Final = {OWN: "own", CA: "authority's", PEER: "peer's"}


class CertificateImports:
    """Does the imports of kinds own-, ca- and peer-certificate. `wall`: seconds since 1970."""

    document_kind = CERTIFICATE

    def __init__(self, store: Store, wall: Callable[[], float] = time.time) -> None:
        self._store = store
        self._wall = wall

    async def __call__(self, asked: FileImport) -> str:
        """Message of success. Raises JobFailed, Refused, StoreError."""
        try:
            bundle = await asyncio.to_thread(read_bundle, asked.octets, Coding(asked.coding), asked.password)
        except UnreadableFile as error:
            raise JobFailed(str(error)) from None
        if bundle.keys and not asked.origin.secure:
            raise JobFailed("the file has a private key, which is set by SNMPv3 authPriv or from this host only")
        work = _Work(self._store.running, self._store.schema, self._wall())
        message = work.take(bundle, KINDS[asked.kind], asked.name, asked.trusted)
        if work.edits:
            # made by the agent on behalf of who asked: rows and columns that managers cannot write
            origin = Origin("agent", asked.origin.user, asked.origin.source, asked.origin.local, secure=True)
            await self._store.commit(work.edits, origin)
        return message


@dataclass(slots=True)
class _Work:
    """The edits of one import, as they come together."""

    configuration: Configuration
    schema: Schema
    now: float
    edits: list[Edit] = field(default_factory=list)
    _said: list[str] = field(default_factory=list)

    def take(self, bundle: Bundle, kind: int, name: str, trusted: bool) -> str:
        if len(bundle.keys) > 1:
            raise JobFailed(f"{len(bundle.keys)} private keys in the file; accepted: one")
        if kind == OWN:
            self._own(bundle, name)
        elif bundle.keys:
            raise JobFailed(
                "the file has a private key, which goes with an own certificate; accepted: own-certificate(2)"
            )
        elif not bundle.certificates:
            raise JobFailed("there is no certificate in the file")
        elif kind == CA:
            self._authorities(bundle.certificates, name)
        else:
            self._peers(bundle.certificates, name, trusted)
        return "; ".join(self._said)

    # ---- kinds --------------------------------------------------------------------------

    def _own(self, bundle: Bundle, name: str) -> None:
        key = bundle.keys[0] if bundle.keys else None
        number = self._key(key, name) if key is not None else 0
        if not bundle.certificates:
            if not number:
                raise JobFailed("there is neither a certificate nor a private key in the file")
            return
        leaf, number = self._leaf(bundle.certificates, key, number)
        self._certificate(leaf, OWN, name, certPrivateKey=number)
        for certificate in bundle.certificates:
            if certificate is not leaf and is_authority(certificate):
                self._certificate(certificate, CA, "", certIsCA=FALSE)

    def _leaf(
        self, certificates: list[x509.Certificate], key: RSAPrivateKey | None, number: int
    ) -> tuple[x509.Certificate, int]:
        """The certificate of this gateway, and the row of its key."""
        if key is not None:
            wanted = key_id(key.public_key())
            for certificate in certificates:
                if _id_of(certificate) == wanted:
                    return certificate, number
            raise JobFailed("no certificate in the file belongs to its private key")
        for certificate in certificates:
            for row in self.configuration.rows_any_status(KEYS):
                if row["ipsecGwPublicKeyId"] and row["ipsecGwPublicKeyId"] == _id_of(certificate):
                    return certificate, row.number
        raise JobFailed(
            "no private key of this gateway belongs to the certificate; accepted: the key in the same file, or"
            " imported before"
        )

    def _authorities(self, certificates: list[x509.Certificate], name: str) -> None:
        for certificate in certificates:
            if not is_authority(certificate):
                subject = name_text(certificate.subject)
                raise JobFailed(
                    f"<{subject}> is no certificate of an authority (basicConstraints); accepted: one that is"
                )
        for at, certificate in enumerate(certificates):
            trust = TRUE if is_self_issued(certificate) else FALSE
            self._certificate(certificate, CA, name if not at else "", certIsCA=trust)

    def _peers(self, certificates: list[x509.Certificate], name: str, trusted: bool) -> None:
        if len(certificates) > 1:
            raise JobFailed(f"{len(certificates)} certificates in the file; accepted: the one of the peer")
        self._certificate(certificates[0], PEER, name, certForceTrusted=TRUE if trusted else FALSE)

    # ---- rows ---------------------------------------------------------------------------

    def _certificate(self, certificate: x509.Certificate, kind: int, name: str, **more: Value) -> None:
        same = self._same(certificate)
        if same:
            row = self.configuration.row_any_status(CERTIFICATES, same)
            assert row is not None
            held = row["ipsecGwCertificateKind"]
            if held != kind and kind != CA:
                assert isinstance(held, int)
                raise JobFailed(f"it is here as certificate {same}, {KIND_NAMES[held]}; accepted: deleting that first")
            self._said.append(f"certificate {same} is here already")
            if kind == CA and more.get("certIsCA") == TRUE != row["certIsCA"]:
                self.edits.append(Edit(self.schema.columns["certIsCA"], same, TRUE))
                self._said.append("it is trusted now")
            return
        number = self._free(CERTIFICATES, HIGHEST)
        subject = name_text(certificate.subject)
        self._row(
            CERTIFICATES,
            number,
            {
                **certificate_cells(certificate, self.now),
                "certDescription": display(name or subject),
                "ipsecGwCertificateKind": kind,
                **more,
            },
        )
        begin, end = validity(certificate)
        warning = ", which has expired" if self.now >= end else ", which is not valid yet" if self.now < begin else ""
        self._said.append(f"certificate {number} <{subject}>{warning}")

    def _key(self, key: RSAPrivateKey, name: str) -> int:
        wanted = key_id(key.public_key())
        for row in self.configuration.rows_any_status(KEYS):
            if row["ipsecGwPublicKeyId"] == wanted and row["ipsecGwPublicKeyData"]:
                self._said.append(f"key {row.number} is here already")
                return row.number
        number = self._free(KEYS, HIGHEST)
        self._row(KEYS, number, key_cells(key, name))
        self._said.append(f"key {number}")
        return number

    def _row(self, table: str, number: int, cells: Mapping[str, Value]) -> None:
        status = self.schema.tables[table].row_status
        assert status is not None
        self.edits.append(Edit(status, number, Status.CREATE_AND_GO))
        self.edits += [Edit(self.schema.columns[column], number, value) for column, value in cells.items()]

    def _same(self, certificate: x509.Certificate) -> int:
        """Row of the same certificate, 0 for none."""
        fingerprint = certificate.fingerprint(SHA1())
        found = (
            row.number
            for row in self.configuration.rows_any_status(CERTIFICATES)
            if row["certSHA1Fingerprint"] == fingerprint
        )
        return next(found, 0)

    def _free(self, table: str, highest: int) -> int:
        taken = self.configuration.table(table)
        number = next((n for n in range(1, highest + 1) if n not in taken and (table, n) not in self._reserved()), 0)
        if not number:
            raise JobFailed(f"{table} is full; accepted: {highest} rows")
        return number

    def _reserved(self) -> set[tuple[str, int]]:
        return {(edit.column.table, edit.number) for edit in self.edits}


def _id_of(certificate: x509.Certificate) -> bytes | None:
    key = certificate.public_key()
    return key_id(key) if isinstance(key, RSAPublicKey) else None
