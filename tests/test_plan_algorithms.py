"""Proposals of both phases as what is offered: ciphers, MACs, key lengths, combined ciphers, groups, compression."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.mib.ber import Value
from agent.plan.capabilities import AEADS, CHARON, ESP_CIPHERS, ESP_MACS, IKE_CIPHERS, IKE_HASHES, MODERN_GROUPS
from agent.plan.model import ApplyState, Capabilities, RowRef, Verdict
from agent.plan.planner import Plan, make_plan
from tests.plan_helpers import DictConfiguration, configuration, environment
from tests.planned_peer import child, one_peer, settings

IKE_ROW = RowRef("ikeProposalTable", 5)
ESP_ROW = RowRef("ipsecProposalTable", 5)
V2: dict[str, Value] = {"ipsecPeerIkeVersion": 2}


def phase1(version: int = 1, globals_: dict[str, Value] | None = None, **cells: Value) -> DictConfiguration:
    """One peer whose profile leads to proposal 5."""
    wanted = one_peer(ipsecPeerIkeVersion=version, ipsecPeerIkeProfile=1)
    wanted.scalars |= globals_ or {}
    wanted.put("ikeProfileTable", 1, ikePrfProposal=5)
    wanted.put("ikev2ProfileTable", 1, ikev2PrfProposal=5)
    wanted.put("ikeProposalTable", 5, **{"ikePropHashAlg": 7, "ikePropGroup": 14, **cells})
    return wanted


def phase2(version: int = 1, globals_: dict[str, Value] | None = None, **cells: Value) -> DictConfiguration:
    """One peer whose rules' profile leads to proposal 5."""
    wanted = one_peer(ipsecPeerIkeVersion=version, ipsecPeerIpsecProfile=1)
    wanted.scalars |= globals_ or {}
    wanted.put("ipsecProfileTable", 1, ipsecPrfProposal=5)
    wanted.put("ipsecProposalTable", 5, **cells)
    return wanted


def plan(wanted: DictConfiguration, capabilities: Capabilities = CHARON) -> Plan:
    return make_plan(wanted, environment(capabilities=capabilities))


def ike_offers(wanted: DictConfiguration) -> object:
    return settings(plan(wanted))["proposals"]


def esp_offers(wanted: DictConfiguration) -> object:
    return child(plan(wanted))["esp_proposals"]


def told(wanted: DictConfiguration, ref: RowRef) -> Verdict | None:
    return plan(wanted).verdicts.get(ref)


# ---- each algorithm -------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("hash_", IKE_HASHES)
@pytest.mark.parametrize("cipher", IKE_CIPHERS)
def test_each_cipher_and_hash_of_phase_1(cipher: int, hash_: int, version: int) -> None:
    wanted = phase1(version, ikePropEncAlg=cipher, ikePropHashAlg=hash_, ikePropEncKeySize=128)
    bits = "128" if IKE_CIPHERS[cipher] in ("aes", "twofish", "blowfish") else ""
    assert ike_offers(wanted) == [f"{IKE_CIPHERS[cipher]}{bits}-{IKE_HASHES[hash_]}-modp2048"]


@pytest.mark.parametrize("mac", ESP_MACS)
@pytest.mark.parametrize("cipher", ESP_CIPHERS)
def test_each_cipher_and_mac_of_phase_2(cipher: str, mac: str) -> None:
    wanted = phase2(1, None, **{cipher: 1, mac: 1})
    name, suffix = ESP_CIPHERS[cipher], ESP_MACS[mac] and f"-{ESP_MACS[mac]}"
    if name == "null" and not suffix:
        verdict = told(wanted, ESP_ROW)
        assert verdict is not None and verdict.state is ApplyState.FAILED and "neither" in verdict.text
        return
    bits = {"aes": ("256", "192", "128"), "twofish": ("128",), "blowfish": ("128",)}.get(name, ("",))
    assert esp_offers(wanted) == [f"{name}{each}{suffix}" for each in bits]
    verdict = told(wanted, ESP_ROW)
    assert ("without a MAC" in (verdict.text if verdict else "")) == (not suffix)
    assert ("weak" in (verdict.text if verdict else "")) == (name == "des")


@pytest.mark.parametrize("mac", ["Md5", "Sha1", "Sha256", "Sha384", "Sha512"])
def test_each_mac_of_ah(mac: str) -> None:
    made = plan(phase2(1, None, ipsecPropProto=2, **{f"ipsecPropAh{mac}": 1}))
    assert child(made)["ah_proposals"] == [mac.lower()]


