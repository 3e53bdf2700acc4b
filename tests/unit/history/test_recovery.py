"""Subscribing from a position on: what comes, in which order, and what the receipt tells."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from hypothesis import given, strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from lhttp_tx import Hooks, Message, Processor, Request, Session
from lhttp_tx.codec.limits import Limits
from lhttp_tx.codec.positions import format_position, parse_position
from lhttp_tx.errors import HistoryUnavailable
from lhttp_tx.history.memory import MemoryHistory
from lhttp_tx.history.values import Page, Retention
from lhttp_tx.rules.model import Rule, Rules
from lhttp_tx.testing import Client, Server


class LateStore(MemoryHistory):
    """
    A store that is read when the test says so.

    :ivar questions: what it was asked and has not answered, oldest first.
    :ivar trouble_with_reading: what the next answers fail with.
    """

    def __init__(self, clock: Clock, **settings: Any) -> None:
        super().__init__(clock, **settings)
        self.questions: list[tuple[Deferred[Page], Any]] = []
        self.is_late = True

    def _later(self, call: Any) -> Any:
        if not self.is_late:
            return call()
        answer: Deferred[Page] = Deferred()
        self.questions.append((answer, call))
        return answer

    def read(self, channel: str, retention: Retention, *, after: int, limit: int, size: int) -> Any:
        read = super().read
        return self._later(lambda: read(channel, retention, after=after, limit=limit, size=size))

    def newest(self, channel: str, retention: Retention, *, before: int, limit: int, size: int) -> Any:
        newest = super().newest
        return self._later(lambda: newest(channel, retention, before=before, limit=limit, size=size))

    def look(self) -> list[tuple[Deferred[Page], Page]]:
        """Read, and keep the answers for later."""
        questions, self.questions = self.questions, []
        return [(answer, call()) for answer, call in questions]

    def answer(self) -> None:
        """Answer what was asked."""
        for answer, page in self.look():
            answer.callback(page)

    def answer_all(self) -> None:
        """Answer until nothing is asked any more."""
        while self.questions:
            self.answer()

    def refuse(self) -> None:
        """Fail."""
        questions, self.questions = self.questions, []
        for answer, _ in questions:
            answer.errback(HistoryUnavailable("the disk is gone"))


def a_server(**settings: Any) -> Server:
    return Server(**{"history": ["room.>"], **settings})


def a_late_server(**settings: Any) -> tuple[Server, LateStore]:
    clock = Clock()
    store = LateStore(clock)
    return a_server(clock=clock, history_store=store, **settings), store


def publish(server: Server, channel: str, *bodies: object) -> None:
    for body in bodies:
        server.engine.publish(channel, "say", body=str(body))


def subscribe(client: Client, channels: str, **headers: str) -> None:
    client.send(Message("x", {"subscribe": channels, **headers}))


def at(server: Server, offset: int) -> str:
    return format_position(server.assembly.histories.store.epoch_of(Retention()), offset)


def told(client: Client) -> list[str]:
    """Return the bodies of publications, and the commands of all else."""
    return [message.text if message.command == "say" else message.command for message in client.take()]


def receipt_of(client: Client) -> dict[str, str]:
    (receipt,) = [message for message in client.take() if message.command == "receipt"]
    return {name: value for name, value in receipt.headers if name != "receipt-id"}


def test_what_was_missed_comes_before_the_receipt_and_what_is_new_behind_it() -> None:
    server = a_server()
    publish(server, "room.a", 1, 2, 3)
    client = server.connect()
    subscribe(client, "room.a", since=at(server, 1), receipt="r")
    publish(server, "room.a", 4)
    found = client.take()
    assert [message.text or message.command for message in found] == ["2", "3", "receipt", "4"]
    assert [message.headers.get("offset") for message in found] == ["2", "3", None, "4"]
    assert [message.headers.get("after") for message in found] == ["1", "2", None, "3"]
    receipt = found[2].headers
    assert receipt.get("position") == f"room.a={at(server, 3)}"
    assert receipt.get("recovered") == "room.a"
    assert receipt.get("missed") is None


def test_without_since_a_receipt_tells_where_the_stream_begins() -> None:
    server = a_server()
    publish(server, "room.a", 1, 2)
    client = server.connect()
    subscribe(client, "room.a room.b other", receipt="r")
    assert receipt_of(client) == {"position": f"room.a={at(server, 2)} room.b={at(server, 2)}"}


def test_nothing_is_recovered_where_nothing_was_missed() -> None:
    server = a_server()
    publish(server, "room.a", 1)
    client = server.connect()
    subscribe(client, "room.a", since=at(server, 1), receipt="r")
    assert receipt_of(client) == {"position": f"room.a={at(server, 1)}", "recovered": "room.a"}


def test_the_last_messages_come_oldest_first() -> None:
    server = a_server()
    publish(server, "room.a", *range(9))
    client = server.connect()
    subscribe(client, "room.a", last="3", receipt="r")
    assert told(client) == ["6", "7", "8", "receipt"]


def test_the_last_none_are_none() -> None:
    server = a_server()
    publish(server, "room.a", 1)
    client = server.connect()
    subscribe(client, "room.a", last="0", receipt="r")
    assert told(client) == ["receipt"]


@pytest.mark.parametrize(
    ("channels", "headers", "reason"),
    [
        ("room.a", {"since": "E-1", "last": "2"}, "cannot be combined"),
        ("room.a", {"since": "1"}, "not a position"),
        ("room.a", {"since": ""}, "no position"),
        ("room.a", {"since": "E-01"}, "not a position"),
        ("room.a", {"since": "E-9223372036854775808"}, "larger"),
        ("room.a", {"since": "E-1 E-2"}, "no CHANNEL=POSITION"),
        ("room.a", {"since": "room.b=E-1"}, "does not subscribe"),
        ("room.a", {"last": "-1"}, "not a number"),
        ("room.a", {"last": "²"}, "not a number"),
        ("room.a", {"last": ""}, "not a number"),
        ("room.a", {"last": "12345678"}, "not a number"),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_is_subscribed(
    channels: str, headers: dict[str, str], reason: str
) -> None:
    server = a_server()
    client = server.connect()
    subscribe(client, channels, **headers, receipt="r")
    (error,) = client.take()
    assert (error.command, error.headers.get("status")) == ("error", "400")
    assert reason in error.headers.get("reason", "")
    assert server.engine.hub.channels == {}


@pytest.mark.parametrize("headers", [{"since": "E-1"}, {"last": "1"}])
def test_a_wildcard_has_no_history(headers: dict[str, str]) -> None:
    server = a_server(rules=Rules([Rule(match=">", wildcards=True)]))
    client = server.connect()
    subscribe(client, "room.>", **headers, receipt="r")
    (error,) = client.take()
    assert "wildcard" in error.headers.get("reason", "")
    subscribe(client, "room.>", receipt="r")
    publish(server, "room.a", 1)
    assert told(client) == ["receipt", "1"]


def test_a_position_of_another_epoch_is_missed_and_nothing_of_it_is_sent() -> None:
    server = a_server()
    publish(server, "room.a", 1, 2)
    client = server.connect()
    subscribe(client, "room.a", since="other-1", receipt="r")
    assert receipt_of(client) == {"position": f"room.a={at(server, 2)}", "missed": "room.a"}
    publish(server, "room.a", 3)
    assert told(client) == ["3"]


def test_a_position_that_is_not_reached_yet_is_missed() -> None:
    server = a_server()
    publish(server, "room.a", 1, 2)
    client = server.connect()
    subscribe(client, "room.a", since=at(server, 2**63 - 1), receipt="r")
    assert receipt_of(client) == {"position": f"room.a={at(server, 2)}", "missed": "room.a"}


def test_what_is_trimmed_is_missed() -> None:
    server = a_server(retention=Retention(messages=2))
    publish(server, "room.a", 1, 2, 3, 4)
    client = server.connect()
    subscribe(client, "room.a", since=at(server, 1), receipt="r")
    assert receipt_of(client) == {"position": f"room.a={at(server, 4)}", "missed": "room.a"}
    subscribe(client, "room.a", since=at(server, 2), receipt="r")
    assert told(client) == ["3", "4", "receipt"]


def test_what_is_too_old_is_missed() -> None:
    server = a_server(retention=Retention(age=60.0))
    publish(server, "room.a", 1)
    server.clock.advance(61.0)
    client = server.connect()
    subscribe(client, "room.a", since=at(server, 0), receipt="r")
    assert receipt_of(client)["missed"] == "room.a"


def test_more_than_the_class_recovers_is_missed() -> None:
    server = a_server(retention=Retention(recovery=2))
    publish(server, "room.a", 1, 2, 3)
    client = server.connect()
    subscribe(client, "room.a", since=at(server, 0), receipt="r")
    assert receipt_of(client)["missed"] == "room.a"
    subscribe(client, "room.a", since=at(server, 1), receipt="r")
    assert told(client) == ["2", "3", "receipt"]


def test_of_several_channels_each_has_its_own_fate() -> None:
    server = a_server(retention=Retention(recovery=2))
    publish(server, "room.a", 1, 2, 3)
    publish(server, "room.b", 4, 5)
    client = server.connect()
    since = f"room.a={at(server, 0)} room.b={at(server, 4)} other={at(server, 1)}"
    subscribe(client, "room.a room.b other plain room.c", since=since, receipt="r")
    found = client.take()
    assert [message.text or message.command for message in found] == ["5", "receipt"]
    assert found[1].headers.get("position") == " ".join(f"room.{name}={at(server, 5)}" for name in "abc")
    assert found[1].headers.get("recovered") == "room.b"
    assert found[1].headers.get("missed") == "room.a other"


def test_one_position_holds_for_all_channels() -> None:
    server = a_server()
    publish(server, "room.a", 1)
    publish(server, "room.b", 2)
    publish(server, "room.a", 3)
    client = server.connect()
    subscribe(client, "room.a room.b", since=at(server, 1), receipt="r")
    assert told(client) == ["3", "2", "receipt"]


def test_who_asks_for_no_receipt_is_told_by_a_message() -> None:
    server = a_server()
    publish(server, "room.a", 1)
    client = server.connect()
    subscribe(client, "room.a other", since="other-1")
    publish(server, "room.a", 2)
    found = client.take()
    assert [message.text or message.command for message in found] == ["missed", "missed", "2"]
    assert [(message.headers.get("channel"), message.headers.get("position")) for message in found[:2]] == [
        ("room.a", at(server, 1)),
        ("other", None),
    ]


def test_publications_out_of_the_history_come_while_a_client_catches_up() -> None:
    server, store = a_late_server()
    publish(server, "room.a", 1)
    client = server.connect()
    subscribe(client, "room.a", since=at(server, 0), receipt="r")
    server.engine.publish("room.a", "say", {"store": "no"}, "typing")
    publish(server, "room.a", 2)
    assert told(client) == ["typing"]
    store.answer_all()
    server.clock.advance(0)
    assert told(client) == ["1", "2", "receipt"]


def test_what_comes_while_the_store_is_read_follows_once() -> None:
    server, store = a_late_server()
    publish(server, "room.a", 1, 2)
    client = server.connect()
    subscribe(client, "room.a", since=at(server, 1), receipt="r")
    publish(server, "room.a", 3)
    read = store.look()
    publish(server, "room.a", 4)
    for answer, page in read:
        answer.callback(page)
    store.answer_all()
    server.clock.advance(0)
    publish(server, "room.a", 5)
    assert told(client) == ["2", "3", "receipt", "4", "5"]


def test_what_the_hub_holds_back_when_a_client_has_caught_up_is_not_lost() -> None:
    """Reads of one turn are joined, so the hub may hold something back at any time."""
    server, store = a_late_server()
    client = server.connect()
    publish(server, "room.a", 1)
    subscribe(client, "room.a", since=at(server, 0), receipt="r")
    publish(server, "room.a", 2)
    hub = server.engine.hub
    hub.cork()
    publish(server, "room.a", 3)
    store.answer_all()
    publish(server, "room.a", 4)
    server.clock.advance(0)
    hub.uncork()
    publish(server, "room.a", 5)
    assert told(client) == ["1", "2", "3", "receipt", "4", "5"]


def test_what_the_hub_holds_back_comes_behind_the_receipt() -> None:
    server, store = a_late_server()
    client = server.connect()
    publish(server, "room.a", 1)
    subscribe(client, "room.a", since=at(server, 0), receipt="r")
    read = store.look()
    server.engine.hub.cork()
    publish(server, "room.a", 2)
    for answer, page in read:
        answer.callback(page)
    server.engine.hub.uncork()
    server.clock.advance(0)
    assert told(client) == ["1", "receipt", "2"]


def test_who_shares_a_reading_that_had_begun_before_loses_nothing() -> None:
    server, store = a_late_server()
    publish(server, "room.a", 1)
    first, second = server.connect(), server.connect()
    subscribe(first, "room.a", since=at(server, 0), receipt="r")
    read = store.look()
    publish(server, "room.a", 2)
    subscribe(second, "room.a", since=at(server, 0), receipt="r")
    for answer, page in read:
        answer.callback(page)
    store.answer_all()
    server.clock.advance(0)
    publish(server, "room.a", 3)
    assert told(first) == ["1", "receipt", "2", "3"]
    assert [text for text in told(second) if text != "receipt"] == ["1", "2", "3"]


def test_many_who_come_back_together_ask_the_store_a_few_times() -> None:
    server, store = a_late_server()
    publish(server, "room.a", 1, 2)
    clients = [server.connect() for _ in range(50)]
    for client in clients:
        subscribe(client, "room.a", since=at(server, 0), receipt="r")
    asked = 0
    while store.questions:
        asked += len(store.questions)
        store.answer()
    assert asked <= 3
    assert [told(client) for client in clients] == [["1", "2", "receipt"]] * 50


def test_a_new_subscriber_gets_what_comes_while_its_position_is_looked_up() -> None:
    server, store = a_late_server()
    publish(server, "room.a", 1)
    client = server.connect()
    subscribe(client, "room.a", receipt="r")
    publish(server, "room.a", 2)
    store.answer_all()
    server.clock.advance(0)
    publish(server, "room.a", 3)
    assert [text for text in told(client) if text != "receipt"] == ["2", "3"]


@pytest.mark.parametrize("headers", [{}, {"last": "1"}])
def test_subscribing_again_takes_nothing_away(headers: dict[str, str]) -> None:
    server, store = a_late_server()
    client = server.connect()
    subscribe(client, "room.a")
    publish(server, "room.a", 1)
    subscribe(client, "room.a", receipt="r", **headers)
    publish(server, "room.a", 2, 3)
    store.answer_all()
    server.clock.advance(0)
    assert [text for text in told(client) if text != "receipt"] == ["1", "2", "3"]


def test_subscribing_again_while_the_first_one_catches_up_takes_nothing_away() -> None:
    server, store = a_late_server()
    publish(server, "room.a", 1)
    client = server.connect()
    subscribe(client, "room.a", since=at(server, 0), receipt="r")
    read = store.look()
    publish(server, "room.a", 2)
    for answer, page in read:
        answer.callback(page)
    assert told(client) == ["1", "receipt"]
    subscribe(client, "room.a", receipt="s")  # before the first one has let go of what it held back
    server.clock.advance(0)
    publish(server, "room.a", 3)
    store.answer_all()
    server.clock.advance(0)
    assert [text for text in told(client) if text != "receipt"] == ["2", "3"]


def test_what_is_too_much_to_hold_back_is_read_again() -> None:
    server, store = a_late_server()
    publish(server, "room.a", "first")
    client = server.connect()
    subscribe(client, "room.a", since=at(server, 0), receipt="r")
    bodies = [str(number) * 10_000 for number in range(10, 50)]
    read = store.look()
    publish(server, "room.a", *bodies[:20])
    for answer, page in read:
        answer.callback(page)
    publish(server, "room.a", *bodies[20:])
    for _ in range(20):
        store.answer_all()
        server.clock.advance(0)
    assert [text for text in told(client) if text != "receipt"] == ["first", *bodies]


def test_what_is_too_much_behind_the_receipt_is_read_again_too() -> None:
    server, store = a_late_server()
    client = server.connect()
    subscribe(client, "room.a room.b", since=at(server, 0), receipt="r")
    store.answer()  # a has nothing; b is asked for
    bodies = [str(number) * 10_000 for number in range(10, 50)]
    publish(server, "room.a", *bodies)
    store.answer()
    assert told(client) == ["receipt"]
    server.clock.advance(0)
    publish(server, "room.a", "last")
    for _ in range(20):
        store.answer_all()
        server.clock.advance(0)
    assert told(client) == [*bodies, "last"]


def test_one_connection_holds_back_no_more_than_its_room_however_many_messages_it_sends() -> None:
    server, store = a_late_server()
    client = server.connect()
    large = {name: [f"{name} {number} " + "x" * 10_000 for number in range(40)] for name in ("room.a", "room.c")}
    for first, second in (("room.a", "room.b"), ("room.c", "room.d")):
        subscribe(client, f"{first} {second}", since=at(server, 0), receipt="r")
        waiting = store.questions
        store.questions = waiting[-1:]
        store.answer()  # the first one has nothing; the second one is asked for
        publish(server, first, *large[first])
        store.answer()
        store.questions = waiting[:-1]
        server.clock.advance(0)  # what was too much is read behind the receipt
    more = {name: [f"{name} more {number} " + "x" * 10_000 for number in range(20)] for name in large}
    for name, bodies in more.items():
        publish(server, name, *bodies)
    held = [found for found in gc.get_objects() if type(found).__name__ == "_Catching"]
    sizes = [len(payload) for found in held for delivery in found._held for payload in delivery.payloads]
    assert 0 < sum(sizes) <= 262_144
    for _ in range(40):
        store.answer_all()
        server.clock.advance(0)
    got = told(client)
    for name, bodies in large.items():
        assert [text for text in got if text.startswith(f"{name} ")] == bodies + more[name]


def test_what_cannot_be_read_behind_the_receipt_is_missed() -> None:
    server, store = a_late_server()
    client = server.connect()
    subscribe(client, "room.a room.b", since=at(server, 0), receipt="r")
    store.answer()
    publish(server, "room.a", *["x" * 10_000] * 40)
    store.answer()
    server.clock.advance(0)
    store.refuse()
    publish(server, "room.a", "after")
    found = client.take()
    assert [message.command for message in found] == ["receipt", "missed", "say"]
    assert found[1].headers.get("position") == at(server, 40)
    assert found[2].headers.get("after") == "40"


def test_a_mistake_of_a_store_behind_the_receipt_is_missed_and_logged(failures: list[Any]) -> None:
    server, store = a_late_server()
    client = server.connect()
    subscribe(client, "room.a room.b", since=at(server, 0), receipt="r")
    store.answer()
    publish(server, "room.a", *["x" * 10_000] * 40)
    store.answer()
    server.clock.advance(0)
    ((answer, _),) = store.questions
    answer.errback(KeyError("a bug"))
    publish(server, "room.a", "after")
    assert [message.command for message in client.take()] == ["receipt", "missed", "say"]
    assert [type(error) for error in failures] == [KeyError]


def test_who_cannot_be_told_is_subscribed_to_nothing_with_history() -> None:
    server, store = a_late_server()
    client = server.connect()
    subscribe(client, "room.a other", since=at(server, 0), receipt="r")
    store.refuse()
    (error,) = client.take()
    assert (error.command, error.headers.get("status")) == ("error", "503")
    assert server.engine.hub.channels == {"other": 1}
    publish(server, "room.a", 1)
    assert client.take() == []


def test_a_store_that_takes_too_long_is_waited_for_no_longer() -> None:
    server, store = a_late_server()
    client = server.connect()
    subscribe(client, "room.a", since=at(server, 0), receipt="r")
    server.clock.advance(31)
    (error,) = client.take()
    assert error.command == "error"
    store.answer_all()
    publish(server, "room.a", 1)
    assert client.take() == []
    assert server.engine.hub.channels == {}


def test_one_that_is_cancelled_takes_nothing_away_from_those_who_share_its_page() -> None:
    server, store = a_late_server()
    publish(server, "room.a", 1)
    first, second = server.connect(), server.connect()
    subscribe(first, "room.a", since=at(server, 0), receipt="r")
    server.clock.advance(20)
    subscribe(second, "room.a", since=at(server, 0), receipt="r")
    server.clock.advance(11)
    store.answer_all()
    assert told(first) == ["error"]
    assert told(second) == ["1", "receipt"]


def test_who_goes_while_it_catches_up_is_gone() -> None:
    server, store = a_late_server()
    publish(server, "room.a", 1)
    client = server.connect()
    subscribe(client, "room.a", since=at(server, 0), receipt="r")
    client.disconnect()
    store.answer_all()
    server.clock.advance(0)
    publish(server, "room.a", 2)
    assert server.engine.hub.channels == {}


def test_code_may_take_a_subscription_away_while_it_catches_up() -> None:
    server, store = a_late_server()
    publish(server, "room.a", 1)
    client = server.connect()
    subscribe(client, "room.a", since=at(server, 0), receipt="r")
    client.session.unsubscribe("room.a")
    publish(server, "room.a", 2)
    store.answer_all()
    server.clock.advance(0)
    assert [text for text in told(client) if text != "receipt"] == []


def test_code_may_make_it_anew_meanwhile() -> None:
    server, store = a_late_server()
    publish(server, "room.a", 1)
    client = server.connect()
    subscribe(client, "room.a", since=at(server, 0), receipt="r")
    publish(server, "room.a", 2)
    client.session.unsubscribe("room.a")
    client.session.subscribe("room.a")
    store.answer_all()
    server.clock.advance(0)
    publish(server, "room.a", 3)
    assert [text for text in told(client) if text != "receipt"] == ["3"]


@pytest.mark.parametrize("headers", [{"since": "0"}, {"last": "1000"}])
def test_a_slow_reader_is_not_cut_off_for_what_it_has_missed(headers: dict[str, str]) -> None:
    server = a_server()
    names = [f"room.{number}" for number in range(40)]
    for name in names:
        publish(server, name, *(f"{name} {number}".ljust(5_000) for number in range(20)))
    client = server.connect()
    client.stop_reading()
    headers = {name: at(server, 0) if name == "since" else value for name, value in headers.items()}
    subscribe(client, " ".join(names), **headers, receipt="r")
    most, found = 0, []
    for _ in range(300):
        server.clock.advance(0.01)
        most = max(most, client.unsent)
        client.read_on()
        found += client.take()
        client.stop_reading()
    assert client.connected
    assert most <= 3 * 131_072
    assert len(found) == 801
    assert found[-1].command == "receipt"


def test_a_slow_reader_has_as_much_time_as_it_needs() -> None:
    server = a_server(limits=Limits(processor_timeout=5.0))
    bodies = [f"{number}".ljust(50_000) for number in range(40)]
    publish(server, "room.a", *bodies)
    client = server.connect()
    client.stop_reading()
    subscribe(client, "room.a", since=at(server, 0), receipt="r")
    found: list[str] = []
    for _ in range(60):
        server.clock.advance(4.0)
        server.clock.advance(4.0)
        client.read_on()
        client.stop_reading()
        found += told(client)
    assert found == [*bodies, "receipt"]


def test_a_store_is_not_waited_for_longer_because_the_client_was_slow() -> None:
    server, store = a_late_server(limits=Limits(processor_timeout=5.0))
    publish(server, "room.a", *["x" * 50_000] * 20)
    client = server.connect()
    client.stop_reading()
    subscribe(client, "room.a", since=at(server, 0), receipt="r")
    for _ in range(2):
        store.answer()
    server.clock.advance(60.0)
    client.read_on()
    server.clock.advance(0)
    assert store.questions
    client.take()
    server.clock.advance(6.0)
    assert told(client) == ["error"]
    server.clock.advance(0)


def test_what_is_read_behind_the_receipt_leaves_the_time_limits_of_others() -> None:
    class Never(Processor):
        command = "never"

        def on_message(self, request: Request) -> Deferred[None]:
            return Deferred()

    server, store = a_late_server(limits=Limits(processor_timeout=5.0), processors=[Never()])
    client = server.connect()
    subscribe(client, "room.a room.b", since=at(server, 0), receipt="r")
    store.answer()
    publish(server, "room.a", *["x" * 10_000] * 80)
    store.answer()
    assert told(client) == ["receipt"]
    client.stop_reading()
    client.send(Message("never"))
    for _ in range(4):
        server.clock.advance(0)
        store.answer_all()
    assert client.unsent > 131_072
    server.clock.advance(6.0)
    client.read_on()
    assert "error" in told(client)


def test_the_last_messages_are_not_too_many() -> None:
    server = a_server(retention=Retention(messages=20_000))
    publish(server, "room.a", *range(6_000))
    client = server.connect()
    subscribe(client, "room.a", last="9999999", receipt="r")
    for _ in range(20):
        server.clock.advance(0)
    assert told(client) == [*map(str, range(1_000, 6_000)), "receipt"]


def test_what_is_held_back_in_many_small_pieces_counts_as_what_it_takes() -> None:
    server, store = a_late_server()
    client = server.connect()
    subscribe(client, "room.a", since=at(server, 0), receipt="r")
    publish(server, "room.a", *range(950))
    (session,) = server.engine.sessions
    catching: Any = session.taker("room.a").__self__  # type: ignore[attr-defined]
    assert catching.overflowed and not catching._held
    for _ in range(20):
        store.answer_all()
        server.clock.advance(0)
    assert told(client) == [*map(str, range(950)), "receipt"]


def test_page_of_many_small_messages_takes_several_turns() -> None:
    server = a_server()
    publish(server, "room.a", *["x"] * 1_000)
    client = server.connect()
    subscribe(client, "room.a", since=at(server, 0), receipt="r")
    handed = [len(client.take())]
    while sum(handed) < 1_001:
        server.clock.advance(0)
        handed.append(len(client.take()))
    assert max(handed) < 700


def test_who_unsubscribes_within_a_page_gets_no_more_of_it() -> None:
    server = a_server()
    publish(server, "room.a", *["x"] * 1_000)
    client = server.connect()
    subscribe(client, "room.a", since=at(server, 0), receipt="r")
    (session,) = server.engine.sessions
    session.unsubscribe("room.a")
    before = len(client.take())
    for _ in range(10):
        server.clock.advance(0)
    assert before < 500
    assert [message.command for message in client.take()] == ["receipt"]


def test_one_turn_hands_over_no_more_than_a_few_pages() -> None:
    server = a_server()
    names = [f"room.{number}" for number in range(40)]
    for name in names:
        publish(server, name, *["x" * 5_000] * 20)
    client = server.connect()
    subscribe(client, " ".join(names), since=at(server, 0), receipt="r")
    assert sum(len(message.body) for message in client.take()) <= 2 * 131_072
    for _ in range(200):
        server.clock.advance(0.01)
    assert client.take()[-1].command == "receipt"


def test_a_history_that_is_trimmed_under_a_slow_reader_is_missed() -> None:
    server = a_server(retention=Retention(messages=100))
    publish(server, "room.a", *["x" * 5_000] * 100)
    client = server.connect()
    client.stop_reading()
    subscribe(client, "room.a", since=at(server, 0), receipt="r")
    publish(server, "room.a", *["y" * 5_000] * 100)
    found = []
    for _ in range(20):
        client.read_on()
        found += client.take()
        server.clock.advance(0)
    receipts = [message for message in found if message.command == "receipt"]
    assert [message.headers.get("missed") for message in receipts] == ["room.a"]
    _, position = parse_position(receipts[0].headers.get("position", "").partition("=")[2])
    after = [int(message.headers.get("offset", "0")) for message in found[found.index(receipts[0]) + 1 :]]
    assert after == [*range(position + 1, 201)]


def test_commands_and_offsets_of_any_length_are_held_back() -> None:
    server, store = a_late_server()
    store._offset = 2**63 - 10
    client = server.connect()
    subscribe(client, "room.a", since=at(server, 2**63 - 10), receipt="r")
    server.engine.publish("room.a", "c" * 64, body="long")
    assert client.take() == []
    store.answer_all()
    server.clock.advance(0)
    assert [message.text or message.command for message in client.take()] == ["long", "receipt"]


def test_a_hook_may_keep_something_from_a_subscriber_that_catches_up() -> None:
    class Silence(Hooks):
        def before_delivery(self, session: Session, message: Message) -> bool:
            return message.text != "secret"

    server = a_server(hooks=[Silence()])
    publish(server, "room.a", "open", "secret", "last")
    client = server.connect()
    subscribe(client, "room.a", since=at(server, 0), receipt="r")
    assert sorted(told(client)) == ["last", "open", "receipt"]


def test_binary_messages_come_as_they_were() -> None:
    server = a_server()
    server.engine.publish("room.a", "say", body=b"\xff", binary=True)
    publish(server, "room.a", "text")
    client = server.connect()
    subscribe(client, "room.a", since=at(server, 0))
    assert [(message.body, message.binary) for message in client.take()] == [(b"\xff", True), (b"text", False)]


def test_two_servers_beside_each_other_share_the_history() -> None:
    first = a_server()
    second = a_server(beside=first)
    publish(first, "room.a", 1)
    publish(second, "room.a", 2)
    client = second.connect()
    subscribe(client, "room.a", since=at(first, 0), receipt="r")
    publish(first, "room.a", 3)
    assert told(client) == ["1", "2", "receipt", "3"]


# A model: one channel, a few clients that come and go, and a store that trims and answers late

STEP = st.one_of(
    st.tuples(st.just("publish"), st.integers(1, 4)),
    st.tuples(st.just("large"), st.integers(1, 3)),
    st.tuples(st.just("unstored"), st.none()),
    st.tuples(st.just("again"), st.integers(0, 3)),
    st.tuples(st.just("come"), st.integers(0, 2)),
    st.tuples(st.just("more"), st.integers(0, 2)),
    st.tuples(st.just("hole"), st.integers(0, 2)),
    st.tuples(st.just("go"), st.integers(0, 2)),
    st.tuples(st.just("slow"), st.integers(0, 2)),
    st.tuples(st.just("look"), st.none()),
    st.tuples(st.just("answer"), st.none()),
    st.tuples(st.just("turn"), st.none()),
    st.tuples(st.just("trim"), st.none()),
)


class Reader:
    """What a client does that follows the rules of the protocol document, told by a ledger of what was published."""

    def __init__(self, server: Server, kept: list[str]) -> None:
        self.server = server
        self.kept = kept
        self.client: Client | None = None
        self.last: int | None = None
        self.known = 0
        self.was_trimmed = False

    def come(self) -> None:
        if self.client is None:
            self.client = self.server.connect()
        headers = {} if self.last is None else {"since": at(self.server, self.last)}
        subscribe(self.client, "room.a", receipt="r", **headers)

    def again(self) -> None:
        if self.client is not None and self.client.close_code is None:
            subscribe(self.client, "room.a", receipt="again")

    def go(self) -> None:
        if self.client is not None:
            self.look()
            self.client.disconnect()
            self.client = None

    def look(self) -> None:
        assert self.client is not None
        for message in self.client.take():
            headers = message.headers
            if message.command == "receipt":
                _, position = parse_position(headers.get("position", "").rpartition("=")[2])
                if headers.get("missed"):
                    assert self.was_trimmed, "missed without a reason"
                    self.last = position
                else:
                    assert self.last is None or headers.get("receipt-id") == "again" or self.last == position
                    self.last = position if self.last is None else max(self.last, position)
            elif message.command == "missed":
                assert self.was_trimmed, "missed without a reason"
                self.last = parse_position(headers.get("position", ""))[1]
            elif headers.get("offset") is not None:
                offset, after = int(headers.get("offset", "")), int(headers.get("after", ""))
                assert message.text == self.kept[offset - 1]
                if self.last is not None:
                    assert after == self.last, "not the one behind the last one"
                    assert offset == after + 1
                self.last = offset
            else:
                assert message.command == "say"


@given(st.lists(STEP, max_size=60), st.booleans())
def test_every_subscriber_gets_everything_once_and_in_order(steps: list[tuple[str, Any]], is_late: bool) -> None:
    server, store = a_late_server(retention=Retention(messages=60), limits=Limits(unsent_size=4_194_304))
    store.is_late = is_late
    kept: list[str] = []
    readers = [Reader(server, kept) for _ in range(3)]
    looked: list[tuple[Deferred[Page], Page]] = []
    sent: list[str] = []

    def put(body: str, message_id: str | None = None) -> None:
        headers = {} if message_id is None else {"message-id": message_id}
        if message_id is None or message_id not in sent:
            kept.append(body)
        if message_id is not None:
            sent.append(message_id)
        server.engine.publish("room.a", "say", headers, body)
        if len(kept) > 60:
            for reader in readers:
                reader.was_trimmed = True

    def answer() -> None:
        late, looked[:] = [*looked, *store.look()], []
        for question, page in late:
            if not question.called:
                question.callback(page)

    for step, number in steps:
        if step == "publish":
            for _ in range(number):
                put(f"body {len(kept)}")
        elif step == "large":
            for _ in range(number):
                put(f"body {len(kept)}".ljust(60_000))
        elif step == "unstored":
            server.engine.publish("room.a", "say", {"store": "no"}, "typing")
        elif step == "again":
            put(f"body {len(kept)}", f"id {number}".replace(" ", "-"))
        elif step == "come":
            if readers[number].client is None:
                readers[number].come()
        elif step == "more":
            readers[number].again()
        elif step == "hole":
            client = readers[number].client
            if client is not None:
                readers[number].look()
        elif step == "go":
            readers[number].go()
        elif step == "slow":
            client = readers[number].client
            if client is not None:
                client.stop_reading()
        elif step == "look":
            looked += store.look()
        elif step == "answer":
            answer()
        elif step == "turn":
            server.clock.advance(0)
        else:
            store.remove("room.a", Retention(messages=60))
            for reader in readers:
                reader.was_trimmed = True
    for _ in range(100):
        for reader in readers:
            if reader.client is not None:
                reader.client.read_on()
        answer()
        server.clock.advance(0)
    put("the end")
    for reader in readers:
        if reader.client is not None:
            reader.look()
            assert reader.last == len(kept)
