"""What the rest of the agent may ask of kernel, IKE daemon, host and packet filter: protocols and the data they speak.

The reconciler and the monitor know only these. `memory.py` answers them without touching
the machine, `spd.py`, `host.py`, `nftables.py` and `charon/` for real. Everything here runs on the event
loop: listeners are called on it, one after the other, and must not block. Addresses are
packed octets, SPIs four octets as on the wire, times seconds.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, Protocol

from agent.plan import numbers
from agent.plan.daemon import DaemonSettings
from agent.plan.filtering import Part
from agent.plan.links import CallRoute, Standing, VirtualLink
from agent.plan.model import (
    Action,
    Connection,
    Credential,
    Flow,
    Policy,
    PolicyKey,
    Secret,
    Selector,
    Template,
    Tunnel,
    ViciValue,
)
from agent.plan.negotiated import selectors


class EngineError(Exception):
    """The engine refused or could not be asked; the text is fit for a row's last error."""


# ---- security policy database and kernel SAs --------------------------------------------


class Observed(NamedTuple):
    """One policy as the kernel's dump shows it. `ours`: its index lies in our range."""

    key: PolicyKey
    policy_index: int
    priority: int
    action: Action
    templates: tuple[Template, ...]
    ours: bool


class SaCounters(NamedTuple):
    """xfrm_lifetime_cur: octets and packets through the SA; wall-clock seconds of creation, first use (0: unused)."""

    octets: int
    packets: int
    added: int
    used: int


class SaRecord(NamedTuple):
    """One kernel SA. protocol 50 ESP, 51 AH, 108 IPComp; mode 0 transport, 1 tunnel. An SPI of zero is a larval one."""

    source: bytes
    destination: bytes
    protocol: int
    spi: bytes
    reqid: int
    mode: int
    counters: SaCounters
    replayed: int = 0  # packets refused because they came twice or too late
    forged: int = 0  # packets whose check value was wrong


class KernelEventKind(enum.Enum):
    """What XFRM's multicast groups tell."""

    ACQUIRE = "acquire"  # a packet wants an SA that is not there: `key`, `policy_index`, `template`, `flow`
    SA_NEW = "sa-new"  # `sa`
    SA_UPDATED = "sa-updated"  # `sa`
    SA_DELETED = "sa-deleted"  # `sa` with its final counters
    SA_SOFT = "sa-soft-expired"  # `sa`; it lives on, do not add its counters
    SA_HARD = "sa-hard-expired"  # `sa` with its final counters; no SA_DELETED follows
    SAS_FLUSHED = "sas-flushed"  # every SA is gone, counters unknown
    POLICY_FOREIGN = "policy-foreign"  # somebody else changed the SPD (also: expired a policy): look again
    OVERRUN = "overrun"  # events were lost: dump again


class KernelEvent(NamedTuple):
    """One event; fields that the kind does not name are None or 0. `flow`: the packet's selector of an ACQUIRE."""

    kind: KernelEventKind
    sa: SaRecord | None = None
    key: PolicyKey | None = None
    policy_index: int = 0
    template: Template | None = None
    flow: Selector | None = None


KernelListener = Callable[[KernelEvent], None]


class Spd(Protocol):
    """The kernel's policies and, for reading, its SAs."""

    async def start(self) -> None:
        """Open what is needed. Raises EngineError where XFRM or the right to it is missing."""

    async def stop(self) -> None:
        """Close; policies stay."""

    async def observe(self) -> Mapping[PolicyKey, Observed]:
        """The whole SPD, ours and others'; also what `apply` goes by afterwards."""

    async def apply(self, remove: Sequence[PolicyKey], install: Sequence[Policy]) -> Mapping[PolicyKey, str]:
        """Remove those of ours, then install (add or replace) these; the failed ones with the reason.

        Only what the last `observe` and our own work since show as ours is removed or replaced. Removing what is
        gone already is no failure. A key that is in both is replaced. Where one with templates is refused, and not
        because others hold its key, a block has its place."""

    async def sas(self) -> Sequence[SaRecord]:
        """All kernel SAs, with counters."""

    async def delete_sa(self, sa: SaRecord) -> None:
        """Remove one SA; nothing when it is gone already. Raises EngineError."""

    def statistics(self) -> Mapping[str, int]:
        """Counters of the whole host by the kernel's names: those of xfrm_stat (`XfrmInNoStates` …), packets of IP
        (`InReceives`, `OutRequests`, both families together), and what waits for reassembly (`FragInUse`,
        `FragMemory`). What cannot be read is left out."""

    def subscribe(self, listener: KernelListener) -> None: ...