def test_ranks_of_ah_order_its_macs() -> None:
    wanted = phase2(ipsecPropProto=2, ipsecPropAhMd5=3, ipsecPropAhSha1=2, ipsecPropAhSha512=1)
    assert child(plan(wanted))["ah_proposals"] == ["sha512", "sha1", "md5"]


def test_a_chain_of_phase_2_goes_on_with_the_next_row() -> None:
    wanted = phase2(ipsecPropEspDes3=1, ipsecPropEspSha1=1, ipsecPropNext=6)
    wanted.put("ipsecProposalTable", 6, ipsecPropEspCast=1, ipsecPropEspMd5=1)
    assert esp_offers(wanted) == ["3des-sha1", "cast128-md5"]


def test_a_method_filters_the_chain() -> None:
    wanted = phase1(ikePropEncAlg=3, ikePropAuthMethod=3, ikePropNextChoice=6)
    wanted.put("ikeProposalTable", 6, ikePropEncAlg=5, ikePropHashAlg=4, ikePropGroup=2, ikePropAuthMethod=1)
    assert ike_offers(wanted) == ["cast128-sha1-modp1024"]
    verdict = told(wanted, IKE_ROW)
    assert verdict is not None and "another way" in verdict.text


# ---- key lengths ------------------------------------------------------------------------------

LENGTHS = [  # size, Min, Max: lengths in their order
    ((0, 0, 0), (256, 192, 128)),
    ((192, 0, 0), (192,)),
    ((128, 128, 256), (128, 256, 192)),
    ((256, 192, 0), (256, 192)),
    ((128, 0, 192), (128, 192)),
    ((0, 192, 0), (256, 192)),
    ((0, 0, 192), (192, 128)),
    ((0, 192, 192), (192,)),
]


@pytest.mark.parametrize(("set_", "offered"), LENGTHS)
def test_what_is_accepted_lies_between_min_and_max(set_: tuple[int, int, int], offered: tuple[int, ...]) -> None:
    size, least, most = set_
    wanted = phase1(ikePropEncKeySize=size, ikePropEncKeySizeMin=least, ikePropEncKeySizeMax=most)
    assert ike_offers(wanted) == [f"aes{bits}-sha256-modp2048" for bits in offered]
    columns = {f"ipsecPropAesKeySize{end}": value for end, value in zip(("", "Min", "Max"), set_, strict=True)}
    assert esp_offers(phase2(1, None, ipsecPropEspAes=1, ipsecPropEspSha1=1, **columns)) == [
        f"aes{bits}-sha1" for bits in offered
    ]


@pytest.mark.parametrize("cipher", ["Blowfish", "Twofish"])
def test_other_ciphers_have_bounds_of_their_own(cipher: str) -> None:
    size = f"ipsecProp{cipher}KeySize"
    wanted = phase2(
        1, None, **{f"ipsecPropEsp{cipher}": 1, "ipsecPropEspMd5": 1, size: 128, f"{size}Min": 128, f"{size}Max": 200}
    )
    name = cipher.lower()
    assert esp_offers(wanted) == [f"{name}128-md5", f"{name}192-md5"]
    assert esp_offers(phase2(1, None, **{f"ipsecPropEsp{cipher}": 1, "ipsecPropEspMd5": 1, size: 256})) == [
        f"{name}256-md5"
    ]


def test_a_size_between_those_of_the_engine_is_told() -> None:
    wanted = phase2(ipsecPropEspBlowfish=1, ipsecPropEspSha1=1, ipsecPropBlowfishKeySize=448)
    assert esp_offers(wanted) == ["blowfish256-sha1"]
    verdict = told(wanted, ESP_ROW)
    assert verdict is not None and verdict == Verdict(ApplyState.APPLIED, "blowfish is offered with 256 bits")


def test_twofish_is_short_where_it_may_not_vary() -> None:
    no: dict[str, Value] = {"ipsecGlobContSupportVarKeyLength4Twofish": 2}
    long_: dict[str, Value] = {"ipsecPropEspTwofish": 1, "ipsecPropEspSha1": 1, "ipsecPropTwofishKeySize": 256}
    assert esp_offers(phase2(1, None, **long_)) == ["twofish256-sha1"]
    assert esp_offers(phase2(1, no, **long_)) == ["twofish128-sha1"]
    verdict = told(phase2(1, no, **long_), ESP_ROW)
    assert verdict is not None and "VarKeyLength" in verdict.text
    assert ike_offers(phase1(1, no, ikePropEncAlg=6, ikePropEncKeySize=192)) == ["twofish128-sha256-modp2048"]


