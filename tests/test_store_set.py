"""What a SET may say and what it does: one test per sentence of the design, on candidates without a database."""

from __future__ import annotations

import random
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.mib import load_schema
from agent.mib.ber import Value, Wire
from agent.store.candidate import Candidate, Candidates
from agent.store.edits import resolve
from agent.store.errors import ErrorStatus, Refused, SecretsError
from agent.store.hooks import AGENT, Edit, Origin
from agent.store.references import References
from agent.store.rings import find_ring
from agent.store.secrets import Secrets
from agent.store.snapshot import Configuration
from tests.store_schema import SCHEMA

NEAR = Origin("snmp", "m", "127.0.0.1:9", secure=True)
FAR = Origin("snmp", "m", "192.0.2.1:9", secure=False)


def edit(instance: str, value: Value) -> Edit:
    name, number = instance.split(".")
    return Edit(SCHEMA.columns[name], int(number), value)


class Box:
    """Candidates on candidates, as the writer does it."""

    def __init__(self) -> None:
        self.running = Configuration.empty(SCHEMA)
        self.secrets = Secrets(bytes(range(32)))
        self.candidates = Candidates(References(self.running), self.secrets)

    def build(self, cells: dict[str, Value], origin: Origin = NEAR) -> Candidate | None:
        return self.candidates.build(self.running, [edit(*cell) for cell in cells.items()], origin)

    def put(self, cells: dict[str, Value], origin: Origin = NEAR) -> Candidate | None:
        candidate = self.build(cells, origin)
        if candidate is not None:
            self.candidates.references.move(candidate.moves)
            self.running = candidate.after
        return candidate

    def refused(self, cells: dict[str, Value], origin: Origin = NEAR) -> tuple[ErrorStatus, str, str]:
        """(status, instance of the varbind blamed, text)."""
        with pytest.raises(Refused) as caught:
            self.build(cells, origin)
        refused = caught.value
        return refused.status, list(cells)[refused.edit] if refused.edit >= 0 else "", refused.text

    def cell(self, instance: str) -> Value:
        name, number = instance.split(".")
        row = self.running.row_any_status(SCHEMA.columns[name].table, int(number))
        assert row is not None
        return row[name]

    def chain(self, *rules: int) -> None:
        """Rules one behind the other."""
        cells: dict[str, Value] = {}
        for number, behind in zip(rules, [*rules[1:], 0], strict=True):
            cells |= {f"ruleProto.{number}": 6, f"ruleNext.{number}": behind}
        self.put(cells)


@pytest.fixture
def box() -> Box:
    return Box()


# ---- step 1 ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("instance", "value", "status", "accepted"),
    [
        ("peerWeight.1", 101, ErrorStatus.WRONG_VALUE, "0..100"),
        ("peerAdmin.1", 3, ErrorStatus.WRONG_VALUE, "up(1), down(2), delete(15)"),
        ("peerName.1", b"a name of 17 oct", None, ""),
        ("peerName.1", b"a name of 17 octe", ErrorStatus.WRONG_LENGTH, "0..16 octets"),
        ("peerAddress.1", b"abc", ErrorStatus.WRONG_LENGTH, "an IPv4 address of four octets"),
        ("peerName.1", 4, ErrorStatus.WRONG_TYPE, "octets"),
        ("peerWeight.1", b"4", ErrorStatus.WRONG_TYPE, "number"),
        ("peerBorn.1", 1, ErrorStatus.NOT_WRITABLE, "read-only"),
        ("peerIndex.1", 1, ErrorStatus.NOT_WRITABLE, "read-only"),
        ("peerKeyData.1", b"x", ErrorStatus.NOT_WRITABLE, "not accessible"),
        ("peerState.1", 1, ErrorStatus.NOT_WRITABLE, ""),
        ("peerWeight.0", 1, ErrorStatus.NO_CREATION, "1..2147483647"),
        ("gateName.1", b"x", ErrorStatus.NO_CREATION, "0"),
    ],
)
def test_a_value_alone(box: Box, instance: str, value: Value, status: ErrorStatus | None, accepted: str) -> None:
    cells: dict[str, Value] = {"peerRules.1": 0, instance: value}
    if status is None:
        assert box.build(cells) is not None
        return
    found, blamed, text = box.refused(cells)
    assert (found, blamed) == (status, instance) and accepted in text


