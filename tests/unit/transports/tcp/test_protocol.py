"""lhttp_tx.transports.tcp: messages in and out, the end of a connection, and what bounds it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from lhttp_tx import Hooks, Message, Request, Session, processor
from lhttp_tx.codec.limits import Limits
from lhttp_tx.codec.message import parse
from lhttp_tx.engine.conversation import Conversation
from lhttp_tx.engine.delivery import Delivery
from lhttp_tx.observe.counters import Counters
from lhttp_tx.transports.endings import ending_of
from lhttp_tx.transports.tcp.framing import Lengths
from lhttp_tx.transports.tcp.protocol import TCPProtocol
from unit.transports.tcp._stack import Stack, framed, split

pytestmark = pytest.mark.usefixtures("clock")


def test_a_publication_comes_to_all_byte_for_byte() -> None:
    stack = Stack()
    publisher, first, second = stack.connect(), stack.connect(), stack.connect()
    first.subscribe("room")
    second.subscribe("room")
    raw = b"LHTTP/1.0 chat\r\npublish:room\r\nx:1\r\n\r\n\x00\xffbytes"
    publisher.send(raw)
    assert first.take() == second.take() == [raw]
    assert publisher.take() == []


def test_a_message_is_binary_if_it_is_not_utf8() -> None:
    seen: list[tuple[bytes, bool]] = []

    @processor("see")
    def see(request: Request) -> None:
        seen.append((request.message.body, request.message.binary))

    peer = Stack(processors=[see]).connect()
    peer.send(b"LHTTP/1.0 see\r\n\r\n\xff", "LHTTP/1.0 see\r\n\r\nä".encode(), b"LHTTP/1.0 see\r\n\r\na")
    assert seen == [(b"\xff", True), ("ä".encode(), False), (b"a", False)]


def test_a_byte_at_a_time_is_the_same() -> None:
    stack = Stack()
    peer = stack.connect()
    peer.subscribe("room")
    for byte in framed(b"", *(b"LHTTP/1.0 chat\r\npublish:room\r\n\r\n%d" % number for number in range(3)), b""):
        peer.protocol.dataReceived(bytes([byte]))
    assert peer.bodies() == [b"0", b"1", b"2"]


def test_what_was_published_before_an_error_comes_before_it() -> None:
    peer = Stack().connect()
    peer.subscribe("room")
    peer.protocol.dataReceived(framed(b"LHTTP/1.0 chat\r\npublish:room\r\n\r\nhello") + b"00\n")
    assert [parse(raw).command for raw in peer.take()] == ["chat", "error", "close"]


def test_a_large_message_in_small_pieces_is_joined_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    import lhttp_tx.transports.tcp.protocol as module

    def counted(data: bytes, largest: int, take: Callable[..., Any] = module.take_messages) -> Any:
        nonlocal looks
        looks += 1
        return take(data, largest)

    monkeypatch.setattr(module, "take_messages", counted)
    peer = Stack().connect()
    peer.subscribe("room")
    stream = framed(Message("chat", {"publish": "room"}, b"x" * 60_000).raw)
    looks = 0
    for position in range(0, len(stream), 10):
        peer.protocol.dataReceived(stream[position : position + 10])
    assert [len(body) for body in peer.bodies()] == [60_000]
    assert looks < 5


def test_a_publication_is_framed_once_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    stack = Stack()
    peers = [stack.connect() for _ in range(10)]
    for peer in peers:
        peer.subscribe("room")

    def counted(self: Lengths, *found: Any, encode: Callable[..., bytes] = Lengths.encode) -> bytes:
        made.append(1)
        return encode(self, *found)

    monkeypatch.setattr(Lengths, "encode", counted)
    stack.server.engine.publish("room", "chat", (), "x")
    assert [peer.bodies() for peer in peers] == [[b"x"]] * 10
    assert len(made) == 1


def test_what_one_read_causes_is_written_once() -> None:
    stack = Stack()
    writes: list[bytes] = []
    peer = stack.connect()
    peer.subscribe("room")
    peer.transport.write = writes.append
    peer.send(
        b"LHTTP/1.0 chat\r\npublish:room\r\nreceipt:1\r\n\r\na",
        b"LHTTP/1.0 chat\r\nreceipt:2\r\n\r\n",
        b"LHTTP/1.0 chat\r\npublish:room\r\n\r\nb",
    )
    assert len(writes) == 1
    assert [parse(payload, binary=True).command for payload in split(writes[0])] == [
        "chat",
        "receipt",
        "receipt",
        "chat",
    ]


def test_an_error_leaves_the_connection_open() -> None:
    peer = Stack().connect()
    peer.send(b"hello", b"LHTTP/1.0 x\r\nreceipt:1\r\n\r\n")
    (error, told), (receipt, _) = peer.told()
    assert (error, told["status"], receipt) == ("error", "400", "receipt")
    assert not peer.closed


def test_a_message_above_the_limit_gets_413_and_one_of_twice_the_limit_ends_it() -> None:
    peer = Stack(limits=Limits(message_size=1_000, head_size=1_000)).connect()
    peer.send(b"LHTTP/1.0 x\r\n\r\n" + b"x" * 1_500)
    assert [(command, told["status"]) for command, told in peer.told()] == [("error", "413")]
    peer.protocol.dataReceived(b"2001\n")
    (_, error), (command, close) = peer.told()
    assert (error["status"], command, close["code"]) == ("413", "close", "1009")
    assert peer.closed


def test_after_a_length_that_is_none_nothing_is_read() -> None:
    stack = Stack()
    peer, other = stack.connect(), stack.connect()
    other.subscribe("room")
    peer.protocol.dataReceived(framed(b"LHTTP/1.0 x\r\npublish:room\r\n\r\n1") + b"x\n")
    peer.send(b"LHTTP/1.0 x\r\npublish:room\r\n\r\n2")
    (_, error), (_, close) = peer.told()
    assert (error["status"], close["code"]) == ("400", "1002")
    assert other.bodies() == [b"1"]
    stack.clock.advance(3)
    assert peer.transport.aborted


def test_it_waits_for_the_client_to_close_so_that_the_last_message_arrives() -> None:
    stack = Stack()
    peer = stack.connect()
    peer.protocol.dataReceived(b"x")
    assert peer.transport.ended_writing
    assert not peer.transport.disconnecting
    assert peer.transport.producerState == "producing", "what still comes is read, and dropped"
    peer.protocol.dataReceived(b"more")
    peer.protocol.readConnectionLost()
    assert peer.transport.disconnecting
    peer.end()
    assert not stack.clock.getDelayedCalls()


def test_a_client_that_has_said_all_gets_its_answers() -> None:
    waiting: Deferred[None] = Deferred()

    @processor("slow")
    def slow(request: Request) -> Deferred[None]:
        return waiting.addCallback(lambda _: request.reply("done"))

    peer = Stack(processors=[slow]).connect()
    peer.send(b"LHTTP/1.0 slow\r\n\r\n", b"LHTTP/1.0 x\r\nreceipt:1\r\n\r\n")
    peer.protocol.readConnectionLost()
    assert peer.take() == []
    waiting.callback(None)
    assert [command for command, _ in peer.told()] == ["slow", "receipt", "close"]
    assert peer.transport.disconnecting


@pytest.mark.parametrize("begun", [b"1", b"12\nLHTTP", b"0\n5"])
def test_a_stream_that_ends_inside_a_message_is_an_error(begun: bytes) -> None:
    peer = Stack().connect()
    peer.protocol.dataReceived(begun)
    peer.protocol.readConnectionLost()
    assert [told.get("status") or told["code"] for _, told in peer.told()] == ["400", "1002"]


def test_a_client_that_says_nothing_is_closed_in_a_while() -> None:
    stack = Stack()
    silent, dripping, speaking = stack.connect(), stack.connect(), stack.connect()
    speaking.protocol.dataReceived(b"0\n")
    dripping.protocol.dataReceived(b"1")
    stack.clock.advance(5)
    for peer in (silent, dripping):
        ((command, told),) = peer.told()
        assert (command, told["code"]) == ("close", "1008")
    assert not speaking.closed
    assert stack.factory.countConnections == 1


def test_before_the_first_message_it_makes_room_for_others() -> None:
    stack = Stack(max_pending=1)
    stranger = stack.connect()
    stack.clock.advance(3)
    assert stack.admission.admits(stranger.transport.getPeer())
    assert stranger.transport.aborted
    client = stack.connect()
    client.protocol.dataReceived(b"0\n")
    stack.clock.advance(3)
    assert stack.admission.pending == 0
    assert not stack.admission.make_room()
    assert not client.closed


def test_too_many_connections_are_refused() -> None:
    stack = Stack(max_connections=1)
    first, second = stack.connect(), stack.connect()
    first.protocol.dataReceived(b"0\n")
    second.protocol.dataReceived(b"0\n")
    (_, error), (_, close) = second.told()
    assert (error["status"], error["reason"], close["code"]) == ("503", "too many connections", "1013")
    first.end()
    third = stack.connect()
    third.protocol.dataReceived(b"0\n")
    assert not third.closed


def test_too_many_of_one_address_are_refused() -> None:
    stack = Stack(max_per_address=2)
    peers = [stack.connect() for _ in range(3)]
    for peer in peers:
        peer.protocol.dataReceived(b"0\n")
    assert [peer.closed for peer in peers] == [False, False, True]
    assert [told.get("status") or told["code"] for _, told in peers[2].told()] == ["429", "1008"]
    other = stack.connect("192.0.2.2")
    other.protocol.dataReceived(b"0\n")
    assert not other.closed


def test_while_the_server_goes_away_nobody_comes_in() -> None:
    stack = Stack()
    silent, late = stack.connect(), stack.connect()
    stack.factory.draining = True
    late.protocol.dataReceived(b"0\n")
    assert [told.get("status") or told["code"] for _, told in late.told()] == ["503", "1001"]
    stack.tcp.go_away()
    assert [told["code"] for _, told in silent.told()] == ["1001"]


def test_the_reason_of_a_close_is_told() -> None:
    class Closing(Hooks):
        def on_connect(self, session: Session) -> None:
            session.server.clock.callLater(1, session.close, 4_000, "bye\r\n\r\nx" + "ä" * 80)

    stack = Stack(hooks=[Closing()])
    peer = stack.connect()
    peer.protocol.dataReceived(b"0\n")
    stack.clock.advance(1)
    ((command, told),) = peer.told()
    assert (command, told["code"]) == ("close", "4000")
    assert told["reason"] == "bye x" + "ä" * 57
    stack.server.engine.publish("room", "chat", (), "x")
    assert peer.take() == []


def test_a_full_queue_stops_reading_and_nothing_is_lost() -> None:
    waiting: list[Deferred[None]] = []
    order: list[bytes] = []

    @processor("slow")
    def slow(request: Request) -> Deferred[None]:
        order.append(request.message.body)
        waiting.append(Deferred())
        return waiting[-1]

    stack = Stack(processors=[slow], limits=Limits(queue_length=4))
    peer = stack.connect()
    peer.send(*(b"LHTTP/1.0 slow\r\n\r\n%d" % number for number in range(20)))
    assert peer.transport.producerState == "paused"
    peer.send(b"LHTTP/1.0 slow\r\n\r\n20", b"LHTTP/1.0 slow\r\n\r\n\xff")
    while waiting:
        assert isinstance(peer.protocol.session, Conversation)
        assert peer.protocol.session.waiting[0] <= 4
        waiting.pop().callback(None)
    assert order == [*(b"%d" % number for number in range(21)), b"\xff"]
    assert peer.transport.producerState == "producing"


def test_what_takes_long_is_done_in_several_turns() -> None:
    stack = Stack(metrics=True)
    stack.tcp._owner.turn = -1.0
    peer, other = stack.connect(), stack.connect()
    other.subscribe("room")
    stack.clock.advance(0)
    peer.send(*(b"LHTTP/1.0 c%d\r\npublish:room\r\n\r\n%d" % (number % 2, number) for number in range(5)))
    assert peer.transport.producerState == "paused"
    peer.send(b"LHTTP/1.0 c\r\npublish:room\r\n\r\n5", b"LHTTP/1.0 c\r\nreceipt:1\r\n\r\n")
    peer.protocol.readConnectionLost()
    bodies: list[bytes] = []
    for _ in range(10):
        bodies += other.bodies()
        stack.clock.advance(0)
    assert bodies == [b"%d" % number for number in range(6)]
    assert [command for command, _ in peer.told()] == ["receipt", "close"]
    assert stack.server.engine.counters is not None
    assert stack.server.engine.counters.pauses == {}


def test_a_rate_slows_reading_down_and_nothing_is_lost() -> None:
    stack = Stack(limits=Limits(message_rate=2.0))
    peer, other = stack.connect(), stack.connect()
    other.subscribe("room")
    peer.send(*(b"LHTTP/1.0 chat\r\npublish:room\r\n\r\n%d" % number for number in range(6)))
    assert other.bodies() == [b"0", b"1"]
    assert peer.transport.producerState == "paused"
    stack.clock.pump([0.5] * 6)
    assert other.bodies() == [b"2", b"3", b"4", b"5"]
    stack.clock.pump([0.5] * 6)
    assert peer.transport.producerState == "producing"


def test_a_rate_of_bytes_stops_reading() -> None:
    stack = Stack(limits=Limits(byte_rate=1_000))
    peer = stack.connect()
    peer.protocol.dataReceived(b"0\n" * 40_000)
    assert peer.transport.producerState == "paused"
    stack.clock.pump([1.0] * 20)
    assert peer.transport.producerState == "producing"


def test_a_client_that_does_not_read_is_not_read_from() -> None:
    peer = Stack().connect()
    peer.protocol.dataReceived(b"0\n")
    peer.protocol.pauseProducing()
    assert peer.transport.producerState == "paused"
    peer.protocol.resumeProducing()
    assert peer.transport.producerState == "producing"


def test_a_client_that_leaves_too_much_unread_is_closed_and_the_hook_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    undelivered: list[bytes] = []

    class Kept(Hooks):
        def on_undelivered(self, session: Session, messages: list[Message]) -> None:
            undelivered.extend(found.body for found in messages)

    stack = Stack(hooks=[Kept()], limits=Limits(unsent_size=100_000))
    slow, other = stack.connect(), stack.connect()
    slow.subscribe("room")
    other.subscribe("room")
    slow.protocol.pauseProducing()
    monkeypatch.setattr(TCPProtocol, "held", lambda self: len(self.transport.value()))
    for number in range(30):
        stack.server.engine.publish("room", "chat", (), b"%d " % number + b"x" * 4_000, binary=True)
    assert len(other.take()) == 30
    came = slow.told()
    assert (came[-1][0], came[-1][1]["code"]) == ("close", "1013")
    assert 20 < len(came) < 27
    assert len(undelivered) >= 24
    assert slow.closed


def test_who_waits_for_everything_to_leave_is_called() -> None:
    called: list[int] = []
    peer = Stack().connect()
    peer.subscribe("room")
    peer.protocol.call_when_drained(lambda: called.append(1))
    assert called == [1]
    assert peer.protocol.unsent == 0


def test_what_is_sent_to_a_connection_that_has_ended_is_dropped() -> None:
    stack = Stack()
    peer = stack.connect()
    peer.subscribe("room")
    peer.end()
    peer.take()
    peer.protocol.deliver(Delivery("room", [b"x"], False))
    peer.protocol.send(b"x", False)
    peer.protocol.close(1000, "")
    peer.protocol.pause_reading()
    peer.protocol.resume_reading()
    peer.protocol.beat()
    assert peer.take() == []
    assert not stack.clock.getDelayedCalls()
    assert stack.server.engine.hub.channels == {}


def test_a_hook_sees_that_nothing_opened_it_but_an_address() -> None:
    seen: list[Any] = []

    class Seeing(Hooks):
        def on_connect(self, session: Session) -> None:
            seen.append((session.handshake.path, session.handshake.certificate, session.identity.address))

    Stack(hooks=[Seeing()]).connect().protocol.dataReceived(b"0\n")
    assert seen == [("", None, "tcp4:192.0.2.1:54321")]


def test_it_counts() -> None:
    stack = Stack(metrics=True)
    counters: Counters | None = stack.server.engine.counters
    assert counters is not None
    peer, stranger = stack.connect(), stack.connect()
    peer.send(b"LHTTP/1.0 x\r\n\r\n")
    stranger.protocol.dataReceived(b"x")
    peer.protocol.pauseProducing()
    peer.protocol.resumeProducing()
    peer.end()
    assert counters.received_bytes == 19
    assert counters.refused == {"400": 1}
    assert counters.closed == {("1000", "client"): 1}
    assert counters.pauses == {"unsent": 1}


@pytest.mark.parametrize(("code", "counted"), [(4401, "4401"), (4410, "4410"), (4402, "other"), (3000, "other")])
def test_a_close_code_counts_as_it_does_for_a_websocket(code: int, counted: str) -> None:
    stack = Stack(metrics=True)
    peer = stack.connect()
    peer.protocol.dataReceived(b"0\n")
    peer.protocol.close(code, "")
    counters: Counters | None = stack.server.engine.counters
    assert counters is not None
    assert counters.closed == {(counted, "server"): 1}


@pytest.mark.parametrize("how", ["server", "client", "error"])
def test_operators_are_told_how_a_connection_has_ended(how: str) -> None:
    stack = Stack()
    peer = stack.connect()
    peer.protocol.dataReceived(b"0\n")
    if how == "server":
        peer.protocol.close(4001, "go")
    elif how == "error":
        peer.protocol.dataReceived(b"GET / HTTP/1.1")
    peer.end()
    code, reason, by = ending_of(peer.protocol)
    assert (code, by) == {"server": (4001, "server"), "client": (1000, "client"), "error": (1002, "server")}[how]
    assert bool(reason) is (how != "client")
