"""A profile of IKEv1's phase 1 with everything that is inherited resolved.

The profile is the peer's, or the global one; a `default` in it means the global profile's
value, then the built-in one. With pre-shared keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from agent.plan import cells
from agent.plan.capabilities import DEFAULT_GROUP, GROUPS
from agent.plan.lifetimes import Life, idle_life, life
from agent.plan.model import ApplyState, RowRef, RowView, Verdict, ViciValue
from agent.plan.proposals import IKE_PROPOSALS, SEEDED_IKE, chain_rows, group_problem, ike_element
from agent.plan.resolution import Resolution, first

IKE_PROFILES: Final = "ikeProfileTable"

PSK, DEFAULT_AUTH = 1, 14  # ikePrfAuthMethod
MAIN, AGGRESSIVE, DEFAULT_MODE, MAIN_ONLY, AGGRESSIVE_ONLY = 1, 2, 3, 4, 5  # ikePrfMode

AUTH_NAMES: Final = {2: "DSA signatures", 3: "RSA signatures", 4: "RSA encryption"}

GUESSABLE: Final = Verdict(
    ApplyState.APPLIED,
    "aggressive mode is answered: who listens can guess at the pre-shared key offline; id-protect-only avoids it",
)


class Phase1(NamedTuple):
    """A phase 1 profile resolved. `settings`: keys of a connection that all its peers share. `answers_other`: it also
    answers in the other mode. `problem`: why no peer can use it."""

    aggressive: bool
    answers_other: bool
    local_id: str
    life: Life
    settings: Mapping[str, ViciValue]
    problem: str


def resolve(world: Resolution, own: RowView | None, global_: RowView | None) -> Phase1:
    """`own`: row of ikeProfileTable a peer names, None where it names none; `global_`: that of ipsecGlobIkeProfile."""
    rows = (own, global_)
    own_or_global = own if own is not None else global_
    method = first(rows, "ikePrfAuthMethod", (DEFAULT_AUTH,), PSK)
    mode = first(rows, "ikePrfMode", (DEFAULT_MODE,), MAIN)
    group = first(rows, "ikePrfGroup", (0,), 0)
    head = first(rows, "ikePrfProposal", (0,), 0)
    its_life = life(own, global_, "ikePrf")
    problem = "" if method == PSK else f"{AUTH_NAMES.get(method, 'this method')} is not supported yet"
    proposals = [f"{algorithms}-{GROUPS[DEFAULT_GROUP]}" for algorithms in SEEDED_IKE]
    problem = problem or group_problem(group)
    if head and not problem:
        chain = chain_rows(world.configuration, IKE_PROPOSALS, head, "ikePropNextChoice")
        proposals = world.take([ike_element(row, group, world.capabilities, method) for row in chain])
        problem = "" if proposals else "no proposal of its phase 1 chain can be used"
    elif group and not problem:
        proposals = [f"{algorithms}-{GROUPS[group]}" for algorithms in SEEDED_IKE]
    if own is not None and (told := idle_life(own, global_, "ikePrf")):
        world.verdicts[RowRef(IKE_PROFILES, own.number)] = told
    naming = next((row for row in rows if row is not None and cells.number(row, "ikePrfMode") != DEFAULT_MODE), None)
    if naming is not None and mode != MAIN_ONLY:
        world.verdicts.setdefault(RowRef(IKE_PROFILES, naming.number), GUESSABLE)
    idle = world.scalar("ipsecGlobDPDIdleThreshold")
    patience = idle + world.scalar("ipsecGlobDPDMaxRetries") * world.scalar("ipsecGlobDPDRetryTimeout")
    settings: dict[str, ViciValue] = {
        "version": "1",
        "proposals": proposals,
        "unique": "no",
        "encap": "no",
        "mobike": "no",
        "keyingtries": "1",
        "dpd_delay": f"{idle}s",
        "dpd_timeout": f"{patience}s",
        "rekey_time": "0s",
        "reauth_time": f"{its_life.renewal()}s",
        "over_time": f"{its_life.seconds - its_life.renewal()}s",
        "rand_time": f"{its_life.spread()}s",
    }
    return Phase1(
        aggressive=mode in (AGGRESSIVE, AGGRESSIVE_ONLY),
        answers_other=mode in (MAIN, AGGRESSIVE),
        local_id=cells.text(own_or_global, "ikePrfLocalId") if own_or_global is not None else "",
        life=its_life,
        settings=settings,
        problem=problem,
    )
