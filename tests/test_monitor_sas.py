"""Rows of SAs: their numbers, what rekeys, reauthentications and lists make of them, and what the columns say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.backends.engine import ChildSa, IkeEvent, IkeEventKind, IkeSa, SaCounters, SaRecord
from agent.mib import load_schema
from agent.mib.ber import Value
from agent.monitor import algorithms
from agent.monitor.rows import Now, bundle_row, expires, ike_row, peer_row, seconds
from agent.monitor.sa_rows import ikev2_row
from agent.monitor.sas import Registry, Rows
from agent.monitor.states import Oper
from agent.plan import numbers
from agent.plan.model import Child, Connection, Tunnel
from agent.plan.negotiated import Shown, selector

OURS, THEIRS = b"\x0a\x08\0\x01", b"\x0a\x08\0\x02"
CHILD = "peer-3-rule-4"
NOW = Now(1_700_000_000, 100.0, 40.0)


def child(unique: int, **fields: object) -> ChildSa:
    known: dict[str, object] = {
        "name": CHILD,
        "unique_id": unique,
        "reqid": numbers.REQID_FIRST,
        "state": "INSTALLED",
        "mode": 1,
        "protocol": 50,
        "spi_in": (unique * 2).to_bytes(4, "big"),
        "spi_out": (unique * 2 + 1).to_bytes(4, "big"),
        "encryption": "AES_CBC",
        "encryption_bits": 256,
        "integrity": "HMAC_SHA2_256_128",
        "local_selectors": ("10.1.0.0/24",),
        "remote_selectors": ("10.2.0.0/24",),
    }
    return ChildSa(**{**known, **fields})  # type: ignore[arg-type]


def ike(unique: int, *children: ChildSa, **fields: object) -> IkeSa:
    known: dict[str, object] = {
        "connection": "peer-3",
        "unique_id": unique,
        "version": 1,
        "state": "ESTABLISHED",
        "local": OURS,
        "remote": THEIRS,
        "encryption": "AES_CBC",
        "encryption_bits": 256,
        "integrity": "HMAC_SHA2_256_128",
        "prf": "PRF_HMAC_SHA2_256",
        "group": "MODP_2048",
        "children": children,
    }
    return IkeSa(**{**known, **fields})  # type: ignore[arg-type]


def up(registry: Registry, sa: IkeSa, new: ChildSa) -> None:
    registry.event(IkeEvent(IkeEventKind.CHILD_UP, ike=sa, child=new, connection="peer-3", child_name=CHILD))


def down(registry: Registry, sa: IkeSa, old: ChildSa) -> None:
    registry.event(IkeEvent(IkeEventKind.CHILD_DOWN, ike=sa, child=old, connection="peer-3", child_name=CHILD))


def rekey(registry: Registry, sa: IkeSa, old: ChildSa, new: ChildSa) -> None:
    registry.event(IkeEvent(IkeEventKind.CHILD_REKEY, ike=sa, child=new, old_child=old, connection="peer-3"))


def kernel(address: bytes, spi: bytes, octets: int, packets: int) -> SaRecord:
    return SaRecord(OURS, address, 50, spi, numbers.REQID_FIRST, 1, SaCounters(octets, packets, 0, 0))


def listed(registry: Registry, *sas: IkeSa) -> None:
    registry.finish_list(registry.begin_list(), sas)


def end(registry: Registry) -> None:
    """Time goes by."""
    for bundle in registry.alive():
        if bundle.leaves is not None:
            bundle.leaves = -1.0
    registry.expire()


def test_row_numbers_are_not_reused_while_alive() -> None:
    rows = Rows()
    assert [rows.take() for _ in range(3)] == [1, 2, 3]
    rows.free(2)
    assert rows.take() == 4
    rows._last = (1 << 31) - 1
    assert rows.take() == 2


def test_a_rekey_keeps_the_row_and_its_counters() -> None:
    registry = Registry(lambda: 0)
    first, second = child(1), child(2)
    sa = ike(1, first)
    up(registry, sa, first)
    registry.kernel(kernel(OURS, first.spi_in, 840, 10))
    registry.kernel(kernel(THEIRS, first.spi_out, 1680, 20))
    rekey(registry, sa, replace(first, octets_in=840, packets_in=10), second)
    registry.kernel(kernel(THEIRS, first.spi_out, 1764, 21))  # its last words
    registry.kernel(kernel(OURS, second.spi_in, 84, 1))
    listed(registry, ike(1, second))
    registry.kernel(kernel(OURS, first.spi_in, 924, 11))  # even later
    (bundle,) = registry.alive()
    assert bundle.number == 1 and bundle.child == second
    assert (bundle.traffic.incoming.octets, bundle.traffic.incoming.packets) == (1008, 12)
    assert (bundle.traffic.outgoing.octets, bundle.traffic.outgoing.packets) == (1764, 21)
    assert len(bundle.keys) == 2


def test_a_list_that_shows_the_new_child_before_the_event_makes_no_second_row() -> None:
    registry = Registry(lambda: 0)
    first, second = child(1), child(2, octets_in=50, packets_in=1)
    up(registry, ike(1, first), first)
    listed(registry, ike(1, replace(first, state="REKEYED", octets_in=100, packets_in=2), second))
    assert len(list(registry.alive())) == 2
    rekey(registry, ike(1, second), first, second)
    (bundle,) = registry.alive()
    assert (bundle.number, bundle.child.unique_id, bundle.traffic.incoming.octets) == (1, 2, 150)


def test_a_second_tunnel_of_the_same_child_inherits_the_counters() -> None:
    registry = Registry(lambda: 0)
    first, second = child(1, octets_out=100, packets_out=1), child(2, octets_out=10, packets_out=1)
    sa = ike(1, first, second)
    up(registry, sa, first)
    up(registry, sa, second)
    down(registry, sa, replace(first, octets_out=120, packets_out=2))
    (bundle,) = registry.alive()
    assert (bundle.number, bundle.child.unique_id) == (1, 2)
    registry.kernel(kernel(THEIRS, second.spi_out, 20, 2))
    registry.kernel(kernel(THEIRS, second.spi_out, 10, 1))
    down(registry, sa, replace(second, octets_out=20, packets_out=2))
    assert (bundle.traffic.outgoing.octets, bundle.traffic.outgoing.packets) == (140, 4)
    bundle.traffic.outgoing.octets, bundle.traffic.outgoing.packets = 130, 3
    assert (bundle.traffic.outgoing.octets, bundle.traffic.outgoing.packets) == (130, 3)


def test_an_end_and_a_beginning_are_a_renewal() -> None:
    """So a responder of version 1 is told of a rekey."""
    registry = Registry(lambda: 0)
    first, second = child(1, octets_in=84, packets_in=1), child(2, octets_in=168, packets_in=2)
    sa = ike(1, first)
    up(registry, sa, first)
    down(registry, sa, first)
    assert registry.tunnels(3) and not registry.stands(3, CHILD)
    up(registry, sa, second)
    registry.kernel(kernel(OURS, first.spi_in, 168, 2))
    registry.expire()
    (bundle,) = registry.alive()
    assert (bundle.number, bundle.child.unique_id, bundle.traffic.incoming.packets) == (1, 2, 4)
    assert registry.stands(3, CHILD)


def test_totals_of_a_peer_outlive_its_tunnels() -> None:
    registry = Registry(lambda: 0)
    for unique in (1, 2):
        new = child(unique, octets_in=100, packets_in=1)
        up(registry, ike(unique, new), new)
        down(registry, ike(unique, new), new)
    registry.kernel(kernel(OURS, child(2).spi_in, 184, 2))
    end(registry)
    assert (registry.totals[3].incoming.octets, registry.totals[3].incoming.packets) == (284, 3)


def test_a_version_1_reauthentication_leaves_the_tunnel_alone() -> None:
    registry = Registry(lambda: 0)
    tunnel = child(1)
    up(registry, ike(1, tunnel), tunnel)
    registry.event(IkeEvent(IkeEventKind.IKE_UP, ike=ike(2), connection="peer-3"))
    registry.event(IkeEvent(IkeEventKind.IKE_DOWN, ike=ike(1), connection="peer-3"))
    listed(registry, ike(2, tunnel))
    (bundle,) = registry.alive()
    assert bundle.number == 1 and bundle.ike.unique_id == 2
    assert set(registry.ike) == {2} and registry.stands(3, CHILD)


def test_version_2_ends_the_ike_sa_first() -> None:
    registry = Registry(lambda: 0)
    tunnel = child(1)
    sa = ike(1, tunnel, version=2)
    up(registry, sa, tunnel)
    registry.event(IkeEvent(IkeEventKind.IKE_DOWN, ike=sa, connection="peer-3"))
    down(registry, sa, tunnel)
    end(registry)
    assert not registry.ike and not registry.of_peer


def test_an_event_is_newer_than_a_list_asked_for_before_it() -> None:
    registry = Registry(lambda: 0)
    begun = registry.begin_list()
    tunnel = child(1)
    up(registry, ike(1, tunnel), tunnel)
    registry.finish_list(begun, [])
    assert registry.stands(3, CHILD)
    begun = registry.begin_list()
    down(registry, ike(1, tunnel), tunnel)
    registry.finish_list(begun, [ike(1, tunnel)])
    assert not registry.stands(3, CHILD)
    end(registry)
    listed(registry)
    assert not registry.ike and not registry.of_peer


def test_what_a_new_agent_finds() -> None:
    registry = Registry(lambda: 0)
    listed(registry, ike(7, child(9, octets_in=84, packets_in=1)), ike(8, connection="foreign"))
    assert registry.tunnels(3) == {CHILD: Tunnel(CHILD, OURS, THEIRS, 1, 50, False)}
    assert set(registry.ike) == {7}
    registry.forget()
    assert not registry.tunnels(3) and not registry.ike


EVENTS = st.lists(st.tuples(st.sampled_from("urdl"), st.integers(1, 6), st.integers(0, 500)), max_size=30)


@given(EVENTS)
def test_the_sum_over_a_childs_rows_never_shrinks(events: list[tuple[str, int, int]]) -> None:
    registry = Registry(lambda: 0)
    octets: dict[int, int] = {}
    standing: set[int] = set()
    highest = 0
    last = 0
    for what, which, more in events:
        if what == "u":
            highest += 1
            octets[highest] = more
            standing.add(highest)
            new = child(highest, octets_in=more, packets_in=1)
            up(registry, ike(1, new), new)
        elif what == "r" and standing:
            old = sorted(standing)[which % len(standing)]
            highest += 1
            octets[highest] = 0
            standing.discard(old)
            standing.add(highest)
            rekey(registry, ike(1), child(old, octets_in=octets[old], packets_in=1), child(highest))
        elif what == "d" and standing:
            old = sorted(standing)[which % len(standing)]
            standing.discard(old)
            down(registry, ike(1), child(old, octets_in=octets[old], packets_in=1))
        elif what == "l":
            for each in standing:
                octets[each] += more
            current = [child(each, octets_in=octets[each], packets_in=1) for each in standing]
            listed(registry, ike(1, *current))
        now = sum(bundle.traffic.incoming.octets for bundle in registry.alive())
        assert now >= last
        last = now
        rows = [bundle.number for bundle in registry.alive() if bundle.leaves is None]
        assert len(set(rows)) == len(rows) == len(standing)


# ---- columns ------------------------------------------------------------------------------


def connection(**fields: object) -> Connection:
    settings: dict[str, object] = {
        "version": "1",
        "aggressive": "no",
        "proposals": ["aes256-sha256-modp2048"],
        "local": {"auth": "psk", "id": "gw"},
        "remote_addrs": ["10.8.0.2"],
        "dpd_delay": "15s",
        "over_time": "180s",
        "children": {CHILD: {"life_time": "900s", "rekey_time": "720s", "esp_proposals": ["aes256-sha256"]}},
    }
    return Connection("peer-3", 3, {**settings, **fields}, (Child(CHILD, 3, 4, 70000),))  # type: ignore[dict-item]


def test_numberings_are_those_of_the_mib() -> None:
    columns = load_schema().columns
    for column, numbering in (
        ("ikeSaEncAlg", algorithms.IKE_CIPHERS),
        ("ikeSaHashAlg", algorithms.IKE_HASHES),
        ("ikeSaPrfAlg", algorithms.IKE_PRFS),
        ("ikev2SaEncAlg", algorithms.IKEV2_CIPHERS),
        ("ikev2SaIntegAlg", algorithms.IKEV2_INTEGRITY),
        ("ikev2SaPrfAlg", algorithms.IKEV2_PRFS),
        ("ipsecSaEncAlg", algorithms.ESP_ENCRYPTION),
        ("ipsecSaAuthAlg", algorithms.ESP_AUTHENTICATION),
    ):
        assert set(numbering.values()) <= set(columns[column].names)
    words = {"3DES_CBC": "des3", "DES_CBC": "des", "CAST_CBC": "cast128"}
    for name, number in algorithms.IKE_CIPHERS.items():
        assert columns["ikeSaEncAlg"].names[number] == words.get(name, name.removesuffix("_CBC").lower())
    for name, number in algorithms.IKE_PRFS.items():
        short = columns["ikeSaPrfAlg"].names[number].replace("sha2-", "sha2_").removesuffix("1")
        assert name.removeprefix("PRF_HMAC_").lower().removesuffix("1") == short
    assert set(algorithms.CHECKS) >= set(algorithms.IKE_HASHES)
    assert algorithms.PROPOSAL_GROUPS["modp2048"] == 14


def fits(table: str, values: dict[str, object]) -> None:
    found = load_schema().tables[table]
    for name, value in values.items():
        assert found.by_name[name].problem(value) == "", name  # type: ignore[arg-type]


def test_a_row_of_the_ike_table() -> None:
    registry = Registry(lambda: 100.0)
    sa = ike(5, established=60, reauth_in=600, initiator=True, initiator_spi=bytes(8), local_id="gw")
    registry.event(IkeEvent(IkeEventKind.IKE_UP, ike=sa, connection="peer-3"))
    values = ike_row(registry.ike[5], connection(), 0, NOW)
    fits("ikeSaTable", dict(values))
    assert values["ikeSaIndex"] == 1 and values["ikeSaPeerIndex"] == 3
    assert (values["ikeSaState"], values["ikeSaXchType"], values["ikeSaAuthMethod"], values["ikeSaRole"]) == (
        2,
        2,
        1,
        1,
    )
    assert (values["ikeSaEncAlg"], values["ikeSaHashAlg"], values["ikeSaPrfAlg"], values["ikeSaGroup"]) == (7, 5, 5, 14)
    assert values["ikeSaCreated"] == 1_700_000_000 - 60
    assert values["ikeSaExpires"] == 1_700_000_000 + 600 + 180
    assert ike_row(registry.ike[5], connection(aggressive="yes"), 0, NOW)["ikeSaXchType"] == 4


@pytest.mark.parametrize(("table", "row"), [("ikeSa", ike_row), ("ikev2Sa", ikev2_row)])
def test_when_it_was_made_stays(table: str, row: Callable[..., Mapping[str, Value]]) -> None:
    """Though the daemon tells whole seconds only: 1.6 s after it came up an SA is 1 s old."""
    clock = [90.0]
    registry = Registry(lambda: clock[0])
    registry.event(IkeEvent(IkeEventKind.IKE_UP, ike=ike(5), connection="peer-3"))
    made = set[Value]()
    for after in (0.0, 1.6, 2.4, 7.0, 7.99):
        clock[0] = 90 + after
        listed(registry, ike(5, established=int(after)))
        values = row(registry.ike[5], connection(), 0, Now(1_700_000_000 + after, clock[0], 40.0))
        made.add(values[f"{table}Created"])
        assert values[f"{table}LastUsed"] == values[f"{table}Created"]
    assert made == {1_700_000_000}
    clock[0] = 98.0
    registry = Registry(lambda: clock[0])  # of another agent, who finds it
    listed(registry, ike(5, established=8))
    values = row(registry.ike[5], connection(), 0, Now(1_700_000_008, 98.0, 40.0))
    assert (values[f"{table}Created"], values[f"{table}LastUsed"]) == (1_700_000_000, 1_700_000_008)


def test_what_is_still_being_negotiated_is_not_made_up() -> None:
    """Not DES, MD5 and group 1, which are the first of their enumerations."""
    sa = IkeSa("peer-3", 5, 1, "CONNECTING", local=OURS, remote=THEIRS, local_id="%any", remote_id="%any")
    registry = Registry(lambda: 100.0)
    registry.finish_list(registry.begin_list(), [sa])
    values = ike_row(registry.ike[5], connection(), 0, NOW)
    assert values["ikeSaState"] == 1
    for column in ("EncAlg", "HashAlg", "PrfAlg", "Group"):
        assert values[f"ikeSa{column}"] == 0, column
    assert values["ikeSaRemoteId"] == values["ikeSaLocalId"] == b""
    second = ikev2_row(registry.ike[5], connection(), 0, NOW)
    assert second["ikev2SaRemoteId"] == b"" and second["ikev2SaEncAlg"] == 0


def test_a_row_of_the_bundle_table() -> None:
    registry = Registry(lambda: 90.0)
    new = child(1, octets_in=84, packets_in=1, octets_out=168, packets_out=2, encap=True)
    up(registry, ike(1, new), new)
    (bundle,) = registry.alive()
    values = bundle_row(bundle, connection(), NOW)
    fits("ipsecBundleTable", dict(values))
    assert (values["ipsecBundlePeerIndex"], values["ipsecBundleTrafficIndex"]) == (3, 4)
    assert (values["ipsecBundleState"], values["ipsecBundleNumSas"], values["ipsecBundleRole"]) == (1, 2, 2)
    assert (values["ipsecBundleInPkt"], values["ipsecBundleInBytesNetto"]) == (1, 84)
    assert (values["ipsecBundleOutPkt"], values["ipsecBundleOutBytesNetto"]) == (2, 168)
    assert (values["ipsecBundleInBytes"], values["ipsecBundleOutBytes"]) == (164, 328)
    assert values["ipsecBundleLocalAddress"] == b"\x0a\x01\0\0" and values["ipsecBundleLocalMaskLen"] == 24
    assert (values["ipsecBundleLifeSeconds"], values["ipsecBundleRekeySeconds"]) == (900, 720)
    assert values["ipsecBundleLastStateChange"] == 5000 and values["ipsecBundleNatT"] == 1


def test_a_row_of_the_peer_table() -> None:
    registry = Registry(lambda: 90.0)
    new = child(1, octets_in=84, packets_in=1)
    sa = ike(1, new, nat_remote=True, local_port=4500, remote_port=4500)
    up(registry, sa, new)
    ikes, bundles = list(registry.ike.values()), list(registry.alive())
    values = peer_row(3, Oper.UP, 0, THEIRS, connection(), ikes, bundles, registry.totals[3], NOW)
    fits("ipsecPeerStatTable", dict(values))
    assert values["ipsecPeerStatOperStatus"] == 1
    assert (values["ipsecPeerStatNumP1"], values["ipsecPeerStatNumP1Established"]) == (1, 1)
    assert (values["ipsecPeerStatNumBundles"], values["ipsecPeerStatNumBundlesEstablished"]) == (1, 1)
    assert values["ipsecPeerStatCurrentRemoteAddress"] == THEIRS
    assert (values["ipsecPeerStatNatDetect"], values["ipsecPeerStatNatTRemotePort"]) == (2, 4500)
    assert (values["ipsecPeerStatDPD"], values["ipsecPeerStatPh1Mode"], values["ipsecPeerStatIkeGroup"]) == (3, 1, 14)
    assert values["ipsecPeerStatRxIdle"] == 1000 and values["ipsecPeerStatLocalId"] == b"gw"
    assert values["ipsecPeerStatPfsGroup"] == -1
    fits("ipsecPeerStatTable", dict(peer_row(3, Oper.DOWN, 0, b"", None, [], [], None, NOW)))


def test_another_port_of_ike_is_not_nat_traversal() -> None:
    registry = Registry(lambda: 90.0)
    up(registry, ike(1, child(1), local_port=1500), child(1))
    ikes, bundles = list(registry.ike.values()), list(registry.alive())
    values = peer_row(3, Oper.UP, 0, THEIRS, connection(), ikes, bundles, registry.totals[3], NOW)
    assert "ipsecPeerStatNatTLocalPort" not in values


def test_selectors_as_charon_writes_them() -> None:
    assert selector(["10.1.0.0/24"]) == Shown(b"\x0a\x01\0\0", 24)
    assert selector(["10.1.0.1/32[icmp]"]) == Shown(b"\x0a\x01\0\x01", 32, protocol=1)
    assert selector(["10.1.0.1..10.1.0.9[udp/53]"]) == Shown(
        b"\x0a\x01\0\x01", 0, b"\x0a\x01\0\x09", protocol=17, port=53, last_port=53
    )
    assert selector(["10.1.0.0/24[6/80]"]).protocol == 6
    assert selector(["fd00::/64"]).length == 64
    assert selector([]) == Shown() and selector(["dynamic"]) == Shown()


def test_times() -> None:
    assert seconds("900s") == seconds("900") == 900 and seconds(None) == 0
    assert expires(0, 0, {}, NOW) == 0
    late = Now(float((1 << 31) + 5), 100.0, 0.0)
    registry = Registry(lambda: 100.0)
    registry.event(IkeEvent(IkeEventKind.IKE_UP, ike=ike(1), connection="peer-3"))
    fits("ikeSaTable", dict(ike_row(registry.ike[1], None, 0, late)))


def test_a_tunnel_that_moves_takes_its_children_along() -> None:
    """MOBIKE: charon tells of the IKE SA alone, without children."""
    registry = Registry(lambda: 0.0)
    up(registry, ike(1, version=2), child(1))
    moved = ike(1, version=2, remote=b"\xcb\x00\x71\x09", remote_port=4500)
    registry.event(IkeEvent(IkeEventKind.IKE_UPDATE, ike=moved, connection="peer-3"))
    assert registry.tunnels(3)[CHILD].remote == b"\xcb\x00\x71\x09"
    assert registry.touched_bundles and registry.touched_peers == {3}
    other = replace(moved, unique_id=9, remote=THEIRS)
    registry.event(IkeEvent(IkeEventKind.IKE_UPDATE, ike=other, connection="peer-3"))
    assert registry.tunnels(3)[CHILD].remote == b"\xcb\x00\x71\x09", "that was another SA"
