"""Puts rows into the runtime tables, not more than once a second and only those that changed.

What the last one cost stretches the pause before the next, so that a gateway of
ten thousand tunnels spends a bounded share of its time on statistics.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final, Protocol

from agent.mib.ber import Value, encode_value
from agent.mib.schema import Schema
from agent.store.snapshot import Cells, TableSnapshot, default_cells

LEAST_SECONDS: Final = 1.0
MOST_SECONDS: Final = 10.0
SHARE: Final = 15  # a look may cost this part of the processor's time


class LiveTables(Protocol):
    """agent.store.live.Live."""

    def table(self, name: str) -> TableSnapshot: ...
    def publish(self, name: str, snapshot: TableSnapshot) -> None: ...


class Publisher:
    """Encodes rows and replaces tables."""

    def __init__(self, schema: Schema, live: LiveTables) -> None:
        self._schema = schema
        self._live = live

    def update(self, name: str, rows: Mapping[int, Mapping[str, Value] | None]) -> int:
        """Set rows, columns not named being the default, or remove them (None). How many were different."""
        old = self._live.table(name)
        changes: dict[int, Cells | None] = {}
        for number, values in rows.items():
            before = old.cells(number)
            after = None if values is None else self.encode(name, number, values)
            if before != after:
                changes[number] = after
        if changes:
            self._live.publish(name, old.replaced(changes))
        return len(changes)

    def encode(self, name: str, number: int, values: Mapping[str, Value]) -> Cells:
        table = self._schema.tables[name]
        cells = list(default_cells(table, number))
        for column_name, value in values.items():
            column = table.by_name[column_name]
            cells[column.position] = _encoded(column.wire, value)
        return tuple(cells)


_encoded = lru_cache(maxsize=8192)(encode_value)


def pause(cost: float) -> float:
    """Seconds to the next publication after one that took `cost` seconds of the processor (not of the wall: charon may
    keep us waiting)."""
    return min(max(LEAST_SECONDS, cost * SHARE), MOST_SECONDS)
