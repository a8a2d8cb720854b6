"""Two of our private charons, each in a network namespace, with ESP in user space, as the protocol `Ike` shows them.

The host's kernel needs no ESP for this: a plugin of strongSwan does it over a TUN device
(kernel-libipsec; it forces UDP encapsulation). Needs root, hence the marker.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pytest import MonkeyPatch

from agent.backends.charon import CharonIke, attempts, process
from agent.backends.charon.config import Options
from agent.backends.charon.process import Daemon
from agent.backends.connections import Connections, Wanted
from agent.backends.engine import EngineError, IkeEvent, IkeEventKind, IkeSa
from agent.backends.leftovers import Leftovers
from agent.backends.memory import MemorySpd
from agent.backends.rowstate import Ledger
from agent.backends.spd import KernelSpd
from agent.mib import load_schema
from agent.mib.ber import decode_value
from agent.monitor import Monitor
from agent.plan import numbers
from agent.plan.flows import observed_name, with_flow
from agent.plan.model import Child, Connection, FlowChild, Secret, Tunnel, ViciValue
from agent.store.hooks import AGENT, Edit
from agent.store.store import Store, default_url
from tests.planned import Planned
from tests.xfrm_namespace import Namespace, until

NEEDED = os.geteuid() == 0 and Path("/usr/lib/ipsec/charon").exists() and shutil.which("ip")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.kernel,
    pytest.mark.skipif(not NEEDED, reason="needs root and strongSwan's charon"),
]

ADDRESSES = ("10.8.0.1", "10.8.0.2")
NETS = ("192.168.1.1", "192.168.2.1")
NOBODY = "10.8.0.77"
CHILD = "peer-1-rule-1"
SCHEMA = load_schema()
PATIENT = Options(plugins_before=("kernel-libipsec",))
QUICK = replace(PATIENT, retransmit_tries=2, retransmit_timeout=0.3)  # for who is not answered: 2 s
SLOW = replace(PATIENT, retransmit_tries=5, retransmit_timeout=2.0)  # a minute and more until an attempt is over
PATIENCE = 60.0  # seconds until what has to come counts as missing
AT_ONCE = 30.0  # seconds, of a busy machine, in which an attempt is not over by itself


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture(scope="module")
def namespaces() -> Iterator[tuple[str, str]]:
    names = (f"charon{os.getpid()}a", f"charon{os.getpid()}b")
    for name in names:
        ip("netns", "add", name)
    try:
        ip("link", "add", "v0", "netns", names[0], "type", "veth", "peer", "name", "v0", "netns", names[1])
        for name, address, net, other in zip(names, ADDRESSES, NETS, reversed(range(2)), strict=True):
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "v0")
            ip("-n", name, "link", "set", "v0", "up")
            ip("-n", name, "addr", "add", f"{net}/32", "dev", "lo")
            ip("-n", name, "route", "add", f"{NETS[other]}/32", "via", ADDRESSES[other], "src", net)
        yield names
    finally:
        for name in names:
            ip("netns", "del", name)


class Side:
    """One gateway's daemon, and what it told."""

    def __init__(self, namespace: str, number: int, folder: Path, options: Options = PATIENT) -> None:
        self.number = number
        self.secret = b"secret"
        self.ike = CharonIke(
            folder / f"side{number}",
            lambda peer, sealed: self.secret,
            options=options,
            prefix=("ip", "netns", "exec", namespace),
        )
        self.events: list[IkeEvent] = []
        self.ike.subscribe(self.events.append)

    def connection(self, esp: Sequence[str] = ("aes256-sha256-modp2048",), **changes: object) -> Connection:
        own, other = ADDRESSES[self.number], ADDRESSES[1 - self.number]
        child = {
            "local_ts": [f"{NETS[self.number]}/32"],
            "remote_ts": [f"{NETS[1 - self.number]}/32"],
            "esp_proposals": list(esp),
            "policies": "yes",  # user space ESP has no other way to its packets
            "reqid": "65536",
        }
        settings = {
            "version": "1",
            "local_addrs": [own],
            "remote_addrs": [other],
            "proposals": ["aes256-sha256-modp2048"],
            "encap": "yes",
            "local": {"auth": "psk", "id": own},
            "remote": {"auth": "psk", "id": other},
            "children": {CHILD: child},
        }
        return Connection("peer-1", 1, {**settings, **changes}, (Child(CHILD, 1, 1, 65536),))  # type: ignore[dict-item]

    def of_flows(self) -> dict[str, ViciValue]:
        """A child whose reqids the daemon allots."""
        nets = ([f"{NETS[place]}/32"] for place in (self.number, 1 - self.number))
        keys: dict[str, ViciValue] = dict(zip(("local_ts", "remote_ts"), nets, strict=True))
        return {**keys, "esp_proposals": ["aes256-sha256-modp2048"], "policies": "yes"}

    async def load(self, **changes: Any) -> None:
        await self.ike.load_secret(Secret("psk-1", 1, b"sealed", ADDRESSES))
        await self.ike.load_connection(self.connection(**changes))

    async def start(self) -> None:
        await self.ike.start()
        async with asyncio.timeout(PATIENCE):  # its own start waits for less
            await self.ike._there.wait()

    async def event(self, kind: IkeEventKind, seconds: float = PATIENCE) -> IkeEvent:
        """The first event of that kind since the last `clear`."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for event in self.events:
                if event.kind is kind:
                    return event
            await asyncio.sleep(0.02)
        told = [f"{event.kind.value} {event.text}".strip() for event in self.events]
        raise AssertionError("\n".join((f"no {kind}; there were", *told)))

    async def listed(self, seen: Callable[[Sequence[IkeSa]], object]) -> Sequence[IkeSa]:
        """What charon lists once it is so."""
        deadline = time.monotonic() + AT_ONCE
        while not seen(sas := await self.ike.list_sas()):
            assert time.monotonic() < deadline, sas
            await asyncio.sleep(0.05)
        return sas

    async def initiated(self) -> str:
        self.events.clear()
        await self.ike.initiate(CHILD, "peer-1", "a test")
        return (await self.event(IkeEventKind.INITIATED)).text


@pytest.fixture
async def pair(namespaces: tuple[str, str], tmp_path: Path) -> AsyncIterator[tuple[Side, Side]]:
    sides = tuple(Side(name, number, tmp_path) for number, name in enumerate(namespaces))
    await asyncio.gather(*(side.start() for side in sides))
    try:
        yield sides[0], sides[1]
    finally:
        await asyncio.gather(*(side.ike.shutdown() for side in sides))


@pytest.mark.parametrize("aggressive", ["no", "yes"])
async def test_a_tunnel_comes_up_and_is_told_of_at_both_ends(pair: tuple[Side, Side], aggressive: str) -> None:
    a, b = pair
    for side in pair:
        await side.load(aggressive=aggressive)
    assert await a.initiated() == ""
    up = await b.event(IkeEventKind.CHILD_UP)
    assert up.connection == "peer-1" and up.child_name == CHILD
    for side, initiator in ((a, True), (b, False)):
        (sa,) = await side.ike.list_sas()
        (child,) = sa.children
        assert (sa.connection, sa.version, sa.state, sa.initiator) == ("peer-1", 1, "ESTABLISHED", initiator)
        assert (sa.encryption, sa.encryption_bits, sa.group) == ("AES_CBC", 256, "MODP_2048")
        assert len(sa.initiator_spi) == len(sa.responder_spi) == 8
        assert (child.name, child.state, child.reqid, child.protocol, child.mode) == (CHILD, "INSTALLED", 65536, 50, 1)
        assert len(child.spi_in) == len(child.spi_out) == 4
    await a.ike.terminate(connection="peer-1")
    assert (await b.event(IkeEventKind.CHILD_DOWN)).child_name == CHILD
    assert await a.ike.list_sas() == ()


async def test_observe_shows_what_is_loaded_with_fingerprints(pair: tuple[Side, Side]) -> None:
    a, _ = pair
    await a.load()
    state = await a.ike.observe()
    assert state.connections == {"peer-1": a.ike.fingerprint(a.connection())}
    assert state.secrets == {"psk-1"}
    await a.ike.unload_connection("peer-1")
    await a.ike.unload_secret("psk-1")
    await a.ike.unload_connection("peer-1")  # twice is no error
    state = await a.ike.observe()
    assert not state.connections and not state.secrets


FAILURES: dict[str, tuple[dict[str, object], dict[str, object], str]] = {
    "other proposals": ({"proposals": ["aes128-sha1-modp1024"]}, {}, "NO_PROPOSAL_CHOSEN"),
    "wrong key, version 2": ({"version": "2"}, {"version": "2"}, "refused our authentication"),
    "wrong key, version 1": ({}, {}, "pre-shared keys probably differ"),
}


@pytest.mark.parametrize("case", FAILURES)
async def test_the_reason_of_a_failure_is_told(pair: tuple[Side, Side], case: str) -> None:
    a, b = pair
    own, other, told = FAILURES[case]
    if "key" in case:
        a.secret = b"another secret"
        await a.ike._set_options(replace(PATIENT, retransmit_tries=2, retransmit_timeout=0.6))  # none of version 1
    await a.load(**own)
    await b.load(**other)
    assert told in await a.initiated()


async def test_without_a_key_of_its_own_it_fails_at_once(pair: tuple[Side, Side]) -> None:
    a, b = pair
    await a.ike.load_connection(a.connection())
    await b.load()
    assert "no pre-shared key" in await a.initiated()


async def test_a_peer_that_does_not_answer(pair: tuple[Side, Side]) -> None:
    a, _ = pair
    await a.ike._set_options(QUICK)
    await a.load(remote_addrs=[NOBODY])
    assert "no answer from the peer" in await a.initiated()


async def test_stopping_does_not_wait_for_a_negotiation(pair: tuple[Side, Side]) -> None:
    a, _ = pair
    await a.ike._set_options(SLOW)
    await a.load(remote_addrs=[NOBODY])
    await a.ike.initiate(CHILD, "peer-1", "a test")
    under_way = a.ike._attempts
    assert under_way is not None
    await until(lambda: under_way._open)
    await a.ike.stop()
    await until(lambda: not under_way._open, AT_ONCE)
    await a.ike.start()  # for the fixture to end it


async def test_initiating_waits_until_the_connection_is_loaded(pair: tuple[Side, Side]) -> None:
    a, b = pair
    await b.load()
    await a.ike.initiate(CHILD, "peer-1", "a test")
    await asyncio.sleep(0.1)
    await a.load()
    assert (await a.event(IkeEventKind.INITIATED)).text == ""


async def test_asking_twice_makes_one_tunnel(pair: tuple[Side, Side]) -> None:
    a, _ = pair
    for side in pair:
        await side.load()
    await asyncio.gather(*(a.ike.initiate(CHILD, "peer-1", "a test") for _ in range(5)))
    await a.event(IkeEventKind.INITIATED)
    (sa,) = await a.ike.list_sas()
    assert len(sa.children) == 1
    assert sum(event.kind is IkeEventKind.INITIATED for event in a.events) == 1


HELD = [pytest.param(attempts.HOLD_SECONDS, id="held"), pytest.param(0.3, id="followed")]


async def call_nobody(side: Side, version: str, wait: float) -> None:
    """An attempt that would take a minute, `wait` seconds old."""
    await side.ike._set_options(SLOW)
    await side.load(remote_addrs=[NOBODY], version=version)
    side.events.clear()
    await side.ike.initiate(CHILD, "peer-1", "a test")
    await asyncio.sleep(wait)
    assert not [event for event in side.events if event.kind is IkeEventKind.INITIATED]


@pytest.mark.parametrize("hold", HELD)
@pytest.mark.parametrize("version", ["1", "2"])
async def test_an_attempt_that_is_ended_is_over_at_once(
    pair: tuple[Side, Side], version: str, hold: float, monkeypatch: MonkeyPatch
) -> None:
    """charon tells of no end of an IKE SA that was not established; the next attempt is one all the same."""
    monkeypatch.setattr(attempts, "HOLD_SECONDS", hold)
    a, b = pair
    await b.load(version=version)
    await call_nobody(a, version, 1.0)
    await a.ike.terminate(connection="peer-1")
    assert (await a.event(IkeEventKind.INITIATED, AT_ONCE)).text
    await a.load(version=version)
    assert await a.initiated() == ""


@pytest.mark.parametrize("hold", HELD)
@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("wait", [0.0, 1.0])
async def test_a_connection_loaded_anew_is_called_with_its_new_settings(
    pair: tuple[Side, Side], version: str, hold: float, wait: float, monkeypatch: MonkeyPatch
) -> None:
    """Loading ends what is negotiated with the settings before; who asked for the tunnel gets it, and one answer."""
    monkeypatch.setattr(attempts, "HOLD_SECONDS", hold)
    a, b = pair
    await b.load(version=version)
    wanted = Wanted({"peer-1": a.connection(remote_addrs=[NOBODY], version=version)})
    connections = Connections(a.ike, Ledger(), wanted, lambda: None, time.monotonic)
    running = asyncio.create_task(connections.run())
    try:
        connections.mark(["peer-1"], [])
        connections.look_again()
        await connections.idle.wait()  # else it and the next line set the daemon's options at once
        await call_nobody(a, version, wait)
        wanted.connections = {"peer-1": a.connection(version=version)}
        connections.mark(["peer-1"], [])
        assert (await a.event(IkeEventKind.INITIATED, AT_ONCE)).text == ""
        assert sum(event.kind is IkeEventKind.INITIATED for event in a.events) == 1
        (sa,) = await a.listed(lambda sas: len(sas) == 1)
        assert [child.state for child in sa.children] == ["INSTALLED"]
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("anew", [True, False], ids=["anew", "for good"])
async def test_what_charon_has_not_begun_when_it_is_ended_is_ended_too(
    pair: tuple[Side, Side], anew: bool, monkeypatch: MonkeyPatch
) -> None:
    """An initiation it has taken in a moment ago is nothing to end at first."""
    a, b = pair
    await b.load()
    await call_nobody(a, "1", 0.5)
    end, early = a.ike._terminate, iter([True])

    async def too_early(**what: Any) -> None:
        if not next(early, False):
            await end(**what)

    monkeypatch.setattr(a.ike, "_terminate", too_early)
    if anew:
        await a.load()
        await a.ike.end_outdated("peer-1")
    else:
        await a.ike.unload_connection("peer-1")
        await a.ike.terminate(connection="peer-1")
    assert bool((await a.event(IkeEventKind.INITIATED, AT_ONCE)).text) is not anew


@pytest.mark.parametrize("version", ["1", "2"])
async def test_a_child_loaded_anew_does_not_come_up_as_it_was(pair: tuple[Side, Side], version: str) -> None:
    """Nothing of it stands that could be ended, but charon's request to a peer slow to answer is the old one."""
    a, b = pair
    esp = ["aes256-sha256-modp2048", "aes128-sha1-modp2048"]
    for side in pair:
        await side.load(version=version, esp=esp)
    os.kill(b.ike.daemon.pid(), signal.SIGSTOP)
    await a.ike._set_options(SLOW)
    a.events.clear()
    await a.ike.initiate(CHILD, "peer-1", "a test")
    await asyncio.sleep(0.5)
    await a.load(version=version, esp=esp[1:])
    await a.ike.end_outdated("peer-1", CHILD)
    os.kill(b.ike.daemon.pid(), signal.SIGCONT)
    assert (await a.event(IkeEventKind.INITIATED)).text == ""
    (sa,) = await a.ike.list_sas()
    assert [(child.state, child.encryption_bits) for child in sa.children] == [("INSTALLED", 128)]
    assert sum(event.kind is IkeEventKind.INITIATED for event in a.events) == 1


