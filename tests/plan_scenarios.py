"""What becomes of a packet under a configuration, told by the guide: the scenarios of test_plan_oracle.

Each is a configuration and lines `packet = outcome`. Peer n is the gateway 198.51.100.n; 10.1.0.1 and 192.0.2.1 are
addresses of this host.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from agent.mib.ber import Value
from agent.plan.model import Tunnel
from tests.plan_helpers import OUR_ADDRESS, packed, peer_address


class Scenario(NamedTuple):
    name: str
    chains: Mapping[int | str, list[str]]
    cases: str
    default: str = "drop"
    peers: Mapping[int, Mapping[str, Value]] = {}
    tunnels: Mapping[str, Tunnel] = {}
    enabled: bool = True


def up(peer: int, **more: object) -> Tunnel:
    fields: dict[str, object] = {"mode": 1, "protocol": 50}
    return Tunnel(f"peer-{peer}", packed(OUR_ADDRESS), packed(peer_address(peer)), **(fields | more))  # type: ignore[arg-type]


DOWN: Mapping[str, Value] = {"ipsecPeerAdminStatus": 2}
NO_KEY: Mapping[str, Value] = {"ipsecPeerPreSharedKeyData": b""}
CALLS_US: Mapping[str, Value] = {"ipsecPeerDynamicAddress": b"", "ipsecPeerPeerIds": b"[road]"}
A, B = "10.1.0.0/16", "10.2.0.0/16"

BLOCKED_EVERYWHERE = """
    out 10.1.0.1 > 10.2.0.9 = drop
    in 10.2.0.9 > 10.1.0.1 = drop
    in 10.2.0.9 > 10.1.0.1 from 1 = drop
    forward 10.1.0.5 > 10.2.0.9 = drop
    forward 10.2.0.9 > 10.1.0.5 = drop
    forward 10.2.0.9 > 10.1.0.5 from 1 = drop
    out 10.1.0.1 > 10.9.0.9 = plain
    forward 10.1.0.5 > 10.9.0.9 = plain
"""

PASSES_EVERYWHERE = """
    out 10.1.0.1 > 10.2.0.9 = plain
    in 10.2.0.9 > 10.1.0.1 = ok
    forward 10.1.0.5 > 10.2.0.9 = plain
    forward 10.2.0.9 > 10.1.0.5 = plain
    in 10.2.0.9 > 10.1.0.1 from 1 = drop
    forward 10.2.0.9 > 10.1.0.5 from 1 = drop
