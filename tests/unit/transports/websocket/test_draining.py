"""What a session says of what was sent: how much has not left, when all has, and when the connection has ended."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory

from lhttp_tx import Message, Request, processor
from lhttp_tx.codec.limits import Limits
from lhttp_tx.testing import Server
from lhttp_tx.transports.websocket.factory import LHTTPServerFactory
from lhttp_tx.transports.websocket.flow import Flow
from unit.transports.websocket.test_protocol import HANDSHAKE, Narrow, Peer, connected, frame

SIZE, COUNT = 60_000, 100


@processor("stream")
async def stream(request: Request) -> None:
    for number in range(COUNT):
        request.session.send(Message("part", {"number": str(number)}, bytes(SIZE), binary=True))
        await request.session.drained()


@pytest.fixture
def server() -> Server:
    return Server(processors=[stream], limits=Limits(unsent_size=100_000))


@pytest.fixture
def factory(clock: Clock, server: Server) -> LHTTPServerFactory:
    return LHTTPServerFactory(engine=server.engine, reactor=clock)


def narrow(factory: LHTTPServerFactory) -> tuple[Any, Any]:
    """A connection whose socket takes what the test lets it take."""
    wrapper = ProtocolWrapper(WrappingFactory(factory), factory.buildProtocol(None))
    transport: Any = Narrow()
    transport.room = 1_000
    wrapper.makeConnection(transport)
    protocol: Any = wrapper.wrappedProtocol
    protocol.dataReceived(HANDSHAKE % b"")
    transport.doWrite()
    transport.room, transport.sent = 0, b""
    return protocol, transport


def outcomes(*waiting: Deferred[None]) -> list[Any]:
    found: list[Any] = []
    for each in waiting:
        each.addBoth(found.append)
    return found


@pytest.mark.parametrize("room", [20_000, 61_000])
def test_a_processor_that_waits_streams_to_a_slow_reader(factory: LHTTPServerFactory, room: int) -> None:
    protocol, transport = narrow(factory)
    protocol.dataReceived(frame("LHTTP/1.0 stream\r\n\r\n"))
    most = turns = 0
    while protocol.session.stage and turns < 10_000:
        most = max(most, protocol.session.unsent)
        transport.room = room
        transport.doWrite()
        turns += 1
    assert transport.sent.count(b"LHTTP/1.0 part") == COUNT
    assert SIZE <= most < SIZE + 200
    assert protocol.session.unsent == 0
    assert protocol.flow == Flow(0)


def test_a_few_bytes_that_wait_are_waited_for(factory: LHTTPServerFactory) -> None:
    protocol, transport = narrow(factory)
    protocol.session.send(Message("x", body="12345"))
    assert protocol.session.unsent == len(Message("x", body="12345").raw) + 2
    found = outcomes(protocol.session.drained(), protocol.session.drained())
    transport.room = 10
    transport.doWrite()
    assert found == []
    transport.room = 100
    transport.doWrite()
    assert found == [None, None]
    assert protocol.session.unsent == 0


def test_what_a_read_has_gathered_is_unsent(factory: LHTTPServerFactory) -> None:
    peer = connected(factory)
    session = peer.protocol.session
    factory.outbox.cork()
    session.send(Message("x"))
    assert session.unsent == len(Message("x").raw) + 2
    assert outcomes(session.drained()) == [None]
    assert session.unsent == 0
    factory.outbox.uncork()


def test_a_congested_peer_is_waited_for_where_the_buffer_is_not_known(factory: LHTTPServerFactory) -> None:
    peer = connected(factory)
    peer.transport.reads = False
    peer.protocol.session.send(Message("x", body="x" * 70_000))
    found = outcomes(peer.protocol.session.drained())
    assert found == []
    peer.transport.drain()
    assert (found, peer.protocol.session.unsent) == ([None], 0)


def test_the_end_is_told_to_those_who_wait(factory: LHTTPServerFactory) -> None:
    protocol, _ = narrow(factory)
    session = protocol.session
    session.send(Message("x", body="x" * 1_000))
    cancelled = session.ended
    found = outcomes(session.drained(), session.ended, session.ended, cancelled)
    cancelled.cancel()
    assert [failure.type for failure in found] == [CancelledError]
    session.connection_lost()
    assert found[1:] == [None, None, None]
    assert outcomes(session.drained(), session.ended) == [None, None]


def test_those_who_wait_no_more_are_forgotten(factory: LHTTPServerFactory) -> None:
    session = connected(factory).protocol.session
    for _ in range(100):
        waiting = session.ended
        waiting.addErrback(lambda _: None)
        waiting.cancel()
    assert len(session._ended) == 0


def test_who_does_not_ask_pays_nothing(factory: LHTTPServerFactory) -> None:
    session = connected(factory).protocol.session
    assert (session._ended, session._drained, session._handshake) == (None, None, None)


def test_a_client_of_the_tests_reads_at_once() -> None:
    server = Server(processors=[stream])
    client = server.connect()
    client.send("LHTTP/1.0 stream\r\n\r\n")
    assert len(client.take()) == COUNT
    ended = outcomes(client.session.ended)
    client.disconnect()
    assert (ended, client.session.unsent) == ([None], 0)


def test_a_processor_that_waits_is_let_go_when_the_peer_leaves(factory: LHTTPServerFactory) -> None:
    peer: Peer = connected(factory)
    peer.transport.reads = False
    peer.send("LHTTP/1.0 stream\r\n\r\n")
    peer.lose()
    assert factory.engine.sessions == set()
