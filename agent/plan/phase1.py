"""A profile of IKEv1's phase 1 with everything that is inherited resolved.

The profile is the peer's, or the global one; a `default` in it means the global profile's
value, then the built-in one. With pre-shared keys or RSA signatures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from agent.plan import cells
from agent.plan.capabilities import ALL_GROUPS, DEFAULT_GROUP
from agent.plan.certificates import Proof
from agent.plan.lifetimes import ALL_THE_TIME, NEGOTIATION_KBYTES, Life, idle_life, life, life_row
from agent.plan.liveness import DEFAULT, UNSAID, Probing
from agent.plan.model import RowRef, RowView, ViciValue
from agent.plan.proposals import IKE_PROPOSALS, V1, Asked, chain_rows, group_problem, ike_element, seeded
from agent.plan.resolution import YES, Resolution, first, first_group, nothing_left

IKE_PROFILES: Final = "ikeProfileTable"

PSK, RSA, DEFAULT_AUTH = 1, 3, 14  # ikePrfAuthMethod
MAIN, AGGRESSIVE, DEFAULT_MODE, MAIN_ONLY, AGGRESSIVE_ONLY = 1, 2, 3, 4, 5  # ikePrfMode
NAT_ENABLED, NAT_DISABLED, NAT_DEFAULT, NAT_ENFORCE = 1, 2, 3, 4  # ikePrfNatT, ikev2PrfNatT without the last

AUTH_NAMES: Final = {2: "DSA signatures", 4: "RSA encryption"}
"""Methods of authentication that no engine has."""

GUESSABLE: Final = (
    "aggressive mode is answered: who listens can guess at the pre-shared key offline; id-protect-only avoids it"
)


class Phase1(NamedTuple):
    """A profile of phase 1 or of an IKEv2 SA resolved. `settings`: keys of a connection that all its peers share.
    `answers_other`: it also answers in the other mode. `problem`: why no peer can use it. `nat`: as ikePrfNatT.
    `heartbeats`: as ikePrfHeartbeats, UNSAID for default; `alive`: ikev2PrfAliveCheck. `method`: PSK or
    RSA; `proof`: how signatures are made and judged in IKEv1, where the profile says so."""

    aggressive: bool
    answers_other: bool
    local_id: str
    life: Life
    settings: Mapping[str, ViciValue]
    problem: str
    probing: Probing
    version: int = V1
    nat: int = NAT_ENABLED
    heartbeats: int = UNSAID
    alive: bool = True
    method: int = PSK
    proof: Proof | None = None


def resolve(world: Resolution, own: RowView | None, global_: RowView | None) -> Phase1:
    """`own`: row of ikeProfileTable a peer names, None where it names none; `global_`: that of ipsecGlobIkeProfile."""
    rows = (own, global_)
    own_or_global = own if own is not None else global_
    method = first(rows, "ikePrfAuthMethod", (DEFAULT_AUTH,), PSK)
    mode = first(rows, "ikePrfMode", (DEFAULT_MODE,), MAIN)
    its_life = life(own, global_, "ikePrf")
    proposals: list[str] = []
    problem = method_problem(method)
    if not problem:
        asked = Asked(
            world.capabilities, V1, world.bounds, first_group(rows, "ikePrfGroup", "ipsecGwIkePrfGroup"), method
        )
        proposals, problem = offered(world, first(rows, "ikePrfProposal", (0,), 0), asked)
    if own is not None and (told := idle_life(own, global_, "ikePrf")):
        world.note(RowRef(IKE_PROFILES, own.number), told)
    lives = life_row(own, global_, "ikePrf")
    if lives is not None and 0 < its_life.kbytes < NEGOTIATION_KBYTES:
        world.note(RowRef(IKE_PROFILES, lives.number), ALL_THE_TIME)
    naming = next((row for row in rows if row is not None and cells.number(row, "ikePrfMode") != DEFAULT_MODE), None)
    if naming is not None and mode != MAIN_ONLY and method == PSK:
        world.note(RowRef(IKE_PROFILES, naming.number), GUESSABLE)
    nat = first(rows, "ikePrfNatT", (NAT_DEFAULT,), NAT_ENABLED)
    settings: dict[str, ViciValue] = {
        "version": "1",
        "proposals": proposals,
        "encap": "yes" if nat == NAT_ENFORCE else "no",
        "mobike": "no",
        **usual(world),
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
        probing=probing(world),
        nat=nat,
        heartbeats=first(rows, "ikePrfHeartbeats", (DEFAULT,), UNSAID),
        method=method,
        proof=_proof(world, rows) if method == RSA else None,
    )


def _proof(world: Resolution, rows: Sequence[RowView | None]) -> Proof:
    """The profile's own certificate before the global one's, the authorities of both."""
    there = [row for row in rows if row is not None]
    return world.certificates.proof(
        (cells.number(row, "ikePrfCert") for row in there), (cells.text(row, "ikePrfCaCerts") for row in there)
    )


def method_problem(method: int) -> str:
    """Why peers cannot authenticate this way; '' when they can."""
    return "" if method in (PSK, RSA) else f"no engine has {AUTH_NAMES.get(method, 'this method')}"


def offered(world: Resolution, head: int, asked: Asked) -> tuple[list[str], str]:
    """Proposal strings of the chain from `head` on, of the seeded ones for 0; and why there are none."""
    problem = group_problem(asked.group)
    if problem:
        return [], problem
    if not head:
        group = ALL_GROUPS[asked.group or DEFAULT_GROUP]
        found = [f"{algorithms}-{group}" for algorithms in seeded(asked.bounds)]
        return found, "" if found else f"{AES_SEEDED} is longer than ipsecGlobMaxKeyLength"
    elements = [
        ike_element(row, asked) for row in chain_rows(world.configuration, IKE_PROPOSALS, head, "ikePropNextChoice")
    ]
    found = world.take(elements)
    return found, "" if found else nothing_left(1, elements)


AES_SEEDED: Final = "AES, which is offered where no proposal is named,"


def usual(world: Resolution) -> dict[str, ViciValue]:
    """What connections of both versions have. charon tells a peer of its first contact, and believes that of the
    peer, unless it is `never` unique."""
    silent = world.scalar("ipsecGlobNoInitialContact") == YES
    return {"unique": "never" if silent else "no", "keyingtries": "1"}


def probing(world: Resolution) -> Probing:
    return Probing(
        *map(
            world.scalar,
            (
                "ipsecGlobDPDIdleThreshold",
                "ipsecGlobDPDMaxRetries",
                "ipsecGlobDPDRetryTimeout",
                "ipsecGlobContHeartbeatInterval",
                "ipsecGlobContHeartbeatTolerance",
                "ipsecGlobContMobikeFactor",
            ),
        )
    )
