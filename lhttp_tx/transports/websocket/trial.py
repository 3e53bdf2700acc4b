"""
A WebSocket that only tests whether WebSockets work, for a client that has a session over HTTP.

A second session would count as a connection of the user, and could end the first one. So this is not a session. It has
the handshake of a WebSocket, with the same rules and the same limits for connections. Source: the protocol document,
section "WebSocket".
"""

from __future__ import annotations

from typing import Final

from twisted.internet.interfaces import IReactorTime

from lhttp_tx.codec.codes import POLICY_VIOLATION
from lhttp_tx.codec.message import Message
from lhttp_tx.interfaces import ITransport

__all__ = ["LIFETIME", "SUBPROTOCOL", "Trial"]

SUBPROTOCOL: Final = "lhttp.trial"
"""The subprotocol of a trial."""

LIFETIME: Final = 30.0
"""Seconds after which the server closes it."""

_ANSWER: Final = Message("trial", ()).raw


class Trial:
    """Replaces the session of a client. It answers one message, whatever it contains."""

    __slots__ = ("_answered", "_timer", "_transport")

    def __init__(self, transport: ITransport, clock: IReactorTime) -> None:
        """
        :param transport: the open connection.
        :param clock: the reactor.
        """
        self._transport = transport
        self._answered = False
        self._timer = clock.callLater(LIFETIME, transport.close, 1000, "the trial is over")

    def receive_run(self, messages: list[bytes], first: int, binary: bool) -> int:
        """See :meth:`lhttp_tx.engine.conversation.Conversation.receive_run`."""
        self.receive(messages[first], binary)
        return first + 1

    def receive(self, data: bytes, binary: bool) -> None:
        """Answer the first message. Close the connection at the second one."""
        if self._answered:
            self._transport.close(POLICY_VIOLATION, "a trial has one message")
        else:
            self._answered = True
            self._transport.send(_ANSWER, False)

    def connection_lost(self) -> None:
        """Called when the connection has ended."""
        if self._timer.active():
            self._timer.cancel()
