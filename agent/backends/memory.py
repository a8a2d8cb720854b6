"""The engines without kernel and charon: everything is accepted, remembered and can be looked at.

The test double of reconciler and monitor: tunnels stay down unless a test says otherwise, by
the methods below each `for tests` line. With peers that answer (simulated.py) it is the default
backend, so that the agent runs anywhere without root.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence

from agent.backends.engine import (
    Counted,
    EngineError,
    FilterListener,
    HostListener,
    IkeEvent,
    IkeListener,
    IkeSa,
    IkeState,
    KernelEvent,
    KernelEventKind,
    KernelListener,
    LinksTold,
    Narrowed,
    Observed,
    Route,
    SaRecord,
)
from agent.backends.host import literal
from agent.plan import numbers
from agent.plan.daemon import USUAL, DaemonSettings
from agent.plan.filtering import Part, check_names
from agent.plan.links import CallRoute, Standing, VirtualLink
from agent.plan.model import Connection, Credential, Flow, Policy, PolicyKey, Secret, ViciValue

HELD_BY_OTHERS = "held by a policy that is not ours"


class MemorySpd:
    """An SPD that is a dictionary. `batches`: how many messages each `apply` would have cost."""

    def __init__(self) -> None:
        self.policies: dict[PolicyKey, Observed] = {}
        self.batches: list[int] = []
        self.kernel_sas: list[SaRecord] = []
        self.counted: dict[str, int] = {}  # what `statistics` tells
        self.refuse: dict[PolicyKey, str] = {}
        self._listeners: list[KernelListener] = []
        self._next = numbers.POLICY_INDEX_FIRST

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    async def observe(self) -> Mapping[PolicyKey, Observed]:
        return self.policies

    async def apply(self, remove: Sequence[PolicyKey], install: Sequence[Policy]) -> Mapping[PolicyKey, str]:
        failed: dict[PolicyKey, str] = {}
        replaced = {policy.key for policy in install}
        for key in remove:
            held = self.policies.get(key)
            if held is not None and held.ours and key not in replaced:
                del self.policies[key]
        for policy in install:
            held = self.policies.get(policy.key)
            if policy.key in self.refuse:
                failed[policy.key] = self.refuse[policy.key]
            elif held is not None and not held.ours:
                failed[policy.key] = HELD_BY_OTHERS
            else:
                if held is None:
                    self._next += 8
                index = held.policy_index if held is not None else self._next | policy.key.direction
                self.policies[policy.key] = Observed(
                    policy.key, index, policy.priority, policy.action, policy.templates, ours=True
                )
        self.batches.append(len(remove) + len(install))
        return failed

    async def sas(self) -> Sequence[SaRecord]:
        return list(self.kernel_sas)

    def statistics(self) -> Mapping[str, int]:
        return dict(self.counted)

    async def delete_sa(self, sa: SaRecord) -> None:
        self.kernel_sas = [other for other in self.kernel_sas if other[:4] != sa[:4]]

    def subscribe(self, listener: KernelListener) -> None:
        self._listeners.append(listener)

    # for tests

    def emit(self, event: KernelEvent) -> None:
        for listener in self._listeners:
            listener(event)

    def tamper(self, key: PolicyKey, observed: Observed | None) -> None:
        """What another program does to the SPD, announced as the kernel does."""
        if observed is None:
            self.policies.pop(key, None)
        else:
            self.policies[key] = observed
        self.emit(KernelEvent(KernelEventKind.POLICY_FOREIGN, key=key))


class MemoryIke:
    """An IKE daemon that negotiates nothing. `calls`: what was asked of it, in order, as readable tuples."""

    def __init__(self) -> None:
        self.connections: dict[str, Connection] = {}
        self.secrets: dict[str, Secret] = {}
        self.daemon = USUAL
        self.credentials: dict[str, Credential] = {}
        self.calls: list[tuple[str, ...]] = []
        self._fingerprints: dict[str, tuple[Connection, str]] = {}
        self.refuse: dict[str, str] = {}  # connection name or secret id → why it is not loaded
        self.sas: list[IkeSa] = []
        self._listeners: list[IkeListener] = []

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    def fingerprint(self, connection: Connection) -> str:
        known = self._fingerprints.get(connection.name)
        if known is None or known[0] is not connection:
            known = self._fingerprints[connection.name] = (connection, settings_fingerprint(connection.settings))
        return known[1]

    async def configure(self, settings: DaemonSettings) -> str:
        self.daemon = settings
        return ""

    def credentials_fingerprint(self, credentials: Mapping[str, Credential]) -> str:
        return credentials_fingerprint(credentials)

    async def load_credentials(self, credentials: Mapping[str, Credential]) -> bool:
        self.calls.append(("load-credentials", *credentials))
        cleared = any(credentials.get(id) != held for id, held in self.credentials.items())
        if cleared:  # as charon does it
            self.secrets.clear()
        self.credentials = dict(credentials)
        return cleared

    async def observe(self) -> IkeState:
        loaded = {name: self.fingerprint(connection) for name, connection in self.connections.items()}
        held = credentials_fingerprint(self.credentials)
        return IkeState(loaded, frozenset(self.secrets), tuple(self.sas), held)

    async def list_sas(self) -> tuple[IkeSa, ...]:
        return tuple(self.sas)

    async def load_connection(self, connection: Connection) -> None:
        self.calls.append(("load", connection.name))
        if connection.name in self.refuse:
            raise EngineError(self.refuse[connection.name])
        self.connections[connection.name] = connection

    async def unload_connection(self, name: str) -> None:
        self.calls.append(("unload", name))
        self.connections.pop(name, None)

    async def load_secret(self, secret: Secret) -> None:
        self.calls.append(("load-secret", secret.id))
        if secret.id in self.refuse:
            raise EngineError(self.refuse[secret.id])
        self.secrets[secret.id] = secret

    async def unload_secret(self, id: str) -> None:
        self.calls.append(("unload-secret", id))
        self.secrets.pop(id, None)

    async def initiate(self, child: str, connection: str, reason: str, narrowed: Narrowed | None = None) -> None:
        self.calls.append(("initiate", connection, child))

    async def terminate(self, *, connection: str = "", child: str = "", ike_id: int = 0, child_id: int = 0) -> None:
        if child_id:
            self.calls.append(("terminate-child", str(child_id)))
            return
        self.calls.append(("terminate", connection, child, str(ike_id) if ike_id else ""))
        if connection and not child:
            self.sas = [sa for sa in self.sas if sa.connection != connection]

    async def end_outdated(self, connection: str, child: str = "") -> None:
        await self.terminate(connection=connection, child=child)

    async def renew(self, ike_id: int) -> None:
        self.calls.append(("renew", str(ike_id)))

    def subscribe(self, listener: IkeListener) -> None:
        self._listeners.append(listener)

    # for tests

    def emit(self, event: IkeEvent) -> None:
        for listener in self._listeners:
            listener(event)


class MemoryHost:
    """A host of given addresses, routes, names and interfaces; without any it sends from loopback."""

    def __init__(
        self,
        own: Iterable[bytes] = (),
        sources: Mapping[bytes, bytes] | None = None,
        names: Mapping[str, tuple[bytes, ...]] | None = None,
        interfaces: Mapping[int, str] | None = None,
    ) -> None:
        self.own = frozenset(own)
        self.links = dict(interfaces or {})
        self.sources = dict(sources or {})
        self.names = dict(names or {})
        self.addresses: dict[int, tuple[bytes, ...]] = {}
        self.tcp: tuple[Flow, ...] = ()
        self._listeners: list[HostListener] = []

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    def own_addresses(self) -> frozenset[bytes]:
        return self.own

    def source_for(self, peer: bytes) -> bytes | None:
        """The one given for this peer, else the least own address of its family, else the family's loopback."""
        given = self.sources.get(peer)
        if given is not None:
            return given
        loopback = bytes([127, 0, 0, 1]) if len(peer) == 4 else bytes(15) + b"\x01"
        return min((own for own in self.own if len(own) == len(peer)), default=loopback)

    def link_addresses(self) -> Mapping[int, tuple[bytes, ...]]:
        return self.addresses

    def route_to(self, peer: bytes) -> Route:
        """By the first interface that is not loopback."""
        others = sorted(index for index, name in self.links.items() if name != "lo")
        return Route(self.source_for(peer), others[0] if others else 0)

    def interfaces(self) -> Mapping[int, str]:
        return self.links

    async def resolve(self, name: str) -> tuple[bytes, ...]:
        address = literal(name)
        return (address,) if address is not None else self.names.get(name, ())

    def flows(self) -> tuple[Flow, ...]:
        return self.tcp

    def subscribe(self, listener: HostListener) -> None:
        self._listeners.append(listener)

    # for tests

    def changed(self) -> None:
        for listener in self._listeners:
            listener()