# ---- IKE daemon ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ChildSa:
    """One CHILD_SA as charon tells it. `name` is that of the child configuration; of a flow (agent.plan.flows) it is
    the flow's, whichever side began it. `state` is charon's word (INSTALLED …).

    mode 0 transport, 1 tunnel; protocol 50 or 51; `ipcomp`: the cpi fields are there, `cpi_in` and `cpi_out` with two
    octets; counters as charon knows them
    (packets-out of a rekeyed one is lost there, see KernelEvent). Times in seconds, 0 where charon says nothing.
    `encryption`, `integrity`, `group` are charon's keywords ('AES_CBC', 'HMAC_SHA2_256_128', 'MODP_2048')."""

    name: str
    unique_id: int
    reqid: int
    state: str
    mode: int
    protocol: int
    spi_in: bytes
    spi_out: bytes
    ipcomp: bool = False
    encap: bool = False
    encryption: str = ""
    encryption_bits: int = 0
    integrity: str = ""
    group: str = ""
    octets_in: int = 0
    packets_in: int = 0
    octets_out: int = 0
    packets_out: int = 0
    installed: int = 0  # seconds since installed
    rekey_in: int = 0
    life_left: int = 0
    local_selectors: tuple[str, ...] = ()
    remote_selectors: tuple[str, ...] = ()
    cpi_in: bytes = b""
    cpi_out: bytes = b""


@dataclass(frozen=True, slots=True)
class IkeSa:
    """One IKE_SA as charon tells it. `connection`: the configuration's name, `state`: charon's word (ESTABLISHED …)."""

    connection: str
    unique_id: int
    version: int
    state: str
    local: bytes
    remote: bytes
    local_port: int = 500
    remote_port: int = 500
    local_id: str = ""
    remote_id: str = ""
    initiator: bool = False
    initiator_spi: bytes = b""
    responder_spi: bytes = b""
    encryption: str = ""
    encryption_bits: int = 0
    integrity: str = ""
    prf: str = ""
    group: str = ""
    established: int = 0  # seconds ago
    rekey_in: int = 0
    reauth_in: int = 0
    nat_local: bool = False
    nat_remote: bool = False
    xauth_user: str = ""
    children: tuple[ChildSa, ...] = ()


def tunnel_of(ike: IkeSa, child: ChildSa) -> Tunnel:
    """What the plan has to know of a CHILD_SA."""
    found = Tunnel(child.name, ike.local, ike.remote, child.mode, child.protocol, child.ipcomp)
    if not numbers.is_flow(child.name):
        return found
    return replace(found, reqid=child.reqid, selectors=selectors(child.local_selectors, child.remote_selectors))


class IkeEventKind(enum.Enum):
    """Kinds of IkeEvent; which fields each carries."""

    IKE_UP = "ike-up"  # ike
    IKE_DOWN = "ike-down"  # ike: by its unique id; after a v1 reauthentication the peer is still up with another one
    IKE_REKEY = "ike-rekey"  # ike (new), old_ike
    IKE_UPDATE = "ike-update"  # ike: its endpoints moved (MOBIKE, NAT)
    CHILD_UP = "child-up"  # ike, child
    CHILD_DOWN = "child-down"  # ike, child with final counters
    CHILD_REKEY = "child-rekey"  # ike, child (new), old_child
    LOG = "log"  # text, connection, group, level; also the control log of an initiate, `child` unknown
    INITIATED = "initiated"  # an initiate ended: connection, child_name, text ('' = it is up, else why not)
    LOST = "engine-lost"  # charon or its socket is gone: text
    BACK = "engine-back"  # connected (again); `text` is 'restarted' when it is another process and knows nothing


