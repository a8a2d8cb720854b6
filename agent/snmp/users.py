"""The users of SNMPv3 as ipsecGwUserTable has them, with keys opened; kept up to date by the store's changes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from agent.mib.ber import Value
from agent.snmp.access import Level, Principal
from agent.snmp.usm import AUTHENTICATION, PRIVACY, Privacy, User, localized, localized_for
from agent.store.errors import SecretsError
from agent.store.hooks import Change
from agent.store.snapshot import Configuration, Row

log = logging.getLogger(__name__)

USER_TABLE: Final = "ipsecGwUserTable"
AUTH_KEY: Final = "ipsecGwUserAuthKey"
PRIV_KEY: Final = "ipsecGwUserPrivKey"
KEY_KIND: Final = "ipsecGwUserKeyKind"
LOCALIZED: Final = 2  # ipsecGwUserKeyKind: the keys are Kul of this engine


class Opening(Protocol):
    """The store's Secrets."""

    def open(self, table: str, row: int, column: str, blob: bytes) -> bytes: ...


class Users:
    """Subscriber of the store. `by_name` is one mapping that stays the same object."""

    def __init__(self, secrets: Opening, engine_id: bytes) -> None:
        self.by_name: dict[bytes, User] = {}
        self._secrets = secrets
        self._engine_id = engine_id
        self._listeners: list[Callable[[], None]] = []

    def listen(self, listener: Callable[[], None]) -> None:
        """Called after every change of `by_name`."""
        self._listeners.append(listener)

    def changed(self, change: Change) -> None:
        if change.replay or any(row.table == USER_TABLE for row in change.rows):
            self._load(change.after)

    def _load(self, configuration: Configuration) -> None:
        users: dict[bytes, User] = {}
        for row in configuration.rows(USER_TABLE):
            try:
                user = self._user(row)
            except SecretsError as error:
                log.error("user %s cannot be used: %s", row["ipsecGwUserName"], error)
                continue
            if user is not None:
                users.setdefault(user.name.encode(), user)
        self.by_name.clear()
        self.by_name.update(users)
        for listener in self._listeners:
            listener()

    def _user(self, row: Row) -> User | None:
        name = octets_of(row["ipsecGwUserName"])
        authentication = AUTHENTICATION.get(number_of(row["ipsecGwUserAuthProtocol"]))
        privacy = PRIVACY.get(number_of(row["ipsecGwUserPrivProtocol"]))
        if not name or authentication is None:  # a user who proves nothing has no access: nothing weak
            log.warning("user %d is ignored: it needs a name and an authentication protocol", row.number)
            return None
        if not row[AUTH_KEY]:
            log.warning("user %d is ignored: it has no authentication key yet", row.number)
            return None
        keys = open_keys(self._secrets, row)
        return User(
            principal=Principal(name.decode("utf-8", "surrogateescape"), Level(number_of(row["ipsecGwUserLevel"]))),
            authentication=authentication,
            privacy=privacy,
            auth_master=b"" if keys.localized else keys.auth,
            priv_master=b"" if keys.localized or privacy is None else keys.priv,
            auth_key=keys.authentication_key(self._engine_id, authentication.hash),
            priv_key=b"" if privacy is None else keys.privacy_key(self._engine_id, authentication.hash, privacy),
            sources=number_of(row["ipsecGwUserSourceList"]),
            row=row.number,
        )


class Keys(NamedTuple):
    """The keys of a row: Kul of this engine where `localized`, else Ku. Empty where there is none."""

    auth: bytes
    priv: bytes
    localized: bool

    def authentication_key(self, engine_id: bytes, hash_name: str) -> bytes:
        """Kul."""
        return self.auth if self.localized else localized(self.auth, engine_id, hash_name)

    def privacy_key(self, engine_id: bytes, hash_name: str, privacy: Privacy) -> bytes:
        """Kul, as long as the protocol needs it."""
        return self.priv if self.localized else localized_for(self.priv, engine_id, hash_name, privacy)


def open_keys(secrets: Opening, row: Row) -> Keys:
    """Raises SecretsError."""

    def opened(column: str) -> bytes:
        sealed = octets_of(row[column])
        return secrets.open(USER_TABLE, row.number, column, sealed) if sealed else b""

    return Keys(opened(AUTH_KEY), opened(PRIV_KEY), row[KEY_KIND] == LOCALIZED)


def user_names(configuration: Configuration) -> dict[bytes, Row]:
    """Rows by name, whatever their status; of several with one name the one that counts: the first active one."""
    found: dict[bytes, Row] = {}
    for row in configuration.rows_any_status(USER_TABLE):
        name = octets_of(row["ipsecGwUserName"])
        if name and (name not in found or (row.active and not found[name].active)):
            found[name] = row
    return found


def number_of(value: Value) -> int:
    """A cell of an INTEGER kind."""
    assert isinstance(value, int)
    return value


def octets_of(value: Value) -> bytes:
    """A cell of octets."""
    assert isinstance(value, bytes)
    return value
