"""Our own charon as a process: started detached, found again by its lock, ended only when asked.

It outlives the agent, because it carries the tunnels; the next agent adopts it. A lock
held by charon itself says whether it lives, so never a second one is started: flock on a
file of the run folder, taken by the launching shell and inherited by charon. The shell has
a mount namespace of its own with the run folder bound over /run, since charon's pid file is
fixed to /var/run/charon.pid. Where namespaces are forbidden (a container without
CAP_SYS_ADMIN) charon runs on the plain /run, then only beside no other charon.
Everything here blocks for a moment; call it from a thread.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from agent.backends.charon.config import (
    AT_START,
    BEFORE_JOURNAL,
    CONF,
    INSIDE,
    LOCK,
    LOG,
    OUTPUT,
    PID,
    SOCKET,
    STARTED,
    Options,
    render,
)
from agent.backends.engine import EngineError

logger = logging.getLogger(__name__)

CHARON: Final = Path("/usr/lib/ipsec/charon")
PLUGIN_FOLDER: Final = Path("/usr/lib/ipsec/plugins")
PACKAGES: Final = {  # Debian's, of what may be missing; the other plugins come with charon
    "vici": "strongswan-swanctl",
    "openssl": "libstrongswan-standard-plugins",
    "gcrypt": "libstrongswan-extra-plugins",
}
STARTING_SECONDS: Final = 10.0
ENDING_SECONDS: Final = 5.0  # charon sends deletes for its SAs
POLL_SECONDS: Final = 0.02
RUNNING_ALREADY: Final = 75  # exit status of the launching shell
KILLING_SECONDS: Final = 1.0  # for the kernel to take a killed charon apart
LOG_KEPT: Final = 8 << 20  # octets, of the log and of the one before: 2,000 tunnels up and down, and no disk is filled

# $1 folder, $2 charon, $3 where it sees the folder. In the folder's own name for /run, so that paths are the profile's.
SCRIPT: Final = f"""
if [ "$3" = {INSIDE} ]; then
    mount --bind "$1" /run || exit 71
    [ /var/run -ef /run ] || mount --bind "$1" /var/run || exit 71
