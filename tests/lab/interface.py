"""The boot `interface`: virtual interfaces and the packet filter, on Debian's own kernel in qemu (nightly).

Both gateways have an interface to each other instead of rules; the default rule drops, so what passes was let through
because it goes to the interface, or came out of it.
"""

from __future__ import annotations

import socket
import struct
import subprocess
import threading
import time
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Final

from tests.lab import recipes
from tests.lab.gateway import Gateway
from tests.lab.recipes import Cells
from tests.lab.registry import scenario
from tests.lab.sightings import apply_state, established, lost
from tests.lab.topology import SITES, WAN, Site, batch, inside, ping, run
from tests.lab.wire import plain, summary
from tests.lab.world import SECONDS, World

A, B = SITES["a"], SITES["b"]
PEER: Final = 1
LINK: Final = "ipsec1"
NUMBER: Final = 100_001
ENDS: Final = {"a": "172.16.0.1", "b": "172.16.0.2"}
NET6: Final = {"a": "fd00:1::", "b": "fd00:2::"}
SMALL: Final = 1200  # ikePrfMtuMax
HEADERS: Final = 40  # of IPv4 and TCP


def interface(letter: str, remote: Site) -> Cells:
    """A peer with a virtual interface, its address and the route to the net behind it (guide 3.4)."""
    return {
        f"ipsecPeerVirtualInterface.{PEER}": "enabled",
        f"ipsecPeerTrafficList.{PEER}": 0,
        f"ipsecPeerDescription.{PEER}": f"to {remote.gateway}",
        f"ipsecPeerDynamicAddress.{PEER}": remote.outer,
        f"ipsecPeerPreSharedKey.{PEER}": recipes.KEY,
        "ipsecGwPeerAddressPeer.1": PEER,
        "ipsecGwPeerAddressAddress.1": socket.inet_aton(ENDS[letter]),
        "ipsecGwPeerAddressPrefixLength.1": 30,
        **route(remote),
    }


def route(remote: Site) -> Cells:
    return {
        "ipsecGwPeerRoutePeer.1": PEER,
        "ipsecGwPeerRouteDestination.1": socket.inet_aton(remote.net),
        "ipsecGwPeerRoutePrefixLength.1": 24,
    }


def shows(gateway: Gateway, *words: str) -> str:
    """'' when `ip -d link` of the interface has all the words, else what it says."""
    text = run(gateway.name, ["ip", "-d", "link", "show", LINK], check=False)
    return "" if all(word in text for word in words) else " ".join(text.split())


def lacks(gateway: Gateway, command: list[str], words: str) -> str:
    """'' when the command's output has the words, else the output."""
    text = run(gateway.name, command, check=False)
    return "" if words in text else " ".join(text.split()) or "nothing"


class LinkStates:
    """What `ip monitor link` tells of the interface from now on: a state may be over before somebody asks."""

    def __init__(self, gateway: Gateway) -> None:
        self._process = inside(
            gateway.name,
            lambda: subprocess.Popen(["ip", "monitor", "link", "dev", LINK], stdout=subprocess.PIPE, text=True),
        )
        self._listens(gateway)
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _listens(self, gateway: Gateway) -> None:
        """Wait until it is among those that the kernel tells of links. Raises RuntimeError."""
        table = Path("/proc/thread-self/net/netlink")
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            sockets = (line.split() for line in inside(gateway.name, table.read_text).splitlines()[1:])
            if any(each[2] == str(self._process.pid) and int(each[3], 16) for each in sockets):
                return
            time.sleep(0.1)
        raise RuntimeError("ip monitor does not listen")

    def _read(self) -> None:
        assert self._process.stdout is not None
        self._lines.extend(self._process.stdout)

    def been(self, state: str) -> str:
        """'' once the link has been in this state, else what was told."""
        lines = list(self._lines)
        return "" if any(f"state {state} " in line for line in lines) else " ".join(lines) or "nothing was told"

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._reader.join()


