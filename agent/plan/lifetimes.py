"""How long the SAs of a profile live, when they are renewed, and what is told of a lifetime that is not in use.

Resolution: the global profile's own numbers count; those of another profile only with a
policy of its own, else the global profile's, else the built-in ones. A profile of IKEv2 has
no policy, and its own numbers count always.

A volume is where renewal is due, not where packets are to be dropped: the 11,000 kB that are
built in leave 2.2 MB between the two, 18 ms at 1 Gbit/s, and a renewal takes longer. So the
engine drops only some way beyond. The number itself is told to the peer (RFC 2407 4.5) only
where there is no time, and there the engine knows one number for both.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from agent.plan import cells
from agent.plan.model import RowView

LOOSE, INHERIT_LIFE = 1, 4  # ikePrfLifePolicy, ipsecPrfLifePolicy

BUILT_IN_SECONDS: Final = 900
BUILT_IN_KBYTES: Final = 11_000
BUILT_IN_PERCENT: Final = 80
BUILT_IN_SECONDS_V2: Final = 3600
LEAST_LEAD: Final = 2  # seconds between the beginning of a renewal and the end, at least
RANDOM_SHARE: Final = 20  # a twentieth of the lifetime is the spread of renewals, and the least lead of a volume
SLACK_OCTETS: Final = 1_000_000_000  # that go on beyond a volume while its renewal is under way: 8 s at 1 Gbit/s
KILO: Final = 1000  # octets of a kByte, as in IKEv1's attribute (RFC 2407 4.5)

NEGOTIATION_KBYTES: Final = 3  # seen: 2,568 octets with IP's headers, main and quick mode, pre-shared key, group 14
ALL_THE_TIME: Final = (
    "a negotiation alone is more than ikePrfLifeKBytes, so phase 1 is renewed all the time; accepted for no limit: 0"
)
NOT_IN_USE: Final = "own lifetime is not in use: {0} is use-default-lifetime; accepted: {0} loose, strict or notify"


class Life(NamedTuple):
    """Lifetime in seconds (0: none), share of it in percent after which renewal begins, ikePrfLifePolicy's number,
    lifetime in kBytes (0: none)."""

    seconds: int = BUILT_IN_SECONDS
    percent: int = BUILT_IN_PERCENT
    policy: int = LOOSE
    kbytes: int = 0

    def renewal(self) -> int:
        """Seconds after which renewal begins."""
        return max(0, min(self.seconds * self.percent // 100, self.seconds - LEAST_LEAD))

    def spread(self) -> int:
        return self.seconds // RANDOM_SHARE

    def octets(self) -> int:
        return self.kbytes * KILO

    def last_octets(self) -> int:
        """Octets after which packets are dropped. Without a time charon tells the peer this very number, so then it
        is the volume itself."""
        return self.octets() + (SLACK_OCTETS if self.seconds else 0)

    def renewal_octets(self) -> int:
        """Octets after which renewal begins; renewing takes a while in which traffic goes on."""
        return min(self.octets() * self.percent // 100, self.octets() - self.spread_octets())

    def spread_octets(self) -> int:
        return self.octets() // RANDOM_SHARE

    def idle(self) -> int:
        """Seconds without a packet after which the SA lapses instead of being renewed: just before the earliest
        renewal, for a renewed SA counts its idle time anew. 0: it never does."""
        return max(1, self.renewal() - self.spread() - 1) if self.seconds else 0


def volume_of(last_octets: int, seconds: int) -> int:
    """The volume in kBytes that an engine's last octets stand for; 0 for none."""
    return max(0, last_octets - (SLACK_OCTETS if seconds else 0)) // KILO


def life_row(own: RowView | None, global_: RowView | None, prefix: str) -> RowView | None:
    """The row whose numbers count, None for the built-in ones; parameters as of `life`."""
    row = own if own is not None else global_
    if row is not None and cells.number(row, f"{prefix}LifePolicy") == INHERIT_LIFE:
        return global_
    return row


def life(own: RowView | None, global_: RowView | None, prefix: str) -> Life:
    """The life of a profile, `own` None where the global one is used. `prefix`: of the columns, ikePrf or ipsecPrf."""
    row = life_row(own, global_, prefix)
    if row is None:
        return Life(kbytes=BUILT_IN_KBYTES)
    policy = cells.number(row, f"{prefix}LifePolicy")
    return Life(
        cells.number(row, f"{prefix}LifeSeconds"),
        cells.number(row, f"{prefix}LifeRekeyPercent"),
        LOOSE if policy == INHERIT_LIFE else policy,
        cells.number(row, f"{prefix}LifeKBytes"),
    )


def life_of_version2(row: RowView | None) -> Life:
    """The life of an IKEv2 profile: the peer's, else the global one, else built in."""
    if row is None:
        return Life(BUILT_IN_SECONDS_V2)
    return Life(cells.number(row, "ikev2PrfLifeSeconds"), cells.number(row, "ikev2PrfLifeRekeyPercent"))


def idle_life(own: RowView | None, global_: RowView | None, prefix: str) -> str:
    """What is told of a lifetime that was set and is not in use, '' where there is none; all else in the profile is in
    force."""
    if own is None or (global_ is not None and own.number == global_.number):
        return ""
    if cells.number(own, f"{prefix}LifePolicy") != INHERIT_LIFE:
        return ""
    times = (cells.number(own, f"{prefix}LifeSeconds"), cells.number(own, f"{prefix}LifeRekeyPercent"))
    as_made = times == (BUILT_IN_SECONDS, BUILT_IN_PERCENT) and not cells.number(own, f"{prefix}LifeKBytes")
    return "" if as_made else NOT_IN_USE.format(f"{prefix}LifePolicy")
