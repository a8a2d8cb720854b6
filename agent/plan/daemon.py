"""What the IKE daemon itself is set to, for all peers at once: ports, repetition, tables, log.

These are options of the daemon's configuration file and not of a connection. Most are read
anew when they change; the port and the size of its table of IKE SAs only when it starts.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from agent.plan.model import ConfigurationView

NAT_T_PORT: Final = 4500
MOST_LINES: Final = 1 << 16  # of ipsecTuneSAIHashLines; more than there can be IKE SAs to be looked up
SHORTEST_MILLISECONDS: Final = 10  # a repetition sooner floods the peer
MOST_RETRIES: Final = 100

SCALARS: Final = frozenset(
    {
        "ipsecGlobIkePort",
        "ipsecGlobMaxRetries",
        "ipsecGlobRetryTimeout0milli",
        "ipsecGlobRetryTimeoutMaxsec",
        "ipsecGlobMaxNegotiationTimeoutsec",
        "ipsecGlobContIkeLoggingLevel",
        "ipsecTuneSAIHashLines",
    }
)
"""What is read here."""

LEVELS: Final = ((7, 3), (4, 2), (1, 1), (0, -1))
"""Lowest ipsecGlobContIkeLoggingLevel, and the level of the daemon's log it stands for; its level 4 would write
keys."""


class DaemonSettings(NamedTuple):
    """`retries`: repetitions of a message before a negotiation fails; `first_milliseconds` before the first of them,
    `longest_seconds` between two at most (0: no bound). `half_open_seconds`: how long a negotiation that the peer
    began may last. `log_level` -1 (silent) … 3. `sa_lines`: size of the table of IKE SAs, a power of two."""

    ike_port: int = 500
    retries: int = 10
    first_milliseconds: int = 500
    longest_seconds: int = 30
    half_open_seconds: int = 300
    log_level: int = -1
    sa_lines: int = 256


USUAL: Final = DaemonSettings()
"""The vendor's DEFVALs."""


def daemon_settings(configuration: ConfigurationView) -> DaemonSettings:
    """Of one configuration. What a value outside the bounds would mean is the nearest that can be: such values are
    refused in SETs, but an older store may hold them."""

    def number(name: str) -> int:
        value = configuration.scalar(name)
        assert isinstance(value, int)
        return value

    port = number("ipsecGlobIkePort")
    level = number("ipsecGlobContIkeLoggingLevel")
    half_open = number("ipsecGlobMaxNegotiationTimeoutsec")
    lines = max(1, min(number("ipsecTuneSAIHashLines"), MOST_LINES))
    return DaemonSettings(
        port if not port_problem(port) else USUAL.ike_port,
        max(0, min(number("ipsecGlobMaxRetries"), MOST_RETRIES)),
        max(SHORTEST_MILLISECONDS, number("ipsecGlobRetryTimeout0milli")),
        max(0, number("ipsecGlobRetryTimeoutMaxsec")),
        half_open if half_open > 0 else USUAL.half_open_seconds,
        next(charons for lowest, charons in LEVELS if level >= lowest),
        1 << (lines - 1).bit_length(),
    )


def port_problem(port: int) -> str:
    """Why the daemon cannot take this port for IKE; '' when it can."""
    if not 0 < port <= 0xFFFF:
        return "no UDP port; accepted: 1..65535"
    if port == NAT_T_PORT:
        return f"{NAT_T_PORT} is the port of NAT traversal (RFC 3948); accepted: another one"
    return ""
