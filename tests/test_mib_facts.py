"""The published objects against a running agent: place, type, access, values and defaults of each.

tests/facts holds what the published modules say, one object a line: objects.csv, the
protocol names that many objects share, and the former places of peer columns. Everything
that can be asked by SNMP is asked of a real agent over UDP; names of values, and the values
of objects that only the agent writes, are compared with the schema. What differs on purpose
stands in this file, with the reason.
"""

from __future__ import annotations

import csv
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.mib import deviations
from agent.mib.ber import LIMITS, Value, Wire, decode_value, encode_integer, encode_tlv, encode_value
from agent.mib.schema import Access, Keeping
from agent.monitor.constants import ALGORITHMS, publish_constants
from agent.store.errors import ErrorStatus as E
from agent.store.hooks import AGENT, Edit
from tests.snmp_station import GET, GETBULK, NULL, SCHEMA, SET, Manager, Served, manager, served

FACTS = Path(__file__).with_name("facts")
PUBLISHED = ((1, 3, 6, 1, 4, 1, 272, 4, 26), (1, 3, 6, 1, 4, 1, 272, 254, 8))
OURS = (1, 3, 6, 1, 4, 1, 272, 4, 26, 200)
NO_SUCH_OBJECT = b"\x80\x00"
WIRES = {
    "INTEGER": Wire.INTEGER,
    "OCTET STRING": Wire.OCTET_STRING,
    "IpAddress": Wire.IP_ADDRESS,
    "Unsigned32": Wire.GAUGE32,
    "Counter32": Wire.COUNTER32,
    "Counter64": Wire.COUNTER64,
    "TimeTicks": Wire.TIMETICKS,
}

OTHER_BOUNDS = {
    "ikePrfGroup": "0..16",
    **{f"ipsecPropBlowfishKeySize{end}": "0;40..448" for end in ("", "Min", "Max")},
    "xauthUserListName": "SIZE 0..63",
    "radiusSrvPort": "0..65535",
    "ipsecPubKeyKeyLength": "512..4096",
    "certMgmtKeyLength": "512..4096",
}
"""Bounds of ours; agent/mib/deviations.py has the reasons."""

OTHER_LABELS = {
    "ipsecPeerAuthMethod": {"unset": 0},
    **{f"ipsecProp{cipher}KeySize{end}": {"unset": 0} for cipher in ("Aes", "Twofish") for end in ("", "Min", "Max")},
}
"""Values that are added; agent/mib/deviations.py has the reasons."""

OF_CONVENTIONS: dict[str, tuple[str, dict[str, int]]] = {
    "ipsecInternalSubnetPrefixLength": ("0..2040", {}),
    "ipsecInternalSubnetAddressType": ("", {"unknown": 0, "ipv4": 1, "ipv6": 2, "ipv4z": 3, "ipv6z": 4, "dns": 16}),
}
"""Bounds and values that the facts leave to InetAddressPrefixLength and InetAddressType (RFC 4001)."""

KEYS_OF_AGENT = ("certTable", "certRevListTable")
"""Tables whose rows are made by the agent: from imports, enrolment and fetches."""

WRITTEN_BY_AGENT = {
    "ikeSaState": "nothing but delete can be asked of it, and of a tunnel only: inconsistentValue",
    "ikev2SaState": "nothing but delete can be asked of it, and of a tunnel only: inconsistentValue",
    "ipsecBundleState": "nothing but delete can be asked of it, and of a tunnel only: inconsistentValue",
}
"""Writable objects of tables that are made while the agent runs."""

ROW = 7


@dataclass(frozen=True)
class Fact:
    """One published object. `bounds`: what the value or its length may be, () = only the type says."""

    name: str
    oid: tuple[int, ...]
    kind: str
    table: str
    wire: Wire
    bounds: tuple[tuple[int, int], ...]
    access: Access
    default: str
    deletes: int | None
    labels: dict[str, int]

    @property
    def number(self) -> int:
        return 0 if self.kind == "scalar" else ROW

    @property
    def instance(self) -> tuple[int, ...]:
        return (*self.oid, self.number)

    @property
    def writable(self) -> bool:
        return self.access is Access.READ_WRITE

    @property
    def text(self) -> bool:
        return self.wire is Wire.OCTET_STRING


