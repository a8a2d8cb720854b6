"""The parts of pysnmp that we replace, each for a reason.

Digests are compared in constant time; an unknown engine ID is reported whatever else the
message holds (RFC 3414 section 3.2 (3)), before pysnmp makes a timeline entry for it; a
report never carries a digest for a message that carried none; state kept for a message
that failed is let go; engine time runs by a clock that nobody sets; nothing is written to
the folder for temporary files; and there is no socket. Imported when SNMPv3 is first
needed, not before.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Any, Protocol

from pyasn1.codec.ber import decoder
from pyasn1.error import PyAsn1Error
from pyasn1.type import univ
from pysnmp.carrier.base import AbstractTransportDispatcher
from pysnmp.entity import config
from pysnmp.entity.engine import SnmpEngine
from pysnmp.proto import errind, error, rfc1902, rfc1905
from pysnmp.proto.secmod.rfc3414 import SnmpUSMSecurityModel
from pysnmp.proto.secmod.rfc3414.auth import base
from pysnmp.proto.secmod.rfc3414.service import UsmSecurityParameters

from agent.snmp.counters import COUNTER32, Counters
from agent.snmp.uptime import Uptime
from agent.snmp.usm import AUTHENTICATION, Authentication, User

LARGEST_MESSAGE = 65_507  # octets that a UDP datagram over IPv4 can hold
HEADER_OCTETS = 48  # pysnmp's own allowance for what is around the security parameters


class ConstantTime(base.AbstractAuthenticationService):  # type: ignore[misc]
    """HMAC of one hash; key handling is that of the service it stands for."""

    def __init__(self, authentication: Authentication, original: base.AbstractAuthenticationService) -> None:
        self._hash = authentication.hash
        self._octets = authentication.digest
        self._original = original

    def hash_passphrase(self, passphrase: Any) -> Any:
        return self._original.hash_passphrase(passphrase)

    def localize_key(self, key: Any, engine_id: Any) -> Any:
        return self._original.localize_key(key, engine_id)

    @property
    def digest_length(self) -> int:
        return self._octets

    def _digest(self, key: Any, message: bytes) -> bytes:
        return hmac.digest(key.asOctets(), message, self._hash)[: self._octets]

    def authenticate_outgoing_message(self, key: Any, message: bytes) -> bytes:
        at = message.find(bytes(self._octets))
        if at < 0:
            raise error.ProtocolError("no room for the digest")
        return message[:at] + self._digest(key, message) + message[at + self._octets :]

    def authenticate_incoming_message(self, key: Any, parameters: Any, message: bytes) -> bytes:
        given = parameters.asOctets()
        at = message.find(given)
        if len(given) != self._octets or at < 0:
            raise error.StatusInformation(errorIndication=errind.authenticationFailure)
        blank = message[:at] + bytes(self._octets) + message[at + self._octets :]
        if not hmac.compare_digest(self._digest(key, blank), given):
            raise error.StatusInformation(errorIndication=errind.authenticationFailure)
        return blank


class States:
    """What is kept between a message and its answer. `forget_after` lets go of what a failed message left."""

    def __init__(self) -> None:
        self._entries: dict[int, dict[str, Any]] = {}
        self.latest = 0

    def push(self, **entry: Any) -> int:
        self.latest += 1
        self._entries[self.latest] = entry
        return self.latest

    def pop(self, reference: int) -> dict[str, Any]:
        try:
            return self._entries.pop(reference)
        except KeyError:
            raise error.ProtocolError(f"no state {reference}") from None

    def forget_after(self, mark: int) -> None:
        for reference in range(mark + 1, self.latest + 1):
            self._entries.pop(reference, None)

    def is_empty(self) -> bool:
        return not self._entries

    def __len__(self) -> int:
        return len(self._entries)


class Usm(SnmpUSMSecurityModel):  # type: ignore[misc]
    """pysnmp's security model with the corrections named above."""

    AUTH_SERVICES = {  # noqa: RUF012 -- pysnmp's name and kind
        **SnmpUSMSecurityModel.AUTH_SERVICES,
        **{a.oid: ConstantTime(a, SnmpUSMSecurityModel.AUTH_SERVICES[a.oid]) for a in AUTHENTICATION.values()},
    }

    def __init__(self) -> None:
        super().__init__()
        self._cache = States()
        self.elsewhere = False  # the message at hand: its user is not to come from there

    def process_incoming_message(
        self,
        engine: SnmpEngine,
        processing_model: Any,
        max_size: Any,
        parameters: Any,
        security_model: Any,
        level: int,
        message: bytes,
        parsed: Any,
    ) -> Any:
        mark = self._cache.latest
        try:
            self._check_engine(engine, max_size, parameters, parsed)
            if self.elsewhere:
                self._refuse_user(engine, max_size, parameters)
            try:
                return super().process_incoming_message(
                    engine, processing_model, max_size, parameters, security_model, level, message, parsed
                )
            finally:
                # The timeline holds our own engine only, and what would expire it one object a message for 300 s.
                self._SnmpUSMSecurityModel__timelineExpQueue.clear()
        except error.StatusInformation as status:
            if "oid" not in status:
                self._cache.forget_after(mark)
            elif status["errorIndication"] == errind.unsupportedSecurityLevel:
                names = ("oid", "val", "securityStateReference", "contextEngineId", "contextName", "msgUserName")
                kept = {name: status[name] for name in (*names, "maxSizeResponseScopedPDU", "errorIndication")}
                raise error.StatusInformation(securityLevel=1, **kept) from None
            raise
        except Exception:
            self._cache.forget_after(mark)
            raise

    def _check_engine(self, engine: SnmpEngine, max_size: Any, octets: Any, parsed: Any) -> None:
        """Raises StatusInformation with the report of usmStatsUnknownEngineIDs."""
        try:
            parameters, _ = decoder.decode(octets, asn1Spec=UsmSecurityParameters())
        except PyAsn1Error:
            raise error.StatusInformation(errorIndication=errind.parseError) from None
        if parameters[0] == engine.snmpEngineID:
            return
        (counter,) = engine.get_mib_builder().import_symbols("__SNMP-USER-BASED-SM-MIB", "usmStatsUnknownEngineIDs")
        counter.syntax += 1
        report: dict[str, Any] = {
            "errorIndication": errind.unknownEngineID,
            "oid": counter.name,
            "val": counter.syntax,
            "securityStateReference": self._cache.push(msgUserName=parameters[3]),
            "securityLevel": 1,
            "contextEngineId": engine.snmpEngineID,
            "contextName": b"",
            "maxSizeResponseScopedPDU": int(max_size) - len(octets) - HEADER_OCTETS,
        }
        data = parsed[3]
        if data.getName() == "plaintext":
            report["scopedPDU"] = data.getComponent()
        raise error.StatusInformation(**report)

    def _refuse_user(self, engine: SnmpEngine, max_size: Any, octets: Any) -> None:
        """Raises StatusInformation with the report of usmStatsUnknownUserNames (RFC 3414 section 3.2 (4))."""
        parameters, _ = decoder.decode(octets, asn1Spec=UsmSecurityParameters())
        (counter,) = engine.get_mib_builder().import_symbols("__SNMP-USER-BASED-SM-MIB", "usmStatsUnknownUserNames")
        counter.syntax += 1
        raise error.StatusInformation(
            errorIndication=errind.unknownSecurityName,
            oid=counter.name,
            val=counter.syntax,
            securityStateReference=self._cache.push(msgUserName=parameters[3]),
            securityLevel=1,
            contextEngineId=engine.snmpEngineID,
            contextName=b"",
            msgUserName=parameters[3],
            maxSizeResponseScopedPDU=int(max_size) - len(octets) - HEADER_OCTETS,
        )


