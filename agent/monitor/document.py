"""docs/peer-states.md, drawn from the table of states.

python -m agent.monitor.document > docs/peer-states.md
"""

from __future__ import annotations

from typing import Final

from agent.monitor.states import TRANSITIONS, Happening, Oper, label

HEAD: Final = """\
# States of a peer

ipsecPeerStatOperStatus shows the state of each peer, ipsecPeerStatTtl how many seconds it can last at most (0: no
bound).
A peer is told of by an event and a notification when it comes up, goes down or is blocked, each with the description of
the peer and the reason; every other change is an event of severity debug. This page is written by
`python -m agent.monitor.document > docs/peer-states.md` from the table that the agent goes by.

"""


def document() -> str:
    """The table as Markdown: a picture, and below it a line per state and a column per happening."""
    return f"{HEAD}{diagram()}\n{table()}"


def diagram() -> str:
    """The table as a Mermaid state diagram; happenings that lead the same way share an arrow."""
    arrows: dict[tuple[Oper, Oper], list[str]] = {}
    for (before, happening), follower in TRANSITIONS.items():
        arrows.setdefault((before, follower), []).append(happening.value)
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> down"]
    lines += [f'    state "{label(state)}" as {_identifier(state)}' for state in Oper]
    for (before, follower), words in arrows.items():
        lines.append(f"    {_identifier(before)} --> {_identifier(follower)}: {' / '.join(words)}")
    return "\n".join([*lines, "```"]) + "\n"


def table() -> str:
    happenings = [each for each in Happening if any(key[1] is each for key in TRANSITIONS)]
    rows = [["state", *(each.value for each in happenings)], ["---"] * (len(happenings) + 1)]
    for state in Oper:
        followers = (TRANSITIONS.get((state, each)) for each in happenings)
        rows.append([label(state), *("" if follower is None else label(follower) for follower in followers)])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _identifier(state: Oper) -> str:
    return state.name.lower()


if __name__ == "__main__":
    print(document(), end="")
