"""The third boot: one setting after the other is changed by snmpset, and the tunnel shows it.

What EFFECTS of the skeleton are visible only in a negotiation is here as a table: the cells changed at both gateways,
and what charon then says of the SA that traffic brought up.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

from tests.lab import recipes
from tests.lab.gateway import FOREIGN_POLICIES, Gateway, add_foreign
from tests.lab.recipes import Cells
from tests.lab.registry import scenario
from tests.lab.sightings import FAILED, SHADOWED, apply_state, established, lost
from tests.lab.station import Refused
from tests.lab.topology import SITES, batch, inside, ping, send_udp
from tests.lab.wire import ESP, UDP, plain, summary
from tests.lab.world import World

A, B, C = SITES["a"], SITES["b"], SITES["c"]
PEER = 1


class Setting(NamedTuple):
    """`cells` at both gateways, more at one, and fields of the child and, with `ike-`, of its IKE SA at gwa."""

    what: str
    cells: Cells
    shows: Mapping[str, str]
    at_a: Cells = {}  # noqa: RUF012  (never written)
    at_b: Cells = {}  # noqa: RUF012


SETTINGS = [
    Setting("as configured", {}, {"ike-encr-alg": "AES_CBC", "ike-encr-keysize": "256", "ike-dh-group": "MODP_2048"}),
    Setting("phase 1 cipher 3DES", {"ikePropEncAlg.1": "des3-cbc"}, {"ike-encr-alg": "3DES_CBC"}),
    Setting(
        "phase 1 AES of 128 bits",
        {"ikePropEncAlg.1": "aes-cbc", "ikePropEncKeySize.1": 128},
        {"ike-encr-alg": "AES_CBC", "ike-encr-keysize": "128"},
    ),
    Setting("phase 1 hash SHA-1", {"ikePropHashAlg.1": "sha1"}, {"ike-integ-alg": "HMAC_SHA1_96"}),
    Setting("group of the proposal", {"ikePropGroup.1": 5}, {"ike-dh-group": "MODP_1536"}),
    Setting("group of the profile before it", {"ikePrfGroup.1": 2}, {"ike-dh-group": "MODP_1024"}),
    Setting(
        "phase 2 AES of 128 bits", {"ipsecPropAesKeySize.1": "aes128"}, {"encr-alg": "AES_CBC", "encr-keysize": "128"}
    ),
    Setting(
        "the other global profile",
        {
            "ikePropEncAlg.2": "aes-cbc",
            "ikePropHashAlg.2": "sha2-512",
            "ikePropGroup.2": 14,
            "ikePrfProposal.2": 2,
            "ikePrfMode.2": "id-protect",
            "ipsecGlobIkeProfile.0": 2,
        },
        {"ike-integ-alg": "HMAC_SHA2_512_256", "ike-encr-keysize": "256"},
    ),
    Setting(
        "the peer's own profile before it, where the far side has only its second choice",
        {"ipsecPeerIkeProfile.1": 1, "ikePrfGroup.1": 0},
        {"ike-integ-alg": "HMAC_SHA2_512_256"},
        at_a={"ikePropNextChoice.1": 2},
        at_b={"ikePrfProposal.1": 2},
    ),
    Setting(
        "aggressive at one side, main mode preferred at the other",
        {"ikePropNextChoice.1": 0, "ikePrfProposal.1": 2},
        {"ike-integ-alg": "HMAC_SHA2_512_256"},
        at_a={"ikePrfMode.1": "aggressive"},
    ),
    Setting(
        "an identity of its own, which the far side asks for",
        {},
        {"ike-local-id": "branch.example.org"},
        at_a={"ikePrfLocalId.1": "branch.example.org"},
        at_b={"ipsecPeerPeerIds.1": "branch.example.org"},
    ),
]


@scenario("third")
def start_plain(world: World) -> None:
    """Two gateways that find each other by address."""
    world.start("ab")
    for gateway, local, remote in ((world.a, A, B), (world.b, B, A)):
        gateway.station.set(
            {
                **recipes.algorithms(),
                **recipes.rule(1, local, remote),
                **recipes.peer(PEER, remote, 1),
                **recipes.enabled(True),
            }
        )
    for gateway in (world.a, world.b):
        world.eventually(partial(apply_state, gateway, "Peer", PEER), f"{gateway.name}: the peer is applied")


@scenario("third", "start_plain")
def settings(world: World) -> None:
    """Each setting of phase 1 and phase 2 is what the next tunnel negotiates."""
    for setting in SETTINGS:
        for gateway, own in ((world.b, setting.at_b), (world.a, setting.at_a)):
            if cells := {**setting.cells, **own}:
                gateway.station.set(cells)
        world.eventually(partial(shown, world.a, setting.shows), setting.what, 60)


def shown(gateway: Gateway, wanted: Mapping[str, str]) -> str:
    """'' when traffic passes and each installed child shows these fields."""
    _, answered = ping(A, B.address, 3)
    children = gateway.negotiated()
    seen = [{name: child.get(name, "none") for name in wanted} for child in children]
    if not seen or any(each != wanted for each in seen):
        return f"{seen or 'no child'}; {apply_state(gateway, 'Peer', PEER)}"
    return "" if answered else "no answer"


@scenario("third", "start_plain")
def local_address(world: World) -> None:
    """IKE and ESP leave from the local address that the peer names."""
    second = A.outer.rsplit(".", 1)[0] + ".129"
    batch(A.gateway, f"addr add {second}/32 dev out")
    batch("wan", f"route add {second} via {A.outer}")
    world.b.station.set({"ipsecPeerDynamicAddress.1": second})
    world.a.station.set({"ipsecPeerLocalAddress.1": second})
    capture = world.capture()
    world.eventually(partial(lost, A, B.address), "the ping passes", 60)

    def sources() -> set[str]:
        capture.take()
        ping(A, B.address, 3)
        return {each.source for each in capture.take() if each.link == "a"}

    world.becomes(sources, {second}, "from the second address only", 60)
    world.eventually(partial(lost, A, B.address), "and without loss", 60)
    capture.close()


@scenario("third", "start_plain")
def one_port(world: World) -> None:
    """A rule of one UDP port protects that port and leaves the rest to the rules behind it."""
    rest = recipes.rule(3, A, B, action="pass")
    world.a.station.set({**recipes.udp_rule(1, A, B, 7100, "protect", following=3), **rest})
    world.b.station.set(
        {**recipes.rule(1, B, A, following=3), "ipsecTrProto.1": "udp", "ipsecTrLocalPort.1": 7100}
        | recipes.rule(3, B, A, action="pass")
    )
    world.eventually(partial(apply_state, world.a, "Traffic", 3), "the rule behind is applied")
    capture = world.capture()

    def in_plain() -> str:
        capture.take()
        missing = lost(A, B.address, 2)
        packets = capture.take()
        return missing or ("" if len(plain(packets)) >= 4 else summary(packets))

    world.eventually(in_plain, "a ping passes, in plain", 30)

    def protected() -> str:
        capture.take()
        send_udp(A.host, A.address, B.address, 7100)
        send_udp(A.host, A.address, B.address, 7100)
        packets = capture.take()
        inside = any(each.protocol == ESP and each.link == "a" for each in packets)
        leaked = any(each.destination_port == 7100 for each in plain(packets))
        return "" if inside and not leaked else summary(packets)

    world.eventually(protected, "and UDP to 7100 leaves as ESP", 60)
    capture.close()
    for gateway, local, remote in ((world.a, A, B), (world.b, B, A)):
        gateway.station.set({**recipes.rule(1, local, remote), "ipsecTrLocalPort.1": 0, "ipsecTrRemotePort.1": 0})


@scenario("third", "start_plain")
def wrong_key(world: World) -> None:
    """With another key no tunnel comes up and nothing leaves in plain; with the right one it does."""
    world.a.station.set({f"ipsecPeerAdminStatus.{PEER}": "down", f"ipsecPeerPreSharedKey.{PEER}": "quite another"})
    world.check(world.a.station.get(f"ipsecPeerPreSharedKey.{PEER}") == "*", "the key reads back as *")
    world.eventually(world.a.states, "no SA")
    world.a.station.set({f"ipsecPeerAdminStatus.{PEER}": "up"})
    world.eventually(partial(apply_state, world.a, "Peer", PEER), "the peer with another key is applied")
    capture = world.capture()
    _, answered = ping(A, B.address, 5, interval=0.5)
    packets = capture.take()
    world.check(not answered and not world.a.states(), "no tunnel", world.a.states())
    world.check(not plain(packets), "nothing in plain", summary(packets))
    world.a.station.set({f"ipsecPeerAdminStatus.{PEER}": "down", f"ipsecPeerPreSharedKey.{PEER}": recipes.KEY})
    world.a.station.set({f"ipsecPeerAdminStatus.{PEER}": "up"})

    def returns() -> str:
        ping(A, B.address, 2)
        return established(world.a, PEER)

    world.eventually(returns, "with the right key it comes up", 90)
    capture.close()


@scenario("third", "start_plain")
def two_rules(world: World) -> None:
    """Two rules of one peer are two tunnels, each with the cipher of its own profile; large packets pass too."""
    small: Cells = {
        "ipsecPropProto.2": "esp",
        "ipsecPropEspAes.2": 1,
        "ipsecPropAesKeySize.2": "aes128",
        "ipsecPropEspSha256.2": 1,
        "ipsecPrfProposal.2": 2,
        "ipsecPropAesKeySize.1": "aes256",
    }
    for gateway, local, remote, port in (
        (world.a, A, B, "ipsecTrRemotePort"),
        (world.b, B, A, "ipsecTrLocalPort"),
    ):
        cells = {**small, **recipes.rule(1, local, remote, following=2), **recipes.rule(2, local, remote)}
        gateway.station.set({**cells, "ipsecTrProto.1": "udp", f"{port}.1": 7200, "ipsecTrProfile.1": 2})
        world.eventually(partial(apply_state, gateway, "Traffic", 2), f"{gateway.name}: the second rule is applied")

    def both() -> str:
        send_udp(A.host, A.address, B.address, 7200)
        _, answered = ping(A, B.address, 2)
        seen = {child["name"]: child.get("encr-keysize", "") for child in world.a.negotiated()}
        wanted = {"peer-1-rule-1": "128", "peer-1-rule-2": "256"}
        return "" if seen == wanted and answered else f"{seen}, {answered} answers"

    world.eventually(both, "two children, AES of 128 and of 256 bits", 60)
    capture = world.capture()
    world.eventually(partial(lost, A, B.address, 4, size=4000), "packets larger than the link pass", 30)
    world.check_private(capture.take())
    capture.close()
    for gateway, local, remote in ((world.a, A, B), (world.b, B, A)):
        cells = {**recipes.rule(1, local, remote), "ipsecTrLocalPort.1": 0, "ipsecTrRemotePort.1": 0}
        gateway.station.set({**cells, "ipsecTrProfile.1": 0})


@scenario("third", "start_plain")
def priority(world: World) -> None:
    """Of two peers with the same nets the one with the lower priority gets the packets."""
    world.a.station.set(
        {**recipes.rule(31, A, B), **recipes.peer(3, C, 31), "ipsecPeerPriority.3": 5, "ipsecPeerPriority.1": 9}
    )
    world.eventually(partial(apply_state, world.a, "Traffic", 31), "the rule of the first in order is applied")
    world.eventually(partial(apply_state, world.a, "Traffic", 1, SHADOWED), "that of the second is shadowed")
    capture = world.capture()

    def targets(*protocols: int) -> set[str]:
        capture.take()
        ping(A, B.address, 2)
        return {each.destination for each in capture.take() if each.link == "a" and each.protocol in protocols}

    world.becomes(partial(targets, ESP, UDP), {C.outer}, "the negotiation goes to the first", 30)
    world.a.station.set({"ipsecPeerPriority.3": 20})
    world.eventually(partial(lost, A, B.address), "in the other order to the other", 60)
    world.becomes(partial(targets, ESP), {B.outer}, "and the packets too", 30)
    capture.close()
    world.a.station.set({"ipsecPeerAdminStatus.3": "delete", "ipsecTrAction.31": "delete"})


@scenario("third", "start_plain")
def not_ours(world: World) -> None:
    """A selector held by somebody else fails the row until it is free; what somebody takes from us comes back."""
    net = C._replace(net="172.21.0.0")
    held = f"xfrm policy add src {A.net}/24 dst {net.net}/24 dir out priority 9"
    batch(A.gateway, held)
    world.a.station.set({**recipes.rule(41, A, net, action="drop"), "ipsecGlobContPreIpsecRules.0": 41})
    world.eventually(partial(apply_state, world.a, "Traffic", 41, FAILED), "the row has failed")
    text = world.a.station.get("ipsecGwTrafficLastError.41")
    world.check("not ours" in text, "saying that the policy is not ours", text)
    priorities = {policy for policy in world.a.policies() if f"dst {net.net}/24 dir out" in policy}
    world.check(len(priorities) == 1 and "priority 9 " in priorities.pop(), "the foreign policy is untouched")
    batch(A.gateway, f"xfrm policy delete src {A.net}/24 dst {net.net}/24 dir out")
    world.eventually(partial(apply_state, world.a, "Traffic", 41), "once it is gone, the row is applied", 60)
    before = world.a.policies()
    batch(A.gateway, f"xfrm policy delete src {A.net}/24 dst {net.net}/24 dir out")
    world.eventually(lambda: before ^ world.a.policies(), "a policy of ours that somebody deletes comes back", 60)
    world.a.station.set({"ipsecGlobContPreIpsecRules.0": 0, "ipsecTrAction.41": "delete"})


@scenario("third", "start_plain")
def lockout(world: World) -> None:
    """A SET that would cut an operator's TCP connection into the gateway is refused, unless it says so."""
    world.a.station.set({"ipsecGlobContDefaultRule.0": "pass"})
    world.eventually(partial(gone, world.a, "action block priority"), "the default rule is pass", 30)
    listener = inside(A.gateway, lambda: socket.create_server((A.inner, 22)))
    operator = inside(A.host, lambda: socket.create_connection((A.inner, 22), timeout=30))
    cells = {
        **recipes.rule(51, A, A, action="drop"),
        "ipsecTrProto.51": "tcp",
        "ipsecGlobContPreIpsecRules.0": 51,
    }
    try:
        world.a.station.set(cells)
        text = ""
    except Refused as refused:
        text = str(refused)
    world.check("22" in text or "ockout" in text, "refused", text or "accepted")
    world.a.station.set({**cells, "ipsecGwAllowLockout.0": "true"})
    world.eventually(partial(apply_state, world.a, "Traffic", 51), "with ipsecGwAllowLockout it is done")
    world.a.station.set({"ipsecGlobContPreIpsecRules.0": 0, "ipsecTrAction.51": "delete"})
    operator.close()
    listener.close()
    world.a.station.set({"ipsecGlobContDefaultRule.0": "drop"})


