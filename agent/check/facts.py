"""What is known of machine and store, as plain data; tests make it by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from agent.config import Settings
from agent.plan.model import PolicyKey
from agent.plan.planner import Plan


@dataclass(frozen=True, slots=True)
class PortHolder:
    """Who has a UDP port: process number and name, 0 and '' where that cannot be seen. `ours`: it is our charon."""

    port: int
    pid: int
    name: str
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """`plan`: None where there is no store (`store_error` says why). Modes are permission bits, None where there is no
    file. `sysctls` by name, None where the kernel has none. `agent_pid`: who holds the state folder's lock, 0 for
    nobody."""

    settings: Settings
    plan: Plan | None = None
    store_error: str = ""
    root: bool = True
    net_admin: bool = True
    xfrm_error: str = ""
    modules_missing: tuple[str, ...] = ()
    transforms_missing: tuple[str, ...] = ()  # `ESP for IPv4` …
    charon: bool = True
    charon_version: str = ""
    packages_missing: tuple[str, ...] = ()
    ports: tuple[PortHolder, ...] = ()
    snmp_holder: PortHolder | None = None
    sysctls: Mapping[str, int | None] = field(default_factory=dict)
    state_mode: int | None = 0o700
    key_mode: int | None = 0o600
    ssh_key_mode: int | None = None
    free_octets: int = 1 << 40
    clock: float = 0.0  # seconds since 1970
    built: float = 0.0  # when the program was installed
    store_written: float = 0.0
    agent_pid: int = 0
    others_agent: bool = False  # an agent of another state folder makes policies in this network namespace
    foreign: tuple[PolicyKey, ...] = ()  # policies that are not ours, on selectors that the plan wants
    foreign_count: int = 0
    nft: bool = True

    @property
    def linux(self) -> bool:
        return self.settings.backend == "linux"

    def but(self, **changes: object) -> Facts:
        """The same with some facts other; for tests."""
        return replace(self, **changes)  # type: ignore[arg-type]


STATE_OCTETS: Final = 100 << 20  # below this a store of 10,000 peers, its journal and two copies may not fit
