"""The examples of docs/peers.md, in their order and as they stand, on an agent of the memory backend."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.station import Agent
from tests.test_memory_agent import SECONDS, Tools, until

PROJECT = Path(__file__).resolve().parents[1]
SHELL = [str(Path(sys.executable).parent / "ipsec-agent"), "shell", "--state"]
PROMPT = re.compile(r"^gate:\w*> ")
BLOCK = re.compile(r"^```\n(.*?)^```$", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.slow


def blocks() -> list[str]:
    return BLOCK.findall((PROJECT / "docs" / "peers.md").read_text())


def typed(agent: Agent, block: str) -> None:
    """What follows the prompts is typed in one session, and shows what the page shows."""
    lines = block.splitlines()
    script = "".join(f"{PROMPT.sub('', line)}\n" for line in lines if PROMPT.match(line))
    done = subprocess.run([*SHELL, str(agent.state)], input=script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [line for line in lines if not PROMPT.match(line)]


def commanded(agent: Agent, settings: list[str], block: str) -> None:
    """Lines of a `$` prompt, in a shell that has carried out the `export` lines of those before."""
    commands = [command.removeprefix("$ ") for command in re.findall(r"^\$ (?:.*\\\n)*.*$", block, re.MULTILINE)]
    script = "\n".join(["set -e", *settings, *commands]).replace("127.0.0.1:1161", f"127.0.0.1:{agent.port}")
    script = script.replace("/var/lib/ipsec-agent", str(agent.state))
    done = subprocess.run(["bash", "-c", script], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    settings += [command for command in commands if command.startswith("export ")]


def test_the_examples_about_peers_work_as_they_stand(tmp_path: Path) -> None:
    agent = Agent(tmp_path / "state")
    agent.start()
    tools = Tools(agent.port)
    settings: list[str] = []
    try:
        found = blocks()
        assert len(found) == 8
        for block in found:
            if block.startswith("$ "):
                commanded(agent, settings, block)
            else:
                typed(agent, block)
        until(lambda: tools.get("ipsecPeerStatOperStatus", 1), "1")  # dialed
        until(lambda: tools.get("ipsecPeerAdminStatus", 1), "1")  # and put back
        until(lambda: tools.get("ipsecPeerStatOperStatus", 3), "1", SECONDS)
        applied = "2"
        until(lambda: set(tools.rows("ipsecGwPeerApplyState").values()), {applied})
        assert set(tools.rows("ipsecGwPeerApplyState")) == {1, 3, 4, 5}
        assert tools.get("ikePropEncKeySize", 1) == "256" and tools.get("ipsecPeerIkeProfile", 1) == "1"
    finally:
        agent.stop()
        for station in agent.stations:
            station.socket.close()
