"""RowStatus, creation and removal by the vendor's columns, and chains: random SETs on the real store, and on a running
agent by SNMP, against the model of row_model.py. Every answer, the varbind it blames, and every cell are compared."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import ClassVar, Protocol

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from agent.mib import load_schema
from agent.mib.ber import decode_value, encode_value
from agent.store.errors import Refused
from agent.store.hooks import Edit, Origin
from agent.store.store import Store
from tests import row_model as model
from tests.row_model import COLUMNS, DESTROY, KINDS, PEERS, PROFILES, PROPOSALS, ROWS, TRAFFIC, Cells, Model, Place
from tests.snmp_station import GET, SET, decode_community, encode_community, encode_pdu
from tests.station import COMMUNITY, NULL, Agent, instance

SCHEMA = load_schema()
MANAGER = Origin("snmp", "m", "127.0.0.1", secure=True)
VarBind = tuple[str, int, int]
"""(column, row, value)."""


class Subject(Protocol):
    """What is tested: takes SETs, and shows its rows."""

    def set(self, varbinds: list[VarBind]) -> tuple[int, int]:
        """(error-status, error-index)."""

    def rows(self) -> dict[Place, Cells]: ...
    def generation(self) -> int: ...


class RealStore:
    """On SQLite, with its thread and its fsync."""

    def __init__(self, folder: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self.store = Store.open(SCHEMA, "", folder)

    def set(self, varbinds: list[VarBind]) -> tuple[int, int]:
        edits = [Edit(SCHEMA.columns[name], number, value) for name, number, value in varbinds]
        try:
            self.loop.run_until_complete(self.store.commit(edits, MANAGER))
        except Refused as refused:
            name, number, _ = varbinds[refused.edit]
            assert refused.text.startswith(f"{name}.{number} = "), "the text names the varbind that the index does"
            return int(refused.status), refused.edit + 1
        return 0, 0

    def rows(self) -> dict[Place, Cells]:
        found: dict[Place, Cells] = {}
        for table, columns in COLUMNS.items():
            for row in self.store.running.rows_any_status(table):
                found[table, row.number] = {name: int(str(row[name])) for name in columns}
        return found

    def generation(self) -> int:
        return self.store.running.generation

    def close(self) -> None:
        self.loop.run_until_complete(self.store.close())
        self.loop.close()


class RunningAgent:
    """`ipsec-agent serve` in a process of its own, asked by SNMPv2c."""

    def __init__(self, folder: Path) -> None:
        self.agent = Agent(folder / "state")
        self.agent.start()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.settimeout(20)
        self.socket.connect(("127.0.0.1", self.agent.port))
        self.request = 1

    def ask(self, kind: int, varbinds: list[tuple[tuple[int, ...], bytes]]) -> tuple[int, int, list[bytes]]:
        self.request += 1
        self.socket.send(encode_community(1, COMMUNITY.decode(), encode_pdu(kind, self.request, varbinds)))
        reply = decode_community(self.socket.recv(65535))
        assert reply.request_id == self.request
        assert [oid for oid, _ in reply.varbinds] == [oid for oid, _ in varbinds]
        return reply.status, reply.index, [value for _, value in reply.varbinds]

    def set(self, varbinds: list[VarBind]) -> tuple[int, int]:
        pairs = [
            (instance(name, number), encode_value(SCHEMA.columns[name].wire, value)) for name, number, value in varbinds
        ]
        status, index, values = self.ask(SET, pairs)
        assert values == [value for _, value in pairs], "a response repeats the request's values"
        return status, index

    def rows(self) -> dict[Place, Cells]:
        cells = [(table, n, name) for table, columns in COLUMNS.items() for n in range(1, ROWS + 1) for name in columns]
        found: dict[Place, Cells] = {}
        for part in (cells[:100], cells[100:]):  # the guard lets 128 pass
            status, _, values = self.ask(GET, [(instance(name, n), NULL) for _, n, name in part])
            assert status == 0
            for (table, n, name), value in zip(part, values, strict=True):
                if value[0] != 0x81:  # noSuchInstance
                    decoded = decode_value(value)
                    assert isinstance(decoded, int)
                    found.setdefault((table, n), {})[name] = decoded
        return found

    def generation(self) -> int:
        value = decode_value(self.ask(GET, [(instance("ipsecGwGeneration", 0), NULL)])[2][0])
        assert isinstance(value, int)
        return value

    def close(self) -> None:
        for asking in [self.socket, *(station.socket for station in self.agent.stations)]:
            asking.close()
        assert self.agent.stop() == 0


# ---- SETs ---------------------------------------------------------------------------------------


def some_row(table: str) -> st.SearchStrategy[dict[str, int]]:
    """Varbinds of one row: one of the usual ways, or anything."""
    kind = KINDS[table]
    column, value = kind.delete
    cells: dict[str, st.SearchStrategy[int]] = {
        name: st.sampled_from(list(choices)) for name, choices in kind.choices.items()
    }
    others = {name: choice for name, choice in cells.items() if name != kind.creating}
    status = st.integers(1, 6)
    return st.one_of(
        st.fixed_dictionaries({kind.creating: cells[kind.creating]}, optional=others),
        st.fixed_dictionaries({}, optional=others),
        st.fixed_dictionaries({kind.status: status}),
        st.fixed_dictionaries({kind.status: st.sampled_from([4, 5])}, optional=cells),
        st.just({kind.status: DESTROY}),
        st.just({column: value}),
        st.fixed_dictionaries(
            {},
            optional={
                **cells,
                column: st.sampled_from([*kind.choices[column], value]),
                kind.status: status,
                kind.generation: st.integers(0, 9),
            },
        ),
    )


PLACES = st.tuples(st.sampled_from(list(KINDS)), st.integers(1, ROWS))
ONE_ROW = PLACES.flatmap(lambda place: st.tuples(st.just(place), some_row(place[0])))
DICE = st.randoms(use_true_random=False)
CHAINED = st.sampled_from([TRAFFIC, PROPOSALS])
POINTERS = [(table, c, to) for table, kind in KINDS.items() for c, to in {**kind.moves, **kind.holds}.items()]


class Machine(RuleBasedStateMachine):
    """SETs of one row and of several, chains that are made, cut and turned, rows that go while others point to them."""

    subject: ClassVar[Subject]

    def __init__(self) -> None:
        super().__init__()
        there = self.subject.rows()
        if there:  # of the example before; all at once, so nothing is in use by what stays
            status, _ = self.subject.set([(KINDS[table].status, number, DESTROY) for table, number in there])
            assert status == 0
        self.model = Model(self.subject.generation())

    @initialize(dice=DICE)
    def something_is_there(self, dice: Random) -> None:
        self.a_chain(TRAFFIC, list(range(1, ROWS + 1)), dice)
        self.a_chain(PROPOSALS, list(range(ROWS, 0, -1)), dice)
        rows: dict[Place, dict[str, int]] = {(PROFILES, 1): {"ikePrfProposal": ROWS}, (PROFILES, 2): {}}
        rows[PROFILES, 2] = {"ipsecGwIkeProfileRowStatus": 5}
        rows[PEERS, 1] = {"ipsecPeerTrafficList": 1, "ipsecPeerIkeProfile": 2}
        self.send(rows, dice)

    @rule(row=ONE_ROW, dice=DICE)
    def one_row(self, row: tuple[Place, dict[str, int]], dice: Random) -> None:
        self.send(dict([row]), dice)

    @rule(rows=st.lists(ONE_ROW, min_size=2, max_size=4), dice=DICE)
    def some_rows(self, rows: list[tuple[Place, dict[str, int]]], dice: Random) -> None:
        self.send(dict(rows), dice)

    @rule(table=CHAINED, order=st.permutations(range(1, ROWS + 1)), dice=DICE)
    def a_chain(self, table: str, order: list[int], dice: Random) -> None:
        """All rows of a table one behind the other, made or reordered in one SET."""
        kind = KINDS[table]
        behind = dict(zip(order, [*order[1:], 0], strict=True))
        self.send(
            {(table, n): {kind.creating: kind.choices[kind.creating][0], kind.link: behind[n]} for n in order}, dice
        )

    @rule(table=CHAINED, links=st.dictionaries(st.integers(1, ROWS), st.integers(0, ROWS), min_size=1), dice=DICE)
    def links_only(self, table: str, links: Mapping[int, int], dice: Random) -> None:
        """Rings among them."""
        self.send({(table, number): {KINDS[table].link: to} for number, to in links.items()}, dice)

    @rule(
        places=st.sets(PLACES, min_size=1, max_size=4), ways=st.lists(st.booleans(), min_size=4, max_size=4), dice=DICE
    )
    def some_go(self, places: set[Place], ways: list[bool], dice: Random) -> None:
        """By destroy and by the delete value."""
        gone: dict[Place, dict[str, int]] = {}
        for place, way in zip(sorted(places), ways, strict=False):
            kind = KINDS[place[0]]
            gone[place] = {kind.status: DESTROY} if way else dict([kind.delete])
        self.send(gone, dice)

    @rule(
        pointer=st.sampled_from(POINTERS), number=st.integers(1, ROWS), to=st.integers(0, ROWS), dice=DICE,
        also=st.sampled_from(["nothing", "destroyed", "made"]),
    )  # fmt: skip
    def a_pointer(self, pointer: tuple[str, str, str], number: int, to: int, also: str, dice: Random) -> None:
        """To a row, perhaps one that goes or comes in the same SET."""
        table, column, target = pointer
        rows: dict[Place, dict[str, int]] = {(table, number): {column: to}}
        if to and also != "nothing" and (target, to) != (table, number):
            rows[target, to] = {KINDS[target].status: DESTROY if also == "destroyed" else model.CREATE_AND_GO}
        self.send(rows, dice)

    def send(self, rows: Mapping[Place, Mapping[str, int]], dice: Random) -> None:
        """One SET of all that in any order, on both sides."""
        named = {place: dict(cells) for place, cells in rows.items() if cells}
        for place, cells in named.items():
            guard = KINDS[place[0]].generation
            if guard in cells and cells[guard] < 5:  # half of the guards are right
                cells[guard] = self.model.rows.get(place, {}).get(guard, 0)
        varbinds = [(name, number, value) for (_, number), cells in named.items() for name, value in cells.items()]
        if not varbinds:
            return
        dice.shuffle(varbinds)
        expected = self.model.expect(named)
        status, index = self.subject.set(varbinds)
        if expected.rows is None:
            blamed = varbinds[index - 1][:2] if index else ("", 0)
            assert (status, blamed) in expected.refusals, f"{varbinds}: one of {expected.refusals} was to come"
        else:
            assert (status, index) == (0, 0), f"{varbinds}: was to go through"
            self.model.accept(expected.rows)
        assert self.subject.rows() == self.model.rows
        assert self.subject.generation() == self.model.generation


def run(subject: Subject, examples: int, steps: int) -> None:
    """The same SETs every time, and a failure is told as it came: making it smaller would take minutes."""
    machine = type("Subjected", (Machine,), {"subject": subject})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            phases=(Phase.generate,),
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_store_is_the_model() -> None:
    with tempfile.TemporaryDirectory() as folder:
        subject = RealStore(Path(folder))
        try:
            run(subject, examples=40, steps=20)
        finally:
            subject.close()


@pytest.mark.slow
def test_the_running_agent_is_the_model() -> None:
    with tempfile.TemporaryDirectory() as folder:
        subject = RunningAgent(Path(folder))
        try:
            run(subject, examples=15, steps=12)
        finally:
            subject.close()


# ---- the table itself, each of its fields once -----------------------------------------------------


FIELDS = [(asked, state) for asked in model.RFC_2579 for state in "ACD"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealStore]:
    opened = RealStore(tmp_path_factory.mktemp("fields"))
    yield opened
    opened.close()


@pytest.mark.parametrize("field", FIELDS, ids=str)
def test_every_field_of_the_rfcs_table(store: RealStore, field: tuple[int, str]) -> None:
    asked, state = field
    number = FIELDS.index(field) + 1
    for table, kind in KINDS.items():
        if state != "A":
            assert store.set([(kind.status, number, {"C": 5, "D": 4}[state])]) == (0, 0)
        expected = model.RFC_2579[asked][state]
        answer = store.set([(kind.status, number, asked)])
        after = store.rows().get((table, number), {}).get(kind.status)
        if isinstance(expected, str):
            assert answer == (model.CODES[expected], 1)
            assert after == {"A": None, "C": 2, "D": 1}[state]
        else:
            assert (answer, after) == ((0, 0), expected)
