"""Peers, SAs and counters as they are now."""

from agent.monitor.monitor import Monitor

__all__ = ["Monitor"]
