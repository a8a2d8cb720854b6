"""An agent that means harm: escape sequences, control characters and 64 kB in whatever it sends.

No agent of ours sends such things, so this one is made here: it answers every request of a v2c
manager, and every string is the same hostile one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from agent.mib.ber import Wire, encode_integer, encode_tlv, encode_value
from agent.shell.language import read_line
from agent.shell.session import Session
from agent.snmp.client import Community, SnmpClient
from agent.snmp.pdu import PduType, decode_pdu
from tests.shell_screen import SCHEMA, Paper, cells_of
from tests.snmp_station import RESPONSE, SEQUENCE, elements

EVIL = (
    b"\x1b[2J\x1b[1;1H\x1b]0;owned\x07\x1bP+q544e\x1b\\"  # clear, title, DCS
    b'" ; ipsecGlobEnabled=false\r\n\x9b31m\xc2\x9b31m\x00\x7f'  # C1 in Latin-1 and UTF-8
    b"\xe2\x80\xae\xe2\x80\x8b\xef\xbb\xbf\xff\xfe\xed\xa0\x80"  # right-to-left, invisible, no UTF-8
)
LONG = EVIL + b"\x1b[31m" * 12_000
END = b"\x82\x00"  # endOfMibView
SYS_NAME = (1, 3, 6, 1, 2, 1, 1, 5, 0)


class HostileAgent(asyncio.DatagramProtocol):
    """Every column has the one row 1, scalars row 0."""

    def __init__(self, octets: bytes) -> None:
        self.octets = octets
        self.columns = {column.prefix: column for column in SCHEMA.ordered}

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        _, _, (_, _, whole) = elements(elements(data)[0][1])
        request = decode_pdu(whole, 0, len(whole), 1 << 16)
        if request.kind == PduType.SET:
            pairs = list(request.varbinds)
            self.reply(request.request_id, pairs, status=12, index=1, to=addr)
            return
        ahead = request.kind != PduType.GET
        pairs = [self.behind(name) if ahead else (name, self.value(name)) for name, _ in request.varbinds]
        self.reply(request.request_id, pairs, to=addr)

    def behind(self, name: bytes) -> tuple[bytes, bytes]:
        column = self.columns.get(name)
        row = b"\x00" if column is not None and SCHEMA.table_of(column).scalar else b"\x01"
        return (name + row, self.value(name + row)) if column is not None else (name, END)

    def value(self, name: bytes) -> bytes:
        column = self.columns.get(name[:-1])
        if column is None or column.wire is Wire.OCTET_STRING:
            return encode_tlv(Wire.OCTET_STRING, self.octets)
        number = 0xFFFFFF if column.wire is not Wire.IP_ADDRESS else 0
        if column.wire is Wire.OBJECT_IDENTIFIER:
            return encode_value(column.wire, (1, 3, *([0xFFFFFFFF] * 126)))
        return encode_value(column.wire, bytes(4) if column.wire is Wire.IP_ADDRESS else number)

    def reply(
        self, request_id: bytes, pairs: Sequence[tuple[bytes, bytes]], *, to: Any, status: int = 0, index: int = 0
    ) -> None:
        def message(pairs: Sequence[tuple[bytes, bytes]], status: int) -> bytes:
            listed = b"".join(encode_tlv(SEQUENCE, encode_tlv(Wire.OBJECT_IDENTIFIER, n) + v) for n, v in pairs)
            numbers = request_id + encode_integer(status) + encode_integer(index)
            pdu = encode_tlv(RESPONSE, numbers + encode_tlv(SEQUENCE, listed))
            return encode_tlv(SEQUENCE, encode_integer(1) + encode_tlv(Wire.OCTET_STRING, b"x") + pdu)

        octets = message(pairs, status)
        if len(octets) > 65_000:
            octets = message([(name, b"\x05\x00") for name, _ in pairs], 1)  # tooBig
        self.transport.sendto(octets, to)


@asynccontextmanager
async def beside(octets: bytes, person: bool = True) -> AsyncIterator[tuple[Session, Paper]]:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: HostileAgent(octets), local_addr=("127.0.0.1", 0))
    try:
        port = transport.get_extra_info("sockname")[1]
        async with await SnmpClient.open("127.0.0.1", port, Community(b"x"), SCHEMA) as client:
            paper = Paper(80, person)
            yield await Session.open(client, SCHEMA, paper), paper
    finally:
        transport.close()


def harmless(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


async def test_a_prompt_is_one_short_harmless_line() -> None:
    async with beside(EVIL) as (session, _):
        assert session.prompt().isprintable() and len(session.prompt()) < 60


async def test_every_table_and_variable_is_shown_harmlessly() -> None:
    async with beside(EVIL) as (session, paper):
        for table in session.vocabulary.tables:
            assert await session.execute(table.name) == 0
            assert await session.execute(f"{table.name}.{0 if table.scalar else 1}") == 0
        for line in ("ipsecPeerDescription", "ipsecPeerDescription.1", "debug show", "help ipsecPeerTable"):
            assert await session.execute(line) == 0
        assert harmless(paper.text) and "\\x1b[2J" in paper.text
        assert 'ipsecPeerDescription.1( rw):  "\\x1b[2J' in paper.text
        assert session.prompt().isprintable()


async def test_what_a_hostile_agent_says_of_a_refusal_is_harmless() -> None:
    async with beside(b"ipsecPeerDescription.1 = \x1b[2J: no\x07") as (session, paper):
        assert await session.execute("ipsecPeerDescription.1=x") == 1
        assert paper.complaints == "ipsecPeerDescription.1 = \\x1b[2J: no\\x07\n"
        assert await session.execute("cmd=save") == 1
        assert harmless(paper.complaints)


async def test_strings_of_64_kilobytes() -> None:
    async with beside(LONG) as (session, paper):
        assert await session.execute("ipsecGwEventText") == 0
        line = paper.text.rstrip("\n")
        assert harmless(line) and octets_of(line.partition("):  ")[2]) == LONG, "a single value is shown in full"
        paper.text = ""
        assert await session.execute("ipsecGwEventTable") == 0
        assert harmless(paper.text) and len(paper.text) < 4000, "a person sees its beginning in a table"
        assert f"… ({len(LONG)} octets)" in paper.text.replace("\n      ", "")
    async with beside(LONG, person=False) as (session, paper):
        assert await session.execute("ipsecGwSegmentTable") == 0
        header, [row] = cells_of(paper.text)
        assert row[header.index("Data(*rw)")] == "0x" + LONG.hex(), "a script gets it all"


def octets_of(text: str) -> bytes:
    [command] = read_line(text)
    [word] = command.words
    return word.encode("utf-8", "surrogateescape")
