"""Peers and their protect rules as connections for the IKE daemon, with everything that is inherited resolved.

Phase 1: the peer's profile, or the global one; a `default` in it means the global profile's
value, then the built-in one. Phase 2: the rule's profile, else the peer's, else the global
one, and the same for a `default` (it does not visit the peer's). Children carry `policies =
no` and a fixed reqid: the policies are ours. Nothing starts by itself (`start_action =
none`), the agent initiates. IKEv1 with pre-shared keys.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from agent.plan import cells, numbers
from agent.plan.capabilities import DEFAULT_GROUP, GROUPS
from agent.plan.identities import ANY
from agent.plan.model import (
    ApplyState,
    Capabilities,
    Child,
    ConfigurationView,
    Connection,
    Prefix,
    RowRef,
    RowView,
    Verdict,
    ViciValue,
)
from agent.plan.proposals import (
    IKE_PROPOSALS,
    IPSEC_PROPOSALS,
    SEEDED_ESP,
    SEEDED_IKE,
    ChainElement,
    chain_rows,
    group_problem,
    ike_element,
    ipsec_element,
)
from agent.plan.spd import AH, ESP, Rule

IKE_PROFILES: Final = "ikeProfileTable"
IPSEC_PROFILES: Final = "ipsecProfileTable"

PSK, DEFAULT_AUTH = 1, 14  # ikePrfAuthMethod
MAIN, AGGRESSIVE, DEFAULT_MODE, MAIN_ONLY, AGGRESSIVE_ONLY = 1, 2, 3, 4, 5  # ikePrfMode
LOOSE, INHERIT_LIFE = 1, 4  # ikePrfLifePolicy, ipsecPrfLifePolicy

BUILT_IN_SECONDS: Final = 900
BUILT_IN_PERCENT: Final = 80
LEAST_LEAD: Final = 2  # seconds between the beginning of a renewal and the end, at least
RANDOM_SHARE: Final = 20  # a twentieth of the lifetime is the spread of renewals

AUTH_NAMES: Final = {2: "DSA signatures", 3: "RSA signatures", 4: "RSA encryption"}


GUESSABLE: Final = Verdict(
    ApplyState.APPLIED,
    "aggressive mode is answered: who listens can guess at the pre-shared key offline; id-protect-only avoids it",
)


class Life(NamedTuple):
    """Lifetime in seconds (0: none), share of it in percent after which renewal begins, ikePrfLifePolicy's number."""

    seconds: int = BUILT_IN_SECONDS
    percent: int = BUILT_IN_PERCENT
    policy: int = LOOSE

    def renewal(self) -> int:
        """Seconds after which renewal begins."""
        return max(0, min(self.seconds * self.percent // 100, self.seconds - LEAST_LEAD))

    def spread(self) -> int:
        return self.seconds // RANDOM_SHARE


class Phase1(NamedTuple):
    """A phase 1 profile resolved. `settings`: keys of a connection that all its peers share. `answers_other`: it also
    answers in the other mode. `problem`: why no peer can use it."""

    aggressive: bool
    answers_other: bool
    local_id: str
    life: Life
    settings: Mapping[str, ViciValue]
    problem: str


class Phase2(NamedTuple):
    """A phase 2 profile resolved. `protocol` 50 or 51; `settings`: keys of a child that all its rules share."""

    protocol: int
    life: Life
    settings: Mapping[str, ViciValue]
    problem: str


def _first(rows: Iterable[RowView | None], column: str, inherit: Sequence[int], built_in: int) -> int:
    """The first row's value that does not mean `default`."""
    for row in rows:
        if row is not None and (value := cells.number(row, column)) not in inherit:
            return value
    return built_in


def _life(own: RowView | None, global_: RowView | None, prefix: str) -> Life:
    """The global profile's own numbers count; of another profile only with a policy of its own."""
    row = own
    if row is not None and cells.number(row, f"{prefix}LifePolicy") == INHERIT_LIFE:
        row = global_
    if row is None:
        return Life()
    policy = cells.number(row, f"{prefix}LifePolicy")
    return Life(
        cells.number(row, f"{prefix}LifeSeconds"),
        cells.number(row, f"{prefix}LifeRekeyPercent"),
        LOOSE if policy == INHERIT_LIFE else policy,
    )


class Profiles:
    """The profiles of one configuration, each resolved once. `verdicts`: of the rows looked at that have something to
    say."""

    def __init__(self, configuration: ConfigurationView, capabilities: Capabilities) -> None:
        self._configuration = configuration
        self._capabilities = capabilities
        self._global1 = self._row(IKE_PROFILES, self._scalar("ipsecGlobIkeProfile"))
        self._global2 = self._row(IPSEC_PROFILES, self._scalar("ipsecGlobIpsecProfile"))
        self._phase1: dict[int, Phase1] = {}
        self._phase2: dict[int, Phase2] = {}
        self.verdicts: dict[RowRef, Verdict] = {}

    def _row(self, table: str, number: int) -> RowView | None:
        return self._configuration.row(table, number) if number else None

    def _scalar(self, name: str) -> int:
        value = self._configuration.scalar(name)
        assert isinstance(value, int)
        return value

    def phase1(self, profile: int) -> Phase1:
        """`profile`: ipsecPeerIkeProfile."""
        found = self._phase1.get(profile)
        if found is None:
            found = self._phase1[profile] = self._resolve1(self._row(IKE_PROFILES, profile))
        return found

    def phase2(self, rule_profile: int, peer_profile: int) -> Phase2:
        """`rule_profile`: ipsecTrProfile, `peer_profile`: ipsecPeerIpsecProfile."""
        number = rule_profile or peer_profile
        found = self._phase2.get(number)
        if found is None:
            found = self._phase2[number] = self._resolve2(self._row(IPSEC_PROFILES, number))
        return found

    def _resolve1(self, own: RowView | None) -> Phase1:
        rows = (own, self._global1)
        own_or_global = own if own is not None else self._global1
        method = _first(rows, "ikePrfAuthMethod", (DEFAULT_AUTH,), PSK)
        mode = _first(rows, "ikePrfMode", (DEFAULT_MODE,), MAIN)
        group = _first(rows, "ikePrfGroup", (0,), 0)
        head = _first(rows, "ikePrfProposal", (0,), 0)
        life = _life(own_or_global, self._global1, "ikePrf")
        problem = "" if method == PSK else f"{AUTH_NAMES.get(method, 'this method')} is not supported yet"
        proposals = [f"{algorithms}-{GROUPS[DEFAULT_GROUP]}" for algorithms in SEEDED_IKE]
        problem = problem or group_problem(group)
        if head and not problem:
            rows_ = chain_rows(self._configuration, IKE_PROPOSALS, head, "ikePropNextChoice")
            elements = [ike_element(row, group, self._capabilities, method) for row in rows_]
            proposals = self._take(elements)
            problem = "" if proposals else "no proposal of its phase 1 chain can be used"
        elif group and not problem:
            proposals = [f"{algorithms}-{GROUPS[group]}" for algorithms in SEEDED_IKE]
        self._note_life(own, self._global1, "ikePrf", IKE_PROFILES)
        naming = next(
            (row for row in rows if row is not None and cells.number(row, "ikePrfMode") != DEFAULT_MODE), None
        )
        if naming is not None and mode != MAIN_ONLY:
            self.verdicts.setdefault(RowRef(IKE_PROFILES, naming.number), GUESSABLE)
        idle = self._scalar("ipsecGlobDPDIdleThreshold")
        patience = idle + self._scalar("ipsecGlobDPDMaxRetries") * self._scalar("ipsecGlobDPDRetryTimeout")
        settings: dict[str, ViciValue] = {
            "version": "1",
            "proposals": proposals,
            "unique": "no",
            "encap": "no",
            "mobike": "no",
            "keyingtries": "1",
            "dpd_delay": f"{idle}s",
            "dpd_timeout": f"{patience}s",
            "rekey_time": "0s",
            "reauth_time": f"{life.renewal()}s",
            "over_time": f"{life.seconds - life.renewal()}s",
            "rand_time": f"{life.spread()}s",
        }
        return Phase1(
            aggressive=mode in (AGGRESSIVE, AGGRESSIVE_ONLY),
            answers_other=mode in (MAIN, AGGRESSIVE),
            local_id=cells.text(own_or_global, "ikePrfLocalId") if own_or_global is not None else "",
            life=life,
            settings=settings,
            problem=problem,
        )

    def _resolve2(self, own: RowView | None) -> Phase2:
        rows = (own, self._global2)
        own_or_global = own if own is not None else self._global2
        head = _first(rows, "ipsecPrfProposal", (0,), 0)
        life = _life(own_or_global, self._global2, "ipsecPrf")
        protocol, offers, problem = ESP, list(SEEDED_ESP), ""
        if head:
            found = [
                ipsec_element(row, self._capabilities)
                for row in chain_rows(self._configuration, IPSEC_PROPOSALS, head, "ipsecPropNext")
            ]
            usable = [kind for kind, element in found if element.offers]
            protocol = ESP if ESP in usable else AH if AH in usable else ESP
            elements = [
                element if kind == protocol or element.problem else _beside_esp(element) for kind, element in found
            ]
            offers = self._take(elements)
            problem = "" if offers else "no proposal of its phase 2 chain can be used"
        self._note_life(own, self._global2, "ipsecPrf", IPSEC_PROFILES)
        settings: dict[str, ViciValue] = {
            "policies": "no",
            "start_action": "none",
            "close_action": "none",
            "dpd_action": "clear",
            "esp_proposals" if protocol == ESP else "ah_proposals": offers,
            "life_time": f"{life.seconds}s",
            "rekey_time": f"{life.renewal()}s",
            "rand_time": f"{life.spread()}s",
        }
        return Phase2(protocol, life, settings, problem)

    def _take(self, elements: Iterable[ChainElement]) -> list[str]:
        """The strings of a chain, each once; what its rows have to say is noted."""
        offers: dict[str, None] = {}
        for element in elements:
            offers |= dict.fromkeys(element.offers)
            if element.problem:
                self.verdicts[element.row] = Verdict(ApplyState.FAILED, element.problem)
            elif element.note:
                self.verdicts.setdefault(element.row, Verdict(ApplyState.APPLIED, element.note))
        return list(offers)

    def _note_life(self, own: RowView | None, global_: RowView | None, prefix: str, table: str) -> None:
        """A lifetime that was set but is not in use is told (decision 4 of the effects)."""
        if own is None or (global_ is not None and own.number == global_.number):
            return
        set_ = (cells.number(own, f"{prefix}LifeSeconds"), cells.number(own, f"{prefix}LifeRekeyPercent"))
        if cells.number(own, f"{prefix}LifePolicy") == INHERIT_LIFE and set_ != (BUILT_IN_SECONDS, BUILT_IN_PERCENT):
            text = "own lifetime is not in use: LifePolicy is use-default-lifetime"
            self.verdicts[RowRef(table, own.number)] = Verdict(ApplyState.UNUSED, text)


def _beside_esp(element: ChainElement) -> ChainElement:
    return ChainElement(element.row, (), "ESP is offered by another row of this chain, and then AH never is")


# ---- connections ------------------------------------------------------------------------


class Peer(NamedTuple):
    """What the plan needs of a row of ipsecPeerTable. `local`, `remote`: outer addresses, None where not known (yet).
    `usable`: its connection is loaded; else its protect rules block, and `verdict` says why. `name`: the host name
    `remote` comes from, '' for none. `identities`: what the peer may call itself, never empty when usable."""

    number: int
    priority: int
    head: int
    ike_profile: int
    ipsec_profile: int
    usable: bool
    verdict: Verdict | None
    local: bytes | None
    remote: bytes | None
    name: str
    local_id: str
    identities: tuple[str, ...]
    sealed: bytes


def address_text(address: bytes) -> str:
    return str(ipaddress.ip_address(address))


def traffic_selector(net: Prefix, protocol: int, port: int) -> str:
    """`10.1.0.0/16[17/53]`: numbers only, so that no file of names is needed on the host."""
    text = f"{address_text(net.address)}/{net.length}"
    if port:
        return f"{text}[{protocol}/{port}]"
    return f"{text}[{protocol}]" if protocol else text


def transport_suffices(rule: Rule, local: bytes | None, remote: bytes | None) -> bool:
    """Whether the rule covers just the two gateways (built-in value of ipsecPrfForceTunnelMode)."""
    source, destination = rule.outward.source, rule.outward.destination
    if local is None or remote is None:
        return False
    return (
        source.address == local
        and destination.address == remote
        and source.length == destination.length == len(local) * 8
    )


def child_settings(rule: Rule, peer: Peer, phase2: Phase2, reqid: int) -> dict[str, ViciValue]:
    """One child for load-conn."""
    outward = rule.outward
    return {
        **phase2.settings,
        "mode": "transport" if transport_suffices(rule, peer.local, peer.remote) else "tunnel",
        "reqid": str(reqid),
        "local_ts": [traffic_selector(outward.source, outward.protocol, outward.source_port.port)],
        "remote_ts": [traffic_selector(outward.destination, outward.protocol, outward.destination_port.port)],
    }


class Common(NamedTuple):
    """What the connections of a peer have in common."""

    phase1: Mapping[str, ViciValue]
    local: bytes | None
    remote: bytes | None
    local_id: str
    children: Mapping[str, ViciValue]


class PeerConnection(Connection):
    """A Connection that makes its settings when it is asked for them: there may be 100,000 peers, and what they have
    of their own is little."""

    __slots__ = ("_aggressive", "_common", "_identity")
    _aggressive: bool
    _common: Common
    _identity: str

    def __init__(
        self,
        name: str,
        peer: int,
        common: Common,
        identity: str,
        aggressive: bool,
        children: tuple[Child, ...],
        initiator: bool,
    ) -> None:
        for field, value in (
            ("name", name),
            ("peer", peer),
            ("_common", common),
            ("_identity", identity),
            ("_aggressive", aggressive),
            ("children", children),
            ("initiator", initiator),
        ):
            object.__setattr__(self, field, value)

    @property
    def settings(self) -> Mapping[str, ViciValue]:
        common = self._common
        local: dict[str, ViciValue] = {"auth": "psk"}
        if common.local_id:
            local["id"] = common.local_id
        return {
            **common.phase1,
            "local_addrs": [address_text(common.local) if common.local is not None else ANY],
            "remote_addrs": [address_text(common.remote) if common.remote is not None else ANY],
            "local": local,
            "remote": {"auth": "psk", "id": self._identity},
            "aggressive": "yes" if self._aggressive else "no",
            "children": common.children,
        }

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PeerConnection):
            return NotImplemented
        return (
            self.name == other.name
            and self._identity == other._identity
            and self._aggressive == other._aggressive
            and self.initiator == other.initiator
            and self._common == other._common
            and self.children == other.children
        )

    __hash__ = None  # type: ignore[assignment]


def connections(
    peer: Peer, phase1: Phase1, children: Mapping[str, ViciValue], details: tuple[Child, ...]
) -> list[Connection]:
    """The connections of a usable peer: one for each identity it may have, and each again for answering in the other
    phase 1 mode (the daemon picks by the mode of the first message)."""
    common = Common(phase1.settings, peer.local, peer.remote, peer.local_id, children)
    return [
        PeerConnection(
            numbers.connection_name(peer.number, identity=place, responder=responder),
            peer.number,
            common,
            identity,
            phase1.aggressive != responder,
            details,
            place == 1 and not responder,
        )
        for place, identity in enumerate(peer.identities, 1)
        for responder in (False, True)[: 1 + phase1.answers_other]
    ]
