"""
The account: who published how much to which channel, and who was to get it.

A message is known by its publisher and a number that the publisher counts up for each channel.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

__all__ = ["Ledger", "Publisher", "Subscription"]

_GRACE = 30.0
"""Seconds in which what was on its way when a publisher stopped has come."""


@dataclass
class Publisher:
    """
    What one client has published to one channel.

    :ivar sent: messages sent; their numbers are 0 to ``sent - 1``.
    :ivar accepted: messages of which the receipt has come; a server accepts in order.
    :ivar ended: when it stopped; its last messages may come later.
    """

    sent: int = 0
    accepted: int = 0
    ended: float | None = None


@dataclass
class Subscription:
    """
    One client's subscription to one channel, and what came.

    :ivar since: what each publisher had sent when the subscription was confirmed; later ones had sent nothing.
    :ivar following: number of the message that is to come next, by publisher.
    :ivar begun: when it was confirmed.
    """

    channel: str
    begun: float
    since: dict[str, int]
    following: dict[str, int] = field(default_factory=dict)


class Ledger:
    """
    The account of a whole run.

    :ivar faults: what went wrong, in words.
    :ivar sent: messages published.
    :ivar accepted: messages of which the receipt came.
    :ivar delivered: deliveries.
    :ivar stalled: clients that the server closed because they did not read.
    :ivar audited: deliveries that were due and were found to have come, when a subscription was closed.
    """

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.sent = 0
        self.accepted = 0
        self.delivered = 0
        self.stalled = 0
        self.audited = 0
        self._publishers: dict[str, dict[str, Publisher]] = {}
        self._subscriptions: dict[str, list[Subscription]] = {}

    def fault(self, text: str) -> None:
        """Note that something went wrong; the first hundred are kept."""
        if len(self.faults) < 100:
            self.faults.append(text)

    def publisher(self, name: str, channel: str) -> Publisher:
        """Return the account of *name* in *channel*."""
        return self._publishers.setdefault(channel, {}).setdefault(name, Publisher())

    def end_publisher(self, name: str) -> None:
        """*name* publishes no more."""
        for channel, publishers in self._publishers.items():
            if name in publishers:
                publishers[name].ended = time.monotonic()
                self._forget(channel)

    def open(self, channel: str) -> Subscription:
        """A subscription is confirmed: what is sent from now on must come."""
        since = {name: found.sent for name, found in self._publishers.get(channel, {}).items()}
        subscription = Subscription(channel, time.monotonic(), since)
        self._subscriptions.setdefault(channel, []).append(subscription)
        return subscription

    def deliver(self, subscription: Subscription, name: str, number: int) -> None:
        """A message has come: it must be the one behind the last of its publisher."""
        self.delivered += 1
        following = subscription.following.get(name)
        if following is None:
            if number > subscription.since.get(name, 0):
                self.fault(
                    f"{subscription.channel}: {name} begins with {number}, {subscription.since.get(name, 0)} is due"
                )
        elif number != following:
            self.fault(f"{subscription.channel}: {name} goes on with {number}, {following} is due")
        subscription.following[name] = number + 1

    def due(self, subscription: Subscription) -> dict[str, int]:
        """Return what must have come before anything that the server is asked from now on is answered."""
        found = self._publishers.get(subscription.channel, {})
        return {
            name: publisher.accepted
            for name, publisher in found.items()
            if publisher.accepted > subscription.since.get(name, 0)
        }

    def close(self, subscription: Subscription, due: dict[str, int]) -> None:
        """The subscription has ended in good order: all of *due* must have come."""
        for name, accepted in due.items():
            since = subscription.since.get(name, 0)
            if subscription.following.get(name, 0) < accepted:
                self.fault(
                    f"{subscription.channel}: {name} {subscription.following.get(name)} to {accepted - 1} did not come"
                )
            else:
                self.audited += accepted - since
        self.drop(subscription)

    def drop(self, subscription: Subscription) -> None:
        """The subscription has ended otherwise: what came was in order, what did not come is not missed."""
        self._subscriptions[subscription.channel].remove(subscription)
        self._forget(subscription.channel)

    def _forget(self, channel: str) -> None:
        """Forget publishers that ended before the oldest subscription began: nobody has anything to get from them."""
        oldest = min((found.begun for found in self._subscriptions.get(channel, ())), default=time.monotonic())
        publishers = self._publishers.get(channel, {})
        gone = [name for name, found in publishers.items() if found.ended is not None and found.ended < oldest - _GRACE]
        for name in gone:
            del publishers[name]
