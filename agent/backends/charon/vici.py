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
BROKEN: Final = (OSError, SessionException, DeserializationException, EventUnknownException, struct.error)

Connect = Callable[[float | None], socket.socket]
Answer = TypeVar("Answer")


class NotThere(EngineError):
    """The session broke or cannot be made."""


class Channel:
    """Commands of one session, one after the other."""

    def __init__(self, name: str, connect: Connect) -> None:
        self._connect = connect
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._socket: socket.socket | None = None
        self._session: Any = None

    async def call(self, command: Callable[[Any], Answer]) -> Answer:
        """Run `command(session)` in the thread. Raises NotThere, or EngineError with charon's refusal."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._call, command)

    async def reset(self) -> None:
        """The next command makes a new session: the daemon at the other end is another one."""
        await asyncio.get_running_loop().run_in_executor(self._executor, self._drop)

    async def close(self) -> None:
        """After the commands under way."""
        await asyncio.get_running_loop().run_in_executor(self._executor, self._drop)
        self._executor.shutdown(wait=False)

    def _call(self, command: Callable[[Any], Answer]) -> Answer:
        try:
            if self._session is None:
                self._socket = self._connect(COMMAND_SECONDS)
                self._session = Session(self._socket)
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
        """Returns when the events are subscribed to. Raises NotThere."""
        session: Any = Session(self._socket)
        try:
            await asyncio.to_thread(_register, session)
        except BROKEN as error:
            self._socket.close()
            raise NotThere(f"charon does not answer: {error}") from error
        except asyncio.CancelledError:
            self._socket.close()
            raise
        self._session = session
        self._thread.start()

    async def stop(self) -> None:
        with contextlib.suppress(OSError):  # it is gone already
            self._socket.shutdown(socket.SHUT_RDWR)
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
