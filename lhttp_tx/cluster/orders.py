"""
Carries out orders of the cluster's nodes on this node's connections.

A private part of :mod:`lhttp_tx.cluster.control`. An order and its answer are JSON values.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

from lhttp_tx.cluster.directory import SessionDirectory
from lhttp_tx.cluster.listing import Listing
from lhttp_tx.cluster.muting import Muting
from lhttp_tx.cluster.newcomers import Newcomers
from lhttp_tx.cluster.nodes import Nodes
from lhttp_tx.codec.limits import UNLIMITED
from lhttp_tx.codec.message import Message, parse
from lhttp_tx.engine.engine import Engine
from lhttp_tx.engine.session import Session
from lhttp_tx.errors import LHTTPError
from lhttp_tx.identity import Identity
from lhttp_tx.observe.rationing import RationedLogger

__all__ = ["LIFETIME", "Order", "Orders", "fitting"]

_log = RationedLogger(__name__)

_ANSWER_SIZE = 786_432
"""The most bytes of an answer in one message to another node. By default, NATS accepts messages of up to 1 MiB."""

LIFETIME = 10.0
"""Seconds after which a node ignores an order that changes something."""

_PROMPT = 2.0
"""
Seconds within which an order applies to all connections, even new ones. The node that has sent it still waits for the
answer. And a client may know about its connection a moment before the node does.
"""

_LASTING = frozenset({"channels", "subscribers", "channels-of"})
"""Orders that change nothing, so they may be late."""

Order: TypeAlias = dict[str, Any]


class Orders:
    """
    Carries out orders. The key ``do`` has the action. The other keys say on which connections, and how.

    :ivar questions: the functions that answer questions, by the value of ``do``. A question changes nothing, so it may
        be late.
    :ivar muting: mutes clients.
    """

    def __init__(self, engine: Engine, nodes: Nodes, name_of: Callable[[Identity], str | None]) -> None:
        """
        :param engine: the engine of this node.
        :param nodes: the other nodes.
        :param name_of: returns the name of a client's user; ``None`` if the client is anonymous.
        """
        self.questions: dict[str, Callable[[Order], Any]] = {}
        self._engine = engine
        self._name_of = name_of
        self._sessions = SessionDirectory(engine, name_of)
        self.muting = Muting(engine, nodes, name_of)
        self.questions.update(Listing(engine, self._sessions, name_of, self.muting.mutes).questions)
        self.questions["mute_page"] = self.muting.page
        self._newcomers = Newcomers(engine.clock, LIFETIME)
        self._given: float | None = None

    def expect(self) -> None:
        """Prepare for orders from other nodes, which may arrive late: remember which connections are new."""
        if self._newcomers not in self._engine.watchers:
            self._engine.watchers.append(self._newcomers)

    def obey_late(self, order: Order, given: float) -> Any:
        """
        Carry out an order of another node, unless it is too old.

        An order that is older than :data:`_PROMPT` applies only to connections that were there when it was given.

        :param given: the time at which it was given, by this node's clock.
        :returns: the answer, like :meth:`obey`; ``None`` if the order is too old.
        """
        if order["do"] in _LASTING or order["do"] in self.questions:
            return self.obey(order)
        late = self._engine.clock.seconds() - given
        if late > LIFETIME:
            _log.warn("ignored an order of another node, {order}: it is {late:.0f} s old", order=order["do"], late=late)
            return None
        if late <= _PROMPT:
            return self.obey(order)
        self._given = given
        try:
            return self.obey(order)
        finally:
            self._given = None

    def obey(self, order: Order) -> Any:
        """
        Carry out an order on the connections of this node. Return the answer, a JSON value or a Deferred with one.
        """
        obey = self.questions.get(order["do"]) or getattr(self, "_do_" + order["do"].replace("-", "_"), None)
        return None if obey is None else obey(order)

    def _do_send(self, order: Order) -> int:
        message = _load(order["message"])
        sessions = [session for session in self._whom(order) if not session.closed]
        for session in sessions:
            session.send(message)
        return len(sessions)

    def _do_subscribe(self, order: Order) -> Deferred[int]:
        waiting = [
            session.subscribe(order["channels"]).addErrback(_log_not_subscribed, session)
            for session in self._whom(order)
        ]
        done = DeferredList(waiting, consumeErrors=True)
        return done.addCallback(lambda results: sum(success for success, _ in results))

    def _do_unsubscribe(self, order: Order) -> int:
        count = 0
        for session in self._whom(order):
            count += not session.channels.isdisjoint(order["channels"])
            session.unsubscribe(order["channels"])
        return count

    def _do_close(self, order: Order) -> int:
        sessions = [session for session in self._whom(order) if not session.closed]
        for session in sessions:
            session.close(order["code"], order["reason"])
        return len(sessions)

    def _do_mute(self, order: Order) -> int | None:
        return self.muting.mute(order, [session for session in self._whom(order) if not session.closed])

    def _do_unmute(self, order: Order) -> int:
        return self.muting.unmute(order, self._whom(order))

    def _do_unsubscribe_all(self, order: Order) -> int:
        sessions = self._subscribed(order["channel"])
        for session in sessions:
            session.unsubscribe(order["channel"])
        return len(sessions)

    def _do_channels(self, order: Order) -> dict[str, int]:
        return {name: count for name, count in self._engine.hub.channels.items() if not name.startswith("$")}

    def _do_subscribers(self, order: Order) -> list[list[str | None]]:
        identities = [session.identity for session in self._subscribed(order["channel"])]
        return [[identity.connection_id, self._name_of(identity)] for identity in identities]

    def _do_refresh(self, order: Order) -> int:
        watch = self._engine.watch_expiry
        sessions = [session for session in self._whom(order) if not session.closed]
        if watch is None:
            return 0
        for session in sessions:
            session.identity = replace(session.identity, expires=float(order["expires"]))
            watch(session)
        return len(sessions)

    def _do_channels_of(self, order: Order) -> dict[str, int]:
        return dict(Counter(channel for session in self._whom(order) for channel in session.channels))

    def _whom(self, order: Order) -> list[Session]:
        return self._present(self._sessions.find(order.get("user"), order.get("connection")))

    def _subscribed(self, channel: str) -> list[Session]:
        return self._present([found for found in self._engine.hub.subscribers(channel) if isinstance(found, Session)])

    def _present(self, sessions: list[Session]) -> list[Session]:
        """Return those that were there when the current order was given."""
        given = self._given
        if given is None:
            return sessions
        return [session for session in sessions if not self._newcomers.came_after(session, given)]


def _log_not_subscribed(failure: Failure, session: Session) -> Failure:
    failure.trap(LHTTPError)
    _log.warn("{peer}: control could not subscribe: {error}", peer=session.peer, error=failure.value)
    return failure


def fitting(answer: Any, order: str, most: int = _ANSWER_SIZE) -> Any:
    """
    Return the first entries of an answer that fit into *most* bytes as JSON. Answers other than lists and dicts are not
    cut.

    :param order: the action, for the log.
    """
    if not isinstance(answer, list | dict) or len(json.dumps(answer)) <= most:
        return answer
    size = 0
    kept: list[Any] = []
    for item in answer.items() if isinstance(answer, dict) else answer:
        size += len(json.dumps(item)) + 2
        if size > most:
            break
        kept.append(item)
    _log.warn(
        "the answer to another node about {order} is too large: sent {kept} of {count} entries",
        order=order,
        kept=len(kept),
        count=len(answer),
    )
    return dict(kept) if isinstance(answer, dict) else kept


def _load(told: list[Any]) -> Message:
    return parse(base64.b64decode(told[0]), binary=bool(told[1]), limits=UNLIMITED)
