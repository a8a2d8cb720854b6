"""The boot `certificates`: RSA signatures with authorities made on the spot, identities, settings of the IKE daemon.

Every certificate comes in by snmpset, as a document and an import job. gwa is certified by an intermediate authority
below the root, gwb by the root itself. What a setting does is asked for in the next negotiation, and what may not be
must not come up.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path

from tests.authority import new_key, root, self_signed
from tests.lab import recipes
from tests.lab.gateway import Gateway
from tests.lab.recipes import Cells
from tests.lab.registry import scenario
from tests.lab.sightings import apply_state, ike_rows
from tests.lab.station import Refused
from tests.lab.topology import SITES, Ping, Site, inside, ping, run
from tests.lab.wire import plain, summary
from tests.lab.world import World

A, B = SITES["a"], SITES["b"]
PEER = 1
PASSWORD = "sealed for the way"
NAME_A, NAME_B = "gwa.example.org", "gwb.example.org"
DEAD = "198.51.100.2"  # the router's own address: nobody answers IKE there
UP_SECONDS = 60
ALONE_SECONDS = 3
AGGRESSIVE = "4"  # an ikeSaXchType
COUNTED_SECONDS = 60

# rows of certTable: the same at both gateways where both have them
OWN, MIDDLE, ROOT, FOREIGN, SECOND = 1, 2, 3, 4, 5


class Authorities:
    """Made once; one key serves several holders, because making one takes the guest a second."""

    def __init__(self) -> None:
        self.root = root("Root")
        self.foreign = root("Foreign root")
        self.middle = self.root.issue("Middle", authority=True)
        key = new_key()
        self.a = self.middle.issue("gwa", names=[NAME_A], key=key)
        self.a_second = self.middle.issue("gwa two", names=["192.0.2.1"], key=key)
        self.b = self.root.issue("gwb", names=[NAME_B])
        self.b_foreign = self.foreign.issue("gwb", names=[NAME_B], key=self.b.key)
        self.b_alone = self_signed("gwb alone", [NAME_B])


made: list[Authorities] = []


def take(world: World, gateway: Gateway, number: int, octets: bytes, kind: str, **more: str) -> None:
    said = gateway.station.import_file(number, octets, Kind=kind, **more)
    world.check(
        not said,
        f"{gateway.name}: import {number}, {kind}",
        said or gateway.station.get(f"ipsecGwImportMessage.{number}"),
    )


def both(world: World, cells: Cells) -> None:
    for gateway in (world.b, world.a):
        gateway.station.set(cells)


def unlike(gateway: Gateway, wanted: Mapping[str, str]) -> str:
    """'' when there are children and each shows these fields, else what there is."""
    seen = [{name: child.get(name, "none") for name in wanted} for child in gateway.negotiated()]
    return "" if seen and all(each == wanted for each in seen) else str(seen or "no child")


def comes_up(world: World, what: str, *, at: Gateway | None = None, **wanted: str) -> None:
    """A tunnel comes up that shows these fields at gwa, or `at`, and carries a ping. gwa's host calls; after a while
    the other one too, since an attempt of the time before may still be under way at gwa."""
    gateway = at or world.a
    fields = {name.replace("_", "-"): value for name, value in wanted.items()}
    callers = [(A, B.address), (B, A.address)]
    if gateway is world.b:
        callers.reverse()
    begun = time.monotonic()
    running = [Ping(callers[0][0], callers[0][1], interval=0.1)]
    while missing := unlike(gateway, fields):
        seconds = time.monotonic() - begun
        if seconds > UP_SECONDS:
            break
        if seconds > ALONE_SECONDS and len(running) == 1:
            running.append(Ping(callers[1][0], callers[1][1], interval=0.1))
        time.sleep(0.1)
    time.sleep(0.2)
    answered = sum(each.stop()[1] for each in running)
    while not missing and not answered:  # the far end may be a moment behind
        answered = ping(*callers[0])[1]
        if time.monotonic() - begun > UP_SECONDS:
            missing = "" if answered else "no answer"
            break
    world.check(not missing, what, f"{missing}; {apply_state(gateway, 'Peer', PEER)}" if missing else "")


def forget_acquires(world: World) -> None:
    """What the kernel has asked for it does not ask for again within 5 s; without any SA it can be made to."""
    for gateway in (world.a, world.b):
        run(gateway.name, ["ip", "xfrm", "state", "flush"])


def stays_down(world: World, what: str, log: str = "") -> None:
    """No tunnel, whoever calls, and nothing in plain; `log`: words in the log of one of the agents."""
    world.eventually(lambda: [*world.a.states(), *world.b.states()], f"{what}: the tunnel ends", 30, 0.1)
    forget_acquires(world)
    capture = world.capture()
    calling = [Ping(A, B.address, count=2, interval=0.2), Ping(B, A.address, count=2, interval=0.2)]
    answered = sum(each.wait()[1] for each in calling)
    packets = capture.take()
    capture.close()
    world.check(not answered and not world.a.negotiated(), f"{what}: it does not come up", world.a.negotiated())
    world.check(not plain(packets), f"{what}: nothing in plain", summary(plain(packets)))
    if log:
        world.eventually(lambda: "" if any(log in text for text in logs(world)) else log, f"{what}: the reason is told")
    forget_acquires(world)


def logs(world: World) -> list[str]:
    """The logs of both agents; charon's file is read into them twice a second."""
    return [(gateway.folder / "agent.log").read_text(errors="replace") for gateway in (world.a, world.b)]


