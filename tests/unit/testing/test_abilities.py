"""A server in memory does what a real one does: backends, slow readers, drain, slow authenticators, presence, nodes."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from lhttp_tx import Authenticator, Hooks, Identity, Message, Refused, Request, processor
from lhttp_tx.codec.limits import Limits
from lhttp_tx.config import Config
from lhttp_tx.rules.model import AUTHENTICATED, Rule, Rules
from lhttp_tx.testing import Server

JOIN = "LHTTP/1.0 x\r\nsubscribe:room\r\n\r\n"
UPSTREAM = Message("record", {"upstream": "POST http://backend.example/record", "receipt": "1"}, "hello")
BACKENDS = Config(upstream_allow=("http://backend.example/",), upstream_timeout=5.0)


class Record(Resource):
    """A backend that keeps what it gets, and answers at once or later."""

    isLeaf = True

    def __init__(self, *, later: bool = False) -> None:
        super().__init__()
        self.got: list[bytes] = []
        self.waiting: list[Any] = []
        self._later = later

    def render_POST(self, request: Any) -> Any:
        self.got.append(request.content.read())
        request.setResponseCode(201)
        if self._later:
            self.waiting.append(request)
            return NOT_DONE_YET
        return b"thanks"


def status_of(messages: list[Message]) -> list[str | None]:
    return [message.headers.get("upstream-status") or message.headers.get("status") for message in messages]


# Settings


def test_a_config_is_taken_and_its_fields_can_be_named_besides() -> None:
    server = Server(config=Config(presence=("room",), max_per_user=2), max_per_user=1, presence_grace=1.0)
    assert (server.config.presence, server.config.max_per_user, server.config.presence_grace) == (("room",), 1, 1.0)


def test_a_setting_that_is_unknown_is_told() -> None:
    with pytest.raises(TypeError, match="colour"):
        Server(colour="red")


def test_rules_that_ask_for_users_need_no_authenticators_here() -> None:
    server = Server(rules=Rules([Rule("room", subscribe=AUTHENTICATED)]))
    alice, nobody = server.connect(user="alice"), server.connect()
    for client in (alice, nobody):
        client.send(JOIN)
    assert (status_of(alice.take()), status_of(nobody.take())) == ([], ["403"])


# Backends


def test_a_backend_gets_the_message_and_answers_with_a_receipt() -> None:
    backend = Record()
    client = Server(config=BACKENDS, backend=backend).connect()
    for _ in range(2):
        client.send(UPSTREAM)
    answers = client.take()
    assert [(message.headers.get("upstream-status"), message.text) for message in answers] == [("201", "thanks")] * 2
    assert backend.got == [UPSTREAM.raw] * 2


def test_a_backend_may_answer_later() -> None:
    backend = Record(later=True)
    server = Server(config=BACKENDS, backend=backend)
    client = server.connect()
    client.send(UPSTREAM)
    client.send(JOIN.replace("\r\n\r\n", "\r\nreceipt:2\r\n\r\n"))
    assert client.take() == []
    backend.waiting[0].write(b"at last")
    backend.waiting[0].finish()
    server.clock.advance(0)
    assert [message.text for message in client.take()] == ["at last", ""]


def test_a_backend_that_does_not_answer_runs_out_of_time() -> None:
    server = Server(config=BACKENDS, backend=Record(later=True))
    client = server.connect()
    client.send(UPSTREAM)
    server.clock.advance(5.0)
    assert status_of(client.take()) == ["504"]


def test_a_backend_that_is_down_is_left_alone_and_asked_again_when_it_has_cooled_down() -> None:
    server = Server(config=BACKENDS, upstream_max_failures=2, upstream_cool_down=30.0)
    client = server.connect()
    for _ in range(3):
        client.send(UPSTREAM)
    assert status_of(client.take()) == ["502", "502", "503"]
    server.backends.resource = Record()
    server.clock.advance(30.0)
    client.send(UPSTREAM)
    assert status_of(client.take()) == ["201"]


def test_other_backends_are_refused() -> None:
    client = Server(config=BACKENDS, backend=Record()).connect()
    client.send(Message("record", {"upstream": "POST http://other.example/", "receipt": "1"}))
    assert status_of(client.take()) == ["403"]


# Slow readers


class Lost(Hooks):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def on_undelivered(self, session: Any, messages: list[Message]) -> None:
        self.messages += [message.text[:1] for message in messages]


def test_what_a_slow_reader_is_sent_waits_until_it_reads() -> None:
    client = Server().connect()
    client.send(JOIN)
    client.stop_reading()
    client.send(Message("x", {"publish": "room"}, "1"))
    assert (client.take(), client.unsent > 0) == ([], True)
    client.read_on()
    client.send(Message("x", {"publish": "room"}, "2"))
    assert ([message.text for message in client.take()], client.unsent) == (["1", "2"], 0)


def test_nothing_is_read_from_a_client_for_which_much_waits() -> None:
    @processor("large")
    def large(request: Request) -> None:
        request.reply("y" * 50_000)

    client = Server(processors=[large]).connect()
    client.stop_reading()
    for _ in range(5):
        client.send(Message("large"))
    assert (client.reading_paused, client.unsent < 101_000) == (True, True)
    client.read_on()
    assert len(client.take()) == 5


def test_a_reader_that_is_too_slow_is_closed_and_what_it_misses_is_told() -> None:
    hooks = Lost()
    server = Server(hooks=[hooks], limits=Limits(unsent_size=100_000))
    slow, writer = server.connect(), server.connect()
    for client in (slow, writer):
        client.send(JOIN)
    slow.stop_reading()
    for number in range(3):
        writer.send(Message("x", {"publish": "room"}, str(number) * 40_000))
    assert (slow.close_code, slow.take(), hooks.messages) == (1013, [], ["0", "1", "2"])
    assert [message.text[:1] for message in writer.take()] == ["0", "1", "2"]


def test_what_waits_is_lost_when_a_slow_reader_goes() -> None:
    hooks = Lost()
    client = Server(hooks=[hooks]).connect()
    client.send(JOIN)
    client.stop_reading()
    client.send(Message("x", {"publish": "room"}, "1"))
    client.disconnect()
    assert (client.take(), hooks.messages) == ([], ["1"])


# Drain


def test_what_is_in_hand_is_cancelled_when_the_time_to_drain_is_over() -> None:
    cancelled: list[object] = []

    @processor("wait")
    def wait(request: Request) -> Deferred[None]:
        return Deferred(cancelled.append)

    server = Server(processors=[wait], drain_timeout=2.0)
    client = server.connect()
    client.send("LHTTP/1.0 wait\r\n\r\n")
    stopped = server.stop()
    server.clock.advance(1.9)
    before = stopped.called
    server.clock.advance(0.2)
    assert (before, stopped.called, len(cancelled), client.close_code) == (False, True, 1, 1001)


def test_nobody_comes_into_a_server_that_stops() -> None:
    server = Server()
    server.stop()
    with pytest.raises(Refused, match="going away"):
        server.connect()


# Authenticators that wait


class Slow(Authenticator):
    """Answers when a test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, Deferred[Identity | None]]] = []

    def authenticate(self, attempt: Any) -> Deferred[Identity | None]:
        self.asked.append((attempt, Deferred()))
        return self.asked[-1][1]

    def know(self, user: str) -> None:
        attempt, answer = self.asked.pop()
        answer.callback(attempt.identify(user))


