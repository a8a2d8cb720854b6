"""A peer's row seen against the world: its addresses, its identities, and whether its tunnels can be made."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from agent.plan import cells
from agent.plan.connections import Peer, address_text
from agent.plan.identities import ANY, IdentityError, identities, identity
from agent.plan.model import ApplyState, Environment, RowView, Verdict
from agent.plan.numbers import MOST_PEER_IDS
from agent.plan.phase1 import NAT_DISABLED, Phase1
from agent.plan.proposals import V1, V2

PEERS: Final = "ipsecPeerTable"
DOWN: Final = 2  # ipsecPeerAdminStatus
MOBIKE: Final = 1  # ipsecPeerMobike enabled
SINGLE: Final = 2  # ipsecPeerChildAllocMode
NO_INTERFACE: Final = 1  # ipsecPeerVirtualInterface disabled
ALWAYS_UP: Final = 2  # ipsecPeerStartMode
NOWHERE: Final = bytes(4)

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


def remote_of(row: RowView, environment: Environment) -> tuple[bytes | None, Verdict | None]:
    """The outer address of a peer, and what there is to say: (None, None) is a peer that has to call us."""
    text = cells.text(row, "ipsecPeerDynamicAddress")
    if not text:
        return None, None
    address = literal(text)
    if address is not None:
        return address, None
    found = environment.names.get(text)
    if found is None:
        return None, Verdict(ApplyState.PENDING, f"{text} is being resolved")
    family = 4 if cells.octets(row, "ipsecPeerLocalAddress") != NOWHERE else 0
    fitting = [address for address in found if not family or len(address) == family]
    if not fitting:
        return None, _failed(f"{text} does not resolve")
    return fitting[0], None


def read_peer(row: RowView, environment: Environment, phase1: Phase1, ikev2: bool) -> Peer:
    """A row of ipsecPeerTable with a traffic list. `ikev2`: ipsecGlobIkev2Enabled."""
    remote, trouble = remote_of(row, environment)
    local: bytes | None = cells.octets(row, "ipsecPeerLocalAddress")
    own_choice = local != NOWHERE
    if not own_choice:
        local = environment.sources.get(remote) if remote is not None else None
    sealed = cells.octets(row, "ipsecPeerPreSharedKeyData")
    version = phase1.version
    mobike = version == V2 and cells.number(row, "ipsecPeerMobike") == MOBIKE and phase1.nat != NAT_DISABLED
    roams = mobike and not own_choice
    names: tuple[str, ...] = ()
    local_id = ""
    try:
        names = identities(cells.text(row, "ipsecPeerPeerIds"))[:MOST_PEER_IDS]
        local_id = identity(phase1.local_id) if phase1.local_id else ""
        if not local_id and local is not None and not roams:  # one that moves is told by the daemon as it is then
            local_id = address_text(local)
    except IdentityError as error:
        trouble = _failed(str(error))
    down = cells.number(row, "ipsecPeerAdminStatus") == DOWN
    if down:
        verdict: Verdict | None = IS_DOWN
    elif cells.number(row, "ipsecPeerVirtualInterface") != NO_INTERFACE:
        verdict = _failed("virtual interfaces are not supported yet")
    elif version == V2 and not ikev2:
        verdict = IKEV2_OFF
    elif phase1.problem:
        verdict = _failed(phase1.problem)
    elif not sealed:
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
        verdict = _remark(row, remote, phase1)
    usable = not down and (verdict is None or verdict.state is ApplyState.APPLIED)
    if not names:
        names = (address_text(remote) if remote is not None else ANY,)
    text = cells.text(row, "ipsecPeerDynamicAddress")
    return Peer(
        row.number,
        cells.number(row, "ipsecPeerPriority"),
        cells.number(row, "ipsecPeerTrafficList"),
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
        version == V2 and cells.number(row, "ipsecPeerChildAllocMode") == SINGLE,
    )


def _remark(row: RowView, remote: bytes | None, phase1: Phase1) -> Verdict | None:
    """What to tell of a peer that can be used."""
    if remote is not None:
        return None
    if phase1.version == V1 and not phase1.aggressive and not phase1.answers_other:
        return NEEDS_AGGRESSIVE
    return WAITS if cells.number(row, "ipsecPeerStartMode") == ALWAYS_UP else CALLED
