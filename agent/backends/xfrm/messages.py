"""XFRM messages made of the plan's data, and the plan's data read out of messages.

Between the octets of `structures` and the kernel socket of `netlink`: a Policy becomes
the body of a NEWPOLICY, a dumped or announced policy becomes a PolicyRecord, an event a
KernelEvent. Only policies of the main type without user match what the plan can express;
the others are read as `special`, so that they are never mistaken for ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from socket import AF_INET, AF_INET6
from typing import Final, NamedTuple

from agent.backends.engine import KernelEvent, KernelEventKind, SaCounters, SaRecord
from agent.backends.xfrm.structures import (
    ACQUIRE,
    ATTRIBUTE,
    EXPIRE,
    IF_ID,
    MARK,
    POLICY,
    POLICY_EXPIRE,
    POLICY_ID,
    SA,
    SA_ID,
    SELECTOR,
    TEMPLATE,
    Buffer,
)
from agent.plan.model import (
    ANY_PORT,
    EVERY_PACKET,
    Action,
    Direction,
    Policy,
    PolicyKey,
    Ports,
    Prefix,
    Scope,
    Selector,
    Template,
)

# Message types, linux/xfrm.h
MSG_NEWSA: Final = 0x10
MSG_DELSA: Final = 0x11
MSG_GETSA: Final = 0x12
MSG_NEWPOLICY: Final = 0x13
MSG_DELPOLICY: Final = 0x14
MSG_GETPOLICY: Final = 0x15
MSG_ACQUIRE: Final = 0x17
MSG_EXPIRE: Final = 0x18
MSG_UPDPOLICY: Final = 0x19
MSG_UPDSA: Final = 0x1A
MSG_POLEXPIRE: Final = 0x1B
MSG_FLUSHSA: Final = 0x1C
MSG_FLUSHPOLICY: Final = 0x1D

# Attribute types
ATTR_TMPL: Final = 5
ATTR_SA: Final = 6
ATTR_POLICY: Final = 7
ATTR_POLICY_TYPE: Final = 16
ATTR_MARK: Final = 21
ATTR_IF_ID: Final = 31

# Multicast groups
GROUP_ACQUIRE: Final = 1
GROUP_EXPIRE: Final = 2
GROUP_SA: Final = 3
GROUP_POLICY: Final = 4

NEVER: Final = 0xFFFFFFFFFFFFFFFF  # XFRM_INF: no limit
ALL_ALGORITHMS: Final = 0xFFFFFFFF
ATTRIBUTE_TYPE_MASK: Final = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER
DIRECTION_OF_INDEX: Final = 7  # low bits of a policy index

_FAMILIES: Final = {4: AF_INET, 16: AF_INET6}
_ADDRESS_SIZE: Final = {AF_INET.value: 4, AF_INET6.value: 16}
_ACTIONS: Final = (Action.ALLOW, Action.BLOCK)
_DIRECTIONS: Final = (Direction.IN, Direction.OUT, Direction.FWD)


class PolicyRecord(NamedTuple):
    """A policy as the kernel shows it. `key` is None when it is `special`: something the plan cannot express."""

    key: PolicyKey | None
    policy_index: int
    priority: int
    action: Action
    templates: tuple[Template, ...]


# ---- attributes ---------------------------------------------------------------------------


def encode_attribute(type: int, data: bytes) -> bytes:
    """A netlink attribute, padded to four octets."""
    return _write_attribute(4 + len(data), type) + data + bytes(-len(data) % 4)


def attributes(buffer: Buffer, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(type, start, end) of each attribute between two offsets; stops at one that does not fit."""
    while start + 4 <= end:
        length, type = _read_attribute(buffer, start)
        if length < 4 or start + length > end:
            return
        yield type & ATTRIBUTE_TYPE_MASK, start + 4, start + length
        start += (length + 3) & ~3


_write_attribute = ATTRIBUTE.packer("len", "type")
_read_attribute = ATTRIBUTE.picker("len", "type")

# ---- policies -----------------------------------------------------------------------------