def gone(gateway: Gateway, text: str) -> str:
    """Policies of everything to everything that hold this text."""
    return "; ".join(
        each for each in gateway.policies() if each.startswith("src 0.0.0.0/0 dst 0.0.0.0/0") and text in each
    )


def of_peers(gateway: Gateway) -> list[str]:
    """Peers with an IKE SA. One that never said whose it is says nothing more, until charon forgets it."""
    return [name for name, _ in gateway.vici("list_sas") if name.startswith("peer-")]


@scenario("third", "start_plain")
def unknown_address(world: World) -> None:
    """A peer without address has to call; until it does nothing goes out, then its tunnel serves both directions."""
    name = "road.example.org"
    world.b.station.set({"ikePrfMode.1": "aggressive", "ikePrfMode.2": "aggressive"})
    world.b.station.set({"ipsecPeerDynamicAddress.1": "", "ipsecPeerPeerIds.1": name})
    world.eventually(lambda: "" if world.b.connections() else "no connection", "the far side waits")
    world.a.station.set({"ikePrfMode.1": "aggressive", "ikePrfLocalId.1": name})
    for gateway in (world.a, world.b):
        gateway.station.set({f"ipsecPeerAdminStatus.{PEER}": "down"})
        world.eventually(gateway.states, f"{gateway.name}: no SA")
        world.eventually(partial(of_peers, gateway), f"{gateway.name}: nor one of IKE")
        gateway.station.set({f"ipsecPeerAdminStatus.{PEER}": "up"})
        world.eventually(partial(apply_state, gateway, "Peer", PEER), f"{gateway.name}: the peer is applied")
    capture = world.capture()
    world.check(not ping(B, A.address, 3)[1], "the far side cannot begin")
    packets = [each for each in capture.take() if each.link == "b"]
    world.check(not packets, "and sends nothing", summary(packets))
    world.eventually(partial(lost, A, B.address), "it is called", 60)
    world.eventually(partial(lost, B, A.address), "then both directions pass", 30)
    packets = capture.take()
    world.check_private(packets)
    capture.close()


