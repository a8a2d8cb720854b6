"""SNMP-VIEW-BASED-ACM-MIB (RFC 3415): the three levels and who is in them, to look at.

A level is a group of the same name, with the views of access.py. Its compliance statement
lets an agent have all of it read-only; a user's level is changed in ipsecGwUserTable.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from agent.mib.ber import Value, Wire
from agent.snmp.access import VIEWS, Level, Principal
from agent.snmp.standard.facts import Facts
from agent.snmp.standard.objects import (
    ROW_ACTIVE,
    STORAGE_READ_ONLY,
    AdvisoryLock,
    Picture,
    Rows,
    StandardObject,
    by_length,
    oid_by_length,
    table,
)
from agent.snmp.standard.system import SNMP_MODULES
from agent.snmp.tree import Arcs
from agent.snmp.users import USER_TABLE, user_names

VACM: Final = (*SNMP_MODULES, 16, 1)
MODELS_OF_COMMUNITIES: Final = (1, 2)  # SnmpSecurityModel: SNMPv1, SNMPv2c
USM: Final = 3
NO_AUTH_NO_PRIV, AUTH_NO_PRIV = 1, 2  # SnmpSecurityLevel: the least that is asked of who has access
EXACT: Final = 1  # vacmAccessContextMatch
INCLUDED, EXCLUDED = 1, 2

CONTEXTS: Final = {1: ("vacmContextName", Wire.OCTET_STRING)}
GROUPS: Final = {
    3: ("vacmGroupName", Wire.OCTET_STRING),
    4: ("vacmSecurityToGroupStorageType", Wire.INTEGER),
    5: ("vacmSecurityToGroupStatus", Wire.INTEGER),
}
ACCESS: Final = {
    4: ("vacmAccessContextMatch", Wire.INTEGER),
    5: ("vacmAccessReadViewName", Wire.OCTET_STRING),
    6: ("vacmAccessWriteViewName", Wire.OCTET_STRING),
    7: ("vacmAccessNotifyViewName", Wire.OCTET_STRING),
    8: ("vacmAccessStorageType", Wire.INTEGER),
    9: ("vacmAccessStatus", Wire.INTEGER),
}
FAMILIES: Final = {
    3: ("vacmViewTreeFamilyMask", Wire.OCTET_STRING),
    4: ("vacmViewTreeFamilyType", Wire.INTEGER),
    5: ("vacmViewTreeFamilyStorageType", Wire.INTEGER),
    6: ("vacmViewTreeFamilyStatus", Wire.INTEGER),
}


def vacm_objects(facts: Facts) -> list[StandardObject]:
    """All four tables and the lock."""
    access, families = dict(_access()), dict(_families())
    groups = Picture(lambda: _groups(facts), lambda: (facts.store.running.table(USER_TABLE),))
    return [
        *table((*VACM, 1, 1), CONTEXTS, Picture(lambda: {(0,): {1: b""}}, lambda: ())),
        *table((*VACM, 2, 1), GROUPS, groups),
        *table((*VACM, 4, 1), ACCESS, Picture(lambda: access, lambda: ())),
        AdvisoryLock((*VACM, 5, 1), "vacmViewSpinLock"),
        *table((*VACM, 5, 2, 1), FAMILIES, Picture(lambda: families, lambda: ())),
    ]


def group(level: Level) -> bytes:
    return level.name.lower().encode()


def _view(level: Level, what: str, subtrees: Mapping[Arcs, bool]) -> bytes:
    """Name of a view; none is the empty name."""
    return group(level) + b"-" + what.encode() if subtrees else b""


def _groups(facts: Facts) -> Rows:
    rows: dict[Arcs, dict[int, Value]] = {}

    def add(model: int, name: bytes, level: Level) -> None:
        rows[model, *by_length(name)] = {3: group(level), 4: STORAGE_READ_ONLY, 5: ROW_ACTIVE}

    principal: Principal
    for principal in facts.communities.values():
        for model in MODELS_OF_COMMUNITIES:
            add(model, principal.name.encode(), principal.level)
    for name, row in user_names(facts.store.running).items():
        level = row["ipsecGwUserLevel"]
        if row.active and isinstance(level, int):
            add(USM, name, Level(level))
    return rows


def _access() -> Iterator[tuple[Arcs, dict[int, Value]]]:
    for level, views in VIEWS.items():
        models = [(USM, AUTH_NO_PRIV)]
        if level is not Level.ADMIN:  # no community is one
            models += [(model, NO_AUTH_NO_PRIV) for model in MODELS_OF_COMMUNITIES]
        read = _view(level, "read", views.read)
        for model, least in models:
            index = (*by_length(group(level)), *by_length(b""), model, least)
            names = {5: read, 6: _view(level, "write", views.write), 7: read}
            yield index, {4: EXACT, **names, 8: STORAGE_READ_ONLY, 9: ROW_ACTIVE}


def _families() -> Iterator[tuple[Arcs, dict[int, Value]]]:
    for level, views in VIEWS.items():
        for what, subtrees in (("read", views.read), ("write", views.write)):
            for subtree, included in subtrees.items():
                index = (*by_length(_view(level, what, subtrees)), *oid_by_length(tuple(subtree)))
                kind = INCLUDED if included else EXCLUDED
                yield index, {3: b"", 4: kind, 5: STORAGE_READ_ONLY, 6: ROW_ACTIVE}
