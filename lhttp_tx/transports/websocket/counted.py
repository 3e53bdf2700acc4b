"""
WebSocket connections that count what they do.

:mod:`lhttp_tx.transports.websocket.factory` uses the class in place of the ordinary one if its engine counts.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

from lhttp_tx.observe.counters import Counters
from lhttp_tx.transports.websocket.flow import CONGESTED, FULL, THROTTLED
from lhttp_tx.transports.websocket.protocol import LHTTPServerProtocol

__all__ = ["counted_protocol"]

_REASONS = {THROTTLED: "rate", FULL: "queue", CONGESTED: "unsent"}
"""Why reading is paused, in one word."""

_CODES = frozenset(
    {
        *(1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1010, 1011, 1012, 1013),
        *(4401, 4408, 4409, 4410),
    }
)
"""Close codes that are counted each for itself. Clients could send any other, so these count as one."""


def counted_protocol(counters: Counters) -> type[LHTTPServerProtocol]:
    """Return the class of connections that count with *counters*."""

    class CountedProtocol(LHTTPServerProtocol):
        _begun = 0.0

        def connectionMade(self) -> None:
            self._begun = perf_counter()
            super().connectionMade()

        def onOpen(self) -> None:
            counters.handshakes.observe(perf_counter() - self._begun)
            super().onOpen()

        def dataReceived(self, data: bytes) -> None:
            counters.received_bytes += len(data)
            super().dataReceived(data)

        def hold_reading(self, why: int) -> None:
            if why in _REASONS:
                counters.pauses[_REASONS[why]] += 1
            super().hold_reading(why)

        def failHandshake(self, reason: str, code: int = 400, responseHeaders: Any = None) -> None:
            if self.state == self.STATE_CONNECTING:
                counters.refused[str(code)] += 1
            super().failHandshake(reason, code, responseHeaders)

        def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
            if self.session is not None:
                by_server = self.closedByMe or self.failedByMe or (self.droppedByMe and not self.remoteCloseCode)
                number = (self.localCloseCode if self.closedByMe else None) or code or 1006
                counters.closed[str(number) if number in _CODES else "other", "server" if by_server else "client"] += 1
            super().onClose(wasClean, code, reason)

    return CountedProtocol
