"""
Writes messages to one client on a plain stream, and knows which of them have not left.

The lowest layer of a connection. Only :mod:`lhttp_tx.transports.outflow` is below it.
"""

from __future__ import annotations

from collections.abc import Callable

from lhttp_tx.auth.lobby import Lobby
from lhttp_tx.codec.codes import TOO_SLOW
from lhttp_tx.engine.conversation import Conversation
from lhttp_tx.engine.delivery import Delivery
from lhttp_tx.observe.rationing import RationedLogger
from lhttp_tx.transports.outflow import Outflow, Unread
from lhttp_tx.transports.tcp.framing import LENGTHS, frame
from lhttp_tx.transports.tcp.owner import Owner

__all__ = ["Sending"]

_log = RationedLogger(__name__)


class Sending(Outflow):
    """
    The outgoing side of one connection.

    :ivar peer: the address of the client, for logs.
    :ivar session: takes its messages. It is the lobby until the client has logged in, and ``None`` before the first
        message has begun.
    """

    converts = compresses = False
    """Messages go out as they are; see :class:`lhttp_tx.interfaces.ITransport`."""

    __slots__ = ("_added", "_held_at", "_owner", "_unread", "peer", "session")

    def __init__(self, owner: Owner) -> None:
        """:param owner: the connections of its server."""
        super().__init__()
        self.peer = ""
        self.session: Conversation | Lobby | None = None
        self._owner = owner
        self._held_at = self._added = 0
        self._unread: Unread | None = Unread() if owner.engine.on_undelivered else None

    def close(self, code: int, reason: str) -> None:
        """See :meth:`lhttp_tx.interfaces.ITransport.close`. The last message tells the client."""
        if code == TOO_SLOW:
            self._tell_undelivered()
        self.end(code, reason)

    def end(self, code: int, reason: str) -> None:
        """Write what waits in the outbox, write ``close`` with *code* and *reason*, and close the stream."""
        raise NotImplementedError

    @property
    def unsent(self) -> int:
        """See :class:`lhttp_tx.interfaces.ITransport`."""
        return self.held() + self._owner.factory.outbox.size_of(self)

    def deliver(self, delivery: Delivery) -> None:
        """See :meth:`lhttp_tx.interfaces.ITransport.deliver`."""
        made = delivery.made if delivery.encoding is LENGTHS else delivery.encoded(LENGTHS)
        self._put(made, delivery.payloads, delivery.binary)

    def send(self, payload: bytes, binary: bool) -> None:
        """See :meth:`lhttp_tx.interfaces.ITransport.send`."""
        self._put(frame(payload), [payload], binary)

    def _put(self, data: bytes, payloads: list[bytes], binary: bool) -> None:
        """Write messages. While a read is being handled, gather them until its end."""
        if self.ended:
            return
        outbox = self._owner.factory.outbox
        if self._unread is not None:
            self._unread.add(len(data), payloads, binary, self.unsent + len(data))
        if outbox.corked:
            outbox.add(self, data)
        else:
            self.write_frames(data)

    def write_frames(self, frames: bytes) -> None:
        """Write messages now, without the outbox. Disconnect a client for which too many bytes wait."""
        if self.ended:
            return
        if self._held_at:
            self._added += len(frames)
        if not self.write(frames, self._owner.engine.limits.unsent_size):
            _log.error("{peer}: closed, it does not read: {size} bytes unsent", peer=self.peer, size=self._unsent_size)
            self._tell_undelivered(len(frames))
            self.close(TOO_SLOW, "too slow: unsent messages pass the limit")

    def call_when_drained(self, call: Callable[[], None]) -> None:
        """See :meth:`lhttp_tx.interfaces.ITransport.call_when_drained`."""
        self._owner.factory.outbox.write(self)
        if self.is_secure:  # TLS buffers small writes until the next turn of the reactor
            self._on_drained = call
            self._owner.clock.callLater(0, self.watch_drain)
        else:
            self.when_drained(call)

    def _tell_undelivered(self, refused: int = 0) -> None:
        """
        Tell the session once which messages were not sent and never will be, if a hook asks for them.

        :param refused: bytes that were not written at all.
        """
        unread, self._unread = self._unread, None
        if unread is not None and isinstance(self.session, Conversation):
            found = unread.take(self.unsent + refused)
            if found:
                self.session.undelivered(found)
