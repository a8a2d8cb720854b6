"""Rows of ipsecSaTable, ikev2SaTable and ipsecTrafficSelectorTable, and how they come and go with rekeys."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agent.backends.engine import ChildSa, IkeEvent, IkeEventKind, IkeSa, SaCounters, SaRecord
from agent.mib import load_schema
from agent.monitor.rows import Now, Values
from agent.monitor.sa_rows import Pair, ikev2_row, pairs, sa_row, sa_state, selector_row, signed
from agent.monitor.sas import Registry
from agent.plan import numbers

SCHEMA = load_schema()
OURS, THEIRS = b"\x0a\x08\0\x01", b"\x0a\x08\0\x02"
CHILD, REQID = "peer-3-rule-4", numbers.REQID_FIRST
NOW = Now(1_700_000_000.0, 100.0, 0.0)
SA = IkeSa("peer-3", 1, 1, "ESTABLISHED", OURS, THEIRS)


def child(unique: int = 1, **fields: object) -> ChildSa:
    known: dict[str, object] = {"name": CHILD, "reqid": REQID, "state": "INSTALLED", "mode": 1, "protocol": 50}
    known |= {"encryption": "AES_CBC", "encryption_bits": 256, "integrity": "HMAC_SHA2_256_128", "group": "MODP_2048"}
    known |= {"spi_in": bytes([0xC0, 0, unique, 1]), "spi_out": bytes([0x10, 0, unique, 2])}
    return ChildSa(unique_id=unique, **{**known, **fields})  # type: ignore[arg-type]


def happened(registry: Registry, kind: IkeEventKind, new: ChildSa, old: ChildSa | None = None, sa: IkeSa = SA) -> None:
    registry.event(IkeEvent(kind, ike=sa, child=new, old_child=old, connection=sa.connection, child_name=CHILD))


def shown(registry: Registry) -> list[Values]:
    rows = [sa_row(row) for row in sorted(registry.sas.values(), key=lambda row: row.number)]
    for row in rows:
        fits("ipsecSaTable", row)
    return rows


def fits(table: str, values: Values) -> None:
    for name, value in values.items():
        assert SCHEMA.tables[table].by_name[name].problem(value) == "", name


def test_a_tunnel_has_two_sas_with_the_spis_of_the_kernel() -> None:
    registry = Registry(lambda: 0.0)
    happened(registry, IkeEventKind.CHILD_UP, child())
    into, out = shown(registry)
    assert (into["ipsecSaDir"], out["ipsecSaDir"]) == (1, 2)
    assert into["ipsecSaSpi"] == 0xC0000101 - (1 << 32) and out["ipsecSaSpi"] == 0x10000102
    assert (into["ipsecSaState"], into["ipsecSaMode"], into["ipsecSaSecProto"], into["ipsecSaBundle"]) == (5, 1, 50, 1)
    assert (into["ipsecSaEncAlg"], into["ipsecSaEncKeyLen"]) == (7, 32)
    assert (into["ipsecSaAuthAlg"], into["ipsecSaAuthKeyLen"], into["ipsecSaPfsGroup"]) == (7, 32, 14)
    assert (into["ipsecSaSpiSize"], into["ipsecSaBundleNesting"], into["ipsecSaCompAlg"]) == (4, 1, 2)


def test_what_an_sa_refused_is_shown() -> None:
    registry = Registry(lambda: 0.0)
    happened(registry, IkeEventKind.CHILD_UP, child())
    registry.touched_sas.clear()
    record = SaRecord(THEIRS, OURS, 50, child().spi_in, REQID, 1, SaCounters(0, 0, 0, 0), replayed=3, forged=2)
    registry.kernel(record)
    assert registry.touched_sas == {1}
    assert (shown(registry)[0]["ipsecSaReplayErrors"], shown(registry)[0]["ipsecSaRecvErrors"]) == (3, 2)
    registry.touched_sas.clear()
    registry.kernel(record)
    assert not registry.touched_sas


def test_a_rekey_brings_new_rows_beside_the_old_which_go_with_their_sas() -> None:
    registry = Registry(lambda: 0.0)
    happened(registry, IkeEventKind.CHILD_UP, child(1))
    happened(registry, IkeEventKind.CHILD_REKEY, child(2), child(1, state="REKEYED"))
    assert [row["ipsecSaIndex"] for row in shown(registry)] == [1, 2, 3, 4]
    assert [row["ipsecSaState"] for row in shown(registry)] == [2, 2, 5, 5]
    assert {row["ipsecSaBundle"] for row in shown(registry)} == {1}
    happened(registry, IkeEventKind.CHILD_DOWN, child(1, state="DELETED"))
    assert [row["ipsecSaIndex"] for row in shown(registry)] == [3, 4]


def test_a_compressed_tunnel_has_four_sas_compression_inside() -> None:
    registry = Registry(lambda: 0.0)
    happened(registry, IkeEventKind.CHILD_UP, child(ipcomp=True, cpi_in=b"\x9a\xbc", cpi_out=b"\x12\x34"))
    found = {(row["ipsecSaSecProto"], row["ipsecSaDir"]): row for row in shown(registry)}
    assert found.keys() == {(50, 1), (50, 2), (108, 1), (108, 2)}
    inner = found[108, 1]
    assert (inner["ipsecSaSpi"], inner["ipsecSaSpiSize"], inner["ipsecSaCompAlg"]) == (0x9ABC, 2, 3)
    assert (inner["ipsecSaBundleNesting"], found[50, 1]["ipsecSaBundleNesting"]) == (1, 2)
    assert inner["ipsecSaEncAlg"] == 1 and inner["ipsecSaAuthAlg"] == 2


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"protocol": 51, "encryption": "", "integrity": "HMAC_SHA1_96"}, ("ipsecSaAuthAlg", 6)),
        ({"encryption": "NULL", "encryption_bits": 0}, ("ipsecSaEncAlg", 1)),
        ({"encryption": "3DES_CBC", "encryption_bits": 0}, ("ipsecSaEncKeyLen", 24)),
        ({"integrity": ""}, ("ipsecSaAuthAlg", 2)),
        ({"group": ""}, ("ipsecSaPfsGroup", 0)),
        ({"mode": 0}, ("ipsecSaMode", 2)),
    ],
)
def test_columns_of_other_sas(fields: dict[str, Any], wanted: tuple[str, int]) -> None:
    registry = Registry(lambda: 0.0)
    happened(registry, IkeEventKind.CHILD_UP, child(**fields))
    assert shown(registry)[0].get(wanted[0], 0) == wanted[1]


def test_states_and_spis() -> None:
    assert [sa_state(state) for state in ("CREATED", "INSTALLED", "REKEYING", "REKEYED", "DELETING")] == [4, 5, 5, 2, 2]
    assert signed(b"\xff\xff\xff\xff") == -1 and signed(b"\x7f\xff\xff\xff") == (1 << 31) - 1


def test_a_row_of_version_2() -> None:
    registry = Registry(lambda: 100.0)
    sa = replace(
        SA,
        unique_id=7,
        version=2,
        encryption="AES_CBC",
        encryption_bits=256,
        integrity="HMAC_SHA2_256_128",
        prf="PRF_HMAC_SHA2_256",
        group="CURVE_25519",
        established=60,
        rekey_in=600,
        initiator_spi=bytes(7) + b"\x01",
        responder_spi=bytes(7) + b"\x02",
        local_id="gw",
        children=(child(state="REKEYING"), child(2)),
    )
    registry.event(IkeEvent(IkeEventKind.IKE_UP, ike=sa, connection="peer-3"))
    values = ikev2_row(registry.ike[7], None, 1234, NOW)
    fits("ikev2SaTable", values)
    assert values.keys() == {column.name for column in SCHEMA.tables["ikev2SaTable"].columns} - {"ikev2SaNumCerts"}
    assert (values["ikev2SaEncAlg"], values["ikev2SaIntegAlg"], values["ikev2SaPrfAlg"]) == (12, 3, 3)
    assert (values["ikev2SaGroup"], values["ikev2SaNumNegotiations"], values["ikev2SaBytes"]) == (31, 1, 1234)
    assert values["ikev2SaCreated"] == 1_700_000_000 - 60 and values["ikev2SaRekeys"] == 1_700_000_000 + 600


def test_selectors_are_shown_each_with_each_and_with_ranges_of_ports() -> None:
    registry = Registry(lambda: 0.0)
    happened(
        registry,
        IkeEventKind.CHILD_UP,
        child(
            local_selectors=("10.1.0.0/24[udp/4096-8191]", "fd00:1::/64"),
            remote_selectors=("10.2.0.1..10.2.0.9",),
        ),
    )
    bundle = next(registry.alive())
    found = list(pairs(bundle))
    assert found == [
        Pair("10.1.0.0/24[udp/4096-8191]", "10.2.0.1..10.2.0.9"),
        Pair("fd00:1::/64", "10.2.0.1..10.2.0.9"),
    ]
    values = selector_row(5, bundle, Pair("10.1.0.0/24[udp/4096-8191]", "10.2.0.1..10.2.0.9"))
    fits("ipsecTrafficSelectorTable", values)
    assert (values["ipsecTrafficSelectorIndex"], values["ipsecTrafficSelectorBundleIndex"]) == (5, 1)
    assert (values["ipsecTrafficSelectorLocalAddress"], values["ipsecTrafficSelectorLocalMaskLen"]) == (
        bytes([10, 1, 0, 0]),
        24,
    )
    assert (values["ipsecTrafficSelectorLocalPort"], values["ipsecTrafficSelectorLocalPortRange"]) == (4096, 8191)
    assert values["ipsecTrafficSelectorRemoteAddress"] == bytes([10, 2, 0, 1])
    assert values["ipsecTrafficSelectorRemoteRange"] == bytes([10, 2, 0, 9])
    assert values["ipsecTrafficSelectorProto"] == 17
    six = selector_row(6, bundle, Pair("fd00:1::/64", "fd00:2::/64"))
    fits("ipsecTrafficSelectorTable", six)
    assert six["ipsecTrafficSelectorIpVersion"] == 2 and "ipsecTrafficSelectorProto" not in six
    assert six["ipsecTrafficSelectorLocalIp6Address"] == bytes.fromhex("fd000001") + bytes(12)
    assert six["ipsecTrafficSelectorLocalMaskLen"] == 64
