"""Everything a scenario is given: the gateways, the capture, and the way to say what was seen."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from tests.lab.gateway import Gateway
from tests.lab.registry import report
from tests.lab.topology import SITES
from tests.lab.wire import Capture, Packet, plain, summary


class Hopeless(Exception):
    """Nothing that follows in this boot can be played."""


class World:
    """One boot. `failures` belong to the scenario being played."""

    def __init__(self) -> None:
        self.gateways = {letter: Gateway(site) for letter, site in SITES.items()}
        self.failures: list[str] = []
        self.scenario = ""
        self.foreign: set[str] = set()  # policies of somebody else at gwa

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

    def eventually(self, seen: Callable[[], object], sentence: str, seconds: float = 15, pause: float = 0.3) -> bool:
        """Like check, for something that takes a while: `seen` gives '' (or another empty thing) once it holds."""
        end = time.monotonic() + seconds
        while True:
            missing = seen()
            if not missing or time.monotonic() > end:
                return self.check(not missing, sentence, missing or "")
            time.sleep(pause)

    def becomes(self, read: Callable[[], object], wanted: object, sentence: str, seconds: float = 15) -> bool:
        """Until what is read equals `wanted`. Tables, daemons and captures are a moment behind what was done, and the
        far end another; only what must hold at once is for `check`."""

        def differs() -> str:
            found = read()
            return "" if found == wanted else f"{found}, not {wanted}"

        return self.eventually(differs, sentence, seconds)

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