def rows(name: str) -> Iterator[dict[str, str]]:
    with (FACTS / name).open() as file:
        yield from csv.DictReader(file)


def arcs(oid: str) -> tuple[int, ...]:
    return tuple(map(int, oid.split(".")))


def bounds_of(text: str) -> tuple[tuple[int, int], ...]:
    """`0;40..448`, `SIZE 0..63`."""
    found = []
    for part in text.removeprefix("SIZE ").split(";") if text else ():
        low, _, high = part.partition("..")
        found.append((int(low), int(high or low)))
    return tuple(found)


def facts() -> list[Fact]:
    """Every published object that has instances, as the modules say."""
    protocols = ";".join(f"{row['label']}={row['number']}" for row in rows("protocols.csv"))
    found = []
    for row in rows("objects.csv"):
        if row["kind"] in ("table", "entry"):
            continue
        labels = row["enum"].replace("@protocols", protocols)
        if row["wire"] == "OCTET STRING":
            labels = ""  # names of bits, which are no values
        pairs = (label.rsplit("=", 1) for label in labels.split(";") if label)
        found.append(
            Fact(
                row["name"],
                arcs(row["oid"]),
                row["kind"],
                row["table"],
                WIRES[row["wire"]],
                bounds_of(row["bounds"]),
                Access(row["access"]),
                row["default"],
                int(row["deletes"]) if row["deletes"] else None,
                {label: int(number) for label, number in pairs},
            )
        )
    return found


OBJECTS = facts()
BY_NAME = {fact.name: fact for fact in OBJECTS}
FORMER = {row["name"]: (arcs(row["oid"]), row["now"]) for row in rows("former.csv")}


def bounds(fact: Fact) -> tuple[tuple[int, int], ...]:
    """Bounds of this agent: those of the facts but for the deviations, and those of the type."""
    if fact.name in OTHER_BOUNDS:
        return bounds_of(OTHER_BOUNDS[fact.name])
    if fact.bounds:
        return fact.bounds
    if of_convention := OF_CONVENTIONS.get(fact.name, ("", {}))[0]:
        return bounds_of(of_convention)
    if fact.text:
        return SCHEMA.columns[fact.name].ranges or ((0, 65535),)
    return (LIMITS[fact.wire],) if fact.wire in LIMITS else ()


def labels(fact: Fact) -> dict[str, int]:
    return {**fact.labels, **OF_CONVENTIONS.get(fact.name, ("", {}))[1], **OTHER_LABELS.get(fact.name, {})}


def expected_default(fact: Fact) -> Value:
    """What a new row shows: DEFVAL, or 0, empty, 0.0.0.0; of a number that 0 is no value of, its lowest."""
    column = SCHEMA.columns[fact.name]
    if column is SCHEMA.tables[column.table].index:
        return ROW
    if fact.default:
        return fact.default.strip('"').encode() if fact.text else int(fact.default)
    if fact.text:
        return bytes(column.ranges[0][0] if column.ranges else 0)
    if fact.wire is Wire.IP_ADDRESS:
        return bytes(4)
    numbers = labels(fact).values()
    allowed = [(number, number) for number in numbers] if numbers else bounds(fact)
    return 0 if not allowed or any(low <= 0 <= high for low, high in allowed) else min(low for low, _ in allowed)


def in_tables() -> dict[str, list[Fact]]:
    found: dict[str, list[Fact]] = {}
    for fact in OBJECTS:
        if fact.table and fact.kind == "column":
            found.setdefault(fact.table, []).append(fact)
    return found


TABLES = in_tables()


@asynccontextmanager
async def with_rows(state: Path) -> AsyncIterator[tuple[Served, Manager]]:
    """A running agent with one row, of defaults, in every published table."""
    async with served(state) as at, manager(at.address) as asking:
        await asking.ask(SET, [(BY_NAME["ipsecPeerTrafficList"].instance, encode_integer(0))])
        for name in TABLES:
            table = SCHEMA.tables[name]
            if table.keeping is Keeping.LIVE:
                at.store.live.update(name, {ROW: {}})
            elif name in KEYS_OF_AGENT:
                assert table.row_status is not None
                await at.store.commit([Edit(table.row_status, ROW, 4)], AGENT)
            else:
                answer = await asking.ask(SET, [((*c.oid, ROW), making(c.name)) for c in table.creating])
                assert (name, answer.status) in ((name, 0),), at.refused[-1:]
        yield at, asking


