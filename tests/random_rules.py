"""Random rules about the hosts of packet_town: every action, protocol, direction and family, sides of each kind."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from agent.mib.ber import Value
from tests.packet_town import GATEWAY, GRE, ICMP, ICMP6, LEFT, RIGHT, TCP, UDP
from tests.plan_helpers import DictConfiguration

TRAFFIC, PEERS = "ipsecTrafficTable", "ipsecPeerTable"
ALWAYS_PLAIN, PASS, PROTECT, DROP = 2, 3, 4, 5
OUTER, DHCP = 2, 3
ANY = 255
FAR = "192.0.2.9"
PEER_STATES: Sequence[Mapping[str, Value]] = (
    {},  # its rules have templates, and nothing fits them
    {},
    {"ipsecPeerAdminStatus": 2},
    {"ipsecPeerPreSharedKeyData": b""},
    {"ipsecPeerDynamicAddress": b"", "ipsecPeerPeerIds": b"[road]"},
)


def net(dice: random.Random, family: int) -> tuple[bytes, int]:
    """A net around somebody in town: of any size, of a host often."""
    somebody = dice.choice([*LEFT[family], *RIGHT[family], *GATEWAY[family]])
    bits = 8 * family
    length = dice.choice([0, 8, 15, bits // 2, bits - 8, bits - 1, bits, bits])
    host_bits = (1 << bits - length) - 1
    return (int.from_bytes(somebody, "big") & ~host_bits).to_bytes(family, "big"), length


def span(dice: random.Random, family: int) -> tuple[bytes, bytes]:
    """A range that begins or ends at somebody, or next to it."""
    people = [*LEFT[family], *RIGHT[family], *GATEWAY[family]]
    ends = sorted(int.from_bytes(dice.choice(people), "big") + dice.choice([-1, 0, 0, 1, 5]) for _ in range(2))
    first, last = (end.to_bytes(family, "big") for end in ends)
    return first, last


def side(dice: random.Random, where: str, family: int) -> dict[str, Value]:
    what = "Address", "MaskLen", "Range"
    names = [f"ipsecTr{where}{each}" for each in what]
    if family == 16:
        names = [f"ipsecGwTr{where}{each}6" for each in ("Address", "PrefixLength", "Range")]
    if dice.random() < 0.3:
        first, last = span(dice, family)
        return {names[0]: first, names[1]: 0, names[2]: last}
    first, length = net(dice, family)
    return {names[0]: first, names[1]: length}


def rule(
    dice: random.Random, following: int, interfaces: Sequence[int], families: Sequence[int], *, outside: bool
) -> dict[str, Value]:
    family = dice.choice(families)
    protocol = dice.choice([ANY, UDP, UDP, TCP, ICMP if family == 4 else ICMP6, GRE])
    values: dict[str, Value] = {
        "ipsecTrNextIndex": following,
        **side(dice, "Local", family),
        **side(dice, "Remote", family),
        "ipsecTrProto": protocol,
        "ipsecTrAction": dice.choice([PASS, PASS, DROP, DROP, ALWAYS_PLAIN, PROTECT] + [PROTECT] * (not outside)),
        "ipsecTrDirection": dice.choice([1, 1, 2, 3]),
        "ipsecTrInterface": dice.choice(interfaces),
    }
    if protocol in (UDP, TCP):
        values["ipsecTrLocalPort"] = dice.choice([0, -1, 5000, 5001, 53])
        values["ipsecTrRemotePort"] = dice.choice([0, 0, 5000, 5001, 5002])
    if dice.random() < 0.1:
        values["ipsecTrLocalAddressType"] = OUTER
    if dice.random() < 0.05:
        values["ipsecTrRemoteAddressType"] = OUTER
    elif dice.random() < 0.05:
        values |= {"ipsecTrRemoteAddressType": DHCP, "ipsecTrProto": UDP, "ipsecTrLocalPort": 0, "ipsecTrRemotePort": 0}
    return values


def random_configuration(
    seed: int, interfaces: Sequence[int], families: Sequence[int] = (4, 4, 16)
) -> DictConfiguration:
    """Four lists of up to five rules: before the peers, of two peers, behind the peers. An interface and a family named
    twice are twice as likely; interface -1 is any."""
    dice = random.Random(seed)
    made = DictConfiguration(scalars={"ipsecGlobEnabled": 1, "ipsecGlobContDefaultRule": dice.choice([1, 2])})
    number = 0
    heads = []
    for list_ in range(4):
        count = dice.randint(0, 5)
        heads.append(number + 1 if count else 0)
        for place_ in range(count):
            number += 1
            following = number + 1 if place_ < count - 1 else 0
            made.put(TRAFFIC, number, **rule(dice, following, interfaces, families, outside=list_ in (0, 3)))
    made.scalars["ipsecGlobContPreIpsecRules"], made.scalars["ipsecGlobContPostIpsecRules"] = heads[0], heads[3]
    for peer in (1, 2):
        cells: dict[str, Value] = {
            "ipsecPeerTrafficList": heads[peer],
            "ipsecPeerPriority": dice.randint(0, 1),
            "ipsecPeerDynamicAddress": FAR.encode(),
            "ipsecPeerPreSharedKeyData": b"sealed",
        }
        made.put(PEERS, peer, **(cells | dict(dice.choice(PEER_STATES))))
    return made
