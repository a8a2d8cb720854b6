"""Named configurations: files in the state folder, and the commands of biboAdmConfigTable on them.

Each is a TOML file as export writes it, its secrets sealed with the store's own key, so that
a file alone tells nobody anything and loading one needs no passphrase. SNMP administration
is not in them: loading last year's configuration brings back no user of last year.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from agent.mib.ber import Value
from agent.store.actions import Asked, LiveRow
from agent.store.configfile import write_configuration
from agent.store.errors import Refused, StoreError
from agent.store.hooks import Edit, Origin
from agent.store.imports import load_file, transient
from agent.store.jobs import MOST_WAITING, NO_ROOM, JobFailed, Jobs, monotonic
from agent.store.passphrase import StoreKeyLock
from agent.store.secrets import sync_folder, write_private_octets
from agent.store.store import Store

logger = logging.getLogger(__name__)

FOLDER: Final = "configurations"
SUFFIX: Final = ".toml"
BOOT: Final = "boot"  # what an empty path means
MOST_NAMES: Final = 256  # files are small, but somebody has to choose among them
LARGEST: Final = 64 << 20  # octets of a file that is loaded
NAME_OCTETS: Final = 64
NAME_ACCEPTED: Final = f"1..{NAME_OCTETS} octets without slash, no dot at the start"
REMEMBERED: Final = "saved"  # kind of the durable numbers: generation by name

WITHDRAWN: Final = -1  # biboAdmConfigTimeout of a delayed command that is not to be carried out any more
SAVED: Final = "ipsecGwSavedTable"
COMMANDS: Final = "biboAdmConfigTable"
SAVE, LOAD, STATE, DELETE, MOVE, COPY = 1, 2, 5, 6, 7, 8
DONE_HERE: Final = {SAVE: "save", LOAD: "load", STATE: "state", DELETE: "delete", MOVE: "move", COPY: "copy"}


def check_name(name: str) -> str:
    """'' where a configuration can be called so, else why not."""
    if re.fullmatch(r"[^./\x00-\x1f\x7f][^/\x00-\x1f\x7f]*", name) and len(name.encode()) <= NAME_OCTETS:
        return ""
    return "no name of a configuration"


class _Entry(NamedTuple):
    row: int
    size: int
    saved: int  # seconds since 1970
    generation: int


class SavedConfigurations:
    """The files, and ipsecGwSavedTable. File work is done in threads. Raises OSError, JobFailed."""

    def __init__(self, store: Store, state: Path) -> None:
        self._store = store
        self.folder = state / FOLDER
        self._entries: dict[str, _Entry] = {}

    def start(self) -> None:
        """Look at what is there. Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            for path in sorted(self.folder.glob(f"*{SUFFIX}")):
                name = path.name.removesuffix(SUFFIX)
                if not check_name(name) and path.is_file():
                    self._look(name)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    @property
    def names(self) -> list[str]:
        return sorted(self._entries)

    def path(self, name: str) -> Path:
        return self.folder / f"{name}{SUFFIX}"

    async def save(self, name: str) -> None:
        """The running configuration under a name."""
        self._room(name)
        running, secrets = self._store.running, self._store.secrets

        def work() -> None:
            text = write_configuration(running, secrets=secrets, lock=StoreKeyLock(secrets))
            self._write(name, text.encode())

        await asyncio.to_thread(work)
        await self._changed(name, running.generation)

    async def read(self, name: str) -> bytes:
        """What the file holds."""
        path = self.path(name)

        def work() -> bytes:
            if path.stat().st_size > LARGEST:
                raise JobFailed(f"{path} is larger than {LARGEST} octets")
            return path.read_bytes()

        self._known(name)
        return await asyncio.to_thread(work)

    async def copy(self, name: str, to: str) -> None:
        self._room(to)
        octets = await self.read(name)
        await asyncio.to_thread(self._write, to, octets)
        await self._changed(to, self._entries[name].generation)

    async def move(self, name: str, to: str) -> None:
        self._known(name)
        if name == to:
            return
        generation = self._entries[name].generation

        def work() -> None:
            self.path(name).replace(self.path(to))
            sync_folder(self.folder)

        await asyncio.to_thread(work)
        await self._changed(to, generation)
        await self._changed(name, None)

    async def delete(self, name: str) -> None:
        self._known(name)

        def work() -> None:
            self.path(name).unlink(missing_ok=True)
            sync_folder(self.folder)

        await asyncio.to_thread(work)
        await self._changed(name, None)

    def _known(self, name: str) -> None:
        if name not in self._entries:
            raise JobFailed(self.unknown(name))

    def unknown(self, name: str) -> str:
        """That there is no such configuration, and which there are."""
        names = ", ".join(self.names[:10]) or "none is saved"
        return f"there is no configuration {name}; accepted: {names}"

    def _room(self, name: str) -> None:
        if name not in self._entries and len(self._entries) >= MOST_NAMES:
            raise JobFailed(f"there are {MOST_NAMES} configurations; accepted: the name of one, or delete one")

    def _write(self, name: str, octets: bytes) -> None:
        if not self.folder.is_dir():
            self.folder.mkdir(mode=0o700, exist_ok=True)
            sync_folder(self.folder.parent)
        write_private_octets(self.path(name), octets)

    async def _changed(self, name: str, generation: int | None) -> None:
        """A file was written, or is gone (None): the table follows, and the generation is remembered."""
        await self._store.remember(REMEMBERED, {name: generation})
        self._look(name)

    def _look(self, name: str) -> None:
        """The entry of one file, as it is on disk."""
        old = self._entries.pop(name, None)
        try:
            found = self.path(name).stat()
        except FileNotFoundError:
            if old is not None:
                self._store.live.update(SAVED, {old.row: None})
            return
        row = old.row if old is not None else self._store.live.table(SAVED).free_number()
        generation = self._store.numbers(REMEMBERED).get(name, 0)
        entry = self._entries[name] = _Entry(row, found.st_size, int(found.st_mtime), generation)
        values: dict[str, Value] = {
            "ipsecGwSavedName": name.encode(),
            "ipsecGwSavedTime": min(entry.saved, (1 << 31) - 1),
            "ipsecGwSavedSize": entry.size,
            "ipsecGwSavedGeneration": generation & 0xFFFFFFFF,
        }
        self._store.live.update(SAVED, {row: values})


