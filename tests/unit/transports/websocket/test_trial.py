"""lhttp_tx.transports.websocket.trial: a WebSocket without a session."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from lhttp_tx.testing import Server
from lhttp_tx.transports.websocket.factory import LHTTPServerFactory
from lhttp_tx.transports.websocket.trial import LIFETIME
from unit.transports.websocket.test_coded import Client

PING = "LHTTP/1.0 ping\r\nreceipt:trial\r\n\r\n"
ANSWER = (b"LHTTP/1.0 trial\r\n\r\n", False)


@pytest.fixture
def server(clock: Clock) -> Server:
    return Server(max_per_user=1, login_parameter="name", clock=clock)


@pytest.fixture
def factory(clock: Clock, server: Server) -> LHTTPServerFactory:
    return LHTTPServerFactory(engine=server.engine, reactor=clock)


def test_a_trial_ends_no_other_connection_of_its_user(factory: LHTTPServerFactory, server: Server) -> None:
    first = Client(factory, None, b"?name=ann")
    trial = Client(factory, "lhttp.trial", b"?name=ann")
    assert trial.agreed
    trial.send(PING)
    assert trial.take() == [ANSWER]
    assert len(server.engine.sessions) == 1
    assert first.protocol.state == first.protocol.STATE_OPEN
    Client(factory, None, b"?name=ann")
    assert first.protocol.state != first.protocol.STATE_OPEN


def test_a_trial_publishes_nothing_and_takes_one_message(factory: LHTTPServerFactory, server: Server) -> None:
    listener, trial = server.connect(), Client(factory, "lhttp.trial")
    listener.send("LHTTP/1.0 x\r\nsubscribe:room\r\n\r\n")
    publication = "LHTTP/1.0 x\r\npublish:room\r\n\r\n"
    trial.send(publication)
    assert trial.take() == [ANSWER]
    trial.send(publication, publication)
    assert listener.received == []
    assert trial.protocol.localCloseCode == 1008


def test_a_trial_is_not_kept(factory: LHTTPServerFactory, clock: Clock) -> None:
    trial = Client(factory, "lhttp.trial")
    clock.advance(LIFETIME)
    assert trial.protocol.localCloseCode == 1000


@pytest.mark.parametrize("offer", ["lhttp.trial, lhttp", "lhttp, lhttp.trial"])
def test_a_client_that_offers_more_gets_a_session(factory: LHTTPServerFactory, server: Server, offer: str) -> None:
    Client(factory, offer)
    assert len(server.engine.sessions) == 1
