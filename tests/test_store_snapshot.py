"""Snapshots of tables: the same as a dictionary of rows, whatever is done to them, and the old one stays as it was."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.mib.ber import encode_value
from agent.store.live import Live
from agent.store.snapshot import BLOCK_ROWS, Cells, Configuration, TableSnapshot, default_cells
from tests.store_schema import SCHEMA

PEERS = SCHEMA.tables["peerTable"]
NAME = SCHEMA.columns["peerName"]

Model = dict[int, Cells]


def row(number: int, name: str) -> Cells:
    cells = list(default_cells(PEERS, number))
    cells[NAME.position] = NAME.encode(name.encode())
    return tuple(cells)


def same(snapshot: TableSnapshot, model: Model) -> None:
    """Every way of reading agrees with the model."""
    numbers = sorted(model)
    assert len(snapshot) == len(model)
    assert list(snapshot.numbers()) == numbers
    assert {r.number: r.cells for r in snapshot.rows()} == model
    for number in {0, 1, *numbers, *(n + 1 for n in numbers[:50])}:
        assert snapshot.cells(number) == model.get(number)
        assert (number in snapshot) == (number in model)
        expected = None if number not in model else model[number][NAME.position]
        assert snapshot.cell(number, NAME.position) == expected
        found = snapshot.row(number)
        assert (found is None) == (number not in model)
    at, walked = -1, []
    while (step := snapshot.after(at, NAME.position)) is not None:
        assert step[1] == model[step[0]][NAME.position]
        at = step[0]
        walked.append(at)
    assert walked == numbers
    for start in (-1, 0, *numbers[:3], *numbers[-2:]):
        for count in (0, 1, 7, 600):
            ahead = [(n, model[n][NAME.position]) for n in numbers if n > start][:count]
            assert snapshot.run(start, NAME.position, count) == ahead
    free = snapshot.free_number()
    assert free not in model and free >= 1 and all(n in model for n in range(1, free))


numbers = st.one_of(st.integers(0, 40), st.integers(0, 2000), st.integers(0, 2**31 - 1))
changes = st.dictionaries(numbers, st.one_of(st.none(), st.text("ab", max_size=3)), max_size=12)
fills = st.tuples(st.integers(1, 700), st.integers(0, 700), st.integers(1, 3))


@settings(deadline=None)
@given(fills, st.lists(changes, max_size=12))
def test_a_snapshot_is_a_dictionary_of_rows(fill: tuple[int, int, int], steps: list[dict[int, str | None]]) -> None:
    start, count, stride = fill
    model: Model = {n: row(n, "x") for n in range(start, start + count * stride, stride)}
    snapshot = TableSnapshot.build(PEERS, reversed(model.items()))
    history = [(snapshot, dict(model))]
    for step in steps:
        cells = {n: None if name is None else row(n, name) for n, name in step.items()}
        snapshot = snapshot.replaced(cells)
        for n, change in cells.items():
            if change is None:
                model.pop(n, None)
            else:
                model[n] = change
        history.append((snapshot, dict(model)))
    for old, then in history:
        same(old, then)
    assert all(0 < len(block.numbers) <= BLOCK_ROWS for block in snapshot._blocks)


@settings(deadline=None)
@given(st.sets(st.integers(1, 3000), min_size=1, max_size=900), st.randoms())
def test_a_table_that_is_emptied_row_by_row_keeps_its_order(present: set[int], dice: object) -> None:
    model: Model = {n: row(n, "x") for n in present}
    snapshot = TableSnapshot.build(PEERS, model.items())
    order = sorted(present)
    dice.shuffle(order)  # type: ignore[attr-defined]
    for at in range(0, len(order), 7):
        snapshot = snapshot.replaced(dict.fromkeys(order[at : at + 7]))
        for n in order[at : at + 7]:
            del model[n]
        assert list(snapshot.numbers()) == sorted(model)
    assert len(snapshot) == 0 and snapshot.after(-1, 0) is None


def test_rows_appended_fill_their_blocks() -> None:
    snapshot = TableSnapshot(PEERS)
    for n in range(1, 3 * BLOCK_ROWS + 1):
        snapshot = snapshot.replaced({n: row(n, "x")})
    assert [len(block.numbers) for block in snapshot._blocks] == [BLOCK_ROWS] * 3


def test_a_changed_cell_copies_one_column_of_one_block() -> None:
    before = TableSnapshot.build(PEERS, ((n, row(n, "x")) for n in range(1, 2000)))
    after = before.replaced({700: row(700, "y")})
    differing = [(a, b) for a, b in zip(before._blocks, after._blocks, strict=True) if a is not b]
    assert len(differing) == 1
    old, new = differing[0]
    assert sum(a is not b for a, b in zip(old.columns, new.columns, strict=True)) == 1


def test_equal_cells_are_one_object_after_loading() -> None:
    snapshot = TableSnapshot.build(
        PEERS, ((n, tuple(bytes(bytearray(c)) for c in row(n, f"n{n % 5}"))) for n in range(1, 2000))
    )
    names = {id(tlv) for _, column in snapshot.column(NAME.position) for tlv in column}
    assert len(names) == 5
    weights = [column for _, column in snapshot.column(SCHEMA.columns["peerWeight"].position)]
    assert weights[0] is weights[1], "a column of one value is kept once"


def test_a_number_that_comes_twice_is_an_error() -> None:
    try:
        TableSnapshot.build(PEERS, [(2, row(2, "a")), (1, row(1, "b")), (2, row(2, "c"))])
    except ValueError as error:
        assert "row 2 comes twice" in str(error)
    else:
        raise AssertionError("accepted")


def test_only_active_rows_are_shown_to_a_plan() -> None:
    status = SCHEMA.columns["peerRowStatus"]
    cells = list(row(2, "b"))
    cells[status.position] = status.encode(2)
    peers = TableSnapshot.build(PEERS, [(1, row(1, "a")), (2, tuple(cells)), (3, row(3, "c"))])
    configuration = Configuration.empty(SCHEMA).replaced(4, {"peerTable": peers})
    assert [r.number for r in configuration.rows("peerTable")] == [1, 3]
    assert [r.number for r in configuration.rows_any_status("peerTable")] == [1, 2, 3]
    assert configuration.row("peerTable", 2) is None
    third = configuration.row("peerTable", 3)
    assert third is not None and third["peerName"] == b"c" and third["peerIndex"] == 3
    assert configuration.scalar("gateName") == b"" and configuration.scalar("gateOn") == 2


def test_live_rows_keep_what_is_not_named() -> None:
    live = Live(SCHEMA)
    live.update("peerStateTable", {4: {"peerState": 3}})
    live.update("peerStateTable", {4: {"peerError": b"no route"}, 9: {}})
    table = live.table("peerStateTable")
    found = table.row(4)
    assert found is not None and (found["peerState"], found["peerError"]) == (3, b"no route")
    live.update("peerStateTable", {4: None, 5: None})
    assert list(live.table("peerStateTable").numbers()) == [9]
    assert live.table("gateStatus").cell(0, 0) == encode_value(SCHEMA.columns["gateGeneration"].wire, 0)
