"""A profile of IKEv2 SAs with everything that is inherited resolved.

The profile is the peer's, or that of ipsecGlobContIkev2Profile. Only the proposal and NatT
can be left to the global profile; lifetimes and the alive check of a profile are its own.
The proposals' groups count (MIB: in IKEv2 ikePropGroup rules); 0 is group 14, where the
vendor takes 2. There is no aggressive mode, and the identity is the peer's row's.
"""

from __future__ import annotations

from typing import Final

from agent.plan import cells
from agent.plan.lifetimes import life_of_version2
from agent.plan.model import RowView, ViciValue
from agent.plan.phase1 import NAT_DEFAULT, NAT_ENABLED, PSK, Phase1, method_problem, offered, probing, usual
from agent.plan.proposals import V2, Asked
from agent.plan.resolution import YES, Resolution, first

IKEV2_PROFILES: Final = "ikev2ProfileTable"


def resolve(world: Resolution, own: RowView | None, global_: RowView | None, method: int) -> Phase1:
    """`own`: row of ikev2ProfileTable a peer names, None where it names none; `global_`: that of
    ipsecGlobContIkev2Profile. `method`: how the peer authenticates, ipsecPeerAuthMethod with 0 for its default."""
    rows = (own, global_)
    row = own if own is not None else global_
    method = method or PSK
    its_life = life_of_version2(row)
    proposals: list[str] = []
    problem = method_problem(method)
    if not problem:
        asked = Asked(world.capabilities, V2, world.bounds, 0, method)
        proposals, problem = offered(world, first(rows, "ikev2PrfProposal", (0,), 0), asked)
    settings: dict[str, ViciValue] = {
        "version": "2",
        "proposals": proposals,
        "encap": "no",
        **usual(world),
        "reauth_time": "0s",
        "rekey_time": f"{its_life.renewal()}s",
        "over_time": f"{its_life.seconds - its_life.renewal()}s",
        "rand_time": f"{its_life.spread()}s",
    }
    return Phase1(
        aggressive=False,
        answers_other=False,
        local_id="",
        life=its_life,
        settings=settings,
        problem=problem,
        probing=probing(world),
        version=V2,
        nat=first(rows, "ikev2PrfNatT", (NAT_DEFAULT,), NAT_ENABLED),
        method=method,
        alive=row is None or cells.number(row, "ikev2PrfAliveCheck") == YES,
    )
