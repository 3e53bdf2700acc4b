"""
One event stream: the transport of a session that only receives.

To the engine, it is an :class:`~lhttp_tx.interfaces.ITransport`, like a WebSocket. Its session gets subscribe messages
that :mod:`lhttp_tx.web.events.query` writes. So rules, limits, presence, hooks, control and histories work in the same
way. The stream takes over the connection of its request, and ends with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from lhttp_tx.codec.codes import GOING_AWAY, POLICY_VIOLATION, TOO_SLOW
from lhttp_tx.codec.limits import UNLIMITED
from lhttp_tx.codec.message import Message, parse
from lhttp_tx.engine.answers import close_message, missed_message
from lhttp_tx.engine.conversation import Conversation
from lhttp_tx.engine.delivery import Delivery
from lhttp_tx.engine.handshake import Handshake
from lhttp_tx.errors import LHTTPError
from lhttp_tx.guard.admission import Place, peer_name
from lhttp_tx.identity import Identity
from lhttp_tx.interfaces import ITransport
from lhttp_tx.observe.rationing import RationedLogger
from lhttp_tx.transports.endings import Ending, note_ending
from lhttp_tx.transports.outflow import Outflow, Unread
from lhttp_tx.web.answers import STREAM_HEADERS, Pairs, response
from lhttp_tx.web.events.answers import beginning, refusal
from lhttp_tx.web.events.encoding import Several, Single, id_line
from lhttp_tx.web.events.query import RECEIPT, Places, Wish
from lhttp_tx.web.events.streams import Streams

__all__ = ["EventStream"]

_log = RationedLogger(__name__)

_HEARTBEAT = b":\n\n"
"""A comment (HTML standard, section "Authoring notes")."""

_MISSED = b"LHTTP/1.0 missed\r\nchannel:%b\r\n\r\n"
"""The result of :func:`~lhttp_tx.engine.answers.missed_message` for a channel without history."""

_MAX_READ = 16_384
"""The most bytes that a client may send after its request. The server ignores them."""


class _Opening:
    """
    The state of a stream until it is subscribed.

    :ivar wish: the query of the client.
    :ivar headers: headers of the response that depend on the request.
    :ivar accept: the header ``Accept`` of the request.
    :ivar pending: the number of receipts that have not come yet.
    """

    __slots__ = ("accept", "headers", "pending", "wish")

    def __init__(self, wish: Wish, headers: Pairs, accept: str) -> None:
        self.wish = wish
        self.headers = headers
        self.accept = accept
        self.pending: set[str] = set()


@implementer(ITransport)
class EventStream(Outflow):
    """
    One stream. It owns its connection.

    :ivar peer: the address of the client, for logs.
    :ivar place: its place among the connections of the server.
    :ivar session: takes its messages; ``None`` before it is open.
    :ivar part: see :class:`lhttp_tx.transports.pulse.Beating`.
    :ivar ending: how the stream has ended; ``None`` before that.
    """

    kind = "events"
    """The name of this transport in metrics and on the admin side."""

    converts, compresses = True, False
    """See :class:`lhttp_tx.interfaces.ITransport`. All events are views."""

    __slots__ = ("_begun", "_encoding", "_linger", "_opening", "_places", "_read", "_streams", "_unread", "ending",
                 "part", "peer", "place", "session")  # fmt: skip

    def __init__(self, streams: Streams, wish: Wish, headers: Pairs, accept: str) -> None:
        """
        :param streams: the streams of its server.
        :param wish: the query of the client.
        :param headers: headers of the response that depend on the request.
        :param accept: the header ``Accept`` of the request.
        """
        super().__init__()
        self.part = -1
        self.peer = ""
        self.place: Place | None = None
        self.session: Conversation | None = None
        self.ending: Ending | None = None
        self._streams = streams
        self._opening: _Opening | None = _Opening(wish, headers, accept)
        self._begun = False
        self._read = 0
        self._linger: Any = None
        self._unread: Unread | None = Unread() if streams.engine.on_undelivered else None
        self._encoding: Single | Several
        self._places: Places | None = None
        if len(wish.channels) == 1:
            self._encoding = streams.single(wish.view, wish.channels[0])
        else:
            self._encoding = streams.several(wish.view)
            kept = {name: position for name, position in wish.positions.items() if streams.is_kept(name)}
            self._places = Places(kept)

    # The connection

    def makeConnection(self, transport: Any) -> None:
        """Take over the connection of the request."""
        self.connect(transport, self._streams.patience)
        self.peer = peer_name(transport.getPeer())
        if self.place is None:
            self.place = self._streams.factory.admission.enter(transport.getPeer())
        elif self.place.forwarded:
            self.peer = f"tcp{6 if ':' in str(self.place.client) else 4}:{self.place.client}"

    def open(self, identity: Identity | None, handshake: Handshake | None) -> None:
        """
        Begin the session, and subscribe.

        :param identity: the identity of the client; ``None`` if only its address is known.
        :param handshake: how the client opened the connection; ``None`` if no code can ask for it.
        """
        opening = self._opening
        assert opening is not None
        assert self.place is not None
        self.place.take()
        self.place.work()
        self._streams.entered(self)
        try:
            messages = opening.wish.messages()
            opening.pending = {f"{RECEIPT}{number}" for number in range(len(messages))}
            session = self.session = self._streams.engine.open_session(self, identity, handshake)
            for message in messages:
                if not self.ended:
                    session.receive(message.raw, False)
        except Exception:
            _log.failure("{peer}: opening an event stream failed", peer=self.peer)
            self._refuse(500, "internal error")

    def dataReceived(self, data: bytes) -> None:
        """Ignore all data after the request. Another request would get no answer."""
        self._read += len(data)
        if self._read > _MAX_READ:
            self._abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the session that its connection has ended, whatever the cause."""
        if self._linger is not None and self._linger.active():
            self._linger.cancel()
        self._tell_undelivered()
        ending = Ending(1000 if reason.check(ConnectionDone) else 1006, "", "server" if self.ended else "client")
        note_ending(self, self.session, ending, self._streams.engine.counters)
        self.ended = True
        self._streams.left(self)
        if self.place is not None:
            self.place.leave()
        if self.session is not None:
            self.session.connection_lost()

    def beat(self) -> None:
        """Send a heartbeat, unless the stream has not begun, or other bytes wait."""
        if self._begun and not self.held():
            self.write_frames(_HEARTBEAT)

    # ITransport

    @property
    def unsent(self) -> int:
        """See :class:`lhttp_tx.interfaces.ITransport`."""
        return self.held() + self._streams.factory.outbox.size_of(self)

    def deliver(self, delivery: Delivery) -> None:
        """See :meth:`lhttp_tx.interfaces.ITransport.deliver`."""
        if self.ended:
            return
        if self._opening is not None:
            if not delivery.channel:
                for payload in delivery.payloads:
                    self.send(payload, delivery.binary)
                return
            self._begin()
        encoding: Any = self._encoding
        made = delivery.made if delivery.encoding is encoding else delivery.encoded(encoding)
        events: bytes = made if self._places is None else self._numbered(delivery.channel, made)
        self._put(events, delivery.payloads, delivery.binary)

    def send(self, payload: bytes, binary: bool) -> None:
        """See :meth:`lhttp_tx.interfaces.ITransport.send`."""
        if self._opening is None or not self._is_answer(self._opening, payload):
            self.deliver_alone([payload], binary)

    def deliver_alone(self, payloads: list[bytes], binary: bool) -> None:
        """Send messages to this client that are not answers to its own."""
        self._begin()
        made: Any = self._encoding.encode(payloads, binary)
        self._put(made if self._places is None else self._numbered("", made), payloads, binary)

    def call_when_drained(self, call: Callable[[], None]) -> None:
        """See :meth:`lhttp_tx.interfaces.ITransport.call_when_drained`."""
        self._streams.factory.outbox.write(self)
        if self.is_secure:  # TLS buffers small writes until the next turn of the reactor
            self._on_drained = call
            self._streams.clock.callLater(0, self.watch_drain)
        else:
            self.when_drained(call)

    def pause_reading(self) -> None:
        """
        See :meth:`lhttp_tx.interfaces.ITransport.pause_reading`. Does nothing, because the client sends no messages.
        """

    def resume_reading(self) -> None:
        """See :meth:`lhttp_tx.interfaces.ITransport.resume_reading`."""

    def close(self, code: int, reason: str) -> None:
        """See :meth:`lhttp_tx.interfaces.ITransport.close`. The last event tells the client."""
        if code == TOO_SLOW:
            self._tell_undelivered()
        if self.ended:
            return
        note_ending(self, self.session, Ending(code, reason, "server"), self._streams.engine.counters)
        if not self._begun:
            if code == GOING_AWAY:
                self._abort()  # the client reconnects, to another node
            else:
                self._refuse(403 if code == POLICY_VIOLATION else 503, reason or "the connection was closed")
            return
        self._streams.engine.hub.flush()
        self._streams.factory.outbox.write(self)
        if not self.ended:
            self._end(self._encoding.form(close_message(code, reason).raw, False))

    # The answers to the subscribe messages

    def _is_answer(self, opening: _Opening, payload: bytes) -> bool:
        """Return whether a message answers one of the subscribe messages. If it does, handle it."""
        try:
            message = parse(payload, binary=True, limits=UNLIMITED)
        except LHTTPError:
            return False
        if message.command == "error" and (not self._begun or message.headers.get("receipt-id") in opening.pending):
            self._not_subscribed(message)
            return True
        token = message.headers.get("receipt-id")
        if message.command != "receipt" or token not in opening.pending:
            return False
        opening.pending.discard(token)
        self._begin()
        self._subscribed(opening, message)
        if not opening.pending:
            self._opening = None
            if self._places:  # even before the first event
                self._put(id_line(self._places.id()) + b"\n", [], False)
        return True

    def _not_subscribed(self, error: Message) -> None:
        status = error.headers.get("status", "")
        number = int(status) if status.isascii() and status.isdigit() else 500
        reason = error.headers.get("reason", "")
        if not self._begun:
            self._refuse(number, reason)
            return
        self.deliver_alone([error.raw], False)
        if self.session is not None:
            self.session.close(POLICY_VIOLATION, reason.encode("utf-8")[:123].decode("utf-8", "ignore"))

    def _subscribed(self, opening: _Opening, receipt: Message) -> None:
        """Take the positions and gaps from a receipt."""
        wish = opening.wish
        told = dict(word.rpartition("=")[::2] for word in receipt.headers.get("position", "").split(" ") if word)
        if self._places is not None:
            self._places.update(told)
        elif told:
            self._put(id_line(next(iter(told.values())).encode("ascii")) + b"\n", [], False)
        missed = [*filter(None, receipt.headers.get("missed", "").split(" "))]
        if not opening.pending:
            wanted = wish.channels if wish.resumes else wish.positions
            missed += [name for name in wanted if name not in missed and not self._streams.is_kept(name)]
        for channel in missed:
            if self._places is None or channel in told:
                self.deliver(Delivery(channel, [missed_message(channel, told.get(channel)).raw], False))
        others = [_MISSED % name.encode("utf-8") for name in missed if name not in told]
        if self._places is not None and others:  # there may be many, and their events have no ids
            self.deliver_alone(others, False)

    # Writing

    def _numbered(self, channel: str, events: list[tuple[int, bytes, bytes]]) -> bytes:
        """Return events of a channel with their ids, which contain the positions of all channels."""
        places = self._places
        assert places is not None
        epoch = self._streams.epoch_of(channel) if any(offset for offset, _, _ in events) else None
        begin = b"" if epoch is None else epoch.encode("ascii") + b"-"
        if begin and all(offset for offset, _, _ in events):
            ids = places.ids(channel, [b"%b%d" % (begin, offset) for offset, _, _ in events])
            return b"".join([b"id: %b\n%b" % (text, event) for text, (_, _, event) in zip(ids, events, strict=True)])
        lines: list[bytes] = []
        for offset, position, event in events:
            place = b"%b%d" % (begin, offset) if offset and begin else position
            if place and (place is not position or self._streams.is_kept(channel)):
                lines.append(id_line(*places.ids(channel, [place])))
            lines.append(event)
        return b"".join(lines)

    def _begin(self) -> None:
        """Answer the request, unless it is answered already."""
        if self._begun or self.ended or self._opening is None:
            return
        self._begun = True
        if self.place is not None:
            self.place.open()
        head = response(200, [*STREAM_HEADERS, *self._opening.headers])
        self._put(head + beginning(), [], False)

    def _refuse(self, status: int, reason: str) -> None:
        """Answer the request with a refusal, and close the connection."""
        if self._begun or self.ended:
            return
        self._begun = True
        opening = self._opening
        assert opening is not None
        code, headers, body = refusal(status, reason, opening.headers, opening.accept)
        _log.info(
            "{peer}: event stream refused with {status}: {reason!r}", peer=self.peer, status=status, reason=reason
        )
        self._end(response(code, headers, body))

    def _put(self, data: bytes, payloads: list[bytes], binary: bool) -> None:
        """Write events. While a read is being handled, gather them until its end."""
        if self.ended or not data:
            return
        outbox = self._streams.factory.outbox
        if self._unread is not None:
            self._unread.add(len(data), payloads, binary, self.unsent + len(data))
        if outbox.corked:
            outbox.add(self, data)
        else:
            self.write_frames(data)

    def write_frames(self, frames: bytes) -> None:
        """Write events now, without the outbox. Disconnect a client for which too many bytes wait."""
        if self.ended:
            return
        limit = self._streams.engine.limits.unsent_size
        if not self.write(frames, limit):
            size = self._unsent_size
            _log.error("{peer}: closed, it does not read: {size} bytes unsent", peer=self.peer, size=size)
            self._tell_undelivered(len(frames))
            self.close(TOO_SLOW, "too slow: unsent messages pass the limit")

    def _end(self, last: bytes) -> None:
        """Write the last bytes. Close the connection when the client has read them, or its time for this is over."""
        self.ended = True
        self.transport.write(last)
        self.transport.unregisterProducer()  # a paused producer would keep the connection open
        self.transport.loseConnection()
        self._linger = self._streams.clock.callLater(self._streams.close_timeout, self.transport.abortConnection)

    def _abort(self) -> None:
        self.ended = True
        self.transport.abortConnection()

    def _tell_undelivered(self, refused: int = 0) -> None:
        """
        Tell the session once which messages were not sent and never will be, if a hook asks for them.

        :param refused: bytes that were not written at all.
        """
        unread, self._unread = self._unread, None
        if unread is not None and self.session is not None:
            found = unread.take(self.unsent + refused)
            if found:
                self.session.undelivered(found)
