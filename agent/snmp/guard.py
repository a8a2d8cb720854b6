"""Before decoding: who is allowed to make the agent work, and how much.

Everything is looked at cheaply first: size, version, community or user, digest. What
nobody known has sent gets no answer, but for the few reports that SNMPv3 needs to find its
engine (RFC 3414 section 4), and these are limited in size and rate. Drops are counted for
SNMP-MIB and mentioned in the log now and then, never once per datagram.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Final, NamedTuple

from agent.mib.ber import BerError
from agent.snmp.access import Principal
from agent.snmp.codec import open_envelope, read_community
from agent.snmp.counters import Counters
from agent.snmp.pdu import Version
from agent.snmp.sources import SourceLists
from agent.snmp.usm import AUTHENTICATED, ENCRYPTED, USM, Header, User, digest_is_right, read_header

log = logging.getLogger(__name__)

LONGEST_NAME: Final = 32  # octets of a user's name, RFC 3414 section 5
LOG_INTERVAL: Final = 10.0  # seconds between two lines about drops


@dataclass(frozen=True, slots=True)
class Limits:
    """What a datagram may cost."""

    message_octets: int = 16_384
    varbinds: int = 128
    strangers_octets: int = 1_024  # of a message in plain that proves nothing: discovery, unknown users
    strangers_per_second: int = 100  # of these are looked at; each costs about a millisecond


class Known(NamedTuple):
    """An admitted v1 or v2c message: whose it is, and where its PDU lies."""

    principal: Principal
    version: int
    community: bytes
    pdu: int
    end: int


class Version3(NamedTuple):
    """An admitted SNMPv3 message. `user` is set only where the digest is right. `elsewhere`: its user is known, but
    not where it comes from; it is to be told what an unknown user is told."""

    header: Header
    user: User | None
    elsewhere: bool = False


class Bucket:
    """So many per second, as many at once."""

    def __init__(self, rate: int, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._clock = clock
        self._tokens = float(rate)
        self._at = clock()

    def take(self) -> bool:
        now = self._clock()
        self._tokens = min(float(self._rate), self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


@dataclass(slots=True)
class Guard:
    """Admits datagrams. `users` is the mapping by name that access keeps up to date. `engine_id` is ours. `suspicious`
    is told the source of what fails to prove who sent it, and why."""

    communities: Mapping[bytes, Principal]
    users: Mapping[bytes, User]
    limits: Limits = field(default_factory=Limits)
    clock: Callable[[], float] = time.monotonic
    counters: Counters = field(default_factory=Counters)
    sources: SourceLists = field(default_factory=SourceLists)
    engine_id: bytes = b""
    suspicious: Callable[[str, str], None] = lambda source, why: None
    _strangers: Bucket = field(init=False)
    _told: int = 0
    _told_at: float = float("-inf")

    def __post_init__(self) -> None:
        self._strangers = Bucket(self.limits.strangers_per_second, self.clock)

    def admit(self, data: bytes, source: str) -> Known | Version3 | None:
        """What the datagram is, None where it is dropped. `data` may be cut one octet beyond the limit; `source` is
        the address it came from."""
        counters = self.counters
        counters.snmpInPkts += 1
        if len(data) > self.limits.message_octets:
            counters.too_long += 1
            return None
        try:
            envelope = open_envelope(data)
            if envelope.version in (Version.V1, Version.V2C):
                community = read_community(data, envelope)
                principal = self.communities.get(community.name)
                if principal is None:
                    counters.snmpInBadCommunityNames += 1
                    self.suspicious(source, "unknown community")
                    return None
                if not self.sources.admits(self.sources.of_community(principal.level), source):
                    counters.snmpInBadCommunityNames += 1
                    counters.elsewhere += 1
                    self.suspicious(source, f"{principal.name}, whose source list does not have the address,")
                    return None
                return Known(principal, envelope.version, community.name, community.pdu, envelope.end)
            if envelope.version != Version.V3:
                counters.snmpInBadVersions += 1
                return None
            return self._admit3(data, read_header(data, envelope.at), source)
        except BerError:
            counters.snmpInASNParseErrs += 1
            return None

    def _admit3(self, data: bytes, header: Header, source: str) -> Version3 | None:
        counters = self.counters
        if header.model != USM:
            counters.snmpUnknownSecurityModels += 1
            return None
        if header.flags & (AUTHENTICATED | ENCRYPTED) == ENCRYPTED:
            counters.snmpInvalidMsgs += 1  # RFC 3412 section 7.2 (5d)
            return None
        user = self.users.get(header.user)
        elsewhere = user is not None and not self.sources.admits(user.sources, source)
        if elsewhere:
            counters.elsewhere += 1
            user = None
        if header.flags & AUTHENTICATED and user is not None and digest_is_right(data, header, user):
            return Version3(header, user)
        if header.engine_id == self.engine_id and header.user:
            self._suspect(header, user, elsewhere, source)
        if not header.flags & ENCRYPTED and len(data) > self.limits.strangers_octets:
            counters.too_long += 1
            return None
        if not self._strangers.take():  # else it is pysnmp that looks closer, and counts what it finds
            counters.limited += 1
            if header.engine_id != self.engine_id:
                counters.usmStatsUnknownEngineIDs += 1
            elif header.user and user is None:
                counters.usmStatsUnknownUserNames += 1
            elif header.flags & AUTHENTICATED and user is not None:
                counters.usmStatsWrongDigests += 1
            return None
        return Version3(header, None, elsewhere)

    def _suspect(self, header: Header, user: User | None, elsewhere: bool, source: str) -> None:
        name = header.user[:LONGEST_NAME].decode("utf-8", "backslashreplace")
        if elsewhere:
            self.suspicious(source, f"user {name}, whose source list does not have the address,")
        elif user is None:
            self.suspicious(source, f"unknown user {name}")
        elif header.flags & AUTHENTICATED:
            self.suspicious(source, f"wrong digest of user {name}")
        else:
            self.suspicious(source, f"no digest of user {name}")

    def tell(self) -> None:
        """One line in the log where something was dropped since the last, at most every ten seconds."""
        dropped = self.counters.dropped()
        now = self.clock()
        if dropped == self._told or now - self._told_at < LOG_INTERVAL:
            return
        parts = [f"{f.name} {count}" for f in fields(self.counters) if (count := getattr(self.counters, f.name))]
        log.warning("%d datagrams dropped; since the start: %s", dropped - self._told, ", ".join(parts))
        self._told, self._told_at = dropped, now
