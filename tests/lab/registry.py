"""What a scenario is: a function that is given the world, in one of the boots, and states what it checked.

The list is read on the host (which boot, which order) and run in the guest.
"""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tests.lab.world import World

MARK = "LAB "


class Scenario(NamedTuple):
    """`needs`: scenarios of the same boot that have to run before it. `text`: the first sentence of its docstring."""

    name: str
    boot: str
    needs: tuple[str, ...]
    text: str
    play: Callable[[World], None]


SCENARIOS: dict[str, Scenario] = {}


def scenario(boot: str, *needs: str) -> Callable[[Callable[[World], None]], Callable[[World], None]]:
    """Register a function under its name; scenarios of a boot run in the order they are written."""

    def register(play: Callable[[World], None]) -> Callable[[World], None]:
        text = (play.__doc__ or "").strip().split("\n\n")[0]
        SCENARIOS[play.__name__] = Scenario(play.__name__, boot, needs, " ".join(text.split()), play)
        return play

    return register


def chosen(names: list[str]) -> dict[str, list[str]]:
    """Scenarios per boot, with what they need, for names of scenarios or boots; all for none. Raises KeyError."""
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if f"@{scenario.__name__}(" in path.read_text("utf-8") and path.stem != Path(__file__).stem:
            importlib.import_module(f"tests.lab.{path.stem}")  # importing registers

    wanted: set[str] = set()
    boots = {each.boot for each in SCENARIOS.values()}
    assert boots.isdisjoint(SCENARIOS), "a scenario that is called as a boot would bring all of that"
    pending = list(names) if names else sorted(boots)
    while pending:
        name = pending.pop()
        if name in boots:
            pending += [each.name for each in SCENARIOS.values() if each.boot == name]
        elif name not in wanted:
            wanted.add(name)
            pending += SCENARIOS[name].needs
    order: dict[str, list[str]] = {}
    for each in SCENARIOS.values():
        if each.name in wanted:
            order.setdefault(each.boot, []).append(each.name)
    return order


def report(kind: str, **values: object) -> None:
    """A line for the host, found among whatever else is on the console."""
    print(MARK + json.dumps({"kind": kind, "at": round(time.monotonic(), 1), **values}), flush=True)
