"""Many messages at once: all arrive, in order, byte for byte."""

from __future__ import annotations

import selectors
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from integration._server import (
    BINARY,
    CLOSE,
    PING,
    TEXT,
    TIME_LIMIT,
    RawClient,
    ServerProcess,
    client_frame,
    http_request,
    message,
    open_client,
    server_frame,
)

COUNT = 10_000


def burst(channel: str, count: int = COUNT, opcode: int = TEXT) -> Iterator[bytes]:
    """Yield different messages to *channel*, some of them with other heads, sizes and bytes."""
    for number in range(count):
        extra = {"n": str(number)} if number % 100 == 7 else {}
        text = message("chat", {"publish": channel, **extra}, f"{number} é " + "x" * (number % 300))
        yield text.encode("utf-8") + (b"\xff\x00" if opcode == BINARY else b"")


def read_all(clients: list[RawClient], size: int, limit: float = 30.0) -> list[bytes]:
    """Return *size* bytes from each of *clients*, read from all at the same time."""
    received = {client: bytearray() for client in clients}
    end = time.monotonic() + limit
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client.sock, selectors.EVENT_READ, client)
        while selector.get_map():
            ready = selector.select(max(0.0, end - time.monotonic()))
            assert ready, f"not all has come: {sorted({len(data) for data in received.values()})} of {size} bytes"
            for key, _ in ready:
                piece = key.data.sock.recv(262_144)
                received[key.data] += piece
                if not piece or len(received[key.data]) >= size:
                    selector.unregister(key.fileobj)
    return [bytes(data) for data in received.values()]


def check_burst(port: int, subscribers: int, opcode: int = TEXT) -> None:
    """Publish a burst to *subscribers* raw clients and compare every byte that each of them gets."""
    messages = list(burst("burst", opcode=opcode))
    expected = b"".join(server_frame(sent, opcode) for sent in messages)
    with ExitStack() as stack:
        publisher, *clients = (stack.enter_context(RawClient(port)) for _ in range(subscribers + 1))
        for client in clients:
            client.subscribe("burst")
        frames = b"".join(client_frame(sent, opcode) for sent in messages)
        sending = threading.Thread(target=publisher.sock.sendall, args=(frames,))
        sending.start()
        received = read_all(clients, len(expected))
        sending.join(TIME_LIMIT)
        assert [data == expected for data in received] == [True] * subscribers
        # Nothing more follows: what comes next is the answer to a message of its own.
        for client in clients:
            client.send(message("chat", {"receipt": "last"}))
            assert client.receive() == (TEXT, message("receipt", {"receipt-id": "last"}).encode("ascii"))


@pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=["text", "binary"])
def test_burst_to_one_subscriber_arrives_in_order(server: ServerProcess, opcode: int) -> None:
    check_burst(server.port, 1, opcode)


def test_burst_to_a_hundred_subscribers_arrives_in_order(serve: Callable[..., ServerProcess]) -> None:
    server = serve("--max-unsent", "16777216")
    check_burst(server.port, 100)


def test_burst_through_a_real_client_arrives_in_order(server: ServerProcess) -> None:
    messages = [sent.decode("utf-8") for sent in burst("real")]
    with open_client(server.port) as publisher, open_client(server.port) as subscriber:
        subscriber.send(message("chat", {"subscribe": "real", "receipt": "in"}))
        subscriber.recv(TIME_LIMIT)
        sending = threading.Thread(target=lambda: [publisher.send(sent) for sent in messages])
        sending.start()
        received = [subscriber.recv(TIME_LIMIT) for _ in messages]
        sending.join(TIME_LIMIT)
    assert received == messages


def test_order_is_kept_across_two_channels(server: ServerProcess) -> None:
    messages = [
        message("chat", {"publish": "first" if number % 7 < 3 else "second"}, str(number)).encode("ascii")
        for number in range(COUNT)
    ]
    with RawClient(server.port) as publisher, RawClient(server.port) as subscriber:
        subscriber.subscribe("first second")
        publisher.sock.sendall(b"".join(map(client_frame, messages)))
        assert [subscriber.receive() for _ in messages] == [(TEXT, sent) for sent in messages]


def test_subscribers_of_one_channel_get_nothing_of_another(server: ServerProcess) -> None:
    messages = [
        (name, message("chat", {"publish": name}, str(number)).encode("ascii"))
        for number, name in enumerate(["left", "right", "right", "neither", "left"] * 200)
    ]
    with ExitStack() as stack:
        publisher, left, right = (stack.enter_context(RawClient(server.port)) for _ in range(3))
        left.subscribe("left")
        right.subscribe("right")
        publisher.sock.sendall(b"".join(client_frame(sent) for _, sent in messages))
        for name, client in (("left", left), ("right", right)):
            expected = [sent for channel, sent in messages if channel == name]
            assert [client.receive()[1] for _ in expected] == expected


def test_answers_and_publications_keep_their_order(server: ServerProcess) -> None:
    """A publication that is held back to be joined with others must not come after the reply to a later message."""
    sent = []
    for number in range(1000):
        sent.append(message("chat", {"publish": "mixed"}, str(number)).encode("ascii"))
        if number % 3 == 0:
            sent.append(message("echo", {}, str(number)).encode("ascii"))
    with RawClient(server.port) as client:
        client.subscribe("mixed")
        client.sock.sendall(b"".join(map(client_frame, sent)))
        assert [client.receive() for _ in sent] == [(TEXT, expected) for expected in sent]


