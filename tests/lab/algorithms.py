"""The boot `algorithms`: each cipher with each hash the engine has, in both phases and both versions of IKE.

Phase 2 is one peer with a rule for one UDP port and a phase 2 profile for each combination: all children stand on one
IKE SA, and a datagram goes through each. Phase 1 is one peer for each combination, at addresses of its own, with the
groups dealt out among them. So hundreds of cells are set in a few SETs, and each combination is negotiated by charon
and used by the kernel.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, cycle
from typing import NamedTuple

from tests.lab import recipes
from tests.lab.gateway import Gateway
from tests.lab.recipes import Cells
from tests.lab.registry import scenario
from tests.lab.sightings import FAILED, apply_state
from tests.lab.topology import SITES, Site, batch, inside
from tests.lab.wire import AH, Packet, plain, summary
from tests.lab.world import World

A, B = SITES["a"], SITES["b"]
PEER = 1
MODULES = "des_generic blowfish_generic cast5_generic twofish_generic sha512_generic gcm ctr seqiv chacha20poly1305 md5"
VARBINDS = 120  # in one SET; snmpset takes 128
PORT = 7000  # a rule's UDP port is this and its number
PAYLOAD = b"compress me " * 80


class Case(NamedTuple):
    """`cells` of proposal and profile at both gateways, without their number; `at_b`: others at gwb. `shows`: what
    charon says of the SA; None: no SA stands. `versions` of IKE that it is about."""

    cells: Mapping[str, str | int]
    shows: Mapping[str, str] | None
    at_b: Mapping[str, str | int] = {}
    versions: tuple[int, ...] = (1, 2)


# ---- phase 2 ------------------------------------------------------------------------------

ESP_CIPHERS: dict[str, tuple[Cells, dict[str, str]]] = {
    "aes": (
        {"ipsecPropEspAes": 1, "ipsecPropAesKeySize": "aes256"},
        {"encr-alg": "AES_CBC", "encr-keysize": "256"},
    ),
    "twofish": (
        {"ipsecPropEspTwofish": 1, "ipsecPropTwofishKeySize": "twofish256"},
        {"encr-alg": "TWOFISH_CBC", "encr-keysize": "256"},
    ),
    "blowfish": (
        {"ipsecPropEspBlowfish": 1, "ipsecPropBlowfishKeySize": 192},
        {"encr-alg": "BLOWFISH_CBC", "encr-keysize": "192"},
    ),
    "cast": ({"ipsecPropEspCast": 1}, {"encr-alg": "CAST_CBC", "encr-keysize": "128"}),
    "3des": ({"ipsecPropEspDes3": 1}, {"encr-alg": "3DES_CBC"}),
    "des": ({"ipsecPropEspDes": 1}, {"encr-alg": "DES_CBC"}),
    "null": ({"ipsecPropEspNull": 1}, {"encr-alg": "NULL"}),
}
MACS = {
    "Md5": "HMAC_MD5_96",
    "Sha1": "HMAC_SHA1_96",
    "Sha256": "HMAC_SHA2_256_128",
    "Sha384": "HMAC_SHA2_384_192",
    "Sha512": "HMAC_SHA2_512_256",
}
SHA256: Cells = {"ipsecPropEspAes": 1, "ipsecPropAesKeySize": "aes128", "ipsecPropEspSha256": 1}
DEFLATE: Cells = {"ipsecPropIpcompDeflate": 1}


def phase2_cases() -> Iterator[Case]:
    for cipher, (cells, shows) in ESP_CIPHERS.items():
        for mac, name in MACS.items():
            yield Case({**cells, f"ipsecPropEsp{mac}": 1}, {"protocol": "ESP", **shows, "integ-alg": name})
        if cipher != "null":
            yield Case({**cells, "ipsecPropEspNoMac": 1}, {**shows, "integ-alg": "none"})
    for number, cipher, bits in ((2, "AES_GCM_16", "128"), (3, "AES_GCM_16", "192"), (4, "AES_GCM_16", "256")):
        yield Case({"ipsecGwIpsecPropAead": number}, {"encr-alg": cipher, "encr-keysize": bits})
    chacha: Cells = {"ipsecGwIpsecPropAead": "chacha20-poly1305"}
    yield Case(chacha, {"encr-alg": "CHACHA20_POLY1305"}, versions=(2,))
    yield Case(chacha, None, versions=(1,))
    for mac, name in MACS.items():
        yield Case({"ipsecPropProto": "ah", f"ipsecPropAh{mac}": 1}, {"protocol": "AH", "integ-alg": name})
    # what is accepted lies between Min and Max: the far side has only the size in between
    between: Cells = {"ipsecPropAesKeySizeMin": "aes128", "ipsecPropAesKeySizeMax": "aes256"}
    yield Case(
        {**SHA256, "ipsecPropAesKeySize": "aes256", **between},
        {"encr-keysize": "192"},
        {"ipsecPropAesKeySize": "aes192", "ipsecPropAesKeySizeMin": "unset", "ipsecPropAesKeySizeMax": "unset"},
    )
    # the rank decides, and the old name of AES is AES
    yield Case(
        {"ipsecPropEspRijndael": 1, "ipsecPropEspDes3": 2, "ipsecPropEspMd5": 2, "ipsecPropEspSha1": 1},
        {"encr-alg": "AES_CBC", "encr-keysize": "256", "integ-alg": "HMAC_SHA1_96"},
    )
    yes, no = {"cpi-in": "yes"}, {"cpi-in": "none"}
    for wish in ("enabled", "force"):
        yield Case({**SHA256, **DEFLATE, "ipsecPropIpcomp": wish}, yes)
    yield Case({**SHA256, **DEFLATE, "ipsecPropIpcomp": "enabled"}, no, {"ipsecPropIpcomp": "disabled"})
    yield Case({**SHA256, **DEFLATE, "ipsecPropIpcomp": "force"}, None, {"ipsecPropIpcomp": "disabled"})
    yield Case({**SHA256, "ipsecPropIpcompDeflate": 0, "ipsecPropIpcomp": "enabled"}, no, DEFLATE)
    ah: Cells = {"ipsecPropProto": "ah", "ipsecPropAhSha256": 1}
    yield Case({**ah, **DEFLATE, "ipsecPropIpcomp": "force"}, {"protocol": "AH", **yes})
    for cell, group in (
        ({"ipsecPrfPfsGroup": 5}, "MODP_1536"),
        ({"ipsecGwIpsecPrfPfsGroup": "ecp256"}, "ECP_256"),
        ({"ipsecGwIpsecPrfPfsGroup": "curve25519"}, "CURVE_25519"),
    ):
        yield Case({**SHA256, **cell}, {"dh-group": group})


PHASE2 = list(enumerate(phase2_cases(), 1))


def phase2_rows(case: Case, number: int, local: Site, remote: Site, following: int, cells: Cells) -> Cells:
    """Proposal, profile and rule of one combination. The rule is of UDP to a port at gwb's host."""
    named = {"ipsecPropProto": "esp", "ipsecPrfProposal": number, **case.cells, **cells}
    side = "Remote" if local is A else "Local"
    return {
        **{f"{column}.{number}": value for column, value in named.items()},
        **recipes.rule(number, local, remote, following=following),
        f"ipsecTrProto.{number}": "udp",
        f"ipsecTr{side}Port.{number}": PORT + number,
        f"ipsecTrProfile.{number}": number,
    }


