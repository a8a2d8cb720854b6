"""The user guide's examples from nothing, with net-snmp's tools alone: made, read back, changed, reordered, deleted.

A real agent in a process of its own, the objects by their names from our modules. Each refusal
is what the tool prints: RFC 3416's code and the object that is to blame. What the guide shows
and is not supported yet (own address, ranges, Blowfish) is asked for and refused, and then
its default takes its place.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from agent.mib import load_schema
from tests.station import COMMUNITY, Agent

pytestmark = pytest.mark.skipif(not shutil.which("snmpset"), reason="net-snmp's tools are not installed")

ROOT = Path(__file__).parent.parent
MODULES = [
    *("-M", f"{ROOT / 'mibs'}:{ROOT / 'mibs' / 'base'}"),
    *("-m", "IPSEC-GATEWAY-MIB:IPSEC-GATEWAY-EXT-MIB"),
]
SCHEMA = load_schema()
PATIENCE = "20"  # seconds for an answer


class Refusal(NamedTuple):
    """What snmpset printed: RFC 3416's name of the error-status, and the object, as name and instance."""

    code: str
    blamed: str


def printed(error: str) -> Refusal:
    code, blamed = re.search(r"Reason: (\w+)", error), re.search(r"Failed object: (\S+)", error)
    assert code and blamed, error
    name = blamed[1].rpartition("::")[2]
    if name.startswith("iso."):
        numbers = tuple(map(int, name.replace("iso", "1").split(".")))
        name = f"{SCHEMA.by_oid[numbers[:-1]].name}.{numbers[-1]}"
    return Refusal(code[1], name)


