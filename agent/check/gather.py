"""Asks the machine for the facts. Each question stands alone: one that cannot be answered leaves its fact at 'well'."""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from agent.backends.charon.process import CHARON, Daemon, missing_packages
from agent.backends.engine import EngineError, Observed
from agent.backends.sole import NAME as SOLE_NAME
from agent.check.facts import Facts, PortHolder
from agent.config import Settings
from agent.inspect import InspectError, plan_of, stored
from agent.plan.daemon import NAT_T_PORT, USUAL
from agent.plan.model import PolicyKey
from agent.plan.planner import Plan
from agent.serve import CHARON_FOLDER
from agent.ssh_service import HOST_KEY_FILE
from agent.store.lock import LOCK_FILE
from agent.store.secrets import KEY_FILE

CAP_NET_ADMIN: Final = 12  # capabilities(7)
SNMP_PORT: Final = 161
SYSCTLS: Final = (
    "net.ipv4.ip_forward",
    "net.ipv6.conf.all.forwarding",
    "net.ipv4.conf.all.rp_filter",
    "net.ipv4.conf.default.rp_filter",
)
MODULES: Final = {"esp4": "CONFIG_INET_ESP", "xfrm_user": "CONFIG_XFRM_USER"}
COMMAND_SECONDS: Final = 5.0

# An SA of each kind of transform, in the words of ip-xfrm(8), and what an operator calls it. The ciphers are those that
# the kernel has whenever it has the protocol.
TRANSFORMS: Final = {
    "ESP": "esp enc ecb(cipher_null) 0x auth digest_null 0x",
    "AH": f"ah auth hmac(sha256) 0x{'00' * 32}",
    "IPComp": "comp comp deflate",
}
ENDS: Final = {"IPv4": ("192.0.2.1", "192.0.2.2"), "IPv6": ("2001:db8::1", "2001:db8::2")}
NO_TRANSFORM: Final = re.compile("type not found|Protocol not supported")  # EPROTONOSUPPORT, with and without words


def gather(settings: Settings) -> Facts:
    """All facts about these settings on this machine."""
    plan, store_error = _plan(settings)
    observed, xfrm_error = _policies()
    foreign = {key for key, held in observed.items() if not held.ours}
    wanted = plan.policies if plan is not None else {}
    ours = Daemon(settings.state / CHARON_FOLDER).pid()
    ike_ports = {NAT_T_PORT, (plan.daemon if plan is not None else USUAL).ike_port}
    holders = _holders({*ike_ports, SNMP_PORT}, ours)
    database = settings.state / "agent.sqlite"
    return Facts(
        settings=settings,
        plan=plan,
        store_error=store_error,
        root=os.geteuid() == 0,
        net_admin=_capable(CAP_NET_ADMIN),
        xfrm_error=xfrm_error,
        modules_missing=_modules_missing(),
        transforms_missing=_transforms_missing(),
        charon=CHARON.exists(),
        charon_version=_charon_version(),
        packages_missing=tuple(missing_packages()),
        ports=tuple(holder for holder in holders if holder.port in ike_ports),
        snmp_holder=next((holder for holder in holders if holder.port == SNMP_PORT), None),
        sysctls={name: _sysctl(name) for name in SYSCTLS},
        state_mode=_mode(settings.state),
        key_mode=_mode(settings.state / KEY_FILE),
        ssh_key_mode=_mode(settings.state / HOST_KEY_FILE),
        free_octets=_free(settings.state),
        clock=time.time(),
        built=_written(Path(__file__)),
        store_written=_written(database),
        agent_pid=_agent(settings.state),
        others_agent=_sole_taken() and not _agent(settings.state),
        foreign=tuple(key for key in wanted if key in foreign),
        foreign_count=len(foreign),
        nft=shutil.which("nft") is not None,
    )


def _plan(settings: Settings) -> tuple[Plan | None, str]:
    try:
        return asyncio.run(plan_of(settings, stored(settings)))[0], ""
    except (InspectError, EngineError) as error:
        return None, str(error)


