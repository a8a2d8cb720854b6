"""`delete` on the state of an SA or a bundle: the row's SAs are ended, and with them the row.

ikeSaState, ikev2SaState and ipsecBundleState are states that live, so nothing but `delete`
can be asked of them. The policies stay: the next packet that wants a tunnel starts one anew.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from agent.backends.engine import Ike
from agent.monitor.sas import Registry
from agent.monitor.tables import BUNDLE_TABLE, IKE_TABLE, IKEV2_TABLE
from agent.store.actions import Asked, LiveRow

logger = logging.getLogger(__name__)

STATES: Final = {IKE_TABLE: "ikeSaState", IKEV2_TABLE: "ikev2SaState", BUNDLE_TABLE: "ipsecBundleState"}


class Endings:
    """A Handler of agent.store.actions. `begin` runs what is asked of the engine, and bears its errors."""

    tables = frozenset(STATES)

    def __init__(self, registry: Registry, ike: Ike, begin: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self._registry, self._ike, self._begin = registry, ike, begin

    def check(self, rows: Sequence[LiveRow], asked: Asked) -> None:
        for row in rows:
            if not row.removed:
                raise row.refused(STATES[row.table.name], "the state is the tunnel's own", "delete, which ends it")

    def perform(self, rows: Sequence[LiveRow], asked: Asked) -> None:
        for row in rows:
            if row.table.name == BUNDLE_TABLE:
                self._end_bundle(row.number)
            else:
                self._end_ike(row.number)

    def _end_bundle(self, number: int) -> None:
        bundle = next((each for each in self._registry.alive() if each.number == number), None)
        if bundle is not None:
            logger.info("bundle %d (%s) is ended by a SET", number, bundle.child.name)
            self._begin(self._ike.terminate(child_id=bundle.child.unique_id))

    def _end_ike(self, number: int) -> None:
        row = next((each for each in self._registry.ike.values() if each.number == number), None)
        if row is not None:
            logger.info("IKE SA %d of peer %d is ended by a SET", number, row.peer)
            self._begin(self._ike.terminate(ike_id=row.sa.unique_id))