@pytest.mark.parametrize("version", ["1", "2"])
async def test_flows_of_one_child_are_negotiated_each_with_its_reqid(pair: tuple[Side, Side], version: str) -> None:
    """Both sides know them by the same names; ending the child ends them all."""
    a, b = pair
    for side in pair:
        await side.load(version=version, children={CHILD: side.of_flows()})
    names = []
    for port in ("80", "7302"):
        local, remote = (f"{net}/32[tcp/{end}]" for net, end in zip(NETS, ("40000", port), strict=True))
        name = observed_name(CHILD, [local], [remote])
        names.append(name)
        flow = FlowChild(name, (local.replace("tcp", "6"),), (remote.replace("tcp", "6"),))
        connection = a.connection(version=version, children={CHILD: a.of_flows()})
        a.events.clear()
        await a.ike.initiate(name, "peer-1", "a test", partial(with_flow, connection.settings, CHILD, flow))
        assert (await a.event(IkeEventKind.INITIATED)).text == ""
    (ours,) = await a.ike.list_sas()
    # in version 1 the last word of a negotiation is the initiator's
    (theirs,) = await b.listed(lambda sas: [child.state for sa in sas for child in sa.children] == ["INSTALLED"] * 2)
    assert sorted(child.name for child in ours.children) == sorted(names)
    mirrored = {observed_name(CHILD, child.remote_selectors, child.local_selectors) for child in theirs.children}
    assert mirrored == set(names)
    for sa in (ours, theirs):
        assert len({child.reqid for child in sa.children}) == 2
        assert all(numbers.is_allotted_reqid(child.reqid) for child in sa.children)
    assert {child.remote_selectors[0].rpartition("/")[2] for child in ours.children} == {"80]", "7302]"}
    await a.ike.terminate(child=CHILD)
    assert not [child for sa in await a.ike.list_sas() for child in sa.children if child.state == "INSTALLED"]