def making(name: str) -> bytes:
    column = SCHEMA.columns[name]
    return column.encode(ROW if column is SCHEMA.tables[column.table].index else column.default)


async def read(asking: Manager, names: Iterable[tuple[int, ...]]) -> dict[tuple[int, ...], bytes]:
    found: dict[tuple[int, ...], bytes] = {}
    wanted = list(names)
    for start in range(0, len(wanted), 60):
        answer = await asking.ask(GET, [(name, NULL) for name in wanted[start : start + 60]])
        assert answer.status == 0
        found |= dict(answer.varbinds)
    return found


async def test_every_object_is_in_its_place_with_its_type(tmp_path: Path) -> None:
    async with with_rows(tmp_path) as (_, asking):
        cells = await read(asking, [fact.instance for fact in OBJECTS])
        wrong = {
            fact.name: cells[fact.instance][:2].hex()
            for fact in OBJECTS
            if (cells[fact.instance] != NO_SUCH_OBJECT if fact.access is Access.NOT_ACCESSIBLE else None)
            or (fact.access is not Access.NOT_ACCESSIBLE and cells[fact.instance][0] != fact.wire)
        }
        assert wrong == {}


async def test_a_walk_finds_the_published_objects_and_no_others(tmp_path: Path) -> None:
    async with with_rows(tmp_path) as (_, asking):
        found: set[tuple[int, ...]] = set()
        for root in PUBLISHED:
            at = root
            while at[: len(root)] == root:
                some = (await asking.ask(GETBULK, [(at, NULL)], 0, 60)).varbinds
                found |= {oid for oid, _ in some if oid[: len(root)] == root}
                at = some[-1][0]
                if some[-1][1] == b"\x82\x00":
                    break
        walked = {oid[:-1] for oid in found if oid[: len(OURS)] != OURS}
        readable = {fact.oid for fact in OBJECTS if fact.access is not Access.NOT_ACCESSIBLE}
        assert walked == readable | {oid for oid, _ in FORMER.values()}


async def test_former_columns_read_what_took_their_place(tmp_path: Path) -> None:
    assert len(FORMER) == 42
    async with with_rows(tmp_path) as (at, asking):
        at.store.live.update("ipsecPeerStatTable", {ROW: {"ipsecPeerStatOperStatus": 36, "ipsecPeerStatMtu": 1300}})
        former = await read(asking, [(*oid, ROW) for oid, _ in FORMER.values()])
        now = await read(asking, [BY_NAME[name].instance for _, name in FORMER.values()])
        assert list(former.values()) == list(now.values())
        assert decode_value(former[(*SCHEMA.columns["ipsecPeerOperStatus"].oid, ROW)]) == 36
        for name, (oid, _) in FORMER.items():
            assert SCHEMA.columns[name].oid == oid
            value = former[(*oid, ROW)]
            assert (await asking.ask(SET, [((*oid, ROW), value)])).status == E.NOT_WRITABLE
        at.store.live.update("ipsecPeerStatTable", {ROW: None})
        assert set((await read(asking, former)).values()) == {b"\x81\x00"}


async def test_access_is_what_a_set_finds(tmp_path: Path) -> None:
    """What is read can be written back, or is notWritable; the hidden is noAccess."""
    async with with_rows(tmp_path) as (at, asking):
        cells = await read(asking, [fact.instance for fact in OBJECTS])
        generation = at.store.running.generation
        wrong = {}
        for fact in OBJECTS:
            value = cells[fact.instance]
            expected = 0 if fact.writable else E.NOT_WRITABLE
            if fact.access is Access.NOT_ACCESSIBLE:
                value, expected = encode_tlv(Wire.OCTET_STRING, b""), E.NO_ACCESS
            elif fact.name in WRITTEN_BY_AGENT:
                expected = E.INCONSISTENT_VALUE
            status = (await asking.ask(SET, [(fact.instance, value)])).status
            if status != expected:
                wrong[fact.name] = E(status)
        assert wrong == {}
        assert at.store.running.generation == generation, "nothing was changed"


