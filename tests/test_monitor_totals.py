"""The gateway's numbers: they fit each other, count from the start of the agent and never go back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from agent.backends.engine import ChildSa, IkeEvent, IkeEventKind, IkeSa, SaCounters, SaRecord
from agent.backends.statistics import read_statistics
from agent.mib import load_schema
from agent.monitor.sas import Registry
from agent.monitor.states import Oper
from agent.monitor.totals import WIDE, Totals, narrow, wide
from agent.plan import numbers

SCHEMA = load_schema()
OURS, THEIRS = b"\x0a\x08\0\x01", b"\x0a\x08\0\x02"
REQID = numbers.REQID_FIRST
KERNEL = (
    *("XfrmInNoStates", "XfrmInStateSeqError", "XfrmInStateProtoError", "XfrmInTmplMismatch", "XfrmInPolBlock"),
    *("XfrmInError", "XfrmOutPolBlock", "XfrmOutNoStates", "XfrmOutError", "InReceives", "OutRequests"),
)


def gateway(**fields: object) -> Registry:
    """One with a tunnel."""
    registry = Registry(lambda: 0.0)
    known = {"name": "peer-1-rule-1", "unique_id": 1, "reqid": REQID, "state": "INSTALLED", "mode": 1, "protocol": 50}
    child = ChildSa(**{**known, "spi_in": b"\0\0\1\1", "spi_out": b"\0\0\1\2", **fields})  # type: ignore[arg-type]
    sa = IkeSa("peer-1", 1, 1, "ESTABLISHED", OURS, THEIRS)
    registry.event(IkeEvent(IkeEventKind.CHILD_UP, ike=sa, child=child, connection="peer-1"))
    return registry


def carried(registry: Registry, into: int, out: int) -> None:
    for source, destination, spi, packets in ((THEIRS, OURS, b"\0\0\1\1", into), (OURS, THEIRS, b"\0\0\1\2", out)):
        registry.kernel(SaRecord(source, destination, 50, spi, REQID, 1, SaCounters(packets * 100, packets, 0, 0)))


def test_every_scalar_of_both_groups_is_given_a_value() -> None:
    values = Totals({}).values({}, gateway(), {})
    shown = narrow(values).keys()
    assert shown | {"ipsecStatsFragNonfirst"} == {column.name for column in SCHEMA.tables["ipsecStats"].columns}
    columns = {column.name for column in SCHEMA.tables["ipsecGwStats64"].columns}
    assert wide(values).keys() | {"ipsecGwStats64DiscontinuityTime"} == columns
    assert set(WIDE) <= values.keys()


def test_total_is_passed_dropped_protected_and_errors_as_on_the_screen_of_the_guide() -> None:
    registry = gateway()
    before = {"InReceives": 1000, "OutRequests": 2000, "XfrmInPolBlock": 7}
    totals = Totals(before)
    carried(registry, into=770, out=510)
    now = {
        "InReceives": 1000 + 770 + 770 + 50 + 30,
        "OutRequests": 2000 + 510 + 50,
        "XfrmInPolBlock": 7 + 30,
        "XfrmOutPolBlock": 40,
    }
    values = totals.values(now, registry, {Oper.UP: 10, Oper.DORMANT: 6})
    shown = {name: (values[f"In{name}"], values[f"Out{name}"]) for name in ("Pkt", "Pass", "Drop", "Errors")}
    assert shown == {"Pkt": (850, 600), "Pass": (50, 50), "Drop": (30, 40), "Errors": (0, 0)}
    assert (values["InDecaps"], values["OutEncaps"]) == (770, 510)
    assert (values["PeersUp"], values["PeersDormant"], values["PeersBlocked"]) == (10, 6, 0)
    assert (values["CurrentIpsecSas"], values["CurrentBundlesEstablished"]) == (2, 1)
    assert (values["EspCurrentInbound"], values["EspTotalOutbound"], values["AhTotalInbound"]) == (1, 1, 0)


READINGS = st.lists(st.fixed_dictionaries({name: st.integers(0, 1 << 33) for name in KERNEL}), min_size=2, max_size=5)


@given(READINGS)
def test_none_goes_back_and_the_sum_holds_whatever_the_kernel_says(readings: list[Mapping[str, int]]) -> None:
    registry, totals = gateway(), Totals(readings[0])
    last: dict[str, int] = {}
    for packets, reading in enumerate(readings[1:]):
        carried(registry, packets * 3, packets * 5)
        values = totals.values(reading, registry, {})
        for name in WIDE:
            assert values[name] >= last.get(name, 0), name
        for way, protected in (("In", "InDecaps"), ("Out", "OutEncaps")):
            parts = (f"{way}Pass", f"{way}Drop", protected, f"{way}Errors")
            assert values[f"{way}Pkt"] == sum(values[part] for part in parts)
        last = {name: values[name] for name in WIDE}
        assert all(0 <= value < 1 << 31 for value in narrow(values).values() if isinstance(value, int))


def test_an_integer_counter_goes_on_at_zero_and_its_twin_does_not() -> None:
    totals = Totals({})
    values = totals.values({"XfrmInNoStates": (1 << 31) + 5}, gateway(), {})
    assert narrow(values)["ipsecStatsUnknownSpiErrors"] == 5
    assert wide(values)["ipsecGwStats64UnknownSpiErrors"] == (1 << 31) + 5


def test_wrong_check_values_are_told_from_what_cannot_be_decrypted() -> None:
    registry, totals = gateway(), Totals({})
    registry.kernel(SaRecord(THEIRS, OURS, 50, b"\0\0\1\1", REQID, 1, SaCounters(0, 0, 0, 0), replayed=4, forged=3))
    values = totals.values({"XfrmInStateProtoError": 5, "XfrmInStateSeqError": 4}, registry, {})
    assert (values["AuthErrors"], values["DecryptErrors"], values["ReplayErrors"]) == (3, 2, 4)
    assert values["InErrors"] == 9


def test_compressed_packets_are_counted_as_such_and_once_as_protected() -> None:
    registry = gateway(ipcomp=True, cpi_in=b"\x12\x34", cpi_out=b"\x56\x78")
    carried(registry, into=9, out=0)
    registry.kernel(SaRecord(THEIRS, OURS, 108, b"\0\0\x12\x34", REQID, 1, SaCounters(500, 7, 0, 0)))
    values = Totals({}).values({}, registry, {})
    assert (values["InEsp"], values["InIpcomp"], values["InDecaps"]) == (9, 7, 9)
    assert values["IpcompCurrentInbound"] == values["IpcompCurrentOutbound"] == 1
    assert values["CurrentIpsecSas"] == 4


def test_negotiations_are_told_apart_by_version_phase_and_end() -> None:
    totals = Totals({})
    totals.note_negotiation(1, 1, failed=True)
    totals.note_negotiation(1, 1, failed=False)
    totals.note_negotiation(1, 2, failed=False)
    totals.note_negotiation(2, 1, failed=False)
    totals.note_negotiation(2, 2, failed=True)
    totals.note_trigger(REQID)
    totals.note_trigger(3)  # of somebody else
    values = totals.values({}, gateway(), {})
    assert (values["IkeNumP1"], values["IkeNumFailedP1"], values["IkeNumQm"], values["IkeNumFailedQm"]) == (2, 1, 1, 0)
    assert (values["Ikev2NumIkeSas"], values["Ikev2NumFailedIkeSas"]) == (1, 0)
    assert (values["Ikev2NumCreateChildSas"], values["Ikev2NumFailedCreateChildSas"]) == (1, 1)
    assert values["Trig"] == 1


def test_the_kernel_s_files_are_read_both_families_together(tmp_path: Path) -> None:
    (tmp_path / "xfrm_stat").write_text("XfrmInNoStates          \t3\nXfrmOutPolBlock \t4\n")
    (tmp_path / "snmp").write_text("Ip: Forwarding InReceives OutRequests\nIp: 1 100 90\nTcp: ActiveOpens\nTcp: 1\n")
    (tmp_path / "snmp6").write_text("Ip6InReceives \t5\nIp6OutRequests \t6\n")
    (tmp_path / "sockstat").write_text("sockets: used 1\nFRAG: inuse 2 memory 4096\n")
    assert read_statistics(tmp_path) == {
        "XfrmInNoStates": 3,
        "XfrmOutPolBlock": 4,
        "InReceives": 105,
        "OutRequests": 96,
        "FragInUse": 2,
        "FragMemory": 4096,
    }
    assert read_statistics(tmp_path / "nothing") == {}
