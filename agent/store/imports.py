"""Import jobs: what ipsecGwImportTable is asked for, from a document to one load or commit of the store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from agent.mib.ber import Value
from agent.mib.schema import Role
from agent.store.actions import Asked, LiveRow
from agent.store.audit import rows_differ
from agent.store.candidate import MASK
from agent.store.configfile import ConfigurationFile, FileError, read_configuration
from agent.store.documents import CONFIGURATION, DOCUMENTS, REPORT, Documents
from agent.store.events import display
from agent.store.hooks import Edit, Origin
from agent.store.jobs import MOST_WAITING, NO_ROOM, JobFailed, Jobs, monotonic
from agent.store.load import Contents, LoadRefused
from agent.store.store import Store

logger = logging.getLogger(__name__)

IMPORTS: Final = "ipsecGwImportTable"
KIND: Final = 1  # configuration, of ipsecGwImportKind
TRUE: Final = 1
SET_BY_MANAGERS: Final = (
    *("ipsecGwImportDocument", "ipsecGwImportKind", "ipsecGwImportName"),
    *("ipsecGwImportCoding", "ipsecGwImportTrusted"),
)


@dataclass(frozen=True, slots=True)
class FileImport:
    """What a job is asked for: the file, and the columns of its row. `origin`: of the SET."""

    octets: bytes = field(repr=False)
    kind: int
    name: str
    coding: int
    trusted: bool
    password: str = field(repr=False)
    origin: Origin


class Importer(Protocol):
    """Who can import files of some kinds. `document_kind`: ipsecGwDocumentKind of the documents they come in."""

    @property
    def document_kind(self) -> int: ...

    async def __call__(self, asked: FileImport) -> str:
        """The message of success. Raises JobFailed, Refused, StoreError."""


class ImportJobs:
    """A Handler of agent.store.actions. `importers`: others than of configurations, by ipsecGwImportKind. On the event
    loop."""

    tables = frozenset({IMPORTS})

    def __init__(self, store: Store, documents: Documents, clock: Callable[[], float] = monotonic) -> None:
        self._store = store
        self._documents = documents
        self.importers: dict[int, Importer] = {}
        self.jobs = Jobs(store.live, IMPORTS, _shown, clock)

    def check(self, rows: Sequence[LiveRow], asked: Asked) -> None:
        made = [row for row in rows if row.made]
        if made and self.jobs.full(len(made)):
            accepted = f"{MOST_WAITING} that have not finished"
            raise made[-1].refused("ipsecGwImportDocument", "too many jobs", accepted, NO_ROOM)
        for row in rows:
            if row.made:
                self._check_new(row, asked)
            elif not row.removed:
                raise row.refused("ipsecGwImportState", "the job is given already", "delete(5) once it has finished")
            elif self.jobs.waiting(row.number):
                raise row.refused("ipsecGwImportState", "the job has not finished", "delete(5) once it has")

    def _check_new(self, row: LiveRow, asked: Asked) -> None:
        kind = row.value("ipsecGwImportKind")
        assert isinstance(kind, int)
        if kind != KIND and kind not in self.importers:
            shown = row.table.by_name["ipsecGwImportKind"].show
            accepted = ", ".join(map(shown, sorted((KIND, *self.importers))))
            raise row.refused("ipsecGwImportKind", "not supported yet", accepted)
        if row.value("ipsecGwImportState") != 1:
            raise row.refused("ipsecGwImportState", "is set by the agent", "delete(5) once the job has finished")
        number = row.value("ipsecGwImportDocument")
        assert isinstance(number, int)
        document = asked.row(DOCUMENTS, number)
        gone = document is not None and document.removed
        if gone or (document is None and number not in self._documents):
            accepted = "an ipsecGwDocumentIndex"
            raise row.refused("ipsecGwImportDocument", f"there is no document {number}", accepted)
        if document is not None:
            holds = document.value("ipsecGwDocumentKind")
        else:
            there = self._store.live.table(DOCUMENTS).row(number)
            assert there is not None
            holds = there["ipsecGwDocumentKind"]
        wanted = self.importers[kind].document_kind if kind in self.importers else CONFIGURATION
        if holds != wanted:
            what = self._store.schema.columns["ipsecGwDocumentKind"].show(wanted)
            raise row.refused("ipsecGwImportDocument", "the document is of another kind", f"one of {what}")

    def perform(self, rows: Sequence[LiveRow], asked: Asked) -> None:
        for row in rows:
            if row.removed:
                self.jobs.remove(row.number)
                continue
            values: dict[str, Value] = {name: row.value(name) for name in SET_BY_MANAGERS}
            password = row.value("ipsecGwImportPassword")
            assert isinstance(password, bytes)
            values["ipsecGwImportPassword"] = MASK if password else b""
            number = values["ipsecGwImportDocument"]
            assert isinstance(number, int)
            work = _Import(self._store, self._documents, row.number, values, password, asked, self.importers)
            self.jobs.start(row.number, values, work.run)

    def expire(self) -> None:
        self.jobs.expire()


class _Import:
    """One job. Its password goes when it ends."""

    def __init__(
        self,
        store: Store,
        documents: Documents,
        job: int,
        values: Mapping[str, Value],
        password: bytes,
        asked: Asked,
        importers: Mapping[int, Importer],
    ) -> None:
        self._store = store
        self._documents = documents
        self._job = job
        number, kind = values["ipsecGwImportDocument"], values["ipsecGwImportKind"]
        assert isinstance(number, int) and isinstance(kind, int)
        self._number, self._kind = number, kind
        self._values = values
        self._importer = importers.get(kind)
        self._password = password
        self._origin = asked.origin
        self._named = transient(asked.edits)

    async def run(self) -> str:
        if self._number not in self._documents:
            raise JobFailed(f"document {self._number} is gone")
        octets = self._documents.contents(self._number)
        if self._importer is not None:
            return await self._importer(self._asked(octets))
        named = self._store.live.table(DOCUMENTS).row(self._number)
        name = named["ipsecGwDocumentName"] if named is not None else b""
        assert isinstance(name, bytes)
        shown = f"document {self._number} {name.decode('utf-8', 'replace')}".strip()
        try:
            return await load_file(self._store, octets, self._password.decode(), self._origin, shown, self._named)
        except (LoadRefused, FileError) as error:
            raise JobFailed(self._reported(shown, error.problems)) from None

    def _reported(self, shown: str, problems: Sequence[str]) -> str:
        """The first mistake; all of them are a document, which stays as long as an upload does."""
        if len(problems) == 1:
            return problems[0]
        title = display(f"mistakes in {shown}").decode()
        number = self._documents.put(title, REPORT, "\n".join(problems).encode(), kept=False)
        self._store.live.update(IMPORTS, {self._job: {"ipsecGwImportReport": number}})
        return f"{problems[0]} (and {len(problems) - 1} more, see ipsecGwImportReport.{self._job})"

    def _asked(self, octets: bytes) -> FileImport:
        name, coding = self._values["ipsecGwImportName"], self._values["ipsecGwImportCoding"]
        assert isinstance(name, bytes) and isinstance(coding, int)
        trusted = self._values["ipsecGwImportTrusted"] == TRUE
        shown = name.decode("utf-8", "replace").strip()
        return FileImport(octets, self._kind, shown, coding, trusted, self._password.decode(), self._origin)


async def load_file(
    store: Store, octets: bytes, passphrase: str, origin: Origin, what: str, named: Sequence[Edit] = ()
) -> str:
    """Load a configuration file; the message of success. `named`: edits that count for the load, such as that a
    lock-out is allowed. Raises Refused, StoreError, JobFailed."""

    def read() -> tuple[ConfigurationFile, Contents]:
        try:
            text = octets.decode()
        except UnicodeDecodeError:
            raise FileError(["the file is no text in UTF-8"]) from None
        file = read_configuration(store.schema, text)
        return file, file.contents(store.secrets, passphrase)

    file, contents = await asyncio.to_thread(read)
    if not origin.secure and (file.plain_secrets or contents.secrets):
        raise JobFailed("the file has secrets, which are set by SNMPv3 authPriv or from this host only")
    try:
        configuration, rows = await store.load(contents, origin, what, named)
    except LoadRefused as refused:
        for problem in refused.problems:
            logger.info("%s: %s", what, problem)
        raise
    return f"generation {configuration.generation}, {rows_differ(rows)}" if rows else rows_differ(0)


def transient(edits: Sequence[Edit]) -> tuple[Edit, ...]:
    """Edits that count for the SET they come in, and for what it starts."""
    return tuple(edit for edit in edits if edit.column.traits.role is Role.TRANSIENT)


def _shown(state: int, message: str) -> dict[str, Value]:
    return {"ipsecGwImportState": state, "ipsecGwImportMessage": display(message)}
