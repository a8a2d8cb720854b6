"""Who the two sides say they are: the vendor's syntaxes, what is refused, and what is chosen where nothing is said."""

from __future__ import annotations

import pytest

from agent.mib.ber import Value
from agent.plan.capabilities import CHARON
from agent.plan.check import RuleError, check_rules
from agent.plan.connections import Peer
from agent.plan.identities import ATTRIBUTES, IdentityError, dn_key, identities, identity, is_group
from agent.plan.planner import make_plan
from tests.plan_helpers import DictConfiguration, configuration, environment

RULE = ["protect 10.1.0.0/16 10.2.0.0/16"]

SYNTAXES = {
    "192.0.2.1": "192.0.2.1",
    "|192.0.2.1|": "192.0.2.1",
    "2001:db8::1": "2001:db8::1",
    "|2001:DB8:0::1|": "2001:db8::1",
    "|192.0.2.1-192.0.2.9|": "192.0.2.1-192.0.2.9",
    "|192.0.2.0/24|": "192.0.2.0/24",
    "|2001:db8::/32|": "2001:db8::/32",
    "|2001:db8::1-2001:db8::9|": "2001:db8::1-2001:db8::9",
    "gw.example.org": "fqdn:gw.example.org",
    "[gw.example.org]": "fqdn:gw.example.org",
    "[user@home]": "fqdn:user@home",
    "joe@example.org": "email:joe@example.org",
    "(joe)": "email:joe",
    "{0a0b0c}": "keyid:0a0b0c",
    "<CN=gw, O=Example, C=DE>": "CN=gw, O=Example, C=DE",
    "<C=DE,O=Example,CN=gw>": "C=DE, O=Example, CN=gw",
    "<emailAddress=joe@example.org>": "emailAddress=joe@example.org",
}

REFUSED = {
    "<CN=open": "closed",
    "<gateway>": "parts like CN=gateway",
    "<CN=>": "parts like CN=gateway",
    "<XX=gw>": "no attribute of a name: XX",
    "|gw|": "neither an address nor a range nor a net",
    "|192.0.2.9-192.0.2.1|": "ends before it begins",
    "|192.0.2.1/24|": "neither an address nor a range nor a net",
    "{}": "around a name",
    "[x]y": "without a blank",
}


@pytest.mark.parametrize("text", SYNTAXES)
def test_every_syntax(text: str) -> None:
    assert identity(text) == SYNTAXES[text]
    assert identities(f" {text} ,{text}") == (SYNTAXES[text],), "alternatives are each taken once"


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_identity_is_told(text: str) -> None:
    with pytest.raises(IdentityError, match=REFUSED[text]):
        identities(text)


def test_as_many_alternatives_as_there_may_be() -> None:
    eight = [f"gw{number}.example.org" for number in range(8)]
    assert len(identities(", ".join(eight))) == 8
    with pytest.raises(IdentityError, match="at most 8"):
        identities(" ".join([*eight, "one.too.many"]))


def test_names_are_compared_part_by_part() -> None:
    assert dn_key("CN=gw, O=Example, C=DE") == dn_key("c=de,o=example,cn=GW")
    assert dn_key("CN=gw, C=DE") != dn_key("CN=gw, C=FR")
    assert dn_key("fqdn:gw.example.org") is None
    assert len(set(map(str.casefold, ATTRIBUTES))) == len(ATTRIBUTES)


@pytest.mark.parametrize("text", ["|192.0.2.1-192.0.2.9|", "|192.0.2.0/24|", "|2001:db8::/32|"])
def test_nets_and_ranges_are_identities_of_ikev1_only(text: str) -> None:
    assert is_group(identity(text))
    octets = text.encode()
    refused = (
        ({"ipsecPeerPeerIds": octets, "ipsecPeerIkeVersion": 2}, "ipsecPeerPeerIds"),
        ({"ipsecPeerLocalId": octets}, "ipsecPeerLocalId"),
    )
    for cells, column in refused:
        with pytest.raises(RuleError, match="IKEv2 has no nets and ranges"):
            set_of_peer(cells, column)
    set_of_peer({"ipsecPeerPeerIds": octets}, "ipsecPeerPeerIds")
    found = peer_of({"ipsecPeerPeerIds": octets})
    assert found.usable and found.identities == (identity(text),)
    assert not peer_of({"ipsecPeerPeerIds": octets, "ipsecPeerIkeVersion": 2}).usable


def set_of_peer(cells: dict[str, Value], column: str) -> None:
    before = configuration({1: RULE})
    after, changes = before.edited(("ipsecPeerTable", 1, cells))
    check_rules(before, after, changes, [("ipsecPeerTable", 1, name, value) for name, value in cells.items()], CHARON)
    assert column in cells


def peer_of(cells: dict[str, Value], **profile: Value) -> Peer:
    made: DictConfiguration = configuration({1: RULE}, peers={1: cells})
    if profile:
        made.put("ikeProfileTable", 1, **profile)
        made.scalars["ipsecGlobIkeProfile"] = 1
    plan = make_plan(made, environment())
    assert plan.state is not None
    found = plan.state.peers.get(1)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("cells", "profile", "told"),
    [
        ({}, {}, "192.0.2.1"),
        ({}, {"ikePrfLocalId": b"[gw]"}, "fqdn:gw"),
        ({"ipsecPeerLocalId": b"ignored.example.org"}, {}, "192.0.2.1"),
        ({"ipsecPeerIkeVersion": 2, "ipsecPeerMobike": 2}, {"ikePrfLocalId": b"[gw]"}, "192.0.2.1"),
        ({"ipsecPeerIkeVersion": 2, "ipsecPeerLocalId": b"{0a0b}"}, {}, "keyid:0a0b"),
        ({"ipsecPeerIkeVersion": 2, "ipsecPeerLocalId": b"2001:db8::7"}, {}, "2001:db8::7"),
        ({"ipsecPeerLocalAddress": bytes([10, 1, 0, 1])}, {}, "10.1.0.1"),
    ],
)
def test_who_we_say_we_are(cells: dict[str, Value], profile: dict[str, Value], told: str) -> None:
    assert peer_of(cells, **profile).local_id == told


@pytest.mark.parametrize(
    ("cells", "asked"),
    [
        ({}, ("198.51.100.1",)),
        ({"ipsecPeerDynamicAddress": b""}, ("%any",)),
        ({"ipsecPeerPeerIds": b"a.example.org b@example.org"}, ("fqdn:a.example.org", "email:b@example.org")),
    ],
)
def test_who_the_peer_has_to_be(cells: dict[str, Value], asked: tuple[str, ...]) -> None:
    assert peer_of(cells).identities == asked
