"""What the plan has to say of each row: that it cannot be, is not used or comes too late, and warnings."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from agent.plan import spd
from agent.plan.chains import PRE, Chain
from agent.plan.connections import Peer
from agent.plan.layered import Edit
from agent.plan.model import ApplyState, Environment, Policy, PolicyKey, Verdict
from agent.plan.spd import TRAFFIC
from agent.plan.state import Made
from agent.plan.traffic import Rule, RuleAction, RuleDirection, SideKind

DROPPED: Final = "its packets are dropped"
TOLD: Final = 2  # lists of which a rule's verdict says what is special there
NO_LIST: Final = Verdict(ApplyState.UNUSED, "in no list: neither a peer nor the pre or post list leads to it")
BREAKS_OFF: Final = "the list breaks off here: there is no next rule"
OUT_OF_SERVICE: Final = Verdict(ApplyState.UNUSED, "not in service")
PROTECT_OUTSIDE: Final = Verdict(ApplyState.UNUSED, "protect rules count in the lists of peers only")
NO_PEER_OUTSIDE: Final = Verdict(
    ApplyState.UNUSED, "the peer's address means nothing in the pre and post lists; it counts in the lists of peers"
)
NO_DEFAULT_ROUTE: Final = Verdict(
    ApplyState.PENDING, "there is no default route, so no own address; the rule counts once there is one"
)
OWN_IPV6_PASSES_BY: Final = Verdict(
    ApplyState.APPLIED,
    "without nftables the gateway's own IPv6 packets do not meet it on their way out, since the kernel does not tell "
    "their interface",
)
OWN_IPV6_COMES_LATE: Final = Verdict(
    ApplyState.APPLIED,
    "the gateway's own IPv6 packets that a later rule or the default rule drops are dropped: the kernel tells their "
    "interface after that",
)
NOTHING_TO_PROTECT: Final = Verdict(ApplyState.APPLIED, "its list has no protect rule, so there is no tunnel")
NONE_CAN_BE_MADE: Final = "no protect rule of its list can be made"
NONE_DECIDES: Final = "none of its protect rules decides"


def address_unknown(peer: int) -> Verdict:
    return Verdict(ApplyState.PENDING, f"the outer addresses towards peer {peer} are not known yet")


def not_called(peer: int, has_parts: bool) -> Verdict:
    text = DROPPED if has_parts else "what it covers is not known"
    return Verdict(ApplyState.APPLIED, f"{text} until peer {peer} has called")


def no_interface(index: int) -> Verdict:
    return Verdict(ApplyState.PENDING, f"there is no interface {index}; the rule counts once there is")


def not_marked(action: int, lack: str) -> Verdict:
    """Of a rule about an interface where the packet filter cannot mark what arrives."""
    meanwhile = {
        RuleAction.PROTECT: "; what would leave by it is dropped",
        RuleAction.DROP: "; only what leaves by it is dropped",
    }.get(RuleAction(action), "")
    why = f" ({lack})" if lack else ""
    return Verdict(
        ApplyState.FAILED, f"without nftables{why} nothing tells by which interface a packet came{meanwhile}"
    )


def of_world(owner: int, rule: Rule, environment: Environment) -> Verdict | None:
    """What there is to say of a rule because of the world, whatever its action."""
    if owner < 0 and rule.remote.kind == SideKind.OUTER:
        return NO_PEER_OUTSIDE
    if not rule.parts:
        return NO_DEFAULT_ROUTE if owner < 0 else address_unknown(owner)
    if not rule.interface:
        return None
    protects = rule.action == RuleAction.PROTECT
    if not environment.capabilities.nftables and (protects or rule.direction != RuleDirection.OUTBOUND):
        return not_marked(rule.action, environment.capabilities.nftables_lack)
    if rule.interface not in environment.interfaces:
        return no_interface(rule.interface)
    if len(rule.parts[0].source.address) == 16 and (protects or rule.direction != RuleDirection.INBOUND):
        if not environment.capabilities.nftables:
            return OWN_IPV6_PASSES_BY
        return OWN_IPV6_COMES_LATE if rule.action != RuleAction.DROP else None
    return None


def turn(owner: int, peer: Peer | None) -> tuple[int, int]:
    """Order of the owners of lists: the pre list, the peers, the post list."""
    return (peer.priority if peer is not None else -(1 << 31) if owner == PRE else 1 << 31), owner


def of_peer(
    peer: Peer, has_children: bool, none_decides: bool, first: tuple[int, Verdict | None] | None
) -> Verdict | None:
    """Of a peer with a traffic list. `none_decides`: all its protect rules are idle; `first`: the first of them, with
    what there is to say of it."""
    if not peer.usable or (has_children and not none_decides):
        return peer.verdict
    if first is None:
        return peer.verdict or NOTHING_TO_PROTECT
    number, verdict = first
    said = verdict.text.removesuffix(_of_list(peer.number)) if verdict is not None else ""
    why = f"; rule {number}: {said}" if said else ""
    if not has_children:
        return Verdict(ApplyState.FAILED, NONE_CAN_BE_MADE + why)
    before = f"{peer.verdict.text}; " if peer.verdict is not None and peer.verdict.text else ""
    return Verdict(ApplyState.APPLIED, before + NONE_DECIDES + why)


def is_idle(verdict: Verdict | None) -> bool:
    """Whether a rule of which this is said decides about no packet."""
    return verdict is not None and verdict.state in (ApplyState.FAILED, ApplyState.SHADOWED)


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
    deciding: list[Policy] = []
    held = [(policy, holders.get(policy.key)) for policy in made.policies]
    if any(holder is not None and holder is not policy for policy, holder in held):  # seldom
        keys = spd.deciding_keys(made.rule)
        deciding = [policy for policy in made.policies if policy.key in keys]
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
            return Verdict(ApplyState.SHADOWED, f"same selector as {who}, which comes first{_of_list(owner)}")
        return Verdict(ApplyState.APPLIED, f"{where} belongs to {who}, which comes first")
    if made.verdict is None and chain.broken and chain.rules[-1:] == (made.rule.number,):
        return Verdict(ApplyState.APPLIED, f"{BREAKS_OFF} ({chain.broken})")
    return made.verdict


def _of_list(owner: int) -> str:
    return f" (list of peer {owner})" if owner > 0 else ""
