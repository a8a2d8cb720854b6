"""What is counted: each message of a kind moves its counter by one, and a report carries the value that is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agent.mib.ber import decode_value, encode_integer
from agent.snmp.counters import Counters
from agent.snmp.guard import Limits
from tests.snmp_station import (
    GET,
    GETBULK,
    GETNEXT,
    NULL,
    READ,
    REPORT,
    SET,
    WRITE,
    Manager,
    Session3,
    encode_community,
    encode_pdu,
    manager,
    served,
    text,
)

Oid = tuple[int, ...]
SNMP, SNMP_MODULES = (1, 3, 6, 1, 2, 1, 11), (1, 3, 6, 1, 6, 3)
CONTACT = (1, 3, 6, 1, 2, 1, 1, 4, 0)
NOTHING = (1, 3, 6, 1, 2, 1, 1, 99, 0)


async def read(asking: Manager, *oids: Oid) -> list[int]:
    values = [decode_value(tlv) for _, tlv in (await asking.ask(GET, [(oid, NULL) for oid in oids])).varbinds]
    return [value for value in values if isinstance(value, int)]


async def snmp_group(asking: Manager) -> dict[int, int]:
    """The counters of the snmp group, by number. Reading them counts too, before they are read."""
    numbers = (*range(1, 7), *range(8, 23), *range(24, 30), 31, 32)
    values = await read(asking, *((*SNMP, number, 0) for number in numbers))
    return dict(zip(numbers, values, strict=True))


def moved(before: dict[int, int], after: dict[int, int]) -> dict[int, int]:
    return {number: after[number] - before[number] for number in before if after[number] != before[number]}


READING = {1: 1, 2: 1, 13: 29, 15: 1, 28: 1}
"""What one look at the group itself adds: a packet each way, a GET, its variables, a response."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (encode_community(1, READ, encode_pdu(GET, 5, [(CONTACT, NULL)] * 3)), {1: 1, 2: 1, 13: 3, 15: 1, 28: 1}),
        (encode_community(1, READ, encode_pdu(GETNEXT, 5, [(CONTACT, NULL)])), {1: 1, 2: 1, 13: 1, 16: 1, 28: 1}),
        (encode_community(1, READ, encode_pdu(GETBULK, 5, [(CONTACT, NULL)], 0, 5)), {1: 1, 2: 1, 13: 5, 28: 1}),
        (
            encode_community(1, WRITE, encode_pdu(SET, 5, [(CONTACT, text("me"))] * 2)),
            {1: 1, 2: 1, 14: 2, 17: 1, 28: 1},
        ),
        (encode_community(0, READ, encode_pdu(GET, 5, [(NOTHING, NULL)])), {1: 1, 2: 1, 15: 1, 21: 1, 28: 1}),
        (encode_community(0, WRITE, encode_pdu(SET, 5, [(CONTACT, NULL)])), {1: 1, 2: 1, 17: 1, 22: 1, 28: 1}),
        (encode_community(1, READ, encode_pdu(SET, 5, [(CONTACT, text("x"))])), {1: 1, 2: 1, 5: 1, 17: 1, 28: 1}),
        (encode_community(1, READ, encode_pdu(GET, 5, [(CONTACT, NULL)] * 129)), {1: 1, 2: 1, 15: 1, 20: 1, 28: 1}),
        (encode_community(1, "public", encode_pdu(GET, 5, [(CONTACT, NULL)])), {1: 1, 4: 1}),
        (encode_community(7, READ, encode_pdu(GET, 5, [(CONTACT, NULL)])), {1: 1, 3: 1}),
        (encode_community(1, READ, b"\xa0\x03\x02\x01"), {1: 1, 6: 1}),
        (encode_community(1, READ, encode_pdu(0xA2, 5, [(CONTACT, NULL)])), {1: 1}),
    ],
    ids=[
        *("get", "getnext", "getbulk", "set", "v1-nosuchname", "v1-badvalue", "community-may-not", "too-big"),
        *("community", "version", "asn1", "response"),
    ],
)
async def test_the_snmp_group(tmp_path: Path, message: bytes, expected: dict[int, int]) -> None:
    async with served(tmp_path) as at, manager(at.address) as asking, manager(at.address) as sending:
        before = await snmp_group(asking)
        sending.send(message)
        if 2 in expected:
            await sending.receive()
        after = await snmp_group(asking)
        # a look sees its packet and its request, and the response of the look before
        total = {n: expected.get(n, 0) + READING.get(n, 0) for n in expected.keys() | READING.keys()}
        assert moved(before, after) == total


async def test_both_ways_in_count_alike(tmp_path: Path) -> None:
    pdus = [
        encode_pdu(GET, 5, [(CONTACT, NULL), (NOTHING, NULL)]),
        encode_pdu(GETNEXT, 6, [(CONTACT, NULL)]),
        encode_pdu(GETBULK, 7, [(CONTACT, NULL)], 0, 9),
        encode_pdu(SET, 8, [(CONTACT, text("x"))]),
        encode_pdu(SET, 9, [(CONTACT, encode_integer(1))]),
        encode_pdu(GET, 10, [(CONTACT, NULL)] * 129),
    ]
    async with served(tmp_path) as at, manager(at.address) as asking:
        session = await Session3.open(asking, tmp_path)
        moves = []
        for wrap in (lambda pdu: encode_community(1, WRITE, pdu), session.message):
            before = await snmp_group(asking)
            for pdu in pdus:
                asking.send(wrap(pdu))
                await asking.receive()
            moves.append(moved(before, await snmp_group(asking)))
        assert moves[0] == moves[1]
        assert moves[0][28] == len(pdus) + 1


