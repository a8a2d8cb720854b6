"""Requests and their answers over one UDP socket: numbering, retries, discovery, reports.

Values are not looked into here: names are contents octets and values TLVs, as in pdu.py. A
retry is a new message with the same request-id, so that an agent which carries out the
first one late sees that it is the same SET.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from agent.mib.ber import BerError, decode_oid_contents
from agent.snmp.client.credentials import NONE, Credentials, UsmUser
from agent.snmp.client.errors import NoAnswer, Oid, Reported, SnmpError
from agent.snmp.client.messages import CommunityMessages, Incoming, Messages, UserMessages, encode_pdu
from agent.snmp.pdu import PduType, Request, VarBind, Version, decode_pdu

REPORT: Final = 0xA8
MOST_NUMBER: Final = (1 << 31) - 1  # of request-id and msgID
MOST_VARBINDS: Final = 1 << 16  # in an answer; a datagram cannot hold more
GROWTH: Final = 2.0  # each wait is so many times the one before, unless told otherwise
RESYNCHRONISED: Final = 3  # times that one request may learn the engine's identity or time

USM_STATS: Final = (1, 3, 6, 1, 6, 3, 15, 1, 1)
NOT_IN_TIME_WINDOWS: Final = (*USM_STATS, 2)
UNKNOWN_ENGINE_IDS: Final = (*USM_STATS, 4)
REPORTS: Final[dict[Oid, str]] = {
    (*USM_STATS, 1): "the agent does not do this security level for the user",
    NOT_IN_TIME_WINDOWS: "the agent's clock cannot be followed",
    (*USM_STATS, 3): "the agent does not know the user",
    UNKNOWN_ENGINE_IDS: "the agent's engine ID changes",
    (*USM_STATS, 5): "the authentication password or protocol is wrong",
    (*USM_STATS, 6): "the privacy password or protocol is wrong",
    (1, 3, 6, 1, 6, 3, 11, 2, 1, 1): "the agent does not know the security model",
    (1, 3, 6, 1, 6, 3, 11, 2, 1, 2): "the agent takes the message for invalid",
    (1, 3, 6, 1, 6, 3, 11, 2, 1, 3): "the agent does not do this kind of request",
    (1, 3, 6, 1, 6, 3, 12, 1, 4): "the agent's context is not available",
    (1, 3, 6, 1, 6, 3, 12, 1, 5): "the agent does not know the context",
}
"""By the counter that a report names, without instance (RFC 3414 section 5, RFC 3412 section 5, RFC 3413)."""


class Response(NamedTuple):
    """error-status, error-index from 1, and the variable bindings."""

    status: int
    error_index: int
    varbinds: list[VarBind]


@dataclass(slots=True, eq=False)
class _Exchange:
    """A request under way. `messages`: numbers of all messages it went out in."""

    request_id: int
    answer: asyncio.Future[tuple[Incoming, Request]]
    messages: set[int] = field(default_factory=set)


class Asking(Protocol):
    """What a client needs of a session: this one, or one that needs no messages. `target`: who is asked, for
    people; `retries`: after the first message."""

    target: str
    retries: int
    version: Version

    async def request(
        self, kind: PduType, varbinds: Sequence[VarBind], first: int = 0, second: int = 0
    ) -> Response: ...
    def close(self) -> None: ...


class Session:
    """Made by `open`; requests may be under way at the same time. `wait`: seconds that the first one takes, each
    later one `growth` times the one before. `engine_id`: that of the other side, found out where it is not given;
    `context_engine_id`: whose objects are spoken of, the other side's unless given."""

    def __init__(
        self,
        target: str,
        credentials: Credentials,
        wait: float,
        retries: int,
        growth: float = GROWTH,
        engine_id: bytes = b"",
        context_engine_id: bytes = b"",
    ) -> None:
        self.target = target
        self.wait = wait
        self.retries = retries
        self._growth = growth
        self.version: Version = Version.V3 if isinstance(credentials, UsmUser) else credentials.version
        self._messages: Messages = (
            UserMessages(credentials) if isinstance(credentials, UsmUser) else CommunityMessages(credentials)
        )
        if isinstance(self._messages, UserMessages):
            self._messages.context_engine_id = context_engine_id
            if engine_id:
                self._messages.set_engine(engine_id)
        self._transport: asyncio.DatagramTransport | None = None
        self._exchanges: dict[int, _Exchange] = {}
        self._number = secrets.randbelow(MOST_NUMBER)
        self._discovering = asyncio.Lock()
        self._trouble = ""

    @classmethod
    async def open(
        cls,
        host: str,
        port: int,
        credentials: Credentials,
        *,
        wait: float = 1.0,
        retries: int = 4,
        growth: float = GROWTH,
        engine_id: bytes = b"",
        context_engine_id: bytes = b"",
    ) -> Session:
        """A socket towards the agent; nothing is sent yet. Raises SnmpError where the host is unknown."""
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        session = cls(target, credentials, wait, retries, growth, engine_id, context_engine_id)
        loop = asyncio.get_running_loop()
        try:
            session._transport, _ = await loop.create_datagram_endpoint(
                lambda: _Datagrams(session), remote_addr=(host, port)
            )
        except OSError as error:
            raise SnmpError(f"{target}: {error.strerror or error}") from None
        return session

    @property
    def source(self) -> str:
        """The address that it sends from."""
        return str(self._transport.get_extra_info("sockname")[0]) if self._transport is not None else ""

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
        for exchange in self._exchanges.values():
            exchange.answer.cancel()

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self.close()

    # ---- requests ---------------------------------------------------------------------

    async def request(self, kind: PduType, varbinds: Sequence[VarBind], first: int = 0, second: int = 0) -> Response:
        """What the agent answers, whatever its error-status. Raises NoAnswer, Reported."""
        messages = self._messages
        if isinstance(messages, UserMessages) and not messages.engine_id:
            async with self._discovering:
                if not messages.engine_id:
                    await self._discover(messages)
        exchange = self._exchange()
        pdu = encode_pdu(kind, exchange.request_id, varbinds, first, second)
        learnt = 0
        try:
            while True:
                incoming, reply = await self._answered(exchange, messages, pdu)
                if reply.kind == PduType.RESPONSE:
                    return Response(reply.first, reply.second, reply.varbinds)
                learnt += 1
                self._reported(messages, incoming, reply, learnt)
                exchange.answer = asyncio.get_running_loop().create_future()
        finally:
            del self._exchanges[exchange.request_id]

    async def _discover(self, messages: UserMessages) -> None:
        """Learn the engine ID (RFC 3414 section 4); the time follows with the first answer. Raises NoAnswer."""
        exchange = self._exchange()
        try:
            pdu = encode_pdu(PduType.GET, exchange.request_id, ())
            incoming, _ = await self._answered(exchange, messages, pdu)
            if not incoming.engine_id:
                raise SnmpError(f"{self.target} says no engine ID")
            messages.set_engine(incoming.engine_id)
        finally:
            del self._exchanges[exchange.request_id]

    async def _answered(self, exchange: _Exchange, messages: Messages, pdu: bytes) -> tuple[Incoming, Request]:
        """Send until something comes back."""
        wait = self.wait
        for _ in range(self.retries + 1):
            message_id = self._next()
            exchange.messages.add(message_id)
            if isinstance(messages, UserMessages) and not messages.engine_id:
                self._send(messages.discovery(message_id, pdu))
            else:
                self._send(messages.protect(message_id, pdu))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):  # wait_for of Python 3.11 loses a cancellation that meets the answer
                    return await asyncio.shield(exchange.answer)
            wait *= self._growth
        why = self._trouble
        if isinstance(messages, UserMessages) and messages.user.privacy != NONE and messages.boots and not why:
            why = "it is there; a wrong privacy password or protocol is met with silence by some agents"
        raise NoAnswer(f"no answer from {self.target}" + (f" ({why})" if why else ""))

    def _reported(self, messages: Messages, incoming: Incoming, report: Request, times: int) -> None:
        """Learn from a report, or raise Reported."""
        try:
            counter = decode_oid_contents(report.varbinds[0][0]) if report.varbinds else ()
        except BerError:
            counter = ()
        known = counter if counter in REPORTS else counter[:-1]
        if isinstance(messages, UserMessages) and times <= RESYNCHRONISED:
            if known == NOT_IN_TIME_WINDOWS and incoming.level:
                return  # its authenticated time has been learnt already
            if known == UNKNOWN_ENGINE_IDS and incoming.engine_id != messages.engine_id:
                messages.set_engine(incoming.engine_id)
                return
        raise Reported(f"{self.target}: {REPORTS.get(known, 'report ' + '.'.join(map(str, counter)))}", known)

    def _exchange(self) -> _Exchange:
        number = self._next()
        while number in self._exchanges:
            number = self._next()
        made = self._exchanges[number] = _Exchange(number, asyncio.get_running_loop().create_future())
        return made

    def _next(self) -> int:
        self._number = self._number % MOST_NUMBER + 1
        return self._number

    # ---- datagrams --------------------------------------------------------------------

    def _send(self, message: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            raise SnmpError("the session is closed")
        self._transport.sendto(message)

    def received(self, data: bytes) -> None:
        """A datagram of the agent, or of somebody who says so; what does not fit is dropped."""
        try:
            incoming = self._messages.open(data)
            reply = decode_pdu(incoming.data, incoming.start, incoming.end, MOST_VARBINDS)
        except BerError:
            return
        exchange = self._asked(incoming, reply)
        if exchange is not None and not exchange.answer.done():
            self._trouble = ""
            exchange.answer.set_result((incoming, reply))

    def _asked(self, incoming: Incoming, reply: Request) -> _Exchange | None:
        """The request that a message answers: an answer as secure as what was asked, or a report."""
        request_id = int.from_bytes(reply.request_id[2:], "big", signed=True)
        if not isinstance(self._messages, UserMessages):
            return self._exchanges.get(request_id) if reply.kind == PduType.RESPONSE else None
        if reply.kind == REPORT:
            return next((e for e in self._exchanges.values() if incoming.message_id in e.messages), None)
        exchange = self._exchanges.get(request_id)
        if exchange is None or reply.kind != PduType.RESPONSE or incoming.message_id not in exchange.messages:
            return None
        return exchange if incoming.level == self._messages.user.level else None

    def failed(self, error: OSError) -> None:
        """The system says that a datagram did not arrive; the retries go on, since an agent may be starting."""
        self._trouble = error.strerror or str(error)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, session: Session) -> None:
        self._session = session

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._session.received(data)

    def error_received(self, exc: Exception) -> None:
        if isinstance(exc, OSError):
            self._session.failed(exc)
