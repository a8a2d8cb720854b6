"""The kernel's security policy database, of which only what is ours is ever removed or replaced.

Ours is what carries an index of our range (`plan.numbers`). A picture of the whole SPD is
kept: made by a dump, moved on by our own batches and by the kernel's announcements of what
others did, so that a change needs no dump and no scan. The picture is brought up to date
with waiting announcements before every batch; what is then refused with EEXIST belongs to
somebody else. UPDPOLICY keeps the index a policy has (seen on Linux 6.18).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from agent.backends.engine import (
    EngineError,
    KernelEvent,
    KernelEventKind,
    KernelListener,
    Observed,
    SaRecord,
)
from agent.backends.installing import in_turn
from agent.backends.memory import HELD_BY_OTHERS
from agent.backends.statistics import read_statistics
from agent.backends.xfrm.messages import (
    GROUP_ACQUIRE,
    GROUP_EXPIRE,
    GROUP_POLICY,
    GROUP_SA,
    MSG_DELPOLICY,
    MSG_DELSA,
    MSG_GETPOLICY,
    MSG_GETSA,
    MSG_NEWPOLICY,
    MSG_UPDPOLICY,
    PolicyNews,
    PolicyRecord,
    encode_policy,
    encode_policy_id,
    encode_sa_id,
    policy_image,
    read_event,
    read_policy,
    read_policy_news,
    read_sa,
)
from agent.backends.xfrm.netlink import NETLINK_XFRM, Message, NetlinkSocket, Overrun, Refusal, close_all
from agent.plan import numbers
from agent.plan.model import Action, Direction, Policy, PolicyKey
from agent.plan.spd import BUILT_IN_ROW
from agent.plan.verdicts import DROPPED

logger = logging.getLogger(__name__)

GROUPS: Final = (GROUP_ACQUIRE, GROUP_EXPIRE, GROUP_SA, GROUP_POLICY)
BATCH_LEAST: Final = 10  # messages per sendmsg; a rule has at most ten, and they go together
BATCH_MOST: Final = 256
BATCH_SECONDS: Final = 0.005  # aim: after that the loop may do something else. A selector that ten thousand policies
# share but for the port costs the kernel 0.4 ms to insert, another one 0.01 ms
EVENTS_PER_TURN: Final = 256  # announcements handled before the loop may do something else
DUMP_ATTEMPTS: Final = 5

XfrmSocketFactory = Callable[[Sequence[int]], NetlinkSocket]


def open_xfrm_socket(groups: Sequence[int]) -> NetlinkSocket:
    return NetlinkSocket(NETLINK_XFRM, groups)


class Step(NamedTuple):
    """One message, the key it is about, and what the kernel holds there once it is accepted."""

    type: int
    body: bytes
    key: PolicyKey
    after: Observed | None


class Indices:
    """Policy indices of our range that nobody holds, per direction; the next one in turn, so that an index that was
    just freed is not at once somebody else's policy in an event still on its way."""

    def __init__(self) -> None:
        self._last = numbers.POLICY_INDEX_FIRST >> 3
        self._taken: set[int] = set()

    def take(self, direction: Direction) -> int:
        """Raises EngineError when the range is used up."""
        first, end = numbers.POLICY_INDEX_FIRST >> 3, (numbers.POLICY_INDEX_LAST >> 3) + 1
        for _ in range(end - first):
            self._last = self._last + 1 if self._last + 1 < end else first
            index = self._last << 3 | direction
            if index not in self._taken:
                self._taken.add(index)
                return index
        raise EngineError("all our policy indices are in use")

    def give_back(self, index: int) -> None:
        self._taken.discard(index)

    def seen(self, index: int) -> None:
        self._taken.add(index)

    def restart(self, taken: set[int]) -> None:
        self._taken = taken


