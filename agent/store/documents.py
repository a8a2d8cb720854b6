"""Documents: files that come and go in segments, kept in memory while somebody needs them.

ipsecGwDocumentTable has a row for each, ipsecGwSegmentTable their contents. What a manager
uploads belongs to its user, and is dropped when nobody has touched it for a while; what the
agent itself shows stays until the agent removes it. An upload may hold secrets: its
segments read as an asterisk, and size and digest say whether it arrived. Everything is
bounded, since memory is all that an upload costs its sender nothing of.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from agent.mib.ber import Value, read_tlv
from agent.store.actions import Asked, LiveRow
from agent.store.candidate import MASK
from agent.store.errors import ErrorStatus
from agent.store.live import Live

if TYPE_CHECKING:
    from hashlib import _Hash

DOCUMENTS: Final = "ipsecGwDocumentTable"
SEGMENTS: Final = "ipsecGwSegmentTable"
DATA: Final = "ipsecGwSegmentData"

MOST_DOCUMENTS: Final = 64
MOST_OCTETS: Final = 16 << 20  # of one; a configuration of 10,000 peers with a rule each has about 5 MB
ALL_OCTETS: Final = 64 << 20  # of all together
IDLE: Final = 600.0  # seconds that an upload stays untouched
SEGMENT_BITS: Final = 16  # instance = document << 16 | segment
LARGEST_SEGMENT: Final = 4096  # octets, the range of ipsecGwSegmentData
HIGHEST: Final = 32767  # ipsecGwDocumentIndex
AGENT: Final = "agent"
CONFIGURATION, CERTIFICATE, REQUEST, REVOCATION_LIST, REPORT = range(1, 6)  # ipsecGwDocumentKind


@dataclass(slots=True)
class Document:
    """What is known of one beside its live rows. `digest` has seen all segments, which are numbered from 1. `shown`:
    it is the agent's own, for managers to read. `kept`: not dropped when idle."""

    owner: str
    touched: float
    shown: bool
    kept: bool = False
    size: int = 0
    segments: dict[int, bytes] = field(default_factory=dict)
    digest: _Hash = field(default_factory=hashlib.sha256)