@scenario("interface")
def start_with_interfaces(world: World) -> None:
    """A peer with a virtual interface has a link with number, interface id, MTU, address and route."""
    world.start("ab")
    for letter, gateway, remote in (("a", world.a, B), ("b", world.b, A)):
        gateway.station.set({**recipes.algorithms(), **interface(letter, remote), **recipes.enabled(True)})
    for letter, gateway, remote in (("a", world.a, B), ("b", world.b, A)):
        world.eventually(partial(apply_state, gateway, "Peer", PEER), f"{gateway.name}: the peer is applied", 60)
        world.eventually(
            partial(shows, gateway, f"{NUMBER}: {LINK}", f"if_id {NUMBER:#x}", "mtu 1418", ",UP"),
            "the link is there",
            60,
        )
        addresses = partial(lacks, gateway, ["ip", "addr", "show", LINK], f"{ENDS[letter]}/30")
        world.eventually(addresses, "with its address")
        routes = partial(lacks, gateway, ["ip", "route"], f"{remote.net}/24 dev {LINK} proto 196")
        world.eventually(routes, "and the route behind it")


@scenario("interface", "start_with_interfaces")
def routed(world: World) -> None:
    """What is routed to the interface is encrypted, forwarded or from the gateway itself, and nothing else passes."""
    capture = world.capture()

    world.eventually(partial(lost, A, B.address), "a ping between the hosts passes", 90)
    capture.take()
    world.eventually(partial(lost, A, B.address, 5), "each is answered", 60)
    world.eventually(partial(lost, B, A.address, 5), "the other way too", 60)
    own = ["ping", "-c", "3", "-i", "0.3", ENDS["b"]]
    world.eventually(partial(lacks, world.a, own, " 3 received"), "and from the gateway to the other end", 60)
    world.check_private(capture.take())
    capture.close()
    counters = run(A.gateway, ["ip", "-s", "link", "show", LINK]).split()
    world.check(int(counters[counters.index("RX:") + 7]) > 0, "the link counts", " ".join(counters[-16:]))
    outside = run(A.host, ["ping", "-c", "2", "-W", "1", B.outer], check=False)
    world.check(" 0 received" in outside, "what is not routed to it meets the default rule, which drops")


@scenario("interface", "routed")
def split_by_hosts(world: World) -> None:
    """With granularity ip each pair of hosts has SAs of its own on the interface too."""
    world.carry_out({"ipsecPrfGranularity.1": "ip"}, world.b, world.a, peer=PEER)
    capture = world.capture()

    def both() -> str:
        text = run(A.gateway, ["ping", "-c", "2", "-i", "0.3", ENDS["b"]], check=False)
        return "" if ping(A, B.address, 2)[1] and " 0 received" not in text else "no answer"

    world.eventually(both, "host and gateway reach the other side", 120)
    world.check_private(capture.take())
    capture.close()
    for gateway in (world.a, world.b):
        own = A.address if gateway is world.a else B.address
        wanted = {f"{own}/32", f"{ENDS['a' if gateway is world.a else 'b']}/32"}
        world.becomes(partial(own_selectors, gateway), wanted, f"{gateway.name}: each by SAs of its own")
        world.becomes(partial(reqids, gateway), 2, "with a reqid of its own")
    world.carry_out({"ipsecPrfGranularity.1": "coarse"}, world.b, world.a, peer=PEER)


def own_selectors(gateway: Gateway) -> set[str]:
    return {child["local-ts"] for child in with_selectors(gateway)}


def reqids(gateway: Gateway) -> int:
    """How many there are in the kernel."""
    return len({each.reqid for each in gateway.states()})


