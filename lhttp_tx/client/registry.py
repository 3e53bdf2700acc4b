"""
Which channels a client is subscribed to, on its side and on the server's, and who gets what is published to them.

Used by :class:`~lhttp_tx.client.client.Client` and :mod:`lhttp_tx.client.inbox`. It sees the connection and asks
through the client, but imports neither the client nor the answers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, Protocol, final

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from lhttp_tx.channels import check_subscription, split_channels
from lhttp_tx.client.errors import ClientClosed, ConnectionLost, ReplyError
from lhttp_tx.client.subscription import MessageCallback, Subscription
from lhttp_tx.client.uplink import Uplink
from lhttp_tx.errors import LHTTPError, RemoteProtocolError
from lhttp_tx.message import Message

__all__ = ["Limited", "Registry"]

_MAX_COPIES = 1_024
"""Different publications to several of our channels of which a copy is still awaited."""

_CHANNEL_LIST_SIZE = 4_096
"""Bytes of channel names in one message that subscribes again; a server takes heads of 8,192."""


class Limited(Protocol):
    """Puts a time limit on a Deferred."""

    def __call__(self, waiting: Deferred[Any], timeout: float | None, what: str, /) -> Deferred[Any]:
        """See :meth:`lhttp_tx.client.subscription.SubscriptionOwner.limited`."""


@final
class Registry:
    """The subscriptions of one client."""

    def __init__(
        self,
        uplink: Uplink,
        *,
        confirm: Callable[[Message], Deferred[Message]],
        limited: Limited,
        report: Callable[[LHTTPError], object],
    ) -> None:
        """
        :param uplink: the connection.
        :param confirm: sends a message and waits for its receipt.
        :param report: called when the server refuses a subscription.
        """
        self._uplink = uplink
        self._confirm = confirm
        self._limited = limited
        self._report = report
        self._subscriptions: dict[str, list[Subscription]] = {}
        self._on_server: set[str] = set()
        self._copies: OrderedDict[bytes, int] = OrderedDict()

    def add(self, channel: str, callback: MessageCallback | None, buffer: int) -> Subscription:
        """Make a subscription; ask the server if nobody has subscribed to the channel yet."""
        subscription = Subscription(self, channel, callback, buffer)
        others = self._subscriptions.setdefault(channel, [])
        others.append(subscription)
        self._copies.clear()
        if channel in self._on_server:
            subscription.confirm()
        elif self._uplink.link is not None and len(others) == 1:
            self._ask([channel])
        return subscription

    def forget(self, subscription: Subscription) -> Deferred[None]:
        """End *subscription*; see :meth:`~lhttp_tx.client.subscription.Subscription.unsubscribe`."""
        channel = subscription.channel
        subscription.end(ClientClosed("unsubscribed"))
        others = self._subscriptions[channel]
        others.remove(subscription)
        if others:
            return succeed(None)
        del self._subscriptions[channel]
        self._on_server.discard(channel)
        self._copies.clear()
        if self._uplink.link is None:
            return succeed(None)
        gone = self._confirm(Message("unsubscribe", {"unsubscribe": channel})).addCallback(lambda _: None)
        return gone.addErrback(lambda failure: failure.trap(ConnectionLost) and None)

    def limited(self, waiting: Deferred[Any], timeout: float | None, what: str) -> Deferred[Any]:
        """See :class:`~lhttp_tx.client.subscription.SubscriptionOwner`."""
        return self._limited(waiting, timeout, what)

    def restore(self) -> list[Deferred[None]]:
        """Ask for all channels on a new connection; the Deferreds succeed when the server has answered."""
        lists = list(_channel_lists(self._subscriptions))
        return [self._ask(channels) for channels in lists]

    def taken_back(self, channel: str, error: LHTTPError) -> None:
        """End the subscriptions to *channel* with *error*: the server has taken it back."""
        self._on_server.discard(channel)
        self._copies.clear()
        for subscription in self._subscriptions.pop(channel, ()):
            subscription.end(error)

    def down(self) -> None:
        """Note that the connection has ended, and the server's side of the subscriptions with it."""
        self._on_server.clear()
        self._copies.clear()

    def close(self, error: LHTTPError) -> None:
        """End all subscriptions with *error*."""
        subscriptions, self._subscriptions = self._subscriptions, {}
        for subscription in [one for several in subscriptions.values() for one in several]:
            subscription.end(error)

    def deliver(self, message: Message) -> bool:
        """Hand a published message to the subscriptions of one of its channels; return whether there are any."""
        ours = [channel for channel in _published(message) if channel in self._subscriptions]
        if not ours:
            return False
        channel = ours[0] if len(ours) == 1 else ours[self._copy_number(message.raw, len(ours))]
        for subscription in tuple(self._subscriptions[channel]):
            subscription.deliver(message)
        return True

    def _copy_number(self, raw: bytes, copies: int) -> int:
        """Return how many copies of a publication to several of our channels came before this one."""
        number = self._copies.pop(raw, 0)
        if number + 1 < copies:
            self._copies[raw] = number + 1
            if len(self._copies) > _MAX_COPIES:
                self._copies.popitem(last=False)
        return number

    def _ask(self, channels: list[str]) -> Deferred[None]:
        """Ask for *channels*; succeeds when all are confirmed or refused, fails if the server does not say."""
        link = self._uplink.link
        asked = self._confirm(Message("subscribe", {"subscribe": " ".join(channels)}))

        def confirmed(_: object) -> None:
            for channel in channels:
                if channel in self._subscriptions:
                    self._on_server.add(channel)
                for subscription in tuple(self._subscriptions.get(channel, ())):
                    subscription.confirm()

        def failed(failure: Failure) -> Deferred[None] | None:
            failure.trap(LHTTPError)
            error: Any = failure.value
            if not isinstance(error, ReplyError):
                if link is not None and link is self._uplink.link:
                    link.abort(f"subscriptions were not confirmed: {error.reason}")
                return None
            if len(channels) > 1:
                # One of them is at fault, or all are too many: ask for each.
                alone = iter([[channel] for channel in channels if channel in self._subscriptions])
                return self._ask_in_turn(alone)
            for subscription in self._subscriptions.pop(channels[0], ()):
                subscription.end(error)
            self._report(ReplyError(f"channel {channels[0]}: {error.reason}", status=error.status))
            return None

        return asked.addCallbacks(confirmed, failed)

    def _ask_in_turn(self, lists: Iterator[list[str]]) -> Deferred[None]:
        channels = next(lists, None)
        if channels is None:
            return succeed(None)
        return self._ask(channels).addCallback(lambda _: self._ask_in_turn(lists))


def _channel_lists(channels: Iterable[str]) -> Iterator[list[str]]:
    """Split *channels* into lists that fit into the head of one message each."""
    found: list[str] = []
    size = 0
    for channel in channels:
        size += len(channel.encode("utf-8")) + 1
        if found and size > _CHANNEL_LIST_SIZE:
            yield found
            found, size = [], len(channel.encode("utf-8")) + 1
        found.append(channel)
    if found:
        yield found


def _published(message: Message) -> tuple[str, ...]:
    """Return the channels that a message was published to; none if the list is malformed."""
    try:
        return message.head.channels("publish")
    except RemoteProtocolError:
        with suppress(RemoteProtocolError):  # the server itself may have published it
            values = [value for name, value in message.headers if name.lower() == "publish"]
            return split_channels(values, check_subscription)
        return ()
