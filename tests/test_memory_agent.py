"""A whole agent on the memory backend, tried with net-snmp's tools as somebody would who has no gateway at hand."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.station import COMMUNITY, Agent

PROJECT = Path(__file__).resolve().parents[1]
MODULES = "IPSEC-GATEWAY-MIB:IPSEC-GATEWAY-IKEV2-MIB:IPSEC-GATEWAY-EXT-MIB"
MIBS = ["-M", f"{PROJECT}/mibs:{PROJECT}/mibs/base", "-m", MODULES]
UP, DORMANT, BLOCKED, GOING_UP = "1", "5", "6", "36"
SECONDS = 60.0
Cells = dict[str, str | int]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("snmpset") is None, reason="no net-snmp tools (package snmp)"),
]


class Tools:
    """snmpset, snmpget and snmpbulkwalk."""

    def __init__(self, port: int) -> None:
        self._where = f"127.0.0.1:{port}"

    def _run(self, tool: str, options: list[str], words: list[str]) -> str:
        command = [tool, "-v2c", "-c", COMMUNITY.decode(), "-t", "20", "-r", "1", *MIBS, *options, self._where, *words]
        done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        return done.stdout

    def set(self, **cells: str | int) -> str:
        """Columns by name and row: `ipsecTrProto_1=255`; '' or net-snmp's words of the refusal."""
        words = [each for cell, value in cells.items() for each in (cell.replace("_", "."), "=", str(value))]
        said = self._run("snmpset", ["-Oqe"], words)
        return said if "Error in packet" in said or "Timeout" in said else ""

    def get(self, name: str, row: int = 0) -> str:
        return self._run("snmpget", ["-OqveU"], [f"{name}.{row}"]).strip().strip('"')

    def cells(self, *names: str) -> list[str]:
        """Several in one answer, so that they belong together."""
        return [value.strip('"') for value in self._run("snmpget", ["-OqveU"], list(names)).split("\n")[:-1]]

    def rows(self, name: str) -> dict[int, str]:
        """A column by row."""
        lines = self._run("snmpbulkwalk", ["-OqseU"], [name]).splitlines()
        found = (re.match(r"\w+\.(\d+) (.*)", line) for line in lines)
        return {int(match[1]): match[2].strip('"') for match in found if match and not match[2].startswith("No ")}


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tools]:
    """An agent with three peers: 1 answers, 2 does not, 3 is always up."""
    agent = Agent(tmp_path_factory.mktemp("memory") / "state")
    agent.start()
    tools = Tools(agent.port)
    try:
        for peer, address in ((1, "198.51.100.1"), (2, "203.0.113.2"), (3, "198.51.100.3")):
            rule: Cells = {
                f"ipsecTrProto_{peer}": "dont-verify",
                f"ipsecTrLocalAddress_{peer}": "10.1.0.0",
                f"ipsecTrLocalMaskLen_{peer}": 16,
                f"ipsecTrRemoteAddress_{peer}": f"10.{peer + 1}.0.0",
                f"ipsecTrRemoteMaskLen_{peer}": 16,
                f"ipsecTrAction_{peer}": "protect",
            }
            own: Cells = {
                f"ipsecPeerTrafficList_{peer}": peer,
                f"ipsecPeerDescription_{peer}": f"branch {peer}",
                f"ipsecPeerDynamicAddress_{peer}": address,
                f"ipsecPeerPreSharedKey_{peer}": "hush",
                f"ipsecPeerStartMode_{peer}": "always-up" if peer == 3 else "on-demand",
            }
            assert not tools.set(**rule, **own)
        # lifetimes of a minute and block times of 3 s, so that something happens while one looks
        assert not tools.set(
            ikePrfLifeSeconds_1001=60, ikePrfBlockTime_1001=3, ipsecPrfLifeSeconds_1001=12, ipsecGlobEnabled_0="true"
        )
        yield tools
    finally:
        agent.stop()
        for station in agent.stations:
            station.socket.close()


def until(seen: Callable[[], object], wanted: object, seconds: float = SECONDS) -> None:
    end = time.monotonic() + seconds
    while (found := seen()) != wanted:
        assert time.monotonic() < end, f"{found!r}, not {wanted!r}"
        time.sleep(0.2)


def status(tools: Tools, peer: int) -> str:
    return tools.get("ipsecPeerStatOperStatus", peer)


def bundles_of(tools: Tools, peer: int) -> list[int]:
    return [row for row, owner in tools.rows("ipsecBundlePeerIndex").items() if owner == str(peer)]


def test_a_peer_that_is_always_up_comes_by_itself(tools: Tools) -> None:
    until(lambda: status(tools, 3), UP)
    until(lambda: tools.get("ipsecPeerStatCurrentRemoteAddress", 3), "198.51.100.3")


