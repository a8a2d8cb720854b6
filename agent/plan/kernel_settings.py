"""Settings of the whole host that objects stand for: which of /proc/sys/net gets which value.

An object with its default leaves the host's own value alone; the default of
ipsecTuneIPFragMaxBytes, for one, would shrink a host's 4 MB to 128 kB. So what is written
first is remembered by whoever carries this out, and comes back with the default. Sources:
ipsecGlobContDefaultPmtuTtl, ipsecTuneIPFragMaxBytes, ip-sysctl of the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from agent.plan.model import ConfigurationView

FOREVER: Final = 2_147_483  # seconds; what the kernel can count in jiffies at 1,000 a second
LOW_SHARE: Final = (3, 4)  # fragments are taken again once memory has fallen to this part of the limit


class Setting(NamedTuple):
    """One object: its default, and what it makes of these files below /proc/sys/net, in their order."""

    object: str
    default: int
    files: Mapping[str, Callable[[int], int]]


def _minutes(value: int) -> int:
    return min(value * 60, FOREVER) if value > 0 else FOREVER


def _low(value: int) -> int:
    return value * LOW_SHARE[0] // LOW_SHARE[1]


def _same(value: int) -> int:
    return value


SETTINGS: Final[tuple[Setting, ...]] = (
    Setting(
        "ipsecGlobContDefaultPmtuTtl",
        10,
        MappingProxyType({"ipv4/route/mtu_expires": _minutes, "ipv6/route/mtu_expires": _minutes}),
    ),
    Setting(
        "ipsecTuneIPFragMaxBytes",
        131_072,
        MappingProxyType(
            {
                "ipv4/ipfrag_low_thresh": _low,
                "ipv4/ipfrag_high_thresh": _same,
                "ipv6/ip6frag_low_thresh": _low,
                "ipv6/ip6frag_high_thresh": _same,
            }
        ),
    ),
)
TABLES: Final = frozenset({"ipsecGlobalsContinued", "ipsecTuning"})


def wanted(configuration: ConfigurationView) -> dict[str, int]:
    """Value by file, of the objects that do not have their default."""
    found: dict[str, int] = {}
    for setting in SETTINGS:
        value = configuration.scalar(setting.object)
        if isinstance(value, int) and value != setting.default and value >= 0:
            found |= {file: make(value) for file, make in setting.files.items()}
    return found
