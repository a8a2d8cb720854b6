"""Draws the runtime tables from what the monitor knows: only rows that something touched, a few at a time.

One table after the other, with a pause for the loop every ROWS_PER_TURN rows, so that ten
thousand tunnels are shown without anybody having to wait for it. Scalars are drawn last, from
the same state.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from agent.mib.ber import Value
from agent.monitor.chain import PeerChain
from agent.monitor.counters import Traffic
from agent.monitor.peers import PEER_TABLE, Peers, PlanView
from agent.monitor.publish import Publisher
from agent.monitor.rows import Now, Values, bundle_row, ike_row, peer_row
from agent.monitor.sa_rows import Pair, ikev2_row, pairs, sa_row, selector_row
from agent.monitor.sas import Bundle, Registry, Rows
from agent.monitor.states import Oper
from agent.monitor.totals import Totals, narrow, wide
from agent.plan.model import Connection
from agent.plan.upkeep import Upkeep
from agent.store.snapshot import Configuration

STAT_TABLE: Final = "ipsecPeerStatTable"
COUNTER_TABLE: Final = "ipsecGwPeerCountersTable"
IKE_TABLE: Final = "ikeSaTable"
IKEV2_TABLE: Final = "ikev2SaTable"
BUNDLE_TABLE: Final = "ipsecBundleTable"
SA_TABLE: Final = "ipsecSaTable"
SELECTOR_TABLE: Final = "ipsecTrafficSelectorTable"
STATS, STATS64 = "ipsecStats", "ipsecGwStats64"
ADDRESS: Final = "ipsecPeerDynamicAddress"
ROWS_PER_TURN: Final = 128  # before the loop may do something else, about 3 ms

Draw = Callable[[int], Values | None]


class Shown(NamedTuple):
    """A bundle's rows of ipsecTrafficSelectorTable."""

    pairs: tuple[Pair, ...]
    rows: tuple[int, ...]


