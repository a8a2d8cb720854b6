"""Where messages may come from: the source lists of ipsecGwSourceTable, kept up to date by the store's changes.

A user names its list (ipsecGwUserSourceList), the communities have theirs (ipsecGwReadSources,
ipsecGwWriteSources); 0 is anywhere. A list without a network admits nobody: a mistake must
not open a door. The networks of one list are few, and what was asked lately is remembered,
so that a datagram costs a dictionary hit.
"""

from __future__ import annotations

import ipaddress
import logging
from typing import Final

from agent.snmp.access import Level
from agent.store.hooks import Change
from agent.store.snapshot import Configuration, Row

log = logging.getLogger(__name__)

SOURCE_TABLE: Final = "ipsecGwSourceTable"
CONTROL: Final = "ipsecGwControl"
OF_COMMUNITY: Final = {Level.READ: "ipsecGwReadSources", Level.WRITE: "ipsecGwWriteSources"}
ANYWHERE: Final = 0
REMEMBERED: Final = 10_000  # answers; beyond this all are forgotten

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
EVERYWHERE: Final = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))


class SourceLists:
    """Subscriber of the store."""

    def __init__(self) -> None:
        self._lists: dict[int, list[Network]] = {}
        self._communities: dict[Level, int] = {}
        self._known: dict[tuple[int, str], bool] = {}

    def changed(self, change: Change) -> None:
        if change.replay or any(row.table in (SOURCE_TABLE, CONTROL) for row in change.rows):
            self._load(change.after)

    def _load(self, configuration: Configuration) -> None:
        self._lists = {}
        for row in configuration.rows(SOURCE_TABLE):
            number = row["ipsecGwSourceList"]
            assert isinstance(number, int)
            self._lists.setdefault(number, []).extend(networks(row))
        numbers = {level: configuration.scalar(name) for level, name in OF_COMMUNITY.items()}
        self._communities = {level: number for level, number in numbers.items() if isinstance(number, int)}
        self._known = {}

    def of_community(self, level: Level) -> int:
        """Number of the list that the community of a level is bound to."""
        return self._communities.get(level, ANYWHERE)

    def admits(self, number: int, source: str) -> bool:
        """Whether a message from this address may be one of a user or community bound to this list."""
        if number == ANYWHERE:
            return True
        known = self._known.get((number, source))
        if known is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            address = ipaddress.ip_address(source)
            known = any(address in network for network in self._lists.get(number, ()))
            self._known[number, source] = known
        return known


def networks(row: Row) -> tuple[Network, ...]:
    """The networks of a row: an empty address is every address. A prefix that is too long for the address is that
    address alone."""
    address, length = row["ipsecGwSourceAddress"], row["ipsecGwSourcePrefixLength"]
    assert isinstance(address, bytes) and isinstance(length, int)
    if not address:
        return EVERYWHERE
    length = min(length, len(address) * 8)
    return (ipaddress.ip_network((address, length), strict=False),)
