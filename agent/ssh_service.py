"""`serve --ssh`: the shell over SSH beside the agent, in a thread with an event loop of its own.

Drawing a table of a thousand rows takes most of a second, and a key exchange some
milliseconds. In its own thread that delays SNMP by a switch of threads at most; and
prompt_toolkit, which takes signals and exceptions of the loop it runs on for its own, does
not get at the agent's. What the sessions ask of the agent goes over to its loop, request
by request, as the user who logged in (agent/snmp/inside.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from agent.config import Endpoint, Settings
from agent.mib.schema import Schema
from agent.shell.packet import Packet
from agent.shell.ssh_limits import SshLimits
from agent.shell_command import explained
from agent.snmp.client.session import Response
from agent.snmp.inside import Inside, Login
from agent.snmp.pdu import PduType, VarBind, Version
from agent.snmp.server import SnmpServer
from agent.store.events import Event, Events, Kind, Severity
from agent.store.secrets import write_private_octets

if TYPE_CHECKING:  # asyncssh is loaded where it is needed only
    from agent.shell.ssh import SshService

log = logging.getLogger(__name__)

HOST_KEY_FILE: Final = "ssh_host_ed25519_key"
PUBLIC_SUFFIX: Final = ".pub"
LIMITS: Final = SshLimits()
OTHERS: Final = 0o077  # permission bits of a private file that nobody else has
Result = TypeVar("Result")


class SshError(Exception):
    """The shell cannot be offered over SSH; the text says why and what to do."""


@contextlib.asynccontextmanager
async def answering_ssh(
    settings: Settings, schema: Schema, server: SnmpServer, events: Events, limits: SshLimits = LIMITS
) -> AsyncIterator[SshService | None]:
    """From a server that has started to the agent's end; nothing where no address is given. Raises SshError."""
    if not settings.ssh:
        yield None
        return
    from agent.shell.ssh import SshService

    key = host_key(settings.state)
    agent = LoopOf(asyncio.get_running_loop())
    door = AgentDoor(agent, server, events, settings)
    service = SshService(door, schema, key, replace(limits, idle_seconds=settings.ssh_idle))
    thread = LoopThread("ssh")
    try:
        try:
            await thread.call(service.start(settings.ssh))
        except OSError as error:
            where = ", ".join(map(str, settings.ssh))
            raise SshError(f"cannot listen for SSH on {where}: {error.strerror or error}") from None
        where = ", ".join(str(Endpoint(*address)) for address in service.addresses)
        log.info("ssh: the shell answers on %s; host key %s", where, key.get_fingerprint())
        yield service
    finally:
        await thread.call(service.stop())
        await thread.end()


def host_key(state: Path) -> Any:
    """The private key that this agent is known by to SSH clients, made where there is none. Raises SshError."""
    import asyncssh

    path = state / HOST_KEY_FILE
    try:
        if not path.exists():
            made = asyncssh.generate_private_key("ssh-ed25519", comment="ipsec-agent")
            write_private_octets(path, made.export_private_key("openssh"))
            path.with_name(path.name + PUBLIC_SUFFIX).write_bytes(made.export_public_key("openssh"))
            log.info("ssh: host key made: %s", path)
        if path.stat().st_mode & OTHERS:
            raise SshError(f"{path} is not for its owner alone; chmod 600 it, or remove it for a new one")
        return asyncssh.read_private_key(path)
    except (OSError, asyncssh.KeyImportError) as error:
        raise SshError(f"{path}: {getattr(error, 'strerror', None) or error}") from None


# ---- two loops ------------------------------------------------------------------------


class LoopOf:
    """The way to a loop that runs in another thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop

    async def call(self, work: Coroutine[Any, Any, Result]) -> Result:
        """What comes of a coroutine there, or its exception; cancelled there where it is here."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop))


class LoopThread(LoopOf):
    """A loop in a thread of its own."""

    def __init__(self, name: str) -> None:
        super().__init__(asyncio.new_event_loop())
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    async def end(self) -> None:
        """Once its work is done: cancel what is left, and wait for the thread."""
        await self.call(_all_cancelled())
        self.loop.call_soon_threadsafe(self.loop.stop)
        await asyncio.to_thread(self._thread.join)
        self.loop.close()


async def _all_cancelled() -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_default_executor()


# ---- the agent, as the SSH server sees it ---------------------------------------------


class AgentDoor:
    """agent.shell.ssh.Door. All of it is called in the thread of SSH."""

    def __init__(self, agent: LoopOf, server: SnmpServer, events: Events, settings: Settings) -> None:
        self.agent, self.inside, self.settings = agent, server.inside, settings
        self._server, self._events = server, events
        self.explaining = asyncio.Semaphore(1)  # a plan is made for each, of the whole configuration

    async def by_password(self, name: str, password: str, source: str) -> AgentVisitor | None:
        login = await self.agent.call(self.inside.by_password(name, password, source))
        return AgentVisitor(self, login) if login is not None else None

    async def by_key(self, name: str, key: bytes, source: str) -> AgentVisitor | None:
        login = await self.agent.call(_called(lambda: self.inside.by_key(name, key, source)))
        return AgentVisitor(self, login) if login is not None else None

    def failed(self, source: str, why: str) -> None:
        self.agent.loop.call_soon_threadsafe(self._server.suspicious, source, why)

    def happened(self, text: str) -> None:
        self.agent.loop.call_soon_threadsafe(self._events.tell, Event(Kind.OTHER, Severity.INFO, text))


class AgentVisitor:
    """agent.shell.ssh_channel.Visitor: a login, and what may be asked as it."""

    def __init__(self, door: AgentDoor, login: Login) -> None:
        self._door, self._login = door, login

    @property
    def name(self) -> str:
        return self._login.name

    @property
    def administers(self) -> bool:
        return self._login.administers

    @property
    def by_key(self) -> bool:
        return self._login.by_key

    def asking(self) -> InsideAsking:
        return InsideAsking(self._door.agent, self._door.inside, self._login)

    async def still(self) -> bool:
        return await self._door.agent.call(_called(lambda: self._door.inside.still(self._login)))

    async def explain(self, packet: Packet) -> str:
        async with self._door.explaining:
            return await explained(self._door.settings, packet)


class InsideAsking:
    """The session of an SnmpClient that needs no messages."""

    def __init__(self, agent: LoopOf, inside: Inside, login: Login) -> None:
        self.target = "the agent"
        self.retries = 0
        self.version: Version = Version.V3
        self._agent, self._inside, self._login = agent, inside, login

    async def request(self, kind: PduType, varbinds: Sequence[VarBind], first: int = 0, second: int = 0) -> Response:
        """Raises SnmpError."""
        return await self._agent.call(self._inside.request(self._login, kind, varbinds, first, second))

    def close(self) -> None:
        """Nothing is held."""


async def _called(function: Any) -> Any:
    return function()
