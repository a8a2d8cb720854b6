"""Peers and their protect rules as connections for the IKE daemon.

Children carry a fixed reqid. A peer has one connection for each identity it may have, and
each again for answering in the other phase 1 mode.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Final, NamedTuple

from agent.plan import liveness, numbers
from agent.plan.certificates import Proof
from agent.plan.identities import ANY
from agent.plan.model import Child, Connection, Prefix, Verdict, ViciValue
from agent.plan.phase1 import NAT_DISABLED, Phase1
from agent.plan.phase2 import ForceTunnel, Phase2
from agent.plan.proposals import V1, V2
from agent.plan.traffic import Rule, Side, SideKind, covers_gateways

EVERYTHING: Final = ("0.0.0.0/0", "::/0")
IDLE_SECONDS: Final = 300
"""After which the SAs of a flow are closed that nobody uses; sooner where the profile's lifetime says so."""


class Peer(NamedTuple):
    """What the plan needs of a row of ipsecPeerTable. `local`, `remote`: outer addresses, None where not known (yet).
    `usable`: its connection is loaded; else its protect rules block, and `verdict` says why. `name`: the host name
    `remote` comes from, '' for none. `identities`: what the peer may call itself, never empty when usable. `version`,
    `method`: ipsecPeerIkeVersion, ipsecPeerAuthMethod. `single`: one child for all rules. `roams`: `local` is only
    where it is now, and the tunnel follows when that changes. `virtual`: it has an interface instead of rules. `call`:
    the link it is called through whatever the routes say, 0 for none. `others`: more addresses of its name. `proof`:
    with signatures, None for a pre-shared key; `forced`: per identity certificates that are accepted as they are, in
    place of any authority."""

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
    version: int = V1
    method: int = 0
    mobike: bool = False
    roams: bool = False
    always_up: bool = False
    single: bool = False
    virtual: bool = False
    call: int = 0
    others: tuple[bytes, ...] = ()
    proof: Proof | None = None
    forced: tuple[tuple[str, ...], ...] = ()


def address_text(address: bytes) -> str:
    return str(ipaddress.ip_address(address))


def traffic_selector(net: Prefix, protocol: int, port: int) -> str:
    """`10.1.0.0/16[17/53]`: numbers only, so that no file of names is needed on the host."""
    text = f"{address_text(net.address)}/{net.length}"
    if port:
        return f"{text}[{protocol}/{port}]"
    return f"{text}[{protocol}]" if protocol else text


def side_selector(side: Side, protocol: int, port: int) -> str:
    """A net, a range `10.1.0.5-10.1.0.9` as it is, an outer address as the word for whatever it turns out to be."""
    if side.kind == SideKind.OUTER:
        text = "dynamic"
    elif side.last:
        text = f"{address_text(side.first)}-{address_text(side.last)}"
    else:
        return traffic_selector(side.nets[0], protocol, port)
    if port:
        return f"{text}[{protocol}/{port}]"
    return f"{text}[{protocol}]" if protocol else text


def tunnels(rule: Rule, peer: Peer, phase2: Phase2) -> bool:
    """Whether tunnel mode is asked for: always, or where the rule covers more than the two gateways."""
    if phase2.force_tunnel == ForceTunnel.ALWAYS:
        return True
    return not covers_gateways(rule, peer.local, peer.remote)


def child_settings(rule: Rule, peer: Peer, phase2: Phase2, reqid: int) -> dict[str, ViciValue]:
    """One child for load-conn; `reqid` as of `numbered`."""
    return {
        **phase2.settings,
        **numbered(peer, phase2, reqid),
        "mode": "tunnel" if tunnels(rule, peer, phase2) else "transport",
        "local_ts": [side_selector(rule.local, rule.protocol, rule.local_port.port)],
        "remote_ts": [side_selector(rule.remote, rule.protocol, rule.remote_port.port)],
    }


def numbered(peer: Peer, phase2: Phase2, reqid: int) -> dict[str, ViciValue]:
    """The reqid of a child, and when it lapses. Without one, 0, each selector that is negotiated gets one from the
    daemon, and SAs that nobody uses lapse, as those of flows have to."""
    if reqid:
        return {**lapse(peer, phase2), "reqid": str(reqid)}
    return {"inactivity": f"{min(phase2.idle or IDLE_SECONDS, IDLE_SECONDS)}s"}


def shared_child_settings(peer: Peer, phase2: Phase2, reqid: int) -> dict[str, ViciValue]:
    """One child for all rules of a peer (ipsecPeerChildAllocMode single): it carries everything, and the policies
    decide what goes through it."""
    return {
        **phase2.settings,
        **lapse(peer, phase2),
        "mode": "tunnel",
        "reqid": str(reqid),
        "local_ts": list(EVERYTHING),
        "remote_ts": list(EVERYTHING),
    }


