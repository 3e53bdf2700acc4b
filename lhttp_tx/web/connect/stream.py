"""
Streams the messages of a session to its client, as server-sent events.

It takes over the connection of its request. It fetches the messages so far, from this node or another, and fetches more
when the client has read them. So the messages for a slow client wait in its session, which limits their size.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from lhttp_tx.errors import LHTTPError
from lhttp_tx.guard.admission import Place
from lhttp_tx.observe.rationing import RationedLogger
from lhttp_tx.transports.http.outlet import Fetched
from lhttp_tx.transports.http.relay import LONGEST_WAIT, Relay
from lhttp_tx.transports.outflow import Outflow
from lhttp_tx.web.answers import STREAM_HEADERS, Pairs, response

__all__ = ["LiveStream"]

_log = RationedLogger(__name__)

_HEARTBEAT = b":\n\n"
"""A comment (HTML standard, section "Authoring notes")."""

_MAX_READ = 16_384
"""The most bytes that a client may send after its request. The server ignores them."""


class LiveStream(Outflow):
    """
    One stream. It owns its connection.

    :ivar place: its place among the connections of the server; ``None`` if the site does not count them.
    """

    def __init__(
        self, relay: Relay, clock: Any, *, secret: str, fetcher: str, patience: float, close_timeout: float, limit: int
    ) -> None:
        """
        :param relay: fetches the messages.
        :param clock: the reactor.
        :param secret: the client's secret.
        :param fetcher: the name of this request.
        :param patience: seconds within which the client must read each piece of the stream.
        :param close_timeout: seconds within which it must read the last bytes.
        :param limit: the most bytes that may wait to be sent.
        """
        super().__init__()
        self.place: Place | None = None
        self._relay = relay
        self._clock = clock
        self._secret = secret
        self._fetcher = fetcher
        self._patience = patience
        self._close_timeout = close_timeout
        self._limit = limit
        self._last = 0
        self._read = 0
        self._fetching: Deferred[Any] | None = None
        self._timer: IDelayedCall | None = None

    def makeConnection(self, transport: Any) -> None:
        """Take over the connection of the request."""
        self.connect(transport, self._patience)

    def begin(self, first: Fetched, headers: Pairs) -> None:
        """
        Answer the request.

        :param first: the first messages.
        :param headers: headers of the response that depend on the request.
        """
        if self.place is not None:
            self.place.open()
        self._write(first, response(200, [*STREAM_HEADERS, *headers]))

    def _write(self, fetched: Fetched, head: bytes = b"") -> None:
        """Write messages, or a heartbeat if there are none. Fetch more when the client has read them."""
        self._fetching = None
        if self.ended:
            return
        number = fetched.last - len(fetched.entries)
        events = [b"id: %d\ndata: %b\n\n" % pair for pair in enumerate(fetched.entries, number + 1)]
        self._last = fetched.last
        if not self.write(head + (b"".join(events) or _HEARTBEAT), self._limit + len(head)):
            self._abort()
        elif fetched.over:
            self._end()
        else:
            self._timer = self._clock.callLater(self._patience, self._abort)
            if self.is_secure:  # TLS buffers small writes until the next turn of the reactor
                self._clock.callLater(0, self.when_drained, self._fetch)
            else:
                self.when_drained(self._fetch)

    def _fetch(self) -> None:
        self._stop_timer()
        if self.ended:
            return
        fetching = self._fetching = self._relay.fetch(
            self._secret, self._fetcher, self._last, wait=LONGEST_WAIT, begins=False
        )
        fetching.addCallbacks(self._write, self._failed)
        fetching.addErrback(self._broken)

    def _failed(self, failure: Failure) -> None:
        """End the stream. The client connects again, and the answer then gives the reason."""
        failure.trap(LHTTPError, CancelledError)
        self._fetching = None
        if not self.ended:
            self._end()

    def _broken(self, failure: Failure) -> None:
        _log.failure("a stream failed", failure)
        if not self.ended:
            self._abort()

    def _end(self) -> None:
        """Close the connection when the client has read everything, or its time for this is over."""
        self.ended = True
        self._stop_timer()
        self.transport.unregisterProducer()  # a paused producer would keep the connection open
        self.transport.loseConnection()
        self._timer = self._clock.callLater(self._close_timeout, self.transport.abortConnection)

    def _abort(self) -> None:
        self.ended = True
        self._stop_timer()
        self.transport.abortConnection()

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def dataReceived(self, data: bytes) -> None:
        """Ignore all data after the request. Another request would get no answer."""
        self._read += len(data)
        if self._read > _MAX_READ:
            self._abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fetch nothing more."""
        self.ended = True
        self._stop_timer()
        if self.place is not None:
            self.place.leave()
        fetching, self._fetching = self._fetching, None
        if fetching is not None:
            fetching.cancel()
