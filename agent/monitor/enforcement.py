"""What came up and must not stay: charon has no way to refuse it beforehand.

A child without compression where the proposal says `force` (charon falls back to plain
ESP), and an IKE SA through NAT where NAT-T is disabled (charon cannot hide that it knows
NAT-T), and a child that is ours to begin where the peer has begun it, and more flows of a
rule than we begin and the peer as many. MIB: ipsecPropIpcomp, ikePrfNatT, ikev2PrfNatT,
ipsecPeerTrafficPolicy, ipsecPrfGranularity.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from agent.backends.engine import IkeEvent, IkeEventKind
from agent.monitor.peers import PlanView
from agent.plan import numbers
from agent.plan.flows import MOST_FLOWS
from agent.plan.model import NO_FLOWS

UNCOMPRESSED: Final = "ended: the peer refuses compression, and ipsecPropIpcomp is force"
THROUGH_NAT: Final = "ended: NAT was found on the way, and NatT is disabled"
MOST_OF_BOTH: Final = 2 * MOST_FLOWS
TOO_MANY: Final = f"ended: its rule has {MOST_OF_BOTH} flows with SAs of their own"
NOT_THE_PEERS: Final = "ended: ipsecPeerTrafficPolicy is role-initiator, and the peer began it"


class Offence(NamedTuple):
    """Why an SA is ended: of a child by name, else an IKE SA by charon's unique id."""

    text: str
    child: str = ""
    ike_id: int = 0


def offence(event: IkeEvent, plan: PlanView | None) -> Offence | None:
    """What is wrong with an SA that has just come up or moved."""
    if plan is None or event.ike is None:
        return None
    if event.kind in (IkeEventKind.IKE_UP, IkeEventKind.IKE_UPDATE):
        connection = plan.connections.get(event.ike.connection)
        if connection is not None and not connection.nat and (event.ike.nat_local or event.ike.nat_remote):
            return Offence(THROUGH_NAT, ike_id=event.ike.unique_id)
    elif event.kind in (IkeEventKind.CHILD_UP, IkeEventKind.CHILD_REKEY) and event.child is not None:
        child = plan.children.get(numbers.rule_child(event.child.name))
        if child is not None and child.compressed and not event.child.ipcomp:
            return Offence(UNCOMPRESSED, child=event.child.name)
        new = event.kind is IkeEventKind.CHILD_UP and numbers.is_flow(event.child.name)
        if child is not None and new:
            flows = plan.environment.flows.get(child.name, NO_FLOWS)
            if event.child.name not in flows and len(flows) >= MOST_OF_BOTH:
                return Offence(TOO_MANY, child=event.child.name)
        begun = event.kind is IkeEventKind.CHILD_UP and not event.ike.initiator
        if child is not None and not child.answers and begun:
            return Offence(NOT_THE_PEERS, child=event.child.name)
    return None
