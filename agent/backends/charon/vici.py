"""VICI sessions in threads: the `vici` library blocks, the agent must not.

A `Channel` is one session in a thread of its own, for commands, in order. A `Listener` is
one for events. Both take a function that connects, so that a session which broke is made
anew with the next call. What the library raises becomes EngineError here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from vici import Session
from vici.exception import CommandException, DeserializationException, EventUnknownException, SessionException

from agent.backends.charon.messages import EVENTS, events_of, texts
from agent.backends.engine import EngineError, IkeEvent

logger = logging.getLogger(__name__)

COMMAND_SECONDS: Final = 60.0  # without a word for so long it is taken for dead; listing 10,000 of anything takes 1 s
ANSWER_SECONDS: Final = (
    4.0  # for what costs charon nothing: to accept a connection, to subscribe to events, its version
)
CLOSING_SECONDS: Final = 2.0  # for a thread to notice that its socket was shut down
BROKEN: Final = (OSError, SessionException, DeserializationException, EventUnknownException, struct.error)

Connect = Callable[[float | None], socket.socket]
Answer = TypeVar("Answer")


class NotThere(EngineError):
    """The session broke or cannot be made."""


class Channel:
    """Commands of one session, one after the other. `seconds`: without a word for so long charon is taken for dead."""

    def __init__(self, name: str, connect: Connect, seconds: float = COMMAND_SECONDS) -> None:
        self._connect, self._seconds = connect, seconds
        self._closed = False
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._socket: socket.socket | None = None
        self._session: Any = None

    async def call(self, command: Callable[[Any], Answer]) -> Answer:
        """Run `command(session)` in the thread. Raises NotThere, or EngineError with charon's refusal."""
        if self._closed:
            raise NotThere("the agent is ending")
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._call, command)

    async def reset(self) -> None:
        """The next command makes a new session: the daemon at the other end is another one."""
        _shut(self._socket)
        await asyncio.get_running_loop().run_in_executor(self._executor, self._drop)

    async def close(self) -> None:
        """The command under way is given up: a charon that hangs would not let it end."""
        if self._closed:
            return
        self._closed = True
        _shut(self._socket)
        dropped = asyncio.get_running_loop().run_in_executor(self._executor, self._drop)
        self._executor.shutdown(wait=False)
        await asyncio.wait([dropped], timeout=CLOSING_SECONDS)

    def _call(self, command: Callable[[Any], Answer]) -> Answer:
        try:
            if self._session is None:
                self._socket = self._connect(self._seconds)
                self._session = Session(self._socket)
            if self._closed:  # whoever closed may have seen no socket yet
                self._drop()
                raise NotThere("the agent is ending")
            return command(self._session)
        except CommandException as error:
            raise EngineError(refusal(error)) from error
        except BROKEN as error:
            self._drop()
            raise NotThere(f"charon does not answer: {error or type(error).__name__}") from error

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = self._session = None


class Listener:
    """Events of one session, given to `told` on the loop; `ended` is set, with a text, when the session breaks."""

    def __init__(self, connection: socket.socket, told: Callable[[IkeEvent], None]) -> None:
        self._socket = connection
        self._told = told
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[str] = self._loop.create_future()
        self._thread = threading.Thread(target=self._listen, name="charon-events", daemon=True)

    async def start(self) -> None:
        """Returns when the events are subscribed to. Raises NotThere, also when that takes too long."""
        self._socket.settimeout(ANSWER_SECONDS)
        session: Any = Session(self._socket)
        try:
            await asyncio.to_thread(_register, session)
        except BROKEN as error:
            self._socket.close()
            raise NotThere(f"charon does not answer: {error or type(error).__name__}") from error
        except asyncio.CancelledError:
            _shut(self._socket)  # closing alone does not wake the thread
            self._socket.close()
            raise
        self._socket.settimeout(None)  # from now on silence is no sign of death
        self._session = session
        self._thread.start()

    async def stop(self) -> None:
        _shut(self._socket)
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)
        self._socket.close()

    def _listen(self) -> None:
        text = "the connection was closed"
        try:
            for kind, message in _events(self._session):
                for event in events_of(kind, message):
                    self._loop.call_soon_threadsafe(self._told, event)
        except BROKEN as error:
            text = str(error) or type(error).__name__
        except RuntimeError:  # the loop is closed
            return
        try:
            self._loop.call_soon_threadsafe(self._end, text)
        except RuntimeError:
            return

    def _end(self, text: str) -> None:
        if not self.ended.done():
            self.ended.set_result(text)


def _shut(connection: socket.socket | None) -> None:
    """Whoever waits for it in a thread goes on, with an error."""
    if connection is not None:
        with contextlib.suppress(OSError):  # it is gone already
            connection.shutdown(socket.SHUT_RDWR)


def _register(session: Any) -> None:
    for kind in EVENTS:
        session._register_unregister(kind, True)  # `listen` would tell nobody when it is done with this


def _events(session: Any) -> Any:
    from vici.protocol import Message, Packet

    while True:
        packet = Packet.parse(session.transport.receive())
        if packet.response_type == Packet.EVENT:
            yield packet.event_type.decode(), texts(Message.deserialize(packet.payload))


def plain(value: Any) -> Any:
    """Settings as the library's serializer wants them: dictionaries and lists and texts, nothing else."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return list(value)
    return value


def refusal(error: CommandException) -> str:
    """charon's own words."""
    return str(error).removeprefix("Command failed: ")
