"""What is on disk: every value comes back, older stores are brought up, others left alone; lock, key, permissions."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import resource
import sqlite3
import stat
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from agent.mib import load_schema
from agent.mib.ber import LIMITS, NUMERIC, Value, Wire
from agent.mib.schema import NO_TRAITS, Access, Column, Keeping, Role, Schema, Table
from agent.store.database import Database, Writing
from agent.store.errors import SecretsError, StoreError, StoreLocked
from agent.store.hooks import AGENT, Edit
from agent.store.secrets import KEY_FILE, Secrets
from agent.store.snapshot import Cells, Configuration
from agent.store.store import Store, read_store
from tests.store_schema import SCHEMA

REAL = load_schema()
STORED = [t for t in REAL.tables.values() if t.keeping is Keeping.STORED]


def edit(schema: Schema, instance: str, value: Value) -> Edit:
    name, number = instance.split(".")
    return Edit(schema.columns[name], int(number), value)


def values(column: Column) -> st.SearchStrategy[Value]:
    """Values a column can hold."""
    if column.labels:
        return st.sampled_from(list(column.names))
    if column.wire in NUMERIC:
        return st.sampled_from(column.ranges or (LIMITS[column.wire],)).flatmap(lambda bounds: st.integers(*bounds))
    if column.wire is Wire.OBJECT_IDENTIFIER:
        return st.lists(st.integers(0, 2**32 - 1), max_size=6).map(lambda arcs: (1, 3, *arcs))
    if column.wire is Wire.IP_ADDRESS:
        return st.binary(min_size=4, max_size=4)
    return st.binary(max_size=40)


@st.composite
def some_rows(draw: st.DrawFn, schema: Schema = SCHEMA) -> Writing:
    """A transaction of rows of any table, with any values."""
    writing = Writing(0, draw(st.integers(1, 2**40)))
    for table in (t for t in schema.tables.values() if t.keeping is Keeping.STORED):
        numbers = [0] if table.scalar else draw(st.sets(st.integers(1, 2**31 - 1), max_size=3))
        for number in numbers:
            cells = []
            for column in table.columns:
                if column.traits.role is Role.INDEX:
                    cells.append(column.encode(number))
                elif column.traits.role is Role.TRANSIENT:
                    cells.append(column.default_tlv)
                else:
                    cells.append(column.encode(draw(values(column))))
            writing.add(table.name, number, None, tuple(cells))
    return writing


def held(configuration: Configuration) -> dict[tuple[str, int], Cells]:
    return {
        (name, row.number): row.cells
        for name, table in configuration.tables.items()
        for row in table.rows()
        if row.number
    }


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(some_rows(), st.randoms(use_true_random=False))
def test_every_value_comes_back(writing: Writing, dice: object) -> None:
    database = Database(SCHEMA, "sqlite://")
    database.prepare()
    database.write(writing)
    wanted = {where: cells for where, (cells, _) in writing.rows.items() if where[1]}
    assert held(database.load()) == wanted
    assert database.load().generation == writing.new
    gone = [where for where in wanted if dice.random() < 0.5]  # type: ignore[attr-defined]
    second = Writing(writing.new, writing.new + 1)
    for where in gone:
        second.add(*where, wanted[where], None)
    database.write(second)
    assert held(database.load()) == {where: cells for where, cells in wanted.items() if where not in gone}
    database.close()


def test_a_row_made_and_removed_in_one_transaction_is_never_written() -> None:
    writing = Writing(0, 3)
    writing.add("t", 1, None, (b"a",))
    writing.add("t", 1, (b"a",), (b"b",))
    assert writing.rows == {("t", 1): ((b"b",), True)}
    writing.add("t", 1, (b"b",), None)
    assert writing.rows == {}
    writing.add("t", 2, (b"x",), None)
    writing.add("t", 2, None, (b"y",))
    assert writing.rows == {("t", 2): ((b"y",), False)}


def test_two_writers_of_one_database_do_not_overwrite_each_other(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.sqlite'}"
    first, second = Database(SCHEMA, url), Database(SCHEMA, url)
    first.prepare()
    second.prepare()
    first.write(Writing(0, 1))
    with pytest.raises(StoreError, match="changed by somebody else"):
        second.write(Writing(0, 1))
    first.close()
    second.close()


async def test_the_real_schema_is_stored_and_loaded(tmp_path: Path) -> None:
    store = Store.open(REAL, "", tmp_path)
    made = [
        ("ikePropEncAlg.1", 7), ("ikePropEncKeySize.1", 256), ("ikePropHashAlg.1", 7), ("ikePropGroup.1", 14),
        ("ikePrfProposal.1", 1), ("ikePrfAuthMethod.1", 1), ("ikePrfMode.1", 1), ("ipsecPropProto.1", 1),
        ("ipsecPropEspAes.1", 1), ("ipsecPrfProposal.1", 1), ("ipsecGlobIkeProfile.0", 1),
        ("ipsecGlobIpsecProfile.0", 1), ("ipsecPeerTrafficList.1", 1), ("ipsecPeerDescription.1", b"to B"),
        ("ipsecPeerDynamicAddress.1", b"192.0.2.2"), ("ipsecPeerPreSharedKey.1", b"geheim"),
        ("ipsecTrProto.1", 255), ("ipsecTrLocalAddress.1", b"\x0a\x01\x00\x00"), ("ipsecTrLocalMaskLen.1", 24),
        ("ipsecGlobEnabled.0", 1),
    ]  # fmt: skip
    after = await store.commit([edit(REAL, *cell) for cell in made], dataclasses.replace(AGENT, kind="snmp"))
    assert after.generation == 1
    assert store.view.table("ipsecGwStatus").cell(0, 0) == REAL.columns["ipsecGwGeneration"].encode(1)
    await store.close()
    again = Store.open(REAL, "", tmp_path)
    for instance, value in made:
        column = REAL.columns[instance.split(".")[0]]
        row = again.running.row(column.table, int(instance.split(".")[1]))
        assert row is not None
        assert row[column.name] == (b"*" if column.traits.role is Role.SECRET else value)
    assert held(again.running) == held(after)
    await again.close()


def test_the_tables_are_tables_of_postgresql_too() -> None:
    database = Database(REAL, "sqlite://")
    for table in database._metadata.tables.values():
        text = str(CreateTable(table).compile(dialect=postgresql.dialect()))
        assert "BYTEA" in text or not any(isinstance(c.type, sa.LargeBinary) for c in table.c)
    database.close()


# ---- other versions -------------------------------------------------------------------


def without(schema: Schema, *names: str) -> Schema:
    """The schema as an older version had it: without some tables and columns."""
    tables = []
    for table in schema.tables.values():
        if table.name in names:
            continue
        kept = [column for column in table.columns if column.name not in names]
        columns = tuple(_at(column, position) for position, column in enumerate(kept))
        tables.append(
            Table(table.name, table.oid, table.keeping, table.scalar, columns, table.augments, table.description)
        )
    return Schema(tables)


def _at(c: Column, position: int) -> Column:
    return Column(
        c.name, c.table, c.oid, position, c.wire, c.convention, c.labels, c.ranges, c.access, c.default, c.units,
        c.description, c.traits,
    )  # fmt: skip


async def test_missing_tables_and_columns_are_added_with_their_defaults(tmp_path: Path) -> None:
    old = without(SCHEMA, "userTable", "peerWeight", "peerAddress", "profileObject")
    store = Store.open(old, "", tmp_path)
    await store.commit([edit(old, "peerRules.4", 0), edit(old, "peerName.4", b"four")], AGENT)
    await store.close()
    store = Store.open(SCHEMA, "", tmp_path)
    peer = store.running.row("peerTable", 4)
    assert peer is not None and store.running.generation == 1
    assert (peer["peerName"], peer["peerWeight"], peer["peerAddress"]) == (b"four", 10, bytes(4))
    await store.commit([edit(SCHEMA, "peerWeight.4", 3), edit(SCHEMA, "userRowStatus.1", 4)], AGENT)
    await store.close()
    store = Store.open(SCHEMA, "", tmp_path)
    peer = store.running.row("peerTable", 4)
    assert peer is not None and peer["peerWeight"] == 3 and len(store.running.table("userTable")) == 1
    await store.close()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("ALTER TABLE peerTable ADD COLUMN peerNew BIGINT", "peerTable.peerNew is not known"),
        ("CREATE TABLE otherTable (a INTEGER)", "table otherTable is not known"),
        ("ALTER TABLE gate DROP COLUMN gateName; ALTER TABLE gate ADD COLUMN gateName BIGINT", "gate.gateName has"),
    ],
)
async def test_a_store_that_differs_otherwise_is_refused_and_left_alone(
    tmp_path: Path, change: str, named: str
) -> None:
    store = Store.open(without(SCHEMA, "userTable"), "", tmp_path)
    await store.close()
    file = tmp_path / "agent.sqlite"
    connection = sqlite3.connect(file)
    connection.executescript(change)
    before = connection.execute("SELECT * FROM sqlite_master ORDER BY name").fetchall()
    connection.close()
    with pytest.raises(StoreError) as refused:
        Store.open(SCHEMA, "", tmp_path)
    assert named in str(refused.value) and "nothing was changed" in str(refused.value)
    connection = sqlite3.connect(file)
    assert connection.execute("SELECT * FROM sqlite_master ORDER BY name").fetchall() == before
    connection.close()


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "agent.sqlite").write_bytes(b"this is a text " * 100)
    with pytest.raises(StoreError, match="not a database"):
        Store.open(SCHEMA, "", tmp_path)
    with pytest.raises(StoreError, match="cannot be used"):
        Store.open(SCHEMA, "nosuch://x", tmp_path / "other")
    with pytest.raises(StoreError, match=r"cannot be (used|opened)") as refused:
        Store.open(SCHEMA, "postgresql+psycopg://ops:TopSecret@host/x", tmp_path / "other")
    assert "TopSecret" not in str(refused.value)
    with pytest.raises(StoreError, match="there is no store"):
        read_store(SCHEMA, "", tmp_path / "third")
    assert not (tmp_path / "third").exists()


# ---- lock -----------------------------------------------------------------------------


async def test_a_second_agent_on_the_same_state_is_refused(tmp_path: Path) -> None:
    store = Store.open(SCHEMA, "", tmp_path)
    with pytest.raises(StoreLocked, match=f"process {os.getpid()}"):
        Store.open(SCHEMA, "", tmp_path)
    assert read_store(SCHEMA, "", tmp_path).configuration.generation == 0, "reading needs no lock"
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OPEN_IT, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    words = (await child.communicate())[0].decode()
    assert child.returncode == 3 and "another agent" in words
    await store.close()
    await store.close()
    await Store.open(SCHEMA, "", tmp_path).close()


OPEN_IT = """
import pathlib, sys
from agent.mib import load_schema
from agent.store.errors import StoreLocked
from agent.store.store import Store
try:
    Store.open(load_schema(), "", pathlib.Path(sys.argv[1]))
