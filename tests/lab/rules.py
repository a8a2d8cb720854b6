"""The boot of rules: what a rule can say beyond two nets, protected through real tunnels.

Two gateways with one peer each and a list in which every rule is of another kind: a range,
IPv6, the two outer addresses, GRE. What no rule protects passes in plain, so that the edges
of a rule show. Their policies and selectors are seen in namespaces (test_xfrm_packets.py).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.lab import recipes
from tests.lab.gateway import Gateway
from tests.lab.recipes import Cells
from tests.lab.registry import scenario
from tests.lab.sightings import FAILED, apply_state
from tests.lab.topology import SITES, Site, batch, inside, ping, run, send_udp
from tests.lab.wire import ESP, IKE_PORTS, UDP, Capture, Packet, plain, summary
from tests.lab.world import SECONDS, World

A, B, C = SITES["a"], SITES["b"], SITES["c"]
PEER, OTHER_PEER = 1, 3
RANGE, PORT, INNER6, OUTER, INSIDE_GRE, REST = 1, 2, 3, 4, 5, 6
ON_OUT, TO_C = 21, 31
PH1, TRANSPORT_OR_TUNNEL, GRE_INSIDE = 2, 1, 2
LAST = {"a": "10.1.0.20", "b": "10.2.0.9"}
BESIDE = "10.2.0.10"
NET6 = {"a": "fd00:1::", "b": "fd00:2::"}
GRE_LINK = {"a": "172.30.0.1", "b": "172.30.0.2"}


def packed(text: str) -> bytes:
    import socket

    return socket.inet_pton(socket.AF_INET6, text)


def lists(own: str, far: str) -> Cells:
    """The rules of one gateway, `own` and `far` being letters of sites."""
    here, there = SITES[own], SITES[far]
    cells: Cells = {
        f"ipsecTrProto.{RANGE}": "icmp",
        f"ipsecTrLocalAddress.{RANGE}": here.address,
        f"ipsecTrLocalRange.{RANGE}": LAST[own],
        f"ipsecTrRemoteAddress.{RANGE}": there.address,
        f"ipsecTrRemoteRange.{RANGE}": LAST[far],
        f"ipsecTrNextIndex.{RANGE}": PORT,
        **recipes.rule(PORT, here, there, following=INNER6),
        f"ipsecTrProto.{PORT}": "udp",
        f"ipsecTr{'Remote' if own == 'a' else 'Local'}Port.{PORT}": 7300,
        f"ipsecTrProto.{INNER6}": "dont-verify",
        f"ipsecGwTrLocalAddress6.{INNER6}": packed(NET6[own]),
        f"ipsecGwTrLocalPrefixLength6.{INNER6}": 64,
        f"ipsecGwTrRemoteAddress6.{INNER6}": packed(NET6[far]),
        f"ipsecGwTrRemotePrefixLength6.{INNER6}": 64,
        f"ipsecTrNextIndex.{INNER6}": OUTER,
        f"ipsecTrProto.{OUTER}": "icmp",
        f"ipsecTrLocalAddressType.{OUTER}": PH1,
        f"ipsecTrRemoteAddressType.{OUTER}": PH1,
        f"ipsecTrProfile.{OUTER}": TRANSPORT_OR_TUNNEL,
        f"ipsecTrNextIndex.{OUTER}": INSIDE_GRE,
        f"ipsecTrProto.{INSIDE_GRE}": "dont-verify",
        f"ipsecTrProfile.{INSIDE_GRE}": GRE_INSIDE,
        f"ipsecTrNextIndex.{INSIDE_GRE}": REST,
        f"ipsecTrProto.{REST}": "dont-verify",
        f"ipsecTrAction.{REST}": "pass",
        f"ipsecPrfProposal.{GRE_INSIDE}": 1,
        f"ipsecPrfForceTunnelMode.{GRE_INSIDE}": "tp-greip",
    }
    return cells


def both(work: Callable[[Gateway, str, str], None], world: World) -> None:
    for letter, far in (("b", "a"), ("a", "b")):
        work(world.gateways[letter], letter, far)


@scenario("rules")
def start_rules(world: World) -> None:
    """Two gateways, and one list of rules of every kind."""
    batch(B.host, f"addr add {LAST['b']}/24 dev eth0", f"addr add {BESIDE}/24 dev eth0")
    for site, letter, far in ((A, "a", "b"), (B, "b", "a")):
        net, other = NET6[letter], NET6[far]
        batch(site.host, f"addr add {net}2/64 dev eth0 nodad", f"route add default via {net}1")
        batch(site.gateway, f"addr add {net}1/64 dev in nodad", f"route add {other}/64 dev out")
        inside(site.gateway, lambda: Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1"))
    world.start("ab")

    def configure(gateway: Gateway, letter: str, far: str) -> None:
        cells = {**recipes.algorithms(), **lists(letter, far), **recipes.peer(PEER, SITES[far], RANGE)}
        gateway.station.set({**cells, **recipes.enabled(True)})
        for number in (RANGE, PORT, INNER6, OUTER, INSIDE_GRE, REST):
            world.eventually(
                partial(apply_state, gateway, "Traffic", number), f"{gateway.name}: rule {number} is applied"
            )

    both(configure, world)


def child(gateway: Gateway, rule: int) -> dict[str, object]:
    """What charon says of the tunnel of a rule; {} without one."""
    for _, sa in gateway.vici("list_sas"):
        for each in sa.get("child-sas", {}).values():
            if each.get("name") == f"peer-{PEER}-rule-{rule}" and each.get("state") == "INSTALLED":
                return dict(each)
    return {}


def fields(gateway: Gateway, rule: int, *names: str) -> tuple[object, ...]:
    found = child(gateway, rule)
    return tuple(found.get(name) for name in names)


@scenario("rules", "start_rules")
def ranges(world: World) -> None:
    """A range is protected from first address to last, by one tunnel that names the range; beside it is plain."""
    capture = world.capture()
    for address in (B.address, LAST["b"]):
        world.eventually(lambda address=address: answers(A, address), f"{address} answers")
    world.check_private(capture.take())
    wanted = ([f"{A.address}..{LAST['a']}[icmp]"], [f"{B.address}..{LAST['b']}[icmp]"])
    told = partial(fields, world.a, RANGE, "local-ts", "remote-ts")
    world.becomes(told, wanted, "the tunnel was negotiated for the two ranges")
    world.becomes(lambda: len({each.reqid for each in world.a.states()}), 1, "and is one")
    capture.take()
    world.eventually(lambda: answers(A, BESIDE), "the address behind the range answers")
    packets = capture.take()
    world.check(len(plain(packets)) >= 4, "in plain", summary(packets))
    capture.close()


def answers(site: Site, address: str, count: int = 2) -> str:
    sent, answered = ping(site, address, count)
    return "" if sent == answered else f"{answered} of {sent}"


@scenario("rules", "start_rules")
def ports(world: World) -> None:
    """A rule of one UDP port protects that port; another port passes in plain by the rule behind."""
    capture = world.capture()

    packets: list[Packet] = []  # of all attempts: what a rule protects never leaves in plain

    def protected() -> str:
        for _ in range(2):
            send_udp(A.host, A.address, B.address, 7300)
        packets.extend(each for each in capture.take() if each.link == "a")
        return "" if any(each.protocol == ESP for each in packets) else summary(packets)

    world.eventually(protected, "UDP to 7300 leaves as ESP")
    leaked = [each for each in plain(packets) if each.destination_port == 7300]
    world.check(not leaked, "and never in plain", summary(packets))
    send_udp(A.host, A.address, B.address, 7301)
    seen = left_in_plain(capture, 7301)
    world.check(seen == {7301}, "to 7301 in plain", seen)
    capture.close()


@scenario("rules", "start_rules")
def ipv6_inside(world: World) -> None:
    """IPv6 between the nets travels inside ESP between the IPv4 addresses of the gateways."""
    capture = world.capture()
    world.eventually(lambda: answers(A, f"{NET6['b']}2"), "the far host answers over IPv6")
    world.check_private(capture.take())
    remote = partial(fields, world.a, INNER6, "remote-ts")
    world.becomes(remote, ([f"{NET6['b']}/64"],), "one tunnel for the IPv6 nets")
    world.eventually(lambda: answers(B, f"{NET6['a']}2"), "and the other way round")
    capture.close()


def from_gateway(gateway: Gateway, address: str, *, source: str = "") -> str:
    """'' when a ping of the gateway's own is answered."""
    words = ["ping", "-n", "-q", "-c", "2", "-i", "0.2", "-W", "1", *(["-I", source] if source else []), address]
    output = run(gateway.name, words, check=False)
    return "" if " 0% packet loss" in output else output.strip()


