"""The runner inside the guest: builds the network, plays the scenarios it is told, reports, keeps the logs.

Its exit status is 0 when everything held, 1 when something did not.
"""

from __future__ import annotations

import sys
import time
import traceback

from tests.lab.registry import SCENARIOS, chosen, report
from tests.lab.topology import build
from tests.lab.world import Hopeless, World


def main(names: list[str]) -> int:
    order = [name for boot in chosen(names).values() for name in boot]
    build()
    world = World()
    failed = 0
    hopeless = ""
    report("ready")
    for name in order:
        if hopeless:
            report("end", scenario=name, ok=False, failures=[f"not played after {hopeless}"], seconds=0.0)
            continue
        world.scenario, world.failures = name, []
        begun = time.monotonic()
        report("begin", scenario=name, text=SCENARIOS[name].text)
        try:
            SCENARIOS[name].play(world)
        except Hopeless as error:
            hopeless = name
            world.failures.append(str(error))
        except Exception as error:
            traceback.print_exc(file=sys.stdout)
            world.failures.append(f"{type(error).__name__}: {error}")
        failed += bool(world.failures)
        report("end", scenario=name, ok=not world.failures, failures=world.failures, seconds=time.monotonic() - begun)
    for gateway in world.gateways.values():
        gateway.keep_logs()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
