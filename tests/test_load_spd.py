"""`ipsec-agent load-spd`: the stored rules are in the kernel before network and agent, and stay when it comes."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from agent.backends.host import LinuxHost
from agent.backends.memory import MemoryIke
from agent.backends.reconcile import Reconciler
from agent.backends.spd import KernelSpd
from agent.backends.xfrm.messages import read_policy_news
from agent.mib import load_schema
from agent.mib.ber import Value
from agent.plan.capabilities import CHARON
from agent.plan.numbers import PRIORITY_COMPANIONS, is_our_index
from agent.store.copies import Copies
from agent.store.hooks import AGENT, Edit
from agent.store.store import Store
from tests.plan_helpers import rule_cells
from tests.xfrm_namespace import Namespace, cable, namespaces, until

pytestmark = pytest.mark.kernel
SCHEMA = load_schema()
COMMAND = str(Path(sys.executable).parent / "ipsec-agent")
XFRM_GROUP_POLICY = 4  # XFRMNLGRP_POLICY
FOREIGN = "src 10.66.0.0/16 dst 10.67.0.0/16 dir out priority 3 action block"

RULES: Mapping[tuple[str, int], Mapping[str, Value]] = {
    ("ipsecTrafficTable", 1): {
        "ipsecTrProto": 255,
        "ipsecTrRemoteAddress": bytes([10, 2, 0, 0]),
        "ipsecTrRemoteMaskLen": 24,
    },
    ("ipsecTrafficTable", 2): {
        "ipsecTrProto": 255,
        "ipsecTrRemoteAddress": bytes([10, 3, 0, 0]),
        "ipsecTrRemoteMaskLen": 24,
    },
    ("ipsecPeerTable", 1): {
        "ipsecPeerTrafficList": 1,
        "ipsecPeerDynamicAddress": b"192.0.2.2",
        "ipsecPeerPreSharedKey": b"a long enough secret",
    },
    ("ipsecPeerTable", 2): {
        "ipsecPeerTrafficList": 2,
        "ipsecPeerDynamicAddress": b"branch.example.net",
        "ipsecPeerPreSharedKey": b"a long enough secret",
    },
    ("ipsecGlobalsContinued", 0): {"ipsecGlobContDefaultRule": 2},
    ("ipsecGlobals", 0): {"ipsecGlobEnabled": 1},
}


async def commit(store: Store, rows: Mapping[tuple[str, int], Mapping[str, Value]]) -> None:
    edits = [
        Edit(SCHEMA.columns[name], number, value)
        for (table, number), columns in rows.items()
        for name, value in columns.items()
    ]
    await store.commit(edits, AGENT)


async def stored(folder: Path, rows: Mapping[tuple[str, int], Mapping[str, Value]] = RULES) -> None:
    store = Store.open(SCHEMA, "", folder)
    await commit(store, rows)
    await store.close()


def load_spd(namespace: Namespace, folder: Path) -> subprocess.CompletedProcess[str]:
    return namespace.command(COMMAND, "load-spd", "--state", str(folder))


@pytest.fixture
def pair() -> Iterator[tuple[Namespace, Namespace]]:
    with namespaces(2) as (gateway, other):
        yield gateway, other


def joined(gateway: Namespace, other: Namespace) -> None:
    """What the network brings: a link, addresses, routes to the nets that rules speak of."""
    cable(gateway, other)
    gateway.ip("addr add 192.0.2.1/24 dev v0")
    other.ip("addr add 192.0.2.2/24 dev v0")
    for net in ("10.2.0", "10.3.0", "10.9.0"):
        other.ip(f"addr add {net}.1/32 dev lo")
        gateway.ip(f"route add {net}.0/24 via 192.0.2.2")


def arrives(gateway: Namespace, other: Namespace, address: str, tries: int = 60) -> bool:
    """Whether a datagram from the gateway to an address of the other gets there in plain. The first may wait for the
    neighbour's address, and any for its turn on a busy machine."""
    receiver = other.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sender = gateway.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with receiver, sender:
        receiver.bind((address, 9999))
        receiver.settimeout(0.5)
        sender.setblocking(False)
        for _ in range(tries):
            try:
                sender.sendto(b"in plain", (address, 9999))
            except OSError:
                return False
            try:
                return receiver.recv(99) == b"in plain"
            except TimeoutError:
                continue
    return False


def stays_here(gateway: Namespace, other: Namespace, address: str) -> bool:
    return not arrives(gateway, other, address, 2)


