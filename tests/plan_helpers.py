"""A configuration made of dictionaries, and the kernel's policy lookup in a few lines, for the tests of the plan.

Defaults come from the real schema. `Packet`s are written as text, the way the oracle has
them: `forward 10.1.0.5 > 10.2.0.9 udp/4000/53 from 1`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from agent.mib import Schema, load_schema
from agent.mib.ber import Value
from agent.plan.model import Action, Capabilities, Direction, Environment, Policy, PolicyKey

ACTIONS = {"always-plain": 2, "pass": 3, "protect": 4, "drop": 5}
DIRECTIONS = {"both": 1, "inbound": 2, "outbound": 3}
PROTOCOLS = {"any": 0, "icmp": 1, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "ah": 51, "icmp6": 58, "sctp": 132}
OUR_ADDRESS = "192.0.2.1"


def packed(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


class DictRow:
    """A row with the cells given and defaults for the others."""

    __slots__ = ("_cells", "_number", "_table")

    def __init__(self, table: str, number: int, cells: Mapping[str, Value]) -> None:
        self._table, self._number, self._cells = table, number, dict(cells)

    @property
    def number(self) -> int:
        return self._number

    def __getitem__(self, column: str) -> Value:
        if column in self._cells:
            return self._cells[column]
        return schema().tables[self._table].by_name[column].default

    def cells(self) -> dict[str, Value]:
        return dict(self._cells)


def schema() -> Schema:
    return load_schema()


@dataclass(frozen=True)
class DictChange:
    table: str
    number: int
    before: DictRow | None
    after: DictRow | None
    columns: frozenset[str]


@dataclass
class DictConfiguration:
    """Satisfies ConfigurationView. `inactive`: rows that exist but are not in service."""

    tables: dict[str, dict[int, DictRow]] = field(default_factory=dict)
    scalars: dict[str, Value] = field(default_factory=dict)
    generation: int = 1
    inactive: frozenset[tuple[str, int]] = frozenset()

    def rows(self, table: str) -> Iterable[DictRow]:
        rows = self.tables.get(table, {})
        return [rows[number] for number in sorted(rows) if (table, number) not in self.inactive]

    def row(self, table: str, number: int) -> DictRow | None:
        return None if (table, number) in self.inactive else self.tables.get(table, {}).get(number)

    def row_any_status(self, table: str, number: int) -> DictRow | None:
        return self.tables.get(table, {}).get(number)

    def scalar(self, name: str) -> Value:
        return self.scalars.get(name, schema().columns[name].default)

    def put(self, table: str, number: int, **cells: Value) -> None:
        self.tables.setdefault(table, {})[number] = DictRow(table, number, cells)

    def edited(
        self, *edits: tuple[str, int, Mapping[str, Value] | None]
    ) -> tuple[DictConfiguration, tuple[DictChange, ...]]:
        """The configuration after some rows got cells or went (None), and the changes; (table, 0) are scalars."""
        tables = {name: dict(rows) for name, rows in self.tables.items()}
        scalars = dict(self.scalars)
        first: dict[tuple[str, int], DictRow | None] = {}
        for table, number, cells in edits:
            rows = tables.setdefault(table, {})
            if schema().tables[table].scalar:
                first.setdefault((table, 0), DictRow(table, 0, scalars))
                scalars |= cells or {}
                continue
            old = rows.get(number)
            first.setdefault((table, number), old)
            if cells is None:
                rows.pop(number, None)
            else:
                rows[number] = DictRow(table, number, (old.cells() if old else {}) | dict(cells))
        changes = []
        for (table, number), before in first.items():
            after = DictRow(table, 0, scalars) if schema().tables[table].scalar else tables[table].get(number)
            names = [c.name for c in schema().tables[table].columns]
            columns = frozenset(n for n in names if before is None or after is None or before[n] != after[n])
            if columns and (before is not None or after is not None):
                changes.append(DictChange(table, number, before, after, columns))
        return DictConfiguration(tables, scalars, self.generation + 1, self.inactive), tuple(changes)


KINDS = {"own": 2, "peer": 2, "dhcp": 3}


def side_cells(side: str, text: str) -> dict[str, Value]:
    """`10.1.0.0/16`, `2001:db8::/32`, a range `10.1.0.5-10.1.0.9`, `any`, `any6`, `own`, `peer`, `dhcp`."""
    if text in KINDS:
        return {f"ipsecTr{side}AddressType": KINDS[text]}
    first, _, last = {"any": "0.0.0.0/0", "any6": "::/0"}.get(text, text).partition("-")
    network = ipaddress.ip_network(first)
    names = [f"ipsecTr{side}{what}" for what in ("Address", "MaskLen", "Range")]
    if network.version == 6:
        names = [f"ipsecGwTr{side}{what}6" for what in ("Address", "PrefixLength", "Range")]
    cells: dict[str, Value] = {names[0]: network.network_address.packed, names[1]: network.prefixlen}
    return cells | {names[2]: packed(last)} if last else cells


def rule_cells(text: str, following: int = 0, **more: Value) -> dict[str, Value]:
    """`protect 10.1.0.0/16 10.2.0.0/16 [udp[/local/remote]] [inbound|outbound] [if7]`; sides as `side_cells` says."""
    action, local, remote, *rest = text.split()
    cells: dict[str, Value] = {"ipsecTrAction": ACTIONS[action], "ipsecTrProto": 255, "ipsecTrNextIndex": following}
    cells |= side_cells("Local", local) | side_cells("Remote", remote)
    for word in rest:
        if word in DIRECTIONS:
            cells["ipsecTrDirection"] = DIRECTIONS[word]
            continue
        if word.startswith("if"):
            cells["ipsecTrInterface"] = int(word[2:])
            continue
        name, *ports = word.split("/")
        cells["ipsecTrProto"] = PROTOCOLS[name]
        for side, port in zip(("Local", "Remote"), ports, strict=False):
            cells[f"ipsecTr{side}Port"] = int(port)
    return cells | more


def peer_address(number: int) -> str:
    """Peer n is at 198.51.100.n while n is small enough, else in 203.0.0.0/8."""
    return f"198.51.100.{number}" if number < 255 else str(ipaddress.IPv4Address(0xCB000000 + number))


def peer_cells(number: int, head: int, **more: Value) -> dict[str, Value]:
    return {
        "ipsecPeerTrafficList": head,
        "ipsecPeerDynamicAddress": peer_address(number).encode(),
        "ipsecPeerPreSharedKeyData": b"sealed %d" % number,
    } | more


def configuration(
    chains: Mapping[int | str, Sequence[str]],
    *,
    default: str = "drop",
    peers: Mapping[int, Mapping[str, Value]] | None = None,
    enabled: bool = True,
) -> DictConfiguration:
    """`chains`: rules as text per peer number, 'pre' or 'post'. Rule m of the chain of peer n is row 100 n + m, of
    pre 1 …, of post 51 …. `peers`: cells beside the usual ones."""
    result = DictConfiguration()
    result.scalars["ipsecGlobEnabled"] = 1 if enabled else 2
    result.scalars["ipsecGlobContDefaultRule"] = 1 if default == "drop" else 2
    for owner, texts in chains.items():
        first = 1 if owner == "pre" else 51 if owner == "post" else 100 * int(owner) + 1
        for place, text in enumerate(texts):
            following = first + place + 1 if place + 1 < len(texts) else 0
            result.put("ipsecTrafficTable", first + place, **rule_cells(text, following))
        head = first if texts else 0
        if owner == "pre":
            result.scalars["ipsecGlobContPreIpsecRules"] = head
        elif owner == "post":
            result.scalars["ipsecGlobContPostIpsecRules"] = head
        else:
            result.put(
                "ipsecPeerTable", int(owner), **(peer_cells(int(owner), head) | (peers or {}).get(int(owner), {}))
            )
    return result


class Everything(dict[bytes, bytes]):
    """Routes: every peer is reached from our one address."""

    def get(self, key: bytes, default: object = None) -> bytes:  # type: ignore[override]
        return packed(OUR_ADDRESS)

    def __getitem__(self, key: bytes) -> bytes:
        return packed(OUR_ADDRESS)

    def __contains__(self, key: object) -> bool:
        return True


ROUTES = Everything()


def environment(**more: object) -> Environment:
    fields: dict[str, object] = {
        "own_addresses": frozenset(map(packed, (OUR_ADDRESS, "10.1.0.1", "127.0.0.1", "::1", "2001:db8::1"))),
        "sources": ROUTES,
        "default_sources": {4: packed(OUR_ADDRESS), 16: packed("2001:db8::1")},
        "interfaces": {2: "eth0", 3: "eth1"},
        "capabilities": Capabilities(nftables=True),
    }
    return Environment(**(fields | more))  # type: ignore[arg-type]


# ---- the kernel -----------------------------------------------------------------------


class Packet(NamedTuple):
    """`peer`: whose tunnel it came out of, 0 for none. Of ICMP the ports are type and code. `came`, `goes`: interfaces,
    0 where no rule names them."""

    way: str
    source: bytes
    destination: bytes
    protocol: int
    source_port: int
    destination_port: int
    peer: int
    came: int
    goes: int


_PACKET = re.compile(
    r"(out|in|forward) (\S+) > (\S+)(?: ([a-z0-9]+)(?:/(\d+)/(\d+))?)?(?: from (\d+))?(?: if (\d+)?>(\d+)?)?"
)


def packet(text: str) -> Packet:
    match = _PACKET.fullmatch(text)
    assert match, text
    way, source, destination, protocol, sport, dport, peer, came, goes = match.groups()
    number = PROTOCOLS[protocol] if protocol else 6
    ports = (int(sport or 0), int(dport or 0)) if sport else (40000, 443) if number in (6, 17, 132) else (8, 0)
    return Packet(
        way, packed(source), packed(destination), number, *ports, int(peer or 0), int(came or 0), int(goes or 0)
    )


def _inside(address: bytes, net: bytes, length: int) -> bool:
    bits = len(address) * 8
    return len(address) == len(net) and (
        int.from_bytes(address, "big") >> (bits - length) == int.from_bytes(net, "big") >> (bits - length)
    )


def matches(key: PolicyKey, it: Packet) -> bool:
    source, destination, protocol, sport, dport = key.selector
    to_interface, mark, mask, if_id = key.scope
    return (
        _inside(it.source, *source)
        and _inside(it.destination, *destination)
        and protocol in (0, it.protocol)
        and it.source_port & sport.mask == sport.port
        and it.destination_port & dport.mask == dport.port
        and to_interface in (0, it.goes)
        and (it.came << 12) & mask == mark
        and not if_id
    )


def first_match(policies: Mapping[PolicyKey, Policy], direction: Direction, it: Packet) -> Policy | None:
    found = [p for key, p in policies.items() if key.direction is direction and matches(key, it)]
    best = min((p.priority for p in found), default=0)
    found = [p for p in found if p.priority == best]
    # among equals the kernel takes the older: the plan must not depend on it
    assert len({(p.action, p.templates) for p in found}) <= 1, found
    return found[0] if found else None


def kernel(policies: Mapping[PolicyKey, Policy], it: Packet) -> str:
    """What becomes of a packet: `plain`, `peer<n>` (leaves in that tunnel), `ok` (delivered here) or `drop`."""
    if it.way in ("in", "forward"):
        policy = first_match(policies, Direction.IN if it.way == "in" else Direction.FWD, it)
        if policy is None:
            if it.peer:
                return "drop"  # XfrmInNoPols
        elif policy.action is Action.BLOCK:
            return "drop"
        elif [t for t in policy.templates if not t.optional]:
            if not it.peer or policy.templates[-1].source != packed(peer_address(it.peer)):
                return "drop"  # XfrmInTmplMismatch
        elif it.peer:
            return "drop"  # XfrmInTmplMismatch: came out of a tunnel nobody asks for
        if it.way == "in":
            return "ok"
    policy = first_match(policies, Direction.OUT, it)
    if policy is None:
        return "plain"
    if policy.action is Action.BLOCK:
        return "drop"
    if not policy.templates:
        return "plain"
    return f"peer{packed_peer(policy.templates[-1].destination)}"


def packed_peer(address: bytes) -> int:
    return address[3] if address[0] == 198 else int.from_bytes(address, "big") - 0xCB000000
