"""What resolving a profile reads, and where it leaves what it has to say.

A `default` in a profile means the value of the global profile's row, then the built-in one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from agent.plan import cells
from agent.plan.model import ApplyState, Capabilities, ConfigurationView, RowRef, RowView, Verdict
from agent.plan.proposals import ChainElement


def first(rows: Iterable[RowView | None], column: str, inherit: Sequence[int], built_in: int) -> int:
    """The first row's value that does not mean `default`."""
    for row in rows:
        if row is not None and (value := cells.number(row, column)) not in inherit:
            return value
    return built_in


class Resolution:
    """One configuration seen by those who resolve its profiles. `verdicts`: of the rows looked at that have something
    to say."""

    def __init__(self, configuration: ConfigurationView, capabilities: Capabilities) -> None:
        self.configuration = configuration
        self.capabilities = capabilities
        self.verdicts: dict[RowRef, Verdict] = {}

    def row(self, table: str, number: int) -> RowView | None:
        return self.configuration.row(table, number) if number else None

    def scalar(self, name: str) -> int:
        value = self.configuration.scalar(name)
        assert isinstance(value, int)
        return value

    def take(self, elements: Iterable[ChainElement]) -> list[str]:
        """The strings of a chain, each once; what its rows have to say is noted."""
        offers: dict[str, None] = {}
        for element in elements:
            offers |= dict.fromkeys(element.offers)
            if element.problem:
                self.verdicts[element.row] = Verdict(ApplyState.FAILED, element.problem)
            elif element.note:
                self.verdicts.setdefault(element.row, Verdict(ApplyState.APPLIED, element.note))
        return list(offers)