def put(gateway: Gateway, groups: Sequence[Cells]) -> None:
    """All cells, each group in one SET with as many others as fit."""
    together: Cells = {}
    for cells in groups:
        if together and len(together) + len(cells) > VARBINDS:
            gateway.station.set(together)
            together = {}
        together = {**together, **cells}
    if together:
        gateway.station.set(together)


@scenario("algorithms")
def start_tables(world: World) -> None:
    """Two gateways with a rule, a phase 2 profile and a proposal for each combination, all by snmpset."""
    subprocess.run(["modprobe", "-a", *MODULES.split()], check=False)  # an SA whose cipher is loaded late comes late
    world.start("ab")
    begun = time.monotonic()
    last = PHASE2[-1][0]
    for gateway, local, remote in ((world.b, B, A), (world.a, A, B)):
        rows = [
            phase2_rows(
                case, number, local, remote, number + 1 if number < last else 0, dict(case.at_b) if local is B else {}
            )
            for number, case in reversed(PHASE2)  # a chain is built from its end: a link leads to a row that is there
        ]
        put(gateway, [*rows, {**recipes.peer(PEER, remote, 1), **recipes.enabled(True)}])
    for gateway in (world.a, world.b):
        world.eventually(partial(apply_state, gateway, "Peer", PEER), f"{gateway.name}: peer applied", 90)
    world.note(f"{len(PHASE2)} combinations set at both in {time.monotonic() - begun:.1f} s")


