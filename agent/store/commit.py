"""The way of a SET from a list of edits to a durable generation, for one writer.

SETs queue. Those that wait share a transaction, yet each is a generation of its own, built
on the one before; none is answered before what it was built on is on disk, not even a
refusal. When the transaction fails each of them is tried alone. The disk is waited for in
the store's thread; everything else happens on the event loop, in one place, so that there
is nothing to lock. A load, which replaces the whole configuration, is built in a thread on the
configuration of that moment and takes its turn in the queue; only where that has moved on
meanwhile is it built again, and then others wait.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Final

from agent.mib.schema import Role
from agent.store import audit
from agent.store.actions import Actions, Asked
from agent.store.candidate import Candidate, Candidates
from agent.store.database import Writing
from agent.store.errors import ErrorStatus, Refused, StoreError
from agent.store.health import Health, StoreState, Topic
from agent.store.hooks import Check, Commanded, Edit, Origin, Placed
from agent.store.snapshot import Configuration

logger = logging.getLogger(__name__)

GROUP: Final = 64  # SETs in one transaction: more would keep the event loop for over 10 ms while they are built


Loading = Callable[[Configuration], Candidate | None]
"""The candidate of a load on a configuration, None where nothing would differ. Pure, in a thread; raises Refused."""


@dataclass(slots=True, eq=False)
class Pending:
    """A SET that waits for its turn. `alone`: nothing is examined before what it does is done. `loading`: it is a
    load, and `built` what came of it on the configuration `on`."""

    edits: tuple[Edit, ...]
    origin: Origin
    answer: asyncio.Future[Configuration]
    alone: bool = False
    loading: Loading | None = None
    what: str = ""
    on: Configuration | None = None
    built: Candidate | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A SET that may be: what it changes in the configuration, what it asks of live tables, None each for nothing."""

    candidate: Candidate | None
    asked: Asked | None


