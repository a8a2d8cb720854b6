"""Imports point one way, as docs/architecture.md has it: each part is read and tested without those above it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

AGENT = Path(__file__).parent.parent / "agent"
PAGE = AGENT.parent / "docs" / "architecture.md"
MAY_IMPORT: dict[str, set[str]] = {
    "mib": set(),
    "plan": {"mib"},
    "store": {"mib"},
    "snmp": {"store", "mib"},
    "pki": {"store", "mib"},
    "shell": {"snmp/client", "mib"},
    "backends": {"plan", "store", "mib"},
    "monitor": {"backends", "plan", "store", "mib"},
}
IMPURE = {"asyncio", "socket", "time", "random", "secrets", "os", "subprocess", "threading", "datetime"}


def imported(path: Path) -> Iterator[str]:
    """Dotted names, with what is taken from a package."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules(folder: str) -> list[Path]:
    return sorted((AGENT / folder).rglob("*.py"))


def ours(folder: str) -> set[tuple[str, str]]:
    """(module, what it imports of the agent beyond its folder as `folder/part`); the version is anybody's."""
    found = set()
    for path in modules(folder):
        for name in imported(path):
            first, *rest = name.split(".")
            if first == "agent" and rest and rest[0] not in (folder, "__version__"):
                found.add((str(path.relative_to(AGENT)), "/".join(rest)))
    return found


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_point_one_way(folder: str) -> None:
    allowed = tuple(f"{each}/" for each in MAY_IMPORT[folder])
    assert modules(folder)
    assert {each for each in ours(folder) if not f"{each[1]}/".startswith(allowed)} == set()


def test_the_plan_knows_no_clock_no_socket_and_no_chance() -> None:
    found = {(path.name, name) for path in modules("plan") for name in imported(path)}
    assert {each for each in found if each[1].split(".")[0] in IMPURE} == set()


def test_the_page_says_so() -> None:
    """Each line of the table in docs/architecture.md is one of ours, and what it names exists."""
    rows = re.findall(r"^\| (`\w+/`(?:, `\w+/`)*) \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    told = {
        folder: set(re.findall(r"`([\w/]+)/`", names))
        for folders, names in rows
        for folder in re.findall(r"`(\w+)/`", folders)
    }
    assert told == MAY_IMPORT
    folders = {path.name for path in AGENT.iterdir() if (path / "__init__.py").is_file()}
    assert folders == {*MAY_IMPORT, "check"}
    missing = [name for name in re.findall(r"`((?:\w+/)+\w+\.py)`", PAGE.read_text()) if not _there(name)]
    assert missing == []


def _there(name: str) -> bool:
    return (AGENT / name).is_file() or (AGENT.parent / name).is_file()
