"""What happens is kept and told: the event table, notifications, and those who only watch for something to tell."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from agent import __version__
from agent.monitor.certificates import CertificateWatch
from agent.monitor.changes import ConfigurationChanges
from agent.monitor.eventlog import EventLog
from agent.snmp.notify.notifier import Notifier
from agent.snmp.notify.targets import check_targets
from agent.snmp.server import SnmpServer
from agent.store.events import Event, Kind, Severity, store_alarm
from agent.store.health import StoreState
from agent.store.store import Store


@contextlib.asynccontextmanager
async def telling(store: Store, server: SnmpServer) -> AsyncIterator[Notifier]:
    """From a server that has started to the agent's end. The first thing told is the start itself; a change is told
    after the targets have followed it."""
    uptime, events = server.facts.uptime, store.events
    log = EventLog(store.live, lambda: uptime.hundredths, lambda: store.running.generation)
    notifier = Notifier(store, server.users, server.facts.identity, uptime, server.counters)
    changes, certificates = ConfigurationChanges(events), CertificateWatch(events)
    events.subscribe(log)
    notifier.start()
    events.tell(Event(Kind.START, Severity.NOTICE, f"ipsec-agent {__version__} started"))

    def alarm(state: StoreState, message: str) -> None:
        events.tell(store_alarm(state, message))

    store.health.subscribe(alarm)
    store.checks.append(check_targets)
    store.subscribe(changes)
    store.subscribe(certificates, replay=True)
    try:
        yield notifier
    finally:
        certificates.stop()
        store.checks.remove(check_targets)
        store.health.unsubscribe(alarm)
        for subscriber in (changes, certificates):
            store.unsubscribe(subscriber)
        await notifier.stop()
        events.unsubscribe(log)
        log.stop()
