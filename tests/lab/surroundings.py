"""The boot `surroundings`: by which link and at which address a peer is called, and who stands for one that is gone.

gwa has a second link to the Internet, `out2`, behind which the router has the link `a2`. The net 10.9.0.0/24 is behind
gwb and behind gwc: its one host answers at both places, so a ping tells whether anybody has the traffic, and the
capture who.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from tests.lab import recipes
from tests.lab.gateway import Gateway
from tests.lab.recipes import Cells
from tests.lab.registry import scenario
from tests.lab.sightings import apply_state, established, lost
from tests.lab.topology import SITES, WAN, Ping, Site, batch, inside, ping, run
from tests.lab.wire import ESP, Packet
from tests.lab.world import World

A, B, C = SITES["a"], SITES["b"], SITES["c"]
PEER, BACKUP = 1, 2
SECOND: Final = ("192.0.2.5", "192.0.2.6")  # gwa's second address on the Internet, and the router's
MOVED: Final = "203.0.113.129"  # another address of gwb
SHARED: Final = B._replace(net="10.9.0.0", address="10.9.0.5")
NAME: Final = "far"
DELAY: Final = 8  # seconds, ipsecPeerDelayBackToPrimary; a new agent shows some seconds late that a peer is up


def dead_soon() -> Cells:
    """A dead peer is noticed after some four seconds."""
    return {"ipsecGlobDPDIdleThreshold.0": 1, "ipsecGlobDPDMaxRetries.0": 1, "ipsecGlobDPDRetryTimeout.0": 1}


@scenario("surroundings")
def start_around(world: World) -> None:
    """Three gateways; two links of the first, a net behind both others."""
    batch(
        WAN,
        f"link add a2 type veth peer name out2 netns {A.gateway}",
        f"addr add {SECOND[1]}/30 dev a2",
        "link set dev a2 up",
    )
    batch(
        A.gateway,
        f"addr add {SECOND[0]}/30 dev out2",
        "link set dev out2 up",
        f"route add default via {SECOND[1]} metric 100",
    )
    batch(WAN, f"route add {MOVED} via {B.outer}", "route add 10.9.0.0/24 dev lo")
    batch(B.gateway, f"addr add {MOVED}/32 dev out")
    for site in (B, C):
        batch(site.host, f"addr add {SHARED.address}/32 dev lo")
        batch(site.gateway, f"route add 10.9.0.0/24 via {site.address}")
    world.a.knows(far=[B.outer])
    world.start("abc")
    for gateway, local, remote in ((world.a, A, B), (world.b, B, A)):
        gateway.station.set(
            {
                **recipes.algorithms(),
                **recipes.rule(1, local, remote),
                **recipes.peer(PEER, remote, 1),
                **dead_soon(),
                **recipes.enabled(True),
            }
        )
    world.eventually(partial(apply_state, world.a, "Peer", PEER), "the peer is applied")


def sent(packets: list[Packet]) -> set[tuple[str, str]]:
    """By which link and from which address ESP left the first gateway."""
    return {(packet.link, packet.source) for packet in packets if packet.protocol == ESP and packet.link[0] == "a"}


def number_of(gateway: Gateway, link: str) -> int:
    return int(run(gateway.name, ["ip", "-o", "link", "show", link]).split(":")[0])


@scenario("surroundings", "start_around")
def public_link(world: World) -> None:
    """A peer is called by the link that its row names: forced by a route of ours, preferred only where routes agree."""
    world.b.station.set({f"ipsecPeerDynamicAddress.{PEER}": SECOND[0]})
    link = number_of(world.a, "out2")
    world.a.station.set({f"ipsecPeerPublicIfIndex.{PEER}": link, f"ipsecPeerPublicIfIndexMode.{PEER}": "force"})
    capture = world.capture()

    def way(wanted: tuple[str, str]) -> str:
        """A ping may still pass by the way of before."""
        capture.take()
        missing, ways = lost(A, B.address), sent(capture.take())
        return missing or ("" if ways == {wanted} else str(ways))

    def routes() -> str:
        return run(A.gateway, ["ip", "route", "show", "proto", "196"]).strip()

    forced = partial(way, ("a2", SECOND[0]))
    world.eventually(forced, "forced: the ping passes by the second link, from its address")
    route = f"{B.outer} via {SECOND[1]} dev out2"
    world.eventually(lambda: "" if route in routes() else routes() or "none", "by a host route of ours")

    world.b.station.set({f"ipsecPeerDynamicAddress.{PEER}": A.outer})
    world.a.station.set({f"ipsecPeerPublicIfIndexMode.{PEER}": "preferred"})
    preferred = partial(way, ("a", A.outer))
    world.eventually(preferred, "preferred: the ping passes by the first link, which has the better route")
    world.eventually(routes, "and our route is gone")
    capture.close()
    world.a.station.set({f"ipsecPeerPublicIfIndex.{PEER}": -1, f"ipsecPeerPublicIfIndexMode.{PEER}": "force"})


def targets(world: World, address: str) -> set[str]:
    """Where the ESP packets of a ping go to."""
    capture = world.capture()
    ping(A, address, 3)
    found = {each.destination for each in capture.take() if each.protocol == ESP and each.link == "a"}
    capture.close()
    return found


@scenario("surroundings", "start_around")
def name_moves(world: World) -> None:
    """A tunnel follows the host name of its peer when that has another address."""
    world.a.station.set({f"ipsecPeerDynamicAddress.{PEER}": NAME})
    world.eventually(partial(lost, A, B.address), "the ping passes")
    world.becomes(lambda: targets(world, B.address), {B.outer}, "to the address of the name")
    world.b.station.set({f"ipsecPeerLocalAddress.{PEER}": MOVED})
    world.a.knows(far=[MOVED])
    world.a.station.set({"ipsecGwCommand.0": "reconcile"})  # else within a minute

    def moved() -> str:
        missing = lost(A, B.address)
        found = targets(world, B.address)
        return missing or ("" if found == {MOVED} else str(found))

    world.eventually(moved, "with another address in the file of names, to that one", 60)


@scenario("surroundings", "name_moves")
def in_turn(world: World) -> None:
    """Of several addresses of a name the next one is called after an attempt that failed."""
    world.a.knows(far=[C.outer, MOVED])  # the first is a gateway that does not know us
    world.c.station.set({**recipes.algorithms(), **recipes.enabled(True)})
    world.a.station.set({"ipsecGlobContDnsSelectRoundRobin.0": "disabled", "ipsecGwCommand.0": "reconcile"})

    def vain() -> str:
        capture = world.capture()
        answered = ping(A, B.address, 5, interval=0.5)[1]
        called = {each.destination for each in capture.take() if each.link == "a" and each.source == A.outer}
        capture.close()
        return f"{answered} answers" if answered else "" if called == {C.outer} else f"called: {called}"

    world.eventually(vain, "without turns the first one is called, in vain", 60)  # once the former tunnel is gone
    world.a.station.set({"ipsecGlobContDnsSelectRoundRobin.0": "enabled"})
    world.eventually(partial(lost, A, B.address), "in turn the ping passes", 60)
    world.becomes(lambda: targets(world, B.address), {MOVED}, "to the second address")
    world.a.station.set({"ipsecGlobContDnsSelectRoundRobin.0": "disabled", f"ipsecPeerDynamicAddress.{PEER}": B.outer})
    world.b.station.set({f"ipsecPeerLocalAddress.{PEER}": "0.0.0.0"})


@scenario("surroundings", "start_around")
def host_settings(world: World) -> None:
    """Settings of the host follow their objects, and are the host's own again with the default."""
    files = {"ipv4/route/mtu_expires": 120, "ipv4/ipfrag_high_thresh": 200_000}
    own = settings_of(world.a, files)
    world.a.station.set({"ipsecGlobContDefaultPmtuTtl.0": 2, "ipsecTuneIPFragMaxBytes.0": 200_000})
    world.eventually(lambda: differing(world.a, files), "written")
    world.a.station.set({"ipsecGlobContDefaultPmtuTtl.0": 10, "ipsecTuneIPFragMaxBytes.0": 131_072})
    world.eventually(lambda: differing(world.a, own), f"given back: {own}")


