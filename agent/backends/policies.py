"""Brings the kernel's policies to the plan's: the reconciler's hands there, as connections.py are at the IKE daemon.

The kernel's picture is compared key by key with what is wanted, of a long list with pauses
for the loop, and the difference is one `apply`. What is refused is booked, told of its row and
tried again later.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Final

from agent.backends.backoff import Backoff
from agent.backends.engine import Observed, Spd
from agent.backends.installing import in_order
from agent.backends.rowstate import APPLY_TABLES, Ledger
from agent.plan.model import Policy, PolicyKey, Prefix, RowRef, Selector, Template
from agent.plan.planner import Plan

logger = logging.getLogger(__name__)

KEYS_PER_TURN: Final = 1024  # policies compared before the loop may do something else, about 3 ms
FAILURES_LOGGED: Final = 20  # of one pass
PEER_TABLE: Final = "ipsecPeerTable"


class Policies:
    """`named(row)`: how a row is called in the log; `replaced(templates)` is told which a policy of ours had that goes
    or changes. `retries`: keys that were refused, and when their time comes."""

    def __init__(
        self,
        spd: Spd,
        ledger: Ledger,
        clock: Callable[[], float],
        named: Callable[[RowRef], str],
        replaced: Callable[[Iterable[Template]], None],
    ) -> None:
        self._spd, self._ledger, self._named, self._replaced = spd, ledger, named, replaced
        self._observed: Mapping[PolicyKey, Observed] = {}
        self.retries: Backoff[PolicyKey] = Backoff(clock)

    async def look(self) -> None:
        """Take a new picture of the kernel's. Raises EngineError."""
        self._observed = await self._spd.observe()

    async def settle(self, plan: Plan, suspects: Set[PolicyKey] | None) -> None:
        """Make these as the plan has them; None: all, and remove what of ours it does not have."""
        remove, install = await self._compare(plan, plan.policies if suspects is None else suspects)
        if suspects is None:
            remove += await self._strays(plan)
        for key in (*remove, *(policy.key for policy in install)):
            held = self._observed.get(key)
            if held is not None and held.ours and held.templates:
                self._replaced(held.templates)
        failed = await self._spd.apply(remove, install) if remove or install else {}
        if suspects is None:  # those that are as wanted and never failed have nothing to be booked
            suspects = {*remove, *(policy.key for policy in install), *self._ledger.policies()}
        self._book(plan, suspects, failed)

    async def _compare(self, plan: Plan, keys: Iterable[PolicyKey]) -> tuple[list[PolicyKey], list[Policy]]:
        """What to remove and what to install of the keys that may differ, new ones in the order in which packets meet
        them: the exemptions come first, a default rule last."""
        remove: list[PolicyKey] = []
        install: list[Policy] = []
        for count, key in enumerate(keys, 1):
            wanted, held = plan.policies.get(key), self._observed.get(key)
            if wanted is None:
                if held is not None and held.ours:
                    remove.append(key)
            elif held is None or not held.ours or held[2:5] != (wanted.priority, wanted.action, wanted.templates):
                install.append(wanted)
            if count % KEYS_PER_TURN == 0:
                await asyncio.sleep(0)
        return remove, in_order(install, self._observed)

    async def _strays(self, plan: Plan) -> list[PolicyKey]:
        """What is ours in the kernel and not wanted."""
        strays: list[PolicyKey] = []
        for count, held in enumerate(list(self._observed.values()), 1):
            if held.ours and held.key not in plan.policies:
                strays.append(held.key)
            if count % KEYS_PER_TURN == 0:
                await asyncio.sleep(0)
        return strays

    def _book(self, plan: Plan, keys: Iterable[PolicyKey], failed: Mapping[PolicyKey, str]) -> None:
        """Note what is real now and what is not; each new reason is logged, of many that come at once some."""
        new = 0
        for key in keys:
            text = failed.get(key)
            if text is None:
                self.retries.forget(key)
                self._ledger.done(key)
                continue
            self.retries.failed(key)
            wanted = plan.policies.get(key)
            if not self._ledger.fail(key, _showing(wanted), text):
                continue
            new += 1
            if new <= FAILURES_LOGGED:
                of = self._named(wanted.row) if wanted is not None else "no row"
                where = show_key(key)
                logger.warning("policy %s of %s: %s", where, of, text)
        if new > FAILURES_LOGGED:
            logger.warning("%d policies failed, of which %d are named above", new, FAILURES_LOGGED)


def _showing(policy: Policy | None) -> tuple[RowRef, ...]:
    """The rows that show that a policy is not real: its own, or the peer's where that has no state."""
    if policy is None:
        return ()
    return (policy.row if policy.row.table in APPLY_TABLES else RowRef(PEER_TABLE, policy.peer),)


# ---- texts --------------------------------------------------------------------------------


def show_key(key: PolicyKey) -> str:
    """`out 10.0.0.0/8 > 0.0.0.0/0 if_id 100001`"""
    text = f"{key.direction.name.lower()} {show_selector(key.selector)}"
    interface, mark, mask, if_id = key.scope
    for name, value in (("dev", interface), ("mark", f"{mark:#x}/{mask:#x}" if mask else ""), ("if_id", if_id)):
        if value:
            text += f" {name} {value}"
    return text


def show_selector(selector: Selector) -> str:
    """`10.0.0.0/8 > 0.0.0.0/0 proto 17 port 53`, as a log line has it."""
    source, destination, protocol, source_port, destination_port = selector
    text = f"{_show_prefix(source)} > {_show_prefix(destination)}"
    if protocol:
        text += f" proto {protocol}"
    for name, ports in (("from port", source_port), ("port", destination_port)):
        if ports.mask:
            text += f" {name} {ports.port}" + (f"/{ports.mask:#x}" if ports.mask != 0xFFFF else "")
    return text


def _show_prefix(prefix: Prefix) -> str:
    return f"{ipaddress.ip_address(prefix.address)}/{prefix.length}"
