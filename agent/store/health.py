"""Whether the store is well: ipsecGwStoreState and ipsecGwStoreMessage, and who wants to hear of it.

Several things can be the matter at once (writing fails, copies fail): each has its topic,
the worst state shows, and the messages stand side by side.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable
from typing import Final

from agent.store.events import display
from agent.store.live import Live

logger = logging.getLogger(__name__)

STATUS: Final = "ipsecGwStatus"
STATE, MESSAGE = "ipsecGwStoreState", "ipsecGwStoreMessage"


class StoreState(enum.IntEnum):
    """ipsecGwStoreState; a greater number is worse, but for READ_ONLY, which nothing can be worse than."""

    OK = 1
    READ_ONLY = 2
    FAILING = 3


class Topic(enum.Enum):
    """What can be the matter, the gravest first."""

    DATABASE = "the database is damaged"
    WRITING = "it cannot be written"
    COPIES = "copies cannot be made"


HealthListener = Callable[[StoreState, str], None]
"""Called on the event loop with the new (state, message) whenever one of them has changed."""


class Health:
    """On the event loop. `state` and `message` are what the objects read; the message is cut to a DisplayString."""

    def __init__(self, live: Live) -> None:
        self.state = StoreState.OK
        self.message = ""
        self._live = live
        self._topics: dict[Topic, tuple[StoreState, str]] = {}
        self._listeners: list[HealthListener] = []

    def subscribe(self, listener: HealthListener) -> None:
        """Told of every change from now on; where something is the matter already, at once of that."""
        self._listeners.append(listener)
        if self.message or self.state is not StoreState.OK:
            self._tell(listener)

    def unsubscribe(self, listener: HealthListener) -> None:
        self._listeners.remove(listener)

    def say(self, topic: Topic, state: StoreState, message: str) -> None:
        """Something is the matter. It is logged when it is new."""
        if self._topics.get(topic) != (state, message):
            logger.error("store: %s", message)
            self._topics[topic] = (state, message)
            self._show()

    def well(self, topic: Topic) -> None:
        """Nothing is the matter (any more)."""
        if self._topics.pop(topic, None) is not None:
            logger.info("store: no longer so: %s", topic.value)
            self._show()

    def _show(self) -> None:
        entries = [self._topics[topic] for topic in Topic if topic in self._topics]
        states = {state for state, _ in entries}
        read_only = StoreState.READ_ONLY in states
        state = StoreState.READ_ONLY if read_only else max(states, default=StoreState.OK)
        text = "; ".join(message for _, message in entries)
        self.state, self.message = state, display(text).decode()
        if STATUS in self._live:
            self._live.update(STATUS, {0: {STATE: int(state), MESSAGE: self.message.encode()}})
        for listener in list(self._listeners):
            self._tell(listener)

    def _tell(self, listener: HealthListener) -> None:
        try:
            listener(self.state, self.message)
        except Exception:
            logger.exception("%r failed on the state of the store", listener)