@scenario("interface", "routed")
def selectors(world: World) -> None:
    """With a row of ipsecPeerTrafficTable only those nets are negotiated, and only they pass."""
    for gateway, local, remote in ((world.b, B, A), (world.a, A, B)):
        gateway.station.set(
            {
                "ipsecPeerTrafficIfindex.1": NUMBER,
                "ipsecPeerTrafficLocalAddress.1": local.net,
                "ipsecPeerTrafficLocalMask.1": "255.255.255.0",
                "ipsecPeerTrafficRemoteAddress.1": remote.net,
                "ipsecPeerTrafficRemoteMask.1": "255.255.255.0",
                "ipsecPeerTrafficProtocol.1": 256,
                "ipsecPeerTrafficPolicy.1": "both",
            }
        )

    def negotiated() -> str:
        _, got = ping(A, B.address, 3)
        found = {child["name"]: (child["local-ts"], child["remote-ts"]) for child in with_selectors(world.a)}
        wanted = {"peer-1-rule-1": (f"{A.net}/24", f"{B.net}/24")}
        return "" if found == wanted and got else f"{found}, {got} answers"

    world.eventually(negotiated, "the child has the nets of the row, and the ping passes", 90)
    text = run(A.gateway, ["ping", "-c", "2", "-W", "1", ENDS["b"]], check=False)
    world.check(" 0 received" in text, "the ends of the interface are outside of it")
    for gateway in (world.a, world.b):
        gateway.station.set({"ipsecPeerTrafficPolicy.1": "delete"})


@scenario("interface", "selectors")
def led_by_selector(world: World) -> None:
    """With both-syncrt a selector leads to the interface although no route does; without, the default rule drops."""
    for gateway, local, remote in ((world.b, B, A), (world.a, A, B)):
        world.carry_out(
            {
                "ipsecGwPeerRouteRowStatus.1": "destroy",
                "ipsecPeerTrafficIfindex.1": NUMBER,
                "ipsecPeerTrafficLocalAddress.1": local.net,
                "ipsecPeerTrafficLocalMask.1": "255.255.255.0",
                "ipsecPeerTrafficRemoteAddress.1": remote.net,
                "ipsecPeerTrafficRemoteMask.1": "255.255.255.0",
                "ipsecPeerTrafficProtocol.1": 256,
                "ipsecPeerTrafficPolicy.1": "both-syncrt",
            },
            gateway,
            peer=PEER,
        )

    world.eventually(partial(lost, A, B.address), "a ping between the hosts passes", 90)
    route = f"{B.net}/24 dev {LINK}"
    main = partial(run, A.gateway, ["ip", "route"])
    world.eventually(lambda: main() if route in main() else "", "without a route in the main table")
    words = f"from {A.net}/24 to {B.net}/24 lookup {NUMBER} proto 196"
    world.eventually(partial(lacks, world.a, ["ip", "rule"], words), "by a routing rule")
    capture = world.capture()
    world.eventually(partial(lost, A, B.address, 5), "each is answered", 60)
    world.check_private(capture.take())
    capture.close()
    for gateway, remote in ((world.a, B), (world.b, A)):
        gateway.station.set({"ipsecPeerTrafficPolicy.1": "delete", **route(remote)})
        rules = partial(run, gateway.name, ["ip", "rule"])
        world.eventually(lambda rules=rules: rules() if "proto 196" in rules() else "", "the rules go with it", 60)


