"""Settings of notifications that a receiver notices only when it looks at time, number or octets of what comes.

The receiver is a bare socket where snmptrapd would hide what is to be seen: it keeps silent
so that informs are repeated, and takes the messages apart.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.store.events import Event, Kind, Severity
from tests.snmp_station import IPSEC, decode_community, elements, until
from tests.trap_receiver import Gateway, gateway, oid, receiver

pytestmark = pytest.mark.slow

INFORM, V3 = 2, 3  # ipsecGwTargetKind, ipsecGwTargetVersion
PATIENCE = 30.0  # seconds until what should come counts as lost
SO_TIMESTAMPNS, STAMP = 35, struct.Struct("@ll")  # asm-generic/socket.h; struct timespec
needs_snmptrapd = pytest.mark.skipif(shutil.which("snmptrapd") is None, reason="no snmptrapd (package snmptrapd)")


class Silent:
    """A receiver that answers nothing. `messages`: with the seconds at which the kernel got them, whenever we read."""

    def __init__(self, at: socket.socket) -> None:
        self.at = at
        self.address: tuple[str, int] = at.getsockname()
        self.messages: list[tuple[float, bytes]] = []

    async def hear(self, seconds: float, enough: int = 0) -> None:
        """All that comes in this time; or until there are `enough` messages with those from before."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while (left := end - loop.time()) > 0 and (not enough or len(self.messages) < enough):
            try:
                async with asyncio.timeout(left):
                    await self._readable()
            except TimeoutError:
                return
            message, [(_, _, stamp)], *_ = self.at.recvmsg(65535, socket.CMSG_SPACE(STAMP.size))
            seconds, nanoseconds = STAMP.unpack(stamp)
            self.messages.append((seconds + nanoseconds / 1e9, message))

    async def _readable(self) -> None:
        loop, there = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self.at, there.set)
        try:
            await there.wait()
        finally:
            loop.remove_reader(self.at)


@contextmanager
def silent() -> Iterator[Silent]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as at:
        at.bind(("127.0.0.1", 0))
        at.setblocking(False)
        at.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        yield Silent(at)


def alarm(agent: Gateway, peer: int = 1) -> None:
    """Something to tell that no change of the configuration goes with."""
    agent.agent.store.events.tell(Event(Kind.PEER_DOWN, Severity.WARNING, f"peer {peer} is down", peer))


async def forget(*receivers: Silent) -> None:
    """What has come so far."""
    for at in receivers:
        await at.hear(0.05)
        at.messages.clear()


async def test_an_inform_is_repeated_so_often_after_so_long(tmp_path: Path) -> None:
    """ipsecGwTargetRetries times, ipsecGwTargetTimeout hundredths of a second after the one before."""
    with silent() as often, silent() as once:
        async with gateway(tmp_path) as agent:
            await agent.target(1, often.address, Kind=INFORM, Timeout=30, Retries=2)
            await agent.target(2, once.address, Kind=INFORM, Timeout=30, Retries=0)
            # those about the two SETs, one to the first target only, have ended in vain
            await until(lambda: agent.status("ipsecGwNotificationsFailed") == 3)
            await forget(often, once)
            alarm(agent)
            await often.hear(PATIENCE, 3)
            await asyncio.gather(often.hear(0.6), once.hear(0.6))
            await until(lambda: agent.status("ipsecGwNotificationsFailed") == 5)
    numbers = {decode_community(message).request_id for _, message in often.messages}
    assert len(often.messages) == 3 and len(numbers) == 1, "the same inform three times"
    assert len(once.messages) == 1
    times = [at for at, _ in often.messages]
    for gap in (times[1] - times[0], times[2] - times[1]):
        assert 0.25 < gap < 15, times


def engine_of(message: bytes) -> tuple[bytes, int]:
    """msgAuthoritativeEngineID and the two bits of msgFlags for the security level (RFC 3412 section 6)."""
    _, head, parameters, _ = elements(elements(message)[0][1])
    return elements(elements(parameters[1])[0][1])[0][1], elements(head[1])[2][1][0] & 3


async def test_a_known_engine_is_spoken_to_at_once(tmp_path: Path) -> None:
    """ipsecGwTargetEngine saves the discovery, which is a message in plain to an engine without a name."""
    engine = bytes.fromhex("8000bead05") + b"station"
    with silent() as known, silent() as unknown:
        async with gateway(tmp_path) as agent:
            common = {"Kind": INFORM, "Version": V3, "User": 1, "Timeout": 30, "Retries": 0}
            await agent.target(1, known.address, Engine=engine, **common)
            await agent.target(2, unknown.address, **common)
            alarm(agent)
            await asyncio.gather(known.hear(PATIENCE, 1), unknown.hear(PATIENCE, 1))
    assert {engine_of(message) for _, message in known.messages} == {(engine, 3)}
    assert {engine_of(message) for _, message in unknown.messages} == {(b"", 0)}


async def test_no_more_than_so_many_in_a_minute(tmp_path: Path) -> None:
    """ipsecGwNotifyMost, of all peers together."""
    with silent() as at:
        async with gateway(tmp_path) as agent:
            await agent.target(1, at.address)
            await at.hear(PATIENCE, 1)
            await forget(at)
            await agent.set(0, {"ipsecGwNotifyMost": 9})
            for peer in range(1, 31):
                alarm(agent, peer)
            await at.hear(PATIENCE, 4)
            await at.hear(0.5)
            few = len(at.messages)
            assert few <= 9, "with what was told of the settings before, in the same minute, nine"
            await agent.set(0, {"ipsecGwNotifyMost": 20})
            alarm(agent, 31)
            await at.hear(PATIENCE, few + 1)
            await at.hear(0.5)
            assert few < len(at.messages) <= 20, "another bound counts at once"


@needs_snmptrapd
async def test_a_mask_leaves_out_one_peer(tmp_path: Path) -> None:
    """ipsecGwFilterMask leaves the column's arc open: whatever is told of peer 7, in any column of the table."""
    down, description = oid("ipsecGwPeerDown"), oid("ipsecPeerDescription", 7)
    table = (*IPSEC, 4, 26, 5, 1, 0, 7)  # ipsecPeerEntry, any column, row 7
    async with receiver(tmp_path / "trapd") as trapd, gateway(tmp_path / "state") as agent:
        await agent.target(1, trapd)
        await agent.set(1, {"ipsecGwFilterTarget": 1, "ipsecGwFilterSubtree": (1, 3)})
        await agent.set(
            2,
            {
                "ipsecGwFilterTarget": 1,
                "ipsecGwFilterSubtree": table,
                "ipsecGwFilterMask": mask_of(table, len(table) - 2),
                "ipsecGwFilterType": 2,
            },
        )
        for peer in (7, 8):
            alarm(agent, peer)
        [told] = await trapd.wait_for(down)
        assert description not in told.objects and oid("ipsecPeerDescription", 8) in told.objects
        await agent.set(2, {"ipsecGwFilterMask": b""})  # every arc counts: no column has the number 0
        alarm(agent, 7)
        _, again = await trapd.wait_for(down, 2)
        assert description in again.objects


def mask_of(subtree: tuple[int, ...], wild: int) -> bytes:
    """snmpNotifyFilterMask of RFC 3413: a bit for each arc, 0 for the one that may be anything."""
    bits = "".join("0" if at == wild else "1" for at in range(len(subtree))).ljust(-(-len(subtree) // 8) * 8, "1")
    return int(bits, 2).to_bytes(len(bits) // 8, "big")
