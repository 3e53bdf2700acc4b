"""POST /publish into a history: positions, keys, and a store that refuses. And what /health says of the store."""

from __future__ import annotations

import json
from typing import Any

import pytest
import txaio
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import Site

from lhttp_tx.errors import HistoryUnavailable
from lhttp_tx.guard.access import AccessPolicy
from lhttp_tx.testing import Server
from lhttp_tx.web.health import HealthResource
from lhttp_tx.web.publish import PublishResource
from unit.history.test_archive import FullStore
from unit.history.test_recovery import a_server, at, subscribe, told

pytestmark = pytest.mark.usefixtures("clock")

BODY = b"LHTTP/1.0 say\r\npublish:room.a\r\n\r\nhi"


class Local(StringTransport):
    """A connection of a program on this machine."""

    def __init__(self) -> None:
        super().__init__(peerAddress=IPv4Address("TCP", "127.0.0.1", 54321))


def post(server: Server, body: bytes = BODY, *headers: tuple[str, str]) -> Any:
    """Return a function that returns the status and the JSON, or the text, of the answer."""
    root = Resource()
    root.putChild(b"publish", PublishResource(server.engine, AccessPolicy()))
    site = Site(root, reactor=txaio.config.loop)
    transport = Local()
    protocol = site.buildProtocol(transport.getPeer())
    protocol.makeConnection(transport)
    head = [
        "POST /publish HTTP/1.1",
        "Host: localhost",
        f"Content-Length: {len(body)}",
        *map(": ".join, headers),
        "",
        "",
    ]
    protocol.dataReceived("\r\n".join(head).encode("utf-8") + body)

    def answer() -> tuple[int, Any]:
        top, _, text = transport.value().partition(b"\r\n\r\n")
        if not top:
            return 0, None
        if b"chunked" in top.lower():
            text = text.partition(b"\r\n")[2].rpartition(b"\r\n0\r\n")[0]
        found = text.decode()
        return int(top.split()[1]), json.loads(found) if b"json" in top else found

    return answer


def test_an_answer_tells_the_positions() -> None:
    server = a_server()
    body = b"LHTTP/1.0 say\r\npublish:room.a other room.b\r\n\r\nhi"
    assert post(server, body)() == (
        200,
        {"channels": ["room.a", "other", "room.b"], "positions": {"room.a": at(server, 1), "room.b": at(server, 2)}},
    )


def test_without_history_it_is_as_before() -> None:
    server = Server()
    body = b"LHTTP/1.0 say\r\npublish:a\r\n\r\nhi"
    assert post(server, body)() == (200, {"channels": ["a"]})
    assert post(server, body, ("Idempotency-Key", "k"))() == (200, {"channels": ["a"]})
    assert post(server, body, ("Idempotency-Key", "k"))() == (200, {"channels": ["a"], "duplicate": True})


@pytest.mark.parametrize("keys", [("k", "k"), ('"k"', "k"), ("x" * 64, "x" * 64)])
def test_the_second_one_with_a_key_is_not_published(keys: tuple[str, str]) -> None:
    server = a_server()
    reader = server.connect()
    subscribe(reader, "room.a")
    found = [post(server, BODY, ("Idempotency-Key", key))() for key in keys]
    assert [status for status, _ in found] == [200, 200]
    assert [told.get("duplicate") for _, told in found] == [None, True]
    assert found[0][1]["positions"] == found[1][1]["positions"]
    (message,) = reader.take()
    assert message.headers.get("message-id") == keys[1]


def test_a_key_and_an_id_are_the_same_thing() -> None:
    server = a_server()
    body = BODY.replace(b"\r\n\r\n", b"\r\nmessage-id:k\r\n\r\n")
    assert post(server, BODY, ("Idempotency-Key", "k"))()[0] == 200
    assert post(server, body)()[1]["duplicate"] is True
    assert post(server, body, ("Idempotency-Key", "k"))()[1]["duplicate"] is True
    status, text = post(server, body, ("Idempotency-Key", "other"))()
    assert status == 400
    assert "differ" in text


