"""An agent that offers its shell over SSH, its users, and OpenSSH's `ssh` to reach it with; for tests."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.ports import free_port
from tests.station import Agent, Station

PROGRAM = str(Path(sys.executable).parent / "ipsec-agent")
PATIENCE = 120.0
PASSWORDS = {"noc": "a password to look", "operator": "a password to work", "boss": "a password for all"}
LEVELS = {"noc": "read", "operator": "write", "boss": "admin"}
Ran = subprocess.CompletedProcess[str]


class Gateway(Agent):
    """`folder` holds the state, what ssh needs, and the agent's log."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.ssh_port = free_port(kind=socket.SOCK_STREAM)
        super().__init__(folder / "state", options=["--ssh", f"127.0.0.1:{self.ssh_port}", *options])
        self.folder = folder
        self.askpass = folder / "askpass"
        self.askpass.write_text('#!/bin/sh\nprintf "%s\\n" "$SPOKEN"\n')
        self.askpass.chmod(0o700)

    def start(self) -> Station:
        """A station whose agent answers, and offers its shell: that comes a little later."""
        station = super().start()
        end = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.ssh_port), PATIENCE).close()
            except ConnectionRefusedError:
                assert time.monotonic() < end, self.log.read_text()
                time.sleep(0.05)
            else:
                return station

    def begin(self) -> None:
        """Start it, and know its host key."""
        self.start().socket.close()
        self.know_host()

    def know_host(self) -> None:
        kind, key, *_ = (self.state / "ssh_host_ed25519_key.pub").read_text().split()
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.ssh_port} {kind} {key}\n")

    def add_users(self) -> None:
        """One of each level."""
        for name, password in PASSWORDS.items():
            file = self.folder / f"password-{name}"
            file.write_text(password + "\n")
            self.ipsec_agent("user", "add", name, "--level", LEVELS[name], "--password-file", str(file))

    def ipsec_agent(self, *words: str) -> str:
        command = [PROGRAM, *words, "--state", str(self.state)]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE).stdout

    def shell(self, line: str) -> str:
        """The shell on this machine, as the user of the first start."""
        return self.ipsec_agent("shell", "-c", line)

    # ---- ssh --------------------------------------------------------------------------

    def command(self, user: str, *options: str, key: Path | None = None) -> list[str]:
        """`ssh` up to the name of the host."""
        settings = {
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": str(self.folder / "known_hosts"),
            "GlobalKnownHostsFile": "/dev/null",
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "IdentityFile": str(key) if key is not None else "none",
            "PreferredAuthentications": "publickey" if key is not None else "password",
            "NumberOfPasswordPrompts": "1",
        }
        words = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        return [
            "ssh",
            "-F",
            "none",
            *options,
            *words,
            "-p",
            str(self.ssh_port),
            f"{user}@127.0.0.1",
        ]  # the first counts

    def environment(self, user: str, password: str | None = None) -> Mapping[str, str]:
        spoken = PASSWORDS.get(user, "") if password is None else password
        return {**os.environ, "SSH_ASKPASS": str(self.askpass), "SSH_ASKPASS_REQUIRE": "force", "SPOKEN": spoken}

    def ssh(
        self,
        user: str,
        *words: str,
        options: Sequence[str] = (),
        password: str | None = None,
        key: Path | None = None,
        lines: str = "",
    ) -> Ran:
        """`words`: the command. `lines`: standard input."""
        return subprocess.run(
            [*self.command(user, *options, key=key), *words],
            input=lines,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env=self.environment(user, password),
        )

    def logged(self) -> str:
        return self.log.read_text()

    def logs(self, text: str) -> bool:
        """Whether it comes to stand in the log: a client may have ended before the agent has noticed."""
        end = time.monotonic() + PATIENCE
        while text not in self.logged() and time.monotonic() < end:
            time.sleep(0.05)
        return text in self.logged()


def make_key(path: Path, kind: str = "ed25519") -> str:
    """A pair; the line of the public one."""
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "test", "-f", path], check=True)
    return path.with_suffix(".pub").read_text().strip()


@contextmanager
def gateway(folder: Path, *options: str) -> Iterator[Gateway]:
    """One that has started, with its users."""
    made = Gateway(folder, *options)
    made.begin()
    try:
        made.add_users()
        yield made
    finally:
        assert made.stop() == 0
