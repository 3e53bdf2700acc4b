"""
Control over the connections of a server from code: send, subscribe, close, look who is where, in the whole cluster.

Each node does to its own connections what it is asked for, and says how many it has reached. A node that does not
answer in time is named in the outcome.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

from lhttp_tx.channels import check_channel
from lhttp_tx.engine import Engine
from lhttp_tx.errors import LHTTPError
from lhttp_tx.identity import Identity
from lhttp_tx.limits import UNLIMITED
from lhttp_tx.message import Message, parse
from lhttp_tx.nodes import Nodes
from lhttp_tx.session import Session
from lhttp_tx.watchers import SessionWatcher

__all__ = ["Control", "Found", "Reached"]

_log = Logger()

_KIND = "control"

_CODES = frozenset({1000, 1001, 1008, 1011, 1013})
"""Close codes below 3000 that a server may send for its own reasons."""

_Order: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reached:
    """
    What has become of an order.

    :ivar count: how many connections it has reached.
    :ivar unanswered: the names of nodes that have not answered in time; what they have done is not known.
    """

    count: int
    unanswered: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """
    One connection, as :meth:`Control.subscribers` finds it.

    :ivar connection: its id.
    :ivar user: what its client is called, or ``None``.
    :ivar node: the name of its node.
    """

    connection: str
    user: str | None
    node: str


class Control(SessionWatcher):
    """
    Control over the connections of a server and of its cluster.

    ``user`` is the name of an authenticated user, or what the query parameter of ``--login-parameter`` says; a
    ``connection`` is the id that ``session.identity.connection_id`` has. No Deferred of these fails.
    """

    def __init__(self, engine: Engine, nodes: Nodes, *, name_of: Callable[[Identity], str | None]) -> None:
        """
        :param engine: the server.
        :param nodes: the other nodes.
        :param name_of: returns what a client is called.
        """
        self._engine = engine
        self._nodes = nodes
        self._name_of = name_of
        self._users: dict[str, dict[Session, None]] | None = None
        self._names: dict[Session, tuple[str | None, str]] = {}
        self._connections: dict[str, Session] = {}
        nodes.handle(_KIND, self._ordered)

    # Orders

    def send_to_user(self, user: str, message: Message) -> Deferred[Reached]:
        """
        Send *message* to all connections of *user*.

        :returns: a Deferred that succeeds with what was reached.
        """
        return self._order({"do": "send", "user": user, "message": _dump(message)})

    def send_to_connection(self, connection: str, message: Message) -> Deferred[Reached]:
        """Send *message* to one connection; as :meth:`send_to_user`."""
        return self._order({"do": "send", "connection": connection, "message": _dump(message)})

    def broadcast(self, message: Message) -> Deferred[Reached]:
        """Send *message* to everybody who is connected; as :meth:`send_to_user`."""
        return self._order({"do": "send", "message": _dump(message)})

    def subscribe(
        self, channels: str | Iterable[str], *, user: str | None = None, connection: str | None = None
    ) -> Deferred[Reached]:
        """
        Subscribe the connections of a user, or one connection, whatever the rules say to them.

        :param channels: a channel name, or several.
        :returns: a Deferred that succeeds with how many connections are subscribed to all of them.
        :raises RemoteProtocolError: if a name is malformed or reserved.
        :raises ValueError: unless one of *user* and *connection* is given.
        """
        return self._order({"do": "subscribe", "channels": _names(channels), **_whom(user, connection)})

    def unsubscribe(
        self, channels: str | Iterable[str], *, user: str | None = None, connection: str | None = None
    ) -> Deferred[Reached]:
        """Take back subscriptions; as :meth:`subscribe`. Counted are connections that had one of them."""
        return self._order({"do": "unsubscribe", "channels": _names(channels), **_whom(user, connection)})

    def close(
        self, *, user: str | None = None, connection: str | None = None, code: int = 1000, reason: str = ""
    ) -> Deferred[Reached]:
        """
        Close the connections of a user, or one connection.

        :param code: a WebSocket close code: 1000, 1001, 1008, 1011, 1013 or 3000 to 4999.
        :param reason: at most 123 bytes of UTF-8 are sent.
        :returns: a Deferred that succeeds with what was reached.
        :raises ValueError: if *code* is another one, or unless one of *user* and *connection* is given.
        """
        if code not in _CODES and not 3000 <= code <= 4999:
            raise ValueError(
                f"{code} is no close code that a server may send: 1000, 1008, or 3000 to 4999, for example"
            )
        return self._order({"do": "close", "code": code, "reason": reason, **_whom(user, connection)})

    def empty(self, channel: str) -> Deferred[Reached]:
        """
        Unsubscribe everybody from *channel*.

        :returns: a Deferred that succeeds with how many connections were in it.
        :raises RemoteProtocolError: if its name is malformed or reserved.
        """
        return self._order({"do": "empty", "channel": check_channel(channel)})

    # Questions

    def channels(self) -> Deferred[dict[str, int]]:
        """
        List all channels that have subscribers.

        :returns: a Deferred that succeeds with the number of subscribers by the channel's name. Nodes that do not
            answer in time are missing.
        """

        def add(answers: dict[str, Any]) -> dict[str, int]:
            total: Counter[str] = Counter()
            for answer in answers.values():
                total.update(answer or {})
            return dict(total)

        return self._ask({"do": "channels"}).addCallback(add)

    def subscribers(self, channel: str) -> Deferred[list[Found]]:
        """
        List who is subscribed to *channel*.

        :returns: a Deferred that succeeds with them, those of this node first.
        """

        def join(answers: dict[str, Any]) -> list[Found]:
            return [
                Found(connection, user, node) for node, answer in answers.items() for connection, user in answer or ()
            ]

        return self._ask({"do": "subscribers", "channel": channel}).addCallback(join)

    def channels_of(self, user: str) -> Deferred[dict[str, int]]:
        """
        List the channels to which *user* is subscribed.

        :returns: a Deferred that succeeds with how many of the user's connections are, by the channel's name.
        """

        def add(answers: dict[str, Any]) -> dict[str, int]:
            total: Counter[str] = Counter()
            for answer in answers.values():
                total.update(answer or {})
            return dict(total)

        return self._ask({"do": "channels-of", "user": user}).addCallback(add)

    # To the other nodes, and from them

    def _ask(self, order: _Order) -> Deferred[dict[str, Any]]:
        """Return the answers by the nodes' names, this one's first."""
        mine = self._obey(order)
        theirs = self._nodes.ask_all(_KIND, order)

        def merge(answers: dict[str, Any]) -> Any:
            if isinstance(mine, Deferred):
                return mine.addCallback(lambda answer: {self._nodes.name: answer, **answers})
            return {self._nodes.name: mine, **answers}

        return theirs.addCallback(merge)

    def _order(self, order: _Order) -> Deferred[Reached]:
        asked = self._nodes.others

        def add(answers: dict[str, Any]) -> Reached:
            count = sum(answer for answer in answers.values() if isinstance(answer, int))
            unanswered = [name for name in asked if not isinstance(answers.get(name), int)]
            return Reached(count, tuple(sorted(unanswered)))

        return self._ask(order).addCallback(add)

    def _ordered(self, sender: str, order: _Order) -> Any:
        return self._obey(order)

    # On this node

    def _obey(self, order: _Order) -> Any:
        """Do what is ordered to the connections of this node; return what JSON can hold, or a Deferred with it."""
        obey = getattr(self, "_do_" + order["do"].replace("-", "_"), None)
        return None if obey is None else obey(order)

    def _do_send(self, order: _Order) -> int:
        message = _load(order["message"])
        sessions = [session for session in self._whom(order) if not session.closed]
        for session in sessions:
            session.send(message)
        return len(sessions)

    def _do_subscribe(self, order: _Order) -> Deferred[int]:
        waiting: list[Deferred[None]] = []
        for session in self._whom(order):
            try:
                waiting.append(session.subscribe(order["channels"]))
            except LHTTPError as error:
                _log.warn("{peer}: not subscribed by order: {reason}", peer=session.peer, reason=error.reason)
        done = DeferredList(waiting, consumeErrors=True)
        return done.addCallback(lambda results: sum(success for success, _ in results))

    def _do_unsubscribe(self, order: _Order) -> int:
        count = 0
        for session in self._whom(order):
            count += not session.channels.isdisjoint(order["channels"])
            for channel in order["channels"]:
                session.unsubscribe(channel)
        return count

    def _do_close(self, order: _Order) -> int:
        sessions = [session for session in self._whom(order) if not session.closed]
        for session in sessions:
            session.close(order["code"], order["reason"])
        return len(sessions)

    def _do_empty(self, order: _Order) -> int:
        sessions = self._subscribed(order["channel"])
        for session in sessions:
            session.unsubscribe(order["channel"])
        return len(sessions)

    def _do_channels(self, order: _Order) -> dict[str, int]:
        return {name: count for name, count in self._engine.hub.channels.items() if not name.startswith("$")}

    def _do_subscribers(self, order: _Order) -> list[list[str | None]]:
        identities = [session.identity for session in self._subscribed(order["channel"])]
        return [[identity.connection_id, self._name_of(identity)] for identity in identities]

    def _do_channels_of(self, order: _Order) -> dict[str, int]:
        return dict(Counter(channel for session in self._whom(order) for channel in session.channels))

    def _subscribed(self, channel: str) -> list[Session]:
        return [found for found in self._engine.hub.subscribers(channel) if isinstance(found, Session)]

    # Who is who; found out when it is asked for the first time, so that it costs nothing before

    def _whom(self, order: _Order) -> list[Session]:
        if order.get("user") is None and order.get("connection") is None:
            return list(self._engine.sessions)
        if self._users is None:
            self._users = {}
            for session in self._engine.sessions:
                if not session.closed:
                    self.session_opened(session)
            self._engine.watchers.append(self)
        if order.get("user") is not None:
            return list(self._users.get(order["user"], ()))
        found = self._connections.get(order["connection"])
        return [] if found is None else [found]

    def session_opened(self, session: Session) -> None:
        """See :class:`lhttp_tx.watchers.SessionWatcher`."""
        assert self._users is not None
        identity = session.identity
        user = self._name_of(identity)
        self._names[session] = user, identity.connection_id
        self._connections[identity.connection_id] = session
        if user is not None:
            self._users.setdefault(user, {})[session] = None

    def session_identified(self, session: Session, old: Identity | None, new: Identity) -> None:
        """See :class:`lhttp_tx.watchers.SessionWatcher`."""
        if session in self._names:
            self.session_closed(session)
            self.session_opened(session)

    def session_closed(self, session: Session) -> None:
        """See :class:`lhttp_tx.watchers.SessionWatcher`."""
        user, connection = self._names.pop(session, (None, ""))
        self._connections.pop(connection, None)
        if user is not None and self._users is not None:
            found = self._users[user]
            del found[session]
            if not found:
                del self._users[user]


def _whom(user: str | None, connection: str | None) -> dict[str, str]:
    if (user is None) is (connection is None):
        raise ValueError("say whom: a user, or a connection")
    return {"user": user} if user is not None else {"connection": connection or ""}


def _names(channels: str | Iterable[str]) -> list[str]:
    return [check_channel(name) for name in ([channels] if isinstance(channels, str) else channels)]


def _dump(message: Message) -> list[Any]:
    return [base64.b64encode(message.raw).decode("ascii"), message.binary]


def _load(told: list[Any]) -> Message:
    return parse(base64.b64decode(told[0]), binary=bool(told[1]), limits=UNLIMITED)
