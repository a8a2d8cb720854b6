"""The lab as tests: each boot of User Mode Linux is one test, whose output tells every scenario and check.

Scenarios are in tests/lab; `./scripts/lab` runs them alone and by name.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
UNABLE = 2
# Seconds a boot takes at most that has the machine for itself: what needs no waiting fits into one short boot. Boots
# that run beside each other share the processors, and have as many times that.
FIRST_BOUND = 90
BESIDE = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))

pytestmark = [pytest.mark.lab, pytest.mark.slow]


def play(boot: str, keep: Path, *options: str) -> float:
    """Seconds of one boot. Fails with the boot's own output; skips, saying why, where the lab cannot run."""
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "tests.lab.boot", *options, "--keep", str(keep), boot],
        cwd=PROJECT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode == UNABLE:
        pytest.skip(done.stdout.strip().removeprefix("skipped: "))
    assert done.returncode == 0, done.stdout
    return time.monotonic() - begun


def test_tunnels_rules_crash_and_removal(tmp_path: Path) -> None:
    assert play("first", tmp_path) < FIRST_BOUND * BESIDE


def test_lifetimes_and_dead_peers(tmp_path: Path) -> None:
    play("second", tmp_path)


def test_tables_limits_and_what_ends_an_sa(tmp_path: Path) -> None:
    play("monitoring", tmp_path)


def test_settings_of_both_phases(tmp_path: Path) -> None:
    play("third", tmp_path)


def test_every_algorithm_of_both_phases(tmp_path: Path) -> None:
    play("algorithms", tmp_path)


def test_version_2_and_what_moves_lapses_or_is_full(tmp_path: Path) -> None:
    play("version2", tmp_path)


def test_kills_of_agents_and_charons(tmp_path: Path) -> None:
    play("chaos", tmp_path)


def test_rules_of_every_kind(tmp_path: Path) -> None:
    play("rules", tmp_path)


def test_links_names_and_backup_peers(tmp_path: Path) -> None:
    play("surroundings", tmp_path)


@pytest.mark.nightly
def test_rules_about_one_interface(tmp_path: Path) -> None:
    play("inbound", tmp_path, "--qemu")


@pytest.mark.nightly
def test_virtual_interfaces(tmp_path: Path) -> None:
    play("interface", tmp_path, "--qemu")


def test_certificates_identities_and_the_daemon(tmp_path: Path) -> None:
    play("certificates", tmp_path)