@pytest.mark.parametrize("key", ["", '""', "a b", "é", "x" * 65, '"'])
def test_a_malformed_key_is_refused(key: str) -> None:
    server = a_server()
    reader = server.connect()
    subscribe(reader, "room.a")
    assert post(server, BODY, ("Idempotency-Key", key))()[0] == 400
    assert reader.take() == []


def test_what_is_not_to_be_stored_has_no_position() -> None:
    server = a_server()
    reader = server.connect()
    subscribe(reader, "room.a")
    body = BODY.replace(b"\r\n\r\n", b"\r\nstore:no\r\noffset:7\r\n\r\n")
    assert post(server, body)() == (200, {"channels": ["room.a"]})
    (message,) = reader.take()
    assert message.headers.get("offset") is None


def a_full_server(room: int = 1_000_000) -> tuple[Server, FullStore]:
    clock = Clock()
    store = FullStore(clock, room)
    return a_server(clock=clock, history_store=store), store


def test_a_store_that_refuses_is_told() -> None:
    server, store = a_full_server(0)
    reader = server.connect()
    subscribe(reader, "room.a")
    assert post(server, BODY, ("Idempotency-Key", "k"))()[0] == 503
    store.room = 1
    status, found = post(server, BODY, ("Idempotency-Key", "k"))()
    assert (status, "duplicate" in found) == (200, False)
    assert told(reader) == ["hi"]


def test_the_answer_waits_until_the_store_has_it() -> None:
    server, store = a_full_server()
    store.questions = []
    first, second = post(server), post(server)
    assert first() == (0, None)
    store.questions[0].callback(None)
    store.questions[1].errback(HistoryUnavailable("the disk is gone"))
    assert first() == (200, {"channels": ["room.a"], "positions": {"room.a": at(server, 1)}})
    status, text = second()
    assert status == 503
    assert "the disk is gone" in text


def test_a_failure_that_is_known_at_the_end_is_told() -> None:
    class Failing(FullStore):
        placing: Any = None

        def append(self, *arguments: Any) -> list[bytes]:
            self.placing = arguments[4]
            return super().append(*arguments[:4])

    clock = Clock()
    store = Failing(clock)
    store.questions = []
    server = a_server(clock=clock, history_store=store)
    answer = post(server)
    store.placing.failure = HistoryUnavailable("the stream is full")
    store.questions.pop().callback(None)
    status, text = answer()
    assert status == 503
    assert "the stream is full" in text


class Intact:
    """What /health asks beside the store, all in order."""

    available = intact = True
    refuses = starting = draining = False
    is_open = accepting = accepts = running = True
    maxConnections = countConnections = 0


@pytest.mark.parametrize("has_store", [True, False])
def test_health_tells_of_a_store_that_takes_nothing(has_store: bool) -> None:
    found: Any = Intact()
    resource = HealthResource(found, found, found, found, has_store=lambda: has_store)
    root = Resource()
    root.putChild(b"health", resource)
    transport = Local()
    protocol = Site(root, reactor=txaio.config.loop).buildProtocol(transport.getPeer())
    protocol.makeConnection(transport)
    protocol.dataReceived(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answer = json.loads(transport.value().partition(b"\r\n\r\n")[2])
    assert answer == ({"status": "ok"} if has_store else {"status": "degraded", "history": "unavailable"})


def test_a_store_counts_where_a_channel_may_have_history() -> None:
    server, store = a_full_server()
    store.is_available = False
    assert not server.assembly.histories.available
    clock = Clock()
    store = FullStore(clock)
    store.is_available = False
    assert Server(clock=clock, history_store=store).assembly.histories.available


def test_deferred_answers_are_not_written_to_who_has_gone() -> None:
    server, store = a_full_server()
    store.questions = []
    root = Resource()
    root.putChild(b"publish", PublishResource(server.engine, AccessPolicy()))
    transport = Local()
    protocol = Site(root, reactor=txaio.config.loop).buildProtocol(transport.getPeer())
    protocol.makeConnection(transport)
    protocol.dataReceived(
        b"POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
    )
    protocol.connectionLost(Failure(ConnectionDone()))
    question: Deferred[None] = store.questions.pop()
    question.callback(None)
    assert transport.value() == b""
