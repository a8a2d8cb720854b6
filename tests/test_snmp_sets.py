"""SETs: what each kind of mistake is called, and what becomes of retries."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.mib.ber import encode_integer, encode_tlv
from agent.snmp.access import Level, Principal
from agent.snmp.pdu import Answer, Request, decode_pdu
from agent.snmp.respond import Asker
from agent.snmp.sets import REMEMBERED, Sets
from agent.store.errors import ErrorStatus as E
from agent.store.hooks import Edit, Origin
from tests.snmp_station import (
    GET,
    NULL,
    READ,
    SCHEMA,
    SET,
    encode_community,
    encode_pdu,
    instance,
    manager,
    served,
    text,
    until,
)

Oid = tuple[int, ...]
PEER = [(instance("ipsecPeerTrafficList", 4), encode_integer(0))]

MISTAKES: list[tuple[str, Oid, bytes, E]] = [
    ("another type", instance("ipsecPeerPriority", 4), text("1"), E.WRONG_TYPE),
    ("no value at all", instance("ipsecPeerPriority", 4), NULL, E.WRONG_TYPE),
    ("unsigned for signed", instance("ipsecPeerPriority", 4), encode_integer(1, 0x42), E.WRONG_TYPE),
    ("too long", instance("ipsecPeerDescription", 4), text("x" * 256), E.WRONG_LENGTH),
    ("no address", instance("ipsecPeerLocalAddress", 4), encode_tlv(0x40, bytes(5)), E.WRONG_LENGTH),
    ("no octets", instance("ipsecPeerPriority", 4), b"\x02\x00", E.WRONG_ENCODING),
    ("ten octets", instance("ipsecPeerPriority", 4), encode_tlv(2, bytes(10)), E.WRONG_ENCODING),
    ("no label", instance("ipsecPeerStartMode", 4), encode_integer(9), E.WRONG_VALUE),
    ("33 bits", instance("ipsecPeerPriority", 4), encode_integer(1 << 32), E.WRONG_VALUE),
    ("notReady", instance("ipsecGwPeerRowStatus", 4), encode_integer(3), E.WRONG_VALUE),
    ("row 0", instance("ipsecPeerPriority", 0), encode_integer(1), E.NO_CREATION),
    ("row 2^31", instance("ipsecPeerPriority", 1 << 31), encode_integer(1), E.NO_CREATION),
    ("two arcs", (*instance("ipsecPeerPriority", 4), 1), encode_integer(1), E.NO_CREATION),
    ("a column alone", SCHEMA.columns["ipsecPeerPriority"].oid, encode_integer(1), E.NO_CREATION),
    ("a scalar's row", instance("ipsecGlobEnabled", 1), encode_integer(1), E.NO_CREATION),
    ("read-only", instance("ipsecGwGeneration", 0), encode_integer(1, 0x42), E.NOT_WRITABLE),
    ("the row's number", instance("ipsecPeerIndex", 4), encode_integer(4), E.NOT_WRITABLE),
    ("statistics", instance("ipsecPeerStatOperStatus", 4), encode_integer(1), E.NOT_WRITABLE),
    ("sysDescr", (1, 3, 6, 1, 2, 1, 1, 1, 0), text("x"), E.NOT_WRITABLE),
    ("nothing of ours", (1, 3, 6, 1, 4, 1, 99, 1), encode_integer(1), E.NOT_WRITABLE),
    ("hidden", instance("ipsecPeerPreSharedKeyData", 4), text("x"), E.NO_ACCESS),
    ("a user", instance("ipsecGwUserLevel", 1), encode_integer(1), E.NO_ACCESS),
    ("no such row", instance("ipsecPeerPriority", 5), encode_integer(1), E.INCONSISTENT_NAME),
    ("made already", instance("ipsecGwPeerRowStatus", 4), encode_integer(4), E.INCONSISTENT_VALUE),
    ("no such profile", instance("ipsecPeerIkeProfile", 4), encode_integer(77), E.INCONSISTENT_VALUE),
    ("an old generation", instance("ipsecGwPeerRowGeneration", 4), encode_integer(0, 0x42), E.INCONSISTENT_VALUE),
]


async def test_each_mistake_has_its_name_and_place(tmp_path: Path) -> None:
    async with served(tmp_path) as at, manager(at.address) as asking:
        assert (await asking.ask(SET, PEER)).status == 0
        generation = at.store.running.generation
        fine = (instance("ipsecPeerDescription", 4), text("fine"))
        for what, oid, value, status in MISTAKES:
            for before in (0, 2):
                varbinds = [*[fine] * before, (oid, value)]
                answer = await asking.ask(SET, varbinds)
                assert (what, E(answer.status), answer.index) == (what, status, before + 1)
                assert answer.varbinds == varbinds
                v1 = await asking.ask(SET, varbinds, version=0)
                assert v1.status in (2, 3) and v1.index == before + 1, what
        assert at.store.running.generation == generation
        assert len(at.refused) == 4 * len(MISTAKES)
        assert (await asking.ask(GET, [(fine[0], NULL)])).varbinds == [(fine[0], text(""))]


async def test_a_reader_is_told_that_it_may_not(tmp_path: Path) -> None:
    async with served(tmp_path) as at, manager(at.address) as asking:
        answer = await asking.ask(SET, PEER, community=READ)
        assert (answer.status, answer.index) == (E.AUTHORIZATION_ERROR, 0)
        answer = await asking.ask(SET, PEER, community=READ, version=0)
        assert answer.status == 2


async def test_no_varbinds_are_no_change(tmp_path: Path) -> None:
    async with served(tmp_path) as at, manager(at.address) as asking:
        assert (await asking.ask(SET, [])).status == 0
        assert (await asking.ask(GET, [])).varbinds == []


async def test_too_many_varbinds_are_too_big(tmp_path: Path) -> None:
    async with served(tmp_path) as at, manager(at.address) as asking:
        generation = at.store.running.generation
        answer = await asking.ask(SET, PEER * 129)
        assert (answer.status, answer.index, answer.varbinds) == (1, 0, [])
        assert at.store.running.generation == generation
        assert (await asking.ask(SET, PEER * 128)).status == 0


async def test_a_retry_gets_the_same_answer_from_the_same_place_only(tmp_path: Path) -> None:
    async with served(tmp_path) as at, manager(at.address) as asking, manager(at.address) as other:
        create = encode_community(
            1, "writing", encode_pdu(SET, 7, [(instance("ipsecGwPeerRowStatus", 1), b"\x02\x01\x04")])
        )
        asking.send(create)
        first = await asking.receive()
        generation = at.store.running.generation
        asking.send(create)
        assert await asking.receive() == first
        assert at.store.running.generation == generation
        assert at.server.sets.counters.repeated == 1
        other.send(create)  # another sender's SET of the same words is its own
        assert b"\x02\x01\x0c\x02\x01\x01" in await other.receive()  # inconsistentValue, 1
        refused = encode_community(
            1, "writing", encode_pdu(SET, 8, [(instance("ipsecPeerPriority", 9), b"\x02\x01\x04")])
        )
        asking.send(refused)
        first = await asking.receive()
        asking.send(refused)
        assert await asking.receive() == first
        assert len(at.refused) == 2


async def test_a_secret_travels_only_where_it_is_safe(tmp_path: Path) -> None:
    """From loopback by community; the same from another address of the host is not."""
    async with served(tmp_path) as at, manager(at.address) as asking:
        key = (instance("ipsecPeerPreSharedKey", 4), text("hush"))
        assert (await asking.ask(SET, [*PEER, key])).status == 0
        responder = at.server._responder
        pdu = encode_pdu(SET, 1, [key])
        asker = Asker(Principal("write-community", Level.WRITE), 1, 65_000)
        away = Origin("snmp", "write-community", "192.0.2.9", "192.0.2.1", False)
        answer = await responder.write(decode_pdu(pdu, 0, len(pdu), 9), asker, away)
        assert (answer.status, answer.error_index) == (E.NO_ACCESS, 1)


# ---- the memory by itself -----------------------------------------------------------


class Slow:
    """A responder that answers when it is told to."""

    def __init__(self) -> None:
        self.carried_out: list[Request] = []
        self.gates: list[asyncio.Future[Answer]] = []

    async def write(self, request: Request, asker: Asker, origin: Origin) -> Answer:
        self.carried_out.append(request)
        gate: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.gates.append(gate)
        return await gate


class Got:
    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.discarded = 0

    def send(self, answer: Answer) -> None:
        self.answers.append(answer)

    def discard(self) -> None:
        self.discarded += 1


ORIGIN = Origin("snmp", "me", "192.0.2.1", "192.0.2.2")
ME = Asker(Principal("me", Level.WRITE), 1, 65_000)
DONE = Answer(0, 0, b"")


def request(request_id: int, value: int = 1) -> Request:
    pdu = encode_pdu(SET, request_id, [(instance("ipsecPeerPriority", 1), encode_integer(value))])
    return decode_pdu(pdu, 0, len(pdu), 128)


def memory(now: Callable[[], float] = lambda: 0.0) -> tuple[Sets, Slow]:
    slow = Slow()
    return Sets(slow, now), slow  # type: ignore[arg-type]


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_retry_joins_what_is_under_way_and_the_newest_is_answered() -> None:
    sets, slow = memory()
    replies = [Got() for _ in range(4)]
    for reply in replies[:3]:
        sets.submit(request(1), ME, ORIGIN, "a", reply)
    await turns()
    assert len(slow.carried_out) == 1
    assert [reply.discarded for reply in replies] == [1, 1, 0, 0]
    slow.gates[0].set_result(Answer(12, 1, request(1).body))
    await turns()
    sets.submit(request(1), ME, ORIGIN, "a", replies[3])
    outcome = [Answer(12, 1, request(1).body)]
    assert [reply.answers for reply in replies] == [[], [], outcome, outcome]
    assert len(slow.carried_out) == 1


async def test_what_differs_in_anything_is_another_set() -> None:
    sets, slow = memory()
    other = Asker(Principal("you", Level.WRITE), 1, 65_000)
    for asked, asker, source in (
        (request(1), ME, "a"),
        (request(2), ME, "a"),
        (request(1, 2), ME, "a"),
        (request(1), other, "a"),
        (request(1), ME, "b"),
        (request(1), ME._replace(version=0), "a"),
    ):
        sets.submit(asked, asker, ORIGIN, source, Got())
    await turns()
    assert len(slow.carried_out) == 6


async def test_a_manager_with_one_request_id_for_all_is_heard_each_time() -> None:
    sets, slow = memory()
    replies = [Got() for _ in range(4)]
    for at, value in enumerate((1, 2, 1)):  # there and back: the third is no retry of the first
        sets.submit(request(7, value), ME, ORIGIN, "a", replies[at])
        await turns()
        slow.gates[-1].set_result(DONE)
        await turns()
    sets.submit(request(7), ME, ORIGIN, "a", replies[3])  # this one is, of the third
    await turns()
    assert [len(reply.answers) for reply in replies] == [1, 1, 1, 1]
    assert len(slow.carried_out) == 3


async def test_what_a_new_set_has_taken_the_place_of_is_still_answered() -> None:
    sets, slow = memory()
    first, second = Got(), Got()
    sets.submit(request(7, 1), ME, ORIGIN, "a", first, b"one")
    sets.submit(request(7, 2), ME, ORIGIN, "a", second, b"two")
    replayed = Got()
    sets.submit(request(7, 1), ME, ORIGIN, "a", replayed, b"one")
    await turns()
    for gate in slow.gates:
        gate.set_result(DONE)
    await turns()
    assert (len(first.answers), len(second.answers), replayed.discarded) == (1, 1, 1)
    assert len(slow.carried_out) == 2


async def test_after_five_minutes_it_is_forgotten_but_not_while_it_is_under_way() -> None:
    now = 0.0
    sets, slow = memory(lambda: now)
    sets.submit(request(1), ME, ORIGIN, "a", Got())
    await turns()
    now = REMEMBERED + 1
    joined = Got()
    sets.submit(request(1), ME, ORIGIN, "a", joined)
    await turns()
    assert len(slow.carried_out) == 1
    slow.gates[0].set_result(DONE)
    await turns()
    assert joined.answers == [DONE]
    sets.submit(request(1), ME, ORIGIN, "a", Got())
    await turns()
    assert len(slow.carried_out) == 2


async def test_a_datagram_seen_before_goes_nowhere_even_when_its_answer_is_forgotten() -> None:
    now = 0.0
    sets, slow = memory(lambda: now)
    sets.submit(request(1), ME, ORIGIN, "a", Got(), b"octets")
    await turns()
    slow.gates[0].set_result(DONE)
    await turns()
    sets._known.clear()
    again = Got()
    sets.submit(request(1), ME, ORIGIN, "a", again, b"octets")
    await turns()
    assert (again.answers, again.discarded, len(slow.carried_out)) == ([], 1, 1)
    now = REMEMBERED + 1  # its time is over then, and the security model refuses it
    sets.submit(request(1), ME, ORIGIN, "a", Got(), b"octets")
    await turns()
    assert len(slow.carried_out) == 2


async def test_too_many_under_way_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.snmp.sets.UNDER_WAY", 2)
    sets, slow = memory()
    replies = [Got() for _ in range(3)]
    for number, reply in enumerate(replies):
        sets.submit(request(number), ME, ORIGIN, "a", reply)
    assert [answer.status for answer in replies[2].answers] == [E.RESOURCE_UNAVAILABLE]
    await turns()
    for gate in slow.gates:
        gate.set_result(DONE)
    await sets.finish()
    assert [reply.answers for reply in replies[:2]] == [[DONE], [DONE]]


async def test_an_exception_of_the_store_is_gen_err(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(tmp_path) as at, manager(at.address) as asking:

        async def broken(edits: list[Edit], origin: Origin) -> None:
            raise RuntimeError("broken")

        monkeypatch.setattr(at.store, "commit", broken)
        answer = await asking.ask(SET, PEER)
        assert (answer.status, answer.index) == (E.GEN_ERR, 0)
        assert (await asking.ask(GET, [(PEER[0][0], NULL)])).status == 0


async def test_stop_waits_for_what_was_taken(tmp_path: Path) -> None:
    async with served(tmp_path) as at, manager(at.address) as asking:
        for row in range(1, 31):
            creating = [(instance("ipsecPeerTrafficList", row), encode_integer(0))]
            asking.send(encode_community(1, "writing", encode_pdu(SET, row, creating)))
        await until(lambda: at.server.sets._tasks)
        taken = len(at.server.sets._known)
        await at.server.stop()
        answers = [await asking.receive() for _ in range(taken)]
        assert all(b"\x02\x01\x00\x02\x01\x00" in answer for answer in answers)
        assert len(at.store.running.table("ipsecPeerTable")) == taken
