"""One finding: how bad, what, why it matters, what to do; and a list of them for a person or a program."""

from __future__ import annotations

import enum
import json
from collections.abc import Sequence
from typing import NamedTuple


class Severity(enum.IntEnum):
    """Worst first."""

    ERROR = 0  # something does not work, or secrets lie open
    WARNING = 1  # something will not work as its row says, or is weaker than it need be
    NOTE = 2  # worth knowing

    @property
    def word(self) -> str:
        return self.name.lower()


class Finding(NamedTuple):
    """`name` is for programs and does not change."""

    severity: Severity
    name: str
    what: str
    why: str
    todo: str


def error(name: str, what: str, why: str, todo: str) -> Finding:
    return Finding(Severity.ERROR, name, what, why, todo)


def warning(name: str, what: str, why: str, todo: str) -> Finding:
    return Finding(Severity.WARNING, name, what, why, todo)


def note(name: str, what: str, why: str, todo: str) -> Finding:
    return Finding(Severity.NOTE, name, what, why, todo)


def as_text(findings: Sequence[Finding]) -> str:
    """A paragraph each, and a line that counts."""
    lines: list[str] = []
    for finding in findings:
        lines += [f"{finding.severity.word}: {finding.what}", f"    why: {finding.why}", f"    do: {finding.todo}"]
    counts = {severity: sum(finding.severity == severity for finding in findings) for severity in Severity}
    lines.append(", ".join(f"{severity.word}s: {count}" for severity, count in counts.items()))
    return "\n".join(lines)


def as_json_text(findings: Sequence[Finding]) -> str:
    """A list of objects: severity, name, what, why, todo."""
    return json.dumps([{**finding._asdict(), "severity": finding.severity.word} for finding in findings], indent=2)
