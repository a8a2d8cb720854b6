"""Signatures in the plan: which certificate is ours, whom we trust, and what the daemon is given for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from agent.backends.connections import Loaded, what_changed
from agent.mib.ber import Value
from agent.plan.certificates import (
    NO_CERTIFICATE,
    NOBODY_TRUSTED,
    Certificates,
    ListError,
    authority_numbers,
    pem,
)
from agent.plan.model import ApplyState, CredentialKind, RowRef, ViciValue
from agent.plan.planner import difference, make_plan
from agent.plan.result import Plan
from tests.plan_helpers import DictConfiguration, configuration, environment

RULE = ["protect 10.1.0.0/16 10.2.0.0/16"]
RSA = 3
OWN, OTHER, MIDDLE, ROOT, FOREIGN, PEERS_OWN = 1, 2, 3, 4, 5, 6


def certificate(number: int, subject: str, issuer: str, **more: Value) -> dict[str, Value]:
    return {
        "ipsecGwCertificateKind": 3,
        "certSubjectName": subject.encode(),
        "certIssuerName": issuer.encode(),
        "ipsecGwCertificateData": b"DER %d" % number,
        **more,
    }


def row_pem(number: int) -> str:
    return pem(b"DER %d" % number)


def with_certificates(
    *, profile: Mapping[str, Value] | None = None, peer: Mapping[str, Value] | None = None, **scalars: Value
) -> DictConfiguration:
    """Own certificates 1 (below an intermediate) and 2 (below the root), intermediate 3, roots 4 and 5, and 6, which
    a peer has signed itself. Profile 1 is the global one, with RSA signatures; peer 1 has no pre-shared key."""
    made = configuration({1: RULE}, peers={1: {"ipsecPeerPreSharedKeyData": b"", **(peer or {})}})
    made.scalars |= {"ipsecGlobIkeProfile": 1, **scalars}
    made.put("ikeProfileTable", 1, **{"ikePrfAuthMethod": RSA, **(profile or {})})
    names = {"certSubjectAltNames": b"URI:http://gw, DNS:gw.example.org, IP:192.0.2.1"}
    own = {"ipsecGwCertificateKind": 1, "certPrivateKey": 7}
    authority = {"ipsecGwCertificateKind": 2, "ipsecGwCertificateCaFlag": 1}
    trusted = {**authority, "certIsCA": 1}
    for number, cells in {
        OWN: certificate(OWN, "CN=gw, C=DE", "CN=Middle", **own, **names),
        OTHER: certificate(OTHER, "CN=gw2", "CN=Root", **own),
        MIDDLE: certificate(MIDDLE, "CN=Middle", "CN=Root", **authority),
        ROOT: certificate(ROOT, "CN=Root", "CN=Root", **trusted),
        FOREIGN: certificate(FOREIGN, "CN=Foreign", "CN=Foreign", **trusted),
        PEERS_OWN: certificate(PEERS_OWN, "CN=road", "CN=road", certSubjectAltNames=b"email:joe@example.org"),
    }.items():
        made.put("certTable", number, **cells)
    made.put("ipsecPublicKeyTable", 7, ipsecGwPublicKeyData=b"sealed key")
    return made


def plan_of(made: DictConfiguration) -> Plan:
    return make_plan(made, environment())


def settings(plan: Plan, name: str = "peer-1") -> Mapping[str, Any]:
    found: Mapping[str, ViciValue] = plan.connections[name].settings
    return found


def verdict(plan: Plan) -> tuple[ApplyState, str]:
    found = plan.verdicts[RowRef("ipsecPeerTable", 1)]
    return found.state, found.text


def test_both_sides_sign() -> None:
    plan = plan_of(with_certificates())
    own = settings(plan)
    assert own["local"] == {"auth": "pubkey", "certs": [row_pem(OWN)], "id": "fqdn:gw.example.org"}
    assert own["remote"] == {"auth": "pubkey", "id": "198.51.100.1"}
    assert (own["send_cert"], own["send_certreq"]) == ("ifasked", "yes")
    assert not plan.secrets


def test_with_a_pre_shared_key_nothing_of_this_is_said() -> None:
    made = with_certificates(profile={"ikePrfAuthMethod": 1}, peer={"ipsecPeerPreSharedKeyData": b"sealed"})
    plan = plan_of(made)
    own = settings(plan)
    assert own["local"] == {"auth": "psk", "id": "192.0.2.1"} and "send_cert" not in own
    assert list(plan.secrets) == ["psk-1"]


@pytest.mark.parametrize(
    ("name", "value", "key", "said"),
    [
        ("ipsecGlobIgnoreCrPayloads", 1, "send_cert", "always"),
        ("ipsecGlobIgnoreCrPayloads", 2, "send_cert", "ifasked"),
        ("ipsecGlobNoCrPayloads", 1, "send_certreq", "no"),
        ("ipsecGlobNoCrPayloads", 2, "send_certreq", "yes"),
    ],
)
def test_requests_for_certificates(name: str, value: int, key: str, said: str) -> None:
    before = with_certificates()
    plan = plan_of(before)
    after, changes = before.edited(("ipsecGlobals", 0, {name: value}))
    following = make_plan(after, environment(), plan, changes)
    assert settings(following)[key] == said == settings(plan_of(after))[key]


V2_PEER = {"ipsecPeerIkeVersion": 2, "ipsecPeerAuthMethod": RSA}


@pytest.mark.parametrize(
    ("profile", "peer", "number", "told"),
    [
        ({}, {}, OWN, "fqdn:gw.example.org"),
        ({"ikePrfCert": OTHER}, {}, OTHER, None),
        ({"ikePrfCert": OTHER}, {"ipsecPeerIkeProfile": 2}, OTHER, None),
        ({"ikePrfLocalId": b"|192.0.2.1|"}, {}, OWN, "192.0.2.1"),
        ({"ikePrfLocalId": b"<C=DE, CN=GW>"}, {}, OWN, None),
        ({}, V2_PEER, OWN, "fqdn:gw.example.org"),
        ({}, {**V2_PEER, "ipsecPeerCert": OTHER}, OTHER, None),
        ({}, {**V2_PEER, "ipsecPeerLocalId": b"gw.example.org"}, OWN, "fqdn:gw.example.org"),
    ],
)
def test_which_certificate_is_ours(
    profile: dict[str, Value], peer: dict[str, Value], number: int, told: str | None
) -> None:
    made = with_certificates(profile=profile, peer=peer)
    made.put("ikeProfileTable", 2)
    local = settings(plan_of(made))["local"]
    assert local["certs"] == [row_pem(number)] and local.get("id") == told


def test_a_profile_of_its_own_goes_before_the_global_one() -> None:
    made = with_certificates(profile={"ikePrfCert": OTHER, "ikePrfCaCerts": b"4"}, peer={"ipsecPeerIkeProfile": 2})
    made.put("ikeProfileTable", 2, ikePrfCert=OWN, ikePrfCaCerts=b"5")
    own = settings(plan_of(made))
    assert own["local"]["certs"] == [row_pem(OWN)]
    assert own["remote"]["cacerts"] == [row_pem(ROOT), row_pem(FOREIGN)], "the authorities of both count"


@pytest.mark.parametrize("peer", [{}, {**V2_PEER, "ipsecPeerCaCerts": b"5"}])
def test_a_list_of_authorities_is_what_a_peer_may_come_from(peer: dict[str, Value]) -> None:
    before = with_certificates(profile={"ikePrfCaCerts": b"5"}, peer=peer)
    plan = plan_of(before)
    assert settings(plan)["remote"]["cacerts"] == [row_pem(FOREIGN)]
    after, changes = before.edited(("certTable", FOREIGN, {"certIsCA": 2}))
    following = make_plan(after, environment(), plan, changes)
    assert "peer-1" not in following.connections
    assert verdict(following) == (ApplyState.FAILED, "certificate 5: no authority in the list is trusted (certIsCA)")


@pytest.mark.parametrize(
    ("edits", "text"),
    [
        ([("certTable", OWN, None), ("certTable", OTHER, None)], NO_CERTIFICATE),
        ([("ikeProfileTable", 1, {"ikePrfCert": PEERS_OWN})], "certificate 6 has no private key here"),
        ([("ikeProfileTable", 1, {"ikePrfCert": 99})], "there is no certificate 99"),
        ([("ipsecPublicKeyTable", 7, {"ipsecGwPublicKeyData": b""})], "certificate 1 has no private key here"),
        ([("certTable", ROOT, {"certIsCA": 2}), ("certTable", FOREIGN, {"certIsCA": 2})], NOBODY_TRUSTED),
    ],
)
def test_what_is_missing_fails_the_peer(edits: list[Any], text: str) -> None:
    before = with_certificates()
    plan = plan_of(before)
    after, changes = before.edited(*edits)
    following = make_plan(after, environment(), plan, changes)
    assert verdict(following) == (ApplyState.FAILED, text) and not following.connections


def test_a_local_identity_that_the_certificate_does_not_have_is_remarked() -> None:
    state, text = verdict(plan_of(with_certificates(profile={"ikePrfLocalId": b"other.example.org"})))
    assert state is ApplyState.APPLIED and "certificate 1 is not for fqdn:other.example.org" in text


def test_aggressive_mode_is_no_risk_without_a_pre_shared_key() -> None:
    plan = plan_of(with_certificates(profile={"ikePrfMode": 2}))
    assert RowRef("ikeProfileTable", 1) not in plan.verdicts


def test_a_caller_without_address_may_use_main_mode() -> None:
    plan = plan_of(with_certificates(profile={"ikePrfMode": 4}, peer={"ipsecPeerDynamicAddress": b""}))
    assert settings(plan)["remote"]["id"] == "%any" and "aggressive" not in verdict(plan)[1]


# ---- what is loaded -------------------------------------------------------------------------


def loaded(made: DictConfiguration) -> dict[str, CredentialKind]:
    return {id: each.kind for id, each in plan_of(made).credentials.items()}


def test_trusted_authorities_are_loaded() -> None:
    made = with_certificates(ipsecGlobSendFullCertChains=2)
    assert loaded(made) == {
        "ca-4": CredentialKind.AUTHORITY,
        "ca-5": CredentialKind.AUTHORITY,
        "cert-1": CredentialKind.END,
        "cert-2": CredentialKind.END,
        "key-7": CredentialKind.KEY,
    }
    after, _ = made.edited(("certTable", FOREIGN, {"certIsCA": 2}))
    assert "ca-5" not in loaded(after)
    assert plan_of(made).credentials["key-7"].sealed == b"sealed key", "and stays sealed"


def test_nothing_is_loaded_while_ipsec_is_off() -> None:
    assert loaded(with_certificates(ipsecGlobEnabled=2)) == {}


def test_the_chain_of_an_own_certificate() -> None:
    assert "ca-3" in loaded(with_certificates(ipsecGlobSendFullCertChains=1))
    without = with_certificates(ipsecGlobSendFullCertChains=2)
    assert "ca-3" not in loaded(without)
    without.put("certTable", MIDDLE, **without.tables["certTable"][MIDDLE].cells(), certIsCA=1)
    assert "ca-3" in loaded(without), "one that is trusted itself stays"


def test_a_chain_in_a_ring_ends() -> None:
    made = with_certificates()
    authority: dict[str, Value] = {"ipsecGwCertificateKind": 2, "ipsecGwCertificateCaFlag": 1}
    made.put("certTable", MIDDLE, **certificate(MIDDLE, "CN=Middle", "CN=Above", **authority))
    made.put("certTable", 8, **certificate(8, "CN=Above", "CN=Middle", **authority))
    found = Certificates(made)
    assert [above.number for above in found.chain(found.all[OWN])] == [MIDDLE, 8]


@pytest.mark.parametrize(
    ("names", "named"),
    [
        (b"joe@example.org", [[PEERS_OWN]]),
        (b"<CN=road>", [[PEERS_OWN]]),
        (b"jane@example.org, joe@example.org", [[], [PEERS_OWN]]),
        (b"", [[]]),
    ],
)
def test_a_forced_certificate_is_named_where_the_identity_fits(names: bytes, named: list[list[int]]) -> None:
    made = with_certificates(profile={"ikePrfCaCerts": b"4"}, peer={"ipsecPeerPeerIds": names})
    made.put("certTable", PEERS_OWN, **made.tables["certTable"][PEERS_OWN].cells(), certForceTrusted=1)
    plan = plan_of(made)
    assert plan.credentials["cert-6"].kind is CredentialKind.END
    for place, numbers in enumerate(named, 1):
        remote = settings(plan, "peer-1" if place == 1 else f"peer-1-i{place}")["remote"]
        assert remote.get("certs", []) == [row_pem(number) for number in numbers]
        assert ("cacerts" in remote) is (not numbers)


def test_the_calendar_moves_nothing() -> None:
    before = with_certificates()
    plan = plan_of(before)
    after, changes = before.edited(("certTable", OWN, {"certUptodate": 42, "certDescription": b"ours"}))
    following = make_plan(after, environment(), plan, changes)
    assert following.state is not None and plan.state is not None
    assert following.state.profiles is plan.state.profiles and not difference(plan, following)


def test_another_certificate_renegotiates() -> None:
    before = with_certificates()
    plan = plan_of(before)
    after, changes = before.edited(("certTable", OWN, {"ipsecGwCertificateData": b"renewed"}))
    following = make_plan(after, environment(), plan, changes)
    assert {c.name for c in difference(plan, following).connections_changed} == {"peer-1", "peer-1-r"}


def test_lists_of_numbers() -> None:
    assert authority_numbers("") == () and authority_numbers(" 3, 4 ,3") == (3, 4)
    for text in ("a", "1;2", "-1", "1 2 3 4 5 6 7 8 9"):
        with pytest.raises(ListError, match="accepted: numbers of certTable"):
            authority_numbers(text)


@pytest.mark.parametrize(
    ("group", "number", "cells", "ends"),
    [
        ("ipsecGlobals", 0, {"ipsecGlobNoCrPayloads": 1}, set()),
        ("ipsecGlobals", 0, {"ipsecGlobIgnoreCrPayloads": 1}, set()),
        ("ikeProfileTable", 1, {"ikePrfCert": OTHER}, {""}),
        ("ikeProfileTable", 1, {"ikePrfCaCerts": b"5"}, {""}),
    ],
)
def test_what_a_change_ends(group: str, number: int, cells: dict[str, Value], ends: set[str]) -> None:
    """Requests for certificates count for the next negotiation; who we are and whom we trust for this one."""
    before = with_certificates()
    plan = plan_of(before)
    after, changes = before.edited((group, number, cells))
    following = make_plan(after, environment(), plan, changes)
    assert plan.connections["peer-1"] != following.connections["peer-1"]
    assert what_changed(Loaded(plan.connections["peer-1"], ""), following.connections["peer-1"]) == ends
