"""Which key lengths of a cipher are offered, and so accepted: the size of a proposal, its bounds, the global limit.

What is accepted is also offered, since the IKE daemon knows no ranges: first the size that
is set, then the others between Min and Max, strong ones first. Source: MIB texts of
ikePropEncKeySize, ikePropEncKeySizeMin and -Max, ipsecGlobMaxKeyLength,
ipsecGlobContSupportVarKeyLength4Twofish, restated in EFFECTS.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from agent.plan import cells
from agent.plan.capabilities import AEAD_BITS, KEY_LIMITS, KEY_SIZES, UNSET_KEY_SIZES, nearest_key_size
from agent.plan.model import RowView

TWOFISH: Final = "twofish"
SHORT_TWOFISH: Final = 128  # bits, where Twofish has no variable length
TOO_LONG: Final = "no proposal within ipsecGlobMaxKeyLength"


class KeyBounds(NamedTuple):
    """The globals: ipsecGlobMaxKeyLength in bits, and whether Twofish keys may be longer than 128."""

    most: int = 1024
    long_twofish: bool = True


class Lengths(NamedTuple):
    """Key lengths to offer in order, in bits; 0 alone for a cipher without a choice. `note`: what was set but cannot
    be done so. No lengths: all are beyond ipsecGlobMaxKeyLength."""

    sizes: tuple[int, ...]
    note: str = ""


def lengths(cipher: str, row: RowView, column: str, bounds: KeyBounds) -> Lengths:
    """Of a cipher in a proposal; `column`: its key size, with Min and Max beside it; '' where it has none."""
    if cipher not in KEY_SIZES:
        return Lengths((0,) if KEY_LIMITS[cipher][2] <= bounds.most else ())
    wanted, least, most = (max(0, cells.number(row, column + end)) for end in ("", "Min", "Max"))
    sizes = _chosen(cipher, wanted, least, most)
    first = sizes[0]
    note = f"{cipher} is offered with {first} bits" if wanted and wanted != first else ""
    if cipher == TWOFISH and not bounds.long_twofish and sizes != (SHORT_TWOFISH,):
        sizes = (SHORT_TWOFISH,)
        note = f"{cipher} is offered with {SHORT_TWOFISH} bits: ipsecGlobContSupportVarKeyLength4Twofish is no"
    return Lengths(tuple(size for size in sizes if size <= bounds.most), note)


def _chosen(cipher: str, wanted: int, least: int, most: int) -> tuple[int, ...]:
    """0 is unset: neither bound, only the size; no size, only what lies between the bounds."""
    if not wanted and not least and not most:
        return UNSET_KEY_SIZES[cipher]
    first = (nearest_key_size(cipher, wanted),) if wanted else ()
    if not least and not most:
        return first
    low, high = least or wanted, most or wanted or KEY_SIZES[cipher][0]
    between = tuple(size for size in KEY_SIZES[cipher] if low <= size <= high and size not in first)
    return first + between or (nearest_key_size(cipher, high),)


def aead_fits(cipher: str, bounds: KeyBounds) -> bool:
    """Whether a combined cipher is within the global limit."""
    return AEAD_BITS[cipher] <= bounds.most
