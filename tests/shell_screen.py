"""What the shell's tests share: a session beside a served agent, and the way back from a display to values."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from wcwidth import wcwidth

from agent.mib import load_schema
from agent.mib.ber import Value
from agent.mib.schema import Column, Role, Table
from agent.shell.language import Word, read_line
from agent.shell.session import Session
from agent.shell.values import parse
from agent.shell.vocabulary import vocabulary_of
from agent.snmp.client import Community, SnmpClient, read_configuration
from tests.snmp_station import Served, served

SCHEMA = load_schema()
VOCABULARY = vocabulary_of(SCHEMA)


class Paper:
    """A terminal that keeps what is written on it."""

    def __init__(self, columns: int = 80, person: bool = True) -> None:
        self.columns = columns
        self.person = person
        self.text = ""
        self.complaints = ""

    def write(self, text: str) -> None:
        self.text += text

    def complain(self, text: str) -> None:
        self.complaints += text

    def torn_off(self) -> str:
        """What was written since the last time."""
        text, self.text = self.text, ""
        return text


class Typist:
    """Types lines and reads what comes."""

    def __init__(self, session: Session, paper: Paper, at: Served) -> None:
        self.session = session
        self.paper = paper
        self.at = at

    async def types(self, line: str) -> str:
        """A line that is carried out; what is written."""
        self.paper.torn_off()
        status = await self.session.execute(line)
        assert status == 0, (line, self.paper.complaints)
        return self.paper.torn_off()

    async def fails(self, line: str, status: int = 1) -> str:
        """A line that is not; what is said about it."""
        self.paper.complaints = ""
        found = await self.session.execute(line)
        assert found == status, (line, found, self.paper.complaints)
        assert all(len(line) < max(self.paper.columns, 20) for line in self.paper.complaints.splitlines())
        return self.paper.complaints.replace("\n", "")


@asynccontextmanager
async def typing(state: Path, columns: int = 80, community: str = "") -> AsyncIterator[Typist]:
    """Somebody at the shell of an agent of store and SNMP: its administrator, unless a community is given."""
    async with served(state) as at:
        host, port = at.address
        asking = Community(community.encode()) if community else read_configuration(state / "snmp.conf")
        async with await SnmpClient.open(host, port, asking, SCHEMA) as client:
            paper = Paper(columns)
            yield Typist(await Session.open(client, SCHEMA, paper), paper, at)


# ---- from the screen back to values ---------------------------------------------------


def grid(line: str) -> list[str]:
    """One entry per column of the terminal: a character with its marks, nothing behind a wide one."""
    found: list[str] = []
    for character in line:
        wide = wcwidth(character)
        if wide == 0 and found:
            found[-1] += character
        else:
            found += [character, *[""] * (wide - 1)]
    return found


def cells_of(display: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a display of a table, as the cells' texts."""
    lines = display.split("\n")
    indent = len(lines[0]) - len(lines[0].removeprefix(" " * (len(lines[0]) - len(lines[0].lstrip()))))
    indent += len("inx ")
    end = lines.index("")
    layout: list[list[int]] = []
    header: list[str] = []
    for line in lines[:end]:
        places = [found.start() for found in re.finditer(r"\S+", line) if found.start() >= indent]
        layout.append(places)
        header += line[indent:].split()
    rows: list[list[str]] = []
    at = end + 1
    while at < len(lines):
        if not lines[at]:
            at += 1
            continue
        assert re.fullmatch(r" *\d\d+ ", lines[at][:indent]), lines[at]
        assert int(lines[at][:indent]) == len(rows)
        row: list[str] = []
        for places in layout:
            row += [
                "".join(grid(lines[at])[start:stop]).rstrip()
                for start, stop in zip(places, [*places[1:], None], strict=True)
            ]
            at += 1
            while at < len(lines) and lines[at].startswith(" " * (indent + 2)):
                assert len(places) == 1
                row[-1] += lines[at][indent + 2 :]
                at += 1
        rows.append(row)
    return header, rows


def values_of(display: str, table: Table) -> dict[str, Value]:
    """`column.number` → value of a display of a table."""
    header, rows = cells_of(display)
    columns = list(VOCABULARY.columns(table))
    marked = [f"{VOCABULARY.short(column)}({VOCABULARY.mark(column)})" for column in columns]
    called = VOCABULARY.number_name(table)
    assert header == ([f"{called}(*ro)"] if called else []) + marked
    found: dict[str, Value] = {}
    for row in rows:
        cells = dict(zip(columns, row[1:] if called else row, strict=True))
        index = next((c for c in columns if c.traits.role in (Role.INDEX, Role.INDEX_CREATING)), None)
        number = int(row[0]) if index is None else value_of(index, cells[index])
        found |= {f"{c.name}.{number}": value_of(c, text) for c, text in cells.items() if text != "-"}
    return found


def scalars_of(display: str) -> dict[str, Value]:
    """`name.0` → value of a display of a group of scalars."""
    return {f"{name}.0": value for name, value in _scalars(display)}


def _scalars(display: str) -> Iterator[tuple[str, Value]]:
    for line in display.splitlines():
        found = re.fullmatch(r"(\w+)\( *[*-]*r[wo]\):  (.*)", line)
        assert found, line
        yield found[1], value_of(SCHEMA.columns[found[1]], found[2])


def value_of(column: Column, text: str) -> Value:
    """A shown value, as typing it would be understood; of secrets what reading them gives."""
    if column.traits.role is Role.SECRET:
        assert text in ('"*"', '""')
        return text.strip('"').encode()
    if text == '""' or text.startswith('"'):
        [command] = read_line(text)
        [word] = command.items
        assert isinstance(word, Word)
        return parse(column, word.text, literal=True)
    return parse(column, text)
