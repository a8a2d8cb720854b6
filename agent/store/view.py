"""What can be read at this moment: stored and live tables side by side."""

from __future__ import annotations

from collections.abc import Callable

from agent.store.live import Live
from agent.store.snapshot import Configuration, TableSnapshot


class View:
    """Asked anew for each request: a snapshot taken from it stays as it is, the view goes on."""

    def __init__(self, running: Callable[[], Configuration], live: Live) -> None:
        self._running = running
        self._live = live

    def table(self, name: str) -> TableSnapshot:
        """Raises KeyError for an unknown table."""
        stored = self._running().tables.get(name)
        return self._live.table(name) if stored is None else stored
