"""What of a peer's states is worth telling: up, down, blocked, and why a negotiation failed.

Up is told when the first tunnel stands, down when the last one went or the peer was taken out
of use while it was up, blocked when a failure keeps it from being tried: these go out as
notifications. Every other change of state is only put down, with its reason, for those who
follow the events.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from typing import Final

from agent.mib.ber import Value
from agent.monitor.states import Happening, Oper, label
from agent.store.events import Event, Kind, Severity

STATUS: Final = "ipsecPeerStatOperStatus"
TTL: Final = "ipsecPeerStatTtl"
REMOTE: Final = "ipsecPeerStatCurrentRemoteAddress"
DESCRIPTION: Final = "ipsecPeerDescription"
REASONS: Final = {
    Happening.TUNNELS_GONE.value: "the last tunnel ended",
    Happening.UNUSABLE.value: "switched off, or its configuration cannot be made real",
    "removed": "the peer was removed",
}
"""Words for happenings that end a tunnel."""


class PeerEvents:
    """A Witness of peers.py. `describe` gives ipsecPeerDescription, `remote` the address of the other side in
    octets, empty where there is none."""

    def __init__(
        self, tell: Callable[[Event], None], describe: Callable[[int], bytes], remote: Callable[[int], bytes]
    ) -> None:
        self._tell, self._describe, self._remote = tell, describe, remote

    def moved(self, peer: int, before: Oper, now: Oper, why: str, seconds: int) -> None:
        if now is Oper.UP:
            remote = self._remote(peer)
            with_whom = f", with {ipaddress.ip_address(remote)}" if remote else ""
            text = f"{self._name(peer)} is up{with_whom}"
            self._say(Kind.PEER_UP, Severity.NOTICE, peer, now, text, {REMOTE: remote} if len(remote) == 4 else {})
        elif now is Oper.BLOCKED:
            text = f"{self._name(peer)} is blocked for {seconds} s: {why}"
            self._say(Kind.PEER_BLOCKED, Severity.WARNING, peer, now, text, {TTL: seconds})
        elif before is Oper.UP:
            text = f"{self._name(peer)} is down: {REASONS.get(why, why)}"
            self._say(Kind.PEER_DOWN, Severity.WARNING, peer, now, text, {})
        elif why != "removed":
            text = f"{self._name(peer)} is {label(now)} after {label(before)}: {REASONS.get(why, why)}"
            self._say(Kind.OTHER, Severity.DEBUG, peer, now, text, {TTL: seconds} if seconds else {})

    def failed(self, peer: int, state: Oper, why: str) -> None:
        text = f"negotiation with {self._name(peer)} failed: {why}"
        self._say(Kind.NEGOTIATION_FAILED, Severity.WARNING, peer, state, text, {})

    def crowded(self, peer: int, rule: int, flows: int) -> None:
        text = (
            f"rule {rule} of {self._name(peer)} has {flows} flows with SAs of their own; those to come share one pair"
        )
        self._tell(Event(Kind.OTHER, Severity.WARNING, text, peer, ("ipsecTrafficTable", rule)))

    def _name(self, peer: int) -> str:
        described = self._describe(peer).decode("utf-8", "replace")
        return f'peer {peer} "{described}"' if described else f"peer {peer}"

    def _say(
        self, kind: Kind, severity: Severity, peer: int, state: Oper, text: str, more: Mapping[str, Value]
    ) -> None:
        values: dict[str, Value] = {DESCRIPTION: self._describe(peer), STATUS: int(state), **more}
        self._tell(Event(kind, severity, text, peer, values=values))
