"""
The filters behind the ``subscribe``, ``publish`` and ``unsubscribe`` headers.

Source: the protocol document, section "Subscribe, publish, unsubscribe".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lhttp_tx.filters import HeaderFilter
from lhttp_tx.interfaces import MaybeAwaitable

if TYPE_CHECKING:
    from lhttp_tx.message import Head
    from lhttp_tx.request import Request

__all__ = ["PublishFilter", "SubscribeFilter", "UnsubscribeFilter"]


class _ChannelFilter(HeaderFilter):
    """Refuses a message whose list of channels is malformed, before anything is done with it."""

    headers: tuple[str, ...]

    def check(self, head: Head) -> None:
        """:raises RemoteProtocolError: if the list is malformed."""
        head.channels(self.headers[0])


class SubscribeFilter(_ChannelFilter):
    """Subscribes the sender to the channels that the header lists."""

    headers = ("subscribe",)

    def after(self, request: Request) -> MaybeAwaitable:
        """:raises TooMany: if the connection would have more subscriptions than allowed; then it gets none of them."""
        return request.session.subscribe_all(request.message.head.channels("subscribe"))


class PublishFilter(_ChannelFilter):
    """Publishes the message, or what the processor made of it, to the channels that the header lists."""

    headers = ("publish",)

    def after(self, request: Request) -> MaybeAwaitable:
        """:raises BusUnavailable: if the bus does not take it."""
        publication = request.publication
        if publication is None:
            return None
        return request.session.publish_all(request.message.head.channels("publish"), publication.stripped())


class UnsubscribeFilter(_ChannelFilter):
    """Takes back subscriptions of the sender; a channel that it was not subscribed to is no error."""

    headers = ("unsubscribe",)

    def after(self, request: Request) -> MaybeAwaitable:
        """Unsubscribe."""
        for channel in request.message.head.channels("unsubscribe"):
            request.session.unsubscribe(channel)
        return None
