"""GET, GETNEXT and GETBULK against an oracle that knows nothing of blocks, prefixes or columns: a sorted list."""

from __future__ import annotations

from bisect import bisect_right

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.mib.ber import BerError, Wire, decode_oid_contents, encode_integer, encode_oid_contents, encode_tlv
from agent.mib.schema import Keeping
from agent.snmp.access import Level, Principal, visibility
from agent.snmp.pdu import (
    END_OF_MIB_VIEW,
    NO_SUCH_INSTANCE,
    NO_SUCH_OBJECT,
    Answer,
    Request,
    Version,
    decode_pdu,
    encode_varbind,
    response_contents,
)
from agent.snmp.respond import Asker, Responder
from agent.snmp.standard.objects import Scalar
from agent.snmp.tree import Tree
from agent.store.live import Live
from agent.store.snapshot import Configuration, TableSnapshot, default_cells
from agent.store.view import View
from tests.snmp_station import GET, GETBULK, GETNEXT, NULL, SCHEMA, elements, encode_pdu, instance

Oid = tuple[int, ...]
ROWS = {
    "ipsecPeerTable": [1, 2, 5, 127, 128, 129, 16383, 16384, 2147483647],
    "ipsecTrafficTable": list(range(1, 700)),
    "ikeProfileTable": [3],
    "ipsecBundleTable": [10, 300],
}


class Odd:
    """An object with instances of several arcs, as a provider other than the store may have."""

    oid = (1, 3, 6, 1, 4, 1, 272, 4, 26, 200, 250, 7)
    wire = Wire.INTEGER
    at = ((0, 4, 2), (1,), (1, 0), (1, 300, 7), (4294967295,))

    def instance(self, arcs: Oid) -> bytes | None:
        return encode_integer(len(arcs)) if arcs in self.at else None

    def after(self, arcs: Oid) -> tuple[Oid, bytes] | None:
        return next(((a, encode_integer(len(a))) for a in self.at if a > arcs), None)


def configuration() -> View:
    live = Live(SCHEMA)
    tables = {}
    for name, rows in ROWS.items():
        table = SCHEMA.tables[name]
        snapshot = TableSnapshot.build(table, [(row, default_cells(table, row)) for row in rows])
        if table.keeping is Keeping.STORED:
            tables[name] = snapshot
        else:
            live.publish(name, snapshot)
    running = Configuration.empty(SCHEMA).replaced(3, tables)
    return View(lambda: running, live)


VIEW = configuration()
GIVEN = [Scalar((1, 3, 6, 1, 2, 1, 1, 4), Wire.OCTET_STRING, lambda: b"me"), Odd()]
RESPONDER = Responder(SCHEMA, Tree(SCHEMA, GIVEN, visibility), store=None)  # type: ignore[arg-type]
RESPONDER._store = type("Reads", (), {"view": VIEW})()
ADMIN = Principal("admin", Level.ADMIN)

INSTANCES: dict[Oid, bytes] = {}
for column in SCHEMA.ordered:
    for row in VIEW.table(column.table).rows():
        INSTANCES[*column.oid, row.number] = row.cells[column.position]
INSTANCES[1, 3, 6, 1, 2, 1, 1, 4, 0] = encode_tlv(4, b"me")
for arcs in Odd.at:
    INSTANCES[*Odd.oid, *arcs] = encode_integer(len(arcs))
ORDER = sorted(INSTANCES)
OBJECTS = [*(column.oid for column in SCHEMA.ordered), (1, 3, 6, 1, 2, 1, 1, 4), Odd.oid]
WIDE = {column.oid for column in SCHEMA.ordered if column.wire is Wire.COUNTER64}


def get(oid: Oid, version: int) -> bytes:
    """RFC 3416 section 4.2.1."""
    of = next((o for o in OBJECTS if oid[: len(o)] == o), None)
    if of is None or (version == 0 and of in WIDE):
        return NO_SUCH_OBJECT
    return INSTANCES.get(oid, NO_SUCH_INSTANCE)


def following(oid: Oid, version: int) -> tuple[Oid, bytes]:
    """RFC 3416 section 4.2.2."""
    for at in range(bisect_right(ORDER, oid), len(ORDER)):
        if version or ORDER[at][:-1] not in WIDE:
            return ORDER[at], INSTANCES[ORDER[at]]
    return oid, END_OF_MIB_VIEW


