"""A peer's row seen against the world: its addresses, its identities, and whether its tunnels can be made."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from agent.plan import cells
from agent.plan.certificates import Certificate, Certificates, Proof
from agent.plan.connections import Peer, address_text
from agent.plan.identities import ANY, IdentityError, dn_key, identities, identity, is_group
from agent.plan.model import ApplyState, Environment, RowView, Verdict
from agent.plan.numbers import LAST_WITH_INTERFACE, MOST_PEER_IDS
from agent.plan.phase1 import NAT_DISABLED, PSK, RSA, Phase1
from agent.plan.proposals import V1, V2

PEERS: Final = "ipsecPeerTable"
DOWN: Final = 2  # ipsecPeerAdminStatus
MOBIKE: Final = 1  # ipsecPeerMobike enabled
SINGLE: Final = 2  # ipsecPeerChildAllocMode
NO_INTERFACE: Final = 1  # ipsecPeerVirtualInterface disabled
ALWAYS_UP: Final = 2  # ipsecPeerStartMode
FORCE: Final = 1  # ipsecPeerPublicIfIndexMode
NOWHERE: Final = bytes(4)

SUBJECT_TOLD: Final = "the peer is told its subject instead"
NO_GROUPS: Final = "nets and ranges are identities of IKEv1 only"
EMPTY_LIST: Final = Verdict(ApplyState.UNUSED, "its traffic list is empty")
IKEV2_OFF: Final = Verdict(ApplyState.UNUSED, "IKEv2 is switched off (ipsecGlobIkev2Enabled); its protect rules block")
NO_KEY: Final = Verdict(ApplyState.FAILED, "no pre-shared key; set ipsecPeerPreSharedKey")
IS_DOWN: Final = Verdict(ApplyState.APPLIED, "administratively down; its protect rules block")
CALLED: Final = Verdict(ApplyState.APPLIED, "no address: it has to call us; until then its protect rules block")
WAITS: Final = Verdict(ApplyState.APPLIED, "always-up waits for the peer to call: no address is known")
NEEDS_AGGRESSIVE: Final = Verdict(
    ApplyState.APPLIED, "main mode with a pre-shared key needs the peer's address; accepted without: aggressive mode"
)

_HOST_NAME: Final = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,62}))*\.?"
)


def literal(text: str) -> bytes | None:
    """Packed octets of an address in text; None for anything else."""
    try:
        return ipaddress.ip_address(text).packed
    except ValueError:
        return None


def is_host_name(text: str) -> bool:
    """Whether a resolver would be asked for it (RFC 1123 2.1, and underscores)."""
    return _HOST_NAME.fullmatch(text) is not None


def _failed(text: str) -> Verdict:
    return Verdict(ApplyState.FAILED, text)


def remotes_of(row: RowView, environment: Environment, in_turn: bool) -> tuple[tuple[bytes, ...], Verdict | None]:
    """The outer addresses of a peer, the one to be called first, and what there is to say: ((), None) is a peer that
    has to call us. `in_turn`: after a failed attempt the next one of its name is called."""
    text = cells.text(row, "ipsecPeerDynamicAddress")
    if not text:
        return (), None
    address = literal(text)
    if address is not None:
        return (address,), None
    found = environment.names.get(text)
    if found is None:
        return (), Verdict(ApplyState.PENDING, f"{text} is being resolved")
    family = 4 if cells.octets(row, "ipsecPeerLocalAddress") != NOWHERE else 0
    fitting = tuple(address for address in found if not family or len(address) == family)
    if not fitting:
        return (), _failed(f"{text} does not resolve")
    turn = environment.turns.get(row.number, 0) % len(fitting) if in_turn else 0
    return fitting[turn:] + fitting[:turn], None


def public_link(row: RowView, environment: Environment, remote: bytes) -> tuple[int, bytes | None, Verdict | None]:
    """The link a peer is called by (ipsecPeerPublicIfIndex): its number where a route has to force it, else 0; our
    address on it, None where the routes decide; and what is wrong."""
    link = cells.number(row, "ipsecPeerPublicIfIndex")
    if link <= 0:
        return 0, None, None
    held = environment.link_addresses.get(link, ())
    fitting = [address for address in held if len(address) == len(remote)]
    if cells.number(row, "ipsecPeerPublicIfIndexMode") == FORCE:
        family = "IPv4" if len(remote) == 4 else "IPv6"
        if not fitting:
            return 0, None, _failed(f"ipsecPeerPublicIfIndex: no link with number {link} has an {family} address")
        return link, fitting[0], None
    return 0, fitting[0] if environment.sources.get(remote) in fitting else None, None


def read_peer(
    row: RowView,
    environment: Environment,
    phase1: Phase1,
    ikev2: bool,
    certificates: Certificates,
    in_turn: bool = False,
) -> Peer:
    """A row of ipsecPeerTable with a traffic list or a virtual interface. `ikev2`: ipsecGlobIkev2Enabled; `in_turn`:
    ipsecGlobContDnsSelectRoundRobin."""
    remotes, trouble = remotes_of(row, environment, in_turn)
    remote = remotes[0] if remotes else None
    virtual = cells.number(row, "ipsecPeerVirtualInterface") != NO_INTERFACE
    local: bytes | None = cells.octets(row, "ipsecPeerLocalAddress")
    own_choice = local != NOWHERE
    call = 0
    if remote is not None:
        call, public, misfit = public_link(row, environment, remote)
        trouble = trouble or misfit
        if not own_choice:
            local = public or environment.sources.get(remote)
    elif not own_choice:
        local = None
    sealed = cells.octets(row, "ipsecPeerPreSharedKeyData")
    version = phase1.version
    mobike = version == V2 and cells.number(row, "ipsecPeerMobike") == MOBIKE and phase1.nat != NAT_DISABLED
    roams = mobike and not own_choice and not call
    names: tuple[str, ...] = ()
    local_id = ""
    try:
        names = identities(cells.text(row, "ipsecPeerPeerIds"))[:MOST_PEER_IDS]
        own_id = cells.text(row, "ipsecPeerLocalId") if version == V2 else phase1.local_id
        local_id = identity(own_id) if own_id else ""
        if version == V2 and any(map(is_group, (local_id, *names))):
            trouble = _failed(NO_GROUPS)
    except IdentityError as error:
        trouble = _failed(str(error))
    proof = proof_of(row, phase1, certificates)
    if proof is not None and proof.certificate is not None:
        local_id = told_id(proof.certificate, local_id)
    elif not local_id and local is not None and not roams:  # one that moves is told by the daemon as it is then
        local_id = address_text(local)
    down = cells.number(row, "ipsecPeerAdminStatus") == DOWN
    if down:
        verdict: Verdict | None = IS_DOWN
    elif virtual and environment.capabilities.interfaces_lack:
        verdict = _failed(environment.capabilities.interfaces_lack)
    elif virtual and row.number > LAST_WITH_INTERFACE:
        verdict = _failed(f"no virtual interface for peers beyond {LAST_WITH_INTERFACE}")
    elif version == V2 and not ikev2:
        verdict = IKEV2_OFF
    elif phase1.problem:
        verdict = _failed(phase1.problem)
    elif proof is not None and proof.problem:
        verdict = _failed(proof.problem)
    elif proof is None and not sealed:
        verdict = NO_KEY
    elif trouble is not None:
        verdict = trouble
    elif own_choice and environment.own_addresses and local not in environment.own_addresses:
        verdict = _failed(f"ipsecPeerLocalAddress {address_text(local or b'')} is not an address of this host")
    elif remote is not None and local is None and roams:
        verdict = Verdict(ApplyState.APPLIED, f"no route to {address_text(remote)} now")  # the tunnel may outlive this
    elif remote is not None and local is None:
        verdict = _failed(f"no route to {address_text(remote)}")
    else:
        verdict = _remark(row, remote, phase1) or _unconfirmed(proof, local_id)
    usable = not down and (verdict is None or verdict.state is ApplyState.APPLIED)
    own_names = bool(names)
    if not names:
        names = (address_text(remote) if remote is not None else ANY,)
    text = cells.text(row, "ipsecPeerDynamicAddress")
    return Peer(
        row.number,
        cells.number(row, "ipsecPeerPriority"),
        0 if virtual else cells.number(row, "ipsecPeerTrafficList"),
        cells.number(row, "ipsecPeerIkeProfile"),
        cells.number(row, "ipsecPeerIpsecProfile"),
        usable,
        verdict,
        local,
        remote,
        "" if literal(text) else text,
        local_id,
        names,
        sealed,
        version,
        cells.number(row, "ipsecPeerAuthMethod") if version == V2 else 0,
        mobike,
        roams,
        cells.number(row, "ipsecPeerStartMode") == ALWAYS_UP,
        version == V2 and not virtual and cells.number(row, "ipsecPeerChildAllocMode") == SINGLE,
        virtual,
        call if usable else 0,
        remotes[1:] if own_names else (),  # it may call us from any of them, if it says who it is
        proof,
        forced_for(certificates, names) if proof is not None else (),
    )


def proof_of(row: RowView, phase1: Phase1, certificates: Certificates) -> Proof | None:
    """How a peer that authenticates by signatures does it: in IKEv2 its own row says, in IKEv1 the profile."""
    if phase1.method != RSA or phase1.version != V2:
        return phase1.proof
    return certificates.proof((cells.number(row, "ipsecPeerCert"),), (cells.text(row, "ipsecPeerCaCerts"),))


def told_id(certificate: Certificate, chosen: str) -> str:
    """Who we say we are: as chosen, else the first alternative name of our certificate. '' is its subject, which the
    daemon then sends as the certificate has it."""
    if not chosen:
        return next(iter(certificate.identities), "")
    key = dn_key(chosen)
    return "" if key is not None and key == dn_key(certificate.subject) else chosen


def forced_for(certificates: Certificates, names: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Per identity the peers' certificates for it that are trusted as they are; () where there are none at all."""
    found = tuple(tuple(each.pem for each in certificates.forced if each.is_of(name)) for name in names)
    return found if any(found) else ()


def _unconfirmed(proof: Proof | None, local_id: str) -> Verdict | None:
    if proof is None or proof.certificate is None or not local_id or proof.certificate.is_of(local_id):
        return None
    return Verdict(ApplyState.APPLIED, f"certificate {proof.certificate.number} is not for {local_id}: {SUBJECT_TOLD}")


def _remark(row: RowView, remote: bytes | None, phase1: Phase1) -> Verdict | None:
    """What to tell of a peer that can be used."""
    if remote is not None:
        return None
    if phase1.method == PSK and phase1.version == V1 and not phase1.aggressive and not phase1.answers_other:
        return NEEDS_AGGRESSIVE
    return WAITS if cells.number(row, "ipsecPeerStartMode") == ALWAYS_UP else CALLED
