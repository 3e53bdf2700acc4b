"""
Control over the connections of a cluster from code: send, subscribe, close, and list.

Each node carries out an order on its own connections (:mod:`lhttp_tx.cluster.orders`), and answers how many it has
reached. The outcome names the nodes that did not answer in time.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred

from lhttp_tx.cluster.nodes import Nodes
from lhttp_tx.cluster.orders import Order, Orders, fitting
from lhttp_tx.codec.channels import check_subscription, own_channels
from lhttp_tx.codec.codes import check_close_code
from lhttp_tx.codec.message import Message
from lhttp_tx.engine.awaiting import awaitable
from lhttp_tx.engine.engine import Engine
from lhttp_tx.errors import LocalProtocolError, RemoteProtocolError
from lhttp_tx.identity import Identity

__all__ = ["Control", "Found", "Reached"]

_KIND = "control"


@dataclass(frozen=True, slots=True)
class Reached:
    """
    The outcome of an order.

    :ivar count: the number of connections that it has reached.
    :ivar unanswered: the names of nodes that did not answer in time. They may or may not have carried out the order.
    """

    count: int
    unanswered: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """
    One connection, as :meth:`Control.subscribers` finds it.

    :ivar connection: its id.
    :ivar user: the name of its user, or ``None``.
    :ivar node: the name of its node.
    """

    connection: str
    user: str | None
    node: str


class Control:
    """
    Control over the connections of a server and of its cluster.

    ``user`` is the name of an authenticated user, or the value of the query parameter of ``--login-parameter``.
    ``connection`` is an id, as in ``session.identity.connection_id``. The Deferreds of these methods never fail. A name
    or message of a wrong type raises :exc:`TypeError` at once.
    """

    def __init__(self, engine: Engine, nodes: Nodes, *, name_of: Callable[[Identity], str | None]) -> None:
        """
        :param engine: the server.
        :param nodes: the other nodes.
        :param name_of: returns the name of a client's user.
        """
        self._nodes = nodes
        self._orders = Orders(engine, name_of)
        nodes.handle(_KIND, self._ordered)

    # Orders

    def send_to_user(self, user: str, message: Message) -> Deferred[Reached]:
        """
        Send *message* to all connections of *user*.

        :returns: a Deferred that succeeds with a :class:`Reached`.
        """
        return self._order({"do": "send", "user": _name(user), "message": _dump(message)})

    def send_to_connection(self, connection: str, message: Message) -> Deferred[Reached]:
        """Send *message* to one connection; like :meth:`send_to_user`."""
        return self._order({"do": "send", "connection": _name(connection), "message": _dump(message)})

    def broadcast(self, message: Message) -> Deferred[Reached]:
        """Send *message* to all connections; like :meth:`send_to_user`."""
        return self._order({"do": "send", "message": _dump(message)})

    def subscribe(
        self, channels: str | Iterable[str], *, user: str | None = None, connection: str | None = None
    ) -> Deferred[Reached]:
        """
        Subscribe the connections of a user, or one connection, without applying the channel rules.

        :param channels: a channel name, or several.
        :returns: a Deferred that succeeds with the number of connections that are subscribed to all of them.
        :raises LocalProtocolError: if a name is malformed or reserved.
        :raises ValueError: unless one of *user* and *connection* is given.
        """
        return self._order({"do": "subscribe", "channels": own_channels(channels), **_whom(user, connection)})

    def unsubscribe(
        self, channels: str | Iterable[str], *, user: str | None = None, connection: str | None = None
    ) -> Deferred[Reached]:
        """
        Take back subscriptions; like :meth:`subscribe`. The outcome counts connections that had at least one of them.
        """
        return self._order({"do": "unsubscribe", "channels": own_channels(channels), **_whom(user, connection)})

    def close(
        self, *, user: str | None = None, connection: str | None = None, code: int = 1000, reason: str = ""
    ) -> Deferred[Reached]:
        """
        Close the connections of a user, or one connection.

        :param code: a WebSocket close code: 1000, 1001, 1008, 1011, 1013 or 3000 to 4999.
        :param reason: at most 123 bytes of UTF-8 are sent.
        :returns: a Deferred that succeeds with a :class:`Reached`.
        :raises ValueError: if *code* is any other number, or unless one of *user* and *connection* is given.
        """
        check_close_code(code, reason)
        return self._order({"do": "close", "code": code, "reason": reason, **_whom(user, connection)})

    def unsubscribe_all(self, channel: str) -> Deferred[Reached]:
        """
        Unsubscribe everybody from *channel*.

        :returns: a Deferred that succeeds with the number of connections that were in it.
        :raises LocalProtocolError: if its name is malformed or reserved.
        """
        return self._order({"do": "unsubscribe-all", "channel": own_channels(channel)[0]})

    # Questions

    def channels(self) -> Deferred[dict[str, int]]:
        """
        List all channels that have subscribers.

        :returns: a Deferred that succeeds with the numbers of subscribers by the channels' names. Nodes that do not
            answer in time are missing. Each other node names as many channels as fit into 768 KiB.
        """
        return awaitable(self._ask({"do": "channels"}).addCallback(_total))

    def subscribers(self, channel: str) -> Deferred[list[Found]]:
        """
        List the connections subscribed to *channel*.

        :param channel: the name of a channel, or a wildcard subscription.
        :returns: a Deferred that succeeds with a list, with those of this node first. Each other node names as many as
            fit into 768 KiB.
        :raises LocalProtocolError: if the name is malformed or reserved.
        """
        try:
            check_subscription(_name(channel))
        except RemoteProtocolError as error:
            raise LocalProtocolError(error.reason) from error

        def join(answers: dict[str, Any]) -> list[Found]:
            return [
                Found(connection, user, node) for node, answer in answers.items() for connection, user in answer or ()
            ]

        return awaitable(self._ask({"do": "subscribers", "channel": channel}).addCallback(join))

    def channels_of(self, user: str) -> Deferred[dict[str, int]]:
        """
        List the channels that *user* is subscribed to.

        :returns: a Deferred that succeeds with the number of the user's subscribed connections, by the channel's name.
        """
        return awaitable(self._ask({"do": "channels-of", "user": _name(user)}).addCallback(_total))

    # Messages to and from the other nodes

    def _ask(self, order: Order) -> Deferred[dict[str, Any]]:
        """Return the answers by the nodes' names, with this node's first."""
        mine = self._orders.obey(order)
        theirs = self._nodes.ask_all(_KIND, order)

        def merge(answers: dict[str, Any]) -> Any:
            if isinstance(mine, Deferred):
                return mine.addCallback(lambda answer: {self._nodes.name: answer, **answers})
            return {self._nodes.name: mine, **answers}

        return theirs.addCallback(merge)

    def _order(self, order: Order) -> Deferred[Reached]:
        asked = self._nodes.others

        def add(answers: dict[str, Any]) -> Reached:
            count = sum(answer for answer in answers.values() if isinstance(answer, int))
            unanswered = [name for name in asked if not isinstance(answers.get(name), int)]
            return Reached(count, tuple(sorted(unanswered)))

        return awaitable(self._ask(order).addCallback(add))

    def _ordered(self, sender: str, order: Order) -> Any:
        return fitting(self._orders.obey(order), order["do"])


def _total(answers: dict[str, Any]) -> dict[str, int]:
    """Return the sums of the nodes' counts."""
    total: Counter[str] = Counter()
    for answer in answers.values():
        total.update(answer or {})
    return dict(total)


def _whom(user: str | None, connection: str | None) -> dict[str, str]:
    if (user is None) is (connection is None):
        raise ValueError("say whom: a user, or a connection")
    return {"user": _name(user)} if user is not None else {"connection": _name(connection)}


def _name(name: str | None) -> str:
    if not isinstance(name, str):
        raise TypeError(f"the name of a user, a connection or a channel is a str, not {name!r:.80}")
    return name


def _dump(message: Message) -> list[Any]:
    if not isinstance(message, Message):
        raise TypeError(f"a message is a lhttp_tx.Message, not {message!r:.80}")
    return [base64.b64encode(message.raw).decode("ascii"), message.binary]