def _policies() -> tuple[Mapping[PolicyKey, Observed], str]:
    from agent.backends.spd import KernelSpd

    async def look() -> Mapping[PolicyKey, Observed]:
        spd = KernelSpd()
        await spd.start()
        try:
            return await spd.observe()
        finally:
            await spd.stop()

    try:
        return asyncio.run(look()), ""
    except (EngineError, OSError) as error:
        return {}, str(error)


def _capable(number: int) -> bool:
    """CapEff of /proc/self/status, proc(5)."""
    match = re.search(r"^CapEff:\s*([0-9a-f]+)", _read(Path("/proc/self/status")), re.MULTILINE)
    return match is None or bool(int(match[1], 16) >> number & 1)


def _modules_missing() -> tuple[str, ...]:
    """Neither loaded, nor built in, nor loadable; () where the kernel tells nothing of its modules."""
    folder = Path("/lib/modules") / os.uname().release
    if not (folder / "modules.dep").exists():
        return ()
    known = _read(Path("/proc/modules")) + _read(folder / "modules.builtin") + _read(folder / "modules.dep")
    return tuple(name for name in MODULES if not re.search(rf"(^|/){name}(\.ko| )", known, re.MULTILINE))


def _transforms_missing() -> tuple[str, ...]:
    """`ESP for IPv4` …: what the kernel makes no SA of. Tried in a network namespace that is gone afterwards; what
    cannot be tried is not told."""
    found = []
    for (name, kind), (family, ends) in itertools.product(TRANSFORMS.items(), ENDS.items()):
        source, destination = ends
        protocol, *algorithms = kind.split()
        state = ["src", source, "dst", destination, "proto", protocol, "spi", "0x1000", "mode", "tunnel", *algorithms]
        command = ["unshare", "--net", "ip", "xfrm", "state", "add", *state]
        environment = {**os.environ, "LC_ALL": "C"}
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS, env=environment)
        except (OSError, subprocess.TimeoutExpired):
            return ()
        if done.returncode and NO_TRANSFORM.search(done.stderr) and "open" not in done.stderr:
            found.append(f"{name} for {family}")
    return tuple(found)


def _charon_version() -> str:
    """`5.9.8`, from the package's library; '' where it cannot be told."""
    query = ["dpkg-query", "-W", "-f", "${Version}", "strongswan-charon"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=COMMAND_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    match = re.match(r"(?:\d+:)?(\d+\.\d+\.\d+)", done.stdout)
    return match[1] if match else ""


def _holders(ports: set[int], charon: int) -> list[PortHolder]:
    """Who has these UDP ports, by /proc/net/udp and the descriptors of processes that we may look at."""
    inodes: dict[str, int] = {}
    for name in ("udp", "udp6"):
        for line in _read(Path("/proc/net") / name).splitlines()[1:]:
            fields = line.split()
            port = int(fields[1].rpartition(":")[2], 16)
            if port in ports:
                inodes[fields[9]] = port
    found: dict[int, PortHolder] = {port: PortHolder(port, 0, "") for port in inodes.values()}
    if not inodes:
        return []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            targets = [str(entry.readlink()) for entry in (process / "fd").iterdir()]
        except OSError:
            continue
        for target in targets:
            socket_port = inodes.get(target.removeprefix("socket:[").removesuffix("]"))
            if socket_port is not None:
                pid = int(process.name)
                found[socket_port] = PortHolder(
                    socket_port, pid, _read(process / "comm").strip(), pid == charon or pid == os.getpid()
                )
    return list(found.values())


def _agent(state: Path) -> int:
    """Process that holds the state folder's lock; 0 for nobody."""
    try:
        descriptor = os.open(state / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        return int(text) if text.isdigit() else -1
    finally:
        os.close(descriptor)
    return 0


def _sole_taken() -> bool:
    """By the list of sockets of this network namespace: taking the name to try would keep an agent from starting."""
    name = SOLE_NAME.replace("\0", "@")
    return any(line.split()[7:] == [name] for line in _read(Path("/proc/net/unix")).splitlines())


def _sysctl(name: str) -> int | None:
    text = _read(Path("/proc/sys") / name.replace(".", "/")).strip()
    return int(text) if text.isdigit() else None


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode & 0o7777
    except OSError:
        return None


def _free(path: Path) -> int:
    """Octets free on the file system that the folder is or will be on."""
    while not path.exists() and path != path.parent:
        path = path.parent
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