class KernelSpd:
    """`agent.backends.engine.Spd` on XFRM netlink. `open_socket` and `proc` let tests use another network namespace."""

    def __init__(self, *, open_socket: XfrmSocketFactory = open_xfrm_socket, proc: Path = Path("/proc/net")) -> None:
        self._open, self._proc = open_socket, proc
        self._requests: NetlinkSocket | None = None
        self._events: NetlinkSocket | None = None
        self._listeners: list[KernelListener] = []
        self._held: dict[PolicyKey, Observed] = {}
        self._known: dict[bytes, Observed] = {}  # what the last dump read, by its octets
        self._indices = Indices()
        self._journal: list[list[PolicyNews]] = []  # one per dump under way: what happened meanwhile

    async def start(self) -> None:
        self._requests = self._open(())
        self._events = self._open(GROUPS)
        self._events.ignore_policy_changes_of(self._requests.port)
        self._events.heard(self._readable)

    async def stop(self) -> None:
        close_all(self._events, self._requests)
        self._events = self._requests = None

    def subscribe(self, listener: KernelListener) -> None:
        self._listeners.append(listener)

    # ---- policies ---------------------------------------------------------------------

    async def observe(self) -> Mapping[PolicyKey, Observed]:
        for _ in range(DUMP_ATTEMPTS):
            news: list[PolicyNews] = []
            self._journal.append(news)
            try:
                picture = await self._dump()
            except Overrun:
                continue
            finally:
                self._journal.remove(news)
            for item in news:
                _move_on(picture, item)
            self._held = picture
            self._indices.restart({observed.policy_index for observed in picture.values() if observed.ours})
            return picture
        raise EngineError("the policies change too fast to be listed")

    async def _dump(self) -> dict[PolicyKey, Observed]:
        """A picture from nothing. What looks as in the last dump is not read again: 50,000 new objects every minute
        would keep the garbage collector busy."""
        picture: dict[PolicyKey, Observed] = {}
        known, self._known = self._known, {}
        with self._open(()) as dumper:
            for part in dumper.dump(MSG_GETPOLICY):
                for message in part:
                    image = policy_image(message.data, message.start, message.end)
                    observed = known.get(image)
                    if observed is None:
                        record = read_policy(message.data, message.start, message.end)
                        if record.key is None:
                            continue
                        observed = _observed(record.key, record)
                    self._known[image] = observed
                    picture[observed.key] = observed
                await asyncio.sleep(0)
        return picture

    async def apply(self, remove: Sequence[PolicyKey], install: Sequence[Policy]) -> Mapping[PolicyKey, str]:
        self._catch_up()
        failed: dict[PolicyKey, str] = {}
        batch: list[Step] = []
        size = BATCH_LEAST
        for steps in self._steps(remove, install, failed):
            batch += steps
            if len(batch) >= size:
                begin = time.perf_counter()
                failed.update(self._send(batch))
                batch = []
                aim = size * BATCH_SECONDS / max(time.perf_counter() - begin, 1e-6)
                size = min(BATCH_MOST, max(BATCH_LEAST, int(min(aim, size * 2))))
                await asyncio.sleep(0)
        if batch:
            failed.update(self._send(batch))
        return failed

    def _steps(
        self, remove: Sequence[PolicyKey], install: Sequence[Policy], failed: dict[PolicyKey, str]
    ) -> Iterator[tuple[Step, ...]]:
        """The messages; those of one tuple have to go together. What cannot be told to the kernel fails, and does not
        keep the others from it."""
        for each in in_turn(remove, install, self._held):
            held = self._held.get(each if isinstance(each, PolicyKey) else each.key)
            if isinstance(each, PolicyKey):
                if held is not None and held.ours:
                    yield (_delete(held),)
                continue
            new = held is None or not held.ours
            index = self._indices.take(each.key.direction) if held is None or new else held.policy_index
            try:
                written = _write(MSG_NEWPOLICY if new else MSG_UPDPOLICY, each, index)
            except struct.error as error:
                failed[each.key] = f"the kernel has no such policy: {error}"
                if new:
                    self._indices.give_back(index)
                continue
            if held is not None and not new and _only_passes_or_drops(held, each):
                yield _delete(held), written._replace(type=MSG_NEWPOLICY)
            else:
                yield (written,)

    def _send(self, batch: Sequence[Step]) -> dict[PolicyKey, str]:
        """One sendmsg, and the picture moved on by what the kernel accepted."""
        assert self._requests is not None
        try:
            refused = self._requests.batch([(step.type, step.body) for step in batch])
        except (EngineError, Overrun) as error:
            self._emit(KernelEvent(KernelEventKind.OVERRUN))
            return {step.key: str(error) for step in batch}
        failed: dict[PolicyKey, str] = {}
        instead: list[Step] = []
        for position, (type, _, key, after) in enumerate(batch):
            refusal = refused.get(position)
            if refusal is not None and not (after is None and refusal.number == errno.ENOENT):
                failed[key] = _why(refusal)
                if after is not None and after.templates and refusal.number != errno.EEXIST:
                    instead.append(_block(type, after))
                elif after is not None and type == MSG_NEWPOLICY:
                    self._indices.give_back(after.policy_index)
                continue
            if after is None:
                before = self._held.pop(key, None)
                if before is not None:
                    self._indices.give_back(before.policy_index)
            else:
                self._held[key] = after
                self._indices.seen(after.policy_index)
            self._note(key, after)
        not_even = self._send(instead) if instead else {}
        failed |= {step.key: f"{failed[step.key]}; {DROPPED}" for step in instead if step.key not in not_even}
        return failed

    def _note(self, key: PolicyKey, after: Observed | None) -> None:
        """Let dumps under way know of our own work, which is not announced to us."""
        for journal in self._journal:
            index, priority, action, templates = after[1:5] if after is not None else (0, 0, Action.ALLOW, ())
            journal.append(PolicyNews(PolicyRecord(key, index, priority, action, templates), gone=after is None))

    # ---- SAs --------------------------------------------------------------------------

    async def sas(self) -> Sequence[SaRecord]:
        for _ in range(DUMP_ATTEMPTS):
            found: list[SaRecord] = []
            try:
                with self._open(()) as dumper:
                    for part in dumper.dump(MSG_GETSA):
                        found += (read_sa(message.data, message.start) for message in part)
                        await asyncio.sleep(0)
            except Overrun:
                continue
            return found
        raise EngineError("the SAs change too fast to be listed")

    def statistics(self) -> Mapping[str, int]:
        return read_statistics(self._proc)

    async def delete_sa(self, sa: SaRecord) -> None:
        assert self._requests is not None
        try:
            refusal = self._requests.batch([(MSG_DELSA, encode_sa_id(sa))]).get(0)
        except Overrun as error:
            raise EngineError(str(error)) from error
        if refusal is not None and refusal.number != errno.ESRCH:
            raise EngineError(refusal.text)

    # ---- events -----------------------------------------------------------------------

    def _readable(self) -> None:
        self._catch_up(EVENTS_PER_TURN)

    def _catch_up(self, most: int = 1 << 20) -> None:
        """Handle the announcements that wait, `most` datagrams of them."""
        for _ in range(most):
            if self._events is None:
                return
            try:
                messages = self._events.receive()
            except Overrun:
                logger.warning("announcements of the kernel were lost; looking again")
                self._emit(KernelEvent(KernelEventKind.OVERRUN))
                continue
            if not messages:
                return
            for message in messages:
                self._handle(message)

    def _handle(self, message: Message) -> None:
        type, _, _, data, start, end = message
        try:
            news = read_policy_news(type, data, start, end)
            event = None if news is not None else read_event(type, data, start, end)
        except (struct.error, IndexError):
            logger.warning("a kernel message of type %d is cut short", type)
            return
        if news is not None:
            self._news(news)
        elif event is not None:
            self._emit(event)

    def _news(self, news: PolicyNews) -> None:
        if news.record is not None and news.record.key is None:
            return  # one that cannot meet ours: of a socket or a user
        _move_on(self._held, news)
        for journal in self._journal:
            journal.append(news)
        if news.record is not None and not news.gone and numbers.is_our_index(news.record.policy_index):
            self._indices.seen(news.record.policy_index)
        key = news.record.key if news.record is not None else None
        index = news.record.policy_index if news.record is not None else 0
        self._emit(KernelEvent(KernelEventKind.POLICY_FOREIGN, key=key, policy_index=index))

    def _emit(self, event: KernelEvent) -> None:
        for listener in self._listeners:
            listener(event)


