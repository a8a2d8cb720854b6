"""The boot `version2`: IKEv2's profile and peers, and what becomes of tunnels that move, idle, are full or not wanted.

Times are as short as the MIB allows, and what has to wait waits together.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial

from tests.lab import recipes
from tests.lab.gateway import Gateway
from tests.lab.recipes import Cells
from tests.lab.registry import scenario
from tests.lab.sightings import FAILED, UNUSED, apply_state, bundle_rows, lost
from tests.lab.station import Refused
from tests.lab.topology import SITES, Ping, Site, batch, ping, run, send_udp
from tests.lab.wire import ESP, UDP, Packet, plain, summary
from tests.lab.world import World

A, B = SITES["a"], SITES["b"]
IN_FLIGHT = 5
PEER = 1
PROFILE = 7
MOVED = "192.0.2.129"  # gwa's other address


def version2() -> Cells:
    """An IKEv2 profile of its own, pointed to by the global pointer."""
    return {
        f"ikev2PrfIndex.{PROFILE}": PROFILE,
        f"ikev2PrfProposal.{PROFILE}": 1,
        "ipsecGlobContIkev2Profile.0": PROFILE,
        f"ipsecPeerIkeVersion.{PEER}": "ikev2",
    }


def passes(count: int = 2) -> str:
    """'' when a ping passes from site to site."""
    return lost(A, B.address, count)


def shows(gateway: Gateway, wanted: Mapping[str, str]) -> str:
    """'' when there is a child and all of them, with their IKE SA, show these fields."""
    seen = [{name: child.get(name, "none") for name in wanted} for child in gateway.negotiated()]
    return "" if seen and all(each == wanted for each in seen) else f"{seen or 'no child'}"


def both(world: World, cells: Cells) -> None:
    """The far side first, so that gwa negotiates with what is there; nothing of before stands after it."""
    world.carry_out(cells, world.b, world.a, peer=PEER)


def stands(world: World, wanted: Mapping[str, str], sentence: str, seconds: float = 40) -> bool:
    return world.eventually(lambda: passes() or shows(world.a, wanted), sentence, seconds)


@scenario("version2")
def start_version2(world: World) -> None:
    """Two gateways with IKEv2 and a pre-shared key: the main path."""
    world.start("ab")
    for gateway, local, remote in ((world.b, B, A), (world.a, A, B)):
        rules = {**recipes.rule(1, local, remote), **recipes.peer(PEER, remote, 1), **recipes.enabled(True)}
        gateway.station.set({**recipes.algorithms(), **version2(), **rules})
    for gateway in (world.a, world.b):
        world.eventually(partial(apply_state, gateway, "Peer", PEER), f"{gateway.name}: the peer is applied")
    capture = world.capture()
    wanted = {"ike-version": "2", "ike-encr-keysize": "256", "ike-dh-group": "MODP_2048", "encr-alg": "AES_CBC"}
    stands(world, wanted, "an IKEv2 tunnel comes up with the first packet")
    world.eventually(lambda: "" if bundle_rows(world.a, PEER) else "no bundle", "and there is a bundle")
    world.check_private(capture.take())
    capture.close()


@scenario("version2", "start_version2")
def profiles(world: World) -> None:
    """The peer's profile comes before the global one; a profile in use stays; the switch of IKEv2."""
    both(
        world,
        {
            "ikePropEncAlg.2": "aes-cbc",
            "ikePropHashAlg.2": "sha2-512",
            "ikePropGroup.2": 0,
            "ikev2PrfIndex.8": 8,
            "ikev2PrfProposal.8": 2,
            f"ipsecPeerIkeProfile.{PEER}": 8,
        },
    )
    wanted = {"ike-integ-alg": "HMAC_SHA2_512_256", "ike-dh-group": "MODP_2048"}
    stands(world, wanted, "the peer's own profile, with group 14 where the proposal names none")
    try:
        world.a.station.set({"ikev2PrfNatT.8": "delete"})
        refused = ""
    except Refused as error:
        refused = str(error)
    world.check("in use" in refused, "a profile in use cannot be deleted", refused)
    both(world, {f"ipsecPeerIkeProfile.{PEER}": 0})
    stands(world, {"ike-integ-alg": "HMAC_SHA2_256_128"}, "without it the global one")
    world.a.station.set({"ikev2PrfNatT.8": "delete"})
    world.a.station.set({"ipsecGlobIkev2Enabled.0": "false"})
    world.eventually(lambda: str(world.a.negotiated() or ""), "IKEv2 off: no SA is left")
    world.eventually(partial(apply_state, world.a, "Peer", PEER, UNUSED), "and the peer is not used")
    capture = world.capture()
    ping(A, B.address, 2)
    ping(B, A.address, 2, interval=0.5)
    packets = capture.take()
    world.check(not plain(packets), "nothing in plain", summary(packets))
    world.check(not world.a.negotiated(), "and the far side's call is not answered")
    capture.close()
    world.a.station.set({"ipsecGlobIkev2Enabled.0": "true"})
    stands(world, {"ike-version": "2"}, "on again: it comes back")


