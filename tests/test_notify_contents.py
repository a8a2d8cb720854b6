"""What notifications say and who gets them: filters as RFC 3413 has them, PDUs of SNMPv1, the document."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.mib.ber import Wire, decode_oid_contents, encode_value
from agent.snmp.notify.contents import AUTHENTICATION_FAILURE, COLD_START, SYS_UP_TIME, Contents, contents
from agent.snmp.notify.filters import Filter, passes, verdict
from agent.snmp.notify.pacing import Told
from agent.store.events import Event, Kind, Severity, display
from agent.store.snapshot import TableSnapshot, scalar_or_empty
from tests.snmp_station import IPSEC, SCHEMA, elements

EXTENSION = (*IPSEC, 4, 26, 200)
DOCUMENT = Path(__file__).parent.parent / "docs" / "notifications.md"


class EmptyTables:
    """Tables without rows, scalars at their defaults."""

    def table(self, name: str) -> TableSnapshot:
        return scalar_or_empty(SCHEMA.tables[name])


# ---- filters ----------------------------------------------------------------------------


def test_without_filters_all_passes() -> None:
    assert passes((), COLD_START, [])


def test_the_notification_has_to_be_included() -> None:
    ours = Filter((*EXTENSION, 0), b"", True)
    assert passes((ours,), (*EXTENSION, 0, 1), [(1, 3, 6)])
    assert not passes((ours,), COLD_START, [])
    assert not passes((Filter((*EXTENSION, 0, 2), b"", False),), (*EXTENSION, 0, 1), [])


def test_the_longest_subtree_decides_and_of_equal_ones_the_greatest() -> None:
    filters = [Filter((1, 3), b"", False), Filter((1, 3, 6), b"", True), Filter((1, 3, 6, 1), b"", False)]
    for order in (filters, filters[::-1]):
        assert verdict(order, (1, 3, 7)) is False
        assert verdict(order, (1, 3, 6, 2)) is True
        assert verdict(order, (1, 3, 6, 1, 4)) is False
        assert verdict(order, (1, 4)) is None
    open_arc = bytes((0b11000000,))
    wild = [Filter((1, 3, 5), open_arc, False), Filter((1, 3, 6), open_arc, True)]
    assert verdict(wild, (1, 3, 9)) is verdict(wild[::-1], (1, 3, 9)) is True


def test_a_mask_leaves_arcs_open_as_the_document_says() -> None:
    [text] = re.findall(r"ipsecGwFilterSubtree\.3 o \.([\d.]+) ipsecGwFilterMask\.3 x (\w+)", DOCUMENT.read_text())
    peer7 = Filter(tuple(map(int, text[0].split("."))), bytes.fromhex(text[1]), False)
    filters = (Filter((1,), b"", True), peer7)
    up = SCHEMA.notifications["ipsecGwPeerUp"].oid
    description = SCHEMA.columns["ipsecPeerDescription"].oid
    assert not passes(filters, up, [(*description, 7)])
    assert passes(filters, up, [(*description, 8)])


arcs = st.lists(st.integers(0, 2), min_size=1, max_size=5).map(tuple)


@given(arcs, st.binary(max_size=2), arcs)
def test_a_filter_matches_what_its_definition_says(
    subtree: tuple[int, ...], mask: bytes, name: tuple[int, ...]
) -> None:
    bits = "".join(f"{octet:08b}" for octet in mask).ljust(16, "1")
    by_hand = len(name) >= len(subtree) and all(
        bit == "0" or a == b for a, b, bit in zip(subtree, name, bits, strict=False)
    )
    assert Filter(subtree, mask, True).matches(name) is by_hand


# ---- contents ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.OTHER])
def test_every_kind_has_its_objects_in_order_also_without_rows(kind: Kind) -> None:
    row = ("certTable", 3) if "CERTIFICATE" in kind.name else ("ipsecTrafficTable", 3)
    event = Event(kind, Severity.INFO, "what happened", 0 if kind is Kind.APPLY_FAILED else 3, row=row)
    found = contents(SCHEMA, EmptyTables(), Told(event, 2))
    assert found is not None
    notification = next((each for each in SCHEMA.notifications.values() if each.oid == found.oid), None)
    if notification is None:
        assert found.oid == (COLD_START if kind is Kind.START else AUTHENTICATION_FAILURE)
        return
    assert [name[:-1] for name, _ in found.objects] == [each.oid for each in notification.objects]
    assert [tlv[0] for _, tlv in found.objects] == [each.wire for each in notification.objects]
    for each, (name, _) in zip(notification.objects, found.objects, strict=True):
        column = SCHEMA.columns.get(each.name)
        scalar = column is None or SCHEMA.tables[column.table].scalar
        assert name[-1] == (0 if scalar else 3), each.name
    assert decode_oid_contents(found.varbinds(7)[0][0]) == SYS_UP_TIME


def test_nobody_is_notified_of_other_events() -> None:
    assert contents(SCHEMA, EmptyTables(), Told(Event(Kind.OTHER, Severity.INFO, ""), 0)) is None


@pytest.mark.parametrize(
    ("oid", "enterprise", "generic", "specific"),
    [
        (COLD_START, (1, 3, 6, 1, 6, 3, 1, 1, 5), 0, 0),
        (AUTHENTICATION_FAILURE, (1, 3, 6, 1, 6, 3, 1, 1, 5), 4, 0),
        ((1, 3, 6, 1, 4, 1, 9, 0, 5), (1, 3, 6, 1, 4, 1, 9), 6, 5),
        ((1, 3, 6, 1, 4, 1, 9, 2, 5), (1, 3, 6, 1, 4, 1, 9, 2), 6, 5),
    ],
)
def test_traps_of_v1_are_mapped_as_rfc_3584_says(
    oid: tuple[int, ...], enterprise: tuple[int, ...], generic: int, specific: int
) -> None:
    [(tag, body, _)] = elements(Contents(oid, ()).trap_v1(42, "192.0.2.1"))
    assert tag == 0xA4
    parts = [whole for _, _, whole in elements(body)]
    assert parts == [
        encode_value(Wire.OBJECT_IDENTIFIER, enterprise),
        encode_value(Wire.IP_ADDRESS, bytes((192, 0, 2, 1))),
        encode_value(Wire.INTEGER, generic),
        encode_value(Wire.INTEGER, specific),
        encode_value(Wire.TIMETICKS, 42),
        b"\x30\x00",
    ]
    over_ipv6 = elements(elements(Contents(oid, ()).trap_v1(42, "2001:db8::1"))[0][1])
    assert over_ipv6[1][1] == bytes(4)


def test_text_is_a_display_string() -> None:
    assert display("a\nb\x00c") == b"a b c"
    assert len(display("ü" * 200)) == 254 and display("ü" * 200).decode() == "ü" * 127


# ---- the document -----------------------------------------------------------------------


def test_the_document_lists_every_notification_with_its_objects() -> None:
    lines = re.findall(r"^\| `(\w+)` \| (\S+) \| (.*?) \|", DOCUMENT.read_text(), re.MULTILINE)
    listed = {name: (number, re.findall(r"`(\w+)`", objects)) for name, number, objects in lines}
    for name, notification in SCHEMA.notifications.items():
        number, objects = listed.pop(name)
        assert number == f"…200.0.{notification.oid[-1]}" and notification.oid[:-1] == (*EXTENSION, 0)
        assert objects == [each.name for each in notification.objects]
    assert listed.pop("coldStart") == (".".join(map(str, COLD_START)), [])
    number, objects = listed.pop("authenticationFailure")
    assert number == ".".join(map(str, AUTHENTICATION_FAILURE))
    assert objects == ["ipsecGwNotifyText", "ipsecGwNotifyHeldBack"]
    assert not [name for name in listed if name in SCHEMA.notifications]
