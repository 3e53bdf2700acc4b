"""
The client: one connection to a server, kept alive, with everything that a program asks of it.

:class:`Client` is an ``IService``. Below it, Twisted's ``ClientService`` connects again after a loss, through the
:class:`~lhttp_tx.client.protocol.WebSocketEndpoint`. Imports the codec and nothing else of the server.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import count
from typing import Any, final

from twisted.application.internet import ClientService, backoffPolicy
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, TimeoutError as DeferredTimeout, fail, succeed
from twisted.internet.endpoints import HostnameEndpoint, clientFromString, wrapClientTLS
from twisted.internet.interfaces import (
    IDelayedCall,
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from lhttp_tx.channels import check_channel
from lhttp_tx.client.errors import (
    ClientClosed,
    ConnectFailed,
    ConnectionLost,
    NoReply,
    QueueFull,
    ReplyError,
    RequestTimeout,
)
from lhttp_tx.client.protocol import WebSocketConnection, WebSocketEndpoint, WebSocketFactory, parse_url
from lhttp_tx.client.subscription import MessageCallback, Subscription, call_safely, fire_all
from lhttp_tx.errors import LHTTPError, RemoteProtocolError
from lhttp_tx.limits import Limits
from lhttp_tx.message import Head, HeaderPairs, Message, parse_head, split_head

__all__ = ["Client", "State"]

_log = Logger()

_MAX_PENDING = 10_000
"""Receipts and replies that one client may wait for at one time."""

_MAX_HEADS = 256
"""Different heads of received messages that are remembered parsed."""

_MAX_COPIES = 1_024
"""Different publications to several of our channels of which a copy is still awaited."""

_CHANNEL_LIST_SIZE = 4_096
"""Bytes of channel names in one message that subscribes again; a server takes heads of 8,192."""

_FRAGMENT_SIZE = 16_384
"""Bytes in each fragment of a message whose sending is watched."""


class State(Enum):
    """What a client is doing."""

    IDLE = "idle"
    """It was not started yet."""
    CONNECTING = "connecting"
    """An attempt to connect is on its way."""
    CONNECTED = "connected"
    """The connection is up and the server has confirmed the subscriptions."""
    WAITING = "waiting"
    """There is no connection; the next attempt will be made after a pause."""
    CLOSING = "closing"
    """The connection is being closed."""
    CLOSED = "closed"
    """It was closed."""


@dataclass(slots=True, eq=False)
class _Pending:
    """An answer that is awaited."""

    token: str
    deferred: Deferred[Any]
    timer: IDelayedCall | None = None
    reply_command: str | None = None
    reply: Message | None = None
    sent: bool = False


@final
class Client(Service):
    """
    A client of one server.

    ::

        client = Client("ws://127.0.0.1:8081/", reactor=reactor)
        await client.connect()
        await client.subscribe("room.a", lambda message: print(message.text))
        await client.publish("room.a", "chat", body="hello")
        await client.close()

    **Connections.** When a connection is lost, it is made again after a pause that grows and varies by chance; the
    subscriptions are restored before anything else is sent. Messages that others published meanwhile are not
    delivered. What was sent and not answered fails with :exc:`~lhttp_tx.client.errors.ConnectionLost` and is not sent
    again, since the server may have done it. What is sent while there is no connection waits, up to ``queue_length``
    messages; more are refused with :exc:`~lhttp_tx.client.errors.QueueFull`.

    **Answers.** Every Deferred fires within its time limit, and when the client is closed.

    **What arrives** goes to the subscriptions of the channel that its ``publish`` header lists; else, to the request
    that it replies to; else to ``on_message``. A message that was published to several of our channels comes once for
    each, and each subscription gets one of them. A published message is never taken for a receipt, an error or, if
    we are subscribed to its channel, a reply.

    Not to be used from several threads, as everything of Twisted.
    """

    def __init__(
        self,
        target: str | IStreamClientEndpoint,
        *,
        reactor: Any,
        url: str | None = None,
        tls: IOpenSSLClientConnectionCreator | None = None,
        headers: dict[str, str] | None = None,
        on_message: MessageCallback | None = None,
        on_error: Callable[[LHTTPError], object] | None = None,
        on_state: Callable[[State, str], object] | None = None,
        retry_policy: Callable[[int], float] | None = None,
        timeout: float = 30.0,
        connect_timeout: float = 10.0,
        close_timeout: float = 2.0,
        ping_interval: float = 30.0,
        ping_timeout: float = 10.0,
        queue_length: int = 100,
        unsent_size: int = 1_048_576,
        max_message_size: int = 1_048_576,
    ) -> None:
        """
        :param target: a ``ws://`` or ``wss://`` URL; or a client endpoint, or the description of one, such as
            ``unix:/run/lhttp.sock`` or ``tls:host:443``.
        :param reactor: the running reactor, of any kind.
        :param url: what to ask an endpoint for, and under which name: ``ws://localhost/`` by default.
        :param tls: how ``wss://`` checks the server, from ``twisted.internet.ssl.optionsForClientTLS``; by default by
            the authorities that the system trusts.
        :param headers: HTTP headers to add to the opening handshake.
        :param on_message: gets messages that belong to no subscription and to no request.
        :param on_error: gets errors that belong to no call: answers to messages without a receipt, refused
            subscriptions, malformed messages. By default they are logged.
        :param on_state: called with each new state and one line of text that says why.
        :param retry_policy: returns the seconds to wait before an attempt, given how many have failed; by default half
            a second, half as much more each time up to 30, and up to one by chance, as ``backoffPolicy`` does.
        :param timeout: seconds for a receipt or a reply, unless the call says otherwise.
        :param connect_timeout: seconds for one attempt to connect, the handshake included.
        :param close_timeout: seconds in which the server must answer a close.
        :param ping_interval: seconds between pings, 0 for none.
        :param ping_timeout: seconds in which the server must answer a ping.
        :param queue_length: messages that may wait for a connection; 0 refuses them.
        :param unsent_size: bytes that may wait for a server that does not read.
        :param max_message_size: bytes of a received message; the connection is closed for a larger one.
        :raises ValueError: if *target* or *url* is malformed.
        """
        super().__init__()
        is_url = isinstance(target, str) and "://" in target
        self.url = target if is_url and isinstance(target, str) else url or "ws://localhost/"
        parse_url(self.url)
        self.state = State.IDLE
        self.timeout = timeout
        self._reactor = reactor
        self._on_message = on_message
        self._on_error = on_error
        self._on_state = on_state
        self._queue_length = queue_length
        self._unsent_size = unsent_size
        self._limits = Limits(message_size=max_message_size)
        self._endpoint = _Attempts(
            WebSocketEndpoint(
                _url_endpoint(self.url, reactor, tls, connect_timeout) if is_url else _endpoint(target, reactor),
                WebSocketFactory(
                    self.url,
                    reactor=reactor,
                    headers=headers,
                    max_message_size=max_message_size,
                    ping_interval=ping_interval,
                    ping_timeout=ping_timeout,
                    close_timeout=close_timeout,
                ),
                connect_timeout,
            ),
            self,
        )
        self._retry_policy = retry_policy or backoffPolicy(initialDelay=0.5, maxDelay=30.0)
        self._service: ClientService | None = None
        self._link: _Link | None = None
        self._opening: _Link | None = None
        self._closing: list[Deferred[None]] = []
        self._waiting: list[tuple[Deferred[None], int | None]] = []
        self._queue: deque[tuple[Message, _Pending | None]] = deque()
        self._tokens = count(1)
        self._pending: OrderedDict[str, _Pending] = OrderedDict()
        self._subscriptions: dict[str, list[Subscription]] = {}
        self._on_server: set[str] = set()
        self._copies: OrderedDict[bytes, int] = OrderedDict()

    # The connection

    def connect(self, attempts: int | None = 1, timeout: float | None = None) -> Deferred[None]:
        """
        Start the client, unless it runs, and wait until it is connected.

        :param attempts: how many attempts may fail; ``None`` for as many as it takes.
        :param timeout: seconds to wait; ``None`` for no limit but that of the attempts.
        :returns: a Deferred that

            - succeeds when the connection is up and the subscriptions are confirmed;
            - fails with :exc:`~lhttp_tx.client.errors.ConnectFailed`; the client is closed then. With
              :exc:`~lhttp_tx.client.errors.ClientClosed` if somebody closed it.
        """

        def failed(failure: Failure) -> Deferred[Any]:
            return self.close().addCallback(lambda _: failure)

        if self.running:
            return self.when_connected(attempts, timeout).addErrback(failed)
        waiting = self._wait(attempts, timeout)
        self.startService()
        return waiting.addErrback(failed)

    def when_connected(self, attempts: int | None = None, timeout: float | None = None) -> Deferred[None]:
        """
        Wait until the client is connected; unlike :meth:`connect` this starts and closes nothing.

        :returns: a Deferred as of :meth:`connect`.
        """
        if self.state is State.CONNECTED:
            return succeed(None)
        if self.state in (State.CLOSING, State.CLOSED):
            return fail(ClientClosed("the client is closed"))
        return self._wait(attempts, timeout)

    def _wait(self, attempts: int | None, timeout: float | None) -> Deferred[None]:
        def cancelled(deferred: Deferred[None]) -> None:
            self._waiting = [entry for entry in self._waiting if entry[0] is not deferred]

        waiting: Deferred[None] = Deferred(cancelled)
        self._waiting.append((waiting, attempts))
        if timeout is None:
            return waiting
        return waiting.addTimeout(timeout, self._reactor).addErrback(
            _instead_of(DeferredTimeout, ConnectFailed(f"not connected within {timeout:g} seconds"))
        )

    def startService(self) -> None:
        """Begin to connect; part of ``IService``."""
        if self.running:
            return
        super().startService()
        self._service = ClientService(
            self._endpoint,
            Factory.forProtocol(lambda: _Link(self)),
            retryPolicy=self._retry_policy,
            clock=self._reactor,
        )
        self._service.startService()

    def stopService(self) -> Deferred[None]:
        """Close the connection and stop connecting; part of ``IService``. See :meth:`close`."""
        if self.state is State.CLOSING:
            closed: Deferred[None] = Deferred(self._closing.remove)
            self._closing.append(closed)
            return closed
        if not self.running or self._service is None:
            self._finish("the client is closed")
            return succeed(None)
        super().stopService()
        service, self._service = self._service, None
        self._set_state(State.CLOSING, "closed by this side")
        # In the next turn, since a callback may have called this in the midst of what the service does.
        stopped: Deferred[Any] = deferLater(self._reactor, 0, service.stopService)
        return stopped.addCallback(lambda _: self._finish("the client is closed"))

    def close(self) -> Deferred[None]:
        """
        Close the client for good. What waits fails with :exc:`~lhttp_tx.client.errors.ClientClosed`; iterators end.

        :returns: a Deferred that succeeds when the connection has ended. What was sent before is on its way; wait for
            receipts to be sure that it has arrived.
        """
        return self.stopService()

    def _finish(self, reason: str) -> None:
        if self.state is State.CLOSED:
            return
        self._set_state(State.CLOSED, reason)
        error = ClientClosed(reason)
        waiting, self._waiting = self._waiting, []
        for deferred, _ in waiting:
            deferred.errback(Failure(error))
        self._queue.clear()
        self._fail_pending(error, sent_only=False)
        subscriptions, self._subscriptions = self._subscriptions, {}
        for subscription in [one for several in subscriptions.values() for one in several]:
            subscription.end(error)
        fire_all(self._closing, None)

    def _set_state(self, state: State, reason: str) -> None:
        if state is self.state:
            return
        self.state = state
        _log.info("{url}: {state}: {reason}", url=self.url, state=state.value, reason=reason)
        if self._on_state is not None:
            call_safely(self._on_state, state, reason)

    # Sending

    def send(self, message: Message) -> None:
        """
        Send a message and ask for nothing. If the server refuses it, ``on_error`` is called.

        :raises QueueFull: if as much as allowed waits already.
        :raises ClientClosed: if the client is closed.
        """
        self._send(message, None)

    def confirm(self, message: Message, timeout: float | None = None) -> Deferred[Message]:
        """
        Send a message and wait for the server's receipt.

        :param message: the message; the ``receipt`` header is added.
        :param timeout: seconds, by default the client's.
        :returns: a Deferred that

            - succeeds with the receipt, once everything that the message asked for is done. It holds the answer of
              a backend, if there was an ``upstream`` header;
            - fails with :exc:`~lhttp_tx.client.errors.ReplyError` if the server refuses it, with
              :exc:`~lhttp_tx.client.errors.RequestTimeout`, :exc:`~lhttp_tx.client.errors.ConnectionLost` or
              :exc:`~lhttp_tx.client.errors.QueueFull`.
        """
        return self._ask(message, timeout, None)

    def publish(
        self,
        channels: str | Iterable[str],
        command: str,
        headers: HeaderPairs | dict[str, str] = (),
        body: bytes | str = b"",
        *,
        binary: bool = False,
        receipt: bool = True,
        timeout: float | None = None,
    ) -> Deferred[None]:
        """
        Publish a message.

        :param channels: a channel name, or several.
        :param command: the command of the message.
        :param headers: pairs of name and value, or a dict of them.
        :param body: the body; a str is sent as UTF-8.
        :param binary: whether it travels as a binary WebSocket message.
        :param receipt: whether to ask for a receipt.
        :param timeout: seconds for the receipt, by default the client's.
        :returns: a Deferred that

            - succeeds when the server has published it; without a receipt, when it was handed to the connection or
              waits for one;
            - fails as that of :meth:`confirm`.
        :raises LocalProtocolError: if the message is not well-formed.
        :raises RemoteProtocolError: if a channel name is malformed or reserved.
        """
        names = [check_channel(name) for name in ([channels] if isinstance(channels, str) else channels)]
        pairs = headers.items() if isinstance(headers, dict) else headers
        message = Message(command, [("publish", " ".join(names)), *pairs], body, binary=binary)
        if receipt:
            return self.confirm(message, timeout).addCallback(lambda _: None)
        try:
            self._send(message, None)
        except LHTTPError as error:
            return fail(error)
        return succeed(None)

    def request(
        self,
        message: Message | str,
        headers: HeaderPairs | dict[str, str] = (),
        body: bytes | str = b"",
        *,
        binary: bool = False,
        reply_command: str | None = None,
        timeout: float | None = None,
    ) -> Deferred[Message]:
        """
        Send a message to a processor and wait for its reply.

        The rule: the request asks for a receipt, and its reply is the first message with the expected command that
        comes before that receipt and after the receipts of everything sent earlier. A server handles the messages
        of a connection one after the other, so no other request's reply can be taken for it.

        :param message: the message; or its command, with the other arguments as of :class:`~lhttp_tx.message.Message`.
        :param reply_command: the command of the reply, by default that of the request.
        :param timeout: seconds, by default the client's.
        :returns: a Deferred that

            - succeeds with the reply;
            - fails with :exc:`~lhttp_tx.client.errors.NoReply` if the receipt came and no reply, else as that of
              :meth:`confirm`.
        :raises LocalProtocolError: if the message is not well-formed.
        """
        if isinstance(message, str):
            message = Message(message, headers, body, binary=binary)
        return self._ask(message, timeout, reply_command or message.command)

    def upload(
        self, message: Message, progress: Callable[[int, int], object], timeout: float | None = None
    ) -> Deferred[Message]:
        """
        As :meth:`request`, for a large message that is to be watched on its way.

        It is sent in fragments, each when the one before has left this process. Other messages wait until it is sent.

        :param progress: called with the bytes sent so far and those of the whole message.
        :param timeout: seconds for all of it, by default the client's.
        :returns: a Deferred as that of :meth:`request`; also fails with
            :exc:`~lhttp_tx.client.errors.ConnectionLost` if there is no connection.
        """
        if self._link is None or self._link.uploading:
            return fail(ConnectionLost("there is no connection, or another upload is on its way"))
        link = self._link
        return self._ask(message, timeout, message.command, lambda whole: link.upload(whole, progress))

    def _send(self, message: Message, pending: _Pending | None) -> None:
        if self.state in (State.CLOSING, State.CLOSED):
            raise ClientClosed("the client is closed")
        if self._link is not None:
            self._link.send(message, self._unsent_size)
            if pending is not None:
                pending.sent = True
        elif len(self._queue) < self._queue_length:
            self._queue.append((message, pending))
        else:
            raise QueueFull(f"no connection, and {len(self._queue)} messages wait for one already")

    def _ask(
        self,
        message: Message,
        timeout: float | None,
        reply_command: str | None,
        send: Callable[[Message], None] | None = None,
    ) -> Deferred[Message]:
        if len(self._pending) >= _MAX_PENDING:
            return fail(QueueFull(f"{len(self._pending)} answers are awaited already"))
        token = str(next(self._tokens))
        whole = message.replace(headers=[*message.headers.without({"receipt"}), ("receipt", token)])
        pending = _Pending(token, Deferred(lambda _: self._give_up(pending)), reply_command=reply_command)
        self._pending[token] = pending
        try:
            if send is None:
                self._send(whole, pending)
            else:
                pending.sent = True
                send(whole)
        except LHTTPError as error:
            del self._pending[token]
            return fail(error)
        seconds = self.timeout if timeout is None else timeout
        reason = f"no answer within {seconds:g} seconds"
        pending.timer = self._reactor.callLater(seconds, self._expired, pending, reason)
        return pending.deferred

    def _give_up(self, pending: _Pending) -> None:
        """Nobody waits any longer. What was sent keeps its place, so that a late reply is not taken for another."""
        if pending.timer is not None and pending.timer.active():
            pending.timer.cancel()
        if not pending.sent:
            self._pending.pop(pending.token, None)
            self._queue = deque(entry for entry in self._queue if entry[1] is not pending)

    def _expired(self, pending: _Pending, reason: str) -> None:
        self._give_up(pending)
        pending.deferred.errback(Failure(RequestTimeout(reason)))

    def _answered(self, pending: _Pending, result: Message | Failure) -> None:
        if pending.timer is not None and pending.timer.active():
            pending.timer.cancel()
        if not pending.deferred.called:
            pending.deferred.callback(result)

    def _fail_pending(self, error: LHTTPError, *, sent_only: bool) -> None:
        lost = [pending for pending in self._pending.values() if pending.sent or not sent_only]
        for pending in lost:
            del self._pending[pending.token]
        for pending in lost:
            self._answered(pending, Failure(error))

    # Subscriptions

    def subscribe(self, channel: str, callback: MessageCallback | None = None, *, buffer: int = 1_000) -> Subscription:
        """
        Subscribe to a channel, on this connection and on those that follow it.

        :param channel: a channel name.
        :param callback: called with each message; without it, iterate over the subscription.
        :param buffer: messages that are kept for the iterator, at least 1. When it is full, a new message pushes out
            the oldest; see :class:`~lhttp_tx.client.subscription.Subscription`.
        :returns: the subscription; ``await`` it to know that the server has confirmed it. If the server refuses it,
            it ends with that error, and ``on_error`` is called.
        :raises RemoteProtocolError: if the channel name is malformed or reserved.
        :raises ClientClosed: if the client is closed.
        :raises ValueError: if *buffer* is not positive.
        """
        check_channel(channel)
        if buffer < 1:
            raise ValueError(f"a buffer of {buffer} messages holds none")
        if self.state in (State.CLOSING, State.CLOSED):
            raise ClientClosed("the client is closed")
        subscription = Subscription(self, channel, callback, buffer)
        others = self._subscriptions.setdefault(channel, [])
        others.append(subscription)
        self._copies.clear()
        if channel in self._on_server:
            subscription.confirm()
        elif self._link is not None and len(others) == 1:
            self._subscribe_on_server([channel])
        return subscription

    def forget(self, subscription: Subscription) -> Deferred[None]:
        """End *subscription*; see :meth:`~lhttp_tx.client.subscription.Subscription.unsubscribe`."""
        channel = subscription.channel
        subscription.end(ClientClosed("unsubscribed"))
        others = self._subscriptions[channel]
        others.remove(subscription)
        if others:
            return succeed(None)
        del self._subscriptions[channel]
        self._on_server.discard(channel)
        self._copies.clear()
        if self._link is None:
            return succeed(None)
        gone = self.confirm(Message("unsubscribe", {"unsubscribe": channel})).addCallback(lambda _: None)
        return gone.addErrback(lambda failure: failure.trap(ConnectionLost) and None)

    def limited(self, waiting: Deferred[Any], timeout: float | None, what: str) -> Deferred[Any]:
        """Return *waiting* with a time limit, by default the client's, past which it fails as a request does."""
        seconds = self.timeout if timeout is None else timeout
        error = RequestTimeout(f"{what} within {seconds:g} seconds")
        return waiting.addTimeout(seconds, self._reactor).addErrback(_instead_of(DeferredTimeout, error))

    def _subscribe_on_server(self, channels: list[str]) -> Deferred[None]:
        """Ask for *channels*; succeeds when all are confirmed or refused, fails if the server does not say."""
        link = self._link
        asked = self.confirm(Message("subscribe", {"subscribe": " ".join(channels)}))

        def confirmed(_: object) -> None:
            for channel in channels:
                if channel in self._subscriptions:
                    self._on_server.add(channel)
                for subscription in tuple(self._subscriptions.get(channel, ())):
                    subscription.confirm()

        def failed(failure: Failure) -> Deferred[None] | None:
            failure.trap(LHTTPError)
            error: Any = failure.value
            if not isinstance(error, ReplyError):
                if link is not None and link is self._link:
                    link.abort(f"subscriptions were not confirmed: {error.reason}")
                return None
            if len(channels) > 1:
                # One of them is at fault, or all are too many: ask for each.
                alone = iter([[channel] for channel in channels if channel in self._subscriptions])
                return self._subscribe_in_turn(alone)
            for subscription in self._subscriptions.pop(channels[0], ()):
                subscription.end(error)
            self._report(ReplyError(f"channel {channels[0]}: {error.reason}", status=error.status))
            return None

        return asked.addCallbacks(confirmed, failed)

    def _subscribe_in_turn(self, lists: Iterator[list[str]]) -> Deferred[None]:
        channels = next(lists, None)
        if channels is None:
            return succeed(None)
        return self._subscribe_on_server(channels).addCallback(lambda _: self._subscribe_in_turn(lists))

    # Called by the endpoint and the link

    def attempt_begins(self) -> None:
        """An attempt to connect begins."""
        if self.running:
            self._set_state(State.CONNECTING, f"connecting to {self.url}")

    def attempt_failed(self, failure: Failure) -> None:
        """An attempt to connect has failed."""
        if self.state is not State.CONNECTING:
            return
        error = _connect_error(failure, self.url)
        self._set_state(State.WAITING, error.reason)
        left = [(deferred, None if attempts is None else attempts - 1) for deferred, attempts in self._waiting]
        self._waiting = [entry for entry in left if entry[1] != 0]
        fire_all([deferred for deferred, attempts in left if attempts == 0], Failure(error))

    def link_made(self, link: _Link) -> None:
        """A connection is up. The service below does not know it yet, so nobody may be told before the next turn."""
        self._opening = link
        self._reactor.callLater(0, self._open, link)

    def _open(self, link: _Link) -> None:
        """Restore the subscriptions, send what waits, and say so when all is confirmed."""
        if self._opening is not link or self.state is not State.CONNECTING:
            return
        self._link, self._opening = link, None
        lists = list(_channel_lists(self._subscriptions))
        restored = [self._subscribe_on_server(channels) for channels in lists]
        queue, self._queue = self._queue, deque()
        for message, pending in queue:
            try:
                self._send(message, pending)
            except LHTTPError as error:
                if pending is None:
                    self._report(error)
                else:
                    self._pending.pop(pending.token, None)
                    self._answered(pending, Failure(error))
        self._when_restored(link, iter(restored))

    def _when_restored(self, link: _Link, restored: Iterator[Deferred[None]]) -> None:
        first = next(restored, None)
        if first is not None:
            first.addCallback(lambda _: self._when_restored(link, restored))
        elif self._link is link and self.state is State.CONNECTING:
            self._set_state(State.CONNECTED, f"connected to {self.url}")
            waiting, self._waiting = self._waiting, []
            fire_all([deferred for deferred, _ in waiting], None)

    def link_lost(self, link: _Link, failure: Failure) -> None:
        """The connection has ended."""
        if link is not self._link and link is not self._opening:
            return
        self._link = self._opening = None
        self._on_server.clear()
        self._copies.clear()
        reason = link.abort_reason or getattr(failure.value, "reason", None) or "the connection was lost"
        if self.state is not State.CLOSING:
            self._set_state(State.WAITING, reason)
        error = ClientClosed("the client is closed") if self.state is State.CLOSING else ConnectionLost(reason)
        self._fail_pending(error, sent_only=True)

    def received(self, message: Message) -> None:
        """Hand a message to whom it concerns."""
        if "publish" in message.headers:
            if self._publication(message):
                return
        elif message.command in ("receipt", "error") and self._answer(message):
            return
        first = next((one for one in self._pending.values() if one.sent and one.reply_command is not None), None)
        if first is not None and first.reply is None and first.reply_command == message.command:
            first.reply = message
        elif self._on_message is not None:
            call_safely(self._on_message, message)

    def malformed(self, error: LHTTPError) -> None:
        """A message came that does not follow the protocol."""
        self._report(error)

    def _answer(self, message: Message) -> bool:
        token = message.headers.get("receipt-id")
        pending = None if token is None else self._pending.pop(token, None)
        if message.command == "error":
            error = _reply_error(message)
            if pending is None:
                self._report(error)
            else:
                self._answered(pending, Failure(error))
            return True
        if pending is None:
            return False
        if pending.reply_command is None:
            self._answered(pending, message)
        elif pending.reply is not None:
            self._answered(pending, pending.reply)
        else:
            self._answered(pending, Failure(NoReply(f"no reply with the command {pending.reply_command}")))
        return True

    def _publication(self, message: Message) -> bool:
        try:
            ours = [channel for channel in message.head.channels("publish") if channel in self._subscriptions]
        except RemoteProtocolError:
            return False
        if not ours:
            return False
        channel = ours[0] if len(ours) == 1 else ours[self._copy_number(message.raw, len(ours))]
        for subscription in tuple(self._subscriptions[channel]):
            subscription.deliver(message)
        return True

    def _copy_number(self, raw: bytes, copies: int) -> int:
        """Return how many copies of a publication to several of our channels came before this one."""
        number = self._copies.pop(raw, 0)
        if number + 1 < copies:
            self._copies[raw] = number + 1
            if len(self._copies) > _MAX_COPIES:
                self._copies.popitem(last=False)
        return number

    def _report(self, error: LHTTPError) -> None:
        if self._on_error is not None:
            call_safely(self._on_error, error)
        else:
            _log.warn("{url}: {status} {reason}", url=self.url, status=error.status, reason=error.reason)

    def parse(self, payload: bytes, binary: bool, heads: dict[bytes, Head]) -> Message:
        """Parse a message; equal heads are parsed once for each connection."""
        raw = split_head(payload, self._limits)
        head = heads.get(raw)
        if head is None:
            head = parse_head(raw, self._limits)
            if len(heads) >= _MAX_HEADS:
                heads.clear()
            heads[raw] = head
        return Message.from_parts(head, payload, binary)

    def __repr__(self) -> str:
        return f"<Client {self.url} {self.state.value}>"


