"""
Subscribes from a position: the client gets the messages that it has missed, then the receipt, then newer messages.

The subscription starts at once, but new messages are held back. The store is read page by page until there are no more
messages. Then the messages that were held back follow. Source: the protocol document, section "History".

This file has more than 400 lines because its steps share the state of one recovery, and each can be interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any, cast
from weakref import WeakKeyDictionary

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.interfaces import IReactorTime

from lhttp_tx.codec.message import Head
from lhttp_tx.codec.positions import format_position, offset_of, offsets_of, parse_positions
from lhttp_tx.codec.wildcards import is_wildcard
from lhttp_tx.engine.answers import missed_message
from lhttp_tx.engine.delivery import Deliver, Delivery
from lhttp_tx.engine.handling import Handler
from lhttp_tx.engine.request import Request
from lhttp_tx.errors import HistoryUnavailable, RemoteProtocolError
from lhttp_tx.history.archive import Archive
from lhttp_tx.history.pages import PAGE_SIZE, READ_SHARE, Pages, SharedPage, checked, deliveries
from lhttp_tx.history.turns import rework_of
from lhttp_tx.history.values import Page, Retention
from lhttp_tx.interfaces import MaybeAwaitable
from lhttp_tx.observe.rationing import RationedLogger

__all__ = ["Recovery"]

_HELD_SIZE = 262_144
"""The most bytes that are held back for one connection. More are read from the store later."""

_HELD_COST = 250
"""Bytes of memory of each delivery that is held back, in addition to its messages. Measured, and rounded up."""

_LAST_SIZE = 1_048_576
_LAST_LENGTH = 5_000
"""The most bytes, and the most messages, that ``last`` delivers. They are in memory until the client has read them."""

_MAX_DIGITS = 7

_log = RationedLogger(__name__)


class _Room:
    """The bytes that may still be held back for all channels of one connection."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = _HELD_SIZE


class _Catching:
    """
    Takes the deliveries of one channel for a subscriber that is catching up.

    :ivar channel: the channel.
    :ivar retention: the history class of the channel.
    :ivar deliver: passes deliveries to the subscriber.
    :ivar overflowed: whether messages were dropped that must be read from the store.
    :ivar after: the offset up to which the subscriber has the messages.
    :ivar newest: the last offset that has arrived in the meantime.
    :ivar missed: whether the subscriber has missed messages that the store does not have, and has not been told yet.
    :ivar owed: the offset after which the subscriber must get all messages, even without ``since``: a message has
        arrived, or an earlier catch-up was not finished; else ``None``.
    :ivar reads: the number of readings before this object began. Later readings have all messages before those held
        back.
    :ivar room: the bytes that may still be held back.
    """

    __slots__ = ("_held", "_size", "after", "channel", "deliver", "missed", "newest", "overflowed", "owed", "reads",
                 "retention", "room")  # fmt: skip

    def __init__(self, channel: str, retention: Retention, room: _Room, reads: int) -> None:
        self.channel = channel
        self.retention = retention
        self.deliver: Deliver
        self.overflowed = self.missed = False
        self.after = self.newest = 0
        self.owed: int | None = None
        self.reads = reads
        self.room = room
        self._held: list[Delivery] = []
        self._size = 0

    @property
    def is_holding(self) -> bool:
        """Whether messages are held back, or were dropped and must be read."""
        return self.overflowed or bool(self._held)

    def take(self, delivery: Delivery) -> None:
        """Hold back messages with an offset. Deliver messages without one at once: they are not in the history."""
        kept = [payload for payload in delivery.payloads if offset_of(payload)]
        if len(kept) < len(delivery.payloads):
            others = [payload for payload in delivery.payloads if not offset_of(payload)]
            self.deliver(Delivery(self.channel, others, delivery.binary))
        if not kept:
            return
        if self.owed is None:
            self.owed = offsets_of(kept[0])[1]
        self.newest = offset_of(kept[-1])
        size = sum(map(len, kept)) + _HELD_COST
        if size <= self.room.left and not self.overflowed:
            self.room.left -= size
            self._size += size
            self._held.append(Delivery(self.channel, kept, delivery.binary))
        else:
            self.release()
            self.overflowed = True

    def is_current(self, member: Handler) -> bool:
        """
        Return whether this object still takes the deliveries for *member*. Publications that the hub holds back are
        delivered before.
        """
        return member.taker(self.channel) == self.take

    def release(self) -> list[Delivery]:
        """
        Return the messages that are held back and that the subscriber does not have. Afterwards, nothing is held back.
        """
        held, self._held = self._held, []
        self.room.left += self._size
        self._size = 0
        found: list[Delivery] = []
        for delivery in held:
            newer = [payload for payload in delivery.payloads if offset_of(payload) > self.after]
            if len(newer) == len(delivery.payloads):
                found.append(delivery)
            elif newer:
                found.append(Delivery(self.channel, newer, delivery.binary))
        return found


