"""What Tab completes: commands, names of the MIB, labels of a variable's values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from agent.mib.schema import Column, Table
from agent.shell.assign import COMMAND, COMMANDS, REMOVING
from agent.shell.commands import COMMANDS as WORDS
from agent.shell.values import label_key
from agent.shell.vocabulary import NameProblem

if TYPE_CHECKING:
    from agent.shell.session import Session

ITEM: Final = re.compile(r"""[\s;]*((?:"(?:[^"\\]|\\.)*(?:"|$)|'[^']*(?:'|$)|[^\s;"'])+)""")
VALUE: Final = re.compile(r"([A-Za-z][\w-]*)(?::\d+|\.\d+)?=(.*)", re.DOTALL)
NAMES_FOLLOW: Final = ("help",)


class ShellCompleter(Completer):
    """Knows the session's selected table."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        before = document.text_before_cursor
        item, at = "", 0
        while (found := ITEM.match(before, at)) is not None:
            item, at = found[1], found.end()
        if at < len(before):  # blanks or ; stand behind the last one
            item = ""
        head = before[: len(before) - len(item)]
        command = re.split(r";", head)[-1].split()
        value = VALUE.fullmatch(item)
        if value is not None:
            configurations = any(word.lower().startswith(f"{COMMAND}=") for word in command)
            yield from _matching(value[2], self._labels(value[1], configurations))
        elif '"' not in item and "'" not in item:
            yield from _matching(item, self._words(item, command))

    def _words(self, start: str, command: Sequence[str]) -> list[str]:
        """What an item may be, behind the others of its command."""
        vocabulary, selected = self._session.vocabulary, self._session.selected
        if command and command[0] in WORDS and command[0] not in NAMES_FOLLOW:
            return self._arguments(command[0])
        if any(word.lower().startswith(f"{COMMAND}=") for word in command):
            columns = vocabulary.columns(self._session.schema.tables[COMMANDS])
            return [vocabulary.short(column).lower() + "=" for column in columns if column.writable]
        words = [name for name, entry in WORDS.items() if entry.about] if not command or command[0] == "help" else []
        return words + vocabulary.beginning(start, selected)

    def _arguments(self, command: str) -> list[str]:
        if command == "debug":
            return ["show", "all", *self._session.schema.columns["ipsecGwEventKind"].labels]
        if command == "netstat":
            return ["-i", "-r"]
        return []

    def _labels(self, name: str, configurations: bool) -> list[str]:
        schema = self._session.schema
        selected = schema.tables[COMMANDS] if configurations or name.lower() == COMMAND else self._session.selected
        try:
            found: Table | Column = self._session.vocabulary.find(name, selected, tables_first=False)
        except NameProblem:
            return []
        if isinstance(found, Table):
            return sorted(REMOVING)[:1]
        return list(found.labels)


def _matching(start: str, words: Iterable[str]) -> Iterable[Completion]:
    key = label_key(start)
    for word in words:
        if label_key(word).startswith(key):
            yield Completion(word, start_position=-len(start))
