"""The order of the peers as the older release chained them: ipsecPeerStatNextIndex.

Peers are looked at by priority, then by number; the chain says who comes next. It is made
anew when a row or a priority has changed, once for all that have changed together.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable


class PeerChain:
    """`put` and `drop` keep it; `moved` gives the peers whose successor is another one, since it was asked last."""

    def __init__(self) -> None:
        self._priorities: dict[int, int] = {}
        self._order: list[tuple[int, int]] = []  # priority and number
        self._next: dict[int, int] = {}
        self._stale = False

    def fill(self, peers: Iterable[tuple[int, int]]) -> None:
        """All peers at once, as (number, priority)."""
        self._priorities = dict(peers)
        self._order = sorted((priority, number) for number, priority in self._priorities.items())
        self._stale = True

    def put(self, peer: int, priority: int) -> None:
        if self._priorities.get(peer) != priority:
            self.drop(peer)
            self._priorities[peer] = priority
            insort(self._order, (priority, peer))
            self._stale = True

    def drop(self, peer: int) -> None:
        priority = self._priorities.pop(peer, None)
        if priority is not None:
            del self._order[bisect_left(self._order, (priority, peer))]
            self._stale = True

    def after(self, peer: int) -> int:
        """Who comes next, 0 for nobody."""
        return self._next.get(peer, 0)

    def moved(self) -> set[int]:
        if not self._stale:
            return set()
        self._stale = False
        order = self._order
        found = {peer: order[at + 1][1] if at + 1 < len(order) else 0 for at, (_, peer) in enumerate(order)}
        before, self._next = self._next, found
        return {peer for peer, following in found.items() if before.get(peer, 0) != following}