@scenario("interface", "led_by_selector")
def own_ipv6(world: World) -> None:
    """IPv6 of the gateway itself takes the interface under a default rule that drops, and meets a rule about it."""
    for gateway, local, remote in ((world.b, "b", "a"), (world.a, "a", "b")):
        gateway.station.set(
            {
                f"ipsecPeerIkeVersion.{PEER}": "ikev2",
                "ipsecPeerTrafficIfindex.1": NUMBER,
                "ipsecPeerTrafficLocalAddress.1": "0.0.0.0",
                "ipsecPeerTrafficRemoteAddress.1": "0.0.0.0",
                "ipsecPeerTrafficIp6LocalAddress.1": packed6(NET6[local]),
                "ipsecPeerTrafficIp6LocalMaskLen.1": 64,
                "ipsecPeerTrafficIp6RemoteAddress.1": packed6(NET6[remote]),
                "ipsecPeerTrafficIp6RemoteMaskLen.1": 64,
                "ipsecPeerTrafficProtocol.1": 256,
                "ipsecPeerTrafficPolicy.1": "both",
                "ipsecGwPeerAddressPeer.2": PEER,
                "ipsecGwPeerAddressAddress.2": packed6(f"{NET6[local]}1"),
                "ipsecGwPeerAddressPrefixLength.2": 64,
                "ipsecGwPeerRoutePeer.2": PEER,
                "ipsecGwPeerRouteDestination.2": packed6(NET6[remote]),
                "ipsecGwPeerRoutePrefixLength.2": 64,
            }
        )

    def answers(count: int = 2) -> int:
        text = run(A.gateway, ["ping", "-6", "-c", str(count), "-i", "0.3", "-W", "1", f"{NET6['b']}1"], check=False)
        return next((int(word) for word, what in pairwise(text.split()) if what == "received,"), 0)

    world.eventually(lambda: "" if answers() == 2 else "no answer", "a ping over IPv6 is answered", 90)
    capture = world.capture()
    world.becomes(partial(answers, 5), 5, "from the gateway to the other end", 60)
    world.check_private(capture.take())
    capture.close()
    world.a.station.set(
        {
            "ipsecTrProto.7": "dont-verify",
            "ipsecTrAction.7": "drop",
            "ipsecTrInterface.7": NUMBER,
            "ipsecGwTrLocalAddress6.7": bytes(16),
            "ipsecGwTrRemoteAddress6.7": packed6(NET6["b"]),
            "ipsecGwTrRemotePrefixLength6.7": 64,
            "ipsecGlobContPreIpsecRules.0": 7,
        }
    )
    world.eventually(lambda: "" if not answers(1) else "answered", "a rule about the interface that drops is met", 60)
    world.a.station.set({"ipsecGlobContPreIpsecRules.0": 0, "ipsecTrAction.7": "delete"})
    world.eventually(lambda: "" if answers(1) else "no answer", "and goes", 60)
    for gateway in (world.a, world.b):
        gateway.station.set(
            {
                f"ipsecPeerIkeVersion.{PEER}": "ikev1",
                "ipsecPeerTrafficPolicy.1": "delete",
                "ipsecGwPeerAddressRowStatus.2": "destroy",
                "ipsecGwPeerRouteRowStatus.2": "destroy",
            }
        )


def packed6(text: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6, text)


def with_selectors(gateway: Gateway) -> list[dict[str, str]]:
    """Installed children, with their traffic selectors as text."""
    found = []
    for _, sa in gateway.vici("list_sas"):
        for child in sa.get("child-sas", {}).values():
            if child.get("state") == "INSTALLED":
                found.append({**child, **{side: ",".join(child[side]) for side in ("local-ts", "remote-ts")}})
    return found


@scenario("interface", "own_ipv6")
def standing(world: World) -> None:
    """An always-up peer's interface shows dormant and up (full), or only up and down (reduced)."""
    world.a.station.set({f"ipsecPeerStartMode.{PEER}": "always-up"})
    world.eventually(partial(established, world.a, PEER), "always up: it comes up by itself", 90)
    world.eventually(partial(shows, world.a, "state UP mode DORMANT"), "full: the link is up", 60)
    states = LinkStates(world.a)
    world.b.station.set({f"ipsecPeerAdminStatus.{PEER}": "down"})
    world.eventually(partial(states.been, "DORMANT"), "the far side ends it: dormant, until the next call fails", 60)
    states.close()
    world.a.station.set({f"ipsecPeerIfStateMode.{PEER}": "reduced"})
    world.eventually(partial(shows, world.a, "state DOWN"), "reduced: down", 60)
    world.carry_out({"ipsecGlobContDefaultRule.0": "pass"}, world.a, peer=PEER)
    capture = world.capture()
    world.check(ping(A, B.address, 3)[1] == 0, "nothing passes while it is down")
    packets = capture.take()
    capture.close()
    world.check(not plain(packets), "and nothing leaves in plain by the default route", summary(packets))
    world.a.station.set({"ipsecGlobContDefaultRule.0": "drop"})
    world.b.station.set({f"ipsecPeerAdminStatus.{PEER}": "up"})
    world.eventually(partial(shows, world.a, ",UP,"), "and up again with the tunnel", 90)
    routes = run(A.gateway, ["ip", "route"])
    world.eventually(
        lambda: "" if f"{B.net}/24 dev {LINK}" in run(A.gateway, ["ip", "route"]) else "none", "with its route", 60
    )
    world.note(routes.replace("\n", "; "))


