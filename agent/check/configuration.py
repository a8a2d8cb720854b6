"""Findings on the stored configuration, by the plan that the agent makes of it."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from agent.check.facts import Facts
from agent.check.finding import Finding, error, note, warning
from agent.plan import cells
from agent.plan.capabilities import CHARON
from agent.plan.explain import DROP, explain_all
from agent.plan.model import ApplyState, Flow, RowRef, RowView
from agent.plan.peers import literal
from agent.plan.phase1 import RSA
from agent.plan.planner import Plan
from agent.plan.profiles import Profiles
from agent.plan.proposals import chain_rows
from agent.store.labels import label
from agent.store.snapshot import Configuration

Look = Callable[[Facts], Iterator[Finding]]

SHOWN: Final = 20  # rows named of one kind of finding; the rest are counted
DROP_RULE: Final = 1  # ipsecGlobContDefaultRule
WEAK_CIPHERS: Final = {2: "DES"}  # ikePropEncAlg
WEAK_HASHES: Final = {3: "MD5"}  # ikePropHashAlg
WEAK_GROUPS: Final = {1: "group 1 (768 bits)", 2: "group 2 (1024 bits)"}
WEAK_RANKS: Final = {
    "ipsecPropEspDes": "DES",
    "ipsecPropEspNull": "no encryption",
    "ipsecPropEspMd5": "MD5",
    "ipsecPropEspNoMac": "no MAC",
    "ipsecPropAhMd5": "MD5",
}
ELSEWHERE: Final = {4: bytes([198, 51, 100, 77]), 16: bytes.fromhex("20010db8") + bytes(11) + b"\x4d"}  # RFC 5737, 3849
TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP


class Service(NamedTuple):
    """Traffic of the gateway itself that a default rule `drop` should not cut by accident. `way` as Flow's."""

    name: str
    protocol: int
    port: int
    way: str


DNS: Final = 53
SERVICES: Final = (
    Service("ssh", TCP, 22, "in"),
    Service("DNS", UDP, DNS, "out"),
    Service("NTP", UDP, 123, "out"),
)


def store(facts: Facts) -> Iterator[Finding]:
    if facts.plan is None:
        missing = facts.store_error.startswith("there is no store")
        yield (note if missing else error)(
            "store",
            facts.store_error,
            "without it nothing is known of the configuration, and nothing of it was looked at",
            "start the agent once" if missing else "docs/backup.md says how to take an earlier copy",
        )


def switched_off(facts: Facts) -> Iterator[Finding]:
    configuration = _configuration(facts)
    if configuration is None or facts.plan is None or facts.plan.enabled:
        return
    peers = len(list(configuration.rows("ipsecPeerTable")))
    if peers:
        yield warning(
            "ipsec-off",
            f"IPsec is switched off, and there are peers: {peers}",
            "nothing is protected; everything passes in plain",
            "set ipsecGlobEnabled.0 = true",
        )


def rows(facts: Facts) -> Iterator[Finding]:
    """What the plan says of each row: cannot be made real, or stands behind another."""
    plan = facts.plan
    if plan is None or not plan.enabled:
        return
    failed = [(ref, verdict.text) for ref, verdict in plan.verdicts.items() if verdict.state is ApplyState.FAILED]
    yield from _some(
        failed,
        lambda ref, text: error(
            "row-failed",
            f"{_name(plan, ref)}: {text}",
            "the row is not in force; of a rule that protects, the traffic is blocked",
            "change what the text names",
        ),
    )
    shadowed = [(ref, verdict.text) for ref, verdict in plan.verdicts.items() if verdict.state is ApplyState.SHADOWED]
    yield from _some(
        shadowed,
        lambda ref, text: warning(
            "rule-never",
            f"{_name(plan, ref)} never matches: {text}",
            "an earlier rule takes all of its traffic",
            "reorder the rules, make the earlier one narrower, or delete this one",
        ),
    )
    warned = [
        (ref, verdict.text)
        for ref, verdict in plan.verdicts.items()
        if verdict.state is ApplyState.APPLIED and verdict.text
    ]
    yield from _some(
        warned,
        lambda ref, text: note(
            "row-note",
            f"{_name(plan, ref)}: {text}",
            "the row is in force, and not all of it may be as you expect",
            "nothing, if this is what you mean",
        ),
    )
    unused = [
        (ref, verdict.text)
        for ref, verdict in plan.verdicts.items()
        if verdict.state is ApplyState.UNUSED and ref.table in ("ipsecTrafficTable", "ipsecPeerTable")
    ]
    yield from _some(
        unused,
        lambda ref, text: note(
            "row-unused",
            f"{_name(plan, ref)} is not used: {text}",
            "it does nothing",
            "give it what the text misses, or delete it",
        ),
    )


