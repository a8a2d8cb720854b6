"""Certificates and keys from documents into rows: one commit per file, nothing half done, keys sealed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.backends import memory_engines
from agent.backends.reconcile import Reconciler
from agent.mib import load_schema
from agent.mib.ber import Value
from agent.pki import uptodate
from agent.pki.imports import KINDS, CertificateImports
from agent.plan.capabilities import CHARON
from agent.setchecks import SetChecks
from agent.store.configfile import read_configuration, write_configuration
from agent.store.errors import ErrorStatus, Refused
from agent.store.exchange import exchanging
from agent.store.hooks import Edit, Origin
from agent.store.passphrase import PassphraseLock
from agent.store.snapshot import Row
from agent.store.store import Store
from tests.authority import Holder, root, self_signed

SCHEMA = load_schema()
ADMIN = Origin("snmp", "admin", "127.0.0.1", "127.0.0.1", secure=True)
FAR = Origin("snmp", "noc", "192.0.2.7", "192.0.2.1")
OWN, CA, PEER = 2, 3, 4  # ipsecGwImportKind
CERTIFICATE = 2  # ipsecGwDocumentKind
ROOT = root("Root 1")
MIDDLE = ROOT.issue("Middle", authority=True)
GATEWAY = MIDDLE.issue("gw", names=["gw.example.org", "192.0.2.1"])
OTHER = root("Root 2")
BRANCH = ROOT.issue("branch", names=["branch@example.org"])


class Desk:
    """A store with imports and the checks of SETs."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._next = 0

    async def set(self, cells: dict[str, Value], origin: Origin = ADMIN) -> None:
        edits = []
        for instance, value in cells.items():
            name, _, number = instance.partition(".")
            edits.append(Edit(SCHEMA.columns[name], int(number), value))
        await self.store.commit(edits, origin)

    async def imported(self, octets: bytes, kind: int, origin: Origin = ADMIN, **columns: Value) -> tuple[int, str]:
        """(ipsecGwImportState, message) of a job once it has finished."""
        self._next += 1
        at = self._next
        cells: dict[str, Value] = {f"ipsecGwDocumentName.{at}": b"file", f"ipsecGwDocumentKind.{at}": CERTIFICATE}
        for place in range(0, len(octets), 4096):
            cells[f"ipsecGwSegmentData.{(at << 16) + place // 4096 + 1}"] = octets[place : place + 4096]
        cells |= {f"ipsecGwImportDocument.{at}": at, f"ipsecGwImportKind.{at}": kind}
        cells |= {f"ipsecGwImport{name}.{at}": value for name, value in columns.items()}
        await self.set(cells, origin)
        async with asyncio.timeout(60):
            while True:
                row = self.store.live.table("ipsecGwImportTable").row(at)
                assert row is not None
                state, message = row["ipsecGwImportState"], row["ipsecGwImportMessage"]
                assert isinstance(state, int) and isinstance(message, bytes)
                if state > 2:
                    return state, message.decode()
                await asyncio.sleep(0.01)

    def certificate(self, number: int) -> Row:
        row = self.store.running.row("certTable", number)
        assert row is not None
        return row

    def numbers(self, table: str) -> list[int]:
        return [row.number for row in self.store.running.rows(table)]

    async def refused(self, cells: dict[str, Value]) -> str:
        before = self.store.running.generation
        with pytest.raises(Refused) as caught:
            await self.set(cells)
        assert caught.value.status == ErrorStatus.INCONSISTENT_VALUE
        assert self.store.running.generation == before
        return caught.value.text


