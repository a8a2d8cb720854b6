"""The shell on a pseudo-terminal, as a terminal emulator shows it: editing, history, completion, Ctrl-C, resizing."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyte
import pytest

from tests.station import Agent

pytestmark = pytest.mark.slow

PROGRAM = str(Path(sys.executable).parent / "ipsec-agent")
PATIENCE = 60.0  # seconds
UP, HOME, END_OF_LINE, TAB, ENTER, CTRL_C, CTRL_D = "\x1b[A", "\x01", "\x05", "\t", "\r", "\x03", "\x04"


class Terminal:
    """80 columns and 24 lines unless told otherwise. `command`: another one than the shell here."""

    def __init__(
        self,
        *options: str,
        columns: int = 80,
        lines: int = 24,
        kind: str = "xterm",
        command: Sequence[str] = (PROGRAM, "shell"),
    ) -> None:
        self.screen = pyte.HistoryScreen(columns, lines, history=5000)
        self.stream = pyte.ByteStream(self.screen)
        self.master, slave = pty.openpty()
        self.resize(columns, lines)
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            [*command, *options],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**environment, "TERM": kind},
            start_new_session=True,
        )
        os.close(slave)
        self.raw = b""

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.screen.resize(lines, columns)

    def types(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def reads(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and select.select([self.master], [], [], left)[0]:
            try:
                octets = os.read(self.master, 65536)
            except OSError:  # the other end is closed
                return
            self.raw += octets
            self.stream.feed(octets)

    def sees(self, condition: Callable[[list[str]], object]) -> list[str]:
        """The screen, as soon as it is so."""
        end = time.monotonic() + PATIENCE
        while not condition(self.lines):
            assert time.monotonic() < end, "\n".join(self.lines)
            self.reads(0.05)
        return self.lines

    def sees_last(self, line: str) -> list[str]:
        return self.sees(lambda lines: lines and lines[-1] == line)

    @property
    def lines(self) -> list[str]:
        """What is on the screen, without empty lines at its end."""
        found = [line.rstrip() for line in self.screen.display]
        while found and not found[-1]:
            found.pop()
        return found

    def ends(self) -> int:
        end = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < end, "\n".join(self.lines)
            self.reads(0.05)
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        os.close(self.master)


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    running = Agent(tmp_path_factory.mktemp("shell") / "state")
    station = running.start()
    station.socket.close()
    name = ("-c", "ipsecGwSystemName=box; ipsecTrProto=dont-verify; ipsecPeerTrafficList=1 Description=Branch")
    subprocess.run([PROGRAM, "shell", "--state", str(running.state), *name], check=True, capture_output=True)
    try:
        yield running
    finally:
        assert running.stop() == 0


@pytest.fixture
def terminal(agent: Agent) -> Iterator[Terminal]:
    (agent.state / "shell_history").unlink(missing_ok=True)
    shown = Terminal("--state", str(agent.state))
    try:
        shown.sees_last("box:>")
        yield shown
    finally:
        shown.close()


def test_completion_of_names_columns_and_labels(terminal: Terminal) -> None:
    terminal.types("ipsecPeerTab" + TAB)
    terminal.sees_last("box:> ipsecPeerTable")
    terminal.types(ENTER)
    terminal.sees_last("box:ipsecPeerTable>")
    terminal.types("StartM" + TAB)
    terminal.sees_last("box:ipsecPeerTable> StartMode")
    terminal.types(":0=al" + TAB)
    terminal.sees_last("box:ipsecPeerTable> StartMode:0=always-up")
    terminal.types(ENTER)
    done = ["00: ipsecPeerStartMode.1( rw):  always-up", "box:ipsecPeerTable>"]
    terminal.sees(lambda lines: lines[-2:] == done)
    terminal.types("AdminStatus:0=d" + TAB)  # several: the second one lists them
    time.sleep(0.3)
    terminal.types(TAB)
    terminal.sees(lambda lines: "down" in lines[-2] and "dialup" in lines[-2] and "delete" in " ".join(lines[-4:]))
    terminal.types(CTRL_C)
    terminal.sees_last("box:ipsecPeerTable>")


def test_history_and_editing(terminal: Terminal, agent: Agent) -> None:
    terminal.types('ipsecTrDescription.1="first"' + ENTER)
    terminal.sees(lambda lines: lines[-2:] == ['00: ipsecTrDescription.1( rw):  "first"', "box:>"])
    terminal.types('ipsecPeerPreSharedKey.1="not to be kept"' + ENTER)
    terminal.sees(lambda lines: lines[-2:] == ['00: ipsecPeerPreSharedKey.1( rw):  "*"', "box:>"])
    terminal.types(UP)  # the line with the key is forgotten
    terminal.sees_last('box:> ipsecTrDescription.1="first"')
    terminal.types("\x7f" * len('first"') + '"2nd"'[1:] + HOME)
    terminal.types(END_OF_LINE + ENTER)
    terminal.sees(lambda lines: lines[-2:] == ['00: ipsecTrDescription.1( rw):  "2nd"', "box:>"])
    terminal.types(CTRL_D)
    assert terminal.ends() == 0
    kept = (agent.state / "shell_history").read_text()
    assert '+ipsecTrDescription.1="2nd"' in kept and "not to be kept" not in kept and "PreShared" not in kept
    assert (agent.state / "shell_history").stat().st_mode & 0o777 == 0o600
    again = Terminal("--state", str(agent.state))
    try:
        again.sees_last("box:>")
        again.types(UP)
        again.sees_last('box:> ipsecTrDescription.1="2nd"')
        again.types("\x15exit" + ENTER)
        assert again.ends() == 0
    finally:
        again.close()


def test_ctrl_c_ends_a_command_and_keys_typed_meanwhile_are_kept(terminal: Terminal) -> None:
    terminal.types("debug all" + ENTER)
    terminal.sees(lambda lines: "events as they happen; Ctrl-C ends" in lines)
    terminal.types("ipsecGlobEn" + CTRL_C)  # both are read at once, or not
    terminal.sees(lambda lines: lines[-1:] == ["box:> ipsecGlobEn"] and "^C" in lines[-2])
    terminal.types("abled" + ENTER)
    terminal.sees(lambda lines: lines[-2:] == ["ipsecGlobEnabled( rw):  false", "box:>"])


def test_events_are_followed(terminal: Terminal, agent: Agent) -> None:
    terminal.types("debug configuration-changed" + ENTER)
    terminal.sees(lambda lines: "events as they happen; Ctrl-C ends" in lines)
    change = ("-c", "ipsecTrDescription.1=changed")
    subprocess.run([PROGRAM, "shell", "--state", str(agent.state), *change], check=True, capture_output=True)
    terminal.sees(lambda lines: any(" info configuration-changed: generation " in line for line in lines))
    terminal.types(CTRL_C)
    terminal.sees_last("box:>")


def test_a_window_that_becomes_wider(terminal: Terminal) -> None:
    terminal.types("ikeProposalTable:0" + ENTER)
    terminal.sees(lambda lines: lines[-1] == "box:>" and any("EncAlg(*rw)" in line for line in lines))
    assert max(map(len, terminal.lines)) < 80
    terminal.resize(120, 24)
    terminal.types("ikeProposalTable:0" + ENTER)
    terminal.sees(lambda lines: lines[-1] == "box:>" and any(len(line) > 80 for line in lines))


def test_no_questions_are_asked_of_the_terminal(terminal: Terminal) -> None:
    """Programs that drive the shell on a pseudo-terminal do not answer reports of the cursor's place."""
    terminal.types("exit" + ENTER)
    assert terminal.ends() == 0
    assert b"\x1b[6n" not in terminal.raw and b"WARNING" not in terminal.raw
    assert b"box:> " in terminal.raw, "the prompt is written as it is, with its blank"


def test_a_terminal_without_escape_sequences(agent: Agent) -> None:
    """As expect has it."""
    plain = Terminal("--state", str(agent.state), kind="dumb")
    try:
        plain.sees_last("box:>")
        plain.types("ipsecGlobEnabled" + ENTER)
        plain.sees(lambda lines: lines[-2:] == ["ipsecGlobEnabled( rw):  false", "box:>"])
        plain.types("ipsecPeerTable" + ENTER)
        plain.sees_last("box:ipsecPeerTable>")
        plain.types("exit" + ENTER)
        assert plain.ends() == 0
        assert b"\x1b" not in plain.raw and plain.raw.count(b"box:> ") == 2
    finally:
        plain.close()


def test_status_is_that_of_the_last_line(terminal: Terminal) -> None:
    terminal.types("nonsense" + ENTER)
    terminal.sees(lambda lines: lines[-1] == "box:>" and "'nonsense' is no name" in lines[-2])
    terminal.types(CTRL_D)
    assert terminal.ends() == 2
