"""
Mutes the clients of this node, and tells other nodes whom it has muted.

A private part of :mod:`lhttp_tx.cluster.control`. Each node remembers all muted users, because they may connect to any
node. A node that joins, or that can be heard again, gets what the others know, and they get what it knows. A node that
has missed messages, without being away for long, exchanges recent news with the others (:meth:`Muting.catch_up`). The
mute of a connection concerns only its own node.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from heapq import nsmallest
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from lhttp_tx.cluster.nodes import Nodes
from lhttp_tx.cluster.peers import FORGET_AFTER
from lhttp_tx.cluster.telling import Backlog
from lhttp_tx.engine.engine import Engine
from lhttp_tx.engine.session import Session
from lhttp_tx.errors import TooMany
from lhttp_tx.identity import Identity
from lhttp_tx.rules.muting import Mutes, News

__all__ = ["Muting"]

_log = Logger()

_KIND, _WANTED = "mutes", "mutes-wanted"

_TOLD_AT_ONCE = 200
"""The most users in one message to another node. With names of 255 characters, it has less than 1 MiB."""

_RECENT = FORGET_AFTER + 60.0
"""
The age, in seconds, of the oldest news that a node exchanges when messages were lost. A node that was away for longer
joins again, and gets everything.
"""

_CATCH_UP_AFTER = 1.0
"""Seconds between the news that messages were lost, and the exchange. So many losses cause one exchange."""

_LATEST = 10.0
"""The most seconds that an order may be late: older ones are ignored. So a mute is shortened by no more than these."""


class Muting:
    """
    Carries out orders to mute.

    :ivar mutes: who is muted.
    """

    def __init__(self, engine: Engine, nodes: Nodes, name_of: Callable[[Identity], str | None]) -> None:
        """
        :param engine: the engine of this node.
        :param nodes: the other nodes.
        :param name_of: returns the name of a client's user; ``None`` if the client is anonymous.
        """
        self.mutes = Mutes(engine, name_of)
        self._shared = nodes.clocks.shared
        self._nodes = nodes
        self._clock = engine.clock
        self._catching_up: IDelayedCall | None = None
        self._backlog = Backlog(engine.clock, nodes.tell)
        self._recent = Backlog(engine.clock, nodes.tell)
        nodes.handle(_KIND, self._hear)
        nodes.handle(_WANTED, lambda sender, _: self._tell_recent(sender))
        nodes.on_join.append(self._tell)
        nodes.on_hole.append(self.catch_up)
        for backlog in (self._backlog, self._recent):
            nodes.on_leave.append(backlog.left)

    def stop(self) -> None:
        """Stop all timers."""
        self.mutes.stop()
        self._backlog.stop()
        self._recent.stop()
        if self._catching_up is not None:
            self._catching_up.cancel()
            self._catching_up = None

    def mute(self, order: dict[str, Any], sessions: Sequence[Session]) -> int | None:
        """
        Mute a user, whether connected or not, or one connection.

        :param order: the order, with ``seconds``, ``stamp`` and ``by``.
        :param sessions: the connections that it is about.
        :returns: the number of these connections; ``None`` if another node has given the order, and too many users are
            muted here.
        :raises TooMany: if this node has given the order, and too many users are muted.
        """
        seconds = order["seconds"] - min(max(self._shared() - order["stamp"], 0.0), _LATEST)
        if seconds <= 0:
            return 0
        if "user" in order:
            try:
                is_news = self.mutes.mute_user(News(order["user"], seconds, order["stamp"]))
            except TooMany as error:
                if "at" not in order:
                    raise
                _log.warn("cannot mute the user {name!r}: {error}", name=order["user"], error=error, event="mute.full")
                return None
            if is_news:
                self._say("muted the user {name!r} for {seconds} s, as {by} said", order, order["user"], seconds)
        else:
            for session in sessions:
                self.mutes.mute_session(session, seconds)
                self._say("{name}: muted for {seconds} s, as {by} said", order, session.peer, seconds)
        return len(sessions)

    def unmute(self, order: dict[str, Any], sessions: Sequence[Session]) -> int:
        """
        Lift the mute of a user and those of the user's connections, or that of one connection.

        :param order: the order, with ``stamp`` and ``by``.
        :param sessions: the connections that it is about.
        :returns: the number of those that were muted and may publish now.
        """
        muted = [session for session in sessions if self.mutes.left(session) > 0]
        was_muted = "user" in order and self.mutes.lift_user(order["user"], order["stamp"])
        for session in muted:
            self.mutes.lift_session(session)
        free = [session for session in muted if not self.mutes.left(session)]
        if "user" in order and (was_muted or free):
            self._say("lifted the mute of the user {name!r}, as {by} said", order, order["user"])
        elif "user" not in order:
            for session in free:
                self._say("{name}: no longer muted, as {by} said", order, session.peer)
        return len(free)

    def page(self, order: dict[str, Any]) -> list[list[Any]]:
        """
        Return a page of muted users, each with the seconds that are left: those whose names follow ``after``, at most
        ``limit``.
        """
        muted = ([news.user, math.ceil(news.seconds)] for news in self.mutes.known() if news.seconds > 0)
        return nsmallest(order["limit"], (found for found in muted if found[0] > order["after"]))

    def _say(self, text: str, order: dict[str, Any], name: str, seconds: float = 0.0) -> None:
        event = "mute.given" if seconds else "mute.lifted"
        _log.info(text, name=name, seconds=math.ceil(seconds), by=order["by"], event=event)

    # Messages to and from the other nodes

    def catch_up(self) -> None:
        """
        Exchange recent news with the other nodes soon, because orders may have been lost on their way.

        It works in both directions, because the node that can be reached again first would ask nobody.
        """
        if self._catching_up is None:
            self._catching_up = self._clock.callLater(_CATCH_UP_AFTER, self._exchange)

    def _exchange(self) -> None:
        self._catching_up = None
        if not self._nodes.running:
            return
        self._nodes.tell_all(_WANTED, None)
        for name in self._nodes.others:
            self._tell_recent(name)

    def _tell_recent(self, name: str) -> None:
        since = self._shared() - _RECENT
        self._send(name, [news for news in self.mutes.known() if news.stamp >= since], self._recent)

    def _tell(self, name: str) -> None:
        self._send(name, self.mutes.known(), self._backlog)

    def _send(self, name: str, known: list[News], backlog: Backlog) -> None:
        runs = [known[first : first + _TOLD_AT_ONCE] for first in range(0, len(known), _TOLD_AT_ONCE)]
        if runs:
            backlog.add(name, _KIND, [(run, sum(len(news.user) + 50 for news in run)) for run in runs])

    def _hear(self, sender: str, told: list[Any]) -> None:
        refused: list[TooMany] = []
        # Those that were lifted come first: they make room.
        for user, seconds, stamp in sorted(told, key=lambda news: float(news[1]) > 0):
            try:
                self.mutes.hear(News(str(user), float(seconds), float(stamp)))
            except TooMany as error:
                if not refused:
                    _log.warn("cannot mute the user {name!r}: {error}", name=user, error=error, event="mute.full")
                refused.append(error)
