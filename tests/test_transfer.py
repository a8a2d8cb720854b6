"""`ipsec-agent export` and `import`, as typed: beside a running agent, to one by SNMP, and on a stopped store."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.mib import load_schema
from agent.mib.ber import Wire, encode_integer, encode_tlv
from agent.store.secrets import Secrets, load_key
from agent.store.store import read_store
from tests.random_configuration import opened
from tests.station import SET, Agent, Station, instance

PASSPHRASE = "correct horse"


def command(*arguments: object, code: int = 0) -> str:
    """What `ipsec-agent` prints, on standard error where it fails."""
    program = str(Path(sys.executable).parent / "ipsec-agent")
    ran = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert ran.returncode == code, ran.stdout + ran.stderr
    return ran.stderr if code else ran.stdout


def octets(value: bytes) -> bytes:
    return encode_tlv(Wire.OCTET_STRING, value)


def make_peer(station: Station, number: int, secret: bytes) -> None:
    station.ask(
        SET,
        [
            (instance("ipsecTrProto", number), encode_integer(6)),
            (instance("ipsecPeerTrafficList", number), encode_integer(number)),
            (instance("ipsecPeerDescription", number), octets(b"Peer %d" % number)),
            (instance("ipsecPeerPreSharedKey", number), octets(secret)),
        ],
    )


def stored(state: Path) -> dict[str, Any]:
    """The configuration of a state folder with its secrets, without SNMP administration."""
    found = read_store(load_schema(), "", state).configuration
    secrets = Secrets(load_key(state, sealed_values=True))
    return opened(found, secrets, frozenset({"ipsecGwUserTable", "ipsecGwControl"}))


@pytest.fixture
def passphrase_file(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.write_text(PASSPHRASE + "\n")
    return path


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
def test_from_one_running_agent_to_another(agents: list[Agent], tmp_path: Path, passphrase_file: Path) -> None:
    one, two = agents
    make_peer(one.start(), 1, b"a long secret")
    make_peer(two.start(), 9, b"of another peer")
    file = tmp_path / "one.toml"
    said = command("export", file, "--secrets", "--passphrase-file", passphrase_file, "--state", one.state)
    assert said == f"generation {read_store(load_schema(), '', one.state).configuration.generation} written to {file}\n"
    assert file.stat().st_mode & 0o777 == 0o600 and "a long secret" not in file.read_text()
    options = ("--state", two.state, "--passphrase-file", passphrase_file)
    said = command("import", file, "--dry-run", *options)
    assert said.splitlines() == [
        "ipsecPeerTable 1: new",
        "ipsecPeerTable 9: removed",
        "ipsecTrafficTable 1: new",
        "ipsecTrafficTable 9: removed",
        "4 rows differ",
    ]
    assert "4 rows differ" in command("import", file, *options)
    assert stored(two.state) == stored(one.state)
    assert command("import", file, *options) == "nothing differs\n"
    assert "a long secret" not in two.log.read_text() and PASSPHRASE not in two.log.read_text()
    assert "document 1 one.toml loaded, 4 rows differ" in two.log.read_text()


@pytest.mark.slow
def test_without_secrets_and_to_a_host(agents: list[Agent], tmp_path: Path) -> None:
    one, _ = agents
    station = one.start()
    make_peer(station, 1, b"a long secret")
    text = command("export", "--state", one.state)
    assert 'ipsecPeerPreSharedKey = "*"' in text and "[secrets]" not in text and "ipsecGwUserTable" not in text
    file = tmp_path / "x.toml"
    file.write_text(text.replace('"Peer 1"', '"Branch"'))
    conf = one.state / "snmp.conf"
    command("import", file, "--state", tmp_path / "nothing", "--host", f"127.0.0.1:{one.port}", "--conf", conf)
    found = stored(one.state)
    assert found["ipsecPeerDescription.1"] == b"Branch" and found["ipsecPeerPreSharedKeyData.1"] == b"a long secret"
    file.write_text(text.replace("ipsecPeerTrafficList = 1", "ipsecPeerTrafficList = 7"))
    said = command("import", file, "--state", one.state, code=2)
    assert said.startswith("ipsec-agent: ipsecPeerTrafficList.1 = 7: there is no row 7 in ipsecTrafficTable")
    assert stored(one.state) == found


@pytest.mark.slow
def test_all_mistakes_are_told_by_a_running_agent_too(agents: list[Agent], tmp_path: Path) -> None:
    one, _ = agents
    make_peer(one.start(), 1, b"a long secret")
    file = tmp_path / "x.toml"
    peer = '\n[[ipsecPeerTable]]\nnumber = {0}\nipsecPeerTrafficList = {0}\nipsecPeerDescription = "{1}"\n'
    file.write_text("format = 1\n" + "".join(peer.format(number, "ü" * 300) for number in range(7, 19)))
    said = command("import", file, "--state", one.state, code=2).splitlines()
    assert len(said) == 20 and said[0].startswith("ipsec-agent: ipsecPeerDescription.7 = ")
    assert "ipsecPeerTrafficList.7 = 7: there is no row 7 in ipsecTrafficTable; accepted: 0" in "\n".join(said)


@pytest.mark.slow
def test_a_stopped_agent(agents: list[Agent], tmp_path: Path, passphrase_file: Path) -> None:
    one, two = agents
    make_peer(one.start(), 1, b"a long secret")
    assert one.stop() == 0
    file = tmp_path / "one.toml"
    secret = ("--passphrase-file", passphrase_file)
    command("export", file, "--secrets", "--administration", *secret, "--state", one.state)
    assert "no store in" in command("import", file, *secret, "--state", two.state, code=2)
    two.start()
    assert two.stop() == 0
    assert "rows differ" in command("import", file, *secret, "--state", two.state)
    assert stored(two.state) == stored(one.state)
    one.start()
    make_peer(two.start(), 2, b"x")


@pytest.mark.slow
def test_mistakes_before_anything_is_sent(agents: list[Agent], tmp_path: Path, passphrase_file: Path) -> None:
    one, _ = agents
    one.start()
    file = tmp_path / "x.toml"
    assert "No such file" in command("import", file, "--state", one.state, code=2)
    file.write_text("format = 1\n[[ipsecPeerTable]]\nnumber = 0\n[[x]]\n")
    said = command("import", file, "--state", one.state, code=2)
    assert "ipsecPeerTable, entry 1: number = 0; accepted: a number from 1 on\nx: no table of a configuration" in said
    command("export", file, "--secrets", "--passphrase-file", passphrase_file, "--state", one.state)
    passphrase_file.write_text("another one")
    for more in ((), ("--dry-run",)):
        said = command("import", file, "--state", one.state, "--passphrase-file", passphrase_file, *more, code=2)
        assert said == "ipsec-agent: the passphrase does not open the secrets in the file\n"
    assert "accepted: --passphrase-file" in command("import", file, "--state", one.state, code=2)
    passphrase_file.write_text("short")
    said = command("export", file, "--secrets", "--passphrase-file", passphrase_file, "--state", one.state, code=2)
    assert "accepted: 8 and more" in said