@scenario("interface", "standing")
def segments(world: World) -> None:
    """The segment size of TCP through a list peer's tunnel follows ikePrfMtuMax; the link's MTU did before."""
    for gateway, local, remote in ((world.b, B, A), (world.a, A, B)):
        gateway.station.set({"ipsecGwPeerAddressRowStatus.1": "destroy", "ipsecGwPeerRouteRowStatus.1": "destroy"})
        gateway.station.set(
            {
                **recipes.rule(1, local, remote),
                f"ipsecPeerTrafficList.{PEER}": 1,
                f"ipsecPeerVirtualInterface.{PEER}": "disabled",
                f"ipsecPeerIfStateMode.{PEER}": "full",
                f"ipsecPeerStartMode.{PEER}": "on-demand",
            }
        )
        world.eventually(partial(shows_nothing, gateway), f"{gateway.name}: the link is gone", 60)
    world.eventually(lambda: "" if ping(A, B.address, 3)[1] else "no answer", "the ping passes", 90)
    for mtu, cells in ((1418, {}), (SMALL, {"ikePrfMtuMax.1": SMALL})):
        if cells:
            world.a.station.set(dict(cells))
        world.eventually(partial(too_large, mtu), f"packets of at most {mtu} octets", 60)


def shows_nothing(gateway: Gateway) -> str:
    text = run(gateway.name, ["ip", "link", "show", LINK], check=False)
    return "" if "does not exist" in text else text


def too_large(mtu: int) -> str:
    """'' when both ends of a TCP connection between the hosts have agreed on segments that just fit."""
    try:
        listener = inside(B.host, lambda: socket.create_server((B.address, 7300)))
    except OSError as error:
        return str(error)
    with listener:
        listener.settimeout(5)
        try:
            near = inside(A.host, lambda: socket.create_connection((B.address, 7300), timeout=5))
            far, _ = listener.accept()
        except OSError as error:
            return str(error)
        with near, far:
            sizes = {maximum(each) for each in (near, far)}
    return "" if sizes == {mtu - HEADERS} else f"segments of {sizes}"


