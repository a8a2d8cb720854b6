"""Who failed to prove who he is: told as events, at once and then summed up.

Anybody can send as many wrong messages as he likes, from any address he likes. So the first
is told at once, and what follows within ten seconds is one event; what an event can name is
bounded too.
"""

from __future__ import annotations

import asyncio
from typing import Final

from agent.store.events import Event, Events, Kind, Severity

GATHER_SECONDS: Final = 10.0
KINDS: Final = 100  # of address and reason that are told apart within that time
NAMED: Final = 4  # of these in one event's text
LONGEST: Final = 64  # characters of a reason, which may hold what a sender called itself


class AuthenticationFailures:
    """`saw` is for the guard."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._gathered: dict[tuple[str, str], int] = {}
        self._others = 0
        self._timer: asyncio.TimerHandle | None = None

    def saw(self, source: str, why: str) -> None:
        """A message from this address is not accepted, and why."""
        key = (source, why[:LONGEST])
        if self._timer is None:
            self._tell(f"{key[1]} from {source}")
        elif key in self._gathered or len(self._gathered) < KINDS:
            self._gathered[key] = self._gathered.get(key, 0) + 1
        else:
            self._others += 1

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tell(self, text: str) -> None:
        self._timer = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._due)
        self._events.tell(Event(Kind.AUTHENTICATION_FAILURE, Severity.WARNING, text))

    def _due(self) -> None:
        self._timer = None
        gathered, others, self._gathered, self._others = self._gathered, self._others, {}, 0
        if not gathered:
            return
        named = sorted(gathered.items(), key=lambda item: -item[1])
        parts = [f"{why} from {source}" + (f" {n} times" if n > 1 else "") for (source, why), n in named[:NAMED]]
        others += sum(n for _, n in named[NAMED:])
        if others:
            parts.append(f"{others} more")
        self._tell("; ".join(parts))
