"""Users by SET: passwords become keys before anything is stored, and what makes a user unsafe is refused.

An expander of the store. In the place of ipsecGwUserAuthPassword and ipsecGwUserPrivPassword
it puts the keys Ku made of them (RFC 3414 A.2), by the authentication protocol that the row
will have after the SET; the password itself is kept nowhere. A key belongs to the hash it
was made with, so protocol and passwords change together. At least one active user of level
admin with a key stays: otherwise nobody could make another one by SNMP.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Final

from agent.mib.ber import Value
from agent.mib.schema import Role, Table
from agent.snmp.access import Level
from agent.snmp.loginkeys import LOGIN_KEY_TABLE
from agent.snmp.loginkeys import USER as LOGIN_KEY_USER
from agent.snmp.users import AUTH_KEY, KEY_KIND, PRIV_KEY, USER_TABLE
from agent.snmp.usm import AUTHENTICATION, key_of_passphrase
from agent.store.edits import refusal
from agent.store.errors import ErrorStatus, Refused
from agent.store.hooks import Edit, Origin, Placed
from agent.store.rows import CREATIONS, Status
from agent.store.snapshot import Configuration, Row

log = logging.getLogger(__name__)

NAME: Final = "ipsecGwUserName"
LEVEL: Final = "ipsecGwUserLevel"
AUTH: Final = "ipsecGwUserAuthProtocol"
PRIV: Final = "ipsecGwUserPrivProtocol"
AUTH_PASSWORD: Final = "ipsecGwUserAuthPassword"
PRIV_PASSWORD: Final = "ipsecGwUserPrivPassword"
ROW_STATUS: Final = "ipsecGwUserRowStatus"
LOGIN_KEY_STATUS: Final = "ipsecGwLoginKeyRowStatus"
LOGIN_KEY_MOVES: Final = (LOGIN_KEY_STATUS, LOGIN_KEY_USER)  # a SET that says itself what becomes of a key

WITHOUT_KEYS: Final = frozenset({LEVEL, "ipsecGwUserSourceList", "ipsecGwUserPublic"})
"""What may be changed of a user whose keys are missing."""

NONE: Final = 1  # of both protocols
MASTER: Final = 1  # of KEY_KIND: Ku, from which the keys of any engine can be made
MASK: Final = b"*"  # what a password reads as; written back it keeps the key
LEAST: Final = 8  # octets of a password, RFC 3414 section 11.2
WEAK: Final = {AUTH: (2, "MD5"), PRIV: (2, "DES")}


@dataclass(slots=True)
class _Draft:
    """A user's row around a SET. `edits`: varbinds by column name, as (varbind, edit)."""

    table: Table
    number: int
    before: Row | None
    edits: dict[str, tuple[int, Edit]] = field(default_factory=dict)

    def value(self, column: str) -> Value:
        """As it will be."""
        if column in self.edits:
            return self.edits[column][1].value
        return self.table.by_name[column].default if self.before is None else self.before[column]

    def number_of(self, column: str) -> int:
        value = self.value(column)
        return value if isinstance(value, int) else 0

    def octets(self, column: str) -> bytes:
        value = self.value(column)
        return value if isinstance(value, bytes) else b""

    @property
    def status(self) -> Status | None:
        """Row status after the SET, None for no row. What cannot be is refused by the row status machine, later."""
        asked = Status(self.number_of(ROW_STATUS)) if ROW_STATUS in self.edits else None
        if asked is Status.DESTROY:
            return None
        if self.before is None:
            return Status.ACTIVE if asked is None and NAME in self.edits else CREATIONS.get(asked) if asked else None
        if asked is None or asked in CREATIONS:
            return Status.ACTIVE if self.before.active else Status.NOT_IN_SERVICE
        return asked

    def had_key(self, key: str) -> bool:
        return self.before is not None and bool(self.before[key])

    def has_key(self, password: str, key: str) -> bool:
        """After the SET, whether the key is made of a password or written as such."""
        if password in self.edits and self.octets(password) != MASK:
            return bool(self.octets(password))
        return bool(self.octets(key))

    def renewed(self, password: str, key: str) -> bool:
        """The SET brings a new key."""
        return (password in self.edits and self.octets(password) not in (b"", MASK)) or bool(
            key in self.edits and self.octets(key)
        )

    def changed(self, column: str) -> bool:
        return self.before is None or self.value(column) != self.before[column]

    @property
    def administers(self) -> bool:
        return (
            self.status is Status.ACTIVE
            and self.number_of(LEVEL) == Level.ADMIN
            and self.number_of(AUTH) in AUTHENTICATION
            and self.has_key(AUTH_PASSWORD, AUTH_KEY)
        )

    def refused(self, columns: Sequence[str], why: str, accepted: str, status: ErrorStatus | None = None) -> Refused:
        """Naming the first of these columns that the SET has a varbind of, else the first varbind of the row."""
        at, edit = next((self.edits[name] for name in columns if name in self.edits), min(self.edits.values(), key=_at))
        return refusal(status or ErrorStatus.INCONSISTENT_VALUE, at, edit, why, accepted)


