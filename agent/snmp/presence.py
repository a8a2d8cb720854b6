"""Where the agent of a state folder answers, and with which backend, for commands on the same machine.

The file is written when the sockets are open and taken away at a clean stop. After a crash
it stays: whether an agent runs is what the store's lock says, this says only where.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

PRESENCE_FILE: Final = "run.json"
ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def announce(state: Path, addresses: Sequence[tuple[str, int]], backend: str) -> None:
    """Write the addresses with the ports that were taken, and the backend; whole or not at all. Raises OSError."""
    path = state / PRESENCE_FILE
    draft = path.with_name(path.name + ".new")
    listen = [{"address": host, "port": port} for host, port in addresses]
    draft.write_text(json.dumps({"process": os.getpid(), "listen": listen, "backend": backend}) + "\n")
    draft.replace(path)


def withdraw(state: Path) -> None:
    """The agent answers no more."""
    with contextlib.suppress(OSError):
        (state / PRESENCE_FILE).unlink()


def local_address(state: Path) -> tuple[str, int] | None:
    """Address and port to ask the agent of this state folder at, from this machine; loopback first. None where it
    left none."""
    try:
        found = json.loads((state / PRESENCE_FILE).read_text())
        addresses = [(str(entry["address"]), int(entry["port"])) for entry in found["listen"]]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    local = [(ANYWHERE.get(host, host), port) for host, port in addresses]
    return min(local, key=lambda address: not _loopback(address[0]), default=None)


def backend_of(state: Path) -> str:
    """The backend of the agent that runs on this state folder, or crashed there; '' where it left none."""
    try:
        return str(json.loads((state / PRESENCE_FILE).read_text())["backend"])
    except (OSError, ValueError, TypeError, KeyError):
        return ""


def _loopback(host: str) -> bool:
    return host == "::1" or host.startswith("127.")
