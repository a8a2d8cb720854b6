"""What SNMP has counted since the start, in one place for both ways in.

Guard, responder, both codecs and pysnmp's engine (see pysnmp_parts.py) count here; the
standard objects of the same names are read from here. Fields whose names are not those of
an object are only told in the log. Sources: RFC 3418, RFC 3412 section 5, RFC 3414
section 5, RFC 3413 section 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from agent.snmp.pdu import Answer, PduType
from agent.store.errors import ErrorStatus

COUNTER32: Final = 1 << 32  # where a Counter32 starts again


@dataclass(slots=True)
class Counters:
    """Names in camel case are those of the objects."""

    snmpInPkts: int = 0
    snmpOutPkts: int = 0
    snmpInBadVersions: int = 0
    snmpInBadCommunityNames: int = 0
    snmpInBadCommunityUses: int = 0
    snmpInASNParseErrs: int = 0
    snmpInTotalReqVars: int = 0
    snmpInTotalSetVars: int = 0
    snmpInGetRequests: int = 0
    snmpInGetNexts: int = 0
    snmpInSetRequests: int = 0
    snmpInGetResponses: int = 0
    snmpInTooBigs: int = 0
    snmpInNoSuchNames: int = 0
    snmpInBadValues: int = 0
    snmpInReadOnlys: int = 0
    snmpInGenErrs: int = 0
    snmpInTraps: int = 0
    snmpOutTooBigs: int = 0
    snmpOutNoSuchNames: int = 0
    snmpOutBadValues: int = 0
    snmpOutGenErrs: int = 0
    snmpOutGetRequests: int = 0
    snmpOutGetNexts: int = 0
    snmpOutSetRequests: int = 0
    snmpOutGetResponses: int = 0
    snmpOutTraps: int = 0
    snmpSilentDrops: int = 0
    snmpProxyDrops: int = 0
    snmpUnknownSecurityModels: int = 0
    snmpInvalidMsgs: int = 0
    snmpUnknownPDUHandlers: int = 0
    snmpUnavailableContexts: int = 0
    snmpUnknownContexts: int = 0
    usmStatsUnsupportedSecLevels: int = 0
    usmStatsNotInTimeWindows: int = 0
    usmStatsUnknownUserNames: int = 0
    usmStatsUnknownEngineIDs: int = 0
    usmStatsWrongDigests: int = 0
    usmStatsDecryptionErrors: int = 0
    too_long: int = 0
    limited: int = 0  # strangers beyond the rate
    elsewhere: int = 0  # of a known user or community, from outside its source list; counted by its object too
    failures: int = 0  # exceptions of ours
    unsent: int = 0  # replies that the kernel did not take

    def dropped(self) -> int:
        """Datagrams without an answer that does what they ask."""
        return sum(getattr(self, name) for name in DROPS)

    def asked(self, kind: int) -> None:
        """A request was accepted."""
        if kind == PduType.GET:
            self.snmpInGetRequests += 1
        elif kind == PduType.GETNEXT:
            self.snmpInGetNexts += 1
        elif kind == PduType.SET:
            self.snmpInSetRequests += 1

    def answered(self, answer: Answer) -> None:
        """A response was made."""
        self.snmpOutGetResponses += 1
        if answer.status:
            self._failed(answer.status)

    def _failed(self, status: int) -> None:
        if status == ErrorStatus.TOO_BIG:
            self.snmpOutTooBigs += 1
        elif status == ErrorStatus.NO_SUCH_NAME:
            self.snmpOutNoSuchNames += 1
        elif status == ErrorStatus.BAD_VALUE:
            self.snmpOutBadValues += 1
        elif status == ErrorStatus.GEN_ERR:
            self.snmpOutGenErrs += 1


DROPS: Final = (
    "snmpInBadVersions",
    "snmpInBadCommunityNames",
    "snmpInASNParseErrs",
    "snmpSilentDrops",
    "snmpUnknownSecurityModels",
    "snmpInvalidMsgs",
    "snmpUnknownPDUHandlers",
    "usmStatsUnsupportedSecLevels",
    "usmStatsUnknownUserNames",
    "usmStatsWrongDigests",
    "usmStatsDecryptionErrors",
    "too_long",
    "failures",
    "unsent",
    "limited",
)
"""What the log mentions. Unknown engine IDs and messages out of the time window are not among them: by a report of each
a manager finds engine and time (RFC 3414 section 4)."""
