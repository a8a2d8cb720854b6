"""Which notifications a target gets: ipsecGwFilterTable, as RFC 3413 section 6 has it.

A target without filters gets all. Else the notification's own name has to be included, and
none of its objects' instances may be excluded. Of the subtrees that match a name the
longest decides, of equally long ones the greatest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from agent.store.snapshot import Configuration

FILTER_TABLE: Final = "ipsecGwFilterTable"
INCLUDED: Final = 1  # ipsecGwFilterType

Arcs = tuple[int, ...]


class Filter(NamedTuple):
    """One row. `mask`: bit after bit, from the first arc on, whether it has to be equal; missing bits are ones."""

    subtree: Arcs
    mask: bytes
    included: bool

    def matches(self, name: Sequence[int]) -> bool:
        if len(name) < len(self.subtree):
            return False
        mask = self.mask
        return all(
            arc == name[at] or (at >> 3 < len(mask) and not mask[at >> 3] & 0x80 >> (at & 7))
            for at, arc in enumerate(self.subtree)
        )


def verdict(filters: Iterable[Filter], name: Sequence[int]) -> bool | None:
    """Whether a name is included or excluded; None where no filter matches."""
    matching = [each for each in filters if each.matches(name)]
    if not matching:
        return None
    return max(matching, key=lambda each: (len(each.subtree), each.subtree)).included


def passes(filters: Sequence[Filter], notification: Sequence[int], instances: Iterable[Sequence[int]]) -> bool:
    """Whether a target with these filters gets a notification with objects of these names."""
    if not filters:
        return True
    return verdict(filters, notification) is True and all(verdict(filters, name) is not False for name in instances)


def filters_by_target(configuration: Configuration) -> dict[int, tuple[Filter, ...]]:
    """Active rows, by ipsecGwTargetIndex."""
    found: dict[int, list[Filter]] = {}
    for row in configuration.rows(FILTER_TABLE):
        target, subtree, mask = row["ipsecGwFilterTarget"], row["ipsecGwFilterSubtree"], row["ipsecGwFilterMask"]
        assert isinstance(target, int) and isinstance(subtree, tuple) and isinstance(mask, bytes)
        found.setdefault(target, []).append(Filter(subtree, mask, row["ipsecGwFilterType"] == INCLUDED))
    return {target: tuple(each) for target, each in found.items()}
