"""Messages of SNMPv1 and SNMPv2c: a version, a community and a PDU in a row (RFC 1901 section 3, RFC 1157 section 4).

Only definite lengths and primitive strings, as RFC 3417 section 8 wants; everything else
is BerError, on which the caller drops the message.
"""

from __future__ import annotations

from typing import NamedTuple

from agent.mib.ber import BerError, Wire, encode_length, encode_tlv, read_tlv
from agent.snmp.pdu import SEQUENCE, Answer, Version, response_contents


class Envelope(NamedTuple):
    """A message opened as far as its version. `at`: where its version ends; `end`: where the message ends."""

    version: int
    at: int
    end: int


class Community(NamedTuple):
    """The rest of a v1 or v2c message: the community, and where the PDU begins."""

    name: bytes
    pdu: int


def open_envelope(data: bytes) -> Envelope:
    """Version of any SNMP message. Raises BerError, also for octets behind the message."""
    tag, at, end = read_tlv(data)
    if tag != SEQUENCE or end != len(data):
        raise BerError("one message expected")
    tag, start, at = read_tlv(data, at)
    if tag != Wire.INTEGER or at - start != 1 or at > end:
        raise BerError("version of one octet expected")
    return Envelope(data[start], at, end)


def read_community(data: bytes, envelope: Envelope) -> Community:
    """Raises BerError."""
    tag, start, end = read_tlv(data, envelope.at)
    if tag != Wire.OCTET_STRING or end >= envelope.end:
        raise BerError("community expected")
    return Community(data[start:end], end)


def encode_message(version: int, community: bytes, request_id: bytes, answer: Answer) -> bytes:
    """The message that carries an answer back."""
    contents = response_contents(request_id, answer)
    message = (
        (b"\x02\x01\x00\x04" if version == Version.V1 else b"\x02\x01\x01\x04")
        + encode_length(len(community))
        + community
        + b"\xa2"
        + encode_length(len(contents))
        + contents
    )
    return encode_tlv(SEQUENCE, message)


def message_overhead(community: bytes) -> int:
    """Octets that a message adds to its PDU at most: tags, lengths, version, community."""
    return 5 + 3 + 5 + len(community)
