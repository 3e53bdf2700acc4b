"""lhttp_tx.web.connect: who gets a session, and how it is answered."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher

from lhttp_tx import Message
from lhttp_tx.codec.limits import Limits
from lhttp_tx.guard.access import AccessPolicy
from unit.web.events._stack import Stack, Transport
from unit.web.events.test_resource import BEARER, COOKIE, Tokens, guarded

pytestmark = pytest.mark.usefixtures("clock")

SUBSCRIBE = Message("x", [("subscribe", "room")]).raw


def post(stack: Stack, target: str, *headers: str, body: bytes = b"", **options: Any) -> Transport:
    return stack.request(target, *headers, f"Content-Length: {len(body)}", method="POST", behind=body, **options)


def connect(stack: Stack, *headers: str, target: str = "/connect", **options: Any) -> str:
    transport = post(stack, target, *headers, **options)
    assert transport.status == 200, transport.body
    told = json.loads(transport.body)
    assert set(told) == {"session", "wait", "timeout", "buffer"}
    return f"Authorization: Bearer {told['session']}"


def poll(stack: Stack, secret: str, after: int = 0, wait: int = 0) -> Any:
    transport = stack.request(f"/connect?poll=1&after={after}&wait={wait}", secret)
    return json.loads(transport.body) if transport.status == 200 else transport.status


def send(stack: Stack, secret: str, body: bytes, query: str = "") -> int:
    return post(stack, f"/send{query}", secret, body=body).status


def end(stack: Stack, secret: str) -> int:
    return stack.request("/connect", secret, method="DELETE").status


# A conversation


def test_a_client_sends_and_polls() -> None:
    stack = Stack()
    secret = connect(stack)
    assert send(stack, secret, SUBSCRIBE) == 204
    stack.publish("room", "hi")
    assert poll(stack, secret) == {"last": 1, "messages": ["LHTTP/1.0 chat\r\npublish:room\r\n\r\nhi"]}
    assert poll(stack, secret, 1) == {"last": 1, "messages": []}
    assert end(stack, secret) == 204
    assert poll(stack, secret, 1) == send(stack, secret, SUBSCRIBE) == end(stack, secret) == 404


def test_what_comes_with_the_first_request_is_handled() -> None:
    stack = Stack()
    secret = connect(stack, body=SUBSCRIBE)
    stack.publish("room", "hi")
    assert poll(stack, secret)["last"] == 1


def test_a_poll_waits() -> None:
    stack = Stack()
    secret = connect(stack, body=SUBSCRIBE)
    transport = stack.request("/connect?poll=1", secret)
    assert transport.value() == b""
    assert stack.admission.pending == 1  # of the connection that has connected; its client may ask for more
    stack.publish("room", "hi")
    stack.clock.advance(0)
    assert json.loads(transport.body)["last"] == 1
    assert stack.admission.pending == 2
    idle = stack.request("/connect?poll=1&after=1", secret)
    stack.clock.advance(20)
    assert json.loads(idle.body) == {"last": 1, "messages": []}


def test_a_request_that_waits_until_its_messages_are_taken_is_not_pending() -> None:
    stack = Stack(limits=Limits(message_rate=1.0))
    secret = connect(stack)
    poll(stack, secret)
    pending = stack.admission.pending
    body = b"".join(b"%d\n%b" % (len(SUBSCRIBE), SUBSCRIBE) for _ in range(10))
    waiting = [post(stack, "/send?number=1", secret, body=body) for _ in range(3)]
    assert [transport.value() == b"" for transport in waiting] == [False, False, True]
    assert stack.admission.pending == pending + 2  # those that were answered may ask for more
    for _ in range(12):
        stack.clock.advance(1)
    assert waiting[2].status == 204
    assert stack.admission.pending == pending + 3


def test_a_client_streams() -> None:
    stack = Stack()
    secret = connect(stack, target="/connect?protocol=lhttp.json", body=SUBSCRIBE)
    stack.publish("room", "one")
    transport = stack.request("/connect", secret)
    stack.publish("room", "two")
    stack.clock.advance(0)
    assert "content-type: text/event-stream" in transport.head.lower()
    assert [(event.last_id, event.body) for event in transport.events] == [("1", "one"), ("2", "two")]
    stack.clock.advance(20)
    assert transport.body.endswith(b":\n\n")
    assert not transport.disconnecting
    assert end(stack, secret) == 204
    assert transport.disconnecting


def test_a_stream_goes_on_behind_what_its_client_has() -> None:
    stack = Stack()
    secret = connect(stack, target="/connect?protocol=lhttp.json", body=SUBSCRIBE)
    for body in ("one", "two", "three"):
        stack.publish("room", body)
    assert stack.request("/connect?after=1", secret).status == 400  # nothing was sent yet
    first = stack.request("/connect", secret)
    assert first.bodies == ["one", "two", "three"]
    first.end()
    assert stack.request("/connect?after=1", secret).bodies == ["two", "three"]
    assert stack.request("/connect", secret, "Last-Event-ID: 2").bodies == ["three"]
    assert stack.request("/connect", secret).status == 410


def test_a_stream_ends_with_its_session() -> None:
    stack = Stack()
    secret = connect(stack, target="/connect?protocol=lhttp.json")
    transport = stack.request("/connect", secret)
    (session,) = stack.server.engine.sessions
    session.close(4000, "enough")
    stack.clock.advance(0)
    assert transport.events[-1].message["HEADERS"] == {"code": "4000", "reason": "enough"}
    assert transport.disconnecting


def test_a_new_stream_ends_the_one_before() -> None:
    stack = Stack()
    secret = connect(stack)
    one, two = stack.request("/connect", secret), stack.request("/connect", secret)
    assert one.disconnecting
    assert not two.disconnecting
    assert poll(stack, secret)["messages"] == []
    assert two.disconnecting


def test_a_stream_that_is_not_read_fetches_nothing_more() -> None:
    stack = Stack()
    secret = connect(stack, target="/connect?protocol=lhttp.json", body=SUBSCRIBE)
    transport = stack.request("/connect", secret)
    transport.protocol.pauseProducing()
    for body in ("one", "two"):
        stack.publish("room", body)
        stack.clock.advance(0)
    assert transport.bodies == ["one"]
    transport.protocol.resumeProducing()
    assert transport.bodies == ["one", "two"]
    transport.protocol.pauseProducing()
    stack.publish("room", "three")
    stack.clock.advance(0)
    stack.clock.advance(40)
    assert transport.aborted
    assert not stack.server.engine.sessions


def test_numbers_make_requests_safe_to_repeat() -> None:
    stack = Stack()
    secret = connect(stack, body=SUBSCRIBE)
    hello = Message("chat", [("publish", "room")], "hi").raw
    for number in (1, 1, 2, 1):
        assert send(stack, secret, hello, f"?number={number}") == 204
    assert send(stack, secret, hello, "?number=4") == 409
    assert poll(stack, secret)["last"] == 2


def test_an_empty_request_acknowledges() -> None:
    stack = Stack()
    secret = connect(stack, body=SUBSCRIBE)
    stack.publish("room", "one")
    poll(stack, secret)
    assert send(stack, secret, b"", "?after=1") == 204
    assert poll(stack, secret, 0) == 410


# Refusals


@pytest.mark.parametrize("header", ["X: y", "Authorization: Basic YTpi", "Authorization: Bearer"])
def test_a_request_without_a_secret_is_told_what_to_bring(header: str) -> None:
    stack = Stack()
    for transport in (stack.request("/connect", header), post(stack, "/send", header)):
        assert transport.status == 401
        assert "WWW-Authenticate: Bearer" in transport.head


def test_a_secret_in_a_url_does_nothing() -> None:
    stack = Stack()
    secret = connect(stack).rpartition(" ")[2]
    assert stack.request(f"/connect?poll=1&session={secret}").status == 401


@pytest.mark.parametrize(
    "target",
    ["/connect?after=x", "/connect?poll=1&wait=-1", "/connect?after=9999999999999999", "/connect?poll=1&after=1"],
)
def test_a_malformed_number_is_refused(target: str) -> None:
    stack = Stack()
    assert stack.request(target, connect(stack)).status == 400


def test_a_malformed_body_is_refused_as_a_whole() -> None:
    stack = Stack()
    secret = connect(stack)
    assert send(stack, secret, b"15\nLHTTP/1.0 a\r\n\r\nx") == 400
    assert post(stack, "/send", secret, "Content-Type: application/json", body=b"[" * 900).status == 400
    assert post(stack, "/connect", body=b"5\n").status == 400
    assert poll(stack, secret)["messages"] == []
    assert len(stack.server.engine.sessions) == 1


def test_an_unknown_protocol_is_refused() -> None:
    assert post(Stack(), "/connect?protocol=mqtt").status == 400


@pytest.mark.parametrize(("target", "method"), [("/connect", "PUT"), ("/send", "GET"), ("/send", "DELETE")])
def test_other_methods_are_refused(target: str, method: str) -> None:
    transport = Stack().request(target, method=method)
    assert transport.status == 405
    assert "Allow: " in transport.head


@pytest.mark.parametrize("target", ["/%63onnect", "/%73end"])
def test_a_path_has_one_spelling(target: str) -> None:
    assert post(Stack(), target).status == 404


@pytest.mark.parametrize("target", ["/connect", "/send", "/connect/x"])
def test_a_handshake_becomes_a_websocket(target: str) -> None:
    fields = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
    assert Stack().request(target, *fields, "Sec-WebSocket-Version: 13").status == 101


def test_pages_of_other_sites_are_refused() -> None:
    stack = Stack()
    secret = connect(stack)
    for headers in (["Origin: https://evil.example"], ["Sec-Fetch-Site: cross-site"]):
        assert post(stack, "/connect", *headers).status == 403
        assert post(stack, "/send", secret, *headers).status == 403
        assert stack.request("/connect?poll=1&wait=0", secret, *headers).status == 403
    assert connect(stack, "Origin: https://chat.example", "Sec-Fetch-Site: same-origin")


def test_allowed_pages_of_other_sites_are_told_so() -> None:
    stack = Stack(policy=AccessPolicy(origins=frozenset({"https://app.example"})))
    origin = "Origin: https://app.example"
    secret = connect(stack, origin)
    preflight = stack.request("/connect", origin, "Access-Control-Request-Method: DELETE", method="OPTIONS")
    assert preflight.status == 204
    assert "Access-Control-Allow-Methods: GET, POST, DELETE" in preflight.head
    assert "Access-Control-Allow-Headers: Authorization, Cache-Control, Content-Type, Last-Event-ID" in preflight.head
    stream = stack.request("/connect", origin, secret)
    polled = stack.request("/connect?poll=1&wait=0", origin, secret)
    for answer in (stream, polled, stack.request("/connect?after=9", origin, secret)):
        assert "Access-Control-Allow-Origin: https://app.example" in answer.head


def test_a_foreign_host_is_refused() -> None:
    stack = Stack(policy=AccessPolicy(server_names=frozenset({"chat.example"})))
    secret = connect(stack)
    stack.factory.policy.server_names = frozenset({"other.example"})  # type: ignore[misc]
    assert post(stack, "/connect").status == 403
    assert send(stack, secret, SUBSCRIBE) == 403


def test_connections_are_bounded() -> None:
    stack = Stack(max_connections=2)
    secrets = [connect(stack) for _ in range(2)]
    assert post(stack, "/connect").status == 503
    assert poll(stack, secrets[0])["messages"] == []
    end(stack, secrets[0])
    assert connect(stack)


def test_the_connections_of_an_address_are_bounded() -> None:
    stack = Stack(max_per_address=2)
    secrets = [connect(stack) for _ in range(2)]
    assert post(stack, "/connect").status == 429
    assert connect(stack, host="192.0.2.2")
    for secret in secrets:
        assert poll(stack, secret)["messages"] == []
        assert send(stack, secret, SUBSCRIBE) == 204
    preflight = stack.request("/connect", "Origin: https://chat.example", method="OPTIONS")
    assert preflight.status == 204
    end(stack, secrets[0])
    assert connect(stack)


# Logins


@pytest.mark.parametrize("header", [BEARER, COOKIE])
def test_a_client_logs_in_with_a_header(header: str) -> None:
    stack = guarded()
    connect(stack, header)
    (session,) = stack.server.engine.sessions
    assert session.identity.user == "ada"
    assert session.peer.startswith("tcp4:192.0.2.1:")


def test_a_client_logs_in_with_the_body() -> None:
    stack = guarded(login_timeout=5.0)
    login = Message("login", [("token", "letmein")]).raw
    secret = connect(stack, body=b"%d\n%b%d\n%b" % (len(login), login, len(SUBSCRIBE), SUBSCRIBE))
    (session,) = stack.server.engine.sessions
    assert session.identity.user == "ada"
    assert "user:ada" in poll(stack, secret)["messages"][0]


def test_a_client_that_does_not_log_in_gets_nothing() -> None:
    stack = guarded(login_timeout=5.0)
    secret = connect(stack, body=SUBSCRIBE)
    assert "status:401" in poll(stack, secret)["messages"][0]
    assert not stack.server.engine.sessions


def test_a_wrong_login_is_refused_with_a_challenge() -> None:
    transport = post(guarded(), "/connect", "Authorization: Bearer wrong")
    assert transport.status == 401
    assert "WWW-Authenticate: Bearer" in transport.head


def test_a_secret_of_an_authenticator_in_a_url_is_refused() -> None:
    assert post(guarded(), "/connect?token=letmein").status == 400


def test_a_client_that_leaves_during_its_login_gets_no_session() -> None:
    tokens = Tokens()
    stack = Stack(authenticators=[tokens])
    tokens.waiting = Deferred()
    transport = post(stack, "/connect", BEARER)
    transport.end()
    assert not stack.server.engine.sessions
    assert stack.factory.countConnections == 0


def test_a_server_that_goes_away_takes_no_new_clients_and_serves_the_others() -> None:
    stack = Stack()
    secret = connect(stack)
    stack.factory.draining = True
    assert post(stack, "/connect").status == 503
    assert poll(stack, secret) == {"last": 0, "messages": []}
    assert send(stack, secret, SUBSCRIBE) == 204


def test_nothing_of_a_secret_is_logged() -> None:
    told: list[str] = []

    def observe(event: dict[str, Any]) -> None:
        told.append(repr(event))

    globalLogPublisher.addObserver(observe)
    try:
        stack = Stack()
        secret = connect(stack).rpartition(" ")[2]
        stack.request("/connect?after=5", f"Authorization: Bearer {secret}")
        stack.request("/connect", f"Authorization: Bearer {secret[:-1]}")
        stack.clock.advance(60)
    finally:
        globalLogPublisher.removeObserver(observe)
    assert told
    assert secret[-31:-1] not in "".join(told)
