"""Selectors as two integers, value and mask, so that matching and overlapping are one operation each.

Address prefixes, the protocol, ports with prefix masks and interfaces all fit one mould: a
selector matches what equals it under its mask. Two of them overlap where they agree on what both
look at. `Overlaps` finds those that overlap a given one without comparing with all: it
keeps them by mask (a configuration uses few different ones), and for a pair of masks one
dictionary lookup on the common part finds all of that kind.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, Generic, NamedTuple, TypeVar

from agent.plan.model import ANY_PORT, EVERY_PACKET, Direction, Flow, Ports, Prefix, Scope, Selector
from agent.plan.numbers import MARK_MASK, MARK_OWN, interface_mark

T = TypeVar("T")

FEW: Final = 8  # so many of one mask are looked at one by one
_PROTOCOL_BITS: Final = 8
_PORT_BITS: Final = 16
_TAIL: Final = _PROTOCOL_BITS + 2 * _PORT_BITS
_SCOPE_BITS: Final = 32
_INTERFACE: Final = (1 << _SCOPE_BITS) - 1
_FAMILY_BITS: Final = 8


class Bits(NamedTuple):
    """`family`: octets of an address, and above them the number of the XFRM interface, which has to be the same.
    `value` has no bits outside `mask`."""

    family: int
    value: int
    mask: int


@lru_cache(maxsize=512)
def _netmask(width: int, length: int) -> int:
    return ((1 << length) - 1) << (width - length)


def bits(selector: Selector, scope: Scope = EVERY_PACKET) -> Bits:
    """The selector as value and mask."""
    source, destination, protocol, source_port, destination_port = selector
    family = len(source.address)
    width = family * 8
    value = int.from_bytes(source.address, "big") << width | int.from_bytes(destination.address, "big")
    mask = _netmask(width, source.length) << width | _netmask(width, destination.length)
    tail = protocol << 32 | source_port.port << 16 | destination_port.port
    tail_mask = (0xFF << 32 if protocol else 0) | source_port.mask << 16 | destination_port.mask
    if scope is not EVERY_PACKET:  # at the top, so that the numbers of most selectors stay short
        value |= (scope.interface << _SCOPE_BITS | scope.mark) << 2 * width
        mask |= ((_INTERFACE if scope.interface else 0) << _SCOPE_BITS | scope.mask) << 2 * width
        family |= scope.if_id << _FAMILY_BITS
    return Bits(family, value << _TAIL | tail, mask << _TAIL | tail_mask)


def flow_bits(flow: Flow, if_id: int = 0, *, again: bool = False) -> Bits:
    """A packet, to be matched with `overlap`; the mask is full. `if_id`: of the XFRM interface it came out of. The
    kernel asks the policies for an IPv6 packet made here before it says by which interface it leaves, and `again` when
    it knows (outbound.py); IPv4 is told at once."""
    leaves = 0 if is_asked_early(flow) and not again else flow.to_interface
    width = len(flow.source) * 8
    addresses = int.from_bytes(flow.source, "big") << width | int.from_bytes(flow.destination, "big")
    mark = MARK_OWN if again else interface_mark(flow.from_interface)
    addresses |= (leaves << _SCOPE_BITS | mark) << 2 * width
    tail = flow.protocol << 32 | flow.source_port << 16 | flow.destination_port
    size = 2 * width + _TAIL + 2 * _SCOPE_BITS
    family = len(flow.source) | if_id << _FAMILY_BITS
    return Bits(family, addresses << _TAIL | tail, (1 << size) - 1)


def is_asked_early(flow: Flow) -> bool:
    """Whether the kernel asks its policies about the packet before it knows by which interface it leaves."""
    return flow.way == "out" and len(flow.source) == 16


def overlap(a: Bits, b: Bits) -> bool:
    """Whether some packet matches both; with a flow as one of them: whether it matches the other."""
    return not (a.value ^ b.value) & a.mask & b.mask and a.family == b.family


def covers(wide: Bits, narrow: Bits) -> bool:
    """Whether `wide` matches all that `narrow` matches."""
    return wide.mask & narrow.mask == wide.mask and overlap(wide, narrow)


def reversed_selector(selector: Selector) -> Selector:
    """That of the packets going the other way."""
    source, destination, protocol, source_port, destination_port = selector
    return Selector(destination, source, protocol, destination_port, source_port)


class _Bucket(Generic[T]):
    """Items with their ranks. `order`: the ranks sorted, made when first asked for."""

    __slots__ = ("items", "order")

    def __init__(self) -> None:
        self.items: dict[T, int] = {}
        self.order: list[int] | None = None

    def add(self, item: T, rank: int) -> None:
        self.items[item] = rank
        if self.order is not None:
            insort(self.order, rank)

    def remove(self, item: T) -> None:
        rank = self.items.pop(item)
        if self.order is not None:
            del self.order[bisect_left(self.order, rank)]

    def sorted(self) -> list[int]:
        if self.order is None:
            self.order = sorted(self.items.values())
        return self.order


class _Kind(Generic[T]):
    """All of one mask. `found`: for a common mask, value under it → items; made when first asked for."""

    __slots__ = ("found", "items")

    def __init__(self) -> None:
        self.items: dict[T, tuple[int, int]] = {}  # value, rank
        self.found: dict[int, dict[int, _Bucket[T]]] = {}

    def bucket(self, common: int, value: int) -> _Bucket[T] | None:
        table = self.found.get(common)
        if table is None:
            table = self.found[common] = {}
            for item, (item_value, rank) in self.items.items():
                _bucket_in(table, item_value & common).items[item] = rank
        return table.get(value & common)


def _bucket_in(table: dict[int, _Bucket[T]], key: int) -> _Bucket[T]:
    found = table.get(key)
    if found is None:
        found = table[key] = _Bucket()
    return found


class Overlaps(Generic[T]):
    """Items with a rank, under selectors; in one direction an item is under one selector."""

    def __init__(self) -> None:
        self._by_family: dict[tuple[Direction, int], dict[int, _Kind[T]]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, direction: Direction, under: Bits, item: T, rank: int) -> None:
        """Add an item, which must not be there."""
        family, value, mask = under
        kinds = self._by_family.setdefault((direction, family), {})
        kind = kinds.get(mask)
        if kind is None:
            kind = kinds[mask] = _Kind()
        assert item not in kind.items
        kind.items[item] = (value, rank)
        self._size += 1
        for common, table in kind.found.items():
            _bucket_in(table, value & common).add(item, rank)

    def remove(self, direction: Direction, under: Bits, item: T) -> int:
        """Remove an item, which must be there; its rank."""
        family, _, mask = under
        kinds = self._by_family[direction, family]
        kind = kinds[mask]
        value, rank = kind.items.pop(item)
        self._size -= 1
        for common, table in kind.found.items():
            table[value & common].remove(item)
        if not kind.items:
            del kinds[mask]
        return rank

    def overlapping(self, direction: Direction, with_: Bits, *, covered: bool = False) -> Iterator[T]:
        """Every item under a selector that overlaps, or of which `with_` matches all."""
        family, value, mask = with_
        for kind_mask, kind in self._by_family.get((direction, family), {}).items():
            common = kind_mask & mask
            if covered and common != mask:
                continue
            if len(kind.items) <= FEW:
                for item, (item_value, _) in kind.items.items():
                    if not (item_value ^ value) & common:
                        yield item
            elif bucket := kind.bucket(common, value):
                yield from bucket.items

    def last(self, direction: Direction, with_: Bits) -> int:
        """The highest rank of those that overlap; -1 when none does."""
        family, value, mask = with_
        best = -1
        for kind_mask, kind in self._by_family.get((direction, family), {}).items():
            common = kind_mask & mask
            if len(kind.items) <= FEW:
                for item_value, rank in kind.items.values():
                    if rank > best and not (item_value ^ value) & common:
                        best = rank
            else:
                bucket = kind.bucket(common, value)
                if bucket is not None and bucket.items:
                    best = max(best, bucket.sorted()[-1])
        return best

    def first_after(self, direction: Direction, with_: Bits, after: int, *, covering: bool = False) -> int | None:
        """The lowest rank above `after` of those that overlap, or that match all `with_` matches; None for none."""
        family, value, mask = with_
        best: int | None = None
        for kind_mask, kind in self._by_family.get((direction, family), {}).items():
            common = kind_mask & mask
            if covering and common != kind_mask:
                continue
            if len(kind.items) <= FEW:
                for item_value, rank in kind.items.values():
                    if after < rank and (best is None or rank < best) and not (item_value ^ value) & common:
                        best = rank
                continue
            bucket = kind.bucket(common, value)
            if bucket is None:
                continue
            order = bucket.sorted()
            place = bisect_right(order, after)
            if place < len(order) and (best is None or order[place] < best):
                best = order[place]
        return best


ANYWHERE: Final = {4: Prefix(bytes(4), 0), 16: Prefix(bytes(16), 0)}


def range_prefixes(first: bytes, last: bytes) -> tuple[Prefix, ...]:
    """The smallest set of prefixes that together are the addresses from first to last, in order; () when last is
    below first. At most 2 * bits - 2. Every prefix that lies within the range lies within one of these."""
    bits_, low, high = len(first) * 8, int.from_bytes(first, "big"), int.from_bytes(last, "big")
    found = []
    while low <= high:
        size = 1 << (high - low + 1).bit_length() - 1
        if low:
            size = min(size, low & -low)
        found.append(Prefix(low.to_bytes(len(first), "big"), bits_ - size.bit_length() + 1))
        low += size
    return tuple(found)


def leaves_by(interface: int) -> Scope:
    """Packets that leave by this interface, 0 for any."""
    return Scope(interface=interface) if interface else EVERY_PACKET


def came_by(interface: int) -> Scope:
    """Packets that arrived by this interface, 0 for any; they are marked (inbound.py)."""
    return Scope(mark=interface_mark(interface), mask=MARK_MASK) if interface else EVERY_PACKET


def host(address: bytes) -> Prefix:
    """The prefix of one address."""
    return Prefix(address, len(address) * 8)


def one_port(number: int) -> Ports:
    """A port; 0 and -1 are any (EFFECTS: ipsecTrLocalPort)."""
    return Ports(number, 0xFFFF) if number > 0 else ANY_PORT
