"""IKEv2 peers and profiles; of both versions what is set beside proposals: liveness, NAT, volume, idling."""

from __future__ import annotations

from typing import Any

import pytest

from agent.mib.ber import Value
from agent.plan import liveness, numbers
from agent.plan.capabilities import CHARON
from agent.plan.lifetimes import Life, volume_of
from agent.plan.model import Action, ApplyState, RowRef, Tunnel
from agent.plan.planner import Plan, difference, make_plan
from agent.plan.spd import IPCOMP
from tests.plan_helpers import DictConfiguration, configuration, environment, packed
from tests.planned_peer import A, B, child, one_peer, settings

PEER_ROW = RowRef("ipsecPeerTable", 1)
RULE_ROW = RowRef("ipsecTrafficTable", 101)
THEIRS, OURS = packed("198.51.100.1"), packed("192.0.2.1")


def plan(wanted: DictConfiguration, **world: object) -> Plan:
    return make_plan(wanted, environment(capabilities=CHARON, **world))


def version2(rule: str = f"protect {A} {B}", **cells: Value) -> DictConfiguration:
    return one_peer(rule, ipsecPeerIkeVersion=2, **cells)


def one_of_each() -> DictConfiguration:
    """Peer 1 of IKEv1 and peer 2 of IKEv2."""
    rules: dict[int | str, list[str]] = {1: [f"protect {A} {B}"], 2: [f"protect {A} 10.3.0.0/16"]}
    return configuration(rules, peers={2: {"ipsecPeerIkeVersion": 2}})


def picked(values: Any, *names: str) -> list[str]:
    return [values.get(name, "") for name in names]


# ---- IKEv2 ----------------------------------------------------------------------------------


def test_a_version_2_peer_without_profile_gets_what_is_built_in() -> None:
    made = plan(version2())
    assert set(made.connections) == {"peer-1"}
    first = settings(made)
    assert first["version"] == "2" and first["aggressive"] == "no"
    assert first["proposals"][0] == "aes256-sha256-modp2048"
    assert picked(first, "rekey_time", "reauth_time", "over_time", "rand_time") == ["2880s", "0s", "720s", "180s"]
    assert picked(first, "mobike", "dpd_delay", "encap") == ["yes", "150s", "no"]  # 15 s, ten times less often
    assert "dpd_timeout" not in first
    assert made.secrets["psk-1"].owners == ("198.51.100.1",)
    assert PEER_ROW not in made.verdicts


def test_version_2_takes_the_peers_profile_else_the_global_one() -> None:
    wanted = version2(ipsecPeerIkeProfile=3)
    wanted.scalars["ipsecGlobContIkev2Profile"] = 2
    wanted.put("ikeProposalTable", 5, ikePropEncAlg=5, ikePropHashAlg=4, ikePropGroup=5)
    wanted.put("ikev2ProfileTable", 2, ikev2PrfProposal=5, ikev2PrfNatT=2, ikev2PrfLifeSeconds=1000)
    wanted.put("ikev2ProfileTable", 3, ikev2PrfLifeSeconds=100, ikev2PrfLifeRekeyPercent=50)
    wanted.put("ikeProfileTable", 3, ikePrfGroup=16, ikePrfLifeSeconds=77, ikePrfLifePolicy=1)  # of version 1
    made = plan(wanted)
    assert settings(made)["proposals"] == ["cast128-sha1-modp1536"]  # left to the global profile, as NatT
    assert picked(settings(made), "rekey_time", "over_time", "mobike") == ["50s", "50s", "no"]
    assert made.connections["peer-1"].nat is False
    wanted.put("ikev2ProfileTable", 3, ikev2PrfNatT=1)
    made = plan(wanted)
    assert settings(made)["mobike"] == "yes" and made.connections["peer-1"].nat is True
    assert settings(made)["rekey_time"] == "2880s", "lifetimes are the profile's own"
    wanted.put("ipsecPeerTable", 1, **{**wanted.tables["ipsecPeerTable"][1].cells(), "ipsecPeerIkeProfile": 0})
    assert settings(plan(wanted))["rekey_time"] == "800s"


def test_a_lifetime_of_0_is_none() -> None:
    wanted = version2(ipsecPeerIkeProfile=3)
    wanted.put("ikev2ProfileTable", 3, ikev2PrfLifeSeconds=0)
    assert picked(settings(plan(wanted)), "rekey_time", "over_time") == ["0s", "0s"]


