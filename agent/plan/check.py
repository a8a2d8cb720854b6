"""Whether a SET may be: the guide's rules for the fields it names, what the engine lacks, and whom it would cut off.

Only values a SET names and changes are judged. A default the engine cannot do refuses no
row, and a SET that repeats what is there is a retry and is never refused. A text reads
`why; accepted: …`; object, instance and value are put before it by the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from types import MappingProxyType
from typing import Final

from agent.mib import load_schema
from agent.mib.ber import Value
from agent.plan import rules_interfaces
from agent.plan.capabilities import (
    AEAD_NAMES,
    AEADS,
    ALL_GROUPS,
    GROUPS,
    IKE_CIPHERS,
    IKE_HASHES,
    LACKING_HASHES,
    MODERN_GROUPS,
    can,
)
from agent.plan.certificates import CERTIFICATES
from agent.plan.connections import address_text
from agent.plan.daemon import MOST_LINES, MOST_RETRIES, SHORTEST_MILLISECONDS, port_problem
from agent.plan.explain import counting, explain_all, leaving, matching
from agent.plan.identities import IdentityError, identities, identity, is_group
from agent.plan.model import Action, Capabilities, ConfigurationView, Direction, Flow, Policy, RowChangeView
from agent.plan.peers import is_host_name, literal
from agent.plan.phase1 import AUTH_NAMES, DEFAULT_AUTH, PSK, RSA
from agent.plan.proposals import group_problem
from agent.plan.result import Plan
from agent.plan.rules import RULES, After, RowRule, listed_in
from agent.plan.selectors import bits, flow_bits, is_asked_early, overlap
from agent.plan.traffic import interface_problem, net_problem
from agent.plan.without_effect import REFUSED

LEAST_SECONDS: Final = 10  # a shorter life would end before its renewal
LEAST_KBYTES: Final = 100  # some seventy large packets
ACCEPTED_METHODS: Final = f"accepted: pre-sh-key({PSK}), rsa-sig({RSA}), default({DEFAULT_AUTH})"

Named = tuple[str, int, str, Value]
"""(table, row, column, value) of one varbind."""


class RuleError(Exception):
    """A SET that cannot be. `position`: of the varbind, 0-based."""

    def __init__(self, position: int, text: str) -> None:
        super().__init__(text)
        self.position = position
        self.text = text


# ---- single values ----------------------------------------------------------------------


def _method(value: Value, capabilities: Capabilities) -> str:
    reasons = {
        2: "no engine has DSA signatures",
        4: "RSA encryption would be taken for something else by the IKE daemon, no engine has it",
    }
    assert isinstance(value, int)
    return f"{reasons[value]}; {ACCEPTED_METHODS}" if value in reasons else ""


def _ike_cipher(value: Value, capabilities: Capabilities) -> str:
    assert isinstance(value, int)
    cipher = IKE_CIPHERS.get(value)
    if cipher is not None and can(capabilities.ike_ciphers, cipher):
        return ""
    why = "phase 1 is never without a cipher" if cipher is None else f"this engine has no {cipher}"
    have = [number for number, name in IKE_CIPHERS.items() if can(capabilities.ike_ciphers, name)]
    return f"{why}; accepted: {_labels('ikePropEncAlg', have)}"


def _ike_hash(value: Value, capabilities: Capabilities) -> str:
    assert isinstance(value, int)
    hash_ = IKE_HASHES.get(value)
    if value == 1 or (hash_ is not None and can(capabilities.ike_hashes, hash_)):
        return ""
    why = f"no engine has {LACKING_HASHES[value]}" if value in LACKING_HASHES else f"this engine has no {hash_}"
    if value == 2:
        why = "phase 1 is never without a hash"
    have = [number for number, name in IKE_HASHES.items() if can(capabilities.ike_hashes, name)]
    return f"{why}; accepted: {_labels('ikePropHashAlg', have)}"


def _labels(column: str, values: Iterable[int]) -> str:
    """Values as the MIB names them."""
    return ", ".join(map(load_schema().columns[column].show, values))


def _group(value: Value, capabilities: Capabilities) -> str:
    assert isinstance(value, int)
    if value in GROUPS and not can(capabilities.ike_groups, value):
        have = (number for number in GROUPS if can(capabilities.ike_groups, number))
        return f"this engine has no group {value}; accepted: {', '.join(map(str, have))}"
    if value in MODERN_GROUPS:
        return (
            f"{ALL_GROUPS[value]} is set in a column of its own; accepted: 0 (inherit), {', '.join(map(str, GROUPS))}"
        )
    return group_problem(value)


def _modern_group(value: Value, capabilities: Capabilities) -> str:
    assert isinstance(value, int)
    if not value or can(capabilities.ike_groups, value):
        return ""
    return f"this engine has no {ALL_GROUPS[value]}; accepted: {_labels('ipsecGwIkePropGroup', [0, *MODERN_GROUPS])}"


def _aead(value: Value, capabilities: Capabilities) -> str:
    assert isinstance(value, int)
    if value not in AEADS or can(capabilities.aeads, AEADS[value]):
        return ""
    have = [1, *(number for number, name in AEADS.items() if can(capabilities.aeads, name))]
    return f"this engine has no {AEAD_NAMES[AEADS[value]]}; accepted: {_labels('ipsecGwIkePropAead', have)}"


def _peer_method(value: Value, capabilities: Capabilities) -> str:
    if value == 2:
        return f"no engine has {AUTH_NAMES[value]}; accepted: {_labels('ipsecPeerAuthMethod', (PSK, RSA))}"
    return ""


def _proposal_method(value: Value, capabilities: Capabilities) -> str:
    if value in (2, 4):
        return f"no engine has {AUTH_NAMES[value]}; accepted: {_labels('ikePropAuthMethod', (1, 3, 33))}"
    return ""


def _pfs_group(value: Value, capabilities: Capabilities) -> str:
    """-1 is no PFS."""
    return _group(value, capabilities) if value != -1 else ""


def _seconds(value: Value, capabilities: Capabilities) -> str:
    if isinstance(value, int) and 0 < value < LEAST_SECONDS:
        return f"a key would be renewed all the time; accepted: 0 (no limit), {LEAST_SECONDS} and more seconds"
    return ""


def _kbytes(value: Value, capabilities: Capabilities) -> str:
    if isinstance(value, int) and 0 < value < LEAST_KBYTES:
        return f"a key would be renewed all the time; accepted: 0 (no limit), {LEAST_KBYTES} and more kBytes"
    return ""


def _protocol(value: Value, capabilities: Capabilities) -> str:
    if value == 3:
        return "the IKE daemon never makes ESP and AH together; accepted: esp(1), ah(2)"
    return ""


def _one_identity(value: Value, capabilities: Capabilities) -> str:
    return _identity_problem(value, lambda text: text and identity(text))


def _one_single_identity(value: Value, capabilities: Capabilities) -> str:
    """Of IKEv2."""
    problem = _one_identity(value, capabilities)
    assert isinstance(value, bytes)
    text = value.decode("utf-8", "replace").strip()
    if not problem and text and is_group(identity(text)):
        return "IKEv2 has no nets and ranges as identities; accepted: a single identity"
    return problem


def _some_identities(value: Value, capabilities: Capabilities) -> str:
    return _identity_problem(value, identities)


def _identity_problem(value: Value, read: Callable[[str], object]) -> str:
    assert isinstance(value, bytes)
    try:
        read(value.decode("utf-8").strip())
    except UnicodeDecodeError:
        return "not UTF-8; accepted: text"
    except IdentityError as error:
        return str(error)
    return ""


def _is_unicast(address: bytes) -> bool:
    if len(address) == 4:
        return 0 < address[0] < 224 and address[0] != 127
    return address[0] != 0xFF and any(address[:15])


def _peer_address(value: Value, capabilities: Capabilities) -> str:
    assert isinstance(value, bytes)
    text = value.decode("utf-8", "replace").strip()
    address = literal(text)
    if not text or (address is None and is_host_name(text) and not text.replace(".", "").isdigit()):
        return ""
    if address is not None and _is_unicast(address):
        return ""
    return "no gateway can be there; accepted: an address of one host, a host name, or empty where the peer calls us"


def _own_address(value: Value, capabilities: Capabilities) -> str:
    assert isinstance(value, bytes)
    if value == bytes(4) or _is_unicast(value):
        return ""
    return "no tunnel can begin there; accepted: an address of this host, 0.0.0.0 for that of the route"


def _port(value: Value, capabilities: Capabilities) -> str:
    assert isinstance(value, int)
    return port_problem(value)


def _within(low: int, high: int, why: str, unit: str = "") -> Callable[[Value, Capabilities], str]:
    """Between two bounds of ours, where the MIB has none."""

    def problem(value: Value, capabilities: Capabilities) -> str:
        assert isinstance(value, int)
        return "" if low <= value <= high else f"{why}; accepted: {low}..{high}{unit}"

    return problem


def _mask(value: Value, capabilities: Capabilities) -> str:
    assert isinstance(value, int)
    return net_problem(bytes(4), value)


def _interface(value: Value, capabilities: Capabilities) -> str:
    assert isinstance(value, int)
    return interface_problem(value)


VALUES: Final[Mapping[str, Callable[[Value, Capabilities], str]]] = MappingProxyType(
    {
        "ipsecGlobIkePort": _port,
        "ipsecGlobMaxRetries": _within(0, MOST_RETRIES, "a peer that is dead would never be given up"),
        "ipsecGlobRetryTimeout0milli": _within(
            SHORTEST_MILLISECONDS, 600_000, "repetitions would flood the peer, or never come", " ms"
        ),
        "ipsecGlobRetryTimeoutMaxsec": _within(0, 86_400, "no time between two repetitions", " s, 0 for no bound"),
        "ipsecTuneSAIHashLines": _within(1, MOST_LINES, "no size of the table of IKE SAs"),
        "ikePrfAuthMethod": _method,
        "ikePrfGroup": _group,
        "ikePrfLifeSeconds": _seconds,
        "ikePrfLocalId": _one_identity,
        "ikev2PrfLifeSeconds": _seconds,
        "ikePropAuthMethod": _proposal_method,
        "ikePropEncAlg": _ike_cipher,
        "ipsecGwIkePropAead": _aead,
        "ipsecGwIkePropGroup": _modern_group,
        "ipsecGwIkePrfGroup": _modern_group,
        "ipsecGwIpsecPropAead": _aead,
        "ipsecGwIpsecPrfPfsGroup": _modern_group,
        "ikePropGroup": _group,
        "ikePropHashAlg": _ike_hash,
        "ipsecGlobContDefaultPmtuTtl": rules_interfaces.minutes,
        "ipsecGlobContPrivateInterface": rules_interfaces.private_interface,
        "ipsecPeerDynamicAddress": _peer_address,
        "ipsecPeerLocalAddress": _own_address,
        "ipsecPeerAuthMethod": _peer_method,
        "ipsecPeerLocalId": _one_single_identity,
        "ipsecPeerPeerIds": _some_identities,
        "ipsecPeerTrafficLocalMask": rules_interfaces.dotted_mask,
        "ipsecPeerTrafficProtocol": rules_interfaces.selector_protocol,
        "ipsecPeerTrafficRemoteMask": rules_interfaces.dotted_mask,
        "ipsecPrfLifeKBytes": _kbytes,
        "ipsecPrfLifeSeconds": _seconds,
        "ipsecPrfPfsGroup": _pfs_group,
        "ipsecPropProto": _protocol,
        "ipsecTrInterface": _interface,
        "ipsecTrLocalMaskLen": _mask,
        "ipsecTuneIPFragMaxBytes": rules_interfaces.memory,
        "ipsecTrRemoteMaskLen": _mask,
        **REFUSED,
    }
)
"""What is wrong with a value by itself, by column."""

ROW_RULES: Final[Mapping[str, tuple[RowRule, ...]]] = MappingProxyType(
    {
        table: (*RULES.get(table, ()), *rules_interfaces.INTERFACE_RULES.get(table, ()))
        for table in {**RULES, **rules_interfaces.INTERFACE_RULES}
    }
)


# ---- all of a SET --------------------------------------------------------------------------


def check_rules(
    before: ConfigurationView,
    after: ConfigurationView,
    changes: Sequence[RowChangeView],
    named: Sequence[Named],
    capabilities: Capabilities,
) -> None:
    """Judge a SET by the guide's rules and by what the engine can do. Raises RuleError for the first misfit."""
    changed = {(change.table, change.number): change for change in changes}
    for position, (table, number, column, value) in enumerate(named):
        change = changed.get((table, number))
        if change is None or column not in change.columns or column not in VALUES:
            continue
        if change.before is not None and change.before[column] == value:
            continue
        text = VALUES[column](value, capabilities)
        if text:
            raise RuleError(position, text)
    surrounding = After(after, before, changes)
    names_of: dict[tuple[str, int], set[str]] = {}  # a load names a hundred thousand values
    for table, number, column, _ in named:
        if table in ROW_RULES:
            names_of.setdefault((table, number), set()).add(column)
    for (table, number), change in changed.items():
        row = change.after
        names = names_of.get((table, number), set())
        if table == CERTIFICATES and row is None and (user := listed_in(after, number)):
            named_at = _position(named, table, number, ())
            raise RuleError(
                named_at, f"the row is in use by {user}; accepted: deleting it once {user} does not name it"
            )
        if row is None or not names:
            continue  # it is gone, or follows from what another row's varbinds did
        for columns, problem in ROW_RULES.get(table, ()):
            asked = change.before is None or not names.isdisjoint(columns)
            if not asked or change.columns.isdisjoint(columns):
                continue
            text = problem(row, surrounding)
            if text:
                raise RuleError(_position(named, table, number, columns), text)


