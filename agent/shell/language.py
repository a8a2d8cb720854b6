"""What a line of the shell says: commands between `;`, of words and assignments.

    ipsecPeerTable                            a word
    ipsecPeerDescription:02="Branch west"     an assignment to the row that was shown as 02
    ipsecPeerDescription.3="Branch west"      an assignment to row number 3
    Proto=tcp RemotePort = 22                 two assignments; a blank before `=` may have one behind it

A value or word that begins with a quotation mark goes to the next one and may hold anything:
in `"…"` a backslash writes `\\"`, `\\\\`, `\\n`, `\\t` and octets `\\x1b`, in `'…'` nothing is
special. What names mean is not known here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from agent.shell.outcome import Problem

ASSIGNED: Final = re.compile(r"([A-Za-z][\w-]*)(?::(\d+)|\.(\d+))?(?:=|[ \t]+=[ \t]*)")
BARE: Final = re.compile(r"[^\s;]+")
BLANK: Final = re.compile(r"\s+")
ESCAPED: Final = re.compile(r'\\(?:x([0-9A-Fa-f]{2})|(["\\nt]))')
SIMPLE: Final = {'"': '"', "\\": "\\", "n": "\n", "t": "\t"}


class LineError(Problem):
    """The line cannot be read; the text says where and why, and repeats nothing of it: it may be a key."""


@dataclass(frozen=True, slots=True)
class Word:
    """A name or an argument. `quoted`: it stood in quotation marks and is meant literally."""

    text: str
    quoted: bool = False


@dataclass(frozen=True, slots=True)
class Assignment:
    """`inx`: number in the last display; `row`: number of the row; both None: a new row, or a scalar. Octets that no
    text is made of stand in `value` as surrogates (PEP 383)."""

    name: str
    inx: int | None
    row: int | None
    value: str
    quoted: bool = False

    @property
    def target(self) -> str:
        """As it was typed, left of `=`."""
        if self.inx is not None:
            return f"{self.name}:{self.inx:02}"
        return self.name if self.row is None else f"{self.name}.{self.row}"


@dataclass(frozen=True, slots=True)
class Command:
    """What stands between two `;`: at least one item. `text`: as it was typed."""

    items: tuple[Word | Assignment, ...]
    text: str

    @property
    def words(self) -> list[str]:
        """Its words; of assignments the text, for commands that take `name=value` as an argument."""
        return [item.text if isinstance(item, Word) else f"{item.target}={item.value}" for item in self.items]


def read_line(line: str) -> list[Command]:
    """The commands of a line, in order. Raises LineError."""
    commands: list[Command] = []
    items: list[Word | Assignment] = []
    at = start = 0
    if line.lstrip().startswith("#"):
        return []
    while True:
        if (blank := BLANK.match(line, at)) is not None:
            at = blank.end()
        if at == len(line) or line[at] == ";":
            if items:
                commands.append(Command(tuple(items), line[start:at].strip()))
                items = []
            if at == len(line):
                return commands
            at += 1
            start = at
            continue
        found = ASSIGNED.match(line, at)
        if found is None:
            text, quoted, at = _text(line, at)
            items.append(Word(text, quoted))
            continue
        name, inx, row = found[1], found[2], found[3]
        value, quoted, at = _text(line, found.end())
        items.append(Assignment(name, int(inx) if inx else None, int(row) if row else None, value, quoted))


def _text(line: str, at: int) -> tuple[str, bool, int]:
    """A value or word, whether it was quoted, and where it ends."""
    mark = line[at : at + 1]
    if mark not in ('"', "'") or not mark:
        bare = BARE.match(line, at)
        return (bare[0], False, bare.end()) if bare else ("", False, at)
    end = at + 1
    while end < len(line) and line[end] != mark:
        end += 2 if mark == '"' and line[end] == "\\" else 1
    if end >= len(line):
        raise LineError(f"the quotation mark at character {at + 1} has no end")
    if end + 1 < len(line) and not line[end + 1].isspace() and line[end + 1] != ";":
        raise LineError(f"behind the closing quotation mark at character {end + 1} a blank or ; is expected")
    inside = line[at + 1 : end]
    return (ESCAPED.sub(_unescaped, inside) if mark == '"' else inside), True, end + 1


def _unescaped(found: re.Match[str]) -> str:
    if found[1]:
        return bytes.fromhex(found[1]).decode("ascii", "surrogateescape")
    return SIMPLE[found[2]]
