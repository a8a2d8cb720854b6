"""Plain data that goes into a plan and comes out of it.

`plan` knows neither store nor kernel: configuration is read through the two small
protocols below, the world through `Environment`, and the result is data that a backend
carries out. Addresses are packed octets (4 or 16), ports and masks host integers.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from agent.mib.ber import Value


class RowView(Protocol):
    """A row of a stored table; columns by object name, decoded."""

    @property
    def number(self) -> int: ...
    def __getitem__(self, column: str) -> Value: ...


class ConfigurationView(Protocol):
    """A configuration, immutable while it is looked at. Only rows whose RowStatus is active are to be used; `rows` and
    `row` show no others."""

    @property
    def generation(self) -> int: ...
    def rows(self, table: str) -> Iterable[RowView]: ...
    def row(self, table: str, number: int) -> RowView | None: ...
    def row_any_status(self, table: str, number: int) -> RowView | None: ...
    def scalar(self, name: str) -> Value: ...


class RowChangeView(Protocol):
    """One row before and after a commit; `columns` are the names of the cells that differ, all of a new or removed
    row."""

    @property
    def table(self) -> str: ...
    @property
    def number(self) -> int: ...
    @property
    def before(self) -> RowView | None: ...
    @property
    def after(self) -> RowView | None: ...
    @property
    def columns(self) -> frozenset[str]: ...


# ---- the security policy database ---------------------------------------------------


class Direction(enum.IntEnum):
    """XFRM_POLICY_IN, _OUT, _FWD."""

    IN = 0
    OUT = 1
    FWD = 2


class Action(enum.IntEnum):
    """XFRM_POLICY_ALLOW, _BLOCK."""

    ALLOW = 0
    BLOCK = 1


class Prefix(NamedTuple):
    """A net: packed address with the host bits zero, and its length in bits."""

    address: bytes
    length: int


class Ports(NamedTuple):
    """Ports p with p & mask == port; (0, 0) is any port."""

    port: int
    mask: int


ANY_PORT = Ports(0, 0)


class Selector(NamedTuple):
    """What a policy matches, as the packet carries it (source first). Protocol 0 is any."""

    source: Prefix
    destination: Prefix
    protocol: int = 0
    source_port: Ports = ANY_PORT
    destination_port: Ports = ANY_PORT


class Template(NamedTuple):
    """xfrm_user_tmpl: which SA has to be used. protocol 50 ESP, 51 AH, 108 IPComp; mode 0 transport, 1 tunnel."""

    source: bytes
    destination: bytes
    protocol: int
    mode: int
    reqid: int
    optional: bool = False


class Scope(NamedTuple):
    """Which packets a policy is asked about at all. `interface`: number of the link the packet leaves by, in every
    direction (the kernel compares no other), 0 for any; `mark`, `mask`: packets p with p & mask == mark; `if_id`: of an
    XFRM interface, whose packets meet only policies with its number, as other packets meet only those with 0."""

    interface: int = 0
    mark: int = 0
    mask: int = 0
    if_id: int = 0


EVERY_PACKET = Scope()


class PolicyKey(NamedTuple):
    """The kernel holds one policy per direction, selector and scope."""

    direction: Direction
    selector: Selector
    scope: Scope = EVERY_PACKET


class RowRef(NamedTuple):
    """A row by table name and number."""

    table: str
    number: int


class Policy(NamedTuple):
    """One policy of the SPD. Lower `priority` is looked at first. `row`: the traffic rule or scalar group it
    comes from; `peer`: number of the peer it belongs to, 0 for none; `rule`: why it is there, for `explain`."""

    key: PolicyKey
    priority: int
    action: Action
    templates: tuple[Template, ...]
    row: RowRef
    peer: int
    rule: str


# ---- what charon gets ---------------------------------------------------------------

ViciValue = str | list[str] | Mapping[str, "ViciValue"]


class FlowChild(NamedTuple):
    """The SA pair of one flow as charon is asked for it: its name and the selectors as VICI has them."""

    name: str
    local_ts: tuple[str, ...]
    remote_ts: tuple[str, ...]


class Fine(NamedTuple):
    """How the SAs of a protect rule are split (ipsecPrfGranularity). `local_word`, `remote_word`: what stands for a
    side in place of the flow's address, '' for that; `protocol` and ports, from first to last: the rule's; `own`:
    addresses of this host that the rule covers, of whose flows alone local-services makes SAs; `whole`: one SA pair for
    all of the rule, None as long as outer addresses are unknown; `asks`: the reqids by which packets ask, that of the
    child first."""

    granularity: int
    local_word: str
    remote_word: str
    protocol: int
    local_ports: tuple[int, int]
    remote_ports: tuple[int, int]
    own: tuple[bytes, ...]
    whole: FlowChild | None
    asks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Child:
    """One CHILD_SA configuration: one protect rule of one peer, or with `rule` 0 all of them. `compressed`: it is
    nothing without IPComp; `heartbeats`: ipsecPrfHeartbeats as resolved, 0 where no profile says any. `starts`,
    `answers`: whether we may begin it, and the peer (ipsecPeerTrafficPolicy). `virtual`: of a peer with a virtual
    interface, and then `rule` is a row of ipsecPeerTrafficTable. `fine`: its flows have SAs of their own, with reqids
    that charon allots; `reqid` is then one of those that an acquire bears."""

    name: str
    peer: int
    rule: int
    reqid: int
    compressed: bool = False
    heartbeats: int = 0
    starts: bool = True
    answers: bool = True
    virtual: bool = False
    fine: Fine | None = None


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection for VICI load-conn, without its secrets. `initiator`: the one to use for `initiate`
    (a peer may have a second, responder-only one). `nat`: the peer may be behind NAT, or we may, else its IKE SA is
    ended. Equal settings mean nothing to do."""

    name: str
    peer: int
    settings: Mapping[str, ViciValue]
    children: tuple[Child, ...]
    initiator: bool = True
    nat: bool = True


