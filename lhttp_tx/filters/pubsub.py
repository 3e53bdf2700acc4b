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
    """Refuses a message whose list of channels is malformed, before anything is done with it."""

    headers: tuple[str, ...]

    def check(self, head: Head) -> None:
        """:raises RemoteProtocolError: if the list is malformed."""
        head.channels(self.headers[0])

    def channels_of(self, request: Request) -> tuple[str, ...]:
        """
        Return the channels of the final message, whether the client or code wrote it.

        :raises LocalProtocolError: if the list is malformed: code has replaced a valid list by it.
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
        # Lists may be long, and most hold valid names of channels alone.
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

    :ivar recovery: hands over what the sender has missed, where channels may have history; else ``None``.
    """

    headers = ("subscribe",)
    recovery: Recovery | None = None

    def check(self, head: Head) -> None:
        """See the parent; also :raises RemoteProtocolError: if ``since`` or ``last`` is malformed."""
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
    """Say in the receipt where it is not known whether all nodes pass on what they publish."""
    unsure = cast(Member, request.session).unsure_of(channels)
    if unsure:
        request.receipt_headers += (("unsure", " ".join(unsure)),)


@implementer(IShortcutFilter)
class PublishFilter(_ChannelFilter):
    """
    Publishes the message, or what the processor made of it, to the channels that the header lists.

    :ivar files: whether message ids have a meaning.
    :ivar has_history: whether there may be channels with history, whose positions receipts tell.
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
        request.published = True
        if self.files:
            request.filing = filing_of(request.message.head, wanted=self.has_history and request.receipt is not None)
        return cast(Member, request.session).publish_all(channels, publication.stripped(), request.filing)

    def shortcut(self, head: Head) -> Shortcut:
        """See :meth:`lhttp_tx.interfaces.IShortcutFilter.shortcut`: the bytes go to the bus as they came in."""
        channels = head.channels("publish")
        stripped = head.stripped()
        return _Publish(channels) if stripped is head else _PublishStripped(channels, stripped.raw, len(head.raw))


class UnsubscribeFilter(_SubscriptionFilter):
    """Takes back subscriptions of the sender. It ignores channels that the sender is not subscribed to."""

    headers = ("unsubscribe",)

    def after(self, request: Request) -> MaybeAwaitable:
        """Unsubscribe."""
        cast(Member, request.session).unsubscribe_all(self.channels_of(request))
        return None


class _Publish:
    """
    Publishes messages as they are. A server may keep many of these, so the class takes less memory than a closure.
    """

    __slots__ = ("_channels",)

    def __init__(self, channels: tuple[str, ...]) -> None:
        self._channels = channels

    def __call__(self, session: Member, messages: Iterator[bytes], binary: bool) -> MaybeAwaitable:
        return session.publish_run(self._channels, messages, binary)


class _PublishStripped(_Publish):
    """Publishes messages without the headers meant for the server alone."""

    __slots__ = ("_cut", "_head")

    def __init__(self, channels: tuple[str, ...], head: bytes, cut: int) -> None:
        super().__init__(channels)
        self._head = head
        self._cut = cut

    def __call__(self, session: Member, messages: Iterator[bytes], binary: bool) -> MaybeAwaitable:
        head, cut = self._head, self._cut
        return session.publish_run(self._channels, (head + message[cut:] for message in messages), binary)
