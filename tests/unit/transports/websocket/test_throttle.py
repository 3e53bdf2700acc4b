"""lhttp_tx.transports.websocket.throttle: a connection goes as fast as it may, and loses nothing."""

from __future__ import annotations

import gzip
import struct
import zlib
from typing import Any

import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock

from lhttp_tx import Request, processor
from lhttp_tx.codec.limits import Limits
from lhttp_tx.testing import Server
from lhttp_tx.transports.websocket.factory import LHTTPServerFactory
from unit.transports.websocket.test_protocol import HANDSHAKE, Peer, Pending, close_code, frame, messages


@processor("echo")
def echo(request: Request) -> None:
    request.reply()


@pytest.fixture
def pending() -> Pending:
    return Pending()


class Throttle:
    """A client of a server with limits."""

    def __init__(self, clock: Clock, pending: Pending, **limits: Any) -> None:
        self.clock = clock
        self.server = Server(processors=[echo, pending], limits=Limits(**limits))
        self.factory = LHTTPServerFactory(engine=self.server.engine, reactor=clock, ping_interval=0)
        self.peer = Peer(self.factory)
        self.peer.open()

    @property
    def paused(self) -> bool:
        return self.peer.transport.producerState == "paused"

    def send(self, *numbers: int, command: str = "echo") -> None:
        """Send messages in one read."""
        self.peer.protocol.dataReceived(b"".join(frame(f"LHTTP/1.0 {command}\r\n\r\n{number}") for number in numbers))

    def answers(self) -> list[int]:
        """Return the numbers of the messages that were handled since the last call."""
        return [int(found.rpartition(b"\n")[2]) for found in messages(self.peer.take())]


# Messages


def test_a_burst_goes_through_at_once_and_then_so_many_a_second(clock: Clock, pending: Pending) -> None:
    client = Throttle(clock, pending, message_rate=10, message_burst=3)
    client.send(*range(6))
    assert client.answers() == [0, 1, 2]
    assert client.paused
    for number in (3, 4, 5):
        clock.advance(0.05)
        assert client.answers() == []
        clock.advance(0.051)
        assert client.answers() == [number]
    clock.advance(0.1)
    assert not client.paused


def test_the_burst_is_a_seconds_worth_by_default(clock: Clock, pending: Pending) -> None:
    client = Throttle(clock, pending, message_rate=5)
    client.send(*range(8))
    assert client.answers() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("rate", [0.5, 7, 1_000])
def test_nothing_is_lost_and_the_order_is_kept(clock: Clock, pending: Pending, rate: float) -> None:
    client = Throttle(clock, pending, message_rate=rate, message_burst=10)
    begin = clock.seconds()
    client.send(*range(60))
    found = client.answers()
    while len(found) < 60:
        clock.advance(0.01)
        found += client.answers()
    assert found == list(range(60))
    assert clock.seconds() - begin == pytest.approx(50 / rate, abs=0.03, rel=0.01)
    assert client.peer.transport.disconnecting is False


def test_a_run_of_alike_messages_is_held_back_in_its_middle(clock: Clock, pending: Pending) -> None:
    client = Throttle(clock, pending, message_rate=10, message_burst=3)
    subscriber = client.server.connect()
    subscriber.send("LHTTP/1.0 chat\r\nsubscribe:room\r\n\r\n")
    run = b"".join(frame(f"LHTTP/1.0 chat\r\npublish:room\r\n\r\n{number}") for number in range(5))
    client.peer.protocol.dataReceived(run)
    assert [message.body for message in subscriber.take()] == [b"0", b"1", b"2"]
    clock.advance(0.21)
    clock.advance(0.21)
    assert [message.body for message in subscriber.take()] == [b"3", b"4"]


def test_fragments_are_counted_as_the_message_that_they_are(clock: Clock, pending: Pending) -> None:
    client = Throttle(clock, pending, message_rate=10, message_burst=1)
    data = frame("LHTTP/1.0 echo\r\n", fin=False) + frame("\r\n", 0, fin=False) + frame("1", 0)
    client.peer.protocol.dataReceived(data + data)
    assert client.answers() == [1]
    clock.advance(0.11)
    assert client.answers() == [1]


def test_a_full_queue_and_an_empty_bucket_do_not_undo_each_other(clock: Clock, pending: Pending) -> None:
    client = Throttle(clock, pending, message_rate=10, message_burst=3, queue_length=2)
    client.send(0, 1, 2, command="pending")  # one in hand, two wait: the queue is full, and the bucket empty
    assert client.paused
    clock.advance(1)
    assert client.paused  # the queue is still full
    pending.waiting[0].callback(None)
    assert not client.paused
    client.send(3, 4, 5, command="pending")
    assert client.paused
    for number in range(1, 6):
        clock.advance(0.11)
        pending.waiting[number].callback(None)
    assert client.answers() == [0, 1, 2, 3, 4, 5]


def test_room_in_the_queue_does_not_end_the_wait(clock: Clock, pending: Pending) -> None:
    client = Throttle(clock, pending, message_rate=10, message_burst=3, queue_length=2)
    client.send(0, 1, 2, command="pending")
    pending.waiting[0].callback(None)
    assert client.paused
    clock.advance(0.11)
    assert not client.paused


# Bytes


def test_bytes_beyond_the_burst_are_paid_for_in_time(clock: Clock, pending: Pending) -> None:
    client = Throttle(clock, pending, byte_rate=1_000)
    client.peer.protocol.dataReceived(frame(b"", 9) * 11_090)  # 66,540 bytes, 1,004 too many
    assert client.paused
    clock.advance(0.9)
    assert client.paused
    clock.advance(0.4)  # the handshake counts, too
    assert not client.paused


