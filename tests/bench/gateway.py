"""Within a namespace: what the agent costs beside the bare tools, doing the same work in the same run.

Rules: 10,000 made by SET until the last policy is in the kernel, beside one `ip -batch` of those very policies, both
into the same empty kernel. Peers: 10,000 switched on until charon has them all, beside a session that hands the
very same connections and secrets to a charon of its own.
"""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import vici

from agent.backends.charon.config import SOCKET, Options
from agent.backends.charon.process import Daemon
from agent.backends.charon.vici import plain
from agent.mib import load_schema
from agent.mib.ber import Wire, encode_integer, encode_tlv
from agent.plan.capabilities import CHARON
from agent.plan.model import Environment
from agent.plan.planner import Plan, make_plan
from agent.store.store import Store
from tests.station import SET, Agent, Station, VarBind, instance

RULES = PEERS = 10_000
AT_ONCE = 16  # rules of one SET, some 100 varbinds
PATIENCE = 300.0
PER_RULE = 5  # policies of one rule with a selector of its own
POLICY = re.compile(r"src (\S+) dst (\S+) (.*?)\bdir (\w+)( action block)?.*?priority (\d+)")


def text(name: str, row: int, octets: bytes) -> VarBind:
    return instance(name, row), encode_tlv(Wire.OCTET_STRING, octets)


def address(name: str, row: int, number: int) -> VarBind:
    return instance(name, row), encode_tlv(Wire.IP_ADDRESS, number.to_bytes(4, "big"))


def integer(name: str, row: int, value: int) -> VarBind:
    return instance(name, row), encode_integer(value)


def rule(number: int, following: int, action: int = 3) -> list[VarBind]:
    """A rule about one host, that passes (3) or protects (4)."""
    return [
        integer("ipsecTrProto", number, 255),
        integer("ipsecTrAction", number, action),
        address("ipsecTrRemoteAddress", number, 0x0A00_0000 + number),
        integer("ipsecTrRemoteMaskLen", number, 32),
        integer("ipsecTrNextIndex", number, following),
    ]


def policies() -> list[str]:
    """One text each of what the kernel holds, without those that sockets carry."""
    output = subprocess.run(["ip", "xfrm", "policy"], check=True, capture_output=True, text=True).stdout
    blocks = re.split(r"^(?=src )", output, flags=re.MULTILINE)
    return [" ".join(block.split()) for block in blocks if block.strip() and "socket " not in block]


def count() -> int:
    """Policies in the kernel, by its own count."""
    output = subprocess.run(["ip", "xfrm", "policy", "count"], check=True, capture_output=True, text=True).stdout
    return sum(map(int, re.findall(r"\b(?:IN|OUT|FWD)\s+(\d+)", output)))


