"""A gateway of the lab: one agent with its private charon in a namespace, and what the kernel there really holds.

The agent is started as an operator would start it. Its state folder is on the guest's tmpfs, since SQLite's WAL wants
shared memory and locks that the host's file system, passed through, does not promise. `/run` of a gateway is a folder
of its own that outlives its agent, as `/run` of a real box does.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from tests.lab.station import ADDRESS, COMMUNITY, Station
from tests.lab.topology import Site, inside, run

ROOT = Path("/dev/shm/gateways")
OUT = Path("/run/out")
READY_SECONDS = 400 if os.environ.get("MODULES") else 150  # in software emulation, or not
CHARON_SECONDS = READY_SECONDS  # until charon answers
FOREIGN_SPI = 0x4242
FOREIGN_POLICIES = 4  # what add_foreign makes
ENTER = '[ ! -e "$1/hosts" ] || mount --bind "$1/hosts" /etc/hosts; mount --bind "$1" /run && shift && exec "$@"'
HEAD = re.compile(r"src (\S+) dst (\S+)\n\s+proto (\w+) spi (0x[0-9a-f]+)\S* reqid (\d+)\S* mode (\w+)")
USED = re.compile(r"lifetime current:\s+(\d+)\s*\(bytes\), (\d+)\s*\(packets\)")


class State(NamedTuple):
    """An SA of the kernel, with its counters (`ip -s xfrm state`)."""

    source: str
    destination: str
    protocol: str
    spi: int
    reqid: int
    mode: str
    bytes: int
    packets: int


class Gateway:
    """Start, kill and look into one gateway. `agent` is the serving process while there is one."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.name = site.gateway
        self.station = Station(site.gateway)
        self.folder = ROOT / site.gateway
        self.state = self.folder / "state"
        self.agent: subprocess.Popen[bytes] | None = None
        (self.folder / "run").mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Start the agent; `ready` waits for it."""
        serve = [str(Path(sys.executable).parent / "ipsec-agent"), "serve", "--backend", "linux"]
        serve += ["--state", str(self.state), "--listen", ADDRESS, "--write-community", COMMUNITY]
        command = ["ip", "netns", "exec", self.name, "sh", "-c", ENTER, "sh", str(self.folder / "run"), *serve]
        with (self.folder / "agent.log").open("ab") as log:
            self.agent = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def knows(self, **names: list[str]) -> None:
        """Host names of this gateway with their addresses, from now on; the first time before it starts."""
        lines = [f"{address} {name}" for name, addresses in names.items() for address in addresses]
        with (self.folder / "run" / "hosts").open("w") as hosts:  # in place: another file would not be seen
            hosts.write("\n".join(["127.0.0.1 localhost", *lines]) + "\n")

    def ready(self, seconds: float = READY_SECONDS) -> bool:
        """Does the agent answer within this time? An agent that has ended never will."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.station.answers(3):
                return True
            if self.agent is None or self.agent.poll() is not None:
                return False
        return False

    def last_words(self) -> str:
        """The end of what the agent wrote to its standard error."""
        log = self.folder / "agent.log"
        return log.read_text(errors="replace")[-1500:].strip() if log.exists() else "no log"

    def kill_agent(self) -> None:
        """kill -9, and the corpse taken away."""
        assert self.agent is not None
        self.agent.kill()
        self.agent.wait()
        self.agent = None

    def stop_agent(self) -> int:
        """SIGTERM; the exit status."""
        assert self.agent is not None
        self.agent.terminate()
        status = self.agent.wait()
        self.agent = None
        return status

    def charons(self) -> list[int]:
        """Processes of charon in this gateway's namespace."""
        own = Path(f"/run/netns/{self.name}").stat().st_ino
        found = []
        for process in Path("/proc").iterdir():
            try:
                if (
                    process.name.isdigit()
                    and (process / "comm").read_text().strip() == "charon"
                    and (process / "ns/net").stat().st_ino == own
                    and "Z" not in (process / "stat").read_text().rpartition(")")[2][:3]
                ):
                    found.append(int(process.name))
            except OSError:
                continue  # it ended while we looked
        return found

    def kill_charon(self) -> int:
        """kill -9; how many there were."""
        killed = 0
        for process in self.charons():
            with suppress(ProcessLookupError):  # its agent may be ending it just now
                os.kill(process, signal.SIGKILL)
                killed += 1
        return killed

    def states(self) -> list[State]:
        """SAs in the kernel, without larval ones (SPI 0) and the foreign one."""
        found = []
        text = run(self.name, ["ip", "-s", "xfrm", "state"])
        for block in re.split(r"^(?=src )", text, flags=re.MULTILINE):
            head = HEAD.match(block)
            used = USED.search(block)
            if head and used and int(head[4], 16) not in (0, FOREIGN_SPI):
                found.append(
                    State(
                        head[1], head[2], head[3], int(head[4], 16), int(head[5]), head[6], int(used[1]), int(used[2])
                    )
                )
        return found

    def rejected(self) -> int:
        """IPsec packets that came in and that the kernel refused: of an SA that is gone, or of one that is not complete
        yet."""
        return sum(value for name, value in self._errors().items() if name.startswith("XfrmIn")) + self.unready()

    def unready(self) -> int:
        """Those of an SA that is not complete yet (XfrmAcquireError, whatever its name): a version 1 responder has its
        SPI before its keys, and those only when its charon comes to the initiator's last message."""
        return self._errors()["XfrmAcquireError"]

    def _errors(self) -> dict[str, int]:
        counters = inside(self.name, Path("/proc/thread-self/net/xfrm_stat").read_text).split()
        return dict(zip(counters[::2], map(int, counters[1::2]), strict=True))

    def has_foreign_state(self) -> bool:
        """Is the SA of add_foreign still there?"""
        return f"spi 0x{FOREIGN_SPI:08x}" in run(self.name, ["ip", "xfrm", "state"])

    def policies(self) -> set[str]:
        """Policies of the kernel, one text each, without those that sockets carry."""
        text = run(self.name, ["ip", "xfrm", "policy"])
        blocks = re.split(r"^(?=src )", text, flags=re.MULTILINE)
        return {" ".join(block.split()) for block in blocks if block.strip() and "socket " not in block}

    def connected(self, remote: Site) -> bool:
        """Is there an SA with that gateway?"""
        return any({remote.outer, self.site.outer} == {each.source, each.destination} for each in self.states())

    def vici(self, question: str, *words: dict[str, str], there: bool = True) -> list[tuple[str, dict[str, Any]]]:
        """Answers of `list_sas` or `list_conns`, by connection name, asked at charon's own VICI socket. Other commands
        (`rekey`) have none. A charon that is being started, or ends, is waited for; `there` False: one that does not
        run has no answers. Raises OSError."""
        end = time.monotonic() + CHARON_SECONDS
        while there or self.charons():
            try:
                return self._vici(question, *words)
            except OSError:
                if time.monotonic() > end:
                    raise
            time.sleep(0.2)
        return []

    def _vici(self, question: str, *words: dict[str, str]) -> list[tuple[str, dict[str, Any]]]:
        import vici  # late: the guest is slow to import, and most scenarios need none

        sockets = [path for path in self._files() if "vici" in path.name and path.is_socket()]
        if not sockets:
            raise FileNotFoundError(f"{self.name}: no VICI socket below {self.folder}")
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(sockets[0]))
            answers = getattr(vici.Session(connection), question)(*words)
            if words:
                return []
            return [(name, text_of(value)) for each in answers for name, value in each.items()]

    def _files(self) -> list[Path]:
        """All below the gateway's folder. Files and folders come and go meanwhile."""
        return [Path(folder, name) for folder, _, names in os.walk(self.folder) for name in names]

    def connections(self) -> list[str]:
        """Names of the connections that charon has loaded; none where there is no charon."""
        return [name for name, _ in self.vici("list_conns", there=False)]

    def connections_of(self, peer: int) -> list[str]:
        """Those of one peer."""
        return [name for name in self.connections() if re.match(rf"peer-{peer}(-|$)", name)]

    def negotiated(self) -> list[dict[str, str]]:
        """What charon says of each installed child: its own fields, and those of its IKE SA with `ike-` before them."""
        found = []
        for _, sa in self.vici("list_sas"):
            own = {f"ike-{key}": value for key, value in sa.items() if isinstance(value, str)}
            for child in sa.get("child-sas", {}).values():
                if child.get("state") == "INSTALLED":
                    found.append({**own, **{key: value for key, value in child.items() if isinstance(value, str)}})
        return found

    def leftovers(self, remote: Site, peer: int) -> str:
        """What there still is of a peer: policies with its net, SAs with its address, connections of its number."""
        found = [policy for policy in self.policies() if f"{remote.net}/24" in policy]
        found += [f"SA {each}" for each in self.states() if remote.outer in (each.source, each.destination)]
        found += self.connections_of(peer)
        return "; ".join(found)

    def mentions(self, text: str) -> str:
        """Files of agent and charon, of the store and its journal too, in which the text stands as it is."""
        found = []
        for file in self._files():
            with suppress(FileNotFoundError):  # one that is gone by now holds nothing
                if file.is_file() and text.encode() in file.read_bytes():
                    found.append(str(file.relative_to(self.folder)))
        return ", ".join(found)

    def command(self, *words: str, check: bool = True) -> str:
        """Output of another command of ours on this gateway's state. Raises RuntimeError when it fails, if `check`."""
        program = str(Path(sys.executable).parent / "ipsec-agent")
        return run(self.name, [program, *words, "--state", str(self.state), "--backend", "linux"], check=check)

    def keep_logs(self) -> None:
        """Copy the logs of agent and charon to the host."""
        target = OUT / self.name
        for log in [*self.folder.rglob("*.log"), *self.folder.rglob("strongswan.conf")]:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(log, target / log.name)


