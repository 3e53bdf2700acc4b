"""
The interfaces between the floors of the house, and those that users implement.

Imports only the codec, and the engine's types for annotations.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from lhttp_tx.auth.attempt import LoginAttempt
    from lhttp_tx.identity import Identity
    from lhttp_tx.message import Head, Message
    from lhttp_tx.request import Request
    from lhttp_tx.session import Session

__all__ = [
    "BusReceiver",
    "IAuthenticator",
    "IBus",
    "IHeaderFilter",
    "IHooks",
    "IProcessor",
    "ISessionTransport",
    "IShortcutFilter",
    "MaybeAwaitable",
    "MaybeDeferred",
    "Shortcut",
]

MaybeDeferred: TypeAlias = Deferred[None] | None
"""``None`` where the work is done already, else a Deferred that fires when it is."""

MaybeAwaitable: TypeAlias = Awaitable[Any] | None
"""What a user's callback may return: ``None``, a Deferred or a coroutine."""

Shortcut: TypeAlias = Callable[[Any, Iterator[bytes], bool], MaybeAwaitable]
"""Called with a session, messages that came one after another, and whether they are binary; see
:class:`IShortcutFilter`."""

BusReceiver: TypeAlias = Callable[[str, list[bytes], bool], None]
"""Called with the name subscribed to, the payloads of publications that came one after another, and whether they are
binary; must neither raise nor change the list."""


class ISessionTransport(Interface):
    """What a session needs of its connection. Nothing here raises, whatever the state of the connection."""

    peer: str = Attribute("the address of the other side, for logs")

    def send_frame(frame: bytes) -> None:
        """
        Send whole WebSocket frames, now or as soon as the connection takes them.

        :param frame: one or more frames, as :func:`lhttp_tx.frames.build_frame` returns them. They are dropped if the
            connection is closing or closed.
        """

    def pause_reading() -> None:
        """Hand over no more messages until :meth:`resume_reading` is called."""

    def resume_reading() -> None:
        """Hand over messages again."""

    def close(code: int, reason: str) -> None:
        """
        Start the closing handshake; what was sent before goes out first.

        :param code: a WebSocket close code (RFC 6455, section 7.4).
        :param reason: at most 123 bytes of UTF-8 are sent.
        """


class IBus(Interface):
    """
    What carries publications between nodes, and to the node itself.

    Delivery is at most once and nothing is stored. Publications of one publisher to one channel arrive in order, and
    the publisher's own node gets each of them once, as every other does.
    """

    description: str = Attribute("one line for the log: which bus, and where")
    available: bool = Attribute("whether publications reach the other nodes at this moment")

    def bracket(begin: Callable[[], None], end: Callable[[], None]) -> None:
        """
        Let the bus say which publications arrive together.

        :param begin: called before receivers are called with publications that came from other nodes.
        :param end: called when no more of them are at hand. Neither may raise.
        """

    def start() -> Deferred[None]:
        """Connect. Fires when the bus has started, though it may be unavailable still."""

    def stop() -> Deferred[None]:
        """Send what is under way and disconnect. No receiver is called after it has fired."""

    def subscribe(channel: str, receiver: BusReceiver) -> MaybeDeferred:
        """
        Call *receiver* for each publication to *channel* from now on.

        Subscribing the same receiver again changes nothing.

        :param channel: a valid channel name, or a wildcard subscription (:mod:`lhttp_tx.wildcards`).
        :param receiver: called with this name, whichever channel a publication was made to.
        :returns: ``None`` if it took effect at once, else a Deferred that

            - succeeds when publications made from then on are received;
            - fails with :exc:`lhttp_tx.errors.BusUnavailable`; then there is no subscription.
        """

    def unsubscribe(channel: str, receiver: BusReceiver) -> None:
        """Call *receiver* no more for *channel*. Does nothing if it was not subscribed."""

    def publish(channel: str, payload: bytes, binary: bool) -> MaybeDeferred:
        """
        Send *payload* to every receiver of *channel*, on all nodes.

        :param channel: a valid channel name (see :mod:`lhttp_tx.channels`).
        :param payload: an LHTTP message as subscribers get it.
        :param binary: whether it travels as a binary WebSocket message.
        :returns: ``None`` if the bus has taken it, which is to say that it is on its way (see :meth:`confirm`), else a
            Deferred that

            - succeeds when the bus has taken it;
            - fails with :exc:`lhttp_tx.errors.BusUnavailable` if it was not sent.
        """

    def publish_run(channel: str, payloads: Iterator[bytes], binary: bool) -> MaybeDeferred:
        """
        Send each of *payloads* as :meth:`publish` does, until there is no more or one is not taken at once.

        Those behind that one are left in the iterator, both when this raises and when it returns a Deferred. Where
        the iterator itself raises, those that came out of it are sent, and the exception goes on to the caller. A bus
        that takes them together, and hands them to its receivers together, has less to do for each.
        """

    def confirm() -> MaybeDeferred:
        """
        Find out when everything that was published before can no longer be lost on its way to the bus.

        It is called where somebody waits for an answer, and not for each publication: one question to the bus does for
        all who ask at about the same time. It does not raise.

        :returns: ``None`` if that is so already, else a Deferred that

            - succeeds when the bus has all of it;
            - fails with :exc:`lhttp_tx.errors.BusUnavailable` if it is not known whether the bus has it. The receivers
              of the own node have got it, and others may have.
        """


