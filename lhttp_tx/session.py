"""
One connection: its messages one after another, its subscriptions, its end.

The edge (:mod:`lhttp_tx.protocol`, or a test's fake) hands messages in and gives an
:class:`~lhttp_tx.interfaces.ISessionTransport`. Must not import Autobahn or anything that does I/O.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from itertools import islice, repeat, takewhile
from operator import length_hint, methodcaller
from typing import TYPE_CHECKING, Any, final

from twisted.internet.defer import Deferred, fail, gatherResults, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from lhttp_tx.answers import error_message, error_of, receipt_of
from lhttp_tx.channels import check_channel
from lhttp_tx.codes import POLICY_VIOLATION
from lhttp_tx.errors import BusUnavailable, LHTTPError, Refused, SessionClosed, TooMany
from lhttp_tx.frames import build_frame
from lhttp_tx.identity import Identity, new_connection_id
from lhttp_tx.interfaces import IProcessor, ISessionTransport, MaybeAwaitable, MaybeDeferred
from lhttp_tx.message import HeaderPairs, Message, parse, split_messages
from lhttp_tx.receipts import Receipts
from lhttp_tx.request import Request
from lhttp_tx.sequence import Sequence, Step, as_deferred

if TYPE_CHECKING:
    from lhttp_tx.engine import Engine, Plan
    from lhttp_tx.hub import SendFrame

__all__ = ["Session"]

_log = Logger()


class _Patience:
    """
    For how long a message waits for receipts.

    :ivar timeout: seconds; more than a bus takes to say that it does not know.
    """

    timeout: float | None = 30.0


_PATIENCE = _Patience()


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
        "_errors",
        "_identity",
        "_last_words",
        "_notable",
        "_opened",
        "_paused",
        "_queue",
        "_receipts",
        "_run",
        "_sequence",
        "_settled_errors",
        "_state",
        "_transport",
        "peer",
    )

    def __init__(self, *, engine: Engine, transport: ISessionTransport, identity: Identity | None = None) -> None:
        """
        :param engine: the server it belongs to.
        :param transport: its connection.
        :param identity: who it belongs to; ``None`` for a client of whom nothing is known but its address.
        """
        self.peer = transport.peer
        self._identity = identity
        self._engine = engine
        self._transport = transport
        self._sequence = Sequence(engine.clock, engine.limits.processor_timeout, self._resume)
        self._busy = False
        self._closing = False
        self._ended = False
        self._closed_down = False
        self._paused = False
        self._notable = False  # whether there is more to do after a message than to wait for the next one
        self._errors = self._settled_errors = 0
        self._channels: set[str] = set()
        self._opened: list[IProcessor] = []
        self._queue: deque[tuple[bytes, bool, float]] | None = None
        self._receipts: Receipts | None = None
        self._run: list[bytes] | None = None
        self._state: dict[Any, Any] | None = None
        self._deadline: IDelayedCall | None = None
        self._last_words: tuple[int, str] | None = None

    # For processors and filters

    @property
    def identity(self) -> Identity:
        """Who it belongs to. A login message replaces it."""
        if self._identity is None:
            self._identity = Identity(user=None, connection_id=new_connection_id(), address=self.peer)
        return self._identity

    @identity.setter
    def identity(self, identity: Identity) -> None:
        old, self._identity = self._identity, identity
        for watcher in self._engine.watchers:
            watcher.session_identified(self, old, identity)

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
            result = self.subscribe_all(names) or succeed(None)
        except BusUnavailable:
            result = fail()
        for watcher in self._engine.watchers:
            for channel in self._channels.intersection(names):
                watcher.granted(self, channel)
        return result

    def unsubscribe(self, channel: str) -> None:
        """Take back a subscription of this connection; does nothing if there is none."""
        if channel in self._channels:
            self._channels.discard(channel)
            self._engine.hub.unsubscribe(self, channel)
            for watcher in self._engine.watchers:
                watcher.unsubscribed(self, channel)

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
        if self._run is not None:
            self._run.clear()
        self._depart()
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
        watchers = self._engine.watchers
        for channel in wanted:
            known = channel in self._channels
            send_frame: SendFrame = self._transport.send_frame
            if self._engine.delivery is not None:
                send_frame = self._engine.delivery(self, channel, send_frame)
            result = self._engine.hub.subscribe(self, channel, send_frame)
            self._channels.add(channel)
            if watchers and not known:
                self._tell_subscribed(channel)
            if result is not None:
                waiting.append(result.addErrback(self._not_subscribed, channel))
            if self._closing or self._ended:
                break
        if not waiting:
            return None
        gathered = gatherResults(waiting, consumeErrors=True)
        return gathered.addCallbacks(lambda _: None, lambda failure: failure.value.subFailure)

    def _tell_subscribed(self, channel: str) -> None:
        for watcher in self._engine.watchers:
            watcher.subscribed(self, channel)

    def publish_all(self, channels: Iterable[str], message: Message) -> MaybeDeferred:
        """Publish *message* to valid channel names; ``None`` if the bus has taken it at once."""
        return self._engine.hub.publish(channels, message.raw, message.binary)

    def publish_run(self, channels: tuple[str, ...], messages: Iterator[bytes], binary: bool) -> MaybeDeferred:
        """Publish messages as they are, without the headers meant for the server; see the hub."""
        return self._engine.hub.publish_run(channels, messages, binary)

    def silenced(self, channels: Iterable[str]) -> AbstractContextManager[None]:
        """Send this connection nothing that is published to *channels* meanwhile: :meth:`lhttp_tx.hub.Hub.silenced`."""
        return self._engine.hub.silenced(self, channels)

    # For the edge

    def receive_run(self, messages: list[bytes], first: int, binary: bool) -> int:
        """
        Take some of *messages* from the connection: one, or as many as can be handled together.

        :param messages: payloads of WebSocket data messages that came one after another.
        :param first: the index of the first one that was not taken yet.
        :param binary: whether they came as binary ones.
        :returns: the index of the first one that was not taken now.
        """
        data = messages[first]
        following = first + 1
        if self._busy or self._closing or self._ended:
            self.receive(data, binary)
            return following
        self._busy = True
        try:
            plan = self._engine.plan(data)
        except Exception:
            self._refuse(data)
            self._handled()
            return following
        if plan.shortcut is None:
            self._follow(plan, data, binary)
        elif following < len(messages) and messages[following].startswith(plan.beginning):
            run = self._not_too_large(_alike(messages, first, plan.beginning))
            following = first + len(run) - self._take_shortcut(plan, run, binary)
        else:
            self._take_shortcut(plan, [data], binary)
        if self._sequence.waiting is None and not self._queue and not self._notable:
            self._busy = False
        else:
            self._handled()
        return following

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
        self._handled()

    def connection_lost(self) -> None:
        """
        The connection has ended. It leaves its channels now; messages that had arrived are still handled, for as long
        as one message may take, then processors and filters are told.
        """
        if self._ended:
            return
        self._ended = self._notable = True
        if not self._closing:
            self._depart()
        if self._busy:
            self._deadline = self._engine.clock.callLater(self._engine.limits.processor_timeout, self.cut)
        else:
            self._close_down()

    def undelivered(self, frames: Iterable[bytes]) -> None:
        """
        Some of what was sent has not reached the client, and will not.

        :param frames: whole WebSocket frames.
        """
        messages = [message for frame in frames for message in split_messages(frame)]
        for call in self._engine.on_undelivered if messages else ():
            call(self, messages)

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
        self._notable = True
        if not self._busy and self._receipts is None:
            self.close(code, reason)

    def cut(self) -> None:
        """Cancel what is in hand and drop what waits, then go on as if it were done."""
        if self._queue:
            _log.warn("{peer}: {count} messages dropped at the end", peer=self.peer, count=len(self._queue))
            self._queue = None
        self._sequence.cancel()
        if self._receipts is not None:
            self._receipts.give_up()

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
        engine = self._engine
        self._queue.append((data, binary, engine.clock.seconds() if engine.wait_timeout else 0.0))
        if not self._paused and len(self._queue) >= self._engine.limits.queue_length:
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        """Handle what waits, until something must be waited for."""
        while self._sequence.waiting is None:
            if self._errors:
                self._count_errors()
            if not self._queue:
                self._busy = False
                self._rest()
                return
            data, binary, arrived = self._queue.popleft()
            if self._paused and len(self._queue) <= self._engine.limits.queue_length // 2 and not self._ended:
                self._paused = False
                self._transport.resume_reading()
            if self._engine.wait_timeout and self._engine.clock.seconds() - arrived > self._engine.wait_timeout:
                self._drop(data, binary)
            else:
                self._handle(data, binary)

    def _count_errors(self) -> None:
        """A message has been handled; if it was in order, those before it count no more."""
        if self._errors == self._settled_errors:
            self._errors = 0
            self._notable = self._ended or self._last_words is not None
        self._settled_errors = self._errors

    def _rest(self) -> None:
        """Called when nothing is in hand and nothing waits."""
        if self._closed_down:
            return
        if self._ended:
            self._close_down()
        elif self._last_words is not None and self._receipts is None:
            self.close(*self._last_words)

    def _handled(self) -> None:
        """Called when a message from the connection was handled, or something must be waited for."""
        if self._sequence.waiting is not None:
            return
        if self._queue or self._notable:
            self._resume()
        else:
            self._busy = False

    def _handle(self, data: bytes, binary: bool) -> None:
        try:
            plan = self._engine.plan(data)
        except Exception:
            self._refuse(data)
            return
        if plan.shortcut is None:
            self._follow(plan, data, binary)
        else:
            self._take_shortcut(plan, [data], binary)

    def _refuse(self, data: bytes) -> None:
        """Answer a message whose plan could not be made; to be called where the exception is handled."""
        self._answer(receipt_of(data, self._engine.limits), Failure())

    def _drop(self, data: bytes, binary: bool) -> None:
        """Do nothing with a message that has waited for too long, but tell those who may do something about it."""
        refused = Refused(503, f"message waited longer than {self._engine.wait_timeout:g} seconds")
        self._answer(receipt_of(data, self._engine.limits), Failure(refused))
        try:
            message = parse(data, binary=binary, limits=self._engine.limits)
        except LHTTPError:
            return
        for call in self._engine.on_wait_timeout:
            call(self, message)

    def _follow(self, plan: Plan, data: bytes, binary: bool) -> None:
        """Take a message through the steps of its plan."""
        assert plan.head is not None
        request = Request(self, Message.from_parts(plan.head, data, binary), plan.receipt)
        steps, done = (plan.before, self._before_done) if plan.before else (plan.rest, self._rest_done)
        if self._receipts is not None:
            steps = self._behind_receipts(plan, steps)
        self._sequence.run(steps, request, done)

    def _behind_receipts(self, plan: Plan, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        """Return the steps of a message in whose way receipts are that wait for the bus."""
        receipts = self._receipts
        if receipts is None or (plan.runs_ahead and receipts.has_room):
            return steps
        return ((lambda _: receipts.settled() if receipts is self._receipts else None, _PATIENCE), *steps)

    def _not_too_large(self, run: list[bytes]) -> list[bytes]:
        """Return the messages of *run* up to the first one that is too large, which is not the very first."""
        limit = self._engine.limits.message_size
        if max(map(len, run)) <= limit:
            return run
        return list(takewhile(lambda message: len(message) <= limit, run))

    def _take_shortcut(self, plan: Plan, run: list[bytes], binary: bool) -> int:
        """Take messages past the steps of their plan; return how many of them are left, behind one that waits."""
        assert plan.shortcut is not None
        assert plan.owner is not None
        self._run = run
        messages = iter(run)
        left = len(run)
        while left:
            try:
                result = plan.shortcut(self, messages, binary)
            except (KeyboardInterrupt, GeneratorExit):
                raise
            except BaseException:  # as in a step of a sequence
                self._answer(None, Failure())
            else:
                if result is not None:
                    self._sequence.wait(result, plan.owner, None, self._shortcut_done)
            if length_hint(messages) == left:
                next(messages, None)  # one that it does not take is passed over
            left = length_hint(messages)
            if self._sequence.waiting is not None:
                break
        self._run = None
        return left

    def _shortcut_done(self, _: object, failure: Failure | None) -> None:
        if failure is not None:
            self._answer(None, failure)

    def _before_done(self, request: Request, failure: Failure | None) -> None:
        if failure is None:
            try:
                plan = self._engine.plan_for(request.message.head)
            except Exception:
                failure = Failure()
            else:
                self._sequence.run(self._behind_receipts(plan, plan.rest), request, self._rest_done)
                return
        self._answer(request.receipt, failure)

    def _rest_done(self, request: Request, failure: Failure | None) -> None:
        if failure is not None:
            self._answer(request.receipt, failure)
        elif request.receipt is not None:
            try:
                pairs = [("receipt-id", request.receipt), *request.receipt_headers]
                receipt = Message("receipt", pairs, request.receipt_body, binary=request.receipt_binary)
                self._say(receipt, request.receipt if request.published else None)
            except Exception:
                self._answer(request.receipt, Failure())

    def _say(self, answer: Message, token: str | None = None) -> None:
        """
        Answer a message, behind the answers to those before it.

        :param token: that of a receipt that is sent when the bus has what was published.
        """
        receipts = self._receipts
        if receipts is not None:
            receipts.add(build_frame(answer.raw, answer.binary), token)
            return
        confirm = self._engine.hub.confirm
        confirmation = None if token is None else confirm()
        if token is None or confirmation is None:
            self.send(answer)
            return
        receipts = Receipts(confirm=confirm, send=self._send_frames, ended=self._receipts_sent, peer=self.peer)
        self._receipts = receipts
        receipts.begin(build_frame(answer.raw, answer.binary), token, confirmation)

    def _send_frames(self, frames: bytes) -> None:
        if not self._closing and not self._ended:
            self._engine.hub.flush()
            self._transport.send_frame(frames)

    def _receipts_sent(self) -> None:
        self._receipts = None
        if self._last_words is not None and not self._busy:
            self.close(*self._last_words)

    def _open_done(self, _: object, failure: Failure | None) -> None:
        if failure is not None:
            self._answer(None, failure)
            self.close(1008 if isinstance(failure.value, LHTTPError) else 1011, "connection not accepted")

    def _answer(self, receipt: str | None, failure: Failure) -> None:
        """Tell the client what went wrong."""
        status, reason = error_of(failure, self.peer)
        self._say(error_message(status, reason, receipt))
        if 400 <= status < 500:
            self._errors += 1
            self._notable = True
            if self._errors == self._engine.limits.error_count and not self.closed:
                _log.info("{peer}: closed after {count} errors in a row", peer=self.peer, count=self._errors)
                self.close(POLICY_VIOLATION, "too many errors in a row")
        receipts = self._receipts
        if receipts is not None and not receipts.has_room and not self.closed:
            self._sequence.wait(receipts.settled(), _PATIENCE, None, lambda _, failure: None)

    # The end

    def _depart(self) -> None:
        """Leave all channels; called once, when the connection begins to close or has ended."""
        channels, self._channels = self._channels, set()
        for channel in channels:
            self._engine.hub.unsubscribe(self, channel)
        for watcher in self._engine.watchers:
            for channel in channels:
                watcher.unsubscribed(self, channel)
            watcher.session_closed(self)

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


def _alike(messages: list[bytes], first: int, beginning: bytes) -> list[bytes]:
    """Return those of *messages* from *first* on, one and the ones behind it, that begin with *beginning*."""
    if all(map(bytes.startswith, islice(messages, first + 1, None), repeat(beginning))):  # mostly so, and soon seen
        return messages[first:]
    return list(takewhile(methodcaller("startswith", beginning), islice(messages, first, None)))


def _names(channels: str | Iterable[str]) -> list[str]:
    names = [channels] if isinstance(channels, str) else list(channels)
    for name in names:
        check_channel(name)
    return names
