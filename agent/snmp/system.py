"""The system group of SNMPv2-MIB, by which managers recognise an agent (RFC 3418 section 2).

Read-only for now; sysServices 76 is a router that also offers end-to-end and application
services: 2^(3-1) + 2^(4-1) + 2^(7-1).
"""

from __future__ import annotations

import platform
import socket
import time
from collections.abc import Callable

from agent.mib.ber import Value, Wire, encode_value
from agent.snmp.tree import Arcs

SYSTEM: Arcs = (1, 3, 6, 1, 2, 1, 1)
IDENTITY: Arcs = (1, 3, 6, 1, 4, 1, 272, 4, 26, 200)  # ipsecGatewayExtMIB, until there is a registration of products
SERVICES = 76


class Scalar:
    """An object with the one instance 0, whose value is asked for each time."""

    def __init__(self, oid: Arcs, wire: Wire, value: Callable[[], Value]) -> None:
        self.oid = oid
        self.wire = wire
        self._value = value

    def instance(self, arcs: Arcs) -> bytes | None:
        return encode_value(self.wire, self._value()) if arcs == (0,) else None

    def after(self, arcs: Arcs) -> tuple[Arcs, bytes] | None:
        return None if arcs >= (0,) else ((0,), encode_value(self.wire, self._value()))


def system_group(version: str, clock: Callable[[], float] = time.monotonic) -> list[Scalar]:
    """sysDescr to sysServices. `version` is the agent's; `clock` counts seconds."""
    start = clock()
    description = f"ipsec-agent {version}, {platform.system()} {platform.release()} {platform.machine()}".encode()
    objects: list[tuple[int, Wire, Callable[[], Value]]] = [
        (1, Wire.OCTET_STRING, lambda: description[:255]),
        (2, Wire.OBJECT_IDENTIFIER, lambda: IDENTITY),
        (3, Wire.TIMETICKS, lambda: int((clock() - start) * 100) % (1 << 32)),
        (4, Wire.OCTET_STRING, lambda: b""),
        (5, Wire.OCTET_STRING, lambda: socket.gethostname().encode()[:255]),
        (6, Wire.OCTET_STRING, lambda: b""),
        (7, Wire.INTEGER, lambda: SERVICES),
    ]
    return [Scalar((*SYSTEM, number), wire, value) for number, wire, value in objects]
