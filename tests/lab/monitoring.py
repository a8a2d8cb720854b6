"""The boot of the monitor: tables agree with kernel and charon, a SET ends SAs, times and limits do what they say."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Collection
from functools import partial

from tests.lab import recipes
from tests.lab.gateway import Gateway
from tests.lab.registry import scenario
from tests.lab.sightings import apply_state, bundle_rows, established, ike_rows
from tests.lab.station import Refused
from tests.lab.topology import SITES, WAN, Ping, batch, ping, run
from tests.lab.wire import IKE_PORTS, UDP, Packet
from tests.lab.world import World

A, B, C = SITES["a"], SITES["b"], SITES["c"]
TO_B, TO_C = 1, 2  # peers of gwa, and their rules
UP, DORMANT, BLOCKED, GOING_UP = "1", "5", "6", "36"
ECHO = 84  # octets of ping's packet
BLOCK, BLOCK_LIMIT, LIMIT = 90, 2, 6  # seconds; a block is over only when all has been looked at
SLOW = 30  # seconds that a busy machine may be late
WRONG = "not the secret"
LOGGED = 3  # a logging level at which charon tells of SAs that are established


def status(gateway: Gateway, peer: int) -> str:
    return gateway.station.get(f"ipsecPeerStatOperStatus.{peer}")


def settled(world: World, peer: int = TO_B) -> None:
    """The tunnel stands, brought up by traffic."""
    site = B if peer == TO_B else C

    def missing() -> str:
        return "" if ping(A, site.address, 2)[1] else "no answer"

    world.eventually(missing, f"the tunnel to {site.gateway} stands")
    world.eventually(partial(established, world.a, peer), "and its peer is up")


def ended(world: World) -> None:
    """Nothing stands any more, as operators would have it."""
    for state in (f"ipsecPeerAdminStatus.{peer}" for peer in (TO_B, TO_C)):
        world.a.station.set({state: "down"})
    world.eventually(world.a.states, "no SA is left")
    for gateway in (world.b, world.c):  # told of it by a message each
        world.eventually(gateway.states, f"{gateway.name}: nor there")
    for state in (f"ipsecPeerAdminStatus.{peer}" for peer in (TO_B, TO_C)):
        world.a.station.set({state: "up"})
    for peer in (TO_B, TO_C):
        world.real(world.a, peer)
    world.eventually(partial(apply_state, world.a, "Peer", TO_B), "the peer can be used again")


def ike_packets(packets: list[Packet]) -> list[Packet]:
    return [each for each in packets if each.protocol == UDP and {each.source_port, each.destination_port} <= IKE_PORTS]


@scenario("monitoring")
def start_monitored(world: World) -> None:
    """Three gateways, gwa with a peer for each of the others."""
    world.start("abc")
    world.a.station.set(
        {
            **recipes.algorithms(),
            **recipes.lifetimes(ike=900, ipsec=900, percent=80),
            **recipes.rule(TO_B, A, B),
            **recipes.peer(TO_B, B, TO_B),
            **recipes.rule(TO_C, A, C),
            **recipes.peer(TO_C, C, TO_C),
            **recipes.enabled(True),
        }
    )
    for gateway, site in ((world.b, B), (world.c, C)):
        gateway.station.set(
            {**recipes.algorithms(), **recipes.rule(1, site, A), **recipes.peer(1, A, 1), **recipes.enabled(True)}
        )
    for peer in (TO_B, TO_C):
        world.eventually(partial(apply_state, world.a, "Peer", peer), f"peer {peer} is applied")
    world.eventually(
        lambda: "" if world.a.station.get("ipsecStatsPeersDormant.0") == "2" else "not yet", "two peers are dormant"
    )


@scenario("monitoring", "start_monitored")
def agreement(world: World) -> None:
    """Tables say what `ip -s xfrm state` and charon's list say, and the numbers of the gateway add up."""
    settled(world)
    sent, answered = ping(A, B.address, 10)
    world.check(answered == sent, "ten echoes", f"{answered} of {sent}")

    def sas() -> str:
        kernel = {(each.spi, each.source == A.outer, each.protocol) for each in world.a.states()}
        rows = world.a.station.rows("ipsecSaTable").values()
        protocols = {"50": "esp", "51": "ah", "108": "comp"}
        table = {
            (int(row["ipsecSaSpi"]) & 0xFFFFFFFF, row["ipsecSaDir"] == "2", protocols[row["ipsecSaSecProto"]])
            for row in rows
        }
        return "" if kernel and table == kernel else f"table {table}, kernel {kernel}"

    world.eventually(sas, "ipsecSaTable has the kernel's SAs: SPI, direction, protocol")
    row = next(iter(world.a.station.rows("ipsecSaTable").values()))
    seen = [row[f"ipsecSa{column}"] for column in ("State", "Mode", "EncAlg", "EncKeyLen", "AuthAlg", "AuthKeyLen")]
    world.check(seen == ["5", "1", "7", "32", "7", "32"], "established, tunnel, AES-256, SHA-256", seen)
    told = world.a.negotiated()[0]
    ike = ike_rows(world.a, TO_B)[0]
    cookies = re.sub(r"[^0-9A-Fa-f]", "", ike["ikeSaCookieI"] + ike["ikeSaCookieR"]).lower()
    world.check(
        cookies == told["ike-initiator-spi"] + told["ike-responder-spi"], "ikeSaTable has charon's cookies", ike
    )
    world.check(
        (ike["ikeSaLocalId"], ike["ikeSaRemoteId"]) == (told["ike-local-id"], told["ike-remote-id"]),
        "and its identities",
    )
    octets = int(ike["ikeSaBytes"])  # some 2,250, and each message again that is answered late
    world.check(1000 < octets < 10_000, "octets of the negotiation were counted", octets)
    selectors = list(world.a.station.rows("ipsecTrafficSelectorTable").values())
    nets = [(each["ipsecTrafficSelectorLocalAddress"], each["ipsecTrafficSelectorRemoteAddress"]) for each in selectors]
    world.check(nets == [(A.net, B.net)], "ipsecTrafficSelectorTable has the nets", nets)

    def counters() -> str:
        out = sum(each.packets for each in world.a.states() if each.source == A.outer)
        peer = world.a.station.number(f"ipsecGwPeerOutPkt.{TO_B}")
        octets = world.a.station.number(f"ipsecGwPeerOutBytesNetto.{TO_B}")
        total = world.a.station.number("ipsecStatsOutEncaps.0")
        fits = out == peer == total and octets == out * ECHO
        return "" if fits else f"kernel {out}, peer {peer} ({octets} octets), ipsecStatsOutEncaps {total}"

    world.eventually(counters, "kernel, ipsecGwPeerCountersTable and ipsecStats count the same packets")

    def sums() -> str:
        """A walk takes several requests, and the numbers are drawn in between."""
        stats = stats_of(world.a)
        wrong = []
        for way, protected in (("In", "InDecaps"), ("Out", "OutEncaps")):
            parts = [stats[f"{way}{part}"] for part in ("Pass", "Drop", "Errors")] + [stats[protected]]
            if stats[f"{way}Pkt"] != sum(parts):
                wrong.append(f"{way}: {stats[f'{way}Pkt']}, parts {parts}")
        return "; ".join(wrong)

    world.eventually(sums, "In, Out: total = passed + dropped + errors + protected")
    stats = stats_of(world.a)
    wide = world.a.station.number("ipsecGwStats64OutEncaps.0")
    world.check(wide >= stats["OutEncaps"] > 0, "and the 64-bit twin goes along", wide)
    names = ("PeersUp", "CurrentIkeSasEstablished", "CurrentBundles", "CurrentIpsecSas")
    world.becomes(
        lambda: [stats_of(world.a)[name] for name in names],
        [1, 1, 1, 2],
        "one peer up, one IKE SA, one bundle, two SAs",
    )

    def counted() -> str:
        stats = stats_of(world.a)
        return "" if stats["Trig"] >= 1 and stats["IkeNumP1"] >= 1 else str(stats)

    world.eventually(counted, "a packet set off a negotiation")


