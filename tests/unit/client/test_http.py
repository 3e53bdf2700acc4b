"""lhttp_tx.client.http: sessions over requests of the test's own, and when a client changes its transport."""

from __future__ import annotations

import json
import random
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface.verify import verifyClass

from lhttp_tx.client import Client
from lhttp_tx.client.errors import ConnectFailed, ConnectionLost, LoginFailed
from lhttp_tx.client.http.connection import HTTPConnection
from lhttp_tx.client.http.endpoint import HTTPEndpoint
from lhttp_tx.client.http.incoming import Mode
from lhttp_tx.client.http.requests import Answer, Requests
from lhttp_tx.client.http.roads import base_of
from lhttp_tx.client.http.ways import Transport, Ways

TOLD = b'{"session": "secret", "wait": 20, "timeout": 40, "buffer": 8000}'


@pytest.fixture(autouse=True)
def _longest_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 1.0)


class Asked:
    """A request."""

    def __init__(self, method: str, path: str, headers: dict[str, str], body: bytes, receive: Any) -> None:
        self.method = method
        self.path = path
        self.headers = headers
        self.body = body
        self.write = receive
        self.is_cancelled = False
        self.answered: Deferred[Answer] = Deferred(self._cancel)

    def _cancel(self, _: object) -> None:
        self.is_cancelled = True

    def answer(self, body: bytes | str = b"", status: int = 200) -> None:
        raw = body if isinstance(body, bytes) else body.encode()
        self.answered.callback(Answer(status, f"{status} Phrase", raw))

    def fail(self) -> None:
        self.answered.errback(ConnectionError("no"))


