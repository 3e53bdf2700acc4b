"""The flags of a connection: what it does not do, and what it keeps."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from lhttp_tx.codec.limits import Limits
from lhttp_tx.testing import Server
from lhttp_tx.transports.websocket.factory import LHTTPServerFactory
from lhttp_tx.transports.websocket.flow import Flow
from unit.transports.websocket.test_protocol import Peer, Pending, connected, frame


@pytest.fixture
def pending() -> Pending:
    return Pending()


def peer_of(clock: Clock, pending: Pending, **limits: Any) -> Peer:
    server = Server(processors=[pending], limits=Limits(queue_length=2, **limits))
    return connected(LHTTPServerFactory(engine=server.engine, reactor=clock))


HOLD = "LHTTP/1.0 pending\r\n\r\n"


def test_an_idle_connection_has_no_flag(clock: Clock, pending: Pending) -> None:
    assert peer_of(clock, pending).protocol.flow == Flow(0)


def test_the_beginning_of_a_message_is_kept(clock: Clock, pending: Pending) -> None:
    peer = peer_of(clock, pending)
    peer.protocol.dataReceived(frame(HOLD)[:20])
    assert peer.protocol.flow == Flow.BEGUN


def test_a_full_queue_stops_reading(clock: Clock, pending: Pending) -> None:
    peer = peer_of(clock, pending)
    peer.protocol.dataReceived(frame(HOLD) * 5 + frame(HOLD)[:20])
    assert peer.protocol.flow == Flow.FULL | Flow.UNTAKEN | Flow.BEGUN
    assert peer.transport.producerState == "paused"
    for _ in range(5):
        pending.waiting.pop(0).callback(None)
    assert peer.protocol.flow == Flow.BEGUN
    assert peer.transport.producerState == "producing"


def test_each_reason_alone_keeps_a_connection_from_being_read(clock: Clock, pending: Pending) -> None:
    peer = peer_of(clock, pending, message_rate=1, message_burst=3)
    peer.protocol.dataReceived(frame(HOLD) * 3)
    peer.protocol.pauseProducing()

    def release() -> None:
        for _ in range(3):
            pending.waiting.pop(0).callback(None)

    assert peer.protocol.flow == Flow.FULL | Flow.THROTTLED | Flow.CONGESTED
    for left, end in (
        (Flow.THROTTLED | Flow.CONGESTED, release),
        (Flow.CONGESTED, lambda: clock.advance(1)),
        (Flow(0), peer.protocol.resumeProducing),
    ):
        assert peer.transport.producerState == "paused"
        end()
        assert peer.protocol.flow == left
    assert peer.transport.producerState == "producing"