@dataclass(frozen=True, slots=True)
class IkeEvent:
    """One event from the IKE daemon."""

    kind: IkeEventKind
    ike: IkeSa | None = None
    old_ike: IkeSa | None = None
    child: ChildSa | None = None
    old_child: ChildSa | None = None
    connection: str = ""
    child_name: str = ""
    group: str = ""
    level: int = 0
    text: str = ""


@dataclass(frozen=True, slots=True)
class IkeState:
    """What the daemon holds now. `connections`: loaded ones by name, with a fingerprint as `Ike.fingerprint` makes it,
    or '' where it cannot be told; `secrets`: ids of loaded shared secrets; `credentials`: fingerprint of the loaded
    certificates and keys."""

    connections: Mapping[str, str]
    secrets: frozenset[str]
    sas: tuple[IkeSa, ...]
    credentials: str = ""


IkeListener = Callable[[IkeEvent], None]
Narrowed = Callable[[], Mapping[str, ViciValue] | None]
"""The settings of a connection as they are wanted now, with the child of a flow among its children; None when its rule
is gone."""


class Ike(Protocol):
    """The IKE daemon. All but `subscribe` raise EngineError."""

    async def start(self) -> None:
        """Start the private daemon or adopt the running one. When it is not to be had: return, BACK comes later."""

    async def stop(self) -> None:
        """Let go of it; it goes on running."""

    def fingerprint(self, connection: Connection) -> str:
        """Short text equal for equal settings; compared with IkeState.connections. '' when not supported."""

    async def configure(self, settings: DaemonSettings) -> str:
        """Set the daemon itself; before `start` it is what it will be started with. What can only be had by a start is
        had by one where peers depend on it (tunnels end); else it waits, and what waits is told ('' for nothing)."""

    def credentials_fingerprint(self, credentials: Mapping[str, Credential]) -> str:
        """Short text equal for equal sets, '' for none; compared with IkeState.credentials."""

    async def load_credentials(self, credentials: Mapping[str, Credential]) -> bool:
        """Have these certificates and keys and no others. True when all shared secrets went too, for want of another
        way to remove a certificate: they are to be loaded again."""

    async def observe(self) -> IkeState: ...

    async def list_sas(self) -> tuple[IkeSa, ...]:
        """The IKE_SAs alone; costs less than `observe`."""

    async def load_connection(self, connection: Connection) -> None:
        """Load or replace; running SAs are left alone (see terminate)."""

    async def unload_connection(self, name: str) -> None:
        """Forget it; nothing when it is not loaded. Running SAs are left alone."""

    async def load_secret(self, secret: Secret) -> None: ...

    async def unload_secret(self, id: str) -> None: ...

    async def initiate(self, child: str, connection: str, reason: str, narrowed: Narrowed | None = None) -> None:
        """Ask for a tunnel; returns at once, INITIATED tells how it went. `reason` is for the log. `narrowed`: of a
        flow's child, what is loaded for this, provided that but for the child the connection is loaded so."""

    async def terminate(self, *, connection: str = "", child: str = "", ike_id: int = 0, child_id: int = 0) -> None:
        """End all IKE_SAs of a connection, or only CHILD_SAs of a child name, with those of its flows, or one IKE_SA or
        CHILD_SA by its unique id; none there is no error."""

    async def end_outdated(self, connection: str, child: str = "") -> None:
        """As terminate, of what came up with settings that are loaded no more. A tunnel that is being asked for is
        negotiated anew, with those loaded now; INITIATED tells of that alone."""

    async def renew(self, ike_id: int) -> None:
        """Replace an IKE_SA by a fresh one, with authentication; its children move to that. None there is no error."""

    def subscribe(self, listener: IkeListener) -> None: ...


# ---- host -----------------------------------------------------------------------------------


HostListener = Callable[[], None]


