"""In the boot of rules, behind those: SAs that are split more finely than rules are (ipsecPrfGranularity).

One rule between the nets of two gateways. Here too every packet of the middle link is looked at: what waits for an SA
of its own must not go in plain meanwhile.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from tests.lab import recipes
from tests.lab.gateway import Gateway, State
from tests.lab.registry import scenario
from tests.lab.rules import BESIDE, LAST, PEER, A, B, answers, from_gateway
from tests.lab.sightings import apply_state, bundle_rows, explained
from tests.lab.topology import Ping, Site, inside, send_udp
from tests.lab.world import World

SPLIT_PEER, SPLIT, PROFILE = 7, 41, 7
HOSTS = (B.address, LAST["b"], BESIDE)
CALLER = "road.example.org"
SECONDS = 30  # a second flow may wait five seconds for its turn
EARLY = 20  # packets, four seconds of a ping, that a busy responder may be late


def configure(world: World, version: str, granularity: Mapping[str, str], *, calls: bool = False) -> None:
    """The two gateways with nothing but one rule, which has the granularity given for each. `calls`: b knows a by its
    name only."""
    for gateway, here, there in ((world.b, B, A), (world.a, A, B)):
        for number in {PEER, SPLIT_PEER} & set(gateway.station.rows("ipsecPeerTable")):
            gateway.station.set({f"ipsecPeerAdminStatus.{number}": "delete"})
        world.eventually(gateway.states, f"{gateway.name}: no SA is left")
        letter = "a" if gateway is world.a else "b"
        gateway.station.set(
            {
                **recipes.rule(SPLIT, here, there),
                f"ipsecTrProfile.{SPLIT}": PROFILE,
                f"ipsecPrfProposal.{PROFILE}": 1,
                f"ipsecPrfGranularity.{PROFILE}": granularity[letter],
                **recipes.peer(SPLIT_PEER, there, SPLIT),
                f"ipsecPeerIkeVersion.{SPLIT_PEER}": version,
                "ikePrfMode.1": "aggressive" if calls else "id-protect",
                "ikePrfLocalId.1": CALLER if calls and gateway is world.a else "",
            }
        )
        if calls and gateway is world.b:
            gateway.station.set({f"ipsecPeerPeerIds.{SPLIT_PEER}": CALLER, f"ipsecPeerDynamicAddress.{SPLIT_PEER}": ""})
    for gateway in (world.a, world.b):
        world.real(gateway, SPLIT_PEER)  # the rule was applied before, perhaps, and its row does not wait at once
        world.eventually(partial(apply_state, gateway, "Traffic", SPLIT), f"{gateway.name}: the rule is applied")


def reach(world: World, site: Site = A, addresses: tuple[str, ...] = HOSTS) -> None:
    for address in addresses:
        world.eventually(lambda address=address: answers(site, address), f"{address} answers", SECONDS)


def pairs(gateway: Gateway) -> dict[int, list[State]]:
    """The kernel's SAs by reqid."""
    found: dict[int, list[State]] = {}
    for each in gateway.states():
        found.setdefault(each.reqid, []).append(each)
    return found


def disagreement(gateway: Gateway) -> str:
    """'' when each bundle has counted what the SAs of one reqid have (nothing has been rekeyed yet)."""
    kernel = sorted(
        tuple(
            sum(each.packets for each in states if (each.destination == gateway.site.outer) is inward)
            for inward in (True, False)
        )
        for states in pairs(gateway).values()
    )
    table = sorted(
        (int(row["ipsecBundleInPkt"]), int(row["ipsecBundleOutPkt"])) for row in bundle_rows(gateway, SPLIT_PEER)
    )
    return "" if table == kernel else f"table {table}, kernel {kernel}"


def split_into(gateway: Gateway, number: int) -> str:
    bundles, reqids = bundle_rows(gateway, SPLIT_PEER), pairs(gateway)
    return "" if len(bundles) == len(reqids) == number else f"{len(bundles)} bundles, reqids {sorted(reqids)}"


