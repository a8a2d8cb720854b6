"""What is remembered of loaded connections, when its file is not as it was left."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.backends.charon.ike import CharonIke
from agent.backends.charon.loaded import Journal
from tests.xfrm_namespace import until


@pytest.mark.parametrize("octets", [b"1:2\npeer-1 \xff\xfe\n", b"\0" * 4096, b"\xff" * 10, b"1:2\n\n \nx\n"])
def test_any_octets_are_some_journal(tmp_path: Path, octets: bytes) -> None:
    """After a crash of the machine a file may hold anything."""
    path = tmp_path / "loaded"
    path.write_bytes(octets)
    journal = Journal(path)
    journal.open("1:2")
    journal.loaded("peer-2", "abc")
    journal.close()
    again = Journal(path)
    again.open("1:2")
    assert again.fingerprints["peer-2"] == "abc"
    again.close()


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow: what ENOSPC is, EFBIG is here."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_costs_a_renegotiation_and_no_more(tmp_path: Path) -> None:
    """What could not be written down is not taken for something else by the next agent."""
    path = tmp_path / "loaded"
    now = [0.0]
    journal = Journal(path, lambda: now[0])
    journal.open("1:2")
    journal.loaded("peer-1", "old")
    with full_disk():
        journal.loaded("peer-1", "")
        journal.loaded("peer-1", "new")
        journal.loaded("peer-2", "new")
    next_agent = Journal(tmp_path / "loaded")
    assert journal.fingerprints == {"peer-1": "new", "peer-2": "new"}
    assert not path.exists()
    now[0] += 10
    journal.loaded("peer-3", "new")
    journal.close()
    next_agent.open("1:2")
    assert next_agent.fingerprints == dict.fromkeys(("peer-1", "peer-2", "peer-3"), "new")
    next_agent.close()


def test_another_life_of_charon_has_nothing_loaded(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "loaded")
    journal.open("1:2")
    journal.loaded("peer-1", "abc")
    journal.open("3:4")
    assert not journal.fingerprints
    journal.close()
    assert (tmp_path / "loaded").read_text() == "3:4\n"


async def test_a_defect_does_not_leave_charon_alone(tmp_path: Path) -> None:
    ike = CharonIke(tmp_path / "run", lambda peer, sealed: b"")
    asked: list[None] = []

    def broken() -> bool:
        asked.append(None)
        raise RuntimeError("a defect")

    ike.daemon.alive = broken  # type: ignore[method-assign]
    await ike.start()
    await until(lambda: len(asked) > 1)
    await ike.stop()
