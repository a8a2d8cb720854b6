"""`scripts/install`: everything in its place below a prefix, a command that runs there, settings that are kept."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


def install(prefix: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(PROJECT / "scripts" / "install"), "--prefix", str(prefix), *words]
    return subprocess.run(command, capture_output=True, text=True)


def test_installed_twice_it_runs_and_keeps_the_settings(tmp_path: Path) -> None:
    done = install(tmp_path)
    assert done.returncode == 0, done.stderr
    settings = tmp_path / "etc/ipsec-agent/agent.toml"
    assert stat.S_IMODE(settings.stat().st_mode) == 0o600
    settings.write_text('backend = "memory"\n')
    (program,) = tmp_path.glob("opt/ipsec-agent/lib/python3*/site-packages/agent/cli.py")
    program.write_text("of an older checkout")
    done = install(tmp_path)
    assert done.returncode == 0, done.stderr
    assert program.read_text() == (PROJECT / "agent/cli.py").read_text()
    assert settings.read_text() == 'backend = "memory"\n'

    units = {path.name for path in (tmp_path / "etc/systemd/system").iterdir()}
    assert units == {"ipsec-agent.service", "ipsec-agent-spd.service"}
    modules = tmp_path / "usr/local/share/snmp/mibs"
    assert (modules / "IPSEC-GATEWAY-MIB").is_file()
    if shutil.which("snmptranslate"):  # the folders of docs/first-gateway.md are enough
        command = [
            "snmptranslate",
            "-M",
            f"{modules}:{modules}/base",
            "-m",
            "ALL",
            "-On",
            "-IR",
            "ipsecGwPeerApplyState.1",
        ]
        assert subprocess.run(command, capture_output=True, text=True).stdout == ".1.3.6.1.4.1.272.4.26.200.30.1.1.1\n"
    assert str((tmp_path / "usr/local/bin/ipsec-agent").readlink()) == "/opt/ipsec-agent/bin/ipsec-agent"
    home = tmp_path / "opt/ipsec-agent"
    assert (home / "bin/ipsec-agent").read_text().startswith("#!/opt/ipsec-agent/bin/python")
    assert not list(home.glob("lib/python3*/site-packages/pytest")), "tools of the tests are not installed"

    # where it will be: in /opt, by a mount of this test's own
    if os.geteuid() == 0 and shutil.which("unshare") is not None:
        mounted = 'mount --bind "$1" /opt && shift && exec "$@"'
        command = [
            "unshare",
            "--mount",
            "sh",
            "-c",
            mounted,
            "sh",
            str(tmp_path / "opt"),
            "/opt/ipsec-agent/bin/python",
        ]
        done = subprocess.run(
            [*command, "/opt/ipsec-agent/bin/ipsec-agent", "check", "--state", str(tmp_path / "state")],
            capture_output=True,
            text=True,
            cwd="/",
        )
        assert "errors: " in done.stdout, done.stderr


def test_an_option_that_is_none_is_named(tmp_path: Path) -> None:
    done = install(tmp_path, "--perfix")
    assert done.returncode == 2 and "accepted: --prefix DIR, --wheels DIR" in done.stderr
