"""Identities of IKE: from the vendor's delimiters to the notation the IKE daemon understands.

`<DN>`, `|address|`, `|first-last|`, `|net/mask|`, `{key id}`, `(user)`, `[domain name]`;
without delimiters an address is an address, a text with @ a user, anything else a domain
name. Source: MIB texts of ikePrfLocalId and ipsecPeerPeerIds, restated in EFFECTS.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from agent.plan.numbers import MOST_PEER_IDS

ANY: Final = "%any"

_CLOSING: Final = {"<": ">", "|": "|", "{": "}", "(": ")", "[": "]"}
_ONE: Final = re.compile(r"<[^>]*>|\|[^|]*\||\{[^}]*\}|\([^)]*\)|\[[^\]]*\]|[^\s,]+")
_FORMS: Final = "accepted: <distinguished name>, |address|, |first-last|, |net/mask|, {key id}, (user), [domain name]"


ATTRIBUTES: Final = (
    *("CN", "OU", "O", "C", "L", "ST", "E", "DC", "UID", "T", "SN", "N", "G", "I", "D", "STREET", "postalCode"),
    *("serialNumber", "dnQualifier", "emailAddress", "employeeNumber", "pseudonym", "unstructuredName"),
)
"""Attribute types of names that the daemon knows (strongSwan 5.9.8, identification.c)."""
_ATTRIBUTES: Final = frozenset(name.casefold() for name in ATTRIBUTES)
_GROUP: Final = re.compile(r"[0-9a-f.:]+[-/][0-9a-f.:]+")  # its prefixes ipv4net: and ipv4range: are not for this form


class IdentityError(ValueError):
    """The text is no identity; says why and what would be one."""


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _ends(text: str) -> list[str]:
    """The addresses in what may be a net or a range."""
    return [text.rpartition("/")[0]] if "/" in text else text.split("-")


def _between_bars(text: str) -> str:
    single = _address(text)
    if single is not None:
        return str(single)
    try:
        if "-" in text:
            first, _, last = text.partition("-")
            low, high = ipaddress.ip_address(first.strip()), ipaddress.ip_address(last.strip())
            if low.version != high.version or int(low) > int(high):
                raise IdentityError(f"the range ends before it begins; {_FORMS}")
            return f"{low}-{high}"
        net = ipaddress.ip_network(text, strict=True)
        return str(net)
    except IdentityError:
        raise
    except ValueError:
        raise IdentityError(f"neither an address nor a range nor a net stands between the bars; {_FORMS}") from None


def _distinguished(inside: str) -> str:
    """The daemon takes a name with an attribute it does not know for a key id, and would wait for that."""
    parts = [part.strip() for part in inside.split(",")]
    for part in parts:
        kind, found, value = part.partition("=")
        if not found or not value.strip():
            raise IdentityError(f"a distinguished name has parts like CN=gateway, not {part!r}; {_FORMS}")
        if kind.strip().casefold() not in _ATTRIBUTES:
            raise IdentityError(f"no attribute of a name: {kind.strip()}; accepted: {', '.join(ATTRIBUTES)}")
    return ", ".join(parts)


def dn_key(text: str) -> tuple[str, ...] | None:
    """The parts of a distinguished name in an order of their own, for comparing; None for another identity. The order
    of parts is written either way round, and the daemon matches both (rdn_matching)."""
    parts = [part.strip() for part in text.split(",")]
    if not all("=" in part for part in parts):
        return None
    pairs = (part.partition("=") for part in parts)
    return tuple(sorted(f"{kind.strip().casefold()}={value.strip().casefold()}" for kind, _, value in pairs))


def is_group(name: str) -> bool:
    """Whether an identity in the daemon's notation is a net or a range, which IKEv2 does not have."""
    return _GROUP.fullmatch(name) is not None


def identity(text: str) -> str:
    """One identity in the daemon's notation. Raises IdentityError."""
    if not text or len(text) > 255:
        raise IdentityError(f"an identity is empty; {_FORMS}")
    closing = _CLOSING.get(text[0])
    if closing is None:
        if _address(text) is not None:
            return str(_address(text))
        if _GROUP.fullmatch(text) and all(_address(part) is not None for part in _ends(text)):
            raise IdentityError(f"a net or range stands between bars, else it would be a name; accepted: |{text}|")
        return f"email:{text}" if "@" in text else f"fqdn:{text}"
    inside = text[1:-1]
    if len(text) < 3 or text[-1] != closing or not inside.strip():
        raise IdentityError(f"{text[0]} is not closed by {closing} around a name; {_FORMS}")
    if text[0] == "<":
        return _distinguished(inside)
    if text[0] == "|":
        return _between_bars(inside.strip())
    return {"{": "keyid:", "(": "email:", "[": "fqdn:"}[text[0]] + inside


def identities(text: str) -> tuple[str, ...]:
    """Alternatives, separated by blanks or commas; () for an empty text. Raises IdentityError."""
    found: list[str] = []
    place = 0
    while place < len(text):
        if text[place] in " \t,":
            place += 1
            continue
        match = _ONE.match(text, place)
        assert match is not None
        name = identity(match[0])
        if name not in found:
            found.append(name)
        place = match.end()
        if place < len(text) and text[place] not in " \t,":
            raise IdentityError(f"something follows {match[0]} without a blank; {_FORMS}")
    if len(found) > MOST_PEER_IDS:
        raise IdentityError(f"each alternative is a connection of its own; accepted: at most {MOST_PEER_IDS}")
    return tuple(found)
