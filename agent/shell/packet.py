"""The packet that `explain` is asked about, as it is typed."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agent.shell.outcome import Problem
from agent.shell.values import harmless

USAGE: Final = "explain source destination [protocol [port [source-port]]] [forwarded] [in=interface] [decrypted=peer]"
NAMED: Final = ("decrypted=", "in=")
PORT_MOST: Final = 65535


@dataclass(frozen=True, slots=True)
class Packet:
    """`protocol`: name or number. `decrypted`: number of the peer whose tunnel it came out of, 0 = none. `interface`:
    name or index of the one it comes by, '' for that towards its source. `source_port` None: any."""

    source: str
    destination: str
    protocol: str = "icmp"
    source_port: int | None = None
    port: int = 0
    forwarded: bool = False
    decrypted: int = 0
    interface: str = ""


def read_packet(arguments: Sequence[str]) -> Packet:
    """Raises Problem."""
    said = dict(argument.split("=", 1) for argument in arguments if argument.startswith(NAMED))
    rest = [argument for argument in arguments if argument != "forwarded" and not argument.startswith(NAMED)]
    stray = next((word for word in rest if word.startswith("-") or "=" in word), None)
    if stray is not None:
        raise Problem(f"{harmless(stray)!r} does not belong to a packet; usage: {USAGE}")
    decrypted, interface = said.get("decrypted", "0"), said.get("in", "")
    if not 2 <= len(rest) <= 5:
        raise Problem(f"usage: {USAGE}")
    for address in rest[:2]:
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise Problem(f"{harmless(address)!r} is no address; usage: {USAGE}") from None
    protocol, port, source_port = (*rest[2:], *("icmp", "0", "")[len(rest) - 2 :])
    if not re.fullmatch(r"[a-z][a-z0-9-]*|\d{1,3}", protocol):
        raise Problem(f"{harmless(protocol)!r} is no protocol; accepted: icmp, tcp, udp, … or a number")
    for number in (port, source_port or "0"):
        if not re.fullmatch(r"\d{1,5}", number) or int(number) > PORT_MOST:
            raise Problem(f"{harmless(number)!r} is no port; accepted: 0..{PORT_MOST}")
    if not re.fullmatch(r"\d{1,9}", decrypted):
        raise Problem(f"{harmless(decrypted)!r} is no number of a peer; accepted: decrypted=1, …")
    forwarded, asked = "forwarded" in arguments, int(source_port) if source_port else None
    return Packet(rest[0], rest[1], protocol, asked, int(port), forwarded, int(decrypted), interface)
