"""`delete` on the state of an SA or a bundle, from the SET to what charon is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.backends.engine import ChildSa, IkeEvent, IkeEventKind, IkeSa
from agent.backends.memory import MemoryIke, MemorySpd
from agent.mib import load_schema
from agent.monitor import Monitor
from agent.plan import numbers
from agent.store.errors import ErrorStatus, Refused
from agent.store.hooks import AGENT, Edit
from agent.store.store import Store, default_url

SCHEMA = load_schema()
OURS, THEIRS = b"\x0a\x08\0\x01", b"\x0a\x08\0\x02"
DELETE = {"ikeSaState": 7, "ikev2SaState": 7, "ipsecBundleState": 3}


class Bench:
    def __init__(self, store: Store, ike: MemoryIke) -> None:
        self.store, self.ike = store, ike

    def up(self, peer: int, version: int, ike_id: int, child_id: int) -> None:
        child = ChildSa(
            f"peer-{peer}-rule-1",
            child_id,
            numbers.REQID_FIRST,
            "INSTALLED",
            1,
            50,
            bytes([0, 0, 1, child_id]),
            b"abcd",
        )
        sa = IkeSa(f"peer-{peer}", ike_id, version, "ESTABLISHED", OURS, THEIRS)
        for kind, tunnel in ((IkeEventKind.IKE_UP, None), (IkeEventKind.CHILD_UP, child)):
            self.ike.emit(IkeEvent(kind, ike=sa, child=tunnel, connection=sa.connection))

    async def set(self, *edits: tuple[str, int, int]) -> None:
        await self.store.commit([Edit(SCHEMA.columns[name], row, value) for name, row, value in edits], AGENT)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    store = Store.open(SCHEMA, default_url(tmp_path), tmp_path)
    ike = MemoryIke()
    monitor = Monitor(store, SCHEMA, ike, MemorySpd(), tunnels_changed=lambda tunnels: None)
    store.actions.register(monitor.endings)
    await monitor.start()
    made = Bench(store, ike)
    made.up(1, 1, ike_id=11, child_id=21)
    made.up(2, 2, ike_id=12, child_id=22)
    await monitor._publish()
    try:
        yield made
    finally:
        await monitor.stop()
        await store.close()


@pytest.mark.parametrize(
    ("column", "row", "call"),
    [
        ("ikeSaState", 1, ("terminate", "", "", "11")),
        ("ikev2SaState", 2, ("terminate", "", "", "12")),
        ("ipsecBundleState", 1, ("terminate-child", "21")),
        ("ipsecBundleState", 2, ("terminate-child", "22")),
    ],
)
async def test_delete_ends_it(bench: Bench, column: str, row: int, call: tuple[str, ...]) -> None:
    await bench.set((column, row, DELETE[column]))
    assert bench.ike.calls == [call]


@pytest.mark.parametrize("column", DELETE)
@pytest.mark.parametrize("value", [1, 2])
async def test_any_other_value_is_refused_even_the_present_one(bench: Bench, column: str, value: int) -> None:
    row = 2 if column == "ikev2SaState" else 1
    with pytest.raises(Refused) as refused:
        await bench.set((column, row, value))
    assert refused.value.status is ErrorStatus.INCONSISTENT_VALUE
    assert "delete" in refused.value.text and not bench.ike.calls


async def test_what_is_not_there_is_ended_already(bench: Bench) -> None:
    await bench.set(("ikeSaState", 99, 7), ("ipsecBundleState", 99, 3))
    assert not bench.ike.calls


async def test_one_set_ends_several_or_none(bench: Bench) -> None:
    with pytest.raises(Refused):
        await bench.set(("ipsecBundleState", 1, 3), ("ikeSaState", 1, 2))
    assert not bench.ike.calls
    await bench.set(("ipsecBundleState", 1, 3), ("ikev2SaState", 2, 7))
    assert sorted(bench.ike.calls) == [("terminate", "", "", "12"), ("terminate-child", "21")]