@scenario("third", "start_plain")
def refusals(world: World) -> None:
    """What the engine cannot do is refused when it is named, and says what is accepted."""
    for cells in ({"ikePrfAuthMethod.1": "rsa-enc"}, {"ikePropHashAlg.1": "tiger192"}, {"ipsecGlobIkeProfile.0": 77}):
        try:
            world.a.station.set(dict(cells))
            text = ""
        except Refused as refused:
            text = str(refused)
        name, value = next(iter(cells.items()))
        world.check(name.partition(".")[0] in text, f"{name} = {value} is refused by name", text or "accepted")


@scenario("third", "start_plain")
def flush(world: World) -> None:
    """With the agent stopped its policies stay; `ipsec-agent flush` removes them, and only them."""
    add_foreign(world.a)
    world.check(world.a.stop_agent() == 0, "SIGTERM ends the agent")
    stayed = world.a.policies()
    world.check(len(stayed) > FOREIGN_POLICIES, "its policies stay", len(stayed))
    said = world.a.command("flush")
    left = world.a.policies()
    world.check(len(left) == FOREIGN_POLICIES and left < stayed, f"flush: {said.strip()}", left)
    world.check(world.a.has_foreign_state(), "the foreign SA is there")
    world.check(not world.a.states() and not world.a.connections(), "of ours no SA or connection", world.a.states())
