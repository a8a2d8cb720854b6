"""Played inside User Mode Linux by test_charon_lab.py: two gateways of spd, charon and monitor, without a planner.

What only a kernel with ESP can show: acquires begin tunnels, counters are the kernel's and
exact through rekeys and reauthentications, a killed charon comes back and the tunnel with it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agent.backends.charon import CharonIke
from agent.backends.charon.config import Options
from agent.backends.engine import EngineError
from agent.backends.spd import KernelSpd
from agent.mib import load_schema
from agent.mib.ber import Value, decode_value
from agent.monitor import Monitor
from agent.plan import numbers
from agent.plan.model import (
    Action,
    Child,
    Connection,
    Direction,
    Policy,
    PolicyKey,
    Prefix,
    RowRef,
    Secret,
    Selector,
    Template,
    Tunnel,
)
from agent.store.hooks import AGENT, Edit
from agent.store.store import Store, default_url
from tests.planned import Planned
from tests.xfrm_namespace import Namespace, cable, namespaces

SCHEMA = load_schema()
ADDRESSES = (b"\x0a\x08\0\x01", b"\x0a\x08\0\x02")
NETS = (b"\xc0\xa8\x01\x01", b"\xc0\xa8\x02\x01")
CHILD = "peer-1-rule-1"
REQID = numbers.REQID_FIRST
SECONDS = 60  # a bound is only reached in failure; a busy machine may stand still for some seconds


def text(address: bytes) -> str:
    return ".".join(map(str, address))


class Gateway:
    """One side."""

    def __init__(self, number: int, namespace: Namespace, folder: Path) -> None:
        self.number, self.namespace = number, namespace
        folder = folder / str(number)
        self.store = Store.open(SCHEMA, default_url(folder), folder)
        self.spd = KernelSpd(open_socket=namespace.xfrm_socket)
        self.ike = CharonIke(
            folder / "charon",
            lambda peer, sealed: b"secret",
            options=Options(retransmit_tries=3, retransmit_timeout=0.5),
            prefix=("ip", "netns", "exec", namespace.name),
        )
        self.monitor = Monitor(
            self.store,
            SCHEMA,
            self.ike,
            self.spd,
            tunnels_changed=self.tunnels,
            list_sas=self.ike.list_sas,
        )
        self.told: list[Mapping[str, Tunnel | None]] = []

    def tunnels(self, news: Mapping[str, Tunnel | None]) -> None:
        self.told.append(news)

    async def start(self) -> None:
        await self.spd.start()
        await self.ike.start()
        await self.monitor.start()
        await self.set(ipsecGlobEnabled=1, ipsecTrProto=255)
        await self.set(ipsecPeerTrafficList=1, ipsecPeerDynamicAddress=text(ADDRESSES[1 - self.number]).encode())
        self.store.live.update("ipsecGwPeerApplyTable", {1: {"ipsecGwPeerApplyState": 2}})
        here, there = NETS[self.number], NETS[1 - self.number]
        own, other = ADDRESSES[self.number], ADDRESSES[1 - self.number]
        policies = []
        for direction in (Direction.OUT, Direction.IN):
            a, b, ta, tb = (here, there, own, other) if direction is Direction.OUT else (there, here, other, own)
            key = PolicyKey(direction, Selector(Prefix(a, 32), Prefix(b, 32)))
            template = Template(ta, tb, 50, 1, REQID)
            policies.append(Policy(key, 1000, Action.ALLOW, (template,), RowRef("ipsecTrafficTable", 1), 1, "test"))
        assert not await self.spd.apply([], policies)

    async def set(self, **values: Value) -> None:
        edits = []
        for name, value in values.items():
            column = SCHEMA.columns[name]
            edits.append(Edit(column, 0 if SCHEMA.tables[column.table].scalar else 1, value))
        await self.store.commit(edits, AGENT)

    async def load(self, child: Mapping[str, str] | None = None, **changes: Any) -> None:
        await self.reached()
        own, other = text(ADDRESSES[self.number]), text(ADDRESSES[1 - self.number])
        settings: dict[str, Any] = {
            "version": "1",
            "unique": "no",
            "local_addrs": [own],
            "remote_addrs": [other],
            "proposals": ["aes256-sha256-modp2048"],
            "dpd_delay": "3s",
            "dpd_timeout": "7s",
            "local": {"auth": "psk", "id": own},
            "remote": {"auth": "psk", "id": other},
            "children": {
                CHILD: {
                    "local_ts": [f"{text(NETS[self.number])}/32"],
                    "remote_ts": [f"{text(NETS[1 - self.number])}/32"],
                    "esp_proposals": ["aes256-sha256"],
                    "policies": "no",
                    "reqid": str(REQID),
                    "dpd_action": "clear",
                    **(child or {}),
                }
            },
            **changes,
        }
        details = Child(CHILD, 1, 1, REQID)
        connection = Connection("peer-1", 1, settings, (details,))
        await self.ike.load_secret(Secret("psk-1", 1, b"", (own, other)))
        await self.ike.load_connection(connection)
        plan = Planned(self.store.running.generation, {"peer-1": connection}, {CHILD: details})
        self.monitor.planned(plan, None)

    async def reached(self) -> None:
        """Until charon answers: its process is there before. Raises EngineError."""
        end = time.monotonic() + SECONDS
        while True:
            try:
                await self.ike.list_sas()
            except EngineError:
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(0.1)
            else:
                return

    @property
    def remarks(self) -> str:
        """What the peer's row says."""
        return str(self.cells("ipsecGwPeerLastError"))

    def cells(self, name: str) -> list[Value]:
        column = SCHEMA.columns[name]
        table = self.store.live.table(column.table)
        return [decode_value(tlv) for number in table.numbers() if (tlv := table.cell(number, column.position))]

    def bundles(self) -> dict[str, int]:
        return {
            name: sum(value for value in self.cells(f"ipsecBundle{name}") if isinstance(value, int))
            for name in ("InPkt", "InBytesNetto", "OutPkt", "OutBytesNetto")
        }

    def kernel(self) -> dict[str, int]:
        """What `ip -s xfrm state` counts, both directions."""
        shown = {"InPkt": 0, "InBytesNetto": 0, "OutPkt": 0, "OutBytesNetto": 0}
        said = subprocess.run(
            ["ip", "-n", self.namespace.name, "-s", "xfrm", "state"], capture_output=True, text=True, check=True
        ).stdout
        for block in re.split(r"^(?=src )", said, flags=re.MULTILINE):
            used = re.search(r"lifetime current:\s+(\d+)\(bytes\), (\d+)\(packets\)", block)
            if used:
                way = "Out" if block.startswith(f"src {text(ADDRESSES[self.number])} ") else "In"
                shown[f"{way}BytesNetto"] += int(used[1])
                shown[f"{way}Pkt"] += int(used[2])
        return shown

    def refused(self) -> int:
        """Packets that came in and that no SA counts: it is gone or not complete yet."""
        return sum(value for name, value in self._errors().items() if name.startswith("XfrmIn")) + self.unready()

    def unready(self) -> int:
        """Those for an SA that is not complete yet: a version 1 responder has its SPI before its keys."""
        return self._errors()["XfrmAcquireError"]

    def _errors(self) -> dict[str, int]:
        said = self.namespace.run(Path("/proc/thread-self/net/xfrm_stat").read_text).split()
        return dict(zip(said[::2], map(int, said[1::2]), strict=True))

    async def stop(self) -> None:
        await self.monitor.stop()
        await self.ike.shutdown()
        await self.spd.stop()
        await self.store.close()


