"""`ipsec-agent explain`: which rule decides a packet and why, for ranges, IPv6, interfaces, outer addresses."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType

import pytest

from agent.config import Settings
from agent.inspect import InspectError, explain_packet
from agent.mib import load_schema
from agent.mib.ber import Value
from agent.store.hooks import AGENT, Edit
from agent.store.store import Store
from tests.plan_helpers import rule_cells
from tests.xfrm_namespace import Namespace, cable, namespaces

pytestmark = pytest.mark.kernel
SCHEMA = load_schema()
COMMAND = str(Path(sys.executable).parent / "ipsec-agent")
TRAFFIC = "ipsecTrafficTable"


def configuration(inside: int) -> Mapping[tuple[str, int], Mapping[str, Value]]:
    """`inside`: index of the interface towards the hosts behind the gateway."""
    return {
        (TRAFFIC, 1): rule_cells("drop any 10.9.0.3-10.9.0.9 udp/0/53", 2, ipsecTrDescription=b"foreign resolvers"),
        (TRAFFIC, 2): rule_cells(f"drop any 10.8.0.0/16 if{inside}", 3, ipsecTrDescription=b"not this way"),
        (TRAFFIC, 3): rule_cells("drop any6 2001:db8:9::/48 icmp6"),
        (TRAFFIC, 4): rule_cells("protect 10.1.0.0/16 10.2.0.0/16", 5),
        (TRAFFIC, 5): rule_cells("protect own peer"),
        (TRAFFIC, 6): rule_cells("protect 10.1.0.0/16 10.6.0.0/16"),
        ("ipsecPeerTable", 1): {
            "ipsecPeerTrafficList": 4,
            "ipsecPeerDescription": b"Branch",
            "ipsecPeerDynamicAddress": b"192.0.2.2",
            "ipsecPeerPreSharedKey": b"a long enough secret",
        },
        ("ipsecPeerTable", 2): {"ipsecPeerTrafficList": 6, "ipsecPeerDynamicAddress": b"192.0.2.6"},
        ("ipsecGlobalsContinued", 0): {"ipsecGlobContPreIpsecRules": 1, "ipsecGlobContDefaultRule": 2},
        ("ipsecGlobals", 0): {"ipsecGlobEnabled": 1},
    }


async def stored(
    folder: Path, inside: int, more: Mapping[tuple[str, int], Mapping[str, Value]] = MappingProxyType({})
) -> None:
    store = Store.open(SCHEMA, "", folder)
    edits = [
        Edit(SCHEMA.columns[name], number, value)
        for (_, number), columns in {**configuration(inside), **more}.items()
        for name, value in columns.items()
    ]
    await store.commit(edits, AGENT)
    await store.close()


@pytest.fixture
def gateway() -> Iterator[Namespace]:
    """192.0.2.1 on v0 towards the world, 10.1.0.1 on v1 towards hosts."""
    with namespaces(2) as (gateway, other):
        cable(gateway, other, "v0")
        cable(gateway, other, "v1")
        for line in (
            "addr add 192.0.2.1/24 dev v0",
            "addr add 2001:db8::1/64 dev v0 nodad",
            "route add default via 192.0.2.2",
            "route add default via 2001:db8::2",
            "addr add 10.1.0.1/16 dev v1",
        ):
            gateway.ip(line)
        yield gateway


def index(gateway: Namespace, name: str) -> int:
    return int(gateway.ip(f"-o link show {name}").partition(":")[0])


def explain(gateway: Namespace, state: Path, words: str) -> str:
    """The command's work, without a process for each packet."""
    said = dict(word.split(" ", 1) if " " in word else (word, "") for word in words.removeprefix("--").split(" --"))
    sport = int(said["sport"]) if "sport" in said else None
    packet = (said["src"], said["dst"], said.get("proto", "icmp"), sport, int(said.get("dport", 0)))
    more = ("forwarded" in said, int(said.get("decrypted", 0)), said.get("in", ""))
    settings = Settings(state=state, backend="linux")
    try:
        return gateway.run(lambda: explain_packet(settings, *packet, *more))
    except InspectError as error:
        return str(error)