def stats_of(gateway: Gateway) -> dict[str, int]:
    """The numbers of ipsecStats by what they are called behind that."""
    numbers = {name: value for name, value in gateway.station.walk("ipsecStats").items() if value.isdigit()}
    return {name.removeprefix("ipsecStats").removesuffix(".0"): int(value) for name, value in numbers.items()}


@scenario("monitoring", "start_monitored")
def delete_bundle(world: World) -> None:
    """delete ends the SAs of a bundle and nothing else; no other value is taken; the next packet starts anew."""
    settled(world)
    number = next(row for row in world.a.station.rows("ipsecBundleTable"))
    spis = {each.spi for each in world.a.states()}
    try:
        world.a.station.set({f"ipsecBundleState.{number}": "established"})
    except Refused as refused:
        world.check(
            "inconsistentValue" in str(refused), "a state cannot be set: inconsistentValue", str(refused)[-160:]
        )
    else:
        world.check(False, "a state cannot be set")
    world.a.station.set({f"ipsecBundleState.{number}": "delete"})
    world.eventually(lambda: spis & {each.spi for each in world.a.states()}, "its SAs are gone")
    world.eventually(lambda: bundle_rows(world.a, TO_B), "and its row")
    world.check(len(ike_rows(world.a, TO_B)) == 1, "the IKE SA stands", ike_rows(world.a, TO_B))
    settled(world)


