"""The first boot: everything that shows within seconds. The scenarios build on each other, from nothing to nothing."""

from __future__ import annotations

import time
from functools import partial

from tests.lab import recipes
from tests.lab.gateway import FOREIGN_POLICIES, add_foreign
from tests.lab.registry import scenario
from tests.lab.sightings import (
    SHADOWED,
    UNUSED,
    apply_state,
    bundle_disagreement,
    established,
    explained,
    ike_rows,
    lost,
    silent,
)
from tests.lab.topology import SITES, Ping, ping, send_udp
from tests.lab.wire import ESP, Capture, Packet, plain, summary
from tests.lab.world import World

A, B, C = SITES["a"], SITES["b"], SITES["c"]
PEER_B = 1
RULE_AB, RULE_AC = 1, 2
DROPPED_SECONDS = 0.3  # a packet that is let out is at the router before its sender goes on
PRE_DROP, PRE_PASS, POST_DROP, POST_PASS = 11, 12, 13, 14


@scenario("first")
def start(world: World) -> None:
    """Policies and an SA of somebody else are in the kernel, then the agents start."""
    add_foreign(world.a)
    world.foreign = world.a.policies()
    world.check(len(world.foreign) == FOREIGN_POLICIES, "foreign policies are there", len(world.foreign))
    world.start("ab")
    world.check(world.a.policies() == world.foreign, "an agent without configuration makes no policy")


@scenario("first", "start")
def on_demand(world: World) -> None:
    """The first ping from host to host brings up a tunnel configured only by snmpset, and nothing but it is seen."""
    world.a.station.set(
        {
            **recipes.algorithms(),
            **recipes.rule(RULE_AB, A, B),
            **recipes.peer(PEER_B, B, RULE_AB),
            **recipes.enabled(True),
        }
    )
    # The same in the order of the guide, one SET for each thing, at the other side.
    for cells in (
        recipes.algorithms(),
        recipes.rule(1, B, A),
        recipes.peer(1, A, 1),
        recipes.enabled(True),
    ):
        world.b.station.set(cells)
    for gateway in (world.a, world.b):
        world.eventually(partial(apply_state, gateway, "Peer", 1), "the peer is applied")
    world.check(not world.a.states(), "no SA before there is traffic", world.a.states())
    capture = world.capture()
    world.eventually(partial(silent, A, B.address), "the ping passes, after the first packets", 60)
    world.check_private(capture.take())
    world.eventually(partial(lost, A, B.address, 5), "then without loss", 30)
    world.check_private(capture.take())
    capture.close()


@scenario("first", "on_demand")
def tables(world: World) -> None:
    """What was negotiated and counted is in the tables, and the counters are the kernel's."""
    wanted = {"ikeSaEncAlg": "7", "ikeSaHashAlg": "5", "ikeSaGroup": "14", "ikeSaXchType": "2"}
    for gateway, role in ((world.a, "1"), (world.b, "2")):
        name = gateway.name
        world.eventually(partial(established, gateway, 1), f"{name}: the peer is up")
        row = next(iter(ike_rows(gateway, 1)), {})
        seen = {column: row.get(column) for column in [*wanted, "ikeSaRole"]}
        world.check(seen == {**wanted, "ikeSaRole": role}, f"{name}: AES, SHA-256, group 14, main mode, its role", seen)
        protocols = [each.protocol for each in gateway.states()]
        world.check(protocols == ["esp", "esp"], f"{name}: one pair of ESP SAs in the kernel", protocols)
        world.eventually(partial(bundle_disagreement, gateway, 1), f"{name}: the bundle's counters are the kernel's")
        world.check(not gateway.mentions(recipes.KEY), f"{name}: no file holds the key", gateway.mentions(recipes.KEY))


@scenario("first", "on_demand")
def adoption(world: World) -> None:
    """kill -9 of the agent alone disturbs no tunnel, and the next agent goes on with what it finds."""
    running = Ping(A, B.address, interval=0.1)
    before = [world.a.charons(), sorted(each.spi for each in world.a.states())]
    world.a.kill_agent()
    world.start("a")
    world.eventually(partial(established, world.a, PEER_B), "the new agent knows the tunnel")
    world.eventually(partial(apply_state, world.a, "Peer", PEER_B), "and the peer is applied")
    time.sleep(1)
    after = [world.a.charons(), sorted(each.spi for each in world.a.states())]
    world.check(before == after, "the same charon, the same SAs", f"{before}, {after}")
    sent, answered = running.stop()
    world.check(answered >= sent - 2, "no packet lost but those under way at the end", f"{answered} of {sent}")
    world.eventually(partial(bundle_disagreement, world.a, PEER_B), "the bundle's counters are the kernel's")


