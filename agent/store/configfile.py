"""A configuration as a file: readable TOML, stable, and back again without loss.

An array of tables per table, a table per scalar group; in them what differs from the
default, labels and addresses as text. Nothing in a file says when, where or by whom it was
written, so that two of them can be compared line by line. Secrets read `*`; where they are
included they stand sealed at the end, each bound to its place. The writer is our own, since
ten thousand peers take a general one half a minute; what it writes is read by tomllib.
"""

from __future__ import annotations

import ipaddress
import json
import re
import tomllib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from agent.mib.ber import NUMERIC, Value, Wire
from agent.mib.schema import Column, Keeping, Role, Schema, Table
from agent.store.candidate import MASK
from agent.store.errors import SecretsError, StoreError
from agent.store.load import ADMINISTRATION, MOST_PROBLEMS, Contents, Place, sealed_columns
from agent.store.passphrase import Lock, StoreKeyLock, lock_of
from agent.store.secrets import Secrets
from agent.store.snapshot import Configuration, TableSnapshot, decoded

FORMAT: Final = 1
NUMBER: Final = "number"
ADMINISTRATION_SECTION: Final = "administration"
SECRETS_SECTION: Final = "secrets"
HEX: Final = "hex:"
CHECK: Final[Place] = (SECRETS_SECTION, 0, "check")  # opens where the passphrase is right, whatever else there is
HEADER: Final = """\
# Configuration of ipsec-agent: what differs from the defaults, which docs/objects.md lists.
# A row's number is its instance in SNMP. Secrets read "*".
"""
KEPT: Final = (Role.PLAIN, Role.CREATING, Role.ROW_STATUS, Role.SECRET)
ADDRESSES: Final = frozenset({"InetAddress", "InetAddressIPv4", "InetAddressIPv6"})
"""Conventions whose octets are an address; what is none of four or sixteen octets is written in hexadecimal."""


class FileError(StoreError):
    """The file cannot be used; `problems` has a line for each mistake, up to MOST_PROBLEMS."""

    def __init__(self, problems: list[str]) -> None:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(problems[0] + more)
        self.problems = tuple(problems[:MOST_PROBLEMS])


# ---- writing ----------------------------------------------------------------------------


def write_configuration(
    configuration: Configuration,
    *,
    administration: bool = False,
    secrets: Secrets | None = None,
    lock: Lock | None = None,
) -> str:
    """The file. With a `lock` secrets are included, sealed with it; `secrets` opens those of the configuration.
    `administration`: users, targets and sources are included. Raises SecretsError."""
    parts = [HEADER, f"format = {FORMAT}\n"]
    tables = list(configuration.tables.values())
    for snapshot in tables:
        if snapshot.table.name not in ADMINISTRATION:
            parts += _table(snapshot, "")
    if administration:
        parts.append(f"\n[{ADMINISTRATION_SECTION}]\n")
        for snapshot in tables:
            if snapshot.table.name in ADMINISTRATION:
                parts += _table(snapshot, f"{ADMINISTRATION_SECTION}.")
    if lock is not None:
        assert secrets is not None
        chosen = [s for s in tables if administration or s.table.name not in ADMINISTRATION]
        parts += _secrets(chosen, secrets, lock)
    return "".join(parts)


def _table(snapshot: TableSnapshot, section: str) -> Iterator[str]:
    table = snapshot.table
    columns = [_Writing(column) for column in table.columns if column.traits.role in KEPT]
    for row in snapshot.rows():
        cells = row.cells
        lines = [written.line(tlv) for written in columns if (tlv := cells[written.position]) != written.default]
        if not table.scalar:
            yield f"\n[[{section}{table.name}]]\n{NUMBER} = {row.number}\n"
        elif lines:
            yield f"\n[{section}{table.name}]\n"
        yield from lines


class _Writing:
    """One column: its lines, each value written once."""

    def __init__(self, column: Column) -> None:
        self._column = column
        self._lines: dict[bytes, str] = {}
        self.position = column.position
        self.default = column.default_tlv

    def line(self, tlv: bytes) -> str:
        line = self._lines.get(tlv)
        if line is None:
            line = self._lines[tlv] = f"{self._column.name} = {toml_value(self._column, decoded(tlv))}\n"
        return line


def toml_value(column: Column, value: Value) -> str:
    """A value in TOML."""
    if isinstance(value, int):
        label = column.names.get(value)
        return str(value) if label is None else f'"{label}"'
    return json.dumps(_text(column, value), ensure_ascii=False)


