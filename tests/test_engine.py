"""The engine: plans are made once, and a message costs no more work than it must."""

import tracemalloc

import pytest
from twisted.internet import defer

from lhttp_tx import HeaderFilter, Message, Request, engine as engine_module, processor
from lhttp_tx.errors import RemoteProtocolError
from lhttp_tx.limits import Limits
from lhttp_tx.testing import Client, Server


@processor("echo")
def echo(request: Request) -> None:
    request.reply()


def test_equal_heads_are_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[bytes] = []
    original = engine_module.parse_head

    def counting(raw: bytes, limits: object) -> object:
        parsed.append(raw)
        return original(raw, limits)  # type: ignore[arg-type]

    monkeypatch.setattr(engine_module, "parse_head", counting)
    client = Server().connect()
    for number in range(100):
        client.send(f"LHTTP/1.0 chat\r\npublish:room\r\n\r\n{number}")
    assert parsed == [b"LHTTP/1.0 chat\r\npublish:room\r\n"]


@pytest.mark.parametrize("header", ["n", "publish"])
def test_plans_are_bounded_in_what_they_take(monkeypatch: pytest.MonkeyPatch, header: str) -> None:
    monkeypatch.setattr(engine_module, "_PLAN_SIZE", 100_000)
    server = Server()
    client = server.connect()
    for number in range(1_000):
        client.send(f"LHTTP/1.0 chat\r\n{header}:{number}\r\n\r\n")
    assert 50 <= len(server.engine._plans) <= 100_000 / engine_module._PLAN_COST


@pytest.mark.parametrize(
    "head", ["LHTTP/1.0 chat\r\npublish:{}\r\n", "LHTTP/1.0 chat\r\na:{}\r\nb:{}\r\n", "LHTTP/1.0 c{}\r\n"]
)
def test_a_plan_takes_no_more_memory_than_it_is_counted_for(head: str) -> None:
    server = Server()
    messages = [f"{head}\r\n".replace("{}", str(number)).encode() for number in range(2_000)]
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        cost = sum(server.engine.plan(message).cost for message in messages)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(server.engine._plans) == 2_000
    assert after - before <= cost + 100_000


def test_steps_are_bounded_in_number() -> None:
    server = Server()
    client = server.connect()
    for number in range(1_000):
        client.send(f"LHTTP/1.0 chat\r\nn{number}:\r\n\r\n")
    assert len(server.engine._kinds) <= 256


def test_large_heads_are_not_kept() -> None:
    server = Server()
    server.connect().send("LHTTP/1.0 chat\r\nlong:" + "x" * 1_000 + "\r\n\r\n")
    server.connect().send("LHTTP/1.0 chat\r\n" + "x" * 1_000 + ":\r\n\r\n")
    assert len(server.engine._plans) == 0
    assert len(server.engine._kinds) == 1


class Widening(HeaderFilter):
    def before(self, request: Request) -> None:
        request.message = request.message.replace(headers=[*request.headers, ("b", "2")])


def test_a_head_that_a_filter_made_lets_nobody_past_the_limits() -> None:
    client = Server(filters=[Widening()], limits=Limits(header_count=1)).connect()
    client.send("LHTTP/1.0 chat\r\na:1\r\n\r\n")
    assert client.take() == []
    client.send("LHTTP/1.0 chat\r\na:1\r\nb:2\r\n\r\n")
    assert [message.headers.get("status") for message in client.take()] == ["413"]


def test_a_message_that_nobody_waits_for_makes_no_deferred(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(processors=[echo])
    client = server.connect()
    client.send("LHTTP/1.0 x\r\nsubscribe:room\r\n\r\n")
    made: list[object] = []
    original = defer.Deferred.__init__

    def counting(self: object, *args: object, **kwargs: object) -> None:
        made.append(self)
        original(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(defer.Deferred, "__init__", counting)
    client.send("LHTTP/1.0 x\r\npublish:room\r\nreceipt:1\r\n\r\nhello")
    client.send("LHTTP/1.0 echo\r\n\r\nhello")
    client.send("LHTTP/1.0 x\r\nsubscribe:other\r\n\r\n")
    client.send("LHTTP/1.0 x\r\nunsubscribe:other\r\n\r\n")
    client.send("LHTTP/1.0 malformed")
    assert len(client.take()) == 4
    assert made == []


def test_a_publication_without_headers_for_the_server_is_forwarded_as_the_bytes_that_came_in() -> None:
    payloads: list[bytes] = []
    server = Server()
    server.bus.subscribe("room", lambda channel, run, binary: payloads.extend(run))
    message = Message("x", {"publish": "room"}, "hello")
    client = server.connect()
    client.send(message)
    assert payloads[0] is message.raw


def subscribed(server: Server) -> Client:
    client = server.connect()
    client.send("LHTTP/1.0 x\r\nsubscribe:room\r\n\r\n")
    return client


def test_code_without_a_connection_can_publish() -> None:
    server = Server()
    client = subscribed(server)
    fired: list[None] = []
    server.engine.publish("room", "news", {"a": "b"}, "hello").addCallback(fired.append)
    assert fired == [None]
    assert client.take() == [Message("news", [("publish", "room"), ("a", "b")], "hello")]


def test_publish_message_reads_the_channels_from_the_message() -> None:
    server = Server()
    client = subscribed(server)
    server.engine.publish_message(Message("news", [("publish", "room other"), ("receipt", "1")], "hello"))
    assert client.take() == [Message("news", {"publish": "room other"}, "hello")]


def test_publish_message_refuses_a_message_without_channels() -> None:
    with pytest.raises(RemoteProtocolError, match="no publish header"):
        Server().engine.publish_message(Message("news"))


@pytest.mark.parametrize("channel", ["", "a b", "$SYS", "a..b", "*"])
def test_code_cannot_publish_to_what_is_no_channel(channel: str) -> None:
    with pytest.raises(RemoteProtocolError):
        Server().engine.publish(channel, "news")
