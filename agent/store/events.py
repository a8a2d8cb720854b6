"""What happens on the gateway, told by whoever sees it to whoever keeps or sends it.

Monitor, reconciler, store and SNMP each see something: a peer that went down, a row that
cannot be made real, a stranger. None of them knows who listens; the event log
(monitor/eventlog.py) and the notifier (snmp/notify) do. Kinds and severities are those of
ipsecGwEventTable.
"""

from __future__ import annotations

import enum
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from agent.mib.ber import Value

logger = logging.getLogger(__name__)

TEXT_OCTETS: Final = 255  # of a DisplayString
EARLY: Final = 100  # events told before anybody listened that are kept for those who come
STORE_STATE: Final = "ipsecGwStoreState"
STORE_MESSAGE: Final = "ipsecGwStoreMessage"
STORE_OK: Final = 1  # ipsecGwStoreState


class Kind(enum.IntEnum):
    """ipsecGwEventKind."""

    OTHER = 1
    START = 2
    PEER_UP = 3
    PEER_DOWN = 4
    PEER_BLOCKED = 5
    NEGOTIATION_FAILED = 6
    CERTIFICATE_EXPIRING = 7
    CERTIFICATE_EXPIRED = 8
    CONFIGURATION_CHANGED = 9
    APPLY_FAILED = 10
    STORE_ALARM = 11
    AUTHENTICATION_FAILURE = 12


class Severity(enum.IntEnum):
    """ipsecGwEventSeverity."""

    EMERG = 1
    ALERT = 2
    CRIT = 3
    ERR = 4
    WARNING = 5
    NOTICE = 6
    INFO = 7
    DEBUG = 8


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. `peer`: an ipsecPeerIndex, 0 for none. `row`: table and number that it is about, where
    that is not the peer. `values`: objects that whoever saw it knows better than the tables do at this moment."""

    kind: Kind
    severity: Severity
    text: str
    peer: int = 0
    row: tuple[str, int] | None = None
    values: Mapping[str, Value] = field(default_factory=dict)


Listener = Callable[[Event], None]
"""Called on the event loop, at once; must not block."""


class Events:
    """Hands events on to all who listen. What is told before the first does is handed to each who comes."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._early: deque[Event] = deque(maxlen=EARLY)

    def tell(self, event: Event) -> None:
        """Never raises."""
        if not self._listeners:
            self._early.append(event)
        for listener in list(self._listeners):
            _hand(listener, event)

    def subscribe(self, listener: Listener) -> None:
        for event in self._early:
            _hand(listener, event)
        self._listeners.append(listener)

    def unsubscribe(self, listener: Listener) -> None:
        self._listeners.remove(listener)


def _hand(listener: Listener, event: Event) -> None:
    try:
        listener(event)
    except Exception:
        logger.exception("%r failed on %r", listener, event)


def store_alarm(state: int, message: str) -> Event:
    """The event of another state or message of the database; `state` as ipsecGwStoreState has it."""
    severity = Severity.NOTICE if state == STORE_OK else Severity.ALERT
    values: dict[str, Value] = {STORE_STATE: state, STORE_MESSAGE: display(message)}
    return Event(Kind.STORE_ALARM, severity, message or "the database is in order again", values=values)


def display(text: str) -> bytes:
    """Text as a DisplayString: at most 255 octets, never cut within a character, no control characters."""
    plain = "".join(c if c.isprintable() else " " for c in text)
    return plain.encode("utf-8", "replace")[:TEXT_OCTETS].decode("utf-8", "ignore").encode()
