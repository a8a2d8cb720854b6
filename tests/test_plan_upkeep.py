"""What the monitor does for a peer itself: own profile, else the global one, else the built-in value."""

from __future__ import annotations

from typing import Any

import pytest

from agent.mib.ber import Value
from agent.plan.upkeep import Upkeep, Upkeeps
from tests.plan_helpers import DictConfiguration, DictRow

V1, V2, PEERS = "ikeProfileTable", "ikev2ProfileTable", "ipsecPeerTable"


def world(own: dict[str, Value] | None = None, usual: dict[str, Value] | None = None, **rest: Value) -> Upkeep:
    """`own`: columns of the peer's profile, `usual`: of the global one; scalars and the version as `rest`."""
    version = rest.pop("version", 1)
    table, pointer = (V2, "ipsecGlobContIkev2Profile") if version == 2 else (V1, "ipsecGlobIkeProfile")
    profiles = {n: DictRow(table, n, cells) for n, cells in ((1, own), (2, usual)) if cells is not None}
    peer: dict[str, Value] = {"ipsecPeerIkeVersion": version, "ipsecPeerIkeProfile": 1 if own is not None else 0}
    scalars: dict[str, Value] = {pointer: 2 if usual is not None else 0, **rest}
    return Upkeeps(DictConfiguration({table: profiles, PEERS: {7: DictRow(PEERS, 7, peer)}}, scalars)).of(7)


def test_built_in_values() -> None:
    assert world() == Upkeep()
    assert Upkeeps(DictConfiguration()).of(99) == Upkeep()


@pytest.mark.parametrize(("version", "column"), [(1, "ikePrfBlockTime"), (2, "ikev2PrfBlockTime")])
def test_the_block_time_of_the_own_profile_then_of_the_global_one(version: int, column: str) -> None:
    assert world({column: 30}, {column: 60}, version=version).block == 30
    assert world({column: 0}, {column: 60}, version=version).block == 0
    assert world({column: -1}, {column: 60}, version=version).block == 60
    assert world(None, {column: 60}, version=version).block == 60
    assert world({column: -1}, {column: -1}, version=version).block == 0


def test_a_peer_with_a_block_time_has_a_limit_of_its_own_for_negotiations() -> None:
    limits: dict[str, Any] = {"ipsecGlobBlockTimeout": 3, "ipsecGlobMaxNegotiationTimeoutsec": 20}
    assert world({"ikePrfBlockTime": 30}, **limits)[1:3] == (3, "ipsecGlobBlockTimeout")
    assert world({"ikePrfBlockTime": 0}, **limits)[1:3] == (20, "ipsecGlobMaxNegotiationTimeoutsec")


@pytest.mark.parametrize(
    ("own", "usual", "scalar", "wanted"),
    [(1, 2, 2, True), (2, 1, 1, False), (3, 1, 2, True), (3, 3, 1, True), (3, 3, 2, False)],
)
def test_a_fresh_identity_after_each_phase_2(own: int, usual: int, scalar: int, wanted: bool) -> None:
    found = world(
        {"ikePrfPfsIdentity": own},
        {"ikePrfPfsIdentity": usual},
        ipsecGlobContDefaultPfsIdentity=scalar,
        ipsecGlobContPfsIdentityDelay=4,
    )
    assert (found.fresh_identity, found.delay) == (wanted, 4)


def test_kilobytes_and_policy_count_where_the_lifetime_is_the_profile_s_own() -> None:
    own: dict[str, Value] = {"ikePrfLifeKBytes": 5, "ikePrfLifePolicy": 2}
    usual: dict[str, Value] = {"ikePrfLifeKBytes": 9, "ikePrfLifePolicy": 3}
    assert world(own, usual)[-2:] == (5, 2)
    assert world({**own, "ikePrfLifePolicy": 4}, usual)[-2:] == (9, 3)
    assert world({**own, "ikePrfLifePolicy": 4}, {**usual, "ikePrfLifePolicy": 4})[-2:] == (9, 1)


def test_phase_1_first_is_for_all_peers_of_version_1() -> None:
    assert world(ipsecGlobContP1Always=1).phase1_first
    assert not world(ipsecGlobContP1Always=2).phase1_first
    assert not world(version=2, ipsecGlobContP1Always=1).phase1_first
