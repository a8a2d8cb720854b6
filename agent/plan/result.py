"""A plan, and the difference of two.

A plan is never changed. It remembers which keys it touched since its ancestors, so that
what has to be done after one changed rule among 10,000 is told without comparing them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from agent.plan.daemon import USUAL, DaemonSettings
from agent.plan.filtering import Part
from agent.plan.layered import Layered
from agent.plan.links import CallRoute, VirtualLink
from agent.plan.model import (
    ApplyState,
    Child,
    ConfigurationView,
    Connection,
    Credential,
    Environment,
    Policy,
    PolicyKey,
    RowRef,
    Secret,
    Verdict,
)

if TYPE_CHECKING:
    from agent.plan.state import State

K = TypeVar("K")
V = TypeVar("V")

REMEMBERED: Final = 32  # ancestors whose touched keys a plan knows

SWITCHED_OFF: Final = Verdict(ApplyState.UNUSED, "IPsec is switched off (ipsecGlobEnabled)")


class Touched(NamedTuple):
    """Keys whose value may differ between a plan and its parent. `parent`: the parent's `token`."""

    parent: object
    policies: frozenset[PolicyKey]
    connections: frozenset[str]
    secrets: frozenset[str]
    verdicts: frozenset[RowRef]


class Filter(NamedTuple):
    """What one purpose wants of the packet filter, and the rows that fail where it cannot be had."""

    part: Part
    rows: frozenset[RowRef]


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What is wanted of kernel and IKE daemon under one configuration.

    `verdicts`: rows not in it are applied once real, if something refers to them; while IPsec is switched off it has
    an answer for every row but lists none. `filters` by name of the part, only those there are. `links` and
    `calls` by peer. `reqids` and `children` by child name; `enabled` is ipsecGlobEnabled.
    """

    generation: int
    configuration: ConfigurationView
    environment: Environment
    enabled: bool
    policies: Mapping[PolicyKey, Policy] = field(default_factory=Layered)
    connections: Mapping[str, Connection] = field(default_factory=Layered)
    secrets: Mapping[str, Secret] = field(default_factory=Layered)
    verdicts: Mapping[RowRef, Verdict] = field(default_factory=Layered)
    reqids: Mapping[str, int] = field(default_factory=Layered)
    children: Mapping[str, Child] = field(default_factory=Layered)
    filters: Mapping[str, Filter] = field(default_factory=dict)
    links: Mapping[int, VirtualLink] = field(default_factory=Layered)
    calls: Mapping[int, CallRoute] = field(default_factory=Layered)
    daemon: DaemonSettings = USUAL
    credentials: Mapping[str, Credential] = field(default_factory=dict)
    state: State | None = None  # the planner's own, for the next plan
    history: tuple[Touched, ...] = ()
    token: object = field(default_factory=object)

    @property
    def names_interfaces(self) -> bool:
        """Whether some rule depends on the interface of a packet."""
        return self.state is not None and any(key > 0 for key in self.state.bound)

    @property
    def takeovers(self) -> Mapping[int, int]:
        """Peers and the backup peers that stand for them now."""
        return self.environment.takeovers

    def mtu(self, peer: int) -> int:
        """Largest packet into a tunnel of a peer, in octets; 0 while IPsec is switched off."""
        if self.state is None:
            return 0
        clamped = self.state.clamped.get(peer)
        link = self.links.get(peer)
        if clamped is not None or link is not None:
            return clamped.mtu if clamped is not None else link.mtu if link is not None else 0
        return self.state.profiles.mtu(0)

    def touched_since(self, old: Plan) -> Touched | None:
        """Everything touched since an ancestor; None when it is not known to be one."""
        if old.token is self.token:
            return Touched(old.token, frozenset(), frozenset(), frozenset(), frozenset())
        for place, entry in enumerate(self.history):
            if entry.parent is old.token:
                entries = self.history[: place + 1]
                return Touched(
                    old.token,
                    frozenset[PolicyKey]().union(*(e.policies for e in entries)),
                    frozenset[str]().union(*(e.connections for e in entries)),
                    frozenset[str]().union(*(e.secrets for e in entries)),
                    frozenset[RowRef]().union(*(e.verdicts for e in entries)),
                )
        return None


class SwitchedOff(Mapping[RowRef, Verdict]):
    """The verdicts of a plan while IPsec is off."""

    def __getitem__(self, ref: RowRef) -> Verdict:
        return SWITCHED_OFF

    def __iter__(self) -> Iterator[RowRef]:
        return iter(())

    def __len__(self) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class Delta:
    """What changes from one plan to another. `rows`: rows whose verdict or policies are not what they were."""

    policies_removed: tuple[PolicyKey, ...] = ()
    policies_added: tuple[Policy, ...] = ()
    policies_changed: tuple[Policy, ...] = ()
    connections_removed: tuple[str, ...] = ()
    connections_added: tuple[Connection, ...] = ()
    connections_changed: tuple[Connection, ...] = ()
    secrets_removed: tuple[str, ...] = ()
    secrets_added: tuple[Secret, ...] = ()
    secrets_changed: tuple[Secret, ...] = ()
    rows: frozenset[RowRef] = frozenset()

    @property
    def policy_keys(self) -> frozenset[PolicyKey]:
        """All keys of policies that are removed, added or changed."""
        return frozenset(self.policies_removed).union(
            (policy.key for policy in self.policies_added), (policy.key for policy in self.policies_changed)
        )

    def __bool__(self) -> bool:
        return bool(
            self.policies_removed
            or self.policies_added
            or self.policies_changed
            or self.connections_removed
            or self.connections_added
            or self.connections_changed
            or self.secrets_removed
            or self.secrets_added
            or self.secrets_changed
            or self.rows
        )


def difference(old: Plan | None, new: Plan) -> Delta:
    """What has to be done where `old` is real (None: nothing is) for `new` to be. Cheap when `new` was made from
    `old`, directly or over a few others."""
    if old is None:
        return Delta(
            policies_added=tuple(new.policies.values()),
            connections_added=tuple(new.connections.values()),
            secrets_added=tuple(new.secrets.values()),
            rows=frozenset(new.verdicts).union(policy.row for policy in new.policies.values()),
        )
    touched = new.touched_since(old)
    if touched is None:
        touched = Touched(
            old.token,
            _not_the_same(old.policies, new.policies),
            _not_the_same(old.connections, new.connections),
            _not_the_same(old.secrets, new.secrets),
            _not_the_same(old.verdicts, new.verdicts),
        )
    removed, added, changed = [], [], []
    rows = {ref for ref in touched.verdicts if old.verdicts.get(ref) != new.verdicts.get(ref)}
    for key in touched.policies:
        before, after = old.policies.get(key), new.policies.get(key)
        if before == after:
            continue
        if before is not None:
            rows.add(before.row)
        if after is None:
            removed.append(key)
            continue
        rows.add(after.row)
        if before is None:
            added.append(after)
        elif before[:4] != after[:4]:  # what the kernel holds; otherwise only whose it is has changed
            changed.append(after)
    connections = _differing(touched.connections, old.connections, new.connections)
    secrets = _differing(touched.secrets, old.secrets, new.secrets)
    return Delta(
        tuple(removed),
        tuple(sorted(added, key=lambda policy: policy.priority)),
        tuple(sorted(changed, key=lambda policy: policy.priority)),
        tuple(name for name, before, after in connections if after is None),
        tuple(after for _, before, after in connections if before is None and after is not None),
        tuple(after for _, before, after in connections if before is not None and after is not None),
        tuple(id for id, before, after in secrets if after is None),
        tuple(after for _, before, after in secrets if before is None and after is not None),
        tuple(after for _, before, after in secrets if before is not None and after is not None),
        frozenset(rows),
    )


def _not_the_same(old: Mapping[K, V], new: Mapping[K, V]) -> frozenset[K]:
    """Keys that the two do not hold alike, compared one by one."""
    gone = (key for key in old if key not in new)
    other = (key for key, value in new.items() if (held := old.get(key)) is not value and held != value)
    return frozenset(gone).union(other)


def _differing(keys: Iterable[K], old: Mapping[K, V], new: Mapping[K, V]) -> list[tuple[K, V | None, V | None]]:
    found = ((key, old.get(key), new.get(key)) for key in keys)
    return [entry for entry in found if entry[1] != entry[2]]
