"""Step 5 of a SET of a manager: the manual's rules for the values it names, and whether it would lock its sender out.

Both need the plan, which the store does not know; so the store is handed this check. It
is pure: nothing is done for a candidate but to plan it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from agent.backends.engine import Host
from agent.backends.reconcile import Reconciler
from agent.plan.check import RuleError, check_lockout, check_rules
from agent.plan.model import Capabilities, Flow
from agent.plan.planner import make_plan
from agent.store.edits import refusal
from agent.store.errors import ErrorStatus
from agent.store.hooks import Edit, Origin, RowChange
from agent.store.snapshot import Configuration

ALLOW_LOCKOUT = "ipsecGwAllowLockout"
TRUE = 1
UDP = 17


def check_named(
    before: Configuration,
    after: Configuration,
    rows: tuple[RowChange, ...],
    edits: Sequence[Edit],
    capabilities: Capabilities,
) -> None:
    """The manual's rules for what a SET or load names. Raises Refused."""
    named = [(edit.column.table, edit.number, edit.column.name, edit.value) for edit in edits]
    try:
        check_rules(before, after, rows, named, capabilities)
    except RuleError as error:
        raise refusal(ErrorStatus.INCONSISTENT_VALUE, error.position, edits[error.position], error.text) from None


class SetChecks:
    """A `Check` of agent.store.hooks. `listen`: addresses and UDP ports that SNMP is answered on."""

    def __init__(
        self, reconciler: Reconciler, host: Host, capabilities: Capabilities, listen: Iterable[tuple[str, int]]
    ) -> None:
        self._reconciler, self._host = reconciler, host
        self._capabilities = capabilities
        self._listen = [(ipaddress.ip_address(address), port) for address, port in listen]

    def __call__(
        self,
        before: Configuration,
        after: Configuration,
        rows: tuple[RowChange, ...],
        edits: Sequence[Edit],
        origin: Origin,
    ) -> None:
        check_named(before, after, rows, edits, self._capabilities)
        allowed = any(edit.column.name == ALLOW_LOCKOUT and edit.value == TRUE for edit in edits)
        if not allowed:
            self._check_lockout(before, after, edits, origin)

    def _check_lockout(
        self, before: Configuration, after: Configuration, edits: Sequence[Edit], origin: Origin
    ) -> None:
        # SNMP is answered before the first plan is made: then one is made for this.
        running = self._reconciler.plan or make_plan(before, self._reconciler.environment)
        planned = self._reconciler.preview(after)
        flows = self._flows(origin)
        if running.names_interfaces or planned.names_interfaces:  # packets come by which the answers go
            flows = tuple(flow._replace(from_interface=self._host.route_to(flow.source).interface) for flow in flows)
        cut = check_lockout(running, planned, flows)
        if cut:
            accepted = f"the same SET with {ALLOW_LOCKOUT}.0 = true, or a rule that lets this pass"
            raise refusal(ErrorStatus.INCONSISTENT_VALUE, 0, edits[0], cut, accepted)

    def _flows(self, origin: Origin) -> tuple[Flow, ...]:
        """The SET's own flow, and the TCP connections into this host."""
        flows = self._host.flows()
        if not origin.source or not origin.local:
            return flows
        source, local = (ipaddress.ip_address(text.split("%")[0]) for text in (origin.source, origin.local))
        if source.is_loopback:
            return flows
        ports = [port for address, port in self._listen if address == local or address.is_unspecified]
        own = [Flow(source.packed, local.packed, UDP, destination_port=port, way="in") for port in ports]
        return (*own, *flows)
