"""
The views of messages on a WebSocket, for clients of ``lhttp.json`` and ``lhttp.protobuf``.

A delivery keeps its views, so a publication is converted once for all clients of a codec. Connections of other clients
have none of these objects. Must not import Autobahn.
"""

from __future__ import annotations

from itertools import islice
from typing import Any, Protocol

from lhttp_tx.codec.limits import Limits
from lhttp_tx.codec.views import View
from lhttp_tx.errors import RemoteProtocolError
from lhttp_tx.transports.websocket.frames import Framing

__all__ = ["Coded", "CodedFraming", "Decoder"]

_AT_ONCE = 64
"""The most views that are converted before the session takes them. If it stops, the rest is converted again later."""


class CodedFraming(Framing):
    """Puts views of messages into the frames of another encoding, which may compress them."""

    converts = True

    def __init__(self, view: View, frames: Framing) -> None:
        """
        :param view: the view.
        :param frames: makes the frames.
        """
        self.view: View = view
        self._frames = frames
        self.takes_gzip = frames.takes_gzip
        self.compresses = frames.compresses

    def encode(self, payloads: list[bytes], binary: bool) -> bytes:
        """See :meth:`lhttp_tx.transports.websocket.frames.Framing.encode`."""
        return self.encode_views(self.view.encode(payloads, binary))

    def encode_views(self, views: list[bytes]) -> bytes:
        """Return the frames for views, joined; see :class:`lhttp_tx.engine.delivery.Encoding`."""
        return self._frames.encode(views, self.view.binary)

    def frame(self, payload: bytes, binary: bool) -> bytes:
        """
        See :meth:`lhttp_tx.transports.websocket.frames.Framing.frame`.

        :returns: the frame; empty if *payload* is not a message.
        """
        try:
            view = self.view.write(payload, binary)
        except RemoteProtocolError:
            return b""
        return self._frames.frame(view, self.view.binary)

    def decode(self, data: bytes) -> list[tuple[bytes, bool]]:
        """See :meth:`lhttp_tx.transports.websocket.frames.Framing.decode`."""
        return [self.view.read_own(view) for view, _ in self._frames.decode(data)]


class Coded(Protocol):
    """A connection whose client sends views."""

    session: Any

    @property
    def takes_more(self) -> bool:
        """Whether messages may be passed on."""


class Decoder:
    """
    Reads messages out of views, and passes them to the session of a connection.

    A malformed view is passed on in the place of its message, so that the session refuses it in order.
    """

    __slots__ = ("_connection", "_limits", "_throttle", "_view")

    def __init__(self, connection: Coded, view: View, limits: Limits, throttle: Any) -> None:
        """
        :param connection: the connection; its session gets the messages.
        :param view: the view.
        :param limits: the limits of a message.
        :param throttle: gets the messages instead of the session; ``None`` if there is none.
        """
        self._connection = connection
        self._view = view
        self._limits = limits
        self._throttle = throttle

    def receive_run(self, messages: list[bytes], first: int, binary: bool) -> int:
        """See :meth:`lhttp_tx.engine.conversation.Conversation.receive_run`."""
        take, limits = self._view.take, self._limits
        data, kind = take(messages[first], limits)
        run = [data]
        for view in islice(messages, first + 1, first + _AT_ONCE):
            data, found = take(view, limits)
            if found is not kind:
                break
            run.append(data)
        taken = 0
        while taken < len(run):
            session = self._connection.session if self._throttle is None else self._throttle
            taken = session.receive_run(run, taken, kind)
            if not self._connection.takes_more:
                break
        return first + taken

    def receive(self, data: bytes, binary: bool) -> None:
        """See :meth:`lhttp_tx.engine.conversation.Conversation.receive`."""
        session = self._connection.session if self._throttle is None else self._throttle
        session.receive(*self._view.take(data, self._limits))
