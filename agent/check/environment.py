"""Findings on the machine: what charon, kernel and agent need, and what lies open. Each function looks at one thing."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterator
from typing import Final

from agent.backends.policies import show_selector
from agent.check.facts import STATE_OCTETS, Facts
from agent.check.finding import Finding, error, note, warning
from agent.ssh_service import HOST_KEY_FILE

Look = Callable[[Facts], Iterator[Finding]]

CHARON_TRIED: Final = "5.9.8"
CLOCK_SLACK: Final = 86400.0  # seconds that a clock may be behind a file's time, of another time zone's making


def backend(facts: Facts) -> Iterator[Finding]:
    if not facts.linux:
        yield note(
            "backend-memory",
            "the backend is memory: nothing is made real",
            "policies and tunnels are only remembered; no packet is protected",
            'set backend = "linux" in the settings file, or --backend linux',
        )


def kernel(facts: Facts) -> Iterator[Finding]:
    if not facts.linux:
        return
    if facts.xfrm_error:
        yield error(
            "no-xfrm",
            f"the kernel's policies cannot be read: {facts.xfrm_error}",
            "without XFRM (CONFIG_XFRM_USER) and the right to it no rule becomes real",
            "run as root; if it fails then too: modprobe xfrm_user, or a kernel that has it",
        )
    if not facts.net_admin:
        yield error(
            "no-net-admin",
            "CAP_NET_ADMIN is missing",
            "only with it may policies be made and charon negotiate",
            "run as root; in a container add the capability NET_ADMIN",
        )
    if facts.modules_missing:
        yield warning(
            "modules",
            f"kernel modules are neither there nor built in: {', '.join(facts.modules_missing)}",
            "tunnels come up only if the kernel has ESP and lets XFRM be configured",
            f"install the distribution's full kernel, or modprobe {facts.modules_missing[0]} to see why not",
        )


def transforms(facts: Facts) -> Iterator[Finding]:
    """ESP carries every tunnel but those of AH alone; AH and IPComp are for those who ask for them."""
    if not facts.linux or facts.modules_missing:
        return
    without = [transform for transform in facts.transforms_missing if transform.startswith("ESP")]
    if without:
        yield error(
            "no-esp",
            f"the kernel makes no SA of {' and '.join(without)}",
            "peers are negotiated with and every tunnel fails; rules that protect drop",
            "a kernel with CONFIG_INET_ESP and CONFIG_INET6_ESP, such as the distribution's full one",
        )
    others = [transform for transform in facts.transforms_missing if transform not in without]
    if others:
        yield note(
            "no-transform",
            f"the kernel makes no SA of {', '.join(others)}",
            "proposals with them fail; those of ESP do without",
            "modprobe ah4, ah6, ipcomp or ipcomp6 where they are wanted",
        )


def charon(facts: Facts) -> Iterator[Finding]:
    if not facts.linux:
        return
    if not facts.charon or "strongswan-swanctl" in facts.packages_missing:
        yield error(
            "no-charon",
            f"strongSwan is not complete: {', '.join(facts.packages_missing) or 'no charon'}",
            "charon negotiates the tunnels, by its plugin vici",
            f"apt-get install --no-install-recommends {' '.join(facts.packages_missing)}",
        )
        return
    if facts.packages_missing:
        yield warning(
            "charon-plugins",
            f"packages with algorithms are missing: {', '.join(facts.packages_missing)}",
            "proposals that name them fail",
            f"apt-get install --no-install-recommends {' '.join(facts.packages_missing)}",
        )
    if facts.charon_version and not facts.charon_version.startswith("5.9."):
        yield note(
            "charon-version",
            f"charon is {facts.charon_version}",
            f"the agent was tried with {CHARON_TRIED}; options of other versions may differ",
            "look at ipsecGw…LastError and charon.log after the first tunnel",
        )


def ports(facts: Facts) -> Iterator[Finding]:
    if not facts.linux:
        return
    for holder in facts.ports:
        if holder.ours:
            continue
        who = f"{holder.name} (process {holder.pid})" if holder.pid else "a process that cannot be seen from here"
        yield error(
            "ike-port",
            f"UDP port {holder.port} is taken by {who}",
            "our charon needs it to speak IKE; two cannot share it",
            "stop the other: systemctl disable --now strongswan-starter strongswan libreswan, whichever it is",
        )
    if facts.snmp_holder is not None and facts.snmp_holder.name == "snmpd":
        yield note(
            "snmpd",
            "snmpd answers on port 161",
            "a station that asks there sees ours only if snmpd passes our subtree on",
            "add a proxy line for .1.3.6.1.4.1.272 to snmpd.conf, or let stations ask the port in --listen",
        )
    taken = facts.snmp_holder is not None and not facts.agent_pid
    if taken and facts.snmp_holder is not None and any(listen.port == 161 for listen in facts.settings.listen):
        yield error(
            "snmp-port",
            f"UDP port 161 is taken by {facts.snmp_holder.name or 'another process'}",
            "the agent is told to listen there and will not start",
            "stop the other, or choose another port in listen",
        )


def forwarding(facts: Facts) -> Iterator[Finding]:
    if not facts.linux:
        return
    for name in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
        if facts.sysctls.get(name) == 0:
            yield (warning if "ipv4" in name else note)(
                "forwarding",
                f"{name} is 0",
                "the gateway protects its own packets and forwards none of the hosts behind it",
                f"sysctl -w {name}=1, and a line in /etc/sysctl.d to keep it",
            )
    strict = [name for name in facts.sysctls if name.endswith("rp_filter") and facts.sysctls[name] == 1]
    if strict:
        yield warning(
            "rp-filter",
            f"{strict[0]} is 1",
            "decrypted packets whose way back is not the interface that they came by are dropped without a word",
            f"sysctl -w {strict[0]}=2 (loose), and a line in /etc/sysctl.d to keep it",
        )


def state_folder(facts: Facts) -> Iterator[Finding]:
    folder = facts.settings.state
    if facts.state_mode is None:
        yield note(
            "no-state",
            f"there is no state folder {folder}",
            "it is made at the agent's first start",
            "start the agent, or give the --state that it was given",
        )
    elif facts.state_mode & 0o077:
        yield warning(
            "state-mode",
            f"the state folder {folder} has mode {facts.state_mode:04o}",
            "others can read what is stored in it",
            f"chmod 0700 {folder}",
        )
    if facts.key_mode is not None and facts.key_mode & 0o077:
        yield error(
            "key-mode",
            f"the key file {folder / 'store.key'} has mode {facts.key_mode:04o}",
            "who reads it and the store has every pre-shared key",
            f"chmod 0600 {folder / 'store.key'}, and change the keys if others were on this machine",
        )
    if facts.free_octets < STATE_OCTETS:
        yield (error if facts.free_octets < STATE_OCTETS // 10 else warning)(
            "space",
            f"{facts.free_octets >> 20} MB are free where {folder} lies",
            "a SET that cannot be stored is answered commitFailed",
            f"make room; {STATE_OCTETS >> 20} MB are plenty",
        )


def clock(facts: Facts) -> Iterator[Finding]:
    latest = max(facts.built, facts.store_written)
    if facts.clock and facts.clock < latest - CLOCK_SLACK:
        yield warning(
            "clock",
            f"the clock says {time.strftime('%Y-%m-%d', time.gmtime(facts.clock))}, and a file of ours is newer",
            "certificates and SNMPv3 requests are judged by the time",
            "set the clock; let it be kept by NTP (timedatectl set-ntp true)",
        )


def other_agent(facts: Facts) -> Iterator[Finding]:
    if facts.linux and facts.others_agent:
        yield error(
            "other-agent",
            "an agent with another state folder makes policies in this network namespace",
            "two would take each other's policies for strays; the second does not start",
            "stop it, or give check the --state that it was given",
        )
    if facts.linux and facts.root and not facts.agent_pid and not facts.others_agent and facts.plan is not None:
        yield warning(
            "no-agent",
            f"no agent runs on {facts.settings.state}",
            "policies that are there stay, but no tunnel is brought up and no SET is answered",
            "systemctl start ipsec-agent; journalctl -u ipsec-agent says why it ended",
        )


def foreign(facts: Facts) -> Iterator[Finding]:
    if facts.foreign:
        key = facts.foreign[0]
        yield error(
            "foreign-policy",
            f"policies that are not ours hold selectors of our rules: {len(facts.foreign)}, the first is "
            f"{key.direction.name.lower()} {show_selector(key.selector)}",
            "the kernel holds one policy per selector and direction, and we replace only what we made",
            "find out who made it (ip xfrm policy), and remove it there",
        )
    elif facts.foreign_count:
        yield note(
            "foreign-policies",
            f"policies in the kernel that are not ours: {facts.foreign_count}",
            "with a lower priority number they come before all of ours",
            "nothing, if you know them (ip xfrm policy)",
        )


def snmp(facts: Facts) -> Iterator[Finding]:
    settings = facts.settings
    open_to = [str(at) for at in settings.listen if not ipaddress.ip_address(at.host).is_loopback]
    for name, may in (("write_community", "read and write"), ("read_community", "read")):
        if not getattr(settings, name):
            continue
        if open_to:
            yield (warning if name == "read_community" else error)(
                "community-open",
                f"{name} is set, and the agent listens on {', '.join(open_to)}",
                f"a community goes over the net in plain; who sees one packet may {may}",
                f"use SNMPv3 and drop {name}, or listen on 127.0.0.1 only",
            )
        else:
            yield note(
                "community",
                f"{name} is set: SNMPv1 and v2c are answered, on loopback",
                f"every local process that knows it may {may}",
                f"nothing, or use SNMPv3 and drop {name}",
            )


def ssh(facts: Facts) -> Iterator[Finding]:
    open_to = [str(at) for at in facts.settings.ssh if not ipaddress.ip_address(at.host).is_loopback]
    if open_to:
        yield note(
            "ssh-open",
            f"the shell is offered over SSH on {', '.join(open_to)}",
            "whoever gets there may try passwords, ten in ten minutes; those of SNMP users open it",
            "let only your own networks pass to it, and bind users to them (ipsecGwUserSourceList)",
        )
    path = facts.settings.state / HOST_KEY_FILE
    if facts.settings.ssh and facts.ssh_key_mode is not None and facts.ssh_key_mode & 0o077:
        yield error(
            "ssh-key-mode",
            f"the host key {path} has mode {facts.ssh_key_mode:04o}",
            "who reads it can pass for this gateway; the agent does not start with it",
            f"rm {path}: the agent makes a new one, which clients have to be told of",
        )


def nftables(facts: Facts) -> Iterator[Finding]:
    if facts.linux and not facts.nft:
        yield note(
            "no-nft",
            "there is no nft command",
            "spoofed inside addresses (ipsecGlobContPrivateInterface) pass, TCP segments do not fit tunnels",
            "apt-get install nftables",
        )


ENVIRONMENT: Final[tuple[Look, ...]] = (
    backend,
    kernel,
    transforms,
    charon,
    ports,
    forwarding,
    state_folder,
    clock,
    other_agent,
    foreign,
    snmp,
    ssh,
    nftables,
)
