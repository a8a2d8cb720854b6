"""`ipsec-agent export` and `import`: the configuration as a file, whether the agent runs or not.

Export reads the store beside the agent. Import hands the file to a running agent by SNMP,
as a document and a job on it; a stopped one's store is opened and loads it by the same
commit. Either way it is one generation or nothing.
"""

from __future__ import annotations

import asyncio
import getpass
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from agent.keysizes import clamp_key_sizes
from agent.mib import load_schema
from agent.mib.ber import Value
from agent.mib.schema import Role, Schema
from agent.serve import capabilities_here
from agent.setchecks import check_named
from agent.snmp.client import RequestFailed, SnmpClient, SnmpError, Tlv
from agent.store.audit import rows_differ
from agent.store.candidate import Candidate
from agent.store.configfile import ConfigurationFile, FileError, read_configuration, write_configuration
from agent.store.documents import LARGEST_SEGMENT, MOST_OCTETS, SEGMENT_BITS
from agent.store.errors import Refused, SecretsError, StoreError, StoreLocked
from agent.store.hooks import Edit, Origin, RowChange
from agent.store.load import Loader, LoadRefused
from agent.store.passphrase import PassphraseLock
from agent.store.secrets import Secrets, load_key, write_private_octets
from agent.store.snapshot import Configuration
from agent.store.store import Store, read_store
from agent.users_command import Asked, UserError, check_store, open_client

SEGMENTS_IN_SET: Final = 3  # 12 KB, which fit into a message of 16
POLLING: Final = 0.2  # seconds between looks at a job
PATIENCE: Final = 300.0  # seconds that a job may take
DONE, ERROR = 3, 4  # ipsecGwImportState
MOST_LINES: Final = 200  # differences that are told
COMMAND_LINE: Final = Origin("snmp", "command-line", secure=True)


class TransferError(Exception):
    """It cannot be done; the text says why and what is accepted."""


# ---- export -----------------------------------------------------------------------------


def export(asked: Asked, file: Path | None, secrets: bool, passphrase_file: str, administration: bool) -> str:
    """Write the stored configuration; what to print. Raises TransferError."""
    settings, schema = asked.settings, load_schema()
    try:
        check_store(settings)
        stored = read_store(schema, settings.store, settings.state)
        lock = PassphraseLock(read_passphrase(passphrase_file, twice=True)) if secrets else None
        opener = _stored_secrets(settings.state) if secrets else None
        text = write_configuration(stored.configuration, administration=administration, secrets=opener, lock=lock)
        if file is None:
            return text.removesuffix("\n")
        write_private_octets(file, text.encode())
    except (UserError, StoreError) as error:
        raise TransferError(str(error)) from None
    except OSError as error:
        raise TransferError(f"{file}: {error.strerror}") from None
    return f"generation {stored.configuration.generation} written to {file}"


def _stored_secrets(state: Path) -> Secrets:
    """Raises SecretsError where there is no key."""
    return Secrets(load_key(state, sealed_values=True))


def read_passphrase(file: str, *, twice: bool = False) -> str:
    """The first line of a file (`-` is standard input), else from a prompt. Raises TransferError."""
    if file:
        try:
            text = sys.stdin.read() if file == "-" else Path(file).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise TransferError(f"--passphrase-file {file}: {getattr(error, 'strerror', None) or error}") from None
        passphrase = text.split("\n", 1)[0]
        if not passphrase:
            raise TransferError(f"--passphrase-file {file}: its first line is empty")
        return passphrase
    if not sys.stdin.isatty():
        raise TransferError("no passphrase; accepted: --passphrase-file FILE, - for standard input")
    passphrase = getpass.getpass("Passphrase of the secrets: ")
    if twice and getpass.getpass("Once more: ") != passphrase:
        raise TransferError("the two are not the same")
    return passphrase


# ---- import -----------------------------------------------------------------------------


def import_file(asked: Asked, file: Path, dry_run: bool, passphrase_file: str, allow_lockout: bool) -> str:
    """Load a file; what came of it. Raises TransferError."""
    try:
        octets = file.read_bytes()
    except OSError as error:
        raise TransferError(f"{file}: {error.strerror}") from None
    schema = load_schema()
    try:
        found = read_configuration(schema, octets.decode())
        needs = found.sealed is not None and found.parameters.get("key") != "store"
        passphrase = read_passphrase(passphrase_file) if needs else ""
        if dry_run:
            return _differences(asked, schema, found, passphrase)
        return asyncio.run(_import(asked, schema, file.name, octets, found, passphrase, allow_lockout))
    except UnicodeDecodeError:
        raise TransferError(f"{file} is no text in UTF-8") from None
    except (FileError, LoadRefused) as error:
        raise TransferError("\n".join(error.problems)) from None
    except (UserError, StoreError, SnmpError, Refused) as error:
        raise TransferError(str(error)) from None


async def _import(
    asked: Asked,
    schema: Schema,
    name: str,
    octets: bytes,
    found: ConfigurationFile,
    passphrase: str,
    allow_lockout: bool,
) -> str:
    if asked.host:
        async with await open_client(asked, schema) as client:
            return await _upload(client, name, octets, passphrase, allow_lockout)
    settings = asked.settings
    check_store(settings)
    try:
        store = Store.open(schema, settings.store, settings.state)
    except StoreLocked:
        async with await open_client(asked, schema) as client:
            return await _upload(client, name, octets, passphrase, allow_lockout)
    try:
        store.checks.append(_RuleCheck(asked))
        store.expanders.append(clamp_key_sizes)
        logging.getLogger("agent.audit").setLevel(logging.ERROR)  # what is refused is told once
        contents = found.contents(store.secrets, passphrase)
        configuration, rows = await store.load(contents, COMMAND_LINE, f"file {name}")
    finally:
        await store.close()
    return f"generation {configuration.generation}, {rows_differ(rows)}" if rows else rows_differ(0)