def _position(named: Sequence[Named], table: str, number: int, columns: tuple[str, ...]) -> int:
    """Where a SET names one of these columns of a row, else the row at all."""
    of_row = [(place, column) for place, (t, n, column, _) in enumerate(named) if (t, n) == (table, number)]
    for wanted in columns:
        for place, column in of_row:
            if column == wanted:
                return place
    return of_row[0][0] if of_row else 0


# ---- lock-out ---------------------------------------------------------------------------


def check_lockout(plan_before: Plan, plan_after: Plan, flows: Sequence[Flow]) -> str:
    """Which of these flows, packets arriving here, would be cut, by which rule; '' when none that got through before
    is.

    A flow is its packets in and the answers out. It gets through in plain or in one tunnel, and is cut when that is
    no longer so: a station that is asked to come through a tunnel from now on has lost its way too. Flows that no
    touched policy matches are not looked at further.
    """
    suspects = [flow for flow in dict.fromkeys(flows) if flow.way == "in"]
    if not suspects or plan_before is plan_after:
        return ""
    pairs = [(flow, _answer(flow)) for flow in suspects]
    if plan_before.enabled and plan_after.enabled:
        touched = plan_after.touched_since(plan_before)
        if touched is not None:
            policies = [
                policy
                for key in touched.policies
                for policy in (plan_before.policies.get(key), plan_after.policies.get(key))
                if policy is not None
            ]
            pairs = [pair for pair in pairs if _met_by(pair, policies)]
    if not pairs:
        return ""
    found_before, found_after = _ways(plan_before, pairs), _ways(plan_after, pairs)
    for pair, ways_before, ways_after in zip(pairs, found_before, found_after, strict=True):
        if CUT not in ways_before and ways_before != ways_after:
            return _tell(plan_after, pair, ways_before, ways_after)
    return ""