class FakeRequests:
    """Keeps requests, and answers none by itself."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.all: list[Asked] = []
        self.closed = False

    def ask(
        self,
        method: str,
        path: str,
        *,
        headers: dict[str, str],
        body: bytes = b"",
        timeout: float | None = None,
        receive: Any = None,
    ) -> Deferred[Answer]:
        asked = Asked(method, path, dict(headers), body, receive)
        self.all.append(asked)
        return asked.answered if timeout is None else asked.answered.addTimeout(timeout, self.clock)

    def close(self) -> Deferred[None]:
        self.closed = True
        return succeed(None)

    def paths(self, method: str) -> list[str]:
        return [asked.path for asked in self.all if asked.method == method]

    def newest(self, method: str = "GET") -> Asked:
        return [asked for asked in self.all if asked.method == method][-1]


class Session:
    """A connection over HTTP, and what comes of it."""

    def __init__(self, clock: Clock, mode: Mode, headers: dict[str, str] | None = None, size: int = 100_000) -> None:
        self.clock = clock
        self.requests = FakeRequests(clock)
        self.got: list[tuple[bytes, bool]] = []
        self.log: list[str] = []
        self.lost: ConnectionLost | None = None
        self.refusal: Any = None
        self.writables = 0
        self.connection = HTTPConnection(
            cast(Requests, self.requests), mode, reactor=clock, close_timeout=2.0, max_message_size=size
        )
        self.connection.opened.addCallbacks(self._opened, self._refused)
        self.connection.begin("?a=1", headers or {})

    def _opened(self, connection: HTTPConnection) -> None:
        self.log.append("open")
        connection.attach(self, self._ended)

    def _refused(self, failure: Failure) -> None:
        self.log.append("refused")
        self.refusal = failure.value

    def _ended(self, failure: Failure) -> None:
        self.log.append("lost")
        self.lost = failure.value  # type: ignore[assignment]

    def message_received(self, payload: bytes, binary: bool) -> None:
        self.got.append((payload, binary))

    def writable(self) -> None:
        self.writables += 1

    def begin(self) -> Session:
        self.newest("POST").answer(TOLD)
        return self

    def stream(self) -> Session:
        self.begin().newest().write(b": hello\n\n")
        return self

    def poll(self, last: int, *messages: object) -> None:
        self.newest().answer(json.dumps({"last": last, "messages": messages}))

    def newest(self, method: str = "GET") -> Asked:
        return self.requests.newest(method)

    def wait(self, seconds: float) -> None:
        self.clock.pump([seconds / 100] * 100)
        self.clock.advance(0)


def event(number: int, message: object) -> bytes:
    return f"id: {number}\ndata: {json.dumps(message)}\n\n".encode()


@pytest.fixture
def poll() -> Session:
    return Session(Clock(), "poll").begin()


@pytest.fixture
def stream() -> Session:
    return Session(Clock(), "stream").stream()


def test_the_parts_provide_their_interfaces() -> None:
    assert verifyClass(IStreamClientEndpoint, HTTPEndpoint)
    assert verifyClass(IStreamClientEndpoint, Ways)


@pytest.mark.parametrize("wrong", ["ftp://a/", "http://u@a/", "/?x=1", "/é"])
def test_a_malformed_fallback_url_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="fallback_url"):
        base_of("ws://a/", wrong)


# Beginning


def test_a_session_begins_with_the_credentials_and_goes_on_with_its_secret_alone() -> None:
    session = Session(Clock(), "stream", {"authorization": "Basic x", "Cookie": "c=1"})
    first = session.newest("POST")
    assert (first.path, first.headers) == ("connect?a=1", {"authorization": "Basic x", "Cookie": "c=1"})
    session.stream().connection.send_message(b"x", False)
    for asked in session.requests.all[1:]:
        assert asked.headers["Authorization"] == "Bearer secret"
        assert asked.headers["Cookie"] == "c=1"
        assert "authorization" not in asked.headers
        assert "secret" not in asked.path


def test_a_poll_is_open_with_the_session_a_stream_with_its_first_byte() -> None:
    assert Session(Clock(), "poll").begin().log == ["open"]
    stream = Session(Clock(), "stream").begin()
    assert stream.log == []
    stream.newest().write(b":")
    assert stream.log == ["open"]


@pytest.mark.parametrize(("status", "kind"), [(401, LoginFailed), (403, ConnectFailed), (503, ConnectFailed)])
def test_a_session_that_is_refused_is_a_failure_to_connect(status: int, kind: type[Exception]) -> None:
    session = Session(Clock(), "stream")
    session.newest("POST").answer("why\n", status)
    session.wait(100)
    assert type(session.refusal) is kind
    assert session.refusal.reason == f"the server refuses a session: {status} Phrase: why"
    assert len(session.requests.all) == 1
    assert session.requests.closed


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b"{}", b'{"session": "x", "wait": "y"}', b'"x"', b"1"])
def test_a_server_that_answers_something_else_has_no_sessions(answer: bytes) -> None:
    session = Session(Clock(), "stream")
    session.newest("POST").answer(answer)
    session.wait(1)
    assert "has no sessions" in session.refusal.reason


# Streams


def test_messages_of_a_stream_come_in_order_however_the_bytes_are_cut(stream: Session) -> None:
    for byte in event(1, "ä\u2028") + event(2, {"base64": "AP8="}) + event(3, "b"):
        stream.newest().write(bytes([byte]))
    assert stream.got == [("ä\u2028".encode(), False), (b"\x00\xff", True), (b"b", False)]


def test_a_stream_is_opened_again_behind_the_last_message_and_none_comes_twice(stream: Session) -> None:
    stream.newest().write(event(1, "a") + event(2, "b") + b'id: 3\ndata: "c"\n')
    stream.newest().answer()
    stream.wait(1)
    assert stream.newest().path == "connect?after=2"
    stream.newest().write(event(1, "a") + event(2, "b") + event(3, "c"))
    assert [payload for payload, _ in stream.got] == [b"a", b"b", b"c"]
    assert stream.log == ["open"]


def test_three_streams_that_bring_nothing_are_enough(stream: Session) -> None:
    stream.newest().answer()
    for _ in range(2):
        stream.wait(5)
        stream.newest().write(b":")
        stream.newest().answer()
    stream.wait(1)
    assert stream.lost is not None
    assert (stream.lost.code, stream.lost.reason) == (1006, "the connection was lost: streams are cut")


def test_a_stream_that_is_held_back_is_given_up() -> None:
    session = Session(Clock(), "stream").begin()
    session.wait(4.9)
    assert session.log == []
    session.wait(0.2)
    assert session.newest().is_cancelled
    assert (session.log, session.refusal.reason) == (["refused"], "streams are held back")
    assert session.requests.paths("DELETE") == ["connect"]


def test_a_stream_that_falls_silent_is_opened_again(stream: Session) -> None:
    stream.newest().write(event(1, "a"))
    first = stream.newest()
    stream.wait(29)
    assert not first.is_cancelled
    stream.wait(2)
    assert first.is_cancelled
    assert stream.newest().path == "connect?after=1"
    assert stream.log == ["open"]


def test_a_client_says_now_and_then_what_it_has(stream: Session) -> None:
    stream.newest().write(event(1, "x" * 500))
    assert stream.requests.paths("POST")[1:] == []
    stream.newest().write(event(2, "x" * 600))
    assert stream.requests.paths("POST")[1:] == ["send?after=2"]
    stream.newest("POST").answer(status=204)
    stream.connection.send_message(b"one", False)
    assert stream.requests.paths("POST")[2:] == ["send?number=1&after=2"]


@pytest.mark.parametrize("nonsense", [b"id: x\ndata: 1\n\n", b"id: 1\ndata: {\n\n", b"id: 1\n\n"])
def test_a_stream_of_something_else_is_given_up(stream: Session, nonsense: bytes) -> None:
    stream.newest().write(nonsense)
    stream.wait(1)
    assert stream.log == ["open", "lost"]


def test_an_event_without_an_end_is_given_up() -> None:
    session = Session(Clock(), "stream", size=1_000).stream()
    session.newest().write(b"x" * 8_000)
    session.wait(1)
    assert session.log == ["open", "lost"]


# Polls


def test_a_poll_asks_for_what_comes_next_and_again_where_an_answer_was_lost(poll: Session) -> None:
    poll.poll(2, "a", "b")
    assert poll.newest().path == "connect?poll=1&after=2"
    for _ in range(2):  # the pause begins anew after each success
        count = len(poll.requests.all)
        poll.newest().fail()
        poll.wait(0.49)
        assert len(poll.requests.all) == count
        poll.wait(0.02)
        assert poll.newest().path.endswith(f"after={len(poll.got)}")
        poll.poll(len(poll.got) + 1, "c")
    assert [payload for payload, _ in poll.got] == [b"a", b"b", b"c", b"c"]


def test_an_answer_that_does_not_come_is_given_up_after_the_wait_and_some(poll: Session) -> None:
    poll.wait(29.9)
    assert not poll.newest().is_cancelled
    poll.wait(0.2)
    assert poll.newest().is_cancelled
    poll.wait(0.5)
    assert len(poll.requests.paths("GET")) == 2


@pytest.mark.parametrize("status", [408, 429, 500, 503, 504])
def test_a_poll_is_tried_again_as_long_as_the_session_can_be_there(poll: Session, status: int) -> None:
    began = poll.clock.seconds()
    count = 0
    while poll.lost is None and poll.clock.seconds() < began + 100:
        if len(poll.requests.paths("GET")) > count:
            count += 1
            poll.newest().answer("busy", status)
        poll.clock.advance(0.25)
    assert 40 < poll.clock.seconds() - began < 50
    assert 8 < count < 14
    assert poll.lost is not None
    assert "busy" in poll.lost.reason


@pytest.mark.parametrize("status", [400, 401, 404, 409, 410])
def test_a_poll_may_say_that_the_session_is_over(poll: Session, status: int) -> None:
    poll.newest().answer("it has ended\n", status)
    poll.wait(1)
    assert poll.lost is not None
    assert poll.lost.reason == f"the connection was lost: {status} Phrase: it has ended"


def test_the_last_message_says_why_and_nothing_comes_behind_it(poll: Session) -> None:
    reason = "server is going away; retry-after=0.5"
    poll.poll(3, "a", f"LHTTP/1.0 close\r\ncode:1001\r\nreason:{reason}\r\n\r\n", "b")
    poll.wait(1)
    assert [payload for payload, _ in poll.got] == [b"a"]
    assert poll.lost is not None
    assert (poll.lost.code, poll.lost.retry_after) == (1001, 0.5)
    assert poll.lost.reason == f"the server closed the connection (1001): {reason}"


def test_a_message_that_is_too_large_ends_the_connection() -> None:
    session = Session(Clock(), "poll", size=10).begin()
    session.poll(2, "x" * 10, "y" * 11)
    session.wait(1)
    assert session.got == [(b"x" * 10, False)]
    assert session.log == ["open", "lost"]


# Sending


def test_one_request_at_a_time_in_order_with_numbers(poll: Session) -> None:
    for payload, binary in ((b"one", False), (b"zwei", False), (b"\xff", True), (b"three", False)):
        poll.connection.send_message(payload, binary)
    assert (poll.connection.unsent, poll.connection.congested) == (13, True)
    found = []
    while poll.connection.unsent:
        found.append((poll.newest("POST").body, poll.newest("POST").headers["Content-Type"][:10]))
        if len(found) == 3:
            poll.connection.send_message(b"four", False)
        poll.newest("POST").answer(status=204)
    assert found == [
        *((b"one", "text/plain"), (b"zwei", "text/plain"), (b"\xff", "applicatio"), (b"5\nthree4\nfour", "text/plain")),
    ]
    assert poll.requests.paths("POST")[1:] == [f"send?number={number}&after=0" for number in range(1, 5)]
    assert (poll.writables, poll.connection.congested) == (1, False)


def test_a_request_whose_answer_is_lost_is_sent_again_the_same_with_the_same_number(poll: Session) -> None:
    poll.connection.send_message(b"one", False)
    poll.newest("POST").fail()
    poll.connection.send_message(b"two", False)
    poll.wait(0.3)
    poll.newest("POST").answer(status=503)
    poll.wait(0.6)
    sent = [asked for asked in poll.requests.all if asked.path.startswith("send")]
    assert [(asked.path, asked.body) for asked in sent] == [("send?number=1&after=0", b"one")] * 3
    poll.newest("POST").answer(status=204)
    assert (poll.newest("POST").path, poll.newest("POST").body) == ("send?number=2&after=0", b"two")


def test_where_a_request_is_refused_the_last_message_may_still_say_why(poll: Session) -> None:
    poll.connection.send_message(b"one", False)
    poll.newest("POST").answer("there is no such session", 404)
    poll.wait(0.9)
    assert poll.log == ["open"]
    poll.poll(1, "LHTTP/1.0 close\r\ncode:1001\r\nreason:bye\r\n\r\n")
    poll.wait(1)
    assert poll.lost is not None
    assert poll.lost.code == 1001


def test_a_request_that_is_refused_ends_the_connection(poll: Session) -> None:
    poll.connection.send_message(b"one", False)
    poll.newest("POST").answer("there is no such session", 404)
    poll.wait(1.1)
    assert poll.log == ["open", "lost"]
    poll.connection.send_message(b"two", False)
    poll.wait(100)
    assert len(poll.requests.paths("POST")) == 2


def test_a_message_that_is_too_large_for_the_server_gets_an_error_and_the_others_go_on(poll: Session) -> None:
    poll.connection.send_message(b"LHTTP/1.0 chat\r\nReceipt:7\r\n\r\nlarge", False)
    poll.connection.send_message(b"two", False)
    poll.newest("POST").answer("body is larger\nthan 10 bytes", 413)
    assert poll.got == [
        (
            b"LHTTP/1.0 error\r\nstatus:413\r\nreason:413 Phrase: body is larger than 10 bytes\r\nreceipt-id:7\r\n\r\n",
            False,
        )
    ]
    assert (poll.newest("POST").path, poll.newest("POST").body) == ("send?number=1&after=0", b"two")
    poll.newest("POST").answer(status=204)
    assert poll.connection.unsent == 0


def test_several_messages_that_are_too_large_together_go_one_by_one(poll: Session) -> None:
    for payload in (b"one", b"two", b"three"):
        poll.connection.send_message(payload, False)
    poll.newest("POST").answer(status=204)
    poll.newest("POST").answer("too large", 413)
    for number, body in ((2, b"two"), (3, b"three")):
        assert (poll.newest("POST").path, poll.newest("POST").body) == (f"send?number={number}&after=0", body)
        poll.newest("POST").answer(status=204)
    assert poll.got == []


# The end


def test_what_was_sent_before_the_end_arrives_before_it(poll: Session) -> None:
    for payload in (b"one", b"two"):
        poll.connection.send_message(payload, False)
    poll.connection.loseConnection()
    poll.connection.send_message(b"three", False)
    poll.newest("POST").answer(status=204)
    poll.wait(0.1)
    assert (poll.newest("POST").body, poll.requests.paths("DELETE")) == (b"two", [])
    poll.newest("POST").answer(status=204)
    poll.wait(0.1)
    assert (poll.requests.paths("DELETE"), poll.log) == (["connect"], ["open"])
    poll.newest("DELETE").answer(status=204)
    assert poll.lost is not None
    assert poll.lost.reason == "closed"
    assert poll.requests.closed
    assert poll.newest().is_cancelled


def test_a_server_that_takes_nothing_more_does_not_hold_the_end_up(poll: Session) -> None:
    poll.connection.send_message(b"one", False)
    poll.connection.loseConnection()
    poll.wait(4.5)
    assert poll.log == ["open", "lost"]
    assert poll.requests.closed
    assert not poll.clock.getDelayedCalls()


def test_a_connection_that_is_dropped_ends_at_once_and_tells_the_server(poll: Session) -> None:
    poll.connection.send_message(b"one", False)
    poll.connection.abort()
    assert poll.log == ["open"]
    poll.wait(0.01)
    assert poll.log == ["open", "lost"]
    assert poll.requests.paths("DELETE") == ["connect"]
    poll.wait(3)
    assert not poll.clock.getDelayedCalls()


def test_an_attempt_that_is_cancelled_leaves_nothing_behind() -> None:
    session = Session(Clock(), "stream").begin()
    session.connection.opened.cancel()
    session.wait(0.1)
    session.newest("DELETE").answer(status=204)
    assert session.newest().is_cancelled
    assert session.requests.closed
    assert not session.clock.getDelayedCalls()


# Which transport a client uses


class Line:
    """A connection of a client."""

    def __init__(self, network: Network) -> None:
        self.heard = True
        self.transport = self
        self.unsent = 0
        self.network = network
        self.reasons: list[str] = []

    def abort(self, reason: str) -> None:
        self.reasons.append(reason)
        self.network.lose(1006)


class Network:
    """Endpoints of which each attempt is decided by the test, and the client above them."""

    def __init__(self, *transports: Transport, come_back: float = 0.0) -> None:
        self.clock = Clock()
        self.tried: list[str] = []
        self.broken: dict[str, Exception] = {}
        self.reachable = True
        self.idle = True
        self.trials: list[Any] = []
        self.pings: list[Deferred[Any]] = []
        self.line: Line | None = None
        self.waiting: Deferred[Any] | None = None
        names = transports or ("websocket", "stream", "poll")
        self.ways = Ways(
            {name: cast(Any, End(self, name)) for name in names},
            cast(Any, End(self, "trial")),
            reactor=self.clock,
            ping=self.ping,
            is_idle=lambda: self.idle,
            reaches=lambda: succeed(None) if self.reachable else fail(ConnectionError()),
            come_back=come_back,
            timeout=10.0,
        )

    def ping(self, seconds: float) -> Deferred[Any]:
        self.pings.append(Deferred())
        return self.pings[-1].addTimeout(seconds, self.clock)

    def connect(self) -> Transport | None:
        connecting = self.ways.connect(Factory.forProtocol(Protocol))
        found: list[Any] = []
        connecting.addBoth(found.append)
        if isinstance(found[0], Failure):
            found[0].raiseException()
        self.line = Line(self)
        self.ways.up(self.line)
        return self.ways.transport

    def lose(self, code: int | None, wanted: bool = False) -> None:
        self.line = None
        self.ways.down(code, wanted=wanted)


class End:
    """One of the endpoints."""

    def __init__(self, network: Network, name: str) -> None:
        self.network = network
        self.name = name

    def connect(self, factory: Any) -> Deferred[Any]:
        self.network.tried.append(self.name)
        if self.name in self.network.broken:
            return fail(self.network.broken[self.name])
        if self.network.waiting is not None:
            return self.network.waiting
        made = factory.buildProtocol(None)
        if self.name == "trial":
            self.network.trials.append(made)
            made.transport = TrialTransport()
            made.connectionMade()
        return succeed(made)


class TrialTransport:
    closed = False

    def send_message(self, payload: bytes, binary: bool) -> None:
        assert payload.startswith(b"LHTTP/1.0 ping\r\n")

    def loseConnection(self) -> None:
        self.closed = True


def unanswered() -> LoginFailed:
    error = LoginFailed("no answer to the login within 10 seconds", status=504)
    error.unanswered = True
    return error


@pytest.mark.parametrize("error", [ConnectFailed("403"), ConnectionError(), TimeoutError(), unanswered()])
def test_a_websocket_that_does_not_work_gives_way_within_the_attempt(error: Exception) -> None:
    network = Network()
    network.broken["websocket"] = error
    assert network.connect() == "stream"
    network.lose(1001)
    assert network.connect() == "stream"
    assert network.tried == ["websocket", "stream", "stream"]


@pytest.mark.parametrize("error", [LoginFailed("no", status=401), LoginFailed("the function failed")])
def test_a_refused_login_is_not_the_networks_fault(error: Exception) -> None:
    network = Network()
    network.broken["websocket"] = error
    with pytest.raises(LoginFailed):
        network.connect()
    assert network.tried == ["websocket"]


def test_where_the_server_is_not_reached_either_nothing_else_is_tried() -> None:
    network = Network()
    network.reachable = False
    network.broken["websocket"] = ConnectFailed("away")
    for _ in range(3):
        with pytest.raises(ConnectFailed):
            network.connect()
    assert network.tried == ["websocket"] * 3


def test_where_no_transport_works_the_first_failure_is_told() -> None:
    network = Network()
    network.broken = {name: ConnectFailed(name) for name in ("websocket", "stream", "poll")}
    for _ in range(2):
        with pytest.raises(ConnectFailed, match="websocket"):
            network.connect()
    assert network.tried == ["websocket", "stream", "poll"] * 2


@pytest.mark.parametrize("error", [ConnectFailed("the connection was lost"), ConnectionError()])
def test_an_attempt_that_is_cancelled_tries_nothing_else_whatever_its_error(error: Exception) -> None:
    network = Network()
    network.waiting = Deferred(lambda attempt: attempt.errback(error))
    failed: list[Any] = []
    connecting = network.ways.connect(Factory.forProtocol(Protocol)).addErrback(failed.append)
    connecting.cancel()
    assert failed[0].value is error
    assert network.tried == ["websocket"]


def test_a_single_transport_has_no_other() -> None:
    network = Network("poll")
    network.broken["poll"] = ConnectFailed("poll")
    with pytest.raises(ConnectFailed):
        network.connect()
    assert network.tried == ["poll"]


def test_two_connections_that_are_cut_young_give_way_one_does_not_nor_do_two_that_lasted() -> None:
    network = Network()
    for life in (1.0, 6.0, 1.0, 6.0, 1.0, 1.0):
        assert network.connect() == "websocket"
        network.clock.advance(life)
        network.lose(1006)
    assert network.connect() == "stream"


@pytest.mark.parametrize(("code", "wanted"), [(1001, False), (1012, False), (4408, False), (1006, True)])
def test_a_connection_that_somebody_closed_is_no_network_that_breaks_it(code: int, wanted: bool) -> None:
    network = Network()
    for _ in range(4):
        assert network.connect() == "websocket"
        network.lose(code, wanted)
    assert network.connect() == "websocket"


def test_a_silent_connection_is_asked_and_gives_way() -> None:
    network = Network()
    network.connect()
    line = network.line
    assert line is not None
    line.heard = False
    network.clock.advance(3)
    assert len(network.pings) == 1
    network.clock.advance(3)
    assert line.reasons == ["nothing comes through"]
    assert network.connect() == "stream"


def test_a_silent_connection_that_answers_stays() -> None:
    network = Network()
    network.connect()
    line = network.line
    assert line is not None
    line.heard = False
    network.clock.advance(3)
    line.heard = True
    network.pings[0].callback(None)
    network.clock.advance(60)
    assert line.reasons == []


def on_stream(come_back: float) -> Network:
    network = Network(come_back=come_back)
    network.broken["websocket"] = ConnectFailed("403")
    assert network.connect() == "stream"
    return network


def test_a_client_comes_back_when_a_websocket_beside_is_answered_and_lasts() -> None:
    network = on_stream(60.0)
    line = network.line
    assert line is not None
    network.clock.advance(60)
    network.trials[0].message_received(b"", False)
    network.clock.advance(4.9)
    assert line.reasons == []
    network.clock.advance(0.2)
    assert line.reasons == ["coming back to WebSocket"]
    assert network.trials[0].transport.closed
    del network.broken["websocket"]
    assert network.connect() == "websocket"
    network.clock.advance(1000)
    assert len(network.trials) == 1


def test_what_is_under_way_arrives_before_a_client_comes_back() -> None:
    network = on_stream(60.0)
    line = network.line
    assert line is not None
    network.idle = False
    network.clock.advance(60)
    network.trials[0].message_received(b"", False)
    network.clock.advance(5)
    network.clock.pump([0.25] * 4)
    assert line.reasons == []
    network.idle = True
    line.unsent = 1
    network.clock.pump([0.25] * 4)
    assert line.reasons == []
    line.unsent = 0
    network.clock.advance(0.25)
    assert line.reasons == ["coming back to WebSocket"]


@pytest.mark.parametrize("how", ["silent", "cut", "refused"])
def test_a_websocket_beside_that_is_no_good_is_tried_again_more_and_more_seldom(how: str) -> None:
    network = on_stream(60.0)
    if how == "refused":
        network.broken["trial"] = ConnectFailed("403")
    times: list[float] = []
    while len(times) < 7 and network.clock.seconds() < 10_000:
        if network.tried.count("trial") > len(times):
            times.append(network.clock.seconds())
            if how == "cut":
                network.trials[-1].message_received(b"", False)
                network.trials[-1].connectionLost(Failure(ConnectionError()))
        network.clock.advance(10)
    waits = [after - before for before, after in zip([0.0, *times], times, strict=False)]
    slack = 10 if how == "silent" else 0
    for wait, factor in zip(waits, [1, 2, 4, 8, 16, 16, 16], strict=True):
        assert 60 * factor <= wait <= 60 * factor + slack + 10
    assert network.ways.transport == "stream"


def test_a_trial_asks_for_no_session() -> None:
    trial: Any = Client("unix:/x", reactor=Clock())._ways._trial
    assert trial._factory.protocols == ["lhttp.trial"]


@pytest.mark.parametrize("wrong", [[], ["http"], ["poll", "poll"], "poll", 5])
def test_wrong_transports_are_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="transports lists some of websocket, stream, poll"):
        Client("ws://127.0.0.1/", reactor=Clock(), transports=wrong)


def test_a_trial_ends_with_the_connection() -> None:
    network = on_stream(60.0)
    network.clock.advance(60)
    network.lose(1001)
    assert network.trials[0].transport.closed
    assert not network.clock.getDelayedCalls()
