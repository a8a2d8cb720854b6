"""The last 1,000 events of the gateway: ipsecGwEventTable.

Events come singly or by the thousand (a wrong profile fails every peer that has it), so
the table is made anew a moment after the first, for all that have come meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from agent.mib.ber import Value
from agent.store.events import Event, display

EVENT_TABLE: Final = "ipsecGwEventTable"
KEPT: Final = 1000  # as the table's description says
GATHER_SECONDS: Final = 0.05  # events that come together are shown together
TIME_LIMIT: Final = (1 << 31) - 1  # of ipsecGwEventTime, an Integer32


class LiveTables(Protocol):
    """The part of agent.store.live.Live that is needed here."""

    def update(self, name: str, rows: Mapping[int, Mapping[str, Value] | None]) -> None: ...


class EventLog:
    """A listener of agent.store.events.Events. `uptime`: sysUpTime; `generation`: of the configuration in force."""

    def __init__(
        self,
        live: LiveTables,
        uptime: Callable[[], int],
        generation: Callable[[], int],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._live, self._uptime, self._generation, self._wall = live, uptime, generation, wall
        self._next = 1
        self._shown: deque[int] = deque()
        self._new: deque[tuple[int, Mapping[str, Value]]] = deque(maxlen=KEPT)
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self, event: Event) -> None:
        values: dict[str, Value] = {
            "ipsecGwEventTime": min(int(self._wall()), TIME_LIMIT),
            "ipsecGwEventUpTime": self._uptime(),
            "ipsecGwEventSeverity": int(event.severity),
            "ipsecGwEventKind": int(event.kind),
            "ipsecGwEventPeer": event.peer,
            "ipsecGwEventText": display(event.text),
            "ipsecGwEventGeneration": self._generation() & 0xFFFFFFFF,
        }
        self._new.append((self._next, values))
        self._next += 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER_SECONDS, self.show)

    def show(self) -> None:
        """Put what has come into the table, and the oldest out of it."""
        self.stop()
        rows: dict[int, Mapping[str, Value] | None] = dict(self._new)
        self._shown.extend(rows)
        self._new.clear()
        while len(self._shown) > KEPT:
            rows[self._shown.popleft()] = None
        self._live.update(EVENT_TABLE, rows)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
