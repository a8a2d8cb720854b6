"""Links, addresses, routes and routing rules as rtnetlink carries them: the declared structures, readers and writers.

Only what is ours to make is here: XFRM interfaces, their addresses, routes of the main table
and of theirs, and rules that lead to these. Everything we make bears our protocol number
where the kernel has a place for one, so that it is known again. Sources: rtnetlink(7),
linux/if_link.h, linux/if_addr.h, linux/rtnetlink.h, linux/fib_rules.h; IFLA_XFRM_*: linux/if_link.h.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from agent.backends.xfrm.messages import attributes, encode_attribute
from agent.backends.xfrm.netlink import NETLINK_ROUTE, Message, NetlinkSocket
from agent.backends.xfrm.structures import S32, U8, U16, U32, Structure
from agent.plan.links import ELSEWHERE, MAIN_TABLE, NOWHERE, Address, Route, RoutingRule
from agent.plan.model import Prefix
from agent.plan.numbers import INTERFACE_BASE, ROUTE_PROTOCOL

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34

# RTNLGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV4_RULE, _IPV6_IFADDR, _IPV6_ROUTE, _IPV6_RULE
GROUPS: Final = (1, 5, 7, 8, 9, 11, 19)

CREATE: Final = 0x400  # NLM_F_CREATE
EXCLUSIVE: Final = 0x200  # NLM_F_EXCL
REPLACE: Final = 0x100  # NLM_F_REPLACE

IFF_UP: Final = 1
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_OPERSTATE, IFLA_LINKMODE, IFLA_LINKINFO = 1, 3, 4, 16, 17, 18
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
IFLA_XFRM_LINK, IFLA_XFRM_IF_ID = 1, 2
LINKMODE_DEFAULT, LINKMODE_DORMANT = 0, 1
XFRM_KIND: Final = "xfrm"

IFA_ADDRESS, IFA_LOCAL, IFA_PROTO = 1, 2, 11
IFA_F_NODAD: Final = 2
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK = 0, 253

RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_TABLE = 1, 4, 5, 6, 7, 15
RTN_UNICAST, RTN_UNREACHABLE, RTN_THROW = 1, 7, 9
TYPES_WITHOUT_LINK: Final = {NOWHERE: RTN_UNREACHABLE, ELSEWHERE: RTN_THROW}
WITHOUT_LINK: Final = {type: place for place, type in TYPES_WITHOUT_LINK.items()}
ONE_OCTET: Final = 255  # the table of the fixed part is one
RT_TABLE_COMPAT: Final = 252  # there, where the number does not fit
IPV6_DEFAULT_METRIC: Final = 1024  # what the kernel makes of metric 0

LINK_MESSAGE: Final = Structure("ifinfomsg", family=U8, pad=U8, type=U16, index=S32, flags=U32, change=U32)
ADDRESS_MESSAGE: Final = Structure("ifaddrmsg", family=U8, prefixlen=U8, flags=U8, scope=U8, index=U32)
ROUTE_MESSAGE: Final = Structure(
    "rtmsg",
    family=U8,
    dst_len=U8,
    src_len=U8,
    tos=U8,
    table=U8,
    protocol=U8,
    scope=U8,
    type=U8,
    flags=U32,
)
FRA_DST, FRA_SRC, FRA_IIFNAME, FRA_PRIORITY, FRA_TABLE = 1, 2, 3, 6, 15
FRA_SUPPRESS_PREFIXLEN, FRA_PROTOCOL, FRA_IP_PROTO, FRA_SPORT_RANGE, FRA_DPORT_RANGE = 14, 21, 22, 23, 24
FR_ACT_TO_TBL: Final = 1
FIB_RULE_FIND_SADDR: Final = 0x1_0000  # IPv6: a packet without a source yet is judged by the one it would get
EXACT: Final = b"\xff\xff"
LOOPBACK: Final = b"lo\0"  # packets that this host makes "come" by it
FRA_SPORT_MASK, FRA_DPORT_MASK = 28, 29  # told of single ports since Linux 6.15
KNOWN_OF_RULES: Final = frozenset(
    {
        *(FRA_DST, FRA_SRC, FRA_IIFNAME, FRA_PRIORITY, FRA_TABLE),
        *(FRA_SUPPRESS_PREFIXLEN, FRA_PROTOCOL, FRA_IP_PROTO, FRA_SPORT_RANGE, FRA_DPORT_RANGE),
        *(FRA_SPORT_MASK, FRA_DPORT_MASK),
    }
)

RULE_MESSAGE: Final = Structure(
    "fib_rule_hdr",
    family=U8,
    dst_len=U8,
    src_len=U8,
    tos=U8,
    table=U8,
    res1=U8,
    res2=U8,
    action=U8,
    flags=U32,
)
PORT_RANGE: Final = Structure("fib_rule_port_range", start=U16, end=U16)
NUMBER: Final = Structure("u32", value=U32)

RouteSocketFactory = Callable[[Sequence[int]], NetlinkSocket]


def open_route_socket(groups: Sequence[int]) -> NetlinkSocket:
    return NetlinkSocket(NETLINK_ROUTE, groups)


OCTET: Final = Structure("u8", value=U8)

_number = NUMBER.picker("value")
FAMILIES: Final = {4: socket.AF_INET, 16: socket.AF_INET6}
WIDTHS: Final = {int(socket.AF_INET): 4, int(socket.AF_INET6): 16}


class LinkSeen(NamedTuple):
    """A link as it is. `if_id`: of an XFRM interface, else 0."""

    number: int
    name: str
    kind: str
    if_id: int
    mtu: int
    up: bool
    linkmode: int
    operstate: int


class AddressSeen(NamedTuple):
    """An address of a link; `ours` by its protocol number."""

    link: int
    address: Address
    scope: int
    ours: bool


class RouteSeen(NamedTuple):
    """A route through one link, or one that leads nowhere or elsewhere; `ours` by its protocol number."""

    route: Route
    ours: bool


class RuleSeen(NamedTuple):
    """A rule of ours at its place among all: lower preferences are asked first."""

    preference: int
    rule: RoutingRule


def u32(value: int) -> bytes:
    return NUMBER.encode({"value": value})


def u8(value: int) -> bytes:
    return OCTET.encode({"value": value})


def found(message: Message, size: int) -> dict[int, bytes]:
    """The attributes of a message behind its fixed part; of several of a type the last."""
    return {
        type: message.data[start:end]
        for type, start, end in attributes(message.data, message.start + size, message.end)
    }


def nested(data: bytes) -> dict[int, bytes]:
    return {type: data[start:end] for type, start, end in attributes(data, 0, len(data))}


# ---- links ----------------------------------------------------------------------------------


def read_link(message: Message) -> LinkSeen:
    head = LINK_MESSAGE.decode(message.data, message.start)
    values = found(message, LINK_MESSAGE.size)
    info = nested(values.get(IFLA_LINKINFO, b""))
    kind = text(info.get(IFLA_INFO_KIND, b""))
    data = nested(info.get(IFLA_INFO_DATA, b"")) if kind == XFRM_KIND else {}
    return LinkSeen(
        head["index"],
        text(values.get(IFLA_IFNAME, b"")),
        kind,
        number(data.get(IFLA_XFRM_IF_ID)),
        number(values.get(IFLA_MTU)),
        bool(head["flags"] & IFF_UP),
        values.get(IFLA_LINKMODE, b"\0")[0],
        values.get(IFLA_OPERSTATE, b"\0")[0],
    )


def new_link(index: int, name: str, kind: str, if_id: int) -> bytes:
    """Body of RTM_NEWLINK for a link that is not there. `if_id` goes with XFRM interfaces."""
    info = encode_attribute(IFLA_INFO_KIND, kind.encode())
    if kind == XFRM_KIND:
        info += encode_attribute(IFLA_INFO_DATA, encode_attribute(IFLA_XFRM_IF_ID, u32(if_id)))
    return (
        LINK_MESSAGE.encode({"index": index})
        + encode_attribute(IFLA_IFNAME, name.encode() + b"\0")
        + encode_attribute(IFLA_LINKINFO, info)
    )


def set_link(
    index: int, *, up: bool | None = None, mtu: int = 0, linkmode: int | None = None, operstate: int | None = None
) -> bytes:
    """Body of RTM_SETLINK for what is named."""
    head = {"index": index} | ({"flags": IFF_UP if up else 0, "change": IFF_UP} if up is not None else {})
    body = LINK_MESSAGE.encode(head)
    if mtu:
        body += encode_attribute(IFLA_MTU, u32(mtu))
    if linkmode is not None:
        body += encode_attribute(IFLA_LINKMODE, u8(linkmode))
    if operstate is not None:
        body += encode_attribute(IFLA_OPERSTATE, u8(operstate))
    return body


def link_by_index(index: int) -> bytes:
    return LINK_MESSAGE.encode({"index": index})


# ---- addresses ------------------------------------------------------------------------------


def read_address(message: Message) -> AddressSeen | None:
    """None where there is no address in it."""
    head = ADDRESS_MESSAGE.decode(message.data, message.start)
    values = found(message, ADDRESS_MESSAGE.size)
    near, far = values.get(IFA_LOCAL), values.get(IFA_ADDRESS)
    if near is None:
        near, far = far, None
    if near is None:
        return None
    remote = far if far is not None and far != near else b""
    ours = values.get(IFA_PROTO) == u8(ROUTE_PROTOCOL)
    return AddressSeen(head["index"], Address(near, head["prefixlen"], remote), head["scope"], ours)


def address_body(index: int, address: Address) -> bytes:
    """Body of RTM_NEWADDR and RTM_DELADDR."""
    family = FAMILIES[len(address.address)]
    head = {"family": family, "prefixlen": address.length, "index": index}
    if len(address.address) == 16:
        head["flags"] = IFA_F_NODAD  # nobody else is on the link
    return (
        ADDRESS_MESSAGE.encode(head)
        + encode_attribute(IFA_LOCAL, address.address)
        + encode_attribute(IFA_ADDRESS, address.remote or address.address)
        + encode_attribute(IFA_PROTO, u8(ROUTE_PROTOCOL))
    )


# ---- routes ---------------------------------------------------------------------------------


def read_route(message: Message) -> RouteSeen | None:
    """None for what is none through one link, nor one without, of the main table or one of ours."""
    head = ROUTE_MESSAGE.decode(message.data, message.start)
    values = found(message, ROUTE_MESSAGE.size)
    table = number(values.get(RTA_TABLE)) or head["table"]
    width = WIDTHS.get(head["family"], 0)
    without = WITHOUT_LINK.get(head["type"])
    through_one = head["type"] == RTN_UNICAST and RTA_OIF in values
    if not (table == MAIN_TABLE or table > INTERFACE_BASE) or not width or (without is None and not through_one):
        return None
    destination = Prefix(values.get(RTA_DST, bytes(width)), head["dst_len"])
    interface = number(values[RTA_OIF]) if without is None else without  # IPv6 tells `lo` of those without
    route = Route(destination, interface, number(values.get(RTA_PRIORITY)), values.get(RTA_GATEWAY, b""), table)
    return RouteSeen(route, head["protocol"] == ROUTE_PROTOCOL)


def route_body(route: Route) -> bytes:
    """Body of RTM_NEWROUTE and RTM_DELROUTE."""
    destination, interface, metric, gateway, table = route
    family = FAMILIES[len(destination.address)]
    without = TYPES_WITHOUT_LINK.get(interface)
    beyond = gateway or family == socket.AF_INET6 or without is not None
    head = {
        "family": family,
        "dst_len": destination.length,
        "table": table if table <= ONE_OCTET else RT_TABLE_COMPAT,
        "protocol": ROUTE_PROTOCOL,
        "scope": RT_SCOPE_UNIVERSE if beyond else RT_SCOPE_LINK,
        "type": RTN_UNICAST if without is None else without,
    }
    body = ROUTE_MESSAGE.encode(head)
    if table > ONE_OCTET:
        body += encode_attribute(RTA_TABLE, u32(table))
    if destination.length:
        body += encode_attribute(RTA_DST, destination.address)
    if without is None:
        body += encode_attribute(RTA_OIF, u32(interface))
    if metric:
        body += encode_attribute(RTA_PRIORITY, u32(metric))
    if gateway:
        body += encode_attribute(RTA_GATEWAY, gateway)
    return body


# ---- routing rules --------------------------------------------------------------------------


def read_rule(message: Message) -> RuleSeen | None:
    """None for a rule that is not ours, or asks for what ours never do."""
    head = RULE_MESSAGE.decode(message.data, message.start)
    values = found(message, RULE_MESSAGE.size)
    width = WIDTHS.get(head["family"], 0)
    foreign = values.get(FRA_PROTOCOL) != u8(ROUTE_PROTOCOL) or head["action"] != FR_ACT_TO_TBL or head["tos"]
    if foreign or not width or not values.keys() <= KNOWN_OF_RULES:
        return None
    exact = {values[mask] for mask in (FRA_SPORT_MASK, FRA_DPORT_MASK) if mask in values} <= {EXACT}
    if values.get(FRA_IIFNAME, LOOPBACK) != LOOPBACK or not exact:
        return None
    rule = RoutingRule(
        Prefix(values.get(FRA_SRC, bytes(width)), head["src_len"]),
        Prefix(values.get(FRA_DST, bytes(width)), head["dst_len"]),
        number(values.get(FRA_TABLE)) or head["table"],
        values.get(FRA_IP_PROTO, b"\0")[0],
        _ports(values.get(FRA_SPORT_RANGE)),
        _ports(values.get(FRA_DPORT_RANGE)),
        FRA_IIFNAME in values,
    )
    return RuleSeen(number(values.get(FRA_PRIORITY)), rule)


def rule_body(preference: int, rule: RoutingRule) -> bytes:
    """Body of RTM_NEWRULE and RTM_DELRULE."""
    source, destination, table, protocol, source_ports, destination_ports, own = rule
    family = FAMILIES[len(source.address)]
    head = {
        "family": family,
        "dst_len": destination.length,
        "src_len": source.length,
        "table": table if table <= ONE_OCTET else RT_TABLE_COMPAT,
        "action": FR_ACT_TO_TBL,
        "flags": FIB_RULE_FIND_SADDR if family == socket.AF_INET6 and source.length else 0,
    }
    body = RULE_MESSAGE.encode(head)
    body += encode_attribute(FRA_PRIORITY, u32(preference)) + encode_attribute(FRA_PROTOCOL, u8(ROUTE_PROTOCOL))
    body += encode_attribute(FRA_TABLE, u32(table))
    if own:
        body += encode_attribute(FRA_IIFNAME, LOOPBACK)
    for type, net in ((FRA_SRC, source), (FRA_DST, destination)):
        if net.length:
            body += encode_attribute(type, net.address)
    if protocol:
        body += encode_attribute(FRA_IP_PROTO, u8(protocol))
    for type, (first, last) in ((FRA_SPORT_RANGE, source_ports), (FRA_DPORT_RANGE, destination_ports)):
        if last:
            body += encode_attribute(type, PORT_RANGE.encode({"start": first, "end": last}))
    return body


def _ports(data: bytes | None) -> tuple[int, int]:
    if data is None:
        return 0, 0
    head = PORT_RANGE.decode(data, 0)
    return head["start"], head["end"]


def number(data: bytes | None) -> int:
    value: int = _number(data, 0)[0] if data is not None and len(data) >= 4 else 0
    return value


def text(data: bytes) -> str:
    return data.rstrip(b"\0").decode("utf-8", "replace")


def routes_of(messages: Iterator[list[Message]]) -> Iterator[RouteSeen]:
    for part in messages:
        for message in part:
            seen = read_route(message)
            if seen is not None:
                yield seen