@scenario("monitoring", "start_monitored")
def delete_sa(world: World) -> None:
    """delete ends an IKE SA with what was negotiated under it, on both sides."""
    settled(world)
    row = ike_rows(world.a, TO_B)[0]
    world.a.station.set({f"ikeSaState.{row['ikeSaIndex']}": "delete"})
    for gateway in (world.a, world.b):
        world.eventually(gateway.states, f"{gateway.name}: no SA is left")
        world.eventually(partial(gateway.vici, "list_sas"), f"{gateway.name}: charon lists none")
    world.eventually(lambda: "" if status(world.a, TO_B) == DORMANT else status(world.a, TO_B), "the peer is dormant")
    settled(world)


def cookies_of(world: World) -> set[str]:
    """Of established IKE SAs; a row may be half walked when it goes."""
    return {row["ikeSaCookieI"] for row in ike_rows(world.a, TO_B) if "ikeSaCookieI" in row}


def renewals(world: World, begin: Callable[[], None], seconds: float) -> tuple[set[str], set[str], int, int]:
    """Cookies and bundle rows seen under a ping, and its packets sent and answered: in some seconds, and until there
    is a second cookie."""
    running = Ping(A, B.address, interval=0.1)
    cookies, bundles = cookies_of(world), set[str]()
    begin()
    begun = time.monotonic()
    while (spent := time.monotonic() - begun) < seconds or (len(cookies) < 2 and spent < SLOW):
        cookies |= cookies_of(world)
        bundles |= {row["ipsecBundleIndex"] for row in bundle_rows(world.a, TO_B) if "ipsecBundleIndex" in row}
        time.sleep(0.3)
    return cookies, bundles, *running.stop()


@scenario("monitoring", "start_monitored")
def fresh_identity(world: World) -> None:
    """With identity PFS phase 1 is renewed after phase 2, so many seconds later, and no packet is lost."""
    settled(world)
    world.a.station.set({"ikePrfPfsIdentity.1": "true", "ipsecGlobContPfsIdentityDelay.0": 3})
    before = cookies_of(world)
    number = next(row for row in world.a.station.rows("ipsecBundleTable"))
    world.a.station.set({f"ipsecBundleState.{number}": "delete"})
    world.eventually(lambda: number in world.a.station.rows("ipsecBundleTable"), "the bundle is gone")
    world.eventually(lambda: "" if ping(A, B.address, 2)[1] == 2 else "no answer", "there is a new phase 2")
    cookies, _, sent, answered = renewals(world, lambda: None, 5)
    world.check(len(before | cookies) == 2, "which was followed by a new phase 1", f"{before}, {cookies}")
    world.check(answered >= sent - 1, "the ping went on", f"{answered} of {sent}")
    world.a.station.set({"ikePrfPfsIdentity.1": "default"})
    world.eventually(partial(established, world.a, TO_B), "the peer stays up")


@scenario("monitoring", "start_monitored")
def kilobytes_of_phase_1(world: World) -> None:
    """Phase 1 is renewed after so many kilobytes of its own messages, and the bundle goes on in its row."""
    ended(world)
    settled(world)
    before = int(ike_rows(world.a, TO_B)[0]["ikeSaBytes"])
    limit = before // 1000
    cookies, bundles, sent, answered = renewals(world, lambda: world.a.station.set({"ikePrfLifeKBytes.1": limit}), 4)
    world.check(len(cookies) >= 2, f"after {limit} kB there is a new phase 1", f"{cookies}, it had {before} octets")
    world.check(len(bundles) == 1, "the bundle is the same", bundles)
    world.check(answered >= sent - 1, "hardly a packet lost", f"{answered} of {sent}")
    world.a.station.set({"ikePrfLifeKBytes.1": 0})


