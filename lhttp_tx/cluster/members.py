"""
Who is connected, on all nodes: presence, and the connections of each user.

Used by :mod:`lhttp_tx.assembly`. Features that the settings do not use are not attached to the engine, and cost
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from lhttp_tx.cluster.announcer import COMMAND, Announcer, PresenceProcessor
from lhttp_tx.cluster.attendance import Attendance
from lhttp_tx.cluster.nodes import Nodes
from lhttp_tx.cluster.presence import GRACE, Presence
from lhttp_tx.cluster.roster import Roster
from lhttp_tx.codec.wildcards import is_wildcard
from lhttp_tx.engine.engine import Engine
from lhttp_tx.engine.session import Session
from lhttp_tx.filters.pubsub import SubscribeFilter, UnsubscribeFilter
from lhttp_tx.identity import Identity, is_name
from lhttp_tx.interfaces import IProcessor, MaybeAwaitable
from lhttp_tx.rules.filters import RuleBook
from lhttp_tx.rules.model import Rule, Rules

__all__ = ["Members"]

_log = Logger()


class Members:
    """
    The connections that all nodes must know: those in channels with presence, and those of users if these have a limit.

    :ivar presence: the people in channels with presence.
    """

    def __init__(
        self,
        engine: Engine,
        nodes: Nodes,
        clock: IReactorTime,
        *,
        subscribing: SubscribeFilter,
        unsubscribing: UnsubscribeFilter,
        check_access: Callable[[Session, str], MaybeAwaitable],
        book: RuleBook | None = None,
        presence: Iterable[str] = (),
        presence_grace: float = GRACE,
        max_per_user: int = 0,
        login_parameter: str | None = None,
    ) -> None:
        """
        :param engine: the engine. It has the filters *subscribing* and *unsubscribing*.
        :param nodes: the other nodes.
        :param clock: the reactor.
        :param subscribing: the filter that handles ``subscribe``.
        :param unsubscribing: the filter that handles ``unsubscribe``.
        :param check_access: raises an exception, or returns an awaitable that fails, if a session may not subscribe to
            a channel.
        :param book: the current channel rules; ``None`` if there are none.
        :param presence: patterns of channels with presence, in addition to those of the rules.
        :param presence_grace: seconds for which a person may be gone before there is a leave event.
        :param max_per_user: the most connections of one user. Beyond that, the server closes the oldest ones. 0: no
            limit.
        :param login_parameter: the query parameter with the name of a client that has not logged in; ``None``: such
            clients have no name.
        :raises ValueError: if a processor of the operator has the command ``presence``, and a channel has presence.
        """
        self._engine = engine
        self._subscribing = subscribing
        self._unsubscribing = unsubscribing
        self._check_access = check_access
        self._book = book
        self._parameter = login_parameter
        self._max_per_user = max_per_user
        self._nodes = nodes
        self._now = nodes.clocks.shared
        self._patterns = Rules(Rule(match=pattern, presence=True) for pattern in presence)
        self._attendance: Attendance | None = None
        self._is_answered = False
        self._roster = Roster(nodes, clock)
        nodes.clocks.on_jump.append(self._roster.shift)
        self.presence = Presence(self._roster, clock, grace=presence_grace)
        if self._max_per_user:
            self._attend()
        if self._keeps_presence():
            self._keep_presence()

    def stop(self) -> None:
        """Stop all timers."""
        self.presence.stop()
        self._roster.stop()

    def rules_changed(self, before: Rules) -> None:
        """
        Keep the presence of the channels that have it according to the new rules.

        :param before: the rules before.
        """
        if self._book is None or _presence_rules(self._book.rules) == _presence_rules(before):
            return
        if self._keeps_presence():
            try:
                self._keep_presence()
            except ValueError as error:
                _log.error("presence is off: {error}", error=error)
        if self._attendance is not None:
            self._attendance.refresh()

    def name_of(self, identity: Identity) -> str | None:
        """
        Return the name of a client: its user, or the value of its query parameter if the operator allows that. Return
        ``None`` if it has no name.
        """
        if identity.user is not None or self._parameter is None:
            return identity.user
        name = identity.parameters.get(self._parameter)
        return name if name is not None and is_name(name) else None

    def has_presence(self, channel: str) -> bool:
        """Return whether *channel* has presence."""
        if channel.startswith("$") or is_wildcard(channel):
            return False
        if self._book is not None and self._book.rules.find(channel).presence:
            return True
        return bool(self._patterns) and self._patterns.find(channel).presence

    def _keeps_presence(self) -> bool:
        rules = () if self._book is None else self._book.rules
        return bool(len(self._patterns)) or any(rule.presence for rule in rules)

    def _keep_presence(self) -> None:
        if self._is_answered:
            return
        processor: IProcessor = PresenceProcessor(
            self.presence, self.has_presence, self._check_access, lambda: self._nodes.complete
        )
        if self._engine.registry.get(COMMAND) is not None:
            raise ValueError(
                f"{self._engine.registry.get(COMMAND)!r} has the command {COMMAND!r}, "
                "which the server handles if channels have presence"
            )
        self._is_answered = True
        self._attend()
        self._engine.registry.add(processor)
        Announcer(self.presence, self._engine.hub)
        self._subscribing.has_presence = self._unsubscribing.has_presence = self.has_presence

    def _attend(self) -> None:
        if self._attendance is None:
            self._attendance = Attendance(
                self._engine,
                self._roster,
                now=self._now,
                name_of=self.name_of,
                is_kept=self.has_presence,
                max_per_user=self._max_per_user,
            )


def _presence_rules(rules: Rules) -> list[tuple[str, bool]]:
    """Return the parts of *rules* that decide which channels have presence; an empty list if none has."""
    found = [(rule.match, rule.presence) for rule in rules]
    return found if any(kept for _, kept in found) else []