fi
exec 9>"$3/{LOCK}"
flock -n 9 || exit {RUNNING_ALREADY}
rm -f "$3/{SOCKET}" "$3/{PID}"
exec "$2"
"""


class Daemon:
    """`folder`: its run folder, made here, readable by root alone. `prefix`: words before the command that launches it,
    as `ip netns exec gw`, where charon is to live in another network namespace than the agent."""

    def __init__(self, folder: Path, *, charon: Path = CHARON, prefix: Sequence[str] = ()) -> None:
        self.folder = folder
        self._prefix = tuple(prefix)
        self._charon = charon
        self._children: set[int] = set()  # started by us; to be reaped

    # ---- what there is ----------------------------------------------------------------

    def alive(self) -> bool:
        """Does a charon of this folder run?"""
        self._reap()
        try:
            lock = os.open(self.folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def _runs(self, pid: int) -> bool:
        """Does the one of this process number still run, or, with 0, any?"""
        return self.alive() and (not pid or Path(f"/proc/{pid}").exists())

    def pid(self) -> int:
        """Its process number, 0 when unknown: of who listens at the socket, else what the pid file says."""
        try:
            with self.connect(1.0) as connection:
                return _listener(connection)
        except OSError:
            pass
        folder = self.folder if self._inside() == INSIDE else Path("/var/run")
        try:
            return int((folder / PID).read_text())
        except (OSError, ValueError):
            return 0

    def connect(self, timeout: float | None) -> socket.socket:
        """A connection to its VICI socket. Raises OSError. Long paths do not fit a socket address, so by descriptor."""
        folder = os.open(self.folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(timeout)
            connection.connect(f"/proc/self/fd/{folder}/{SOCKET}")
        except BaseException:
            connection.close()
            raise
        finally:
            os.close(folder)
        return connection

    def identity(self, connection: socket.socket) -> str:
        """Tells one life of charon from the next: process number and start time of who listens at the socket."""
        pid = _listener(connection)
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return str(pid)
        return f"{pid}:{fields[19]}"

    # ---- starting and ending ------------------------------------------------------------

    def start(self, options: Options) -> None:
        """Start it and wait until its socket answers. Raises EngineError with what it said."""
        missing = missing_packages(self._charon)
        if "strongswan-charon" in missing or PACKAGES["vici"] in missing:
            raise EngineError(f"strongSwan is not complete: install {' '.join(missing)}")
        if missing:
            logger.warning("some algorithms are missing: install %s", " ".join(missing))
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _set_aside(self.folder / LOG)
        status = self._launch(INSIDE, options)
        if status is not None and status != RUNNING_ALREADY and not self.alive():
            logger.warning("charon gets no /run of its own (%s); it uses the machine's", self._said())
            status = self._launch(self.folder, options)
        if status not in (None, RUNNING_ALREADY):
            raise EngineError(f"charon ended with status {status}: {self._said()}")

    def started_with(self) -> dict[str, int]:
        """What of AT_START the charon that runs was started with."""
        try:
            told = json.loads((self.folder / STARTED).read_text())
            return {name: int(told[name]) for name in AT_START}
        except (OSError, ValueError, KeyError, TypeError):
            return dict(BEFORE_JOURNAL)

    def write_options(self, options: Options) -> None:
        """Rewrite its configuration file; VICI reload-settings makes it read it."""
        self._write_conf(self._inside(), options)

    def end(self) -> None:
        """Ask it to end, then insist. Nothing when it does not run. One that is started meanwhile is another."""
        pid = 0
        for number, seconds in ((signal.SIGTERM, ENDING_SECONDS), (signal.SIGKILL, ENDING_SECONDS)):
            deadline = time.monotonic() + seconds
            pid = pid or self.pid()
            if not self._runs(pid):
                return
            if pid:
                _signal(pid, number)
            while self._runs(pid) and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)

    def kill(self) -> bool:
        """End it at once; for one that does not answer. False when there was none."""
        pid = self.pid()
        if not pid or not self.alive():
            return False
        _signal(pid, signal.SIGKILL)
        deadline = time.monotonic() + KILLING_SECONDS
        while self.alive() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        return True

    def _launch(self, inside: Path, options: Options) -> int | None:
        """None when it answers, else the exit status."""
        self._write_conf(inside, options)
        (self.folder / STARTED).write_text(json.dumps({name: getattr(options, name) for name in AT_START}))
        arguments = ["sh", "-c", SCRIPT, "sh", str(self.folder), str(self._charon), str(inside)]
        if inside == INSIDE:
            arguments = ["unshare", "--mount", "--propagation", "private", "--", *arguments]
        arguments = [*self._prefix, *arguments]
        environment = {**os.environ, "STRONGSWAN_CONF": str(inside / CONF)}
        environment.pop("NOTIFY_SOCKET", None)
        output = os.open(self.folder / OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            child = os.posix_spawnp(
                arguments[0],
                arguments,
                environment,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, output, 1),
                    (os.POSIX_SPAWN_DUP2, output, 2),
                ],
                setsid=True,
                setsigdef=[signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE],
            )
        except OSError as error:
            raise EngineError(f"cannot start {arguments[0]}: {error.strerror}") from error
        finally:
            os.close(output)
        self._children.add(child)
        deadline = time.monotonic() + STARTING_SECONDS
        while time.monotonic() < deadline:
            ended = self._reap().get(child)
            if ended is not None:
                return os.waitstatus_to_exitcode(ended)
            try:
                self.connect(1.0).close()
            except OSError:
                time.sleep(POLL_SECONDS)
            else:
                return None
        raise EngineError(f"charon does not open {self.folder / SOCKET} within {STARTING_SECONDS:.0f} s")

    def _reap(self) -> dict[int, int]:
        """Wait status of those of our children that have ended."""
        ended = {}
        for child in list(self._children):
            try:
                pid, status = os.waitpid(child, os.WNOHANG)
            except ChildProcessError:  # somebody else took it
                pid, status = child, 0
            if pid:
                self._children.discard(child)
                ended[child] = status
        return ended

    # ---- its files ------------------------------------------------------------------------

    def log_set_aside(self) -> bool:
        """Keep its log below the bound. True when charon has to open it anew, by VICI reload-settings: also when an
        earlier try, perhaps another agent's, ended between the two."""
        log = self.folder / LOG
        _set_aside(log)
        return not log.exists()

    def _write_conf(self, inside: Path, options: Options) -> None:
        target = self.folder / CONF
        fresh = target.with_suffix(".new")
        fresh.write_text(render(inside, options))
        fresh.replace(target)

    def _inside(self) -> Path:
        """Where the charon that runs sees the folder: what its configuration file says."""
        try:
            text = (self.folder / CONF).read_text()
        except OSError:
            return INSIDE
        return INSIDE if f"unix://{INSIDE / SOCKET}" in text else self.folder

    def _said(self) -> str:
        """The last line that shell or charon wrote."""
        try:
            lines = (self.folder / OUTPUT).read_text(errors="replace").split("\n")
        except OSError:
            return "no output"
        return next((line.strip() for line in reversed(lines) if line.strip()), "no output")


def missing_packages(charon: Path = CHARON) -> list[str]:
    """Debian packages that this machine lacks."""
    missing = [] if charon.exists() else ["strongswan-charon"]
    for plugin, package in PACKAGES.items():
        if not (PLUGIN_FOLDER / f"libstrongswan-{plugin}.so").exists():
            missing.append(package)
    return missing


def _listener(connection: socket.socket) -> int:
    """Process at the other end, as the kernel says (struct ucred begins with it)."""
    return int.from_bytes(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 4), sys.byteorder)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _set_aside(log: Path) -> None:
    try:
        if log.stat().st_size > LOG_KEPT:
            log.replace(log.with_suffix(".log.1"))
    except FileNotFoundError:
        return