def text_of(value: Any) -> Any:
    """A VICI message with its octets as text."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, list):
        return [text_of(each) for each in value]
    if isinstance(value, Mapping):
        return {str(key): text_of(each) for key, each in value.items()}
    return value


def add_foreign(gateway: Gateway) -> None:
    """Policies and an SA that somebody else put there: a drop, a pass, a protecting one, one that is on our nets."""
    lines = [
        "xfrm policy add src 172.31.0.0/16 dst 172.30.0.0/16 dir out action block priority 5",
        "xfrm policy add src 172.30.0.0/16 dst 172.31.0.0/16 dir fwd priority 77",
        "xfrm policy add src 10.77.0.0/24 dst 10.78.0.0/24 dir out priority 3000 tmpl src 192.0.2.77 dst 192.0.2.78"
        " proto esp reqid 4242 mode tunnel",
        "xfrm policy add src 10.1.0.9/32 dst 10.2.0.9/32 dir fwd action block priority 1",
        f"xfrm state add src 192.0.2.77 dst 192.0.2.78 proto esp spi {FOREIGN_SPI:#x} reqid 4242 mode tunnel"
        " auth-trunc hmac(sha1) 0x0102030405060708090a0b0c0d0e0f1011121314 96"
        " enc cbc(aes) 0x0102030405060708090a0b0c0d0e0f10",
    ]
    run(gateway.name, ["ip", "-batch", "-"], text="\n".join(lines) + "\n")
