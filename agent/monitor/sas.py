"""Which SAs there are: IKE SAs and bundles under row numbers of our own, from charon's events and lists.

A bundle is a tunnel of one child, not one pair of SAs: a rekey puts new SAs into the same
row, whose counters go on. Events come first and lists correct them, for events are lost
when the agent is away. charon's unique ids only say which SA is meant: they change with
every rekey, and a version 1 reauthentication ends an IKE SA whose children live on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from agent.backends.engine import ChildSa, IkeEvent, IkeEventKind, IkeSa, SaRecord, tunnel_of
from agent.monitor.algorithms import Overhead, overhead
from agent.monitor.counters import Counters, SaKey, Traffic
from agent.plan import numbers
from agent.plan.model import Tunnel

logger = logging.getLogger(__name__)

HIGHEST_ROW: Final = (1 << 31) - 1
STANDING: Final = frozenset({"INSTALLED", "REKEYING", "UPDATING"})  # traffic goes through it
PRESENT: Final = STANDING | {"REKEYED"}  # also one whose successor is about to be told of
ENDING: Final = frozenset({"DELETING", "DELETED", "DESTROYING"})
# As responder of version 1 charon tells of a renewal as an end and, a moment later, a beginning.
GRACE_SECONDS: Final = 1.0
IPCOMP: Final = 108
UNCHANGED: Final = Overhead(0, 0, 1)
TRANSPORT: Final = 0
UNSURE: Final = 2.0  # seconds that two of the daemon's ages, each in whole ones, may lie apart for one moment
REMEMBERED: Final = 4096  # events for so long a unique id that ended is known to have


@dataclass(eq=False, slots=True)
class IkeRow:
    """One IKE SA. `told`: serial of the last word about it."""

    number: int
    sa: IkeSa
    peer: int
    told: int
    seen: float  # when it appeared, seconds of the clock
    used: float  # when it last did something
    created: float  # when it was made, as near as the daemon's whole seconds tell; it stays once it is told


@dataclass(eq=False, slots=True)
class Bundle:
    """One tunnel; `child` and `ike` are its newest SAs. `changed`: when `state` last changed."""

    number: int
    peer: int
    rule: int
    child: ChildSa
    ike: IkeSa
    told: int
    changed: float
    traffic: Traffic
    leaves: float | None = None  # it is down, and gone at this time unless another of its child comes
    keys: dict[SaKey, int] = field(default_factory=dict)  # its SAs, and the unique id of the child each belongs to

    @property
    def stands(self) -> bool:
        return self.child.state in PRESENT and self.leaves is None


@dataclass(eq=False, slots=True)
class SaRow:
    """One SA of one direction: a row of ipsecSaTable. `child`: the newest word of the child it came with; `replayed`
    and `forged`: packets that it refused, as the kernel counts them."""

    number: int
    key: SaKey
    incoming: bool
    bundle: int
    child: ChildSa
    version: int  # of IKE
    replayed: int = 0
    forged: int = 0


class Made(NamedTuple):
    """A kind of SA, of which those ever made are counted: protocol 50, 51 or 108, direction."""

    protocol: int
    incoming: bool


class Rows:
    """Row numbers in the order of appearing; begins anew at 1 after the highest, passing by those alive."""

    def __init__(self) -> None:
        self._last = 0
        self._alive: set[int] = set()

    def take(self) -> int:
        number = self._last
        while True:
            number = number % HIGHEST_ROW + 1
            if number not in self._alive:
                break
        self._last = number
        self._alive.add(number)
        return number

    def free(self, number: int) -> None:
        self._alive.discard(number)


class Registry:
    """`clock`: seconds. `touched_ike`, `touched_bundles`, `touched_peers`: row and peer numbers to look at again,
    taken and emptied by the reader."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.ike: dict[int, IkeRow] = {}  # by charon's unique id
        self.bundles: dict[int, Bundle] = {}  # by unique id of the child, also of those replaced in it
        self.of_peer: dict[int, dict[int, Bundle]] = {}  # bundles by peer and row number
        self.ike_of_peer: dict[int, dict[int, IkeRow]] = {}
        self.totals: dict[int, Traffic] = {}  # by peer, as long as its row stands
        self.sas: dict[SaKey, SaRow] = {}
        self.made: dict[Made, int] = {}
        self.forged = 0  # packets with a wrong check value, of all SAs
        self.touched_ike: set[int] = set()
        self.touched_bundles: set[int] = set()
        self.touched_peers: set[int] = set()
        self.touched_sas: set[int] = set()
        self.counters = Counters()
        self._clock = clock
        self._serial = 0
        self.leaving: dict[int, Bundle] = {}  # by row number
        self._gone: dict[tuple[str, int], int] = {}  # unique ids that ended, with the serial of that
        self._ike_rows, self._bundle_rows, self._sa_rows = Rows(), Rows(), Rows()

    # ---- what is there ----------------------------------------------------------------

    def alive(self) -> Iterator[Bundle]:
        for bundles in self.of_peer.values():
            yield from bundles.values()

    def stands(self, peer: int, child: str) -> bool:
        """Is there a tunnel of this child?"""
        return any(each.stands and each.child.name == child for each in self.of_peer.get(peer, {}).values())

    def is_up(self, peer: int) -> bool:
        return any(each.stands for each in self.of_peer.get(peer, {}).values())

    def tunnels(self, peer: int) -> Mapping[str, Tunnel]:
        """What stands or may only be renewed, by child name; of two of one child the newer."""
        found: dict[str, Tunnel] = {}
        for bundle in sorted(self.of_peer.get(peer, {}).values(), key=lambda each: each.child.unique_id):
            if bundle.child.state in PRESENT or bundle.leaves is not None:
                found[bundle.child.name] = tunnel_of(bundle.ike, bundle.child)
        return found

    # ---- events -----------------------------------------------------------------------

    def event(self, event: IkeEvent) -> None:
        """Take in what charon tells of; kinds that say nothing of SAs are passed over."""
        self._serial += 1
        ike, child = event.ike, event.child
        if ike is None or not numbers.is_our_connection(ike.connection):
            return
        if event.kind is IkeEventKind.IKE_DOWN:
            self._end_ike(ike.unique_id)
            return
        if event.kind is IkeEventKind.IKE_REKEY and event.old_ike is not None:
            self._end_ike(event.old_ike.unique_id)
        if event.kind is IkeEventKind.IKE_UPDATE:
            self._move(ike)
            return
        if ("ike", ike.unique_id) not in self._gone:  # version 2 ends the IKE SA first, then its children
            self._see_ike(ike)
        if child is None:
            for each in ike.children:
                self._see_child(ike, each)
        elif event.kind is IkeEventKind.CHILD_DOWN:
            self._count(ike, child)
            self._end_child(child.unique_id)
        elif event.kind is IkeEventKind.CHILD_REKEY and event.old_child is not None:
            self._rekey(ike, event.old_child, child)
        else:
            self._see_child(ike, child)

    def begin_list(self) -> int:
        """To be asked before charon is: what happens from now on is newer than the list."""
        self._gone = {key: serial for key, serial in self._gone.items() if serial > self._serial - REMEMBERED}
        return self._serial

    def finish_list(self, begun: int, sas: Iterable[IkeSa]) -> None:
        """charon's list, asked for when `begin_list` gave `begun`: what is not in it is gone."""
        for _ in self.take_list(begun, sas):
            pass

    def take_list(self, begun: int, sas: Iterable[IkeSa]) -> Iterator[None]:
        """The same step by step, one IKE SA each; other things may happen between."""
        ikes: set[int] = set()
        children: set[int] = set()
        for sa in sas:
            if not numbers.is_our_connection(sa.connection):
                continue
            if self._gone.get(("ike", sa.unique_id), -1) <= begun:
                ikes.add(sa.unique_id)
                self._gone.pop(("ike", sa.unique_id), None)
                self._see_ike(sa, begun)
            for child in sa.children:
                if self._gone.get(("child", child.unique_id), -1) <= begun:
                    children.add(child.unique_id)
                    self._gone.pop(("child", child.unique_id), None)
                    self._see_child(sa, child, begun)
            yield
        for unique_id, row in list(self.ike.items()):
            if unique_id not in ikes and row.told <= begun:
                self._end_ike(unique_id)
        for unique_id, bundle in list(self.bundles.items()):
            if unique_id not in children and bundle.told <= begun:
                self._end_child(unique_id)

    def kernel(self, sa: SaRecord) -> None:
        """A kernel SA with its counters: of a dump, or its last."""
        if (numbers.is_our_reqid(sa.reqid) or numbers.is_allotted_reqid(sa.reqid)) and any(sa.spi):
            key = SaKey(sa.destination, sa.protocol, sa.spi)
            self._read(key, sa.counters.octets, sa.counters.packets)
            row = self.sas.get(key)
            if row is not None and (row.replayed, row.forged) != (sa.replayed, sa.forged):
                self.forged += max(0, sa.forged - row.forged)
                row.replayed, row.forged = sa.replayed, sa.forged
                self.touched_sas.add(row.number)

    def forget(self) -> None:
        """charon is another process and knows none of these."""
        for unique_id in list(self.ike):
            self._end_ike(unique_id)
        for bundle in list(self.alive()):
            self._drop(bundle, None)
        self._gone.clear()

    def expire(self) -> None:
        """Let go of what is down for longer than a renewal takes."""
        now = self._clock()
        for number in [number for number, bundle in self.leaving.items() if (bundle.leaves or 0.0) <= now]:
            self._drop(self.leaving[number], None)

    # ---- IKE SAs ----------------------------------------------------------------------

    def _see_ike(self, sa: IkeSa, told: int | None = None) -> None:
        row = self.ike.get(sa.unique_id)
        peer = numbers.peer_of_connection(sa.connection)
        now = self._clock()
        if row is None:
            row = IkeRow(self._ike_rows.take(), sa, peer, self._serial, now, now, now)
            self.ike[sa.unique_id] = row
            self.ike_of_peer.setdefault(peer, {})[row.number] = row
        else:
            if told is not None and row.told > told:
                return  # an event has told more
            if row.sa.state != sa.state:
                row.used = now
            row.sa = sa
        if sa.established and abs(now - sa.established - row.created) >= UNSURE:
            row.created = now - sa.established
        row.told = self._serial if told is None else told
        self.touched_ike.add(row.number)
        self.touched_peers.add(peer)

    def _move(self, sa: IkeSa) -> None:
        """Its ends have other addresses now (MOBIKE, NAT), and those of its children with them."""
        row = self.ike.get(sa.unique_id)
        if row is None:
            return
        self._see_ike(sa)
        for bundle in self.of_peer.get(row.peer, {}).values():
            if bundle.ike.unique_id == sa.unique_id:
                bundle.ike, bundle.told = sa, self._serial
                self.touched_bundles.add(bundle.number)

    def _end_ike(self, unique_id: int) -> None:
        self._gone["ike", unique_id] = self._serial
        row = self.ike.pop(unique_id, None)
        if row is None:
            return
        self._ike_rows.free(row.number)
        _remove(self.ike_of_peer, row.peer, row.number)
        self.touched_ike.add(row.number)
        self.touched_peers.add(row.peer)

    # ---- bundles ----------------------------------------------------------------------

    def _see_child(self, ike: IkeSa, child: ChildSa, told: int | None = None) -> None:
        bundle = self.bundles.get(child.unique_id)
        now = self._clock()
        if bundle is None:
            peer, rule = numbers.peer_and_rule_of_child(child.name)
            if not peer:
                return
            bundle = self._renewed(child.name)
            if bundle is None:
                number = self._bundle_rows.take()
                bundle = Bundle(number, peer, rule, child, ike, self._serial, now, Traffic(number, peer))
                self.of_peer.setdefault(peer, {})[bundle.number] = bundle
                logger.info("bundle %d: %s is there (charon's %d)", bundle.number, child.name, child.unique_id)
            self.bundles[child.unique_id] = bundle
        elif told is not None and bundle.told > told:
            self._count(ike, child)
            return
        if child.unique_id >= bundle.child.unique_id:  # else it is the one that was rekeyed
            if bundle.child.state != child.state:
                bundle.changed = now
            bundle.child, bundle.ike = child, ike
            bundle.told = self._serial if told is None else told
        self._count(ike, child)
        self.touched_bundles.add(bundle.number)
        self.touched_peers.add(bundle.peer)

    def _renewed(self, child: str) -> Bundle | None:
        """The bundle that a new child goes on with, because the last one of its name has only just ended."""
        found = next((bundle for bundle in self.leaving.values() if bundle.child.name == child), None)
        if found is not None:
            del self.leaving[found.number]
            found.leaves = None
        return found

    def _rekey(self, ike: IkeSa, old: ChildSa, new: ChildSa) -> None:
        self._see_child(ike, old)
        bundle = self.bundles.get(old.unique_id)
        if bundle is None:
            return
        early = self.bundles.get(new.unique_id)
        if early is not None and early is not bundle:  # a list has shown it before the event came
            self._drop(early, bundle)
        self.bundles[new.unique_id] = bundle
        self._see_child(ike, new)

    def _end_child(self, unique_id: int) -> None:
        self._gone["child", unique_id] = self._serial
        bundle = self.bundles.pop(unique_id, None)
        if bundle is None:
            return
        if bundle.child.unique_id != unique_id:  # it was replaced, the bundle goes on
            self._let_go(bundle, unique_id)
            return
        heirs = (
            each
            for each in self.of_peer.get(bundle.peer, {}).values()
            if each is not bundle and each.child.name == bundle.child.name
        )
        heir = next(heirs, None)
        if heir is not None and heir.number > bundle.number:
            self._let_go(bundle, unique_id)
            self._absorb(bundle, heir)
            return
        if heir is not None:
            self._drop(bundle, heir)
            return
        bundle.leaves = self._clock() + GRACE_SECONDS
        self.leaving[bundle.number] = bundle
        self._let_go(bundle, unique_id)
        self.touched_bundles.add(bundle.number)
        self.touched_peers.add(bundle.peer)

    def _absorb(self, bundle: Bundle, other: Bundle) -> None:
        """The older row goes on with the newer tunnel of the same child."""
        own = [unique_id for unique_id in _unique_ids(other) if self.bundles.get(unique_id) is other]
        self._drop(other, bundle)
        self.bundles.update(dict.fromkeys(own, bundle))
        bundle.child, bundle.ike, bundle.told, bundle.leaves = other.child, other.ike, other.told, other.leaves
        bundle.changed = other.changed
        if bundle.leaves is not None:
            self.leaving[bundle.number] = bundle

    def _let_go(self, bundle: Bundle, unique_id: int) -> None:
        """Its SAs are no longer the bundle's; their last readings will still count for it."""
        for key in [key for key, of in bundle.keys.items() if of == unique_id]:
            del bundle.keys[key]
            self._sa_gone(key)
            self.counters.leave(key)

    def _drop(self, bundle: Bundle, heir: Bundle | None) -> None:
        """The row goes. Where another tunnel of the same child stands its counters go on in that."""
        for unique_id in _unique_ids(bundle):
            if self.bundles.get(unique_id) is bundle:
                del self.bundles[unique_id]
        self.leaving.pop(bundle.number, None)
        if heir is not None:
            self.counters.inherit(bundle.traffic, heir.traffic)
            heir.keys |= bundle.keys
            for row in self.sas.values():
                if row.bundle == bundle.number:
                    row.bundle = heir.number
                    self.touched_sas.add(row.number)
            self.touched_bundles.add(heir.number)
        else:
            for key in bundle.keys:
                self._sa_gone(key)
                self.counters.leave(key)
        logger.info(
            "bundle %d: %s is gone after %d packets in, %d out%s",
            bundle.number,
            bundle.child.name,
            bundle.traffic.incoming.packets,
            bundle.traffic.outgoing.packets,
            f"; {heir.number} goes on with them" if heir is not None else "",
        )
        self._bundle_rows.free(bundle.number)
        _remove(self.of_peer, bundle.peer, bundle.number)
        self.touched_bundles.add(bundle.number)
        self.touched_peers.add(bundle.peer)

    # ---- counters -----------------------------------------------------------------------

    def _count(self, ike: IkeSa, child: ChildSa) -> None:
        """charon's own figures; the kernel's are newer, but not everywhere is a kernel."""
        bundle = self.bundles.get(child.unique_id)
        now = self._clock()
        for address, spi, incoming, octets, packets in (
            (ike.local, child.spi_in, True, child.octets_in, child.packets_in),
            (ike.remote, child.spi_out, False, child.octets_out, child.packets_out),
        ):
            if not any(spi):
                continue
            key = SaKey(address, child.protocol, spi)
            if bundle is not None and key not in bundle.keys:
                total = self.totals.setdefault(bundle.peer, Traffic(0, bundle.peer))
                bundle.keys[key] = child.unique_id
                self._sa_made(key, incoming, bundle, ike, child)
                self.counters.join(key, bundle.traffic, total, incoming, overhead(child, address), now, child.mode)
            elif bundle is not None and (row := self.sas.get(key)) is not None:
                if row.child.state != child.state:  # nothing else of it that is shown ever changes
                    self.touched_sas.add(row.number)
                row.child = child
            self._read(key, octets, packets)

    def _sa_made(self, key: SaKey, incoming: bool, bundle: Bundle, ike: IkeSa, child: ChildSa) -> None:
        """Rows of the SA and, with IPComp, of the one around it, whose SPI is the CPI (RFC 3173 section 4.2)."""
        keys = [key]
        cpi = child.cpi_in if incoming else child.cpi_out
        if child.ipcomp and any(cpi):
            keys.append(SaKey(key.destination, IPCOMP, cpi.rjust(4, b"\0")))
        for each in keys:
            number = self._sa_rows.take()
            self.sas[each] = SaRow(number, each, incoming, bundle.number, child, ike.version)
            self.touched_sas.add(number)
            kind = Made(each.protocol, incoming)
            self.made[kind] = self.made.get(kind, 0) + 1
            bundle.keys.setdefault(each, child.unique_id)
            if each is not key:  # what it counts is in the other's already, but for the gateway's count of its kind
                self.counters.join(each, Traffic(), Traffic(), incoming, UNCHANGED, self._clock(), TRANSPORT)

    def _sa_gone(self, key: SaKey) -> None:
        row = self.sas.pop(key, None)
        if row is not None:
            self._sa_rows.free(row.number)
            self.touched_sas.add(row.number)

    def _read(self, key: SaKey, octets: int, packets: int) -> None:
        grown = self.counters.read(key, octets, packets, self._clock())
        if grown is not None and grown.row:
            self.touched_bundles.add(grown.row)
            self.touched_peers.add(grown.peer)

    def forget_peer(self, peer: int) -> None:
        """Its row is gone; another of this number begins at zero."""
        self.totals.pop(peer, None)


def _unique_ids(bundle: Bundle) -> set[int]:
    """charon's numbers of the children that may lead to a bundle."""
    return {bundle.child.unique_id, *bundle.keys.values()}


def _remove(rows: dict[int, dict[int, Bundle]] | dict[int, dict[int, IkeRow]], peer: int, number: int) -> None:
    of_peer = rows.get(peer)
    if of_peer is not None:
        of_peer.pop(number, None)
        if not of_peer:
            del rows[peer]
