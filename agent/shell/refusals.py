"""Why the agent refused, in words: the variable, the value, why not, and what is accepted.

An answer of SNMP has a number and an index. This kind of agent also says it in words
(ipsecGwLastRefusal), which is asked for afterwards and believed only if it speaks of the very
variable. Of others the number is told, with what the object accepts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from agent.mib.ber import Value
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


async def said_of(session: Session, failed: RequestFailed, wanted: Mapping[str, Value]) -> str:
    """`wanted`: what the SET held, by instance."""
    said = await session.client.last_refusal()
    column = session.client.names.column(failed.oid) if failed.oid else None
    value = wanted.get(failed.name)
    if failed.name and said.startswith(f"{failed.name} "):
        if column is not None and value is not None:  # the agent writes octets in its own way
            said = said.replace(f"= {column.show(value)}: ", f"= {values.show(column, value)}: ", 1)
        return values.harmless(said)
    word = status_word(failed.status)
    text = WORDS.get(word, word)
    if column is None:
        return f"nothing was changed: {text}"
    if word in ABOUT_VALUES:
        text += f"; accepted: {values.accepted(column)}"
    shown = f" = {values.show(column, value)}" if value is not None else ""
    return f"{failed.name}{shown}: {text}"
