"""The shell over SSH: who may come in, for how long, and with what; the sessions are in ssh_channel.py.

Users are those of the agent, who proves to be one is the agent's to say (`Door`), and what he may
do there is what his SNMP user may. There is nothing but the shell: no forwarding of ports, of
X11 or of an agent, no files, no environment. What is said of logins holds names and addresses
and never what was typed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from typing import Any, Final, Protocol

import asyncssh

from agent.mib.schema import Schema
from agent.shell.ssh_channel import Channel, Visitor
from agent.shell.ssh_limits import Doorkeeper, SshLimits
from agent.shell.values import harmless

log = logging.getLogger(__name__)

KEY_EXCHANGE: Final = (
    *("mlkem768x25519-sha256", "curve25519-sha256", "curve25519-sha256@libssh.org"),
    *("ecdh-sha2-nistp521", "ecdh-sha2-nistp384", "ecdh-sha2-nistp256"),
    *("diffie-hellman-group16-sha512", "diffie-hellman-group18-sha512"),
)
CIPHERS: Final = (
    *("chacha20-poly1305@openssh.com", "aes256-gcm@openssh.com", "aes128-gcm@openssh.com"),
    *("aes256-ctr", "aes192-ctr", "aes128-ctr"),
)
MACS: Final = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com")
SIGNATURES: Final = (
    *("ssh-ed25519", "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"),
    *("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"),
)
WINDOW: Final = 32_768  # octets that a client may send before it is waited for
PACKET: Final = 32_768
BACKLOG: Final = 128
KEEPALIVE_SECONDS, KEEPALIVES = 60, 3  # a client that is gone without a word
TICK_SECONDS: Final = 1.0  # between looks at who is idle
STILL_SECONDS: Final = 5.0  # between looks at whether users are what they were
TURNED_AWAY_SECONDS: Final = 10.0  # between lines about connections that were not let in
GOODBYE_SECONDS: Final = 1.0
NAME_LENGTH: Final = 32  # characters of a name in a line


class Door(Protocol):
    """The agent, as the SSH server needs it."""

    async def by_password(self, name: str, password: str, source: str) -> Visitor | None:
        """Who has this password."""

    async def by_key(self, name: str, key: bytes, source: str) -> Visitor | None:
        """Whose public key this is."""

    def failed(self, source: str, why: str) -> None:
        """Somebody did not prove to be who he said."""

    def happened(self, text: str) -> None:
        """Somebody came or went."""


class Connection(asyncssh.SSHServer):
    """One client, from the first octet on."""

    def __init__(self, service: SshService) -> None:
        self._service, self._limits = service, service.limits
        self._proved: dict[str, Visitor] = {}
        self._tries = self._passwords = 0
        self._began = self._touched_at = time.monotonic()
        self._still_at = self._began
        self._ending = ""
        self._gone = asyncio.Event()
        self._connection: asyncssh.SSHServerConnection
        self.visitor: Visitor | None = None
        self.source = ""
        self.channels: set[Channel] = set()

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        peer = conn.get_extra_info("peername")
        self.source = str(peer[0]).partition("%")[0] if peer else ""
        conn.send_userauth_failure = self._counted(conn.send_userauth_failure)  # type: ignore[method-assign]
        self._service.entered(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone.set()
        self._service.left(self)
        if self.visitor is not None:
            why = f", {self._ending}" if self._ending else ""
            seconds = round(time.monotonic() - self._began)
            self._service.tell(f"{_called(self.visitor.name)} from {self.source} logged out after {seconds} s{why}")

    def abort(self) -> None:
        """Without a word."""
        self._connection.abort()

    async def end(self, why: str) -> None:
        """Say why, on every channel and to the client, which at a disconnect drops what it has not shown yet: so it has
        a moment to go by itself."""
        self._ending = self._ending or why
        if self.channels:
            await asyncio.gather(*(channel.end(why) for channel in self.channels))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GOODBYE_SECONDS):
                    await self._gone.wait()
        self._connection.disconnect(asyncssh.DISC_BY_APPLICATION, why)

    # ---- who it is --------------------------------------------------------------------

    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    async def validate_password(self, username: str, password: str) -> bool:
        self._passwords += 1
        if self._passwords > self._limits.passwords or self._service.doorkeeper.barred(self.source):
            self._too_many()
            return False
        began = time.monotonic()
        visitor = await self._service.door.by_password(username, password, self.source)
        if visitor is not None:
            self._proved[username] = visitor
            return True
        self._service.failed(self.source, username)
        await asyncio.sleep(max(0.0, began + self._limits.delay_seconds - time.monotonic()))
        return False

    async def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Asked before it is used, and again with a signature, which asyncssh looks at."""
        visitor = await self._service.door.by_key(username, key.public_data, self.source)
        if visitor is not None:
            self._proved[username] = visitor
        return visitor is not None

    def auth_completed(self) -> None:
        name = self._connection.get_extra_info("username")
        self.visitor = self._proved.get(name)
        self._proved.clear()
        self._service.doorkeeper.left(self)
        if self.visitor is None:
            self.abort()
            return
        self.touched()
        how = "key" if self.visitor.by_key else "password"
        self._service.tell(f"{_called(self.visitor.name)} from {self.source} logged in by {how}")

    def _counted(self, send: Any) -> Any:
        """Every method that fails counts, whether it is known here or not."""

        def counted(partial_success: bool) -> None:
            self._tries += 1
            if self._tries >= self._limits.tries or self._passwords >= self._limits.passwords:
                self._too_many()
            else:
                send(partial_success)

        return counted

    def _too_many(self) -> None:
        self._connection.disconnect(asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE, "Too many authentication failures")

    # ---- what he gets -----------------------------------------------------------------

    def session_requested(self) -> Channel | bool:
        """asyncssh refuses everything else by itself."""
        if self.visitor is None or self._ending:
            return False
        if len(self.channels) >= self._limits.sessions_of_connection or not self._service.has_room():
            log.warning("ssh: no session for %s from %s: too many", _called(self.visitor.name), self.source)
            return False
        channel = Channel(self.visitor, self._service.schema, self.touched, self.channels.discard)
        self.channels.add(channel)
        return channel

    def touched(self) -> None:
        self._touched_at = time.monotonic()

    async def look(self, now: float) -> None:
        """End it where nobody has done anything for long, or the user is another one now."""
        if self.visitor is None or self._ending:
            return
        if now - self._touched_at >= self._limits.idle_seconds:
            await self.end(f"idle for {self._limits.idle_seconds:g} seconds")
        elif now - self._still_at >= STILL_SECONDS:
            self._still_at = now
            if not await self.visitor.still():
                await self.end("the user is not what it was at the login")


