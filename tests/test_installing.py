"""Numbering a list anew never lets a packet meet its rules in another order, not even between two messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from agent.backends.engine import Observed
from agent.backends.installing import in_order
from agent.backends.memory import MemoryHost, MemoryIke, MemorySpd
from agent.mib.ber import Value
from agent.plan.model import Action, Direction, Policy, PolicyKey, Prefix, RowRef, Selector
from tests.test_reconcile_run import HERE, ON, Bench, peer, rule


def policy(number: int, priority: int) -> Policy:
    net = Prefix(bytes([10, number, 0, 0]), 16)
    return Policy(PolicyKey(Direction.OUT, Selector(net, net)), priority, Action.ALLOW, (), RowRef("t", number), 0, "")


@given(st.data())
def test_whatever_moves_where(data: st.DataObject) -> None:
    """Rules that stay, in their order, some of them elsewhere; others go in between."""
    count = data.draw(st.integers(1, 8))
    places = st.lists(st.integers(0, 30), min_size=count, max_size=count, unique=True).map(sorted)
    old, new = data.draw(places), data.draw(places)
    fresh = data.draw(st.sets(st.sampled_from(range(count))))
    wanted = [policy(number, new[number]) for number in range(count)]
    kernel = {
        each.key: Observed(each.key, 1, old[number], Action.ALLOW, (), ours=True)
        for number, each in enumerate(wanted)
        if number not in fresh
    }
    moves = [each for each in wanted if each.key not in kernel or kernel[each.key].priority != each.priority]
    now = {key: held.priority for key, held in kernel.items()}
    for each in in_order(moves, kernel):
        now[each.key] = each.priority
        present = [now[other.key] for other in wanted if other.key in now]
        assert all(one < later for one, later in pairwise(present)), present
    assert now == {each.key: each.priority for each in wanted}


async def test_a_protect_rule_is_never_behind_the_pass_rule_that_follows_it(tmp_path: Path) -> None:
    """Rules are put before both until the list is numbered anew; what is decided is asked after each message."""
    orders: list[bool] = []
    renumbered = 0

    class Watched(MemorySpd):
        async def apply(self, remove: Sequence[PolicyKey], install: Sequence[Policy]) -> Mapping[PolicyKey, str]:
            nonlocal renumbered
            failed: dict[PolicyKey, str] = {}
            for each in install:
                held = self.policies.get(each.key)
                renumbered += held is not None and held.priority != each.priority
                failed.update(await super().apply([], [each]))
                protect, passes = self._place(24), self._place(16)
                if protect and passes:
                    orders.append(protect < passes)
            failed.update(await super().apply(remove, []))
            return failed

        def _place(self, length: int) -> int:
            """Priority of the outbound policy from 10.0.1.0/24, or from 10.0.0.0/16."""
            address = bytes([10, 0, 1 if length == 24 else 0, 0])
            for key, held in self.policies.items():
                if key.direction is Direction.OUT and key.selector.source == Prefix(address, length):
                    return held.priority
            return 0

    bench = Bench(tmp_path, Watched(), MemoryIke(), MemoryHost(own=[HERE]))
    await bench.start()
    wide: dict[str, Value] = {"ipsecTrLocalAddress": bytes([10, 0, 0, 0]), "ipsecTrLocalMaskLen": 16}
    await bench.set(ON, rule(1, 4, 2), rule(2, 3, **wide), rule(100, 5, 1), peer(1, 100))
    for number in range(101, 120):
        before = ("ipsecTrafficTable", number - 1, {"ipsecTrNextIndex": number})
        await bench.set(rule(number, 5, 1), before)
    assert renumbered and orders and all(orders)
    await bench.stop()