class EngineTime:
    """snmpEngineTime."""

    def __init__(self, uptime: Uptime) -> None:
        self._uptime = uptime

    def clone(self, *_: Any) -> Any:
        return univ.Integer(self._uptime.seconds)


class Counted(rfc1902.Counter32):  # type: ignore[misc]
    """A counter of pysnmp's that is one of ours: what pysnmp counts and reports is what managers read."""

    def __init__(self, counters: Counters, name: str) -> None:
        super().__init__(getattr(counters, name) % COUNTER32)
        self._counters = counters
        self._name = name

    def __iadd__(self, amount: int) -> Counted:
        setattr(self._counters, self._name, getattr(self._counters, self._name) + amount)
        return Counted(self._counters, self._name)

    def clone(self, value: Any = None, **more: Any) -> Any:
        return rfc1902.Counter32(int(self) if value is None else value, **more)


class MessageSize(univ.Integer):  # type: ignore[misc]
    """snmpEngineMaxMessageSize: told is the longest message that we take; what we send is bound by the other side,
    and by what UDP can carry."""

    def __lt__(self, octets: int) -> bool:
        return octets > LARGEST_MESSAGE


class Address(Protocol):
    """Where a message came from, and the way back."""

    def send(self, message: bytes) -> None: ...


class SocketlessDispatcher(AbstractTransportDispatcher):  # type: ignore[misc]
    """Hands messages back to the address object they came with. Time goes on by `tick`, once a second."""

    def __init__(self) -> None:
        super().__init__()
        self._timers: list[Callable[[float], None]] = []
        self._ticks = 0

    def send_message(self, message: Any, _domain: Any, address: Address) -> None:
        address.send(bytes(message))

    def register_timer_callback(self, callback: Any, _interval: float | None = None) -> None:
        self._timers.append(callback)

    def unregister_timer_callback(self, _callback: Any = None) -> None:
        self._timers.clear()

    def get_timer_resolution(self) -> float:
        return 1.0

    def get_timer_ticks(self) -> int:
        return self._ticks

    def tick(self) -> None:
        self._ticks += 1
        for callback in list(self._timers):
            callback(float(self._ticks))