class IProcessor(Interface):
    """
    Handles the messages of a command. One object serves every connection.

    Each method may return ``None``, a Deferred or a coroutine; the connection's next message waits for it.
    An :exc:`lhttp_tx.errors.LHTTPError` that is raised goes to the client as it is; any other exception is logged and
    told to the client as status 500.
    """

    command: str = Attribute("the command whose messages it gets")
    timeout: float | None = Attribute("seconds that one call may take; None: the server's own limit")

    def on_open(session: Session) -> MaybeAwaitable:
        """Called before the first message of this command on a connection."""

    def on_message(request: Request) -> MaybeAwaitable:
        """Called for each message of this command."""

    def on_close(session: Session) -> MaybeAwaitable:
        """Called once after the end of a connection for which :meth:`on_open` had succeeded."""


class IAuthenticator(Interface):
    """
    Says who a client is, before the WebSocket is accepted and for each login message. One object serves all of them.
    """

    timeout: float | None = Attribute("seconds that one call may take; None: the server's own limit")
    challenges: tuple[str, ...] = Attribute("values of WWW-Authenticate for clients that are refused with status 401")
    secret_parameters: frozenset[str] = Attribute("names of query parameters that are left out of the identity")

    def authenticate(attempt: LoginAttempt) -> Identity | Awaitable[Identity | None] | None:
        """
        Return the identity of a client, made with
        :meth:`LoginAttempt.identify <lhttp_tx.auth.attempt.LoginAttempt.identify>`.

        ``None`` says that the client has shown nothing that this authenticator knows; then the next one is asked. The
        answer may be a Deferred or a coroutine. Any exception but the one below is logged, and told to the client as
        status 500; what it says must hold no secret.

        :raises Refused: to refuse the client: 401 if what it has shown is wrong, 403 if it may not come in.
        """