class Station:
    """An operator at a terminal, beside a running agent."""

    def __init__(self, port: int) -> None:
        self.target = f"127.0.0.1:{port}"

    def tool(
        self, program: str, *words: str, modules: Sequence[str] = MODULES, options: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """A tool's run; `options` go before the agent's address, `words` after it."""
        told = ["-v2c", "-c", COMMUNITY.decode(), "-t", PATIENCE, "-r", "0", *modules, *options]
        return subprocess.run(
            [program, *told, self.target, *words],
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": "/usr/bin:/bin:/usr/local/bin", "SNMPCONFPATH": "/nonexistent", "LC_ALL": "C"},
        )

    def asked(self, assignments: str) -> list[str]:
        """`name.row = value` per line as words of snmpset."""
        words = []
        for line in assignments.strip().splitlines():
            name, _, value = line.strip().partition(" = ")
            words += [name, "=", value.strip('"')]
        return words

    def set(self, assignments: str) -> None:
        """One SET, accepted; every value is then read back as it was written, keys as `*`."""
        done = self.tool("snmpset", *self.asked(assignments))
        assert done.returncode == 0, done.stderr
        for line in assignments.strip().splitlines():
            name, _, value = line.strip().partition(" = ")
            if value in ("delete", "destroy", "createAndGo"):
                continue
            expected = "*" if name.startswith("ipsecPeerPreSharedKey") else value.strip('"')
            assert self.get(name) == expected, name

    def refused(self, assignments: str) -> Refusal:
        done = self.tool("snmpset", *self.asked(assignments))
        assert done.returncode == 2, f"{done.stdout}{done.stderr}"
        return printed(done.stderr)

    def refused_raw(self, *words: str) -> Refusal:
        """With types as given and names as numbers, which the tool sends without looking into the modules."""
        oids = [dotted(word) if re.fullmatch(r"[a-z]\w+\.\d+", word, re.IGNORECASE) else word for word in words]
        done = self.tool("snmpset", *oids, modules=["-m", ""])
        assert done.returncode == 2, f"{done.stdout}{done.stderr}"
        return printed(done.stderr)

    def get(self, name: str) -> str:
        """Value as it is printed: labels without numbers."""
        done = self.tool("snmpget", name, options=("-Oqv",))
        assert done.returncode == 0, done.stderr
        return re.sub(r" (bits|seconds|percent|kilobytes|kB)$", "", done.stdout.strip()).strip('"')

    def there(self, column: str) -> dict[int, str]:
        """A column by row number."""
        done = self.tool("snmpwalk", column, options=("-Oqs",))
        assert done.returncode == 0, done.stderr
        found = re.findall(rf"^{column}\.(\d+) ?(.*)$", done.stdout, re.MULTILINE)
        return {int(number): value.strip().strip('"') for number, value in found}

    def chain(self, head: str) -> list[int]:
        """Numbers of the rules of a list, by following the links."""
        rules, at = [], int(self.get(head))
        while at:
            rules.append(at)
            at = int(self.get(f"ipsecTrNextIndex.{at}"))
        return rules

    def why(self) -> str:
        return self.get("ipsecGwLastRefusal.0")


def dotted(name: str) -> str:
    column, _, row = name.rpartition(".")
    return ".".join(map(str, (*SCHEMA.columns[column].oid, row)))


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    agent = Agent(tmp_path / "state")
    agent.start()
    for asking in agent.stations:
        asking.socket.close()
    try:
        yield Station(agent.port)
    finally:
        assert agent.stop() == 0


PRE_RULES = """
    ipsecTrProto.1 = udp
    ipsecTrLocalPort.1 = 500
    ipsecTrRemotePort.1 = 500
    ipsecTrAction.1 = pass
    ipsecTrDescription.1 = "IKE passes in plain"
    ipsecTrNextIndex.1 = 2
    ipsecTrProto.2 = tcp
    ipsecTrLocalAddressType.2 = ph1
    ipsecTrLocalPort.2 = 80
    ipsecTrRemoteAddress.2 = 192.168.13.1
    ipsecTrRemoteMaskLen.2 = 32
    ipsecTrRemotePort.2 = 80
    ipsecTrAction.2 = pass
    ipsecTrNextIndex.2 = 3
    ipsecTrProto.3 = tcp
    ipsecTrLocalAddressType.3 = ph1
    ipsecTrRemoteAddress.3 = 192.168.13.1
    ipsecTrRemoteMaskLen.3 = 32
    ipsecTrRemotePort.3 = 21
    ipsecTrAction.3 = drop
    ipsecGlobContPreIpsecRules.0 = 1
"""


def test_chapter_2_the_three_pre_ipsec_rules(station: Station) -> None:
    assert station.get("ipsecGlobContPreIpsecRules.0") == "0" and station.there("ipsecTrProto") == {}
    station.set(PRE_RULES)
    head = "ipsecGlobContPreIpsecRules.0"
    assert station.chain(head) == [1, 2, 3]
    assert station.get("ipsecTrLocalAddress.1") == "0.0.0.0" and station.get("ipsecTrLocalMaskLen.1") == "0"

    # the guide's "own Address"
    assert station.get("ipsecTrLocalAddressType.2") == "ph1"
    # pass and drop are the only actions here, and ports go with udp and tcp
    assert station.refused("ipsecTrAction.2 = protect") == ("inconsistentValue", "ipsecTrAction.2")
    assert "pre list" in station.why()
    assert station.refused("ipsecTrProto.1 = icmp") == ("inconsistentValue", "ipsecTrProto.1")
    assert station.refused("ipsecTrRemoteMaskLen.2 = 24") == ("inconsistentValue", "ipsecTrRemoteMaskLen.2")
    assert "192.168.13.0" in station.why()

    # changed
    station.set('ipsecTrDescription.2 = "the web server"\n ipsecTrRemotePort.2 = 8080')
    # u and d: the last rule before the second, in one SET; a ring is refused and names a link
    station.set("ipsecTrNextIndex.1 = 3\n ipsecTrNextIndex.3 = 2\n ipsecTrNextIndex.2 = 0")
    assert station.chain(head) == [1, 3, 2]
    assert station.refused("ipsecTrNextIndex.2 = 1") == ("inconsistentValue", "ipsecTrNextIndex.2")
    # a: every rule before the active one is ignored
    station.set("ipsecGlobContPreIpsecRules.0 = 3")
    assert station.chain(head) == [3, 2]
    # deleted: the head moves on to the next rule
    station.set("ipsecTrAction.3 = delete")
    assert station.chain(head) == [2] and set(station.there("ipsecTrAction")) == {1, 2}
    assert station.refused("ipsecGlobContPreIpsecRules.0 = 3") == ("inconsistentValue", head)
    station.set("ipsecTrAction.1 = delete\n ipsecTrAction.2 = delete")
    assert station.get(head) == "0" and station.there("ipsecTrAction") == {}


PEER = """
    ipsecTrProto.11 = dont-verify
    ipsecTrLocalAddress.11 = 192.168.1.0
    ipsecTrLocalMaskLen.11 = 24
    ipsecTrRemoteAddress.11 = 192.168.2.0
    ipsecTrRemoteMaskLen.11 = 24
    ipsecTrAction.11 = protect
    ipsecTrNextIndex.11 = 12
    ipsecTrProto.12 = tcp
    ipsecTrLocalAddress.12 = 192.168.1.7
    ipsecTrLocalMaskLen.12 = 32
    ipsecTrRemoteAddress.12 = 192.168.3.9
    ipsecTrRemoteMaskLen.12 = 32
    ipsecTrRemotePort.12 = 80
    ipsecTrAction.12 = protect
    ipsecPeerTrafficList.1 = 11
    ipsecPeerDescription.1 = "Branch office"
    ipsecPeerDynamicAddress.1 = "192.0.2.2"
    ipsecPeerPeerIds.1 = "branch.example.org"
    ipsecPeerPreSharedKey.1 = "a secret of the guide"
"""


def test_chapter_3_a_peer_with_a_key_and_rules_for_net_host_and_range(station: Station) -> None:
    station.set(PEER)
    assert station.get("ipsecPeerPreSharedKey.1") == "*"
    assert station.get("ipsecPeerAdminStatus.1") == "up" and station.get("ipsecPeerVirtualInterface.1") == "disabled"
    assert "secret" not in station.tool("snmpwalk", ".1.3.6.1.4.1.272").stdout

    # a range has two addresses, and the second does not come before the first
    made = "ipsecTrProto.13 = udp\n ipsecTrLocalAddress.13 = 192.168.1.16"
    ranged = station.refused(f"{made}\n ipsecTrLocalRange.13 = 192.168.1.15")
    assert ranged == ("inconsistentValue", "ipsecTrLocalRange.13") and 13 not in station.there("ipsecTrProto")
    station.set(f"{made}\n ipsecTrLocalRange.13 = 192.168.1.30\n ipsecTrNextIndex.12 = 13")
    assert station.chain("ipsecPeerTrafficList.1") == [11, 12, 13]

    # refused, with the object that is to blame
    assert station.refused("ipsecTrLocalMaskLen.11 = 16") == ("inconsistentValue", "ipsecTrLocalMaskLen.11")
    # a peer is based on its list or on an interface
    station.set("ipsecPeerVirtualInterface.1 = enabled")
    station.set("ipsecPeerVirtualInterface.1 = disabled")
    assert station.refused("ipsecPeerType.1 = dynamic-client") == ("inconsistentValue", "ipsecPeerType.1")
    assert station.refused('ipsecPeerPriority.1 = 3\n ipsecPeerDynamicAddress.1 = "224.0.0.1"') == (
        "inconsistentValue",
        "ipsecPeerDynamicAddress.1",
    )
    assert station.get("ipsecPeerPriority.1") == "0", "all or nothing"
    assert station.refused("ipsecPeerIkeProfile.1 = 77") == ("inconsistentValue", "ipsecPeerIkeProfile.1")

    # changed, reordered
    station.set('ipsecPeerDescription.1 = "Head office"\n ipsecPeerPreSharedKey.1 = "another secret"')
    station.set("ipsecPeerTrafficList.1 = 12\n ipsecTrNextIndex.12 = 11\n ipsecTrNextIndex.11 = 13")
    assert station.chain("ipsecPeerTrafficList.1") == [12, 11, 13]
    # deleted: a rule in the middle closes the chain, a peer leaves its rules behind
    station.set("ipsecTrAction.11 = delete")
    assert station.chain("ipsecPeerTrafficList.1") == [12, 13]
    station.set("ipsecPeerAdminStatus.1 = delete")
    assert station.there("ipsecPeerTrafficList") == {} and set(station.there("ipsecTrProto")) == {12, 13}
    station.set("ipsecGwTrafficRowStatus.12 = destroy\n ipsecTrAction.13 = delete")
    assert station.there("ipsecTrProto") == {}


PROFILES = """
    ikePropEncAlg.1 = aes-cbc
    ikePropHashAlg.1 = sha2-512
    ikePropGroup.1 = 16
    ikePropEncKeySize.1 = 192
    ikePropDescription.1 = "Rijndael/SHA2-512"
    ikePrfProposal.1 = 1
    ikePrfAuthMethod.1 = pre-sh-key
    ikePrfMode.1 = id-protect-only
    ikePrfGroup.1 = 15
    ikePrfLocalId.1 = "gate.example.org"
    ikePrfLifeSeconds.1 = 1800
    ikePrfLifePolicy.1 = strict
    ipsecPropProto.1 = esp
    ipsecPropEspAes.1 = 1
    ipsecPropAesKeySize.1 = aes128
    ipsecPropEspSha256.1 = 1
    ipsecPropDescription.1 = "ESP(Rijndael, SHA2-256)"
    ipsecPrfProposal.1 = 1
    ipsecPrfLifeSeconds.1 = 600
    ipsecPrfLifeRekeyPercent.1 = 70
    ipsecPrfLifePolicy.1 = loose
    ipsecTrProto.1 = dont-verify
    ipsecTrProfile.1 = 1
    ipsecPeerTrafficList.1 = 1
    ipsecPeerIkeProfile.1 = 1
    ipsecPeerIpsecProfile.1 = 1
"""


def test_chapter_3_profiles_of_its_own_in_both_phases(station: Station) -> None:
    station.set(PROFILES)
    # the global profiles were there before: 900 s / 11000 kB
    for prefix, pointer in (("ikePrf", "ipsecGlobIkeProfile.0"), ("ipsecPrf", "ipsecGlobIpsecProfile.0")):
        number = station.get(pointer)
        assert station.get(f"{prefix}Description.{number}") == "*autogenerated*"
        assert station.get(f"{prefix}LifeSeconds.{number}") == "900"
        assert station.get(f"{prefix}LifeKBytes.{number}") == "11000"
    # view proposals: those of the guide's print, to be chosen by number
    proposals = {name: number for number, name in station.there("ikePropDescription").items()}
    assert {"Blowfish/MD5", "DES3/SHA1", "Blowfish/Ripemd160", "Rijndael/SHA1"} <= set(proposals)
    assert "ESP(NULL, SHA1)" in station.there("ipsecPropDescription").values()
    station.set(f"ikePrfProposal.2 = {proposals['DES3/SHA1']}\n ikePrfGroup.2 = 2")

    # "not available in phase 1", "the options are the same as in phase 1: group", lifetimes, key sizes
    for wrong in (
        "ikePropEncAlg.1 = none",
        "ikePropHashAlg.1 = none",
        "ikePropHashAlg.1 = tiger192",
        "ikePropGroup.1 = 3",
        "ikePrfAuthMethod.1 = dss-sig",
        "ikePrfLifeSeconds.1 = 0",
        "ipsecPrfLifeSeconds.1 = 0",
        "ipsecPropProto.1 = esp-ah",
        "ipsecPropProto.1 = ah",
        "ipsecPrfPfsGroup.1 = 3",
        "ikePrfProposal.1 = 999",
    ):
        assert station.refused(wrong) == ("inconsistentValue", wrong.split(" = ")[0])
        assert "accepted: " in station.why()
    done = station.tool("snmpset", "ikePropEncKeySize.1", "=", "999")
    assert done.returncode == 0 and station.get("ikePropEncKeySize.1") == "256", "clamped to ipsecAlgorithmTable"
    assert station.get("ipsecAlgMaxKeySize.1") == "256"

    # changed
    station.set('ikePrfMode.1 = aggressive\n ikePrfLocalId.1 = "(gate@example.org)"\n ipsecPrfLifeSeconds.1 = 1200')
    # what is in use cannot be deleted; then everything goes, in one SET
    assert station.refused("ikePrfAuthMethod.1 = delete") == ("inconsistentValue", "ikePrfAuthMethod.1")
    assert station.refused("ikePropHashAlg.1 = delete") == ("inconsistentValue", "ikePropHashAlg.1")
    assert "in use by ikePrfProposal.1" in station.why()
    assert station.refused("ipsecPropProto.1 = delete") == ("inconsistentValue", "ipsecPropProto.1")
    station.set(
        """ipsecPeerAdminStatus.1 = delete
           ipsecTrAction.1 = delete
           ikePrfAuthMethod.1 = delete
           ikePropHashAlg.1 = delete
           ipsecGwIpsecProfileRowStatus.1 = destroy
           ipsecPropProto.1 = delete"""
    )
    assert 1 not in station.there("ikePrfProposal") and 1 not in station.there("ipsecPropProto")


def test_chapter_4_a_post_ipsec_rule_and_what_to_do_with_the_rest(station: Station) -> None:
    head = "ipsecGlobContPostIpsecRules.0"
    station.set(
        """ipsecTrProto.51 = dont-verify
           ipsecTrRemoteAddress.51 = 10.0.0.0
           ipsecTrRemoteMaskLen.51 = 8
           ipsecTrAction.51 = drop
           ipsecTrDescription.51 = "nothing goes into the old net"
           ipsecGlobContPostIpsecRules.0 = 51"""
    )
    assert station.get("ipsecGlobContDefaultRule.0") == "drop"
    station.set("ipsecGlobContDefaultRule.0 = pass")
    assert station.refused("ipsecTrAction.51 = protect") == ("inconsistentValue", "ipsecTrAction.51")
    assert "post list" in station.why()
    # a rule that names no action would protect: it has to say what it does here
    assert station.refused("ipsecTrProto.52 = tcp\n ipsecTrNextIndex.51 = 52")[0] == "inconsistentValue"
    station.set("ipsecTrProto.52 = tcp\n ipsecTrAction.52 = pass\n ipsecTrNextIndex.51 = 52")
    station.set("ipsecGlobContPostIpsecRules.0 = 52\n ipsecTrNextIndex.52 = 51\n ipsecTrNextIndex.51 = 0")
    assert station.chain(head) == [52, 51]
    station.set("ipsecTrAction.52 = delete")
    assert station.chain(head) == [51]
    # ENABLE IPSEC: no is the default; rules are stored all the same
    assert station.get("ipsecGlobEnabled.0") == "false"
    station.set("ipsecGlobEnabled.0 = true")
    station.set("ipsecGlobEnabled.0 = false")


def test_each_refusal_is_rfc_3416s_code_and_names_its_object(station: Station) -> None:
    station.set(PRE_RULES)
    assert station.refused_raw("ipsecTrLocalPort.1", "s", "500") == ("wrongType", "ipsecTrLocalPort.1")
    assert station.refused_raw("ipsecTrDescription.1", "s", "x" * 256) == ("wrongLength", "ipsecTrDescription.1")
    assert station.refused_raw("ipsecTrAction.1", "i", "9") == ("wrongValue", "ipsecTrAction.1")
    assert station.refused_raw("ipsecTrProto.1", "i", "256") == ("wrongValue", "ipsecTrProto.1")
    assert station.refused_raw("ikePrfBlockTime.1001", "i", "86401") == ("wrongValue", "ikePrfBlockTime.1001")
    assert station.refused_raw("ikePrfGroup.1001", "i", "17") == ("wrongValue", "ikePrfGroup.1001")
    assert station.refused_raw("ipsecTrAction.0", "i", "3") == ("noCreation", "ipsecTrAction.0")
    assert station.refused_raw("ipsecGlobEnabled.1", "i", "2") == ("noCreation", "ipsecGlobEnabled.1")
    assert station.refused_raw("ipsecTrIndex.1", "i", "7") == ("notWritable", "ipsecTrIndex.1")
    assert station.refused_raw("ipsecTrCreator.1", "i", "1") == ("notWritable", "ipsecTrCreator.1")
    assert station.refused_raw("ipsecPeerPreSharedKeyData.1", "s", "x") == ("noAccess", "ipsecPeerPreSharedKeyData.1")
    assert station.refused("ipsecTrAction.9 = pass") == ("inconsistentName", "ipsecTrAction.9")
    assert "ipsecTrProto.9" in station.why(), "the creating column is named"
    assert station.refused("ipsecGwTrafficRowStatus.1 = createAndGo")[0] == "inconsistentValue"
    # of many the wrong one
    many = [part for n in (1, 2, 3) for part in (f"ipsecTrDescription.{n}", "s", f"rule {n}")]
    assert station.refused_raw(*many, "ipsecTrAction.3", "i", "9") == ("wrongValue", "ipsecTrAction.3")
    assert station.get("ipsecTrDescription.2") == ""
