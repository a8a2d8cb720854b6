"""One agent per network namespace: two would take each other's policies for strays, and fight over them for ever.

A name in the abstract socket space belongs to one network namespace, like the policies, and
goes with the process that holds it, however that ends.
"""

from __future__ import annotations

import socket
from typing import Final

from agent.backends.engine import EngineError

NAME: Final = "\0ipsec-agent"


class Sole:
    """Held until `release`. Raises EngineError where another process holds it."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._socket.bind(NAME)
        except OSError:
            self._socket.close()
            raise EngineError(
                "another agent makes policies in this network namespace; stop it, or use another namespace"
            ) from None

    def release(self) -> None:
        self._socket.close()