def test_keys_beyond_the_global_limit_are_neither_offered_nor_accepted() -> None:
    limit: dict[str, Value] = {"ipsecGlobMaxKeyLength": 128}
    assert ike_offers(phase1(1, limit)) == ["aes128-sha256-modp2048"]
    assert esp_offers(phase2(1, limit, ipsecPropEspAes=1, ipsecPropEspDes3=2, ipsecPropEspSha1=1)) == ["aes128-sha1"]
    for wanted in (phase1(1, limit, ikePropEncKeySize=256), phase1(2, limit, ipsecGwIkePropAead=4)):
        made = plan(wanted)
        assert not made.connections
        assert "no proposal within ipsecGlobMaxKeyLength" in made.verdicts[RowRef("ipsecPeerTable", 1)].text
    made = plan(phase2(1, limit, ipsecPropEspDes3=1, ipsecPropEspSha1=1))
    assert "no proposal within ipsecGlobMaxKeyLength" in made.verdicts[RowRef("ipsecTrafficTable", 101)].text
    without_chain = one_peer()
    without_chain.scalars |= limit
    made = plan(without_chain)
    assert settings(made)["proposals"] == ["aes128-sha256-modp2048"]
    assert child(made)["esp_proposals"] == ["aes128-sha256"]


# ---- combined ciphers and modern groups ---------------------------------------------------------


@pytest.mark.parametrize(("prf", "keyword"), [(1, "sha256"), (2, "sha1"), (3, "sha256"), (4, "sha384"), (5, "sha512")])
@pytest.mark.parametrize("aead", AEADS)
def test_combined_ciphers_of_phase_1_are_for_version_2(aead: int, prf: int, keyword: str) -> None:
    cells: dict[str, Value] = {"ipsecGwIkePropAead": aead, "ipsecGwIkePropPrf": prf}
    assert ike_offers(phase1(2, None, **cells)) == [f"{AEADS[aead]}-prf{keyword}-modp2048"]
    made = plan(phase1(1, None, **cells))
    assert not made.connections
    told_ = made.verdicts[RowRef("ipsecPeerTable", 1)]
    assert told_.state is ApplyState.FAILED and "needs IKEv2" in told_.text
    assert made.verdicts[IKE_ROW].state is ApplyState.FAILED


@pytest.mark.parametrize("aead", AEADS)
def test_combined_ciphers_of_esp(aead: int) -> None:
    cells: dict[str, Value] = {"ipsecGwIpsecPropAead": aead, "ipsecPropEspCast": 1, "ipsecPropEspSha1": 1}
    assert esp_offers(phase2(2, None, **cells)) == [AEADS[aead], "cast128-sha1"]
    version1 = phase2(1, None, **cells)
    if AEADS[aead] == "chacha20poly1305":
        assert esp_offers(version1) == ["cast128-sha1"]
        verdict = told(version1, ESP_ROW)
        assert verdict is not None and verdict.state is ApplyState.APPLIED and "needs IKEv2" in verdict.text
    else:
        assert esp_offers(version1) == [AEADS[aead], "cast128-sha1"]
    assert esp_offers(phase2(2, None, ipsecGwIpsecPropAead=aead)) == [AEADS[aead]]


def test_a_proposal_that_serves_peers_of_one_version_has_not_failed() -> None:
    wanted = configuration(
        {1: ["protect 10.1.0.0/16 10.2.0.0/16"], 2: ["protect 10.1.0.0/16 10.3.0.0/16"]},
        peers={1: {"ipsecPeerIkeProfile": 1}, 2: {"ipsecPeerIkeProfile": 1, **V2}},
    )
    wanted.put("ikeProfileTable", 1, ikePrfProposal=5)
    wanted.put("ikev2ProfileTable", 1, ikev2PrfProposal=5)
    wanted.put("ikeProposalTable", 5, ipsecGwIkePropAead=4, ikePropGroup=14)
    made = plan(wanted)
    assert set(made.connections) == {"peer-2"}
    assert made.verdicts[IKE_ROW].state is ApplyState.APPLIED and "needs IKEv2" in made.verdicts[IKE_ROW].text


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("group", MODERN_GROUPS)
def test_modern_groups_of_phase_1(group: int, version: int) -> None:
    assert ike_offers(phase1(version, ikePropEncKeySize=256, ipsecGwIkePropGroup=group)) == [
        f"aes256-sha256-{MODERN_GROUPS[group]}"
    ]
    wanted = phase1(ikePropEncKeySize=256)
    wanted.put("ikeProfileTable", 1, ikePrfProposal=5, ikePrfGroup=16, ipsecGwIkePrfGroup=group)
    assert ike_offers(wanted) == [f"aes256-sha256-{MODERN_GROUPS[group]}"]


