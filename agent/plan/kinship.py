"""What the peers have at the IKE daemon: children with their reqids, connections, keys.

A child has its reqid as long as it exists, over restarts too: its SAs bear the number.
"""

from __future__ import annotations

from collections.abc import Mapping

from agent.plan import numbers
from agent.plan.connections import Peer, connections
from agent.plan.credentials import secret
from agent.plan.layered import Edit, Layered
from agent.plan.model import Child, Connection, Secret, ViciValue
from agent.plan.profiles import Profiles
from agent.plan.result import Plan
from agent.plan.state import Kin, State, Todo, edit_of


class Kinship:
    """`kept`: reqids that children without one are to get back."""

    def __init__(self, profiles: Profiles, previous: Plan | None, state: State, todo: Todo) -> None:
        self._profiles = profiles
        self._todo = todo
        self._kin = state.kin.edit()
        self._changes: dict[int, dict[str, dict[str, ViciValue] | None]] = {}
        self._kept: Mapping[str, int] = {}
        self.next_reqid = state.next_reqid
        self.connections: Edit[str, Connection] = edit_of(previous.connections if previous else None)
        self.secrets: Edit[str, Secret] = edit_of(previous.secrets if previous else None)
        self.reqids: Edit[str, int] = edit_of(previous.reqids if previous else None)
        self.children: Edit[str, Child] = edit_of(previous.children if previous else None)

    def keep(self, reqids: Mapping[str, int]) -> None:
        """Reqids by child name that are to stay, as far as they are ours and each is one child's."""
        kept: dict[int, str] = {}
        for name, reqid in reqids.items():
            if numbers.is_our_reqid(reqid) and numbers.is_our_child(name):
                kept.setdefault(reqid, name)
        self._kept = {name: reqid for reqid, name in kept.items()}
        self.next_reqid = max(kept, default=numbers.REQID_FIRST - 1) + 1

    def has_children(self, peer: int) -> bool:
        kin = self._kin.get(peer)
        return kin is not None and bool(kin.children)

    def children_of(self, peer: int) -> tuple[Child, ...]:
        kin = self._kin.get(peer)
        return kin.children if kin is not None else ()

    def reqid(self, name: str) -> int:
        """The reqid of a child: its own, else a new one."""
        reqid = self.reqids.get(name)
        if reqid is None:
            reqid = self._kept.get(name)
        if reqid is None:
            if self.next_reqid > numbers.REQID_LAST:
                taken = {*self.reqids.done().values(), *self._kept.values()}
                self.next_reqid = next(n for n in range(numbers.REQID_FIRST, numbers.REQID_LAST) if n not in taken)
            reqid = self.next_reqid
            self.next_reqid += 1
        self.reqids.put(name, reqid)
        return reqid

    def set_child(self, owner: int, name: str, child: Child | None, settings: dict[str, ViciValue] | None) -> None:
        """A child and its settings; None when there is none, or none any more."""
        old = self.children.get(name)
        if old is not None and old.fine is not None and (child is None or child.fine is None):
            for each in numbers.asking_names(name):
                self.reqids.put(each, None)
        if child is None:
            if old is None:
                return
            self.reqids.put(name, None)
        if child != old:
            self.children.put(name, child)
        kin = self._kin.get(owner)
        if child is not None and child == old and kin is not None and kin.settings.get(name) == settings:
            return
        self._changes.setdefault(owner, {})[name] = settings
        self._todo.related.add(owner)
        self._todo.judge_peers.add(owner)

    def relate(self, peers: Edit[int, Peer]) -> None:
        """Make the connections of those peers that have other children, or are other than they were."""
        for number in self._todo.related:
            self._relate(number, peers.get(number))

    def done(self) -> Layered[int, Kin]:
        return self._kin.done()

    def _relate(self, number: int, peer: Peer | None) -> None:
        kin = self._kin.get(number) or Kin()
        changes = self._changes.get(number)
        settings, children = kin.settings, kin.children
        if changes:
            merged = dict(settings)
            for name, value in changes.items():
                if value is None:
                    merged.pop(name, None)
                else:
                    merged[name] = value
            settings = merged
            children = tuple(child for child in children if child.name not in changes)
            children += tuple(child for name in changes if (child := self.children.get(name)) is not None)
        found: list[Connection] = []
        if peer is not None and peer.usable and children:
            found = connections(
                peer, self._profiles.phase1(peer.ike_profile, peer.version, peer.method), settings, children
            )
            self.secrets.put(numbers.secret_id(number), secret(peer) if peer.proof is None else None)
        else:
            self.secrets.put(numbers.secret_id(number), None)
        names = tuple(connection.name for connection in found)
        for name in kin.connections:
            if name not in names:
                self.connections.put(name, None)
        for connection in found:
            self.connections.put(connection.name, connection)
        self._kin.put(number, Kin(settings, children, names) if children or names else None)
