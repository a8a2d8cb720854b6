"""Where generations are kept: SQLAlchemy Core tables made from the schema, written in one thread.

SQLite in WAL mode with synchronous=FULL, or another database by URL; nothing here depends
on which. One table per stored table of the schema, a row per row; small durable numbers
and texts of the agent beside them. At start the tables are compared with the schema: what
is missing is added, everything else that differs is refused, since guessing would lose
configuration. All functions run in the store's thread and may take as long as the disk does.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from agent.mib.ber import NUMERIC, Value, Wire
from agent.mib.schema import Column, Keeping, Role, Schema, Table
from agent.store.errors import StoreError
from agent.store.secrets import sync_folder
from agent.store.snapshot import BLOCK_ROWS, Cells, Configuration, TableSnapshot, decoded, scalar_or_empty

logger = logging.getLogger(__name__)

DELAY_VARIABLE: Final = "IPSEC_AGENT_TEST_STORE_DELAY"  # seconds before each transaction, for tests of slow disks
NUMBER: Final = "number"
STATE: Final = "agentState"
NUMBERS: Final = "agentNumbers"
TEXTS: Final = "agentTexts"


@dataclass(slots=True)
class Writing:
    """One transaction: from one generation to a later one. Cells of None remove the row; `made`: it is new."""

    old: int
    new: int
    rows: dict[tuple[str, int], tuple[Cells | None, bool]] = field(default_factory=dict)

    def add(self, table: str, number: int, before: Cells | None, after: Cells | None) -> None:
        """One more change, perhaps of a row that this transaction changes already."""
        earlier = self.rows.get((table, number))
        made = before is None if earlier is None else earlier[1]
        if after is None and made:
            del self.rows[table, number]
        else:
            self.rows[table, number] = (after, made)


class Database:
    """One database. Raises StoreError throughout, with a text for the operator."""

    def __init__(self, schema: Schema, url: str) -> None:
        self._schema = schema
        self._tables = {t.name: t for t in schema.tables.values() if t.keeping is Keeping.STORED}
        self._columns = {name: stored_columns(table) for name, table in self._tables.items()}
        self._metadata = sa.MetaData()
        self._sql = {name: self._sql_table(table) for name, table in self._tables.items()}
        self._state = sa.Table(
            STATE, self._metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("generation", sa.BigInteger)
        )
        self._numbers = _named_values(NUMBERS, self._metadata, sa.BigInteger())
        self._texts = _named_values(TEXTS, self._metadata, sa.LargeBinary())
        self._delay = float(os.environ.get(DELAY_VARIABLE) or 0)
        try:
            self._url = sa.make_url(url)
            self._engine = _engine(self._url)
        except (sa.exc.SQLAlchemyError, ImportError, OSError) as error:
            shown = self._shown if hasattr(self, "_url") else "named by --store"  # a URL may hold a password
            raise StoreError(f"the store {shown} cannot be used: {error}") from None

    # ---- opening ----------------------------------------------------------------------

    def prepare(self) -> None:
        """Make the tables, or bring older ones up to the schema."""
        try:
            with self._engine.begin() as connection:
                found = set(sa.inspect(connection).get_table_names())
                if not found:
                    self._metadata.create_all(connection)
                else:
                    self._compare(connection, found)
                if connection.execute(sa.select(self._state.c.generation)).first() is None:
                    connection.execute(self._state.insert().values(id=1, generation=0))
        except sa.exc.SQLAlchemyError as error:
            raise StoreError(f"the store {self._shown} cannot be opened: {_reason(error)}") from error

    def _compare(self, connection: sa.Connection, found: set[str]) -> None:
        """Add what is missing; raise StoreError for anything else that differs."""
        inspector = sa.inspect(connection)
        missing_tables: list[sa.Table] = []
        missing_columns: list[sa.Column[Any]] = []
        misfits = [f"table {name} is not known" for name in sorted(found - set(self._metadata.tables))]
        for name, table in self._metadata.tables.items():
            if name not in found:
                missing_tables.append(table)
                continue
            there = {column["name"]: column["type"] for column in inspector.get_columns(name)}
            misfits += [f"column {name}.{extra} is not known" for extra in sorted(set(there) - set(table.c.keys()))]
            for column in table.c:
                kind = there.get(column.name)
                if kind is None:
                    missing_columns.append(column)
                elif _family(kind) is not _family(column.type):
                    misfits.append(f"column {name}.{column.name} has type {kind}, not {column.type}")
        primary = [column for column in missing_columns if column.primary_key]
        misfits += [f"column {column.table.name}.{column.name} is missing" for column in primary]
        if misfits:
            raise StoreError(
                f"the store {self._shown} does not fit this version of the agent; nothing was changed in it. "
                f"Use the version that wrote it, or another store. It differs in: {'; '.join(misfits)}"
            )
        if missing_tables or missing_columns:
            self._add(connection, missing_tables, missing_columns)

    def _add(self, connection: sa.Connection, tables: Sequence[sa.Table], columns: Sequence[sa.Column[Any]]) -> None:
        """New columns hold their object's default in the rows that are there."""
        from alembic.migration import MigrationContext  # takes its time to import, and is seldom needed
        from alembic.operations import Operations

        operations = Operations(MigrationContext.configure(connection))
        for table in tables:
            logger.info("store: adding table %s", table.name)
            operations.create_table(
                table.name, *[sa.Column(c.name, c.type, primary_key=c.primary_key) for c in table.c]
            )
        for column in columns:
            logger.info("store: adding column %s.%s", column.table.name, column.name)
            operations.add_column(column.table.name, sa.Column(column.name, column.type))
            described = self._schema.columns.get(column.name)
            if described is not None and isinstance(column.table, sa.Table):
                connection.execute(column.table.update().values({column.name: _stored(described, described.default)}))

    def load(self) -> Configuration:
        """The stored configuration."""
        try:
            with self._engine.connect() as connection:
                generation = self._generation(connection)
                tables = {name: self._load_table(connection, table) for name, table in self._tables.items()}
        except sa.exc.SQLAlchemyError as error:
            raise StoreError(f"the store {self._shown} cannot be read: {_reason(error)}") from error
        return Configuration(self._schema, generation, tables)

    def _load_table(self, connection: sa.Connection, table: Table) -> TableSnapshot:
        sql = self._sql[table.name]
        stored = self._columns[table.name]
        query = sa.select(sql.c[NUMBER], *[sql.c[column.name] for column in stored]).order_by(sql.c[NUMBER])
        encoders = [_Encoder(column) for column in table.columns]
        places = {column.name: at for at, column in enumerate(stored, 1)}

        def chunks() -> Iterator[tuple[Sequence[int], Sequence[Sequence[bytes]]]]:
            result = connection.execution_options(yield_per=BLOCK_ROWS).execute(query)
            for some in result.partitions(BLOCK_ROWS):
                columns = list(zip(*some, strict=True))
                numbers = columns[0]
                cells: list[Sequence[bytes]] = []
                for column, encoder in zip(table.columns, encoders, strict=True):
                    if column.name in places:
                        cells.append([encoder[value] for value in columns[places[column.name]]])
                    elif column is table.index:
                        cells.append([column.encode(number) for number in numbers])
                    else:
                        cells.append([column.default_tlv] * len(numbers))
                yield numbers, cells

        snapshot = TableSnapshot.load(table, chunks())
        return scalar_or_empty(table) if table.scalar and not len(snapshot) else snapshot

    def load_small(self) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, bytes]]]:
        """All durable numbers and texts, by kind and name."""
        numbers: dict[str, dict[str, int]] = {}
        texts: dict[str, dict[str, bytes]] = {}
        try:
            with self._engine.connect() as connection:
                for kind, name, number in connection.execute(sa.select(self._numbers)):
                    numbers.setdefault(kind, {})[name] = number
                for kind, name, text in connection.execute(sa.select(self._texts)):
                    texts.setdefault(kind, {})[name] = text
        except sa.exc.SQLAlchemyError as error:
            raise StoreError(f"the store {self._shown} cannot be read: {_reason(error)}") from error
        return numbers, texts

    # ---- writing ----------------------------------------------------------------------

    def write(self, writing: Writing) -> None:
        """One transaction, on disk when this returns. Raises StoreError, then nothing of it is there."""
        self._pause()
        try:
            with self._engine.begin() as connection:
                self._write_rows(connection, writing)
                moved = connection.execute(
                    self._state.update()
                    .where(self._state.c.generation == sa.bindparam("old"))
                    .values(generation=sa.bindparam("new")),
                    {"old": writing.old, "new": writing.new},
                )
                if moved.rowcount != 1:
                    raise StoreError(f"the store {self._shown} was changed by somebody else; restart the agent")
        except sa.exc.SQLAlchemyError as error:
            if self._arrived(writing):
                logger.warning("store: the transaction was reported as failed but is there: %s", _reason(error))
                return
            raise StoreError(f"the store {self._shown} cannot be written: {_reason(error)}") from error

    def _write_rows(self, connection: sa.Connection, writing: Writing) -> None:
        for name, table in self._sql.items():
            removed: list[dict[str, Any]] = []
            made: list[dict[str, Any]] = []
            changed: list[dict[str, Any]] = []
            for (owner, number), (cells, new) in writing.rows.items():
                if owner != name:
                    continue
                if cells is None:
                    removed.append({"row": number})
                elif new or self._tables[name].scalar:
                    made.append({NUMBER: number, **self._values(name, cells)})
                else:
                    changed.append({"row": number, **self._values(name, cells)})
            if self._tables[name].scalar and made:  # its row may never have been written yet
                removed = [{"row": 0}]
            where = table.c[NUMBER] == sa.bindparam("row")
            if removed:
                connection.execute(table.delete().where(where), removed)
            if made:
                connection.execute(table.insert(), made)
            if changed:
                connection.execute(table.update().where(where), changed)

    def _values(self, table: str, cells: Cells) -> dict[str, Any]:
        return {column.name: _stored(column, decoded(cells[column.position])) for column in self._columns[table]}

    def _arrived(self, writing: Writing) -> bool:
        """Whether a transaction that seemed to fail is there: its connection may have broken after the commit."""
        try:
            with self._engine.connect() as connection:
                return self._generation(connection) == writing.new
        except sa.exc.SQLAlchemyError:
            return False

    def _generation(self, connection: sa.Connection) -> int:
        return int(connection.execute(sa.select(self._state.c.generation)).scalar_one())

    def write_small(self, kind: str, numbers: Mapping[str, int | None], texts: Mapping[str, bytes | None]) -> None:
        """Set, or remove (None), durable numbers and texts of one kind."""
        self._pause()
        try:
            with self._engine.begin() as connection:
                _write_named(connection, self._numbers, kind, numbers)
                _write_named(connection, self._texts, kind, texts)
        except sa.exc.SQLAlchemyError as error:
            raise StoreError(f"the store {self._shown} cannot be written: {_reason(error)}") from error

    def close(self) -> None:
        self._engine.dispose()

    def _pause(self) -> None:
        if self._delay:
            time.sleep(self._delay)

    @property
    def _shown(self) -> str:
        return self._url.render_as_string(hide_password=True)

    def _sql_table(self, table: Table) -> sa.Table:
        columns: Iterable[sa.Column[Any]] = (
            sa.Column(column.name, _sql_type(column)) for column in self._columns[table.name]
        )
        key = sa.Column(NUMBER, sa.BigInteger, primary_key=True, autoincrement=False)
        return sa.Table(table.name, self._metadata, key, *columns)