def check(holds: bool, sentence: str, seen: object = "") -> None:
    print(f"CHECK {'ok' if holds else 'FAIL'} {sentence} {seen}", flush=True)


async def eventually(
    question: Callable[[], bool], sentence: str, seen: Callable[[], object], seconds: float = SECONDS
) -> None:
    end = time.monotonic() + seconds
    while True:
        late = time.monotonic() > end  # the last look begins when time is up
        if (holds := question()) or late:
            return check(holds, sentence, "" if holds else seen())
        await asyncio.sleep(0.1)


async def bring_up(gateway: Gateway, sentence: str) -> int:
    """Ping until something is answered; how much was."""
    end = time.monotonic() + SECONDS
    while True:
        sent, answered = await ping(gateway, 3, 0.3)
        if answered or time.monotonic() > end:
            check(answered > 0, sentence, f"{answered} of {sent}")
            return answered


async def ping(gateway: Gateway, count: int, interval: float) -> tuple[int, int]:
    """(sent, answered)."""
    command = ["ip", "netns", "exec", gateway.namespace.name, "ping", "-q", "-c", str(count), "-i", str(interval)]
    command += ["-W", "1", "-I", text(NETS[gateway.number]), text(NETS[1 - gateway.number])]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    said, _ = await process.communicate()
    match = re.search(r"(\d+) packets transmitted, (\d+) received", said.decode())
    assert match, said
    return int(match[1]), int(match[2])


