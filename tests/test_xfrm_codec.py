"""The XFRM codec: every declared structure there and back, and octets that iproute2 and the kernel really exchanged."""

from __future__ import annotations

import string
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.backends.engine import KernelEventKind
from agent.backends.xfrm import messages
from agent.backends.xfrm.netlink import split
from agent.backends.xfrm.structures import REGISTRY, SELECTOR, Kind, Structure
from agent.plan.model import (
    EVERY_PACKET,
    Action,
    Direction,
    Policy,
    PolicyKey,
    Ports,
    Prefix,
    RowRef,
    Scope,
    Selector,
    Template,
)

# sizeof() of the C structures on x86-64 and arm64
SIZES = {
    "xfrm_selector": 56,
    "xfrm_id": 24,
    "xfrm_lifetime_cfg": 64,
    "xfrm_lifetime_cur": 32,
    "xfrm_stats": 12,
    "xfrm_user_tmpl": 64,
    "xfrm_mark": 8,
    "XFRMA_IF_ID": 4,
    "xfrm_userpolicy_type": 6,
    "xfrm_userpolicy_info": 168,
    "xfrm_userpolicy_id": 64,
    "xfrm_usersa_info": 224,
    "xfrm_usersa_id": 24,
    "xfrm_usersa_flush": 1,
    "xfrm_user_acquire": 280,
    "xfrm_user_expire": 232,
    "xfrm_user_polexpire": 176,
    "nlmsghdr": 16,
    "nlattr": 4,
    "nlmsgerr": 20,
}


def kind_values(kind: Kind) -> st.SearchStrategy[Any]:
    if kind.code in string.ascii_letters and kind.code != "s":
        low = -(1 << (kind.size * 8 - 1)) if kind.code.islower() else 0
        return st.integers(low, low + (1 << (kind.size * 8)) - 1)
    return st.binary(min_size=kind.size, max_size=kind.size)


def structure_values(structure: Structure) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            name: structure_values(field) if isinstance(field, Structure) else kind_values(field)
            for name, field in structure.fields.items()
        }
    )


def test_every_structure_has_the_size_the_kernel_expects() -> None:
    assert {structure.name: structure.size for structure in REGISTRY} == SIZES


@pytest.mark.parametrize("structure", REGISTRY, ids=lambda structure: structure.name)
@given(data=st.data())
def test_a_structure_goes_there_and_back(structure: Structure, data: st.DataObject) -> None:
    values = data.draw(structure_values(structure))
    before = data.draw(st.binary(max_size=9))
    octets = structure.encode(values)
    assert len(octets) == structure.size
    assert structure.decode(before + octets, len(before)) == values


@pytest.mark.parametrize("structure", REGISTRY, ids=lambda structure: structure.name)
@given(data=st.data())
def test_picking_and_packing_single_fields_agree_with_the_whole(structure: Structure, data: st.DataObject) -> None:
    names = data.draw(st.permutations([place.name for place in structure.places]))
    names = names[: data.draw(st.integers(1, len(names)))]
    octets = structure.encode(data.draw(structure_values(structure)))
    whole = structure.decode(octets)
    picked = list(structure.picker(*names)(octets, 0))
    for name, value in zip(names, picked, strict=True):
        inner: Any = whole
        for label in name.split("."):
            inner = inner[label]
        assert inner == value
    assert list(structure.picker(*names)(structure.packer(*names)(*picked), 0)) == picked


def test_missing_fields_are_zero_and_unknown_ones_refused() -> None:
    assert SELECTOR.encode({}) == bytes(56)
    assert SELECTOR.encode({"dport": 53})[32:34] == b"\x00\x35"  # network byte order
    with pytest.raises(KeyError):
        SELECTOR.encode({"port": 53})
    with pytest.raises(struct.error):
        SELECTOR.decode(bytes(55))