class Passwords:
    """The expander; one per store."""

    def __call__(self, before: Configuration, placed: Sequence[Placed], origin: Origin) -> Sequence[Placed]:
        """Raises Refused."""
        drafts: dict[int, _Draft] = {}
        for at, edit in placed:
            if edit.column.table == USER_TABLE:
                draft = drafts.get(edit.number)
                if draft is None:
                    draft = drafts[edit.number] = _draft(before, edit.number)
                draft.edits.setdefault(edit.column.name, (at, edit))
        if not drafts:
            return placed
        for draft in drafts.values():
            _check_lengths(draft)
            if draft.status is Status.ACTIVE:
                _check_user(draft, origin)
            if draft.before is not None:
                _check_changes(draft)
        _check_names(before, drafts)
        _check_administrators(before, drafts)
        return _expanded(before, placed, drafts)


def _check_lengths(draft: _Draft) -> None:
    for column in (AUTH_PASSWORD, PRIV_PASSWORD):
        if column in draft.edits and draft.octets(column) not in (b"", MASK) and len(draft.octets(column)) < LEAST:
            accepted = f"{LEAST} octets or more, or * for the one there is"
            raise draft.refused([column], f"{len(draft.octets(column))} octets", accepted, ErrorStatus.WRONG_VALUE)


def _check_user(draft: _Draft, origin: Origin) -> None:
    """What an active user needs. Keys may be missing where the agent itself writes, as in a configuration that was
    exported without them: such a user has no access until he is given a password."""
    if not draft.octets(NAME):
        raise draft.refused([NAME, ROW_STATUS], "a user has a name", f"{NAME} of 1..32 octets in the same SET")
    if origin.kind != "snmp":
        return
    if draft.number_of(AUTH) == NONE:
        if draft.number_of(PRIV) != NONE:
            raise draft.refused([PRIV, AUTH], "privacy needs authentication", "an authentication protocol")
        if draft.before is None or not draft.before.active:  # from a user that is there it may be taken, RFC 3414
            raise draft.refused([AUTH], "a user who proves nothing has no access", "an authentication protocol")
        return
    touched = draft.before is None or not draft.before.active or draft.edits.keys() - WITHOUT_KEYS
    if not touched:
        return
    if not draft.has_key(AUTH_PASSWORD, AUTH_KEY):
        raise draft.refused(
            [AUTH_PASSWORD, ROW_STATUS, NAME], "the user has no key", f"{AUTH_PASSWORD} in the same SET"
        )
    if draft.number_of(PRIV) != NONE and not draft.has_key(PRIV_PASSWORD, PRIV_KEY):
        accepted = f"{PRIV_PASSWORD} in the same SET, or {PRIV} none"
        raise draft.refused([PRIV_PASSWORD, PRIV, ROW_STATUS, NAME], "the user has no key for privacy", accepted)


def _check_changes(draft: _Draft) -> None:
    """Keys stay with the hash they were made with."""
    if draft.status is None:
        return
    private = draft.number_of(PRIV) != NONE
    both = f"{AUTH_PASSWORD} and {PRIV_PASSWORD}" if private else AUTH_PASSWORD
    if draft.changed(AUTH) and draft.number_of(AUTH) != NONE and draft.had_key(AUTH_KEY):
        kept = draft.has_key(AUTH_PASSWORD, AUTH_KEY) and not draft.renewed(AUTH_PASSWORD, AUTH_KEY)
        kept_priv = private and draft.has_key(PRIV_PASSWORD, PRIV_KEY) and not draft.renewed(PRIV_PASSWORD, PRIV_KEY)
        if kept or kept_priv:
            why = "the keys were made with another protocol"
            raise draft.refused([AUTH], why, f"with new values of {both} in the same SET")
    if draft.number_of(KEY_KIND) == MASTER or KEY_KIND in draft.edits:
        return
    auth, priv = (draft.renewed(*pair) for pair in ((AUTH_PASSWORD, AUTH_KEY), (PRIV_PASSWORD, PRIV_KEY)))
    if (auth and private and not priv and draft.has_key(PRIV_PASSWORD, PRIV_KEY)) or (priv and not auth):
        why = "the keys were changed by usmUserTable, and passwords replace both of them"
        raise draft.refused([AUTH_PASSWORD, PRIV_PASSWORD], why, f"{both} in the same SET")