def credentials_fingerprint(credentials: Mapping[str, Credential]) -> str:
    """Sixteen hex digits equal for equal sets, '' for the empty one."""
    if not credentials:
        return ""
    digest = hashlib.blake2b(digest_size=8)
    for id, each in sorted(credentials.items()):
        for part in (id.encode(), each.pem.encode(), each.sealed):
            digest.update(len(part).to_bytes(4, "big") + part)
    return digest.hexdigest()


def settings_fingerprint(settings: Mapping[str, ViciValue]) -> str:
    """Sixteen hex digits equal for equal settings, whatever the order of their names."""
    text = json.dumps(settings, sort_keys=True, default=dict)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


class MemoryLinks:
    """Virtual interfaces and routes that are dictionaries."""

    def __init__(self) -> None:
        self.links: Mapping[int, VirtualLink] = {}
        self.calls: tuple[CallRoute, ...] = ()
        self.standing: dict[int, Standing] = {}
        self.idle = asyncio.Event()
        self.idle.set()
        self._told: list[LinksTold] = []

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    def want(self, links: Mapping[int, VirtualLink], calls: Iterable[CallRoute], *, removing: bool = True) -> None:
        self.links, self.calls = links if removing else {**self.links, **links}, tuple(calls)

    def stand(self, peer: int, standing: Standing | None) -> None:
        if standing is None:
            self.standing.pop(peer, None)
        else:
            self.standing[peer] = standing

    def look_again(self) -> None:
        pass

    def subscribe(self, told: LinksTold) -> None:
        self._told.append(told)

    async def purge(self) -> None:
        self.links, self.calls = {}, ()

    # for tests

    def fail(self, problems: Mapping[int, str]) -> None:
        for told in self._told:
            told(problems)


class MemoryFilter:
    """A packet filter that is a dictionary of parts; its counters stand still."""

    def __init__(self) -> None:
        self.parts: dict[str, Part] = {}
        self.counted: dict[str, Counted] = {}
        self.refuse: dict[str, str] = {}  # part → why it is not in force
        self._listeners: list[FilterListener] = []

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    def want(self, name: str, part: Part | None) -> None:
        if part is None:
            self.parts.pop(name, None)
        else:
            check_names(name, part)
            self.parts[name] = part
        for listener in self._listeners:
            listener()

    def problem(self, name: str) -> str:
        return self.refuse.get(name, "")

    def look_again(self) -> None:
        pass

    async def counters(self) -> Mapping[str, Counted]:
        wanted = {counter for part in self.parts.values() for counter in part.counters}
        return {name: self.counted.get(name, Counted(0, 0)) for name in wanted}

    async def purge(self) -> None:
        self.parts.clear()

    def subscribe(self, listener: FilterListener) -> None:
        self._listeners.append(listener)