def lapse(peer: Peer, phase2: Phase2) -> dict[str, ViciValue]:
    """A tunnel that nobody uses lapses, unless it has to stand without traffic."""
    return {"inactivity": f"{phase2.idle}s"} if phase2.idle and not peer.always_up else {}


class Common(NamedTuple):
    """What the connections of a peer have in common. `own`: what of phase 1 depends on the peer, before `phase1`."""

    phase1: Mapping[str, ViciValue]
    own: Mapping[str, ViciValue]
    local: bytes | None
    remote: bytes | None
    local_id: str
    children: Mapping[str, ViciValue]
    others: tuple[bytes, ...] = ()
    proof: Proof | None = None


class PeerConnection(Connection):
    """A Connection that makes its settings when it is asked for them: there may be 100,000 peers, and what they have
    of their own is little."""

    __slots__ = ("_aggressive", "_common", "_forced", "_identity")
    _aggressive: bool
    _forced: tuple[str, ...]
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
        nat: bool,
        forced: tuple[str, ...] = (),
    ) -> None:
        for field, value in (
            ("name", name),
            ("peer", peer),
            ("_common", common),
            ("_identity", identity),
            ("_aggressive", aggressive),
            ("children", children),
            ("initiator", initiator),
            ("nat", nat),
            ("_forced", forced),
        ):
            object.__setattr__(self, field, value)

    @property
    def settings(self) -> Mapping[str, ViciValue]:
        common = self._common
        local: dict[str, ViciValue] = {"auth": "psk"}
        remote: dict[str, ViciValue] = {"auth": "psk", "id": self._identity}
        requests: Mapping[str, ViciValue] = {}
        if common.proof is not None:
            requests = signed(common.proof, self._forced, local, remote)
        if common.local_id:
            local["id"] = common.local_id
        return {
            **common.phase1,
            **requests,
            **common.own,
            "local_addrs": [address_text(common.local) if common.local is not None else ANY],
            "remote_addrs": [address_text(common.remote), *map(address_text, common.others)]
            if common.remote
            else [ANY],
            "local": local,
            "remote": remote,
            "aggressive": "yes" if self._aggressive else "no",
            "children": common.children,
        }

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PeerConnection):
            return NotImplemented
        return (
            self.name == other.name
            and self._identity == other._identity
            and self._forced == other._forced
            and self._aggressive == other._aggressive
            and self.initiator == other.initiator
            and self.nat == other.nat
            and self._common == other._common
            and self.children == other.children
        )

    __hash__ = None  # type: ignore[assignment]


def signed(
    proof: Proof, forced: tuple[str, ...], local: dict[str, ViciValue], remote: dict[str, ViciValue]
) -> dict[str, ViciValue]:
    """Has both sides authenticate by signatures; the keys of the connection that go with it. A certificate that is
    trusted as it is has no authority above it."""
    local["auth"] = remote["auth"] = "pubkey"
    if proof.certificate is not None:
        local["certs"] = [proof.certificate.pem]
    if forced:
        remote["certs"] = list(forced)
    elif proof.authorities:
        remote["cacerts"] = list(proof.authorities)
    return {"send_cert": "always" if proof.always else "ifasked", "send_certreq": "yes" if proof.asks else "no"}


def own_settings(peer: Peer, phase1: Phase1, details: tuple[Child, ...]) -> Mapping[str, ViciValue]:
    """What of phase 1 is not the same for all peers of a profile: how it is found to be dead, and MOBIKE."""
    if phase1.version == V2:
        return liveness.version2(phase1.probing, phase1.alive, peer.mobike and phase1.nat != NAT_DISABLED)
    wish = liveness.strongest((phase1.heartbeats, *(child.heartbeats for child in details)))
    return liveness.version1(phase1.probing, wish)


def connections(
    peer: Peer, phase1: Phase1, children: Mapping[str, ViciValue], details: tuple[Child, ...]
) -> list[Connection]:
    """The connections of a usable peer: one for each identity it may have, and each again for answering in the other
    phase 1 mode (the daemon picks by the mode of the first message)."""
    local = None if peer.roams else peer.local
    own = own_settings(peer, phase1, details)
    common = Common(phase1.settings, own, local, peer.remote, peer.local_id, children, peer.others, peer.proof)
    return [
        PeerConnection(
            numbers.connection_name(peer.number, identity=place, responder=responder),
            peer.number,
            common,
            identity,
            phase1.aggressive != responder,
            details,
            place == 1 and not responder,
            phase1.nat != NAT_DISABLED,
            peer.forced[place - 1] if peer.forced else (),
        )
        for place, identity in enumerate(peer.identities, 1)
        for responder in (False, True)[: 1 + phase1.answers_other]
    ]
