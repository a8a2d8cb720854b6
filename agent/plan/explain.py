"""What becomes of a packet under a plan, by which policy and which row.

The kernel's lookup, told: a packet made here is asked for in `out` (an IPv6 one twice, see
outbound.py), one for this host in `in`, a forwarded one in `fwd` and then in `out`. A policy
about an interface looks at the one by which the packet leaves, or at the mark of the one by
which it came. A policy with a template wants the packet out of that very tunnel, inbound; one
without refuses a packet that came out of any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from agent.mib.schema import show_text
from agent.plan import numbers, spd, verdicts
from agent.plan.flows import WORDS
from agent.plan.links import covers, routing_rules
from agent.plan.model import Action, Direction, Flow, Policy, RowRef, Scope
from agent.plan.numbers import INTERFACE_BASE, MARK_MASK, MARK_SHIFT
from agent.plan.peer_selectors import PEER_TRAFFIC
from agent.plan.peers import PEERS
from agent.plan.result import Plan
from agent.plan.selectors import Bits, bits, flow_bits, is_asked_early, overlap
from agent.plan.virtual import WHY_ROUTED

PROTECT: Final = "protect"
PASS: Final = "pass"
DROP: Final = "drop"
EARLY: Final = ", before the interface of an IPv6 packet of our own is known"

WAYS: Final = {
    "out": (Direction.OUT,),
    "in": (Direction.IN,),
    "forward": (Direction.FWD, Direction.OUT),
}
WITH_PORTS: Final = frozenset({6, 17, 33, 132, 136})  # tcp, udp, dccp, sctp, udplite
EPHEMERAL: Final = 49152  # a packet's source port where none is said: the first of the dynamic ones (RFC 6335 6)
PORT_LAST: Final = 0xFFFF

NAMES: Final = {
    "ipsecTrafficTable": ("rule", "ipsecTrDescription"),
    "ipsecPeerTable": ("peer", "ipsecPeerDescription"),
    PEER_TRAFFIC: ("selector", "ipsecPeerTrafficDescription"),
}

Wanted = tuple[Bits, tuple[Direction, ...]]
"""A packet and the directions it is asked for in."""

Answer = dict[Direction, Policy]


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
    wanted = [_wanted(flow, plan) for flow in flows]
    found = iter(matching(plan, [one for several in wanted for one in several]))
    told = []
    for flow, several in zip(flows, wanted, strict=True):
        comes, *goes = islice(found, len(several))
        early = _blocks(goes[0]) and not _blocks(goes[-1])
        told.append(_decide(plan, flow, comes | counting(goes), early=early))
    return told


def source_ports(plan: Plan, flow: Flow) -> list[int]:
    """Where something about the packet may begin to depend on its source port, whatever that is: 0 first, then the
    first ports of ranges that are told apart."""
    ranges = {rule.source_ports for rule in routing_rules(plan.links.values()) if rule.source_ports != (0, 0)}
    for source, destination, protocol, ports, _ in {key.selector for key in plan.policies if key[1].source_port.mask}:
        if protocol in (0, flow.protocol) and covers(source, flow.source) and covers(destination, flow.destination):
            ranges.add((ports.port, ports.port | (PORT_LAST & ~ports.mask)))
    begin = {0}.union(*((first, last + 1) for first, last in ranges))
    return sorted(port for port in begin if port <= PORT_LAST)


def _wanted(flow: Flow, plan: Plan) -> list[Wanted]:
    """What is asked when it comes, and when it goes. What comes out of a virtual interface meets the policies of that
    one; on its way out it is a packet like any other."""
    directions = _directions(flow)
    comes = tuple(direction for direction in directions if direction is not Direction.OUT)
    out_of = flow.from_interface if flow.decrypted and flow.from_interface > INTERFACE_BASE else 0
    return [(flow_bits(flow, out_of), comes), *leaving(flow, plan)]


def leaving(flow: Flow, plan: Plan) -> list[Wanted]:
    """What is asked when a packet leaves: once, or twice."""
    goes = tuple(direction for direction in _directions(flow) if direction is Direction.OUT)
    asked: list[Wanted] = [(flow_bits(flow), goes)]
    if is_asked_early(flow) and plan.environment.capabilities.nftables:
        asked.append((flow_bits(flow, again=True), goes))
    return asked


def counting(answers: Sequence[Answer]) -> Answer:
    """Of the answers to a packet that leaves the one that counts: the first that blocks, else the last."""
    return next(filter(_blocks, answers), answers[-1])


def _blocks(answer: Answer) -> bool:
    held = answer.get(Direction.OUT)
    return held is not None and held.action is Action.BLOCK


def _directions(flow: Flow) -> tuple[Direction, ...]:
    if flow.way not in WAYS:
        raise ValueError(f"no way of a packet: {flow.way}; accepted: {', '.join(WAYS)}")
    return WAYS[flow.way]


def matching(plan: Plan, wanted: Sequence[Wanted]) -> list[Answer]:
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


def _decide(plan: Plan, flow: Flow, policies: Answer, *, early: bool = False) -> Explanation:
    protected = flow.decrypted > 0
    last: Policy | None = None
    for direction in WAYS[flow.way]:
        policy = policies.get(direction)
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
            why = _why_blocked(plan, policy) + (EARLY if early else "")
            return Explanation(DROP, policy, policy.row, f"{_row(plan, policy)}: {why}")
        if not inbound:
            protected = bool(policy.templates) or policy.rule == WHY_ROUTED
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
    return Explanation(PROTECT, last, last.row, f"{_row(plan, last)}: tunnel of {which}{_split(plan, last)}")


def _split(plan: Plan, policy: Policy) -> str:
    """Of what has flows with SAs of their own (ipsecPrfGranularity)."""
    of_peer = policy.row.table == PEERS  # a virtual interface with one selector for everything
    child = plan.children.get(numbers.child_name(policy.peer, 0 if of_peer else policy.row.number))
    if child is None or child.fine is None:
        return ""
    return f", in which {WORDS[child.fine.granularity]}"


def _why_blocked(plan: Plan, policy: Policy) -> str:
    """Of a tunnel that cannot be made: what the rule's row says, but for what that means."""
    verdict = plan.verdicts.get(policy.row) if policy.rule == spd.WHY_BLOCKED else None
    if verdict is None or not verdict.text:
        return policy.rule
    return f"{policy.rule}: {verdict.text.removeprefix(verdicts.DROPPED).removeprefix(': ')}"