def _text(column: Column, value: bytes | tuple[int, ...]) -> str:
    if isinstance(value, tuple):
        return ".".join(map(str, value))
    if column.wire is Wire.IP_ADDRESS:
        return str(ipaddress.IPv4Address(value))
    if column.convention in ADDRESSES and value:
        return str(ipaddress.ip_address(value)) if len(value) in (4, 16) else HEX + value.hex()
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return HEX + value.hex()
    return text if text.isprintable() and not text.startswith(HEX) else HEX + value.hex()


def _secrets(tables: Iterable[TableSnapshot], secrets: Secrets, lock: Lock) -> Iterator[str]:
    yield f"\n[{SECRETS_SECTION}]\n"
    yield from (f"{name} = {json.dumps(value)}\n" for name, value in lock.parameters().items())
    yield f'check = "{_coded(lock.seal(CHECK, b""))}"\n'
    for snapshot in tables:
        for column in sealed_columns(snapshot.table):
            head = f"\n[{SECRETS_SECTION}.{column.name}]\n"
            for numbers, cells in snapshot.column(column.position):
                for number, tlv in zip(numbers, cells, strict=True):
                    blob = decoded(tlv)
                    if isinstance(blob, bytes) and blob:
                        plain = secrets.open(column.table, number, column.name, blob)
                        sealed = lock.seal((column.table, number, column.name), plain)
                        yield f'{head}{number} = "{_coded(sealed)}"\n'
                        head = ""


def _coded(blob: bytes) -> str:
    return b64encode(blob).decode()


# ---- reading ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ConfigurationFile:
    """What a file says. `sealed`: sealed secrets by place, None where the file has none; `parameters`: of the lock.
    `plain_secrets`: somebody has written secrets into it."""

    rows: Mapping[str, Mapping[int, Mapping[str, Value]]]
    administration: bool
    sealed: Mapping[Place, bytes] | None = field(default=None, repr=False)
    check: bytes = b""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    plain_secrets: bool = False

    def contents(self, secrets: Secrets, passphrase: str = "") -> Contents:
        """With its secrets open; `secrets`: those of the store, for files that are sealed with its key. Takes a
        tenth of a second and more where there is a passphrase. Raises SecretsError."""
        if self.sealed is None:
            return Contents(self.rows, None, self.administration)
        lock = lock_of(self.parameters, passphrase, secrets)
        try:
            lock.open(CHECK, self.check)
        except SecretsError:
            if isinstance(lock, StoreKeyLock):
                raise SecretsError("the secrets in the file are sealed with the key of another store") from None
            raise SecretsError("the passphrase does not open the secrets in the file") from None
        return Contents(
            self.rows, {place: lock.open(place, blob) for place, blob in self.sealed.items()}, self.administration
        )


def read_configuration(schema: Schema, text: str) -> ConfigurationFile:
    """What a file says, each value fit for its column's type; whether it holds together is seen by the load. Raises
    FileError. Takes about a second for 10,000 peers."""
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise FileError([f"the file is no TOML: {error}"]) from None
    return _Reading(schema).read(document)


