"""
The filters behind the ``subscribe``, ``publish`` and ``unsubscribe`` headers.

Source: the protocol document, section "Subscribe, publish, unsubscribe".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, cast

from twisted.internet.defer import Deferred
from zope.interface import implementer

from lhttp_tx.codec.channels import PRESENCE, check_channel
from lhttp_tx.engine.membership import Member
from lhttp_tx.errors import LocalProtocolError, Refused, RemoteProtocolError
from lhttp_tx.filters import HeaderFilter
from lhttp_tx.history.values import ID_LINE, filing_of, message_id_of
from lhttp_tx.interfaces import IShortcutFilter, MaybeAwaitable, Shortcut

if TYPE_CHECKING:
    from lhttp_tx.codec.message import Head
    from lhttp_tx.engine.request import Request
    from lhttp_tx.history.recovery import Recovery

__all__ = [
    "PublishFilter",
    "SubscribeFilter",
    "UnsubscribeFilter",
    "no_presence",
]


class _ChannelFilter(HeaderFilter):
    """Refuses a message whose list of channels is malformed, before the server acts on it."""

    headers: tuple[str, ...]

    def check(self, head: Head) -> None:
        """:raises RemoteProtocolError: if the list is malformed."""
        head.channels(self.headers[0])

    def channels_of(self, request: Request) -> tuple[str, ...]:
        """
        Return the channels of the final message, whether the client or code wrote it.

        :raises LocalProtocolError: if the list is malformed, because code has written it.
        :raises Refused: as :meth:`check`.
        """
        head = request.message.head
        try:
            self.check(head)
        except RemoteProtocolError as error:
            raise LocalProtocolError(f"header {self.headers[0]}: {error.reason}") from error
        return head.channels(self.headers[0])


class _SubscriptionFilter(_ChannelFilter):
    """
    Refuses a malformed list of subscriptions.

    :ivar has_presence: returns whether the server keeps the presence of a channel; ``None`` if it keeps none.
    :ivar takes_wildcards: whether there are rules that may allow wildcard subscriptions.
    """

    has_presence: Callable[[str], bool] | None = None
    takes_wildcards = False

    def check(self, head: Head) -> None:
        """
        :raises RemoteProtocolError: if the list is malformed.
        :raises Refused: if the list names the presence of a channel whose presence the server does not keep.
        """
        channels = head.channels(self.headers[0])
        # Lists may be long, and most contain only valid channel names.
        listed = " ".join(channels)
        if PRESENCE not in listed and (self.takes_wildcards or not ("*" in listed or ">" in listed)):
            return
        for channel in channels:
            if channel.startswith(PRESENCE):
                if self.has_presence is None:
                    check_channel(channel)
                elif not self.has_presence(channel[len(PRESENCE) :]):
                    raise no_presence(channel[len(PRESENCE) :])
            elif not self.takes_wildcards:
                check_channel(channel)


def no_presence(channel: str) -> Refused:
    """Return the refusal for a client that asks for the presence of *channel*, which the server does not keep."""
    return Refused(404, f"channel {channel!a} has no presence")


class SubscribeFilter(_SubscriptionFilter):
    """
    Subscribes the sender to the channels that the header lists.

    :ivar recovery: delivers the messages that the sender has missed; ``None`` if no channel may have history.
    """

    headers = ("subscribe",)
    recovery: Recovery | None = None

    def check(self, head: Head) -> None:
        """
        See the base class.

        :raises RemoteProtocolError: also if ``since`` or ``last`` is malformed.
        """
        super().check(head)
        if self.recovery is not None:
            self.recovery.check(head)

    def after(self, request: Request) -> MaybeAwaitable:
        """:raises TooMany: if the connection would have more subscriptions than allowed; then it gets none of them."""
        channels = self.channels_of(request)
        if self.recovery is not None:
            waiting: MaybeAwaitable = self.recovery.subscribe(request, channels)
        else:
            waiting = cast(Member, request.session).subscribe_all(channels)
        if request.receipt is None:
            return waiting
        if isinstance(waiting, Deferred):
            return waiting.addCallback(_tell_unsure, request, channels)
        _tell_unsure(None, request, channels)
        return waiting


def _tell_unsure(result: None, request: Request, channels: tuple[str, ...]) -> None:
    """Add ``unsure`` to the receipt, with the channels whose publications on other nodes may not arrive."""
    unsure = cast(Member, request.session).unsure_of(channels)
    if unsure:
        request.receipt_headers += (("unsure", " ".join(unsure)),)


@implementer(IShortcutFilter)
class PublishFilter(_ChannelFilter):
    """
    Publishes the message, or the processor's replacement of it, to the channels that the header lists.

    :ivar files: whether the server handles message ids.
    :ivar has_history: whether there may be channels with history. Receipts then contain positions.
    """

    headers = ("publish",)
    files = False
    has_history = False
    tells_nothing = True

    def check(self, head: Head) -> None:
        """:raises RemoteProtocolError: if the list of channels, or the message id, is malformed."""
        head.channels("publish")
        if self.files and ID_LINE.search(head.raw):
            message_id_of(head)

    def after(self, request: Request) -> MaybeAwaitable:
        """:raises BusUnavailable: if the bus does not take the message. A receipt waits until the bus has it."""
        publication = request.publication
        if publication is None:
            return None
        channels = self.channels_of(request)
        request.published, request.published_to = True, channels
        if self.files:
            request.filing = filing_of(request.message.head, wanted=self.has_history and request.receipt is not None)
        return cast(Member, request.session).publish_all(channels, publication.stripped(), request.filing)

    def shortcut(self, head: Head) -> Shortcut:
        """See :meth:`lhttp_tx.interfaces.IShortcutFilter.shortcut`. The bytes go to the bus as they arrived."""
        channels = head.channels("publish")
        stripped = head.stripped()
        return _Publish(channels) if stripped is head else _PublishStripped(channels, stripped.raw, len(head.raw))


class UnsubscribeFilter(_SubscriptionFilter):
    """Ends subscriptions of the sender. It ignores channels to which the sender is not subscribed."""

    headers = ("unsubscribe",)

    def after(self, request: Request) -> MaybeAwaitable:
        """Unsubscribe the sender."""
        cast(Member, request.session).unsubscribe_all(self.channels_of(request))
        return None


class _Publish:
    """
    Publishes unchanged messages. A server may keep many such objects, so this is a class, which takes less memory than
    a closure.
    """

    __slots__ = ("_channels",)

    def __init__(self, channels: tuple[str, ...]) -> None:
        self._channels = channels

    def __call__(self, session: Member, messages: Iterator[bytes], binary: bool) -> MaybeAwaitable:
        return session.publish_run(self._channels, messages, binary)


class _PublishStripped(_Publish):
    """Publishes messages without the headers that are only for the server."""

    __slots__ = ("_cut", "_head")

    def __init__(self, channels: tuple[str, ...], head: bytes, cut: int) -> None:
        super().__init__(channels)
        self._head = head
        self._cut = cut

    def __call__(self, session: Member, messages: Iterator[bytes], binary: bool) -> MaybeAwaitable:
        head, cut = self._head, self._cut
        return session.publish_run(self._channels, (head + message[cut:] for message in messages), binary)
