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

    async def stop(self) -> None:
        await self.monitor.stop()
        await self.ike.shutdown()
        await self.spd.stop()
        await self.store.close()


def check(holds: bool, sentence: str, seen: object = "") -> None:
    print(f"CHECK {'ok' if holds else 'FAIL'} {sentence} {seen}", flush=True)


async def eventually(
    question: Callable[[], bool], sentence: str, seen: Callable[[], object], seconds: float = 60
) -> None:
    end = time.monotonic() + seconds
    while not question() and time.monotonic() < end:  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    check(question(), sentence, "" if question() else seen())


async def ping(gateway: Gateway, count: int, interval: float) -> tuple[int, int]:
    """(sent, answered)."""
    command = ["ip", "netns", "exec", gateway.namespace.name, "ping", "-q", "-c", str(count), "-i", str(interval)]
    command += ["-W", "1", "-I", text(NETS[gateway.number]), text(NETS[1 - gateway.number])]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    said, _ = await process.communicate()
    match = re.search(r"(\d+) packets transmitted, (\d+) received", said.decode())
    assert match, said
    return int(match[1]), int(match[2])


async def answered_first(gateway: Gateway) -> int:
    """Which of our single packets is the first that is answered; 0: none."""
    for number in range(1, 61):
        if (await ping(gateway, 1, 0.3))[1]:
            return number
    return 0


def expected(sent: int, answered: int) -> dict[str, int]:
    return {"InPkt": answered, "InBytesNetto": answered * 84, "OutPkt": sent, "OutBytesNetto": sent * 84}


async def play(a: Gateway, b: Gateway) -> None:
    for gateway in (a, b):
        await gateway.start()
        await gateway.load()
    sent = await answered_first(a)
    check(sent > 0, "a packet brings the tunnel up", f"answered: number {sent}")
    await eventually(
        lambda: a.bundles() == a.kernel() and a.bundles()["OutPkt"] > 0,
        "counters are the kernel's",
        lambda: (a.bundles(), a.kernel()),
    )
    await eventually(
        lambda: a.cells("ipsecPeerStatOperStatus") == [1] == b.cells("ipsecPeerStatOperStatus"),
        "both peers are up",
        lambda: (a.remarks, b.remarks),
    )
    await eventually(lambda: len(a.cells("ikeSaState")) == 1, "one IKE SA", lambda: a.cells("ikeSaState"))
    check(a.told[0] == {CHILD: Tunnel(CHILD, *ADDRESSES, 1, 50)}, "the reconciler was told", a.told)

    await a.ike.terminate(connection="peer-1")
    await eventually(lambda: not a.cells("ipsecBundleState"), "no bundle is left", lambda: a.cells("ipsecBundleState"))
    for gateway in (a, b):
        await gateway.load(
            {"life_time": "8", "rekey_time": "4" if gateway is a else "1000", "rand_time": "0"},
            reauth_time="5" if gateway is a else "0",
            over_time="5",
            rand_time="0",
            rekey_time="0",
        )
    await ping(a, 3, 0.3)
    await eventually(
        lambda: a.bundles() == a.kernel() and b.bundles() == b.kernel(),
        "counters stand still",
        lambda: (a.bundles(), a.kernel(), b.bundles(), b.kernel()),
    )
    before = a.bundles(), b.bundles()
    begun = time.monotonic()
    sent, answered = await ping(a, 600, 0.02)
    # of a busy machine each renewal costs some, that come before the other side has the new SA; a gap would cost 50 a
    # second
    check(answered >= sent * 0.95, "hardly a packet lost through rekeys", f"{answered} of {sent}")

    def grown() -> tuple[dict[str, int], dict[str, int]]:
        return (
            {name: value - before[0][name] for name, value in a.bundles().items()},
            {name: value - before[1][name] for name, value in b.bundles().items()},
        )

    await eventually(
        lambda: grown()[0] == expected(sent, answered),
        "counters are exact through rekeys",
        lambda: (grown(), sent, answered),
    )

    def exact_there() -> bool:
        """Every packet that came was answered; answers may be lost on their way back."""
        there = grown()[1]
        came, went = there["InPkt"], there["OutPkt"]
        return answered <= went <= came <= sent and there == expected(went, came)

    await eventually(
        exact_there,
        "at the other side too",
        lambda: (grown(), sent, answered),
    )
    await eventually(lambda: len(a.cells("ipsecBundleState")) == 1, "in one row", lambda: a.cells("ipsecBundleIndex"))
    print(f"NOTE {time.monotonic() - begun:.1f} s, {len(a.cells('ikeSaState'))} IKE SAs", flush=True)

    for gateway in (a, b):
        await gateway.load()
    await a.ike.terminate(connection="peer-1")
    await eventually(
        lambda: not a.cells("ipsecBundleState") and not b.cells("ipsecBundleState"),
        "down at both",
        lambda: (a.cells("ipsecBundleState"), b.cells("ipsecBundleState")),
    )
    await ping(a, 3, 0.3)
    await eventually(lambda: a.cells("ipsecPeerStatOperStatus") == [1], "up again", lambda: a.remarks)
    killed, before_kill = b.ike.daemon.pid(), len(a.told)
    os.kill(killed, signal.SIGKILL)
    await a.set(ipsecPeerStartMode=2)
    await eventually(lambda: b.ike.daemon.pid() not in (0, killed), "a killed charon is started again", lambda: 0)
    await eventually(lambda: not b.cells("ikeSaState"), "its SAs are not shown any more", lambda: b.cells("ikeSaState"))
    await b.load()
    begun = time.monotonic()
    await eventually(lambda: {CHILD: None} in a.told[before_kill:], "DPD finds the SAs gone", lambda: a.told)
    await eventually(lambda: b.cells("ipsecPeerStatOperStatus") == [1], "always-up returns", lambda: a.remarks)
    print(f"NOTE {time.monotonic() - begun:.1f} s until it returned", flush=True)

    await a.set(ipsecPeerStartMode=1)
    for gateway in (a, b):
        await gateway.set(ipsecPrfProposal=0)
        await gateway.load({"life_time": "300" if gateway is b else "100"})
    await b.set(ipsecPrfLifePolicy=2, ipsecGlobIpsecProfile=1)
    await a.ike.terminate(connection="peer-1")
    await ping(a, 2, 0.3)
    await eventually(
        lambda: "100 s" in b.remarks,
        "strict tells why",
        lambda: (a.remarks, b.remarks),
    )
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
