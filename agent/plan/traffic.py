"""A traffic rule as its row says it: two sides, each a net, a range or an outer address, protocol, ports, interface.

The kernel knows prefixes only, so a rule is a few *parts*, selectors that together cover
what the rule does: one for most rules, a pair of prefixes each where a side is a range. What
the row does not say itself, our outer address or the peer's, is filled in by `with_outer`
for the list the rule is in. Sources: guide 2.1 and 3.3, ipsecTrafficTable, ipsecGwTraffic6Table.
"""

from __future__ import annotations

import ipaddress
from enum import IntEnum
from typing import Final, NamedTuple

from agent.plan import cells
from agent.plan.model import ANY_PORT, Ports, Prefix, RowView, Selector
from agent.plan.numbers import MARKED_INTERFACE_LAST
from agent.plan.selectors import ANYWHERE, host, one_port, range_prefixes

ANY_PROTOCOL: Final = 255  # ipsecTrProto dont-verify
PORT_PROTOCOLS: Final = {6: "tcp", 17: "udp", 132: "sctp", 136: "udplite"}
UDP, GRE = 17, 47
ANY_INTERFACE: Final = -1
DHCP_PORTS: Final = {4: (67, 68), 16: (547, 546)}  # server, client
NOWHERE: Final = bytes(4)

MOST_PARTS: Final = 1024
"""Pairs of prefixes a rule may take, five policies each. One range takes at most 62 (of IPv6 254), so only two ranges,
both badly aligned, take more."""


class RuleAction(IntEnum):
    """ipsecTrAction; NOTHING is ours, of a rule that is not in service."""

    NOTHING = 0
    DELETE = 1
    ALWAYS_PLAIN = 2
    PASS = 3
    PROTECT = 4
    DROP = 5


class RuleDirection(IntEnum):
    """ipsecTrDirection."""

    BOTH = 1
    INBOUND = 2
    OUTBOUND = 3


class SideKind(IntEnum):
    """ipsecTrLocalAddressType, ipsecTrRemoteAddressType. OUTER (ph1): our own or the peer's outer address."""

    FIXED = 1
    OUTER = 2
    DHCP = 3


class Side(NamedTuple):
    """`nets`: what it covers; of an outer address nothing as long as it is not known. `first`, `last`: of a range,
    else empty."""

    kind: int
    nets: tuple[Prefix, ...]
    first: bytes = b""
    last: bytes = b""


class Rule(NamedTuple):
    """What the plan needs of a row of ipsecTrafficTable. `parts`: local to remote, as a packet carries it. `interface`:
    0 for any. `problem`: why no policy can be made of it, '' when one can."""

    number: int
    next: int
    action: int
    direction: int
    local: Side
    remote: Side
    protocol: int
    local_port: Ports
    remote_port: Ports
    interface: int
    profile: int
    problem: str
    parts: tuple[Selector, ...]

    @property
    def floats(self) -> bool:
        """Whether it depends on outer addresses."""
        return SideKind.OUTER in (self.local.kind, self.remote.kind)


# ---- what is wrong with a row -----------------------------------------------------------


def net_problem(address: bytes, length: int) -> str:
    """Why an IPv4 address and a mask length are no net; '' when they are one."""
    if not 0 <= length <= 32:
        return "a mask has 0 to 32 bits; accepted: 0..32"
    if length == 0 and address != bytes(4):
        return "an address with mask 0 would stand for every address; accepted: a mask of 1..32 with it"
    if int.from_bytes(address, "big") & (1 << (32 - length)) - 1:
        net = int.from_bytes(address, "big") >> (32 - length) << (32 - length)
        dotted = ".".join(map(str, net.to_bytes(4, "big")))
        return f"the address has host bits beyond the mask; accepted: {dotted} with mask {length}"
    return ""


