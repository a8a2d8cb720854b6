"""Traps and informs as Debian's snmptrapd receives them: SNMPv1, v2c and v3, paced, filtered, acknowledged."""

from __future__ import annotations

import asyncio
import re
import select
import shutil
import socket
import time
from pathlib import Path

import pytest

from agent.mib.ber import Value
from agent.snmp.identity import Identity
from agent.snmp.notify import ways
from agent.snmp.notify.contents import NAMES, Contents
from agent.snmp.notify.targets import Target
from agent.snmp.pdu import Version
from agent.snmp.uptime import Uptime
from agent.store.events import Event, Kind, Severity, store_alarm
from agent.store.hooks import AGENT, Edit
from tests.ports import free_port
from tests.snmp_station import (
    GET,
    IPSEC,
    NULL,
    SCHEMA,
    dotted,
    encode_community,
    encode_pdu,
    manager,
    run,
    until,
)
from tests.station import Agent
from tests.trap_receiver import COMMUNITY, Gateway, gateway, oid, receiver
from tests.xfrm_namespace import cable, namespaces

pytestmark = pytest.mark.skipif(shutil.which("snmptrapd") is None, reason="no snmptrapd (package snmptrapd)")

CHANGED = oid("ipsecGwConfigurationChanged")
COLD_START, AUTHENTICATION_FAILURE = ".1.3.6.1.6.3.1.1.5.1", ".1.3.6.1.6.3.1.1.5.5"
UP_TIME = ".1.3.6.1.2.1.1.3.0"
V1, V3 = 1, 3  # ipsecGwTargetVersion
INFORM = 2  # ipsecGwTargetKind
LAST = b"event 1199"
DESTROY = 6  # RowStatus
TEXT, HELD_BACK = oid("ipsecGwNotifyText", 0), oid("ipsecGwNotifyHeldBack", 0)


async def change(gateway: Gateway, contact: str) -> None:
    """A change of the configuration that disturbs nothing."""
    await gateway.set(0, {"ipsecGwSystemContact": contact.encode()})


async def test_a_change_is_told_by_v2c_with_the_objects_of_the_mib(tmp_path: Path) -> None:
    async with receiver(tmp_path / "trapd") as trapd, gateway(tmp_path / "state") as agent:
        await agent.target(1, trapd)
        [told] = await trapd.wait_for(CHANGED)
        assert told.kind == "V2" and COMMUNITY in told.security and "TRAP2" in told.security
        assert list(told.objects)[:2] == [UP_TIME, ".1.3.6.1.6.3.1.1.4.1.0"]
        names = ("ipsecGwNotifyGeneration", "ipsecGwNotifyUser", "ipsecGwNotifyText", "ipsecGwNotifyHeldBack")
        assert list(told.objects)[2:] == [oid(name, 0) for name in names]
        generation = agent.agent.store.running.generation
        assert told.objects[oid("ipsecGwNotifyGeneration", 0)] == f"Gauge32: {generation}"
        assert told.objects[oid("ipsecGwNotifyUser", 0)] == 'STRING: "admin"'
        assert "ipsecGwTargetTable 1" in told.objects[TEXT] and "127.0.0.1" in told.objects[TEXT]
        await until(lambda: agent.status("ipsecGwNotificationsSent") == 1)


async def test_an_inform_is_acknowledged_and_not_repeated(tmp_path: Path) -> None:
    async with receiver(tmp_path / "trapd") as trapd, gateway(tmp_path / "state") as agent:
        for hundredths in (30, 150, 600):  # a receiver that answers later than that hears it again, rightly
            before = len(trapd.received())
            await agent.target(1, trapd, Kind=INFORM, Timeout=hundredths)
            told = await trapd.wait_for(CHANGED, before + 1)
            assert all("INFORM" in each.security for each in told)
            await asyncio.sleep(hundredths / 100 + 0.2)
            assert agent.status("ipsecGwNotificationsFailed") == 0
            if len(trapd.received()) == before + 1:
                return
        raise AssertionError("each was repeated")


