"""The WebSocket edge: Autobahn's callbacks, flow control, and how a connection ends."""

import os
import struct
from typing import Any

import pytest
from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IPushProducer, ISSLTransport
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from zope.interface import alsoProvides
from zope.interface.verify import verifyClass

from lhttp_tx import Message, Processor, Request, processor
from lhttp_tx.codec.limits import Limits
from lhttp_tx.engine.delivery import Delivery
from lhttp_tx.guard.access import AccessPolicy
from lhttp_tx.interfaces import ITransport
from lhttp_tx.testing import Server
from lhttp_tx.transports.websocket import protocol as protocol_module
from lhttp_tx.transports.websocket.factory import LHTTPServerFactory
from lhttp_tx.transports.websocket.frames import split_frames
from lhttp_tx.transports.websocket.protocol import LHTTPServerProtocol
from lhttp_tx.transports.websocket.reader import take_messages

HANDSHAKE = (
    b"GET /echo HTTP/1.1\r\nHost: server.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n"
)


class Transport(StringTransport):
    """A transport that counts writes and pauses its producer as TCP does."""

    buffer_size = 65_536

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.unsent = 0
        self.reads = False
        self.aborted = False

    def write(self, data: bytes) -> None:
        super().write(data)
        self.writes.append(data)
        if not self.reads:
            self.unsent += len(data)
            if self.unsent > self.buffer_size and self.producer is not None:
                self.producer.pauseProducing()

    def drain(self) -> None:
        """The peer reads everything."""
        self.unsent = 0
        if self.producer is not None:
            self.producer.resumeProducing()

    def unregisterProducer(self) -> None:
        self.producer = None

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    def abortConnection(self) -> None:
        self.aborted = True
        self.loseConnection()


@processor("echo")
def echo(request: Request) -> None:
    request.reply()


class Pending(Processor):
    command = "pending"

    def __init__(self) -> None:
        self.waiting: list[Deferred[None]] = []

    def on_message(self, request: Request) -> Deferred[None]:
        self.waiting.append(Deferred())
        return self.waiting[-1].addCallback(lambda _: request.reply())


class Peer:
    """A client's end of one connection, byte by byte."""

    def __init__(self, factory: LHTTPServerFactory) -> None:
        self.transport = Transport()
        self.transport.reads = True
        self.protocol: Any = factory.buildProtocol(None)
        self.protocol.makeConnection(self.transport)

    def open(self, headers: bytes = b"") -> bytes:
        self.protocol.dataReceived(HANDSHAKE % headers)
        return self.take()

    def send(self, payload: bytes | str, opcode: int = 1, fin: bool = True) -> None:
        self.protocol.dataReceived(frame(payload, opcode, fin))

    def take(self) -> bytes:
        data: bytes = self.transport.value()
        self.transport.clear()
        self.transport.writes.clear()
        return data

    def lose(self, reason: type[Exception] = ConnectionLost) -> None:
        self.protocol.connectionLost(Failure(reason()))


def frame(payload: bytes | str, opcode: int = 1, fin: bool = True) -> bytes:
    data = payload.encode() if isinstance(payload, str) else payload
    mask = os.urandom(4)
    masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))
    first = opcode | (0x80 if fin else 0)
    if len(data) < 126:
        return bytes((first, 0x80 | len(data))) + mask + masked
    if len(data) < 65_536:
        return struct.pack("!BBH", first, 0x80 | 126, len(data)) + mask + masked
    return struct.pack("!BBQ", first, 0x80 | 127, len(data)) + mask + masked


def close_code(data: bytes) -> int:
    """The code of the close frame that *data* ends with."""
    position = data.rindex(b"\x88")
    return int.from_bytes(data[position + 2 : position + 4], "big")


@pytest.fixture
def pending() -> Pending:
    return Pending()


@pytest.fixture
def server(pending: Pending) -> Server:
    return Server(processors=[echo, pending], limits=Limits(unsent_size=200_000, queue_length=2, message_size=1_000))


@pytest.fixture
def factory(clock: Clock, server: Server) -> LHTTPServerFactory:
    return LHTTPServerFactory(engine=server.engine, reactor=clock)


