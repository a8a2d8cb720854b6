"""BER of the few types SNMP uses, in both directions.

Cells of the snapshot are kept as encoded TLVs and object identifiers as encoded
contents, so everything that touches a value on its way to the wire goes through here.
Sources: X.690 (definite lengths only), RFC 2578 section 7.1, RFC 3417 section 8.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from functools import lru_cache

Value = int | bytes | tuple[int, ...]
"""INTEGER kinds are `int`, OCTET STRING and IpAddress `bytes`, OBJECT IDENTIFIER a tuple."""


class Wire(enum.IntEnum):
    """Tag of a value on the wire (RFC 2578 section 7.1)."""

    INTEGER = 0x02
    OCTET_STRING = 0x04
    OBJECT_IDENTIFIER = 0x06
    IP_ADDRESS = 0x40
    COUNTER32 = 0x41
    GAUGE32 = 0x42  # Unsigned32 too
    TIMETICKS = 0x43
    COUNTER64 = 0x46


NUMERIC = frozenset({Wire.INTEGER, Wire.COUNTER32, Wire.GAUGE32, Wire.TIMETICKS, Wire.COUNTER64})
LIMITS: dict[Wire, tuple[int, int]] = {
    Wire.INTEGER: (-(1 << 31), (1 << 31) - 1),
    Wire.COUNTER32: (0, (1 << 32) - 1),
    Wire.GAUGE32: (0, (1 << 32) - 1),
    Wire.TIMETICKS: (0, (1 << 32) - 1),
    Wire.COUNTER64: (0, (1 << 64) - 1),
}


class BerError(ValueError):
    """The octets are not the BER that SNMP allows."""


def encode_length(length: int) -> bytes:
    """Length octets of X.690 8.1.3, shortest definite form."""
    if length < 0x80:
        return bytes((length,))
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((0x80 | len(octets),)) + octets


def encode_tlv(tag: int, contents: bytes) -> bytes:
    return bytes((tag,)) + encode_length(len(contents)) + contents


def encode_integer(value: int, tag: int = Wire.INTEGER) -> bytes:
    """Two's complement in the fewest octets, whatever the tag: unsigned kinds get their leading zero."""
    contents = value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)
    return bytes((tag, len(contents))) + contents


@lru_cache(maxsize=65536)
def encode_subid(arc: int) -> bytes:
    """One sub-identifier, base 128 with continuation bits."""
    octets = [arc & 0x7F]
    arc >>= 7
    while arc:
        octets.append(arc & 0x7F | 0x80)
        arc >>= 7
    return bytes(reversed(octets))


def encode_oid_contents(oid: Sequence[int]) -> bytes:
    """Contents octets of an OBJECT IDENTIFIER. Raises BerError where the first two arcs cannot be encoded."""
    if len(oid) < 2 or oid[0] > 2 or (oid[0] < 2 and oid[1] > 39):
        raise BerError(f"not an encodable object identifier: {tuple(oid)}")
    return encode_subid(oid[0] * 40 + oid[1]) + b"".join(map(encode_subid, oid[2:]))


def decode_oid_contents(contents: bytes) -> tuple[int, ...]:
    """Inverse of encode_oid_contents. Raises BerError for truncated or over-long arcs and for more than 128 of them."""
    if not contents or contents[-1] & 0x80:
        raise BerError("object identifier is empty or ends within an arc")
    arcs: list[int] = []
    arc = 0
    start = True
    for octet in contents:
        if start and octet == 0x80:
            raise BerError("object identifier arc with a leading zero")
        arc = arc << 7 | octet & 0x7F
        if arc > 0xFFFFFFFF:
            raise BerError("object identifier arc above 2^32-1")
        start = octet < 0x80
        if start:
            arcs.append(arc)
            arc = 0
    first = min(arcs[0] // 40, 2)
    oid = (first, arcs[0] - 40 * first, *arcs[1:])
    if len(oid) > 128:
        raise BerError("object identifier with more than 128 arcs")
    return oid


def encode_value(wire: Wire, value: Value) -> bytes:
    """The TLV of a value. The caller has checked type and range."""
    if isinstance(value, int):
        return encode_integer(value, wire)
    if isinstance(value, tuple):
        return encode_tlv(wire, encode_oid_contents(value))
    return encode_tlv(wire, value)


def read_tlv(data: bytes, offset: int = 0) -> tuple[int, int, int]:
    """(tag, start of contents, end) of the TLV at `offset`. Raises BerError when it does not fit in `data`."""
    try:
        tag, length = data[offset], data[offset + 1]
    except IndexError:
        raise BerError("truncated tag or length") from None
    start = offset + 2
    if length >= 0x80:
        count = length & 0x7F
        if not 1 <= count <= 4 or start + count > len(data):
            raise BerError("indefinite, over-long or truncated length")
        length = int.from_bytes(data[start : start + count], "big")
        start += count
    end = start + length
    if end > len(data):
        raise BerError("contents longer than the data")
    return tag, start, end


def decode_value(tlv: bytes) -> Value:
    """Value of one complete TLV with a tag of `Wire`. Raises BerError."""
    tag, start, end = read_tlv(tlv)
    if end != len(tlv):
        raise BerError("octets behind the value")
    return decode_contents(tag, tlv[start:end])


def decode_contents(tag: int, contents: bytes) -> Value:
    """Value from tag and contents; unsigned kinds sent without their leading zero are read as unsigned."""
    if tag == Wire.OCTET_STRING:
        return contents
    if tag in NUMERIC:
        if not contents or len(contents) > 9:
            raise BerError("integer of no or more than nine octets")
        return int.from_bytes(contents, "big", signed=tag == Wire.INTEGER or contents[0] < 0x80)
    if tag == Wire.OBJECT_IDENTIFIER:
        return decode_oid_contents(contents)
    if tag == Wire.IP_ADDRESS:
        if len(contents) != 4:
            raise BerError("IpAddress that is not four octets")
        return contents
    raise BerError(f"unexpected tag 0x{tag:02x}")
