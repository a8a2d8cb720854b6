"""What size costs: 100,000 peers beside 1,000, and one changed rule in a chain of 10,000.

Two agents run at the same time, one on a small and one on a large configuration, and are
asked in turns, so that a busy machine slows both. Printed are medians and their ratio.
The second part needs root: it times, in a network namespace of its own, the way from a SET
to the kernel's announcement of the changed policy. So does the third, which has the agent
and bare tools do the same work (gateway.py).
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from agent.mib import load_schema
from agent.mib.ber import Wire, encode_integer, encode_tlv
from agent.mib.schema import Role
from agent.store.hooks import AGENT, Edit
from agent.store.store import Store
from tests.station import GETNEXT, NULL, SET, Agent, Station, instance

SMALL, LARGE = 1_000, 100_000
RULES = 10_000
ROUNDS = 400
ROWS_PER_COMMIT = 2_000


def fill(state: Path, rows: Iterable[list[Edit]]) -> None:
    """A store with these rows committed, some at a time."""

    async def work() -> None:
        schema = load_schema()
        store = Store.open(schema, f"sqlite:///{state / 'agent.sqlite'}", state)
        try:
            waiting = iter(rows)
            while batch := list(itertools.islice(waiting, ROWS_PER_COMMIT)):
                await store.commit([edit for row in batch for edit in row], AGENT)
        finally:
            await store.close()

    state.mkdir(parents=True)
    asyncio.run(work())


def peers(count: int) -> Iterable[list[Edit]]:
    """Peers with a value of their own in every column that takes one, and IPsec on with the default to pass."""
    columns = load_schema().columns
    table = load_schema().tables["ipsecPeerTable"]
    plain = [c for c in table.columns if c.writable and c.traits.role in (Role.PLAIN, Role.CREATING)]
    for number in range(1, count + 1):
        own = {
            "ipsecPeerTrafficList": 0,
            "ipsecPeerDescription": b"branch office %d" % number,
            "ipsecPeerPeerIds": b"branch-%d.example" % number,
            "ipsecPeerDynamicAddress": socket.inet_ntoa((0x0A00_0000 + number).to_bytes(4, "big")).encode(),
            "ipsecPeerPriority": number % 100,
        }
        edits = [Edit(column, number, own.get(column.name, column.default)) for column in plain]
        yield [*edits, Edit(columns["ipsecPeerPreSharedKey"], number, b"key-%d" % number)]
    yield [Edit(columns["ipsecGlobContDefaultRule"], 0, 2), Edit(columns["ipsecGlobEnabled"], 0, 1)]


def rules(count: int) -> Iterable[list[Edit]]:
    """One chain of pass rules before all peers, each for a host of its own, and IPsec on with the default to pass."""
    columns = load_schema().columns
    for number in range(count, 0, -1):
        values = {
            "ipsecTrProto": 255,
            "ipsecTrAction": 3,
            "ipsecTrRemoteAddress": (0x0A00_0000 + number).to_bytes(4, "big"),
            "ipsecTrRemoteMaskLen": 32,
            "ipsecTrNextIndex": number + 1 if number < count else 0,
        }
        yield [Edit(columns[name], number, value) for name, value in values.items()]
    switches = {"ipsecGlobContPreIpsecRules": 1, "ipsecGlobContDefaultRule": 2, "ipsecGlobEnabled": 1}
    yield [Edit(columns[name], 0, value) for name, value in switches.items()]


def resident_megabytes(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmRSS")


def milliseconds(ask: Callable[[], object]) -> float:
    begin = time.perf_counter()
    ask()
    return (time.perf_counter() - begin) * 1000


def size(folder: Path) -> None:
    """Memory of the large one; cost of reading and changing, large to small."""
    agents: dict[int, Agent] = {}
    stations: dict[int, Station] = {}
    try:
        for count in (SMALL, LARGE):
            state = folder / str(count)
            begin = time.monotonic()
            fill(state, peers(count))
            filled = time.monotonic() - begin
            agents[count] = Agent(state)
            begin = time.monotonic()
            stations[count] = agents[count].start()
            print(f"{count:>7} peers: written in {filled:.1f} s, answering after {time.monotonic() - begin:.1f} s")
        time.sleep(20)  # let the larger one finish planning and connecting
        for count, agent in agents.items():
            assert agent.process is not None
            print(f"{count:>7} peers: resident {resident_megabytes(agent.process.pid):.0f} MB (bound 650 MB)")
        text = encode_tlv(Wire.OCTET_STRING, b"other")
        work: dict[str, Callable[[int, int], object]] = {
            "GETNEXT (bound 1.2)": lambda n, i: stations[n].ask(
                GETNEXT, [(instance("ipsecPeerDescription", random.randrange(1, n)), NULL)]
            ),
            "change a cell (bound 2)": lambda n, i: stations[n].ask(
                SET, [(instance("ipsecPeerDescription", random.randrange(1, n)), text[:-1] + bytes((48 + i % 64,)))]
            ),
            "make a row (bound 2)": lambda n, i: stations[n].ask(
                SET, [(instance("ipsecPeerTrafficList", n + 1 + i), encode_integer(0))]
            ),
        }
        for name, ask in work.items():
            times: dict[int, list[float]] = {SMALL: [], LARGE: []}
            for turn in range(ROUNDS):
                for count in (SMALL, LARGE):
                    times[count].append(milliseconds(lambda n=count, i=turn, ask=ask: ask(n, i)))  # type: ignore[misc]
            small, large = statistics.median(times[SMALL]), statistics.median(times[LARGE])
            print(f"{name}: {small:.3f} ms at {SMALL}, {large:.3f} ms at {LARGE}, ratio {large / small:.2f}")
    finally:
        for agent in agents.values():
            agent.kill()


def one_rule(folder: Path) -> None:
    """From a SET on one rule of many to the kernel's announcement; how many announcements there are."""
    state = folder / "rules"
    fill(state, rules(RULES))
    in_namespace("rule", state)


def in_namespace(part: str, state: Path) -> None:
    """A part of this program that wants a kernel's policies for itself."""
    namespace = f"scale-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", namespace], check=True)
    try:
        subprocess.run(["ip", "-n", namespace, "link", "set", "lo", "up"], check=True)
        inner = [sys.executable, "-m", "tests.bench.scale", "--only", part, "--inside", str(state)]
        subprocess.run(["ip", "netns", "exec", namespace, *inner], check=True)
    finally:
        subprocess.run(["ip", "netns", "delete", namespace], check=True)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    arguments.add_argument("--only", choices=("size", "rule", "gateway"))
    options = arguments.parse_args()
    if options.inside:
        from tests.bench import gateway
        from tests.bench import one_rule as one

        {"rule": one.measure, "gateway": gateway.measure}[options.only](options.inside)
        return
    parts: dict[str, Callable[[Path], None]] = {
        "size": size,
        "rule": one_rule,
        "gateway": lambda folder: in_namespace("gateway", folder / "gateway"),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, part in parts.items():
            if options.only not in (None, name):
                continue
            if name != "size" and os.geteuid() != 0:
                print(f"{name}: skipped, needs root")
            else:
                part(Path(folder))


if __name__ == "__main__":
    main()
