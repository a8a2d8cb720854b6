"""Remembers, across restarts of the agent, with which settings each connection was loaded into charon.

charon does not give settings back, and a new agent that cannot tell would have to load and
so renegotiate everything. The journal is one line per loading, appended; its first line is
the life of charon (process.Daemon.identity) that it speaks of.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, TextIO

COMPACT_FACTOR: Final = 4  # rewritten when it has so many lines per connection
COMPACT_LINES: Final = 1024


class Journal:
    """`fingerprints` by connection name. Writing is best effort: a lost line only costs a renegotiation."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO | None = None
        self._lines = 0
        self._identity = ""
        self._known: dict[str, str] = {}
        self.fingerprints: Mapping[str, str] = MappingProxyType(self._known)

    def open(self, identity: str) -> None:
        """Take up what is there of this life of charon, forget another's."""
        self.close()
        self._known.clear()
        try:
            first, *lines = self._path.read_text().split("\n")
        except OSError:
            first, lines = "", []
        if first == identity:
            for line in lines[:-1]:  # the last is empty, or torn
                name, _, fingerprint = line.partition(" ")
                self._take(name, fingerprint)
        self._rewrite(identity)

    def loaded(self, name: str, fingerprint: str) -> None:
        """'' as fingerprint: unloaded, or about to be loaded with something else."""
        self._take(name, fingerprint)
        if self._file is None:
            return
        self._file.write(f"{name} {fingerprint}\n")
        self._file.flush()
        self._lines += 1
        if self._lines > COMPACT_LINES + COMPACT_FACTOR * len(self._known):
            self._rewrite(self._identity)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _take(self, name: str, fingerprint: str) -> None:
        if fingerprint:
            self._known[name] = fingerprint
        else:
            self._known.pop(name, None)

    def _rewrite(self, identity: str) -> None:
        self.close()
        self._identity = identity
        fresh = self._path.with_suffix(".new")
        fresh.write_text("".join(f"{line}\n" for line in (identity, *(f"{n} {f}" for n, f in self._known.items()))))
        fresh.replace(self._path)
        self._file = self._path.open("a")
        self._lines = len(self._known)