def connected(factory: LHTTPServerFactory) -> Peer:
    peer = Peer(factory)
    assert peer.open().startswith(b"HTTP/1.1 101 ")
    return peer


def messages(data: bytes) -> list[bytes]:
    return [payload for payload, _ in split_frames(data)]


def test_the_protocol_provides_its_interfaces() -> None:
    assert verifyClass(ITransport, LHTTPServerProtocol)
    assert IPushProducer.implementedBy(LHTTPServerProtocol)


def test_a_message_is_answered(factory: LHTTPServerFactory) -> None:
    peer = connected(factory)
    peer.send("LHTTP/1.0 echo\r\n\r\nhello")
    assert messages(peer.take()) == [b"LHTTP/1.0 echo\r\n\r\nhello"]


def test_what_comes_with_the_handshake_is_not_lost(factory: LHTTPServerFactory) -> None:
    peer = Peer(factory)
    peer.protocol.dataReceived(HANDSHAKE % b"" + frame("LHTTP/1.0 echo\r\n\r\nhello"))
    assert peer.take().endswith(b"LHTTP/1.0 echo\r\n\r\nhello")


def test_a_fragmented_message_is_put_together(factory: LHTTPServerFactory) -> None:
    peer = connected(factory)
    peer.send("LHTTP/1.0 echo\r\n", fin=False)
    peer.send("\r\nhel", opcode=0, fin=False)
    peer.send("lo", opcode=0)
    assert messages(peer.take()) == [b"LHTTP/1.0 echo\r\n\r\nhello"]


def test_a_read_that_brings_many_publications_makes_one_write_a_subscriber(factory: LHTTPServerFactory) -> None:
    readers = [connected(factory) for _ in range(3)]
    for reader in readers:
        reader.send("LHTTP/1.0 x\r\nsubscribe:room\r\n\r\n")
    writer = connected(factory)
    writer.protocol.dataReceived(b"".join(frame(f"LHTTP/1.0 x\r\npublish:room\r\n\r\n{n}") for n in range(100)))
    for reader in readers:
        assert len(reader.transport.writes) == 1
        assert [payload[-2:].strip() for payload in messages(reader.take())] == [b"%d" % n for n in range(100)]


def test_the_handshake_names_no_software(factory: LHTTPServerFactory) -> None:
    assert b"autobahn" not in Peer(factory).open().lower()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (b"", 101),
        (b"Origin: http://server.example:81\r\n", 101),
        (b"Origin: https://SERVER.example\r\n", 101),
        (b"Origin: https://listed.example\r\n", 101),
        (b"Origin: https://other.example\r\n", 403),
        (b"Origin: https://server.example.other.example\r\n", 403),
        (b"Origin: null\r\n", 403),
    ],
)
def test_pages_of_other_sites_are_refused(factory: LHTTPServerFactory, headers: bytes, status: int) -> None:
    factory.policy = AccessPolicy(origins=frozenset({"https://listed.example"}))
    assert Peer(factory).open(headers).startswith(b"HTTP/1.1 %d " % status)


def test_a_listening_on_loopback_alone_answers_to_loopback_names_alone(factory: LHTTPServerFactory) -> None:
    factory.policy = AccessPolicy(loopback_only=True)
    assert Peer(factory).open().startswith(b"HTTP/1.1 403 ")


def test_a_refused_handshake_echoes_nothing(factory: LHTTPServerFactory) -> None:
    peer = Peer(factory)
    peer.protocol.dataReceived((HANDSHAKE % b"").replace(b"dGhl", b"\x1b[2J"))
    assert b"\x1b" not in peer.take()
    assert peer.transport.disconnecting


def test_a_server_that_goes_away_takes_no_connections(factory: LHTTPServerFactory) -> None:
    factory.draining = True
    assert Peer(factory).open().startswith(b"HTTP/1.1 503 ")


def test_connections_are_bounded_in_number(clock: Clock, server: Server) -> None:
    factory = LHTTPServerFactory(engine=server.engine, reactor=clock, max_connections=1)
    first = connected(factory)
    assert Peer(factory).open().startswith(b"HTTP/1.1 503 ")
    first.lose()


