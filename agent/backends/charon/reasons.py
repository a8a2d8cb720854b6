"""Why a negotiation failed, from charon's log lines: a table of what it writes and what that means to an operator.

charon gives no reason in status events; its log does (strongSwan 5.9.8, IKEv1 and IKEv2,
each line seen with the failure it stands for). Rows are in order of weight: the first row
that any line matches is the reason.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple


class Meaning(NamedTuple):
    """`pattern` is searched for in a line; `text` may refer to its groups."""

    pattern: re.Pattern[str]
    text: str


def _meaning(pattern: str, text: str) -> Meaning:
    return Meaning(re.compile(pattern), text)


WRONG_KEY: Final = "the peer did not accept our authentication, or we not its: the pre-shared keys probably differ"

NO_ANSWER: Final = "no answer from the peer"
STOPPED: Final = "which stopped when we authenticated: the pre-shared keys probably differ"

MEANINGS: Final = (
    _meaning(r"no shared key found for '?([^']*)'?", r"no pre-shared key for \1"),
    _meaning(r"no private key found for '([^']*)'", r"no private key for \1"),
    _meaning(
        r"decryption failed\?|could not decrypt payloads|MAC mismatched|calculated HASH does not match", WRONG_KEY
    ),
    _meaning(
        r"constraint check failed: peer not authenticated by CA '([^']*)'",
        r"the peer's certificate is of none of the authorities that it may come from (\1)",
    ),
    _meaning(
        r"no trusted (?:\S+ )?(?:public key|certificate) found for '?([^']*)'?",
        r"no trusted authority has certified \1, or its certificate did not come",
    ),
    _meaning(r"subject certificate invalid \(([^)]*)\)", r"the peer's certificate is not in its time: \1"),
    _meaning(r"received AUTHENTICATION_FAILED", "the peer refused our authentication: keys or identities differ"),
    _meaning(
        r"constraint check failed: identity '([^']*)' required", r"the peer's identity is not \1, which is configured"
    ),
    _meaning(r"IDir '([^']*)' does not match to '([^']*)'", r"the peer calls itself \1, configured is \2"),
    _meaning(
        r"unable to install inbound and outbound IPsec SA",
        "the kernel did not take the SAs: it lacks ESP, AH or one of the algorithms (modprobe esp4)",
    ),
    _meaning(r"received NO_PROPOSAL_CHOSEN", "the peer accepts none of our proposals (NO_PROPOSAL_CHOSEN)"),
    _meaning(r"no acceptable proposal found|received proposals unacceptable", "none of the peer's proposals is ours"),
    _meaning(
        r"received INVALID_ID_INFORMATION|received TS_UNACCEPTABLE",
        "the peer does not accept the addresses of the rule (traffic selectors)",
    ),
    _meaning(
        r"traffic selectors .* unacceptable|no matching CHILD_SA config found",
        "the peer asks for addresses that no rule has (traffic selectors)",
    ),
    _meaning(r"no (?:peer|IKE) config found", "no peer is configured that fits the caller"),
    _meaning(r"received INVALID_KE|received (\S+) error notify", r"the peer answered with an error: \1"),
    _meaning(r"received PAYLOAD_MALFORMED", WRONG_KEY),
    _meaning(r"giving up after (\d+) retransmits", r"no answer from the peer after \1 repetitions"),
    _meaning(r"peer not responding", NO_ANSWER),
    _meaning(r"(?:CHILD_SA|IKE_SA) config '([^']*)' not found", r"\1 is not loaded"),
    _meaning(r"(?:unable to resolve|resolving) (.*) failed", r"the address \1 cannot be resolved"),
)
SENT: Final = re.compile(r"^sending packet|generating \S+ request 0")
RECEIVED: Final = re.compile(r"^received packet|parsed \S+ response 0")
ALREADY_THERE: Final = re.compile(r"due to existing duplicate")
AUTHENTICATING: Final = re.compile(r"generating ID_PROT request 0 \[ ID HASH")
ANSWERED: Final = re.compile(r"parsed ID_PROT response 0 \[ ID HASH")
ENDED: Final = re.compile(
    r"establishing IKE_SA failed|failed to establish CHILD_SA"
    # ended before it was established, by us or for want of time: of that no event tells
    r"|destroying IKE_SA in state (?:CREATED|CONNECTING) without|deleting (?:unestablished|half open) IKE_SA"
)


def reason(lines: Sequence[str], otherwise: str = "") -> str:
    """The text for a row's last error. `otherwise`: what VICI answered, used when no line tells."""
    for meaning in MEANINGS:
        for line in reversed(lines):
            match = meaning.pattern.search(line)
            if match is None:
                continue
            text = match.expand(meaning.text) if match.re.groups and "\\" in meaning.text else meaning.text
            if meaning.text.startswith("no answer") and _stopped_at_authentication(lines):
                # version 1 main mode: a responder that cannot decrypt our identity keeps silent
                return f"{text}, {STOPPED}"
            return text
    if _stopped_at_authentication(lines):
        return f"{NO_ANSWER}, {STOPPED}"
    if any(SENT.search(line) for line in lines) and not any(RECEIVED.search(line) for line in lines):
        return NO_ANSWER
    return otherwise or "the negotiation ended without a reason in charon's log"


def exists_already(lines: Sequence[str]) -> bool:
    """Was the attempt refused because the tunnel is up or coming up?"""
    return any(ALREADY_THERE.search(line) for line in lines)


def _stopped_at_authentication(lines: Sequence[str]) -> bool:
    asked = any(AUTHENTICATING.search(line) for line in lines)
    return asked and not any(ANSWERED.search(line) for line in lines)
