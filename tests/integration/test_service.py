"""The service in this process: listening, both doors of HTTP, mounting, publishing from code, and stopping."""

from __future__ import annotations

import http.client
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_twisted
import websockets.sync.client as websockets
from twisted.application.service import MultiService
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.threads import deferToThread
from twisted.web.resource import Resource
from twisted.web.server import Site

import lhttp_tx
from integration._server import Backend
from lhttp_tx import Message, PublishFailed, post_message, processor
from lhttp_tx.bus.memory import MemoryBus
from lhttp_tx.codec.limits import Limits
from lhttp_tx.config import Config
from lhttp_tx.service import LHTTPService

TOKEN = b"0123456789abcdef"
LISTEN = ("tcp:0:interface=127.0.0.1",)


@processor("echo")
def echo(request: lhttp_tx.Request) -> None:
    request.reply()


async def start(config: Config, **options: Any) -> LHTTPService:
    service = LHTTPService(config, reactor=reactor, processors=[echo], **options)
    service.startService()
    return service


def port(service: LHTTPService) -> int:
    number: int = service.ports[0].getHost().port
    return number


@pytest_twisted.async_yield_fixture
async def service() -> AsyncIterator[LHTTPService]:
    service = await start(Config(listen=LISTEN, limits=Limits(message_size=10_000)))
    yield service
    await service.stopService()


def request(number: int, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", number, timeout=30)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        assert response.getheader("Server") is None
        return response.status, response.read().decode()
    finally:
        connection.close()


def chat(number: int, *payloads: str | bytes, answers: int) -> list[str | bytes]:
    with websockets.connect(f"ws://127.0.0.1:{number}/", compression=None) as client:
        for payload in payloads:
            client.send(payload)
        return [client.recv(30) for _ in range(answers)]


@pytest_twisted.ensureDeferred
async def test_a_processor_answers_over_a_real_socket(service: LHTTPService) -> None:
    answers = await deferToThread(chat, port(service), "LHTTP/1.0 echo\r\n\r\nhello", answers=1)
    assert answers == ["LHTTP/1.0 echo\r\n\r\nhello"]


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("GET", "/", None, {}, 426),
        ("HEAD", "/", None, {}, 426),
        ("GET", "/publish", None, {}, 405),
        ("HEAD", "/publish", None, {}, 405),
        ("POST", "/publish", b"LHTTP/1.0 x\r\npublish:room\r\n\r\nhi", {}, 200),
        ("POST", "/publish", b"LHTTP/1.0 x\r\npublish:room\r\n\r\n\xff", {}, 200),
        ("POST", "/publish", b"LHTTP/1.0 x\r\n\r\nhi", {}, 400),
        ("POST", "/publish", b"x", {"Origin": "http://other.example"}, 403),
        ("POST", "/publish", b"x", {"X_Forwarded_For": "10.0.0.1"}, 403),
        ("POST", "/publish", b"x", {"Host": "other.example"}, 403),
        ("POST", "/publish", b"x" * 10_001, {}, 413),
    ],
)
@pytest_twisted.ensureDeferred
async def test_http_statuses(
    service: LHTTPService, method: str, path: str, body: bytes | None, headers: dict[str, str], status: int
) -> None:
    found, text = await deferToThread(request, port(service), method, path, body, **headers)
    assert found == status
    assert bool(text) is (method != "HEAD")


@pytest_twisted.ensureDeferred
async def test_a_body_without_a_length_is_bounded_too(service: LHTTPService) -> None:
    def post() -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port(service), timeout=30)
        connection.request("POST", "/publish", iter([b"x" * 6_000] * 3), encode_chunked=True)
        status = connection.getresponse().status
        connection.close()
        return status

    assert await deferToThread(post) == 413


@pytest_twisted.ensureDeferred
async def test_a_bus_that_is_away_is_a_503(service: LHTTPService) -> None:
    await service._parts.bus.stop()
    body = b"LHTTP/1.0 x\r\npublish:room\r\n\r\nhi"
    status, text = await deferToThread(request, port(service), "POST", "/publish", body)
    assert (status, text) == (503, "the bus has stopped\n")


