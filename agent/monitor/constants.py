"""Tables that say what is so while the agent runs: key sizes of the ciphers, and the lifetimes on offer.

Made once at the start. The key sizes are those of the engine, from the same table that
proposals are made from, so that what is shown and what is negotiated cannot differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple, Protocol

from agent.mib.ber import Value
from agent.plan.capabilities import KEY_SIZES, UNSET_KEY_SIZES


class LiveTables(Protocol):
    """agent.store.live.Live."""

    def update(self, name: str, rows: Mapping[int, Mapping[str, Value] | None]) -> None: ...


class Sizes(NamedTuple):
    """Key lengths in bits, parity included as on the wire (DES: RFC 2405, 3DES: RFC 2451)."""

    least: int
    preset: int
    most: int


def _choice(cipher: str) -> Sizes:
    """Of a cipher with keys of several lengths: the preset is what is offered first where none is set."""
    sizes = KEY_SIZES[cipher]
    return Sizes(min(sizes), UNSET_KEY_SIZES[cipher][0], max(sizes))


ALGORITHMS: Final[Mapping[int, Sizes]] = {
    1: _choice("aes"),
    2: _choice("twofish"),
    3: _choice("blowfish"),
    4: Sizes(128, 128, 128),  # cast128
    5: Sizes(192, 192, 192),  # 3des
    6: Sizes(64, 64, 64),  # des
    7: Sizes(0, 0, 0),  # null
    31: _choice("aes"),  # rijndael
}
"""By ipsecAlgId, which is the row number."""

LIFETIMES: Final[Mapping[int, tuple[int, int]]] = {1: (900, 0), 2: (900, 11_000)}
"""Seconds and kilobytes (0: no limit) by ipsecLifeIndex: the default of the profiles, and what the guide sets."""


def publish_constants(live: LiveTables) -> None:
    """Fill ipsecAlgorithmTable and ipsecLifeTimeTable."""
    live.update(
        "ipsecAlgorithmTable",
        {
            number: {
                "ipsecAlgMinKeySize": sizes.least,
                "ipsecAlgDefKeySize": sizes.preset,
                "ipsecAlgMaxKeySize": sizes.most,
            }
            for number, sizes in ALGORITHMS.items()
        },
    )
    live.update(
        "ipsecLifeTimeTable",
        {
            number: {"ipsecLifeHardSec": seconds, "ipsecLifeHardKb": kilobytes}
            for number, (seconds, kilobytes) in LIFETIMES.items()
        },
    )
