"""An agent in a process of its own, and a manager of a few lines that talks to it; for tests and benchmarks."""

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

from agent.mib import load_schema
from agent.mib.ber import Wire, decode_value, encode_integer, encode_oid_contents, encode_tlv, read_tlv
from agent.mib.ber import decode_oid_contents as oid_of
from tests.ports import free_port

GET, GETNEXT, GETBULK, SET, RESPONSE = 0xA0, 0xA1, 0xA5, 0xA3, 0xA2
SEQUENCE = 0x30
NULL = b"\x05\x00"
COMMUNITY = b"w"
PATIENCE = 120.0  # seconds until a start or a walk counts as hung

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
        self._send(self.requests, kind, varbinds, first, second)
        return self.requests

    def _send(self, request: int, kind: int, varbinds: Sequence[VarBind], first: int, second: int) -> None:
        pairs = b"".join(
            encode_tlv(SEQUENCE, encode_tlv(Wire.OBJECT_IDENTIFIER, encode_oid_contents(oid)) + value)
            for oid, value in varbinds
        )
        numbers = b"".join(map(encode_integer, (request, first, second)))
        pdu = encode_tlv(kind, numbers + encode_tlv(SEQUENCE, pairs))
        message = encode_integer(1) + encode_tlv(Wire.OCTET_STRING, COMMUNITY) + pdu
        with contextlib.suppress(
            ConnectionRefusedError
        ):  # nobody listens just now: the caller waits in vain and decides
            self.socket.send(encode_tlv(SEQUENCE, message))

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
        """The varbinds of the answer, asked for again and again until there is one; a retry is the same request, so
        that a SET whose answer is late is carried out once."""
        self.requests += 1
        wanted, wait = self.requests, 0.3
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            self._send(wanted, kind, varbinds, first, second)
            again = time.monotonic() + wait
            while (left := again - time.monotonic()) > 0:
                answer = self.receive(left)
                if answer is None:
                    break
                if answer[0] == wanted:
                    assert answer[1] == 0, f"error status {answer[1]}"
                    return answer[2]
            if time.monotonic() < again:  # nobody listens yet: the system says so at once
                time.sleep(0.05)
            else:
                wait = min(2 * wait, 5.0)
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
    """`ipsec-agent serve` on a real SQLite store, without kernel unless asked for. `options`: further ones."""

    def __init__(self, state: Path, backend: str = "memory", options: Sequence[str] = ()) -> None:
        self.backend = backend
        self.options = list(options)
        self.port = free_port()
        self.state = state
        self.log = state.parent / "agent.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.stations: list[Station] = []

    def start(self) -> Station:
        """A station whose agent answers."""
        command = [str(Path(sys.executable).parent / "ipsec-agent"), "serve", "--backend", self.backend]
        command += ["--state", str(self.state), "--listen", f"127.0.0.1:{self.port}", *self.options]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--write-community", COMMUNITY.decode()], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        station = Station(self.port)
        self.stations.append(station)
        station.ask(GET, [(instance("ipsecGwGeneration", 0), NULL)])
        return station

    def kill(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def flush(self) -> str:
        """What `ipsec-agent flush` says; ends charon too."""
        command = [str(Path(sys.executable).parent / "ipsec-agent"), "flush", "--state", str(self.state)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def stop(self) -> int:
        """End it as a service would; its exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(PATIENCE)


def instance(name: str, row: int) -> tuple[int, ...]:
    """OID of a cell, or of a scalar with row 0."""
    return (*load_schema().columns[name].oid, row)