def net6_problem(address: bytes, length: int) -> str:
    """The same of IPv6."""
    if length == 0 and any(address):
        return "an address with prefix length 0 would stand for every address; accepted: 1..128 with it"
    if int.from_bytes(address, "big") & (1 << (128 - length)) - 1:
        return f"the address has host bits beyond the prefix; accepted: a net of {length} bits"
    return ""


def port_problem(protocol: int, port: int) -> str:
    """Why a port cannot be matched for this protocol; '' when it can."""
    if not -1 <= port <= 65535:
        return "no port; accepted: 1..65535, 0 or -1 for any"
    if port > 0 and protocol not in PORT_PROTOCOLS:
        return f"ports go with {', '.join(PORT_PROTOCOLS.values())} only; accepted: 0 or -1 for any"
    return ""


def interface_problem(index: int) -> str:
    """Why a number is no interface of a rule; '' when it may be one, whether it is there or not."""
    if index < ANY_INTERFACE:
        return "no index of an interface; accepted: 1 and more, -1 or 0 for any interface"
    if index > MARKED_INTERFACE_LAST:
        return f"packets are marked with indices of 20 bits; accepted: 1..{MARKED_INTERFACE_LAST}, -1 or 0 for any"
    return ""


def parts_problem(local: Side, remote: Side) -> str:
    """Why two sides cannot be a rule together; '' when they can."""
    count = len(local.nets) * len(remote.nets)
    if count > MOST_PARTS:
        return (
            f"the ranges of both sides take {len(local.nets)} times {len(remote.nets)} prefixes; accepted: "
            f"{MOST_PARTS} pairs at most: a range that begins and ends at a rounder address, or several rules"
        )
    return ""


# ---- reading a row ------------------------------------------------------------------------


def read_rule(row: RowView) -> Rule:
    """A row of ipsecTrafficTable, as far as it says everything itself."""
    protocol = cells.number(row, "ipsecTrProto")
    family = 16 if is_ipv6(row) else 4
    problem = ""
    sides, ports = [], []
    for where in ("Local", "Remote"):
        side, trouble = read_side(row, where, family)
        port = cells.number(row, f"ipsecTr{where}Port")
        problem = problem or trouble or port_problem(protocol, port)
        sides.append(side)
        ports.append(one_port(port))
    local, remote = sides
    interface = cells.number(row, "ipsecTrInterface")
    problem = problem or interface_problem(interface) or parts_problem(local, remote)
    if remote.kind == SideKind.DHCP:
        problem = problem or dhcp_problem(protocol, ports)
        protocol = UDP
        ports = [one_port(port) for port in DHCP_PORTS[family]]
    rule = Rule(
        row.number,
        cells.number(row, "ipsecTrNextIndex"),
        cells.number(row, "ipsecTrAction"),
        cells.number(row, "ipsecTrDirection"),
        local,
        remote,
        0 if protocol == ANY_PROTOCOL else protocol,
        ports[0],
        ports[1],
        max(interface, 0),
        cells.number(row, "ipsecTrProfile"),
        problem,
        (),
    )
    return rule if problem else rule._replace(parts=_parts(rule))


def out_of_service(row: RowView) -> Rule:
    """A rule whose row is not in service: it does nothing but lead on to the next one, as if it were deleted. The list
    must not end with it, for what the rules behind it protect would leave in plain."""
    nothing = Side(SideKind.FIXED, ())
    following = cells.number(row, "ipsecTrNextIndex")
    return Rule(
        *(row.number, following, RuleAction.NOTHING, RuleDirection.BOTH, nothing, nothing, 0, ANY_PORT, ANY_PORT),
        *(0, 0, "", ()),
    )


def is_ipv6(row: RowView) -> bool:
    """Whether a rule is about IPv6: it has an address in ipsecGwTraffic6Table, which takes the place of the other."""
    return any(cells.octets(row, f"ipsecGwTr{where}Address6") for where in ("Local", "Remote"))


