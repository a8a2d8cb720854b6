"""Ten thousand peers made by SET, walked, exported, imported into another agent that runs: both are the same."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.mib import load_schema
from agent.mib.ber import Wire, encode_integer, encode_tlv
from agent.mib.schema import Keeping
from tests.station import COMMUNITY, SET, Agent, Station, VarBind, instance
from tests.test_transfer import command, octets, stored

PEERS = 10_000
VARBINDS = 128  # the guard's most in a SET
SCHEMA = load_schema()


def row(number: int) -> list[VarBind]:
    """A peer with a rule of its own and a secret."""
    address = bytes((172, 16 + (number >> 16), number >> 8 & 255, number & 255))
    return [
        (instance("ipsecTrProto", number), encode_integer(255)),
        (instance("ipsecTrRemoteAddress", number), encode_tlv(Wire.IP_ADDRESS, address)),
        (instance("ipsecTrRemoteMaskLen", number), encode_integer(32)),
        (instance("ipsecPeerTrafficList", number), encode_integer(number)),
        (instance("ipsecPeerDescription", number), octets(b"Branch %d" % number)),
        (instance("ipsecPeerDynamicAddress", number), octets(b"10.%d.%d.1" % (number >> 8, number & 255))),
        (instance("ipsecPeerPreSharedKey", number), octets(b"the secret of branch %d" % number)),
    ]


def make_peers(station: Station) -> None:
    many = VARBINDS // len(row(1))
    for first in range(1, PEERS + 1, many):
        numbers = range(first, min(first + many, PEERS + 1))
        station.ask(SET, [varbind for number in numbers for varbind in row(number)])


def walked(port: int, table: str) -> list[str]:
    """Lines of snmpbulkwalk for the objects of the configuration. States and counters, which stand among them under
    their former names, follow a second later and are each agent's own."""
    root = SCHEMA.tables[table].oid
    states = [dotted(c.oid) for c in SCHEMA.aliases if SCHEMA.table_of(c).keeping is Keeping.LIVE]
    ran = subprocess.run(
        ["snmpbulkwalk", "-v2c", "-c", COMMUNITY.decode(), "-On", "-Cr200", "-t5", f"127.0.0.1:{port}", dotted(root)],
        env={"SNMPCONFPATH": "/nonexistent", "MIBS": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    left_out = tuple(f"{oid}." for oid in states)
    return [line for line in ran.stdout.splitlines() if not line.startswith(left_out)]


def objects_of_configuration(table: str) -> int:
    """Accessible objects under the table's own node that are stored."""
    root = SCHEMA.tables[table].oid
    return sum(c.oid[: len(root)] == root and SCHEMA.table_of(c).keeping is Keeping.STORED for c in SCHEMA.ordered)


def dotted(oid: tuple[int, ...]) -> str:
    return "." + ".".join(map(str, oid))


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[list[Agent]]:
    made = [Agent(tmp_path / name / "state") for name in ("one", "two")]
    for agent in made:
        agent.state.parent.mkdir()
    yield made
    for agent in made:
        for station in agent.stations:
            station.socket.close()
        if agent.process is not None and agent.process.poll() is None:
            agent.stop()


@pytest.mark.slow
def test_ten_thousand_peers_go_from_one_agent_to_another(agents: list[Agent], tmp_path: Path) -> None:
    one, two = agents
    took: dict[str, float] = {}
    last = time.perf_counter()

    def lap(what: str) -> None:
        nonlocal last
        now = time.perf_counter()
        took[what] = round(now - last, 1)
        last = now

    make_peers(one.start())
    lap("made by SET")
    first = {table: walked(one.port, table) for table in ("ipsecPeerTable", "ipsecTrafficTable")}
    lap("walked")
    for table, lines in first.items():
        assert len(lines) == PEERS * objects_of_configuration(table)
    file, passphrase = tmp_path / "configuration.toml", tmp_path / "passphrase"
    passphrase.write_text("correct horse")
    command("export", file, "--secrets", "--passphrase-file", passphrase, "--state", one.state)
    lap("exported")
    two.start()
    lap("other agent started")
    said = command("import", file, "--passphrase-file", passphrase, "--state", two.state)
    assert f"{2 * PEERS} rows differ" in said
    lap("imported")
    assert {table: walked(two.port, table) for table in first} == first
    lap("walked again")
    assert stored(two.state) == stored(one.state)
    lap("secrets compared")
    assert sum(took.values()) < 240, took  # half a minute on a machine that is not busy; what is quadratic takes hours