class ConfigurationCommands:
    """biboAdmConfigTable, a Handler of agent.store.actions. `told` is given the text of what failed: the table
    itself has no room for words."""

    tables = frozenset({COMMANDS})

    def __init__(
        self,
        store: Store,
        saved: SavedConfigurations,
        told: Callable[[str], None],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._store = store
        self._saved = saved
        self._told = told
        self.jobs = Jobs(store.live, COMMANDS, lambda state, message: {"biboAdmConfigState": state}, clock)

    def check(self, rows: Sequence[LiveRow], asked: Asked) -> None:
        for row in rows:
            if row.made:
                self._check_command(row)
            elif not (self._withdraws(row) and self.jobs.delayed(row.number)):
                accepted = f"a number that no row has, or biboAdmConfigTimeout = {WITHDRAWN} alone while it is delayed"
                raise row.refused("biboAdmConfigCmd", "the command is given already", accepted)
        if self.jobs.full(sum(row.made for row in rows)):
            accepted = f"{MOST_WAITING} that have not finished"
            raise rows[-1].refused("biboAdmConfigCmd", "too many commands", accepted, NO_ROOM)

    @staticmethod
    def _withdraws(row: LiveRow) -> bool:
        """The SET is about nothing else of a command that is there."""
        return not row.made and len(row.draft.edits) == 1 and row.value("biboAdmConfigTimeout") == WITHDRAWN

    def _check_command(self, row: LiveRow) -> None:
        command = row.value("biboAdmConfigCmd")
        if command not in DONE_HERE:
            accepted = ", ".join(f"{label}({number})" for number, label in DONE_HERE.items())
            raise row.refused("biboAdmConfigCmd", "is not done by this agent", accepted)
        timeout = row.value("biboAdmConfigTimeout")
        if isinstance(timeout, int) and timeout < 0:
            raise row.refused("biboAdmConfigTimeout", "no time to wait", "0 and more seconds")
        name = _name(row, "biboAdmConfigPath") or BOOT
        problem = check_name(name)
        if problem:
            raise row.refused("biboAdmConfigPath", problem, NAME_ACCEPTED)
        new = _name(row, "biboAdmConfigPathNew")
        needs_new = command in (MOVE, COPY)
        if needs_new and check_name(new):
            raise row.refused("biboAdmConfigPathNew", check_name(new), NAME_ACCEPTED)
        if new and not needs_new:
            raise row.refused("biboAdmConfigPathNew", "copy and move have a new name", "an empty one")
        if not timeout and command in (LOAD, DELETE, MOVE, COPY) and name not in self._saved:
            names = ", ".join(self._saved.names[:10]) or "none is saved"
            raise row.refused("biboAdmConfigPath", f"there is no configuration {name}", names)

    def perform(self, rows: Sequence[LiveRow], asked: Asked) -> None:
        for row in rows:
            if self._withdraws(row):
                self.jobs.withdraw(row.number)
                continue
            names = ("biboAdmConfigCmd", "biboAdmConfigPath", "biboAdmConfigPathNew", "biboAdmConfigTimeout")
            timeout = row.value("biboAdmConfigTimeout")
            assert isinstance(timeout, int)
            values = {name: row.value(name) for name in names}
            command = _Command(self, row, asked)
            self.jobs.start(row.number, values, command.run, timeout)

    def expire(self) -> None:
        self.jobs.expire()

    async def carry_out(self, command: int, name: str, new: str, origin: Origin, named: Sequence[Edit]) -> str:
        """One command. Raises JobFailed, Refused, StoreError, OSError."""
        saved = self._saved
        if command == SAVE:
            await saved.save(name)
        elif command == LOAD:
            octets = await saved.read(name)
            return await load_file(self._store, octets, "", _trusted(origin), f"configuration {name}", named)
        elif command == STATE:
            if name not in saved:
                raise JobFailed(saved.unknown(name))
        elif command == DELETE:
            await saved.delete(name)
        elif command == MOVE:
            await saved.move(name, new)
        else:
            await saved.copy(name, new)
        return "done"

    def tell(self, text: str) -> None:
        self._told(text)


class _Command:
    """One row's work."""

    def __init__(self, commands: ConfigurationCommands, row: LiveRow, asked: Asked) -> None:
        command = row.value("biboAdmConfigCmd")
        assert isinstance(command, int)
        self._command = command
        self._number = row.number
        self._name = _name(row, "biboAdmConfigPath") or BOOT
        self._new = _name(row, "biboAdmConfigPathNew")
        self._origin = asked.origin
        self._named = transient(asked.edits)
        self._commands = commands

    async def run(self) -> str:
        what = f"biboAdmConfigCmd.{self._number} = {DONE_HERE[self._command]}({self._command})"
        try:
            message = await self._commands.carry_out(self._command, self._name, self._new, self._origin, self._named)
        except (JobFailed, Refused, StoreError, OSError) as error:
            logger.warning("%s of %s: %s", what, self._name, error)
            self._commands.tell(f"{what}: {error}")
            raise
        logger.info("%s of %s: %s", what, self._name, message)
        return message


def _trusted(origin: Origin) -> Origin:
    """A file of the state folder brings secrets that the store had: nobody sends them."""
    return Origin(origin.kind, origin.user, origin.source, origin.local, secure=True)


def _name(row: LiveRow, column: str) -> str:
    value = row.value(column)
    assert isinstance(value, bytes)
    return value.decode("utf-8", "replace")
