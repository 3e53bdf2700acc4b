"""Programs and the ``lhttp`` command log in, and stay so: a real server, real clients, tokens that last seconds."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from token_makers import SECRET, make_token

from integration._client import PROLOGUE, Terminal, lhttp, run_program, start_lhttp, url_of
from integration._docs import ROOT, Process, free_port
from integration._server import TIME_LIMIT, ServerProcess, on_one_of_these_clocks, script, wait_until

pytestmark = pytest.mark.once

PASSWORD = "s3same"
LOBBY = ("--login-timeout", "60")

Serve = Callable[..., ServerProcess]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start servers that ask who their clients are; a secret in a log fails the test."""
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "passwords").write_text(f"alice:{PASSWORD}\n")
    servers: list[ServerProcess] = []

    def start(*arguments: str, **options: Any) -> ServerProcess:
        servers.append(
            ServerProcess("--jwt-key-file", "secret", "--auth", "file:passwords", *arguments, cwd=tmp_path, **options)
        )
        return servers[-1]

    yield start
    for server in servers:
        server.check()
        assert "eyJ" not in server.log
        assert PASSWORD not in server.log


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start the command in the background; it is ended with the test, and a secret in its output fails it."""
    started: list[Process] = []

    def start_command(*arguments: object) -> Process:
        started.append(start_lhttp(tmp_path, *arguments))
        return started[-1]

    yield start_command
    for process in started:
        process.stop()
        assert "eyJ" not in process.output
        assert PASSWORD not in process.output


def write_token(path: Path, seconds: float = 600, **claims: Any) -> Path:
    """Put a token of alice into *path*, in one step, as whoever renews tokens should."""
    fresh = path.with_suffix(".new")
    fresh.write_text(make_token(exp=int(time.time() + seconds), **claims) + "\n")
    fresh.replace(path)
    return path


@pytest.fixture
def token(tmp_path: Path) -> Path:
    return write_token(tmp_path / "token")


@pytest.fixture
def password(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text(PASSWORD + "\n")
    return path


def at(port: int) -> tuple[str, str]:
    """Return the options of a server that listens on *port*."""
    return ("--port", f"tcp:{port}:interface=127.0.0.1")


# Programs


def test_a_token_that_lasts_seconds_is_renewed_for_as_long_as_the_connection_lives(serve: Serve) -> None:
    program = """
import time
import jwt

async def main(reactor, url, secret, seconds):
    count = 0

    async def login():
        nonlocal count
        count += 1
        await deferLater(reactor, 0.01)
        claims = {"sub": "alice", "exp": int(time.time() + float(seconds))}
        return {"token": jwt.encode(claims, secret, algorithm="HS256")}

    client = Client(url, reactor=reactor, login=login, on_state=states)
    await client.connect()
    subscription = await client.subscribe("room.a")
    first = client.expires
    await deferLater(reactor, 1.4 * float(seconds))
    await client.publish("room.a", "chat", body="still here")
    print((await subscription.next()).text, client.user, client.expires > first, count > 2)
    await client.close()
"""
    url = url_of(serve(*LOBBY).port)

    def attempt(seconds: int) -> None:
        lines = run_program(program, url, SECRET.decode(), str(seconds))
        assert lines == ["connecting", "connected", "still here alice True True", "closing", "closed"]

    on_one_of_these_clocks(attempt)


@pytest.mark.parametrize(
    ("options", "how"),
    [
        (LOBBY, "login=lambda: {'token': Path(path).read_text().strip()}"),
        ((), "headers=lambda: {'Authorization': 'Bearer ' + Path(path).read_text().strip()}"),
    ],
    ids=["login message", "handshake"],
)
def test_a_client_comes_back_with_a_fresh_token_when_the_server_is_killed(
    serve: Serve, tmp_path: Path, token: Path, options: tuple[str, ...], how: str
) -> None:
    port = free_port()
    program = (
        PROLOGUE
        + f"""
async def main(reactor, url, path):
    client = Client(url, reactor=reactor, on_state=states, retry_policy=lambda attempt: 0.1, {how})
    await client.connect()
    async for message in client.subscribe("room.a"):
        print(message.text, flush=True)
        if message.text == "end":
            break
    await client.close()
react(main, sys.argv[1:])
"""
    )
    first = serve(*options, listen=at(port))
    with Process([sys.executable, "-c", program, url_of(port), str(token)], tmp_path) as client:
        client.wait_for_output("connected\n")
        first.crash()
        client.wait_for_output("waiting\n")
        (tmp_path / "secret").write_bytes(b"another secret of thirty-two bytes")
        write_token(token, key=b"another secret of thirty-two bytes")
        serve(*options, listen=at(port))
        for _ in client.moments("connect again"):
            if client.output.count("connected\n") == 2:
                break
        assert lhttp("publish", "room.a", "end", "--url", url_of(port), "--token-file", token).returncode == 0
        wait_until(lambda: client.output.endswith("end\nclosing\nclosed\n"), client.output)


def test_wrong_credentials_fail_connect(serve: Serve) -> None:
    program = """
async def main(reactor, url):
    for wrong in ({"user": "alice", "password": "wrong"}, {"token": "x.y.z"}, {"color": "red"}):
        client = Client(url, reactor=reactor, login=lambda: wrong)
        try:
            await client.connect()
        except LoginFailed as error:
            print(error.status, error.reason.partition(": ")[2], client.state.value)
