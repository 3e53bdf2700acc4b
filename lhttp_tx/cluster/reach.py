"""
Finds out whether publications of the other nodes reach this node.

NATS keeps the order of one connection, including subscriptions. Suppose that this node sends a subscription and then a
question, and another node answers the question. Then the NATS server of the other node knows the subscription, and this
node gets everything that the other node publishes from then on. In the same way, a node that answers a question after a
publication has the publication. :func:`connect` connects this with :class:`lhttp_tx.bus.nats.bus.NATSBus`. Source: the
protocol document, section "Errors and receipts".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeAlias

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from lhttp_tx.cluster.nodes import Nodes

__all__ = ["Reach", "Ways", "connect"]

_QUESTION, _ANSWER, _SERVER, _LOSSES = "reach", "reached", "server", "losses"

_ANSWER_TIME = 4.0
"""The most seconds to wait for answers of other nodes. This is less than subscriptions may wait for NATS."""

_REPEAT_INTERVAL = 0.5
"""Seconds until a question is repeated for nodes that have not answered."""

_TOGETHER = 0.005
"""Seconds within which callers share one question."""

_ROLL_INTERVAL = 0.1
"""Seconds until a question is repeated for nodes that are not back yet."""

_RETURN_TIME = 4.0
"""
The most seconds to wait until other nodes are back after NATS is. This covers the longest wait between their attempts,
an attempt that hangs, and a short pause of a machine.
"""

_CALM_RETURN_TIME = 1.0
"""The same if some nodes were never disconnected."""

_MAX_NAMES = 10_000
"""The most nodes that an answer lists."""

_Send: TypeAlias = Callable[[str, bytes, bool], object]
"""Publishes over one link: takes a channel, a payload, and whether it is binary."""


class Ways(Protocol):
    """
    Sends a bus's questions to other nodes; see :class:`lhttp_tx.bus.nats.ways.Ways`.

    :ivar others: the object that the bus asks, a :class:`Reach`.
    """

    others: Any

    @property
    def server(self) -> str:
        """The id of the NATS server that the bus is connected to; empty if it is not connected."""

    @property
    def steady_for(self) -> float:
        """Seconds since the bus accepts publications; 0 if it does not."""

    @property
    def losses(self) -> int:
        """The number of links that were lost while publications went over them."""

    def urge(self, channel: str, payload: bytes, binary: bool) -> None:
        """Publish at once, even while publications are held back."""


class _Question:
    """
    A question to some nodes.

    :ivar missing: the nodes that have not answered.
    :ivar servers: the servers of the nodes that have.
    :ivar done: succeeds with whether all have answered, or at least one node at each of their servers.
    """

    def __init__(self, missing: set[str]) -> None:
        self.missing = missing
        self.servers: set[str] = set()
        self.done: Deferred[bool] = Deferred()
        self.limit: IDelayedCall | None = None
        self.repeating: IDelayedCall | None = None


class _Roll:
    """
    The wait for all nodes after this one has connected; see :meth:`Reach.gathered`.

    :ivar known: the nodes that this one knew before.
    :ivar told: the nodes that others have listed.
    :ivar heard: the nodes that have answered.
    :ivar calm: whether a node has answered that was never disconnected.
    :ivar patience: the most seconds to wait for a first answer.
    """

    def __init__(self, known: set[str], patience: float) -> None:
        self.known = known
        self.told: set[str] = set()
        self.heard: set[str] = set()
        self.calm = False
        self.patience = patience
        self.begun = 0.0
        self.done: Deferred[None] = Deferred()

    def is_over(self, elapsed: float) -> bool:
        """
        Return whether all nodes are back, or the time is up.

        :param elapsed: the seconds since the beginning.
        """
        if self.calm:
            return self.known <= self.heard or elapsed >= _CALM_RETURN_TIME
        if not self.known | self.told <= self.heard:
            return elapsed >= _RETURN_TIME
        return bool(self.heard) or elapsed >= self.patience


class Reach:
    """Asks the other nodes, and answers their questions."""

    def __init__(self, nodes: Nodes, ways: Ways, clock: IReactorTime) -> None:
        """
        :param nodes: the nodes.
        :param ways: sends over the links of the bus.
        :param clock: the reactor.
        """
        self._nodes = nodes
        self._ways = ways
        self._clock = clock
        self._servers: dict[str, str] = {}
        self._questions: dict[int, _Question] = {}
        self._number = 0
        self._roll: _Roll | None = None
        self._waiting: tuple[_Send, str, list[Deferred[bool]]] | None = None
        nodes.greet(_SERVER, lambda: ways.server, self._hear)
        nodes.greet(_LOSSES, lambda: ways.losses, nodes.hear_losses)
        nodes.handle(_QUESTION, self._asked)
        nodes.handle(_ANSWER, self._answered)
        nodes.on_leave.append(self._left)

    def _hear(self, name: str, server: Any) -> None:
        self._servers[name] = str(server)

    def _left(self, name: str) -> None:
        self._servers.pop(name, None)
        for question in tuple(self._questions.values()):
            question.missing.discard(name)
            self._look_at(question)

    # For the bus

    def far_from(self, server: str) -> set[str]:
        """Return the nodes that do not use *server*, as far as this node knows."""
        return {name for name in self._nodes.others if self._servers.get(name) != server}

    def _answering(self, names: Iterable[str]) -> set[str]:
        """
        Return those of *names* that answer questions. Nodes of older versions do not, and do not send their server.
        """
        return {name for name in names if name in self._servers}

    def ask(self, send: _Send, server: str | None = None) -> Deferred[bool]:
        """
        Find out when all nodes have everything that this one has sent over a link, and their servers know its
        subscriptions.

        :param send: publishes over this link.
        :param server: if given, only nodes that do not use this server are asked.
        :returns: a Deferred that succeeds with ``True``; or with ``False`` if this cannot be known, after four seconds
            at the latest.
        """
        names = self._nodes.others if server is None else self.far_from(server)
        missing = self._answering(names)
        if not missing:
            return succeed(not names)
        self._number += 1
        number, question, all_answer = self._number, _Question(missing), len(missing) == len(names)
        self._questions[number] = question
        question.limit = self._clock.callLater(_ANSWER_TIME, self._too_late, question)
        question.done.addBoth(self._forget, number)
        self._repeat(question, number, send)
        return question.done.addCallback(lambda sure: sure and all_answer)

    def _repeat(self, question: _Question, number: int, send: _Send) -> None:
        """
        Send the question, and repeat it. A node may have got the question, or its answer may have been sent, before the
        servers knew the subscriptions.
        """
        if not question.done.called:
            self._nodes.tell_all(_QUESTION, {"number": number, _SERVER: self._ways.server}, send)
            question.repeating = self._clock.callLater(_REPEAT_INTERVAL, self._repeat, question, number, send)

    def ask_soon(self, send: _Send, server: str) -> Deferred[bool]:
        """Like :meth:`ask`, but callers that ask over the same link within a few milliseconds share a question."""
        if self._waiting is not None and self._waiting[0] != send:
            self._ask_together()
        if self._waiting is None:
            self._waiting = (send, server, [])
            self._clock.callLater(_TOGETHER, self._ask_together, self._waiting)
        waiter: Deferred[bool] = Deferred()
        self._waiting[2].append(waiter)
        return waiter

    def _ask_together(self, waiting: object = None) -> None:
        if self._waiting is None or (waiting is not None and waiting is not self._waiting):
            return
        send, server, waiters = self._waiting
        self._waiting = None

        def tell(sure: bool) -> None:
            for waiter in waiters:
                waiter.callback(sure)

        self.ask(send, server).addCallback(tell)

    def gathered(self, send: _Send, patience: float) -> Deferred[None]:
        """
        Wait until all nodes are back that were there before NATS was unavailable. Then they have subscribed again.

        This node waits for the nodes that it knew before, and for those that other nodes knew.

        :param send: publishes over the new link.
        :param patience: the most seconds to wait if no node is known, and none answers.
        :returns: a Deferred that succeeds after a few seconds at the latest.
        """
        roll = self._roll = _Roll(self._answering(self._nodes.others), patience)
        roll.begun = self._clock.seconds()
        self._call(roll, send)
        return roll.done

    def _call(self, roll: _Roll, send: _Send) -> None:
        if roll is not self._roll:
            return
        if roll.is_over(self._clock.seconds() - roll.begun):
            self._roll = None
            roll.done.callback(None)
            return
        if self._nodes.listens:
            self._nodes.tell_all(_QUESTION, {"number": 0, _SERVER: self._ways.server}, send)
        self._clock.callLater(_ROLL_INTERVAL, self._call, roll, send)

    # Questions and answers

    def _asked(self, name: str, question: Any) -> None:
        """Answer at once. So two nodes that hold publications back do not wait for each other."""
        number = question["number"]
        self._servers[name] = str(question[_SERVER])
        answer: dict[str, Any] = {"to": number, _SERVER: self._ways.server}
        if number == 0:
            calm = self._ways.steady_for >= _RETURN_TIME
            answer |= {"calm": calm, "knows": [] if calm else sorted(self._nodes.others)[:_MAX_NAMES]}
        self._nodes.tell(name, _ANSWER, answer, self._ways.urge)

    def _answered(self, name: str, answer: Any) -> None:
        server = self._servers[name] = str(answer[_SERVER])
        roll = self._roll
        if answer["to"] == 0 and roll is not None:
            roll.heard.add(name)
            roll.calm = roll.calm or bool(answer["calm"])
            self._expect(roll, answer["knows"])
            return
        question = self._questions.get(answer["to"])
        if question is not None:
            question.missing.discard(name)
            question.servers.add(server)
            self._look_at(question)

    def _expect(self, roll: _Roll, names: Iterable[Any]) -> None:
        roll.told.update(str(name) for name in names if name != self._nodes.name)

    def _look_at(self, question: _Question) -> None:
        if not question.missing:
            self._conclude(question, True)

    def _too_late(self, question: _Question) -> None:
        servers = {self._servers.get(name) for name in question.missing}
        self._conclude(question, servers <= question.servers)

    def _conclude(self, question: _Question, sure: bool) -> None:
        for timer in (question.limit, question.repeating):
            if timer is not None and timer.active():
                timer.cancel()
        if not question.done.called:
            question.done.callback(sure)

    def _forget(self, result: bool, number: int) -> bool:
        del self._questions[number]
        return result


def connect(nodes: Nodes, bus: Any, clock: IReactorTime) -> None:
    """Let *bus* ask the other nodes, if it has an attribute ``ways``."""
    ways: Ways | None = getattr(bus, "ways", None)
    if ways is not None:
        ways.others = Reach(nodes, ways, clock)