def test_dialup_brings_a_tunnel_with_sas_selectors_and_counters_that_move(tools: Tools) -> None:
    until(lambda: status(tools, 1), DORMANT)
    assert not tools.set(ipsecPeerAdminStatus_1="dialup")
    until(lambda: status(tools, 1), UP)
    until(lambda: len(bundles_of(tools, 1)), 1)
    (bundle,) = bundles_of(tools, 1)
    assert tools.get("ipsecBundleRemoteAddress", bundle) == "10.2.0.0"

    def directions() -> list[str]:
        """Of its SAs; while they are renewed there are more for a moment."""
        sas = [row for row, of in tools.rows("ipsecSaBundle").items() if of == str(bundle)]
        return sorted(tools.get("ipsecSaDir", row) for row in sas)

    until(directions, ["1", "2"])
    until(lambda: str(bundle) in tools.rows("ipsecTrafficSelectorBundleIndex").values(), True)
    until(lambda: "1" in tools.rows("ikeSaPeerIndex").values(), True)
    first = int(tools.get("ipsecGwPeerOutPkt", 1))
    until(lambda: int(tools.get("ipsecGwPeerOutPkt", 1)) > first, True)
    until(lambda: int(tools.get("ipsecStatsPeersUp")) >= 1 and int(tools.get("ipsecStatsOutEncaps")) > 0, True)
    parts = [int(tools.get(f"ipsecStatsIn{part}")) for part in ("Pass", "Drop", "Errors")]
    assert min(parts) >= 0 and int(tools.get("ipsecStatsInPkt")) >= sum(parts)


def test_sas_are_renewed_under_the_same_bundle(tools: Tools) -> None:
    until(lambda: len(bundles_of(tools, 3)), 1)
    (bundle,) = bundles_of(tools, 3)

    def sas() -> set[int]:
        return {row for row, of in tools.rows("ipsecSaBundle").items() if of == str(bundle)}

    until(lambda: bool(sas()), True)
    before, packets = sas(), int(tools.get("ipsecBundleOutPkt", bundle))
    until(lambda: bool(now := sas()) and not now & before, True)
    assert bundles_of(tools, 3) == [bundle]
    assert int(tools.get("ipsecBundleOutPkt", bundle)) >= packets


def test_delete_ends_a_bundle_and_an_sa(tools: Tools) -> None:
    assert not tools.set(ipsecPeerAdminStatus_1="dialup")
    until(lambda: len(bundles_of(tools, 1)), 1)
    (bundle,) = bundles_of(tools, 1)
    assert "inconsistentValue" in tools.set(**{f"ipsecBundleState_{bundle}": "established"})
    assert not tools.set(**{f"ipsecBundleState_{bundle}": "delete"})
    until(lambda: bundles_of(tools, 1), [])
    until(lambda: status(tools, 1), DORMANT)

    def ike_sas() -> list[int]:
        return [row for row, peer in tools.rows("ikeSaPeerIndex").items() if peer == "1"]

    until(lambda: len(ike_sas()), 1)
    (sa,) = ike_sas()
    assert not tools.set(**{f"ikeSaState_{sa}": "delete"})
    until(ike_sas, [])


def test_one_that_does_not_answer_is_blocked_for_a_while_and_the_reason_is_there(tools: Tools) -> None:
    until(lambda: status(tools, 2), DORMANT)
    seen: set[str] = set()

    def watched() -> set[str]:
        """What it has been; called again where nobody looked while it was that."""
        now, left = tools.cells("ipsecPeerStatOperStatus.2", "ipsecPeerStatTtl.2")
        if now == DORMANT:
            assert not tools.set(ipsecPeerAdminStatus_2="dialup")
        if now == GOING_UP or (now == BLOCKED and 0 < int(left) <= 3):
            seen.add(now)
        return seen

    until(watched, {GOING_UP, BLOCKED}, 3 * SECONDS)
    until(lambda: "no answer" in tools.get("ipsecGwPeerLastError", 2), True)

    def told() -> bool:
        texts = [
            text for text in tools.rows("ipsecGwEventText").values() if "branch 2" in text and "is blocked" in text
        ]
        return bool(texts) and all("no answer" in text for text in texts)

    until(told, True)
    until(lambda: status(tools, 2), DORMANT)


def test_of_a_rule_split_by_hosts_two_hosts_call_and_each_has_its_bundle(tools: Tools) -> None:
    """ipsecPrfGranularity ip."""
    assert not tools.set(ipsecPrfProposal_7=0, ipsecPrfGranularity_7="ip")
    assert not tools.set(ipsecTrProfile_1=7)
    until(
        lambda: sorted(tools.get("ipsecBundleLocalAddress", bundle) for bundle in bundles_of(tools, 1)),
        ["10.1.0.1", "10.1.0.2"],
    )
    assert {tools.get("ipsecBundleLocalMaskLen", bundle) for bundle in bundles_of(tools, 1)} == {"32"}
    until(lambda: (tools.get("ipsecGwTrafficApplyState", 1), tools.get("ipsecPeerStatGranularity", 1)), ("2", "3"))
    before = bundles_of(tools, 1)
    until(lambda: all(int(tools.get("ipsecBundleOutPkt", bundle)) > 0 for bundle in before), True)
    assert not tools.set(ipsecPeerAdminStatus_1="dialup")
    until(lambda: any("waits for a packet" in text for text in tools.rows("ipsecGwEventText").values()), True)
    assert not tools.set(ipsecPrfGranularity_7="coarse")
    until(lambda: bundles_of(tools, 1), [])
