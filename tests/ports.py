"""Ports of loopback for programs that have to be told theirs: chosen so that nobody else gets them meanwhile.

Between the choice and the moment a program binds it, and while a killed program is started
again, a port is nobody's. The system hands out ports of `ip_local_port_range` to whoever asks
for any, so ours come from below; and of two test processes only one can reserve a port.
"""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Final

FIRST: Final = 10_000
RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_reserved: Final = ExitStack()  # until this process ends


def free_port(host: str = "127.0.0.1", kind: socket.SocketKind = socket.SOCK_DGRAM) -> int:
    """A port that is free now and that no other test gets while this process lives. `kind`: of the sockets that are
    to be bound to it."""
    end = int(RANGE.read_text().split()[0])
    while True:
        port = random.randrange(FIRST, max(end, FIRST + 1000))
        if _reserve(port) and _free(host, port, kind):
            return port


def _reserve(port: int) -> bool:
    """Whether no test has it yet: a name in the abstract socket space is given up when its process ends."""
    held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        held.bind(f"\0ipsec-agent-test-port-{port}")
    except OSError:
        held.close()
        return False
    _reserved.enter_context(held)
    return True


def _free(host: str, port: int, kind: socket.SocketKind) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind) as probe:
        if kind is socket.SOCK_STREAM:  # as servers do it: what a connection of before left behind is no hindrance
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
