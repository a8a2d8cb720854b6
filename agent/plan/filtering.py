"""What our nftables table is to hold, as plain data: parts of which each belongs to one purpose.

The table is replaced as a whole, so whoever wants a rule in it hands over all it wants as one
`Part` under a name of its own; names of chains, sets and counters begin with the part's
name, so that parts cannot meet. Rules are in nft's own language, made of numbers and
quoted names only. Source: nft(8).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

# Places of base chains on a hook; lower ones run first. Conntrack is at -200, mangle at -150, filter at 0.
PRIORITY_RAW: Final = -300
PRIORITY_MANGLE: Final = -150
PRIORITY_FILTER: Final = 0

NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,60}")


class Chain(NamedTuple):
    """A base chain; its packets go on when no rule decides. `hook`: prerouting, input, forward, output, postrouting.
    `kind`: filter, or route (output only) where a changed mark is to change the route."""

    name: str
    hook: str
    priority: int
    rules: tuple[str, ...]
    kind: str = "filter"


class NamedSet(NamedTuple):
    """A set, in rules `@name`. `of`: `type ipv4_addr`, `typeof ipsec out reqid` …; elements may be ranges and prefixes,
    which may overlap."""

    name: str
    of: str
    elements: tuple[str, ...]


class Part(NamedTuple):
    """All that one purpose has in our table. A counter lives, with its value, until no part wants it any more; in
    rules it is `counter name "…"`."""

    chains: tuple[Chain, ...]
    sets: tuple[NamedSet, ...] = ()
    counters: frozenset[str] = frozenset()

    def names(self) -> Iterable[str]:
        yield from (chain.name for chain in self.chains)
        yield from (named.name for named in self.sets)
        yield from self.counters


def check_names(name: str, part: Part) -> None:
    """Raises ValueError where a name is none of nft's, or not the part's own."""
    for each in part.names():
        if not NAME.fullmatch(each) or not each.startswith(name):
            raise ValueError(
                f"{each!r} of the part {name!r}: a name of small letters, digits and _ that begins with it"
            )


def quoted(text: str) -> str:
    """A string of nft's language, an interface's name for one. Raises ValueError for what it cannot hold."""
    if not text or '"' in text or not text.isprintable() or len(text) > 127:
        raise ValueError(f"{text!r} cannot be written in nft's language")
    return f'"{text}"'


def script(family: str, table: str, parts: Iterable[Part], stale: Iterable[tuple[str, str]]) -> str:
    """nft's input that makes the table hold these parts and nothing else, in one transaction.

    `stale`: (kind, name) of the chains, sets and counters it holds now and must not keep; chains and sets that stay are
    stale too and made anew, counters are not, for their values' sake."""
    where = f"{family} {table}"
    stale = list(stale)
    lines = [f"table {where}", f"flush table {where}"]
    lines += (f"delete {kind} {where} {name}" for kind in ("chain", "set", "counter") for k, name in stale if k == kind)
    lines.append(f"table {where} {{")
    for part in parts:
        lines += (f"counter {name} {{ }}" for name in sorted(part.counters))
        for named in part.sets:
            lines.append(f"set {named.name} {{ {named.of}; flags interval; auto-merge")
            if named.elements:
                lines.append(f"elements = {{ {', '.join(named.elements)} }}")
            lines.append("}")
        for chain in part.chains:
            lines.append(f"chain {chain.name} {{")
            lines.append(f"type {chain.kind} hook {chain.hook} priority {chain.priority}; policy accept")
            lines += chain.rules
            lines.append("}")
    lines.append("}")
    return "\n".join(lines) + "\n"