@pytest_twisted.ensureDeferred
async def test_publishing_with_a_token() -> None:
    service = await start(Config(listen=LISTEN, publish_token=TOKEN))
    url = f"http://127.0.0.1:{port(service)}/publish"
    received: list[bytes] = []
    service._parts.bus.subscribe("room", lambda channel, payloads, binary: received.extend(payloads))
    with pytest.raises(PublishFailed, match="token") as caught:
        await deferToThread(post_message, url, "room", "news", body="hi", token="wrong")
    assert caught.value.status == 401
    await deferToThread(post_message, url, ["room"], "news", {"a": "b"}, "hi", token=TOKEN.decode())
    await deferToThread(post_message, url, "room", "news", body=b"\xff", binary=True, token=TOKEN.decode())
    await service.stopService()
    assert received == [
        Message("news", [("publish", "room"), ("a", "b")], "hi").raw,
        Message("news", {"publish": "room"}, b"\xff", binary=True).raw,
    ]


@pytest_twisted.ensureDeferred
async def test_a_server_that_is_not_there_is_a_503() -> None:
    with pytest.raises(PublishFailed, match="cannot reach") as caught:
        await deferToThread(post_message, "http://127.0.0.1:9/publish", "room", "news")
    assert caught.value.status == 503


def test_only_http_urls_are_posted_to() -> None:
    with pytest.raises(ValueError, match="http or https"):
        post_message("file:///etc/passwd", "room", "news")


@pytest_twisted.ensureDeferred
async def test_code_in_the_process_publishes(service: LHTTPService) -> None:
    received: list[bytes] = []
    service._parts.bus.subscribe("room", lambda channel, payloads, binary: received.extend(payloads))
    await lhttp_tx.publish("room", "news", body="hi")
    assert received == [Message("news", {"publish": "room"}, "hi").raw]


@pytest_twisted.ensureDeferred
async def test_the_resource_can_be_mounted_below_another_path() -> None:
    service = LHTTPService(reactor=reactor, processors=[echo])
    root = Resource()
    root.putChild(b"live", service.resource)
    listening = reactor.listenTCP(0, Site(root), interface="127.0.0.1")  # type: ignore[attr-defined]
    service.startService()
    number = listening.getHost().port

    def visit() -> tuple[Any, ...]:
        with websockets.connect(f"ws://127.0.0.1:{number}/live", compression=None) as client:
            client.send("LHTTP/1.0 echo\r\n\r\nhello")
            answer = client.recv(30)
        body = b"LHTTP/1.0 x\r\npublish:room\r\n\r\nhi"
        return answer, request(number, "POST", "/live/publish", body)[0], request(number, "GET", "/live/else")[0]

    assert await deferToThread(visit) == ("LHTTP/1.0 echo\r\n\r\nhello", 200, 426)
    await listening.stopListening()
    await service.stopService()


@pytest_twisted.ensureDeferred
async def test_two_servers_in_one_process_keep_apart_unless_they_share_a_bus() -> None:
    shared = MemoryBus()
    parent = MultiService()
    services = [LHTTPService(Config(listen=LISTEN), reactor=reactor, bus=bus) for bus in (shared, shared, None)]
    for service in services:
        service.setServiceParent(parent)
    parent.startService()
    received: list[list[bytes]] = [[], [], []]
    for service, list_ in zip(services, received, strict=True):
        service.engine.hub.subscribe(service, "room", list_.append)
    await services[0].engine.publish("room", "news")
    await parent.stopService()
    assert [len(list_) for list_ in received] == [1, 1, 0]


@pytest_twisted.ensureDeferred
async def test_a_service_can_be_started_again() -> None:
    service = await start(Config(listen=LISTEN))
    await service.stopService()
    service.startService()
    answers = await deferToThread(chat, port(service), "LHTTP/1.0 echo\r\n\r\nagain", answers=1)
    assert answers == ["LHTTP/1.0 echo\r\n\r\nagain"]
    await service.stopService()


@pytest_twisted.ensureDeferred
async def test_a_port_that_is_taken_is_an_error_at_once(service: LHTTPService) -> None:
    other = LHTTPService(Config(listen=(f"tcp:{port(service)}:interface=127.0.0.1",)), reactor=reactor)
    with pytest.raises(CannotListenError):
        other.privilegedStartService()


