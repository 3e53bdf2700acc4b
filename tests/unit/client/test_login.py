"""lhttp_tx.client: logging in and staying so, against the real server, with the network in memory."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from client_world import World, error_of, outcome
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher
from zope.interface.verify import verifyClass

from lhttp_tx import Authenticator, Message, Refused
from lhttp_tx.auth.attempts import LoginAttempt
from lhttp_tx.client import Client, ClientClosed, LoginFailed, State
from lhttp_tx.client.credentials import Credentials, http_headers, read_account
from lhttp_tx.client.websocket.entrance import HeadersEndpoint, LoginEndpoint
from lhttp_tx.errors import LHTTPError

SECRET = "s3same"


class Names(Authenticator):
    """Knows tokens such as ``alice:60`` (who, and for how many seconds) that it was told, and passwords."""

    challenges = ('Bearer realm="test"',)

    def __init__(self) -> None:
        self.attempts: list[LoginAttempt] = []
        self.refusal: Refused | None = None
        self.waiting: Deferred[None] | None = None
        self.now: Callable[[], float] = float

    def authenticate(self, attempt: LoginAttempt) -> Any:
        if attempt.token is None and attempt.password is None:
            return None
        self.attempts.append(attempt)
        if self.waiting is not None:
            return self.waiting.addCallback(lambda _: self.answer(attempt))
        return self.answer(attempt)

    def answer(self, attempt: LoginAttempt) -> Any:
        if self.refusal is not None:
            raise self.refusal
        if attempt.password is not None:
            user, password = attempt.password
            if password != SECRET:
                raise Refused(401, "wrong user or password")
            return attempt.identify(user)
        user, _, seconds = str(attempt.token).partition(":")
        return attempt.identify(user, expires=self.now() + float(seconds) if seconds else None)


class LoginWorld(World):
    """A server that asks who its clients are, or lets them in to say so in a message."""

    def __init__(self, clock: Clock, **settings: Any) -> None:
        self.names = Names()
        super().__init__(clock, **{"authenticators": [self.names], "login_timeout": 10.0, **settings})
        self.names.now = self.server.clock.seconds
        self.reasons: list[str] = []

    def client(self, **options: Any) -> Client:
        def told(state: State, reason: str) -> None:
            self.states.append(state)
            self.reasons.append(reason)

        return super().client(**{"on_state": told, "now": self.clock.seconds, **options})

    @property
    def commands(self) -> list[str]:
        """The commands of what clients have sent."""
        return [message.command for message in self.endpoint.sent]

    def users(self) -> list[str | None]:
        """Whom the server has."""
        return [session.identity.user for session in self.server.engine.sessions]

    def pass_time(self, seconds: int) -> None:
        """Let time pass in steps of half a second."""
        for _ in range(2 * seconds):
            self.run(0.5)


@pytest.fixture
def world(clock: Clock) -> LoginWorld:
    return LoginWorld(clock)


def alice() -> dict[str, str]:
    return {"token": "alice"}


def shortly() -> dict[str, str]:
    """A token that lasts 60 seconds from its login."""
    return {"token": "alice:60"}


def test_the_parts_provide_their_interfaces() -> None:
    assert verifyClass(IStreamClientEndpoint, LoginEndpoint)
    assert verifyClass(IStreamClientEndpoint, HeadersEndpoint)


# Logging in


def test_nothing_else_is_sent_before_the_login_is_answered(world: LoginWorld) -> None:
    world.names.waiting = waiting = Deferred()
    client = world.client(login=alice)
    connecting = client.connect()
    client.subscribe("room.a")
    asked = client.request("echo", body="x")
    world.run()
    assert (world.commands, client.state, client.user) == (["login"], State.CONNECTING, None)
    waiting.callback(None)
    world.run()
    assert world.commands == ["login", "subscribe", "echo"]
    assert (outcome(connecting), outcome(asked).body) == (None, b"x")
    assert world.users() == ["alice"]


def test_who_one_is_can_be_read_and_is_told(world: LoginWorld) -> None:
    client = world.connected(login=shortly)
    assert (client.user, client.expires) == ("alice", 60.0)
    assert world.reasons == ["connecting to ws://localhost/", "connected to ws://localhost/ as alice"]


def test_a_login_that_does_not_end_has_no_time(world: LoginWorld) -> None:
    client = world.connected(login=alice)
    assert (client.user, client.expires) == ("alice", None)
    world.run(1_000.0)
    assert world.commands.count("login") == 1


def test_without_a_connection_one_is_nobody(world: LoginWorld) -> None:
    client = world.connected(login=alice)
    world.cut()
    assert (client.state, client.user, client.expires) == (State.WAITING, None, None)
    world.run(1.0)
    assert client.user == "alice"
    world.result(client.close())
    assert client.user is None


async def coroutine() -> dict[str, str]:
    await succeed(None)
    return alice()


@pytest.mark.parametrize(
    "login",
    [
        alice,
        coroutine,
        lambda: succeed(alice()),
        lambda: [("token", "alice")],
        lambda: {"user": "alice", "password": SECRET},
    ],
    ids=["plain", "coroutine", "Deferred", "pairs", "password"],
)
def test_a_login_may_be_any_kind_of_function(world: LoginWorld, login: Any) -> None:
    assert world.connected(login=login).user == "alice"


def test_each_connection_asks_for_credentials_of_its_own(world: LoginWorld) -> None:
    users = iter(["alice", "bob"])
    client = world.connected(login=lambda: {"token": next(users)})
    client.subscribe("room.a")
    world.run()
    world.cut()
    world.run(1.0)
    assert client.user == "bob"
    assert [session.channels for session in world.server.engine.sessions] == [frozenset({"room.a"})]
    assert world.commands == ["login", "subscribe", "login", "subscribe"]


def test_what_waits_for_a_connection_is_sent_after_the_login(world: LoginWorld) -> None:
    client = world.connected(login=alice)
    world.cut()
    asked = client.request("echo", body="later")
    world.run(1.0)
    assert outcome(asked).text == "later"
    assert world.commands == ["login", "login", "echo"]


# Logins that fail


def test_wrong_credentials_fail_connect_and_leave_nothing_behind(world: LoginWorld) -> None:
    client = world.client(login=lambda: {"user": "alice", "password": "wrong"})
    error = world.failure(client.connect())
    assert (type(error), error.status) == (LoginFailed, 401)
    assert error.reason == "cannot log in to ws://localhost/: login refused: wrong user or password"
    assert (client.state, client.user) == (State.CLOSED, None)
    assert not world.clock.getDelayedCalls()
    assert not world.server.assembly.gate.lobbies  # type: ignore[union-attr]


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_a_refused_login_is_tried_again_as_a_refused_handshake_is(world: LoginWorld, status: int) -> None:
    world.names.refusal = Refused(status, "not now")
    failed: list[int] = []

    def policy(attempts: int) -> float:
        failed.append(attempts)
        return 1.0

    client = world.client(login=alice, retry_policy=policy)
    connecting = client.connect(attempts=None)
    for _ in range(3):
        world.run(1.0)
    assert (client.state, failed[-1] >= 3, connecting.called) == (State.WAITING, True, False), "the pause grows"
    assert world.reasons[-1].endswith("login refused: not now")
    world.names.refusal = None
    world.run(1.0)
    assert (outcome(connecting), client.user) == (None, "alice")


def refused_times(world: LoginWorld, client: Client, times: int, status: int = 401) -> Deferred[None]:
    world.names.refusal = Refused(status, "not you")
    connecting = client.connect(attempts=None)
    world.run()
    for _ in range(times - 1):
        world.run(1.0)
    return connecting


def test_a_login_that_is_refused_ten_times_in_a_row_is_not_tried_again(world: LoginWorld) -> None:
    client = world.client(login=alice)
    connecting = refused_times(world, client, 10)
    error = error_of(connecting)
    assert (type(error), error.status, client.state) == (LoginFailed, 401, State.CLOSED)
    assert world.reasons[-1].endswith("login refused: not you; that was the last of 10 attempts")
    world.pass_time(60)
    assert len(world.names.attempts) == 10
    assert not world.clock.getDelayedCalls()


def test_a_client_that_has_given_up_can_be_started_again(world: LoginWorld) -> None:
    client = world.client(login=alice)
    refused_times(world, client, 10).addErrback(lambda _: None)
    connecting = refused_times(world, client, 9)
    world.names.refusal = None
    world.run(1.0)
    assert (outcome(connecting), client.state) == (None, State.CONNECTED)


def test_a_login_that_succeeds_in_between_starts_the_count_anew(world: LoginWorld) -> None:
    client = world.client(login=alice)
    refused_times(world, client, 9)
    world.names.refusal = None
    world.run(1.0)
    assert client.state is State.CONNECTED
    world.cut()
    refused_times(world, client, 9)
    assert client.state is State.WAITING


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_without_time_for_a_login_is_asked_for_ever(world: LoginWorld, status: int) -> None:
    client = world.client(login=alice)
    connecting = refused_times(world, client, 30, status)
    assert (connecting.called, client.state) == (False, State.WAITING)


def test_a_server_that_does_not_answer_the_login_is_left(world: LoginWorld) -> None:
    world.names.waiting = Deferred()
    connecting = world.client(login=alice, connect_timeout=5.0).connect()
    world.run()
    world.run(4.9)
    assert not connecting.called
    world.run(0.2)
    error = error_of(connecting)
    assert (type(error), error.status) == (LoginFailed, 504)
    assert error.reason.endswith("no answer to the login within 5 seconds")
    assert not world.clock.getDelayedCalls()


def test_a_server_without_logins_is_an_error(clock: Clock) -> None:
    world = World(clock)
    error = world.failure(world.client(login=alice).connect())
    assert (type(error), error.status) == (LoginFailed, 404)
    assert "has no logins" in error.reason


def test_a_function_that_hangs_has_a_time_limit(world: LoginWorld) -> None:
    connecting = world.client(login=Deferred, connect_timeout=5.0).connect()
    world.run(5.1)
    assert error_of(connecting).reason.endswith("login gave nothing within 5 seconds")
    assert not world.endpoint.pumps, "there was a connection"


def test_a_function_that_does_not_let_itself_be_cancelled_has_a_time_limit(world: LoginWorld) -> None:
    waiting: list[Deferred[None]] = [Deferred(), Deferred()]

    async def stubborn() -> dict[str, str]:
        for one in waiting:
            with suppress(CancelledError):
                await one
        return alice()

    connecting = world.client(login=stubborn, connect_timeout=5.0).connect()
    world.run(5.1)
    assert error_of(connecting).status == 504
    waiting[1].callback(None)
    assert not world.endpoint.pumps


def test_a_function_that_fails_is_logged_and_asked_again(world: LoginWorld, failures: list[Any]) -> None:
    found: list[Any] = [ZeroDivisionError("no"), OSError(2, "No such file", "token"), Refused(403, "not you"), "alice"]

    def login() -> dict[str, str]:
        first = found.pop(0)
        if isinstance(first, Exception):
            raise first
        return {"token": first}

    client = world.client(login=login)
    connecting = client.connect(attempts=None)
    for _ in range(4):
        world.run(1.0)
    assert outcome(connecting) is None
    assert [reason.partition("/: ")[2] for reason in world.reasons if "failed" in reason] == [
        "login failed: ZeroDivisionError",
        "login failed: [Errno 2] No such file: 'token'",
        "login failed: not you",
    ]
    assert [type(failure) for failure in failures] == [ZeroDivisionError]


@pytest.mark.parametrize("found", [None, 7, "token", [], {}, [("token",)], {"token": 1}, {"token": None}])
def test_what_is_no_headers_is_not_sent_nor_shown(world: LoginWorld, found: Any) -> None:
    error = world.failure(world.client(login=lambda: found).connect())
    assert error.reason.endswith(f"login gave {type(found).__name__}, not pairs or a dict of header names and values")


@pytest.mark.parametrize("found", [{"token": SECRET + "\n"}, {SECRET + ":": "x"}, {"token": SECRET + "\ud800"}])
def test_headers_that_are_malformed_are_not_shown(world: LoginWorld, found: dict[str, str]) -> None:
    error = world.failure(world.client(login=lambda: found).connect())
    assert "is malformed" in error.reason
    assert SECRET not in error.reason


def test_a_login_asks_for_nothing_else(world: LoginWorld) -> None:
    error = world.failure(world.client(login=lambda: {"token": "alice", "Subscribe": "a"}).connect())
    assert error.reason.endswith("a login message must not have the header subscribe")


def test_a_function_may_end_the_client_for_good(world: LoginWorld) -> None:
    def login() -> dict[str, str]:
        raise ClientClosed("the user has logged out")

    client = world.client(login=login)
    error = world.failure(client.connect(attempts=None))
    assert (type(error), error.reason) == (ClientClosed, "the user has logged out")
    assert (client.state, world.reasons[-1]) == (State.CLOSED, "the user has logged out")
    world.pass_time(60)
    assert not world.clock.getDelayedCalls()


# What the server closes


@pytest.mark.parametrize("code", [1001, 1008, 1011, 1013, 4401, 4408])
def test_a_client_comes_back_with_a_new_login_after_most_codes(world: LoginWorld, code: int) -> None:
    client = world.connected(login=alice)
    (session,) = world.server.engine.sessions
    session.close(code, "away with you")
    world.run()
    assert client.state is State.WAITING
    world.run(1.0)
    assert (client.state, world.commands) == (State.CONNECTED, ["login", "login"])


def test_a_user_that_has_connected_elsewhere_does_not_come_back(world: LoginWorld) -> None:
    client = world.connected(login=alice)
    (session,) = world.server.engine.sessions
    session.close(4409, "logged in elsewhere")
    world.pass_time(5)
    assert (client.state, world.commands) == (State.CLOSED, ["login"])


def test_the_same_goes_for_a_login_that_is_not_even_answered(world: LoginWorld) -> None:
    world.names.waiting = Deferred()
    client = world.client(login=alice)
    connecting = client.connect(attempts=None)
    world.run()
    (lobby,) = world.server.assembly.gate.lobbies  # type: ignore[union-attr]
    lobby.close(4409, "logged in elsewhere")
    assert isinstance(world.failure(connecting), ClientClosed)
    world.pass_time(5)
    assert (client.state, len(world.endpoint.pumps)) == (State.CLOSED, 1)


def test_a_server_that_closes_instead_of_answering_is_a_failed_attempt(world: LoginWorld) -> None:
    world.names.waiting = Deferred()
    client = world.client(login=alice)
    connecting = client.connect()
    world.run()
    (lobby,) = world.server.assembly.gate.lobbies  # type: ignore[union-attr]
    lobby.close(1008, "too many failed logins")
    error = world.failure(connecting)
    assert isinstance(error, LoginFailed)
    assert (error.status, error.code) == (503, 1008)
    assert "(1008): too many failed logins" in error.reason


# The handshake


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_headers_of_the_handshake_may_be_fresh_each_time(clock: Clock) -> None:
    world = LoginWorld(clock, login_timeout=0.0)
    users = iter(["alice", "bob"])
    client = world.connected(headers=lambda: succeed(bearer(next(users))))
    assert world.users() == ["alice"]
    world.cut()
    world.run(1.0)
    assert (client.state, world.users()) == (State.CONNECTED, ["bob"])


@pytest.mark.parametrize("refused", [False, True])
def test_headers_of_a_handshake_are_kept_no_longer_than_it_takes(clock: Clock, refused: bool) -> None:
    class Endpoint:
        def __init__(self) -> None:
            self.connecting: Deferred[Any] = Deferred()

        def connect(self, factory: Any) -> Deferred[Any]:
            return self.connecting

    factory: Any = SimpleNamespace(headers={})
    inner: Any = Endpoint()
    headers = Credentials(lambda: bearer(SECRET), "headers", reactor=clock, timeout=1.0)
    connecting = HeadersEndpoint(inner, factory, headers).connect(factory)
    assert SECRET in repr(factory.headers)
    if refused:
        inner.connecting.errback(ConnectionRefusedError())
        assert connecting.addErrback(lambda failure: failure.trap(OSError)).called
    else:
        inner.connecting.callback(None)
    assert factory.headers == {}


def test_a_refused_handshake_is_a_failed_login_if_it_says_so(clock: Clock) -> None:
    world = LoginWorld(clock, login_timeout=0.0)
    basic = base64.b64encode(b"alice:wrong").decode()
    error = world.failure(world.client(headers={"Authorization": f"Basic {basic}"}).connect())
    assert (type(error), error.status) == (LoginFailed, 401)
    assert "401 Unauthorized: wrong user or password" in error.reason


def test_headers_that_cannot_be_asked_for_are_a_failed_attempt(world: LoginWorld) -> None:
    waiting: Deferred[dict[str, str]] = Deferred()
    client = world.client(headers=lambda: waiting, connect_timeout=5.0)
    connecting = client.connect()
    world.run(5.1)
    assert error_of(connecting).reason.endswith("headers gave nothing within 5 seconds")


@pytest.mark.parametrize("pair", [("A", f"{SECRET}\r\nB: c"), (f"{SECRET} b", "c"), ("", SECRET)])
def test_malformed_headers_of_the_handshake_are_neither_sent_nor_shown(pair: tuple[str, str]) -> None:
    with pytest.raises(LoginFailed, match="is malformed") as caught:
        http_headers([pair])
    assert SECRET not in str(caught.value)


def test_a_login_after_a_handshake_tells_when_it_ends(clock: Clock) -> None:
    world = LoginWorld(clock, login_timeout=0.0)
    client = world.connected(headers=lambda: bearer("alice:60"), login=shortly)
    assert (client.user, client.expires, world.users()) == ("alice", 60.0, ["alice"])


@pytest.mark.parametrize("login", [lambda: {"token": "bob"}, lambda: {"user": "alice", "password": "wrong"}])
def test_a_login_that_is_not_required_may_be_refused(clock: Clock, login: Any) -> None:
    world = LoginWorld(clock, login_timeout=0.0)
    client = world.connected(headers=lambda: bearer("alice"), login=login, login_required=False)
    assert (client.user, world.users(), world.errors) == (None, ["alice"], [])
    assert world.result(client.request("echo", body="x")).body == b"x"


def test_a_login_that_is_not_required_may_be_unknown_to_the_server(clock: Clock) -> None:
    world = World(clock)
    client = world.connected(login=alice, login_required=False)
    assert world.result(client.request("echo", body="x")).body == b"x"


# Renewal


def test_a_login_is_renewed_when_half_of_it_has_gone(world: LoginWorld) -> None:
    client = world.connected(login=shortly)
    world.run(29.0)
    assert world.commands == ["login"]
    world.run(1.1)
    assert world.commands == ["login", "login"]
    assert client.expires == pytest.approx(90, abs=1)


def test_the_connection_goes_on_for_as_long_as_it_is_renewed(world: LoginWorld) -> None:
    client = world.connected(login=shortly)
    world.pass_time(600)
    assert (world.states, len(world.endpoint.pumps)) == ([State.CONNECTING, State.CONNECTED], 1)
    assert 18 <= world.commands.count("login") <= 22
    assert world.result(client.request("echo", body="x")).body == b"x"
    assert world.errors == []


@pytest.mark.parametrize(("seconds", "pause"), [(1, 1.0), (3, 1.5), (3_600, 1_800.0), (10_000_000, 86_400.0)])
def test_the_pause_before_a_renewal_is_bounded(world: LoginWorld, seconds: int, pause: float) -> None:
    world.connected(login=lambda: {"token": f"alice:{seconds}"})
    (renewal,) = [call for call in world.clock.getDelayedCalls() if call.func.__qualname__ == "Renewal._begin"]
    assert renewal.getTime() == pause


def test_clocks_that_disagree_do_not_lead_to_a_flood(world: LoginWorld) -> None:
    world.connected(login=shortly, now=lambda: 1e9)
    world.pass_time(300)
    assert 8 <= world.commands.count("login") <= 12


def test_a_failed_renewal_is_told_and_tried_again(world: LoginWorld) -> None:
    client = world.connected(login=shortly)
    world.names.refusal = Refused(503, "busy")
    world.pass_time(30)
    assert [(type(error), error.status) for error in world.errors] == [(LoginFailed, 503)]
    assert world.errors[0].reason == "the login was not renewed: busy"
    world.names.refusal = None
    world.pass_time(2)
    assert client.expires == pytest.approx(91, abs=2)
    world.pass_time(60)
    assert world.states == [State.CONNECTING, State.CONNECTED]


def test_a_connection_whose_renewals_are_refused_lives_until_it_expires(world: LoginWorld) -> None:
    """A server would close it after three."""
    world.connected(login=lambda: {"token": "alice:600"})
    world.names.refusal = Refused(401, "unknown key")
    world.pass_time(590)
    assert [error.status for error in world.errors] == [401, 401]
    assert world.states == [State.CONNECTING, State.CONNECTED]
    world.pass_time(11)
    assert any("(4401)" in reason for reason in world.reasons)


def test_refusals_of_one_connection_are_no_matter_to_the_next(world: LoginWorld) -> None:
    client = world.connected(login=shortly)
    world.names.refusal = Refused(401, "unknown key")
    world.pass_time(50)
    world.names.refusal = None
    world.cut()
    world.run(1.0)
    before = client.expires
    world.names.refusal = Refused(401, "unknown key")
    world.pass_time(31)
    world.names.refusal = None
    world.pass_time(16)
    assert client.expires > before  # type: ignore[operator]


def test_what_is_not_renewed_ends_and_begins_anew(world: LoginWorld) -> None:
    client = world.connected(login=shortly)
    client.subscribe("room.a")
    world.names.refusal = Refused(503, "busy")
    world.pass_time(62)
    assert State.WAITING in world.states
    assert any("(4401): credentials have expired" in reason for reason in world.reasons)
    world.names.refusal = None
    world.pass_time(2)
    assert (client.state, client.user) == (State.CONNECTED, "alice")
    assert [session.channels for session in world.server.engine.sessions] == [frozenset({"room.a"})]


def test_a_renewal_that_is_not_answered_has_a_time_limit(world: LoginWorld) -> None:
    world.connected(login=shortly, connect_timeout=5.0)
    world.names.waiting = Deferred()
    world.run(30.1)
    world.run(5.1)
    assert [error.status for error in world.errors] == [504]


def test_another_user_takes_no_connection_over(world: LoginWorld) -> None:
    users = iter(["alice:60", "bob:60", "alice:60"])
    client = world.connected(login=lambda: {"token": next(users)})
    world.run(30.1)
    assert ([error.status for error in world.errors], client.user) == ([409], "alice")


def test_a_renewal_may_end_the_client_for_good(world: LoginWorld) -> None:
    asked: list[None] = []

    def login() -> dict[str, str]:
        asked.append(None)
        if len(asked) > 1:
            raise ClientClosed("the user has logged out")
        return shortly()

    client = world.connected(login=login)
    world.run(30.1)
    world.pass_time(5)
    assert (client.state, world.reasons[-1]) == (State.CLOSED, "the user has logged out")
    assert not world.users()


def test_a_renewal_is_not_sent_on_the_next_connection(world: LoginWorld) -> None:
    given: list[Deferred[dict[str, str]]] = []

    def login() -> Deferred[dict[str, str]]:
        given.append(Deferred())
        return given[-1]

    client = world.client(login=login)
    connecting = client.connect()
    given[0].callback(shortly())
    world.result(connecting)
    world.run(30.1)
    assert len(given) == 2
    world.cut()
    assert given[1].called, "nobody waits for it"
    world.run(1.0)
    given[2].callback(shortly())
    world.run()
    assert (client.state, world.commands, world.errors) == (State.CONNECTED, ["login", "login"], [])


# The end


def test_closing_while_credentials_are_awaited_leaves_nothing_behind(world: LoginWorld) -> None:
    waiting: Deferred[dict[str, str]] = Deferred()
    client = world.client(login=lambda: waiting)
    connecting = client.connect()
    world.result(client.close())
    assert isinstance(error_of(connecting), ClientClosed)
    assert waiting.called
    assert not world.clock.getDelayedCalls()


def test_closing_while_the_answer_is_awaited_leaves_nothing_behind(world: LoginWorld) -> None:
    world.names.waiting = Deferred()
    client = world.client(login=alice)
    connecting = client.connect()
    world.run()
    world.result(client.close())
    world.run()
    assert isinstance(error_of(connecting), ClientClosed)
    assert not world.server.assembly.gate.lobbies  # type: ignore[union-attr]
    assert not world.clock.getDelayedCalls()


def test_a_connection_that_ends_takes_its_renewal_along(world: LoginWorld) -> None:
    client = world.connected(login=shortly)
    world.cut()
    world.result(client.close())
    assert not world.clock.getDelayedCalls()


def test_closing_while_a_login_is_renewed_leaves_nothing_behind(world: LoginWorld) -> None:
    client = world.connected(login=shortly)
    world.names.waiting = Deferred()
    world.run(30.1)
    world.result(client.close())
    assert (client.state, world.errors) == (State.CLOSED, [])
    assert not world.clock.getDelayedCalls()


# What comes before the answer


class Hand:
    """A server written by hand: the client's login is not answered until it is told to."""

    def __init__(self, world: LoginWorld, **options: Any) -> None:
        world.names.waiting = Deferred()
        self.world = world
        self.client = world.client(login=alice, **options)
        self.connecting = self.client.connect()
        world.run()
        self.connection = world.endpoint.pumps[0].client

    def send(self, *messages: Message) -> None:
        """Let the client read all of *messages* at once."""
        self.connection.dataReceived(b"".join(frame(message.raw) for message in messages))


