"""What systemd is told and how the journal likes its lines; without systemd nothing here does anything.

`Notifier` speaks sd_notify(3): one datagram per message to the socket that the environment
names, so nothing of systemd's has to be installed. `log_format` chooses between lines for a
person, with a time stamp, and lines for the journal, which has its own and wants the
severity in front (sd-daemon(3)).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Mapping, MutableMapping
from typing import IO, Final

logger = logging.getLogger(__name__)

NOTIFY_SOCKET: Final = "NOTIFY_SOCKET"
WATCHDOG_USEC: Final = "WATCHDOG_USEC"
WATCHDOG_PID: Final = "WATCHDOG_PID"
JOURNAL_STREAM: Final = "JOURNAL_STREAM"
PINGS_PER_PERIOD: Final = 3  # two may be late; sd_watchdog_enabled(3) recommends every half of the time

# RFC 5424 table 2, as sd-daemon(3) has it in front of a line
SEVERITIES: Final[Mapping[int, int]] = {
    logging.CRITICAL: 2,
    logging.ERROR: 3,
    logging.WARNING: 4,
    logging.INFO: 6,
    logging.DEBUG: 7,
}


class Notifier:
    """Tells the service manager, if there is one. Takes what it needs out of the environment, so that no child (charon
    outlives us) speaks in our name. Nothing is raised: a manager that does not listen must not end the agent."""

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        self._address = environment.pop(NOTIFY_SOCKET, "")
        if self._address.startswith("@"):  # in the abstract socket space
            self._address = "\0" + self._address[1:]
        usec, pid = environment.pop(WATCHDOG_USEC, ""), environment.pop(WATCHDOG_PID, "")
        ours = not pid or pid == str(os.getpid())
        self.watchdog_seconds = int(usec) / 1e6 if ours and usec.isdigit() else 0.0
        """Time within which WATCHDOG=1 has to come again; 0: nobody waits for it."""
        self._watching: asyncio.Task[None] | None = None

    def ready(self, status: str) -> None:
        self._send("READY=1", f"STATUS={status}")

    def status(self, text: str) -> None:
        """What `systemctl status` shows."""
        self._send(f"STATUS={text}")

    def stopping(self, status: str) -> None:
        self._send("STOPPING=1", f"STATUS={status}")

    def watch(self) -> None:
        """Say from now on that the event loop turns, as often as is asked for. On the event loop."""
        if self.watchdog_seconds and self._watching is None:
            self._watching = asyncio.get_running_loop().create_task(self._pings(), name="watchdog")

    async def end(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
            self._watching = None

    async def _pings(self) -> None:
        while True:
            self._send("WATCHDOG=1")
            await asyncio.sleep(self.watchdog_seconds / PINGS_PER_PERIOD)

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        message = "\n".join(line.replace("\n", " ") for line in lines).encode()
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as way,
        ):
            way.setblocking(False)
            way.sendto(message, self._address)


class JournalFormatter(logging.Formatter):
    """`<4>agent.snmp: text`: the severity before each line, also of a traceback; no time stamp, no level in words."""

    def __init__(self) -> None:
        super().__init__("%(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        severity = SEVERITIES.get(record.levelno, 6)
        return "\n".join(f"<{severity}>{line}" for line in super().format(record).splitlines())


def is_journal(stream: IO[str], environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a stream ends in the journal: JOURNAL_STREAM names its device and inode (systemd.exec(5)). The variable
    alone says nothing, since whoever redirects our output leaves it."""
    device, _, inode = environment.get(JOURNAL_STREAM, "").partition(":")
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))


def log_format(stream: IO[str], environment: Mapping[str, str] = os.environ) -> logging.Formatter:
    """How log lines on this stream look."""
    if is_journal(stream, environment):
        return JournalFormatter()
    return logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