def echoes(incoming: int, outgoing: int) -> dict[str, int]:
    """Counters of so many packets of ping."""
    return {"InPkt": incoming, "InBytesNetto": incoming * 84, "OutPkt": outgoing, "OutBytesNetto": outgoing * 84}


async def play(a: Gateway, b: Gateway) -> None:
    for gateway in (a, b):
        await gateway.start()
        await gateway.load()
    await bring_up(a, "a packet brings the tunnel up")
    for gateway in (a, b):
        await eventually(
            lambda at=gateway: at.bundles() == at.kernel() and at.bundles()["OutPkt"] > 0,  # type: ignore[misc]
            "counters are the kernel's",
            lambda at=gateway: (at.bundles(), at.kernel()),  # type: ignore[misc]
        )
        await eventually(
            lambda at=gateway: at.cells("ipsecPeerStatOperStatus") == [1],  # type: ignore[misc]
            "the peer is up",
            lambda at=gateway: at.cells("ipsecPeerStatOperStatus"),  # type: ignore[misc]
        )
    await eventually(lambda: len(a.cells("ikeSaState")) == 1, "one IKE SA", lambda: a.cells("ikeSaState"))
    up = {CHILD: Tunnel(CHILD, *ADDRESSES, 1, 50)}
    await eventually(lambda: a.told[:1] == [up], "the reconciler was told", lambda: a.told)

    await a.ike.terminate(connection="peer-1")
    for gateway in (a, b):
        await eventually(
            lambda at=gateway: not at.cells("ipsecBundleState"),  # type: ignore[misc]
            "no bundle is left",
            lambda at=gateway: at.cells("ipsecBundleState"),  # type: ignore[misc]
        )
    refused = a.refused(), b.refused()
    for gateway in (a, b):
        await gateway.load(
            {"life_time": "8", "rekey_time": "4" if gateway is a else "1000", "rand_time": "0"},
            reauth_time="5" if gateway is a else "0",
            over_time="5",
            rand_time="0",
            rekey_time="0",
        )
    first = await bring_up(a, "up with short lives")

    def agree(answered: int) -> tuple[bool, object]:
        """Whether every packet is counted, from the answers back: what one end did not count, it has refused. From here
        on SAs come and go, so that the kernel's own counters are no measure any more."""
        back = answered + a.refused() - refused[0]
        there = back + b.refused() - refused[1]
        wanted, seen = (echoes(answered, there), echoes(back, back)), (a.bundles(), b.bundles())
        return seen == wanted, (seen, wanted)

    await eventually(lambda: agree(first)[0], "counters stand still", lambda: agree(first)[1])
    before, unready = a.bundles()["OutPkt"], a.unready() + b.unready()
    begun = time.monotonic()
    sent, answered = await ping(a, 600, 0.02)
    excused = a.unready() + b.unready() - unready
    lost = sent - answered - excused
    check(lost <= 4, "hardly a packet lost through rekeys", f"{answered} of {sent}, {excused} before charon had keys")
    await eventually(
        lambda: agree(first + answered)[0], "counters are exact through rekeys", lambda: agree(first + answered)[1]
    )
    grown = a.bundles()["OutPkt"] - before
    check(grown == sent, "nothing was sent without an SA", f"{grown} of {sent}")
    await eventually(lambda: len(a.cells("ipsecBundleState")) == 1, "in one row", lambda: a.cells("ipsecBundleIndex"))
    print(f"NOTE {time.monotonic() - begun:.1f} s, {len(a.cells('ikeSaState'))} IKE SAs", flush=True)

    for gateway in (a, b):
        await gateway.load()
    await a.ike.terminate(connection="peer-1")
    await eventually(lambda: not b.cells("ipsecBundleState"), "down at both", lambda: b.cells("ipsecBundleState"))
    await bring_up(a, "a ping passes again")
    await eventually(lambda: a.cells("ipsecPeerStatOperStatus") == [1], "up again", lambda: a.remarks)
    killed, since = b.ike.daemon.pid(), len(a.told)
    os.kill(killed, signal.SIGKILL)
    await a.set(ipsecPeerStartMode=2)
    await eventually(lambda: b.ike.daemon.pid() not in (0, killed), "a killed charon is started again", lambda: 0)
    await eventually(lambda: not b.cells("ikeSaState"), "its SAs are not shown any more", lambda: b.cells("ikeSaState"))
    await b.load()
    begun = time.monotonic()
    await eventually(lambda: {CHILD: None} in a.told[since:], "DPD finds the SAs gone", lambda: a.told)
    await eventually(lambda: b.cells("ipsecPeerStatOperStatus") == [1], "always-up returns", lambda: a.remarks)
    print(f"NOTE {time.monotonic() - begun:.1f} s until it returned", flush=True)

    await a.set(ipsecPeerStartMode=1)
    for gateway in (a, b):
        await gateway.set(ipsecPrfProposal=0)
        await gateway.load({"life_time": "300" if gateway is b else "100"})
    await b.set(ipsecPrfLifePolicy=2, ipsecGlobIpsecProfile=1)
    await a.ike.terminate(connection="peer-1")
    end = time.monotonic() + SECONDS
    while "100 s" not in b.remarks and time.monotonic() < end:
        await ping(a, 2, 0.3)
    await eventually(lambda: "100 s" in b.remarks, "strict tells why", lambda: (a.remarks, b.remarks))
    await eventually(
        lambda: not b.cells("ipsecBundleState"), "and ends the tunnel", lambda: b.cells("ipsecBundleState")
    )


async def main() -> None:
    folder = Path(tempfile.mkdtemp())
    with namespaces(2) as made:
        cable(made[0], made[1])
        for number, namespace in enumerate(made):
            own, net, other = ADDRESSES[number], NETS[number], 1 - number
            namespace.ip(f"addr add {text(own)}/24 dev v0")
            namespace.ip(f"addr add {text(net)}/32 dev lo")
            namespace.ip(f"route add {text(NETS[other])}/32 via {text(ADDRESSES[other])} src {text(net)}")
        gateways = Gateway(0, made[0], folder), Gateway(1, made[1], folder)
        try:
            await play(*gateways)
        finally:
            if "--log" in sys.argv:
                for gateway in gateways:
                    print((gateway.ike.daemon.folder / "charon.log").read_text(), flush=True)
            for gateway in gateways:
                await gateway.stop()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="LOG %(asctime)s %(name)s %(message)s", stream=sys.stdout)
    asyncio.run(main())
    print("CHECK ok it ends", flush=True)