async def test_a_flow_is_not_loaded_beside_other_settings_than_the_daemon_has(pair: tuple[Side, Side]) -> None:
    a, _ = pair
    await a.load(children={CHILD: a.of_flows()})
    flow = FlowChild(observed_name(CHILD, [f"{NETS[0]}/32"], [f"{NETS[1]}/32"]), (f"{NETS[0]}/32",), (f"{NETS[1]}/32",))
    other = a.connection(children={CHILD: {**a.of_flows(), "life_time": "77s"}})
    await a.ike.initiate(flow.name, "peer-1", "a test", partial(with_flow, other.settings, CHILD, flow))
    assert (await a.event(IkeEventKind.INITIATED)).text == "peer-1 is being loaded anew"
    a.events.clear()
    await a.ike.initiate(flow.name, "peer-1", "a test", lambda: None)
    assert (await a.event(IkeEventKind.INITIATED)).text == f"the rule of {flow.name} is gone"


@pytest.mark.skipif(shutil.which("nft") is None, reason="needs nft")
async def test_the_spi_of_a_negotiation_that_takes_long_is_not_left_over(
    namespaces: tuple[str, str], tmp_path: Path
) -> None:
    """charon has an SPI allotted without a reqid, so nobody takes that SA for one of ours that was left."""
    options = replace(QUICK, plugins_before=(), retransmit_tries=5, retransmit_timeout=2.0)
    sides = [Side(name, number, tmp_path, options) for number, name in enumerate(namespaces)]
    here, there = map(Namespace, namespaces)
    spd = KernelSpd(open_socket=here.xfrm_socket)
    await asyncio.gather(spd.start(), *(side.ike.start() for side in sides))
    leftovers = Leftovers(spd, sides[0].ike, seconds=0.2)
    try:
        for side in sides:
            await side.load(version="2", encap="no", mobike="yes")
        # it answers on port 500, and not what follows on the other one
        for command in ("table inet t", "chain inet t i {type filter hook input priority 0;}"):
            there.command("nft", f"add {command}")
        there.command("nft", "add rule inet t i udp dport 4500 drop")
        await sides[0].ike.initiate(CHILD, "peer-1", "a test")
        for _ in range(500):
            if allotted := await spd.sas():
                break
            await asyncio.sleep(0.02)
        assert [sa.reqid for sa in allotted] == [0] and allotted[0].spi != bytes(4)
        assert not (await sides[0].ike.list_sas())[0].children
        leftovers.look()
        await asyncio.sleep(1)
        assert await spd.sas() == allotted
    finally:
        there.command("nft", "delete table inet t")
        await leftovers.stop()
        await asyncio.gather(*(side.ike.shutdown() for side in sides))
        await spd.stop()