def _delete(held: Observed) -> Step:
    return Step(MSG_DELPOLICY, encode_policy_id(held.key.direction, held.policy_index, held.key.scope), held.key, None)


def _write(type: int, policy: Policy, index: int) -> Step:
    after = Observed(policy.key, index, policy.priority, policy.action, policy.templates, ours=True)
    return Step(type, encode_policy(policy, index), policy.key, after)


def _block(type: int, refused: Observed) -> Step:
    """What stands in the place of a policy that the kernel does not take although it should protect. Else its packets
    would meet what stands behind it, and leave in plain."""
    key, index, priority = refused[:3]
    return _write(type, Policy(key, priority, Action.BLOCK, (), BUILT_IN_ROW, 0, ""), index)


def _only_passes_or_drops(held: Observed, policy: Policy) -> bool:
    """Whether a plain policy turns from pass to drop or back. Then a packet that meets neither of the two for a moment
    fares as under one of them, and removing and adding may stand for UPDPOLICY, which looks through all of the
    kernel's trees: 0.1 ms instead of 25 ms for a rule among 10,000. Where a template is concerned no moment without
    the policy is allowed."""
    return not held.templates and not policy.templates and held.action != policy.action


def _observed(key: PolicyKey, record: PolicyRecord) -> Observed:
    _, index, priority, action, templates = record
    return Observed(key, index, priority, action, templates, numbers.is_our_index(index))


def _move_on(picture: dict[PolicyKey, Observed], news: PolicyNews) -> None:
    """Bring a picture of the SPD up to date. A removal counts only for the very policy it names (index 0: any)."""
    if news.record is None:
        picture.clear()
        return
    key = news.record.key
    if key is None:
        return
    if not news.gone:
        picture[key] = _observed(key, news.record)
    elif key in picture and news.record.policy_index in (0, picture[key].policy_index):
        del picture[key]


def _why(refusal: Refusal) -> str:
    return HELD_BY_OTHERS if refusal.number == errno.EEXIST else refusal.text