except StoreLocked as error:
    print(error)
    sys.exit(3)
"""


# ---- secrets --------------------------------------------------------------------------


async def keyed(folder: Path) -> Store:
    store = Store.open(SCHEMA, "", folder)
    await store.commit([edit(SCHEMA, "peerRules.1", 0), edit(SCHEMA, "peerKey.1", b"geheim")], AGENT)
    return store


async def test_the_key_lies_beside_the_store_for_its_owner_only(tmp_path: Path) -> None:
    state = tmp_path / "state"
    await (await keyed(state)).close()
    assert stat.S_IMODE((state / KEY_FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE((state / "agent.sqlite").stat().st_mode) == 0o600
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
    (state / KEY_FILE).chmod(0o644)
    store = Store.open(SCHEMA, "", state)
    assert stat.S_IMODE((state / KEY_FILE).stat().st_mode) == 0o600
    blob = store.running.row("peerTable", 1)
    assert blob is not None and isinstance(blob["peerKeyData"], bytes)
    assert store.secrets.open("peerTable", 1, "peerKeyData", blob["peerKeyData"]) == b"geheim"
    await store.close()


async def test_a_lost_or_foreign_key_is_told_and_no_new_one_made(tmp_path: Path) -> None:
    await (await keyed(tmp_path)).close()
    key = (tmp_path / KEY_FILE).read_bytes()
    (tmp_path / KEY_FILE).unlink()
    with pytest.raises(SecretsError, match="is missing, but the store holds secrets"):
        Store.open(SCHEMA, "", tmp_path)
    assert not (tmp_path / KEY_FILE).exists()
    (tmp_path / KEY_FILE).write_bytes(bytes(32))
    with pytest.raises(SecretsError, match="not the key of this store"):
        Store.open(SCHEMA, "", tmp_path)
    (tmp_path / KEY_FILE).write_bytes(key[:7])
    with pytest.raises(SecretsError, match="7 octets"):
        Store.open(SCHEMA, "", tmp_path)
    (tmp_path / KEY_FILE).write_bytes(key)
    await Store.open(SCHEMA, "", tmp_path).close()


async def test_without_secrets_a_lost_key_is_replaced(tmp_path: Path) -> None:
    await Store.open(SCHEMA, "", tmp_path).close()
    (tmp_path / KEY_FILE).unlink()
    await Store.open(SCHEMA, "", tmp_path).close()
    assert len((tmp_path / KEY_FILE).read_bytes()) == 32


@settings(deadline=None)
@given(st.binary(max_size=80), st.integers(0, 2**31), st.integers(min_value=0), st.integers(1, 255))
def test_a_sealed_value_opens_only_whole_and_in_its_place(plain: bytes, row: int, at: int, flip: int) -> None:
    secrets = Secrets(bytes(range(32)))
    blob = secrets.seal("t", row, "c", plain)
    assert secrets.open("t", row, "c", blob) == plain
    assert secrets.seal("t", row, "c", plain) != blob
    damaged = bytearray(blob)
    damaged[at % len(blob)] ^= flip
    for table, number, column, octets in (
        ("t", row + 1, "c", blob), ("u", row, "c", blob), ("t", row, "d", blob), ("t", row, "c", bytes(damaged)),
        ("t", row, "c", blob[:-1]), ("t", row, "c", b""),
    ):  # fmt: skip
        with pytest.raises(SecretsError):
            secrets.open(table, number, column, octets)


def test_hidden_columns_are_not_among_what_can_be_read() -> None:
    assert all(c.access is not Access.NOT_ACCESSIBLE for c in REAL.ordered)
    assert NO_TRAITS.role is Role.PLAIN and all(t.row_status for t in STORED if not t.scalar)
