"""The admin side of a real server: its listener, its keys, and what it tells strangers."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from integration._server import TIME_LIMIT, ServerProcess, handshake_head, http_request, script

SECRET = "operator-secret-0123456789"
KEY = """
[admin]
listen = "tcp:0:interface=127.0.0.1"

[admin.keys.operator]
secret_file = "operator.key"
methods = ["*"]
"""


def prepare(directory: Path, text: str = KEY, secret: str = SECRET) -> None:
    (directory / "lhttp.toml").write_text(text, "utf-8")
    path = directory / "operator.key"
    path.write_text(secret + "\n", "utf-8")
    path.chmod(0o600)


def admin_port(server: ServerProcess) -> int:
    server.wait_for_log("admin side on")
    found = re.search(r"admin side on 127\.0\.0\.1:(\d+)", server.log)
    assert found is not None
    return int(found[1])


def ask(
    port: int, method: str = "GET", path: str = "/nothing", secret: str | None = SECRET, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    told = {} if secret is None else {"Authorization": f"Bearer {secret}"}
    return http_request(
        port, method, path, None, told | {name.replace("_", "-"): found for name, found in headers.items()}
    )


@pytest.fixture
def server(serve: Callable[..., ServerProcess], tmp_path: Path) -> ServerProcess:
    prepare(tmp_path)
    return serve("--config", "lhttp.toml")


def problem(answer: tuple[int, dict[str, str], bytes]) -> Any:
    assert answer[1]["content-type"] == "application/problem+json"
    told = json.loads(answer[2])
    assert told["status"] == answer[0]
    return told


def test_strangers_learn_only_that_it_lives(server: ServerProcess) -> None:
    port = admin_port(server)
    status, headers, body = ask(port, path="/live", secret=None)
    assert (status, json.loads(body)) == (200, {"status": "live"})
    assert "server" not in headers
    for path in ("/nothing", "/metrics", "/api/info", "/live/", "/%6cive"):
        answer = ask(port, path=path, secret=None)
        if path in ("/live/", "/%6cive"):
            assert answer[0] == 404
        else:
            assert answer[0] == 401
            assert "key" in problem(answer)["detail"]
    assert ask(port, path="/nothing")[0] == 404
    assert ask(port, path="/nothing", secret="wrong")[0] == 401
    assert ask(port, "DELETE", "/live")[0] == 405


def test_nothing_of_it_is_on_the_public_port(server: ServerProcess) -> None:
    admin_port(server)
    for path in ("/api/info", "/metrics", "/api/openapi.json"):
        assert ask(server.port, path=path)[0] == 426  # the WebSocket is there, as anywhere


def test_no_websocket_is_on_the_admin_side(server: ServerProcess) -> None:
    with socket.create_connection(("127.0.0.1", admin_port(server)), TIME_LIMIT) as sock:
        sock.sendall(handshake_head(1))
        assert sock.recv(4096).startswith(b"HTTP/1.1 200 ")  # the page of the dashboard, and no upgrade


def test_web_pages_of_others_stay_outside(server: ServerProcess) -> None:
    port = admin_port(server)
    assert ask(port, path="/live", Host="rebound.example")[0] == 403
    assert ask(port, path="/live", Origin=f"http://127.0.0.1:{server.port}")[0] == 403
    assert ask(port, path="/live", Sec_Fetch_Site="cross-site")[0] == 403
    assert ask(port, path="/live", Origin=f"http://127.0.0.1:{port}", Sec_Fetch_Site="same-origin")[0] == 200


def test_what_is_too_large_is_a_problem_too(server: ServerProcess) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", admin_port(server), timeout=TIME_LIMIT)
    try:
        connection.putrequest("POST", "/nothing")
        connection.putheader("Content-Length", str(2**40))
        connection.endheaders()
        response = connection.getresponse()
        assert response.status == 413
        assert response.headers["content-type"] == "application/problem+json"
        assert json.loads(response.read())["status"] == 413
    finally:
        connection.close()


@pytest.mark.parametrize(("headers", "status"), [
    ({}, 401),
    ({"Authorization": "Bearer wrong"}, 401),
    ({"Authorization": f"Bearer {SECRET}", "Origin": "http://evil.example"}, 403),
    ({"Authorization": f"Bearer {SECRET}", "Host": "rebound.example"}, 403),
])  # fmt: skip
@pytest.mark.parametrize("length", ["Content-Length: 2000000", "Transfer-Encoding: chunked"])
def test_no_body_of_a_stranger_is_waited_for(
    server: ServerProcess, headers: dict[str, str], status: int, length: str
) -> None:
    port = admin_port(server)
    lines = {"Host": "localhost"} | headers
    head = "\r\n".join(["POST /api/batch HTTP/1.1", *(f"{name}: {text}" for name, text in lines.items()), length])
    with socket.create_connection(("127.0.0.1", port), timeout=TIME_LIMIT) as sock:
        sock.sendall(head.encode("ascii") + b"\r\n\r\n")
        response = http.client.HTTPResponse(sock)
        response.begin()
        assert response.status == status
        assert response.headers["content-type"] == "application/problem+json"
        assert (response.headers["www-authenticate"] is not None) == (status == 401)
        assert json.loads(response.read())["status"] == status


def test_a_key_in_a_pipe_is_refused(tmp_path: Path) -> None:
    prepare(tmp_path)
    (tmp_path / "operator.key").unlink()
    os.mkfifo(tmp_path / "operator.key")
    assert "is no regular file" in refused(tmp_path, "--config", "lhttp.toml")


def test_another_key_is_put_in_force_by_sighup(server: ServerProcess, tmp_path: Path) -> None:
    port = admin_port(server)
    (tmp_path / "operator.key").write_text("another-secret-0123456789", "utf-8")
    server.process.send_signal(signal.SIGHUP)
    server.wait_for_log("active keys of the admin side: 1")
    assert ask(port)[0] == 401
    assert ask(port, secret="another-secret-0123456789")[0] == 404
    (tmp_path / "operator.key").write_text("short", "utf-8")
    server.process.send_signal(signal.SIGHUP)
    server.wait_for_log("not applied")
    assert ask(port, secret="another-secret-0123456789")[0] == 404


def test_without_keys_it_says_so(serve: Callable[..., ServerProcess]) -> None:
    server = serve("--admin", "0")
    port = admin_port(server)
    server.wait_for_log("the admin side has no key")
    assert ask(port, path="/live", secret=None)[0] == 200
    assert ask(port)[0] == 401


def refused(directory: Path, *arguments: str) -> str:
    command = [script("twistd"), "-n", "--pidfile=", "lhttp", *arguments]
    done = subprocess.run(command, cwd=directory, capture_output=True, timeout=TIME_LIMIT, check=False, text=True)
    assert done.returncode != 0
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--admin", "tcp:8099", "--port", "tcp:8099"], "cannot share a public port"),
        (["--admin", "nonsense"], "write an endpoint such as"),
        (["--admin", "1", "--grpc", "2", "--upgrade", "x"], "--grpc and --upgrade cannot be combined"),
        (["--grpc", "9082"], "--grpc needs the admin side: add --admin ENDPOINT"),
    ],
)
def test_what_cannot_work_is_refused_at_the_start(tmp_path: Path, arguments: list[str], why: str) -> None:
    assert why in refused(tmp_path, *arguments)


def test_keys_without_a_listener_are_refused(tmp_path: Path) -> None:
    prepare(tmp_path, KEY.replace('[admin]\nlisten = "tcp:0:interface=127.0.0.1"\n', ""))
    assert "add --admin ENDPOINT" in refused(tmp_path, "--config", "lhttp.toml")


def test_a_port_in_use_ends_the_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        assert "cannot listen" in refused(tmp_path, "--admin", str(number), "--port", "tcp:0:interface=127.0.0.1")


def test_mistakes_in_the_file_are_told_with_their_line(tmp_path: Path) -> None:
    prepare(tmp_path, KEY.replace('methods = ["*"]', 'methods = ["everything"]\n\n[admin.keys.x]\nsecret = "x"'))
    told = refused(tmp_path, "--config", "lhttp.toml")
    assert re.search(r"lhttp\.toml:\d+: .*there is no method 'everything'", told)
    assert re.search(r"lhttp\.toml:\d+: .*there is no key secret", told)