class Tables:
    """`configuration` and `plan` give what is in force; `octets(initiator SPI)` the octets of an IKE SA's
    messages;
    `interface(address)` the index of the interface that has an address, -1 for none."""

    def __init__(
        self,
        publisher: Publisher,
        registry: Registry,
        peers: Peers,
        totals: Totals,
        configuration: Callable[[], Configuration],
        plan: Callable[[], PlanView | None],
        upkeep: Callable[[int], Upkeep],
        *,
        octets: Callable[[bytes], int],
        interface: Callable[[bytes], int],
    ) -> None:
        self._publisher, self._registry, self._peers, self._totals = publisher, registry, peers, totals
        self._configuration, self._plan = configuration, plan
        self._upkeep = upkeep
        self._octets, self._interface = octets, interface
        self._selectors: dict[int, Shown] = {}  # by bundle
        self._selector_rows = Rows()
        self._states: dict[int, Oper] = {}
        self._count: Counter[Oper] = Counter()
        self.chain = PeerChain()
        self.discontinuities: dict[int, int] = {}  # by peer, sysUpTime; of those that have one

    async def draw(self, dirty: Iterable[int], statistics: Mapping[str, int], now: Now) -> None:
        """`dirty`: peers to be shown anew, beside those with a tunnel."""
        registry = self._registry
        ikes, registry.touched_ike = registry.touched_ike, set()
        bundles, registry.touched_bundles = registry.touched_bundles, set()
        sas, registry.touched_sas = registry.touched_sas, set()
        peers = {*dirty, *registry.of_peer, *self.chain.moved()}
        ike_rows = {row.number: row for row in registry.ike.values()} if ikes else {}
        alive = {bundle.number: bundle for bundle in registry.alive()} if bundles else {}
        sa_rows = {row.number: row for row in registry.sas.values()} if sas else {}

        def ike(number: int) -> Values | None:
            row = ike_rows.get(number)
            if row is None or row.sa.version != 1:
                return None
            return ike_row(row, self._connection(row.sa.connection), self._octets(row.sa.initiator_spi), now)

        def ikev2(number: int) -> Values | None:
            row = ike_rows.get(number)
            if row is None or row.sa.version != 2:
                return None
            return ikev2_row(row, self._connection(row.sa.connection), self._octets(row.sa.initiator_spi), now)

        def bundle(number: int) -> Values | None:
            found = alive.get(number)
            return None if found is None else bundle_row(found, self._connection(found.ike.connection), now)

        def sa(number: int) -> Values | None:
            row = sa_rows.get(number)
            return None if row is None else sa_row(row)

        await self._update(IKE_TABLE, ikes, ike)
        await self._update(IKEV2_TABLE, ikes, ikev2)
        await self._update(BUNDLE_TABLE, bundles, bundle)
        await self._update(SA_TABLE, sas, sa)
        self._draw_selectors(bundles, alive)
        await self._update(STAT_TABLE, peers, lambda number: self._peer(number, now))
        await self._update(COUNTER_TABLE, peers, self._counters)
        values = self._totals.values(statistics, registry, self._count)
        self._publisher.update(STATS, {0: narrow(values)})
        self._publisher.update(STATS64, {0: wide(values)})

    async def _update(self, table: str, touched: Iterable[int], draw: Draw) -> None:
        ordered = sorted(touched)
        for at in range(0, len(ordered), ROWS_PER_TURN):
            self._publisher.update(table, {number: draw(number) for number in ordered[at : at + ROWS_PER_TURN]})
            await asyncio.sleep(0)

    def _draw_selectors(self, bundles: Iterable[int], alive: Mapping[int, Bundle]) -> None:
        changes: dict[int, Values | None] = {}
        for number in bundles:
            found = alive.get(number)
            wanted = tuple(pairs(found)) if found is not None else ()
            before = self._selectors.get(number, Shown((), ()))
            if before.pairs == wanted:
                continue
            for row in before.rows:
                self._selector_rows.free(row)
                changes[row] = None
            rows = tuple(self._selector_rows.take() for _ in wanted)
            if found is None:
                self._selectors.pop(number, None)
                continue
            self._selectors[number] = Shown(wanted, rows)
            changes |= {row: selector_row(row, found, pair) for row, pair in zip(rows, wanted, strict=True)}
        if changes:
            self._publisher.update(SELECTOR_TABLE, changes)

    def _connection(self, name: str) -> Connection | None:
        plan = self._plan()
        return plan.connections.get(name) if plan is not None else None

    def _peer(self, peer: int, now: Now) -> Values | None:
        row = self._configuration().row(PEER_TABLE, peer)
        if row is None:
            self._note(peer, None)
            return None
        state = self._peers.state(peer)
        self._note(peer, state)
        registry = self._registry
        ikes = list(registry.ike_of_peer.get(peer, {}).values())
        values = peer_row(
            peer,
            state,
            self._peers.time_left(peer),
            _literal(row[ADDRESS]),
            self._peers.connection(peer),
            ikes,
            list(registry.of_peer.get(peer, {}).values()),
            registry.totals.get(peer),
            now,
        )
        standing = next((each.sa.local for each in ikes if each.sa.established or each.sa.children), b"")
        plan = self._plan()
        if plan is not None:
            values["ipsecPeerStatMtu"] = plan.mtu(peer)
            values["ipsecPeerStatSecondaryPeerIndex"] = plan.takeovers.get(peer, 0)
            primaries = (primary for primary, backup in plan.takeovers.items() if backup == peer)
            values["ipsecPeerStatPrimaryPeerIndex"] = next(primaries, 0)
        values["ipsecPeerStatNextIndex"] = self.chain.after(peer)
        values["ipsecPeerStatPfsIdentity"] = 1 if self._upkeep(peer).fresh_identity else 2
        values["ipsecPeerStatPublicInterface"] = self._interface(standing) if standing else -1
        return values

    def _note(self, peer: int, state: Oper | None) -> None:
        before = self._states.pop(peer, None)
        if before is not None:
            self._count[before] -= 1
        if state is not None:
            self._states[peer] = state
            self._count[state] += 1

    def _counters(self, peer: int) -> Values | None:
        if peer not in self._states:
            return None
        total = self._registry.totals.get(peer) or Traffic()
        return counter_row(total, self.discontinuities.get(peer, 0))


def counter_row(total: Traffic, discontinuity: int) -> Values:
    """A row of ipsecGwPeerCountersTable."""
    values: dict[str, Value] = {"ipsecGwPeerDiscontinuityTime": discontinuity}
    for way, tally in (("In", total.incoming), ("Out", total.outgoing)):
        values[f"ipsecGwPeer{way}Pkt"] = tally.packets
        values[f"ipsecGwPeer{way}Bytes"] = tally.wire
        values[f"ipsecGwPeer{way}BytesNetto"] = tally.octets
    return values


def _literal(value: object) -> bytes:
    """The octets of an address given as text; empty for a name or nothing."""
    try:
        return ipaddress.ip_address(value.decode().strip()).packed if isinstance(value, bytes) and value else b""
    except ValueError:
        return b""