def test_a_handshake_that_is_not_finished_in_time_is_dropped(factory: LHTTPServerFactory, clock: Clock) -> None:
    peer = Peer(factory)
    peer.protocol.dataReceived(b"GET / HTTP/1.1\r\n")
    clock.pump([0.1] * 60)
    assert peer.transport.aborted


@pytest.mark.parametrize("reason", [ConnectionDone, ConnectionLost])
def test_every_end_is_told_to_the_session(factory: LHTTPServerFactory, server: Server, reason: type[Exception]) -> None:
    peer = connected(factory)
    peer.send("LHTTP/1.0 x\r\nsubscribe:room\r\n\r\n")
    peer.lose(reason)
    assert server.engine.sessions == set()
    assert server.engine.hub.channels == {}
    assert factory.countConnections == 0


def test_a_close_of_the_peer_is_answered(factory: LHTTPServerFactory, server: Server) -> None:
    peer = connected(factory)
    peer.send(struct.pack("!H", 1000), opcode=8)
    assert close_code(peer.take()) == 1000
    peer.lose(ConnectionDone)
    assert server.engine.sessions == set()


def test_a_message_just_above_the_limit_costs_an_error(factory: LHTTPServerFactory) -> None:
    peer = connected(factory)
    peer.send("x" * 1_001)
    peer.send("LHTTP/1.0 echo\r\n\r\nhello")
    first, second = messages(peer.take())
    assert b"status:413" in first
    assert second == b"LHTTP/1.0 echo\r\n\r\nhello"


def test_a_message_far_above_the_limit_closes_the_connection_before_it_arrives(factory: LHTTPServerFactory) -> None:
    peer = connected(factory)
    peer.protocol.dataReceived(struct.pack("!BBQ", 0x81, 0xFF, 2**40) + b"mask")
    assert close_code(peer.take()) == 1009


def test_text_that_is_not_utf8_closes_the_connection(factory: LHTTPServerFactory) -> None:
    peer = connected(factory)
    peer.send(b"LHTTP/1.0 echo\r\n\r\n\xff")
    assert close_code(peer.take()) == 1007


def test_a_close_reason_is_cut_at_a_whole_character(factory: LHTTPServerFactory) -> None:
    peer = connected(factory)
    peer.protocol.session.close(4000, "é" * 100)
    data = peer.take()
    assert close_code(data) == 4000
    assert data[4:].decode("utf-8") == "é" * 61


def test_pings_are_sent_and_a_silent_peer_is_dropped(factory: LHTTPServerFactory, clock: Clock) -> None:
    peer = connected(factory)
    clock.pump([1] * 31)
    assert peer.take()[0] == 0x89
    clock.pump([1] * 11)
    assert peer.transport.aborted


def test_a_peer_that_answers_pings_stays(factory: LHTTPServerFactory, clock: Clock) -> None:
    peer = connected(factory)
    for _ in range(3):
        clock.pump([1] * 31)
        ping = peer.take()
        assert ping[0] == 0x89
        peer.send(ping[2:], opcode=10)
    assert not peer.transport.aborted


# Flow control


def test_a_full_queue_stops_reading_in_the_middle_of_a_read(factory: LHTTPServerFactory, pending: Pending) -> None:
    peer = connected(factory)
    peer.protocol.dataReceived(b"".join(frame(f"LHTTP/1.0 pending\r\n\r\n{number}") for number in range(10)))
    assert peer.transport.producerState == "paused"
    assert len(peer.protocol.session._queue) == 2
    for number in range(10):
        pending.waiting[number].callback(None)
    assert peer.transport.producerState == "producing"
    assert [payload[-1:] for payload in messages(peer.take())] == [b"%d" % number for number in range(10)]