@pytest.mark.parametrize(
    ("mobike", "alive", "factor", "delay"),
    [(1, 1, 10, "150s"), (1, 1, 3, "45s"), (2, 1, 10, "15s"), (1, 2, 10, "0s"), (2, 2, 10, "0s")],
)
def test_version_2_probes_less_often_who_may_move_and_not_at_all_where_told(
    mobike: int, alive: int, factor: int, delay: str
) -> None:
    wanted = version2(ipsecPeerMobike=mobike, ipsecPeerIkeProfile=3)
    wanted.scalars["ipsecGlobContMobikeFactor"] = factor
    wanted.put("ikev2ProfileTable", 3, ikev2PrfAliveCheck=alive)
    assert picked(settings(plan(wanted)), "dpd_delay", "mobike") == [delay, "yes" if mobike == 1 else "no"]


def test_version_2_switched_off_blocks_its_rules_and_leaves_the_others() -> None:
    wanted = one_of_each()
    wanted.scalars["ipsecGlobIkev2Enabled"] = 2
    made = plan(wanted)
    assert set(made.connections) == {"peer-1", "peer-1-r"}
    told = made.verdicts[RowRef("ipsecPeerTable", 2)]
    assert told.state is ApplyState.UNUSED and "ipsecGlobIkev2Enabled" in told.text
    assert {p.action for p in made.policies.values() if p.row.number == 201} == {Action.BLOCK}
    assert "dropped" in made.verdicts[RowRef("ipsecTrafficTable", 201)].text
    after, changes = wanted.edited(("ipsecGlobals", 0, {"ipsecGlobIkev2Enabled": 1}))
    again = make_plan(after, environment(capabilities=CHARON), made, changes)
    assert "peer-2" in again.connections


def test_a_peer_without_address_can_call_with_version_2() -> None:
    made = plan(version2(ipsecPeerDynamicAddress=b"", ipsecPeerPeerIds=b"[road]"))
    assert settings(made)["remote_addrs"] == ["%any"]
    assert "aggressive" not in made.verdicts[PEER_ROW].text


# ---- addresses that move -----------------------------------------------------------------------


def test_a_connection_with_mobike_does_not_change_when_our_address_does() -> None:
    first = plan(version2())
    assert settings(first)["local_addrs"] == ["%any"] and "id" not in settings(first)["local"]
    own = environment().own_addresses | {packed("192.0.2.77")}
    moved = make_plan(
        version2(),
        environment(capabilities=CHARON, sources={THEIRS: packed("192.0.2.77")}, own_addresses=own),
    )
    assert not difference(first, moved).connections_changed
    without = make_plan(version2(), environment(capabilities=CHARON, sources={}))
    assert not difference(first, without).connections_changed, "a moment without a route ends nothing"
    assert "no route" in without.verdicts[PEER_ROW].text
    fixed = plan(version2(ipsecPeerMobike=2))
    assert settings(fixed)["local_addrs"] == ["192.0.2.1"] and settings(fixed)["local"]["id"] == "192.0.2.1"
    chosen = plan(version2(ipsecPeerLocalAddress=OURS))
    assert settings(chosen)["local_addrs"] == ["192.0.2.1"]


def test_templates_follow_the_tunnel_that_moved() -> None:
    elsewhere = packed("203.0.113.9")
    tunnels = {"peer-1-rule-101": Tunnel("peer-1-rule-101", elsewhere, THEIRS, 1, 50)}
    made = plan(version2(), tunnels=tunnels)
    assert {t.source for p in made.policies.values() for t in p.templates} == {elsewhere, THEIRS}


# ---- one child for all rules ---------------------------------------------------------------------


def single(*rules: str, **cells: Value) -> DictConfiguration:
    return configuration({1: list(rules)}, peers={1: {"ipsecPeerIkeVersion": 2, "ipsecPeerChildAllocMode": 2, **cells}})


def test_a_single_child_serves_all_rules_of_its_peer() -> None:
    wanted = single(f"protect {A} {B}", "protect 10.1.0.0/16 10.9.0.0/16 udp/0/53", f"drop {A} 10.8.0.0/16")
    made = plan(wanted)
    assert set(made.children) == {"peer-1-rule-0"} == set(made.reqids)
    one = settings(made)["children"]["peer-1-rule-0"]
    assert one["local_ts"] == one["remote_ts"] == ["0.0.0.0/0", "::/0"] and one["mode"] == "tunnel"
    assert {t.reqid for p in made.policies.values() for t in p.templates} == {made.reqids["peer-1-rule-0"]}
    assert numbers.peer_and_rule_of_child("peer-1-rule-0") == (1, 0)


