"""What becomes of a packet under a plan, by which policy and which row.

The kernel's lookup, told: a packet made here is asked for in `out`, one for this host in
`in`, a forwarded one in `fwd` and then in `out`. A policy about an interface looks at the one by
which the packet leaves, or at the mark of the one by which it came. A policy with a template wants the packet
out of that very tunnel, inbound; one without refuses a packet that came out of any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agent.plan import numbers, spd
from agent.plan.model import Action, Direction, Flow, Policy, RowRef, Scope
from agent.plan.numbers import MARK_MASK, MARK_SHIFT
from agent.plan.peer_selectors import PEER_TRAFFIC
from agent.plan.peers import PEERS
from agent.plan.result import Plan
from agent.plan.selectors import Bits, bits, flow_bits, marked, of_interface, overlap

PROTECT: Final = "protect"
PASS: Final = "pass"
DROP: Final = "drop"

WAYS: Final = {
    "out": (Direction.OUT,),
    "in": (Direction.IN,),
    "forward": (Direction.FWD, Direction.OUT),
}
NAMES: Final = {
    "ipsecTrafficTable": ("rule", "ipsecTrDescription"),
    "ipsecPeerTable": ("peer", "ipsecPeerDescription"),
    PEER_TRAFFIC: ("selector", "ipsecPeerTrafficDescription"),
}


@dataclass(frozen=True, slots=True)
class Explanation:
    """`decision`: protect (through a tunnel), pass (in plain) or drop; `policy` that decided, None when none matched;
    `rule`: the row it comes from, a rule or the scalars of the default rule; `text` says why."""

    decision: str
    policy: Policy | None
    rule: RowRef | None
    text: str

    def __str__(self) -> str:
        return f"{self.decision}: {self.text}"


def explain(plan: Plan, flow: Flow) -> Explanation:
    """What becomes of one packet. Raises ValueError for a `way` that is none of out, in, forward."""
    return explain_all(plan, (flow,))[0]


def explain_all(plan: Plan, flows: Sequence[Flow]) -> list[Explanation]:
    """What becomes of several packets, in one walk over the policies."""
    if not plan.enabled:
        return [Explanation(PASS, None, None, "IPsec is switched off (ipsecGlobEnabled)") for _ in flows]
    asked = [_asked(plan, flow) for flow in flows]
    found = iter(matching(plan, [question for questions in asked for question in questions]))
    return [
        _decide(
            plan,
            flow,
            [
                (direction, policies.get(direction))
                for _, directions in questions
                for policies in (next(found),)
                for direction in directions
            ],
        )
        for flow, questions in zip(flows, asked, strict=True)
    ]


Question = tuple[Bits, tuple[Direction, ...]]


def _asked(plan: Plan, flow: Flow) -> list[Question]:
    """What the kernel asks about a packet, in order. Of one that came out of a virtual interface it asks the policies
    with that interface's id on its way in, and of one that goes into one these too, in the end."""
    packet = flow_bits(flow)
    directions = _directions(flow)
    came, goes = (_is_virtual(plan, interface) for interface in (flow.from_interface, flow.to_interface))
    if not came and not goes:
        return [(packet, directions)]
    if came:
        packet = marked(packet, numbers.PACKET_MARK)
    questions: list[Question] = []
    for direction in directions:
        inside = came and direction is not Direction.OUT
        questions.append((of_interface(packet, flow.from_interface) if inside else packet, (direction,)))
    if goes and directions[-1] is Direction.OUT:
        questions.append((of_interface(packet, flow.to_interface), (Direction.OUT,)))
    return questions


def _is_virtual(plan: Plan, interface: int) -> bool:
    link = plan.links.get(interface - numbers.INTERFACE_BASE)
    return link is not None and link.number == interface


def _directions(flow: Flow) -> tuple[Direction, ...]:
    if flow.way not in WAYS:
        raise ValueError(f"no way of a packet: {flow.way}; accepted: {', '.join(WAYS)}")
    return WAYS[flow.way]


def matching(plan: Plan, wanted: Sequence[tuple[Bits, tuple[Direction, ...]]]) -> list[dict[Direction, Policy]]:
    """For each packet the first matching policy of each direction asked for."""
    found: list[dict[Direction, Policy]] = [{} for _ in wanted]
    asked = {direction for _, directions in wanted for direction in directions}
    for key, policy in plan.policies.items():
        direction = key.direction
        if direction not in asked:
            continue
        under = bits(key.selector, key.scope)
        for place, (packet, directions) in enumerate(wanted):
            if direction in directions and overlap(under, packet):
                held = found[place].get(direction)
                if held is None or policy.priority < held.priority:
                    found[place][direction] = policy
    return found


