"""What the tests of the client share: the real server behind a network in memory, and its clients."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError as Refusal
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.test import iosim
from zope.interface import implementer

from lhttp_tx import Message, Processor, Refused, Request, processor
from lhttp_tx.client import Client, State
from lhttp_tx.codec.limits import DEFAULT_LIMITS, UNLIMITED, Limits
from lhttp_tx.codec.message import parse
from lhttp_tx.errors import LHTTPError
from lhttp_tx.testing import Server
from lhttp_tx.transports.websocket.factory import LHTTPServerFactory

__all__ = ["MemoryEndpoint", "World", "error_of", "outcome"]


@processor("echo")
def echo(request: Request) -> None:
    request.reply()


@processor("auth")
def auth(request: Request) -> None:
    request.reply("welcome", command="granted", headers=[])


@processor("refuse")
def refuse(request: Request) -> None:
    raise Refused(403, "members only")


@processor("parts")
def parts(request: Request) -> None:
    request.reply(b"|".join(part.body for part in request.parts), headers=[])


@processor("push")
def push(request: Request) -> None:
    request.session.send(Message("news", body=request.body))


@processor("fake")
def fake(request: Request) -> None:
    request.session.send(Message("receipt", [("publish", "x"), ("receipt-id", "1")]))


class Pending(Processor):
    command = "pending"

    def __init__(self) -> None:
        self.waiting: list[Deferred[None]] = []

    def on_message(self, request: Request) -> Deferred[None]:
        self.waiting.append(Deferred())
        return self.waiting[-1].addCallback(lambda _: request.reply())


@implementer(IStreamClientEndpoint)
class MemoryEndpoint:
    """
    Connects to a server in memory.

    :ivar sent: the messages that clients have sent, but for those in fragments.
    """

    def __init__(self, factory: LHTTPServerFactory, clock: Clock) -> None:
        self.factory = factory
        self.clock = clock
        self.pumps: list[Any] = []
        self.refuses = False
        self.hangs = False
        self.sent: list[Message] = []

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        if self.hangs:
            return Deferred()
        if self.refuses:
            return fail(Refusal())
        server, client = self.factory.buildProtocol(None), protocolFactory.buildProtocol(None)
        client.sendFrame = partial(self._send_frame, client, client.sendFrame)
        self.pumps.append(
            iosim.connect(
                server,
                iosim.FakeTransport(server, isServer=True),
                client,
                iosim.FakeTransport(client, isServer=False),
                greet=False,
            )
        )
        return succeed(client)

    def _send_frame(self, client: Any, send: Callable[..., None], **frame: Any) -> None:
        if frame["opcode"] in (1, 2) and frame["fin"]:
            data, binary = frame["payload"], frame["opcode"] == 2
            if client.view is not None:
                data, binary = client.view.read_own(data)
            self.sent.append(parse(data, binary=binary, limits=UNLIMITED))
        send(**frame)

    def flush(self) -> None:
        for pump in self.pumps:
            pump.flush()


class World:
    """A server, its clients, and time."""

    def __init__(self, clock: Clock, limits: Limits = DEFAULT_LIMITS, **settings: Any) -> None:
        """:param settings: of the server."""
        self.clock = clock
        self.pending = Pending()
        processors = [echo, auth, refuse, parts, push, fake, self.pending]
        self.server = Server(processors=processors, limits=limits, **settings)
        factory = LHTTPServerFactory(engine=self.server.engine, reactor=clock, gate=self.server.assembly.gate)
        self.endpoint = MemoryEndpoint(factory, clock)
        self.states: list[State] = []
        self.errors: list[LHTTPError] = []
        self.others: list[Message] = []

    def client(self, **options: Any) -> Client:
        options = {
            "on_state": lambda state, reason: self.states.append(state),
            "on_error": self.errors.append,
            "on_message": self.others.append,
            "retry_policy": lambda attempt: 1.0,
            **options,
        }
        return Client(self.endpoint, reactor=self.clock, **options)

    def connected(self, **options: Any) -> Client:
        client = self.client(**options)
        self.result(client.connect())
        assert client.state is State.CONNECTED
        return client

    def run(self, seconds: float = 0.0) -> None:
        self.server.clock.advance(seconds)
        self.clock.advance(seconds)
        for _ in range(8):
            self.endpoint.flush()
            self.clock.advance(0)

    def result(self, deferred: Deferred[Any]) -> Any:
        """What *deferred* gives as soon as the network has done its work."""
        self.run()
        return outcome(deferred)

    def failure(self, deferred: Deferred[Any]) -> Any:
        self.run()
        return error_of(deferred)

    def cut(self) -> None:
        """Lose every connection, without a word."""
        for pump in self.endpoint.pumps:
            pump.client.transport.abortConnection()
            pump.server.transport.abortConnection()
        self.run()
        self.endpoint.pumps.clear()


def outcome(deferred: Deferred[Any]) -> Any:
    found: list[Any] = []
    deferred.addBoth(found.append)
    assert found, "it waits still"
    if hasattr(found[0], "raiseException"):
        found[0].raiseException()
    return found[0]


def error_of(deferred: Deferred[Any]) -> Any:
    with pytest.raises((LHTTPError, CancelledError)) as caught:
        outcome(deferred)
    return caught.value
