"""lhttp_tx.transports.http.session, with its intake and its outlet: a client that comes with requests."""

from __future__ import annotations

from typing import Any

import pytest
from turns import spend, turn
from twisted.internet.defer import Deferred

from lhttp_tx import Authenticator, Hooks, Message, Processor, Request
from lhttp_tx.auth.attempts import LoginAttempt
from lhttp_tx.codec.limits import Limits
from lhttp_tx.errors import Refused
from lhttp_tx.guard.reads import TURN
from lhttp_tx.transports.endings import Ending, ending_of
from unit.transports.http._stack import Node, outcome, texts

pytestmark = pytest.mark.usefixtures("clock")


class Slow(Processor):
    """Takes as long as a test wants."""

    command = "slow"

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.waiting: list[Deferred[None]] = []

    def on_message(self, request: Request) -> Any:
        self.seen.append(request.message.text)
        self.waiting.append(Deferred())
        return self.waiting[-1]

    def go_on(self) -> None:
        self.waiting.pop(0).callback(None)


def slow(body: str) -> Message:
    return Message("slow", (), body)


def refused(call: Any) -> int:
    with pytest.raises(Refused) as caught:
        call()
    return caught.value.status


# What comes


def test_the_messages_of_a_request_are_handled_in_several_turns() -> None:
    class Dear(Slow):
        command = "dear"

        def on_message(self, request: Request) -> None:
            spend(node.clock, TURN / 2 + 1e-6)
            self.seen.append(request.message.text)

    dear = Dear()
    node = Node(processors=[dear])
    client = node.begin()
    raw = [Message("dear", [("number", str(number))], str(number)).raw for number in range(10)]
    runs = [([message], number % 3 == 0) for number, message in enumerate(raw[:5])] + [(raw[5:], False)]
    done = client.take(runs, None, 1_000, 0)
    turns = [len(dear.seen)]
    while not done.called:
        assert refused(lambda: client.take([([raw[0]], False)], None, 100, 0)) == 429
        turn(node.clock)
        turns.append(len(dear.seen))
    assert turns == [2, 4, 6, 8, 10]
    assert dear.seen == [str(number) for number in range(10)]


def test_a_session_that_ends_has_no_more_turns() -> None:
    class Dear(Slow):
        command = "dear"

        def on_message(self, request: Request) -> None:
            spend(node.clock, 2 * TURN)
            self.seen.append(request.message.text)

    dear = Dear()
    node = Node(processors=[dear])
    client = node.begin()
    done = client.take([([Message("dear", (), str(number)).raw], False) for number in range(3)], None, 100, 0)
    client.end()
    assert outcome(done) == 404
    turn(node.clock)
    assert dear.seen == ["0"]


def test_what_was_published_is_fetched_in_order() -> None:
    node = Node()
    client = node.begin()
    node.subscribe(client, "room")
    for number in range(3):
        node.publish("room", str(number))
    fetched = outcome(node.fetch(client))
    assert [text[-1] for text in texts(fetched)] == ["0", "1", "2"]
    assert fetched.last == 3
    assert not fetched.over


def test_an_answer_that_was_lost_comes_again() -> None:
    node = Node()
    client = node.begin()
    node.subscribe(client, "room")
    node.publish("room", "1")
    assert outcome(node.fetch(client)) == outcome(node.fetch(client))
    node.publish("room", "2")
    assert [text[-1] for text in texts(outcome(node.fetch(client, 1)))] == ["2"]
    assert refused(lambda: node.fetch(client, 0)) == 410
    assert refused(lambda: node.fetch(client, 1)) == 404
    assert not node.server.engine.sessions


def test_a_request_waits_for_what_comes_and_gets_all_of_a_turn() -> None:
    node = Node()
    client = node.begin()
    node.subscribe(client, "room")
    waiting = node.fetch(client, wait=20)
    node.publish("room", "1")
    node.publish("room", "2")
    assert not waiting.called
    node.turn()
    assert len(outcome(waiting).entries) == 2


def test_a_request_that_waits_long_gets_nothing() -> None:
    node = Node()
    client = node.begin()
    waiting = node.fetch(client, wait=20)
    node.clock.advance(20)
    fetched = outcome(waiting)
    assert (fetched.last, fetched.entries, fetched.over) == (0, [], False)