@scenario("version2", "start_version2")
def first_contact(world: World) -> None:
    """ipsecGlobNoInitialContact: the first message that is signed no longer says that it is the first."""
    world.a.station.set({"ipsecGlobContIkeLoggingLevel.0": 3})  # what is sent is in charon's log from then on
    for silent in ("true", "false"):
        world.carry_out({"ipsecGlobNoInitialContact.0": silent}, world.a, peer=PEER)
        world.eventually(lambda: str(world.a.negotiated() or ""), "the tunnel ends with the change")
        before = len(requests(world.a))
        world.eventually(passes, "and comes back")
        world.eventually(lambda before=before: "" if len(requests(world.a)) > before else "none", "by another request")
        request = requests(world.a)[-1]
        world.check(("N(INIT_CONTACT)" in request) == (silent == "false"), f"silent is {silent}", request[-150:])


def requests(gateway: Gateway) -> list[str]:
    """Lines of charon's log that tell of the first message that is signed."""
    return [line for line in charon_log(gateway) if "generating IKE_AUTH request" in line]


def charon_log(gateway: Gateway) -> list[str]:
    return next(gateway.folder.rglob("charon.log")).read_text(errors="replace").splitlines()


@scenario("version2", "start_version2")
def single_child(world: World) -> None:
    """ipsecPeerChildAllocMode single: two rules, one child."""
    for gateway, local, remote, port in (
        (world.b, B, A, "ipsecTrLocalPort"),
        (world.a, A, B, "ipsecTrRemotePort"),
    ):
        first = {**recipes.rule(1, local, remote, following=2), "ipsecTrProto.1": "udp", f"{port}.1": 7300}
        gateway.station.set({**recipes.rule(2, local, remote), **first, f"ipsecPeerChildAllocMode.{PEER}": "single"})
        world.eventually(partial(apply_state, gateway, "Traffic", 2), f"{gateway.name}: both rules are applied")
    for gateway in (world.b, world.a):
        world.real(gateway, PEER)
    world.eventually(passes, "a ping passes by the second rule")
    capture = world.capture()

    def carried() -> str:
        send_udp(A.host, A.address, B.address, 7300)
        return "" if any(each.protocol == ESP and each.link == "a" for each in capture.take()) else "no ESP"

    world.eventually(carried, "UDP by the first")
    world.eventually(partial(wrong_names, world.a, ["peer-1-rule-0"]), "through one child")
    capture.close()
    for gateway, local, remote in ((world.b, B, A), (world.a, A, B)):
        cells = {**recipes.rule(1, local, remote), "ipsecTrLocalPort.1": 0, "ipsecTrRemotePort.1": 0}
        gateway.station.set({**cells, f"ipsecPeerChildAllocMode.{PEER}": "multi"})
        gateway.station.set({"ipsecTrAction.2": "delete"})
    world.eventually(lambda: passes() or wrong_names(world.a, ["peer-1-rule-1"]), "multi: the rule's own again", 40)


def wrong_names(gateway: Gateway, wanted: list[str]) -> str:
    names = sorted(child["name"] for child in gateway.negotiated())
    return "" if names == wanted else str(names)