"""
    lines = run_program(program, url_of(serve(*LOBBY).port))
    assert [line.split(" ")[0] for line in lines] == ["401"] * 3
    assert [line.split(" ")[-1] for line in lines] == ["closed"] * 3
    assert lines[0] == "401 login refused: wrong user or password closed"


# The command


@pytest.fixture(params=[(), LOBBY], ids=["handshake", "lobby"])
def url(request: pytest.FixtureRequest, serve: Serve) -> str:
    """The URL of a server, of each kind."""
    return url_of(serve(*request.param, "--processor", f"{ROOT}/examples/upload.py:upload").port)


def test_every_subcommand_logs_in_with_a_token(url: str, token: Path) -> None:
    login = ("--url", url, "--token-file", token)
    assert lhttp("publish", "a", "x", *login).stderr == ""
    assert lhttp("publish", "a", "--lines", *login, input="1\n2\n").returncode == 0
    assert lhttp("subscribe", "a", "--timeout", "0.1", *login).returncode == 0
    assert lhttp("upload", token, *login).stdout.startswith("token ")
    assert lhttp("chat", *login, "--name", "jack", input="hello\n").returncode == 0
    done = lhttp("bench", *login, "--duration", "0.2", "--rate", "50", "--json")
    assert (done.returncode, json.loads(done.stdout)["lost"]) == (0, 0)


def test_a_password_comes_from_its_file(url: str, password: Path) -> None:
    login = ("--url", url, "--user", "alice", "--password-file", password)
    assert lhttp("publish", "a", "x", *login).returncode == 0
    password.write_text("wrong\n")
    refused = lhttp("publish", "a", "x", *login)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "wrong user or password; log in with a valid token" in refused.stderr


def test_without_a_login_one_is_told_how(url: str) -> None:
    refused = lhttp("publish", "a", "x", "--url", url)
    assert refused.returncode == 1
    assert "--token-file, or with --user" in refused.stderr
    assert "log in" in refused.stderr.partition(";")[0]


def test_a_password_is_asked_for_on_the_terminal_and_not_shown(serve: Serve) -> None:
    url = url_of(serve().port)
    with Terminal("publish", "a", "x", "--url", url, "--user", "alice") as terminal:
        terminal.wait_for("Password of alice: ")
        terminal.type(PASSWORD + "\r")
        assert terminal.wait_for_end() == 0
        assert PASSWORD not in terminal.raw


def test_a_chat_goes_on_with_the_password_that_was_asked_for(serve: Serve) -> None:
    port = free_port()
    first = serve(listen=at(port))
    with Terminal("chat", url_of(port), "--user", "alice", "--name", "jack") as terminal:
        terminal.wait_for("Password of alice: ")
        terminal.type(PASSWORD + "\r")
        terminal.wait_for("jack>")
        first.crash()
        terminal.wait_for("trying to connect again")
        serve(listen=at(port))
        terminal.wait_for("connected again")
        terminal.type("hello\r")
        terminal.wait_for(" jack: hello")
        terminal.type("/quit\r")
        assert terminal.wait_for_end() == 0
        assert PASSWORD not in terminal.raw


def test_without_a_terminal_there_must_be_a_file(serve: Serve) -> None:
    done = subprocess.run(
        [script("lhttp"), "publish", "a", "x", "--url", url_of(serve().port), "--user", "alice"],
        capture_output=True,
        text=True,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        timeout=6 * TIME_LIMIT,
        check=False,
    )
    assert done.returncode == 2
    assert "--password-file" in done.stderr


def test_a_subscription_is_renewed_from_the_file(
    serve: Serve, start: Callable[..., Process], tmp_path: Path, token: Path
) -> None:
    url = url_of(serve().port)

    def attempt(seconds: int) -> None:
        short = write_token(tmp_path / "short", seconds)
        listening = start("subscribe", "a", "--url", url, "--token-file", short, "--verbose")
        listening.wait_for_output(": connected to")
        assert " as alice" in listening.output
        write_token(short, 600)
        time.sleep(seconds + 0.5)
        assert lhttp("publish", "a", "after", "--url", url, "--token-file", token).returncode == 0
        listening.wait_for_output("a\tafter\n")
        assert "trying again" not in listening.output

    on_one_of_these_clocks(attempt)


def test_a_subscription_whose_token_runs_out_comes_back_with_the_next(
    serve: Serve, start: Callable[..., Process], tmp_path: Path
) -> None:
    url = url_of(serve().port)

    def attempt(seconds: int) -> None:
        short = write_token(tmp_path / "short", seconds)
        listening = start("subscribe", "a", "--url", url, "--token-file", short)
        listening.wait_for_output("(4401): credentials have expired; trying again\n")
        listening.wait_for_output("cannot log in to")
        write_token(short)
        listening.wait_for_output("lhttp: connected again\n")

    on_one_of_these_clocks(attempt)


def test_a_user_that_has_connected_elsewhere_is_told_so(
    serve: Serve, start: Callable[..., Process], password: Path
) -> None:
    url = url_of(serve("--single-login").port)
    login = ("--url", url, "--user", "alice", "--password-file", password)
    listening = start("subscribe", "a", "--verbose", *login)
    listening.wait_for_output(": connected to")
    assert lhttp("publish", "a", "x", *login).returncode == 0
    assert listening._process.wait(TIME_LIMIT) == 1
    assert "(4409): logged in elsewhere" in listening.output.splitlines()[-1]


def test_a_server_that_asks_nobody_takes_a_login_as_any_client(tmp_path: Path, token: Path) -> None:
    server = ServerProcess(cwd=tmp_path)
    try:
        assert lhttp("publish", "a", "x", "--url", url_of(server.port), "--token-file", token).returncode == 0
    finally:
        server.check()
