"""The standard MIBs that this agent serves beside its own, one file each."""

from __future__ import annotations

from agent.snmp.standard.engine import engine_objects
from agent.snmp.standard.facts import Facts
from agent.snmp.standard.notification import notification_objects
from agent.snmp.standard.objects import StandardObject
from agent.snmp.standard.system import snmpv2_objects
from agent.snmp.standard.target import target_objects
from agent.snmp.standard.usm import usm_objects
from agent.snmp.standard.vacm import vacm_objects


def standard_objects(facts: Facts) -> list[StandardObject]:
    """All of them, in no order."""
    return [
        *snmpv2_objects(facts),
        *engine_objects(facts),
        *usm_objects(facts),
        *vacm_objects(facts),
        *target_objects(facts),
        *notification_objects(facts),
    ]
