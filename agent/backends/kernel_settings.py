"""Writes settings of the host below /proc/sys/net, and gives back what was there before.

The host's own value is remembered, over restarts too, before the first write; once nothing
is wanted any more it is written back. Files that a kernel does not have are left out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

from agent.backends import tasks
from agent.plan.kernel_settings import SETTINGS, TABLES, wanted
from agent.store.hooks import Change

logger = logging.getLogger(__name__)

ROOT: Final = Path("/proc/sys/net")
FILES: Final = tuple(file for setting in SETTINGS for file in setting.files)
AGAIN_SECONDS: Final = 60.0  # somebody else may have written there
HOST_OWN: Final = "kernel setting"  # kind of the durable numbers

Remember = Callable[[Mapping[str, int | None]], Awaitable[None]]


class KernelSettings:
    """`known`: the host's own values that an earlier agent remembered; `remember` keeps them."""

    def __init__(self, known: Mapping[str, int], remember: Remember, root: Path = ROOT) -> None:
        self._own = dict(known)
        self._remember = remember
        self._root = root
        self._told: dict[str, str] = {}
        self._wanted: Mapping[str, int] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def apply(self, values: Mapping[str, int]) -> dict[str, str]:
        """Make it so; by file why it is not."""
        problems: dict[str, str] = {}
        target: dict[str, int] = {}
        fresh: dict[str, int | None] = {}
        for file in FILES:
            if file in values:
                if file not in self._own:
                    own = self._read(file)
                    if own is None:
                        continue
                    fresh[file] = own
                target[file] = values[file]
            elif file in self._own:
                target[file] = self._own[file]
        if fresh:  # nothing is written before what was there is kept
            await self._remember(fresh)
            self._own |= {file: value for file, value in fresh.items() if value is not None}
        # of two bounds the lower may not pass the upper: what is refused is tried again once the other has moved
        late = {file: value for file, value in target.items() if self._write(file, value)}
        for file, value in late.items():
            problem = self._write(file, value)
            if problem:
                problems[file] = problem
        given_back: dict[str, int | None] = {
            file: None for file in target if file not in values and file not in problems
        }
        if given_back:
            await self._remember(given_back)
            for file in given_back:
                del self._own[file]
        for file, problem in problems.items():
            if self._told.get(file) != problem:
                logger.warning("%s/%s: %s", self._root, file, problem)
        self._told = problems
        return problems

    # ---- following the configuration ----------------------------------------------------

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """The values stay."""
        await tasks.end(self._task)

    def changed(self, change: Change) -> None:
        """A commit; the store's hook."""
        if change.replay or any(row.table in TABLES for row in change.rows):
            self._wanted = wanted(change.after)
            self._wake.set()

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AGAIN_SECONDS):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self.apply(self._wanted)
            except Exception:
                logger.exception("settings of the host could not be kept")

    def _read(self, file: str) -> int | None:
        try:
            return int((self._root / file).read_text())
        except (OSError, ValueError):
            return None

    def _write(self, file: str, value: int) -> str:
        if self._read(file) == value:
            return ""
        try:
            (self._root / file).write_text(f"{value}\n")
        except OSError as error:
            return error.strerror or str(error)
        return ""
