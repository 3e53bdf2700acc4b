"""Publishing through a history: what is stored, what is delivered, and what receipts tell."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from lhttp_tx import Message
from lhttp_tx.bus.memory import MemoryBus
from lhttp_tx.errors import BusUnavailable, HistoryUnavailable
from lhttp_tx.history.ids import MessageIds
from lhttp_tx.history.memory import MemoryHistory
from lhttp_tx.history.values import DEFAULT_RETENTION, Placing, Retention
from lhttp_tx.interfaces import MaybeDeferred
from lhttp_tx.rules.model import Rule, Rules
from lhttp_tx.testing import Client, Server
from unit.history.test_recovery import a_server, at, publish, subscribe, told


class FullStore(MemoryHistory):
    """
    A store that takes so many publications more, and confirms when the test says so.

    :ivar room: how many.
    :ivar questions: those who want to know whether all is safe; ``None``: it is.
    """

    def __init__(self, clock: Clock, room: int = 1_000_000) -> None:
        super().__init__(clock)
        self.room = room
        self.is_available = True
        self.questions: list[Deferred[None]] | None = None

    @property
    def available(self) -> bool:
        return self.is_available

    def append(
        self, channel: str, retention: Retention, payloads: list[bytes], binary: bool, placing: Placing | None = None
    ) -> list[bytes]:
        if len(payloads) > self.room:
            raise HistoryUnavailable("the disk is full")
        self.room -= len(payloads)
        return super().append(channel, retention, payloads, binary, placing)

    def confirm(self) -> Any:
        if self.questions is None:
            return None
        self.questions.append(Deferred())
        return self.questions[-1]


def a_full_server(room: int = 1_000_000, **settings: Any) -> tuple[Server, FullStore]:
    clock = Clock()
    store = FullStore(clock, room)
    return a_server(clock=clock, history_store=store, **settings), store


def send(client: Client, channels: str, body: str = "x", **headers: str) -> None:
    client.send(Message("say", {"publish": channels, **headers}, body))


def receipts(client: Client) -> list[dict[str, str]]:
    return [
        {name: value for name, value in message.headers if name != "receipt-id"}
        for message in client.take()
        if message.command == "receipt"
    ]


@pytest.fixture
def server() -> Server:
    return a_server()


def test_a_receipt_tells_the_position_in_each_channel_with_history(server: Server) -> None:
    client = server.connect()
    send(client, "room.a", receipt="r")
    send(client, "room.a other room.b", receipt="r")
    send(client, "other", receipt="r")
    assert receipts(client) == [
        {"position": f"room.a={at(server, 1)}"},
        {"position": f"room.a={at(server, 2)} room.b={at(server, 3)}"},
        {},
    ]


def test_the_second_one_with_an_id_is_not_published(server: Server) -> None:
    reader, client = server.connect(), server.connect()
    subscribe(reader, "room.a other")
    for channel in ("room.a", "other"):
        for body in "12":
            send(client, channel, body, receipt="r", **{"message-id": "id"})
    assert [message.text for message in reader.take()] == ["1", "1"]
    assert receipts(client) == [
        {"position": f"room.a={at(server, 1)}"},
        {"position": f"room.a={at(server, 1)}", "duplicate": "1"},
        {},
        {"duplicate": "1"},
    ]


def test_subscribers_see_the_id(server: Server) -> None:
    reader, client = server.connect(), server.connect()
    subscribe(reader, "room.a other")
    send(client, "room.a", **{"message-id": "id"})
    send(client, "other", **{"Message-ID": "id"})
    assert [message.headers.get("message-id") for message in reader.take()] == ["id", "id"]


def test_ids_belong_to_their_channel_and_are_compared_as_they_are(server: Server) -> None:
    reader, client = server.connect(), server.connect()
    subscribe(reader, "room.a room.b other.a other.b")
    for channel in ("room.a", "room.b", "other.a", "other.b"):
        send(client, channel, **{"message-id": "id"})
        send(client, channel, **{"message-id": "ID"})
    assert len(reader.take()) == 8


def test_it_is_a_duplicate_where_it_was_there_in_each_of_its_channels(server: Server) -> None:
    reader, client = server.connect(), server.connect()
    subscribe(reader, "room.a room.b other")
    send(client, "room.a", **{"message-id": "id"})
    for _ in range(2):
        send(client, "room.a room.b other", receipt="r", **{"message-id": "id"})
    assert len(reader.take()) == 3
    position = f"room.a={at(server, 1)} room.b={at(server, 2)}"
    assert receipts(client) == [{"position": position}, {"position": position, "duplicate": "1"}]


def test_an_id_is_known_for_the_window() -> None:
    server = a_server(message_id_window=10.0)
    client = server.connect()
    for channel in ("room.a", "other"):
        for seconds in (0, 9.9, 0.1):
            server.clock.advance(seconds)
            send(client, channel, receipt="r", **{"message-id": "id"})
    assert [receipt.get("duplicate") for receipt in receipts(client)] == [None, "1", None] * 2


@pytest.mark.parametrize("message_id", ["", " ", "a b", "é", "x" * 65])
@pytest.mark.parametrize("channel", ["room.a", "other"])
def test_a_malformed_id_is_refused(server: Server, message_id: str, channel: str) -> None:
    reader, client = server.connect(), server.connect()
    subscribe(reader, channel)
    client.send(f"LHTTP/1.0 say\r\npublish:{channel}\r\nreceipt:r\r\nmessage-id:{message_id}\r\n\r\n")
    assert [message.headers.get("status") for message in client.take()] == ["400"]
    assert reader.take() == []


def test_an_id_may_be_as_long_as_it_may_be(server: Server) -> None:
    client = server.connect()
    send(client, "room.a", receipt="r", **{"message-id": "x" * 64})
    assert len(receipts(client)) == 1


@pytest.mark.parametrize("headers", [{}, {"receipt": "r"}, {"message-id": "id"}])
def test_what_is_not_to_be_stored_is_delivered_all_the_same(server: Server, headers: dict[str, str]) -> None:
    reader, client = server.connect(), server.connect()
    subscribe(reader, "room.a")
    client.send(Message("say", {"publish": "room.a", "store": "no", "offset": "7", "After": "6", **headers}, "typing"))
    send(client, "room.a", "kept")
    typing, kept = reader.take()
    assert (typing.text, typing.headers.get("offset"), typing.headers.get("after")) == ("typing", None, None)
    assert (kept.text, kept.headers.get("offset"), kept.headers.get("after")) == ("kept", "1", "0")
    assert all("position" not in receipt for receipt in receipts(client))


@pytest.mark.parametrize("value", ["yes", "NO", ""])
def test_everything_else_is_stored(server: Server, value: str) -> None:
    client = server.connect()
    send(client, "room.a", receipt="r", store=value)
    assert [*receipts(client)[0]] == ["position"]


@pytest.mark.parametrize("head", ["", "receipt:r\r\n", "store:no\r\n", "message-id:5\r\n", "reply-to:x\r\n"])
def test_no_publisher_can_forge_a_position(server: Server, head: str) -> None:
    reader, client = server.connect(), server.connect()
    subscribe(reader, "room.a")
    for forged in ("offset:999\r\nafter:998\r\n", "OFFSET:999\r\n", "x:y\r\nAfter:7\r\nx:z\r\n"):
        client.send(f"LHTTP/1.0 say\r\n{forged}publish:room.a\r\n{head}{forged}\r\noffset:999\r\n")
    kept = 0 if "store" in head else 1 if "message-id" in head else 3
    expected = [(str(offset),) for offset in range(1, kept + 1)] or [()]
    assert [message.headers.get_all("offset") for message in reader.take()][: len(expected)] == expected


def test_a_read_is_stored_as_one_run(server: Server) -> None:
    reader = server.connect()
    subscribe(reader, "room.a")
    publications = (b"LHTTP/1.0 say\r\npublish:room.a\r\n\r\n%d" % number for number in range(600))
    retention = server.assembly.histories.archive.retention("room.a")
    assert retention == DEFAULT_RETENTION
    server.engine.hub.publish_run(("room.a",), publications, False)
    found = reader.take()
    assert [message.text for message in found] == [str(number) for number in range(600)]
    assert [message.headers.get("offset") for message in found] == [str(number) for number in range(1, 601)]
    assert [message.headers.get("after") for message in found] == [str(number) for number in range(600)]


def test_a_store_that_refuses_in_the_middle_of_a_run_takes_nothing_of_the_rest() -> None:
    server, _ = a_full_server(1_500)
    reader = server.connect()
    subscribe(reader, "room.a")
    publications = iter([b"LHTTP/1.0 say\r\npublish:room.a\r\n\r\n%d" % number for number in range(5_000)])
    with pytest.raises(HistoryUnavailable, match="publications in a row: the disk is full"):
        server.engine.hub.publish_run(("room.a",), publications, False)
    assert 0 < len(reader.take()) <= 1_500
    assert next(publications, None) is not None


def test_each_publication_that_is_refused_alone_is_told() -> None:
    server, _ = a_full_server(1)
    reader, client = server.connect(), server.connect()
    subscribe(reader, "room.a")
    for body in "12":
        send(client, "room.a", body)
    send(client, "room.a", "3", receipt="r")
    found = client.take()
    assert [(message.headers.get("status"), message.headers.get("receipt-id")) for message in found] == [
        ("503", None),
        ("503", "r"),
    ]
    assert told(reader) == ["1"]


def test_a_store_that_is_away_refuses_at_once() -> None:
    server, store = a_full_server()
    store.is_available = False
    client = server.connect()
    send(client, "room.a")
    assert [message.headers.get("status") for message in client.take()] == ["503"]
    send(client, "other", receipt="r")
    assert len(receipts(client)) == 1


def test_what_was_refused_may_be_sent_again_with_its_id() -> None:
    server, store = a_full_server(0)
    reader, client = server.connect(), server.connect()
    subscribe(reader, "room.a other")
    send(client, "other room.a", receipt="r", **{"message-id": "id"})
    store.room = 10
    send(client, "other room.a", receipt="r", **{"message-id": "id"})
    assert [message.headers.get("status") for message in client.take()] == ["503", None]
    assert told(reader) == ["x", "x"]


def test_the_receipt_waits_until_the_store_has_it_and_delivery_does_not() -> None:
    server, store = a_full_server()
    store.questions = []
    reader, client = server.connect(), server.connect()
    subscribe(reader, "room.a")
    send(client, "room.a", receipt="r")
    assert told(reader) == ["x"]
    assert client.take() == []
    store.questions.pop().callback(None)
    assert receipts(client) == [{"position": f"room.a={at(server, 1)}"}]


def test_receipts_that_wait_are_filled_in_when_it_is_known() -> None:
    class Acknowledging(FullStore):
        placings: list[Placing]

        def append(self, *arguments: Any) -> list[bytes]:
            placing = arguments[4]
            if placing is not None:
                self.placings.append(placing)
            return super().append(*arguments[:4])

    clock = Clock()
    store = Acknowledging(clock)
    store.placings, store.questions = [], []
    server = a_server(clock=clock, history_store=store)
    client = server.connect()
    for number in range(4):
        send(client, "room.a", receipt=f"r{number}", **{"message-id": str(number)})
    send(client, "other", receipt="plain")
    assert client.take() == []
    store.placings[0].position = "E-1"
    store.placings[1].failure = HistoryUnavailable("the stream is full")
    store.placings[2].position, store.placings[2].duplicate = "E-1", True
    while store.questions:
        store.questions.pop(0).callback(None)
    found = client.take()
    assert [(message.command, message.headers.get("receipt-id")) for message in found] == [
        ("receipt", "r0"),
        ("error", "r1"),
        ("receipt", "r2"),
        ("receipt", "r3"),
        ("receipt", "plain"),
    ]
    assert found[0].headers.get("position") == "room.a=E-1"
    assert (found[1].headers.get("status"), found[1].headers.get("reason")) == ("503", "the stream is full")
    assert found[2].headers.get("duplicate") == "1"
    assert found[3].headers.get("position") is None


def test_a_store_that_cannot_say_is_told_with_an_error() -> None:
    server, store = a_full_server()
    store.questions = []
    client = server.connect()
    send(client, "room.a", receipt="r")
    store.questions.pop().errback(HistoryUnavailable("it is not known"))
    assert [message.headers.get("status") for message in client.take()] == ["503"]


class FarBus(MemoryBus):
    """A bus that confirms when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.questions: list[Deferred[None]] = []

    def confirm(self) -> Deferred[None]:
        self.questions.append(Deferred())
        return self.questions[-1]