async def test_it_is_started_again_after_kill_9(pair: tuple[Side, Side]) -> None:
    a, b = pair
    await a.load()
    first = a.ike.daemon.pid()
    a.events.clear()
    os.kill(first, signal.SIGKILL)
    await a.event(IkeEventKind.LOST)
    assert (await a.event(IkeEventKind.BACK)).text == "restarted"
    assert a.ike.daemon.pid() not in (0, first)
    assert not (await a.ike.observe()).connections
    await a.load()
    await b.load()
    assert await a.initiated() == ""


async def test_the_next_agent_adopts_it_with_its_tunnels(
    pair: tuple[Side, Side], namespaces: tuple[str, str], tmp_path: Path
) -> None:
    a, _ = pair
    for side in pair:
        await side.load(aggressive="yes")
    assert await a.initiated() == ""
    first = a.ike.daemon.pid()
    await a.ike.stop()
    with pytest.raises(EngineError):
        await a.ike.list_sas()
    successor = Side(namespaces[0], 0, tmp_path)
    await successor.start()
    try:
        assert successor.ike.daemon.pid() == first
        assert (await successor.event(IkeEventKind.BACK)).text == ""
        state = await successor.ike.observe()
        assert state.connections == {"peer-1": successor.ike.fingerprint(successor.connection(aggressive="yes"))}
        assert [child.state for sa in state.sas for child in sa.children] == ["INSTALLED"]
        assert successor.ike._options.aggressive_psk
    finally:
        await successor.ike.stop()
    await a.ike.start()  # for the fixture to end it


