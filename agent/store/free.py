"""ipsecGwFreeIndices: for each table that managers make rows in, a number that no row has.

The one behind the highest, since that is what people expect who number from 1 on; once the
highest number there can be is taken, the lowest gap. Cheap however many rows there are: it
is looked for when a table has changed, in its blocks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from agent.mib.schema import Keeping, Schema
from agent.store.edits import highest_number
from agent.store.live import Live
from agent.store.snapshot import Configuration, TableSnapshot

FREE_INDICES: Final = "ipsecGwFreeIndices"
MOST: Final = 0x7FFFFFFF  # the scalars are Integer32

FREE_SCALARS: Final = {
    "ipsecGwPeerFree": "ipsecPeerTable",
    "ipsecGwTrafficFree": "ipsecTrafficTable",
    "ipsecGwIkeProposalFree": "ikeProposalTable",
    "ipsecGwIkeProfileFree": "ikeProfileTable",
    "ipsecGwIpsecProposalFree": "ipsecProposalTable",
    "ipsecGwIpsecProfileFree": "ipsecProfileTable",
    "ipsecGwIkev2ProfileFree": "ikev2ProfileTable",
    "ipsecGwXauthProfileFree": "xauthProfileTable",
    "ipsecGwXauthUserFree": "xauthUserListTable",
    "ipsecGwDialFree": "ipsecDialTable",
    "ipsecGwPeerTrafficFree": "ipsecPeerTrafficTable",
    "ipsecGwInternalSubnetFree": "ipsecInternalSubnetTable",
    "ipsecGwPublicKeyFree": "ipsecPublicKeyTable",
    "ipsecGwCertServerFree": "certServerTable",
    "ipsecGwCertMgmtFree": "certMgmtTable",
    "ipsecGwRadiusServerFree": "radiusServerTable",
    "ipsecGwPeerAddressFree": "ipsecGwPeerAddressTable",
    "ipsecGwPeerRouteFree": "ipsecGwPeerRouteTable",
    "ipsecGwPoolFree": "ipsecGwPoolTable",
    "ipsecGwUserFree": "ipsecGwUserTable",
    "ipsecGwTargetFree": "ipsecGwTargetTable",
    "ipsecGwSourceFree": "ipsecGwSourceTable",
    "ipsecGwFilterFree": "ipsecGwFilterTable",
    "ipsecGwDocumentFree": "ipsecGwDocumentTable",
    "ipsecGwImportFree": "ipsecGwImportTable",
    "ipsecGwLoginKeyFree": "ipsecGwLoginKeyTable",
}
"""Scalar → table."""


class FreeIndices:
    """Keeps the scalars true, for stored and for live tables."""

    def __init__(self, schema: Schema, live: Live, running: Configuration) -> None:
        self._live = live
        self._scalars: dict[str, str] = {}
        self._shown: dict[str, int] = {}
        if FREE_INDICES not in live:  # a schema of a test
            return
        for scalar, table in FREE_SCALARS.items():
            if scalar in schema.columns and table in schema.tables:
                self._scalars[table] = scalar
                if schema.tables[table].keeping is Keeping.LIVE:
                    live.watch(table, self._show)
        self.changed(self._scalars, running)
        self._show(*[live.table(table) for table in self._scalars if table in live])

    def changed(self, tables: Iterable[str], running: Configuration) -> None:
        """These stored tables have other rows."""
        self._show(*[running.table(name) for name in tables if name in self._scalars and name in running.tables])

    def _show(self, *snapshots: TableSnapshot) -> None:
        news: dict[str, int] = {}
        for snapshot in snapshots:
            scalar, number = self._scalars[snapshot.table.name], free_number(snapshot)
            if self._shown.get(scalar) != number:
                news[scalar] = self._shown[scalar] = number
        if news:
            self._live.update(FREE_INDICES, {0: news})


def free_number(snapshot: TableSnapshot) -> int:
    """A number that no row has, 0 where all are taken."""
    most = min(highest_number(snapshot.table), MOST)
    number = snapshot.last_number() + 1
    if number > most:
        number = snapshot.free_number()
    return number if number <= most else 0
