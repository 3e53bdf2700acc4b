"""lhttp_tx.web.channel: what HTTP requests of one connection may take, of memory and of time."""

from __future__ import annotations

import time
from typing import Any

import pytest
from line_counter import count_lines
from turns import spend, turn
from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from lhttp_tx.guard.reads import LEAST_READ, TURN
from lhttp_tx.web.site import LHTTPSite
from unit.guard.test_admission import Server, lose
from unit.transports.websocket.test_handshake import FIELDS, head
from unit.web.test_site import Stack, Transport

pytestmark = pytest.mark.usefixtures("clock")

BUFFER = 65_536
MESSAGE = b"LHTTP/1.0 chat\r\npublish:a\r\n\r\n"
POST = b"POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (len(MESSAGE), MESSAGE)


def work_for(seconds: float) -> None:
    """Use up so much time of the processor."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


class Congested(Transport):
    """A transport that asks its producer to pause as TCP does, and whose peer reads when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.peerAddr = IPv4Address("TCP", "127.0.0.1", 54321)
        self.unsent = 0
        self.largest = 0
        self.answers = self.size = 0

    def write(self, data: bytes) -> None:
        if self.size < BUFFER:  # enough to look at
            super().write(data)
        self.answers += data.count(b"HTTP/1.1 ")
        self.size += len(data)
        self.unsent += len(data)
        self.largest = max(self.largest, self.unsent)
        if self.unsent > BUFFER and self.producer is not None:
            self.producer.pauseProducing()

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def read(self) -> None:
        """The peer reads everything."""
        self.unsent = 0
        if self.producer is not None:
            self.producer.resumeProducing()


def connect(stack: Stack, transport: Any = None) -> Any:
    transport = Congested() if transport is None else transport
    transport.protocol = stack.site.buildProtocol(transport.getPeer())
    transport.protocol.makeConnection(transport)
    return transport


def answers(transport: Any) -> int:
    return int(transport.answers)


# A client whose requests are dear


class Read(Congested, FileDescriptor):
    """A transport that says how much it is going to read."""


