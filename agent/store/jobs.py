"""Jobs as rows of live tables: how many there may be, how long a finished one stays, how they end with the agent."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from agent.mib.ber import Value
from agent.store.errors import ErrorStatus, Refused, StoreError
from agent.store.live import Live

logger = logging.getLogger(__name__)

KEPT: Final = 300.0  # seconds that a finished job stays
MOST_FINISHED: Final = 64
MOST_WAITING: Final = 64  # jobs that have not finished

TODO, RUNNING, DONE, ERROR = 1, 2, 3, 4  # the same in ipsecGwImportState and biboAdmConfigState
DELAYED, STOPPED = 5, 6  # of biboAdmConfigState


class JobFailed(Exception):
    """What a job could not do, for the person who asked."""


class Jobs:
    """The jobs of one table. `show` gives the columns of a state and message. `clock` counts seconds."""

    def __init__(
        self, live: Live, table: str, show: Callable[[int, str], Mapping[str, Value]], clock: Callable[[], float]
    ) -> None:
        self._live = live
        self._table = table
        self._show = show
        self._clock = clock
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._delayed: set[int] = set()
        self._finished: dict[int, float] = {}  # in the order in which they finished
        self._turn = asyncio.Lock()  # one at a time: a load may hold hundreds of megabytes while it is built

    def full(self, more: int) -> bool:
        """Whether `more` jobs are too many."""
        return len(self._tasks) + more > MOST_WAITING

    def waiting(self, number: int) -> bool:
        """The job has not finished."""
        return number in self._tasks

    def delayed(self, number: int) -> bool:
        """The job has not begun, since it is given for later."""
        return number in self._delayed

    def withdraw(self, number: int) -> None:
        """A delayed one, which ends as stopped. One that has begun meanwhile goes on."""
        if number in self._delayed:
            self._tasks[number].cancel()

    def start(
        self, number: int, values: Mapping[str, Value], work: Callable[[], Coroutine[Any, Any, str]], delay: float = 0
    ) -> None:
        """Make the row and begin; `work` returns the message of success. Raises nothing."""
        self._live.update(self._table, {number: {**values, **self._show(DELAYED if delay else TODO, "")}})
        if delay:
            self._delayed.add(number)
        task = asyncio.get_running_loop().create_task(self._run(number, work, delay), name=f"{self._table} {number}")
        self._tasks[number] = task

    def remove(self, number: int) -> None:
        """A finished one."""
        self._finished.pop(number, None)
        self._live.update(self._table, {number: None})

    def expire(self) -> None:
        """Remove what finished long ago; to be called now and then."""
        now = self._clock()
        for number, since in list(self._finished.items()):
            if now - since >= KEPT or len(self._finished) > MOST_FINISHED:
                self.remove(number)

    async def stop(self) -> None:
        """End what runs; a commit that has begun is carried out by the store."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, number: int, work: Callable[[], Coroutine[Any, Any, str]], delay: float) -> None:
        state, message = ERROR, "the agent ended"
        try:
            if delay:
                try:
                    await asyncio.sleep(delay)
                except asyncio.CancelledError:
                    state, message = STOPPED, ""
                    raise
                finally:
                    self._delayed.discard(number)
            async with self._turn:
                self._tell(number, RUNNING, "")
                message = await work()
                state = DONE
        except (JobFailed, Refused, StoreError) as error:
            message = str(error)
        except OSError as error:
            message = f"{error.filename or 'a file'}: {error.strerror or error}"
        except Exception:
            logger.exception("job %d of %s failed", number, self._table)
            message = "an error of the agent, see its log"
        finally:
            del self._tasks[number]
            self._finished[number] = self._clock()
            self._tell(number, state, message)
            self.expire()

    def _tell(self, number: int, state: int, message: str) -> None:
        if number in self._live.table(self._table):
            self._live.update(self._table, {number: self._show(state, message)})


NO_ROOM: Final = ErrorStatus.RESOURCE_UNAVAILABLE
monotonic = time.monotonic
