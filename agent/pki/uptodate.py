"""certUptodate follows the calendar: looked at when the agent starts, after imports, and once a day."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from agent.pki.rows import CERTIFICATES, uptodate
from agent.store.errors import Refused
from agent.store.hooks import AGENT, Edit
from agent.store.store import Store

logger = logging.getLogger(__name__)

DAY: Final = 86_400.0
COLUMN: Final = "certUptodate"


async def keep_uptodate(store: Store, wall: Callable[[], float] = time.time) -> None:
    """For ever. `wall`: seconds since 1970."""
    while True:
        try:
            await look(store, wall())
        except Refused as refused:  # the store cannot be written now; tomorrow is another day
            logger.warning("%s is not brought up to date: %s", COLUMN, refused)
        await asyncio.sleep(DAY)


async def look(store: Store, now: float) -> None:
    """One look at all certificates. Raises Refused."""
    edits = []
    for row in store.running.rows_any_status(CERTIFICATES):
        begin, end = row["certValidNotBefore"], row["certValidNotAfter"]
        assert isinstance(begin, int) and isinstance(end, int)
        share = uptodate(begin, end, now)
        if end and row[COLUMN] != share:
            edits.append(Edit(store.schema.columns[COLUMN], row.number, share))
    if edits:
        await store.commit(edits, AGENT)
