"""A profile of phase 2 with everything that is inherited resolved.

The profile is the rule's, else the peer's, else the global one; a `default` in it means the
global profile's value, then the built-in one (it does not visit the peer's). Children
carry `policies = no`: the policies are ours. Nothing starts by itself (`start_action =
none`), the agent initiates.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final, NamedTuple

from agent.plan import cells
from agent.plan.capabilities import ALL_GROUPS, can
from agent.plan.lifetimes import Life, idle_life, life
from agent.plan.liveness import DEFAULT, UNSAID
from agent.plan.model import RowRef, RowView, ViciValue
from agent.plan.proposals import IPSEC_PROPOSALS, Asked, ChainElement, chain_rows, group_problem, ipsec_element, seeded
from agent.plan.resolution import YES, Resolution, first, first_group, nothing_left
from agent.plan.spd import AH, ESP
from agent.plan.without_effect import PADDING

IPSEC_PROFILES: Final = "ipsecProfileTable"
VERIFY: Final = 1  # ipsecPrfVerifyPad true

IPCOMP_ENABLED, IPCOMP_DISABLED, IPCOMP_FORCE = 1, 2, 3  # ipsecPropIpcomp
NO_PFS: Final = -1  # ipsecPrfPfsGroup
PMTU_OFF, PMTU_ON, PMTU_DEFAULT = 1, 2, 3  # ipsecPrfPmtuDiscovery
KEEP, LAPSE, KEEP_DEFAULT = 1, 2, 3  # ipsecPrfKeepAlive

BESIDE_ESP: Final = "ESP is offered by another row of this chain, and then AH never is"
NOTHING_TO_FORCE: Final = "IPComp cannot be forced without an algorithm; set ipsecPropIpcompDeflate 1"
NO_ALGORITHM: Final = "IPComp has no algorithm: ipsecPropIpcompDeflate is 0"


class Granularity(IntEnum):
    """ipsecPrfGranularity."""

    DEFAULT = 1
    COARSE = 2
    IP = 3
    PROTO = 4
    PORT = 5
    LOCAL_SERVICES = 6


class ForceTunnel(IntEnum):
    """ipsecPrfForceTunnelMode. GRE_INSIDE (tp-greip): the rule's packets are in GRE, and GRE is what is protected."""

    ALWAYS = 1
    WHERE_NEEDED = 2
    DEFAULT = 3
    GRE_INSIDE = 5


class Phase2(NamedTuple):
    """A phase 2 profile resolved. `protocol` 50 or 51; `settings`: keys of a child that all its rules share;
    `compressed`: an SA without IPComp is refused; `heartbeats`: as ipsecPrfHeartbeats, UNSAID for default; `idle`:
    seconds after which an SA without traffic lapses, 0 for never; `granularity`: ipsecPrfGranularity, never
    default."""

    protocol: int
    life: Life
    settings: Mapping[str, ViciValue]
    problem: str
    compressed: bool = False
    heartbeats: int = UNSAID
    idle: int = 0
    force_tunnel: int = ForceTunnel.WHERE_NEEDED
    granularity: int = Granularity.COARSE