ANSWER = (Message("login", {"user": "alice"}), Message("receipt", {"receipt-id": "login"}))


def frame(payload: bytes) -> bytes:
    size = len(payload)
    return (bytes([0x81, size]) if size < 126 else b"\x81\x7e" + size.to_bytes(2, "big")) + payload


def test_messages_around_the_answer_arrive_in_order(world: LoginWorld) -> None:
    hand = Hand(world)
    hand.send(*(Message("news", body=str(number)) for number in range(3)), *ANSWER, Message("news", body="3"))
    assert [message.text for message in world.others] == ["0", "1", "2", "3"]
    assert hand.client._uplink.account is not None


def test_a_published_message_is_no_answer(world: LoginWorld) -> None:
    hand = Hand(world)
    hand.send(Message("login", {"user": "eve", "publish": "a"}))
    hand.send(Message("receipt", {"receipt-id": "login", "publish": "a"}))
    world.run()
    assert not hand.connecting.called
    hand.send(*ANSWER)
    world.run()
    assert hand.client.user == "alice"


@pytest.mark.parametrize(("number", "size"), [(1_001, 0), (3, 40_000)])
def test_too_much_before_the_answer_ends_the_attempt(world: LoginWorld, number: int, size: int) -> None:
    hand = Hand(world, max_message_size=100_000)
    for _ in range(number):
        hand.send(Message("news", body="x" * size))
    assert "too many messages came before the answer" in world.failure(hand.connecting).reason
    assert hand.client.state is State.CLOSED
    assert not world.clock.getDelayedCalls()


