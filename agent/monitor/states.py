"""The state machine of a peer: what ipsecPeerStatOperStatus shows, as a table.

The MIB names the states (SEMANTICS of ipsecPeerStatOperStatus); what leads from one to the
next is ours. The table is data, so that the drawing in the documents is made from it (document.py)
and a test can ask every pair. What a transition starts (a negotiation, a timer) is peers.py's.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final


class Oper(enum.IntEnum):
    """ipsecPeerStatOperStatus, those that are reached."""

    UP = 1  # at least one tunnel stands
    DOWN = 2  # not usable: switched off, or its configuration cannot be made real
    DORMANT = 5  # usable, no tunnel, nothing under way
    BLOCKED = 6  # a negotiation failed; not tried before the block time is over
    IP_LOOKUP = 35  # its name has no address yet
    GOING_UP = 36  # phase 1 or 2 is being negotiated


class Happening(enum.Enum):
    """What may happen to a peer."""

    USABLE = "usable"  # switched on, and there is a connection for it
    UNUSABLE = "unusable"
    NAMELESS = "name unknown"  # its host name does not resolve
    STARTED = "we negotiate"
    CALLED = "the peer negotiates"
    TUNNEL_UP = "tunnel up"
    TUNNELS_GONE = "last tunnel gone"
    FAILED = "negotiation failed"
    BLOCK = "failed, block time set"
    TIME_UP = "time is up"
    DIALED = "an operator dials"


TRANSITIONS: Final[Mapping[tuple[Oper, Happening], Oper]] = {
    (Oper.DOWN, Happening.USABLE): Oper.DORMANT,
    (Oper.DOWN, Happening.NAMELESS): Oper.IP_LOOKUP,
    (Oper.DOWN, Happening.TUNNEL_UP): Oper.UP,  # found standing by a new agent, before the plan is made
    (Oper.IP_LOOKUP, Happening.USABLE): Oper.DORMANT,
    (Oper.IP_LOOKUP, Happening.UNUSABLE): Oper.DOWN,
    (Oper.IP_LOOKUP, Happening.TUNNEL_UP): Oper.UP,
    (Oper.DORMANT, Happening.UNUSABLE): Oper.DOWN,
    (Oper.DORMANT, Happening.NAMELESS): Oper.IP_LOOKUP,
    (Oper.DORMANT, Happening.STARTED): Oper.GOING_UP,
    (Oper.DORMANT, Happening.CALLED): Oper.GOING_UP,
    (Oper.DORMANT, Happening.TUNNEL_UP): Oper.UP,
    (Oper.GOING_UP, Happening.UNUSABLE): Oper.DOWN,
    (Oper.GOING_UP, Happening.TUNNEL_UP): Oper.UP,
    (Oper.GOING_UP, Happening.FAILED): Oper.DORMANT,
    (Oper.GOING_UP, Happening.BLOCK): Oper.BLOCKED,
    (Oper.GOING_UP, Happening.TIME_UP): Oper.DORMANT,
    (Oper.UP, Happening.UNUSABLE): Oper.DOWN,
    (Oper.UP, Happening.TUNNELS_GONE): Oper.DORMANT,
    (Oper.UP, Happening.BLOCK): Oper.BLOCKED,  # the last tunnel went, and the attempt to have it back had failed
    (Oper.BLOCKED, Happening.UNUSABLE): Oper.DOWN,
    (Oper.BLOCKED, Happening.CALLED): Oper.GOING_UP,  # only our own attempts are blocked
    (Oper.BLOCKED, Happening.TUNNEL_UP): Oper.UP,
    (Oper.BLOCKED, Happening.TIME_UP): Oper.DORMANT,
    (Oper.BLOCKED, Happening.DIALED): Oper.DORMANT,  # who asks for it by hand does not wait
}

MAY_START: Final = frozenset({Oper.DORMANT, Oper.UP})  # in these a negotiation may be begun by us


def after(state: Oper, happening: Happening) -> Oper:
    """The state that follows; the same one where the table has no entry."""
    return TRANSITIONS.get((state, happening), state)


def label(state: Oper) -> str:
    """As the MIB writes it: `going-up`."""
    return state.name.lower().replace("_", "-")