FAILING = ((*SCHEMA.columns["ipsecPeerPriority"].oid, 99), encode_integer(0))
"""A varbind that is refused when rows are looked at, after the values of all varbinds were."""


async def accepted_as_value(asking: Manager, fact: Fact, tlv: bytes) -> E | None:
    """None where the value passes, else how it is refused."""
    if SCHEMA.columns[fact.name] is SCHEMA.tables[SCHEMA.columns[fact.name].table].index:
        number = decode_value(tlv)  # a number that the manager picks is that of its instance
        number = number if isinstance(number, int) and 0 < number < 1 << 31 else ROW
        answer = await asking.ask(SET, [((*fact.oid, number), tlv), FAILING])
        return None if answer.index == 2 or answer.status == E.INCONSISTENT_VALUE else E(answer.status)
    answer = await asking.ask(SET, [(fact.instance, tlv), FAILING])
    return None if answer.index == 2 or answer.status == E.INCONSISTENT_VALUE else E(answer.status)


async def test_enumerations(tmp_path: Path) -> None:
    """Every value of an enumeration is one, and what lies beside and between is wrongValue."""
    assert {f.name: SCHEMA.columns[f.name].labels for f in OBJECTS if SCHEMA.columns[f.name].labels != labels(f)} == {}
    async with with_rows(tmp_path) as (_, asking):
        wrong = []
        for fact in OBJECTS:
            if not (fact.writable and labels(fact)):
                continue
            known = set(labels(fact).values())
            unknown = {min(known) - 1, max(known) + 1} | set(range(min(known), min(max(known), 20))) - known
            for number in known:
                if await accepted_as_value(asking, fact, encode_integer(number)) is not None:
                    wrong.append((fact.name, number, "is refused"))
            for number in unknown:
                if await accepted_as_value(asking, fact, encode_integer(number)) is not E.WRONG_VALUE:
                    wrong.append((fact.name, number, "passes"))
        assert wrong == []


async def test_bounds(tmp_path: Path) -> None:
    """The ends of a range are values, what lies outside is wrongValue, or wrongLength of strings."""
    stated = {f.name: (SCHEMA.columns[f.name].ranges, bounds(f)) for f in OBJECTS if f.bounds or f.name in OTHER_BOUNDS}
    whole = ((0, 0xFFFFFFFF),)
    assert {n: pair for n, pair in stated.items() if (pair[0] or whole) != pair[1]} == {}
    async with with_rows(tmp_path) as (_, asking):
        wrong = []
        for fact in OBJECTS:
            if not fact.writable or labels(fact) or not (limits := bounds(fact)):
                continue
            inside = {end for pair in limits for end in pair}
            outside = {low - 1 for low, _ in limits} | {high + 1 for _, high in limits}
            refused = E.WRONG_LENGTH if fact.text else E.WRONG_VALUE
            for number in inside:
                if number <= 4096 or not fact.text:
                    status = await accepted_as_value(asking, fact, sample(fact, number))
                    if status is not None:
                        wrong.append((fact.name, number, status))
            for number in outside:
                if (number < 0 and fact.wire in (Wire.OCTET_STRING, Wire.GAUGE32)) or (number > 60_000 and fact.text):
                    continue  # there is no such length, no such unsigned number, no such datagram
                if any(low <= number <= high for low, high in limits):
                    continue
                status = await accepted_as_value(asking, fact, sample(fact, number))
                if status is not refused:
                    wrong.append((fact.name, number, status))
        assert wrong == []


def sample(fact: Fact, number: int) -> bytes:
    """The number, or so many octets."""
    if fact.text:
        return encode_tlv(Wire.OCTET_STRING, b"a" * number)
    return encode_value(fact.wire, number)


async def test_a_new_row_shows_the_defaults(tmp_path: Path) -> None:
    async with with_rows(tmp_path) as (_, asking):
        shown = [fact for fact in OBJECTS if fact.access is not Access.NOT_ACCESSIBLE]
        cells = await read(asking, [fact.instance for fact in shown])
        wrong = {}
        for fact in shown:
            value = decode_value(cells[fact.instance])
            if value != expected_default(fact):
                wrong[fact.name] = (value, expected_default(fact))
        assert wrong == {}