@pytest.mark.parametrize("cut", [1, 7, 4_001])
def test_what_a_full_queue_leaves_is_taken_when_there_is_room_with_what_came_meanwhile(
    factory: LHTTPServerFactory, pending: Pending, cut: int
) -> None:
    peer = connected(factory)
    data = b"".join(frame(f"LHTTP/1.0 pending\r\n\r\n{number:03}") for number in range(200))
    data += frame(b"", opcode=9) + frame(b"LHTTP/1.0 pending\r\n\r\n200")
    peer.protocol.dataReceived(data[:-cut])
    peer.protocol.dataReceived(data[-cut:])
    for number in range(201):
        pending.waiting[number].callback(None)
    taken = peer.take()
    assert [payload[-3:] for payload in messages(taken.replace(b"\x8a\x00", b""))] == [
        b"%03d" % number for number in range(201)
    ]
    assert taken.count(b"\x8a\x00") == 1
    assert peer.transport.producerState == "producing"


def test_a_full_queue_neither_parses_again_nor_asks_autobahn(
    factory: LHTTPServerFactory, server: Server, pending: Pending, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.engine.limits = Limits(queue_length=64)
    parsed: list[int] = []
    pauses: list[bool] = []

    def counting(data: bytes, position: int, max_size: int) -> Any:
        parsed.append(len(data) - position)
        return take_messages(data, position, max_size)

    peer = connected(factory)
    monkeypatch.setattr(protocol_module, "take_messages", counting)
    monkeypatch.setattr(peer.protocol, "processData", lambda: pytest.fail("Autobahn was asked"))
    monkeypatch.setattr(peer.transport, "pauseProducing", lambda: pauses.append(True))
    data = b"".join(frame(f"LHTTP/1.0 pending\r\n\r\n{number:03}") for number in range(1_000))
    peer.protocol.dataReceived(data)
    for number in range(1_000):
        pending.waiting[number].callback(None)
    assert sum(parsed) == len(data)
    assert len(pauses) == pytest.approx(1_000 / 32, abs=2)
    assert len(messages(peer.take())) == 1_000


def test_a_close_behind_what_a_full_queue_left_is_seen(factory: LHTTPServerFactory, pending: Pending) -> None:
    peer = connected(factory)
    data = b"".join(frame("LHTTP/1.0 pending\r\n\r\n") for _ in range(10))
    peer.protocol.dataReceived(data + frame(b"\x03\xe8", opcode=8))
    for number in range(9):
        pending.waiting[number].callback(None)
    assert close_code(peer.take()) == 1000


def test_what_comes_while_nothing_is_read_is_taken_when_reading_goes_on(factory: LHTTPServerFactory) -> None:
    peer = connected(factory)
    peer.protocol.pause_reading()
    peer.send("LHTTP/1.0 echo\r\n\r\n1")  # as TLS may bring it
    peer.send("LHTTP/1.0 echo\r\n\r\n2")
    assert peer.take() == b""
    peer.protocol.resume_reading()
    assert [payload[-1:] for payload in messages(peer.take())] == [b"1", b"2"]


def test_the_answer_to_a_close_is_seen_though_it_came_before_the_close(
    factory: LHTTPServerFactory, server: Server
) -> None:
    @processor("quit")
    def leave(request: Request) -> None:
        request.session.close(1000)

    server.engine.registry.add(leave)
    peer = connected(factory)
    behind = frame("LHTTP/1.0 echo\r\n\r\n") + frame(b"\x03\xe8", opcode=8)
    peer.protocol.dataReceived(frame("LHTTP/1.0 quit\r\n\r\n") + behind)
    assert peer.transport.disconnecting


def test_a_server_that_closes_with_a_full_queue_looks_for_nothing_but_the_answer(
    factory: LHTTPServerFactory, pending: Pending
) -> None:
    peer = connected(factory)
    peer.protocol.dataReceived(b"".join(frame("LHTTP/1.0 pending\r\n\r\n") for _ in range(10)))
    peer.protocol.session.close(1001, "bye")
    assert close_code(peer.take()) == 1001
    peer.send(b"\x03\xe9", opcode=8)
    assert peer.transport.disconnecting
    assert len(pending.waiting) == 1


def test_a_full_queue_is_no_reason_to_drop_a_peer_whose_pong_waits_behind_it(
    factory: LHTTPServerFactory, clock: Clock, server: Server, pending: Pending
) -> None:
    peer = connected(factory)
    for _ in range(3):
        peer.send("LHTTP/1.0 pending\r\n\r\n")
    clock.pump([1] * 60)
    assert not peer.transport.aborted


def test_a_peer_that_does_not_read_is_not_read_from(factory: LHTTPServerFactory) -> None:
    peer = connected(factory)
    peer.transport.reads = False
    for _ in range(100):
        peer.send("LHTTP/1.0 echo\r\n\r\n" + "x" * 900)
    assert peer.transport.producerState == "paused"
    peer.transport.drain()
    assert peer.transport.producerState == "producing"


def test_a_slow_reader_is_closed_with_1013_and_the_others_do_not_notice(
    factory: LHTTPServerFactory, server: Server, clock: Clock
) -> None:
    slow, quick, writer = connected(factory), connected(factory), connected(factory)
    for peer in (slow, quick):
        peer.send("LHTTP/1.0 x\r\nsubscribe:room\r\n\r\n")
    slow.transport.reads = False
    for _ in range(400):
        writer.send("LHTTP/1.0 x\r\npublish:room\r\n\r\n" + "x" * 900)
    assert len(messages(quick.take())) == 400
    received = slow.take()
    assert close_code(received) == 1013
    assert 200_000 < len(received) < 210_000
    clock.pump([0.5] * 10)
    assert slow.transport.aborted


def test_one_line_is_logged_for_a_slow_reader(factory: LHTTPServerFactory) -> None:
    from twisted.logger import LogLevel, globalLogPublisher

    events: list[dict[str, Any]] = []
    globalLogPublisher.addObserver(events.append)
    slow = connected(factory)
    slow.transport.reads = False
    for _ in range(400):
        slow.protocol.session.send(Message("x", body="x" * 900))
    globalLogPublisher.removeObserver(events.append)
    assert len([event for event in events if event["log_level"] == LogLevel.error]) == 1


def test_a_reader_that_catches_up_is_kept(factory: LHTTPServerFactory) -> None:
    peer = connected(factory)
    peer.transport.reads = False
    for _ in range(5):
        for _ in range(150):
            peer.protocol.session.send(Message("x", body="x" * 900))
        peer.transport.drain()
    assert peer.protocol.session.closed is False


class Narrow(FileDescriptor):
    """What TLS and other wrappers write to: a transport that is always behind, as its peer reads slowly."""

    connected = 1
    room = 0

    def __init__(self) -> None:
        super().__init__(reactor=MemoryReactorClock())
        self.sent = b""

    def writeSomeData(self, data: bytes) -> int:
        taken, self.room = data[: self.room], self.room - len(data[: self.room])
        self.sent += taken
        return len(taken)

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.1", 5)

    getHost = getPeer

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass


def test_a_reader_below_tls_that_is_slow_but_steady_is_kept(factory: LHTTPServerFactory) -> None:
    wrapper = ProtocolWrapper(WrappingFactory(factory), factory.buildProtocol(None))
    protocol: Any = wrapper.wrappedProtocol
    narrow = Narrow()
    wrapper.makeConnection(narrow)
    protocol.dataReceived(HANDSHAKE % b"")

    def send() -> None:
        for _ in range(70):
            protocol.session.send(Message("x", body="x" * 1_000))

    send()
    for _ in range(20):
        send()
        narrow.room = 70_000
        narrow.doWrite()
    assert b"too slow" not in narrow.sent
    assert len(narrow.sent) == 20 * 70_000
    send()
    send()
    assert b"too slow" in b"".join(narrow._tempDataBuffer) + narrow.dataBuffer


def test_nothing_is_sent_behind_a_close_frame(factory: LHTTPServerFactory) -> None:
    peer = connected(factory)
    peer.protocol.close(1001, "bye")
    peer.take()
    peer.protocol.send(b"hi", False)
    peer.protocol.deliver(Delivery("room", [b"hi"], False))
    assert peer.take() == b""


def test_draining_closes_with_1001(factory: LHTTPServerFactory, server: Server) -> None:
    peer = connected(factory)
    fired: list[Any] = []
    server.engine.drain(3).addCallback(fired.append)
    assert close_code(peer.take()) == 1001
    assert fired == []
    peer.send(struct.pack("!H", 1001), opcode=8)
    peer.lose(ConnectionDone)
    assert fired == [None]


# The fast lane


STREAM = [
    frame("LHTTP/1.0 echo\r\n\r\none"),
    frame("LHTTP/1.0 echo\r\n\r\n" + "é" * 200),
    frame(b"LHTTP/1.0 echo\r\n\r\n\xff", opcode=2),
    frame("ping", opcode=9),
    frame("LHTTP/1.0 echo\r\n", fin=False),
    frame("\r\nfragm", opcode=0, fin=False),
    frame("between", opcode=9),
    frame("ented", opcode=0),
    frame("LHTTP/1.0 echo\r\n\r\nlast"),
]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 16, 40, 100, 10_000])
def test_messages_are_the_same_however_the_network_cuts_them(factory: LHTTPServerFactory, size: int) -> None:
    stream = b"".join(STREAM)
    peer = connected(factory)
    for position in range(0, len(stream), size):
        peer.protocol.dataReceived(stream[position : position + size])
    data = b"".join(peer.transport.writes)
    for pong in (b"\x8a\x04ping", b"\x8a\x07between"):
        assert data.count(pong) == 1
        data = data.replace(pong, b"")
    bodies = [payload.partition(b"\r\n\r\n")[2] for payload in messages(data)]
    assert bodies == [b"one", ("é" * 200).encode(), b"\xff", b"fragmented", b"last"]


