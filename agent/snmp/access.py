"""Who may see and change what: VACM with three levels (RFC 3415).

Communities come from the settings, users from ipsecGwUserTable. Each is put into the
group of its level, and a level has one read view and one write view, given as subtrees.
The views are worked out per object when the tree is built, so that checking a variable
binding, which happens for every one of every request, is one `&`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from agent.snmp.tree import Visibility

EVERYTHING: Final = (1,)
OURS: Final = (1, 3, 6, 1, 4, 1, 272, 4, 26, 200)  # ipsecGatewayExtMIB
MODULES: Final = (1, 3, 6, 1, 6, 3)  # snmpModules
ADMINISTRATION: Final = (
    (*OURS, 60),  # ipsecGwUserTable
    (*OURS, 61),  # ipsecGwTargetTable
    (*OURS, 62),  # ipsecGwSourceTable
    (*OURS, 64),  # ipsecGwFilterTable
    (*OURS, 65),  # ipsecGwLoginKeyTable
    (*OURS, 1, 2),  # ipsecGwReadSources
    (*OURS, 1, 3),  # ipsecGwWriteSources
    (*MODULES, 12, 1, 1),  # snmpTargetSpinLock
    (*MODULES, 12, 1, 2),  # snmpTargetAddrTable
    (*MODULES, 12, 1, 3),  # snmpTargetParamsTable
    (*MODULES, 13, 1),  # snmpNotifyObjects
    (*MODULES, 15, 1, 2),  # usmUser
    (*MODULES, 16, 1),  # vacmMIBObjects
)
"""Who may come from where and is told what: for administrators only, to write as to read (RFC 3414 section 11.2
and RFC 3415 section 7.4 warn of showing users and groups)."""
OWN_KEYS: Final = (
    (*MODULES, 15, 1, 2, 1),  # usmUserSpinLock
    (*MODULES, 15, 1, 2, 2, 1, 7),  # usmUserOwnAuthKeyChange
    (*MODULES, 15, 1, 2, 2, 1, 10),  # usmUserOwnPrivKeyChange
)
"""What those who may write may do to themselves."""


class Level(enum.IntEnum):
    """ipsecGwUserLevel."""

    ADMIN = 1
    WRITE = 2
    READ = 3

    @property
    def bit(self) -> int:
        return 1 << self


class Views(NamedTuple):
    """Subtrees that a level may read and write; of overlapping ones the longest decides (RFC 3415 section 4)."""

    read: Mapping[tuple[int, ...], bool]
    write: Mapping[tuple[int, ...], bool]


_OPERATION: Final = {EVERYTHING: True, **dict.fromkeys(ADMINISTRATION, False)}

VIEWS: Final[Mapping[Level, Views]] = {
    Level.ADMIN: Views(read={EVERYTHING: True}, write={EVERYTHING: True}),
    Level.WRITE: Views(read={**_OPERATION, OWN_KEYS[0]: True}, write={**_OPERATION, **dict.fromkeys(OWN_KEYS, True)}),
    Level.READ: Views(read=_OPERATION, write={}),
}


def in_view(view: Mapping[tuple[int, ...], bool], oid: Sequence[int]) -> bool:
    """Whether an object lies in a view."""
    arcs = tuple(oid)
    for length in range(len(arcs), 0, -1):
        included = view.get(arcs[:length])
        if included is not None:
            return included
    return False


def visibility(oid: Sequence[int]) -> Visibility:
    """Which levels may read and write an object."""
    readers = sum(level.bit for level, views in VIEWS.items() if in_view(views.read, oid))
    writers = sum(level.bit for level, views in VIEWS.items() if in_view(views.write, oid))
    return Visibility(readers, writers)


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody known. `name` is the security name: a user's name, or for communities the setting it comes from, so
    that no community gets into a log."""

    name: str
    level: Level

    @property
    def bit(self) -> int:
        return self.level.bit

    @property
    def may_write(self) -> bool:
        """The level has a write view at all."""
        return bool(VIEWS[self.level].write)


def communities(read: str | None, write: str | None) -> dict[bytes, Principal]:
    """Principals by community octets; none where none is set."""
    known: dict[bytes, Principal] = {}
    if read:
        known[read.encode()] = Principal("read-community", Level.READ)
    if write:
        known[write.encode()] = Principal("write-community", Level.WRITE)
    return known