def test_the_single_child_stays_with_its_number_while_rules_come_and_go() -> None:
    wanted = single(f"protect {A} {B}", f"protect {A} 10.9.0.0/16")
    world = environment(capabilities=CHARON)
    first = make_plan(wanted, world)
    fewer, changes = wanted.edited(
        ("ipsecTrafficTable", 102, None), ("ipsecTrafficTable", 101, {"ipsecTrNextIndex": 0})
    )
    second = make_plan(fewer, world, first, changes)
    assert second.reqids == first.reqids
    assert not difference(first, second).connections_changed
    none, changes = fewer.edited(("ipsecTrafficTable", 101, {"ipsecTrAction": 3}))
    third = make_plan(none, world, second, changes)
    assert not third.children and not third.connections and not third.reqids
    back, changes = none.edited(("ipsecTrafficTable", 101, {"ipsecTrAction": 4}))
    assert set(make_plan(back, world, third, changes).children) == {"peer-1-rule-0"}


def test_single_and_multi_are_exchanged_whole() -> None:
    wanted = single(f"protect {A} {B}", f"protect {A} 10.9.0.0/16")
    world = environment(capabilities=CHARON)
    first = make_plan(wanted, world)
    multi, changes = wanted.edited(("ipsecPeerTable", 1, {"ipsecPeerChildAllocMode": 1}))
    second = make_plan(multi, world, first, changes)
    assert set(second.children) == {"peer-1-rule-101", "peer-1-rule-102"} == set(second.reqids)
    again, changes = multi.edited(("ipsecPeerTable", 1, {"ipsecPeerChildAllocMode": 2}))
    assert set(make_plan(again, world, second, changes).children) == {"peer-1-rule-0"}


def test_all_rules_follow_the_tunnel_of_the_single_child() -> None:
    wanted = single(f"protect {A} {B}", f"protect {A} 10.9.0.0/16")
    first = plan(wanted)
    road = packed("203.0.113.9")
    tunnels = {"peer-1-rule-0": Tunnel("peer-1-rule-0", OURS, road, 1, 50)}
    made = make_plan(wanted, environment(capabilities=CHARON, tunnels=tunnels), first, ())
    assert {p.row.number for p in made.policies.values() for t in p.templates if road in t} == {101, 102}
    assert not [p for p in made.policies.values() for t in p.templates if THEIRS in t]


def test_version_1_has_a_child_for_each_rule_whatever_is_asked() -> None:
    wanted = single(f"protect {A} {B}", f"protect {A} 10.9.0.0/16", ipsecPeerIkeVersion=1)
    assert set(plan(wanted).children) == {"peer-1-rule-101", "peer-1-rule-102"}


# ---- liveness, NAT, first contact ------------------------------------------------------------------

PROBING = liveness.Probing(idle=15, retries=3, retry_timeout=2, interval=5, tolerance=4, mobike_factor=10)


def profiled(**cells: Value) -> DictConfiguration:
    wanted = one_peer(ipsecPeerIkeProfile=1, ipsecPeerIpsecProfile=1)
    wanted.put("ikeProfileTable", 1, **{name: v for name, v in cells.items() if name.startswith("ike")})
    wanted.put("ipsecProfileTable", 1, **{name: v for name, v in cells.items() if name.startswith("ipsec")})
    return wanted


@pytest.mark.parametrize(
    ("wish", "delay", "timeout"),
    [(1, "0s", "0s"), (2, "5s", "20s"), (3, "0s", "0s"), (4, "5s", "20s"), (5, "15s", "21s"), (6, "15s", "21s"),
     (7, "15s", "21s"), (8, "15s", "21s")],
)  # fmt: skip
def test_heartbeats_of_phase_1(wish: int, delay: str, timeout: str) -> None:
    assert picked(settings(plan(profiled(ikePrfHeartbeats=wish))), "dpd_delay", "dpd_timeout") == [delay, timeout]