def all_octets(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    store = Store.open(SCHEMA, "", tmp_path)
    engines = memory_engines()
    reconciler = Reconciler(store, SCHEMA, engines.spd, engines.ike, engines.host, CHARON)
    store.checks.append(SetChecks(reconciler, engines.host, CHARON, ()))
    async with exchanging(store, tmp_path, lambda text: None) as exchange:
        exchange.imports.importers.update(dict.fromkeys(KINDS, CertificateImports(store)))
        yield Desk(store)
    await store.close()


async def test_an_own_certificate_with_its_key_and_chain(desk: Desk) -> None:
    before = desk.store.running.generation
    octets = GATEWAY.pkcs12(b"secret", [MIDDLE.certificate, ROOT.certificate])
    state, message = await desk.imported(octets, OWN, Name=b"ours", Password=b"secret")
    assert (state, desk.store.running.generation) == (3, before + 1), message
    assert message.startswith("key 1; certificate 1 <CN=gw, O=Example, C=DE>")
    own, middle, above = (desk.certificate(number) for number in (1, 2, 3))
    assert own["certDescription"] == b"ours" and own["certPrivateKey"] == 1 and own["ipsecGwCertificateKind"] == 1
    assert own["certSubjectName"] == b"CN=gw, O=Example, C=DE" and own["certIssuerName"] == middle["certSubjectName"]
    assert own["certSubjectAltNames"] == b"DNS:gw.example.org, IP:192.0.2.1"
    assert own["certSerialNumber"] == str(GATEWAY.certificate.serial_number).encode()
    assert own["certPubKeyInfo"] == b"RSA 2048 bits" and own["certKeyUsage"] == 0xA0 and own["certUptodate"] == 99
    assert own["certValidNotAfter"] == int(GATEWAY.certificate.not_valid_after_utc.timestamp())
    assert own["ipsecGwCertificateData"] == GATEWAY.der and own["ipsecGwCertificateCaFlag"] == 2
    for row in (middle, above):
        assert (row["ipsecGwCertificateKind"], row["ipsecGwCertificateCaFlag"], row["certIsCA"]) == (2, 1, 2)
    key = desk.store.running.row("ipsecPublicKeyTable", 1)
    assert key is not None
    assert (key["ipsecPubKeyAlgorithm"], key["ipsecPubKeyKeyLength"], key["ipsecPubKeyState"]) == (2, 2048, 2)


async def test_the_key_is_sealed_and_shown_nowhere(desk: Desk, tmp_path: Path) -> None:
    await desk.imported(GATEWAY.pem + GATEWAY.key_pem(), OWN)
    number = GATEWAY.key.private_numbers().p
    secret = number.to_bytes((number.bit_length() + 7) // 8, "big")
    row = desk.store.running.row("ipsecPublicKeyTable", 1)
    assert row is not None
    blob = row["ipsecGwPublicKeyData"]
    assert isinstance(blob, bytes) and secret not in blob
    assert secret in desk.store.secrets.open("ipsecPublicKeyTable", 1, "ipsecGwPublicKeyData", blob)
    assert secret not in all_octets(tmp_path)
    text = write_configuration(desk.store.running)
    assert secret.hex() not in text and "ipsecGwPublicKeyData" not in text
    assert SCHEMA.columns["ipsecGwPublicKeyData"] not in SCHEMA.ordered


async def test_exported_with_secrets_and_loaded_again_nothing_differs(desk: Desk) -> None:
    await desk.imported(GATEWAY.pkcs12(b"x", [MIDDLE.certificate]), OWN, Password=b"x")
    await desk.imported(ROOT.pem, CA)
    lock = PassphraseLock("a passphrase")
    text = write_configuration(desk.store.running, secrets=desk.store.secrets, lock=lock)
    contents = read_configuration(SCHEMA, text).contents(desk.store.secrets, "a passphrase")
    _, rows = await desk.store.load(contents, ADMIN, "a file")
    assert rows == 0


async def test_key_first_and_certificate_later(desk: Desk) -> None:
    assert await desk.imported(GATEWAY.pem, OWN) == (
        4,
        "no private key of this gateway belongs to the certificate; accepted: the key in the same file, or imported"
        " before",
    )
    assert (await desk.imported(GATEWAY.key_pem(b"pw"), OWN, Password=b"pw"))[0] == 3
    assert desk.numbers("certTable") == []
    assert (await desk.imported(GATEWAY.pem, OWN))[0] == 3
    assert desk.certificate(1)["certPrivateKey"] == 1


async def test_a_retry_makes_nothing_new(desk: Desk) -> None:
    for _ in range(2):
        state, message = await desk.imported(GATEWAY.pem + GATEWAY.key_pem(), OWN)
        assert state == 3
    assert message == "key 1 is here already; certificate 1 is here already"
    assert desk.numbers("certTable") == desk.numbers("ipsecPublicKeyTable") == [1]


async def test_authorities(desk: Desk) -> None:
    assert (await desk.imported(ROOT.der, CA, Name=b"the root"))[0] == 3
    assert (await desk.imported(MIDDLE.pem, CA))[0] == 3
    assert desk.certificate(1)["certIsCA"] == 1 and desk.certificate(1)["certDescription"] == b"the root"
    assert desk.certificate(2)["certIsCA"] == 2, "an intermediate is no anchor"
    state, message = await desk.imported(BRANCH.pem, CA)
    assert state == 4 and "is no certificate of an authority" in message
    await desk.imported(GATEWAY.pkcs12(b"", [OTHER.certificate]), OWN)
    assert desk.certificate(4)["certIsCA"] == 2, "what comes along is not trusted"
    assert "it is trusted now" in (await desk.imported(OTHER.pem, CA))[1]
    assert desk.certificate(4)["certIsCA"] == 1


@pytest.mark.parametrize("trusted", [True, False])
async def test_a_peers_certificate_may_be_trusted_as_it_is(desk: Desk, trusted: bool) -> None:
    made = self_signed("road", ["road.example.org"])
    assert (await desk.imported(made.pem, PEER, Trusted=1 if trusted else 2))[0] == 3
    row = desk.certificate(1)
    assert (row["ipsecGwCertificateKind"], row["certForceTrusted"]) == (3, 1 if trusted else 2)


@pytest.mark.parametrize(
    ("made", "kind", "text"),
    [
        (b"nothing of the kind", PEER, "neither a certificate nor a private key"),
        (BRANCH.pem + BRANCH.key_pem(), PEER, "accepted: own-certificate(2)"),
        (BRANCH.pem + GATEWAY.pem, PEER, "accepted: the one of the peer"),
        (BRANCH.key_pem(), CA, "accepted: own-certificate(2)"),
        (BRANCH.pem + GATEWAY.key_pem(), OWN, "no certificate in the file belongs to its private key"),
        (BRANCH.key_pem() + GATEWAY.key_pem(), OWN, "2 private keys in the file"),
        (GATEWAY.pkcs12(b"secret"), OWN, "sealed with a password"),
    ],
)
async def test_what_does_not_fit_changes_nothing(desk: Desk, made: bytes, kind: int, text: str) -> None:
    before = desk.store.running.generation
    state, message = await desk.imported(made, kind)
    assert state == 4 and text in message
    assert desk.store.running.generation == before


async def test_keys_need_a_secure_way(desk: Desk) -> None:
    state, message = await desk.imported(GATEWAY.pem + GATEWAY.key_pem(), OWN, FAR)
    assert state == 4 and "SNMPv3 authPriv" in message and desk.numbers("ipsecPublicKeyTable") == []
    assert (await desk.imported(ROOT.pem, CA, FAR))[0] == 3


async def test_expired_certificates_are_taken_and_said_to_be(desk: Desk) -> None:
    old, early = ROOT.issue("old", days=(-9, -2), key=BRANCH.key), ROOT.issue("early", days=(2, 9), key=BRANCH.key)
    assert "which has expired" in (await desk.imported(old.pem, PEER))[1]
    assert "which is not valid yet" in (await desk.imported(early.pem, PEER))[1]
    assert (desk.certificate(1)["certUptodate"], desk.certificate(2)["certUptodate"]) == (0, 100)


async def test_age_is_looked_at_again(desk: Desk) -> None:
    await desk.imported(BRANCH.pem, PEER)
    generation = desk.store.running.generation
    await uptodate.look(desk.store, time.time() + 3600)
    assert desk.store.running.generation == generation, "less than a percent has passed"
    await uptodate.look(desk.store, time.time() + 182 * 86_400)
    assert desk.certificate(1)["certUptodate"] in (49, 50)
    await uptodate.look(desk.store, time.time() + 400 * 86_400)
    assert desk.certificate(1)["certUptodate"] == 0


async def test_only_what_a_document_may_hold_is_imported(desk: Desk) -> None:
    cells: dict[str, Value] = {"ipsecGwDocumentName.9": b"x", "ipsecGwDocumentKind.9": 1}
    text = await desk.refused({**cells, "ipsecGwImportDocument.9": 9, "ipsecGwImportKind.9": CA})
    assert "the document is of another kind" in text and "certificate(2)" in text
    text = await desk.refused({**cells, "ipsecGwImportDocument.9": 9, "ipsecGwImportKind.9": 5})
    assert "accepted: configuration(1), own-certificate(2), ca-certificate(3), peer-certificate(4)" in text


# ---- what may be written to the rows, and when they stay ------------------------------------


async def everything(desk: Desk) -> None:
    """1 own, 2 intermediate, 3 root, 4 peer."""
    await desk.imported(GATEWAY.pkcs12(b"", [MIDDLE.certificate]), OWN)
    await desk.imported(ROOT.pem, CA)
    await desk.imported(BRANCH.pem, PEER)


async def test_the_kind_of_a_certificate_has_to_fit_it(desk: Desk) -> None:
    await everything(desk)
    assert "accepted: ca(2), peer(3)" in await desk.refused({"ipsecGwCertificateKind.3": 1})
    assert "accepted: own(1), peer(3)" in await desk.refused({"ipsecGwCertificateKind.1": 2})
    await desk.set({"ipsecGwCertificateKind.2": 3})


async def test_only_an_authority_is_trusted_as_one(desk: Desk) -> None:
    await everything(desk)
    assert "basicConstraints" in await desk.refused({"certIsCA.4": 1})
    await desk.set({"certIsCA.2": 1, "certIsCA.3": 2})
    await desk.set({"certForceTrusted.4": 1, "certDescription.4": b"branch"})


async def test_a_certificate_in_use_stays(desk: Desk) -> None:
    await everything(desk)
    await desk.set({"ikePrfProposal.1": 0, "ikePrfAuthMethod.1": 3, "ikePrfCert.1": 1, "ikePrfCaCerts.1": b"3"})
    assert "in use by ikePrfCert.1" in await desk.refused({"ipsecGwCertificateRowStatus.1": 6})
    assert "in use by ikePrfCaCerts.1" in await desk.refused({"ipsecGwCertificateRowStatus.3": 6})
    assert "in use by certPrivateKey.1" in await desk.refused({"ipsecPubKeyAlgorithm.1": 15})
    await desk.set({"ikePrfCaCerts.1": b"", "ipsecGwCertificateRowStatus.3": 6})
    await desk.set({"ikePrfCert.1": 0, "ipsecGwCertificateRowStatus.1": 6})
    await desk.set({"ipsecPubKeyAlgorithm.1": 15})
    assert desk.numbers("certTable") == [2, 4] and desk.numbers("ipsecPublicKeyTable") == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"7", "there is no certificate 7"),
        (b"4", "certificate 4 is none of a trusted authority"),
        (b"2", "certificate 2 is none of a trusted authority"),
        (b"3;4", "accepted: numbers of certTable"),
        (b"3,3,3,3,3,3,3,3,3", "8 at most"),
    ],
)
async def test_lists_of_authorities(desk: Desk, value: bytes, text: str) -> None:
    await everything(desk)
    await desk.set({"ikePrfProposal.1": 0})
    assert text in await desk.refused({"ikePrfCaCerts.1": value})
    await desk.set({"ikePrfCaCerts.1": b" 3 "})


async def test_a_certificate_without_a_key_is_not_ours(desk: Desk) -> None:
    await everything(desk)
    await desk.set({"ikePrfProposal.1": 0})
    assert "has no private key here" in await desk.refused({"ikePrfCert.1": 4})
    assert "there is no row 9 in certTable" in await desk.refused({"ikePrfCert.1": 9})


def test_a_holder_knows_its_chain() -> None:
    assert [GATEWAY.certificate.issuer, *(above.issuer for above in GATEWAY.chain)] == [
        MIDDLE.certificate.subject,
        ROOT.certificate.subject,
    ]
    assert isinstance(GATEWAY, Holder)