def test_a_receipt_waits_for_the_store_and_for_the_bus() -> None:
    bus = FarBus()
    clock = Clock()
    store = FullStore(clock)
    store.questions = []
    server = a_server(clock=clock, bus=bus, history_store=store)
    client = server.connect()
    send(client, "room.a", receipt="r")
    bus.questions.pop().callback(None)
    assert client.take() == []
    store.questions.pop().callback(None)
    assert receipts(client) == [{"position": f"room.a={at(server, 1)}"}]


@pytest.mark.parametrize("first", ["bus", "store"])
@pytest.mark.parametrize(("lost", "reason"), [("bus", "the bus"), ("store", "the store"), ("bus store", "the bus")])
def test_one_that_fails_is_enough_but_both_have_answered(first: str, lost: str, reason: str) -> None:
    bus = FarBus()
    clock = Clock()
    store = FullStore(clock)
    store.questions = []
    server = a_server(clock=clock, bus=bus, history_store=store)
    client = server.connect()
    send(client, "room.a", receipt="r")
    questions = {"bus": bus.questions.pop(), "store": store.questions.pop()}
    errors = {"bus": BusUnavailable("the bus"), "store": HistoryUnavailable("the store")}
    for name in (first, "store" if first == "bus" else "bus"):
        assert client.take() == []
        questions[name].callback(None) if name not in lost else questions[name].errback(errors[name])
    assert [message.headers.get("reason") for message in client.take()] == [reason]


