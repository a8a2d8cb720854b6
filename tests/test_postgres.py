"""The same store on a real PostgreSQL: what is committed is there after a restart; copies are the server's business."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.mib import load_schema
from agent.mib.ber import Value
from agent.seed import seed
from agent.store.errors import Refused, StoreError
from agent.store.health import StoreState
from agent.store.hooks import AGENT, Edit
from agent.store.store import Store, read_store
from tests.ports import free_port

pytest.importorskip("psycopg", reason="no psycopg (the extra postgres)")

SCHEMA = load_schema()
BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
USER = "postgres"

pytestmark = [
    pytest.mark.skipif(not BINARIES, reason="no PostgreSQL (package postgresql)"),
    pytest.mark.skipif(os.geteuid() != 0, reason="not root: the server runs as user postgres"),
    pytest.mark.skipif("IPSEC_AGENT_TEST_NO_POSTGRES" in os.environ, reason="IPSEC_AGENT_TEST_NO_POSTGRES is set"),
]


class Server:
    """PostgreSQL on loopback, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.binaries = BINARIES[-1].parent
        self.folder = folder
        self.port = free_port(kind=socket.SOCK_STREAM)
        self.url = f"postgresql+psycopg://{USER}@127.0.0.1:{self.port}/postgres"
        self._run("initdb", "--auth", "trust", "--no-sync", "--encoding", "UTF8", "-D", str(folder / "data"))

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder}"
        log = str(self.folder / "log")
        self._run("pg_ctl", "start", "-w", "-s", "-D", str(self.folder / "data"), "-l", log, "-o", options)

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "-w", "-s", "-m", "immediate", "-D", str(self.folder / "data"))

    def _run(self, name: str, *arguments: str) -> None:
        subprocess.run(
            [str(self.binaries / name), *arguments], user=USER, cwd=self.folder, check=True, stdout=subprocess.DEVNULL
        )


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    folder = Path(f"/tmp/ipsec-agent-postgres-{os.getpid()}")
    folder.mkdir(mode=0o700)
    shutil.chown(folder, pwd.getpwnam(USER).pw_uid)
    made = Server(folder)
    made.start()
    yield made
    made.stop()
    shutil.rmtree(folder)


def edit(instance: str, value: Value) -> Edit:
    name, number = instance.split(".")
    return Edit(SCHEMA.columns[name], int(number), value)


async def test_commit_restart_and_a_server_that_is_gone_for_a_while(server: Server, tmp_path: Path) -> None:
    store = Store.open(SCHEMA, server.url, tmp_path)
    store.keep_copies(interval=0.01)
    await seed(store)
    await store.commit(
        [
            edit("ipsecPeerTrafficList.1", 0),
            edit("ipsecPeerDescription.1", b"\x00\xff octets"),
            edit("ipsecPeerPreSharedKey.1", b"a secret"),
        ],
        AGENT,
    )
    await store.remember("engine", {"boots": 3})
    await store.remember_texts("engine", {"id": b"\x80\x00"})
    held = {name: list(table.rows()) for name, table in store.running.tables.items()}
    await store.close()
    assert not (tmp_path / "copies").exists(), "its copies are its operator's business"

    store = Store.open(SCHEMA, server.url, tmp_path)
    assert store.running.generation == 2
    for name, table in store.running.tables.items():
        assert [row.cells for row in table.rows()] == [row.cells for row in held[name]], name
    assert (store.numbers("engine"), store.texts("engine")) == ({"boots": 3}, {"id": b"\x80\x00"})
    assert read_store(SCHEMA, server.url, tmp_path).configuration.generation == 2
    server.stop()
    with pytest.raises(Refused, match="cannot be written"):
        await store.commit([edit("ipsecPeerTrafficList.2", 0)], AGENT)
    assert store.health.state is StoreState.FAILING
    with pytest.raises(StoreError):
        read_store(SCHEMA, server.url, tmp_path)
    server.start()
    await store.commit([edit("ipsecPeerTrafficList.2", 0)], AGENT)
    assert store.health.state is StoreState.OK
    await store.commit([edit("ipsecGwPeerRowStatus.1", 6)], AGENT)
    await store.close()
    assert list(read_store(SCHEMA, server.url, tmp_path).configuration.table("ipsecPeerTable").numbers()) == [2]


async def test_a_server_that_does_not_answer_is_no_damaged_store(tmp_path: Path) -> None:
    url = "postgresql+psycopg://postgres:hidden@127.0.0.1:1/postgres"
    with pytest.raises(StoreError) as error:
        Store.open(SCHEMA, url, tmp_path)
    assert "hidden" not in str(error.value)
