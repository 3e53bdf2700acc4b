"""
Finds out whether the other nodes are connected, and whether their publications reach this node.

NATS keeps the order of one connection, including subscriptions. Suppose that this node sends a subscription and then a
request, and another node answers the request. Then the NATS server of the other node knows the subscription, and this
node gets everything that the other node publishes from then on. In the same way, a node that answers a request after a
publication has the publication. :func:`connect` connects it with :class:`lhttp_tx.bus.nats.bus.NATSBus`. Source: the
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
"""Seconds in which the other nodes must answer; less than subscriptions may wait for NATS."""

_REPEAT_INTERVAL = 0.5
"""Seconds between two questions to nodes that have not answered."""

_TOGETHER = 0.005
"""Seconds in which those who ask the same are gathered."""

_ROLL_INTERVAL = 0.1
"""Seconds between two questions to nodes that are not back yet."""

_RETURN_TIME = 4.0
"""
Seconds that nodes may take to come back after NATS does. It is longer than the longest wait between their attempts, an
attempt that hangs, and a moment in which a machine stands still.
"""

_CALM_RETURN_TIME = 1.0
"""The same where nodes are there that were never away."""

_MAX_NAMES = 10_000
"""How many nodes that others tell of are waited for."""

_Send: TypeAlias = Callable[[str, bytes, bool], object]
"""Publishes to a channel over a certain link."""


class Ways(Protocol):
    """
    The ways of a bus to the other nodes; see :class:`lhttp_tx.bus.nats.ways.Ways`.

    :ivar others: what the bus asks.
    """

    others: Any

    @property
    def server(self) -> str:
        """What names the server that the bus is connected to."""

    @property
    def steady_for(self) -> float:
        """Seconds for which the bus has taken publications."""

    @property
    def losses(self) -> int:
        """How many links were lost while publications went over them."""

    def urge(self, channel: str, payload: bytes, binary: bool) -> None:
        """Publish at once, even while publications wait."""


class _Question:
    """A question to some nodes. ``done`` gets whether they have answered, or others at the same servers."""

    def __init__(self, missing: set[str]) -> None:
        self.missing = missing
        self.servers: set[str] = set()
        self.done: Deferred[bool] = Deferred()
        self.limit: IDelayedCall | None = None
        self.repeating: IDelayedCall | None = None


class _Roll:
    """A call to all nodes after this one has connected; see :meth:`Reach.gathered`."""

    def __init__(self, known: set[str], patience: float) -> None:
        self.known = known
        self.told: set[str] = set()
        self.heard: set[str] = set()
        self.calm = False
        self.patience = patience
        self.begun = 0.0
        self.done: Deferred[None] = Deferred()

    def is_over(self, elapsed: float) -> bool:
        """Return whether all are there, or have been waited for."""
        if self.calm:
            return self.known <= self.heard or elapsed >= _CALM_RETURN_TIME
        if not self.known | self.told <= self.heard:
            return elapsed >= _RETURN_TIME
        return bool(self.heard) or elapsed >= self.patience


class Reach:
    """The state of the paths from the other nodes to this one, and the requests to these nodes."""

    def __init__(self, nodes: Nodes, ways: Ways, clock: IReactorTime) -> None:
        """
        :param nodes: the nodes.
        :param ways: the ways of the bus.
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
        """Return the nodes that do not use *server*, as far as is known."""
        return {name for name in self._nodes.others if self._servers.get(name) != server}

    def _answering(self, names: Iterable[str]) -> set[str]:
        """Return those of *names* that answer: older versions do not, and do not say which server they use."""
        return {name for name in names if name in self._servers}

    def ask(self, send: _Send, server: str | None = None) -> Deferred[bool]:
        """
        Find out when all nodes have what this one has sent over a link, and their servers its subscriptions.

        :param send: publishes over this link.
        :param server: if given, only those are asked that do not use it.
        :returns: a Deferred that succeeds: with false if it cannot be known, after four seconds.
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
        """Ask again and again: a node may have answered before its server knew the way, or heard it too early."""
        if not question.done.called:
            self._nodes.tell_all(_QUESTION, {"number": number, _SERVER: self._ways.server}, send)
            question.repeating = self._clock.callLater(_REPEAT_INTERVAL, self._repeat, question, number, send)

    def ask_soon(self, send: _Send, server: str) -> Deferred[bool]:
        """Do the same as :meth:`ask`, together with others who ask over the same link at about the same time."""
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
        Wait until those nodes are back that were there before NATS was away, because they subscribe when they are back.

        This node knows those that it has heard before, and asks all that are back whom they know.

        :param send: publishes over the new link.
        :param patience: seconds to wait if nobody answers and nobody is known.
        :returns: a Deferred that succeeds, after a few seconds in any case.
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
        """Answer at once, so that two nodes that hold publications back do not wait for each other."""
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
    """Let *bus* ask the other nodes, if it is one that wants to."""
    ways: Ways | None = getattr(bus, "ways", None)
    if ways is not None:
        ways.others = Reach(nodes, ways, clock)
