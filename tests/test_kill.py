"""kill -9 of the agent amid SETs: everything it acknowledged is there afterwards, and nothing by halves.

Each SET makes a rule and the peer that points to it, in two tables, each cell holding the same number; so a part of a
SET would show as a rule without peer, a peer without rule, or a row with a cell left at its default. The sender keeps
several requests under way, since SETs that wait share a transaction.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from agent.mib import load_schema
from agent.mib.ber import Wire, decode_value, encode_integer, encode_oid_contents, encode_tlv, read_tlv
from agent.mib.ber import decode_oid_contents as oid_of

SETS = 2000
KILLS = 4
WINDOW = 24  # requests under way
GET, GETBULK, SET, RESPONSE = 0xA0, 0xA5, 0xA3, 0xA2
SEQUENCE = 0x30
NULL = b"\x05\x00"
COMMUNITY = b"w"
PATIENCE = 60.0  # seconds until a start or a walk counts as hung
RULE_TEXT, PEER_TEXT = "ipsecTrDescription", "ipsecPeerDescription"

VarBind = tuple[tuple[int, ...], bytes]


class Station:
    """A v2c manager of a few lines on one socket; values are encoded TLVs."""

    def __init__(self, port: int) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect(("127.0.0.1", port))
        self.requests = random.randrange(1 << 24)

    def send(self, kind: int, varbinds: Sequence[VarBind], first: int = 0, second: int = 0) -> int:
        """The request-id of what was sent; `first` and `second` are error fields or those of GETBULK."""
        self.requests += 1
        pairs = b"".join(
            encode_tlv(SEQUENCE, encode_tlv(Wire.OBJECT_IDENTIFIER, encode_oid_contents(oid)) + value)
            for oid, value in varbinds
        )
        numbers = b"".join(map(encode_integer, (self.requests, first, second)))
        pdu = encode_tlv(kind, numbers + encode_tlv(SEQUENCE, pairs))
        message = encode_integer(1) + encode_tlv(Wire.OCTET_STRING, COMMUNITY) + pdu
        with contextlib.suppress(
            ConnectionRefusedError
        ):  # nobody listens just now: the caller waits in vain and decides
            self.socket.send(encode_tlv(SEQUENCE, message))
        return self.requests

    def receive(self, seconds: float) -> tuple[int, int, list[VarBind]] | None:
        """(request-id, error status, varbinds) of the next answer, None when there is none in time."""
        if not select.select([self.socket], [], [], seconds)[0]:
            return None
        try:
            message = self.socket.recv(65535)
        except ConnectionRefusedError:
            return None
        _, _, pdu, *_ = elements(elements(message)[0][1])
        request, status, _, pairs = elements(pdu[1])
        varbinds = []
        for _, pair, _ in elements(pairs[1]):
            name, value = elements(pair)
            varbinds.append((oid_of(name[1]), value[2]))
        return number(request), number(status), varbinds

    def ask(self, kind: int, varbinds: Sequence[VarBind], first: int = 0, second: int = 0) -> list[VarBind]:
        """The varbinds of the answer, asked for again and again until there is one."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            wanted = self.send(kind, varbinds, first, second)
            while (answer := self.receive(0.3)) is not None:
                if answer[0] == wanted:
                    assert answer[1] == 0, f"error status {answer[1]}"
                    return answer[2]
        raise AssertionError("no answer")

    def column(self, root: tuple[int, ...]) -> Iterator[tuple[int, bytes]]:
        """(row number, value) of every cell of a column."""
        at = root
        while True:
            for oid, value in self.ask(GETBULK, [(at, NULL)], 0, 50):
                if oid[: len(root)] != root or value[0] >= 0x80:
                    return
                assert oid > at, "a walk goes forward"
                at = oid
                yield oid[-1], value


def elements(data: bytes) -> list[tuple[int, bytes, bytes]]:
    """(tag, contents, whole TLV) of each element."""
    found = []
    offset = 0
    while offset < len(data):
        tag, start, end = read_tlv(data, offset)
        found.append((tag, data[start:end], data[offset:end]))
        offset = end
    return found


def number(element: tuple[int, bytes, bytes]) -> int:
    value = decode_value(element[2])
    assert isinstance(value, int)
    return value


