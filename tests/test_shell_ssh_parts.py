"""What bounds the shell over SSH: connections and failures by source, what can be typed, what one client may open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from prompt_toolkit.input.typeahead import get_typeahead, store_typeahead
from prompt_toolkit.keys import Keys

from agent.config import load_settings
from agent.shell.ssh import SshService
from agent.shell.ssh_input import AHEAD, LINE, UNFINISHED, ChannelInput
from agent.shell.ssh_limits import Doorkeeper, SshLimits, source_group
from agent.ssh_service import LoopThread, SshError, answering_ssh, host_key
from tests.snmp_station import PATIENCE, SCHEMA, Served, until
from tests.test_snmp_passwords import BOB, FIRST, administered, put

LIMITS = SshLimits(waiting=6, waiting_of_source=4, failures=3, failure_seconds=100)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


# ---- strangers ------------------------------------------------------------------------


def test_a_source_with_too_many_connections_loses_its_oldest() -> None:
    keeper = Doorkeeper(LIMITS, Clock())
    assert [keeper.enter(n, "192.0.2.1") for n in range(4)] == [None] * 4
    assert keeper.enter(4, "192.0.2.1") == 0
    keeper.left(1)  # it has logged in
    assert keeper.enter(5, "192.0.2.1") is None
    assert keeper.turned_away == 1


def test_who_has_most_makes_room_for_others() -> None:
    keeper = Doorkeeper(LIMITS, Clock())
    for n in range(4):
        keeper.enter(n, "192.0.2.1")
    assert keeper.enter(4, "192.0.2.2") is None and keeper.enter(5, "192.0.2.3") is None
    assert keeper.enter(6, "192.0.2.4") == 0
    assert keeper.enter(7, "192.0.2.5") == 1


def test_wrong_passwords_bar_a_source_for_a_while() -> None:
    clock = Clock()
    keeper = Doorkeeper(LIMITS, clock)
    for _ in range(3):
        assert not keeper.barred("192.0.2.1")
        keeper.failed("192.0.2.1")
        clock.now += 10
    assert keeper.barred("192.0.2.1") and keeper.enter("it", "192.0.2.1") == "it"
    assert not keeper.barred("192.0.2.2")
    clock.now += 75
    assert not keeper.barred("192.0.2.1")


def test_an_ipv6_sender_is_his_whole_network() -> None:
    keeper = Doorkeeper(LIMITS, Clock())
    for n in range(3):
        keeper.failed(f"2001:db8::{n}")
    assert keeper.barred("2001:db8::ffff:1") and not keeper.barred("2001:db8:0:1::1")
    assert source_group("::ffff:192.0.2.1") == source_group("192.0.2.1")


# ---- typing ---------------------------------------------------------------------------


class Reading:
    """A channel's input, and what it asked of the channel."""

    def __init__(self) -> None:
        self.paused = self.flooded = False
        self.keys = ChannelInput(self.pause, self.resume, self.flood)

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def flood(self) -> None:
        self.flooded = True

    def typed(self) -> str:
        return "".join(press.data for press in self.keys.read_keys())


def test_keys_come_as_they_were_typed_however_they_were_cut() -> None:
    reading = Reading()
    for octet in "grüße\x1b[A\r".encode():
        reading.keys.feed(bytes([octet]))
    keys = reading.keys.read_keys()
    assert "".join(press.data for press in keys[:5]) == "grüße"
    assert [press.key for press in keys[5:]] == [Keys.Up, Keys.ControlM]
    reading.keys.feed(b"\xff")
    assert reading.typed() == "\ufffd"


