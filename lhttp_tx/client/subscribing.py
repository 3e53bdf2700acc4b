"""
The methods of a client that follow channels: subscriptions, their positions, and presence.

A part of :class:`lhttp_tx.client.client.Client`, on top of those that send.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, overload

from lhttp_tx.client.arguments import check_callbacks, check_numbers, check_text, check_texts
from lhttp_tx.client.errors import ClientClosed
from lhttp_tx.client.positions import Positions
from lhttp_tx.client.presence import Presence
from lhttp_tx.client.presence.following import EndCallback, PersonCallback
from lhttp_tx.client.registry import Registry
from lhttp_tx.client.requests import RequestingService
from lhttp_tx.client.subscription import ChannelCallback, MessageCallback, Subscription
from lhttp_tx.codec.channels import check_subscription
from lhttp_tx.codec.wildcards import is_wildcard

__all__ = ["SubscribingService"]


class SubscribingService(RequestingService):
    """A service that sends messages and follows channels. The subclass makes its parts."""

    _positions: Positions
    _reactor: Any
    _registry: Registry

    @overload
    def subscribe(
        self,
        channel: str,
        callback: MessageCallback | None = None,
        *,
        buffer: int = 1_000,
        since: str | None = None,
        last: int | None = None,
    ) -> Subscription: ...

    @overload
    def subscribe(
        self,
        channel: str,
        callback: ChannelCallback,
        *,
        buffer: int = 1_000,
        named: Literal[True],
        since: str | None = None,
        last: int | None = None,
    ) -> Subscription: ...

    def subscribe(
        self,
        channel: str,
        callback: MessageCallback | ChannelCallback | None = None,
        *,
        buffer: int = 1_000,
        named: bool = False,
        since: str | None = None,
        last: int | None = None,
    ) -> Subscription:
        """
        Subscribe to a channel, on this connection and on later ones.

        :param channel: a channel name, or a wildcard subscription. The token ``*`` stands for one token. ``>`` at the
            end stands for one or more tokens. A server accepts a wildcard only if its rules allow it.
        :param callback: called with each message. ``None``: iterate over the subscription.
        :param named: whether *callback* gets the message's channel as its second argument. This is useful with
            wildcards.
        :param buffer: the most messages that wait for the iteration, at least 1. They have at most 16 MiB. If the
            buffer is full, a new message pushes out the oldest; see
            :class:`~lhttp_tx.client.subscription.Subscription`.
        :param since: a position, as returned by :meth:`position`. The messages after it come first. By default, it is
            the stored position, if there is one.
        :param last: the most earlier messages that come first, if there is no position. They are the newest ones of the
            history. Without a history, there are none.
        :returns: the subscription. You may ``await`` it until the server has confirmed it. If the server refuses it, it
            ends with that error, and ``on_error`` is called.
        :raises RemoteProtocolError: if the channel name is malformed or reserved, or *since* is malformed.
        :raises ClientClosed: if the client is closed.
        :raises TypeError: if *callback* is not callable, or cannot take these arguments; or if another argument has a
            wrong type.
        :raises ValueError: if *buffer* or *last* is less than 1; or if *since* or *last* is used with a wildcard, or
            with a channel that this client is already subscribed to.
        """
        check_text("channel", channel)
        check_texts(since=since)
        check_numbers(buffer=buffer, last=last)
        check_subscription(channel)
        check_callbacks(*(("message", "channel") if named else ("message",)), callback=callback)
        if buffer < 1:
            raise ValueError(f"a buffer of {buffer} messages holds none")
        if last is not None and last < 1:
            raise ValueError(f"the last {last} messages are none")
        if (since is not None or last is not None) and is_wildcard(channel):
            raise ValueError(f"{channel} is a wildcard, and a wildcard has no history: leave out since and last")
        if self._uplink.ended:
            raise ClientClosed("the client is closed")
        return self._registry.add(channel, callback, buffer, named, since, last)

    def presence(
        self,
        channel: str,
        *,
        on_join: PersonCallback | None = None,
        on_leave: PersonCallback | None = None,
        on_sync: Callable[[Presence], object] | None = None,
        on_change: Callable[[Presence], object] | None = None,
        on_end: EndCallback | None = None,
        buffer: int = 1_000,
    ) -> Presence:
        """
        Follow the people in a channel, on this connection and on later ones (:doc:`/howto/presence`).

        :param channel: a channel name. The server must keep the presence of the channel.
        :param on_join: called with the name of a user who has joined (``None``: anonymous), and the id of the
            connection. It is not called for people who are in the first list.
        :param on_leave: called like *on_join* when a person has left.
        :param on_sync: called with the presence when the client has got a list of the people from the server: first,
            after each reconnection, and until the list is complete.
        :param on_change: called with the presence after each of these.
        :param on_end: called once, when the presence ends: with ``None`` if it or the client was closed, else with the
            error.
        :param buffer: the most changes that wait for the iteration, at least 1.
        :returns: the presence. You may ``await`` it until the people are known. If the server refuses, it ends with
            that error.
        :raises RemoteProtocolError: if the channel name is malformed or reserved.
        :raises ClientClosed: if the client is closed.
        :raises TypeError: if a callback is not callable, or cannot take its arguments; or if another argument has a
            wrong type.
        :raises ValueError: if *buffer* is less than 1.
        """
        check_text("channel", channel)
        check_numbers(buffer=buffer)
        check_callbacks("user", "connection", on_join=on_join, on_leave=on_leave)
        check_callbacks("presence", on_sync=on_sync, on_change=on_change)
        check_callbacks("error", on_end=on_end)
        if buffer < 1:
            raise ValueError(f"a buffer of {buffer} changes holds none")
        return Presence(
            channel,
            subscribe=self.subscribe,
            request=self.request,
            limited=self._limited,
            is_linked=lambda: self._uplink.link is not None,
            reactor=self._reactor,
            on_join=on_join,
            on_leave=on_leave,
            on_sync=on_sync,
            on_change=on_change,
            on_end=on_end,
            buffer=buffer,
        )

    def interrupted(self) -> None:
        """
        Note that an error has ended the loops of the program. When the client is closed, the message that each loop has
        taken last does not count as handled: the next run of the program gets it again, if positions are stored.
        """
        self._positions.interrupted()

    def position(self, channel: str) -> str | None:
        """
        Return the position of the last message of a channel that the program has got.

        In a callback, this is the position of the callback's message. Messages in a buffer do not count.

        :returns: the position; ``None`` if the channel has no history, or the client has not subscribed to it.
        """
        return self._positions.taken(channel)

    def positions(self) -> dict[str, str]:
        """Return the positions of all channels, by channel; see :meth:`position`."""
        return self._positions.all_taken()
