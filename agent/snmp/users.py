"""The users of SNMPv3 as ipsecGwUserTable has them, with keys opened; kept up to date by the store's changes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Protocol

from agent.mib.ber import Value
from agent.snmp.access import Level, Principal
from agent.snmp.usm import AUTHENTICATION, PRIVACY, User, localized
from agent.store.errors import SecretsError
from agent.store.hooks import Change
from agent.store.snapshot import Configuration, Row

log = logging.getLogger(__name__)

USER_TABLE: Final = "ipsecGwUserTable"
AUTH_KEY: Final = "ipsecGwUserAuthKey"
PRIV_KEY: Final = "ipsecGwUserPrivKey"


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
        name = _octets(row["ipsecGwUserName"])
        authentication = AUTHENTICATION.get(_number(row["ipsecGwUserAuthProtocol"]))
        privacy = PRIVACY.get(_number(row["ipsecGwUserPrivProtocol"]))
        if not name or authentication is None:  # a user who proves nothing has no access: nothing weak
            log.warning("user %d is ignored: it needs a name and an authentication protocol", row.number)
            return None
        auth_key = self._opened(row, AUTH_KEY)
        return User(
            principal=Principal(name.decode("utf-8", "surrogateescape"), Level(_number(row["ipsecGwUserLevel"]))),
            authentication=authentication,
            privacy=privacy,
            auth_master=auth_key,
            priv_master=self._opened(row, PRIV_KEY) if privacy is not None else b"",
            auth_key=localized(auth_key, self._engine_id, authentication.hash),
        )

    def _opened(self, row: Row, column: str) -> bytes:
        return self._secrets.open(USER_TABLE, row.number, column, _octets(row[column]))


def _number(value: Value) -> int:
    assert isinstance(value, int)
    return value


def _octets(value: Value) -> bytes:
    assert isinstance(value, bytes)
    return value
