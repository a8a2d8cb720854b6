"""`ipsec-agent user`: the SNMPv3 users of an agent, whether it runs or not.

A running agent is asked by SNMP, as the user that its snmp.conf names. A stopped one's store
is opened, and the same rows are written by the same commit with the same rules. Which of
the two it is, the store's lock says. Passwords come from a prompt, a file or the system's
random numbers, never from the command line, and are printed only where they were generated.
"""

from __future__ import annotations

import asyncio
import getpass
import logging
import secrets
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from agent.config import Settings, parse_endpoint
from agent.mib import load_schema
from agent.mib.ber import Value
from agent.mib.schema import Schema
from agent.snmp.client import RequestFailed, SnmpClient, SnmpError, UsmUser, parse_value, read_configuration
from agent.snmp.client.configuration import rewrite_passphrases
from agent.snmp.client.credentials import Credentials, user_of_passphrases
from agent.snmp.identity import CONFIGURATION_FILE, PASSPHRASE_OCTETS
from agent.snmp.passwords import (
    AUTH,
    AUTH_PASSWORD,
    LEAST,
    LEVEL,
    MASK,
    NAME,
    NONE,
    PRIV,
    PRIV_PASSWORD,
    ROW_STATUS,
    Passwords,
)
from agent.snmp.presence import local_address
from agent.snmp.users import USER_TABLE
from agent.store.errors import Refused, StoreError, StoreLocked
from agent.store.hooks import Edit, Origin
from agent.store.rows import Status
from agent.store.secrets import write_private_octets
from agent.store.store import Store, default_url

GENERATION: Final = "ipsecGwUserRowGeneration"
SOURCES: Final = "ipsecGwUserSourceList"
FREE: Final = "ipsecGwUserFree.0"
READ: Final = (NAME, LEVEL, AUTH, PRIV, SOURCES, ROW_STATUS, AUTH_PASSWORD)
COMMAND_LINE: Final = Origin("snmp", "command-line", secure=True)
"""A manager without a network between: the same access, stages and rules as for a SET."""


class UserError(Exception):
    """It cannot be done; the text says why and what is accepted."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Which agent, and who asks. `host`: ADDRESS:PORT instead of the state folder's agent; `configuration`: another
    snmp.conf; `user`: another user than the one it names, whose passwords are prompted for."""

    settings: Settings
    host: str = ""
    configuration: Path | None = None
    user: str = ""

    @property
    def own_file(self) -> Path:
        """The snmp.conf that the agent made for itself."""
        return self.settings.state / CONFIGURATION_FILE


@dataclass(frozen=True, slots=True)
class PasswordSource:
    """Where passwords come from: the lines of a file (`-` is standard input), random numbers, else a prompt."""

    file: str = ""
    generate: bool = False


class Pair(NamedTuple):
    """Passwords of authentication and privacy; empty where there is none."""

    auth: str
    priv: str


Rows = Mapping[int, Mapping[str, Value]]


class Users(Protocol):
    """The user table of an agent."""

    async def rows(self) -> Rows: ...
    async def free(self) -> int: ...
    async def write(self, number: int, values: Mapping[str, Value]) -> None:
        """All or nothing. Raises UserError."""


# ---- the four commands ----------------------------------------------------------------


def list_users(asked: Asked) -> str:
    """All users as a table. Raises UserError."""

    async def work(users: Users) -> str:
        schema = load_schema()
        lines = [("NAME", "LEVEL", "AUTH", "PRIV", "SOURCES", "STATUS")]
        for row in (await users.rows()).values():
            label = {name: schema.columns[name].names.get(_number(row[name]), "?") for name in (LEVEL, AUTH, PRIV)}
            sources = str(row[SOURCES]) if row[SOURCES] else "any"
            status = schema.columns[ROW_STATUS].names.get(_number(row[ROW_STATUS]), "?")
            status = status if row[AUTH_PASSWORD] == MASK else "no key"
            lines.append((_text(row[NAME]), label[LEVEL], label[AUTH], label[PRIV], sources, status))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)

    return _run(asked, work)


def add_user(asked: Asked, name: str, level: str, auth: str, priv: str, source: PasswordSource) -> str:
    """Make a user. What it says holds passwords only where they were generated. Raises UserError."""
    values: dict[str, Value] = {NAME: name.encode(), **_labels({LEVEL: level, AUTH: auth, PRIV: priv})}
    _check_protocols(values[AUTH])

    async def work(users: Users) -> str:
        if _find(await users.rows(), name) is not None:
            raise UserError(f"there is a user {name!r} already; `user passwd` gives another password")
        pair = _passwords(name, source, private=values[PRIV] != NONE)
        fresh = {**values, **_as_columns(pair), GENERATION: 0, ROW_STATUS: Status.CREATE_AND_GO.value}
        await users.write(await users.free(), fresh)
        return _told(f"user {name} added, level {level}", pair, source)

    return _run(asked, work)


