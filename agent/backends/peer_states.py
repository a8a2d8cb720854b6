"""What follows from a peer's state for links and plan: what its interface shows, who stands for it, whom it calls next.

Told by the events of `store/events.py`, whoever watches the peers: up, down, blocked, an
attempt failed. A backup peer takes over when its primary is lost or cannot be reached, and
gives back when the primary has been up for the delay configured; what that means for
policies and routes is the plan's business. Sources: ipsecPeerIfStateMode,
ipsecPeerSecondaryPeerIndex, ipsecPeerDelayBackToPrimary, ipsecGlobContDnsSelectRoundRobin.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, Protocol

from agent.mib.ber import Value
from agent.plan.links import Standing
from agent.store.events import Event, Kind

logger = logging.getLogger(__name__)

UP_MODES: Final = 2  # ipsecPeerStartMode always-up
ENABLED: Final = 2  # ipsecPeerVirtualInterface
FULL: Final = 1  # ipsecPeerIfStateMode
ADMIN_DOWN: Final = 2  # ipsecPeerAdminStatus


class State(enum.Enum):
    """As far as it matters here."""

    DORMANT = "dormant"
    UP = "up"
    BLOCKED = "blocked"


class Timer(Protocol):
    def cancel(self) -> None: ...


class RowView(Protocol):
    def __getitem__(self, column: str) -> Value: ...


class Settings(NamedTuple):
    """What of a peer's row matters here. `backup` 0: none; `delay` in seconds."""

    interface: bool
    always_up: bool
    full: bool
    backup: int
    delay: int
    name: str


def read_settings(row: RowView) -> Settings:
    address = row["ipsecPeerDynamicAddress"]
    backup, delay = row["ipsecPeerSecondaryPeerIndex"], row["ipsecPeerDelayBackToPrimary"]
    assert isinstance(address, bytes) and isinstance(backup, int) and isinstance(delay, int)
    down = row["ipsecPeerAdminStatus"] == ADMIN_DOWN  # the operator's wish; nobody stands for it
    return Settings(
        row["ipsecPeerVirtualInterface"] == ENABLED,
        row["ipsecPeerStartMode"] == UP_MODES,
        row["ipsecPeerIfStateMode"] == FULL,
        0 if down else max(0, backup),
        max(0, delay),
        address.decode("utf-8", "replace").strip(),
    )


class PeerStates:
    """`stand(peer, standing)` shows a state on an interface; `missed(peer, name)` tells of a failed attempt;
    `stood_for(primary → backup)` tells who stands for whom; `later` calls something after so many seconds."""

    def __init__(
        self,
        stand: Callable[[int, Standing | None], None],
        missed: Callable[[int, str], None],
        stood_for: Callable[[Mapping[int, int]], None],
        later: Callable[[float, Callable[[], None]], Timer],
    ) -> None:
        self._stand, self._missed, self._stood_for, self._later = stand, missed, stood_for, later
        self._settings: dict[int, Settings] = {}  # of peers for which something can follow
        self._states: dict[int, State] = {}  # of peers that are not dormant
        self._returns: dict[int, Timer] = {}
        self._dials: list[Callable[[int], None]] = []
        self.takeovers: dict[int, int] = {}

    def on_takeover(self, dial: Callable[[int], None]) -> None:
        """Whom to tell of a backup peer that is needed now."""
        self._dials.append(dial)

    def configured(self, peer: int, row: RowView | None) -> None:
        """A peer's row, None when it is gone."""
        settings = read_settings(row) if row is not None else None
        old = self._settings.get(peer)
        matters = settings is not None and (settings.interface or settings.backup or settings.name)
        if settings is not None and matters:
            self._settings[peer] = settings
        else:
            self._settings.pop(peer, None)
        if row is None:
            self._states.pop(peer, None)
        if (old.interface if old else False) or (settings is not None and settings.interface):
            self._show(peer)
        held = self.takeovers.get(peer)
        if held is not None and (settings is None or settings.backup != held):
            self._give_back(peer, "it has another backup peer, or none")

    def event(self, event: Event) -> None:
        """Listener of the store's events."""
        peer, kind = event.peer, event.kind
        if not peer:
            return
        if kind is Kind.PEER_UP:
            self._states[peer] = State.UP
            self._recovered(peer)
        elif kind is Kind.PEER_BLOCKED:
            self._states[peer] = State.BLOCKED
            self._lost(peer)
        elif kind is Kind.PEER_DOWN:
            self._states.pop(peer, None)
            self._lost(peer)
        elif kind is Kind.NEGOTIATION_FAILED:
            settings = self._settings.get(peer)
            if self._states.get(peer) is State.UP:
                return  # another of its tunnels stands
            if settings is not None and settings.name:
                self._missed(peer, settings.name)
            self._lost(peer)
        else:
            return
        self._show(peer)

    # ---- what the interface shows -----------------------------------------------------------

    def _show(self, peer: int) -> None:
        settings = self._settings.get(peer)
        state = self._states.get(peer, State.DORMANT)
        if settings is None or not settings.interface or not settings.always_up:
            self._stand(peer, None)
        elif settings.full:
            shown = {State.UP: Standing.UP, State.DORMANT: Standing.DORMANT, State.BLOCKED: Standing.DOWN}
            self._stand(peer, shown[state])
        else:
            self._stand(peer, None if state is State.UP else Standing.DOWN)

    # ---- who stands for whom ------------------------------------------------------------------

    def _lost(self, peer: int) -> None:
        timer = self._returns.pop(peer, None)
        if timer is not None:
            timer.cancel()
        settings = self._settings.get(peer)
        if settings is None or not settings.backup or peer in self.takeovers:
            return
        logger.warning("peer %d cannot be reached; peer %d stands for it", peer, settings.backup)
        self.takeovers[peer] = settings.backup
        self._stood_for(dict(self.takeovers))
        for dial in self._dials:
            dial(settings.backup)

    def _recovered(self, peer: int) -> None:
        settings = self._settings.get(peer)
        if peer in self.takeovers and peer not in self._returns and settings is not None:
            self._returns[peer] = self._later(settings.delay, lambda: self._give_back(peer, "it is up again"))

    def _give_back(self, peer: int, why: str) -> None:
        timer = self._returns.pop(peer, None)
        if timer is not None:
            timer.cancel()
        backup = self.takeovers.pop(peer, None)
        if backup is not None:
            logger.info("peer %d stands for peer %d no longer: %s", backup, peer, why)
            self._stood_for(dict(self.takeovers))
