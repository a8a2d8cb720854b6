"""What can go wrong between a manager and an agent; every text is for the person who asked."""

from __future__ import annotations

from agent.store.errors import ErrorStatus

Oid = tuple[int, ...]


class SnmpError(Exception):
    """A request that came to nothing; the text says why."""


class CredentialsError(SnmpError):
    """Community, user or keys are missing or make no sense, before anything was sent."""


class UnknownName(SnmpError):
    """A name that is no object of the schema, or a value that its object does not accept."""


class NoAnswer(SnmpError):
    """Nothing came back in time, after all retries."""


class Reported(SnmpError):
    """The agent sent a report instead of an answer (RFC 3414 section 3.2, RFC 3412 section 7.1). `oid` is that of
    the counter it named."""

    def __init__(self, text: str, oid: Oid) -> None:
        super().__init__(text)
        self.oid = oid


class RequestFailed(SnmpError):
    """An answer with an error status. `index` counts varbinds from 1, 0 = none of them; `oid` and `name` are those
    of the varbind, empty where there is none."""

    def __init__(self, status: int, index: int, oid: Oid = (), name: str = "") -> None:
        word = status_word(status)
        super().__init__(f"{word}: {name}" if name else word)
        self.status = status
        self.index = index
        self.oid = oid
        self.name = name


def status_word(status: int) -> str:
    """`inconsistentValue` for 12: error-status as RFC 3416 writes it."""
    try:
        first, *rest = ErrorStatus(status).name.lower().split("_")
    except ValueError:
        return f"error status {status}"
    return first + "".join(map(str.title, rest))
