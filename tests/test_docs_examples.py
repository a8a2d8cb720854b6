"""The examples of docs/ as they stand, on the memory backend: first-gateway, peers, certificates, shell and others."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.authority import root
from tests.station import Agent
from tests.test_memory_agent import UP, Tools, status, until

PROJECT = Path(__file__).resolve().parents[1]
SHELL = [str(Path(sys.executable).parent / "ipsec-agent"), "shell", "--state"]
PROMPT = re.compile(r"^gate:\w*> ")
COUNT = re.compile(r"(?<=Counter64: )\d+")
APPLIED, DONE = "2", "3"
BLOCK = re.compile(r"^```\n(.*?)^```$", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.slow


def blocks(page: str) -> list[str]:
    return BLOCK.findall((PROJECT / "docs" / page).read_text())


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    agent = Agent(tmp_path / "state")
    agent.start()
    settings = tmp_path / "patient"
    settings.mkdir()
    monkeypatch.setenv("SNMPCONFPATH", str(settings))  # where a page names no other
    for folder in (settings, agent.state):
        with (folder / "snmp.conf").open("a") as file:  # net-snmp's tools would give up after six seconds
            file.write("timeout 20\n")
    try:
        yield agent
    finally:
        agent.stop()
        for station in agent.stations:
            station.socket.close()


def typed(agent: Agent, block: str) -> None:
    """What follows the prompts is typed in one session, and shows what the page shows."""
    lines = block.splitlines()
    script = "".join(f"{PROMPT.sub('', line)}\n" for line in lines if PROMPT.match(line))
    done = subprocess.run([*SHELL, str(agent.state)], input=script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [line for line in lines if not PROMPT.match(line)]


def commanded(agent: Agent, settings: list[str], block: str, folder: Path = PROJECT) -> None:
    """Lines of a `$` prompt in this folder, in a shell that has carried out the `export` lines of those before. What
    the page shows of an answer is what is answered."""
    commands = [command.removeprefix("$ ") for command in re.findall(r"^\$ (?:.*\\\n)*.*$", block, re.MULTILINE)]
    script = "\n".join(["set -e", *settings, *commands]).replace("127.0.0.1:1161", f"127.0.0.1:{agent.port}")
    script = script.replace("/var/lib/ipsec-agent", str(agent.state))
    script = script.replace("mibs:mibs/base", f"{PROJECT}/mibs:{PROJECT}/mibs/base")
    done = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shown = [line for line in block.splitlines() if not line.startswith(("$ ", "    "))]
    assert not shown or done.stdout.splitlines() == shown
    settings += [command for command in commands if command.startswith("export ")]


def test_the_examples_about_peers_work_as_they_stand(agent: Agent) -> None:
    tools = Tools(agent.port)
    settings: list[str] = []
    found = blocks("peers.md")
    assert len(found) == 8
    for block in found:
        if block.startswith("$ "):
            commanded(agent, settings, block)
        else:
            typed(agent, block)
    until(lambda: status(tools, 1), UP)  # dialed
    until(lambda: tools.get("ipsecPeerAdminStatus", 1), "1")  # and put back
    until(lambda: status(tools, 3), UP)
    until(lambda: tools.rows("ipsecGwPeerApplyState"), dict.fromkeys((1, 3, 4, 5), APPLIED))
    for profile in ("Ike", "Ipsec"):  # nothing in them is without effect
        assert tools.rows(f"ipsecGw{profile}ProfileApplyState")[1] == APPLIED
        assert tools.rows(f"ipsecGw{profile}ProfileLastError")[1] == ""
    assert tools.get("ikePropEncKeySize", 1) == "256" and tools.get("ipsecPeerIkeProfile", 1) == "1"


def test_the_first_look_at_the_memory_backend_is_as_the_page_shows_it(agent: Agent) -> None:
    tools = Tools(agent.port)
    for page in ("README.md", "docs/memory-backend.md"):
        for block in BLOCK.findall((PROJECT / page).read_text()):
            for part in re.findall(r"^\$ snmp(?:set|walk)(?:.*\\\n)*.*\n(?:[A-Z].*\n?)+", block, re.MULTILINE):
                if "Error in packet" in part or "ApplyTable" in part:
                    continue
                shown, answered = answer(agent, part)
                assert COUNT.sub("", answered) == COUNT.sub("", shown)
                if "dialup" in part:
                    until(lambda: tools.rows("ipsecBundleOutPkt").get(1, "0").startswith("0"), False)
    until(lambda: tools.rows("ipsecBundleState"), {})


def answer(agent: Agent, part: str) -> tuple[str, str]:
    """What the page shows of a command of SNMPv2c, and what it answers."""
    command = re.match(r"(?:.*\\\n)*.*\n", part)
    assert command is not None
    script = command[0].removeprefix("$ ").replace("127.0.0.1:1161", f"127.0.0.1:{agent.port}")
    exported = "export MIBDIRS=mibs:mibs/base MIBS=IPSEC-GATEWAY-MIB:IPSEC-GATEWAY-EXT-MIB\n"
    done = subprocess.run(["bash", "-c", exported + script], cwd=PROJECT, capture_output=True, text=True, check=False)
    return part[command.end() :].strip(), done.stdout.strip()


def test_the_first_gateway_is_made_by_what_its_page_says(agent: Agent) -> None:
    found = [block for block in blocks("first-gateway.md") if re.match(r"export|set|get|walk", block)]
    assert len(found) == 6
    script = "set -eo pipefail; shopt -s expand_aliases\n" + "".join(found)
    script = script.replace("127.0.0.1:1161", f"127.0.0.1:{agent.port}").replace(
        "/var/lib/ipsec-agent", str(agent.state)
    )
    script = script.replace("/usr/local/share/snmp/mibs", f"{PROJECT}/mibs")
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    tools = Tools(agent.port)
    until(lambda: tools.rows("ipsecGwPeerApplyState"), {1: APPLIED})
    until(lambda: tools.rows("ipsecGwTrafficApplyState"), dict.fromkeys((1, 2, 10), APPLIED))
    assert tools.get("ipsecGlobContPreIpsecRules", 0) == "1" and tools.get("ipsecPeerTrafficList", 1) == "10"


def test_the_session_that_the_page_about_the_shell_shows(agent: Agent) -> None:
    first, *others = blocks("shell.md")
    assert first.startswith("# ipsec-agent shell\n")
    lines = first.splitlines()[2:]
    table = lines.index("gate:> ipsecGwPeerApplyTable")
    typed(agent, "\n".join(lines[:table]))
    until(lambda: Tools(agent.port).rows("ipsecGwPeerApplyState"), {1: APPLIED})
    [refused] = [block for block in others if "host bits" in block]
    for command, said in zip(*[iter(refused.splitlines())] * 2, strict=True):
        shell = [*SHELL, str(agent.state), "--command", PROMPT.sub("", command)]
        done = subprocess.run(shell, capture_output=True, text=True, check=False)
        assert (done.stdout, done.stderr) == ("", f"{said}\n") and done.returncode != 0
    typed(agent, "\n".join(lines[table:]))


def test_the_session_that_readme_shows_goes_on_from_its_first_peer(agent: Agent) -> None:
    found = BLOCK.findall((PROJECT / "README.md").read_text())
    [made] = [block for block in found if "ipsecTrProto.1" in block]
    for part in re.findall(r"^\$ snmpset(?:.*\\\n)*.*\n", made, re.MULTILINE):
        assert answer(agent, part)[1]
    until(lambda: Tools(agent.port).rows("ipsecGwPeerApplyState"), {1: APPLIED})
    [session] = [block for block in found if block.startswith("$ .venv/bin/ipsec-agent shell\n")]
    name, table = session.removesuffix("gate:ipsecGwPeerApplyTable> exit\n").split("gate:> ipsecGwPeerApplyTable\n")
    typed(agent, name.partition("\n")[2])
    until(lambda: Tools(agent.port).rows("ipsecGwPeerAppliedGeneration"), {1: "5"})
    typed(agent, f"gate:> ipsecGwPeerApplyTable\n{table}")


def test_the_examples_about_certificates_work_as_they_stand(agent: Agent, tmp_path: Path) -> None:
    above = root()
    (tmp_path / "root.pem").write_bytes(above.pem)
    own = above.issue("gw", names=["gw.example.org"])
    (tmp_path / "gw.p12").write_bytes(own.pkcs12(b"the file's password", [above.certificate]))
    tools = Tools(agent.port)
    settings: list[str] = []
    found = blocks("certificates.md")
    assert len(found) == 5
    for number, block in enumerate(found):
        if "snmpget" in block:
            until(partial(tools.get, "ipsecGwImportState", (number + 1) // 2), DONE)
        commanded(agent, settings, block, tmp_path)
    assert not tools.set(ipsecGlobEnabled_0="true", ipsecPeerAdminStatus_1="dialup")
    until(lambda: tools.rows("ipsecGwPeerApplyState"), {1: APPLIED})
    until(lambda: status(tools, 1), UP)
