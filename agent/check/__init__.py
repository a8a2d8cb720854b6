"""`ipsec-agent check`: looks at configuration and machine and says what to do about each finding.

`gather` asks the machine, once, for plain facts; `configuration` and `environment` are tables of
pure functions over them; `finding` shows what they yield. Looking changes nothing, takes no
lock, and works beside a running agent.
"""

from __future__ import annotations

from agent.check.configuration import CONFIGURATION
from agent.check.environment import ENVIRONMENT
from agent.check.finding import Finding, Severity, as_json_text, as_text
from agent.check.gather import gather
from agent.config import Settings

__all__ = ["Finding", "Severity", "run"]


def run(settings: Settings, *, as_json: bool = False) -> tuple[str, int]:
    """What was found, worst first, as text or JSON; exit status: 0 nothing above a note, 1 warnings, 2 errors."""
    facts = gather(settings)
    findings = [finding for look in (*ENVIRONMENT, *CONFIGURATION) for finding in look(facts)]
    findings.sort(key=lambda finding: finding.severity)
    worst = min((finding.severity for finding in findings), default=Severity.NOTE)
    status = {Severity.ERROR: 2, Severity.WARNING: 1, Severity.NOTE: 0}[worst]
    return (as_json_text if as_json else as_text)(findings), status
