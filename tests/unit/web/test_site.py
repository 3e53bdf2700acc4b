"""lhttp_tx.web.site: handshakes that are answered at once are answered as they would be by twisted.web and Autobahn."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import txaio
from hypothesis import given, settings, strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.protocol import connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.web.http import HTTPChannel
from twisted.web.resource import EncodingResourceWrapper, IResource, Resource
from twisted.web.server import GzipEncoderFactory, Request, Site

from lhttp_tx.guard.access import AccessPolicy
from lhttp_tx.testing import Server
from lhttp_tx.transports.websocket.factory import LHTTPServerFactory
from lhttp_tx.transports.websocket.handshake import MAX_HEADERS
from lhttp_tx.transports.websocket.protocol import LHTTPServerProtocol
from lhttp_tx.web.site import LHTTPSite, RootResource
from lhttp_tx.web.websocket import WebSocketResource
from unit.transports.websocket.test_handshake import BROWSER, FIELDS, head, heads

pytestmark = pytest.mark.usefixtures("clock")


class Transport(StringTransport):
    """A transport whose owner can be changed, as that of a TCP connection."""

    def __init__(self) -> None:
        super().__init__(peerAddress=IPv4Address("TCP", "192.0.2.1", 54321))
        self.protocol: Any = None
        self.aborted = False

    def unregisterProducer(self) -> None:
        self.producer = None

    def abortConnection(self) -> None:
        self.aborted = True
        self.loseConnection()


class Judged(LHTTPServerProtocol):
    """Decides about handshakes itself, so that each of them goes the ordinary way."""

    def onConnect(self, request: Any) -> None:
        super().onConnect(request)


class Stack:
    """A server with everything but sockets."""

    def __init__(self, *, judged: bool = False, demo: bool = False, **options: Any) -> None:
        self.clock = Clock()
        txaio.config.loop = self.clock
        self.server = Server()
        policy = options.pop("policy", AccessPolicy())
        self.factory = LHTTPServerFactory(engine=self.server.engine, reactor=self.clock, policy=policy, **options)
        if judged:
            self.factory.protocol = Judged
        self.root = RootResource(factory=self.factory, demo=demo)
        self.site: Site = LHTTPSite(self.root, max_body_size=1_000, reactor=self.clock)

    def connect(self) -> Transport:
        transport = Transport()
        transport.protocol = self.site.buildProtocol(transport.getPeer())
        transport.protocol.makeConnection(transport)
        return transport

    def send(self, *reads: bytes) -> Transport:
        transport = self.connect()
        for data in reads:
            if not transport.disconnecting:  # nothing more is read from then on
                transport.protocol.dataReceived(data)
        return transport


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No line of a request is looked at by twisted.web, and no handshake by Autobahn."""
    monkeypatch.setattr(HTTPChannel, "lineReceived", lambda *_: pytest.fail("twisted.web was asked"))
    monkeypatch.setattr(LHTTPServerProtocol, "processHandshake", lambda *_: pytest.fail("Autobahn was asked"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The lines that twisted.web looked at."""
    lines: list[bytes] = []
    before = HTTPChannel.lineReceived

    def line_received(channel: HTTPChannel, line: bytes) -> None:
        lines.append(line)
        before(channel, line)

    monkeypatch.setattr(HTTPChannel, "lineReceived", line_received)
    return lines


def opened(transport: Transport) -> bool:
    return bool(transport.value().startswith(b"HTTP/1.1 101 ")) and isinstance(transport.protocol, LHTTPServerProtocol)


@pytest.mark.parametrize("fields", [FIELDS, BROWSER], ids=["plain", "browser"])
@pytest.mark.parametrize("target", [b"/", b"/echo", b"/a/b?publish=1", b"/%70ub", b"/publishing", b"/?x=/publish"])
def test_an_ordinary_handshake_is_answered_at_once(at_once: None, fields: list[bytes], target: bytes) -> None:
    stack = Stack()
    assert opened(stack.send(head(fields, b"GET " + target + b" HTTP/1.1")))
    assert len(stack.server.engine.sessions) == 1


def test_a_handshake_that_is_answered_at_once_has_no_time_limit(at_once: None) -> None:
    stack = Stack()
    transport = stack.connect()
    made: list[Any] = []
    call_later = stack.clock.callLater

    def count(delay: float, call: Any, *arguments: Any) -> Any:
        made.append(call.__name__)
        return call_later(delay, call, *arguments)

    stack.clock.callLater = count  # type: ignore[assignment,method-assign]
    transport.protocol.dataReceived(head(FIELDS))
    assert opened(transport)
    assert made == ["_sendAutoPing"]


def test_what_comes_with_the_handshake_is_not_lost(at_once: None) -> None:
    stack = Stack()
    transport = stack.send(head() + b"\x89\x80\0\0\0\0")
    assert transport.value().endswith(b"\x8a\x00")


def test_a_handshake_in_two_reads_goes_the_ordinary_way(asked: list[bytes]) -> None:
    assert opened(Stack().send(head()[:30], head()[30:]))
    assert asked


def test_a_handshake_behind_another_request_goes_the_ordinary_way(asked: list[bytes]) -> None:
    transport = Stack().send(b"GET /publish HTTP/1.1\r\nHost: chat.example\r\n\r\n", head())
    assert b"HTTP/1.1 101 " in transport.value()
    assert transport.value().startswith(b"HTTP/1.1 405 ")
    assert b"GET /echo?a=1&b=%20 HTTP/1.1" in asked


def test_a_body_that_looks_like_a_handshake_is_a_body() -> None:
    transport = Stack().send(b"POST /publish HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(head()), head())
    assert transport.value().startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize("target", [b"/publish", b"/lhttp.js", b"/%70ublish", b"/publish?x", b"/publish/below"])
def test_a_handshake_for_another_resource_is_not_answered(asked: list[bytes], target: bytes) -> None:
    transport = Stack().send(head(start=b"GET " + target + b" HTTP/1.1"))
    assert asked
    assert b" 101 " not in transport.value()


def test_the_chat_page_answers_handshakes_at_once(at_once: None) -> None:
    assert opened(Stack(demo=True).send(head(start=b"GET / HTTP/1.1")))


def test_the_chat_page_is_a_page_all_the_same() -> None:
    transport = Stack(demo=True).send(b"GET / HTTP/1.1\r\nHost: chat.example\r\n\r\n")
    assert transport.value().startswith(b"HTTP/1.1 200 ")


class Plain(Resource):
    isLeaf = True

    def render(self, request: Request) -> bytes:
        return b"plain"


class Own(WebSocketResource):
    """Renders itself, and so has the last word."""

    def render(self, request: Request) -> int | bytes:
        return b"plain"


class OwnRoot(RootResource):
    def getChild(self, path: bytes, request: Request) -> IResource:
        return Plain()


class OwnDefault(RootResource):
    def getChildWithDefault(self, path: bytes, request: Any) -> IResource:
        return Plain()


class OwnRendering(RootResource):
    def render(self, request: Request) -> bytes:
        return b"plain"


def below(child: Resource) -> Resource:
    root = Resource()
    root.putChild(b"chat", child)
    return root


def beside(stack: Stack) -> Resource:
    stack.root.putChild(b"chat", Plain())
    return stack.root


def rooted(kind: type[RootResource]) -> Callable[[Stack], Resource]:
    return lambda stack: kind(factory=stack.factory)


@pytest.mark.parametrize(
    "make",
    [
        beside,
        lambda stack: below(Plain()),
        lambda stack: below(Own(stack.factory)),
        lambda stack: below(rooted(OwnRendering)(stack)),
        rooted(OwnRoot),
        rooted(OwnDefault),
        lambda stack: Plain(),
    ],
    ids=["beside", "plain", "own", "rendering", "root", "default", "leaf"],
)
def test_a_resource_of_the_users_own_is_asked(make: Callable[[Stack], Resource]) -> None:
    stack = Stack()
    stack.site.resource = make(stack)
    assert b"plain" in stack.send(head(start=b"GET /chat HTTP/1.1")).value()


@pytest.mark.parametrize(
    ("make", "target"),
    [
        (lambda stack: below(stack.root), b"/chat"),
        (lambda stack: below(stack.root), b"/chat/"),
        (lambda stack: below(stack.root), b"/chat/x?y"),
        (lambda stack: WebSocketResource(stack.factory), b"/chat"),
        (lambda stack: below(WebSocketResource(stack.factory)), b"/chat/x"),
    ],
)
def test_a_websocket_below_the_users_own_resources_answers_at_once(
    at_once: None, make: Callable[[Stack], Resource], target: bytes
) -> None:
    stack = Stack()
    stack.site.resource = make(stack)
    assert opened(stack.send(head(start=b"GET " + target + b" HTTP/1.1")))


@pytest.mark.filterwarnings("ignore:.*_UnsafeNoResource:DeprecationWarning")
def test_a_path_beside_a_websocket_is_not_found() -> None:
    stack = Stack()
    stack.site.resource = below(stack.root)
    assert stack.send(head(start=b"GET /other HTTP/1.1")).value().startswith(b"HTTP/1.1 404 ")


def test_a_wrapped_websocket_goes_the_ordinary_way(asked: list[bytes]) -> None:
    stack = Stack()
    wrapped = EncodingResourceWrapper(WebSocketResource(stack.factory), [GzipEncoderFactory()])
    stack.site.resource = below(wrapped)
    stack.send(head(start=b"GET /chat HTTP/1.1"))
    assert asked


def test_a_site_that_finds_resources_itself_is_asked() -> None:
    class Finding(LHTTPSite):
        def getResourceFor(self, request: Any) -> IResource:
            return Plain()

    stack = Stack()
    stack.site = Finding(stack.root, max_body_size=1_000, reactor=stack.clock)
    assert b"plain" in stack.send(head()).value()


def test_requests_of_the_users_own_are_made() -> None:
    made: list[Any] = []
    stack = Stack()
    kind = stack.site.requestFactory

    def make(*arguments: Any, **options: Any) -> Any:
        made.append(kind(*arguments, **options))
        return made[-1]

    stack.site.requestFactory = make
    assert opened(stack.send(head()))
    assert made


def test_in_another_site_handshakes_go_the_ordinary_way(asked: list[bytes]) -> None:
    stack = Stack()
    stack.site = Site(stack.root, reactor=stack.clock)
    assert b"HTTP/1.1 101 " in stack.send(head()).value()
    assert asked


def test_a_wrapped_connection_is_answered_at_once(at_once: None) -> None:
    stack = Stack()
    transport = Transport()
    transport.protocol = WrappingFactory(stack.site).buildProtocol(transport.getPeer())
    transport.protocol.makeConnection(transport)
    transport.protocol.dataReceived(head())
    assert isinstance(transport.protocol, ProtocolWrapper)
    assert isinstance(transport.protocol.wrappedProtocol, LHTTPServerProtocol)
    transport.protocol.dataReceived(b"\x89\x80\0\0\0\0")
    assert transport.value().endswith(b"\x8a\x00")


# Subprotocols


@pytest.mark.parametrize("judged", [False, True], ids=["at once", "ordinary"])
@pytest.mark.parametrize(
    ("offers", "chosen"),
    [
        ([], None),
        (["lhttp"], b"lhttp"),
        (["chat, lhttp"], b"lhttp"),
        (["chat"], b"chat"),
        (["chat, other"], None),
        (["chat", "lhttp"], b"lhttp"),
        (["chat", "other"], None),
    ],
)
def test_a_subprotocol_is_agreed_to(judged: bool, offers: list[str], chosen: bytes | None) -> None:
    fields = [b"Sec-WebSocket-Protocol: " + offer.encode("ascii") for offer in offers]
    transport = Stack(judged=judged).send(head([*FIELDS, *fields]))
    assert opened(transport)
    found = re.findall(rb"Sec-WebSocket-Protocol: ([^\r]*)", transport.value())
    assert found == ([] if chosen is None else [chosen])
    assert transport.protocol.websocket_protocol_in_use == (None if chosen is None else chosen.decode("ascii"))


def test_a_single_offer_is_answered_at_once(at_once: None) -> None:
    assert opened(Stack().send(head([*FIELDS, b"Sec-WebSocket-Protocol: lhttp.json, lhttp"])))


# What is refused


@pytest.mark.parametrize(
    ("options", "fields", "answer"),
    [
        ({"policy": AccessPolicy(loopback_only=True)}, FIELDS, b"HTTP/1.1 403 Forbidden\r\n"),
        ({"policy": AccessPolicy(server_names=frozenset({"x"}))}, FIELDS, b"HTTP/1.1 403 Forbidden\r\n"),
        ({}, [*FIELDS, b"Origin: https://other.example"], b"HTTP/1.1 403 Forbidden\r\n"),
        ({}, [b"Host: chat.example:70000", *FIELDS[1:]], b"HTTP/1.1 400 Bad Request\r\n"),
    ],
)
def test_a_refusal_is_the_same_as_on_the_ordinary_way(
    options: dict[str, Any], fields: list[bytes], answer: bytes
) -> None:
    transport = Stack(**options).send(head(fields))
    assert transport.value().startswith(answer)
    assert transport.value() == Stack(judged=True, **options).send(head(fields)).value()
    assert transport.disconnecting


def test_connections_are_bounded_in_number() -> None:
    answers = []
    for judged in (False, True):
        stack = Stack(max_connections=2, judged=judged)
        answers.append([stack.send(head()).value() for _ in range(3)])
    assert answers[0] == answers[1]
    assert [answer.split()[1] for answer in answers[0]] == [b"101", b"101", b"503"]


def test_a_connection_that_ended_makes_room(at_once: None) -> None:
    stack = Stack(max_connections=1)
    first = stack.send(head())
    first.protocol.connectionLost(connectionDone)
    assert stack.factory.countConnections == 0
    assert opened(stack.send(head()))


def test_a_server_that_goes_away_takes_no_connections() -> None:
    stack = Stack()
    stack.factory.draining = True
    assert stack.send(head()).value().endswith(b"\r\n\r\nserver is going away\n")


@pytest.mark.parametrize(
    "options",
    [
        {"versions": [8]},
        {"allowedOrigins": ["https://*.example:8081"]},
        {"trustXForwardedFor": 1},
        {"perMessageCompressionAccept": lambda offers: None},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_of_autobahn_hold(asked: list[bytes], options: dict[str, Any]) -> None:
    stack = Stack()
    assert opened(stack.send(head(BROWSER)))
    stack.factory.setProtocolOptions(**options)
    assert asked == []
    stack.send(head(BROWSER))
    assert asked


def test_headers_of_the_users_own_are_sent() -> None:
    stack = Stack()
    stack.factory.setSessionParameters(headers={"X-Node": "a"}, server="")
    assert b"\r\nX-Node: a\r\n" in stack.send(head()).value()


POST = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 29\r\n%s\r\nLHTTP/1.0 chat\r\npublish:a\r\n\r\n"
GET = b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n"


def local(stack: Stack, data: bytes) -> bytes:
    """Return what a program of this machine is answered."""
    transport = Transport()
    transport.peerAddr = IPv4Address("TCP", "127.0.0.1", 54321)
    transport.protocol = stack.site.buildProtocol(transport.getPeer())
    transport.protocol.makeConnection(transport)
    transport.protocol.dataReceived(data)
    return transport.value()


OTHER_SPELLINGS = [b"/%70ublish", b"/publish/", b"/publish/a/b", b"/publish%2f", b"/publish;", b"//publish", b"publish"]


def test_a_refusal_has_the_name_of_its_status() -> None:
    message = b"LHTTP/1.0 c\r\npublish:" + b" ".join(b"%d" % number for number in range(129)) + b"\r\n\r\n"
    head = b"POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(message)
    stack = Stack(policy=AccessPolicy(publish_token=b"0123456789abcdef"))
    head = head.replace(b"\r\n\r\n", b"\r\nAuthorization: Bearer 0123456789abcdef\r\n\r\n")
    assert stack.send(head + message).value().startswith(b"HTTP/1.1 429 Too Many Requests\r\n")


@pytest.mark.parametrize("path", OTHER_SPELLINGS)
def test_there_is_one_path_to_publish_at(path: bytes) -> None:
    stack = Stack()
    assert local(stack, POST % (b"/publish?x", b"")).startswith(b"HTTP/1.1 200 ")
    assert b" 200 " not in local(stack, POST % (path, b"")).partition(b"\r\n")[0]


@pytest.mark.parametrize("target", [b"/lhttp.js", b"/lhttp.js?x", b"/chat.css", b"/"])
def test_there_is_one_path_to_a_file(target: bytes) -> None:
    stack = Stack(demo=True)
    assert local(stack, GET % target).startswith(b"HTTP/1.1 200 ")
    path, mark, query = target.partition(b"?")
    for other in (path + b"/x", path.replace(b"c", b"%63").replace(b"l", b"%6c", 1) + b"/"):
        found = local(stack, GET % (other + mark + query))
        assert found.startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 426 "))


def test_a_mounted_server_has_one_path_to_publish_at() -> None:
    stack = Stack()
    root = Resource()
    root.putChild(b"my chat", stack.root)
    stack.site.resource = root
    assert local(stack, POST % (b"/my%20chat/publish", b"")).startswith(b"HTTP/1.1 200 ")
    assert local(stack, POST % (b"/my%20ch%61t/publish", b"")).startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize("name", [b"Host", b"Origin", b"Sec-Fetch-Site", b"Authorization", b"Content-Type"])
def test_a_repeated_header_that_decides_is_refused(name: bytes) -> None:
    fields = b"".join(name + b": " + value + b"\r\n" for value in (b"x", b"localhost")[name == b"Host" :])
    assert local(Stack(), POST % (b"/publish", fields)).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("name", [b"Host", b"Origin", b"Sec-Fetch-Site", b"Authorization"])
def test_a_handshake_with_a_repeated_header_that_decides_is_refused(name: bytes) -> None:
    value = b"http://chat.example" if name == b"Origin" else b"chat.example:8081"
    fields = [*FIELDS, *[name + b": " + value] * (1 if name == b"Host" else 2)]
    assert Stack().send(head(fields)).value().startswith(b"HTTP/1.1 400 ")
    assert direct(head(fields)).startswith(b"HTTP/1.1 400 ")


def direct(data: bytes, **options: Any) -> bytes:
    """Return what a handshake is answered where no site is in front of the factory."""
    stack = Stack(**options)
    transport = Transport()
    transport.protocol = stack.factory.buildProtocol(transport.getPeer())
    transport.protocol.makeConnection(transport)
    transport.protocol.dataReceived(data)
    return transport.value()


@pytest.mark.parametrize("version", [b"8", b"7", b"14", b"013", b"+13", b"1_3", b"13.0", b"x"])
def test_there_is_one_version_of_websocket(version: bytes) -> None:
    data = head().replace(b"Version: 13", b"Version: " + version + b"\r\nSec-WebSocket-Origin: http://chat.example")
    for found in (Stack().send(data).value(), direct(data)):
        assert found.startswith(b"HTTP/1.1 400 ")
        assert b"\r\nSec-WebSocket-Version: 13\r\n" in found


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"http://other.example:8081/", b"400"),
        (b"http://chat.example/", b"400"),
        (b"chat.example:8081", b"400"),
        (b"echo", b"400"),
        (b"http://chat.example:8081/echo", b"101"),
        (b"ws://CHAT.example:8081", b"101"),
    ],
)
def test_a_handshake_names_one_host(target: bytes, status: bytes) -> None:
    data = head(start=b"GET " + target + b" HTTP/1.1")
    assert Stack().send(data).value().split()[1] == status
    assert direct(data).split()[1] == status


def test_a_whole_url_may_name_a_resource() -> None:
    assert local(Stack(), POST % (b"http://localhost/publish", b"")).startswith(b"HTTP/1.1 200 ")
    assert local(Stack(), POST % (b"http://other.example/publish", b"")).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("end", [b"\x0b", b"\x0c", b"\x1c", b"\x1d", b"\x1e", b"\x85"])
def test_a_value_brings_no_headers_of_its_own(end: bytes) -> None:
    seen: list[Any] = []

    class Watching(Judged):
        def onOpen(self) -> None:
            seen.append(self.handshake.headers)  # type: ignore[union-attr]
            super().onOpen()

    for send in ("site", "direct"):
        stack = Stack()
        stack.factory.protocol = Watching
        site: Any = stack.site if send == "site" else stack.factory
        transport = Transport()
        transport.protocol = site.buildProtocol(transport.getPeer())
        transport.protocol.makeConnection(transport)
        transport.protocol.dataReceived(head([*FIELDS, b"Cookie: a=1" + end + b"X-Forwarded-For: 192.0.2.9"]))
        assert b" 101 " in transport.value()
    for headers in seen:
        assert "x-forwarded-for" not in headers
        assert headers["cookie"].startswith("a=1")
    assert len(seen) == 2


@pytest.mark.parametrize("judged", [False, True], ids=["at once", "ordinary"])
def test_a_query_has_a_bounded_number_of_parameters(judged: bool) -> None:
    for count, status in ((64, b"101"), (65, b"400"), (2_500, b"400")):
        query = b"&".join(b"%x=" % number for number in range(count))
        answer = Stack(judged=judged).send(head(start=b"GET /?" + query + b" HTTP/1.1")).value()
        assert answer.split()[1] == status


@pytest.mark.parametrize(("name", "most"), [(b"Sec-WebSocket-Protocol", 64), (b"Sec-WebSocket-Extensions", 32)])
def test_offers_are_bounded_in_number(name: bytes, most: int) -> None:
    for count, status in ((most, b"101"), (most + 1, b"400")):
        field = name + b": " + b",".join(b"x%x" % number for number in range(count))
        assert Stack().send(head([*FIELDS, field])).value().split()[1] == status


@pytest.mark.parametrize("judged", [False, True], ids=["at once", "ordinary"])
@pytest.mark.parametrize("piece", [b"/", b"%41"])
def test_a_path_has_a_bounded_number_of_segments_and_escapes(piece: bytes, judged: bool) -> None:
    for count, status in ((255, b"101"), (256, b"400"), (5_000, b"400")):
        answer = Stack(judged=judged).send(head(start=b"GET /a" + piece * count + b" HTTP/1.1")).value()
        assert answer.split()[1] == status


@pytest.mark.parametrize("name", [b"Connection", b"Upgrade"])
def test_other_lists_of_a_handshake_are_bounded_too(name: bytes) -> None:
    for value in (b"%s" + b",x" * 63, b"%s" + b",x" * 64, b"%s" + b" " * 5_000 + b",x"):
        fields = [found + value % b"" if found.startswith(name) else found for found in FIELDS]
        for more in ([], [b"X: 1", b"X: 2"]):
            answer = Stack().send(head([*fields, *more])).value()
            assert answer.split()[1] in ((b"101", b"426") if value.count(b"x") == 63 else (b"400", b"426"))


def test_an_open_connection_keeps_nothing_of_its_handshake() -> None:
    stack = Stack(judged=True)
    transport = stack.send(
        head([*FIELDS, b"Sec-WebSocket-Extensions: " + b",".join([b"x"] * 32), b"X: " + b"x" * 9_000])
    )
    assert opened(transport)
    kept = [name for name, value in vars(transport.protocol).items() if isinstance(value, str | bytes | list | dict)]
    assert sum(len(repr(vars(transport.protocol)[name])) for name in kept) < 1_000, kept


# Time


def test_an_open_websocket_has_no_timer_but_that_of_its_ping() -> None:
    stack = Stack(ping_interval=0)
    stack.send(head())
    assert stack.clock.getDelayedCalls() == []


def test_an_open_websocket_may_be_idle_however_short_the_limit_for_others_is() -> None:
    stack = Stack(ping_interval=0)
    stack.site = LHTTPSite(stack.root, max_body_size=1_000, reactor=stack.clock, timeout=2, head_timeout=5)
    stack.send(head())
    assert stack.clock.getDelayedCalls() == []


def test_no_timer_is_left_when_it_ends() -> None:
    stack = Stack()
    stack.send(head()).protocol.connectionLost(connectionDone)
    assert stack.clock.getDelayedCalls() == []


@pytest.mark.parametrize("reads", [[], [head()[:30]], [head()[:30], head()[30:40]]], ids=len)
def test_a_head_that_is_not_complete_in_time_is_dropped(reads: list[bytes]) -> None:
    stack = Stack()
    transport = stack.send(*reads)
    stack.clock.advance(4.9)
    assert not transport.disconnecting
    stack.clock.advance(0.2)
    assert transport.disconnecting


@pytest.mark.parametrize(("idle", "reads"), [(2, []), (2, [b"GET"]), (60, [b"POST /publish HTTP/1.1\r\n"])])
def test_a_connection_without_a_byte_is_dropped(idle: float, reads: list[bytes]) -> None:
    stack = Stack()
    stack.site = LHTTPSite(stack.root, max_body_size=1_000, reactor=stack.clock, timeout=idle, head_timeout=5)
    transport = stack.send(*reads)
    stack.clock.advance(min(idle, 5) - 0.1)
    assert not transport.disconnecting
    stack.clock.advance(0.2)
    assert transport.disconnecting


def test_a_body_that_does_not_go_on_is_dropped() -> None:
    stack = Stack()
    stack.site = LHTTPSite(stack.root, max_body_size=1_000, reactor=stack.clock, timeout=10, body_timeout=60)
    transport = stack.send(b"POST /publish HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
    stack.clock.advance(9.9)
    assert not transport.disconnecting
    stack.clock.advance(0.2)
    assert transport.disconnecting


def test_a_kept_alive_connection_without_a_request_is_dropped() -> None:
    stack = Stack()
    transport = stack.send(b"GET /publish HTTP/1.1\r\nHost: chat.example\r\n\r\n")
    stack.clock.advance(59)
    assert not transport.disconnecting
    stack.clock.advance(2)
    assert transport.disconnecting


# What others see


def test_the_handshake_is_there_when_the_connection_opens_and_no_longer() -> None:
    seen: list[Any] = []

    class Watching(LHTTPServerProtocol):
        def onOpen(self) -> None:
            seen.append(self.handshake)
            super().onOpen()

    class WatchingAndJudged(Watching, Judged):
        pass

    for kind in (Watching, WatchingAndJudged):
        stack = Stack()
        stack.factory.protocol = kind
        assert stack.send(head(BROWSER)).protocol.handshake is None
    first, second = seen
    assert (first.target, first.headers) == (second.target, second.headers)
    assert first.headers["cookie"] == "session=0123456789abcdef; theme=dark"


def test_an_open_connection_tells_when_it_opened_and_closed() -> None:
    stack = Stack()
    protocol = stack.send(head()).protocol
    told: list[str] = []
    protocol.is_open.addCallback(lambda _: told.append("open"))
    protocol.is_closed.addCallback(lambda _: told.append("closed"))
    protocol.connectionLost(connectionDone)
    assert told == ["open", "closed"]


# The same answer, whatever comes


def answer(judged: bool, reads: list[bytes]) -> tuple[bytes, bool, bool]:
    transport = Stack(judged=judged, demo=True, policy=AccessPolicy(origins=frozenset("*"))).send(*reads)
    return re.sub(rb"Date: [^\r]*", b"", transport.value()), transport.disconnecting, transport.aborted


@settings(max_examples=200, deadline=None)
@given(heads(), st.sampled_from([b"", b"\x89\x80\0\0\0\0", b"GET / HTTP/1.1\r\n\r\n"]), st.none() | st.integers(0, 400))
def test_the_answer_is_that_of_the_ordinary_way(data: bytes, behind: bytes, cut: int | None) -> None:
    data += behind
    reads = [data] if cut is None else [data[:cut], data[cut:]]
    reads = [read for read in reads if read]
    assert answer(False, reads) == answer(True, reads)


def test_the_ordinary_way_is_another_one(asked: list[bytes]) -> None:
    answer(False, [head()])
    assert asked == []
    answer(True, [head()])
    assert asked


@pytest.mark.parametrize(("count", "status"), [(MAX_HEADERS, b"426"), (MAX_HEADERS + 1, b"400")])
def test_headers_of_a_request_are_bounded_in_number(count: int, status: bytes) -> None:
    lines = [b"Host: localhost", *(b"X-%d: x" % number for number in range(count - 1))]
    transport = Stack().send(b"GET / HTTP/1.1\r\n" + b"\r\n".join(lines) + b"\r\n\r\n")
    assert transport.value().split()[1] == status


@pytest.mark.parametrize(
    ("request_line", "names", "status"),
    [
        (b"GET / HTTP/1.1", [b"x" * 8_000], b"426"),
        (b"GET / HTTP/1.1", [b"x" * 16_400], b"400"),
        (b"GET / HTTP/1.1", [b"%d-" % number + b"x" * 40 for number in range(60)], b"426"),
        (b"x" * 65 + b" / HTTP/1.1", [b"x"], b"400"),
        (b"GET /" + b"x" * 5_000 + b" HTTP/1.1", [b"x"], b"426"),
    ],
    ids=["long", "too long", "many", "method", "path"],
)
def test_names_of_a_head_may_be_long_and_many(request_line: bytes, names: list[bytes], status: bytes) -> None:
    lines = [request_line, b"Host: localhost", *(name + b": " + b"y" * 40 for name in names)]
    transport = Stack().send(b"\r\n".join(lines) + b"\r\n\r\n")
    assert transport.value().split()[1] == status
