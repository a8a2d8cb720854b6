"""`debug`: what happens in the gateway, as its table of events says, while one looks on."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from agent.mib.ber import Value
from agent.shell import values
from agent.shell.outcome import Problem
from agent.snmp.client import Missing

if TYPE_CHECKING:
    from agent.shell.session import Session

TABLE: Final = "ipsecGwEventTable"
TIME, SEVERITY, KIND, PEER, TEXT = (f"ipsecGwEvent{name}" for name in ("Time", "Severity", "Kind", "Peer", "Text"))
COLUMNS: Final = (TIME, SEVERITY, KIND, PEER, TEXT)
LOOK_SECONDS: Final = 1.0
LAST: Final = 20  # events that `debug show` shows
AT_ONCE: Final = 50  # events in one request

Event = dict[str, Value]


async def debug(session: Session, words: Sequence[str]) -> None:
    """`debug show` the last ones, `debug all` all that come, `debug peer-up peer-down` of these kinds. Raises
    Problem, SnmpError."""
    kinds = session.schema.columns[KIND].labels
    wanted = {values.label_key(word) for word in words[1:]}
    if not wanted or (wanted - {"all", "show"}) - set(kinds):
        raise Problem(f"usage: debug [show|all|kind …]; kinds: {', '.join(kinds)}")
    chosen = wanted & set(kinds) or set(kinds)
    if "show" in wanted:
        rows = await session.client.table(TABLE, COLUMNS)
        shown = [event for event in rows.values() if _kind(session, event) in chosen]
        for event in shown[-LAST:]:
            session.tell(_line(session, event))
        return
    last = max(await session.client.table(TABLE, [TIME]), default=0)
    session.say("events as they happen; Ctrl-C ends")
    while True:
        news = await _behind(session, last)
        for number, event in news.items():
            last = number
            if _kind(session, event) in chosen:
                session.tell(_line(session, event))
        if news:
            continue
        if last and not await _there(session, last):
            last = 0  # the agent has been started again, and counts from 1
            continue
        await asyncio.sleep(LOOK_SECONDS)


async def _behind(session: Session, last: int) -> dict[int, Event]:
    """Events with a higher number."""
    found: dict[int, Event] = {}
    for variable in await session.client.bulk([f"{name}.{last}" for name in COLUMNS], AT_ONCE):
        if variable.column is not None and variable.column.name in COLUMNS and not isinstance(variable.value, Missing):
            found.setdefault(variable.number, {})[variable.column.name] = variable.value
    whole = {number: event for number, event in found.items() if number > last and len(event) == len(COLUMNS)}
    return dict(sorted(whole.items()))


async def _there(session: Session, number: int) -> bool:
    """Of the newest event: the table forgets the oldest ones only."""
    [found] = await session.client.get([f"{TIME}.{number}"])
    return not isinstance(found.value, Missing)


def _kind(session: Session, event: Event) -> str:
    return values.show(session.schema.columns[KIND], event.get(KIND, 0))


def _line(session: Session, event: Event) -> str:
    """`19:04:07 notice peer-up peer 3: …`, the time of day as it is here."""
    when = event.get(TIME, 0)
    text = event.get(TEXT, b"")
    number = event.get(PEER, 0)
    peer = f" peer {number}" if isinstance(number, int) and number else ""
    clock = datetime.datetime.fromtimestamp(when if isinstance(when, int) else 0).strftime("%Y-%m-%d %H:%M:%S")
    severity = values.show(session.schema.columns[SEVERITY], event.get(SEVERITY, 0))
    said = values.harmless(text.decode("utf-8", "surrogateescape")) if isinstance(text, bytes) else ""
    return f"{clock} {severity} {_kind(session, event)}{peer}: {said}"
