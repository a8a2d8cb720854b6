"""IKE SAs that the agent renews or ends itself: by a clock, a count, a link and ICMP."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from agent.backends.engine import ChildSa, IkeEvent, IkeEventKind, IkeSa
from agent.backends.lookout import NoLookout, Sight, Watcher
from agent.backends.memory import MemoryIke
from agent.monitor.peers import Peers
from agent.monitor.phase1 import Phase1
from agent.monitor.renewals import LEAD_SECONDS, MOVING_SECONDS, victims
from agent.monitor.sas import Registry
from agent.monitor.states import Oper
from agent.plan import numbers
from agent.plan.model import Child, Connection
from agent.plan.upkeep import Upkeep
from agent.store.snapshot import Configuration
from tests.planned import Planned

OURS, THEIRS = b"\x0a\x08\0\x01", b"\x0a\x08\0\x02"


class Wire(NoLookout):
    """One that sees what it is told."""

    def __init__(self) -> None:
        self.watchers: list[Watcher] = []
        self.counts: dict[bytes, int] = {}

    def octets(self, initiator_spi: bytes) -> int:
        return self.counts.get(initiator_spi, 0)

    def subscribe(self, watcher: Watcher) -> None:
        self.watchers.append(watcher)

    def see(self, sight: Sight) -> None:
        for watcher in self.watchers:
            watcher(sight)


@dataclass
class Scalars:
    values: dict[str, int] = field(
        default_factory=lambda: {
            "ipsecGlobMaxIkeSas": 512,
            "ipsecGlobContMaxIkev2Sas": 512,
            "ipsecGlobContSaSyncInterface": 2,
            "ipsecGlobTrustIcmpMsg": 2,
            "ipsecGlobContP1Always": 2,
        }
    )

    def scalar(self, name: str) -> int:
        return self.values[name]


class Bench:
    def __init__(self) -> None:
        self.now = 100.0
        self.ike, self.wire, self.scalars = MemoryIke(), Wire(), Scalars()
        self.upkeep = Upkeep()
        self.registry = Registry(lambda: self.now)
        self.given_up: list[int] = []
        self.peers = Peers(
            lambda child, connection, why: None,
            self.registry.stands,
            lambda peer: None,
            lambda: self.now,
            give_up=self.given_up.append,
        )
        self.phase1 = Phase1(
            self.registry,
            self.peers,
            self.ike,
            self.wire,
            begin,
            lambda: cast(Configuration, self.scalars),
            lambda peer: self.upkeep,
            lambda: self.now,
        )

    def up(self, peer: int = 1, unique: int = 1, **fields: Any) -> IkeSa:
        known = {"reauth_in": 600, "initiator_spi": bytes([unique] * 8), **fields}
        sa = replace(IkeSa(f"peer-{peer}", unique, 1, "ESTABLISHED", OURS, THEIRS), **known)
        self.tell(IkeEventKind.IKE_UP, sa)
        return sa

    def tell(self, kind: IkeEventKind, sa: IkeSa, child: ChildSa | None = None, old: ChildSa | None = None) -> None:
        event = IkeEvent(kind, ike=sa, child=child, old_child=old, connection=sa.connection)
        self.registry.event(event)
        self.phase1.event(event)

    def later(self, seconds: float) -> list[tuple[str, ...]]:
        """What has been asked of charon so far."""
        self.now += seconds
        self.phase1.look()
        return self.ike.calls


def begin(request: Coroutine[Any, Any, None]) -> None:
    asyncio.run(request)


def child(unique: int = 1, **fields: Any) -> ChildSa:
    found = ChildSa("peer-1-rule-1", unique, numbers.REQID_FIRST, "INSTALLED", 1, 50, bytes([0, 0, 1, unique]), b"abcd")
    return replace(found, **fields)


# ---- renewals ---------------------------------------------------------------------------


def test_identity_pfs_renews_phase_1_some_seconds_after_each_phase_2() -> None:
    bench = Bench()
    bench.upkeep = Upkeep(fresh_identity=True, delay=8)
    sa = bench.up()
    bench.tell(IkeEventKind.CHILD_UP, sa, child())
    assert bench.later(7.9) == []
    assert bench.later(0.1) == [("renew", "1")]
    assert bench.later(60) == [("renew", "1")], "once for each"
    sa = bench.up(unique=2)
    bench.tell(IkeEventKind.IKE_DOWN, replace(sa, unique_id=1))
    bench.tell(IkeEventKind.CHILD_REKEY, sa, child(2), child(1))
    assert bench.later(8) == [("renew", "1"), ("renew", "2")]


def test_without_it_and_in_version_2_nothing_is_renewed() -> None:
    bench = Bench()
    bench.tell(IkeEventKind.CHILD_UP, bench.up(), child())
    bench.upkeep = Upkeep(fresh_identity=True)
    bench.tell(IkeEventKind.CHILD_UP, bench.up(unique=2, version=2), child(2))
    assert bench.later(60) == []


def test_phase_1_first_renews_it_before_phase_2_is_due() -> None:
    bench = Bench()
    bench.upkeep, bench.scalars.values["ipsecGlobContP1Always"] = Upkeep(phase1_first=True), 1
    sa = bench.up()
    bench.tell(IkeEventKind.CHILD_UP, sa, child(rekey_in=LEAD_SECONDS + 1))
    assert bench.later(1) == []
    bench.tell(IkeEventKind.CHILD_UP, sa, child(rekey_in=LEAD_SECONDS))
    assert bench.later(0) == [("renew", "1")]
    assert bench.later(1) == [("renew", "1")], "once for each phase 2"
    fresh = bench.up(unique=2)
    bench.tell(IkeEventKind.IKE_DOWN, sa)
    bench.tell(IkeEventKind.CHILD_REKEY, fresh, child(2), child(1))
    assert bench.later(1) == [("renew", "1")], "this one had its fresh phase 1"
    bench.tell(IkeEventKind.CHILD_REKEY, fresh, child(3), child(2))
    assert bench.later(1) == [("renew", "1"), ("renew", "2")], "by volume: just after"


def test_phase_1_is_renewed_after_so_many_kilobytes_of_1000_octets() -> None:
    bench = Bench()
    bench.upkeep = Upkeep(kilobytes=2)
    bench.up(unique=7)
    bench.wire.counts[bytes([7] * 8)] = 1999
    assert bench.later(1) == []
    bench.wire.counts[bytes([7] * 8)] = 2000
    assert bench.later(1) == [("renew", "7")]
    assert bench.later(1) == [("renew", "7")]


# ---- how many ---------------------------------------------------------------------------


def test_the_one_that_expires_first_goes_then_the_longest_idle() -> None:
    bench = Bench()
    for peer, left, used in ((1, 0, 5.0), (2, 0, 3.0), (3, 300, 9.0), (4, 500, 1.0)):
        bench.up(peer, peer, reauth_in=left)
        bench.registry.ike[peer].used = used
    rows = list(bench.registry.ike.values())
    assert [row.peer for row in victims(rows, 0, 200.0)] == [3, 4, 2, 1]
    assert [row.peer for row in victims(rows, 3, 200.0)] == [3]
    assert victims(rows, 4, 200.0) == []


def test_what_is_just_being_replaced_is_not_counted() -> None:
    """A renewal has two IKE SAs for a moment, and the children are still at the old one."""
    bench = Bench()
    bench.up(1, 1)
    bench.up(1, 2)
    rows = list(bench.registry.ike.values())
    assert victims(rows, 1, bench.now + 1) == []
    assert [row.sa.unique_id for row in victims(rows, 1, bench.now + MOVING_SECONDS + 1)] == [1]


@pytest.mark.parametrize(("version", "scalar"), [(1, "ipsecGlobMaxIkeSas"), (2, "ipsecGlobContMaxIkev2Sas")])
def test_the_number_of_ike_sas_is_kept_by_version(version: int, scalar: str) -> None:
    bench = Bench()
    bench.scalars.values[scalar] = 1
    bench.up(1, 11, version=version)
    bench.up(3, 13, version=3 - version)
    assert bench.later(1) == []
    bench.up(2, 12, version=version, reauth_in=900)
    assert bench.later(1) == [("terminate", "", "", "11")]
    assert bench.later(1) == [("terminate", "", "", "11")], "asked once"
    assert scalar in bench.peers.error(1)


# ---- links and ICMP ---------------------------------------------------------------------


def test_sas_end_with_the_interface_they_went_over_where_that_is_wanted() -> None:
    bench = Bench()
    bench.up(1, 1)
    bench.up(2, 2, local=b"\x0a\x09\0\x01")
    bench.wire.see(Sight(stopped=frozenset({OURS})))
    assert bench.ike.calls == []
    bench.scalars.values["ipsecGlobContSaSyncInterface"] = 1
    bench.wire.see(Sight(stopped=frozenset({OURS})))
    assert bench.ike.calls == [("terminate", "", "", "1")]
    assert "10.8.0.1 went down" in bench.peers.error(1) and not bench.peers.error(2)


def trying(bench: Bench) -> None:
    own = Child("peer-1-rule-1", 1, 1, numbers.REQID_FIRST)
    connection = Connection("peer-1", 1, {"remote_addrs": ["10.8.0.2"]}, (own,))
    bench.peers.enable(True)
    bench.peers.planned(Planned(1, {"peer-1": connection}, {own.name: own}), {1})
    bench.peers.acquire(own.reqid)
    assert bench.peers.state(1) is Oper.GOING_UP


def test_icmp_ends_a_negotiation_at_once_where_it_is_trusted() -> None:
    bench = Bench()
    trying(bench)
    sight = Sight(unreachable=THEIRS, reason="port unreachable")
    bench.wire.see(sight)
    assert not bench.given_up
    bench.scalars.values["ipsecGlobTrustIcmpMsg"] = 1
    bench.wire.see(Sight(unreachable=OURS, reason="port unreachable"))
    assert not bench.given_up
    bench.wire.see(sight)
    bench.wire.see(sight)
    assert bench.given_up == [1]
    bench.peers.initiated(1, "peer-1-rule-1", "no answer from the peer")
    assert bench.peers.error(1) == "no answer from the peer (port unreachable, ipsecGlobTrustIcmpMsg)"


def test_icmp_does_not_end_one_that_has_been_answered() -> None:
    bench = Bench()
    bench.scalars.values["ipsecGlobTrustIcmpMsg"] = 1
    trying(bench)
    answered = IkeSa("peer-1", 1, 1, "CONNECTING", OURS, THEIRS, responder_spi=bytes(7) + b"\x01")
    bench.registry.finish_list(bench.registry.begin_list(), [answered])
    bench.wire.see(Sight(unreachable=THEIRS, reason="port unreachable"))
    assert not bench.given_up
