"""Proposal rows as the daemon's proposal strings, strong ones first where nothing is said.

Phase 1: one string per row of a chain and key length. Phase 2: a combined cipher, then
every cipher with a rank, in order of rank, with every MAC with a rank. What the engine
lacks, or this version of IKE, is left out, and the row says so; a chain of which nothing
is left cannot be used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from agent.mib import load_schema
from agent.plan import cells
from agent.plan.capabilities import (
    AEAD_NAMES,
    AEADS,
    AH_MACS,
    ALL_GROUPS,
    DEFAULT_GROUP,
    ESP_AEADS_OF_V2,
    ESP_CIPHERS,
    ESP_KEY_SIZES,
    ESP_MACS,
    GROUPS,
    IKE_AEADS_OF_V2,
    IKE_CIPHERS,
    IKE_HASHES,
    LACKING_HASHES,
    PRFS,
    can,
)
from agent.plan.keylengths import TOO_LONG, KeyBounds, aead_fits, lengths
from agent.plan.model import Capabilities, ConfigurationView, RowRef, RowView

IKE_PROPOSALS: Final = "ikeProposalTable"
IPSEC_PROPOSALS: Final = "ipsecProposalTable"

# Offered where no chain is named: AES and SHA-2 only, so that nothing weak is agreed on by default.
_SEEDED: Final = ((256, "sha256"), (256, "sha512"), (192, "sha256"), (128, "sha256"))

MOST_ELEMENTS: Final = 64  # of one chain; charon tries each with each of the other side

V1, V2 = 1, 2  # IKE versions, ipsecPeerIkeVersion
ANY_METHOD: Final = 33  # ikePropAuthMethod default
NO_AEAD: Final = 1  # ipsecGwIkePropAead, ipsecGwIpsecPropAead none
WEAK_CIPHERS: Final = frozenset({"des"})


class Asked(NamedTuple):
    """What a chain is read for. `group`: that of the profiles, 0 for none; `method`: how the peer authenticates,
    ikePrfAuthMethod; `suffix`: `-modp2048` for PFS."""

    capabilities: Capabilities
    version: int = V1
    bounds: KeyBounds = KeyBounds()
    group: int = 0
    method: int = 1
    suffix: str = ""


class ChainElement(NamedTuple):
    """What one row contributes. `problem`: why it contributes nothing; `note`: what it does not do as written."""

    row: RowRef
    offers: tuple[str, ...]
    problem: str = ""
    note: str = ""


def seeded(bounds: KeyBounds) -> list[str]:
    """What both phases offer where no chain is named; phase 1 with a group behind it, phase 2 with that of PFS."""
    return [f"aes{size}-{mac}" for size, mac in _SEEDED if size <= bounds.most]


def chain_rows(configuration: ConfigurationView, table: str, head: int, link: str) -> Iterator[RowView]:
    """The rows of a chain in order. One that is out of service only leads on to the next, as if it were deleted; a
    ring (which the store refuses) ends."""
    seen = set[int]()
    elements = 0
    while head and head not in seen and elements < MOST_ELEMENTS:
        seen.add(head)
        row = configuration.row(table, head)
        if row is not None:
            elements += 1
            yield row
        else:
            row = configuration.row_any_status(table, head)
            if row is None:
                return
        head = cells.number(row, link)


def group_problem(group: int) -> str:
    """Why a Diffie-Hellman group cannot be used; 0 leaves the choice to others and is none."""
    if group in ALL_GROUPS or group == 0:
        return ""
    return f"group {group} is not available; accepted: 0 (inherit), {', '.join(map(str, GROUPS))}"


def ike_element(row: RowView, asked: Asked) -> ChainElement:
    """One row of ikeProposalTable."""
    ref = RowRef(IKE_PROPOSALS, row.number)
    group = (
        asked.group or cells.number(row, "ipsecGwIkePropGroup") or cells.number(row, "ikePropGroup") or DEFAULT_GROUP
    )
    if group not in ALL_GROUPS or not can(asked.capabilities.ike_groups, group):
        return ChainElement(ref, (), group_problem(group) or f"group {group} is not available")
    aead = cells.number(row, "ipsecGwIkePropAead")
    if aead != NO_AEAD:
        return _ike_aead(ref, row, AEADS[aead], ALL_GROUPS[group], asked)
    cipher = IKE_CIPHERS.get(cells.number(row, "ikePropEncAlg"))
    hash_number = cells.number(row, "ikePropHashAlg")
    hash_ = IKE_HASHES.get(hash_number)
    if cipher is None:
        return ChainElement(ref, (), "phase 1 is never without a cipher; set ikePropEncAlg")
    if not can(asked.capabilities.ike_ciphers, cipher):
        return ChainElement(ref, (), f"cipher {cipher} is not available")
    if hash_ is None:
        name = LACKING_HASHES.get(hash_number, str(hash_number))
        have = [number for number, one in IKE_HASHES.items() if can(asked.capabilities.ike_hashes, one)]
        accepted = ", ".join(map(load_schema().columns["ikePropHashAlg"].show, have))
        return ChainElement(ref, (), f"hash {name} is not available; ikePropHashAlg accepts {accepted}")
    if not can(asked.capabilities.ike_hashes, hash_):
        return ChainElement(ref, (), f"hash {hash_} is not available")
    if not _for_method(row, asked):
        return _other_method(ref)
    sizes, note = lengths(cipher, row, "ikePropEncKeySize", asked.bounds)
    if not sizes:
        return ChainElement(ref, (), TOO_LONG)
    tail = f"-{hash_}-{ALL_GROUPS[group]}"
    return ChainElement(ref, tuple(f"{cipher}{size or ''}{tail}" for size in sizes), note=note)


def _ike_aead(ref: RowRef, row: RowView, cipher: str, group: str, asked: Asked) -> ChainElement:
    """A combined cipher has no hash, so a pseudo-random function stands beside it (RFC 5282)."""
    if asked.version == V1 and cipher in IKE_AEADS_OF_V2:
        return ChainElement(ref, (), f"{AEAD_NAMES[cipher]} in phase 1 needs IKEv2; set ipsecGwIkePropAead none")
    if not can(asked.capabilities.aeads, cipher):
        return ChainElement(ref, (), f"{AEAD_NAMES[cipher]} is not available")
    if not _for_method(row, asked):
        return _other_method(ref)
    if not aead_fits(cipher, asked.bounds):
        return ChainElement(ref, (), TOO_LONG)
    return ChainElement(ref, (f"{cipher}-{PRFS[cells.number(row, 'ipsecGwIkePropPrf')]}-{group}",))


def _for_method(row: RowView, asked: Asked) -> bool:
    return cells.number(row, "ikePropAuthMethod") in (asked.method, ANY_METHOD)


def _other_method(ref: RowRef) -> ChainElement:
    return ChainElement(ref, (), note="left out for peers that authenticate in another way")


def _ranked(row: RowView, columns: Mapping[str, str]) -> list[str]:
    ranks = [(cells.number(row, column), name) for column, name in columns.items()]
    return [name for rank, name in sorted(ranks, key=lambda entry: entry[0]) if rank > 0]


def ipsec_element(row: RowView, asked: Asked) -> tuple[int, ChainElement]:
    """(protocol 50 or 51, what the row offers)."""
    ref = RowRef(IPSEC_PROPOSALS, row.number)
    protocol = cells.number(row, "ipsecPropProto")
    if protocol == 2:
        macs = [mac for mac in _ranked(row, AH_MACS) if can(asked.capabilities.esp_macs, mac)]
        problem = "" if macs else "AH without a MAC: none of ipsecPropAh… has a rank"
        return 51, ChainElement(ref, tuple(mac + asked.suffix for mac in macs), problem)
    if protocol != 1:
        return 50, ChainElement(ref, (), "ESP and AH are never made together; ipsecPropProto accepts esp, ah")
    aead = cells.number(row, "ipsecGwIpsecPropAead")
    offers: list[str] = []
    problems: list[str] = []
    if aead != NO_AEAD:
        why = _esp_aead_problem(AEADS[aead], asked)
        if why:
            problems.append(why)
        else:
            offers.append(AEADS[aead] + asked.suffix)
    notes: list[str] = []
    ciphers = [name for name in _ranked(row, ESP_CIPHERS) if can(asked.capabilities.esp_ciphers, name)]
    macs = [mac for mac in _ranked(row, ESP_MACS) if not mac or can(asked.capabilities.esp_macs, mac)]
    if ciphers and macs:
        ranked = _esp_ranked(row, ciphers, macs, asked, notes)
        offers += ranked
        if not ranked:
            nothing = ciphers == ["null"] and macs == [""]
            problems.append("neither cipher nor MAC would protect anything; rank one of them" if nothing else TOO_LONG)
    elif ciphers or macs or aead == NO_AEAD:
        problems.append(
            "no MAC has a rank; set ipsecPropEspSha256 or another"
            if ciphers
            else "no cipher has a rank; set ipsecPropEspAes or another"
        )
    if offers:
        return 50, ChainElement(ref, tuple(offers), "", "; ".join([*problems, *notes]))
    return 50, ChainElement(ref, (), "; ".join(problems))


def _esp_aead_problem(cipher: str, asked: Asked) -> str:
    if asked.version == V1 and cipher in ESP_AEADS_OF_V2:
        return f"{AEAD_NAMES[cipher]} in ESP needs IKEv2"
    if not can(asked.capabilities.aeads, cipher):
        return f"{AEAD_NAMES[cipher]} is not available"
    return "" if aead_fits(cipher, asked.bounds) else TOO_LONG


def _esp_ranked(row: RowView, ciphers: list[str], macs: list[str], asked: Asked, notes: list[str]) -> list[str]:
    """Ciphers in the outer loop, MACs in the inner; what there is to tell goes to `notes`."""
    offers: list[str] = []
    for cipher in ciphers:
        sizes, note = lengths(cipher, row, ESP_KEY_SIZES.get(cipher, ""), asked.bounds)
        if not sizes:
            note = f"{cipher} is longer than ipsecGlobMaxKeyLength"
        if note:
            notes.append(note)
        if cipher in WEAK_CIPHERS:
            notes.append(f"{cipher} is weak")
        for size in sizes:
            # NULL for the cipher or for the MAC, never both (guide 3.2.4); the daemon would take it
            offers += (
                f"{cipher}{size or ''}" + (f"-{mac}" if mac else "") + asked.suffix
                for mac in macs
                if mac or cipher != "null"
            )
    if "" in macs and offers:
        notes.append("encryption without a MAC is offered")
    return offers