def test_bytes_within_the_rate_are_not_held_back(clock: Clock, pending: Pending) -> None:
    client = Throttle(clock, pending, byte_rate=100_000)
    for _ in range(100):
        client.peer.protocol.dataReceived(frame(b"x" * 50, 9) * 100)  # 5,600 bytes
        assert not client.paused
        clock.advance(0.06)


def test_the_longer_of_two_waits_counts(clock: Clock, pending: Pending) -> None:
    client = Throttle(clock, pending, message_rate=10, message_burst=1, byte_rate=10_000)
    client.peer.protocol.dataReceived(frame("LHTTP/1.0 echo\r\n\r\n1") + frame(b"", 9) * 12_000)  # 0.65 s
    assert client.answers() == [1]
    for paused in (True, True, False):
        clock.advance(0.25)
        assert client.paused is paused


# What is inflated


BOMB = b"LHTTP/1.0 chat\r\npublish:room\r\n\r\n" + b"x" * 60_000


def gzipped(data: bytes) -> bytes:
    return frame(gzip.compress(data), 2)


def deflated(data: bytes) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    payload = (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
    return bytes((0xC2,)) + frame(payload, 2)[1:]


def compressing(clock: Clock, pending: Pending, encode: Any, **limits: Any) -> Throttle:
    """A client that may send compressed messages."""
    made = Throttle(clock, pending, **limits)
    made.factory = LHTTPServerFactory(engine=made.server.engine, reactor=clock, ping_interval=0, deflate=True)
    made.peer = Peer(made.factory)
    if encode is gzipped:
        made.peer.protocol.dataReceived((HANDSHAKE % b"").replace(b"/echo", b"/?support_gzip=1"))
        assert made.peer.take().startswith(b"HTTP/1.1 101 ")
    else:
        assert b"permessage-deflate" in made.peer.open(b"Sec-WebSocket-Extensions: permessage-deflate\r\n")
    return made


@pytest.mark.parametrize("encode", [gzipped, deflated])
def test_inflated_bytes_count(clock: Clock, pending: Pending, encode: Any) -> None:
    client = compressing(clock, pending, encode, byte_rate=20_000)
    subscribers = [client.server.connect() for _ in range(3)]
    for subscriber in subscribers:
        subscriber.send("LHTTP/1.0 chat\r\nsubscribe:room\r\n\r\n")
    client.peer.protocol.dataReceived(encode(BOMB) * 50)
    for _ in range(300):
        clock.advance(0.1)
    for subscriber in subscribers:  # a burst of 64 KiB, then 20,000 a second for 30 seconds, and one that was begun
        assert 8 <= len(subscriber.take()) <= (65_536 + 30 * 20_000) / 60_000 + 2
    assert client.paused


def test_what_is_inflated_in_vain_counts(clock: Clock, pending: Pending) -> None:
    client = compressing(clock, pending, gzipped, byte_rate=20_000)
    broken = bytearray(gzip.compress(BOMB))
    broken[-8] ^= 1  # the checksum
    client.peer.protocol.dataReceived(frame(bytes(broken), 2) * 50)
    assert len(messages(client.peer.take())) <= 2
    assert client.paused


@pytest.mark.parametrize("encode", [gzipped, deflated])
def test_without_a_limit_on_bytes_all_of_them_are_handled(clock: Clock, pending: Pending, encode: Any) -> None:
    client = compressing(clock, pending, encode)
    subscriber = client.server.connect()
    subscriber.send("LHTTP/1.0 chat\r\nsubscribe:room\r\n\r\n")
    client.peer.protocol.dataReceived(encode(BOMB) * 50)
    assert [message.raw for message in subscriber.take()] == [BOMB] * 50


def test_inflated_messages_that_wait_are_bounded_in_bytes(clock: Clock, pending: Pending) -> None:
    client = compressing(clock, pending, gzipped)
    bomb = gzipped(b"LHTTP/1.0 pending\r\n\r\n" + b"x" * 65_000)
    client.peer.protocol.dataReceived(bomb * 60)
    assert client.paused
    assert len(client.peer.protocol.session._queue) <= 17
    while pending.waiting and not pending.waiting[-1].called:
        pending.waiting[-1].callback(None)
    assert len(pending.waiting) == 60
    assert not client.paused


# The end


def test_a_close_is_answered_though_it_waits(clock: Clock, pending: Pending) -> None:
    client = Throttle(clock, pending, message_rate=0.1, message_burst=1)
    client.send(1, 2)
    client.peer.take()
    client.peer.protocol.close(1001, "bye")
    assert close_code(client.peer.take()) == 1001
    assert not client.paused
    client.peer.protocol.dataReceived(frame(struct.pack("!H", 1001), 8))
    assert client.peer.transport.disconnecting


def test_a_connection_that_ends_leaves_no_timer(clock: Clock, pending: Pending) -> None:
    client = Throttle(clock, pending, message_rate=0.1, message_burst=1)
    client.send(1, 2)
    client.peer.lose(ConnectionDone)
    assert clock.getDelayedCalls() == []
    assert client.server.engine.sessions == set()


def test_without_limits_there_is_nothing_to_look_at(clock: Clock, pending: Pending) -> None:
    client = Throttle(clock, pending)
    assert client.peer.protocol._throttle is None
    assert Throttle(clock, pending, message_rate=1).peer.protocol._throttle is not None