def test_a_new_request_takes_the_place_of_the_one_before() -> None:
    node = Node()
    client = node.begin()
    node.subscribe(client, "room")
    first, second = node.fetch(client, wait=20, name="1"), node.fetch(client, wait=20, name="2")
    assert outcome(first) == 409
    assert refused(lambda: node.fetch(client, name="1", begins=False)) == 409
    node.publish("room", "x")
    node.turn()
    assert len(outcome(second).entries) == 1
    assert outcome(node.fetch(client, 1, name="2", begins=False)).entries == []


def test_a_stream_keeps_what_it_has_not_acknowledged() -> None:
    node = Node()
    client = node.begin()
    node.subscribe(client, "room")
    node.publish("room", "1")
    outcome(node.fetch(client, name="s"))
    outcome(node.fetch(client, 1, name="s", begins=False))
    assert outcome(node.fetch(client, 0)).last == 1
    outcome(client.take([], None, 0, 1))
    assert refused(lambda: node.fetch(client, 0)) == 410


def test_a_number_that_never_was_is_refused_and_does_no_harm() -> None:
    node = Node()
    client = node.begin()
    assert refused(lambda: node.fetch(client, 5)) == 400
    assert outcome(node.fetch(client)).entries == []


# The end


def test_a_session_ends_that_nobody_fetches() -> None:
    node = Node()
    client = node.begin()
    node.subscribe(client, "room")
    node.clock.advance(node.sessions.patience - 1)
    waiting = node.fetch(client, wait=20)
    node.clock.advance(20)
    assert outcome(waiting) is not None
    node.clock.advance(node.sessions.patience - 1)
    assert len(node.server.engine.sessions) == len(node.sessions) == node.factory.countConnections == 1
    node.clock.advance(1)
    assert len(node.server.engine.sessions) == len(node.sessions) == node.factory.countConnections == 0
    assert node.admission.pending == 0
    assert refused(lambda: node.fetch(client)) == 404
    assert refused(lambda: client.take([], None, 0, 0)) == 404


def test_a_client_that_hangs_up_is_waited_for() -> None:
    node = Node()
    client = node.begin()
    waiting = node.fetch(client, wait=20)
    node.clock.advance(10)
    waiting.addErrback(lambda _: None)
    waiting.cancel()
    node.clock.advance(node.sessions.patience - 1)
    assert outcome(node.fetch(client)) is not None
    assert len(node.sessions) == 1


def test_a_client_is_told_why_its_session_is_closed() -> None:
    node = Node()
    client = node.begin()
    waiting = node.fetch(client, wait=20)
    (session,) = node.server.engine.sessions
    session.close(4000, "enough")
    node.turn()
    fetched = outcome(waiting)
    assert texts(fetched) == ["LHTTP/1.0 close\r\ncode:4000\r\nreason:enough\r\n\r\n"]
    assert fetched.over
    assert not node.server.engine.sessions
    assert outcome(node.fetch(client)).over  # the answer was lost
    assert refused(lambda: node.fetch(client, 1)) == 404
    assert len(node.sessions) == 0


def test_the_last_messages_are_not_kept_for_long() -> None:
    node = Node()
    client = node.begin()
    (session,) = node.server.engine.sessions
    session.close()
    node.clock.advance(node.sessions.close_timeout)
    assert refused(lambda: node.fetch(client)) == 404
    assert node.factory.countConnections == 0


def test_a_server_that_stops_tells_its_clients() -> None:
    node = Node()
    waiting = node.fetch(node.begin(), wait=20)
    stopping = node.server.engine.drain(5)
    node.turn()
    assert stopping.called
    assert "code:1001" in texts(outcome(waiting))[0]
    stopped = node.sessions.stop()
    assert len(node.sessions) == 0
    node.turn()
    assert stopped.called


def test_a_server_that_stops_waits_for_a_client_between_two_requests() -> None:
    node = Node()
    client = node.begin()
    node.subscribe(client, "room")
    node.publish("room", "the last one")
    node.server.engine.drain(5)
    node.turn()
    stopped = node.sessions.stop()
    node.clock.advance(0.1)
    assert not stopped.called
    last, closed = texts(outcome(node.fetch(client)))
    assert last.endswith("the last one")
    assert "code:1001" in closed
    node.clock.pump([0.1, 0.1])
    assert stopped.called
    assert len(node.sessions) == 0