@pytest.mark.slow
async def test_a_trap_of_v1_has_enterprise_and_specific_number(tmp_path: Path) -> None:
    async with receiver(tmp_path / "trapd") as trapd, gateway(tmp_path / "state") as agent:
        await agent.target(1, trapd, Version=V1)
        agent.agent.store.events.tell(Event(Kind.START, Severity.NOTICE, ""))
        extension = dotted((*IPSEC, 4, 26, 200))
        [told] = await trapd.wait_for(f"127.0.0.1 {extension} 6 .7")
        assert next(iter(told.objects)) == oid("ipsecGwNotifyGeneration", 0)
        [cold] = await trapd.wait_for("127.0.0.1 .1.3.6.1.6.3.1.1.5 0 0")
        assert not cold.objects


async def test_traps_of_v3_are_from_our_engine(tmp_path: Path) -> None:
    async with (
        gateway(tmp_path / "state") as agent,
        receiver(tmp_path / "trapd", *agent.create_user(own_engine=True)) as trapd,
    ):
        await agent.target(1, trapd, Version=V3, User=1)
        [told] = await trapd.wait_for(CHANGED)
        assert "TRAP2" in told.security and "admin" in told.security


async def test_informs_of_v3_find_the_receivers_engine(tmp_path: Path) -> None:
    async with (
        gateway(tmp_path / "state") as agent,
        receiver(tmp_path / "trapd", *agent.create_user(own_engine=False)) as trapd,
    ):
        await agent.target(1, trapd, Version=V3, User=1, Kind=INFORM, Timeout=200)
        [told] = await trapd.wait_for(CHANGED)
        assert "INFORM" in told.security and "admin" in told.security
        await change(agent, "somebody")
        await trapd.wait_for(CHANGED, 2)
        await asyncio.sleep(0.2)
        assert agent.status("ipsecGwNotificationsFailed") == 0


async def test_a_receiver_that_starts_anew_is_found_again(tmp_path: Path) -> None:
    async with gateway(tmp_path / "state") as agent:
        user, port = agent.create_user(own_engine=False), free_port()
        async with receiver(tmp_path / "first", *user, port=port) as trapd:
            await agent.target(1, trapd, Version=V3, User=1, Kind=INFORM, Timeout=200)
            await trapd.wait_for(CHANGED)
        async with receiver(tmp_path / "second", *user, port=port) as trapd:  # another engine ID
            await change(agent, "somebody")
            await trapd.wait_for(CHANGED)


async def test_ipv6(tmp_path: Path) -> None:
    async with receiver(tmp_path / "trapd", host="::1") as trapd, gateway(tmp_path / "state") as agent:
        await agent.target(1, trapd)
        await agent.target(2, trapd, Kind=INFORM)
        await trapd.wait_for(CHANGED, 3)


async def test_the_start_is_told_to_targets_that_are_stored(tmp_path: Path) -> None:
    async with receiver(tmp_path / "trapd") as trapd:
        async with gateway(tmp_path / "state") as agent:
            await agent.target(1, trapd, Kind=INFORM)
            await trapd.wait_for(CHANGED)
            assert COLD_START not in trapd.names()
        async with gateway(tmp_path / "state"):
            await trapd.wait_for(COLD_START)


async def test_who_fails_to_prove_who_he_is_is_told_with_his_address_unless_switched_off(tmp_path: Path) -> None:
    async with receiver(tmp_path / "trapd") as trapd, gateway(tmp_path / "state") as agent:
        await agent.target(1, trapd)
        async with manager(agent.agent.address) as asking:
            for _ in range(20):
                asking.send(encode_community(1, "guessed", encode_pdu(GET, 1, [((1, 3, 6), NULL)])))
            [told] = await trapd.wait_for(AUTHENTICATION_FAILURE)
            assert told.objects[TEXT] == 'STRING: "unknown community from 127.0.0.1"'
            await asyncio.sleep(0.3)
            assert trapd.names().count(AUTHENTICATION_FAILURE) == 1


async def test_wrong_passwords_of_v3_are_told_and_can_be_switched_off(tmp_path: Path) -> None:
    async with receiver(tmp_path / "trapd") as trapd, gateway(tmp_path / "state") as agent:
        await agent.target(1, trapd)
        ask = ("snmpget", "-v3", "-r0", "-t30", "-lauthNoPriv", "-aSHA-256", "-Awrong-password", "-uadmin")
        await run(*ask, agent.agent.target, ".1.3.6.1.2.1.1.3.0")
        [told] = await trapd.wait_for(AUTHENTICATION_FAILURE)
        assert told.objects[TEXT] == 'STRING: "wrong digest of user admin from 127.0.0.1"'
    async with receiver(tmp_path / "again") as trapd, gateway(tmp_path / "other") as agent:
        await agent.set(0, {"ipsecGwNotifyAuthentication": 2})
        await agent.target(1, trapd)
        await run(*ask, agent.agent.target, ".1.3.6.1.2.1.1.3.0")
        await change(agent, "x")
        await trapd.wait_for(CHANGED, 2)
        assert AUTHENTICATION_FAILURE not in trapd.names()