class _RuleCheck:
    """The guide's rules for the fields, where no agent runs that would look at them."""

    def __init__(self, asked: Asked) -> None:
        self._capabilities = capabilities_here(asked.settings.backend)

    def __call__(
        self,
        before: Configuration,
        after: Configuration,
        rows: tuple[RowChange, ...],
        edits: Sequence[Edit],
        origin: Origin,
    ) -> None:
        check_named(before, after, rows, edits, self._capabilities)


async def _upload(client: SnmpClient, name: str, octets: bytes, passphrase: str, allow_lockout: bool) -> str:
    """A document, a job on it, and what the job says. Raises SnmpError, TransferError."""
    if len(octets) > MOST_OCTETS:
        raise TransferError(f"the file has {len(octets)} octets; accepted: {MOST_OCTETS}")
    try:
        document = await _free(client, "ipsecGwDocumentFree.0")
        await client.set([(f"ipsecGwDocumentName.{document}", name.encode()[:255])])
        places = list(range(0, len(octets), LARGEST_SEGMENT))
        for at in range(0, len(places), SEGMENTS_IN_SET):
            some = places[at : at + SEGMENTS_IN_SET]
            await client.set(
                (
                    f"ipsecGwSegmentData.{(document << SEGMENT_BITS) + place // LARGEST_SEGMENT + 1}",
                    octets[place : place + LARGEST_SEGMENT],
                )
                for place in some
            )
        try:
            return await _job(client, document, passphrase, allow_lockout)
        finally:
            await client.set([(f"ipsecGwDocumentState.{document}", "delete")])
    except RequestFailed as error:
        raise TransferError(f"{error}: {await client.last_refusal()}") from None


async def _free(client: SnmpClient, name: str) -> int:
    number = await client.value(name)
    if not isinstance(number, int) or not number:
        raise TransferError(f"{name} is {number!r}: the agent has no room for another upload just now")
    return number


async def _job(client: SnmpClient, document: int, passphrase: str, allow_lockout: bool) -> str:
    job = await _free(client, "ipsecGwImportFree.0")
    asked: list[tuple[str, Value | str | Tlv]] = [(f"ipsecGwImportDocument.{job}", document)]
    if passphrase:
        asked.append((f"ipsecGwImportPassword.{job}", passphrase.encode()))
    if allow_lockout:
        asked.append(("ipsecGwAllowLockout.0", "true"))
    await client.set(asked)
    for _ in range(round(PATIENCE / POLLING)):
        await asyncio.sleep(POLLING)
        columns = ("ipsecGwImportState", "ipsecGwImportMessage", "ipsecGwImportReport")
        state, message, report = await client.get([f"{column}.{job}" for column in columns])
        text = message.value.decode("utf-8", "replace") if isinstance(message.value, bytes) else ""
        if state.value == DONE:
            return text
        if state.value == ERROR:
            raise TransferError(await _document(client, report.value) if report.value else text)
    raise TransferError(f"job {job} has not finished after {PATIENCE:.0f} s; ipsecGwImportMessage.{job} will say more")


async def _document(client: SnmpClient, number: object) -> str:
    """A text that the agent shows. Raises SnmpError."""
    assert isinstance(number, int)
    segments = await client.value(f"ipsecGwDocumentSegments.{number}")
    assert isinstance(segments, int)
    parts = [await client.value(f"ipsecGwSegmentData.{(number << SEGMENT_BITS) + at + 1}") for at in range(segments)]
    return b"".join(part for part in parts if isinstance(part, bytes)).decode("utf-8", "replace")


# ---- what would differ --------------------------------------------------------------------


def _differences(asked: Asked, schema: Schema, found: ConfigurationFile, passphrase: str) -> str:
    """What an import would change, in words; the agent may run. Raises TransferError, StoreError, LoadRefused."""
    if asked.host:
        raise TransferError("--dry-run compares with a store on this machine; accepted: --state without --host")
    settings = asked.settings
    check_store(settings)
    stored = read_store(schema, settings.store, settings.state).configuration
    try:
        secrets = _stored_secrets(settings.state)
    except SecretsError as error:
        raise TransferError(str(error)) from None
    candidate = Loader(found.contents(secrets, passphrase), secrets, expanders=(clamp_key_sizes,)).build(stored)
    if candidate is None:
        return rows_differ(0)
    _RuleCheck(asked)(stored, candidate.after, candidate.rows, candidate.edits, COMMAND_LINE)
    lines = [line for draft in candidate.drafts for line in _told(candidate, draft.table.name, draft.number)]
    more = [f"… and {len(lines) - MOST_LINES} more"] if len(lines) > MOST_LINES else []
    return "\n".join([*lines[:MOST_LINES], *more, rows_differ(len(candidate.drafts))])


def _told(candidate: Candidate, table: str, number: int) -> list[str]:
    """How one row differs, a line for each value."""
    before = candidate.before.row_any_status(table, number)
    after = candidate.after.row_any_status(table, number)
    if before is None or after is None:
        return [f"{table} {number}: {'new' if before is None else 'removed'}"]
    lines = []
    for column, old, new in zip(candidate.before.table(table).table.columns, before.cells, after.cells, strict=True):
        role = column.traits.role
        if old == new or role is Role.ROW_GENERATION:
            continue
        if role is Role.SEALED:
            lines.append(f"{column.name}.{number}: another secret")
        elif role is not Role.SECRET:
            values = (column.show(row[column.name]) for row in (before, after))
            lines.append(f"{column.name}.{number}: {' → '.join(values)}")
    return lines
