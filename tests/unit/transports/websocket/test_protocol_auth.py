"""Handshakes that authenticators decide about."""

from __future__ import annotations

import base64
import sys
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from lhttp_tx import Authenticator, Refused, Request, processor
from lhttp_tx.auth.attempts import LoginAttempt
from lhttp_tx.auth.gate import Gate
from lhttp_tx.bus.memory import MemoryBus
from lhttp_tx.engine.engine import Engine
from lhttp_tx.engine.hub import Hub
from lhttp_tx.engine.processors import Registry
from lhttp_tx.transports.websocket.factory import LHTTPServerFactory
from lhttp_tx.transports.websocket.protocol import LHTTPServerProtocol

HEAD = (
    b"GET /room?key=%s&x=1 HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + base64.b64encode(b"0123456789abcdef") + b"\r\n%s\r\n"
)


def frame(payload: bytes) -> bytes:
    return bytes([0x81, 0x80 | len(payload), 0, 0, 0, 0]) + payload


class Keys(Authenticator):
    """Knows clients by the query parameter ``key``: ``good``, ``bad`` or ``later``."""

    challenges = ("Key",)
    secret_parameters = frozenset({"key"})

    def __init__(self) -> None:
        self.waiting: Deferred[Any] = Deferred()
        self.attempts: list[LoginAttempt] = []

    def authenticate(self, attempt: LoginAttempt) -> Any:
        self.attempts.append(attempt)
        key = attempt.parameters["key"]
        if key == "bad":
            raise Refused(401, "wrong key")
        if key == "nameless":
            raise Refused(452, "no such key")
        if key == "later":
            return self.waiting.addCallback(lambda _: attempt.identify("alice"))
        return attempt.identify("alice") if key == "good" else None


@processor("who")
def who(request: Request) -> None:
    identity = request.session.identity
    request.reply(f"{identity.user} {dict(identity.parameters)}")


class Transport(StringTransport):
    """A transport that does what a TCP connection does where Twisted's own fake does not."""

    def unregisterProducer(self) -> None:
        self.producer = None

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    def abortConnection(self) -> None:
        self.loseConnection()


class Peer:
    """A server's connection and what came out of it."""

    def __init__(self, clock: Clock, **options: Any) -> None:
        self.keys = Keys()
        registry = Registry()
        registry.add(who)
        engine = Engine(hub=Hub(bus=MemoryBus()), clock=clock, registry=registry)
        self.gate = Gate([self.keys], clock=clock, **options)
        factory = LHTTPServerFactory(engine=engine, reactor=clock, gate=self.gate, ping_interval=0)
        self.protocol: Any = factory.buildProtocol(None)
        self.transport = Transport()
        self.protocol.makeConnection(self.transport)

    def receive(self, data: bytes) -> bytes:
        self.protocol.dataReceived(data)
        return self.take()

    def take(self) -> bytes:
        taken: bytes = self.transport.value()
        self.transport.clear()
        return taken


