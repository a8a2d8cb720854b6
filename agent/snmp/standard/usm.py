"""SNMP-USER-BASED-SM-MIB (RFC 3414 section 5): statistics, and ipsecGwUserTable as usmUserTable.

Users are made by copying another one (usmUserCloneFrom), their keys replaced by KeyChange,
as net-snmp's snmpusm does it. A copy has the level `read` until an administrator gives it
another in ipsecGwUserTable: in the standard too a new user is in no group. A copied user
is usable at once, with the keys of the one it was copied from, so that it can change
them itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from agent.mib.ber import Value, Wire
from agent.snmp.keychange import (
    AUTH_PASSWORD,
    AUTH_PROTOCOL,
    PRIV_PASSWORD,
    PRIV_PROTOCOL,
    KeyChange,
    KeysOf,
    Protocols,
    protocols,
)
from agent.snmp.standard.facts import Facts
from agent.snmp.standard.objects import (
    ROW_ACTIVE,
    STORAGE_NON_VOLATILE,
    AdvisoryLock,
    Asked,
    Picture,
    Rows,
    Scalar,
    StandardObject,
    Translation,
    by_length,
    table,
    take_octets,
)
from agent.snmp.standard.system import SNMP_MODULES, counter
from agent.snmp.tree import Arcs
from agent.snmp.users import AUTH_KEY, USER_TABLE, user_names
from agent.snmp.usm import AUTHENTICATION, NO_AUTHENTICATION, NO_PRIVACY, PRIVACY
from agent.store.errors import ErrorStatus
from agent.store.hooks import Edit
from agent.store.rows import Status
from agent.store.snapshot import Row

USM: Final = (*SNMP_MODULES, 15, 1)
ENTRY: Final = (*USM, 2, 2, 1)
OUR_PUBLIC: Final = "ipsecGwUserPublic"
NONE: Final = 1  # ipsecGwUserAuthProtocol, ipsecGwUserPrivProtocol
ZERO_DOT_ZERO: Final = (0, 0)
LONGEST_NAME: Final = 32  # octets of usmUserName and usmUserPublic
NOT_IN_SERVICE: Final = 2

STATISTICS: Final = {
    1: "usmStatsUnsupportedSecLevels",
    2: "usmStatsNotInTimeWindows",
    3: "usmStatsUnknownUserNames",
    4: "usmStatsUnknownEngineIDs",
    5: "usmStatsWrongDigests",
    6: "usmStatsDecryptionErrors",
}
SECURITY_NAME, CLONE_FROM, AUTH, AUTH_CHANGE, OWN_AUTH_CHANGE = 3, 4, 5, 6, 7
PRIV, PRIV_CHANGE, OWN_PRIV_CHANGE, PUBLIC, STORAGE, STATUS = 8, 9, 10, 11, 12, 13
COLUMNS: Final = {
    SECURITY_NAME: ("usmUserSecurityName", Wire.OCTET_STRING),
    CLONE_FROM: ("usmUserCloneFrom", Wire.OBJECT_IDENTIFIER),
    AUTH: ("usmUserAuthProtocol", Wire.OBJECT_IDENTIFIER),
    AUTH_CHANGE: ("usmUserAuthKeyChange", Wire.OCTET_STRING),
    OWN_AUTH_CHANGE: ("usmUserOwnAuthKeyChange", Wire.OCTET_STRING),
    PRIV: ("usmUserPrivProtocol", Wire.OBJECT_IDENTIFIER),
    PRIV_CHANGE: ("usmUserPrivKeyChange", Wire.OCTET_STRING),
    OWN_PRIV_CHANGE: ("usmUserOwnPrivKeyChange", Wire.OCTET_STRING),
    PUBLIC: ("usmUserPublic", Wire.OCTET_STRING),
    STORAGE: ("usmUserStorageType", Wire.INTEGER),
    STATUS: ("usmUserStatus", Wire.INTEGER),
}


def usm_objects(facts: Facts) -> list[StandardObject]:
    """usmStats and usmUser groups."""
    objects: list[StandardObject] = [
        Scalar((*USM, 1, number), Wire.COUNTER32, counter(facts, name), name) for number, name in STATISTICS.items()
    ]
    objects.append(AdvisoryLock((*USM, 2, 1), "usmUserSpinLock"))
    users = UsmUsers(facts)
    writable = COLUMNS.keys() - {SECURITY_NAME}
    return [*objects, *table(ENTRY, COLUMNS, Picture(users.draw, users.seen), users, writable)]


class UsmUsers:
    """usmUserTable: a picture, and the Writer of its rows."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    # ---- reading ----------------------------------------------------------------------

    def seen(self) -> Sequence[object]:
        return self._facts.store.running.table(USER_TABLE), self._facts.identity

    def draw(self) -> Rows:
        engine = by_length(self._facts.identity.engine_id)
        users = user_names(self._facts.store.running)
        return {(*engine, *by_length(name)): self._row(name, row) for name, row in users.items()}

    def _row(self, name: bytes, row: Row) -> dict[int, Value]:
        auth, privacy = protocols(row)
        return {
            SECURITY_NAME: name,
            CLONE_FROM: ZERO_DOT_ZERO,
            AUTH: NO_AUTHENTICATION if auth is None else auth.oid,
            **dict.fromkeys((AUTH_CHANGE, OWN_AUTH_CHANGE, PRIV_CHANGE, OWN_PRIV_CHANGE), b""),
            PRIV: NO_PRIVACY if privacy is None else privacy.protocol,
            PUBLIC: row[OUR_PUBLIC],
            STORAGE: STORAGE_NON_VOLATILE,
            STATUS: ROW_ACTIVE if row.active else NOT_IN_SERVICE,
        }

    # ---- writing ----------------------------------------------------------------------

    def translate(self, asked: Sequence[Asked], into: Translation) -> None:
        by_row: dict[Arcs, list[Asked]] = {}
        for one in asked:
            by_row.setdefault(one.arcs, []).append(one)
        taken: set[int] = set()
        for of_row in by_row.values():
            self._translate_row(of_row, into, taken)

    def _translate_row(self, asked: list[Asked], into: Translation, taken: set[int]) -> None:
        running = self._facts.store.running
        name = self._name(asked[0])
        row = user_names(running).get(name)
        columns = {one.target.oid[-1]: one for one in asked}
        status = columns.get(STATUS)
        change = None if status is None else _status(status, row is not None)
        if row is None:
            if change is Status.DESTROY:
                return
            if change is None:
                raise asked[0].refusal(
                    ErrorStatus.INCONSISTENT_NAME, "there is no such user", "usmUserStatus = createAndGo(4) in the SET"
                )
            number = running.table(USER_TABLE).free_number()
            while number in taken or number in running.table(USER_TABLE):
                number += 1
            taken.add(number)
        else:
            number = row.number
        column = self._facts.column
        if status is not None and change is not None:
            into.add(status.at, Edit(column("ipsecGwUserRowStatus"), number, int(change)))
            if change is Status.DESTROY:
                others = [one for one in asked if one is not status]
                if others:
                    raise others[0].refusal(ErrorStatus.INCONSISTENT_VALUE, "the same SET removes the row")
                return
            if row is None:
                into.add(status.at, Edit(column("ipsecGwUserName"), number, name))
                into.add(status.at, Edit(column("ipsecGwUserRowGeneration"), number, 0))  # still nobody's
        source = self._copied(columns.get(CLONE_FROM), row, number, into)
        model = source or row
        now = Protocols(None, None) if model is None else protocols(model)
        self._protocols(columns, now, number, into)
        if row is None and source is None and status is not None:
            for ours in (AUTH_PROTOCOL, PRIV_PROTOCOL):
                into.add(status.at, Edit(column(ours), number, NONE))
        self._keys(columns, now, name, number, into)
        self._rest(columns, number, into)

    def _name(self, asked: Asked) -> bytes:
        """Of the user that an instance stands for. Raises Refused."""
        engine = take_octets(asked.arcs)
        user = None if engine is None else take_octets(engine[1])
        if engine is None or engine[0] != self._facts.identity.engine_id:
            raise asked.refusal(ErrorStatus.NO_CREATION, "there can be no such instance", "users of this engine")
        if user is None or user[1] or not 1 <= len(user[0]) <= LONGEST_NAME:
            accepted = f"names of 1..{LONGEST_NAME} octets"
            raise asked.refusal(ErrorStatus.NO_CREATION, "there can be no such instance", accepted)
        return user[0]

    def _copied(self, asked: Asked | None, row: Row | None, number: int, into: Translation) -> Row | None:
        """The user to copy. Only the first time for a user; later it means nothing (usmUserCloneFrom)."""
        if asked is None or (row is not None and row[AUTH_KEY]):
            return None
        value = asked.value
        assert isinstance(value, tuple)
        source: Row | None = None
        if value[: len(ENTRY)] == ENTRY and len(value) > len(ENTRY) + 1:
            engine = take_octets(value[len(ENTRY) + 1 :])
            user = None if engine is None else take_octets(engine[1])
            if engine is not None and engine[0] == self._facts.identity.engine_id and user is not None:
                source = user_names(self._facts.store.running).get(user[0])
        if source is None or not source.active:
            accepted = "an instance of usmUserEntry that is active"
            raise asked.refusal(ErrorStatus.INCONSISTENT_NAME, "there is no such user to copy", accepted)
        into.add(asked.at, Edit(self._facts.column(AUTH_PASSWORD), number, KeysOf.row(source.number)))
        return source

    def _protocols(self, columns: dict[int, Asked], now: Protocols, number: int, into: Translation) -> None:
        """What it is already, or none; what needs a key comes by copying only (usmUserAuthProtocol)."""
        auth, priv = columns.get(AUTH), columns.get(PRIV)
        bare = now.privacy is None or (priv is not None and priv.value == NO_PRIVACY)
        if auth is not None:
            known = {NO_AUTHENTICATION, *(protocol.oid for protocol in AUTHENTICATION.values())}
            if auth.value not in known:
                raise auth.refusal(ErrorStatus.WRONG_VALUE, "no protocol of this agent")
            if auth.value == NO_AUTHENTICATION:
                if not bare:
                    raise auth.refusal(ErrorStatus.INCONSISTENT_VALUE, "the user has a privacy protocol")
                if now.authentication is not None:
                    into.add(auth.at, Edit(self._facts.column(AUTH_PROTOCOL), number, NONE))
            elif now.authentication is None or auth.value != now.authentication.oid:
                raise auth.refusal(ErrorStatus.INCONSISTENT_VALUE, "comes with the user copied", "usmNoAuthProtocol")
        if priv is not None:
            known = {NO_PRIVACY, *(oid for p in PRIVACY.values() for oid in (p.oid, p.protocol))}
            if priv.value not in known:
                raise priv.refusal(ErrorStatus.WRONG_VALUE, "no protocol of this agent")
            if priv.value == NO_PRIVACY:
                if now.privacy is not None:
                    into.add(priv.at, Edit(self._facts.column(PRIV_PROTOCOL), number, NONE))
            elif now.privacy is None or priv.value not in (now.privacy.protocol, now.privacy.oid):
                raise priv.refusal(ErrorStatus.INCONSISTENT_VALUE, "comes with the user copied", "usmNoPrivProtocol")

    def _keys(self, columns: dict[int, Asked], now: Protocols, name: bytes, number: int, into: Translation) -> None:
        """Both kinds of KeyChange; without a protocol they mean nothing, as usmUserAuthKeyChange says."""
        auth, privacy = now
        for change, ours in (
            (AUTH_CHANGE, AUTH_PASSWORD),
            (OWN_AUTH_CHANGE, AUTH_PASSWORD),
            (PRIV_CHANGE, PRIV_PASSWORD),
            (OWN_PRIV_CHANGE, PRIV_PASSWORD),
        ):
            asked = columns.get(change)
            if asked is None:
                continue
            if change in (OWN_AUTH_CHANGE, OWN_PRIV_CHANGE) and not self._is(into, name):
                raise asked.refusal(ErrorStatus.NO_ACCESS, "is for the user itself", "the object without Own")
            if ours == AUTH_PASSWORD:
                octets = 0 if auth is None else 2 * auth.key
            else:
                octets = 0 if privacy is None or auth is None else 2 * privacy.key
            if not octets:
                continue
            if len(asked.octets()) != octets:
                raise asked.refusal(ErrorStatus.WRONG_LENGTH, f"{len(asked.octets())} octets", f"{octets} octets")
            into.add(asked.at, Edit(self._facts.column(ours), number, KeyChange(asked.octets())))

    def _is(self, into: Translation, name: bytes) -> bool:
        """Whether the one who asks is this user; the communities' security names are no users."""
        known = self._facts.communities.values()
        return into.principal not in known and into.principal.name.encode("utf-8", "surrogateescape") == name

    def _rest(self, columns: dict[int, Asked], number: int, into: Translation) -> None:
        storage, public = columns.get(STORAGE), columns.get(PUBLIC)
        if storage is not None and storage.value != STORAGE_NON_VOLATILE:
            known = isinstance(storage.value, int) and 1 <= storage.value <= 5
            status = ErrorStatus.INCONSISTENT_VALUE if known else ErrorStatus.WRONG_VALUE
            raise storage.refusal(status, "users are kept", "nonVolatile(3)")
        if public is not None:
            octets = public.octets()
            if len(octets) > LONGEST_NAME:
                raise public.refusal(ErrorStatus.WRONG_LENGTH, f"{len(octets)} octets", f"0..{LONGEST_NAME} octets")
            into.add(public.at, Edit(self._facts.column(OUR_PUBLIC), number, octets))


def _status(asked: Asked, there: bool) -> Status:
    """The change of usmUserStatus. Raises Refused."""
    try:
        status = Status(asked.number())
    except ValueError:
        raise asked.refusal(ErrorStatus.WRONG_VALUE, "no value of this object", "1, 2, 4, 5, 6") from None
    if status is Status.NOT_READY:
        raise asked.refusal(ErrorStatus.WRONG_VALUE, "is read, never written", "1, 2, 4, 5, 6")
    if there and status in (Status.CREATE_AND_GO, Status.CREATE_AND_WAIT):
        raise asked.refusal(ErrorStatus.INCONSISTENT_VALUE, "the user is there already", "1, 2, 6")
    if not there and status in (Status.ACTIVE, Status.NOT_IN_SERVICE):
        raise asked.refusal(ErrorStatus.INCONSISTENT_VALUE, "there is no such user", "4, 5, 6")
    return status
