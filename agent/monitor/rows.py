"""What the columns of ipsecPeerStatTable, ikeSaTable and ipsecBundleTable say: plain functions from SAs to values.

Columns that are not named keep their default. An IPv6 address cannot be shown by these
tables and reads 0.0.0.0. The legacy columns of a peer's row show what its settings came to
(as its connection for charon has them), where charon has such a setting at all.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from agent.mib.ber import Value
from agent.monitor.algorithms import GROUPS, IKE_CIPHERS, IKE_HASHES, IKE_PRFS, PROPOSAL_GROUPS
from agent.monitor.counters import Tally, Traffic
from agent.monitor.sas import ENDING, STANDING, Bundle, IkeRow
from agent.monitor.states import Oper
from agent.plan import numbers
from agent.plan.daemon import NAT_T_PORT
from agent.plan.lifetimes import volume_of
from agent.plan.model import Connection, Fine, ViciValue
from agent.plan.negotiated import NONE, selector
from agent.plan.phase2 import Granularity

Values = dict[str, Value]

ISAKMP_ESTABLISHED: Final = frozenset({"ESTABLISHED", "REKEYING", "REKEYED"})
NEGOTIATED: Final = frozenset({"CREATED", "ROUTED", "INSTALLING", "REKEYING", "RETRYING"})  # states of a child
KILO: Final = 1000
NAT: Final[Mapping[tuple[bool, bool], int]] = {  # ipsecPeerStatNatDetect by (we, the peer) behind NAT
    (True, False): 1,
    (False, True): 2,
    (True, True): 3,
    (False, False): 4,
}
NAT_UNKNOWN: Final = 8
AUTHENTICATION: Final[Mapping[str, int]] = {"psk": 1, "pubkey": 3}
UNKNOWN: Final = 0
ANY_NAME: Final = "%any"  # charon's word for an identity that it does not know yet
TICKS: Final = 100  # TimeTicks are hundredths of a second


class Now(NamedTuple):
    """One moment: seconds since 1970, of the monotonic clock, and when the agent started on the latter."""

    wall: float
    clock: float
    started: float

    def seconds(self, clock: float) -> int:
        """A moment of the clock in seconds since 1970."""
        return int(self.wall - (self.clock - clock))

    def ticks(self, clock: float) -> int:
        """A moment of the clock as sysUpTime."""
        return max(0, int((clock - self.started) * TICKS)) & 0xFFFFFFFF


def ike_state(state: str) -> int:
    """ikeSaState: negotiating 1, established 2, waiting-for-remove 3."""
    if state in ISAKMP_ESTABLISHED:
        return 2
    return 3 if state in ENDING else 1


def bundle_state(state: str) -> int:
    """ipsecBundleState: established 1, expired 2, negotiating 4, rekeyed 5."""
    if state in STANDING:
        return 1
    if state == "REKEYED":
        return 5
    return 2 if state in ENDING else 4


def ike_row(row: IkeRow, connection: Connection | None, octets: int, now: Now) -> Values:
    """A row of ikeSaTable. `octets`: IKE messages of it as far as they are counted. What is still being negotiated,
    and what the vendor's enumeration has no number for, reads 0, as in ikev2SaTable."""
    sa = row.sa
    settings: Mapping[str, ViciValue] = connection.settings if connection is not None else {}
    values: Values = {
        "ikeSaIndex": row.number,
        "ikeSaState": ike_state(sa.state),
        "ikeSaBytes": octets & 0x7FFFFFFF,
        "ikeSaXauthUser": label_text(sa.xauth_user),
        "ikeSaXchType": 4 if settings.get("aggressive") == "yes" else 2,
        "ikeSaAuthMethod": authentication(settings) or 1,
        "ikeSaRole": 1 if sa.initiator else 2,
        "ikeSaLocalId": name_text(sa.local_id),
        "ikeSaRemoteId": name_text(sa.remote_id),
        "ikeSaLocalIp": ipv4(sa.local),
        "ikeSaRemoteIp": ipv4(sa.remote),
        "ikeSaCookieI": sa.initiator_spi,
        "ikeSaCookieR": sa.responder_spi,
        "ikeSaNumNegotiations": sum(child.state in NEGOTIATED for child in sa.children),
        "ikeSaMajVersion": sa.version,
        "ikeSaPeerIndex": row.peer,
        "ikeSaHeartbeatsEnabled": 4,
        "ikeSaCreated": date(now.seconds(row.created)),
        "ikeSaLastUsed": date(now.seconds(row.used)),
        "ikeSaExpires": date(expires(sa.reauth_in, sa.rekey_in, settings, now)),
        "ikeSaLocalPort": sa.local_port,
        "ikeSaRemotePort": sa.remote_port,
    }
    for column, found in (
        ("ikeSaEncAlg", IKE_CIPHERS.get(sa.encryption)),
        ("ikeSaHashAlg", IKE_HASHES.get(sa.integrity)),
        ("ikeSaPrfAlg", IKE_PRFS.get(sa.prf)),
        ("ikeSaGroup", GROUPS.get(sa.group)),
    ):
        values[column] = found or UNKNOWN
    return values


