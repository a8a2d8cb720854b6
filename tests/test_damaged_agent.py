"""The running agent on a damaged store, by SNMP: it answers, changes nothing, and goes on when one SET accepts it."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.mib.ber import Value, Wire, decode_value, encode_integer, encode_tlv
from agent.store.errors import ErrorStatus
from tests.station import GET, NULL, PATIENCE, SET, Agent, Station, VarBind, instance

STATE, MESSAGE, REFUSAL = "ipsecGwStoreState", "ipsecGwStoreMessage", "ipsecGwLastRefusal"
APPLIED = "ipsecGwPeerApplyState"
ACCEPT_STORE = encode_integer(4)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    made = Agent(tmp_path / "state")
    yield made
    if made.process is not None and made.process.poll() is None:
        made.kill()
    for station in made.stations:
        station.socket.close()


def read(station: Station, name: str, number: int = 0) -> Value:
    return decode_value(station.ask(GET, [(instance(name, number), NULL)])[0][1])


def refused(station: Station, varbinds: list[VarBind]) -> int:
    wanted = station.send(SET, varbinds)
    while True:  # late answers to what was asked twice are others
        answer = station.receive(PATIENCE)
        assert answer is not None
        if answer[0] == wanted:
            return answer[1]


def a_peer(number: int) -> list[VarBind]:
    text = encode_tlv(Wire.OCTET_STRING, b"peer %d" % number)
    return [
        (instance("ipsecPeerTrafficList", number), encode_integer(0)),
        (instance("ipsecPeerDescription", number), text),
    ]


def until(station: Station, name: str, number: int, wanted: Value) -> None:
    end = time.monotonic() + 60
    while read(station, name, number) != wanted:
        assert time.monotonic() < end, f"{name}.{number} does not become {wanted!r}"
        time.sleep(0.05)


@pytest.mark.slow
def test_it_serves_the_copy_and_makes_nothing_real_until_it_is_accepted(agent: Agent) -> None:
    station = agent.start()
    station.ask(SET, a_peer(1))
    until(station, "ipsecPeerDescription", 1, b"peer 1")
    assert agent.stop() == 0, "a clean stop makes a copy"
    copies = sorted((agent.state / "copies").glob("*.sqlite"))
    assert copies
    station = agent.start()
    station.ask(SET, a_peer(2))
    generation = read(station, "ipsecGwGeneration")
    agent.kill()
    with (agent.state / "agent.sqlite").open("r+b") as file:
        file.write(random.Random(1).randbytes(4096))

    station = agent.start()
    message = read(station, MESSAGE)
    assert read(station, STATE) == 2 and isinstance(message, bytes) and b"ipsecGwCommand.0 = accept-store(4)" in message
    assert read(station, "ipsecPeerDescription", 1) == b"peer 1"
    time.sleep(0.5)
    nothing = station.ask(GET, [(instance(APPLIED, 1), NULL)])[0][1]
    assert nothing[0] == 0x81, "no such instance: nobody has looked at the row"
    assert refused(station, a_peer(3)) == ErrorStatus.RESOURCE_UNAVAILABLE
    text = read(station, REFUSAL)
    assert isinstance(text, bytes) and b"accept-store(4)" in text

    station.ask(SET, [(instance("ipsecGwCommand", 0), ACCEPT_STORE)])
    assert (read(station, STATE), read(station, MESSAGE)) == (1, b"")
    now = read(station, "ipsecGwGeneration")
    assert isinstance(now, int) and isinstance(generation, int) and now > generation
    station.ask(SET, a_peer(3))
    end = time.monotonic() + 60
    while station.ask(GET, [(instance(APPLIED, 1), NULL)])[0][1][0] == 0x81:
        assert time.monotonic() < end, "normal work does not begin"
        time.sleep(0.05)
    assert agent.stop() == 0
    station = agent.start()
    assert read(station, STATE) == 1 and read(station, "ipsecPeerDescription", 3) == b"peer 3"


@pytest.mark.slow
def test_stopped_before_it_is_accepted_it_ends_cleanly(agent: Agent) -> None:
    agent.start()
    assert agent.stop() == 0
    (agent.state / "agent.sqlite").write_bytes(b"")
    station = agent.start()
    assert read(station, STATE) == 2
    assert agent.stop() == 0
    assert read(agent.start(), STATE) == 2
    assert b"Traceback" not in agent.log.read_bytes()
