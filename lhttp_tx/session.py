"""
One connection: its messages one after another, its subscriptions, its end.

The edge (:mod:`lhttp_tx.protocol`, or a test's fake) hands messages in and gives an
:class:`~lhttp_tx.interfaces.ISessionTransport`. Must not import Autobahn or anything that does I/O.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, final

from twisted.internet.defer import CancelledError, Deferred, fail, gatherResults, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from lhttp_tx.channels import check_channel
from lhttp_tx.errors import BusUnavailable, LHTTPError, LocalProtocolError, SessionClosed, TooMany
from lhttp_tx.frames import build_frame
from lhttp_tx.interfaces import IProcessor, ISessionTransport, MaybeAwaitable, MaybeDeferred
from lhttp_tx.message import HeaderPairs, Message, parse_head, split_head
from lhttp_tx.request import Request
from lhttp_tx.sequence import Sequence, Step, as_deferred

if TYPE_CHECKING:
    from lhttp_tx.engine import Engine

__all__ = ["Session"]

_log = Logger()

_REASON_LENGTH = 200
"""Characters of an error's reason that a client is told."""

_RECEIPTS = re.compile(rb"(?i)\r\nreceipt:([^\x00-\x08\x0a-\x1f\x7f]*)(?=\r\n)")
"""Receipt lines of a head that is malformed elsewhere, so that its sender does not wait for ever."""

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]+")


