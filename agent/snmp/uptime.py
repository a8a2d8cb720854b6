"""The clock of one run: sysUpTime, snmpEngineTime and time stamps all tell the same time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

TIMETICKS: Final = 1 << 32  # hundredths of a second after which TimeTicks start again, 497 days
MOST_SECONDS: Final = (1 << 31) - 1  # of snmpEngineTime, 68 years


class Uptime:
    """Counts from when it was made, by a clock that nobody sets."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._start = clock()

    @property
    def hundredths(self) -> int:
        """sysUpTime (RFC 3418)."""
        return int((self._clock() - self._start) * 100) % TIMETICKS

    @property
    def seconds(self) -> int:
        """snmpEngineTime (RFC 3411)."""
        return min(int(self._clock() - self._start), MOST_SECONDS)
