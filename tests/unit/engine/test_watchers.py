"""What the engine tells of its sessions, and that it tells nobody where nobody asks."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail
from zope.interface import implementer

from lhttp_tx import Identity, Session
from lhttp_tx.bus.memory import MemoryBus
from lhttp_tx.codec.limits import Limits
from lhttp_tx.engine.watchers import SessionWatcher
from lhttp_tx.errors import BusUnavailable
from lhttp_tx.interfaces import IBus
from lhttp_tx.testing import Client, Server

JOIN = "LHTTP/1.0 x\r\nsubscribe:{}\r\n\r\n"


class Recorder(SessionWatcher):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def session_opened(self, session: Session) -> None:
        self.told.append(("opened",))

    def session_identified(self, session: Session, old: Identity | None, new: Identity) -> None:
        self.told.append(("identified", old and old.user, new.user))

    def session_closed(self, session: Session) -> None:
        self.told.append(("closed",))

    def subscribed(self, session: Session, channel: str) -> None:
        self.told.append(("subscribed", channel))

    def unsubscribed(self, session: Session, channel: str) -> None:
        self.told.append(("unsubscribed", channel))


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def watched(recorder: Recorder, **options: Any) -> Client:
    server = Server(**options)
    server.engine.watchers.append(recorder)
    return server.connect()


def test_a_watcher_is_told_of_each_turn_once(recorder: Recorder) -> None:
    client = watched(recorder)
    client.send(JOIN.format("a b"))
    client.send(JOIN.format("a"))
    client.send("LHTTP/1.0 x\r\nunsubscribe:a\r\n\r\n")
    client.disconnect()
    assert recorder.told == [
        ("opened",),
        ("subscribed", "a"),
        ("subscribed", "b"),
        ("unsubscribed", "a"),
        ("unsubscribed", "b"),
        ("closed",),
    ]


def test_a_connection_that_the_server_closes_is_told_once(recorder: Recorder) -> None:
    client = watched(recorder)
    client.session.close(1000, "")
    client.disconnect()
    assert recorder.told == [("opened",), ("closed",)]


def test_another_identity_is_told_with_the_one_before(recorder: Recorder) -> None:
    client = watched(recorder)
    client.session.identity = Identity("alice", "1")
    client.session.identity = Identity("bob", "1")
    assert recorder.told[1:] == [("identified", None, "alice"), ("identified", "alice", "bob")]


@implementer(IBus)
class RefusingBus(MemoryBus):
    """Refuses one channel, at once or later."""

    def __init__(self, later: bool) -> None:
        super().__init__()
        self.later = later

    def subscribe(self, channel: str, receiver: Any) -> Any:
        if channel != "bad":
            return super().subscribe(channel, receiver)
        if self.later:
            return fail(BusUnavailable("away"))
        raise BusUnavailable("away")


@pytest.mark.parametrize("later", [False, True])
def test_subscriptions_that_fail_are_told_in_pairs(recorder: Recorder, later: bool) -> None:
    client = watched(recorder, bus=RefusingBus(later))
    client.send(JOIN.format("good bad"))
    client.disconnect()
    told = [channel for kind, *channel in recorder.told if kind == "subscribed"]
    assert told == ([["good"], ["bad"]] if later else [["good"]])
    assert sorted(told) == sorted(channel for kind, *channel in recorder.told if kind == "unsubscribed")


def test_a_watcher_that_closes_the_session_leaves_no_subscription_behind(recorder: Recorder) -> None:
    client = watched(recorder)

    class Closer(SessionWatcher):
        def subscribed(self, session: Session, channel: str) -> None:
            session.close(1008, "no")

    client.session._engine.watchers.append(Closer())
    client.send(JOIN.format("a b"))
    assert client.close_code == 1008
    assert client.session._engine.hub.channels == {}


def test_without_watchers_no_identity_is_made() -> None:
    client = Server().connect()
    session = client.session._engine.open_session(client.transport)
    session.subscribe("a")
    assert session._identity is None


def test_a_watcher_looks_away_unless_it_is_overridden() -> None:
    server = Server(limits=Limits())
    server.engine.watchers.append(SessionWatcher())
    client = server.connect()
    client.send(JOIN.format("a"))
    client.session.identity = Identity("alice", "1")
    client.disconnect()
    assert server.engine.sessions == set()


def test_a_subscription_that_waits_is_told_before_it_is_there(recorder: Recorder) -> None:
    class WaitingBus(MemoryBus):
        def subscribe(self, channel: str, receiver: Any) -> Any:
            super().subscribe(channel, receiver)
            return Deferred()

    client = watched(recorder, bus=WaitingBus())
    client.send(JOIN.format("a"))
    assert recorder.told[-1] == ("subscribed", "a")
