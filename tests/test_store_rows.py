"""The row status machine, against the table of RFC 2579 and by a random walk against a small model."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent.store.candidate import Candidates
from agent.store.errors import ErrorStatus, Refused
from agent.store.hooks import Edit, Origin
from agent.store.references import References
from agent.store.rows import Part, RowRefused, Status, Wish, next_status
from agent.store.secrets import Secrets
from agent.store.snapshot import Configuration
from tests.store_schema import SCHEMA

MANAGER = Origin("snmp", "m", "127.0.0.1:9", secure=True)
WRONG, VALUE, NAME = ErrorStatus.WRONG_VALUE, ErrorStatus.INCONSISTENT_VALUE, ErrorStatus.INCONSISTENT_NAME
ACTIVE, SUSPENDED = Status.ACTIVE, Status.NOT_IN_SERVICE

# What is written to RowStatus alone, in each state (no row, notInService, active): RFC 2579's table. A row has all it
# needs as soon as it is there, so the column of notReady is that of notInService.
TABLE: dict[Status, tuple[object, object, object]] = {
    Status.CREATE_AND_GO: (ACTIVE, VALUE, VALUE),
    Status.CREATE_AND_WAIT: (SUSPENDED, VALUE, VALUE),
    Status.ACTIVE: (VALUE, ACTIVE, ACTIVE),
    Status.NOT_IN_SERVICE: (VALUE, SUSPENDED, SUSPENDED),
    Status.NOT_READY: (WRONG, WRONG, WRONG),
    Status.DESTROY: (None, None, None),
}


@pytest.mark.parametrize("asked", Status)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_row_status_goes_as_rfc_2579_says(asked: Status, at: int) -> None:
    now = (None, SUSPENDED, ACTIVE)[at]
    expected = TABLE[asked][at]
    if isinstance(expected, ErrorStatus):
        with pytest.raises(RowRefused) as refused:
            next_status(now, Wish(asked))
        assert (refused.value.status, refused.value.part) == (expected, Part.STATUS)
        assert refused.value.accepted
    else:
        assert next_status(now, Wish(asked)) == expected


@pytest.mark.parametrize("now", [ACTIVE, SUSPENDED])
def test_other_columns_of_a_row_leave_its_status(now: Status) -> None:
    assert next_status(now, Wish(creates=True, others=True)) is now
    assert next_status(now, Wish(others=True)) is now


def test_a_creating_column_makes_an_active_row_and_others_alone_none() -> None:
    assert next_status(None, Wish(creates=True, others=True)) is ACTIVE
    assert next_status(None, Wish(Status.CREATE_AND_WAIT, creates=True)) is SUSPENDED
    with pytest.raises(RowRefused) as refused:
        next_status(None, Wish(others=True))
    assert (refused.value.status, refused.value.part) == (NAME, Part.OTHER)


@pytest.mark.parametrize("now", [None, ACTIVE, SUSPENDED])
def test_the_delete_value_is_as_destroy_and_goes_alone(now: Status | None) -> None:
    assert next_status(now, Wish(deletes=True)) is None
    assert next_status(now, Wish(Status.DESTROY, deletes=True)) is None
    for wish, part in (
        (Wish(ACTIVE, deletes=True), Part.STATUS),
        (Wish(deletes=True, others=True), Part.OTHER),
        (Wish(Status.DESTROY, creates=True), Part.CREATING),
    ):
        with pytest.raises(RowRefused) as refused:
            next_status(now, wish)
        assert (refused.value.status, refused.value.part) == (VALUE, part)


@dataclass
class Modelled:
    """A row as a person would describe it."""

    status: int = 1
    cells: dict[str, int] = field(default_factory=dict)


DEFAULTS = {"ruleProto": 255, "ruleAction": 4, "ruleNext": 0}
ROWS = 5
NUMBERS = st.integers(1, ROWS)


NAMED = st.fixed_dictionaries(
    {},
    optional={
        "ruleProto": st.integers(0, 3),
        "ruleAction": st.sampled_from([1, 3, 4, 5]),
        "ruleNext": st.integers(0, ROWS),
        "ruleRowStatus": st.integers(1, 6),
        "ruleRowGeneration": st.integers(0, 12),
    },
)
FEWER = st.sampled_from([{"ruleRowStatus": 6}, {"ruleAction": 1}]) | st.builds(
    lambda n: {"ruleNext": n}, st.integers(0, ROWS)
)


class RuleTable(RuleBasedStateMachine):
    """SETs of some varbinds on a table whose rows form chains, against a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.running = Configuration.empty(SCHEMA)
        self.candidates = Candidates(References(self.running), Secrets(bytes(32)))
        self.model: dict[int, Modelled] = {}

    @initialize()
    def a_chain(self) -> None:
        numbers = range(1, ROWS + 1)
        self.a_set({n: {"ruleProto": 6, "ruleNext": n + 1 if n < ROWS else 0} for n in numbers}, Random(1))

    @precondition(lambda self: len(self.model) < 3)
    @rule(order=st.permutations(range(1, ROWS + 1)))
    def a_new_chain(self, order: list[int]) -> None:
        self.a_set({number: {"ruleRowStatus": 6} for number in self.model}, Random(1))
        behind = dict(zip(order, [*order[1:], 0], strict=True))
        self.a_set({number: {"ruleProto": 6, "ruleNext": behind[number]} for number in order}, Random(2))

    @rule(number=NUMBERS, named=NAMED, dice=st.randoms(use_true_random=False))
    def one_row(self, number: int, named: dict[str, int], dice: Random) -> None:
        self.a_set({number: named}, dice)

    @rule(rows=st.dictionaries(NUMBERS, FEWER | NAMED, max_size=4), dice=st.randoms(use_true_random=False))
    def some_rows(self, rows: dict[int, dict[str, int]], dice: Random) -> None:
        self.a_set(rows, dice)

    @rule(numbers=st.sets(NUMBERS, min_size=2, max_size=3), dice=st.randoms(use_true_random=False))
    def some_rows_go(self, numbers: set[int], dice: Random) -> None:
        self.a_set({number: {"ruleRowStatus": 6} for number in numbers}, dice)

    def a_set(self, rows: dict[int, dict[str, int]], dice: Random) -> None:
        order = [(number, name, value) for number, named in rows.items() for name, value in named.items()]
        dice.shuffle(order)
        if order:
            edits = [Edit(SCHEMA.columns[name], number, value) for number, name, value in order]
            self.send(edits, self.expect({number: named for number, named in rows.items() if named}))

    def expect(self, named: dict[int, dict[str, int]]) -> dict[int, Modelled] | set[ErrorStatus]:
        """The rows afterwards, or the errors of which one must come."""
        rows = {n: Modelled(row.status, dict(row.cells)) for n, row in self.model.items()}
        errors: set[ErrorStatus] = set()
        for number, values in named.items():
            errors |= self.expect_row(rows, number, values)
        for number, row in rows.items():
            while "ruleNext" not in named.get(number, {}) and row.cells["ruleNext"] not in (0, *rows):
                gone = self.model.get(row.cells["ruleNext"])
                row.cells["ruleNext"] = gone.cells["ruleNext"] if gone else 0
        if any(row.cells["ruleNext"] not in (0, *rows) for row in rows.values()) or self.rings(rows):
            errors.add(VALUE)
        return errors or rows

    def expect_row(self, rows: dict[int, Modelled], number: int, named: dict[str, int]) -> set[ErrorStatus]:
        row = rows.get(number)
        status = named.get("ruleRowStatus")
        errors: set[ErrorStatus] = {WRONG} if status == 3 else set()
        stored = self.running.table("ruleTable").row(number)
        generation = 0 if stored is None else stored["ruleRowGeneration"]
        if named.get("ruleRowGeneration", generation) != generation:
            errors.add(VALUE)
        deletes = named.get("ruleAction") == 1
        columns = {name for name in named if name in DEFAULTS} - ({"ruleAction"} if deletes else set())
        if deletes or status == 6:
            if status not in (None, 6) or columns:
                errors.add(VALUE)
            rows.pop(number, None)
            return errors
        if row is None:
            if status in (1, 2):
                errors.add(VALUE)
            elif status is None and "ruleProto" not in named:
                errors.add(NAME)
            row = rows[number] = Modelled(2 if status == 5 else 1, dict(DEFAULTS))
        elif status in (4, 5):
            errors.add(VALUE)
        elif status in (1, 2):
            row.status = status
        row.cells.update({name: named[name] for name in columns})
        return errors

    @staticmethod
    def rings(rows: dict[int, Modelled]) -> bool:
        for start in rows:
            at, steps = start, 0
            while at in rows and steps <= len(rows):
                at, steps = rows[at].cells["ruleNext"], steps + 1
            if steps > len(rows):
                return True
        return False

    def send(self, edits: list[Edit], expected: dict[int, Modelled] | set[ErrorStatus]) -> None:
        try:
            candidate = self.candidates.build(self.running, edits, MANAGER)
        except Refused as refused:
            assert isinstance(expected, set), f"{refused.text}, and the model allows it"
            assert refused.status in expected, refused.text
            assert 0 <= refused.edit < len(edits)
            edit = edits[refused.edit]
            assert refused.text.startswith(f"{edit.column.name}.{edit.number} = "), "it names the varbind it blames"
            return
        assert isinstance(expected, dict), f"accepted, and the model says {expected}"
        if candidate is None:
            assert expected == self.model, "nothing was changed where something should be"
            return
        assert candidate.after.generation == self.running.generation + 1
        self.candidates.references.move(candidate.moves)
        self.running, self.model = candidate.after, expected

    @invariant()
    def the_table_is_the_model(self) -> None:
        rows = {
            row.number: Modelled(int(str(row["ruleRowStatus"])), {name: int(str(row[name])) for name in DEFAULTS})
            for row in self.running.rows_any_status("ruleTable")
        }
        assert rows == self.model
        assert {row.number for row in self.running.rows("ruleTable")} == {n for n, r in rows.items() if r.status == 1}
        assert all(row["ruleIndex"] == row.number for row in self.running.rows_any_status("ruleTable"))

    @invariant()
    def the_reverse_is_that_of_a_fresh_look(self) -> None:
        assert self.candidates.references._sources == References(self.running)._sources


RuleTable.TestCase.settings = settings(max_examples=120, stateful_step_count=25, deadline=None)
TestRuleTable = RuleTable.TestCase
