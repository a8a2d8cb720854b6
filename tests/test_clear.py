"""ipsecGwCommand: clear-configuration is one commit back to a first start; key pairs, certificates and users stay."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.clear import KEPT, LINES_KEPT, WIZARD_LOG, Clearing, Commands, WizardLog
from agent.mib import load_schema
from agent.mib.ber import Value
from agent.mib.schema import NUMBERS, Keeping, Role
from agent.seed import seed, seed_edits
from agent.store.errors import ErrorStatus, Refused
from agent.store.hooks import AGENT, Edit, Origin
from agent.store.references import pointing_columns, target_of
from agent.store.snapshot import Configuration
from agent.store.store import Store

SCHEMA = load_schema()
MANAGER = Origin("snmp", "admin", "127.0.0.1", "127.0.0.1", secure=True)
CLEARED = [t for t in SCHEMA.tables.values() if t.keeping is Keeping.STORED and t.name not in KEPT]


def edit(instance: str, value: Value) -> Edit:
    name, number = instance.split(".")
    return Edit(SCHEMA.columns[name], int(number), value)


CLEAR, RECONCILE = edit("ipsecGwCommand.0", 2), edit("ipsecGwCommand.0", 3)


class Gateway:
    """A seeded store with the commands."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.looks = 0
        store.expanders.append(Clearing(seed_edits(SCHEMA)))
        store.commanded.append(Commands(WizardLog(store.live, lambda: 1_700_000_000.5), self.look))

    def look(self) -> None:
        self.looks += 1

    def log(self) -> list[str]:
        rows = self.store.view.table(WIZARD_LOG).rows()
        return [text.decode() for row in rows if isinstance(text := row["ipsecGwWizardLogText"], bytes)]

    async def set(self, *edits: Edit) -> Configuration:
        return await self.store.commit(edits, MANAGER)


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    store = Store.open(SCHEMA, "", tmp_path)
    await seed(store)
    yield Gateway(store)
    await store.close()


def contents(configuration: Configuration) -> dict[tuple[str, int], dict[str, Value]]:
    """Everything but the generations of rows."""
    return {
        (name, row.number): {
            c.name: row[c.name] for c in snapshot.table.columns if c.traits.role is not Role.ROW_GENERATION
        }
        for name, snapshot in configuration.tables.items()
        for row in snapshot.rows()
    }


def a_row_of_each_table() -> list[Edit]:
    """By its creating columns, agent's own tables too; every pointer empty."""
    edits = []
    for table in SCHEMA.tables.values():
        if table.keeping is not Keeping.STORED or table.scalar:
            continue
        assert table.row_status is not None, f"{table.name} cannot be cleared without"
        edits.append(Edit(table.row_status, 5, 4))
        edits += [Edit(c, 5, 5) for c in table.creating if c.traits.role in NUMBERS]
    return edits


def test_nothing_that_stays_points_to_something_that_goes() -> None:
    assert set(KEPT) <= set(SCHEMA.tables)
    for column in pointing_columns(SCHEMA):
        if column.table in KEPT:
            assert target_of(column) in KEPT, column.name


async def test_it_is_as_at_a_first_start_but_for_keys_certificates_and_users(gateway: Gateway) -> None:
    first = contents(gateway.store.running)
    await gateway.store.commit(a_row_of_each_table(), AGENT)
    for at in (1, 2, 3):
        await gateway.set(
            edit(f"ipsecPeerTrafficList.{at}", 0),
            edit(f"ipsecPeerPreSharedKey.{at}", b"a key of its own"),
            edit(f"ipsecPeerIkeProfile.{at}", 1001),
        )
    await gateway.set(edit("ipsecTrProto.1", 17), edit("ipsecPeerTrafficList.2", 1))
    await gateway.set(
        edit("ipsecTrProto.2", 17), edit("ipsecTrNextIndex.1", 2), edit("ipsecGlobContPreIpsecRules.0", 1)
    )
    mine = edit("ikePrfDescription.1001", b"mine"), edit("ikePrfLifeSeconds.1001", 60)
    await gateway.store.commit(mine, AGENT)  # some columns do not act yet: refused from managers
    await gateway.set(edit("ikePropEncAlg.1", 3), edit("ikePrfProposal.1001", 1), edit("ikePrfProposal.7", 1))
    await gateway.set(edit("ipsecGlobIkeProfile.0", 7), edit("ipsecGwIkeProposalRowStatus.1004", 6))
    await gateway.set(edit("ipsecGlobEnabled.0", 1))
    before = gateway.store.running

    after = await gateway.set(CLEAR)
    assert after.generation == before.generation + 1
    kept = {where: row for where, row in contents(before).items() if where[0] in KEPT}
    gone = {where: row for where, row in first.items() if where[0] not in KEPT}
    assert contents(after) == kept | gone
    assert list(after.table("ipsecPublicKeyTable").numbers()) == [5]
    assert "Clear configuration, by admin" in gateway.log()[0]
    assert "  - ipsecPeerTable: 4 rows removed" in gateway.log()
    assert (await gateway.set(CLEAR)).generation == after.generation, "an honest retry"
    assert "nothing to clear" in gateway.log()[-1]
    assert after.scalar("ipsecGwCommand") == 1, "it reads none"