def children(gateway: Gateway) -> dict[int, dict[str, str]]:
    """Installed children by number of their rule; what charon does not say is `none`, and a cpi is `yes`."""
    found: dict[int, dict[str, str]] = {}
    for child in gateway.negotiated():
        number = int(child["name"].rpartition("-")[2])
        found[number] = {**child, **({"cpi-in": "yes"} if "cpi-in" in child else {})}
    return found


def missing(gateway: Gateway, version: int, expected: Mapping[int, Case]) -> str:
    """'' when each combination stands as wanted, or does not stand as wanted."""
    have = children(gateway)
    wrong = []
    for number, case in expected.items():
        child = have.get(number)
        if case.shows is None:
            continue
        wanted = {"ike-version": str(version), **case.shows}
        seen = {name: child.get(name, "none") for name in wanted} if child is not None else None
        if seen != wanted:
            wrong.append(f"{number}: {seen}, not {case.shows}")
    return f"{len(wrong)} of {len(expected)}: {'; '.join(wrong[:6])}" if wrong else ""


def untold(gateway: Gateway, cell: str, word: str) -> str:
    """'' when the word is in the cell, else what is."""
    text = gateway.station.get(cell)
    return "" if word in text else text or "nothing"


def send_to_all(numbers: Sequence[int]) -> None:
    """A datagram of 960 octets to the port of each rule."""

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            out.bind((A.address, 40000))
            for number in numbers:
                out.sendto(PAYLOAD, (B.address, PORT + number))

    inside(A.host, send)


def table_holds(world: World, version: int) -> None:
    expected = {number: case for number, case in PHASE2 if version in case.versions}
    standing = [number for number, case in expected.items() if case.shows is not None]
    begun = time.monotonic()
    world.eventually(lambda: missing(world.a, version, expected), f"{len(standing)} children, each as set", 150)
    world.note(f"{len(standing)} children in {time.monotonic() - begun:.1f} s")
    capture = world.capture()
    packets: list[Packet] = []

    def carried() -> str:
        send_to_all(standing)
        time.sleep(0.3)
        packets.extend(capture.take())
        have = children(world.b)
        return ", ".join(str(number) for number in standing if not int(have.get(number, {}).get("packets-in", 0)))

    world.eventually(carried, "and each carries packets", 60)
    refused = [number for number, case in expected.items() if case.shows is None]
    send_to_all(refused)
    time.sleep(1)
    packets += capture.take()
    capture.close()
    world.check(not plain(packets), "nothing in plain", summary(plain(packets)))
    world.check(any(each.protocol == AH for each in packets), "and AH is there", summary(packets))
    have = children(world.b)
    carrying = [number for number in refused if int(have.get(number, {}).get("packets-in", 0))]
    world.check(not carrying, "what both cannot agree on carries nothing", carrying)


@scenario("algorithms", "start_tables")
def phase2_version1(world: World) -> None:
    """IKEv1: each ESP cipher with each MAC, AH, combined ciphers, compression, PFS; a datagram through each."""
    world.a.station.set({f"ipsecPeerStartMode.{PEER}": "always-up"})
    table_holds(world, 1)
    forced = next(n for n, case in PHASE2 if case.shows is None and case.at_b)
    told = f"ipsecGwPeerLastError.{PEER}"
    world.eventually(
        partial(untold, world.a, told, "compression"), "a forced compression that the peer refuses is told"
    )
    world.check(forced not in children(world.a), "and its child does not stand")
    chacha = next(n for n, case in PHASE2 if case.shows is None and not case.at_b)
    world.eventually(
        lambda: apply_state(world.a, "IpsecProposal", chacha, FAILED), "ChaCha20-Poly1305 fails its row with IKEv1"
    )
    text = world.a.station.get(f"ipsecGwIpsecProposalLastError.{chacha}")
    world.check("IKEv2" in text, "saying why", text)


