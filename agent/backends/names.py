"""Names looked up in threads of their own, since a resolver that is away holds each for as long as it likes.

The threads that asyncio shares out do other work too: a charon that died is started anew in
one of them. And the interpreter waits for those at its end, so the agent could not stop
before the last question is given up. These are nobody else's, bounded, and left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading
from typing import Final

LOOKUPS: Final = 16  # under way at the same time, those that nobody waits for any more among them
SECONDS: Final = 5.0  # for an answer


class Resolver:
    """`addresses` on the event loop."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(LOOKUPS)

    async def addresses(self, name: str) -> tuple[bytes, ...]:
        """Packed, shorter ones first; () for a name that has none, or of which nothing is heard in time."""
        found: asyncio.Future[tuple[bytes, ...]] = asyncio.get_running_loop().create_future()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SECONDS):
                await self._places.acquire()
                thread = threading.Thread(target=self._look_up, args=(name, found), name="name", daemon=True)
                thread.start()
                return await found
        return ()

    def _look_up(self, name: str, found: asyncio.Future[tuple[bytes, ...]]) -> None:
        try:
            entries = socket.getaddrinfo(name, None, type=socket.SOCK_DGRAM)
            packed = {ipaddress.ip_address(str(entry[4][0]).partition("%")[0]).packed for entry in entries}
        except (OSError, ValueError):  # the second: a name that cannot be encoded
            packed = set()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            found.get_loop().call_soon_threadsafe(self._ended, found, sorted(packed, key=lambda one: (len(one), one)))

    def _ended(self, found: asyncio.Future[tuple[bytes, ...]], addresses: list[bytes]) -> None:
        self._places.release()
        if not found.done():
            found.set_result(tuple(addresses))