@pytest.mark.parametrize(
    ("phase1", "phase2", "wins"),
    [(1, 2, 2), (1, 5, 1), (5, 1, 1), (6, 1, 6), (2, 6, 2), (3, 1, 3), (2, 4, 4), (5, 5, 6)],
)
def test_the_stronger_wish_of_both_phases_counts(phase1: int, phase2: int, wins: int) -> None:
    wanted = profiled(ikePrfHeartbeats=phase1, ipsecPrfHeartbeats=phase2)
    expected = liveness.version1(PROBING, wins)
    assert picked(settings(plan(wanted)), *expected) == list(expected.values())


def test_heartbeats_are_inherited_and_timed_by_the_globals() -> None:
    wanted = profiled(ikePrfHeartbeats=5)
    wanted.scalars |= {
        "ipsecGlobIkeProfile": 9,
        "ipsecGlobContHeartbeatInterval": 7,
        "ipsecGlobContHeartbeatTolerance": 1,
        "ipsecGlobDPDIdleThreshold": 30,
        "ipsecGlobDPDMaxRetries": 2,
        "ipsecGlobDPDRetryTimeout": 4,
    }
    wanted.put("ikeProfileTable", 9, ikePrfHeartbeats=2)
    assert picked(settings(plan(wanted)), "dpd_delay", "dpd_timeout") == ["7s", "8s"], "not dead at the first beat"
    wanted.put("ikeProfileTable", 9, ikePrfHeartbeats=7)
    assert picked(settings(plan(wanted)), "dpd_delay", "dpd_timeout") == ["30s", "38s"]


@pytest.mark.parametrize(
    ("nat", "encap", "allowed"), [(1, "no", True), (2, "no", False), (3, "no", True), (4, "yes", True)]
)
def test_nat_traversal(nat: int, encap: str, allowed: bool) -> None:
    made = plan(profiled(ikePrfNatT=nat))
    assert settings(made)["encap"] == encap
    assert {connection.nat for connection in made.connections.values()} == {allowed}


def test_ah_cannot_be_where_everything_travels_in_udp() -> None:
    wanted = profiled(ikePrfNatT=4, ipsecPrfProposal=5)
    wanted.put("ipsecProposalTable", 5, ipsecPropProto=2, ipsecPropAhSha1=1)
    made = plan(wanted)
    assert made.verdicts[RULE_ROW].state is ApplyState.FAILED and "UDP" in made.verdicts[RULE_ROW].text
    assert {policy.action for policy in made.policies.values() if policy.row == RULE_ROW} == {Action.BLOCK}


@pytest.mark.parametrize("version", [1, 2])
def test_first_contact_is_kept_secret_where_told(version: int) -> None:
    wanted = one_peer(ipsecPeerIkeVersion=version)
    assert settings(plan(wanted))["unique"] == "no"
    wanted.scalars["ipsecGlobNoInitialContact"] = 1
    assert settings(plan(wanted))["unique"] == "never"


# ---- children --------------------------------------------------------------------------------------


def test_volume_of_phase_2_is_in_thousands_of_octets() -> None:
    wanted = profiled(ipsecPrfLifeKBytes=1000, ipsecPrfLifePolicy=1, ipsecPrfLifeRekeyPercent=50)
    assert picked(child(plan(wanted)), "life_bytes", "rekey_bytes", "rand_bytes") == ["1001000000", "500000", "50000"]
    assert "life_bytes" not in child(plan(profiled(ipsecPrfLifeKBytes=0, ipsecPrfLifePolicy=1)))
    assert child(plan(one_peer()))["life_bytes"] == "1011000000", "built in: 11,000 kB"
    assert Life(900, 100, 1, 1000).renewal_octets() == 950_000, "renewal takes a while"


def test_a_volume_is_renewed_before_packets_are_dropped() -> None:
    """From soft to hard limit a link of 1 Gbit/s must take longer than a renewal with all its repetitions."""
    seconds_at_a_gigabit = 125_000_000
    for percent in (1, 80, 100):
        one = child(plan(profiled(ipsecPrfLifeKBytes=11_000, ipsecPrfLifePolicy=1, ipsecPrfLifeRekeyPercent=percent)))
        hard, soft = int(str(one["life_bytes"])), int(str(one["rekey_bytes"]))
        assert hard - soft > 5 * seconds_at_a_gigabit
        assert volume_of(hard, 900) == 11_000, "what the operator set is what is shown"
    told = child(plan(profiled(ipsecPrfLifeKBytes=11_000, ipsecPrfLifePolicy=1, ipsecPrfLifeSeconds=0)))
    assert told["life_bytes"] == "11000000", "without a time charon tells the peer this number"
    assert volume_of(11_000_000, 0) == 11_000 and volume_of(0, 900) == volume_of(0, 0) == 0


