"""SNMP-VIEW-BASED-ACM-MIB (RFC 3415): the three levels as groups and views, and who is in them.

A level is a group of the same name, with the views of access.py; these are to look at, as
the module's compliance statement allows. vacmSecurityToGroupTable has the communities and
the active users. Of a user the group can be changed, which is its level; removing its row
puts the user out of service, and making it again brings the user back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from agent.mib.ber import Value, Wire
from agent.snmp.access import VIEWS, Level, Principal
from agent.snmp.standard.facts import Facts
from agent.snmp.standard.objects import (
    ROW_ACTIVE,
    STORAGE_NON_VOLATILE,
    STORAGE_READ_ONLY,
    AdvisoryLock,
    Asked,
    Picture,
    Rows,
    StandardObject,
    Translation,
    by_length,
    oid_by_length,
    table,
    take_octets,
)
from agent.snmp.standard.system import SNMP_MODULES
from agent.snmp.tree import Arcs
from agent.snmp.users import USER_TABLE, user_names
from agent.store.errors import ErrorStatus
from agent.store.hooks import Edit
from agent.store.rows import Status
from agent.store.snapshot import Row

VACM: Final = (*SNMP_MODULES, 16, 1)
MODELS_OF_COMMUNITIES: Final = (1, 2)  # SnmpSecurityModel: SNMPv1, SNMPv2c
USM: Final = 3
NO_AUTH_NO_PRIV, AUTH_NO_PRIV = 1, 2  # SnmpSecurityLevel: the least that is asked of who has access
EXACT: Final = 1  # vacmAccessContextMatch
INCLUDED, EXCLUDED = 1, 2

CONTEXTS: Final = {1: ("vacmContextName", Wire.OCTET_STRING)}
GROUP, STORAGE, STATUS = 3, 4, 5
GROUPS: Final = {
    GROUP: ("vacmGroupName", Wire.OCTET_STRING),
    STORAGE: ("vacmSecurityToGroupStorageType", Wire.INTEGER),
    STATUS: ("vacmSecurityToGroupStatus", Wire.INTEGER),
}
LONGEST_NAME: Final = 32  # octets of vacmGroupName
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
        *table((*VACM, 2, 1), GROUPS, groups, GroupsOfUsers(facts), GROUPS),
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

    def add(model: int, name: bytes, level: Level, storage: int) -> None:
        rows[model, *by_length(name)] = {GROUP: group(level), STORAGE: storage, STATUS: ROW_ACTIVE}

    principal: Principal
    for principal in facts.communities.values():
        for model in MODELS_OF_COMMUNITIES:
            add(model, principal.name.encode(), principal.level, STORAGE_READ_ONLY)
    for name, row in user_names(facts.store.running).items():
        level = row["ipsecGwUserLevel"]
        if row.active and isinstance(level, int):
            add(USM, name, Level(level), STORAGE_NON_VOLATILE)
    return rows


class GroupsOfUsers:
    """The Writer of vacmSecurityToGroupTable."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def translate(self, asked: Sequence[Asked], into: Translation) -> None:
        by_row: dict[Arcs, list[Asked]] = {}
        for one in asked:
            by_row.setdefault(one.arcs, []).append(one)
        for of_row in by_row.values():
            self._translate_row(of_row, into)

    def _translate_row(self, asked: list[Asked], into: Translation) -> None:
        user = self._user(asked[0])
        columns = {one.target.oid[-1]: one for one in asked}
        named, storage, status = (columns.get(number) for number in (GROUP, STORAGE, STATUS))
        if storage is not None and storage.value != STORAGE_NON_VOLATILE:
            known = isinstance(storage.value, int) and 1 <= storage.value <= 5
            code = ErrorStatus.INCONSISTENT_VALUE if known else ErrorStatus.WRONG_VALUE
            raise storage.refusal(code, "users are kept", "nonVolatile(3)")
        if status is not None:
            self._status(status, user, into)
        if named is None:
            if status is not None and status.value == Status.CREATE_AND_GO:
                accepted = "vacmGroupName in the same SET"
                raise status.refusal(ErrorStatus.INCONSISTENT_VALUE, "no group is named", accepted)
            return
        if not user.active and (status is None or status.value != Status.CREATE_AND_GO):
            accepted = "vacmSecurityToGroupStatus = createAndGo(4) in the SET"
            raise named.refusal(ErrorStatus.INCONSISTENT_NAME, "the user is in no group", accepted)
        levels = {group(level): level for level in Level}
        if not 1 <= len(named.octets()) <= LONGEST_NAME:
            raise named.refusal(ErrorStatus.WRONG_LENGTH, f"{len(named.octets())} octets", f"1..{LONGEST_NAME} octets")
        level = levels.get(named.octets())
        if level is None:
            accepted = ", ".join(name.decode() for name in levels)
            raise named.refusal(ErrorStatus.INCONSISTENT_VALUE, "there is no such group", accepted)
        into.add(named.at, Edit(self._facts.column("ipsecGwUserLevel"), user.number, int(level)))

    def _user(self, asked: Asked) -> Row:
        """Whose row it is. Raises Refused."""
        name = take_octets(asked.arcs[1:])
        if name is None or name[1] or asked.arcs[0] not in (*MODELS_OF_COMMUNITIES, USM):
            raise asked.refusal(ErrorStatus.NO_CREATION, "there can be no such instance", "users, of model 3")
        if asked.arcs[0] != USM:
            raise asked.refusal(ErrorStatus.NOT_WRITABLE, "communities are settings of the agent", "users, of model 3")
        row = user_names(self._facts.store.running).get(name[0])
        if row is None:
            accepted = "a user of ipsecGwUserTable or usmUserTable"
            raise asked.refusal(ErrorStatus.INCONSISTENT_NAME, "there is no such user", accepted)
        return row

    def _status(self, asked: Asked, user: Row, into: Translation) -> None:
        wanted = asked.number()
        if wanted == Status.DESTROY:
            after = Status.NOT_IN_SERVICE
        elif wanted == Status.CREATE_AND_GO and not user.active:
            after = Status.ACTIVE
        elif wanted == Status.ACTIVE and user.active:
            return
        else:
            known = wanted in (Status.ACTIVE, Status.NOT_IN_SERVICE, Status.CREATE_AND_GO)
            code = ErrorStatus.INCONSISTENT_VALUE if known else ErrorStatus.WRONG_VALUE
            accepted = "active(1), destroy(6)" if user.active else "createAndGo(4), destroy(6)"
            raise asked.refusal(code, "not in the state that the row is in", accepted)
        into.add(asked.at, Edit(self._facts.column("ipsecGwUserRowStatus"), user.number, int(after)))


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
