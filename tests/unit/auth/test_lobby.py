"""Login messages: the lobby, renewal, and where they never go."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from lhttp_tx import Authenticator, Message, Refused, Request, processor
from lhttp_tx.auth.attempts import LoginAttempt
from lhttp_tx.codec.limits import Limits
from lhttp_tx.errors import LocalProtocolError
from lhttp_tx.testing import Client, Server


class Names(Authenticator):
    """Knows whoever sends a token that begins with ``good-``; what follows is the user, and how long it lasts."""

    def __init__(self) -> None:
        self.asked = 0
        self.waiting: Deferred[None] | None = None
        self.now: Any = None

    def authenticate(self, attempt: LoginAttempt) -> Any:
        if attempt.token is None:
            return None
        self.asked += 1
        if self.waiting is not None:
            waiting, self.waiting = self.waiting, None
            return waiting.addCallback(lambda _: self.answer(attempt))
        return self.answer(attempt)

    def answer(self, attempt: LoginAttempt) -> Any:
        good, user, *rest = f"{attempt.token}-".split("-")
        if good != "good":
            raise Refused(401, "wrong token")
        return attempt.identify(user, expires=self.now() + float(rest[0]) if rest[0] else None)


@processor("who")
def who(request: Request) -> None:
    request.reply(str(request.session.identity.user))


@pytest.fixture
def names() -> Names:
    return Names()


def server(names: Names, **options: Any) -> Server:
    made = Server(processors=[who], authenticators=[names], **options)
    names.now = made.clock.seconds
    return made


@pytest.fixture
def client(names: Names) -> Client:
    return server(names, login_timeout=10).connect()


def login(token: str, **headers: str) -> Message:
    return Message("login", {"token": token, **headers})


def told(client: Client) -> list[str]:
    return [message.raw.decode("utf-8").removeprefix("LHTTP/1.0 ").rstrip("\r\n") for message in client.take()]


# In the lobby


def test_before_the_login_nothing_else_is_answered(client: Client) -> None:
    client.send(Message("who", {"subscribe": "a", "receipt": "7"}))
    assert told(client) == ["error\r\nstatus:401\r\nreason:log in first\r\nreceipt-id:7"]


def test_what_is_malformed_is_told_so(client: Client) -> None:
    client.send(b"nonsense\r\n\r\n")
    assert told(client)[0].startswith("error\r\nstatus:400\r\nreason:start line")


def test_a_login_opens_the_session(client: Client) -> None:
    client.send(login("good-alice"))
    client.send(Message("who"))
    assert told(client) == ["login\r\nuser:alice", "who\r\n\r\nalice"]


def test_a_login_may_ask_for_a_receipt(client: Client) -> None:
    client.send(login("good-alice", receipt="1"))
    assert told(client) == ["login\r\nuser:alice", "receipt\r\nreceipt-id:1"]


def test_a_wrong_one_is_told_why_and_may_be_followed_by_a_right_one(client: Client) -> None:
    client.send(login("bad", receipt="1"))
    client.send(login("good-alice"))
    assert told(client) == ["error\r\nstatus:401\r\nreason:wrong token\r\nreceipt-id:1", "login\r\nuser:alice"]


def test_the_third_wrong_one_closes_the_connection(client: Client) -> None:
    for _ in range(3):
        client.send(login("bad"))
    assert len(client.take()) == 3
    assert (client.close_code, client.close_reason) == (1008, "too many failed logins")


def test_messages_that_are_no_logins_do_not_count_as_wrong(client: Client) -> None:
    for _ in range(5):
        client.send(Message("who"))
    client.send(login("good-alice"))
    assert told(client)[-1] == "login\r\nuser:alice"


@pytest.mark.parametrize(
    "message",
    [b"nonsense", b"LHTTP/1.0 who\r\n\r\n", b"LHTTP/1.0 login\r\npublish:a\r\n\r\n", b"LHTTP/1.0 x" + b"x" * 70_000],
    ids=["malformed", "no login", "foreign header", "too large"],
)
def test_so_many_errors_close_the_connection_before_a_login(names: Names, message: bytes) -> None:
    client = server(names, login_timeout=10, limits=Limits(error_count=5)).connect()
    for _ in range(4):
        client.send(message)
    assert client.close_code is None
    client.send(message)
    assert [answer.command for answer in client.take()] == ["error"] * 5
    assert (client.close_code, client.close_reason) == (1008, "too many errors in a row")


def test_what_one_read_brings_is_not_answered_past_the_last_error(names: Names) -> None:
    client = server(names, login_timeout=10).connect()
    messages, taken = [b"LHTTP/1.0 who\r\n\r\n"] * 1_000, 0
    while taken < len(messages):
        taken = client.session.receive_run(messages, taken, False)
    assert len(client.take()) == 100


def test_wrong_logins_count_as_errors_and_those_before_a_login_do_not_count_after_it(names: Names) -> None:
    made = server(names, login_timeout=10, limits=Limits(error_count=3))
    client = made.connect()
    for message in (Message("who"), login("bad"), login("good-alice"), login("bad"), Message("who")):
        client.send(message)
    assert client.close_code is None
    client = made.connect()
    for message in (Message("who"), Message("who"), login("bad")):
        client.send(message)
    assert client.close_code == 1008


def test_without_a_limit_on_errors_nobody_is_closed_before_a_login(names: Names) -> None:
    client = server(names, login_timeout=10, limits=Limits(error_count=0)).connect()
    for _ in range(1_000):
        client.send(Message("who"))
    assert client.close_code is None


def test_time_runs_out(names: Names) -> None:
    made = server(names, login_timeout=10)
    client = made.connect()
    made.clock.advance(9.9)
    assert client.close_code is None
    made.clock.advance(0.2)
    assert (client.close_code, client.close_reason) == (4408, "no login within 10 seconds")


def test_a_login_under_way_is_decided_before_time_runs_out(names: Names) -> None:
    made = server(names, login_timeout=3)
    client, waiting = made.connect(), Deferred[None]()
    names.waiting = waiting
    client.send(login("good-alice"))
    made.clock.advance(4)
    assert client.close_code is None
    waiting.callback(None)
    assert told(client) == ["login\r\nuser:alice"]


def test_a_login_that_is_late_and_wrong_is_the_last(names: Names) -> None:
    made = server(names, login_timeout=3)
    client, waiting = made.connect(), Deferred[None]()
    names.waiting = waiting
    client.send(login("bad"))
    made.clock.advance(4)
    waiting.callback(None)
    assert told(client) == ["error\r\nstatus:401\r\nreason:wrong token"]
    assert client.close_code == 4408


def test_who_is_in_has_no_such_limit(names: Names) -> None:
    made = server(names, login_timeout=10)
    client = made.connect()
    client.send(login("good-alice"))
    made.clock.advance(100)
    assert client.close_code is None
    assert made.clock.getDelayedCalls() == []


def test_what_follows_a_login_waits_for_it_in_order(names: Names, client: Client) -> None:
    names.waiting = waiting = Deferred[None]()
    client.send(login("good-alice"))
    for number in range(3):
        client.send(Message("who", {"n": str(number)}))
    assert client.reading_paused
    assert told(client) == []
    waiting.callback(None)
    assert not client.reading_paused
    assert told(client) == ["login\r\nuser:alice", *(f"who\r\nn:{n}\r\n\r\nalice" for n in range(3))]


def test_a_client_that_leaves_while_it_logs_in_leaves_nothing_behind(names: Names) -> None:
    made = server(names, login_timeout=10)
    client = made.connect()
    names.waiting = waiting = Deferred()
    client.send(login("good-alice"))
    client.disconnect()
    assert waiting.called
    assert made.clock.getDelayedCalls() == []
    assert made.engine.sessions == set()


def test_a_client_that_leaves_without_a_word_leaves_nothing_behind(names: Names) -> None:
    made = server(names, login_timeout=10)
    made.connect().disconnect()
    assert made.clock.getDelayedCalls() == []


# On an open connection


def test_a_client_that_is_in_renews_its_login(names: Names) -> None:
    made = server(names)
    client = made.connect(headers={"authorization": "Bearer good-alice-60"})
    made.clock.advance(50)
    client.send(login("good-alice-60"))
    assert told(client) == ["login\r\nuser:alice\r\nexpires:110"]
    made.clock.advance(59)
    assert client.close_code is None
    made.clock.advance(2)
    assert (client.close_code, client.close_reason) == (4401, "credentials have expired")


def test_what_is_not_renewed_ends(names: Names) -> None:
    made = server(names, login_timeout=5)
    client = made.connect()
    client.send(login("good-alice-60"))
    made.clock.advance(61)
    assert client.close_code == 4401


def test_a_renewal_may_last_for_ever(names: Names) -> None:
    made = server(names)
    client = made.connect(headers={"authorization": "Bearer good-alice-60"})
    client.send(login("good-alice"))
    made.clock.advance(1_000)
    assert client.close_code is None


def test_a_closed_connection_leaves_no_timer(names: Names) -> None:
    made = server(names)
    made.connect(headers={"authorization": "Bearer good-alice-60"}).disconnect()
    assert made.clock.getDelayedCalls() == []


def test_a_connection_does_not_change_hands(names: Names) -> None:
    client = server(names).connect(headers={"authorization": "Bearer good-alice"})
    client.send(login("good-bob"))
    client.send(Message("who"))
    assert told(client) == [
        "error\r\nstatus:409\r\nreason:this connection belongs to another user: open another one",
        "who\r\n\r\nalice",
    ]


def test_who_was_nobody_may_become_somebody(names: Names) -> None:
    client = server(names, allow_anonymous=True).connect()
    client.send(Message("who"))
    client.send(login("good-alice"))
    client.send(Message("who"))
    assert told(client) == ["who\r\n\r\nNone", "login\r\nuser:alice", "who\r\n\r\nalice"]


def test_wrong_renewals_close_the_connection_before_more_are_tried(names: Names) -> None:
    client = server(names).connect(headers={"authorization": "Bearer good-alice"})
    names.waiting = waiting = Deferred()
    client.send(login("bad"))
    for _ in range(20):
        client.send(login("bad"))
    waiting.callback(None)
    assert [message.headers.get("reason") for message in client.take()] == ["wrong token"] * 3
    assert (client.close_code, client.close_reason) == (1008, "too many failed logins")
    assert names.asked == 4  # the handshake and three more


# Where they never go


@pytest.mark.parametrize("name", ["publish", "subscribe", "unsubscribe", "upstream", "multipart"])
@pytest.mark.parametrize("inside", [False, True])
def test_a_login_message_asks_for_nothing_else(names: Names, name: str, inside: bool) -> None:
    made = server(names, login_timeout=5)
    other = made.connect(user="bob")
    other.send(Message("x", {"subscribe": "a"}))
    client = made.connect(headers={"authorization": "Bearer good-alice"} if inside else {})
    asked = names.asked
    client.send(login("good-alice", **{name.upper(): "a"}))
    assert told(client) == [f"error\r\nstatus:400\r\nreason:a login message must not have the header {name}"]
    assert other.take() == []
    assert names.asked == asked


def test_code_does_not_publish_one_either(names: Names) -> None:
    made = server(names)
    with pytest.raises(LocalProtocolError, match="never published"):
        made.engine.publish("a", "login", {"token": "good-alice"})


def test_its_head_is_not_kept(names: Names) -> None:
    made = server(names)
    client = made.connect(headers={"authorization": "Bearer good-alice"})
    client.send(login("good-alice"))
    client.send(Message("who"))
    kept = repr(list(made.engine._plans.young))
    assert "who" in kept
    assert "good" not in kept


def test_without_an_authenticator_login_is_a_command_like_others() -> None:
    client = Server().connect()
    client.send(Message("login", {"subscribe": "a", "publish": "a"}))
    assert [message.command for message in client.take()] == ["login"]