@pytest_twisted.ensureDeferred
async def test_stopping_closes_clients_with_1001() -> None:
    service = await start(Config(listen=LISTEN))

    def stay(number: int, ready: Any) -> int | None:
        with websockets.connect(f"ws://127.0.0.1:{number}/", compression=None) as client:
            client.send("LHTTP/1.0 echo\r\n\r\nhello")
            client.recv(30)
            reactor.callFromThread(ready.callback, None)  # type: ignore[attr-defined]
            with pytest.raises(Exception, match="1001"):
                client.recv(30)
            return client.close_code

    ready: Deferred[None] = Deferred()
    staying = deferToThread(stay, port(service), ready)
    await ready
    await service.stopService()
    assert await staying == 1001
    assert service.engine.sessions == set()


@pytest_twisted.ensureDeferred
async def test_a_loopback_server_answers_to_loopback_names_alone(service: LHTTPService) -> None:
    status, _ = await deferToThread(
        request,
        port(service),
        "GET",
        "/",
        Host="rebound.example",
        Upgrade="websocket",
        Connection="Upgrade",
        Sec_WebSocket_Version="13",
        Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==",
    )
    assert status == 403


@pytest_twisted.ensureDeferred
async def test_the_answer_of_publish_names_the_channels(service: LHTTPService) -> None:
    body = b"LHTTP/1.0 x\r\npublish:a b\r\n\r\nhi"
    _, text = await deferToThread(request, port(service), "POST", "/publish", body)
    assert json.loads(text) == {"channels": ["a", "b"]}


# Upstream, in this process


def ask(number: int, value: str) -> Message:
    text = f"LHTTP/1.0 chat\r\nupstream:{value}\r\nreceipt:r\r\n\r\nhello"
    (answer,) = chat(number, text, answers=1)
    data = answer.encode() if isinstance(answer, str) else answer
    return lhttp_tx.parse(data, binary=isinstance(answer, bytes))


async def asked(value: str, **settings: Any) -> Message:
    allowed = value.partition(" ")[2]
    service = await start(Config(listen=LISTEN, upstream_allow=(allowed,), **settings))
    try:
        answer: Message = await deferToThread(ask, port(service), value)
        return answer
    finally:
        await service.stopService()


@pytest_twisted.ensureDeferred
async def test_a_backend_gets_the_message_and_the_receipt_its_answer(backend: Backend) -> None:
    answer = await asked(f"POST {backend.url}/teapot")
    assert (answer.headers.get("upstream-status"), answer.text) == ("418", "short and stout")
    assert backend.bodies() == [
        f"LHTTP/1.0 chat\r\nupstream:POST {backend.url}/teapot\r\nreceipt:r\r\n\r\nhello".encode()
    ]


@pytest_twisted.ensureDeferred
async def test_a_get_has_no_body(backend: Backend) -> None:
    assert (await asked(f"GET {backend.url}/teapot")).headers.get("upstream-status") == "418"
    assert backend.bodies() == [b""]


@pytest_twisted.ensureDeferred
async def test_an_answer_that_is_no_text_makes_a_binary_receipt(backend: Backend) -> None:
    answer = await asked(f"POST {backend.url}/latin1")
    assert (answer.binary, answer.body) == (True, b"caf\xe9")


@pytest.mark.parametrize(
    ("path", "settings", "status"),
    [
        ("/endless", {"upstream_max_response": 1_000}, "502"),
        ("/broken", {}, "502"),
        ("/hang", {"upstream_timeout": 0.3}, "504"),
        ("/record", {"upstream_public_only": True}, "403"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_goes_wrong_at_a_backend_is_an_error(
    backend: Backend, path: str, settings: dict[str, Any], status: str
) -> None:
    answer = await asked(f"POST {backend.url}{path}", **settings)
    assert (answer.command, answer.headers.get("status"), answer.headers.get("receipt-id")) == ("error", status, "r")


@pytest_twisted.ensureDeferred
async def test_a_backend_that_is_not_there_is_a_502() -> None:
    assert (await asked("POST http://127.0.0.1:9/record")).headers.get("status") == "502"


@pytest_twisted.ensureDeferred
async def test_requests_to_backends_are_bounded_in_number(backend: Backend) -> None:
    url = f"{backend.url}/hang"
    service = await start(Config(listen=LISTEN, upstream_allow=(url,), upstream_timeout=600, upstream_max_in_flight=1))
    first = deferToThread(ask, port(service), f"POST {url}")
    await deferToThread(backend.wait_for, 1)
    second = await deferToThread(ask, port(service), f"POST {url}")
    assert second.headers.get("status") == "503"
    backend.released.set()
    await first
    await service.stopService()
