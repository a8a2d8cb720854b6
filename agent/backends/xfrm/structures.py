"""The C structures of linux/xfrm.h as tables of named fields.

Each structure is written down once; its layout (padding by the C rules of alignment), its
encoder and its decoder come from that declaration, and REGISTRY lists them all, so a new
one is property-tested the day it is added. Source of the facts: the kernel's user header
linux/xfrm.h, part of its stable interface. Host byte order but for the ports and SPIs.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from socket import htons, ntohs
from typing import Any, Final, NamedTuple

Buffer = bytes | bytearray | memoryview


class Kind(NamedTuple):
    """A scalar: code of the struct module, octets, alignment; `network`: a 16-bit integer in network byte order."""

    code: str
    size: int
    align: int
    network: bool = False


U8: Final = Kind("B", 1, 1)
U16: Final = Kind("H", 2, 2)
U32: Final = Kind("I", 4, 4)
S32: Final = Kind("i", 4, 4)
U64: Final = Kind("Q", 8, 8)
PORT: Final = Kind("H", 2, 2, network=True)
ADDRESS: Final = Kind("16s", 16, 4)  # xfrm_address_t: packed, an IPv4 one in the first four octets
SPI: Final = Kind("4s", 4, 4)


class Place(NamedTuple):
    """A scalar within the whole: dotted name, offset in octets."""

    name: str
    offset: int
    kind: Kind


class Structure:
    """One C structure: fields by name, each a Kind or another Structure.

    Values are nested mappings; an address is 16 octets, a port a host integer."""

    def __init__(self, name: str, /, **fields: Kind | Structure) -> None:
        self.name = name
        self.fields: Mapping[str, Kind | Structure] = fields
        self.align: int = max(field.align for field in fields.values())
        places: list[Place] = []
        offset = 0
        for label, field in fields.items():
            offset += -offset % field.align
            if isinstance(field, Structure):
                places += (Place(f"{label}.{p.name}", offset + p.offset, p.kind) for p in field.places)
            else:
                places.append(Place(label, offset, field))
            offset += field.size
        self.size: int = offset + -offset % self.align
        self.places: tuple[Place, ...] = tuple(places)
        self._by_name = {place.name: place for place in places}
        self._pick = self.picker(*self._by_name)
        self._pack = self.packer(*self._by_name)

    def __repr__(self) -> str:
        return f"<{self.name}, {self.size} octets>"

    def _compile(self, names: Sequence[str]) -> tuple[struct.Struct, list[int], list[int]]:
        """A struct of only these fields (the rest is padding), the order in which it wants the names, and
        which of its places are in network order."""
        order = sorted(range(len(names)), key=lambda i: self._by_name[names[i]].offset)
        code, end = "=", 0
        for i in order:
            place = self._by_name[names[i]]
            code += "x" * (place.offset - end) + place.kind.code
            end = place.offset + place.kind.size
        compiled = struct.Struct(code + "x" * (self.size - end))
        return compiled, order, [at for at, i in enumerate(order) if self._by_name[names[i]].kind.network]

    def picker(self, *names: str) -> Callable[[Buffer, int], Sequence[Any]]:
        """A reader of just these fields (dotted names): (buffer, offset) → their values in the order given.
        Raises struct.error, at reading, when the buffer is too short."""
        compiled, order, network = self._compile(names)
        unpack = compiled.unpack_from
        if order != sorted(order):
            back = [order.index(i) for i in range(len(order))]
            return lambda buffer, offset: _swapped(unpack(buffer, offset), network, ntohs, back)
        if not network:
            return unpack
        return lambda buffer, offset: _swapped(unpack(buffer, offset), network, ntohs)

    def packer(self, *names: str, **fixed: int) -> Callable[..., bytes]:
        """A writer of these fields from positional values; the `fixed` ones (`a__b` for a.b) are always the same,
        all others zero. Raises struct.error for a value that does not fit."""
        constants = tuple(fixed.values())
        compiled, order, network = self._compile([*names, *(name.replace("__", ".") for name in fixed)])
        pack = compiled.pack
        if len(order) == 1:
            return lambda *values: pack(*_swapped(values + constants, network, htons))
        arrange = itemgetter(*order)
        if not network:
            return lambda *values: pack(*arrange(values + constants))
        return lambda *values: pack(*_swapped(arrange(values + constants), network, htons))

    def encode(self, values: Mapping[str, Any]) -> bytes:
        """Octets of a nested mapping; missing fields are zero. Raises KeyError for a name that is not a field."""
        flat = dict(self._flatten(values))
        return self._pack(*(flat.get(p.name, bytes(p.kind.size) if "s" in p.kind.code else 0) for p in self.places))

    def decode(self, buffer: Buffer, offset: int = 0) -> dict[str, Any]:
        """Inverse of `encode`: every field, nested. Raises struct.error when the buffer is too short."""
        return self._nest(iter(self._pick(buffer, offset)))

    def _flatten(self, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        for label, value in values.items():
            field = self.fields[label]
            if isinstance(field, Structure):
                for name, inner in field._flatten(value):
                    yield f"{label}.{name}", inner
            else:
                yield label, value

    def _nest(self, values: Iterator[Any]) -> dict[str, Any]:
        return {
            label: field._nest(values) if isinstance(field, Structure) else next(values)
            for label, field in self.fields.items()
        }


def _swapped(
    values: Sequence[Any], network: list[int], swap: Callable[[int], int], back: list[int] | None = None
) -> Sequence[Any]:
    swapped = list(values)
    for at in network:
        swapped[at] = swap(swapped[at])
    return [swapped[at] for at in back] if back is not None else swapped


# ---- linux/xfrm.h -------------------------------------------------------------------------

SELECTOR: Final = Structure(
    "xfrm_selector",
    daddr=ADDRESS,
    saddr=ADDRESS,
    dport=PORT,
    dport_mask=PORT,
    sport=PORT,
    sport_mask=PORT,
    family=U16,
    prefixlen_d=U8,
    prefixlen_s=U8,
    proto=U8,
    ifindex=S32,
    user=U32,
)
ID: Final = Structure("xfrm_id", daddr=ADDRESS, spi=SPI, proto=U8)
LIFETIME_LIMITS: Final = Structure(
    "xfrm_lifetime_cfg",
    soft_byte_limit=U64,
    hard_byte_limit=U64,
    soft_packet_limit=U64,
    hard_packet_limit=U64,
    soft_add_expires_seconds=U64,
    hard_add_expires_seconds=U64,
    soft_use_expires_seconds=U64,
    hard_use_expires_seconds=U64,
)
LIFETIME_CURRENT: Final = Structure("xfrm_lifetime_cur", bytes=U64, packets=U64, add_time=U64, use_time=U64)
STATS: Final = Structure("xfrm_stats", replay_window=U32, replay=U32, integrity_failed=U32)
TEMPLATE: Final = Structure(
    "xfrm_user_tmpl",
    id=ID,
    family=U16,
    saddr=ADDRESS,
    reqid=U32,
    mode=U8,
    share=U8,
    optional=U8,
    aalgos=U32,
    ealgos=U32,
    calgos=U32,
)
MARK: Final = Structure("xfrm_mark", v=U32, m=U32)
IF_ID: Final = Structure("XFRMA_IF_ID", if_id=U32)
POLICY_TYPE: Final = Structure("xfrm_userpolicy_type", type=U8, reserved1=U16, reserved2=U8)
POLICY: Final = Structure(
    "xfrm_userpolicy_info",
    sel=SELECTOR,
    lft=LIFETIME_LIMITS,
    curlft=LIFETIME_CURRENT,
    priority=U32,
    index=U32,
    dir=U8,
    action=U8,
    flags=U8,
    share=U8,
)
POLICY_ID: Final = Structure("xfrm_userpolicy_id", sel=SELECTOR, index=U32, dir=U8)
SA: Final = Structure(
    "xfrm_usersa_info",
    sel=SELECTOR,
    id=ID,
    saddr=ADDRESS,
    lft=LIFETIME_LIMITS,
    curlft=LIFETIME_CURRENT,
    stats=STATS,
    seq=U32,
    reqid=U32,
    family=U16,
    mode=U8,
    replay_window=U8,
    flags=U8,
)
SA_ID: Final = Structure("xfrm_usersa_id", daddr=ADDRESS, spi=SPI, family=U16, proto=U8)
SA_FLUSH: Final = Structure("xfrm_usersa_flush", proto=U8)
ACQUIRE: Final = Structure(
    "xfrm_user_acquire", id=ID, saddr=ADDRESS, sel=SELECTOR, policy=POLICY, aalgos=U32, ealgos=U32, calgos=U32, seq=U32
)
EXPIRE: Final = Structure("xfrm_user_expire", state=SA, hard=U8)
POLICY_EXPIRE: Final = Structure("xfrm_user_polexpire", pol=POLICY, hard=U8)

# ---- linux/netlink.h ----------------------------------------------------------------------

HEADER: Final = Structure("nlmsghdr", len=U32, type=U16, flags=U16, seq=U32, pid=U32)
ATTRIBUTE: Final = Structure("nlattr", len=U16, type=U16)
ERROR: Final = Structure("nlmsgerr", error=S32, msg=HEADER)

REGISTRY: Final[tuple[Structure, ...]] = tuple(v for v in list(globals().values()) if isinstance(v, Structure))
