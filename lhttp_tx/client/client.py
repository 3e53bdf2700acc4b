"""
The client that programs use.

:class:`Client` puts the parts together. :mod:`lhttp_tx.client.service` makes it an ``IService``,
:mod:`lhttp_tx.client.requests` sends, and :mod:`lhttp_tx.client.uplink` keeps the connection.
:mod:`lhttp_tx.client.registry` holds the subscriptions, :mod:`lhttp_tx.client.positions` their positions, and
:mod:`lhttp_tx.client.answers` the pending answers. :mod:`lhttp_tx.client.inbox` passes on arriving messages. Programs
import it from :mod:`lhttp_tx.client`, and the ``lhttp`` command uses it. Of the server, it imports only the codec.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, final, overload

from twisted.application.internet import backoffPolicy
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IStreamClientEndpoint

from lhttp_tx.client.answers import Answers
from lhttp_tx.client.arguments import (
    COUNT,
    SECONDS,
    check_callbacks,
    check_codec,
    check_positions,
    check_target,
    transports_of,
)
from lhttp_tx.client.credentials import Account, Credentials, HeaderSource
from lhttp_tx.client.errors import ClientClosed
from lhttp_tx.client.http.roads import make_ways
from lhttp_tx.client.http.ways import TRANSPORTS, TRIAL, Transport
from lhttp_tx.client.inbox import Inbox, Reporter
from lhttp_tx.client.positions import Positions, PositionStore
from lhttp_tx.client.registry import MissedCallback, RecoveredCallback, Registry
from lhttp_tx.client.renewal import Renewal
from lhttp_tx.client.requests import RequestingService
from lhttp_tx.client.states import State
from lhttp_tx.client.subscription import ChannelCallback, MessageCallback, Subscription
from lhttp_tx.client.uplink import Uplink
from lhttp_tx.client.websocket.endpoints import is_url
from lhttp_tx.client.websocket.entrance import HeadersEndpoint, LoginEndpoint
from lhttp_tx.client.websocket.protocol import Codec, WebSocketFactory
from lhttp_tx.client.websocket.urls import parse_url
from lhttp_tx.codec.channels import check_subscription
from lhttp_tx.codec.limits import Limits
from lhttp_tx.codec.message import Message
from lhttp_tx.codec.wildcards import is_wildcard
from lhttp_tx.errors import LHTTPError

__all__ = ["Client", "State"]

_HEAD_SIZE = 65_536
"""Bytes of the head of a received message. A receipt may contain the positions of a hundred channels."""


@final
class Client(RequestingService):
    """
    A client of one server.

    ::

        client = Client("ws://127.0.0.1:8081/", reactor=reactor)
        await client.connect()
        await client.subscribe("room.a", lambda message: print(message.text))
        await client.publish("room.a", "chat", body="hello")
        await client.close()

    **Connections.** After losing its connection, the client connects again, after a pause that grows and varies by
    chance. It restores the subscriptions before it sends anything else. It sends a publication with a receipt again if
    it was not answered, on up to five further connections and within 100 seconds. The server recognizes it by its
    message id. Other requests that were sent and not answered fail with
    :exc:`~lhttp_tx.client.errors.ConnectionLost`, since the server may have handled them. Messages sent while there is
    no connection wait, up to ``queue_length`` messages. Further ones are refused with
    :exc:`~lhttp_tx.client.errors.QueueFull`.

    **History.** If the server keeps a history of a channel, the client gets each publication of that channel once. It
    remembers its position, and asks for what it has missed after it has connected again, or if the server has left
    something out. If the history does not reach back, it calls ``on_missed``, and the program must load its state
    again. Wildcard subscriptions and channels without history miss what is published while there is no connection.

    **Logins.** With ``login``, every connection begins with a login message. The client sends nothing else before the
    server has answered it, and its state until then is *connecting*. A refused login counts as a failed attempt. After
    the tenth refused login in a row, the client gives up. During a connection, the client logs in again when half of
    the remaining time has passed.

    **Answers.** Every Deferred fires within its time limit, and when the client is closed.

    **Arriving messages.** A message goes to the subscriptions that match a channel in its ``publish`` header; else to
    the request that it replies to; else to ``on_message``. A message published to several of the client's channels
    arrives once for each channel, and once for each wildcard that matches one. Each subscription gets one of these
    copies. A published message is never taken for a receipt or an error. If the client is subscribed to its channel, it
    is never taken for a reply either.

    Use it in the reactor's thread alone, like everything of Twisted.
    """

    def __init__(
        self,
        target: str | IStreamClientEndpoint,
        *,
        reactor: Any,
        url: str | None = None,
        tls: IOpenSSLClientConnectionCreator | None = None,
        headers: dict[str, str] | HeaderSource | None = None,
        codec: Codec = "text",
        transports: Sequence[Transport] | None = None,
        fallback_url: str | None = None,
        come_back: float = 60.0,
        login: HeaderSource | None = None,
        login_required: bool = True,
        on_message: MessageCallback | None = None,
        on_error: Callable[[LHTTPError], object] | None = None,
        on_state: Callable[[State, str], object] | None = None,
        on_recovered: RecoveredCallback | None = None,
        on_missed: MissedCallback | None = None,
        positions: PositionStore | None = None,
        retry_policy: Callable[[int], float] | None = None,
        timeout: float = 30.0,
        connect_timeout: float = 10.0,
        close_timeout: float = 2.0,
        ping_interval: float = 30.0,
        ping_timeout: float = 10.0,
        queue_length: int = 100,
        unsent_size: int = 1_048_576,
        resend_size: int = 1_048_576,
        max_message_size: int = 1_048_576,
        now: Callable[[], float] = time.time,
    ) -> None:
        """
        :param target: a ``ws://`` or ``wss://`` URL; or a client endpoint, or the description of one, such as
            ``unix:/run/lhttp.sock`` or ``tls:host:443``.
        :param reactor: the running reactor, of any kind.
        :param url: the path and host name to request from an endpoint; by default ``ws://localhost/``.
        :param tls: how ``wss://`` verifies the server, from ``twisted.internet.ssl.optionsForClientTLS``; by default
            with the authorities that the system trusts.
        :param headers: HTTP headers to add to the opening handshake. It may also be a function like *login*, which is
            called for each handshake and returns them.
        :param codec: the form of messages on the connection: ``text``, ``json`` or ``protobuf`` (:doc:`/howto/codecs`).
            The program does not notice a difference. A server that does not know the codec is spoken to in text.
        :param transports: which may be used, in this order: ``websocket``, ``stream`` and ``poll``. The default is all
            three for a URL, and ``websocket`` alone for an endpoint. See "Where WebSocket does not work" in
            :doc:`/howto/python-client`.
        :param fallback_url: where ``connect`` and ``send`` are: an ``http://`` or ``https://`` URL, or a path. The
            default is the root of the host.
        :param come_back: seconds over HTTP until a WebSocket is tried again. Each time, the client waits twice as long,
            up to 16 times as long. 0: never.
        :param login: called for each connection and each renewal. It returns the headers of the login message, such as
            ``{"token": ...}`` or ``{"user": ..., "password": ...}``. It may be a plain function, a function that
            returns a Deferred, or a coroutine function. If it fails, the attempt or the renewal has failed, and the
            client tries again. If it raises :exc:`~lhttp_tx.client.errors.ClientClosed`, the client is closed for good.
        :param login_required: whether to drop a connection whose login is refused. Use ``False`` if *headers* has
            already sent the credentials. The login message then only finds out when they expire, and renews them.
        :param on_message: gets messages that belong to no subscription and to no request.
        :param on_error: gets errors that belong to no call: answers to messages without a receipt, refused
            subscriptions, malformed messages. By default, they are logged.
        :param on_state: called with each new state, and one line of text with the reason.
        :param on_recovered: called with a channel, the number of recovered messages, and the position, when the client
            has recovered everything that it had missed. The subscriptions already have the messages.
        :param on_missed: called with a channel and the position after which it goes on, when messages before this
            position are missing. In a channel without history, the position is ``None``: a node of a cluster may have
            missed messages.
        :param positions: stores the positions over a restart of the program, such as
            :class:`~lhttp_tx.client.positions.FilePositions`. A subscription then goes on where the last run has
            stopped. By default, the client forgets them when it is closed.
        :param retry_policy: takes the number of failed attempts, and returns the seconds to wait before the next one.
            By default, it is half a second, half as much more each time up to 30, and up to one more by chance, as in
            ``backoffPolicy``.
        :param timeout: seconds for a receipt or a reply, unless the call says otherwise.
        :param connect_timeout: seconds for one attempt to connect, including the handshake. The same limit applies to
            each call of *headers* and of *login*, and to the server's answer to the login.
        :param close_timeout: seconds in which the server must answer a close.
        :param ping_interval: seconds between pings, 0 for none.
        :param ping_timeout: seconds in which the server must answer a ping.
        :param queue_length: messages that may wait for a connection; 0: none.
        :param unsent_size: bytes that may wait for a server that does not read.
        :param resend_size: bytes of the publications that the client keeps to send them again, up to 1,000
            publications; 0: none. A publication that does not fit fails when the connection is lost.
        :param max_message_size: bytes of a received message. A larger one closes the connection.
        :param now: returns the current time, in seconds since 1970, to tell when a login expires.
        :raises ValueError: if *target*, *url*, or the content of *positions* is malformed, or a number is negative.
        :raises TypeError: if another argument has a wrong type.
        :raises RemoteProtocolError: if *positions* contains an invalid position.
        """
        super().__init__()
        check_target(target)
        check_positions(positions)
        check_callbacks(
            login=login,
            on_message=on_message,
            on_error=on_error,
            on_state=on_state,
            on_recovered=on_recovered,
            on_missed=on_missed,
            retry_policy=retry_policy,
            now=now,
        )
        SECONDS.check("timeout", timeout)
        SECONDS.check("connect_timeout", connect_timeout)
        SECONDS.check("close_timeout", close_timeout)
        SECONDS.check("ping_interval", ping_interval)
        SECONDS.check("ping_timeout", ping_timeout)
        SECONDS.check("come_back", come_back)
        COUNT.check("queue_length", queue_length)
        COUNT.check("unsent_size", unsent_size)
        COUNT.check("resend_size", resend_size)
        check_codec(codec)
        self.url = target if isinstance(target, str) and is_url(target) else url or "ws://localhost/"
        parse_url(self.url)
        self.timeout = timeout
        limits = Limits(message_size=max_message_size, head_size=_HEAD_SIZE)
        policy = retry_policy or backoffPolicy(initialDelay=0.5, maxDelay=30.0)
        report = Reporter(self.url, on_error)
        make_factory = partial(
            WebSocketFactory,
            self.url,
            reactor=reactor,
            headers=None if callable(headers) else headers,
            codec=codec,
            max_message_size=max_message_size,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            close_timeout=close_timeout,
        )
        source = (
            Credentials(headers, "headers", reactor=reactor, timeout=connect_timeout) if callable(headers) else None
        )
        credentials = login and Credentials(login, "login", reactor=reactor, timeout=connect_timeout)

        def greeted(
            endpoint: IStreamClientEndpoint, factory: WebSocketFactory, *, logs_in: bool
        ) -> IStreamClientEndpoint:
            if source:
                endpoint = HeadersEndpoint(endpoint, factory, source)
            if credentials and logs_in:
                endpoint = LoginEndpoint(
                    endpoint,
                    credentials,
                    reactor=reactor,
                    timeout=connect_timeout,
                    limits=limits,
                    required=login_required,
                    entered=self._entered,
                )
            return endpoint

        self._ways = make_ways(
            target,
            make_factory(),
            make_factory(protocols=[TRIAL]),
            transports_of(transports, TRANSPORTS, is_url(target)),
            tls=tls,
            fallback_url=fallback_url,
            greeted=greeted,
            ping=lambda seconds: self.confirm(Message("ping"), seconds),
            is_idle=lambda: not self._answers.waiting,
            come_back=come_back,
            timeout=connect_timeout,
            close_timeout=close_timeout,
            max_message_size=max_message_size,
        )
        self._uplink = Uplink(
            self.url,
            self._ways,
            reactor=reactor,
            retry_policy=policy,
            on_state=on_state,
            limits=limits,
            queue_length=queue_length,
            unsent_size=unsent_size,
            watcher=self._ways,
        )
        self._answers = Answers(reactor, self._uplink.withdraw, resend_size)
        self._positions = Positions(positions, reactor=reactor, report=report)
        self._registry = Registry(
            self._uplink,
            self._positions,
            reactor=reactor,
            confirm=self.confirm,
            limited=self._limited,
            report=report,
            on_recovered=on_recovered,
            on_missed=on_missed,
        )
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

    # Subscriptions

    @overload
    def subscribe(
        self,
        channel: str,
        callback: MessageCallback | None = None,
        *,
        buffer: int = 1_000,
        since: str | None = None,
        last: int | None = None,
    ) -> Subscription: ...

    @overload
    def subscribe(
        self,
        channel: str,
        callback: ChannelCallback,
        *,
        buffer: int = 1_000,
        named: Literal[True],
        since: str | None = None,
        last: int | None = None,
    ) -> Subscription: ...

    def subscribe(
        self,
        channel: str,
        callback: MessageCallback | ChannelCallback | None = None,
        *,
        buffer: int = 1_000,
        named: bool = False,
        since: str | None = None,
        last: int | None = None,
    ) -> Subscription:
        """
        Subscribe to a channel, on this connection and on later ones.

        :param channel: a channel name, or a wildcard subscription: the token ``*`` stands for one token, ``>`` at the
            end for one or more. A server accepts a wildcard only if its rules allow it.
        :param callback: called with each message. Without it, iterate over the subscription.
        :param named: whether *callback* gets the message's channel as its second argument. This is useful for a
            wildcard subscription.
        :param buffer: messages to keep for the iterator, at least 1, and at most 16 MiB of them. When the buffer is
            full, a new message pushes out the oldest; see :class:`~lhttp_tx.client.subscription.Subscription`.
        :param since: a position, as returned by :meth:`position`. The messages after it come first. By default, the
            stored position, if there is one.
        :param last: the maximum number of old messages that come first, if there is no position. They are the newest
            ones of the history. A server without history sends none.
        :returns: the subscription; ``await`` it until the server has confirmed it. If the server refuses it, it ends
            with that error, and ``on_error`` is called.
        :raises RemoteProtocolError: if the channel name is malformed or reserved, or *since* is malformed.
        :raises ClientClosed: if the client is closed.
        :raises TypeError: if *callback* is no function.
        :raises ValueError: if *buffer* or *last* is not positive. Also if *since* or *last* is used with a wildcard, or
            with a channel that this client has already subscribed to.
        """
        check_subscription(channel)
        check_callbacks(callback=callback)
        if buffer < 1:
            raise ValueError(f"a buffer of {buffer} messages holds none")
        if last is not None and last < 1:
            raise ValueError(f"the last {last} messages are none")
        if (since is not None or last is not None) and is_wildcard(channel):
            raise ValueError(f"{channel} is a wildcard, and a wildcard has no history: leave out since and last")
        if self._uplink.ended:
            raise ClientClosed("the client is closed")
        return self._registry.add(channel, callback, buffer, named, since, last)

    def position(self, channel: str) -> str | None:
        """
        Return the position of the last message of a channel that the program got.

        In a callback, it is the position of the callback's message. Messages that wait in a buffer do not count.

        :returns: the position; ``None`` if the channel has no history, or the client has not subscribed to it.
        """
        return self._positions.taken(channel)

    def positions(self) -> dict[str, str]:
        """Return the positions of all channels, like :meth:`position`."""
        return self._positions.all_taken()

    def _entered(self, account: Account) -> None:
        self._uplink.entered(account)

    def __repr__(self) -> str:
        return f"<Client {self.url} {self.state.value}>"
