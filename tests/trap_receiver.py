"""Debian's snmptrapd on a loopback port of its own, and an agent of store and SNMP that notifies."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.mib.ber import Value, encode_value
from agent.telling import telling
from tests.ports import free_port
from tests.snmp_station import SCHEMA, SET, Served, Session3, instance, manager, served

COMMUNITY = "trapping"
PATIENCE = 30.0  # seconds until what should be received counts as lost


@dataclass(frozen=True)
class Received:
    """A line of snmptrapd: kind of its format, security as it names it, and objects as `-On` shows them."""

    kind: str
    security: str
    objects: Mapping[str, str]
    line: str

    @property
    def name(self) -> str:
        """snmpTrapOID.0, or enterprise, generic and specific of SNMPv1."""
        return self.objects.get(".1.3.6.1.6.3.1.1.4.1.0", self.security).removeprefix("OID: ")


@dataclass
class Receiver:
    """A running snmptrapd; `host` and `port` are what it listens on."""

    host: str
    port: int
    log: Path

    def received(self) -> list[Received]:
        found = []
        for line in self.log.read_text().splitlines():
            kind, _, rest = line.partition("|")
            if kind not in ("V1", "V2"):
                continue
            security, _, varbinds = rest.partition("|")
            objects = dict(each.partition(" = ")[::2] for each in varbinds.split("\t") if each)
            found.append(Received(kind, security, objects, line))
        return found

    def names(self) -> list[str]:
        return [each.name for each in self.received()]

    async def wait_for(self, name: str, count: int = 1) -> list[Received]:
        """All notifications of this name once there are so many."""
        try:
            async with asyncio.timeout(PATIENCE):
                while len(found := [each for each in self.received() if each.name == name]) < count:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"{count} of {name} expected; log: {self.log.read_text()}") from None
        return found


@asynccontextmanager
async def receiver(folder: Path, *lines: str, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Receiver]:
    """snmptrapd with these lines in its configuration, beside the community."""
    folder.mkdir(exist_ok=True)  # noqa: ASYNC240 -- a folder of the test
    port = port or free_port(host)
    configuration, log = folder / "snmptrapd.conf", folder / "snmptrapd.log"
    formats = ("format1 V1|%a %N %w %q|%v\\n", "format2 V2|%P|%v\\n")
    configuration.write_text("\n".join([f"authCommunity log {COMMUNITY}", *formats, *lines]) + "\n")
    address = f"udp6:[{host}]:{port}" if ":" in host else f"udp:{host}:{port}"
    environment = {**os.environ, "SNMP_PERSISTENT_DIR": str(folder), "SNMPCONFPATH": str(folder), "MIBS": ""}
    command = ["snmptrapd", "-f", "-n", "-On", "-Lf", str(log), "-C", "-c", str(configuration), address]
    process = await asyncio.create_subprocess_exec(*command, env=environment)
    try:
        async with asyncio.timeout(PATIENCE):
            while not (log.exists() and "NET-SNMP version" in log.read_text()):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        yield Receiver(host, port, log)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


@dataclass
class Gateway:
    """An agent that notifies."""

    agent: Served
    admin: Session3

    async def set(self, row: int, values: Mapping[str, Value]) -> None:
        """One SET of the user admin; scalars have row 0."""
        varbinds = [(instance(name, row), encode_value(SCHEMA.columns[name].wire, v)) for name, v in values.items()]
        reply = await self.admin.ask(SET, varbinds)
        assert reply.status == 0, (self.agent.refused, values)

    async def target(self, number: int, to: Receiver | tuple[str, int], **more: Value) -> None:
        """A row of ipsecGwTargetTable; keywords without `ipsecGwTarget`."""
        host, port = (to.host, to.port) if isinstance(to, Receiver) else to
        six = ":" in host
        address = socket.inet_pton(socket.AF_INET6 if six else socket.AF_INET, host)
        values: dict[str, Value] = {"Address": address, "Port": port, "Community": COMMUNITY.encode(), **more}
        await self.set(number, {f"ipsecGwTarget{name}": value for name, value in values.items()})

    def status(self, name: str) -> int:
        """A counter of ipsecGwStatus, or any other scalar that is live."""
        column = SCHEMA.columns[name]
        tlv = self.agent.store.view.table(column.table).cell(0, column.position)
        assert tlv is not None
        return int.from_bytes(tlv[2:], "big")

    def passphrases(self) -> Mapping[str, str]:
        """Of the user admin, as its snmp.conf has them."""
        lines = (self.agent.state / "snmp.conf").read_text().splitlines()
        return dict(line.split(None, 1) for line in lines if " " in line and not line.startswith("#"))

    def create_user(self, own_engine: bool) -> Sequence[str]:
        """Lines for snmptrapd that make it know the user admin: on this agent's engine for traps, on its own for
        informs."""
        secrets = self.passphrases()
        engine = f"-e 0x{self.agent.server.facts.identity.engine_id.hex()} " if own_engine else ""
        auth, priv = secrets["defAuthPassphrase"], secrets["defPrivPassphrase"]
        return [f"createUser {engine}admin SHA-256 {auth} AES {priv}", "authUser log admin priv"]


@asynccontextmanager
async def gateway(state: Path, pause: int = 0) -> AsyncIterator[Gateway]:
    """`pause`: ipsecGwNotifyPause."""
    async with served(state) as agent, telling(agent.store, agent.server), manager(agent.address) as asking:
        made = Gateway(agent, await Session3.open(asking, state))
        await made.set(0, {"ipsecGwNotifyPause": pause})
        yield made


def oid(name: str, *row: int) -> str:
    """As `-On` writes it: a notification, or an instance of a column."""
    if name in SCHEMA.notifications:
        return "." + ".".join(map(str, SCHEMA.notifications[name].oid))
    found = next(
        (each.oid for note in SCHEMA.notifications.values() for each in note.objects if each.name == name), None
    )
    return "." + ".".join(map(str, (*(found or SCHEMA.columns[name].oid), *row)))
