"""The shell over SSH, with OpenSSH's client: who gets in, what he may do there, and what is not to be had."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import pytest

from tests.ssh_gateway import PASSWORDS, PATIENCE, PROGRAM, Gateway, Ran, gateway, make_key
from tests.station import GET, NULL, Station, instance
from tests.test_shell_terminal import CTRL_C, CTRL_D, ENTER, TAB, UP, Terminal

REFUSED = 255  # of ssh: it did not come to a session
SESSIONS = 50
SNMP_PATIENCE = 1.0  # seconds that most answers may take while all of them log in at once, on a busy machine


pytestmark = pytest.mark.slow  # a whole agent and dozens of clients; the parts are in test_shell_ssh_parts.py


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway(tmp_path_factory.mktemp("ssh"), "--log-level", "debug") as made:
        made.shell("ipsecGwSystemName=box; ipsecTrProto=dont-verify; ipsecPeerTrafficList=1 Description=Branch")
        yield made


# ---- with a command -------------------------------------------------------------------


def test_a_command_answers_as_the_shell_here_does(box: Gateway) -> None:
    for line in (
        "ipsecPeerTable",
        "ipsecGlobEnabled?",
        "l; ikeProposalTable",
        "help ipsecPeerAdminStatus",
        "explain 192.0.2.1 10.2.0.1",
    ):
        there = box.ssh("boss", line)
        assert (there.returncode, there.stderr) == (0, ""), there
        assert there.stdout == box.shell(line)


def test_the_exit_status_tells(box: Gateway) -> None:
    assert box.ssh("boss", "nonsense").returncode == 2
    refused = box.ssh("boss", "ipsecPeerIkeProfile.1=77")
    assert refused.returncode == 1 and "ipsecPeerIkeProfile" in refused.stderr and refused.stdout == ""
    assert box.ssh("boss", "ipsecPeerDescription.1=Changed").returncode == 0
    assert "Changed" in box.shell("ipsecPeerDescription.1")


def test_a_script_ends_at_the_line_that_fails(box: Gateway) -> None:
    script = "ipsecPeerDescription.1=Scripted\nipsecPeerDescription.1\nnonsense\nipsecPeerDescription.1=Beyond\n"
    ran = box.ssh("boss", options=["-T"], lines=script)
    assert ran.returncode == 2
    assert ran.stdout.count('"Scripted"') == 2
    assert ran.stderr.startswith("line 3: 'nonsense'")
    assert "Scripted" in box.shell("ipsecPeerDescription.1")


def test_what_is_typed_is_in_no_log(box: Gateway) -> None:
    assert box.ssh("boss", 'ipsecPeerPreSharedKey.1="quite a secret"').returncode == 0
    assert box.ssh("boss", "ipsecGlobEnabled", password="a slip of the pen").returncode == REFUSED
    logged = box.logged()
    assert 'ipsecPeerPreSharedKey.1 = "*"' in logged
    for secret in ("quite a secret", "a slip of the pen", *PASSWORDS.values()):
        assert secret not in logged


# ---- who gets in, and what he may do --------------------------------------------------


def test_a_key_opens_the_shell_and_no_other_does(box: Gateway, tmp_path: Path) -> None:
    for row, kind in enumerate(("ed25519", "ecdsa"), 1):
        text = make_key(tmp_path / kind, kind)
        box.shell(f'ipsecGwLoginKeyUser.{row}={number_of(box, "operator")} ipsecGwLoginKeyText.{row}="{text}"')
        ran = box.ssh("operator", "ipsecGlobEnabled", key=tmp_path / kind)
        assert (ran.returncode, ran.stdout) == (0, "ipsecGlobEnabled( rw):  false\n"), ran.stderr
        assert box.ssh("boss", "ipsecGlobEnabled", key=tmp_path / kind).returncode == REFUSED  # another one's
    make_key(tmp_path / "stranger")
    assert box.ssh("operator", "ipsecGlobEnabled", key=tmp_path / "stranger").returncode == REFUSED
    assert "logged in by key" in box.logged()
    assert text in box.ipsec_agent("export", "--administration")
    box.shell("ipsecGwLoginKeyRowStatus.1=destroy")
    assert box.ssh("operator", "ipsecGlobEnabled", key=tmp_path / "ed25519").returncode == REFUSED
    assert box.ssh("operator", "ipsecGlobEnabled", key=tmp_path / "ecdsa").returncode == 0


def test_a_user_has_the_rights_of_his_snmp_user(box: Gateway) -> None:
    assert box.ssh("noc", "ipsecPeerDescription.1").returncode == 0
    refused = box.ssh("noc", "ipsecPeerDescription.1=mine")
    assert refused.returncode == 1 and "mine" not in box.shell("ipsecPeerDescription.1")
    assert box.ssh("operator", "ipsecPeerDescription.1=ours").returncode == 0
    assert "ours" in box.shell("ipsecPeerDescription.1")
    assert "user operator from 127.0.0.1: ipsecPeerDescription.1" in box.logged()  # the audit line
    for name in ("noc", "operator"):
        assert "boss" not in box.ssh(name, "ipsecGwUserTable").stdout
        for command in ("ps", "ping 127.0.0.1", "netstat -r", "traceroute 127.0.0.1"):
            ran = box.ssh(name, command)
            assert ran.returncode == 1 and "level admin" in ran.stderr and ran.stdout == ""
    assert "boss" in box.ssh("boss", "ipsecGwUserTable").stdout
    assert "RSS" in box.ssh("boss", "ps").stdout
    for command in ("ping -f 127.0.0.1", "ping --help", "nslookup -x", "ps aux", "ping '$(id)'"):
        assert box.ssh("boss", command).returncode == 2, command


def test_wrong_passwords_take_time_are_told_and_bar_their_source(box: Gateway) -> None:
    def guesses(name: str, passwords: int) -> Ran:
        options = ["-b", "127.0.0.7", "-o", f"NumberOfPasswordPrompts={passwords}"]
        return box.ssh(name, "date", password="wrong password", options=options)

    began = time.monotonic()
    assert guesses("boss", 1).returncode == REFUSED and time.monotonic() - began > 2
    with ThreadPoolExecutor() as together:
        some = [together.submit(guesses, *guess) for guess in (("nobody at all", 9), ("boss", 9))]
        few = [together.submit(guesses, "boss", 1) for _ in range(3)]
        assert all("Too many authentication failures" in ran.result().stderr for ran in some)
        assert all(ran.result().returncode == REFUSED for ran in (*some, *few))
    assert box.logged().count("for user boss from 127.0.0.7") == 7
    right = box.ssh("boss", "date", options=["-b", "127.0.0.7"])
    assert right.returncode == REFUSED and "ermission denied" not in right.stderr, right  # it was not even asked for
    assert "reset" in right.stderr or "closed" in right.stderr, right
    assert box.ssh("boss", "date").returncode == 0
    events = box.shell("debug show authentication-failure")
    assert "ssh login of user boss from 127.0.0.7" in events and "wrong password" not in events
    assert "ssh: user boss from 127.0.0.1 logged in by password" in box.shell("debug show other")


def test_strangers_who_say_nothing_crowd_out_themselves(box: Gateway) -> None:
    """Two hundred connections from one address; then somebody from another one logs in, and SNMP is answered."""
    held = []
    try:
        for _ in range(200):
            made = socket.socket()
            made.bind(("127.0.0.9", 0))
            made.connect(("127.0.0.1", box.ssh_port))
            held.append(made)
        assert box.ssh("boss", "ipsecGlobEnabled").returncode == 0
        ended = sum(dead(made) for made in held)
        assert ended == 200 - 64
    finally:
        for made in held:
            made.close()


def dead(made: socket.socket) -> bool:
    """The other end has closed it: behind the version there is an end, or not even that."""
    made.settimeout(0.05)
    try:
        while made.recv(4096):
            pass
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True
    return True


def test_a_session_ends_when_its_user_is_another_one(box: Gateway, tmp_path: Path) -> None:
    for name in ("leaver", "loser"):
        (tmp_path / name).write_text("the first password\n")
        box.ipsec_agent("user", "add", name, "--level", "write", "--password-file", str(tmp_path / name))
    with (
        Held(box, "leaver", "the first password") as leaver,
        Held(box, "loser", "the first password") as loser,
        Held(box, "boss") as boss,
    ):
        box.ipsec_agent("user", "remove", "leaver")
        (tmp_path / "loser").write_text("another password\n")
        box.ipsec_agent("user", "passwd", "loser", "--password-file", str(tmp_path / "loser"))
        with contextlib.suppress(BrokenPipeError):  # it may have ended already
            loser.says("ipsecPeerDescription.1=late\n")
        assert leaver.process.wait(PATIENCE) != 0 and loser.process.wait(PATIENCE) != 0
        assert "late" not in box.shell("ipsecPeerDescription.1")
        boss.says("ipsecGlobEnabled\n")
        assert boss.reads(b"false")


# ---- interactive ----------------------------------------------------------------------


@pytest.fixture
def terminal(box: Gateway, tmp_path: Path) -> Iterator[Terminal]:
    key = tmp_path / "id"
    row = 70
    box.shell(f'ipsecGwLoginKeyUser.{row}={number_of(box, "boss")} ipsecGwLoginKeyText.{row}="{make_key(key)}"')
    shown = Terminal(command=box.command("boss", "-tt", key=key))
    try:
        shown.sees_last("box:>")
        yield shown
    finally:
        shown.close()
        box.shell(f"ipsecGwLoginKeyRowStatus.{row}=destroy")


def test_at_a_terminal_lines_are_edited_completed_and_remembered(terminal: Terminal) -> None:
    assert "Tab completes" in "\n".join(terminal.lines)
    terminal.types("ipsecPeerTab" + TAB)
    terminal.sees_last("box:> ipsecPeerTable")
    terminal.types(ENTER)
    terminal.sees_last("box:ipsecPeerTable>")
    terminal.types("Descr" + TAB)
    terminal.sees_last("box:ipsecPeerTable> Description")
    terminal.types(":0=grüße" + ENTER)
    done = ['00: ipsecPeerDescription.1( rw):  "grüße"', "box:ipsecPeerTable>"]
    terminal.sees(lambda lines: lines[-2:] == done)
    terminal.types(UP)
    terminal.sees_last("box:ipsecPeerTable> Description:0=grüße")
    terminal.types(CTRL_C)
    terminal.sees_last("box:ipsecPeerTable>")
    terminal.types("nonsense" + ENTER)
    terminal.sees(lambda lines: "no name" in lines[-2])
    terminal.types(CTRL_D)
    assert terminal.ends() == 2
    assert b"\x1b[6n" not in terminal.raw


def test_ctrl_c_ends_a_command_there(terminal: Terminal) -> None:
    terminal.types("debug all" + ENTER)
    terminal.sees(lambda lines: "events as they happen; Ctrl-C ends" in lines)  # its own login may come behind
    terminal.types("ipsecGlobEn" + CTRL_C)
    terminal.sees_last("box:> ipsecGlobEn")
    terminal.types("abled" + ENTER)
    terminal.sees(lambda lines: lines[-2:] == ["ipsecGlobEnabled( rw):  false", "box:>"])
    terminal.types("ping 127.0.0.1" + ENTER)
    terminal.sees(lambda lines: any("icmp_seq=1" in line for line in lines))
    terminal.types(CTRL_C)
    terminal.sees_last("box:>")
    terminal.types("exit" + ENTER)
    assert terminal.ends() == 0


def test_a_command_at_a_terminal_ends_by_ctrl_c(box: Gateway, tmp_path: Path) -> None:
    key = tmp_path / "id"
    box.shell(f'ipsecGwLoginKeyUser.71={number_of(box, "noc")} ipsecGwLoginKeyText.71="{make_key(key)}"')
    shown = Terminal("debug all", command=box.command("noc", "-tt", key=key))
    try:
        shown.sees(lambda lines: "events as they happen; Ctrl-C ends" in lines)  # its own login may come behind
        shown.types(CTRL_C)
        assert shown.ends() == 130
    finally:
        shown.close()
        box.shell("ipsecGwLoginKeyRowStatus.71=destroy")


def test_a_window_that_becomes_wider_there(terminal: Terminal) -> None:
    terminal.types("ikeProposalTable:0" + ENTER)
    terminal.sees(lambda lines: lines[-1] == "box:>" and any("EncAlg(*rw)" in line for line in lines))
    assert max(map(len, terminal.lines)) < 80
    terminal.resize(120, 24)
    terminal.process.send_signal(signal.SIGWINCH)
    time.sleep(0.3)
    terminal.types("ikeProposalTable:0" + ENTER)
    terminal.sees(lambda lines: lines[-1] == "box:>" and any(len(line) > 80 for line in lines))


# ---- many, and for long ---------------------------------------------------------------


class Held:
    """A session that reads lines from a pipe, which is held open: logged in once this is there."""

    def __init__(self, box: Gateway, user: str, password: str | None = None) -> None:
        self.process = subprocess.Popen(
            box.command(user, "-T"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=box.environment(user, password),
        )
        self.says("ipsecGwSystemName\n")
        self.read = b""

    def __enter__(self) -> Held:
        assert self.reads(b"ipsecGwSystemName"), self.read
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # of what was never read
            self.process.stdin.close()
        try:
            self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()

    def says(self, lines: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(lines.encode())
        self.process.stdin.flush()

    def reads(self, octets: bytes) -> bool:
        """Whether they come."""
        assert self.process.stdout is not None
        end = time.monotonic() + PATIENCE
        while octets not in self.read and time.monotonic() < end:
            if select.select([self.process.stdout], [], [], 0.1)[0]:
                more = os.read(self.process.stdout.fileno(), 65536)
                if not more:
                    break
                self.read += more
        found = octets in self.read
        self.read = b""
        return found


def test_fifty_sessions_while_the_agent_answers(box: Gateway) -> None:
    station = Station(box.port)
    waits: list[float] = []

    def asks() -> None:
        began = time.monotonic()
        station.ask(GET, [(instance("ipsecGwGeneration", 0), NULL)])
        waits.append(time.monotonic() - began)

    sessions = []
    try:
        for _ in range(SESSIONS):
            sessions.append(Held(box, "noc"))
            asks()
        for session in sessions:
            asks()
            session.__enter__()
        logins = len(waits)
        for session in sessions:
            session.says("ikeProposalTable\n")
            asks()
        for session in sessions:
            assert session.reads(b"1028")
            asks()
        assert all(session.process.poll() is None for session in sessions)
    finally:
        for session in sessions:
            session.__exit__()
        station.socket.close()
    for some in (waits[:logins], waits[logins:]):
        assert median(some) < SNMP_PATIENCE and max(some) < 15, sorted(some)[-5:]
    print(f"logging in: {max(waits[:logins]):.3f} s at most; showing tables: {max(waits[logins:]):.3f} s")


def test_who_does_nothing_is_logged_out(tmp_path: Path) -> None:
    with gateway(tmp_path, "--ssh-idle", "5") as box, Held(box, "noc") as idle, Held(box, "noc") as busy:
        began = time.monotonic()
        while idle.process.poll() is None:
            time.sleep(0.5)
            busy.says("ipsecGlobEnabled\n")
            assert busy.reads(b"false")
            assert time.monotonic() - began < PATIENCE / 2
        assert idle.process.returncode != 0
        assert busy.process.poll() is None
        assert box.logs("idle for 5 seconds") and "logged out after" in box.logged()
        key = tmp_path / "id"
        box.shell(f'ipsecGwLoginKeyUser.1={number_of(box, "noc")} ipsecGwLoginKeyText.1="{make_key(key)}"')
        shown = Terminal(command=box.command("noc", "-tt", key=key))
        try:
            shown.sees(lambda lines: lines and lines[-1].endswith(":>"))
            shown.types("ipsecGlobEn")
            assert shown.ends() != 0
            shown.reads(0.5)
            assert any(line == "idle for 5 seconds" for line in shown.lines), shown.lines
            assert shown.raw.rindex(b"\x1b[?2004l") > shown.raw.rindex(b"\x1b[?2004h")  # pasting is as it was
        finally:
            shown.close()


def test_an_agent_that_ends_ends_its_sessions(tmp_path: Path) -> None:
    box = Gateway(tmp_path)
    box.begin()
    box.add_users()
    with Held(box, "noc") as session:
        began = time.monotonic()
        assert box.stop() == 0
        assert time.monotonic() - began < 30
        assert session.process.wait(PATIENCE) != 0
    assert "Traceback" not in box.logged() and "ERROR" not in box.logged()


# ---- what is not to be had ------------------------------------------------------------


def test_the_host_key_stays(tmp_path: Path) -> None:
    box = Gateway(tmp_path)
    box.begin()
    box.add_users()
    file = box.state / "ssh_host_ed25519_key"
    assert file.stat().st_mode & 0o777 == 0o600
    key = file.read_bytes()
    assert box.ssh("noc", "ipsecGlobEnabled").returncode == 0
    assert box.stop() == 0
    box.start().socket.close()
    try:
        assert file.read_bytes() == key
        assert box.ssh("noc", "ipsecGlobEnabled").returncode == 0  # known_hosts is that of the first run
    finally:
        assert box.stop() == 0
    file.chmod(0o644)
    command = [PROGRAM, "serve", "--state", str(box.state), "--ssh", f"127.0.0.1:{box.ssh_port}"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert ran.returncode == 2 and "chmod 600" in ran.stderr


def test_nothing_is_forwarded_and_there_are_no_files(box: Gateway, tmp_path: Path) -> None:
    ran = box.ssh("boss", options=["-W", f"127.0.0.1:{box.ssh_port}"])
    assert ran.returncode == REFUSED and "forwarding failed" in ran.stderr
    for option in ("-R0:127.0.0.1:1", f"-R{tmp_path}/socket:127.0.0.1:1"):
        ran = box.ssh("boss", "date", options=["-o", "ExitOnForwardFailure=yes", option])
        assert ran.returncode == REFUSED and "forwarding" in ran.stderr, ran
    assert not list(tmp_path.iterdir())
    ran = box.ssh("boss", "sftp", options=["-s"])
    assert ran.returncode == REFUSED and "subsystem request failed" in ran.stderr
    ran = box.ssh("boss", "scp -t /tmp")
    assert ran.returncode == 2 and "'scp' is no name" in ran.stderr
    ran = box.ssh("boss", "date", options=["-w", "any"])
    assert "Tunnel" in ran.stderr or "tunnel" in ran.stderr or ran.returncode == REFUSED


@pytest.mark.parametrize(
    "options",
    [
        ["-c", "aes256-cbc"],
        ["-c", "aes128-ctr", "-m", "hmac-sha1"],
        ["-c", "aes128-ctr", "-m", "hmac-sha2-256"],
        ["-o", "KexAlgorithms=diffie-hellman-group14-sha1"],
        ["-o", "KexAlgorithms=diffie-hellman-group14-sha256"],
        ["-o", "HostKeyAlgorithms=ssh-rsa"],
    ],
    ids=lambda options: options[-1],
)
def test_weak_algorithms_are_not_spoken(box: Gateway, options: list[str]) -> None:
    ran = box.ssh("noc", "ipsecGlobEnabled", options=options)
    assert ran.returncode == REFUSED and "no matching" in ran.stderr, ran.stderr


def number_of(box: Gateway, user: str) -> int:
    """Row of ipsecGwUserTable."""
    for line in box.shell("ipsecGwUserName").splitlines():
        if f'"{user}"' in line:
            return int(line.partition("ipsecGwUserName.")[2].partition("(")[0])
    raise AssertionError(f"no user {user}")
