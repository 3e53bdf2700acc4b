"""
The filters behind the ``subscribe``, ``publish`` and ``unsubscribe`` headers.

Source: the protocol document, section "Subscribe, publish, unsubscribe".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from zope.interface import implementer

from lhttp_tx.channels import PRESENCE, check_channel
from lhttp_tx.errors import Refused
from lhttp_tx.filters import HeaderFilter
from lhttp_tx.interfaces import IShortcutFilter, MaybeAwaitable, Shortcut

if TYPE_CHECKING:
    from lhttp_tx.message import Head
    from lhttp_tx.request import Request
    from lhttp_tx.session import Session

__all__ = ["PublishFilter", "SubscribeFilter", "UnsubscribeFilter", "no_presence"]


class _ChannelFilter(HeaderFilter):
    """Refuses a message whose list of channels is malformed, before anything is done with it."""

    headers: tuple[str, ...]

    def check(self, head: Head) -> None:
        """:raises RemoteProtocolError: if the list is malformed."""
        head.channels(self.headers[0])


class _SubscriptionFilter(_ChannelFilter):
    """
    Refuses what is no list of subscriptions.

    :ivar has_presence: whether it is known who is in a channel; ``None`` where that is known of none.
    :ivar takes_wildcards: whether there are rules that may allow wildcard subscriptions.
    """

    has_presence: Callable[[str], bool] | None = None
    takes_wildcards = False

    def check(self, head: Head) -> None:
        """
        :raises RemoteProtocolError: if the list is malformed.
        :raises Refused: if it names the presence of a channel of which nobody knows who is there.
        """
        for channel in head.channels(self.headers[0]):
            if channel.startswith(PRESENCE):
                if self.has_presence is None:
                    check_channel(channel)
                elif not self.has_presence(channel[len(PRESENCE) :]):
                    raise no_presence(channel[len(PRESENCE) :])
            elif not self.takes_wildcards:
                check_channel(channel)


def no_presence(channel: str) -> Refused:
    """Return the refusal of a question who is in *channel*, if nobody knows."""
    return Refused(404, f"nobody keeps who is in channel {channel!a}")


class SubscribeFilter(_SubscriptionFilter):
    """Subscribes the sender to the channels that the header lists."""

    headers = ("subscribe",)

    def after(self, request: Request) -> MaybeAwaitable:
        """:raises TooMany: if the connection would have more subscriptions than allowed; then it gets none of them."""
        return request.session.subscribe_all(request.message.head.channels("subscribe"))


@implementer(IShortcutFilter)
class PublishFilter(_ChannelFilter):
    """Publishes the message, or what the processor made of it, to the channels that the header lists."""

    headers = ("publish",)

    def after(self, request: Request) -> MaybeAwaitable:
        """:raises BusUnavailable: if the bus does not take it. What becomes of it then, the receipt waits for."""
        publication = request.publication
        if publication is None:
            return None
        request.published = True
        return request.session.publish_all(request.message.head.channels("publish"), publication.stripped())

    def shortcut(self, head: Head) -> Shortcut:
        """See :meth:`lhttp_tx.interfaces.IShortcutFilter.shortcut`: the bytes that came in go to the bus."""
        channels = head.channels("publish")
        stripped = head.stripped()
        return _Publish(channels) if stripped is head else _PublishStripped(channels, stripped.raw, len(head.raw))


class UnsubscribeFilter(_SubscriptionFilter):
    """Takes back subscriptions of the sender; a channel that it was not subscribed to is no error."""

    headers = ("unsubscribe",)

    def after(self, request: Request) -> MaybeAwaitable:
        """Unsubscribe."""
        for channel in request.message.head.channels("unsubscribe"):
            request.session.unsubscribe(channel)
        return None


class _Publish:
    """Publishes messages as they are. There may be many, so it is smaller than a function with what it encloses."""

    __slots__ = ("_channels",)

    def __init__(self, channels: tuple[str, ...]) -> None:
        self._channels = channels

    def __call__(self, session: Session, messages: Iterator[bytes], binary: bool) -> MaybeAwaitable:
        return session.publish_run(self._channels, messages, binary)


class _PublishStripped(_Publish):
    """Publishes messages less the headers meant for the server alone."""

    __slots__ = ("_cut", "_head")

    def __init__(self, channels: tuple[str, ...], head: bytes, cut: int) -> None:
        super().__init__(channels)
        self._head = head
        self._cut = cut

    def __call__(self, session: Session, messages: Iterator[bytes], binary: bool) -> MaybeAwaitable:
        head, cut = self._head, self._cut
        return session.publish_run(self._channels, (head + message[cut:] for message in messages), binary)