_SELECTOR_FIELDS: Final = (
    "daddr",
    "saddr",
    "dport",
    "dport_mask",
    "sport",
    "sport_mask",
    "family",
    "prefixlen_d",
    "prefixlen_s",
    "proto",
)
_write_policy = POLICY.packer(
    *(f"sel.{name}" for name in _SELECTOR_FIELDS),
    "sel.ifindex",
    "priority",
    "index",
    "dir",
    "action",
    lft__soft_byte_limit=NEVER,
    lft__hard_byte_limit=NEVER,
    lft__soft_packet_limit=NEVER,
    lft__hard_packet_limit=NEVER,
)
_write_template = TEMPLATE.packer(
    "id.daddr",
    "id.proto",
    "family",
    "saddr",
    "reqid",
    "mode",
    "optional",
    aalgos=ALL_ALGORITHMS,
    ealgos=ALL_ALGORITHMS,
    calgos=ALL_ALGORITHMS,
)
_write_policy_id = POLICY_ID.packer("index", "dir")
_read_policy = POLICY.picker(
    *(f"sel.{name}" for name in _SELECTOR_FIELDS),
    "sel.ifindex",
    "sel.user",
    "priority",
    "index",
    "dir",
    "action",
)
_read_policy_id = POLICY_ID.picker("index", "dir")
_read_template = TEMPLATE.picker("id.daddr", "id.proto", "family", "saddr", "reqid", "mode", "optional")
_BEHIND_COUNTERS: Final = next(place.offset for place in POLICY.places if place.name == "priority")
_read_mark = MARK.picker("v", "m")
_write_mark = MARK.packer("v", "m")
_read_if_id = IF_ID.picker("if_id")
_write_if_id = IF_ID.packer("if_id")


def encode_policy(policy: Policy, index: int) -> bytes:
    """Body of NEWPOLICY or UPDPOLICY. `index`: one whose low three bits are the direction; 0 lets the kernel choose."""
    direction, selector, scope = policy.key
    source, destination, protocol, source_port, destination_port = selector
    body = _write_policy(
        destination.address,
        source.address,
        destination_port.port,
        destination_port.mask,
        source_port.port,
        source_port.mask,
        _FAMILIES[len(source.address)],
        destination.length,
        source.length,
        protocol,
        scope.interface,
        policy.priority,
        index,
        direction,
        policy.action,
    )
    if policy.templates:
        body += encode_attribute(ATTR_TMPL, b"".join(map(encode_template, policy.templates)))
    return body + encode_scope(scope) if scope is not EVERY_PACKET else body


def encode_scope(scope: Scope) -> bytes:
    """The attributes for mark and interface id, as far as there are any."""
    attributes = b""
    if scope.mask:
        attributes += encode_attribute(ATTR_MARK, _write_mark(scope.mark, scope.mask))
    if scope.if_id:
        attributes += encode_attribute(ATTR_IF_ID, _write_if_id(scope.if_id))
    return attributes


def encode_template(template: Template) -> bytes:
    return _write_template(
        template.destination,
        template.protocol,
        _FAMILIES[len(template.destination)],
        template.source,
        template.reqid,
        template.mode,
        template.optional,
    )


def encode_policy_id(direction: Direction, index: int, scope: Scope = EVERY_PACKET) -> bytes:
    """Body of DELPOLICY or GETPOLICY for one policy by index, which the kernel looks for in one scope only."""
    return _write_policy_id(index, direction) + encode_scope(scope)


