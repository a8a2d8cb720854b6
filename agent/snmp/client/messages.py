"""Messages of a manager around its PDUs: communities, and SNMPv3 with what is known of the agent's engine.

No sockets and no waiting here. Engine ID, boots and time of the agent are learnt from what
it sends, as RFC 3414 sections 3.2 and 4 have it: the engine ID from an unauthenticated
report, boots and time from authenticated messages only.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from agent.mib.ber import BerError, Wire, encode_integer, encode_tlv, read_tlv
from agent.snmp.client.credentials import NONE, Community, UsmUser
from agent.snmp.client.privacy import PrivacyCipher
from agent.snmp.pdu import SEQUENCE, VarBind, Version, encode_varbind
from agent.snmp.usm import AUTHENTICATED, AUTHENTICATION, ENCRYPTED, PRIVACY, REPORTABLE, USM, localized, localized_for

LARGEST_MESSAGE: Final = 65_507  # octets that a UDP datagram over IPv4 can hold
WINDOW: Final = 150  # seconds that a message may be old, RFC 3414 section 3.2 (7)
MOST_BOOTS: Final = (1 << 31) - 1


class Incoming(NamedTuple):
    """A message that came, its PDU in plain at `data[start:end]`. `level`: security bits that it proved."""

    message_id: int
    level: int
    engine_id: bytes
    data: bytes
    start: int
    end: int


def encode_pdu(kind: int, request_id: int, varbinds: Sequence[VarBind], first: int = 0, second: int = 0) -> bytes:
    """A PDU; `first` and `second` are non-repeaters and max-repetitions of GETBULK, else 0."""
    body = b"".join([encode_varbind(name, value) for name, value in varbinds])
    numbers = encode_integer(request_id) + encode_integer(first) + encode_integer(second)
    return encode_tlv(kind, numbers + encode_tlv(SEQUENCE, body))


class CommunityMessages:
    """SNMPv1 and v2c."""

    def __init__(self, community: Community) -> None:
        self._head = encode_integer(community.version) + encode_tlv(Wire.OCTET_STRING, community.name)

    def protect(self, _message_id: int, pdu: bytes) -> bytes:
        return encode_tlv(SEQUENCE, self._head + pdu)

    def open(self, data: bytes) -> Incoming:
        """Raises BerError. Messages have no number: 0."""
        start, end = _inside(data, 0, SEQUENCE)
        if data[start : start + len(self._head)] != self._head:
            raise BerError("another version or community")
        return Incoming(0, 0, b"", data, start + len(self._head), end)


class UserMessages:
    """SNMPv3 as one user towards one engine. `clock` counts seconds."""

    def __init__(self, user: UsmUser, clock: Callable[[], float] = time.monotonic) -> None:
        self.user = user
        self.engine_id = b""
        self.context_engine_id = b""  # whose objects a message is about, where that is not the engine spoken to
        self.boots = 0
        self._latest = 0  # latestReceivedEngineTime, and when that was
        self._at = clock()
        self._clock = clock
        self._auth_key = b""
        self._cipher: PrivacyCipher | None = None
        self._authentication = AUTHENTICATION.get(user.authentication)

    def set_engine(self, engine_id: bytes) -> None:
        """Speak to this engine from now on; its time is unknown."""
        self.engine_id = engine_id
        self.boots = self._latest = 0
        self._at = self._clock()
        self._cipher = None
        if self._authentication is not None:
            hash_name = self._authentication.hash
            self._auth_key = localized(self.user.auth_key, engine_id, hash_name)
            if self.user.privacy != NONE:
                key = localized_for(self.user.priv_key, engine_id, hash_name, PRIVACY[self.user.privacy])
                self._cipher = PrivacyCipher(self.user.privacy, key)

    def engine_time(self) -> int:
        """snmpEngineTime as it should be now; 0 before anything was learnt."""
        return self._latest + int(self._clock() - self._at) if self.boots else 0

    def discovery(self, message_id: int, pdu: bytes) -> bytes:
        """The message that asks who is there (RFC 3414 section 4)."""
        return self._message(message_id, pdu, 0, b"", b"")

    def speak_as(self, engine_id: bytes, boots: int, engine_time: int, auth_key: bytes, priv_key: bytes) -> None:
        """Be the engine that is spoken for, as the sender of a trap is (RFC 3414 section 1.5.1): its identity and
        time are known, and so are its keys of the user, Kul."""
        self.engine_id, self.boots = engine_id, boots
        self._latest, self._at = engine_time, self._clock()
        self._auth_key = auth_key
        self._cipher = PrivacyCipher(self.user.privacy, priv_key) if self.user.privacy != NONE else None

    def protect(self, message_id: int, pdu: bytes, reportable: bool = True) -> bytes:
        """A whole message. Not `reportable`: nobody answers (RFC 3412 section 6.4)."""
        return self._message(message_id, pdu, self.user.level, self.engine_id, self.user.name, reportable)

    def _message(
        self, message_id: int, pdu: bytes, level: int, engine_id: bytes, name: bytes, reportable: bool = True
    ) -> bytes:
        boots, now = (self.boots, self.engine_time()) if engine_id else (0, 0)
        context = self.user.context if engine_id else b""
        about = self.context_engine_id if engine_id and self.context_engine_id else engine_id
        data = encode_tlv(SEQUENCE, encode_tlv(4, about) + encode_tlv(4, context) + pdu)
        salt = b""
        if level & ENCRYPTED:
            assert self._cipher is not None
            data, salt = self._cipher.encrypt(data, boots, now)
            data = encode_tlv(4, data)
        head = encode_integer(message_id) + encode_integer(LARGEST_MESSAGE)
        head += encode_tlv(4, bytes((level | REPORTABLE if reportable else level,))) + encode_integer(USM)
        head = encode_integer(Version.V3) + encode_tlv(SEQUENCE, head)
        digest = self._authentication.digest if level & AUTHENTICATED and self._authentication else 0
        before = encode_tlv(4, engine_id) + encode_integer(boots) + encode_integer(now) + encode_tlv(4, name)
        after = encode_tlv(4, salt)
        parameters = before + b"\x04" + bytes((digest,)) + bytes(digest) + after
        security = encode_tlv(SEQUENCE, parameters)
        contents = head + encode_tlv(4, security) + data
        if not digest:
            return encode_tlv(SEQUENCE, contents)
        message = encode_tlv(SEQUENCE, contents)
        at = len(message) - len(data) - len(after) - digest
        return message[:at] + self._digest(message) + message[at + digest :]

    def _digest(self, blank: bytes) -> bytes:
        assert self._authentication is not None
        return hmac.digest(self._auth_key, blank, self._authentication.hash)[: self._authentication.digest]

    def open(self, data: bytes) -> Incoming:
        """Take a message apart; where it proves who sent it, boots and time are learnt from it. Raises BerError for
        everything that is not from this engine to this user, for a wrong digest, and for one out of time."""
        at, end = _inside(data, 0, SEQUENCE)
        version, at = _integer(data, at)
        start, after_head = _inside(data, at, SEQUENCE)
        message_id, start = _integer(data, start)
        _, start = _integer(data, start)
        flags, start = _octets(data, start)
        model, start = _integer(data, start)
        if version != Version.V3 or len(flags) != 1 or model != USM:
            raise BerError("another version or security model")
        at, after_parameters = _inside(data, after_head, Wire.OCTET_STRING)
        at, _ = _inside(data, at, SEQUENCE)
        engine_id, at = _octets(data, at)
        boots, at = _integer(data, at)
        engine_time, at = _integer(data, at)
        name, at = _octets(data, at)
        digest, after_digest = _octets(data, at)
        salt, _ = _octets(data, after_digest)
        if min(boots, engine_time) < 0 or max(boots, engine_time) > MOST_BOOTS:
            raise BerError("boots or time out of range")
        level = flags[0] & (AUTHENTICATED | ENCRYPTED)
        if level & AUTHENTICATED:
            self._check(data, engine_id, name, digest, after_digest)
            self._learn(boots, engine_time)
        if level & ENCRYPTED:
            if self._cipher is None or not level & AUTHENTICATED:
                raise BerError("encrypted for somebody else")
            scoped, _ = _octets(data, after_parameters)
            data = self._cipher.decrypt(scoped, salt, boots, engine_time)
            after_parameters = 0
        at, end = _inside(data, after_parameters, SEQUENCE)
        _, at = _octets(data, at)
        _, at = _octets(data, at)
        return Incoming(message_id, level, engine_id, data, at, end)

    def _check(self, data: bytes, engine_id: bytes, name: bytes, digest: bytes, end: int) -> None:
        authentication = self._authentication
        if authentication is None or engine_id != self.engine_id or name != self.user.name:
            raise BerError("from another engine or for another user")
        blank = data[: end - len(digest)] + bytes(len(digest)) + data[end:]
        if len(digest) != authentication.digest or not hmac.compare_digest(self._digest(blank), digest):
            raise BerError("wrong digest")

    def _learn(self, boots: int, engine_time: int) -> None:
        """RFC 3414 section 3.2 (7) b."""
        if boots > self.boots or (boots == self.boots and engine_time > self._latest):
            self.boots, self._latest, self._at = boots, engine_time, self._clock()
        if boots < self.boots or boots == MOST_BOOTS or engine_time < self.engine_time() - WINDOW:
            raise BerError("out of time")


Messages = CommunityMessages | UserMessages


def _inside(data: bytes, at: int, tag: int) -> tuple[int, int]:
    """Start and end of the contents of the element at `at`. Raises BerError."""
    found, start, end = read_tlv(data, at)
    if found != tag:
        raise BerError(f"tag 0x{tag:02x} expected")
    return start, end


def _integer(data: bytes, at: int) -> tuple[int, int]:
    start, end = _inside(data, at, Wire.INTEGER)
    return int.from_bytes(data[start:end], "big", signed=True), end


def _octets(data: bytes, at: int) -> tuple[bytes, int]:
    start, end = _inside(data, at, Wire.OCTET_STRING)
    return data[start:end], end