def test_a_long_enumeration_is_cut_in_the_text() -> None:
    schema = load_schema()
    with pytest.raises(Refused) as refused:
        resolve(schema, 0, (*schema.columns["ipsecTrProto"].oid, 1), Wire.INTEGER, 0, NEAR)
    assert refused.value.text.startswith("ipsecTrProto.1 = 0: no value of this object; accepted: icmp(1), igmp(2), ")
    assert refused.value.text.endswith("), …") and len(refused.value.text.encode()) <= 255


def test_names_are_resolved_with_the_codes_of_rfc_3416() -> None:
    oid = SCHEMA.columns["peerWeight"].oid
    assert resolve(SCHEMA, 0, (*oid, 7), Wire.INTEGER, 5, NEAR) == edit("peerWeight.7", 5)
    for name, tag, status in (
        ((*oid, 7), Wire.GAUGE32, ErrorStatus.WRONG_TYPE),
        (oid, Wire.INTEGER, ErrorStatus.NO_CREATION),
        ((*oid, 7, 0), Wire.INTEGER, ErrorStatus.NO_CREATION),
        ((1, 3, 6, 1, 2, 1, 1, 5, 0), Wire.INTEGER, ErrorStatus.NOT_WRITABLE),
        ((1,), Wire.INTEGER, ErrorStatus.NOT_WRITABLE),
    ):
        with pytest.raises(Refused) as refused:
            resolve(SCHEMA, 3, name, tag, 5, NEAR)
        assert (refused.value.status, refused.value.edit) == (status, 3)


# ---- rows -----------------------------------------------------------------------------


def test_a_row_is_made_by_its_creating_column_and_defaults_fill_the_rest(box: Box) -> None:
    candidate = box.put({"peerName.7": b"Branch", "peerRules.7": 0})
    assert candidate is not None and candidate.after.generation == 1
    peer = box.running.row("peerTable", 7)
    assert peer is not None
    assert (peer["peerIndex"], peer["peerName"], peer["peerWeight"]) == (7, b"Branch", 10)
    assert (peer["peerRowStatus"], peer["peerRowGeneration"]) == (1, 1)
    change = candidate.rows[0]
    assert (change.table, change.number, change.before) == ("peerTable", 7, None)
    assert change.columns == frozenset(SCHEMA.tables["peerTable"].by_name)


def test_other_columns_of_an_unused_number_name_what_makes_the_row(box: Box) -> None:
    status, blamed, text = box.refused({"gateName.0": b"x", "peerWeight.7": 3, "peerName.7": b"x"})
    assert (status, blamed) == (ErrorStatus.INCONSISTENT_NAME, "peerWeight.7")
    assert "peerRules.7" in text and "peerRowStatus.7 = createAndGo(4)" in text


def test_a_suspended_row_is_not_shown_to_a_plan(box: Box) -> None:
    box.put({"peerRules.1": 0})
    candidate = box.put({"peerRowStatus.1": 2, "peerWeight.1": 4})
    assert candidate is not None
    change = candidate.rows[0]
    assert change.before is not None and change.after is None and "peerName" in change.columns
    again = box.put({"peerRowStatus.1": 1})
    assert again is not None
    assert again.rows[0].before is None and again.rows[0].after is not None
    assert again.rows[0].after["peerWeight"] == 4


def test_the_order_of_varbinds_does_not_matter(box: Box) -> None:
    cells: dict[str, Value] = {
        "peerRules.1": 2, "ruleNext.2": 3, "ruleProto.2": 6, "ruleProto.3": 17, "gateFirst.0": 3
    }  # fmt: skip
    results = set()
    for order in permutations(cells):
        candidate = Box().build({name: cells[name] for name in order})
        assert candidate is not None
        tables = candidate.after.tables
        results.add(tuple((name, row.number, row.cells) for name in sorted(tables) for row in tables[name].rows()))
    assert len(results) == 1


