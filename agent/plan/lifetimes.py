"""How long the SAs of a profile live, when they are renewed, and what is told of a lifetime that is not in use.

Resolution: the global profile's own numbers count; those of another profile only with a
policy of its own, else the global profile's, else the built-in ones.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from agent.plan import cells
from agent.plan.model import ApplyState, RowView, Verdict

LOOSE, INHERIT_LIFE = 1, 4  # ikePrfLifePolicy, ipsecPrfLifePolicy

BUILT_IN_SECONDS: Final = 900
BUILT_IN_PERCENT: Final = 80
LEAST_LEAD: Final = 2  # seconds between the beginning of a renewal and the end, at least
RANDOM_SHARE: Final = 20  # a twentieth of the lifetime is the spread of renewals

NOT_IN_USE: Final = Verdict(ApplyState.UNUSED, "own lifetime is not in use: LifePolicy is use-default-lifetime")


class Life(NamedTuple):
    """Lifetime in seconds (0: none), share of it in percent after which renewal begins, ikePrfLifePolicy's number."""

    seconds: int = BUILT_IN_SECONDS
    percent: int = BUILT_IN_PERCENT
    policy: int = LOOSE

    def renewal(self) -> int:
        """Seconds after which renewal begins."""
        return max(0, min(self.seconds * self.percent // 100, self.seconds - LEAST_LEAD))

    def spread(self) -> int:
        return self.seconds // RANDOM_SHARE


def life(own: RowView | None, global_: RowView | None, prefix: str) -> Life:
    """The life of a profile, `own` None where the global one is used. `prefix`: of the columns, ikePrf or ipsecPrf."""
    row = own if own is not None else global_
    if row is not None and cells.number(row, f"{prefix}LifePolicy") == INHERIT_LIFE:
        row = global_
    if row is None:
        return Life()
    policy = cells.number(row, f"{prefix}LifePolicy")
    return Life(
        cells.number(row, f"{prefix}LifeSeconds"),
        cells.number(row, f"{prefix}LifeRekeyPercent"),
        LOOSE if policy == INHERIT_LIFE else policy,
    )


def idle_life(own: RowView | None, global_: RowView | None, prefix: str) -> Verdict | None:
    """A lifetime that was set but is not in use is told (decision 4 of the effects)."""
    if own is None or (global_ is not None and own.number == global_.number):
        return None
    set_ = (cells.number(own, f"{prefix}LifeSeconds"), cells.number(own, f"{prefix}LifeRekeyPercent"))
    if cells.number(own, f"{prefix}LifePolicy") == INHERIT_LIFE and set_ != (BUILT_IN_SECONDS, BUILT_IN_PERCENT):
        return NOT_IN_USE
    return None
