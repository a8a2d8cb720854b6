"""Spd, charon and monitor against a kernel that has ESP: charon_guest.py played in one boot of User Mode Linux."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab import uml

PROJECT = Path(__file__).resolve().parent.parent
BOUND = 600  # seconds; a boot that hangs is ended
NEEDED = os.geteuid() == 0 and shutil.which("linux.uml") and Path("/usr/lib/ipsec/charon").exists()

INIT = """#!/bin/bash
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/dev/shm LC_ALL=C.UTF-8 PYTHONDONTWRITEBYTECODE=1
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t tmpfs tmpfs /run
mkdir -p /dev/shm /dev/pts /run/netns; mount -t tmpfs tmpfs /dev/shm; mount -t devpts devpts /dev/pts
kernel=$(uname -r)
mount -t tmpfs tmpfs /lib/modules && ln -s "/usr/lib/uml/modules/$kernel" "/lib/modules/$kernel"
modprobe -a ipv6 veth af_packet xfrm_user esp4 authenc cbc echainiv sha256_generic sha1_generic aes_generic
ip link set lo up
export TMPDIR=/dev/shm
cd "$PROJECT" && "$PYTHON" -m tests.charon_guest $ARGUMENTS
echo "EXIT $?"
echo o >/proc/sysrq-trigger
sleep 10
"""


def boot(folder: Path, arguments: str = "") -> str:
    """What the guest printed."""
    init = folder / "init"
    init.write_text(INIT)
    init.chmod(0o755)
    Path("/lib/modules").mkdir(parents=True, exist_ok=True)
    command = ["linux.uml", "mem=512M", "root=none", "rootfstype=hostfs", "rootflags=/", "ro", f"init={init}", "quiet"]
    command += ["con=null", "con0=fd:0,fd:1", f"uml_dir={folder}", f"PROJECT={PROJECT}", f"PYTHON={sys.executable}"]
    command.append(f"ARGUMENTS={arguments}")
    guest = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=uml.environment(folder),
        start_new_session=True,
    )
    try:
        return guest.communicate(timeout=BOUND)[0].decode(errors="replace")
    finally:
        if guest.poll() is None:
            os.killpg(guest.pid, signal.SIGKILL)
            guest.communicate()


@pytest.mark.lab
@pytest.mark.slow
@pytest.mark.skipif(not NEEDED, reason="needs root, user-mode-linux and strongSwan's charon")
def test_tunnels_counters_and_a_killed_charon(tmp_path: Path) -> None:
    if why := uml.unable():
        pytest.skip(why)
    said = boot(tmp_path)
    checks = [line.strip() for line in said.split("\n") if line.startswith("CHECK")]
    assert checks and checks[-1] == "CHECK ok it ends", said
    assert not [line for line in checks if not line.startswith("CHECK ok")], said


if __name__ == "__main__":
    import tempfile

    print(boot(Path(tempfile.mkdtemp()), " ".join(sys.argv[1:])))
