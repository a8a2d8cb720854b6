"""The host's addresses, routes and connections, as the plan gets to know them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.backends.engine import EngineError
from agent.backends.host import LinuxHost, established, literal
from agent.backends.memory import MemoryHost
from agent.backends.rtnetlink import LINK_MESSAGE, ROUTE_MESSAGE, RTA_DST, RTM_GETLINK, RTM_GETROUTE
from agent.backends.xfrm.messages import encode_attribute
from agent.backends.xfrm.netlink import NETLINK_ROUTE, Message, NetlinkSocket, Overrun
from agent.plan.model import Flow
from tests.xfrm_namespace import cable, namespaces, until

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
TCP = [
    "   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0",
    "   1: 0100000A:0016 0200000A:C350 01 00000000:00000000 02:00000000 00000000     0        0 2 1 0 20 4 30 10 -1",
    "   2: 0100007F:0016 0100007F:C351 01 00000000:00000000 02:00000000 00000000     0        0 3 1 0 20 4 30 10 -1",
    "   3: 0100000A:D000 0300000A:01BB 01 00000000:00000000 02:00000000 00000000     0        0 4 1 0 20 4 30 10 -1",
    "   4: 0100000A:0016 0400000A:C352 06 00000000:00000000 02:00000000 00000000     0        0 5 1 0 20 4 30 10 -1",
]
TCP6 = [
    "   0: 0000000000000000FFFF00000100000A:0016 0000000000000000FFFF00000500000A:C353 01 0 0 0 0 0 0",
    "   1: B80D0120000000000000000001000000:0016 B80D0120000000000000000002000000:C354 01 0 0 0 0 0 0",
    "  broken",
]


def test_connections_into_the_box_are_those_to_a_listening_port() -> None:
    flows = list(established((TCP, TCP6)))
    v6 = bytes.fromhex("20010db8") + bytes(11)
    assert flows == [
        Flow(bytes([10, 0, 0, 2]), bytes([10, 0, 0, 1]), 6, 0xC350, 22, "in"),
        Flow(bytes([10, 0, 0, 5]), bytes([10, 0, 0, 1]), 6, 0xC353, 22, "in"),
        Flow(v6 + b"\x02", v6 + b"\x01", 6, 0xC354, 22, "in"),
    ]


def test_they_are_read_from_proc(tmp_path: Path) -> None:
    (tmp_path / "tcp").write_text("\n".join([HEAD, *TCP]))  # and no tcp6: a kernel without IPv6
    assert len(LinuxHost(proc=tmp_path).flows()) == 1


def test_numbers_are_told_from_names() -> None:
    assert literal("192.0.2.7") == bytes([192, 0, 2, 7]) and literal("::1") == bytes(15) + b"\x01"
    assert literal("gw.example.org") is None and literal("") is None


async def test_a_name_that_does_not_resolve_gives_nothing() -> None:
    host = LinuxHost()
    assert await host.resolve("no-such-name.invalid") == ()
    assert await host.resolve("198.51.100.3") == (bytes([198, 51, 100, 3]),)
    assert await MemoryHost(names={"gw": (bytes([10, 0, 0, 9]),)}).resolve("gw") == (bytes([10, 0, 0, 9]),)


@pytest.mark.kernel
async def test_sources_and_addresses_follow_the_kernel() -> None:
    with namespaces(2) as (namespace, other):
        host = LinuxHost(open_socket=namespace.route_socket)
        await host.start()
        told: list[None] = []
        host.subscribe(lambda: told.append(None))
        assert host.own_addresses() == {bytes([127, 0, 0, 1]), bytes(15) + b"\x01"}
        assert host.source_for(bytes([198, 51, 100, 1])) is None
        cable(namespace, other)
        namespace.ip("addr add 10.8.0.1/24 dev v0")
        namespace.ip("route add default via 10.8.0.254")
        await until(lambda: told and host.source_for(bytes([198, 51, 100, 1])))
        assert host.source_for(bytes([198, 51, 100, 1])) == bytes([10, 8, 0, 1])
        assert bytes([10, 8, 0, 1]) in host.own_addresses()
        await asyncio.sleep(0.3)
        told.clear()
        namespace.ip("addr add 10.8.0.2/24 dev v0")
        await until(lambda: told)
        assert bytes([10, 8, 0, 2]) in host.own_addresses()
        await host.stop()


async def test_addresses_are_all_or_none() -> None:
    """One that is left out for a moment would end the tunnels that begin at it."""
    changes = [2]

    class Interrupted(NetlinkSocket):
        """Something changes while it is listed."""

        def dump(self, type: int, body: bytes = b"") -> Iterator[list[Message]]:
            if changes[0]:
                changes[0] -= 1
                raise Overrun("the dump was interrupted by a change")
            return super().dump(type, body)

    host = LinuxHost(open_socket=lambda groups: Interrupted(NETLINK_ROUTE, groups))
    assert bytes([127, 0, 0, 1]) in host.own_addresses() and "lo" in host.interfaces().values()
    changes[0] = 99
    host._changed()
    with pytest.raises(EngineError, match="change too fast"):
        host.own_addresses()
    await host.stop()


def test_requests_are_counted_on_beyond_32_bits() -> None:
    """A router with a full table asks for the way to each of its peers at every change: 2^32 requests are some days."""
    with NetlinkSocket(NETLINK_ROUTE) as kernel:
        kernel._sequence = 0xFFFF_FFFE
        body = ROUTE_MESSAGE.encode({"family": socket.AF_INET, "dst_len": 32})
        body += encode_attribute(RTA_DST, bytes([127, 0, 0, 1]))
        assert [type(kernel.ask(RTM_GETROUTE, body)) for _ in range(4)] == [Message] * 4
        kernel._sequence = 0xFFFF_FFFE
        refused = kernel.batch([(0x7FFF, bytes(16))] * 5)
        assert sorted(refused) == [0, 1, 2, 3, 4]
        assert kernel.batch([(0x7FFF, bytes(16))]).keys() == {0}, "answers of before the end are not taken for new ones"
        kernel._sequence = 0xFFFF_FFFF
        assert any(kernel.dump(RTM_GETLINK, LINK_MESSAGE.encode({})))
