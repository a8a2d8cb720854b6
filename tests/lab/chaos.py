"""The boot of the kills: agents and charons of both ends die again and again while the configuration changes.

What is to hold is said in one sentence: whatever dies, whenever, no packet of the protected flow crosses the middle
link in plain, and both ends find back to the tunnel without help but that of whoever starts the agent again.
"""

from __future__ import annotations

import random
import time
from functools import partial

from tests.lab import recipes
from tests.lab.gateway import Gateway
from tests.lab.registry import scenario
from tests.lab.sightings import apply_state, established, lost, silent
from tests.lab.topology import SITES, Ping
from tests.lab.wire import plain, summary
from tests.lab.world import World

A, B = SITES["a"], SITES["b"]
PEER = 1
KILLS = 50
CHANGED_EVERY = 10  # kills have a change between them, at least
SEED = 4303
GUARD_RULES = (11, 12)  # pass rules of UDP ports nobody uses, put before the peers and taken away
VICTIMS = ("agent", "charon", "both")


@scenario("chaos")
def start_ends(world: World) -> None:
    """Two gateways with a tunnel between them."""
    world.start("ab")
    for gateway, remote in ((world.a, B), (world.b, A)):
        gateway.station.set(
            {
                **recipes.algorithms(),
                **recipes.rule(1, gateway.site, remote),
                **recipes.peer(PEER, remote, 1),
                **recipes.enabled(True),
            }
        )
        world.eventually(partial(apply_state, gateway, "Peer", PEER), f"{gateway.name}: the peer is applied")
    world.eventually(partial(silent, A, B.address), "the ping passes", 60)


def _change(gateway: Gateway, remote_port: int, dice: random.Random) -> bool:
    """Some change of a live configuration; whether the agent took it (it may just be dead)."""
    cells: recipes.Cells = dice.choice(
        (
            {f"ipsecPeerDescription.{PEER}": f"changed {remote_port}"},
            {f"ipsecPeerPriority.{PEER}": dice.randrange(100)},
            {
                **recipes.udp_rule(GUARD_RULES[0], gateway.site, A if gateway.site is B else B, remote_port, "pass"),
                "ipsecGlobContPreIpsecRules.0": GUARD_RULES[0],
            },
            {"ipsecGlobContPreIpsecRules.0": 0},
            {"ipsecPrfLifeSeconds.1": dice.randrange(600, 900)},
        )
    )
    if not gateway.station.answers(1):
        return False
    try:
        gateway.station.set(cells)
    except Exception:
        return False
    return True


@scenario("chaos", "start_ends")
def kills(world: World) -> None:
    """Fifty times kill -9 of an agent, a charon or both, at either end, during changes and pings: nothing in plain."""
    dice = random.Random(SEED)
    capture = world.capture()
    there, back = Ping(A, B.address, interval=0.05), Ping(B, A.address, interval=0.05)
    ends = (world.a, world.b)
    done, taken, packets = 0, 0, 0
    leaked = []
    while done < KILLS:
        gateway, changing = dice.choice(ends), dice.choice(ends)
        if taken <= done // CHANGED_EVERY:  # on a busy machine agents start slowly: kills must not always be first
            changing.ready()
        taken += _change(changing, dice.randrange(1024, 65536), dice)
        victim = dice.choice(VICTIMS)
        if victim != "charon":
            gateway.kill_agent()
            done += 1
        if victim != "agent":
            done += gateway.kill_charon()
        if victim != "charon":
            time.sleep(dice.uniform(0, 0.5))
            gateway.start()
        time.sleep(dice.uniform(0, 3))
        seen = capture.take()
        packets += len(seen)
        leaked += plain(seen)
    world.check(not leaked, f"{done} kills, {taken} changes, {packets} packets: none in plain", summary(leaked))
    world.check(taken >= KILLS // CHANGED_EVERY, "changes were taken between the kills", taken)
    for gateway in ends:
        world.check(gateway.ready(), f"the agent of {gateway.name} answers")
    for gateway in ends:
        world.eventually(partial(established, gateway, PEER), f"{gateway.name} has its tunnel again", 120)
        world.eventually(partial(apply_state, gateway, "Traffic", 1), f"{gateway.name}: its rule is applied", 60)
        world.becomes(lambda g=gateway: len(g.charons()), 1, f"one charon serves {gateway.name}")  # type: ignore[misc]
    for running in (there, back):
        running.stop()
    capture.take()
    world.eventually(partial(lost, A, B.address, 10), "and the ping passes without loss", 60)
    world.check_private(capture.take())
    capture.close()


@scenario("chaos", "kills")
def nothing_is_left(world: World) -> None:
    """After all that, switching IPsec off leaves no policy and no SA of ours behind."""
    for gateway in (world.a, world.b):
        gateway.station.set(recipes.enabled(False))
        world.eventually(lambda g=gateway: g.policies(), f"{gateway.name}: no policy", 60)  # type: ignore[misc]
        world.eventually(lambda g=gateway: g.states(), f"{gateway.name}: no SA", 60)  # type: ignore[misc]
