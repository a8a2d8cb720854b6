"""The same PDU gives the same answer by our codec and through pysnmp; and what only SNMPv3 has."""

from __future__ import annotations

import asyncio
import itertools
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from agent.mib.ber import encode_integer, encode_tlv
from agent.mib.schema import Keeping, Role
from agent.snmp.access import Level
from agent.snmp.guard import Limits
from agent.store.hooks import AGENT, Edit
from tests.snmp_station import (
    GET,
    GETBULK,
    GETNEXT,
    IPSEC,
    NULL,
    REPORT,
    RESPONSE,
    SCHEMA,
    SET,
    Manager,
    Reply,
    Session3,
    encode_community,
    encode_pdu,
    instance,
    manager,
    served,
    text,
    until,
)
from tests.test_snmp_tools import held

Oid = tuple[int, ...]
STATS = (1, 3, 6, 1, 6, 3, 15, 1, 1)

rows = st.sampled_from([0, 1, 2, 3, 7, 300])
columns = st.sampled_from(sorted(c.oid for c in SCHEMA.columns.values()))
standard = st.sampled_from(
    [
        *((1, 3, 6, 1, 2, 1, 1, number) for number in range(1, 9)),  # system
        *((1, 3, 6, 1, 2, 1, 1, 9, 1, number) for number in range(1, 5)),  # sysORTable
        *((1, 3, 6, 1, 2, 1, 11, number) for number in range(1, 33)),  # snmp
        (1, 3, 6, 1, 6, 3, 1, 1, 6, 1),  # snmpSetSerialNo
        *((1, 3, 6, 1, 6, 3, module) for module in range(10, 17)),
        *((1, 3, 6, 1, 6, 3, 15, 1, 2, 2, 1, number) for number in range(1, 14)),  # usmUserTable
        (1, 3, 6, 1, 6, 3, 16, 1, 2, 1, 3, 3, 5, *b"admin"),
    ]
)
names = (
    st.builds(lambda oid, row: (*oid, row), columns | standard, rows)
    | columns
    | standard
    | st.just(IPSEC)
    | st.just((2, 1))
)
MOVING = (
    *((1, 3, 6, 1, 2, 1, 1, 3), (1, 3, 6, 1, 2, 1, 11)),  # sysUpTime, counters
    *((1, 3, 6, 1, 6, 3, 10, 2), (1, 3, 6, 1, 6, 3, 11, 2), (1, 3, 6, 1, 6, 3, 12), (1, 3, 6, 1, 6, 3, 15)),
    (1, 3, 6, 1, 6, 3, 1, 1, 6, 1),  # a lock begins anywhere
)
"""What differs between two agents, or between two moments of one: counters, clocks, locks, identity. Of these the
types are compared; snmpEnableAuthenTraps, a setting among the counters, has only one value here to be written."""
values = st.sampled_from(
    [
        *(NULL, text("x"), text(""), encode_tlv(0x40, bytes(4)), encode_tlv(6, b"\x2b\x06")),
        *map(encode_integer, (-5, 1, 4, 6)),
        *(encode_integer(4, 0x42), encode_integer(2**40, 0x46)),
    ]
)
reads = st.tuples(
    st.sampled_from([GET, GETNEXT, GETBULK]),
    st.lists(st.tuples(names, st.just(NULL)), max_size=5),
    st.integers(0, 4),
    st.integers(0, 30),
)
sets = st.tuples(st.just(SET), st.lists(st.tuples(names, values), max_size=4), st.just(0), st.just(0))


@st.composite
def sensible(draw: st.DrawFn) -> Case:
    """A SET of one row with values it may have, most of which are accepted."""
    table = draw(st.sampled_from([t for t in SCHEMA.tables.values() if t.keeping is Keeping.STORED and t.creating]))
    row = draw(st.integers(1, 3))
    writable = [c for c in table.columns if c.writable and c.traits.role in (Role.PLAIN, Role.CREATING)]
    chosen = draw(st.lists(st.sampled_from(writable), max_size=3, unique=True))
    varbinds = [((*column.oid, row), column.default_tlv) for column in chosen]
    assert table.row_status is not None
    if (status := draw(st.sampled_from([1, 2, 4, 5, 6, None]))) is not None:
        varbinds.append(((*table.row_status.oid, row), encode_integer(status)))
    return SET, draw(st.permutations(varbinds)), 0, 0


Case = tuple[int, list[tuple[Oid, bytes]], int, int]
_cases: list[Case] = []


