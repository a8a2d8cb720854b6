"""Every object that can be written names what shows its effect, and what it names is there.

docs/objects.md prints the names; this is what keeps them from being words only.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from agent.mib import load_schema
from agent.mib.document import LAB, MECHANISMS, document
from agent.mib.schema import Column
from agent.mib.traits import KEPT, REFUSED
from tests.lab.registry import SCENARIOS, chosen

PROJECT = Path(__file__).parent.parent
SCHEMA = load_schema()
WRITABLE = [column for column in SCHEMA.columns.values() if column.writable]


def named(column: Column) -> list[str]:
    return column.traits.shown.split("; ") if column.traits.shown else []


@cache
def declared_in(path: str) -> frozenset[str]:
    """Test functions at the top of a file, which is read and not imported: some need programs to be imported."""
    file = PROJECT / path
    if not (path.startswith("tests/test_") and file.is_file()):
        return frozenset()
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    tree = ast.parse(file.read_text("utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, functions) and node.name.startswith("test_"))


@cache
def scenarios() -> frozenset[str]:
    chosen([])
    return frozenset(SCENARIOS)


def is_there(shown: str) -> bool:
    """`tests/test_x.py::test_y` or `lab: scenario`."""
    if shown.startswith(LAB):
        return shown.removeprefix(LAB) in scenarios()
    path, _, test = shown.partition("::")
    return test in declared_in(path)


def test_every_writable_object_says_what_it_does_by_what_and_what_shows_it() -> None:
    assert len(WRITABLE) > 440
    assert [c.name for c in WRITABLE if not (c.traits.effect and c.traits.mechanism and named(c))] == []
    assert {word for c in WRITABLE for word in c.traits.mechanism.split(", ")} <= set(MECHANISMS)


def test_what_is_named_is_there() -> None:
    missing = {column.name: [each for each in named(column) if not is_there(each)] for column in WRITABLE}
    assert {name: each for name, each in missing.items() if each} == {}


@pytest.mark.parametrize(
    "shown",
    [
        "lab: no_such_scenario",
        "lab: first",  # a boot
        "tests/test_shown.py",
        "tests/test_shown.py::is_there",
        "tests/test_shown.py::test_of_nothing",
        "tests/test_nothing.py::test_what_is_named_is_there",
        "tests/lab/first.py::start",
        "agent/limits.py::document",
        "",
    ],
)
def test_what_is_not_there_is_noticed(shown: str) -> None:
    assert not is_there(shown)


def test_what_acts_is_shown_by_more_than_a_refusal_and_what_does_not_by_one() -> None:
    acting = [column for column in WRITABLE if column.traits.stage == "skeleton"]
    assert [column.name for column in acting if {REFUSED, KEPT} & set(named(column))] == []
    assert REFUSED != KEPT and is_there(REFUSED) and is_there(KEPT)


def test_a_row_of_the_page_holds_all_of_it() -> None:
    """Effect, mechanism, limit and what shows it stand in one line of docs/objects.md for each object."""
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in document(SCHEMA).splitlines()}
    for column in WRITABLE:
        traits = column.traits
        cells = lines[column.name].replace("\\|", "|").removeprefix("| ").removesuffix(" |").split(" | ")
        assert len(cells) == 8, column.name
        assert traits.effect.rstrip(".") in cells[4] and cells[5:7] == [traits.mechanism, traits.limit]
        for each in named(column):
            words = each.partition("::")[2].removeprefix("test_").replace("_", " ")
            assert (each if each.startswith(LAB) else f"[{words}](../{each.partition('::')[0]})") in cells[7]