@scenario("algorithms", "phase2_version1")
def phase2_version2(world: World) -> None:
    """IKEv2: the same, and ChaCha20-Poly1305 too."""
    for gateway in (world.b, world.a):
        gateway.station.set({f"ipsecPeerIkeVersion.{PEER}": "ikev2"})
    table_holds(world, 2)
    world.a.station.set({f"ipsecPeerAdminStatus.{PEER}": "down"})
    world.b.station.set({f"ipsecPeerAdminStatus.{PEER}": "down"})


# ---- phase 1 ------------------------------------------------------------------------------

FIRST_PEER = 101
IKE_CIPHERS: dict[str, tuple[Cells, dict[str, str]]] = {
    "aes256": ({"ikePropEncAlg": "aes-cbc", "ikePropEncKeySize": 256}, {"encr-alg": "AES_CBC", "encr-keysize": "256"}),
    "aes192": (
        {"ikePropEncAlg": "rijndael-cbc", "ikePropEncKeySize": 192},
        {"encr-alg": "AES_CBC", "encr-keysize": "192"},
    ),
    "3des": ({"ikePropEncAlg": "des3-cbc"}, {"encr-alg": "3DES_CBC"}),
    "des": ({"ikePropEncAlg": "des-cbc"}, {"encr-alg": "DES_CBC"}),
    "blowfish": ({"ikePropEncAlg": "blowfish-cbc"}, {"encr-alg": "BLOWFISH_CBC", "encr-keysize": "128"}),
    "cast": ({"ikePropEncAlg": "cast128-cbc"}, {"encr-alg": "CAST_CBC", "encr-keysize": "128"}),
    "twofish": ({"ikePropEncAlg": "twofish-cbc"}, {"encr-alg": "TWOFISH_CBC", "encr-keysize": "128"}),
}
IKE_HASHES = {
    "md5": "HMAC_MD5_96",
    "sha1": "HMAC_SHA1_96",
    "sha2-256": "HMAC_SHA2_256_128",
    "sha2-384": "HMAC_SHA2_384_192",
    "sha2-512": "HMAC_SHA2_512_256",
}
IKE_GROUPS: list[tuple[Cells, str]] = [
    ({"ikePropGroup": 1}, "MODP_768"),
    ({"ikePropGroup": 2}, "MODP_1024"),
    ({"ikePropGroup": 5}, "MODP_1536"),
    ({"ikePropGroup": 14}, "MODP_2048"),
    ({"ikePropGroup": 15}, "MODP_3072"),
    ({"ikePropGroup": 16}, "MODP_4096"),
    ({"ipsecGwIkePropGroup": "ecp256"}, "ECP_256"),
    ({"ipsecGwIkePropGroup": "ecp384"}, "ECP_384"),
    ({"ipsecGwIkePropGroup": "ecp521"}, "ECP_521"),
    ({"ipsecGwIkePropGroup": "curve25519"}, "CURVE_25519"),
    ({"ipsecGwIkePropGroup": "curve448"}, "CURVE_448"),
]
CHEAP_GROUPS = [
    IKE_GROUPS[1],
    IKE_GROUPS[6],
    IKE_GROUPS[9],
]  # for those behind the first of each: processors are slow here
AEADS = {
    "aes128-gcm": ("AES_GCM_16", "128", "default", "PRF_HMAC_SHA2_256"),
    "aes192-gcm": ("AES_GCM_16", "192", "sha1", "PRF_HMAC_SHA1"),
    "aes256-gcm": ("AES_GCM_16", "256", "sha2-384", "PRF_HMAC_SHA2_384"),
    "chacha20-poly1305": ("CHACHA20_POLY1305", "none", "sha2-512", "PRF_HMAC_SHA2_512"),
}


def phase1_cases() -> Iterator[Case]:
    groups = chain(IKE_GROUPS, cycle(CHEAP_GROUPS))
    for cells, shows in IKE_CIPHERS.values():
        for hash_, integrity in IKE_HASHES.items():
            group, name = next(groups)
            yield Case({**cells, "ikePropHashAlg": hash_, **group}, {**shows, "integ-alg": integrity, "dh-group": name})
    for aead, (cipher, bits, prf, told) in AEADS.items():
        yield Case(
            {
                "ipsecGwIkePropAead": aead,
                "ipsecGwIkePropPrf": prf,
                "ikePropHashAlg": "sha1",
                "ikePropEncAlg": "aes-cbc",
            },
            {"encr-alg": cipher, "encr-keysize": bits, "prf-alg": told},
            versions=(2,),
        )


