"""Managers inside the agent: the third way to `respond`, for whoever has proved to be a user by other means than SNMP.

A person who logs in over SSH proves who he is with the authentication password of his SNMP
user, from which the key is made and compared as SNMPv3 makes it (RFC 3414 A.2), or with a
public key of ipsecGwLoginKeyTable. From then on requests are answered as if they had come
in messages of that user: same PDUs, same views, same limits, same audit. No password and
no key of SNMP is kept for it, and a public key needs none.

What a login stands on is looked at again with every request: a user who is removed, put
into another level or given another password is asked to log in again, as SNMPv3's next
message would be refused.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from agent.mib.ber import BerError, encode_tlv
from agent.snmp.access import Level, Principal
from agent.snmp.client.errors import SnmpError
from agent.snmp.client.messages import encode_pdu
from agent.snmp.client.session import Response
from agent.snmp.counters import Counters
from agent.snmp.guard import Limits
from agent.snmp.loginkeys import LoginKeys
from agent.snmp.pdu import Answer, PduType, Request, VarBind, Version, decode_pdu, response_contents
from agent.snmp.respond import READS, Asker, Responder
from agent.snmp.sets import Sets
from agent.snmp.sources import SourceLists
from agent.snmp.usm import User, key_of_passphrase, localized
from agent.store.errors import ErrorStatus
from agent.store.hooks import Origin

LONGEST_PASSWORD: Final = 1024  # octets; SNMP's fit into an object of 255
KEYS_AT_ONCE: Final = 2  # made of passwords, each some milliseconds of a processor
NOBODYS_HASH: Final = "sha256"  # an unknown user costs what a known one does
MOST_NUMBER: Final = (1 << 31) - 1  # of request-id
MOST_VARBINDS: Final = 1 << 16  # in an answer


@dataclass(frozen=True, slots=True)
class Login:
    """Somebody who has proved to be a user. `proof`: the user's key Kul, or the public key. `source`: address that he
    comes from."""

    principal: Principal
    row: int
    source: str
    by_key: bool
    proof: bytes = field(repr=False)

    @property
    def name(self) -> str:
        return self.principal.name

    @property
    def administers(self) -> bool:
        return self.principal.level is Level.ADMIN


class Inside:
    """All of it on the agent's event loop."""

    def __init__(
        self,
        engine_id: bytes,
        users: Mapping[bytes, User],
        sources: SourceLists,
        keys: LoginKeys,
        responder: Responder,
        sets: Sets,
        counters: Counters,
        limits: Limits,
        largest_reply: int,
    ) -> None:
        self._engine_id, self._users, self._sources, self._keys = engine_id, users, sources, keys
        self._responder, self._sets, self._counters = responder, sets, counters
        self._limits, self._largest = limits, largest_reply
        self._making = asyncio.Semaphore(KEYS_AT_ONCE)
        self._number = 0

    # ---- who it is --------------------------------------------------------------------

    async def by_password(self, name: str, password: str, source: str) -> Login | None:
        """The user whose authentication password this is, where he may come from that address. It takes as long for
        a user that there is not."""
        octets = password.encode("utf-8", "surrogateescape")
        if not 0 < len(octets) <= LONGEST_PASSWORD:
            return None
        user = self._user(name, source)
        if user is not None and user.authentication is None:
            user = None
        hash_name = user.authentication.hash if user is not None and user.authentication else NOBODYS_HASH
        async with self._making:
            master = await asyncio.to_thread(key_of_passphrase, octets, hash_name)
        key = localized(master, self._engine_id, hash_name)
        right = hmac.compare_digest(key, user.auth_key if user is not None else bytes(len(key)))
        return Login(user.principal, user.row, source, False, key) if user is not None and right else None

    def by_key(self, name: str, key: bytes, source: str) -> Login | None:
        """The user that a public key belongs to; that whoever shows it has the private one is the caller's to see."""
        user = self._user(name, source)
        if user is None or not self._keys.has(user.row, key):
            return None
        return Login(user.principal, user.row, source, True, key)

    def still(self, login: Login) -> bool:
        """Whether what a login stands on is as it was."""
        user = self._user(login.name, login.source)
        if user is None or user.principal != login.principal or user.row != login.row:
            return False
        if login.by_key:
            return self._keys.has(user.row, login.proof)
        return hmac.compare_digest(user.auth_key, login.proof)

    def _user(self, name: str, source: str) -> User | None:
        user = self._users.get(name.encode("utf-8", "surrogateescape"))
        return user if user is not None and self._sources.admits(user.sources, source) else None

    # ---- what he asks -----------------------------------------------------------------

    async def request(
        self, login: Login, kind: PduType, varbinds: Sequence[VarBind], first: int = 0, second: int = 0
    ) -> Response:
        """As SnmpClient's session. Raises SnmpError."""
        if not self.still(login):
            raise SnmpError(f"user {login.name} is not what it was at the login; log in again")
        self._number = self._number % MOST_NUMBER + 1
        pdu = encode_pdu(kind, self._number, varbinds, first, second)
        if len(pdu) > self._limits.message_octets:
            return Response(ErrorStatus.TOO_BIG, 0, [])
        try:
            request = decode_pdu(pdu, 0, len(pdu), self._limits.varbinds)
            answer = await self._answer(login, kind, request)
        except BerError as error:
            raise SnmpError(f"a name is no object identifier: {error}") from None
        self._counters.answered(answer)
        response = encode_tlv(PduType.RESPONSE, response_contents(request.request_id, answer))
        return Response(*answer[:2], decode_pdu(response, 0, len(response), MOST_VARBINDS).varbinds)

    async def _answer(self, login: Login, kind: PduType, request: Request) -> Answer:
        """Raises BerError, SnmpError."""
        asker = Asker(login.principal, Version.V3, self._largest)
        if kind in READS:
            return self._responder.read(request, asker)
        if kind != PduType.SET:
            raise SnmpError(f"a manager does not send {kind.name}")
        # No local address: this SET came by no datagram, whose flow it could cut. The TCP connection that it did come
        # by is one of those that are looked at anyway.
        origin = Origin("snmp", login.name, login.source, secure=True)
        reply = _Reply(asyncio.get_running_loop().create_future())
        self._sets.submit(request, asker, origin, self, reply)
        return await reply.answer


class _Reply:
    """The way back to one SET."""

    __slots__ = ("answer",)

    def __init__(self, answer: asyncio.Future[Answer]) -> None:
        self.answer = answer

    def send(self, answer: Answer) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)

    def discard(self) -> None:
        if not self.answer.done():
            self.answer.set_exception(SnmpError("the SET was not carried out"))