class _Reading:
    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._tables = {t.name: t for t in schema.tables.values() if t.keeping is Keeping.STORED}
        self._values: dict[tuple[str, Any], Value] = {}
        self.rows: dict[str, dict[int, dict[str, Value]]] = {}
        self.problems: list[str] = []
        self._plain_secrets = False

    def read(self, document: dict[str, Any]) -> ConfigurationFile:
        version = document.pop("format", None)
        if version != FORMAT or isinstance(version, bool):
            raise FileError([f"format = {version!r} in the file; accepted: {FORMAT}"])
        secrets = document.pop(SECRETS_SECTION, None)
        administration = document.pop(ADMINISTRATION_SECTION, None)
        self._section(document, "", lambda name: name not in ADMINISTRATION)
        if administration is not None:
            if isinstance(administration, dict):
                self._section(administration, f"{ADMINISTRATION_SECTION}.", ADMINISTRATION.__contains__)
            else:
                self.problems.append(f"{ADMINISTRATION_SECTION}: accepted: [{ADMINISTRATION_SECTION}]")
        sealed, check, parameters = self._secrets(secrets) if secrets is not None else (None, b"", {})
        if self.problems:
            raise FileError(self.problems)
        return ConfigurationFile(self.rows, administration is not None, sealed, check, parameters, self._plain_secrets)

    def _section(self, section: dict[str, Any], path: str, belongs: Any) -> None:
        for name, entries in section.items():
            table = self._tables.get(name)
            if table is None or not belongs(name):
                where = f"; it belongs into [{ADMINISTRATION_SECTION}]" if name in ADMINISTRATION else ""
                self.problems.append(f"{path}{name}: no table of a configuration{where}; docs/objects.md lists them")
            elif table.scalar:
                if isinstance(entries, dict):
                    self.rows[name] = {0: self._row(table, 0, entries)}
                else:
                    self.problems.append(f"{path}{name}: accepted: [{path}{name}] with values")
            elif isinstance(entries, list):
                self._rows(table, f"{path}{name}", entries)
            else:
                self.problems.append(f"{path}{name}: accepted: [[{path}{name}]] for each row")

    def _rows(self, table: Table, path: str, entries: list[Any]) -> None:
        rows = self.rows[table.name] = {}
        for at, entry in enumerate(entries, 1):
            number = entry.pop(NUMBER, None) if isinstance(entry, dict) else None
            if not isinstance(number, int) or isinstance(number, bool) or number < 1:
                self.problems.append(f"{path}, entry {at}: {NUMBER} = {number!r}; accepted: a number from 1 on")
            elif number in rows:
                self.problems.append(f"{path} {number}: is there twice; accepted: one row of a number")
            else:
                rows[number] = self._row(table, number, entry)

    def _row(self, table: Table, number: int, entry: dict[str, Any]) -> dict[str, Value]:
        row: dict[str, Value] = {}
        for name, given in entry.items():
            column = table.by_name.get(name)
            if column is None or column.traits.role not in KEPT:
                self.problems.append(f"{table.name} {number}: {name} is nothing that can be set in it")
                continue
            try:
                row[name] = value = self._value(column, given)
                if column.traits.role is Role.SECRET and value not in (b"", MASK):
                    self._plain_secrets = True
            except ValueError as error:
                shown = "*" if column.traits.role is Role.SECRET else json.dumps(given, default=str)
                self.problems.append(f"{name}.{number} = {shown}: {error}")
        return row

    def _value(self, column: Column, given: Any) -> Value:
        """Raises ValueError. Equal values are worked out once."""
        key = (column.name, given) if isinstance(given, str) else None
        if key is not None and key in self._values:
            return self._values[key]
        value = parsed_value(column, given)
        if key is not None:
            self._values[key] = value
        return value

    def _secrets(self, section: Any) -> tuple[dict[Place, bytes], bytes, dict[str, Any]]:
        sealed: dict[Place, bytes] = {}
        if not isinstance(section, dict):
            self.problems.append(f"{SECRETS_SECTION}: accepted: [{SECRETS_SECTION}]")
            return sealed, b"", {}
        check = self._blob("check", section.pop("check", ""))
        parameters = {name: value for name, value in section.items() if not isinstance(value, dict)}
        for name, blobs in section.items():
            if not isinstance(blobs, dict):
                continue
            column = self._schema.columns.get(name)
            if column is None or column.traits.role is not Role.SEALED:
                self.problems.append(f"{SECRETS_SECTION}.{name}: no object that is sealed")
                continue
            for number, blob in blobs.items():
                if not re.fullmatch(r"[0-9]{1,10}", number):
                    self.problems.append(f"{SECRETS_SECTION}.{name}: {number!r} is no number of a row")
                    continue
                sealed[column.table, int(number), name] = self._blob(f"{name}.{number}", blob)
        return sealed, check, parameters

    def _blob(self, name: str, text: Any) -> bytes:
        try:
            return b64decode(text, validate=True)
        except (ValueError, TypeError):
            self.problems.append(f"{SECRETS_SECTION}: {name} is not base64")
            return b""


def parsed_value(column: Column, given: Any) -> Value:
    """A value of TOML as the column's. Raises ValueError with what is accepted."""
    if column.wire in NUMERIC:
        if isinstance(given, str) and column.labels:
            if given not in column.labels:
                raise ValueError(f"no label of it; accepted: {', '.join(column.labels)}")
            return column.labels[given]
        if not isinstance(given, int) or isinstance(given, bool):
            raise ValueError(f"accepted: {', '.join(column.labels) or 'a number'}")
        return given
    if not isinstance(given, str):
        raise ValueError("accepted: text in quotation marks")
    if column.wire is Wire.OBJECT_IDENTIFIER:
        if not re.fullmatch(r"[0-9]+(\.[0-9]+)+", given):
            raise ValueError("accepted: numbers with dots between them")
        return tuple(map(int, given.split(".")))
    if column.wire is Wire.IP_ADDRESS:
        return ipaddress.IPv4Address(given).packed
    if given.startswith(HEX):
        return bytes.fromhex(given[len(HEX) :])
    if column.convention in ADDRESSES and given:
        return ipaddress.ip_address(given).packed
    return given.encode()
