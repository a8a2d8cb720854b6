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
BREAKS: Final = " ,"
CORNER: Final = "inx"


def width(text: str) -> int:
    """Columns that printable text takes in a terminal."""
    return len(text) if text.isascii() else max(wcswidth(text), 0)


def pad(text: str, columns: int) -> str:
    return text + " " * (columns - width(text))


def prose(text: str, columns: int) -> str:
    """Lines of which those that are too long are broken between words; without the ends of lines it is the text."""
    return "\n".join("\n".join(pieces(line, columns - 1)) for line in text.split("\n"))


def pieces(text: str, columns: int) -> Iterator[str]:
    """The text in parts of at most so many columns, which end behind a blank or comma where the latter half has one."""
    columns = max(columns, 2)
    at = 0
    while at < len(text):
        end = at + _fitting(text, at, columns)
        if end < len(text):
            behind = 1 + max(text.rfind(mark, at + columns // 2, end) for mark in BREAKS)
            end = behind or end
        yield text[at:end]
        at = end


def _fitting(text: str, at: int, columns: int) -> int:
    """How many characters from there on take at most so many columns; one at least."""
    part = text[at : at + columns]
    if part.isascii():
        return len(part)
    used = count = 0
    while at + count < len(text):  # marks that take none belong to the character before them
        used += max(wcwidth(text[at + count]), 0)
        if used > columns:
            break
        count += 1
    return max(count, 1)


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
