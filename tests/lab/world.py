"""Everything a scenario is given: the gateways, the capture, and the way to say what was seen."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from tests.lab.gateway import Gateway
from tests.lab.recipes import Cells
from tests.lab.registry import report
from tests.lab.topology import SITES
from tests.lab.wire import Capture, Packet, plain, summary

SECONDS = 30  # a bound is only reached in failure; a busy machine may stand still for some seconds
PENDING = "1"  # an apply state


class Hopeless(Exception):
    """Nothing that follows in this boot can be played."""


class World:
    """One boot. `failures` belong to the scenario being played."""

    def __init__(self) -> None:
        self.gateways = {letter: Gateway(site) for letter, site in SITES.items()}
        self.failures: list[str] = []
        self.scenario = ""
        self.foreign: set[str] = set()  # policies of somebody else at gwa
        self._changes = 0

    @property
    def a(self) -> Gateway:
        return self.gateways["a"]

    @property
    def b(self) -> Gateway:
        return self.gateways["b"]

    @property
    def c(self) -> Gateway:
        return self.gateways["c"]

    def check(self, holds: bool, sentence: str, seen: object = "") -> bool:
        """State one thing; what was seen is told where it does not hold, or where there is something to tell."""
        report("check", scenario=self.scenario, ok=holds, text=sentence, seen=str(seen))
        if not holds:
            self.failures.append(f"{sentence} ({seen})")
        return holds

    def note(self, text: str) -> None:
        report("note", scenario=self.scenario, text=text)

    def eventually(
        self, seen: Callable[[], object], sentence: str, seconds: float = SECONDS, pause: float = 0.3
    ) -> bool:
        """Like check, for something that takes a while: `seen` gives '' (or another empty thing) once it holds. What is
        looked at may be half there or restarting: an error then is only something else that is missing. The last look
        begins when time is up, so that none is missed where the machine stood still in another."""
        end = time.monotonic() + seconds
        while True:
            late = time.monotonic() > end
            try:
                missing = seen()
            except Hopeless:
                raise
            except Exception as error:
                missing = f"{type(error).__name__}: {error}"
            if late or not missing:
                return self.check(not missing, sentence, missing or "")
            time.sleep(pause)

    def becomes(self, read: Callable[[], object], wanted: object, sentence: str, seconds: float = SECONDS) -> bool:
        """Until what is read equals `wanted`. Tables, daemons and captures are a moment behind what was done, and the
        far end another; only what must hold at once is for `check`."""

        def differs() -> str:
            found = read()
            return "" if found == wanted else f"{found}, not {wanted}"

        return self.eventually(differs, sentence, seconds)

    def carry_out(self, cells: Cells, *gateways: Gateway, peer: int = 1) -> None:
        """SET them at these gateways, in this order, and wait until each has made all of it real: loaded into charon,
        and ended what stood with the old settings. Else the next packet may still meet those.

        What is no row has no apply state, and a peer's row does not wait yet when only a profile was written. A new
        description makes it wait."""
        for gateway in gateways:
            self._changes += 1
            gateway.station.set({**cells, f"ipsecPeerDescription.{peer}": f"change {self._changes}"})
        for gateway in gateways:
            self.real(gateway, peer)

    def real(self, gateway: Gateway, peer: int = 1) -> None:
        """Wait until what was written, with the peer's row, is real there or known not to be possible."""

        def pending() -> str:
            state = gateway.station.get(f"ipsecGwPeerApplyState.{peer}")
            return "" if state.isdigit() and state != PENDING else f"apply state {state}"

        self.eventually(pending, f"{gateway.name}: it is carried out", pause=0.1)

    def start(self, letters: Iterable[str]) -> None:
        """Agents of these sites, all at once, until each answers. Raises Hopeless when one does not."""
        gateways = [self.gateways[letter] for letter in letters]
        begun = time.monotonic()
        for gateway in gateways:
            gateway.start()
        for gateway in gateways:
            if not gateway.ready():
                raise Hopeless(f"the agent of {gateway.name} does not answer: {gateway.last_words()}")
        names = " and ".join(each.name for each in gateways)
        self.check(True, f"the agents of {names} answer", f"after {time.monotonic() - begun:.1f} s")

    def check_private(self, packets: list[Packet], *, esp: bool = True) -> bool:
        """Nothing of IPv4 crossed the middle link but IKE and ESP (and with `esp`, some of it)."""
        leaked = plain(packets)
        held = self.check(not leaked, "on the middle link: only ESP and IKE", summary(leaked or packets))
        if esp:
            held &= self.check(any(packet.protocol == 50 for packet in packets), "and there is ESP", summary(packets))
        return held

    @staticmethod
    def capture() -> Capture:
        return Capture()
