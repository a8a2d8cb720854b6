"""What carries a plan out: the kernel and charon, or memory.

`engine` has the protocols. A backend is five engines that fit together; which one is all
that the rest of the agent has to choose.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.backends.engine import Host, Ike, Links, PacketFilter, Spd
from agent.backends.lookout import Lookout

OpenSecret = Callable[[int, bytes], bytes]


@dataclass(frozen=True, slots=True)
class Engines:
    """Not started yet; the Reconciler starts and stops them."""

    spd: Spd
    ike: Ike
    host: Host
    filter: PacketFilter
    links: Links
    lookout: Lookout


def memory_engines() -> Engines:
    """Accepts and remembers everything, touches nothing; peers are simulated."""
    from agent.backends.lookout import NoLookout
    from agent.backends.memory import MemoryFilter, MemoryHost, MemoryLinks
    from agent.backends.simulated import SimulatedIke, SimulatedSpd

    spd = SimulatedSpd()
    host = MemoryHost(interfaces=dict(socket.if_nameindex()))
    return Engines(spd, SimulatedIke(spd), host, MemoryFilter(), MemoryLinks(), NoLookout())


def linux_engines(run_folder: Path, open_secret: OpenSecret, open_key: OpenSecret) -> Engines:
    """Kernel and private charon. `run_folder`: charon's socket and files; `open_secret(peer, sealed)` gives the
    pre-shared key of a peer in plain, `open_key(number, sealed)` a private key of ipsecPublicKeyTable in DER."""
    from agent.backends.charon.ike import CharonIke
    from agent.backends.host import LinuxHost
    from agent.backends.links import KernelLinks
    from agent.backends.lookout import LinuxLookout
    from agent.backends.nftables import NftTable
    from agent.backends.spd import KernelSpd

    ike = CharonIke(run_folder, open_secret, open_key=open_key)
    return Engines(KernelSpd(), ike, LinuxHost(), NftTable(), KernelLinks(), LinuxLookout())