def name_text(name: str) -> bytes:
    """An identity; empty as long as the peer has not said who it is."""
    return b"" if name == ANY_NAME else label_text(name)


def expires(reauth_in: int, rekey_in: int, settings: Mapping[str, ViciValue], now: Now) -> int:
    """Seconds since 1970 when an IKE SA ends unless renewed; 0 for never."""
    renewed = min((each for each in (reauth_in, rekey_in) if each > 0), default=0)
    return int(now.wall) + renewed + seconds(settings.get("over_time")) if renewed else 0


def bundle_row(bundle: Bundle, connection: Connection | None, now: Now) -> Values:
    """A row of ipsecBundleTable. Netto: octets of the inner packets, as the kernel's SA counts them (in transport mode
    without their IP header). The other: with IP, UDP and ESP headers, padding and check value (algorithms.Overhead)."""
    child, ike = bundle.child, bundle.ike
    settings = child_settings(connection, child.name)
    local, remote = selector(child.local_selectors), selector(child.remote_selectors)
    values: Values = {
        "ipsecBundleIndex": bundle.number,
        "ipsecBundlePeerIndex": bundle.peer,
        "ipsecBundleTrafficIndex": 0 if "if_id_in" in settings else bundle.rule,  # of a virtual interface: no rule
        "ipsecBundleState": bundle_state(child.state),
        "ipsecBundleNumSas": sum(any(spi) for spi in (child.spi_in, child.spi_out)) * (2 if child.ipcomp else 1),
        "ipsecBundleRole": 1 if ike.initiator else 2,
        "ipsecBundleLastStateChange": now.ticks(bundle.changed),
        "ipsecBundleCreator": 2,
        "ipsecBundleTunnelLocal": ipv4(ike.local),
        "ipsecBundleTunnelRemote": ipv4(ike.remote),
        "ipsecBundlePmtuDiscovery": 1 if settings.get("copy_df") == "no" else 2,
        "ipsecBundleHeartbeatsEnabled": 1,
        "ipsecBundleVerifyPad": 1,
        "ipsecBundleKeepAlive": 1 if settings and "inactivity" not in settings else 2,
        "ipsecBundleLifeSeconds": seconds(settings.get("life_time")),
        "ipsecBundleLifeKBytes": volume_of(seconds(settings.get("life_bytes")), seconds(settings.get("life_time"))),
        "ipsecBundleRekeySeconds": seconds(settings.get("rekey_time")),
        "ipsecBundleRekeyKBytes": seconds(settings.get("rekey_bytes")) // KILO,
        "ipsecBundleProto": local.protocol,
        "ipsecBundleLocalAddress": ipv4(local.address),
        "ipsecBundleLocalMaskLen": local.length,
        "ipsecBundleLocalRange": ipv4(local.last),
        "ipsecBundleLocalPort": local.port,
        "ipsecBundleRemoteAddress": ipv4(remote.address),
        "ipsecBundleRemoteMaskLen": remote.length,
        "ipsecBundleRemoteRange": ipv4(remote.last),
        "ipsecBundleRemotePort": remote.port,
        "ipsecBundleNatT": 1 if child.encap else 2,
        "ipsecBundleIkeMajVersion": ike.version,
        "ipsecBundleIpVersion": 2 if len(local.address) == 16 else 1,
    }
    for way, tally in (("In", bundle.traffic.incoming), ("Out", bundle.traffic.outgoing)):
        values[f"ipsecBundle{way}Pkt"] = tally.packets
        values[f"ipsecBundle{way}Bytes"] = tally.wire
        values[f"ipsecBundle{way}BytesNetto"] = tally.octets
    return values