def flood(gateway: Namespace, other: Namespace, address: str) -> tuple[Callable[[], int], Callable[[], int]]:
    """Send to an address without pause; how many were sent, and (ends it) how many arrived in plain."""
    receiver = other.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    receiver.bind((address, 9999))
    receiver.setblocking(False)
    sender = gateway.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sender.setblocking(False)
    count = 0
    ended = threading.Event()

    def send() -> None:
        nonlocal count
        while not ended.wait(0.0002):
            with contextlib.suppress(OSError):
                count += 1
                sender.sendto(b"in plain", (address, 9999))

    thread = threading.Thread(target=send)
    thread.start()

    def arrived() -> int:
        ended.set()
        thread.join()
        sender.close()
        found = 0
        with receiver, contextlib.suppress(BlockingIOError):
            while receiver.recv(99):
                found += 1
        return found

    while count < 10:
        time.sleep(0.01)
    return lambda: count, arrived


def ours(namespace: Namespace) -> int:
    return sum(
        is_our_index(int(line.split(" index ")[1].split()[0]))
        for line in namespace.command("ip", "-s", "xfrm", "policy").stdout.splitlines()
        if " index " in line
    )


async def test_nothing_leaves_in_plain_from_the_first_packet_on(
    tmp_path: Path, pair: tuple[Namespace, Namespace]
) -> None:
    gateway, other = pair
    await stored(tmp_path / "state")
    done = load_spd(gateway, tmp_path / "state")
    assert done.returncode == 0 and done.stdout.startswith("policies loaded: "), done.stderr
    count = int(done.stdout.split()[-1])
    assert ours(gateway) == count >= 10
    joined(gateway, other)
    assert arrives(gateway, other, "10.9.0.1"), "no rule speaks of it, and the default rule passes"
    assert stays_here(gateway, other, "10.2.0.1")
    assert stays_here(gateway, other, "10.3.0.1"), "a peer whose name nobody can look up yet"
    gateway.command("ip", "xfrm", "policy", "flush")
    assert arrives(gateway, other, "10.2.0.1"), "it was the policies that kept it back"


async def test_ranges_ipv6_and_interfaces_hold_before_their_network_is_there(
    tmp_path: Path, pair: tuple[Namespace, Namespace]
) -> None:
    gateway, other = pair
    rules: dict[tuple[str, int], Mapping[str, Value]] = {
        ("ipsecTrafficTable", 5): rule_cells("drop any 10.2.0.1-10.2.0.6", 6),
        ("ipsecTrafficTable", 6): rule_cells("drop any 10.9.0.0/24 if77", 7),
        ("ipsecTrafficTable", 7): rule_cells("drop any6 2001:db8:9::/48"),
        ("ipsecGlobalsContinued", 0): {"ipsecGlobContPreIpsecRules": 5, "ipsecGlobContDefaultRule": 2},
        ("ipsecGlobals", 0): {"ipsecGlobEnabled": 1},
    }
    await stored(tmp_path / "state", rules)
    done = load_spd(gateway, tmp_path / "state")
    assert done.returncode == 0, done.stderr
    text = gateway.ip("xfrm policy")
    for piece in ("dst 10.2.0.4/31", "dst 10.2.0.6/32", "src 2001:db8:9::/48 dst ::/0", "mark 0x4d000/0xfffff000"):
        assert piece in text
    assert "0x0004d000" in gateway.command("nft", "list", "table", "inet", "ipsec_agent").stdout
    gateway.ip("link add v77 index 77 type veth peer name v78")
    joined(gateway, other)
    assert arrives(gateway, other, "10.9.0.1"), "by another interface"
    assert stays_here(gateway, other, "10.2.0.1")
    assert arrives(gateway, other, "10.3.0.1")


async def test_the_agent_takes_over_what_was_loaded_without_a_gap(
    tmp_path: Path, pair: tuple[Namespace, Namespace]
) -> None:
    gateway, other = pair
    await stored(tmp_path / "state")
    load_spd(gateway, tmp_path / "state")
    joined(gateway, other)
    before = ours(gateway)
    store = Store.open(SCHEMA, "", tmp_path / "state")
    reconciler = Reconciler(
        store,
        SCHEMA,
        KernelSpd(open_socket=gateway.xfrm_socket),
        MemoryIke(),
        gateway.run(lambda: LinuxHost(open_socket=gateway.route_socket, proc=Path("/proc/thread-self/net"))),
        CHARON,
    )
    events = gateway.xfrm_socket([XFRM_GROUP_POLICY])
    sent, escaped = flood(gateway, other, "10.2.0.1")
    try:
        await reconciler.start()
        await reconciler.settled()
        await until(lambda: sent() > 20)
        news = [
            item
            for messages in iter(events.receive, [])
            for message in messages
            if (item := read_policy_news(message.type, message.data, message.start, message.end)) is not None
        ]
        assert news, "it had something to add"
        # what protects is updated in place; only blocking companions, which let pass from now on, are made anew
        gone = [item.record for item in news if item.gone and item.record is not None]
        assert all(record.priority >= PRIORITY_COMPANIONS and not record.templates for record in gone), gone
        text = gateway.ip("xfrm policy")
        assert "tmpl src 192.0.2.1 dst 192.0.2.2" in text, "with addresses there the rule protects"
        assert ours(gateway) > before, "and our own IKE and ESP are let through"
    finally:
        in_plain = escaped()
        await reconciler.stop()
        await store.close()
        events.close()
    assert in_plain == 0


