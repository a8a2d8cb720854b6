"""Shows in a peer's apply row (ipsecGwPeerLastError) why its last negotiation failed.

The row is the reconciler's, and what it has to say itself comes first: a remark stands only
where its text is empty, and is put there again after the reconciler wrote the row anew.
"""

from __future__ import annotations

from typing import Final

from agent.mib.schema import Schema
from agent.monitor.publish import LiveTables

TABLE: Final = "ipsecGwPeerApplyTable"
COLUMN: Final = "ipsecGwPeerLastError"
LONGEST: Final = 255  # octets of a DisplayString


class Remarks:
    """One text per peer."""

    def __init__(self, schema: Schema, live: LiveTables) -> None:
        self._live = live
        self._column = schema.columns[COLUMN]
        self._said: dict[int, bytes] = {}  # encoded

    def say(self, peer: int, text: str) -> None:
        """'' takes the remark back."""
        before = self._said.pop(peer, None)
        if text:
            self._said[peer] = self._column.encode(text.encode()[:LONGEST])
            self._write(peer, {before, self._column.default_tlv}, self._said[peer])
        elif before is not None:
            self._write(peer, {before}, self._column.default_tlv)

    def repeat(self) -> None:
        """Put back what was overwritten by nothing."""
        for peer, tlv in self._said.items():
            self._write(peer, {self._column.default_tlv}, tlv)

    def _write(self, peer: int, over: set[bytes | None], tlv: bytes) -> None:
        table = self._live.table(TABLE)
        cells = table.cells(peer)
        if cells is None or cells[self._column.position] not in over:
            return
        changed = list(cells)
        changed[self._column.position] = tlv
        self._live.publish(TABLE, table.replaced({peer: tuple(changed)}))