def test_a_client_whose_requests_are_dear_is_read_in_small_bites() -> None:
    class Dear(Resource):
        isLeaf = True

        def render(self, request: Request) -> bytes:
            work_for(0.02)
            return b""

    stack = Stack()
    stack.root.putChild(b"dear", Dear())
    transport = connect(stack, Read())
    assert transport.bufferSize == 8_192
    transport.protocol.dataReceived(b"GET /dear HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20)
    assert answers(transport) == 20
    assert transport.bufferSize == 512


def test_what_is_kept_while_a_client_does_not_read_is_work_when_it_goes_on() -> None:
    class Full(Resource):
        isLeaf = True

        def render(self, request: Request) -> bytes:
            return b"x" * BUFFER

    class Dear(Resource):
        isLeaf = True

        def render(self, request: Request) -> bytes:
            work_for(0.002)
            return b""

    stack = Stack()
    stack.root.putChild(b"full", Full())
    stack.root.putChild(b"dear", Dear())
    transport = connect(stack, Read())
    transport.protocol.dataReceived(b"GET /full HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert transport.producerState == "paused"
    transport.protocol.dataReceived(b"GET /dear HTTP/1.1\r\nHost: localhost\r\n\r\n" * 205)
    assert (answers(transport), transport.bufferSize) == (1, 8_192)
    transport.read()
    assert (answers(transport), transport.bufferSize) == (206, 512)


class Paced(Resource):
    """Takes a third of a turn, and answers with *size* bytes."""

    isLeaf = True

    def __init__(self, stack: Stack, size: int = 1) -> None:
        super().__init__()
        self._clock = stack.clock
        self._size = size

    def render(self, request: Request) -> bytes:
        spend(self._clock, TURN / 3 + 1e-6)
        return b"x" * self._size


PACED = b"GET /paced HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_requests_of_one_read_are_answered_in_several_turns() -> None:
    stack = Stack()
    stack.root.putChild(b"paced", Paced(stack))
    transport = connect(stack)
    transport.protocol.dataReceived(PACED * 60)
    turns = [answers(transport)]
    while turns[-1] < 60:
        assert transport.producerState == "paused"
        turn(stack.clock)
        turns.append(answers(transport))
    assert (60 - turns[-2]) * len(PACED) < LEAST_READ  # the rest is too little to look at the clock
    assert turns[:-1] == [*range(3, turns[-2] + 1, 3)]
    assert len(turns) > 10
    assert transport.producerState == "producing"
    transport.protocol.dataReceived(PACED)
    assert answers(transport) == 61


def test_a_client_has_its_turn_only_while_it_reads() -> None:
    stack = Stack()
    stack.root.putChild(b"paced", Paced(stack))
    transport = connect(stack)
    transport.protocol.dataReceived(PACED * 60)
    transport.producer.pauseProducing()
    turn(stack.clock)
    assert (answers(transport), transport.producerState) == (3, "paused")
    transport.producer.resumeProducing()
    assert answers(transport) == 6
    transport.producer.pauseProducing()
    transport.producer.resumeProducing()  # before its turn
    assert (answers(transport), transport.producerState) == (6, "paused")
    turn(stack.clock)
    assert answers(transport) == 9


def test_a_client_that_is_gone_has_no_turn() -> None:
    stack = Stack()
    stack.root.putChild(b"paced", Paced(stack))
    transport = connect(stack)
    transport.protocol.dataReceived(PACED * 20)
    lose(transport)
    turn(stack.clock)
    assert answers(transport) == 3


# A client that does not read


REQUESTS = {
    "file": b"GET /lhttp.js HTTP/1.1\r\n\r\n",
    "head of a file": b"HEAD /lhttp.js HTTP/1.1\r\n\r\n",
    "module": b"GET /lhttp.mjs HTTP/1.1\r\n\r\n",
    "page": b"GET / HTTP/1.1\r\n\r\n",
    "websocket": b"GET /echo HTTP/1.1\r\n\r\n",
    "wrong method": b"PUT /publish HTTP/1.1\r\n\r\n",
    "publish": POST,
    "chunked": POST.replace(b"Content-Length: 29", b"Transfer-Encoding: chunked").replace(
        MESSAGE, b"1d\r\n%s\r\n0\r\n\r\n"
    )
    % MESSAGE,
    "refused": POST.replace(b"localhost", b"other.example"),
    "unknown": b"GET /publish/x HTTP/1.1\r\n\r\n",
    "options": b"OPTIONS * HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_no_request_is_handled_while_the_transport_is_full(request_: bytes) -> None:
    transport = connect(Stack(demo=True))
    count = (BUFFER + 1_000) // len(request_)
    left = request_ * count
    reads = 0
    while left:
        if transport.producerState == "producing":
            transport.protocol.dataReceived(left[:BUFFER])
            left = left[BUFFER:]
        else:
            before = answers(transport)
            transport.protocol.dataReceived(b"")  # as TLS may hand over what it has read already
            assert answers(transport) == before
            transport.read()
        reads += 1
        assert reads < 10_000
    while transport.producerState == "paused":
        transport.read()
    assert answers(transport) == count
    largest_answer = transport.size // count
    assert transport.largest <= BUFFER + 2 * largest_answer
    assert len(transport.protocol._buffer) <= BUFFER


def test_an_answer_that_is_given_later_is_the_only_one_meanwhile() -> None:
    asked: list[Request] = []

    class Slow(Resource):
        isLeaf = True

        def render(self, request: Request) -> int:
            asked.append(request)
            return NOT_DONE_YET

    stack = Stack()
    stack.root.putChild(b"slow", Slow())
    transport = connect(stack)
    transport.protocol.dataReceived(b"GET /slow HTTP/1.1\r\n\r\n" * 3)
    assert len(asked) == 1
    asked[0].write(b"x" * 2 * BUFFER)
    asked[0].finish()
    assert len(asked) == 1
    transport.read()
    assert len(asked) == 2
    asked[1].finish()
    assert len(asked) == 3


def test_a_client_that_never_reads_is_dropped() -> None:
    stack = Stack()
    transport = connect(stack)
    transport.protocol.dataReceived(REQUESTS["file"] * 1_000)
    assert transport.producerState == "paused"
    stack.clock.advance(60)
    assert transport.disconnecting
    stack.clock.advance(1)
    assert transport.aborted


def test_a_client_that_does_not_read_its_last_answer_is_dropped() -> None:
    stack = Stack()
    transport = connect(stack)
    transport.protocol.dataReceived(b"GET /lhttp.js HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert transport.disconnecting
    stack.clock.advance(29)
    assert not transport.aborted
    stack.clock.advance(1)
    assert transport.aborted


def test_a_slow_reader_is_not_hurried_over_what_waits_behind() -> None:
    stack = Stack()
    transport = connect(stack)
    transport.protocol.dataReceived(REQUESTS["file"] * 4)
    for _ in range(4):
        stack.clock.advance(50)
        transport.read()
    assert (answers(transport), transport.disconnecting) == (4, True)  # it has become too old


# Time


def timed(**times: float) -> Stack:
    stack = Stack()
    stack.site = LHTTPSite(stack.root, max_body_size=1_000, reactor=stack.clock, **times)
    return stack


DRIPPED = {
    "body": (b"POST /publish HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n", b"x"),
    "chunks": (b"POST /publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "trailer": (b"POST /publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n"),
    "length of a chunk": (b"POST /publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
    "extension": (b"POST /publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x"),
    "head": (b"GET / HTTP/1.1\r\n", b"a: b\r\n"),
    "line": (b"GET /", b"x"),
    "next head": (REQUESTS["head of a file"] + b"GET / HTTP/1.1\r\n", b"a: b\r\n"),
}


@pytest.mark.parametrize(("beginning", "drip"), DRIPPED.values(), ids=DRIPPED)
def test_a_request_that_drips_in_ends_within_30_seconds(beginning: bytes, drip: bytes) -> None:
    stack = Stack()
    transport = connect(stack)
    transport.protocol.dataReceived(beginning)
    for _ in range(30):
        stack.clock.advance(1)
        if transport.disconnecting:
            break
        transport.protocol.dataReceived(drip)
    assert transport.disconnecting


@pytest.mark.parametrize("kind", ["body", "trailer"])
def test_the_time_of_a_body_can_be_set(kind: str) -> None:
    stack = timed(body_timeout=7)
    transport = connect(stack)
    transport.protocol.dataReceived(DRIPPED[kind][0])
    stack.clock.advance(6.9)
    assert not transport.disconnecting
    stack.clock.advance(0.1)
    assert transport.disconnecting


def test_the_beginning_of_a_next_request_has_its_time_though_nothing_else_comes() -> None:
    stack = Stack()
    transport = connect(stack)
    transport.protocol.dataReceived(REQUESTS["head of a file"] + b"GET /")
    stack.clock.advance(5)
    assert transport.disconnecting


def test_a_connection_that_asks_again_and_again_ends_all_the_same() -> None:
    stack = Stack()
    transport = connect(stack)
    for _ in range(6):
        assert not transport.disconnecting
        transport.protocol.dataReceived(REQUESTS["head of a file"])
        stack.clock.advance(20)
    assert transport.disconnecting


def test_the_life_of_a_connection_can_be_set() -> None:
    stack = timed(lifetime=7)
    transport = connect(stack)
    transport.protocol.dataReceived(REQUESTS["head of a file"])
    stack.clock.advance(6.9)
    assert not transport.disconnecting
    stack.clock.advance(0.1)
    assert transport.disconnecting


def test_a_request_that_has_begun_is_answered_and_is_the_last() -> None:
    stack = timed(lifetime=1)
    transport = connect(stack)
    transport.protocol.dataReceived(POST[:-5])
    stack.clock.advance(1)
    assert not transport.disconnecting
    transport.protocol.dataReceived(POST[-5:] + POST)
    assert (answers(transport), transport.disconnecting) == (1, True)
    assert b"\r\nConnection: close\r\n" in transport.value()


def test_a_request_whose_head_has_begun_is_answered_and_is_the_last() -> None:
    stack = timed(lifetime=1)
    transport = connect(stack)
    transport.protocol.dataReceived(POST[:30])
    stack.clock.advance(1)
    transport.protocol.dataReceived(POST[30:] + POST)
    assert (answers(transport), transport.disconnecting) == (1, True)
    assert b"\r\nConnection: close\r\n" in transport.value()


def test_a_websocket_may_grow_old() -> None:
    for reads in ([head()], [head()[:30], head()[30:]]):
        stack = Stack(ping_interval=0)
        transport = connect(stack, Transport())
        for data in reads:
            transport.protocol.dataReceived(data)
        assert b" 101 " in transport.value()
        assert stack.clock.getDelayedCalls() == []


def test_a_connection_that_ended_leaves_no_timer() -> None:
    stack = Stack()
    for data in (b"", b"GET", POST, POST + b"GET", b"x\r\n", b"GET / HTTP/1.0\r\n\r\n", DRIPPED["body"][0]):
        transport = connect(stack)
        transport.protocol.dataReceived(data)
        lose(transport)
    assert stack.clock.getDelayedCalls() == []


# Room for others


def waiting(server: Server, data: bytes = b"") -> Any:
    transport: Any = server.connect()
    assert transport is not None
    if data:
        transport.protocol.dataReceived(data)
    return transport


def test_those_that_have_had_their_answer_make_room_for_others() -> None:
    server = Server(max_pending=3)
    silent, first, second = waiting(server), waiting(server, b"GET /x HTTP/1.1\r\n\r\n"), waiting(server)
    second.protocol.dataReceived(b"GET /x HTTP/1.1\r\n\r\n")
    waiting(server)
    assert [one.aborted for one in (silent, first, second)] == [False, True, False]
    waiting(server)
    assert [one.aborted for one in (silent, first, second)] == [False, True, True]
    assert server.connect() is None
    for one in (first, second):
        lose(one)
    assert server.admission.pending == 3


def test_those_that_are_waited_for_longest_make_room_after_two_seconds() -> None:
    server = Server(max_pending=3)
    clock = server.clock
    oldest, dripping = waiting(server), waiting(server, b"POST /x HTTP/1.1\r\nContent-Length: 9\r\n\r\nx")
    clock.advance(1.9)
    youngest = waiting(server)
    assert server.connect() is None
    clock.advance(0.1)
    dripping.protocol.dataReceived(b"x")
    waiting(server)
    waiting(server)
    assert [one.aborted for one in (oldest, dripping, youngest)] == [True, True, False]
    assert server.connect() is None


def test_who_does_not_read_makes_room() -> None:
    server = Server(max_pending=1)
    transport = Congested()
    transport.protocol = server.stack.site.buildProtocol(transport.getPeer())
    transport.protocol.makeConnection(transport)
    transport.protocol.dataReceived(REQUESTS["file"] * 10)
    assert transport.producerState == "paused"
    server.clock.advance(2)
    waiting(server)
    assert transport.aborted


def test_who_waits_for_the_server_makes_no_room() -> None:
    server = Server(max_pending=1)
    result: Deferred[None] = Deferred()
    server.stack.server.engine.publish_message = lambda message, filing: result  # type: ignore[method-assign]
    transport = Congested()
    transport.protocol = server.stack.site.buildProtocol(transport.getPeer())
    transport.protocol.makeConnection(transport)
    transport.protocol.dataReceived(POST)
    server.clock.advance(10)
    assert server.connect() is None
    result.callback(None)
    assert answers(transport) == 1
    waiting(server)
    assert transport.aborted


@pytest.mark.parametrize("judged", [False, True], ids=["at once", "ordinary"])
def test_a_websocket_makes_no_room(judged: bool) -> None:
    server = Server(judged=judged, max_pending=1)
    transport = waiting(server, head(FIELDS))
    server.clock.advance(10)
    waiting(server)
    assert b" 101 " in transport.value()
    assert not transport.aborted
    assert (len(server.admission._awaited), len(server.admission._resting)) == (1, 0)


# What is dear in twisted.web


def asked(head: bytes, body: bytes = b"") -> tuple[bytes, list[Request]]:
    """Return what is answered to a request, and the request as a resource gets it."""
    seen: list[Request] = []

    class Seen(Resource):
        isLeaf = True

        def render(self, request: Request) -> bytes:
            seen.append(request)
            return b"seen" + request.content.read()

    stack = Stack()
    stack.root.putChild(b"seen", Seen())
    transport = connect(stack)
    transport.protocol.dataReceived(head + body)
    return transport.value(), seen


GET = b"GET /seen HTTP/1.1\r\nHost: localhost\r\n"


def test_a_long_target_is_what_was_asked_for() -> None:
    target = b"/seen/" + b"x" * 3_000 + b"?a=" + b"y" * 3_000 + b"&b=%20z"
    answer, (request,) = asked(b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % target)
    assert answer.endswith(b"seen")
    assert (request.uri, request.path, request.method) == (target, target.partition(b"?")[0], b"GET")
    assert request.args == {b"a": [b"y" * 3_000], b"b": [b" z"]}


def test_a_query_is_looked_at_when_somebody_asks() -> None:
    def lines(query: bytes) -> int:
        return count_lines(lambda: asked(b"GET /seen?%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % query))

    assert lines(b"&".join(b"%d=%%41" % number + b"%41" * 30 for number in range(64))) < lines(b"a") + 50


def test_a_long_target_takes_no_more_work_than_a_short_one() -> None:
    def lines(size: int) -> int:
        return count_lines(lambda: asked(b"GET /seen?%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % (b"x" * size)))

    assert lines(8_000) < lines(100) + 50


@pytest.mark.parametrize(
    "target",
    [
        b"/seen?" + b"a=b&" * 64,
        b"/seen?" + b"a=b;" * 64,
        b"/seen?" + b"x" * 8_193,
        b"/seen?" + b"x" * 100 + b"\xff",
        b"/seen?" + b"x" * 100 + b"\x01",
        b"/seen?" + b"x" * 100 + b" y",
    ],
    ids=["parameters", "semicolons", "long", "not ASCII", "control character", "blank"],
)
def test_a_target_of_more_than_anybody_needs_is_refused(target: bytes) -> None:
    answer, seen = asked(b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % target)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert not seen


def test_cookies_are_looked_at_when_somebody_asks() -> None:
    head = GET + b"Cookie: " + b"a=b;" * 3_000 + b" c=d\r\n\r\n"
    assert count_lines(lambda: asked(head)) < count_lines(lambda: asked(GET + b"Cookie: c=d\r\n\r\n")) + 50
    _, (request,) = asked(head)
    assert (request.getCookie(b"c"), request.getCookie(b"a"), request.getCookie(b"x")) == (b"d", b"b", None)


@pytest.mark.parametrize("blank", [b" ", b"\t"])
def test_a_folded_header_is_refused(blank: bytes) -> None:
    answer, seen = asked(GET + b"X: a\r\n" + blank + b"b\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert not seen


CHUNKED = b"POST /seen HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(("count", "status"), [(15, b"200"), (16, b"413")])
def test_the_number_of_chunks_is_bounded(count: int, status: bytes) -> None:
    answer, seen = asked(CHUNKED, b"1\r\nx\r\n" * count + b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert len(seen) == (status == b"200")
    assert answer.endswith(b"seen" + b"x" * count) == (status == b"200")


def test_a_body_of_known_length_may_come_in_any_pieces() -> None:
    stack = Stack()
    transport = connect(stack)
    for byte in POST:
        transport.protocol.dataReceived(bytes((byte,)))
    assert transport.value().startswith(b"HTTP/1.1 403 ") or transport.value().startswith(b"HTTP/1.1 200 ")


def test_nothing_is_looked_at_behind_a_request_that_is_refused() -> None:
    stack = Stack()
    transport = connect(stack)
    transport.protocol.dataReceived(CHUNKED + b"1\r\nx\r\n" * 100)
    assert transport.value().startswith(b"HTTP/1.1 413 ")
    few = count_lines(lambda: transport.protocol.dataReceived(b"1\r\nx\r\n"))
    assert count_lines(lambda: transport.protocol.dataReceived(b"1\r\nx\r\n" * 1_000)) < few + 10
