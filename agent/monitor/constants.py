"""Tables that say what is so while the agent runs: key sizes of the ciphers, and the lifetimes on offer.

The key sizes are those of the engine, from the same table that proposals are made and
clamped from, so that what is shown and what is negotiated cannot differ. Twofish's follow
ipsecGlobContSupportVarKeyLength4Twofish; all else is as it was at the start.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple, Protocol

from agent.mib.ber import Value
from agent.plan.capabilities import KEY_LIMITS
from agent.plan.keylengths import SHORT_TWOFISH
from agent.plan.model import ConfigurationView
from agent.store.hooks import Change


class LiveTables(Protocol):
    """agent.store.live.Live."""

    def update(self, name: str, rows: Mapping[int, Mapping[str, Value] | None]) -> None: ...


class Sizes(NamedTuple):
    """Key lengths in bits, parity included as on the wire (DES: RFC 2405, 3DES: RFC 2451)."""

    least: int
    preset: int
    most: int


CIPHERS: Final = ("aes", "twofish", "blowfish", "cast128", "3des", "des", "null")  # ipsecAlgId 1 to 7
ALGORITHMS: Final[Mapping[int, Sizes]] = {
    **{number: Sizes(*KEY_LIMITS[cipher]) for number, cipher in enumerate(CIPHERS, 1)},
    31: Sizes(*KEY_LIMITS["aes"]),  # rijndael
}
"""By ipsecAlgId, which is the row number."""

TWOFISH: Final = 2  # ipsecAlgId
SHORT: Final = Sizes(SHORT_TWOFISH, SHORT_TWOFISH, SHORT_TWOFISH)
VARIABLE_TWOFISH: Final = "ipsecGlobContSupportVarKeyLength4Twofish"
YES: Final = 1

LIFETIMES: Final[Mapping[int, tuple[int, int]]] = {1: (900, 0), 2: (900, 11_000)}
"""Seconds and kilobytes (0: no limit) by ipsecLifeIndex: the default of the profiles, and what the guide sets."""


def publish_constants(live: LiveTables) -> None:
    """Fill ipsecAlgorithmTable and ipsecLifeTimeTable."""
    live.update("ipsecAlgorithmTable", {number: _cells(sizes) for number, sizes in ALGORITHMS.items()})
    live.update(
        "ipsecLifeTimeTable",
        {
            number: {"ipsecLifeHardSec": seconds, "ipsecLifeHardKb": kilobytes}
            for number, (seconds, kilobytes) in LIFETIMES.items()
        },
    )


class TwofishSizes:
    """A subscriber of the store that keeps the limits of Twofish in ipsecAlgorithmTable."""

    def __init__(self, live: LiveTables) -> None:
        self._live = live

    def changed(self, change: Change) -> None:
        if change.replay or any(VARIABLE_TWOFISH in row.columns for row in change.rows):
            self._live.update("ipsecAlgorithmTable", {TWOFISH: _cells(twofish(change.after))})


def twofish(configuration: ConfigurationView) -> Sizes:
    return ALGORITHMS[TWOFISH] if configuration.scalar(VARIABLE_TWOFISH) == YES else SHORT


def _cells(sizes: Sizes) -> dict[str, Value]:
    return {
        "ipsecAlgMinKeySize": sizes.least,
        "ipsecAlgDefKeySize": sizes.preset,
        "ipsecAlgMaxKeySize": sizes.most,
    }