# ---- what SNMPv3 reports --------------------------------------------------------------

USM, MPD, TARGET = (*SNMP_MODULES, 15, 1, 1), (*SNMP_MODULES, 11, 2, 1), (*SNMP_MODULES, 12, 1)
PDU = encode_pdu(GET, 77, [(CONTACT, NULL)])


def bent(session: Session3) -> bytes:
    message = bytearray(session.message(PDU))
    message[-1] ^= 1
    return bytes(message)


def stale(session: Session3) -> bytes:
    session.boots += 1
    try:
        return session.message(PDU)
    finally:
        session.boots -= 1


def foreign(session: Session3) -> bytes:
    own, session.engine_id = session.engine_id, b"\x80\x00\x00\x01\x05another"
    try:
        return session.message(PDU, level=0)
    finally:
        session.engine_id = own


REPORTS: dict[str, tuple[Callable[[Session3], bytes], Oid]] = {
    "unsupported level": (lambda s: s.message(PDU, level=1), (*USM, 1, 0)),
    "not in time window": (stale, (*USM, 2, 0)),
    "unknown user": (lambda s: s.message(PDU, user=b"nobody"), (*USM, 3, 0)),
    "unknown engine": (foreign, (*USM, 4, 0)),
    "wrong digest": (bent, (*USM, 5, 0)),
    "cannot be decrypted": (lambda s: s.message(PDU, salt_octets=7), (*USM, 6, 0)),
    "unknown context": (lambda s: s.message(PDU, context=b"elsewhere"), (*TARGET, 5, 0)),
    "context of another engine": (
        lambda s: s.message(PDU, context_engine=b"\x80\x00\x00\x01\x05another"),
        (*MPD, 3, 0),
    ),
    "nobody's PDU": (lambda s: s.message(encode_pdu(0xA6, 77, [(CONTACT, NULL)])), (*MPD, 3, 0)),
}


@pytest.mark.parametrize("what", REPORTS)
async def test_a_report_carries_the_counter_that_is_read(tmp_path: Path, what: str) -> None:
    make, oid = REPORTS[what]
    statistics = [*((*USM, n, 0) for n in range(1, 7)), *((*MPD, n, 0) for n in (1, 2, 3)), (*TARGET, 5, 0)]
    async with served(tmp_path) as at, manager(at.address) as asking:
        session = await Session3.open(asking, tmp_path)
        before = dict(zip(statistics, await read(asking, *statistics), strict=True))
        for more in (1, 2):
            asking.send(make(session))
            report = session.read(await asking.receive())
            assert report.kind == REPORT
            assert report.varbinds == [(oid, encode_integer(before[oid] + more, 0x41))]
        after = dict(zip(statistics, await read(asking, *statistics), strict=True))
        assert {name: after[name] - before[name] for name in statistics if after[name] != before[name]} == {oid: 2}
        assert (await session.ask(GET, [(CONTACT, NULL)])).status == 0


async def test_what_is_dropped_without_a_report(tmp_path: Path) -> None:
    async with served(tmp_path) as at, manager(at.address) as asking:
        session = await Session3.open(asking, tmp_path)
        asking.send(session.message(PDU, model=17))  # RFC 3412 section 7.2 (4)
        asking.send(session.message(PDU, level=2))  # section 7.2 (5d): privacy without authentication
        assert await read(asking, *((*MPD, n, 0) for n in (1, 2, 3))) == [1, 1, 0]
        assert asking.received.empty()


async def test_what_is_limited_is_counted_as_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(tmp_path, limits=Limits(strangers_per_second=1)) as at, manager(at.address) as asking:
        session = await Session3.open(asking, tmp_path)
        before = at.server.counters.usmStatsUnknownEngineIDs
        assert at.server._guard is not None
        strangers = at.server._guard._strangers
        monkeypatch.setattr(strangers, "_clock", lambda now=strangers._at: now)  # no second passes
        for make in (REPORTS["unknown user"][0], foreign, bent):
            for _ in range(5):
                asking.send(make(session))
        await read(asking, CONTACT)
        counters = at.server.counters
        assert counters.limited >= 14
        assert counters.usmStatsUnknownUserNames == 5
        assert counters.usmStatsUnknownEngineIDs == before + 5
        assert counters.usmStatsWrongDigests == 5


async def test_engine_group(tmp_path: Path) -> None:
    """snmpEngineID, Boots, Time and MaxMessageSize are those of the messages."""
    oids = [(*SNMP_MODULES, 10, 2, 1, n, 0) for n in (1, 2, 3, 4)]
    for boots in (1, 2):
        async with served(tmp_path) as at, manager(at.address) as asking:
            session = await Session3.open(asking, tmp_path)
            asking.send(session.message(encode_pdu(GET, 1, [(oid, NULL) for oid in oids])))
            message = await asking.receive()
            reply = session.read(message)
            values = [decode_value(tlv) for _, tlv in reply.varbinds]
            assert values[:2] == [session.engine_id, boots]
            assert isinstance(values[2], int) and 0 <= values[2] - session.time <= 60
            assert values[3] == 16_384
            assert encode_integer(16_384) in message[:40]  # msgMaxSize


def test_counters_start_again_at_32_bits() -> None:
    from agent.snmp.pysnmp_parts import Counted

    counters = Counters(usmStatsWrongDigests=2**32 - 1)
    counted = Counted(counters, "usmStatsWrongDigests")
    assert int(counted) == 2**32 - 1
    counted += 1
    assert int(counted) == 0
    assert counters.usmStatsWrongDigests == 2**32
