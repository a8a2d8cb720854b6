"""Settings of the host: written where an object says so, given back with its default, left alone otherwise."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from agent.backends.kernel_settings import KernelSettings
from agent.mib.ber import Value
from agent.plan.kernel_settings import FOREVER, wanted
from agent.store.errors import StoreError
from tests.plan_helpers import DictConfiguration
from tests.xfrm_namespace import Namespace, cable, namespaces, until

LOW, HIGH = "ipv4/ipfrag_low_thresh", "ipv4/ipfrag_high_thresh"
EXPIRES = "ipv4/route/mtu_expires"


class Notes(dict[str, int]):
    """The durable numbers."""

    async def remember(self, news: Mapping[str, int | None]) -> None:
        for name, value in news.items():
            if value is None:
                self.pop(name, None)
            else:
                self[name] = value


def test_a_default_wants_nothing_of_the_host() -> None:
    assert wanted(DictConfiguration()) == {}
    defaults: dict[str, Value] = {"ipsecGlobContDefaultPmtuTtl": 10, "ipsecTuneIPFragMaxBytes": 131_072}
    assert wanted(DictConfiguration(scalars=defaults)) == {}


def test_minutes_become_seconds_and_zero_is_for_ever() -> None:
    assert wanted(DictConfiguration(scalars={"ipsecGlobContDefaultPmtuTtl": 2}))[EXPIRES] == 120
    assert wanted(DictConfiguration(scalars={"ipsecGlobContDefaultPmtuTtl": 0}))[EXPIRES] == FOREVER


def test_fragments_have_a_low_and_a_high_mark() -> None:
    found = wanted(DictConfiguration(scalars={"ipsecTuneIPFragMaxBytes": 200_000}))
    assert (found[LOW], found[HIGH]) == (150_000, 200_000) and found["ipv6/ip6frag_high_thresh"] == 200_000


@pytest.fixture
def spaces() -> Iterator[tuple[Namespace, Namespace]]:
    with namespaces(2) as (one, other):
        if not one.run(lambda: Path("/proc/sys/net/ipv4/ipfrag_high_thresh").exists()):
            pytest.skip("this namespace has no settings of its own")
        yield one, other


def value(ns: Namespace, file: str) -> int:
    return int(ns.run(lambda: Path(f"/proc/sys/net/{file}").read_text()))


def apply(ns: Namespace, notes: Notes, values: Mapping[str, int]) -> dict[str, str]:
    return ns.run(lambda: asyncio.run(KernelSettings(notes, notes.remember).apply(values)))


class Refusing(Notes):
    """A disk that is full for a while."""

    full = True

    async def remember(self, news: Mapping[str, int | None]) -> None:
        if self.full:
            raise StoreError("no space left")
        await super().remember(news)


async def test_nothing_is_written_before_what_was_there_is_kept(tmp_path: Path) -> None:
    file = tmp_path / EXPIRES
    file.parent.mkdir(parents=True)
    file.write_text("600\n")
    notes = Refusing()
    kept = KernelSettings(notes, notes.remember, tmp_path)
    for _ in range(2):
        with pytest.raises(StoreError):
            await kept.apply({EXPIRES: 120})
        assert file.read_text() == "600\n"
    notes.full = False
    assert await kept.apply({EXPIRES: 120}) == {} and notes == {EXPIRES: 600} and file.read_text() == "120\n"


async def test_what_could_not_be_given_back_is_not_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / EXPIRES
    file.parent.mkdir(parents=True)
    file.write_text("120\n")
    notes = Notes({EXPIRES: 600})
    kept = KernelSettings(notes, notes.remember, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(kept, "_write", lambda file, value: "Read-only file system")
        assert EXPIRES in await kept.apply({})
    assert notes == {EXPIRES: 600}
    assert await kept.apply({}) == {} and notes == {} and file.read_text() == "600\n"


def test_values_are_written_and_the_hosts_own_come_back(spaces: tuple[Namespace, Namespace]) -> None:
    ns, notes = spaces[0], Notes()
    own = {file: value(ns, file) for file in (LOW, HIGH)}
    for high in (own[HIGH] * 4, 60_000, 200_000):  # up, far down, up again: neither mark may pass the other
        files = {LOW: high * 3 // 4, HIGH: high}
        assert apply(ns, notes, files) == {}
        assert (value(ns, LOW), value(ns, HIGH)) == (high * 3 // 4, high)
    assert notes == own  # each time by another agent
    assert apply(ns, notes, {}) == {} and notes == {}
    assert {file: value(ns, file) for file in (LOW, HIGH)} == own


def test_what_the_kernel_does_not_have_is_left_out(spaces: tuple[Namespace, Namespace]) -> None:
    notes = Notes()
    settings = KernelSettings(notes, notes.remember, root=Path("/nonexistent"))
    assert asyncio.run(settings.apply({EXPIRES: 5})) == {} and notes == {}


def test_a_flood_of_fragments_is_bounded(spaces: tuple[Namespace, Namespace]) -> None:
    """ipsecTuneIPFragMaxBytes: beyond it reassembly fails, and is counted."""
    ns, other = spaces
    cable(ns, other)
    ns.ip("addr add 10.9.0.1/24 dev v0")
    other.ip("addr add 10.9.0.2/24 dev v0")

    def failures() -> int:
        lines = ns.run(lambda: Path("/proc/thread-self/net/snmp").read_text()).splitlines()
        names, values = (line.split()[1:] for line in lines if line.startswith("Ip:"))
        return int(values[names.index("ReasmFails")])

    def flood() -> None:
        """300 first fragments of 1,400 octets, none of which is ever completed."""
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            for identity in range(300):
                head = bytes([0x45, 0, *(1420).to_bytes(2, "big"), *identity.to_bytes(2, "big"), 0x20, 0, 64, 17, 0, 0])
                raw.sendto(head + bytes([10, 9, 0, 2, 10, 9, 0, 1]) + bytes(1400), ("10.9.0.1", 0))

    other.command("ping", "-c", "1", "10.9.0.1")  # neighbours know each other
    before = failures()
    other.run(flood)
    assert failures() == before  # the host's 4 MB hold them all
    notes = Notes()
    files = wanted(DictConfiguration(scalars={"ipsecTuneIPFragMaxBytes": 65_536}))
    assert apply(ns, notes, files) == {}
    other.run(flood)
    asyncio.run(until(lambda: failures() > before))