def settings_of(gateway: Gateway, files: Iterable[str]) -> dict[str, int]:
    return {file: int(inside(gateway.name, Path("/proc/sys/net", file).read_text)) for file in files}


def differing(gateway: Gateway, wanted: Mapping[str, int]) -> str:
    found = settings_of(gateway, wanted)
    return "" if found == wanted else str(found)


def mirrored(number: int, remote: Site, shared: Site) -> Cells:
    """The far side's rule for the shared net."""
    return {**recipes.rule(number, shared, A), **recipes.peer(PEER, remote, number)}


@scenario("surroundings", "in_turn")
def backup(world: World) -> None:
    """When the primary is gone its backup peer has the traffic, with the next agent too; after a delay it goes back."""
    always: Cells = {f"ipsecPeerStartMode.{PEER}": "always-up"}
    world.b.station.set({**recipes.rule(1, SHARED, A), **always})
    world.c.station.set({**mirrored(1, A, SHARED), **dead_soon()})
    world.a.station.set({**recipes.rule(1, A, SHARED), **recipes.rule(2, A, SHARED), **recipes.peer(BACKUP, C, 2)})
    world.a.station.set(
        {
            **always,
            f"ipsecPeerIfStateMode.{PEER}": "reduced",
            f"ipsecPeerSecondaryPeerIndex.{PEER}": BACKUP,
            f"ipsecPeerDelayBackToPrimary.{PEER}": DELAY,
        }
    )
    world.eventually(partial(established, world.a, PEER), "the primary is up", 60)
    world.eventually(partial(lost, A, SHARED.address), "the ping passes")
    world.eventually(lambda: wrong(world, B), "by the primary")
    batch(WAN, "link set dev b down")
    world.eventually(partial(lost, A, SHARED.address), "with the primary gone the ping passes again", 60)
    world.eventually(lambda: wrong(world, C), "by the backup")
    world.eventually(partial(not_shown, world), "ipsecPeerStatSecondaryPeerIndex says so")
    capture = world.capture()
    running = Ping(A, SHARED.address, interval=0.1)
    world.a.kill_agent()
    world.start("a")
    world.eventually(partial(not_shown, world), "the next one says so too")
    asked, answered = running.stop()
    world.check(asked - answered <= 1, "meanwhile the traffic goes on", f"{answered} of {asked}")
    packets = capture.take()
    world.check_private(packets)
    found = {each.destination for each in packets if each.protocol == ESP and each.link == "a"}
    world.check(found == {C.outer}, "by the backup", found)
    capture.close()
    batch(WAN, "link set dev b up", f"route add {B.net}/24 via {B.outer}", f"route add {MOVED} via {B.outer}")
    absent = [time.monotonic()]

    def returned() -> str:
        at = time.monotonic()
        if stands(world):
            return ""
        absent.append(at)
        return "not in charon's list"

    def spent() -> float:
        """Seconds since it was surely not up; the agent counts from when it was told."""
        return time.monotonic() - absent[-1]

    world.eventually(returned, "the primary is up again", 60)
    found, seconds = targets(world, SHARED.address), spent()
    if seconds < DELAY:
        world.check(found == {C.outer}, "at first the backup keeps the traffic", f"{found}, within {seconds:.1f} s")
    else:
        world.note(f"whether the backup keeps the traffic at first was looked at too late, after {seconds:.1f} s")
    world.eventually(lambda: wrong(world, B), "after the delay the primary has it", DELAY + 30)
    world.check(spent() >= DELAY, "and not before", f"{spent():.1f} s")
    world.eventually(partial(established, world.a, PEER), "its rows say that it is up")
    capture = world.capture()
    world.eventually(partial(lost, A, SHARED.address), "the ping passes by it")
    asked, answered = ping(A, SHARED.address, 5)
    world.check(answered == asked, "and answers come", f"{answered} of {asked}")
    world.check_private(capture.take())
    capture.close()


def stands(world: World) -> bool:
    """Whether charon has a tunnel with the primary."""
    found = [sa for name, sa in world.a.vici("list_sas") if name == f"peer-{PEER}" and sa["state"] == "ESTABLISHED"]
    return any(child["state"] == "INSTALLED" for sa in found for child in sa["child-sas"].values())


def not_shown(world: World) -> str:
    shown = world.a.station.get(f"ipsecPeerStatSecondaryPeerIndex.{PEER}")
    return "" if shown == str(BACKUP) else f"it is {shown}"


def wrong(world: World, site: Site) -> str:
    found = targets(world, SHARED.address)
    return "" if found == {site.outer} else str(found or "nothing")
