"""The memory backend plays its part: tunnels come up, carry, are renewed and end, as the clock says."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from agent.backends.engine import IkeEvent, IkeEventKind, KernelEvent, KernelEventKind
from agent.backends.simulated import (
    ANSWER_SECONDS,
    NO_ANSWER,
    OCTETS,
    SILENCE_SECONDS,
    Algorithms,
    SimulatedIke,
    SimulatedSpd,
    algorithms,
)
from agent.backends.statistics import RECEIVED
from agent.monitor.sas import Registry
from agent.plan import numbers
from agent.plan.flows import flow_child, with_flow
from agent.plan.model import Child, Connection, Fine
from agent.plan.phase2 import Granularity

PEER = 4
NAME, CHILD = numbers.connection_name(PEER), numbers.child_name(PEER, 1)
UP = [IkeEventKind.IKE_UP, IkeEventKind.CHILD_UP, IkeEventKind.INITIATED]


def connection(remote: str = "198.51.100.7", child: Mapping[str, Any] | None = None, **settings: Any) -> Connection:
    own = {"reqid": "70000", "mode": "tunnel", "local_ts": ["10.1.0.0/16"], "remote_ts": ["10.2.0.0/16"]}
    known: dict[str, Any] = {
        "version": "1",
        "proposals": ["aes256-sha256-modp2048"],
        "local_addrs": ["192.0.2.1"],
        "remote_addrs": [remote],
        "local": {"auth": "psk", "id": "gw"},
        "remote": {"auth": "psk", "id": remote},
        "children": {CHILD: {**own, "esp_proposals": ["aes128-sha1"], **(child or {})}},
    }
    return Connection(NAME, PEER, {**known, **settings}, (Child(CHILD, PEER, 1, 70000),))


class Bench:
    def __init__(self) -> None:
        self.now = 1000.0
        self.spd = SimulatedSpd(lambda: self.now)
        self.ike = SimulatedIke(self.spd, lambda: self.now)
        self.registry = Registry(lambda: self.now)
        self.events: list[IkeEvent] = []
        self.kernel: list[KernelEvent] = []
        self.ike.subscribe(self.events.append)
        self.ike.subscribe(self.registry.event)
        self.spd.subscribe(self.kernel.append)
        self.spd.subscribe(self._last_words)

    def _last_words(self, event: KernelEvent) -> None:
        if event.sa is not None:
            self.registry.kernel(event.sa)

    async def start(self, made: Connection) -> None:
        await self.ike.load_connection(made)
        await self.ike.initiate(CHILD, NAME, "dialup")

    async def later(self, seconds: float) -> list[IkeEventKind]:
        """What has happened since the last time."""
        self.events.clear()
        self.now += seconds
        self.ike.advance()
        happened = [event.kind for event in self.events]
        begun = self.registry.begin_list()
        self.registry.finish_list(begun, await self.ike.list_sas())
        for record in await self.spd.sas():
            self.registry.kernel(record)
        return happened


async def test_a_peer_comes_up_and_shows_what_was_configured() -> None:
    bench = Bench()
    await bench.start(connection())
    (sa,) = await bench.ike.list_sas()
    assert (sa.state, sa.connection, sa.responder_spi) == ("CONNECTING", NAME, bytes(8))
    assert await bench.later(ANSWER_SECONDS - 0.1) == []
    assert await bench.later(0.1) == UP
    (sa,) = await bench.ike.list_sas()
    (child,) = sa.children
    assert (sa.state, sa.encryption, sa.encryption_bits, sa.group) == ("ESTABLISHED", "AES_CBC", 256, "MODP_2048")
    assert (child.encryption_bits, child.integrity, child.mode, child.reqid) == (128, "HMAC_SHA1_96", 1, 70000)
    assert (sa.local_id, sa.remote_id) == ("gw", "198.51.100.7")
    assert any(sa.responder_spi) and {child.spi_in, child.spi_out} == {r.spi for r in await bench.spd.sas()}


@pytest.mark.parametrize(("remote", "ours"), [("198.51.100.7", "127.0.0.1"), ("2001:db8::7", "::1")])
async def test_a_peer_that_may_move_shows_the_address_that_this_host_sends_from(remote: str, ours: str) -> None:
    bench = Bench()
    await bench.start(connection(remote, version="2", local_addrs=["%any"], local={"auth": "psk"}))
    await bench.later(ANSWER_SECONDS)
    (sa,) = await bench.ike.list_sas()
    assert (str(ipaddress.ip_address(sa.local)), sa.local_id) == (ours, ours)


async def test_settings_loaded_while_it_is_called_are_those_it_comes_up_with() -> None:
    """The attempt with the settings before is no failure; one answer is told."""
    bench = Bench()
    await bench.start(connection("203.0.113.9"))
    await bench.later(1)
    await bench.ike.load_connection(connection(proposals=["aes128-sha256-modp2048"]))
    await bench.ike.end_outdated(NAME)
    assert [event.kind for event in bench.events] == [IkeEventKind.IKE_DOWN]
    assert await bench.later(ANSWER_SECONDS) == UP
    (sa,) = await bench.ike.list_sas()
    assert sa.encryption_bits == 128
    assert await bench.later(SILENCE_SECONDS) == []


async def test_who_is_in_the_silent_net_does_not_answer() -> None:
    bench = Bench()
    await bench.start(connection("203.0.113.9"))
    assert await bench.later(SILENCE_SECONDS - 0.1) == []
    assert await bench.later(0.1) == [IkeEventKind.IKE_DOWN, IkeEventKind.INITIATED]
    assert bench.events[-1].text == NO_ANSWER and await bench.ike.list_sas() == ()


async def test_an_attempt_that_is_ended_is_over() -> None:
    bench = Bench()
    await bench.start(connection("203.0.113.9"))
    await bench.ike.terminate(connection=NAME)
    assert [event.kind for event in bench.events] == [IkeEventKind.IKE_DOWN, IkeEventKind.INITIATED]
    assert await bench.later(SILENCE_SECONDS) == []


async def test_counters_move_and_go_on_through_renewals_of_phase_2() -> None:
    bench = Bench()
    await bench.start(connection(child={"rekey_time": "20s", "life_time": "30s"}))
    await bench.later(ANSWER_SECONDS)
    rate = PEER % 10 + 1
    assert await bench.later(10) == []
    bundle = next(bench.registry.alive())
    assert bundle.traffic.outgoing.packets == 10 * rate and bundle.traffic.incoming.octets == 10 * rate * OCTETS
    assert await bench.later(10) == [IkeEventKind.CHILD_REKEY]
    assert [event.kind for event in bench.kernel] == [KernelEventKind.SA_DELETED] * 2
    await bench.later(5)
    assert list(bench.registry.alive()) == [bundle], "the row of the tunnel stays"
    assert bundle.traffic.outgoing.packets == 25 * rate
    assert bench.spd.statistics()[RECEIVED] >= 2 * 25 * rate


async def test_a_renewal_of_phase_1_moves_the_tunnels() -> None:
    bench = Bench()
    await bench.start(connection(reauth_time="60s"))
    await bench.later(ANSWER_SECONDS)
    (before,) = await bench.ike.list_sas()
    assert await bench.later(60) == [IkeEventKind.IKE_UP, IkeEventKind.IKE_DOWN]
    (after,) = await bench.ike.list_sas()
    assert after.initiator_spi != before.initiator_spi and after.children[0].spi_in == before.children[0].spi_in
    await bench.ike.renew(after.unique_id)
    assert (await bench.ike.list_sas())[0].unique_id != after.unique_id


async def test_version_2_tells_of_it_as_a_rekey() -> None:
    bench = Bench()
    await bench.start(connection(version="2", rekey_time="60s"))
    await bench.later(ANSWER_SECONDS)
    assert await bench.later(60) == [IkeEventKind.IKE_REKEY]


async def test_after_so_many_octets_phase_2_is_renewed() -> None:
    bench = Bench()
    rate = PEER % 10 + 1
    await bench.start(connection(child={"rekey_time": "3600s", "rekey_bytes": str(OCTETS * rate * 7)}))
    await bench.later(ANSWER_SECONDS)
    assert await bench.later(6) == []
    assert await bench.later(1) == [IkeEventKind.CHILD_REKEY]


@pytest.mark.parametrize("by", ["ike_id", "child_id", "child", "connection"])
async def test_what_is_ended_tells_its_last_counters(by: str) -> None:
    bench = Bench()
    await bench.start(connection())
    await bench.later(ANSWER_SECONDS)
    await bench.later(10)
    (sa,) = await bench.ike.list_sas()
    target = {"ike_id": sa.unique_id, "child_id": sa.children[0].unique_id, "child": CHILD, "connection": NAME}
    bench.events.clear()
    await bench.ike.terminate(**{by: target[by]})  # type: ignore[arg-type]
    whole = by in ("ike_id", "connection")
    assert [event.kind for event in bench.events] == [IkeEventKind.CHILD_DOWN, IkeEventKind.IKE_DOWN][: 1 + whole]
    last = bench.events[0].child
    assert last is not None and last.packets_out == 10 * (PEER % 10 + 1)
    assert await bench.spd.sas() == [] and len(await bench.ike.list_sas()) == 1 - whole


async def test_the_same_clock_gives_the_same_story() -> None:
    stories = []
    for _ in range(2):
        bench = Bench()
        await bench.start(connection(reauth_time="30s", child={"rekey_time": "10s"}))
        story = [(await bench.later(1.7), await bench.ike.list_sas()) for _ in range(40)]
        stories.append(story)
    assert stories[0] == stories[1]


@pytest.mark.parametrize(
    ("proposal", "wanted"),
    [
        ("aes256-sha256-modp2048", Algorithms("AES_CBC", 256, "HMAC_SHA2_256_128", "PRF_HMAC_SHA2_256", "MODP_2048")),
        ("3des-md5", Algorithms("3DES_CBC", 0, "HMAC_MD5_96", "PRF_HMAC_MD5")),
        ("aes256gcm16-curve25519", Algorithms("AES_GCM_16", 256, "", "", "CURVE_25519")),
        ("cast128-sha1", Algorithms("CAST_CBC", 128, "HMAC_SHA1_96", "PRF_HMAC_SHA1")),
        (
            "blowfish192-sha512-ecp256",
            Algorithms("BLOWFISH_CBC", 192, "HMAC_SHA2_512_256", "PRF_HMAC_SHA2_512", "ECP_256"),
        ),
    ],
)
def test_proposals_are_read(proposal: str, wanted: Algorithms) -> None:
    assert algorithms([proposal]) == wanted


async def test_of_a_rule_whose_flows_have_sas_of_their_own_two_hosts_call() -> None:
    """Each gets its SA, with a reqid of its own, which a renewal leaves to it."""
    bench, made = Bench(), connection(child={"reqid": "", "rekey_time": "60"})
    split = Fine(Granularity.IP, "", "", 0, (0, 0), (0, 0), (), None, (70000,))
    (child,) = made.children
    made = replace(made, children=(replace(child, fine=split),))
    await bench.ike.load_connection(made)
    await bench.later(0)
    asked = [event for event in bench.kernel if event.kind is KernelEventKind.ACQUIRE]
    assert [event.template.reqid for event in asked if event.template is not None] == [70000, 70000]
    for event in asked:
        assert event.flow is not None
        flow = flow_child(made.children[0], event.flow)
        assert flow is not None
        await bench.ike.initiate(flow.name, NAME, "traffic", partial(with_flow, made.settings, CHILD, flow))
    await bench.later(ANSWER_SECONDS)
    assert {tunnel.reqid for tunnel in bench.registry.tunnels(PEER).values()} == {1, 2}
    selectors = {bundle.child.local_selectors for bundle in bench.registry.alive()}
    assert selectors == {("10.1.0.1/32",), ("10.1.0.2/32",)}
    assert IkeEventKind.CHILD_REKEY in await bench.later(61)
    assert {tunnel.reqid for tunnel in bench.registry.tunnels(PEER).values()} == {1, 2}
    await bench.ike.terminate(child=CHILD)
    await bench.later(2)
    bench.registry.expire()
    assert not bench.registry.tunnels(PEER)
