"""Packets get a mark that tells the kernel's policies by which interface they came.

`xfrm_selector.ifindex` is compared with the outgoing interface, whatever the direction of the
policy, so of what arrives it tells nothing. A mark does: nftables writes it in prerouting,
behind whatever else marks packets there, and a policy asks for it. A packet that was
decrypted passes prerouting again, and one out of another kind of tunnel comes by that
tunnel's interface: both are marked anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from agent.plan.filtering import Chain, Part
from agent.plan.layered import Edit
from agent.plan.links import VirtualLink
from agent.plan.model import Capabilities, RowRef
from agent.plan.numbers import MARK_MASK, MARKED_INTERFACE_LAST, interface_mark
from agent.plan.peers import PEERS
from agent.plan.placing import Instance
from agent.plan.result import Filter
from agent.plan.spd import TRAFFIC
from agent.plan.state import OWN_ADDRESS, Made
from agent.plan.traffic import Rule

PART: Final = "inbound"
BEHIND_OTHERS: Final = 100  # on the hook: behind conntrack (-200), mangle (-150), dstnat (-100) and filter (0)
OTHERS: Final = MARK_MASK ^ 0xFFFF_FFFF


def marking(interfaces: Iterable[int]) -> Part:
    """What marks the packets that arrive by these interfaces, by index, and takes our marks off all others."""
    rules = [f"meta mark and {MARK_MASK:#x} != 0 meta mark set meta mark and {OTHERS:#x}"]
    rules += (
        f"iif {index} meta mark set meta mark and {OTHERS:#x} or {interface_mark(index):#x}"
        for index in sorted(interfaces)
    )
    return Part((Chain("inbound_mark", "prerouting", BEHIND_OTHERS, tuple(rules)),))


def told(rule: Rule, capabilities: Capabilities) -> bool:
    """Whether policies can tell what arrives for this rule: without marks none can for an interface."""
    return not rule.interface or capabilities.nftables


def wanted(
    bound: Mapping[int, tuple[Instance, ...]], made: Edit[Instance, Made], links: Mapping[int, VirtualLink]
) -> dict[str, Filter]:
    """Our part of the packet filter for the rules bound to interfaces (`State.bound`) and the virtual ones, by peer;
    and the rows that need it."""
    rows: dict[int, list[RowRef]] = {}
    for index, instances in bound.items():
        for instance in instances if index != OWN_ADDRESS else ():
            held = made.get(instance)
            if held is not None and any(policy.key.scope.mask for policy in held.policies):
                rows.setdefault(index, []).append(RowRef(TRAFFIC, instance[1]))
    for peer, link in links.items():
        if link.number <= MARKED_INTERFACE_LAST:
            rows.setdefault(link.number, []).append(RowRef(PEERS, peer))
    if not rows:
        return {}
    return {PART: Filter(marking(rows), frozenset(ref for refs in rows.values() for ref in refs))}
