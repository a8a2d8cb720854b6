"""Remembers, across restarts of the agent, with which settings each connection was loaded into charon.

charon does not give settings back, and a new agent that cannot tell would have to load and
so renegotiate everything. The journal is one line per loading, appended; its first line is
the life of charon (process.Daemon.identity) that it speaks of.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, TextIO

logger = logging.getLogger(__name__)

COMPACT_FACTOR: Final = 4  # rewritten when it has so many lines per connection
COMPACT_LINES: Final = 1024
AGAIN_SECONDS: Final = 10.0  # after a failure; all of ten thousand connections may be loaded meanwhile


class Journal:
    """`fingerprints` by connection name. Writing is best effort: what is lost only costs a renegotiation. Where it
    fails the file goes, since what it says may not be so any more, and is made anew with a later loading."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self._file: TextIO | None = None
        self._lines = 0
        self._failed = float("-inf")  # when it could not be written last
        self._identity = ""
        self._known: dict[str, str] = {}
        self.fingerprints: Mapping[str, str] = MappingProxyType(self._known)

    def open(self, identity: str) -> None:
        """Take up what is there of this life of charon, forget another's."""
        self.close()
        self._known.clear()
        try:
            first, *lines = self._path.read_text(errors="replace").split("\n")
        except OSError:
            first, lines = "", []
        if first == identity:
            for line in lines[:-1]:  # the last is empty, or torn
                name, _, fingerprint = line.partition(" ")
                self._take(name, fingerprint)
        self._identity = identity
        self._write("")

    def loaded(self, name: str, fingerprint: str) -> None:
        """'' as fingerprint: unloaded, or about to be loaded with something else."""
        self._take(name, fingerprint)
        if self._identity:
            self._write(f"{name} {fingerprint}\n")

    def close(self) -> None:
        self._identity = ""
        self._let_go()

    def _take(self, name: str, fingerprint: str) -> None:
        if fingerprint:
            self._known[name] = fingerprint
        else:
            self._known.pop(name, None)

    def _write(self, line: str) -> None:
        """Append a line, or write all that is known, which has it too."""
        if self._clock() - self._failed < AGAIN_SECONDS:
            return
        try:
            if self._file is None or self._lines > COMPACT_LINES + COMPACT_FACTOR * len(self._known):
                self._rewrite()
            else:
                self._file.write(line)
                self._file.flush()
                self._lines += 1
        except OSError as error:
            logger.warning("%s cannot be written: %s; the next agent will load all connections anew", self._path, error)
            self._failed = self._clock()
            self._let_go()
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)

    def _rewrite(self) -> None:
        self._let_go()
        lines = (self._identity, *(f"{name} {fingerprint}" for name, fingerprint in self._known.items()))
        fresh = self._path.with_suffix(".new")
        fresh.write_text("".join(f"{line}\n" for line in lines))
        fresh.replace(self._path)
        self._file = self._path.open("a")
        self._lines = len(self._known)

    def _let_go(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):  # what was not written yet
                file.close()
