"""
The interfaces between the floors of the house, and those that users implement.

Imports only the codec, and the engine's types for annotations.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from lhttp_tx.message import Head
    from lhttp_tx.request import Request
    from lhttp_tx.session import Session

__all__ = [
    "BusReceiver",
    "IBus",
    "IHeaderFilter",
    "IProcessor",
    "ISessionTransport",
    "MaybeAwaitable",
    "MaybeDeferred",
]

MaybeDeferred: TypeAlias = Deferred[None] | None
"""``None`` where the work is done already, else a Deferred that fires when it is."""

MaybeAwaitable: TypeAlias = Awaitable[Any] | None
"""What a user's callback may return: ``None``, a Deferred or a coroutine."""

BusReceiver: TypeAlias = Callable[[str, bytes, bool], None]
"""Called with channel, payload and whether it is binary, for each publication; must not raise."""


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
        :returns: ``None`` if the bus has taken it, else a Deferred that

            - succeeds when the bus has taken it;
            - fails with :exc:`lhttp_tx.errors.BusUnavailable` if it was not sent.
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