def test_publisher_that_is_subscribed_gets_its_own_burst(server: ServerProcess) -> None:
    messages = list(burst("own"))
    with RawClient(server.port) as client:
        client.subscribe("own")
        sending = threading.Thread(target=client.sock.sendall, args=(b"".join(map(client_frame, messages)),))
        sending.start()
        assert [client.receive()[1] for _ in messages] == messages
        sending.join(TIME_LIMIT)


def test_bursts_of_two_publishers_each_keep_their_order(server: ServerProcess) -> None:
    with ExitStack() as stack:
        subscriber, *publishers = (stack.enter_context(RawClient(server.port)) for _ in range(3))
        subscriber.subscribe("two")
        senders = []
        for name, publisher in zip("ab", publishers, strict=True):
            frames = b"".join(
                client_frame(message("chat", {"publish": "two"}, f"{name}{number}").encode("ascii"))
                for number in range(2000)
            )
            senders.append(threading.Thread(target=publisher.sock.sendall, args=(frames,)))
        for sender in senders:
            sender.start()
        bodies = [subscriber.receive()[1].rpartition(b"\n")[2].decode("ascii") for _ in range(4000)]
        for sender in senders:
            sender.join(TIME_LIMIT)
    for name in "ab":
        assert [body for body in bodies if body[0] == name] == [f"{name}{number}" for number in range(2000)]


def test_subscribing_twice_delivers_once(server: ServerProcess) -> None:
    with RawClient(server.port) as client:
        client.subscribe("twice twice")
        client.subscribe("twice")
        once = message("chat", {"publish": "twice", "receipt": "p"}).encode("ascii")
        client.send(once)
        assert client.receive() == (TEXT, message("chat", {"publish": "twice"}).encode("ascii"))
        assert client.receive() == (TEXT, message("receipt", {"receipt-id": "p"}).encode("ascii"))


def test_publishing_to_two_channels_delivers_twice(server: ServerProcess) -> None:
    with RawClient(server.port) as client:
        client.subscribe("one two")
        both = message("chat", {"publish": "one two"}, "hello").encode("ascii")
        client.send(both)
        client.send(message("echo").encode("ascii"))
        assert [client.receive()[1] for _ in range(3)] == [both, both, message("echo").encode("ascii")]


def test_unsubscribed_channel_is_silent(server: ServerProcess) -> None:
    with RawClient(server.port) as client:
        client.subscribe("left stayed")
        client.send(message("chat", {"unsubscribe": "left"}))
        client.send(message("chat", {"publish": "left stayed"}, "x"))
        client.send(message("echo"))
        expected = [message("chat", {"publish": "left stayed"}, "x"), message("echo")]
        assert [client.receive()[1].decode("ascii") for _ in range(2)] == expected


def test_burst_by_http_arrives_in_order(server: ServerProcess) -> None:
    with RawClient(server.port) as client:
        client.subscribe("posted")
        messages = [message("chat", {"publish": "posted"}, str(number)) for number in range(100)]
        for posted in messages:
            assert http_request(server.port, "POST", "/publish", posted)[0] == 200
        assert [client.receive()[1].decode("ascii") for _ in messages] == messages


def test_reader_that_does_not_read_is_closed_and_costs_the_others_nothing(
    serve: Callable[..., ServerProcess],
) -> None:
    server = serve()
    messages = [
        message("chat", {"publish": "flood"}, f"{number} " + "x" * 32_000).encode("ascii") for number in range(640)
    ]
    expected = b"".join(map(server_frame, messages))
    assert len(expected) > 20_000_000
    with ExitStack() as stack:
        publisher, *readers = (stack.enter_context(RawClient(server.port)) for _ in range(5))
        stalled = stack.enter_context(RawClient(server.port, receive_buffer=8192))
        for client in (*readers, stalled):
            client.subscribe("flood")
        before = server.resident_size()

        def publish() -> None:
            for sent in messages:
                publisher.sock.sendall(client_frame(sent))
                time.sleep(0.001)

        sending = threading.Thread(target=publish)
        sending.start()
        received = read_all(readers, len(expected))
        sending.join(TIME_LIMIT)
        assert [data == expected for data in received] == [True] * 4
        assert server.resident_size() - before < 16_000_000
        server.wait_for_log("it does not read")
        # The stalled reader finds whole messages in order, then 1013 or the end of the connection.
        seen = []
        try:
            while (frame := stalled.receive())[0] != CLOSE:
                seen.append(frame[1])
            assert frame[1][:2] == (1013).to_bytes(2, "big")
        except ConnectionError:
            pass
        assert seen == messages[: len(seen)]
        assert len(seen) < len(messages)


def test_pings_of_a_client_that_does_not_read_cost_no_memory(server: ServerProcess) -> None:
    flood = client_frame(b"x" * 125, PING) * 1000
    with RawClient(server.port, receive_buffer=8192) as client:
        client.sock.settimeout(1)
        before, sent = server.resident_size(), 0
        try:
            while sent < 50_000_000:
                sent += client.sock.send(flood)
        except TimeoutError:
            pass  # the server has stopped reading, as it should
        assert server.resident_size() - before < 10_000_000
        assert sent < 50_000_000