def anew(world: World, gateway: Gateway) -> None:
    """Ends what is up or under way with the peer: an agent that had no time between down and up would leave it."""
    gateway.station.set({f"ipsecPeerAdminStatus.{PEER}": "down"})
    world.eventually(partial(gateway.connections_of, PEER), f"{gateway.name}: the peer is down", pause=0.1)
    gateway.station.set({f"ipsecPeerAdminStatus.{PEER}": "up"})


@scenario("certificates")
def start_certificates(world: World) -> None:
    """Authorities are made; own certificates with their keys and the root come in by snmpset."""
    begun = time.monotonic()
    made.append(Authorities())
    world.note(f"authorities made in {time.monotonic() - begun:.1f} s")
    world.start("ab")
    who = made[0]
    a, b = world.a, world.b
    take(world, a, 1, who.a.pkcs12(PASSWORD.encode(), [who.middle.certificate]), "own-certificate", Password=PASSWORD)
    take(world, a, 2, who.root.pem, "ca-certificate", Name="the root")
    take(world, b, 1, who.b.key_pem(b"pw") + who.b.pem, "own-certificate", Password="pw")
    take(world, b, 2, who.root.der, "ca-certificate", Coding="binary")
    rows = a.station.rows("certTable")
    shown = {number: (row["certSubjectName"], row["certPrivateKey"], row["certIsCA"]) for number, row in rows.items()}
    wanted = {
        OWN: ("CN=gwa, O=Example, C=DE", "1", "2"),
        MIDDLE: ("CN=Middle, O=Example, C=DE", "0", "2"),
        ROOT: ("CN=Root, O=Example, C=DE", "0", "1"),
    }
    world.check(shown == wanted, "subject, key and trust of each are shown", shown)
    said = a.station.import_file(9, who.b.pem + who.a.key_pem(), Kind="own-certificate")
    world.check("belongs to its private key" in said, "a certificate with another's key is refused", said)
    secret = str(who.a.key.private_numbers().d)
    world.check(not a.mentions(secret), "the private key is in no file", a.mentions(secret))
    for gateway, local, remote in ((a, A, B), (b, B, A)):
        gateway.station.set(
            {
                **recipes.algorithms(),
                **recipes.rule(1, local, remote),
                f"ipsecPeerTrafficList.{PEER}": 1,
                f"ipsecPeerDynamicAddress.{PEER}": remote.outer,
                f"ipsecPeerPeerIds.{PEER}": NAME_B if local is A else NAME_A,
                "ikePrfAuthMethod.1": "rsa-sig",
                **recipes.enabled(True),
            }
        )
        gateway.station.set({"ipsecGlobContIkeLoggingLevel.0": 1})
    for gateway in (a, b):
        world.eventually(partial(apply_state, gateway, "Peer", PEER), f"{gateway.name}: the peer is applied", pause=0.1)