class Writer:
    """The one writer. `running` is what is readable: always on disk already."""

    def __init__(
        self,
        running: Configuration,
        candidates: Candidates,
        write: Callable[[Writing], None],
        thread: Executor,
        accepted: Callable[[Candidate], None],
        actions: Actions,
        health: Health,
    ) -> None:
        self.running = running
        self.checks: list[Check] = []
        self.commanded: list[Commanded] = []
        self._health = health
        self._actions = actions
        self._candidates = candidates
        self._write = write
        self._thread = thread
        self._accepted = accepted
        self._waiting: deque[Pending] = deque()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def commit(self, edits: Sequence[Edit], origin: Origin) -> Configuration:
        """The configuration that holds the edits, durable. Raises Refused; then they left no trace."""
        answer: asyncio.Future[Configuration] = asyncio.get_running_loop().create_future()
        pending = Pending(tuple(edits), origin, answer, alone=self._actions.names_live(edits))
        return await self._queued(pending)

    async def load(self, loading: Loading, origin: Origin, what: str) -> tuple[Configuration, int]:
        """The configuration that `loading` builds, durable, in one generation, and how many rows differ; `what` names
        it in the audit line. Raises Refused; then it left no trace."""
        on = self.running
        try:
            built = await asyncio.to_thread(loading, on)
        except Refused as refused:
            audit.refused(refused, origin)
            raise
        answer: asyncio.Future[Configuration] = asyncio.get_running_loop().create_future()
        pending = Pending((), origin, answer, True, loading, what, on, built)
        configuration = await self._queued(pending)
        return configuration, 0 if pending.built is None else len(pending.built.rows)

    async def _queued(self, pending: Pending) -> Configuration:
        if self._closed:
            raise Refused(ErrorStatus.RESOURCE_UNAVAILABLE, -1, "the agent is stopping")
        self._waiting.append(pending)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._work(), name="store writer")
        return await pending.answer

    async def close(self) -> None:
        """Refuse what comes; finish what waits."""
        self._closed = True
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _work(self) -> None:
        while self._waiting:
            group = self._group()
            try:
                await (self._transact(group) if group[0].loading is None else self._replace(group[0]))
            except Exception:
                logger.exception("the store's writer failed")
                for pending in group:
                    self._refuse(pending, _internal_error())

    def _group(self) -> list[Pending]:
        """Those of the waiting that share a transaction, at least one."""
        group = [self._waiting.popleft()]
        while self._waiting and len(group) < GROUP and not group[-1].alone and self._waiting[0].loading is None:
            group.append(self._waiting.popleft())
        return group

    async def _replace(self, pending: Pending) -> None:
        """Steps 2 to 7 for a load."""
        assert pending.loading is not None
        loop = asyncio.get_running_loop()
        try:
            if pending.on is not self.running:
                pending.built = await asyncio.to_thread(pending.loading, self.running)
            candidate = None if pending.built is None else replace(pending.built, origin=pending.origin)
            if candidate is not None:
                for check in self.checks:
                    check(self.running, candidate.after, candidate.rows, candidate.edits, pending.origin)
        except Refused as refused:
            self._refuse(pending, refused)
            return
        if candidate is None:
            self._settle(pending, Prepared(None, None))
            return
        try:
            await loop.run_in_executor(self._thread, lambda: self._write(_writing([candidate])))
        except Exception as error:
            self._refuse(pending, self._not_stored(error))
            return
        self._health.well(Topic.WRITING)
        self._candidates.references.move(candidate.moves)
        self._settle(pending, Prepared(candidate, None))

    async def _transact(self, group: Sequence[Pending]) -> None:
        """Steps 1 to 7 for SETs that share a transaction."""
        built: list[tuple[Pending, Prepared | Refused]] = []
        candidates: list[Candidate] = []
        tip = self.running
        for pending in group:
            outcome = await self._prepared(tip, pending)  # 1 to 5: resolve, candidate, validate, diff, check
            if isinstance(outcome, Prepared) and outcome.candidate is not None:
                self._candidates.references.move(outcome.candidate.moves)
                candidates.append(outcome.candidate)
                tip = outcome.candidate.after
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
                self._refuse(built[0][0], self._not_stored(error))
            return
        self._health.well(Topic.WRITING)
        for pending, outcome in built:
            self._settle(pending, outcome)  # 7: swap, reply, audit; 8: hooks

    async def _prepared(self, tip: Configuration, pending: Pending) -> Prepared | Refused:
        """What a SET comes to, or a refusal. Whatever goes wrong, nothing has changed."""
        edits, origin = pending.edits, pending.origin
        try:
            if _commands(edits):  # it may stand for any number of edits: 50 µs for each row that is cleared
                candidate, live = await asyncio.to_thread(self._built, tip, edits, origin)
            else:
                candidate, live = self._built(tip, edits, origin)
            asked = None
            if live:
                asked = self._actions.ask(live, tip if candidate is None else candidate.after, edits, origin)
            if candidate is not None and origin.kind == "snmp":
                for check in self.checks:
                    check(tip, candidate.after, candidate.rows, edits, origin)
        except Refused as refused:
            return refused
        except Exception:
            logger.exception("a SET could not be examined")
            return _internal_error()
        return Prepared(candidate, asked)

    def _built(
        self, tip: Configuration, edits: Sequence[Edit], origin: Origin
    ) -> tuple[Candidate | None, Sequence[Placed]]:
        """The candidate, and the varbinds on live tables. Nobody else moves the references meanwhile."""
        stored, live = self._actions.split(self._candidates.placed(tip, edits, origin))
        return self._candidates.built(tip, stored, edits, origin) if stored else None, live

    def _settle(self, pending: Pending, outcome: Prepared | Refused) -> None:
        if isinstance(outcome, Refused):
            self._refuse(pending, outcome)
            return
        candidate, before = outcome.candidate, self.running
        if candidate is not None:
            self.running = candidate.after
        if outcome.asked is not None:
            self._actions.perform(outcome.asked)  # before the answer: who has it finds what was asked for
        if not pending.answer.done():
            pending.answer.set_result(self.running)
        if candidate is not None:
            generation = candidate.after.generation
            if pending.loading is not None:
                audit.loaded(generation, pending.what, len(candidate.rows), pending.origin)
            else:
                audit.accepted(generation, pending.edits, pending.origin)
            self._accepted(candidate)
        commands = _commands(pending.edits)
        if candidate is None and pending.loading is not None:
            audit.loaded(self.running.generation, pending.what, 0, pending.origin)
        elif candidate is None and (commands or outcome.asked is not None):
            audit.performed(pending.edits, pending.origin)
        elif candidate is None:
            audit.unchanged(self.running.generation, pending.edits, pending.origin)
        if commands:
            self._command(before, pending.edits, pending.origin)

    def _command(self, before: Configuration, edits: Sequence[Edit], origin: Origin) -> None:
        """Tell of a SET with transient objects that was accepted."""
        for commanded in self.commanded:
            try:
                commanded(before, self.running, edits, origin)
            except Exception:
                logger.exception("%r failed on a command", commanded)

    def _not_stored(self, error: Exception) -> Refused:
        if not isinstance(error, StoreError):
            logger.error("the store failed", exc_info=error)
        self._health.say(Topic.WRITING, StoreState.FAILING, f"SETs are refused: {error}")
        return Refused(ErrorStatus.COMMIT_FAILED, -1, f"not stored, nothing was changed: {error}")

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


def _commands(edits: Sequence[Edit]) -> bool:
    """Whether a SET names transient objects."""
    return any(edit.column.traits.role is Role.TRANSIENT for edit in edits)


def _internal_error() -> Refused:
    return Refused(ErrorStatus.GEN_ERR, -1, "an error of the agent, see its log; nothing was changed")
