"""The audit line of a SET: who asked for what, and what became of it. Secrets are masked."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Final

from agent.store.edits import UPLOADED, shown
from agent.store.errors import Refused
from agent.store.hooks import Edit, Origin

logger = logging.getLogger("agent.audit")

MOST_NAMED: Final = 128  # objects in one line; a SET of managers has no more, the rows of a first start are more


def accepted(generation: int, edits: Sequence[Edit], origin: Origin) -> None:
    """A SET that made a generation."""
    if logger.isEnabledFor(logging.INFO):
        logger.info("generation %d by %s: %s", generation, _who(origin), _objects(edits))


def loaded(generation: int, what: str, rows: int, origin: Origin) -> None:
    """A load that made a generation: `what` says where it came from."""
    logger.info("generation %d by %s: %s loaded, %s", generation, _who(origin), one_line(what), rows_differ(rows))


def rows_differ(count: int) -> str:
    """What a load comes to, in words."""
    return "nothing differs" if not count else "1 row differs" if count == 1 else f"{count} rows differ"


def performed(edits: Sequence[Edit], origin: Origin) -> None:
    """A SET on live tables alone. Uploads come in thousands of segments: those are told at debug level."""
    level = logging.DEBUG if all(edit.column.name in UPLOADED for edit in edits) else logging.INFO
    if logger.isEnabledFor(level):
        logger.log(level, "by %s: %s", _who(origin), _objects([e for e in edits if e.column.name not in UPLOADED]))


def unchanged(generation: int, edits: Sequence[Edit], origin: Origin) -> None:
    """A SET that was accepted and found everything as it asked for."""
    if logger.isEnabledFor(logging.INFO):
        logger.info("generation %d stays, by %s: %s", generation, _who(origin), _objects(edits))


def refused(refusal: Refused, origin: Origin) -> None:
    """A SET that left no trace."""
    logger.warning("refused %s: %s (%s)", _who(origin), refusal.text, refusal.status.name)


def _objects(edits: Sequence[Edit]) -> str:
    if len(edits) > MOST_NAMED:
        rows = Counter(table for table, _ in {(edit.column.table, edit.number) for edit in edits})
        return f"{len(edits)} objects, rows of " + ", ".join(f"{table} {rows[table]}" for table in sorted(rows))
    return ", ".join(f"{edit.column.name}.{edit.number} = {shown(edit)}" for edit in edits)


def _who(origin: Origin) -> str:
    words: list[str] = [origin.kind]
    words += [f"user {_plain(origin.user)}"] if origin.user not in ("", origin.kind) else []
    words += [f"from {_plain(origin.source)}"] if origin.source else []
    return " ".join(words)


def one_line(text: str) -> str:
    """Words of a log line, whatever is in them."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _plain(text: str) -> str:
    """One word in one line, whatever a sender called itself."""
    return "".join(c if c.isprintable() and not c.isspace() else f"\\x{ord(c):02x}" for c in text)