PHASE1 = list(enumerate(phase1_cases(), FIRST_PEER))


def address(number: int) -> str:
    """gwb's address for one peer."""
    return f"198.18.0.{number}"


def phase1_rows(case: Case, number: int, local: Site, remote: Site) -> Cells:
    """Proposal, profiles of both versions, rule and peer of one combination."""
    named: Cells = {
        "ikePrfProposal": number,
        "ikePrfMode": "id-protect-only",
        "ikev2PrfIndex": number,
        "ikev2PrfProposal": number,
    }
    side = "Remote" if local is A else "Local"
    peer = recipes.peer(number, remote, number)
    if local is A:
        peer[f"ipsecPeerDynamicAddress.{number}"] = address(number)
    else:
        peer[f"ipsecPeerLocalAddress.{number}"] = address(number)
    return {
        **{f"{column}.{number}": value for column, value in {**case.cells, **named}.items()},
        **recipes.rule(number, local, remote),
        f"ipsecTrProto.{number}": "udp",
        f"ipsecTr{side}Port.{number}": PORT + number,
        **peer,
        f"ipsecPeerIkeProfile.{number}": number,
    }


def wrong_ike(gateway: Gateway, version: int, expected: Mapping[int, Case]) -> str:
    """'' when each peer's IKE SA is as wanted."""
    have = {int(child["name"].split("-")[1]): child for child in gateway.negotiated()}
    wrong = []
    for number, case in expected.items():
        child = have.get(number)
        wanted = {"version": str(version), **(case.shows or {})}
        seen = {name: child.get(f"ike-{name}", "none") for name in wanted} if child is not None else None
        if seen != wanted:
            wrong.append(f"{number}: {seen}, not {case.shows}")
    return f"{len(wrong)} of {len(expected)}: {'; '.join(wrong[:6])}" if wrong else ""


@scenario("algorithms", "start_tables")
def phase1_version1(world: World) -> None:
    """IKEv1: each cipher with each hash, and all groups, one peer each."""
    batch(B.gateway, *(f"addr add {address(number)}/32 dev out" for number, _ in PHASE1))
    batch("wan", f"route add 198.18.0.0/24 via {B.outer}")
    begun = time.monotonic()
    for gateway, local, remote in ((world.b, B, A), (world.a, A, B)):
        put(gateway, [phase1_rows(case, number, local, remote) for number, case in PHASE1])
    world.note(f"{len(PHASE1)} peers set at both in {time.monotonic() - begun:.1f} s")
    expected = {number: case for number, case in PHASE1 if 1 in case.versions}
    world.eventually(lambda: apply_state(world.b, "Peer", max(expected)), "gwb has taken them in", 90)
    put(world.a, [{f"ipsecPeerStartMode.{number}": "always-up"} for number, _ in PHASE1])
    begun = time.monotonic()
    world.eventually(lambda: wrong_ike(world.a, 1, expected), f"{len(expected)} IKE SAs, each as set", 180, 1)
    world.note(f"{len(expected)} IKE SAs in {time.monotonic() - begun:.1f} s")
    aead = next(number for number, case in PHASE1 if case.versions == (2,))
    told = f"ipsecGwPeerLastError.{aead}"
    world.eventually(partial(untold, world.a, told, "IKEv2"), "a combined cipher fails its IKEv1 peer, saying why")


@scenario("algorithms", "phase1_version1")
def phase1_version2(world: World) -> None:
    """IKEv2: the same, and combined ciphers with each pseudo-random function."""
    for gateway in (world.b, world.a):
        put(gateway, [{f"ipsecPeerIkeVersion.{number}": "ikev2"} for number, _ in PHASE1])
    begun = time.monotonic()
    expected = dict(PHASE1)
    world.eventually(lambda: wrong_ike(world.a, 2, expected), f"{len(expected)} IKE SAs, each as set", 180, 1)
    world.note(f"{len(expected)} IKE SAs in {time.monotonic() - begun:.1f} s")