def test_a_bus_that_takes_one_at_a_time_gets_all_that_was_stored() -> None:
    class Slow(MemoryBus):
        answers: list[Deferred[None]]

        def publish_run(self, channel: str, payloads: Iterator[bytes], binary: bool) -> Any:
            super().publish_run(channel, islice(payloads, 1), binary)
            self.answers.append(Deferred())
            return self.answers[-1]

    bus = Slow()
    bus.answers = []
    server = a_server(bus=bus)
    reader, client = server.connect(), server.connect()
    subscribe(reader, "room.a")
    publications = iter([b"LHTTP/1.0 say\r\npublish:room.a\r\n\r\n%d" % number for number in range(5)])
    result = server.engine.hub.publish_run(("room.a",), publications, False)
    assert result is not None
    assert told(reader) == [*"01234"]
    for answer in bus.answers:
        answer.callback(None)
    assert client.take() == []


def test_code_publishes_into_the_history_too(server: Server) -> None:
    publish(server, "room.a", 1)
    client = server.connect()
    client.session.publish("room.a", "say", body="2")
    server.engine.publish("room.a", "say", {"message-id": "i"}, "3")
    server.engine.publish("room.a", "say", {"message-id": "i"}, "4")
    reader = server.connect()
    subscribe(reader, "room.a", last="9")
    assert told(reader) == ["1", "2", "3"]