def test_a_line_has_a_length_and_a_prompt_its_patience() -> None:
    reading = Reading()
    reading.keys.feed(b"x" * (LINE + 100) + b"\ryes\r")
    assert reading.typed() == "x" * LINE + "\ryes\r"
    with reading.keys.busy():
        pass
    assert not reading.flooded
    for _ in range(UNFINISHED // 1000 + 1):
        reading.keys.feed(b"\x15" + b"x" * 999)
    assert reading.flooded


def test_what_is_typed_ahead_has_an_end() -> None:
    reading = Reading()
    line = b"date\r" * 100
    with reading.keys.busy():
        while not reading.paused:
            reading.keys.feed(line)
            store_typeahead(reading.keys, reading.keys.read_keys())  # as interact does
        ahead = get_typeahead(reading.keys)
        assert AHEAD < len(ahead) <= AHEAD + len(line)
        store_typeahead(reading.keys, ahead)
    assert reading.paused  # also for the next commands, which take a few keys each
    with reading.keys.busy():
        assert reading.paused
    store_typeahead(reading.keys, get_typeahead(reading.keys)[:100])
    with reading.keys.busy():
        assert not reading.paused
    reading.keys.close()
    assert get_typeahead(reading.keys) == []


# ---- one client -----------------------------------------------------------------------


@asynccontextmanager
async def offered(state: Path, **limits: float) -> AsyncIterator[tuple[Served, SshService]]:
    """A served store whose shell is offered on a free port, and its user bob of level write."""
    async with administered(state) as (at, admin):
        await put(admin, 7, {**BOB, "Level": "write"})
        settings = load_settings({"state": state, "ssh": "127.0.0.1:0"})
        chosen = SshLimits(**limits)  # type: ignore[arg-type]
        async with answering_ssh(settings, SCHEMA, at.server, at.store.events, chosen) as service:
            assert service is not None
            yield at, service


def connecting(service: SshService, password: str = FIRST) -> Any:
    [(host, port)] = service.addresses
    return asyncssh.connect(
        host, port, username="bob", password=password, known_hosts=None, client_keys=None, config=None, agent_path=None
    )


async def test_one_connection_has_so_many_sessions_and_all_together_too(tmp_path: Path) -> None:
    async with (
        offered(tmp_path, sessions_of_connection=3, sessions=5) as (_, service),
        connecting(service) as first,
        connecting(service) as second,
    ):
        held = [await first.create_process() for _ in range(3)]
        with pytest.raises(asyncssh.ChannelOpenError):
            await first.create_process()
        held += [await second.create_process() for _ in range(2)]
        with pytest.raises(asyncssh.ChannelOpenError):
            await second.create_process()
        held[0].stdin.write_eof()
        await held[0].wait_closed()
        async with asyncio.timeout(PATIENCE):
            while not service.has_room():  # noqa: ASYNC110 - another loop's
                await asyncio.sleep(0.05)
        await second.create_process()


async def test_only_the_first_few_passwords_of_a_connection_are_looked_at(tmp_path: Path) -> None:
    async with offered(tmp_path, delay_seconds=0.05) as (at, service):

        class Guessing(asyncssh.SSHClient):
            asked = 0

            def password_auth_requested(self) -> str:
                self.asked += 1
                return f"guess number {self.asked}" if self.asked < 5 else FIRST

        guesser = Guessing()
        [(host, port)] = service.addresses
        with pytest.raises((asyncssh.DisconnectError, OSError)):
            await asyncssh.connect(
                host,
                port,
                client_factory=lambda: guesser,
                username="bob",
                known_hosts=None,
                client_keys=None,
                config=None,
            )
        assert guesser.asked == service.limits.passwords
        assert await at.server.inside.by_password("bob", FIRST, "127.0.0.1") is not None


async def test_a_client_is_asked_to_hurry(tmp_path: Path) -> None:
    async with offered(tmp_path, login_seconds=0.3) as (_, service):
        reader, writer = await asyncio.open_connection(*service.addresses[0])
        assert await reader.readuntil(b"\r\n") == b"SSH-2.0-ipsec-agent\r\n"
        async with asyncio.timeout(PATIENCE):
            await reader.read()
        writer.close()


async def test_there_is_no_forwarding_of_agents_or_windows(tmp_path: Path) -> None:
    async with offered(tmp_path) as (_, service), connecting(service) as connection:
        channel, _ = await connection.create_session(asyncssh.SSHClientSession, term_type="xterm")
        assert not await channel._make_request(b"auth-agent-req@openssh.com")
        string = b"\0\0\0\1a"
        assert not await channel._make_request(b"x11-req", b"\0", string, string, bytes(4))
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.open_connection("127.0.0.1", 1)
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.open_unix_connection("/run/docker.sock")
        with pytest.raises(asyncssh.ChannelListenError):
            await connection.start_server(lambda *_: None, "127.0.0.1", 0)


def held_back(service: SshService) -> int:
    """Octets that wait for a client that does not read them."""
    connections = list(service._connections)  # another thread's
    return max((ours._chan.get_write_buffer_size() for each in connections for ours in list(each.channels)), default=0)


@pytest.mark.slow
async def test_a_client_that_does_not_read_is_not_written_for(tmp_path: Path) -> None:
    async with offered(tmp_path) as (_, service), connecting(service) as connection:

        class Deaf(asyncssh.SSHClientSession[bytes]):
            def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
                chan.pause_reading()

        for term in ("", "xterm"):
            channel, _ = await connection.create_session(Deaf, term_type=term or None, encoding=None, window=4096)
            channel.write(b"?\r" * 9000 if term else b"?\n" * 9000)
            await until(lambda: held_back(service) > 10_000)
            await asyncio.sleep(1.5)
            assert 10_000 < held_back(service) < 200_000
            channel.close()
            await channel.wait_closed()


async def test_a_session_at_a_terminal_ends_with_its_client(tmp_path: Path) -> None:
    async with offered(tmp_path) as (at, service):
        async with connecting(service) as connection:
            process = await connection.create_process(term_type="xterm")
            process.stdin.write("debug all\r")
            async with asyncio.timeout(PATIENCE):
                await process.stdout.readuntil("Ctrl-C ends")
        async with asyncio.timeout(PATIENCE):
            while service._connections:  # noqa: ASYNC110 - another loop's
                await asyncio.sleep(0.05)
        assert at.store.running.generation > 0


# ---- the key and the thread -----------------------------------------------------------


def test_a_host_key_is_made_once_and_is_nobody_elses(tmp_path: Path) -> None:
    first = host_key(tmp_path)
    file = tmp_path / "ssh_host_ed25519_key"
    assert file.stat().st_mode & 0o777 == 0o600
    assert host_key(tmp_path).public_data == first.public_data
    assert (tmp_path / "ssh_host_ed25519_key.pub").read_bytes() == first.export_public_key("openssh")
    file.chmod(0o640)
    with pytest.raises(SshError, match="chmod 600"):
        host_key(tmp_path)
    file.chmod(0o600)
    file.write_text("no key")
    with pytest.raises(SshError, match="ssh_host_ed25519_key"):
        host_key(tmp_path)


async def test_an_address_that_is_taken_is_said(tmp_path: Path) -> None:
    async with offered(tmp_path) as (at, service):
        settings = load_settings({"state": tmp_path, "ssh": f"127.0.0.1:{service.addresses[0][1]}"})
        with pytest.raises(SshError, match="cannot listen for SSH"):
            async with answering_ssh(settings, SCHEMA, at.server, at.store.events):
                pass


async def test_work_in_another_thread_is_awaited_fails_and_is_cancelled_here() -> None:
    thread = LoopThread("test")
    loop = asyncio.get_running_loop()
    begun, ended = asyncio.Event(), asyncio.Event()

    async def answers() -> int:
        assert asyncio.get_running_loop() is thread.loop
        return 42

    async def fails() -> None:
        raise LookupError("there")

    async def lasts() -> None:
        try:
            loop.call_soon_threadsafe(begun.set)
            await asyncio.sleep(600)
        finally:
            ended.set()

    assert await thread.call(answers()) == 42
    with pytest.raises(LookupError, match="there"):
        await thread.call(fails())
    work = asyncio.ensure_future(thread.call(lasts()))
    await asyncio.wait_for(begun.wait(), PATIENCE)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(work, 0.1)
    await thread.end()
    assert ended.is_set() and thread.loop.is_closed()
