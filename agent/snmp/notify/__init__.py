"""Notifications: what is told to whom, how often, and in which message."""