@scenario("rules", "start_rules")
def outer_addresses(world: World) -> None:
    """Our own address and the peer's, whatever they are: protected host to host in transport mode, or in tunnel mode
    where the profile insists."""
    capture = world.capture()
    world.eventually(lambda: from_gateway(world.a, B.outer), "the far gateway answers")
    world.check_private(capture.take())
    mode = partial(fields, world.a, OUTER, "mode")
    world.becomes(mode, ("TRANSPORT",), "the tunnel is in transport mode")

    def kernel() -> set[str]:
        reqid = child(world.a, OUTER).get("reqid")
        return {each.mode for each in world.a.states() if str(each.reqid) == reqid}

    world.becomes(kernel, {"transport"}, "and so are its SAs")
    world.carry_out({f"ipsecPrfForceTunnelMode.{TRANSPORT_OR_TUNNEL}": "true"}, world.b, world.a, peer=PEER)

    def tunnelled() -> str:
        text = from_gateway(world.a, B.outer)
        return text or ("" if mode() == ("TUNNEL",) else str(child(world.a, OUTER)))

    world.eventually(tunnelled, "with ipsecPrfForceTunnelMode it is in tunnel mode")
    capture.take()
    world.eventually(lambda: from_gateway(world.a, B.outer), "and packets pass")
    world.check_private(capture.take())
    world.carry_out({f"ipsecPrfForceTunnelMode.{TRANSPORT_OR_TUNNEL}": "default"}, world.b, world.a, peer=PEER)
    capture.close()


