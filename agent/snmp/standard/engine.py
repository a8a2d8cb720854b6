"""SNMP-FRAMEWORK-MIB (RFC 3411 section 5) and SNMP-MPD-MIB (RFC 3412 section 5)."""

from __future__ import annotations

from typing import Final

from agent.mib.ber import Wire
from agent.snmp.standard.facts import Facts
from agent.snmp.standard.objects import Scalar
from agent.snmp.standard.system import SNMP_MODULES, counter

ENGINE: Final = (*SNMP_MODULES, 10, 2, 1)
DISPATCHER: Final = (*SNMP_MODULES, 11, 2, 1)
COUNTERS: Final = {1: "snmpUnknownSecurityModels", 2: "snmpInvalidMsgs", 3: "snmpUnknownPDUHandlers"}


def engine_objects(facts: Facts) -> list[Scalar]:
    """snmpEngine group and the statistics of the dispatcher."""
    uptime = facts.uptime
    objects = [
        Scalar((*ENGINE, 1), Wire.OCTET_STRING, lambda: facts.identity.engine_id, "snmpEngineID"),
        Scalar((*ENGINE, 2), Wire.INTEGER, lambda: facts.identity.boots, "snmpEngineBoots"),
        Scalar((*ENGINE, 3), Wire.INTEGER, lambda: uptime.seconds, "snmpEngineTime"),
        Scalar((*ENGINE, 4), Wire.INTEGER, lambda: facts.largest, "snmpEngineMaxMessageSize"),
    ]
    for number, name in COUNTERS.items():
        objects.append(Scalar((*DISPATCHER, number), Wire.COUNTER32, counter(facts, name), name))
    return objects
