"""The numbers of the whole gateway: ipsecStats, and its packet and error counters in 64 bits, ipsecGwStats64.

All of them count from the start of the agent, whatever the kernel has counted before, so
that they fit each other. Packets come from three places: what SAs carried (counters.py, exact
through rekeys), what XFRM refused (/proc/net/xfrm_stat) and what IP received and sent
(/proc/net/snmp). What is left over passed in plain, so that, as the guide's screen has it,
total = passed + dropped + protected + errors. The kernel counts per host, not per policy:
packets that no rule of ours let through, loopback's too, are among the passed ones. An
INTEGER counter goes on at 0 after 2^31 - 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from agent.backends.statistics import QUEUED_OCTETS, QUEUES, RECEIVED, SENT
from agent.mib.ber import Value
from agent.monitor.rows import bundle_state, ike_state
from agent.monitor.sas import IPCOMP, Made, Registry
from agent.monitor.states import Oper
from agent.plan import numbers

WRAP: Final = 0x7FFFFFFF
ESP, AH = 50, 51
TUNNEL: Final = 1
WIDE: Final = (
    *("InPkt", "InPass", "InDrop", "InDecaps", "InErrors", "OutPkt", "OutPass", "OutDrop", "OutEncaps", "OutErrors"),
    *("InEsp", "InAh", "InIpcomp", "OutEsp", "OutAh", "OutIpcomp"),
    *("DecryptErrors", "AuthErrors", "ReplayErrors", "PolicyErrors", "OtherErrors", "SendErrors", "UnknownSpiErrors"),
)
"""Counters that are there in 64 bits too, without the names' beginnings."""

UNKNOWN_SPI: Final = ("XfrmInNoStates",)
REPLAY: Final = ("XfrmInStateSeqError",)
REFUSED: Final = ("XfrmInStateProtoError",)  # wrong check value or not to be decrypted
POLICY: Final = ("XfrmInStateMismatch", "XfrmInTmplMismatch", "XfrmInNoPols", "XfrmInPolError")
OTHER: Final = (
    *("XfrmInError", "XfrmInBufferError", "XfrmInHdrError", "XfrmInStateModeError", "XfrmInStateExpired"),
    *("XfrmInStateInvalid", "XfrmFwdHdrError", "XfrmAcquireError", "XfrmInStateDirError"),
)
SENDING: Final = (
    *("XfrmOutError", "XfrmOutBundleGenError", "XfrmOutBundleCheckError", "XfrmOutStateProtoError"),
    *("XfrmOutStateModeError", "XfrmOutStateSeqError", "XfrmOutStateExpired", "XfrmOutPolDead", "XfrmOutPolError"),
    *("XfrmOutStateInvalid", "XfrmOutStateDirError"),
)
IN_DROPPED: Final = ("XfrmInPolBlock",)
OUT_DROPPED: Final = ("XfrmOutPolBlock", "XfrmOutNoStates")  # the second: they wait for a tunnel, and do not survive it


class Outcomes(NamedTuple):
    """Negotiations that ended, the failed ones among them, by IKE version and phase."""

    version: int
    phase: int
    failed: bool


