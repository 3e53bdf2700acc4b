"""
What a server knows and does about its connections as a whole: presence, logins, control, hooks.

Put together here for :mod:`lhttp_tx.service` and :mod:`lhttp_tx.testing`. What is not asked for is not attached to the
engine, and costs nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from lhttp_tx.announcer import COMMAND, Announcer, PresenceProcessor
from lhttp_tx.attendance import Attendance
from lhttp_tx.control import Control
from lhttp_tx.engine import Engine
from lhttp_tx.filters.pubsub import SubscribeFilter, UnsubscribeFilter
from lhttp_tx.filters.rules import RuleBook, RuledSubscribeFilter
from lhttp_tx.hooks import HookRunner
from lhttp_tx.identity import Identity
from lhttp_tx.interfaces import IBus, IProcessor, MaybeAwaitable
from lhttp_tx.nodes import Nodes
from lhttp_tx.presence import GRACE, Presence
from lhttp_tx.revoking import Revoker
from lhttp_tx.roster import Roster
from lhttp_tx.rules import Rule, Rules, RulesError
from lhttp_tx.session import Session

__all__ = ["Community", "check_presence"]

_log = Logger()

_NAME_SIZE = 255
"""Bytes of a client's name, as many as of a user's."""


def check_presence(pattern: str) -> str:
    """
    Return *pattern* if it is one of channel names.

    :raises ValueError: if it is not; the text says why.
    """
    try:
        Rules.from_toml([{"match": pattern, "presence": True}])
    except RulesError as error:
        raise ValueError(error.problems[0][1].removeprefix("match ")) from None
    return pattern


class Community:
    """
    What belongs to one engine beside its sessions.

    :ivar nodes: the other nodes.
    :ivar presence: who is in the channels whose presence is kept.
    :ivar control: control over connections, here and on the other nodes.
    """

    def __init__(
        self,
        engine: Engine,
        bus: IBus,
        clock: IReactorTime,
        *,
        hooks: HookRunner,
        subscribing: SubscribeFilter,
        unsubscribing: UnsubscribeFilter,
        book: RuleBook | None = None,
        presence: Iterable[str] = (),
        presence_grace: float = GRACE,
        max_per_user: int = 0,
        login_parameter: str | None = None,
        wait_timeout: float = 0.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        """
        :param engine: made with the filters of *hooks*, and with *subscribing* and *unsubscribing*.
        :param bus: what nodes talk over.
        :param clock: the reactor.
        :param hooks: the application's hooks.
        :param book: the channel rules that are in force.
        :param presence: patterns of channels of which it is known who is there, beside those of the rules.
        :param presence_grace: seconds that somebody may be gone before it counts as leaving.
        :param max_per_user: connections of one user; the oldest beyond that are closed. 0: no limit.
        :param login_parameter: the query parameter that says what a client is called who has not logged in.
        :param wait_timeout: seconds that a message may wait for those before it; 0: any time.
        :param now: the time of the day, in seconds since 1970.
        :raises ValueError: if there is a processor in the place of the server's own.
        """
        self._engine = engine
        self._hooks = hooks
        self._book = book
        self._subscribing = subscribing
        self._unsubscribing = unsubscribing
        self._parameter = login_parameter
        self._max_per_user = max_per_user
        self._now = now
        self._patterns = Rules(Rule(match=pattern, presence=True) for pattern in presence)
        self._attendance: Attendance | None = None
        self._asked = False
        self._revoker: Revoker | None = None
        if book is not None and isinstance(subscribing, RuledSubscribeFilter):
            self._revoker = Revoker(engine, clock, book=book, subscribing=subscribing)
        self.nodes = Nodes(bus, clock)
        self._roster = Roster(self.nodes, clock)
        self._channels = Roster(self.nodes, clock, kind="channels") if hooks.watches_channels else None
        self.presence = Presence(self._roster, clock, grace=presence_grace)
        self.control = Control(engine, self.nodes, name_of=self.name_of)
        engine.wait_timeout = wait_timeout
        hooks.attach(engine)
        if self._channels is not None:
            self._watch_channels(self._channels)
        if self._max_per_user:
            self._attend()
        if self._keeps_presence():
            self._keep_presence()

    def start(self) -> None:
        """Look for the other nodes."""
        self.nodes.start()

    def stop(self) -> None:
        """Say goodbye to them, and leave no timer behind; it may be started again."""
        self.presence.stop()
        if self._revoker is not None:
            self._revoker.stop()
        for roster in (self._roster, self._channels):
            if roster is not None:
                roster.stop()
        if self.nodes.running:
            self.nodes.stop()

    def set_rules(self, rules: Rules) -> None:
        """
        Put other channel rules in force, for messages from now on and for those who are subscribed.

        :raises ValueError: if the server was made without any.
        """
        if self._book is None or self._revoker is None:
            raise ValueError("a server has rules from the start or never: make it with Config(rules=Rules())")
        before = self._book.rules
        if rules == before:
            return
        self._book.rules = rules
        self._engine.forget_plans()
        if _presence_rules(rules) != _presence_rules(before):
            self._refresh_presence()
        self._revoker.rules_changed(before)

    def _refresh_presence(self) -> None:
        """Keep presence of the channels that the rules in force name."""
        if self._keeps_presence():
            try:
                self._keep_presence()
            except ValueError as error:
                _log.error("presence is not kept: {error}", error=error)
        if self._attendance is not None:
            self._attendance.refresh()

    def name_of(self, identity: Identity) -> str | None:
        """Return what a client is called: the user, or what its query says where the operator allows that."""
        if identity.user is not None or self._parameter is None:
            return identity.user
        name = identity.parameters.get(self._parameter)
        return name if name is not None and _is_name(name) else None

    def has_presence(self, channel: str) -> bool:
        """Return whether it is known who is in *channel*."""
        if channel.startswith("$") or channel.endswith((".*", ".>")) or ".*." in channel or channel[:1] in ("*", ">"):
            return False
        return self._patterns.find(channel).presence or (
            self._book is not None and self._book.rules.find(channel).presence
        )

    def _keeps_presence(self) -> bool:
        rules = () if self._book is None else self._book.rules
        return bool(len(self._patterns)) or any(rule.presence for rule in rules)

    def _keep_presence(self) -> None:
        if self._asked:
            return
        processor: IProcessor = PresenceProcessor(self.presence, self.has_presence, self._check_access)
        if self._engine.registry.get(COMMAND) is not None:
            raise ValueError(
                f"{self._engine.registry.get(COMMAND)!r} has the command {COMMAND!r}, "
                "which is the server's own where presence is kept"
            )
        self._asked = True
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

    def _check_access(self, session: Session, channel: str) -> MaybeAwaitable:
        if isinstance(self._subscribing, RuledSubscribeFilter):
            self._subscribing.check_access(session, channel)
        return self._hooks.may_subscribe(session, channel)

    def _watch_channels(self, channels: Roster) -> None:
        mine = self.nodes.name
        channels.enter(mine, None, 0.0)
        self._hooks.watch_channels(channels)

        def changed(channel: str, opened: bool) -> None:
            if channel.startswith("$"):
                return
            if opened:
                channels.join(mine, channel)
            else:
                channels.leave(mine, channel)

        self._engine.hub.on_channel.append(changed)


def _presence_rules(rules: Rules) -> list[tuple[str, bool]]:
    """Return what of *rules* says where presence is kept; nothing if it is kept nowhere."""
    found = [(rule.match, rule.presence) for rule in rules]
    return found if any(kept for _, kept in found) else []


def _is_name(name: str) -> bool:
    """Return whether *name* can stand in a header."""
    return 0 < len(name.encode("utf-8", "replace")) <= _NAME_SIZE and name == name.strip() and name.isprintable()