def test_in_version_2_the_group_is_the_proposals_and_14_where_it_says_none() -> None:
    wanted = phase1(2, ikePropEncKeySize=256, ikePropGroup=0)
    wanted.put("ikeProfileTable", 1, ikePrfGroup=16)
    assert ike_offers(wanted) == ["aes256-sha256-modp2048"]


def test_what_an_engine_lacks_fails_its_row() -> None:
    poor = replace(CHARON, ike_groups=frozenset({14}), aeads=frozenset({"aes128gcm16"}))
    made = plan(phase1(2, ipsecGwIkePropGroup=31), poor)
    assert "group 31 is not available" in made.verdicts[IKE_ROW].text
    made = plan(phase2(2, ipsecGwIpsecPropAead=5), poor)
    assert "ChaCha20-Poly1305 is not available" in made.verdicts[ESP_ROW].text
    wanted = phase2(1, ipsecPropEspAes=1, ipsecPropEspSha1=1)
    wanted.put("ipsecProfileTable", 1, ipsecPrfProposal=5, ipsecPrfPfsGroup=2)
    assert "PFS: group 2 is not available" in plan(wanted, poor).verdicts[RowRef("ipsecTrafficTable", 101)].text


# ---- forward secrecy and compression ----------------------------------------------------------------


def test_forward_secrecy_follows_every_proposal_and_is_inherited() -> None:
    wanted = phase2(ipsecPropEspCast=1, ipsecPropEspSha1=1, ipsecPropEspMd5=2)
    wanted.scalars["ipsecGlobIpsecProfile"] = 2
    for own, global_, suffix in ((5, -1, "-modp1536"), (-1, 5, ""), (0, 2, "-modp1024"), (0, 0, "")):
        wanted.put("ipsecProfileTable", 1, ipsecPrfProposal=5, ipsecPrfPfsGroup=own)
        wanted.put("ipsecProfileTable", 2, ipsecPrfPfsGroup=global_)
        assert esp_offers(wanted) == [f"cast128-sha1{suffix}", f"cast128-md5{suffix}"]
    wanted.put("ipsecProfileTable", 1, ipsecPrfProposal=5, ipsecPrfPfsGroup=5, ipsecGwIpsecPrfPfsGroup=31)
    assert esp_offers(wanted) == ["cast128-sha1-curve25519", "cast128-md5-curve25519"]
    bare = one_peer(ipsecPeerIpsecProfile=1)
    bare.put("ipsecProfileTable", 1, ipsecPrfPfsGroup=14)
    assert child(plan(bare))["esp_proposals"][0] == "aes256-sha256-modp2048"


@pytest.mark.parametrize(
    ("ipcomp", "deflate", "setting", "forced"),
    [(1, 1, "yes", False), (2, 1, "no", False), (3, 1, "yes", True), (1, 0, "no", False)],
)
def test_compression(ipcomp: int, deflate: int, setting: str, forced: bool) -> None:
    wanted = phase2(ipsecPropEspAes=1, ipsecPropEspSha1=1, ipsecPropIpcomp=ipcomp, ipsecPropIpcompDeflate=deflate)
    made = plan(wanted)
    assert child(made)["ipcomp"] == setting
    assert made.children["peer-1-rule-101"].compressed is forced
    verdict = made.verdicts.get(ESP_ROW)
    assert ("no algorithm" in (verdict.text if verdict else "")) == (not deflate)


def test_forcing_without_an_algorithm_fails_the_row() -> None:
    made = plan(phase2(ipsecPropEspAes=1, ipsecPropEspSha1=1, ipsecPropIpcomp=3))
    assert made.verdicts[ESP_ROW].state is ApplyState.FAILED and "ipsecPropIpcompDeflate" in made.verdicts[ESP_ROW].text


def test_of_a_chain_the_first_row_decides_on_compression() -> None:
    wanted = phase2(ipsecPropEspAes=1, ipsecPropEspSha1=1, ipsecPropNext=6)
    wanted.put(
        "ipsecProposalTable", 6, ipsecPropEspCast=1, ipsecPropEspMd5=1, ipsecPropIpcomp=3, ipsecPropIpcompDeflate=1
    )
    made = plan(wanted)
    assert child(made)["ipcomp"] == "no" and not made.children["peer-1-rule-101"].compressed
