"""Field rules of virtual interfaces, selectors, addresses and backup peers: what is refused, and what is accepted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.mib.ber import Value
from agent.plan.capabilities import CHARON
from agent.plan.check import RuleError, check_rules
from agent.plan.model import Capabilities
from tests.plan_helpers import DictConfiguration, configuration, packed

RULE = "protect 10.1.0.0/16 10.2.0.0/16"
SELECTORS, ADDRESSES, ROUTES, PEERS = (
    *("ipsecPeerTrafficTable", "ipsecGwPeerAddressTable", "ipsecGwPeerRouteTable", "ipsecPeerTable"),
)
NEW = {"ipsecPeerTrafficIfindex": 100_007, "ipsecPeerTrafficProtocol": 256}
BACKED: dict[str, Value] = {"ipsecPeerStartMode": 2, "ipsecPeerIfStateMode": 2}


def judge(
    before: DictConfiguration, table: str, number: int, cells: dict[str, Value], capabilities: Capabilities = CHARON
) -> str:
    """What is said against a SET of these cells; '' when nothing."""
    after, changes = before.edited((table, number, cells))
    named = [(table, number, column, value) for column, value in cells.items()]
    try:
        check_rules(before, after, changes, named, capabilities)
    except RuleError as error:
        return f"{named[error.position][2]}: {error.text}"
    return ""


def world(version: int = 1) -> DictConfiguration:
    return configuration({7: [RULE], 9: [RULE]}, peers={7: {"ipsecPeerIkeVersion": version}})


def selector(version: int, **cells: Value) -> str:
    return judge(world(version), SELECTORS, 1, {**NEW, **{f"ipsecPeerTraffic{k}": v for k, v in cells.items()}})


def test_selectors_that_fit_are_taken() -> None:
    assert selector(1) == ""
    net: dict[str, Value] = {"LocalAddress": packed("10.1.0.0"), "LocalMask": packed("255.255.0.0")}
    assert selector(1, **net, Protocol=6, LocalPort=80) == ""
    six: dict[str, Value] = {"Ip6LocalAddress": packed("2001:db8::"), "Ip6LocalMaskLen": 32}
    assert selector(2, **net, **six, Type=1, Protocol=17, LocalPort=80, LocalPortRange=4) == ""


@pytest.mark.parametrize(
    ("version", "cells", "says"),
    [
        (1, {"Ifindex": 100_008}, "no such peer"),
        (1, {"LocalMask": packed("255.0.255.0")}, "no holes"),
        (1, {"LocalAddress": packed("10.0.0.0")}, "mask 0"),
        (1, {"RemoteAddress": packed("10.0.0.9"), "RemoteMask": packed("255.0.0.0")}, "host bits"),
        (1, {"Protocol": 255}, "256 for any"),
        (1, {"Protocol": 1, "LocalPort": 5}, "ports go with"),
        (2, {"Protocol": 6, "LocalPort": 65535, "LocalPortRange": 2}, "accepted: ipsecPeerTrafficLocalPortRange 1..1"),
        (1, {"Protocol": 6, "RemotePort": 80, "RemotePortRange": 2}, "IKEv1 carries one port"),
        (1, {"Type": 1}, "IKEv1 carries one pair"),
        (1, {"Ip6LocalMaskLen": 32, "Ip6LocalAddress": packed("2001:db8::")}, "IKEv1 carries one pair"),
        (2, {"Ip6LocalMaskLen": 32, "Ip6LocalAddress": packed("2001:db8::1")}, "host bits"),
        (2, {"Ip6LocalAddress": packed("2001:db8::")}, "prefix 0"),
        (1, {"Policy": 5}, "role-initiator(2)"),
    ],
)
def test_selectors_that_do_not_fit_are_refused(version: int, cells: dict[str, Value], says: str) -> None:
    assert says in selector(version, **cells)


@pytest.mark.parametrize(
    ("table", "cells", "says"),
    [
        (ADDRESSES, {"Address": packed("10.0.0.1"), "PrefixLength": 33}, "0..32"),
        (ADDRESSES, {"Address": packed("10.0.0.1"), "Remote": packed("::1")}, "one family"),
        (ADDRESSES, {"Address": packed("2001:db8::1"), "PrefixLength": 64}, ""),
        (ROUTES, {"Destination": packed("10.0.0.1"), "PrefixLength": 8}, "host bits"),
        (ROUTES, {"Destination": b"", "PrefixLength": 0}, ""),
        (ROUTES, {"Destination": packed("2001:db8::"), "PrefixLength": 32}, ""),
    ],
)
def test_addresses_and_routes(table: str, cells: dict[str, Value], says: str) -> None:
    prefix = table.removesuffix("Table")
    said = judge(world(), table, 1, {f"{prefix}Peer": 7, **{f"{prefix}{name}": v for name, v in cells.items()}})
    assert says in said and bool(says) == bool(said)


def test_a_backup_peer_needs_always_up_and_reduced() -> None:
    """SET of all three at once is fine; taking one away again is not."""
    assert "always-up(2)" in judge(world(), PEERS, 7, {"ipsecPeerSecondaryPeerIndex": 9})
    assert judge(world(), PEERS, 7, {"ipsecPeerSecondaryPeerIndex": 9, **BACKED}) == ""
    backed, _ = world().edited((PEERS, 7, {"ipsecPeerSecondaryPeerIndex": 9, **BACKED}))
    assert judge(backed, PEERS, 7, {"ipsecPeerStartMode": 1}).startswith("ipsecPeerStartMode: a backup peer needs")
    assert judge(backed, PEERS, 7, {"ipsecPeerIfStateMode": 1}).startswith("ipsecPeerIfStateMode")
    assert judge(backed, PEERS, 7, {"ipsecPeerIfStateMode": 1, "ipsecPeerSecondaryPeerIndex": 0}) == ""


@pytest.mark.parametrize(("backup", "says"), [(7, "a ring"), (9, "a ring"), (8, "no such peer"), (0, "")])
def test_backup_peers_are_no_ring(backup: int, says: str) -> None:
    nine, _ = world().edited((PEERS, 9, {"ipsecPeerSecondaryPeerIndex": 7, **BACKED}))
    said = judge(nine, PEERS, 7, {"ipsecPeerSecondaryPeerIndex": backup, **BACKED})
    assert says in said and bool(says) == bool(said)


def test_spoofed_packets_need_nftables() -> None:
    lacking = replace(CHARON, nftables=False, nftables_lack="there is no nft command")
    group = "ipsecGlobalsContinued"
    assert judge(world(), group, 0, {"ipsecGlobContPrivateInterface": 3}) == ""
    assert "no nft command" in judge(world(), group, 0, {"ipsecGlobContPrivateInterface": 3}, lacking)
    assert judge(world(), group, 0, {"ipsecGlobContPrivateInterface": -5}, lacking) == ""


def test_settings_of_the_host_have_bounds() -> None:
    assert "0 for ever" in judge(world(), "ipsecGlobalsContinued", 0, {"ipsecGlobContDefaultPmtuTtl": -1})
    assert "4096" in judge(world(), "ipsecTuning", 0, {"ipsecTuneIPFragMaxBytes": 100})
