"""What the agent answers to a PDU, once, for every way it can come in.

RFC 3416 sections 4.2.1 to 4.2.5, and for SNMPv1 the mapping of RFC 3584 section 4. Reads
are answered at once from the snapshots; a SET goes through the store's commit and is
answered when that is on disk. Error-index counts from 1; a SET that is refused echoes its
variable bindings.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol, cast

from agent.mib.ber import BerError, decode_contents, decode_oid_contents, read_tlv
from agent.mib.schema import Schema
from agent.snmp.access import Principal
from agent.snmp.counters import Counters
from agent.snmp.pdu import (
    END_OF_MIB_VIEW,
    NO_SUCH_INSTANCE,
    NO_SUCH_OBJECT,
    Answer,
    PduType,
    Request,
    VarBind,
    Version,
    encode_varbind,
    response_size,
)
from agent.snmp.standard.objects import Asked, StandardObject, Translation, Writer
from agent.snmp.tree import ColumnObject, ForeignObject, Reader, Tables, Tree
from agent.store import audit
from agent.store.edits import resolve
from agent.store.errors import ErrorStatus, Refused
from agent.store.hooks import Edit, Origin

log = logging.getLogger(__name__)

READS: Final = frozenset({PduType.GET, PduType.GETNEXT, PduType.GETBULK})
EXCEPTIONS: Final = frozenset({NO_SUCH_OBJECT, NO_SUCH_INSTANCE, END_OF_MIB_VIEW})

# RFC 3584 section 4.4; what is not listed is the same in SNMPv1.
V1_STATUS: Final[Mapping[int, ErrorStatus]] = {
    ErrorStatus.WRONG_VALUE: ErrorStatus.BAD_VALUE,
    ErrorStatus.WRONG_ENCODING: ErrorStatus.BAD_VALUE,
    ErrorStatus.WRONG_TYPE: ErrorStatus.BAD_VALUE,
    ErrorStatus.WRONG_LENGTH: ErrorStatus.BAD_VALUE,
    ErrorStatus.INCONSISTENT_VALUE: ErrorStatus.BAD_VALUE,
    ErrorStatus.NO_ACCESS: ErrorStatus.NO_SUCH_NAME,
    ErrorStatus.NOT_WRITABLE: ErrorStatus.NO_SUCH_NAME,
    ErrorStatus.NO_CREATION: ErrorStatus.NO_SUCH_NAME,
    ErrorStatus.INCONSISTENT_NAME: ErrorStatus.NO_SUCH_NAME,
    ErrorStatus.AUTHORIZATION_ERROR: ErrorStatus.NO_SUCH_NAME,
    ErrorStatus.RESOURCE_UNAVAILABLE: ErrorStatus.GEN_ERR,
    ErrorStatus.COMMIT_FAILED: ErrorStatus.GEN_ERR,
    ErrorStatus.UNDO_FAILED: ErrorStatus.GEN_ERR,
}

SMALLEST_VARBIND: Final = 7  # octets of a name of one octet with an exception: bounds what GETBULK can hold
CHUNK: Final = 256  # instances that GETBULK fetches of a repeater before it looks at the size again


class Committing(Protocol):
    """What respond needs of the store."""

    @property
    def view(self) -> Tables: ...
    async def commit(self, edits: Sequence[Edit], origin: Origin) -> Any:
        """Raises Refused."""


class Asker(NamedTuple):
    """On whose behalf a request is answered. `limit`: octets of the largest Response PDU that can go back."""

    principal: Principal
    version: int
    limit: int


class Responder:
    """Answers requests from a store. `refused` is told the text of every refused SET; `counters` are those of the
    snmp group."""

    def __init__(
        self,
        schema: Schema,
        tree: Tree,
        store: Committing,
        refused: Callable[[str], None] = lambda text: None,
        counters: Counters | None = None,
    ) -> None:
        self._schema = schema
        self._tree = tree
        self._store = store
        self._refused = refused
        self._counters = counters or Counters()
        self._advisory = asyncio.Lock()  # held by a SET with an advisory lock in it, from looking to moving it on

    # ---- reading ----------------------------------------------------------------------

    def read(self, request: Request, asker: Asker) -> Answer:
        """The answer to a GET, GETNEXT or GETBULK. Raises BerError where a name is no object identifier, on which the
        message is dropped."""
        self._counters.asked(request.kind)
        try:
            if request.crowded:
                return too_big(request, asker)
            if request.kind == PduType.GETBULK:
                return self._bulk(request, asker)
            values = self._get(request, asker) if request.kind == PduType.GET else self._next(request, asker)
            if asker.version == Version.V1:
                for at, (_, value) in enumerate(values):
                    if value in EXCEPTIONS:
                        return Answer(ErrorStatus.NO_SUCH_NAME, at + 1, request.body)
            body = b"".join([encode_varbind(name, value) for name, value in values])
        except BerError:
            raise
        except Exception:
            log.exception("a request could not be answered")
            return Answer(ErrorStatus.GEN_ERR, 0, request.body)
        if response_size(request.request_id, len(body)) > asker.limit:
            return too_big(request, asker)
        self._counters.snmpInTotalReqVars += len(values)
        return Answer(ErrorStatus.NO_ERROR, 0, body)

    def _get(self, request: Request, asker: Asker) -> list[VarBind]:
        reader = _reader(asker)
        get, tables = self._tree.get, self._store.view
        return [(name, get(tables, name, reader)) for name, _ in request.varbinds]

    def _next(self, request: Request, asker: Asker) -> list[VarBind]:
        reader = _reader(asker)
        return [self._successor(name, reader) for name, _ in request.varbinds]

    def _successor(self, name: bytes, reader: Reader) -> VarBind:
        found = self._tree.run(self._store.view, self._tree.place(name), 1, reader)
        return found[0] if found else (name, END_OF_MIB_VIEW)

    def _bulk(self, request: Request, asker: Asker) -> Answer:
        """RFC 3416 section 4.2.3: as many variable bindings as fit, none of them cut; repetitions end with the first
        that has nothing but endOfMibView."""
        reader = _reader(asker)
        room = asker.limit - response_size(request.request_id, 0)
        single = min(max(request.first, 0), len(request.varbinds))
        encoded = [encode_varbind(*self._successor(name, reader)) for name, _ in request.varbinds[:single]]
        repeaters = [name for name, _ in request.varbinds[single:]]
        if repeaters:
            repetitions = min(max(request.second, 0), max(room, 0) // (SMALLEST_VARBIND * len(repeaters)) + 1)
            encoded += self._repeated(repeaters, repetitions, room, reader)
        size = 0
        for at, varbind in enumerate(encoded):
            size += len(varbind)
            if size > room:
                del encoded[at:]
                break
        self._counters.snmpInTotalReqVars += len(encoded)
        return Answer(ErrorStatus.NO_ERROR, 0, b"".join(encoded))

    def _repeated(self, names: Sequence[bytes], repetitions: int, room: int, reader: Reader) -> list[bytes]:
        """Variable bindings of the repeaters, repetition by repetition; what is beyond `room` may be missing."""
        runs = [self._run(name, repetitions, room, reader) for name in names]
        if len(runs) == 1:
            rows, end = runs[0]
            return rows if len(rows) == repetitions else [*rows, end]
        encoded: list[bytes] = []
        for repetition in range(repetitions):
            encoded += [rows[repetition] if repetition < len(rows) else end for rows, end in runs]
            if all(repetition >= len(rows) for rows, _ in runs):
                break
        return encoded

    def _run(self, name: bytes, count: int, room: int, reader: Reader) -> tuple[list[bytes], bytes]:
        """Up to `count` instances behind a name, and the binding that stands for those that are missing. It stops
        when the instances alone fill the room."""
        tree, tables = self._tree, self._store.view
        place = tree.place(name)
        rows: list[bytes] = []
        size = 0
        while len(rows) < count and size <= room:
            wanted = min(count - len(rows), CHUNK)
            found = tree.run(tables, place, wanted, reader)
            if found:
                encoded = [encode_varbind(*varbind) for varbind in found]
                rows += encoded
                size += sum(map(len, encoded))
                name = found[-1][0]
                place = tree.place(name)
            if len(found) < wanted:
                break
        return rows, encode_varbind(name, END_OF_MIB_VIEW)

    # ---- writing ----------------------------------------------------------------------

    async def write(self, request: Request, asker: Asker, origin: Origin) -> Answer:
        """The answer to a SET, once it is stored or refused. Never raises but BerError, before anything is done."""
        self._counters.asked(request.kind)
        if request.crowded or response_size(request.request_id, len(request.body)) > asker.limit:
            return too_big(request, asker)  # before it is carried out: afterwards nobody would hear of it
        try:
            translation = self._translated(request, asker, origin)
            async with self._advisory if translation.exclusive else contextlib.nullcontext():
                if translation.exclusive:
                    translation = self._translated(request, asker, origin)  # somebody may have been at the lock
                await self._commit(translation)
        except Refused as refused:
            self._refused(refused.text)
            return failed(request, asker, refused.status, refused.edit + 1)
        except BerError:
            raise
        except Exception:
            log.exception("a SET could not be carried out")
            return failed(request, asker, ErrorStatus.GEN_ERR, 0)
        self._counters.snmpInTotalSetVars += len(request.varbinds)
        return Answer(ErrorStatus.NO_ERROR, 0, request.body)

    async def _commit(self, translation: Translation) -> None:
        """Raises Refused, which names the variable binding."""
        if translation.edits:
            try:
                await self._store.commit(translation.edits, translation.origin)
            except Refused as refused:
                if refused.edit < 0:
                    raise
                raise Refused(refused.status, translation.places[refused.edit], refused.text) from None
        for done in translation.done:
            done()

    def _translated(self, request: Request, asker: Asker, origin: Origin) -> Translation:
        try:
            return self.translate(request, asker.principal, origin)
        except Refused as refused:
            audit.refused(refused, origin)  # what commit refuses, the store puts into the log itself
            if refused.status in (ErrorStatus.NO_ACCESS, ErrorStatus.AUTHORIZATION_ERROR):
                self._counters.snmpInBadCommunityUses += asker.version != Version.V3
            raise

    def translate(self, request: Request, principal: Principal, origin: Origin) -> Translation:
        """Every variable binding as Edits: those of the schema in their order, then what the writers of standard
        objects make of theirs. Raises Refused, and BerError for what is no object identifier."""
        if not principal.may_write:  # noSuchView, RFC 3413 section 3.2 (5)
            raise Refused(ErrorStatus.AUTHORIZATION_ERROR, -1, f"{principal.name} may only read")
        into = Translation(principal, origin)
        written: dict[int, tuple[Writer, list[Asked]]] = {}
        for at, (name, value) in enumerate(request.varbinds):
            found = self._edit(at, name, value, principal, origin)
            if isinstance(found, Edit):
                into.add(at, found)
                continue
            writer = found.target.writer
            assert writer is not None
            written.setdefault(id(writer), (writer, []))[1].append(found)
        for writer, asked in written.values():
            writer.translate(asked, into)
        return into

    def _edit(self, at: int, name: bytes, tlv: bytes, principal: Principal, origin: Origin) -> Edit | Asked:
        found, arcs = self._tree.find(name)
        oid = decode_oid_contents(name)
        if self._tree.hides(name) if found is None else not found.writers & principal.bit:
            text = f"{'.'.join(map(str, oid))}: not in what {principal.name} may write"
            raise Refused(ErrorStatus.NO_ACCESS, at, text)
        if isinstance(found, ColumnObject) and not found.column.writable:  # whatever the instance, 4.2.5 (2)
            raise Refused(ErrorStatus.NOT_WRITABLE, at, f"{found.column.name}: is read-only")
        tag, start, end = read_tlv(tlv)
        if isinstance(found, ForeignObject):
            return _asked(at, found, arcs, tag, tlv[start:end])
        try:
            value = decode_contents(tag, tlv[start:end])
        except BerError as error:
            try:
                return resolve(self._schema, at, oid, tag, tlv[start:end], origin)
            except Refused as refused:
                if refused.status is not ErrorStatus.WRONG_TYPE or tag != self._wire(oid):
                    raise
                raise Refused(ErrorStatus.WRONG_ENCODING, at, f"{refused.text}: {error}") from None
        return resolve(self._schema, at, oid, tag, value, origin)

    def _wire(self, oid: tuple[int, ...]) -> int:
        column = self._schema.by_oid.get(oid[:-1])
        return -1 if column is None else column.wire


def _asked(at: int, found: ForeignObject, arcs: tuple[int, ...], tag: int, contents: bytes) -> Asked:
    """A variable binding for the writer of an object. Raises Refused, in the order of 4.2.5."""
    target = found.given
    name = ".".join(map(str, (*target.oid, *arcs)))
    if getattr(target, "writer", None) is None:
        raise Refused(ErrorStatus.NOT_WRITABLE, at, f"{getattr(target, 'name', name)}: is read-only")
    standard = cast(StandardObject, target)
    asked = Asked(at, standard, arcs, b"")
    if tag != standard.wire:
        raise asked.refusal(ErrorStatus.WRONG_TYPE, "another type is sent", standard.wire.name.replace("_", " "))
    try:
        return asked._replace(value=decode_contents(tag, contents))
    except BerError as error:
        raise asked.refusal(ErrorStatus.WRONG_ENCODING, str(error)) from None


def _reader(asker: Asker) -> Reader:
    return Reader(asker.principal.bit, asker.version != Version.V1)


def too_big(request: Request, asker: Asker) -> Answer:
    """tooBig: without variable bindings (RFC 3416), in SNMPv1 with those of the request (RFC 1157)."""
    return Answer(ErrorStatus.TOO_BIG, 0, request.body if asker.version == Version.V1 else b"")


def failed(request: Request, asker: Asker, status: int, index: int) -> Answer:
    """A refused SET: the request's variable bindings, the status in the words of the version that asked."""
    if asker.version == Version.V1:
        status = V1_STATUS.get(status, status)
    return Answer(status, index, request.body)
