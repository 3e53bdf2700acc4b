"""
Reads a connection to NATS before nats-py does.

nats-py opens and uses the connection. A tap stands between its socket and its reader. It takes the messages of this
node's subscriptions out of each read, and passes the rest to nats-py. No message waits here or in nats-py, so there is
no queue to limit. A node that is too slow reads less, and TCP slows the server down. Used by
:mod:`lhttp_tx.bus.nats.guarded`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, final

from lhttp_tx.bus.nats.incoming import BadStream, Incoming, Run

__all__ = ["Receiver", "Tap", "TapOwner"]

Receiver = Callable[["Run[Any]"], None]
"""Takes messages of one subscription. It must not raise."""


_PONG = b"PONG\r\n"


class TapOwner(Protocol):
    """The object that reads and writes without nats-py. The methods must not raise."""

    def tap_took(self, runs: list[Run[Receiver]]) -> None:
        """Take the messages of one read, in order."""

    def tap_answered(self) -> bool:
        """
        Take the answer to the oldest unanswered ping. Everything that came before the answer has been handled.

        :returns: whether there is such a ping. If not, the answer is for nats-py, which is still connecting.
        """

    def tap_refused(self, lines: bytes) -> None:
        """Look at whole lines that contain an error of the server, before nats-py gets them."""

    def tap_broke(self, reason: str) -> None:
        """Abandon the connection, because the stream of the server cannot be parsed."""

    def tap_writable(self) -> None:
        """Write again: the transport is no longer full."""


@final
class Tap(asyncio.Protocol):
    """
    The protocol of a connection to NATS. It passes the bytes that it does not take to the protocol of nats-py.

    :ivar transport: the transport of the connection.
    :ivar full: whether the transport's buffer is full, so that nothing may be written.
    """

    def __init__(self, transport: Any, incoming: Incoming[Receiver], owner: TapOwner) -> None:
        """
        :param transport: the transport of the connection. Its protocol is that of nats-py.
        :param incoming: the parser of the connection. The next byte begins a line.
        :param owner: takes messages and errors.
        """
        self.transport = transport
        self.full = False
        self._inner: Any = transport.get_protocol()
        self._incoming = incoming
        self._owner = owner

    def data_received(self, data: bytes) -> None:
        """Take the messages in *data*, and pass the rest to nats-py."""
        try:
            runs, rest = self._incoming.feed(data)
        except BadStream as error:
            self._owner.tap_broke(f"the server sent {error}")
            return
        if runs:
            self._owner.tap_took(runs)
        if rest and not (rest == _PONG and self._idle() and self._owner.tap_answered()):
            if b"-ERR" in rest:
                self._owner.tap_refused(rest)
            self._inner.data_received(rest)

    def _idle(self) -> bool:
        """
        Return whether nats-py waits for bytes: it has handled all that it was given.

        If not, an answer must wait, because a refusal may come before it.
        """
        reader = getattr(self._inner, "_stream_reader", None)
        waiter = getattr(reader, "_waiter", None)  # the future that asyncio's stream reader waits for
        return waiter is not None and not waiter.done()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Do nothing: the tap is put into an existing connection."""

    def eof_received(self) -> bool | None:
        """Pass the event to nats-py."""
        ended: bool | None = self._inner.eof_received()
        return ended

    def connection_lost(self, error: Exception | None) -> None:
        """Pass the event to nats-py."""
        self._inner.connection_lost(error)

    def pause_writing(self) -> None:
        """Stop writing, and pass the event to nats-py."""
        self.full = True
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Continue writing, and pass the event to nats-py."""
        self.full = False
        self._inner.resume_writing()
        self._owner.tap_writable()