@scenario("certificates", "start_certificates")
def rsa_chain(world: World) -> None:
    """gwb knows the root only: without gwa's intermediate authority, which it has never seen, it believes nothing."""
    world.a.station.set({"ipsecGlobSendFullCertChains.0": "false"})
    stays_down(world, "the intermediate is not sent", "no issuer certificate found for")
    world.a.station.set({"ipsecGlobSendFullCertChains.0": "true"})
    anew(world, world.a)
    comes_up(world, "it is sent", ike_local_id=NAME_A)


@scenario("certificates", "rsa_chain")
def rsa_signatures(world: World) -> None:
    """IKEv1 in both modes; by default the first alternative name is who we are, and ikePrfCert chooses another."""
    comes_up(world, "main mode", ike_version="1", ike_local_id=NAME_A, ike_remote_id=NAME_B)
    both(world, {"ikePrfMode.1": "aggressive"})
    anew(world, world.a)  # the tunnel of main mode looks the same
    comes_up(world, "aggressive mode", ike_version="1", ike_local_id=NAME_A, ike_remote_id=NAME_B)
    world.becomes(
        lambda: {row.get("ikeSaXchType") for row in ike_rows(world.a, PEER)}, {AGGRESSIVE}, "by the tables too"
    )
    both(world, {"ikePrfMode.1": "id-protect"})
    take(world, world.a, 3, made[0].foreign.pem, "ca-certificate")
    take(world, world.a, 4, made[0].a_second.pem, "own-certificate")
    try:
        world.a.station.set({"ikePrfCert.1": FOREIGN})
        text = ""
    except Refused as refused:
        text = str(refused)
    world.check("ikePrfCert" in text and "no private key" in text, "a certificate without a key is refused", text)
    world.b.station.set({f"ipsecPeerPeerIds.{PEER}": "|192.0.2.1|"})
    world.a.station.set({"ikePrfCert.1": SECOND})
    comes_up(world, "the other certificate, with its address", ike_local_id="192.0.2.1", ike_remote_id=NAME_B)
    world.a.station.set({"ikePrfLocalId.1": "<C=DE, O=Example, CN=gwa two>"})
    world.b.station.set({f"ipsecPeerPeerIds.{PEER}": "<CN=gwa two, O=Example, C=DE>"})
    comes_up(world, "its subject, written either way round", ike_local_id="C=DE, O=Example, CN=gwa two")
    world.a.station.set({"ikePrfLocalId.1": "", "ikePrfCert.1": 0})
    world.b.station.set({f"ipsecPeerPeerIds.{PEER}": NAME_A})
    try:
        world.a.station.set({"ikePrfCert.1": OWN})
        world.a.station.set({f"ipsecGwCertificateRowStatus.{OWN}": "destroy"})
        text = ""
    except Refused as refused:
        text = str(refused)
    world.check("in use by ikePrfCert.1" in text, "a certificate in use stays", text or "removed")
    world.a.station.set({"ikePrfCert.1": 0})