class Documents:
    """All documents of an agent; a Handler of agent.store.actions. On the event loop. `clock` counts seconds."""

    tables = frozenset({DOCUMENTS, SEGMENTS})

    def __init__(self, live: Live, clock: Callable[[], float] = time.monotonic) -> None:
        self._live = live
        self._clock = clock
        self._documents: dict[int, Document] = {}
        self._octets = 0

    # ---- the agent's own use ----------------------------------------------------------

    def __contains__(self, number: object) -> bool:
        return number in self._documents

    def contents(self, number: int) -> bytes:
        """The whole document; counts as use. Raises KeyError."""
        document = self._documents[number]
        document.touched = self._clock()
        return b"".join([document.segments[at] for at in range(1, len(document.segments) + 1)])

    def put(self, name: str, kind: int, contents: bytes, *, kept: bool = True) -> int:
        """Show a document of the agent; its number, 0 where there is no room. Goes by `remove`, or, not `kept`, when
        it has been idle."""
        number = self._free()
        if not number or len(contents) > MOST_OCTETS or self._octets + len(contents) > ALL_OCTETS:
            return 0
        values: dict[str, Value] = {"ipsecGwDocumentName": name.encode(), "ipsecGwDocumentKind": kind}
        self._make(number, values, Document(AGENT, self._clock(), shown=True, kept=kept))
        places = range(0, len(contents), LARGEST_SEGMENT)
        self._write(number, {at: contents[place : place + LARGEST_SEGMENT] for at, place in enumerate(places, start=1)})
        return number

    def remove(self, number: int) -> None:
        """Nothing where there is none."""
        document = self._documents.pop(number, None)
        if document is None:
            return
        self._octets -= document.size
        first = number << SEGMENT_BITS
        self._live.update(SEGMENTS, {first + at: None for at in document.segments})
        self._live.update(DOCUMENTS, {number: None})

    def expire(self) -> None:
        """Drop what has been idle; to be called now and then."""
        now = self._clock()
        for number, document in list(self._documents.items()):
            if not document.kept and now - document.touched >= IDLE:
                self.remove(number)

    # ---- SETs -------------------------------------------------------------------------

    def check(self, rows: Sequence[LiveRow], asked: Asked) -> None:
        documents = {row.number: row for row in rows if row.table.name == DOCUMENTS}
        self._check_documents(documents, asked)
        segments: dict[int, dict[int, LiveRow]] = {}
        for row in rows:
            if row.table.name == SEGMENTS:
                segments.setdefault(row.number >> SEGMENT_BITS, {})[row.number & (1 << SEGMENT_BITS) - 1] = row
        removed = [self._documents[number].size for number, row in documents.items() if row.removed]
        octets = self._octets - sum(removed)
        for number, own in segments.items():
            octets = self._check_segments(number, own, documents.get(number), octets, asked)

    def _check_documents(self, rows: Mapping[int, LiveRow], asked: Asked) -> None:
        made = [row for row in rows.values() if row.made]
        removed = sum(1 for row in rows.values() if row.removed)
        if made and len(self._documents) - removed + len(made) > MOST_DOCUMENTS:
            raise made[-1].refused(
                "ipsecGwDocumentName",
                f"there are {len(self._documents)} documents",
                f"{MOST_DOCUMENTS} at most; remove one",
                ErrorStatus.RESOURCE_UNAVAILABLE,
            )
        for number, row in rows.items():
            if not row.made and self._documents[number].owner != asked.origin.user:
                why = f"the document belongs to {self._documents[number].owner}"
                raise row.refused("ipsecGwDocumentState", why, "documents of one's own")

    def _check_segments(
        self, number: int, rows: Mapping[int, LiveRow], row: LiveRow | None, octets: int, asked: Asked
    ) -> int:
        """Octets in all documents with these segments. Raises Refused."""
        document = self._documents.get(number)
        first = rows[min(rows)]
        if (document is None and row is None) or (row is not None and row.removed):
            accepted = f"in the same SET ipsecGwDocumentName.{number}, which makes it"
            raise first.refused(DATA, f"there is no document {number}", accepted, ErrorStatus.INCONSISTENT_NAME)
        if document is not None and document.owner != asked.origin.user:
            raise first.refused(DATA, f"the document belongs to {document.owner}", "documents of one's own")
        there = {} if document is None else document.segments
        behind = len(there)
        size = 0 if document is None else document.size
        for at in sorted(rows):
            if at > behind + 1 or not at:
                expected = f"segment {behind + 1}, instance {(number << SEGMENT_BITS) + behind + 1}"
                raise rows[at].refused(DATA, "segments have no gap", expected, ErrorStatus.INCONSISTENT_NAME)
            behind = max(behind, at)
            more = len(_data(rows[at])) - len(there.get(at, b""))
            size += more
            octets += more
            if size > MOST_OCTETS or octets > ALL_OCTETS:
                accepted = f"{MOST_OCTETS} octets in a document, {ALL_OCTETS} in all; remove what is not needed"
                raise rows[at].refused(DATA, "too much", accepted, ErrorStatus.RESOURCE_UNAVAILABLE)
        return octets

    def perform(self, rows: Sequence[LiveRow], asked: Asked) -> None:
        segments: dict[int, dict[int, bytes]] = {}
        for row in rows:
            if row.table.name == SEGMENTS:
                own = segments.setdefault(row.number >> SEGMENT_BITS, {})
                own[row.number & (1 << SEGMENT_BITS) - 1] = _data(row)
            elif row.removed:
                self.remove(row.number)
            else:
                values = {name: row.value(name) for name in ("ipsecGwDocumentName", "ipsecGwDocumentKind")}
                if row.number in self._documents:
                    self._documents[row.number].touched = self._clock()
                    self._live.update(DOCUMENTS, {row.number: values})
                else:
                    self._make(row.number, values, Document(asked.origin.user, self._clock(), shown=False))
        for number, own in segments.items():
            if number in self._documents:
                self._write(number, own)

    # ---- rows -------------------------------------------------------------------------

    def _make(self, number: int, values: Mapping[str, Value], document: Document) -> None:
        self._documents[number] = document
        self._live.update(DOCUMENTS, {number: {**values, "ipsecGwDocumentOwner": document.owner.encode()}})

    def _write(self, number: int, segments: Mapping[int, bytes]) -> None:
        """Segments made or replaced, from where they continue the document; its row follows."""
        document = self._documents[number]
        first = number << SEGMENT_BITS
        appended = True
        for at in sorted(segments):
            old = document.segments.get(at)
            document.size += len(segments[at])
            self._octets += len(segments[at])
            if old is not None:
                document.size -= len(old)
                self._octets -= len(old)
                appended = appended and old == segments[at]
            elif appended:
                document.digest.update(segments[at])
            document.segments[at] = segments[at]
        shown = {at: octets if document.shown else MASK for at, octets in segments.items()}
        self._live.update(SEGMENTS, {first + at: {DATA: octets} for at, octets in shown.items()})
        if not appended:
            document.digest = hashlib.sha256(self.contents(number))
        document.touched = self._clock()
        self._live.update(
            DOCUMENTS,
            {
                number: {
                    "ipsecGwDocumentSize": document.size,
                    "ipsecGwDocumentSegments": len(document.segments),
                    "ipsecGwDocumentDigest": document.digest.digest(),
                }
            },
        )

    def _free(self) -> int:
        if len(self._documents) >= MOST_DOCUMENTS:
            return 0
        return next(number for number in range(1, HIGHEST + 1) if number not in self._documents)


def _contents(tlv: bytes) -> bytes:
    """Not through the cache of decoded values, which would keep whole uploads."""
    _, start, end = read_tlv(tlv)
    return tlv[start:end]


def _data(row: LiveRow) -> bytes:
    assert row.after is not None
    return _contents(row.after[row.table.by_name[DATA].position])
