"""Who comes in, and as whom: a real server, real clients, and every refusal to the letter."""

from __future__ import annotations

import base64
import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from token_makers import SECRET, confused_token, jwk, make_token, public_pem, unsigned
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

from integration._server import (
    TIME_LIMIT,
    RawClient,
    ServerProcess,
    handshake_head,
    http_request,
    message,
    on_one_of_these_clocks,
    open_client,
    wait_until,
)

SOURCE = """
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from lhttp_tx import Authenticator, Refused, processor


@processor("who")
def who(request):
    identity = request.session.identity
    request.reply(f"{identity.user} {identity.claims.get('role')} {dict(identity.parameters)}")


class Slow(Authenticator):
    async def authenticate(self, attempt):
        ticket = attempt.parameters.get("ticket") or attempt.cookies.get("ticket")
        if ticket is None:
            return None
        await deferLater(reactor, 0.05)
        if ticket == "hang":
            await Deferred()
        if ticket == "broken":
            raise ZeroDivisionError
        if ticket != "good":
            raise Refused(403, "this ticket is not good here")
        return attempt.identify("holder", {"role": "guest"})
"""

pytestmark = pytest.mark.once

Serve = Callable[..., ServerProcess]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start servers on ports of their own; a secret in a log fails the test."""
    (tmp_path / "own.py").write_text(SOURCE)
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "passwords").write_text("alice:s3same\nzoë:ünl0ck\n")
    (tmp_path / "public.pem").write_bytes(public_pem("RS256"))
    keys = [jwk("RS256", kid="r"), jwk("ES256", kid="e"), jwk("EdDSA", kid="d")]
    (tmp_path / "keys.json").write_text(json.dumps({"keys": keys}))
    servers: list[ServerProcess] = []

    def start(*arguments: str, **options: Any) -> ServerProcess:
        server = ServerProcess("--processor", "own.py:who", *arguments, cwd=tmp_path, **options)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.check()
        for secret in ("eyJ", "s3same", "ünl0ck", "d3faced", SECRET.decode("ascii")):
            assert secret not in server.log


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def who(client: ClientConnection) -> str:
    client.send(message("who"))
    return str(client.recv(timeout=TIME_LIMIT)).partition("\r\n\r\n")[2]


def identity(server: ServerProcess, path: str = "/", **options: Any) -> str:
    """Return who the server takes a client for."""
    with open_client(server.port, path, **options) as client:
        return who(client)


def refusal(server: ServerProcess, path: str = "/", **options: Any) -> tuple[int, str]:
    """Return the status and the text with which a handshake is refused."""
    with pytest.raises(InvalidStatus) as caught, open_client(server.port, path, **options):
        pass
    response = caught.value.response
    return response.status_code, bytes(response.body or b"").decode("utf-8").rstrip("\n")


def ask(client: ClientConnection, text: str) -> str:
    client.send(text)
    return str(client.recv(timeout=TIME_LIMIT))


def closing(client: ClientConnection) -> tuple[int, str]:
    """Return how the server closes the connection."""
    with pytest.raises(ConnectionClosed) as caught:
        while True:
            client.recv(timeout=TIME_LIMIT)
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


def test_without_authenticators_everybody_comes_in(serve: Serve) -> None:
    assert identity(serve(), "/?room=a", additional_headers=bearer("x")) == "None None {'room': 'a'}"


# Passwords


def test_passwords(serve: Serve) -> None:
    server = serve("--auth", "file:passwords", "--auth", "memory:bob:d3faced")
    assert identity(server, additional_headers=basic("alice", "s3same")) == "alice None {}"
    assert identity(server, additional_headers=basic("zoë", "ünl0ck")) == "zoë None {}"
    assert identity(server, additional_headers=basic("bob", "d3faced")) == "bob None {}"
    assert refusal(server, additional_headers=basic("alice", "d3faced")) == (401, "wrong user or password")
    assert refusal(server, additional_headers=basic("eve", "s3same")) == (401, "wrong user or password")
    assert refusal(server) == (401, "log in to connect: the handshake has no credentials that this server accepts")
    server.wait_for_log("refused with 401: 'wrong user or password'")


def test_a_refusal_says_how_to_log_in(serve: Serve) -> None:
    server = serve("--auth", "file:passwords", "--jwt-key-file", "secret")
    with pytest.raises(InvalidStatus) as caught, open_client(server.port):
        pass
    assert caught.value.response.headers.get_all("WWW-Authenticate") == [
        'Bearer realm="lhttp"',
        'Basic realm="lhttp", charset="UTF-8"',
    ]


def test_a_login_message_with_a_password(serve: Serve) -> None:
    server = serve("--auth", "file:passwords", "--login-timeout", "60")
    with open_client(server.port) as client:
        assert ask(client, message("who")) == message("error", {"status": "401", "reason": "log in first"})
        assert ask(client, message("login", {"user": "alice", "password": "d3faced"})) == message(
            "error", {"status": "401", "reason": "wrong user or password"}
        )
        client.send(message("login", {"user": "alice", "password": "s3same"}))
        client.send(message("who"))
        assert client.recv(timeout=TIME_LIMIT) == message("login", {"user": "alice"})
        assert client.recv(timeout=TIME_LIMIT) == message("who", body="alice None {}")


def test_guessing_ends_with_the_connection(serve: Serve) -> None:
    server = serve("--auth", "file:passwords", "--login-timeout", "60", "--max-failed-logins", "2")
    with open_client(server.port) as client:
        for _ in range(10):
            client.send(message("login", {"user": "alice", "password": "d3faced"}))
        assert closing(client) == (1008, "too many failed logins")
    assert server.stop() == -signal.SIGTERM
    server.wait_for_log("1 more within 10 s, the last: tcp4:127.0.0.1:")
    assert server.log.count("login refused") == 2


def test_who_does_not_log_in_has_to_go(serve: Serve) -> None:
    server = serve("--auth", "file:passwords", "--login-timeout", "0.3")
    with open_client(server.port) as client:
        assert closing(client) == (4408, "no login within 0.3 seconds")


def test_nobody_in_particular_where_that_is_allowed(serve: Serve) -> None:
    server = serve("--auth", "file:passwords", "--allow-anonymous")
    assert identity(server) == "None None {}"
    assert refusal(server, additional_headers=basic("alice", "d3faced")) == (401, "wrong user or password")
    with open_client(server.port) as client:
        assert ask(client, message("login", {"user": "alice", "password": "s3same"})) == message(
            "login", {"user": "alice"}
        )
        assert who(client) == "alice None {}"


# Tokens


def test_a_token_may_be_in_four_places(serve: Serve) -> None:
    server = serve(
        *("--jwt-key-file", "secret", "--jwt-cookie", "session", "--jwt-query", "access_token"),
        *("--login-timeout", "60"),
    )
    token = make_token(role="admin")
    assert identity(server, additional_headers=bearer(token)) == "alice admin {}"
    assert identity(server, additional_headers={"Cookie": f"a=b; session={token}"}) == "alice admin {}"
    assert identity(server, f"/x?access_token={token}&room=a") == "alice admin {'room': 'a'}"
    with open_client(server.port) as client:
        assert ask(client, message("login", {"token": token})).startswith("LHTTP/1.0 login\r\nuser:alice\r\n")
        assert who(client) == "alice admin {}"


@pytest.mark.parametrize(("kid", "algorithm"), [("r", "RS256"), ("e", "ES256"), ("d", "EdDSA")])
def test_a_key_set(serve: Serve, kid: str, algorithm: str) -> None:
    server = serve("--jwks-file", "keys.json")
    good, unknown = (make_token(algorithm, headers={"kid": found}) for found in (kid, "z"))
    assert identity(server, additional_headers=bearer(good)) == "alice None {}"
    assert refusal(server, additional_headers=bearer(unknown)) == (401, "token has the kid 'z', which no key has")


def test_every_refusal_of_a_token(serve: Serve) -> None:
    server = serve("--jwt-key-file", "public.pem", "--jwt-audience", "chat", "--jwt-issuer", "me")
    good = {"aud": "chat", "iss": "me"}
    now = int(time.time())
    tokens = {
        make_token("RS256", number=1, **good): "token has a wrong signature",
        make_token("RS256", **good, exp=now - 1): "token has expired",
        make_token("RS256", **good, nbf=now + 600): "token is not valid yet",
        make_token("RS256", iss="me", aud="shop"): "token is for another audience",
        make_token("RS256", iss="me"): "token has no aud",
        make_token("RS256", aud="chat", iss="you"): "token is from another issuer",
        make_token("RS256", aud="chat"): "token has no iss",
        make_token("RS256", **good, exp=None): "token has no exp",
        unsigned(**good): "token is signed with 'none', its key is for RS256",
        confused_token(public_pem("RS256")): "token is signed with 'HS256', its key is for RS256",
        "nonsense": "token is malformed",
        make_token("RS256", **good, sub=None): "token has no user: the claim 'sub' is missing, or is not text",
    }
    for token, reason in tokens.items():
        assert refusal(server, additional_headers=bearer(token)) == (401, reason)
    assert identity(server, additional_headers=bearer(make_token("RS256", **good))) == "alice None {}"


def test_the_refusals_are_the_same_for_a_login_message(serve: Serve) -> None:
    server = serve("--jwt-key-file", "public.pem", "--login-timeout", "60", "--max-failed-logins", "10")
    tokens = {
        make_token("RS256", number=1): "token has a wrong signature",
        make_token("RS256", exp=1): "token has expired",
        make_token("RS256", aud="shop"): "token is for another audience",
        unsigned(): "token is signed with 'none', its key is for RS256",
        confused_token(public_pem("RS256")): "token is signed with 'HS256', its key is for RS256",
        "nonsense": "token is malformed",
    }
    with open_client(server.port) as client:
        for token, reason in tokens.items():
            client.send(message("login", {"token": token, "receipt": "1"}))
            expected = {"status": "401", "reason": reason, "receipt-id": "1"}
            assert client.recv(timeout=TIME_LIMIT) == message("error", expected)


def test_a_connection_ends_with_its_token_unless_that_is_renewed(serve: Serve) -> None:
    server = serve("--jwt-key-file", "secret")

    def attempt(seconds: int) -> None:
        soon = int(time.time()) + seconds
        with (
            open_client(server.port, additional_headers=bearer(make_token(exp=soon))) as renewed,
            open_client(server.port, additional_headers=bearer(make_token(exp=soon))) as ending,
        ):
            token = make_token(exp=soon + 3600, role="admin")
            assert ask(renewed, message("login", {"token": token})) == message(
                "login", {"user": "alice", "expires": str(soon + 3600)}
            )
            assert closing(ending) == (4401, "credentials have expired")
            assert time.time() >= soon - 0.1
            assert who(renewed) == "alice admin {}"

    on_one_of_these_clocks(attempt)


def test_a_token_of_somebody_else_does_not_renew(serve: Serve) -> None:
    server = serve("--jwt-key-file", "secret")
    with open_client(server.port, additional_headers=bearer(make_token())) as client:
        assert ask(client, message("login", {"token": make_token(sub="bob")})) == message(
            "error", {"status": "409", "reason": "this connection belongs to another user: open another one"}
        )
        assert who(client) == "alice None {}"


def test_a_login_message_reaches_no_subscriber(serve: Serve) -> None:
    server = serve("--jwt-key-file", "secret")
    token = make_token()
    with (
        open_client(server.port, additional_headers=bearer(token)) as reader,
        open_client(server.port, additional_headers=bearer(token)) as writer,
    ):
        assert ask(reader, message("x", {"subscribe": "a", "receipt": "1"})) == message("receipt", {"receipt-id": "1"})
        expected = {"status": "400", "reason": "a login message must not have the header publish"}
        assert ask(writer, message("login", {"token": token, "publish": "a"})) == message("error", expected)
        body = message("login", {"token": token, "publish": "a"})
        status, _, text = http_request(server.port, "POST", "/publish", body)
        assert (status, text) == (403, b"messages with the command login are never published\n")
        writer.send(message("chat", {"publish": "a"}))
        assert reader.recv(timeout=TIME_LIMIT) == message("chat", {"publish": "a"})


# The user's own


def test_an_authenticator_of_ones_own(serve: Serve) -> None:
    server = serve("--authenticator", "own.py:Slow", "--auth-timeout", "0.5")
    assert identity(server, "/?ticket=good") == "holder guest {'ticket': 'good'}"
    assert identity(server, additional_headers={"Cookie": "ticket=good"}) == "holder guest {}"
    assert refusal(server, "/?ticket=bad") == (403, "this ticket is not good here")
    assert refusal(server, "/?ticket=hang") == (503, "the login took too long")
    assert refusal(server, "/?ticket=broken") == (500, "internal error")
    server.expect_traceback("ZeroDivisionError")


def test_logins_under_way_are_bounded_in_number(serve: Serve) -> None:
    server = serve("--authenticator", "own.py:Slow", "--auth-max-in-flight", "1", "--auth-timeout", "20")

    def status() -> int:
        with RawClient(server.port, "/?ticket=good") as client:
            return client.status

    with socket.create_connection(("127.0.0.1", server.port), TIME_LIMIT) as waiting:
        waiting.sendall(handshake_head(server.port, "/?ticket=hang"))
        wait_until(lambda: status() == 503, "a login is under way")
    wait_until(lambda: status() == 101, "none is under way")


def test_who_waits_in_the_lobby_is_told_when_the_server_stops(serve: Serve) -> None:
    server = serve("--auth", "file:passwords", "--login-timeout", "30")
    with open_client(server.port) as client:
        assert ask(client, message("who")).startswith("LHTTP/1.0 error")
        server.stop()
        assert closing(client) == (1001, "server is going away")
