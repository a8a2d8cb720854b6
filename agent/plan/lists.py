"""The lists of rules of one draft: which rules they have now, and the labels that keep their order.

Lists of peers are one order together (peers by priority, then number; in a list its rules),
the pre and the post list have each their own.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, cast

from agent.plan import numbers
from agent.plan.chains import EMPTY, POST, PRE, Chain, compare, follow_again
from agent.plan.connections import Peer
from agent.plan.layered import Edit
from agent.plan.model import ConfigurationView
from agent.plan.order import assign, between
from agent.plan.placing import Instance
from agent.plan.spd import TRAFFIC
from agent.plan.state import Bags, Made, State, Todo
from agent.plan.traffic import Rule, out_of_service, read_rule

FEW: Final = 8  # rules of one list whose labels are looked up one by one, new peers put in order one by one


class Lists:
    """`peers` is the draft's, as they are now; `todo` gets what follows from changed lists."""

    def __init__(self, configuration: ConfigurationView, state: State, peers: Edit[int, Peer], todo: Todo) -> None:
        self._configuration = configuration
        self._before = state.chains
        self._peers = peers
        self._todo = todo
        self._ordered = state.ordered
        self._relisted: dict[int, set[int]] = {}  # owner → rules whose link changed
        self._reordered = set[int]()  # peers whose place among the peers changed
        self.earlier: Mapping[Instance, Made] = {}  # an earlier plan's, whose labels are to be kept
        self.rules = state.rules.edit()
        self.chains = state.chains.edit()
        self.users: Bags[int, int] = Bags(state.users)
        self.waiting: Bags[int, int] = Bags(state.waiting)

    @property
    def ordered(self) -> tuple[tuple[int, int], ...]:
        return self._ordered

    def chain(self, owner: int) -> Chain:
        return self.chains.get(owner) or EMPTY

    # ---- what may be different --------------------------------------------------------

    def relist(self, owner: int) -> None:
        """The head of a list may be another."""
        self._relisted.setdefault(owner, set())

    def reorder(self, peer: int) -> None:
        """A peer's priority is another."""
        self._reordered.add(peer)

    def rule(self, number: int) -> None:
        """A rule's row may be different."""
        self._todo.judge_rules.add(number)
        users, waiting = self.users.get(number), self.waiting.get(number)
        if not users and not waiting:
            return
        old = self.rules.get(number)
        new = self._read(number)
        if new == old:
            return
        self.rules.put(number, new)
        if old is None or new is None or old.next != new.next:
            for owner in (*users, *waiting):
                self._relisted.setdefault(owner, set()).add(number)
        if new is not None and old is not None and old._replace(next=new.next) != new:
            for owner in users:
                self._todo.build[owner, number] = None

    def settle(self) -> None:
        """Bring the lists and their labels up to date."""
        self._number(self._make())

    def entries(self) -> Iterator[tuple[Instance, Rule, int]]:
        """The rules to be made, with their labels."""
        counts: dict[int, int] = {}
        for owner, _ in self._todo.build:
            counts[owner] = counts.get(owner, 0) + 1
        labels: dict[Instance, int] = {}
        for owner, count in counts.items():
            if count > FEW:
                chain = self.chain(owner)
                for number, label in zip(chain.rules, chain.labels, strict=True):
                    labels[owner, number] = label
        for instance in self._todo.build:
            owner, number = instance
            found = labels.get(instance)
            if found is None:
                chain = self.chain(owner)
                found = chain.labels[chain.rules.index(number)]
            rule = self.rules.get(number)
            assert rule is not None
            yield instance, rule, found

    # ---- lists ------------------------------------------------------------------------

    def _following(self, number: int) -> int | None:
        rule = self.rules.get(number)
        if rule is None:
            rule = self._read(number)
            if rule is None:
                return None
            self.rules.put(number, rule)
        return rule.next

    def _read(self, number: int) -> Rule | None:
        row = self._configuration.row(TRAFFIC, number)
        if row is not None:
            return read_rule(row)
        row = self._configuration.row_any_status(TRAFFIC, number)
        return out_of_service(row) if row is not None else None

    def _head(self, owner: int) -> int:
        if owner > 0:
            peer = self._peers.get(owner)
            return peer.head if peer is not None else 0
        name = "ipsecGlobContPreIpsecRules" if owner == PRE else "ipsecGlobContPostIpsecRules"
        head = self._configuration.scalar(name)
        assert isinstance(head, int)
        return head

    def _make(self) -> dict[int, list[int | None]]:
        """Lists as they are now; for those with other rules, the labels their rules have."""
        wanted: dict[int, list[int | None]] = {}
        for owner, changed in self._relisted.items():
            old = self.chain(owner)
            rules, broken = follow_again(self._head(owner), self._following, old, changed)
            if broken != old.broken:
                self._wait(old.broken, owner, False)
                self._wait(broken, owner, True)
                self._todo.judge_rules.update(old.rules[-1:] + rules[-1:])
            if rules == old.rules:
                self.chains.put(owner, Chain(rules, old.labels, broken) if rules or broken else None)
                continue
            start, tail = compare(old.rules, rules)
            middle = rules[start : len(rules) - tail]
            before = dict(
                zip(old.rules[start : len(old.rules) - tail], old.labels[start : len(old.rules) - tail], strict=True)
            )
            now = set(middle)
            for rule in before:
                if rule not in now:
                    self._todo.gone.add((owner, rule))
                    self._todo.build.pop((owner, rule), None)
                    self._use(rule, owner, False)
            for rule in middle:
                if rule not in before:
                    self._todo.build[owner, rule] = None
                    self._use(rule, owner, True)
            labels: list[int | None] = list(old.labels[:start])
            for rule in middle:
                made = self.earlier.get((owner, rule))
                labels.append(before.get(rule, made.label if made is not None else None))
            labels += old.labels[len(old.rules) - tail :]
            wanted[owner] = labels
            self.chains.put(owner, Chain(rules, old.labels, broken))  # its labels follow in _number
        return wanted

    def _use(self, rule: int, owner: int, uses: bool) -> None:
        self.users.toggle(rule, owner, uses)
        self._todo.judge_rules.add(rule)
        if owner > 0:
            self._todo.related.add(owner)
            self._todo.judge_peers.add(owner)
        if not uses and not self.users.get(rule):
            self.rules.put(rule, None)

    def _wait(self, rule: int, owner: int, waits: bool) -> None:
        if rule:
            self.waiting.toggle(rule, owner, waits)

    # ---- labels -----------------------------------------------------------------------

    def _number(self, wanted: dict[int, list[int | None]]) -> None:
        for owner in (PRE, POST):
            if owner in wanted:
                self._set_labels(owner, assign(wanted[owner]))
        peers = [owner for owner in wanted if owner > 0]
        self._order(peers)
        moved = [owner for owner in self._reordered if self.chains.get(owner) is not None]
        for owner in moved:
            chain = self.chain(owner)
            wanted[owner] = [None] * len(chain.rules)
        peers = list(dict.fromkeys(peers + moved))
        if not peers:
            return
        if len(peers) == 1 and len(self._ordered) and self._number_one(peers[0], wanted[peers[0]]):
            return
        flat: list[int | None] = []
        owners = []
        for _, owner in self._ordered:
            labels = wanted.get(owner)
            chain = self.chain(owner)
            flat += labels if labels is not None else chain.labels
            owners.append((owner, len(chain.rules)))
        found = assign(flat)
        place = 0
        for owner, count in owners:
            self._set_labels(owner, found[place : place + count])
            place += count
        for owner in peers:
            if not self.chain(owner).rules:
                self._set_labels(owner, [])

    def _order(self, peers: Iterable[int]) -> None:
        """Bring `ordered` to those peers that have rules now."""
        new = set[int]()
        old = set[int]()
        for owner in set(peers) | self._reordered:
            has = bool(self.chain(owner).rules)
            had = bool((self._before.get(owner) or EMPTY).rules)
            if had and (not has or owner in self._reordered):
                old.add(owner)
            if has and (not had or owner in self._reordered):
                new.add(owner)
        if not new and not old:
            return
        ordered = [entry for entry in self._ordered if entry[1] not in old] if old else list(self._ordered)
        added = []
        for owner in new:
            peer = self._peers.get(owner)
            assert peer is not None
            added.append((peer.priority, owner))
        if len(added) > FEW:
            ordered = sorted(ordered + added)
        else:
            for entry in added:
                insort(ordered, entry)
        self._ordered = tuple(ordered)

    def _number_one(self, owner: int, wanted: list[int | None]) -> bool:
        """Labels for new rules in one list from the gaps where they are; False when these are too small."""
        chain = self.chain(owner)
        if not chain.rules:
            self._set_labels(owner, [])
            return True
        peer = self._peers.get(owner)
        assert peer is not None
        place = bisect_left(self._ordered, (peer.priority, owner))
        low, high = -1, numbers.LABELS
        if place:
            low = self.chain(self._ordered[place - 1][1]).labels[-1]
        if place + 1 < len(self._ordered):
            high = self.chain(self._ordered[place + 1][1]).labels[0]
        new = [index for index, label in enumerate(wanted) if label is None]
        labels = list(wanted)
        index = 0
        while index < len(new):
            first = last = new[index]
            while index + 1 < len(new) and new[index + 1] == last + 1:
                index, last = index + 1, last + 1
            index += 1
            below = labels[first - 1] if first else low
            above = labels[last + 1] if last + 1 < len(labels) else high
            assert below is not None and above is not None
            if above <= below:
                return False
            found = between(below, above, last - first + 1)
            if found is None:
                return False
            labels[first : last + 1] = found
        final = cast("list[int]", labels)
        known = [label for label in wanted if label is not None]
        if known and (known != sorted(known) or known[0] <= low or known[-1] >= high):
            return False
        self._set_labels(owner, final)
        return True

    def _set_labels(self, owner: int, labels: list[int]) -> None:
        chain = self.chain(owner)
        if not chain.rules and not chain.broken:
            self.chains.put(owner, None)
            return
        after = tuple(labels)
        old = self._before.get(owner) or EMPTY
        if chain.labels == after and old.rules == chain.rules:
            return
        self.chains.put(owner, chain._replace(labels=after))
        start, tail = compare(old.rules, chain.rules)
        if old.labels[:start] == after[:start] and old.labels[len(old.labels) - tail :] == after[len(after) - tail :]:
            moved: Iterable[int] = range(start, len(after) - tail)
        else:
            before = dict(zip(old.rules, old.labels, strict=True))
            moved = [place for place, rule in enumerate(chain.rules) if before.get(rule) != after[place]]
        for place in moved:
            self._todo.build[owner, chain.rules[place]] = None
