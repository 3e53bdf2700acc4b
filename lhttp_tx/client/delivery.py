"""
Decides which subscription gets a publication, and whether it has arrived before.

Used by :mod:`lhttp_tx.client.registry`. A server sends one copy for each of the client's subscriptions that match. If
the channel has history, the copy contains its offset in that channel. Sends nothing itself. Source: the protocol
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
"""The most publications that match several subscriptions, and of which more copies are still to come."""

_MAX_IDS = 4_096
_ID_TIME = 120.0
"""Ids of messages that are remembered at most, and the seconds for which they are; servers remember them as long."""

_Way = tuple[str, str]
"""A channel, and the subscription that matches it: its own name, or a wildcard."""


@final
class Dispatch:
    """
    Passes publications to the subscriptions of one client.

    :ivar subscriptions: the subscriptions, by name.
    :ivar asked: the channels that catch up: how many messages have come for each. The server sends what they missed in
        this order, before it confirms them.
    """

    def __init__(self, positions: Positions, hole: Callable[[str], object]) -> None:
        """
        :param positions: the positions in the channels that have history.
        :param hole: called with a channel when messages are missing in its stream.
        """
        self.subscriptions: dict[str, list[Subscription]] = {}
        self.asked: dict[str, int] = {}
        self._positions = positions
        self._hole = hole
        self._wildcards = Wildcards()
        self._copies: OrderedDict[bytes, int] = OrderedDict()
        self._ids: OrderedDict[tuple[str, str], float] = OrderedDict()

    def add(self, subscription: Subscription) -> list[Subscription]:
        """Add a subscription; return all of the same name."""
        found = self.subscriptions.setdefault(subscription.channel, [])
        found.append(subscription)
        if is_wildcard(subscription.channel):
            self._wildcards.add(subscription.channel)
        self._copies.clear()
        return found

    def drop(self, name: str) -> list[Subscription]:
        """Forget all subscriptions of a name, and its position. Return the subscriptions."""
        self._wildcards.discard(name)
        self._copies.clear()
        for key in [key for key in self._ids if key[0] == name]:
            del self._ids[key]
        self.asked.pop(name, None)
        self._positions.put(name, None)
        return self.subscriptions.pop(name, [])

    def clear(self) -> list[Subscription]:
        """Forget all subscriptions, and return them."""
        found, self.subscriptions = self.subscriptions, {}
        self._wildcards = Wildcards()
        self.down()
        return [one for several in found.values() for one in several]

    def down(self) -> None:
        """Note that the connection has ended: no more copies come."""
        self.asked.clear()
        self._copies.clear()

    def concerns(self, channel: str) -> bool:
        """Return whether a subscription matches *channel*."""
        return channel in self.subscriptions or bool(self._wildcards and self._wildcards.matching(channel))

    def deliver(self, message: Message) -> bool:
        """
        Pass one copy of a publication to the subscriptions of the name that it came by. Return whether there are any.
        """
        ways: list[_Way] = []
        offset, after = offsets_of(message.raw)
        listed = _published(message)
        named = message.headers.get("offset-of") if offset else None  # the channel that this copy is for
        if named in listed:  # where no channel has history, anybody can write such a header
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
                # The copies for channels with history have an offset, so this is for another one.
                ways = [way for way in ways if self._positions.get(way[0]) is None] or ways
            number = self._count(message.raw, len(ways)) if len(ways) > 1 else 0
            ways = ways[number:]
        self._hand(message, ways[0])
        return True

    def _has_history(self, channel: str) -> bool:
        return self._positions.get(channel) is not None or channel in self.asked

    def _deliver_kept(self, message: Message, ways: list[_Way], kept: list[str], offset: int, after: int) -> None:
        """Pass on a message that has an offset in one of the channels *kept*, unless it has arrived before."""
        channel = self._choose(kept, offset, after)
        if channel is not None:
            before = self._positions.get(channel)
            if before is not None:
                self._positions.took(channel, offset)
            if channel in self.asked:
                self.asked[channel] += 1
            if not self._is_repeated(channel, message.headers.get("message-id")):
                self._hand(message, (channel, channel), before)
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

    def _is_repeated(self, channel: str, message_id: str | None) -> bool:
        """
        Return whether a message with this id was passed on a moment ago, and note the id.

        A server that dies may have delivered a message that it had not stored yet. Its publisher sends it again, and it
        gets another offset.
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
        """Return the channel whose next message this is; ``None`` if one is missing before it, or it came twice."""
        if len(kept) > 1:
            return self._choose_of_several(kept, offset, after)
        found = self._positions.get(kept[0])
        return kept[0] if found is None or after <= found[1] < offset else None

    def _choose_of_several(self, kept: list[str], offset: int, after: int) -> str | None:
        """
        Find the channel of this copy. Each channel of the message gets a copy with another offset.

        If the copy follows the last message of a channel, it belongs to this channel. Otherwise it belongs to the
        channel that catches up, because the server handles one subscribe message after another. Otherwise the channels
        get their copies in the order of the message's list.
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
        """Return how many copies of a publication came before this one, if it matches several subscriptions."""
        key = blake2b(raw, digest_size=16).digest()  # the publication itself may be large
        number = self._copies.pop(key, 0)
        if number + 1 < copies:
            self._note(key, number + 1)
        return number

    def _note(self, key: bytes, number: int) -> None:
        self._copies[key] = number
        if len(self._copies) > _MAX_COPIES:
            self._copies.popitem(last=False)


def _published(message: Message) -> tuple[str, ...]:
    """Return the channels that a message was published to; an empty tuple if the list is malformed."""
    try:
        return message.head.channels("publish")
    except RemoteProtocolError:
        with suppress(RemoteProtocolError):  # the server itself may have published it
            values = [value for name, value in message.headers if name.lower() == "publish"]
            return split_channels(values, _check_published)
        return ()


def _check_published(name: str) -> str:
    check_channel(name.removeprefix(PRESENCE))
    return name
