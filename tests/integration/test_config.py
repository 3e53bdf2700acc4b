"""The configuration file, its channel rules, and other rules on SIGHUP, as operator and clients meet them."""

from __future__ import annotations

import base64
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from integration._server import (
    PROCESSORS,
    TIME_LIMIT,
    ServerProcess,
    http_request,
    message,
    open_client,
    script,
)

RULES = """
[[channel]]
match = "news.>"
publish = "nobody"

[[channel]]
match = "room.*"
max_size = 100
max_rate = 2
echo = false

[[channel]]
match = "closed"
subscribe = "nobody"
"""


def write(directory: Path, text: str) -> None:
    (directory / "lhttp.toml").write_text(text, "utf-8")


def error(status: int, reason: str) -> str:
    return message("error", {"status": str(status), "reason": reason})


def run(directory: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [script(command[0]), *command[1:]],
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=TIME_LIMIT,
        check=False,
    )


def test_server_does_what_the_file_says(serve: Callable[..., ServerProcess], tmp_path: Path) -> None:
    write(tmp_path, f'listen = "tcp:0:interface=127.0.0.1"\nprocessor = "{PROCESSORS}:echo"\nmax-message-size = 9000\n')
    server = serve("--config", "lhttp.toml", listen=())
    server.wait_for_log("processors: echo")
    assert http_request(server.port, "POST", "/publish", message("chat", {"publish": "a"}, "x" * 9000))[0] == 413


def test_environment_names_the_file_and_wins_over_it(serve: Callable[..., ServerProcess], tmp_path: Path) -> None:
    write(tmp_path, "max-message-size = 9000\n")
    server = serve(environment={"LHTTP_CONFIG": "lhttp.toml", "LHTTP_MAX_MESSAGE_SIZE": "10000"})
    assert http_request(server.port, "POST", "/publish", message("chat", {"publish": "a"}, "x" * 9000))[0] == 200


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('\nmax-conections = "5"\n', "lhttp.toml:2: there is no option max-conections; did you mean max-connections?"),
        ('\n\nport = "eighty"\n', "lhttp.toml:3: --port 'eighty': write a number, or an endpoint such as tcp:8081"),
    ],
)
def test_server_does_not_start_with_a_bad_file_and_says_where(text: str, problem: str, tmp_path: Path) -> None:
    write(tmp_path, text)
    done = run(tmp_path, "twistd", "-n", "--pidfile=", "lhttp", "--config", "lhttp.toml")
    assert done.returncode == 1
    assert problem in done.stdout
    assert "Traceback" not in done.stdout
    done = run(tmp_path, "lhttp", "check-config", "lhttp.toml")
    assert (done.returncode, done.stdout.startswith(problem)) == (1, True)


def test_clients_are_held_to_the_rules(serve: Callable[..., ServerProcess], tmp_path: Path) -> None:
    write(tmp_path, RULES)
    server = serve("--config", "lhttp.toml")
    server.wait_for_log("channel rules: 3")
    with open_client(server.port) as client, open_client(server.port) as other:
        for each in (client, other):
            each.send(message("chat", {"subscribe": "news.a room.a free", "receipt": "1"}))
            assert each.recv(TIME_LIMIT) == message("receipt", {"receipt-id": "1"})
        client.send(message("chat", {"publish": "news.a"}, "x"))
        assert client.recv(TIME_LIMIT) == error(403, "not allowed to publish to channel 'news.a'")
        client.send(message("chat", {"subscribe": "closed"}))
        assert client.recv(TIME_LIMIT) == error(403, "not allowed to subscribe to channel 'closed'")
        large = message("chat", {"publish": "room.a"}, "x" * 100)
        client.send(large)
        reason = f"message of {len(large)} bytes is larger than the 100 that channel 'room.a' takes"
        assert client.recv(TIME_LIMIT) == error(413, reason)
        for number in range(3):
            client.send(message("chat", {"publish": "room.a"}, str(number)))
        assert client.recv(TIME_LIMIT) == error(429, "channel 'room.a' allows 2 messages a second from a connection")
        client.send(message("chat", {"publish": "free"}, "3"))
        assert client.recv(TIME_LIMIT) == message("chat", {"publish": "free"}, "3")
        assert [str(other.recv(TIME_LIMIT))[-1] for _ in range(3)] == ["0", "1", "3"]
        status, _, _ = http_request(server.port, "POST", "/publish", message("chat", {"publish": "news.a"}, "4"))
        assert status == 200
        assert str(other.recv(TIME_LIMIT))[-1] == "4"