@final
class Session:
    """
    One connection, as processors and filters see it.

    :ivar peer: the address of the other side, for logs.
    """

    __slots__ = (
        "__weakref__",
        "_busy",
        "_channels",
        "_closed_down",
        "_closing",
        "_deadline",
        "_ended",
        "_engine",
        "_last_words",
        "_opened",
        "_queue",
        "_sequence",
        "_state",
        "_transport",
        "peer",
    )

    def __init__(self, *, engine: Engine, transport: ISessionTransport) -> None:
        """
        :param engine: the server it belongs to.
        :param transport: its connection.
        """
        self.peer = transport.peer
        self._engine = engine
        self._transport = transport
        self._sequence = Sequence(engine.clock, engine.limits.processor_timeout, self._resume)
        self._busy = False
        self._closing = False
        self._ended = False
        self._closed_down = False
        self._channels: set[str] = set()
        self._opened: list[IProcessor] = []
        self._queue: deque[tuple[bytes, bool]] | None = None
        self._state: dict[Any, Any] | None = None
        self._deadline: IDelayedCall | None = None
        self._last_words: tuple[int, str] | None = None

    # For processors and filters

    @property
    def state(self) -> dict[Any, Any]:
        """What processors and filters want to remember of this connection; gone with it."""
        if self._state is None:
            self._state = {}
        return self._state

    @property
    def channels(self) -> frozenset[str]:
        """The channels it is subscribed to."""
        return frozenset(self._channels)

    @property
    def closed(self) -> bool:
        """Whether the connection is closing or has ended: what is sent is dropped."""
        return self._closing or self._ended

    def send(self, message: Message) -> None:
        """Send *message* to this client, after everything that was published to it before. Dropped if closed."""
        if self._closing or self._ended:
            return
        self._engine.hub.flush()
        self._transport.send_frame(build_frame(message.raw, message.binary))

    def subscribe(self, channels: str | Iterable[str]) -> Deferred[None]:
        """
        Subscribe this connection.

        :param channels: a channel name, or several.
        :returns: a Deferred that

            - succeeds when the bus has the subscriptions;
            - fails with :exc:`~lhttp_tx.errors.BusUnavailable`; then there is no subscription to that channel.
        :raises RemoteProtocolError: if a name is malformed or reserved.
        :raises TooMany: if there would be more subscriptions than the limit; then none is added.
        :raises SessionClosed: if the connection has ended.
        """
        names = _names(channels)
        try:
            return self.subscribe_all(names) or succeed(None)
        except BusUnavailable:
            return fail()

    def unsubscribe(self, channel: str) -> None:
        """Take back a subscription of this connection; does nothing if there is none."""
        if channel in self._channels:
            self._channels.discard(channel)
            self._engine.hub.unsubscribe(self, channel)

    def publish(
        self,
        channels: str | Iterable[str],
        command: str,
        headers: HeaderPairs | dict[str, str] = (),
        body: bytes | str = b"",
        *,
        binary: bool = False,
    ) -> Deferred[None]:
        """Publish a message; see :meth:`lhttp_tx.engine.Engine.publish`."""
        return self._engine.publish(channels, command, headers, body, binary=binary)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """
        Close the connection. Messages that wait are not looked at any more.

        :param code: a WebSocket close code: 1000, 1001, 1008, 1011, 1013 or 3000 to 4999.
        :param reason: at most 123 bytes of UTF-8 are sent.
        """
        if self._closing or self._ended:
            return
        self._engine.hub.flush()
        self._closing = True
        self._queue = None
        self._leave_channels()
        self._transport.close(code, reason)

    # The same without a Deferred where none is needed, for filters on the path of a message

    def subscribe_all(self, channels: Iterable[str]) -> MaybeDeferred:
        """Subscribe to valid channel names; as :meth:`subscribe`, but ``None`` if it is done at once."""
        if self._closing or self._ended:
            raise SessionClosed("the connection has ended")
        wanted = tuple(channels)
        limit = self._engine.limits.subscription_count
        if len(self._channels.union(wanted)) > limit:
            raise TooMany(f"a connection may have {limit} subscriptions")
        waiting: list[Deferred[None]] = []
        for channel in wanted:
            result = self._engine.hub.subscribe(self, channel, self._transport.send_frame)
            self._channels.add(channel)
            if result is not None:
                waiting.append(result.addErrback(self._not_subscribed, channel))
        if not waiting:
            return None
        gathered = gatherResults(waiting, consumeErrors=True)
        return gathered.addCallbacks(lambda _: None, lambda failure: failure.value.subFailure)

    def publish_all(self, channels: Iterable[str], message: Message) -> MaybeDeferred:
        """Publish *message* to valid channel names; ``None`` if the bus has taken it at once."""
        return self._engine.hub.publish(channels, message.raw, message.binary)

    # For the edge

    def receive(self, data: bytes, binary: bool) -> None:
        """
        Take a message from the connection. It is handled when those before it are done.

        :param data: the payload of one WebSocket data message.
        :param binary: whether it came as a binary one.
        """
        if self._busy:
            self._enqueue(data, binary)
            return
        if self._closing or self._ended:
            return
        self._busy = True
        self._handle(data, binary)
        if self._sequence.waiting is not None:
            return
        if self._queue or self._ended or self._last_words is not None:
            self._resume()
        else:
            self._busy = False

    def connection_lost(self) -> None:
        """
        The connection has ended. It leaves its channels now; messages that had arrived are still handled, for as long
        as one message may take, then processors and filters are told.
        """
        if self._ended:
            return
        self._ended = True
        self._leave_channels()
        if self._busy:
            self._deadline = self._engine.clock.callLater(self._engine.limits.processor_timeout, self.cut)
        else:
            self._close_down()

    # For the engine

    def open(self) -> None:
        """Let the filters know; messages wait until they are done."""
        if self._engine.open_steps:
            self._busy = True
            self._sequence.run(self._engine.open_steps, self, self._open_done)
            if self._sequence.waiting is None:
                self._resume()

    def finish(self, code: int, reason: str) -> None:
        """Take no more messages, handle those that have arrived, then close."""
        self._last_words = (code, reason)
        if not self._busy:
            self.close(code, reason)

    def cut(self) -> None:
        """Cancel what is in hand and drop what waits, then go on as if it were done."""
        if self._queue:
            _log.warn("{peer}: {count} messages dropped at the end", peer=self.peer, count=len(self._queue))
            self._queue = None
        self._sequence.cancel()

    def open_processor(self, processor: IProcessor) -> MaybeAwaitable:
        """Call the ``on_open`` of *processor* unless it has succeeded on this connection before."""
        if processor in self._opened:
            return None
        result = processor.on_open(self)
        if result is None:
            self._opened.append(processor)
            return None

        def opened(_: object) -> None:
            if processor not in self._opened:
                self._opened.append(processor)

        return as_deferred(result, processor).addCallback(opened)

    # Handling messages

    def _enqueue(self, data: bytes, binary: bool) -> None:
        if self._closing or self._ended or self._last_words is not None:
            return
        if self._queue is None:
            self._queue = deque()
        self._queue.append((data, binary))
        if len(self._queue) == self._engine.limits.queue_length:
            self._transport.pause_reading()

    def _resume(self) -> None:
        """Handle what waits, until something must be waited for."""
        while self._sequence.waiting is None:
            if not self._queue:
                self._busy = False
                self._rest()
                return
            data, binary = self._queue.popleft()
            if len(self._queue) == self._engine.limits.queue_length - 1 and not self._ended:
                self._transport.resume_reading()
            self._handle(data, binary)

    def _rest(self) -> None:
        """Called when nothing is in hand and nothing waits."""
        if self._closed_down:
            return
        if self._ended:
            self._close_down()
        elif self._last_words is not None:
            self.close(*self._last_words)

    def _handle(self, data: bytes, binary: bool) -> None:
        try:
            plan = self._engine.plan(data)
        except Exception:
            self._answer(self._receipt_of(data), Failure())
            return
        request = Request(self, Message.from_parts(plan.head, data, binary), plan.receipt)
        if plan.before:
            self._sequence.run(plan.before, request, self._before_done)
        else:
            self._sequence.run(plan.rest, request, self._rest_done)

    def _before_done(self, request: Request, failure: Failure | None) -> None:
        if failure is None:
            try:
                plan = self._engine.plan_for(request.message.head)
            except Exception:
                failure = Failure()
            else:
                self._sequence.run(plan.rest, request, self._rest_done)
                return
        self._answer(request.receipt, failure)

    def _rest_done(self, request: Request, failure: Failure | None) -> None:
        if failure is not None:
            self._answer(request.receipt, failure)
        elif request.receipt is not None:
            try:
                pairs = [("receipt-id", request.receipt), *request.receipt_headers]
                self.send(Message("receipt", pairs, request.receipt_body, binary=request.receipt_binary))
            except Exception:
                self._answer(request.receipt, Failure())

    def _open_done(self, _: object, failure: Failure | None) -> None:
        if failure is not None:
            self._answer(None, failure)
            self.close(1008 if isinstance(failure.value, LHTTPError) else 1011, "connection not accepted")

    def _answer(self, receipt: str | None, failure: Failure) -> None:
        """Tell the client what went wrong, and the log if it was not the client's fault."""
        error = failure.value
        if isinstance(error, LHTTPError) and not isinstance(error, LocalProtocolError):
            status, reason = error.status, error.reason
        elif isinstance(error, CancelledError):
            status, reason = 500, "cancelled"
        else:
            status, reason = 500, "internal error"
            _log.failure("{peer}: a processor or filter failed", failure, peer=self.peer)
        if not (isinstance(status, int) and isinstance(reason, str)):
            _log.failure("{peer}: an error without a status or a reason", failure, peer=self.peer)
            status, reason = 500, "internal error"
        text = _UNPRINTABLE.sub(" ", reason)[:_REASON_LENGTH].encode("utf-8", "replace").decode("utf-8").strip()
        pairs = [("status", str(status)), ("reason", text)]
        if receipt is not None:
            pairs.append(("receipt-id", receipt))
        self.send(Message("error", pairs))

    def _receipt_of(self, data: bytes) -> str | None:
        """Return the token of the receipt that a refused message asked for, if that much of it can be read."""
        limits = self._engine.limits
        try:
            # Without most of the body, so that a message that is refused for its size is answered too.
            head = split_head(data[: min(limits.head_size + 4, limits.message_size)], limits)
            return parse_head(head, limits).headers.get("receipt")
        except LHTTPError:
            found = _RECEIPTS.findall(data[: limits.head_size].partition(b"\r\n\r\n")[0] + b"\r\n")
            return found[-1].decode("utf-8", "replace").strip() if found else None

    # The end

    def _leave_channels(self) -> None:
        channels, self._channels = self._channels, set()
        for channel in channels:
            self._engine.hub.unsubscribe(self, channel)

    def _not_subscribed(self, failure: Failure, channel: str) -> Failure:
        self.unsubscribe(channel)
        return failure

    def _close_down(self) -> None:
        """Tell processors and filters, each whether or not the one before it failed."""
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._closed_down = True
        self._busy = True
        steps: Iterator[Step] = iter([*((found.on_close, found) for found in self._opened), *self._engine.close_steps])

        def done(_: object, failure: Failure | None) -> None:
            if failure is None:
                self._engine.forget(self)
            else:
                _log.failure("{peer}: an on_close failed", failure, peer=self.peer)
                self._sequence.run(steps, self, done)

        self._sequence.run(steps, self, done)

    def __repr__(self) -> str:
        return f"<Session {self.peer}>"


def _names(channels: str | Iterable[str]) -> list[str]:
    names = [channels] if isinstance(channels, str) else list(channels)
    for name in names:
        check_channel(name)
    return names
