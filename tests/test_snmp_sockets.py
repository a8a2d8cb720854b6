"""Sockets, guard and first start."""

from __future__ import annotations

import asyncio
import os
import re
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.mib.ber import encode_integer, encode_tlv
from agent.snmp.access import Level, Principal, Views, in_view, visibility
from agent.snmp.guard import Bucket, Guard, Known, Limits, Version3
from agent.snmp.identity import walk_command
from agent.snmp.sockets import Endpoint, ListenError
from agent.snmp.usm import key_of_passphrase, localized
from tests.snmp_station import (
    GET,
    GETBULK,
    NULL,
    PATIENCE,
    SCHEMA,
    encode_community,
    encode_pdu,
    instance,
    manager,
    served,
    until,
)

ASK = [(instance("ipsecGlobEnabled", 0), NULL)]


@pytest.mark.parametrize(
    ("listen", "asked"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("0.0.0.0", "127.0.0.77"), ("::1", "::1"), ("::", "::1")],
)
async def test_answers_come_from_the_address_asked(tmp_path: Path, listen: str, asked: str) -> None:
    async with served(tmp_path, [(listen, 0)]) as at:
        target = (asked, at.address[1])
        async with manager(target) as asking:
            asking.send(encode_community(1, "reading", encode_pdu(GET, 1, ASK)))
            _, source = await asyncio.wait_for(asking.received.get(), PATIENCE)
            assert source[:2] == target


async def test_several_addresses_are_one_agent(tmp_path: Path) -> None:
    async with served(tmp_path, [("127.0.0.1", 0), ("::1", 0), ("0.0.0.0", 0)]) as at:
        assert len(at.server.addresses) == 3
        for host, port in at.server.addresses:
            async with manager((host.replace("0.0.0.0", "127.0.0.1"), port)) as asking:
                assert (await asking.ask(GET, ASK)).status == 0


async def test_an_address_in_use_or_not_ours_is_named(tmp_path: Path) -> None:
    async with served(tmp_path) as at:
        host, port = at.address
        with pytest.raises(
            ListenError, match=f"^cannot listen on {re.escape(host)} port {port}: Address already in use$"
        ):
            Endpoint(host, port)
    with pytest.raises(ListenError, match=r"cannot listen on 192\.0\.2\.1 port 1161"):
        async with served(tmp_path, [("127.0.0.1", 0), ("192.0.2.1", 1161)]):
            pass


async def test_what_is_too_long_is_dropped_and_counted(tmp_path: Path) -> None:
    limits = Limits(message_octets=1000)
    async with served(tmp_path, limits=limits) as at, manager(at.address) as asking:
        pdu = encode_pdu(GET, 1, ASK * 20)
        community = "reading"
        message = encode_community(1, community, pdu)
        assert len(message) < 1000
        asking.send(message)
        await asking.receive()
        asking.send(encode_community(1, community, encode_pdu(GET, 2, ASK * 60)))
        assert (await asking.ask(GET, ASK)).request_id == asking.requests
        assert at.server.counters.too_long == 1


async def test_bulk_is_nothing_for_v1_and_responses_are_nothing_for_an_agent(tmp_path: Path) -> None:
    async with served(tmp_path) as at, manager(at.address) as asking:
        asking.send(encode_community(0, "reading", encode_pdu(GETBULK, 1, ASK, 0, 2)))
        asking.send(encode_community(1, "reading", encode_pdu(0xA2, 2, ASK)))
        asking.send(encode_community(1, "reading", encode_pdu(0xA7, 3, ASK)))
        assert (await asking.ask(GET, ASK)).request_id == asking.requests
        assert at.server.counters.snmpInASNParseErrs == 1
        assert at.server.counters.snmpUnknownPDUHandlers == 2


async def test_an_exception_in_one_datagram_leaves_the_others_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path) as at, manager(at.address) as asking:
        with monkeypatch.context() as patched:
            patched.setattr(at.server._responder, "read", lambda *_: 1 / 0)
            asking.send(encode_community(1, "reading", encode_pdu(GET, 1, ASK)))
            await until(lambda: at.server.counters.failures)
        assert (await asking.ask(GET, ASK)).request_id == asking.requests


# ---- guard ----------------------------------------------------------------------------


def guard() -> Guard:
    return Guard({b"sesame": Principal("read-community", Level.READ)}, {}, Limits(strangers_per_second=3), lambda: 0.0)


@given(st.binary(max_size=300))
def test_garbage_is_dropped_or_a_stranger(data: bytes) -> None:
    assert not isinstance(guard().admit(data, "127.0.0.1"), Known)


@given(st.binary(max_size=60), st.integers(0, 3), st.sampled_from([b"sesame", b"street", b""]))
def test_garbage_in_an_envelope_is_dropped_or_a_stranger(rest: bytes, version: int, community: bytes) -> None:
    data = encode_tlv(0x30, encode_integer(version) + encode_tlv(4, community) + rest)
    admitted = guard().admit(data, "127.0.0.1")
    if isinstance(admitted, Known):
        assert community == b"sesame" and version < 2 and rest
    else:
        assert admitted is None or (isinstance(admitted, Version3) and admitted.user is None)


