"""How rows are named to people: table, number, and the description that an operator gave the row.

Log lines, events and notifications name rows by this, so that a label set once is met
wherever something is said about its row (the Description objects of the MIB).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from agent.mib.schema import Column, Table
from agent.store.snapshot import Configuration

ENDING: Final = "Description"
LONGEST: Final = 60  # characters of a description that are told


@lru_cache(maxsize=256)
def description_of(table: Table) -> Column | None:
    """The column that holds the description of a row."""
    return next((column for column in table.columns if column.name.endswith(ENDING)), None)


def label(configuration: Configuration, table: str, number: int) -> str:
    """`ikeProfileTable 3 "mobile"`, without quotes where the row has no description or is not there."""
    described = description(configuration, table, number)
    return f'{table} {number} "{described}"' if described else f"{table} {number}"


def description(configuration: Configuration, table: str, number: int) -> str:
    """The description of a row in one short line; '' where it has none."""
    snapshot = configuration.tables.get(table)
    column = description_of(snapshot.table) if snapshot is not None else None
    row = configuration.row_any_status(table, number) if column is not None else None
    octets = row[column.name] if row is not None and column is not None else b""
    if not isinstance(octets, bytes):
        return ""
    text = "".join(c if c.isprintable() else " " for c in octets.decode("utf-8", "backslashreplace"))
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
