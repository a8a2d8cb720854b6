"""The row status machine: RowStatus of RFC 2579 together with the vendor's creating columns and delete values.

One pure function over what a SET holds for one row, all its varbinds at once, so the order
of varbinds cannot matter. Defaults complete every row, so a row is never notReady: where
the RFC goes to notReady, createAndWait goes to notInService here, as it allows for an agent
that has all it needs.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from agent.store.errors import ErrorStatus


class Status(enum.IntEnum):
    """RowStatus, RFC 2579."""

    ACTIVE = 1
    NOT_IN_SERVICE = 2
    NOT_READY = 3
    CREATE_AND_GO = 4
    CREATE_AND_WAIT = 5
    DESTROY = 6


CREATIONS = {Status.CREATE_AND_GO: Status.ACTIVE, Status.CREATE_AND_WAIT: Status.NOT_IN_SERVICE}
OF_A_NEW_ROW = "createAndGo(4), createAndWait(5), destroy(6)"
OF_A_ROW = "active(1), notInService(2), destroy(6)"


class Part(enum.Enum):
    """What of a SET is to blame."""

    STATUS = "the varbind of the RowStatus column"
    DELETE = "the varbind with the delete value"
    CREATING = "the varbind of a creating column"
    OTHER = "another varbind of the row"


@dataclass(frozen=True, slots=True)
class Wish:
    """What a SET holds for one row. `asked`: value written to RowStatus; `deletes`: the delete value is written;
    `creates`: a creating column is (with another value); `others`: further columns are, guards not counted."""

    asked: Status | None = None
    deletes: bool = False
    creates: bool = False
    others: bool = False


class RowRefused(Exception):
    """The row cannot go this way. `accepted` is '' where the caller knows better (names of creating columns)."""

    def __init__(self, status: ErrorStatus, part: Part, why: str, accepted: str = "") -> None:
        super().__init__(why)
        self.status = status
        self.part = part
        self.why = why
        self.accepted = accepted


def next_status(now: Status | None, wish: Wish) -> Status | None:
    """Status of the row after the SET; None is no row, before as after. Raises RowRefused.

    Removing a row that is not there is no error (RFC 2579: destroy in state A), by the delete value neither."""
    inconsistent = ErrorStatus.INCONSISTENT_VALUE
    if wish.asked is Status.NOT_READY:
        accepted = OF_A_NEW_ROW if now is None else OF_A_ROW
        raise RowRefused(ErrorStatus.WRONG_VALUE, Part.STATUS, "is read, never written", accepted)
    if wish.deletes or wish.asked is Status.DESTROY:
        if wish.asked not in (None, Status.DESTROY):
            raise RowRefused(inconsistent, Part.STATUS, "the same SET deletes the row", "destroy(6), or no RowStatus")
        if wish.creates or wish.others:
            part = Part.CREATING if wish.creates else Part.OTHER
            raise RowRefused(inconsistent, part, "the same SET removes the row", "no other column of it")
        return None
    if now is None:
        if wish.asked in CREATIONS:
            return CREATIONS[wish.asked]
        if wish.asked is not None:
            raise RowRefused(inconsistent, Part.STATUS, "there is no such row", OF_A_NEW_ROW)
        if wish.creates:
            return Status.ACTIVE
        raise RowRefused(ErrorStatus.INCONSISTENT_NAME, Part.OTHER, "there is no such row")
    if wish.asked in CREATIONS:
        raise RowRefused(inconsistent, Part.STATUS, "the row is there already", OF_A_ROW)
    return now if wish.asked is None else wish.asked
