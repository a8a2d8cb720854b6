"""Keys of a channel of SSH, for prompt_toolkit, which otherwise reads a descriptor of a terminal.

What somebody types costs more than it weighs: each key at the prompt keeps the whole line
for undoing, and keys typed ahead are kept one by one. So lines have a length, and what can
be waiting has an end.
"""

from __future__ import annotations

import asyncio
import codecs
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final

from prompt_toolkit.input import Input
from prompt_toolkit.input.typeahead import get_typeahead, store_typeahead
from prompt_toolkit.input.vt100_parser import Vt100Parser
from prompt_toolkit.key_binding import KeyPress

LINE: Final = 4096  # characters between two line ends; more are not taken
UNFINISHED: Final = 32_768  # characters typed at one prompt, with corrections; more end the session
AHEAD: Final = 32_768  # keys typed while a command runs; then nothing is read until it has ended
LINE_END: Final = re.compile("[\r\n]")


class ChannelInput(Input):
    """`pause` and `resume`: of reading from the channel. `flooded`: called when nobody can have typed that."""

    def __init__(self, pause: Callable[[], None], resume: Callable[[], None], flooded: Callable[[], None]) -> None:
        self._pause, self._resume, self._flooded = pause, resume, flooded
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._keys: list[KeyPress] = []
        self._parser = Vt100Parser(self._keys.append)
        self._ready: list[Callable[[], None]] = []
        self._closed = False
        self._busy = False
        self._ahead = self._line = self._typed = 0

    # ---- from the channel -------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Octets that the person's terminal sent."""
        text = self._decoder.decode(data)
        if self._busy:
            self._ahead += len(text)
            if self._ahead > AHEAD:
                self._pause()
        else:
            self._typed += len(text)
            if self._typed > UNFINISHED:
                self._flooded()
                return
        self._parser.feed(self._shortened(text))
        self._tell()

    def _shortened(self, text: str) -> str:
        """Without what is too much of a line."""
        taken: list[str] = []
        for part in re.split("([\r\n])", text):
            if LINE_END.match(part):
                self._line = 0
                taken.append(part)
            else:
                taken.append(part[: max(0, LINE - self._line)])
                self._line += len(part)
        return "".join(taken)

    def end(self) -> None:
        """Nothing more will come."""
        self._closed = True
        self._tell()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """While a command runs, and keys are kept for later."""
        self._busy, self._typed = True, 0
        keys = get_typeahead(self)
        store_typeahead(self, keys)
        self._ahead = len(keys)
        if self._ahead <= AHEAD:
            self._resume()
        try:
            yield
        finally:
            self._busy = False
            if self._ahead <= AHEAD:
                self._resume()

    def _tell(self) -> None:
        if self._ready:
            self._ready[-1]()

    # ---- for prompt_toolkit -----------------------------------------------------------

    def read_keys(self) -> list[KeyPress]:
        keys, self._keys[:] = list(self._keys), []
        return keys

    def flush_keys(self) -> list[KeyPress]:
        """Of a sequence that does not go on: Escape alone."""
        self._parser.flush()
        return self.read_keys()

    @contextmanager
    def attach(self, input_ready_callback: Callable[[], None]) -> Iterator[None]:
        self._ready.append(input_ready_callback)
        if self._keys or self._closed:  # came while nobody looked
            asyncio.get_running_loop().call_soon(self._tell)
        try:
            yield
        finally:
            self._ready.remove(input_ready_callback)

    @contextmanager
    def detach(self) -> Iterator[None]:
        ready, self._ready[:] = list(self._ready), []
        try:
            yield
        finally:
            self._ready[:] = ready

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        self._closed = True
        get_typeahead(self)

    def raw_mode(self) -> AbstractContextManager[None]:
        """The client's terminal is in it already."""
        return nullcontext()

    cooked_mode = raw_mode

    def fileno(self) -> int:
        raise NotImplementedError("a channel has no descriptor")

    def typeahead_hash(self) -> str:
        return f"ssh-{id(self)}"
