"""Attempts to bring tunnels up, where charon's queue of connections is full."""

from __future__ import annotations

import asyncio
import socket

import pytest

from agent.backends.charon import attempts
from agent.backends.charon.attempts import Attempts
from agent.backends.engine import IkeEvent


class Busy:
    """Refuses as a full queue does, so many times; then as a charon that is gone."""

    def __init__(self, times: int) -> None:
        self.left = times

    def __call__(self, timeout: float | None) -> socket.socket:
        self.left -= 1
        if self.left >= 0:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        raise ConnectionRefusedError(111, "Connection refused")


async def outcome(busy: Busy) -> str:
    """How an attempt ends."""
    told: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def loaded(connection: str) -> bool:
        return True

    async def nothing_more(attempt: attempts.Attempt) -> str:
        raise AssertionError(attempt)

    async def give_up(connection: str, child: str) -> None:
        raise AssertionError(connection)

    def tell(event: IkeEvent) -> None:
        told.set_result(event.text)

    trying = Attempts(busy, loaded, nothing_more, give_up, tell, lambda: 1.0)
    trying.begin("peer-1", "peer-1-rule-1")
    try:
        return await asyncio.wait_for(told, 30)
    finally:
        await trying.stop()


async def test_a_full_queue_is_asked_again() -> None:
    busy = Busy(3)
    assert "refused" in await outcome(busy)
    assert busy.left == -1


async def test_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "QUEUE_SECONDS", 0.3)
    assert "temporarily unavailable" in await outcome(Busy(1000))