def test_the_same_column_twice_must_say_the_same(box: Box) -> None:
    edits = [edit("peerRules.1", 0), edit("peerName.1", b"a"), edit("peerName.1", b"a"), edit("peerWeight.1", 4)]
    assert box.candidates.build(box.running, edits, NEAR) is not None
    with pytest.raises(Refused) as refused:
        box.candidates.build(box.running, [*edits, edit("peerName.1", b"b")], NEAR)
    assert (refused.value.status, refused.value.edit) == (ErrorStatus.INCONSISTENT_VALUE, 4)


def test_nothing_new_is_no_generation(box: Box) -> None:
    cells: dict[str, Value] = {"peerRules.1": 0, "peerName.1": b"a", "peerKey.1": b"secret"}
    box.put(cells)
    assert box.build(cells) is None
    assert box.build({"gateName.0": b""}) is None
    assert box.build({"peerRowStatus.9": 6}) is None, "destroying what is not there"
    assert box.build({"peerAdmin.9": 15}) is None, "deleting what is not there"
    assert box.build({}) is None


def test_a_guard_refuses_the_second_editor(box: Box) -> None:
    box.put({"peerRules.1": 0})
    box.put({"gateName.0": b"x"})
    assert box.put({"peerRowGeneration.1": 1, "peerWeight.1": 3}) is not None
    status, blamed, text = box.refused({"peerWeight.1": 4, "peerRowGeneration.1": 1})
    assert (status, blamed) == (ErrorStatus.INCONSISTENT_VALUE, "peerRowGeneration.1")
    assert text.endswith("accepted: 3")
    assert box.refused({"peerRowStatus.1": 6, "peerRowGeneration.1": 1})[0] is ErrorStatus.INCONSISTENT_VALUE
    assert box.build({"peerRowGeneration.1": 3}) is None
    assert box.refused({"peerRules.2": 0, "peerRowGeneration.2": 1})[1] == "peerRowGeneration.2"
    assert box.build({"peerRules.2": 0, "peerRowGeneration.2": 0}) is not None


def test_a_transient_object_counts_for_its_set_only(box: Box) -> None:
    candidate = box.put({"gateForce.0": 1, "gateName.0": b"x"})
    assert candidate is not None and edit("gateForce.0", 1) in candidate.edits
    assert box.cell("gateForce.0") == 2
    assert box.build({"gateForce.0": 1}) is None


def test_what_does_not_act_yet_accepts_its_default_only(box: Box) -> None:
    assert box.put({"peerRules.1": 0, "peerLater.1": 3}) is not None
    status, blamed, text = box.refused({"peerName.1": b"x", "peerLater.1": 1})
    assert (status, blamed) == (ErrorStatus.INCONSISTENT_VALUE, "peerLater.1")
    assert text == "peerLater.1 = a(1): not supported yet; accepted: b(3)"
    assert box.build({"peerLater.1": 1}, AGENT) is not None, "the agent itself knows what it does"


# ---- chains, heads, references --------------------------------------------------------


def test_links_and_heads_move_on_when_a_row_goes(box: Box) -> None:
    box.chain(1, 2, 3, 4)
    box.put({"peerRules.1": 2, "peerRules.2": 2, "gateFirst.0": 1, "peerRules.3": 4})
    candidate = box.put({"ruleAction.2": 1})
    assert candidate is not None
    assert [box.cell(f"peerRules.{n}") for n in (1, 2, 3)] == [3, 3, 4]
    assert box.cell("ruleNext.1") == 3
    assert {(row.table, row.number) for row in candidate.rows} == {
        ("ruleTable", 2), ("ruleTable", 1), ("peerTable", 1), ("peerTable", 2)
    }  # fmt: skip
    assert box.cell("peerRowGeneration.1") == candidate.after.generation
    box.put({"ruleRowStatus.3": 6, "ruleRowStatus.4": 6, "ruleRowStatus.1": 6})
    assert [box.cell(f"peerRules.{n}") for n in (1, 2, 3)] == [0, 0, 0]
    assert box.cell("gateFirst.0") == 0