def test_a_malformed_answer_ends_the_attempt(world: LoginWorld) -> None:
    hand = Hand(world)
    hand.connection.dataReceived(frame(b"nonsense"))
    world.run(2.1)
    assert "a malformed message came instead" in world.failure(hand.connecting).reason


def test_the_error_of_something_else_is_no_answer(world: LoginWorld) -> None:
    hand = Hand(world)
    hand.send(Message("error", {"status": "400", "reason": "x"}), *ANSWER)
    world.run()
    assert ([error.status for error in world.errors], hand.client.user) == ([400], "alice")


@pytest.mark.parametrize("expires", ["", "x", "-1", "1e9", "٣", "9" * 13])
def test_a_time_that_is_none_is_not_believed(expires: str) -> None:
    assert read_account(Message("login", {"user": "alice", "expires": expires})).expires is None


# Secrets, and whoever is asked for them


@pytest.fixture
def events() -> Iterator[list[dict[str, Any]]]:
    """Everything that is logged, at any level."""
    found: list[dict[str, Any]] = []
    globalLogPublisher.addObserver(found.append)
    yield found
    globalLogPublisher.removeObserver(found.append)


@pytest.mark.parametrize("wrong", ["", "wrong"])
def test_secrets_are_nowhere_to_be_seen(
    world: LoginWorld, wrong: str, events: list[dict[str, Any]], failures: list[Any]
) -> None:
    count = 0

    def login() -> dict[str, str]:
        nonlocal count
        count += 1
        if count == 3:
            raise ValueError("broken")
        return {"user": "alice", "password": SECRET + wrong}

    client = world.client(login=login, headers=lambda: bearer(SECRET))
    connecting = client.connect(attempts=None)
    for _ in range(5):
        world.run(1.0)
        world.cut()
    world.result(client.close())
    connecting.addErrback(lambda _: None)
    assert len(failures) == 1
    texts = [formatEvent(event) or "" for event in events]
    texts += [event["log_failure"].getTraceback() for event in events if "log_failure" in event]
    shown = [repr(value) for value in vars(client).values()] + [repr(client), *world.reasons]
    shown += [repr(value) for event in events for value in event.values()]
    assert any("login" in text for text in texts)
    assert not [text for text in texts + shown + [str(error) for error in world.errors] if SECRET in text]


def test_what_is_not_awaited_any_longer_is_cancelled(clock: Clock) -> None:
    waiting: Deferred[dict[str, str]] = Deferred()
    fetched = Credentials(lambda: waiting, "login", reactor=clock, timeout=1.0).fetch()
    fetched.cancel()
    assert isinstance(error_of(fetched), CancelledError)
    assert waiting.called
    assert not clock.getDelayedCalls()


def test_what_asks_for_credentials_shows_none_of_them(clock: Clock) -> None:
    asked = Credentials(lambda: {"token": SECRET}, "login", reactor=clock, timeout=1.0)
    fetched = asked.fetch()
    assert outcome(fetched) == [("token", SECRET)]
    assert SECRET not in repr(asked)
    assert issubclass(LoginFailed, LHTTPError)