def read_side(row: RowView, where: str, family: int) -> tuple[Side, str]:
    """One side, `Local` or `Remote`, and what is wrong with it."""
    kind = cells.number(row, f"ipsecTr{where}AddressType")
    if kind == SideKind.OUTER:
        return Side(kind, ()), ""
    if kind == SideKind.DHCP:
        return Side(kind, (ANYWHERE[family],)), ""
    if family == 16:
        names = (f"ipsecGwTr{where}{what}6" for what in ("Address", "PrefixLength", "Range"))
        address, length, end = names
        first, last = cells.octets(row, address), cells.octets(row, end)
        if len(first) != 16:
            return Side(kind, ()), "a rule is of one family; accepted: IPv6 addresses on both sides, :: /0 for any"
        trouble = "" if last else net6_problem(first, cells.number(row, length))
    else:
        address, length, end = (f"ipsecTr{where}{what}" for what in ("Address", "MaskLen", "Range"))
        first, last = cells.octets(row, address), cells.octets(row, end)
        last = b"" if last == NOWHERE else last
        trouble = "" if last else net_problem(first, cells.number(row, length))
    if trouble:
        return Side(kind, ()), trouble
    if not last:
        return Side(kind, (Prefix(first, cells.number(row, length)),)), ""
    if last < first:
        return Side(kind, ()), "the range ends before it begins"
    nets = range_prefixes(first, last)
    if len(nets) == 1:
        return Side(kind, nets), ""
    return Side(kind, nets, first, last), ""


def dhcp_problem(protocol: int, ports: list[Ports]) -> str:
    """DHCP is UDP between ports that are known (RFC 2131 4.1)."""
    if protocol not in (UDP, ANY_PROTOCOL):
        return "DHCP is UDP; accepted: ipsecTrProto udp(17) or dont-verify(255)"
    if ports != [ANY_PORT, ANY_PORT]:
        return "the ports of DHCP are known; accepted: 0 or -1 for both"
    return ""


# ---- filling in ---------------------------------------------------------------------------


def with_outer(rule: Rule, local: bytes | None, remote: bytes | None) -> Rule:
    """The rule with the outer addresses, where it asks for them and as far as they are known."""
    if rule.problem or not rule.floats:
        return rule
    local_side, remote_side = _filled(rule.local, local), _filled(rule.remote, remote)
    filled = rule._replace(local=local_side, remote=remote_side)
    if not local_side.nets or not remote_side.nets:
        return filled
    address, other = local_side.nets[0].address, remote_side.nets[0].address
    if len(address) != len(other):
        texts = " and ".join(str(ipaddress.ip_address(each)) for each in (address, other))
        return filled._replace(problem=f"{texts} are of different families, a rule is of one")
    return filled._replace(parts=_parts(filled))


def inside_gre(rule: Rule) -> Rule:
    """ipsecPrfForceTunnelMode tp-greip: whatever the rule covers travels in GRE between the gateways, so what is
    protected is GRE between them."""
    outer = Side(SideKind.OUTER, ())
    return rule._replace(
        local=outer, remote=outer, protocol=GRE, local_port=ANY_PORT, remote_port=ANY_PORT, problem="", parts=()
    )


def covers_gateways(rule: Rule, local: bytes | None, remote: bytes | None) -> bool:
    """Whether the rule is about just the two gateways, so that transport mode suffices."""
    return _is_just(rule.local, local) and _is_just(rule.remote, remote)


def _is_just(side: Side, address: bytes | None) -> bool:
    return side.kind == SideKind.OUTER or (address is not None and side.nets == (host(address),))


def _filled(side: Side, address: bytes | None) -> Side:
    if side.kind != SideKind.OUTER:
        return side
    return side._replace(nets=(host(address),) if address is not None else ())


def _parts(rule: Rule) -> tuple[Selector, ...]:
    return tuple(
        Selector(local, remote, rule.protocol, rule.local_port, rule.remote_port)
        for local in rule.local.nets
        for remote in rule.remote.nets
    )
