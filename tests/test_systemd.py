"""What systemd sees of the agent: readiness, watchdog, the end, the journal's lines, and units that hold together."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.backends.charon.process import CHARON, Daemon
from agent.systemd import JournalFormatter, Notifier, is_journal
from tests.xfrm_namespace import namespaces

UNITS = Path(__file__).parent.parent / "scripts" / "systemd"
COMMAND = str(Path(sys.executable).parent / "ipsec-agent")


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket of a service manager."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(60)
        yield listening


def settings_of(unit: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (UNITS / unit).read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


@pytest.mark.slow
def test_an_agent_says_when_it_answers_that_it_lives_and_that_it_ends(tmp_path: Path, manager: socket.socket) -> None:
    log = tmp_path / "journal"
    with log.open("wb") as stream:
        status = os.fstat(stream.fileno())
        agent = subprocess.Popen(
            [COMMAND, "serve", "--state", str(tmp_path / "state"), "--listen", "127.0.0.1:0"],
            stdout=subprocess.DEVNULL,
            stderr=stream,
            env={
                **os.environ,
                "NOTIFY_SOCKET": str(tmp_path / "notify"),
                "WATCHDOG_USEC": "9000000",
                "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}",
            },
        )
    try:
        assert manager.recv(999) == b"STATUS=opening the store"
        ready = manager.recv(999).decode().splitlines()
        assert ready[0] == "READY=1"
        assert re.fullmatch(r"STATUS=answers on 127\.0\.0\.1:[1-9]\d*, backend memory, generation \d+", ready[1])
        manager.settimeout(9)  # as long as a manager would wait
        assert [manager.recv(999) for _ in range(2)] == [b"WATCHDOG=1"] * 2
        manager.settimeout(60)
        agent.send_signal(signal.SIGTERM)
        while (last := manager.recv(999)) == b"WATCHDOG=1":
            pass
        assert last.decode().splitlines()[0] == "STOPPING=1"
        assert agent.wait(60) == 0
    finally:
        agent.kill()
        agent.wait()
    lines = log.read_text().splitlines()
    assert lines and all(re.match(r"<[3-7]>agent", line) for line in lines), lines


async def test_an_abstract_socket_is_spoken_to_as_well() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0ipsec-agent-test-{os.getpid()}")
        environment = {"NOTIFY_SOCKET": f"@ipsec-agent-test-{os.getpid()}", "OTHER": "stays"}
        Notifier(environment).ready("two\nlines")
        assert listening.recv(999) == b"READY=1\nSTATUS=two lines"
        assert environment == {"OTHER": "stays"}


async def test_without_a_manager_or_with_one_that_is_gone_nothing_happens(tmp_path: Path) -> None:
    for environment in ({}, {"NOTIFY_SOCKET": str(tmp_path / "nobody")}):
        notifier = Notifier(environment)
        notifier.watch()
        notifier.ready("up")
        await notifier.end()


async def test_a_watchdog_of_another_process_is_not_ours(tmp_path: Path, manager: socket.socket) -> None:
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}
    notifier = Notifier(environment)
    notifier.watch()
    await asyncio.sleep(0.01)
    await notifier.end()
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(999)


async def test_a_loop_that_hangs_is_not_reported_alive(tmp_path: Path, manager: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "30000"})
    notifier.watch()
    await asyncio.sleep(0)
    assert manager.recv(999) == b"WATCHDOG=1"
    time.sleep(0.1)  # noqa: ASYNC251  the point
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(999)
    await notifier.end()


def test_each_line_of_a_traceback_has_its_severity() -> None:
    try:
        raise ValueError("odd")
    except ValueError:
        record = logging.LogRecord("agent.store", logging.ERROR, "", 0, "failed", None, sys.exc_info())
    lines = JournalFormatter().format(record).splitlines()
    assert lines[0] == "<3>agent.store: failed"
    assert len(lines) > 3 and all(line.startswith("<3>") for line in lines)
    severities = [(logging.CRITICAL, 2), (logging.WARNING, 4), (logging.INFO, 6), (logging.DEBUG, 7)]
    for level, severity in severities:
        assert JournalFormatter().format(logging.LogRecord("a", level, "", 0, "b", None, None)) == f"<{severity}>a: b"


def test_a_redirected_stream_is_not_the_journal(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as stream:
        status = os.fstat(stream.fileno())
        assert is_journal(stream, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
        assert not is_journal(stream, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino + 1}"})
        assert not is_journal(stream, {})


# ---- the units ----------------------------------------------------------------------------


@pytest.mark.parametrize("unit", sorted(path.name for path in UNITS.glob("*.service")))
def test_systemd_finds_nothing_wrong_with_a_unit(unit: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze")
    for path in UNITS.glob("*.service"):  # verify wants commands that are there
        (tmp_path / path.name).write_text(path.read_text().replace("/usr/local/bin/ipsec-agent", COMMAND))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(tmp_path / unit)],
        capture_output=True,
        text=True,
    )
    complaints = [line for line in (done.stdout + done.stderr).splitlines() if "ipsec-agent" in line]
    assert done.returncode == 0 and not complaints, done.stderr


def test_systemd_does_find_what_is_wrong(tmp_path: Path) -> None:
    """That the test before this one can fail."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze")
    broken = tmp_path / "ipsec-agent.service"
    broken.write_text((UNITS / broken.name).read_text().replace("KillMode=process", "KillMode=perhaps"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(broken)], capture_output=True, text=True
    )
    assert "Failed to parse kill mode" in done.stderr