@pytest.mark.slow
async def test_equal_ones_are_held_back_and_the_last_is_told_with_their_number(tmp_path: Path) -> None:
    for pause in (1, 5, 20):  # the changes of a busy machine may take longer than the pause
        state, folder = tmp_path / f"state{pause}", tmp_path / f"trapd{pause}"
        async with receiver(folder) as trapd, gateway(state, pause=pause) as agent:
            await asyncio.sleep(pause + 0.1)  # the pause after the change that set it
            begun = time.monotonic()
            await agent.target(1, trapd)
            for number in range(5):
                await change(agent, f"somebody {number}")
            if time.monotonic() - begun > pause * 0.9:
                continue
            first, last = await trapd.wait_for(CHANGED, 2)
            assert first.objects[HELD_BACK] == "Gauge32: 0"
            assert last.objects[HELD_BACK] == "Gauge32: 4"
            await asyncio.sleep(pause + 0.2)
            assert len(trapd.received()) == 2
            assert agent.status("ipsecGwNotificationsPaced") == 4
            return
    raise AssertionError("five changes took longer than each pause")


async def test_what_nobody_would_get_is_not_counted_as_held_back_and_holds_nothing_back(tmp_path: Path) -> None:
    async with receiver(tmp_path / "trapd") as trapd, gateway(tmp_path / "state", pause=60) as agent:
        for number in range(5):
            await change(agent, f"somebody {number}")
        await agent.target(1, trapd)
        [told] = await trapd.wait_for(CHANGED)
        assert told.objects[HELD_BACK] == "Gauge32: 0"
        assert agent.status("ipsecGwNotificationsPaced") == 0
        for number in range(2):
            await change(agent, f"somebody else {number}")
        await until(lambda: agent.status("ipsecGwNotificationsPaced") == 1)
        await agent.set(1, {"ipsecGwTargetRowStatus": DESTROY})  # with what waits for it
        await agent.target(2, trapd)
        told = (await trapd.wait_for(CHANGED, 2))[-1]
        assert told.objects[HELD_BACK] == "Gauge32: 0" and "ipsecGwTargetTable 2" in told.objects[TEXT]


async def test_filters_choose_what_a_target_gets(tmp_path: Path) -> None:
    extension = (*IPSEC, 4, 26, 200)
    async with receiver(tmp_path / "trapd") as trapd, gateway(tmp_path / "state") as agent:
        await agent.target(1, trapd)
        await trapd.wait_for(CHANGED)
        await agent.set(1, {"ipsecGwFilterTarget": 1, "ipsecGwFilterSubtree": (*extension, 0)})
        await trapd.wait_for(CHANGED, 2)
        await agent.set(
            2, {"ipsecGwFilterTarget": 1, "ipsecGwFilterSubtree": (*extension, 0, 7), "ipsecGwFilterType": 2}
        )
        await change(agent, "not told")
        agent.agent.store.events.tell(store_alarm(3, "the disk is full"))
        agent.agent.store.events.tell(Event(Kind.START, Severity.NOTICE, ""))  # in no filter's subtree
        [alarm] = await trapd.wait_for(oid("ipsecGwStoreAlarm"))
        assert alarm.objects[oid("ipsecGwStoreState", 0)] == "INTEGER: 3"
        assert alarm.objects[oid("ipsecGwStoreMessage", 0)] == 'STRING: "the disk is full"'
        assert trapd.names().count(CHANGED) == 2 and COLD_START not in trapd.names()


async def test_a_target_that_is_away_disturbs_nobody_and_its_informs_fail(tmp_path: Path) -> None:
    away = ("127.0.0.1", free_port())
    async with receiver(tmp_path / "trapd") as trapd, gateway(tmp_path / "state") as agent:
        await agent.target(1, away)
        await agent.target(2, away, Kind=INFORM, Timeout=10, Retries=1)
        await agent.target(3, away, Kind=INFORM, Timeout=10, Retries=1, Version=V3, User=1)
        await agent.target(4, trapd)
        await trapd.wait_for(CHANGED)
        await until(lambda: agent.status("ipsecGwNotificationsFailed") >= 3)
        await change(agent, "still told")
        await trapd.wait_for(CHANGED, 2)


