"""A profile of phase 2 with everything that is inherited resolved.

The profile is the rule's, else the peer's, else the global one; a `default` in it means the
global profile's value, then the built-in one (it does not visit the peer's). Children
carry `policies = no`: the policies are ours. Nothing starts by itself (`start_action =
none`), the agent initiates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from agent.plan import cells
from agent.plan.lifetimes import Life, idle_life, life
from agent.plan.model import ApplyState, RowRef, RowView, Verdict, ViciValue
from agent.plan.proposals import IPSEC_PROPOSALS, SEEDED_ESP, ChainElement, chain_rows, ipsec_element
from agent.plan.resolution import Resolution, first
from agent.plan.spd import AH, ESP
from agent.plan.without_effect import PADDING

IPSEC_PROFILES: Final = "ipsecProfileTable"
VERIFY: Final = 1  # ipsecPrfVerifyPad true


class Phase2(NamedTuple):
    """A phase 2 profile resolved. `protocol` 50 or 51; `settings`: keys of a child that all its rules share."""

    protocol: int
    life: Life
    settings: Mapping[str, ViciValue]
    problem: str


def resolve(world: Resolution, own: RowView | None, global_: RowView | None) -> Phase2:
    """`own`: row of ipsecProfileTable that a rule or its peer names, None where none is named; `global_`: that of
    ipsecGlobIpsecProfile."""
    rows = (own, global_)
    head = first(rows, "ipsecPrfProposal", (0,), 0)
    its_life = life(own, global_, "ipsecPrf")
    protocol, offers, problem = ESP, list(SEEDED_ESP), ""
    if head:
        found = [
            ipsec_element(row, world.capabilities)
            for row in chain_rows(world.configuration, IPSEC_PROPOSALS, head, "ipsecPropNext")
        ]
        usable = [kind for kind, element in found if element.offers]
        protocol = ESP if ESP in usable else AH if AH in usable else ESP
        elements = [element if kind == protocol or element.problem else _beside_esp(element) for kind, element in found]
        offers = world.take(elements)
        problem = "" if offers else "no proposal of its phase 2 chain can be used"
    if own is not None and (told := idle_life(own, global_, "ipsecPrf")):
        world.verdicts[RowRef(IPSEC_PROFILES, own.number)] = told
    for row in rows:
        if row is not None and cells.number(row, "ipsecPrfVerifyPad") == VERIFY:
            world.verdicts.setdefault(RowRef(IPSEC_PROFILES, row.number), Verdict(ApplyState.APPLIED, PADDING))
    settings: dict[str, ViciValue] = {
        "policies": "no",
        "start_action": "none",
        "close_action": "none",
        "dpd_action": "clear",
        "esp_proposals" if protocol == ESP else "ah_proposals": offers,
        "life_time": f"{its_life.seconds}s",
        "rekey_time": f"{its_life.renewal()}s",
        "rand_time": f"{its_life.spread()}s",
    }
    return Phase2(protocol, its_life, settings, problem)


def _beside_esp(element: ChainElement) -> ChainElement:
    return ChainElement(element.row, (), "ESP is offered by another row of this chain, and then AH never is")
