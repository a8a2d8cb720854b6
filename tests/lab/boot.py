"""Boots User Mode Linux on this machine's own file system and plays scenarios in it: the host's side of the lab.

Debian's user-mode-linux is a kernel with ESP, AH and IPComp that runs as an ordinary program, so tunnels are real on a
machine whose own kernel has none. The guest sees the host's files read-only and writes only to one folder, for logs.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

from tests.lab import qemu, uml
from tests.lab.registry import MARK, SCENARIOS, chosen

PROJECT = Path(__file__).resolve().parent.parent.parent
INIT = Path(__file__).resolve().parent / "init.sh"
MODULES = Path("/usr/lib/uml/modules")
MEMORY = (
    "1024M"  # address space of the guest; a host page is taken when touched (measured: about 400 MB with three agents)
)
QEMU_BOUND = 2400  # the same in software emulation
QEMU_BOOTS = frozenset({"inbound", "interface"})  # boots whose kernel is Debian's own, in qemu
BOUND = 900  # seconds; a boot that hangs is ended, whatever it was doing; on a busy machine one takes 150

NEEDED = {
    "linux.uml": "user-mode-linux",
    "modprobe": "kmod",
    "ip": "iproute2",
    "ping": "iputils-ping",
    "snmpset": "snmp",
    "/usr/lib/ipsec/charon": "strongswan-charon",
}


class Outcome(NamedTuple):
    """A scenario's end; `failures` are sentences that did not hold."""

    scenario: str
    ok: bool
    failures: list[str]
    seconds: float


def unable() -> str:
    """Why the lab cannot run here, or '' when it can."""
    if os.geteuid() != 0:
        return "the lab needs root"
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = [package for tool, package in NEEDED.items() if not shutil.which(tool, path=path)]
    return f"the lab needs the packages {' '.join(missing)}" if missing else uml.unable()


def boot(scenarios: list[str], out: Path, *, show: bool = True, in_qemu: bool = False) -> tuple[list[Outcome], float]:
    """One boot playing `scenarios` in order; outcomes and seconds. A scenario without an end is a failed one.

    The whole console goes to `out`/console.log, logs of agents and charons beside it.
    """
    for folder in ("agent", "tests/lab"):
        compileall.compile_dir(PROJECT / folder, quiet=2)  # the guest cannot write bytecode and is slow to make it
    Path("/lib/modules").mkdir(parents=True, exist_ok=True)  # the guest mounts its own there
    out.mkdir(parents=True, exist_ok=True)
    command = (
        qemu.command(INIT, out, scenarios)
        if in_qemu
        else [
            *("linux.uml", f"mem={MEMORY}", "root=none", "rootfstype=hostfs", "rootflags=/", "ro", f"init={INIT}"),
            *(
                "con=null",
                "con0=fd:0,fd:1",
                "quiet",
                f"uml_dir={out}",
                f"PROJECT={PROJECT}",
                f"PYTHON={sys.executable}",
            ),
            *(f"OUT={out}", f"SCENARIOS={','.join(scenarios)}"),
        ]
    )
    environment = uml.environment(out)
    begun = time.monotonic()
    with (out / "console.log").open("wb") as console:
        guest = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        end = threading.Timer(QEMU_BOUND if in_qemu else BOUND, os.killpg, (guest.pid, signal.SIGKILL))
        end.start()
        outcomes: dict[str, Outcome] = {}
        status = None
        assert guest.stdout is not None
        try:
            for line in guest.stdout:
                console.write(line)
                console.flush()
                text = line.decode(errors="replace").strip()
                if text.startswith("LAB-EXIT "):
                    status = int(text.split()[1])
                elif event := told(text):
                    if event["kind"] == "end":
                        outcomes[event["scenario"]] = Outcome(
                            event["scenario"], event["ok"], event["failures"], event["seconds"]
                        )
                    if show:
                        tell(event, time.monotonic() - begun)
            guest.wait()
        finally:
            end.cancel()
            if guest.poll() is None:
                os.killpg(guest.pid, signal.SIGKILL)
                guest.wait()
    seconds = time.monotonic() - begun
    results = [
        outcomes.get(name, Outcome(name, False, ["the guest ended before this scenario did"], 0.0))
        for name in scenarios
    ]
    if status not in (0, 1):
        results.append(Outcome("runner", False, [f"the runner ended with status {status}; see {out}/console.log"], 0.0))
    return results, seconds


def told(text: str) -> dict[str, Any]:
    """The event that a line of the console tells of, {} for none: a word of the kernel's own may stand in it."""
    _, mark, rest = text.partition(MARK)
    try:
        event = json.loads(rest) if mark else {}
    except json.JSONDecodeError:
        return {}
    return event if isinstance(event, dict) else {}


def tell(event: dict[str, Any], at: float) -> None:
    """One event as a line for a person."""
    kind = event["kind"]
    if kind == "begin":
        line = f"{event['scenario']}: {event['text']}"
    elif kind == "check":
        seen = f" ({event['seen']})" if event["seen"] else ""
        line = f"  {'ok  ' if event['ok'] else 'FAIL'} {event['text']}{seen}"
    elif kind == "note":
        line = f"       {event['text']}"
    elif kind == "end":
        line = f"  {'ok' if event['ok'] else 'FAILED'}: {event['scenario']} in {event['seconds']:.1f} s"
    else:
        line = f"the guest is {kind}"
    print(f"[{at:6.1f}] {line}", flush=True)


def uml_boots() -> set[str]:
    chosen([])
    return {each.boot for each in SCENARIOS.values()} - QEMU_BOOTS


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/lab", description="Tunnels between real gateways, in User Mode Linux."
    )
    parser.add_argument("scenarios", nargs="*", metavar="boot|scenario", help="default: all boots")
    parser.add_argument("--list", action="store_true", help="tell the scenarios and run none")
    parser.add_argument("--qemu", action="store_true", help="boots for Debian's kernel in qemu, by software emulation")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where console and logs go; else a folder in /tmp")
    arguments = parser.parse_args()
    try:
        order = chosen(arguments.scenarios or sorted(QEMU_BOOTS if arguments.qemu else uml_boots()))
    except KeyError as unknown:
        parser.error(f"no scenario {unknown}; there are {', '.join(SCENARIOS)}")
    if arguments.list:
        for name, each in SCENARIOS.items():
            print(f"{each.boot:13}{name:26}{each.text}")
        return 0
    if reason := unable() or (qemu.unable() if arguments.qemu else ""):
        print(f"skipped: {reason}", file=sys.stderr)
        return 2
    keep: Path = (arguments.keep or Path(tempfile.mkdtemp(prefix="ipsec-lab-"))).resolve()
    failed = False
    for name, scenarios in order.items():
        print(f"boot {name}: {', '.join(scenarios)}")
        outcomes, seconds = boot(scenarios, keep / name, in_qemu=arguments.qemu)
        bad = [outcome for outcome in outcomes if not outcome.ok]
        failed |= bool(bad)
        print(f"boot {name}: {len(outcomes) - len(bad)} of {len(outcomes)} scenarios passed in {seconds:.1f} s")
        for outcome in bad:
            for failure in outcome.failures:
                print(f"  {outcome.scenario}: {failure}")
    if failed or arguments.keep:
        print(f"console and logs: {keep}")
    else:
        shutil.rmtree(keep, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