@scenario("rules", "start_rules")
def flows_of_hosts(world: World) -> None:
    """With granularity ip each pair of hosts behind one rule has its own SAs, which rekeys and a killed agent leave to
    it."""
    configure(world, "ikev1", {"a": "ip", "b": "ip"})
    capture = world.capture()
    reach(world)
    for gateway in (world.a, world.b):
        world.eventually(
            partial(split_into, gateway, len(HOSTS)), f"{gateway.name}: as many bundles and reqids as hosts"
        )
        world.eventually(partial(disagreement, gateway), f"{gateway.name}: each bundle counts what its SAs do")
    remote = {row["ipsecBundleRemoteAddress"] for row in bundle_rows(world.a, SPLIT_PEER)}
    world.check(remote == set(HOSTS), "each of one host", remote)
    before = set(pairs(world.a))
    refused = {gateway.name: gateway.rejected() for gateway in (world.a, world.b)}
    pings = [Ping(A, address) for address in HOSTS]
    for gateway in (world.b, world.a):
        last = {each.spi for each in world.a.states()}
        rekey(world, gateway)
        sentence = f"{gateway.name} rekeys all, each with the reqid it had"
        world.eventually(lambda last=last: renewed(world.a, before, last), sentence)
        world.eventually(partial(split_into, world.a, len(HOSTS)), "each bundle goes on")
    world.a.kill_agent()
    world.eventually(lambda: "" if set(pairs(world.a)) == before else pairs(world.a), "and stay without agent")
    world.start("a")
    world.eventually(partial(split_into, world.a, len(HOSTS)), "the next agent has them all")
    for address in HOSTS:
        missing = answers(A, address)
        world.check(not missing, f"{address} answers still", missing)
    lost = [sent - answered for sent, answered in (each.stop() for each in pings)]
    # A version 1 responder may get packets of the new SA before it has read the last message of the negotiation.
    early = sum(gateway.rejected() - refused[gateway.name] for gateway in (world.a, world.b))
    most = 2 + min(early, EARLY)
    world.check(max(lost) <= most, "pings through all of them went on", f"{lost}, {early} too early for an SA")
    world.check(set(pairs(world.a)) == before, "by the same reqids", pairs(world.a).keys())
    world.check_private(capture.take())
    spis = {each.spi for each in world.a.states()}
    world.a.kill_charon()

    def anew() -> str:
        for address in HOSTS:
            answers(A, address, 1)
        old = spis & {each.spi for each in world.a.states()}
        return f"{len(old)} old SAs" if old else split_into(world.a, len(HOSTS))

    world.eventually(anew, "after charon was killed all are made anew, and the old SAs go", 60)
    world.check_private(capture.take())
    capture.close()


def children(gateway: Gateway) -> list[dict[str, Any]]:
    return [child for _, sa in gateway.vici("list_sas") for child in sa.get("child-sas", {}).values()]


def rekey(world: World, gateway: Gateway) -> None:
    """All children, once both ends have done with the last renewal: a version 1 responder has an SPI for it before it
    has keys, and what is renewed from both ends at once is another matter."""

    def under_way() -> str:
        for each in (world.a, world.b):
            found = sorted((child["reqid"], child["state"]) for child in children(each))
            alone = len({reqid for reqid, _ in found}) == len(found)
            if not alone or any(state != "INSTALLED" for _, state in found):
                return f"{each.name}: {found}"
            listed = {int(child[spi], 16) for child in children(each) for spi in ("spi-in", "spi-out")}
            if listed != (kernel := {state.spi for state in each.states()}):
                return f"{each.name}: charon {listed}, kernel {kernel}"
        return ""

    world.eventually(under_way, f"{gateway.name}: nothing is being renewed")
    for child in children(gateway):
        gateway.vici("rekey", {"child-id": child["uniqueid"]})


def renewed(gateway: Gateway, before: Collection[int], last: Collection[int]) -> str:
    """'' when there are the same reqids as before, each with SAs that are not among the last."""
    now = pairs(gateway)
    if now.keys() != set(before):
        return f"reqids {sorted(now)}, before {sorted(before)}"
    old = [reqid for reqid, states in now.items() if {each.spi for each in states} <= set(last)]
    return f"not reqids {old}" if old else ""


def udp_bundles(gateway: Gateway) -> list[dict[str, str]]:
    """ICMP, by which a closed port answers, has bundles too."""
    return [row for row in bundle_rows(gateway, SPLIT_PEER) if row.get("ipsecBundleProto") == "17"]


def ports(gateway: Gateway, side: str) -> set[str]:
    return {row[f"ipsecBundle{side}Port"] for row in udp_bundles(gateway)}