def test_a_server_that_stops_waits_for_no_client_longer_than_for_a_websocket() -> None:
    node = Node()
    node.begin()
    node.server.engine.drain(5)
    node.turn()
    stopped = node.sessions.stop()
    node.clock.pump([0.02] * round(node.factory.closeHandshakeTimeout / 0.02 - 1))
    assert not stopped.called
    node.clock.pump([0.02] * 3)
    assert stopped.called
    assert len(node.sessions) == 0


def test_a_client_that_fetches_nothing_is_cut_off() -> None:
    lost: list[str] = []

    class Keeper(Hooks):
        def on_undelivered(self, session: Any, messages: list[Message]) -> None:
            lost.extend(message.text for message in messages)

    node = Node(hooks=[Keeper()], limits=Limits(unsent_size=1_000))
    client = node.begin()
    node.subscribe(client, "room")
    node.publish("room", "first")
    outcome(node.fetch(client))
    for number in range(20):
        node.publish("room", str(number))
    (told,) = texts(outcome(node.fetch(client, 1)))
    assert "code:1013" in told
    assert lost == [str(number) for number in range(len(lost))]
    assert 5 < len(lost) < 20


def test_what_nobody_fetched_is_told_at_the_end() -> None:
    lost: list[str] = []

    class Keeper(Hooks):
        def on_undelivered(self, session: Any, messages: list[Message]) -> None:
            lost.extend(message.text for message in messages)

    node = Node(hooks=[Keeper()])
    client = node.begin()
    node.subscribe(client, "room")
    node.publish("room", "fetched")
    outcome(node.fetch(client))
    node.publish("room", "lost")
    client.end()
    assert lost == ["lost"]


# What goes


def test_messages_are_handled_one_after_the_other() -> None:
    processor = Slow()
    node = Node(processors=[processor])
    client = node.begin()
    assert node.send(client, slow("1"), slow("2"), number=1) is None
    node.send(client, slow("3"), number=2)
    assert processor.seen == ["1"]
    for _ in range(3):
        processor.go_on()
    assert processor.seen == ["1", "2", "3"]


def test_a_request_that_comes_again_is_not_handled_again() -> None:
    node = Node()
    client = node.begin()
    watcher = node.server.connect()
    watcher.send(Message("x", [("subscribe", "room")]))
    hello = Message("chat", [("publish", "room")], "hello")
    node.send(client, hello, number=1)
    node.send(client, hello, number=1)
    node.send(client, hello, number=2)
    node.send(client, hello, number=1)
    assert len(watcher.received) == 2


def test_a_request_that_comes_again_takes_the_place_of_the_one_that_waits() -> None:
    processor = Slow()
    node = Node(processors=[processor], limits=Limits(queue_length=1))
    client = node.begin()
    runs = [([slow(f"{number}").raw for number in range(3)], False)]
    waiting = [client.take(runs, 1, 0, 0) for _ in range(3)]
    assert [outcome(found) for found in waiting] == [409, 409, None]
    for _ in range(3):
        processor.go_on()
    assert waiting[2].called
    assert processor.seen == ["0", "1", "2"]


def test_a_request_that_is_missing_is_noticed() -> None:
    node = Node()
    client = node.begin()
    assert refused(lambda: client.take([], 2, 0, 0)) == 409


def test_a_full_queue_makes_the_client_wait() -> None:
    processor = Slow()
    node = Node(processors=[processor], limits=Limits(queue_length=2))
    client = node.begin()
    sending = client.take([([slow(str(number)).raw for number in range(6)], False)], 1, 0, 0)
    assert not sending.called
    assert refused(lambda: client.take([], 2, 0, 0)) == 429
    while processor.waiting:
        processor.go_on()
    assert sending.called
    assert processor.seen == [str(number) for number in range(6)]
    assert client.take([], 2, 0, 0).called


