"""Removes kernel SAs of ours that the IKE daemon no longer knows, after it or we were away.

A daemon that was killed leaves its SAs in the kernel for ever; they carry traffic until a
new pair replaces them and then only lie there. One that is just being installed is also
unknown for a moment, so only what is unlisted twice, some seconds apart, goes. Before that,
however long a negotiation takes, there is but the SPI allotted to it: an SA without reqid,
and so not ours (seen of charon 5.9.8). Never a flush: that would end live tunnels. SAs of
flows have reqids that the daemon allots and others may use too: of those only what a policy
of ours named goes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from agent.backends import tasks
from agent.backends.engine import EngineError, Ike, IkeState, SaRecord, Spd
from agent.plan import numbers
from agent.plan.model import Template

logger = logging.getLogger(__name__)

SECOND_LOOK_SECONDS: Final = 5.0
REMEMBERED: Final = 4096  # ends and reqids of flows that were
LARVAL: Final = bytes(4)  # SPI of an SA that waits for the daemon; the kernel removes it by itself


Ends = tuple[frozenset[bytes], int]  # outer addresses and reqid


class Leftovers:
    """`look` begins a search; a new one replaces one under way."""

    def __init__(self, spd: Spd, ike: Ike, seconds: float = SECOND_LOOK_SECONDS) -> None:
        self._spd, self._ike, self._seconds = spd, ike, seconds
        self._task: asyncio.Task[None] | None = None
        self._named: OrderedDict[Ends, None] = OrderedDict()

    def named(self, templates: Iterable[Template]) -> None:
        """Policies of ours that named these are gone or name others."""
        allotted = [one for one in templates if numbers.is_allotted_reqid(one.reqid)]
        for one in allotted:
            self._named[_ends(one)] = None
        while len(self._named) > REMEMBERED:
            self._named.popitem(last=False)
        if allotted and self._task is not None and not self._task.done():  # a daemon has come: look for these too
            self.look()

    def is_ours(self, sa: SaRecord) -> bool:
        """Whether an SA, unless it is a larval one, can only be of our daemon, or of the one before."""
        return sa.spi != LARVAL and (numbers.is_our_reqid(sa.reqid) or _ends(sa) in self._named)

    def look(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._task = asyncio.get_running_loop().create_task(self._search())

    async def stop(self) -> None:
        await tasks.end(self._task)

    async def _search(self) -> None:
        try:
            first = await self._unlisted()
            if not first:
                return
            await asyncio.sleep(self._seconds)
            again = await self._unlisted()
            for where, sa in again.items():
                if where in first:
                    logger.info("SA %s with reqid %d is unknown to the IKE daemon: removed", sa.spi.hex(), sa.reqid)
                    await self._spd.delete_sa(sa)
        except EngineError as error:  # the daemon is away: it says so when it is back, and we look again
            logger.info("no search for left SAs: %s", error)

    async def _unlisted(self) -> dict[tuple[bytes, int, bytes], SaRecord]:
        """By (destination, protocol, SPI). The kernel is asked first: what comes up meanwhile is listed then."""
        found = [sa for sa in await self._spd.sas() if self.is_ours(sa)]
        return unlisted(found, await self._ike.observe()) if found else {}


def _ends(one: SaRecord | Template) -> Ends:
    """Both directions of a tunnel are one."""
    return frozenset((one.source, one.destination)), one.reqid


def unlisted(found: list[SaRecord], state: IkeState) -> dict[tuple[bytes, int, bytes], SaRecord]:
    """Those of the kernel's SAs that no CHILD_SA of the daemon accounts for."""
    children = [child for sa in state.sas for child in sa.children]
    spis = {spi for child in children for spi in (child.spi_in, child.spi_out)}
    reqids = {child.reqid for child in children}
    return {
        (sa.destination, sa.protocol, sa.spi): sa
        for sa in found
        if (sa.reqid not in reqids if sa.protocol not in (50, 51) else sa.spi not in spis)
    }
