"""Whatever is done with a secret, it stands in no log line, no table, no file and no exception's text."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from agent.mib.ber import Wire, encode_integer, encode_tlv, encode_value
from agent.mib.schema import Column, Role
from agent.snmp.access import Level, Principal
from agent.snmp.usm import AUTHENTICATION, PRIVACY, User
from agent.store.hooks import Edit
from tests.snmp_station import SCHEMA, SET, Session3, manager, served

MARK = b"Zq7marker"
SECRETS = [column for column in SCHEMA.columns.values() if column.traits.role is Role.SECRET]
VALUES = (MARK + b"0123456789", MARK + b"x" * 300, MARK + b"\0\1\xff", MARK + b"\r\nInjected: line")
DESTROY, CREATE_AND_GO = 6, 4


def sets(column: Column) -> list[list[tuple[tuple[int, ...], bytes]]]:
    """Good ones and bad ones: on rows that are there, are made, are removed, of the wrong type and length."""
    table = SCHEMA.table_of(column)
    found = []
    for number in (0,) if table.scalar else (5, 77):
        status = table.row_status
        for wish in (None,) if status is None else (None, CREATE_AND_GO, DESTROY):
            more = [((*status.oid, number), encode_value(status.wire, wish))] if status and wish else []
            name = (*column.oid, number)
            found += [[(name, encode_tlv(Wire.OCTET_STRING, value)), *more] for value in VALUES]
            found.append([(name, encode_integer(5)), *more])
    return found


def files_in(folder: Path) -> list[tuple[bytes, int]]:
    """Octets and mode of each."""
    return [(path.read_bytes(), path.stat().st_mode) for path in folder.rglob("*") if path.is_file()]


async def test_no_set_leaves_it_anywhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with served(tmp_path) as at, manager(at.server.addresses[0]) as plain, manager(at.server.addresses[0]) as own:
        session = await Session3.open(own, tmp_path)
        for column in SECRETS:
            for varbinds in sets(column):
                await session.ask(SET, varbinds)
                await plain.ask(SET, varbinds)
        values = [value for _, value in await plain.walk((1, 3, 6, 1))]
    assert len(values) > 300 and not any(MARK in value for value in values)
    assert len(caplog.records) > 100
    assert not any(MARK.decode() in record.getMessage() for record in caplog.records)
    files = files_in(tmp_path)
    assert files and not any(MARK in octets for octets, _ in files)
    assert not any(mode & 0o077 for _, mode in files)


def test_nor_does_what_an_exception_may_show() -> None:
    user = User(Principal("admin", Level.ADMIN), AUTHENTICATION[5], PRIVACY[3], MARK, MARK, MARK, MARK)
    assert "admin" in repr(user) and MARK.decode() not in repr(user)
    for column in SECRETS:
        shown = repr(Edit(column, 1, MARK))
        assert column.name in shown and MARK.decode() not in shown