def test_a_session_that_ends_lets_nobody_wait() -> None:
    node = Node(processors=[Slow()], limits=Limits(queue_length=1))
    client = node.begin()
    sending = client.take([([slow(str(number)).raw for number in range(6)], False)], 1, 0, 0)
    waiting = node.fetch(client, wait=20)
    client.end()
    assert (outcome(sending), outcome(waiting)) == (404, 404)


def test_messages_a_second_are_bounded() -> None:
    node = Node(limits=Limits(message_rate=1.0, message_burst=2))
    client = node.begin()
    ping = Message("x", [("receipt", "r")]).raw
    sending = client.take([([ping] * 4, False)], 1, 0, 0)
    assert not sending.called
    assert len(outcome(node.fetch(client)).entries) == 2
    node.clock.advance(1)
    node.clock.advance(1)
    assert sending.called


def test_an_error_comes_as_a_message() -> None:
    node = Node()
    client = node.begin()
    node.send(client, b"nonsense")
    assert texts(outcome(node.fetch(client)))[0].startswith("LHTTP/1.0 error\r\nstatus:400\r\n")


# Logins


class Tokens(Authenticator):
    """Knows one token."""

    def authenticate(self, attempt: LoginAttempt) -> Any:
        if attempt.token == "good":
            return attempt.identify("ada")
        return None if attempt.token is None else Refused(401, "wrong token")


def attempt() -> LoginAttempt:
    return LoginAttempt("tcp4:192.0.2.1:1", "c1")


def test_a_client_logs_in_with_a_message() -> None:
    node = Node(authenticators=[Tokens()], login_timeout=5.0)
    client = node.begin(attempt=attempt())
    node.send(client, Message("x", [("subscribe", "room")]), Message("login", [("token", "good")]))
    node.subscribe(client, "room")
    node.publish("room", "hello")
    error, login, message = texts(outcome(node.fetch(client)))
    assert "status:401" in error
    assert "user:ada" in login
    assert message.endswith("hello")


def test_a_client_that_does_not_log_in_is_closed() -> None:
    node = Node(authenticators=[Tokens()], login_timeout=5.0)
    client = node.begin(attempt=attempt())
    waiting = node.fetch(client, wait=20)
    node.clock.advance(node.server.config.login_timeout)
    node.turn()
    assert "code:4408" in texts(outcome(waiting))[0]


# For the engine


def test_a_session_knows_when_all_was_fetched() -> None:
    node = Node()
    client = node.begin()
    (session,) = node.server.engine.sessions
    session.send(Message("x"))
    drained = session.drained()
    assert session.unsent > 0
    assert not drained.called
    outcome(node.fetch(client))
    assert drained.called
    assert session.unsent == 0
    assert session.drained().called


def test_a_client_may_get_views() -> None:
    node = Node()
    client = node.begin("lhttp.json")
    node.subscribe(client, "room")
    node.publish("room", "hi")
    found: list[object] = [*texts(outcome(node.fetch(client)))]
    assert found == [{"VERSION": "LHTTP/1.0", "COMMAND": "chat", "HEADERS": {"publish": "room"}, "BODY": "hi"}]


# How it ends, for operators


@pytest.mark.parametrize("how", ["client", "lapsed", "lost", "server"])
def test_operators_are_told_how_a_session_has_ended(how: str) -> None:
    node = Node(metrics=True, limits=Limits(unsent_size=1_000))
    session = node.begin()
    if how == "client":
        session.end(1000)
    elif how == "lapsed":
        node.clock.advance(100)
    elif how == "server":
        session.close(4001, "go")
        node.clock.advance(100)
    else:
        node.subscribe(session, "room")
        for _ in range(20):
            node.publish("room", "x" * 100)
            outcome(node.fetch(session, session._outlet.backlog.last - 1))
        assert refused(lambda: node.fetch(session, 0)) == 410
    ending = {
        "client": Ending(1000),
        "lapsed": Ending(1006, "nobody fetches its messages"),
        "lost": Ending(1006, "its client has lost messages"),
        "server": Ending(4001, "go", "server"),
    }[how]
    assert ending_of(session) == ending
    counters: Any = node.server.engine.counters
    assert counters.closed == {("other" if how == "server" else str(ending.code), ending.by): 1}
