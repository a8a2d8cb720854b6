"""How a dead peer is noticed: settings of the daemon's dead peer detection.

The vendor's heartbeats are proprietary, so DPD stands in: `expect` and `both` probe as often
as heartbeats would come, `send` only answers. In IKEv1 the peer is dead after a time without
answer, in IKEv2 after the retransmissions of ipsecGlobMaxRetries. charon has no liveness
per child: what the phase 2 profiles of a peer's rules ask for is joined with its phase 1
profile, and the strongest wish counts; a profile that leaves it to the default wishes
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from agent.plan.model import ViciValue

# ikePrfHeartbeats; ipsecPrfHeartbeats has the first six
NONE, EXPECT, SEND, BOTH, DEFAULT, AUTO, DPD, DPD_IDLE = 1, 2, 3, 4, 5, 6, 7, 8
UNSAID: Final = 0
STRENGTH: Final[Mapping[int, int]] = {UNSAID: 0, NONE: 1, SEND: 2, AUTO: 3, DPD: 3, DPD_IDLE: 3, EXPECT: 4, BOTH: 5}


class Probing(NamedTuple):
    """The globals, in seconds and numbers: ipsecGlobDPDIdleThreshold, ipsecGlobDPDMaxRetries,
    ipsecGlobDPDRetryTimeout, ipsecGlobContHeartbeatInterval, ipsecGlobContHeartbeatTolerance,
    ipsecGlobContMobikeFactor."""

    idle: int
    retries: int
    retry_timeout: int
    interval: int
    tolerance: int
    mobike_factor: int


def strongest(wishes: Iterable[int]) -> int:
    """Of heartbeat settings the one that counts; AUTO where nobody said any."""
    found = max(wishes, key=lambda wish: STRENGTH[wish], default=UNSAID)
    return AUTO if found == UNSAID else found


@lru_cache(maxsize=256)
def version1(probing: Probing, wish: int) -> Mapping[str, ViciValue]:
    """Keys of an IKEv1 connection. A time limit that is not beyond the first probe would end the SA at it."""
    if wish in (NONE, SEND):
        return {"dpd_delay": "0s", "dpd_timeout": "0s"}
    if wish in (EXPECT, BOTH):
        delay, patience = probing.interval, probing.interval * probing.tolerance
    else:
        delay, patience = probing.idle, probing.idle + probing.retries * probing.retry_timeout
    return {"dpd_delay": f"{delay}s", "dpd_timeout": f"{max(patience, delay + 1)}s"}


@lru_cache(maxsize=256)
def version2(probing: Probing, alive: bool, mobike: bool) -> Mapping[str, ViciValue]:
    """Keys of an IKEv2 connection; a peer that may move is probed less often."""
    delay = probing.idle * (probing.mobike_factor if mobike else 1) if alive else 0
    return {"dpd_delay": f"{delay}s", "mobike": "yes" if mobike else "no"}
