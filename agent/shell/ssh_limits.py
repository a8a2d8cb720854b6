"""How much strangers may ask of the SSH server: figures, and who is let in to try.

Whoever has not proved who he is costs a connection, a key exchange and the hash of a
password. So there are only so many such connections at a time; when there are too many the
source that has most of them loses its oldest, so that one sender crowds out himself. A
source that guessed wrong too often is not spoken to for a while: an IPv6 sender has his
whole /64 to come from, so that counts as one.

No clock, no sockets: `clock` counts seconds, connections are whatever they are.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final

SOURCES: Final = 10_000  # whose failures are remembered; the one that failed longest ago is forgotten
IPV6_PREFIX: Final = 64


@dataclass(frozen=True, slots=True)
class SshLimits:
    """Seconds and counts; `idle_seconds` is a setting."""

    idle_seconds: float = 900.0
    login_seconds: float = 60.0  # until a connection has proved who it is
    delay_seconds: float = 2.0  # a wrong password is answered so late, and a wrong name too
    waiting: int = 128  # connections that have proved nothing yet
    waiting_of_source: int = 64
    passwords: int = 3  # of a connection
    tries: int = 8  # of a connection, by any method; OpenSSH's first, `none`, is one
    failures: int = 10  # wrong passwords of a source within failure_seconds, then it is barred
    failure_seconds: float = 600.0
    sessions: int = 100
    sessions_of_connection: int = 10


class Doorkeeper:
    """Connections that have proved nothing yet, and failures by source."""

    def __init__(self, limits: SshLimits, clock: Callable[[], float]) -> None:
        self._limits, self._clock = limits, clock
        self._waiting: OrderedDict[Hashable, str] = OrderedDict()  # with their source, oldest first
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()
        self.turned_away = 0

    def enter(self, connection: Hashable, source: str) -> Hashable | None:
        """A connection has come; which one has to go for it, itself perhaps, None for none."""
        group = source_group(source)
        if self.barred(source):
            self.turned_away += 1
            return connection
        self._waiting[connection] = group
        of_source = [waiting for waiting, its in self._waiting.items() if its == group]
        loser: Hashable | None = None
        if len(of_source) > self._limits.waiting_of_source:
            loser = of_source[0]
        elif len(self._waiting) > self._limits.waiting:
            groups = list(self._waiting.values())
            most = max(groups, key=groups.count)
            loser = next(waiting for waiting, its in self._waiting.items() if its == most)
        if loser is not None:
            self.turned_away += 1
            self.left(loser)
        return loser

    def left(self, connection: Hashable) -> None:
        """It has proved who it is, or is gone."""
        self._waiting.pop(connection, None)

    def failed(self, source: str) -> None:
        """A wrong password came from there."""
        group = source_group(source)
        times = self._failures.setdefault(group, deque(maxlen=self._limits.failures))
        times.append(self._clock())
        self._failures.move_to_end(group)
        while len(self._failures) > SOURCES:
            self._failures.popitem(last=False)

    def barred(self, source: str) -> bool:
        """Too many wrong passwords came from there lately."""
        times = self._failures.get(source_group(source), ())
        since = self._clock() - self._limits.failure_seconds
        return sum(time > since for time in times) >= self._limits.failures


def source_group(source: str) -> str:
    """What counts as one sender."""
    try:
        address = ipaddress.ip_address(source)
    except ValueError:
        return source
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, IPV6_PREFIX), strict=False))
    return str(address)
