"""Peers as connections: what is inherited from where, what is offered, who is expected, how long it lasts."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from agent.mib.ber import Value
from agent.plan.capabilities import CHARON
from agent.plan.identities import IdentityError, identities, identity
from agent.plan.lifetimes import ALL_THE_TIME, NOT_IN_USE, Life
from agent.plan.model import ApplyState, Connection, RowRef, Verdict
from agent.plan.phase1 import GUESSABLE
from agent.plan.planner import Plan, difference, make_plan
from agent.plan.profiles import Profiles
from tests.plan_helpers import DictConfiguration, configuration, environment, packed, schema
from tests.planned_peer import A, B, child, one_peer, settings


def plan(wanted: DictConfiguration, **world: object) -> Plan:
    return make_plan(wanted, environment(capabilities=CHARON, **world))


def test_a_peer_without_profiles_gets_what_is_built_in() -> None:
    made = plan(one_peer())
    assert set(made.connections) == {"peer-1", "peer-1-r"}
    first = settings(made)
    assert first["version"] == "1"
    assert first["aggressive"] == "no"
    assert first["local_addrs"] == ["192.0.2.1"]
    assert first["remote_addrs"] == ["198.51.100.1"]
    assert first["local"] == {"auth": "psk", "id": "192.0.2.1"}
    assert first["remote"] == {"auth": "psk", "id": "198.51.100.1"}
    assert first["proposals"][0] == "aes256-sha256-modp2048"
    assert all(text.startswith("aes") and "sha1" not in text and "md5" not in text for text in first["proposals"])
    assert (first["reauth_time"], first["over_time"], first["rand_time"]) == ("720s", "180s", "45s")
    assert first["rekey_time"] == "0s"
    assert (first["dpd_delay"], first["dpd_timeout"]) == ("15s", "21s")
    assert first["encap"] == "no"
    one = child(made)
    assert one["policies"] == "no" and one["start_action"] == "none"
    assert one["reqid"] == str(made.reqids["peer-1-rule-101"])
    assert one["mode"] == "tunnel"
    assert (one["life_time"], one["rekey_time"], one["rand_time"]) == ("900s", "720s", "45s")
    assert one["local_ts"] == ["10.1.0.0/16"] and one["remote_ts"] == ["10.2.0.0/16"]
    assert one["esp_proposals"][0] == "aes256-sha256"


def test_values_are_strings_lists_and_dictionaries_only() -> None:
    def check(value: object) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                assert isinstance(key, str)
                check(inner)
        elif isinstance(value, list):
            assert all(isinstance(item, str) for item in value)
        else:
            assert isinstance(value, str)

    for connection in plan(one_peer()).connections.values():
        assert isinstance(connection, Connection)
        check(connection.settings)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (1, {"peer-1": "no", "peer-1-r": "yes"}),
        (2, {"peer-1": "yes", "peer-1-r": "no"}),
        (4, {"peer-1": "no"}),
        (5, {"peer-1": "yes"}),
        (3, {"peer-1": "no", "peer-1-r": "yes"}),
    ],
)
def test_modes_and_who_answers_in_the_other_one(mode: int, expected: dict[str, str]) -> None:
    wanted = one_peer(ipsecPeerIkeProfile=1)
    wanted.put("ikeProfileTable", 1, ikePrfMode=mode)
    made = plan(wanted)
    assert {name: settings(made, name)["aggressive"] for name in made.connections} == expected
    assert [c.name for c in made.connections.values() if c.initiator] == ["peer-1"]
    warned = made.verdicts.get(RowRef("ikeProfileTable", 1))
    assert (warned is not None and "offline" in warned.text) == (mode not in (3, 4))


def test_default_in_a_profile_means_the_global_profile_and_then_the_built_in_value() -> None:
    wanted = one_peer(ipsecPeerIkeProfile=2)
    wanted.scalars["ipsecGlobIkeProfile"] = 1
    wanted.put("ikeProfileTable", 1, ikePrfMode=5, ikePrfGroup=15, ikePrfLifeSeconds=600, ikePrfLocalId=b"[gw]")
    wanted.put("ikeProfileTable", 2)
    made = plan(wanted)
    assert settings(made)["aggressive"] == "yes"
    assert settings(made)["proposals"][0] == "aes256-sha256-modp3072"
    assert settings(made)["reauth_time"] == "480s"  # use-default-lifetime: the global row's numbers
    assert settings(made)["local"]["id"] == "192.0.2.1"  # the identity only where the peer has no profile
    wanted.put("ipsecPeerTable", 1, **{**wanted.tables["ipsecPeerTable"][1].cells(), "ipsecPeerIkeProfile": 0})
    assert settings(plan(wanted))["local"]["id"] == "fqdn:gw"


def test_what_is_accepted_instead_of_a_lacking_hash_can_be_set() -> None:
    wanted = one_peer(ipsecPeerIkeProfile=2)
    wanted.put("ikeProfileTable", 2, ikePrfProposal=7)
    wanted.put("ikeProposalTable", 7, ikePropHashAlg=6)  # tiger192
    told = plan(wanted).verdicts[RowRef("ikeProposalTable", 7)]
    assert told.state is ApplyState.FAILED
    column = schema().columns["ikePropHashAlg"]
    accepted = told.text.partition(" accepts ")[2].split(", ")
    assert accepted == [column.show(number) for number in (3, 4, 7, 8, 9)]


def test_own_lifetime_counts_with_an_own_policy_only_and_is_told_otherwise() -> None:
    wanted = one_peer(ipsecPeerIkeProfile=2, ipsecPeerIpsecProfile=3)
    wanted.put("ikeProfileTable", 2, ikePrfLifeSeconds=100)
    wanted.put("ipsecProfileTable", 3, ipsecPrfLifeSeconds=100, ipsecPrfLifePolicy=1, ipsecPrfLifeRekeyPercent=50)
    made = plan(wanted)
    assert settings(made)["reauth_time"] == "720s"
    told = made.verdicts[RowRef("ikeProfileTable", 2)]
    assert told.state is ApplyState.APPLIED  # all else in it is in force
    assert told.text.endswith("accepted: ikePrfLifePolicy loose, strict or notify")
    assert (child(made)["life_time"], child(made)["rekey_time"]) == ("100s", "50s")
    assert RowRef("ipsecProfileTable", 3) not in made.verdicts


@pytest.mark.parametrize(("kbytes", "told"), [(0, False), (1, True), (2, True), (3, False), (2**32 - 1, False)])
def test_a_volume_that_a_negotiation_alone_exceeds_is_taken_and_told(kbytes: int, told: bool) -> None:
    """Guide 3.2.2: any whole number up to a length of 32 bits."""
    wanted = one_peer(ipsecPeerIkeProfile=2)
    wanted.put("ikeProfileTable", 2, ikePrfLifeKBytes=kbytes, ikePrfLifePolicy=1)
    said = plan(wanted).verdicts.get(RowRef("ikeProfileTable", 2))
    assert (said == Verdict(ApplyState.APPLIED, ALL_THE_TIME)) is told
    unused = one_peer(ipsecPeerIkeProfile=2)
    unused.put("ikeProfileTable", 2, ikePrfLifeKBytes=kbytes)
    assert ALL_THE_TIME not in str(plan(unused).verdicts)


def test_all_there_is_to_say_of_a_profile_is_said_once() -> None:
    of_it: dict[str, Value] = {"ipsecPeerIkeProfile": 2}
    wanted = configuration({1: [f"protect {A} {B}"], 2: [f"protect {A} 10.9.0.0/16"]}, peers={1: of_it, 2: of_it})
    wanted.put("ikeProfileTable", 2, ikePrfLifeSeconds=100, ikePrfMode=2)
    told = plan(wanted).verdicts[RowRef("ikeProfileTable", 2)]
    assert told.text == f"{NOT_IN_USE.format('ikePrfLifePolicy')}; {GUESSABLE}"


@pytest.mark.parametrize(
    ("life", "renewal", "spread"),
    [
        (Life(900, 80), 720, 45),
        (Life(20, 80), 16, 1),
        (Life(100, 100), 98, 5),
        (Life(0, 80), 0, 0),
        (Life(10, 50), 5, 0),
    ],
)
def test_renewal_begins_in_time(life: Life, renewal: int, spread: int) -> None:
    assert (life.renewal(), life.spread()) == (renewal, spread)


def test_the_phase_2_profile_is_the_rules_then_the_peers_then_the_global_one() -> None:
    wanted = one_peer(ipsecPeerIpsecProfile=2)
    wanted.scalars["ipsecGlobIpsecProfile"] = 1
    for number, seconds in ((1, 1000), (2, 2000), (3, 3000)):
        wanted.put("ipsecProfileTable", number, ipsecPrfLifeSeconds=seconds, ipsecPrfLifePolicy=1)
    profiles = Profiles(wanted, CHARON)
    assert profiles.phase2(3, 2).life.seconds == 3000
    assert profiles.phase2(0, 2).life.seconds == 2000
    assert profiles.phase2(0, 0).life.seconds == 1000
    assert child(plan(wanted))["life_time"] == "2000s"


def test_strict_and_notify_are_told_for_those_who_watch() -> None:
    wanted = one_peer()
    wanted.put("ikeProfileTable", 1, ikePrfLifePolicy=2, ikePrfLifeSeconds=300)
    wanted.put("ipsecProfileTable", 1, ipsecPrfLifePolicy=3)
    profiles = Profiles(wanted, CHARON)
    assert profiles.phase1(1).life == Life(300, 80, 2)
    assert profiles.phase2(1, 0).life.policy == 3


def test_a_chain_of_proposals_is_offered_in_its_order() -> None:
    wanted = one_peer()
    wanted.scalars["ipsecGlobIkeProfile"] = 1
    wanted.put("ikeProfileTable", 1, ikePrfProposal=5)
    wanted.put("ikeProposalTable", 5, ikePropHashAlg=9, ikePropEncKeySize=192, ikePropGroup=5, ikePropNextChoice=6)
    wanted.put("ikeProposalTable", 6, ikePropEncAlg=3, ikePropHashAlg=4, ikePropGroup=0, ikePropNextChoice=7)
    wanted.put("ikeProposalTable", 7, ikePropNextChoice=8)  # DEFVAL ripemd160
    wanted.put("ikeProposalTable", 8, ikePropHashAlg=7, ikePropGroup=14)
    made = plan(wanted)
    assert settings(made)["proposals"] == [
        "aes192-sha512-modp1536",
        "3des-sha1-modp2048",
        "aes256-sha256-modp2048",
        "aes192-sha256-modp2048",
        "aes128-sha256-modp2048",
    ]
    told = made.verdicts[RowRef("ikeProposalTable", 7)]
    assert told.state is ApplyState.FAILED and "ripemd160" in told.text
    assert RowRef("ikeProposalTable", 5) not in made.verdicts


IDLE_CHAINS = [  # rows out of service of the chain 5, 6, 7: what is offered
    ({6}, [5, 7]),
    ({5}, [6, 7]),
    ({5, 6}, [7]),
    ({7}, [5, 6]),
]


def chained(version: int) -> DictConfiguration:
    """The same chain of three for either version in both phases, each row with a key length of its own."""
    profile, prefix = ("ikev2ProfileTable", "ikev2Prf") if version == 2 else ("ikeProfileTable", "ikePrf")
    wanted = one_peer(ipsecPeerIkeVersion=version)
    wanted.put(profile, 1, **{f"{prefix}Proposal": 5})
    wanted.put("ipsecProfileTable", 1, ipsecPrfProposal=5)
    which = "ipsecGlobContIkev2Profile" if version == 2 else "ipsecGlobIkeProfile"
    wanted.scalars |= {which: 1, "ipsecGlobIpsecProfile": 1}
    for number, size, after in ((5, 128, 6), (6, 192, 7), (7, 256, 0)):
        sizes = {"KeySize": size, "KeySizeMin": size, "KeySizeMax": size}
        ike = {f"ikePropEnc{name}": value for name, value in sizes.items()}
        wanted.put("ikeProposalTable", number, ikePropHashAlg=7, ikePropGroup=14, ikePropNextChoice=after, **ike)
        esp = {f"ipsecPropAes{name}": value for name, value in sizes.items()}
        ranks = {"ipsecPropEspAes": 1, "ipsecPropEspSha256": 1}
        wanted.put("ipsecProposalTable", number, ipsecPropNext=after, **ranks, **esp)
    return wanted


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("idle", "left"), IDLE_CHAINS)
def test_proposals_behind_one_that_is_out_of_service_are_still_offered(
    version: int, idle: set[int], left: list[int]
) -> None:
    """As if it were deleted, which closes the chain."""
    wanted = chained(version)
    for table in ("ikeProposalTable", "ipsecProposalTable"):
        wanted.inactive |= {(table, number) for number in idle}
    made = plan(wanted)
    assert settings(made)["proposals"] == [f"aes{(number - 3) * 64}-sha256-modp2048" for number in left]
    children = settings(made)["children"]
    assert isinstance(children, Mapping)
    assert [child["esp_proposals"] for child in children.values()] == [[f"aes{(n - 3) * 64}-sha256" for n in left]]


@pytest.mark.parametrize("version", [1, 2])
def test_a_chain_that_is_out_of_service_as_a_whole_offers_nothing(version: int) -> None:
    """Not what is offered where no chain is named: nobody chose that."""
    wanted = chained(version)
    wanted.inactive = frozenset(("ikeProposalTable", number) for number in (5, 6, 7))
    made = plan(wanted)
    assert not made.connections
    assert "no proposal of its phase 1 chain" in made.verdicts[RowRef("ipsecPeerTable", 1)].text


def test_the_profiles_group_overrules_that_of_the_proposals() -> None:
    wanted = one_peer(ipsecPeerIkeProfile=1)
    wanted.put("ikeProfileTable", 1, ikePrfProposal=5, ikePrfGroup=16)
    wanted.put("ikeProposalTable", 5, ikePropHashAlg=7, ikePropEncKeySize=256, ikePropGroup=2)
    assert settings(plan(wanted))["proposals"] == ["aes256-sha256-modp4096"]


@pytest.mark.parametrize(
    ("cipher", "size", "offered"),
    [
        (4, 0, "blowfish128"),
        (4, 448, "blowfish256"),
        (4, 40, "blowfish128"),
        (5, 64, "cast128"),
        (6, 200, "twofish192"),
    ],
)
def test_key_sizes_are_clamped_to_what_the_engine_has(cipher: int, size: int, offered: str) -> None:
    wanted = one_peer(ipsecPeerIkeProfile=1)
    wanted.put("ikeProfileTable", 1, ikePrfProposal=5)
    wanted.put("ikeProposalTable", 5, ikePropEncAlg=cipher, ikePropEncKeySize=size, ikePropHashAlg=7, ikePropGroup=14)
    assert settings(plan(wanted))["proposals"] == [f"{offered}-sha256-modp2048"]


def test_a_chain_of_which_nothing_is_left_fails_the_peer_and_blocks() -> None:
    wanted = one_peer(ipsecPeerIkeProfile=1)
    wanted.put("ikeProfileTable", 1, ikePrfProposal=5)
    wanted.put("ikeProposalTable", 5)
    made = plan(wanted)
    assert not made.connections and not made.secrets
    assert made.verdicts[RowRef("ipsecPeerTable", 1)].state is ApplyState.FAILED
    told = made.verdicts[RowRef("ipsecTrafficTable", 101)]
    assert told.state is ApplyState.FAILED and "dropped" in told.text


def test_ciphers_and_macs_of_phase_2_come_by_rank() -> None:
    wanted = one_peer()
    wanted.scalars["ipsecGlobIpsecProfile"] = 1
    wanted.put("ipsecProfileTable", 1, ipsecPrfProposal=4)
    wanted.put(
        "ipsecProposalTable",
        4,
        ipsecPropEspAes=2,
        ipsecPropAesKeySize=128,
        ipsecPropEspDes3=1,
        ipsecPropEspSha256=1,
        ipsecPropEspSha1=2,
    )
    assert child(plan(wanted))["esp_proposals"] == ["3des-sha256", "3des-sha1", "aes128-sha256", "aes128-sha1"]


def test_aes_without_a_size_is_offered_with_256_bits_first() -> None:
    wanted = one_peer()
    wanted.scalars["ipsecGlobIpsecProfile"] = 1
    wanted.put("ipsecProfileTable", 1, ipsecPrfProposal=4)
    wanted.put("ipsecProposalTable", 4, ipsecPropEspAes=1, ipsecPropEspSha256=1)
    assert child(plan(wanted))["esp_proposals"] == ["aes256-sha256", "aes192-sha256", "aes128-sha256"]


def test_null_is_offered_for_cipher_or_mac_and_never_for_both() -> None:
    wanted = one_peer()
    wanted.scalars["ipsecGlobIpsecProfile"] = 1
    wanted.put("ipsecProfileTable", 1, ipsecPrfProposal=4)
    wanted.put(
        "ipsecProposalTable", 4, ipsecPropEspNull=1, ipsecPropEspDes3=2, ipsecPropEspSha256=1, ipsecPropEspNoMac=2
    )
    assert child(plan(wanted))["esp_proposals"] == ["null-sha256", "3des-sha256", "3des"]


def test_ah_has_its_own_proposals_and_protocol() -> None:
    wanted = one_peer()
    wanted.scalars["ipsecGlobIpsecProfile"] = 1
    wanted.put("ipsecProfileTable", 1, ipsecPrfProposal=4)
    wanted.put("ipsecProposalTable", 4, ipsecPropProto=2, ipsecPropAhSha256=1)
    made = plan(wanted)
    assert child(made)["ah_proposals"] == ["sha256"]
    assert "esp_proposals" not in child(made)
    assert {t.protocol for policy in made.policies.values() for t in policy.templates} == {51}


def test_ah_beside_esp_in_one_chain_is_left_out_and_told() -> None:
    wanted = one_peer()
    wanted.scalars["ipsecGlobIpsecProfile"] = 1
    wanted.put("ipsecProfileTable", 1, ipsecPrfProposal=4)
    wanted.put("ipsecProposalTable", 4, ipsecPropProto=2, ipsecPropAhSha256=1, ipsecPropNext=5)
    wanted.put("ipsecProposalTable", 5, ipsecPropEspAes=1, ipsecPropAesKeySize=256, ipsecPropEspSha256=1)
    made = plan(wanted)
    assert child(made)["esp_proposals"] == ["aes256-sha256"]
    assert made.verdicts[RowRef("ipsecProposalTable", 4)].state is ApplyState.FAILED


@pytest.mark.parametrize(
    ("rule", "local", "remote"),
    [
        (f"protect {A} {B} icmp", "10.1.0.0/16[1]", "10.2.0.0/16[1]"),
        (f"protect {A} {B} udp/53/0", "10.1.0.0/16[17/53]", "10.2.0.0/16[17]"),
        (f"protect {A} {B} tcp/0/443", "10.1.0.0/16[6]", "10.2.0.0/16[6/443]"),
        (f"protect 10.1.0.1/32 {B} gre", "10.1.0.1/32[47]", "10.2.0.0/16[47]"),
        ("protect any any", "0.0.0.0/0", "0.0.0.0/0"),
    ],
)
def test_traffic_selectors(rule: str, local: str, remote: str) -> None:
    one = child(plan(one_peer(rule)))
    assert (one["local_ts"], one["remote_ts"]) == ([local], [remote])


def test_transport_mode_where_the_rule_is_just_the_two_gateways() -> None:
    made = plan(one_peer("protect 192.0.2.1/32 198.51.100.1/32"))
    assert child(made)["mode"] == "transport"
    assert {t.mode for policy in made.policies.values() for t in policy.templates} == {0}


# ---- who -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "notation"),
    [
        ("<CN=gate, O=Example>", "CN=gate, O=Example"),
        ("|192.0.2.7|", "192.0.2.7"),
        ("192.0.2.7", "192.0.2.7"),
        ("|192.0.2.1-192.0.2.9|", "192.0.2.1-192.0.2.9"),
        ("|10.0.0.0/8|", "10.0.0.0/8"),
        ("|10.0.0.0/255.0.0.0|", "10.0.0.0/8"),
        ("{branch 7}", "keyid:branch 7"),
        ("(joe)", "email:joe"),
        ("joe@example.org", "email:joe@example.org"),
        ("[gate.example.org]", "fqdn:gate.example.org"),
        ("gate.example.org", "fqdn:gate.example.org"),
    ],
)
def test_identities_in_all_delimiters(text: str, notation: str) -> None:
    assert identity(text) == notation


@pytest.mark.parametrize("text", ["<CN=a", "<name>", "|10.0.0.1/8|", "|9.9.9.9-1.1.1.1|", "|gate|", "{}", "[ ]"])
def test_what_is_no_identity_says_what_would_be(text: str) -> None:
    with pytest.raises(IdentityError, match="accepted: "):
        identity(text)


@pytest.mark.parametrize(
    "text", ["192.0.2.0/24", "10.0.0.1-10.0.0.5", "2001:db8::/32", "192.0.2.7/24", "10.0.0.9-10.0.0.5"]
)
def test_a_net_or_range_without_bars_is_not_taken_for_a_name(text: str) -> None:
    """Nobody would ever be called so, and the peer would wait in vain."""
    with pytest.raises(IdentityError, match=rf"accepted: \|{text}\|"):
        identity(text)
    assert identity(f"[{text}]") == f"fqdn:{text}"


@pytest.mark.parametrize("text", ["gate-1", "12", "10.0.0.1-gate", "a/b", "10-20"])
def test_other_names_may_look_as_they_like(text: str) -> None:
    assert identity(text) == f"fqdn:{text}"


def test_alternatives_are_separated_by_blanks_or_commas_outside_of_delimiters() -> None:
    assert identities("<CN=a b, O=c>, [x]  joe@y") == ("CN=a b, O=c", "fqdn:x", "email:joe@y")
    assert identities(" ") == ()
    with pytest.raises(IdentityError, match="at most 8"):
        identities(" ".join(f"host{n}" for n in range(9)))


def test_each_identity_of_a_peer_is_a_connection_and_owns_the_key() -> None:
    made = plan(one_peer(ipsecPeerPeerIds=b"[road] [backup]"))
    assert set(made.connections) == {"peer-1", "peer-1-r", "peer-1-i2", "peer-1-i2-r"}
    assert settings(made, "peer-1")["remote"]["id"] == "fqdn:road"
    assert settings(made, "peer-1-i2")["remote"]["id"] == "fqdn:backup"
    assert made.secrets["psk-1"].owners == ("fqdn:road", "fqdn:backup", "198.51.100.1")
    assert made.secrets["psk-1"].sealed == b"sealed 1"
    assert [c.name for c in made.connections.values() if c.initiator] == ["peer-1"]


def test_a_peer_that_has_to_call_us() -> None:
    made = plan(one_peer(ipsecPeerDynamicAddress=b"", ipsecPeerPeerIds=b"[road]"))
    assert settings(made)["remote_addrs"] == ["%any"]
    assert made.secrets["psk-1"].owners == ("fqdn:road",)
    assert made.verdicts[RowRef("ipsecPeerTable", 1)].state is ApplyState.APPLIED
    wanted = one_peer(ipsecPeerDynamicAddress=b"", ipsecPeerIkeProfile=1)
    wanted.put("ikeProfileTable", 1, ikePrfMode=4)
    assert "aggressive" in plan(wanted).verdicts[RowRef("ipsecPeerTable", 1)].text


@pytest.mark.parametrize(
    ("cells", "state", "text"),
    [
        ({"ipsecPeerPreSharedKeyData": b""}, ApplyState.FAILED, "no pre-shared key"),
        ({"ipsecPeerLocalAddress": packed("192.0.2.77")}, ApplyState.FAILED, "not an address of this host"),
        ({"ipsecPeerDynamicAddress": b"gate.example"}, ApplyState.PENDING, "being resolved"),
        ({"ipsecPeerDynamicAddress": b"nowhere.example"}, ApplyState.FAILED, "does not resolve"),
        ({"ipsecPeerAdminStatus": 2}, ApplyState.APPLIED, "administratively down"),
    ],
)
def test_a_peer_that_cannot_be_used_says_why(cells: dict[str, Value], state: ApplyState, text: str) -> None:
    made = plan(one_peer(**cells), names={"nowhere.example": ()})
    told = made.verdicts[RowRef("ipsecPeerTable", 1)]
    assert told.state is state and text in told.text
    assert not made.connections and not made.secrets and not made.children and not made.reqids
    assert text in made.verdicts[RowRef("ipsecTrafficTable", 101)].text


def test_no_route_to_a_peer_fails_it() -> None:
    made = plan(one_peer(), sources={})
    assert "no route" in made.verdicts[RowRef("ipsecPeerTable", 1)].text
    assert not made.connections


def test_a_name_that_moved_moves_the_tunnel() -> None:
    wanted = one_peer(ipsecPeerDynamicAddress=b"gate.example")
    first = plan(wanted, names={"gate.example": (packed("198.51.100.1"),)})
    second = make_plan(
        wanted, environment(capabilities=CHARON, names={"gate.example": (packed("198.51.100.2"),)}), first, ()
    )
    delta = difference(first, second)
    assert {c.name for c in delta.connections_changed} == {"peer-1", "peer-1-r"}
    assert len(delta.policies_changed) == 3 and not delta.policies_added and not delta.policies_removed
    assert {t.destination for p in delta.policies_changed for t in p.templates} <= {
        packed("198.51.100.2"),
        packed("192.0.2.1"),
    }


def test_rules_say_what_became_of_them() -> None:
    wanted = configuration(
        {"pre": [f"protect {A} {B}"], 1: [f"protect {A} {B}", f"drop {A} {B}", f"pass {A} {B} outbound"], 2: []}
    )
    wanted.put("ipsecTrafficTable", 900)
    verdicts = plan(wanted).verdicts
    assert verdicts[RowRef("ipsecTrafficTable", 1)].state is ApplyState.UNUSED
    assert RowRef("ipsecTrafficTable", 101) not in verdicts
    assert verdicts[RowRef("ipsecTrafficTable", 102)].state is ApplyState.SHADOWED
    assert "rule 101" in verdicts[RowRef("ipsecTrafficTable", 102)].text
    assert verdicts[RowRef("ipsecTrafficTable", 103)].state is ApplyState.SHADOWED
    assert verdicts[RowRef("ipsecTrafficTable", 900)].state is ApplyState.UNUSED
    assert verdicts[RowRef("ipsecPeerTable", 2)].state is ApplyState.UNUSED


def test_settings_that_many_peers_share_are_shared() -> None:
    wanted = configuration({n: [f"protect 10.1.0.0/16 10.{n}.0.0/16"] for n in range(2, 6)})
    made = plan(wanted)
    assert len({id(c.settings["proposals"]) for c in made.connections.values()}) == 1
