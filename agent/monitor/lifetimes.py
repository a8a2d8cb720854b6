"""Strict lifetimes: a tunnel whose peer offered another lifetime than ours is ended.

charon takes any lifetime and only writes a line to its log, before the SA is up, so the
line is kept until the SA that it speaks of appears. As responder of phase 1 it writes
nothing, and IKEv2 negotiates no lifetimes. MIB: ikePrfLifePolicy, ipsecPrfLifePolicy;
values loose 1, strict 2, notify 3, use-default-lifetime 4.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from agent.plan.model import ConfigurationView

PHASE1: Final = re.compile(r"received lifetime (\d+)s does not match configured lifetime (\d+)s")
PHASE2: Final = re.compile(r"received (\d+)(s lifetime| lifebytes), configured (\d+)s?")

LOOSE, STRICT, USE_DEFAULT = 1, 2, 4
VIRTUAL: Final = 2  # ipsecPeerVirtualInterface enabled


class Mismatch(NamedTuple):
    """`phase` 1 or 2; offered and ours in seconds, or octets."""

    phase: int
    offered: int
    ours: int
    unit: str

    def __str__(self) -> str:
        column = "ikePrfLifePolicy" if self.phase == 1 else "ipsecPrfLifePolicy"
        return (
            f"ended: the peer's phase {self.phase} lifetime is {self.offered} {self.unit}, ours {self.ours}, "
            f"and {column} is strict"
        )


def mismatch(line: str) -> Mismatch | None:
    """What a line of charon's log says of lifetimes."""
    match = PHASE1.search(line)
    if match is not None:
        return Mismatch(1, int(match[1]), int(match[2]), "s")
    match = PHASE2.search(line)
    if match is not None:
        return Mismatch(2, int(match[1]), int(match[3]), "s" if "lifetime" in match[2] else "octets")
    return None


def ike_policy(configuration: ConfigurationView, peer: int) -> int:
    """The phase 1 policy of a peer: its profile, else the global one, which is also what `default` means."""
    profile = _number(configuration, "ipsecPeerTable", peer, "ipsecPeerIkeProfile")
    usual = _scalar(configuration, "ipsecGlobIkeProfile")
    return _policy(configuration, "ikeProfileTable", "ikePrfLifePolicy", profile or usual, usual)


def child_policy(configuration: ConfigurationView, peer: int, rule: int) -> int:
    """The phase 2 policy of a peer's rule: profile of the rule, else of the peer, else the global one. Of a peer with a
    virtual interface `rule` is none of ipsecTrafficTable, and has no profile."""
    if _number(configuration, "ipsecPeerTable", peer, "ipsecPeerVirtualInterface") == VIRTUAL:
        rule = 0
    profile = _number(configuration, "ipsecTrafficTable", rule, "ipsecTrProfile") or _number(
        configuration, "ipsecPeerTable", peer, "ipsecPeerIpsecProfile"
    )
    usual = _scalar(configuration, "ipsecGlobIpsecProfile")
    return _policy(configuration, "ipsecProfileTable", "ipsecPrfLifePolicy", profile or usual, usual)


def _policy(configuration: ConfigurationView, table: str, column: str, profile: int, usual: int) -> int:
    policy = _number(configuration, table, profile, column) or LOOSE
    if policy == USE_DEFAULT and profile != usual:
        policy = _number(configuration, table, usual, column) or LOOSE
    return LOOSE if policy == USE_DEFAULT else policy


def _number(configuration: ConfigurationView, table: str, row: int, column: str) -> int:
    found = configuration.row(table, row) if row else None
    value = found[column] if found is not None else 0
    return value if isinstance(value, int) else 0


def _scalar(configuration: ConfigurationView, name: str) -> int:
    value = configuration.scalar(name)
    return value if isinstance(value, int) else 0
