"""Lists and events of charon overtake each other; no counter is lost by that.

A model of charon: SAs come, are renewed and end; events are queued and read later, lists
show one moment and are taken in at another. At the end everything is read.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from agent.backends.engine import ChildSa, IkeEvent, IkeEventKind, IkeSa
from agent.monitor.sas import Registry
from agent.plan import numbers

CHILD = "peer-3-rule-4"
OURS, THEIRS = b"\x0a\x08\0\x01", b"\x0a\x08\0\x02"


@dataclass
class Charon:
    """SAs that carry traffic, by unique id; what they counted; events nobody has read."""

    sas: dict[int, ChildSa] = field(default_factory=dict)
    events: deque[IkeEvent] = field(default_factory=deque)
    total: int = 0
    last: int = 0

    def make(self) -> ChildSa:
        self.last += 1
        spis = (self.last * 2).to_bytes(4, "big"), (self.last * 2 + 1).to_bytes(4, "big")
        new = ChildSa(CHILD, self.last, numbers.REQID_FIRST, "INSTALLED", 1, 50, *spis)
        self.sas[self.last] = new
        return new

    def ike(self) -> IkeSa:
        return IkeSa("peer-3", 1, 1, "ESTABLISHED", OURS, THEIRS, children=tuple(self.sas.values()))

    def tell(self, kind: IkeEventKind, child: ChildSa, old: ChildSa | None = None) -> None:
        sa = replace(self.ike(), children=())
        self.events.append(IkeEvent(kind, ike=sa, child=child, old_child=old, connection="peer-3"))


class Races(RuleBasedStateMachine):
    """One tunnel always stands; whatever the order of reading, its counters are whole."""

    def __init__(self) -> None:
        super().__init__()
        self.charon = Charon()
        self.registry = Registry(lambda: 0)
        self.lists: list[tuple[int, tuple[IkeSa, ...] | None]] = []  # begun, and what was seen when it was made
        self.charon.tell(IkeEventKind.CHILD_UP, self.charon.make())
        self.seen = 0

    @rule(which=st.integers(0, 9), octets=st.integers(1, 100))
    def traffic(self, which: int, octets: int) -> None:
        unique = sorted(self.charon.sas)[which % len(self.charon.sas)]
        sa = self.charon.sas[unique]
        self.charon.sas[unique] = replace(sa, octets_in=sa.octets_in + octets, packets_in=sa.packets_in + 1)
        self.charon.total += octets

    @rule()
    def another(self) -> None:
        """A second tunnel of the same child: both sides begin at once."""
        self.charon.tell(IkeEventKind.CHILD_UP, self.charon.make())

    @rule(which=st.integers(0, 9), stays=st.booleans())
    def rekey(self, which: int, stays: bool) -> None:
        """The old one ends without a word."""
        unique = sorted(self.charon.sas)[which % len(self.charon.sas)]
        old = self.charon.sas[unique]
        new = self.charon.make()
        self.charon.tell(IkeEventKind.CHILD_REKEY, new, old)
        if stays:
            self.charon.sas[unique] = replace(old, state="REKEYED")
        else:
            del self.charon.sas[unique]

    @rule(which=st.integers(0, 9))
    def renew_as_responder(self, which: int) -> None:
        """Told as an end and a beginning."""
        unique = sorted(self.charon.sas)[which % len(self.charon.sas)]
        self.charon.tell(IkeEventKind.CHILD_DOWN, self.charon.sas.pop(unique))
        self.charon.tell(IkeEventKind.CHILD_UP, self.charon.make())

    @precondition(lambda self: len(self.charon.sas) > 1)
    @rule(which=st.integers(0, 9))
    def end(self, which: int) -> None:
        unique = sorted(self.charon.sas)[which % len(self.charon.sas)]
        sa = self.charon.sas.pop(unique)
        if sa.state != "REKEYED":
            self.charon.tell(IkeEventKind.CHILD_DOWN, sa)
        else:
            self.final(sa)

    def final(self, sa: ChildSa) -> None:
        """Its last counters come from the kernel."""
        from agent.backends.engine import SaCounters, SaRecord

        counters = SaCounters(sa.octets_in, sa.packets_in, 0, 0)
        self.registry.kernel(SaRecord(THEIRS, OURS, 50, sa.spi_in, sa.reqid, 1, counters))

    @precondition(lambda self: self.charon.events)
    @rule()
    def read_event(self) -> None:
        self.registry.event(self.charon.events.popleft())
        self.check()

    @precondition(lambda self: not self.lists)
    @rule()
    def ask_for_list(self) -> None:
        self.lists = [(self.registry.begin_list(), None)]

    @precondition(lambda self: self.lists and self.lists[0][1] is None)
    @rule()
    def make_list(self) -> None:
        self.lists = [(self.lists[0][0], (self.charon.ike(),))]

    @precondition(lambda self: self.lists and self.lists[0][1] is not None)
    @rule()
    def take_list(self) -> None:
        begun, sas = self.lists.pop()
        assert sas is not None
        self.registry.finish_list(begun, sas)
        self.check()

    def counted(self) -> int:
        return sum(bundle.traffic.incoming.octets for bundle in self.registry.alive())

    def check(self) -> None:
        assert self.counted() >= self.seen, "it went back"
        self.seen = self.counted()

    def teardown(self) -> None:
        for begun, sas in self.lists:
            if sas is not None:
                self.registry.finish_list(begun, sas)
        while self.charon.events:
            self.registry.event(self.charon.events.popleft())
            self.check()
        self.registry.finish_list(self.registry.begin_list(), [self.charon.ike()])
        assert self.counted() == self.charon.total
        assert self.registry.totals[3].incoming.octets == self.charon.total
        standing = [bundle for bundle in self.registry.alive() if bundle.leaves is None]
        assert len(standing) <= len(self.charon.sas)


TestRaces = Races.TestCase
TestRaces.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
