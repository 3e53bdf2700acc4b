"""
Who may not publish for a limited time: the mutes that one node knows, and the filter that enforces them.

:mod:`lhttp_tx.cluster.muting` tells all nodes about mutes. While nobody is muted, the engine has none of this: the
first mute replaces its filter for ``publish``, and the last one that ends puts the filter back. Both make the engine
forget its plans, so a mute applies to the next message.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from sys import getsizeof
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from twisted.internet.interfaces import IDelayedCall
from zope.interface import implementer

from lhttp_tx.errors import Muted, TooMany
from lhttp_tx.filters import HeaderFilter
from lhttp_tx.filters.pubsub import PublishFilter
from lhttp_tx.interfaces import IHeaderFilter, IShortcutFilter, MaybeAwaitable, Shortcut

if TYPE_CHECKING:
    from lhttp_tx.codec.message import Head
    from lhttp_tx.engine.engine import Engine
    from lhttp_tx.engine.request import Request
    from lhttp_tx.engine.session import Session
    from lhttp_tx.identity import Identity

__all__ = ["MAX_USERS", "MutedPublishFilter", "Mutes", "News"]

MAX_USERS = 10_000
"""
The most users that may be muted at the same time, and the most lifted mutes that a node remembers. For connections,
there is no limit: a node forgets the mute of a connection when the connection ends.
"""

_LOOK_SOONEST, _LOOK_LATEST = 1.0, 60.0
"""Seconds between two looks for mutes that have ended and for muted connections that are gone."""


class _Mute(NamedTuple):
    """
    The mute of a user.

    :ivar until: its end, by the reactor's clock.
    :ivar stamp: see :class:`News`.
    :ivar replaces: whether it ends before an earlier mute would have ended. A node that was cut off may know the
        earlier one.
    """

    until: float
    stamp: float
    replaces: bool


class News(NamedTuple):
    """
    What a node knows about one user.

    :ivar user: the name of the user.
    :ivar seconds: the seconds that the mute still lasts; 0 if it was lifted.
    :ivar stamp: the time at which it was given or lifted, in a time that all nodes share. The latest counts.
    """

    user: str
    seconds: float
    stamp: float


class Mutes:
    """The mutes that this node knows."""

    def __init__(self, engine: Engine, name_of: Callable[[Identity], str | None]) -> None:
        """
        :param engine: the engine of this node.
        :param name_of: returns the name of a client's user; ``None`` if the client is anonymous.
        """
        self._engine = engine
        self._name_of = name_of
        self._users: dict[str, _Mute] = {}
        self._lifted: dict[str, float] = {}
        self._sessions: WeakKeyDictionary[Session, float] = WeakKeyDictionary()
        self._filters: tuple[IHeaderFilter, ...] | None = None
        self._timer: IDelayedCall | None = None

    # Changes

    def mute_user(self, news: News) -> bool:
        """
        Mute a user, instead of an earlier mute.

        :param news: the mute.
        :returns: whether these are news: whether nothing later is known about this user.
        :raises TooMany: if :data:`MAX_USERS` others are muted.
        """
        if news.stamp < self._stamp_of(news.user):
            return False
        if news.user not in self._users and len(self._users) >= MAX_USERS:
            self._drop_ended()
            if len(self._users) >= MAX_USERS:
                raise TooMany(f"{MAX_USERS} users are muted already")
        until = self._engine.clock.seconds() + news.seconds
        before = self._users.get(news.user)
        was_lifted = self._lifted.pop(news.user, None) is not None
        replaces = was_lifted if before is None else before.replaces or before.until > until
        self._users[news.user] = _Mute(until, news.stamp, replaces)
        self._begin(news.seconds)
        return True

    def lift_user(self, user: str, stamp: float) -> bool:
        """
        Lift the mute of a user. Remember this, so that a node that was cut off does not bring back the mute.

        :param user: the name of the user.
        :param stamp: see :class:`News`.
        :returns: whether the user was muted.
        """
        if stamp < self._stamp_of(user):
            return False
        was_muted = self.left_of_user(user) > 0
        self._users.pop(user, None)
        self._remember(user, stamp)
        self._rest()
        return was_muted

    def _remember(self, user: str, stamp: float) -> None:
        """Remember that a user is not muted any more."""
        self._lifted.pop(user, None)
        while len(self._lifted) >= MAX_USERS:
            del self._lifted[next(iter(self._lifted))]
        self._lifted[user] = stamp

    def mute_session(self, session: Session, seconds: float) -> None:
        """Mute a connection, for some seconds from now on."""
        self._sessions[session] = self._engine.clock.seconds() + seconds
        self._begin(seconds)

    def lift_session(self, session: Session) -> None:
        """Lift the mute of a connection. A mute of its user stays."""
        self._sessions.pop(session, None)
        self._rest()

    def hear(self, news: News) -> None:
        """
        Take what another node knows about a user.

        :raises TooMany: see :meth:`mute_user`.
        """
        if news.stamp <= self._stamp_of(news.user):
            return
        if news.seconds > 0:
            self.mute_user(news)
        else:
            self.lift_user(news.user, news.stamp)

    def stop(self) -> None:
        """Stop the timer."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    # Questions

    def known(self) -> list[News]:
        """Return all that is known about users."""
        now = self._engine.clock.seconds()
        muted = [News(user, mute.until - now, mute.stamp) for user, mute in self._users.items() if mute.until > now]
        return muted + [News(user, 0, stamp) for user, stamp in self._lifted.items()]

    def counts(self) -> tuple[int, int]:
        """Return how many users, and how many open connections by themselves, are muted now."""
        now = self._engine.clock.seconds()
        sessions = sum(until > now and not session.closed for session, until in self._sessions.items())
        return sum(mute.until > now for mute in self._users.values()), sessions

    def left(self, session: Session) -> float:
        """Return the seconds until the client of a connection may publish; 0 if it may."""
        found = self._sessions.get(session, 0.0) - self._engine.clock.seconds() if self._sessions else 0.0
        return max(found, self.left_of_user(self._name_of(session.identity)) if self._users else 0.0, 0.0)

    def left_of_user(self, user: str | None) -> float:
        """Return the seconds that the mute of a user still lasts; 0 if the user is not muted."""
        found = None if user is None else self._users.get(user)
        return 0.0 if found is None else max(0.0, found.until - self._engine.clock.seconds())

    def check(self, session: Session) -> None:
        """:raises Muted: if the client of a connection may not publish."""
        left = self.left(session)
        if left > 0:
            raise Muted(f"muted: you may publish again in {math.ceil(left)} s")

    def _stamp_of(self, user: str) -> float:
        """Return when the last known thing about a user happened."""
        found = self._users.get(user)
        return self._lifted.get(user, -math.inf) if found is None else found.stamp

    # Begin and end

    def _begin(self, seconds: float) -> None:
        engine = self._engine
        if self._filters is None:
            self._filters = engine.filters
            engine.filters = tuple(
                MutedPublishFilter(found, self) if isinstance(found, PublishFilter) else found
                for found in engine.filters
            )
            engine.forget_plans()
        delay = min(max(seconds, _LOOK_SOONEST), _LOOK_LATEST)
        if self._timer is None or not self._timer.active():
            self._timer = engine.clock.callLater(delay, self._look)
        elif self._timer.getTime() > engine.clock.seconds() + delay:
            self._timer.reset(delay)

    def _rest(self) -> None:
        """Let the engine publish as before if nobody is muted any more."""
        if self._filters is None or self._users or self._sessions:
            return
        self.stop()
        self._engine.filters, self._filters = self._filters, None
        self._engine.forget_plans()

    def _drop_ended(self) -> None:
        now = self._engine.clock.seconds()
        for user, mute in [(user, mute) for user, mute in self._users.items() if mute.until <= now]:
            del self._users[user]
            if mute.replaces:
                self._remember(user, mute.stamp)
        # The engine still handles what a session has received when its connection has ended, and forgets it later.
        sessions: Collection[Session] = self._engine.sessions
        for session in [found for found, until in self._sessions.items() if until <= now or found not in sessions]:
            del self._sessions[session]

    def _look(self) -> None:
        """Drop what has ended."""
        self._timer = None
        self._drop_ended()
        ends = [*(mute.until for mute in self._users.values()), *self._sessions.values()]
        if ends:
            self._begin(min(ends) - self._engine.clock.seconds())
        else:
            self._rest()


