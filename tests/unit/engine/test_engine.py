"""The engine: plans are made once, and a message costs no more work than it must."""

import tracemalloc

import pytest
from twisted.internet import defer

from lhttp_tx import HeaderFilter, Message, Request, processor
from lhttp_tx.codec import channels as channels_module
from lhttp_tx.codec.limits import Limits
from lhttp_tx.engine import engine as engine_module, plans
from lhttp_tx.errors import LocalProtocolError, RemoteProtocolError
from lhttp_tx.rules.model import AUTHENTICATED, Rule, Rules
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
    assert 50 <= len(server.engine._plans) <= 100_000 / plans._PLAN_COST


LIST = " ".join(map(str, range(100)))


@pytest.mark.parametrize(
    "head",
    [
        "LHTTP/1.0 chat\r\npublish:{}\r\n",
        f"LHTTP/1.0 chat\r\npublish:{{}} {LIST}\r\n",
        f"LHTTP/1.0 chat\r\nsubscribe:{{}} {LIST}\r\n",
        "LHTTP/1.0 chat\r\na:{}\r\nb:{}\r\n",
        "LHTTP/1.0 chat\r\npublish:a\r\na{}:\r\n",
        "LHTTP/1.0 chat\r\nsubscribe:a\r\na{}:\r\nunsubscribe:b\r\npublish:c\r\n",
        "LHTTP/1.0 c{}\r\n",
    ],
)
@pytest.mark.parametrize("rules", [None, Rules([Rule(max_rate=1, echo=False, publish=AUTHENTICATED)])])
def test_a_plan_takes_no_more_memory_than_it_is_counted_for(
    monkeypatch: pytest.MonkeyPatch, head: str, rules: Rules | None
) -> None:
    monkeypatch.setattr(engine_module, "_PLAN_SIZE", 200_000_000)
    monkeypatch.setattr("lhttp_tx.rules.filters._RULING_SIZE", 0)
    server = Server(rules=rules, limits=Limits(list_length=128))
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


class Asking(HeaderFilter):
    """A filter that asks for many header names."""

    headers = tuple(f"n{number}" for number in range(1_000))

    def after(self, request: Request) -> None:
        """Does nothing."""


def test_commands_and_names_that_nobody_knows_make_no_further_steps() -> None:
    server = Server()
    client = server.connect()
    for number in range(100):
        client.send(f"LHTTP/1.0 chat\r\nn{number}:\r\n\r\n")
        client.send(f"LHTTP/1.0 c{number}\r\nn:\r\n\r\n")
    assert len(server.engine._kinds) == 1


def test_steps_are_bounded_in_number() -> None:
    server = Server(filters=[Asking()])
    client = server.connect()
    for number in range(1_000):
        client.send(f"LHTTP/1.0 chat\r\nn{number}:\r\n\r\n")
    assert 1 < len(server.engine._kinds) <= 256


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


@pytest.mark.parametrize(("offsets", "part", "status"), [
    ("0 1", "a:b\r\n\r\n", 400),
    ("x", "\r\n", 400),
    (" ".join(str(2 * number) for number in range(129)), "\r\n", 413),
    ("0", "a:\r\n" * 257 + "\r\n", 413),
])  # fmt: skip
def test_publish_message_refuses_parts_that_a_client_may_not_send(offsets: str, part: str, status: int) -> None:
    body = part * 129 if part == "\r\n" else part
    with pytest.raises(RemoteProtocolError) as caught:
        Server().engine.publish_message(Message("news", [("publish", "room"), ("multipart", offsets)], body))
    assert caught.value.status == status


def test_publish_message_refuses_a_message_without_channels() -> None:
    with pytest.raises(RemoteProtocolError, match="no publish header"):
        Server().engine.publish_message(Message("news"))


@pytest.mark.parametrize("channel", ["", "a b", "$SYS", "a..b", "*", []])
def test_code_cannot_publish_to_what_is_no_channel(channel: str) -> None:
    with pytest.raises(LocalProtocolError):
        Server().engine.publish(channel, "news")


