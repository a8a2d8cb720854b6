"""What can be seen of a gateway from outside, as questions whose answer is '' when all is as wanted."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from tests.lab.gateway import Gateway
from tests.lab.topology import SITES, Site, ping, run

APPLY_TABLES = {"Peer", "Traffic", "IkeProposal", "IkeProfile", "IpsecProposal", "IpsecProfile"}
APPLIED, FAILED, UNUSED, SHADOWED = 2, 3, 4, 5
PEER_UP = 1
SA_ESTABLISHED = 2
BUNDLE_ESTABLISHED = 1

Flow = tuple[str, str, str, int, int]  # source, destination, protocol, source port, destination port


def apply_state(gateway: Gateway, kind: str, number: int, wanted: int = APPLIED) -> str:
    """'' when the row's apply state is as wanted, else the state and the row's last error."""
    state = gateway.station.get(f"ipsecGw{kind}ApplyState.{number}")
    if state == str(wanted):
        return ""
    return f"state {state}: {gateway.station.get(f'ipsecGw{kind}LastError.{number}')}"


def ike_rows(gateway: Gateway, peer: int) -> list[dict[str, str]]:
    """Rows of ikeSaTable of a peer that are established."""
    rows = gateway.station.rows("ikeSaTable").values()
    wanted = {"ikeSaPeerIndex": str(peer), "ikeSaState": str(SA_ESTABLISHED)}
    return [row for row in rows if wanted.items() <= row.items()]


def bundle_rows(gateway: Gateway, peer: int) -> list[dict[str, str]]:
    """Rows of ipsecBundleTable of a peer, whatever their state."""
    rows = gateway.station.rows("ipsecBundleTable").values()
    return [row for row in rows if row.get("ipsecBundlePeerIndex") == str(peer)]


def established(gateway: Gateway, peer: int) -> str:
    """'' when the peer is up with an IKE SA and a bundle."""
    oper = gateway.station.get(f"ipsecPeerStatOperStatus.{peer}")
    if oper != str(PEER_UP):
        return f"operational status {oper}"
    if not ike_rows(gateway, peer):
        return f"no established row: {gateway.station.walk('ikeSaState')}"
    if not any(row.get("ipsecBundleState") == str(BUNDLE_ESTABLISHED) for row in bundle_rows(gateway, peer)):
        return f"no established bundle: {gateway.station.walk('ipsecBundleState')}"
    return ""


def lost(host: Site, destination: str, count: int = 3, *, interval: float = 0.2, size: int = 56) -> str:
    """'' when each packet of a short ping from behind a gateway is answered. A tunnel that one end shows as up may be a
    moment from it at the other."""
    sent, answered = ping(host, destination, count, interval=interval, size=size)
    return "" if sent == answered == count else f"{answered} of {sent} answered"


def silent(host: Site, destination: str) -> str:
    """'' when one of two packets of a ping is answered."""
    return "" if ping(host, destination, 2)[1] else "no answer"


def counted(gateway: Gateway, peer: int) -> dict[str, int]:
    """Packets and octets of a peer's bundles, added up."""
    columns = ("ipsecBundleInPkt", "ipsecBundleInBytesNetto", "ipsecBundleOutPkt", "ipsecBundleOutBytesNetto")
    rows = bundle_rows(gateway, peer)
    return {column: sum(int(row.get(column, 0)) for row in rows) for column in columns}


def bundle_disagreement(gateway: Gateway, peer: int) -> str:
    """'' when the bundle counters of a peer are those of its SAs in the kernel (nothing has been rekeyed yet)."""
    remote = next((site.outer for site in SITES.values() if gateway.connected(site)), "")
    if not remote:
        return "no SA"
    states = gateway.states()
    incoming = [each for each in states if each.source == remote]
    outgoing = [each for each in states if each.destination == remote]
    kernel = {
        "ipsecBundleInPkt": sum(each.packets for each in incoming),
        "ipsecBundleInBytesNetto": sum(each.bytes for each in incoming),
        "ipsecBundleOutPkt": sum(each.packets for each in outgoing),
        "ipsecBundleOutBytesNetto": sum(each.bytes for each in outgoing),
    }
    table = counted(gateway, peer)
    if not all(kernel.values()):
        return f"the kernel counted {kernel}"
    return "" if table == kernel else f"table {table}, kernel {kernel}"


EXPLAIN = """
import json, sys
from agent.cli import app
for source, destination, protocol, sport, dport in json.loads(sys.argv[1]):
    app(["explain", "--src", source, "--dst", destination, "--proto", protocol, "--sport", str(sport),
         "--dport", str(dport), "--forwarded", "--backend", "linux", "--state", sys.argv[2]], standalone_mode=False)
    print("END", flush=True)
"""


def explained(gateway: Gateway, flows: Sequence[Flow]) -> list[str]:
    """What `ipsec-agent explain` says of forwarded packets; one process for all, because starting one takes seconds."""
    output = run(gateway.name, [sys.executable, "-c", EXPLAIN, json.dumps(flows), str(gateway.state)])
    return [" ".join(answer.split()) for answer in output.split("END\n")[: len(flows)]]