near = st.builds(
    lambda oid, cut, more: (*oid[: max(2, len(oid) - cut)], *more),
    st.sampled_from(ORDER) | st.sampled_from(OBJECTS) | st.sampled_from([c.oid for c in SCHEMA.columns.values()]),
    st.integers(0, 3),
    st.lists(st.sampled_from([0, 1, 2, 126, 127, 128, 16383, 16384, 2**31 - 1, 2**31, 2**32 - 1]), max_size=2),
)
anywhere = st.lists(st.integers(0, 2**32 - 1), max_size=6).map(lambda arcs: (1, 3, *arcs)) | st.just((2, 999, 1))
oids = near | anywhere


def request(kind: int, names: list[Oid], first: int = 0, second: int = 0) -> Request:
    pdu = encode_pdu(kind, 77, [(name, NULL) for name in names], first, second)
    return decode_pdu(pdu, 0, len(pdu), 128)


def varbinds(answer: Answer) -> list[tuple[Oid, bytes]]:
    found = []
    for _, pair, _ in elements(answer.body):
        name, value = elements(pair)
        found.append((decode_oid_contents(name[1]), value[2]))
    return found


@given(st.lists(oids, max_size=6), st.sampled_from([0, 1, 3]))
@settings(max_examples=400, deadline=None)
def test_get_is_what_is_there(names: list[Oid], version: int) -> None:
    answer = RESPONDER.read(request(GET, names), Asker(ADMIN, version, 65000))
    expected = [(name, get(name, version)) for name in names]
    wrong = [at for at, (_, value) in enumerate(expected) if value in (NO_SUCH_OBJECT, NO_SUCH_INSTANCE)]
    if version == 0 and wrong:
        assert (answer.status, answer.error_index) == (2, wrong[0] + 1)
        assert varbinds(answer) == [(name, NULL) for name in names]
    else:
        assert (answer.status, answer.error_index) == (0, 0)
        assert varbinds(answer) == expected


@given(st.lists(oids, max_size=6), st.sampled_from([0, 1]))
@settings(max_examples=400, deadline=None)
def test_getnext_is_the_next_in_order(names: list[Oid], version: int) -> None:
    answer = RESPONDER.read(request(GETNEXT, names), Asker(ADMIN, version, 65000))
    expected = [following(name, version) for name in names]
    wrong = [at for at, (_, value) in enumerate(expected) if value == END_OF_MIB_VIEW]
    if version == 0 and wrong:
        assert (answer.status, answer.error_index) == (2, wrong[0] + 1)
    else:
        assert varbinds(answer) == expected


def bulk(names: list[Oid], first: int, second: int) -> list[tuple[Oid, bytes]]:
    """RFC 3416 section 4.2.3, without a bound of size; a repetition of nothing but endOfMibView is the last."""
    single = min(max(first, 0), len(names))
    found = [following(name, 1) for name in names[:single]]
    at = names[single:]
    for _ in range(max(second, 0)):
        row = [following(name, 1) for name in at]
        found += row
        at = [oid for oid, _ in row]
        if not row or all(value == END_OF_MIB_VIEW for _, value in row):
            break
    return found


@given(
    st.lists(oids, max_size=4), st.integers(-2, 5), st.sampled_from([-1, 0, 1, 2, 7, 40]), st.sampled_from([200, 65000])
)
@settings(max_examples=400, deadline=None)
def test_getbulk_is_as_much_as_fits(names: list[Oid], first: int, second: int, limit: int) -> None:
    asked = request(GETBULK, names, first, second)
    answer = RESPONDER.read(asked, Asker(ADMIN, Version.V2C, limit))
    expected = bulk(names, first, second)
    got = varbinds(answer)
    assert answer.status == 0
    assert got == expected[: len(got)]
    size = len(response_contents(asked.request_id, answer)) + 4
    assert size <= limit
    if len(got) < len(expected):
        oid, value = expected[len(got)]
        slack = 24  # lengths are taken at their longest
        assert size + len(encode_varbind(encode_oid_contents(oid), value)) + slack > limit


