"""Why a negotiation failed, read from charon's log lines."""

from __future__ import annotations

import pytest

from agent.backends.charon.reasons import NO_ANSWER, STOPPED, WRONG_KEY, reason

SENT = "sending packet: from 192.0.2.1[500] to 198.51.100.1[500] (180 bytes)"
RECEIVED = "received packet: from 198.51.100.1[500] to 192.0.2.1[500] (160 bytes)"
ASKED = "generating ID_PROT request 0 [ ID HASH N(INITIAL_CONTACT) ]"
FAILED = "establishing CHILD_SA 'peer-1-rule-1' failed"


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        ([SENT, "giving up after 3 retransmits"], "no answer from the peer after 3 repetitions"),
        ([SENT, SENT], NO_ANSWER),  # ended by us before charon would
        ([SENT, RECEIVED, ASKED, SENT], f"{NO_ANSWER}, {STOPPED}"),
        (
            [SENT, RECEIVED, ASKED, SENT, "giving up after 3 retransmits"],
            f"no answer from the peer after 3 repetitions, {STOPPED}",
        ),
        ([SENT, RECEIVED, "invalid HASH_V1 payload length, decryption failed?"], WRONG_KEY),
        (
            [SENT, RECEIVED, "unable to install inbound and outbound IPsec SA (SAD) in kernel", FAILED],
            "the kernel did not take the SAs: it lacks ESP, AH or one of the algorithms (modprobe esp4)",
        ),
        ([SENT, RECEIVED], FAILED),
        ([], FAILED),
    ],
)
def test_the_weightiest_line_is_the_reason(lines: list[str], wanted: str) -> None:
    assert reason(lines, FAILED) == wanted
