"""KeyChange of RFC 3414: how a key is replaced by who knows the old one, with nothing to be read on the way.

A SET of usmUserTable that changes keys, or copies those of another user, travels to the
store as an Edit of a password column whose value is not a password: `KeyChange` or
`KeysOf`. `KeyChanges`, an expander, puts the keys in their place, on the configuration
that the SET is applied to, so that of two changes at once the second sees the first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from agent.mib.ber import Value
from agent.mib.schema import Column
from agent.snmp.users import AUTH_KEY, KEY_KIND, LOCALIZED, PRIV_KEY, USER_TABLE, Keys, Opening, open_keys
from agent.snmp.usm import AUTHENTICATION, PRIVACY, Authentication, Privacy
from agent.store.edits import refusal
from agent.store.errors import ErrorStatus, Refused
from agent.store.hooks import Edit, Origin, Placed
from agent.store.snapshot import Configuration, Row

AUTH_PROTOCOL: Final = "ipsecGwUserAuthProtocol"
PRIV_PROTOCOL: Final = "ipsecGwUserPrivProtocol"
AUTH_PASSWORD: Final = "ipsecGwUserAuthPassword"
PRIV_PASSWORD: Final = "ipsecGwUserPrivPassword"


class KeyChange(bytes):
    """Random octets, then as many of difference: what is written to usmUser…KeyChange. In place of a password."""


class KeysOf(bytes):
    """The number of another row, in place of a password: take over its protocols and keys."""

    @classmethod
    def row(cls, number: int) -> KeysOf:
        return cls(number.to_bytes(8, "big"))

    @property
    def number(self) -> int:
        return int.from_bytes(self, "big")


def changed_key(old: bytes, change: bytes, hash_name: str) -> bytes:
    """The new key (RFC 3414 section 5, KeyChange): as long as half of `change`. Raises ValueError for another
    length than twice the old key's."""
    length = len(old)
    if len(change) != 2 * length:
        raise ValueError(f"{2 * length} octets expected")
    random, difference = change[:length], change[length:]
    stream, block = b"", old
    while len(stream) < length:
        block = hashlib.new(hash_name, block + random).digest()
        stream += block
    return bytes(a ^ b for a, b in zip(difference, stream[:length], strict=True))


def key_change(old: bytes, new: bytes, random: bytes, hash_name: str) -> bytes:
    """What to write so that `old` becomes `new`; all three are of one length."""
    return random + changed_key(old, random + new, hash_name)


class Protocols(NamedTuple):
    """How a user proves and hides; None is neither."""

    authentication: Authentication | None
    privacy: Privacy | None


def protocols(row: Row) -> Protocols:
    auth, priv = row[AUTH_PROTOCOL], row[PRIV_PROTOCOL]
    assert isinstance(auth, int) and isinstance(priv, int)
    return Protocols(AUTHENTICATION.get(auth), PRIVACY.get(priv))


@dataclass(slots=True)
class _Row:
    """What becomes of the keys of a row. `source`: where they come from; `at`: the varbind to name."""

    at: int
    source: Row
    keys: Keys
    copied: bool


class KeyChanges:
    """An Expander of agent.store.hooks."""

    def __init__(self, columns: Mapping[str, Column], secrets: Opening, engine_id: bytes) -> None:
        self._columns = columns
        self._secrets = secrets
        self._engine_id = engine_id

    def __call__(self, before: Configuration, placed: Sequence[Placed], origin: Origin) -> Sequence[Placed]:
        if not any(isinstance(edit.value, KeyChange | KeysOf) for _, edit in placed):
            return placed
        rows: dict[int, _Row] = {}
        for at, edit in placed:
            if isinstance(edit.value, KeysOf):
                source = before.row(USER_TABLE, edit.value.number)
                if source is None:
                    raise _refused(at, edit, "the user to copy is gone")
                rows[edit.number] = _Row(at, source, self._localized(source), True)
        for at, edit in placed:
            if isinstance(edit.value, KeyChange):
                self._change(before, rows, at, edit)
        kept = [(at, edit) for at, edit in placed if not isinstance(edit.value, KeyChange | KeysOf)]
        named = {(edit.number, edit.column.name) for _, edit in kept}
        made = [found for number, row in rows.items() for found in self._edits(number, row)]
        return [*kept, *(found for found in made if (found[1].number, found[1].column.name) not in named)]

    def _localized(self, row: Row) -> Keys:
        """The keys of a row as Kul."""
        keys = open_keys(self._secrets, row)
        auth, privacy = protocols(row)
        if auth is None or not keys.auth:
            return Keys(b"", b"", True)
        priv = keys.privacy_key(self._engine_id, auth.hash, privacy) if privacy is not None and keys.priv else b""
        return Keys(keys.authentication_key(self._engine_id, auth.hash), priv, True)

    def _change(self, before: Configuration, rows: dict[int, _Row], at: int, edit: Edit) -> None:
        row = rows.get(edit.number)
        if row is None:
            source = before.row_any_status(USER_TABLE, edit.number)
            if source is None:
                raise _refused(at, edit, "there is no such user")
            row = rows[edit.number] = _Row(at, source, self._localized(source), False)
        auth, _ = protocols(row.source)
        own = edit.column.name == AUTH_PASSWORD
        old = row.keys.auth if own else row.keys.priv
        if auth is None or not old:
            raise _refused(at, edit, "there is no key to change")
        assert isinstance(edit.value, bytes)
        try:
            new = changed_key(old, edit.value, auth.hash)
        except ValueError as error:
            raise refusal(ErrorStatus.WRONG_LENGTH, at, edit, f"{len(edit.value)} octets", str(error)) from None
        row.keys = row.keys._replace(auth=new) if own else row.keys._replace(priv=new)

    def _edits(self, number: int, row: _Row) -> list[Placed]:
        values: dict[str, Value] = {AUTH_KEY: row.keys.auth, KEY_KIND: LOCALIZED}
        if row.keys.priv or row.copied:
            values[PRIV_KEY] = row.keys.priv
        if row.copied:
            unchanged = open_keys(self._secrets, row.source)
            if self._localized(row.source) == row.keys and not unchanged.localized:
                values |= {AUTH_KEY: unchanged.auth, PRIV_KEY: unchanged.priv, KEY_KIND: 1}
            values |= {name: row.source[name] for name in (AUTH_PROTOCOL, PRIV_PROTOCOL)}
        return [(row.at, Edit(self._columns[name], number, value)) for name, value in values.items()]


def _refused(at: int, edit: Edit, why: str) -> Refused:
    return refusal(ErrorStatus.INCONSISTENT_NAME, at, edit, why)
