"""Why the agent refused, in words: the variable, the value, why not, and what is accepted.

An answer of SNMP has a number and an index. This kind of agent also says it in words
(ipsecGwLastRefusal), which is asked for afterwards and believed only if it speaks of the very
variable. Of others the number is told, with what the object accepts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agent.mib.ber import Value
from agent.mib.schema import Column
from agent.shell import values
from agent.snmp.client import RequestFailed
from agent.snmp.client.errors import status_word

if TYPE_CHECKING:
    from agent.shell.session import Session

WORDS: Final[Mapping[str, str]] = {
    "tooBig": "the answer does not fit into a message; accepted: fewer assignments on a line",
    "noSuchName": "there is no such variable, or you may not write it",
    "badValue": "the value is not accepted",
    "readOnly": "it can only be read",
    "genErr": "an error of the agent; its log says more",
    "noAccess": "you may not write it",
    "wrongType": "the agent expects another type",
    "wrongLength": "too short or too long",
    "wrongEncoding": "the agent could not read the message",
    "wrongValue": "no value of this variable",
    "noCreation": "there can be no such row",
    "inconsistentValue": "it does not go with what else is set",
    "resourceUnavailable": "the agent has no room for it",
    "commitFailed": "it could not be stored, nothing was changed",
    "undoFailed": "it could not be stored, and what was changed is not known",
    "authorizationError": "you may only read, or not even that",
    "notWritable": "it can only be read",
    "inconsistentName": "there is no such row, and these assignments do not make one",
}
"""By error-status (RFC 3416 section 3)."""
ABOUT_VALUES: Final = frozenset({"badValue", "wrongType", "wrongLength", "wrongValue"})


@dataclass(frozen=True, slots=True)
class Refusal:
    """`column` and `shown`: what was refused, and its value as the shell writes it; None and empty where the agent does
    not name it. `why`: in words, with what is accepted."""

    name: str
    column: Column | None
    shown: str
    why: str

    def __str__(self) -> str:
        if self.column is None:
            return f"nothing was changed: {self.why}"
        return f"{self.name}{f' = {self.shown}' if self.shown else ''}: {self.why}"


async def refusal(session: Session, failed: RequestFailed, wanted: Mapping[str, Value]) -> Refusal:
    """`wanted`: what the SET held, by instance."""
    said = await session.client.last_refusal()
    column = session.client.names.column(failed.oid) if failed.oid else None
    value = wanted.get(failed.name)
    shown = values.show(column, value) if column is not None and value is not None else ""
    if column is not None and said.startswith(f"{failed.name} = "):
        said = said.removeprefix(f"{failed.name} = ")
        if value is not None and said.startswith(f"{column.show(value)}: "):
            return Refusal(failed.name, column, shown, values.harmless(said.removeprefix(f"{column.show(value)}: ")))
        its, _, why = values.harmless(said).partition(": ")  # it writes the value in another way
        return Refusal(failed.name, column, its, why)
    word = status_word(failed.status)
    text = WORDS.get(word, word)
    if column is not None and word in ABOUT_VALUES:
        text += f"; accepted: {values.accepted(column)}"
    return Refusal(failed.name, column, shown, text)
