"""Attempts to bring tunnels up: a limited number at once, each with the reason should it fail.

For the first seconds an attempt holds a thread of ours and one of charon's, because the
control log of `initiate` tells what happens. A peer that does not answer takes minutes; it
gives its place back then and is followed by events, so dead peers do not keep the living
from their turn. An attempt for a child that is already being tried is none: whoever asks
again gets the answer to the first. What that was begun with may be loaded no more by then;
so whatever comes of an attempt whose connection was changed, it is begun anew, once what
was negotiated before has been ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from vici import Session
from vici.exception import CommandException

from agent.backends import tasks
from agent.backends.charon.config import INITIATES
from agent.backends.charon.messages import texts
from agent.backends.charon.reasons import ENDED, exists_already, reason
from agent.backends.charon.vici import BROKEN, Connect, refusal
from agent.backends.engine import IkeEvent, IkeEventKind, Narrowed
from agent.plan import numbers

logger = logging.getLogger(__name__)

HOLD_SECONDS: Final = 10.0
LATE_SECONDS: Final = 10.0  # with its word that these are over, until charon is taken for one that does not answer
LOADING_SECONDS: Final = 10.0  # a connection may still be on its way to charon
QUEUE_SECONDS: Final = 10.0  # to get into charon's queue of connections, which holds some ten
QUEUE_PAUSE: Final = 0.1
KEPT_LINES: Final = 100
UP: Final = ""
SLOW: Final = "still trying"


@dataclass(eq=False)
class Attempt:
    """One negotiation under way. `outcome`: '' up, else why not."""

    connection: str
    child: str
    outcome: asyncio.Future[str]
    narrowed: Narrowed | None = None  # what has to be loaded for it first
    lines: list[str] = field(default_factory=list)
    trying: bool = False  # charon was asked, and there is no outcome yet
    slow: bool = False  # followed by events now
    outdated: bool = False  # begun with settings that are loaded no more

    def anew(self) -> None:
        self.outcome = asyncio.get_running_loop().create_future()
        self.lines.clear()
        self.slow = self.outdated = False

    def say(self, line: str) -> None:
        self.lines.append(line)
        del self.lines[:-KEPT_LINES]

    def end(self, text: str) -> None:
        if not self.outcome.done():
            self.outcome.set_result(text)


class Attempts:
    """`loaded(connection)` waits until charon has it, and says whether; `prepare(attempt)` loads what it is narrowed
    to, and says why that cannot be, '' otherwise; `give_up(connection, child)` ends what still tries after
    `patience()` seconds (child '': all of it); `told` gets the INITIATED events."""

    def __init__(
        self,
        connect: Connect,
        loaded: Callable[[str], Awaitable[bool]],
        prepare: Callable[[Attempt], Awaitable[str]],
        give_up: Callable[[str, str], Awaitable[None]],
        told: Callable[[IkeEvent], None],
        patience: Callable[[], float],
    ) -> None:
        self._connect, self._loaded, self._give_up, self._told = connect, loaded, give_up, told
        self._prepare = prepare
        self._patience = patience
        self._places = asyncio.Semaphore(INITIATES)
        self._executor = ThreadPoolExecutor(INITIATES, thread_name_prefix="charon-initiate")
        self._under_way: dict[tuple[str, str], Attempt] = {}
        self._endings: dict[str, asyncio.Event] = {}  # connections whose outdated SAs are being ended
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: set[socket.socket | None] = set()  # of the threads at work

    def begin(self, connection: str, child: str, narrowed: Narrowed | None = None) -> None:
        """Start, unless it is under way. `narrowed`: as of Ike.initiate."""
        key = (connection, child)
        if key in self._under_way:
            return
        loop = asyncio.get_running_loop()
        attempt = self._under_way[key] = Attempt(connection, child, loop.create_future(), narrowed)
        task = loop.create_task(self._run(attempt))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @contextlib.asynccontextmanager
    async def ending_outdated(self, connection: str, child: str = "") -> AsyncIterator[Callable[[], bool]]:
        """While SAs with settings of before are ended; attempts under way for the connection (or only for that child)
        are begun anew after it, and none before. One at a time of a connection. Gives what tells whether one that
        was begun before goes on."""
        for attempt in self._of(connection):
            attempt.outdated = attempt.outdated or child in ("", attempt.child, numbers.rule_child(attempt.child))
        over = self._endings[connection] = asyncio.Event()
        try:
            yield lambda: any(attempt.outdated and attempt.trying for attempt in self._of(connection))
        finally:
            del self._endings[connection]
            over.set()

    def given_up(self, connection: str) -> Callable[[], bool]:
        """What is under way for it is being ended for good; gives what tells whether some of it goes on."""
        ended = self._of(connection)
        for attempt in ended:
            attempt.outdated = False
        return lambda: any(attempt.trying for attempt in ended)

    def _of(self, connection: str) -> list[Attempt]:
        return [attempt for attempt in self._under_way.values() if attempt.connection == connection]

    def event(self, event: IkeEvent) -> None:
        """What charon tells meanwhile."""
        if event.kind is IkeEventKind.LOST:
            for attempt in list(self._under_way.values()):
                attempt.end("charon was lost")
        elif event.connection and self._under_way:
            for attempt in self._of(event.connection):
                self._follow(attempt, event)

    def _follow(self, attempt: Attempt, event: IkeEvent) -> None:
        if event.kind is IkeEventKind.LOG:
            attempt.say(event.text)
            if attempt.slow and ENDED.search(event.text):
                attempt.end(reason(attempt.lines))
        elif event.kind is IkeEventKind.CHILD_UP and event.child_name == attempt.child:
            attempt.end(UP)
        elif attempt.slow and event.kind is IkeEventKind.IKE_DOWN:
            attempt.end(reason(attempt.lines))

    async def _run(self, attempt: Attempt) -> None:
        try:
            text = await self._try(attempt)
            while attempt.outdated:
                await self._ended(attempt.connection)
                if text == UP:
                    await self._give_up(attempt.connection, attempt.child)
                attempt.anew()
                text = await self._try(attempt)
        except asyncio.CancelledError:
            raise
        except Exception:
            logger.exception("initiating %s of %s failed", attempt.child, attempt.connection)
            text = "a defect of the agent; see its log"
        finally:
            self._under_way.pop((attempt.connection, attempt.child), None)
        self._told(IkeEvent(IkeEventKind.INITIATED, connection=attempt.connection, child_name=attempt.child, text=text))

    async def _try(self, attempt: Attempt) -> str:
        try:
            return await self._initiated(attempt)
        finally:
            attempt.trying = False

    async def _initiated(self, attempt: Attempt) -> str:
        if not await self._loaded(attempt.connection):
            return f"{attempt.connection} is not loaded into charon"
        await self._ended(attempt.connection)
        async with self._places:
            if attempt.narrowed is not None and (problem := await self._prepare(attempt)):
                return problem
            attempt.trying = True
            text = await asyncio.get_running_loop().run_in_executor(self._executor, self._initiate, attempt)
        if text is not SLOW:
            return text
        attempt.slow = True
        try:
            async with asyncio.timeout(self._patience()):
                return await attempt.outcome
        except TimeoutError:
            attempt.trying = False  # nobody needs to see to its end besides
            await self._give_up(attempt.connection, "")
            return reason(attempt.lines)

    async def _ended(self, connection: str) -> None:
        """Until nothing of it is outdated."""
        while (ending := self._endings.get(connection)) is not None:
            await ending.wait()

    def _initiate(self, attempt: Attempt) -> str:
        """In a thread."""
        lines: list[str] = []
        connection: socket.socket | None = None
        try:
            with self._connected() as connection:
                self._open.add(connection)
                session: Any = Session(connection)
                request = {
                    "ike": attempt.connection,
                    "child": attempt.child,
                    "timeout": str(int(HOLD_SECONDS * 1000)),
                    "loglevel": "1",
                }
                try:
                    for message in session.initiate(request):
                        lines.append(texts(message).get("msg", ""))
                except CommandException as error:
                    words = refusal(error)
                    if exists_already(lines):
                        return UP
                    if "not established after" in words:
                        return SLOW
                    return reason(lines, words)
        except BROKEN as error:
            return f"charon does not answer: {error}"
        finally:
            self._open.discard(connection)
        return UP

    def _connected(self) -> socket.socket:
        """Where many begin at once charon's short queue of connections is full for a moment. Raises OSError."""
        end = time.monotonic() + QUEUE_SECONDS
        while True:
            try:
                return self._connect(HOLD_SECONDS + LATE_SECONDS)
            except BlockingIOError:
                if time.monotonic() > end:
                    raise
            time.sleep(QUEUE_PAUSE)

    async def stop(self) -> None:
        """charon goes on with what it has begun; nobody waits for it any more."""
        await tasks.end(*self._tasks)
        for connection in list(self._open):
            if connection is not None:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self._executor.shutdown(wait=False, cancel_futures=True)
