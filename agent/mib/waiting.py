"""Why an object does not act yet, in the words of its refusal: a row per group of objects, by the head of the name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

NO_ISDN: Final = "there is no ISDN here, and no callback by SIP yet"
NO_LOGIN: Final = "nobody is asked for a login after phase 1 yet (XAUTH)"
NO_HAND_OUT: Final = "no addresses are handed to peers yet"
NO_RADIUS: Final = "no RADIUS server is asked yet"
NO_KEYS: Final = "keys are not made here yet; they come with a certificate by ipsecGwImportTable"
NO_REQUESTS: Final = "certificates are not requested yet; they come by ipsecGwImportTable"
NO_FETCHING: Final = "no certificates and revocation lists are fetched yet"
NO_EXCHANGE: Final = "no files are exchanged with servers"

WHY: Final[Mapping[str, str]] = MappingProxyType(
    {
        "biboAdmConfig": NO_EXCHANGE,
        "biboAdmConfigObject": "configurations are kept whole",
        "certGlob": NO_FETCHING,
        "certMgmt": NO_REQUESTS,
        "certNoCrls": NO_FETCHING,
        "certRevList": NO_FETCHING,
        "certServer": NO_FETCHING,
        "ipsecDial": NO_ISDN,
        "ipsecGlobContDialBlockTime": NO_ISDN,
        "ipsecGlobContMaxIkev2RdrEntries": "redirects of IKEv2 gateways are followed and not listed yet",
        "ipsecGlobContXauthTimeout": NO_LOGIN,
        "ipsecGwCertMgmt": NO_REQUESTS,
        "ipsecGwImportUrl": NO_FETCHING,
        "ipsecGwPool": NO_HAND_OUT,
        "ipsecInternalSubnet": NO_HAND_OUT,
        "ipsecPeerDynAddr": NO_HAND_OUT,
        "ipsecPeerIsdn": NO_ISDN,
        "ipsecPeerType": "one row serves one peer yet; callers of any address are peers without address",
        "ipsecPeerXauthProfile": NO_LOGIN,
        "ipsecPubKey": NO_KEYS,
        "ipsecRadius": NO_RADIUS,
        "radiusSrv": NO_RADIUS,
        "xauth": NO_LOGIN,
    }
)


def why_waiting(name: str) -> str:
    """`not supported yet`, and why; `name` of the object. The longest head that fits counts."""
    fitting = [head for head in WHY if name.startswith(head)]
    return f"not supported yet: {WHY[max(fitting, key=len)]}" if fitting else "not supported yet"
