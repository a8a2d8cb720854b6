"""The policies are asked again about the gateway's own IPv6 packets, once it is known by which interface they leave.

Of an IPv6 packet made here the kernel asks them first while the route is being looked up,
without an interface (net/ipv6/ip6_output.c; of IPv4 it has one by then), so that policies about
an interface are passed over. A chain of type `route` that changes a packet's mark has the route
looked up anew and the policies asked again, now with the interface (ip6_route_me_harder), and
what they say then counts: drop, another tunnel, or none. What the first answer refused is gone
already. A mark of our own says that a packet has been asked about.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from agent.plan.connections import address_text
from agent.plan.daemon import NAT_T_PORT
from agent.plan.filtering import PRIORITY_MANGLE, Chain, Part
from agent.plan.inbound import OTHERS
from agent.plan.layered import Edit
from agent.plan.links import VirtualLink
from agent.plan.model import Direction, PolicyKey, RowRef
from agent.plan.numbers import MARK_MASK, MARK_OWN
from agent.plan.peers import PEERS
from agent.plan.placing import Instance
from agent.plan.result import Filter
from agent.plan.spd import AH, ESP, IPCOMP, TRAFFIC
from agent.plan.state import OWN_ADDRESS, Made

PART: Final = "outbound"
BEFORE_MANGLE: Final = PRIORITY_MANGLE - 10  # who looks at the tunnel a packet takes, or marks it, comes behind
LOOPBACK: Final = 1  # by it "leaves" what waits for a tunnel (ip6_blackhole_route)
IPIP, IPV6 = 4, 41  # what compression in tunnel mode makes of what is too small for it


def asking_again(interfaces: Iterable[int], ike_port: int, sources: Iterable[bytes] = ()) -> Part:
    """The chain, for packets that leave by these interfaces, by index, or from these addresses, or by a tunnel that the
    first answer chose.

    Left alone is what always passes (neighbour discovery, our own IKE and ESP), and what is between two tunnels that
    policies of somebody else put into each other: looked up anew, it would leave them."""
    indices = ", ".join(map(str, sorted({LOOPBACK, *interfaces})))
    elsewhere = f"rt ipsec missing oif != {{ {indices} }}"
    if texts := ", ".join(address_text(one) for one in sorted(sources)):
        elsewhere += f" ip6 saddr != {{ {texts} }}"
    rules = (
        "meta nfproto != ipv6 accept",
        f"meta mark and {MARK_MASK:#x} == {MARK_OWN:#x} accept",
        f"meta l4proto {{ {ESP}, {AH}, {IPCOMP} }} accept",
        f"rt ipsec exists meta l4proto {{ {IPIP}, {IPV6} }} accept",
        "icmpv6 type 133-137 accept",
        *(f"udp sport {port} accept" for port in sorted({ike_port, NAT_T_PORT})),
        f"{elsewhere} accept",
        f"meta mark set meta mark and {OTHERS:#x} or {MARK_OWN:#x}",
    )
    return Part((Chain("outbound_own6", "output", BEFORE_MANGLE, rules, "route"),))


def wanted(
    bound: Mapping[int, tuple[Instance, ...]],
    made: Edit[Instance, Made],
    links: Mapping[int, VirtualLink],
    ike_port: int,
) -> dict[str, Filter]:
    """Our part of the packet filter for IPv6 rules bound to interfaces (`State.bound`) and the virtual ones, by peer;
    and the rows that need it."""
    rows: dict[int, list[RowRef]] = {link.number: [RowRef(PEERS, peer)] for peer, link in links.items()}
    for index, instances in bound.items():
        for instance in instances if index != OWN_ADDRESS else ():
            held = made.get(instance)
            if held is not None and any(_is_asked_late(key) for key in (policy.key for policy in held.policies)):
                rows.setdefault(index, []).append(RowRef(TRAFFIC, instance[1]))
    if not rows:
        return {}
    sources = {own.address for link in links.values() for own in link.addresses if len(own.address) == 16}
    part = asking_again(rows, ike_port, sources)
    return {PART: Filter(part, frozenset(ref for refs in rows.values() for ref in refs))}


def _is_asked_late(key: PolicyKey) -> bool:
    return key.direction is Direction.OUT and key.scope.interface > 0 and len(key.selector.source.address) == 16
