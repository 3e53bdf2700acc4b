"""
Subscribes from a position: the client gets what it has missed, then the receipt, then newer messages.

The subscription starts at once, and new messages are held back. Then the store is read page by page until there are no
more messages. Source: the protocol document, section "History".
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
from lhttp_tx.history.values import Page, Retention
from lhttp_tx.interfaces import MaybeAwaitable
from lhttp_tx.observe.rationing import RationedLogger

__all__ = ["Recovery"]

_HELD_SIZE = 262_144
"""Bytes that one connection may hold back while it recovers. The rest is read from the store again."""

_HELD_COST = 250
"""Bytes that each delivery of them counts beside its messages; measured, and rounded up."""

_LAST_SIZE = 1_048_576
_LAST_LENGTH = 5_000
"""The most bytes, and the most messages, that ``last`` delivers: they are in memory until the client has read them."""

_MAX_DIGITS = 7

_log = RationedLogger(__name__)


class _Room:
    """How many bytes all channels of one connection may hold back."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = _HELD_SIZE


class _Catching:
    """
    Takes the deliveries of one channel in the place of a subscriber that is catching up.

    :ivar channel: the channel.
    :ivar retention: how much of it is kept.
    :ivar deliver: what takes deliveries to the subscriber.
    :ivar overflowed: whether something was dropped that the store has.
    :ivar after: the last offset that the subscriber has.
    :ivar newest: the last offset that came meanwhile.
    :ivar missed: whether it has missed something that the store has not, and was not told yet.
    :ivar owed: the offset behind which it must get everything, though it asks for nothing of before: something has come
        meanwhile, or one that was catching up before has not handed it over; ``None``: there is none.
    :ivar reads: how often the store had been read when this one began to hold back; what was read later holds all that
        was not.
    :ivar room: what it may use.
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
        """Whether something is held back, or was dropped that the store has."""
        return self.overflowed or bool(self._held)

    def take(self, delivery: Delivery) -> None:
        """Hold back what the history has; what it has not is delivered."""
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
        """Return whether it still takes the deliveries to *member*."""
        return member.taker(self.channel) == self.take

    def release(self) -> list[Delivery]:
        """Return what is held back and is newer than what the subscriber has; nothing is held back any more."""
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
    Delivers to subscribers what they have missed.

    :ivar on_told: called with the numbers of channels in which a client has recovered everything, or missed something.
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
        """Let go of what is kept for a moment, because the server stops."""
        self._pages.forget()
        self._archive.turns.close()

    def check(self, head: Head) -> None:
        """
        Check what the headers ``since`` and ``last`` of a subscribe message say.

        :raises RemoteProtocolError: if one is malformed, both are there, or one goes with a wildcard subscription.
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
        Subscribe the sender of a message, hand over what it asks for, and add to its receipt.

        :param channels: the channels that it subscribes to.
        :returns: ``None`` if it is done at once, else a Deferred that

            - succeeds when everything was handed over;
            - fails with :exc:`lhttp_tx.errors.HistoryUnavailable` if the store cannot be read; then the sender is
              subscribed to none of the channels that have history.
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
        if any(catching.is_holding for catching in caught):
            self._clock.callLater(0, self._let_go_all, member, caught)  # behind the receipt
        else:
            self._let_go_all(member, caught)

    def _catch(self, member: Handler, channel: str, room: _Room) -> _Catching | None:
        """Hold back what comes from now on; return ``None`` if the client is not subscribed any more."""
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
        """Find out where the client is, and deliver the last messages if it asks for them."""
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
        yield from self._hand_over(member, catching, deliveries(catching.channel, messages))
        if catching.is_current(member):
            catching.after = page.tip

    def _fetch(
        self, member: Handler, catching: _Catching, bound: int = 0, *, is_told: bool = False
    ) -> Generator[Any, Any, None]:
        """
        Deliver what the store has behind the offset that the subscriber has, until there is no more.

        Once something is missed, nothing is delivered: all of it is missed then, up to where the stream goes on.

        :param bound: the most messages that may be missing; 0: any number.
        :param is_told: whether the client has its receipt already, and other messages of it may be in hand.
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
                yield from self._hand_over(member, catching, shared.deliveries, is_told=is_told)
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
        """Deliver a page, in as many turns as it takes, unless the subscription ends."""
        for number, delivery in enumerate(deliveries):
            if number:
                yield from self._take_turns(member, is_told=is_told)
                if not catching.is_current(member):
                    return
            self._archive.turns.spend(sum(map(len, delivery.payloads)), len(delivery), member)
            catching.deliver(delivery)

    def _take_turns(self, member: Handler, *, is_told: bool = False) -> Generator[Any, Any, None]:
        """Wait until the client has read what it got, and others have had their turn."""
        if member.unsent > PAGE_SIZE:
            yield member.drained() if is_told else member.unhurried(member.drained())
        waiting = self._archive.turns.wait(member)
        if waiting is not None:
            yield waiting if is_told else member.unhurried(waiting)

    def _tell(self, request: Request, caught: list[_Catching], positions: Mapping[str, tuple[str, int]]) -> None:
        """Add to the receipt; who asked for none is told of what was missed by a message."""
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
        """Return where the subscriber is."""
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
        """Deliver what is held back, and let the stream go on."""
        held = catching.release()
        member.redirect(catching.channel, catching.deliver, instead_of=catching.take)
        for delivery in held:
            catching.deliver(delivery)

    @inlineCallbacks
    def _go_on(self, member: Handler, catching: _Catching) -> Generator[Any, Any, None]:
        """Read what was too much to hold back, behind the receipt."""
        try:
            yield from self._fetch(member, catching, is_told=True)
        except Exception as error:
            if not isinstance(error, HistoryUnavailable):
                _log.failure("catching up failed")
            catching.missed = True
            catching.after = max(catching.after, catching.newest)
        if not catching.is_current(member):
            catching.release()
            return
        if catching.missed:
            self._tell_missed(catching)
            for call in self.on_told:
                call(0, 1)
        self._let_go(member, catching)
