"""lhttp_tx.web.events.resource: who may have a stream, how it logs in, and what browsers are told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.web.server import Site

from lhttp_tx import Authenticator
from lhttp_tx.auth.attempts import LoginAttempt
from lhttp_tx.errors import Refused
from lhttp_tx.guard.access import AccessPolicy
from lhttp_tx.identity import Identity
from unit.web.events._stack import Stack, Transport

pytestmark = pytest.mark.usefixtures("clock")

BEARER = "Authorization: Bearer letmein"
COOKIE = "Cookie: a=b; token=letmein"


class Tokens(Authenticator):
    """Knows one token. It is slow if a test says so."""

    challenges = ("Bearer",)
    secret_parameters = frozenset({"token"})
    waiting: Deferred[None] | None = None

    def authenticate(self, attempt: LoginAttempt) -> Any:
        token = attempt.token or attempt.cookies.get("token") or attempt.parameters.get("token")
        if token is None:
            return None
        if token != "letmein":
            raise Refused(401, "wrong token")
        identity = attempt.identify("ada", {"role": "x"})
        if self.waiting is None:
            return identity
        return self.waiting.addCallback(lambda _: identity)


def guarded(**options: Any) -> Stack:
    return Stack(authenticators=[Tokens()], **options)


def user_of(stack: Stack) -> Identity:
    (session,) = stack.server.engine.sessions
    return session.identity


def ticket(stack: Stack, *headers: str) -> str:
    transport = stack.request("/events/ticket", *headers, "Content-Length: 0", method="POST")
    assert transport.status == 200, transport.body
    found: str = json.loads(transport.body)["ticket"]
    return found


# Logins


@pytest.mark.parametrize("header", [BEARER, COOKIE])
def test_a_client_logs_in_with_a_header_or_a_cookie(header: str) -> None:
    stack = guarded()
    assert stack.stream("channel=a&x=1", header).status == 200
    identity = user_of(stack)
    assert (identity.user, identity.claims, identity.address) == ("ada", {"role": "x"}, "tcp4:192.0.2.1:54321")
    assert identity.parameters == {"channel": "a", "x": "1"}


@pytest.mark.parametrize(("query", "headers", "status", "told"), [
    ("channel=a", (), 401, "log in"),
    ("channel=a", ("Authorization: Bearer wrong",), 401, "wrong token"),
    ("channel=a&token=letmein", (), 400, "secrets in URLs"),
    ("channel=a&token=letmein", (BEARER,), 400, "secrets in URLs"),
    ("channel=a&ticket=forged", (), 403, "ticket"),
    ("channel=a&ticket=", (BEARER,), 403, "ticket"),
])  # fmt: skip
def test_a_client_without_credentials_is_refused(query: str, headers: tuple[str, ...], status: int, told: str) -> None:
    stack = guarded()
    transport = stack.stream(query, *headers)
    assert transport.status == status
    assert told in transport.body.decode()
    assert ("WWW-Authenticate: Bearer" in transport.head) is (status == 401)
    assert stack.server.engine.sessions == set()
    assert stack.factory.countConnections == 0


def test_a_server_that_waits_for_login_messages_takes_none_of_a_stream() -> None:
    transport = guarded(login_timeout=5.0).stream("channel=a")
    assert (transport.status, b"login message" in transport.body) == (401, True)


def test_anybody_may_listen_where_anybody_may_connect() -> None:
    stack = guarded(allow_anonymous=True)
    assert stack.stream("channel=a").status == 200
    assert user_of(stack).user is None


def test_a_ticket_lets_its_user_in_once() -> None:
    stack = guarded()
    found = ticket(stack, BEARER)
    assert stack.stream(f"channel=a&x=1&ticket={found}").status == 200
    identity = user_of(stack)
    assert (identity.user, identity.claims, identity.parameters) == ("ada", {"role": "x"}, {"channel": "a", "x": "1"})
    assert stack.stream(f"channel=a&ticket={found}").status == 403
    late = ticket(stack, COOKIE)
    stack.clock.advance(30)
    assert stack.stream(f"channel=a&ticket={late}").status == 403


def test_two_streams_of_two_tickets_are_two_connections() -> None:
    stack = guarded()
    for _ in range(2):
        stack.stream(f"channel=a&ticket={ticket(stack, BEARER)}")
    assert len({session.identity.connection_id for session in stack.server.engine.sessions}) == 2


@pytest.mark.parametrize(("options", "headers", "status"), [
    ({}, (), 404),
    ({"authenticators": [Tokens()]}, (), 401),
    ({"authenticators": [Tokens()], "allow_anonymous": True}, (), 401),
    ({"authenticators": [Tokens()]}, ("Authorization: Bearer wrong",), 401),
    ({"authenticators": [Tokens()]}, (BEARER, "Origin: http://evil.example"), 403),
    ({"authenticators": [Tokens()]}, (COOKIE, "Sec-Fetch-Site: cross-site"), 403),
])  # fmt: skip
def test_who_gets_no_ticket(options: dict[str, Any], headers: tuple[str, ...], status: int) -> None:
    stack = Stack(**options)
    transport = stack.request("/events/ticket", *headers, "Content-Length: 0", method="POST")
    assert transport.status == status
    assert b'"ticket"' not in transport.body


def test_an_authenticator_may_take_its_time() -> None:
    stack = guarded()
    authenticator: Tokens = stack.server.assembly.gate._authenticators[0]  # type: ignore[union-attr, assignment]
    authenticator.waiting = Deferred()
    stream = stack.stream("channel=a", BEARER)
    assert stream.value() == b""
    authenticator.waiting.callback(None)
    assert stream.status == 200


def test_a_client_that_leaves_meanwhile_leaves_nothing_behind() -> None:
    stack = guarded()
    authenticator: Tokens = stack.server.assembly.gate._authenticators[0]  # type: ignore[union-attr, assignment]
    authenticator.waiting = waiting = Deferred()
    stack.stream("channel=a", BEARER).end()
    assert waiting.called  # it was cancelled
    assert stack.server.engine.sessions == set()
    assert (stack.factory.countConnections, stack.admission.pending) == (0, 0)


def test_the_last_place_is_given_once_though_two_ask_at_a_time() -> None:
    stack = guarded(max_connections=1)
    authenticator: Tokens = stack.server.assembly.gate._authenticators[0]  # type: ignore[union-attr, assignment]
    authenticator.waiting = waiting = Deferred()
    streams = [stack.request("/events?channel=a", BEARER) for _ in range(1)]
    authenticator.waiting = other = Deferred()
    streams.append(stack.request("/events?channel=a", BEARER))
    waiting.callback(None)
    other.callback(None)
    assert [stream.status for stream in streams] == [200, 503]


# Browsers


@pytest.mark.parametrize(("origins", "headers", "status", "allowed"), [
    ((), (), 200, None),
    ((), ("Sec-Fetch-Site: same-origin",), 200, None),
    ((), ("Sec-Fetch-Site: none",), 200, None),
    ((), ("Sec-Fetch-Site: cross-site",), 403, None),
    ((), ("Sec-Fetch-Site: same-site",), 403, None),
    ((), ("Origin: http://chat.example:3000",), 200, ("http://chat.example:3000", True)),
    ((), ("Origin: http://evil.example", "Sec-Fetch-Site: cross-site"), 403, None),
    ((), ("Origin: null",), 403, None),
    (("https://app.example",), ("Origin: https://app.example", "Sec-Fetch-Site: cross-site"), 200,
     ("https://app.example", True)),
    (("*",), ("Origin: http://evil.example",), 200, ("*", False)),
    (("*",), ("Origin: http://chat.example:3000",), 200, ("http://chat.example:3000", True)),
    (("*", "https://app.example"), ("Origin: https://app.example",), 200, ("https://app.example", True)),
])  # fmt: skip
def test_pages_of_other_sites(
    origins: tuple[str, ...], headers: tuple[str, ...], status: int, allowed: tuple[str, bool] | None
) -> None:
    stream = Stack(policy=AccessPolicy(origins=frozenset(origins))).stream("channel=a", *headers)
    assert stream.status == status
    assert "Vary: Origin" in stream.head
    told = [line for line in stream.head.split("\r\n") if line.startswith("Access-Control")]
    if allowed is None:
        assert told == []
    else:
        credentials = ["Access-Control-Allow-Credentials: true"] if allowed[1] else []
        assert told == [f"Access-Control-Allow-Origin: {allowed[0]}", *credentials]


def test_a_refusal_can_be_read_by_the_page_that_was_allowed() -> None:
    policy = AccessPolicy(origins=frozenset({"https://app.example"}))
    for query in ("channel=a..b", "channel=", "channel=a&ticket=x"):
        stream = guarded(policy=policy).stream(query, "Origin: https://app.example", BEARER)
        assert stream.status in (400, 403)
        assert "Access-Control-Allow-Origin: https://app.example" in stream.head


def test_a_preflight_is_answered() -> None:
    stack = guarded(policy=AccessPolicy(origins=frozenset({"https://app.example"})))
    for path, method in (("/events?channel=a", "GET"), ("/events/ticket", "POST")):
        transport = stack.request(path, "Origin: https://app.example", method="OPTIONS")
        assert transport.status == 204
        assert f"Access-Control-Allow-Methods: {method}" in transport.head
        assert "Authorization" in transport.head
        assert "content-length" not in transport.head.lower()
        assert stack.request(path, "Origin: https://evil.example", method="OPTIONS").status == 403


def test_a_name_that_the_server_does_not_answer_to_gets_nothing() -> None:
    assert Stack(policy=AccessPolicy(loopback_only=True)).stream("channel=a").status == 403


# HTTP


@pytest.mark.parametrize(("method", "target", "headers", "status"), [
    ("POST", "/events?channel=a", ("Content-Length: 0",), 405),
    ("DELETE", "/events?channel=a", (), 405),
    ("GET", "/events/ticket", (), 405),
    ("GET", "/%65vents?channel=a", (), 404),
    ("GET", "/events?channel=a", ("Accept: text/html",), 406),
    ("GET", "/events?channel=a", ("Accept: text/html, */*;q=0.8",), 200),
    ("GET", "/events?channel=a", ("Accept: text/*",), 200),
    ("GET", "/events?channel=a", ("Host: other.example",), 400),
    ("GET", "/events?channel=a", ("Origin: http://chat.example", "Origin: http://evil.example"), 400),
    ("GET", "/events?channel=a", ("Last-Event-ID: e-1", "Last-Event-ID: e-2"), 400),
    ("GET", "/events/", (), 426),
    ("GET", "/events/other", (), 426),
])  # fmt: skip
def test_requests_that_are_no_plain_stream(method: str, target: str, headers: tuple[str, ...], status: int) -> None:
    transport = Stack().request(target, *headers, method=method)
    assert transport.status == status
    assert "Server:" not in transport.head


def test_head_is_the_head_alone_and_opens_nothing() -> None:
    stack = Stack()
    transport = stack.request("/events?channel=a", method="HEAD")
    assert (transport.status, transport.body) == (200, b"")
    assert "Content-Type: text/event-stream" in transport.head
    assert "Content-Length" not in transport.head
    assert stack.server.engine.sessions == set()
    assert guarded().request("/events?channel=a", method="HEAD").status == 401


def test_a_websocket_opens_on_the_same_path() -> None:
    stack = Stack()
    transport = stack.request(
        "/events", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    )  # fmt: skip
    assert transport.status == 101


def test_a_server_that_goes_away_lets_browsers_come_again() -> None:
    stack = Stack()
    stack.factory.draining = True
    stream = stack.stream("channel=a")
    assert stream.aborted
    program = stack.request("/events?channel=a")
    assert (program.status, program.aborted) == (503, False)


def test_a_site_of_somebody_else_will_do() -> None:
    stack = Stack()
    stack.site = Site(stack.site.resource, reactor=stack.clock)
    stream = stack.stream("channel=a")
    stack.publish("a", "1")
    assert stream.bodies == ["1"]
    stream.end()
    assert (stack.factory.countConnections, stack.admission.pending) == (0, 0)


def test_a_request_after_a_refusal_is_answered() -> None:
    transport: Transport = Stack().request("/events")
    assert transport.status == 400
    transport.clear()
    transport.protocol.dataReceived(b"GET /events?channel=a HTTP/1.1\r\nHost: chat.example\r\n\r\n")
    assert transport.status == 200
