"""What carries a plan out: the kernel and charon, or memory.

`engine` has the protocols. A backend is three engines that fit together; which one is all
that the rest of the agent has to choose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.backends.engine import Host, Ike, Spd

OpenSecret = Callable[[int, bytes], bytes]


@dataclass(frozen=True, slots=True)
class Engines:
    """Not started yet; the Reconciler starts and stops them."""

    spd: Spd
    ike: Ike
    host: Host


def memory_engines() -> Engines:
    """Accepts and remembers everything, touches nothing."""
    from agent.backends.memory import MemoryHost, MemoryIke, MemorySpd

    return Engines(MemorySpd(), MemoryIke(), MemoryHost())


def linux_engines(run_folder: Path, open_secret: OpenSecret, open_key: OpenSecret) -> Engines:
    """Kernel and private charon. `run_folder`: charon's socket and files; `open_secret(peer, sealed)` gives the
    pre-shared key of a peer in plain, `open_key(number, sealed)` a private key of ipsecPublicKeyTable in DER."""
    from agent.backends.charon.ike import CharonIke
    from agent.backends.host import LinuxHost
    from agent.backends.spd import KernelSpd

    return Engines(KernelSpd(), CharonIke(run_folder, open_secret, open_key=open_key), LinuxHost())
