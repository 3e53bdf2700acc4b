"""
The filters that enforce the channel rules.

In a server with rules, they replace :class:`~lhttp_tx.filters.pubsub.SubscribeFilter` and
:class:`~lhttp_tx.filters.pubsub.PublishFilter`. A server without rules has no steps for them. If a rule refuses a
message, the processor does not see the message. The filters check the final message. Its headers may come from the
client, a filter, a hook or a processor. They do not check what ``trusted`` code has written. Rules bind clients. They
do not apply to calls of the server by code (``session.subscribe``, ``publish``), or to ``POST /publish``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from sys import getsizeof
from typing import TYPE_CHECKING, TypeAlias, cast
from weakref import WeakKeyDictionary

from twisted.internet.interfaces import IReactorTime

from lhttp_tx.codec.cache import Generations
from lhttp_tx.codec.channels import PRESENCE
from lhttp_tx.codec.wildcards import is_wildcard
from lhttp_tx.engine.asking import RECEIPT
from lhttp_tx.engine.awaiting import as_deferred
from lhttp_tx.engine.membership import Member
from lhttp_tx.errors import MessageTooLarge, Refused, TooMany
from lhttp_tx.filters.pubsub import PublishFilter, SubscribeFilter, UnsubscribeFilter, no_presence
from lhttp_tx.identity import Identity
from lhttp_tx.interfaces import MaybeAwaitable, Shortcut
from lhttp_tx.rules.grants import ANYBODY, NOBODY, Access
from lhttp_tx.rules.model import Rule, Rules

if TYPE_CHECKING:
    from lhttp_tx.codec.message import Head, Message
    from lhttp_tx.engine.request import Request
    from lhttp_tx.engine.session import Session

__all__ = ["RuleBook", "RuledPublishFilter", "RuledSubscribeFilter", "RuledUnsubscribeFilter"]

_PACE_SIZE = 65_536
"""
Bytes of memory for the rates of one connection in its channels. If there is no room for another channel, the server
refuses the message until the bucket of a channel is full again. It does not drop a bucket that is not full, because the
client could then exceed the rate in that channel.
"""

_PACE_COST = 200
"""Bytes of memory for a channel, in addition to its name; measured, and rounded up."""

_RULING_SIZE = 4_194_304
"""Bytes of memory for the cached results of the rules for lists of channels."""

_RULING_COST = 400
_RULED_COST = 150
"""Bytes of memory for a list, and for each channel in it in addition to its name; measured, and rounded up."""

_ROUNDING = 1e-9
"""Seconds by which sums of floating-point numbers may be off."""


_Passed: TypeAlias = tuple[Rules, Identity, tuple[str, ...]]
"""A subscription that the rules allow: the rules, the client and the channels. These objects do not change."""


class RuleBook:
    """
    The current rules.

    :ivar rules: the rules. To replace them, set this, and then make the engine forget its plans.
    """

    def __init__(self, rules: Rules) -> None:
        self.rules = rules


def _check_access(access: Access, session: Session, channel: str, what: str) -> None:
    """:raises Refused: if *access* does not allow the client to do *what* in *channel*."""
    identity = session.identity
    if access.allows(identity, channel):
        return
    hint = "" if identity.authenticated or access is NOBODY else ": log in first"
    raise Refused(403, f"not allowed to {what} channel {channel!a}{hint}")


class RuledSubscribeFilter(SubscribeFilter):
    """Subscribes the sender, if the rules of all channels allow it."""

    takes_wildcards = True

    def __init__(self, book: RuleBook) -> None:
        """:param book: the rules."""
        self._book = book
        self._passed: _Passed | None = None

    def judge(self, request: Request) -> MaybeAwaitable:
        """:raises Refused: if the sender may not subscribe to one of the channels; then it gets none of them."""
        channels = request.judged("subscribe")
        self._check(channels, request)
        self._passed = (self._book.rules, request.session.identity, channels)
        return None

    def after(self, request: Request) -> MaybeAwaitable:
        """
        Subscribe, and check the rules again before and after this, because other steps and the bus may take some time.

        :raises Refused: if the sender may no longer subscribe, or if a subscription was revoked before the bus had it.
        """
        channels = request.judged("subscribe")
        passed, self._passed = self._passed, None
        # Usually nothing has changed: the same rules give the same result for the same client and list.
        same = passed is not None and passed[0] is self._book.rules and passed[1] is request.session.identity
        if passed is None or not same or passed[2] != channels:
            self._check(channels, request)
        subscribing = super().after(request)
        vouched = request.vouched("subscribe")
        if vouched:
            cast(Member, request.session).tell_granted(vouched)
        if subscribing is None:
            return None
        now = self._book.rules, request.session.identity, channels
        return as_deferred(subscribing, self).addCallback(lambda _: self._check_kept(now, request))

    def _check_kept(self, passed: _Passed, request: Request) -> None:
        rules, identity, channels = passed
        if rules is not self._book.rules or identity is not request.session.identity:
            self._check(channels, request)
        session = request.session
        if not session.closed and not session.channels.issuperset(request.message.head.channels("subscribe")):
            # Rules that applied for a moment have revoked it, or code has. The client may subscribe again.
            raise Refused(409, "a subscription was removed before the bus had confirmed it")

    def _check(self, channels: Iterable[str], request: Request) -> None:
        for channel in channels:
            self.check_access(request.session, channel.removeprefix(PRESENCE))

    def check_subscription(self, session: Session, name: str) -> None:
        """
        Check an existing subscription as if the client subscribed now.

        :param name: a channel, the presence of one, or a wildcard subscription.
        :raises Refused: if the client may not have it, or if the server no longer keeps the channel's presence.
        """
        channel = name.removeprefix(PRESENCE)
        if channel != name and self.has_presence is not None and not self.has_presence(channel):
            raise no_presence(channel)
        self.check_access(session, channel)

    def check_access(self, session: Session, channel: str) -> None:
        """:raises Refused: if the client may not subscribe to *channel*. Then it may not learn who is there either."""
        if is_wildcard(channel):
            if not self._book.rules.allow_wildcard(session.identity, channel):
                raise Refused(403, f"not allowed to subscribe to all of {channel!a}")
            return
        access = self._book.rules.find(channel).subscribe
        if access is not ANYBODY:
            _check_access(access, session, channel, "subscribe to")


class RuledUnsubscribeFilter(UnsubscribeFilter):
    """Ends subscriptions of the sender, including wildcard subscriptions."""

    takes_wildcards = True


class RuledPublishFilter(PublishFilter):
    """Publishes a message, if the rules of all channels allow the sender to."""

    tells_nothing = True

    def __init__(self, book: RuleBook, clock: IReactorTime) -> None:
        """
        :param book: the rules.
        :param clock: the reactor, for rates.
        """
        self._book = book
        self._clock = clock
        self._rules = book.rules
        self._rulings: Generations[tuple[str, ...], _Ruling] = Generations(_RULING_SIZE)
        self._paces: WeakKeyDictionary[Session, _Paces] = WeakKeyDictionary()

    def judge(self, request: Request) -> MaybeAwaitable:
        """
        :raises Refused: if the sender may not publish to one of the channels.
        :raises MessageTooLarge: if the message is too large for one of the channels.
        :raises TooMany: if the sender publishes too fast to one of them. The message is then published to no channel,
            and does not count for the others.
        """
        channels = request.state[self] = request.judged("publish")
        ruling = self._ruling(channels)
        ruling.check(request.session)
        ruling.count(request.session, _size_of(request.message))
        return None

    def after(self, request: Request) -> MaybeAwaitable:
        """
        Publish the message. The sender itself gets it only in channels whose rules have ``echo = true``.

        If a processor has written other channels into the message, this checks them first.
        """
        if request.publication is None:
            return None
        if request.judged("publish") != request.state.get(self):
            self.judge(request)
        silent = self._ruling(request.message.head.channels("publish")).silent
        if not silent:
            return super().after(request)
        with cast(Member, request.session).silenced(silent):
            return super().after(request)

    def shortcut(self, head: Head) -> Shortcut:
        """See :meth:`lhttp_tx.interfaces.IShortcutFilter.shortcut`. The shortcut includes the work of ``judge``."""
        publish = super().shortcut(head)
        ruling = self._ruling(head.channels("publish"))
        return publish if ruling.is_empty else _RuledPublish(publish, ruling)

    def _ruling(self, channels: tuple[str, ...]) -> _Ruling:
        rules = self._book.rules
        if rules is not self._rules:
            self._rules = rules
            self._rulings.clear()
        ruling = self._rulings.get(channels)
        if ruling is None:
            ruling = _Ruling([(channel, rules.find(channel)) for channel in channels], self._clock, self._paces)
            self._rulings.put(channels, ruling)
        return ruling


def _size_of(message: Message) -> int:
    """Return the bytes of a message without its header ``receipt``, which a shortcut does not see."""
    head = message.head
    return len(message.raw) - len(head.raw) + len(head.without(RECEIPT).raw)


class _Ruling:
    """
    The result of the rules for publishing to a list of channels.

    :ivar cost: its memory in bytes, approximately.
    :ivar is_empty: whether the rules restrict nothing.
    :ivar is_bounded: whether the rules limit sizes or rates.
    :ivar silent: the channels with ``echo = false``.
    """

    __slots__ = ("_access", "_clock", "_known", "_paces", "_size", "_size_channel", "cost", "is_bounded", "is_empty",
                 "silent")  # fmt: skip

    def __init__(
        self, ruled: list[tuple[str, Rule]], clock: IReactorTime, known: WeakKeyDictionary[Session, _Paces]
    ) -> None:
        self._clock = clock
        self._known = known
        self._access = [(channel, rule.publish) for channel, rule in ruled if rule.publish is not ANYBODY]
        self._paces = [(channel, rule.max_rate) for channel, rule in ruled if rule.max_rate]
        sizes = [(rule.max_size, channel) for channel, rule in ruled if rule.max_size]
        self._size, self._size_channel = min(sizes, default=(0, ""))
        self.silent = tuple(channel for channel, rule in ruled if not rule.echo)
        self.is_bounded = bool(self._paces or sizes)
        self.is_empty = not (self._access or self.is_bounded or self.silent)
        self.cost = _RULING_COST + sum(_RULED_COST + getsizeof(channel) for channel, _ in ruled)

    def check(self, session: Session) -> None:
        """:raises Refused: if the client may not publish to one of the channels."""
        for channel, access in self._access:
            _check_access(access, session, channel, "publish to")

    def count(self, session: Session, size: int) -> None:
        """
        Count a message of *size* bytes.

        :raises MessageTooLarge: if the message is too large.
        :raises TooMany: if the rate is too high; then the message does not count.
        """
        if self._size and size > self._size:
            raise MessageTooLarge(
                f"message of {size} bytes is larger than the {self._size} that channel {self._size_channel!a} takes"
            )
        if self._paces:
            now = self._clock.seconds()
            paces = self._known.get(session)
            if paces is None:
                paces = self._known[session] = _Paces()
            paces.begin(now)
            for channel, rate in self._paces:
                if paces.is_too_fast(channel, rate, now):
                    raise TooMany(f"channel {channel!a} allows {rate:g} messages a second from a connection")
            if not paces.have_room(self._paces, now):
                raise TooMany("the connection publishes to too many channels that have a rate limit")
            for channel, rate in self._paces:
                paces.note(channel, rate, now)

    def counted(self, session: Session, messages: Iterator[bytes]) -> Iterator[bytes]:
        """Yield messages, and count each of them. Raises the same errors as :meth:`count`."""
        for message in messages:
            self.count(session, len(message))
            yield message


class _Paces:
    """
    The rates of one connection: a token bucket for each channel, stored as the time at which it will be full.

    A bucket has tokens for the messages of one second, but at least one. It is dropped only when it is full again.
    """

    __slots__ = ("_full", "_rested", "_seen", "_size")

    def __init__(self) -> None:
        self._full: dict[str, float] = {}
        self._rested = 0.0  # when the first bucket will be full, computed when there was no room
        self._seen = 0.0
        self._size = 0

    def begin(self, now: float) -> None:
        """Count from *now* on. If the clock was set back, start with full buckets, so that nobody is blocked."""
        if now < self._seen:
            self._full.clear()
            self._rested, self._size = 0.0, 0
        self._seen = now

    def is_too_fast(self, channel: str, rate: float, now: float) -> bool:
        """Return whether the bucket is empty."""
        return self._filling(channel, rate, now) > (max(rate, 1.0) - 1.0) / rate + _ROUNDING

    def have_room(self, paces: list[tuple[str, float]], now: float) -> bool:
        """Make room for the buckets of all these channels. Return whether there is room."""
        wanted = sum(_cost(channel) for channel, _ in paces if channel not in self._full)
        if self._size + wanted <= _PACE_SIZE:
            return True
        if now < self._rested:
            return False
        self._full = {channel: moment for channel, moment in self._full.items() if moment > now}
        self._size = sum(map(_cost, self._full))
        wanted = sum(_cost(channel) for channel, _ in paces if channel not in self._full)
        if self._size + wanted <= _PACE_SIZE:
            return True
        self._rested = min(self._full.values(), default=0.0)
        return False

    def note(self, channel: str, rate: float, now: float) -> None:
        """Take a message out of the bucket."""
        if channel not in self._full:
            self._size += _cost(channel)
        self._full[channel] = now + self._filling(channel, rate, now) + 1.0 / rate

    def _filling(self, channel: str, rate: float, now: float) -> float:
        """Return the number of seconds until the bucket is full."""
        left = max(0.0, self._full.get(channel, now) - now)
        # The time is never longer than this, unless the rule has changed.
        return left if left <= max(rate, 1.0) / rate + _ROUNDING else 0.0


def _cost(channel: str) -> int:
    return _PACE_COST + getsizeof(channel)


class _RuledPublish:
    """
    Publishes messages according to the rules.

    :ivar cost: its memory in bytes, approximately.
    """

    __slots__ = ("_publish", "_ruling", "cost")

    def __init__(self, publish: Shortcut, ruling: _Ruling) -> None:
        self._publish = publish
        self._ruling = ruling
        self.cost = ruling.cost

    def __call__(self, session: Member, messages: Iterator[bytes], binary: bool) -> MaybeAwaitable:
        ruling = self._ruling
        ruling.check(session)
        if ruling.is_bounded:
            messages = ruling.counted(session, messages)
        if not ruling.silent:
            return self._publish(session, messages, binary)
        with session.silenced(ruling.silent):
            return self._publish(session, messages, binary)