@scenario("certificates", "rsa_signatures")
def rsa_ikev2(world: World) -> None:
    """IKEv2 with the columns of the peer's own row: method, certificate, authorities, local identity."""
    cells: Cells = {f"ipsecPeerIkeVersion.{PEER}": "ikev2", f"ipsecPeerAuthMethod.{PEER}": "rsa-sig"}
    both(world, cells)
    comes_up(world, "as configured", ike_version="2", ike_local_id=NAME_A, ike_remote_id=NAME_B)
    world.a.station.set({f"ipsecPeerCert.{PEER}": SECOND, f"ipsecPeerLocalId.{PEER}": "192.0.2.1"})
    world.b.station.set({f"ipsecPeerPeerIds.{PEER}": "192.0.2.1", f"ipsecPeerCaCerts.{PEER}": "2"})
    comes_up(world, "another certificate and identity", ike_version="2", ike_local_id="192.0.2.1")
    world.a.station.set({f"ipsecPeerCert.{PEER}": 0, f"ipsecPeerLocalId.{PEER}": ""})
    world.b.station.set({f"ipsecPeerPeerIds.{PEER}": NAME_A, f"ipsecPeerCaCerts.{PEER}": ""})


@scenario("certificates", "rsa_ikev2")
def rsa_foreign_ca(world: World) -> None:
    """Who is certified by another authority than those listed or trusted is refused, until it is."""
    world.a.station.set({f"ipsecPeerCaCerts.{PEER}": str(FOREIGN)})
    stays_down(world, "another authority in the list", "of none of the authorities")
    world.a.station.set({f"ipsecPeerCaCerts.{PEER}": f"{FOREIGN}, {ROOT}"})
    comes_up(world, "with both in the list", ike_remote_id=NAME_B)
    world.a.station.set({f"ipsecPeerCaCerts.{PEER}": ""})
    world.a.station.set({f"certIsCA.{ROOT}": "false"})
    anew(world, world.a)
    stays_down(world, "the root is trusted no more", "no trusted authority has certified")
    world.a.station.set({f"certIsCA.{ROOT}": "true"})
    comes_up(world, "it is again", ike_remote_id=NAME_B)


def only(gateway: Gateway, before: set[int]) -> str:
    """'' when the gateway has a charon, and none of these processes."""
    now = gateway.charons()
    return "" if now and before.isdisjoint(now) else f"processes {now}, before {before}"


@scenario("certificates", "rsa_ikev2")
def rsa_requests(world: World) -> None:
    """Whoever does not ask for a certificate gets none, unless the other side sends it unasked."""
    world.a.station.set({"ipsecGlobNoCrPayloads.0": "true"})
    for gateway in (world.a, world.b):  # what they have seen of each other they would remember
        before = set(gateway.charons())
        gateway.kill_charon()
        gateway.station.set({f"ipsecPeerAdminStatus.{PEER}": "down"})
        world.eventually(partial(only, gateway, before), f"{gateway.name}: another charon")
        world.eventually(partial(gateway.connections_of, PEER), f"{gateway.name}: the peer is down", pause=0.1)
    for gateway in (world.a, world.b):
        gateway.station.set({f"ipsecPeerAdminStatus.{PEER}": "up"})
    forget_acquires(world)
    stays_down(world, "gwa does not ask")
    world.b.station.set({"ipsecGlobIgnoreCrPayloads.0": "true"})
    comes_up(world, "gwb sends it all the same", ike_remote_id=NAME_B)
    world.a.station.set({"ipsecGlobNoCrPayloads.0": "false"})
    world.b.station.set({"ipsecGlobIgnoreCrPayloads.0": "false"})


@scenario("certificates", "rsa_ikev2")
def rsa_forced(world: World) -> None:
    """A certificate that nobody has signed is accepted only where it is trusted as it is."""
    take(world, world.b, 5, made[0].b_alone.pem + made[0].b_alone.key_pem(), "own-certificate")
    alone = max(world.b.station.rows("certTable"))
    world.b.station.set({f"ipsecPeerCert.{PEER}": alone})
    stays_down(world, "signed by itself")
    take(world, world.a, 6, made[0].b_alone.pem, "peer-certificate", Trusted="true")
    comes_up(world, "and trusted", ike_remote_id=NAME_B)
    row = max(world.a.station.rows("certTable"))
    world.a.station.set({f"certForceTrusted.{row}": "false"})
    stays_down(world, "trusted no more")
    world.b.station.set({f"ipsecPeerCert.{PEER}": 0})
    comes_up(world, "with the certificate of the root it comes back", ike_remote_id=NAME_B)