def test_drops_are_counted_by_their_reason_and_told_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    at = guard()
    pdu = encode_pdu(GET, 1, ASK)
    known = at.admit(encode_community(1, "sesame", pdu), "127.0.0.1")
    assert isinstance(known, Known) and known.principal.level is Level.READ
    for message in (
        b"\x30\x00",
        encode_community(1, "street", pdu),
        encode_community(2, "sesame", pdu),
        encode_community(1, "sesame", pdu) + b"\x00",
        bytes(20_000),
    ):
        assert at.admit(message, "127.0.0.1") is None
    counters = at.counters
    assert (counters.snmpInPkts, counters.dropped()) == (6, 5)
    assert (counters.snmpInBadCommunityNames, counters.snmpInBadVersions, counters.too_long) == (1, 1, 1)
    assert counters.snmpInASNParseErrs == 2
    at.tell()
    at.tell()
    assert [record.getMessage()[:20] for record in caplog.records] == ["5 datagrams dropped;"]
    assert "sesame" not in caplog.text and "street" not in caplog.text


def test_the_bucket_lets_so_many_through() -> None:
    now = 0.0
    bucket = Bucket(10, lambda: now)
    assert sum(bucket.take() for _ in range(100)) == 10
    now = 0.5
    assert sum(bucket.take() for _ in range(100)) == 5
    now = 100.0
    assert sum(bucket.take() for _ in range(100)) == 10


# ---- access and keys ------------------------------------------------------------------


def test_the_longest_subtree_decides() -> None:
    view = {(1, 3): True, (1, 3, 6): False, (1, 3, 6, 1, 4): True}
    assert in_view(view, (1, 3, 5))
    assert not in_view(view, (1, 3, 6))
    assert not in_view(view, (1, 3, 6, 1))
    assert in_view(view, (1, 3, 6, 1, 4, 1))
    assert not in_view(view, (2, 1))
    assert Views(view, {}).write == {}


def test_readers_write_nothing_and_users_are_the_administrators() -> None:
    peer = visibility(instance("ipsecPeerDescription", 1)[:-1])
    user = visibility(instance("ipsecGwUserLevel", 1)[:-1])
    everybody = Level.ADMIN.bit | Level.WRITE.bit | Level.READ.bit
    assert peer == (everybody, Level.ADMIN.bit | Level.WRITE.bit)
    assert user == (Level.ADMIN.bit, Level.ADMIN.bit)
    own, other = (visibility((1, 3, 6, 1, 6, 3, 15, 1, 2, 2, 1, column)) for column in (7, 6))
    assert own == (Level.ADMIN.bit, Level.ADMIN.bit | Level.WRITE.bit)
    assert other == (Level.ADMIN.bit, Level.ADMIN.bit)
    for secret in ("ipsecGwTargetCommunity", "ipsecGwSourceAddress", "ipsecGwFilterMask", "ipsecGwReadSources"):
        assert visibility(SCHEMA.columns[secret].oid) == (Level.ADMIN.bit, Level.ADMIN.bit)


def test_keys_are_those_of_the_rfc() -> None:
    """RFC 3414 A.3.1 and A.3.2."""
    engine_id = bytes.fromhex("000000000000000000000002")
    md5, sha = (key_of_passphrase(b"maplesyrup", name) for name in ("md5", "sha1"))
    assert md5.hex() == "9faf3283884e92834ebc9847d8edd963"
    assert localized(md5, engine_id, "md5").hex() == "526f5eed9fcce26f8964c2930787d82b"
    assert sha.hex() == "9fb5cc0381497b3793528939ff788d5d79145211"
    assert localized(sha, engine_id, "sha1").hex() == "6695febc9288e36282235fc7151f128497b38f3f"


# ---- first start ----------------------------------------------------------------------


async def test_the_first_start_makes_one_administrator(tmp_path: Path) -> None:
    file = tmp_path / "snmp.conf"
    async with served(tmp_path) as at:
        assert stat.S_IMODE(os.stat(file).st_mode) == 0o600  # noqa: PTH116
        first = file.read_text()
        [row] = at.store.running.rows("ipsecGwUserTable")
        assert (row["ipsecGwUserName"], row["ipsecGwUserLevel"]) == (b"admin", 1)
        assert (row["ipsecGwUserAuthProtocol"], row["ipsecGwUserPrivProtocol"]) == (5, 3)
        sealed = row["ipsecGwUserAuthKey"]
        passphrases = [line.split()[1] for line in first.splitlines() if "Passphrase" in line]
        assert isinstance(sealed, bytes) and len(passphrases) == 2
        plain = key_of_passphrase(passphrases[0].encode(), "sha256")
        assert plain not in sealed
        assert at.store.secrets.open("ipsecGwUserTable", 1, "ipsecGwUserAuthKey", sealed) == plain
        assert not any(passphrase in at.server.walk_command for passphrase in passphrases)
    async with served(tmp_path) as at:
        assert file.read_text() == first
        assert len(at.store.running.table("ipsecGwUserTable")) == 1


def test_the_line_names_an_address_that_can_be_asked() -> None:
    walk = ".1.3.6.1.4.1.272"
    folder = Path("/var/lib/x y")
    assert walk_command(folder, "0.0.0.0", 161) == f"SNMPCONFPATH='/var/lib/x y' snmpwalk -v3 127.0.0.1:161 {walk}"
    assert walk_command(Path("/s"), "::", 161) == f"SNMPCONFPATH=/s snmpwalk -v3 'udp6:[::1]:161' {walk}"
    assert walk_command(Path("/a:b"), "192.0.2.1", 1) == f"(cd /a:b && SNMPCONFPATH=. snmpwalk -v3 192.0.2.1:1 {walk})"
