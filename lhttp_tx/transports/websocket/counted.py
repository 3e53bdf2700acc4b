"""
WebSocket connections that count for the metrics.

:mod:`lhttp_tx.transports.websocket.factory` uses this class instead of the ordinary one if the engine has counters.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

from lhttp_tx.codec.codes import COUNTED
from lhttp_tx.observe.counters import Counters
from lhttp_tx.transports.websocket.flow import CONGESTED, FULL, THROTTLED
from lhttp_tx.transports.websocket.protocol import LHTTPServerProtocol

__all__ = ["counted_protocol"]

_REASONS = {THROTTLED: "rate", FULL: "queue", CONGESTED: "unsent"}
"""The reasons for pauses in reading, as the metrics name them."""


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
                counters.closed[str(number) if number in COUNTED else "other", "server" if by_server else "client"] += 1
            super().onClose(wasClean, code, reason)

    return CountedProtocol