@final
class _Link(Protocol):
    """The client's end of one connection."""

    transport: WebSocketConnection  # type: ignore[assignment]

    def __init__(self, client: Client) -> None:
        self._client = client
        self._heads: dict[bytes, Head] = {}
        self._upload: Iterator[None] | None = None
        self._behind: deque[Message] = deque()
        self._behind_size = 0
        self.abort_reason: str | None = None

    @property
    def uploading(self) -> bool:
        """Whether a message is being sent in fragments."""
        return self._upload is not None

    def connectionMade(self) -> None:
        self._client.link_made(self)

    def message_received(self, payload: bytes, binary: bool) -> None:
        try:
            message = self._client.parse(payload, binary, self._heads)
        except LHTTPError as error:
            self._client.malformed(error)
        else:
            self._client.received(message)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._upload = None
        self._behind.clear()
        self._client.link_lost(self, reason)

    def send(self, message: Message, unsent_size: int) -> None:
        waiting = self.transport.unsent + self._behind_size
        if waiting and waiting + len(message.raw) > unsent_size:
            raise QueueFull(f"the server does not read: {waiting} bytes are unsent")
        if self._upload is not None:
            self._behind.append(message)
            self._behind_size += len(message.raw)
        else:
            self.transport.send_message(message.raw, message.binary)

    def upload(self, message: Message, progress: Callable[[int, int], object]) -> None:
        self._upload = self._fragments(message, progress)
        self.writable()

    def _fragments(self, message: Message, progress: Callable[[int, int], object]) -> Iterator[None]:
        raw, size = message.raw, len(message.raw)
        for start in range(0, size, _FRAGMENT_SIZE):
            stop = min(start + _FRAGMENT_SIZE, size)
            self.transport.send_fragment(raw[start:stop], message.binary, first=start == 0, last=stop == size)
            call_safely(progress, stop, size)
            yield

    def writable(self) -> None:
        """See :class:`~lhttp_tx.client.protocol.Link`; goes on with an upload."""
        while self._upload is not None and not self.transport.congested:
            if next(self._upload, _DONE) is _DONE:
                self._upload = None
                behind, self._behind, self._behind_size = self._behind, deque(), 0
                for message in behind:
                    self.transport.send_message(message.raw, message.binary)

    def abort(self, reason: str) -> None:
        self.abort_reason = reason
        self.transport.abort()


