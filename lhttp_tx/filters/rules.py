"""
The filters that hold clients to the channel rules.

They take the places of :class:`~lhttp_tx.filters.pubsub.SubscribeFilter` and
:class:`~lhttp_tx.filters.pubsub.PublishFilter` in a server that has rules; one without has no step for them. A message
that a rule refuses is refused before anything is done with it. Rules bind clients: processors, other code and
``POST /publish`` do as they like.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime

from lhttp_tx.channels import PRESENCE
from lhttp_tx.errors import MessageTooLarge, Refused, TooMany
from lhttp_tx.filters.pubsub import PublishFilter, SubscribeFilter, UnsubscribeFilter, no_presence
from lhttp_tx.grants import ANYBODY, NOBODY, Access
from lhttp_tx.interfaces import MaybeAwaitable, Shortcut
from lhttp_tx.rules import Rule, Rules
from lhttp_tx.sequence import as_deferred
from lhttp_tx.wildcards import is_wildcard

if TYPE_CHECKING:
    from lhttp_tx.message import Head
    from lhttp_tx.request import Request
    from lhttp_tx.session import Session

__all__ = ["RuleBook", "RuledPublishFilter", "RuledSubscribeFilter", "RuledUnsubscribeFilter"]

_PACE_COUNT = 128
"""Channels of one connection for which it is remembered how fast it publishes."""

_RULING_COUNT = 1024
"""Lists of channels for which it is remembered what the rules say; past it, all are forgotten."""

_ROUNDING = 1e-9
"""Seconds by which sums of fractions may be off."""


class RuleBook:
    """
    The rules that are in force.

    :ivar rules: put other ones in their place, and let the engine forget its plans.
    """

    def __init__(self, rules: Rules) -> None:
        self.rules = rules


def _check_access(access: Access, session: Session, channel: str, what: str) -> None:
    """:raises Refused: if the client may not do *what*."""
    identity = session.identity
    if access.allows(identity, channel):
        return
    hint = "" if identity.authenticated or access is NOBODY else ": log in first"
    raise Refused(403, f"not allowed to {what} channel {channel!a}{hint}")


class RuledSubscribeFilter(SubscribeFilter):
    """Subscribes the sender, if the rules of all the channels let it."""

    takes_wildcards = True

    def __init__(self, book: RuleBook) -> None:
        """:param book: the rules."""
        self._book = book

    def before(self, request: Request) -> MaybeAwaitable:
        """:raises Refused: if it may not subscribe to one of the channels; then it gets none of them."""
        channels = request.state[self] = request.message.head.channels("subscribe")
        self._check(channels, request)
        return None

    def after(self, request: Request) -> MaybeAwaitable:
        """
        Subscribe, if the sender may still: whatever came in between may have taken its time, and so may the bus.

        :raises Refused: if it may not, or if a subscription was taken back before the bus had it. What the message was
            given beside what its sender wrote is not looked at.
        """
        channels = request.state.get(self, ())
        self._check(channels, request)
        subscribing = super().after(request)
        if subscribing is None:
            return None
        return as_deferred(subscribing, self).addCallback(lambda _: self._check_kept(channels, request))

    def _check_kept(self, channels: Iterable[str], request: Request) -> None:
        self._check(channels, request)
        session = request.session
        if not session.closed and not session.channels.issuperset(request.message.head.channels("subscribe")):
            # Rules of a moment have taken it back, or code has; the client may ask again.
            raise Refused(409, "a subscription was taken back before the bus had confirmed it")

    def _check(self, channels: Iterable[str], request: Request) -> None:
        for channel in channels:
            self.check_access(request.session, channel.removeprefix(PRESENCE))

    def check_subscription(self, session: Session, name: str) -> None:
        """
        Judge a subscription that is there as if the client asked for it now.

        :param name: a channel, the presence of one, or a wildcard subscription.
        :raises Refused: if the client may not have it, or if nobody knows any more who is in the channel.
        """
        channel = name.removeprefix(PRESENCE)
        if channel != name and self.has_presence is not None and not self.has_presence(channel):
            raise no_presence(channel)
        self.check_access(session, channel)

    def check_access(self, session: Session, channel: str) -> None:
        """:raises Refused: if the client may not subscribe to *channel*, nor learn who is there."""
        if is_wildcard(channel):
            if not self._book.rules.allow_wildcard(session.identity, channel):
                raise Refused(403, f"not allowed to subscribe to all of {channel!a}")
            return
        _check_access(self._book.rules.find(channel).subscribe, session, channel, "subscribe to")


class RuledUnsubscribeFilter(UnsubscribeFilter):
    """Takes back subscriptions, also of wildcards."""

    takes_wildcards = True


class RuledPublishFilter(PublishFilter):
    """Publishes a message, if the rules of all the channels let its sender."""

    def __init__(self, book: RuleBook, clock: IReactorTime) -> None:
        """
        :param book: the rules.
        :param clock: the reactor, for rates.
        """
        self._book = book
        self._clock = clock
        self._rules = book.rules
        self._rulings: dict[tuple[str, ...], _Ruling] = {}

    def before(self, request: Request) -> MaybeAwaitable:
        """
        :raises Refused: if the sender may not publish to one of the channels.
        :raises MessageTooLarge: if one of them does not take messages of this size.
        :raises TooMany: if the sender publishes too fast to one of them. The message goes to none of them, nor does it
            count for the others.
        """
        ruling = self._ruling(request.message.head)
        ruling.check(request.session)
        ruling.count(request.session, len(request.message.raw))
        return None

    def after(self, request: Request) -> MaybeAwaitable:
        """Publish; the sender itself gets it only where the rules let it hear itself."""
        silent = self._ruling(request.message.head).silent
        if not silent:
            return super().after(request)
        with request.session.silenced(silent):
            return super().after(request)

    def shortcut(self, head: Head) -> Shortcut:
        """See :meth:`lhttp_tx.interfaces.IShortcutFilter.shortcut`: it does what ``before`` does, too."""
        publish = super().shortcut(head)
        ruling = self._ruling(head)
        return publish if ruling.is_empty else _RuledPublish(publish, ruling)

    def _ruling(self, head: Head) -> _Ruling:
        rules = self._book.rules
        if rules is not self._rules:
            self._rules = rules
            self._rulings.clear()
        channels = head.channels("publish")
        ruling = self._rulings.get(channels)
        if ruling is None:
            ruling = _Ruling([(channel, rules.find(channel)) for channel in channels], self._clock)
            if len(self._rulings) >= _RULING_COUNT:
                self._rulings.clear()
            self._rulings[channels] = ruling
        return ruling


class _Ruling:
    """
    What the rules say about publishing to a list of channels.

    :ivar is_empty: whether they say nothing.
    :ivar is_bounded: whether they bound sizes or rates.
    :ivar silent: the channels without an echo.
    """

    __slots__ = ("_access", "_clock", "_paces", "_size", "_size_channel", "is_bounded", "is_empty", "silent")

    def __init__(self, ruled: list[tuple[str, Rule]], clock: IReactorTime) -> None:
        self._clock = clock
        self._access = [(channel, rule.publish) for channel, rule in ruled if rule.publish is not ANYBODY]
        self._paces = [(channel, rule.max_rate) for channel, rule in ruled if rule.max_rate]
        sizes = [(rule.max_size, channel) for channel, rule in ruled if rule.max_size]
        self._size, self._size_channel = min(sizes, default=(0, ""))
        self.silent = tuple(channel for channel, rule in ruled if not rule.echo)
        self.is_bounded = bool(self._paces or sizes)
        self.is_empty = not (self._access or self.is_bounded or self.silent)

    def check(self, session: Session) -> None:
        """:raises Refused: if the client may not publish."""
        for channel, access in self._access:
            _check_access(access, session, channel, "publish to")

    def count(self, session: Session, size: int) -> None:
        """
        Count a message of *size* bytes.

        :raises MessageTooLarge: if it is too large.
        :raises TooMany: if it is one too many; then it does not count.
        """
        if self._size and size > self._size:
            raise MessageTooLarge(
                f"message of {size} bytes is larger than the {self._size} that channel {self._size_channel!a} takes"
            )
        if self._paces:
            now = self._clock.seconds()
            paces = session.state.get(_Paces)
            if paces is None:
                paces = session.state[_Paces] = _Paces()
            for channel, rate in self._paces:
                if paces.is_too_fast(channel, rate, now):
                    raise TooMany(f"channel {channel!a} takes {rate:g} messages a second from a connection")
            for channel, rate in self._paces:
                paces.note(channel, rate, now)

    def counted(self, session: Session, messages: Iterator[bytes]) -> Iterator[bytes]:
        """Let messages through one by one, each counted; raises what :meth:`count` raises."""
        for message in messages:
            self.count(session, len(message))
            yield message


class _Paces:
    """
    How fast one connection publishes to each channel: a token bucket for each, kept as the moment when it is full.

    A bucket holds as many messages as may come in a second, and one at least.
    """

    __slots__ = ("_full",)

    def __init__(self) -> None:
        self._full: dict[str, float] = {}

    def is_too_fast(self, channel: str, rate: float, now: float) -> bool:
        """Return whether the bucket is empty."""
        return self._filling(channel, rate, now) > (max(rate, 1.0) - 1.0) / rate + _ROUNDING

    def note(self, channel: str, rate: float, now: float) -> None:
        """Take a message out of the bucket."""
        full = now + self._filling(channel, rate, now) + 1.0 / rate
        self._full.pop(channel, None)  # so that those that were used last are at the end
        if len(self._full) >= _PACE_COUNT:
            self._full = {name: moment for name, moment in self._full.items() if moment > now}
            while len(self._full) >= _PACE_COUNT:
                del self._full[next(iter(self._full))]
        self._full[channel] = full

    def _filling(self, channel: str, rate: float, now: float) -> float:
        """Return in how many seconds the bucket is full."""
        left = max(0.0, self._full.get(channel, now) - now)
        # It is never longer than this, unless the clock was put back or there is another rule now.
        return left if left <= max(rate, 1.0) / rate + _ROUNDING else 0.0


class _RuledPublish:
    """Publishes messages as the rules have it."""

    __slots__ = ("_publish", "_ruling")

    def __init__(self, publish: Shortcut, ruling: _Ruling) -> None:
        self._publish = publish
        self._ruling = ruling

    def __call__(self, session: Session, messages: Iterator[bytes], binary: bool) -> MaybeAwaitable:
        ruling = self._ruling
        ruling.check(session)
        if ruling.is_bounded:
            messages = ruling.counted(session, messages)
        if not ruling.silent:
            return self._publish(session, messages, binary)
        with session.silenced(ruling.silent):
            return self._publish(session, messages, binary)
