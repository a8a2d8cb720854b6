"""What a plan keeps for the next one, and what a draft still has to do."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, NamedTuple, TypeVar

from agent.plan.chains import Chain
from agent.plan.connections import Peer
from agent.plan.layered import Edit, Layered
from agent.plan.model import Child, Policy, PolicyKey, Verdict, ViciValue
from agent.plan.placing import Instance, Placing
from agent.plan.profiles import Profiles
from agent.plan.spd import Companions
from agent.plan.traffic import Rule
from agent.plan.virtual import Virtual

K = TypeVar("K")
V = TypeVar("V")


OWN_ADDRESS: Final = -1


class Made(NamedTuple):
    """What became of a rule in one list, outer addresses filled in. `companions`: their priorities, by part."""

    rule: Rule
    label: int
    companions: tuple[Companions, ...]
    policies: tuple[Policy, ...]
    verdict: Verdict | None


class Kin(NamedTuple):
    """What a peer has at the daemon: settings by child name, the children, names of its connections."""

    settings: Mapping[str, ViciValue] = {}
    children: tuple[Child, ...] = ()
    connections: tuple[str, ...] = ()


class Clamped(NamedTuple):
    """A peer whose largest packet is not the usual one: in octets, and the reqids it concerns."""

    mtu: int
    reqids: tuple[int, ...]


class State(NamedTuple):
    """`ordered`: (priority, number) of the peers with rules. `users`: lists a rule is in; `waiting`: lists that break
    off at a missing rule. `bound`: rules in lists that depend on an interface, by its index, or (key OWN_ADDRESS)
    on the address of the default route. `contested`: all who want a key, in order, if more than one. `placing`: from
    the first drop rule in a peer's list on, or sooner. `drops`: their labels, in order. `virtual`: peers with an
    interface. `idle`: by list, its protect rules that decide about nothing there."""

    profiles: Profiles
    rules: Layered[int, Rule]
    peers: Layered[int, Peer]
    ordered: tuple[tuple[int, int], ...]
    chains: Layered[int, Chain]
    users: Layered[int, tuple[int, ...]]
    waiting: Layered[int, tuple[int, ...]]
    made: Layered[Instance, Made]
    bound: Layered[int, tuple[Instance, ...]]
    kin: Layered[int, Kin]
    contested: Layered[PolicyKey, tuple[Policy, ...]]
    placing: Placing | None
    drops: tuple[int, ...]
    next_reqid: int
    virtual: Layered[int, Virtual] = Layered()
    clamped: Layered[int, Clamped] = Layered()
    idle: Layered[int, tuple[int, ...]] = Layered()


@dataclass(slots=True)
class Todo:
    """What is still to be done in a draft, filled by those who find out. `gone`: rules no longer in a list; `build`:
    rules whose policies are to be made (again), in order; `related`: peers whose connections are; `networks`: peers
    whose virtual interface is; then whose verdicts are to be told anew."""

    gone: set[Instance] = field(default_factory=set)
    build: dict[Instance, None] = field(default_factory=dict)
    related: set[int] = field(default_factory=set)
    networks: set[int] = field(default_factory=set)
    judge_rules: set[int] = field(default_factory=set)
    judge_peers: set[int] = field(default_factory=set)


def edit_of(start: Mapping[K, V] | None) -> Edit[K, V]:
    """An edit of a plan's mapping, or of nothing."""
    return (start if isinstance(start, Layered) else Layered[K, V]()).edit()


class Bags(Generic[K, V]):
    """Several values under a key, as tuples between drafts. Many may come and go under one key in one draft."""

    def __init__(self, start: Layered[K, tuple[V, ...]]) -> None:
        self._edit = start.edit()
        self._open: dict[K, dict[V, None]] = {}

    def get(self, key: K) -> Collection[V]:
        opened = self._open.get(key)
        return opened if opened is not None else self._edit.get(key) or ()

    def toggle(self, key: K, value: V, present: bool) -> None:
        """Have the value there, or not."""
        opened = self._open.get(key)
        if opened is None:
            opened = self._open[key] = dict.fromkeys(self._edit.get(key) or ())
        if present:
            opened[value] = None
        else:
            opened.pop(value, None)

    @property
    def touched(self) -> bool:
        return bool(self._open)

    def done(self) -> Layered[K, tuple[V, ...]]:
        for key, opened in self._open.items():
            self._edit.put(key, tuple(opened) or None)
        return self._edit.done()
