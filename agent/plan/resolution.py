"""What resolving a profile reads, and where it leaves what it has to say.

A `default` in a profile means the value of the global profile's row, then the built-in one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

from agent.plan import cells
from agent.plan.certificates import Certificates
from agent.plan.keylengths import KeyBounds
from agent.plan.model import ApplyState, Capabilities, ConfigurationView, RowRef, RowView, Verdict
from agent.plan.proposals import ChainElement

AND = "; "  # between what there is to say of one row
YES = 1  # TruthValue true, ipsecGlobContSupportVarKeyLength4Twofish yes


def first(rows: Iterable[RowView | None], column: str, inherit: Sequence[int], built_in: int) -> int:
    """The first row's value that does not mean `default`."""
    for row in rows:
        if row is not None and (value := cells.number(row, column)) not in inherit:
            return value
    return built_in


def first_group(rows: Iterable[RowView | None], column: str, modern: str) -> int:
    """The first row's Diffie-Hellman group, 0 for none; in a row the modern column counts before the other."""
    for row in rows:
        if row is not None and (value := cells.number(row, modern) or cells.number(row, column)):
            return value
    return 0


class Resolution:
    """One configuration seen by those who resolve its profiles. `verdicts`: of the rows looked at that have something
    to say."""

    def __init__(self, configuration: ConfigurationView, capabilities: Capabilities) -> None:
        self.configuration = configuration
        self.capabilities = capabilities
        self.verdicts: dict[RowRef, Verdict] = {}
        self._useful: set[RowRef] = set()  # proposals of which something is offered to some peer
        self.bounds = KeyBounds(
            self.scalar("ipsecGlobMaxKeyLength"), self.scalar("ipsecGlobContSupportVarKeyLength4Twofish") == YES
        )

    @cached_property
    def certificates(self) -> Certificates:
        return Certificates(self.configuration)

    def row(self, table: str, number: int) -> RowView | None:
        return self.configuration.row(table, number) if number else None

    def scalar(self, name: str) -> int:
        value = self.configuration.scalar(name)
        assert isinstance(value, int)
        return value

    def note(self, row: RowRef, text: str) -> None:
        """Something to say of a row that is in force; beside what else there is to say of it."""
        known = self.verdicts.get(row)
        if known is None:
            self.verdicts[row] = Verdict(ApplyState.APPLIED, text)
        elif known.state is ApplyState.APPLIED and text not in known.text:
            self.verdicts[row] = Verdict(ApplyState.APPLIED, AND.join((known.text, text)))

    def take(self, elements: Sequence[ChainElement]) -> list[str]:
        """The strings of a chain, each once; what its rows have to say is noted. A proposal that serves the peers of
        one IKE version and not those of the other has not failed."""
        offers: dict[str, None] = {}
        for element in elements:
            offers |= dict.fromkeys(element.offers)
            text = element.problem or element.note
            known = self.verdicts.get(element.row)
            if element.offers:
                self._useful.add(element.row)
                if known is not None and known.state is ApplyState.FAILED:
                    self.verdicts[element.row] = Verdict(ApplyState.APPLIED, known.text)
            if not text:
                continue
            if element.problem and element.row not in self._useful:
                self.verdicts[element.row] = Verdict(ApplyState.FAILED, text)
            else:
                self.note(element.row, text)
        return list(offers)


def nothing_left(phase: int, elements: Sequence[ChainElement]) -> str:
    """Why a chain of which nothing is left cannot be used."""
    reasons = dict.fromkeys(element.problem for element in elements if element.problem)
    why = f": {next(iter(reasons))}" if len(reasons) == 1 else ""
    return f"no proposal of its phase {phase} chain can be used{why}"
