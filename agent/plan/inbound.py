"""Packets get a mark that tells the kernel's policies by which interface they came.

`xfrm_selector.ifindex` is compared with the outgoing interface, whatever the direction of the
policy, so of what arrives it tells nothing. A mark does: nftables writes it in prerouting,
behind whatever else marks packets there, and a policy asks for it. A packet that was
decrypted passes prerouting again, and one out of another kind of tunnel comes by that
tunnel's interface: both are marked anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from agent.plan.filtering import Chain, Part
from agent.plan.numbers import MARK_MASK, interface_mark

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