def became(capture: Capture, address: str, port: int, seconds: float) -> tuple[str, list[Packet]]:
    """What became of a datagram from gwa's host to that address and port, and all packets of gwa meanwhile; `drop` when
    nothing of it was seen in this time."""
    packets: list[Packet] = []
    end = time.monotonic() + seconds
    while True:
        packets += [each for each in capture.take() if each.link == "a"]
        if any(each.destination == address and each.destination_port == port for each in packets):
            return "pass", packets
        if any(each.protocol == ESP for each in packets):
            return "protect", packets
        if time.monotonic() > end:
            return "drop", packets
        time.sleep(0.1)


@scenario("first", "on_demand")
def around_peers(world: World) -> None:
    """Drop and pass rules before and after the peers decide forwarded packets as explain says."""
    world.a.station.set(
        {
            **recipes.udp_rule(PRE_DROP, A, B, 7001, "drop", following=PRE_PASS),
            **recipes.udp_rule(PRE_PASS, A, B, 7002, "pass"),
            **recipes.udp_rule(POST_DROP, A, C, 7004, "drop", following=POST_PASS),
            **recipes.rule(POST_PASS, A, C, action="pass"),
            "ipsecGlobContPreIpsecRules.0": PRE_DROP,
            "ipsecGlobContPostIpsecRules.0": POST_DROP,
        }
    )
    for number in (PRE_DROP, PRE_PASS, POST_DROP, POST_PASS):
        world.eventually(partial(apply_state, world.a, "Traffic", number), f"rule {number} is applied")
    flows = [
        (B.address, 7001, "drop", PRE_DROP),
        (B.address, 7002, "pass", PRE_PASS),
        (B.address, 7003, "protect", RULE_AB),
        (C.address, 7004, "drop", POST_DROP),
        (C.address, 7005, "pass", POST_PASS),
        (B.uplink, 7006, "drop", 0),
    ]
    answers = explained(world.a, [(A.address, address, "udp", 40000, port) for address, port, _, _ in flows])
    capture = world.capture()
    for (address, port, decision, number), answer in zip(flows, answers, strict=True):
        send_udp(A.host, A.address, address, port)
        done, packets = became(capture, address, port, DROPPED_SECONDS if decision == "drop" else 15)
        world.check(
            done == decision and decision in answer.lower() and (not number or str(number) in answer),
            f"UDP to {address} port {port}: {decision} by {number or 'default'}, as explained",
            f"did {done}; explained: {answer}; {summary(packets)}",
        )
    capture.close()
    world.a.station.set({"ipsecGlobContPreIpsecRules.0": 0, "ipsecGlobContPostIpsecRules.0": 0})
    world.eventually(lambda: apply_state(world.a, "Traffic", PRE_DROP, UNUSED), "a rule outside every list is unused")


@scenario("first", "on_demand")
def hub(world: World) -> None:
    """What one spoke sends to another leaves the hub encrypted, and never in plain, also while there is no tunnel."""
    world.start("c")
    # gwb is the hub: towards a spoke it protects its own net and the other spoke's, so what comes out of one tunnel
    # goes into the other.
    world.b.station.set(
        {
            **recipes.rule(1, B, A, following=3),
            **recipes.rule(3, C, A),
            **recipes.rule(2, B, C, following=4),
            **recipes.rule(4, A, C),
            **recipes.peer(2, C, 2, key="another secret"),
        }
    )
    world.a.station.set({**recipes.rule(RULE_AB, A, B, following=RULE_AC), **recipes.rule(RULE_AC, A, C)})
    capture = world.capture()
    # The far spoke is not configured yet: what reaches the hub for it has to stay there.
    world.eventually(lambda: apply_state(world.b, "Traffic", 4), "the hub's rule is applied")
    world.eventually(lambda: apply_state(world.a, "Traffic", RULE_AC), "and the near spoke's")
    ping(A, C.address, 4, interval=0.3)
    packets = capture.take()
    world.check(not plain(packets), "while the far spoke is away, nothing leaves in plain", summary(packets))
    world.c.station.set(
        {
            **recipes.algorithms(),
            **recipes.rule(1, C, B, following=2),
            **recipes.rule(2, C, A),
            **recipes.peer(1, B, 1, key="another secret"),
            **recipes.enabled(True),
        }
    )
    world.eventually(lambda: apply_state(world.c, "Peer", 1), "the far spoke's peer is applied")
    world.eventually(partial(silent, A, C.address), "spoke reaches spoke", 60)
    packets = capture.take()
    world.eventually(partial(lost, A, C.address, 5), "without loss", 30)
    packets += capture.take()
    capture.close()
    world.check_private(packets)
    legs = {(each.source, each.destination) for each in packets if each.protocol == ESP}
    wanted = {(A.outer, B.outer), (B.outer, C.outer), (C.outer, B.outer), (B.outer, A.outer)}
    world.check(wanted <= legs, "ESP on both legs, both ways", legs)


