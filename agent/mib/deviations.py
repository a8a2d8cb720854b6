"""Where this agent takes other values than the published modules say, and why.

Everything else is as published, which tests/test_mib_facts.py shows; it takes these from
here, and so does docs/objects.md.
"""

from typing import Final

NOT_SET_LABEL: Final = "the enumeration has no value for what is not set, and the object no DEFVAL: unset(0) is added"
NOT_SET_SIZE: Final = "40..448 has no value for what is not set, and the object no DEFVAL: 0 is added"
GUIDE: Final = "512..4096, the sizes that the user guide names"

BOUNDS: Final[dict[str, str]] = {
    "ikePrfGroup": "1..16 has no value for what the proposals say, and the object no DEFVAL: 0 is added",
    **{f"ipsecPropBlowfishKeySize{end}": NOT_SET_SIZE for end in ("", "Min", "Max")},
    "xauthUserListName": "1..63 octets have no value for what is not set, and the object no DEFVAL: none are too",
    "radiusSrvPort": "0..65535, since it is a UDP port; 0 is the usual one",
    "ipsecPubKeyKeyLength": GUIDE,
    "certMgmtKeyLength": GUIDE,
}
"""Objects with another range or size."""

LABELS: Final[dict[str, str]] = {
    "ipsecPeerAuthMethod": NOT_SET_LABEL,
    **{f"ipsecProp{cipher}KeySize{end}": NOT_SET_LABEL for cipher in ("Aes", "Twofish") for end in ("", "Min", "Max")},
}
"""Objects with another enumeration."""

IN_GENERAL: Final = (
    "Instances are the number of the row; the published INDEX clauses name settings.",
    "Without DEFVAL the default is 0, empty or 0.0.0.0, or of an enumeration its lowest value.",
    "Secrets that the published modules show are read as `*`.",
    "Three names are in use for other objects now; what they were is called ipsecPeerFormerCaCerts, "
    "ipsecPeerFormerLocalId and ipsecPeerFormerAuthMethod.",
)
"""What is so of many objects."""