def peer_row(
    peer: int,
    state: Oper,
    time_left: int,
    address: bytes,
    connection: Connection | None,
    ikes: Sequence[IkeRow],
    bundles: Sequence[Bundle],
    total: Traffic | None,
    now: Now,
) -> Values:
    """A row of ipsecPeerStatTable. `address`: the peer's configured one, empty when it is a name or unknown."""
    values: Values = {
        "ipsecPeerStatIndex": peer,
        "ipsecPeerStatOperStatus": int(state),
        "ipsecPeerStatTtl": time_left,
        "ipsecPeerStatPeerAddress": ipv4(address),
        "ipsecPeerStatNatDetect": NAT_UNKNOWN,
    }
    if connection is not None:
        values |= _legacy(connection)
    for names, versions in (("P1", 1), ("IkeSas", 2)):
        states = [ike_state(row.sa.state) for row in ikes if row.sa.version == versions]
        if states:
            values[f"ipsecPeerStatNum{names}"] = len(states)
            values[f"ipsecPeerStatNum{names}Negotiating"] = states.count(1)
            values[f"ipsecPeerStatNum{names}Established"] = states.count(2)
            values[f"ipsecPeerStatNum{names}Deleted"] = states.count(3)
    if bundles:
        found = [bundle_state(bundle.child.state) for bundle in bundles]
        values["ipsecPeerStatNumBundles"] = len(found)
        values["ipsecPeerStatNumBundlesNegotiating"] = found.count(4)
        values["ipsecPeerStatNumBundlesEstablished"] = found.count(1)
    newest = max((row for row in ikes if ike_state(row.sa.state) == 2), key=lambda row: row.number, default=None)
    if newest is not None:
        sa = newest.sa
        values["ipsecPeerStatCurrentLocalAddress"] = ipv4(sa.local)
        values["ipsecPeerStatCurrentRemoteAddress"] = ipv4(sa.remote)
        values["ipsecPeerStatNatDetect"] = NAT[sa.nat_local, sa.nat_remote]
        if sa.local_port == NAT_T_PORT:
            values["ipsecPeerStatNatTLocalPort"] = sa.local_port
            values["ipsecPeerStatNatTRemotePort"] = sa.remote_port
        if connection is not None and seconds(connection.settings.get("dpd_delay")):
            values["ipsecPeerStatDPD"] = 3 if sa.version == 1 else 4
    elif connection is not None:
        values["ipsecPeerStatCurrentRemoteAddress"] = _configured(connection)
    if total is not None and bundles:
        values["ipsecPeerStatRxIdle"] = _idle(total.incoming, bundles, now)
        values["ipsecPeerStatTxIdle"] = _idle(total.outgoing, bundles, now)
    return values


def _legacy(connection: Connection) -> Values:
    """Settings that older releases had in the peer's own row, as they came out."""
    settings = connection.settings
    values: Values = {
        "ipsecPeerStatPh1Mode": 2 if settings.get("aggressive") == "yes" else 1,
        "ipsecPeerStatAuthMethod": authentication(settings) or 14,
        "ipsecPeerStatIkeGroup": _group(settings.get("proposals")),
        "ipsecPeerStatPfsGroup": -1,
    }
    local = settings.get("local")
    if isinstance(local, Mapping) and isinstance(local.get("id"), str):
        values["ipsecPeerStatLocalId"] = label_text(str(local["id"]))
    for child in connection.children[:1]:
        own = child_settings(connection, child.name)
        values["ipsecPeerStatPfsGroup"] = _group(own.get("esp_proposals")) or -1
        values["ipsecPeerStatKeepAlive"] = 2 if "inactivity" in own else 1
        values["ipsecPeerStatGranularity"] = _granularity(child.fine)
        values["ipsecPeerStatNoPmtuDiscovery"] = 1 if own.get("copy_df") == "no" else 2
    return values


def _granularity(split: Fine | None) -> int:
    """local-services has no number there, and is coarse for all but this host."""
    if split is None or split.granularity == Granularity.LOCAL_SERVICES:
        return Granularity.COARSE
    return split.granularity


def child_settings(connection: Connection | None, child: str) -> Mapping[str, ViciValue]:
    children = connection.settings.get("children") if connection is not None else None
    found = children.get(numbers.rule_child(child)) if isinstance(children, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def seconds(value: ViciValue | None) -> int:
    """A number of charon's configuration: `900`, `900s`; 0 when there is none."""
    digits = re.match(r"\d+", value) if isinstance(value, str) else None
    return int(digits[0]) if digits is not None else 0


def _group(proposals: ViciValue | None) -> int:
    """Group of the first proposal that names one, else 0."""
    for proposal in proposals if isinstance(proposals, list) else ():
        for word in proposal.split("-"):
            if word in PROPOSAL_GROUPS:
                return PROPOSAL_GROUPS[word]
    return 0


def authentication(settings: Mapping[str, ViciValue]) -> int:
    local = settings.get("local")
    method = local.get("auth") if isinstance(local, Mapping) else None
    return AUTHENTICATION.get(method, 0) if isinstance(method, str) else 0


def _configured(connection: Connection) -> bytes:
    """The address that would be called."""
    remote = connection.settings.get("remote_addrs")
    try:
        return ipv4(ipaddress.ip_address(remote[0]).packed) if isinstance(remote, list) and remote else NONE
    except ValueError:
        return NONE


def _idle(tally: Tally, bundles: Sequence[Bundle], now: Now) -> int:
    """TimeTicks since something went that way, or since the tunnel came up."""
    begun = min(bundle.changed for bundle in bundles)
    return max(0, int((now.clock - max(tally.moved, begun)) * TICKS)) & 0xFFFFFFFF


def ipv4(address: bytes) -> bytes:
    return address if len(address) == 4 else NONE


def label_text(text: str) -> bytes:
    return text.encode()[:255]


def date(moment: int) -> int:
    """Seconds since 1970 in four octets of two's complement, as all of the MIB's dates."""
    return (moment & 0xFFFFFFFF) - (1 << 32) if moment & 0x80000000 else moment & 0x7FFFFFFF
