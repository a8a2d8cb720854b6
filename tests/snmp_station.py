"""What the SNMP tests share: a served store, net-snmp's tools, and a small manager of our own.

The manager speaks v1, v2c and, with keys from a snmp.conf, SNMPv3 authPriv, and gives the
octets of each answer; so that a test can look at what net-snmp's tools hide, send a message
twice, or bend it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from agent.mib import load_schema
from agent.mib.ber import Wire, decode_oid_contents, encode_integer, encode_oid_contents, encode_tlv, read_tlv
from agent.snmp.server import SnmpServer, SnmpSettings
from agent.snmp.usm import key_of_passphrase, localized
from agent.store.store import Store

SCHEMA = load_schema()
GET, GETNEXT, RESPONSE, SET, GETBULK, REPORT = 0xA0, 0xA1, 0xA2, 0xA3, 0xA5, 0xA8
SEQUENCE = 0x30
NULL = b"\x05\x00"
IPSEC = (1, 3, 6, 1, 4, 1, 272)
READ, WRITE = "reading", "writing"
PATIENCE = 30.0  # seconds after which an answer counts as missing

VarBinds = Sequence[tuple[tuple[int, ...], bytes]]


def instance(name: str, row: int) -> tuple[int, ...]:
    return (*SCHEMA.columns[name].oid, row)


def dotted(oid: Sequence[int]) -> str:
    return "." + ".".join(map(str, oid))


def text(value: str) -> bytes:
    return encode_tlv(Wire.OCTET_STRING, value.encode())


def elements(data: bytes) -> list[tuple[int, bytes, bytes]]:
    """(tag, contents, whole TLV) of each element."""
    found, at = [], 0
    while at < len(data):
        tag, start, end = read_tlv(data, at)
        found.append((tag, data[start:end], data[at:end]))
        at = end
    return found


def encode_pdu(kind: int, request_id: int, varbinds: VarBinds, first: int = 0, second: int = 0) -> bytes:
    pairs = b"".join(
        encode_tlv(SEQUENCE, encode_tlv(Wire.OBJECT_IDENTIFIER, encode_oid_contents(oid)) + tlv)
        for oid, tlv in varbinds
    )
    numbers = b"".join(map(encode_integer, (request_id, first, second)))
    return encode_tlv(kind, numbers + encode_tlv(SEQUENCE, pairs))


def encode_community(version: int, community: str, pdu: bytes) -> bytes:
    return encode_tlv(SEQUENCE, encode_integer(version) + text(community) + pdu)


@dataclass(frozen=True)
class Reply:
    """A PDU that came back; `varbinds` with names as OIDs and values as TLVs, `octets` the PDU itself."""

    kind: int
    request_id: int
    status: int
    index: int
    varbinds: list[tuple[tuple[int, ...], bytes]]
    octets: bytes


def decode_reply(pdu: tuple[int, bytes, bytes]) -> Reply:
    request_id, status, index, pairs = elements(pdu[1])
    varbinds = []
    for _, pair, _ in elements(pairs[1]):
        name, value = elements(pair)
        varbinds.append((decode_oid_contents(name[1]), value[2]))
    number, code, at = (int.from_bytes(part[1], "big", signed=True) for part in (request_id, status, index))
    return Reply(pdu[0], number, code, at, varbinds, pdu[2])


def decode_community(message: bytes) -> Reply:
    return decode_reply(elements(elements(message)[0][1])[2])


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.received: asyncio.Queue[tuple[bytes, Any]] = asyncio.Queue()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.received.put_nowait((data, addr))


class Manager:
    """A socket of ours. `source`: the address it is bound to."""

    def __init__(self, transport: asyncio.DatagramTransport, protocol: Datagrams, target: tuple[str, int]) -> None:
        self.transport = transport
        self.received = protocol.received
        self.target = target
        self.requests = 1000

    def send(self, message: bytes) -> None:
        self.transport.sendto(message, self.target)

    async def receive(self, seconds: float = PATIENCE) -> bytes:
        return (await asyncio.wait_for(self.received.get(), seconds))[0]

    async def ask(
        self,
        kind: int,
        varbinds: VarBinds,
        first: int = 0,
        second: int = 0,
        version: int = 1,
        community: str = WRITE,
    ) -> Reply:
        self.requests += 1
        self.send(encode_community(version, community, encode_pdu(kind, self.requests, varbinds, first, second)))
        reply = decode_community(await self.receive())
        assert reply.request_id == self.requests
        return reply

    async def walk(self, root: tuple[int, ...]) -> list[tuple[tuple[int, ...], bytes]]:
        """Everything below a node, by GETNEXT."""
        found: list[tuple[tuple[int, ...], bytes]] = []
        at = root
        while True:
            [(oid, value)] = (await self.ask(GETNEXT, [(at, NULL)])).varbinds
            if value == b"\x82\x00" or oid[: len(root)] != root:
                return found
            found.append((oid, value))
            at = oid

    def close(self) -> None:
        self.transport.close()


@asynccontextmanager
async def manager(target: tuple[str, int], source: str = "127.0.0.1") -> AsyncIterator[Manager]:
    loop = asyncio.get_running_loop()
    if ":" in target[0]:
        source = "::1"
    transport, protocol = await loop.create_datagram_endpoint(Datagrams, local_addr=(source, 0))
    made = Manager(transport, protocol, target)
    try:
        yield made
    finally:
        made.close()


@dataclass
class Session3:
    """SNMPv3 authPriv, SHA-256 and AES-128, as the user of a snmp.conf."""

    manager: Manager
    user: bytes
    auth: bytes
    priv: bytes
    engine_id: bytes = b""
    boots: int = 0
    time: int = 0
    messages: int = field(default=5000)

    @classmethod
    async def open(cls, asking: Manager, state: Path) -> Session3:
        """Finds the engine as RFC 3414 section 4 says."""
        lines = (state / "snmp.conf").read_text().splitlines()
        settings = dict(line.split(None, 1) for line in lines if not line.startswith("#") and " " in line)
        session = cls(
            asking,
            settings["defSecurityName"].encode(),
            key_of_passphrase(settings["defAuthPassphrase"].encode(), "sha256"),
            key_of_passphrase(settings["defPrivPassphrase"].encode(), "sha256"),
        )
        asking.send(session.message(encode_pdu(GET, 1, []), level=0, user=b""))
        session.learn(await asking.receive())
        return session

    def learn(self, message: bytes) -> None:
        _, _, parameters, _ = elements(elements(message)[0][1])
        engine_id, boots, engine_time, *_ = elements(elements(parameters[1])[0][1])
        self.engine_id = engine_id[1]
        self.boots, self.time = (int.from_bytes(part[1], "big") for part in (boots, engine_time))

    def message(
        self,
        pdu: bytes,
        level: int = 3,
        user: bytes | None = None,
        message_id: int | None = None,
        context: bytes = b"",
        largest: int = 65507,
        context_engine: bytes | None = None,
        salt_octets: int = 8,
        model: int = 3,
    ) -> bytes:
        """A whole message. `level`: the two security bits of msgFlags; `salt_octets` of msgPrivacyParameters go out,
        where 8 are right."""
        self.messages += 1
        engine_id = self.engine_id
        of = engine_id if context_engine is None else context_engine
        scoped = encode_tlv(SEQUENCE, encode_tlv(4, of) + encode_tlv(4, context) + pdu)
        salt = os.urandom(8) if level & 2 else b""
        if level & 2:
            iv = self.boots.to_bytes(4, "big") + self.time.to_bytes(4, "big") + salt
            key = localized(self.priv, engine_id, "sha256")[:16]
            cipher = Cipher(algorithms.AES(key), CFB(iv)).encryptor()
            scoped = encode_tlv(4, cipher.update(scoped) + cipher.finalize())
        blank = bytes(24) if level & 1 else b""
        head = encode_integer(self.messages if message_id is None else message_id) + encode_integer(largest)
        head += encode_tlv(4, bytes((level | 4,))) + encode_integer(model)
        parameters = encode_tlv(4, engine_id) + encode_integer(self.boots) + encode_integer(self.time)
        parameters += encode_tlv(4, self.user if user is None else user)
        tail = encode_tlv(4, salt[:salt_octets])

        def whole(digest: bytes) -> bytes:
            security = encode_tlv(4, encode_tlv(SEQUENCE, parameters + encode_tlv(4, digest) + tail))
            return encode_tlv(SEQUENCE, encode_integer(3) + encode_tlv(SEQUENCE, head) + security + scoped)

        if not level & 1:
            return whole(b"")
        key = localized(self.auth, engine_id, "sha256")
        return whole(hmac.digest(key, whole(blank), "sha256")[:24])

    def read(self, message: bytes) -> Reply:
        """The PDU of an answer; its digest is checked where it has one."""
        _, head, parameters, data = elements(elements(message)[0][1])
        flags = elements(head[1])[2][1][0]
        fields = elements(elements(parameters[1])[0][1])
        scoped = data[1]
        if flags & 1:
            digest = fields[4][1]
            key = localized(self.auth, self.engine_id, "sha256")
            assert message.count(digest) == 1
            blank = message.replace(digest, bytes(len(digest)))
            assert hmac.digest(key, blank, hashlib.sha256)[: len(digest)] == digest
        if flags & 2:
            iv = b"".join(int.from_bytes(fields[n][1], "big").to_bytes(4, "big") for n in (1, 2)) + fields[5][1]
            key = localized(self.priv, self.engine_id, "sha256")[:16]
            cipher = Cipher(algorithms.AES(key), CFB(iv)).decryptor()
            scoped = elements(cipher.update(data[1]) + cipher.finalize())[0][1]
        return decode_reply(elements(scoped)[2])

    async def ask(self, kind: int, varbinds: VarBinds, first: int = 0, second: int = 0) -> Reply:
        self.manager.requests += 1
        pdu = encode_pdu(kind, self.manager.requests, varbinds, first, second)
        self.manager.send(self.message(pdu))
        reply = self.read(await self.manager.receive())
        assert reply.request_id == self.manager.requests
        return reply


@dataclass
class Served:
    """A store and its SNMP server."""

    store: Store
    server: SnmpServer
    state: Path
    refused: list[str]

    @property
    def address(self) -> tuple[str, int]:
        return self.server.addresses[0]

    @property
    def target(self) -> str:
        host, port = self.address
        return f"udp6:[{host}]:{port}" if ":" in host else f"{host}:{port}"


@asynccontextmanager
async def served(
    state: Path, listen: Sequence[tuple[str, int]] = (("127.0.0.1", 0),), **more: Any
) -> AsyncIterator[Served]:
    """An agent of store and SNMP on a free port; communities READ and WRITE."""
    os.makedirs(state, exist_ok=True)  # noqa: PTH103
    store = Store.open(SCHEMA, "", state)
    refused: list[str] = []
    settings = SnmpSettings(listen=listen, state=state, read_community=READ, write_community=WRITE, **more)
    server = SnmpServer(store, SCHEMA, settings, refused=refused.append)
    try:
        await server.start()
        yield Served(store, server, state, refused)
    finally:
        await server.stop()
        await store.close()


class Ran(NamedTuple):
    """What a tool printed, and its exit status."""

    out: str
    err: str
    code: int


async def run(*command: str, state: Path | None = None) -> Ran:
    """A program with net-snmp's environment; without `state` no snmp.conf is read. Those of net-snmp wait for an answer
    as long as a busy machine may take, unless told otherwise: by itself they would ask again after a second, which
    counts, and give up after six."""
    if command[0].startswith("snmp") and not any(word.startswith("-t") for word in command):
        command = (command[0], "-t20", *command[1:])
    environment = {**os.environ, "SNMPCONFPATH": str(state or "/nonexistent"), "MIBS": "", "LC_ALL": "C"}
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return Ran(out.decode(), err.decode(), process.returncode)


def walked(out: str) -> list[tuple[tuple[int, ...], str]]:
    """Lines of `snmpwalk -On` as (OID, type and value)."""
    found = []
    for line in out.splitlines():
        name, separator, value = line.partition(" = ")
        if separator and name.startswith(".") and "No more variables left" not in value:
            found.append((tuple(map(int, name[1:].split("."))), value))
        elif found:
            found[-1] = (found[-1][0], found[-1][1] + "\n" + line)
    return found


async def until(condition: Callable[[], object]) -> None:
    """Give the event loop its turns until something is so."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 -- there is nothing to wait for that would tell
            await asyncio.sleep(0.001)