def test_getbulk_fills_the_largest_datagram_and_no_more() -> None:
    start = SCHEMA.tables["ipsecTrafficTable"].oid
    answer = RESPONDER.read(request(GETBULK, [start], 0, 2**31 - 1), Asker(ADMIN, Version.V2C, 65_507))
    got = varbinds(answer)
    assert 65_400 < len(answer.body) <= 65_507
    assert got == bulk([start], 0, len(got))


def test_what_does_not_fit_is_too_big() -> None:
    names = [instance("ipsecPeerDescription", 1)] * 20
    assert RESPONDER.read(request(GET, names), Asker(ADMIN, Version.V2C, 200)) == Answer(1, 0, b"")
    v1 = RESPONDER.read(request(GET, names), Asker(ADMIN, Version.V1, 200))
    assert (v1.status, v1.error_index) == (1, 0)
    assert [name for name, _ in varbinds(v1)] == names
    crowd = request(GET, [names[0]] * 129)
    assert crowd.crowded
    assert RESPONDER.read(crowd, Asker(ADMIN, Version.V2C, 65_000)) == Answer(1, 0, b"")


def test_a_walk_meets_every_instance_once() -> None:
    name: Oid = (1, 3)
    met = []
    while True:
        [(name, value)] = varbinds(RESPONDER.read(request(GETNEXT, [name]), Asker(ADMIN, Version.V2C, 65_000)))
        if value == END_OF_MIB_VIEW:
            break
        met.append(name)
    assert met == ORDER


@pytest.mark.parametrize("name", [b"\x80\x01", b"\x2b\x06\x81", b"\x2b\x06\x80\x01", b"\x2b" + b"\x90" * 5 + b"\x01"])
@pytest.mark.parametrize("kind", [GET, GETNEXT, GETBULK])
def test_what_is_no_object_identifier_is_an_error_of_encoding(name: bytes, kind: int) -> None:
    pdu = encode_pdu(kind, 1, [])
    whole = encode_tlv(kind, elements(pdu)[0][1][:-2] + encode_tlv(0x30, encode_varbind(name, NULL)))
    with pytest.raises(BerError):
        RESPONDER.read(decode_pdu(whole, 0, len(whole), 128)._replace(second=3), Asker(ADMIN, Version.V2C, 65_000))


def test_an_error_of_ours_is_answered() -> None:
    broken = Responder(SCHEMA, Tree(SCHEMA, GIVEN, visibility), store=None)  # type: ignore[arg-type]
    broken._store = type("Broken", (), {"view": None})()
    asked = request(GET, [instance("ipsecPeerDescription", 1)])
    assert broken.read(asked, Asker(ADMIN, Version.V2C, 65_000)) == Answer(5, 0, asked.body)


def test_objects_within_objects_are_refused() -> None:
    inner = Scalar((*SCHEMA.ordered[0].oid, 1), Wire.INTEGER, lambda: 1)
    with pytest.raises(ValueError, match="lies within"):
        Tree(SCHEMA, [inner], visibility)


def slowly(data: bytes, at: int) -> list[tuple[bytes, bytes]]:
    """The variable bindings of a list, by nothing but elements. Raises BerError or ValueError."""
    found = []
    for tag, pair, _ in elements(data[at:]):
        (name_tag, name, _), (_, _, value) = elements(pair)
        if (tag, name_tag) != (0x30, 6) or not name:
            raise BerError("variable binding expected")
        found.append((name, value))
    return found


@given(
    st.lists(st.tuples(oids, st.binary(max_size=4)), min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=2),
)
@settings(max_examples=400, deadline=None)
def test_the_quick_look_at_a_varbind_sees_what_the_slow_one_does(
    pairs: list[tuple[Oid, bytes]], bent: list[tuple[int, int]]
) -> None:
    pdu = bytearray(encode_pdu(GET, 1, [(oid, encode_tlv(4, value)) for oid, value in pairs]))
    body = len(pdu) - len(decode_pdu(bytes(pdu), 0, len(pdu), 9).body)
    for place, octet in bent:
        pdu[body + place % (len(pdu) - body)] = octet
    try:
        expected: list[tuple[bytes, bytes]] | None = slowly(bytes(pdu), body)
    except (BerError, ValueError):
        expected = None
    try:
        got = decode_pdu(bytes(pdu), 0, len(pdu), 9).varbinds
    except BerError:
        assert expected is None
    else:
        assert got == expected
