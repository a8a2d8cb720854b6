"""Numbers that outlive the agent: request ids of children, which SAs in the kernel carry, and who stands for whom.

They are no configuration: nobody sets them, and what is remembered is compared with the
configuration when the next agent begins.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from agent.store.errors import StoreError
from agent.store.store import Store

logger = logging.getLogger(__name__)

REQIDS: Final = "reqid"  # by child name
TAKEOVERS: Final = "takeover"  # the backup of a lost peer, by the peer's number


class Remembered:
    """Those of one kind. `held`: as they are now, on disk unless the store failed; `what`: for the log."""

    def __init__(self, store: Store, kind: str, what: str) -> None:
        self._store, self._kind, self._what = store, kind, what
        self.held: Mapping[str, int] = store.numbers(kind)
        self._late: frozenset[str] = frozenset()  # what the store did not take

    async def keep(self, wanted: Mapping[str, int | None]) -> None:
        """Remember these; None is forgotten. What is not named stays. Where the store fails it is told again with the
        next."""
        news = {name: number for name, number in wanted.items() if number != self.held.get(name)}
        held = {**self.held, **news}
        self.held = {name: number for name, number in held.items() if number is not None}
        late, self._late = self._late, frozenset()
        news |= {name: self.held.get(name) for name in late}
        try:
            await self._store.remember(self._kind, news)
        except StoreError as error:
            logger.error("%s would not be kept over a restart now: %s", self._what, error)
            self._late = frozenset(news)  # tried again with the next


def takeovers_of(numbers: Mapping[str, int]) -> dict[int, int]:
    """By number, as they were remembered."""
    return {int(peer): backup for peer, backup in numbers.items()}


def takeovers_to_keep(held: Mapping[str, int], takeovers: Mapping[int, int]) -> dict[str, int | None]:
    """What `keep` has to be told for these to be all."""
    return {**dict.fromkeys(held, None), **{str(peer): backup for peer, backup in takeovers.items()}}