def read_policy(buffer: Buffer, start: int, end: int) -> PolicyRecord:
    """A xfrm_userpolicy_info with the attributes behind it. Raises struct.error when it is cut short."""
    (
        destination,
        source,
        destination_port,
        destination_mask,
        source_port,
        source_mask,
        family,
        destination_length,
        source_length,
        protocol,
        ifindex,
        user,
        priority,
        index,
        direction,
        action,
    ) = _read_policy(buffer, start)
    templates: tuple[Template, ...] = ()
    size = _ADDRESS_SIZE.get(family, 0)
    special = not size or direction > 2 or user != 0
    mark = mask = if_id = 0
    at = start + POLICY.size
    while at + 4 <= end:  # as in `attributes`, without a generator: dumps are long
        length, type = _read_attribute(buffer, at)
        if length < 4 or at + length > end:
            break
        if type == ATTR_TMPL:
            templates = tuple(
                _template(buffer, place) for place in range(at + 4, at + length - TEMPLATE.size + 1, TEMPLATE.size)
            )
        elif type == ATTR_POLICY_TYPE:
            special = special or buffer[at + 4] != 0
        elif type == ATTR_MARK:
            mark, mask = _read_mark(buffer, at + 4)
        elif type == ATTR_IF_ID:
            if_id = _read_if_id(buffer, at + 4)[0]
        at += (length + 3) & ~3
    key = None
    if not special:
        key = PolicyKey(
            _DIRECTIONS[direction],
            Selector(
                Prefix(source[:size], source_length),
                Prefix(destination[:size], destination_length),
                protocol,
                Ports(source_port, source_mask) if source_mask or source_port else ANY_PORT,
                Ports(destination_port, destination_mask) if destination_mask or destination_port else ANY_PORT,
            ),
            Scope(ifindex, mark, mask, if_id) if ifindex or mark or mask or if_id else EVERY_PACKET,
        )
    return PolicyRecord(key, index, priority, _ACTIONS[action & 1], templates)


def policy_image(data: bytes, start: int, end: int) -> bytes:
    """The octets of a policy without limits and counters, which move with use: equal for equal policies."""
    return data[start : start + SELECTOR.size] + data[start + _BEHIND_COUNTERS : end]


def _template(buffer: Buffer, start: int) -> Template:
    destination, protocol, family, source, reqid, mode, optional = _read_template(buffer, start)
    size = _ADDRESS_SIZE.get(family, 16)
    return Template(source[:size], destination[:size], protocol, mode, reqid, optional != 0)


# ---- SAs ----------------------------------------------------------------------------------

_SA_FIELDS: Final = (
    "id.daddr",
    "id.spi",
    "id.proto",
    "saddr",
    "curlft.bytes",
    "curlft.packets",
    "curlft.add_time",
    "curlft.use_time",
    "reqid",
    "family",
    "mode",
    "stats.replay_window",
    "stats.replay",
    "stats.integrity_failed",
)
_read_sa = SA.picker(*_SA_FIELDS)
_write_sa_id = SA_ID.packer("daddr", "spi", "family", "proto")
_read_hard = EXPIRE.picker("hard")
_read_acquire = ACQUIRE.picker("id.proto", *(f"sel.{name}" for name in _SELECTOR_FIELDS))
_POLICY_IN_ACQUIRE: Final = next(p.offset for p in ACQUIRE.places if p.name == "policy.sel.daddr")


def read_sa(buffer: Buffer, start: int) -> SaRecord:
    """A xfrm_usersa_info. Raises struct.error when it is cut short."""
    found = _read_sa(buffer, start)
    destination, spi, protocol, source, octets, packets, added, used, reqid, family, mode = found[:11]
    late, twice, forged = found[11:]
    size = _ADDRESS_SIZE.get(family, 16)
    counters = SaCounters(octets, packets, added, used)
    return SaRecord(source[:size], destination[:size], protocol, spi, reqid, mode, counters, late + twice, forged)


def encode_sa_id(sa: SaRecord) -> bytes:
    """Body of DELSA."""
    return _write_sa_id(sa.destination, sa.spi, _FAMILIES[len(sa.destination)], sa.protocol)


# ---- events -------------------------------------------------------------------------------

_SA_EVENTS: Final = {MSG_NEWSA: KernelEventKind.SA_NEW, MSG_UPDSA: KernelEventKind.SA_UPDATED}


class PolicyNews(NamedTuple):
    """Somebody changed the SPD. `record`: the policy that was added, updated or (`gone`) removed; None for a flush."""

    record: PolicyRecord | None
    gone: bool