def until(done: Callable[[], bool], pause: float = 0.02) -> float:
    """The moment it is so. Raises RuntimeError when it never is."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if done():
            return time.monotonic()
        time.sleep(pause)
    raise RuntimeError("it takes too long")


def rules_by_set(state: Path) -> None:
    """Rules by SET to policies, beside `ip -batch`."""
    state.mkdir(parents=True)
    agent = Agent(state, backend="linux")
    try:
        station = agent.start()
        station.ask(SET, [integer("ipsecGlobContDefaultRule", 0, 2), integer("ipsecGlobEnabled", 0, 1)])
        time.sleep(1)
        before = count()
        begun = time.monotonic()
        for last in range(RULES, 0, -AT_ONCE):
            first = max(1, last - AT_ONCE + 1)
            rows = [rule(number, number + 1 if number < RULES else 0) for number in range(first, last + 1)]
            station.ask(SET, [each for row in rows for each in row])
            station.ask(SET, [integer("ipsecGlobContPreIpsecRules", 0, first)])
        answered = time.monotonic() - begun
        ours = until(lambda: count() >= before + PER_RULE * RULES) - begun
        lines = [batch_line(policy) for policy in policies()]
    finally:
        agent.stop()
        agent.flush()
    subprocess.run(["ip", "xfrm", "policy", "flush"], check=True)
    begun = time.monotonic()
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)
    theirs = time.monotonic() - begun
    subprocess.run(["ip", "xfrm", "policy", "flush"], check=True)
    print(
        f"{RULES} rules by SET ({AT_ONCE} in each, the list begun anew after each): answered in {answered:.2f} s, "
        f"{len(lines)} policies in the kernel after {ours:.2f} s; ip -batch of the same policies {theirs:.2f} s; "
        f"ratio {ours / theirs:.2f}"
    )


def batch_line(policy: str) -> str:
    """A policy as `ip xfrm policy` shows it, as the line that makes it."""
    found = POLICY.match(policy)
    assert found is not None, policy
    source, destination, upper, direction, block, priority = found.groups()
    action = " action block" if block else ""
    return f"xfrm policy add src {source} dst {destination} {upper} dir {direction}{action} priority {priority}"


def peer(number: int) -> list[VarBind]:
    """A peer with a key and a rule of its own."""
    return [
        *rule(number, 0, 4),
        integer("ipsecPeerTrafficList", number, number),
        text("ipsecPeerDynamicAddress", number, socket.inet_ntoa((0x0B00_0000 + number).to_bytes(4, "big")).encode()),
        text("ipsecPeerPreSharedKey", number, b"key-%d" % number),
    ]


def session_of(daemon: Daemon) -> Any:
    return vici.Session(daemon.connect(60))


def held(session: Any) -> tuple[int, int]:
    """How many connections and secrets a charon holds."""
    return len(session.get_conns()["conns"]), len(session.get_shared()["keys"])


def peers_to_charon(state: Path) -> None:
    """Peers switched on until charon has them, beside bare VICI."""
    state.mkdir(parents=True)
    agent = Agent(state, backend="linux")
    try:
        station = agent.start()
        make_peers(station)
        begun = time.monotonic()
        station.ask(SET, [integer("ipsecGlobEnabled", 0, 1)])
        until(lambda: any(state.rglob(SOCKET)))  # it is started now
        time.sleep(0.5)
        session = session_of(Daemon(next(path.parent for path in state.rglob(SOCKET))))
        # One connection for each mode of phase 1. Asking is work for charon too, so seldom.
        ours = until(lambda: held(session) >= (2 * PEERS, PEERS), pause=1) - begun
    finally:
        agent.stop()
        agent.flush()
    plan, keys = wanted(state)
    bare = Daemon(state / "bare")
    bare.start(Options())
    try:
        session = session_of(bare)
        begun = time.monotonic()
        for secret in plan.secrets.values():
            session.load_shared({"id": secret.id, "type": "IKE", "data": keys, "owners": list(secret.owners)})
        for connection in plan.connections.values():
            session.load_conn({connection.name: plain(connection.settings)})
        theirs = time.monotonic() - begun
        assert held(session) == (len(plan.connections), len(plan.secrets))
    finally:
        bare.end()
    print(
        f"{PEERS} peers switched on: charon has all {len(plan.connections)} connections and {len(plan.secrets)} keys, "
        f"and the kernel their policies, after {ours:.2f} s; bare VICI {theirs:.2f} s; ratio {ours / theirs:.2f}"
    )


def make_peers(station: Station) -> None:
    at_once = 15
    for first in range(1, PEERS + 1, at_once):
        rows = [peer(number) for number in range(first, min(first + at_once, PEERS + 1))]
        station.ask(SET, [each for row in rows for each in row])


def wanted(state: Path) -> tuple[Plan, bytes]:
    """The plan of what is stored, seen from this namespace, and a key as long as theirs."""
    store = Store.open(load_schema(), f"sqlite:///{state / 'agent.sqlite'}", state)
    own = socket.inet_aton("10.255.0.1")
    remotes = {(0x0B00_0000 + number).to_bytes(4, "big"): own for number in range(1, PEERS + 1)}
    plan = make_plan(store.running, Environment(capabilities=CHARON, own_addresses=frozenset({own}), sources=remotes))
    return plan, b"key-1234"


def measure(state: Path) -> None:
    """Both, one after the other."""
    for line in ("addr add 10.255.0.1/32 dev lo", "route add 11.0.0.0/8 dev lo src 10.255.0.1"):
        subprocess.run(["ip", *line.split()], check=True)
    rules_by_set(state / "rules")
    peers_to_charon(state / "peers")
