"""The other kernel of the lab: Debian's own, in qemu, for what User Mode Linux lacks (XFRM interfaces, nftables).

Software emulation, so a boot takes half a minute and everything in it some ten times as long; hence nightly. The
kernel's package is unpacked into a folder and not installed. The root is this machine's file system, read-only by 9p,
as in User Mode Linux; a small first file system of busybox finds it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parent.parent.parent
KERNELS: Final = PROJECT / ".venv" / "qemu"  # where scripts/setup unpacks the packages
MEMORY: Final = "1536M"
FIRST_MODULES: Final = ("virtio_pci", "9pnet_virtio", "9p")  # with what they need: to find the root

INIT: Final = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
for module in $(/bin/busybox cat /modules); do /bin/busybox insmod /lib/$module; done
/bin/busybox mount -t 9p -o trans=virtio,version=9p2000.L,cache=loose,msize=262144,ro root /root
/bin/busybox mount -t devtmpfs dev /root/dev
/bin/busybox umount /proc /sys
exec /bin/busybox switch_root /root /bin/bash "$GUEST_INIT"
"""


def kernel_release() -> str:
    """Of the unpacked kernel; '' where there is none."""
    folders = sorted((KERNELS / "lib" / "modules").glob("*"))
    return folders[-1].name if folders else ""


def unable() -> str:
    """Why this kernel cannot be booted here, or '' when it can."""
    if shutil.which("qemu-system-x86_64") is None:
        return "the lab in qemu needs the package qemu-system-x86"
    if not kernel_release() or not (KERNELS / "bin" / "busybox").exists():
        return f"the lab in qemu needs a kernel and busybox in {KERNELS}; ./scripts/lab --qemu fetches them"
    return ""


def modules_for(names: tuple[str, ...]) -> list[Path]:
    """Files to insert, in order. Raises CalledProcessError."""
    found: dict[Path, None] = {}
    for name in names:
        done = subprocess.run(
            ["modprobe", "-d", str(KERNELS), "-S", kernel_release(), "--show-depends", name],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"},
        )
        for line in done.stdout.splitlines():
            if line.startswith("insmod "):
                found[Path(line.split()[1])] = None
    return list(found)


def first_file_system(target: Path) -> None:
    """Busybox, the modules that find the root, and what to do, as a cpio archive (newc, as the kernel wants it)."""
    modules = modules_for(FIRST_MODULES)
    files: list[tuple[str, int, bytes]] = [(name, 0o040755, b"") for name in ("bin", "lib", "proc", "sys", "root")]
    files.append(("bin/busybox", 0o100755, (KERNELS / "bin" / "busybox").read_bytes()))
    files += ((f"lib/{path.name}", 0o100644, path.read_bytes()) for path in modules)
    files.append(("modules", 0o100644, "\n".join(path.name for path in modules).encode()))
    files.append(("init", 0o100755, INIT.encode()))
    files.append(("TRAILER!!!", 0, b""))
    with target.open("wb") as archive:
        for number, (name, mode, data) in enumerate(files, 1):
            links = 2 if mode & 0o040000 else 1
            fields = (number, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
            head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
            archive.write(head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4))


def command(init: Path, out: Path, scenarios: list[str]) -> list[str]:
    """The words that boot it. `out`: a folder that the guest may write to."""
    archive = out / "first.cpio"
    first_file_system(archive)
    release = kernel_release()
    words = [
        *("console=ttyS0", "quiet", "panic=-1", "mitigations=off", "net.ifnames=0"),
        *(f"GUEST_INIT={init}", f"PROJECT={PROJECT}", f"PYTHON={sys.executable}", f"SCENARIOS={','.join(scenarios)}"),
        f"MODULES={KERNELS}/lib/modules/{release}",
    ]
    share = "security_model=none,multidevs=remap"
    return [
        *("qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", MEMORY),
        *("-no-reboot", "-display", "none", "-monitor", "none", "-serial", "stdio", "-nic", "none"),
        *("-kernel", str(KERNELS / "boot" / f"vmlinuz-{release}"), "-initrd", str(archive), "-append", " ".join(words)),
        *("-virtfs", f"local,path=/,mount_tag=root,readonly=on,{share}"),
        *("-virtfs", f"local,path={out},mount_tag=out,{share}"),
    ]
