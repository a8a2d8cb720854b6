"""docs/limits.md: what this version does not do and how much it takes, from the tables that decide it.

python -m agent.limits > docs/limits.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from agent.mib import load_schema
from agent.mib.schema import Column, Role, Schema
from agent.plan import capabilities
from agent.plan.connections import IDLE_SECONDS
from agent.plan.flows import MOST_FLOWS
from agent.snmp import guard, sets

STAGES = {
    "gateway": "acts when all of the gateway's IPsec behaviour is there",
    "certificates": "acts when requests, enrolment and revocation lists are there",
    "later": "is planned behind that",
}


def document(schema: Schema) -> str:
    """The whole page, Markdown."""
    writable = [c for c in schema.columns.values() if c.writable and c.traits.role is not Role.ROW_STATUS]
    writable.sort(key=lambda column: column.oid)
    parts = [
        "# Limits",
        "Made by `python -m agent.limits` from the tables in the code. Every object with its own limit is in "
        "[objects.md](objects.md).",
        "## How much",
        _sizes(),
        "## What the engine has",
        _engine(),
        "## Objects that never change anything",
        "Nothing on Linux corresponds to them; why stands beside. What is written is stored and read back, so that "
        "managers can write whole rows; values that would promise protection or interoperation are refused, and so is "
        "everything but the default of what is planned for later.",
        _table(("object", "why"), [(c.name, c.traits.limit or c.traits.effect) for c in writable if _idle(c)]),
    ]
    for stage, when in STAGES.items():
        rows = [(c.name, _default(c), c.traits.effect) for c in writable if c.traits.stage == stage and not _idle(c)]
        if rows:
            parts += [
                f"## Only the default yet: {stage}",
                f"{len(rows)} objects accept their default only, and refuse anything else with inconsistentValue; "
                f"those that make a row accept any value, and the row is kept. Each {when}.",
                _table(("object", "default", "what it will do"), rows),
            ]
    return "\n\n".join(parts) + "\n"


def _default(column: Column) -> str:
    return '""' if column.traits.role is Role.SECRET else column.show(column.default)


def _idle(column: Column) -> bool:
    return column.traits.mechanism == "none"


def _sizes() -> str:
    limits = guard.Limits()
    return _table(
        ("what", "how much"),
        [
            ("an SNMP message", f"{limits.message_octets} octets"),
            ("variable bindings in a request", str(limits.varbinds)),
            ("a message of nobody known", f"{limits.strangers_octets} octets"),
            ("SETs waiting for the disk", str(sets.UNDER_WAY)),
            ("a retry of a SET gets the same answer for", f"{sets.REMEMBERED:.0f} s"),
            ("flows of a rule with SAs of their own (ipsecPrfGranularity)", str(MOST_FLOWS)),
            ("these SAs unused, until they are closed", f"{IDLE_SECONDS} s, or sooner by the profile's lifetime"),
        ],
    )


def _engine() -> str:
    groups = ", ".join(f"{number} ({name})" for number, name in capabilities.ALL_GROUPS.items())
    return _table(
        ("what", "charon has"),
        [
            ("ciphers of phase 1", ", ".join(dict.fromkeys(capabilities.IKE_CIPHERS.values()))),
            ("hashes of phase 1", ", ".join(capabilities.IKE_HASHES.values())),
            ("not in phase 1", ", ".join(capabilities.LACKING_HASHES.values())),
            ("groups", groups),
            ("combined ciphers of phase 1, IKEv2 only", ", ".join(sorted(capabilities.IKE_AEADS_OF_V2))),
            ("combined ciphers of ESP", ", ".join(capabilities.AEADS.values())),
            ("of these with IKEv2 only", ", ".join(sorted(capabilities.ESP_AEADS_OF_V2))),
            ("ciphers of ESP", ", ".join(capabilities.ESP_CIPHERS.values())),
            ("hashes of ESP", ", ".join(mac for mac in capabilities.ESP_MACS.values() if mac)),
            ("hashes of AH", ", ".join(capabilities.AH_MACS.values())),
        ],
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(_cell(text) for text in row) + " |" for row in rows]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    sys.stdout.write(document(load_schema()))
