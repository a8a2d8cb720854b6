"""Counters of the host that the kernel shows as text: XFRM's errors, packets of IP, what waits for reassembly.

They are of the network namespace and not of one SA or rule, so everything that IPsec and IP
do there is in them. Sources: proc(5); Documentation/networking/xfrm_proc.rst of the kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Final

RECEIVED, SENT = "InReceives", "OutRequests"
QUEUES, QUEUED_OCTETS = "FragInUse", "FragMemory"
OF_IPV6: Final = {"Ip6InReceives": RECEIVED, "Ip6OutRequests": SENT}


def read_statistics(folder: Path) -> Mapping[str, int]:
    """As agent.backends.engine.Spd.statistics. `folder`: a /proc/net."""
    found: dict[str, int] = {}
    for name, value in _pairs(folder / "xfrm_stat"):
        found[name] = value
    lines = _lines(folder / "snmp")
    for names, values in pairwise(lines):
        if names[:1] == values[:1] == ["Ip:"] and RECEIVED in names:
            told = dict(zip(names[1:], values[1:], strict=False))
            found |= {name: int(told[name]) for name in (RECEIVED, SENT) if name in told}
    for name, value in _pairs(folder / "snmp6"):
        if name in OF_IPV6:
            found[OF_IPV6[name]] = found.get(OF_IPV6[name], 0) + value
    for file, head in (("sockstat", "FRAG:"), ("sockstat6", "FRAG6:")):
        for words in _lines(folder / file):
            if words[0] == head and len(words) == 5:
                found[QUEUES] = found.get(QUEUES, 0) + int(words[2])
                found[QUEUED_OCTETS] = found.get(QUEUED_OCTETS, 0) + int(words[4])
    return found


def _lines(file: Path) -> list[list[str]]:
    """Words of each line; nothing of a file that is not there (no IPv6, no XFRM)."""
    try:
        return [words for line in file.read_text().splitlines() if (words := line.split())]
    except OSError:
        return []


def _pairs(file: Path) -> Iterator[tuple[str, int]]:
    return ((words[0], int(words[1])) for words in _lines(file) if len(words) == 2)
