"""Whatever becomes of the rules, a packet fares as before or as after, not even between two messages otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from agent.backends.engine import Observed
from agent.backends.installing import in_turn
from agent.backends.memory import MemoryHost, MemoryIke, MemorySpd
from agent.mib.ber import Value
from agent.plan.model import Action, Direction, Policy, PolicyKey, Prefix, RowRef, Selector
from tests.test_reconcile_run import HERE, ON, Bench, peer, rule


def policy(number: int, priority: int, action: Action = Action.ALLOW) -> Policy:
    net = Prefix(bytes([10, number, 0, 0]), 16)
    return Policy(PolicyKey(Direction.OUT, Selector(net, net)), priority, action, (), RowRef("t", number), 0, "")


@given(st.data())
def test_a_packet_fares_as_before_or_as_after(data: st.DataObject) -> None:
    """Policies that come, go, move and change, and a packet that fits some of them: never does a third one decide."""
    count = data.draw(st.integers(1, 8))
    places = st.lists(st.none() | st.integers(0, 30), min_size=count, max_size=count).filter(
        lambda drawn: len(there := [one for one in drawn if one is not None]) == len(set(there))
    )
    old, new = data.draw(places), data.draw(places)
    changed = data.draw(st.sets(st.sampled_from(range(count))))
    fits = data.draw(st.sets(st.sampled_from(range(count))))
    keys = [policy(number, 0).key for number in range(count)]
    kernel = {
        keys[number]: Observed(keys[number], 1, place, Action.ALLOW, (), ours=True)
        for number, place in enumerate(old)
        if place is not None
    }
    install = [
        policy(number, place, Action.BLOCK if number in changed else Action.ALLOW)
        for number, place in enumerate(new)
        if place is not None and (place != old[number] or number in changed)
    ]
    remove = [keys[number] for number in range(count) if old[number] is not None and new[number] is None]
    now = {key: (held.priority, held.action) for key, held in kernel.items()}

    def verdict() -> tuple[int, Action] | None:
        """Whose, and which: what the kernel says of the packet."""
        first = min(
            (number for number in fits if keys[number] in now), key=lambda number: now[keys[number]][0], default=-1
        )
        return (first, now[keys[first]][1]) if first >= 0 else None

    before = verdict()
    seen = []
    for each in in_turn(remove, install, kernel):
        if isinstance(each, Policy):
            now[each.key] = each.priority, each.action
        else:
            del now[each]
        seen.append(verdict())
    after = verdict()
    assert all(one in (before, after) for one in seen), (before, seen, after)
    assert now.keys() == {keys[number] for number in range(count) if new[number] is not None}
    assert all(now[each.key] == (each.priority, each.action) for each in install)


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