@scenario("rules", "start_rules")
def gre_inside(world: World) -> None:
    """With tp-greip what travels in GRE between the gateways is protected in transport mode."""
    for site, letter, far in ((A, "a", "b"), (B, "b", "a")):
        batch(
            site.gateway,
            f"tunnel add gre1 mode gre local {site.outer} remote {SITES[far].outer}",
            f"addr add {GRE_LINK[letter]}/30 dev gre1",
            "link set dev gre1 up",
        )
    capture = world.capture()
    world.eventually(lambda: from_gateway(world.a, GRE_LINK["b"]), "the other end of the GRE link answers")
    world.check_private(capture.take())
    seen = partial(fields, world.a, INSIDE_GRE, "mode", "local-ts", "remote-ts")
    wanted = ("TRANSPORT", [f"{A.outer}/32[gre]"], [f"{B.outer}/32[gre]"])
    world.becomes(seen, wanted, "of GRE alone, transport")
    capture.close()


@scenario("rules", "start_rules")
def interface_without_nftables(world: World) -> None:
    """A rule about one interface drops what leaves by it; what arrives cannot be told here, which the row says."""
    index = link_index(A, "out")
    cells = {**recipes.udp_rule(ON_OUT, A, B, 7401, "drop"), f"ipsecTrInterface.{ON_OUT}": index}
    world.a.station.set({**cells, f"ipsecTrDirection.{ON_OUT}": "outbound", "ipsecGlobContPreIpsecRules.0": ON_OUT})
    world.eventually(partial(apply_state, world.a, "Traffic", ON_OUT), "an outbound rule is applied")
    capture = world.capture()
    send_udp(A.host, A.address, B.address, 7401)
    send_udp(A.host, A.address, B.address, 7402)
    seen = left_in_plain(capture, 7402)
    world.check(seen == {7402}, "its packets do not leave", seen)
    world.a.station.set({f"ipsecTrInterface.{ON_OUT}": index + 40})
    pending = f"there is no interface {index + 40}"
    world.eventually(
        lambda: "" if pending in world.a.station.get(f"ipsecGwTrafficLastError.{ON_OUT}") else "not said",
        "an interface that is not there is waited for",
    )

    def leaves() -> str:
        send_udp(A.host, A.address, B.address, 7401)
        return "" if left_in_plain(capture, 7401, 1) == {7401} else "nothing left"

    world.eventually(leaves, "and the packets leave meanwhile")
    world.a.station.set({f"ipsecTrInterface.{ON_OUT}": index, f"ipsecTrDirection.{ON_OUT}": "bidirectional"})
    world.eventually(partial(apply_state, world.a, "Traffic", ON_OUT, FAILED), "one of both directions has failed")
    text = partial(world.a.station.get, f"ipsecGwTrafficLastError.{ON_OUT}")
    world.eventually(lambda: "" if "without nftables" in text() else text() or "nothing", "and says why")
    capture.close()
    world.a.station.set({"ipsecGlobContPreIpsecRules.0": 0, f"ipsecTrAction.{ON_OUT}": "delete"})


def left_in_plain(capture: Capture, awaited: int, seconds: float = SECONDS) -> set[int]:
    """UDP ports of the packets that left the first gateway in plain until one to the port awaited, sent last, did."""
    seen = set[int]()
    end = time.monotonic() + seconds
    while awaited not in seen and time.monotonic() < end:
        packets = [each for each in capture.take() if each.link == "a" and each.protocol == UDP]
        seen |= {each.destination_port for each in plain(packets)}
        time.sleep(0.1)
    return seen