@pytest.mark.parametrize("version", ["1", "2"])
async def test_what_an_agent_before_had_begun_is_begun_once(
    pair: tuple[Side, Side], namespaces: tuple[str, str], tmp_path: Path, version: str
) -> None:
    """Else both its phase 2 and the next agent's wait for one phase 1, and come up at once."""
    a, b = pair
    for side in pair:
        await side.load(version=version)
    os.kill(b.ike.daemon.pid(), signal.SIGSTOP)
    await a.ike._set_options(replace(QUICK, retransmit_tries=5, retransmit_timeout=1.0))
    await a.ike.initiate(CHILD, "peer-1", "a test")
    async with asyncio.timeout(PATIENCE):
        while not [sa for sa in await a.ike.list_sas() if sa.state == "CONNECTING"]:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await a.ike.stop()
    successor = Side(namespaces[0], 0, tmp_path)
    await successor.start()
    try:
        await successor.load(version=version)
        await successor.ike.initiate(CHILD, "peer-1", "a test")
        await asyncio.sleep(0.5)  # for it to reach charon
        os.kill(b.ike.daemon.pid(), signal.SIGCONT)
        assert (await successor.event(IkeEventKind.INITIATED)).text == ""
        await asyncio.sleep(1)  # for a second one, that replaces the first
        of_children = [event.kind for event in successor.events if event.child_name]
        assert Counter(of_children) == Counter([IkeEventKind.CHILD_UP, IkeEventKind.INITIATED])
        (sa,) = [sa for sa in await successor.ike.list_sas() if sa.state == "ESTABLISHED"]
        assert [child.state for child in sa.children] == ["INSTALLED"]
    finally:
        await successor.ike.stop()
    await a.ike.start()  # for the fixture to end it