class Agent:
    """`ipsec-agent serve` on a real SQLite store and without kernel."""

    def __init__(self, state: Path) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.state = state
        self.log = state.parent / "agent.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Station:
        """A station whose agent answers."""
        command = [str(Path(sys.executable).parent / "ipsec-agent"), "serve", "--backend", "memory"]
        command += ["--state", str(self.state), "--listen", f"127.0.0.1:{self.port}"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--write-community", COMMUNITY.decode()], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        station = Station(self.port)
        station.ask(GET, [(instance("ipsecGwGeneration", 0), NULL)])
        return station

    def kill(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    made = Agent(tmp_path / "state")
    yield made
    if made.process is not None and made.process.poll() is None:
        made.kill()


def instance(name: str, row: int) -> tuple[int, ...]:
    """OID of a cell, or of a scalar with row 0."""
    return (*load_schema().columns[name].oid, row)


def rule_and_peer(row: int) -> list[VarBind]:
    """The SET of one number: a rule, and a peer whose list it is."""
    text = encode_tlv(Wire.OCTET_STRING, str(row).encode())
    return [
        (instance(PEER_TEXT, row), text),
        (instance("ipsecTrProto", row), encode_integer(255)),
        (instance("ipsecPeerTrafficList", row), encode_integer(row)),
        (instance("ipsecPeerPriority", row), encode_integer(row)),
        (instance(RULE_TEXT, row), text),
    ]


def write(station: Station, rows: Sequence[int], until: int) -> tuple[set[int], list[int]]:
    """(rows acknowledged, rows sent and not answered) once `until` of `rows` are acknowledged."""
    acknowledged: set[int] = set()
    pending: dict[int, int] = {}
    waiting = list(reversed(rows))
    last = time.monotonic()
    while len(acknowledged) < until:
        while waiting and len(pending) < WINDOW:
            row = waiting.pop()
            pending[station.send(SET, rule_and_peer(row))] = row
        answer = station.receive(1.0)
        if answer is None:
            assert time.monotonic() - last < PATIENCE, "the agent does not answer"
            waiting += (
                pending.values()
            )  # lost by the socket's buffer: the same SET again, which is then an empty change
            pending.clear()
            continue
        last = time.monotonic()
        request, status, varbinds = answer
        if request in pending:
            assert status == 0, f"row {pending[request]}: error status {status}: {varbinds}"
            acknowledged.add(pending.pop(request))
    return acknowledged, sorted(pending.values())


def stored(station: Station) -> set[int]:
    """Rows that are there, each of them whole."""
    columns = {}
    for name in (PEER_TEXT, "ipsecPeerTrafficList", "ipsecPeerPriority", RULE_TEXT, "ipsecTrProto"):
        columns[name] = {row: decode_value(tlv) for row, tlv in station.column(load_schema().columns[name].oid)}
    rows = set(columns[PEER_TEXT])
    assert rows == set(columns[RULE_TEXT]), "a peer without its rule, or a rule without its peer"
    for row in rows:
        text = str(row).encode()
        whole = (text, row, row, text, 255)
        assert tuple(cells[row] for cells in columns.values()) == whole, f"row {row} is there by halves"
    return rows


@pytest.mark.slow
def test_what_was_acknowledged_survives_kill_and_nothing_is_half(agent: Agent) -> None:
    """Shown by 3 of the issue: 2,000 SETs, the agent killed again and again at moments of its own."""
    dice = random.Random(20260101)
    acknowledged: set[int] = set()
    todo = list(range(1, SETS + 1))
    for stop in sorted(dice.sample(range(SETS // 20, SETS - SETS // 20), KILLS)):
        station = agent.start()
        done, under_way = write(station, todo, stop - len(acknowledged))
        agent.kill()
        assert under_way, "it was killed with SETs under way"
        acknowledged |= done
        station = agent.start()
        there = stored(station)
        assert acknowledged <= there, f"acknowledged and gone: {sorted(acknowledged - there)}"
        assert there <= acknowledged | set(under_way), "rows that nobody wrote"
        generation = station.ask(GET, [(instance("ipsecGwGeneration", 0), NULL)])[0][1]
        value = decode_value(generation)
        assert isinstance(value, int) and value >= len(there), "each SET was a generation of its own"
        agent.kill()
        todo = [row for row in todo if row not in acknowledged]
    station = agent.start()
    write(station, todo, len(todo))
    assert stored(station) == set(range(1, SETS + 1))