def keys(facts: Facts) -> Iterator[Finding]:
    configuration = _configuration(facts)
    if configuration is None:
        return
    profiles = Profiles(configuration, CHARON)
    without = [
        (RowRef("ipsecPeerTable", row.number), "")
        for row in configuration.rows("ipsecPeerTable")
        if not cells.octets(row, "ipsecPeerPreSharedKeyData") and not _signs(profiles, row)
    ]
    yield from _some(
        without,
        lambda ref, _: warning(
            "no-key",
            f"{label(configuration, *ref)} has no pre-shared key",
            "no tunnel to this peer can come up, and its rules block",
            f"set ipsecPeerPreSharedKey.{ref.number}",
        ),
    )


def weak(facts: Facts) -> Iterator[Finding]:
    configuration = _configuration(facts)
    if configuration is None:
        return
    found: list[tuple[RowRef, str]] = []
    used_ike = _reached(configuration, "ikeProposalTable", "ikeProfileTable", "ikePrfProposal", "ikePropNextChoice")
    for row in configuration.rows("ikeProposalTable"):
        words = [
            WEAK_CIPHERS.get(cells.number(row, "ikePropEncAlg"), ""),
            WEAK_HASHES.get(cells.number(row, "ikePropHashAlg"), ""),
            WEAK_GROUPS.get(cells.number(row, "ikePropGroup"), ""),
        ]
        if row.number in used_ike and any(words):
            found.append((RowRef("ikeProposalTable", row.number), ", ".join(filter(None, words))))
    used_esp = _reached(configuration, "ipsecProposalTable", "ipsecProfileTable", "ipsecPrfProposal", "ipsecPropNext")
    for row in configuration.rows("ipsecProposalTable"):
        words = [word for column, word in WEAK_RANKS.items() if cells.number(row, column) > 0]
        if row.number in used_esp and words:
            found.append((RowRef("ipsecProposalTable", row.number), ", ".join(words)))
    for table, column in (("ikeProfileTable", "ikePrfGroup"), ("ipsecProfileTable", "ipsecPrfPfsGroup")):
        for row in configuration.rows(table):
            word = WEAK_GROUPS.get(cells.number(row, column))
            if word:
                found.append((RowRef(table, row.number), word))
    yield from _some(
        found,
        lambda ref, words: warning(
            "weak",
            f"{ref.table} {ref.number} offers {words}",
            "the other side may choose it, and it can be broken or protects nothing",
            "use AES with SHA-256 and group 14 or higher; where the other side cannot, keep it to that peer's profile",
        ),
    )


def profiles(facts: Facts) -> Iterator[Finding]:
    configuration = _configuration(facts)
    if configuration is None:
        return
    references = {
        "ikeProfileTable": ("ipsecGlobIkeProfile", (("ipsecPeerTable", "ipsecPeerIkeProfile"),)),
        "ipsecProfileTable": (
            "ipsecGlobIpsecProfile",
            (("ipsecPeerTable", "ipsecPeerIpsecProfile"), ("ipsecTrafficTable", "ipsecTrProfile")),
        ),
    }
    unused: list[tuple[RowRef, str]] = []
    for table, (scalar, columns) in references.items():
        used = {configuration.scalar(scalar)}
        used.update(cells.number(row, column) for source, column in columns for row in configuration.rows(source))
        unused += [(RowRef(table, row.number), "") for row in configuration.rows(table) if row.number not in used]
    yield from _some(
        unused,
        lambda ref, _: note(
            "profile-unused",
            f"{ref.table} {ref.number} is used by nobody",
            "it does nothing",
            "delete it, or refer to it",
        ),
    )


