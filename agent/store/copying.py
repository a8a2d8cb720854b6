"""When copies of the store are made: at once, at intervals, and at a clean stop, where the generation has moved."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from agent.store.copies import Copies
from agent.store.errors import StoreDamaged, StoreError
from agent.store.health import Health, StoreState, Topic

logger = logging.getLogger(__name__)

DAMAGED_MEANWHILE: Final = (
    "what is in force is whole in memory: export it before the agent is stopped, then see docs/backup.md"
)


class Copying:
    """On the event loop, with a thread of its own, so that no SET waits for a copy."""

    def __init__(self, copies: Copies, health: Health) -> None:
        self._copies, self._health = copies, health
        self._task: asyncio.Task[None] | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._generation: Callable[[], int] = int
        self._sound = asyncio.Event()

    def start(self, sound: asyncio.Event, generation: Callable[[], int], interval: float) -> None:
        """`sound`: set once there is something worth a copy; `generation`: the one in force; seconds."""
        self._sound, self._generation = sound, generation
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="copies")
        self._task = asyncio.get_running_loop().create_task(self._run(interval), name="copies of the store")

    async def stop(self) -> None:
        """One last copy, if it was started; the store is not written any more."""
        if self._task is None or self._thread is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self._sound.is_set():
            await self._copy()  # after the one under way, which has the same thread
        self._thread.shutdown()
        self._task = None

    async def _run(self, interval: float) -> None:
        await self._sound.wait()
        while True:
            await self._copy()
            await asyncio.sleep(interval)

    async def _copy(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, self._copy_if_moved, self._generation())
        except StoreDamaged as error:
            self._health.say(Topic.COPIES, StoreState.FAILING, f"{error}; {DAMAGED_MEANWHILE}")
        except StoreError as error:
            self._health.say(Topic.COPIES, StoreState.OK, str(error))
        except OSError as error:
            self._health.say(Topic.COPIES, StoreState.OK, f"the copies cannot be looked at: {error}")
        else:
            self._health.well(Topic.COPIES)

    def _copy_if_moved(self, generation: int) -> None:
        newest = next(iter(self._copies.newest_first()), None)
        if newest is None or newest.generation != generation:
            made = self._copies.make()
            logger.info("store: copied as %s", made.path)