class SshService:
    """Listens from `start` to `stop`, on the event loop that runs then. `host_key`: private."""

    def __init__(self, door: Door, schema: Schema, host_key: asyncssh.SSHKey, limits: SshLimits) -> None:
        self.door, self.schema, self.limits = door, schema, limits
        self.doorkeeper = Doorkeeper(limits, time.monotonic)
        self.addresses: list[tuple[str, int]] = []
        self._host_key = host_key
        self._listeners: list[asyncssh.SSHAcceptor] = []
        self._connections: set[Connection] = set()
        self._looking: asyncio.Task[None] | None = None
        self._told_away, self._told_away_at = 0, -TURNED_AWAY_SECONDS

    async def start(self, addresses: Sequence[tuple[str, int]]) -> None:
        """On return every address answers. Raises OSError."""
        asyncssh.set_log_level(logging.WARNING)  # below it says which commands are given, secrets and all
        try:
            for host, port in addresses:
                listener = await asyncssh.listen(host, port, **self._options())
                self._listeners.append(listener)
                self.addresses.append((host, listener.get_port()))
        except BaseException:
            await self.stop()
            raise
        self._looking = asyncio.get_running_loop().create_task(self._look())

    def _options(self) -> dict[str, Any]:
        return {
            "server_factory": lambda: Connection(self),
            "server_host_keys": [self._host_key],
            "server_version": "ipsec-agent",
            "kex_algs": KEY_EXCHANGE,
            "encryption_algs": CIPHERS,
            "mac_algs": MACS,
            "signature_algs": SIGNATURES,
            "compression_algs": None,
            "gss_host": None,
            "gss_kex": False,
            "gss_auth": False,
            "host_based_auth": False,
            "kbdint_auth": False,
            "agent_forwarding": False,
            "x11_forwarding": False,
            "allow_scp": False,
            "sftp_factory": None,
            "line_editor": False,
            "encoding": None,
            "window": WINDOW,
            "max_pktsize": PACKET,
            "login_timeout": self.limits.login_seconds,
            "keepalive_interval": KEEPALIVE_SECONDS,
            "keepalive_count_max": KEEPALIVES,
            "backlog": BACKLOG,
            "config": None,
        }

    async def stop(self) -> None:
        """Listen no more, and end all sessions."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        for listener in self._listeners:
            listener.close()
        known = [connection for connection in self._connections if connection.visitor is not None]
        for connection in self._connections - set(known):
            connection.abort()
        await asyncio.gather(*(connection.end("the agent is ending") for connection in known), return_exceptions=True)
        await asyncio.gather(*(listener.wait_closed() for listener in self._listeners), return_exceptions=True)

    # ---- connections ------------------------------------------------------------------

    def entered(self, connection: Connection) -> None:
        self._connections.add(connection)
        loser = self.doorkeeper.enter(connection, connection.source)
        if isinstance(loser, Connection):
            loser.abort()

    def left(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self.doorkeeper.left(connection)

    def has_room(self) -> bool:
        """For one more session."""
        return sum(len(connection.channels) for connection in self._connections) < self.limits.sessions

    def failed(self, source: str, name: str) -> None:
        """A name and a password that do not go together."""
        self.doorkeeper.failed(source)
        log.warning("ssh: wrong name or password for %s from %s", _called(name), source)
        self.door.failed(source, f"ssh login of {_called(name)}")

    def tell(self, text: str) -> None:
        log.info("ssh: %s", text)
        self.door.happened(f"ssh: {text}")

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(min(TICK_SECONDS, self.limits.idle_seconds / 4))
            now = time.monotonic()
            await asyncio.gather(*(connection.look(now) for connection in self._connections), return_exceptions=True)
            away = self.doorkeeper.turned_away
            if away > self._told_away and now - self._told_away_at >= TURNED_AWAY_SECONDS:
                log.warning("ssh: connections turned away: %d; since the start: %d", away - self._told_away, away)
                self._told_away, self._told_away_at = away, now


def _called(name: str) -> str:
    """A user's name in a line, whatever somebody said it was."""
    short = name if len(name) <= NAME_LENGTH else name[:NAME_LENGTH] + "…"
    return "user " + "".join(c if c.isprintable() and not c.isspace() else f"\\x{ord(c):02x}" for c in harmless(short))
