"""Field rules of virtual interfaces, their selectors and addresses, and of backup peers; as in rules.py."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from agent.plan import cells, numbers
from agent.plan.model import Capabilities, RowView
from agent.plan.peer_selectors import BOTH, BOTH_SIDES, INITIATOR, PEER_TRAFFIC, RESPONDER, ROUTED, mask_length
from agent.plan.peers import NO_INTERFACE
from agent.plan.proposals import V1
from agent.plan.rules import After, RowRule
from agent.plan.traffic import PORT_PROTOCOLS
from agent.plan.virtual import PEER_ADDRESSES, PEER_ROUTES, PEERS

ALWAYS_UP: Final = 2  # ipsecPeerStartMode
REDUCED: Final = 2  # ipsecPeerIfStateMode
LEAST_MEMORY: Final = 4096  # octets; less would hold no packet


# ---- single values --------------------------------------------------------------------------


def private_interface(value: object, capabilities: Capabilities) -> str:
    if isinstance(value, int) and value > 0 and not capabilities.nftables:
        return f"spoofed packets are dropped by nftables, and {capabilities.nftables_lack}; accepted: -1"
    return ""


def selector_protocol(value: object, capabilities: Capabilities) -> str:
    return "it would be protocol 255; accepted: 0..254, 256 for any" if value == 255 else ""


def dotted_mask(value: object, capabilities: Capabilities) -> str:
    if isinstance(value, bytes) and mask_length(value) is None:
        return "a mask has no holes; accepted: 0.0.0.0, 128.0.0.0 … 255.255.255.255"
    return ""


def minutes(value: object, capabilities: Capabilities) -> str:
    return "no time; accepted: 0 for ever, 1 and more minutes" if isinstance(value, int) and value < 0 else ""


def memory(value: object, capabilities: Capabilities) -> str:
    if isinstance(value, int) and value < LEAST_MEMORY:
        return f"no packet could be put together again; accepted: {LEAST_MEMORY} and more octets"
    return ""


# ---- selectors --------------------------------------------------------------------------------


def _its_peer(row: RowView, after: After) -> RowView | None:
    number = cells.number(row, "ipsecPeerTrafficIfindex") - numbers.INTERFACE_BASE
    return after.configuration.row(PEERS, number) if number > 0 else None


def _peer_is_there(row: RowView, after: After) -> str:
    if _its_peer(row, after) is None:
        return f"no such peer; accepted: {numbers.INTERFACE_BASE} + the number of a row of ipsecPeerTable"
    return ""


def _selector_net(side: str) -> RowRule:
    address, mask = f"ipsecPeerTraffic{side}Address", f"ipsecPeerTraffic{side}Mask"

    def problem(row: RowView, after: After) -> str:
        length = mask_length(cells.octets(row, mask))
        if length is None:
            return ""  # told by the mask itself
        value = int.from_bytes(cells.octets(row, address), "big")
        if length == 0 and value:
            return f"an address with mask 0 would stand for every address; accepted: {mask} with it"
        if value & (1 << (32 - length)) - 1:
            return f"the address has host bits beyond the mask; accepted: the address of a net of {length} bits"
        return ""

    return RowRule((address, mask), problem)


def _selector_net6(side: str) -> RowRule:
    address, length = f"ipsecPeerTrafficIp6{side}Address", f"ipsecPeerTrafficIp6{side}MaskLen"

    def problem(row: RowView, after: After) -> str:
        value, bits = int.from_bytes(cells.octets(row, address), "big"), cells.number(row, length)
        peer = _its_peer(row, after)
        if (value or bits) and peer is not None and cells.number(peer, "ipsecPeerIkeVersion") == V1:
            return "IKEv1 carries one pair of IPv4 nets; accepted: a peer with ipsecPeerIkeVersion 2"
        if not bits and value:
            return f"an address with prefix 0 would stand for every address; accepted: {length} with it"
        if bits and value & (1 << (128 - bits)) - 1:
            return f"the address has host bits beyond the prefix; accepted: the address of a net of {bits} bits"
        return ""

    return RowRule((address, length), problem)


def _selector_ports(side: str) -> RowRule:
    port, count = f"ipsecPeerTraffic{side}Port", f"ipsecPeerTraffic{side}PortRange"

    def problem(row: RowView, after: After) -> str:
        first, many = cells.number(row, port), cells.number(row, count)
        if first <= 0:
            return ""
        if cells.number(row, "ipsecPeerTrafficProtocol") not in PORT_PROTOCOLS:
            return f"ports go with {', '.join(PORT_PROTOCOLS.values())} only; accepted: 0 or -1 for any"
        if first + max(many, 1) - 1 > 0xFFFF:
            return f"the ports end with 65535; accepted: {count} 1..{0x10000 - first}"
        peer = _its_peer(row, after)
        if many > 1 and peer is not None and cells.number(peer, "ipsecPeerIkeVersion") == V1:
            return f"IKEv1 carries one port; accepted: {count} 0 or 1, or a peer with ipsecPeerIkeVersion 2"
        return ""

    return RowRule((port, count, "ipsecPeerTrafficProtocol"), problem)


def _is_routed(row: RowView, after: After) -> str:
    peer = _its_peer(row, after)
    if cells.number(row, "ipsecPeerTrafficPolicy") not in ROUTED or peer is None:
        return ""
    if cells.number(peer, "ipsecPeerVirtualInterface") == NO_INTERFACE:
        return (
            "its packets would be routed to the peer's virtual interface, and the peer has none; accepted: "
            f"role-initiator({INITIATOR}), role-responder({RESPONDER}), both({BOTH}), or a peer with "
            "ipsecPeerVirtualInterface enabled(2)"
        )
    return ""


def _both_sides(row: RowView, after: After) -> str:
    peer = _its_peer(row, after)
    if cells.number(row, "ipsecPeerTrafficType") == BOTH_SIDES or peer is None:
        return ""
    if cells.number(peer, "ipsecPeerIkeVersion") == V1:
        return "IKEv1 carries one pair of nets; accepted: both-sides(3), or a peer with ipsecPeerIkeVersion 2"
    return ""


# ---- addresses and routes ------------------------------------------------------------------------


def _prefix(address: str, length: str, whole: bool) -> RowRule:
    """`whole`: the address is that of a net."""

    def problem(row: RowView, after: After) -> str:
        octets, bits = cells.octets(row, address), cells.number(row, length)
        width = len(octets) * 8 or 32
        if bits > width:
            return f"no prefix of such an address; accepted: {length} 0..{width}"
        if whole and int.from_bytes(octets, "big") & (1 << (width - bits)) - 1:
            return f"the address has host bits beyond the prefix; accepted: the address of a net of {bits} bits"
        return ""

    return RowRule((length, address), problem)


def _same_family(row: RowView, after: After) -> str:
    near, far = (cells.octets(row, f"ipsecGwPeerAddress{name}") for name in ("Address", "Remote"))
    if near and far and len(near) != len(far):
        return "both ends of an interface are of one family; accepted: an address of the same, or empty"
    return ""


# ---- backup peers ----------------------------------------------------------------------------------


def _backup(row: RowView, after: After) -> str:
    backup = cells.number(row, "ipsecPeerSecondaryPeerIndex")
    if backup <= 0:
        return ""
    if cells.number(row, "ipsecPeerStartMode") != ALWAYS_UP or cells.number(row, "ipsecPeerIfStateMode") != REDUCED:
        return "a backup peer needs ipsecPeerStartMode always-up(2) and ipsecPeerIfStateMode reduced(2); accepted: 0"
    seen = {row.number}
    while backup > 0:
        if backup in seen:
            return "a ring: nobody would be left to stand for the others; accepted: a peer that leads out of it, or 0"
        seen.add(backup)
        other = after.configuration.row(PEERS, backup)
        if other is None:
            return "no such peer; accepted: a row of ipsecPeerTable, or 0" if len(seen) == 2 else ""
        backup = cells.number(other, "ipsecPeerSecondaryPeerIndex")
    return ""


def _no_backup(row: RowView, after: After) -> str:
    """The other way: what a backup peer needs is not taken away."""
    return _backup(row, after) if cells.number(row, "ipsecPeerSecondaryPeerIndex") > 0 else ""


INTERFACE_RULES: Final[Mapping[str, tuple[RowRule, ...]]] = MappingProxyType(
    {
        PEER_TRAFFIC: (
            RowRule(("ipsecPeerTrafficIfindex",), _peer_is_there),
            *(rule(side) for side in ("Local", "Remote") for rule in (_selector_net, _selector_net6, _selector_ports)),
            RowRule(("ipsecPeerTrafficType",), _both_sides),
            RowRule(("ipsecPeerTrafficPolicy",), _is_routed),
        ),
        PEER_ADDRESSES: (
            _prefix("ipsecGwPeerAddressAddress", "ipsecGwPeerAddressPrefixLength", whole=False),
            RowRule(("ipsecGwPeerAddressRemote", "ipsecGwPeerAddressAddress"), _same_family),
        ),
        PEER_ROUTES: (_prefix("ipsecGwPeerRouteDestination", "ipsecGwPeerRoutePrefixLength", whole=True),),
        PEERS: (
            RowRule(("ipsecPeerSecondaryPeerIndex",), _backup),
            RowRule(("ipsecPeerStartMode", "ipsecPeerIfStateMode"), _no_backup),
        ),
    }
)
"""What has to fit, by table."""