def _decide(plan: Plan, flow: Flow, stages: Sequence[tuple[Direction, Policy | None]]) -> Explanation:
    """From the policies found, in the order in which they are asked for."""
    protected = flow.decrypted > 0
    last: Policy | None = None
    virtual = len(stages) > len(WAYS[flow.way])
    for place, (direction, policy) in enumerate(stages):
        if policy is None and virtual and place == len(stages) - 1:
            return Explanation(DROP, None, None, "routed to a virtual interface that protects nothing like it")
        inbound = direction is not Direction.OUT
        if policy is None:
            if inbound and flow.decrypted:
                return Explanation(
                    DROP, None, None, f"came out of the tunnel of {_peer(plan, flow.decrypted)}, and no rule expects it"
                )
            protected = protected and inbound
            continue
        last = policy
        if policy.action is Action.BLOCK:
            return Explanation(DROP, policy, policy.row, f"{_row(plan, policy)}: {_why_blocked(plan, policy)}")
        if not inbound:
            protected = bool(policy.templates)
        elif policy.templates:
            if flow.decrypted != policy.peer:
                came = f"came out of that of {_peer(plan, flow.decrypted)}" if flow.decrypted else "came in plain"
                wants = f"expected out of the tunnel of {_peer(plan, policy.peer)}"
                return Explanation(DROP, policy, policy.row, f"{_row(plan, policy)}: {wants}, {came}")
        elif flow.decrypted:
            return Explanation(
                DROP,
                policy,
                policy.row,
                f"{_row(plan, policy)}: expected in plain, came out of the tunnel of {_peer(plan, flow.decrypted)}",
            )
    if last is None:
        return Explanation(PASS, None, None, "no rule matches, and the default rule lets it pass")
    if not protected:
        return Explanation(PASS, last, last.row, f"{_row(plan, last)}: {last.rule}")
    which = _peer(plan, last.peer or flow.decrypted)
    return Explanation(PROTECT, last, last.row, f"{_row(plan, last)}: tunnel of {which}")


def _why_blocked(plan: Plan, policy: Policy) -> str:
    """Of a tunnel that cannot be made: what the rule's row says."""
    verdict = plan.verdicts.get(policy.row) if policy.rule == spd.WHY_BLOCKED else None
    return f"{policy.rule}: {verdict.text}" if verdict is not None and verdict.text else policy.rule


def _labelled(plan: Plan, table: str, number: int) -> str:
    """`rule 12 "printers"`."""
    name, column = NAMES[table]
    row = plan.configuration.row(table, number)
    text = row[column] if row is not None else b""
    label = text.decode("utf-8", "backslashreplace") if isinstance(text, bytes) else ""
    return f'{name} {number} "{label}"' if label else f"{name} {number}"


def _peer(plan: Plan, number: int) -> str:
    return _labelled(plan, PEERS, number)


def _by_interface(plan: Plan, scope: Scope) -> str:
    """` (leaves by eth0)` of a rule about one interface."""
    index, how = (scope.interface, "leaves") if scope.interface else (scope.mark >> MARK_SHIFT, "came")
    if not index or (not scope.interface and scope.mask != MARK_MASK):
        return ""
    name = plan.environment.link_names.get(index)
    return f" ({how} by {f'{name} ({index})' if name else f'interface {index}'})"


def _row(plan: Plan, policy: Policy) -> str:
    """Who decided."""
    if policy.row.table == spd.TRAFFIC:
        owner = f" of {_peer(plan, policy.peer)}" if policy.peer else ""
        return _labelled(plan, spd.TRAFFIC, policy.row.number) + owner + _by_interface(plan, policy.key.scope)
    if policy.row.table == PEER_TRAFFIC:
        return f"{_labelled(plan, PEER_TRAFFIC, policy.row.number)} of {_peer(plan, policy.peer)}"
    if policy.row.table == PEERS:
        return f"virtual interface of {_peer(plan, policy.row.number)}"
    return "ipsecGlobContDefaultRule" if policy.row == spd.DEFAULT_ROW else "built in"
