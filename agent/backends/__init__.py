"""What carries a plan out: the kernel and charon, or memory.

`engine` has the protocols. A backend is three engines that fit together; which one is all
that the rest of the agent has to choose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.backends.engine import Host, Ike, Spd
from agent.backends.lookout import Lookout

OpenSecret = Callable[[int, bytes], bytes]


@dataclass(frozen=True, slots=True)
class Engines:
    """Not started yet; the Reconciler starts and stops them."""

    spd: Spd
    ike: Ike
    host: Host
    lookout: Lookout


def memory_engines() -> Engines:
    """Accepts and remembers everything, touches nothing; peers are simulated."""
    from agent.backends.lookout import NoLookout
    from agent.backends.memory import MemoryHost
    from agent.backends.simulated import SimulatedIke, SimulatedSpd

    spd = SimulatedSpd()
    return Engines(spd, SimulatedIke(spd), MemoryHost(), NoLookout())


def linux_engines(run_folder: Path, open_secret: OpenSecret) -> Engines:
    """Kernel and private charon. `run_folder`: charon's socket and files; `open_secret(peer, sealed)` gives the
    pre-shared key of a peer in plain."""
    from agent.backends.charon.ike import CharonIke
    from agent.backends.host import LinuxHost
    from agent.backends.lookout import LinuxLookout
    from agent.backends.spd import KernelSpd

    return Engines(KernelSpd(), CharonIke(run_folder, open_secret), LinuxHost(), LinuxLookout())
