"""The second boot: what has to wait for lifetimes and dead peers, with times as short as the MIB allows."""

from __future__ import annotations

import time
from functools import partial

from tests.lab import recipes
from tests.lab.gateway import Gateway
from tests.lab.registry import scenario
from tests.lab.sightings import PEER_UP, apply_state, bundle_rows, counted, established, ike_rows, lost
from tests.lab.topology import SITES, Ping, batch, ping
from tests.lab.wire import ESP, Packet, plain, summary
from tests.lab.world import World

A, B = SITES["a"], SITES["b"]
PEER = 1
LIFE = 20  # seconds, both phases
REKEY_PERCENT = 50
LATER_PERCENT = 90  # gwb's: version 1 ends that renew at the same moment may part (docs/troubleshooting.md)
REKEYING = 45  # seconds of ping: four lives of phase 2, two of phase 1
RENEWED_BY = 90  # seconds of ping at most, until there were enough renewals
DETECTION = 150  # seconds; DPD's own times (idle, retries) are not settable yet, so this only bounds a hang
STRICT_LIFE, OFFERED_LIFE = 300, 100


@scenario("second")
def start_short(world: World) -> None:
    """Two gateways with lifetimes of 20 seconds."""
    world.start("ab")
    for gateway, local, remote, percent in ((world.a, A, B, REKEY_PERCENT), (world.b, B, A, LATER_PERCENT)):
        gateway.station.set(
            {
                **recipes.algorithms(),
                **recipes.lifetimes(ike=LIFE, ipsec=LIFE, percent=percent),
                **recipes.rule(1, local, remote),
                **recipes.peer(PEER, remote, 1),
                **recipes.enabled(True),
            }
        )
    for gateway in (world.a, world.b):
        world.eventually(partial(apply_state, gateway, "Peer", PEER), f"{gateway.name}: the peer is applied")


def esp_between(packets: list[Packet]) -> tuple[int, int]:
    """ESP packets from gwa to gwb and back that crossed the router."""
    there = sum(each.protocol == ESP and each.source == A.outer for each in packets)
    back = sum(each.protocol == ESP and each.source == B.outer for each in packets)
    return there, back


@scenario("second", "start_short")
def rekeys(world: World) -> None:
    """SAs are renewed before they end, hardly a packet is lost, and the counters are exact through it."""
    capture = world.capture()
    world.eventually(partial(lost, A, B.address), "the tunnel stands", 60)
    unready = world.a.unready() + world.b.unready()
    running = Ping(A, B.address, interval=0.1)
    seen: set[int] = set()
    cookies: set[str] = set()
    begun = time.monotonic()
    while (lasted := time.monotonic() - begun) < REKEYING or (
        (len(seen) < 4 or len(cookies) < 3) and lasted < RENEWED_BY
    ):
        seen |= {each.spi for each in world.a.states() if each.source == A.outer}
        # a row that comes while the table is walked shows its later columns only
        cookies |= {row["ikeSaCookieI"] for row in ike_rows(world.a, PEER) if "ikeSaCookieI" in row}
        time.sleep(2)
    sent, answered = running.stop()
    world.check(len(seen) >= 4, "the phase 2 SA was renewed three times or more", f"{len(seen)} SPIs")
    world.check(len(cookies) >= 3, "and the phase 1 SA twice or more", f"{len(cookies)} cookies")
    excused = world.a.unready() + world.b.unready() - unready
    lost_for_nothing = sent - answered - excused
    world.check(
        lost_for_nothing <= 4, "hardly a packet lost", f"{answered} of {sent}, {excused} before charon had keys"
    )
    packets: list[Packet] = []

    def disagreement() -> str:
        packets.extend(capture.take())
        there, back = esp_between(packets)
        # A packet that comes too late for an SA, or too early, is refused: no SA counts it, and the kernel says so.
        wanted = (there, back - world.a.rejected(), there - world.b.rejected(), back)
        own, other = counted(world.a, PEER), counted(world.b, PEER)
        told = (
            own["ipsecBundleOutPkt"],
            own["ipsecBundleInPkt"],
            other["ipsecBundleInPkt"],
            other["ipsecBundleOutPkt"],
        )
        octets = own["ipsecBundleOutBytesNetto"]
        if told == wanted and octets == there * 84:
            return ""
        return f"tables (out, in, far in, far out) {told}, {octets} octets out; wire {wanted}"

    world.eventually(
        disagreement, "bundle counters of both sides are those of the wire, and 84 octets of each echo", 30
    )
    world.check_private(packets)
    capture.close()


