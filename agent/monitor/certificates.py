"""Watches the certificates: one that expires soon, or has, is told of in time, and once.

"Once" is per certificate, its end and what is told, since the start of the agent: a station
that missed it hears it again after the next start. A certificate is looked at when it is
stored, when its day has come, and every day.
"""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import Callable
from typing import Final

from agent.store.events import Event, Events, Kind, Severity
from agent.store.hooks import Change
from agent.store.snapshot import Configuration, Row

CERTIFICATES: Final = "certTable"
DESCRIPTION: Final = "certDescription"
SUBJECT: Final = "certSubjectName"
NOT_AFTER: Final = "certValidNotAfter"  # seconds since 1970, 0 where it is not known
SETTINGS: Final = "ipsecGwNotify"
EXPIRY: Final = "ipsecGwNotifyExpiry"  # days
DAY: Final = 86_400.0
LEAST_SECONDS: Final = 1.0  # between two looks


class CertificateWatch:
    """Subscriber of the store. `start` begins; the clock is that of the wall."""

    def __init__(self, events: Events, wall: Callable[[], float] = time.time) -> None:
        self._events, self._wall = events, wall
        self._configuration: Configuration | None = None
        self._told: dict[tuple[int, int], Kind] = {}  # by number and end
        self._timer: asyncio.TimerHandle | None = None

    def changed(self, change: Change) -> None:
        self._configuration = change.after
        if change.replay or any(row.table in (CERTIFICATES, SETTINGS) for row in change.rows):
            self.look()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def look(self) -> None:
        """Tell what is due, and come back when the next is."""
        self.stop()
        assert self._configuration is not None
        now = self._wall()
        days = self._configuration.scalar(EXPIRY)
        assert isinstance(days, int)
        wait = DAY
        ends: dict[tuple[int, int], Kind] = {}
        for row in self._configuration.rows(CERTIFICATES):
            end = row[NOT_AFTER]
            if not isinstance(end, int) or not end:
                continue
            warning = end - days * DAY
            key = (row.number, end)
            for due in (warning, float(end)):
                if due > now:
                    wait = min(wait, due - now)
            kind = Kind.CERTIFICATE_EXPIRED if now >= end else Kind.CERTIFICATE_EXPIRING if now >= warning else None
            if kind is None:
                continue
            ends[key] = kind
            if self._told.get(key) is not kind:
                self._events.tell(_event(kind, row, end, now))
        self._told = ends
        self._timer = asyncio.get_running_loop().call_later(max(wait, LEAST_SECONDS), self.look)


def _event(kind: Kind, row: Row, end: int, now: float) -> Event:
    day = datetime.datetime.fromtimestamp(end, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    name = row[DESCRIPTION] or row[SUBJECT]
    assert isinstance(name, bytes)
    what = f'certificate {row.number} "{name.decode("utf-8", "replace")}"'
    if kind is Kind.CERTIFICATE_EXPIRED:
        text, severity = f"{what} expired on {day}", Severity.ERR
    else:
        text, severity = f"{what} expires on {day}, in {int((end - now) // DAY)} days", Severity.WARNING
    return Event(kind, severity, text, row=(CERTIFICATES, row.number))
