"""A table on lines of a terminal: four cells a line at 80 columns, header and rows wrapped alike.

    inx TrafficList(*rw)   Description(rw)    PeerIds(rw)        AdminStatus(-rw)
        DynamicAddress(rw)

     00 1                  "Branch"           ""                 up
        192.0.2.2

Each line is divided into places of 19 characters behind the row's number. A column takes as
many places as its widest cell needs and stands at the same place in every row. What is wider
than a line begins a line of its own and goes on in lines that are indented two deeper.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from wcwidth import wcswidth, wcwidth

PLACE: Final = 19  # characters, the blank behind a cell included
LEAST_INDENT: Final = 4
DEEPER: Final = 2
CORNER: Final = "inx"


def width(text: str) -> int:
    """Columns that printable text takes in a terminal."""
    return len(text) if text.isascii() else max(wcswidth(text), 0)


def pad(text: str, columns: int) -> str:
    return text + " " * (columns - width(text))


def pieces(text: str, columns: int) -> Iterator[str]:
    """The text in parts of at most so many columns."""
    columns = max(columns, 2)
    if text.isascii():
        for at in range(0, len(text), columns):
            yield text[at : at + columns]
        return
    part, used = "", 0
    for character in text:
        takes = max(wcwidth(character), 0)
        if used + takes > columns:
            yield part
            part, used = "", 0
        part += character
        used += takes
    if part:
        yield part


def lay_out(header: Sequence[str], rows: Sequence[Sequence[str]], columns: int) -> Iterator[str]:
    """Lines without their end. `header`: names with their marks; each row has as many cells, of printable text."""
    indent = max(LEAST_INDENT, len(str(len(rows) - 1)) + 1)
    places = max(1, (columns - indent) // PLACE)
    whole = max(columns - indent, PLACE) - 1  # so wide may a cell be on a line of its own
    widths = [max(map(width, cells)) for cells in zip(header, *rows, strict=True)]
    lines: list[list[tuple[int, int]]] = [[]]  # (column, characters up to the next one)
    used = 0
    for at, wide in enumerate(widths):
        takes = min(wide // PLACE + 1, places)
        if used + takes > places:
            lines.append([])
            used = 0
        if wide >= takes * PLACE:  # wider than the line: alone on it
            takes = places
        lines[-1].append((at, takes * PLACE))
        used += takes
    yield from _row(CORNER.rjust(indent - 1) + " ", header, lines, indent, whole)
    yield ""
    for number, cells in enumerate(rows):
        yield from _row(f"{number:02}".rjust(indent - 1) + " ", cells, lines, indent, whole)
        if len(lines) > 1 and number < len(rows) - 1:
            yield ""


def _row(
    begin: str, cells: Sequence[str], lines: Sequence[Sequence[tuple[int, int]]], indent: int, whole: int
) -> Iterator[str]:
    for line in lines:
        if len(line) == 1 and width(cells[line[0][0]]) > whole:
            yield from _long(begin, cells[line[0][0]], indent, whole)
        else:
            parts = [pad(cells[at], takes) for at, takes in line[:-1]]
            yield begin + "".join(parts) + cells[line[-1][0]]
        begin = " " * indent


def _long(begin: str, text: str, indent: int, whole: int) -> Iterator[str]:
    """A cell that needs several lines."""
    parts = pieces(text, whole - DEEPER)
    first = next(parts)
    yield begin + first
    for part in parts:
        yield " " * (indent + DEEPER) + part