def test_rules_turn_history_on_and_off() -> None:
    server = Server(rules=Rules([Rule(match="a")]))
    client = server.connect()
    subscribe(client, "a", receipt="r")
    assert receipts(client) == [{}]
    publish(server, "a", 1)
    server.set_rules(Rules([Rule(match="a", history=Retention())]))
    publish(server, "a", 2)
    server.set_rules(Rules([Rule(match="a")]))
    publish(server, "a", 3)
    server.set_rules(Rules([Rule(match="a", history=Retention())]))
    publish(server, "a", 4)
    assert [(message.text, message.headers.get("offset")) for message in client.take()] == [
        ("1", None),
        ("2", "1"),
        ("3", None),
        ("4", "2"),
    ]
    reader = server.connect()
    subscribe(reader, "a", last="9", receipt="r")
    assert told(reader) == ["2", "4", "receipt"]


def test_a_rule_goes_before_the_pattern_of_the_option() -> None:
    server = a_server(rules=Rules([Rule(match="room.a", history=Retention("short", messages=1))]))
    publish(server, "room.a", 1, 2)
    publish(server, "room.b", 3, 4)
    client = server.connect()
    subscribe(client, "room.a room.b", last="9")
    assert told(client) == ["2", "3", "4"]


def test_the_server_channels_and_wildcards_have_none(server: Server) -> None:
    archive = Server(history=[">"]).assembly.histories.archive
    assert archive.retention("a") is not None
    assert [archive.retention(name) for name in ("$presence.a", "$x", "a.*", ">", "*")] == [None] * 5