class RawResponse(univ.Any):  # type: ignore[misc]
    """A Response PDU whose contents we have encoded ourselves."""

    tagSet = rfc1905.ResponsePDU.tagSet


COUNTED = {
    "__SNMP-MPD-MIB": ("snmpUnknownSecurityModels", "snmpInvalidMsgs", "snmpUnknownPDUHandlers"),
    "__SNMP-TARGET-MIB": ("snmpUnavailableContexts", "snmpUnknownContexts"),
    "__SNMP-USER-BASED-SM-MIB": (
        *("usmStatsUnsupportedSecLevels", "usmStatsNotInTimeWindows", "usmStatsUnknownUserNames"),
        *("usmStatsUnknownEngineIDs", "usmStatsWrongDigests", "usmStatsDecryptionErrors"),
    ),
    "__SNMPv2-MIB": ("snmpInASNParseErrs", "snmpInBadVersions", "snmpSilentDrops"),
}
"""Counters that pysnmp counts while it works, by its modules. snmpInPkts is the guard's."""


def make_engine(
    engine_id: bytes,
    boots: int,
    uptime: Uptime | None = None,
    counters: Counters | None = None,
    largest: int = LARGEST_MESSAGE,
) -> SnmpEngine:
    """An engine without sockets and without users. The constructor is not told the engine ID: it would keep
    engineBoots in a file of its own. `largest`: octets of the longest message that is taken."""
    engine = SnmpEngine(maxMessageSize=LARGEST_MESSAGE)
    builder = engine.get_mib_builder()
    own, own_boots, own_time, own_size = builder.import_symbols(
        "__SNMP-FRAMEWORK-MIB", "snmpEngineID", "snmpEngineBoots", "snmpEngineTime", "snmpEngineMaxMessageSize"
    )
    own_size.syntax = MessageSize(largest)
    counted = counters or Counters()
    for module, names in COUNTED.items():
        for name, symbol in zip(names, builder.import_symbols(module, *names), strict=True):
            symbol.syntax = Counted(counted, name)
    own.syntax = engine.snmpEngineID = own.syntax.clone(engine_id)
    own_boots.syntax = own_boots.syntax.clone(boots)
    own_time.syntax = EngineTime(uptime or Uptime())
    engine.security_models[Usm.SECURITY_MODEL_ID] = Usm()
    engine.register_transport_dispatcher(SocketlessDispatcher())
    return engine


def add_user(engine: SnmpEngine, user: User) -> None:
    """Make a user known; one of this name may not be known yet."""
    config.add_v3_user(
        engine,
        user.name,
        config.USM_AUTH_NONE if user.authentication is None else user.authentication.oid,
        rfc1902.OctetString(user.auth_key),
        config.USM_PRIV_NONE if user.privacy is None else user.privacy.oid,
        rfc1902.OctetString(user.priv_key) if user.privacy is not None else None,
        authKeyType=config.USM_KEY_TYPE_LOCALIZED,
        privKeyType=config.USM_KEY_TYPE_LOCALIZED,
    )


def remove_user(engine: SnmpEngine, name: str) -> None:
    config.delete_v3_user(engine, name)