@pytest.mark.parametrize("header", ["publish", "subscribe", "unsubscribe"])
@pytest.mark.parametrize("rules", [None, Rules()])
def test_a_list_that_is_too_long_is_refused_before_its_names_are_looked_at(
    monkeypatch: pytest.MonkeyPatch, header: str, rules: Rules | None
) -> None:
    checked: list[str] = []
    original = channels_module.check_channel

    def counting(name: str) -> str:
        checked.append(name)
        return original(name)

    monkeypatch.setattr("lhttp_tx.codec.message.check_channel", counting)
    monkeypatch.setattr("lhttp_tx.codec.channels.check_channel", counting)
    server = Server(rules=rules, limits=Limits(subscription_count=3))
    client, other = server.connect(), server.connect()
    other.session.subscribe("a")
    checked.clear()
    client.send(f"LHTTP/1.0 chat\r\n{header}:a b\r\n{header.upper()}: a  *.$\r\n\r\n")
    (error,) = client.take()
    assert (error.headers.get("status"), error.headers.get("reason")) == ("429", "list of 4 channels is longer than 3")
    assert (checked, other.take(), client.session.channels) == ([], [], frozenset())
    client.send(f"LHTTP/1.0 chat\r\n{header}:a b c\r\n\r\n")
    assert [message.command for message in client.take()] == []


def test_the_length_of_a_list_is_an_option_of_its_own() -> None:
    client = Server(limits=Limits(subscription_count=9, list_length=2)).connect()
    client.send("LHTTP/1.0 chat\r\nsubscribe:a b c\r\n\r\n")
    assert [message.headers.get("status") for message in client.take()] == ["429"]


@pytest.mark.parametrize(
    ("limits", "most"),
    [({}, 32), ({"subscription_count": 20}, 20), ({"subscription_count": 500}, 32), ({"list_length": 100}, 100)],
)
def test_a_message_is_published_to_32_channels_unless_it_is_said_otherwise(limits: dict[str, int], most: int) -> None:
    client = Server(limits=Limits(**limits)).connect()
    names = [f"c{number}" for number in range(most + 1)]
    client.send(f"LHTTP/1.0 chat\r\npublish:{' '.join(names[1:])}\r\n\r\n")
    assert client.take() == []
    client.send(f"LHTTP/1.0 chat\r\npublish:{' '.join(names)}\r\n\r\n")
    (error,) = client.take()
    assert error.headers.get("reason") == f"list of {most + 1} channels is longer than {most}"


def test_code_publishes_to_as_many_channels_as_it_likes() -> None:
    server = Server(limits=Limits(list_length=2))
    client = server.connect()
    client.session.subscribe("d")
    server.engine.publish(["a", "b", "c", "d"], "chat")
    assert len(client.take()) == 1
    with pytest.raises(RemoteProtocolError, match="longer than 2"):
        server.engine.publish_message(Message("chat", {"publish": "a b c"}))


@pytest.mark.parametrize(
    ("header", "name", "reason"),
    [
        ("publish", "a.b.c.d", "channel 'a.b.c.d' has more than 3 tokens"),
        ("subscribe", "a.b.c.d", "channel 'a.b.c.d' has more than 3 tokens"),
        ("unsubscribe", "a.b.c.>", "channel 'a.b.c.>' has more than 3 tokens"),
        ("subscribe", "a.b.>", "wildcard subscription 'a.b.>' has more than 2 tokens"),
        ("subscribe", "*.*", "wildcard subscription '*.*' has more than 1 tokens *"),
        ("publish", "a.b.c", None),
        ("subscribe", "a.>", None),
        ("subscribe", "*.>", None),
        ("subscribe", "$presence.a.b.c", None),
        ("subscribe", "$presence.a.b.c.d", "channel '$presence.a.b.c.d' has more than 3 tokens"),
    ],
)
def test_the_tokens_of_a_name_are_bounded(header: str, name: str, reason: str | None) -> None:
    rules = Rules([Rule(wildcards=True, presence=True)])
    server = Server(rules=rules, limits=Limits(token_count=3, wildcard_tokens=2, wildcard_count=1))
    client = server.connect()
    client.send(f"LHTTP/1.0 chat\r\n{header}:{name}\r\n\r\n")
    assert [message.headers.get("reason") for message in client.take()] == ([] if reason is None else [reason])
