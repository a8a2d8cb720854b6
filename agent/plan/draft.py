"""The work on one plan: from what the configuration says of a few rows, or of all, to policies, connections, verdicts.

A draft begins with the previous plan or with nothing, is told which rows, lists and peers
to look at, and does the rest itself in the order of `finish`: lists, labels, companions,
policies, connections, verdicts. A whole plan is a draft from nothing with everything to
look at, so there is one way and not two.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from typing import Final

from agent.plan import cells, flows, inbound, numbers, outbound, spd, verdicts
from agent.plan.chains import POST, PRE
from agent.plan.claims import Claims
from agent.plan.connections import Peer, child_settings, shared_child_settings, tunnels
from agent.plan.daemon import daemon_settings
from agent.plan.interfaces import Interfaces
from agent.plan.kinship import Kinship
from agent.plan.layered import Edit, Layered
from agent.plan.lists import Lists
from agent.plan.model import (
    Action,
    ApplyState,
    Child,
    ConfigurationView,
    Environment,
    Policy,
    RowRef,
    Verdict,
)
from agent.plan.peers import EMPTY_LIST, NO_INTERFACE, PEERS, read_peer
from agent.plan.phase1 import NAT_ENFORCE
from agent.plan.phase2 import ForceTunnel, Phase2
from agent.plan.placing import Entry, Instance, Placing, behind_all
from agent.plan.profiles import Profiles
from agent.plan.result import REMEMBERED, Filter, Plan, Touched
from agent.plan.selectors import came_by, leaves_by
from agent.plan.spd import TRAFFIC, Companions, Way
from agent.plan.state import OWN_ADDRESS, Bags, Made, State, Todo, edit_of
from agent.plan.traffic import Rule, RuleAction, RuleDirection, inside_gre, with_outer

EAGER: Final = (
    20_000  # rules up to which `placing` is made before there is a drop rule, so that the first costs nothing
)
IKEV2_SWITCH: Final = "ipsecGlobIkev2Enabled"
IN_TURN_SWITCH: Final = "ipsecGlobContDnsSelectRoundRobin"
ON: Final = 1  # TruthValue, or enabled
AH_IN_UDP: Final = "AH cannot travel in UDP, and ikePrfNatT is enforce; set another, or ipsecPropProto esp"
BANDS: Final = {PRE: numbers.PRIORITY_PRE, POST: numbers.PRIORITY_POST}


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
                *(
                    Layered(),
                    Layered(),
                    (),
                    Layered(),
                    Layered(),
                    Layered(),
                    Layered(),
                    Layered(),
                    Layered(),
                    Layered(),
                ),
                placing=None,
                drops=(),
                next_reqid=numbers.REQID_FIRST,
            )
        self._state = state
        self._todo = Todo()
        self._peers = state.peers.edit()
        self._lists = Lists(configuration, state, self._peers, self._todo)
        self._made = state.made.edit()
        self._bound: Bags[int, Instance] = Bags(state.bound)
        self._idle: Bags[int, int] = Bags(state.idle)
        self._claims = Claims(edit_of(previous.policies if previous else None), state.contested, self._todo)
        self._kinship = Kinship(profiles, previous, state, self._todo)
        self._interfaces = Interfaces(
            configuration, environment, profiles, previous, state, self._claims, self._kinship, self._misfit
        )
        self._verdicts: Edit[RowRef, Verdict] = edit_of(previous.verdicts if previous else None)
        self._sharing = set[int]()  # peers whose rules changed: their shared child may come or go
        self._drops = list(state.drops)
        self._placing: Placing | None = None

    # ---- what to look at --------------------------------------------------------------

    def keep(self, earlier: Plan | None) -> None:
        """Labels and reqids of an earlier plan stay with those who had them; for a draft from nothing."""
        reqids = dict(self._environment.reqids)
        if earlier is not None:
            reqids |= earlier.reqids
            if earlier.state is not None:
                self._lists.earlier = earlier.state.made
        self._kinship.keep(reqids)

    def standing_policies(self) -> None:
        """Those without a rule: exemptions and the default."""
        port = daemon_settings(self._configuration).ike_port
        for policy in spd.exemptions(self._environment.own_addresses, port):
            self._claims.offer(policy)
        self.default_rule()

    def default_rule(self) -> None:
        """The default rule may be different."""
        drop = self._configuration.scalar("ipsecGlobContDefaultRule") == 1
        for policy in spd.default_rule():
            for rival in self._claims.wanted_by(policy.key):
                if rival.row == spd.DEFAULT_ROW:
                    self._claims.withdraw(rival)
            if drop:
                self._claims.offer(policy)

    def peer(self, number: int) -> None:
        """A peer's row, or what it depends on, may be different."""
        row = self._configuration.row(PEERS, number)
        old = self._peers.get(number)
        new = None
        if row is not None and (row["ipsecPeerTrafficList"] or row["ipsecPeerVirtualInterface"] != NO_INTERFACE):
            phase1 = self._profiles.phase1(
                *(cells.number(row, f"ipsecPeer{name}") for name in ("IkeProfile", "IkeVersion", "AuthMethod"))
            )
            ikev2, in_turn = (self._configuration.scalar(name) == ON for name in (IKEV2_SWITCH, IN_TURN_SWITCH))
            new = read_peer(row, self._environment, phase1, ikev2, self._profiles.certificates, in_turn)
        self._todo.judge_peers.add(number)
        if new == old:
            return
        self._peers.put(number, new)
        self._interfaces.called(number, new)
        if any(each is not None and each.virtual for each in (old, new)):
            self._interfaces.touched.add(number)
        if old is None or new is None or old.head != new.head:
            self._lists.relist(number)
        if old is not None and new is not None and old.priority != new.priority:
            self._lists.reorder(number)
        self._todo.related.add(number)
        if old is not None and new is not None and old._replace(head=new.head, priority=new.priority) == new:
            return  # the rules that stay are as they were
        for rule in self._lists.chain(number).rules:
            self._todo.build[number, rule] = None
            self._todo.judge_rules.add(rule)

    def outside_list(self, owner: int) -> None:
        """The head of the pre or post list may be different."""
        self._lists.relist(owner)

    def rule(self, number: int) -> None:
        """A rule's row may be different."""
        self._lists.rule(number)

    def instance(self, owner: int, rule: int) -> None:
        """Something of the world changed that a rule in one list, or a virtual interface, depends on; rule 0: all of
        the list."""
        peer = self._peers.get(owner)
        if peer is not None and peer.virtual:
            self._interfaces.touched.add(owner)
            return
        for number in (rule,) if rule else self._lists.chain(owner).rules:
            if self._made.get((owner, number)) is not None:
                self._todo.build[owner, number] = None

    def flows_of(self, owner: int, rule: int) -> None:
        """Flows of a rule came up, moved or went; the rules of a peer that its tunnels stand for depend on them too."""
        self.instance(owner, rule)
        self._interfaces.resized.add(owner)
        for primary, backup in self._environment.takeovers.items():
            if backup == owner:
                self.takeover(primary, backup)

    def bound(self, key: int) -> None:
        """The interface with this index came or went, or (OWN_ADDRESS) the default route has another address."""
        for instance in self._bound.get(key):
            self.instance(*instance)

    def networks(self, peer: int) -> None:
        """Rows about the virtual interface of a peer may be different."""
        self._interfaces.touched.add(peer)

    def takeover(self, peer: int, backup: int) -> None:
        """A backup peer may stand for this one now, or no more, or be another than it was."""
        self._interfaces.touched |= {peer, backup}
        for rule in self._lists.chain(peer).rules:
            if self._made.get((peer, rule)) is not None:
                self._todo.build[peer, rule] = None

    def finish(self) -> Plan:
        """Do it all."""
        self._lists.settle()
        self._make_policies()
        self._interfaces.settle(self._peers)
        self._kinship.relate(self._peers)
        self._interfaces.clamp(self._todo.related | self._interfaces.resized, self._peers)
        self._judge()
        return self._result()

    # ---- policies ---------------------------------------------------------------------

    def _make_policies(self) -> None:
        entries = [
            (instance, self._with_outer(instance[0], rule), label) for instance, rule, label in self._lists.entries()
        ]
        placing, recheck = self._place(entries)
        for instance in self._todo.gone:
            made = self._made.get(instance)
            if made is not None:
                self._replace(instance, made, None)
        for instance, rule, label in entries:
            self._make(instance, rule, label, placing)
        for instance in recheck:
            made = self._made.get(instance)
            if made is None or placing is None or instance in self._todo.build:
                continue
            if not made.policies or made.policies[0].action is Action.BLOCK:
                continue
            if placing.companions(Entry(instance, made.rule, made.label)) != made.companions:
                self._make(instance, made.rule, made.label, placing)
        self._placing = placing
        for owner in self._sharing:
            self._share(owner)

    def _share(self, owner: int) -> None:
        """The child that all rules of a peer use, while there is one of them."""
        peer = self._peers.get(owner)
        name = numbers.child_name(owner, 0)
        if peer is not None and peer.single and peer.usable:
            phase2 = self._profiles.phase2(0, peer.ipsec_profile, peer.version)
            if not phase2.problem and any(self._protects(owner, rule) for rule in self._lists.chain(owner).rules):
                reqid = self._kinship.reqid(name)
                child = Child(name, owner, 0, reqid, phase2.compressed, phase2.heartbeats)
                self._kinship.set_child(owner, name, child, shared_child_settings(peer, phase2, reqid))
                return
        self._kinship.set_child(owner, name, None, None)

    def _protects(self, owner: int, rule: int) -> bool:
        made = self._made.get((owner, rule))
        return made is not None and made.rule.action == RuleAction.PROTECT and not made.rule.problem

    def _place(self, entries: list[tuple[Instance, Rule, int]]) -> tuple[Placing | None, set[Instance]]:
        """Bring `placing` up to date. Protect rules whose companions may have to move come with it."""
        gone: list[Entry] = []
        come: list[Entry] = []
        for instance in [*self._todo.gone, *self._todo.build]:
            made = self._made.get(instance)
            if made is not None and instance[0] > 0:
                gone.append(Entry(instance, made.rule, made.label))
        for instance, rule, label in entries:
            if instance[0] > 0:
                come.append(Entry(instance, rule, label))
        staying = set(map(_what_matters, gone)) & set(map(_what_matters, come))
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
            if _what_matters(entry) not in staying:
                recheck.update(self._concerned(placing, entry))
        for entry in come:
            placing.add(entry)
        for entry in come:
            if _what_matters(entry) not in staying:
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
        companions = (Companions(priority, priority),) * len(rule.parts)
        if owner > 0:
            companions = (behind_all(label),) * len(rule.parts)
            if placing is not None:
                companions = placing.companions(Entry(instance, rule, label))
        told = inbound.told(rule, self._environment.capabilities)
        policies: list[Policy] = []
        verdict: Verdict | None = None
        if rule.problem:
            verdict = Verdict(ApplyState.FAILED, rule.problem)
        elif rule.action == RuleAction.NOTHING:
            verdict = verdicts.OUT_OF_SERVICE
        elif rule.action != RuleAction.PROTECT:
            verdict = verdicts.of_world(owner, rule, self._environment)
            if told or rule.action == RuleAction.DROP or rule.direction == RuleDirection.OUTBOUND:
                policies = spd.plain(rule, max(owner, 0), priority, companions, inbound=told)
        elif owner < 0:
            verdict = verdicts.PROTECT_OUTSIDE
        else:
            way, verdict = self._way(owner, rule)
            if way is None:  # what blocks need not come before a drop rule, and would meet there what passes
                companions = (behind_all(label),) * len(rule.parts)
            policies = spd.protect(rule, owner, priority, companions, way, inbound=told)
            scopes = leaves_by(rule.interface), came_by(rule.interface)
            policies = flows.refined(policies, rule.parts, way, scopes, inbound=told)
        made = Made(rule, label, companions, spd.one_per_key(policies), verdict)
        self._replace(instance, self._made.get(instance), made)
        self._todo.judge_rules.add(rule.number)

    def _with_outer(self, owner: int, rule: Rule) -> Rule:
        """A rule as it stands in one list: with our outer address and the peer's, as far as they are known."""
        if owner < 0:
            others = rule.local.nets or rule.remote.nets
            family = len(others[0].address) if others else 4
            return with_outer(rule, self._environment.default_sources.get(family), None)
        peer = self._peers.get(owner)
        assert peer is not None
        protects = rule.action == RuleAction.PROTECT and not peer.single
        if protects and self._phase2(rule, peer).force_tunnel == ForceTunnel.GRE_INSIDE:
            rule = inside_gre(rule)
        if not rule.floats:
            return rule
        name = numbers.child_name(owner, 0 if peer.single else rule.number)
        tunnel = self._environment.tunnels.get(name) or next(iter(flows.standing(self._environment, name)[-1:]), None)
        if tunnel is not None:
            return with_outer(rule, tunnel.local, tunnel.remote)
        return with_outer(rule, peer.local, peer.remote)

    def _phase2(self, rule: Rule, peer: Peer) -> Phase2:
        return self._profiles.phase2(0 if peer.single else rule.profile, peer.ipsec_profile, peer.version)

    def _way(self, owner: int, rule: Rule) -> tuple[Way | None, Verdict | None]:
        """How a protect rule of a peer is to be made real; None when it has to block, and why. While a backup peer
        stands for the peer, by that one's tunnel for the same nets."""
        own = self._own_way(owner, rule)
        backup = self._environment.takeovers.get(owner)
        if backup is None:
            return own
        for number in self._lists.chain(backup).rules:
            other = self._lists.rules.get(number)
            if other is None or other.action != RuleAction.PROTECT:
                continue
            other = self._with_outer(backup, other)
            if (other.parts, other.interface) == (rule.parts, rule.interface):
                way, verdict = self._own_way(backup, other)
                return way, verdict or Verdict(ApplyState.APPLIED, f"peer {backup} stands for peer {owner}")
        text = f"its packets are dropped: peer {backup}, which stands for peer {owner}, has no rule for these nets"
        return None, Verdict(ApplyState.APPLIED, text)

    def _own_way(self, owner: int, rule: Rule) -> tuple[Way | None, Verdict | None]:
        """How a protect rule of a peer is to be made real by its own tunnel; None when it cannot be, and why."""
        peer = self._peers.get(owner)
        assert peer is not None
        own, shared = numbers.child_name(owner, rule.number), numbers.child_name(owner, 0)
        name = shared if peer.single else own
        phase2 = self._phase2(rule, peer)
        problem = phase2.problem or self._misfit(peer, phase2)
        told = inbound.told(rule, self._environment.capabilities)
        if peer.single or not peer.usable or problem or not told:
            self._kinship.set_child(owner, own, None, None)
        if not told:
            return None, verdicts.of_world(owner, rule, self._environment)
        if not peer.usable or problem:
            if problem and peer.usable:
                return None, Verdict(ApplyState.FAILED, f"{problem}; its packets are dropped")
            why = peer.verdict
            assert why is not None
            state = ApplyState.APPLIED if why.state is ApplyState.UNUSED else why.state
            return None, Verdict(state, f"{verdicts.DROPPED}: peer {owner}: {why.text}")
        reqid = self._kinship.reqid(name)
        fine = None
        if not peer.single:
            own_addresses = self._environment.own_addresses
            fine = flows.fine(name, phase2.granularity, flows.covered(rule), own_addresses, self._kinship.reqid)
            child = Child(name, owner, rule.number, reqid, phase2.compressed, phase2.heartbeats, fine=fine)
            settings = child_settings(rule, peer, phase2, 0 if fine is not None else reqid)
            self._kinship.set_child(owner, name, child, settings)
        standing = flows.standing(self._environment, name) if fine is not None else ()
        tunnel = standing[-1] if standing else self._environment.tunnels.get(name)
        split = None
        if fine is not None:
            split = spd.Split(standing, flows.asking(rule.parts, fine, standing))
            reqid = flows.asked_by(fine, standing)
        # who may come from anywhere shares its outer address with others, perhaps: there each SA is for its flow only
        lenient = fine is not None and peer.remote is not None
        if tunnel is not None:
            way = spd.way_of(tunnel, reqid)._replace(any_inward=lenient, split=split)
            way = way._replace(ipcomp=True) if phase2.compressed else way
            return way, verdicts.of_world(owner, rule, self._environment)
        if peer.remote is None:
            return None, verdicts.not_called(owner, bool(rule.parts))
        if peer.local is None:
            return None, Verdict(ApplyState.APPLIED, f"{verdicts.DROPPED}: peer {owner}: no route to it now")
        mode = spd.TUNNEL if peer.single or tunnels(rule, peer, phase2) else spd.TRANSPORT
        way = Way(peer.local, peer.remote, phase2.protocol, mode, False, reqid, lenient, split)
        return way, verdicts.of_world(owner, rule, self._environment)

    def _misfit(self, peer: Peer, phase2: Phase2) -> str:
        """Why phase 1 of the peer and this phase 2 do not go together."""
        if phase2.protocol != spd.AH:
            return ""
        phase1 = self._profiles.phase1(peer.ike_profile, peer.version, peer.method)
        return AH_IN_UDP if phase1.nat == NAT_ENFORCE else ""

    def _replace(self, instance: Instance, old: Made | None, new: Made | None) -> None:
        """Take back what a rule had in a list, bring what it has now."""
        before = {policy.key: policy for policy in old.policies} if old is not None else {}
        for policy in new.policies if new is not None else ():
            self._claims.offer(policy, before.pop(policy.key, None))
        for policy in before.values():
            self._claims.withdraw(policy)
        protected = old is not None and old.rule.action == RuleAction.PROTECT and instance[0] > 0
        protects = new is not None and new.rule.action == RuleAction.PROTECT and not new.rule.problem
        if protected and not protects:
            self._kinship.set_child(instance[0], numbers.child_name(*instance), None, None)
        if instance[0] > 0:
            self._sharing.add(instance[0])
            self._todo.judge_peers.add(instance[0])
        self._made.put(instance, new)
        if new is None:
            self._note_idle(*instance, False)
        for key in _bounds(instance, old):
            self._bound.toggle(key, instance, False)
        for key in _bounds(instance, new):
            self._bound.toggle(key, instance, True)

    # ---- verdicts ---------------------------------------------------------------------

    def _judge(self) -> None:
        for number in self._todo.judge_rules:
            self._verdicts.put(RowRef(TRAFFIC, number), self._rule_verdict(number))
        for ref, verdict in self._profiles.verdicts.items():
            self._verdicts.put(ref, verdict)
        for number in self._todo.judge_peers:
            self._verdicts.put(RowRef(PEERS, number), self._peer_verdict(number))

    def _peer_verdict(self, number: int) -> Verdict | None:
        peer = self._peers.get(number)
        if peer is None:
            return EMPTY_LIST if self._configuration.row(PEERS, number) is not None else None
        if peer.virtual:
            phase2 = self._profiles.phase2(0, peer.ipsec_profile, peer.version)
            problem = phase2.problem or self._misfit(peer, phase2)
            return Verdict(ApplyState.FAILED, problem) if peer.usable and problem else peer.verdict
        has_children, idle = self._kinship.has_children(number), set(self._idle.get(number))
        if has_children and not idle:
            return peer.verdict
        first, said = next(self._protecting(number), None), None
        if first is not None:
            said = first[0], verdicts.in_list(number, first[1], self._claims.policies, self._lists.chain(number))
        none_decides = all(rule in idle for rule, _ in self._protecting(number))
        return verdicts.of_peer(peer, has_children, none_decides, said)

    def _protecting(self, owner: int) -> Iterator[tuple[int, Made]]:
        """The protect rules of a list."""
        for number in self._lists.chain(owner).rules:
            made = self._made.get((owner, number))
            if made is not None and made.rule.action == RuleAction.PROTECT:
                yield number, made

    def _rule_verdict(self, number: int) -> Verdict | None:
        owners = sorted(self._lists.users.get(number), key=lambda owner: verdicts.turn(owner, self._peers.get(owner)))
        if not owners:
            return verdicts.NO_LIST if self._configuration.row(TRAFFIC, number) is not None else None
        found = []
        for owner in owners:
            made = self._made.get((owner, number))
            if made is None:
                continue
            verdict = verdicts.in_list(owner, made, self._claims.policies, self._lists.chain(owner))
            found.append(verdict)
            self._note_idle(owner, number, made.rule.action == RuleAction.PROTECT and verdicts.is_idle(verdict))
        return verdicts.of_rule(found)

    def _note_idle(self, owner: int, rule: int, idle: bool) -> None:
        """Whether this is a protect rule that decides about nothing here, of which the peer may have to tell."""
        if idle or self._idle.get(owner):
            self._idle.toggle(owner, rule, idle)
            self._todo.judge_peers.add(max(owner, 0))

    # ---- the plan ---------------------------------------------------------------------

    def _marking(self, bound: Mapping[int, tuple[Instance, ...]]) -> dict[str, Filter]:
        if self._previous is not None and not self._bound.touched and not self._interfaces.touched:
            kept = (inbound.PART, outbound.PART)
            return {name: wanted for name, wanted in self._previous.filters.items() if name in kept}
        if not self._environment.capabilities.nftables:
            return {}
        links = self._interfaces.links.done()
        port = daemon_settings(self._configuration).ike_port
        return inbound.wanted(bound, self._made, links) | outbound.wanted(bound, self._made, links, port)

    def _result(self) -> Plan:
        history: tuple[Touched, ...] = ()
        kinship, lists = self._kinship, self._lists
        bound = self._bound.done()
        if self._previous is not None:
            entry = Touched(
                self._previous.token,
                frozenset(self._claims.policies.before),
                frozenset(kinship.connections.before),
                frozenset(kinship.secrets.before),
                frozenset(self._verdicts.before),
            )
            history = (entry, *self._previous.history)[:REMEMBERED]
        made, clamped = self._interfaces.done()
        policies = self._claims.policies.done()
        state = State(
            profiles=self._profiles,
            rules=lists.rules.done(),
            peers=self._peers.done(),
            ordered=lists.ordered,
            chains=lists.chains.done(),
            users=lists.users.done(),
            waiting=lists.waiting.done(),
            made=self._made.done(),
            bound=bound,
            kin=kinship.done(),
            contested=self._claims.done(),
            placing=self._placing,
            drops=tuple(self._drops),
            next_reqid=kinship.next_reqid,
            virtual=made,
            clamped=clamped,
            idle=self._idle.done(),
        )
        return Plan(
            generation=self._configuration.generation,
            configuration=self._configuration,
            environment=self._environment,
            enabled=True,
            policies=policies,
            filters=self._interfaces.filters(policies.values()) | self._marking(bound),
            links=self._interfaces.links.done(),
            calls=self._interfaces.calls.done(),
            connections=kinship.connections.done(),
            secrets=kinship.secrets.done(),
            verdicts=self._verdicts.done(),
            reqids=kinship.reqids.done(),
            children=kinship.children.done(),
            daemon=daemon_settings(self._configuration),
            credentials=self._profiles.certificates.credentials,
            state=state,
            history=history,
            token=self._token,
        )


def _bounds(instance: Instance, made: Made | None) -> Iterator[int]:
    """What a rule in a list is bound to, as `State.bound` has it."""
    if made is None:
        return
    if made.rule.interface:
        yield made.rule.interface
    if instance[0] < 0 and made.rule.floats:
        yield OWN_ADDRESS


def _what_matters(entry: Entry) -> tuple[object, ...]:
    """What of a rule others' companions depend on."""
    rule = entry.rule
    return entry.instance, entry.label, rule.parts, rule.interface, rule.action, rule.direction, rule.problem
