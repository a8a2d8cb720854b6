"""The way of a SET from a list of edits to a durable generation, for one writer.

SETs queue. Those that wait share a transaction, yet each is a generation of its own, built
on the one before; none is answered before what it was built on is on disk, not even a
refusal. When the transaction fails each of them is tried alone. The disk is waited for in
the store's thread; everything else happens on the event loop, in one place, so that there
is nothing to lock.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final

from agent.store import audit
from agent.store.candidate import Candidate, Candidates
from agent.store.database import Writing
from agent.store.errors import ErrorStatus, Refused, StoreError
from agent.store.hooks import Check, Edit, Origin
from agent.store.snapshot import Configuration

logger = logging.getLogger(__name__)

GROUP: Final = 64  # SETs in one transaction: more would keep the event loop for over 10 ms while they are built


@dataclass(slots=True, eq=False)
class Pending:
    """A SET that waits for its turn."""

    edits: tuple[Edit, ...]
    origin: Origin
    answer: asyncio.Future[Configuration]


class Writer:
    """The one writer. `running` is what is readable: always on disk already."""

    def __init__(
        self,
        running: Configuration,
        candidates: Candidates,
        write: Callable[[Writing], None],
        thread: Executor,
        accepted: Callable[[Candidate], None],
    ) -> None:
        self.running = running
        self.checks: list[Check] = []
        self._candidates = candidates
        self._write = write
        self._thread = thread
        self._accepted = accepted
        self._waiting: deque[Pending] = deque()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def commit(self, edits: Sequence[Edit], origin: Origin) -> Configuration:
        """The configuration that holds the edits, durable. Raises Refused; then they left no trace."""
        if self._closed:
            raise Refused(ErrorStatus.RESOURCE_UNAVAILABLE, -1, "the agent is stopping")
        loop = asyncio.get_running_loop()
        pending = Pending(tuple(edits), origin, loop.create_future())
        self._waiting.append(pending)
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._work(), name="store writer")
        return await pending.answer

    async def close(self) -> None:
        """Refuse what comes; finish what waits."""
        self._closed = True
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _work(self) -> None:
        while self._waiting:
            group = [self._waiting.popleft() for _ in range(min(GROUP, len(self._waiting)))]
            try:
                await self._transact(group)
            except Exception:
                logger.exception("the store's writer failed")
                for pending in group:
                    self._refuse(pending, _internal_error())

    async def _transact(self, group: Sequence[Pending]) -> None:
        """Steps 1 to 7 for SETs that share a transaction."""
        built: list[tuple[Pending, Candidate | Refused | None]] = []
        candidates: list[Candidate] = []
        tip = self.running
        for pending in group:
            outcome = self._prepared(tip, pending)  # 1 to 5: resolve, candidate, validate, diff, check
            if isinstance(outcome, Candidate):
                self._candidates.references.move(outcome.moves)
                candidates.append(outcome)
                tip = outcome.after
            if candidates:
                built.append((pending, outcome))
            else:
                self._settle(pending, outcome)  # it was judged by what is on disk already
        if not candidates:
            return
        try:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._thread, self._write, _writing(candidates))  # 6: the commit point
        except Exception as error:
            for candidate in reversed(candidates):
                self._candidates.references.back(candidate.moves)
            if len(built) > 1:
                logger.warning("a transaction of %d SETs failed, each is tried alone: %s", len(built), error)
                for pending, _ in built:
                    await self._transact([pending])
            else:
                self._refuse(built[0][0], _not_stored(error))
            return
        for pending, outcome in built:
            self._settle(pending, outcome)  # 7: swap, reply, audit; 8: hooks

    def _prepared(self, tip: Configuration, pending: Pending) -> Candidate | Refused | None:
        """A candidate, a refusal, or None where the SET changes nothing. Whatever goes wrong, nothing has changed."""
        try:
            candidate = self._candidates.build(tip, pending.edits, pending.origin)
            if candidate is not None and pending.origin.kind == "snmp":
                for check in self.checks:
                    check(tip, candidate.after, candidate.rows, pending.edits, pending.origin)
        except Refused as refused:
            return refused
        except Exception:
            logger.exception("a SET could not be examined")
            return _internal_error()
        return candidate

    def _settle(self, pending: Pending, outcome: Candidate | Refused | None) -> None:
        if isinstance(outcome, Refused):
            self._refuse(pending, outcome)
            return
        if outcome is not None:
            self.running = outcome.after
        if not pending.answer.done():
            pending.answer.set_result(self.running)
        if outcome is not None:
            audit.accepted(outcome.after.generation, pending.edits, pending.origin)
            self._accepted(outcome)
        else:
            audit.unchanged(self.running.generation, pending.edits, pending.origin)

    def _refuse(self, pending: Pending, refused: Refused) -> None:
        if not pending.answer.done():
            pending.answer.set_exception(refused)
            audit.refused(refused, pending.origin)


def _writing(candidates: Sequence[Candidate]) -> Writing:
    """What has to be on disk after all of them."""
    writing = Writing(candidates[0].before.generation, candidates[-1].after.generation)
    for candidate in candidates:
        for draft in candidate.drafts:
            after = None if draft.after is None else tuple(draft.after)
            writing.add(draft.table.name, draft.number, draft.before, after)
    return writing


def _internal_error() -> Refused:
    return Refused(ErrorStatus.GEN_ERR, -1, "an error of the agent, see its log; nothing was changed")


def _not_stored(error: Exception) -> Refused:
    if not isinstance(error, StoreError):
        logger.error("the store failed", exc_info=error)
    return Refused(ErrorStatus.COMMIT_FAILED, -1, f"not stored, nothing was changed: {error}")