@scenario("first", "on_demand")
def crash(world: World) -> None:
    """kill -9 of agent and charon during the ping: nothing leaves in plain; the agent started again brings it back."""
    capture = world.capture()
    running = Ping(A, B.address, interval=0.1)
    time.sleep(1)
    spis = {each.spi for each in world.a.states()}
    world.a.kill_agent()
    world.check(world.a.kill_charon() == 1, "one charon served this gateway")
    time.sleep(2)
    policies = world.a.policies()
    world.check(len(policies) > len(world.foreign), "the policies outlive the agent", len(policies))
    during = capture.take()
    world.check(not plain(during), "nothing in plain without agent and charon", summary(during))
    world.start("a")
    world.eventually(
        lambda: "" if spis.isdisjoint({each.spi for each in world.a.states()}) else "old SAs",
        "SAs of the dead charon are removed",
        60,
    )
    world.eventually(lambda: established(world.a, PEER_B), "the tunnel comes back", 60)
    world.eventually(partial(lost, A, B.address), "and the ping with it", 60)
    running.stop()
    packets = capture.take()
    world.check_private(packets)
    capture.close()


@scenario("first", "on_demand")
def aggressive(world: World) -> None:
    """The same tunnel in aggressive mode, changed in place."""
    for gateway in (world.a, world.b):
        gateway.station.set({"ikePrfMode.1": "aggressive"})
    capture = world.capture()

    def mode() -> str:
        ping(A, B.address, 2)
        types = {row.get("ikeSaXchType", "") for row in ike_rows(world.a, PEER_B)}
        return "" if types == {"4"} else f"exchange types {types}"

    world.eventually(mode, "the IKE SA is of aggressive mode", 60)
    world.eventually(partial(lost, A, B.address, 5), "the ping passes", 30)
    world.check_private(capture.take())
    capture.close()


@scenario("first", "on_demand")
def delete(world: World) -> None:
    """Deleting a peer removes everything of that peer, disabling everything of ours, and nothing else."""
    # Another peer: one rule on a net of its own, and one on the net of a rule of the peer that will go.
    own_net = C._replace(net="172.20.0.0")
    world.a.station.set(
        {
            **recipes.rule(RULE_AC, A, C),
            **recipes.rule(21, A, own_net, following=22),
            **recipes.rule(22, A, C),
            **recipes.rule(RULE_AB, A, B, following=RULE_AC),
            **recipes.peer(9, C, 21, key="never used"),
        }
    )
    world.eventually(partial(apply_state, world.a, "Traffic", 21), "a second peer's rule is applied")
    world.eventually(partial(apply_state, world.a, "Traffic", 22, SHADOWED), "its rule on the same nets is shadowed")
    before = {policy for policy in world.a.policies() if own_net.net in policy}
    world.a.station.set({f"ipsecPeerAdminStatus.{PEER_B}": "delete"})
    world.eventually(partial(world.a.leftovers, B, PEER_B), "of the deleted peer no policy, SA or connection is left")
    for table in ("ipsecBundlePeerIndex", "ikeSaPeerIndex", "ipsecPeerStatOperStatus.1"):
        world.eventually(partial(world.a.station.walk, table), f"nothing in {table}")
    world.eventually(partial(apply_state, world.a, "Traffic", 22), "the other peer's rule is no longer shadowed")
    after = {policy for policy in world.a.policies() if own_net.net in policy}
    world.check(bool(before) and before == after, "the other peer's policies stay as they were", before ^ after)
    world.check(world.foreign <= world.a.policies(), "what is not ours stays", world.foreign - world.a.policies())
    world.a.station.set(recipes.enabled(False))
    world.eventually(
        lambda: world.a.policies() ^ world.foreign, "disabled: the kernel holds what it held before we came", 30
    )
    world.eventually(world.a.states, "likewise its SAs")
    world.check(world.a.has_foreign_state(), "the foreign one stays")
    world.b.station.set(recipes.enabled(False))
    world.eventually(lambda: world.b.policies(), "likewise at the other side")
    world.check(world.b.stop_agent() == 0, "SIGTERM ends an agent cleanly")
    capture = world.capture()
    world.eventually(partial(lost, A, B.address), "traffic flows as if there were no IPsec")
    world.check(len(plain(capture.take())) >= 6, "in plain")
    capture.close()
