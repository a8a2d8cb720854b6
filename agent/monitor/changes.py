"""Tells of each change of the configuration: who made it, from where, which rows, and what in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from agent.store.events import Event, Events, Kind, Severity
from agent.store.hooks import Change, RowChange
from agent.store.labels import description

GROUPS_NAMED: Final = 6  # rows of a table that were made, or removed, or changed
ROWS_NAMED: Final = 4  # of each group
COLUMNS_NAMED: Final = 3


class ConfigurationChanges:
    """Subscriber of the store."""

    def __init__(self, events: Events) -> None:
        self._events = events

    def changed(self, change: Change) -> None:
        if change.replay:
            return
        origin = change.origin
        who = " ".join([origin.user or origin.kind, *([f"from {origin.source}"] if origin.source else [])])
        text = f"generation {change.generation} by {who}: {rows_named(change)}"
        self._events.tell(
            Event(
                Kind.CONFIGURATION_CHANGED,
                Severity.INFO,
                text,
                values={
                    "ipsecGwNotifyGeneration": change.generation & 0xFFFFFFFF,
                    "ipsecGwNotifyUser": origin.user.encode("utf-8", "replace")[:255],
                },
            )
        )


def rows_named(change: Change) -> str:
    """`made ipsecPeerTable 1 "branch", 2; ipsecTrafficTable 7 (ipsecTrAction)`, of many some: what was changed in rows
    that stay is named without its value, which may be secret."""
    groups: dict[tuple[str, str], list[RowChange]] = {}
    for row in change.rows:
        groups.setdefault((_done(change, row), row.table), []).append(row)
    parts = []
    for (done, table), rows in list(groups.items())[:GROUPS_NAMED]:
        numbers = sorted(row.number for row in rows)
        named = "" if numbers == [0] else " " + ", ".join(_named(change, table, n) for n in numbers[:ROWS_NAMED])
        more = f" and {len(numbers) - ROWS_NAMED} more" if len(numbers) > ROWS_NAMED else ""
        parts.append(f"{done}{table}{named}{more}{'' if done else _columns(change, rows)}")
    if len(groups) > GROUPS_NAMED:
        parts.append(f"{len({table for _, table in list(groups)[GROUPS_NAMED:]})} more tables")
    return "; ".join(parts)


def _done(change: Change, row: RowChange) -> str:
    """What happened to a row, empty for one that stays; the one row of a table of scalars always does."""
    if change.after.tables[row.table].table.scalar:
        return ""
    if change.before.row_any_status(row.table, row.number) is None:
        return "made "
    return "" if change.after.row_any_status(row.table, row.number) is not None else "removed "


def _columns(change: Change, rows: Sequence[RowChange]) -> str:
    table = change.after.tables[rows[0].table].table
    changed = {name for row in rows for name in row.columns}
    names = [column.name for column in table.columns if column.name in changed and column is not table.row_generation]
    more = f" and {len(names) - COLUMNS_NAMED} more" if len(names) > COLUMNS_NAMED else ""
    return f" ({', '.join(names[:COLUMNS_NAMED])}{more})" if names else ""


def _named(change: Change, table: str, number: int) -> str:
    """`7 "printers"`: a row by the description it has, or had."""
    text = description(change.after, table, number) or description(change.before, table, number)
    return f'{number} "{text}"' if text else str(number)
