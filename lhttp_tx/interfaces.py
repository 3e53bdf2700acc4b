"""
The interfaces between the layers of the server, and those that users implement.

Imports only the codec, and the engine's types for annotations. This file has more than 400 lines because authors of
plugins find every interface here, in one place.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from lhttp_tx.auth.attempts import LoginAttempt
    from lhttp_tx.cluster.control import Control
    from lhttp_tx.cluster.presence import Presence
    from lhttp_tx.codec.headers import HeaderPairs
    from lhttp_tx.codec.message import Head, Message
    from lhttp_tx.config import Config
    from lhttp_tx.engine.delivery import Delivery
    from lhttp_tx.engine.request import Request
    from lhttp_tx.engine.session import Session
    from lhttp_tx.history.values import Page, Placing, Retention
    from lhttp_tx.identity import Identity
    from lhttp_tx.running import RunningServer

__all__ = [
    "BusReceiver",
    "IAuthenticator",
    "IBus",
    "IHeaderFilter",
    "IHistoryStore",
    "IHooks",
    "IProcessor",
    "IServer",
    "IShortcutFilter",
    "ITransport",
    "MaybeAwaitable",
    "MaybeDeferred",
    "Shortcut",
]

MaybeDeferred: TypeAlias = Deferred[None] | None
"""``None`` if the work is done already, else a Deferred that fires when it is done."""

MaybeAwaitable: TypeAlias = Awaitable[Any] | None
"""
What a user's callback may return: ``None``, a Deferred or a coroutine. With the asyncio reactor, it may also return an
asyncio future or task, and a coroutine may await anything that asyncio awaits.
"""

Shortcut: TypeAlias = Callable[[Any, Iterator[bytes], bool], MaybeAwaitable]
"""
Called with a session, an iterator of consecutive messages, and whether they are binary; see :class:`IShortcutFilter`.
"""

BusReceiver: TypeAlias = Callable[[str, list[bytes], bool], None]
"""
Called with the name subscribed to, the payloads of consecutive publications, and whether they are binary. It must not
raise, and must not change the list.
"""


class ITransport(Interface):
    """
    The connection of a session: a WebSocket, or anything else that can carry messages.

    To write a transport, call :meth:`lhttp_tx.engine.engine.Engine.open_session` once the connection is open. Pass each
    message to the session's ``receive``, or several messages to its ``receive_run``. Call its ``connection_lost`` once
    when the connection has ended. You may pass messages as soon as ``open_session`` has returned; you need not return
    to the reactor first.

    The session calls every method on the reactor's thread. No method raises, whatever the state of the connection. A
    message sent to a connection that is closing or closed is dropped. Messages arrive in the order of the calls of
    :meth:`deliver` and :meth:`send`. No method waits. The transport keeps what the peer does not read, and closes the
    connection when it would have to keep too much.
    """

    peer: str = Attribute("the address of the other side, for logs")
    unsent: int = Attribute("bytes that were sent and have not left the process, as far as it is known")
    converts: bool = Attribute("whether it sends messages in another form, such as JSON")
    compresses: bool = Attribute("whether it compresses each message by itself")

    def deliver(delivery: Delivery) -> None:
        """
        Send all messages of *delivery*, now or as soon as the connection takes them.

        :param delivery: one run of messages. Other connections may get the same run:
            :meth:`~lhttp_tx.engine.delivery.Delivery.encoded` encodes it once for all of them.
        """

    def send(payload: bytes, binary: bool) -> None:
        """
        Send one message to this client alone.

        :param payload: the LHTTP message.
        :param binary: whether to send a binary message; otherwise *payload* is UTF-8.
        """

    def call_when_drained(call: Callable[[], None]) -> None:
        """
        Call *call* once, as soon as nothing is unsent.

        If nothing is unsent now, *call* is called before this method returns. If the connection ends first, it is never
        called.

        :param call: replaces an earlier one that has not been called yet. It may send more.
        """

    def pause_reading() -> None:
        """
        Stop passing messages to the session until :meth:`resume_reading` is called.

        The session calls this inside ``receive`` or ``receive_run`` when its queue is full. It still takes a message
        that it gets after that. So a transport that continues to pass messages makes the queue grow without limit.
        """

    def resume_reading() -> None:
        """Pass messages to the session again. Messages that were held back may be passed before this returns."""

    def close(code: int, reason: str) -> None:
        """
        End the connection, after sending everything that was sent before.

        The transport calls ``connection_lost`` when the connection has ended, before this method returns or later.

        :param code: a WebSocket close code (RFC 6455, section 7.4), or the transport's equivalent.
        :param reason: at most 123 bytes of UTF-8 are sent.
        """


class IServer(Interface):
    """The server that a connection, a processor, a filter or a hook belongs to."""

    name: str = Attribute("the name of this node in its cluster, new for each start of the process")
    clock: IReactorTime = Attribute("the reactor; in a test, the clock of lhttp_tx.testing")
    config: Config = Attribute("the settings")
    control: Control = Attribute("control over the connections of this server, and of its cluster")
    presence: Presence = Attribute("who is in the channels whose presence is kept")

    def publish(
        channels: str | Iterable[str],
        command: str,
        headers: HeaderPairs | dict[str, str] = (),
        body: bytes | str = b"",
        *,
        binary: bool = False,
    ) -> Deferred[None]:
        """Publish a message; see :meth:`lhttp_tx.engine.engine.Engine.publish`."""

    def settings(name: str) -> Mapping[str, Any]:
        """
        Return the table ``[plugin.NAME]`` of the configuration file, or of ``Config(plugins=...)`` in an embedded
        server.

        :param name: the name of the table; by convention, the name of your package.
        :returns: the table as ``tomllib`` reads it; an empty mapping if there is none.
        """


class IBus(Interface):
    """
    Carries publications between nodes, and to the node itself.

    Delivery is at most once and nothing is stored. Publications of one publisher to one channel arrive in order. The
    publisher's own node gets each of them once, like every other node.

    A bus may pass a publication to the receivers of its own node at any time. Channel rules with ``echo = false`` need
    a bus that does so before ``publish`` or ``publish_run`` returns, even if the call returns a Deferred: this tells
    the hub who the publisher is. A server with such a rule does not start with any other bus.
    """

    description: str = Attribute("one line for the log: which bus, and where")
    available: bool = Attribute("whether publications reach the other nodes at this moment")
    is_immediate: bool = Attribute("whether receivers of the own node are called before publish returns")

    def bracket(begin: Callable[[], None], end: Callable[[], None]) -> None:
        """
        Let the bus mark which publications arrive together.

        :param begin: called before the bus calls receivers with publications from other nodes.
        :param end: called when the bus has passed on all that have arrived. Neither *begin* nor *end* may raise.
        """

    def start() -> Deferred[None]:
        """Connect. The Deferred fires when the bus has started; the bus may still be unavailable then."""

    def stop() -> Deferred[None]:
        """
        Send pending publications and disconnect.

        The bus calls no receiver after the Deferred has fired. From then on, it refuses publications and subscriptions
        with :exc:`lhttp_tx.errors.BusUnavailable`. It may start again.
        """

    def subscribe(channel: str, receiver: BusReceiver) -> MaybeDeferred:
        """
        Call *receiver* for each publication to *channel* from now on.

        Subscribing the same receiver again changes nothing.

        :param channel: a valid channel name, or a wildcard subscription (:mod:`lhttp_tx.codec.wildcards`), which
            matches no channel whose name begins with ``$`` or ``_``.
        :param receiver: called with *channel*; for a wildcard subscription, this is the pattern, not the publication's
            channel.
        :returns: ``None`` if the subscription took effect at once, else a Deferred that

            - succeeds when the subscription has taken effect: publications made from then on are received;
            - fails with :exc:`lhttp_tx.errors.BusUnavailable`; then there is no subscription.
        :raises BusUnavailable: likewise, at once.
        """

    def unsubscribe(channel: str, receiver: BusReceiver) -> None:
        """Stop calling *receiver* for *channel*. Does nothing if it was not subscribed."""

    def publish(channel: str, payload: bytes, binary: bool) -> MaybeDeferred:
        """
        Send *payload* to every receiver of *channel*, on all nodes.

        :param channel: a valid channel name (see :mod:`lhttp_tx.codec.channels`).
        :param payload: an LHTTP message as subscribers get it.
        :param binary: whether to send it as a binary WebSocket message.
        :returns: ``None`` if the bus has taken it. It is then on its way, but may still be lost (see :meth:`confirm`).
            Otherwise a Deferred that

            - succeeds when the bus has taken it;
            - fails with :exc:`lhttp_tx.errors.BusUnavailable` if it was not sent.
        :raises BusUnavailable: likewise, at once.
        """

    def publish_run(channel: str, payloads: Iterator[bytes], binary: bool) -> MaybeDeferred:
        """
        Send each of *payloads* as :meth:`publish` does, until there are no more or the bus does not take one at once.

        The payloads after that one stay in the iterator, both when this raises and when it returns a Deferred. If the
        iterator itself raises, the payloads that it has yielded are sent, and the exception goes on to the caller. A
        bus that takes a run together, and passes it to its receivers together, does less work for each payload.
        """

    def confirm() -> MaybeDeferred:
        """
        Find out when earlier publications can no longer be lost on their way to the bus.

        Callers use it only if a receipt waits, not for each publication. One request to the bus serves all callers of
        about the same time. It does not raise. Publishers wait for the Deferred, and the server sets no time limit: a
        bus that asks another program must set its own.

        :returns: ``None`` if the bus has all of them already, else a Deferred that

            - succeeds when the bus has all of them;
            - fails with :exc:`lhttp_tx.errors.BusUnavailable` if the bus may not have all of them. The receivers of
              this node have got them, and others may have got them. If the bus knows that only publications to certain
              channels are missing, it is a :exc:`lhttp_tx.errors.ChannelsRefused`.
        """


class IHistoryStore(Interface):
    """
    Stores what is published to channels with history, in one order for all subscribers.

    Offsets are whole numbers from 1 on. They rise within a channel, with holes. A store never uses an offset twice
    within one epoch. The server calls every method on the reactor's thread. The contract suite
    :class:`lhttp_tx.testing.HistoryContract` tests a store. Source: the protocol document, section "History".
    """

    description: str = Attribute("one line for the log: which store, and where")
    available: bool = Attribute("whether it takes publications at this moment")
    trouble: str = Attribute("why it does not, for the operator; empty if it does")
    spreads: bool = Attribute("whether what is appended comes to all nodes, this one included, over the bus by itself")

    def start() -> Deferred[None]:
        """
        Open the store.

        :returns: a Deferred that

            - succeeds when the store is open. It may still be unavailable.
            - fails with :exc:`lhttp_tx.errors.StartFailed`. The text says what to do.
        """

    def stop() -> Deferred[None]:
        """
        Write what was appended, and close. Does nothing if the store has not started. A store may start again.

        The server waits for it before it stops the bus, and sets no limit.
        """

    def epoch_of(retention: Retention) -> str:
        """
        Return the epoch of the positions of a history class: 1 to 32 letters, digits and ``_``.

        The epoch changes when offsets begin again. Most stores have one epoch for all classes.

        :raises HistoryUnavailable: while the epoch is not known.
        """

    def append(
        channel: str, retention: Retention, payloads: list[bytes], binary: bool, placing: Placing | None = None
    ) -> list[bytes]:
        """
        Store publications, in their order.

        :param channel: a valid channel name.
        :param retention: how much of the channel is kept.
        :param payloads: LHTTP messages, at least one; not changed. The store removes ``offset`` and
            ``after`` that a publisher has written.
        :param binary: whether they travel as binary messages.
        :param placing: the store writes the outcome of the publication into it: at once, or before the Deferred of
            :meth:`confirm` fires. A position that it writes later says that the publication is safe. The caller passes
            a placing only with a single payload. If its ``message_id`` was appended to *channel* within the window, the
            store appends nothing.
        :returns: the messages that the subscribers of this node get now, marked with
            :func:`lhttp_tx.codec.positions.mark_run`. The list is empty if there is nothing to deliver, or if the store
            *spreads*.
        :raises HistoryUnavailable: if the store does not take them. Then it has appended nothing.
        """

    def confirm() -> MaybeDeferred:
        """
        Find out when everything that was appended before can no longer be lost, like :meth:`IBus.confirm`.

        :returns: ``None`` if it is safe already, else a Deferred that

            - succeeds when all of it is safe, except publications whose placing has a ``failure``. Publishers wait for
              it, and the server sets no time limit: a store that waits for a disk or a server must set its own;
            - fails with :exc:`lhttp_tx.errors.HistoryUnavailable` if the store does not know whether it is safe. This
              does not concern publications whose placing has got its outcome later.
        """

    def read(channel: str, retention: Retention, *, after: int, limit: int, size: int) -> Page | Deferred[Page]:
        """
        Return the oldest messages after an offset. This includes everything that was appended before the call.

        :param after: an offset of this epoch.
        :param limit: the most messages.
        :param size: when the messages have this many bytes together, the store adds no more. If there are messages, it
            returns at least one.
        :returns: the page, or a Deferred of it that fails with :exc:`lhttp_tx.errors.HistoryUnavailable`.
        """

    def newest(channel: str, retention: Retention, *, before: int, limit: int, size: int) -> Page | Deferred[Page]:
        """
        Return the newest messages before an offset, oldest first. Otherwise like :meth:`read`. Callers ignore
        :attr:`~lhttp_tx.history.values.Page.reaches`.

        :param before: an offset of this epoch; 0 for no bound.
        """

    def remove(channel: str, retention: Retention) -> MaybeDeferred:
        """
        Remove the messages of a channel. Positions stay valid. A client that has missed messages then gets ``missed``.
        """


class IProcessor(Interface):
    """
    Handles the messages of a command. One object serves every connection.

    Each method may return ``None`` or an awaitable (:data:`MaybeAwaitable`). The connection's next message waits for
    the awaitable. If a method raises an :exc:`lhttp_tx.errors.LHTTPError`, the client gets its status and reason. Any
    other exception is logged, and the client gets status 500.
    """

    command: str = Attribute("the command whose messages it gets")
    timeout: float | None = Attribute("seconds that one call may take; None: the server's own limit")
    trusted: bool = Attribute("whether it may write channels into a message that its client may not use")

    def on_start(server: RunningServer) -> MaybeAwaitable:
        """
        Called when the server starts, before it accepts connections. If it fails, the server stops.

        Open here what the processor needs, such as a pool of database connections, and close it in :meth:`on_stop`. If
        several servers use one object, each of them calls it.
        """

    def on_stop(server: RunningServer) -> MaybeAwaitable:
        """Called when the server stops, after every connection has ended. Called only if :meth:`on_start` succeeded."""

    def on_open(session: Session) -> MaybeAwaitable:
        """Called before the first message of this command on a connection."""

    def on_message(request: Request) -> MaybeAwaitable:
        """Called for each message of this command."""

    def on_close(session: Session) -> MaybeAwaitable:
        """Called once after the end of a connection for which :meth:`on_open` succeeded."""


class IAuthenticator(Interface):
    """
    Identifies a client, before the WebSocket is accepted and for each login message. One object serves all clients.
    """

    timeout: float | None = Attribute("seconds that one call may take; None: the server's own limit")
    challenges: tuple[str, ...] = Attribute("values of WWW-Authenticate for clients that are refused with status 401")
    secret_parameters: frozenset[str] = Attribute("names of query parameters that are left out of the identity")

    def on_start(server: RunningServer) -> MaybeAwaitable:
        """See :meth:`IProcessor.on_start`."""

    def on_stop(server: RunningServer) -> MaybeAwaitable:
        """See :meth:`IProcessor.on_stop`."""

    def authenticate(attempt: LoginAttempt) -> Identity | Awaitable[Identity | None] | None:
        """
        Return the identity of a client, made with
        :meth:`LoginAttempt.identify <lhttp_tx.auth.attempts.LoginAttempt.identify>`.

        Return ``None`` if the client has sent no credentials that this authenticator knows; the server then asks the
        next authenticator. The answer may be a Deferred or a coroutine. Any exception other than
        :exc:`~lhttp_tx.errors.Refused` is logged, and the client gets status 500. Its text must not contain a secret.

        :raises Refused: to refuse the client: 401 if its credentials are wrong, 403 if it may not connect.
        """


class IHeaderFilter(Interface):
    """
    Sees messages before and after their processor. One object serves every connection.

    Each method except :meth:`check` may return ``None``, a Deferred or a coroutine. If a method raises, the server does
    not go on with the message, and the client gets an error: the status and reason of an
    :exc:`lhttp_tx.errors.LHTTPError`, or status 500.
    """

    headers: tuple[str, ...] | None = Attribute("lower-case header names; a message without any of them is not seen")
    timeout: float | None = Attribute("seconds that one call may take; None: the server's own limit")
    trusted: bool = Attribute("whether it may write channels into a message that its client may not use")

    def on_start(server: RunningServer) -> MaybeAwaitable:
        """See :meth:`IProcessor.on_start`."""

    def on_stop(server: RunningServer) -> MaybeAwaitable:
        """See :meth:`IProcessor.on_stop`."""

    def check(head: Head) -> None:
        """
        Called before the server acts on a message. Raise to refuse the message.

        The server keeps the outcome for messages with the same head, so the outcome must depend on *head* alone.
        """

    def on_connect(session: Session) -> MaybeAwaitable:
        """Called when a connection opens, before its first message. Raising closes the connection."""

    def before(request: Request) -> MaybeAwaitable:
        """
        Called before the processor. It may replace ``request.message``.

        The server checks the new message against the client's rights, even if a filter wrote it. If this filter is
        ``trusted``, the server does not check the channels that the filter adds.
        """

    def judge(request: Request) -> MaybeAwaitable:
        """
        Called after every filter's :meth:`before`, and before the processor, with the final message. Raise to refuse
        the message. This method must not replace it.
        """

    def after(request: Request) -> MaybeAwaitable:
        """Called after the processor."""

    def on_disconnect(session: Session) -> MaybeAwaitable:
        """Called once after the end of every connection."""


class IHooks(Interface):
    """
    Calls of an application when a connection opens, subscribes, ends and so on. One object serves every connection.

    Each method may return ``None``, a Deferred or a coroutine. If the connection waits for a method, an
    :exc:`lhttp_tx.errors.LHTTPError` that it raises goes to the client. Errors of the other methods are logged.
    """

    timeout: float | None = Attribute("seconds that one call may take; None: the server's own limit")
    trusted: bool = Attribute("whether on_message may write channels into a message that its client may not use")

    def on_start(server: RunningServer) -> MaybeAwaitable:
        """See :meth:`IProcessor.on_start`."""

    def on_stop(server: RunningServer) -> MaybeAwaitable:
        """See :meth:`IProcessor.on_stop`."""

    def on_connect(session: Session) -> MaybeAwaitable:
        """Called when a connection opens; its messages wait. Raising closes the connection."""

    def on_disconnect(session: Session) -> MaybeAwaitable:
        """Called once after the end of every connection, when the server has handled its last message."""

    def on_message(request: Request) -> MaybeAwaitable:
        """
        Called for each message of a client, except login messages, before the server acts on it. Raising refuses the
        message. It may replace ``request.message``, as in :meth:`IHeaderFilter.before`.
        """

    def before_subscribe(session: Session, channel: str) -> MaybeAwaitable:
        """
        Called before a client is subscribed to *channel*, and before it gets the presence of the channel. Raising
        refuses the whole message. It is not called for subscriptions that ``trusted`` code makes.
        """

    def on_subscribe(session: Session, channel: str) -> MaybeAwaitable:
        """Called when a connection is subscribed to *channel*. The server does not wait for it."""

    def on_unsubscribe(session: Session, channel: str) -> MaybeAwaitable:
        """Called when a subscription ends, also at the end of the connection. The server does not wait for it."""

    def before_delivery(session: Session, message: Message) -> bool | Awaitable[bool | None] | None:
        """
        Called before a publication is sent to one subscriber. Return ``False``, or raise, to withhold it from this
        subscriber.

        Later publications to the subscriber wait for the answer. The server's own replies to the client do not wait.
        """

    def on_wait_timeout(session: Session, message: Message) -> MaybeAwaitable:
        """
        Called when a message has waited too long for the messages before it. The server does not handle the message,
        and the client has got an error. The server does not wait for this call.
        """

    def on_undelivered(session: Session, messages: list[Message]) -> MaybeAwaitable:
        """
        Called when a connection that did not read has ended, with the messages of which no byte has left the server.
        Other messages may have been lost on their way. The server does not wait for this call.
        """

    def on_channel_opened(channel: str, scope: str) -> MaybeAwaitable:
        """
        Called when *channel* gets its first subscriber. The server does not wait for it.

        :param scope: ``node`` or ``cluster``. Every node of a cluster makes the call for ``cluster``.
        """

    def on_channel_closed(channel: str, scope: str) -> MaybeAwaitable:
        """Called when *channel* loses its last subscriber; see :meth:`on_channel_opened`."""


class IShortcutFilter(IHeaderFilter):
    """
    A header filter that can work without a :class:`~lhttp_tx.engine.request.Request` if nothing else happens to a
    message.
    """

    def shortcut(head: Head) -> Shortcut | None:
        """
        Return the function to call instead of ``before`` and ``after`` for messages with *head*, or ``None``.

        The server calls this once for each head that it keeps, after :meth:`~IHeaderFilter.check`. It does so only if
        there are no other steps than those of this filter: no processor, no step of another filter, no receipt. If a
        class overrides ``before``, ``judge`` or ``after`` but not this method, it has no shortcut.

        The function takes messages out of the iterator, and has the same effect for each message as the steps. It
        returns ``None`` when the iterator is empty. If it raises, the exception concerns the message that it took last.
        If it raises or returns an awaitable, it leaves the rest in the iterator, and the server calls it again. The
        server keeps the function. If the function needs much memory, give it an attribute ``cost``, the number of
        bytes.

        If the class that defines this method also has ``tells_nothing = True``, the function also gets messages that
        ask for a receipt, without that header. The filter must add nothing to receipts then.
        """
