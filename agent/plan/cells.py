"""Reading a row's cells with the type the MIB gives them; another one is a defect, not an operator's mistake."""

from __future__ import annotations

from agent.plan.model import RowView


def number(row: RowView, column: str) -> int:
    value = row[column]
    assert isinstance(value, int)
    return value


def octets(row: RowView, column: str) -> bytes:
    value = row[column]
    assert isinstance(value, bytes)
    return value


def text(row: RowView, column: str) -> str:
    """A DisplayString without blanks around it."""
    return octets(row, column).decode("utf-8", "replace").strip()