ASKED = [
    ("--src 10.1.0.9 --dst 10.9.0.3 --proto udp --dport 53 --forwarded", 'drop: rule 1 "foreign resolvers": dropped'),
    ("--src 10.1.0.9 --dst 10.9.0.9 --proto udp --dport 53 --in v1", 'drop: rule 1 "foreign resolvers": dropped'),
    ("--src 10.1.0.9 --dst 10.9.0.10 --proto udp --dport 53 --forwarded", "pass: no rule matches, and the default"),
    ("--src 10.8.0.1 --dst 10.1.0.1 --proto tcp --in v1", 'drop: rule 2 "not this way" (came by v1 ({v1})): dropped'),
    ("--src 10.8.0.1 --dst 10.1.0.1 --proto tcp --in v0", "pass: no rule matches"),
    ("--src 10.8.0.1 --dst 10.1.0.1 --proto tcp", "pass: no rule matches"),  # it would come by v0
    ("--src 10.1.0.1 --dst 10.8.0.1 --proto tcp", "pass: no rule matches"),  # and leaves by it
    ("--src 10.8.0.1 --dst 10.7.0.1 --in {v1}", 'drop: rule 2 "not this way" (came by v1 ({v1})): dropped'),
    ("--src 2001:db8::1 --dst 2001:db8:9::7 --proto icmp6 --sport 128", "drop: rule 3: dropped"),
    ("--src 2001:db8::1 --dst 2001:db8:9::7 --proto icmp6 --sport 135", "pass: built in: neighbour discovery"),
    ("--src 2001:db8:9::7 --dst 2001:db8:5::7 --proto icmp6 --sport 128 --forwarded", "drop: rule 3: dropped"),
    ("--src 2001:db8::1 --dst 2001:db8:9::7 --proto tcp --dport 22", "pass: no rule matches"),
    ("--src 10.1.0.1 --dst 10.2.0.9", 'protect: rule 4 of peer 1 "Branch": tunnel of peer 1 "Branch"'),
    ("--src 10.2.0.9 --dst 10.1.0.9 --forwarded", 'drop: rule 4 of peer 1 "Branch": expected out of the tunnel'),
    ("--src 10.2.0.9 --dst 10.1.0.9 --forwarded --decrypted 1", "pass: rule 4 of peer 1"),  # in plain from here on
    ("--src 10.2.0.9 --dst 10.1.0.9 --decrypted 1", "pass: rule 4 of peer 1"),  # forwarded, whoever did not say so
    ("--src 10.2.0.9 --dst 10.1.0.1 --decrypted 1", 'protect: rule 4 of peer 1 "Branch"'),
    ("--src 10.2.0.9 --dst 10.1.0.9 --decrypted 9", "there is no peer 9; accepted: the number of one of 1, 2"),
    (
        "--src 10.1.0.1 --dst 10.6.0.9",
        "drop: rule 6 of peer 2: blocked: the tunnel cannot be made: peer 2: no pre-shared key; set",
    ),
    ("--src 192.0.2.1 --dst 192.0.2.2", 'protect: rule 5 of peer 1 "Branch"'),
    ("--src 192.0.2.1 --dst 192.0.2.2 --proto udp --sport 500 --dport 500", "pass: built in: our own IKE and ESP"),
    (
        "--src 192.0.2.1 --dst 192.0.2.2 --proto udp --dport 53",
        'tunnel of peer 1 "Branch" [from source port 49152; from 500, 4500: pass: built in: our own IKE and ESP',
    ),
    (
        "--src 10.9.0.3 --dst 10.1.0.9 --proto udp --in v0",
        'lets it pass [from source port 49152; from 53: drop: rule 1 "foreign resolvers": dropped]',
    ),
    ("--src 10.9.0.3 --dst 10.1.0.9 --proto udp --in v0 --sport 53", 'drop: rule 1 "foreign resolvers": dropped'),
    ("--src 10.1.0.1 --dst 2001:db8::7", "source 10.1.0.1 and destination 2001:db8::7 are of different"),
    (
        "--src 10.1.0.9 --dst 10.1.0.1 --forwarded",
        "destination 10.1.0.1 is an address of this host",
    ),
    ("--src 10.1.0.1 --dst branch", "'branch' is no address; accepted: an IPv4 or IPv6 address"),
    ("--src 10.1.0.1 --dst 10.2.0.9 --proto udpp", "'udpp' is no protocol; accepted: 0..255, icmp, tcp, udp, …"),
    ("--src 10.8.0.1 --dst 10.1.0.1 --in eth7", "'eth7' is no interface of this host; accepted: lo (1), v"),
]


@pytest.mark.slow
async def test_the_deciding_rule_is_named_and_why(gateway: Namespace, tmp_path: Path) -> None:
    places = {name: index(gateway, name) for name in ("v0", "v1")}
    await stored(tmp_path / "state", places["v1"])
    for words, wanted in ASKED:
        told = explain(gateway, tmp_path / "state", words.format(**places))
        assert wanted.format(**places) in told, (words, told)


@pytest.mark.slow
async def test_the_command_takes_an_interface_by_name(gateway: Namespace, tmp_path: Path) -> None:
    await stored(tmp_path / "state", index(gateway, "v1"))
    words = ("--state", str(tmp_path / "state"), "--backend", "linux", "--src", "10.8.0.1", "--dst", "10.1.0.1")
    done = gateway.command(COMMAND, "explain", *words, "--in", "v1")
    assert done.stdout == f'drop: rule 2 "not this way" (came by v1 ({index(gateway, "v1")})): dropped\n', done.stderr
    done = gateway.command(COMMAND, "explain", *words, "--in", "nothing")
    assert done.returncode == 2 and "no interface of this host" in done.stderr


async def test_a_selector_that_leads_to_an_interface_counts_before_the_routes(tmp_path: Path) -> None:
    more: dict[tuple[str, int], Mapping[str, Value]] = {
        ("ipsecPeerTable", 7): {
            "ipsecPeerTrafficList": 0,
            "ipsecPeerVirtualInterface": 2,
            "ipsecPeerDynamicAddress": b"192.0.2.7",
            "ipsecPeerPreSharedKey": b"a long enough secret",
        },
        ("ipsecPeerTrafficTable", 1): {
            "ipsecPeerTrafficIfindex": 100_007,
            "ipsecPeerTrafficLocalAddress": bytes([10, 1, 0, 0]),
            "ipsecPeerTrafficLocalMask": bytes([255, 255, 0, 0]),
            "ipsecPeerTrafficRemoteAddress": bytes([10, 2, 0, 0]),
            "ipsecPeerTrafficRemoteMask": bytes([255, 255, 0, 0]),
            "ipsecPeerTrafficPolicy": 5,
        },
    }
    await stored(tmp_path, 2, more)
    settings = Settings(state=tmp_path, backend="memory")

    def told(source: str, to: str) -> str:
        with ThreadPoolExecutor(1) as threads:  # it runs a loop of its own
            return threads.submit(explain_packet, settings, source, to, "icmp", None, 0, True, 0).result()

    led = "protect: the interface of peer 7: tunnel of peer 7; a selector leads it to that interface"
    assert told("10.1.0.9", "10.2.0.9").startswith(led)
    assert "a selector leads" not in told("10.1.0.9", "10.3.0.9")
    assert "a selector leads" not in told("10.2.0.9", "10.1.0.9")
