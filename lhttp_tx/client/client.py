"""
The class of the client.

:class:`Client` connects the parts. :mod:`lhttp_tx.client.service` makes it an ``IService``,
:mod:`lhttp_tx.client.requests` sends, :mod:`lhttp_tx.client.subscribing` subscribes, and :mod:`lhttp_tx.client.uplink`
keeps the client connected.
:mod:`lhttp_tx.client.registry` has the subscriptions, :mod:`lhttp_tx.client.positions` their positions, and
:mod:`lhttp_tx.client.answers` the pending answers. :mod:`lhttp_tx.client.inbox` distributes arriving messages. Programs
import the class from :mod:`lhttp_tx.client`. Of the server, this module imports only the codec.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, final

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
from lhttp_tx.client.http.roads import make_ways
from lhttp_tx.client.http.ways import TRANSPORTS, TRIAL, Transport
from lhttp_tx.client.inbox import Inbox, Reporter
from lhttp_tx.client.positions import Positions, PositionStore
from lhttp_tx.client.registry import MissedCallback, RecoveredCallback, Registry
from lhttp_tx.client.renewal import Renewal
from lhttp_tx.client.states import State
from lhttp_tx.client.subscribing import SubscribingService
from lhttp_tx.client.subscription import MessageCallback
from lhttp_tx.client.uplink import Uplink
from lhttp_tx.client.websocket.endpoints import is_url
from lhttp_tx.client.websocket.entrance import HeadersEndpoint, LoginEndpoint
from lhttp_tx.client.websocket.protocol import Codec, WebSocketFactory
from lhttp_tx.client.websocket.urls import parse_url
from lhttp_tx.codec.limits import Limits
from lhttp_tx.codec.message import Message
from lhttp_tx.errors import LHTTPError

__all__ = ["Client", "State"]

_HEAD_SIZE = 65_536
"""The most bytes of the head of a received message. A receipt may contain the positions of a hundred channels."""


@final
class Client(SubscribingService):
    """
    A client of one server.

    ::

        client = Client("ws://127.0.0.1:8081/", reactor=reactor)
        await client.connect()
        await client.subscribe("room.a", lambda message: print(message.text))
        await client.publish("room.a", "chat", body="hello")
        await client.close()

    **Connections.** If the client loses its connection, it connects again after a pause. The pause grows with each
    failed attempt, and is partly random. The client restores the subscriptions before it sends anything else. It sends
    unanswered publications with a receipt again, on up to five further connections and within 100 seconds. The server
    recognizes them by their message ids. Other unanswered requests fail with
    :exc:`~lhttp_tx.client.errors.ConnectionLost`, because the server may have handled them. Messages that are sent
    without a connection wait, up to ``queue_length`` messages. Further ones are refused with
    :exc:`~lhttp_tx.client.errors.QueueFull`.

    **History.** If the server keeps a history of a channel, the client gets each publication of this channel once. It
    remembers its position. After a reconnection, or if a message is missing, it asks for the messages after the
    position. If the history does not reach back far enough, the client calls ``on_missed``, and the program must load
    its state again. Wildcard subscriptions, and channels without history, miss the messages that are published while
    there is no connection.

    **Logins.** With ``login``, every connection begins with a login message. The client sends nothing else before the
    server has answered, and its state until then is *connecting*. A refused login counts as a failed attempt. After ten
    refused logins in a row, the client is closed. During a connection, the client logs in again when half of the time
    until the expiry has passed.

    **Answers.** Every Deferred fires within its time limit, or when the client is closed.

    **Arriving messages.** A message goes to the subscriptions that match a channel in its ``publish`` header; or else
    to the request that it replies to; or else to ``on_message``. If a message is published to several channels of the
    client, it arrives once for each channel, and once for each wildcard that matches a channel. Each subscription gets
    one of these copies. A publication is never taken for a receipt or an error. If the client is subscribed to its
    channel, it is never taken for a reply either.

    Use the client only in the reactor's thread.
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
        :param target: a ``ws://`` or ``wss://`` URL; a client endpoint; or an endpoint description, such as
            ``unix:/run/lhttp.sock`` or ``tls:host:443``.
        :param reactor: the reactor, of any kind.
        :param url: a URL with the host name and the path to request, if *target* is not a URL; by default
            ``ws://localhost/``.
        :param tls: how to verify a ``wss://`` server, from ``twisted.internet.ssl.optionsForClientTLS``. By default,
            the client trusts the authorities that the system trusts.
        :param headers: HTTP headers for the opening handshake. It may also be a function like *login* that returns
            them. The client calls it for each handshake.
        :param codec: the form of messages on the connection: ``text``, ``json`` or ``protobuf`` (:doc:`/howto/codecs`).
            The program does not notice a difference. With a server that does not know the codec, the client uses text.
        :param transports: the transports to use, in this order: ``websocket``, ``stream`` and ``poll``. The default is
            all three for a URL, and ``websocket`` alone for an endpoint. See "Where WebSocket does not work" in
            :doc:`/howto/python-client`.
        :param fallback_url: the URL below which the server has ``connect`` and ``send``: an ``http://`` or ``https://``
            URL, or a path. The default is the root of the host.
        :param come_back: seconds over HTTP until the client tests WebSocket. After each test, it waits twice as long as
            before, up to 16 times this value. 0: never.
        :param login: called for each connection and each renewal. It returns the headers of the login message, such as
            ``{"token": ...}`` or ``{"user": ..., "password": ...}``. It may be a plain function, a function that
            returns a Deferred, or a coroutine function. If it fails, the attempt or the renewal has failed, and the
            client tries again. If it raises :exc:`~lhttp_tx.client.errors.ClientClosed`, the client is closed.
        :param login_required: whether to close a connection whose login is refused. Use ``False`` if *headers* already
            contains the credentials. The login message then only finds out when they expire, and renews them.
        :param on_message: called with messages that belong to no subscription and no request.
        :param on_error: called with errors that belong to no call: errors about messages without a receipt, refused
            subscriptions, and malformed messages. By default, they are logged.
        :param on_state: called with each new state and a line of text with the reason.
        :param on_recovered: called with a channel, the number of recovered messages, and the position, when the client
            has recovered everything that it had missed. The subscriptions already have the messages.
        :param on_missed: called with a channel and a position, when messages are missing. The next messages follow the
            position. In a channel without history, the position is ``None``: a node of a cluster may have missed
            messages.
        :param positions: stores the positions for the next run of the program, such as
            :class:`~lhttp_tx.client.positions.FilePositions`. A subscription then continues where the last run has
            stopped. By default, the client forgets the positions when it is closed.
        :param retry_policy: takes the number of failed attempts, and returns the seconds to wait before the next one.
            By default, it is that of Twisted's ``backoffPolicy`` with 0.5 seconds at first: the wait grows by half each
            time, up to 30 seconds, plus up to one random second.
        :param timeout: the most seconds to wait for a receipt or a reply, unless the call has its own limit.
        :param connect_timeout: the most seconds for one attempt to connect, including the handshake. The same limit
            applies to each call of *headers* and *login*, and to the server's answer to the login.
        :param close_timeout: the most seconds to wait for the server's answer to a close.
        :param ping_interval: seconds between pings; 0: none.
        :param ping_timeout: the most seconds to wait for the answer to a ping. After that, the connection counts as
            lost.
        :param queue_length: the most messages that wait for a connection; 0: none.
        :param unsent_size: the most bytes that wait for a server that does not read.
        :param resend_size: the most bytes of publications that the client keeps for sending them again, up to 1,000
            publications; 0: none. Other publications fail when the connection is lost.
        :param max_message_size: the most bytes of a received message. A larger one closes the connection.
        :param now: returns the time in seconds since 1970, to know when a login expires.
        :raises ValueError: if *target*, *url* or the content of *positions* is malformed, or a number is out of bounds.
        :raises TypeError: if another argument has a wrong type.
        :raises RemoteProtocolError: if *positions* contains an invalid position.
        """
        super().__init__()
        check_target(target)
        check_positions(positions)
        check_callbacks(login=login, now=now)
        check_callbacks("message", on_message=on_message)
        check_callbacks("error", on_error=on_error)
        check_callbacks("state", "reason", on_state=on_state)
        check_callbacks("channel", "count", "position", on_recovered=on_recovered)
        check_callbacks("channel", "position", on_missed=on_missed)
        check_callbacks("attempt", retry_policy=retry_policy)
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
        self._reactor = reactor
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

    def _entered(self, account: Account) -> None:
        self._uplink.entered(account)

    def __repr__(self) -> str:
        return f"<Client {self.url} {self.state.value}>"
