"""When to try again what failed: per thing, doubling from one second to a minute, with jitter.

Pure but for the clock and the dice, which are given, and for waiting. Jitter keeps a thousand things that
failed together from coming back together.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import random
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

FIRST_SECONDS: Final = 1.0
LAST_SECONDS: Final = 60.0
JITTER: Final = 0.25  # up to this share is taken off

Thing = TypeVar("Thing", bound=Hashable)


class Backoff(Generic[Thing]):
    """Times in seconds of `clock`."""

    def __init__(self, clock: Callable[[], float], dice: Callable[[], float] = random.random) -> None:
        self._clock = clock
        self._dice = dice
        self._tries: dict[Thing, tuple[int, int]] = {}  # failures so far, ticket of the last one
        self._queue: list[tuple[float, int, Thing]] = []  # (due, ticket, thing); older tickets are stale
        self._count = 0

    def __len__(self) -> int:
        return len(self._tries)

    def failed(self, thing: Thing) -> float:
        """Count a failure; the seconds until the next try."""
        tries = self._tries.get(thing, (0, 0))[0] + 1
        delay = min(LAST_SECONDS, FIRST_SECONDS * 2.0 ** min(tries - 1, 10)) * (1 - JITTER * self._dice())
        due = self._clock() + delay
        self._count += 1
        self._tries[thing] = (tries, self._count)
        heapq.heappush(self._queue, (due, self._count, thing))
        return delay

    def forget(self, thing: Thing) -> None:
        """It works now, or is no longer wanted."""
        self._tries.pop(thing, None)

    def due(self) -> list[Thing]:
        """What is to be tried now; each is given once per failure."""
        now = self._clock()
        found = []
        while self._queue and (self._queue[0][0] <= now or self._stale(self._queue[0])):
            entry = heapq.heappop(self._queue)
            if not self._stale(entry):
                found.append(entry[2])
        return found

    def next(self) -> float | None:
        """Seconds until something is due; None when nothing is."""
        while self._queue and self._stale(self._queue[0]):
            heapq.heappop(self._queue)
        return max(0.0, self._queue[0][0] - self._clock()) if self._queue else None

    async def woken_or_due(self, wake: asyncio.Event) -> None:
        """Until somebody sets `wake`, which is cleared again, or something is due."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.next()):
                await wake.wait()
        wake.clear()

    def _stale(self, entry: tuple[float, int, Thing]) -> bool:
        kept = self._tries.get(entry[2])
        return kept is None or kept[1] != entry[1]
