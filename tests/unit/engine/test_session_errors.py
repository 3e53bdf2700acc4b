"""One connection: a client that does nothing right is closed."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from lhttp_tx import Processor, Refused, Request, processor
from lhttp_tx.codec.limits import Limits
from lhttp_tx.errors import BusUnavailable
from lhttp_tx.testing import Client, Server

LIMIT = 5

GOOD = b"LHTTP/1.0 chat\r\npublish:room\r\n\r\nhello"


@processor("echo")
def echo(request: Request) -> None:
    request.reply()


@processor("refuse")
def refuse(request: Request) -> None:
    raise Refused(403, "no")


@processor("broken")
def broken(request: Request) -> None:
    raise BusUnavailable("the bus is away")


class Pending(Processor):
    command = "pending"

    def __init__(self) -> None:
        self.waiting: list[Deferred[None]] = []

    def on_message(self, request: Request) -> Deferred[None]:
        self.waiting.append(Deferred())
        return self.waiting[-1]


@pytest.fixture
def pending() -> Pending:
    return Pending()


@pytest.fixture
def client(pending: Pending) -> Client:
    server = Server(processors=[echo, refuse, broken, pending], limits=Limits(error_count=LIMIT))
    return server.connect()


def send(client: Client, *messages: bytes) -> None:
    for message in messages:
        client.send(message)


@pytest.mark.parametrize(
    "message",
    [b"nonsense", b"LHTTP/1.0 refuse\r\n\r\n", b"LHTTP/1.0 chat\r\nsubscribe:*\r\n\r\n"],
    ids=["malformed", "refused", "header"],
)
def test_so_many_errors_in_a_row_close_the_connection(client: Client, message: bytes) -> None:
    send(client, *[message] * (LIMIT - 1))
    assert client.close_code is None
    send(client, message)
    assert [answer.command for answer in client.take()] == ["error"] * LIMIT
    assert (client.close_code, client.close_reason) == (1008, "too many errors in a row")


@pytest.mark.parametrize(
    "good",
    [GOOD, b"LHTTP/1.0 echo\r\n\r\n", b"LHTTP/1.0 echo\r\nreceipt:1\r\n\r\n", b"LHTTP/1.0 chat\r\nsubscribe:a\r\n\r\n"],
    ids=["shortcut", "processor", "receipt", "subscribe"],
)
def test_a_message_in_order_begins_the_row_anew(client: Client, good: bytes) -> None:
    for _ in range(3):
        send(client, *[b"nonsense"] * (LIMIT - 1), good)
    assert client.close_code is None
    send(client, *[b"nonsense"] * LIMIT)
    assert client.close_code == 1008


def test_a_message_in_order_that_takes_its_time_begins_it_anew(client: Client, pending: Pending) -> None:
    send(client, *[b"nonsense"] * (LIMIT - 1), b"LHTTP/1.0 pending\r\n\r\n", *[b"nonsense"] * (LIMIT - 1))
    assert len(client.take()) == LIMIT - 1
    pending.waiting[0].callback(None)
    assert len(client.take()) == LIMIT - 1
    assert client.close_code is None


def test_an_error_that_takes_its_time_counts(client: Client, pending: Pending) -> None:
    send(client, *[b"nonsense"] * (LIMIT - 1), b"LHTTP/1.0 pending\r\n\r\n", GOOD)
    pending.waiting[0].errback(Refused(403, "no"))
    assert client.close_code == 1008


def test_what_is_not_the_clients_fault_does_not_count(client: Client) -> None:
    send(client, *[b"LHTTP/1.0 broken\r\n\r\n"] * (3 * LIMIT))
    assert client.close_code is None


def test_a_run_of_messages_in_one_read_is_a_row_as_well(client: Client) -> None:
    bad = b"LHTTP/1.0 refuse\r\n\r\n"
    messages, taken = [bad] * (LIMIT - 1) + [GOOD] * 3 + [bad] * 20, 0
    while taken < len(messages):
        taken = client.session.receive_run(messages, taken, True)
    assert len(client.take()) == LIMIT - 1 + LIMIT
    assert client.close_code == 1008


def test_messages_behind_the_last_error_are_not_looked_at(client: Client, pending: Pending) -> None:
    send(client, b"LHTTP/1.0 pending\r\n\r\n", *[b"nonsense"] * LIMIT, b"LHTTP/1.0 echo\r\n\r\n")
    pending.waiting[0].callback(None)
    assert [answer.command for answer in client.take()] == ["error"] * LIMIT


def test_without_a_limit_nobody_is_closed() -> None:
    client = Server(limits=Limits(error_count=0)).connect()
    send(client, *[b"nonsense"] * 1_000)
    assert client.close_code is None


def test_the_limit_is_100_by_default() -> None:
    client = Server().connect()
    send(client, *[b"nonsense"] * 99)
    assert client.close_code is None
    send(client, b"nonsense")
    assert client.close_code == 1008


def test_a_connection_with_errors_drains_as_others_do() -> None:
    server = Server()
    client = server.connect()
    send(client, b"nonsense")
    client.session.finish(1001, "server is going away")
    assert client.close_code == 1001


@pytest.mark.parametrize("has_ended", [False, True])
def test_what_is_sent_is_a_message(has_ended: bool) -> None:
    client = Server().connect()
    session = client.session
    if has_ended:
        client.disconnect()
    with pytest.raises(TypeError, match=r"a message is a lhttp_tx.Message, not 'hello'"):
        session.send("hello")  # type: ignore[arg-type, union-attr]


@pytest.mark.parametrize("channels", [5, [5], [None]])
def test_a_channel_is_a_str(channels: Any) -> None:
    server = Server()
    session = server.connect().session
    for call in (session.subscribe, lambda found: server.server.publish(found, "chat")):  # type: ignore[union-attr]
        with pytest.raises(TypeError):
            call(channels)