# What the kernel announced (xfrm policy monitor socket) after `ip xfrm policy add src 10.1.0.0/16 dst 10.2.3.0/24
# proto udp sport 5000 dport 53 dir out priority 1000 tmpl src 192.0.2.1 dst 192.0.2.2 proto esp reqid 77 mode tunnel`
ADDED = bytes.fromhex(
    "08010000 1300 0000 00f9046b 00000000"  # length 264, NEWPOLICY, no flags, iproute2's sequence, port 0
    "0a020300 000000000000000000000000"  # destination 10.2.3.0
    "0a010000 000000000000000000000000"  # source 10.1.0.0
    "0035 ffff 1388 ffff"  # ports 53 and 5000 with masks
    "0200 18 10 11 000000 00000000 00000000"  # AF_INET, /24, /16, UDP, no interface, no user
    "ffffffffffffffff ffffffffffffffff ffffffffffffffff ffffffffffffffff"  # no limits in octets and packets
    "0000000000000000 0000000000000000 0000000000000000 0000000000000000"
    "0000000000000000 0000000000000000 fff8046b00000000 0000000000000000"  # counters, made at, used at
    "e8030000 01000000 01 00 00 00 00000000"  # priority 1000, index 1, out, allow
    "4400 0500"  # XFRMA_TMPL
    "c0000202 000000000000000000000000 00000000 32 000000 0200 0000"  # 192.0.2.2, SPI 0, ESP, AF_INET
    "c0000201 000000000000000000000000 4d000000 01 00 00 00"  # 192.0.2.1, reqid 77, tunnel, any share, required
    "ffffffff ffffffff ffffffff"
    "0a00 1000 000000000000 0000"  # XFRMA_POLICY_TYPE main
)
# after `… policy add src 2001:db8::/32 dst ::/0 dir in action block priority 5 mark 3 mask 0xff`
MARKED = bytes.fromhex(
    "d00000001300000000f9046b000000000000000000000000000000000000000020010db8000000000000000000000000"
    "00000000000000000a000020000000000000000000000000ffffffffffffffffffffffffffffffffffffffffffffffff"
    "ffffffffffffffff00000000000000000000000000000000000000000000000000000000000000000000000000000000"
    "0000000000000000fff8046b000000000000000000000000050000000800000000010000000000000a00100000000000"
    "000000000c00150003000000ff000000"
)
# after `… policy delete …` of the first one, which had been updated to `priority 900 action block`
DELETED = bytes.fromhex(
    "080100001400000097f9046b000000000a0203000000000000000000000000000a010000000000000000000000000000"
    "0035ffff1388ffff020018101100000000000000000000000000000001000000ac0007000a0203000000000000000000"
    "000000000a0100000000000000000000000000000035ffff1388ffff02001810110000000000000000000000ffffffff"
    "ffffffffffffffffffffffffffffffffffffffffffffffffffffffff0000000000000000000000000000000000000000"
    "0000000000000000000000000000000000000000000000000000000096f9046b00000000000000000000000084030000"
    "0100000001010000000000000a0010000000000000000000"
)
FLUSHED = bytes.fromhex("1c0000001d00000000f9046b000000000a0010000000000000000000")

KEY = PolicyKey(
    Direction.OUT,
    Selector(
        Prefix(bytes([10, 1, 0, 0]), 16),
        Prefix(bytes([10, 2, 3, 0]), 24),
        17,
        Ports(5000, 0xFFFF),
        Ports(53, 0xFFFF),
    ),
)
TEMPLATE = Template(bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2]), 50, 1, 77)


def news(datagram: bytes) -> messages.PolicyNews:
    (message,) = split(datagram)
    found = messages.read_policy_news(message.type, message.data, message.start, message.end)
    assert found is not None
    return found


def test_a_policy_that_iproute2_added_is_read() -> None:
    assert news(ADDED) == (messages.PolicyRecord(KEY, 1, 1000, Action.ALLOW, (TEMPLATE,)), False)


def test_our_octets_for_that_policy_are_those_of_iproute2() -> None:
    policy = Policy(KEY, 1000, Action.ALLOW, (TEMPLATE,), RowRef("ipsecTrafficTable", 1), 1, "")
    octets = bytearray(ADDED[16:252])
    octets[136:144] = bytes(8)  # when it was made is the kernel's to say
    assert messages.encode_policy(policy, 1) == octets


