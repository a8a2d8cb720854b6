"""Within a namespace: an agent with 10,000 rules on the real kernel, one of them changed again and again."""

from __future__ import annotations

import random
import select
import statistics
import time
from pathlib import Path

from agent.backends.xfrm.netlink import NetlinkSocket
from agent.mib.ber import Wire, encode_integer, encode_tlv
from tests.station import GET, NULL, SET, Agent, Station, instance

RULES = 10_000
ROUNDS = 200
POLICY_GROUP = 4  # XFRMNLGRP_POLICY
SILENCE = 0.2  # seconds without an announcement: this change is done
APPLIED = 2
PATIENCE = 120.0


def measure(state: Path) -> None:
    agent = Agent(state, backend="linux")
    try:
        station = agent.start()
        wait_applied(station, RULES)
        delays, whole, messages = [], [], []
        with NetlinkSocket(groups=(POLICY_GROUP,)) as socket:
            for turn in range(ROUNDS):
                rule = random.randrange(1, RULES)
                address = encode_tlv(Wire.IP_ADDRESS, (0x0B00_0000 + turn * 16384 + rule).to_bytes(4, "big"))
                sent = time.monotonic()
                station.ask(SET, [(instance("ipsecTrRemoteAddress", rule), address)])
                replied = time.monotonic()
                seen, last = 0, 0.0
                while select.select([socket], [], [], SILENCE)[0]:
                    count = sum(1 for _ in socket.receive())
                    seen, last = seen + count, time.monotonic()
                delays.append((last - replied) * 1000)
                whole.append((last - sent) * 1000)
                messages.append(seen)
                wait_applied(station, rule)
        print(
            f"one of {RULES} rules changed: {max(messages)} kernel messages at most (bound 10); reply to last "
            f"announcement median {statistics.median(delays):.1f} ms, "
            f"p90 {statistics.quantiles(delays, n=10)[-1]:.1f} ms (bound 20 ms); SET sent to last announcement median "
            f"{statistics.median(whole):.1f} ms, p99 {statistics.quantiles(whole, n=100)[-1]:.1f} ms"
        )
    finally:
        agent.stop()
        agent.flush()


def wait_applied(station: Station, rule: int) -> None:
    end = time.monotonic() + PATIENCE
    applied = encode_integer(APPLIED)
    while time.monotonic() < end:
        if station.ask(GET, [(instance("ipsecGwTrafficApplyState", rule), NULL)])[0][1] == applied:
            return
        time.sleep(0.05)
    raise RuntimeError(f"rule {rule} is not applied")
