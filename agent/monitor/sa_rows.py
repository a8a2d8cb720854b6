"""What the columns of ipsecSaTable, ikev2SaTable and ipsecTrafficSelectorTable say: plain functions from SAs to values.

As in rows.py, columns that are not named keep their default. The tables number algorithms as
the vendor's release did; what came later (combined ciphers, XCBC) has no number there and
reads 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from agent.monitor.algorithms import (
    ESP_AUTHENTICATION,
    ESP_ENCRYPTION,
    GROUPS,
    IKEV2_CIPHERS,
    IKEV2_INTEGRITY,
    IKEV2_PRFS,
    check_key_octets,
    cipher_octets,
)
from agent.monitor.rows import (
    NEGOTIATED,
    Now,
    Values,
    authentication,
    date,
    expires,
    ike_state,
    ipv4,
    name_text,
)
from agent.monitor.sas import ENDING, IPCOMP, PRESENT, Bundle, IkeRow, SaRow
from agent.plan.model import Connection, ViciValue
from agent.plan.negotiated import ANY_PROTOCOL, Shown, selector

INBOUND, OUTBOUND = 1, 2
TUNNEL, TRANSPORT = 1, 2
EXPIRED, NEGOTIATING, ESTABLISHED = 2, 4, 5  # ipsecSaState
NO_CIPHER, NO_CHECK = 1, 2  # ipsecSaEncAlg, ipsecSaAuthAlg
DEFLATE: Final = 3  # ipsecSaCompAlg
HIGHEST_PORT: Final = 65535


def sa_row(row: SaRow) -> Values:
    """A row of ipsecSaTable. Nesting counts from the packet outwards: of a compressed one IPComp is 1 and ESP 2.

    The kernel tells a wrong check value from a replay, and nothing of decryption: ipsecSaDecryptErrors stays 0."""
    child, compression = row.child, row.key.protocol == IPCOMP
    values: Values = {
        "ipsecSaIndex": row.number,
        "ipsecSaState": sa_state(child.state),
        "ipsecSaDir": INBOUND if row.incoming else OUTBOUND,
        "ipsecSaMode": TUNNEL if child.mode else TRANSPORT,
        "ipsecSaSecProto": row.key.protocol,
        "ipsecSaSpi": signed(row.key.spi),
        "ipsecSaAuthAlg": NO_CHECK,
        "ipsecSaEncAlg": NO_CIPHER,
        "ipsecSaCompAlg": DEFLATE if compression else 2,
        "ipsecSaReplayErrors": row.replayed & 0x7FFFFFFF,
        "ipsecSaRecvErrors": row.forged & 0x7FFFFFFF,
        "ipsecSaBundle": row.bundle,
        "ipsecSaBundleNesting": 2 if child.ipcomp and not compression else 1,
        "ipsecSaSpiSize": 2 if compression else 4,
        "ipsecSaIkeMajVersion": row.version,
    }
    if compression:
        return values
    values["ipsecSaAuthAlg"] = ESP_AUTHENTICATION.get(child.integrity, 0)
    values["ipsecSaAuthKeyLen"] = check_key_octets(child.integrity)
    if row.key.protocol == 50:
        values["ipsecSaEncAlg"] = ESP_ENCRYPTION.get(child.encryption, 0)
        values["ipsecSaEncKeyLen"] = cipher_octets(child.encryption, child.encryption_bits)
    values["ipsecSaPfsGroup"] = GROUPS.get(child.group, 0)
    return values


def sa_state(state: str) -> int:
    """ipsecSaState of charon's word for a child."""
    if state in PRESENT:
        return EXPIRED if state == "REKEYED" else ESTABLISHED
    return EXPIRED if state in ENDING else NEGOTIATING


def signed(octets: bytes) -> int:
    """Four octets of two's complement, as the MIB's HexValue has an SPI."""
    return int.from_bytes(octets, "big", signed=True)


def ikev2_row(row: IkeRow, connection: Connection | None, octets: int, now: Now) -> Values:
    """A row of ikev2SaTable. `octets`: IKE messages of it as far as they are counted."""
    sa = row.sa
    settings: Mapping[str, ViciValue] = connection.settings if connection is not None else {}
    return {
        "ikev2SaIndex": row.number,
        "ikev2SaState": ike_state(sa.state),
        "ikev2SaAuthMethod": authentication(settings) or 1,
        "ikev2SaEncAlg": IKEV2_CIPHERS.get(sa.encryption, 0),
        "ikev2SaIntegAlg": IKEV2_INTEGRITY.get(sa.integrity, 0),
        "ikev2SaPrfAlg": IKEV2_PRFS.get(sa.prf, 0),
        "ikev2SaGroup": GROUPS.get(sa.group, 0),
        "ikev2SaRole": 1 if sa.initiator else 2,
        "ikev2SaLocalId": name_text(sa.local_id),
        "ikev2SaRemoteId": name_text(sa.remote_id),
        "ikev2SaLocalIp": ipv4(sa.local),
        "ikev2SaRemoteIp": ipv4(sa.remote),
        "ikev2SaSpiI": sa.initiator_spi,
        "ikev2SaSpiR": sa.responder_spi,
        "ikev2SaCreated": date(now.seconds(row.created)),
        "ikev2SaLastUsed": date(now.seconds(row.used)),
        "ikev2SaExpires": date(expires(sa.reauth_in, sa.rekey_in, settings, now)),
        "ikev2SaRekeys": date(int(now.wall) + sa.rekey_in) if sa.rekey_in > 0 else 0,
        "ikev2SaNumNegotiations": sum(child.state in NEGOTIATED for child in sa.children),
        "ikev2SaBytes": octets & 0x7FFFFFFF,
        "ikev2SaPeerIndex": row.peer,
        "ikev2SaLocalPort": sa.local_port,
        "ikev2SaRemotePort": sa.remote_port,
    }


class Pair(NamedTuple):
    """One traffic selector of ours and one of the peer's: what a row of ipsecTrafficSelectorTable is about."""

    local: str
    remote: str


def pairs(bundle: Bundle) -> Iterator[Pair]:
    """Of a tunnel that carries several nets, every one of ours with every one of the peer's."""
    for local in bundle.child.local_selectors:
        for remote in bundle.child.remote_selectors:
            yield Pair(local, remote)


def selector_row(number: int, bundle: Bundle, pair: Pair) -> Values:
    """A row of ipsecTrafficSelectorTable. Ports are first and last; 0 and 0 stand for any."""
    values: Values = {
        "ipsecTrafficSelectorIndex": number,
        "ipsecTrafficSelectorPeerIndex": bundle.peer,
        "ipsecTrafficSelectorBundleIndex": bundle.number,
    }
    for side, text in (("Local", pair.local), ("Remote", pair.remote)):
        shown = selector([text])
        if shown.protocol != ANY_PROTOCOL:
            values["ipsecTrafficSelectorProto"] = shown.protocol
        values |= _side(f"ipsecTrafficSelector{side}", shown)
        if len(shown.address) == 16:
            values["ipsecTrafficSelectorIpVersion"] = 2
    return values


def _side(prefix: str, shown: Shown) -> Values:
    ipv6 = "Ip6" if len(shown.address) == 16 else ""
    values: Values = {
        f"{prefix}{ipv6}Address": shown.address,
        f"{prefix}MaskLen": shown.length,
        f"{prefix}Port": shown.port,
        f"{prefix}PortRange": shown.last_port,
    }
    if any(shown.last):
        values[f"{prefix}{ipv6}Range"] = shown.last
    return values