def _labelled(plan: Plan, table: str, number: int) -> str:
    """`rule 12 "printers"`."""
    name, column = NAMES[table]
    row = plan.configuration.row(table, number)
    text = row[column] if row is not None else b""
    return f"{name} {number} {show_text(text)}" if isinstance(text, bytes) and text else f"{name} {number}"


def _peer(plan: Plan, number: int) -> str:
    return _labelled(plan, PEERS, number)


def _by_interface(plan: Plan, scope: Scope) -> str:
    """` (leaves by eth0)` of a rule about one interface."""
    index, how = (scope.interface, "leaves") if scope.interface else (scope.mark >> MARK_SHIFT, "came")
    if not index or (not scope.interface and scope.mask != MARK_MASK):
        return ""
    name = plan.environment.interfaces.get(index)
    return f" ({how} by {f'{name} ({index})' if name else f'interface {index}'})"


def _row(plan: Plan, policy: Policy) -> str:
    """Who decided."""
    if policy.row.table == spd.TRAFFIC:
        owner = f" of {_peer(plan, policy.peer)}" if policy.peer else ""
        return _labelled(plan, spd.TRAFFIC, policy.row.number) + owner + _by_interface(plan, policy.key.scope)
    if policy.row.table == PEER_TRAFFIC:
        return f"{_labelled(plan, PEER_TRAFFIC, policy.row.number)} of {_peer(plan, policy.peer)}"
    if policy.row.table == PEERS:
        return f"the interface of {_peer(plan, policy.row.number)}"
    return "ipsecGlobContDefaultRule" if policy.row == spd.DEFAULT_ROW else "built in"
