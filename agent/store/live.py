"""Tables that the agent makes while it runs: apply states, statistics, SAs. Nothing here is stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from agent.mib.ber import Value
from agent.mib.schema import Keeping, Schema
from agent.store.snapshot import Cells, TableSnapshot, default_cells, scalar_or_empty


class Live:
    """One snapshot per live table; scalar groups begin with their defaults, tables empty."""

    def __init__(self, schema: Schema) -> None:
        self._tables = {
            table.name: scalar_or_empty(table) for table in schema.tables.values() if table.keeping is Keeping.LIVE
        }
        self._watching: dict[str, Callable[[TableSnapshot], None]] = {}

    def watch(self, name: str, watcher: Callable[[TableSnapshot], None]) -> None:
        """Have one function called with each new snapshot of a table, at once and before anybody reads it."""
        self._watching[name] = watcher

    def __contains__(self, name: object) -> bool:
        return name in self._tables

    def table(self, name: str) -> TableSnapshot:
        """Raises KeyError for a table that is not live."""
        return self._tables[name]

    def publish(self, name: str, snapshot: TableSnapshot) -> None:
        """Replace a whole table. Raises KeyError for one that is not live."""
        if name not in self._tables:
            raise KeyError(name)
        self._set(name, snapshot)

    def update(self, name: str, rows: Mapping[int, Mapping[str, Value] | None]) -> None:
        """Set columns of some rows, or remove rows (None). Columns not named keep their value or the default."""
        snapshot = self._tables[name]
        table = snapshot.table
        changes: dict[int, Cells | None] = {}
        for number, values in rows.items():
            if values is None:
                changes[number] = None
                continue
            cells = list(snapshot.cells(number) or default_cells(table, number))
            for column, value in values.items():
                at = table.by_name[column]
                cells[at.position] = at.encode(value)
            changes[number] = tuple(cells)
        self._set(name, snapshot.replaced(changes))

    def _set(self, name: str, snapshot: TableSnapshot) -> None:
        self._tables[name] = snapshot
        watcher = self._watching.get(name)
        if watcher is not None:
            watcher(snapshot)