@scenario("version2", "start_version2")
def full_and_old(world: World) -> None:
    """Renewed by volume and by time under a running ping, and hardly a packet is lost."""
    both(
        world,
        {
            "ipsecPrfLifeKBytes.1": 100,
            "ipsecPrfLifeRekeyPercent.1": 50,
            f"ikev2PrfLifeSeconds.{PROFILE}": 10,
            f"ikev2PrfLifeRekeyPercent.{PROFILE}": 50,
        },
    )
    stands(world, {"ike-version": "2"}, "the tunnel stands")
    rejected = [gateway.rejected() for gateway in (world.a, world.b)]
    running = Ping(A, B.address, interval=0.02, size=500)
    children: set[str] = set()
    ikes: set[str] = set()
    begun = time.monotonic()
    while (spent := time.monotonic() - begun) < 12 or (min(len(children), len(ikes)) < 3 and spent < 60):
        for child in world.a.negotiated():
            children.add(child["spi-in"])
            ikes.add(child["ike-initiator-spi"])
        time.sleep(0.5)
    sent, answered = running.stop()
    world.check(len(children) >= 3, "the child was renewed by volume twice or more", f"{len(children)} SPIs")
    world.check(len(ikes) >= 3, "and the IKE SA by time twice or more", f"{len(ikes)} SPIs")
    refused = [gateway.rejected() - before for gateway, before in zip((world.a, world.b), rejected, strict=True)]
    # a busy charon is late at changing to the new SA, and some meet the old one when the far end has done with it
    late = min(sum(refused), IN_FLIGHT * (len(children) + len(ikes) - 2))
    seen = f"{answered} of {sent}; the kernels refused {refused}"
    world.check(sent - answered <= 1 + late, "without a loss beyond one packet and those that came late", seen)
    both(
        world,
        {
            "ipsecPrfLifeKBytes.1": 0,
            "ipsecPrfLifeRekeyPercent.1": 80,
            f"ikev2PrfLifeSeconds.{PROFILE}": 3600,
            f"ikev2PrfLifeRekeyPercent.{PROFILE}": 80,
        },
    )


@scenario("version2", "start_version2")
def faster_than_a_renewal(world: World) -> None:
    """A link that is through with the volume long before the renewal is done loses nothing for it."""
    both(world, {"ipsecPrfLifeKBytes.1": 200, "ipsecPrfLifeRekeyPercent.1": 100})
    stands(world, {"ike-version": "2"}, "the tunnel stands")
    before = {site.gateway: refused_as_expired(site) for site in (A, B)}
    running = Ping(A, B.address, interval=0.01, size=20_000)  # each is more than what is left of the volume
    children: set[str] = set()
    begun = time.monotonic()
    while (spent := time.monotonic() - begun) < 4 or (len(children) < 3 and spent < 30):
        children |= {child["spi-in"] for child in world.a.negotiated()}
        time.sleep(0.1)
    sent, answered = running.stop()
    volume = 20_000 * sent // 200_000  # how many SAs' worth was sent
    seen = f"{len(children)} SPIs, {sent} packets"
    world.check(len(children) >= 3 and volume >= 3, "it was renewed by volume", seen)
    refused = {site.gateway: refused_as_expired(site) - before[site.gateway] for site in (A, B)}
    world.check(not any(refused.values()), "no packet met an SA that was through with it", refused)
    lost = sent - answered
    # a few are on their way under the old SA when the far end is through with it
    few = f"{answered} of {sent}, {len(children)} SPIs"
    world.check(lost <= IN_FLIGHT * len(children), "hardly a packet is lost at each", few)
    both(world, {"ipsecPrfLifeKBytes.1": 0, "ipsecPrfLifeRekeyPercent.1": 80})


def refused_as_expired(site: Site) -> int:
    """Packets that the kernel has refused so far because their SA was beyond its limits."""
    text = run(site.gateway, ["cat", "/proc/net/xfrm_stat"])
    return sum(int(line.split()[1]) for line in text.splitlines() if line.split()[0].endswith("StateExpired"))


