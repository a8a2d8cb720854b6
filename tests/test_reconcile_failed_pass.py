"""After a pass that failed half-way everything of it is made real, not only the policies."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from agent.backends import reconcile
from agent.backends.engine import EngineError
from agent.backends.memory import MemoryFilter, MemoryHost, MemoryIke, MemoryLinks, MemorySpd
from agent.mib.ber import Value
from agent.plan.model import Policy, PolicyKey
from tests.test_reconcile_run import HERE, ON, Bench, peer
from tests.xfrm_namespace import until


class Failing(MemorySpd):
    """Fails as often as it is told to."""

    times = 0

    async def apply(self, remove: Sequence[PolicyKey], install: Sequence[Policy]) -> Mapping[PolicyKey, str]:
        if self.times:
            self.times -= 1
            raise EngineError("the kernel did not answer within 5 s")
        return await super().apply(remove, install)


async def test_filters_and_links_are_handed_over_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "AFTER_A_DEFECT_SECONDS", 0.02)
    spd, filter, links = Failing(), MemoryFilter(), MemoryLinks()
    bench = Bench(tmp_path, spd, MemoryIke(), MemoryHost(own=[HERE]), filter, links=links)
    await bench.start()
    virtual: dict[str, Value] = {"ipsecPeerVirtualInterface": 2}
    table, number, cells = peer(7, 0)
    await bench.set(ON, (table, number, {**cells, **virtual}))
    plan = bench.reconciler.plan
    assert plan is not None and plan.links and plan.filters and filter.parts.keys() == plan.filters.keys()
    spd.times = 1
    await bench.set((table, number, {"ipsecPeerVirtualInterface": 1}), wait=False)
    await until(lambda: not spd.times)
    await asyncio.sleep(0.1)
    await bench.reconciler.settled()
    plan = bench.reconciler.plan
    assert plan is not None and not plan.links
    assert links.links == plan.links and filter.parts.keys() == plan.filters.keys()
    spd.times = 1
    await bench.set((table, number, virtual), wait=False)
    await until(lambda: not spd.times)
    await asyncio.sleep(0.1)
    await bench.reconciler.settled()
    plan = bench.reconciler.plan
    assert plan is not None and plan.links and plan.filters
    assert links.links == plan.links and filter.parts.keys() == plan.filters.keys()
    await bench.stop()
