"""Tells of each change of the configuration: who made it, from where, and which rows."""

from __future__ import annotations

from typing import Final

from agent.store.events import Event, Events, Kind, Severity
from agent.store.hooks import Change
from agent.store.labels import description

TABLES_NAMED: Final = 6
ROWS_NAMED: Final = 4  # of each table


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
    """`ipsecPeerTable 1 "branch", 2; ipsecTrafficTable 7`, of many some."""
    tables: dict[str, list[int]] = {}
    for row in change.rows:
        tables.setdefault(row.table, []).append(row.number)
    parts = []
    for table, numbers in list(tables.items())[:TABLES_NAMED]:
        numbers.sort()
        named = "" if numbers == [0] else " " + ", ".join(_named(change, table, n) for n in numbers[:ROWS_NAMED])
        more = f" and {len(numbers) - ROWS_NAMED} more" if len(numbers) > ROWS_NAMED else ""
        parts.append(f"{table}{named}{more}")
    if len(tables) > TABLES_NAMED:
        parts.append(f"{len(tables) - TABLES_NAMED} more tables")
    return "; ".join(parts)


def _named(change: Change, table: str, number: int) -> str:
    """`7 "printers"`: a row by the description it has, or had."""
    text = description(change.after, table, number) or description(change.before, table, number)
    return f'{number} "{text}"' if text else str(number)