"""

SCENARIOS = [
    Scenario(
        "protect, default drop",
        {1: [f"protect {A} {B}"]},
        """
        out 10.1.0.1 > 10.2.0.9 = peer1
        out 10.1.0.1 > 10.2.0.9 icmp = peer1
        in 10.2.0.9 > 10.1.0.1 from 1 = ok
        in 10.2.0.9 > 10.1.0.1 = drop
        in 10.2.0.9 > 10.1.0.1 from 2 = drop
        forward 10.1.0.5 > 10.2.0.9 = peer1
        forward 10.2.0.9 > 10.1.0.5 from 1 = plain
        forward 10.2.0.9 > 10.1.0.5 = drop
        forward 10.2.0.9 > 10.1.0.5 from 2 = drop
        out 10.1.0.1 > 10.9.0.9 = drop
        in 10.9.0.9 > 10.1.0.1 = drop
        in 10.9.0.9 > 10.1.0.1 from 1 = drop
        forward 10.1.0.5 > 10.9.0.9 = drop
        forward 10.9.0.9 > 10.1.0.5 = drop
        forward 10.9.0.9 > 10.1.0.5 from 1 = drop
        out 192.0.2.1 > 10.2.0.9 = drop
        in 10.2.0.9 > 192.0.2.1 from 1 = drop
        """,
    ),
    Scenario(
        "protect, default pass",
        {1: [f"protect {A} {B}"]},
        """
        out 10.1.0.1 > 10.2.0.9 = peer1
        in 10.2.0.9 > 10.1.0.1 from 1 = ok
        in 10.2.0.9 > 10.1.0.1 = drop
        forward 10.1.0.5 > 10.2.0.9 = peer1
        forward 10.2.0.9 > 10.1.0.5 from 1 = plain
        forward 10.2.0.9 > 10.1.0.5 = drop
        out 10.1.0.1 > 10.9.0.9 = plain
        in 10.9.0.9 > 10.1.0.1 = ok
        in 10.9.0.9 > 10.1.0.1 from 1 = drop
        forward 10.1.0.5 > 10.9.0.9 = plain
        forward 10.9.0.9 > 10.1.0.5 from 1 = drop
        """,
        default="pass",
    ),
    Scenario(
        "a protect rule has both directions whatever its Direction says",
        {1: [f"protect {A} {B} outbound"]},
        """
        out 10.1.0.1 > 10.2.0.9 = peer1
        in 10.2.0.9 > 10.1.0.1 from 1 = ok
        forward 10.2.0.9 > 10.1.0.5 from 1 = plain
        in 10.2.0.9 > 10.1.0.1 = drop
        """,
    ),
    Scenario("pass, both directions", {1: [f"pass {A} {B}"]}, PASSES_EVERYWHERE),
    Scenario(
        "pass outbound",
        {1: [f"pass {A} {B} outbound"]},
        """
        out 10.1.0.1 > 10.2.0.9 = plain
        in 10.2.0.9 > 10.1.0.1 = drop
        forward 10.1.0.5 > 10.2.0.9 = plain
        forward 10.2.0.9 > 10.1.0.5 = drop
        """,
    ),
    Scenario(
        "pass inbound",
        {1: [f"pass {A} {B} inbound"]},
        """
        out 10.1.0.1 > 10.2.0.9 = drop
        in 10.2.0.9 > 10.1.0.1 = ok
        in 10.2.0.9 > 10.1.0.1 from 1 = drop
        forward 10.1.0.5 > 10.2.0.9 = drop
        forward 10.2.0.9 > 10.1.0.5 = plain
        """,
    ),
    Scenario("drop, both directions", {1: [f"drop {A} {B}"]}, BLOCKED_EVERYWHERE, default="pass"),
    Scenario(
        "drop outbound",
        {1: [f"drop {A} {B} outbound"]},
        """
        out 10.1.0.1 > 10.2.0.9 = drop
        in 10.2.0.9 > 10.1.0.1 = ok
        forward 10.1.0.5 > 10.2.0.9 = drop
        forward 10.2.0.9 > 10.1.0.5 = plain
        """,
        default="pass",
    ),
    Scenario(
        "drop inbound",
        {1: [f"drop {A} {B} inbound"]},
        """
        out 10.1.0.1 > 10.2.0.9 = plain
        in 10.2.0.9 > 10.1.0.1 = drop
        forward 10.1.0.5 > 10.2.0.9 = plain
        forward 10.2.0.9 > 10.1.0.5 = drop
        """,
        default="pass",
    ),
    Scenario("a peer that is down blocks", {1: [f"protect {A} {B}"]}, BLOCKED_EVERYWHERE, "pass", {1: DOWN}),
    Scenario("a peer without key blocks", {1: [f"protect {A} {B}"]}, BLOCKED_EVERYWHERE, "pass", {1: NO_KEY}),
    Scenario(
        "a peer of unknown address blocks until it called",
        {1: [f"protect {A} {B}"]},
        BLOCKED_EVERYWHERE,
        "pass",
        {1: CALLS_US},
    ),
    Scenario(
        "a peer that called",
        {1: [f"protect {A} {B}"]},
        """
        out 10.1.0.1 > 10.2.0.9 = peer1
        in 10.2.0.9 > 10.1.0.1 from 1 = ok
        in 10.2.0.9 > 10.1.0.1 = drop
        in 10.2.0.9 > 10.1.0.1 from 2 = drop
        forward 10.1.0.5 > 10.2.0.9 = peer1
        forward 10.2.0.9 > 10.1.0.5 from 1 = plain
        forward 10.2.0.9 > 10.1.0.5 = drop
        """,
        peers={1: CALLS_US},
        tunnels={"peer-1-rule-101": up(1)},
    ),
    Scenario(
        "a tunnel with compression",
        {1: [f"protect {A} {B}"]},
        """
        out 10.1.0.1 > 10.2.0.9 = peer1
        in 10.2.0.9 > 10.1.0.1 from 1 = ok
        in 10.2.0.9 > 10.1.0.1 = drop
        forward 10.1.0.5 > 10.2.0.9 = peer1
        forward 10.2.0.9 > 10.1.0.5 from 1 = plain
        """,
        tunnels={"peer-1-rule-101": up(1, ipcomp=True)},
    ),
    Scenario(
        "the other gateway itself",
        {1: ["protect 192.0.2.1/32 198.51.100.1/32"]},
        """
        out 192.0.2.1 > 198.51.100.1 tcp/4000/22 = peer1
        in 198.51.100.1 > 192.0.2.1 tcp/22/4000 from 1 = ok
        in 198.51.100.1 > 192.0.2.1 tcp/22/4000 = drop
        out 192.0.2.1 > 198.51.100.1 udp/500/500 = plain
        in 198.51.100.1 > 192.0.2.1 udp/500/500 = ok
        out 192.0.2.1 > 198.51.100.1 udp/4500/4500 = plain
        out 192.0.2.1 > 198.51.100.1 esp = plain
        out 192.0.2.1 > 198.51.100.2 tcp/4000/22 = drop
        """,
        tunnels={"peer-1-rule-101": up(1, mode=0)},
    ),
    Scenario(
        "hub: spoke to spoke leaves encrypted",
        {1: ["protect 10.0.0.0/8 10.1.0.0/16"], 2: ["protect 10.0.0.0/8 10.2.0.0/16"]},
        """
        forward 10.1.0.5 > 10.2.0.9 from 1 = peer2
        forward 10.2.0.9 > 10.1.0.5 from 2 = peer1
        forward 10.1.0.5 > 10.2.0.9 = drop
        forward 10.2.0.9 > 10.1.0.5 = drop
        forward 10.1.0.5 > 10.2.0.9 from 2 = drop
        forward 10.2.0.9 > 10.1.0.5 from 1 = drop
        forward 10.7.0.5 > 10.1.0.5 = peer1
        forward 10.7.0.5 > 10.2.0.9 = peer2
        forward 10.1.0.5 > 10.7.0.5 from 1 = plain
        forward 10.2.0.9 > 10.7.0.5 from 2 = plain
        forward 10.2.0.9 > 10.7.0.5 = drop
        out 10.7.0.1 > 10.1.0.5 = peer1
        out 10.7.0.1 > 10.2.0.9 = peer2
        in 10.1.0.5 > 10.7.0.1 from 1 = ok
        in 10.2.0.9 > 10.7.0.1 from 2 = ok
        in 10.2.0.9 > 10.7.0.1 from 1 = drop
        forward 10.1.0.5 > 10.1.0.9 from 1 = peer1
        forward 10.7.0.5 > 192.168.0.1 = drop
        forward 10.1.0.5 > 192.168.0.1 from 1 = drop
        """,
    ),
    Scenario(
        "hub with a spoke down: nothing for it leaves in plain",
        {1: ["protect 10.0.0.0/8 10.1.0.0/16"], 2: ["protect 10.0.0.0/8 10.2.0.0/16"]},
        """
        forward 10.1.0.5 > 10.2.0.9 from 1 = drop
        forward 10.2.0.9 > 10.1.0.5 from 2 = drop
        forward 10.2.0.9 > 10.1.0.5 = drop
        forward 10.7.0.5 > 10.2.0.9 = drop
        forward 10.7.0.5 > 10.1.0.5 = peer1
        forward 10.1.0.5 > 10.7.0.5 from 1 = plain
        out 10.7.0.1 > 10.2.0.9 = drop
        """,
        default="pass",
        peers={2: DOWN},
    ),
    Scenario(
        "hub with the first spoke down",
        {1: ["protect 10.0.0.0/8 10.1.0.0/16"], 2: ["protect 10.0.0.0/8 10.2.0.0/16"]},
        """
        forward 10.2.0.9 > 10.1.0.5 from 2 = drop
        forward 10.1.0.5 > 10.2.0.9 = drop
        forward 10.7.0.5 > 10.2.0.9 = peer2
        forward 10.2.0.9 > 10.7.0.5 from 2 = plain
        forward 10.7.0.5 > 10.1.0.5 = drop
        """,
        default="pass",
        peers={1: DOWN},
    ),
    Scenario(
        "protect, then drop the rest: forwarded packets of the tunnel pass",
        {1: [f"protect {A} {B}", "drop any any"]},
        """
        forward 10.1.0.5 > 10.2.0.9 = peer1
        forward 10.2.0.9 > 10.1.0.5 from 1 = plain
        out 10.1.0.1 > 10.2.0.9 = peer1
        in 10.2.0.9 > 10.1.0.1 from 1 = ok
        in 10.2.0.9 > 10.1.0.1 = drop
        forward 10.1.0.5 > 10.9.0.9 = drop
        forward 10.9.0.9 > 10.1.0.5 = drop
        out 10.1.0.1 > 10.9.0.9 = drop
        in 10.9.0.9 > 10.1.0.1 = drop
        """,
        default="pass",
    ),
    Scenario(
        "two protect rules, then drop the rest",
        {1: ["protect 10.0.0.0/8 10.1.0.0/16", "protect 10.0.0.0/8 10.2.0.0/16", "drop any any"]},
        """
        forward 10.1.0.5 > 10.2.0.9 from 1 = peer1
        forward 10.7.0.5 > 10.2.0.9 = peer1
        forward 10.2.0.9 > 10.7.0.5 from 1 = plain
        forward 10.1.0.5 > 10.7.0.5 from 1 = plain
        forward 10.7.0.5 > 10.9.0.5 = drop
        """,
        default="pass",
    ),
    Scenario(
        "a drop rule between two peers, and the second peer overlaps the first: nothing leaks",
        {1: ["protect 10.0.0.0/8 10.1.0.0/16", "drop 10.0.0.0/8 10.2.0.0/16"], 2: ["protect 10.0.0.0/8 10.2.0.0/16"]},
        """
        forward 10.1.0.5 > 10.2.0.9 from 1 = drop
        forward 10.7.0.5 > 10.2.0.9 = drop
        forward 10.7.0.5 > 10.1.0.5 = peer1
        out 10.7.0.1 > 10.2.0.9 = drop
        """,
        default="pass",
    ),
    Scenario(
        "a drop rule of the rest of one spoke, and another spoke behind it",
        {
            1: ["protect 10.0.0.0/8 10.1.0.0/16 tcp", "drop 10.0.0.0/8 10.1.0.0/16"],
            2: ["protect 10.0.0.0/8 10.2.0.0/16"],
        },
        """
        forward 10.1.0.5 > 10.2.0.9 from 1 = peer2
        forward 10.1.0.5 > 10.7.0.5 from 1 = plain
        forward 10.7.0.5 > 10.2.0.9 = peer2
        forward 10.7.0.5 > 10.1.0.5 = peer1
        forward 10.7.0.5 > 10.1.0.5 udp = drop
        forward 10.1.0.5 > 10.2.0.9 udp from 1 = drop
        in 10.1.0.5 > 10.7.0.1 from 1 = ok
        """,
        default="pass",
    ),
    Scenario(
        "a drop rule towards another spoke is not undone by the tunnel of the first",
        {1: ["protect 10.0.0.0/8 10.1.0.0/16", "drop 10.0.0.0/8 10.2.0.0/16"]},
        """
        forward 10.1.0.5 > 10.2.0.9 from 1 = drop
        forward 10.1.0.5 > 10.7.0.5 from 1 = plain
        forward 10.7.0.5 > 10.1.0.5 = peer1
        """,
        default="pass",
    ),
    Scenario(
        "a drop rule of everything between two spokes: the second is dead, and nothing leaks towards it",
        {1: ["protect 10.0.0.0/8 10.1.0.0/16", "drop any any"], 2: ["protect 10.0.0.0/8 10.2.0.0/16"]},
        """
        forward 10.1.0.5 > 10.2.0.9 from 1 = drop
        forward 10.2.0.9 > 10.1.0.5 from 2 = drop
        forward 10.7.0.5 > 10.2.0.9 = drop
        out 10.7.0.1 > 10.1.0.5 = peer1
        """,
        default="pass",
    ),
    Scenario(
        "pass to one net, and a spoke behind it: what passed in does not pass on to the spoke in plain",
        {1: ["pass 10.0.0.0/8 10.1.0.0/16"], 2: ["protect 10.0.0.0/8 10.2.0.0/16"]},
        """
        forward 10.1.0.5 > 10.2.0.9 = peer2
        forward 10.1.0.5 > 10.7.0.5 = plain
        forward 10.7.0.5 > 10.1.0.5 = plain
        forward 10.2.0.9 > 10.1.0.5 from 2 = plain
        forward 10.2.0.9 > 10.1.0.5 = drop
        """,
    ),
    Scenario(
        "pass, then drop the rest: forwarded packets pass",
        {1: [f"pass {A} {B}", f"pass {A} 10.3.0.0/16 outbound", "drop any any"]},
        """
        forward 10.1.0.5 > 10.2.0.9 = plain
        forward 10.2.0.9 > 10.1.0.5 = plain
        forward 10.1.0.5 > 10.3.0.9 = plain
        forward 10.3.0.9 > 10.1.0.5 = drop
        forward 10.1.0.5 > 10.4.0.9 = drop
        """,
        default="pass",
    ),
    Scenario(
        "protect, then drop outbound what is left",
        {1: [f"protect {A} {B}", "drop any any outbound"]},
        """
        forward 10.1.0.5 > 10.2.0.9 = peer1
        forward 10.2.0.9 > 10.1.0.5 from 1 = plain
        out 10.1.0.1 > 10.9.0.9 = drop
        in 10.9.0.9 > 10.1.0.1 = ok
        forward 10.9.0.9 > 10.1.0.5 = drop
        """,
        default="pass",
    ),
    Scenario(
        "a drop rule of the same chain that has nothing to do with the tunnel",
        {1: [f"protect {A} {B}", "drop 172.16.0.0/12 any"], 2: ["protect 10.1.0.0/16 10.3.0.0/16"]},
        """
        forward 10.1.0.5 > 10.2.0.9 = peer1
        forward 10.2.0.9 > 10.1.0.5 from 1 = plain
        forward 10.1.0.5 > 10.3.0.9 = peer2
        forward 10.3.0.9 > 10.1.0.5 from 2 = plain
        forward 172.16.0.5 > 10.2.0.9 = drop
        forward 10.2.0.9 > 172.16.0.5 from 1 = drop
        """,
        default="pass",
    ),
    Scenario(
        "drop before protect",
        {1: ["drop 10.1.5.0/24 10.2.0.0/16", f"protect {A} {B}"]},
        """
        out 10.1.0.1 > 10.2.0.9 = peer1
        forward 10.1.5.5 > 10.2.0.9 = drop
        forward 10.1.6.5 > 10.2.0.9 = peer1
        forward 10.2.0.9 > 10.1.5.5 from 1 = drop
        forward 10.2.0.9 > 10.1.6.5 from 1 = plain
        """,
    ),
    Scenario(
        "pass before protect, and protect before pass",
        {1: ["pass 10.1.0.0/16 10.2.7.0/24", f"protect {A} {B}", "pass 10.1.0.0/16 10.0.0.0/8"]},
        """
        forward 10.1.0.5 > 10.2.7.9 = plain
        forward 10.2.7.9 > 10.1.0.5 = plain
        forward 10.2.7.9 > 10.1.0.5 from 1 = drop
        forward 10.1.0.5 > 10.2.8.9 = peer1
        forward 10.1.0.5 > 10.3.0.9 = plain
        forward 10.3.0.9 > 10.1.0.5 = plain
        forward 10.2.8.9 > 10.1.0.5 = drop
        """,
    ),
    Scenario(
        "everything through one peer",
        {1: ["protect any any"]},
        """
        out 192.0.2.1 > 203.0.113.9 = peer1
        in 203.0.113.9 > 192.0.2.1 from 1 = ok
        in 203.0.113.9 > 192.0.2.1 = drop
        forward 10.1.0.5 > 203.0.113.9 = drop
        forward 203.0.113.9 > 10.1.0.5 from 1 = peer1
        out 192.0.2.1 > 198.51.100.1 udp/500/500 = plain
        """,
    ),
    Scenario(
        "a net to everywhere through one peer",
        {1: [f"protect {A} any"]},
        """
        out 10.1.0.1 > 203.0.113.9 = peer1
        forward 10.1.0.5 > 203.0.113.9 = peer1
        forward 203.0.113.9 > 10.1.0.5 from 1 = plain
        forward 203.0.113.9 > 10.1.0.5 = drop
        forward 10.1.0.5 > 10.1.0.9 from 1 = peer1
        """,
    ),
    Scenario(
        "of two rules with one selector the first counts",
        {1: [f"drop {A} {B}", f"protect {A} {B}"]},
        """
        out 10.1.0.1 > 10.2.0.9 = drop
        in 10.2.0.9 > 10.1.0.1 from 1 = drop
        forward 10.1.0.5 > 10.2.0.9 = drop
        forward 10.2.0.9 > 10.1.0.5 from 1 = drop
        """,
        default="pass",
    ),
    Scenario(
        "of two peers with one selector the first counts",
        {1: [f"protect {A} {B}"], 2: [f"protect {A} {B}"]},
        """
        out 10.1.0.1 > 10.2.0.9 = peer1
        in 10.2.0.9 > 10.1.0.1 from 1 = ok
        in 10.2.0.9 > 10.1.0.1 from 2 = drop
        forward 10.2.0.9 > 10.1.0.5 from 1 = plain
        """,
    ),
    Scenario(
        "ipsecPeerPriority: the lower number gets the packet",
        {1: [f"protect {A} {B}"], 2: [f"protect {A} 10.2.0.0/17"], 3: [f"protect {A} 10.0.0.0/8"]},
        """
        out 10.1.0.1 > 10.2.0.9 = peer2
        in 10.2.0.9 > 10.1.0.1 from 2 = ok
        in 10.2.0.9 > 10.1.0.1 from 1 = drop
        out 10.1.0.1 > 10.2.200.9 = peer1
        out 10.1.0.1 > 10.3.0.9 = peer3
        forward 10.1.0.5 > 10.2.200.9 = peer1
        """,
        peers={1: {"ipsecPeerPriority": 5}, 3: {"ipsecPeerPriority": 6}},
    ),
    Scenario(
        "the pre list decides before all peers",
        {"pre": ["drop 10.1.5.0/24 any", "pass any any udp/0/53"], 1: [f"protect {A} {B}"]},
        """
        forward 10.1.5.5 > 10.2.0.9 = drop
        forward 10.2.0.9 > 10.1.5.5 from 1 = drop
        forward 10.1.6.5 > 10.2.0.9 udp/4000/53 = plain
        forward 10.2.0.9 > 10.1.6.5 udp/53/4000 = plain
        forward 10.1.6.5 > 10.2.0.9 udp/4000/54 = peer1
        out 192.0.2.1 > 203.0.113.9 udp/4000/53 = plain
        in 203.0.113.9 > 192.0.2.1 udp/53/4000 = ok
        in 203.0.113.9 > 192.0.2.1 udp/4000/53 = drop
        """,
    ),
    Scenario(
        "protect rules in pre and post lists are skipped",
        {"pre": [f"protect {A} {B}"], "post": [f"protect {A} {B}"]},
        """
        out 10.1.0.1 > 10.2.0.9 = plain
        forward 10.1.0.5 > 10.2.0.9 = plain
        in 10.2.0.9 > 10.1.0.1 = ok
        """,
        default="pass",
    ),
    Scenario(
        "the post list decides after all peers and before the default",
        {1: [f"protect {A} {B}"], "post": ["drop 10.1.0.0/16 10.0.0.0/8", "pass 10.1.0.0/16 any"]},
        """
        forward 10.1.0.5 > 10.2.0.9 = peer1
        forward 10.2.0.9 > 10.1.0.5 from 1 = plain
        forward 10.1.0.5 > 10.3.0.9 = drop
        forward 10.3.0.9 > 10.1.0.5 = drop
        forward 10.1.0.5 > 203.0.113.9 = plain
        forward 203.0.113.9 > 10.1.0.5 = plain
        forward 10.7.0.5 > 203.0.113.9 = drop
        """,
    ),
    Scenario(
        "always-plain bypasses wherever it stands",
        {"pre": ["drop 10.1.0.0/16 any tcp"], 1: [f"protect {A} {B}", "always-plain 10.1.0.0/16 10.2.0.0/16 tcp/0/22"]},
        """
        out 10.1.0.1 > 10.2.0.9 tcp/4000/22 = plain
        in 10.2.0.9 > 10.1.0.1 tcp/22/4000 = ok
        forward 10.1.0.5 > 10.2.0.9 tcp/4000/22 = plain
        forward 10.2.0.9 > 10.1.0.5 tcp/22/4000 = plain
        out 10.1.0.1 > 10.2.0.9 tcp/4000/23 = drop
        out 10.1.0.1 > 10.2.0.9 udp/4000/22 = peer1
        """,
    ),
    Scenario(
        "protocols and ports",
        {1: [f"protect {A} {B} icmp", f"protect {A} {B} tcp/0/80", f"protect {A} {B} udp/53/0", f"drop {A} {B} gre"]},
        """
        out 10.1.0.1 > 10.2.0.9 icmp = peer1
        out 10.1.0.1 > 10.2.0.9 tcp/4000/80 = peer1
        out 10.1.0.1 > 10.2.0.9 tcp/80/4000 = plain
        in 10.2.0.9 > 10.1.0.1 tcp/80/4000 from 1 = ok
        in 10.2.0.9 > 10.1.0.1 tcp/80/4000 = drop
        in 10.2.0.9 > 10.1.0.1 tcp/4000/80 = ok
        out 10.1.0.1 > 10.2.0.9 udp/53/4000 = peer1
        out 10.1.0.1 > 10.2.0.9 udp/4000/53 = plain
        forward 10.2.0.9 > 10.1.0.5 udp/4000/53 from 1 = plain
        forward 10.2.0.9 > 10.1.0.5 udp/4000/54 from 1 = drop
        out 10.1.0.1 > 10.2.0.9 gre = drop
        out 10.1.0.1 > 10.2.0.9 sctp/1/2 = plain
        """,
        default="pass",
    ),
    Scenario(
        "built in exemptions under a drop of everything",
        {"pre": ["drop any any"]},
        """
        out 127.0.0.1 > 127.0.0.1 = plain
        in 127.0.0.1 > 127.0.0.1 = ok
        out ::1 > ::1 = plain
        in ::1 > ::1 = ok
        out 192.0.2.1 > 198.51.100.1 udp/500/500 = plain
        in 198.51.100.1 > 192.0.2.1 udp/500/500 = ok
        out 192.0.2.1 > 198.51.100.1 udp/4500/61000 = plain
        in 198.51.100.1 > 192.0.2.1 udp/61000/4500 = ok
        out 192.0.2.1 > 198.51.100.1 esp = plain
        in 198.51.100.1 > 192.0.2.1 ah = ok
        out 192.0.2.1 > 198.51.100.1 udp/5000/500 = drop
        in 198.51.100.1 > 192.0.2.1 udp/5000/501 = drop
        forward 10.1.0.5 > 198.51.100.1 udp/500/500 = drop
        forward 198.51.100.1 > 10.1.0.5 udp/500/500 = drop
        forward 10.1.0.5 > 198.51.100.1 esp = drop
        out 2001:db8::1 > 2001:db8::2 udp/500/500 = plain
        """,
    ),
    Scenario(
        "neighbour discovery under the default drop (of ICMPv6 the ports are type and code)",
        {},
        """
        out fe80::1 > ff02::2 icmp6/133/0 = plain
        in fe80::2 > ff02::1 icmp6/134/0 = ok
        out 2001:db8::1 > ff02::1:ff00:2 icmp6/135/0 = plain
        in 2001:db8::2 > 2001:db8::1 icmp6/135/0 = ok
        in 2001:db8::2 > 2001:db8::1 icmp6/136/0 = ok
        out 2001:db8::1 > 2001:db8::2 icmp6/136/0 = plain
        in fe80::2 > 2001:db8::1 icmp6/137/0 = ok
        forward 2001:db8::2 > 2001:db8:1::1 icmp6/135/0 = plain
        out 2001:db8::1 > 2001:db8::2 icmp6/128/0 = drop
        in 2001:db8::2 > 2001:db8::1 icmp6/129/0 = drop
        in 2001:db8::2 > 2001:db8::1 icmp6/132/0 = drop
        in 2001:db8::2 > 2001:db8::1 icmp6/138/0 = drop
        out 2001:db8::1 > 2001:db8::2 = drop
        forward 2001:db8::2 > 2001:db8:1::1 = drop
        out 10.1.0.1 > 10.2.0.9 icmp/135/0 = drop
        """,
    ),
    Scenario(
        "default pass with nothing else",
        {},
        """
        out 192.0.2.1 > 203.0.113.9 = plain
        in 203.0.113.9 > 192.0.2.1 = ok
        forward 10.1.0.5 > 203.0.113.9 = plain
        forward 2001:db8::2 > 2001:db8:1::1 = plain
        """,
        default="pass",
    ),
    Scenario(
        "switched off: as if there were no IPsec",
        {"pre": ["drop any any"], 1: [f"protect {A} {B}"]},
        """
        out 10.1.0.1 > 10.2.0.9 = plain
        in 10.2.0.9 > 10.1.0.1 = ok
        forward 10.1.0.5 > 10.2.0.9 = plain
        """,
        enabled=False,
    ),
]