@scenario("rules", "start_rules")
def flows_of_ports(world: World) -> None:
    """With granularity port each pair of ports has its own SAs, in version 2."""
    configure(world, "ikev2", {"a": "port", "b": "port"})
    capture = world.capture()
    far = inside(B.host, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    far.bind((B.address, 7302))
    far.setblocking(False)
    for wanted in ({"7301"}, {"7301", "7302"}):
        begun = time.monotonic()

        def asked(wanted: set[str] = wanted) -> str:
            for port in wanted:
                send_udp(A.host, A.address, B.address, int(port))
            found = ports(world.a, "Remote")
            return "" if found == wanted else str(found)

        world.eventually(asked, f"UDP to {max(wanted)} has its own", SECONDS)
        world.note(f"after {time.monotonic() - begun:.1f} s")
    both = {"7301", "7302"}
    world.becomes(lambda: ports(world.b, "Local"), both, "and so it has at the other end")
    world.becomes(lambda: ports(world.a, "Local"), {"40000"}, "each of one pair of ports")

    def arrived() -> str:
        send_udp(A.host, A.address, B.address, 7302)
        try:
            return "" if far.recv(100) == b"lab" else "something else"
        except BlockingIOError:
            return "nothing"

    world.eventually(arrived, "and packets arrive")
    far.close()

    def answered() -> str:
        """7301 is closed: hostb says so by ICMP, for which gwb has a third made."""
        send_udp(A.host, A.address, B.address, 7301)
        reqids = {row.get("reqid") for row in world.a.negotiated()}
        kernel = [sorted(pairs(gateway)) for gateway in (world.a, world.b)]
        fits = len(reqids) == 3 and all(len(each) == 3 for each in kernel)
        return "" if fits else f"{reqids}, kernel {kernel}"

    world.eventually(answered, "each with its reqid, and so has the answer of a closed port")
    before = set(pairs(world.b))
    for gateway in (world.b, world.a):
        last = {each.spi for each in world.b.states()}
        rekey(world, gateway)
        world.eventually(
            lambda last=last: renewed(world.b, before, last), f"{gateway.name} rekeys all, with their reqids"
        )
        world.becomes(lambda: ports(world.b, "Local"), both, "for the same ports")
    world.check_private(capture.take())
    capture.close()


@scenario("rules", "start_rules")
def fine_and_coarse(world: World) -> None:
    """A gateway that splits by hosts and one that does not understand each other, whoever begins."""
    configure(world, "ikev2", {"a": "ip", "b": "coarse"})
    capture = world.capture()
    reach(world)
    world.eventually(partial(split_into, world.a, len(HOSTS)), "the fine one has as many bundles as hosts")
    reach(world)
    world.check_private(capture.take())
    configure(world, "ikev1", {"a": "ip", "b": "coarse"})
    reach(world, B, (A.address,))
    world.eventually(partial(split_into, world.a, 1), "what the coarse one begins is one")
    reach(world)
    world.eventually(partial(split_into, world.a, 1), "and serves the fine one too")
    world.check_private(capture.take())
    capture.close()


@scenario("rules", "start_rules")
def local_services(world: World) -> None:
    """With local-services what the gateway itself talks to has SAs of its own, and the hosts behind it share one."""
    configure(world, "ikev2", {"a": "local-services", "b": "local-services"})
    capture = world.capture()
    reach(world)
    world.eventually(partial(split_into, world.a, 1), "the hosts share one")

    def own() -> str:
        return from_gateway(world.a, B.address, source=A.inner)

    world.eventually(own, "the gateway reaches a far host", SECONDS)
    world.eventually(partial(split_into, world.a, 2), "by an SA of its own")

    def row() -> dict[str, str]:
        return next(row for row in bundle_rows(world.a, SPLIT_PEER) if row["ipsecBundleLocalAddress"] == A.inner)

    shown = [row()[f"ipsecBundle{column}"] for column in ("LocalMaskLen", "RemoteAddress", "RemoteMaskLen")]
    world.check(shown == ["32", B.address, "32"], "of these two addresses", shown)
    world.eventually(lambda: "" if int(row()["ipsecBundleOutPkt"]) > 0 else "no packet", "that carried it")
    told = explained(world.a, [(A.address, B.address, "icmp", 8, 0)])
    world.check("each host that this gateway itself talks to" in told[0], "explain says so", told)
    world.check_private(capture.take())
    capture.close()


@scenario("rules", "start_rules")
def flows_of_a_caller(world: World) -> None:
    """A peer that calls from anywhere has SAs by hosts too; each carries inward what it was negotiated for."""
    configure(world, "ikev1", {"a": "ip", "b": "ip"}, calls=True)
    capture = world.capture()
    reach(world)
    for gateway in (world.a, world.b):
        world.eventually(partial(split_into, gateway, len(HOSTS)), f"{gateway.name}: as many as hosts")
    reach(world)
    world.eventually(lambda: answers(B, A.address), "the called one answers and asks by them")

    def policies(*words: str) -> int:
        return sum(all(word in each for word in words) for each in world.b.policies())

    outward = partial(policies, f"dst {A.address}/32", "dir out")
    world.becomes(outward, len(HOSTS), "with policies of each flow")
    world.becomes(partial(policies, f"src {A.address}/32", "dir fwd"), len(HOSTS), "inward too")
    world.check_private(capture.take())
    capture.close()
