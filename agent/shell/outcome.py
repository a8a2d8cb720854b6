"""What becomes of a command: its status, as a script sees it, and the one way of saying that it came to nothing."""

from __future__ import annotations

from typing import Final

OK: Final = 0
FAILED: Final = 1  # the agent refused, or it cannot be done here
MISUSED: Final = 2  # the line makes no sense
INTERRUPTED: Final = 130  # by Ctrl-C


class Problem(Exception):
    """The text is for the person: what was wrong with what, and what would be accepted."""

    status = MISUSED


class CannotDo(Problem):
    """The line makes sense, but it is refused, or not possible here."""

    status = FAILED
