"""Numbers that outlive the agent, over a store that fails for a while."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from agent.backends.remembered import REQIDS, Remembered
from agent.mib import load_schema
from agent.store.errors import StoreError
from agent.store.store import Store


async def test_what_the_store_did_not_take_it_is_given_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the next agent gives another request id to a child whose SAs carry this one, and the tunnel ends."""
    store = Store.open(load_schema(), "", tmp_path)
    reqids = Remembered(store, REQIDS, "request ids")
    await reqids.keep({"a": 1, "b": 2})

    async def full(kind: str, numbers: Mapping[str, int | None]) -> None:
        raise StoreError("disk full")

    with monkeypatch.context() as failing:
        failing.setattr(store, "remember", full)
        await reqids.keep({"c": 3, "b": None})
        await reqids.keep({"d": 4})
    assert reqids.held == {"a": 1, "c": 3, "d": 4}
    await reqids.keep({"e": 5})
    await store.close()
    store = Store.open(load_schema(), "", tmp_path)
    assert store.numbers(REQIDS) == Remembered(store, REQIDS, "request ids").held == {"a": 1, "c": 3, "d": 4, "e": 5}
    await store.close()