@scenario("version2", "start_version2")
def address_change(world: World) -> None:
    """MOBIKE: gwa gets another address, the SA moves with it, and the policies follow at both."""
    batch("wan", f"route add {MOVED} via {A.outer} dev a onlink")
    stands(world, {"ike-version": "2"}, "the tunnel stands")
    before = {child["ike-initiator-spi"] for child in world.a.negotiated()}
    batch(
        A.gateway,
        f"addr add {MOVED}/32 dev out",
        f"route replace default via {A.uplink} dev out src {MOVED} onlink",
        f"addr del {A.outer}/30 dev out",
    )
    batch("wan", f"route replace {MOVED} dev a", f"route replace {A.net}/24 via {MOVED} dev a onlink")
    begun = time.monotonic()
    capture = world.capture()
    world.eventually(passes, "the ping passes from the new address", 30)
    world.note(f"after {time.monotonic() - begun:.1f} s")
    capture.take()
    world.eventually(passes, "and goes on")
    packets = [each for each in capture.take() if each.link == "a"]
    sources = {
        each.source for each in packets if each.protocol == ESP or (each.protocol == UDP and each.source_port == 4500)
    }
    world.check(sources == {MOVED}, "from the new address only", summary(packets))
    after = {child["ike-initiator-spi"] for child in world.a.negotiated()}
    world.check(after == before, "in the same IKE SA", f"{before}, {after}")

    def behind(gateway: Gateway) -> str:
        templates = [policy for policy in gateway.policies() if "tmpl" in policy]
        followed = [policy for policy in templates if f" {MOVED} " in policy and f" {A.outer} " not in policy]
        return "" if templates and followed == templates else str(templates)

    for gateway in (world.a, world.b):
        world.eventually(partial(behind, gateway), f"{gateway.name}: all templates follow")
    capture.close()
    batch(
        A.gateway,
        f"addr add {A.outer}/30 dev out",
        f"route replace default via {A.uplink} dev out src {A.outer}",
        f"addr del {MOVED}/32 dev out",
    )
    batch("wan", f"route replace {A.net}/24 via {A.outer} dev a")
    world.eventually(passes, "back to the first address", 30)


@scenario("version2", "start_version2")
def nat_traversal(world: World) -> None:
    """NAT-T enforced: ESP travels in UDP; MOBIKE off: IKEv2 stays at port 500."""
    both(world, {f"ipsecPeerMobike.{PEER}": "disabled"})
    stands(world, {"ike-local-port": "500"}, "without MOBIKE on port 500")
    both(world, {f"ikev2PrfNatT.{PROFILE}": "disabled", f"ipsecPeerMobike.{PEER}": "enabled"})
    stands(world, {"ike-local-port": "500"}, "NAT-T disabled: on port 500 whatever MOBIKE says")
    both(world, {f"ipsecPeerIkeVersion.{PEER}": "ikev1", "ikePrfNatT.1": "enforce"})
    stands(world, {"ike-version": "1", "encap": "yes"}, "IKEv1, NAT-T enforced: encapsulated")
    capture = world.capture()
    passes()
    packets = capture.take()
    ports = {each.destination_port for each in packets if each.protocol == UDP}
    world.check(ports == {4500} and not any(each.protocol == ESP for each in packets), "in UDP 4500", summary(packets))
    capture.close()
    world.a.station.set({"ipsecPropProto.3": "ah", "ipsecPropAhSha1.3": 1, "ipsecPrfProposal.1": 3})
    world.eventually(partial(apply_state, world.a, "Traffic", 1, FAILED), "AH with it fails the rule")
    text = partial(world.a.station.get, "ipsecGwTrafficLastError.1")
    world.eventually(lambda: "" if "UDP" in text() else text() or "nothing", "saying why")
    world.a.station.set({"ipsecPrfProposal.1": 1})
    both(world, {"ikePrfNatT.1": "default"})


