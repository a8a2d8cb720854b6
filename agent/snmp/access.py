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
USERS: Final = (1, 3, 6, 1, 4, 1, 272, 4, 26, 200, 60)  # ipsecGwUserTable


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


VIEWS: Final[Mapping[Level, Views]] = {
    Level.ADMIN: Views(read={EVERYTHING: True}, write={EVERYTHING: True}),
    Level.WRITE: Views(read={EVERYTHING: True}, write={EVERYTHING: True, USERS: False}),
    Level.READ: Views(read={EVERYTHING: True}, write={}),
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
