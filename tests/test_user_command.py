"""`ipsec-agent user` as it is typed: on a running agent, on a stopped one, and on one elsewhere."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.snmp.client import read_configuration, user_of_passphrases
from agent.snmp.presence import announce, local_address, withdraw
from tests.station import Agent

pytestmark = pytest.mark.slow

COMMAND = str(Path(sys.executable).parent / "ipsec-agent")
PASSWORDS = "a password to begin with\nand another for privacy\n"
PATIENCE = 60.0
GENERATED = re.compile(r"^(authentication|privacy) password: ([0-9a-f]{40})$", re.MULTILINE)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    made = Agent(tmp_path / "state")
    made.start()
    yield made
    if made.process is not None and made.process.poll() is None:
        made.stop()
    for station in made.stations:
        station.socket.close()


@pytest.fixture(params=["running", "stopped"])
def either(agent: Agent, request: pytest.FixtureRequest) -> Agent:
    if request.param == "stopped":
        assert agent.stop() == 0
    return agent


def user(agent: Agent, *arguments: str, given: str = "", code: int = 0) -> str:
    """What the command prints; where it ends with another status than 0, its error."""
    command = [COMMAND, "user", *arguments, "--state", str(agent.state)]
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == code, done
    if code:
        assert done.stdout == ""
        assert done.stderr.startswith("ipsec-agent: ") and done.stderr.count("\n") == 1, done.stderr
        return done.stderr.removeprefix("ipsec-agent: ").rstrip()
    return done.stdout


def rows(agent: Agent) -> list[list[str]]:
    head, *lines = user(agent, "list").splitlines()
    assert head.split() == ["NAME", "LEVEL", "AUTH", "PRIV", "SOURCES", "STATUS"]
    return [line.split() for line in lines]


def snmpget(agent: Agent, *options: str) -> subprocess.CompletedProcess[str]:
    if agent.process is None or agent.process.poll() is not None:
        agent.start()
    command = ["snmpget", "-v3", "-On", *options, f"127.0.0.1:{agent.port}", ".1.3.6.1.2.1.1.5.0"]
    environment = {**os.environ, "SNMPCONFPATH": str(agent.state), "MIBS": "", "LC_ALL": "C"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)


def options(name: str, auth: str, auth_password: str, priv: str, priv_password: str) -> list[str]:
    return ["-l", "authPriv", "-u", name, "-a", auth, "-A", auth_password, "-x", priv, "-X", priv_password]


net_snmp = pytest.mark.skipif(not shutil.which("snmpget"), reason="net-snmp's tools are not installed")


@net_snmp
def test_a_user_is_added_listed_changed_and_removed(either: Agent) -> None:
    assert rows(either) == [["admin", "admin", "sha256", "aes128", "any", "active"]]
    said = user(either, "add", "bob", "--level", "write", "--password-file", "-", given=PASSWORDS)
    assert said == "user bob added, level write\n"
    said = user(either, "add", "eve", "--auth", "sha512", "--priv", "aes256", "--generate")
    [(_, auth), (_, priv)] = GENERATED.findall(said)
    assert rows(either) == [
        ["admin", "admin", "sha256", "aes128", "any", "active"],
        ["bob", "write", "sha256", "aes128", "any", "active"],
        ["eve", "read", "sha512", "aes256", "any", "active"],
    ]
    said = user(either, "passwd", "bob", "--auth", "sha384", "--password-file", "-", given="one for both of them\n")
    assert said == "user bob has a new password\n"
    assert user(either, "add", "ann", "--priv", "none", "--generate").count("password: ") == 1
    assert user(either, "remove", "ann") == "user ann removed\n"
    assert [row[0] for row in rows(either)] == ["admin", "bob", "eve"]
    both = "one for both of them"
    for who in (options("eve", "SHA-512", auth, "AES-256", priv), options("bob", "SHA-384", both, "AES", both)):
        assert "STRING" in snmpget(either, *who).stdout, snmpget(either, *who)
    log = either.log.read_text()
    for secret in (*PASSWORDS.splitlines(), both, auth, priv):
        assert secret not in log
        assert not [path for path in either.state.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


@net_snmp
def test_the_state_folders_snmp_conf_follows_the_user_it_names(either: Agent) -> None:
    path = either.state / "snmp.conf"
    before = read_configuration(path)
    said = user(either, "passwd", "admin", "--auth", "sha512", "--priv", "aes256", "--generate")
    assert said.endswith(f"\n{path} has it too\n")
    [(_, auth), (_, priv)] = GENERATED.findall(said)
    assert read_configuration(path) == user_of_passphrases("admin", 7, auth, 5, priv) != before
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "STRING" in snmpget(either).stdout  # net-snmp reads it as well
    user(either, "passwd", "admin", "--password-file", "-", given=' a " quoted \\ one with # in it\n')
    assert "STRING" in snmpget(either).stdout
    user(either, "add", "boss", "--level", "admin", "--password-file", "-", given=PASSWORDS)
    assert user(either, "remove", "admin").endswith("is of no use now\n")


def test_what_cannot_be_done_is_said_in_one_line(either: Agent) -> None:
    for arguments, words in (
        (("remove", "admin"), "nobody of level admin would be left"),
        (("remove", "bob"), "there is no user 'bob'; accepted: admin"),
        (("passwd", "bob", "--generate"), "there is no user 'bob'"),
        (("add", "admin", "--generate"), "there is a user 'admin' already"),
        (("add", "bob"), "there is no terminal to ask for a password; accepted: --password-file or --generate"),
        (("add", "bob", "--auth", "none", "--generate"), "a user who proves nothing has no access"),
        (("add", "bob", "--auth", "sha3", "--generate"), "'sha3' is no value; accepted: none(1), md5(2)"),
        (("add", "bob", "--level", "root", "--generate"), "accepted: admin(1), write(2), read(3)"),
        (("add", "b" * 33, "--generate"), "accepted: 0..32 octets"),
        (("add", "bob", "--password-file", "/nonexistent"), "cannot be read: No such file or directory"),
        (("add", "bob", "--password-file", "-", "--generate"), "one of them"),
    ):
        assert words in user(either, *arguments, code=2), arguments
    assert "has 0 lines" in user(either, "add", "bob", "--password-file", "-", code=2)
    for given, words in (
        ("short\n", "has 5 octets"),
        ("long enough\nshort\n", "privacy password has 5"),
        ("\n", "0 octets"),
    ):
        assert words in user(either, "add", "bob", "--password-file", "-", given=given, code=2)
    assert len(rows(either)) == 1


def test_passwords_are_asked_for_twice_and_not_shown(either: Agent) -> None:
    def typed(*answers: str) -> tuple[str, int]:
        """What a terminal shows, and the exit status."""
        ours, theirs = pty.openpty()
        command = [COMMAND, "user", "add", "bob", "--state", str(either.state)]
        process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
        os.close(theirs)
        shown, asked, end = "", 0, time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if not select.select([ours], [], [], 0.2)[0]:
                continue
            try:
                shown += os.read(ours, 4096).decode()
            except OSError:
                break
            if shown.count(": ") > asked and asked < len(answers):
                os.write(ours, answers[asked].encode() + b"\n")
                asked += 1
        os.close(ours)
        return shown, process.wait(PATIENCE)

    shown, code = typed("the first one", "the second one")
    assert (code, "the two passwords differ; nothing was changed" in shown) == (2, True)
    shown, code = typed("the first one", "the first one", "")
    assert (code, "user bob added" in shown) == (0, True)
    assert "first one" not in shown
    assert [row[0] for row in rows(either)] == ["admin", "bob"]


def test_an_agent_elsewhere_is_asked_by_host_and_conf(agent: Agent, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    there = ["--host", f"127.0.0.1:{agent.port}", "--conf", str(agent.state / "snmp.conf"), "--state", str(elsewhere)]
    done = subprocess.run(
        [COMMAND, "user", "passwd", "admin", "--generate", *there], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    assert "has it too" not in done.stdout  # that file is its owner's business
    done = subprocess.run([COMMAND, "user", "list", *there], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, "authentication password or protocol is wrong" in done.stderr) == (2, True)
    assert list(elsewhere.iterdir()) == []


def test_a_folder_without_a_store_gets_none(tmp_path: Path) -> None:
    done = subprocess.run(
        [COMMAND, "user", "list", "--state", str(tmp_path / "wrong")], capture_output=True, text=True, timeout=PATIENCE
    )
    assert (done.returncode, "there is no store in" in done.stderr) == (2, True)
    assert list(tmp_path.iterdir()) == []


# ---- where the agent of a state folder answers ----------------------------------------


def test_the_running_agent_says_where_it_answers(agent: Agent) -> None:
    assert local_address(agent.state) == ("127.0.0.1", agent.port)
    assert agent.stop() == 0
    assert local_address(agent.state) is None


def test_loopback_is_asked_first_and_anywhere_means_here(tmp_path: Path) -> None:
    assert local_address(tmp_path) is None
    for addresses, found in (
        ([("192.0.2.1", 161), ("127.0.0.1", 1161)], ("127.0.0.1", 1161)),
        ([("192.0.2.1", 161)], ("192.0.2.1", 161)),
        ([("0.0.0.0", 161)], ("127.0.0.1", 161)),
        ([("192.0.2.1", 1), ("::", 161)], ("::1", 161)),
        ([], None),
    ):
        announce(tmp_path, addresses, "linux")
        assert local_address(tmp_path) == found
    (tmp_path / "run.json").write_text('{"listen": [{"address": 1}]')
    assert local_address(tmp_path) is None
    withdraw(tmp_path)
    withdraw(tmp_path)
    assert list(tmp_path.iterdir()) == []
