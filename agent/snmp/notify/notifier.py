"""Sends notifications: events in, paced and filtered; traps and informs out.

    notifier = Notifier(store, users, identity, uptime, counters)
    notifier.start()
    ...
    await notifier.stop()

All on the event loop, and nothing here waits: building and sending a trap takes some tenths
of a millisecond, a few are sent in a turn, and what is beyond ipsecGwNotifyMost in a minute
is not even built.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Final

from agent.mib.ber import Value
from agent.snmp.counters import Counters
from agent.snmp.identity import Identity
from agent.snmp.notify.contents import contents, instances
from agent.snmp.notify.filters import FILTER_TABLE, passes
from agent.snmp.notify.pacing import Pacer, Told
from agent.snmp.notify.targets import TARGET_TABLE, Target, read_targets
from agent.snmp.notify.ways import Clock, Tally, Way, way_to
from agent.snmp.users import USER_TABLE, Users
from agent.store.events import Event, Kind
from agent.store.hooks import Change
from agent.store.snapshot import Configuration
from agent.store.store import Store

log = logging.getLogger(__name__)

STATUS: Final = "ipsecGwStatus"
SETTINGS: Final = "ipsecGwNotify"
AUTHENTICATION: Final = "ipsecGwNotifyAuthentication"
PAUSE: Final = "ipsecGwNotifyPause"
MOST: Final = "ipsecGwNotifyMost"
ENABLED: Final = 1  # of ipsecGwNotifyAuthentication
WATCHED: Final = frozenset({TARGET_TABLE, FILTER_TABLE, USER_TABLE})
FLUSH_SECONDS: Final = 1.0  # that informs under way get when the agent stops
SHOW_SECONDS: Final = 0.05  # counters that change together are shown together
PER_TURN: Final = 4  # notifications to all targets before the loop may do something else, about 2 ms
COUNTER32: Final = 1 << 32


class Notifier:
    """Subscriber of the store and listener of its events. `counters` are those of SNMPv2-MIB."""

    def __init__(self, store: Store, users: Users, identity: Identity, uptime: Clock, counters: Counters) -> None:
        self._store, self._users, self._identity, self._uptime = store, users, identity, uptime
        self._counters = counters
        self._pacer = Pacer()
        self._tally = Tally(self._show_soon)
        self._ways: dict[int, tuple[Target, Way]] = {}
        self._authentication = True
        self._queue: deque[Told] = deque()
        self._turn: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._showing: asyncio.TimerHandle | None = None
        self._closed = False

    def start(self) -> None:
        """Listen from now on; what happened before anybody did is sent too."""
        self._store.subscribe(self, replay=True)
        self._users.listen(self._users_changed)
        self._store.events.subscribe(self.happened)

    async def stop(self) -> None:
        """Send nothing more; informs under way have a second left."""
        if self._closed:
            return
        self._closed = True
        self._store.events.unsubscribe(self.happened)
        self._store.unsubscribe(self)
        for timer in (self._turn, self._timer, self._showing):
            if timer is not None:
                timer.cancel()
        self._send_some(len(self._queue))
        flushing = [asyncio.ensure_future(way.flush()) for _, way in self._ways.values()]
        if flushing:
            _, late = await asyncio.wait(flushing, timeout=FLUSH_SECONDS)
            for task in late:
                task.cancel()
        for _, way in self._ways.values():
            way.close()
        await asyncio.sleep(0)  # for what was given up to end
        self._show()

    # ---- configuration ------------------------------------------------------------------

    def changed(self, change: Change) -> None:
        """A commit; the store's hook."""
        tables = {row.table for row in change.rows}
        if change.replay or SETTINGS in tables:
            self._settings(change.after)
        if change.replay or tables & WATCHED:
            self._find_targets(change.after)

    def _settings(self, configuration: Configuration) -> None:
        self._authentication = configuration.scalar(AUTHENTICATION) == ENABLED
        pause, most = configuration.scalar(PAUSE), configuration.scalar(MOST)
        assert isinstance(pause, int) and isinstance(most, int)
        self._pacer.pause, self._pacer.most = pause, most

    def _users_changed(self) -> None:
        if not self._closed:
            self._find_targets(self._store.running)

    def _find_targets(self, configuration: Configuration) -> None:
        """Targets that are as they were keep their way, and what is under way on it."""
        wanted = read_targets(configuration, self._store.secrets, self._users.by_name)
        for number, (target, way) in list(self._ways.items()):
            if wanted.get(number) != target:
                way.close()
                del self._ways[number]
        for number, target in wanted.items():
            if number in self._ways:
                continue
            try:
                self._ways[number] = target, way_to(target, self._identity, self._uptime, self._tally)
            except OSError as error:
                log.warning("target %s gets no notifications: %s", target.name, error)
        if not self._ways:
            self._pacer.forget()

    # ---- events -------------------------------------------------------------------------

    def happened(self, event: Event) -> None:
        """An event; the listener of agent.store.events.Events."""
        if event.kind is Kind.OTHER or (event.kind is Kind.AUTHENTICATION_FAILURE and not self._authentication):
            return
        if not self._ways:  # nobody was told, so the next one is no repetition
            return
        paced = self._pacer.paced
        self._send(self._pacer.offer(event, self._now()))
        if paced != self._pacer.paced:
            self._show_soon()

    def _due(self) -> None:
        self._timer = None
        self._send(self._pacer.due(self._now()))
        self._show_soon()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _send(self, told: list[Told]) -> None:
        self._queue.extend(told)
        if told and self._turn is None:
            self._turn = asyncio.get_running_loop().call_soon(self._send_some)
        self._schedule()

    def _send_some(self, most: int = PER_TURN) -> None:
        """A few at a time: between them requests are answered."""
        self._turn = None
        for _ in range(min(most, len(self._queue))):
            found = contents(self._store.schema, self._store.view, self._queue.popleft())
            if found is None:
                continue
            names = instances(found)
            for target, way in self._ways.values():
                if passes(target.filters, found.oid, names):
                    self._counters.snmpOutPkts += 1
                    self._counters.snmpOutTraps += 1
                    way.send(found)
        if self._queue and not self._closed:
            self._turn = asyncio.get_running_loop().call_soon(self._send_some)

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self._pacer.next_time()
        if at is not None and not self._closed:
            self._timer = asyncio.get_running_loop().call_at(max(at, self._now()), self._due)

    # ---- counters -----------------------------------------------------------------------

    def _show_soon(self) -> None:
        if self._showing is None and not self._closed:
            self._showing = asyncio.get_running_loop().call_later(SHOW_SECONDS, self._show)

    def _show(self) -> None:
        self._showing = None
        values: dict[str, Value] = {
            "ipsecGwNotificationsSent": self._tally.sent % COUNTER32,
            "ipsecGwNotificationsPaced": self._pacer.paced % COUNTER32,
            "ipsecGwNotificationsFailed": self._tally.failed % COUNTER32,
        }
        self._store.live.update(STATUS, {0: values})
