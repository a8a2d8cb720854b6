"""Documents: uploads in segments, their digest, their bounds, whose they are, and when they go."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.mib import load_schema
from agent.mib.ber import Value
from agent.store import audit
from agent.store import documents as bounds
from agent.store.documents import IDLE, LARGEST_SEGMENT, REPORT, Documents
from agent.store.errors import ErrorStatus, Refused
from agent.store.hooks import Edit, Origin
from agent.store.store import Store

SCHEMA = load_schema()
MINE = Origin("snmp", "noc", "192.0.2.7:40000", "192.0.2.1:161")
YOURS = Origin("snmp", "guest", "192.0.2.8:40000", "192.0.2.1:161")


class Desk:
    """Documents on a store, and a clock that is set by hand."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.now = 0.0
        self.documents = Documents(store.live, lambda: self.now)
        store.actions.register(self.documents)

    async def put(self, cells: dict[str, Value], origin: Origin = MINE) -> None:
        edits = []
        for instance, value in cells.items():
            name, number = instance.split(".")
            edits.append(Edit(SCHEMA.columns[name], int(number), value))
        await self.store.commit(edits, origin)

    async def refused(self, cells: dict[str, Value], origin: Origin = MINE) -> tuple[ErrorStatus, str, str]:
        with pytest.raises(Refused) as caught:
            await self.put(cells, origin)
        return caught.value.status, list(cells)[caught.value.edit], caught.value.text

    def row(self, number: int) -> dict[str, Value]:
        row = self.store.live.table("ipsecGwDocumentTable").row(number)
        assert row is not None
        return {name: row[f"ipsecGwDocument{name}"] for name in ("Name", "Size", "Segments", "Digest", "Owner")}

    def free(self) -> Value:
        row = self.store.live.table("ipsecGwFreeIndices").row(0)
        assert row is not None
        return row["ipsecGwDocumentFree"]


def segment(document: int, at: int) -> str:
    return f"ipsecGwSegmentData.{65536 * document + at}"


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    store = Store.open(SCHEMA, "", tmp_path / "state")
    yield Desk(store)
    assert store.running.generation == 0, "nothing of documents is stored"
    await store.close()


async def test_a_document_and_its_segments_in_one_set_in_any_order(desk: Desk) -> None:
    assert desk.free() == 1
    await desk.put({segment(1, 2): b"def", segment(1, 1): b"abc", "ipsecGwDocumentName.1": b"a.toml"})
    whole = hashlib.sha256(b"abcdef").digest()
    assert desk.row(1) == {"Name": b"a.toml", "Size": 6, "Segments": 2, "Digest": whole, "Owner": b"noc"}
    assert desk.documents.contents(1) == b"abcdef" and desk.free() == 2


async def test_segments_have_no_gap_and_need_their_document(desk: Desk) -> None:
    status, blamed, text = await desk.refused({segment(1, 1): b"x"})
    assert (status, blamed) == (ErrorStatus.INCONSISTENT_NAME, segment(1, 1)) and "ipsecGwDocumentName.1" in text
    await desk.put({"ipsecGwDocumentName.1": b""})
    status, blamed, text = await desk.refused({segment(1, 1): b"x", segment(1, 3): b"y"})
    assert (status, blamed) == (ErrorStatus.INCONSISTENT_NAME, segment(1, 3)) and "segment 2, instance 65538" in text
    assert desk.row(1)["Segments"] == 0
    status, blamed, _ = await desk.refused({"ipsecGwDocumentName.2": b"", segment(2, 0): b"x"})
    assert (status, blamed) == (ErrorStatus.INCONSISTENT_NAME, segment(2, 0))


async def test_written_delete_it_goes_with_its_segments(desk: Desk) -> None:
    await desk.put({"ipsecGwDocumentName.7": b"", segment(7, 1): b"abc"})
    status, blamed, _ = await desk.refused({"ipsecGwDocumentState.7": 2, segment(7, 2): b"x"})
    assert (status, blamed) == (ErrorStatus.INCONSISTENT_NAME, segment(7, 2))
    await desk.put({"ipsecGwDocumentState.7": 2})
    assert 7 not in desk.documents and len(desk.store.live.table("ipsecGwSegmentTable")) == 0


async def test_a_document_belongs_to_its_user(desk: Desk) -> None:
    await desk.put({"ipsecGwDocumentName.1": b"", segment(1, 1): b"abc"})
    for cells in ({segment(1, 1): b"x"}, {segment(1, 2): b"x"}, {"ipsecGwDocumentState.1": 2}):
        status, _, text = await desk.refused(dict(cells), YOURS)
        assert status is ErrorStatus.INCONSISTENT_VALUE and "belongs to noc" in text
    assert desk.documents.contents(1) == b"abc"


