"""When phase 1 is renewed although its time is not up: fresh keys for each phase 2, or after so many kilobytes.

IKEv1 only, whose reauthentication moves the children to the new IKE SA without loss. charon
cannot drop phase 1 and keep phase 2, so what stands by after a phase 2 is a phase 1 that
nothing was derived from. MIB: ikePrfPfsIdentity, ipsecGlobContPfsIdentityDelay,
ipsecGlobContP1Always, ikePrfLifeKBytes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final

from agent.backends.engine import IkeEvent, IkeEventKind
from agent.monitor.sas import IkeRow, Registry
from agent.plan import numbers
from agent.plan.upkeep import Upkeep

logger = logging.getLogger(__name__)

LEAD_SECONDS: Final = 4  # phase 1 is renewed so long before phase 2: enough for six messages and their repetitions
SETTLE_SECONDS: Final = 0.5  # after a renewal that came unforeseen
KILO: Final = 1000
ESTABLISHED: Final = "ESTABLISHED"


class Renewals:
    """`renew(unique id)` replaces an IKE SA; `octets(initiator SPI)` counts its messages. `look` has to be called
    every second or so, after the registry has seen charon's list."""

    def __init__(
        self,
        registry: Registry,
        renew: Callable[[int], None],
        upkeep: Callable[[int], Upkeep],
        octets: Callable[[bytes], int],
        clock: Callable[[], float],
    ) -> None:
        self._registry, self._renew, self._upkeep = registry, renew, upkeep
        self._octets, self._clock = octets, clock
        self._due: dict[int, float] = {}  # by peer: when its phase 1 is renewed
        self._prepared: set[int] = set()  # children whose renewal has been given a fresh phase 1
        self._asked: set[int] = set()  # IKE SAs that are being replaced

    def event(self, event: IkeEvent) -> None:
        """A phase 2 came up or was renewed."""
        if event.ike is None or event.ike.version != 1 or event.child is None:
            return
        if event.kind not in (IkeEventKind.CHILD_UP, IkeEventKind.CHILD_REKEY):
            return
        peer = numbers.peer_of_connection(event.ike.connection)
        upkeep = self._upkeep(peer)
        if upkeep.fresh_identity:
            self._due[peer] = self._clock() + upkeep.delay
        elif upkeep.phase1_first and event.old_child is not None and event.old_child.unique_id not in self._prepared:
            self._due[peer] = self._clock() + SETTLE_SECONDS  # by volume: nobody could know

    def next_time(self) -> float | None:
        """Seconds until the next is due; None for none."""
        return max(0.0, min(self._due.values()) - self._clock()) if self._due else None

    def look(self, phase1_first: bool) -> None:
        """`phase1_first`: whether any peer has it."""
        now = self._clock()
        for peer in [peer for peer, due in self._due.items() if due <= now]:
            del self._due[peer]
            self._renew_of(peer, "fresh keys for the next phase 2")
        if phase1_first:
            self._prepare()
        elif self._prepared:
            self._prepared.clear()
        self._weigh()
        self._asked &= self._registry.ike.keys()

    def _prepare(self) -> None:
        """Phase 2 SAs that are about to be renewed."""
        alive: set[int] = set()
        for bundle in self._registry.alive():
            child = bundle.child
            alive.add(child.unique_id)
            if bundle.ike.version != 1 or child.unique_id in self._prepared or not 0 < child.rekey_in <= LEAD_SECONDS:
                continue
            if self._upkeep(bundle.peer).phase1_first:
                self._prepared.add(child.unique_id)
                self._renew_of(bundle.peer, f"{child.name} is about to be renewed")
        self._prepared &= alive

    def _weigh(self) -> None:
        """IKE SAs that carried as much as they may."""
        for row in list(self._registry.ike.values()):
            if row.sa.version != 1 or row.sa.state != ESTABLISHED:
                continue
            carried = self._octets(row.sa.initiator_spi)
            if carried < KILO:  # the least limit there is
                continue
            limit = self._upkeep(row.peer).kilobytes
            if limit and carried >= limit * KILO:
                self._replace(row, f"{carried} octets, the limit is {limit} kB")

    def _renew_of(self, peer: int, why: str) -> None:
        standing = [row for row in self._registry.ike_of_peer.get(peer, {}).values() if row.sa.state == ESTABLISHED]
        if standing:
            self._replace(max(standing, key=lambda row: row.number), why)

    def _replace(self, row: IkeRow, why: str) -> None:
        if row.sa.unique_id in self._asked:
            return
        self._asked.add(row.sa.unique_id)
        logger.info("peer %d: phase 1 (%d) is renewed: %s", row.peer, row.sa.unique_id, why)
        self._renew(row.sa.unique_id)


def victims(rows: Iterable[IkeRow], most: int, now: float) -> list[IkeRow]:
    """Established IKE SAs of one version that have to go where no more than `most` may be: first those that expire
    first, of those that never do the longest idle.

    An SA whose successor has only just come is left alone: its children are still moving."""
    established = [row for row in rows if row.sa.state == ESTABLISHED]
    newest: dict[int, IkeRow] = {}
    for row in established:
        newest[row.peer] = max(newest.get(row.peer, row), row, key=lambda each: each.number)
    counted = [row for row in established if row is newest[row.peer] or now - newest[row.peer].seen > MOVING_SECONDS]
    ordered = sorted(counted, key=lambda row: (_left(row), row.used, row.number))
    return ordered[: max(0, len(counted) - most)]


MOVING_SECONDS: Final = 5.0
NEVER: Final = float("inf")


def _left(row: IkeRow) -> float:
    """Seconds until it is renewed or ends."""
    return min((each for each in (row.sa.reauth_in, row.sa.rekey_in) if each > 0), default=NEVER)
