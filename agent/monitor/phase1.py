"""What the agent itself does about IKE SAs, because charon has no setting for it.

Renewing them early (renewals.py), keeping their number down, ending them with the link they
went over, and believing ICMP. All by asking charon to renew or to end one SA.
MIB: ipsecGlobMaxIkeSas, ipsecGlobContMaxIkev2Sas, ipsecGlobContSaSyncInterface, ipsecGlobTrustIcmpMsg.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final, NamedTuple

from agent.backends.engine import Ike, IkeEvent
from agent.backends.lookout import Lookout, Sight
from agent.monitor.peers import Peers
from agent.monitor.renewals import Renewals, victims
from agent.monitor.sas import Registry
from agent.plan.model import Connection
from agent.plan.upkeep import Upkeep
from agent.store.snapshot import Configuration

logger = logging.getLogger(__name__)

TRUE: Final = 1
SYNC: Final = "ipsecGlobContSaSyncInterface"
TRUST: Final = "ipsecGlobTrustIcmpMsg"
ALWAYS: Final = "ipsecGlobContP1Always"  # enabled is 1 too


class Cap(NamedTuple):
    """How many IKE SAs of a version there may be."""

    version: int
    scalar: str


CAPS: Final = (Cap(1, "ipsecGlobMaxIkeSas"), Cap(2, "ipsecGlobContMaxIkev2Sas"))


class Phase1:
    """`begin` runs what is asked of the engine, and bears its errors; `configuration` gives the one in force."""

    def __init__(
        self,
        registry: Registry,
        peers: Peers,
        ike: Ike,
        lookout: Lookout,
        begin: Callable[[Coroutine[Any, Any, None]], None],
        configuration: Callable[[], Configuration],
        upkeep: Callable[[int], Upkeep],
        clock: Callable[[], float],
    ) -> None:
        self._registry, self._peers, self._ike, self._begin = registry, peers, ike, begin
        self._configuration, self._clock = configuration, clock
        self.renewals = Renewals(registry, lambda unique_id: begin(ike.renew(unique_id)), upkeep, lookout.octets, clock)
        self._evicted: set[int] = set()
        lookout.subscribe(self._seen)

    def event(self, event: IkeEvent) -> None:
        self.renewals.event(event)

    def look(self) -> None:
        """Every second or so, after the registry has seen charon's list."""
        self.renewals.look(self._is_set(ALWAYS))
        self._evicted &= self._registry.ike.keys()
        for cap in CAPS:
            self._keep_to(cap)

    def _is_set(self, scalar: str) -> bool:
        return self._configuration().scalar(scalar) == TRUE

    def _keep_to(self, cap: Cap) -> None:
        most = self._configuration().scalar(cap.scalar)
        assert isinstance(most, int)
        rows = [
            row
            for unique_id, row in self._registry.ike.items()
            if row.sa.version == cap.version and unique_id not in self._evicted
        ]
        if most <= 0 or len(rows) <= most:
            return
        for row in victims(rows, most, self._clock()):
            logger.warning("peer %d: its IKE SA %d is ended, %s is %d", row.peer, row.sa.unique_id, cap.scalar, most)
            self._evicted.add(row.sa.unique_id)
            self._peers.remark(row.peer, f"ended: there were more than {most} IKE SAs ({cap.scalar})")
            self._begin(self._ike.terminate(ike_id=row.sa.unique_id))

    def _seen(self, sight: Sight) -> None:
        if sight.stopped and self._is_set(SYNC):
            for row in list(self._registry.ike.values()):
                if row.sa.local in sight.stopped:
                    where = ipaddress.ip_address(row.sa.local)
                    logger.warning("peer %d: its SAs are ended, the interface of %s is down", row.peer, where)
                    self._peers.remark(row.peer, f"ended: the interface of {where} went down ({SYNC})")
                    self._begin(self._ike.terminate(ike_id=row.sa.unique_id))
        if sight.unreachable and self._is_set(TRUST):
            for peer in self._peers.trying():
                connection = self._peers.connection(peer)
                if connection is not None and _calls(connection, sight.unreachable) and not self._answered(peer):
                    self._peers.cut_short(peer, f"{sight.reason}, {TRUST}")

    def _answered(self, peer: int) -> bool:
        """Whether anything has come back: the responder has given its SPI."""
        return any(any(row.sa.responder_spi) for row in self._registry.ike_of_peer.get(peer, {}).values())


def _calls(connection: Connection, address: bytes) -> bool:
    remote = connection.settings.get("remote_addrs")
    return isinstance(remote, list) and str(ipaddress.ip_address(address)) in remote
