"""Our number spaces: what in kernel and IKE daemon is ours is told by nothing else.

The reconciler, `flush` and the boot loader remove only what lies in these ranges or bears
these names, so they are shared and never narrowed: an older agent's leavings must still be
recognised. Priorities are 32 bits, lower ones are looked at first; policies of others
(an administrator's with 0, other daemons' with some 100,000) come before all of ours.
"""

from __future__ import annotations

import re
from typing import Final

# ---- policy indices -------------------------------------------------------------------
# The kernel numbers policies 8, 16, 24 … when the caller names no index, and demands that the low three bits are the
# direction (0 in, 1 out, 2 fwd; 3 and 4 are socket policies). The upper half of the positive numbers is out of the
# counter's reach (134 million policies) and positive wherever somebody prints it as an int.
POLICY_INDEX_FIRST: Final = 0x4000_0000
POLICY_INDEX_LAST: Final = 0x7FFF_FFFF

# ---- priorities -----------------------------------------------------------------------
PRIORITY_EXEMPTION: Final = 0x1000_0000  # neighbour discovery, loopback, our own IKE and ESP; all pass, so one number
PRIORITY_ALWAYS_PLAIN: Final = 0x1800_0000  # all pass, so one number
PRIORITY_PRE: Final = 0x2000_0000  # + PLACE_WIDTH times the label; see agent.plan.order
PRIORITY_INTERFACES: Final = 0x3FFF_FFFF  # routed to a virtual interface; behind the last of the pre list
PRIORITY_PEERS: Final = 0x4000_0000  # + PLACE_WIDTH times the label
PRIORITY_COMPANIONS: Final = 0x6000_0000  # + PLACE_WIDTH times the label; companions of peers' rules, behind all these
PRIORITY_CAME: Final = 0x7FFF_FFFF  # came out of a virtual interface; behind the last of the peers
PRIORITY_POST: Final = 0x8000_0000  # + PLACE_WIDTH times the label
PRIORITY_DEFAULT: Final = 0xF000_0000

# A label has room for the rule itself and, before it, for companions of earlier rules that must not fall behind it
# (those come before drop rules only), or for the flows of a protect rule that have SAs of their own, and the part of it
# that asks for such SAs (see agent.plan.flows).
PLACE_WIDTH: Final = 4
PLACE_COMPANION: Final = 0
PLACE_FLOW: Final = 0
PLACE_ASKING: Final = 1
PLACE_RULE: Final = 2

LABELS: Final = (PRIORITY_COMPANIONS - PRIORITY_PEERS) // PLACE_WIDTH  # labels in each of the four: 0 … LABELS - 1
LABEL_STEP: Final = 1024  # distance of neighbours at first: ten rules go in between before anything is numbered anew

# ---- request ids ----------------------------------------------------------------------
# charon 5.9.8 counts the reqids it allots itself from 1 upward and has no option to begin elsewhere: the SAs of flows
# (agent.plan.flows) have them, one for each selector. Ours all come from the configuration, and start where its counter
# does not get.
REQID_FIRST: Final = 0x0001_0000
REQID_LAST: Final = 0x3FFF_FFFF

# ---- marks of packets -----------------------------------------------------------------
# By which interface a packet came, the kernel's policies can only tell by its mark: our packet filter writes the
# interface's index into these bits and leaves the lower twelve, which are enough for policy routing, to others.
MARK_MASK: Final = 0xFFFF_F000
MARK_SHIFT: Final = 12
MARKED_INTERFACE_LAST: Final = (MARK_MASK >> MARK_SHIFT) - 1
MARK_OWN: Final = MARK_MASK  # of IPv6 packets made here that the policies were asked about again (outbound.py)

# ---- names ----------------------------------------------------------------------------
NFT_TABLE: Final = "ipsec_agent"  # family inet

# ---- links and routes -----------------------------------------------------------------
# The kernel numbers links from 1 on, so those of a running host stay far below. A virtual interface's number is its
# XFRM interface id too.
INTERFACE_BASE: Final = 100_000  # + the peer's number (ipsecPeerVirtualInterface)
LAST_WITH_INTERFACE: Final = 0x7FFF_FFFF - INTERFACE_BASE
ROUTE_PROTOCOL: Final = 196  # of routes, routing rules, addresses; 5 to 254 are the routing programs' (rtnetlink(7))

