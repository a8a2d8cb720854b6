"""A network namespace per test: made and entered by threads and subprocesses, never by the test's own thread."""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from agent.backends.xfrm.netlink import NETLINK_ROUTE, NETLINK_XFRM, NetlinkSocket

CLONE_NEWNET = 0x40000000
Result = TypeVar("Result")
_count = itertools.count()


class Namespace:
    """A named network namespace."""

    def __init__(self, name: str) -> None:
        self.name = name

    def run(self, call: Callable[[], Result]) -> Result:
        """The result of a call made by a thread that lives in the namespace."""
        results: list[Result] = []
        errors: list[BaseException] = []

        def inside() -> None:
            try:
                descriptor = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
                try:
                    if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), "setns")
                finally:
                    os.close(descriptor)
                results.append(call())
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    def ip(self, command: str) -> str:
        """`ip` in the namespace; its output. Raises when it fails."""
        done = subprocess.run(["ip", "-n", self.name, *command.split()], capture_output=True, text=True)
        assert done.returncode == 0, f"ip {command}: {done.stderr}"
        return done.stdout

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["ip", "netns", "exec", self.name, *words], capture_output=True, text=True)

    def xfrm_socket(self, groups: Sequence[int] = ()) -> NetlinkSocket:
        return self.run(lambda: NetlinkSocket(NETLINK_XFRM, groups))

    def route_socket(self, groups: Sequence[int] = ()) -> NetlinkSocket:
        return self.run(lambda: NetlinkSocket(NETLINK_ROUTE, groups))


async def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Let the loop go on until a condition holds; fails after some seconds."""
    for _ in range(int(seconds * 100)):  # turns rather than a clock: what a busy machine sleeps through does not count
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come about")


def cable(one: Namespace, other: Namespace, name: str = "v0") -> None:
    """A pair of interfaces of one name, one in each namespace, both up."""
    subprocess.run(
        ["ip", "link", "add", name, "netns", one.name, "type", "veth", "peer", "name", name, "netns", other.name],
        check=True,
    )
    one.ip(f"link set {name} up")
    other.ip(f"link set {name} up")


@contextmanager
def namespaces(count: int) -> Iterator[list[Namespace]]:
    """Fresh namespaces with loopback up; skips the test where they cannot be made."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and iproute2")
    made: list[Namespace] = []
    try:
        for _ in range(count):
            name = f"xfrm-{os.getpid()}-{next(_count)}"
            done = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"no network namespaces: {done.stderr}")
            made.append(Namespace(name))
            made[-1].ip("link set lo up")
            for family in ("ipv4", "ipv6"):  # no duplicate address detection, no waiting
                path = Path(f"/proc/sys/net/{family}/conf/default/accept_dad")
                if path.exists():
                    made[-1].command("sh", "-c", f"echo 0 > {path}")
        yield made
    finally:
        for namespace in made:
            subprocess.run(["ip", "netns", "del", namespace.name], capture_output=True)
