"""lhttp_tx.rules.muting: who may not publish for a while, at once, for how long, and at what price."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from lhttp_tx import HeaderFilter, Message, Request, processor
from lhttp_tx.codec.limits import Limits
from lhttp_tx.errors import TooMany
from lhttp_tx.filters.pubsub import PublishFilter
from lhttp_tx.rules import muting
from lhttp_tx.rules.model import Rules
from lhttp_tx.rules.muting import Mutes, News
from lhttp_tx.testing import Client, Server
from lhttp_tx.transports.websocket.factory import LHTTPServerFactory
from unit.rules.test_filters import errors, listener, publication, receive_together
from unit.test_work import Work, calls, factory, publish, server, settle, subscribers, work
from unit.transports.websocket.test_protocol import connected, frame

__all__ = ["factory", "server", "work"]

MUTED = ("403", "muted: you may publish again in 600 s")
RULES = Rules.from_toml([{"match": "a", "max_rate": 100, "echo": False}])


def mutes_of(found: Server) -> Mutes:
    return found.control._orders.muting.mutes


def bodies(client: Client) -> list[bytes]:
    return [message.body for message in client.take()]


@pytest.mark.parametrize("settings", [{}, {"rules": RULES}, {"history": ["a"]}, {"metrics": True}], ids=str)
@pytest.mark.parametrize("headers", [{}, {"receipt": "r"}, {"message-id": "m1"}, {"message-id": "m1", "receipt": "r"}])
def test_a_mute_is_in_force_at_once_for_heads_that_the_server_knows(
    settings: dict[str, Any], headers: dict[str, str]
) -> None:
    found = Server(**settings)
    heard, jack, jill = listener(found), found.connect(user="jack"), found.connect(user="jill")
    message = publication("a", "known", **headers)
    for client in (jack, jill):
        client.send(message)
        client.take()
    heard.take()
    found.control.mute(user="jack")
    receive_together(jack, message, message, publication("a", "another", **headers))
    assert errors(jack) == [MUTED] * 3
    assert heard.take() == []
    jill.send(publication("a", "free"))
    assert bodies(heard) == [b"free"]
    found.control.unmute(user="jack")
    jack.send(publication("a", "again"))
    assert bodies(heard) == [b"again"]


def test_a_refused_receipt_is_named() -> None:
    found = Server()
    jack = found.connect(user="jack")
    found.control.mute(user="jack", seconds=7)
    jack.send(publication("a", receipt="r1"))
    assert jack.take() == [
        Message("error", [("status", "403"), ("reason", "muted: you may publish again in 7 s"), ("receipt-id", "r1")])
    ]


def test_only_publications_are_refused_and_no_processor_sees_them() -> None:
    seen: list[bytes] = []

    @processor("say")
    def say(request: Request) -> None:
        seen.append(request.body)
        request.reply(body=b"said")

    found = Server(processors=[say], history=["a"], upstream_allow=["http://b/"])
    jack = found.connect(user="jack")
    found.control.mute(user="jack")
    jack.send(Message("say", [], b"one"))
    assert bodies(jack) == [b"said"]
    jack.send(Message("say", [("publish", "a")], b"two"))
    jack.send(Message("x", [("publish", "a"), ("subscribe", "a"), ("upstream", "POST http://b/")]))
    assert errors(jack) == [MUTED] * 2
    assert seen == [b"one"]
    jack.send(Message("x", [("upstream", "POST http://b/")]))
    assert [status for status, _ in errors(jack)] == ["502"]  # the backend is down, but it was asked
    jack.send(Message("x", [("subscribe", "a"), ("receipt", "s")]))
    jack.send(Message("history", [("channel", "a")]))
    jack.send(Message("x", [("unsubscribe", "b"), ("receipt", "u")]))
    assert [message.command for message in jack.take()] == ["receipt", "history", "receipt"]
    found.engine.publish("a", "chat", body="for all")
    assert bodies(jack) == [b"for all"]


def test_a_message_that_a_processor_has_is_refused_when_it_is_done() -> None:
    waiting: list[Deferred[None]] = []

    @processor("say")
    def say(request: Request) -> Deferred[None]:
        waiting.append(Deferred())
        return waiting[-1]

    found = Server(processors=[say])
    heard, jack = listener(found), found.connect(user="jack")
    found.control.mute(user="jill")
    jack.send(Message("say", [("publish", "a")]))
    found.control.mute(user="jack")
    waiting[0].callback(None)
    assert errors(jack) == [MUTED]
    assert heard.take() == []


def test_a_filter_that_lets_a_message_publish_gets_it_refused() -> None:
    class Route(HeaderFilter):
        headers = ("to",)

        def before(self, request: Request) -> None:
            request.message = request.message.replace(headers=[*request.message.headers, ("publish", "a")])

    found = Server(filters=[Route()])
    heard, jack = listener(found), found.connect(user="jack")
    found.control.mute(user="jack")
    jack.send(Message("x", [("to", "all")]))
    assert (errors(jack), heard.take()) == ([MUTED], [])


def test_code_still_publishes_for_the_client() -> None:
    @processor("say")
    def say(request: Request) -> Deferred[None]:
        return request.session.publish("a", "chat", body=request.body)

    found = Server(processors=[say])
    heard, jack = listener(found), found.connect(user="jack")
    found.control.mute(user="jack")
    jack.send(Message("say", [], b"by code"))
    assert bodies(heard) == [b"by code"]


def test_a_muted_client_is_not_closed_after_many_errors() -> None:
    found = Server(config=None, limits=Limits(error_count=3))
    jack = found.connect(user="jack")
    found.control.mute(user="jack")
    for _ in range(5):
        jack.send(publication())
    assert errors(jack) == [MUTED] * 5
    assert not jack.session.closed


def test_a_mute_ends_and_tells_how_long_it_lasts() -> None:
    found = Server()
    heard, jack = listener(found), found.connect(user="jack")
    found.control.mute(user="jack", seconds=90)
    found.clock.advance(30.5)
    jack.send(publication())
    assert errors(jack) == [("403", "muted: you may publish again in 60 s")]
    found.clock.advance(59.5)
    jack.send(publication())
    assert (errors(jack), bodies(heard)) == ([], [b""])


def test_a_later_mute_replaces_the_earlier_one() -> None:
    found = Server()
    jack = found.connect(user="jack")
    for seconds, told in ((50, 50), (10, 10), (20, 20)):
        found.control.mute(user="jack", seconds=seconds)
        jack.send(publication())
        assert errors(jack) == [("403", f"muted: you may publish again in {told} s")]


def test_later_connections_and_logins_of_a_user_are_muted() -> None:
    found = Server()
    found.control.mute(user="jack")
    client = found.connect()
    client.send(publication())
    assert errors(client) == []
    client.session.identity = found.connect(user="jack").session.identity
    client.send(publication())
    assert errors(client) == [MUTED]


def test_a_mute_of_a_connection_concerns_no_other_one() -> None:
    found = Server()
    jack, other = found.connect(user="jack"), found.connect(user="jack")
    found.control.mute(connection=jack.session.identity.connection_id)
    for client in (jack, other):
        client.send(publication())
    assert (errors(jack), errors(other)) == ([MUTED], [])
    found.control.unmute(connection=jack.session.identity.connection_id)
    jack.send(publication())
    assert errors(jack) == []


def test_unmute_of_a_user_frees_the_connections_and_unmute_of_a_connection_does_not_free_the_user() -> None:
    found = Server()
    jack = found.connect(user="jack")
    connection = jack.session.identity.connection_id
    found.control.mute(user="jack")
    found.control.mute(connection=connection)
    found.control.unmute(connection=connection)
    jack.send(publication())
    assert errors(jack) == [MUTED]
    found.control.mute(connection=connection)
    found.control.unmute(user="jack")
    jack.send(publication())
    assert errors(jack) == []


# What it costs


def test_nothing_is_left_of_mutes_that_have_ended() -> None:
    found = Server()
    engine, filters = found.engine, found.engine.filters
    jack = found.connect(user="jack")
    timers = list(found.clock.getDelayedCalls())
    for end in (
        lambda: found.control.unmute(user="jack"),
        lambda: found.clock.advance(600),
        lambda: found.clock.pump([1] * 601),
    ):
        found.control.mute(user="jack")
        found.control.mute(connection=jack.session.identity.connection_id, seconds=60)
        assert engine.filters != filters
        end()
        assert engine.filters is filters
        assert found.clock.getDelayedCalls() == timers


def test_a_stopped_server_has_no_timer() -> None:
    found = Server()
    found.control.mute(user="jack")
    assert found.clock.getDelayedCalls()
    found.assembly.leave()
    assert found.clock.getDelayedCalls() == []


def test_a_mute_of_a_connection_is_gone_with_it() -> None:
    found = Server()
    jack = found.connect(user="jack")
    found.control.mute(connection=jack.session.identity.connection_id)
    jack.disconnect()
    found.clock.advance(60)
    assert len(mutes_of(found)._sessions) == 0
    assert found.clock.getDelayedCalls() == []


def test_a_muted_connection_that_leaves_publishes_nothing_that_waits() -> None:
    waiting: list[Deferred[None]] = []

    @processor("wait")
    def wait(request: Request) -> Deferred[None]:
        waiting.append(Deferred())
        return waiting[-1]

    found = Server(processors=[wait])
    heard, jack = listener(found), found.connect(user="jack")
    found.control.mute(connection=jack.session.identity.connection_id)
    found.control.mute(user="jill", seconds=5)
    jack.send(Message("wait"))
    jack.send(Message("say", [("publish", "a")]))
    jack.disconnect()
    found.clock.advance(10)
    waiting[0].callback(None)
    assert heard.take() == []
    assert jack.session not in found.engine.sessions
    found.clock.advance(60)
    assert len(mutes_of(found)._sessions) == 0


def test_messages_cost_nothing_more_when_nobody_is_muted(factory: LHTTPServerFactory, server: Server) -> None:
    subscribers(factory, 1)
    publisher = connected(factory)
    data = publish("room") * 50

    def cost() -> tuple[int, int]:
        for _ in range(3):
            publisher.protocol.dataReceived(data)
            settle(factory)
        many = calls(publisher.protocol.dataReceived, data)
        settle(factory)
        return many, calls(publisher.protocol.dataReceived, publish("room"))

    before = cost()
    server.control.mute(user="jack")
    muted = cost()
    server.control.unmute(user="jack")
    assert cost() == before
    # While somebody is muted, all others still take the shortcut: a few calls more for each run of messages.
    assert muted[0] - before[0] <= 12
    assert muted[1] - before[1] <= 12


@pytest.mark.parametrize("receipt", ["", "receipt:r{}\r\n"])
def test_others_keep_their_shortcut_while_somebody_is_muted(
    factory: LHTTPServerFactory, server: Server, work: Work, receipt: str
) -> None:
    server.control.mute(user="jack")
    publisher = connected(factory)
    read = b"".join(frame(f"LHTTP/1.0 x\r\npublish:room\r\n{receipt.format(number)}\r\n") for number in range(100))
    assert work(publisher.protocol.dataReceived, read).made("plans", "requests", "deferreds") == (
        {} if receipt else {"plans": 1}
    )


# Bounds


def test_the_number_of_muted_users_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(muting, "MAX_USERS", 3)
    found = Server()
    for number in range(3):
        found.control.mute(user=f"u{number}", seconds=10 + number)
    with pytest.raises(TooMany, match="3 users are muted already"):
        found.control.mute(user="jack")
    found.control.mute(user="u1", seconds=20)
    found.clock.advance(10)
    found.control.mute(user="jack")
    assert mutes_of(found).left_of_user("jack") == 600


def test_the_number_of_lifted_mutes_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(muting, "MAX_USERS", 3)
    found = Server()
    for number in range(5):
        found.clock.advance(1)
        found.control.unmute(user=f"u{number}")
    assert [news.user for news in mutes_of(found).known()] == ["u2", "u3", "u4"]


@pytest.mark.parametrize(
    ("error", "arguments"),
    [
        (ValueError, {"user": "jack", "seconds": 0}),
        (ValueError, {"user": "jack", "seconds": 604_801}),
        (TypeError, {"user": "jack", "seconds": 1.5}),
        (TypeError, {"user": "jack", "seconds": True}),
        (TypeError, {"user": b"jack"}),
        (ValueError, {"user": "x" * 256}),
        (ValueError, {"user": "jack", "connection": "c"}),
        (ValueError, {}),
    ],
)
def test_bad_arguments_are_refused(error: type[Exception], arguments: dict[str, Any]) -> None:
    found = Server()
    with pytest.raises(error):
        found.control.mute(**arguments)
    assert mutes_of(found).known() == []


def test_what_is_older_changes_nothing() -> None:
    found = Server()
    mutes = mutes_of(found)
    assert mutes.mute_user(News("jack", 100, 50.0))
    assert not mutes.mute_user(News("jack", 500, 49.0))
    assert not mutes.lift_user("jack", 49.0)
    mutes.hear(News("jack", 700, 50.0))
    assert mutes.left_of_user("jack") == 100
    assert mutes.lift_user("jack", 51.0)
    mutes.hear(News("jack", 700, 50.5))
    assert mutes.left_of_user("jack") == 0


def test_a_filter_of_the_server_is_replaced_only_where_it_publishes() -> None:
    found = Server()
    before = found.engine.filters
    found.control.mute(user="jack")
    changed = [old for old, new in zip(before, found.engine.filters, strict=True) if old is not new]
    assert [type(each) for each in changed] == [PublishFilter]
