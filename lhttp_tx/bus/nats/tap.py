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
from typing import Any, final

from lhttp_tx.bus.nats.incoming import BadStream, Incoming, Run

__all__ = ["Receiver", "Tap"]

Receiver = Callable[["Run[Any]"], None]
"""Takes messages of one subscription. It must not raise."""


@final
class Tap(asyncio.Protocol):
    """The protocol of a connection to NATS. It passes the bytes that it does not take to the protocol of nats-py."""

    def __init__(
        self,
        inner: asyncio.Protocol,
        incoming: Incoming[Receiver],
        taken: Callable[[list[Run[Receiver]]], None],
        broken: Callable[[str], None],
        refused: Callable[[bytes], None] | None = None,
    ) -> None:
        """
        :param inner: the protocol of nats-py.
        :param incoming: the parser of the connection. The next byte begins a line.
        :param taken: called with the messages of one read, in order. It must not raise.
        :param broken: called with the reason when the stream of the server cannot be parsed.
        :param refused: called with whole lines that contain an error of the server, before nats-py gets them.
        """
        self._inner = inner
        self._incoming = incoming
        self._taken = taken
        self._broken = broken
        self._refused = refused

    def data_received(self, data: bytes) -> None:
        """Take the messages in *data*, and pass the rest to nats-py."""
        try:
            runs, rest = self._incoming.feed(data)
        except BadStream as error:
            self._broken(f"the server sent {error}")
            return
        if runs:
            self._taken(runs)
        if rest:
            if self._refused is not None and b"-ERR" in rest:
                self._refused(rest)
            self._inner.data_received(rest)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Do nothing: the tap is put into an existing connection."""

    def eof_received(self) -> bool | None:
        """Pass the event to nats-py."""
        return self._inner.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        """Pass the event to nats-py."""
        self._inner.connection_lost(error)

    def pause_writing(self) -> None:
        """Pass the event to nats-py."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass the event to nats-py."""
        self._inner.resume_writing()
