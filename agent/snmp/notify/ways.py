"""The ways to a target: traps, which are sent once, and informs, which are repeated until they are acknowledged.

Nothing here is waited for: a trap is one datagram on a socket that does not block, an inform
a task of its own. A target that is away costs what its informs keep, and these are bounded.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import secrets
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from agent.snmp.client.credentials import NONE, Community, Credentials, UsmUser
from agent.snmp.client.errors import SnmpError
from agent.snmp.client.messages import CommunityMessages, UserMessages, encode_pdu
from agent.snmp.client.session import Session
from agent.snmp.identity import Identity
from agent.snmp.notify.contents import Contents
from agent.snmp.notify.targets import Target
from agent.snmp.pdu import PduType, Version
from agent.snmp.usm import AUTHENTICATION, PRIVACY, User

log = logging.getLogger(__name__)

PENDING: Final = 100  # informs of one target that wait for an acknowledgement; the oldest goes when there are more
MOST_NUMBER: Final = (1 << 31) - 1  # of request-id and msgID


class Clock(Protocol):
    """agent.snmp.uptime.Uptime."""

    @property
    def hundredths(self) -> int: ...
    @property
    def seconds(self) -> int: ...


@dataclass(slots=True)
class Tally:
    """What became of notifications, for ipsecGwStatus. `changed` is called after every change."""

    changed: Callable[[], None]
    sent: int = 0
    failed: int = 0

    def count(self, sent: int = 0, failed: int = 0) -> None:
        self.sent += sent
        self.failed += failed
        self.changed()


class Way(Protocol):
    """To one target."""

    def send(self, contents: Contents) -> None:
        """Never raises, never waits."""

    async def flush(self) -> None:
        """Until nothing is under way."""

    def close(self) -> None:
        """Give up what is under way."""


def way_to(target: Target, identity: Identity, clock: Clock, tally: Tally) -> Way:
    """Raises OSError where the system knows no way."""
    return Informs(target, identity, clock, tally) if target.inform else Traps(target, identity, clock, tally)


class Traps:
    """Unconfirmed notifications. In SNMPv3 this agent's engine is the authoritative one (RFC 3414 section 1.5.1)."""

    def __init__(self, target: Target, identity: Identity, clock: Clock, tally: Tally) -> None:
        self._target, self._identity, self._clock, self._tally = target, identity, clock, tally
        self._number = secrets.randbelow(MOST_NUMBER)
        self._user = None if target.user is None else UserMessages(_usm_user(target.user))
        self._community = CommunityMessages(Community(target.community, target.version))
        self._socket = socket.socket(_family(target), socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._failing = False

    def send(self, contents: Contents) -> None:
        self._tally.count(sent=1)
        # What became of the one before, which the system would report in the place of sending this one.
        earlier = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if earlier:
            self._failed(os.strerror(earlier))
        try:
            # A connected socket knows where it sends from, and hears of a target that refuses. Connected anew for
            # each, it follows the routes.
            self._socket.connect((self._target.address, self._target.port))
            self._socket.send(self._message(contents, self._socket.getsockname()[0]))
        except OSError as error:
            self._failed(error.strerror or str(error))
        else:
            self._failing = self._failing and earlier != 0

    def _failed(self, why: str) -> None:
        self._tally.count(failed=1)
        if not self._failing:  # told once, until one is sent again
            log.warning("target %s: notifications are not sent: %s", self._target.name, why)
        self._failing = True

    def _message(self, contents: Contents, source: str) -> bytes:
        uptime = self._clock.hundredths
        if self._target.version is Version.V1:
            return self._community.protect(0, contents.trap_v1(uptime, source))
        self._number = self._number % MOST_NUMBER + 1
        pdu = encode_pdu(PduType.TRAP, self._number, contents.varbinds(uptime))
        if self._user is None:
            return self._community.protect(0, pdu)
        user = self._target.user
        assert user is not None
        if not self._user.engine_id:
            engine_id, boots = self._identity
            self._user.speak_as(engine_id, boots, self._clock.seconds, user.auth_key, user.priv_key)
        return self._user.protect(self._number, pdu, reportable=False)

    async def flush(self) -> None:
        """A datagram is sent or not."""

    def close(self) -> None:
        self._socket.close()


class Informs:
    """Confirmed notifications. In SNMPv3 the receiver's engine is the authoritative one, and has to be found first."""

    def __init__(self, target: Target, identity: Identity, clock: Clock, tally: Tally) -> None:
        self._target, self._identity, self._clock, self._tally = target, identity, clock, tally
        self._session: Session | None = None
        self._using: Counter[Session] = Counter()  # informs under way
        self._opening = asyncio.Lock()
        self._pending: dict[asyncio.Task[None], None] = {}  # oldest first

    def send(self, contents: Contents) -> None:
        self._tally.count(sent=1)
        if len(self._pending) >= PENDING:
            next(iter(self._pending)).cancel()
            self._pending.pop(next(iter(self._pending)))
        task = asyncio.get_running_loop().create_task(self._inform(contents, self._clock.hundredths))
        self._pending[task] = None
        task.add_done_callback(self._ended)

    async def _inform(self, contents: Contents, uptime: int) -> None:
        session = await self._opened()
        self._using[session] += 1
        try:
            await session.request(PduType.INFORM, contents.varbinds(uptime))  # any response acknowledges
        finally:
            self._using[session] -= 1
            if session is not self._session and not self._using[session]:
                session.close()

    async def _opened(self) -> Session:
        """A session by the way of now. Its socket sends from one address all its life, and nothing once that is gone;
        what is under way by an earlier one may still be acknowledged."""
        target = self._target
        async with self._opening:
            source = _source(target)
            if self._session is not None and source not in ("", self._session.source):
                old, self._session = self._session, None
                if not self._using[old]:
                    old.close()
            if self._session is None:
                self._session = await Session.open(
                    target.address,
                    target.port,
                    _credentials(target),
                    wait=target.timeout,
                    retries=target.retries,
                    growth=1.0,
                    engine_id=target.engine_id,
                    context_engine_id=self._identity.engine_id,
                )
            return self._session

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._pending.pop(task, None)
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or error is not None:
            self._tally.count(failed=1)
        if isinstance(error, SnmpError):
            log.warning("target %s: an inform was not acknowledged: %s", self._target.name, error)
        elif error is not None:
            log.error("target %s: an inform failed", self._target.name, exc_info=error)

    async def flush(self) -> None:
        if self._pending:
            await asyncio.wait(list(self._pending))

    def close(self) -> None:
        for task in list(self._pending):
            task.cancel()
        if self._session is not None:
            self._session.close()
            self._session = None


def _source(target: Target) -> str:
    """The address that the system sends from to a target now, '' where it knows no way."""
    with socket.socket(_family(target), socket.SOCK_DGRAM) as asking:
        try:
            asking.connect((target.address, target.port))
        except OSError:
            return ""
        return str(asking.getsockname()[0])


def _family(target: Target) -> socket.AddressFamily:
    return socket.AF_INET6 if ipaddress.ip_address(target.address).version == 6 else socket.AF_INET


def _credentials(target: Target) -> Credentials:
    return Community(target.community, target.version) if target.user is None else _usm_user(target.user)


def _usm_user(user: User) -> UsmUser:
    """A user of ours as a manager's."""
    authentication = next((n for n, each in AUTHENTICATION.items() if each == user.authentication), NONE)
    privacy = next((n for n, each in PRIVACY.items() if each == user.privacy), NONE)
    return UsmUser(
        user.name.encode("utf-8", "surrogateescape"), authentication, privacy, user.auth_master, user.priv_master
    )