# ---- with pre-shared keys -----------------------------------------------------------------

IDENTITIES = {
    "[gw.example.org]": ("gw.example.org", "gw.example.org"),
    "joe@example.org": ("(joe@example.org)", "joe@example.org"),
    "{0a0b0c}": ("{0a0b0c}", "0a0b0c"),
    "<C=DE, CN=gw>": ("<C=DE, CN=gw>", "C=DE, CN=gw"),
    "|2001:db8::7|": ("2001:db8::7", "2001:db8::7"),
    "": ("|192.0.2.0/24|, other.example.org", "192.0.2.1"),
    "|192.0.2.1|": ("|192.0.2.1-192.0.2.9|", "192.0.2.1"),
}
"""ikePrfLocalId at gwa: (ipsecPeerPeerIds at gwb, what charon calls it)."""


@scenario("certificates", "start_certificates")
def identities(world: World) -> None:
    """Each syntax of an identity, IKEv1 with a pre-shared key; a net and a range take in who is in them."""
    cells: Cells = {f"ipsecPeerIkeVersion.{PEER}": "ikev1", "ikePrfAuthMethod.1": "pre-sh-key"}
    both(world, {**cells, f"ipsecPeerPreSharedKey.{PEER}": recipes.KEY, "ikePrfMode.1": "aggressive-only"})
    world.a.station.set({f"ipsecPeerPeerIds.{PEER}": ""})
    for local, (asked, called) in IDENTITIES.items():
        world.b.station.set({f"ipsecPeerPeerIds.{PEER}": asked})
        world.a.station.set({"ikePrfLocalId.1": local})
        comes_up(world, f"{local or 'our address'} where {asked} is asked for", ike_version="1", ike_local_id=called)
    world.b.station.set({f"ipsecPeerPeerIds.{PEER}": "(somebody else)"})
    stays_down(world, "another identity")
    world.b.station.set({f"ipsecPeerPeerIds.{PEER}": ""})
    anew(world, world.a)
    comes_up(world, "where none is asked for, the address", ike_local_id="192.0.2.1")
    for column, value in (("ipsecPeerLocalId", "|192.0.2.0/24|"), ("ipsecPeerPeerIds", "<XX=gw>")):
        try:
            world.a.station.set({f"{column}.{PEER}": value})
            text = ""
        except Refused as refused:
            text = str(refused)
        world.check(column in text, f"{column} = {value} is refused", text or "accepted")


# ---- the daemon itself ----------------------------------------------------------------------


def udp_ports(gateway: Gateway) -> set[int]:
    lines = inside(gateway.name, Path("/proc/thread-self/net/udp").read_text).splitlines()[1:]
    return {int(line.split()[1].rpartition(":")[2], 16) for line in lines}


@scenario("certificates", "identities")
def ike_port(world: World) -> None:
    """charon listens on another port, the exemption of IKE goes along, and tunnels come up from there."""
    before = set(world.b.charons())
    world.b.station.set({"ipsecGlobIkePort.0": 5500})
    world.becomes(lambda: udp_ports(world.b) & {500, 4500, 5500}, {4500, 5500}, "gwb listens on 5500, no longer on 500")
    world.eventually(partial(only, world.b, before), "its charon is another one")

    def exempted() -> str:
        policies = world.b.policies()
        return "" if any("sport 5500" in each and "dir out" in each for each in policies) else "; ".join(policies)

    world.eventually(exempted, "what leaves from there is exempted")
    world.eventually(lambda: "" if world.b.connections() else "none", "the connections are back")
    comes_up(world, "a tunnel from port 5500 to port 500", at=world.b, ike_local_port="5500", ike_remote_port="500")
    world.b.station.set({"ipsecGlobIkePort.0": 500})
    world.eventually(lambda: "" if 500 in udp_ports(world.b) else udp_ports(world.b), "and back")
    try:
        world.b.station.set({"ipsecGlobIkePort.0": 4500})
        text = ""
    except Refused as refused:
        text = str(refused)
    world.check("NAT traversal" in text, "4500 is refused", text or "accepted")


