"""Key sizes of proposals are clamped to what ipsecAlgorithmTable says: what is stored, and read back, is what can be.

An expander of SETs: a size outside the limits of its cipher becomes the nearest one inside
when a SET names it, and one that is there already when a SET names another cipher. 0 stays,
since it leaves the size to the agent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from agent.mib.ber import Value
from agent.plan.capabilities import ESP_KEY_SIZES, IKE_CIPHERS, KEY_LIMITS
from agent.plan.proposals import IKE_PROPOSALS
from agent.store.hooks import Edit, Origin, Placed
from agent.store.snapshot import Configuration

ENDS: Final = ("", "Min", "Max")
IKE_CIPHER: Final = "ikePropEncAlg"
IKE_SIZES: Final = tuple(f"ikePropEncKeySize{end}" for end in ENDS)
ESP_SIZES: Final[Mapping[str, str]] = MappingProxyType(
    {f"{column}{end}": cipher for cipher, column in ESP_KEY_SIZES.items() for end in ENDS}
)


def clamped(size: int, cipher: str) -> int:
    """The nearest key size in bits that the cipher has; 0 is the agent's choice and stays."""
    smallest, _, largest = KEY_LIMITS[cipher]
    return min(max(size, smallest), largest) if size > 0 else 0


def clamp_key_sizes(before: Configuration, placed: Sequence[Placed], origin: Origin) -> Sequence[Placed]:
    """An `Expander` of agent.store.hooks: the same edits with key sizes that can be."""
    if not any(edit.column.name in ESP_SIZES or edit.column.table == IKE_PROPOSALS for _, edit in placed):
        return placed
    ciphers = _ciphers(before, placed)
    result: list[Placed] = []
    named: set[tuple[int, str]] = set()
    for at, edit in placed:
        name = edit.column.name
        cipher = ESP_SIZES.get(name)
        if name in IKE_SIZES:
            cipher = ciphers[edit.number]
            named.add((edit.number, name))
        if cipher is not None and isinstance(edit.value, int):
            edit = Edit(edit.column, edit.number, clamped(edit.value, cipher))
        result.append((at, edit))
    for at, edit in placed:
        if edit.column.name == IKE_CIPHER and (cipher := ciphers[edit.number]) is not None:
            result += _follow(before, at, edit, cipher, named)
    return result


def _ciphers(before: Configuration, placed: Sequence[Placed]) -> dict[int, str | None]:
    """Cipher of each phase 1 proposal that is named, as it will be; None for none."""
    found: dict[int, Value] = {}
    for _, edit in placed:
        if edit.column.table != IKE_PROPOSALS:
            continue
        if edit.column.name == IKE_CIPHER:
            found[edit.number] = edit.value
        elif edit.number not in found:
            row = before.row_any_status(IKE_PROPOSALS, edit.number)
            column = before.schema.columns[IKE_CIPHER]
            found[edit.number] = column.default if row is None else row[IKE_CIPHER]
    return {number: IKE_CIPHERS.get(value) if isinstance(value, int) else None for number, value in found.items()}


def _follow(before: Configuration, at: int, edit: Edit, cipher: str, named: set[tuple[int, str]]) -> Sequence[Placed]:
    """Sizes that are there, do not fit the new cipher and are not named."""
    row = before.row_any_status(IKE_PROPOSALS, edit.number)
    if row is None:
        return ()
    columns = before.schema.columns
    wanted = []
    for name in IKE_SIZES:
        if columns[name].traits.stage != "skeleton":
            continue  # it does not act yet, and the store would refuse it
        size = row[name]
        if (edit.number, name) not in named and isinstance(size, int) and clamped(size, cipher) != size:
            wanted.append((at, Edit(columns[name], edit.number, clamped(size, cipher))))
    return wanted
