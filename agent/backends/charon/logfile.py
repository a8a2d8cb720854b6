"""charon's log file, read as it grows, so that its lines reach the agent's log.

VICI tells lines of level 1 only, whatever the file holds; ipsecGlobContIkeLoggingLevel
decides what the file holds, and with it what is read here. Level 4 of charon, which writes
keys, is never asked for (plan/daemon.py).
"""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path
from typing import Final

logger = logging.getLogger("agent.backends.charon.log")

POLL_SECONDS: Final = 0.5
OCTETS_A_TURN: Final = 256 << 10  # read at once, 2,000 lines; of what is more only the end is told
LINE: Final = re.compile(r"\S+ +\d+\[(?P<group>[A-Z]{3})\] (?:<(?P<sa>[^>]*)> )?(?P<text>.*)")


class LogFile:
    """From its present end on. `wanted` says whether there is anything to be told at all."""

    def __init__(self, path: Path) -> None:
        self.wanted = True
        self._path = path
        self._inode = 0
        self._at = 0
        self._rest = b""

    async def run(self) -> None:
        """For ever."""
        self._begin()
        while True:
            await asyncio.sleep(POLL_SECONDS)
            if self.wanted:
                self.read()
            else:
                self._begin()

    def _begin(self) -> None:
        """What is there by now has been told, or nobody wanted it."""
        self._rest = b""
        try:
            status = self._path.stat()
        except OSError:
            self._inode = self._at = 0
        else:
            self._inode, self._at = status.st_ino, status.st_size

    def read(self) -> None:
        """Tell what came since."""
        try:
            with self._path.open("rb") as file:
                status = self._path.stat()
                if status.st_ino != self._inode or status.st_size < self._at:  # set aside, and begun anew
                    self._inode, self._at, self._rest = status.st_ino, 0, b""
                left_out = max(0, status.st_size - self._at - OCTETS_A_TURN)
                file.seek(self._at + left_out)
                octets = file.read(OCTETS_A_TURN)
        except OSError:
            return
        self._at += left_out + len(octets)
        if left_out:
            logger.info("%d octets of charon's log are not repeated here; see %s", left_out, self._path)
            self._rest = b""
        *lines, self._rest = (self._rest + octets).split(b"\n")
        for line in lines:
            if line.strip():
                logger.info("%s", shown(line.decode("utf-8", "backslashreplace")))


def shown(line: str) -> str:
    """`[IKE] peer-1: text` of a line of the file: the agent's log has a time of its own."""
    found = LINE.fullmatch(line)
    if found is None:
        return line
    connection = (found["sa"] or "").partition("|")[0]
    return f"[{found['group']}] {connection}: {found['text']}" if connection else f"[{found['group']}] {found['text']}"
