"""The SNMP agent as a whole: sockets, guard, the two ways to `respond`, users, first start.

    server = SnmpServer(store, schema, SnmpSettings(listen=[("127.0.0.1", 1161)], state=folder))
    await server.start()
    ...
    await server.stop()

An exception in one datagram is logged and answered with genErr where there is somebody to
answer; the next datagram is read as if nothing had happened.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agent import __version__
from agent.mib.ber import BerError
from agent.mib.schema import Schema
from agent.snmp.access import communities, visibility
from agent.snmp.codec import encode_message, message_overhead
from agent.snmp.counters import Counters
from agent.snmp.engine import Engine3
from agent.snmp.guard import Guard, Known, Limits
from agent.snmp.identity import ensure_admin, take_identity, walk_command
from agent.snmp.inside import Inside
from agent.snmp.keychange import KeyChanges
from agent.snmp.loginkeys import LoginKeys, check_login_keys
from agent.snmp.passwords import Passwords
from agent.snmp.pdu import Answer, PduType, Request, Version, decode_pdu
from agent.snmp.respond import READS, Asker, Responder
from agent.snmp.sets import Sets
from agent.snmp.sockets import Endpoint, Way
from agent.snmp.sources import SourceLists
from agent.snmp.standard import standard_objects
from agent.snmp.standard.facts import Facts
from agent.snmp.strangers import AuthenticationFailures
from agent.snmp.tree import GivenObject, Tree
from agent.snmp.users import Users
from agent.store.errors import ErrorStatus
from agent.store.hooks import Origin
from agent.store.store import Store

log = logging.getLogger(__name__)

LARGEST_REPLY: Final = 65_507  # octets in a UDP datagram over IPv4
STOPPING: Final = 10.0  # seconds that SETs under way have to be answered in when the agent stops
V1_PDUS: Final = frozenset({0xA0, 0xA1, 0xA2, 0xA3, 0xA4})  # RFC 1157
TELLING: Final = 10.0  # seconds between looks at what was dropped


@dataclass(frozen=True, slots=True)
class SnmpSettings:
    """`listen`: numeric addresses with ports, 0 = any free port. `state`: folder for snmp.conf of the first start.
    Communities: none unless set."""

    listen: Sequence[tuple[str, int]]
    state: Path
    read_community: str | None = None
    write_community: str | None = None
    limits: Limits = field(default_factory=Limits)
    largest_reply: int = LARGEST_REPLY


class SnmpServer:
    """Serves a store by SNMP from `start` to `stop`. `refused` is told the text of every refused SET; `given` are
    objects beside the schema's and the standard ones."""

    def __init__(
        self,
        store: Store,
        schema: Schema,
        settings: SnmpSettings,
        *,
        refused: Callable[[str], None] = lambda text: None,
        given: Iterable[GivenObject] = (),
    ) -> None:
        self._store = store
        self._settings = settings
        self.counters = Counters()
        self.endpoints: list[Endpoint] = []
        self._communities = communities(settings.read_community, settings.write_community)
        taken = min(settings.limits.message_octets, LARGEST_REPLY)
        self.facts = Facts(store, __version__, taken, self._communities, self.counters)
        tree = Tree(schema, [*standard_objects(self.facts), *given], visibility)
        self._responder = Responder(schema, tree, store, refused, self.counters)
        self.sets = Sets(self._responder)
        self._passwords = Passwords()
        self._engine: Engine3 | None = None
        self._users: Users | None = None
        self._sources = SourceLists()
        self._login_keys = LoginKeys()
        self._inside: Inside | None = None
        self._strangers = AuthenticationFailures(store.events)
        self._expander: KeyChanges | None = None
        self._guard: Guard | None = None
        self._starting: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """On return every address answers. Raises ListenError, StoreError, Refused, OSError."""
        settings, limits = self._settings, self._settings.limits
        self._store.expanders.append(self._passwords)
        identity = await take_identity(self._store)
        await ensure_admin(self._store, settings.state)
        self.facts.identity = identity
        self._expander = KeyChanges(self._store.schema.columns, self._store.secrets, identity.engine_id)
        self._store.expanders.insert(0, self._expander)  # before what looks for passwords
        self._users = users = Users(self._store.secrets, identity.engine_id)
        self._guard = Guard(
            self._communities,
            users.by_name,
            limits,
            counters=self.counters,
            sources=self._sources,
            engine_id=identity.engine_id,
            suspicious=self._strangers.saw,
        )
        self._engine = engine = Engine3(
            identity,
            users.by_name,
            self._responder,
            self.sets,
            limits.varbinds,
            settings.largest_reply,
            self.counters,
            self.facts.uptime,
            self.facts.largest,
        )
        users.listen(engine.users_changed)
        self._inside = Inside(
            identity.engine_id,
            users.by_name,
            self._sources,
            self._login_keys,
            self._responder,
            self.sets,
            self.counters,
            limits,
            settings.largest_reply,
        )
        self._store.checks.append(check_login_keys)
        self._store.subscribe(self._login_keys, replay=True)
        self._store.subscribe(self._sources, replay=True)
        self._store.subscribe(users, replay=True)
        try:
            for host, port in settings.listen:
                self.endpoints.append(Endpoint(host, port))
        except BaseException:
            self._close()
            raise
        for endpoint in self.endpoints:
            endpoint.serve(limits.message_octets, self._handle)
        self._starting = asyncio.get_running_loop().create_task(engine.start(), name="snmp v3 engine")
        self._starting.add_done_callback(_log_failure)
        self._tell()

    async def stop(self) -> None:
        """Read nothing more, answer the SETs under way, close the sockets."""
        for endpoint in self.endpoints:
            endpoint.pause()
        try:
            await asyncio.wait_for(self.sets.finish(), STOPPING)
        except TimeoutError:
            log.warning("stopped while SETs were waiting for the store")
        if self._starting is not None:
            await asyncio.gather(self._starting, return_exceptions=True)
        self._close()

    def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._users is not None:
            self._store.unsubscribe(self._users)
            self._store.unsubscribe(self._sources)
            self._store.unsubscribe(self._login_keys)
            if check_login_keys in self._store.checks:
                self._store.checks.remove(check_login_keys)
        if self._passwords in self._store.expanders:
            self._store.expanders.remove(self._passwords)
        if self._expander in self._store.expanders:
            self._store.expanders.remove(self._expander)
        self._strangers.stop()
        if self._engine is not None:
            self._engine.stop()
        for endpoint in self.endpoints:
            endpoint.close()

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """What is listened on, with the ports that were taken."""
        return [(endpoint.host, endpoint.port) for endpoint in self.endpoints]

    @property
    def users(self) -> Users:
        """Known once it has started."""
        assert self._users is not None
        return self._users

    @property
    def inside(self) -> Inside:
        """For who is in this process; known once it has started."""
        assert self._inside is not None
        return self._inside

    def suspicious(self, source: str, why: str) -> None:
        """Somebody at this address failed to prove who he is, by other means than SNMP."""
        self._strangers.saw(source, why)

    @property
    def walk_command(self) -> str:
        """A line for the shell that walks this agent as the user made at first start."""
        host, port = self.addresses[0]
        return walk_command(self._settings.state, host, port)

    def _tell(self) -> None:
        if self._guard is not None:
            self.counters.unsent = sum(endpoint.unsent for endpoint in self.endpoints)
            self._guard.tell()
        self._timer = asyncio.get_running_loop().call_later(TELLING, self._tell)

    # ---- one datagram -----------------------------------------------------------------

    def _handle(self, data: bytes, way: Way) -> None:
        """Never raises."""
        try:
            assert self._guard is not None and self._engine is not None
            admitted = self._guard.admit(data, way.source_address)
            if admitted is None:
                return
            if isinstance(admitted, Known):
                self._handle_community(data, way, admitted)
            else:
                self._engine.handle(data, way, admitted)
        except BerError:
            self.counters.snmpInASNParseErrs += 1
        except Exception:
            self.counters.failures += 1
            log.exception("a datagram from %s could not be handled", way.source_address)

    def _handle_community(self, data: bytes, way: Way, known: Known) -> None:
        """A v1 or v2c message. Raises BerError."""
        request = decode_pdu(data, known.pdu, known.end, self._settings.limits.varbinds)
        limit = self._settings.largest_reply - message_overhead(known.community)
        asker = Asker(known.principal, known.version, limit)
        reply = _Reply(self, way, known, request)
        if request.kind in READS and not (request.kind == PduType.GETBULK and known.version == Version.V1):
            reply.send(self._responder.read(request, asker))
        elif request.kind == PduType.SET:
            origin = Origin("snmp", known.principal.name, way.source_address, way.local_address, way.loopback)
            self.sets.submit(request, asker, origin, way.source, reply)
        elif known.version == Version.V1 and request.kind not in V1_PDUS:
            raise BerError(f"PDU 0x{request.kind:02x} is not for SNMPv1")
        else:  # RFC 3412 section 4.2.2.1 (2)
            self.counters.snmpUnknownPDUHandlers += 1


class _Reply:
    """The way back to one v1 or v2c message."""

    __slots__ = ("_known", "_request", "_server", "_way")

    def __init__(self, server: SnmpServer, way: Way, known: Known, request: Request) -> None:
        self._server = server
        self._way = way
        self._known = known
        self._request = request

    def send(self, answer: Answer) -> None:
        known = self._known
        self._server.counters.answered(answer)
        try:
            message = encode_message(known.version, known.community, self._request.request_id, answer)
        except Exception:
            log.exception("an answer could not be encoded")
            failure = Answer(ErrorStatus.GEN_ERR, 0, self._request.body)
            message = encode_message(known.version, known.community, self._request.request_id, failure)
        self._server.counters.snmpOutPkts += 1
        self._way.send(message)

    def discard(self) -> None:
        """Nothing is kept for a message without session."""


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("SNMPv3 is not available", exc_info=error)
