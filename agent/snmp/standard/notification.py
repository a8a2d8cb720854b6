"""SNMP-NOTIFICATION-MIB (RFC 3413): who is notified of what, as the standard has it.

Two rows of snmpNotifyTable select by tag what ipsecGwTargetTable sends traps and informs
to; a target with rows in ipsecGwFilterTable has a filter profile of its name.
"""

from __future__ import annotations

from typing import Final

from agent.mib.ber import Value, Wire
from agent.snmp.standard.facts import Facts
from agent.snmp.standard.objects import (
    ROW_ACTIVE,
    STORAGE_READ_ONLY,
    Picture,
    Rows,
    StandardObject,
    by_length,
    table,
)
from agent.snmp.standard.system import SNMP_MODULES
from agent.snmp.standard.target import NOT_IN_SERVICE, TAGS, TARGET_TABLE, targets
from agent.snmp.tree import Arcs

NOTIFICATION: Final = (*SNMP_MODULES, 13, 1)
FILTER_TABLE: Final = "ipsecGwFilterTable"

NOTIFY: Final = {
    2: ("snmpNotifyTag", Wire.OCTET_STRING),
    3: ("snmpNotifyType", Wire.INTEGER),
    4: ("snmpNotifyStorageType", Wire.INTEGER),
    5: ("snmpNotifyRowStatus", Wire.INTEGER),
}
PROFILES: Final = {
    1: ("snmpNotifyFilterProfileName", Wire.OCTET_STRING),
    2: ("snmpNotifyFilterProfileStorType", Wire.INTEGER),
    3: ("snmpNotifyFilterProfileRowStatus", Wire.INTEGER),
}
FILTERS: Final = {
    2: ("snmpNotifyFilterMask", Wire.OCTET_STRING),
    3: ("snmpNotifyFilterType", Wire.INTEGER),
    4: ("snmpNotifyFilterStorageType", Wire.INTEGER),
    5: ("snmpNotifyFilterRowStatus", Wire.INTEGER),
}


def notification_objects(facts: Facts) -> list[StandardObject]:
    """All three tables."""

    def seen() -> tuple[object, ...]:
        running = facts.store.running
        return running.table(TARGET_TABLE), running.table(FILTER_TABLE)

    # snmpNotifyType has the numbers of ipsecGwTargetKind; the index is IMPLIED, without its length
    notify: Rows = {tuple(tag): {2: tag, 3: kind, 4: STORAGE_READ_ONLY, 5: ROW_ACTIVE} for kind, tag in TAGS.items()}
    return [
        *table((*NOTIFICATION, 1, 1), NOTIFY, Picture(lambda: notify, lambda: ())),
        *table((*NOTIFICATION, 2, 1), PROFILES, Picture(lambda: _profiles(facts), seen)),
        *table((*NOTIFICATION, 3, 1), FILTERS, Picture(lambda: _filters(facts), seen)),
    ]


def _profiles(facts: Facts) -> Rows:
    running = facts.store.running
    filtered = {row["ipsecGwFilterTarget"] for row in running.rows(FILTER_TABLE)}
    return {
        target.arcs: {1: target.name, 2: STORAGE_READ_ONLY, 3: ROW_ACTIVE}
        for target in targets(running)
        if target.row.number in filtered
    }


def _filters(facts: Facts) -> Rows:
    running = facts.store.running
    names = {target.row.number: target.name for target in targets(running)}
    rows: dict[Arcs, dict[int, Value]] = {}
    for row in running.rows_any_status(FILTER_TABLE):
        number, subtree = row["ipsecGwFilterTarget"], row["ipsecGwFilterSubtree"]
        assert isinstance(number, int) and isinstance(subtree, tuple)
        if number not in names:
            continue
        rows.setdefault(
            (*by_length(names[number]), *subtree),
            {
                2: row["ipsecGwFilterMask"],
                3: row["ipsecGwFilterType"],
                4: STORAGE_READ_ONLY,
                5: ROW_ACTIVE if row.active else NOT_IN_SERVICE,
            },
        )
    return rows