def read_policy_news(type: int, buffer: Buffer, start: int, end: int) -> PolicyNews | None:
    """NEWPOLICY, UPDPOLICY, DELPOLICY, POLEXPIRE (hard) and FLUSHPOLICY; None for other messages."""
    if type in (MSG_NEWPOLICY, MSG_UPDPOLICY):
        return PolicyNews(read_policy(buffer, start, end), gone=False)
    if type == MSG_FLUSHPOLICY:
        return PolicyNews(None, gone=True)
    if type == MSG_POLEXPIRE:
        if not buffer[start + POLICY.size]:  # soft
            return None
        record = read_policy(buffer, start, start + POLICY.size)
        return PolicyNews(_with_attributes(record, buffer, start + POLICY_EXPIRE.size, end), gone=True)
    if type == MSG_DELPOLICY:
        others = attributes(buffer, start + POLICY_ID.size, end)
        body = next((place for place in others if place[0] == ATTR_POLICY), None)
        if body is not None:  # deleted by index: the policy stands in an attribute, its templates and marks behind it
            return PolicyNews(_with_attributes(read_policy(buffer, body[1], body[2]), buffer, body[2], end), gone=True)
        return PolicyNews(read_policy(buffer, start, end), gone=True)
    return None


def _with_attributes(record: PolicyRecord, buffer: Buffer, start: int, end: int) -> PolicyRecord:
    if record.key is None:
        return record
    scope = record.key.scope
    for type, at, _ in attributes(buffer, (start + 3) & ~3, end):
        if type == ATTR_POLICY_TYPE and buffer[at] != 0:
            return record._replace(key=None)
        if type == ATTR_MARK:
            mark, mask = _read_mark(buffer, at)
            scope = scope._replace(mark=mark, mask=mask)
        elif type == ATTR_IF_ID:
            scope = scope._replace(if_id=_read_if_id(buffer, at)[0])
    return record._replace(key=record.key._replace(scope=scope))


def read_event(type: int, buffer: Buffer, start: int, end: int) -> KernelEvent | None:
    """An ACQUIRE or an SA's life; None for other messages. Raises struct.error when it is cut short."""
    kind = _SA_EVENTS.get(type)
    if kind is not None:
        return KernelEvent(kind, read_sa(buffer, start))
    if type == MSG_DELSA:
        for attribute, at, _ in attributes(buffer, start + SA_ID.size, end):
            if attribute == ATTR_SA:
                return KernelEvent(KernelEventKind.SA_DELETED, read_sa(buffer, at))
        return None
    if type == MSG_EXPIRE:
        hard = _read_hard(buffer, start)[0]
        return KernelEvent(KernelEventKind.SA_HARD if hard else KernelEventKind.SA_SOFT, read_sa(buffer, start))
    if type == MSG_FLUSHSA:
        return KernelEvent(KernelEventKind.SAS_FLUSHED)
    if type == MSG_ACQUIRE:
        return _acquire(buffer, start, end)
    return None


def _acquire(buffer: Buffer, start: int, end: int) -> KernelEvent:
    protocol, destination, source, dport, dmask, sport, smask, family, dlength, slength, proto = _read_acquire(
        buffer, start
    )
    policy = read_policy(buffer, start + _POLICY_IN_ACQUIRE, start + _POLICY_IN_ACQUIRE + POLICY.size)
    size = _ADDRESS_SIZE.get(family, 16)
    flow = Selector(
        Prefix(source[:size], slength),
        Prefix(destination[:size], dlength),
        proto,
        Ports(sport, smask),
        Ports(dport, dmask),
    )
    templates = [
        _template(buffer, place)
        for type, at, stop in attributes(buffer, start + ACQUIRE.size, end)
        if type == ATTR_TMPL
        for place in range(at, stop - TEMPLATE.size + 1, TEMPLATE.size)
    ]
    wanted = next((template for template in templates if template.protocol == protocol), None)
    return KernelEvent(
        KernelEventKind.ACQUIRE, key=policy.key, policy_index=policy.policy_index, template=wanted, flow=flow
    )