async def test_the_first_trap_after_a_refused_one_arrives() -> None:
    """The system reports the refusal of a datagram at the next one, which is none the worse for it."""
    port = free_port()
    target = Target(1, "station", "127.0.0.1", port, False, Version.V2C, b"public", None, 1.0, 0, b"", ())
    tally = ways.Tally(lambda: None)
    way = ways.Traps(target, Identity(b"\x80\x00\x01\x10\x05engine", 1), Uptime(), tally)
    what = Contents((1, 3, 6, 1, 6, 3, 1, 1, 5, 1), ())
    way.send(what)
    refused = select.poll()  # what the system has to report lies there
    refused.register(way._socket, 0)
    assert refused.poll(30_000)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as station:
        station.bind(("127.0.0.1", port))
        station.settimeout(30)
        way.send(what)
        assert b"public" in station.recv(2000)
        assert (tally.sent, tally.failed) == (2, 1)
        way.send(what)
        assert b"public" in station.recv(2000)
    way.close()
    assert (tally.sent, tally.failed) == (3, 1)


@pytest.mark.kernel
def test_informs_follow_an_address_that_moves() -> None:
    """A socket keeps the address that it was first sent from, and the system sends nothing from one that is gone."""
    with namespaces(2) as (gateway, station):
        cable(gateway, station)
        gateway.ip("addr add 10.8.0.1/24 dev v0")
        station.ip("addr add 10.8.0.2/24 dev v0")

        def listening() -> socket.socket:
            found = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            found.bind(("10.8.0.2", 1162))
            return found

        async def scenario() -> None:
            sources: list[str] = []

            def acknowledge() -> None:
                data, source = heard.recvfrom(2000)
                sources.append(source[0])
                at = data.index(b"public") + len(b"public")
                heard.sendto(data[:at] + b"\xa2" + data[at + 1 :], source)

            asyncio.get_running_loop().add_reader(heard.fileno(), acknowledge)
            target = Target(1, "station", "10.8.0.2", 1162, True, Version.V2C, b"public", None, 30.0, 1, b"", ())
            tally = ways.Tally(lambda: None)
            way = ways.Informs(target, Identity(b"\x80\x00\x01\x10\x05engine", 1), Uptime(), tally)
            what = Contents((1, 3, 6, 1, 6, 3, 1, 1, 5, 1), ())
            way.send(what)
            await way.flush()
            assert sources == ["10.8.0.1"] and (tally.sent, tally.failed) == (1, 0)
            gateway.ip("addr del 10.8.0.1/24 dev v0")
            gateway.ip("addr add 10.8.0.3/24 dev v0")
            for _ in range(3):
                way.send(what)
                await way.flush()
            assert sources == ["10.8.0.1", *["10.8.0.3"] * 3] and (tally.sent, tally.failed) == (4, 0)
            way.close()
            asyncio.get_running_loop().remove_reader(heard.fileno())

        heard = station.run(listening)
        with heard:
            gateway.run(lambda: asyncio.run(scenario()))


async def test_informs_of_v1_are_refused(tmp_path: Path) -> None:
    async with gateway(tmp_path / "state") as agent:
        with pytest.raises(AssertionError):
            await agent.target(1, ("127.0.0.1", 162), Kind=INFORM, Version=V1)
        assert agent.agent.refused == [
            "ipsecGwTargetKind.1 = inform(2): SNMPv1 has no informs; accepted: trap, or version v2c or v3"
        ]


async def test_informs_under_way_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "PENDING", 5)
    async with gateway(tmp_path / "state") as agent:
        await agent.target(1, ("127.0.0.1", free_port()), Kind=INFORM, Timeout=60000)
        for number in range(9):
            agent.agent.store.events.tell(Event(Kind.PEER_DOWN, Severity.WARNING, "", number + 1))
        await until(lambda: agent.status("ipsecGwNotificationsFailed") == 5)
        begun = asyncio.get_running_loop().time()
    # the end waits a second for what nobody acknowledges, which would take ten minutes
    assert asyncio.get_running_loop().time() - begun < 30