def test_other_rules_are_in_force_after_sighup_unless_they_are_wrong(
    serve: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    write(tmp_path, RULES)
    server = serve("--config", "lhttp.toml")
    news = message("chat", {"publish": "news.a", "receipt": "1"})
    with open_client(server.port) as client:
        write(tmp_path, '[[channel]]\nmatch = "other"\necho = "no"\n')
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("lhttp.toml:3: echo: it is true or false")
        server.wait_for_log("not applied, the old channel rules stay active")
        client.send(news)
        assert client.recv(TIME_LIMIT) == (
            "LHTTP/1.0 error\r\nstatus:403\r\nreason:not allowed to publish to channel 'news.a'\r\nreceipt-id:1\r\n\r\n"
        )
        write(tmp_path, 'port = 5\n[[channel]]\nmatch = "other"\nsubscribe = "nobody"\n')
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("lhttp.toml: active channel rules: 1")
        server.wait_for_log("lhttp.toml: restart the server to apply these options: port")
        client.send(news)
        assert client.recv(TIME_LIMIT) == message("receipt", {"receipt-id": "1"})
        client.send(message("chat", {"subscribe": "other"}))
        assert client.recv(TIME_LIMIT) == error(403, "not allowed to subscribe to channel 'other'")


def test_a_channel_of_a_user_is_for_that_user_alone(serve: Callable[..., ServerProcess], tmp_path: Path) -> None:
    (tmp_path / "passwords").write_text("jack:sesame\n", "utf-8")
    rule = '[[channel]]\nmatch = "user.{user}"\nsubscribe = "{user}"\npublish = "authenticated"\n'
    write(tmp_path, f'auth = "file:passwords"\nallow-anonymous = true\n{rule}')
    server = serve("--config", "lhttp.toml")
    credentials = {"Authorization": "Basic " + base64.b64encode(b"jack:sesame").decode()}
    with open_client(server.port, additional_headers=credentials) as jack, open_client(server.port) as stranger:
        jack.send(message("chat", {"subscribe": "user.jack"}))
        jack.send(message("chat", {"subscribe": "user.mike"}))
        assert jack.recv(TIME_LIMIT) == error(403, "not allowed to subscribe to channel 'user.mike'")
        stranger.send(message("chat", {"subscribe": "user.jack"}))
        reason = "not allowed to subscribe to channel 'user.jack': log in first"
        assert stranger.recv(TIME_LIMIT) == error(403, reason)
        jack.send(message("chat", {"publish": "user.jack"}, "note to self"))
        assert jack.recv(TIME_LIMIT) == message("chat", {"publish": "user.jack"}, "note to self")


def test_whoever_loses_a_right_on_sighup_loses_the_subscription(
    serve: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    (tmp_path / "passwords").write_text("jack:sesame\n", "utf-8")
    settings = 'auth = "file:passwords"\nallow-anonymous = true\n'
    rule = '[[channel]]\nmatch = "private.*"\nwildcards = true\n'
    write(tmp_path, settings + rule)
    server = serve("--config", "lhttp.toml")
    credentials = {"Authorization": "Basic " + base64.b64encode(b"jack:sesame").decode()}
    with (
        open_client(server.port, additional_headers=credentials) as jack,
        open_client(server.port) as stranger,
        open_client(server.port) as gatherer,
    ):
        for client, channel in ((jack, "private.a"), (stranger, "private.a"), (gatherer, "private.*")):
            client.send(message("chat", {"subscribe": f"{channel} free", "receipt": "1"}))
            assert client.recv(TIME_LIMIT) == message("receipt", {"receipt-id": "1"})
        write(tmp_path, settings + rule + 'subscribe = "authenticated"\n')
        server.process.send_signal(signal.SIGHUP)
        reasons = {
            "private.a": "not allowed to subscribe to channel 'private.a': log in first",
            "private.*": "not allowed to subscribe to all of 'private.*'",
        }
        for client, channel in ((stranger, "private.a"), (gatherer, "private.*")):
            headers = {"status": "403", "reason": reasons[channel], "unsubscribed": channel}
            assert client.recv(TIME_LIMIT) == message("error", headers)
        server.wait_for_log("subscriptions revoked by new channel rules: 2")
        for number, channel in enumerate(("private.a", "free")):
            published = message("chat", {"publish": channel}, str(number))
            assert http_request(server.port, "POST", "/publish", published)[0] == 200
        assert [str(jack.recv(TIME_LIMIT))[-1] for _ in range(2)] == ["0", "1"]
        assert [str(client.recv(TIME_LIMIT))[-1] for client in (stranger, gatherer)] == ["1", "1"]