@scenario("rules", "start_rules")
def overlapping_peers(world: World) -> None:
    """Of two peers whose nets overlap the one with the lower number gets what both cover, the other the rest."""
    world.a.station.set(
        {
            **recipes.udp_rule(TO_C, A, B, 7300, "protect"),
            f"ipsecTrRemoteMaskLen.{TO_C}": 25,
            **recipes.peer(OTHER_PEER, C, TO_C),
            f"ipsecPeerPriority.{OTHER_PEER}": 5,
            f"ipsecPeerPriority.{PEER}": 9,
        }
    )
    world.eventually(partial(apply_state, world.a, "Traffic", TO_C), "the rule of the first peer is applied")
    capture = world.capture()

    def asked() -> str:
        send_udp(A.host, A.address, B.address, 7300)
        packets = [each for each in capture.take() if each.link == "a"]
        ike = {each.destination for each in packets if each.protocol == UDP and each.destination_port in IKE_PORTS}
        return "" if C.outer in ike and not plain(packets) else summary(packets)

    world.eventually(asked, "UDP to the half that both cover asks the first peer for a tunnel")
    batch(B.host, "addr add 10.2.0.200/24 dev eth0")
    capture.take()
    found = set[str]()

    def protected() -> str:
        send_udp(A.host, A.address, "10.2.0.200", 7300)
        packets = [each for each in capture.take() if each.link == "a"]
        found.update(each.destination for each in packets if each.protocol == ESP)
        return "" if found else summary(packets)

    world.eventually(protected, "the other half is protected")
    world.check(found == {B.outer}, "by the second's tunnel", found)
    capture.close()
    world.a.station.set({f"ipsecPeerAdminStatus.{OTHER_PEER}": "delete", f"ipsecTrAction.{TO_C}": "delete"})


@scenario("rules", "start_rules")
def own_address_moves(world: World) -> None:
    """A rule about our own address follows it when it changes; the old one is no longer covered."""
    second = A.outer.rsplit(".", 1)[0] + ".129"
    batch(A.gateway, f"addr add {second}/32 dev out")
    batch("wan", f"route add {second} via {A.outer}")
    world.b.station.set({f"ipsecPeerDynamicAddress.{PEER}": second})
    world.a.station.set({f"ipsecPeerLocalAddress.{PEER}": second})
    for gateway in (world.b, world.a):  # before that the new address is covered by no rule, and leaves in plain
        world.real(gateway, PEER)
    capture = world.capture()
    world.eventually(lambda: from_gateway(world.a, B.outer, source=second), "the new address is answered")
    world.check_private(capture.take())
    world.check(not from_gateway(world.a, B.uplink, source=A.outer), "from the old one there is an answer")
    world.check(len(plain(capture.take())) >= 2, "in plain")
    capture.close()


@scenario("rules", "own_address_moves")
def responder_only(world: World) -> None:
    """A rule about a peer that has no address counts once it has called, for the address it called from."""
    name = "road.example.org"
    world.b.station.set({"ikePrfMode.1": "aggressive", f"ipsecPeerPeerIds.{PEER}": name})
    world.b.station.set({f"ipsecPeerDynamicAddress.{PEER}": ""})
    world.a.station.set({"ikePrfMode.1": "aggressive", "ikePrfLocalId.1": name})
    for gateway in (world.b, world.a):
        gateway.station.set({f"ipsecPeerAdminStatus.{PEER}": "down"})
        world.eventually(gateway.states, f"{gateway.name}: no SA")
        gateway.station.set({f"ipsecPeerAdminStatus.{PEER}": "up"})
    text = f"what it covers is not known until peer {PEER} has called"
    world.eventually(
        lambda: "" if text in world.b.station.get(f"ipsecGwTrafficLastError.{OUTER}") else "not said",
        "the rule waits for the peer to call",
    )
    second = A.outer.rsplit(".", 1)[0] + ".129"
    capture = world.capture()
    world.eventually(lambda: from_gateway(world.a, B.outer, source=second), "it calls, and is answered")
    world.eventually(
        lambda: "not yet" if text in world.b.station.get(f"ipsecGwTrafficLastError.{OUTER}") else "",
        "the rule counts from now on",
    )
    capture.take()  # what it covers was not known when the first answer left
    world.eventually(lambda: from_gateway(world.b, second), "and it can be called back")
    world.check_private(capture.take())
    capture.close()


@scenario("rules", "start_rules")
def checked(world: World) -> None:
    """`check` knows this machine: its kernel has what tunnels are made of, and forwards."""
    findings = {
        finding["name"]: finding["what"] for finding in json.loads(world.a.command("check", "--json", check=False))
    }
    for name in ("no-xfrm", "no-esp", "no-transform", "no-charon", "forwarding"):
        world.check(name not in findings, f"no finding {name}", findings.get(name, ""))
    world.note(", ".join(findings))