def maximum(connection: socket.socket) -> int:
    """Octets of payload and options that a segment may have: what was agreed, and 12 octets of time stamps."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    snd_mss: int = struct.unpack_from("=I", info, 16)[0]
    options = info[5]
    return snd_mss + (12 if options & 1 else 0)


OUTER6: Final = {"a": "fd00:a::", "b": "fd00:b::"}
NEXT_HEADER: Final = 6  # octet of an IPv6 header
HOP_BY_HOP, ICMP6 = 0, 58


@scenario("interface", "segments")
def compressed_over_ipv6(world: World) -> None:
    """A tunnel with compression between IPv6 addresses: no packet leaves it half way, forwarded or made by the gateway.

    IPv6 packets that it makes are asked about twice, for there is a rule about an interface; none is taken out of its
    tunnel by that."""
    for letter, site in (("a", A), ("b", B)):
        net, outer = NET6[letter], OUTER6[letter]
        batch(site.host, f"addr add {net}2/64 dev eth0 nodad", f"route add default via {net}1")
        batch(site.gateway, f"addr add {net}1/64 dev in nodad", f"addr add {outer}1/64 dev out nodad")
        batch(site.gateway, f"route add default via {outer}2")
        batch(WAN, f"addr add {outer}2/64 dev {letter} nodad", f"route add {net}/64 via {outer}1")
    for space in (A.gateway, B.gateway, WAN):
        inside(space, lambda: Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1"))
    for gateway, local, remote in ((world.b, "b", "a"), (world.a, "a", "b")):
        out = inside(gateway.name, lambda: socket.if_nametoindex("out"))
        gateway.station.set(
            {
                f"ipsecPeerDynamicAddress.{PEER}": f"{OUTER6[remote]}1",
                "ipsecPropIpcomp.1": "force",
                "ipsecPropIpcompDeflate.1": 1,
                "ipsecGwTrLocalAddress6.1": packed6(NET6[local]),
                "ipsecGwTrLocalPrefixLength6.1": 64,
                "ipsecGwTrRemoteAddress6.1": packed6(NET6[remote]),
                "ipsecGwTrRemotePrefixLength6.1": 64,
                "ipsecTrProto.7": "udp",
                "ipsecTrAction.7": "drop",
                "ipsecTrInterface.7": out,
                "ipsecTrRemotePort.7": 7777,
                "ipsecGwTrLocalAddress6.7": bytes(16),
                "ipsecGwTrRemoteAddress6.7": bytes(16),
                "ipsecGlobContPreIpsecRules.0": 7,
            }
        )
    table = partial(run, A.gateway, ["nft", "list", "ruleset"])
    world.eventually(lambda: "" if "outbound_own6" in table() else table(), "our table has it ask again", 60)

    def answers(space: str, source: str, size: int) -> int:
        command = ["ping", "-6", "-c", "3", "-i", "0.3", "-W", "1", "-p", "00", "-s", str(size), "-I", source]
        text = run(space, [*command, f"{NET6['b']}2"], check=False)
        return next((int(word) for word, what in pairwise(text.split()) if what == "received,"), 0)

    ways = {"forwarded": (A.host, f"{NET6['a']}2"), "the gateway's own": (A.gateway, f"{NET6['a']}1")}
    world.eventually(
        lambda: "" if answers(*ways["forwarded"], 8) == 3 else run(A.gateway, ["ip", "xfrm", "state"])[-600:],
        "a ping between the hosts passes",
        90,
    )
    for words in ("proto comp", f"dst {OUTER6['b']}1"):
        world.eventually(partial(lacks, world.a, ["ip", "xfrm", "state"], words), "it is compressed, over IPv6")
    for way, whence in ways.items():
        for size in (8, 1000):  # too small to compress, and not
            seen = Sniffer()
            got = answers(*whence, size)
            world.check(got == 3, f"{way}, {size} octets: each is answered", f"{got} of 3")
            heads = seen.headers()
            world.check(50 in heads and heads <= {50, HOP_BY_HOP, ICMP6, 17}, "as ESP only", str(heads))
            world.check(not seen.leaked, "nothing in plain", "; ".join(seen.leaked[:3]))


class Sniffer:
    """What of IPv6 the router of the lab receives, from now on. `leaked`: packets between the inner nets, in plain."""

    def __init__(self) -> None:
        def made() -> socket.socket:
            return socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x86DD))

        self._socket = inside(WAN, made)
        self._socket.setblocking(False)
        self.leaked: list[str] = []

    def headers(self) -> set[int]:
        """The protocols seen, in the outermost header; ends it."""
        found = set[int]()
        with self._socket, suppress(BlockingIOError):
            while True:
                data = self._socket.recv(2048)
                ends = [socket.inet_ntop(socket.AF_INET6, data[at : at + 16]) for at in (8, 24)]
                inner = any(end.startswith((NET6["a"], NET6["b"])) for end in ends)
                neighbour = data[NEXT_HEADER] == ICMP6 and 133 <= data[40] <= 137
                if inner or (data[NEXT_HEADER] == ICMP6 and not neighbour):
                    self.leaked.append(f"{ends[0]} > {ends[1]} next header {data[NEXT_HEADER]}")
                found.add(data[NEXT_HEADER])
        return found


@scenario("interface", "compressed_over_ipv6")
def removed(world: World) -> None:
    """`flush` takes interfaces, routes and the table of the packet filter with it."""
    world.check("ipsec_agent" in run(A.gateway, ["nft", "list", "tables"]), "the table is there")
    world.a.station.set({f"ipsecPeerVirtualInterface.{PEER}": "enabled"})
    world.eventually(partial(shows, world.a, f"{NUMBER}: {LINK}"), "the link is there again", 60)
    world.check(world.a.stop_agent() == 0, "SIGTERM ends the agent")
    world.check(not shows(world.a, f"{NUMBER}: {LINK}"), "the link stays")
    said = world.a.command("flush")
    world.check(not shows_nothing(world.a), f"flush: {said.strip()}", shows_nothing(world.a))
    world.check("ipsec_agent" not in run(A.gateway, ["nft", "list", "tables"]), "the table is gone too")