def test_looking_up_many_channels_takes_no_room() -> None:
    archive = Server(history=["room.>"]).assembly.histories.archive
    for number in range(10_000):
        assert archive.retention(f"room.{number}") is not None
        assert archive.retention(f"other.{number}") is None
    assert len(archive._known) <= 4_096


def test_ids_take_no_more_room_than_they_may() -> None:
    ids = MessageIds(60.0, size=10_000)
    for number in range(1_000):
        ids.note("channel", str(number), number, 0.0)
    assert 30 <= len(ids) <= 40
    assert ids.find("channel", "999", 0.0) == 999
    assert ids.find("channel", "1", 0.0) is None


def test_ids_are_forgotten_after_their_window() -> None:
    ids = MessageIds(60.0)
    ids.note("a", "x", 1, 0.0)
    ids.note("a", "y", 2, 30.0)
    assert (ids.find("a", "x", 59.9), ids.find("a", "x", 60.0)) == (1, None)
    ids.note("a", "x", 3, 60.0)
    assert ids.find("a", "x", 61.0) == 3
    assert len(ids) == 2
    ids.note("a", "z", 4, 500.0)
    assert len(ids) == 1


def test_gaps_are_told_in_channels_without_history_to_those_who_asked(server: Server) -> None:
    asking, other = server.connect(), server.connect()
    subscribe(asking, "room.a plain", gaps="tell")
    subscribe(other, "room.a plain", gaps="no")
    server.engine.hub.tell_gaps()
    assert [[*message.headers] for message in asking.take()] == [[("channel", "plain")]]
    assert other.take() == []
    asking.send("LHTTP/1.0 x\r\nunsubscribe:plain\r\n\r\n")
    subscribe(asking, "plain")
    server.engine.hub.tell_gaps()
    assert asking.take() == []


def test_gaps_of_wildcards_are_told_too() -> None:
    server = a_server(rules=Rules([Rule(match=">", wildcards=True)]))
    client = server.connect()
    subscribe(client, "room.>", gaps="tell")
    server.engine.hub.tell_gaps()
    assert [message.headers.get("channel") for message in client.take()] == ["room.>"]


def test_what_a_store_has_lost_is_told_to_every_subscriber(server: Server) -> None:
    clients = [server.connect() for _ in range(2)]
    for client in clients:
        subscribe(client, "room.a")
    server.engine.hub.tell_missed("room.a", "E-9")
    server.engine.hub.tell_missed("room.nobody", "E-9")
    for client in clients:
        assert [[*message.headers] for message in client.take()] == [[("channel", "room.a"), ("position", "E-9")]]


def test_gaps_can_be_asked_for_where_no_channel_has_history() -> None:
    server = Server()
    client = server.connect()
    subscribe(client, "a", gaps="tell", receipt="r")
    server.engine.hub.tell_gaps()
    assert [message.command for message in client.take()] == ["receipt", "missed"]


@pytest.mark.parametrize(
    "settings",
    [
        {"history": ("room.>",), "history_store": "tape"},
        {"history_store": "sqlite:"},
        {"history_store": "jetstream"},
        {"history": ("a..b",)},
        {"message_id_window": 0.0},
        {"history_size": 5},
        {"history_replicas": 0},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"history|message_id"):
        Server(**settings)


def test_an_id_is_forgotten_where_the_bus_does_not_confirm() -> None:
    bus = UnsureBus()
    server = Server(bus=bus)
    client = server.connect()
    for token in ("1", "2"):
        client.send(f"LHTTP/1.0 x\r\npublish:room\r\nmessage-id:m\r\nreceipt:{token}\r\n\r\n")
        bus.waiting.pop().errback(BusUnavailable("not known"))
    assert [(message.command, message.headers.get("status")) for message in client.take()] == [("error", "503")] * 2
    client.send("LHTTP/1.0 x\r\npublish:room\r\nmessage-id:m\r\nreceipt:3\r\n\r\n")
    bus.waiting.pop().callback(None)
    client.send("LHTTP/1.0 x\r\npublish:room\r\nmessage-id:m\r\nreceipt:4\r\n\r\n")
    bus.waiting.pop().callback(None)
    assert [message.headers.get("duplicate") for message in client.take()] == [None, "1"]


class UnsureBus(MemoryBus):
    """A bus whose confirmations a test gives."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Deferred[None]] = []

    def confirm(self) -> MaybeDeferred:
        self.waiting.append(Deferred())
        return self.waiting[-1]
