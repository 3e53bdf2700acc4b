"""A balancer for a test: it asks each node whether it is ready, and sends new connections to those that are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import LoopingCall

__all__ = ["Balancer"]

_INTERVAL = 0.1
"""Seconds between two questions to a node."""


class Balancer:
    """
    Passes bytes on.

    :ivar port: where clients connect.
    :ivar ready: the ports of the nodes that were ready when they were asked last.
    """

    def __init__(self, reactor: Any, nodes: Sequence[int]) -> None:
        self.reactor = reactor
        self.nodes = list(nodes)
        self.ready: set[int] = set()
        self._turn = 0
        self._asking = LoopingCall(self._ask_all)
        self._listening: Any = None

    async def start(self) -> None:
        self._asking.clock = self.reactor
        self._asking.start(_INTERVAL).addErrback(lambda failure: failure.raiseException())
        factory = Factory.forProtocol(lambda: _Near(self))  # type: ignore[arg-type]
        self._listening = await TCP4ServerEndpoint(self.reactor, 0, 1024, "127.0.0.1").listen(factory)
        self.port = self._listening.getHost().port

    async def stop(self) -> None:
        self._asking.stop()
        await self._listening.stopListening()

    def choose(self) -> list[int]:
        """Return all nodes, those that are ready first, each time another one of these."""
        self._turn += 1
        first = [node for node in self.nodes if node in self.ready]
        first = first[self._turn % len(first) :] + first[: self._turn % len(first)] if first else []
        return first + [node for node in self.nodes if node not in self.ready]

    def _ask_all(self) -> None:
        for node in self.nodes:
            answer: Deferred[bool] = Deferred()
            answer.addCallback(self._answered, node)
            asking = connectProtocol(TCP4ClientEndpoint(self.reactor, "127.0.0.1", node, timeout=2), _Question(answer))
            asking.addErrback(lambda _, answer=answer: answer.callback(False))

    def _answered(self, is_ready: bool, node: int) -> None:
        (self.ready.add if is_ready else self.ready.discard)(node)


class _Question(Protocol):
    """``GET /ready``."""

    def __init__(self, answer: Deferred[bool]) -> None:
        self.answer = answer
        self.data = b""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"GET /ready HTTP/1.0\r\nHost: localhost\r\n\r\n")

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Any = None) -> None:
        self.answer.callback(self.data.split(b" ")[1:2] == [b"200"])


class _Near(Protocol):
    """The client's side of a connection. What comes before the other side is there waits."""

    def __init__(self, balancer: Balancer) -> None:
        self.balancer = balancer
        self.far: Any = None
        self.waiting = b""
        self.ended = False

    def connectionMade(self) -> None:
        self._dial(self.balancer.choose())

    def _dial(self, nodes: list[int]) -> None:
        assert self.transport is not None
        if not nodes or self.ended:
            self.transport.loseConnection()
            return
        endpoint = TCP4ClientEndpoint(self.balancer.reactor, "127.0.0.1", nodes[0], timeout=5)
        connectProtocol(endpoint, _Far(self)).addErrback(lambda _: self._dial(nodes[1:]))

    def dataReceived(self, data: bytes) -> None:
        if self.far is None:
            self.waiting += data
        else:
            self.far.transport.write(data)

    def connectionLost(self, reason: Any = None) -> None:
        self.ended = True
        if self.far is not None:
            self.far.transport.loseConnection()


class _Far(Protocol):
    """The node's side."""

    def __init__(self, near: _Near) -> None:
        self.near = near

    def connectionMade(self) -> None:
        assert self.transport is not None
        if self.near.ended:
            self.transport.loseConnection()
            return
        self.near.far = self
        self.transport.write(self.near.waiting)

    def dataReceived(self, data: bytes) -> None:
        self.near.transport.write(data)  # type: ignore[union-attr]

    def connectionLost(self, reason: Any = None) -> None:
        self.near.transport.loseConnection()  # type: ignore[union-attr]
