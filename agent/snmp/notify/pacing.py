"""How often something is told: a peer that goes up and down all day must not flood its station.

The first notification of a kind about a subject goes out at once. What comes within
ipsecGwNotifyPause waits; at its end the subject's latest state is told, unless that is what
was told last. All notifications together are at most ipsecGwNotifyMost in any minute; what
is beyond waits too, states of peers one by one, the rest summed up in one per kind. So the
last thing that a station hears of a peer is always how it is. No clock, no sockets: times
are given.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from agent.store.events import Event, Kind

MINUTE: Final = 60.0
SUBJECTS: Final = 10_000  # of which something is known; beyond this the oldest are forgotten, and counted
STATES: Final = frozenset({Kind.PEER_UP, Kind.PEER_DOWN, Kind.PEER_BLOCKED})
"""One of these undoes the other: of a peer only the latest is worth telling."""

Subject = tuple[Hashable, ...]


class Told(NamedTuple):
    """A notification to be sent now. `held_back`: how many about its subject were not since the last."""

    event: Event
    held_back: int


def subject_of(event: Event) -> Subject:
    """What it is about. Changes of the configuration are one subject, and so are all strangers."""
    if event.kind in STATES:
        return ("peer", event.peer)
    return (event.kind, event.peer, event.row)


@dataclass(slots=True)
class _Record:
    """`waiting`: the latest event, as long as it is not told; `paused`: it came within a pause. `held`: events since
    the last told that never will be."""

    told: Event | None = None
    waiting: Event | None = None
    paused: bool = False
    held: int = 0
    pauses: dict[Kind, float] = field(default_factory=dict)  # until when


@dataclass(slots=True)
class _Sum:
    """What of one kind found no room in the minute: the latest, and how many others."""

    event: Event
    others: int


class Pacer:
    """`pause` in seconds, 0 for none; `most` per minute, at least 1; both may change. `paced` counts events that are
    never told by themselves."""

    def __init__(self, pause: float = 10.0, most: int = 120) -> None:
        self.pause, self.most, self.paced = pause, most, 0
        self._records: dict[Subject, _Record] = {}
        self._times: list[tuple[float, int, Subject]] = []  # ends of pauses, a heap
        self._pushed = 0
        self._crowd: dict[Subject | Kind, _Sum | None] = {}  # what waits for room, in order; None: see the record
        self._sent: deque[float] = deque()  # times within the last minute

    def offer(self, event: Event, now: float) -> list[Told]:
        """Something happened: what is to be sent now."""
        told = self.due(now)
        subject = subject_of(event)
        record = self._records.get(subject)
        if record is None:
            record = self._records[subject] = _Record()
            self._limit()
        if record.waiting is not None:
            record.held += 1
            self.paced += 1
        record.waiting = event
        record.paused = record.pauses.get(event.kind, now) > now or subject in self._crowd
        self._try(subject, record, now, told)
        return told

    def due(self, now: float) -> list[Told]:
        """Time has gone on: what is to be sent now."""
        told: list[Told] = []
        while self._crowd and self._has_room(now):
            key = next(iter(self._crowd))
            sum_up = self._crowd.pop(key)
            if sum_up is not None:
                self._sent.append(now)
                told.append(Told(sum_up.event, sum_up.others))
            elif isinstance(key, tuple) and (record := self._records.get(key)) is not None:
                self._try(key, record, now, told)
        while self._times and self._times[0][0] <= now:
            _, _, subject = heapq.heappop(self._times)
            record = self._records.get(subject)
            if record is None:
                continue
            self._try(subject, record, now, told)
            if record.waiting is None and not record.held and all(until <= now for until in record.pauses.values()):
                del self._records[subject]
        return told

    def forget(self) -> None:
        """Nobody is there any more who was told, or waits."""
        self._records.clear()
        self._times.clear()
        self._crowd.clear()

    def next_time(self) -> float | None:
        """When `due` may have something to say; None for never."""
        times = [self._times[0][0]] if self._times else []
        if self._crowd:
            times.append(self._sent[-self.most] + MINUTE if len(self._sent) >= self.most else float("-inf"))
        return min(times, default=None)

    def _try(self, subject: Subject, record: _Record, now: float, told: list[Told]) -> None:
        """Tell what waits, if it is its time."""
        event = record.waiting
        if event is None or record.pauses.get(event.kind, now) > now or subject in self._crowd:
            return
        if record.paused and event == record.told:  # it went to and fro: the station knows
            record.waiting = None
            record.held += 1
            self.paced += 1
        elif self._has_room(now):
            self._sent.append(now)
            told.append(Told(event, record.held))
            self._done(subject, record, event, now)
        elif event.kind in STATES:
            record.paused = True
            self._crowd[subject] = None
        else:
            sum_up = self._crowd.get(event.kind)
            if sum_up is None:
                self._crowd[event.kind] = _Sum(event, record.held)
            else:
                sum_up.event = event
                sum_up.others += 1 + record.held
                self.paced += 1
            self._done(subject, record, event, now)

    def _done(self, subject: Subject, record: _Record, event: Event, now: float) -> None:
        record.told, record.waiting, record.held = event, None, 0
        record.pauses[event.kind] = now + self.pause
        self._pushed += 1
        heapq.heappush(self._times, (now + self.pause, self._pushed, subject))

    def _has_room(self, now: float) -> bool:
        while self._sent and self._sent[0] + MINUTE <= now:
            self._sent.popleft()
        return len(self._sent) < self.most

    def _limit(self) -> None:
        if len(self._records) > SUBJECTS:
            oldest = next(iter(self._records))
            if self._records.pop(oldest).waiting is not None:
                self.paced += 1
            self._crowd.pop(oldest, None)
