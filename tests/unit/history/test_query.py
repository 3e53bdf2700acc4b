"""The command history: what is answered, in which order, and to whom."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from lhttp_tx import Hooks, Message, Refused, Session
from lhttp_tx.client.results import history_page
from lhttp_tx.codec.limits import Limits
from lhttp_tx.codec.multipart import Part, parse_offsets, split_parts
from lhttp_tx.history.values import Retention
from lhttp_tx.rules.model import NOBODY, Rule, Rules
from lhttp_tx.testing import Client, Server
from unit.history.test_recovery import a_late_server, a_server, at, publish


def ask(client: Client, channel: str = "room.a", **headers: str) -> None:
    client.send(Message("history", {"channel": channel, **headers}))


def answer_of(client: Client) -> Message:
    (answer,) = client.take()
    assert answer.command == "history", answer.headers
    return answer


def parts_of(answer: Message) -> list[Part]:
    offsets = answer.headers.get("multipart")
    return [] if offsets is None else [*split_parts(parse_offsets(offsets), answer.body)]


def bodies_of(answer: Message) -> list[str]:
    return [part.body.decode() for part in parts_of(answer)]


def headers_of(answer: Message) -> dict[str, str]:
    return {name: value for name, value in answer.headers if name != "multipart"}


@pytest.fixture
def server() -> Server:
    server = a_server()
    publish(server, "room.a", *range(1, 7))
    return server


def test_without_a_bound_it_begins_with_the_oldest(server: Server) -> None:
    client = server.connect()
    ask(client)
    answer = answer_of(client)
    assert bodies_of(answer) == ["1", "2", "3", "4", "5", "6"]
    assert headers_of(answer) == {"channel": "room.a", "position": at(server, 6)}
    assert [*parts_of(answer)[1].headers] == [
        ("command", "say"),
        ("offset", "2"),
        ("after", "1"),
        ("publish", "room.a"),
    ]


@pytest.mark.parametrize(
    ("headers", "bodies", "position", "more"),
    [
        ({"limit": "2"}, "12", 2, "1"),
        ({"limit": "6"}, "123456", 6, None),
        ({"since": "2"}, "3456", 6, None),
        ({"since": "2", "limit": "2"}, "34", 4, "1"),
        ({"since": "2", "order": "oldest"}, "3456", 6, None),
        ({"since": "6"}, "", 6, None),
        ({"before": "3"}, "12", 6, None),
        ({"before": "5", "limit": "2"}, "34", 6, "1"),
        ({"before": "1"}, "", 6, None),
        ({"before": "0"}, "", 6, None),
        ({"order": "newest"}, "654321", 6, None),
        ({"order": "newest", "limit": "2"}, "65", 6, "1"),
        ({"order": "newest", "before": "5", "limit": "2"}, "43", 6, "1"),
        ({"order": "newest", "before": "3", "limit": "2"}, "21", 6, None),
        ({"limit": "9999999"}, "123456", 6, None),
    ],
)
def test_a_part_of_it(server: Server, headers: dict[str, str], bodies: str, position: int, more: str | None) -> None:
    client = server.connect()
    ask(client, **{
        name: at(server, int(value)) if name in ("since", "before") else value for name, value in headers.items()
    })  # fmt: skip
    answer = answer_of(client)
    assert bodies_of(answer) == [*bodies]
    assert answer.headers.get("position") == at(server, position)
    assert answer.headers.get("more") == more
    assert answer.headers.get("missed") is None


def test_a_receipt_comes_behind_the_answer(server: Server) -> None:
    client = server.connect()
    ask(client, receipt="r")
    assert [message.command for message in client.take()] == ["history", "receipt"]


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"channel": ""}, "empty"),
        ({"channel": "a b"}, "blank"),
        ({"channel": "room.>"}, ""),
        ({"limit": "0"}, "not a number"),
        ({"limit": "-1"}, "not a number"),
        ({"limit": "²"}, "not a number"),
        ({"limit": "1" * 5_000}, "not a number"),
        ({"order": "random"}, "neither"),
        ({"since": "5"}, "not a position"),
        ({"before": "room.a=E-5"}, "not a position"),
        ({"since": "E-5", "before": "E-6"}, "cannot be combined"),
        ({"since": "E-5", "order": "newest"}, "cannot be combined"),
    ],
)
def test_what_makes_no_sense_is_refused(server: Server, headers: dict[str, str], reason: str) -> None:
    client = server.connect()
    client.send(Message("history", {"channel": "room.a", "receipt": "r", **headers}))
    (error,) = client.take()
    assert (error.command, error.headers.get("status"), error.headers.get("receipt-id")) == ("error", "400", "r")
    assert reason in error.headers.get("reason", "")


def test_the_channel_must_be_named(server: Server) -> None:
    client = server.connect()
    client.send("LHTTP/1.0 history\r\n\r\n")
    assert [message.headers.get("status") for message in client.take()] == ["400"]


@pytest.mark.parametrize(("channel", "headers", "status"), [
    ("other", {}, "404"),
    ("room.a", {"before": "old-5"}, "410"),
])  # fmt: skip
def test_what_is_not_there_is_refused(server: Server, channel: str, headers: dict[str, str], status: str) -> None:
    client = server.connect()
    ask(client, channel, **headers)
    assert [message.headers.get("status") for message in client.take()] == [status]


def test_since_another_epoch_begins_with_the_oldest_and_says_so(server: Server) -> None:
    client = server.connect()
    ask(client, since="old-5", limit="1")
    answer = answer_of(client)
    assert (bodies_of(answer), answer.headers.get("missed")) == (["1"], "1")


def test_what_is_trimmed_is_told() -> None:
    server = a_server(retention=Retention(messages=2))
    publish(server, "room.a", 1, 2, 3, 4)
    client = server.connect()
    ask(client, since=at(server, 1))
    answer = answer_of(client)
    assert (bodies_of(answer), answer.headers.get("missed")) == (["3", "4"], "1")
    ask(client)
    assert answer_of(client).headers.get("missed") is None


def test_a_channel_that_nobody_has_published_to_is_empty(server: Server) -> None:
    client = server.connect()
    ask(client, "room.new")
    answer = answer_of(client)
    assert (bodies_of(answer), headers_of(answer)) == ([], {"channel": "room.new", "position": at(server, 6)})


@pytest.mark.parametrize("order", ["oldest", "newest"])
def test_paging_gives_everything_once_within_the_size_of_a_message(order: str) -> None:
    server = a_server(limits=Limits(message_size=20_000))
    bodies = [f"{number} ".ljust(number * 700) for number in range(1, 26)]
    publish(server, "room.a", *bodies)
    client = server.connect()
    found: list[str] = []
    headers = {"order": order}
    for _ in range(50):
        ask(client, limit="7", **headers)
        answer = answer_of(client)
        assert len(answer.raw) <= 20_000
        found += bodies_of(answer)
        if answer.headers.get("more") is None:
            break
        if order == "oldest":
            headers["since"] = answer.headers.get("position", "")
        else:
            headers["before"] = at(server, int(parts_of(answer)[-1].headers.get("offset", "")))
    assert found == (bodies if order == "oldest" else bodies[::-1])


def test_an_answer_with_one_binary_message_is_binary(server: Server) -> None:
    server.engine.publish("room.a", "say", body=b"\xff", binary=True)
    client = server.connect()
    ask(client)
    answer = answer_of(client)
    assert answer.binary
    assert parts_of(answer)[-1].body == b"\xff"


def test_a_publisher_cannot_forge_the_command_of_a_part(server: Server) -> None:
    client = server.connect()
    client.send("LHTTP/1.0 say\r\npublish:room.a\r\ncommand:admin\r\noffset:1\r\n\r\nx")
    ask(client, order="newest", limit="1")
    answer = answer_of(client)
    assert [message.command for message in history_page(answer, "room.a").messages] == ["say"]
    (part,) = parts_of(answer)
    assert part.headers.get_all("command") == ("say", "admin")  # the first one is the server's
    assert part.headers.get_all("offset") == ("7",)


def test_messages_without_a_blank_line_are_parts_too(server: Server) -> None:
    client = server.connect()
    client.send("LHTTP/1.0 bare\r\noffset:9\r\npublish:room.a\r\n")
    client.send("LHTTP/1.0 say\r\npublish:room.a\r\n\r\n\r\n\r\n")
    ask(client, order="newest", limit="2")
    last, bare = parts_of(answer_of(client))
    assert (bare.headers.get("command"), bare.headers.get_all("offset"), bare.body) == ("bare", ("7",), b"")
    assert (last.headers.get("command"), last.body) == ("say", b"\r\n\r\n")


def test_one_client_that_asks_for_much_lets_others_have_their_turn(server: Server) -> None:
    publish(server, "room.a", *["x" * 10_000] * 10)
    greedy, other = server.connect(), server.connect()
    archive = server.assembly.histories.archive
    archive.turns.spend(1_000_000, 1)
    other.session.publish("room.a", "say")
    greedy.session.receive(b"LHTTP/1.0 history\r\nchannel:room.a\r\n\r\n", False)
    assert greedy.take() == []
    server.clock.advance(0)
    assert [message.command for message in greedy.take()] == ["history"]


def test_only_who_may_subscribe_may_ask() -> None:
    rules = Rules([Rule(match="room.a", subscribe=NOBODY, history=Retention())])
    server = Server(rules=rules)
    client = server.connect()
    ask(client)
    ask(client, "other")
    assert [message.headers.get("status") for message in client.take()] == ["403", "404"]


def test_hooks_are_asked_and_may_take_their_time() -> None:
    class Door(Hooks):
        def before_subscribe(self, session: Session, channel: str) -> Any:
            if channel == "room.no":
                raise Refused(403, "no")
            return waiting

    waiting: Deferred[None] = Deferred()
    server = a_server(hooks=[Door()])
    publish(server, "room.a", 1)
    client = server.connect()
    ask(client, "room.no")
    assert [message.headers.get("status") for message in client.take()] == ["403"]
    ask(client, receipt="r")
    assert client.take() == []
    waiting.callback(None)
    assert [message.command for message in client.take()] == ["history", "receipt"]


def test_a_store_may_take_its_time_and_fail() -> None:
    server, store = a_late_server()
    publish(server, "room.a", 1)
    client = server.connect()
    ask(client, receipt="r")
    assert client.take() == []
    store.answer()
    assert [message.command for message in client.take()] == ["history", "receipt"]
    ask(client, receipt="r")
    store.refuse()
    assert [message.headers.get("status") for message in client.take()] == ["503"]


def test_the_command_is_free_where_there_is_no_history() -> None:
    client = Server().connect()
    ask(client, receipt="r")
    assert [message.command for message in client.take()] == ["receipt"]


def test_an_answer_names_the_receipt_of_its_question() -> None:
    server = Server(history=["room"])
    client = server.connect()
    client.send("LHTTP/1.0 history\r\nchannel:room\r\nreceipt:7\r\n\r\n")
    assert [(message.command, message.headers.get("receipt-id")) for message in client.take()] == [
        ("history", "7"),
        ("receipt", "7"),
    ]


def test_answers_come_only_as_fast_as_the_client_reads() -> None:
    server = a_server(limits=Limits(processor_timeout=5.0, unsent_size=300_000))
    publish(server, "room.a", *["x" * 20_000] * 10)
    client = server.connect()
    client.stop_reading()
    for _ in range(50):
        ask(client)
    answers = []
    for _ in range(60):
        server.clock.advance(4.0)
        client.read_on()
        client.stop_reading()
        answers += client.take()
        server.clock.advance(4.0)
    assert client.connected
    assert [answer.command for answer in answers] == ["history"] * 50


def test_what_a_client_has_asked_for_is_not_read_when_it_is_gone() -> None:
    server = a_server()
    publish(server, "room.a", *["x" * 20_000] * 10)
    client = server.connect()
    server.assembly.histories.archive.turns.spend(1_000_000, 0)  # somebody else has had this turn
    ask(client)
    read = []
    store = server.assembly.histories.store
    before, store.read = store.read, lambda *args, **options: read.append(args) or before(*args, **options)
    client.disconnect()
    server.clock.advance(0)
    assert not read