def change_password(asked: Asked, name: str, auth: str, priv: str, source: PasswordSource) -> str:
    """Give a user another password, and other protocols where they are named. Raises UserError."""
    values = _labels({column: label for column, label in ((AUTH, auth), (PRIV, priv)) if label})
    _check_protocols(values.get(AUTH))

    async def work(users: Users) -> str:
        rows = await users.rows()
        number = _existing(rows, name)
        after = {**rows[number], **values}
        pair = _passwords(name, source, private=after[PRIV] != NONE)
        await users.write(number, {**values, **_as_columns(pair)})
        said = _told(f"user {name} has a new password", pair, source)
        return said + _kept_in_file(asked, name, _number(after[AUTH]), _number(after[PRIV]), pair)

    return _run(asked, work)


def remove_user(asked: Asked, name: str) -> str:
    """Raises UserError, also for the last one of level admin."""

    async def work(users: Users) -> str:
        await users.write(_existing(await users.rows(), name), {ROW_STATUS: Status.DESTROY.value})
        said = f"user {name} removed"
        if not asked.host and _named_in(asked.own_file) == name:
            said += f"\n{asked.own_file} still names that user and is of no use now"
        return said

    return _run(asked, work)


# ---- which agent ----------------------------------------------------------------------


class Work(Protocol):
    async def __call__(self, users: Users) -> str: ...


def _run(asked: Asked, work: Work) -> str:
    logging.basicConfig(level=logging.WARNING, format="ipsec-agent: %(message)s", stream=sys.stderr)
    logging.getLogger("agent.audit").setLevel(logging.CRITICAL)  # a refusal is told once, as the command's error

    async def whole() -> str:
        async with _users(asked) as users:
            return await work(users)

    try:
        return asyncio.run(whole())
    except (SnmpError, StoreError, OSError) as error:
        raise UserError(str(error)) from None
    except Refused as refused:
        raise UserError(refused.text) from None


@asynccontextmanager
async def _users(asked: Asked) -> AsyncIterator[Users]:
    schema = load_schema()
    if asked.host:
        async with await open_client(asked, schema) as client:
            yield _Running(client)
        return
    settings = asked.settings
    check_store(settings)
    try:
        store = Store.open(schema, settings.store, settings.state)
    except StoreLocked:
        async with await open_client(asked, schema) as client:
            yield _Running(client)
        return
    try:
        store.expanders.append(Passwords())
        yield _Stopped(store)
    finally:
        await store.close()


def check_store(settings: Settings) -> None:
    """A wrong --state makes no store. Raises UserError."""
    file = Path(default_url(settings.state).removeprefix("sqlite:///"))
    if not settings.store and not file.is_file():
        accepted = "the --state of an agent that was started once"
        raise UserError(f"there is no store in {settings.state}; accepted: {accepted}")


async def open_client(asked: Asked, schema: Schema) -> SnmpClient:
    """Towards the agent that is asked. Raises UserError, SnmpError."""
    if asked.host:
        try:
            host, port = parse_endpoint(asked.host)
        except ValueError as error:
            raise UserError(f"--host: {error}") from None
    else:
        found = local_address(asked.settings.state)
        if found is None:
            raise UserError(f"an agent runs on {asked.settings.state} but does not say where; accepted: --host")
        host, port = found
    return await SnmpClient.open(host, port, _credentials(asked), schema)


def _credentials(asked: Asked) -> Credentials:
    path = asked.configuration or asked.own_file
    if not asked.user:
        return read_configuration(path)
    known = read_configuration(path) if path.exists() else None
    auth, priv = (known.authentication, known.privacy) if isinstance(known, UsmUser) else (5, 3)
    auth_password = _prompt(f"Authentication password of {asked.user}: ") if auth != NONE else ""
    priv_password = _prompt(f"Privacy password of {asked.user}: ") if priv != NONE else ""
    return user_of_passphrases(asked.user, auth, auth_password, priv, priv_password)


class _Running:
    """By SNMP."""

    def __init__(self, client: SnmpClient) -> None:
        self._client = client

    async def rows(self) -> Rows:
        return await self._client.table(USER_TABLE, READ)

    async def free(self) -> int:
        [free] = await self._client.get([FREE])
        taken = await self._client.table(USER_TABLE, [NAME])
        if isinstance(free.value, int) and free.value and free.value not in taken:
            return free.value
        return next(number for number in range(1, len(taken) + 2) if number not in taken)

    async def write(self, number: int, values: Mapping[str, Value]) -> None:
        try:
            await self._client.set([(f"{name}.{number}", value) for name, value in values.items()])
        except RequestFailed as failed:
            said = await self._client.last_refusal()
            raise UserError(said if failed.name and said.startswith(failed.name) else str(failed)) from None


