"""The network of the lab: three sites behind gateways, and the Internet between them, in seven namespaces.

    hosta ── gwa ──┐             ┌── gwb ── hostb
                   └──── wan ────┘
                          └── gwc ── hostc

`wan` is an ordinary router without IPsec that knows the inner networks too: what a gateway lets out in plain arrives,
so a leak shows as a packet that got through and not as one that was lost for another reason. It is the middle link:
everything between two gateways crosses it, and is captured there, where neither gateway's decryption is seen.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Site(NamedTuple):
    """A gateway with one host behind it. `outer` is the gateway's address on the Internet, `uplink` the router's."""

    gateway: str
    host: str
    outer: str
    uplink: str
    inner: str
    address: str
    net: str


SITES = {
    "a": Site("gwa", "hosta", "192.0.2.1", "192.0.2.2", "10.1.0.1", "10.1.0.2", "10.1.0.0"),
    "b": Site("gwb", "hostb", "198.51.100.1", "198.51.100.2", "10.2.0.1", "10.2.0.2", "10.2.0.0"),
    "c": Site("gwc", "hostc", "203.0.113.1", "203.0.113.2", "10.3.0.1", "10.3.0.2", "10.3.0.0"),
}
WAN = "wan"


def inside(namespace: str, work: Callable[[], T]) -> T:
    """`work()` in a thread that has entered the network namespace; sockets and processes it makes stay there."""
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            descriptor = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
            try:
                if _libc.setns(descriptor, CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), f"setns {namespace}")
            finally:
                os.close(descriptor)
            results.append(work())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def run(namespace: str, command: Sequence[str], *, check: bool = True, text: str | None = None) -> str:
    """Output, both streams, of a command in the namespace. Raises RuntimeError when it fails and `check` is set."""
    done = inside(
        namespace,
        lambda: subprocess.run(
            command, text=True, input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        ),
    )
    if check and done.returncode:
        raise RuntimeError(f"{namespace}: {' '.join(command)}: status {done.returncode}: {done.stdout.strip()}")
    return done.stdout


def build() -> None:
    """Namespaces, links, addresses and routes. One ip process per namespace: processes are slow in the guest."""
    spaces = [WAN, *(name for site in SITES.values() for name in (site.gateway, site.host))]
    create = [f"netns add {space}" for space in spaces]
    for letter, site in SITES.items():
        create.append(f"link add out netns {site.gateway} type veth peer name {letter} netns {WAN}")
        create.append(f"link add in netns {site.gateway} type veth peer name eth0 netns {site.host}")
    subprocess.run(["ip", "-batch", "-"], input="\n".join(create), text=True, check=True)

    wan = ["link set dev lo up"]
    for letter, site in SITES.items():
        wan += [
            f"addr add {site.uplink}/30 dev {letter}",
            f"link set dev {letter} up",
            f"route add {site.net}/24 via {site.outer}",
        ]
        batch(
            site.gateway,
            "link set dev lo up",
            f"addr add {site.outer}/30 dev out",
            "link set dev out up",
            f"addr add {site.inner}/24 dev in",
            "link set dev in up",
            f"route add default via {site.uplink}",
        )
        batch(
            site.host,
            "link set dev lo up",
            f"addr add {site.address}/24 dev eth0",
            "link set dev eth0 up",
            f"route add default via {site.inner}",
        )
    batch(WAN, *wan)
    for space in (WAN, *(site.gateway for site in SITES.values())):
        # /proc/sys/net shows the namespace of the thread that opens it.
        inside(space, lambda: Path("/proc/sys/net/ipv4/ip_forward").write_text("1"))


def batch(namespace: str, *lines: str) -> None:
    """Lines of ip(8), in one process."""
    run(namespace, ["ip", "-batch", "-"], text="\n".join(lines) + "\n")


def send_udp(namespace: str, source: str, destination: str, port: int, payload: bytes = b"lab") -> None:
    """One datagram from port 40000 of a host."""

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            out.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            out.bind((source, 40000))
            out.sendto(payload, (destination, port))

    inside(namespace, send)


class Ping:
    """ping(8) running in a host's namespace; `stop` tells how many were sent and answered."""

    def __init__(self, host: Site, destination: str, *, interval: float = 0.2, count: int = 0, size: int = 56) -> None:
        command = ["ping", "-n", "-q", "-i", str(interval), "-W", "1", "-s", str(size)]
        if count:
            command += ["-c", str(count)]
        self._process = inside(
            host.host,
            lambda: subprocess.Popen(
                [*command, destination], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            ),
        )

    def wait(self) -> tuple[int, int]:
        """(sent, answered) of a ping with a count, at its end."""
        output = self._process.communicate()[0]
        for line in output.splitlines():
            if "packets transmitted" in line:
                words = line.replace(",", "").split()
                return int(words[0]), int(words[3])
        raise RuntimeError(f"ping said {output!r}")

    def stop(self) -> tuple[int, int]:
        """(sent, answered) until now."""
        while self._process.poll() is None and not self._counts():
            time.sleep(0.02)
        self._process.send_signal(signal.SIGINT)
        return self.wait()

    def _counts(self) -> bool:
        """Whether it would tell what it has counted: before it catches the signal it would just die."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
        return bool(int(caught, 16) >> (signal.SIGINT - 1) & 1)


def ping(host: Site, destination: str, count: int = 3, *, interval: float = 0.2, size: int = 56) -> tuple[int, int]:
    """(sent, answered) of a short ping from behind a gateway."""
    return Ping(host, destination, interval=interval, count=count, size=size).wait()
