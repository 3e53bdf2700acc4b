"""
The subscriptions of a client, at the client and at the server, and the recovery of missed messages.

Used by :class:`~lhttp_tx.client.client.Client` and :mod:`lhttp_tx.client.inbox`. It uses the connection, and sends
requests with functions of the client, but imports neither the client nor the answers. :mod:`lhttp_tx.client.delivery`
passes publications to the subscriptions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from lhttp_tx.client.delivery import Dispatch
from lhttp_tx.client.errors import ClientClosed, ConnectionLost, ReplyError
from lhttp_tx.client.positions import Positions
from lhttp_tx.client.results import channel_values
from lhttp_tx.client.subscription import ChannelCallback, MessageCallback, Subscription, call_safely
from lhttp_tx.client.uplink import Uplink
from lhttp_tx.codec.message import Message
from lhttp_tx.errors import LHTTPError

__all__ = ["Limited", "MissedCallback", "RecoveredCallback", "Registry"]

_CHANNEL_LIST_SIZE = 4_096
"""
The most bytes of channel names in one message that subscribes again. By default, a server accepts heads of 8,192 bytes.
"""

_NEW_CHANNELS = 64
"""The most channels that get a subscribe message of their own because the server has never confirmed them."""

_POSITION_SIZE = 24
"""
Bytes that are added for each channel of such a list, so that the receipt, which has their positions, is not too large.
"""

_RETRY_INTERVAL = 5.0
"""Seconds until the client subscribes again if the server cannot read the history."""

_UNAVAILABLE = 503

RecoveredCallback = Callable[[str, int, str], object]
"""Called with a channel, the number of recovered messages, and the position after which the next messages follow."""

MissedCallback = Callable[[str, "str | None"], object]
"""
Called with a channel in which messages are missing, and the position after which the next ones follow; ``None`` without
history.
"""


class Limited(Protocol):
    """A function that adds a time limit to a Deferred."""

    def __call__(self, waiting: Deferred[Any], timeout: float | None, what: str, /) -> Deferred[Any]:
        """See :meth:`lhttp_tx.client.subscription.SubscriptionOwner.limited`."""


@final
class Registry:
    """The subscriptions of one client."""

    def __init__(
        self,
        uplink: Uplink,
        positions: Positions,
        *,
        reactor: Any,
        confirm: Callable[[Message], Deferred[Message]],
        limited: Limited,
        report: Callable[[LHTTPError], object],
        on_recovered: RecoveredCallback | None,
        on_missed: MissedCallback | None,
    ) -> None:
        """
        :param uplink: the connection.
        :param positions: the positions of the client.
        :param reactor: the reactor.
        :param confirm: sends a message, and waits for its receipt.
        :param limited: adds a time limit to a Deferred.
        :param report: called with the error when the server refuses a subscription.
        :param on_recovered: called when the client has recovered everything that it had missed in a channel.
        :param on_missed: called when messages of a channel are missing.
        """
        self._uplink = uplink
        self._positions = positions
        self._reactor = reactor
        self._confirm = confirm
        self._limited = limited
        self._report = report
        self._on_recovered = on_recovered
        self._on_missed = on_missed
        self._delivery = Dispatch(positions, lambda channel: self._ask([channel]))
        self._last: dict[str, int] = {}
        self._on_server: set[str] = set()
        self._retry: IDelayedCall | None = None
        self._unavailable: list[list[str]] = []
        positions.attach(self._behind)

    def add(
        self,
        channel: str,
        callback: MessageCallback | ChannelCallback | None,
        buffer: int,
        named: bool = False,
        since: str | None = None,
        last: int | None = None,
    ) -> Subscription:
        """
        Make a subscription. If it is the first one to the channel, subscribe at the server.

        The parameters are those of :meth:`lhttp_tx.client.client.Client.subscribe`.

        :raises ValueError: if *since* or *last* is given, and it is not the first subscription.
        """
        if channel in self._delivery.subscriptions and (since is not None or last is not None):
            raise ValueError(f"this client has already subscribed to {channel}: use history() instead of since or last")
        if since is not None:
            self._positions.put(channel, since)
        if last is not None:
            self._last[channel] = last
        subscription = Subscription(self, channel, callback, buffer, named)
        others = self._delivery.add(subscription)
        if channel in self._on_server:
            subscription.confirm()
        elif self._uplink.link is not None and len(others) == 1:
            self._ask([channel])
        return subscription

    def forget(self, subscription: Subscription) -> Deferred[None]:
        """End *subscription*; see :meth:`~lhttp_tx.client.subscription.Subscription.unsubscribe`."""
        channel = subscription.channel
        subscription.end(ClientClosed("unsubscribed"))
        others = self._delivery.subscriptions[channel]
        others.remove(subscription)
        if others:
            return succeed(None)
        self._drop(channel)
        if self._uplink.link is None:
            return succeed(None)
        gone = self._confirm(Message("unsubscribe", {"unsubscribe": channel})).addCallback(lambda _: None)
        return gone.addErrback(lambda failure: failure.trap(ConnectionLost) and None)

    def limited(self, waiting: Deferred[Any], timeout: float | None, what: str) -> Deferred[Any]:
        """See :class:`~lhttp_tx.client.subscription.SubscriptionOwner`."""
        return self._limited(waiting, timeout, what)

    def restore(self) -> list[Deferred[None]]:
        """
        Subscribe to all channels on a new connection. The Deferreds succeed when the server has confirmed or refused.
        """
        lists = list(self._channel_lists(self._delivery.subscriptions))
        return [self._ask(channels) for channels in lists]

    def taken_back(self, channel: str, error: LHTTPError) -> None:
        """End the subscriptions to *channel* with *error*, because the server has revoked them."""
        for subscription in self._drop(channel):
            subscription.end(error)

    def down(self) -> None:
        """Note that the connection has ended, so that the server has forgotten the subscriptions."""
        self._on_server.clear()
        self._delivery.down()
        self._unavailable.clear()
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def close(self, error: LHTTPError) -> None:
        """Save the positions, and end all subscriptions with *error*."""
        self.down()
        self._positions.close()
        self._last.clear()
        for subscription in self._delivery.clear():
            subscription.end(error)

    def deliver(self, message: Message) -> bool:
        """Pass a publication to the subscriptions that it is for. Return whether there are any."""
        return self._delivery.deliver(message)

    def missed(self, message: Message) -> bool:
        """Handle a ``missed`` message. Return ``False`` if the client is not subscribed to its channel."""
        channel = message.headers.get("channel", "")
        if not self._delivery.concerns(channel):
            return False
        told = channel_values(f"{channel}={message.headers.get('position', '')}").get(channel)
        if channel in self._delivery.subscriptions:
            self._positions.put(channel, told)
        self._tell_missed(channel, told)
        for subscription in tuple(self._delivery.subscriptions.get(channel, ())):
            subscription.missed()
        return True

    def _tell_missed(self, channel: str, position: str | None) -> None:
        if self._on_missed is not None:
            call_safely(self._on_missed, channel, position)

    def asked(self) -> None:
        """See :class:`~lhttp_tx.client.subscription.SubscriptionOwner`."""
        self._positions.changed()

    def _behind(self, channel: str, in_hand: bool) -> tuple[str, int] | None:
        """
        Return the position just before the oldest message of *channel* in a buffer, or, if *in_hand*, in the hands of
        the program; ``None`` if there is none.
        """
        found = [one.behind(in_hand) for one in self._delivery.subscriptions.get(channel, ())]
        return min((one for one in found if one is not None), key=lambda one: one[1], default=None)

    def _drop(self, channel: str) -> list[Subscription]:
        """Remove all subscriptions to *channel*, and return them."""
        self._on_server.discard(channel)
        self._last.pop(channel, None)
        return self._delivery.drop(channel)

    # Subscribe messages

    def _channel_lists(self, channels: Iterable[str]) -> Iterator[list[str]]:
        """
        Split *channels* into one list for each subscribe message.

        A channel that catches up gets a message of its own. So it is clear to which channel a missed message belongs
        that was published to several. So do the first channels that the server has never confirmed: it may refuse one
        of them, such as one without presence, and would refuse the others of the same message with it. These would be
        subscribed to only behind the messages that wait for the connection.
        """
        others: list[str] = []
        new = 0
        for channel in channels:
            is_new = not any(one.was_confirmed for one in self._delivery.subscriptions[channel])
            new += is_new
            catches_up = self._positions.get(channel) is not None or channel in self._last
            if catches_up or (is_new and new <= _NEW_CHANNELS):
                yield [channel]
            else:
                others.append(channel)
        yield from _fitting(others)

    def _question(self, channels: list[str]) -> tuple[Message, bool]:
        """Return the message that subscribes to *channels*, and whether it has the header ``since``."""
        headers = {"subscribe": " ".join(channels)}
        position = self._positions.text(channels[0]) if len(channels) == 1 else None
        if position is not None:
            headers["since"] = position
        elif channels[0] in self._last:
            headers["last"] = str(self._last[channels[0]])
        headers["gaps"] = "tell"
        return Message("subscribe", headers), position is not None

    def _ask(self, channels: list[str]) -> Deferred[None]:
        """
        Subscribe to *channels*. The Deferred succeeds when the server has confirmed or refused all of them, or the
        connection is lost.
        """
        link = self._uplink.link
        message, since = self._question(channels)
        if since or channels[0] in self._last:
            self._delivery.asked[channels[0]] = 0
        asked = self._confirm(message)

        def failed(failure: Failure) -> Deferred[None] | None:
            failure.trap(LHTTPError)
            error: Any = failure.value
            if link is self._uplink.link:
                for channel in channels:
                    self._delivery.asked.pop(channel, None)
            if not isinstance(error, ReplyError):
                if link is not None and link is self._uplink.link:
                    link.abort(f"subscriptions were not confirmed: {error.reason}")
                return None
            return self._refused(channels, error)

        return asked.addCallbacks(lambda receipt: self._confirmed(receipt, channels, since), failed)

    def _confirmed(self, receipt: Message, channels: list[str], since: bool) -> None:
        """Handle the receipt of a subscribe message, and call the program's functions."""
        positions = channel_values(receipt.headers.get("position"))
        recovered = receipt.headers.get("recovered", "").split()
        missed = receipt.headers.get("missed", "").split()
        unsure = receipt.headers.get("unsure", "").split()
        told: list[tuple[str, int]] = []
        for channel in channels:
            count = self._delivery.asked.pop(channel, 0)
            if channel not in self._delivery.subscriptions:
                continue
            self._last.pop(channel, None)
            if channel in positions and channel not in missed:
                self._positions.advance(channel, positions[channel])
            else:
                self._positions.put(channel, positions.get(channel))
            self._on_server.add(channel)
            reached, is_torn = self._delivery.settle(channel)
            now = self._positions.get(channel)
            if is_torn or (now is not None and now[1] < reached):  # the latter has another epoch
                recovered = [name for name in recovered if name != channel]
                told.append((channel, count))
            elif since or channel in missed:
                told.append((channel, count))
            for subscription in tuple(self._delivery.subscriptions.get(channel, ())):
                if now is not None:
                    subscription.place(now[0])
                subscription.confirm(unsure=channel in unsure)
        for channel, count in told:
            if channel not in recovered:  # a server without history has no such header
                self._tell_missed(channel, positions.get(channel))
            elif self._on_recovered is not None:
                position = self._positions.text(channel) or positions.get(channel, "")
                call_safely(self._on_recovered, channel, count, position)

    def _refused(self, channels: list[str], error: ReplyError) -> Deferred[None] | None:
        """
        If the history is unavailable, subscribe again later. Otherwise, subscribe to each channel separately; or end
        the subscriptions if there is only one channel.
        """
        channels = [channel for channel in channels if channel in self._delivery.subscriptions]
        several = [one for channel in channels for one in self._delivery.subscriptions[channel]]
        if error.status == _UNAVAILABLE and channels and all(one.was_confirmed for one in several):
            self._ask_later(channels)
        elif len(channels) > 1:
            # One of them is refused, or all together are too many.
            return self._ask_in_turn(iter([[channel] for channel in channels]))
        else:
            for channel in channels:
                for subscription in self._drop(channel):
                    subscription.end(error)
        if channels:
            self._report(ReplyError(f"channel {' '.join(channels)[:200]}: {error.reason}", status=error.status))
        return None

    def _ask_in_turn(self, lists: Iterator[list[str]]) -> Deferred[None]:
        channels = next(lists, None)
        if channels is None:
            return succeed(None)
        if channels[0] not in self._delivery.subscriptions:
            return self._ask_in_turn(lists)
        return self._ask(channels).addCallback(lambda _: self._ask_in_turn(lists))

    def _ask_later(self, channels: list[str]) -> None:
        self._unavailable.append(channels)
        if self._retry is None:
            self._retry = self._reactor.callLater(_RETRY_INTERVAL, self._ask_again)

    def _ask_again(self) -> None:
        self._retry = None
        lists, self._unavailable = self._unavailable, []
        for channels in lists:
            left = [channel for channel in channels if channel in self._delivery.subscriptions]
            if left and self._uplink.link is not None:
                self._ask(left)


def _fitting(channels: Iterable[str]) -> Iterator[list[str]]:
    """Split *channels* into lists. Each list fits into the head of one message."""
    found: list[str] = []
    size = 0
    for channel in channels:
        taken = len(channel.encode("utf-8")) + 1 + _POSITION_SIZE
        size += taken
        if found and size > _CHANNEL_LIST_SIZE:
            yield found
            found, size = [], taken
        found.append(channel)
    if found:
        yield found
