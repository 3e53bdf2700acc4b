"""Default headers in the engine: all ways of a message, and no work for each message."""

from __future__ import annotations

import pytest

from lhttp_tx import HeaderFilter, Message, Request, processor
from lhttp_tx.codec.defaults import NO_DEFAULTS, DefaultHeaders
from lhttp_tx.codec.limits import Limits
from lhttp_tx.rules.model import NOBODY, Rule, Rules
from lhttp_tx.testing import Client, Server

CHAT = DefaultHeaders({"chat": {"kind": "talk"}})


def pair(**settings: object) -> tuple[Server, Client, Client]:
    server = Server(default_headers=settings.pop("defaults", CHAT), **settings)  # type: ignore[arg-type]
    sender, reader = server.connect(), server.connect()
    reader.send("LHTTP/1.0 x\r\nsubscribe:a b\r\n\r\n")
    return server, sender, reader


def heads(client: Client) -> list[bytes]:
    return [message.head.raw for message in client.received]


PLAIN = b"LHTTP/1.0 chat\r\nkind:talk\r\npublish:a\r\n"


@pytest.mark.parametrize("count", [1, 5])
def test_publications_get_them_without_a_request(count: int) -> None:
    server, sender, reader = pair()
    for number in range(count):
        sender.send(f"LHTTP/1.0 chat\r\npublish:a\r\n\r\n{number}")
    assert heads(reader) == [PLAIN] * count
    assert [message.text for message in reader.received] == [str(number) for number in range(count)]
    assert server.engine.plan(b"LHTTP/1.0 chat\r\npublish:a\r\n\r\n").shortcut is not None


@pytest.mark.parametrize("lines", ["receipt:{}\r\npublish:a\r\n", "publish:a\r\nreceipt:{}\r\n"])
def test_publications_with_receipts_share_one_plan(lines: str) -> None:
    server, sender, reader = pair()
    for number in range(3):
        sender.send(f"LHTTP/1.0 chat\r\n{lines.format(number)}\r\nhi")
    assert heads(reader) == [PLAIN] * 3
    assert [message.headers.get("receipt-id") for message in sender.received] == ["0", "1", "2"]
    assert server.engine.plan(f"LHTTP/1.0 chat\r\n{lines.format(9)}\r\n".encode()).tokens is not None


@pytest.mark.parametrize(
    "lines", ["publish:a\r\nmessage-id:{0}\r\nreceipt:{0}\r\n", "receipt:{0}\r\nmessage-id:{0}\r\npublish:a\r\n"]
)
def test_message_ids_stay_known_behind_them(lines: str) -> None:
    _, sender, reader = pair(history=("a",))
    for number in (0, 1, 1):
        sender.send(f"LHTTP/1.0 chat\r\n{lines.format(number)}\r\nhi{number}")
    assert [message.text for message in reader.received] == ["hi0", "hi1"]
    assert [message.headers.get("kind") for message in reader.received] == ["talk"] * 2
    assert [message.headers.get("duplicate") for message in sender.received] == [None, None, "1"]


def test_a_default_publishes_and_subscribes() -> None:
    _, sender, _ = pair(defaults=DefaultHeaders({"say": {"publish": "a"}, "join": {"subscribe": "a"}}))
    sender.send("LHTTP/1.0 join\r\n\r\n")
    sender.send("LHTTP/1.0 say\r\n\r\nhello")
    assert [message.text for message in sender.received] == ["hello"]


def test_a_default_that_stores_nothing_counts_for_the_history() -> None:
    _, sender, reader = pair(defaults=DefaultHeaders({"typing": {"store": "no"}}), history=("a",))
    sender.send("LHTTP/1.0 typing\r\npublish:a\r\n\r\n")
    sender.send("LHTTP/1.0 chat\r\npublish:a\r\n\r\n")
    assert ["offset" in message.headers for message in reader.received] == [False, True]


def test_rules_judge_what_a_default_asks_for() -> None:
    rules = Rules([Rule("a", publish=NOBODY)])
    _, sender, reader = pair(defaults=DefaultHeaders({"say": {"publish": "a"}}), rules=rules)
    sender.send("LHTTP/1.0 say\r\nreceipt:1\r\n\r\nhello")
    assert [(message.command, message.headers.get("status")) for message in sender.received] == [("error", "403")]
    assert not reader.received


@pytest.mark.parametrize("lines", ["publish:a\r\n", "publish:a\r\nreceipt:1\r\n", "x:y\r\n"])
def test_a_message_with_them_is_not_larger_than_allowed(lines: str) -> None:
    head = f"LHTTP/1.0 chat\r\n{lines}\r\n"
    room = 200 - len(head) - len("kind:talk\r\n")
    _, sender, _ = pair(limits=Limits(message_size=200))
    for _ in range(2):
        sender.send(head + "x" * room)
    assert not [message for message in sender.received if message.command == "error"]
    for _ in range(2):
        sender.send(head + "x" * (room + 1))
    refused = [message for message in sender.received if message.command == "error"]
    assert [message.headers.get("status") for message in refused] == ["413", "413"]


def test_processors_and_filters_see_them() -> None:
    seen: list[str | None] = []

    @processor("chat")
    def chat(request: Request) -> None:
        seen.append(request.headers.get("kind"))
        request.reply()

    server = Server(default_headers=CHAT, processors=[chat])
    client = server.connect()
    client.send("LHTTP/1.0 chat\r\n\r\nhi")
    client.send("LHTTP/1.0 chat\r\nkind:own\r\n\r\nhi")
    assert seen == ["talk", "own"]
    assert client.received[0].raw == b"LHTTP/1.0 chat\r\nkind:talk\r\n\r\nhi"


class Remover(HeaderFilter):
    """Takes the default out of some messages."""

    def before(self, request: Request) -> None:
        if request.body == b"out":
            request.message = request.message.replace(headers=request.headers.without(frozenset({"kind"})))


def test_a_filter_may_take_one_out_and_the_next_message_has_it_again() -> None:
    server = Server(default_headers=CHAT, filters=[Remover()])
    sender, reader = server.connect(), server.connect()
    reader.send("LHTTP/1.0 x\r\nsubscribe:a\r\n\r\n")
    for body in ("out", "in", "out", "in"):
        sender.send(f"LHTTP/1.0 chat\r\npublish:a\r\n\r\n{body}")
    assert [message.headers.get("kind") for message in reader.received] == [None, "talk"] * 2


def test_others_may_be_put_in_force() -> None:
    server, sender, reader = pair()
    for defaults in (CHAT, DefaultHeaders({"chat": {"kind": "other"}}), NO_DEFAULTS):
        server.engine.use_defaults(defaults)
        sender.send("LHTTP/1.0 chat\r\npublish:a\r\n\r\n")
    assert [message.headers.get("kind") for message in reader.received] == ["talk", "other", None]


def test_what_the_servers_code_publishes_gets_them() -> None:
    server, _, reader = pair()
    server.engine.publish("a", "chat", {}, "hi")
    server.engine.publish_message(Message("chat", [("publish", "b")]))
    assert [message.headers.get("kind") for message in reader.received] == ["talk", None]
