"""PDUs between wire and answer: what is asked, what is answered, and nothing of the message around it.

Both ways in, our codec and pysnmp, meet here: a request is taken apart by `decode_pdu`
whatever message it came in, and an answer is the encoded variable bindings plus status and
index. Names are kept as contents octets and values as TLVs, so that a GET never decodes an
object identifier and an answer never encodes a value. Source: RFC 3416 section 3.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

from agent.mib.ber import BerError, Wire, encode_integer, encode_length, read_tlv

SEQUENCE: Final = 0x30
NULL: Final = b"\x05\x00"
NO_SUCH_OBJECT: Final = b"\x80\x00"
NO_SUCH_INSTANCE: Final = b"\x81\x00"
END_OF_MIB_VIEW: Final = b"\x82\x00"

LENGTHS: Final = tuple(encode_length(length) for length in range(1024))
"""Length octets of everything but whole messages."""


class PduType(enum.IntEnum):
    """Tag of a PDU (RFC 3416 section 3, RFC 1157 section 4.1.6); the last three are only sent."""

    GET = 0xA0
    GETNEXT = 0xA1
    RESPONSE = 0xA2
    SET = 0xA3
    GETBULK = 0xA5
    TRAP_V1 = 0xA4
    INFORM = 0xA6
    TRAP = 0xA7


class Version(enum.IntEnum):
    """`version` of a message."""

    V1 = 0
    V2C = 1
    V3 = 3


VarBind = tuple[bytes, bytes]
"""Contents octets of the name, TLV of the value."""


class Request(NamedTuple):
    """A decoded PDU.

    `request_id` is its TLV. `first` and `second` are non-repeaters and max-repetitions of GETBULK, else the unused
    error fields. `body` is the contents of the variable-binding list as it came; `varbinds` its parts, empty where
    there are more than allowed, and then `crowded` is set.
    """

    kind: int
    request_id: bytes
    first: int
    second: int
    varbinds: list[VarBind]
    body: bytes
    crowded: bool = False


class Answer(NamedTuple):
    """What a response says: error-status, error-index (from 1, 0 = none) and the contents of its variable-binding
    list."""

    status: int
    error_index: int
    body: bytes


def decode_pdu(data: bytes, at: int, end: int, limit: int) -> Request:
    """The PDU at `at`, which has to end at `end`; up to `limit` variable bindings are taken apart. Raises BerError."""
    kind, at, stop = read_tlv(data, at)
    if stop != end:
        raise BerError("octets behind the PDU")
    tag, start, after = read_tlv(data, at)
    if tag != Wire.INTEGER or not 0 < after - start <= 5:
        raise BerError("request-id expected")
    request_id = data[at:after]
    first, at = _small_integer(data, after)
    second, at = _small_integer(data, at)
    tag, at, stop = read_tlv(data, at)
    if tag != SEQUENCE or stop != end:
        raise BerError("list of variable bindings expected")
    body = data[at:end]
    varbinds: list[VarBind] = []
    while at < end:
        if len(varbinds) == limit:
            return Request(kind, request_id, first, second, [], body, True)
        name, value, at = _varbind(data, at, end)
        varbinds.append((data[name:value], data[value:at]))
    return Request(kind, request_id, first, second, varbinds, body)


def _varbind(data: bytes, at: int, end: int) -> tuple[int, int, int]:
    """Where the contents of the name, the value and what follows begin. Raises BerError."""
    if at + 6 <= end and data[at] == SEQUENCE and data[at + 2] == Wire.OBJECT_IDENTIFIER:  # what nearly all look like
        name, stop = at + 4, at + 2 + data[at + 1]
        value = name + data[at + 3]
        if name < value < stop - 1 and stop <= end and value + 2 + data[value + 1] == stop and stop - at < 0x80:
            return name, value, stop
    tag, start, stop = read_tlv(data, at)
    name_tag, name, value = read_tlv(data, start)
    _, _, value_end = read_tlv(data, value)
    if tag != SEQUENCE or name_tag != Wire.OBJECT_IDENTIFIER or not name < value < stop == value_end <= end:
        raise BerError("variable binding expected")
    return name, value, stop


def _small_integer(data: bytes, at: int) -> tuple[int, int]:
    if data[at : at + 2] == b"\x02\x01" and at + 2 < len(data) and data[at + 2] < 0x80:
        return data[at + 2], at + 3
    tag, start, end = read_tlv(data, at)
    if tag != Wire.INTEGER or not 0 < end - start <= 5:
        raise BerError("integer of up to five octets expected")
    return int.from_bytes(data[start:end], "big", signed=True), end


def encode_varbind(name: bytes, value: bytes) -> bytes:
    """A variable binding from contents octets and TLV."""
    size = len(name)
    binding = b"\x06" + (LENGTHS[size] if size < 1024 else encode_length(size)) + name + value
    size = len(binding)
    return b"\x30" + (LENGTHS[size] if size < 1024 else encode_length(size)) + binding


def response_contents(request_id: bytes, answer: Answer) -> bytes:
    """Contents of a Response PDU; `request_id` is the TLV of the request's."""
    status, index, body = answer
    head = request_id + encode_integer(status) + encode_integer(index) if status else request_id + _NO_ERROR
    return head + b"\x30" + encode_length(len(body)) + body


def response_size(request_id: bytes, body: int) -> int:
    """Upper bound of the octets of a Response PDU whose list has `body` octets."""
    return body + len(request_id) + _RESPONSE_OVERHEAD


_NO_ERROR = encode_integer(0) * 2
_RESPONSE_OVERHEAD = 5 + 3 + 4 + 5  # tag and length of the PDU, status, index, tag and length of the list