async def test_events_are_kept_in_order(tmp_path: Path) -> None:
    async with gateway(tmp_path / "state") as agent:
        for number in range(1200):
            agent.agent.store.events.tell(Event(Kind.NEGOTIATION_FAILED, Severity.WARNING, f"event {number}", 7))
        table = "ipsecGwEventTable"
        await until(
            lambda: [row["ipsecGwEventText"] for row in agent.agent.store.live.table(table).rows()][-1:] == [LAST]
        )
        assert len(agent.agent.store.live.table(table)) == 1000
        walk = await run("snmpwalk", "-v2c", "-t30", "-creading", "-Onq", agent.agent.target, oid("ipsecGwEventText"))
        lines = walk.out.splitlines()
        assert lines[-1].endswith(f'"{LAST.decode()}"') and len(lines) == 1000
        index = int(lines[-1].split()[0].rpartition(".")[2])
        row = agent.agent.store.live.table("ipsecGwEventTable").row(index)
        assert row is not None and row["ipsecGwEventPeer"] == 7 and row["ipsecGwEventSeverity"] == Severity.WARNING


def test_every_notification_of_ours_has_an_event() -> None:
    assert set(NAMES.values()) == set(SCHEMA.notifications)
    labels = SCHEMA.columns["ipsecGwEventKind"].labels
    assert {kind.name.lower().replace("_", "-"): int(kind) for kind in Kind} == labels
    assert {each.name.lower(): int(each) for each in Severity} == SCHEMA.columns["ipsecGwEventSeverity"].labels


async def test_the_examples_of_the_document_work_as_they_stand(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent
    text = (root / "docs" / "notifications.md").read_text()
    commands = [match.replace("$ ", "", 1) for match in re.findall(r"^\$ (?:.*\\\n)*.*$", text, re.MULTILINE)]
    assert len(commands) == 7
    async with gateway(tmp_path / "state") as agent:
        await agent.agent.store.commit(_user(2), AGENT)
        with (agent.agent.state / "snmp.conf").open("a") as file:  # net-snmp's tools would give up after six seconds
            file.write("timeout 20\n")
        script = "\n".join(["set -e", f"cd {root}", *commands])
        script = script.replace("127.0.0.1:1161", agent.agent.target).replace(
            "/var/lib/ipsec-agent", str(agent.agent.state)
        )
        process = await asyncio.create_subprocess_exec("bash", "-c", script, stderr=asyncio.subprocess.PIPE)
        _, errors = await process.communicate()
        assert process.returncode == 0, errors
        running = agent.agent.store.running
        assert len(running.table("ipsecGwTargetTable")) == 2 and len(running.table("ipsecGwFilterTable")) == 3


def _user(number: int) -> list[Edit]:
    """What makes a user of this number."""
    secret = b"k" * 32
    values: dict[str, Value] = {
        "ipsecGwUserName": b"watcher",
        "ipsecGwUserLevel": 3,
        "ipsecGwUserAuthProtocol": 5,
        "ipsecGwUserPrivProtocol": 3,
        "ipsecGwUserAuthKey": secret,
        "ipsecGwUserPrivKey": secret,
        "ipsecGwUserRowStatus": 4,
    }
    return [Edit(SCHEMA.columns[name], number, value) for name, value in values.items()]


@pytest.mark.slow
async def test_a_running_agent_tells_its_start_and_ends_within_a_second_of_what_nobody_acknowledges(
    tmp_path: Path,
) -> None:
    async with receiver(tmp_path / "trapd") as trapd:
        async with gateway(tmp_path / "state") as agent:
            await agent.target(1, trapd)
            await agent.target(2, ("127.0.0.1", free_port()), Kind=INFORM, Timeout=60000)
        running = Agent(tmp_path / "state")
        try:
            await asyncio.to_thread(running.start)
            [cold] = await trapd.wait_for(COLD_START)
            begun = time.monotonic()
            assert await asyncio.to_thread(running.stop) == 0
            assert time.monotonic() - begun < 30
        finally:
            for station in running.stations:
                station.socket.close()
            if running.process is not None and running.process.returncode is None:
                running.kill()
        assert int(re.findall(r"\((\d+)\)", cold.objects[UP_TIME])[0]) < 6000
        assert running.log.read_text().count("Traceback") == 0