def default_rule(facts: Facts) -> Iterator[Finding]:
    plan, configuration = facts.plan, _configuration(facts)
    if plan is None or configuration is None or not plan.enabled:
        return
    if configuration.scalar("ipsecGlobContDefaultRule") != DROP_RULE:
        return
    own = sorted(address for address in plan.environment.own_addresses if _outside(address))[:1]
    here = own[0] if own else bytes([192, 0, 2, 1])
    there = ELSEWHERE[len(here)]
    offered = [
        Service("the shell over SSH", TCP, at.port, "in")
        for at in facts.settings.ssh
        if not ipaddress.ip_address(at.host).is_loopback
    ]
    for service in (*SERVICES, *offered):
        if service.way == "in":
            flow = Flow(there, here, service.protocol, 40000, service.port, "in")
        else:
            flow = Flow(here, there, service.protocol, 40000, service.port, "out")
        found = explain_all(plan, (flow,))[0]
        if found.decision == DROP and (found.rule is None or found.rule.table != "ipsecTrafficTable"):
            named = _first_named(configuration) if service.port == DNS else 0
            yield (warning if service.way == "in" or named else note)(
                "default-drop",
                f"the default rule drops {service.name}, {'to' if service.way == 'in' else 'of'} this gateway",
                f"peer {named} has a name, which cannot be looked up then"
                if named
                else "no pre rule lets it pass"
                + ("; who is connected now may not get in again" if service.way == "in" else ""),
                f"add a pre rule (ipsecGlobContPreIpsecRules) that passes port {service.port}, if you need it",
            )


def _first_named(configuration: Configuration) -> int:
    """A peer whose address is a name; 0 for none."""
    names = ((row.number, cells.text(row, "ipsecPeerDynamicAddress")) for row in configuration.rows("ipsecPeerTable"))
    return next((number for number, text in names if text and literal(text) is None), 0)


# ---- what they share ----------------------------------------------------------------------


def _configuration(facts: Facts) -> Configuration | None:
    if facts.plan is None:
        return None
    assert isinstance(facts.plan.configuration, Configuration)
    return facts.plan.configuration


def _signs(profiles: Profiles, row: RowView) -> bool:
    """Whether a peer authenticates by signatures."""
    asked = (cells.number(row, f"ipsecPeer{name}") for name in ("IkeProfile", "IkeVersion", "AuthMethod"))
    return profiles.phase1(*asked).method == RSA


def _name(plan: Plan, ref: RowRef) -> str:
    assert isinstance(plan.configuration, Configuration)
    return label(plan.configuration, *ref)


def _some(found: Iterable[tuple[RowRef, str]], make: Callable[[RowRef, str], Finding]) -> Iterator[Finding]:
    """The first of many alike, and a last one that counts."""
    entries = sorted(found)
    for ref, text in entries[:SHOWN]:
        yield make(ref, text)
    if len(entries) > SHOWN:
        last = make(*entries[-1])
        yield last._replace(what=f"{len(entries) - SHOWN} more like these, the last is {last.what}")


def _reached(configuration: Configuration, table: str, profiles: str, head: str, link: str) -> set[int]:
    """Rows of a proposal table that some profile's chain holds."""
    heads = {cells.number(profile, head) for profile in configuration.rows(profiles)}
    return {row.number for at in heads for row in chain_rows(configuration, table, at, link)}


def _outside(address: bytes) -> bool:
    """Neither loopback nor of a link alone."""
    if len(address) == 4:
        return address[0] != 127
    return address != bytes(15) + b"\x01" and address[:2] != b"\xfe\x80"


CONFIGURATION: Final[tuple[Look, ...]] = (*(store, switched_off, rows, keys, weak, profiles, default_rule),)