class _Encoder(dict[Any, bytes]):
    """Stored value → cell, each value encoded once. NULL is the default."""

    def __init__(self, column: Column) -> None:
        super().__init__({None: column.default_tlv})
        self._column = column

    def __missing__(self, stored: Any) -> bytes:
        if self._column.wire is Wire.OBJECT_IDENTIFIER:
            tlv = self._column.encode(tuple(map(int, stored.split("."))))
        else:
            tlv = self._column.encode(stored)
        self[stored] = tlv
        return tlv


def stored_columns(table: Table) -> tuple[Column, ...]:
    """Columns that are kept: the row number is its own column, transient objects have nothing to keep."""
    return tuple(c for c in table.columns if c is not table.index and c.traits.role is not Role.TRANSIENT)


def _stored(column: Column, value: Value) -> int | bytes | str:
    return ".".join(map(str, value)) if isinstance(value, tuple) else value


def _sql_type(column: Column) -> sa.types.TypeEngine[Any]:
    if column.wire in NUMERIC:
        return sa.BigInteger()
    return sa.Text() if column.wire is Wire.OBJECT_IDENTIFIER else sa.LargeBinary()


def _family(kind: sa.types.TypeEngine[Any]) -> type:
    for family in (sa.Integer, sa.LargeBinary, sa.String):
        if isinstance(kind, family):
            return family
    return type(kind)