class Route(NamedTuple):
    """How packets to somebody leave: from which of our addresses (None: not at all), by which interface (0: not
    known)."""

    source: bytes | None
    interface: int = 0


NO_ROUTE: Final = Route(None)


class Host(Protocol):
    """This machine's addresses, routes and connections."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def own_addresses(self) -> frozenset[bytes]:
        """Addresses of all interfaces, loopback too."""

    def link_addresses(self) -> Mapping[int, tuple[bytes, ...]]:
        """Addresses of global scope by the number of their link, in the kernel's order."""

    def source_for(self, peer: bytes) -> bytes | None:
        """The address this host would send from to `peer`; None without a route."""

    def route_to(self, peer: bytes) -> Route: ...

    def interfaces(self) -> Mapping[int, str]:
        """Names of all interfaces by index, up or down."""

    async def resolve(self, name: str) -> tuple[bytes, ...]:
        """Addresses of a host name, IPv4 first; () when it does not resolve. Never raises."""

    def flows(self) -> tuple[Flow, ...]:
        """Established TCP connections into this host (to a port that listens), as packets arriving (way 'in')."""

    def subscribe(self, listener: HostListener) -> None:
        """Called after addresses, routes or interfaces changed."""


# ---- links --------------------------------------------------------------------------------------


LinksTold = Callable[[Mapping[int, str]], None]
"""Gets the peers whose links or routes cannot be made, with the reason, whenever that is news."""


class Links(Protocol):
    """Virtual interfaces with their addresses and routes, and host routes for calling peers. `idle`: what is wanted has
    been made, as far as it can be."""

    idle: asyncio.Event

    async def start(self) -> None:
        """Raises EngineError."""

    async def stop(self) -> None:
        """End; what is there stays."""

    def want(self, links: Mapping[int, VirtualLink], calls: Iterable[CallRoute], *, removing: bool = True) -> None:
        """The links by peer, and the routes for calling, from now on; made real soon. Without `removing` what is wanted
        no more stays for the moment."""

    def stand(self, peer: int, standing: Standing | None) -> None:
        """What a peer's interface is to show; None: nothing of its own, it is simply up."""

    def look_again(self) -> None: ...

    def subscribe(self, told: LinksTold) -> None: ...

    async def purge(self) -> None:
        """Remove all that is ours. Raises EngineError."""


# ---- packet filter ----------------------------------------------------------------------------


class Counted(NamedTuple):
    """What a named counter has seen since it was made."""

    packets: int
    octets: int


FilterListener = Callable[[], None]


class PacketFilter(Protocol):
    """Our table of packet filter rules, in parts that each belong to one purpose. What others have is never touched."""

    async def start(self) -> None:
        """Nothing is touched before the first `want`. Where there is no packet filter, that is told by `problem`."""

    async def stop(self) -> None:
        """End; the table stays."""

    def want(self, name: str, part: Part | None) -> None:
        """What this purpose wants from now on, None for nothing; made real soon, all parts at once. Raises ValueError
        for names that are not the part's own."""

    def problem(self, name: str) -> str:
        """Why a part is not in force, '' when it is (or is about to be)."""

    def look_again(self) -> None:
        """Compare with what is there, and try again what failed."""

    async def counters(self) -> Mapping[str, Counted]:
        """Values of all our counters. Raises EngineError."""

    async def purge(self) -> None:
        """Remove the table, nothing when there is none. Raises EngineError."""

    def subscribe(self, listener: FilterListener) -> None:
        """Called on the loop when a part's `problem` may be another than before."""


__all__ = [
    "NO_ROUTE",
    "ChildSa",
    "Counted",
    "EngineError",
    "FilterListener",
    "Host",
    "HostListener",
    "Ike",
    "IkeEvent",
    "IkeEventKind",
    "IkeListener",
    "IkeSa",
    "IkeState",
    "KernelEvent",
    "KernelEventKind",
    "KernelListener",
    "Links",
    "LinksTold",
    "Observed",
    "PacketFilter",
    "Route",
    "SaCounters",
    "SaRecord",
    "Spd",
]
