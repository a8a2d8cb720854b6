"""The work on one plan: from what the configuration says of a few rows, or of all, to policies, connections, verdicts.

A draft begins with the previous plan or with nothing, is told which rows, lists and peers
to look at, and does the rest itself in the order of `finish`: lists, labels, companions,
policies, connections, verdicts. A whole plan is a draft from nothing with everything to
look at, so there is one way and not two.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final, Generic, NamedTuple, TypeVar, cast

from agent.plan import numbers, spd
from agent.plan.chains import EMPTY, POST, PRE, Chain, compare, follow_again
from agent.plan.credentials import secret
from agent.plan.ike import Peer, Profiles, child_settings, connections, transport_suffices
from agent.plan.layered import Edit, Layered
from agent.plan.model import (
    Action,
    ApplyState,
    Child,
    ConfigurationView,
    Connection,
    Environment,
    Policy,
    PolicyKey,
    RowRef,
    Secret,
    Verdict,
    ViciValue,
)
from agent.plan.order import assign, between
from agent.plan.peers import EMPTY_LIST, PEERS, read_peer
from agent.plan.placing import Entry, Instance, Placing, behind_all
from agent.plan.result import REMEMBERED, Plan, Touched
from agent.plan.spd import TRAFFIC, Companions, Rule, RuleAction, Way

K = TypeVar("K")
V = TypeVar("V")

EAGER: Final = (
    20_000  # rules up to which `placing` is made before there is a drop rule, so that the first costs nothing
)

BANDS: Final = {PRE: numbers.PRIORITY_PRE, POST: numbers.PRIORITY_POST}
TOLD: Final = 2  # lists of which a rule's verdict says what is special there
NO_LIST: Final = Verdict(ApplyState.UNUSED, "in no list: neither a peer nor the pre or post list leads to it")
NOT_IN_SERVICE: Final = "the list breaks off here: the next rule is not in service"
PROTECT_OUTSIDE: Final = Verdict(ApplyState.UNUSED, "protect rules count in the lists of peers only")
NOTHING_TO_PROTECT: Final = Verdict(ApplyState.APPLIED, "no protect rule in its list, so there is no tunnel")


class Made(NamedTuple):
    """What became of a rule in one list. `companions`: of a protect rule that has policies."""

    rule: Rule
    label: int
    companions: Companions
    policies: tuple[Policy, ...]
    verdict: Verdict | None


class Kin(NamedTuple):
    """What a peer has at the daemon: settings by child name, the children, names of its connections."""

    settings: Mapping[str, ViciValue]
    children: tuple[Child, ...]
    connections: tuple[str, ...]


class State(NamedTuple):
    """What a plan keeps for the next. `ordered`: (priority, number) of the peers with rules. `users`: lists a rule is
    in; `waiting`: lists that break off at a missing rule. `contested`: all who want a key, in order, if more than
    one. `placing`: from the first drop rule in a peer's list on, or sooner. `drops`: their labels, in
    order."""

    profiles: Profiles
    rules: Layered[int, Rule]
    peers: Layered[int, Peer]
    ordered: tuple[tuple[int, int], ...]
    chains: Layered[int, Chain]
    users: Layered[int, tuple[int, ...]]
    waiting: Layered[int, tuple[int, ...]]
    made: Layered[Instance, Made]
    kin: Layered[int, Kin]
    contested: Layered[PolicyKey, tuple[Policy, ...]]
    placing: Placing | None
    drops: tuple[int, ...]
    next_reqid: int


class Draft:
    """A plan in the making. Raises nothing on what an operator configured: that becomes verdicts."""

    def __init__(
        self, configuration: ConfigurationView, environment: Environment, profiles: Profiles, previous: Plan | None
    ) -> None:
        self._configuration = configuration
        self._environment = environment
        self._profiles = profiles
        self._previous = previous
        self._token = object()
        state = previous.state if previous is not None else None
        if state is None:
            state = State(
                profiles,
                *(Layered(), Layered(), (), Layered(), Layered(), Layered(), Layered(), Layered(), Layered()),
                placing=None,
                drops=(),
                next_reqid=numbers.REQID_FIRST,
            )
        self._state = state
        self._rules = state.rules.edit()
        self._peers = state.peers.edit()
        self._ordered = state.ordered
        self._chains = state.chains.edit()
        self._users: _Bags[int, int] = _Bags(state.users)
        self._waiting: _Bags[int, int] = _Bags(state.waiting)
        self._made = state.made.edit()
        self._kin = state.kin.edit()
        self._contested = state.contested.edit()
        self._rivals: dict[PolicyKey, list[Policy]] = {}  # of contested keys touched, in order
        self._drops = list(state.drops)
        self._next_reqid = state.next_reqid

        self._policies: Edit[PolicyKey, Policy] = _edit(previous.policies if previous else None)
        self._connections: Edit[str, Connection] = _edit(previous.connections if previous else None)
        self._secrets: Edit[str, Secret] = _edit(previous.secrets if previous else None)
        self._verdicts: Edit[RowRef, Verdict] = _edit(previous.verdicts if previous else None)
        self._reqids: Edit[str, int] = _edit(previous.reqids if previous else None)
        self._children: Edit[str, Child] = _edit(previous.children if previous else None)

        self._earlier_labels: Mapping[Instance, Made] = {}
        self._kept_reqids: Mapping[str, int] = {}
        self._relisted: dict[int, set[int]] = {}  # owner → rules whose link changed
        self._reordered = set[int]()  # peers whose place among the peers changed
        self._gone = set[Instance]()
        self._build: dict[Instance, None] = {}
        self._child_changes: dict[int, dict[str, dict[str, ViciValue] | None]] = {}
        self._placing: Placing | None = None
        self._related = set[int]()  # peers whose connections are to be made again
        self._judge_rules = set[int]()
        self._judge_peers = set[int]()

    # ---- what to look at --------------------------------------------------------------

    def keep(self, earlier: Plan | None) -> None:
        """Labels and reqids of an earlier plan stay with those who had them; for a draft from nothing."""
        taken = dict(self._environment.reqids)
        if earlier is not None:
            taken |= earlier.reqids
            if earlier.state is not None:
                self._earlier_labels = earlier.state.made
        kept: dict[int, str] = {}
        for name, reqid in taken.items():
            if numbers.is_our_reqid(reqid) and numbers.is_our_child(name):
                kept.setdefault(reqid, name)
        self._kept_reqids = {name: reqid for reqid, name in kept.items()}
        self._next_reqid = max(kept, default=numbers.REQID_FIRST - 1) + 1

    def standing_policies(self) -> None:
        """Those without a rule: exemptions and the default."""
        for policy in spd.exemptions(self._environment.own_addresses):
            self._offer(policy)
        if self._configuration.scalar("ipsecGlobContDefaultRule") == 1:
            for policy in spd.default_rule():
                self._offer(policy)

    def default_rule(self) -> None:
        """The default rule was switched."""
        drop = self._configuration.scalar("ipsecGlobContDefaultRule") == 1
        for policy in spd.default_rule():
            for rival in list(self._rivals_of(policy.key)):
                if rival.row == spd.DEFAULT_ROW:
                    self._withdraw(rival)
            if drop:
                self._offer(policy)

    def peer(self, number: int) -> None:
        """A peer's row, or what it depends on, may be different."""
        row = self._configuration.row(PEERS, number)
        old = self._peers.get(number)
        new: Peer | None = None
        if row is not None and row["ipsecPeerTrafficList"]:
            profile = row["ipsecPeerIkeProfile"]
            assert isinstance(profile, int)
            new = read_peer(row, self._environment, self._profiles.phase1(profile))
        self._judge_peers.add(number)
        if new == old:
            return
        self._peers.put(number, new)
        if old is None or new is None or old.head != new.head:
            self._relisted.setdefault(number, set())
        if old is not None and new is not None and old.priority != new.priority:
            self._reordered.add(number)
        self._related.add(number)
        if old is not None and new is not None and old._replace(head=new.head, priority=new.priority) == new:
            return  # the rules that stay are as they were
        for rule in (self._chains.get(number) or EMPTY).rules:
            self._build[number, rule] = None
            self._judge_rules.add(rule)

    def outside_list(self, owner: int) -> None:
        """The head of the pre or post list may be different."""
        self._relisted.setdefault(owner, set())

    def rule(self, number: int) -> None:
        """A rule's row may be different."""
        old = self._rules.get(number)
        users = self._users.get(number)
        waiting = self._waiting.get(number)
        self._judge_rules.add(number)
        if not users and not waiting:
            return
        row = self._configuration.row(TRAFFIC, number)
        new = spd.read_rule(row) if row is not None else None
        if new == old:
            return
        self._rules.put(number, new)
        if old is None or new is None or old.next != new.next:
            for owner in (*users, *waiting):
                self._relisted.setdefault(owner, set()).add(number)
        if new is not None and old is not None and old._replace(next=new.next) != new:
            for owner in users:
                self._build[owner, number] = None

    def instance(self, owner: int, rule: int) -> None:
        """Something of the world changed that a rule in one list depends on."""
        if self._made.get((owner, rule)) is not None:
            self._build[owner, rule] = None

    # ---- the way to the plan ----------------------------------------------------------

    def finish(self) -> Plan:
        labels = self._make_lists()
        self._number(labels)
        self._make_policies()
        self._relate()
        self._judge()
        return self._result()

    # ---- lists ------------------------------------------------------------------------

    def _following(self, number: int) -> int | None:
        rule = self._rules.get(number)
        if rule is None:
            row = self._configuration.row(TRAFFIC, number)
            if row is None:
                return None
            rule = spd.read_rule(row)
            self._rules.put(number, rule)
        return rule.next

    def _head(self, owner: int) -> int:
        if owner > 0:
            peer = self._peers.get(owner)
            return peer.head if peer is not None else 0
        name = "ipsecGlobContPreIpsecRules" if owner == PRE else "ipsecGlobContPostIpsecRules"
        head = self._configuration.scalar(name)
        assert isinstance(head, int)
        return head

    def _make_lists(self) -> dict[int, list[int | None]]:
        """Lists as they are now; for those with other rules, the labels their rules have."""
        wanted: dict[int, list[int | None]] = {}
        for owner, changed in self._relisted.items():
            old = self._chains.get(owner) or EMPTY
            rules, broken = follow_again(self._head(owner), self._following, old, changed)
            if broken != old.broken:
                self._wait(old.broken, owner, False)
                self._wait(broken, owner, True)
                self._judge_rules.update(old.rules[-1:] + rules[-1:])
            if rules == old.rules:
                self._chains.put(owner, Chain(rules, old.labels, broken) if rules or broken else None)
                continue
            start, tail = compare(old.rules, rules)
            middle = rules[start : len(rules) - tail]
            before = dict(
                zip(old.rules[start : len(old.rules) - tail], old.labels[start : len(old.rules) - tail], strict=True)
            )
            now = set(middle)
            for rule in before:
                if rule not in now:
                    self._gone.add((owner, rule))
                    self._build.pop((owner, rule), None)
                    self._use(rule, owner, False)
            for rule in middle:
                if rule not in before:
                    self._build[owner, rule] = None
                    self._use(rule, owner, True)
            labels: list[int | None] = list(old.labels[:start])
            for rule in middle:
                made = self._earlier_labels.get((owner, rule))
                labels.append(before.get(rule, made.label if made is not None else None))
            labels += old.labels[len(old.rules) - tail :]
            wanted[owner] = labels
            self._chains.put(owner, Chain(rules, old.labels, broken))  # labels follow in _number
        return wanted

    def _use(self, rule: int, owner: int, uses: bool) -> None:
        self._users.toggle(rule, owner, uses)
        self._judge_rules.add(rule)
        if owner > 0:
            self._related.add(owner)
            self._judge_peers.add(owner)
        if not uses and not self._users.get(rule):
            self._rules.put(rule, None)

    def _wait(self, rule: int, owner: int, waits: bool) -> None:
        if rule:
            self._waiting.toggle(rule, owner, waits)

    # ---- labels -----------------------------------------------------------------------

    def _number(self, wanted: dict[int, list[int | None]]) -> None:
        for owner in (PRE, POST):
            if owner in wanted:
                self._set_labels(owner, assign(wanted[owner]))
        peers = [owner for owner in wanted if owner > 0]
        self._order(peers)
        moved = [owner for owner in self._reordered if self._chains.get(owner) is not None]
        for owner in moved:
            chain = self._chains.get(owner) or EMPTY
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
            chain = self._chains.get(owner) or EMPTY
            flat += labels if labels is not None else chain.labels
            owners.append((owner, len(chain.rules)))
        found = assign(flat)
        place = 0
        for owner, count in owners:
            self._set_labels(owner, found[place : place + count])
            place += count
        for owner in peers:
            if not (self._chains.get(owner) or EMPTY).rules:
                self._set_labels(owner, [])

    def _order(self, peers: Iterable[int]) -> None:
        """Bring `ordered` to those peers that have rules now."""
        new = set[int]()
        old = set[int]()
        for owner in set(peers) | self._reordered:
            has = bool((self._chains.get(owner) or EMPTY).rules)
            had = bool((self._state.chains.get(owner) or EMPTY).rules)
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
        if len(added) > 16:
            ordered = sorted(ordered + added)
        else:
            for entry in added:
                insort(ordered, entry)
        self._ordered = tuple(ordered)

    def _number_one(self, owner: int, wanted: list[int | None]) -> bool:
        """Labels for new rules in one list from the gaps where they are; False when these are too small."""
        chain = self._chains.get(owner) or EMPTY
        if not chain.rules:
            self._set_labels(owner, [])
            return True
        peer = self._peers.get(owner)
        assert peer is not None
        place = bisect_left(self._ordered, (peer.priority, owner))
        low, high = -1, numbers.LABELS
        if place:
            low = (self._chains.get(self._ordered[place - 1][1]) or EMPTY).labels[-1]
        if place + 1 < len(self._ordered):
            high = (self._chains.get(self._ordered[place + 1][1]) or EMPTY).labels[0]
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
        chain = self._chains.get(owner) or EMPTY
        if not chain.rules and not chain.broken:
            self._chains.put(owner, None)
            return
        after = tuple(labels)
        old = self._state.chains.get(owner) or EMPTY
        if chain.labels == after and old.rules == chain.rules:
            return
        self._chains.put(owner, chain._replace(labels=after))
        start, tail = compare(old.rules, chain.rules)
        if old.labels[:start] == after[:start] and old.labels[len(old.labels) - tail :] == after[len(after) - tail :]:
            moved: Iterable[int] = range(start, len(after) - tail)
        else:
            before = dict(zip(old.rules, old.labels, strict=True))
            moved = [place for place, rule in enumerate(chain.rules) if before.get(rule) != after[place]]
        for place in moved:
            self._build[owner, chain.rules[place]] = None

    def _labels_of(self, owners: Iterable[int]) -> dict[Instance, int]:
        """Labels of the rules to be made, of lists where there are many."""
        found: dict[Instance, int] = {}
        for owner in owners:
            chain = self._chains.get(owner) or EMPTY
            for rule, label in zip(chain.rules, chain.labels, strict=True):
                found[owner, rule] = label
        return found

    # ---- policies ---------------------------------------------------------------------

    def _entries(self) -> Iterator[tuple[Instance, Rule, int]]:
        """The rules to be made, with their labels."""
        counts: dict[int, int] = {}
        for owner, _ in self._build:
            counts[owner] = counts.get(owner, 0) + 1
        many = self._labels_of(owner for owner, count in counts.items() if count > 8)
        for instance in self._build:
            label = many.get(instance)
            if label is None:
                chain = self._chains.get(instance[0]) or EMPTY
                label = chain.labels[chain.rules.index(instance[1])]
            rule = self._rules.get(instance[1])
            assert rule is not None
            yield instance, rule, label

    def _make_policies(self) -> None:
        entries = list(self._entries())
        placing, recheck = self._place(entries)
        for instance in self._gone:
            made = self._made.get(instance)
            if made is not None:
                self._replace(instance, made, None)
        for instance, rule, label in entries:
            self._make(instance, rule, label, placing)
        for instance in recheck:
            made = self._made.get(instance)
            if made is None or placing is None or instance in self._build:
                continue
            if not made.policies or made.policies[0].action is Action.BLOCK:
                continue
            if placing.companions(Entry(instance, made.rule, made.label)) != made.companions:
                self._make(instance, made.rule, made.label, placing)
        self._placing = placing

    def _place(self, entries: list[tuple[Instance, Rule, int]]) -> tuple[Placing | None, set[Instance]]:
        """Bring `placing` up to date. Protect rules whose companions may have to move come with it."""
        gone: list[Entry] = []
        come: list[Entry] = []
        for instance in [*self._gone, *self._build]:
            made = self._made.get(instance)
            if made is not None and instance[0] > 0:
                gone.append(Entry(instance, made.rule, made.label))
        for instance, rule, label in entries:
            if instance[0] > 0:
                come.append(Entry(instance, rule, label))
        staying = {(entry.instance, entry.rule.outward, entry.rule.action, entry.label) for entry in gone} & {
            (entry.instance, entry.rule.outward, entry.rule.action, entry.label) for entry in come
        }
        for entry in gone:
            if entry.rule.action == RuleAction.DROP:
                del self._drops[bisect_left(self._drops, entry.label)]
        for entry in come:
            if entry.rule.action == RuleAction.DROP:
                insort(self._drops, entry.label)
        placing = self._state.placing
        if placing is None and not self._drops and not 0 < len(come) <= EAGER:
            return None, set()
        known = placing is not None and self._previous is not None and placing.rewind(self._previous.token)
        if placing is None or not known:
            placing = Placing()
            placing.begin(None if self._previous is None else self._previous.token)
            for instance, made in self._state.made.items():
                if instance[0] > 0:
                    placing.add(Entry(instance, made.rule, made.label))
        placing.begin(self._token)
        for entry in gone:
            placing.remove(entry)
        recheck = set[Instance]()
        for entry in gone:
            if (entry.instance, entry.rule.outward, entry.rule.action, entry.label) not in staying:
                recheck.update(self._concerned(placing, entry))
        for entry in come:
            placing.add(entry)
        for entry in come:
            if (entry.instance, entry.rule.outward, entry.rule.action, entry.label) not in staying:
                recheck.update(self._concerned(placing, entry))
        return placing, recheck

    def _concerned(self, placing: Placing, entry: Entry) -> Iterator[Instance]:
        """Whose companions may have to move because this rule came, went or moved."""
        if entry.rule.action == RuleAction.PROTECT:
            # it holds companions behind it only where a drop rule would otherwise have them before it
            place = bisect_left(self._drops, entry.label)
            if not place:
                return
            last_drop = self._drops[place - 1]
            for instance in placing.concerned(entry.rule):
                made = self._made.get(instance)
                if made is not None and made.label < last_drop:
                    yield instance
        elif entry.rule.action == RuleAction.DROP:
            for instance in placing.concerned(entry.rule):
                made = self._made.get(instance)
                if made is not None and made.label < entry.label:
                    yield instance

    def _make(self, instance: Instance, rule: Rule, label: int, placing: Placing | None) -> None:
        """The policies of a rule in one list."""
        owner = instance[0]
        priority = BANDS.get(owner, numbers.PRIORITY_PEERS) + numbers.PLACE_WIDTH * label + numbers.PLACE_RULE
        companions = Companions(priority, priority)
        if owner > 0:
            companions = behind_all(label) if placing is None else placing.companions(Entry(instance, rule, label))
        policies: list[Policy] = []
        verdict: Verdict | None = None
        if rule.problem:
            verdict = Verdict(ApplyState.FAILED, rule.problem)
        elif rule.action != RuleAction.PROTECT:
            policies = spd.plain(rule, max(owner, 0), priority, companions)
        elif owner < 0:
            verdict = PROTECT_OUTSIDE
        else:
            way, verdict = self._way(owner, rule)
            if way is None:  # what blocks need not come before a drop rule, and would meet there what passes
                companions = behind_all(label)
            policies = spd.protect(rule, owner, priority, companions, way)
        made = Made(rule, label, companions, _one_per_key(policies), verdict)
        self._replace(instance, self._made.get(instance), made)
        self._judge_rules.add(rule.number)

    def _way(self, owner: int, rule: Rule) -> tuple[Way | None, Verdict | None]:
        """How a protect rule of a peer is to be made real; None when it has to block, and why."""
        peer = self._peers.get(owner)
        assert peer is not None
        name = numbers.child_name(owner, rule.number)
        phase2 = self._profiles.phase2(rule.profile, peer.ipsec_profile)
        if not peer.usable or phase2.problem:
            self._set_child(owner, name, None, None)
            if phase2.problem and peer.usable:
                return None, Verdict(ApplyState.FAILED, f"{phase2.problem}; its packets are dropped")
            why = peer.verdict
            assert why is not None
            return None, Verdict(why.state, f"its packets are dropped: peer {owner}: {why.text}")
        reqid = self._reqid(name)
        self._set_child(owner, name, Child(name, owner, rule.number, reqid), child_settings(rule, peer, phase2, reqid))
        tunnel = self._environment.tunnels.get(name)
        if tunnel is not None:
            return spd.way_of(tunnel, reqid), None
        if peer.remote is None or peer.local is None:
            return None, Verdict(ApplyState.APPLIED, f"its packets are dropped until peer {owner} has called")
        mode = spd.TRANSPORT if transport_suffices(rule, peer.local, peer.remote) else spd.TUNNEL
        return Way(peer.local, peer.remote, phase2.protocol, mode, False, reqid), None

    def _reqid(self, name: str) -> int:
        reqid = self._reqids.get(name)
        if reqid is None:
            reqid = self._kept_reqids.get(name)
        if reqid is None:
            if self._next_reqid > numbers.REQID_LAST:
                taken = {*self._reqids.done().values(), *self._kept_reqids.values()}
                self._next_reqid = next(n for n in range(numbers.REQID_FIRST, numbers.REQID_LAST) if n not in taken)
            reqid = self._next_reqid
            self._next_reqid += 1
        self._reqids.put(name, reqid)
        return reqid

    def _replace(self, instance: Instance, old: Made | None, new: Made | None) -> None:
        """Take back what a rule had in a list, bring what it has now."""
        before = {policy.key: policy for policy in old.policies} if old is not None else {}
        for policy in new.policies if new is not None else ():
            self._offer(policy, before.pop(policy.key, None))
        for policy in before.values():
            self._withdraw(policy)
        if new is None:
            if old is not None and old.rule.action == RuleAction.PROTECT and instance[0] > 0:
                self._set_child(instance[0], numbers.child_name(*instance), None, None)
        else:
            if (
                old is not None
                and old.rule.action == RuleAction.PROTECT
                and (new.rule.action != RuleAction.PROTECT or new.rule.problem)
                and instance[0] > 0
            ):
                self._set_child(instance[0], numbers.child_name(*instance), None, None)
        self._made.put(instance, new)

    def _offer(self, policy: Policy, instead: Policy | None = None) -> None:
        """This policy is wanted, instead of another of the same rule and list with this key. Of those who want a key
        the one that comes first in order has it. (Whose a policy is, is told by the object.)"""
        key = policy.key
        rivals = self._rivals_of(key)
        if instead is not None:
            _take_out(rivals, instead)
        insort(rivals, policy, key=_rank)
        self._settle(key, rivals)

    def _withdraw(self, policy: Policy) -> None:
        rivals = self._rivals_of(policy.key)
        _take_out(rivals, policy)
        self._settle(policy.key, rivals)

    def _rivals_of(self, key: PolicyKey) -> list[Policy]:
        """Who wants this key, to be changed; given to `_settle` then."""
        rivals = self._rivals.get(key)
        if rivals is not None:
            return rivals
        contested = self._contested.get(key)
        if contested is not None:
            return list(contested)
        held = self._policies.get(key)
        return [] if held is None else [held]

    def _settle(self, key: PolicyKey, rivals: list[Policy]) -> None:
        """The first of them has the key; when that is another than before, all of them may have to say so."""
        held = self._policies.get(key)
        first = rivals[0] if rivals else None
        if held is not first:
            self._policies.put(key, first)
        if len(rivals) > 1 or key in self._rivals or self._contested.get(key) is not None:
            self._rivals[key] = rivals
            if held is not None and (first is None or held.row != first.row or held.peer != first.peer):
                self._judge_rules.update(rival.row.number for rival in (held, *rivals) if rival.row.table == TRAFFIC)

    # ---- connections ------------------------------------------------------------------

    def _set_child(self, owner: int, name: str, child: Child | None, settings: dict[str, ViciValue] | None) -> None:
        old = self._children.get(name)
        if child is None:
            if old is None:
                return
            self._reqids.put(name, None)
        if child != old:
            self._children.put(name, child)
        kin = self._kin.get(owner)
        if child is not None and child == old and kin is not None and kin.settings.get(name) == settings:
            return
        self._child_changes.setdefault(owner, {})[name] = settings
        self._related.add(owner)
        self._judge_peers.add(owner)

    def _relate(self) -> None:
        for number in self._related:
            self._relate_peer(number)

    def _relate_peer(self, number: int) -> None:
        kin = self._kin.get(number) or Kin({}, (), ())
        changes = self._child_changes.get(number)
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
            children += tuple(child for name in changes if (child := self._children.get(name)) is not None)
        peer = self._peers.get(number)
        found: list[Connection] = []
        if peer is not None and peer.usable and children:
            found = connections(peer, self._profiles.phase1(peer.ike_profile), settings, children)
            self._secrets.put(numbers.secret_id(number), secret(peer))
        else:
            self._secrets.put(numbers.secret_id(number), None)
        names = tuple(connection.name for connection in found)
        for name in kin.connections:
            if name not in names:
                self._connections.put(name, None)
        for connection in found:
            self._connections.put(connection.name, connection)
        self._kin.put(number, Kin(settings, children, names) if children or names else None)

    # ---- verdicts ---------------------------------------------------------------------

    def _judge(self) -> None:
        for number in self._judge_rules:
            self._verdicts.put(RowRef(TRAFFIC, number), self._rule_verdict(number))
        for ref, verdict in self._profiles.verdicts.items():
            self._verdicts.put(ref, verdict)
        for number in self._judge_peers:
            self._verdicts.put(RowRef(PEERS, number), self._peer_verdict(number))

    def _peer_verdict(self, number: int) -> Verdict | None:
        peer = self._peers.get(number)
        if peer is None:
            return EMPTY_LIST if self._configuration.row(PEERS, number) is not None else None
        kin = self._kin.get(number)
        if peer.verdict is None and (kin is None or not kin.children):
            return NOTHING_TO_PROTECT
        return peer.verdict

    def _rule_verdict(self, number: int) -> Verdict | None:
        owners = self._users.get(number)
        if not owners:
            return NO_LIST if self._configuration.row(TRAFFIC, number) is not None else None
        verdicts = [self._instance_verdict(owner, number) for owner in sorted(owners, key=self._turn)]
        for state in (ApplyState.FAILED, ApplyState.PENDING):
            for verdict in verdicts:
                if verdict is not None and verdict.state is state:
                    return verdict
        working = [v for v in verdicts if v is None or v.state is ApplyState.APPLIED]
        rest = [v for v in verdicts if v is not None and v.state is not ApplyState.APPLIED]
        if not working:
            return next((v for v in rest if v.state is ApplyState.SHADOWED), rest[0])
        texts = list(dict.fromkeys(v.text for v in [*working, *rest] if v is not None and v.text))
        more = [f"and so in {len(texts) - TOLD} other lists"] if len(texts) > TOLD else []
        return Verdict(ApplyState.APPLIED, "; ".join(texts[:TOLD] + more)) if texts else None

    def _turn(self, owner: int) -> tuple[int, int]:
        """Order of the owners of lists."""
        peer = self._peers.get(owner)
        return (peer.priority if peer is not None else -(1 << 31) if owner == PRE else 1 << 31), owner

    def _instance_verdict(self, owner: int, number: int) -> Verdict | None:
        made = self._made.get((owner, number))
        if made is None:
            return None
        lost: list[tuple[Policy, Policy]] = []
        deciding = [policy for policy in made.policies if spd.is_main(made.rule, policy.key)]
        for policy in deciding:
            holder = self._policies.get(policy.key)
            if holder is None or holder is policy:
                continue
            if holder.row != policy.row or made.rule.action == RuleAction.PROTECT:  # else its own in another list
                lost.append((policy, holder))
        if lost:
            _, holder = lost[0]
            where = f"the {lost[0][0].key.direction.name.lower()} selector"
            who = f"rule {holder.row.number}" if holder.row.table == TRAFFIC else holder.rule
            if holder.peer and holder.peer != owner:
                who += f" of peer {holder.peer}"
            if len(lost) == len(deciding):
                in_list = f" (list of peer {owner})" if owner > 0 else ""
                return Verdict(ApplyState.SHADOWED, f"same selector as {who}, which comes first{in_list}")
            return Verdict(ApplyState.APPLIED, f"{where} belongs to {who}, which comes first")
        chain = self._chains.get(owner) or EMPTY
        if made.verdict is None and chain.broken and chain.rules[-1:] == (number,):
            return Verdict(ApplyState.APPLIED, f"{NOT_IN_SERVICE} ({chain.broken})")
        return made.verdict

    # ---- the plan ---------------------------------------------------------------------

    def _result(self) -> Plan:
        history: tuple[Touched, ...] = ()
        if self._previous is not None:
            entry = Touched(
                self._previous.token,
                frozenset(self._policies.before),
                frozenset(self._connections.before),
                frozenset(self._secrets.before),
                frozenset(self._verdicts.before),
            )
            history = (entry, *self._previous.history)[:REMEMBERED]
        for key, rivals in self._rivals.items():
            self._contested.put(key, tuple(rivals) if len(rivals) > 1 else None)
        state = State(
            self._profiles,
            self._rules.done(),
            self._peers.done(),
            self._ordered,
            self._chains.done(),
            self._users.done(),
            self._waiting.done(),
            self._made.done(),
            self._kin.done(),
            self._contested.done(),
            self._placing,
            tuple(self._drops),
            self._next_reqid,
        )
        return Plan(
            self._configuration.generation,
            self._configuration,
            self._environment,
            True,
            self._policies.done(),
            self._connections.done(),
            self._secrets.done(),
            self._verdicts.done(),
            self._reqids.done(),
            self._children.done(),
            state,
            history,
            self._token,
        )


def _edit(start: Mapping[K, V] | None) -> Edit[K, V]:
    return (start if isinstance(start, Layered) else Layered[K, V]()).edit()


class _Bags(Generic[K, V]):
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

    def done(self) -> Layered[K, tuple[V, ...]]:
        for key, opened in self._open.items():
            self._edit.put(key, tuple(opened) or None)
        return self._edit.done()


def _take_out(rivals: list[Policy], policy: Policy) -> None:
    """Remove this very object, which has its place in the order of `_rank`."""
    place = bisect_left(rivals, _rank(policy), key=_rank)
    while place < len(rivals) and rivals[place] is not policy:
        place += 1
    if place < len(rivals):
        del rivals[place]


def _rank(policy: Policy) -> tuple[int, int, int]:
    return policy.priority, policy.row.number, policy.peer


def _one_per_key(policies: list[Policy]) -> tuple[Policy, ...]:
    """Where both sides of a rule are the same net its own policies meet; the one that comes first stays."""
    found: dict[PolicyKey, Policy] = {}
    for policy in policies:
        held = found.get(policy.key)
        if held is None or policy.priority < held.priority:
            found[policy.key] = policy
    return tuple(found.values())