def _named_values(name: str, metadata: sa.MetaData, kind: sa.types.TypeEngine[Any]) -> sa.Table:
    return sa.Table(
        name,
        metadata,
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", kind),
    )


def _write_named(connection: sa.Connection, table: sa.Table, kind: str, values: Mapping[str, Any]) -> None:
    if not values:
        return
    here = (table.c.kind == sa.bindparam("of")) & (table.c.name == sa.bindparam("called"))
    connection.execute(table.delete().where(here), [{"of": kind, "called": name} for name in values])
    made = [{"kind": kind, "name": name, "value": value} for name, value in values.items() if value is not None]
    if made:
        connection.execute(table.insert(), made)


def _reason(error: Exception) -> str:
    """The driver's own words, without SQL and parameters."""
    return str(getattr(error, "orig", None) or error).splitlines()[0]


def _engine(url: sa.URL) -> sa.Engine:
    if url.get_backend_name() != "sqlite":
        return sa.create_engine(url, pool_size=1, pool_pre_ping=True, hide_parameters=True)
    if url.database and url.database != ":memory:":
        file = Path(url.database)
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
            sync_folder(file.parent)
    engine = sa.create_engine(url, hide_parameters=True)

    @sa.event.listens_for(engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves, so that table changes are transactional too
        mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        if mode not in ("wal", "memory"):
            logger.warning("store: no write-ahead log on this file system, journal mode is %s", mode)
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA busy_timeout=5000")

    @sa.event.listens_for(engine, "begin")
    def begun(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine
