"""
Control over the connections of a cluster from code: send, subscribe, mute, close, and list.

Each node carries out an order on its own connections (:mod:`lhttp_tx.cluster.orders`), and answers with their number.
The outcome lists the nodes that did not answer in time.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred

from lhttp_tx.cluster.nodes import Nodes
from lhttp_tx.cluster.orders import Order, Orders, fitting
from lhttp_tx.cluster.pieces import MAX_ANSWER
from lhttp_tx.codec.channels import check_subscription, own_channels
from lhttp_tx.codec.codes import check_close_code
from lhttp_tx.codec.message import Message
from lhttp_tx.engine.awaiting import awaitable
from lhttp_tx.engine.engine import Engine
from lhttp_tx.errors import LocalProtocolError, RemoteProtocolError
from lhttp_tx.identity import Identity
from lhttp_tx.observe.schemas import MAX_MUTE, MUTE_SECONDS

__all__ = ["Channels", "Control", "Found", "Reached", "Subscribers"]

_KIND = "control"

_LONGEST_NAME = 255
"""The most characters of the name of a user who can be muted. The nodes remember the name."""


@dataclass(frozen=True, slots=True)
class Reached:
    """
    The outcome of an order.

    :ivar count: the number of connections that the order has reached.
    :ivar unanswered: the names of nodes that did not answer in time, or no longer send heartbeats. They may or may not
        have carried out the order.
    :ivar nodes: the names of the nodes that answered, including this node.
    :ivar complete: whether all nodes answered, as far as this node knows. It is false if some are unanswered, and while
        this node is not connected to the others.
    """

    count: int
    unanswered: tuple[str, ...] = ()
    nodes: tuple[str, ...] = field(default=(), compare=False)
    complete: bool = field(default=True, compare=False)


@dataclass(frozen=True, slots=True)
class Found:
    """
    One connection in the result of :meth:`Control.subscribers`.

    :ivar connection: the id of the connection.
    :ivar user: the name of the user; ``None`` if the client is anonymous.
    :ivar node: the name of the node.
    """

    connection: str
    user: str | None
    node: str


class Channels(dict[str, int]):
    """
    Channels, and the number of subscribers of each.

    :ivar unanswered: see :class:`Reached`. Subscribers on these nodes are not counted.
    :ivar nodes: see :class:`Reached`.
    :ivar complete: see :class:`Reached`. It is also false if the channels of a node did not all fit into its answer.
    """

    unanswered: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    complete: bool = True


class Subscribers(list[Found]):
    """
    A list of connections, each a :class:`Found`.

    :ivar unanswered: see :class:`Channels`.
    :ivar nodes: see :class:`Channels`.
    :ivar complete: see :class:`Channels`.
    """

    unanswered: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    complete: bool = True


class Control:
    """
    Control over the connections of a server and of its cluster.

    ``user`` is the name of an authenticated user, or the value of the query parameter of ``--login-parameter``.
    ``connection`` is an id, as in ``session.identity.connection_id``. The Deferreds of these methods never fail. If a
    name or a message has a wrong type, the methods raise :exc:`TypeError`.

    :ivar name_of: returns the name of a client's user; ``None`` if the client is anonymous.
    :ivar muting: mutes clients, and knows who is muted.
    :ivar questions: the functions that answer questions of :meth:`survey` on this node, by the name of the question.
    """

    def __init__(self, engine: Engine, nodes: Nodes, *, name_of: Callable[[Identity], str | None]) -> None:
        """
        :param engine: the engine of this node.
        :param nodes: the other nodes.
        :param name_of: returns the name of a client's user.
        """
        self.name_of = name_of
        self._nodes = nodes
        self._orders = Orders(engine, nodes, name_of)
        self.muting = self._orders.muting
        self.questions = self._orders.questions
        nodes.handle(_KIND, self._ordered)

    def stop(self) -> None:
        """Stop all timers."""
        self.muting.stop()

    def expect_others(self) -> None:
        """Prepare for orders from other nodes, which may arrive late: remember which connections are new."""
        self._orders.expect()

    # Orders

    def send_to_user(self, user: str, message: Message) -> Deferred[Reached]:
        """
        Send *message* to all connections of *user*.

        :returns: a Deferred that succeeds with a :class:`Reached`. Another node does not carry out an order that is
            older than 10 seconds when it arrives. If the order is older than 2 seconds, it applies only to connections
            that were there when it was given.
        """
        return self._order({"do": "send", "user": _name(user), "message": _dump(message)})

    def send_to_connection(self, connection: str, message: Message) -> Deferred[Reached]:
        """Send *message* to one connection, like :meth:`send_to_user`."""
        return self._order({"do": "send", "connection": _name(connection), "message": _dump(message)})

    def broadcast(self, message: Message) -> Deferred[Reached]:
        """Send *message* to all connections, like :meth:`send_to_user`."""
        return self._order({"do": "send", "message": _dump(message)})

    def subscribe(
        self, channels: str | Iterable[str], *, user: str | None = None, connection: str | None = None
    ) -> Deferred[Reached]:
        """
        Subscribe the connections of a user, or one connection. The channel rules do not apply.

        :param channels: a channel name, or several.
        :returns: a Deferred that succeeds with the number of connections that are subscribed to all of them.
        :raises LocalProtocolError: if a name is malformed or reserved.
        :raises ValueError: unless exactly one of *user* and *connection* is given.
        """
        return self._order({"do": "subscribe", "channels": own_channels(channels), **_whom(user, connection)})

    def unsubscribe(
        self, channels: str | Iterable[str], *, user: str | None = None, connection: str | None = None
    ) -> Deferred[Reached]:
        """
        Unsubscribe connections, with the parameters and errors of :meth:`subscribe`. The outcome counts connections
        that had at least one of the subscriptions.
        """
        return self._order({"do": "unsubscribe", "channels": own_channels(channels), **_whom(user, connection)})

    def close(
        self, *, user: str | None = None, connection: str | None = None, code: int = 1000, reason: str = ""
    ) -> Deferred[Reached]:
        """
        Close the connections of a user, or one connection.

        :param code: a WebSocket close code: 1000, 1001, 1008, 1011, 1013 or 3000 to 4999.
        :param reason: text for people. At most 123 bytes of its UTF-8 are sent.
        :returns: a Deferred that succeeds with a :class:`Reached`.
        :raises ValueError: if *code* is any other number, or unless exactly one of *user* and *connection* is given.
        """
        check_close_code(code, reason)
        return self._order({"do": "close", "code": code, "reason": reason, **_whom(user, connection)})

    def mute(
        self, *, user: str | None = None, connection: str | None = None, seconds: int = MUTE_SECONDS, by: str = "code"
    ) -> Deferred[Reached]:
        """
        Refuse the publications of a user on all present and later connections, or those of one connection, for a while.

        A muted client stays connected. Its messages with ``publish`` get error 403, and nothing else happens to them.
        All its other messages are handled as before. Another mute replaces the earlier one.

        :param seconds: 1 to 604,800, which are seven days.
        :param by: who wants this, for the log.
        :returns: a Deferred that succeeds with a :class:`Reached`. A user is muted even if it counts no connection.
        :raises ValueError: if *seconds* is out of these bounds, if *user* has more than 255 characters, or unless
            exactly one of *user* and *connection* is given.
        :raises TooMany: if 10,000 users are muted.
        """
        whom = _whom(user, connection)
        if isinstance(seconds, bool) or not isinstance(seconds, int):
            raise TypeError(f"seconds is an int, not {seconds!r:.80}")
        if not 1 <= seconds <= MAX_MUTE:
            raise ValueError(f"seconds is 1 to {MAX_MUTE}, not {seconds}")
        if len(user or "") > _LONGEST_NAME:
            raise ValueError(f"the name of a user has at most {_LONGEST_NAME} characters")
        return self._order({"do": "mute", "seconds": seconds, **self._stamped(by), **whom})

    def unmute(self, *, user: str | None = None, connection: str | None = None, by: str = "code") -> Deferred[Reached]:
        """
        Lift the mutes of a user and of the user's connections, or that of one connection.

        :param by: who wants this, for the log.
        :returns: a Deferred that succeeds with a :class:`Reached`, which counts the connections that may publish again.
        :raises ValueError: unless exactly one of *user* and *connection* is given.
        """
        return self._order({"do": "unmute", **self._stamped(by), **_whom(user, connection)})

    def _stamped(self, by: str) -> Order:
        return {"stamp": self._nodes.clocks.shared(), "by": by}

    def unsubscribe_all(self, channel: str) -> Deferred[Reached]:
        """
        Unsubscribe all connections from *channel*.

        :returns: a Deferred that succeeds with a :class:`Reached`, which counts the connections that were subscribed.
        :raises LocalProtocolError: if the name is malformed or reserved.
        """
        return self._order({"do": "unsubscribe-all", "channel": own_channels(channel)[0]})

    # Questions

    def channels(self) -> Deferred[Channels]:
        """
        List all channels that have subscribers.

        :returns: a Deferred that succeeds with :class:`Channels`. The answer of each other node has at most 16 MiB.
        """
        return awaitable(self._ask({"do": "channels"}).addCallback(self._total))

    def subscribers(self, channel: str) -> Deferred[Subscribers]:
        """
        List the connections subscribed to *channel*.

        :param channel: the name of a channel, or a wildcard subscription.
        :returns: a Deferred that succeeds with :class:`Subscribers`, with those of this node first. The answer of each
            other node has at most 16 MiB.
        :raises LocalProtocolError: if the name is malformed or reserved.
        """
        try:
            check_subscription(_name(channel))
        except RemoteProtocolError as error:
            raise LocalProtocolError(error.reason) from error

        def join(answers: _Answers) -> Subscribers:
            found = Subscribers(
                Found(connection, user, node) for node, answer in answers.by_node.items() for connection, user in answer
            )
            found.nodes, found.unanswered, found.complete = answers.nodes, answers.unanswered, answers.complete
            return found

        return awaitable(self._ask({"do": "subscribers", "channel": channel}).addCallback(join))

    def channels_of(self, user: str) -> Deferred[Channels]:
        """
        List the channels that *user* is subscribed to.

        :returns: a Deferred that succeeds with :class:`Channels`. They count only the user's connections.
        """
        return awaitable(self._ask({"do": "channels-of", "user": _name(user)}).addCallback(self._total))

    def survey(self, do: str, **details: Any) -> Deferred[tuple[dict[str, Any], tuple[str, ...]]]:
        """
        Ask all nodes. The admin side uses this.

        :param do: the name of the question; see :class:`lhttp_tx.cluster.orders.Orders`.
        :param details: the other keys of the order. The values are JSON values.
        :returns: a Deferred that succeeds with the answers by the nodes' names, and the names of nodes that did not
            answer in time, or do not know the question.
        """
        asking = self._ask({"do": do, **details})
        return awaitable(asking.addCallback(lambda answers: (dict(answers.by_node), tuple(answers.unanswered))))

    def add_answer(self, do: str, answer: Callable[[Order], Any]) -> None:
        """
        Set the function that answers a question of :meth:`survey`, from this node and from others.

        :param do: the name of the question.
        :param answer: called with the order; returns a JSON value, or ``None`` if this node has no answer.
        """
        self._orders.questions[do] = answer

    # Messages to and from the other nodes

    def _ask(self, order: Order) -> Deferred[_Answers]:
        mine = self._orders.obey(order)
        before = self._nodes.others | self._nodes.missing
        theirs = self._nodes.ask_all(_KIND, {**order, "at": self._nodes.clocks.here_now(), "pieces": True})

        def merge(answers: dict[str, Any]) -> Any:
            if isinstance(mine, Deferred):
                return mine.addCallback(gather, answers)
            return gather(mine, answers)

        def gather(answer: Any, answers: dict[str, Any]) -> _Answers:
            found = {self._nodes.name: answer, **answers}
            asked = before | self._nodes.others | self._nodes.missing
            return _Answers(found, asked, type(answer), self._nodes.complete)

        return theirs.addCallback(merge)

    def _order(self, order: Order) -> Deferred[Reached]:
        def add(answers: _Answers) -> Reached:
            count = sum(answers.by_node.values())
            return Reached(count, answers.unanswered, answers.nodes, answers.complete)

        return awaitable(self._ask(order).addCallback(add))

    def _total(self, answers: _Answers) -> Channels:
        total: Counter[str] = Counter()
        for answer in answers.by_node.values():
            total.update(answer)
        found = Channels(total)
        found.nodes, found.unanswered, found.complete = answers.nodes, answers.unanswered, answers.complete
        return found

    def _ordered(self, sender: str, order: Order) -> Any:
        given = order.get("at")
        if not isinstance(given, int | float):  # a node of an earlier version, which does not send the time
            return self._answer(order, self._orders.obey(order))
        if self._nodes.clocks.knows(sender):
            return self._obey(None, sender, order)
        return self._nodes.clocks.when_known(sender).addCallback(self._obey, sender, order)

    def _obey(self, _: None, sender: str, order: Order) -> Any:
        if not self._nodes.clocks.knows(sender):
            return None
        return self._answer(order, self._orders.obey_late(order, self._nodes.clocks.here(sender, float(order["at"]))))

    def _answer(self, order: Order, answer: Any) -> Any:
        """Return a pair: whether the answer is complete, and as much of it as fits."""
        if isinstance(answer, Deferred):
            return answer.addCallback(lambda found: self._answer(order, found))
        if not order.get("pieces"):  # a node of an earlier version asks
            return fitting(answer, order["do"])
        kept = fitting(answer, order["do"], MAX_ANSWER)
        return [kept is answer, kept]


class _Answers:
    """
    The answers to an order.

    :ivar by_node: the answers by the nodes' names. That of this node comes first.
    :ivar nodes: see :class:`Reached`.
    :ivar unanswered: see :class:`Reached`.
    :ivar complete: see :class:`Reached`.
    """

    def __init__(self, answers: dict[str, Any], asked: frozenset[str], kind: type, complete: bool) -> None:
        """
        :param answers: the answers by the nodes' names. One of another type does not count.
        :param asked: the names of the nodes that should have answered.
        :param kind: the type of a valid answer.
        :param complete: whether this node hears all other nodes.
        """
        self.by_node: dict[str, Any] = {}
        for name, answer in answers.items():
            told = answer
            if isinstance(answer, list) and len(answer) == 2 and isinstance(answer[0], bool):
                complete, told = complete and answer[0], answer[1]
            if isinstance(told, kind):
                self.by_node[name] = told
        self.nodes = tuple(sorted(self.by_node))
        self.unanswered = tuple(sorted(asked - self.by_node.keys()))
        self.complete = complete and not self.unanswered


def _whom(user: str | None, connection: str | None) -> dict[str, str]:
    if (user is None) is (connection is None):
        raise ValueError("name a user or a connection")
    return {"user": _name(user)} if user is not None else {"connection": _name(connection)}


def _name(name: str | None) -> str:
    if not isinstance(name, str):
        raise TypeError(f"the name of a user, a connection or a channel is a str, not {name!r:.80}")
    return name


def _dump(message: Message) -> list[Any]:
    if not isinstance(message, Message):
        raise TypeError(f"a message is a lhttp_tx.Message, not {message!r:.80}")
    return [base64.b64encode(message.raw).decode("ascii"), message.binary]