_DONE = object()


@implementer(IStreamClientEndpoint)
class _Attempts:
    """An endpoint that tells the client of each attempt."""

    def __init__(self, endpoint: WebSocketEndpoint, client: Client) -> None:
        self._endpoint = endpoint
        self._client = client

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect; the result is the endpoint's."""
        self._client.attempt_begins()

        def failed(failure: Failure) -> Failure:
            self._client.attempt_failed(failure)
            return failure

        return self._endpoint.connect(protocolFactory).addErrback(failed)

    def __repr__(self) -> str:
        return repr(self._endpoint)


def _endpoint(target: str | IStreamClientEndpoint, reactor: Any) -> IStreamClientEndpoint:
    if not isinstance(target, str):
        return target
    endpoint: IStreamClientEndpoint = clientFromString(reactor, target)
    return endpoint


def _url_endpoint(
    url: str, reactor: Any, tls: IOpenSSLClientConnectionCreator | None, timeout: float
) -> IStreamClientEndpoint:
    parts = parse_url(url)
    host = parts.hostname or ""
    endpoint = HostnameEndpoint(reactor, host, parts.port or (443 if parts.scheme == "wss" else 80), timeout)
    if parts.scheme == "ws":
        return endpoint
    wrapped: IStreamClientEndpoint = wrapClientTLS(optionsForClientTLS(host) if tls is None else tls, endpoint)
    return wrapped


