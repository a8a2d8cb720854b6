"""strongSwan's charon as our IKE daemon: a private instance, asked over VICI."""

from agent.backends.charon.ike import CharonIke

__all__ = ["CharonIke"]
