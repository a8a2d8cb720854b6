"""Configurations of every kind of value, for property tests of what must bring them back whole."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import strategies as st

from agent.mib.ber import LIMITS, NUMERIC, Value, Wire
from agent.mib.schema import Column, Keeping, Role, Schema, Table
from agent.store.candidate import MASK
from agent.store.load import ADMINISTRATION, Contents, Loader, Place
from agent.store.references import pointers_of
from agent.store.secrets import Secrets
from agent.store.snapshot import Configuration, decoded

Rows = dict[str, dict[int, dict[str, Value]]]


def _value(column: Column) -> st.SearchStrategy[Value]:
    """Any value that a row can hold."""
    if column.wire in NUMERIC:
        if column.labels:
            return st.sampled_from([number for number in column.names if number != column.traits.deletes])
        bounds = column.ranges or (LIMITS[column.wire],)
        return st.one_of([st.integers(low, high) for low, high in bounds])
    if column.wire is Wire.OBJECT_IDENTIFIER:
        return st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=4).map(lambda arcs: (1, 3, *arcs))
    if column.wire is Wire.IP_ADDRESS:
        return st.binary(min_size=4, max_size=4)
    lengths = column.ranges or ((0, 64),)

    def fits(octets: bytes) -> bool:
        return any(low <= len(octets) <= high for low, high in lengths)

    texts = st.sampled_from(["", "Branch", 'say "hi"', "hex:00", "a\\b", "ü\u2028", "tab\there", "*", "# no"])
    exact = [st.binary(min_size=low, max_size=min(high, low + 20)) for low, high in lengths]
    return st.one_of(texts.map(str.encode).filter(fits), *exact)


@st.composite
def contents(draw: Any, schema: Schema) -> Contents:
    """Rows that hold together, with secrets."""
    tables = [table for table in schema.tables.values() if table.keeping is Keeping.STORED]
    numbers = {
        table.name: [0] if table.scalar else sorted(draw(st.sets(st.integers(1, 300), max_size=3))) for table in tables
    }
    rows: Rows = {}
    secrets: dict[Place, bytes] = {}
    for table in tables:
        rows[table.name] = {number: _row(draw, table, number, numbers, secrets) for number in numbers[table.name]}
    return Contents(rows, secrets, administration=True)


def _row(
    draw: Any, table: Table, number: int, numbers: dict[str, list[int]], secrets: dict[Place, bytes]
) -> dict[str, Value]:
    row: dict[str, Value] = {}
    targets = dict(pointers_of(table))
    for column in table.columns:
        role = column.traits.role
        if role is Role.SEALED and draw(st.booleans()):
            secrets[table.name, number, column.name] = draw(st.binary(min_size=1, max_size=40))
        elif role is Role.SECRET and draw(st.booleans()):
            row[column.name] = MASK
        elif role is Role.ROW_STATUS:
            row[column.name] = draw(st.sampled_from([1, 2]))
        elif role in (Role.PLAIN, Role.CREATING) and draw(st.booleans()):
            if column.writable and column.traits.stage != "skeleton":
                continue
            target = targets.get(column)
            if target is None:
                row[column.name] = draw(_value(column))
            elif target in numbers:
                ahead = [n for n in numbers[target] if target != table.name or n > number]
                row[column.name] = draw(st.sampled_from([0, *ahead]))
    for column in targets:
        other = column.traits.refers_else
        if other is not None and column.name in row and row.get(other[0], table.by_name[other[0]].default) == other[1]:
            row[column.name] = draw(st.sampled_from([0, *numbers.get(other[2], [])]))
    return row


def configuration(schema: Schema, contents: Contents, secrets: Secrets | None = None) -> Configuration:
    """What a load of them on nothing makes."""
    empty = Configuration.empty(schema)
    candidate = Loader(contents, secrets or Secrets(os.urandom(32))).build(empty)
    return empty if candidate is None else candidate.after


def opened(configuration: Configuration, secrets: Secrets, leave_out: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Everything a configuration holds, by `column.row`; secrets in plain, generations not."""
    found: dict[str, Any] = {}
    for name, snapshot in configuration.tables.items():
        if name in leave_out:
            continue
        for row in snapshot.rows():
            for column in snapshot.table.columns:
                value = decoded(row.cells[column.position])
                if column.traits.role is Role.SEALED and isinstance(value, bytes) and value:
                    value = secrets.open(name, row.number, column.name, value)
                if column.traits.role is not Role.ROW_GENERATION:
                    found[f"{column.name}.{row.number}"] = value
    return found


__all__ = ["ADMINISTRATION", "configuration", "contents", "opened"]