@dataclass(frozen=True, slots=True)
class Secret:
    """A pre-shared key for VICI load-shared; `sealed` is opened only by the backend, at the moment of loading."""

    id: str
    peer: int
    sealed: bytes
    owners: tuple[str, ...]


class CredentialKind(enum.Enum):
    """An authority that peers may come from or that completes a chain; a certificate of an end, ours or a peer's that
    is trusted as it is; a private key of ours."""

    AUTHORITY = "ca"
    END = "cert"
    KEY = "key"


class Credential(NamedTuple):
    """Something the daemon needs for signatures. `number`: row of certTable, or of ipsecPublicKeyTable for a key, whose
    `sealed` is opened only by the backend, at the moment of loading."""

    id: str
    kind: CredentialKind
    number: int
    pem: str = ""
    sealed: bytes = b""


# ---- the world ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What this engine can do, as data: used for refusing, for documents and for a row's last error."""

    engine: str = "memory"
    ike_ciphers: frozenset[str] = frozenset()
    ike_hashes: frozenset[str] = frozenset()
    ike_groups: frozenset[int] = frozenset()
    esp_ciphers: frozenset[str] = frozenset()
    esp_macs: frozenset[str] = frozenset()
    aeads: frozenset[str] = frozenset()  # combined ciphers, of both phases
    nftables: bool = False
    nftables_lack: str = ""  # why not
    interfaces_lack: str = ""  # why there are no XFRM interfaces


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A CHILD_SA that is up, from child-updown or list-sas: what the templates have to follow. Of a flow `child` is the
    flow's name, `reqid` is charon's, and `selectors` are what was negotiated, local to remote."""

    child: str
    local: bytes
    remote: bytes
    mode: int  # 0 transport, 1 tunnel
    protocol: int  # 50 ESP, 51 AH
    ipcomp: bool = False
    reqid: int = 0
    selectors: tuple[Selector, ...] = ()


NO_FLOWS: Mapping[str, Tunnel] = {}


@dataclass(frozen=True, slots=True)
class Environment:
    """What a plan must know of the world. `sources`: the address this host would send from, per peer address;
    `default_sources`: from which it sends to the rest of the world, by octets of an address (4, 16); `interfaces`:
    names by index."""

    capabilities: Capabilities = Capabilities()
    names: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict)
    own_addresses: frozenset[bytes] = frozenset()
    sources: Mapping[bytes, bytes] = field(default_factory=dict)
    tunnels: Mapping[str, Tunnel] = field(default_factory=dict)
    reqids: Mapping[str, int] = field(default_factory=dict)  # child name → reqid in use, kept over restarts
    default_sources: Mapping[int, bytes] = field(default_factory=dict)
    interfaces: Mapping[int, str] = field(default_factory=dict)
    link_addresses: Mapping[int, tuple[bytes, ...]] = field(default_factory=dict)  # number of a link → its addresses
    turns: Mapping[int, int] = field(default_factory=dict)  # peer → attempts that failed since it was up
    takeovers: Mapping[int, int] = field(default_factory=dict)  # peer → the backup peer that stands for it now
    flows: Mapping[str, Mapping[str, Tunnel]] = field(default_factory=dict)  # child → its flows by name


class ApplyState(enum.IntEnum):
    """ipsecGw…ApplyState."""

    PENDING = 1
    APPLIED = 2
    FAILED = 3
    UNUSED = 4
    SHADOWED = 5


class Verdict(NamedTuple):
    """What the plan says of a row: FAILED, UNUSED or SHADOWED with the reason, or APPLIED once it is made real
    (then `text` may hold a warning)."""

    state: ApplyState
    text: str = ""


class Flow(NamedTuple):
    """A packet for `explain`. `way`: 'out' made here, 'in' for this host, 'forward'. `decrypted`: peer number of the
    tunnel it came out of, 0 for a plain one. Of ICMP and ICMPv6 the ports are type and code. `from_interface`,
    `to_interface`: by which it comes and goes, 0 for none or one that no rule names."""

    source: bytes
    destination: bytes
    protocol: int
    source_port: int = 0
    destination_port: int = 0
    way: str = "out"
    decrypted: int = 0
    from_interface: int = 0
    to_interface: int = 0