@pytest.fixture(params=[b"", b"Sec-WebSocket-Extensions: x-unknown\r\n"], ids=["", "by Autobahn"], autouse=True)
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test have handshakes that are read at once, and handshakes that are left to Autobahn."""
    monkeypatch.setattr(sys.modules[__name__], "HEAD", HEAD.replace(b"Upgrade: ", request.param + b"Upgrade: ", 1))


@pytest.mark.parametrize("key", [b"good", b"bad", b"later"])
def test_an_ordinary_handshake_is_none_of_autobahns(
    clock: Clock, key: bytes, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    process = LHTTPServerProtocol.processHandshake
    monkeypatch.setattr(LHTTPServerProtocol, "processHandshake", lambda self: asked.append(self) or process(self))
    peer = Peer(clock)
    peer.receive(HEAD % (key, b""))
    assert len(peer.keys.attempts) == 1
    assert len(asked) == (1 if "by Autobahn" in request.node.name else 0)


def test_nothing_behind_a_refused_handshake_is_looked_at(clock: Clock) -> None:
    peer = Peer(clock)
    taken = peer.receive(HEAD % (b"bad", b"") + frame(b"LHTTP/1.0 who\r\n\r\n"))
    assert taken.count(b"HTTP/1.1 ") == 1
    assert b"LHTTP/1.0" not in taken
    assert peer.protocol.session is None


def test_the_identity_is_on_the_session_without_what_is_secret(clock: Clock) -> None:
    peer = Peer(clock)
    assert peer.receive(HEAD % (b"good", b"")).startswith(b"HTTP/1.1 101 ")
    assert peer.receive(frame(b"LHTTP/1.0 who\r\n\r\n")).endswith(b"\r\n\r\nalice {'x': '1'}")


def test_an_authenticator_sees_the_handshake(clock: Clock) -> None:
    peer = Peer(clock)
    peer.receive(HEAD % (b"good", b"Cookie: a=b\r\n"))
    (attempt,) = peer.keys.attempts
    assert (attempt.path, attempt.cookies, attempt.secure) == ("/room", {"a": "b"}, False)
    assert attempt.parameters == {"key": "good", "x": "1"}
    assert attempt.address == peer.protocol.peer


@pytest.mark.parametrize(("key", "reason"), [(b"bad", b"wrong key"), (b"", b"log in to connect: ")])
def test_a_refusal_is_an_http_response_with_a_challenge(clock: Clock, key: bytes, reason: bytes) -> None:
    peer = Peer(clock)
    head, _, body = peer.receive(HEAD % (key, b"")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
    assert b"\r\nWWW-Authenticate: Key\r\n" in head
    assert body.startswith(reason)
    assert peer.transport.disconnecting


def test_a_refusal_may_have_a_status_without_a_name(clock: Clock) -> None:
    peer = Peer(clock)
    assert peer.receive(HEAD % (b"nameless", b"")).startswith(b"HTTP/1.1 452 Refused\r\n")
    assert peer.transport.disconnecting


def test_what_comes_before_the_answer_waits_for_it(clock: Clock) -> None:
    peer = Peer(clock)
    assert peer.receive(HEAD % (b"later", b"") + frame(b"LHTTP/1.0 who\r\nn:1\r\n\r\n")) == b""
    assert peer.receive(frame(b"LHTTP/1.0 who\r\nn:2\r\n\r\n")[:9]) == b""
    assert peer.receive(frame(b"LHTTP/1.0 who\r\nn:2\r\n\r\n")[9:]) == b""
    peer.keys.waiting.callback(None)
    taken = peer.take()
    assert taken.startswith(b"HTTP/1.1 101 ")
    assert taken.index(b"n:1") < taken.index(b"n:2")


def test_a_second_handshake_behind_the_first_is_not_looked_at(clock: Clock) -> None:
    peer = Peer(clock)
    peer.receive(HEAD % (b"later", b""))
    peer.receive(HEAD % (b"good", b""))
    assert len(peer.keys.attempts) == 1


def test_who_sends_much_before_the_answer_is_dropped(clock: Clock) -> None:
    peer = Peer(clock)
    peer.receive(HEAD % (b"later", b""))
    peer.receive(b"x" * 16_385)
    assert peer.transport.disconnecting
    peer.keys.waiting.callback(None)
    assert peer.take() == b""
    assert peer.protocol.session is None


def test_an_answer_that_takes_too_long_is_an_http_response(clock: Clock) -> None:
    peer = Peer(clock, timeout=20)
    peer.receive(HEAD % (b"later", b""))
    clock.advance(19)
    assert not peer.transport.disconnecting
    clock.advance(2)
    assert peer.take().startswith(b"HTTP/1.1 503 ")


def test_a_client_that_leaves_before_the_answer_leaves_nothing_behind(clock: Clock) -> None:
    peer = Peer(clock)
    peer.receive(HEAD % (b"later", b""))
    peer.protocol.connectionLost(Failure(ConnectionDone()))
    assert peer.keys.waiting.called
    assert peer.take() == b""
    assert peer.protocol.factory.engine.sessions == set()
    assert clock.getDelayedCalls() == []


def test_an_answer_after_the_server_has_begun_to_stop_opens_nothing(clock: Clock) -> None:
    peer = Peer(clock)
    peer.receive(HEAD % (b"later", b""))
    peer.protocol.factory.draining = True
    peer.keys.waiting.callback(None)
    assert peer.take().startswith(b"HTTP/1.1 503 ")
    assert peer.transport.disconnecting
    assert peer.protocol.session is None


def test_an_answer_after_the_client_has_left_opens_nothing(clock: Clock) -> None:
    peer = Peer(clock)
    answer = Deferred[Any](lambda _: None)
    peer.keys.waiting = answer
    peer.receive(HEAD % (b"later", b""))
    peer.protocol.connectionLost(Failure(ConnectionDone()))
    assert peer.protocol.factory.engine.sessions == set()


def test_the_lobby_is_in_the_place_of_the_session(clock: Clock) -> None:
    peer = Peer(clock, login_timeout=5)
    assert peer.receive(HEAD % (b"", b"")).startswith(b"HTTP/1.1 101 ")
    assert b"reason:log in first" in peer.receive(frame(b"LHTTP/1.0 who\r\n\r\n"))
    assert len(peer.gate.lobbies) == 1
    peer.gate.close_lobbies(1001, "bye")
    assert peer.take()[2:4] == (1001).to_bytes(2, "big")


def test_nothing_secret_is_kept_of_a_handshake(clock: Clock) -> None:
    peer = Peer(clock)
    peer.receive(HEAD % (b"good", b"Authorization: Bearer s3cret\r\n"))
    seen = repr(vars(peer.protocol)) + repr(peer.protocol.session.identity)
    assert "s3cret" not in seen
    assert "good" not in seen


@pytest.mark.parametrize("line", [b"GET /?key=s3cret&a b HTTP/1.1", b"GET http://x:y/?key=s3cret#f HTTP/1.1"])
def test_a_query_is_not_in_the_log(clock: Clock, line: bytes) -> None:
    events: list[str] = []

    def observe(event: dict[str, Any]) -> None:
        events.append(repr(event))

    globalLogPublisher.addObserver(observe)
    try:
        peer = Peer(clock)
        peer.receive(line + b"\r\n" + (HEAD % (b"good", b"")).partition(b"\r\n")[2])
    finally:
        globalLogPublisher.removeObserver(observe)
    assert "refused" in "".join(events)
    assert "s3cret" not in "".join(events)