def test_the_lane_takes_whole_frames_past_autobahn(
    factory: LHTTPServerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = connected(factory)
    monkeypatch.setattr(peer.protocol, "processData", lambda: pytest.fail("Autobahn was asked"))
    cut = frame("LHTTP/1.0 echo\r\n\r\n2")
    for _ in range(3):
        peer.protocol.dataReceived(frame("LHTTP/1.0 echo\r\n\r\n1") * 10 + cut[:9])
        peer.protocol.dataReceived(cut[9:])
    assert len(messages(peer.take())) == 33


def test_a_frame_that_dribbles_in_is_judged_before_it_is_whole(factory: LHTTPServerFactory) -> None:
    peer = connected(factory)
    data = frame(b"LHTTP/1.0 echo\r\n\r\n\xff\xff" + b"x" * 50)
    peer.protocol.dataReceived(data[:10])
    peer.protocol.dataReceived(data[10:30])
    assert close_code(peer.take()) == 1007


def test_a_small_frame_without_a_mask_is_judged_at_once(factory: LHTTPServerFactory) -> None:
    peer = connected(factory)
    peer.protocol.dataReceived(b"\x81\x01x")
    assert close_code(peer.take()) == 1002


def test_a_client_whose_bytes_are_dear_is_read_in_small_bites(factory: LHTTPServerFactory) -> None:
    wrapper = ProtocolWrapper(WrappingFactory(factory), factory.buildProtocol(None))
    protocol: Any = wrapper.wrappedProtocol
    narrow: Any = Narrow()
    wrapper.makeConnection(narrow)
    protocol.dataReceived(HANDSHAKE % b"")
    sizes = [narrow.bufferSize]
    for _ in range(3):
        protocol._pace(narrow.bufferSize, 0.0001)
        sizes.append(narrow.bufferSize)
    assert sizes == [8_192, 32_768, 65_536, 65_536]
    protocol._pace(65_536, 0.05)
    assert narrow.bufferSize == 6_553
    protocol._pace(6_553, 1.0)
    assert narrow.bufferSize == 512


def test_the_beginning_of_a_frame_is_not_lost_when_the_server_closes(factory: LHTTPServerFactory) -> None:
    peer = connected(factory)
    data = frame("LHTTP/1.0 echo\r\n\r\nhello")
    peer.protocol.dataReceived(data[:10])
    peer.protocol.session.close(4000, "bye")
    peer.protocol.dataReceived(data[10:] + frame(struct.pack("!H", 4000), opcode=8))
    assert peer.protocol.wasClean


def test_replies_to_the_messages_of_one_read_are_one_write(factory: LHTTPServerFactory) -> None:
    peer = connected(factory)
    peer.protocol.dataReceived(frame("LHTTP/1.0 echo\r\n\r\nhello") * 50)
    assert len(peer.transport.writes) == 1
    assert len(messages(peer.take())) == 50


def test_a_close_frame_follows_what_was_sent_before_it(factory: LHTTPServerFactory) -> None:
    peer = connected(factory)
    peer.protocol.dataReceived(frame("LHTTP/1.0 echo\r\n\r\nhello") + frame(struct.pack("!H", 1000), opcode=8))
    data = peer.take()
    assert data.startswith(b"\x81")
    assert close_code(data) == 1000


def test_a_handshake_that_fails_inside_is_logged_and_dropped(
    clock: Clock, server: Server, monkeypatch: pytest.MonkeyPatch, failures: list[Any]
) -> None:
    factory = LHTTPServerFactory(engine=server.engine, reactor=clock)
    monkeypatch.setattr(server.engine, "open_session", lambda transport: 1 / 0)
    peer = Peer(factory)
    peer.open()
    assert peer.transport.aborted
    assert len(failures) == 1


# What a hostile reader found


def test_a_peer_that_closes_and_does_not_read_is_dropped_all_the_same(
    factory: LHTTPServerFactory, clock: Clock
) -> None:
    peer = connected(factory)
    peer.transport.reads = False
    peer.send(struct.pack("!H", 1000), opcode=8)
    assert peer.transport.disconnecting
    assert not peer.transport.aborted
    clock.advance(2.1)
    assert peer.transport.aborted


def test_no_timer_is_left_behind_a_closed_connection(factory: LHTTPServerFactory, clock: Clock) -> None:
    peer = connected(factory)
    peer.send(struct.pack("!H", 1000), opcode=8)
    peer.lose(ConnectionDone)
    assert clock.getDelayedCalls() == []


def test_no_timer_is_left_behind_a_peer_that_breaks_the_protocol_and_goes(
    factory: LHTTPServerFactory, clock: Clock
) -> None:
    peer = connected(factory)
    peer.send(b"", opcode=3)
    assert close_code(peer.take()) == 1002
    peer.lose(ConnectionDone)
    assert clock.getDelayedCalls() == []


def test_empty_fragments_do_not_pile_up(factory: LHTTPServerFactory) -> None:
    peer = connected(factory)
    peer.send("LHTTP/1.0 echo\r\n", fin=False)
    for _ in range(20):
        peer.send("", opcode=0, fin=False)
    assert len(peer.protocol.message_data) == len("LHTTP/1.0 echo\r\n")
    peer.send("\r\nhello", opcode=0)
    assert messages(peer.take()) == [b"LHTTP/1.0 echo\r\n\r\nhello"]


def test_the_head_of_a_handshake_is_bounded(factory: LHTTPServerFactory) -> None:
    peer = Peer(factory)
    peer.protocol.dataReceived(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 4_000)
    assert peer.take().startswith(b"HTTP/1.1 431 ")
    assert peer.transport.disconnecting


def test_what_was_published_in_the_read_that_ends_a_connection_reaches_it_before_the_close(
    factory: LHTTPServerFactory,
) -> None:
    peer = connected(factory)
    hello = b"LHTTP/1.0 chat\r\nsubscribe:a\r\npublish:a\r\n\r\nhello"
    peer.protocol.dataReceived(frame(hello) + frame(struct.pack("!H", 1000), opcode=8))
    assert peer.take() == bytes((0x81, len(hello))) + hello + b"\x88\x02\x03\xe8"


def test_tls_of_another_kind_is_tls(clock: Clock) -> None:
    """Autobahn asks TLS for what only Twisted's own can tell, and ends the connection where it cannot."""
    factory = LHTTPServerFactory(engine=Server(processors=[echo]).engine, reactor=clock)
    transport = Transport()
    alsoProvides(transport, ISSLTransport)
    protocol = factory.buildProtocol(None)
    protocol.makeConnection(transport)
    protocol.dataReceived(HANDSHAKE % b"")
    assert transport.value().startswith(b"HTTP/1.1 101 ")
    assert (protocol.peer, protocol.is_secure) == ("tcp4:192.168.1.1:54321", True)
