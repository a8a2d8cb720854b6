"""SAs that come up and must not stay, and charon's word of one that moved."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.backends.charon.messages import child_sa, events_of
from agent.backends.engine import ChildSa, IkeEvent, IkeEventKind, IkeSa
from agent.monitor.enforcement import MOST_OF_BOTH, THROUGH_NAT, TOO_MANY, UNCOMPRESSED, Offence, offence
from agent.monitor.peers import PlanView
from agent.plan.flows import observed_name
from agent.plan.model import Child, Connection, Environment, Tunnel
from tests.planned import Planned

NAME = "peer-1-rule-4"


def plan(*, compressed: bool = False, nat: bool = True) -> PlanView:
    one = Child(NAME, 1, 4, 65536, compressed)
    return Planned(1, connections={"peer-1": Connection("peer-1", 1, {}, (one,), nat=nat)}, children={NAME: one})


def ike(**fields: bool) -> IkeSa:
    return IkeSa("peer-1", 7, 2, "ESTABLISHED", b"\1\1\1\1", b"\2\2\2\2", **cast(Any, fields))


def child(ipcomp: bool) -> ChildSa:
    return ChildSa(NAME, 3, 65536, "INSTALLED", 1, 50, b"\0\0\0\1", b"\0\0\0\2", ipcomp)


@pytest.mark.parametrize("kind", [IkeEventKind.CHILD_UP, IkeEventKind.CHILD_REKEY])
@pytest.mark.parametrize("ipcomp", [True, False])
@pytest.mark.parametrize("compressed", [True, False])
def test_without_forced_compression_a_child_is_ended(kind: IkeEventKind, ipcomp: bool, compressed: bool) -> None:
    event = IkeEvent(kind, ike=ike(), child=child(ipcomp))
    expected = Offence(UNCOMPRESSED, child=NAME) if compressed and not ipcomp else None
    assert offence(event, plan(compressed=compressed)) == expected


@pytest.mark.parametrize("kind", [IkeEventKind.IKE_UP, IkeEventKind.IKE_UPDATE])
@pytest.mark.parametrize("side", ["nat_local", "nat_remote", ""])
@pytest.mark.parametrize("allowed", [True, False])
def test_where_nat_is_disabled_an_sa_through_nat_is_ended(kind: IkeEventKind, side: str, allowed: bool) -> None:
    event = IkeEvent(kind, ike=ike(**({side: True} if side else {})))
    expected = Offence(THROUGH_NAT, ike_id=7) if side and not allowed else None
    assert offence(event, plan(nat=allowed)) == expected


def test_nothing_is_ended_that_is_not_planned() -> None:
    assert offence(IkeEvent(IkeEventKind.IKE_UP, ike=ike(nat_local=True)), None) is None
    other = SimpleNamespace(connections={}, children={}, generation=1, verdicts={}, takeovers={})
    assert offence(IkeEvent(IkeEventKind.CHILD_UP, ike=ike(), child=child(False)), cast(PlanView, other)) is None


@pytest.mark.parametrize(("standing", "ended"), [(MOST_OF_BOTH - 1, False), (MOST_OF_BOTH, True)])
def test_of_more_flows_than_both_sides_may_begin_the_newest_is_ended(standing: int, ended: bool) -> None:
    """ipsecPrfGranularity: the peer may begin as many as we do."""
    flows = {flow_of(n).name: Tunnel(flow_of(n).name, b"", b"", 1, 50, reqid=n) for n in range(1, standing + 1)}
    there = replace(cast(Planned, plan()), environment=Environment(flows={NAME: flows}))
    expected = Offence(TOO_MANY, child=flow_of(9999).name) if ended else None
    assert offence(IkeEvent(IkeEventKind.CHILD_UP, ike=ike(), child=flow_of(9999)), there) == expected
    known = replace(flow_of(1), unique_id=77)  # another SA pair of one that stands
    assert offence(IkeEvent(IkeEventKind.CHILD_UP, ike=ike(), child=known), there) is None


def flow_of(number: int) -> ChildSa:
    """As charon tells of it, which knows it by the name of its rule's child."""
    local = f"10.1.{number >> 8}.{number & 255}/32"
    return child_sa({"name": NAME, "reqid": str(number), "local-ts": [local], "remote-ts": ["10.2.0.7/32[tcp/http]"]})


def test_charons_names_of_ports_are_numbers_to_us_and_an_allotted_reqid_means_a_flow() -> None:
    found = flow_of(3)
    assert found.remote_selectors == ("10.2.0.7/32[tcp/80]",)
    assert found.name == observed_name(NAME, ["10.1.0.3/32"], ["10.2.0.7/32[6/80]"])
    assert child_sa({"name": NAME, "reqid": "65536", "local-ts": ["10.1.0.0/16"]}).name == NAME
    assert child_sa({"name": "somebody-else", "reqid": "3"}).name == "somebody-else"
    assert child_sa({"name": NAME, "local-ts": ["10.1.0.0/16[icmp/8(0)]", "dynamic[udp/x-y]"]}).local_selectors == (
        "10.1.0.0/16[icmp/8(0)]",
        "dynamic[udp/x-y]",
    )


def test_an_sa_that_moved_is_where_charon_says_it_is_now() -> None:
    message = {
        "local-host": "192.0.2.129",
        "local-port": "4500",
        "remote-host": "198.51.100.1",
        "remote-port": "4500",
        "peer-1": {"uniqueid": "7", "version": "2", "local-host": "192.0.2.1", "remote-host": "198.51.100.1"},
    }
    (event,) = events_of("ike-update", message)
    assert event.kind is IkeEventKind.IKE_UPDATE and event.ike is not None
    assert (event.ike.local, event.ike.local_port) == (bytes((192, 0, 2, 129)), 4500)
    assert event.ike.remote == bytes((198, 51, 100, 1))
