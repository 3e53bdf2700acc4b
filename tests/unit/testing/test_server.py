"""The tools for a user's tests are as strict as the real thing."""

from __future__ import annotations

import asyncio
import doctest
import gc
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer
from zope.interface.verify import verifyObject

import lhttp_tx
from lhttp_tx import Authenticator, HeaderFilter, Hooks, Message, Processor, Request, processor, running, testing
from lhttp_tx.bus.memory import MemoryBus
from lhttp_tx.codec.limits import Limits
from lhttp_tx.codec.message import parse
from lhttp_tx.engine.delivery import Delivery
from lhttp_tx.interfaces import ITransport
from lhttp_tx.rules.model import Rule
from lhttp_tx.running import RunningServer
from lhttp_tx.service import LHTTPService
from lhttp_tx.testing import Server


def test_the_example_in_the_docstring_is_right() -> None:
    assert doctest.testmod(testing).failed == 0


def test_a_client_is_a_session_transport() -> None:
    assert verifyObject(ITransport, Server().connect().transport)


def test_text_and_bytes_can_be_sent() -> None:
    client = Server().connect()
    client.send("LHTTP/1.0 x\r\nsubscribe:room\r\n\r\n")
    client.send(b"LHTTP/1.0 x\r\npublish:room\r\n\r\n\xff")
    client.send("LHTTP/1.0 x\r\npublish:room\r\n\r\nhi")
    client.send(Message("x", {"publish": "room"}, "ho"))
    assert [(message.body, message.binary) for message in client.take()] == [
        (b"\xff", True),
        (b"hi", False),
        (b"ho", False),
    ]


def test_who_has_gone_can_send_nothing() -> None:
    client = Server().connect()
    client.disconnect()
    with pytest.raises(ConnectionError):
        client.send("LHTTP/1.0 x\r\n\r\n")


def test_two_servers_with_one_bus_are_a_cluster() -> None:
    first = Server()
    second = Server(bus=first.bus)
    reader, writer = first.connect(), second.connect()
    reader.send("LHTTP/1.0 x\r\nsubscribe:room\r\n\r\n")
    writer.send("LHTTP/1.0 x\r\npublish:room\r\n\r\nhi")
    assert [message.text for message in reader.take()] == ["hi"]


def test_messages_are_as_large_as_the_limits_allow() -> None:
    client = Server(limits=Limits(message_size=300_000)).connect()
    client.send("LHTTP/1.0 x\r\nsubscribe:room\r\n\r\n")
    client.send(Message("x", {"publish": "room"}, "y" * 200_000))
    assert [len(message.body) for message in client.take()] == [200_000]


def test_a_message_that_is_too_large_is_answered_as_by_a_server() -> None:
    client = Server(limits=Limits(message_size=10_000)).connect()
    client.send("x" * 20_000)
    assert [message.headers.get("status") for message in client.take()] == ["413"]
    client.send("x" * 20_001)
    assert (client.close_code, client.connected) == (1009, False)


def test_upstream_is_refused_as_by_a_server_without_backends() -> None:
    client = Server().connect()
    client.send("LHTTP/1.0 x\r\nupstream:POST http://127.0.0.1/record\r\nreceipt:1\r\n\r\n")
    service = LHTTPService(reactor=Clock())
    peer = Peer(service)
    peer.session.receive(b"LHTTP/1.0 x\r\nupstream:POST http://127.0.0.1/record\r\nreceipt:1\r\n\r\n", False)
    assert client.take() == peer.received
    assert peer.received[0].headers.get("status") == "403"


@implementer(ITransport)
class Peer:
    """A connection to a real service that listens nowhere."""

    peer = "test"

    def __init__(self, service: LHTTPService) -> None:
        self.received: list[Message] = []
        self.session = service.engine.open_session(self)

    def deliver(self, delivery: Delivery) -> None:
        for payload in delivery.payloads:
            self.send(payload, delivery.binary)

    def send(self, payload: bytes, binary: bool) -> None:
        self.received.append(parse(payload, binary=binary))

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def close(self, code: int, reason: str) -> None:
        self.session.connection_lost()


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"presence": "room"}, TypeError),
        ({"presence": ["a b"]}, ValueError),
        ({"max_per_user": -1}, ValueError),
        ({"limits": 5}, TypeError),
        ({"wait_timeout": "1"}, TypeError),
        ({"rules": [Rule("a")]}, TypeError),
        ({"history_store": "memory", "beside": Server()}, ValueError),
    ],
)
def test_what_a_server_would_refuse_is_refused(settings: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(settings))):
        Server(**settings)


# Without a reference to the server


@processor("tell")
def tell(request: Request) -> Any:
    return lhttp_tx.publish("room", "news", body=str(running.presence() is not None))


