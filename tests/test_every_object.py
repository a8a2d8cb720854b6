"""What holds of every object alike, tried on a running agent as its administrator.

Objects that do not act yet refuse what is not their default and say which object it is;
columns that make rows of such tables are the exception, or there could be no row. Rows of
every table are made, suspended and removed by their RowStatus, and the row generation lets
the first of two editors pass only. The tables are those of the schema, so that a new one is
tried from the day it is there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from agent.mib.ber import Value, Wire, decode_value, encode_integer
from agent.mib.schema import MAKERS, Column, Keeping, Role, Table
from agent.store.errors import ErrorStatus as E
from agent.store.exchange import exchanging
from agent.store.hooks import AGENT, Edit
from tests.snmp_station import GET, NULL, SCHEMA, SET, Served, Session3, manager, served

ROW = 7
ACTIVE, SUSPENDED, MADE, DESTROYED = 1, 2, 4, 6  # RowStatus, RFC 2579
NO_SUCH_INSTANCE = b"\x81\x00"
NEEDED: dict[str, dict[str, Value]] = {
    "ipsecGwUserTable": {
        "ipsecGwUserName": b"somebody",
        "ipsecGwUserAuthPassword": b"a long password",
        "ipsecGwUserPrivPassword": b"another password",
    },
}
"""What a row of the table needs to be in force; all others are whole with their defaults."""

WAITING = [column for column in SCHEMA.columns.values() if column.writable and column.traits.stage != "skeleton"]
WITH_STATUS = [
    table for table in SCHEMA.tables.values() if table.row_status is not None and table.keeping is Keeping.STORED
]


class Administrator:
    """SETs and GETs of the user admin, by SNMPv3."""

    def __init__(self, at: Served, session: Session3) -> None:
        self.at, self.session = at, session

    async def set(self, *cells: tuple[Column, int, Value]) -> tuple[E, int]:
        """(error-status, error-index)."""
        varbinds = [((*column.oid, number), column.encode(value)) for column, number, value in cells]
        reply = await self.session.ask(SET, varbinds)
        return E(reply.status), reply.index

    async def read(self, column: Column, number: int) -> bytes:
        return (await self.session.ask(GET, [((*column.oid, number), NULL)])).varbinds[0][1]

    async def make(self, table: Table) -> int:
        """Number of a row of defaults: made by its creating columns, else by the agent."""
        if table.scalar:
            return 0
        needed = [(SCHEMA.columns[name], ROW, value) for name, value in NEEDED.get(table.name, {}).items()]
        if table.keeping is Keeping.STORED and not table.creating:
            assert table.row_status is not None
            await self.at.store.commit([Edit(table.row_status, ROW, MADE)], AGENT)
        else:
            named = [column for column, _, _ in needed]
            making = [_making(column) for column in table.creating if column not in named]
            made = await self.set(*making, *needed)
            assert made == (E.NO_ERROR, 0), (table.name, self.at.refused[-1:])
        return ROW


def _making(column: Column) -> tuple[Column, int, Value]:
    return column, ROW, ROW if column is SCHEMA.tables[column.table].index else column.default


def another(column: Column) -> Value | None:
    """A value of the object that is not its default, and removes no row; None where there is none."""
    if column.labels:
        return next((n for n in column.names if n not in (column.default, column.traits.deletes)), None)
    if column.wire is Wire.IP_ADDRESS:
        return bytes((192, 0, 2, 1))
    if column.wire is Wire.OBJECT_IDENTIFIER:
        return (1, 3, 6, 1)
    candidates: list[Value] = []
    for low, high in column.ranges or ((0, 255),):
        candidates += (
            [low, low + 1, high] if isinstance(column.default, int) else [b"x" * low, b"x" * min(low + 1, high)]
        )
    return next((value for value in candidates if value != column.default and not column.problem(value)), None)


REFUSING = [column for column in WAITING if column.traits.role not in MAKERS and another(column) is not None]


@asynccontextmanager
async def administrator(state: Path) -> AsyncIterator[Administrator]:
    async with served(state) as at, exchanging(at.store, state, at.refused.append), manager(at.address) as asking:
        yield Administrator(at, await Session3.open(asking, state))


async def test_what_does_not_act_yet_takes_its_default_only(tmp_path: Path) -> None:
    tried = 0
    silent = [column for column in WAITING if column not in REFUSING and column.traits.role not in MAKERS]
    assert all(set(column.names) <= {column.default, column.traits.deletes} for column in silent), "others have values"
    async with administrator(tmp_path) as admin:
        tables = dict.fromkeys(column.table for column in REFUSING)
        for table in (SCHEMA.tables[name] for name in tables):
            columns = [column for column in REFUSING if column.table == table.name]
            live = table.keeping is Keeping.LIVE  # there a row is a job, and begins with all it has
            number = ROW if live else await admin.make(table)
            for column in columns:
                value = another(column)
                assert value is not None
                making = [_making(maker) for maker in table.creating] if live else []
                generation = admin.at.store.running.generation
                answer = await admin.set(*making, (column, number, value))
                said = admin.at.refused[-1] if admin.at.refused else ""
                assert (column.name, answer) == (column.name, (E.INCONSISTENT_VALUE, len(making) + 1)), said
                assert said.startswith(f"{column.name}.{number} = "), said
                assert "not supported yet: " in said and "; accepted: " in said, said  # and why
                assert admin.at.store.running.generation == generation
                tried += 1
                if not live:
                    assert await admin.set((column, number, column.default)) == (E.NO_ERROR, 0)
                    shown = b"" if column.traits.role is Role.SECRET else column.default
                    assert decode_value(await admin.read(column, number)) == shown, column.name
    assert tried == len(REFUSING)


async def test_rows_of_what_does_not_act_yet_are_made_and_kept(tmp_path: Path) -> None:
    """Whatever their creating columns hold, and across a restart."""
    makers = [column for column in WAITING if column.traits.role in MAKERS]
    made: dict[str, Value] = {}
    async with administrator(tmp_path) as admin:
        for number, column in enumerate(makers, ROW):
            numbering = column is SCHEMA.tables[column.table].index
            value = number if numbering else another(column)
            assert value is not None, column.name
            if column.traits.refers and column.traits.refers in SCHEMA.tables:
                value = await admin.make(SCHEMA.tables[column.traits.refers])
            assert (column.name, await admin.set((column, number, value))) == (column.name, (E.NO_ERROR, 0))
            made[column.name] = value
    async with administrator(tmp_path) as admin:
        for number, column in enumerate(makers, ROW):
            assert decode_value(await admin.read(column, number)) == made[column.name], column.name


async def test_a_row_status_makes_suspends_and_removes(tmp_path: Path) -> None:
    assert len(WITH_STATUS) > 20
    async with administrator(tmp_path) as admin:
        for table in WITH_STATUS:
            await makes_suspends_and_removes(admin, table)


async def makes_suspends_and_removes(admin: Administrator, table: Table) -> None:
    status = table.row_status
    assert status is not None

    def planned() -> bool:
        """Whether whoever makes the configuration real sees the row."""
        return ROW in [row.number for row in admin.at.store.running.rows(table.name)]

    needed = [(SCHEMA.columns[name], ROW, value) for name, value in NEEDED.get(table.name, {}).items()]
    assert await admin.read(status, ROW) == NO_SUCH_INSTANCE, table.name
    answer = await admin.set((status, ROW, MADE), *needed)
    if table.creating:
        assert (table.name, answer) == (table.name, (E.NO_ERROR, 0)), admin.at.refused[-1:]
    else:  # keys and certificates are the agent's to make
        assert (table.name, answer) == (table.name, (E.NO_CREATION, 1))
        await admin.make(table)
    assert decode_value(await admin.read(status, ROW)) == ACTIVE and planned(), table.name
    for wanted in (SUSPENDED, ACTIVE):
        assert await admin.set((status, ROW, wanted)) == (E.NO_ERROR, 0), table.name
        assert decode_value(await admin.read(status, ROW)) == wanted, table.name
        assert planned() == (wanted == ACTIVE), table.name
    assert await admin.set((status, ROW, DESTROYED)) == (E.NO_ERROR, 0), table.name
    assert await admin.read(status, ROW) == NO_SUCH_INSTANCE and not planned(), table.name


async def test_a_row_generation_lets_the_first_of_two_editors_pass(tmp_path: Path) -> None:
    async with administrator(tmp_path) as admin:
        for table in WITH_STATUS:
            status, guard = table.row_status, table.row_generation
            assert status is not None and guard is not None, table.name
            await admin.make(table)
            seen = decode_value(await admin.read(guard, ROW))
            assert seen == admin.at.store.running.generation, table.name
            assert await admin.set((status, ROW, SUSPENDED), (guard, ROW, seen)) == (E.NO_ERROR, 0), table.name
            answer = await admin.set((status, ROW, DESTROYED), (guard, ROW, seen))
            assert (table.name, answer) == (table.name, (E.INCONSISTENT_VALUE, 2))
            assert admin.at.refused[-1].startswith(f"{guard.name}.{ROW} = {seen}: the row was changed meanwhile")
            assert await admin.read(status, ROW) == encode_integer(SUSPENDED), table.name
            assert await admin.read(guard, ROW) == guard.encode(admin.at.store.running.generation), table.name
