"""Named configurations and import jobs: commands given by SET, done one after the other, told in states and words."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.mib import load_schema
from agent.mib.ber import Value
from agent.store import jobs
from agent.store.configfile import write_configuration
from agent.store.errors import ErrorStatus, Refused
from agent.store.exchange import Exchange, exchanging
from agent.store.hooks import AGENT, Edit, Origin
from agent.store.passphrase import PassphraseLock
from agent.store.snapshot import Configuration
from agent.store.store import Store, read_store
from tests.random_configuration import opened

SCHEMA = load_schema()
NEAR = Origin("snmp", "noc", "127.0.0.1", "127.0.0.1", secure=True)
FAR = Origin("snmp", "noc", "192.0.2.7", "192.0.2.1", secure=False)
SAVE, LOAD, PUT, STATE, DELETE, MOVE, COPY, REBOOT = 1, 2, 3, 5, 6, 7, 8, 9
DONE, ERROR, DELAYED, STOPPED = 3, 4, 5, 6
PEER: dict[str, Value] = {
    "ipsecTrProto.1": 6,
    "ipsecPeerTrafficList.1": 1,
    "ipsecPeerDescription.1": b"Branch",
    "ipsecPeerPreSharedKey.1": b"a long secret",
}


class Desk:
    def __init__(self, store: Store, exchange: Exchange, state: Path, told: list[str]) -> None:
        self.store, self.exchange, self.state, self.told = store, exchange, state, told
        self.command = 0

    async def put(self, cells: dict[str, Value], origin: Origin = NEAR) -> None:
        edits = []
        for instance, value in cells.items():
            name, number = instance.split(".")
            edits.append(Edit(SCHEMA.columns[name], int(number), value))
        await self.store.commit(edits, origin)

    async def refused(self, cells: dict[str, Value], origin: Origin = NEAR) -> tuple[ErrorStatus, str, str]:
        with pytest.raises(Refused) as caught:
            await self.put(cells, origin)
        return caught.value.status, list(cells)[caught.value.edit], caught.value.text

    def give(self, command: int, path: str = "", new: str = "", **more: Value) -> dict[str, Value]:
        """Cells of the next command."""
        self.command += 1
        cells: dict[str, Value] = {"Cmd": command, "Path": path.encode(), "PathNew": new.encode(), **more}
        return {f"biboAdmConfig{name}.{self.command}": value for name, value in cells.items()}

    def state_of(self, number: int) -> Value:
        row = self.store.live.table("biboAdmConfigTable").row(number)
        assert row is not None
        return row["biboAdmConfigState"]

    async def finished(self, running: Any) -> None:
        async with asyncio.timeout(30):
            while running():  # noqa: ASYNC110 -- a job tells nobody but its row
                await asyncio.sleep(0.005)

    async def do(self, command: int, path: str = "", new: str = "", **more: Value) -> Value:
        """Its state when it has finished."""
        await self.put(self.give(command, path, new, **more))
        number = self.command
        await self.finished(lambda: self.state_of(number) not in (DONE, ERROR))
        return self.state_of(number)

    def saved(self) -> dict[str, int]:
        """Generation by name."""
        found = {}
        for row in self.store.live.table("ipsecGwSavedTable").rows():
            name, generation = row["ipsecGwSavedName"], row["ipsecGwSavedGeneration"]
            assert isinstance(name, bytes) and isinstance(generation, int)
            assert row["ipsecGwSavedSize"] == self.exchange.saved.path(name.decode()).stat().st_size
            found[name.decode()] = generation
        return found

    def cell(self, instance: str) -> Value:
        return opened(self.store.running, self.store.secrets)[instance]

    async def upload(self, text: str, number: int = 1, origin: Origin = NEAR) -> None:
        cells: dict[str, Value] = {f"ipsecGwDocumentName.{number}": b"test.toml"}
        octets = text.encode()
        for at in range(0, len(octets), 4096):
            cells[f"ipsecGwSegmentData.{65536 * number + at // 4096 + 1}"] = octets[at : at + 4096]
        await self.put(cells, origin)

    async def imported(self, number: int = 1, job: int = 1, origin: Origin = NEAR, **more: Value) -> tuple[Value, str]:
        """(state, message) when it has finished."""
        cells = {f"ipsecGwImport{name}.{job}": value for name, value in more.items()}
        await self.put({f"ipsecGwImportDocument.{job}": number, **cells}, origin)
        await self.finished(lambda: self.exchange.imports.jobs.waiting(job))
        row = self.store.live.table("ipsecGwImportTable").row(job)
        assert row is not None
        message = row["ipsecGwImportMessage"]
        assert isinstance(message, bytes)
        return row["ipsecGwImportState"], message.decode()


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    state = tmp_path / "state"
    store = Store.open(SCHEMA, "", state)
    told: list[str] = []
    async with exchanging(store, state, told.append) as exchange:
        yield Desk(store, exchange, state, told)
    await store.close()


# ---- named configurations -------------------------------------------------------------


async def test_save_and_load(desk: Desk) -> None:
    await desk.put(PEER)
    assert await desk.do(SAVE) == DONE and desk.saved() == {"boot": 1}
    path = desk.state / "configurations" / "boot.toml"
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
    assert 'ipsecPeerDescription = "Branch"' in path.read_text() and "long secret" not in path.read_text()
    await desk.put({"ipsecPeerDescription.1": b"x", "ipsecPeerPreSharedKey.1": b"another", "ipsecPeerTrafficList.2": 0})
    assert await desk.do(LOAD, "boot") == DONE
    assert desk.store.running.generation == 3 and list(desk.store.running.table("ipsecPeerTable").numbers()) == [1]
    assert (desk.cell("ipsecPeerDescription.1"), desk.cell("ipsecPeerPreSharedKeyData.1")) == (
        b"Branch",
        b"a long secret",
    )


async def test_copy_move_delete_state(desk: Desk) -> None:
    await desk.put(PEER)
    assert await desk.do(SAVE, "one") == DONE
    await desk.put({"ipsecPeerDescription.1": b"x"})
    assert await desk.do(SAVE, "two") == DONE
    assert await desk.do(COPY, "one", "three") == DONE
    assert await desk.do(MOVE, "two", "one") == DONE
    assert desk.saved() == {"one": 2, "three": 1}
    assert await desk.do(STATE, "one") == DONE and await desk.do(STATE, "two") == ERROR
    assert desk.told == ["biboAdmConfigCmd.6 = state(5): there is no configuration two; accepted: one, three"]
    assert await desk.do(DELETE, "one") == DONE and desk.saved() == {"three": 1}
    assert [path.name for path in (desk.state / "configurations").iterdir()] == ["three.toml"]


async def test_the_table_is_there_after_a_restart(desk: Desk, tmp_path: Path) -> None:
    await desk.put(PEER)
    await desk.do(SAVE, "one")
    await desk.do(SAVE, "zwölf")
    other = Store.open(SCHEMA, "", tmp_path / "other")
    (tmp_path / "other" / "configurations").mkdir()
    for name in ("one.toml", ".hidden.toml", "notes.txt"):
        (tmp_path / "other" / "configurations" / name).write_text("format = 1\n")
    async with exchanging(other, tmp_path / "other", desk.told.append) as exchange:
        assert exchange.saved.names == ["one"]
        assert Desk(other, exchange, tmp_path, []).saved() == {"one": 0}, "saved by somebody else"
    await other.close()
    assert read_store(SCHEMA, "", desk.state).numbers["saved"] == {"one": 1, "zwölf": 1}


async def test_what_cannot_be_is_refused_at_once_and_names_its_varbind(desk: Desk) -> None:
    for cells, blamed, words in (
        (desk.give(PUT), "Cmd", "is not done by this agent"),
        (desk.give(REBOOT), "Cmd", "accepted: save(1), load(2), state(5), delete(6), move(7), copy(8)"),
        (desk.give(LOAD), "Path", "there is no configuration boot"),
        (desk.give(SAVE, "../x"), "Path", "no name of a configuration"),
        (desk.give(SAVE, "a/b"), "Path", "accepted: 1..64 octets without slash, no dot at the start"),
        (desk.give(SAVE, ".x"), "Path", "no name"),
        (desk.give(SAVE, "x" * 65), "Path", "no name"),
        (desk.give(SAVE, "a", "b"), "PathNew", "copy and move have a new name"),
        (desk.give(COPY, "a"), "PathNew", "no name"),
        (desk.give(SAVE, Timeout=-1), "Timeout", "no time to wait"),
        (desk.give(SAVE, Object=b"ipsecPeerTable"), "Object", "not supported yet"),
        (desk.give(SAVE, Host=bytes([10, 0, 0, 1])), "Host", "not supported yet"),
    ):
        status, instance, text = await desk.refused(cells)
        assert (status, instance.split(".")[0]) == (ErrorStatus.INCONSISTENT_VALUE, f"biboAdmConfig{blamed}")
        assert words in text
    assert len(desk.store.live.table("biboAdmConfigTable")) == 0
    assert not (desk.state / "configurations").exists()


async def test_a_command_can_wait_and_cannot_be_changed(desk: Desk) -> None:
    await desk.put(desk.give(SAVE, "later", Timeout=1))
    assert desk.state_of(1) == DELAYED and desk.saved() == {}
    status, blamed, _ = await desk.refused({"biboAdmConfigCmd.1": LOAD})
    assert (status, blamed) == (ErrorStatus.INCONSISTENT_VALUE, "biboAdmConfigCmd.1")
    await desk.finished(lambda: desk.state_of(1) != DONE)
    assert desk.saved() == {"later": 0}


async def test_a_command_that_waits_can_be_stopped(desk: Desk) -> None:
    """The way back of a risky change that went well is not gone."""
    await desk.do(SAVE, "before")
    await desk.put(desk.give(LOAD, "before", Timeout=600))
    number = desk.command
    assert desk.state_of(number) == DELAYED
    stop: dict[str, Value] = {f"biboAdmConfigTimeout.{number}": -1}
    for cells in ({f"biboAdmConfigTimeout.{number}": 5}, {**stop, f"biboAdmConfigPath.{number}": b"x"}):
        status, _, text = await desk.refused(dict(cells))
        assert status is ErrorStatus.INCONSISTENT_VALUE and "biboAdmConfigTimeout = -1 alone" in text
    await desk.put(PEER)
    generation = desk.store.running.generation
    await desk.put(stop)
    await desk.finished(lambda: desk.state_of(number) == DELAYED)
    assert desk.state_of(number) == STOPPED and desk.store.running.generation == generation
    status, _, _ = await desk.refused(stop)  # it is over
    assert status is ErrorStatus.INCONSISTENT_VALUE


async def test_the_time_of_a_command_that_was_stopped_comes_and_nothing_is_done(desk: Desk) -> None:
    await desk.do(SAVE, "before")
    for seconds in (1, 5, 25):  # a busy machine may be too late with the stop
        await desk.put({"ipsecPeerTrafficList.1": 0, "ipsecPeerDescription.1": f"{seconds}".encode()})
        generation = desk.store.running.generation
        begun = time.monotonic()
        await desk.put(desk.give(LOAD, "before", Timeout=seconds))
        try:
            await desk.put({f"biboAdmConfigTimeout.{desk.command}": -1})
        except Refused:
            assert time.monotonic() - begun > seconds
            continue
        await asyncio.sleep(seconds + 0.1)
        assert desk.state_of(desk.command) == STOPPED and desk.store.running.generation == generation
        return
    raise AssertionError("no stop was in time")


async def test_finished_rows_go(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "MOST_FINISHED", 2)
    for _ in range(4):
        await desk.do(SAVE, "x")
    assert list(desk.store.live.table("biboAdmConfigTable").numbers()) == [3, 4]
    monkeypatch.setattr(jobs, "KEPT", 0.0)
    desk.exchange.commands.expire()
    assert not len(desk.store.live.table("biboAdmConfigTable"))


async def test_users_are_not_in_named_configurations(desk: Desk) -> None:
    user: dict[str, Value] = {
        "ipsecGwUserName.1": b"admin", "ipsecGwUserLevel.1": 1, "ipsecGwUserAuthKey.1": b"k" * 32,
    }  # fmt: skip
    await desk.store.commit([Edit(SCHEMA.columns[n.split(".")[0]], 1, value) for n, value in user.items()], AGENT)
    await desk.do(SAVE, "x")
    assert "admin" not in (desk.state / "configurations" / "x.toml").read_text()
    assert await desk.do(LOAD, "x") == DONE and desk.cell("ipsecGwUserAuthKey.1") == b"k" * 32


# ---- imports --------------------------------------------------------------------------


def exported(desk: Desk, passphrase: str = "") -> str:
    lock = PassphraseLock(passphrase, n=2) if passphrase else None
    return write_configuration(desk.store.running, secrets=desk.store.secrets, lock=lock)


async def test_an_import_is_one_generation(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await desk.put(PEER)
    text = exported(desk, "correct horse")
    await desk.store.load(_nothing(), NEAR, "nothing")
    await desk.upload(text)
    state, message = await desk.imported(Password=b"correct horse")
    assert (state, message) == (DONE, "generation 3, 2 rows differ")
    assert desk.cell("ipsecPeerPreSharedKeyData.1") == b"a long secret"
    row = desk.store.live.table("ipsecGwImportTable").row(1)
    assert row is not None and row["ipsecGwImportPassword"] == b"*"
    assert "correct horse" not in caplog.text
    assert "generation 3 by snmp user noc from 127.0.0.1: document 1 test.toml loaded, 2 rows differ" in caplog.text
    assert await desk.imported(job=2, Password=b"correct horse") == (DONE, "nothing differs")
    await desk.put({"ipsecGwImportState.1": 5})
    assert list(desk.store.live.table("ipsecGwImportTable").numbers()) == [2]


def _nothing() -> Any:
    from agent.store.load import Contents

    return Contents({})


async def test_an_import_and_its_document_in_one_set(desk: Desk) -> None:
    text = b'format = 1\n[ipsecGlobals]\nipsecGlobEnabled = "true"\n'
    await desk.put({"ipsecGwImportDocument.1": 4, "ipsecGwSegmentData.262145": text, "ipsecGwDocumentName.4": b"x"})
    await desk.finished(lambda: desk.exchange.imports.jobs.waiting(1))
    assert desk.store.running.scalar("ipsecGlobEnabled") == 1


@pytest.mark.parametrize(
    ("text", "more", "message"),
    [
        ("format = 2", {}, "format = 2 in the file; accepted: 1"),
        ("nonsense", {}, "the file is no TOML: "),
        ("format = 1\n[[ipsecPeerTable]]\nnumber = 1\nipsecPeerTrafficList = 9\n", {},
         "ipsecPeerTrafficList.1 = 9: there is no row 9 in ipsecTrafficTable"),
        ("SECRETS", {}, "the file has secrets; accepted: the passphrase"),
        ("SECRETS", {"Password": b"wrong horse"}, "the passphrase does not open the secrets"),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_told_in_words(desk: Desk, text: str, more: dict[str, Value], message: str) -> None:
    await desk.put(PEER)
    await desk.upload(exported(desk, "correct horse") if text == "SECRETS" else text)
    state, found = await desk.imported(**more)
    assert state == ERROR and found.startswith(message) and desk.store.running.generation == 1


async def test_jobs_that_cannot_be_are_refused(desk: Desk) -> None:
    inconsistent = ErrorStatus.INCONSISTENT_VALUE
    assert (await desk.refused({"ipsecGwImportDocument.1": 1}))[:2] == (inconsistent, "ipsecGwImportDocument.1")
    await desk.upload("format = 1")
    status, blamed, text = await desk.refused({"ipsecGwImportDocument.1": 1, "ipsecGwImportKind.1": 2})
    assert (status, blamed) == (inconsistent, "ipsecGwImportKind.1") and "not supported yet" in text
    status, blamed, _ = await desk.refused({"ipsecGwImportDocument.1": 1, "ipsecGwImportUrl.1": b"tftp://x/y"})
    assert (status, blamed) == (inconsistent, "ipsecGwImportUrl.1")
    status, blamed, _ = await desk.refused({"ipsecGwImportDocument.1": 1, "ipsecGwDocumentState.1": 2})
    assert (status, blamed) == (inconsistent, "ipsecGwImportDocument.1")
    status, blamed, _ = await desk.refused({"ipsecGwImportDocument.1": 1, "ipsecGwImportPassword.1": b"x"}, FAR)
    assert (status, blamed) == (ErrorStatus.NO_ACCESS, "ipsecGwImportPassword.1")
    assert not len(desk.store.live.table("ipsecGwImportTable"))


async def test_a_document_is_what_its_kind_says(desk: Desk) -> None:
    """Only one that is said to hold a configuration is imported as one."""
    await desk.put({"ipsecGwDocumentName.1": b"test.toml", "ipsecGwDocumentKind.1": 2})
    await desk.put({"ipsecGwSegmentData.65537": b'format = 1\n[ipsecGlobals]\nipsecGlobEnabled = "true"\n'})
    status, blamed, _ = await desk.refused({"ipsecGwImportDocument.1": 1})
    assert (status, blamed) == (ErrorStatus.INCONSISTENT_VALUE, "ipsecGwImportDocument.1")
    row = desk.store.live.table("ipsecGwDocumentTable").row(1)
    assert row is not None and row["ipsecGwDocumentKind"] == 2
    await desk.upload('format = 1\n[ipsecGlobals]\nipsecGlobEnabled = "true"\n', number=2)
    state, _ = await desk.imported(number=2)
    assert state == DONE and desk.store.running.scalar("ipsecGlobEnabled") == 1


async def test_a_job_bears_the_name_that_it_was_given(desk: Desk) -> None:
    await desk.upload("format = 1")
    await desk.imported(Name=b"before the holidays")
    await desk.imported(job=2)
    names = {row.number: row["ipsecGwImportName"] for row in desk.store.live.table("ipsecGwImportTable").rows()}
    assert names == {1: b"before the holidays", 2: b""}


async def test_secrets_come_by_a_secure_way_only(desk: Desk) -> None:
    await desk.upload('format = 1\n[[ipsecPeerTable]]\nnumber = 1\nipsecPeerPreSharedKey = "in plain"\n', origin=FAR)
    state, message = await desk.imported(origin=FAR)
    assert state == ERROR and "authPriv or from this host" in message
    state, _ = await desk.imported(job=2)
    assert state == DONE and desk.cell("ipsecPeerPreSharedKeyData.1") == b"in plain"


async def test_a_lock_out_can_be_allowed_in_the_same_set(desk: Desk) -> None:
    seen: list[bool] = []

    def check(before: Configuration, after: object, rows: object, edits: list[Edit], origin: Origin) -> None:
        seen.append(any(edit.column.name == "ipsecGwAllowLockout" and edit.value == 1 for edit in edits))

    desk.store.checks.append(check)  # type: ignore[arg-type]
    await desk.upload('format = 1\n[ipsecGlobals]\nipsecGlobEnabled = "true"\n')
    await desk.put({"ipsecGwImportDocument.1": 1, "ipsecGwAllowLockout.0": 1})
    await desk.finished(lambda: desk.exchange.imports.jobs.waiting(1))
    assert seen == [True] and desk.store.running.generation == 1


async def test_free_numbers(desk: Desk) -> None:
    await desk.upload("format = 1")
    await desk.imported()
    row = desk.store.live.table("ipsecGwFreeIndices").row(0)
    assert row is not None and (row["ipsecGwDocumentFree"], row["ipsecGwImportFree"]) == (2, 2)
