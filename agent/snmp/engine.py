"""SNMPv3 through pysnmp: messages go in, `respond` answers their PDUs, messages come out.

pysnmp does the message and its security; the PDU it has decoded is encoded again and taken
apart by our decoder, and our encoded answer goes back as it is, so that the answer is the
same octets whichever way a request came, and long answers are not built by pyasn1.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from agent.mib.ber import BerError
from agent.snmp.counters import Counters
from agent.snmp.guard import Version3
from agent.snmp.identity import Identity
from agent.snmp.pdu import Answer, PduType, Request, Version, decode_pdu, response_contents
from agent.snmp.respond import READS, Asker, Responder, failed
from agent.snmp.sets import Sets
from agent.snmp.uptime import Uptime
from agent.snmp.usm import ENCRYPTED, User
from agent.store.errors import ErrorStatus
from agent.store.hooks import Origin

if TYPE_CHECKING:
    from pysnmp.entity.engine import SnmpEngine

log = logging.getLogger(__name__)

DOMAIN: Final = (1, 3, 6, 1, 6, 1, 1)  # snmpUDPDomain; only a name here
MODEL: Final = 3  # of message processing and of security: SNMPv3 and USM
AUTH_PRIV: Final = 3
WAITING: Final = 256  # messages that come while pysnmp is still being imported
TICK: Final = 1.0  # seconds between pysnmp's timer ticks
SCOPED_PDU_OCTETS: Final = 48  # scopedPDU without PDU, engine ID and context: tags, lengths, padding of ciphers
MESSAGE_OCTETS: Final = 350  # an SNMPv3 message around its PDU at most: headers, 32 octets engine ID twice, 48 digest


class Peer(Protocol):
    """Where a datagram came from, and the way back. Hashable."""

    @property
    def source(self) -> object: ...
    @property
    def source_address(self) -> str: ...
    @property
    def local_address(self) -> str: ...
    @property
    def loopback(self) -> bool: ...
    def send(self, message: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class Datagram:
    """A message that the guard has admitted."""

    data: bytes
    peer: Peer
    admitted: Version3


class Engine3:
    """SNMPv3 of one agent. `users` is the mapping by name of users.py; call `users_changed` when it did."""

    def __init__(
        self,
        identity: Identity,
        users: Mapping[bytes, User],
        responder: Responder,
        sets: Sets,
        varbinds: int,
        largest: int,
        counters: Counters | None = None,
        uptime: Uptime | None = None,
        largest_taken: int = 65_507,
    ) -> None:
        self._identity = identity
        self._users = users
        self._responder = responder
        self._sets = sets
        self._varbinds = varbinds
        self._largest = largest
        self._counters = counters or Counters()
        self._uptime = uptime or Uptime()
        self._largest_taken = largest_taken
        self._engine: SnmpEngine | None = None
        self._known: dict[str, User] = {}
        self._waiting: list[Datagram] = []
        self._now: Datagram | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Import pysnmp and make its engine, in a thread: this takes a while on a small machine, and the sockets
        are open already."""
        engine = await asyncio.get_running_loop().run_in_executor(None, self._made)
        from pysnmp.proto import rfc1905

        kinds = (rfc1905.GetRequestPDU, rfc1905.GetNextRequestPDU, rfc1905.GetBulkRequestPDU, rfc1905.SetRequestPDU)
        engine.message_dispatcher.register_context_engine_id(
            engine.snmpEngineID, tuple(kind.tagSet for kind in kinds), self._process
        )
        self._engine = engine
        self.users_changed()
        self._tick()
        waiting, self._waiting = self._waiting, []
        for datagram in waiting:
            self.handle(datagram.data, datagram.peer, datagram.admitted)

    def _made(self) -> SnmpEngine:
        from agent.snmp.pysnmp_parts import make_engine

        engine_id, boots = self._identity
        return make_engine(engine_id, boots, self._uptime, self._counters, self._largest_taken)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._engine = None

    def _tick(self) -> None:
        if self._engine is not None:
            self._engine.transport_dispatcher.tick()
            self._timer = asyncio.get_running_loop().call_later(TICK, self._tick)

    def users_changed(self) -> None:
        """Bring pysnmp's users up to date."""
        if self._engine is None:
            return
        from agent.snmp.pysnmp_parts import add_user, remove_user

        wanted = {user.name: user for user in self._users.values()}
        for name, user in list(self._known.items()):
            if wanted.get(name) != user:
                remove_user(self._engine, name)
                del self._known[name]
        for name, user in wanted.items():
            if name not in self._known:
                add_user(self._engine, user)
                self._known[name] = user

    def handle(self, data: bytes, peer: Peer, admitted: Version3) -> None:
        """Take a message. It is answered through `peer`, at once or, for a SET, later. Never raises."""
        datagram = Datagram(data, peer, admitted)
        if self._engine is None:
            if len(self._waiting) < WAITING:
                self._waiting.append(datagram)
            return
        self._now = datagram
        self._engine.security_models[MODEL].elsewhere = admitted.elsewhere
        try:
            self._engine.message_dispatcher.receive_message(
                self._engine, DOMAIN, _CountedWay(peer, self._counters), data
            )
        except Exception as error:  # pysnmp raises what it likes for what it cannot read
            log.debug("an SNMPv3 message from %s was dropped: %r", peer.source_address, error)
        finally:
            self._now = None

    # ---- what pysnmp calls ------------------------------------------------------------

    def _process(
        self,
        _engine: Any,
        _processing_model: Any,
        _security_model: Any,
        security_name: Any,
        security_level: int,
        _context_engine_id: Any,
        context_name: Any,
        _pdu_version: Any,
        pdu: Any,
        largest_scoped_pdu: int,
        state: int,
    ) -> None:
        """A request whose sender is known (RFC 3413 section 3.2)."""
        datagram = self._now
        assert datagram is not None
        reply = _Reply3(self, state)
        try:
            request = _request(pdu, self._varbinds)
        except BerError:
            reply.discard()
            return
        reply.request = request
        if context_name.asOctets():
            self._unknown_context(state, pdu)
            return
        user = self._users.get(security_name.asOctets()) if security_name else None
        around = len(self._identity.engine_id) + SCOPED_PDU_OCTETS
        limit = min(int(largest_scoped_pdu) - around, self._largest - MESSAGE_OCTETS)
        if user is None or datagram.admitted.user is None:  # nothing is for those who prove nothing
            answer = Answer(ErrorStatus.AUTHORIZATION_ERROR, 0, request.body)
            reply.send(answer)
            return
        asker = Asker(user.principal, Version.V3, limit)
        if request.kind in READS:
            try:
                answer = self._responder.read(request, asker)
            except BerError:
                reply.discard()
                return
            reply.send(answer)
        elif request.kind == PduType.SET:
            peer = datagram.peer
            private = bool(datagram.admitted.header.flags & ENCRYPTED) and security_level == AUTH_PRIV
            origin = Origin("snmp", user.name, peer.source_address, peer.local_address, private or peer.loopback)
            self._sets.submit(request, asker, origin, peer.source, reply, datagram.data)
        else:
            reply.send(failed(request, asker, ErrorStatus.GEN_ERR, 0))

    def _unknown_context(self, state: int, pdu: Any) -> None:
        """The report of snmpUnknownContexts: there is one context, the one without a name."""
        assert self._engine is not None
        (counter,) = self._engine.get_mib_builder().import_symbols("__SNMP-TARGET-MIB", "snmpUnknownContexts")
        counter.syntax += 1
        self._return(state, pdu, {"oid": counter.name, "val": counter.syntax})

    def respond(self, state: int, request: Request, answer: Answer) -> None:
        """Send an answer to the message that `state` stands for."""
        self._counters.answered(answer)
        from agent.snmp.pysnmp_parts import RawResponse

        self._return(state, RawResponse(response_contents(request.request_id, answer)), {})

    def _return(self, state: int, pdu: Any, status: dict[str, Any]) -> None:
        if self._engine is None:
            return
        try:
            self._engine.message_dispatcher.return_response_pdu(
                self._engine, MODEL, MODEL, None, 1, None, b"", 1, pdu, 0, state, status
            )
        except Exception:
            log.exception("an SNMPv3 answer could not be sent")

    def release(self, state: int) -> None:
        """Let go of what pysnmp keeps for a message that nobody will answer."""
        if self._engine is None:
            return
        try:
            kept = self._engine.message_processing_subsystems[MODEL]._cache.pop_by_state_reference(state)
            self._engine.security_models[MODEL].release_state_information(kept["securityStateReference"])
        except Exception as error:
            log.debug("no state of an SNMPv3 message to let go of: %r", error)


@dataclass(frozen=True, slots=True)
class _CountedWay:
    """The way back, on which responses and reports are counted."""

    peer: Peer
    counters: Counters = field(compare=False)

    def send(self, message: bytes) -> None:
        self.counters.snmpOutPkts += 1
        self.peer.send(message)


class _Reply3:
    """The way back to one SNMPv3 message."""

    def __init__(self, engine: Engine3, state: int) -> None:
        self._engine = engine
        self._state = state
        self.request: Request | None = None

    def send(self, answer: Answer) -> None:
        assert self.request is not None
        self._engine.respond(self._state, self.request, answer)

    def discard(self) -> None:
        self._engine.release(self._state)


def _request(pdu: Any, limit: int) -> Request:
    """The request of a PDU that pysnmp has decoded. Raises BerError."""
    from pyasn1.codec.ber import encoder

    data = encoder.encode(pdu)
    return decode_pdu(data, 0, len(data), limit)
