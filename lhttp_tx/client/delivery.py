"""
Decides which subscriptions get a publication, and whether it has arrived before.

Used by :mod:`lhttp_tx.client.registry`. A server sends one copy for each of the client's subscriptions that match. If
the channel has history, the copy has an offset in this channel. This module sends nothing. Source: the protocol
document, section "History".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from time import monotonic
from typing import final

from lhttp_tx.client.positions import Positions
from lhttp_tx.client.subscription import Subscription
from lhttp_tx.codec.channels import PRESENCE, check_channel, split_channels
from lhttp_tx.codec.message import Message
from lhttp_tx.codec.positions import offsets_of
from lhttp_tx.codec.wildcards import Wildcards, is_wildcard
from lhttp_tx.errors import RemoteProtocolError

__all__ = ["Dispatch"]

_MAX_COPIES = 1_024
"""The most publications whose copies are counted, because they match several subscriptions."""

_MAX_IDS = 4_096
_ID_TIME = 120.0
"""
The most message ids that are remembered, and the seconds for which they are. By default, servers remember them as long.
"""

_Way = tuple[str, str]
"""A channel, and the subscription that matches it: its own name, or a wildcard."""


@final
class Dispatch:
    """
    Passes publications to the subscriptions of one client.

    :ivar subscriptions: the subscriptions, by name.
    :ivar asked: the number of messages that have come for each channel that catches up. The server sends the missed
        messages of the channels in this order, before it confirms the subscriptions.
    """

    def __init__(self, positions: Positions, hole: Callable[[str], object]) -> None:
        """
        :param positions: the positions in channels with history.
        :param hole: called with a channel when messages of it are missing.
        """
        self.subscriptions: dict[str, list[Subscription]] = {}
        self.asked: dict[str, int] = {}
        self._positions = positions
        self._hole = hole
        self._wildcards = Wildcards()
        self._copies: OrderedDict[bytes, int] = OrderedDict()
        self._ids: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._reached: dict[str, int] = {}
        self._torn: set[str] = set()

    def add(self, subscription: Subscription) -> list[Subscription]:
        """Add a subscription. Return all subscriptions with the same name."""
        found = self.subscriptions.setdefault(subscription.channel, [])
        found.append(subscription)
        if is_wildcard(subscription.channel):
            self._wildcards.add(subscription.channel)
        self._copies.clear()
        return found

    def drop(self, name: str) -> list[Subscription]:
        """Remove all subscriptions with a name, and forget its position. Return the subscriptions."""
        self._wildcards.discard(name)
        self._copies.clear()
        for key in [key for key in self._ids if key[0] == name]:
            del self._ids[key]
        self.asked.pop(name, None)
        self.settle(name)
        self._positions.put(name, None)
        return self.subscriptions.pop(name, [])

    def clear(self) -> list[Subscription]:
        """Remove all subscriptions, and return them."""
        found, self.subscriptions = self.subscriptions, {}
        self._wildcards = Wildcards()
        self._reached.clear()
        self._torn.clear()
        self.down()
        return [one for several in found.values() for one in several]

    def down(self) -> None:
        """Note that the connection has ended, so that no more copies come."""
        self.asked.clear()
        self._copies.clear()

    def settle(self, channel: str) -> tuple[int, bool]:
        """
        Forget what has come of a channel before its position was known.

        If the connection is lost meanwhile, the newest messages are asked for again.

        :returns: the offset of the last of these messages, 0 if there are none; and whether messages between them are
            missing.
        """
        is_torn = channel in self._torn
        self._torn.discard(channel)
        return self._reached.pop(channel, 0), is_torn

    def concerns(self, channel: str) -> bool:
        """Return whether a subscription matches *channel*."""
        return channel in self.subscriptions or bool(self._wildcards and self._wildcards.matching(channel))

    def deliver(self, message: Message) -> bool:
        """Pass one copy of a publication to the subscriptions that it is for. Return whether there are any."""
        ways: list[_Way] = []
        offset, after = offsets_of(message.raw)
        listed = _published(message)
        named = message.headers.get("offset-of") if offset else None  # the channel of this copy
        if named in listed:  # in channels without history, anybody can write such a header
            listed = (named,)
        for channel in listed:
            if channel in self.subscriptions:
                ways.append((channel, channel))
            if self._wildcards:
                ways += [(channel, name) for name in self._wildcards.matching(channel)]
        if not ways:
            return False
        kept = [channel for channel, name in ways if channel == name and self._has_history(channel)] if offset else []
        if kept:
            self._deliver_kept(message, ways, kept, offset, after)
            return True
        if len(ways) > 1:
            if not offset and message.headers.get("store") != "no":
                # Copies for channels with history have an offset, so this one is for another channel.
                ways = [way for way in ways if self._positions.get(way[0]) is None] or ways
            number = self._count(message.raw, len(ways)) if len(ways) > 1 else 0
            ways = ways[number:]
        self._hand(message, ways[0])
        return True

    def _has_history(self, channel: str) -> bool:
        return self._positions.get(channel) is not None or channel in self.asked

    def _deliver_kept(self, message: Message, ways: list[_Way], kept: list[str], offset: int, after: int) -> None:
        """Deliver a message with an offset in one of the channels *kept*, unless it has arrived before."""
        channel = self._choose(kept, offset, after)
        if channel is not None:
            before = self._positions.get(channel)
            if before is not None:
                self._positions.took(channel, offset)
            elif self._is_old(channel, offset, after):
                return
            if channel in self.asked:
                self.asked[channel] += 1
            if not self._is_repeated(channel, message.headers.get("message-id")):
                self._hand(message, (channel, channel), before or ("", after))
            return
        by_wildcard = [way for way in ways if way[0] != way[1]]
        if by_wildcard:
            key = blake2b(message.raw, digest_size=16).digest()
            number = self._copies.pop(key, 0)
            self._note(key, number + 1)
            if number < len(by_wildcard):
                self._hand(message, by_wildcard[number])
                return
        for name in kept:
            known = self._positions.get(name)
            if known is not None and known[1] < after and name not in self.asked:
                self._hole(name)

    def _is_old(self, channel: str, offset: int, after: int) -> bool:
        """Return whether a message of a channel whose position is not known yet came on an earlier connection."""
        reached = self._reached.get(channel, 0)
        if offset <= reached:
            return True
        if 0 < reached < after:
            self._torn.add(channel)
        self._reached[channel] = offset
        return False

    def _is_repeated(self, channel: str, message_id: str | None) -> bool:
        """
        Return whether a message with this id was delivered recently, and remember the id.

        A server may die after delivering a message and before storing it. Then the publisher sends the message again,
        and it gets another offset.
        """
        if message_id is None:
            return False
        now = monotonic()
        key = channel, message_id
        before = self._ids.pop(key, None)
        self._ids[key] = now if before is None else before
        while len(self._ids) > _MAX_IDS or next(iter(self._ids.values())) < now - _ID_TIME:
            self._ids.popitem(last=False)
        return before is not None and before >= now - _ID_TIME

    def _choose(self, kept: list[str], offset: int, after: int) -> str | None:
        """
        Return the channel in which this is the next message; ``None`` if one before it is missing, or if it is a
        duplicate.
        """
        if len(kept) > 1:
            return self._choose_of_several(kept, offset, after)
        found = self._positions.get(kept[0])
        return kept[0] if found is None or after <= found[1] < offset else None

    def _choose_of_several(self, kept: list[str], offset: int, after: int) -> str | None:
        """
        Find the channel of this copy. The copies for the channels of a message have different offsets.

        If the copy directly follows the last message of a channel, it belongs to this channel. Otherwise, it belongs to
        the channel that catches up, because the server handles one subscribe message after another. If there is none,
        the copies come in the order of the channels in the message.
        """
        current = next(iter(self.asked), None)
        kept = sorted(kept, key=lambda channel: channel != current)
        found = [(channel, self._positions.get(channel), self._positions.is_seen(channel)) for channel in kept]
        for channel, position, seen in found:
            if seen and position is not None and position[1] == after:
                return channel
        for channel, position, seen in found:
            if position is None:
                if channel == current:
                    return channel
            elif after <= position[1] < offset and not seen:
                return channel
        return None

    def _hand(self, message: Message, way: _Way, before: tuple[str, int] | None = None) -> None:
        channel, name = way
        for subscription in tuple(self.subscriptions.get(name, ())):
            subscription.deliver(message, channel, before)

    def _count(self, raw: bytes, copies: int) -> int:
        """
        Return the number of copies of a publication before this one.

        :param copies: the number of all copies.
        """
        key = blake2b(raw, digest_size=16).digest()  # a digest, because the publication may be large
        number = self._copies.pop(key, 0)
        if number + 1 < copies:
            self._note(key, number + 1)
        return number

    def _note(self, key: bytes, number: int) -> None:
        self._copies[key] = number
        if len(self._copies) > _MAX_COPIES:
            self._copies.popitem(last=False)


def _published(message: Message) -> tuple[str, ...]:
    """Return the channels that a message was published to; an empty tuple if their list is malformed."""
    try:
        return message.head.channels("publish")
    except RemoteProtocolError:
        with suppress(RemoteProtocolError):  # reserved names, if the server itself has published it
            values = [value for name, value in message.headers if name.lower() == "publish"]
            return split_channels(values, _check_published)
        return ()


def _check_published(name: str) -> str:
    check_channel(name.removeprefix(PRESENCE))
    return name
