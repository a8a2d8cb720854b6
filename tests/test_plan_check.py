"""What a SET may name, by the guide's rules and the engine's limits; and whom it must not cut off."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from agent.mib.ber import Value
from agent.plan import check, numbers
from agent.plan.capabilities import CHARON, ENGINES, MEMORY
from agent.plan.check import RuleError, check_lockout, check_rules
from agent.plan.explain import explain
from agent.plan.model import Capabilities, Flow
from agent.plan.planner import make_plan
from tests.plan_helpers import DictConfiguration, configuration, environment, packed, rule_cells

TRAFFIC = "ipsecTrafficTable"
Cells = Mapping[str, Value]


def judge(
    table: str, cells: Cells, *, there: Cells | None = None, number: int = 7, capabilities: Capabilities = CHARON
) -> RuleError | None:
    """A SET of these cells to a row that is not there yet, or has `there`."""
    before = DictConfiguration()
    if there is not None:
        before.put(table, number, **there)
    after, changes = before.edited((table, number, cells))
    named = [(table, number, column, value) for column, value in cells.items()]
    try:
        check_rules(before, after, changes, named, capabilities)
    except RuleError as error:
        return error
    return None


REFUSED: list[tuple[str, Cells, int, str]] = [
    (
        TRAFFIC,
        {"ipsecTrProto": 255, "ipsecTrLocalAddress": packed("10.0.0.1"), "ipsecTrLocalMaskLen": 8},
        1,
        "10.0.0.0",
    ),
    (TRAFFIC, {"ipsecTrProto": 255, "ipsecTrRemoteAddress": packed("10.0.0.1")}, 1, "1..32"),
    (TRAFFIC, {"ipsecTrProto": 255, "ipsecTrRemoteMaskLen": 33}, 1, "0..32"),
    (TRAFFIC, {"ipsecTrProto": 1, "ipsecTrLocalPort": 5}, 1, "tcp, udp, sctp, udplite"),
    (TRAFFIC, {"ipsecTrProto": 17, "ipsecTrRemotePort": 65536}, 1, "1..65535"),
    ("ikeProposalTable", {"ikePropEncAlg": 1}, 0, "cipher"),
    ("ikeProposalTable", {"ikePropEncAlg": 7, "ikePropHashAlg": 5}, 1, "ripemd160"),
    ("ikeProposalTable", {"ikePropEncAlg": 7, "ikePropHashAlg": 6}, 1, "tiger192"),
    ("ikeProposalTable", {"ikePropEncAlg": 7, "ikePropHashAlg": 2}, 1, "hash"),
    *[("ikeProposalTable", {"ikePropEncAlg": 7, "ikePropGroup": n}, 1, "14, 15, 16") for n in (3, 4, 6, 13, 17)],
    *[("ikeProfileTable", {"ikePrfProposal": 0, "ikePrfGroup": n}, 1, "14, 15, 16") for n in (3, 4, 6, 13)],
    ("ikeProfileTable", {"ikePrfAuthMethod": 2}, 0, "DSA"),
    ("ikeProfileTable", {"ikePrfAuthMethod": 4}, 0, "RSA encryption"),
    *[("ikeProfileTable", {"ikePrfLifeSeconds": n}, 0, "10 and more") for n in (1, 9)],
    *[("ipsecProfileTable", {"ipsecPrfLifeSeconds": n}, 0, "10 and more") for n in (1, 9)],
    *[("ipsecProfileTable", {"ipsecPrfLifeKBytes": n}, 0, "100 and more kBytes") for n in (1, 99)],
    ("ikeProposalTable", {"ikePropEncAlg": 7, "ikePropAuthMethod": 2}, 1, "DSA"),
    ("ikeProposalTable", {"ikePropEncAlg": 7, "ikePropAuthMethod": 4}, 1, "pre-sh-key(1), rsa-sig(3), default(33)"),
    (
        "ikeProposalTable",
        {"ikePropEncAlg": 7, "ikePropEncKeySizeMin": 256, "ikePropEncKeySizeMax": 128},
        1,
        "0 for either",
    ),
    (
        "ipsecProposalTable",
        {"ipsecPropProto": 1, "ipsecPropAesKeySizeMin": 256, "ipsecPropAesKeySizeMax": 192},
        1,
        "0 for either",
    ),
    ("ipsecProposalTable", {"ipsecPropProto": 2, "ipsecGwIpsecPropAead": 4}, 0, "no Aead"),
    ("ikeProfileTable", {"ikePrfLocalId": b"|10.0.0.1/8|"}, 0, "[domain name]"),
    ("ipsecProposalTable", {"ipsecPropProto": 3}, 0, "esp(1), ah(2)"),
    ("ipsecProposalTable", {"ipsecPropProto": 1, "ipsecPropEspNoMac": 1, "ipsecPropEspNull": 1}, 2, "neither"),
    ("ipsecPeerTable", {"ipsecPeerPeerIds": b"<CN=open"}, 0, "closed"),
    ("ipsecPeerTable", {"ipsecPeerDynamicAddress": b"two words"}, 0, "host name"),
    ("ipsecPeerTable", {"ipsecPeerDynamicAddress": b"10.0.0"}, 0, "host name"),
    ("ipsecPeerTable", {"ipsecPeerDynamicAddress": b"224.0.0.1"}, 0, "one host"),
    ("ipsecPeerTable", {"ipsecPeerLocalAddress": packed("255.255.255.255")}, 0, "0.0.0.0"),
]


@pytest.mark.parametrize(("table", "cells", "position", "text"), REFUSED)
def test_refused(table: str, cells: Cells, position: int, text: str) -> None:
    error = judge(table, cells)
    assert error is not None
    assert error.position == position
    assert text in error.text and "; accepted: " in error.text


@pytest.mark.parametrize(("table", "cells", "position", "text"), REFUSED)
def test_what_is_there_already_is_a_retry(table: str, cells: Cells, position: int, text: str) -> None:
    assert judge(table, cells, there=cells) is None


@pytest.mark.parametrize(
    ("table", "cells"),
    [
        (TRAFFIC, rule_cells("protect 10.1.0.0/16 10.2.0.0/16 udp/0/53")),
        (TRAFFIC, {"ipsecTrProto": 255}),
        (TRAFFIC, {"ipsecTrProto": 1, "ipsecTrLocalPort": -1, "ipsecTrRemotePort": 0}),
        (TRAFFIC, {"ipsecTrProto": 136, "ipsecTrLocalPort": 65535}),
        (TRAFFIC, {"ipsecTrLocalAddress": packed("10.0.0.1"), "ipsecTrLocalMaskLen": 32}),
        (TRAFFIC, {"ipsecTrAction": 1}),
        ("ikeProposalTable", {"ikePropEncAlg": 7}),  # the hash's default is ripemd160, but it is not named
        ("ikeProposalTable", {"ikePropHashAlg": 1}),
        ("ikeProposalTable", {"ikePropHashAlg": 9, "ikePropGroup": 16, "ikePropEncKeySize": 448}),
        ("ikeProfileTable", {"ikePrfAuthMethod": 1, "ikePrfGroup": 0, "ikePrfLifeSeconds": 0}),
        ("ikeProfileTable", {"ikePrfAuthMethod": 15}),
        *(("ikeProfileTable", {"ikePrfLifeKBytes": value}) for value in (1, 2**32 - 1)),
        ("ikeProfileTable", {"ikePrfLocalId": b""}),
        ("ipsecProfileTable", {"ipsecPrfLifeSeconds": 10}),
        *(("ipsecProfileTable", {"ipsecPrfGranularity": value}) for value in range(1, 7)),
        ("ipsecProposalTable", {"ipsecPropProto": 8}),
        ("ipsecPeerTable", {"ipsecPeerDynamicAddress": b"gate-1.example.org"}),
        ("ipsecPeerTable", {"ipsecPeerDynamicAddress": b"198.51.100.7"}),
        ("ipsecPeerTable", {"ipsecPeerDynamicAddress": b"", "ipsecPeerPeerIds": b"[a], (b) {c}"}),
    ],
)
def test_accepted(table: str, cells: Cells) -> None:
    assert judge(table, cells) is None


@pytest.mark.parametrize("index", [-7, 1 << 20])
def test_what_is_no_interface_is_refused(index: int) -> None:
    error = judge(TRAFFIC, {"ipsecTrInterface": index}, there=rule_cells("pass any any"))
    assert error is not None and ("accepted: 1 and more" in error.text or "1..1048574" in error.text)


def test_too_large_a_pair_of_ranges_is_refused() -> None:
    wide = rule_cells("pass 0.0.0.1-255.255.255.254 any")
    cells: Cells = {"ipsecTrRemoteAddress": packed("0.0.0.1"), "ipsecTrRemoteRange": b"\xff\xff\xff\xfe"}
    error = judge(TRAFFIC, cells, there=wide)
    assert error is not None and "62 times 62 prefixes; accepted: 1024 pairs at most" in error.text


@pytest.mark.parametrize("cells", [{"ipsecTrProto": 6}, {"ipsecTrProto": 17, "ipsecTrLocalPort": 67}])
def test_dhcp_is_udp_between_its_own_ports(cells: Cells) -> None:
    error = judge(TRAFFIC, {"ipsecTrRemoteAddressType": 3, **cells}, there=rule_cells("pass any any"))
    assert error is not None and "DHCP" in error.text


def test_a_port_without_its_protocol_is_refused_when_the_protocol_changes() -> None:
    error = judge(TRAFFIC, {"ipsecTrDescription": b"x", "ipsecTrProto": 1}, there=rule_cells("pass any any udp/0/53"))
    assert error is not None and error.position == 1


def test_every_engine_is_asked_for_what_it_has() -> None:
    assert ENGINES["memory"] is MEMORY and MEMORY.ike_ciphers == CHARON.ike_ciphers
    one = {"ike_ciphers": "aes", "ike_hashes": "sha256", "esp_macs": "sha256", "aeads": "aes128gcm16"}
    poor = Capabilities(ike_groups=frozenset({14}), **{name: frozenset({has}) for name, has in one.items()})  # type: ignore[arg-type]
    for table, cells in (
        ("ikeProposalTable", {"ikePropEncAlg": 3}),
        ("ikeProposalTable", {"ikePropHashAlg": 4}),
        ("ikeProposalTable", {"ikePropGroup": 2}),
        ("ikeProposalTable", {"ipsecGwIkePropGroup": 31}),
        ("ikeProposalTable", {"ipsecGwIkePropAead": 5}),
        ("ikeProfileTable", {"ipsecGwIkePrfGroup": 19}),
        ("ipsecProposalTable", {"ipsecGwIpsecPropAead": 3}),
        ("ipsecProfileTable", {"ipsecGwIpsecPrfPfsGroup": 32}),
        ("ipsecProfileTable", {"ipsecPrfPfsGroup": 5}),
    ):
        assert judge(table, cells) is None
        error = judge(table, cells, capabilities=poor)
        assert error is not None and "this engine has no" in error.text
    assert judge("ikeProposalTable", {"ikePropEncAlg": 3}, capabilities=Capabilities()) is None


# ---- lock-out ---------------------------------------------------------------------------

SSH = Flow(packed("203.0.113.5"), packed("192.0.2.1"), 6, 50000, 22, "in")
A, B = "10.1.0.0/16", "10.2.0.0/16"


def cut(before: DictConfiguration, *edits: tuple[str, int, Cells | None], flow: Flow = SSH) -> str:
    plan = make_plan(before, environment())
    after, changes = before.edited(*edits)
    incremental = check_lockout(plan, make_plan(after, environment(), plan, changes), [flow])
    assert incremental == check_lockout(plan, make_plan(after, environment()), [flow])
    return incremental


OPEN = {"post": ["pass any any"], 1: [f"protect {A} {B}"]}


def test_a_rule_that_cuts_the_operators_connection_is_named() -> None:
    told = cut(configuration(OPEN), (TRAFFIC, 51, rule_cells("pass 10.0.0.0/8 any")))
    assert "203.0.113.5 port 50000 to 192.0.2.1 port 22" in told and "ipsecGlobContDefaultRule" in told
    told = cut(configuration(OPEN), (TRAFFIC, 101, rule_cells("drop 192.0.2.0/24 any tcp")))
    assert "rule 101" in told


def test_switching_on_a_default_drop_cuts_all() -> None:
    off = configuration({}, enabled=False)
    assert cut(off, ("ipsecGlobals", 0, {"ipsecGlobEnabled": 1}))
    assert not cut(configuration(OPEN, enabled=False), ("ipsecGlobals", 0, {"ipsecGlobEnabled": 1}))
    assert cut(configuration({}, default="pass"), ("ipsecGlobalsContinued", 0, {"ipsecGlobContDefaultRule": 1}))


def test_answers_count_too() -> None:
    told = cut(configuration(OPEN), (TRAFFIC, 101, rule_cells("drop 192.0.2.1/32 any outbound")))
    assert "192.0.2.1 port 22 to 203.0.113.5 port 50000" in told


def test_to_be_asked_into_a_tunnel_is_to_be_cut() -> None:
    assert cut(configuration(OPEN), (TRAFFIC, 101, rule_cells("protect 192.0.2.0/24 any")))


def test_a_station_inside_a_tunnel_stays_in_it() -> None:
    inside = Flow(packed("10.2.0.9"), packed("10.1.0.1"), 6, 50000, 22, "in")
    assert cut(configuration(OPEN), (TRAFFIC, 101, {"ipsecTrAction": 3}), flow=inside)
    assert not cut(configuration(OPEN), (TRAFFIC, 101, rule_cells("protect 10.0.0.0/8 10.2.0.0/16")), flow=inside)
    assert cut(configuration(OPEN), ("ipsecPeerTable", 1, {"ipsecPeerAdminStatus": 2}), flow=inside)


def test_what_was_cut_before_or_is_not_met_is_no_reason() -> None:
    assert not cut(configuration({}), (TRAFFIC, 51, rule_cells("drop any any")))
    assert not cut(configuration(OPEN), (TRAFFIC, 101, rule_cells("drop 10.3.0.0/16 any")))
    assert not cut(configuration(OPEN), (TRAFFIC, 101, None), ("ipsecPeerTable", 1, {"ipsecPeerTrafficList": 0}))


def test_flows_no_touched_policy_meets_cost_no_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    before = configuration(OPEN)
    plan = make_plan(before, environment())
    after, changes = before.edited((TRAFFIC, 101, rule_cells(f"drop {A} {B}")))

    def no_walk(*_: object) -> None:
        raise AssertionError("walked over all policies")

    monkeypatch.setattr(check, "matching", no_walk)
    assert check_lockout(plan, make_plan(after, environment(), plan, changes), [SSH]) == ""


# ---- explain, numbers -------------------------------------------------------------------


def test_explain_names_the_row_by_its_label() -> None:
    wanted = configuration({1: [f"protect {A} {B}"]})
    wanted.put(TRAFFIC, 101, **rule_cells(f"protect {A} {B}", ipsecTrDescription=b"printers"))
    wanted.tables["ipsecPeerTable"][1] = type(wanted.tables["ipsecPeerTable"][1])(
        "ipsecPeerTable", 1, {**wanted.tables["ipsecPeerTable"][1].cells(), "ipsecPeerDescription": b"Branch"}
    )
    plan = make_plan(wanted, environment())
    told = explain(plan, Flow(packed("10.1.0.5"), packed("10.2.0.9"), 6, way="forward"))
    assert str(told) == 'protect: rule 101 "printers" of peer 1 "Branch": tunnel of peer 1 "Branch"'
    assert told.rule is not None and told.rule.number == 101
    with pytest.raises(ValueError, match="forward"):
        explain(plan, Flow(packed("10.1.0.5"), packed("10.2.0.9"), 6, way="sideways"))


def test_a_label_does_nothing_to_the_terminal_it_is_told_at() -> None:
    wanted = configuration({1: [f"protect {A} {B}"]})
    wanted.put(TRAFFIC, 101, **rule_cells(f"protect {A} {B}", ipsecTrDescription=b"\x1b[31mred\n\xff"))
    told = explain(make_plan(wanted, environment()), Flow(packed("10.1.0.5"), packed("10.2.0.9"), 6, way="forward"))
    assert str(told).startswith(r'protect: rule 101 "\x1b[31mred\x0a\xff" of peer 1')


def test_names_are_read_back_and_others_are_not_ours() -> None:
    assert numbers.peer_of_connection(numbers.connection_name(7)) == 7
    assert numbers.connection_name(7, responder=True) == "peer-7-r"
    assert numbers.peer_of_connection(numbers.connection_name(7, identity=8, responder=True)) == 7
    assert numbers.peer_and_rule_of_child(numbers.child_name(7, 12)) == (7, 12)
    assert numbers.peer_and_rule_of_child(numbers.child_name(7, 0)) == (7, 0)  # all rules of the peer
    assert numbers.peer_of_secret(numbers.secret_id(7)) == 7
    for name in ("peer-", "peer-0", "peer-01", "peer-7-x", "peer-7-i1", "home", "peer-7-rule-00", "psk-x", ""):
        assert not numbers.is_our_connection(name)
        assert not numbers.is_our_child(name)
        assert not numbers.is_our_secret(name)
    assert numbers.is_our_index(numbers.POLICY_INDEX_FIRST) and not numbers.is_our_index(8)
    assert numbers.is_our_reqid(numbers.REQID_FIRST) and not numbers.is_our_reqid(1)


def test_bands_of_priorities_do_not_meet() -> None:
    width = numbers.LABELS * numbers.PLACE_WIDTH
    starts = [
        numbers.PRIORITY_EXEMPTION,
        numbers.PRIORITY_ALWAYS_PLAIN,
        numbers.PRIORITY_PRE,
        numbers.PRIORITY_PRE + width - 1,
        numbers.PRIORITY_PEERS,
        numbers.PRIORITY_PEERS + width - 1,
        numbers.PRIORITY_COMPANIONS,
        numbers.PRIORITY_COMPANIONS + width - 1,
        numbers.PRIORITY_POST,
        numbers.PRIORITY_POST + width - 1,
        numbers.PRIORITY_DEFAULT,
    ]
    assert starts == sorted(set(starts)) and starts[-1] < 1 << 32
