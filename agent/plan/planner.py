"""Configuration in, plan out: whole, or only what a change touches.

`make_plan` decides how much has to be looked at. What a rule, a list, a peer or the default
rule says is looked at one by one; a changed profile, proposal, capability or own address
may concern everybody, and everybody is looked at. Either way priorities and reqids stay
with those who have them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeVar

from agent.plan import numbers
from agent.plan.certificates import CERTIFICATES, KEYS
from agent.plan.chains import POST, PRE
from agent.plan.daemon import daemon_settings
from agent.plan.draft import Draft
from agent.plan.model import ConfigurationView, Environment, RowChangeView
from agent.plan.peer_selectors import PEER_TRAFFIC
from agent.plan.peers import PEERS
from agent.plan.profiles import Profiles
from agent.plan.result import Delta, Plan, SwitchedOff, difference
from agent.plan.spd import TRAFFIC
from agent.plan.state import OWN_ADDRESS
from agent.plan.virtual import PEER_ADDRESSES, PEER_ROUTES, peer_of_row

__all__ = ["Delta", "Plan", "difference", "make_plan"]

K = TypeVar("K")
V = TypeVar("V")

SWITCH: Final = "ipsecGlobEnabled"
ON: Final = 1
CONCERN_ALL: Final = frozenset(
    {
        *("ikeProposalTable", "ikeProfileTable", "ikev2ProfileTable", "ipsecProposalTable", "ipsecProfileTable"),
        *(CERTIFICATES, KEYS),
    }
)
CONCERN_NOBODY: Final = frozenset({"certUptodate", "certDescription", "ipsecGwCertificateRowGeneration"})
"""Columns of these tables that mean nothing to a plan; the first changes with the calendar."""
SCALAR_GROUPS: Final = frozenset({"ipsecGlobals", "ipsecGlobalsContinued"})
SCALARS_FOR_ALL: Final = frozenset(
    {
        SWITCH,
        "ipsecGlobIkePort",
        "ipsecGlobIkeProfile",
        "ipsecGlobIpsecProfile",
        "ipsecGlobDPDIdleThreshold",
        "ipsecGlobDPDMaxRetries",
        "ipsecGlobDPDRetryTimeout",
        "ipsecGlobContHeartbeatInterval",
        "ipsecGlobContHeartbeatTolerance",
        "ipsecGlobContMobikeFactor",
        "ipsecGlobIkev2Enabled",
        "ipsecGlobContIkev2Profile",
        "ipsecGlobMaxKeyLength",
        "ipsecGlobContSupportVarKeyLength4Twofish",
        "ipsecGlobNoInitialContact",
        "ipsecGlobContDnsSelectRoundRobin",
        "ipsecGlobContHwAccel",
        "ipsecGlobIgnoreCrPayloads",
        "ipsecGlobNoCrPayloads",
        "ipsecGlobSendFullCertChains",
    }
)
NETWORK_TABLES: Final = frozenset({PEER_TRAFFIC, PEER_ADDRESSES, PEER_ROUTES})
LISTS: Final = {"ipsecGlobContPreIpsecRules": PRE, "ipsecGlobContPostIpsecRules": POST}
DEFAULT_RULE: Final = "ipsecGlobContDefaultRule"


def make_plan(
    configuration: ConfigurationView,
    environment: Environment,
    previous: Plan | None = None,
    changes: Sequence[RowChangeView] | None = None,
) -> Plan:
    """The plan for a configuration in a world.

    With `previous`, the plan of an earlier configuration, and `changes`, all rows that differ from it, only these
    and what of the world differs are looked at; without `changes` everything is. Configuration and world must not
    change while the plan lives.
    """
    if configuration.scalar(SWITCH) != ON:
        daemon = daemon_settings(configuration)
        return Plan(configuration.generation, configuration, environment, False, verdicts=SwitchedOff(), daemon=daemon)
    if previous is None or changes is None or previous.state is None or _concerns_all(previous, environment, changes):
        return _whole(configuration, environment, previous)
    return _next(configuration, environment, previous, changes)


def _whole(configuration: ConfigurationView, environment: Environment, earlier: Plan | None) -> Plan:
    draft = Draft(configuration, environment, Profiles(configuration, environment.capabilities), None)
    draft.keep(earlier)
    draft.standing_policies()
    for owner in LISTS.values():
        draft.outside_list(owner)
    for row in configuration.rows(PEERS):
        draft.peer(row.number)
    for row in configuration.rows(TRAFFIC):
        draft.rule(row.number)
    return draft.finish()


def _next(
    configuration: ConfigurationView, environment: Environment, previous: Plan, changes: Sequence[RowChangeView]
) -> Plan:
    assert previous.state is not None
    draft = Draft(configuration, environment, previous.state.profiles, previous)
    for change in changes:
        if change.table == TRAFFIC:
            draft.rule(change.number)
        elif change.table == PEERS:
            draft.peer(change.number)
        elif change.table in NETWORK_TABLES:
            for peer in {peer_of_row(row, change.table) for row in (change.before, change.after)}:
                draft.networks(peer)
                draft.networks(environment.takeovers.get(peer, 0))
        elif change.table in SCALAR_GROUPS:
            for name, owner in LISTS.items():
                if name in change.columns:
                    draft.outside_list(owner)
            if DEFAULT_RULE in change.columns:
                draft.default_rule()
    _look_at_world(draft, environment, previous)
    return draft.finish()


def _concerns_all(previous: Plan, environment: Environment, changes: Iterable[RowChangeView]) -> bool:
    known = previous.environment
    if environment.capabilities != known.capabilities or environment.own_addresses != known.own_addresses:
        return True
    if environment.link_addresses != known.link_addresses:
        return True
    return any(
        (change.table in CONCERN_ALL and not change.columns <= CONCERN_NOBODY)
        or (change.table in SCALAR_GROUPS and not change.columns.isdisjoint(SCALARS_FOR_ALL))
        for change in changes
    )


def _look_at_world(draft: Draft, environment: Environment, previous: Plan) -> None:
    """Have looked at what differs because tunnels, resolved names or routes do."""
    known = previous.environment
    assert previous.state is not None
    for child in _different(known.tunnels, environment.tunnels):
        draft.instance(*numbers.peer_and_rule_of_child(child))
    for child in _different(known.flows, environment.flows):
        draft.flows_of(*numbers.peer_and_rule_of_child(child))
    for number in _different(known.turns, environment.turns):
        draft.peer(number)
    for takeovers in (known.takeovers, environment.takeovers):  # who stood for it until now, and who does from now on
        for primary, backup in takeovers.items():
            draft.takeover(primary, backup)
    for index in known.interfaces.keys() ^ environment.interfaces.keys():
        draft.bound(index)
    if known.default_sources != environment.default_sources:
        draft.bound(OWN_ADDRESS)
    names = _different(known.names, environment.names)
    routes = _different(known.sources, environment.sources)
    if names or routes:
        for peer in previous.state.peers.values():
            if peer.name in names or (peer.remote is not None and peer.remote in routes):
                draft.peer(peer.number)


def _different(old: Mapping[K, V], new: Mapping[K, V]) -> set[K]:
    """Keys the two do not hold alike; nothing when they are one and the same."""
    if old is new:
        return set()
    return {key for key, value in new.items() if old.get(key) != value} | {key for key in old if key not in new}
