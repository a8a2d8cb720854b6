"""A charon that hangs (SIGSTOP) hangs nobody else and is replaced; its log stays below a bound. Real ones."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from pytest import MonkeyPatch

from agent.backends.charon import CharonIke
from agent.backends.charon.config import LOG, Options
from agent.backends.charon.ike import START_SECONDS
from agent.backends.charon.process import ENDING_SECONDS
from agent.backends.charon.vici import CLOSING_SECONDS
from agent.backends.engine import EngineError, IkeEvent, IkeEventKind
from tests.xfrm_namespace import until as eventually

NEEDED = os.geteuid() == 0 and Path("/usr/lib/ipsec/charon").exists() and shutil.which("ip")
pytestmark = [pytest.mark.kernel, pytest.mark.skipif(not NEEDED, reason="needs root and strongSwan's charon")]

SLACK = 20.0  # seconds, of a busy machine; who waited for what hangs would wait for ever
PATIENCE = 60.0  # seconds until what has to come counts as missing


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    name = f"hung{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield name
    subprocess.run(["ip", "netns", "del", name], check=True)


def agent(namespace: str, folder: Path) -> CharonIke:
    options = Options(plugins_before=("kernel-libipsec",))
    return CharonIke(folder, lambda peer, sealed: b"", options=options, prefix=("ip", "netns", "exec", namespace))


@pytest.fixture
async def ike(namespace: str, tmp_path: Path) -> AsyncIterator[CharonIke]:
    made = agent(namespace, tmp_path / "charon")
    await made.start()
    try:
        await there(made)
        yield made
    finally:
        await made.shutdown()


async def anew(ike: CharonIke) -> None:
    await ike.stop()
    await ike.start()
    await there(ike)


async def there(ike: CharonIke) -> None:
    """Its own start does not wait for so long."""
    async with asyncio.timeout(PATIENCE):
        await ike._there.wait()


async def until(events: list[IkeEvent], kind: IkeEventKind) -> IkeEvent:
    async with asyncio.timeout(PATIENCE):
        while True:
            for event in events:
                if event.kind is kind:
                    return event
            await asyncio.sleep(0.02)


@pytest.mark.slow
async def test_start_and_stop_are_bounded_and_the_tunnels_daemon_is_adopted_once_it_answers(
    ike: CharonIke, namespace: str, tmp_path: Path
) -> None:
    await ike.stop()
    pid = ike.daemon.pid()
    successor = agent(namespace, tmp_path / "charon")
    events: list[IkeEvent] = []
    successor.subscribe(events.append)
    os.kill(pid, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        await successor.start()
        assert time.monotonic() - begun < START_SECONDS + SLACK
        with pytest.raises(EngineError, match="not there"):
            await successor.observe()
        os.kill(pid, signal.SIGCONT)
        assert (await until(events, IkeEventKind.BACK)).text == ""
        assert successor.daemon.pid() == pid
        os.kill(pid, signal.SIGSTOP)
        waiting = [asyncio.ensure_future(successor.observe()) for _ in range(5)]
        await asyncio.sleep(0.2)
        begun = time.monotonic()
        await successor.stop()
        assert time.monotonic() - begun < CLOSING_SECONDS + SLACK
        async with asyncio.timeout(SLACK):
            assert all(isinstance(end, EngineError) for end in await asyncio.gather(*waiting, return_exceptions=True))
    finally:
        os.kill(pid, signal.SIGCONT)
        await successor.stop()


@pytest.mark.slow
async def test_one_that_hangs_while_running_is_killed_and_started_again(
    ike: CharonIke, monkeypatch: MonkeyPatch
) -> None:
    for name, seconds in (("LOOK_SECONDS", 0.2), ("ASK_AGAIN_SECONDS", 0.1), ("MUTE_SECONDS", 1.0)):
        monkeypatch.setattr(f"agent.backends.charon.ike.{name}", seconds)
    await anew(ike)  # with the times above
    events: list[IkeEvent] = []
    ike.subscribe(events.append)
    pid = ike.daemon.pid()
    await asyncio.sleep(1.5)
    assert not events, "one that answers is left alone"
    monkeypatch.setattr("agent.backends.charon.ike.ANSWER_SECONDS", 0.3)
    await anew(ike)
    os.kill(pid, signal.SIGSTOP)
    waiting = asyncio.ensure_future(ike.observe())
    assert "did not answer" in (await until(events, IkeEventKind.LOST)).text
    monkeypatch.setattr("agent.backends.charon.ike.MUTE_SECONDS", PATIENCE)  # the next may be slow to start
    events.clear()
    assert (await until(events, IkeEventKind.BACK)).text == "restarted"
    with pytest.raises(EngineError):
        await waiting
    assert ike.daemon.pid() not in (0, pid)
    assert not (await ike.observe()).connections


@pytest.mark.slow
async def test_one_that_hangs_from_the_start_is_killed_and_started_again(
    ike: CharonIke, monkeypatch: MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.backends.charon.ike.MUTE_SECONDS", 0.5)
    monkeypatch.setattr("agent.backends.charon.vici.ANSWER_SECONDS", 0.3)
    await ike.stop()
    pid = ike.daemon.pid()
    os.kill(pid, signal.SIGSTOP)
    await ike.start()
    events: list[IkeEvent] = []
    ike.subscribe(events.append)
    assert (await until(events, IkeEventKind.BACK)).text == "restarted"
    assert ike.daemon.pid() not in (0, pid)


@pytest.mark.slow
async def test_shutdown_ends_one_that_is_stopped(ike: CharonIke) -> None:
    os.kill(ike.daemon.pid(), signal.SIGSTOP)
    begun = time.monotonic()
    await ike.shutdown()
    assert time.monotonic() - begun < CLOSING_SECONDS + ENDING_SECONDS + SLACK
    assert not ike.daemon.alive()


async def test_a_long_log_is_set_aside_and_charon_writes_a_new_one(ike: CharonIke, monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr("agent.backends.charon.process.LOG_KEPT", 300)
    log = ike.daemon.folder / LOG
    older = log.with_suffix(".log.1")
    older.write_text("older")
    length = log.stat().st_size
    assert length > 300
    for name, seconds in (("LOOK_SECONDS", 0.1), ("LOG_SECONDS", 0.2)):
        monkeypatch.setattr(f"agent.backends.charon.ike.{name}", seconds)
    await anew(ike)
    await eventually(lambda: older.read_text() != "older")
    monkeypatch.setattr("agent.backends.charon.process.LOG_KEPT", 8 << 20)
    await eventually(log.exists)
    assert older.stat().st_size >= length
    await asyncio.sleep(0.3)
    before = older.stat().st_size, log.stat().st_size
    assert ike._commands is not None
    await ike._commands.call(lambda session: session.load_conn({"a": {"children": {}}}))
    await eventually(lambda: log.stat().st_size > before[1])
    assert older.stat().st_size == before[0]
    log.unlink()  # as when an agent died between renaming and telling charon
    await eventually(log.exists)