class IHeaderFilter(Interface):
    """
    Sees messages before and after their processor. One object serves every connection.

    Each method but :meth:`check` may return ``None``, a Deferred or a coroutine. Raising stops the message, and the
    client gets an error: that of an :exc:`lhttp_tx.errors.LHTTPError`, or status 500.
    """

    headers: tuple[str, ...] | None = Attribute("lower-case header names; a message without any of them is not seen")
    timeout: float | None = Attribute("seconds that one call may take; None: the server's own limit")

    def check(head: Head) -> None:
        """
        Called before anything else is done with a message; raise to refuse it.

        The server keeps the outcome for messages with the same head, so it must depend on nothing but *head*.
        """

    def on_open(session: Session) -> MaybeAwaitable:
        """Called when a connection opens, before its first message. Raising closes the connection."""

    def before(request: Request) -> MaybeAwaitable:
        """Called before the processor. May replace ``request.message``."""

    def after(request: Request) -> MaybeAwaitable:
        """Called after the processor."""

    def on_close(session: Session) -> MaybeAwaitable:
        """Called once after the end of every connection."""


class IHooks(Interface):
    """
    What an application does at the turns of a connection's life. One object serves every connection.

    Each method may return ``None``, a Deferred or a coroutine. Of those that a connection waits for, a
    :exc:`lhttp_tx.errors.LHTTPError` goes to the client; of the others, whatever goes wrong is logged.
    """

    timeout: float | None = Attribute("seconds that one call may take; None: the server's own limit")

    def on_connect(session: Session) -> MaybeAwaitable:
        """Called when a connection opens; its messages wait. Raising closes it."""

    def on_disconnect(session: Session) -> MaybeAwaitable:
        """Called once after the end of every connection, when its last message has been handled."""

    def on_message(request: Request) -> MaybeAwaitable:
        """
        Called for each message of a client before anything is done with it, login messages excepted. Raising refuses
        it; ``request.message`` may be replaced.
        """

    def before_subscribe(session: Session, channel: str) -> MaybeAwaitable:
        """
        Called before a client is subscribed to *channel*, and before it learns who is there. Raising refuses the whole
        message.
        """

    def on_subscribe(session: Session, channel: str) -> MaybeAwaitable:
        """Called when a connection is subscribed to *channel*; nobody waits for it."""

    def on_unsubscribe(session: Session, channel: str) -> MaybeAwaitable:
        """Called when it is so no more, also at its end; nobody waits for it."""

    def before_delivery(session: Session, message: Message) -> bool | Awaitable[bool | None] | None:
        """
        Called before a publication is sent to one subscriber. ``False``, or raising, keeps it from that one.

        The publications behind it wait for the answer; what the server says to that client itself does not.
        """

    def on_wait_timeout(session: Session, message: Message) -> MaybeAwaitable:
        """
        Called with a message that has waited for those before it longer than the server allows; it is not handled, and
        its client has been told. Nobody waits for it.
        """

    def on_undelivered(session: Session, messages: list[Message]) -> MaybeAwaitable:
        """
        Called with messages that were not sent when a connection ended that did not read: those of which nothing has
        left the server. Others may have been lost on their way. Nobody waits for it.
        """

    def on_channel_opened(channel: str, scope: str) -> MaybeAwaitable:
        """
        Called when *channel* gets its first subscriber; nobody waits for it.

        :param scope: ``node`` or ``cluster``. Every node is told of the cluster.
        """

    def on_channel_closed(channel: str, scope: str) -> MaybeAwaitable:
        """Called when *channel* loses its last subscriber, as :meth:`on_channel_opened`."""


class IShortcutFilter(IHeaderFilter):
    """
    A header filter that can do without a :class:`~lhttp_tx.request.Request` where nothing else is done with a message.
    """

    def shortcut(head: Head) -> Shortcut | None:
        """
        Return what is called instead of ``before`` and ``after`` for messages with *head*, or ``None``.

        It is asked for once for each head that is kept, behind :meth:`~IHeaderFilter.check`, and only where the steps
        of this filter are all that there is to do: no processor, no step of another filter, no receipt. A class that
        overrides ``before`` or ``after`` and not this method has no shortcut.

        What is returned takes messages out of the iterator and does with each of them what the steps would do. It
        returns ``None`` when there are none left. When it raises, which concerns the message that it took last, and
        when it returns something to be waited for, it leaves the rest where it is; then it is called again.
        """
