"""What a refused SET answers, and what keeps a store from opening."""

from __future__ import annotations

import enum


class ErrorStatus(enum.IntEnum):
    """error-status of a response, RFC 3416 section 3."""

    NO_ERROR = 0
    TOO_BIG = 1
    NO_SUCH_NAME = 2
    BAD_VALUE = 3
    READ_ONLY = 4
    GEN_ERR = 5
    NO_ACCESS = 6
    WRONG_TYPE = 7
    WRONG_LENGTH = 8
    WRONG_ENCODING = 9
    WRONG_VALUE = 10
    NO_CREATION = 11
    INCONSISTENT_VALUE = 12
    RESOURCE_UNAVAILABLE = 13
    COMMIT_FAILED = 14
    UNDO_FAILED = 15
    AUTHORIZATION_ERROR = 16
    NOT_WRITABLE = 17
    INCONSISTENT_NAME = 18


class Refused(Exception):
    """A SET that left no trace. `edit`: position of the varbind to blame, from 0, -1 for none of them (error-index
    is one more). `text`: `object.instance = value: why; accepted: …`, secrets masked."""

    def __init__(self, status: ErrorStatus, edit: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.edit = edit
        self.text = text


class StoreError(Exception):
    """The store cannot be opened or written; the text says what to do."""


class StoreLocked(StoreError):
    """Another agent runs on this state folder."""


class SecretsError(StoreError):
    """The key file is missing or not the one the secrets were sealed with."""


class StoreDamaged(StoreError):
    """The database holds something else than was written into it."""


class StoreMissing(StoreError):
    """Nothing has been stored yet at this place."""