def test_a_link_named_in_the_same_set_is_left_alone(box: Box) -> None:
    box.chain(1, 2, 3)
    box.put({"ruleRowStatus.2": 6, "ruleNext.1": 0})
    assert box.cell("ruleNext.1") == 0


def test_a_row_in_use_cannot_go(box: Box) -> None:
    box.put({"profileKind.5": 1, "peerRules.1": 0, "peerProfile.1": 5, "gateProfile.0": 5})
    status, blamed, text = box.refused({"gateName.0": b"x", "profileKind.5": 8})
    assert (status, blamed) == (ErrorStatus.INCONSISTENT_VALUE, "profileKind.5")
    assert "in use by peerProfile.1" in text
    assert box.refused({"profileRowStatus.5": 6, "peerProfile.1": 0})[2].count("gateProfile.0")
    assert box.put({"profileRowStatus.5": 6, "peerAdmin.1": 15, "gateProfile.0": 0}) is not None


@pytest.mark.parametrize("instance", ["peerProfile.1", "peerRules.1", "ruleNext.1", "gateFirst.0", "gateProfile.0"])
def test_a_pointer_needs_its_row(box: Box, instance: str) -> None:
    box.put({"peerRules.1": 0, "ruleProto.1": 6, "profileKind.1": 1})
    status, blamed, text = box.refused({"peerName.1": b"x", instance: 9})
    assert (status, blamed) == (ErrorStatus.INCONSISTENT_VALUE, instance)
    assert "no row 9" in text and "accepted: 0" in text
    makes = "profileKind.9" if "Profile" in instance else "ruleProto.9"
    assert box.put({instance: 9, makes: 1}) is not None
    assert box.put({instance: 0}) is not None


def test_a_pointer_to_a_row_that_the_same_set_removes_is_to_blame(box: Box) -> None:
    box.chain(1, 2)
    box.put({"peerRules.1": 0, "profileKind.1": 1})
    assert box.refused({"ruleRowStatus.1": 6, "peerRules.1": 1})[1] == "peerRules.1"
    assert box.refused({"ruleNext.1": 2, "ruleRowStatus.2": 6})[1] == "ruleNext.1"
    assert box.refused({"profileKind.1": 8, "gateProfile.0": 1})[1] == "gateProfile.0"


def test_a_ring_names_the_link_that_closes_it(box: Box) -> None:
    box.chain(1, 2, 3)
    status, blamed, text = box.refused({"gateName.0": b"x", "ruleNext.3": 1})
    assert (status, blamed) == (ErrorStatus.INCONSISTENT_VALUE, "ruleNext.3")
    assert "3 → 1 → 2 → 3" in text
    assert box.refused({"ruleNext.2": 2})[1] == "ruleNext.2"
    assert box.refused({"ruleNext.5": 4, "ruleProto.4": 6, "ruleNext.4": 5, "ruleProto.5": 6})[1] == "ruleNext.4"
    assert box.put({"ruleNext.1": 0, "ruleNext.3": 1}) is not None, "the chain turned: 2, 3, 1"


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(0, 12), st.randoms(use_true_random=False))
def test_rings_are_found_where_there_are_some_and_only_there(rows: int, changes: int, dice: random.Random) -> None:
    order = list(range(1, rows + 1))
    dice.shuffle(order)
    old: dict[int, int] = {}
    for at, number in enumerate(order):  # a forest: each leads to one further on, or ends
        old[number] = dice.choice([0, *order[at + 1 : at + 3]])
    changed = {}
    for _ in range(changes):
        changed[dice.randint(1, rows + 3)] = dice.randint(0, rows + 3)
    now = old | changed
    now = {number: to if to in now else 0 for number, to in now.items()}
    changed = {number: now[number] for number in changed}

    def rings(number: int) -> bool:
        for _ in range(len(now) + 1):
            number = now.get(number, 0)
        return number != 0

    found = find_ring(changed, lambda number: old.get(number, 0), lambda number: number not in old)
    assert bool(found) == any(map(rings, now))
    for number, behind in zip(found, [*found[1:], *found[:1]], strict=True):
        assert now[number] == behind


