"""`ipsec-agent shell` for programs: `--command` and standard input, exit status, plain text, which agent, as whom."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.station import Agent

pytestmark = pytest.mark.slow

PROGRAM = str(Path(sys.executable).parent / "ipsec-agent")


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    running = Agent(tmp_path_factory.mktemp("shell") / "state")
    running.start().socket.close()
    try:
        yield running
    finally:
        assert running.stop() == 0


def shell(*options: str, typed: str | None = None, columns: str = "") -> subprocess.CompletedProcess[str]:
    """Without a terminal."""
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    return subprocess.run(
        [PROGRAM, "shell", *options],
        **({"input": typed} if typed is not None else {"stdin": subprocess.DEVNULL}),  # type: ignore[call-overload]
        env=environment | ({"COLUMNS": columns} if columns else {}),
        capture_output=True,
        text=True,
        timeout=60,
    )


def local(agent: Agent, *options: str, typed: str | None = None, columns: str = "") -> subprocess.CompletedProcess[str]:
    return shell("--state", str(agent.state), *options, typed=typed, columns=columns)


def test_a_command_and_its_status(agent: Agent) -> None:
    done = local(agent, "--command", "ipsecGlobContDefaultRule=pass; ipsecGlobContDefaultRule")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "ipsecGlobContDefaultRule( rw):  pass\n" * 2
    refused = local(agent, "-c", "ipsecPeerTrafficList=77; l")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("ipsecPeerTrafficList.1 = 77: there is no row 77 in ipsecTrafficTable; accepted: ")
    assert local(agent, "-c", "nonsense").returncode == 2


def test_standard_input_is_a_script_that_ends_at_the_first_failure(agent: Agent) -> None:
    typed = (
        '# two rules\nipsecTrProto=tcp Description="ürsprung"\n\nipsecTrProto=udp Description=two\nipsecTrDescription\n'
    )
    done = local(agent, typed=typed)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-2:] == [
        '00: ipsecTrDescription.1( rw):  "ürsprung"',
        '01: ipsecTrDescription.2( rw):  "two"',
    ]
    assert "\x1b" not in done.stdout and "> " not in done.stdout, "plain text, no prompt"
    failed = local(agent, typed="ipsecTrDescription.1=one\nipsecTrLocalPort.1=99999\nipsecTrDescription.1=never\n")
    assert failed.returncode == 1
    assert failed.stderr == "line 2: ipsecTrLocalPort.1 = 99999: no port; accepted: 1..65535, 0 or -1 for any\n"
    assert '"one"' in local(agent, "-c", "ipsecTrDescription.1").stdout
    assert local(agent, typed="exit\nipsecTrDescription.1=never\n").returncode == 0
    assert local(agent, "-c", "ipsecTrafficTable:0=delete; ipsecTrafficTable:1=delete").returncode == 0


def test_octets_and_letters_pass_whatever_the_locale(agent: Agent) -> None:
    command = [PROGRAM, "shell", "--state", str(agent.state)]
    typed = b"ipsecGwSystemLocation=caf\xe9-\xc3\xa9\n"
    latin = {**os.environ, "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, input=typed, env=latin, capture_output=True, timeout=60)
    assert done.stdout == b'ipsecGwSystemLocation( rw):  "caf\\xe9-\\xe9"\n', done.stderr
    done = subprocess.run([*command, "-c", "ipsecGwSystemLocation"], capture_output=True, timeout=60)
    assert done.stdout == b'ipsecGwSystemLocation( rw):  "caf\\xe9-\xc3\xa9"\n'


def test_a_reader_that_has_had_enough(agent: Agent) -> None:
    command = f"{PROGRAM} shell --state {agent.state} -c 'l; ikeProposalTable; ikeProposalTable; l' | head -1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("00 ") and done.stderr == ""


def test_columns(agent: Agent) -> None:
    narrow, wide = local(agent, "-c", "ikeProposalTable"), local(agent, "-c", "ikeProposalTable", columns="120")
    assert max(map(len, narrow.stdout.splitlines())) <= 80 < max(map(len, wide.stdout.splitlines())) <= 120
    assert wide.stdout == local(agent, "--columns", "120", "-c", "ikeProposalTable").stdout


def test_another_agent_by_name_and_community_or_user(agent: Agent, tmp_path: Path) -> None:
    host = ("--state", str(tmp_path), "--host")
    done = shell(*host, f"localhost:{agent.port}", "--community", "w", "-c", "ipsecGlobEnabled")
    assert (done.stdout, done.stderr) == ("ipsecGlobEnabled( rw):  false\n", "")
    (tmp_path / "community").write_text("w\n")
    file = ("--community-file", str(tmp_path / "community"))
    for version in ("1", "2c"):
        done = shell(*host, "127.0.0.1", "--port", str(agent.port), *file, "--version", version, "-c", "ipsecPeerTable")
        assert done.returncode == 0 and done.stdout.startswith("inx Index(ro)")
    done = shell(*host, f"127.0.0.1:{agent.port}", "--conf", str(agent.state / "snmp.conf"), "-c", "ipsecGwUserName")
    assert done.stdout == '00: ipsecGwUserName.1(*rw):  "admin"\n'
    (tmp_path / "password").write_text("an auth secret\na priv secret\n")
    made = local(
        *(agent, "-c", "ipsecGwUserName=anna Level=write AuthPassword='an auth secret' PrivPassword='a priv secret'"),
    )
    assert made.returncode == 0, made.stderr
    assert "secret" not in made.stdout
    user = ("--user", "anna", "--password-file", str(tmp_path / "password"))
    done = shell(*host, f"127.0.0.1:{agent.port}", *user, "-c", "ipsecGlobContDefaultRule=pass")
    assert (done.returncode, done.stderr) == (0, "")
    done = shell(*host, f"127.0.0.1:{agent.port}", *user, "-c", "ipsecGwUserLevel.1=write")
    assert done.returncode == 1 and done.stderr == "ipsecGwUserLevel.1 = write: you may not write it\n"
    assert local(agent, "-c", "ipsecGwUserRowStatus.2=destroy").returncode == 0


def test_explain_knows_the_local_configuration(agent: Agent) -> None:
    done = local(agent, "-c", "explain 192.0.2.1 192.0.2.2 tcp 80")
    assert done.stdout == "pass: IPsec is switched off (ipsecGlobEnabled)\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--state", "/nonexistent"), "no agent says that it runs on /nonexistent; accepted: --state"),
        (("--host", "a b"), "--host 'a b' is no host; accepted: a name or address"),
        (("--host", "h:1", "--port", "2"), "--host and --port name different ports"),
        (("--state", "/nonexistent", "--host", "127.0.0.1:9"), "as whom? accepted: --user, --community"),
        (("--host", "127.0.0.1:9", "--community", "x", "--user", "y"), "--user, --community and --community-file: one"),
        (("--host", "127.0.0.1:9", "--community", "x", "--version", "3"), "--version 3: accepted: 1 or 2c"),
        (("--host", "127.0.0.1:9", "--user", "x", "--auth", "rot13"), "'rot13' is no authentication protocol"),
        (("--host", "127.0.0.1:9", "--user", "x", "--password-file", "/nonexistent"), "--password-file /nonexistent"),
        (("--host", "host.invalid", "--community", "x"), "host.invalid:1161: "),
    ],
)
def test_a_session_that_cannot_begin_says_why(options: tuple[str, ...], said: str) -> None:
    done = shell(*options, "-c", "l")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"ipsec-agent: {said}")


def test_nobody_there(tmp_path: Path) -> None:
    begun = time.monotonic()
    done = shell("--host", "127.0.0.1:9", "--community", "x", "-c", "l")
    assert done.returncode == 2 and "no answer from 127.0.0.1:9" in done.stderr
    assert time.monotonic() - begun < 45  # 7 s, and a program that starts on a busy machine