def sent_to(world: World, address: str, count: int, quiet: float) -> list[float]:
    """When IKE packets to an address left, in seconds since the first: so many, and those of `quiet` seconds after
    them."""
    capture = world.capture()
    times: list[float] = []
    end = time.monotonic() + COUNTED_SECONDS
    complete = False
    while time.monotonic() < end:
        if not times:  # the kernel is silent for 5 s after an acquire
            ping(A, "10.9.0.2", 1)
        times += [each.at for each in capture.take() if each.destination == address and each.link == "a"]
        if len(times) >= count and not complete:
            complete, end = True, time.monotonic() + quiet
        time.sleep(0.1)
    capture.close()
    return [at - times[0] for at in times]


@scenario("certificates", "identities")
def retries(world: World) -> None:
    """A peer that is not there is given up after so many repetitions, whose gaps grow to a bound; the log of IKE."""
    nowhere = Site("none", "none", DEAD, "", "", "", "10.9.0.0")
    first: Cells = {
        "ipsecGlobMaxRetries.0": 1,
        "ipsecGlobRetryTimeout0milli.0": 1500,
        "ipsecGlobRetryTimeoutMaxsec.0": 0,
    }
    charons = world.a.charons()
    # In one SET, because a connection is loaded after the daemon has its settings: once applied, it has them.
    world.a.station.set({**first, **recipes.rule(9, A, nowhere), **recipes.peer(9, nowhere, 9)})
    world.eventually(partial(apply_state, world.a, "Peer", 9), "the peer that is not there is applied", pause=0.1)
    times = sent_to(world, DEAD, 2, 3)
    # charon's usual gap is 4 s, the agent's 0.5 s; a timer is never early, but late on a busy machine
    world.check(len(times) == 2 and 1.4 < times[1] < 3.9, "one repetition after 1.5 s", times)
    world.a.station.set(
        {
            "ipsecGlobMaxRetries.0": 5,
            "ipsecGlobRetryTimeoutMaxsec.0": 1,
            "ipsecGlobRetryTimeout0milli.0": 500,
            "ipsecPeerPreSharedKey.9": "another",
        }
    )
    world.eventually(partial(apply_state, world.a, "Peer", 9), "other settings are applied", pause=0.1)
    times = sent_to(world, DEAD, 6, 2.5)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    world.check(len(times) == 6, "five repetitions", times)
    # without a bound the fourth came after 2.9 s and the fifth after 5.2 s
    world.check(all(gap > 0.4 for gap in gaps) and max(gaps, default=9) < 2.5, "no gap far above a second", gaps)
    world.check(world.a.charons() == charons, "without another charon")
    world.a.station.set({"ipsecPeerAdminStatus.9": "delete", "ipsecTrAction.9": "delete"})
    log = world.a.folder / "agent.log"
    here = log.stat().st_size
    world.a.station.set({"ipsecGlobContIkeLoggingLevel.0": 7})
    anew(world, world.a)
    comes_up(world, "the tunnel")

    def without_dumps() -> str:
        text = log.read_bytes()[here:].decode(errors="replace")
        return "" if "agent.backends.charon.log" in text and "16:" in text else f"{len(text)} octets"

    world.eventually(without_dumps, "level 7: dumps in the agent's log")
    world.check(not world.a.mentions(recipes.KEY), "the pre-shared key is in no file", world.a.mentions(recipes.KEY))
    world.a.station.set({"ipsecGlobContIkeLoggingLevel.0": 0})
    anew(world, world.a)  # once the peer is unloaded, the daemon has its settings
    here = log.stat().st_size
    comes_up(world, "the tunnel again")
    time.sleep(0.7)  # charon's file is read twice a second
    text = log.read_bytes()[here:].decode(errors="replace")
    world.check("agent.backends.charon.log" not in text, "level 0: silent", text[-300:])