async def test_a_monitor_shows_what_charon_tells(pair: tuple[Side, Side], tmp_path: Path) -> None:
    """Events and lists of a real charon become rows; another monitor, later, shows the same from lists alone."""
    a, b = pair
    store = Store.open(SCHEMA, default_url(tmp_path), tmp_path)
    told: list[Mapping[str, Tunnel | None]] = []

    async def watch(side: Side) -> Monitor:
        monitor = Monitor(store, SCHEMA, side.ike, MemorySpd(), tunnels_changed=told.append, list_sas=side.ike.list_sas)
        await monitor.start()
        plan = Planned(9, {"peer-1": side.connection()}, {CHILD: Child(CHILD, 1, 1, 65536)})
        monitor.planned(plan, None)
        return monitor

    async def reads(name: str, value: object) -> None:
        column = SCHEMA.columns[name]
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            tlv = store.live.table(column.table).cell(1, column.position)
            if (None if tlv is None else decode_value(tlv)) == value:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"{name} is {tlv!r}, not {value!r}")

    edits = {"ipsecGlobEnabled": 1, "ipsecTrProto": 255}, {"ipsecPeerTrafficList": 1}
    for group in edits:
        columns = [SCHEMA.columns[name] for name in group]
        rows = [0 if SCHEMA.tables[column.table].scalar else 1 for column in columns]
        await store.commit([Edit(c, row, v) for c, row, v in zip(columns, rows, group.values(), strict=True)], AGENT)
    monitor = await watch(a)
    try:
        for side in pair:
            await side.load()
        monitor.peers.acquire(65536)
        await reads("ipsecPeerStatOperStatus", 1)
        for name, value in (("ikeSaState", 2), ("ikeSaRole", 1), ("ikeSaEncAlg", 7), ("ikeSaHashAlg", 5)):
            await reads(name, value)
        await reads("ikeSaGroup", 14)
        await reads("ipsecBundleState", 1)
        await reads("ipsecBundleTunnelRemote", b"\x0a\x08\0\x02")
        await reads("ipsecBundleRemoteMaskLen", 32)
        assert [tunnel.child for news in told for tunnel in news.values() if tunnel] == [CHILD]
        await b.ike.terminate(connection="peer-1")
        await reads("ipsecBundleState", None)
        await reads("ipsecPeerStatOperStatus", 5)
        assert told[-1] == {CHILD: None}
        await monitor.stop()
        assert await a.initiated() == ""
        monitor = await watch(a)
        await reads("ipsecPeerStatOperStatus", 1)
        await reads("ipsecBundleState", 1)
    finally:
        await monitor.stop()
        await store.close()


