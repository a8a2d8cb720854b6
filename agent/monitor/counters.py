"""Octet and packet counters that never go back, whatever happens to the SAs they come from.

The same SA is read from several places: dumps of the kernel, its last words (DELSA, or a
hard EXPIRE, which no DELSA follows), charon's lists and events. Each reading is the SA's
own total so far, so the greatest one counts, once; what it grew by is added to the tunnel
and to the peer. Readings may come before the SA is known to belong to a tunnel and after
it has left, in any order.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeVar

from agent.monitor.algorithms import Overhead

Kept = TypeVar("Kept")

REMEMBERED: Final = 4096  # SAs that are gone or not known yet, of which a reading may still come


class SaKey(NamedTuple):
    """What the kernel tells SAs apart by; protocol 50 ESP, 51 AH."""

    destination: bytes
    protocol: int
    spi: bytes


@dataclass(slots=True)
class Tally:
    """Sums of one direction. `octets` are those the SAs count (inner packets), `wire` those on the link; `moved`: when
    it last grew, in seconds of the caller's clock."""

    octets: int = 0
    packets: int = 0
    wire: int = 0
    moved: float = 0.0

    def add(self, octets: int, packets: int, wire: int, now: float) -> None:
        self.octets += octets
        self.packets += packets
        self.wire += wire
        self.moved = max(self.moved, now)

    def take(self, other: Tally) -> None:
        """Add another's sums."""
        self.add(other.octets, other.packets, other.wire, other.moved)


@dataclass(slots=True)
class Traffic:
    """Both directions. `row`, `peer`: whose it is, 0 for nobody's."""

    row: int = 0
    peer: int = 0
    incoming: Tally = field(default_factory=Tally)
    outgoing: Tally = field(default_factory=Tally)

    def take(self, other: Traffic) -> None:
        self.incoming.take(other.incoming)
        self.outgoing.take(other.outgoing)


@dataclass(eq=False, slots=True)
class Half:
    """One SA of a tunnel: how much of it is counted, and where it goes: `owner` (the tunnel) and `total` (the peer)."""

    owner: Traffic
    total: Traffic
    incoming: bool
    overhead: Overhead
    mode: int = 1
    octets: int = 0
    packets: int = 0


class Way(NamedTuple):
    """A kind of SA: protocol 50, 51 or 108 (the compression inside ESP or AH), direction, mode 0 transport or 1
    tunnel."""

    protocol: int
    incoming: bool
    mode: int


class Counters:
    """All SAs of which readings count. `through`: what went through SAs of each kind, of the whole gateway."""

    def __init__(self) -> None:
        self.through: dict[Way, Tally] = {}
        self._halves: dict[SaKey, Half] = {}
        self._leaving: OrderedDict[SaKey, Half] = OrderedDict()
        self._early: OrderedDict[SaKey, tuple[int, int]] = OrderedDict()

    def join(
        self,
        key: SaKey,
        owner: Traffic,
        total: Traffic,
        incoming: bool,
        overhead: Overhead,
        now: float,
        mode: int = 1,
    ) -> None:
        """This SA belongs to that tunnel from its first octet on; nothing when it is known."""
        if key in self._halves:
            return
        half = self._leaving.pop(key, None)
        if half is not None:  # it was not gone after all: what is counted stays counted
            half.owner = owner
        self._halves[key] = half or Half(owner, total, incoming, overhead, mode)
        early = self._early.pop(key, None)
        if early is not None:
            self.read(key, *early, now)

    def leave(self, key: SaKey) -> None:
        """It is gone; a last reading may follow."""
        half = self._halves.pop(key, None)
        if half is not None:
            _keep(self._leaving, key, half)

    def inherit(self, old: Traffic, heir: Traffic) -> None:
        """`heir` goes on for `old`: it gets its sums, and what may still come of its SAs."""
        heir.take(old)
        for halves in (self._halves, self._leaving):
            for half in halves.values():
                if half.owner is old:
                    half.owner = heir

    def read(self, key: SaKey, octets: int, packets: int, now: float) -> Traffic | None:
        """One reading; the tunnel that it added something to."""
        half = self._halves.get(key) or self._leaving.get(key)
        if half is None:
            _keep(self._early, key, max((octets, packets), self._early.get(key, (0, 0))))
            return None
        # from one place both grow together; across places each has its own greatest
        more_octets, more_packets = max(0, octets - half.octets), max(0, packets - half.packets)
        if not more_octets and not more_packets:
            return None
        half.octets += more_octets
        half.packets += more_packets
        wire = half.overhead.on_the_wire(more_octets, more_packets)
        for traffic in (half.owner, half.total):
            tally = traffic.incoming if half.incoming else traffic.outgoing
            tally.add(more_octets, more_packets, wire, now)
        way = Way(key.protocol, half.incoming, half.mode)
        self.through.setdefault(way, Tally()).add(more_octets, more_packets, wire, now)
        return half.owner

    def packets(self, *, protocols: Container[int], incoming: bool, modes: Container[int] = (0, 1)) -> int:
        """Packets that went through all SAs of some kinds."""
        return sum(
            tally.packets
            for way, tally in self.through.items()
            if way.protocol in protocols and way.incoming is incoming and way.mode in modes
        )


def _keep(remembered: OrderedDict[SaKey, Kept], key: SaKey, value: Kept) -> None:
    remembered[key] = value
    remembered.move_to_end(key)
    while len(remembered) > REMEMBERED:
        remembered.popitem(last=False)
