"""What follows from a peer's state for links and plan: what its interface shows, who stands for it, whom it calls next.

Told by the events of `store/events.py`, whoever watches the peers: up, down, blocked, an
attempt failed. A backup peer takes over when its primary is lost or cannot be reached, and
gives back when the primary has been up for the delay configured; what that means for
policies and routes is the plan's business. A backup that is lost itself, or switched off, has
its own backup stand for both. Who took over from whom outlives the agent. Sources: ipsecPeerIfStateMode,
ipsecPeerSecondaryPeerIndex, ipsecPeerDelayBackToPrimary, ipsecGlobContDnsSelectRoundRobin.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Iterable, Mapping
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
    @property
    def number(self) -> int: ...
    def __getitem__(self, column: str) -> Value: ...


class Settings(NamedTuple):
    """What of a peer's row matters here. `off`: by the operator's wish, so nobody stands for it; `backup` 0: none;
    `delay` in seconds."""

    interface: bool
    always_up: bool
    full: bool
    off: bool
    backup: int
    delay: int
    name: str


def read_settings(row: RowView) -> Settings:
    address = row["ipsecPeerDynamicAddress"]
    backup, delay = row["ipsecPeerSecondaryPeerIndex"], row["ipsecPeerDelayBackToPrimary"]
    assert isinstance(address, bytes) and isinstance(backup, int) and isinstance(delay, int)
    return Settings(
        row["ipsecPeerVirtualInterface"] == ENABLED,
        row["ipsecPeerStartMode"] == UP_MODES,
        row["ipsecPeerIfStateMode"] == FULL,
        row["ipsecPeerAdminStatus"] == ADMIN_DOWN,
        max(0, backup),
        max(0, delay),
        address.decode("utf-8", "replace").strip(),
    )


def still_lost(takeovers: Mapping[int, int], settings: Mapping[int, Settings]) -> dict[int, int]:
    """Those of the takeovers (peer → its backup) that the configuration still has."""
    found = {peer: settings[peer] for peer in takeovers if peer in settings}
    return {peer: takeovers[peer] for peer, each in found.items() if not each.off and each.backup == takeovers[peer]}


def stand_ins(takeovers: Mapping[int, int], settings: Mapping[int, Settings]) -> dict[int, int]:
    """Who stands for whom: of the chain of backups behind a lost peer the first that is neither lost nor switched off;
    the last one where there is none."""
    found = {}
    for peer, backup in takeovers.items():
        seen = {peer}
        while backup not in seen:
            found[peer] = backup
            seen.add(backup)
            own = settings.get(backup)
            if own is not None and own.backup and (own.off or backup in takeovers):
                backup = own.backup
    return found


class PeerStates:
    """`stand(peer, standing)` shows a state on an interface; `missed(peer, name)` tells of a failed attempt;
    `stood_for(peer → who stands for it)` tells who stands for whom; `later` calls something after so many seconds.
    `takeovers`: lost peers and their backups, as the agent before left them; `replayed` begins with them."""

    def __init__(
        self,
        stand: Callable[[int, Standing | None], None],
        missed: Callable[[int, str], None],
        stood_for: Callable[[Mapping[int, int]], None],
        later: Callable[[float, Callable[[], None]], Timer],
        takeovers: Mapping[int, int] | None = None,
    ) -> None:
        self._stand, self._missed, self._stood_for, self._later = stand, missed, stood_for, later
        self._settings: dict[int, Settings] = {}  # of peers for which something can follow
        self._states: dict[int, State] = {}  # of peers that are not dormant
        self._returns: dict[int, Timer] = {}
        self._dials: list[Callable[[int], None]] = []
        self.takeovers = dict(takeovers or {})
        self.standing: dict[int, int] = {}

    def on_takeover(self, dial: Callable[[int], None]) -> None:
        """Whom to tell of a backup peer that is needed now."""
        self._dials.append(dial)

    def replayed(self, rows: Iterable[RowView]) -> None:
        """All peers that there are."""
        for row in rows:
            self._configure(row.number, row)
        self.takeovers = still_lost(self.takeovers, self._settings)
        self._tell()

    def configured(self, peer: int, row: RowView | None) -> None:
        """A peer's row, None when it is gone."""
        self._configure(peer, row)
        if peer in self.takeovers and peer not in still_lost(self.takeovers, self._settings):
            self._give_back(peer, "it is switched off, or has another backup peer, or none")
        else:
            self._tell()

    def _configure(self, peer: int, row: RowView | None) -> None:
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
        if settings is None or settings.off or not settings.backup or peer in self.takeovers:
            return
        self.takeovers[peer] = settings.backup
        self._tell()

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
            logger.info("nobody stands for peer %d any longer: %s", peer, why)
            self._tell()

    def _tell(self) -> None:
        before, self.standing = self.standing, stand_ins(self.takeovers, self._settings)
        if before == self.standing:
            return
        needed = {peer: backup for peer, backup in self.standing.items() if before.get(peer) != backup}
        for peer, backup in needed.items():
            logger.warning("peer %d cannot be reached; peer %d stands for it", peer, backup)
        self._stood_for(dict(self.standing))
        for backup in sorted(set(needed.values())):
            for dial in self._dials:
                dial(backup)
