"""An agent that starts while no name server answers, beside tunnels that stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.backends import surroundings
from agent.backends.engine import ChildSa, IkeSa, tunnel_of
from agent.backends.memory import MemoryHost, MemoryIke, MemorySpd
from agent.plan.flows import observed_name
from agent.plan.model import Action, Direction
from agent.plan.phase2 import Granularity
from tests.test_reconcile_run import HERE, ON, THERE, Bench, peer, rule
from tests.xfrm_namespace import until

NAME, CHILD = b"gate.example", "peer-7-rule-1"


@pytest.mark.parametrize("granularity", [Granularity.COARSE, Granularity.IP])
async def test_a_tunnel_to_a_name_outlives_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, granularity: Granularity
) -> None:
    """Of a rule, or of a flow of it."""
    monkeypatch.setattr(surroundings, "FIRST_NAMES_SECONDS", 0.1)
    spd, ike = MemorySpd(), MemoryIke()
    bench = Bench(tmp_path, spd, ike, MemoryHost(own=[HERE], names={NAME.decode(): (THERE,)}))
    await bench.start()
    await bench.set(ON, ("ipsecProfileTable", 5, {"ipsecPrfGranularity": int(granularity)}))
    await bench.set(rule(1, 4, ipsecTrProfile=5), peer(7, 1, NAME))
    await until(lambda: "peer-7" in ike.connections)
    await bench.reconciler.settled()
    local, remote, reqid, name = ("10.0.1.0/24",), ("0.0.0.0/0",), bench.store.numbers("reqid")[CHILD], CHILD
    if granularity is Granularity.IP:
        local, remote, reqid = ("10.0.1.5/32",), ("198.51.100.9/32",), 1
        name = observed_name(CHILD, local, remote)
    spis = b"\0\0\0\1", b"\0\0\0\2"
    child = ChildSa(name, 1, reqid, "INSTALLED", 1, 50, *spis, local_selectors=local, remote_selectors=remote)
    ike.sas = [IkeSa("peer-7", 1, 2, "ESTABLISHED", HERE, THERE, children=(child,))]
    bench.reconciler.environment_changed({name: tunnel_of(ike.sas[0], child)})
    await bench.reconciler.settled()
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