def test_a_client_comes_in_when_its_authenticator_has_answered() -> None:
    slow = Slow()
    client = Server(authenticators=[slow]).connect()
    assert (client.connected, client.session) == (True, None)
    with pytest.raises(ConnectionError, match="not complete"):
        client.send(JOIN)
    slow.know("alice")
    assert client.session.identity.user == "alice"
    client.send(JOIN)


def test_a_client_learns_later_that_it_is_refused() -> None:
    slow = Slow()
    client = Server(authenticators=[slow]).connect()
    slow.asked.pop()[1].errback(Refused(403, "not you"))
    assert (client.connected, client.session, str(client.refusal)) == (False, None, "not you")


def test_an_authenticator_that_does_not_answer_runs_out_of_time() -> None:
    server = Server(authenticators=[Slow()], auth_timeout=4.0)
    client = server.connect()
    server.clock.advance(4.0)
    assert isinstance(client.refusal, Refused)
    assert client.refusal.status == 503


def test_a_client_may_go_while_an_authenticator_is_asked() -> None:
    slow = Slow()
    server = Server(authenticators=[slow])
    client = server.connect()
    client.disconnect()
    assert (client.connected, client.session, len(server.engine.sessions)) == (False, None, 0)
    slow.know("alice")
    assert len(server.engine.sessions) == 0


def test_who_is_known_when_the_server_stops_does_not_come_in() -> None:
    slow = Slow()
    server = Server(authenticators=[slow])
    client = server.connect()
    server.stop()
    slow.know("alice")
    assert (client.session, str(client.refusal)) == (None, "server is going away")


# Nodes


def test_a_node_beside_another_knows_of_its_connections() -> None:
    first = Server(presence=["room"])
    second = Server(beside=first, presence=["room"])
    first.clock.advance(5.0)
    alice, watcher = first.connect(user="alice"), second.connect()
    alice.send(JOIN)
    first.clock.advance(5.0)
    watcher.send(Message("presence", {"channel": "room"}))
    assert "alice" in watcher.take()[0].text
    second.control.close(user="alice")
    first.clock.advance(1.0)
    assert not alice.connected


def test_a_node_has_the_bus_and_the_clock_of_the_one_beside_it() -> None:
    first = Server()
    with pytest.raises(ValueError, match="beside"):
        Server(beside=first, bus=first.bus)