@scenario("monitoring", "start_monitored")
def most_ike_sas(world: World) -> None:
    """With room for one IKE SA one is ended when a second comes."""

    def left() -> set[int]:
        return {peer for peer in (TO_B, TO_C) if ike_rows(world.a, peer)}

    settled(world)
    world.a.station.set({"ipsecGlobMaxIkeSas.0": 1})
    ping(A, C.address, 4)

    def one_ended() -> str:
        """Before the second came there was one too, and nobody's row said why."""
        # Which of them expires first is chance: lives are spread, so that renewals do not come together.
        if len(left()) != 1:
            return f"tunnels to peers {left()}"
        gone = ({TO_B, TO_C} - left()).pop()
        error = world.a.station.get(f"ipsecGwPeerLastError.{gone}")
        return "" if "ipsecGlobMaxIkeSas" in error else f"of peer {gone} is said: {error}"

    world.eventually(one_ended, "one tunnel is left, and the row of the peer whose SA ended says why")
    world.becomes(lambda: world.a.station.get("ipsecStatsCurrentIkeSas.0"), "1", "one IKE SA is left")
    world.eventually(lambda: "" if len(left()) == 1 else left(), "and one tunnel")
    world.a.station.set({"ipsecGlobMaxIkeSas.0": 512})


@scenario("monitoring", "start_monitored")
def link_down(world: World) -> None:
    """With the link its SAs end where that is wanted, and only there."""
    settled(world)
    batch(WAN, "link set dev a down")
    time.sleep(1)
    world.check(bool(world.a.states()), "without it the SAs stay", world.a.states())
    world.a.station.set({"ipsecGlobContSaSyncInterface.0": "true"})
    batch(WAN, "link set dev a up", f"route replace {A.net}/24 via {A.outer}")
    # The kernel tells of a link that is up again up to a second later, and of one that went down meanwhile not at all.
    shown = partial(run, A.gateway, ["ip", "link", "show", "out"])
    world.eventually(lambda: "" if "state UP" in shown() else shown(), "the link is up again")
    settled(world)
    batch(WAN, "link set dev a down")
    begun = time.monotonic()
    world.eventually(world.a.states, "with it they are gone")
    world.note(f"after {time.monotonic() - begun:.1f} s")
    batch(WAN, "link set dev a up", f"route replace {A.net}/24 via {A.outer}")
    world.a.station.set({"ipsecGlobContSaSyncInterface.0": "false"})
    world.b.station.set({"ipsecPeerAdminStatus.1": "down"})  # it was told of no end
    world.eventually(world.b.states, f"{world.b.name}: no SA is left")
    world.b.station.set({"ipsecPeerAdminStatus.1": "up"})
    world.real(world.b)
    settled(world)


@scenario("monitoring", "start_monitored")
def block_time(world: World) -> None:
    """After a wrong key the peer is blocked, the time left counts down, and meanwhile no IKE packet leaves."""
    ended(world)
    world.carry_out({"ipsecPeerPreSharedKey.1": WRONG}, world.b)
    world.a.station.set({"ikePrfBlockTime.1": BLOCK, "ipsecGlobBlockTimeout.0": BLOCK_LIMIT})
    begun = time.monotonic()
    ping(A, B.address, 2)
    world.becomes(partial(status, world.a, TO_B), BLOCKED, "the peer is blocked")
    took = time.monotonic() - begun
    world.check(took >= BLOCK_LIMIT, "not before ipsecGlobBlockTimeout", f"{took:.1f} s")
    left = world.a.station.number(f"ipsecPeerStatTtl.{TO_B}")
    world.eventually(partial(unsaid, world.a, TO_B, "keys", "ipsecGlobBlockTimeout"), "the row says why")
    world.eventually(partial(world.a.vici, "list_sas"), "charon lists nothing")
    capture = world.capture()
    ping(A, B.address, 6, interval=0.4)
    packets = [each for each in ike_packets(capture.take()) if each.source == A.outer]
    capture.close()
    world.check(not packets, "no IKE packet leaves", packets)

    def counting() -> str:
        after = world.a.station.number(f"ipsecPeerStatTtl.{TO_B}")
        return "" if left > after > 0 else f"{left} s, then {after} s"

    world.eventually(counting, "the time left counts down")
    world.check(status(world.a, TO_B) == BLOCKED, "it was blocked all the time")
    world.carry_out({"ipsecPeerPreSharedKey.1": recipes.KEY}, world.b)
    world.eventually(lambda: "" if ping(B, A.address, 6, interval=0.5)[1] else "no answer", "it calls")
    world.eventually(partial(established, world.a, TO_B), "a blocked peer that calls is answered")
    world.a.station.set({"ikePrfBlockTime.1": 0})