async def test_rows_go_by_the_published_value(tmp_path: Path) -> None:
    """Each table loses its row to the delete value that the facts name."""
    async with with_rows(tmp_path) as (at, asking):
        for fact in OBJECTS:
            if fact.deletes is None or not fact.writable or fact.name in WRITTEN_BY_AGENT:
                continue
            assert SCHEMA.columns[fact.name].traits.deletes == fact.deletes, fact.name
            answer = await asking.ask(SET, [(fact.instance, encode_integer(fact.deletes))])
            assert (fact.name, answer.status) == (fact.name, 0)
            assert ROW not in at.store.running.table(fact.table)
            assert (await asking.ask(GET, [(fact.instance, NULL)])).varbinds[0][1] == b"\x81\x00"


async def test_a_number_that_the_manager_picks_is_that_of_the_instance(tmp_path: Path) -> None:
    async with served(tmp_path) as at, manager(at.address) as asking:
        for name in ("ikev2PrfIndex", "xauthPrfIndex", "xauthUserListIndex"):
            fact = BY_NAME[name]
            answer = await asking.ask(SET, [((*fact.oid, 5), encode_value(fact.wire, 6))])
            assert answer.status == E.INCONSISTENT_VALUE
            assert f"{name}.5 = 6" in at.refused[-1] and at.refused[-1].endswith("accepted: 5")
            assert (await asking.ask(SET, [((*fact.oid, 5), encode_value(fact.wire, 5))])).status == 0
            assert 5 in at.store.running.table(fact.table)


async def test_rows_of_certificates_are_not_made_by_managers(tmp_path: Path) -> None:
    async with served(tmp_path) as at, manager(at.address) as asking:
        for name in KEYS_OF_AGENT:
            status = SCHEMA.tables[name].row_status
            assert status is not None
            for value in (4, 5):
                answer = await asking.ask(SET, [((*status.oid, ROW), encode_integer(value))])
                assert answer.status == E.NO_CREATION
            assert len(at.store.running.table(name)) == 0


async def test_constants_of_the_engine_are_shown(tmp_path: Path) -> None:
    async with served(tmp_path) as at, manager(at.address) as asking:
        publish_constants(at.store.live)
        assert set(ALGORITHMS) == set(BY_NAME["ipsecAlgId"].labels.values())
        for number, sizes in ALGORITHMS.items():
            names = ("ipsecAlgId", "ipsecAlgMinKeySize", "ipsecAlgDefKeySize", "ipsecAlgMaxKeySize")
            cells = await read(asking, [(*BY_NAME[name].oid, number) for name in names])
            assert [decode_value(tlv) for tlv in cells.values()] == [number, *sizes]
        lifetimes = await read(asking, [(*BY_NAME["ipsecLifeHardSec"].oid, 1), (*BY_NAME["ipsecLifeHardKb"].oid, 2)])
        assert [decode_value(tlv) for tlv in lifetimes.values()] == [900, 11_000]


async def test_one_of_the_creating_columns_makes_a_row(tmp_path: Path) -> None:
    """Tables whose published INDEX has several columns, too: defaults fill the rest."""
    async with served(tmp_path) as at, manager(at.address) as asking:
        for name in TABLES:
            table = SCHEMA.tables[name]
            for number, column in enumerate(table.creating, 1):
                value = column.encode(number if column is table.index else column.default)
                answer = await asking.ask(SET, [((*column.oid, number), value)])
                assert (column.name, answer.status) == (column.name, 0)
                assert number in at.store.running.table(name)


def test_the_deviations_are_those_that_are_documented() -> None:
    """And each is one: what the facts do not call for is taken out of the list."""
    assert set(OTHER_BOUNDS) == set(deviations.BOUNDS) and set(OTHER_LABELS) == set(deviations.LABELS)
    assert all(bounds_of(ours) != BY_NAME[name].bounds for name, ours in OTHER_BOUNDS.items())
    assert all(not added.items() <= BY_NAME[name].labels.items() for name, added in OTHER_LABELS.items())