# ---- in qemu, whose kernel has nftables ---------------------------------------------------------


def link_index(site: Site, name: str) -> int:
    return int(json.loads(run(site.gateway, ["ip", "-j", "link", "show", name]))[0]["ifindex"])


@scenario("inbound")
def protected_on_one_interface(world: World) -> None:
    """A protect rule about the outer interface: what is decrypted there bears its mark, and passes."""
    world.start("ab")
    for gateway, local, remote in ((world.b, B, A), (world.a, A, B)):
        cells = {**recipes.algorithms(), **recipes.rule(1, local, remote), **recipes.peer(PEER, remote, 1)}
        gateway.station.set({**cells, "ipsecTrInterface.1": link_index(local, "out"), **recipes.enabled(True)})
    for gateway in (world.a, world.b):
        world.eventually(partial(apply_state, gateway, "Traffic", 1), f"{gateway.name}: the rule is applied", 60)
    world.eventually(lambda: "mark" if "mark" not in marks(world.a) else "", "what arrives is marked", 60)
    capture = world.capture()
    world.eventually(lambda: answers(A, B.address), "the far host answers", 60)
    world.check_private(capture.take())
    world.eventually(lambda: answers(B, A.address), "and the other way round", 60)
    capture.close()


def marks(gateway: Gateway) -> str:
    return run(gateway.name, ["nft", "list", "chain", "inet", "ipsec_agent", "inbound_mark"], check=False)


@scenario("inbound", "protected_on_one_interface")
def protected_on_the_other_interface(world: World) -> None:
    """The same rule about the inner interface: nothing of it leaves by the outer one, and what the far side still
    protects is not taken there."""
    world.a.station.set({"ipsecTrInterface.1": link_index(A, "in")})
    world.eventually(partial(apply_state, world.a, "Traffic", 1), "the rule is applied", 60)
    capture = world.capture()
    world.eventually(lambda: "" if not ping(A, B.address, 2)[1] else "answers", "no answer", 60)
    capture.take()
    ping(A, B.address, 2)
    world.check(not [each for each in capture.take() if each.link == "a"], "nothing leaves, the default rule drops it")
    world.check(not ping(B, A.address, 2)[1], "and what comes is not taken")
    world.a.station.set({"ipsecTrInterface.1": link_index(A, "out")})
    world.eventually(lambda: answers(A, B.address), "about the outer interface again, it passes", 60)
    capture.close()


@scenario("inbound", "protected_on_one_interface")
def dropped_on_one_interface(world: World) -> None:
    """A drop rule before the peers drops what came by one interface, from either host, and not by another."""
    cells = {**recipes.udp_rule(ON_OUT, A, B, 7401, "drop"), f"ipsecTrDirection.{ON_OUT}": "outbound"}
    world.a.station.set({**cells, "ipsecGlobContDefaultRule.0": "pass", "ipsecGlobContPreIpsecRules.0": ON_OUT})
    for name, wanted in (("in", True), ("out", False)):
        # local and remote exchanged and inbound: what comes by this interface from hosta to hostb
        there = {**recipes.udp_rule(ON_OUT, B, A, 0, "drop"), f"ipsecTrLocalPort.{ON_OUT}": 7401}
        there |= {f"ipsecTrDirection.{ON_OUT}": "inbound", f"ipsecTrInterface.{ON_OUT}": link_index(A, name)}
        world.a.station.set(there)
        world.eventually(partial(apply_state, world.a, "Traffic", ON_OUT), f"about {name}: applied", 60)
        capture = world.capture()

        def fares(capture: Capture = capture, wanted: bool = wanted) -> str:
            """Of two packets the one that no rule is about passes anyhow, and comes last: then the other has, or never
            will."""
            capture.take()
            for port in (7401, 7402):
                send_udp(A.host, A.address, B.address, port)
            packets: list[Packet] = []
            end = time.monotonic() + 3
            while len(packets) < 2 and time.monotonic() < end:
                time.sleep(0.2)
                packets += [each for each in capture.take() if each.link == "a" and each.protocol == ESP]
            return "" if len(packets) == (1 if wanted else 2) else f"ESP: {len(packets)}"

        world.eventually(fares, "what comes by it is dropped" if wanted else "what comes by the other passes", 60)
        capture.close()
    world.a.station.set({"ipsecGlobContPreIpsecRules.0": 0, f"ipsecTrAction.{ON_OUT}": "delete"})