class Recovery:
    """
    Delivers the messages that subscribers have missed.

    :ivar on_told: functions that are called with the number of channels that a client has recovered, and the number of
        those that it has not.
    """

    def __init__(self, archive: Archive, clock: IReactorTime) -> None:
        """
        :param archive: the histories.
        :param clock: the reactor.
        """
        self.on_told: list[Callable[[int, int], None]] = []
        self._archive = archive
        self._clock = clock
        self._rooms: WeakKeyDictionary[Handler, _Room] = WeakKeyDictionary()
        self._pages = Pages(archive.store, clock, archive.turns)

    def close(self) -> None:
        """Drop the pages that are kept, because the server stops."""
        self._pages.forget()
        self._archive.turns.close()

    def check(self, head: Head) -> None:
        """
        Check the headers ``since`` and ``last`` of a message with ``subscribe``.

        :raises RemoteProtocolError: if one is malformed, if both are there, or if a channel is a wildcard.
        """
        since, last = head.headers.get("since"), head.headers.get("last")
        if since is None and last is None:
            return
        channels = head.channels("subscribe")
        if since is not None and last is not None:
            raise RemoteProtocolError("since and last cannot be combined")
        if any(map(is_wildcard, channels)):
            raise RemoteProtocolError("a wildcard subscription has no history: leave out since and last")
        if since is not None:
            parse_positions(since, channels)
        elif last is not None and not (last.isascii() and last.isdigit() and len(last) <= _MAX_DIGITS):
            raise RemoteProtocolError(f"last {last[:64]!a} is not a number of messages")

    def subscribe(self, request: Request, channels: tuple[str, ...]) -> MaybeAwaitable:
        """
        Subscribe the sender of a message, deliver the earlier messages that it asks for, and add headers to its
        receipt.

        :param channels: the channels to subscribe to, and wildcards.
        :returns: ``None`` if it is done at once, else a Deferred that

            - succeeds when the earlier messages were delivered;
            - fails with :exc:`lhttp_tx.errors.HistoryUnavailable` if the store cannot be read; then the sender is not
              subscribed to those of the channels that have history.
        """
        member = cast(Handler, request.session)
        headers = request.headers
        asks = request.receipt is not None or "since" in headers or "last" in headers
        subscribing = member.subscribe_all(channels)
        if headers.get("gaps") == "tell":
            member.ask_gaps(channels)
        if not asks:
            return subscribing
        kept = [channel for channel in channels if self._archive.retention(channel) is not None]
        return self._catch_up(request, member, kept, subscribing) if kept or "since" in headers else subscribing

    @inlineCallbacks
    def _catch_up(
        self, request: Request, member: Handler, channels: list[str], subscribing: Deferred[None] | None
    ) -> Generator[Any, Any, None]:
        room = self._rooms.get(member)
        if room is None:
            room = self._rooms[member] = _Room()
        caught = [found for channel in channels if (found := self._catch(member, channel, room)) is not None]
        since = request.headers.get("since")
        last = int(request.headers.get("last", "0"))
        positions = {} if since is None else parse_positions(since, request.message.head.channels("subscribe"))
        try:
            if subscribing is not None:
                yield subscribing
            for catching in caught:
                yield from self._begin(member, catching, positions.get(catching.channel), last)
                yield from self._fetch(member, catching, catching.retention.recovery)
            self._tell(request, caught, positions)
        except BaseException:
            member.unsubscribe_all([catching.channel for catching in caught])
            for catching in caught:
                catching.release()
            raise
        if any([catching.is_current(member) and catching.is_holding for catching in caught]):  # noqa: C419 - ask each
            self._clock.callLater(0, self._let_go_all, member, caught)  # after the receipt
        else:
            self._let_go_all(member, caught)

    def _catch(self, member: Handler, channel: str, room: _Room) -> _Catching | None:
        """Hold back messages from now on. Return ``None`` if the client is no longer subscribed."""
        retention = self._archive.retention(channel)
        assert retention is not None
        catching = _Catching(channel, retention, room, self._pages.reads)
        deliver = member.redirect(channel, catching.take)
        if deliver is None:
            return None
        before = getattr(deliver, "__self__", None)
        if isinstance(before, _Catching):
            deliver = before.deliver
            catching.owed, catching.missed = before.after, before.missed
            before.release()
        catching.deliver = deliver
        return catching

    def _begin(
        self, member: Handler, catching: _Catching, position: tuple[str, int] | None, last: int
    ) -> Generator[Any, Any, None]:
        """Find the offset of the client. Deliver the last messages first if it asks for them."""
        store = self._archive.store
        if position is not None:
            catching.missed = position[0] != store.epoch_of(catching.retention)
            if not catching.missed:
                catching.after = position[1]
                return
        yield from self._take_turns(member)
        size = _LAST_SIZE if last else 1
        limit = min(max(last, 1), _LAST_LENGTH)
        page = checked(store.newest(catching.channel, catching.retention, before=0, limit=limit, size=size))
        if isinstance(page, Deferred):
            page = cast(Page, (yield page))
        self._archive.turns.spend(0, len(page.messages) // READ_SHARE)
        messages = page.messages if last else []
        begin = messages[0].offset - 1 if messages else page.tip
        if position is None and catching.owed is not None and catching.owed < begin:
            catching.after = catching.owed
            return
        yield from self._hand_over(member, catching, deliveries(catching.channel, messages, costly=member.is_costly))
        if catching.is_current(member):
            catching.after = page.tip

    def _fetch(
        self, member: Handler, catching: _Catching, bound: int = 0, *, is_told: bool = False
    ) -> Generator[Any, Any, None]:
        """
        Read and deliver the messages after the offset of the subscriber, until there are no more.

        If a message is lost, deliver none: the subscriber is told the position after which the new ones follow.

        :param bound: the most messages to deliver. If more are missing, all count as missed. 0: no limit.
        :param is_told: whether the client already has its receipt. Its next messages may then be handled meanwhile.
        :raises HistoryUnavailable: if the store cannot be read.
        """
        while True:
            yield from self._take_turns(member, is_told=is_told)
            if not catching.is_current(member):
                return
            found = self._pages.read(catching.channel, catching.retention, catching.after)
            if isinstance(found, Deferred):
                shared: SharedPage = yield found
                if not catching.is_current(member):
                    return
            else:
                shared = found
            page = shared.page
            if not page.reaches or (bound and page.total > bound):
                catching.missed = True
            bound = 0
            if catching.missed:
                catching.after = page.tip
            else:
                portions = shared.deliveries_for(costly=member.is_costly)
                yield from self._hand_over(member, catching, portions, is_told=is_told)
                if not catching.is_current(member):
                    return
                if page.messages:
                    catching.after = page.messages[-1].offset
            if (catching.missed or not page.more) and shared.number > catching.reads:
                if not catching.overflowed:
                    catching.after = max(catching.after, page.tip)
                    return
                catching.overflowed, catching.reads = False, self._pages.reads

    def _hand_over(
        self, member: Handler, catching: _Catching, deliveries: list[Delivery], *, is_told: bool = False
    ) -> Generator[Any, Any, None]:
        """Deliver a page in several turns, unless the subscription ends."""
        for number, delivery in enumerate(deliveries):
            if number:
                yield from self._take_turns(member, is_told=is_told)
                if not catching.is_current(member):
                    return
            self._archive.turns.spend(sum(map(len, delivery.payloads)), len(delivery), member)
            before = delivery.makings
            catching.deliver(delivery)
            if member.is_costly and (not before or delivery.makings > before):  # others that share it need not pay
                self._archive.turns.spend(sum(rework_of(delivery.payloads)), 0, member)

    def _take_turns(self, member: Handler, *, is_told: bool = False) -> Generator[Any, Any, None]:
        """Wait until the client has read earlier messages, and it is this client's turn to read."""
        if member.unsent > PAGE_SIZE:
            yield member.drained() if is_told else member.unhurried(member.drained())
        waiting = self._archive.turns.wait(member)
        if waiting is not None:
            yield waiting if is_told else member.unhurried(waiting)

    def _tell(self, request: Request, caught: list[_Catching], positions: Mapping[str, tuple[str, int]]) -> None:
        """
        Add the result to the receipt. If there is no receipt, send a message for each channel with missed messages.
        """
        told = {catching.channel: self._position(catching) for catching in caught}
        recovered = [found.channel for found in caught if found.channel in positions and not found.missed]
        missed = [found.channel for found in caught if found.missed]
        for found in caught:
            found.missed = False
        unkept = [channel for channel in positions if self._archive.retention(channel) is None]
        for call in self.on_told:
            call(len(recovered), len(missed) + len(unkept))
        if request.receipt is None:
            for catching in caught:
                if catching.channel in missed:
                    self._tell_missed(catching)
            for channel in unkept:
                request.session.send(missed_message(channel, None))
            return
        pairs = (
            ("position", [f"{channel}={position}" for channel, position in told.items()]),
            ("recovered", recovered),
            ("missed", [*missed, *unkept]),
        )
        request.receipt_headers += tuple((name, " ".join(words)) for name, words in pairs if words)

    def _position(self, catching: _Catching) -> str:
        """Return the subscriber's position."""
        return format_position(self._archive.store.epoch_of(catching.retention), catching.after)

    def _tell_missed(self, catching: _Catching) -> None:
        message = missed_message(catching.channel, self._position(catching))
        catching.deliver(Delivery(catching.channel, [message.raw], False))

    def _let_go_all(self, member: Handler, caught: list[_Catching]) -> None:
        for catching in caught:
            if not catching.is_current(member):
                catching.release()
            elif catching.overflowed:
                catching.overflowed, catching.reads = False, self._pages.reads
                self._go_on(member, catching)
            else:
                self._let_go(member, catching)

    def _let_go(self, member: Handler, catching: _Catching) -> None:
        """Deliver the messages that are held back. Later deliveries go to the subscriber directly."""
        member.redirect(catching.channel, catching.deliver, instead_of=catching.take)  # may bring more to hold back
        for delivery in catching.release():
            catching.deliver(delivery)

    @inlineCallbacks
    def _go_on(self, member: Handler, catching: _Catching) -> Generator[Any, Any, None]:
        """After the receipt, read the messages that were too many to hold back."""
        while True:
            failed = False
            try:
                yield from self._fetch(member, catching, is_told=True)
            except Exception as error:
                if not isinstance(error, HistoryUnavailable):
                    _log.failure("catching up failed")
                failed = True
            if not catching.is_current(member):
                catching.release()
                return
            if failed:
                catching.missed, catching.overflowed = True, False
                catching.after = max(catching.after, catching.newest)
            if not catching.overflowed:
                break
            catching.overflowed, catching.reads = False, self._pages.reads
        if catching.missed:
            self._tell_missed(catching)
            for call in self.on_told:
                call(0, 1)
        self._let_go(member, catching)