def _check_names(before: Configuration, drafts: Mapping[int, _Draft]) -> None:
    """No two users of one name."""
    rows = before.rows_any_status(USER_TABLE)
    taken = {row[NAME]: row.number for row in rows if row.number not in drafts}
    for draft in drafts.values():
        name = draft.octets(NAME)
        if draft.status is None or not name:
            continue
        other = taken.setdefault(name, draft.number)
        if other != draft.number and (NAME in draft.edits or NAME in drafts.get(other, draft).edits):
            guilty = draft if NAME in draft.edits else drafts[other]
            raise guilty.refused([NAME], f"user {other} has this name", "a name that no other user has")


def _check_administrators(before: Configuration, drafts: Mapping[int, _Draft]) -> None:
    numbers = before.table(USER_TABLE).numbers()
    was = [number for number in numbers if _draft(before, number).administers]
    if not was or any(number not in drafts or drafts[number].administers for number in was):
        return
    if any(draft.administers for draft in drafts.values()):
        return
    draft = drafts[was[-1]]
    why = "nobody of level admin would be left"
    raise draft.refused([ROW_STATUS, LEVEL, AUTH, AUTH_PASSWORD], why, "once another user of level admin has a key")


def _expanded(before: Configuration, placed: Sequence[Placed], drafts: Mapping[int, _Draft]) -> list[Placed]:
    """The edits with keys in the place of passwords, and what follows from them."""
    columns = before.schema.columns
    found: list[Placed] = []
    for at, edit in placed:
        if edit.column.table == USER_TABLE and edit.column.traits.role is Role.SECRET:
            assert isinstance(edit.value, bytes)
            if edit.value not in (b"", MASK):
                authentication = AUTHENTICATION.get(drafts[edit.number].number_of(AUTH))
                if authentication is None:
                    accepted = f"an authentication protocol in {AUTH}"
                    raise drafts[edit.number].refused([edit.column.name], "no key can be made of it", accepted)
                edit = Edit(edit.column, edit.number, key_of_passphrase(edit.value, authentication.hash))
        found.append((at, edit))
    found += _login_keys_of(before, drafts, {(edit.column.name, edit.number) for _, edit in placed})
    for draft in drafts.values():
        if draft.status is None:
            continue
        at = min(place for place, _ in draft.edits.values())
        if draft.number_of(KEY_KIND) != MASTER and KEY_KIND not in draft.edits and _gives_password(draft):
            found.append((at, Edit(columns[KEY_KIND], draft.number, MASTER)))
        if draft.changed(AUTH):  # keys of the old protocol that nothing replaces are of no use
            for password, key, protocol in ((AUTH_PASSWORD, AUTH_KEY, AUTH), (PRIV_PASSWORD, PRIV_KEY, PRIV)):
                unused = draft.number_of(protocol) == NONE and draft.had_key(key)
                if unused and not {password, key} & draft.edits.keys():
                    found.append((at, Edit(columns[password], draft.number, b"")))
        _warn(draft)
    return found


def _login_keys_of(
    before: Configuration, drafts: Mapping[int, _Draft], named: Set[tuple[str, int]]
) -> Iterator[Placed]:
    """The keys of a user go with the user: whoever gets the number next must not be reached by them."""
    gone = {draft.number: draft for draft in drafts.values() if draft.status is None and draft.before is not None}
    if not gone:
        return
    column = before.schema.columns[LOGIN_KEY_STATUS]
    for row in before.rows_any_status(LOGIN_KEY_TABLE):
        user = row[LOGIN_KEY_USER]
        if isinstance(user, int) and user in gone and not {(c, row.number) for c in LOGIN_KEY_MOVES} & named:
            at = min(place for place, _ in gone[user].edits.values())
            yield at, Edit(column, row.number, int(Status.DESTROY))


def _gives_password(draft: _Draft) -> bool:
    return any(c in draft.edits and draft.octets(c) not in (b"", MASK) for c in (AUTH_PASSWORD, PRIV_PASSWORD))


def _warn(draft: _Draft) -> None:
    """Weak protocols are for old managers only."""
    for column, (weak, name) in WEAK.items():
        if draft.number_of(column) == weak and (draft.before is None or draft.changed(column)):
            user = draft.octets(NAME).decode("utf-8", "backslashreplace")
            log.warning("user %d %r: %s is weak; for managers that know no better only", draft.number, user, name)


def _draft(before: Configuration, number: int) -> _Draft:
    return _Draft(before.schema.tables[USER_TABLE], number, before.row_any_status(USER_TABLE, number))


def _at(entry: tuple[int, Edit]) -> int:
    return entry[0]
