"""ipsecPeerTrafficPolicy: who may begin the child of a selector."""

from __future__ import annotations

import pytest

from agent.backends.engine import ChildSa, IkeEvent, IkeEventKind, IkeSa
from agent.monitor.enforcement import NOT_THE_PEERS, offence
from agent.monitor.peers import Peers
from agent.plan.model import Child
from agent.plan.planner import make_plan
from agent.plan.result import Plan
from tests.plan_helpers import configuration, environment, packed

INITIATOR, RESPONDER, BOTH, INITIATOR_ROUTED, BOTH_ROUTED = 2, 3, 4, 5, 6
NAME = "peer-7-rule-1"


def plan_with(role: int) -> Plan:
    made = configuration({7: []}, peers={7: {"ipsecPeerVirtualInterface": 2}})
    made.put(
        "ipsecPeerTrafficTable",
        1,
        ipsecPeerTrafficIfindex=100_007,
        ipsecPeerTrafficLocalAddress=packed("10.1.0.0"),
        ipsecPeerTrafficLocalMask=packed("255.255.0.0"),
        ipsecPeerTrafficProtocol=256,
        ipsecPeerTrafficPolicy=role,
    )
    return make_plan(made, environment())


def begun(plan: Plan) -> list[str]:
    """Children that are asked for when a packet wants them."""
    asked: list[str] = []
    peers = Peers(lambda child, *_: asked.append(child), lambda peer, child: False, lambda peer: None, lambda: 0.0)
    peers.enable(True)
    peers.planned(plan, {7})
    child: Child = plan.children[NAME]
    peers.acquire(child.reqid)
    return asked


@pytest.mark.parametrize(
    ("role", "asked"),
    [(INITIATOR, [NAME]), (RESPONDER, []), (BOTH, [NAME]), (INITIATOR_ROUTED, [NAME]), (BOTH_ROUTED, [NAME])],
)
def test_what_is_the_peers_to_begin_is_never_begun_by_us(role: int, asked: list[str]) -> None:
    assert begun(plan_with(role)) == asked


def came_up(*, ours: bool, kind: IkeEventKind = IkeEventKind.CHILD_UP) -> IkeEvent:
    ike = IkeSa("peer-7", 1, 1, "ESTABLISHED", packed("192.0.2.1"), packed("198.51.100.7"), initiator=ours)
    child = ChildSa(NAME, 2, 65536, "INSTALLED", 1, 50, b"\0\0\0\1", b"\0\0\0\2")
    return IkeEvent(kind, ike=ike, child=child)


@pytest.mark.parametrize(
    ("role", "ended"),
    [(INITIATOR, True), (RESPONDER, False), (BOTH, False), (INITIATOR_ROUTED, True), (BOTH_ROUTED, False)],
)
def test_what_is_ours_to_begin_is_ended_when_the_peer_began_it(role: int, ended: bool) -> None:
    found = offence(came_up(ours=False), plan_with(role))
    assert (found is not None and found.text == NOT_THE_PEERS and found.child == NAME) is ended
    assert offence(came_up(ours=True), plan_with(role)) is None
    assert offence(came_up(ours=False, kind=IkeEventKind.CHILD_REKEY), plan_with(role)) is None