async def test_bounds(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MOST_OCTETS", 10)
    monkeypatch.setattr(bounds, "ALL_OCTETS", 15)
    monkeypatch.setattr(bounds, "MOST_DOCUMENTS", 2)
    full = ErrorStatus.RESOURCE_UNAVAILABLE
    await desk.put({"ipsecGwDocumentName.1": b"", segment(1, 1): b"x" * 8})
    status, blamed, _ = await desk.refused({segment(1, 2): b"xx", segment(1, 3): b"x"})
    assert (status, blamed) == (full, segment(1, 3))
    await desk.put({segment(1, 1): b"x" * 7, segment(1, 2): b"xxx"})  # replaced, not added
    await desk.put({"ipsecGwDocumentName.2": b""})
    status, blamed, _ = await desk.refused({segment(2, 1): b"xxxxxx"})
    assert (status, blamed) == (full, segment(2, 1))
    status, blamed, _ = await desk.refused({"ipsecGwDocumentName.3": b""})
    assert (status, blamed) == (full, "ipsecGwDocumentName.3")
    await desk.put({"ipsecGwDocumentState.1": 2, "ipsecGwDocumentName.3": b"", segment(3, 1): b"x" * 10})
    assert desk.documents.put("report", REPORT, b"x") == 0, "the agent has no more room than others"


async def test_idle_uploads_go_and_the_agents_own_stay(desk: Desk) -> None:
    kept = desk.documents.put("request", REPORT, b"r" * (LARGEST_SEGMENT + 1))
    await desk.put({"ipsecGwDocumentName.2": b"", segment(2, 1): b"a"})
    await desk.put({"ipsecGwDocumentName.3": b"", segment(3, 1): b"a"})
    desk.now = IDLE - 1
    await desk.put({segment(3, 2): b"b"})
    desk.now = IDLE + 1
    desk.documents.expire()
    assert 2 not in desk.documents and 3 in desk.documents and kept in desk.documents
    assert desk.documents.contents(kept) == b"r" * (LARGEST_SEGMENT + 1) and desk.row(kept)["Owner"] == b"agent"
    desk.documents.remove(kept)
    assert len(desk.store.live.table("ipsecGwSegmentTable")) == 2


async def test_the_log_of_an_upload_does_not_hold_it(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await desk.put({"ipsecGwDocumentName.1": b"a.toml"})
    await desk.put({segment(1, 1): b"very private"})
    assert 'ipsecGwDocumentName.1 = "a.toml"' in caplog.text and "private" not in caplog.text


async def test_nor_does_that_of_a_set_of_other_things_too_or_of_a_refusal(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    _, _, text = await desk.refused({"ipsecGwDocumentName.1": b"a.toml", segment(1, 2): b"very private"})
    assert text.startswith(f"{segment(1, 2)} = (12 octets): segments have no gap")
    columns = SCHEMA.columns
    edits = [Edit(columns["ipsecGlobEnabled"], 0, 1), Edit(columns["ipsecGwSegmentData"], 65537, b"very private")]
    audit.accepted(7, edits, MINE)
    assert "ipsecGlobEnabled.0 = true(1), ipsecGwSegmentData.65537 = (12 octets)" in caplog.text
    assert "private" not in caplog.text


async def test_an_upload_reads_as_an_asterisk_and_what_the_agent_shows_as_it_is(desk: Desk) -> None:
    await desk.put({"ipsecGwDocumentName.1": b"a.toml", segment(1, 1): b'ipsecPeerPreSharedKey = "very private"'})
    shown = desk.documents.put("report", REPORT, b"all is well")
    data = {row.number: row["ipsecGwSegmentData"] for row in desk.store.live.table("ipsecGwSegmentTable").rows()}
    assert data == {65537: b"*", 65536 * shown + 1: b"all is well"}
    assert desk.documents.contents(1) == b'ipsecPeerPreSharedKey = "very private"'


WRITES = st.lists(st.dictionaries(st.integers(1, 6), st.binary(max_size=5), max_size=4), max_size=8)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(writes=WRITES)
async def test_size_count_and_digest_are_those_of_the_contents(desk: Desk, writes: list[dict[int, bytes]]) -> None:
    await desk.put({"ipsecGwDocumentState.9": 2})
    await desk.put({"ipsecGwDocumentName.9": b""})
    model: dict[int, bytes] = {}
    for write in writes:
        expected = {**model, **write}
        cells: dict[str, Value] = {segment(9, at): octets for at, octets in write.items()}
        if sorted(expected) == list(range(1, len(expected) + 1)):
            if cells:
                await desk.put(cells)
            model = expected
        else:
            await desk.refused(cells)
    whole = b"".join(model[at] for at in sorted(model))
    row = desk.row(9)
    assert desk.documents.contents(9) == whole
    assert (row["Size"], row["Segments"]) == (len(whole), len(model))
    assert row["Digest"] == (hashlib.sha256(whole).digest() if model else b"")