def test_policies_and_tunnels_outlive_the_unit_and_come_before_the_network() -> None:
    agent, early = settings_of("ipsec-agent.service"), settings_of("ipsec-agent-spd.service")
    assert agent["KillMode"] == ["process"], "charon lives in this unit's group and must survive it"
    assert "ExecStop" not in agent and "ExecStop" not in early
    assert agent["Type"] == ["notify"] and agent["LimitCORE"] == ["0"]
    assert "network-pre.target" in early["Before"][0].split() and early["Wants"] == ["network-pre.target"]
    assert early["DefaultDependencies"] == ["no"], "else it would come after basic.target"


@pytest.mark.slow
@pytest.mark.kernel
def test_agent_and_charon_work_with_the_capabilities_that_the_unit_leaves(
    tmp_path: Path, manager: socket.socket
) -> None:
    """And charon lives on when only the agent's own process is ended, as KillMode=process does."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None or not CHARON.exists():
        pytest.skip("needs root, setpriv and charon")
    wanted = settings_of("ipsec-agent.service")["CapabilityBoundingSet"][0].split()
    bounds = ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in wanted)])
    state = tmp_path / "state"
    charon = Daemon(state / "charon")
    with namespaces(1) as (namespace,):
        inside = ["ip", "netns", "exec", namespace.name]
        limited = [*inside, "setpriv", f"--bounding-set={bounds}", f"--inh-caps={bounds}", "--no-new-privs"]
        serve = [COMMAND, "serve", "--backend", "linux", "--state", str(state), "--listen", "127.0.0.1:161"]
        with (tmp_path / "log").open("wb") as log:
            agent = subprocess.Popen(
                [*limited, *serve],
                stdout=log,
                stderr=log,
                env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")},
            )
        try:
            while not manager.recv(999).startswith(b"READY=1"):
                assert agent.poll() is None, (tmp_path / "log").read_text()
            assert charon.alive(), (tmp_path / "log").read_text()
            assert "error" not in (tmp_path / "log").read_text().lower()
            agent.send_signal(signal.SIGTERM)
            assert agent.wait(60) == 0
            assert charon.alive()
            with (state / "charon" / "charon.log").open() as lines:
                assert not [line for line in lines if re.search("denied|not permitted|requires CAP", line)]
        finally:
            agent.kill()
            agent.wait()
            done = subprocess.run([*inside, COMMAND, "flush", "--state", str(state)], capture_output=True, text=True)
    assert "charon ended" in done.stdout, done.stderr
    assert not charon.alive()
