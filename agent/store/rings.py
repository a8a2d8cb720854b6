"""Rings in chains of rows: a next link must never lead back to its own row.

Chains may be ten thousand rows long and a SET changes one or two links, so nothing is
walked that cannot matter. The chains before the SET have no ring; if B followed A there,
no unchanged links lead from B to A. That settles the usual edits (insert, append, delete,
exchange of neighbours) by a few steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

SHORT_WALK: Final = 64  # steps from a changed row in the old chain to find that the target came after it
FEW_LINKS: Final = 8  # with more changed links than this one walk through everything is cheaper


def find_ring(changed: Mapping[int, int], before: Callable[[int], int], fresh: Callable[[int], bool]) -> list[int]:
    """Rows of a ring in their order, [] where there is none.

    `changed`: row → its next row now (0 ends), for all rows whose link is another one than before, new rows
    included; `before`: next row of any row before, 0 for none; `fresh`: the row was not there before."""

    new_only = all(map(fresh, changed))  # no link that was there leads to a row that was not

    def ends(at: int) -> bool:
        return new_only or (len(changed) <= FEW_LINKS and all(fresh(row) or _leads(before, row, at) for row in changed))

    sound: set[int] = set()
    for start in changed:
        trail: dict[int, None] = {}
        at = start
        while at and at not in sound:
            if at in trail:
                rows = list(trail)
                return rows[rows.index(at) :]
            trail[at] = None
            if at not in changed:
                at = before(at)
                continue
            at = changed[at]
            if at and at not in changed and ends(at):
                break
        sound.update(trail)
    return []


def _leads(before: Callable[[int], int], row: int, to: int) -> bool:
    """Whether the old chain led from `row` to `to` within a few steps."""
    for _ in range(SHORT_WALK):
        row = before(row)
        if row == to:
            return True
        if not row:
            return False
    return False
