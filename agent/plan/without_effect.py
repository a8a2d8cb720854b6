"""Objects that nothing on Linux corresponds to: which of their values are refused, and why.

Where an operator would believe in protection or in interoperation that is not there, the
value is refused; everything else is stored, and docs/objects.md says that it changes
nothing. All of them have the mechanism `none` in the traits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from agent.mib.ber import Value
from agent.plan.model import Capabilities

RIPEMD_BIT: Final = 0x80  # bit 0 of ipsecGlobContCompatiblity, a BITS value


def _refuses(number: int, why: str) -> Callable[[Value, Capabilities], str]:
    def problem(value: Value, capabilities: Capabilities) -> str:
        return why if value == number else ""

    return problem


def _ripemd(value: Value, capabilities: Capabilities) -> str:
    if isinstance(value, bytes) and value[:1] and value[0] & RIPEMD_BIT:
        return "bit 0 is about RIPEMD-160, which no engine has; accepted: bit 0 clear"
    return ""


REFUSED: Final[Mapping[str, Callable[[Value, Capabilities], str]]] = MappingProxyType(
    {
        "ipsecGlobNoCrls": _refuses(
            2,
            "the IKE daemon has no way to send revocation lists in IKE; accepted: true(1); publish the list by HTTP"
            " or LDAP",
        ),
        "ipsecGlobContUse32BitCpi": _refuses(
            1, "a CPI has 16 bits on the wire (RFC 3173 3.3), and the IKE daemon sends so many; accepted: false(2)"
        ),
        "ipsecGlobContPathFinder": _refuses(
            1,
            "IKE and ESP in what looks like HTTPS is the vendor's own, and TCP encapsulation (RFC 9329) is not in this"
            " IKE daemon; accepted: disabled(2); ikePrfNatT enforce(4) comes nearest",
        ),
        "ipsecGlobContCompatiblity": _ripemd,
        "ipsecPrfVerifyPad": _refuses(
            2,
            "the kernel always sends self-describing padding and has no switch for that; accepted: true(1), default(3)",
        ),
    }
)
"""What is wrong with a value, by column."""

PADDING: Final = "padding is not verified: the kernel has no such check (ipsecPrfVerifyPad)"
"""The remark of a profile that asks for it."""
