"""What the plan has to say of each row: that it cannot be, is not used or comes too late, and warnings."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from agent.plan import spd
from agent.plan.chains import PRE, Chain
from agent.plan.connections import Peer
from agent.plan.layered import Edit
from agent.plan.model import ApplyState, Policy, PolicyKey, Verdict
from agent.plan.spd import TRAFFIC, RuleAction
from agent.plan.state import Made

TOLD: Final = 2  # lists of which a rule's verdict says what is special there
NO_LIST: Final = Verdict(ApplyState.UNUSED, "in no list: neither a peer nor the pre or post list leads to it")
NOT_IN_SERVICE: Final = "the list breaks off here: the next rule is not in service"
PROTECT_OUTSIDE: Final = Verdict(ApplyState.UNUSED, "protect rules count in the lists of peers only")
NOTHING_TO_PROTECT: Final = Verdict(
    ApplyState.APPLIED, "no protect rule of its list can be made, so there is no tunnel"
)


def turn(owner: int, peer: Peer | None) -> tuple[int, int]:
    """Order of the owners of lists: the pre list, the peers, the post list."""
    return (peer.priority if peer is not None else -(1 << 31) if owner == PRE else 1 << 31), owner


def of_peer(peer: Peer, has_children: bool) -> Verdict | None:
    """Of a peer with a traffic list."""
    return peer.verdict if peer.verdict is not None or has_children else NOTHING_TO_PROTECT


def of_rule(verdicts: Collection[Verdict | None]) -> Verdict | None:
    """Of a rule, from what there is to say of it in each list it is in, in their order."""
    for state in (ApplyState.FAILED, ApplyState.PENDING):
        for verdict in verdicts:
            if verdict is not None and verdict.state is state:
                return verdict
    working = [v for v in verdicts if v is None or v.state is ApplyState.APPLIED]
    rest = [v for v in verdicts if v is not None and v.state is not ApplyState.APPLIED]
    if not working and rest:
        return next((v for v in rest if v.state is ApplyState.SHADOWED), rest[0])
    texts = list(dict.fromkeys(v.text for v in [*working, *rest] if v is not None and v.text))
    more = [f"and so in {len(texts) - TOLD} other lists"] if len(texts) > TOLD else []
    return Verdict(ApplyState.APPLIED, "; ".join(texts[:TOLD] + more)) if texts else None


def in_list(owner: int, made: Made, holders: Edit[PolicyKey, Policy], chain: Chain) -> Verdict | None:
    """Of a rule in one list. `holders`: who has the keys it wants."""
    lost: list[tuple[Policy, Policy]] = []
    deciding = [policy for policy in made.policies if spd.is_main(made.rule, policy.key)]
    for policy in deciding:
        holder = holders.get(policy.key)
        if holder is None or holder is policy:
            continue
        if holder.row != policy.row or made.rule.action == RuleAction.PROTECT:  # else its own in another list
            lost.append((policy, holder))
    if lost:
        _, holder = lost[0]
        where = f"the {lost[0][0].key.direction.name.lower()} selector"
        who = f"rule {holder.row.number}" if holder.row.table == TRAFFIC else holder.rule
        if holder.peer and holder.peer != owner:
            who += f" of peer {holder.peer}"
        if len(lost) == len(deciding):
            list_ = f" (list of peer {owner})" if owner > 0 else ""
            return Verdict(ApplyState.SHADOWED, f"same selector as {who}, which comes first{list_}")
        return Verdict(ApplyState.APPLIED, f"{where} belongs to {who}, which comes first")
    if made.verdict is None and chain.broken and chain.rules[-1:] == (made.rule.number,):
        return Verdict(ApplyState.APPLIED, f"{NOT_IN_SERVICE} ({chain.broken})")
    return made.verdict
