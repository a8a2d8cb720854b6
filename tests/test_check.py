"""`ipsec-agent check`: each finding appears for its reason and not without it, and beside a running agent."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from agent.check import run
from agent.check.configuration import CONFIGURATION
from agent.check.environment import ENVIRONMENT
from agent.check.facts import Facts, PortHolder
from agent.check.finding import Severity
from agent.check.gather import gather
from agent.config import Settings, load_settings
from agent.inspect import plan_of, stored
from agent.mib import load_schema
from agent.mib.ber import Value
from agent.plan.model import Direction, PolicyKey, Prefix, Selector
from agent.store.hooks import AGENT, Edit
from agent.store.store import Store
from tests.station import Agent

SCHEMA = load_schema()
COMMAND = str(Path(sys.executable).parent / "ipsec-agent")
KEY = PolicyKey(Direction.OUT, Selector(Prefix(bytes([10, 0, 0, 0]), 8), Prefix(bytes(4), 0)))
LINUX = load_settings({"backend": "linux", "state": Path("/nowhere")})
WELL = Facts(LINUX, agent_pid=7, clock=2e9, charon_version="5.9.8")


def found(facts: Facts) -> dict[str, Severity]:
    return {finding.name: finding.severity for look in ENVIRONMENT for finding in look(facts)}


def linux(**flags: object) -> Settings:
    return load_settings({"backend": "linux", "state": Path("/nowhere"), **flags})


def test_a_machine_where_all_is_well_has_no_finding() -> None:
    assert found(WELL) == {}


@pytest.mark.parametrize(
    ("facts", "name", "severity"),
    [
        (WELL.but(settings=load_settings({})), "backend-memory", Severity.NOTE),
        (WELL.but(xfrm_error="Protocol not supported"), "no-xfrm", Severity.ERROR),
        (WELL.but(net_admin=False), "no-net-admin", Severity.ERROR),
        (WELL.but(modules_missing=("esp4",)), "modules", Severity.WARNING),
        (WELL.but(transforms_missing=("ESP for IPv6",)), "no-esp", Severity.ERROR),
        (WELL.but(transforms_missing=("AH for IPv4",)), "no-transform", Severity.NOTE),
        (WELL.but(charon=False, packages_missing=("strongswan-charon",)), "no-charon", Severity.ERROR),
        (WELL.but(packages_missing=("strongswan-swanctl",)), "no-charon", Severity.ERROR),
        (WELL.but(packages_missing=("libstrongswan-extra-plugins",)), "charon-plugins", Severity.WARNING),
        (WELL.but(charon_version="6.0.1"), "charon-version", Severity.NOTE),
        (WELL.but(ports=(PortHolder(500, 12, "pluto"),)), "ike-port", Severity.ERROR),
        (WELL.but(snmp_holder=PortHolder(161, 12, "snmpd")), "snmpd", Severity.NOTE),
        (
            WELL.but(settings=linux(listen="127.0.0.1:161"), snmp_holder=PortHolder(161, 9, "x"), agent_pid=0),
            "snmp-port",
            Severity.ERROR,
        ),
        (WELL.but(sysctls={"net.ipv4.ip_forward": 0}), "forwarding", Severity.WARNING),
        (WELL.but(sysctls={"net.ipv6.conf.all.forwarding": 0}), "forwarding", Severity.NOTE),
        (WELL.but(sysctls={"net.ipv4.conf.all.rp_filter": 1}), "rp-filter", Severity.WARNING),
        (WELL.but(state_mode=None), "no-state", Severity.NOTE),
        (WELL.but(state_mode=0o750), "state-mode", Severity.WARNING),
        (WELL.but(key_mode=0o640), "key-mode", Severity.ERROR),
        (WELL.but(free_octets=50 << 20), "space", Severity.WARNING),
        (WELL.but(free_octets=1 << 20), "space", Severity.ERROR),
        (WELL.but(clock=1e9, built=1.5e9), "clock", Severity.WARNING),
        (WELL.but(agent_pid=0, others_agent=True), "other-agent", Severity.ERROR),
        (WELL.but(foreign=(KEY,)), "foreign-policy", Severity.ERROR),
        (WELL.but(foreign_count=3), "foreign-policies", Severity.NOTE),
        (WELL.but(settings=linux(read_community="r")), "community", Severity.NOTE),
        (WELL.but(settings=linux(read_community="r", listen="192.0.2.1")), "community-open", Severity.WARNING),
        (WELL.but(settings=linux(write_community="w", listen="192.0.2.1")), "community-open", Severity.ERROR),
        (WELL.but(settings=linux(ssh="192.0.2.1")), "ssh-open", Severity.NOTE),
        (WELL.but(settings=linux(ssh="127.0.0.1"), ssh_key_mode=0o640), "ssh-key-mode", Severity.ERROR),
        (WELL.but(nft=False), "no-nft", Severity.NOTE),
    ],
)
def test_each_cause_has_its_finding(facts: Facts, name: str, severity: Severity) -> None:
    assert found(facts) == {name: severity}


def test_our_own_charon_and_a_port_that_nobody_wants_are_no_findings() -> None:
    assert found(WELL.but(ports=(PortHolder(500, 5, "charon", ours=True),))) == {}
    assert found(WELL.but(snmp_holder=PortHolder(161, 9, "other"))) == {}
    assert found(WELL.but(sysctls={"net.ipv4.ip_forward": 1, "net.ipv4.conf.all.rp_filter": 2})) == {}
    assert found(WELL.but(settings=linux(ssh="127.0.0.1 [::1]:22"), ssh_key_mode=0o600)) == {}
    assert found(WELL.but(clock=1e9 - 3600, built=1e9)) == {}, "a clock of another time zone's making"


# ---- the configuration --------------------------------------------------------------------

Rows = Mapping[tuple[str, int], Mapping[str, Value]]
RULE: dict[str, Value] = {"ipsecTrProto": 255, "ipsecTrRemoteAddress": bytes([10, 2, 0, 0]), "ipsecTrRemoteMaskLen": 24}
PEER: dict[str, Value] = {
    "ipsecPeerTrafficList": 1,
    "ipsecPeerDescription": b"Branch",
    "ipsecPeerDynamicAddress": b"192.0.2.2",
    "ipsecPeerPreSharedKey": b"a long enough secret",
}
PASS: Rows = {("ipsecGlobalsContinued", 0): {"ipsecGlobContDefaultRule": 2}}
ON: Rows = {("ipsecGlobals", 0): {"ipsecGlobEnabled": 1}}
BRANCH: Rows = {("ipsecTrafficTable", 1): RULE, ("ipsecPeerTable", 1): PEER}


async def configured(folder: Path, rows: Rows, **flags: object) -> dict[str, tuple[Severity, str]]:
    """Findings on a configuration, by name."""
    store = Store.open(SCHEMA, "", folder)
    edits = [
        Edit(SCHEMA.columns[name], number, value)
        for (_, number), columns in rows.items()
        for name, value in columns.items()
    ]
    await store.commit(edits, AGENT)
    await store.close()
    settings = load_settings({"state": folder, **flags})
    state = stored(settings)
    plan, _ = await plan_of(settings, state)
    facts = Facts(settings, plan)
    return {finding.name: (finding.severity, finding.what) for look in CONFIGURATION for finding in look(facts)}


async def test_a_sound_configuration_has_no_finding(tmp_path: Path) -> None:
    assert await configured(tmp_path, {**BRANCH, **PASS, **ON}) == {}


async def test_peers_without_ipsec_switched_on(tmp_path: Path) -> None:
    findings = await configured(tmp_path, {**BRANCH, **PASS})
    assert findings == {"ipsec-off": (Severity.WARNING, "IPsec is switched off, and there are peers: 1")}


async def test_a_peer_without_key_is_named_with_its_description(tmp_path: Path) -> None:
    keyless = {name: value for name, value in PEER.items() if name != "ipsecPeerPreSharedKey"}
    findings = await configured(tmp_path, {**BRANCH, ("ipsecPeerTable", 1): keyless, **PASS, **ON})
    assert findings["no-key"] == (Severity.WARNING, 'ipsecPeerTable 1 "Branch" has no pre-shared key')
    assert findings["row-failed"][0] is Severity.ERROR


async def test_a_rule_behind_another_never_matches(tmp_path: Path) -> None:
    rows: Rows = {
        **BRANCH,
        ("ipsecTrafficTable", 1): {**RULE, "ipsecTrNextIndex": 2},
        ("ipsecTrafficTable", 2): {**RULE, "ipsecTrAction": 3},
        **PASS,
        **ON,
    }
    findings = await configured(tmp_path, rows)
    severity, text = findings["rule-never"]
    assert severity is Severity.WARNING and text.startswith("ipsecTrafficTable 2 never matches: ")


async def test_weak_proposals_of_profiles_and_profiles_of_nobody(tmp_path: Path) -> None:
    rows: Rows = {
        ("ikeProposalTable", 1): {"ikePropEncAlg": 2, "ikePropHashAlg": 3, "ikePropGroup": 2},
        ("ikeProposalTable", 2): {"ikePropEncAlg": 2, "ikePropHashAlg": 3, "ikePropGroup": 1},
        ("ikeProfileTable", 1): {"ikePrfProposal": 1, "ikePrfDescription": b"old"},
        ("ipsecProposalTable", 1): {"ipsecPropProto": 1, "ipsecPropEspDes": 1, "ipsecPropEspMd5": 1},
        ("ipsecProfileTable", 1): {"ipsecPrfProposal": 1, "ipsecPrfPfsGroup": 1},
        **BRANCH,
        ("ipsecPeerTable", 1): {**PEER, "ipsecPeerIkeProfile": 1},
        **PASS,
        **ON,
    }
    findings = await configured(tmp_path, rows)
    assert findings["weak"][0] is Severity.WARNING
    assert findings["profile-unused"] == (Severity.NOTE, "ipsecProfileTable 1 is used by nobody")
    settings = load_settings({"state": tmp_path})
    plan, _ = await plan_of(settings, stored(settings))
    weak = [f.what for look in CONFIGURATION for f in look(Facts(settings, plan)) if f.name == "weak"]
    assert weak == [
        "ikeProposalTable 1 offers DES, MD5, group 2 (1024 bits)",
        "ipsecProfileTable 1 offers group 1 (768 bits)",
        "ipsecProposalTable 1 offers DES, MD5",
    ], "the second phase 1 proposal is in no profile's chain"


async def test_a_default_rule_that_drops_ssh_unless_a_pre_rule_passes_it(tmp_path: Path) -> None:
    findings = await configured(tmp_path / "without", {**BRANCH, **ON})
    assert set(findings) == {"default-drop"}
    pre: Rows = {
        ("ipsecTrafficTable", 9): {"ipsecTrProto": 255, "ipsecTrAction": 3},
        ("ipsecGlobalsContinued", 0): {"ipsecGlobContPreIpsecRules": 9},
    }
    assert await configured(tmp_path / "with", {**BRANCH, **pre, **ON}) == {}


@pytest.mark.parametrize(("address", "found"), [(b"192.0.2.7", Severity.NOTE), (b"gw.invalid", Severity.WARNING)])
async def test_a_default_rule_that_drops_dns_matters_where_a_peer_has_a_name(
    tmp_path: Path, address: bytes, found: Severity
) -> None:
    rows = {**BRANCH, ("ipsecPeerTable", 1): {**PEER, "ipsecPeerDynamicAddress": address}, **ON}
    settings = load_settings({"state": tmp_path})
    await configured(tmp_path, rows)
    plan, _ = await plan_of(settings, stored(settings))
    told = {f.what: f for look in CONFIGURATION for f in look(Facts(settings, plan)) if f.name == "default-drop"}
    dns = told["the default rule drops DNS, of this gateway"]
    assert dns.severity is found and ("peer 1 has a name" in dns.why) is (found is Severity.WARNING)


async def test_a_default_rule_that_drops_the_shell_over_ssh(tmp_path: Path) -> None:
    ssh: dict[str, Value] = {"ipsecTrProto": 6, "ipsecTrRemotePort": 0, "ipsecTrLocalPort": 22, "ipsecTrAction": 3}
    out: dict[str, Value] = {"ipsecTrProto": 17, "ipsecTrAction": 3}
    pre: Rows = {
        ("ipsecTrafficTable", 9): {**ssh, "ipsecTrNextIndex": 10},
        ("ipsecTrafficTable", 10): out,
        ("ipsecGlobalsContinued", 0): {"ipsecGlobContPreIpsecRules": 9},
    }
    rows = {**BRANCH, **pre, **ON}
    assert await configured(tmp_path / "here", rows, ssh="127.0.0.1:2222") == {}
    found = await configured(tmp_path / "outside", rows, ssh="192.0.2.1:2222")
    assert found == {"default-drop": (Severity.WARNING, "the default rule drops the shell over SSH, to this gateway")}


def test_of_many_alike_some_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    rows: dict[tuple[str, int], Mapping[str, Value]] = {**PASS, **ON}
    for number in range(1, 31):
        rows["ikeProfileTable", number] = {"ikePrfProposal": 0, "ikePrfDescription": b"spare"}
    asyncio.run(configured(tmp_path, rows))
    text, status = run(load_settings({"state": tmp_path}))
    assert text.count("is used by nobody") == 21 and "10 more like these" in text
    assert status == 0


def test_a_kernel_without_esp_is_seen() -> None:
    """By making an SA; what the kernel has for it is in its list of symbols."""
    symbols = Path("/proc/kallsyms").read_text()
    if os.geteuid() or not symbols:
        pytest.skip("not root, or the kernel hides its symbols")
    missing = gather(LINUX).transforms_missing
    for name, symbol in (("ESP for IPv4", "esp_init_state"), ("ESP for IPv6", "esp6_init_state")):
        assert (name in missing) is (symbol not in symbols)


# ---- as a command -------------------------------------------------------------------------


def check(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([COMMAND, "check", *words], capture_output=True, text=True)


@pytest.mark.slow
def test_the_command_works_beside_an_agent_and_its_status_is_the_worst(tmp_path: Path) -> None:
    agent = Agent(tmp_path / "state")
    agent.start().socket.close()
    state = ("--state", str(tmp_path / "state"))
    try:
        facts = gather(load_settings({"state": tmp_path / "state"}))
        assert agent.process is not None and facts.agent_pid == agent.process.pid
        done = check(*state)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "note: the backend is memory" in done.stdout and "    do: set backend" in done.stdout
        (tmp_path / "state").chmod(0o755)
        assert check(*state).returncode == 1
        (tmp_path / "state" / "store.key").chmod(0o644)
        done = check(*state, "--json")
        assert done.returncode == 2
        findings = json.loads(done.stdout)
        assert findings[0]["severity"] == "error" and findings[0]["name"] == "key-mode"
        assert all(set(entry) == {"severity", "name", "what", "why", "todo"} for entry in findings)
    finally:
        assert agent.stop() == 0


def test_a_store_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "agent.sqlite").write_bytes(b"no database at all" * 100)
    text, status = run(load_settings({"state": tmp_path}))
    assert status == 2 and "error: " in text
