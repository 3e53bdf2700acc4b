"""How long the tests of hostile input and long use take, and what they share: a stage for one attack."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from integration._server import Backend, ServerProcess

__all__ = ["SECONDS", "THOROUGH", "Stage"]

THOROUGH = bool(os.environ.get("LHTTP_TEST_THOROUGH"))
"""Whether the full figures are asked for: ``LHTTP_TEST_THOROUGH=1``, or ``tox -e hazards``."""

SECONDS = 10.0 if THOROUGH else 1.0
"""How long an attack goes on."""


@dataclass(frozen=True)
class Stage:
    """
    Where an attack takes place.

    :ivar server: the server attacked.
    :ivar backend: a backend that the server may reach, if it may reach one.
    :ivar end: when the attack is over, in the time of :func:`time.monotonic`.
    """

    server: ServerProcess
    backend: Backend
    end: float

    @property
    def port(self) -> int:
        """The server's port."""
        return self.server.port

    def lasts(self) -> bool:
        """Return whether the attack is to go on."""
        return time.monotonic() < self.end