# ---- secrets --------------------------------------------------------------------------


def test_a_secret_reads_as_a_star_and_is_kept_sealed(box: Box) -> None:
    box.put({"peerRules.1": 0, "peerKey.1": b"geheim"})
    assert box.cell("peerKey.1") == b"*"
    blob = box.cell("peerKeyData.1")
    assert isinstance(blob, bytes) and b"geheim" not in blob
    assert box.secrets.open("peerTable", 1, "peerKeyData", blob) == b"geheim"
    with pytest.raises(SecretsError):
        box.secrets.open("peerTable", 2, "peerKeyData", blob)
    assert box.build({"peerKey.1": b"geheim"}) is None, "the same again"
    assert box.build({"peerKey.1": b"*"}) is None, "a star keeps it"
    assert box.put({"peerKey.1": b"other"}) is not None
    assert box.cell("peerKeyData.1") != blob
    assert box.put({"peerKey.1": b""}) is not None
    assert (box.cell("peerKey.1"), box.cell("peerKeyData.1")) == (b"", b"")
    status, blamed, _ = box.refused({"peerKey.1": b"*"})
    assert (status, blamed) == (ErrorStatus.INCONSISTENT_VALUE, "peerKey.1")


def test_a_secret_comes_over_a_secure_way_or_not_at_all(box: Box) -> None:
    status, blamed, text = box.refused({"peerRules.1": 0, "peerKey.1": b"geheim"}, FAR)
    assert (status, blamed) == (ErrorStatus.NO_ACCESS, "peerKey.1")
    assert "geheim" not in text
    assert box.put({"peerRules.1": 0}, FAR) is not None


def test_the_agent_gives_sealed_columns_in_plain(box: Box) -> None:
    cells: dict[str, Value] = {"userRowStatus.1": 4, "userName.1": b"admin", "userKey.1": b"ku"}
    assert box.refused(cells)[0] is ErrorStatus.NOT_WRITABLE
    assert box.put(cells, AGENT) is not None
    blob = box.cell("userKey.1")
    assert isinstance(blob, bytes) and box.secrets.open("userTable", 1, "userKey", blob) == b"ku"
    assert box.build({"userKey.1": b"ku"}, AGENT) is None


# ---- all or nothing -------------------------------------------------------------------

GOOD: dict[str, Value] = {
    "peerRules.1": 1, "peerName.1": b"x", "peerProfile.1": 1, "ruleProto.1": 6, "ruleProto.2": 6, "ruleNext.1": 2,
    "profileKind.1": 1, "gateName.0": b"n",
}  # fmt: skip
BAD: list[tuple[str, Value]] = [
    ("peerWeight.1", 400), ("peerBorn.1", 1), ("peerName.9", b"x"), ("gateFirst.0", 9), ("peerLater.1", 1),
    ("ruleRowStatus.1", 3), ("ruleNext.2", 2), ("peerRowGeneration.1", 7),
]  # fmt: skip


@pytest.mark.parametrize("at", range(8))
@pytest.mark.parametrize("bad", BAD)
def test_the_wrong_one_of_eight_is_named_and_nothing_changes(at: int, bad: tuple[str, Value]) -> None:
    box = Box()
    before = box.running
    cells = [cell for cell in GOOD.items() if cell[0] != "peerName.1"]
    cells.insert(at, bad)
    with pytest.raises(Refused) as refused:
        box.candidates.build(box.running, [edit(*cell) for cell in cells], NEAR)
    assert refused.value.edit == at, refused.value.text
    assert refused.value.text.startswith(f"{bad[0]} = ")
    assert box.running is before and len(before.table("peerTable")) == 0
    assert box.put(GOOD) is not None, "the same without the wrong one passes, so nothing stayed behind"
