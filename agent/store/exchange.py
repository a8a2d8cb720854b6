"""Documents, imports and named configurations of a running agent, as one service."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.store.documents import Documents
from agent.store.imports import ImportJobs
from agent.store.saved import ConfigurationCommands, SavedConfigurations
from agent.store.store import Store

logger = logging.getLogger(__name__)

TIDYING: Final = 15.0  # seconds between looks at what is old


@dataclass(frozen=True, slots=True)
class Exchange:
    """What the agent's other parts may use."""

    documents: Documents
    imports: ImportJobs
    saved: SavedConfigurations
    commands: ConfigurationCommands


@asynccontextmanager
async def exchanging(store: Store, state: Path, told: Callable[[str], None]) -> AsyncIterator[Exchange]:
    """Registers the handlers with the store, and tidies up until the end. `told` is given what a command could not
    do. Raises OSError."""
    documents = Documents(store.live)
    saved = SavedConfigurations(store, state)
    saved.start()
    exchange = Exchange(documents, ImportJobs(store, documents), saved, ConfigurationCommands(store, saved, told))
    for handler in (exchange.documents, exchange.imports, exchange.commands):
        store.actions.register(handler)
    tidying = asyncio.get_running_loop().create_task(_tidy(exchange), name="old documents and jobs")
    try:
        yield exchange
    finally:
        tidying.cancel()
        await asyncio.gather(tidying, return_exceptions=True)
        await exchange.imports.jobs.stop()
        await exchange.commands.jobs.stop()


async def _tidy(exchange: Exchange) -> None:
    while True:
        await asyncio.sleep(TIDYING)
        exchange.documents.expire()
        exchange.imports.expire()
        exchange.commands.expire()
