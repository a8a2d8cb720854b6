"""ipsecPropEspRijndael: the name AES had before it was AES. A rank written to it becomes that of ipsecPropEspAes.

An expander of SETs. The old column itself keeps -1, which says that the other one counts
(MIB text), so there is one place for the rank and the two can never differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from agent.store.edits import refusal
from agent.store.errors import ErrorStatus
from agent.store.hooks import Edit, Origin, Placed
from agent.store.snapshot import Configuration

OLD: Final = "ipsecPropEspRijndael"
NEW: Final = "ipsecPropEspAes"
ELSEWHERE: Final = -1


def rijndael_is_aes(before: Configuration, placed: Sequence[Placed], origin: Origin) -> Sequence[Placed]:
    """An `Expander` of agent.store.hooks: ranks of the old name as ranks of the new. Raises Refused where a SET gives
    both, and they differ."""
    if not any(edit.column.name == OLD for _, edit in placed):
        return placed
    named = {edit.number: edit.value for _, edit in placed if edit.column.name == NEW}
    result: list[Placed] = []
    for at, edit in placed:
        if edit.column.name != OLD or edit.value == ELSEWHERE:
            result.append((at, edit))
            continue
        rank = named.get(edit.number, edit.value)
        if rank != edit.value:
            why = f"{NEW}, which is the same cipher, gets rank {rank!r} in the same SET"
            raise refusal(ErrorStatus.INCONSISTENT_VALUE, at, edit, why, f"one of the two, or rank {rank!r} for both")
        result.append((at, Edit(edit.column, edit.number, ELSEWHERE)))
        result.append((at, Edit(before.schema.columns[NEW], edit.number, edit.value)))
    return result
