"""Who owns which pre-shared key. The key itself stays sealed here; the backend opens it at the moment of loading."""

from __future__ import annotations

from agent.plan import numbers
from agent.plan.connections import Peer, address_text
from agent.plan.model import Secret


def secret(peer: Peer) -> Secret:
    """The key of a usable peer. It is owned by the identities the peer may have, and, since IKEv1 main mode looks a
    key up before it knows the identity, by its address. Not by our own identity: the daemon would then try this
    key for any peer that has none of its own."""
    owners = dict.fromkeys(peer.identities)
    if peer.remote is not None:
        owners[address_text(peer.remote)] = None
    return Secret(numbers.secret_id(peer.number), peer.number, peer.sealed, tuple(owners))