class Totals:
    """`note_…` are told of what happens; `values` draws up the tables."""

    def __init__(self, statistics: Mapping[str, int]) -> None:
        self._start = dict(statistics)
        self._shown: dict[str, int] = {}
        self._negotiations: Counter[Outcomes] = Counter()
        self._triggers = 0

    def note_trigger(self, reqid: int) -> None:
        """A packet wanted an SA that was not there."""
        if numbers.is_our_reqid(reqid):
            self._triggers += 1

    def note_negotiation(self, version: int, phase: int, failed: bool) -> None:
        """One ended. `version`: of IKE; `phase`: 1 for the IKE SA, 2 for a child."""
        self._negotiations[Outcomes(version, phase, failed)] += 1

    def values(self, statistics: Mapping[str, int], registry: Registry, states: Mapping[Oper, int]) -> dict[str, int]:
        """Every column of ipsecStats without its beginning, of full width. `states`: how many peers are in each."""
        values = self._packets(statistics, registry)
        values |= self._negotiated()
        values |= _sas(registry)
        values |= {
            "PeersUp": states.get(Oper.UP, 0),
            "PeersBlocked": states.get(Oper.BLOCKED, 0),
            "PeersDormant": states.get(Oper.DORMANT, 0),
            "Trig": self._triggers,
            "FragPkt": statistics.get(QUEUES, 0),
            "FragBytes": statistics.get(QUEUED_OCTETS, 0),
        }
        return values

    def _packets(self, statistics: Mapping[str, int], registry: Registry) -> dict[str, int]:
        def since(names: Iterable[str]) -> int:
            return sum(statistics.get(name, 0) - self._start.get(name, 0) for name in names)

        through = registry.counters.packets
        refused = since(REFUSED)
        forged = min(registry.forged, refused)
        now = {
            "InDecaps": through(protocols=(ESP, AH), incoming=True),
            "OutEncaps": through(protocols=(ESP, AH), incoming=False),
            "InEsp": through(protocols=(ESP,), incoming=True),
            "OutEsp": through(protocols=(ESP,), incoming=False),
            "InAh": through(protocols=(AH,), incoming=True),
            "OutAh": through(protocols=(AH,), incoming=False),
            "InIpcomp": through(protocols=(IPCOMP,), incoming=True),
            "OutIpcomp": through(protocols=(IPCOMP,), incoming=False),
            "InDrop": since(IN_DROPPED),
            "OutDrop": since(OUT_DROPPED),
            "UnknownSpiErrors": since(UNKNOWN_SPI),
            "ReplayErrors": since(REPLAY),
            "AuthErrors": forged,
            "DecryptErrors": refused - forged,
            "PolicyErrors": since(POLICY),
            "OtherErrors": since(OTHER),
            "SendErrors": since(SENDING),
        }
        now["InErrors"] = since((*UNKNOWN_SPI, *REPLAY, *REFUSED, *POLICY, *OTHER))
        now["OutErrors"] = now["SendErrors"]
        self._keep(now)
        # A packet that comes out of a tunnel is received a second time, without its outer header.
        twice = through(protocols=(ESP, AH), incoming=True, modes=(TUNNEL,))
        shown = self._shown
        self._keep(
            {
                "InPass": since((RECEIVED,)) - twice - shown["InDecaps"] - shown["InDrop"] - shown["InErrors"],
                "OutPass": since((SENT,)) - shown["OutEncaps"],
            }
        )
        for way, protected in (("In", "InDecaps"), ("Out", "OutEncaps")):
            shown[f"{way}Pkt"] = shown[f"{way}Pass"] + shown[f"{way}Drop"] + shown[protected] + shown[f"{way}Errors"]
        return dict(shown)

    def _keep(self, now: Mapping[str, int]) -> None:
        """Readings of several files are not of one moment; none of what is made of them goes back for that."""
        for name, value in now.items():
            self._shown[name] = max(value, self._shown.get(name, 0))

    def _negotiated(self) -> dict[str, int]:
        def ended(version: int, phase: int, *outcomes: bool) -> int:
            return sum(self._negotiations[Outcomes(version, phase, failed)] for failed in outcomes)

        return {
            "IkeNumP1": ended(1, 1, True, False),
            "IkeNumFailedP1": ended(1, 1, True),
            "IkeNumQm": ended(1, 2, True, False),
            "IkeNumFailedQm": ended(1, 2, True),
            "Ikev2NumIkeSas": ended(2, 1, True, False),
            "Ikev2NumFailedIkeSas": ended(2, 1, True),
            "Ikev2NumCreateChildSas": ended(2, 2, True, False),
            "Ikev2NumFailedCreateChildSas": ended(2, 2, True),
        }


def _sas(registry: Registry) -> dict[str, int]:
    ikes = Counter(ike_state(row.sa.state) for row in registry.ike.values())
    bundles = Counter(bundle_state(bundle.child.state) for bundle in registry.alive())
    current = Counter(Made(row.key.protocol, row.incoming) for row in registry.sas.values())
    values = {
        "CurrentIkeSas": ikes.total(),
        "CurrentIkeSasNegotiating": ikes[1],
        "CurrentIkeSasEstablished": ikes[2],
        "CurrentIkeSasDeleted": ikes[3],
        "CurrentIpsecSas": len(registry.sas),
        "CurrentBundles": bundles.total(),
        "CurrentBundlesEstablished": bundles[1],
        "CurrentBundlesNegotiating": bundles[4],
    }
    for name, protocol in (("Esp", ESP), ("Ah", AH), ("Ipcomp", IPCOMP)):
        for way, incoming in (("Inbound", True), ("Outbound", False)):
            kind = Made(protocol, incoming)
            values[f"{name}Current{way}"] = current[kind]
            values[f"{name}Total{way}"] = registry.made.get(kind, 0)
    return values


def narrow(values: Mapping[str, int]) -> dict[str, Value]:
    """The row of ipsecStats."""
    return {f"ipsecStats{name}": value & WRAP for name, value in values.items()}


def wide(values: Mapping[str, int]) -> dict[str, Value]:
    """The row of ipsecGwStats64; its discontinuity time stays 0, the start of the agent."""
    return {f"ipsecGwStats64{name}": values[name] for name in WIDE}
