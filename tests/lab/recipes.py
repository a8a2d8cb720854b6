"""The configurations of the lab as cells for snmpset: what an operator would write down, one dictionary per thing.

Numbers are row numbers. Every gateway uses proposal and profile rows 1; peers and rules are numbered by the scenario.
"""

from __future__ import annotations

from tests.lab.station import Value
from tests.lab.topology import Site

Cells = dict[str, Value]

KEY = "a secret between two gateways"


def algorithms() -> Cells:
    """AES-256, SHA-256, MODP 2048 in phase 1, AES-256 and SHA-256 in phase 2, as the global profiles."""
    return {
        "ikePropEncAlg.1": "aes-cbc",
        "ikePropEncKeySize.1": 256,
        "ikePropHashAlg.1": "sha2-256",
        "ikePropGroup.1": 14,
        "ikePrfProposal.1": 1,
        "ikePrfAuthMethod.1": "pre-sh-key",
        "ikePrfMode.1": "id-protect",
        "ipsecPropProto.1": "esp",
        "ipsecPropEspAes.1": 1,
        "ipsecPropAesKeySize.1": "aes256",
        "ipsecPropEspSha256.1": 1,
        "ipsecPrfProposal.1": 1,
        "ipsecGlobIkeProfile.0": 1,
        "ipsecGlobIpsecProfile.0": 1,
    }


def lifetimes(*, ike: int, ipsec: int, percent: int, policy: str = "loose") -> Cells:
    """Lifetimes in seconds of the global profiles; rekeying of phase 2 starts at `percent` of them."""
    return {
        "ikePrfLifeSeconds.1": ike,
        "ikePrfLifePolicy.1": "loose",
        "ipsecPrfLifeSeconds.1": ipsec,
        "ipsecPrfLifeRekeyPercent.1": percent,
        "ipsecPrfLifePolicy.1": policy,
    }


def rule(number: int, local: Site, remote: Site, *, following: int = 0, action: str = "protect") -> Cells:
    """A rule of everything between the nets behind two gateways."""
    return {
        f"ipsecTrProto.{number}": "dont-verify",
        f"ipsecTrLocalAddress.{number}": local.net,
        f"ipsecTrLocalMaskLen.{number}": 24,
        f"ipsecTrRemoteAddress.{number}": remote.net,
        f"ipsecTrRemoteMaskLen.{number}": 24,
        f"ipsecTrAction.{number}": action,
        f"ipsecTrNextIndex.{number}": following,
    }


def udp_rule(number: int, local: Site, remote: Site, port: int, action: str, *, following: int = 0) -> Cells:
    """A rule of UDP to one port behind the other gateway."""
    return {
        **rule(number, local, remote, following=following, action=action),
        f"ipsecTrProto.{number}": "udp",
        f"ipsecTrRemotePort.{number}": port,
    }


def peer(number: int, remote: Site, first_rule: int, *, key: str = KEY) -> Cells:
    """A gateway known by its address and a pre-shared key; its rules begin with `first_rule`."""
    return {
        f"ipsecPeerTrafficList.{number}": first_rule,
        f"ipsecPeerDescription.{number}": f"to {remote.gateway}",
        f"ipsecPeerDynamicAddress.{number}": remote.outer,
        f"ipsecPeerPreSharedKey.{number}": key,
    }


def enabled(yes: bool) -> Cells:
    return {"ipsecGlobEnabled.0": "true" if yes else "false"}