def test_a_marked_policy_is_never_taken_for_one_without() -> None:
    record = news(MARKED).record
    assert record is not None and record.key is not None and record.action is Action.BLOCK and record.priority == 5
    assert record.key.scope.mask and record.key.scope != EVERY_PACKET


def test_a_deleted_policy_is_read_from_the_attribute() -> None:
    assert news(DELETED) == (messages.PolicyRecord(KEY, 1, 900, Action.BLOCK, ()), True)
    assert news(FLUSHED) == (None, True)


addresses = st.sampled_from([4, 16]).flatmap(lambda size: st.tuples(*[st.binary(min_size=size, max_size=size)] * 4))
ports = st.builds(Ports, st.integers(0, 65535), st.integers(1, 65535)) | st.just(Ports(0, 0))


scopes = st.just(EVERY_PACKET) | st.builds(
    lambda interface, mark, mask, if_id: Scope(interface, mark if mask else 0, mask, if_id),
    st.integers(0, (1 << 31) - 1),
    *[st.integers(0, (1 << 32) - 1)] * 3,
)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    source, destination, here, there = draw(addresses)
    bits = len(source) * 8
    selector = Selector(
        Prefix(source, draw(st.integers(0, bits))),
        Prefix(destination, draw(st.integers(0, bits))),
        draw(st.integers(0, 255)),
        draw(ports),
        draw(ports),
    )
    templates = st.builds(
        Template,
        st.just(here),
        st.just(there),
        st.sampled_from([50, 51, 108]),
        st.integers(0, 1),
        st.integers(0, (1 << 32) - 1),
        st.booleans(),
    )
    return Policy(
        PolicyKey(draw(st.sampled_from(Direction)), selector, draw(scopes)),
        draw(st.integers(0, (1 << 32) - 1)),
        draw(st.sampled_from(Action)),
        tuple(draw(st.lists(templates, max_size=6))),
        RowRef("ipsecTrafficTable", 1),
        0,
        "",
    )


@given(policies(), st.integers(0, (1 << 32) - 1))
def test_a_policy_goes_there_and_back(policy: Policy, index: int) -> None:
    body = messages.encode_policy(policy, index)
    assert messages.read_policy(body, 0, len(body)) == (
        policy.key,
        index,
        policy.priority,
        policy.action,
        policy.templates,
    )


@given(st.integers(0, 0x1F), st.binary(max_size=400))
def test_garbage_is_read_or_raises_the_one_error(type: int, octets: bytes) -> None:
    try:
        messages.read_policy_news(type, octets, 0, len(octets))
        messages.read_event(type, octets, 0, len(octets))
    except (struct.error, IndexError):
        pass


@given(st.binary(max_size=200))
def test_a_datagram_of_garbage_ends(octets: bytes) -> None:
    for message in split(octets):
        assert message.end <= len(octets)


def test_a_hard_expiry_carries_the_final_counters() -> None:
    from agent.backends.xfrm.structures import EXPIRE, SA, SA_ID

    sa = {
        "id": {"daddr": bytes([192, 0, 2, 2]) + bytes(12), "spi": b"\xc0\x00\x00\x01", "proto": 50},
        "saddr": bytes([192, 0, 2, 1]) + bytes(12),
        "curlft": {"bytes": 1 << 33, "packets": 70, "add_time": 5, "use_time": 6},
        "reqid": 65536,
        "family": 2,
        "mode": 1,
    }
    body = EXPIRE.encode({"state": sa, "hard": 1})
    event = messages.read_event(messages.MSG_EXPIRE, body, 0, len(body))
    assert event is not None and event.kind is KernelEventKind.SA_HARD and event.sa is not None
    assert event.sa.counters == (1 << 33, 70, 5, 6)
    assert event.sa.spi == b"\xc0\x00\x00\x01" and event.sa.source == bytes([192, 0, 2, 1])

    removed = SA_ID.encode({"spi": b"\xc0\x00\x00\x01"}) + messages.encode_attribute(messages.ATTR_SA, SA.encode(sa))
    deleted = messages.read_event(messages.MSG_DELSA, removed, 0, len(removed))
    assert deleted is not None and deleted.kind is KernelEventKind.SA_DELETED and deleted.sa == event.sa
