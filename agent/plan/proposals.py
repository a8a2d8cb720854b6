"""Proposal rows as the daemon's proposal strings, strong ones first where nothing is said.

Phase 1: one string per row of a chain and key length. Phase 2: every cipher with a rank,
in order of rank, with every MAC with a rank. What the engine lacks is left out, and the row
says so; a chain of which nothing is left cannot be used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from agent.plan import cells
from agent.plan.capabilities import (
    AH_MACS,
    DEFAULT_GROUP,
    ESP_CIPHERS,
    ESP_KEY_SIZES,
    ESP_MACS,
    GROUPS,
    IKE_CIPHERS,
    IKE_HASHES,
    KEY_SIZES,
    LACKING_HASHES,
    UNSET_KEY_SIZES,
    can,
    nearest_key_size,
)
from agent.plan.model import Capabilities, ConfigurationView, RowRef, RowView

IKE_PROPOSALS: Final = "ikeProposalTable"
IPSEC_PROPOSALS: Final = "ipsecProposalTable"

# Offered where no chain is named: AES and SHA-2 only, so that nothing weak is agreed on by default.
SEEDED_IKE: Final = ("aes256-sha256", "aes256-sha512", "aes192-sha256", "aes128-sha256")
SEEDED_ESP: Final = ("aes256-sha256", "aes256-sha512", "aes192-sha256", "aes128-sha256")

MOST_ELEMENTS: Final = 64  # of one chain; charon tries each with each of the other side


class ChainElement(NamedTuple):
    """What one row contributes. `problem`: why it contributes nothing; `note`: what it does not do as written."""

    row: RowRef
    offers: tuple[str, ...]
    problem: str = ""
    note: str = ""


def chain_rows(configuration: ConfigurationView, table: str, head: int, link: str) -> Iterator[RowView]:
    """The rows of a chain in order; a ring (which the store refuses) ends."""
    seen = set[int]()
    while head and head not in seen and len(seen) < MOST_ELEMENTS:
        seen.add(head)
        row = configuration.row(table, head)
        if row is None:
            return
        yield row
        head = cells.number(row, link)


def group_problem(group: int) -> str:
    """Why a Diffie-Hellman group cannot be used; 0 leaves the choice to others and is none."""
    if group in GROUPS or group == 0:
        return ""
    return f"group {group} is not available; accepted: 0 (inherit), {', '.join(map(str, GROUPS))}"


def _sizes(cipher: str, wanted: int) -> tuple[int, ...]:
    return UNSET_KEY_SIZES[cipher] if wanted <= 0 else (nearest_key_size(cipher, wanted),)


def ike_element(row: RowView, group: int, capabilities: Capabilities, method: int) -> ChainElement:
    """One row of ikeProposalTable. `group`: that of the profiles, 0 for none; `method`: how the peer authenticates."""
    ref = RowRef(IKE_PROPOSALS, row.number)
    cipher = IKE_CIPHERS.get(cells.number(row, "ikePropEncAlg"))
    hash_number = cells.number(row, "ikePropHashAlg")
    hash_ = IKE_HASHES.get(hash_number)
    group = group or cells.number(row, "ikePropGroup") or DEFAULT_GROUP
    if cipher is None:
        return ChainElement(ref, (), "phase 1 is never without a cipher; set ikePropEncAlg")
    if not can(capabilities.ike_ciphers, cipher):
        return ChainElement(ref, (), f"cipher {cipher} is not available")
    if hash_ is None:
        name = LACKING_HASHES.get(hash_number, str(hash_number))
        accepted = ", ".join(IKE_HASHES.values())
        return ChainElement(ref, (), f"hash {name} is not available; ikePropHashAlg accepts {accepted}")
    if not can(capabilities.ike_hashes, hash_):
        return ChainElement(ref, (), f"hash {hash_} is not available")
    if group not in GROUPS or not can(capabilities.ike_groups, group):
        return ChainElement(ref, (), group_problem(group) or f"group {group} is not available")
    if cells.number(row, "ikePropAuthMethod") not in (method, 33):
        return ChainElement(ref, (), note="left out for peers that authenticate in another way")
    tail = f"-{hash_}-{GROUPS[group]}"
    if cipher not in KEY_SIZES:
        return ChainElement(ref, (cipher + tail,))
    wanted = cells.number(row, "ikePropEncKeySize")
    sizes = _sizes(cipher, wanted)
    note = f"{cipher} is offered with {sizes[0]} bits" if wanted > 0 and wanted != sizes[0] else ""
    return ChainElement(ref, tuple(f"{cipher}{size}{tail}" for size in sizes), note=note)


def _ranked(row: RowView, columns: Mapping[str, str]) -> list[str]:
    ranks = [(cells.number(row, column), name) for column, name in columns.items()]
    return [name for rank, name in sorted(ranks, key=lambda entry: entry[0]) if rank > 0]


def ipsec_element(row: RowView, capabilities: Capabilities, suffix: str = "") -> tuple[int, ChainElement]:
    """(protocol 50 or 51, what the row offers). `suffix`: `-modp2048` for PFS."""
    ref = RowRef(IPSEC_PROPOSALS, row.number)
    protocol = cells.number(row, "ipsecPropProto")
    if protocol == 2:
        macs = [mac for mac in _ranked(row, AH_MACS) if can(capabilities.esp_macs, mac)]
        problem = "" if macs else "AH without a MAC: none of ipsecPropAh… has a rank"
        return 51, ChainElement(ref, tuple(mac + suffix for mac in macs), problem)
    if protocol != 1:
        return 50, ChainElement(ref, (), "ESP and AH are never made together; ipsecPropProto accepts esp, ah")
    ciphers = [name for name in _ranked(row, ESP_CIPHERS) if can(capabilities.esp_ciphers, name)]
    macs = [mac for mac in _ranked(row, ESP_MACS) if not mac or can(capabilities.esp_macs, mac)]
    if not ciphers:
        return 50, ChainElement(ref, (), "no cipher has a rank; set ipsecPropEspAes or another")
    if not macs:
        return 50, ChainElement(ref, (), "no MAC has a rank; set ipsecPropEspSha256 or another")
    offers: list[str] = []
    notes: list[str] = []
    for cipher in ciphers:
        names = [cipher]
        if cipher in KEY_SIZES:
            wanted = cells.number(row, ESP_KEY_SIZES[cipher])
            sizes = _sizes(cipher, wanted)
            names = [f"{cipher}{size}" for size in sizes]
            if wanted > 0 and wanted != sizes[0]:
                notes.append(f"{cipher} is offered with {sizes[0]} bits")
        for name in names:
            # NULL for the cipher or for the MAC, never both (guide 3.2.4); the daemon would take it
            offers += (name + (f"-{mac}" if mac else "") + suffix for mac in macs if mac or name != "null")
    if "" in macs:
        notes.append("encryption without a MAC is offered")
    problem = "" if offers else "neither cipher nor MAC would protect anything; rank one of them"
    return 50, ChainElement(ref, tuple(offers), problem, "; ".join(notes))