CUT: Final = -1
PLAIN: Final = 0


def _ways(plan: Plan, pairs: Sequence[tuple[Flow, Flow]]) -> list[list[int]]:
    """How packets and answers get through."""
    if not plan.enabled:
        return [[PLAIN, PLAIN] for _ in pairs]
    wanted = [[(flow_bits(packet), (Direction.IN,)), *leaving(answer, plan)] for packet, answer in pairs]
    found = iter(matching(plan, [one for several in wanted for one in several]))
    ways = []
    for several in wanted:
        comes, *goes = islice(found, len(several))
        ways.append([_way(comes.get(Direction.IN)), _way(counting(goes).get(Direction.OUT))])
    return ways


def _way(policy: Policy | None) -> int:
    """How packets under a policy get through: PLAIN, the number of a peer, or CUT."""
    if policy is None:
        return PLAIN
    if policy.action is Action.BLOCK:
        return CUT
    return policy.peer if policy.templates else PLAIN


def _answer(flow: Flow) -> Flow:
    return flow._replace(
        source=flow.destination,
        destination=flow.source,
        source_port=flow.destination_port,
        destination_port=flow.source_port,
        way="out",
        from_interface=0,
        to_interface=flow.from_interface,
    )


def _met_by(pair: tuple[Flow, Flow], policies: Sequence[Policy]) -> bool:
    packets = {Direction.IN: [flow_bits(pair[0])], Direction.OUT: [flow_bits(pair[1])], Direction.FWD: []}
    if is_asked_early(pair[1]):
        packets[Direction.OUT].append(flow_bits(pair[1], again=True))
    return any(
        overlap(bits(policy.key.selector, policy.key.scope), packet)
        for policy in policies
        for packet in packets[policy.key.direction]
    )


def _tell(plan: Plan, pair: tuple[Flow, Flow], before: Sequence[int], after: Sequence[int]) -> str:
    place = 0 if before[0] != after[0] else 1
    flow = pair[place]
    told = explain_all(plan, (flow._replace(decrypted=before[0] if place == 0 else 0),))[0]
    ends = ((flow.source, flow.source_port), (flow.destination, flow.destination_port))
    what = " to ".join(
        f"{address_text(address)} port {port}" if port else address_text(address) for address, port in ends
    )
    names = {1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6"}
    protocol = names.get(flow.protocol, f"protocol {flow.protocol}")
    return f"this would cut {protocol} {what}, {told.text}"