@implementer(IShortcutFilter)
class MutedPublishFilter(HeaderFilter):
    """Refuses a message with ``publish`` if its sender is muted. Everything else is up to another filter."""

    headers = PublishFilter.headers
    tells_nothing = True

    def __init__(self, publishing: PublishFilter, mutes: Mutes) -> None:
        """
        :param publishing: the filter that publishes.
        :param mutes: who is muted.
        """
        self._publishing = publishing
        self._mutes = mutes
        self.timeout = publishing.timeout

    def check(self, head: Head) -> None:
        """See :meth:`lhttp_tx.filters.pubsub.PublishFilter.check`."""
        self._publishing.check(head)

    def judge(self, request: Request) -> MaybeAwaitable:
        """
        Judge as the other filter does. No processor sees the messages of a muted client that have ``publish``.

        :raises Muted: if the sender is muted.
        """
        self._mutes.check(request.session)
        return self._publishing.judge(request)

    def after(self, request: Request) -> MaybeAwaitable:
        """
        Publish as the other filter does.

        :raises Muted: if the sender was muted while a processor had the message.
        """
        self._mutes.check(request.session)
        return self._publishing.after(request)

    def shortcut(self, head: Head) -> Shortcut:
        """See :meth:`lhttp_tx.interfaces.IShortcutFilter.shortcut`."""
        return _MutedPublish(self._publishing.shortcut(head), self._mutes)


class _MutedPublish:
    """
    Publishes messages, unless the sender is muted.

    :ivar cost: its memory in bytes, approximately.
    """

    __slots__ = ("_mutes", "_publish", "cost")

    def __init__(self, publish: Shortcut, mutes: Mutes) -> None:
        self._publish = publish
        self._mutes = mutes
        self.cost = getsizeof(self) + getattr(publish, "cost", 0)

    def __call__(self, session: Any, messages: Iterator[bytes], binary: bool) -> MaybeAwaitable:
        self._mutes.check(session)
        return self._publish(session, messages, binary)
