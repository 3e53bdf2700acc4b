"""
The client: what programs call.

:class:`Client` is an ``IService`` that puts the parts together: :mod:`lhttp_tx.client.uplink` keeps the connection,
:mod:`lhttp_tx.client.registry` knows the subscriptions, :mod:`lhttp_tx.client.answers` what is awaited, and
:mod:`lhttp_tx.client.inbox` brings what arrives to them. Used by programs through :mod:`lhttp_tx.client`, and by the
``lhttp`` command. Imports the codec and nothing else of the server.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, final

from twisted.application.internet import backoffPolicy
from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IStreamClientEndpoint
from twisted.python.failure import Failure

from lhttp_tx.channels import check_channel, check_subscription
from lhttp_tx.client.answers import Answers, Pending
from lhttp_tx.client.credentials import Account, Credentials, HeaderSource
from lhttp_tx.client.endpoints import is_url, stream_endpoint
from lhttp_tx.client.entrance import HeadersEndpoint, LoginEndpoint
from lhttp_tx.client.errors import ClientClosed, ConnectionLost
from lhttp_tx.client.inbox import Inbox, Reporter
from lhttp_tx.client.protocol import WebSocketEndpoint, WebSocketFactory, parse_url
from lhttp_tx.client.registry import Registry
from lhttp_tx.client.renewal import Renewal
from lhttp_tx.client.states import State
from lhttp_tx.client.subscription import MessageCallback, Subscription
from lhttp_tx.client.uplink import Uplink
from lhttp_tx.errors import LHTTPError
from lhttp_tx.limits import Limits
from lhttp_tx.message import HeaderPairs, Message

__all__ = ["Client", "State"]


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

    **Logins.** With ``login``, every connection begins with a login message, and nothing else is sent before the server
    has answered it. Until then the client is connecting; a login that is refused is an attempt that has failed, and the
    tenth in a row is the last. While the connection is there, the client logs in again when half of the time that is
    left has gone.

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
        headers: dict[str, str] | HeaderSource | None = None,
        login: HeaderSource | None = None,
        login_required: bool = True,
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
        now: Callable[[], float] = time.time,
    ) -> None:
        """
        :param target: a ``ws://`` or ``wss://`` URL; or a client endpoint, or the description of one, such as
            ``unix:/run/lhttp.sock`` or ``tls:host:443``.
        :param reactor: the running reactor, of any kind.
        :param url: what to ask an endpoint for, and under which name: ``ws://localhost/`` by default.
        :param tls: how ``wss://`` checks the server, from ``twisted.internet.ssl.optionsForClientTLS``; by default by
            the authorities that the system trusts.
        :param headers: HTTP headers to add to the opening handshake; or a function that is called for each handshake
            and gives them, as *login* does.
        :param login: called for each connection and each renewal, and gives the headers of the login message, such as
            ``{"token": ...}`` or ``{"user": ..., "password": ...}``: a plain function, one that returns a Deferred, or
            a coroutine function. If it fails, the attempt or the renewal has failed, and there will be another one; if
            it raises :exc:`~lhttp_tx.client.errors.ClientClosed`, the client is closed for good.
        :param login_required: whether a connection is of no use if its login is refused. ``False`` is for credentials
            that *headers* has sent already: the login message then serves to know when they expire, and to renew them.
        :param on_message: gets messages that belong to no subscription and to no request.
        :param on_error: gets errors that belong to no call: answers to messages without a receipt, refused
            subscriptions, malformed messages. By default they are logged.
        :param on_state: called with each new state and one line of text that says why.
        :param retry_policy: returns the seconds to wait before an attempt, given how many have failed; by default half
            a second, half as much more each time up to 30, and up to one by chance, as ``backoffPolicy`` does.
        :param timeout: seconds for a receipt or a reply, unless the call says otherwise.
        :param connect_timeout: seconds for one attempt to connect, the handshake included; and as many for each of what
            *headers* and *login* take, and the server's answer to the login.
        :param close_timeout: seconds in which the server must answer a close.
        :param ping_interval: seconds between pings, 0 for none.
        :param ping_timeout: seconds in which the server must answer a ping.
        :param queue_length: messages that may wait for a connection; 0 refuses them.
        :param unsent_size: bytes that may wait for a server that does not read.
        :param max_message_size: bytes of a received message; the connection is closed for a larger one.
        :param now: the time of the day, in seconds since 1970, which tells when a login runs out.
        :raises ValueError: if *target* or *url* is malformed.
        """
        super().__init__()
        self.url = target if isinstance(target, str) and is_url(target) else url or "ws://localhost/"
        parse_url(self.url)
        self.timeout = timeout
        limits = Limits(message_size=max_message_size)
        policy = retry_policy or backoffPolicy(initialDelay=0.5, maxDelay=30.0)
        report = Reporter(self.url, on_error)
        factory = WebSocketFactory(
            self.url,
            reactor=reactor,
            headers=None if callable(headers) else headers,
            max_message_size=max_message_size,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            close_timeout=close_timeout,
        )
        endpoint: IStreamClientEndpoint = WebSocketEndpoint(
            stream_endpoint(target, reactor, tls, connect_timeout), factory, connect_timeout
        )
        if callable(headers):
            asked = Credentials(headers, "headers", reactor=reactor, timeout=connect_timeout)
            endpoint = HeadersEndpoint(endpoint, factory, asked)
        credentials = login and Credentials(login, "login", reactor=reactor, timeout=connect_timeout)
        if credentials:
            endpoint = LoginEndpoint(
                endpoint,
                credentials,
                reactor=reactor,
                timeout=connect_timeout,
                limits=limits,
                required=login_required,
                entered=self._entered,
            )
        self._uplink = Uplink(
            self.url,
            endpoint,
            reactor=reactor,
            retry_policy=policy,
            on_state=on_state,
            limits=limits,
            queue_length=queue_length,
            unsent_size=unsent_size,
        )
        self._answers = Answers(reactor, self._uplink.withdraw)
        self._registry = Registry(self._uplink, confirm=self.confirm, limited=self._limited, report=report)
        renewal = credentials and Renewal(
            self._uplink,
            self._answers,
            credentials,
            reactor=reactor,
            now=now,
            retry_policy=policy,
            timeout=connect_timeout,
            report=report,
        )
        self._uplink.attach(Inbox(self._answers, self._registry, report, on_message, renewal))

    # The connection

    @property
    def state(self) -> State:
        """What the client is doing."""
        return self._uplink.state

    @property
    def user(self) -> str | None:
        """Who the server says that the connection belongs to; ``None`` without a connection, or without *login*."""
        account = self._uplink.account
        return None if account is None else account.user

    @property
    def expires(self) -> float | None:
        """When the server will close the connection unless the login is renewed, in seconds since 1970; or ``None``."""
        account = self._uplink.account
        return None if account is None else account.expires

    def connect(self, attempts: int | None = 1, timeout: float | None = None) -> Deferred[None]:
        """
        Start the client, unless it runs, and wait until it is connected.

        :param attempts: how many attempts may fail; ``None`` for as many as it takes.
        :param timeout: seconds to wait; ``None`` for no limit but that of the attempts.
        :returns: a Deferred that

            - succeeds when the connection is up and the subscriptions are confirmed;
            - fails with :exc:`~lhttp_tx.client.errors.ConnectFailed`, which is
              :exc:`~lhttp_tx.client.errors.LoginFailed` if the server does not take the credentials; the client is
              closed then. With :exc:`~lhttp_tx.client.errors.ClientClosed` if somebody closed it.
        """

        def failed(failure: Failure) -> Deferred[Any]:
            return self.close().addCallback(lambda _: failure)

        if self.running:
            return self.when_connected(attempts, timeout).addErrback(failed)
        waiting = self._uplink.wait(attempts, timeout)
        self.startService()
        return waiting.addErrback(failed)

    def when_connected(self, attempts: int | None = None, timeout: float | None = None) -> Deferred[None]:
        """
        Wait until the client is connected; unlike :meth:`connect` this starts and closes nothing.

        :returns: a Deferred as of :meth:`connect`.
        """
        return self._uplink.when_connected(attempts, timeout)

    def startService(self) -> None:
        """Begin to connect; part of ``IService``."""
        if not self.running:
            super().startService()
            self._uplink.start()

    def stopService(self) -> Deferred[None]:
        """Close the connection and stop connecting; part of ``IService``. See :meth:`close`."""
        if self.running:
            super().stopService()
        return self._uplink.stop()

    def close(self) -> Deferred[None]:
        """
        Close the client for good. What waits fails with :exc:`~lhttp_tx.client.errors.ClientClosed`; iterators end.

        :returns: a Deferred that succeeds when the connection has ended. What was sent before is on its way; wait for
            receipts to be sure that it has arrived.
        """
        return self.stopService()

    # Sending

    def send(self, message: Message) -> None:
        """
        Send a message and ask for nothing. If the server refuses it, ``on_error`` is called.

        :raises QueueFull: if as much as allowed waits already.
        :raises ClientClosed: if the client is closed.
        """
        self._uplink.send(message)

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
        return self._answers.ask(message, self._seconds(timeout), None, self._uplink.send)

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
            self._uplink.send(message)
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
        command = reply_command or message.command
        return self._answers.ask(message, self._seconds(timeout), command, self._uplink.send)

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
        link = self._uplink.link
        if link is None or link.uploading:
            return fail(ConnectionLost("there is no connection, or another upload is on its way"))

        def send(whole: Message, pending: Pending) -> None:
            pending.sent = True
            link.upload(whole, progress)

        return self._answers.ask(message, self._seconds(timeout), message.command, send)

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
        check_subscription(channel)
        if buffer < 1:
            raise ValueError(f"a buffer of {buffer} messages holds none")
        if self._uplink.ended:
            raise ClientClosed("the client is closed")
        return self._registry.add(channel, callback, buffer)

    def _entered(self, account: Account) -> None:
        self._uplink.entered(account)

    def _limited(self, waiting: Deferred[Any], timeout: float | None, what: str) -> Deferred[Any]:
        return self._answers.limited(waiting, self._seconds(timeout), what)

    def _seconds(self, timeout: float | None) -> float:
        return self.timeout if timeout is None else timeout

    def __repr__(self) -> str:
        return f"<Client {self.url} {self.state.value}>"
