"""Which profiles and proposals are in use, for their apply state.

The references come from the traits of the schema (`refers`, `links`), so a new table that
points to a profile counts without a line here. Peers, rules and scalars are counted one
by one as they change; only profiles and proposals, which are few, are walked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from agent.mib.schema import Column, Keeping, Schema
from agent.plan.model import ConfigurationView, RowChangeView, RowRef, RowView

TARGETS: Final = frozenset(
    {"ikeProposalTable", "ikeProfileTable", "ikev2ProfileTable", "ipsecProposalTable", "ipsecProfileTable"}
)


class Usage:
    """`used`: rows of TARGETS that a peer, a rule or a scalar leads to; those out of service lead on along their chain
    only."""

    def __init__(self, schema: Schema) -> None:
        self._roots: dict[str, list[tuple[Column, str]]] = {}
        self._between: dict[str, list[tuple[Column, str]]] = {}
        self._scalars: set[str] = set()
        for table in schema.tables.values():
            if table.keeping is not Keeping.STORED:
                continue
            for column in table.columns:
                target = column.traits.refers or column.traits.links
                if target in TARGETS:
                    where = self._between if table.name in TARGETS else self._roots
                    where.setdefault(table.name, []).append((column, target))
                    if table.scalar:
                        self._scalars.add(table.name)
        self._counts: Counter[RowRef] = Counter()
        self.used: frozenset[RowRef] = frozenset()

    def rebuild(self, configuration: ConfigurationView) -> None:
        """Count everything anew."""
        self._counts.clear()
        for table, columns in self._roots.items():
            if table in self._scalars:
                for column, target in columns:
                    self._count(target, configuration.scalar(column.name), 1)
            else:
                for row in configuration.rows(table):
                    for column, target in columns:
                        self._count(_target(column, target, row), row[column.name], 1)
        self.used = self._walk(configuration)

    def moved(self, configuration: ConfigurationView, changes: Iterable[RowChangeView]) -> frozenset[RowRef]:
        """Take changes in; the rows that came into use or fell out of it. `configuration` is the one after them."""
        walk = False
        for change in changes:
            walk = walk or change.table in TARGETS
            for column, target in self._roots.get(change.table, ()):
                before, after = (
                    (_target(column, target, row), row[column.name]) if row is not None else (target, 0)
                    for row in (change.before, change.after)
                )
                if before != after:
                    dropped, taken = self._count(*before, -1), self._count(*after, 1)
                    walk = walk or dropped or taken
        if not walk:
            return frozenset()
        old = self.used
        self.used = self._walk(configuration)
        return old ^ self.used

    def _count(self, target: str, number: object, by: int) -> bool:
        """Whether the first reference came or the last one went."""
        if not isinstance(number, int) or not number:
            return False
        ref = RowRef(target, number)
        self._counts[ref] += by
        if not self._counts[ref]:
            del self._counts[ref]
            return True
        return by > 0 and self._counts[ref] == by

    def _walk(self, configuration: ConfigurationView) -> frozenset[RowRef]:
        reached: set[RowRef] = set()
        ahead = list(self._counts)
        while ahead:
            ref = ahead.pop()
            row = configuration.row_any_status(ref.table, ref.number) if ref not in reached else None
            if row is None:
                continue
            reached.add(ref)
            active = configuration.row(ref.table, ref.number) is not None
            for column, target in self._between.get(ref.table, ()):
                if not active and not column.traits.links:
                    continue
                number = row[column.name]
                if isinstance(number, int) and number:
                    ahead.append(RowRef(target, number))
        return frozenset(reached)


def _target(column: Column, usual: str, row: RowView) -> str:
    """The table that a row's column points into: another column may choose."""
    other = column.traits.refers_else
    return other[2] if other is not None and row[other[0]] == other[1] else usual