# Routing rules are asked in the order of their preferences: the local table at 0, the main one at 32766. Those that
# leave packets to the main table come before those that lead to virtual interfaces.
RULE_PREFERENCE_OUTSIDE: Final = 19_999
RULE_PREFERENCE_FIRST: Final = 20_000
RULE_PREFERENCE_LAST: Final = 28_191
MOST_RULES: Final = 2_048  # the kernel looks at one after the other; a quarter, so that there is room to move all

MOST_PEER_IDS: Final = 8  # alternatives in ipsecPeerPeerIds, each a connection of its own

_CONNECTION: Final = re.compile(r"peer-([1-9][0-9]{0,9})(?:-i([2-8]))?(-r)?")
_CHILD: Final = re.compile(r"(peer-([1-9][0-9]{0,9})-rule-(0|[1-9][0-9]{0,9}))(-flow-[0-9a-f]{8}|-asks-[1-7])?")
_SECRET: Final = re.compile(r"psk-([1-9][0-9]{0,9})")


def connection_name(peer: int, *, identity: int = 1, responder: bool = False) -> str:
    """`peer-<n>`; of its further identities `peer-<n>-i<k>`, k from 2; with -r those that only answer in the other
    phase 1 mode."""
    return f"peer-{peer}" + (f"-i{identity}" if identity > 1 else "") + ("-r" if responder else "")


def child_name(peer: int, rule: int) -> str:
    """Rule 0 is all rules of the peer."""
    return f"peer-{peer}-rule-{rule}"


def flow_name(child: str, digest: str) -> str:
    """`peer-<n>-rule-<m>-flow-<digest>`: of the SAs that one flow of a child's rule has to itself; eight hex digits."""
    return f"{child}-flow-{digest}"


def asking_names(child: str) -> tuple[str, ...]:
    """`peer-<n>-rule-<m>-asks-<k>`: further reqids by which packets ask for SAs of flows of a child."""
    return tuple(f"{child}-asks-{place}" for place in range(1, 8))


def rule_child(name: str) -> str:
    """The child a name stands for, without the flow; '' when it is none of ours."""
    match = _CHILD.fullmatch(name)
    return match[1] if match else ""


def is_flow(name: str) -> bool:
    match = _CHILD.fullmatch(name)
    return match is not None and match[4] is not None and match[4].startswith("-flow")


def secret_id(peer: int) -> str:
    return f"psk-{peer}"


def interface_mark(index: int) -> int:
    """Mark of the packets that came by the interface with this index, under MARK_MASK."""
    return index << MARK_SHIFT


def credential_id(kind: str, number: int) -> str:
    """`ca-<n>`, `cert-<n>`, `key-<n>`."""
    return f"{kind}-{number}"


def peer_of_connection(name: str) -> int:
    """Number of the peer a connection belongs to; 0 when it is none of ours."""
    match = _CONNECTION.fullmatch(name)
    return int(match[1]) if match else 0


def peer_and_rule_of_child(name: str) -> tuple[int, int]:
    """(peer, rule) of a child, or of a flow; (0, 0) when it is none of ours."""
    match = _CHILD.fullmatch(name)
    return (int(match[2]), int(match[3])) if match else (0, 0)


def peer_of_secret(id: str) -> int:
    """Number of the peer a shared secret belongs to; 0 when it is none of ours."""
    match = _SECRET.fullmatch(id)
    return int(match[1]) if match else 0


def interface_number(peer: int) -> int:
    """Number of a peer's virtual interface, which is its XFRM interface id too."""
    return INTERFACE_BASE + peer


def interface_name(peer: int) -> str:
    """`ipsec7`, at most 15 characters."""
    return f"ipsec{peer}"


def is_our_interface(index: int, if_id: int) -> bool:
    """Whether an XFRM interface is one of ours."""
    return index == if_id > INTERFACE_BASE


def is_our_connection(name: str) -> bool:
    return _CONNECTION.fullmatch(name) is not None


def is_our_child(name: str) -> bool:
    return _CHILD.fullmatch(name) is not None


def is_our_secret(id: str) -> bool:
    return _SECRET.fullmatch(id) is not None


def is_our_index(index: int) -> bool:
    return POLICY_INDEX_FIRST <= index <= POLICY_INDEX_LAST


def is_our_reqid(reqid: int) -> bool:
    return REQID_FIRST <= reqid <= REQID_LAST


def is_allotted_reqid(reqid: int) -> bool:
    """Whether charon may have allotted it. Others on this host may use such numbers too."""
    return 0 < reqid < REQID_FIRST
