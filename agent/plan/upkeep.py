"""What of a peer's effective profile is not told to the IKE daemon, because the monitor does it itself.

Resolved as the rest of a profile is (EFFECTS: own row, global row, built in), but when it is
needed: a changed block time disturbs no connection and needs no new plan.
MIB: ikePrfBlockTime, ikev2PrfBlockTime, ikePrfPfsIdentity, ikePrfLifeKBytes, ikePrfLifePolicy and the globals beside
them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from agent.plan import cells
from agent.plan.lifetimes import INHERIT_LIFE, LOOSE
from agent.plan.model import ConfigurationView, RowView
from agent.plan.resolution import first

PEERS: Final = "ipsecPeerTable"
IKEV1, IKEV2 = 1, 2  # ipsecPeerIkeVersion
TRUE: Final = 1
ENABLED: Final = 1  # ipsecGlobContP1Always
INHERIT_BLOCK: Final = -1
INHERIT_FLAG: Final = 3
PROFILES: Final = {
    IKEV1: ("ikeProfileTable", "ipsecGlobIkeProfile", "ikePrfBlockTime"),
    IKEV2: ("ikev2ProfileTable", "ipsecGlobContIkev2Profile", "ikev2PrfBlockTime"),
}


class Upkeep(NamedTuple):
    """`block`: seconds a peer is not tried after a failure, 0 never; `patience`: seconds for a negotiation of ours;
    `limit`: the object that `patience` comes from; `fresh_identity`: phase 1 is renewed after each phase 2, `delay`
    seconds later; `phase1_first`: and before each renewal of phase 2; `kilobytes`: phase 1 is renewed after so many,
    0 for no limit; `policy`: ikePrfLifePolicy of phase 1, never use-default-lifetime."""

    block: int = 0
    patience: int = 300
    limit: str = "ipsecGlobMaxNegotiationTimeoutsec"
    fresh_identity: bool = False
    delay: int = 8
    phase1_first: bool = False
    kilobytes: int = 0
    policy: int = LOOSE


class Upkeeps:
    """Of one configuration, each profile resolved once."""

    def __init__(self, configuration: ConfigurationView) -> None:
        self._configuration = configuration
        self._known: dict[tuple[int, int], Upkeep] = {}

    def of(self, peer: int) -> Upkeep:
        """Of a peer's row; built-in values and the global profile for one that is not there."""
        row = self._configuration.row(PEERS, peer)
        if row is None:
            key = (IKEV1, 0)
        else:
            key = (cells.number(row, "ipsecPeerIkeVersion"), cells.number(row, "ipsecPeerIkeProfile"))
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = upkeep(self._configuration, *key)
        return found


def upkeep(configuration: ConfigurationView, version: int, profile: int) -> Upkeep:
    """Of peers with this ipsecPeerIkeVersion and ipsecPeerIkeProfile."""
    table, global_pointer, block_column = PROFILES.get(version, PROFILES[IKEV1])
    own = _row(configuration, table, profile)
    usual = _row(configuration, table, _scalar(configuration, global_pointer))
    rows = (own, usual)
    block = first(rows, block_column, (INHERIT_BLOCK,), 0)
    limit = "ipsecGlobBlockTimeout" if block else "ipsecGlobMaxNegotiationTimeoutsec"
    found = Upkeep(block=block, patience=max(1, _scalar(configuration, limit)), limit=limit)
    if version != IKEV1:
        return found
    usually = _scalar(configuration, "ipsecGlobContDefaultPfsIdentity")
    lives = own if own is not None else usual
    if lives is not None and cells.number(lives, "ikePrfLifePolicy") == INHERIT_LIFE:
        lives = usual
    policy = cells.number(lives, "ikePrfLifePolicy") if lives is not None else LOOSE
    return found._replace(
        fresh_identity=first(rows, "ikePrfPfsIdentity", (INHERIT_FLAG,), usually) == TRUE,
        delay=max(0, _scalar(configuration, "ipsecGlobContPfsIdentityDelay")),
        phase1_first=_scalar(configuration, "ipsecGlobContP1Always") == ENABLED,
        kilobytes=cells.number(lives, "ikePrfLifeKBytes") if lives is not None else 0,
        policy=LOOSE if policy == INHERIT_LIFE else policy,
    )


def _row(configuration: ConfigurationView, table: str, number: int) -> RowView | None:
    return configuration.row(table, number) if number else None


def _scalar(configuration: ConfigurationView, name: str) -> int:
    value = configuration.scalar(name)
    assert isinstance(value, int)
    return value
