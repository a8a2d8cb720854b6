"""SETs on their way, and those of the last five minutes: what makes a retry harmless.

A manager that hears nothing sends its SET again. It is carried out once: while it is under
way a retry joins it and the newest message is answered (net-snmp's SNMPv3 accepts no
other), afterwards a retry gets the same answer again. A request-id that comes with other
variable bindings is a new SET, and ends what was remembered for it: there are managers that
count with few numbers or with one. An authenticated datagram whose
octets were seen before but whose SET is not known here is a replay, and goes nowhere.
SNMPv3 itself accepts a message up to 150 s before and after its time (RFC 3414 section
3.2 (7)), so 300 s are enough for both.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from agent.mib.ber import BerError
from agent.snmp.pdu import Answer, Request
from agent.snmp.respond import Asker, Responder, failed
from agent.store.errors import ErrorStatus
from agent.store.hooks import Origin

log = logging.getLogger(__name__)

REMEMBERED: Final = 300.0  # seconds that an answer is given again
REMEMBERED_ANSWERS: Final = 50_000  # oldest first out; about 400 octets each
REMEMBERED_DATAGRAMS: Final = 1_000_000  # never forgotten early: beyond this SETs are refused; about 100 octets each
UNDER_WAY: Final = 10_000  # SETs waiting for the disk; beyond this they are refused

Key = tuple[object, str, int, bytes]
"""Source with its port, security name, version, request-id."""


class Reply(Protocol):
    """The way back to one message."""

    def send(self, answer: Answer) -> None: ...
    def discard(self) -> None:
        """Nobody will be answered: let go of what is held for it."""


class _Outcome(NamedTuple):
    """An answer without its variable bindings: those of a retry are the same. `echo`: the answer has them."""

    status: int
    error_index: int
    echo: bool

    def answer(self, request: Request) -> Answer:
        return Answer(self.status, self.error_index, request.body if self.echo else b"")


@dataclass(slots=True)
class _Remembered:
    """`digest` is of the variable bindings. `outcome` is None while the SET is under way, and `reply` then the newest
    message that waits for it."""

    digest: bytes
    since: float
    reply: Reply | None
    outcome: _Outcome | None = None


@dataclass(slots=True)
class SetCounters:
    """What happened beside the ordinary."""

    joined: int = 0  # retries of a SET under way
    repeated: int = 0  # retries answered from memory
    replayed: int = 0  # authenticated datagrams seen before, dropped


@dataclass(slots=True)
class Sets:
    """Carries out SETs, each once. Everything on the event loop."""

    responder: Responder
    clock: Callable[[], float] = time.monotonic
    counters: SetCounters = field(default_factory=SetCounters)
    _known: OrderedDict[Key, _Remembered] = field(default_factory=OrderedDict)
    _datagrams: OrderedDict[bytes, float] = field(default_factory=OrderedDict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def submit(
        self, request: Request, asker: Asker, origin: Origin, source: object, reply: Reply, datagram: bytes = b""
    ) -> None:
        """Take a SET. `source` is where it came from, port included; `datagram` the octets of an authenticated
        message, else empty. `reply` is answered or discarded, sooner or later."""
        now = self.clock()
        self._forget(now)
        key = (source, asker.principal.name, asker.version, request.request_id)
        digest = hashlib.sha256(request.body).digest()
        seen = False
        if datagram:
            stamp = hashlib.sha256(datagram).digest()
            seen = stamp in self._datagrams
            if not seen and len(self._datagrams) >= REMEMBERED_DATAGRAMS:
                reply.send(failed(request, asker, ErrorStatus.RESOURCE_UNAVAILABLE, 0))
                return
            self._datagrams.setdefault(stamp, now)
        known = self._known.get(key)
        if known is not None and known.digest == digest:
            self._again(known, request, reply)
        elif seen:
            self.counters.replayed += 1
            reply.discard()
        elif len(self._tasks) >= UNDER_WAY:
            reply.send(failed(request, asker, ErrorStatus.RESOURCE_UNAVAILABLE, 0))
        else:
            known = self._known[key] = _Remembered(digest, now, reply)
            self._known.move_to_end(key)
            task = asyncio.get_running_loop().create_task(self._carry_out(key, known, request, asker, origin))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _again(self, known: _Remembered, request: Request, reply: Reply) -> None:
        if known.outcome is not None:
            self.counters.repeated += 1
            reply.send(known.outcome.answer(request))
            return
        self.counters.joined += 1
        if known.reply is not None:
            known.reply.discard()
        known.reply = reply

    async def _carry_out(self, key: Key, known: _Remembered, request: Request, asker: Asker, origin: Origin) -> None:
        answer: Answer | None = None
        try:
            answer = await self.responder.write(request, asker, origin)
            known.outcome = _Outcome(answer.status, answer.error_index, answer.body == request.body)
        except BerError:
            log.debug("SET from %s dropped: a name is no object identifier", origin.source)
        finally:
            if answer is None and self._known.get(key) is known:  # dropped, or the agent stops: as if never come
                del self._known[key]
            reply, known.reply = known.reply, None
            if reply is not None:
                if answer is None:
                    reply.discard()
                else:
                    reply.send(answer)

    def _forget(self, now: float) -> None:
        while self._datagrams and next(iter(self._datagrams.values())) < now - REMEMBERED:
            self._datagrams.popitem(last=False)
        while self._known:
            oldest = next(iter(self._known.values()))
            late = oldest.since < now - REMEMBERED or len(self._known) > REMEMBERED_ANSWERS
            if oldest.outcome is None or not late:
                return
            self._known.popitem(last=False)

    async def finish(self) -> None:
        """Wait until every SET taken so far is answered."""
        while self._tasks:
            await asyncio.wait(self._tasks)