@given(reads | sets | sensible())
@settings(
    max_examples=300, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck), database=None
)
def _collect(case: Case) -> None:
    _cases.append(case)


def answer(reply: Reply) -> tuple[object, ...]:
    moving = [any(oid[: len(prefix)] == prefix for prefix in MOVING) for oid, _ in reply.varbinds]
    if any(moving) and reply.kind == RESPONSE and not reply.status:
        varbinds = [(oid, tlv[:1] if moved else tlv) for (oid, tlv), moved in zip(reply.varbinds, moving, strict=True)]
        return reply.kind, reply.status, reply.index, varbinds
    return reply.kind, reply.status, reply.index, reply.octets


async def test_the_same_pdu_gives_the_same_answer_both_ways(tmp_path: Path) -> None:
    """Cases are drawn first, as the event loop is not hypothesis's, and asked of two agents in step, since a SET
    changes what comes after it. The user gets the level of the community: who may what is not the question here."""
    _cases.clear()
    _collect()
    async with served(tmp_path / "a") as one, served(tmp_path / "b") as other:
        async with manager(one.address) as asking, manager(other.address) as asking3:
            session = await Session3.open(asking3, tmp_path / "b")
            for at in (one, other):
                key = b"of another administrator, who stays"
                other_user = {"Name": b"other", "Level": int(Level.ADMIN), "AuthKey": key, "PrivKey": key}
                edits = [Edit(SCHEMA.columns["ipsecGwUser" + name], 2, value) for name, value in other_user.items()]
                edits.append(Edit(SCHEMA.columns["ipsecGwUserLevel"], 1, int(Level.WRITE)))
                await at.store.commit(edits, AGENT)
            kinds = set()
            for kind, varbinds, first, second in _cases:
                fast = await asking.ask(kind, varbinds, first, second)
                slow = await session.ask(kind, varbinds, first, second)  # of the same request-id: the same octets
                assert answer(fast) == answer(slow), (kind, varbinds, first, second)
                kinds.add((kind, fast.status))
            assert one.store.running.generation == other.store.running.generation > 2
            assert one.refused == [text.replace("admin", "write-community") for text in other.refused]
        assert len(kinds) > 5  # reads, and SETs refused in several ways; how many is drawn


async def test_request_ids_that_are_not_small_come_back(tmp_path: Path) -> None:
    async with served(tmp_path) as at, manager(at.address) as asking:
        session = await Session3.open(asking, tmp_path)
        for request_id in (0, -1, -(2**31), 2**31 - 1, 255, 128):
            asking.requests = request_id - 1
            assert (await asking.ask(GET, [(instance("ipsecGlobEnabled", 0), NULL)])).status == 0
            asking.requests = request_id - 1
            assert (await session.ask(GET, [(instance("ipsecGlobEnabled", 0), NULL)])).status == 0


async def test_a_large_answer_through_pysnmp_is_filled_and_fits(tmp_path: Path) -> None:
    async with served(tmp_path) as at, manager(at.address) as asking:
        wide = {row: {"ipsecBundleInBytesNetto": 2**40 + row} for row in range(1, 3000)}
        at.store.live.update("ipsecBundleTable", wide)
        session = await Session3.open(asking, tmp_path)
        start = SCHEMA.tables["ipsecBundleTable"].oid
        for largest in (484, 1500, 65507):
            pdu = encode_pdu(GETBULK, 9, [(start, NULL)], 0, 10_000)
            asking.send(session.message(pdu, largest=largest))
            message = await asking.receive()
            reply = session.read(message)
            assert reply.kind == RESPONSE and reply.status == 0
            assert largest - 450 < len(message) <= largest
            fast = await asking.ask(GETBULK, [(start, NULL)], 0, len(reply.varbinds))
            assert reply.varbinds == fast.varbinds
        pdu = encode_pdu(GET, 10, [((*start, 2, 1), NULL)] * 60)
        asking.send(session.message(pdu, largest=484))
        too_big = session.read(await asking.receive())
        assert (too_big.status, too_big.index, too_big.varbinds) == (1, 0, [])