def farewell(session: Any) -> Any:
    return lhttp_tx.publish("room", "left", body=running.control().__class__.__name__)


class HookAtTheEnd(Hooks):
    def on_disconnect(self, session: Any) -> Any:
        return farewell(session)


class FilterAtTheEnd(HeaderFilter):
    def on_disconnect(self, session: Any) -> Any:
        return farewell(session)


AT_THE_END: list[dict[str, Any]] = [{"hooks": [HookAtTheEnd()]}, {"filters": [FilterAtTheEnd()]}]


def subscribed(server: Server) -> testing.Client:
    client = server.connect()
    client.send("LHTTP/1.0 x\r\nsubscribe:room\r\n\r\n")
    return client


def test_a_processor_finds_the_server_that_it_runs_in() -> None:
    servers = Server(processors=[tell]), Server(processors=[tell])
    clients = [subscribed(server) for server in servers]
    for client in clients:
        client.send("LHTTP/1.0 tell\r\n\r\n")
        assert [message.command for message in client.take()] == ["news"]
    assert [client.take() for client in clients] == [[], []]


def test_a_program_finds_the_server_that_was_used_last() -> None:
    server = Server(presence=["room"])
    client = subscribed(server)
    lhttp_tx.publish("room", "news")
    assert [message.command for message in client.take()] == ["news"]
    assert (running.control(), running.presence()) == (server.control, server.presence)


def test_a_server_is_found_as_long_as_one_of_its_clients_is_there() -> None:
    client = subscribed(Server())
    gc.collect()
    lhttp_tx.publish("room", "news")
    assert len(client.take()) == 1


def test_a_server_that_nobody_holds_is_found_no_more() -> None:
    Server()
    gc.collect()
    with pytest.raises(RuntimeError, match="no LHTTP server runs"):
        running.control()


@pytest.mark.parametrize("settings", AT_THE_END)
def test_on_close_finds_it_when_the_connection_ends(settings: dict[str, Any]) -> None:
    server = Server(**settings)
    client, other = subscribed(server), server.connect()
    other.disconnect()
    assert [(message.command, message.text) for message in client.take()] == [("left", "Control")]


@pytest.mark.parametrize("settings", AT_THE_END)
def test_on_close_finds_it_when_the_server_stops(settings: dict[str, Any]) -> None:
    bus = MemoryBus()
    reader = subscribed(Server(bus=bus))
    server = Server(bus=bus, **settings)
    client = server.connect()
    stopped = server.stop()
    assert stopped.called
    assert client.close_code == 1001
    assert [message.command for message in reader.take()] == ["left"]
    with pytest.raises(RuntimeError, match="no LHTTP server runs"):
        running.control()


def test_those_who_have_yet_to_log_in_are_closed_when_the_server_stops() -> None:
    class Nobody(Authenticator):
        def authenticate(self, attempt: Any) -> None:
            return None

    server = Server(authenticators=[Nobody()], login_timeout=5)
    client = server.connect()
    server.stop()
    assert client.close_code == 1001


def test_a_server_waits_for_what_is_in_hand_when_it_stops() -> None:
    waiting: Deferred[None] = Deferred()

    @processor("wait")
    def wait(request: Request) -> Deferred[None]:
        return waiting

    server = Server(processors=[wait])
    server.connect().send("LHTTP/1.0 wait\r\n\r\n")
    stopped = server.stop()
    assert not stopped.called
    waiting.callback(None)
    assert stopped.called


@pytest.mark.parametrize("settings", AT_THE_END)
def test_on_close_of_a_real_server_finds_it_when_it_stops(settings: dict[str, Any]) -> None:
    bus = MemoryBus()
    service = LHTTPService(reactor=Clock(), bus=bus, **settings)
    service.startService()
    peer = Peer(service)
    reader = subscribed(Server(bus=bus))
    stopped = service.stopService()
    assert peer.session.closed
    assert stopped.called
    assert [message.command for message in reader.take()] == ["left"]
    running.stand_in(None)
    with pytest.raises(RuntimeError, match="no LHTTP server runs"):
        running.control()


class Slow(Processor):
    """Takes a moment to stop, of asyncio's time."""

    command = "slow"

    async def on_stop(self, server: RunningServer) -> None:
        await asyncio.sleep(0)


def test_a_task_of_asyncio_may_wait_for_the_end() -> None:
    async def main() -> None:
        server = Server(processors=[Slow()])
        await server.when_started()
        await server.stop()
        service = LHTTPService(reactor=Clock(), processors=[Slow()])
        service.startService()
        await service.when_started()
        await asyncio.gather(*map(ended, (service.stopService(), service.stopService())))

    async def ended(stopping: Deferred[None]) -> None:
        await stopping

    asyncio.run(main())
