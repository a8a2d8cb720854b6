"""One agent per state folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Final

from agent.store.errors import StoreError, StoreLocked
from agent.store.secrets import sync_folder

LOCK_FILE: Final = "store.lock"


class StoreLock:
    """Holds the lock until `release`, or until the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        """Raises StoreLocked where another process holds it, StoreError where the folder cannot be used."""
        path = folder / LOCK_FILE
        try:
            if not folder.exists():
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                with contextlib.suppress(PermissionError):  # it may be ours to enter and not to list
                    sync_folder(folder.parent)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StoreError(f"the state folder {folder} cannot be used: {error.strerror}") from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            who = f" (process {holder})" if holder else ""
            raise StoreLocked(
                f"another agent{who} runs on the state folder {folder}; stop it, or use another folder"
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