def _channel_lists(channels: Iterable[str]) -> Iterator[list[str]]:
    """Split *channels* into lists that fit into the head of one message each."""
    found: list[str] = []
    size = 0
    for channel in channels:
        size += len(channel.encode("utf-8")) + 1
        if found and size > _CHANNEL_LIST_SIZE:
            yield found
            found, size = [], len(channel.encode("utf-8")) + 1
        found.append(channel)
    if found:
        yield found


def _reply_error(message: Message) -> ReplyError:
    status = message.headers.get("status", "")
    number = int(status) if status.isascii() and status.isdigit() and len(status) == 3 else 500
    return ReplyError(message.headers.get("reason", "the server gives no reason"), status=number)


def _connect_error(failure: Failure, url: str) -> ConnectFailed:
    error = failure.value
    if isinstance(error, ConnectFailed):
        return ConnectFailed(f"cannot connect to {url}: {error.reason}")
    if failure.check(DeferredTimeout):
        return ConnectFailed(f"cannot connect to {url}: no answer in time")
    if failure.check(CancelledError):
        return ConnectFailed(f"cannot connect to {url}: cancelled")
    text = " ".join(str(error).split()).rstrip(".")
    return ConnectFailed(f"cannot connect to {url}: {text or type(error).__name__}")


def _instead_of(kind: type[Exception], error: LHTTPError) -> Callable[[Failure], Failure]:
    """Return an errback that turns failures of *kind* into *error*."""

    def errback(failure: Failure) -> Failure:
        failure.trap(kind)
        return Failure(error)

    return errback
