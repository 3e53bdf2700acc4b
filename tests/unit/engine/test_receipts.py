"""Receipts on a bus that has yet to take what was published: when they come, and what waits for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from lhttp_tx import Message, Request, processor
from lhttp_tx.bus.memory import MemoryBus
from lhttp_tx.engine.receipts import MAX_SIZE, Receipts
from lhttp_tx.errors import BusUnavailable, ChannelsRefused
from lhttp_tx.history.values import Filing
from lhttp_tx.rules.model import Rule, Rules
from lhttp_tx.testing import Client, Server

UNKNOWN = "the bus has not confirmed the publication: it is not known whether it arrived"


class FarBus(MemoryBus):
    """
    A bus that has what was published when the test says so.

    :ivar questions: those that have no answer yet.
    :ivar asked: how many there were.
    """

    def __init__(self) -> None:
        super().__init__()
        self.questions: list[Deferred[None]] = []
        self.asked = 0

    def confirm(self) -> Deferred[None]:
        self.asked += 1
        self.questions.append(Deferred())
        return self.questions[-1]

    def take(self) -> None:
        """Have everything."""
        questions, self.questions = self.questions, []
        for question in questions:
            question.callback(None)

    def refuse(self, *channels: str) -> None:
        """Have everything but what went to these channels."""
        questions, self.questions = self.questions, []
        for question in questions:
            question.errback(ChannelsRefused(frozenset(channels)))

    def lose(self) -> None:
        """Be gone, with whatever was on its way."""
        questions, self.questions = self.questions, []
        for question in questions:
            question.errback(BusUnavailable(UNKNOWN))


@processor("echo")
def echo(request: Request) -> None:
    request.reply()


@processor("publishing")
def publishing(request: Request) -> Any:
    return request.session.publish("other", "news")


@pytest.fixture
def bus() -> FarBus:
    return FarBus()


@pytest.fixture
def server(bus: FarBus) -> Server:
    return Server(bus=bus, processors=[echo, publishing])


@pytest.fixture
def client(server: Server) -> Client:
    return server.connect()


def publication(number: int, channel: str = "room") -> Message:
    return Message("chat", {"publish": channel, "receipt": str(number)})


def receipts(*numbers: int) -> list[Message]:
    return [Message("receipt", {"receipt-id": str(number)}) for number in numbers]


def unknown(*numbers: int) -> list[Message]:
    return [Message("error", {"status": "503", "reason": UNKNOWN, "receipt-id": str(number)}) for number in numbers]


def test_a_receipt_for_a_publication_comes_when_the_bus_has_it(client: Client, bus: FarBus) -> None:
    client.send(publication(1))
    assert client.take() == []
    bus.take()
    assert client.take() == receipts(1)


def test_a_publication_that_the_bus_may_have_lost_is_answered_with_503(client: Client, bus: FarBus) -> None:
    client.send(publication(1))
    bus.lose()
    assert client.take() == unknown(1)


def test_subscribers_of_the_node_get_it_before_the_bus_has_it(server: Server, client: Client) -> None:
    other = server.connect()
    other.send(Message("chat", {"subscribe": "room"}))
    client.send(publication(1))
    assert other.take() == [Message("chat", {"publish": "room"})]


def test_the_bus_is_not_asked_where_nobody_waits(client: Client, bus: FarBus) -> None:
    client.send(Message("chat", {"publish": "room"}))
    client.send(Message("chat", {"subscribe": "room", "receipt": "1"}))
    assert (bus.asked, client.take()) == (0, receipts(1))


def test_the_bus_is_not_asked_for_a_publication_that_a_processor_withheld(bus: FarBus) -> None:
    @processor("silent")
    def silent(request: Request) -> None:
        request.publication = None

    client = Server(bus=bus, processors=[silent]).connect()
    client.send(Message("silent", {"publish": "room", "receipt": "1"}))
    assert (bus.asked, client.take()) == (0, receipts(1))


def test_publications_do_not_wait_for_receipts_before_them(server: Server, client: Client) -> None:
    other = server.connect()
    other.send(Message("chat", {"subscribe": "room"}))
    for number in range(3):
        client.send(publication(number))
    client.send(Message("last", {"publish": "room"}))
    assert [message.command for message in other.take()] == ["chat", "chat", "chat", "last"]


def test_a_thousand_receipts_cost_two_questions(client: Client, bus: FarBus) -> None:
    for number in range(1_000):
        client.send(publication(number))
    bus.take()
    assert client.take() == receipts(0)
    bus.take()
    assert client.take() == receipts(*range(1, 1_000))
    assert bus.asked == 2


def test_the_receipts_that_came_together_are_written_together(
    client: Client, bus: FarBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(100):
        client.send(publication(number))
    writes: list[bytes] = []
    monkeypatch.setattr(client.transport, "deliver", writes.append)
    bus.take()
    bus.take()
    assert len(writes) == 2


def test_a_message_that_does_more_than_to_publish_waits_for_receipts_before_it(client: Client, bus: FarBus) -> None:
    client.send(publication(1))
    client.send(Message("echo"))
    client.send(publication(2))
    assert client.take() == []
    bus.take()
    assert client.take() == [*receipts(1), Message("echo")]
    bus.take()
    assert client.take() == receipts(2)


@pytest.mark.parametrize("headers", [{"subscribe": "late"}, {"publish": "room", "unsubscribe": "room"}])
def test_a_subscription_waits_for_receipts_before_it(
    client: Client, bus: FarBus, server: Server, headers: dict[str, str]
) -> None:
    client.send(Message("chat", {"subscribe": "room"}))
    client.send(publication(1))
    client.send(Message("chat", headers))
    assert client.session.channels == {"room"}
    bus.take()
    assert client.session.channels != {"room"}


def test_errors_come_behind_the_receipts_before_them(client: Client, bus: FarBus) -> None:
    client.send(publication(1))
    client.send("nonsense")
    client.send(Message("chat", {"publish": "a..b", "receipt": "2"}))
    client.send(publication(3))
    assert client.take() == []
    bus.take()
    first, second, third = client.take()
    assert (first, second.headers.get("status"), third.headers.get("receipt-id")) == (*receipts(1), "400", "2")
    bus.take()
    assert client.take() == receipts(3)


def test_all_that_came_before_a_loss_was_known_is_refused(client: Client, bus: FarBus) -> None:
    client.send(publication(1))
    client.send(publication(2))
    client.send("nonsense")
    bus.lose()
    *lost, error = client.take()
    assert (lost, error.headers.get("status"), bus.asked) == (unknown(1, 2), "400", 1)
    client.send(publication(3))
    bus.take()
    assert client.take() == receipts(3)


def test_receipts_that_wait_are_bounded(server: Server, client: Client, bus: FarBus) -> None:
    other = server.connect()
    other.send(Message("chat", {"subscribe": "room"}))
    for number in range(300):
        client.send(Message("chat", {"publish": "room", "receipt": f"{number:07000}"}))
    assert 2 < len(other.take()) <= 1 + MAX_SIZE // 7_000
    while bus.questions:
        bus.take()
    assert [int((message.headers.get("receipt-id") or "")[-4:]) for message in client.take()] == list(range(300))


@pytest.mark.parametrize("many", [False, True], ids=["one by one", "in one read"])
def test_errors_that_wait_behind_receipts_are_bounded_too(
    client: Client, bus: FarBus, monkeypatch: pytest.MonkeyPatch, many: bool
) -> None:
    refused = 0

    def refuse(channel: str, payloads: Iterator[bytes], binary: bool) -> None:
        nonlocal refused
        refused += 1
        next(payloads)
        raise BusUnavailable("the bus is congested, try again later")

    client.send(publication(0))
    monkeypatch.setattr(bus, "publish_run", refuse)
    data = Message("chat", {"publish": "room"}).raw
    if many:
        client.session.receive_run([data] * 10_000, 0, False)
    else:
        for _ in range(10_000):
            client.session.receive(data, False)
    assert 1_000 < refused < 5_000
    before = refused
    bus.take()
    assert [message.command for message in client.take()][: before + 1] == ["receipt"] + ["error"] * before
    monkeypatch.undo()
    client.send(publication(1))
    assert bus.asked == 2


def test_receipts_that_are_sent_make_room_for_others(server: Server, client: Client, bus: FarBus) -> None:
    other = server.connect()
    other.send(Message("chat", {"subscribe": "room"}))
    for number in range(300):
        client.send(Message("chat", {"publish": "room", "receipt": f"{number:07000}"}))
        assert len(other.take()) == 1
        if number:
            bus.take()


def test_answers_that_were_given_up_end_once() -> None:
    ends: list[int] = []
    sent: list[list[bytes]] = []
    waiting = Receipts(
        confirm=lambda _: FarBus().confirm(),
        send=lambda run, _: sent.append(run),
        ended=lambda: ends.append(1),
        peer="test",
    )
    confirmation: Deferred[None] = Deferred()
    waiting.add((b"receipt", False, "1", None, ("room",)))
    waiting.begin(confirmation)
    waiting.give_up()
    confirmation.callback(None)
    assert (len(sent), ends) == (1, [1])


def test_publications_under_rules_do_not_wait_either(bus: FarBus) -> None:
    server = Server(bus=bus, rules=Rules((Rule("room", max_rate=100.0),)))
    client = server.connect()
    client.send(publication(1))
    client.send(publication(2))
    bus.take()
    bus.take()
    assert client.take() == receipts(1, 2)


def test_a_processor_that_publishes_can_wait_for_the_bus(client: Client, bus: FarBus) -> None:
    client.send(Message("publishing", {"receipt": "1"}))
    assert client.take() == []
    bus.take()
    assert client.take() == receipts(1)


def test_a_processor_is_told_when_it_is_not_known(client: Client, bus: FarBus) -> None:
    client.send(Message("publishing", {"receipt": "1"}))
    bus.lose()
    assert client.take() == unknown(1)


def test_a_server_that_stops_sends_the_receipts_that_wait(server: Server, client: Client, bus: FarBus) -> None:
    client.send(publication(1))
    drained: list[Any] = []
    server.engine.drain(10.0).addCallback(drained.append)
    assert (client.close_code, drained) == (None, [])
    bus.take()
    assert (client.take(), client.close_code, drained) == (receipts(1), 1001, [None])


def test_a_server_that_stops_waits_no_longer_than_it_may(server: Server, client: Client) -> None:
    client.send(publication(1))
    client.send(Message("echo", {"receipt": "2"}))
    server.engine.drain(10.0)
    server.clock.advance(10.0)
    first, second = client.take()
    assert (first.headers.get("status"), first.headers.get("receipt-id")) == ("503", "1")
    assert (second.headers.get("status"), second.headers.get("receipt-id")) == ("500", "2")
    assert client.close_code == 1001


def test_a_confirmation_after_that_changes_nothing(server: Server, client: Client, bus: FarBus) -> None:
    client.send(publication(1))
    server.engine.drain(10.0)
    server.clock.advance(10.0)
    bus.take()
    assert len(client.take()) == 1


def test_a_client_that_has_gone_needs_no_receipt(server: Server, client: Client, bus: FarBus) -> None:
    client.send(publication(1))
    client.send(Message("publishing"))
    client.disconnect()
    bus.take()
    bus.take()
    assert (client.take(), server.engine.sessions) == ([], set())


def test_code_without_a_connection_hears_when_the_bus_has_it(server: Server, bus: FarBus) -> None:
    fired: list[Any] = []
    server.engine.publish("room", "news").addCallback(fired.append)
    assert fired == []
    bus.take()
    assert fired == [None]


def test_code_without_a_connection_hears_when_it_is_not_known(server: Server, bus: FarBus) -> None:
    failed: list[Any] = []
    server.engine.publish("room", "news").addErrback(lambda failure: failed.append(failure.value.reason))
    bus.lose()
    assert failed == [UNKNOWN]


def test_answers_that_wait_for_a_store_count_what_they_wait_with() -> None:
    receipts = Receipts(confirm=lambda _: Deferred(), send=lambda *_: None, ended=lambda: None, peer="test")
    count = 0
    while receipts.has_room:
        filing = Filing("id")
        for number in range(32):
            filing.place(f"room.{number}")
        receipts.add((b"x", False, "1", filing, ("room",)))
        count += 1
    assert count <= MAX_SIZE // 5_000 + 1  # measured: 5,037 bytes each


def test_what_the_bus_refuses_fails_no_receipts_of_other_channels(bus: FarBus, server: Server, client: Client) -> None:
    for number, channel in enumerate(("good", "bad", "good", "bad", "good bad", "fine")):
        client.send(publication(number, channel))
    done: list[Any] = []
    for channel in ("bad", "good"):
        server.engine.publish(channel, "x").addBoth(done.append)
    bus.refuse("bad", "worse")
    told = client.take()
    assert [message.headers.get("receipt-id") for message in told] == ["0", "1"]  # the others were not asked for yet
    bus.take()
    told += client.take()
    assert [message.headers.get("receipt-id") for message in told] == ["0", "1", "2", "3", "4", "5"]
    failed = [message.headers.get("receipt-id") for message in told if message.command == "error"]
    assert failed == ["1", "3", "4"]
    assert {message.headers.get("reason") for message in told} == {None, "the bus does not allow this channel"}
    assert [getattr(each, "value", each).__class__ for each in done] == [ChannelsRefused, type(None)]


def test_an_id_of_what_the_bus_refuses_may_be_used_again(bus: FarBus, server: Server) -> None:
    client = server.connect()
    for number, channel in enumerate(("bad", "good")):
        client.send(Message("chat", {"publish": channel, "receipt": str(number), "message-id": "x"}))
    bus.refuse("bad")
    bus.take()
    client.take()
    for number, channel in enumerate(("bad", "good")):
        client.send(Message("chat", {"publish": channel, "receipt": str(number), "message-id": "x"}))
    bus.take()
    bus.take()
    assert [message.headers.get("duplicate") for message in client.take()] == [None, "1"]
