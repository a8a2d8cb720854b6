"""What the standard objects show: the store, the counters, the clock and the identity of one agent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from agent.mib.ber import Value
from agent.mib.schema import Column, Schema
from agent.snmp.access import Principal
from agent.snmp.counters import Counters
from agent.snmp.identity import Identity
from agent.snmp.uptime import Uptime
from agent.store.snapshot import Configuration

NOBODY = Identity(b"", 0)


class Opening(Protocol):
    """The store's Secrets."""

    def open(self, table: str, row: int, column: str, blob: bytes) -> bytes: ...


class Storing(Protocol):
    """What is needed of the store."""

    @property
    def running(self) -> Configuration: ...
    @property
    def schema(self) -> Schema: ...
    @property
    def secrets(self) -> Opening: ...


@dataclass(slots=True)
class Facts:
    """`identity` is known once the server starts; `largest`: octets of the largest message taken, as
    snmpEngineMaxMessageSize says it; `communities` by their octets."""

    store: Storing
    version: str
    largest: int
    communities: Mapping[bytes, Principal]
    counters: Counters = field(default_factory=Counters)
    uptime: Uptime = field(default_factory=Uptime)
    identity: Identity = NOBODY

    def scalar(self, name: str) -> Value:
        """A stored scalar of ours."""
        return self.store.running.scalar(name)

    def column(self, name: str) -> Column:
        return self.store.schema.columns[name]