async def test_loading_a_thousand_connections(pair: tuple[Side, Side]) -> None:
    a, _ = pair
    begun = time.monotonic()
    for number in range(1, 1001):
        settings = a.connection(remote_addrs=[f"10.9.{number >> 8}.{number & 255}"]).settings
        await a.ike.load_connection(Connection(f"peer-{number}", number, settings, ()))
    assert time.monotonic() - begun < 30  # measured: 0.4
    assert len((await a.ike.observe()).connections) == 1000


def test_without_a_namespace_of_its_own_it_uses_the_machines_run(tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    """Containers forbid mount namespaces; here `unshare` fails as it does there, within a /run of the test."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "unshare").write_text("#!/bin/sh\necho unshare failed: Operation not permitted >&2\nexit 1\n")
    (tools / "unshare").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    private = ("/usr/bin/unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs /run && exec "$@"', "sh")
    daemon = Daemon(tmp_path / "charon", prefix=private)
    daemon.start(QUICK)
    try:
        assert daemon.alive() and daemon.pid()
        assert f"unix://{tmp_path}/charon/charon.vici" in (tmp_path / "charon/charon.conf").read_text()
        daemon.start(QUICK)  # a second one is not made
        first = daemon.pid()
    finally:
        daemon.end()
    assert not daemon.alive() and not Path(f"/proc/{first}").exists()


def test_who_ends_it_does_not_end_the_one_that_is_started_then(
    namespaces: tuple[str, str], tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    """The supervisor brings it back at once, while somebody may still be looking whether it has ended."""
    daemon = Daemon(tmp_path / "charon", prefix=("ip", "netns", "exec", namespaces[0]))
    daemon.start(QUICK)
    first = daemon.pid()

    def meanwhile(seconds: float) -> None:
        """Sleep until it has ended and the next is there."""
        monkeypatch.setattr(process, "time", time)
        deadline = time.monotonic() + PATIENCE
        while daemon.alive():
            assert time.monotonic() < deadline
            time.sleep(seconds)
        daemon.start(QUICK)

    monkeypatch.setattr(process, "time", SimpleNamespace(monotonic=time.monotonic, sleep=meanwhile))
    try:
        daemon.end()
        assert daemon.alive() and daemon.pid() not in (0, first)
    finally:
        daemon.end()
    assert not daemon.alive()


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "charon", charon=tmp_path / "nothing")
    with pytest.raises(EngineError, match="install strongswan-charon"):
        daemon.start(QUICK)
    assert not daemon.alive()


async def test_two_charons_and_none_in_the_way_of_the_host(pair: tuple[Side, Side]) -> None:
    pids = [side.ike.daemon.pid() for side in pair]
    assert 0 not in pids and pids[0] != pids[1]
    assert hosts_charon() not in pids


def hosts_charon() -> int:
    held = Path("/var/run/charon.pid")
    return int(held.read_text()) if held.exists() else -1
