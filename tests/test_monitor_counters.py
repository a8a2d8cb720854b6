"""Counters never go back and lose nothing, in whatever order the readings of SAs come."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from agent.backends.engine import ChildSa
from agent.monitor.algorithms import Overhead, overhead
from agent.monitor.counters import Counters, SaKey, Traffic

PLAIN = Overhead(0, 0, 1)
ADDRESS = b"\x0a\0\0\1"


def key(number: int) -> SaKey:
    return SaKey(ADDRESS, 50, number.to_bytes(4, "big"))


@dataclass
class Life:
    """One SA: totals it shows one after the other, and which of them are read, in which order."""

    readings: list[tuple[int, int]]
    order: list[int] = field(default_factory=list)


@st.composite
def lives(draw: st.DrawFn) -> list[Life]:
    found = []
    for _ in range(draw(st.integers(1, 5))):
        steps = draw(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 9)), min_size=1, max_size=6))
        octets = packets = 0
        readings = []
        for more_octets, more_packets in steps:
            octets, packets = octets + more_octets, packets + more_packets
            readings.append((octets, packets))
        order = draw(st.permutations(list(range(len(readings)))))
        found.append(Life(readings, order))
    return found


@given(lives(), st.data())
def test_the_sum_is_that_of_the_last_words_and_never_shrinks(found: list[Life], data: st.DataObject) -> None:
    """Readings of several SAs of one tunnel interleave, come twice, before the SA is known and after it has left."""
    counters, tunnel, peer = Counters(), Traffic(), Traffic()
    events: list[tuple[int, int | str]] = [(sa, at) for sa, life in enumerate(found) for at in life.order]
    events += [(sa, "join") for sa in range(len(found))] + [(sa, "leave") for sa in range(len(found))]
    seen = (0, 0)
    joined: set[int] = set()
    for sa, what in data.draw(st.permutations(events)):
        if what == "join":
            counters.join(key(sa), tunnel, peer, True, PLAIN, 0)
            joined.add(sa)
        elif what == "leave":
            if sa in joined:
                counters.leave(key(sa))
        else:
            counters.read(key(sa), *found[sa].readings[int(what)], 0)
            counters.read(key(sa), *found[sa].readings[int(what)], 0)
        now = (tunnel.incoming.octets, tunnel.incoming.packets)
        assert now >= seen and now[0] >= seen[0] and now[1] >= seen[1]
        seen = now
    expected = tuple(sum(life.readings[-1][column] for life in found) for column in (0, 1))
    assert seen == expected
    assert (peer.incoming.octets, peer.incoming.packets) == expected
    assert tunnel.outgoing == Traffic().outgoing


def test_an_heir_goes_on_with_the_sums_and_gets_the_last_words() -> None:
    counters, old, new, peer = Counters(), Traffic(), Traffic(), Traffic()
    counters.join(key(1), old, peer, False, PLAIN, 0)
    counters.join(key(2), new, peer, False, PLAIN, 0)
    counters.read(key(1), 100, 1, 0)
    counters.read(key(2), 10, 1, 0)
    counters.inherit(old, new)
    counters.leave(key(1))
    counters.read(key(1), 150, 2, 0)
    assert (new.outgoing.octets, new.outgoing.packets) == (160, 3)
    assert (peer.outgoing.octets, peer.outgoing.packets) == (160, 3)


@given(st.integers(1, 1000), st.integers(20, 1500), st.sampled_from([Overhead(57, 2, 16), Overhead(44, 2, 4)]))
def test_octets_on_the_wire_of_packets_of_one_size_are_exact(packets: int, size: int, added: Overhead) -> None:
    padded = size + 2 + (-(size + 2)) % added.block
    assert added.on_the_wire(packets * size, packets) == packets * (padded + added.fixed)


@given(st.lists(st.integers(20, 1500), min_size=1, max_size=50))
def test_octets_on_the_wire_are_right_within_a_block_for_any_sizes(sizes: list[int]) -> None:
    added = Overhead(60, 2, 16)
    exact = sum(size + 2 + (-(size + 2)) % 16 + 60 for size in sizes)
    assert abs(added.on_the_wire(sum(sizes), len(sizes)) - exact) <= 15 * len(sizes)


def child(**fields: object) -> ChildSa:
    known = {"name": "c", "unique_id": 1, "reqid": 1, "state": "INSTALLED", "mode": 1, "protocol": 50}
    return ChildSa(**{**known, "spi_in": b"", "spi_out": b"", **fields})  # type: ignore[arg-type]


def test_a_ping_in_aes_cbc_with_sha256_has_156_octets_on_the_wire() -> None:
    """84 octets inside: IP 20, ESP 8, IV 16, 84 + 2 padded to 96, check value 16 (RFC 4303, 3602, 4868)."""
    aes = overhead(child(encryption="AES_CBC", encryption_bits=256, integrity="HMAC_SHA2_256_128"), ADDRESS)
    assert aes.on_the_wire(84, 1) == 156
    assert overhead(child(encryption="AES_CBC", integrity="HMAC_SHA2_256_128", encap=True), ADDRESS).fixed == 68


def test_other_kinds_of_protection() -> None:
    triple = overhead(child(encryption="3DES_CBC", integrity="HMAC_SHA1_96"), ADDRESS)
    assert triple.on_the_wire(84, 1) == 20 + 8 + 8 + 88 + 12
    combined = overhead(child(encryption="AES_GCM_16"), bytes(16))
    assert combined.on_the_wire(100, 1) == 40 + 8 + 8 + 104 + 16
    header = overhead(child(protocol=51, integrity="HMAC_SHA1_96"), ADDRESS)
    assert header.on_the_wire(84, 1) == 84 + 20 + 24