def resolve(world: Resolution, own: RowView | None, global_: RowView | None, version: int) -> Phase2:
    """`own`: row of ipsecProfileTable that a rule or its peer names, None where none is named; `global_`: that of
    ipsecGlobIpsecProfile; `version`: of IKE, for not all algorithms have a number in IKEv1."""
    rows = (own, global_)
    its_life = life(own, global_, "ipsecPrf")
    group = first_group(rows, "ipsecPrfPfsGroup", "ipsecGwIpsecPrfPfsGroup")
    offer = Offer([], ESP, False, False, _pfs_problem(world, group))
    if not offer.problem:
        suffix = f"-{ALL_GROUPS[group]}" if group > 0 else ""
        asked = Asked(world.capabilities, version, world.bounds, suffix=suffix)
        offer = _offer(world, first(rows, "ipsecPrfProposal", (0,), 0), asked)
    if own is not None and (told := idle_life(own, global_, "ipsecPrf")):
        world.note(RowRef(IPSEC_PROFILES, own.number), told)
    for row in rows:
        if row is not None and cells.number(row, "ipsecPrfVerifyPad") == VERIFY:
            world.note(RowRef(IPSEC_PROFILES, row.number), PADDING)
    pmtu = first(rows, "ipsecPrfPmtuDiscovery", (PMTU_DEFAULT,), PMTU_ON)
    keep = first(rows, "ipsecPrfKeepAlive", (KEEP_DEFAULT,), LAPSE)
    settings: dict[str, ViciValue] = {
        "policies": "no",
        "start_action": "none",
        "close_action": "none",
        "dpd_action": "clear",
        "esp_proposals" if offer.protocol == ESP else "ah_proposals": offer.strings,
        "ipcomp": "yes" if offer.ipcomp else "no",
        "copy_df": "no" if pmtu == PMTU_OFF else "yes",
        "hw_offload": "auto" if world.scalar("ipsecGlobContHwAccel") == YES else "no",
        "life_time": f"{its_life.seconds}s",
        "rekey_time": f"{its_life.renewal()}s",
        "rand_time": f"{its_life.spread()}s",
    }
    if its_life.kbytes:
        settings |= {
            "life_bytes": str(its_life.last_octets()),
            "rekey_bytes": str(its_life.renewal_octets()),
            "rand_bytes": str(its_life.spread_octets()),
        }
    return Phase2(
        offer.protocol,
        its_life,
        settings,
        offer.problem,
        offer.forced,
        first(rows, "ipsecPrfHeartbeats", (DEFAULT,), UNSAID),
        its_life.idle() if keep == LAPSE else 0,
        first(rows, "ipsecPrfForceTunnelMode", (ForceTunnel.DEFAULT,), ForceTunnel.WHERE_NEEDED),
        first(rows, "ipsecPrfGranularity", (Granularity.DEFAULT,), Granularity.COARSE),
    )


class Offer(NamedTuple):
    """What a chain comes to. `forced`: only with IPComp."""

    strings: list[str]
    protocol: int
    ipcomp: bool
    forced: bool
    problem: str


def _pfs_problem(world: Resolution, group: int) -> str:
    if group in (0, NO_PFS):
        return ""
    if problem := group_problem(group):
        return f"PFS: {problem}"
    return "" if can(world.capabilities.ike_groups, group) else f"PFS: group {group} is not available"


def _offer(world: Resolution, head: int, asked: Asked) -> Offer:
    """Of the chain from `head` on; 0: what is seeded."""
    if not head:
        strings = [algorithms + asked.suffix for algorithms in seeded(asked.bounds)]
        problem = "" if strings else "AES, offered where no proposal is named, is longer than ipsecGlobMaxKeyLength"
        return Offer(strings, ESP, False, False, problem)
    rows = list(chain_rows(world.configuration, IPSEC_PROPOSALS, head, "ipsecPropNext"))
    found = [_with_compression(row, *ipsec_element(row, asked)) for row in rows]
    usable = [kind for kind, element in found if element.offers]
    protocol = ESP if ESP in usable else AH if AH in usable else ESP
    elements = [
        element if kind == protocol or element.problem else ChainElement(element.row, (), BESIDE_ESP)
        for kind, element in found
    ]
    strings = world.take(elements)
    # one child has compression or has none: the first row that counts decides
    ruling = next((row for row, element in zip(rows, elements, strict=True) if element.offers), None)
    ipcomp = IPCOMP_DISABLED if ruling is None else cells.number(ruling, "ipsecPropIpcomp")
    able = ruling is not None and cells.number(ruling, "ipsecPropIpcompDeflate") > 0
    return Offer(
        strings,
        protocol,
        able and ipcomp != IPCOMP_DISABLED,
        able and ipcomp == IPCOMP_FORCE,
        "" if strings else nothing_left(2, elements),
    )


def _with_compression(row: RowView, protocol: int, element: ChainElement) -> tuple[int, ChainElement]:
    """Compression needs an algorithm; DEFLATE is the only one there is."""
    ipcomp = cells.number(row, "ipsecPropIpcomp")
    if ipcomp == IPCOMP_DISABLED or cells.number(row, "ipsecPropIpcompDeflate") > 0:
        return protocol, element
    if ipcomp == IPCOMP_FORCE:
        return protocol, ChainElement(element.row, (), NOTHING_TO_FORCE)
    return protocol, element._replace(note="; ".join(filter(None, (element.note, NO_ALGORITHM))))