async def test_a_replayed_set_is_never_executed_again(tmp_path: Path) -> None:
    async with served(tmp_path) as at, manager(at.address) as asking, manager(at.address) as other:
        session = await Session3.open(asking, tmp_path)
        create = session.message(encode_pdu(SET, 1, [(instance("ipsecGwPeerRowStatus", 1), encode_integer(4))]))
        asking.send(create)
        assert session.read(await asking.receive()).status == 0
        generation = at.store.running.generation
        asking.send(create)  # a datagram doubled on its way: the same answer
        assert session.read(await asking.receive()).status == 0
        assert (await session.ask(SET, [(instance("ipsecGwPeerRowStatus", 1), encode_integer(6))])).status == 0
        other.send(create)  # from elsewhere: a replay
        asking.send(create)  # and from the same place, after the row was removed: the remembered answer at most
        assert session.read(await asking.receive()).status == 0
        assert (await session.ask(GET, [(instance("ipsecGwPeerRowStatus", 1), NULL)])).varbinds[0][1] == b"\x81\x00"
        assert other.received.empty()
        assert at.server.sets.counters.replayed == 1
        assert at.store.running.generation == generation + 1


async def test_the_newest_message_of_a_retried_set_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(tmp_path) as at, manager(at.address) as asking:
        session = await Session3.open(asking, tmp_path)
        pdu = encode_pdu(SET, 1, [(instance("ipsecGwPeerRowStatus", 1), encode_integer(4))])
        before = at.store.running.generation
        go_on = held(at, monkeypatch)
        for message_id in (101, 102, 103):
            asking.send(session.message(pdu, message_id=message_id))
        await until(lambda: at.server.sets.counters.joined == 2)  # none is stored yet
        go_on.set()
        message = await asking.receive()
        assert encode_integer(103) in message[:24]
        assert session.read(message).status == 0
        await asyncio.sleep(0.05)
        assert asking.received.empty()
        assert at.store.running.generation == before + 1
        engine = at.server._engine
        assert engine is not None and engine._engine is not None
        assert engine._engine.security_models[3]._cache.is_empty()  # nothing is kept for the two that nobody answers


async def report(asking: Manager, session: Session3, message: bytes) -> Oid:
    asking.send(message)
    reply = session.read(await asking.receive())
    assert reply.kind == REPORT
    [(oid, _)] = reply.varbinds
    return oid


async def test_reports(tmp_path: Path) -> None:
    """RFC 3414 section 3.2 in its order."""
    pdu = encode_pdu(GET, 1, [(instance("ipsecGlobEnabled", 0), NULL)])
    async with served(tmp_path) as at, manager(at.address) as asking:
        session = await Session3.open(asking, tmp_path)
        own, boots, now = session.engine_id, session.boots, session.time
        assert await report(asking, session, session.message(pdu, user=b"nobody")) == (*STATS, 3, 0)
        assert await report(asking, session, session.message(pdu, level=1)) == (*STATS, 1, 0)
        assert await report(asking, session, session.message(pdu, level=0)) == (*STATS, 1, 0)
        for stale in ({"boots": boots - 1}, {"boots": boots + 1}, {"time": now + 200}):
            vars(session).update({"boots": boots, "time": now} | stale)
            assert await report(asking, session, session.message(pdu)) == (*STATS, 2, 0)
        vars(session).update(boots=boots, time=now)
        bent = bytearray(session.message(pdu))
        bent[-1] ^= 1
        assert await report(asking, session, bytes(bent)) == (*STATS, 5, 0)
        session.engine_id = b"\x80\x00\x00\x01\x05another"
        other = session.message(pdu)
        plain = session.message(pdu, level=0)
        session.engine_id = own
        assert await report(asking, session, other) == (*STATS, 4, 0)
        assert await report(asking, session, plain) == (*STATS, 4, 0)
        assert await report(asking, session, session.message(pdu, context=b"x")) == (1, 3, 6, 1, 6, 3, 12, 1, 5, 0)
        asking.send(session.message(pdu, level=0, user=b""))  # nobody, with our engine ID
        nobody = session.read(await asking.receive())
        assert (nobody.kind, nobody.status) == (RESPONSE, 16)
        assert (await session.ask(GET, [(instance("ipsecGlobEnabled", 0), NULL)])).status == 0
        engine = at.server._engine
        assert engine is not None and engine._engine is not None
        usm = engine._engine.security_models[3]
        assert usm._cache.is_empty()
        assert not usm._SnmpUSMSecurityModel__timelineExpQueue
        assert set(usm._SnmpUSMSecurityModel__timeline) <= {engine._engine.snmpEngineID}


