"""The shell for a person: reading lines with history and editing, on any terminal that prompt_toolkit knows.

`interact` takes prompt_toolkit's Input and Output and so runs on the local terminal as in a
channel of SSH. While a command runs, keys are still listened to: Ctrl-C ends it, all others
are kept for the next line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from prompt_toolkit import PromptSession
from prompt_toolkit.application import Application, create_app_session
from prompt_toolkit.history import History
from prompt_toolkit.input import Input
from prompt_toolkit.input.typeahead import store_typeahead
from prompt_toolkit.keys import Keys
from prompt_toolkit.output import Output
from prompt_toolkit.shortcuts import CompleteStyle

from agent.shell.completion import ShellCompleter
from agent.shell.history import DiscreetMemory
from agent.shell.outcome import INTERRUPTED
from agent.shell.session import Session

LEAST_COLUMNS: Final = 20
PROMPT_STYLE: Final = "fg:ansidefault"
"""Looks like none, but has the blank at the prompt's end written, which programs wait for, instead of skipped."""


class OutputTerminal:
    """A session's Terminal on prompt_toolkit's Output."""

    person = True

    def __init__(self, output: Output) -> None:
        self._output = output

    @property
    def columns(self) -> int:
        return max(self._output.get_size().columns, LEAST_COLUMNS)

    def write(self, text: str) -> None:
        self._output.write(text)
        self._output.flush()

    complain = write


async def interact(
    session: Session,
    input: Input,
    output: Output,
    history: History | None = None,
    *,
    dumb: bool = False,
    alone: bool = True,
    editor: Callable[[Application[str]], None] = lambda application: None,
) -> int:
    """Read lines and carry them out until `exit` or the end of the input (Ctrl-D). The status of the last line.
    `dumb`: the terminal understands no escape sequences, as TERM of this process says. `alone`: the event loop is
    this session's, and so are its signals and what goes wrong on it. `editor` is told the line editor, which wants to
    hear of a window's other size where there is no signal of it."""
    with create_app_session(input=input, output=output):
        return await _interact(session, input, None if dumb else output, history, alone, editor)


async def _interact(
    session: Session,
    input: Input,
    output: Output | None,
    history: History | None,
    alone: bool,
    editor: Callable[[Application[str]], None],
) -> int:
    """Without an output of its own the line editor looks at TERM."""
    reader: PromptSession[str] = PromptSession(
        history=history or DiscreetMemory(session),
        completer=ShellCompleter(session),
        complete_style=CompleteStyle.READLINE_LIKE,
        complete_while_typing=False,
        input=input,
        output=output,
    )
    editor(reader.app)
    status = 0
    while not session.ended:
        try:
            line = await reader.prompt_async(
                [(PROMPT_STYLE, session.prompt())], set_exception_handler=alone, handle_sigint=alone
            )
        except KeyboardInterrupt:
            continue
        except EOFError:
            break
        status = await _watched(session, line, input)
    return status


async def _watched(session: Session, line: str, input: Input) -> int:
    """Carry out a line; Ctrl-C ends it."""
    work = asyncio.ensure_future(session.execute(line))

    def ready() -> None:
        keys = input.read_keys()
        kept = [press for press in keys if press.key not in (Keys.ControlC, Keys.SIGINT)]
        store_typeahead(input, kept)  # also what was read together with a Ctrl-C
        if len(kept) < len(keys):
            work.cancel()

    with input.raw_mode(), input.attach(ready):
        try:
            return await work
        except asyncio.CancelledError:
            if not work.cancelled():  # the loop itself is being ended
                work.cancel()
                raise
            session.terminal.write("^C\n")
            return INTERRUPTED
