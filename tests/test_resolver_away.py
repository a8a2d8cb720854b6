"""An agent that starts while no name server answers, beside tunnels that stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.backends import surroundings
from agent.backends.engine import ChildSa, IkeSa
from agent.backends.memory import MemoryHost, MemoryIke, MemorySpd
from agent.plan.model import Action, Direction
from tests.test_reconcile_run import HERE, ON, THERE, Bench, peer, rule
from tests.xfrm_namespace import until

NAME, CHILD = b"gate.example", "peer-7-rule-1"


async def test_a_tunnel_to_a_name_outlives_the_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "FIRST_NAMES_SECONDS", 0.1)
    spd, ike = MemorySpd(), MemoryIke()
    bench = Bench(tmp_path, spd, ike, MemoryHost(own=[HERE], names={NAME.decode(): (THERE,)}))
    await bench.start()
    await bench.set(ON, rule(1, 4), peer(7, 1, NAME))
    await until(lambda: "peer-7" in ike.connections)
    await bench.reconciler.settled()
    reqid = bench.store.numbers("reqid")[CHILD]
    child = ChildSa(CHILD, 1, reqid, "INSTALLED", 1, 50, b"\0\0\0\1", b"\0\0\0\2")
    ike.sas = [IkeSa("peer-7", 1, 2, "ESTABLISHED", HERE, THERE, children=(child,))]
    before = dict(spd.policies)
    await bench.stop()
    ike.calls.clear()
    bench = Bench(tmp_path, spd, ike, MemoryHost(own=[HERE]))  # nothing resolves
    await bench.start()
    await bench.reconciler.settled()
    assert not [call for call in ike.calls if call[0] in ("unload", "terminate")], ike.calls
    assert spd.policies == before
    protecting = [held for key, held in before.items() if key.direction is Direction.OUT and held.templates]
    assert protecting and all(held.action is Action.ALLOW for held in protecting)
    await bench.stop()
