"""RowStatus of RFC 2579, the vendor's ways to make and remove rows, and chains, as a model of two dictionaries.

It is written from the RFC's table and the words of the design, and knows nothing of the
code it is compared with: rows are dictionaries, a SET is a dictionary of them, and what is
to come of it is the rows afterwards, or the refusals of which one has to come.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

ACTIVE, NOT_IN_SERVICE, NOT_READY, CREATE_AND_GO, CREATE_AND_WAIT, DESTROY = range(1, 7)
WRONG_VALUE, INCONSISTENT_VALUE, INCONSISTENT_NAME = 10, 12, 18  # error-status, RFC 3416 section 3

# RFC 2579, RowStatus, the table of its DESCRIPTION: what is written, by the state before: A there is no row, C it is
# notInService, D it is active. Column B, notReady, is empty: the agent has a default for everything, so that "it is
# known to have all necessary information" and a row goes from A to C at once. A number is the state afterwards.
RFC_2579: Mapping[int, Mapping[str, int | str | None]] = {
    CREATE_AND_GO: {"A": ACTIVE, "C": "inconsistentValue", "D": "inconsistentValue"},
    CREATE_AND_WAIT: {"A": NOT_IN_SERVICE, "C": "inconsistentValue", "D": "inconsistentValue"},
    ACTIVE: {"A": "inconsistentValue", "C": ACTIVE, "D": ACTIVE},
    NOT_IN_SERVICE: {"A": "inconsistentValue", "C": NOT_IN_SERVICE, "D": NOT_IN_SERVICE},
    NOT_READY: {"A": "wrongValue", "C": "wrongValue", "D": "wrongValue"},  # "may be read, but not written"
    DESTROY: {"A": None, "C": None, "D": None},
}
CODES = {"inconsistentValue": INCONSISTENT_VALUE, "wrongValue": WRONG_VALUE}

Place = tuple[str, int]
"""(table, row)."""
Cells = dict[str, int]
Set = Mapping[Place, Mapping[str, int]]
Refusal = tuple[int, tuple[str, int]]
"""(error-status, (column, row) that is to blame)."""


@dataclass(frozen=True)
class Kind:
    """A table: which column makes a row, which value removes it, what points where. `choices`: values to write;
    `moves` and `holds`: pointers that go on to the next row when theirs is removed, and such that forbid it."""

    status: str
    generation: str
    creating: str
    delete: tuple[str, int]
    defaults: Mapping[str, int]
    choices: Mapping[str, Sequence[int]]
    moves: Mapping[str, str] = field(default_factory=dict)
    holds: Mapping[str, str] = field(default_factory=dict)
    link: str = ""


TRAFFIC, PEERS = "ipsecTrafficTable", "ipsecPeerTable"
PROPOSALS, PROFILES, IPSEC_PROPOSALS = "ikeProposalTable", "ikeProfileTable", "ipsecProposalTable"
ROWS = 4  # of each table
NUMBERS = tuple(range(ROWS + 1))

KINDS: Mapping[str, Kind] = {
    TRAFFIC: Kind(
        "ipsecGwTrafficRowStatus",
        "ipsecGwTrafficRowGeneration",
        "ipsecTrProto",
        ("ipsecTrAction", 1),
        {"ipsecTrProto": 255, "ipsecTrAction": 4, "ipsecTrDirection": 1, "ipsecTrNextIndex": 0},
        {"ipsecTrProto": (6, 255), "ipsecTrAction": (3, 5), "ipsecTrDirection": (2, 3), "ipsecTrNextIndex": NUMBERS},
        moves={"ipsecTrNextIndex": TRAFFIC},
        link="ipsecTrNextIndex",
    ),
    PEERS: Kind(
        "ipsecGwPeerRowStatus",
        "ipsecGwPeerRowGeneration",
        "ipsecPeerTrafficList",
        ("ipsecPeerAdminStatus", 15),
        {"ipsecPeerTrafficList": 0, "ipsecPeerAdminStatus": 1, "ipsecPeerPriority": 0, "ipsecPeerIkeProfile": 0},
        {
            "ipsecPeerTrafficList": NUMBERS,
            "ipsecPeerAdminStatus": (1, 2),
            "ipsecPeerPriority": (0, 7),
            "ipsecPeerIkeProfile": NUMBERS,
        },
        moves={"ipsecPeerTrafficList": TRAFFIC},
        holds={"ipsecPeerIkeProfile": PROFILES},
    ),
    PROPOSALS: Kind(
        "ipsecGwIkeProposalRowStatus",
        "ipsecGwIkeProposalRowGeneration",
        "ikePropEncAlg",
        ("ikePropHashAlg", 1),
        {"ikePropEncAlg": 7, "ikePropHashAlg": 5, "ikePropGroup": 2, "ikePropNextChoice": 0},
        {
            "ikePropEncAlg": (3, 7),
            "ikePropHashAlg": (4, 7),
            "ikePropGroup": (5, 14),
            "ikePropNextChoice": NUMBERS,
        },
        moves={"ikePropNextChoice": PROPOSALS},
        link="ikePropNextChoice",
    ),
    PROFILES: Kind(
        "ipsecGwIkeProfileRowStatus",
        "ipsecGwIkeProfileRowGeneration",
        "ikePrfProposal",
        ("ikePrfAuthMethod", 15),
        {"ikePrfProposal": 0, "ikePrfAuthMethod": 14, "ikePrfMode": 3},
        {"ikePrfProposal": NUMBERS, "ikePrfAuthMethod": (1, 14), "ikePrfMode": (1, 4)},
        holds={"ikePrfProposal": PROPOSALS},
    ),
    IPSEC_PROPOSALS: Kind(  # the column that makes a row removes it too
        "ipsecGwIpsecProposalRowStatus",
        "ipsecGwIpsecProposalRowGeneration",
        "ipsecPropProto",
        ("ipsecPropProto", 8),
        {"ipsecPropProto": 1, "ipsecPropEspAes": 0, "ipsecPropEspSha256": 0},
        {"ipsecPropProto": (1,), "ipsecPropEspAes": (0, 1), "ipsecPropEspSha256": (0, 1)},
    ),
}
COLUMNS = {table: (kind.status, kind.generation, *kind.defaults) for table, kind in KINDS.items()}


class Outcome(NamedTuple):
    """Either `rows` afterwards, or the refusals of which one has to come."""

    rows: dict[Place, Cells] | None
    refusals: frozenset[Refusal] = frozenset()


class Model:
    """All rows. A row's cells are its status, its generation and the columns of its kind."""

    def __init__(self, generation: int) -> None:
        self.rows: dict[Place, Cells] = {}
        self.generation = generation

    def accept(self, rows: dict[Place, Cells]) -> None:
        """A SET went through: what differs is of the next generation."""
        changed = [place for place in {*rows, *self.rows} if rows.get(place) != self.rows.get(place)]
        if changed:
            self.generation += 1
        for place in changed:
            if place in rows:
                rows[place][KINDS[place[0]].generation] = self.generation
        self.rows = rows

    def expect(self, named: Set) -> Outcome:
        """What is to become of a SET; stage by stage, since a later one is not reached when an earlier refuses."""
        rows = {place: dict(cells) for place, cells in self.rows.items()}
        refusals = {refusal for place, values in named.items() for refusal in self._row(rows, place, values)}
        for stage in (self._held, self._pointing, self._rings):
            if refusals:
                return Outcome(None, frozenset(refusals))
            refusals = set(stage(rows, named))
        return Outcome(None, frozenset(refusals)) if refusals else Outcome(rows)

    def _row(self, rows: dict[Place, Cells], place: Place, named: Mapping[str, int]) -> Iterator[Refusal]:
        """The row after its varbinds: the RFC's table, then what the vendor has beside it."""
        table, number = place
        kind, row = KINDS[table], rows.get(place)
        state = "A" if row is None else "D" if row[kind.status] == ACTIVE else "C"
        guard = named.get(kind.generation)
        if guard is not None and guard != (row[kind.generation] if row else 0):
            yield INCONSISTENT_VALUE, (kind.generation, number)
        asked = named.get(kind.status)
        column, value = kind.delete
        deletes = named.get(column) == value
        cells = {name: each for name, each in named.items() if name in kind.defaults and (name, each) != kind.delete}
        if asked == NOT_READY:
            yield WRONG_VALUE, (kind.status, number)
            return
        if deletes or asked == DESTROY:  # the vendor's delete value is a destroy; what goes cannot be changed too
            if asked not in (None, DESTROY):
                yield INCONSISTENT_VALUE, (kind.status, number)
            for name in cells:
                yield INCONSISTENT_VALUE, (name, number)
            rows.pop(place, None)
            return
        if asked is not None:
            after = RFC_2579[asked][state]
            if isinstance(after, str):
                yield CODES[after], (kind.status, number)
                return
            assert after is not None
        elif row is not None:
            after = row[kind.status]
        elif kind.creating in named:  # the vendor's way
            after = ACTIVE
        else:  # RFC 2579's "set other columns" in state A, without a creating column; a guard alone makes no row
            for name in cells or named:
                yield INCONSISTENT_NAME, (name, number)
            return
        rows[place] = {**(row or {**kind.defaults, kind.generation: 0}), kind.status: after, **cells}

    def _held(self, rows: dict[Place, Cells], named: Set) -> Iterator[Refusal]:
        """A row in use cannot go; links and heads that nobody sets move on to the row behind."""
        for (table, number), cells in rows.items():
            kind, values = KINDS[table], named.get((table, number), {})
            for column, target in {**kind.moves, **kind.holds}.items():
                gone = (target, cells[column])
                if column in values or gone not in self.rows or gone in rows:
                    continue
                if column in kind.holds:
                    for name in named[gone]:
                        yield INCONSISTENT_VALUE, (name, gone[1])
                while gone in self.rows and gone not in rows:
                    gone = (target, self.rows[gone][KINDS[target].link]) if KINDS[target].link else (target, 0)
                cells[column] = gone[1]

    def _pointing(self, rows: dict[Place, Cells], named: Set) -> Iterator[Refusal]:
        for (table, number), cells in rows.items():
            kind, values = KINDS[table], named.get((table, number), {})
            for column, target in {**kind.moves, **kind.holds}.items():
                if column in values and cells[column] and (target, cells[column]) not in rows:
                    yield INCONSISTENT_VALUE, (column, number)

    def _rings(self, rows: dict[Place, Cells], named: Set) -> Iterator[Refusal]:
        for (table, number), _ in rows.items():
            link = KINDS[table].link
            if not link or link not in named.get((table, number), {}):
                continue
            at, steps = rows[table, number][link], 0
            while at not in (0, number) and steps <= ROWS:
                at, steps = rows[table, at][link], steps + 1
            if at == number:
                yield INCONSISTENT_VALUE, (link, number)