class _Stopped:
    """In the store itself."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def rows(self) -> Rows:
        rows = self._store.running.rows_any_status(USER_TABLE)
        return {row.number: {name: row[name] for name in READ} for row in rows}

    async def free(self) -> int:
        return self._store.running.table(USER_TABLE).free_number()

    async def write(self, number: int, values: Mapping[str, Value]) -> None:
        columns = self._store.schema.columns
        await self._store.commit([Edit(columns[name], number, value) for name, value in values.items()], COMMAND_LINE)


# ---- passwords ------------------------------------------------------------------------


def _passwords(name: str, source: PasswordSource, *, private: bool) -> Pair:
    if source.generate:
        return Pair(secrets.token_hex(PASSPHRASE_OCTETS), secrets.token_hex(PASSPHRASE_OCTETS) if private else "")
    if source.file:
        auth, priv = _from_file(source.file)
        pair = Pair(auth, priv if private else "")
    else:
        auth = _twice(f"New authentication password of {name}: ")
        pair = Pair(auth, _twice(f"New privacy password of {name} (empty: the same): ", auth) if private else "")
    for what, password in zip(("authentication", "privacy"), pair, strict=True):
        if (password or what == "authentication") and len(password.encode()) < LEAST:
            raise UserError(f"the {what} password has {len(password.encode())} octets; accepted: {LEAST} or more")
    return pair


def _from_file(file: str) -> tuple[str, str]:
    """First and second line; one line is both passwords."""
    try:
        lines = (sys.stdin.read() if file == "-" else Path(file).read_text()).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--password-file {file} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not 1 <= len(lines) <= 2:
        accepted = "one line, or one for authentication and one for privacy"
        raise UserError(f"--password-file {file} has {len(lines)} lines; accepted: {accepted}")
    return lines[0], lines[-1]


def _twice(prompt: str, otherwise: str = "") -> str:
    password = _prompt(prompt)
    if not password and otherwise:
        return otherwise
    if _prompt("Once more: ") != password:
        raise UserError("the two passwords differ; nothing was changed")
    return password


def _prompt(prompt: str) -> str:
    if not sys.stdin.isatty():
        raise UserError("there is no terminal to ask for a password; accepted: --password-file or --generate")
    try:
        return getpass.getpass(prompt)
    except (EOFError, KeyboardInterrupt):
        raise UserError("no password; nothing was changed") from None


def _as_columns(pair: Pair) -> dict[str, Value]:
    values: dict[str, Value] = {AUTH_PASSWORD: pair.auth.encode()}
    if pair.priv:
        values[PRIV_PASSWORD] = pair.priv.encode()
    return values


def _told(text: str, pair: Pair, source: PasswordSource) -> str:
    if not source.generate:
        return text
    lines = [text, f"authentication password: {pair.auth}"]
    return "\n".join([*lines, f"privacy password: {pair.priv}"] if pair.priv else lines)


def _kept_in_file(asked: Asked, name: str, auth: int, priv: int, pair: Pair) -> str:
    """The state folder's snmp.conf follows the user it names; what to add to what is said."""
    path = asked.own_file
    if asked.host or _named_in(path) != name:
        return ""
    try:
        text = rewrite_passphrases(path.read_text(), auth, pair.auth, priv, pair.priv)
        write_private_octets(path, text.encode())
    except OSError as error:
        return f"\nthe password counts, but {path} could not be written: {error.strerror}"
    return f"\n{path} has it too"


def _named_in(path: Path) -> str:
    try:
        credentials = read_configuration(path)
    except SnmpError:
        return ""
    return credentials.name.decode() if isinstance(credentials, UsmUser) else ""


# ---- rows -----------------------------------------------------------------------------


def _labels(texts: Mapping[str, str]) -> dict[str, Value]:
    """Values of columns from what the command line says. Raises UserError."""
    columns = load_schema().columns
    try:
        found = {column: parse_value(columns[column], text) for column, text in texts.items()}
    except SnmpError as error:
        raise UserError(str(error)) from None
    for column, value in found.items():
        if problem := columns[column].problem(value):
            raise UserError(f"{column}: {texts[column]!r}: {problem}")
    return found


def _check_protocols(auth: Value | None) -> None:
    if auth == NONE:
        raise UserError("--auth none: a user who proves nothing has no access; accepted: sha256, sha512, …")


def _find(rows: Rows, name: str) -> int | None:
    return next((number for number, row in rows.items() if row[NAME] == name.encode()), None)


def _existing(rows: Rows, name: str) -> int:
    number = _find(rows, name)
    if number is None:
        raise UserError(f"there is no user {name!r}; accepted: {', '.join(_text(row[NAME]) for row in rows.values())}")
    return number


def _number(value: Value) -> int:
    return value if isinstance(value, int) else 0


def _text(value: Value) -> str:
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