def unsaid(gateway: Gateway, peer: int, *words: str) -> str:
    """'' once the peer's last error has all the words."""
    error = gateway.station.get(f"ipsecGwPeerLastError.{peer}")
    return "" if all(word in error for word in words) else error or "nothing"


@scenario("monitoring", "start_monitored")
def negotiation_timeout(world: World) -> None:
    """A far end that keeps silent is given up after the time set, and charon has nothing left of it."""
    ended(world)
    world.a.station.set({"ipsecGlobMaxNegotiationTimeoutsec.0": LIMIT})
    for process in world.b.charons():
        os.kill(process, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        ping(A, B.address, 1)
        world.eventually(
            lambda: "" if status(world.a, TO_B) == GOING_UP else "not yet", "the peer is going up", pause=0.1
        )
        world.eventually(
            lambda: "" if status(world.a, TO_B) == DORMANT else "still going up", "it is given up", LIMIT + SLOW
        )
        took = time.monotonic() - begun
        world.check(LIMIT <= took < LIMIT + SLOW, f"after {LIMIT} s", f"{took:.1f} s")
        world.eventually(lambda: world.a.vici("list_sas"), "charon lists nothing")
        why = partial(unsaid, world.a, TO_B, "no answer", "ipsecGlobMaxNegotiationTimeoutsec")
        world.eventually(why, "the row says why")
    finally:
        for process in world.b.charons():
            os.kill(process, signal.SIGCONT)
        world.a.station.set({"ipsecGlobMaxNegotiationTimeoutsec.0": 300})
    settled(world)


@scenario("monitoring", "start_monitored")
def trusted_icmp(world: World) -> None:
    """Where ICMP is trusted a closed IKE port ends a negotiation at once, else only the repetitions do."""
    ended(world)
    world.b.station.set({"ipsecGlobContDefaultRule.0": "pass"})  # else its kernel keeps the ICMP to itself
    everything = "src 0.0.0.0/0 dst 0.0.0.0/0"
    world.eventually(
        lambda: [each for each in world.b.policies() if each.startswith(everything) and "action block" in each],
        "gwb lets pass what no rule is about",
    )
    agent = world.b.agent
    assert agent is not None
    os.kill(agent.pid, signal.SIGSTOP)  # else it starts charon again at once
    try:
        world.b.kill_charon()
        world.eventually(world.b.charons, "gwb has no charon, and its port is closed")
        world.a.station.set({"ipsecGlobTrustIcmpMsg.0": "true"})
        begun = time.monotonic()
        calling = Ping(A, B.address, interval=0.5)  # the kernel asks for an SA once in five seconds

        reason = partial(unsaid, world.a, TO_B, "ipsecGlobTrustIcmpMsg")
        world.eventually(reason, "with trust it is over at once, and the row says why")
        calling.stop()
        world.note(f"after {time.monotonic() - begun:.1f} s: {world.a.station.get(f'ipsecGwPeerLastError.{TO_B}')}")
        world.a.station.set({"ipsecGlobTrustIcmpMsg.0": "false"})
        calling = Ping(A, B.address, interval=0.5)

        def goes_on() -> str:
            """One negotiation, begun anew or not long before: the last one that was cut short may still be shown."""
            first = tried(world)
            time.sleep(1.5)
            stays, now = first & tried(world), status(world.a, TO_B)
            return "" if stays and now == GOING_UP else f"{first}, then {stays or 'none of them'}; status {now}"

        world.eventually(goes_on, "without trust it goes on trying")
        calling.stop()
    finally:
        os.kill(agent.pid, signal.SIGCONT)
    world.b.station.set({"ipsecGlobContDefaultRule.0": "drop"})
    settled(world)


def tried(world: World) -> set[str]:
    """Initiator's cookies of what charon is negotiating at gwa."""
    return {sa["initiator-spi"] for _, sa in world.a.vici("list_sas") if sa["state"] == "CONNECTING"}


@scenario("monitoring", "start_monitored")
def phase_1_first(world: World) -> None:
    """With ipsecGlobContP1Always each renewal of phase 2 has a fresh phase 1 before it."""
    ended(world)
    world.carry_out(
        {
            "ipsecGlobContP1Always.0": "enabled",
            **recipes.lifetimes(ike=900, ipsec=14, percent=50),
            "ipsecPrfKeepAlive.1": "true",  # else it lapses in time for nobody to see that it is not renewed
            "ipsecGlobContIkeLoggingLevel.0": LOGGED,
        },
        world.a,
        peer=TO_B,
    )
    settled(world)
    first = {each.spi for each in world.a.states()}
    cookie = cookies_of(world)
    world.eventually(lambda: "" if cookies_of(world) - cookie else "not yet", "a new phase 1", 14 + SLOW)

    def renewed() -> str:
        now = {each.spi for each in world.a.states()}
        return "" if now and not now & first else f"{now}, first {first}"

    world.eventually(renewed, "and a new phase 2", 14 + SLOW)
    world.eventually(partial(next_established, world.a, first), "the new phase 1 came first")
    cells = {**recipes.lifetimes(ike=900, ipsec=900, percent=80), "ipsecPrfKeepAlive.1": "default"}
    world.carry_out({**cells, "ipsecGlobContP1Always.0": "disabled"}, world.a, peer=TO_B)


def next_established(gateway: Gateway, spis: Collection[int]) -> str:
    """'' when charon's log has an IKE SA between the child of these SPIs and the next child, else what it has: the
    order is not lost where somebody looks too late."""
    log = next(gateway.folder.rglob("charon.log")).read_text(errors="replace")
    told = re.findall(r"(IKE|CHILD)_SA \S+ established (.*)", log)
    ours = [at for at, (_, text) in enumerate(told) if any(f"{spi:08x}_" in text for spi in spis)]
    later = told[ours[-1] + 1 :] if ours else []
    between = [kind for kind, _ in later]
    if "CHILD" not in between:
        return f"{len(ours)} of these, then {between}"
    return "" if "IKE" in between[: between.index("CHILD")] else f"{later}"


@scenario("monitoring", "start_monitored")
def version_2(world: World) -> None:
    """IKEv2 has a table of its own with charon's SPIs, delete ends its SA, and a wrong key blocks at once."""
    for gateway, peer in ((world.a, TO_C), (world.c, 1)):
        gateway.station.set({f"ipsecPeerIkeVersion.{peer}": "ikev2"})
    profile = {"ikev2PrfIndex.1": 1, "ikev2PrfBlockTime.1": BLOCK, "ipsecGlobContIkev2Profile.0": 1}
    world.a.station.set({**profile})
    for gateway, peer in ((world.a, TO_C), (world.c, 1)):
        world.eventually(partial(apply_state, gateway, "Peer", peer), f"{gateway.name}: the peer is applied")
    world.eventually(lambda: "" if ping(A, C.address, 2)[1] else "no answer", "the tunnel stands")

    def row() -> str:
        rows = list(world.a.station.rows("ikev2SaTable").values())
        told = [each for each in world.a.negotiated() if each["ike-version"] == "2"]
        if not rows or not told:
            return f"{len(rows)} rows, charon has {len(told)}"
        shown = re.sub(r"[^0-9A-Fa-f]", "", rows[0]["ikev2SaSpiI"] + rows[0]["ikev2SaSpiR"]).lower()
        return "" if shown == told[0]["ike-initiator-spi"] + told[0]["ike-responder-spi"] else f"{rows}, {told}"

    world.eventually(row, "ikev2SaTable has charon's SPIs")
    number = next(iter(world.a.station.rows("ikev2SaTable")))
    world.a.station.set({f"ikev2SaState.{number}": "delete"})
    for gateway, site in ((world.a, C), (world.c, A)):
        gone = partial(gateway.connected, site)
        world.eventually(lambda gone=gone: "still there" if gone() else "", f"{gateway.name}: delete ends the SA")
    world.eventually(lambda: world.a.station.rows("ikev2SaTable"), "and its row goes")
    world.carry_out({"ipsecPeerPreSharedKey.1": WRONG}, world.c)
    ping(A, C.address, 2)
    world.becomes(partial(status, world.a, TO_C), BLOCKED, "the peer is blocked")
    left = world.a.station.number(f"ipsecPeerStatTtl.{TO_C}")
    world.check(BLOCK - 2 * SLOW < left <= BLOCK, "for the time set", left)
    world.eventually(partial(unsaid, world.a, TO_C, "refused our authentication"), "and the row says why")