@scenario("version2", "nat_traversal")
def outer_packets(world: World) -> None:
    """PMTU discovery off leaves DF out; without traffic a tunnel lapses unless it is kept."""
    both(
        world,
        {
            "ipsecPrfPmtuDiscovery.1": "disabled",
            "ipsecPrfLifeSeconds.1": 10,
            "ipsecPrfLifeRekeyPercent.1": 50,
            "ipsecPrfKeepAlive.1": "false",
        },
    )
    world.eventually(passes, "the tunnel stands")
    world.check("nopmtudisc" in run(A.gateway, ["ip", "xfrm", "state"]), "the SA does not do path MTU discovery")
    # the SA that the ping went through may be renewed once: it was used within its time
    world.eventually(lambda: str(world.a.negotiated() or ""), "unused, it lapses", 60)
    both(world, {"ipsecPrfPmtuDiscovery.1": "enabled", "ipsecPrfKeepAlive.1": "true"})
    world.eventually(passes, "the tunnel stands again")
    world.check("nopmtudisc" not in run(A.gateway, ["ip", "xfrm", "state"]), "now with path MTU discovery")
    last: set[str] = set()
    generations = 0

    def renewals() -> str:
        """Where both ends renew at once there are two new ones for a moment: they are one renewal."""
        nonlocal last, generations
        now = {child["spi-in"] for child in world.a.negotiated()}
        if now and not now & last:
            last, generations = now, generations + 1
        return "" if generations >= 3 else f"{generations} generations, now {now}"

    world.eventually(renewals, "unused and kept, it is renewed and renewed", 60)
    usual: Cells = {"ipsecPrfLifeSeconds.1": 900, "ipsecPrfLifeRekeyPercent.1": 80, "ipsecPrfKeepAlive.1": "default"}
    both(world, usual)


@scenario("version2", "outer_packets")
def dead_peers(world: World) -> None:
    """IKEv1: heartbeats of phase 2 find a dead peer that phase 1 does not look for; IKEv2: the alive check probes."""
    world.carry_out(
        {
            "ikePrfHeartbeats.1": "none",
            "ipsecPrfHeartbeats.1": "expect",
            "ipsecGlobContHeartbeatInterval.0": 2,
            "ipsecGlobContHeartbeatTolerance.0": 2,
        },
        world.a,
        peer=PEER,
    )
    world.eventually(passes, "the tunnel stands")
    begun = time.monotonic()
    batch("wan", "link set dev b down")
    world.eventually(lambda: str(world.a.negotiated() or ""), "the dead peer is found out", 60)
    seconds = time.monotonic() - begun
    world.check(3 <= seconds <= 20, "after two beats of two seconds", f"{seconds:.1f} s")
    batch("wan", "link set dev b up", f"route replace {B.net}/24 via {B.outer}")
    both(world, {f"ipsecPeerIkeVersion.{PEER}": "ikev2", f"ikev2PrfNatT.{PROFILE}": "enabled"})
    world.carry_out({"ipsecGlobDPDIdleThreshold.0": 2, f"ipsecPeerMobike.{PEER}": "disabled"}, world.a, peer=PEER)
    stands(world, {"ike-version": "2"}, "IKEv2: the tunnel stands")
    probes: list[Packet] = []
    capture = world.capture()

    def probed() -> str:
        probes.extend(each for each in capture.take() if each.link == "a" and each.protocol == UDP)
        return "" if len(probes) >= 2 else summary(probes)

    time.sleep(5)
    world.eventually(
        probed, "IKEv2: a silent peer is probed every two seconds", 10
    )  # and not every quarter of a minute
    world.carry_out({f"ikev2PrfAliveCheck.{PROFILE}": "disabled"}, world.a, peer=PEER)
    stands(world, {"ike-version": "2"}, "the tunnel stands")
    world.eventually(lambda: str(unanswered(world.a) or ""), "nothing else is under way")
    capture.take()
    time.sleep(5)
    probes = [each for each in capture.take() if each.link == "a" and each.protocol == UDP]
    world.check(not probes, "and without alive check it is not", summary(probes))
    capture.close()


def unanswered(gateway: Gateway) -> list[str]:
    """States of IKE SAs that are being made or ended."""
    return [sa["state"] for _, sa in gateway.vici("list_sas") if sa["state"] != "ESTABLISHED"]
