"""The guide's field rules, one case per sentence: what a SET may not name, and where it is told."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from agent.mib import load_schema
from agent.mib.ber import Value
from agent.plan.capabilities import CHARON
from agent.plan.check import RuleError, check_rules
from agent.plan.rules import RULES
from tests.plan_helpers import DictConfiguration, packed, rule_cells

TRAFFIC, CONTINUED, GLOBALS = "ipsecTrafficTable", "ipsecGlobalsContinued", "ipsecGlobals"
IKE, IPSEC, ESP = "ikeProfileTable", "ipsecProfileTable", "ipsecProposalTable"
Cells = Mapping[str, Value]
Rows = Mapping[tuple[str, int], Cells]
PASS, DROP, PROTECT, PLAIN = 3, 5, 4, 2


def refused(there: Rows, sets: Rows, *, scalars: Cells | None = None) -> tuple[str, str] | None:
    """(`column.row` to blame, text) of a SET of these cells on top of rows that are there."""
    before = DictConfiguration(scalars=dict(scalars or {}))
    for (table, number), cells in there.items():
        before.put(table, number, **cells)
    after, changes = before.edited(*((table, number, cells) for (table, number), cells in sets.items()))
    named = [(table, number, column, value) for (table, number), row in sets.items() for column, value in row.items()]
    try:
        check_rules(before, after, changes, named, CHARON)
    except RuleError as error:
        _, number, column, _ = named[error.position]
        return f"{column}.{number}", error.text
    return None


class Sentence(NamedTuple):
    """What the guide says; a SET that it forbids, which varbind is to blame, a piece of the text; one it allows."""

    says: str
    table: str
    forbidden: Cells
    blamed: str
    told: str
    allowed: Cells


RANGE: Cells = {"ipsecTrProto": 6, "ipsecTrLocalAddress": packed("10.0.0.5"), "ipsecTrLocalRange": packed("10.0.0.9")}
NET: Cells = {"ipsecTrProto": 6, "ipsecTrRemoteAddress": packed("10.0.0.0"), "ipsecTrRemoteMaskLen": 24}
NET6: Cells = {
    "ipsecTrProto": 6,
    "ipsecGwTrLocalAddress6": packed("2001:db8::"),
    "ipsecGwTrLocalPrefixLength6": 32,
    "ipsecGwTrRemoteAddress6": packed("::"),
}

SENTENCES = [
    Sentence(
        "NULL in a single proposal is either only for encryption or only for authentication",
        ESP,
        {"ipsecPropProto": 1, "ipsecPropEspAes": 1, "ipsecPropEspNull": 2, "ipsecPropEspNoMac": 1},
        "ipsecPropEspNull",
        "one of NULL and NoMac",
        {"ipsecPropProto": 1, "ipsecPropEspAes": 1, "ipsecPropEspNull": 2, "ipsecPropEspSha1": 1},
    ),
    Sentence(
        "and so the other way round",
        ESP,
        {"ipsecPropProto": 1, "ipsecPropEspNoMac": 1, "ipsecPropEspNull": 1},
        "ipsecPropEspNull",
        "neither cipher nor MAC",
        {"ipsecPropProto": 1, "ipsecPropEspNoMac": 1, "ipsecPropEspDes3": 1},
    ),
    Sentence(
        "AH offers only authentication: `none` is its encryption algorithm",
        ESP,
        {"ipsecPropProto": 2, "ipsecPropAhMd5": 1, "ipsecPropEspBlowfish": 1},
        "ipsecPropProto",
        "rank 0 for every cipher",
        {"ipsecPropProto": 2, "ipsecPropAhMd5": 1},
    ),
    Sentence(
        "the NULL algorithm is not available in phase 1 (cipher)",
        "ikeProposalTable",
        {"ikePropEncAlg": 1},
        "ikePropEncAlg",
        "never without a cipher",
        {"ikePropEncAlg": 4},
    ),
    Sentence(
        "the NULL algorithm is not available in phase 1 (hash)",
        "ikeProposalTable",
        {"ikePropEncAlg": 4, "ikePropHashAlg": 2},
        "ikePropHashAlg",
        "never without a hash",
        {"ikePropEncAlg": 4, "ikePropHashAlg": 3},
    ),
    Sentence(
        "a PORT applies to UDP and TCP only",
        TRAFFIC,
        {"ipsecTrProto": 1, "ipsecTrRemotePort": 80},
        "ipsecTrRemotePort",
        "tcp, udp",
        {"ipsecTrProto": 6, "ipsecTrRemotePort": 80},
    ),
    Sentence(
        "which holds without a protocol too",
        TRAFFIC,
        {"ipsecTrProto": 255, "ipsecTrLocalPort": 80},
        "ipsecTrLocalPort",
        "0 or -1 for any",
        {"ipsecTrProto": 255, "ipsecTrLocalPort": 0},
    ),
    Sentence(
        "a mask goes with a net",
        TRAFFIC,
        {**RANGE, "ipsecTrLocalMaskLen": 24},
        "ipsecTrLocalRange",
        "0 or 32",
        {**RANGE, "ipsecTrLocalMaskLen": 32},
    ),
    Sentence(
        "a range has two addresses, first and last",
        TRAFFIC,
        {**RANGE, "ipsecTrLocalRange": packed("10.0.0.4")},
        "ipsecTrLocalRange",
        "10.0.0.5 or higher",
        {**RANGE, "ipsecTrLocalRange": packed("10.0.0.5")},
    ),
    Sentence(
        "the address of a net has no bits beyond its mask",
        TRAFFIC,
        {**NET, "ipsecTrRemoteAddress": packed("10.0.0.5")},
        "ipsecTrRemoteAddress",
        "10.0.0.0 with mask 24",
        NET,
    ),
    Sentence(
        "a host is a net of 32 bits",
        TRAFFIC,
        {**NET, "ipsecTrRemoteAddress": packed("10.0.0.5"), "ipsecTrRemoteMaskLen": 0},
        "ipsecTrRemoteAddress",
        "1..32",
        {**NET, "ipsecTrRemoteAddress": packed("10.0.0.5"), "ipsecTrRemoteMaskLen": 32},
    ),
    Sentence(
        "with own and peer no further settings are necessary",
        TRAFFIC,
        {"ipsecTrProto": 6, "ipsecTrLocalAddress": packed("10.0.0.5"), "ipsecTrLocalMaskLen": 8},
        "ipsecTrLocalAddress",
        "10.0.0.0",
        {
            "ipsecTrProto": 6,
            "ipsecTrLocalAddress": packed("10.0.0.5"),
            "ipsecTrLocalMaskLen": 8,
            "ipsecTrLocalAddressType": 2,
            "ipsecTrLocalPort": 80,
        },
    ),
    Sentence(
        "lifetimes: at least one of Seconds and Kb counts",
        IKE,
        {"ikePrfProposal": 0, "ikePrfLifePolicy": 1, "ikePrfLifeSeconds": 0},
        "ikePrfLifeSeconds",
        "above 0",
        {"ikePrfProposal": 0, "ikePrfLifePolicy": 1, "ikePrfLifeSeconds": 0, "ikePrfLifeKBytes": 11000},
    ),
    Sentence(
        "the same in phase 2; 'use default' has no values of its own",
        IPSEC,
        {"ipsecPrfProposal": 0, "ipsecPrfLifeSeconds": 0, "ipsecPrfLifePolicy": 2},
        "ipsecPrfLifeSeconds",
        "for ever",
        {"ipsecPrfProposal": 0, "ipsecPrfLifeSeconds": 0, "ipsecPrfLifePolicy": 4},
    ),
    *(
        Sentence(
            f"there is no group {group} for PFS",
            IPSEC,
            {"ipsecPrfProposal": 0, "ipsecPrfPfsGroup": group},
            "ipsecPrfPfsGroup",
            "14, 15, 16",
            {"ipsecPrfProposal": 0, "ipsecPrfPfsGroup": good},
        )
        for group, good in ((3, -1), (4, 0), (6, 1), (7, 2), (8, 5), (10, 14), (12, 15), (13, 16))
    ),
    *(
        Sentence(
            f"there is no group {group} for phase 1",
            IKE,
            {"ikePrfProposal": 0, "ikePrfGroup": group},
            "ikePrfGroup",
            "1, 2, 5",
            {"ikePrfProposal": 0, "ikePrfGroup": good},
        )
        for group, good in ((3, 0), (4, 1), (6, 2), (9, 5), (11, 14), (13, 16))
    ),
    Sentence(
        "the exponent is for RSA only",
        "ipsecPublicKeyTable",
        {"ipsecPubKeyAlgorithm": 3, "ipsecPubKeyPublicExponent": 65537},
        "ipsecPubKeyPublicExponent",
        "rsa(2)",
        {"ipsecPubKeyAlgorithm": 2, "ipsecPubKeyPublicExponent": 65537},
    ),
    Sentence(
        "an exponent is odd and above 1",
        "ipsecPublicKeyTable",
        {"ipsecPubKeyAlgorithm": 2, "ipsecPubKeyPublicExponent": 4},
        "ipsecPubKeyPublicExponent",
        "odd and above 1",
        {"ipsecPubKeyAlgorithm": 2, "ipsecPubKeyPublicExponent": 0},
    ),
    Sentence(
        "certificate servers are asked in ascending order from 0",
        "certServerTable",
        {"certServerPreference": -1},
        "certServerPreference",
        "0 and more",
        {"certServerPreference": 0},
    ),
    Sentence(
        "a certificate server is asked by LDAP or HTTP",
        "certServerTable",
        {"certServerPreference": 0, "certServerUrl": b"tftp://192.0.2.9"},
        "certServerUrl",
        "http://, ldap://",
        {"certServerPreference": 0, "certServerUrl": b"LDAP://192.0.2.9/o=us"},
    ),
    Sentence(
        "an incoming number has no leading 0",
        "ipsecDialTable",
        {"ipsecDialIfIndex": 1, "ipsecDialDirection": 1, "ipsecDialNumber": b"0911967301"},
        "ipsecDialNumber",
        "911967301",
        {"ipsecDialIfIndex": 1, "ipsecDialDirection": 2, "ipsecDialNumber": b"0911967301"},
    ),
    Sentence(
        "IPv6: the address of a net has no bits beyond its prefix",
        TRAFFIC,
        {**NET6, "ipsecGwTrLocalAddress6": packed("2001:db8::1")},
        "ipsecGwTrLocalAddress6",
        "a net of 32 bits",
        NET6,
    ),
    Sentence(
        "IPv6: a rule is of one family",
        TRAFFIC,
        {**NET6, "ipsecGwTrRemoteAddress6": b""},
        "ipsecGwTrLocalAddress6",
        "one family",
        {**NET6, "ipsecGwTrRemoteAddress6": packed("2001:db8:1::"), "ipsecGwTrRemotePrefixLength6": 48},
    ),
    Sentence(
        "IPv6: a prefix goes with a net",
        TRAFFIC,
        {**NET6, "ipsecGwTrLocalRange6": packed("2001:db8::9")},
        "ipsecGwTrLocalAddress6",
        "ipsecGwTrLocalPrefixLength6 0 or 128",
        {**NET6, "ipsecGwTrLocalRange6": packed("2001:db8::9"), "ipsecGwTrLocalPrefixLength6": 0},
    ),
    Sentence(
        "IPv6: a range does not end before it begins",
        TRAFFIC,
        {**NET6, "ipsecGwTrLocalPrefixLength6": 128, "ipsecGwTrLocalRange6": packed("2001:db7::")},
        "ipsecGwTrLocalAddress6",
        "ipsecGwTrLocalRange6 from ipsecGwTrLocalAddress6 on",
        {**NET6, "ipsecGwTrLocalPrefixLength6": 128, "ipsecGwTrLocalRange6": packed("2001:db8::")},
    ),
    Sentence(
        "IPv6: a prefix says nothing without an address",
        TRAFFIC,
        {"ipsecTrProto": 6, "ipsecGwTrRemotePrefixLength6": 64},
        "ipsecGwTrRemotePrefixLength6",
        "ipsecGwTrRemoteAddress6 too",
        {"ipsecTrProto": 6},
    ),
]
EACH = pytest.mark.parametrize("sentence", SENTENCES, ids=lambda sentence: sentence.says)


@EACH
def test_what_the_guide_forbids_is_refused_where_it_is_named(sentence: Sentence) -> None:
    found = refused({}, {(sentence.table, 7): sentence.forbidden})
    assert found is not None
    blamed, text = found
    assert blamed == f"{sentence.blamed}.7"
    assert sentence.told in text and "; accepted: " in text


@EACH
def test_what_it_allows_is_not(sentence: Sentence) -> None:
    assert refused({}, {(sentence.table, 7): sentence.allowed}) is None


@EACH
def test_what_is_there_already_is_a_retry_and_does_not_hold_up_another_column(sentence: Sentence) -> None:
    there = {(sentence.table, 7): sentence.forbidden}
    assert refused(there, there) is None
    description = {
        TRAFFIC: "ipsecTrDescription", ESP: "ipsecPropDescription", IKE: "ikePrfDescription",
        IPSEC: "ipsecPrfDescription", "ikeProposalTable": "ikePropDescription",
        "ipsecPublicKeyTable": "ipsecPubKeyDescription", "certServerTable": "certServerName",
        "ipsecDialTable": "ipsecDialSubAddress",
    }[sentence.table]  # fmt: skip
    assert refused(there, {(sentence.table, 7): {description: b"new"}}) is None


@EACH
def test_it_is_judged_as_a_whole_whatever_was_there(sentence: Sentence) -> None:
    """From what is allowed to what is not, in one SET, is as from nothing."""
    columns = load_schema().columns
    blank = {name: columns[name].default for name in (*sentence.forbidden, *sentence.allowed)}
    row = (sentence.table, 7)
    assert refused({row: sentence.allowed}, {row: {**blank, **sentence.forbidden}}) is not None
    assert refused({row: sentence.forbidden}, {row: {**blank, **sentence.allowed}}) is None


# ---- what the numbering itself says -----------------------------------------------------------


def test_ripemd_and_tiger_are_not_available_in_phase_2() -> None:
    columns = load_schema().tables[ESP].by_name
    assert not [name for name in columns if "ripemd" in name.lower() or "tiger" in name.lower()]


def test_own_is_for_the_local_side_peer_and_dhcp_for_the_remote_one() -> None:
    columns = load_schema().columns
    assert set(columns["ipsecTrLocalAddressType"].labels) == {"fixed", "ph1"}
    assert set(columns["ipsecTrRemoteAddressType"].labels) == {"fixed", "ph1", "dhcp"}


def test_ranges_that_smi_can_say() -> None:
    columns = load_schema().columns
    assert columns["ikePrfBlockTime"].ranges == ((-1, 86400),)
    assert columns["ikev2PrfBlockTime"].ranges == ((-1, 86400),)
    assert columns["ipsecPubKeyKeyLength"].ranges == columns["certMgmtKeyLength"].ranges == ((512, 4096),)
    for name in ("ipsecDialNumber", "ipsecDialLocalNumber"):
        assert columns[name].ranges == ((0, 63),)
    for name in ("ipsecPeerDescription", "ikePrfDescription", "ipsecPrfDescription", "ipsecTrDescription"):
        assert columns[name].ranges == ((0, 255),)


def test_a_pre_shared_key_may_be_there_with_any_method() -> None:
    assert refused({}, {("ipsecPeerTable", 7): {"ipsecPeerTrafficList": 0, "ipsecPeerPreSharedKey": b"*"}}) is None


# ---- protect is for the lists of peers ----------------------------------------------------------

LISTS = {"pre": "ipsecGlobContPreIpsecRules", "post": "ipsecGlobContPostIpsecRules"}


def rules(*actions: int) -> dict[tuple[str, int], Cells]:
    """A chain of rules from 1."""
    return {
        (TRAFFIC, n): rule_cells("pass any any", n + 1 if n < len(actions) else 0) | {"ipsecTrAction": action}
        for n, action in enumerate(actions, 1)
    }


@pytest.mark.parametrize("name", LISTS)
def test_a_rule_in_the_pre_or_post_list_cannot_be_made_to_protect(name: str) -> None:
    found = refused(rules(PASS, PASS), {(TRAFFIC, 2): {"ipsecTrAction": PROTECT}}, scalars={LISTS[name]: 1})
    assert found is not None and found[0] == "ipsecTrAction.2"
    assert f"{name} list" in found[1] and "pass(3), drop(5), always-plain(2)" in found[1]


@pytest.mark.parametrize("name", LISTS)
def test_a_list_with_a_protect_rule_cannot_become_the_pre_or_post_list(name: str) -> None:
    found = refused(rules(PASS, PROTECT), {(CONTINUED, 0): {LISTS[name]: 1}})
    assert found is not None and found[0] == f"{LISTS[name]}.0" and "rule 2 protects" in found[1]
    assert refused(rules(PASS, DROP, PLAIN), {(CONTINUED, 0): {LISTS[name]: 1}}) is None


def test_a_link_cannot_bring_a_protect_rule_in() -> None:
    there = rules(PASS) | {(TRAFFIC, 9): rule_cells("protect any any")}
    found = refused(there, {(TRAFFIC, 1): {"ipsecTrNextIndex": 9}}, scalars={LISTS["post"]: 1})
    assert found is not None and found[0] == "ipsecTrNextIndex.1" and "rule 9 protects" in found[1]


def test_a_new_rule_there_has_to_name_its_action_since_the_default_protects() -> None:
    made: Rows = {(TRAFFIC, 2): {"ipsecTrProto": 17}, (TRAFFIC, 1): {"ipsecTrNextIndex": 2}}
    assert refused(rules(PASS), made, scalars={LISTS["pre"]: 1}) is not None
    made = {(TRAFFIC, 2): {"ipsecTrProto": 17, "ipsecTrAction": DROP}, (TRAFFIC, 1): {"ipsecTrNextIndex": 2}}
    assert refused(rules(PASS), made, scalars={LISTS["pre"]: 1}) is None


def test_in_the_list_of_a_peer_everything_goes() -> None:
    peer: Rows = {("ipsecPeerTable", 1): {"ipsecPeerTrafficList": 1}}
    assert refused(rules(PASS, DROP), {**peer, (TRAFFIC, 2): {"ipsecTrAction": PROTECT}}) is None


def test_what_got_in_before_does_not_hold_up_other_changes() -> None:
    """By `load`, say: the row is `unused`, and the others of its list can be worked on."""
    there, scalars = rules(PASS, PROTECT, PASS), {LISTS["pre"]: 1}
    assert refused(there, {(TRAFFIC, 1): {"ipsecTrAction": DROP}}, scalars=scalars) is None
    assert refused(there, {(TRAFFIC, 2): {"ipsecTrDescription": b"x"}}, scalars=scalars) is None
    assert refused(there, {(TRAFFIC, 2): {"ipsecTrAction": DROP}}, scalars=scalars) is None
    before = DictConfiguration(scalars=dict(scalars))
    for (table, number), cells in there.items():
        before.put(table, number, **cells)
    after, changes = before.edited((TRAFFIC, 1, None), (CONTINUED, 0, {LISTS["pre"]: 2}))  # the store moves the head
    check_rules(before, after, changes, [(TRAFFIC, 1, "ipsecTrAction", 1)], CHARON)


NUMBERS = range(1, 5)
EDITS = st.dictionaries(
    st.sampled_from(NUMBERS),
    st.fixed_dictionaries(
        {},
        optional={
            "ipsecTrAction": st.sampled_from([PASS, DROP, PROTECT]),
            "ipsecTrNextIndex": st.sampled_from([0, *NUMBERS]),
        },
    ),
    max_size=3,
)


def led_to(configuration: DictConfiguration, head: Value) -> list[int]:
    """Rules of a list from its head on."""
    found: list[int] = []
    while head:
        assert isinstance(head, int) and head not in found
        row = configuration.row(TRAFFIC, head)
        assert row is not None
        found.append(head)
        head = row["ipsecTrNextIndex"]
    return found


def protects(configuration: DictConfiguration, rule: int) -> bool:
    row = configuration.row(TRAFFIC, rule)
    return row is not None and row["ipsecTrAction"] == PROTECT


def sound(edits: Mapping[int, Cells], there: Mapping[int, Cells], order: list[int]) -> dict[int, dict[str, Value]]:
    """`edits` as the store lets them be: links lead to rows that are `there`, and onwards in `order`, so to no ring."""
    found: dict[int, dict[str, Value]] = {}
    for number, cells in edits.items():
        found[number] = dict(cells)
        following = cells.get("ipsecTrNextIndex", 0)
        assert isinstance(following, int)
        if following and (following not in there or order.index(following) <= order.index(number)):
            found[number]["ipsecTrNextIndex"] = 0
    return found


@settings(max_examples=1000, deadline=None)
@given(
    there=EDITS,
    head=st.sampled_from([0, *NUMBERS]),
    sets=EDITS,
    moved=st.none() | st.sampled_from([0, *NUMBERS]),
    order=st.permutations(NUMBERS),
)
def test_a_list_is_refused_when_a_rule_of_it_would_protect(
    there: dict[int, Cells], head: int, sets: dict[int, Cells], moved: int | None, order: list[int]
) -> None:
    """However a SET gets one there: not all of a list is looked at, and yet all of it is judged."""
    before = DictConfiguration(scalars={LISTS["pre"]: head if head in there else 0})
    rules_there = {n: {"ipsecTrAction": PASS, **cells} for n, cells in sound(there, there, order).items()}
    for number, cells in rules_there.items():
        before.put(TRAFFIC, number, **cells)
    for number in led_to(before, before.scalar(LISTS["pre"])):
        before.put(TRAFFIC, number, **{**rules_there[number], "ipsecTrAction": PASS})
    rows: Rows = {(TRAFFIC, n): {} if n in there else {"ipsecTrProto": 255} for n in sets}
    edits = sound(sets, {**there, **sets}, order)
    rows = {key: {**cells, **edits[key[1]]} for key, cells in rows.items()}
    rows = {key: cells for key, cells in rows.items() if cells}
    if moved is not None:
        rows = {**rows, (CONTINUED, 0): {LISTS["pre"]: moved if moved in there or moved in sets else 0}}
    after, changes = before.edited(*((table, number, cells) for (table, number), cells in rows.items()))
    protecting = [n for n in led_to(after, after.scalar(LISTS["pre"])) if protects(after, n)]
    event(f"{'refused' if protecting else 'taken'}, of {min(len(rows), 2)} rows")
    named = [(table, number, column, value) for (table, number), row in rows.items() for column, value in row.items()]
    try:
        check_rules(before, after, changes, named, CHARON)
    except RuleError as error:
        assert protecting, error.text
    else:
        assert not protecting


# ---- the global profile's lifetime ----------------------------------------------------------------


def test_the_global_profile_has_a_lifetime_since_others_inherit_it() -> None:
    for_ever: Cells = {"ikePrfProposal": 0, "ikePrfLifeSeconds": 0}
    assert refused({}, {(IKE, 3): for_ever}) is None
    found = refused({}, {(IKE, 3): for_ever}, scalars={"ipsecGlobIkeProfile": 3})
    assert found is not None and found[0] == "ikePrfLifeSeconds.3"
    found = refused({(IKE, 3): for_ever}, {(GLOBALS, 0): {"ipsecGlobIkeProfile": 3}})
    assert found is not None and found[0] == "ipsecGlobIkeProfile.0" and "with a lifetime" in found[1]
    assert refused({(IKE, 3): for_ever}, {(GLOBALS, 0): {"ipsecGlobIkeProfile": 0}}) is None
    found = refused({(IPSEC, 3): {"ipsecPrfLifeSeconds": 0}}, {(GLOBALS, 0): {"ipsecGlobIpsecProfile": 3}})
    assert found is not None and found[0] == "ipsecGlobIpsecProfile.0"


def test_every_rule_looks_at_columns_of_its_table() -> None:
    for table, rules_ in RULES.items():
        for rule in rules_:
            assert set(rule.columns) <= set(load_schema().tables[table].by_name)


def test_what_refusals_accept_is_labelled_as_the_mib_does() -> None:
    """`accepted: … ikev1(1)`: what is read there can be typed."""
    known = {(label, number) for column in load_schema().columns.values() for label, number in column.labels.items()}
    nodes = [
        node
        for module in (Path(__file__).parents[1] / "agent" / "plan").glob("*.py")
        for node in ast.walk(ast.parse(module.read_text()))
    ]
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    said = {
        (label, int(number))
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
        for label, number in re.findall(r"(?<![\w.])([a-z][\w-]*)\((\d+)\)", node.value)
    }
    assert len(said) > 10 and not said - known