@pytest.mark.slow
async def test_ours_are_replaced_and_others_stay(tmp_path: Path, pair: tuple[Namespace, Namespace]) -> None:
    gateway, _ = pair
    await stored(tmp_path / "state")
    gateway.ip(f"xfrm policy add {FOREIGN}")
    first = load_spd(gateway, tmp_path / "state").stdout
    assert load_spd(gateway, tmp_path / "state").stdout == first
    count = ours(gateway)
    assert f"{count}" in first
    await stored(tmp_path / "state", {("ipsecTrafficTable", 2): {"ipsecTrRemoteAddress": bytes([10, 4, 0, 0])}})
    load_spd(gateway, tmp_path / "state")
    text = gateway.ip("xfrm policy")
    assert "10.4.0.0/24" in text and "10.3.0.0/24" not in text and "10.66.0.0/16" in text
    assert ours(gateway) == count
    await stored(tmp_path / "state", {("ipsecGlobals", 0): {"ipsecGlobEnabled": 2}})
    done = load_spd(gateway, tmp_path / "state")
    assert done.stdout == "policies loaded: 0; IPsec is switched off (ipsecGlobEnabled)\n"
    assert ours(gateway) == 0 and "10.66.0.0/16" in gateway.ip("xfrm policy")


@pytest.mark.slow
@pytest.mark.parametrize("gone", [False, True], ids=["damaged", "gone"])
async def test_of_a_damaged_store_the_newest_copy_is_loaded(
    tmp_path: Path, pair: tuple[Namespace, Namespace], gone: bool
) -> None:
    """After a reboot the kernel has nothing: what the copy protects is protected, and the unit shows it."""
    gateway, _ = pair
    folder = tmp_path / "state"
    await stored(folder)
    file = folder / "agent.sqlite"
    Copies(folder / "copies", file).make()
    if gone:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:4096] + bytes(200_000))
    damaged = None if gone else file.read_bytes()
    done = load_spd(gateway, folder)
    count = ours(gateway)
    assert count > 10 and "10.2.0.0/24" in gateway.ip("xfrm policy")
    assert done.returncode == 2 and f"policies loaded: {count}; agent.sqlite is damaged; read-only" in done.stderr
    assert (None if not file.exists() else file.read_bytes()) == damaged, "it is left as it is"
    store = Store.open(SCHEMA, "", folder)
    assert store.damaged and store.running.generation == 1
    await store.close()


async def test_a_selector_that_somebody_else_holds_is_named(tmp_path: Path, pair: tuple[Namespace, Namespace]) -> None:
    gateway, _ = pair
    await stored(tmp_path / "state")
    gateway.ip("xfrm policy add src 0.0.0.0/0 dst 10.2.0.0/24 dir out priority 3 action block")
    done = load_spd(gateway, tmp_path / "state")
    assert done.returncode == 2
    assert "out 0.0.0.0/0 > 10.2.0.0/24: held by a policy that is not ours" in done.stderr


@pytest.mark.slow
async def test_it_keeps_off_a_running_agent_and_a_store_that_is_none(
    tmp_path: Path, pair: tuple[Namespace, Namespace]
) -> None:
    gateway, _ = pair
    done = load_spd(gateway, tmp_path / "nothing")
    assert done.returncode == 0 and done.stdout.startswith("no policies loaded: there is no store at"), done.stderr
    assert not (tmp_path / "nothing").exists()
    await stored(tmp_path / "state")
    from agent.backends.sole import Sole

    sole = gateway.run(Sole)
    done = load_spd(gateway, tmp_path / "state")
    sole.release()
    assert done.returncode == 2 and "another agent makes policies in this network namespace" in done.stderr
    (tmp_path / "state" / "agent.sqlite").write_bytes(b"this is no database" * 100)
    done = load_spd(gateway, tmp_path / "state")
    assert done.returncode == 2 and done.stderr.startswith("ipsec-agent: no policies loaded: "), done.stderr
    assert ours(gateway) == 0
