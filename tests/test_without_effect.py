"""Objects that nothing on Linux corresponds to: stored or refused, by SETs over UDP, as their limit says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from agent.backends import memory_engines
from agent.backends.reconcile import Reconciler
from agent.mib.ber import Value, decode_value
from agent.mib.schema import Role
from agent.plan.capabilities import MEMORY
from agent.plan.without_effect import PADDING
from agent.setchecks import SetChecks
from agent.store.errors import ErrorStatus
from tests.snmp_station import GET, NULL, SCHEMA, SET, Manager, Served, instance, manager, served, until

HASHES = (
    *("PeerHashLines", "TrafHashLines", "SaBIDHashLines", "TunRngHashLines", "BundleIdxHashLines", "IfcHashLines"),
    *("DevHashLines", "RtHashLines", "ExtRtHashLines", "CacheHashLines", "MaxCacheEntries"),
    *("IPFragMaxFragments", "IPFragMaxTraces"),
    *("AutoRehashMaxEntriesPerLine", "AutoRehashMaxRehashedEntriesPerLine"),
)
TRUE, FALSE = 1, 2


class Case(NamedTuple):
    """`stored`: values that are read back as written. `refused`: value and words of the reason, '' for none."""

    stored: tuple[Value, ...]
    refused: tuple[Value, str] | None = None


CASES = {
    **{f"ipsecTune{name}": Case((1, 4096)) for name in HASHES},
    "ipsecGlobNoKeyHashPayloads": Case((TRUE, FALSE)),
    "ipsecGlobSpiSize": Case((0, 8)),
    "ipsecGlobZeroIsakmpCookies": Case((TRUE, FALSE)),
    "ipsecGlobContNoWellKnownCpis": Case((TRUE, FALSE)),
    "ipsecGlobContObsoleteFeatureMask": Case((0x7FFFFFFF, 0)),
    "ipsecGlobNoCrls": Case((TRUE,), (FALSE, "publish the list by HTTP or LDAP")),
    "ipsecGlobContUse32BitCpi": Case((FALSE,), (TRUE, "a CPI has 16 bits on the wire")),
    "ipsecGlobContPathFinder": Case((2,), (1, "accepted: disabled(2)")),
    "ipsecGlobContCompatiblity": Case((b"\x40", b""), (b"\x80", "RIPEMD-160, which no engine has")),
    "ipsecPrfVerifyPad": Case((3, TRUE), (FALSE, "self-describing padding")),
}


@asynccontextmanager
async def gateway(state: Path) -> AsyncIterator[tuple[Served, Manager]]:
    """An agent with engines of memory and what it checks of a SET."""
    async with served(state) as at, manager(at.address) as asking:
        engines = memory_engines()
        reconciler = Reconciler(at.store, SCHEMA, engines.spd, engines.ike, engines.host, MEMORY)
        at.store.checks.append(SetChecks(reconciler, engines.host, MEMORY, ()))
        await reconciler.start()
        try:
            yield at, asking
        finally:
            await reconciler.stop()


def row_of(name: str) -> int:
    return 0 if SCHEMA.tables[SCHEMA.columns[name].table].scalar else 1


async def write(asking: Manager, name: str, value: Value, row: int | None = None) -> int:
    where = instance(name, row_of(name) if row is None else row)
    return (await asking.ask(SET, [(where, SCHEMA.columns[name].encode(value))])).status


async def read(asking: Manager, name: str) -> Value:
    answer = await asking.ask(GET, [(instance(name, row_of(name)), NULL)])
    return decode_value(answer.varbinds[0][1])


def test_no_object_without_effect_is_forgotten() -> None:
    """Those that are planned (ISDN, the old XAUTH timeout) keep to their default until then."""
    without = {c.name for c in SCHEMA.columns.values() if c.traits.mechanism == "none" and c.writable}
    later = {name for name in without if SCHEMA.columns[name].traits.stage == "later"}
    assert without - later == set(CASES)
    assert all(SCHEMA.columns[name].traits.limit for name in without)
    assert not any(SCHEMA.columns[name].traits.role is Role.SECRET for name in without)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
async def test_each_is_as_its_limit_says(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    async with gateway(tmp_path) as (at, asking):
        if not SCHEMA.tables[SCHEMA.columns[name].table].scalar:
            assert await write(asking, "ipsecPrfProposal", 0, 1) == 0
        for value in case.stored:
            assert (value, await write(asking, name, value)) == (value, 0)
            assert await read(asking, name) == value
        if case.refused is None:
            return
        value, why = case.refused
        assert await write(asking, name, value) == ErrorStatus.INCONSISTENT_VALUE
        assert why in at.refused[-1] and name in at.refused[-1]
        assert await read(asking, name) == case.stored[-1]


async def test_a_profile_that_wants_padding_verified_is_told_that_it_is_not(tmp_path: Path) -> None:
    async with gateway(tmp_path) as (at, asking):
        needed: dict[str, Value] = {
            "ipsecGlobEnabled": TRUE,
            "ipsecPrfProposal": 0,
            "ipsecPrfVerifyPad": TRUE,
            "ipsecTrProto": 255,
            "ipsecPeerTrafficList": 1,
            "ipsecPeerDynamicAddress": b"192.0.2.9",
            "ipsecGlobIpsecProfile": 1,
        }
        for name, value in needed.items():
            assert (name, await write(asking, name, value)) == (name, 0)
        loopback = await asking.ask(
            SET, [(instance("ipsecPeerPreSharedKey", 1), SCHEMA.columns["ipsecPeerPreSharedKey"].encode(b"secret"))]
        )
        assert loopback.status == 0
        await until(lambda: (row := table_row(at)) is not None and row == PADDING.encode())


def table_row(at: Served) -> Value | None:
    row = at.store.live.table("ipsecGwIpsecProfileApplyTable").row(1)
    return None if row is None else row["ipsecGwIpsecProfileLastError"]
