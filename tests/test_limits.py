"""docs/limits.md says what the tables say."""

from pathlib import Path

from agent.limits import document
from agent.mib import load_schema

PAGE = Path(__file__).parents[1] / "docs" / "limits.md"


def test_the_page_of_limits_is_what_the_tables_say() -> None:
    assert PAGE.read_text() == document(load_schema())


def test_every_object_that_refuses_values_is_on_the_page() -> None:
    text = PAGE.read_text()
    waiting = [c.name for c in load_schema().columns.values() if c.writable and c.traits.stage != "skeleton"]
    assert waiting
    assert [name for name in waiting if f"| {name} |" not in text] == []