async def test_what_is_seeded_and_out_of_service_is_in_service_again(gateway: Gateway) -> None:
    first = contents(gateway.store.running)
    await gateway.set(edit("ipsecGwIkeProposalRowStatus.1010", 2))
    assert contents(await gateway.set(CLEAR)) == first


async def test_it_comes_with_nothing_of_what_it_clears(gateway: Gateway) -> None:
    with pytest.raises(Refused) as refused:
        await gateway.set(CLEAR, edit("ipsecPeerTrafficList.1", 0))
    assert refused.value.status is ErrorStatus.INCONSISTENT_VALUE and refused.value.edit == 1
    after = await gateway.set(edit("ipsecGwSystemName.0", b"hub"), CLEAR)
    assert after.scalar("ipsecGwSystemName") == b"hub"


async def test_reconcile_acts_although_nothing_differs(gateway: Gateway) -> None:
    generation = gateway.store.running.generation
    assert (await gateway.set(RECONCILE)).generation == generation
    assert gateway.looks == 1
    await gateway.set(RECONCILE, edit("ipsecGwSystemName.0", b"x"))
    assert gateway.looks == 2
    await gateway.set(edit("ipsecGwCommand.0", 1), edit("ipsecGwSystemName.0", b"y"))
    assert gateway.looks == 2
    with pytest.raises(Refused):
        await gateway.set(RECONCILE, edit("ipsecPeerIkeProfile.99", 4))
    assert gateway.looks == 2, "a refused SET does nothing"
    await gateway.set(edit("ipsecGwCommand.0", 4))  # a sound store: nothing to accept
    assert not gateway.store.damaged


async def test_the_log_keeps_its_last_lines(gateway: Gateway) -> None:
    log = WizardLog(gateway.store.live)
    for at in range(LINES_KEPT + 30):
        log.write(f"line {at}", "é" * 200)
    table = gateway.store.view.table(WIZARD_LOG)
    assert list(table.numbers()) == list(range(261, 461))
    assert gateway.log()[-2:] == ["line 229", "é" * 127]


@pytest.mark.slow
async def test_ten_thousand_peers_are_cleared(gateway: Gateway) -> None:
    for start in range(1, 10_001, 500):
        await gateway.store.commit(
            [edit(f"ipsecPeerTrafficList.{n}", n) for n in range(start, start + 500)]
            + [edit(f"ipsecTrProto.{n}", 6) for n in range(start, start + 500)],
            AGENT,
        )
    gaps: list[float] = []

    async def reading() -> None:
        while True:
            begin = time.process_time()
            await asyncio.sleep(0.01)
            gaps.append(time.process_time() - begin)

    reader = asyncio.create_task(reading())
    begin = time.process_time()  # what others do on this machine meanwhile is not ours
    after = await gateway.set(CLEAR)
    took = time.process_time() - begin
    assert took < 10  # measured: 1.7, of which the longest pause is 0.3, of the garbage collector
    reader.cancel()
    assert max(gaps) < 0.4 * took, f"reads go on meanwhile: {took}, {sorted(gaps)[-5:]}"
    assert len(after.table("ipsecPeerTable")) == len(after.table("ipsecTrafficTable")) == 0
