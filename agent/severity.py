"""ipsecGlobMaxSysLogLevel: how urgent an IPsec message must be to reach the log.

IPsec messages are those of the plan, the engines and the monitor, and the IKE daemon's own
lines, which the agent reads and repeats. Who may ask whom by SNMP, and the audit line of a
SET, are not among them and are not filtered.
"""

from __future__ import annotations

import logging
from typing import Final

from agent.store.hooks import Change
from agent.systemd import SEVERITIES

OBJECT: Final = "ipsecGlobMaxSysLogLevel"
IPSEC: Final = ("agent.plan", "agent.backends", "agent.monitor")
DEBUG: Final = 8  # of OBJECT: emerg(1) … debug(8), one more than the severities of RFC 5424


class SeverityFilter(logging.Filter):
    """A filter of the log's handler, and a subscriber of the store."""

    def __init__(self) -> None:
        super().__init__()
        self._most = DEBUG - 1

    def changed(self, change: Change) -> None:
        value = change.after.scalar(OBJECT)
        assert isinstance(value, int)
        self._most = value - 1

    def filter(self, record: logging.LogRecord) -> bool:
        if SEVERITIES.get(record.levelno, 6) <= self._most:
            return True
        return not any(record.name == name or record.name.startswith(f"{name}.") for name in IPSEC)
