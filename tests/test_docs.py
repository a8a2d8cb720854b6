"""The pages of docs: each is found from README.md, and what they link to is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
PAGES = sorted((PROJECT / "docs").glob("*.md"))
LINK = re.compile(r"\[[^\]]*\]\(([^)#:]+)(?:#[^)]*)?\)")
OBJECT = re.compile(r"\b(?:ipsecGw|ipsecPeer|ipsecGlob|ipsecTr|biboAdm|ikePrf|ipsecPrf)[A-Z]\w*")


def test_readme_links_every_page() -> None:
    linked = {PROJECT / target for target in LINK.findall((PROJECT / "README.md").read_text())}
    assert [page.name for page in PAGES if page not in linked] == []


@pytest.mark.parametrize("page", [PROJECT / "README.md", *PAGES], ids=lambda page: page.name)
def test_what_a_page_links_to_and_names_is_there(page: Path) -> None:
    text = page.read_text()
    assert [target for target in LINK.findall(text) if not (page.parent / target).exists()] == []
    modules = "\n".join(path.read_text() for path in (PROJECT / "mibs").iterdir() if path.is_file())
    assert set(OBJECT.findall(text)) - set(re.findall(r"\w+", modules)) == set()


def test_every_finding_of_check_is_explained() -> None:
    names = set()
    for module in (PROJECT / "agent" / "check").glob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                first = node.args[0]
                if node.func.id in ("error", "warning", "note") and isinstance(first, ast.Constant):
                    names.add(str(first.value))
    assert "row-failed" in names and len(names) > 20
    page = (PROJECT / "docs" / "troubleshooting.md").read_text()
    assert {name for name in names if f"`{name}`" not in page} == set()
