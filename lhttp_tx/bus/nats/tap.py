"""
Reads a connection to NATS before nats-py does.

nats-py makes the connection and speaks on it. A tap stands between its socket and its reader. It takes the messages of
this node's subscriptions as soon as a read brings them, and hands everything else on. No message waits here or in
nats-py, so there is no queue to bound: when a node does not keep up, it reads less, and TCP tells the server. Used by
:mod:`lhttp_tx.bus.nats.guarded`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, final

from lhttp_tx.bus.nats.incoming import BadStream, Incoming, Run

__all__ = ["Receiver", "Tap", "TapOwner"]

Receiver = Callable[["Run[Any]"], None]
"""Takes messages of one subscription. May not raise."""


_PONG = b"PONG\r\n"


class TapOwner(Protocol):
    """Whoever reads and writes past nats-py. No method may raise."""

    def tap_took(self, runs: list[Run[Receiver]]) -> None:
        """Take the messages that one read has brought, in their order."""

    def tap_answered(self) -> bool:
        """
        Take the answer to the oldest ping that has none. Everything that came before it has been handled.

        :returns: whether there is such a ping. If not, the answer is for nats-py, which connects.
        """

    def tap_refused(self, lines: bytes) -> None:
        """Look at whole lines that hold an error of the server, before nats-py gets them."""

    def tap_broke(self, reason: str) -> None:
        """Give the connection up: the server sends what cannot be read."""

    def tap_writable(self) -> None:
        """Write again: the transport is no longer full."""


@final
class Tap(asyncio.Protocol):
    """
    The protocol of a connection to NATS. It passes on to the protocol of nats-py what it does not take itself.

    :ivar transport: the transport of the connection.
    :ivar full: whether the transport holds so many bytes that nothing more is to be written.
    """

    def __init__(self, transport: Any, incoming: Incoming[Receiver], owner: TapOwner) -> None:
        """
        :param transport: its protocol is that of nats-py.
        :param incoming: the parser of the connection, at the beginning of a line.
        """
        self.transport = transport
        self.full = False
        self._inner: Any = transport.get_protocol()
        self._incoming = incoming
        self._owner = owner

    def data_received(self, data: bytes) -> None:
        """Take the messages in *data*."""
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
        Return whether nats-py waits for bytes, so that it has handled all that it was given.

        If it has not, an answer must wait: a refusal may come before it.
        """
        reader = getattr(self._inner, "_stream_reader", None)
        waiter = getattr(reader, "_waiter", None)  # what the reader of asyncio's streams waits for
        return waiter is not None and not waiter.done()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called on a new connection; this one is older than the tap."""

    def eof_received(self) -> bool | None:
        """Tell nats-py."""
        ended: bool | None = self._inner.eof_received()
        return ended

    def connection_lost(self, error: Exception | None) -> None:
        """Tell nats-py."""
        self._inner.connection_lost(error)

    def pause_writing(self) -> None:
        """Write no more, and tell nats-py."""
        self.full = True
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Write again, and tell nats-py."""
        self.full = False
        self._inner.resume_writing()
        self._owner.tap_writable()
