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

_AT_ONCE, _AT_ONCE_SIZE = 64, 4_096
"""
The most views, and the most bytes of them, that are converted and handled before the connection looks at the clock
again. A single view may be larger. Views of one kilobyte can take half a millisecond each.
"""


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

    __slots__ = ("_ahead", "_connection", "_limits", "_throttle", "_view")

    def __init__(self, connection: Coded, view: View, limits: Limits, throttle: Any) -> None:
        """
        :param connection: the connection; its session gets the messages.
        :param view: the view.
        :param limits: the limits of a message.
        :param throttle: gets the messages instead of the session; ``None`` if there is none.
        """
        self._ahead: tuple[list[bytes], int, list[bytes], bool] | None = None
        self._connection = connection
        self._view = view
        self._limits = limits
        self._throttle = throttle

    def receive_run(self, messages: list[bytes], first: int, binary: bool) -> int:
        """See :meth:`lhttp_tx.engine.conversation.Conversation.receive_run`."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] is messages and ahead[1] == first:
            run, kind = ahead[2:]
        else:
            run, kind = self._convert(messages, first)
        taken = 0
        while taken < len(run):
            session = self._connection.session if self._throttle is None else self._throttle
            taken = session.receive_run(run, taken, kind)
            if not self._connection.takes_more:
                break
        if taken < len(run):  # else a session that takes one at a time would have the rest converted each time
            self._ahead = messages, first + taken, run[taken:], kind
        return first + taken

    def _convert(self, messages: list[bytes], first: int) -> tuple[list[bytes], bool]:
        """Return the messages of some views, and whether all of them are binary. Otherwise none is."""
        take, limits = self._view.take, self._limits
        data, kind = take(messages[first], limits)
        run, size = [data], len(messages[first])
        for view in islice(messages, first + 1, first + _AT_ONCE):
            size += len(view)
            if size > _AT_ONCE_SIZE:
                break
            data, found = take(view, limits)
            if found is not kind:
                break
            run.append(data)
        return run, kind

    def receive(self, data: bytes, binary: bool) -> None:
        """See :meth:`lhttp_tx.engine.conversation.Conversation.receive`."""
        session = self._connection.session if self._throttle is None else self._throttle
        session.receive(*self._view.take(data, self._limits))