async def test_strangers_are_limited_and_users_are_not(tmp_path: Path) -> None:
    pdu = encode_pdu(GET, 1, [(instance("ipsecGlobEnabled", 0), NULL)])
    limits = Limits(strangers_per_second=5)
    async with served(tmp_path, limits=limits) as at, manager(at.address) as asking:
        session = await Session3.open(asking, tmp_path)
        for _ in range(200):
            asking.send(session.message(pdu, user=b"nobody"))
        assert (await session_answer(asking, session, pdu)).status == 0
        assert at.server.counters.limited > 150
        assert at.server.counters.usmStatsUnknownUserNames == 200


async def session_answer(asking: Manager, session: Session3, pdu: bytes) -> Reply:
    """The response to `pdu`, whatever reports come before it."""
    asking.send(session.message(pdu))
    while True:
        reply = session.read(await asking.receive())
        if reply.kind == RESPONSE:
            return reply


async def test_engine_id_stays_and_boots_grow(tmp_path: Path) -> None:
    seen = []
    for _ in range(3):
        async with served(tmp_path) as at, manager(at.address) as asking:
            session = await Session3.open(asking, tmp_path)
            seen.append((session.engine_id, session.boots))
            assert (await session.ask(GETNEXT, [(IPSEC, NULL)])).status == 0
            assert at.store.numbers("snmp") == {"engineBoots": session.boots}
    engine_ids, boots = zip(*seen, strict=True)
    assert boots == (1, 2, 3)
    assert len(set(engine_ids)) == 1
    assert engine_ids[0][0] & 0x80 and 5 <= len(engine_ids[0]) <= 32


async def test_a_message_of_an_earlier_run_is_not_taken(tmp_path: Path) -> None:
    async with served(tmp_path) as at, manager(at.address) as asking:
        session = await Session3.open(asking, tmp_path)
        create = session.message(encode_pdu(SET, 1, [(instance("ipsecGwPeerRowStatus", 1), encode_integer(4))]))
        asking.send(create)
        assert session.read(await asking.receive()).status == 0
        assert (await session.ask(SET, [(instance("ipsecGwPeerRowStatus", 1), encode_integer(6))])).status == 0
    async with served(tmp_path) as at, manager(at.address) as asking:
        assert await report(asking, session, create) == (*STATS, 2, 0)
        assert len(at.store.running.table("ipsecPeerTable")) == 0


async def test_bent_messages_end_nothing(tmp_path: Path) -> None:
    """Octets changed, cut and added, in plain and authenticated messages of all versions: no exception, no stop."""
    dice = random.Random(20260102)
    async with served(tmp_path, limits=Limits(strangers_per_second=100_000)) as at, manager(at.address) as asking:
        session = await Session3.open(asking, tmp_path)
        pdus = [
            encode_pdu(kind, 5, [(instance("ipsecPeerDescription", 1), text("x")), ((1, 3, 6), NULL)], 1, 3)
            for kind in (GET, GETNEXT, GETBULK, SET, REPORT, RESPONSE, 0xA4, 0xA6, 0xA7)
        ]
        whole = [encode_community(version, "writing", pdu) for version in (0, 1, 2, 3) for pdu in pdus]
        for level, pdu in itertools.product((0, 1, 3), pdus):
            whole.append(session.message(pdu, level=level))
        for count in range(3000):
            message = bytearray(dice.choice(whole))
            for _ in range(dice.randrange(1, 4)):
                how = dice.randrange(4)
                place = dice.randrange(len(message))
                if how == 0:
                    message[place] = dice.randrange(256)
                elif how == 1:
                    del message[place : place + dice.randrange(1, 9)]
                elif how == 2:
                    message[place:place] = dice.randbytes(dice.randrange(1, 9))
                else:
                    message[place] ^= 1 << dice.randrange(8)
                if not message:
                    message = bytearray(b"\x30")
            asking.send(bytes(message))
            if count % 50 == 0:
                await asyncio.sleep(0)
        for length in (0, 1, 2, 500, 16_384, 16_385, 60_000):
            asking.send(dice.randbytes(length))
        # an answer to what is sent afterwards, behind all answers and reports to what was bent
        asking.requests = 1_000_000
        pdu = encode_pdu(GET, 999_999, [(instance("ipsecGlobEnabled", 0), NULL)])
        asking.send(encode_community(1, "writing", pdu))
        while encode_integer(999_999) not in await asking.receive():
            pass
        assert at.server.counters.failures == 0
        assert (await session_answer(asking, session, pdu)).status == 0