def test_a_volume_without_a_policy_is_told() -> None:
    made = plan(profiled(ipsecPrfLifeKBytes=1000))
    assert made.verdicts[RowRef("ipsecProfileTable", 1)].state is ApplyState.APPLIED


@pytest.mark.parametrize(("pmtu", "copy"), [(1, "no"), (2, "yes"), (3, "yes")])
def test_path_mtu_discovery(pmtu: int, copy: str) -> None:
    assert child(plan(profiled(ipsecPrfPmtuDiscovery=pmtu)))["copy_df"] == copy


@pytest.mark.parametrize(("keep", "start", "seconds"), [(1, 1, ""), (2, 1, "674s"), (3, 1, "674s"), (2, 2, "")])
def test_an_unused_tunnel_lapses_before_it_would_be_renewed(keep: int, start: int, seconds: str) -> None:
    wanted = profiled(ipsecPrfKeepAlive=keep)
    wanted.put("ipsecPeerTable", 1, **{**wanted.tables["ipsecPeerTable"][1].cells(), "ipsecPeerStartMode": start})
    assert child(plan(wanted)).get("inactivity", "") == seconds


@pytest.mark.parametrize(("accelerate", "setting"), [(1, "auto"), (2, "no")])
def test_hardware(accelerate: int, setting: str) -> None:
    wanted = one_peer()
    wanted.scalars["ipsecGlobContHwAccel"] = accelerate
    assert child(plan(wanted))["hw_offload"] == setting


def test_settings_of_phase_2_are_inherited_from_the_global_profile() -> None:
    wanted = profiled(ipsecPrfProposal=0)
    wanted.scalars["ipsecGlobIpsecProfile"] = 9
    wanted.put("ipsecProfileTable", 9, ipsecPrfPmtuDiscovery=1, ipsecPrfKeepAlive=1, ipsecPrfLifeKBytes=50)
    one = child(plan(wanted))
    assert (one["copy_df"], one.get("inactivity"), one["life_bytes"]) == ("no", None, "1000050000")


def test_a_forced_compression_is_never_let_through_without() -> None:
    wanted = profiled(ipsecPrfProposal=5)
    cells: dict[str, Value] = {"ipsecPropEspAes": 1, "ipsecPropEspSha1": 1, "ipsecPropIpcompDeflate": 1}
    name = "peer-1-rule-101"

    def protocols(ipcomp: int, compressed: bool) -> set[tuple[int, bool]]:
        wanted.put("ipsecProposalTable", 5, **cells, ipsecPropIpcomp=ipcomp)
        tunnels = {name: Tunnel(name, OURS, THEIRS, 1, 50, compressed)}
        made = plan(wanted, tunnels=tunnels)
        return {(t.protocol, t.optional) for p in made.policies.values() for t in p.templates}

    assert protocols(1, False) == {(50, False)}
    assert protocols(1, True) == {(50, False), (IPCOMP, False), (IPCOMP, True)}
    assert protocols(3, False) == {(50, False), (IPCOMP, False), (IPCOMP, True)}


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("ipsecGlobContHeartbeatInterval", 9),
        ("ipsecGlobContMobikeFactor", 2),
        ("ipsecGlobNoInitialContact", 1),
        ("ipsecGlobContHwAccel", 2),
        ("ipsecGlobMaxKeyLength", 128),
        ("ipsecGlobContIkev2Profile", 3),
    ],
)
def test_a_changed_global_reaches_peers_that_are_planned_already(scalar: str, value: int) -> None:
    wanted = one_of_each()
    wanted.scalars["ipsecGlobIkeProfile"] = 1
    wanted.put("ikeProfileTable", 1, ikePrfHeartbeats=2)
    wanted.put("ikev2ProfileTable", 3, ikev2PrfLifeSeconds=77)
    world = environment(capabilities=CHARON)
    first = make_plan(wanted, world)
    group = "ipsecGlobalsContinued" if scalar.startswith("ipsecGlobCont") else "ipsecGlobals"
    after, changes = wanted.edited((group, 0, {scalar: value}))
    second = make_plan(after, world, first, changes)
    assert difference(first, second).connections_changed
    whole = make_plan(after, world)
    assert {n: dict(c.settings) for n, c in second.connections.items()} == {
        n: dict(c.settings) for n, c in whole.connections.items()
    }