@scenario("second", "start_short")
def admin_status(world: World) -> None:
    """down ends the tunnel and lets nothing out in plain; dialup starts it without traffic and turns into up."""
    for gateway in (world.a, world.b):
        gateway.station.set(recipes.lifetimes(ike=900, ipsec=900, percent=80))
    world.a.station.set({f"ipsecPeerAdminStatus.{PEER}": "down"})
    world.eventually(world.a.states, "down: no SA is left")
    capture = world.capture()
    _, answered = ping(A, B.address, 3)
    packets = capture.take()
    world.check(not answered and not plain(packets), "no packet passes, none in plain", summary(packets))
    world.a.station.set({f"ipsecPeerAdminStatus.{PEER}": "dialup"})
    world.eventually(partial(established, world.a, PEER), "dialup: the tunnel comes up without traffic", 60)
    world.check(
        world.a.station.eventually(f"ipsecPeerAdminStatus.{PEER}", 1) == 1, "and the administrative status reads up"
    )
    capture.close()


@scenario("second", "start_short")
def always_up(world: World) -> None:
    """A peer that is always up stands without traffic and returns after the far charon was killed."""
    for gateway in (world.a, world.b):
        gateway.station.set(recipes.lifetimes(ike=900, ipsec=900, percent=80))
    standing = {each.spi for each in world.a.states()}
    world.a.station.set({f"ipsecPeerStartMode.{PEER}": "always-up"})
    # idle or not no longer matters, which is a setting of the child: it is negotiated anew
    world.eventually(partial(renewed, world.a, standing), "the tunnel stands without traffic", 60)
    before = {each.spi for each in world.a.states()}
    world.check(world.b.kill_charon() == 1, "the far charon is killed")
    begun = time.monotonic()
    world.eventually(partial(renewed, world.a, before), "it returns by itself", DETECTION)
    world.eventually(lambda: "" if world.b.charons() else "no charon", "the far agent has started charon again", 60)
    world.note(f"after {time.monotonic() - begun:.0f} s")
    world.eventually(partial(lost, A, B.address), "the ping passes", 60)


def renewed(gateway: Gateway, before: set[int]) -> str:
    """'' when the gateway's SAs are others than those and the peer is up."""
    spis = {each.spi for each in gateway.states()}
    if not spis or spis & before:
        return f"SAs {[hex(spi) for spi in spis]}"
    return established(gateway, PEER)


@scenario("second", "start_short")
def strict(world: World) -> None:
    """With a strict lifetime policy a tunnel of another lifetime is ended, and the row says why."""
    for gateway in (world.a, world.b):
        gateway.station.set({f"ipsecPeerStartMode.{PEER}": "on-demand", f"ipsecPeerAdminStatus.{PEER}": "down"})
        world.eventually(gateway.states, f"{gateway.name}: down, no SA", 30)
    world.a.station.set(recipes.lifetimes(ike=900, ipsec=STRICT_LIFE, percent=80, policy="strict"))
    world.b.station.set(recipes.lifetimes(ike=900, ipsec=OFFERED_LIFE, percent=80))
    for gateway in (world.a, world.b):
        gateway.station.set({f"ipsecPeerAdminStatus.{PEER}": "up"})
        world.eventually(partial(apply_state, gateway, "Peer", PEER), f"{gateway.name}: the peer is applied")
    capture = world.capture()
    ping(B, A.address, 3, interval=0.5)
    packets: list[Packet] = []

    def nothing_said() -> str:
        packets.extend(capture.take())
        return "" if any(each.protocol != ESP for each in packets) else summary(packets)

    world.eventually(nothing_said, "there was a negotiation", 30)

    def untold() -> str:
        reasons = " ".join(world.a.station.walk("ipsecGwPeerLastError").values())
        return "" if str(OFFERED_LIFE) in reasons or "lifetime" in reasons else reasons or "no error"

    world.eventually(untold, "the peer's row says why", 30)
    world.eventually(world.a.states, "the SA of the other lifetime is ended", 30)
    world.a.station.set(recipes.lifetimes(ike=900, ipsec=OFFERED_LIFE, percent=80, policy="strict"))
    world.eventually(partial(lost, B, A.address, interval=0.5), "with equal lifetimes it stands", 60)
    capture.close()


@scenario("second", "start_short")
def dead_peer(world: World) -> None:
    """A peer that is cut off is found out, its SAs go, and the tunnel is there again once the link is."""
    for gateway in (world.a, world.b):
        gateway.station.set(
            {**recipes.lifetimes(ike=900, ipsec=900, percent=80), f"ipsecPeerStartMode.{PEER}": "on-demand"}
        )
    stands = partial(lost, A, B.address)
    world.eventually(stands, "the tunnel stands", 60)
    world.eventually(partial(established, world.a, PEER), "and the peer is up")
    batch("wan", "link set dev b down")
    begun = time.monotonic()

    def gone() -> str:
        oper = world.a.station.get(f"ipsecPeerStatOperStatus.{PEER}")
        return f"operational status {oper}" if oper == str(PEER_UP) else " ".join(map(str, world.a.states()))

    world.eventually(gone, "the dead peer is found out", DETECTION, pause=2)
    world.note(f"after {time.monotonic() - begun:.0f} s")
    world.eventually(partial(bundle_rows, world.a, PEER), "and no bundle of it is left")
    batch("wan", "link set dev b up", f"route replace {B.net}/24 via {B.outer}")
    world.eventually(stands, "with the link the tunnel returns", DETECTION)
